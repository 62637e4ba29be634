//! Pages and records of the log, read from the bytes of a segment.
//!
//! A server that recovers takes the first page or record that is not right for the end of the log. So what it would take for an end is
//! found here first, and told with its position: [`Walk`] reads a segment as the server does, record after record, and says where the
//! valid log ends and why.
//!
//! Formats: `src/include/access/xlog_internal.h` and `xlogrecord.h` of PostgreSQL 13 to 18, on machines whose numbers are
//! little-endian and aligned to 8 bytes. A log of another kind of machine is told by its magic number.

use crc_fast::{CrcAlgorithm, Digest};
use seaworthy_model::wal::{Lsn, Segment, SegmentSize, Timeline};

/// Bytes of a page of the log; servers can be built with others, and say so in the first page of each segment.
pub const PAGE: usize = 8_192;

const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
/// Bytes of a record's head, the checksum included.
const RECORD: usize = 24;
/// Where the checksum stands in it.
const CHECKSUM_AT: usize = 20;
/// Longer records are refused by servers too (`XLogRecordMaxSize`).
const RECORD_MAX: u32 = 1020 << 20;

/// The first page begins with what an earlier page had no room for.
const CONTINUES: u16 = 0x0001;
/// What an earlier page had no room for was never written: the server ended before, and began anew with the page.
const GIVES_UP: u16 = 0x0008;
/// The header says whose log it is.
const IS_LONG: u16 = 0x0002;
/// All flags that there are.
const FLAGS: u16 = 0x000f;

/// The resource manager of the log itself, and its record that ends a segment early.
const XLOG: u8 = 0;
const SWITCH: u8 = 0x40;

/// The magic number of a page, by the server's major.
#[must_use]
pub fn magic(major: u32) -> Option<u16> {
    Some(match major {
        13 => 0xd106,
        14 => 0xd10d,
        15 => 0xd110,
        16 => 0xd113,
        17 => 0xd116,
        18 => 0xd118,
        _ => return None,
    })
}

/// The major of the server that writes pages with this magic number.
#[must_use]
pub fn major(magic: u16) -> Option<u32> {
    (13..=18).find(|major| self::magic(*major) == Some(magic))
}

/// What the first page of a segment says of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Major of the server that wrote it.
    pub major: u32,
    /// The cluster's identity.
    pub system: u64,
    /// How long its segments are.
    pub size: SegmentSize,
    /// The timeline of the first page: that of the segment's name, or an ancestor in the segment in which it was left.
    pub timeline: Timeline,
    /// Where the segment begins.
    pub start: Lsn,
}

/// Something that a server would take for the end of the log, or that belongs to another log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// There are fewer bytes than a segment has.
    #[error("{0} bytes of {1} are there")]
    Short(usize, u64),
    /// A page begins with something else.
    #[error("the page at {0} is no page of the log: its magic number is {1:#06x}")]
    Magic(Lsn, u16),
    /// A page is of another server's log.
    #[error("the page at {0} was written by PostgreSQL {1}, the segment's first by PostgreSQL {2}")]
    Major(Lsn, u32, u32),
    /// A page has flags that there are not.
    #[error("the page at {0} has the flags {1:#06x}")]
    Flags(Lsn, u16),
    /// A page says that it is another one.
    #[error("the page at {0} says that it is the one at {1}")]
    Address(Lsn, Lsn),
    /// A page is of a timeline that cannot be there.
    #[error("the page at {0} is of timeline {1}, after one of timeline {2}")]
    Line(Lsn, u32, Timeline),
    /// The first page does not say whose it is.
    #[error("the first page of the segment does not say of which cluster it is")]
    Anonymous,
    /// It is another cluster's.
    #[error("the segment is of cluster {0}, not of {1}")]
    System(u64, u64),
    /// Segments of that cluster have another length, or pages have.
    #[error("the segment says that segments are of {0} bytes and pages of {1}; expected are {2} and 8192")]
    Sizes(u32, u32, u32),
    /// It is another segment.
    #[error("the segment begins at {0}, not at {1}")]
    Place(Lsn, Lsn),
    /// A record's length cannot be.
    #[error("the record at {0} says that it has {1} bytes")]
    Length(Lsn, u32),
    /// A record names another one as the one before it.
    #[error("the record at {0} follows one at {1}, not the one at {2}")]
    Previous(Lsn, Lsn, Lsn),
    /// A record's bytes are not those that were written.
    #[error("the record at {0} does not have its checksum")]
    Checksum(Lsn),
    /// What a page continues is not what the one before it began.
    #[error("the page at {0} continues a record by {1} bytes; {2} are missing of it")]
    Continued(Lsn, u32, u32),
    /// Records end although the segment does not.
    #[error("the log ends at {0}, within the segment")]
    Ends(Lsn),
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |part| u16::from_le_bytes([part[0], part[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::try_from(u64_of(bytes, at, 4)).unwrap_or(0)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64_of(bytes, at, 8)
}

fn u64_of(bytes: &[u8], at: usize, length: usize) -> u64 {
    let part = bytes.get(at..at + length).unwrap_or_default();
    part.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// What the first page of a segment says of itself. It needs not be whole: its first page is enough.
///
/// # Errors
///
/// Where it is no first page of a segment.
pub fn origin(bytes: &[u8]) -> Result<Origin, Wrong> {
    if bytes.len() < LONG_HEADER {
        return Err(Wrong::Short(bytes.len(), PAGE as u64));
    }
    let start = Lsn(u64_at(bytes, 8));
    let number = u16_at(bytes, 0);
    let major = major(number).ok_or(Wrong::Magic(start, number))?;
    let flags = u16_at(bytes, 2);
    if flags & !FLAGS != 0 {
        return Err(Wrong::Flags(start, flags));
    }
    if flags & IS_LONG == 0 {
        return Err(Wrong::Anonymous);
    }
    let (size, page) = (u32_at(bytes, 32), u32_at(bytes, 36));
    let sizes = Wrong::Sizes(size, page, u32::from(SegmentSize::USUAL));
    let size = SegmentSize::try_from(size).map_err(|_| sizes)?;
    if page as usize != PAGE {
        return Err(sizes);
    }
    let line = u32_at(bytes, 4);
    let timeline = Timeline::new(line).ok_or(Wrong::Line(start, line, Timeline::FIRST))?;
    Ok(Origin { major, system: u64_at(bytes, 24), size, timeline, start })
}

/// What a segment must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// By its name.
    pub segment: Segment,
    /// Of the cluster.
    pub size: SegmentSize,
    /// The cluster; any where nobody knows yet.
    pub system: Option<u64>,
}

/// A record that goes on in the next segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Where it begins.
    pub at: Lsn,
    /// Its bytes so far.
    pub bytes: Vec<u8>,
    /// How many there are in all; unknown where not even its length is there.
    pub length: Option<u32>,
}

/// How the log goes on from one segment into the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// The last whole record; unknown in the first segment that is read.
    pub last: Option<Lsn>,
    /// A record that the segment had no room for.
    pub begun: Option<Begun>,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// What its first page says.
    pub origin: Origin,
    /// Records that are whole, and right.
    pub records: u64,
    /// Where the records end: the segment's end, but for one that was ended early.
    pub until: Lsn,
    /// Whether the server ended it early, so that the rest is empty for good.
    pub is_switched: bool,
    /// What the next segment must go on with.
    pub link: Link,
}

/// A record that is whole, and right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins.
    pub at: Lsn,
    /// Where it ends as servers count, and the next one may begin.
    pub end: Lsn,
    /// Its head and body.
    pub bytes: &'a [u8],
}

/// Reads a whole segment as a server that recovers does: every page, every record, every checksum.
///
/// With the `link` of the segment before it, the record that both share is checked too; without it, nothing is said of that one.
///
/// # Errors
///
/// The first thing that is wrong. A server would take it for the end of the log.
pub fn walk(bytes: &[u8], expected: &Expected, link: &Link) -> Result<Walked, Wrong> {
    walk_telling(bytes, expected, link, &mut |_| {})
}

/// The same, and tells of every record; also of those before the first thing that is wrong.
///
/// # Errors
///
/// As [`walk`].
pub fn walk_telling(
    bytes: &[u8],
    expected: &Expected,
    link: &Link,
    tell: &mut dyn FnMut(Record<'_>),
) -> Result<Walked, Wrong> {
    let size = expected.size;
    if bytes.len() as u64 != size.bytes() {
        return Err(Wrong::Short(bytes.len(), size.bytes()));
    }
    let start = expected.segment.start(size);
    let origin = origin(bytes)?;
    if origin.size != size {
        return Err(Wrong::Sizes(origin.size.into(), 8_192, size.into()));
    }
    if let Some(system) = expected.system.filter(|system| *system != origin.system) {
        return Err(Wrong::System(origin.system, system));
    }
    if origin.start != start {
        return Err(Wrong::Place(origin.start, start));
    }
    let mut walk = Walk { bytes, start, origin, expected: *expected, at: 0, line: origin.timeline };
    walk.all(link, tell)
}

/// Whether the record that would begin behind `last` needs more than has come up to `come`: then its absence is no damage. `start` is
/// where `bytes` begin.
#[must_use]
pub fn ends_before(bytes: &[u8], start: Lsn, last: Lsn, come: Lsn) -> bool {
    let offset = |position: Lsn| usize::try_from(position.0.saturating_sub(start.0)).unwrap_or(usize::MAX);
    let come = offset(come);
    let mut at = offset(last);
    if at % PAGE == 0 {
        at += if at == 0 { LONG_HEADER } else { SHORT_HEADER };
    }
    // Not even its length has come.
    if at + 4 > come {
        return true;
    }
    let length = u32_at(bytes, at) as usize;
    if length == 0 {
        // Nothing was written there yet: so is everything behind it.
        return bytes[at..come.min(bytes.len())].chunks(PAGE).all(|part| part.iter().all(|byte| *byte == 0));
    }
    let mut left = length;
    while left > 0 {
        let room = PAGE - at % PAGE;
        let taken = room.min(left);
        (at, left) = (at + taken, left - taken);
        if left > 0 {
            at += SHORT_HEADER;
        }
    }
    at > come
}

/// Where in a segment that begins at `start` the first record begins that is not the rest of one from before; behind its end where that rest is
/// longer. Nothing is checked.
#[must_use]
pub fn first_record(bytes: &[u8], start: Lsn) -> Lsn {
    /// `XLP_FIRST_IS_CONTRECORD` of `xlog_internal.h`, and where a page's header says how much of that record is left.
    const CONTINUES: u16 = 1;
    const LEFT_AT: usize = 16;
    if bytes.len() < LONG_HEADER || u16_at(bytes, 2) & CONTINUES == 0 {
        return start;
    }
    let (mut at, mut left) = (LONG_HEADER, u32_at(bytes, LEFT_AT) as usize);
    loop {
        let taken = (PAGE - at % PAGE).min(left);
        (at, left) = (at + taken, left - taken);
        if left == 0 {
            // Records begin at multiples of eight.
            return Lsn(start.0 + at.next_multiple_of(8) as u64);
        }
        at += SHORT_HEADER;
    }
}

/// Where a reading of a segment stands.
struct Walk<'a> {
    bytes: &'a [u8],
    start: Lsn,
    origin: Origin,
    expected: Expected,
    /// Offset of the next byte that is read.
    at: usize,
    /// The timeline of the last page.
    line: Timeline,
}

/// A page's header.
struct Header {
    length: usize,
    /// Bytes that it continues of an earlier record.
    continues: Option<u32>,
    /// Whether the record that the page before it began was given up.
    gives_up: bool,
}

impl Walk<'_> {
    fn lsn(&self, at: usize) -> Lsn {
        Lsn(self.start.0 + at as u64)
    }

    /// Checks the header of the page at an offset that is one.
    fn header(&mut self, at: usize) -> Result<Header, Wrong> {
        let page = &self.bytes[at..];
        let here = self.lsn(at);
        let number = u16_at(page, 0);
        let major = major(number).ok_or(Wrong::Magic(here, number))?;
        if major != self.origin.major {
            return Err(Wrong::Major(here, major, self.origin.major));
        }
        let flags = u16_at(page, 2);
        if flags & !FLAGS != 0 || (flags & IS_LONG != 0) != (at == 0) {
            return Err(Wrong::Flags(here, flags));
        }
        let address = Lsn(u64_at(page, 8));
        if address != here {
            return Err(Wrong::Address(here, address));
        }
        let line = u32_at(page, 4);
        let is_possible = line >= self.line.number() && line <= self.expected.segment.timeline.number();
        match Timeline::new(line).filter(|_| is_possible) {
            Some(line) => self.line = line,
            None => return Err(Wrong::Line(here, line, self.line)),
        }
        Ok(Header {
            length: if at == 0 { LONG_HEADER } else { SHORT_HEADER },
            continues: (flags & CONTINUES != 0).then(|| u32_at(page, 16)),
            gives_up: flags & GIVES_UP != 0,
        })
    }

    fn all(&mut self, link: &Link, tell: &mut dyn FnMut(Record<'_>)) -> Result<Walked, Wrong> {
        let first = self.header(0)?;
        self.at = first.length;
        let mut last = link.last;
        let mut records = 0;
        let mut pending = match (&link.begun, first.continues) {
            (Some(begun), Some(_)) => Some(begun.clone()),
            (Some(_), None) if first.gives_up => None,
            (Some(begun), None) => {
                let missing = begun.length.map_or(0, |length| length - begun_length(begun));
                return Err(Wrong::Continued(self.start, 0, missing));
            }
            // The end of a record whose beginning nobody has shown.
            (None, Some(left)) => {
                let Some(()) = self.skip(left)? else {
                    return Ok(self.walked(0, self.bytes.len(), false, Link { last, begun: None }));
                };
                None
            }
            (None, None) => None,
        };
        loop {
            let begun = match pending.take() {
                Some(begun) => begun,
                None => {
                    // Records begin at multiples of eight; a page has room for none of less than that.
                    self.at = self.at.next_multiple_of(8);
                    if self.at.is_multiple_of(PAGE) {
                        if self.at == self.bytes.len() {
                            return Ok(self.walked(records, self.at, false, Link { last, begun: None }));
                        }
                        let header = self.header(self.at)?;
                        if let Some(left) = header.continues {
                            return Err(Wrong::Continued(self.lsn(self.at), left, 0));
                        }
                        self.at += header.length;
                    }
                    Begun { at: self.lsn(self.at), bytes: Vec::new(), length: None }
                }
            };
            match self.record(begun)? {
                Ended::Whole(at, record) => {
                    if let Some(last) = last {
                        let previous = Lsn(u64_at(&record, 8));
                        if previous != last {
                            return Err(Wrong::Previous(at, previous, last));
                        }
                    }
                    last = Some(at);
                    records += 1;
                    let is_switch = record[17] == XLOG && record[16] & 0xf0 == SWITCH;
                    let until = self.at.next_multiple_of(8);
                    // A server counts the empty rest of a segment to the record that ended it.
                    let end = if is_switch { self.bytes.len() } else { until };
                    tell(Record { at, end: self.lsn(end), bytes: &record });
                    if is_switch {
                        return Ok(self.walked(records, until, true, Link { last, begun: None }));
                    }
                }
                Ended::GivenUp => {}
                Ended::InNext(begun) => {
                    let until = self.bytes.len();
                    return Ok(self.walked(records, until, false, Link { last, begun: Some(begun) }));
                }
            }
        }
    }

    fn walked(&self, records: u64, until: usize, is_switched: bool, link: Link) -> Walked {
        Walked { origin: self.origin, records, until: self.lsn(until), is_switched, link }
    }

    /// Passes over the rest of a record; nothing where it does not end here.
    fn skip(&mut self, mut left: u32) -> Result<Option<()>, Wrong> {
        loop {
            let room = PAGE - self.at % PAGE;
            if left as usize <= room {
                self.at += left as usize;
                return Ok(Some(()));
            }
            left -= u32::try_from(room).unwrap_or(u32::MAX);
            self.at += room;
            if self.at == self.bytes.len() {
                return Ok(None);
            }
            let header = self.header(self.at)?;
            if header.gives_up {
                self.at += header.length;
                return Ok(Some(()));
            }
            if header.continues != Some(left) {
                return Err(Wrong::Continued(self.lsn(self.at), header.continues.unwrap_or(0), left));
            }
            self.at += header.length;
        }
    }

    /// Reads a record, or the rest of one, to its end.
    fn record(&mut self, mut begun: Begun) -> Result<Ended, Wrong> {
        if begun.bytes.is_empty() {
            self.length(&mut begun)?;
        } else {
            // Its length is among its first bytes, which never lie in two segments: records begin at multiples of eight.
            self.goes_on(&begun, 0)?;
        }
        loop {
            let length = begun.length.unwrap_or(0) as usize;
            let room = PAGE - self.at % PAGE;
            let room = if self.at.is_multiple_of(PAGE) { 0 } else { room };
            let taken = room.min(length - begun.bytes.len());
            begun.bytes.extend_from_slice(&self.bytes[self.at..self.at + taken]);
            self.at += taken;
            if begun.bytes.len() == length {
                return whole(begun);
            }
            if self.at == self.bytes.len() {
                return Ok(Ended::InNext(begun));
            }
            let header = self.header(self.at)?;
            if header.gives_up {
                self.at += header.length;
                return Ok(Ended::GivenUp);
            }
            let missing = u32::try_from(length - begun.bytes.len()).unwrap_or(u32::MAX);
            if header.continues != Some(missing) {
                return Err(Wrong::Continued(self.lsn(self.at), header.continues.unwrap_or(0), missing));
            }
            self.at += header.length;
        }
    }

    fn length(&self, begun: &mut Begun) -> Result<(), Wrong> {
        let length = u32_at(self.bytes, self.at);
        if length == 0 {
            return Err(Wrong::Ends(begun.at));
        }
        if (length as usize) < RECORD || length > RECORD_MAX {
            return Err(Wrong::Length(begun.at, length));
        }
        begun.length = Some(length);
        Ok(())
    }

    /// The first page of a segment must go on with what the segment before it began.
    fn goes_on(&self, begun: &Begun, page: usize) -> Result<(), Wrong> {
        let continues = u32_at(self.bytes, page + 16);
        let missing = begun.length.unwrap_or(0) - begun_length(begun);
        if continues == missing { Ok(()) } else { Err(Wrong::Continued(self.lsn(page), continues, missing)) }
    }
}

fn begun_length(begun: &Begun) -> u32 {
    u32::try_from(begun.bytes.len()).unwrap_or(u32::MAX)
}

enum Ended {
    /// Where it began, and all of it.
    Whole(Lsn, Vec<u8>),
    InNext(Begun),
    GivenUp,
}

fn whole(begun: Begun) -> Result<Ended, Wrong> {
    let Some((head, body)) = begun.bytes.split_first_chunk::<RECORD>() else {
        return Err(Wrong::Length(begun.at, begun_length(&begun)));
    };
    // The body first, then the head up to the checksum itself.
    let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
    sum.update(body);
    sum.update(&head[..CHECKSUM_AT]);
    let sum = sum.finalize();
    if sum == u64::from(u32_at(head, CHECKSUM_AT)) {
        Ok(Ended::Whole(begun.at, begun.bytes))
    } else {
        Err(Wrong::Checksum(begun.at))
    }
}
