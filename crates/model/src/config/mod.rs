//! Configuration: text becomes an [`Inventory`] that cannot be wrong, or diagnostics that teach.
//!
//! Three passes over a document with spans. *Shape*: unknown keys, missing keys, wrong types, against the schema that is
//! generated from the tables themselves. *Meaning*: names that must resolve, paths, schedules, promises that their
//! schedules cannot keep, secrets in plain text. *Inventory*: what is left, with a documented default for everything
//! omitted and the origin of every value. All problems are reported at once, each with its line, a caret and a hint.
//!
//! This module never touches the disk, the environment or the clock. Who reads files asks [`includes`] which further ones
//! the first names, expands patterns, and hands all texts to [`parse`]. No value of a secret is ever repeated: neither in a
//! message nor in the snippet beside it.

mod adopted;
mod cadence;
mod conform;
mod custody;
mod diagnostic;
mod mask;
mod meaning;
mod nearest;
mod placement;
mod remote;
mod schema;
mod settings;
mod shape;
mod show;
mod sources;
mod template;
mod units;

use std::collections::BTreeMap;

use serde::{Deserialize as _, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

pub(crate) use cadence::next_after;
pub use diagnostic::{Diagnostic, Diagnostics, Location, Severity, SourceText, render};
pub(crate) use mask::looks_secret;
pub use schema::{findings_markdown, reference_markdown, schema};
pub use settings::{Settings, overlay};
pub use show::show;
pub use template::{Discovered, DiscoveredPostgres, SCHEMA_FILE, template};
pub use units::{DurationError, SizeError, format_duration, parse_duration, parse_size};

use crate::service::Inventory;
use diagnostic::{Draft, Place, Sink};
use meaning::Document;
use shape::FileTable;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Nothing was said; the documented default.
    Default,
    /// A file of the configuration.
    File {
        /// Its name.
        file: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Env {
        /// Its name.
        name: String,
    },
    /// A flag of the command line.
    Flag {
        /// The flag, with its dashes.
        name: String,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Env { name } => write!(f, "environment {name}"),
            Self::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

/// The origin of each value by its dotted key, e.g. `services.orders.rpo`.
pub type Origins = BTreeMap<String, Origin>;

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What is promised.
    pub inventory: Inventory,
    /// Settings of the program itself, as the file says them; see [`overlay`] for environment and flags.
    pub settings: Settings,
    /// Where each value comes from.
    pub origins: Origins,
    /// What is usable and probably not what was meant.
    pub warnings: Diagnostics,
}

impl Parsed {
    /// The same configuration with the environment's and the flags' settings laid over the file's; see [`overlay`].
    pub fn overlaid(
        mut self,
        env: &[(String, String)],
        flags: &[(String, String)],
    ) -> Result<Self, Diagnostics> {
        let (settings, origins, warnings) = overlay(&self.settings, &self.origins, env, flags)?;
        self.settings = settings;
        self.origins.extend(origins);
        if self.warnings.is_empty() {
            self.warnings = warnings;
        } else {
            self.warnings = self.warnings.joined(warnings);
        }
        Ok(self)
    }
}

/// The files and patterns that a root text includes, as written; relative ones are relative to the file itself.
///
/// Never fails: a text that cannot be read includes nothing, and [`parse`] says what is wrong with it.
#[must_use]
pub fn includes(text: &str) -> Vec<String> {
    let (document, _) = DeTable::parse_recoverable(text);
    let Some(DeValue::Array(items)) = document.get_ref().get("include").map(Spanned::get_ref) else {
        return Vec::new();
    };
    items.iter().filter_map(|item| item.get_ref().as_str()).map(str::to_owned).collect()
}

/// Turns the texts of a configuration into an inventory, or says everything that is wrong with them.
///
/// The first text is the root; the others are what it includes, in order. `Err` holds at least one error, and the warnings
/// beside it.
pub fn parse(sources: &[SourceText]) -> Result<Parsed, Diagnostics> {
    let mut sink = Sink::new(sources);
    let mut trees: Vec<(usize, Spanned<DeTable<'_>>)> = Vec::new();
    let mut is_readable = true;
    for (index, source) in sources.iter().enumerate() {
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        is_readable &= syntax(index, &source.text, document.get_ref(), &errors, &mut sink);
        trees.push((index, document));
    }
    if sources.is_empty() {
        let text = sink.add_text(SourceText::new("seaworthy.toml", ""));
        Draft::error(Place { text, span: 0..0 }, "there is no configuration")
            .hint("run `seaworthy init` to write one")
            .report(&mut sink);
    }
    if !is_readable {
        // What a broken line leaves of the document would only raise false alarms.
        return Err(sink.finish());
    }

    let mut documents = Vec::new();
    for (text, mut tree) in trees {
        conform::conform(&mut tree, text, &mut sink);
        let span = tree.span();
        let value = Spanned::new(span.clone(), DeValue::Table(tree.into_inner()));
        match FileTable::deserialize(ValueDeserializer::from(value)) {
            Ok(table) => documents.push(Document { text, table }),
            Err(error) => {
                // Only reached where the shape check and the tables disagree, which is a mistake of ours; never silent.
                let span = error.span().unwrap_or(span);
                Draft::error(Place { text, span }, "this cannot be read")
                    .hint("this is a mistake in seaworthy; report it with the line above")
                    .report(&mut sink);
            }
        }
    }
    let (inventory, mut origins) = meaning::judge(&documents, &mut sink);
    let settings = documents
        .first()
        .map(|root| settings::from_file(&root.table, &mut sink, &mut origins))
        .unwrap_or_default();
    for (what, path) in
        [("state directory", &settings.state_dir), ("scratch directory", &settings.scratch_dir)]
    {
        let key = if what.starts_with("state") { "state_dir" } else { "scratch_dir" };
        if let Some(path) = path
            && let Some(document) = documents.first()
        {
            let at = if key == "state_dir" { &document.table.state_dir } else { &document.table.scratch_dir };
            if let Some(at) = at {
                meaning::check_path(
                    &mut sink,
                    what,
                    Place { text: document.text, span: at.span.clone() },
                    path,
                );
            }
        }
    }
    if sink.has_errors() {
        return Err(sink.finish());
    }
    Ok(Parsed { inventory, settings, origins, warnings: sink.finish() })
}

/// Reports what the grammar refuses. Answers whether the document can be judged further.
fn syntax(
    index: usize,
    text: &str,
    document: &DeTable<'_>,
    errors: &[toml::de::Error],
    sink: &mut Sink,
) -> bool {
    let mut headers = Vec::new();
    // 8: after the first broken line the rest of a file is often one echo of it.
    const MOST: usize = 8;
    let mut is_readable = true;
    let mut lines = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let place = Place { text: index, span: span.clone() };
        if error.message() == "duplicate key" {
            let key = text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
            let header = header_before(text, span.start);
            if header.as_ref().is_some_and(|header| header.contains(&span.start)) {
                headers.extend(header.clone());
            } else if header.as_ref().is_some_and(|header| headers.contains(header)) {
                // Keys below a table that is there twice: the table has been reported.
                continue;
            }
            let mut draft = Draft::error(place, format!("{} is written twice", diagnostic::quoted(key)))
                .label("here again")
                .hint("keep one of them; which one would count is nobody's guess");
            let first = header
                .filter(|header| header.contains(&span.start))
                .and_then(|header| same_line_before(text, &header))
                .or_else(|| first_of(document, key, span.start));
            if let Some(first) = first {
                draft = draft.with(Place { text: index, span: first }, "first here");
            }
            draft.report(sink);
            continue;
        }
        is_readable = false;
        let line = sink.line(&place);
        // Several complaints about one line are one mistake.
        if lines.contains(&line) || lines.len() == MOST {
            continue;
        }
        lines.push(line);
        let is_at_end = text.get(span.start..).is_none_or(|rest| rest.trim().is_empty());
        let whole_line = text.lines().nth(line - 1).unwrap_or_default().trim();
        let hint = if is_at_end {
            Some("the file ends in the middle of this: was it written completely?")
        } else if ["<<<<<<<", "=======", ">>>>>>>"].iter().any(|mark| whole_line.starts_with(mark)) {
            Some("a merge was left unfinished: choose one side and delete the marks")
        } else if sink.is_masked(&place) {
            Some(conform::SECRET_HINT)
        } else if error.message().contains("string values must be quoted") {
            Some("put the value in quotes")
        } else if error.message().contains("basic string") || error.message().contains("literal string") {
            Some("is the closing quote missing?")
        } else if !whole_line.contains('=') && whole_line.contains(':') {
            Some("this looks like YAML; in TOML it is: key = \"value\", below a [table]")
        } else {
            None
        };
        Draft::error(place, format!("this is not TOML: {}", error.message()))
            .hint_if(hint.map(str::to_owned))
            .report(sink);
    }
    is_readable
}

/// The nearest line before `at`, or the one that it is on, that opens a table.
fn header_before(text: &str, at: usize) -> Option<std::ops::Range<usize>> {
    let line_end = text.get(at..)?.find('\n').map_or(text.len(), |end| at + end);
    let mut start = 0;
    let mut found = None;
    for line in text.get(..line_end)?.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            found = Some(start..start + line.trim_end().len());
        }
        start += line.len();
    }
    found
}

/// The first line before that says the same as this one.
fn same_line_before(text: &str, line: &std::ops::Range<usize>) -> Option<std::ops::Range<usize>> {
    let wanted = text.get(line.clone())?.trim();
    let mut start = 0;
    for other in text.get(..line.start)?.split_inclusive('\n') {
        if other.trim() == wanted {
            return Some(start..start + other.trim_end().len());
        }
        start += other.len();
    }
    None
}

/// The key of this name that stands nearest before `before`.
fn first_of(table: &DeTable<'_>, key: &str, before: usize) -> Option<std::ops::Range<usize>> {
    let mut best: Option<std::ops::Range<usize>> = None;
    let mut tables = vec![table];
    while let Some(table) = tables.pop() {
        for (name, value) in table {
            let span = name.span();
            if name.get_ref() == key
                && span.start < before
                && best.as_ref().is_none_or(|best| best.start < span.start)
            {
                best = Some(span);
            }
            match value.get_ref() {
                DeValue::Table(inner) => tables.push(inner),
                DeValue::Array(items) => {
                    tables.extend(items.iter().filter_map(|item| match item.get_ref() {
                        DeValue::Table(inner) => Some(inner),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
    }
    best
}
