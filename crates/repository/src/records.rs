//! Sorted records of one size: in memory while they are few, in a file without a name when they are many.
//!
//! A repository of terabytes has millions of blobs, and each costs 48 bytes wherever it is listed. What is sorted here costs
//! memory only up to [`RUN_MAX`] records; beyond that runs go to disk, are merged into one sorted file, and one lookup is one
//! short read. Of the file, memory holds eight bytes for every 64 records.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// Bytes of a record.
pub(crate) const SIZE: usize = 48;

/// One record; records are ordered by their bytes.
pub(crate) type Record = [u8; SIZE];

/// Records that are held and sorted in memory: 48 MiB of them, the blobs of about a terabyte of files.
const RUN_MAX: usize = 1 << 20;

/// Records of a block of the sorted file, which is what one lookup reads.
const BLOCK: usize = 64;

/// Records that a merge reads from each run at once.
const READ: usize = 1024;

/// Takes records in any order.
pub(crate) struct Builder {
    scratch: Option<PathBuf>,
    run_max: usize,
    run: Vec<Record>,
    runs: Vec<Disk>,
}

/// A file that has no name, in a directory that is made when it is missing.
pub(crate) fn unnamed(scratch: &Path) -> io::Result<File> {
    std::fs::create_dir_all(scratch)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, scratch, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let path = scratch.join(format!("records-{:016x}", u64::from_le_bytes(random)));
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

/// The first eight bytes, which order uniform records as all of them do but for collisions.
fn word(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

impl Builder {
    /// Without a `scratch` directory everything stays in memory.
    pub(crate) fn new(scratch: Option<&Path>) -> Self {
        Self::with_runs_of(scratch, RUN_MAX)
    }

    fn with_runs_of(scratch: Option<&Path>, run_max: usize) -> Self {
        Self { scratch: scratch.map(Path::to_path_buf), run_max, run: Vec::new(), runs: Vec::new() }
    }

    pub(crate) fn push(&mut self, record: Record) -> io::Result<()> {
        if self.run.len() >= self.run_max
            && let Some(scratch) = self.scratch.clone()
        {
            let run = std::mem::take(&mut self.run);
            let (disk, run) = spilled(&scratch, run)?;
            self.runs.push(disk);
            self.run = run;
        }
        self.run.push(record);
        Ok(())
    }

    /// The records in order, equal ones once where `distinct`.
    pub(crate) fn finish(mut self, distinct: bool) -> io::Result<Sorted> {
        let Some(scratch) = self.scratch.filter(|_| !self.runs.is_empty()) else {
            sort(&mut self.run);
            if distinct {
                self.run.dedup();
            }
            self.run.shrink_to_fit();
            return Ok(Sorted::Memory(self.run));
        };
        let (disk, run) = spilled(&scratch, self.run)?;
        drop(run);
        self.runs.push(disk);
        merge(&scratch, &self.runs, distinct).map(Sorted::Disk)
    }
}

fn sort(records: &mut [Record]) {
    // Comparing a word settles nearly every pair; comparing all bytes is a call.
    records.sort_unstable_by(|one, other| word(one).cmp(&word(other)).then_with(|| one.cmp(other)));
}

/// Sorts records and writes them; gives the empty buffer back.
fn spilled(scratch: &Path, mut records: Vec<Record>) -> io::Result<(Disk, Vec<Record>)> {
    sort(&mut records);
    let mut writer = Writer::new(scratch)?;
    for record in &records {
        writer.push(record)?;
    }
    records.clear();
    Ok((writer.finish()?, records))
}

/// Merges sorted runs into one.
pub(crate) fn merge(scratch: &Path, runs: &[Disk], distinct: bool) -> io::Result<Disk> {
    let mut readers: Vec<Reader<'_>> = runs.iter().map(Reader::new).collect();
    let mut heads = BinaryHeap::with_capacity(readers.len());
    for (number, reader) in readers.iter_mut().enumerate() {
        if let Some(record) = reader.next()? {
            heads.push(Reverse((record, number)));
        }
    }
    let mut writer = Writer::new(scratch)?;
    let mut last: Option<Record> = None;
    while let Some(Reverse((record, number))) = heads.pop() {
        if let Some(next) = readers[number].next()? {
            heads.push(Reverse((next, number)));
        }
        if distinct && last == Some(record) {
            continue;
        }
        writer.push(&record)?;
        last = Some(record);
    }
    writer.finish()
}

struct Writer {
    file: BufWriter<File>,
    count: usize,
    fences: Vec<u64>,
}

impl Writer {
    fn new(scratch: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, unnamed(scratch)?);
        Ok(Self { file, count: 0, fences: Vec::new() })
    }

    fn push(&mut self, record: &Record) -> io::Result<()> {
        if self.count.is_multiple_of(BLOCK) {
            self.fences.push(word(record));
        }
        self.count += 1;
        self.file.write_all(record)
    }

    fn finish(self) -> io::Result<Disk> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Disk { file, count: self.count, fences: self.fences })
    }
}

struct Reader<'a> {
    run: &'a Disk,
    at: usize,
    buffer: std::vec::IntoIter<Record>,
}

impl<'a> Reader<'a> {
    fn new(run: &'a Disk) -> Self {
        Self { run, at: 0, buffer: Vec::new().into_iter() }
    }

    fn next(&mut self) -> io::Result<Option<Record>> {
        if let Some(record) = self.buffer.next() {
            return Ok(Some(record));
        }
        let end = (self.at + READ).min(self.run.count);
        self.buffer = self.run.read(self.at..end)?.into_iter();
        self.at = end;
        Ok(self.buffer.next())
    }
}

/// Records in order.
#[derive(Debug)]
pub(crate) enum Sorted {
    Memory(Vec<Record>),
    Disk(Disk),
}

impl Default for Sorted {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl Sorted {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory(records) => records.len(),
            Self::Disk(disk) => disk.count,
        }
    }

    /// The records at these places.
    pub(crate) fn read(&self, range: Range<usize>) -> io::Result<Cow<'_, [Record]>> {
        match self {
            Self::Memory(records) => Ok(Cow::Borrowed(&records[range])),
            Self::Disk(disk) => disk.read(range).map(Cow::Owned),
        }
    }

    /// Gives the records that begin with `prefix`, of at least eight uniform bytes, to `take`.
    pub(crate) fn starting_with<T>(&self, prefix: &[u8], take: impl FnOnce(&[Record]) -> T) -> io::Result<T> {
        self.places_of(prefix, |_, records| take(records))
    }

    /// The same, with the place of the first of them.
    pub(crate) fn places_of<T>(
        &self,
        prefix: &[u8],
        take: impl FnOnce(usize, &[Record]) -> T,
    ) -> io::Result<T> {
        match self {
            Self::Memory(records) => {
                let range = around(records, prefix);
                let (skipped, found) = within(&records[range.clone()], prefix);
                Ok(take(range.start + skipped, found))
            }
            Self::Disk(disk) => {
                let (first, records) = disk.around(prefix)?;
                let (skipped, found) = within(&records, prefix);
                Ok(take(first + skipped, found))
            }
        }
    }
}

/// A part of `records` that holds all that begin with `prefix`: the place is guessed, and the search is short.
fn around(records: &[Record], prefix: &[u8]) -> Range<usize> {
    let count = records.len();
    let guess = usize::try_from((u128::from(word(prefix)) * count as u128) >> 64).unwrap_or(0);
    let (mut low, mut high) = (guess, guess);
    let mut step = 16;
    while low > 0 && records[low].as_slice() >= prefix {
        low = low.saturating_sub(step);
        step *= 4;
    }
    step = 16;
    while high < count && (records[high].as_slice() <= prefix || records[high].starts_with(prefix)) {
        high = (high + step).min(count);
        step *= 4;
    }
    low..high
}

/// The records that begin with `prefix`, and how many are before them.
fn within<'a>(records: &'a [Record], prefix: &[u8]) -> (usize, &'a [Record]) {
    let start = records.partition_point(|record| record.as_slice() < prefix);
    let rest = &records[start..];
    (start, &rest[..rest.iter().take_while(|record| record.starts_with(prefix)).count()])
}

/// A sorted file.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    count: usize,
    /// The word of the first record of every block.
    fences: Vec<u64>,
}

impl Disk {
    /// A file of these records, which are sorted.
    pub(crate) fn of(scratch: &Path, records: Vec<Record>) -> io::Result<Self> {
        spilled(scratch, records).map(|(disk, _)| disk)
    }

    fn read(&self, range: Range<usize>) -> io::Result<Vec<Record>> {
        let mut bytes = vec![0; range.len() * SIZE];
        self.file.read_exact_at(&mut bytes, (range.start * SIZE) as u64)?;
        let (records, _) = bytes.as_chunks::<SIZE>();
        Ok(records.to_vec())
    }

    /// Blocks that hold all records that begin with `prefix`, and the place of the first of their records.
    fn around(&self, prefix: &[u8]) -> io::Result<(usize, Vec<Record>)> {
        let word = word(prefix);
        let first = self.fences.partition_point(|fence| *fence < word).saturating_sub(1);
        let end = self.fences.partition_point(|fence| *fence <= word);
        let records = self.read(first * BLOCK..(end * BLOCK).min(self.count).max(first * BLOCK))?;
        Ok((first * BLOCK, records))
    }

    /// Whether a record begins with `prefix`, of at least eight uniform bytes.
    pub(crate) fn has(&self, prefix: &[u8]) -> io::Result<bool> {
        Ok(!within(&self.around(prefix)?.1, prefix).1.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn record(n: u32, copy: u8) -> Record {
        let mut record = [copy; SIZE];
        record[..32].copy_from_slice(&Id::of(&n.to_le_bytes()).0);
        record
    }

    fn all(sorted: &Sorted) -> Vec<Record> {
        sorted.read(0..sorted.len()).unwrap().into_owned()
    }

    #[test]
    fn records_on_disk_are_those_in_memory() {
        let scratch = tempfile::tempdir().unwrap();
        for count in [0_u32, 1, 63, 64, 65, 1000, 5000] {
            let mut in_memory = Builder::new(None);
            let mut on_disk = Builder::with_runs_of(Some(scratch.path()), 300);
            for n in 0..count {
                for copy in 0..=u8::from(n % 7 == 0) {
                    in_memory.push(record(n, copy)).unwrap();
                    on_disk.push(record(n, copy)).unwrap();
                    on_disk.push(record(n, copy)).unwrap();
                }
            }
            let in_memory = in_memory.finish(true).unwrap();
            let on_disk = on_disk.finish(true).unwrap();
            assert_eq!(matches!(on_disk, Sorted::Disk(_)), count > 150);
            assert_eq!(all(&in_memory), all(&on_disk));
            for n in 0..count + 50 {
                let id = Id::of(&n.to_le_bytes());
                let found = |sorted: &Sorted| sorted.starting_with(&id.0, <[Record]>::to_vec).unwrap();
                assert_eq!(found(&in_memory), found(&on_disk));
                for sorted in [&in_memory, &on_disk] {
                    let (at, found) = sorted.places_of(&id.0, |at, records| (at, records.to_vec())).unwrap();
                    assert_eq!(*sorted.read(at..at + found.len()).unwrap(), found);
                }
                let expected = if n < count { 1 + usize::from(n % 7 == 0) } else { 0 };
                assert_eq!(found(&on_disk).len(), expected, "{n} of {count}");
            }
        }
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn equal_records_are_kept_where_they_count() {
        let scratch = tempfile::tempdir().unwrap();
        let mut builder = Builder::with_runs_of(Some(scratch.path()), 10);
        for n in 0..35 {
            builder.push(record(n % 5, 0)).unwrap();
        }
        let sorted = builder.finish(false).unwrap();
        assert_eq!(sorted.len(), 35);
        assert!(all(&sorted).is_sorted());
    }
}
