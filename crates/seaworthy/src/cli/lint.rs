//! `lint`: reads runbooks, scripts and workflows, and says what in them is known to be bad. Runs nothing of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use seaworthy_model::config::{self, Parsed, SourceText};
use seaworthy_model::finding::Severity;
use seaworthy_model::lint::{Kind, Promises, Report, lint, render};
use tokio_util::sync::CancellationToken;

use crate::cli::args::{self, Cli};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, bytes, count};
use crate::{setup, wiring};

/// Most bytes of a file that are read: longer than any runbook, shorter than a dump that lies beside it.
const BYTES_MAX: u64 = 1 << 20;
/// Most bytes of all files together, which are held in memory so that they can be compared.
const BYTES_IN_ALL_MAX: u64 = 256 << 20;
/// Most files: more are a whole disk, named by mistake.
const FILES_MAX: usize = 50_000;
/// Bytes at the beginning of a file in which a NUL says that it is binary, as git does it.
const PEEK: usize = 8000;
/// Hidden names that are read all the same: this is where workflows and environments are.
const SEEN: [&str; 8] = [
    ".github",
    ".gitlab",
    ".gitlab-ci.yml",
    ".forgejo",
    ".gitea",
    ".circleci",
    ".woodpecker",
    ".woodpecker.yml",
];

/// What was read, and what was not.
#[derive(Debug, Default)]
struct Looked {
    texts: Vec<SourceText>,
    bytes: u64,
    /// Why something was passed over, and how often.
    skipped: BTreeMap<&'static str, usize>,
    /// What could not be read, or not to its end, and why.
    unread: Vec<(String, String)>,
}

/// Reads the paths, and what the configuration promises where there is one, and reports what is wrong.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Lint,
    cancel: CancellationToken,
) -> Outcome {
    let promised = promises(cli, face)?;
    if arguments.paths.is_empty() && promised.is_none() {
        return Err(Failure::new(
            Exit::Usage,
            "there is nothing to read: no path was given and there is no configuration",
        )
        .hint("seaworthy lint docs scripts .github"));
    }
    let paths = arguments.paths.clone();
    let (looked, report, promised) = wiring::blocking(move || {
        let mut looked = Looked::default();
        for path in &paths {
            looked.look(path, true, &cancel)?;
        }
        let promises = promised.as_ref().map(|(parsed, texts)| Promises {
            inventory: &parsed.inventory,
            origins: &parsed.origins,
            texts,
        });
        let report = lint(&looked.texts, promises);
        Ok((looked, report, promised))
    })
    .await?;
    if face.json {
        face.json(&document(&looked, &report, promised.is_some()))?;
    } else {
        show(face, &looked, &report, promised.is_some())?;
    }
    Ok(if !looked.unread.is_empty() {
        // Unknown is never clean, and outranks what is known.
        Exit::Unexpected
    } else if report.defects.is_empty() {
        Exit::Ok
    } else {
        Exit::Findings
    })
}

/// The configuration, where there is one. One that was named has to be there, and one that is there has to be right.
fn promises(cli: &Cli, face: &Face) -> Outcome<Option<(Parsed, Vec<SourceText>)>> {
    let path = match setup::locate(cli) {
        Ok(path) => path,
        Err(failure) if cli.global.config.is_some() => return Err(failure),
        Err(_) => return Ok(None),
    };
    let texts = setup::texts(&path)?;
    let parsed = config::parse(&texts).map_err(|problems| setup::refused(face, &problems))?;
    face.heed_colour(parsed.settings.color());
    face.step(format!("read the configuration {}", path.display()))?;
    Ok(Some((parsed, texts)))
}

impl Looked {
    fn skip(&mut self, why: &'static str) {
        *self.skipped.entry(why).or_default() += 1;
    }

    fn cannot(&mut self, path: &Path, why: impl Into<String>) {
        self.unread.push((printable(&path.display().to_string()), printable(&why.into())));
    }

    /// Reads a file, or looks through a directory in the order of names. Links inside of a directory are not followed.
    fn look(&mut self, path: &Path, is_named: bool, cancel: &CancellationToken) -> Outcome<()> {
        if cancel.is_cancelled() {
            return Err(Failure::new(Exit::Interrupted, "stopped before everything was read"));
        }
        let facts = if is_named { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => {
                self.cannot(path, error.to_string());
                return Ok(());
            }
        };
        if facts.is_dir() {
            return self.look_through(path, cancel);
        }
        if facts.is_symlink() {
            self.skip("symbolic links, which are not followed");
        } else if facts.is_file() {
            self.read(path, is_named)?;
        } else if is_named {
            self.cannot(path, "it is neither a file nor a directory");
        } else {
            self.skip("neither files nor directories");
        }
        Ok(())
    }

    fn look_through(&mut self, directory: &Path, cancel: &CancellationToken) -> Outcome<()> {
        let mut names: Vec<PathBuf> = Vec::new();
        let listed = std::fs::read_dir(directory).and_then(|entries| {
            for entry in entries {
                names.push(entry?.path());
            }
            Ok(())
        });
        if let Err(error) = listed {
            // A listing that fails is not an empty one.
            self.cannot(directory, error.to_string());
            return Ok(());
        }
        names.sort();
        for path in names {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_hidden = name.starts_with('.')
                && !SEEN.contains(&name.as_ref())
                && name != ".env"
                && !name.starts_with(".env.");
            if is_hidden {
                self.skip("hidden");
            } else if name == "node_modules" {
                self.skip("packages of others");
            } else {
                self.look(&path, false, cancel)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, path: &Path, is_named: bool) -> Outcome<()> {
        let name = path.display().to_string();
        let has_kind = Kind::of_name(&name).is_some();
        // A file of another kind is looked into only for a shebang, and a name with an extension says that there is none.
        if !is_named && !has_kind && path.extension().is_some() {
            self.skip("of kinds that it does not read");
            return Ok(());
        }
        let mut content = Vec::new();
        let taken = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut content));
        if let Err(error) = taken {
            self.cannot(path, error.to_string());
            return Ok(());
        }
        if content.iter().take(PEEK).any(|byte| *byte == 0) {
            if is_named {
                self.cannot(path, "it is binary");
            } else {
                self.skip("binary");
            }
            return Ok(());
        }
        if content.len() as u64 > BYTES_MAX {
            content.truncate(content.len() - 1);
            self.cannot(path, format!("only its first {} were read", bytes(BYTES_MAX)));
        }
        let text = String::from_utf8_lossy(&content).into_owned();
        if !is_named && !has_kind && Kind::of_content(&text).is_none() {
            self.skip("of kinds that it does not read");
            return Ok(());
        }
        self.bytes += text.len() as u64;
        if self.texts.len() >= FILES_MAX || self.bytes > BYTES_IN_ALL_MAX {
            return Err(Failure::new(
                Exit::Usage,
                format!("these are more than {FILES_MAX} files or {}", bytes(BYTES_IN_ALL_MAX)),
            )
            .hint("name the directories of your runbooks and scripts one by one"));
        }
        self.texts.push(SourceText::new(name, text));
        Ok(())
    }
}

fn of(report: &Report, severity: Severity) -> usize {
    report.defects.iter().filter(|defect| defect.severity == severity).count()
}

fn show(face: &Face, looked: &Looked, report: &Report, has_promises: bool) -> Outcome<()> {
    for defect in &report.defects {
        face.data(render(defect, face.colour()))?;
    }
    for exception in &report.idle {
        let codes: Vec<&str> = exception.codes.iter().map(|code| code.as_str()).collect();
        face.say(format!(
            "{} {}:{}: the exception for {} allows nothing here; take it away",
            face.paint(Tone::Warn, "!"),
            printable(&exception.file),
            exception.line,
            codes.join(", ")
        ))?;
    }
    for (path, why) in &looked.unread {
        face.data(format!("{} {path}: not read: {why}", face.paint(Tone::Bad, "✗")))?;
    }
    let is_alone = looked.texts.is_empty() && looked.unread.is_empty() && has_promises;
    let files = if is_alone { "the configuration".to_owned() } else { count(looked.texts.len(), "file") };
    let is_clean = report.defects.is_empty() && looked.unread.is_empty();
    if is_clean && face.is_quiet() {
        return Ok(());
    }
    let mut words = if report.defects.is_empty() {
        format!("nothing known to be bad in {files}")
    } else {
        let shares: Vec<String> = [
            (of(report, Severity::Critical), "critical"),
            (of(report, Severity::Warning), "to be read tomorrow"),
            (of(report, Severity::Note), "worth knowing"),
        ]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
        format!("{} in {files}: {}", count(report.defects.len(), "defect"), shares.join(", "))
    };
    if has_promises && !is_alone {
        words.push_str("; compared with the configuration");
    }
    if !report.allowed.is_empty() {
        words.push_str(&format!("; {} allowed on purpose", report.allowed.len()));
    }
    if report.omitted > 0 {
        words.push_str(&format!("; {} more not listed", report.omitted));
    }
    let skipped: Vec<String> = looked.skipped.iter().map(|(why, number)| format!("{number} {why}")).collect();
    if !skipped.is_empty() {
        words.push_str(&format!("; passed over: {}", skipped.join(", ")));
    }
    if !looked.unread.is_empty() {
        words.push_str(&format!("; {} not read", looked.unread.len()));
    }
    let (tone, mark) = if is_clean { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
    face.data(format!("{} {words}", face.paint(tone, mark)))
}

fn document(looked: &Looked, report: &Report, has_promises: bool) -> serde_json::Value {
    let unread: Vec<_> =
        looked.unread.iter().map(|(file, why)| serde_json::json!({ "file": file, "why": why })).collect();
    serde_json::json!({
        "schema": "seaworthy.lint/1", "files": looked.texts.len(), "compared_with_configuration": has_promises,
        "defects": report.defects, "allowed": report.allowed, "idle_exceptions": report.idle, "omitted": report.omitted,
        "passed_over": looked.skipped, "unread": unread,
    })
}
