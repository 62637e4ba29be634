//! Rules about documents: that they exist, that they link to what exists, that every crate tells its story.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;
use crate::workspace::SourceFile;

/// Longer than this and a file of code holds more than one idea. A warning.
const LINES_MAX: usize = 1200;
/// Larger than this and a file belongs into a generator or a release, not into the history.
/// 4 MiB: the largest repository written by restic that is kept as a sample is 3.3 MB.
const BYTES_MAX: usize = 4 << 20;

/// Every crate begins with its story.
pub(super) fn stories(files: &[SourceFile]) -> Vec<Problem> {
    files
        .iter()
        .filter(|file| file.path.ends_with("/src/lib.rs") || file.path.ends_with("/src/main.rs"))
        .filter(|file| {
            let story: String = file
                .text
                .lines()
                .take_while(|line| line.starts_with("//!"))
                .map(|line| line.trim_start_matches("//!").trim())
                .collect();
            // "Placeholder." is shorter than any sentence that tells something.
            story.len() < 20
        })
        .map(|file| {
            Problem::new(&file.path, "a crate opens with `//!`: what it is for and what it never does")
        })
        .collect()
}

/// Every crate has the workspace's lints, or forbids unsafe code itself; the two with unsafe code say their own, and a
/// target of the fuzzer is what its macro makes of it.
pub(super) fn lints(files: &[SourceFile]) -> Vec<Problem> {
    files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"))
        .filter(|file| {
            !["crates/digest/Cargo.toml", "crates/syscall/Cargo.toml", "fuzz/Cargo.toml"]
                .contains(&file.path.as_str())
        })
        .filter(|file| {
            let is_shared = file.text.contains("[lints]\nworkspace = true");
            !is_shared && !file.text.contains("unsafe_code = \"forbid\"")
        })
        .map(|file| Problem::new(&file.path, "[lints] workspace = true, so that unsafe code is forbidden"))
        .collect()
}

/// Files that a reader looks for.
pub(super) fn house(files: &[SourceFile]) -> Vec<Problem> {
    let wanted = [
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "STYLE.md",
        "deny.toml",
        "docs/glossary.md",
    ];
    wanted
        .iter()
        .filter(|path| !files.iter().any(|file| file.path == **path && !file.text.trim().is_empty()))
        .map(|path| Problem::new(*path, "is missing or empty"))
        .collect()
}

/// Decisions are named by date, listed in their index, and say the four things.
pub(super) fn decisions(files: &[SourceFile]) -> Vec<Problem> {
    const FOLDER: &str = "docs/adr/";
    let Some(index) = files.iter().find(|file| file.path == "docs/adr/README.md") else {
        return vec![Problem::new("docs/adr/README.md", "the index of decisions is missing")];
    };
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with(FOLDER) && file.path != index.path) {
        let name = &file.path[FOLDER.len()..];
        let is_dated = name.len() > 14
            && name
                .char_indices()
                .take(10)
                .all(|(at, c)| if at == 4 || at == 7 { c == '-' } else { c.is_ascii_digit() })
            && name.ends_with(".md");
        if !is_dated {
            problems.push(Problem::new(&file.path, "name a decision YYYY-MM-DD-slug.md"));
        }
        if !index.text.contains(&format!("({name})")) {
            problems.push(Problem::new(&index.path, format!("does not list {name}")));
        }
        for section in ["## Context", "## Choice", "## What we gave up", "## What would change our mind"] {
            if !file.text.lines().any(|line| line.trim_end() == section) {
                problems.push(Problem::new(&file.path, format!("has no section `{section}`")));
            }
        }
    }
    problems
}

/// Files too large for the history.
pub(super) fn oversized(files: &[SourceFile]) -> Vec<Problem> {
    files
        .iter()
        .filter(|file| file.size_bytes > BYTES_MAX)
        .map(|file| {
            Problem::new(&file.path, format!("is {} bytes; the limit is {BYTES_MAX}", file.size_bytes))
        })
        .collect()
}

/// Files of code that have become long; warnings only.
pub(super) fn long(files: &[SourceFile]) -> Vec<Problem> {
    files
        .iter()
        .filter(|file| file.path.ends_with(".rs") && file.text.lines().count() > LINES_MAX)
        .map(|file| {
            let lines = file.text.lines().count();
            Problem::new(
                &file.path,
                format!("is {lines} lines; above {LINES_MAX} a file holds more than one idea"),
            )
        })
        .collect()
}

/// Links in Markdown that lead nowhere: a file that is not there, or a heading that is not in it.
pub(super) fn links(files: &[SourceFile]) -> Vec<Problem> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for file in files {
        let mut path = file.path.as_str();
        known.insert(path.to_owned());
        while let Some((parent, _)) = path.rsplit_once('/') {
            known.insert(parent.to_owned());
            path = parent;
        }
    }
    let headings: BTreeMap<&str, BTreeSet<String>> = files
        .iter()
        .filter(|file| file.path.ends_with(".md"))
        .map(|file| (file.path.as_str(), anchors(&file.text)))
        .collect();

    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in targets(&file.text) {
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if is_elsewhere || target.is_empty() {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target.as_str(), ""));
            let full = if path.is_empty() { Some(file.path.clone()) } else { resolve(&file.path, path) };
            match full {
                Some(full) if full.is_empty() || known.contains(&full) => {
                    let is_missing = !anchor.is_empty()
                        && headings.get(full.as_str()).is_some_and(|anchors| !anchors.contains(anchor));
                    if is_missing {
                        problems.push(Problem::at(
                            &file.path,
                            line,
                            format!("no heading `#{anchor}` in {full}"),
                        ));
                    }
                }
                _ => problems.push(Problem::at(
                    &file.path,
                    line,
                    format!("link to `{target}`, which is not there"),
                )),
            }
        }
    }
    problems
}

/// Link targets outside of code blocks and code spans, with their lines.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            continue;
        }
        if is_code {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: Vec<&str> = line.split('`').collect();
        let mut plain = String::new();
        for (position, piece) in prose.iter().enumerate() {
            plain.push_str(if position % 2 == 0 { piece } else { "code" });
        }
        let mut rest = plain.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, tail)) = after.split_once(')') else { break };
            let target = target.split_whitespace().next().unwrap_or_default();
            found.push((number + 1, target.trim_matches(['<', '>']).to_owned()));
            rest = tail;
        }
    }
    found
}

/// The headings of a page as the anchors that forges make of them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code || !line.starts_with('#') {
            continue;
        }
        let slug: String = line
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut unique = slug.clone();
        let mut count = 0;
        while !anchors.insert(unique.clone()) {
            count += 1;
            unique = format!("{slug}-{count}");
        }
    }
    anchors
}

/// `target` as seen from the file `from`; `None` when it leaves the workspace.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = if target.starts_with('/') {
        Vec::new()
    } else {
        from.rsplit_once('/').map_or(Vec::new(), |(folder, _)| folder.split('/').collect())
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile::sample(path, text)
    }

    #[test]
    fn a_crate_without_a_story_is_found() {
        let told = "//! The store: reads and writes restic's format.\n\nfn main() {}";
        let files = [file("crates/a/src/lib.rs", "//! Placeholder.\n"), file("crates/b/src/lib.rs", told)];
        assert_eq!(stories(&files).len(), 1);
        assert_eq!(stories(&[file("crates/c/src/main.rs", "fn main() {}")]).len(), 1);
    }

    #[test]
    fn a_crate_without_lints_is_found() {
        assert_eq!(lints(&[file("crates/a/Cargo.toml", "[package]\nname = \"a\"\n")]).len(), 1);
        assert!(lints(&[file("crates/a/Cargo.toml", "[lints]\nworkspace = true\n")]).is_empty());
    }

    #[test]
    fn a_dead_link_is_found_and_a_live_one_is_not() {
        let files = [
            file(
                "README.md",
                "[a](docs/a.md) [b](docs/b.md) [c](docs/a.md#the-part) [d](docs/a.md#nowhere) [e](https://x/y)\n```\n[f](gone)\n```\n`[g](gone)` [h](../out.md) [i](docs)",
            ),
            file("docs/a.md", "# Title\n## The part\n[up](../README.md) [self](#title) [bad](#x)"),
        ];
        let found: Vec<String> = links(&files).into_iter().map(|problem| problem.what).collect();
        assert_eq!(
            found,
            [
                "link to `docs/b.md`, which is not there",
                "no heading `#nowhere` in docs/a.md",
                "link to `../out.md`, which is not there",
                "no heading `#x` in docs/a.md",
            ]
        );
    }

    #[test]
    fn a_decision_that_is_not_listed_or_says_too_little_is_found() {
        let whole = "# T\n## Context\n## Choice\n## What we gave up\n## What would change our mind\n";
        let index = file("docs/adr/README.md", "- [one](2026-01-02-one.md)\n");
        assert!(decisions(&[index.clone(), file("docs/adr/2026-01-02-one.md", whole)]).is_empty());
        assert_eq!(decisions(&[index.clone(), file("docs/adr/2026-01-02-two.md", whole)]).len(), 1);
        assert_eq!(
            decisions(&[index.clone(), file("docs/adr/2026-01-02-one.md", "# T\n## Context\n")]).len(),
            3
        );
        assert_eq!(decisions(&[index, file("docs/adr/one.md", whole)]).len(), 2);
        assert_eq!(decisions(&[]).len(), 1);
    }

    #[test]
    fn a_missing_or_empty_house_file_is_found() {
        let problems = house(&[file("README.md", "x"), file("LICENSE", " \n")]);
        assert!(problems.iter().any(|problem| problem.place == "LICENSE"));
        assert!(!problems.iter().any(|problem| problem.place == "README.md"));
    }

    #[test]
    fn size_limits_fire() {
        assert_eq!(oversized(&[file("a.bin", &"x".repeat(BYTES_MAX + 1))]).len(), 1);
        assert_eq!(long(&[file("a.rs", &"x\n".repeat(LINES_MAX + 1))]).len(), 1);
        assert!(long(&[file("a.rs", "x\n")]).is_empty());
    }
}
