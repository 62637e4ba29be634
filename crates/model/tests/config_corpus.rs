//! The corpus: every defect that a person can write into `seaworthy.toml`, with exactly what that person sees.
//!
//! A file `testdata/config/invalid/<the-defect>.toml` has its message beside it in `<the-defect>.txt`. A second file of the
//! configuration begins at a line `#### name`. `UPDATE_EXPECT=1 cargo test` rewrites the messages; read them before you
//! accept them.

#![expect(clippy::unwrap_used, reason = "a test whose case cannot be set up must fail")]

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use seaworthy_model::config::{Parsed, SourceText, parse, render, show};

fn corpus(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn sources(text: &str) -> Vec<SourceText> {
    let mut parts = text.split("#### ");
    let root = parts.next().unwrap();
    let mut sources = vec![SourceText::new("seaworthy.toml", root)];
    for part in parts {
        let (name, text) = part.split_once('\n').unwrap();
        sources.push(SourceText::new(name.trim(), text));
    }
    sources
}

fn read(path: &Path) -> Vec<SourceText> {
    sources(&fs::read_to_string(path).unwrap())
}

#[test]
fn every_defect_is_refused_with_the_words_of_the_corpus() {
    let files = corpus("invalid");
    assert!(files.len() >= 60, "the corpus has {} defects", files.len());
    for path in files {
        let seen = match parse(&read(&path)) {
            Err(diagnostics) => render(&diagnostics, false),
            Ok(_) => panic!("{} is accepted", path.display()),
        };
        let coloured = parse(&read(&path)).map_err(|diagnostics| render(&diagnostics, true)).unwrap_err();
        assert_ne!(coloured, seen);
        assert_eq!(without_colour(&coloured), seen, "colour says something that words do not");
        assert!(!seen.contains("hunter2"), "{} shows a secret:\n{seen}", path.display());
        assert!(!seen.contains("mistake in seaworthy"), "{}:\n{seen}", path.display());
        expect_file![path.with_extension("txt")].assert_eq(&seen);
    }
}

fn without_colour(text: &str) -> String {
    let mut out = String::new();
    let mut parts = text.split('\u{1b}');
    out.push_str(parts.next().unwrap());
    for part in parts {
        out.push_str(part.split_once('m').unwrap().1);
    }
    out
}

#[test]
fn a_byte_order_mark_and_carriage_returns_change_nothing() {
    for path in corpus("valid") {
        let text = fs::read_to_string(&path).unwrap();
        let plain = parse(&sources(&text)).unwrap();
        let windows = parse(&sources(&format!("\u{feff}{}", text.replace('\n', "\r\n")))).unwrap();
        assert_eq!(windows.inventory, plain.inventory, "{}", path.display());
    }
    let broken = "\u{feff}# a comment\r\nlog = \"loud\"\r\n";
    let errors = parse(&sources(broken)).unwrap_err();
    let loud = errors.iter().find(|diagnostic| diagnostic.message.contains("loud")).unwrap();
    assert_eq!((loud.place.line, loud.place.column), (2, 7));
}

#[test]
fn what_is_only_odd_is_accepted_with_a_warning() {
    let files = corpus("odd");
    assert!(files.len() >= 5, "the corpus has {} oddities", files.len());
    for path in files {
        let parsed = parse(&read(&path)).unwrap_or_else(|errors| panic!("{}:\n{errors}", path.display()));
        assert!(!parsed.warnings.is_empty(), "{} raises no warning", path.display());
        expect_file![path.with_extension("txt")].assert_eq(&render(&parsed.warnings, false));
    }
}

fn valid() -> Vec<(PathBuf, Parsed)> {
    let files = corpus("valid");
    assert!(files.len() >= 5, "the corpus has {} configurations", files.len());
    let parsed = files.into_iter().map(|path| {
        let parsed = parse(&read(&path)).unwrap_or_else(|errors| panic!("{}:\n{errors}", path.display()));
        (path, parsed)
    });
    parsed.collect()
}

#[test]
fn sound_configurations_are_accepted_without_a_word() {
    for (path, parsed) in valid() {
        assert!(parsed.warnings.is_empty(), "{}:\n{}", path.display(), parsed.warnings);
        expect_file![path.with_extension("txt")].assert_eq(&show(&parsed, true));
    }
}

#[test]
fn what_is_shown_parses_to_the_same_inventory() {
    for (path, parsed) in valid() {
        let shown = show(&parsed, false);
        let again = parse(&[SourceText::new("shown.toml", shown.as_str())])
            .unwrap_or_else(|errors| panic!("{}:\n{shown}\n{errors}", path.display()));
        assert_eq!(again.inventory, parsed.inventory, "{}:\n{shown}", path.display());
        assert_eq!(again.settings.color(), parsed.settings.color());
        assert_eq!(show(&again, false), shown, "showing twice changes something");
    }
}
