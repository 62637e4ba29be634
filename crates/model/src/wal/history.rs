//! Where timelines left their parents, as a history file says.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Lsn, Timeline};

/// That a timeline was left for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Switch {
    /// The timeline that was left.
    pub from: Timeline,
    /// Where: the first position that does not belong to it any more.
    pub at: Lsn,
}

/// The line of ancestors of a timeline, oldest first; none of the first timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Whose.
    pub timeline: Timeline,
    /// Where each ancestor was left for the next one, the last for the timeline itself.
    pub switches: Vec<Switch>,
}

/// A text that is no history file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line is not of the form.
    #[error("line {0} of the history is not `TIMELINE<tab>POSITION<tab>REASON`")]
    Line(usize),
    /// A timeline does not follow its parent.
    #[error("line {0} of the history: a timeline is not older than the one that left it, or stands twice")]
    Order(usize),
    /// It was left before it began.
    #[error("line {0} of the history: timeline was left at {1}, before it began")]
    Backwards(usize, Lsn),
    /// It has no ancestor.
    #[error("the history of timeline {0} names no parent")]
    Orphan(Timeline),
}

impl History {
    /// The first timeline has no parent, and no file.
    #[must_use]
    pub fn of_first() -> Self {
        Self { timeline: Timeline::FIRST, switches: Vec::new() }
    }

    /// Reads the file of a timeline. Lines that are empty or begin with `#` say nothing.
    ///
    /// # Errors
    ///
    /// Where it says what no server writes.
    pub fn parse(timeline: Timeline, text: &str) -> Result<Self, HistoryError> {
        let mut switches: Vec<Switch> = Vec::new();
        let mut seen = BTreeSet::from([timeline]);
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(from), Some(at)) = (words.next(), words.next()) else {
                return Err(HistoryError::Line(number));
            };
            let is_number = from.bytes().all(|byte| byte.is_ascii_digit());
            let from = from.parse().ok().filter(|_| is_number).and_then(Timeline::new);
            let (Some(from), Ok(at)) = (from, at.parse()) else { return Err(HistoryError::Line(number)) };
            let is_younger = switches.last().is_none_or(|before| before.from < from);
            if from >= timeline || !seen.insert(from) || !is_younger {
                return Err(HistoryError::Order(number));
            }
            if switches.last().is_some_and(|before| at < before.at) {
                return Err(HistoryError::Backwards(number, at));
            }
            switches.push(Switch { from, at });
        }
        if switches.is_empty() && timeline != Timeline::FIRST {
            return Err(HistoryError::Orphan(timeline));
        }
        Ok(Self { timeline, switches })
    }

    /// The file that says the same.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for switch in &self.switches {
            writeln!(text, "{}\t{}\tno reason was kept", switch.from, switch.at)
                .expect("writing to a String cannot fail");
        }
        text
    }

    /// The stretches of the log that lead to a position of this timeline, oldest first: each timeline from where it began to where
    /// it was left. The last one ends where the log does: [`Lsn`] of all ones.
    #[must_use]
    pub fn stretches(&self) -> Vec<(Timeline, Lsn, Lsn)> {
        let mut stretches = Vec::with_capacity(self.switches.len() + 1);
        let mut begin = Lsn(0);
        for switch in &self.switches {
            stretches.push((switch.from, begin, switch.at));
            begin = switch.at;
        }
        stretches.push((self.timeline, begin, Lsn(u64::MAX)));
        stretches
    }

    /// Where another timeline was left on the way to this one; `None` where it is not an ancestor.
    #[must_use]
    pub fn left(&self, timeline: Timeline) -> Option<Lsn> {
        self.switches.iter().find(|switch| switch.from == timeline).map(|switch| switch.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    #[test]
    fn a_file_is_read_as_the_server_reads_it() {
        let text = "1\t0/3000060\tno recovery target specified\n\n# a note\n  2\t0/5000000\tbefore 2026-01-01 00:00:00+00\n";
        let history = History::parse(line(3), text).unwrap();
        assert_eq!(
            history.stretches(),
            [
                (line(1), Lsn(0), Lsn(0x300_0060)),
                (line(2), Lsn(0x300_0060), Lsn(0x500_0000)),
                (line(3), Lsn(0x500_0000), Lsn(u64::MAX))
            ]
        );
        assert_eq!((history.left(line(2)), history.left(line(3))), (Some(Lsn(0x500_0000)), None));
        assert_eq!(History::parse(line(3), &history.text()).unwrap(), history);
        assert_eq!(History::parse(Timeline::FIRST, "").unwrap(), History::of_first());
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for (text, wrong) in [
            ("", HistoryError::Orphan(line(3))),
            ("# nothing\n", HistoryError::Orphan(line(3))),
            ("1", HistoryError::Line(1)),
            ("one\t0/1\tx", HistoryError::Line(1)),
            ("+1\t0/1\tx", HistoryError::Line(1)),
            ("0\t0/1\tx", HistoryError::Line(1)),
            ("1\t1\tx", HistoryError::Line(1)),
            ("3\t0/1\tx", HistoryError::Order(1)),
            ("4\t0/1\tx", HistoryError::Order(1)),
            ("2\t0/1\tx\n1\t0/2\tx", HistoryError::Order(2)),
            ("1\t0/1\tx\n1\t0/2\tx", HistoryError::Order(2)),
            ("1\t0/5\tx\n2\t0/4\tx", HistoryError::Backwards(2, Lsn(4))),
        ] {
            assert_eq!(History::parse(line(3), text).unwrap_err(), wrong, "{text:?}");
        }
    }
}
