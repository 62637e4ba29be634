//! A stretch of a text that is read as a script, put together from pieces that do not touch: the lines of an indented
//! block without their indentation, the content of a quoted argument.

use std::ops::Range;

use super::shell::Word;

/// Text to be read, and where each of its bytes stands in the document.
#[derive(Debug, Clone, Default)]
pub(super) struct Region {
    text: String,
    /// Where a piece begins here, and where it begins in the document. Ascending.
    pieces: Vec<(usize, usize)>,
}

impl Region {
    /// The stretch `range` of `document`, as one piece.
    pub(super) fn of(document: &str, range: Range<usize>) -> Self {
        let mut region = Self::default();
        region.push(document, range);
        region
    }

    /// Adds the stretch `range` of `document`. A range that is not one adds nothing.
    pub(super) fn push(&mut self, document: &str, range: Range<usize>) {
        if let Some(piece) = document.get(range.clone()) {
            self.pieces.push((self.text.len(), range.start));
            self.text.push_str(piece);
        }
    }

    /// Adds what separates two pieces and stands nowhere in the document.
    pub(super) fn separate(&mut self, separator: char) {
        self.text.push(separator);
    }

    /// Adds what a quoted word says. Where quotes or escapes were removed inside of it, places in it are near, not exact.
    pub(super) fn quoted(&mut self, word: &Word) {
        let missing = (word.span.len()).saturating_sub(word.text.len());
        self.pieces.push((self.text.len(), word.span.start + missing.min(1)));
        self.text.push_str(&word.text);
    }

    /// A stretch of this region as one of its own.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let mut part = Self::default();
        let mut at = range.start;
        for line in self.text.get(range).unwrap_or_default().split_inclusive('\n') {
            part.pieces.push((part.text.len(), self.locate(at)));
            part.text.push_str(line);
            at += line.len();
        }
        part
    }

    /// What is to be read.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where a stretch of this region stands in the document. A stretch over several pieces goes from the first's start to
    /// the last's end.
    pub(super) fn place(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.locate(range.start);
        let end = if range.end > range.start { self.locate(range.end - 1) + 1 } else { start };
        start..end.max(start)
    }

    fn locate(&self, at: usize) -> usize {
        let piece = self.pieces.partition_point(|(here, _)| *here <= at);
        match piece.checked_sub(1).and_then(|piece| self.pieces.get(piece)) {
            Some((here, there)) => there + (at - here),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_through_stripped_indentation() {
        let document = "run: |\n    pg_dump a |\n    gzip\n";
        let mut region = Region::default();
        for (line, start) in [("pg_dump a |", 11), ("gzip", 27)] {
            region.push(document, start..start + line.len());
            region.separate('\n');
        }
        assert_eq!(region.text(), "pg_dump a |\ngzip\n");
        let at = region.text().find("gzip").unwrap();
        assert_eq!(document.get(region.place(&(at..at + 4))).unwrap(), "gzip");
    }
}
