//! Splits the stream of `pg_dump -Fc -Z0` into the files of a directory-format archive while it passes.
//!
//! The custom format is a header, a table of contents and then one block for each entry with data. The directory format
//! holds the same table of contents, with names of files where the custom one has offsets, and each entry's data as a
//! file of its own; `pg_restore -j` reads it without Seaworthy. Nothing is staged: memory is the table of contents and
//! one buffer. Versions 1.14 (PostgreSQL 13–15), 1.15 (16) and 1.16 (17, 18) are understood, anything else is refused.
//!
//! The format has no end marker. The end is known to be good when every entry that announced data has had its block,
//! each COPY block has ended with its `\.`, nothing follows, and (the caller's part) `pg_dump` has exited with 0.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// Most bytes of a table of contents: far above what a million objects need, far below what hurts.
const TOC_BYTES_MAX: usize = 1 << 30;
/// Bytes asked of the pipe at once, and handed to a file at once.
const BUFFER_BYTES: usize = 128 * 1024;

const FORMAT_CUSTOM: u8 = 1;
/// What a directory's `toc.dat` carries: its layout is the tar format's, which it shares the code with.
const FORMAT_TAR: u8 = 3;
const BLOCK_DATA: u8 = 1;
const BLOCK_BLOBS: u8 = 3;
const OFFSET_NO_DATA: u8 = 3;
const SECTION_BEFORE: i64 = 2;
const SECTION_DATA: i64 = 3;
const SECTION_AFTER: i64 = 4;
/// How every COPY block of an archive ends: the end of COPY data and two empty lines.
const COPY_END: &[u8] = b"\\.\n\n\n";

/// Why a stream is not a whole archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading the stream failed.
    #[error("read the archive")]
    Read(#[source] std::io::Error),
    /// The stream ended inside something.
    #[error("the archive ends inside {0}")]
    Truncated(&'static str),
    /// It does not begin like a custom-format archive, or has a version that is not known.
    #[error("not an archive that is understood: {0}")]
    Unknown(String),
    /// Something in it contradicts the format.
    #[error("malformed archive: {0}")]
    Malformed(String),
    /// An entry announced data that never came.
    #[error("the archive ends without the data of {0}")]
    DataMissing(String),
    /// The sink refused.
    #[error("store the archive")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One entry of the table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// Id inside the archive.
    pub dump_id: i64,
    /// Whether it announces data.
    pub has_data: bool,
    /// Whether its rows are copied into the root of its partitions, whichever of them each belongs to.
    pub is_via_root: bool,
    /// Where in the restore it belongs.
    pub section: Section,
    /// Catalogue that the object lives in.
    pub table_oid: u32,
    /// Its oid there.
    pub oid: u32,
    /// Name.
    pub tag: Vec<u8>,
    /// Kind, e.g. `TABLE DATA`.
    pub desc: Vec<u8>,
    /// Schema.
    pub namespace: Vec<u8>,
    /// The COPY statement; empty where there is none.
    pub copy_statement: Vec<u8>,
    /// Owner.
    pub owner: Vec<u8>,
    /// Ids of entries that come first.
    pub dependencies: Vec<i64>,
}

/// Where in a restore an entry belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Section {
    /// Before the rows.
    #[default]
    Before,
    /// The rows, and what belongs to them.
    Data,
    /// After the rows.
    After,
}

/// How the definition of an entry begins whose rows go into the root of its partitions.
const VIA_ROOT: &[u8] = b"-- load via partition root";

/// What was found in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveFacts {
    /// Version of the format: major, minor, revision.
    pub version: (u8, u8, u8),
    /// Version of the server, as `pg_dump` saw it.
    pub server_version: String,
    /// Version of `pg_dump`.
    pub dump_version: String,
    /// The encoding of names and rows, as the archive's own entry sets it; empty where that says something else.
    pub encoding: String,
    /// The table of contents.
    pub entries: Vec<TocEntry>,
    /// Rows of each `TABLE DATA` entry, counted in the stream, by oid of the table.
    pub rows: BTreeMap<u32, u64>,
    /// Large objects in the stream.
    pub large_objects: u64,
    /// Bytes of data in all blocks.
    pub data_bytes: u64,
}

/// Where the files of the directory go.
pub trait ArchiveSink {
    /// Begins a file below the archive's directory; the previous one has been finished.
    fn begin(&mut self, name: &str) -> Result<(), ArchiveError>;
    /// Appends to the file that was begun last.
    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError>;
    /// The file that was begun last is complete.
    fn finish(&mut self) -> Result<(), ArchiveError>;
}

/// A stream that knows what it is inside of, and keeps the bytes of the table of contents.
struct Input<R> {
    from: R,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

impl<R: Read> Input<R> {
    /// The bytes at hand; empty only at the end of the stream.
    fn fill(&mut self) -> Result<&[u8], ArchiveError> {
        if self.begin == self.end {
            self.begin = 0;
            self.end = 0;
            loop {
                match self.from.read(&mut self.buffer) {
                    Ok(count) => {
                        self.end = count;
                        break;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(ArchiveError::Read(error)),
                }
            }
        }
        Ok(&self.buffer[self.begin..self.end])
    }

    fn byte(&mut self, inside: &'static str) -> Result<u8, ArchiveError> {
        let first = *self.fill()?.first().ok_or(ArchiveError::Truncated(inside))?;
        self.begin += 1;
        Ok(first)
    }

    fn bytes(
        &mut self,
        mut count: usize,
        into: &mut Vec<u8>,
        inside: &'static str,
    ) -> Result<(), ArchiveError> {
        while count > 0 {
            let at_hand = self.fill()?;
            if at_hand.is_empty() {
                return Err(ArchiveError::Truncated(inside));
            }
            let taken = count.min(at_hand.len());
            into.extend_from_slice(&at_hand[..taken]);
            self.begin += taken;
            count -= taken;
        }
        Ok(())
    }

    fn int(&mut self, int_bytes: usize, inside: &'static str) -> Result<i64, ArchiveError> {
        // The common case: the whole number is in the buffer.
        if self.end - self.begin > int_bytes {
            let at = &self.buffer[self.begin..=self.begin + int_bytes];
            let value = decode_int(at);
            self.begin += 1 + int_bytes;
            return value;
        }
        let mut raw = Vec::with_capacity(1 + int_bytes);
        self.bytes(1 + int_bytes, &mut raw, inside)?;
        decode_int(&raw)
    }
}

/// A number as the format writes it: a byte for the sign, then the absolute value, lowest byte first.
fn decode_int(raw: &[u8]) -> Result<i64, ArchiveError> {
    let mut value: i64 = 0;
    for (position, byte) in raw[1..].iter().enumerate() {
        value |= i64::from(*byte) << (8 * position);
    }
    match raw[0] {
        0 => Ok(value),
        1 => Ok(-value),
        sign => Err(ArchiveError::Malformed(format!("a number with sign {sign}"))),
    }
}

fn encode_int(value: i64, int_bytes: usize, into: &mut Vec<u8>) {
    into.push(u8::from(value < 0));
    into.extend_from_slice(&value.unsigned_abs().to_le_bytes()[..int_bytes]);
}

fn encode_text(text: &[u8], int_bytes: usize, into: &mut Vec<u8>) -> Result<(), ArchiveError> {
    let length =
        i64::try_from(text.len()).map_err(|_| ArchiveError::Malformed("a text too long".to_owned()))?;
    encode_int(length, int_bytes, into);
    into.extend_from_slice(text);
    Ok(())
}

/// Reads the table of contents, writing its directory form beside it.
struct Toc {
    int_bytes: usize,
    out: Vec<u8>,
}

impl Toc {
    fn int<R: Read>(&mut self, input: &mut Input<R>) -> Result<i64, ArchiveError> {
        let value = input.int(self.int_bytes, "its table of contents")?;
        encode_int(value, self.int_bytes, &mut self.out);
        Ok(value)
    }

    /// A text; `None` for the format's null.
    fn text<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Vec<u8>>, ArchiveError> {
        let length = self.int(input)?;
        if length < 0 {
            return Ok(None);
        }
        let length = usize::try_from(length)
            .ok()
            .filter(|length| self.out.len() + length <= TOC_BYTES_MAX)
            .ok_or_else(|| ArchiveError::Malformed(format!("a text of {length} bytes")))?;
        let begin = self.out.len();
        input.bytes(length, &mut self.out, "its table of contents")?;
        Ok(Some(self.out[begin..].to_vec()))
    }
}

/// Name of the file that an entry's data go to.
fn file_of(entry: &TocEntry, version: (u8, u8, u8)) -> String {
    if entry.desc == b"BLOBS" {
        if version >= (1, 16, 0) { format!("blobs_{}.toc", entry.dump_id) } else { "blobs.toc".to_owned() }
    } else {
        format!("{}.dat", entry.dump_id)
    }
}

fn oid_of(text: Option<Vec<u8>>) -> Result<u32, ArchiveError> {
    let text = String::from_utf8(text.unwrap_or_default())
        .map_err(|_| ArchiveError::Malformed("an oid that is not a number".to_owned()))?;
    text.parse().map_err(|_| ArchiveError::Malformed(format!("an oid `{}`", text.escape_debug())))
}

fn lossy(text: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
}

/// Reads the header and table of contents of an archive; `from_directory` says which of the two layouts it has.
fn read_toc<R: Read>(
    input: &mut Input<R>,
    from_directory: bool,
) -> Result<(ArchiveFacts, Toc, usize), ArchiveError> {
    let mut head = Vec::new();
    input.bytes(11, &mut head, "its header")?;
    let [b'P', b'G', b'D', b'M', b'P', major, minor, revision, int_bytes, offset_bytes, format] = head[..]
    else {
        return Err(ArchiveError::Unknown("it does not begin with PGDMP".to_owned()));
    };
    let version = (major, minor, revision);
    if !((1, 14, 0)..=(1, 16, 255)).contains(&version) {
        return Err(ArchiveError::Unknown(format!("version {major}.{minor} of the format")));
    }
    let expected = if from_directory { FORMAT_TAR } else { FORMAT_CUSTOM };
    if format != expected {
        return Err(ArchiveError::Unknown(format!("format code {format}, expected {expected}")));
    }
    if !(4..=8).contains(&int_bytes) || !(4..=8).contains(&offset_bytes) {
        return Err(ArchiveError::Unknown(format!("numbers of {int_bytes} and {offset_bytes} bytes")));
    }
    let int_bytes = usize::from(int_bytes);
    let mut toc = Toc { int_bytes, out: head };
    toc.out[10] = FORMAT_TAR;
    // From 1.15 on the compression is one byte naming the algorithm; before it is a level.
    let compression = if version >= (1, 15, 0) {
        let algorithm = input.byte("its header")?;
        toc.out.push(algorithm);
        i64::from(algorithm)
    } else {
        toc.int(input)?
    };
    if compression != 0 {
        return Err(ArchiveError::Unknown(
            "it is compressed; it must be written with --compress=0".to_owned(),
        ));
    }
    for _ in 0..7 {
        toc.int(input)?;
    }
    toc.text(input)?;
    let server_version = lossy(toc.text(input)?);
    let dump_version = lossy(toc.text(input)?);
    let count = toc.int(input)?;
    let mut facts = ArchiveFacts { version, server_version, dump_version, ..ArchiveFacts::default() };
    let mut ids = BTreeSet::new();
    let mut section_now = Section::default();
    for _ in 0..count {
        let (mut entry, definition, section) =
            read_entry(input, &mut toc, version, from_directory, usize::from(offset_bytes))?;
        // What has no section of its own (a comment, a grant) belongs to the one that it stands in, as for pg_restore.
        section_now = match section {
            SECTION_BEFORE => Section::Before,
            SECTION_DATA => Section::Data,
            SECTION_AFTER => Section::After,
            _ => section_now,
        };
        entry.section = section_now;
        entry.is_via_root = definition.starts_with(VIA_ROOT);
        if entry.desc == b"ENCODING" {
            let name = definition
                .strip_prefix(b"SET client_encoding = '")
                .and_then(|rest| rest.strip_suffix(b"';\n"));
            facts.encoding = lossy(name.map(<[u8]>::to_vec));
        }
        if !ids.insert(entry.dump_id) {
            return Err(ArchiveError::Malformed(format!("entry {} occurs twice", entry.dump_id)));
        }
        facts.entries.push(entry);
    }
    Ok((facts, toc, int_bytes))
}

fn read_entry<R: Read>(
    input: &mut Input<R>,
    toc: &mut Toc,
    version: (u8, u8, u8),
    from_directory: bool,
    offset_bytes: usize,
) -> Result<(TocEntry, Vec<u8>, i64), ArchiveError> {
    let dump_id = toc.int(input)?;
    let announces = toc.int(input)? != 0;
    let table_oid = oid_of(toc.text(input)?)?;
    let oid = oid_of(toc.text(input)?)?;
    let tag = toc.text(input)?.unwrap_or_default();
    let desc = toc.text(input)?.unwrap_or_default();
    let section = toc.int(input)?;
    let definition = toc.text(input)?.unwrap_or_default();
    toc.text(input)?; // drop statement
    let copy_statement = toc.text(input)?.unwrap_or_default();
    let namespace = toc.text(input)?.unwrap_or_default();
    toc.text(input)?; // tablespace
    toc.text(input)?; // table access method
    if version >= (1, 16, 0) {
        toc.int(input)?; // kind of relation
    }
    let owner = toc.text(input)?.unwrap_or_default();
    toc.text(input)?; // once: with oids
    let mut dependencies = Vec::new();
    while let Some(text) = toc.text(input)? {
        let id = String::from_utf8(text).ok().and_then(|text| text.parse().ok());
        dependencies
            .push(id.ok_or_else(|| ArchiveError::Malformed("a dependency that is not a number".to_owned()))?);
    }
    let mut entry = TocEntry {
        dump_id,
        has_data: announces,
        table_oid,
        oid,
        tag,
        desc,
        namespace,
        copy_statement,
        owner,
        dependencies,
        is_via_root: false,
        section: Section::default(),
    };
    if from_directory {
        let file = toc.text(input)?.unwrap_or_default();
        entry.has_data = !file.is_empty();
        return Ok((entry, definition, section));
    }
    let mut offset = Vec::new();
    input.bytes(1 + offset_bytes, &mut offset, "its table of contents")?;
    if (offset[0] == OFFSET_NO_DATA) == announces {
        let id = entry.dump_id;
        return Err(ArchiveError::Malformed(format!("entry {id} contradicts itself about having data")));
    }
    let file = if announces { file_of(&entry, version) } else { String::new() };
    encode_text(file.as_bytes(), toc.int_bytes, &mut toc.out)?;
    Ok((entry, definition, section))
}

/// Reads the `toc.dat` of a directory-format archive.
pub fn read_directory_toc(toc: impl Read) -> Result<ArchiveFacts, ArchiveError> {
    let mut input = Input { from: toc, buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0 };
    let (facts, ..) = read_toc(&mut input, true)?;
    Ok(facts)
}

/// Copies an archive from `from` into `sink` as a directory; `toc.dat` is begun last, after everything was whole.
///
/// `Ok` means that the stream was a complete archive followed by its end. It does not mean that its producer has
/// exited with success: the caller must know that before it lets the copy be committed.
pub fn split(
    from: impl Read,
    sink: &mut dyn ArchiveSink,
    progress: &mut dyn FnMut(u64) -> Result<(), ArchiveError>,
) -> Result<ArchiveFacts, ArchiveError> {
    let mut input = Input { from, buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0 };
    let (mut facts, toc, int_bytes) = read_toc(&mut input, false)?;
    let by_id: BTreeMap<i64, usize> =
        facts.entries.iter().enumerate().map(|(position, entry)| (entry.dump_id, position)).collect();
    let mut awaited: BTreeSet<i64> =
        facts.entries.iter().filter(|entry| entry.has_data).map(|entry| entry.dump_id).collect();
    let mut block =
        Block { out: Vec::with_capacity(BUFFER_BYTES * 2), tail: Vec::new(), newlines: 0, bytes: 0 };
    while !input.fill()?.is_empty() {
        let kind = input.byte("a block")?;
        let id = input.int(int_bytes, "a block")?;
        if !awaited.remove(&id) {
            return Err(ArchiveError::Malformed(format!(
                "data of entry {id}, which is unknown or came already"
            )));
        }
        let position =
            *by_id.get(&id).ok_or_else(|| ArchiveError::Malformed(format!("data of unknown entry {id}")))?;
        let entry = &facts.entries[position];
        let is_blobs = entry.desc == b"BLOBS";
        let file = file_of(entry, facts.version);
        match (kind, is_blobs) {
            (BLOCK_DATA, false) => {
                let (is_copy, oid) = (!entry.copy_statement.is_empty(), entry.oid);
                sink.begin(&file)?;
                block.copy(&mut input, int_bytes, sink, progress, facts.data_bytes)?;
                if is_copy {
                    if block.tail != COPY_END {
                        return Err(ArchiveError::DataMissing(format!("{file}: its COPY end marker")));
                    }
                    facts.rows.insert(oid, block.newlines.saturating_sub(3));
                }
                sink.finish()?;
                facts.data_bytes += block.bytes;
            }
            (BLOCK_BLOBS, true) => {
                let mut list = String::new();
                loop {
                    let oid = input.int(int_bytes, "large objects")?;
                    if oid == 0 {
                        break;
                    }
                    // Ids above 2^31 pass through a signed number.
                    let oid = u32::try_from(oid.rem_euclid(1 << 32))
                        .map_err(|_| ArchiveError::Malformed(format!("large object {oid}")))?;
                    let name = format!("blob_{oid}.dat");
                    sink.begin(&name)?;
                    block.copy(&mut input, int_bytes, sink, progress, facts.data_bytes)?;
                    sink.finish()?;
                    facts.data_bytes += block.bytes;
                    facts.large_objects += 1;
                    list.push_str(&format!("{oid} {name}\n"));
                }
                sink.begin(&file)?;
                sink.write(list.as_bytes())?;
                sink.finish()?;
            }
            (kind, _) => {
                return Err(ArchiveError::Malformed(format!("a block of kind {kind} for entry {id}")));
            }
        }
    }
    if let Some(id) = awaited.first() {
        let entry = &facts.entries[by_id[id]];
        let name = format!(
            "{} {}.{} (and {} more)",
            String::from_utf8_lossy(&entry.desc),
            String::from_utf8_lossy(&entry.namespace).escape_debug(),
            String::from_utf8_lossy(&entry.tag).escape_debug(),
            awaited.len() - 1
        );
        return Err(ArchiveError::DataMissing(name));
    }
    sink.begin("toc.dat")?;
    sink.write(&toc.out)?;
    sink.finish()?;
    Ok(facts)
}

/// How many newlines there are. Sums of a byte's width, which fit 255 of them, are added many at once by the processor.
fn newlines_in(bytes: &[u8]) -> u64 {
    bytes
        .chunks(usize::from(u8::MAX))
        .map(|part| u64::from(part.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>()))
        .sum()
}

/// One block being copied: its buffer, its last bytes, its newlines.
struct Block {
    out: Vec<u8>,
    tail: Vec<u8>,
    newlines: u64,
    bytes: u64,
}

impl Block {
    fn copy<R: Read>(
        &mut self,
        input: &mut Input<R>,
        int_bytes: usize,
        sink: &mut dyn ArchiveSink,
        progress: &mut dyn FnMut(u64) -> Result<(), ArchiveError>,
        done_before: u64,
    ) -> Result<(), ArchiveError> {
        self.out.clear();
        self.tail.clear();
        self.newlines = 0;
        self.bytes = 0;
        loop {
            let length = input.int(int_bytes, "a block")?;
            if length == 0 {
                break;
            }
            let mut left = usize::try_from(length)
                .map_err(|_| ArchiveError::Malformed(format!("a chunk of {length} bytes")))?;
            while left > 0 {
                let taken = left.min(BUFFER_BYTES);
                input.bytes(taken, &mut self.out, "a block")?;
                left -= taken;
                if self.out.len() >= BUFFER_BYTES {
                    self.flush(sink)?;
                    progress(done_before + self.bytes)?;
                }
            }
        }
        self.flush(sink)
    }

    fn flush(&mut self, sink: &mut dyn ArchiveSink) -> Result<(), ArchiveError> {
        self.newlines += newlines_in(&self.out);
        self.bytes += self.out.len() as u64;
        self.tail.extend_from_slice(&self.out[self.out.len().saturating_sub(COPY_END.len())..]);
        self.tail.drain(..self.tail.len().saturating_sub(COPY_END.len()));
        sink.write(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newlines_are_counted_whatever_the_length() {
        for length in [0, 1, 254, 255, 256, 1_000, 70_000] {
            assert_eq!(newlines_in(&vec![b'\n'; length]), length as u64);
            assert_eq!(newlines_in(&vec![b'\r'; length]), 0);
        }
        assert_eq!(newlines_in(&b"a\nb".repeat(300)), 300);
    }

    #[derive(Default)]
    struct Files {
        done: BTreeMap<String, Vec<u8>>,
        open: Option<(String, Vec<u8>)>,
        order: Vec<String>,
    }

    impl ArchiveSink for Files {
        fn begin(&mut self, name: &str) -> Result<(), ArchiveError> {
            assert!(self.open.is_none(), "the previous file was finished");
            self.open = Some((name.to_owned(), Vec::new()));
            self.order.push(name.to_owned());
            Ok(())
        }
        fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
            self.open.as_mut().expect("a file is open").1.extend_from_slice(bytes);
            Ok(())
        }
        fn finish(&mut self) -> Result<(), ArchiveError> {
            let (name, bytes) = self.open.take().expect("a file is open");
            assert!(self.done.insert(name, bytes).is_none(), "no file is written twice");
            Ok(())
        }
    }

    /// Writes an archive by the published layout; independent of the reader's helpers.
    struct Writer {
        bytes: Vec<u8>,
    }

    impl Writer {
        fn int(&mut self, value: i32) {
            self.bytes.push(u8::from(value < 0));
            self.bytes.extend_from_slice(&value.unsigned_abs().to_le_bytes());
        }
        fn text(&mut self, text: &str) {
            self.int(i32::try_from(text.len()).unwrap());
            self.bytes.extend_from_slice(text.as_bytes());
        }
        fn entry(&mut self, minor: u8, id: i32, desc: &str, data: bool) {
            self.int(id);
            self.int(i32::from(data));
            self.text("1259");
            self.text("16384");
            self.text("ta\nble");
            self.text(desc);
            self.int(2);
            self.text("");
            self.text("");
            self.text(if desc == "TABLE DATA" { "COPY public.t (a) FROM stdin;\n" } else { "" });
            self.text("public");
            self.int(-1);
            self.text("heap");
            if minor >= 16 {
                self.int(114);
            }
            self.text("owner");
            self.text("false");
            self.text("3");
            self.int(-1);
            self.bytes.push(if data { 1 } else { 3 });
            self.bytes.extend_from_slice(&[0; 8]);
        }
    }

    fn archive(minor: u8, blocks: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer { bytes: b"PGDMP".to_vec() };
        writer.bytes.extend_from_slice(&[1, minor, 0, 4, 8, 1]);
        if minor >= 15 {
            writer.bytes.push(0);
        } else {
            writer.int(0);
        }
        for _ in 0..7 {
            writer.int(1);
        }
        writer.text("db");
        writer.text("15.18");
        writer.text("15.18");
        writer.int(3);
        writer.entry(minor, 3, "TABLE", false);
        writer.entry(minor, 7, "TABLE DATA", true);
        writer.entry(minor, 9, "BLOBS", true);
        blocks(&mut writer);
        writer.bytes
    }

    fn blocks(writer: &mut Writer) {
        writer.bytes.push(1);
        writer.int(7);
        writer.text("1\n");
        writer.text("2\n");
        writer.text("\\.\n\n\n");
        writer.int(0);
        writer.bytes.push(3);
        writer.int(9);
        writer.int(-1_294_967_296); // 3,000,000,000 through a signed number
        writer.text("large");
        writer.int(0);
        writer.int(0);
    }

    fn run(bytes: &[u8]) -> Result<(ArchiveFacts, Files), ArchiveError> {
        let mut files = Files::default();
        let facts = split(bytes, &mut files, &mut |_| Ok(()))?;
        Ok((facts, files))
    }

    #[test]
    fn an_archive_of_each_version_becomes_a_directory() {
        for (minor, list) in [(14, "blobs.toc"), (15, "blobs.toc"), (16, "blobs_9.toc")] {
            let (facts, files) = run(&archive(minor, blocks)).unwrap();
            assert_eq!(files.done["7.dat"], b"1\n2\n\\.\n\n\n");
            assert_eq!(files.done["blob_3000000000.dat"], b"large");
            assert_eq!(files.done[list], b"3000000000 blob_3000000000.dat\n");
            assert_eq!(facts.rows, BTreeMap::from([(16384, 2)]));
            assert_eq!(facts.large_objects, 1);
            assert_eq!(
                files.order.last().map(String::as_str),
                Some("toc.dat"),
                "the table of contents is last"
            );
            let read = read_directory_toc(&files.done["toc.dat"][..]).unwrap();
            assert_eq!(read.entries, facts.entries);
            assert_eq!(files.done["toc.dat"][10], 3);
        }
    }

    #[test]
    fn an_archive_cut_anywhere_is_never_whole() {
        let whole = archive(14, blocks);
        for length in 0..whole.len() {
            let mut files = Files::default();
            assert!(split(&whole[..length], &mut files, &mut |_| Ok(())).is_err(), "cut at {length}");
            assert!(!files.done.contains_key("toc.dat"), "cut at {length}");
        }
    }

    #[test]
    fn what_follows_an_archive_is_an_error() {
        for garbage in [&b"x"[..], b"\0", b"\x01\0\x07\0\0\0"] {
            let mut bytes = archive(14, blocks);
            bytes.extend_from_slice(garbage);
            assert!(run(&bytes).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn a_table_without_its_end_of_copy_is_cut() {
        let cut = archive(14, |writer| {
            writer.bytes.push(1);
            writer.int(7);
            writer.text("1\n");
            writer.int(0);
            writer.bytes.push(3);
            writer.int(9);
            writer.int(0);
        });
        assert!(matches!(run(&cut), Err(ArchiveError::DataMissing(_))));
    }

    #[test]
    fn other_versions_compressions_and_formats_are_refused() {
        let whole = archive(14, blocks);
        for (position, value) in [(0, b'X'), (6, 13), (6, 17), (10, 5), (12, 6), (8, 16)] {
            let mut bytes = whole.clone();
            bytes[position] = value;
            assert!(matches!(run(&bytes), Err(ArchiveError::Unknown(_))), "byte {position}");
        }
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let whole = archive(16, blocks);
        for position in 0..whole.len() {
            for flip in [1_u8, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[position] ^= flip;
                drop(run(&bytes));
            }
        }
    }
}
