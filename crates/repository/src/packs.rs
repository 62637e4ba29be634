//! What all index files list, by pack: for a check, which reads packs.
//!
//! Memory holds a line for every pack; the blobs are sorted records, on disk when they are many.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::index::{IndexBuilder, IndexedPack};
use crate::pack::PackedBlob;
use crate::records::{self, Builder, Record, Sorted};

/// How often a pack is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// By one index file.
    Once,
    /// By several, with the same blobs.
    Alike {
        /// One of them.
        file: Id,
    },
    /// By several, with different blobs; all of them together are taken for its blobs.
    Differently,
}

/// One pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedPack {
    pub(crate) id: Id,
    pub(crate) listed: Listed,
    /// Bytes of its blobs, decompressed.
    pub(crate) plain_bytes: u64,
    start: usize,
    end: usize,
}

/// Every pack, in order of id.
pub(crate) struct Packs {
    pub(crate) list: Vec<ListedPack>,
    blobs: Sorted,
}

/// Takes index files, one after another.
pub(crate) struct PacksBuilder {
    blobs: Builder,
    /// By number: the pack, how many files list it, and the first of these by name.
    packs: HashMap<u32, (Id, u32, Id)>,
}

/// Records that are looked at together.
const PART: usize = 4096;

/// Pack and kind, offset, id, length, uncompressed length: sorted by pack.
pub(crate) fn record(pack: u32, blob: &PackedBlob) -> Record {
    let mut record = [0; records::SIZE];
    let kind = u32::from(blob.kind == BlobKind::Tree);
    record[..4].copy_from_slice(&(pack << 1 | kind).to_be_bytes());
    record[4..8].copy_from_slice(&blob.offset.to_be_bytes());
    record[8..40].copy_from_slice(&blob.id.0);
    record[40..44].copy_from_slice(&blob.length.to_be_bytes());
    record[44..].copy_from_slice(&blob.uncompressed_length.unwrap_or(0).to_be_bytes());
    record
}

/// Takes back what [`record`] wrote.
pub(crate) fn blob_of(record: &Record) -> PackedBlob {
    let number = |at: usize| u32::from_be_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let mut id = [0; 32];
    id.copy_from_slice(&record[8..40]);
    let uncompressed = number(44);
    PackedBlob {
        kind: if number(0) & 1 == 1 { BlobKind::Tree } else { BlobKind::Data },
        id: Id(id),
        offset: number(4),
        length: number(40),
        uncompressed_length: (uncompressed != 0).then_some(uncompressed),
    }
}

/// The pack that [`record`] was given.
pub(crate) fn pack_of(record: &Record) -> u32 {
    u32::from_be_bytes([record[0], record[1], record[2], record[3]]) >> 1
}

fn failed(error: std::io::Error) -> RepositoryError {
    RepositoryError::io("sort", "the blobs of the repository by pack", error)
}

impl PacksBuilder {
    pub(crate) fn new(scratch: Option<&Path>) -> Self {
        Self { blobs: Builder::new(scratch), packs: HashMap::new() }
    }

    /// The packs of an index file, by the numbers that `index` gives them.
    pub(crate) fn add(&mut self, file: &Id, packs: &[IndexedPack], index: &mut IndexBuilder) -> Result<()> {
        for pack in packs {
            let number = index.number(&pack.id);
            let known = self.packs.entry(number).or_insert((pack.id, 0, *file));
            *known = (pack.id, known.1 + 1, known.2.min(*file));
            for blob in &pack.blobs {
                self.blobs.push(record(number, blob)).map_err(failed)?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Packs> {
        let blobs = self.blobs.finish(false).map_err(failed)?;
        let mut list: HashMap<u32, ListedPack> = self
            .packs
            .iter()
            .map(|(number, (id, files, file))| {
                let listed = if *files > 1 { Listed::Alike { file: *file } } else { Listed::Once };
                (*number, ListedPack { id: *id, listed, plain_bytes: 0, start: 0, end: 0 })
            })
            .collect();
        // How often the last record was there: of a pack that several files list alike, each blob is as often as there are files.
        let mut last: Option<(Record, u32)> = None;
        let close = |list: &mut HashMap<u32, ListedPack>, (record, times): &(Record, u32)| {
            let number = pack_of(record);
            let files = self.packs.get(&number).map_or(0, |(_, files, _)| *files);
            if files > 1
                && files != *times
                && let Some(pack) = list.get_mut(&number)
            {
                pack.listed = Listed::Differently;
            }
        };
        let mut at = 0;
        while at < blobs.len() {
            let end = (at + PART).min(blobs.len());
            for record in blobs.read(at..end).map_err(failed)?.iter() {
                let number = pack_of(record);
                let is_first = last.as_ref().is_none_or(|(last, _)| pack_of(last) != number);
                match &mut last {
                    Some((same, times)) if same == record => *times += 1,
                    other => {
                        if let Some(ended) = other {
                            close(&mut list, ended);
                        }
                        *other = Some((*record, 1));
                    }
                }
                let Some(pack) = list.get_mut(&number) else {
                    return Err(failed(std::io::Error::other("a blob of a pack that was never listed")));
                };
                if is_first {
                    pack.start = at;
                }
                at += 1;
                pack.end = at;
                pack.plain_bytes += u64::from(blob_of(record).plain_length());
            }
        }
        if let Some(ended) = &last {
            close(&mut list, ended);
        }
        let mut list: Vec<ListedPack> = list.into_values().collect();
        list.sort_unstable_by_key(|pack| pack.id);
        Ok(Packs { list, blobs })
    }
}

impl Packs {
    pub(crate) fn find(&self, id: &Id) -> Option<&ListedPack> {
        self.list.binary_search_by_key(id, |pack| pack.id).ok().map(|at| &self.list[at])
    }

    /// The blobs of a pack, in order of offset; each once, where several files list it.
    pub(crate) fn blobs(&self, pack: &ListedPack) -> Result<Vec<PackedBlob>> {
        let records = self.blobs.read(pack.start..pack.end).map_err(failed)?;
        let mut blobs: Vec<PackedBlob> = records.iter().map(blob_of).collect();
        blobs.sort_by_key(|blob| (blob.offset, blob.id));
        if pack.listed != Listed::Once {
            blobs.dedup();
        }
        Ok(blobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u32, kind: BlobKind) -> PackedBlob {
        let uncompressed_length = n.is_multiple_of(2).then_some(n + 100);
        PackedBlob { kind, id: Id::of(&n.to_le_bytes()), offset: n * 50, length: 50, uncompressed_length }
    }

    #[test]
    fn packs_come_back_with_what_is_listed_of_them() {
        let (one, other, third) = (Id::of(b"1"), Id::of(b"2"), Id::of(b"3"));
        let whole: Vec<PackedBlob> = (0..5).map(|n| blob(n, BlobKind::Data)).collect();
        let mixed = vec![blob(1, BlobKind::Tree), blob(0, BlobKind::Data)];
        let pack = |id, blobs: &[PackedBlob]| IndexedPack { id, blobs: blobs.to_vec() };
        let files = [
            vec![pack(one, &whole), pack(other, &mixed)],
            vec![pack(one, &whole), pack(third, &whole[..2])],
            vec![pack(third, &whole[2..]), pack(Id::of(b"4"), &[])],
            vec![pack(Id::of(b"6"), &[whole[0], whole[0]])],
            vec![pack(Id::of(b"6"), &whole[..2])],
        ];
        let (mut index, mut builder) = (IndexBuilder::new(None), PacksBuilder::new(None));
        for (number, file) in files.iter().enumerate() {
            builder.add(&Id([u8::try_from(number).unwrap(); 32]), file, &mut index).unwrap();
        }
        let packs = builder.finish().unwrap();
        assert!(packs.list.is_sorted_by_key(|pack| pack.id) && packs.list.len() == 5);
        let of = |id: &Id| {
            let pack = packs.find(id).unwrap();
            (pack.listed, packs.blobs(pack).unwrap())
        };
        assert_eq!(of(&one), (Listed::Alike { file: Id([0; 32]) }, whole.clone()));
        assert_eq!(of(&other), (Listed::Once, vec![mixed[1], mixed[0]]));
        assert_eq!(of(&third), (Listed::Differently, whole.clone()));
        assert_eq!(of(&Id::of(b"4")), (Listed::Once, Vec::new()));
        assert_eq!(of(&Id::of(b"6")), (Listed::Differently, whole[..2].to_vec()), "as many, and others");
        assert!(packs.find(&Id::of(b"5")).is_none());
    }
}
