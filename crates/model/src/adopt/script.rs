//! Splits SQL that `pg_dump` wrote into statements, rows and the few commands of psql's that it holds, as psql does, and knows
//! whether the dump came to its end.
//!
//! `psql` runs programs (`\!`, backquotes), reads and writes files (`\i`, `\o`, `\copy`) and connects elsewhere, wherever
//! a dump says so, and a dump says what its maker, or a role of the dumped database, wanted it to say. So no dump is given
//! to psql here: statements go to a scratch engine over its protocol, and every command but those that `pg_dump` itself
//! writes ends the reading.

/// Longest statement: the protocol's own limit is a gigabyte, and no definition comes near this.
const STATEMENT_BYTES_MAX: usize = 256 << 20;
/// Rows are handed on in parts of about this size.
const ROWS_BYTES: usize = 256 << 10;
/// Longest command line that is looked at.
const COMMAND_BYTES_MAX: usize = 4096;

/// A part of a script, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A statement, without its semicolon.
    Statement(Vec<u8>),
    /// A `COPY … FROM stdin`; its rows follow.
    CopyBegin(Vec<u8>),
    /// Rows, whole lines.
    Rows(Vec<u8>),
    /// No more rows of this COPY, and how many there were.
    CopyEnd(u64),
    /// What follows is for another database.
    Connect(String),
}

/// Why a script is not executed further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A command of psql's that no dump needs.
    #[error("line {line} is a command of psql's that pg_dump does not write (`\\{command}`)")]
    Command {
        /// Line, from 1.
        line: u64,
        /// Its first letters; nothing that could be data.
        command: String,
    },
    /// Longer than the limit.
    #[error("the statement that begins in line {0} is longer than 256 MiB")]
    TooLong(u64),
    /// An encoding in which a byte of a character can be taken for a quote.
    #[error("line {line}: the encoding {encoding} cannot be split into statements safely")]
    Encoding {
        /// Line, from 1.
        line: u64,
        /// Its name.
        encoding: String,
    },
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Every dump in it has its last line.
    Whole,
    /// It ends inside something, or without the line with which `pg_dump` ends; in words.
    Cut(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Inside {
    Nothing,
    Quote { has_escapes: bool },
    Identifier,
    Dollar(Vec<u8>),
    LineComment,
    Comment(u32),
}

/// Splits a script that arrives in pieces.
#[derive(Debug)]
pub struct Splitter {
    inside: Inside,
    /// The statement so far, or the line of rows, or the command.
    buffer: Vec<u8>,
    /// Rows not yet handed on: whole lines of `buffer` up to here.
    rows: Option<u64>,
    is_command: bool,
    /// Bytes looked at already.
    at: usize,
    depth: i64,
    begins: u32,
    words: Vec<Vec<u8>>,
    word: Vec<u8>,
    has_text: bool,
    comment: Vec<u8>,
    line: u64,
    began: u64,
    has_standard_strings: bool,
    dumps: Marks,
    clusters: Marks,
    statements: u64,
    after_end: bool,
    /// The rest of the line after a COPY, up to where its rows begin.
    before_rows: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Marks {
    begun: u64,
    ended: u64,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

/// Encodings that only a client can have, whose characters may hold the byte of a quote or of a backslash.
const UNSAFE_ENCODINGS: [&[u8]; 7] = [b"sjis", b"shift_jis", b"big5", b"gbk", b"uhc", b"gb18030", b"johab"];

impl Splitter {
    /// At the beginning of a script.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inside: Inside::Nothing,
            buffer: Vec::new(),
            rows: None,
            is_command: false,
            at: 0,
            depth: 0,
            begins: 0,
            words: Vec::new(),
            word: Vec::new(),
            has_text: false,
            comment: Vec::new(),
            line: 1,
            began: 1,
            has_standard_strings: true,
            dumps: Marks::default(),
            clusters: Marks::default(),
            statements: 0,
            after_end: false,
            before_rows: false,
        }
    }

    /// The line that is being read, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Takes the next piece and hands `part` what is complete by it.
    pub fn feed(&mut self, piece: &[u8], part: &mut dyn FnMut(Part)) -> Result<(), ScriptError> {
        let mut rest = piece;
        while !rest.is_empty() {
            rest = if self.rows.is_some() { self.feed_rows(rest, part) } else { self.feed_sql(rest, part)? };
        }
        Ok(())
    }

    fn feed_rows<'a>(&mut self, piece: &'a [u8], part: &mut dyn FnMut(Part)) -> &'a [u8] {
        let Some(end) = piece.iter().position(|byte| *byte == b'\n') else {
            self.buffer.extend_from_slice(piece);
            return &[];
        };
        self.buffer.extend_from_slice(&piece[..=end]);
        self.line += 1;
        if self.before_rows {
            self.before_rows = false;
            self.buffer.clear();
            self.at = 0;
            return &piece[end + 1..];
        }
        // `at` is where the last line begins.
        let last = &self.buffer[self.at..];
        if last == b"\\.\n" || last == b"\\.\r\n" {
            self.buffer.truncate(self.at);
            if !self.buffer.is_empty() {
                part(Part::Rows(std::mem::take(&mut self.buffer)));
            }
            part(Part::CopyEnd(self.rows.take().unwrap_or(0)));
            self.buffer.clear();
            self.at = 0;
            self.began = self.line;
            return &piece[end + 1..];
        }
        self.rows = self.rows.map(|rows| rows + 1);
        if self.buffer.len() >= ROWS_BYTES {
            part(Part::Rows(std::mem::take(&mut self.buffer)));
        }
        self.at = self.buffer.len();
        &piece[end + 1..]
    }

    fn feed_sql<'a>(&mut self, piece: &'a [u8], part: &mut dyn FnMut(Part)) -> Result<&'a [u8], ScriptError> {
        for (position, byte) in piece.iter().copied().enumerate() {
            if byte == b'\n' {
                self.line += 1;
            }
            if self.is_command {
                if byte == b'\n' {
                    self.is_command = false;
                    let command = std::mem::take(&mut self.buffer);
                    self.command(&command, part)?;
                } else if self.buffer.len() < COMMAND_BYTES_MAX {
                    self.buffer.push(byte);
                }
                continue;
            }
            if self.step(byte, part)? {
                return Ok(&piece[position + 1..]);
            }
            if self.buffer.len() > STATEMENT_BYTES_MAX {
                return Err(ScriptError::TooLong(self.began));
            }
        }
        Ok(&[])
    }

    /// Takes one byte of SQL; whether rows follow it.
    fn step(&mut self, byte: u8, part: &mut dyn FnMut(Part)) -> Result<bool, ScriptError> {
        let previous = self.buffer.last().copied();
        match &mut self.inside {
            Inside::LineComment => {
                if byte == b'\n' {
                    self.inside = Inside::Nothing;
                    self.remark();
                } else if self.comment.len() < 128 {
                    self.comment.push(byte);
                }
                return Ok(false);
            }
            Inside::Comment(depth) => {
                // The comment's last two bytes are kept to see what opens and closes one.
                let before = self.comment.last().copied();
                self.comment.clear();
                match (before, byte) {
                    (Some(b'*'), b'/') => {
                        *depth -= 1;
                        if *depth == 0 {
                            self.inside = Inside::Nothing;
                            self.push(b' ');
                        }
                    }
                    (Some(b'/'), b'*') => *depth += 1,
                    _ => self.comment.push(byte),
                }
                return Ok(false);
            }
            Inside::Quote { has_escapes } => {
                let has_escapes = *has_escapes;
                self.buffer.push(byte);
                if byte == b'\'' && !(has_escapes && is_escaped(&self.buffer)) {
                    self.inside = Inside::Nothing;
                }
                return Ok(false);
            }
            Inside::Identifier => {
                self.buffer.push(byte);
                if byte == b'"' {
                    self.inside = Inside::Nothing;
                }
                return Ok(false);
            }
            Inside::Dollar(tag) => {
                self.buffer.push(byte);
                if byte == b'$' && self.buffer.len() >= self.at + tag.len() && self.buffer.ends_with(tag) {
                    self.inside = Inside::Nothing;
                }
                return Ok(false);
            }
            Inside::Nothing => {}
        }
        match byte {
            b'\'' => {
                let has_escapes = !self.has_standard_strings || self.word.eq_ignore_ascii_case(b"e");
                self.end_word();
                self.push(byte);
                self.inside = Inside::Quote { has_escapes };
            }
            b'"' => {
                self.end_word();
                self.push(byte);
                self.inside = Inside::Identifier;
            }
            b'-' if previous == Some(b'-') && self.has_text_pending(b'-') => {
                self.buffer.pop();
                self.end_word();
                self.settle();
                self.comment.clear();
                self.inside = Inside::LineComment;
            }
            b'*' if previous == Some(b'/') && self.has_text_pending(b'/') => {
                self.buffer.pop();
                self.end_word();
                self.settle();
                self.comment.clear();
                self.inside = Inside::Comment(1);
            }
            b'$' => {
                // `$tag$` opens a text unless it stands inside a word (`a$b$`) or is a parameter (`$1`).
                let from = self.tag_begin();
                if let Some(from) = from {
                    let mut tag = self.buffer[from..].to_vec();
                    tag.push(b'$');
                    self.end_word();
                    self.push(byte);
                    self.at = self.buffer.len();
                    self.inside = Inside::Dollar(tag);
                } else {
                    self.end_word();
                    self.push(byte);
                }
            }
            b'\\' => {
                self.end_word();
                if self.has_text {
                    // In the middle of a statement psql would run it just the same.
                    return Err(self.foreign(b""));
                }
                self.buffer.clear();
                self.is_command = true;
            }
            b';' if self.depth <= 0 && self.begins_closed() => {
                self.end_word();
                return self.end_statement(part);
            }
            _ => {
                if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
                    self.word.push(byte);
                } else {
                    self.end_word();
                }
                match byte {
                    b'(' => self.depth += 1,
                    b')' => self.depth -= 1,
                    _ => {}
                }
                self.push(byte);
            }
        }
        Ok(false)
    }

    fn push(&mut self, byte: u8) {
        if !self.has_text {
            if byte.is_ascii_whitespace() {
                return;
            }
            self.has_text = true;
            self.began = self.line;
        }
        self.buffer.push(byte);
    }

    /// Whether the byte before is an operator's first half and not the end of something else.
    fn has_text_pending(&self, first: u8) -> bool {
        self.has_text && self.buffer.last() == Some(&first)
    }

    /// After the first half of a comment's opening was taken back.
    fn settle(&mut self) {
        if self.buffer.iter().all(u8::is_ascii_whitespace) {
            self.buffer.clear();
            self.has_text = false;
        }
    }

    /// Where the tag begins that a `$` now closes: at an earlier `$` that only letters, digits and `_` separate from here.
    fn tag_begin(&self) -> Option<usize> {
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
        let from = self.buffer.iter().rposition(|byte| !inner(byte))?;
        if self.buffer[from] != b'$' || self.buffer.get(from + 1).is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let before = from.checked_sub(1).and_then(|at| self.buffer.get(at));
        (!before.is_some_and(|byte| inner(byte) || *byte == b'$')).then_some(from)
    }

    /// A word of the statement has ended: the first few, and what opens and closes the body of a function, are looked at.
    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = std::mem::take(&mut self.word).to_ascii_lowercase();
        let is_routine = self.words.first().is_some_and(|first| first == b"create")
            && self.words.iter().any(|word| word == b"function" || word == b"procedure");
        if is_routine {
            match word.as_slice() {
                b"begin" => self.begins += 1,
                b"case" if self.begins > 0 => self.begins += 1,
                b"end" if self.begins > 0 => self.begins -= 1,
                _ => {}
            }
        }
        if self.words.len() < 6 {
            self.words.push(word);
        }
    }

    /// Whether no body of a function is open, the word just before the semicolon included.
    fn begins_closed(&self) -> bool {
        let closes = u32::from(self.begins > 0 && self.word.eq_ignore_ascii_case(b"end"));
        self.begins - closes == 0
    }

    fn end_statement(&mut self, part: &mut dyn FnMut(Part)) -> Result<bool, ScriptError> {
        let statement = std::mem::take(&mut self.buffer);
        let words = std::mem::take(&mut self.words);
        self.has_text = false;
        self.depth = 0;
        self.begins = 0;
        self.at = 0;
        if statement.is_empty() {
            return Ok(false);
        }
        self.statements += 1;
        self.after_end = false;
        let first = words.first().map(Vec::as_slice).unwrap_or_default();
        if first == b"copy" && reads_rows(&statement) {
            part(Part::CopyBegin(statement));
            self.rows = Some(0);
            // Rows begin in the next line.
            self.before_rows = true;
            return Ok(true);
        }
        if first == b"set" {
            let lower = statement.to_ascii_lowercase();
            let value = lower.rsplit(|byte| *byte == b'=').next().unwrap_or_default();
            let value: Vec<u8> =
                value.iter().copied().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'\'').collect();
            match words.get(1).map(Vec::as_slice) {
                Some(b"standard_conforming_strings") => self.has_standard_strings = value != b"off",
                Some(b"client_encoding") if UNSAFE_ENCODINGS.contains(&value.as_slice()) => {
                    return Err(ScriptError::Encoding {
                        line: self.line,
                        encoding: String::from_utf8_lossy(&value).into_owned(),
                    });
                }
                _ => {}
            }
        }
        part(Part::Statement(statement));
        Ok(false)
    }

    /// A comment of one line has ended: those with which a dump begins and ends are counted.
    fn remark(&mut self) {
        let comment = std::mem::take(&mut self.comment);
        if self.has_text {
            self.buffer.push(b'\n');
            return;
        }
        match comment.trim_ascii() {
            b"PostgreSQL database dump" => self.dumps.begun += 1,
            b"PostgreSQL database cluster dump" => self.clusters.begun += 1,
            b"PostgreSQL database dump complete" => {
                self.dumps.ended += 1;
                self.after_end = true;
            }
            b"PostgreSQL database cluster dump complete" => {
                self.clusters.ended += 1;
                self.after_end = true;
            }
            _ => {}
        }
    }

    fn command(&mut self, command: &[u8], part: &mut dyn FnMut(Part)) -> Result<(), ScriptError> {
        let text = String::from_utf8_lossy(command);
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let is_token = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match word {
            // Since August 2025 a dump forbids psql every other command by these two.
            "restrict" | "unrestrict" if is_token => Ok(()),
            "connect" | "c" => match database(rest) {
                Some(name) => {
                    part(Part::Connect(name));
                    Ok(())
                }
                None => Err(self.foreign(command)),
            },
            _ => Err(self.foreign(command)),
        }
    }

    fn foreign(&self, command: &[u8]) -> ScriptError {
        let letters: String = command
            .iter()
            .copied()
            .take(12)
            .take_while(|byte| byte.is_ascii_alphabetic() || b"!?.".contains(byte))
            .map(char::from)
            .collect();
        // A command is read to the end of its line.
        let line = self.line.saturating_sub(u64::from(!command.is_empty())).max(1);
        ScriptError::Command { line, command: letters }
    }

    /// The end of the script: whether every dump that began in it has ended, and nothing is open.
    #[must_use]
    pub fn finish(mut self) -> Ending {
        if matches!(self.inside, Inside::LineComment) {
            self.inside = Inside::Nothing;
            self.remark();
        }
        if self.is_command {
            self.is_command = false;
            let command = std::mem::take(&mut self.buffer);
            if self.command(&command, &mut |_| {}).is_err() {
                return Ending::Cut("it ends inside a command".to_owned());
            }
        }
        let line = self.line;
        if let Some(rows) = self.rows {
            return Ending::Cut(format!(
                "it ends in line {line} inside the rows of a table, after {rows} of them"
            ));
        }
        if self.inside != Inside::Nothing || self.has_text {
            return Ending::Cut(format!("it ends in line {line} inside a statement"));
        }
        let are_whole = self.dumps.begun == self.dumps.ended && self.clusters.begun == self.clusters.ended;
        if self.dumps.begun + self.clusters.begun == 0 {
            return Ending::Cut("it does not begin as pg_dump begins, so its end cannot be known".to_owned());
        }
        if !are_whole {
            return Ending::Cut(format!(
                "it ends in line {line} without the line \"PostgreSQL database dump complete\""
            ));
        }
        if !self.after_end {
            return Ending::Cut(format!("statements follow the end of the dump, up to line {line}"));
        }
        Ending::Whole
    }
}

/// Whether the quote at the end of `text` is written with a backslash.
fn is_escaped(text: &[u8]) -> bool {
    text[..text.len() - 1].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Whether a COPY takes its rows from the script: `… FROM stdin`, outside quotes, before any options.
fn reads_rows(statement: &[u8]) -> bool {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut quote = None;
    let mut depth = 0_i32;
    let mut word = Vec::new();
    for byte in statement.iter().copied().chain([b' ']) {
        if let Some(open) = quote {
            if byte == open {
                quote = None;
            }
            continue;
        }
        match byte {
            b'"' | b'\'' => quote = Some(byte),
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ if depth == 0 && (byte.is_ascii_alphanumeric() || byte == b'_') => {
                word.push(byte.to_ascii_lowercase());
                continue;
            }
            _ => {}
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    words.windows(2).any(|pair| pair[0] == b"from" && pair[1] == b"stdin")
}

/// The database of a `\connect`: a name, quoted or not, or `-reuse-previous=on "dbname='name'"`, which pg_dump writes for
/// names that would be taken for something else. A host, a port or a user is none of a dump's business.
fn database(text: &str) -> Option<String> {
    let text = text.strip_prefix("-reuse-previous=on").map_or(text, str::trim);
    let name = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => {
            let inner = inner.replace("\"\"", "\"");
            match inner.strip_prefix("dbname='").and_then(|rest| rest.strip_suffix('\'')) {
                Some(value) => value.replace("\\'", "'").replace("\\\\", "\\"),
                None => inner,
            }
        }
        None if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) => {
            text.to_owned()
        }
        None => return None,
    };
    let is_plain = !name.is_empty()
        && name.len() <= 63
        && !name.starts_with('-')
        && !name.contains(['\0', '`', ':'])
        && !name.chars().any(char::is_control);
    is_plain.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abcDEF123\n\n-- Dumped from database version 15.18\n";
    const END: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abcDEF123\n\n";

    fn split_by(text: &[u8], size: usize) -> Result<(Vec<Part>, Ending), ScriptError> {
        let mut splitter = Splitter::new();
        let mut parts = Vec::new();
        for piece in text.chunks(size.max(1)) {
            splitter.feed(piece, &mut |part| parts.push(part))?;
        }
        Ok((parts, splitter.finish()))
    }

    fn split(body: &str) -> (Vec<String>, Ending) {
        let text = format!("{BEGIN}{body}{END}");
        let whole = split_by(text.as_bytes(), usize::MAX).unwrap();
        for size in [1, 2, 3, 7] {
            assert_eq!(split_by(text.as_bytes(), size).unwrap(), whole, "in pieces of {size}: {body}");
        }
        let words = whole.0.into_iter().map(|part| match part {
            Part::Statement(bytes) => String::from_utf8(bytes).unwrap(),
            Part::CopyBegin(bytes) => format!("<{}", String::from_utf8(bytes).unwrap()),
            Part::Rows(bytes) => format!("={}", String::from_utf8(bytes).unwrap()),
            Part::CopyEnd(rows) => format!(">{rows}"),
            Part::Connect(name) => format!("@{name}"),
        });
        (words.collect(), whole.1)
    }

    fn whole(body: &str) -> Vec<String> {
        let (parts, ending) = split(body);
        assert_eq!(ending, Ending::Whole, "{body}");
        parts
    }

    #[test]
    fn statements_are_split_as_psql_splits_them() {
        for (body, wanted) in [
            ("SELECT 1; SELECT 2;", vec!["SELECT 1", "SELECT 2"]),
            ("SELECT ';';\n", vec!["SELECT ';'"]),
            ("SELECT 'it''s;';", vec!["SELECT 'it''s;'"]),
            ("SELECT E'a\\';b';", vec!["SELECT E'a\\';b'"]),
            ("SELECT 'a\\'; SELECT 2;", vec!["SELECT 'a\\'", "SELECT 2"]),
            ("SELECT \"a;b\"\"c\";", vec!["SELECT \"a;b\"\"c\""]),
            ("SELECT $$a;b$$; SELECT $x$;$$;$x$;", vec!["SELECT $$a;b$$", "SELECT $x$;$$;$x$"]),
            ("SELECT $1; SELECT a$b$;", vec!["SELECT $1", "SELECT a$b$"]),
            ("SELECT 1 -- ;\n+ 2;", vec!["SELECT 1 \n+ 2"]),
            ("SELECT /* ; /* ; */ ; */ 1;", vec!["SELECT   1"]),
            ("SELECT 1 - -1;", vec!["SELECT 1 - -1"]),
            ("SELECT 6/2;", vec!["SELECT 6/2"]),
            ("SELECT a->'b'-'c'; SELECT 2*/**/3;", vec!["SELECT a->'b'-'c'", "SELECT 2* 3"]),
            (
                "CREATE RULE r AS ON DELETE TO t DO ALSO (DELETE FROM u; DELETE FROM v);",
                vec!["CREATE RULE r AS ON DELETE TO t DO ALSO (DELETE FROM u; DELETE FROM v)"],
            ),
            (
                "CREATE FUNCTION public.f(a integer) RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n \
                 SELECT CASE WHEN a > 1 THEN 2 ELSE 3 END;\n SELECT 4;\nEND;\nSELECT 5;",
                vec![
                    "CREATE FUNCTION public.f(a integer) RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n \
                     SELECT CASE WHEN a > 1 THEN 2 ELSE 3 END;\n SELECT 4;\nEND",
                    "SELECT 5",
                ],
            ),
            (
                "SET standard_conforming_strings = off;SELECT 'a\\';b';",
                vec!["SET standard_conforming_strings = off", "SELECT 'a\\';b'"],
            ),
            (";;", vec![]),
        ] {
            assert_eq!(whole(body), wanted, "{body}");
        }
    }

    #[test]
    fn rows_are_rows_until_their_end() {
        assert_eq!(
            whole("COPY public.t (a, \"from stdin\") FROM stdin;\n1\tx;y\n\\\\.\t\\N\n\\.\n\n\nSELECT 1;"),
            ["<COPY public.t (a, \"from stdin\") FROM stdin", "=1\tx;y\n\\\\.\t\\N\n", ">2", "SELECT 1"]
        );
        assert_eq!(whole("COPY public.t (a) FROM stdin;\n\\.\n"), ["<COPY public.t (a) FROM stdin", ">0"]);
        assert_eq!(whole("COPY public.t FROM '/etc/passwd';"), ["COPY public.t FROM '/etc/passwd'"]);
        assert_eq!(whole("COPY t (\"from stdin\") TO stdout;"), ["COPY t (\"from stdin\") TO stdout"]);
        // What looks like the end of a dump inside rows is a row.
        assert_eq!(
            whole("COPY t (a) FROM stdin;\n-- PostgreSQL database dump complete\n\\.\n"),
            ["<COPY t (a) FROM stdin", "=-- PostgreSQL database dump complete\n", ">1"]
        );
    }

    #[test]
    fn a_dump_that_was_cut_anywhere_is_not_whole() {
        let text = format!(
            "{BEGIN}SET x = 1;\nCREATE TABLE t (a text DEFAULT ';');\nCOPY t (a) FROM stdin;\n1\n2\n\\.\n\n\
             CREATE INDEX i ON t (a);\n{END}"
        );
        let bytes = text.as_bytes();
        let marker = b"-- PostgreSQL database dump complete";
        let complete = text.find("-- PostgreSQL database dump complete").unwrap() + marker.len();
        let mut cut = 0;
        for length in 0..bytes.len() {
            let (_, ending) =
                split_by(&bytes[..length], usize::MAX).unwrap_or_else(|error| panic!("{length}: {error}"));
            if length < complete {
                assert_ne!(ending, Ending::Whole, "cut after {length} bytes");
                cut += 1;
            }
        }
        assert_eq!(cut, complete);
        assert_eq!(split_by(bytes, usize::MAX).unwrap().1, Ending::Whole);
        // One dump after the other is whole when each is; something after the end is no end.
        assert_eq!(split_by(format!("{text}{text}").as_bytes(), 9).unwrap().1, Ending::Whole);
        assert_ne!(split_by(format!("{text}SELECT 1;").as_bytes(), 9).unwrap().1, Ending::Whole);
        assert_ne!(split_by(b"SELECT 1;\n", 9).unwrap().1, Ending::Whole, "not a dump");
    }

    #[test]
    fn a_cluster_is_whole_with_its_own_last_line() {
        let one = format!("{BEGIN}SELECT 1;{END}");
        let whole = format!(
            "--\n-- PostgreSQL database cluster dump\n--\n\\connect template1\n{one}\\connect shop\n{one}\
             --\n-- PostgreSQL database cluster dump complete\n--\n"
        );
        assert_eq!(split_by(whole.as_bytes(), 11).unwrap().1, Ending::Whole);
        let cut = &whole[..whole.rfind("\\connect").unwrap()];
        assert_ne!(split_by(cut.as_bytes(), 11).unwrap().1, Ending::Whole);
    }

    #[test]
    fn commands_of_psql_end_the_reading() {
        for (command, word) in [
            ("\\! id", "!"),
            ("\\i /etc/passwd", "i"),
            ("\\copy t from /etc/passwd", "copy"),
            ("\\o |id", "o"),
            ("\\unrestrict `id`", "unrestrict"),
            ("\\restrict", "restrict"),
            ("\\connect postgres://evil/", "connect"),
            ("\\connect shop postgres evil.example 5432", "connect"),
            ("\\connect -reuse-previous=on \"host='evil' dbname='x'\" -", "connect"),
            ("\\setenv PATH x", "setenv"),
            ("\\gexec", "gexec"),
        ] {
            let text = format!("{BEGIN}SELECT 1;\n{command}\nSELECT 2;{END}");
            match split_by(text.as_bytes(), 5) {
                Err(ScriptError::Command { command: found, line }) => {
                    assert_eq!((found.as_str(), line), (word, 9), "{command}");
                }
                other => panic!("{command}: {other:?}"),
            }
        }
        // Within a statement too: psql would run it there.
        assert!(matches!(
            split_by(format!("{BEGIN}SELECT 1 \\gexec\n{END}").as_bytes(), 5),
            Err(ScriptError::Command { .. })
        ));
        // And nowhere where it is data.
        assert_eq!(whole("SELECT '\\! id', $$\\! id$$; -- \\! id\n"), ["SELECT '\\! id', $$\\! id$$"]);
    }

    #[test]
    fn another_database_of_the_same_server_may_be_named() {
        for (command, name) in [
            ("\\connect shop", "shop"),
            ("\\connect \"Shop ü\"", "Shop ü"),
            ("\\c shop", "shop"),
            ("\\connect -reuse-previous=on \"dbname='a=b'\"", "a=b"),
        ] {
            assert_eq!(whole(&format!("{command}\nSELECT 1;")), [format!("@{name}"), "SELECT 1".to_owned()]);
        }
    }

    #[test]
    fn encodings_that_hide_quotes_are_refused() {
        let text = format!("{BEGIN}SET client_encoding = 'SJIS';{END}");
        assert!(matches!(split_by(text.as_bytes(), 64), Err(ScriptError::Encoding { .. })));
        assert_eq!(whole("SET client_encoding = 'LATIN1';"), ["SET client_encoding = 'LATIN1'"]);
    }
}
