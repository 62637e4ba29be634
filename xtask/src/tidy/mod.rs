//! `cargo xtask tidy`: the rules that the compiler cannot enforce.
//!
//! Each rule is a pure function from files or metadata to problems, and has a test that it fires. This module reads;
//! it changes nothing.

mod arrows;
mod documents;
pub(crate) mod licences;
mod scan;
mod words;

use std::process::ExitCode;

use crate::{TaskResult, generate, workspace};

/// One breach of one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// Where: a path, or a path and a line, or a package.
    pub(crate) place: String,
    /// What is wrong and what to do.
    pub(crate) what: String,
}

impl Problem {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }

    fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), what)
    }
}

/// Checks every rule and prints every problem.
pub(crate) fn run() -> TaskResult {
    let root = workspace::root();
    let files = workspace::files(&root)?;
    let metadata = workspace::metadata(&root)?;
    let policy = licences::Policy::parse(&workspace::read(&root.join("deny.toml"))?)?;
    let rules: [(&str, Vec<Problem>); 13] = [
        ("dependency arrows", arrows::check(&metadata)),
        ("purity", words::purity(&files)),
        ("banned words", words::banned(&files)),
        ("names", words::names(&files)),
        ("unsafe", words::unsafety(&files)),
        ("lints", documents::lints(&files)),
        ("crate stories", documents::stories(&files)),
        ("links", documents::links(&files)),
        ("decisions", documents::decisions(&files)),
        ("house files", documents::house(&files)),
        ("licences and bans", licences::check(&policy, &metadata)),
        ("dependency count", generate::dependency_count(&files, &metadata)),
        ("large files", documents::oversized(&files)),
    ];
    let mut total = 0;
    for (rule, problems) in &rules {
        for problem in problems {
            println!("{}: {} [{rule}]", problem.place, problem.what);
        }
        total += problems.len();
    }
    for warning in documents::long(&files) {
        println!("warning: {}: {}", warning.place, warning.what);
    }
    println!("tidy: {} rules, {} files, {total} problems", rules.len(), files.len());
    Ok(if total == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
