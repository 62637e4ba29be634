//! Reads shell as far as the rules need: words, quotes, pipes, connectors, redirections, here-documents, substitutions.
//!
//! Nothing is expanded and nothing is run: `$NAME` stays what it is. What is not valid shell is read leniently, because
//! documents show output and half sentences between their commands. The time that it takes grows with the length of the
//! text, whatever stands in it.

use std::ops::Range;

use super::region::Region;

/// Deepest substitution that is looked into: `$( … $( … ) … )`. Each level costs one more pass over its content.
const DEPTH_MAX: usize = 6;

/// One word of a command, without its quotes and with its expansions as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says.
    pub(super) text: String,
    /// Where it stands in the document.
    pub(super) span: Range<usize>,
    /// Whether anything in it is expanded when it is run.
    pub(super) has_expansion: bool,
    /// Whether some of it is quoted.
    pub(super) is_quoted: bool,
}

/// `< file`, `2>&1`, `>> log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redirect {
    /// Which descriptor; `None` where the operator's own default is meant.
    pub(super) descriptor: Option<u8>,
    /// The operator: `<`, `>`, `>>`, `>&`, `&>`, `<<<`, `<&`, `>|`.
    pub(super) operator: &'static str,
    /// What it is connected with.
    pub(super) target: Word,
}

/// One command: words, redirections, what it is fed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Simple {
    /// Its words, assignments included.
    pub(super) words: Vec<Word>,
    /// Its redirections.
    pub(super) redirects: Vec<Redirect>,
    /// Its here-document: where it stands in the region.
    pub(super) here: Option<Range<usize>>,
}

/// What stands between a pipeline and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Then {
    /// The next runs whatever came of it.
    #[default]
    Next,
    /// `&&`.
    And,
    /// `||`.
    Or,
    /// `&`.
    Background,
}

/// Commands joined by `|`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pipeline {
    /// Its commands, first to last.
    pub(super) stages: Vec<Simple>,
    /// What follows.
    pub(super) then: Then,
    /// Whether its exit code is asked by `if`, `while`, `until` or `!`.
    pub(super) is_condition: bool,
    /// Whether it stands inside a substitution.
    pub(super) is_nested: bool,
}

/// Reads a whole region.
pub(super) fn parse(region: &Region) -> Vec<Pipeline> {
    let mut parser = Parser {
        region,
        bytes: region.text().as_bytes(),
        at: 0,
        end: region.text().len(),
        depth: 0,
        out: Vec::new(),
        line: Pipeline::default(),
        command: Simple::default(),
        is_piped: false,
        is_closed: false,
        pending: Vec::new(),
        quotes: Quotes { single: true, double: true, back: true, here: true },
    };
    parser.list();
    parser.out
}

/// Which quotes may still close. One that did not is a character like others, and is not looked for again: what cannot
/// be found must not be searched for from every place.
#[derive(Debug, Clone, Copy)]
struct Quotes {
    single: bool,
    double: bool,
    back: bool,
    here: bool,
}

/// A here-document that was announced on this line.
#[derive(Debug)]
struct Pending {
    delimiter: String,
    /// The pipeline and the stage that it feeds; the pipeline is not yet out where `None`.
    pipeline: Option<usize>,
    stage: usize,
}

struct Parser<'r> {
    region: &'r Region,
    bytes: &'r [u8],
    at: usize,
    end: usize,
    depth: usize,
    out: Vec<Pipeline>,
    line: Pipeline,
    command: Simple,
    /// Whether a `|` waits for its right side.
    is_piped: bool,
    /// Whether a group or a compound command has just been closed, so that a connector belongs to what is inside.
    is_closed: bool,
    pending: Vec<Pending>,
    quotes: Quotes,
}

impl Parser<'_> {
    fn byte(&self, ahead: usize) -> u8 {
        let at = self.at + ahead;
        if at < self.end { self.bytes.get(at).copied().unwrap_or(0) } else { 0 }
    }

    fn list(&mut self) {
        while self.at < self.end {
            match self.byte(0) {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.byte(1) == b'\n' => self.at += 2,
                b'\\' if self.byte(1) == b'\r' && self.byte(2) == b'\n' => self.at += 3,
                b'#' => self.at = self.line_end(),
                b'\n' => {
                    self.at += 1;
                    if !self.is_piped || !self.command.words.is_empty() {
                        self.end_pipeline(Then::Next);
                    }
                    self.here_documents();
                }
                b';' => {
                    self.at += 1;
                    self.end_pipeline(Then::Next);
                }
                b'&' if self.byte(1) == b'&' => {
                    self.at += 2;
                    self.end_pipeline(Then::And);
                }
                b'&' if self.byte(1) == b'>' => self.redirect(None),
                b'&' => {
                    self.at += 1;
                    self.end_pipeline(Then::Background);
                }
                b'|' if self.byte(1) == b'|' => {
                    self.at += 2;
                    self.end_pipeline(Then::Or);
                }
                b'|' => {
                    self.at += if self.byte(1) == b'&' { 2 } else { 1 };
                    self.end_command();
                    self.is_piped = true;
                }
                b'(' => {
                    self.at += 1;
                    // `name() {` begins a function: the name is no command.
                    if self.command.words.len() == 1 && self.byte(0) == b')' {
                        self.command = Simple::default();
                        self.at += 1;
                    } else {
                        self.end_pipeline(Then::Next);
                    }
                }
                b')' => {
                    self.at += 1;
                    self.end_pipeline(Then::Next);
                    self.is_closed = true;
                }
                b'<' | b'>' if !self.is_placeholder() => self.redirect(None),
                digit @ b'0'..=b'9'
                    if matches!(self.byte(1), b'<' | b'>') && !self.is_number_of_placeholder() =>
                {
                    self.at += 1;
                    self.redirect(Some(digit - b'0'));
                }
                _ => self.word_of_command(),
            }
        }
        self.end_pipeline(Then::Next);
    }

    /// `<commit>`: a placeholder of a document, not a redirection.
    fn is_placeholder(&self) -> bool {
        let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
        // 64: no placeholder is longer, and the search has to end.
        let inner: Vec<u8> =
            rest.iter().skip(1).take(64).take_while(|byte| **byte != b'>').copied().collect();
        rest.first() == Some(&b'<')
            && rest.get(inner.len() + 1) == Some(&b'>')
            && inner.first().is_some_and(u8::is_ascii_alphabetic)
            && inner
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b' ' | b'.' | b':'))
    }

    fn is_number_of_placeholder(&self) -> bool {
        self.byte(1) == b'<' && {
            let rest = self.bytes.get(self.at + 1..self.end).unwrap_or_default();
            rest.get(1).is_some_and(u8::is_ascii_alphabetic) && rest.iter().take(64).any(|byte| *byte == b'>')
        }
    }

    fn line_end(&self) -> usize {
        let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
        self.at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    }

    fn word_of_command(&mut self) {
        let Some(word) = self.word() else { return };
        if self.command.words.is_empty() && !word.is_quoted {
            match word.text.as_str() {
                "if" | "elif" | "while" | "until" | "!" => {
                    self.line.is_condition = true;
                    return;
                }
                "then" | "else" | "do" | "{" | "time" | "coproc" => return,
                "fi" | "done" | "}" | "esac" => {
                    self.is_closed = true;
                    return;
                }
                // Their lists are no commands; substitutions in them have been read with the words.
                "for" | "case" | "select" | "function" => {
                    while self.at < self.end && !matches!(self.byte(0), b'\n' | b';' | b'{') {
                        let is_between = matches!(
                            self.byte(0),
                            b' ' | b'\t' | b'\r' | b'(' | b')' | b'&' | b'|' | b'<' | b'>'
                        );
                        if is_between || self.word().is_none() {
                            self.at += 1;
                        }
                    }
                    return;
                }
                _ => {}
            }
        }
        self.is_closed = false;
        self.command.words.push(word);
    }

    fn end_command(&mut self) {
        if !self.command.words.is_empty() || !self.command.redirects.is_empty() {
            self.line.stages.push(std::mem::take(&mut self.command));
            self.is_piped = false;
        }
    }

    fn end_pipeline(&mut self, then: Then) {
        self.end_command();
        self.is_piped = false;
        if self.line.stages.is_empty() {
            // `} || true`: what was closed is what is connected.
            if self.is_closed && then != Then::Next {
                if let Some(last) = self.out.last_mut() {
                    last.then = then;
                }
                self.is_closed = false;
            }
            return;
        }
        let mut pipeline = std::mem::take(&mut self.line);
        pipeline.then = then;
        pipeline.is_nested = self.depth > 0;
        for pending in self.pending.iter_mut().filter(|pending| pending.pipeline.is_none()) {
            pending.pipeline = Some(self.out.len());
        }
        self.out.push(pipeline);
    }

    fn redirect(&mut self, descriptor: Option<u8>) {
        let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
        let operators: [&'static str; 12] =
            ["&>>", "<<<", "<<-", "&>", "<<", ">>", "<>", ">&", "<&", ">|", "<", ">"];
        let Some(operator) = operators.into_iter().find(|operator| rest.starts_with(operator.as_bytes()))
        else {
            self.at += 1;
            return;
        };
        // `<( … )`: a file made of a command's output.
        if matches!(operator, "<" | ">") && self.byte(1) == b'(' {
            if let Some(word) = self.word() {
                self.command.words.push(word);
            }
            return;
        }
        self.at += operator.len();
        while matches!(self.byte(0), b' ' | b'\t') {
            self.at += 1;
        }
        let Some(target) = self.word() else { return };
        if matches!(operator, "<<" | "<<-") {
            if self.quotes.here && !target.text.is_empty() {
                self.pending.push(Pending {
                    delimiter: target.text,
                    pipeline: None,
                    stage: self.line.stages.len(),
                });
            }
            return;
        }
        self.command.redirects.push(Redirect { descriptor, operator, target });
    }

    /// Takes the bodies of the here-documents that the line before has announced.
    fn here_documents(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if !self.quotes.here {
                return;
            }
            let start = self.at;
            let mut at = start;
            let mut body = None;
            while at < self.end {
                let rest = self.bytes.get(at..self.end).unwrap_or_default();
                let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                let line = rest.get(..length).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                // Documents indent their blocks, so blanks before the delimiter are taken for the tabs of `<<-`.
                if line.trim_ascii_start() == pending.delimiter.as_bytes() {
                    body = Some((start..at, at + length));
                    break;
                }
                at += length + 1;
            }
            let Some((range, after)) = body else {
                // It never ends, so it has not begun.
                self.quotes.here = false;
                return;
            };
            self.at = (after + 1).min(self.end);
            let pipeline = match pending.pipeline {
                Some(index) => self.out.get_mut(index),
                None => Some(&mut self.line),
            };
            if let Some(stage) = pipeline.and_then(|pipeline| pipeline.stages.get_mut(pending.stage)) {
                stage.here = Some(range);
            }
        }
    }

    /// Reads a word, and the commands of the substitutions in it. `None` where nothing could be read; goes on in any case.
    fn word(&mut self) -> Option<Word> {
        let start = self.at;
        let mut word = Word::default();
        while self.at < self.end {
            match self.byte(0) {
                b' ' | b'\t' | b'\n' | b'\r' | b';' | b'&' | b'|' | b')' => break,
                b'(' => {
                    // `<(` was let through; anything else ends the word.
                    if !(self.at == start + 1 && matches!(self.bytes.get(start), Some(b'<' | b'>'))) {
                        break;
                    }
                    self.substitution(1);
                    word.has_expansion = true;
                    word.text.push_str("<(…)");
                }
                b'<' | b'>' if self.at == start && self.byte(1) == b'(' => self.at += 1,
                b'<' if self.is_placeholder() => {
                    let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
                    self.at += rest.iter().position(|byte| *byte == b'>').unwrap_or(0) + 1;
                    word.has_expansion = true;
                    word.text.push_str("<…>");
                    continue;
                }
                b'<' | b'>' => break,
                b'\\' => {
                    self.at += 1;
                    if matches!(self.byte(0), b'\n' | b'\r') {
                        self.at += if self.byte(0) == b'\r' && self.byte(1) == b'\n' { 2 } else { 1 };
                        continue;
                    }
                    let from = self.at;
                    self.at = self.next_boundary(from);
                    word.text.push_str(self.slice(from..self.at));
                    continue;
                }
                b'\'' if self.quotes.single => {
                    match self.find(self.at + 1, b'\'') {
                        Some(close) => {
                            word.text.push_str(self.slice(self.at + 1..close));
                            word.is_quoted = true;
                            self.at = close + 1;
                            continue;
                        }
                        None => self.quotes.single = false,
                    }
                    continue;
                }
                b'"' if self.quotes.double => {
                    match self.double_end(self.at + 1) {
                        Some(close) => self.double_quoted(close, &mut word),
                        None => self.quotes.double = false,
                    }
                    continue;
                }
                b'`' if self.quotes.back => {
                    match self.find(self.at + 1, b'`') {
                        Some(close) => {
                            let from = self.at;
                            self.nested(self.at + 1, close);
                            self.at = close + 1;
                            word.text.push_str(self.slice(from..self.at));
                            word.has_expansion = true;
                        }
                        None => self.quotes.back = false,
                    }
                    continue;
                }
                b'$' => {
                    self.dollar(&mut word);
                    continue;
                }
                _ => {
                    let from = self.at;
                    self.at = self.next_boundary(from);
                    word.text.push_str(self.slice(from..self.at));
                    continue;
                }
            }
        }
        if self.at == start {
            self.at += 1;
            return None;
        }
        word.span = self.region.place(&(start..self.at));
        Some(word)
    }

    fn double_quoted(&mut self, close: usize, word: &mut Word) {
        word.is_quoted = true;
        self.at += 1;
        let outer = std::mem::replace(&mut self.end, close);
        while self.at < close {
            match self.byte(0) {
                b'\\' => {
                    self.at += 1;
                    let from = self.at;
                    self.at = self.next_boundary(from);
                    word.text.push_str(self.slice(from..self.at));
                }
                b'$' => self.dollar(word),
                b'`' => match self.find(self.at + 1, b'`') {
                    Some(end) => {
                        let from = self.at;
                        self.nested(self.at + 1, end);
                        self.at = end + 1;
                        word.text.push_str(self.slice(from..self.at));
                        word.has_expansion = true;
                    }
                    None => {
                        word.text.push('`');
                        self.at += 1;
                    }
                },
                _ => {
                    let from = self.at;
                    let rest = self.bytes.get(from..close).unwrap_or_default();
                    let length = rest
                        .iter()
                        .position(|byte| matches!(byte, b'\\' | b'$' | b'`'))
                        .unwrap_or(rest.len());
                    self.at = from + length.max(1);
                    word.text.push_str(self.slice(from..self.at));
                }
            }
        }
        self.end = outer;
        self.at = close + 1;
    }

    /// `$( … )`, `$(( … ))`, `${ … }`, `$NAME`, `$'…'`.
    fn dollar(&mut self, word: &mut Word) {
        let from = self.at;
        match self.byte(1) {
            b'(' => self.substitution(1),
            b'{' => {
                let rest = self.bytes.get(from..self.end).unwrap_or_default();
                // `${{ … }}` of a workflow closes twice.
                let is_double = rest.starts_with(b"${{");
                // 256: longer than any expansion, and the search has to end.
                let window = rest.get(..rest.len().min(256)).unwrap_or_default();
                let close = if is_double {
                    window.windows(2).position(|pair| pair == b"}}").map(|at| at + 2)
                } else {
                    window.iter().position(|byte| *byte == b'}').map(|at| at + 1)
                };
                self.at += close.unwrap_or(2);
            }
            _ => self.at += 1,
        }
        self.at = self.at.min(self.end).max(from + 1);
        word.has_expansion = true;
        word.text.push_str(self.slice(from..self.at));
    }

    /// Reads what stands between the parentheses that open `ahead` bytes from here, and goes behind them.
    fn substitution(&mut self, ahead: usize) {
        let ahead = if self.byte(0) == b'(' { 0 } else { ahead };
        let open = self.at + ahead;
        let close = self.balanced(open + 1);
        if self.bytes.get(open + 1) != Some(&b'(') || ahead == 0 {
            self.nested(open + 1, close.min(self.end));
        }
        self.at = (close + 1).min(self.end);
    }

    fn nested(&mut self, start: usize, end: usize) {
        if self.depth >= DEPTH_MAX || start >= end {
            return;
        }
        let mut inner = Parser {
            region: self.region,
            bytes: self.bytes,
            at: start,
            end,
            depth: self.depth + 1,
            out: Vec::new(),
            line: Pipeline::default(),
            command: Simple::default(),
            is_piped: false,
            is_closed: false,
            pending: Vec::new(),
            quotes: Quotes { single: true, double: true, back: false, here: true },
        };
        inner.list();
        self.out.append(&mut inner.out);
    }

    /// The parenthesis that closes what was open at `from`; the end of the text where none does.
    fn balanced(&self, from: usize) -> usize {
        let mut depth = 1_usize;
        let mut at = from;
        let mut is_double = false;
        while at < self.end {
            match self.bytes.get(at).copied().unwrap_or(0) {
                b'\\' => at += 1,
                b'\'' if !is_double => {
                    if let Some(close) = self.find(at + 1, b'\'') {
                        at = close;
                    }
                }
                b'"' => is_double = !is_double,
                b'(' => depth += 1,
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        return at;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        self.end
    }

    /// The quote that closes a double-quoted string whose content begins at `from`.
    fn double_end(&self, from: usize) -> Option<usize> {
        let mut at = from;
        let mut may_close = true;
        while at < self.end {
            match self.bytes.get(at).copied().unwrap_or(0) {
                b'\\' => at += 1,
                b'"' => return Some(at),
                b'$' if may_close && self.bytes.get(at + 1) == Some(&b'(') => {
                    let close = self.balanced(at + 2);
                    if close >= self.end {
                        // An open parenthesis in a string: it is text, and so are those that follow.
                        may_close = false;
                    } else {
                        at = close;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        None
    }

    fn find(&self, from: usize, byte: u8) -> Option<usize> {
        let rest = self.bytes.get(from..self.end)?;
        rest.iter().position(|other| *other == byte).map(|at| from + at)
    }

    fn slice(&self, range: Range<usize>) -> &str {
        self.region.text().get(range).unwrap_or_default()
    }

    fn next_boundary(&self, from: usize) -> usize {
        let text = self.region.text();
        let mut at = from + 1;
        while at < self.end && !text.is_char_boundary(at) {
            at += 1;
        }
        at.min(self.end)
    }
}
