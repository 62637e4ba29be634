//! What is wrong with a configuration, where, and what to do about it.
//!
//! A diagnostic never repeats the value of a secret, and the printer masks every value that is, or looks like, one:
//! a person pastes these messages into a ticket. Control characters of the file are shown as `·`, so that a
//! configuration cannot drive the terminal of who reads about it.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::ops::Range;

use serde::Serialize;

use super::mask;

/// One file of the configuration, as text. Who reads files hands these over; this crate does not.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceText {
    /// The name that messages use, e.g. `seaworthy.toml`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl SourceText {
    /// A text under a name.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the text: it may hold a secret that is about to be refused.
        f.debug_struct("SourceText").field("name", &self.name).field("bytes", &self.text.len()).finish()
    }
}

/// How much a diagnostic weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The configuration is usable, and probably not what was meant.
    Warning,
    /// The configuration is refused.
    Error,
}

impl Severity {
    /// The word that is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A stretch of one of the texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Name of the text.
    pub file: String,
    /// Byte range in it.
    pub span: Range<usize>,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// Words printed beside the marked stretch; may be empty.
    pub label: String,
    #[serde(skip)]
    pub(super) text: usize,
}

/// One thing that is wrong: what, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it weighs.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop. Never a secret's value.
    pub message: String,
    /// Where.
    pub place: Location,
    /// Other places that take part, e.g. the schedule that cannot keep the promise.
    pub related: Vec<Location>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Everything that is wrong, in the order of the files, with the texts needed to show it.
#[derive(Clone, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    texts: Vec<SourceText>,
    masks: Vec<(usize, Range<usize>)>,
}

impl Diagnostics {
    /// Every diagnostic, errors and warnings, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the configuration is refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// These diagnostics and then `other`'s.
    pub(super) fn joined(mut self, other: Self) -> Self {
        let shift = self.texts.len();
        let moved = |mut place: Location| {
            place.text += shift;
            place
        };
        self.texts.extend(other.texts);
        self.masks.extend(other.masks.into_iter().map(|(text, span)| (text + shift, span)));
        self.list.extend(other.list.into_iter().map(|diagnostic| Diagnostic {
            place: moved(diagnostic.place),
            related: diagnostic.related.into_iter().map(moved).collect(),
            ..diagnostic
        }));
        self
    }

    fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(self, false))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

impl std::error::Error for Diagnostics {}

impl Serialize for Diagnostics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

/// A stretch of the text of index `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) text: usize,
    pub(super) span: Range<usize>,
}

/// Collects everything that is wrong while the configuration is read.
pub(super) struct Sink {
    found: Diagnostics,
    line_starts: Vec<Vec<usize>>,
    refused: BTreeSet<String>,
}

/// A diagnostic being written; reaches the sink with [`Draft::report`].
#[must_use = "a draft that is not reported is a swallowed error"]
pub(super) struct Draft {
    severity: Severity,
    message: String,
    place: Place,
    label: String,
    related: Vec<(Place, String)>,
    hint: Option<String>,
}

impl Draft {
    pub(super) fn error(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            place,
            label: String::new(),
            related: Vec::new(),
            hint: None,
        }
    }

    pub(super) fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, message) }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn with(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push((place, label.into()));
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn hint_if(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    pub(super) fn report(self, sink: &mut Sink) {
        sink.push(self);
    }
}

impl Sink {
    pub(super) fn new(texts: &[SourceText]) -> Self {
        let mut sink =
            Self { found: Diagnostics::default(), line_starts: Vec::new(), refused: BTreeSet::new() };
        for text in texts {
            sink.add_text(text.clone());
        }
        sink
    }

    /// Adds a text that messages can point into; answers its index.
    pub(super) fn add_text(&mut self, text: SourceText) -> usize {
        let index = self.found.texts.len();
        let starts = std::iter::once(0).chain(text.text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        self.line_starts.push(starts);
        self.found.masks.extend(mask::looks_secret(&text.text).into_iter().map(|span| (index, span)));
        self.found.texts.push(text);
        index
    }

    /// Keeps a stretch out of every snippet.
    pub(super) fn mask(&mut self, place: Place) {
        self.found.masks.push((place.text, place.span));
    }

    /// Remembers that the value of this dotted key was refused, so that its absence is not reported as well.
    pub(super) fn refuse(&mut self, key: String) {
        self.refused.insert(key);
    }

    /// Whether something was said about this key, or about one below it.
    pub(super) fn has_refused(&self, key: &str) -> bool {
        let is_below = |other: &String| {
            other.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.refused.range(key.to_owned()..).take_while(|other| other.starts_with(key)).any(is_below)
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.has_errors()
    }

    /// Whether a place touches something that is kept out of snippets.
    pub(super) fn is_masked(&self, place: &Place) -> bool {
        self.found.masks.iter().any(|(text, span)| {
            *text == place.text && span.start <= place.span.end && place.span.start <= span.end
        })
    }

    pub(super) fn name(&self, text: usize) -> &str {
        self.found.texts.get(text).map_or("", |text| text.name.as_str())
    }

    /// Line of a place, counted from 1.
    pub(super) fn line(&self, place: &Place) -> usize {
        self.line_starts
            .get(place.text)
            .map_or(1, |starts| starts.partition_point(|start| *start <= place.span.start))
            .max(1)
    }

    pub(super) fn finish(mut self) -> Diagnostics {
        self.found.list.sort_by_key(|diagnostic| (diagnostic.place.text, diagnostic.place.span.start));
        self.found
    }

    fn push(&mut self, draft: Draft) {
        let place = self.locate(&draft.place, draft.label);
        let related = draft.related.into_iter().map(|(place, label)| self.locate(&place, label)).collect();
        self.found.list.push(Diagnostic {
            severity: draft.severity,
            message: clean(draft.message),
            place,
            related,
            hint: draft.hint.map(clean),
        });
    }

    fn locate(&self, place: &Place, label: String) -> Location {
        let line = self.line(place);
        let (name, text) = self
            .found
            .texts
            .get(place.text)
            .map_or(("", ""), |source| (source.name.as_str(), source.text.as_str()));
        let start = floor(text, place.span.start);
        let end = floor(text, place.span.end).max(start);
        let line_start = self
            .line_starts
            .get(place.text)
            .and_then(|starts| starts.get(line - 1))
            .copied()
            .unwrap_or(0)
            .min(start);
        let column = text.get(line_start..start).map_or(0, |before| before.chars().count()) + 1;
        Location {
            file: name.to_owned(),
            span: start..end,
            line,
            column,
            label: clean(label),
            text: place.text,
        }
    }
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A text of the user's as messages quote it: short, on one line, without control characters.
pub(super) fn quoted(text: &str) -> String {
    // 60: a longer value pushes the words of the message off the screen, and the snippet shows it anyway.
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).map(visible).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// No words of ours need a control character; what a user's text smuggles into them is shown as `·`.
fn clean(text: String) -> String {
    if text.chars().all(|character| visible(character) == character) {
        text
    } else {
        text.chars().map(visible).collect()
    }
}

fn visible(character: char) -> char {
    let directs =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if character.is_control() || directs { '·' } else { character }
}

/// Writes every diagnostic with its line, caret and hint, then a line that counts them.
///
/// Values of secrets are masked. With `colour`, ANSI colours are added; nothing is said by colour alone.
#[must_use]
pub fn render(diagnostics: &Diagnostics, colour: bool) -> String {
    let paint = Paint { colour };
    let mut out = String::new();
    for diagnostic in &diagnostics.list {
        render_one(&mut out, diagnostics, diagnostic, &paint);
        out.push('\n');
    }
    let errors = diagnostics.count(Severity::Error);
    let warnings = diagnostics.count(Severity::Warning);
    let counted = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        more => Some(format!("{more} {word}s")),
    };
    let counts: Vec<String> =
        [counted(errors, "error"), counted(warnings, "warning")].into_iter().flatten().collect();
    if !counts.is_empty() {
        out.push_str(&counts.join(", "));
        out.push('\n');
    }
    out
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn as_word(&self, severity: Severity, text: &str) -> String {
        let code = match severity {
            Severity::Error => "1;31",
            Severity::Warning => "1;33",
        };
        self.with(code, text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn render_one(out: &mut String, all: &Diagnostics, diagnostic: &Diagnostic, paint: &Paint) {
    let word = paint.as_word(diagnostic.severity, diagnostic.severity.as_str());
    push(out, format_args!("{word}: {}\n", paint.with("1", &diagnostic.message)));

    // The main mark's file first, and within a file from top to bottom.
    let mut marks: Vec<(&Location, bool)> = vec![(&diagnostic.place, true)];
    marks.extend(diagnostic.related.iter().map(|related| (related, false)));
    marks
        .sort_by_key(|(mark, _)| (mark.text != diagnostic.place.text, mark.text, mark.line, mark.span.start));
    let width = marks.iter().map(|(mark, _)| mark.line.to_string().len()).max().unwrap_or(1);
    let bar = paint.with("1;34", "|");
    let mut shown_file = None;
    let mut shown_line = None;
    for (mark, is_main) in marks {
        if shown_file != Some(mark.text) {
            let arrow = paint.with("1;34", if shown_file.is_none() { "-->" } else { ":::" });
            // The file's line names the main mark, where an editor should jump to.
            let target = if mark.text == diagnostic.place.text { &diagnostic.place } else { mark };
            push(
                out,
                format_args!("{:width$}{arrow} {}:{}:{}\n", "", target.file, target.line, target.column),
            );
            push(out, format_args!("{:width$} {bar}\n", ""));
            shown_file = Some(mark.text);
            shown_line = None;
        } else if shown_line.is_some_and(|line| line != mark.line && line + 1 != mark.line) {
            push(out, format_args!("{:width$} {bar}\n", ""));
        }
        let Some(snippet) = Snippet::of(all, mark) else { continue };
        if shown_line != Some(mark.line) {
            let number = paint.with("1;34", &format!("{:>width$}", mark.line));
            push(out, format_args!("{}\n", format!("{number} {bar} {}", snippet.line).trim_end()));
            shown_line = Some(mark.line);
        }
        let (sign, code) = match (is_main, diagnostic.severity) {
            (true, Severity::Error) => ("^", "1;31"),
            (true, Severity::Warning) => ("^", "1;33"),
            (false, _) => ("-", "1;34"),
        };
        let carets = sign.repeat(snippet.length);
        let underline = if mark.label.is_empty() { carets } else { format!("{carets} {}", mark.label) };
        push(
            out,
            format_args!(
                "{:width$} {bar} {:start$}{}\n",
                "",
                "",
                paint.with(code, &underline),
                start = snippet.start
            ),
        );
    }
    if let Some(hint) = &diagnostic.hint {
        push(out, format_args!("  {}: {hint}\n", paint.with("1;36", "hint")));
    }
}

fn push(out: &mut String, arguments: fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a String cannot fail");
}

/// One line of a text as it may be shown: masked, without control characters, cut to a window around the mark.
struct Snippet {
    line: String,
    start: usize,
    length: usize,
}

impl Snippet {
    // 100: fits a terminal of 110 with its margin; configurations with longer lines are cut around the mark.
    const WIDEST: usize = 100;

    fn of(all: &Diagnostics, mark: &Location) -> Option<Self> {
        let text = all.texts.get(mark.text)?.text.as_str();
        let line_start = text.get(..mark.span.start)?.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text.get(line_start..)?.find('\n').map_or(text.len(), |at| line_start + at);
        let line = text.get(line_start..line_end)?.trim_end_matches('\r');
        let masked: Vec<&Range<usize>> =
            all.masks.iter().filter(|(index, _)| *index == mark.text).map(|(_, span)| span).collect();

        let mut cells: Vec<char> = Vec::new();
        let mut start = None;
        let mut end = None;
        let mut masking = false;
        for (offset, character) in line.char_indices() {
            let at = line_start + offset;
            if start.is_none() && at >= mark.span.start {
                start = Some(cells.len());
            }
            if end.is_none() && at >= mark.span.end {
                end = Some(cells.len());
            }
            if masked.iter().any(|span| span.contains(&at)) {
                // A fixed number of stars: the length of a secret is a hint at it.
                if !masking {
                    cells.extend(['*'; 8]);
                }
                masking = true;
                continue;
            }
            masking = false;
            match character {
                '\t' => cells.extend([' '; 4]),
                other => cells.push(visible(other)),
            }
        }
        let start = start.unwrap_or(cells.len());
        let end = end.unwrap_or(cells.len()).max(start + 1);

        let cut = if cells.len() > Self::WIDEST && start > Self::WIDEST / 2 {
            (start - Self::WIDEST / 2).min(cells.len() - Self::WIDEST)
        } else {
            0
        };
        let mut window: String = cells.iter().skip(cut).take(Self::WIDEST).collect();
        if cut > 0 {
            window.replace_range(..window.chars().next().map_or(0, char::len_utf8), "…");
        }
        if cells.len() > cut + Self::WIDEST {
            window.push('…');
        }
        let start = start - cut;
        let length = (end - cut).min(Self::WIDEST + 1).saturating_sub(start).max(1);
        Some(Self { line: window.trim_end().to_owned(), start, length })
    }
}
