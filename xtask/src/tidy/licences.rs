//! Licences, bans and origins of third-party packages, judged by `deny.toml`, the same file that cargo-deny reads.
//!
//! A subset of what cargo-deny does, so that the rule holds on machines without it: allowed licences with exceptions,
//! banned packages, registries. It knows no advisories.

use serde::Deserialize;

use super::Problem;
use crate::workspace::Metadata;

/// The part of `deny.toml` that we enforce.
#[derive(Debug, Deserialize)]
pub(crate) struct Policy {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    package: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    #[serde(default)]
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    package: String,
    reason: String,
}

impl Policy {
    /// Reads `deny.toml`.
    pub(crate) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    fn allows(&self, package: &str, licence: &str) -> bool {
        self.licenses.allow.iter().any(|allowed| allowed == licence)
            || self.licenses.exceptions.iter().any(|exception| {
                exception.package == package && exception.allow.iter().any(|allowed| allowed == licence)
            })
    }
}

/// Every third-party package whose licence, name or origin is not allowed.
pub(super) fn check(policy: &Policy, metadata: &Metadata) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in metadata.third_party() {
        let place = format!("{} {}", package.name, package.version);
        match (&package.license, &package.license_file) {
            (Some(expression), _) => {
                if !satisfied(expression, &|licence| policy.allows(&package.name, licence)) {
                    problems
                        .push(Problem::new(&place, format!("licence `{expression}` is not in deny.toml")));
                }
            }
            (None, Some(_)) => {
                problems.push(Problem::new(&place, "its licence has no SPDX name: read it, then except it"))
            }
            (None, None) => problems.push(Problem::new(&place, "has no licence")),
        }
        if let Some(ban) = policy.bans.deny.iter().find(|ban| ban.package == package.name) {
            problems.push(Problem::new(&place, format!("is banned: {}", ban.reason)));
        }
        let is_from_crates_io = package.source.as_deref().is_some_and(|source| source.contains("crates.io"));
        if !is_from_crates_io {
            problems.push(Problem::new(&place, "does not come from crates.io"));
        }
    }
    problems
}

/// Whether an SPDX expression holds when each licence it names is allowed or not. `WITH` binds to its licence; the old
/// form `A/B` means `A OR B`. An expression that does not parse is not satisfied.
fn satisfied(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let value = any(&words, &mut at, is_allowed);
    value == Some(true) && at == words.len()
}

fn any(words: &[&str], at: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut value = all(words, at, is_allowed)?;
    while words.get(*at).is_some_and(|word| word.eq_ignore_ascii_case("or")) {
        *at += 1;
        value |= all(words, at, is_allowed)?;
    }
    Some(value)
}

fn all(words: &[&str], at: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut value = one(words, at, is_allowed)?;
    while words.get(*at).is_some_and(|word| word.eq_ignore_ascii_case("and")) {
        *at += 1;
        value &= one(words, at, is_allowed)?;
    }
    Some(value)
}

fn one(words: &[&str], at: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    if word == "(" {
        let value = any(words, at, is_allowed)?;
        if words.get(*at) != Some(&")") {
            return None;
        }
        *at += 1;
        return Some(value);
    }
    if words.get(*at).is_some_and(|word| word.eq_ignore_ascii_case("with")) {
        let exception = words.get(*at + 1)?;
        *at += 2;
        return Some(is_allowed(&format!("{word} WITH {exception}")));
    }
    Some(is_allowed(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Package;

    fn policy() -> Policy {
        Policy::parse(
            "[licenses]\nallow = [\"MIT\", \"Apache-2.0\", \"Apache-2.0 WITH LLVM-exception\"]\n\
             exceptions = [{ crate = \"odd\", allow = [\"CC0-1.0\"] }]\n\
             [bans]\ndeny = [{ crate = \"openssl\", reason = \"rustls\" }]\n",
        )
        .unwrap()
    }

    fn problems(name: &str, licence: Option<&str>, source: Option<&str>) -> usize {
        let package = Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            id: name.to_owned(),
            license: licence.map(str::to_owned),
            license_file: None,
            source: source.map(str::to_owned),
            dependencies: Vec::new(),
        };
        check(
            &policy(),
            &Metadata {
                packages: vec![package],
                workspace_members: Vec::new(),
                target_directory: "target".into(),
            },
        )
        .len()
    }

    const REGISTRY: Option<&str> = Some("registry+https://github.com/rust-lang/crates.io-index");

    #[test]
    fn expressions_are_judged() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert_eq!(problems("a", Some(good), REGISTRY), 0, "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH Odd-exception", "(MIT", "", "MIT MIT"] {
            assert_eq!(problems("a", Some(bad), REGISTRY), 1, "{bad}");
        }
    }

    #[test]
    fn no_licence_a_ban_and_another_origin_are_found() {
        assert_eq!(problems("a", None, REGISTRY), 1);
        assert_eq!(problems("openssl", Some("MIT"), REGISTRY), 1);
        assert_eq!(problems("a", Some("MIT"), Some("git+https://example.org/a")), 1);
    }

    #[test]
    fn an_exception_holds_for_its_package_only() {
        assert_eq!(problems("odd", Some("CC0-1.0"), REGISTRY), 0);
        assert_eq!(problems("other", Some("CC0-1.0"), REGISTRY), 1);
    }
}
