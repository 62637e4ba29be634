//! Shows defects as a compiler does: place, code, the line with a mark under it, why, and what mends it.

use std::fmt::Write as _;
use std::ops::Range;

use super::{Defect, Mark, Place, Snippet};
use crate::config::looks_secret;
use crate::finding::Severity;

/// 100: fits a terminal of 110 with its margin; longer lines are cut around the mark.
const WIDEST: usize = 100;

/// Most bytes of a line that are looked at to show it: the rest of a line of a megabyte helps nobody.
const LINE_MAX: usize = 2048;

/// Where each line of a text begins.
pub(super) fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// Makes a place of a mark.
pub(super) fn locate(
    name: &str,
    text: &str,
    starts: &[usize],
    mark: &Mark,
    secrets: &[Range<usize>],
) -> Place {
    let start = floor(text, mark.span.start);
    let end = floor(text, mark.span.end).max(start);
    let line = starts.partition_point(|begin| *begin <= start).max(1);
    let line_start = starts.get(line - 1).copied().unwrap_or(0).min(start);
    let line_end = starts.get(line).map_or(text.len(), |next| next.saturating_sub(1)).max(start);
    let on_line = end.min(line_end);
    let count = |range: Range<usize>| text.get(range).map_or(0, |part| part.chars().count());
    Place {
        file: clean(name),
        line,
        column: count(line_start..start) + 1,
        length: count(start..on_line).max(1),
        label: clean(&mark.label),
        snippet: snippet(text, line_start..line_end, start..on_line, secrets),
        text: mark.text,
        start,
    }
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn snippet(text: &str, line: Range<usize>, mark: Range<usize>, secrets: &[Range<usize>]) -> Snippet {
    // A window of the line around the mark, in bytes first, so that a line of a megabyte costs no more than another.
    let from = floor(text, line.start.max(mark.start.saturating_sub(LINE_MAX / 2)));
    let to = floor(text, line.end.min(mark.start + LINE_MAX / 2)).max(from);
    let shown = text.get(from..to).unwrap_or_default().trim_end_matches('\r');
    let mut hidden: Vec<Range<usize>> =
        looks_secret(shown).into_iter().map(|span| span.start + from..span.end + from).collect();
    // A variable's name is no secret, and a reader needs it.
    hidden.retain(|span| {
        !text.get(span.clone()).is_some_and(|value| value.trim_start_matches(['"', '\'']).starts_with('$'))
    });
    hidden.extend(secrets.iter().filter(|span| span.start < to && span.end > from).cloned());
    let mut is_hidden = vec![false; shown.len()];
    for span in hidden {
        let first = span.start.saturating_sub(from).min(shown.len());
        let last = span.end.saturating_sub(from).min(shown.len());
        if let Some(stretch) = is_hidden.get_mut(first..last.max(first)) {
            stretch.fill(true);
        }
    }
    let mut cells: Vec<char> = Vec::new();
    let (mut start, mut end) = (None, None);
    let mut is_masking = false;
    for (offset, character) in shown.char_indices() {
        let at = from + offset;
        if start.is_none() && at >= mark.start {
            start = Some(cells.len());
        }
        if end.is_none() && at >= mark.end {
            end = Some(cells.len());
        }
        if is_hidden.get(offset).copied().unwrap_or(false) {
            // A fixed number of stars: the length of a secret is a hint at it.
            if !is_masking {
                cells.extend(['*'; 8]);
            }
            is_masking = true;
            continue;
        }
        is_masking = false;
        match character {
            '\t' => cells.extend([' '; 4]),
            other => cells.push(visible(other)),
        }
    }
    let start = start.unwrap_or(cells.len());
    let end = end.unwrap_or(cells.len()).max(start + 1);
    let cut = if cells.len() > WIDEST && end > WIDEST {
        (start.saturating_sub(20)).min(cells.len() - WIDEST)
    } else {
        0
    };
    let mut window: String = cells.iter().skip(cut).take(WIDEST).collect();
    if cut > 0 || from > line.start {
        window.replace_range(..window.chars().next().map_or(0, char::len_utf8), "…");
    }
    if cells.len() > cut + WIDEST || to < line.end {
        window.push('…');
    }
    let start = start - cut;
    let length = (end - cut).min(WIDEST + 1).saturating_sub(start).max(1);
    Snippet { line: window.trim_end().to_owned(), start, length }
}

fn visible(character: char) -> char {
    let directs =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if character.is_control() || directs { '·' } else { character }
}

/// No words of ours need a control character; what a text smuggles into them is shown as `·`.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// One defect as it is shown on a terminal; its last line is ended.
///
/// With `colour`, ANSI colours are added; nothing is said by colour alone. Secrets of the marked line are masked.
#[must_use]
pub fn render(defect: &Defect, colour: bool) -> String {
    let paint =
        |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let (word, tone) = match defect.severity {
        Severity::Note => ("note", "1;36"),
        Severity::Warning => ("warning", "1;33"),
        Severity::Critical => ("critical", "1;31"),
    };
    let place = &defect.place;
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    line(format!(
        "{}:{}:{}: {} {}",
        place.file,
        place.line,
        place.column,
        paint(tone, &format!("{word}[{}]:", defect.code)),
        paint("1", &defect.message),
    ));
    let width = place.line.to_string().len();
    let bar = paint("2", "|");
    line(format!("{} {bar} {}", paint("2", &place.line.to_string()), place.snippet.line));
    let carets = "^".repeat(place.snippet.length);
    line(format!("{:width$} {bar} {:start$}{}", "", "", paint(tone, &carets), start = place.snippet.start));
    for related in &defect.related {
        let label = if related.label.is_empty() { related.snippet.line.trim() } else { &related.label };
        line(format!("  and: {}:{}: {label}", related.file, related.line));
    }
    line(format!("  why: {}", defect.why));
    line(format!("  fix: {}", paint("32", &defect.fix)));
    out
}
