//! The dependency rule: arrows point down only. The picture is in ARCHITECTURE.md; this is its enforcement.

use super::Problem;
use crate::workspace::Metadata;

struct Room {
    package: &'static str,
    /// Our packages that it may use.
    uses: &'static [&'static str],
    /// Our packages that its tests may use besides.
    tests_use: &'static [&'static str],
    /// Third-party packages that it must not use, not even in tests.
    never: &'static [&'static str],
}

/// What would let the pure crate wait, roll dice, or touch the world.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures",
    "async-trait",
    "async-std",
    "smol",
    "rand",
    "getrandom",
    "fastrand",
    "reqwest",
    "hyper",
    "rustix",
    "nix",
    "libc",
    "rusqlite",
    "object_store",
    "tracing",
    "log",
    "tempfile",
];

const ROOMS: &[Room] = &[
    Room { package: "seaworthy-digest", uses: &[], tests_use: &[], never: IMPURE },
    Room { package: "seaworthy-repository", uses: &["seaworthy-digest"], tests_use: &[], never: &[] },
    Room { package: "seaworthy-syscall", uses: &[], tests_use: &[], never: &["tokio"] },
    Room { package: "seaworthy-model", uses: &[], tests_use: &[], never: IMPURE },
    Room {
        package: "seaworthy-interface",
        uses: &["seaworthy-model"],
        tests_use: &["seaworthy-testkit"],
        never: &["rusqlite", "tokio-postgres"],
    },
    Room {
        package: "seaworthy-drivers",
        uses: &["seaworthy-interface", "seaworthy-model", "seaworthy-syscall"],
        tests_use: &["seaworthy-testkit", "seaworthy-repository"],
        never: &[],
    },
    Room {
        package: "seaworthy-catalog",
        uses: &["seaworthy-model"],
        tests_use: &["seaworthy-testkit"],
        never: &["object_store"],
    },
    Room {
        package: "seaworthy-engine",
        uses: &["seaworthy-catalog", "seaworthy-interface", "seaworthy-model", "seaworthy-repository"],
        tests_use: &["seaworthy-testkit"],
        never: &["rusqlite", "tokio-postgres"],
    },
    Room {
        package: "seaworthy",
        uses: &[
            "seaworthy-catalog",
            "seaworthy-drivers",
            "seaworthy-engine",
            "seaworthy-interface",
            "seaworthy-model",
            "seaworthy-repository",
            "seaworthy-syscall",
        ],
        tests_use: &["seaworthy-sabotage", "seaworthy-testkit"],
        never: &[],
    },
    Room {
        package: "seaworthy-sabotage",
        uses: &["seaworthy-catalog", "seaworthy-model", "seaworthy-repository", "seaworthy-testkit"],
        tests_use: &[],
        never: &[],
    },
    Room {
        package: "seaworthy-testkit",
        uses: &["seaworthy-interface", "seaworthy-model", "seaworthy-repository", "seaworthy-syscall"],
        tests_use: &[],
        never: &[],
    },
    Room { package: "xtask", uses: &["seaworthy-model", "seaworthy-testkit"], tests_use: &[], never: &[] },
];

/// Every arrow that points where it may not, and every package that the rule does not know.
pub(super) fn check(metadata: &Metadata) -> Vec<Problem> {
    let mut problems = Vec::new();
    let members = metadata.members();
    for member in &members {
        let Some(room) = ROOMS.iter().find(|room| room.package == member.name) else {
            problems.push(Problem::new(
                &member.name,
                "a new crate: say in ARCHITECTURE.md and in xtask/src/tidy/arrows.rs what it may use",
            ));
            continue;
        };
        for dependency in &member.dependencies {
            let name = dependency.name.as_str();
            let is_ours = members.iter().any(|other| other.name == name);
            let is_test = dependency.kind.as_deref() == Some("dev");
            let is_allowed = room.uses.contains(&name) || (is_test && room.tests_use.contains(&name));
            if is_ours && !is_allowed {
                let tests = if is_test { "'s tests" } else { "" };
                problems
                    .push(Problem::new(&member.name, format!("{}{tests} may not use {name}", member.name)));
            }
            if room.never.contains(&name) {
                problems.push(Problem::new(&member.name, format!("{} must never use {name}", member.name)));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Dependency, Package};

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            id: name.to_owned(),
            license: None,
            license_file: None,
            source: None,
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
                .collect(),
        }
    }

    fn problems(packages: Vec<Package>) -> Vec<String> {
        let workspace_members = packages.iter().map(|package| package.id.clone()).collect();
        check(&Metadata { packages, workspace_members, target_directory: "target".into() })
            .into_iter()
            .map(|problem| problem.what)
            .collect()
    }

    #[test]
    fn an_arrow_that_points_up_is_found() {
        let up = problems(vec![
            package("seaworthy-engine", &[("seaworthy-drivers", None)]),
            package("seaworthy-drivers", &[("seaworthy-interface", None)]),
            package("seaworthy-interface", &[]),
        ]);
        assert_eq!(up, ["seaworthy-engine may not use seaworthy-drivers"]);
    }

    #[test]
    fn the_repository_uses_nothing_of_ours_not_even_in_tests() {
        let found = problems(vec![
            package("seaworthy-repository", &[("seaworthy-model", Some("dev"))]),
            package("seaworthy-model", &[]),
        ]);
        assert_eq!(found, ["seaworthy-repository's tests may not use seaworthy-model"]);
    }

    #[test]
    fn the_model_cannot_wait_or_roll_dice() {
        let found = problems(vec![package(
            "seaworthy-model",
            &[("tokio", None), ("rand", Some("dev")), ("serde", None)],
        )]);
        assert_eq!(found, ["seaworthy-model must never use tokio", "seaworthy-model must never use rand"]);
    }

    #[test]
    fn the_testkit_is_for_tests_only() {
        let kit = || package("seaworthy-testkit", &[]);
        assert!(
            problems(vec![package("seaworthy-drivers", &[("seaworthy-testkit", Some("dev"))]), kit()])
                .is_empty()
        );
        assert_eq!(
            problems(vec![package("seaworthy-drivers", &[("seaworthy-testkit", None)]), kit()]).len(),
            1
        );
    }

    #[test]
    fn a_crate_that_the_rule_does_not_know_is_found() {
        assert!(problems(vec![package("seaworthy-extra", &[])])[0].starts_with("a new crate"));
    }
}
