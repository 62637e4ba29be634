//! Words and names that do not belong in the code.

use super::{Problem, scan};
use crate::workspace::SourceFile;

fn is_rust(file: &SourceFile) -> bool {
    file.path.ends_with(".rs")
}

fn problems_of(file: &SourceFile, lines: Vec<usize>, what: &str) -> Vec<Problem> {
    lines.into_iter().map(|line| Problem::at(&file.path, line, what)).collect()
}

/// Calls that have no place in product code, or nowhere at all.
pub(super) fn banned(files: &[SourceFile]) -> Vec<Problem> {
    let nowhere = [
        ("todo!", "todo! is a promise that fails at run time: write it or leave it out"),
        ("unimplemented!", "unimplemented! is a promise that fails at run time"),
        ("dbg!", "dbg! is for the desk, not for the tree"),
        (
            "#[allow(",
            "#[expect(lint, reason = \"...\")] instead of #[allow]: it says why and notices when it is over",
        ),
        ("#![allow(", "#![expect(lint, reason = \"...\")] instead of #![allow]"),
    ];
    let not_in_product = [
        (".unwrap()", "unwrap outside tests: return the error, or expect(\"why it cannot happen\")"),
        ("env::var", "only the binary reads the environment: take it as an argument"),
        ("env::var_os", "only the binary reads the environment: take it as an argument"),
    ];
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        let code = scan::code(&file.text);
        for (word, why) in nowhere {
            problems.extend(problems_of(file, scan::lines_with_word(&code.all, word), why));
        }
        problems.extend(problems_of(
            file,
            scan::lines_with(&code.comments, |line| {
                ["TODO", "FIXME", "XXX"]
                    .iter()
                    .any(|mark| line.split_once(mark).is_some_and(|(_, rest)| !rest.starts_with("(#")))
            }),
            "TODO(#123) with an issue, or not at all",
        ));
        if scan::is_test_path(&file.path) {
            continue;
        }
        // Tests may play the attacker, who has a shell.
        let product: Vec<&str> = code.product.lines().collect();
        let mut shells = shell_lines(&file.text);
        shells.retain(|line| product.get(line - 1).is_some_and(|text| !text.trim().is_empty()));
        problems.extend(problems_of(file, shells, "no shell: pass an argument vector to the program itself"));
        let may_read_environment =
            file.path.starts_with("crates/seaworthy/") || file.path.starts_with("xtask/");
        for (word, why) in not_in_product {
            if word.starts_with("env::") && may_read_environment {
                continue;
            }
            problems.extend(problems_of(file, scan::lines_with_word(&code.product, word), why));
        }
    }
    problems
}

/// Lines that start a shell. Looks into strings, because that is where a shell's name stands.
fn shell_lines(text: &str) -> Vec<usize> {
    let shells = ["sh", "bash", "dash", "/bin/sh", "/bin/bash"];
    let mut lines = scan::lines_with(text, |line| {
        let is_comment = line.trim_start().starts_with("//");
        !is_comment && shells.iter().any(|shell| line.contains(&format!("Command::new(\"{shell}\")")))
    });
    // An argument vector: the shell and its flag beside one another, on one line or on two.
    let is_pair = |text: &str| shells.iter().any(|shell| text.contains(&format!("\"{shell}\", \"-c\"")));
    let rows: Vec<&str> = text.lines().map(str::trim).collect();
    for (number, row) in rows.iter().enumerate() {
        let next = rows.get(number + 1).copied().unwrap_or_default();
        let is_split = !is_pair(next) && is_pair(&format!("{row} {next}"));
        if !row.starts_with("//") && (is_pair(row) || is_split) {
            lines.push(number + 1);
        }
    }
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Names that say that the boundary is wrong.
pub(super) fn names(files: &[SourceFile]) -> Vec<Problem> {
    let endings = ["Manager", "Helper", "Helpers", "Util", "Utils", "Info"];
    let modules = ["util", "utils", "helper", "helpers", "misc", "common"];
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        let code = scan::code(&file.text).all;
        for (number, line) in code.lines().enumerate() {
            let words: Vec<&str> = line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .collect();
            for pair in words.windows(2) {
                let (keyword, name) = (pair[0], pair[1]);
                let is_bad = match keyword {
                    "struct" | "enum" | "trait" | "type" => {
                        endings.iter().any(|ending| name.ends_with(ending))
                    }
                    "mod" => modules.contains(&name) && !scan::is_test_path(&file.path),
                    "fn" => name == "process" || name == "handle",
                    _ => false,
                };
                if is_bad {
                    problems.push(Problem::at(
                        &file.path,
                        number + 1,
                        format!("`{keyword} {name}`: a name that says nothing; if a better one is hard, the boundary is wrong"),
                    ));
                }
            }
        }
    }
    problems
}

/// Where unsafe code may stand.
const UNSAFE: [&str; 2] = ["crates/digest/", "crates/syscall/src/heap.rs"];

/// `unsafe` lives in two audited places.
pub(super) fn unsafety(files: &[SourceFile]) -> Vec<Problem> {
    files
        .iter()
        .filter(|file| is_rust(file) && !UNSAFE.iter().any(|place| file.path.starts_with(place)))
        .flat_map(|file| {
            let lines = scan::lines_with_word(&scan::code(&file.text).all, "unsafe");
            problems_of(
                file,
                lines,
                "unsafe belongs in crates/digest or crates/syscall/src/heap.rs, behind a safe door",
            )
        })
        .collect()
}

/// The pure crate: nothing that can wait, or fail for reasons outside its arguments.
pub(super) fn purity(files: &[SourceFile]) -> Vec<Problem> {
    let words = [
        "std::fs",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "ToSocketAddrs",
        "std::env",
        "std::process",
        "std::thread",
        "std::time",
        "std::os",
        "tokio",
        "async fn",
        ".await",
        "Timestamp::now",
        "Zoned::now",
        "SystemTime",
        "Instant::now",
        "println!",
        "eprintln!",
    ];
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| is_rust(file) && file.path.starts_with("crates/model/src/")) {
        let code = scan::code(&file.text).product;
        for word in words {
            problems.extend(problems_of(
                file,
                scan::lines_with_word(&code, word),
                &format!("`{word}` in the pure crate: take the value as an argument"),
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Vec<SourceFile> {
        vec![SourceFile::sample(path, text)]
    }

    #[test]
    fn unwrap_is_found_in_product_code_and_left_in_tests() {
        let text = "fn a() { b.unwrap(); }\n#[cfg(test)]\nmod tests { fn c() { d.unwrap(); } }\n";
        let found = banned(&file("crates/engine/src/a.rs", text));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "crates/engine/src/a.rs:1");
        assert!(banned(&file("crates/engine/tests/a.rs", text)).is_empty());
    }

    #[test]
    fn promises_and_silenced_lints_are_found_everywhere() {
        for bad in ["todo!()", "unimplemented!()", "dbg!(x)"] {
            assert_eq!(
                banned(&file("crates/engine/tests/a.rs", &format!("fn a() {{ {bad} }}"))).len(),
                1,
                "{bad}"
            );
        }
        assert_eq!(banned(&file("xtask/src/a.rs", "#[allow(dead_code)]\nfn a() {}")).len(), 1);
        assert_eq!(banned(&file("xtask/src/a.rs", "#![allow(dead_code)]\n")).len(), 1);
        assert!(banned(&file("xtask/src/a.rs", "// todo! and #[allow(x)] in words\n")).is_empty());
    }

    #[test]
    fn a_shell_is_found_on_one_line_and_on_two() {
        assert_eq!(banned(&file("a/src/a.rs", "Command::new(\"sh\").arg(x)")).len(), 1);
        assert_eq!(banned(&file("a/src/a.rs", "let v = [\"bash\", \"-c\", x];")).len(), 1);
        assert_eq!(banned(&file("a/src/a.rs", "vec![\n    \"sh\",\n    \"-c\",\n]")).len(), 1);
        assert!(
            banned(&file("a/src/a.rs", "// Command::new(\"sh\")\nCommand::new(\"psql\").arg(\"-c\")"))
                .is_empty()
        );
    }

    #[test]
    fn only_the_binary_reads_the_environment() {
        let text = "fn a() { std::env::var(\"X\") }";
        assert_eq!(banned(&file("crates/drivers/src/a.rs", text)).len(), 1);
        assert!(banned(&file("crates/seaworthy/src/a.rs", text)).is_empty());
    }

    #[test]
    fn a_note_without_an_issue_is_found() {
        assert_eq!(banned(&file("a/src/a.rs", "// TODO: later\n")).len(), 1);
        assert!(banned(&file("a/src/a.rs", "// TODO(#12): later\n")).is_empty());
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for bad in ["struct BackupManager;", "mod utils;", "fn process(x: u8) {}", "enum FileInfo {}"] {
            assert_eq!(names(&file("crates/engine/src/a.rs", bad)).len(), 1, "{bad}");
        }
        for good in ["use std::process::Command;", "struct Management;", "fn processes() {}", "mod process;"]
        {
            assert!(names(&file("crates/engine/src/a.rs", good)).is_empty(), "{good}");
        }
    }

    #[test]
    fn unsafe_is_found_outside_its_crate() {
        let text = "fn a() { unsafe { b() } }";
        assert_eq!(unsafety(&file("crates/drivers/src/a.rs", text)).len(), 1);
        assert!(unsafety(&file("crates/digest/src/a.rs", text)).is_empty());
        assert!(unsafety(&file("crates/syscall/src/heap.rs", text)).is_empty());
        assert_eq!(unsafety(&file("crates/syscall/src/sandbox/mod.rs", text)).len(), 1);
        assert!(
            unsafety(&file("crates/drivers/src/a.rs", "// unsafe\nlet unsafe_code = \"unsafe\";")).is_empty()
        );
    }

    #[test]
    fn a_clock_in_the_pure_crate_is_found() {
        assert_eq!(purity(&file("crates/model/src/a.rs", "fn a() { jiff::Timestamp::now() }")).len(), 1);
        assert_eq!(purity(&file("crates/model/src/a.rs", "use std::fs;")).len(), 1);
        assert!(purity(&file("crates/engine/src/a.rs", "use std::fs;")).is_empty());
    }
}
