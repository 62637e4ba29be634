//! Sorts more records than memory may hold: sorted runs in a file without a name, merged while they are read.
//!
//! What fits into one run never touches the disk. A crash leaves nothing, for the file has no name.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use seaworthy_interface::{DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;

/// Bytes of records in one run, which is about what sorting holds in memory.
const RUN_BYTES: usize = 16 << 20;

/// Bytes of each run that are read at once while runs are merged.
const READ_BYTES: usize = 64 << 10;

/// Records that are to be sorted by key, bytewise; records of one key stay in the order in which they came.
pub(super) struct Sorter {
    scratch: PathBuf,
    run_bytes: usize,
    bytes: Vec<u8>,
    records: Vec<Record>,
    file: Option<BufWriter<File>>,
    runs: Vec<Range<u64>>,
}

/// A record that was sorted: its key and its value.
pub(super) type Keyed = (Vec<u8>, Vec<u8>);

#[derive(Clone, Copy)]
struct Record {
    start: usize,
    key: u32,
    value: u32,
}

impl Record {
    fn key(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.start + self.key as usize]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        let start = self.start + self.key as usize;
        &bytes[start..start + self.value as usize]
    }
}

fn failed(scratch: &Path) -> impl Fn(io::Error) -> DriverError + '_ {
    |error| {
        let context = format!("sort the list of entries below `{}`", scratch.display());
        let error = DriverError::io(context, error);
        if error.kind == ErrorKind::Exhausted { error.code(FindingCode::NoSpace) } else { error }
    }
}

impl Sorter {
    /// An empty one; its runs lie in the directory `scratch`, which is made when it is needed.
    pub(super) fn new(scratch: &Path) -> Self {
        Self::with_runs_of(scratch, RUN_BYTES)
    }

    fn with_runs_of(scratch: &Path, run_bytes: usize) -> Self {
        Self {
            scratch: scratch.to_owned(),
            run_bytes,
            bytes: Vec::new(),
            records: Vec::new(),
            file: None,
            runs: Vec::new(),
        }
    }

    /// Takes a record.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), DriverError> {
        let length = |part: &[u8]| {
            u32::try_from(part.len()).map_err(|error| failed(&self.scratch)(io::Error::other(error)))
        };
        let record = Record { start: self.bytes.len(), key: length(key)?, value: length(value)? };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.records.push(record);
        if self.bytes.len() + self.records.len() * size_of::<Record>() >= self.run_bytes {
            self.spill()?;
        }
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.records.sort_by(|one, other| one.key(bytes).cmp(other.key(bytes)));
    }

    fn spill(&mut self) -> Result<(), DriverError> {
        self.sort();
        let wrong = failed(&self.scratch);
        if self.file.is_none() {
            std::fs::create_dir_all(&self.scratch).map_err(&wrong)?;
            let file = tempfile::tempfile_in(&self.scratch).map_err(&wrong)?;
            self.file = Some(BufWriter::with_capacity(1 << 20, file));
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let start = self.runs.last().map_or(0, |run| run.end);
        let mut end = start;
        let mut write = |part: &[u8]| file.write_all(part);
        for record in &self.records {
            let written = write(&record.key.to_le_bytes())
                .and_then(|()| write(&record.value.to_le_bytes()))
                .and_then(|()| write(record.key(&self.bytes)))
                .and_then(|()| write(record.value(&self.bytes)));
            written.map_err(&wrong)?;
            end += 8 + u64::from(record.key) + u64::from(record.value);
        }
        self.runs.push(start..end);
        self.bytes.clear();
        self.records.clear();
        Ok(())
    }

    /// The records in order.
    pub(super) fn finish(mut self) -> Result<Sorted, DriverError> {
        let Some(_) = &self.file else {
            self.sort();
            let source = Runs::Memory { bytes: self.bytes, records: self.records.into_iter() };
            return Ok(Sorted { scratch: self.scratch, source });
        };
        self.spill()?;
        let wrong = failed(&self.scratch);
        let Some(file) = self.file.take() else {
            return Err(wrong(io::Error::other("the runs are gone")));
        };
        let file = Arc::new(file.into_inner().map_err(|error| wrong(error.into_error()))?);
        let mut runs: Vec<BufReader<Run>> = self
            .runs
            .into_iter()
            .map(|range| {
                BufReader::with_capacity(
                    READ_BYTES,
                    Run { file: Arc::clone(&file), at: range.start, end: range.end },
                )
            })
            .collect();
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.iter_mut().enumerate() {
            if let Some((key, value)) = next_of(run).map_err(&wrong)? {
                heads.push(Reverse((key, number, value)));
            }
        }
        drop(wrong);
        Ok(Sorted { scratch: self.scratch, source: Runs::Disk { runs, heads } })
    }
}

/// A part of the file of runs.
struct Run {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Run {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = into.len().min(left);
        let read = self.file.read_at(&mut into[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn next_of(run: &mut BufReader<Run>) -> io::Result<Option<Keyed>> {
    let mut lengths = [0; 8];
    if run.buffer().is_empty() && run.get_ref().at == run.get_ref().end {
        return Ok(None);
    }
    run.read_exact(&mut lengths)?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let (key, value) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let (mut key, mut value) = (vec![0; key as usize], vec![0; value as usize]);
    run.read_exact(&mut key)?;
    run.read_exact(&mut value)?;
    Ok(Some((key, value)))
}

/// The next record of a run: key, number of the run, value.
type Head = (Vec<u8>, usize, Vec<u8>);

/// Records in order of key.
pub(super) struct Sorted {
    scratch: PathBuf,
    source: Runs,
}

enum Runs {
    Memory { bytes: Vec<u8>, records: std::vec::IntoIter<Record> },
    Disk { runs: Vec<BufReader<Run>>, heads: BinaryHeap<Reverse<Head>> },
}

impl Sorted {
    /// The next record: key and value.
    pub(super) fn next(&mut self) -> Result<Option<Keyed>, DriverError> {
        match &mut self.source {
            Runs::Memory { bytes, records } => {
                Ok(records.next().map(|record| (record.key(bytes).to_vec(), record.value(bytes).to_vec())))
            }
            Runs::Disk { runs, heads } => {
                let Some(Reverse((key, number, value))) = heads.pop() else { return Ok(None) };
                if let Some((next, its_value)) = next_of(&mut runs[number]).map_err(failed(&self.scratch))? {
                    heads.push(Reverse((next, number, its_value)));
                }
                Ok(Some((key, value)))
            }
        }
    }
}

/// A path as a key: keys compare, byte for byte, as [`seaworthy_model::witness::files::path_order`] does.
pub(super) fn path_key(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}

/// The path of a key; no name holds a NUL.
pub(super) fn path_of(key: &[u8]) -> Vec<u8> {
    key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(records: &[Keyed], run_bytes: usize) -> (Vec<Keyed>, usize) {
        let scratch = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::with_runs_of(&scratch.path().join("made"), run_bytes);
        for (key, value) in records {
            sorter.push(key, value).unwrap();
        }
        let runs = sorter.runs.len();
        let mut sorted = sorter.finish().unwrap();
        let mut out = Vec::new();
        while let Some(record) = sorted.next().unwrap() {
            out.push(record);
        }
        assert_eq!(std::fs::read_dir(scratch.path().join("made")).map_or(0, Iterator::count), 0);
        (out, runs)
    }

    #[test]
    fn records_come_back_in_order_however_many_runs_they_took() {
        let mut state = 7_u64;
        let mut records: Vec<Keyed> = (0..5_000_u32)
            .map(|number| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Few enough keys that many records share one.
                let key = format!("{:x}", state >> 53).into_bytes();
                (key, number.to_le_bytes().to_vec())
            })
            .collect();
        records.push((Vec::new(), Vec::new()));
        let mut expected = records.clone();
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        let (in_memory, runs) = sorted(&records, RUN_BYTES);
        assert_eq!((&in_memory, runs), (&expected, 0));
        let (on_disk, runs) = sorted(&records, 4_000);
        assert!(runs > 20, "{runs} runs");
        assert_eq!(on_disk, expected);
        assert_eq!(sorted(&[], 1).0, []);
    }

    #[test]
    fn keys_of_paths_are_in_the_order_of_paths() {
        let paths: Vec<&[u8]> = vec![b"/a", b"/a/x", b"/a/x/y", b"/a!", b"/a-b", b"/b"];
        let mut keys: Vec<Vec<u8>> = paths.iter().rev().map(|path| path_key(path)).collect();
        keys.sort();
        assert_eq!(keys.iter().map(|key| path_of(key)).collect::<Vec<_>>(), paths);
    }
}
