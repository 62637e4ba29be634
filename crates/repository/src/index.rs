//! The index: which blob lies where. Files are JSON; read, it is one sorted list, in memory or, when it is long, on disk.
//!
//! The index is the only way to find a blob, and it is not trusted for content: whoever reads a blob compares its hash.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::json::{self, go_struct};
use crate::pack::PackedBlob;
use crate::records::{self, Record, Sorted};
use crate::time::Time;

go_struct! {
    #[derive(Default)]
    struct BlobJson {
        id: Option<Id> = "id",
        kind: Kind = "type",
        offset: u32 = "offset",
        length: u32 = "length",
        uncompressed_length: u32 = "uncompressed_length",
    }
}
go_struct! {
    #[derive(Default)]
    struct PackJson {
        id: Option<Id> = "id",
        blobs: Vec<BlobJson> = "blobs",
    }
}
go_struct! {
    #[derive(Default)]
    struct IndexJson {
        packs: Option<Vec<PackJson>> = "packs",
    }
}
go_struct! {
    #[derive(Default)]
    struct DoomedJson {
        id: Option<Id> = "id",
        blobs: Vec<BlobJson> = "blobs",
        time: Option<Time> = "time",
    }
}
go_struct! {
    #[derive(Default)]
    struct DoomedListJson {
        packs: Option<Vec<DoomedJson>> = "packs_to_delete",
    }
}

/// A blob type word; anything but `data` and `tree` makes the whole index unloadable, as in restic.
#[derive(Default)]
struct Kind(Option<BlobKind>);

impl<'de> serde::Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Kind;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`data` or `tree`")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Kind, E> {
                match word {
                    "data" => Ok(Kind(Some(BlobKind::Data))),
                    "tree" => Ok(Kind(Some(BlobKind::Tree))),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// One pack as an index file lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedPack {
    /// The pack.
    pub id: Id,
    /// Its blobs, in the order of the file.
    pub blobs: Vec<PackedBlob>,
}

/// A pack that no index lists any more, and that is removed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoomedPack {
    /// What was listed.
    pub pack: IndexedPack,
    /// Since when; not every writer says it.
    pub since: Option<Time>,
}

fn packs_of(
    id: &Id,
    listed: impl IntoIterator<Item = (Option<Id>, Vec<BlobJson>)>,
) -> Result<Vec<IndexedPack>> {
    let bad = |why: String| RepositoryError::inconsistent(Object::Index, id, why);
    let mut packs = Vec::new();
    for (pack_id, listed) in listed {
        let pack_id = pack_id.ok_or_else(|| bad("a pack has no id".into()))?;
        let mut blobs = Vec::with_capacity(listed.len());
        for blob in listed {
            let kind = blob.kind.0.ok_or_else(|| bad("a blob has no type".into()))?;
            let blob_id = blob.id.ok_or_else(|| bad("a blob has no id".into()))?;
            if blob.length < 32 || blob.offset.checked_add(blob.length).is_none() {
                return Err(bad(format!("blob {blob_id} has an impossible place")));
            }
            blobs.push(PackedBlob {
                kind,
                id: blob_id,
                offset: blob.offset,
                length: blob.length,
                uncompressed_length: (blob.uncompressed_length != 0).then_some(blob.uncompressed_length),
            });
        }
        packs.push(IndexedPack { id: pack_id, blobs });
    }
    Ok(packs)
}

/// Reads the JSON of one index file.
pub fn decode(id: &Id, plaintext: &[u8]) -> Result<Vec<IndexedPack>> {
    let bad = |why: String| RepositoryError::inconsistent(Object::Index, id, why);
    let file: IndexJson = json::parse(plaintext).map_err(|e| bad(e.to_string()))?;
    packs_of(id, file.packs.unwrap_or_default().into_iter().map(|pack| (pack.id, pack.blobs)))
}

/// Reads what the JSON of one index file says of packs that are to be removed, as rustic and our prune write it. For whoever
/// looks for blobs they do not exist.
pub fn decode_doomed(id: &Id, plaintext: &[u8]) -> Result<Vec<DoomedPack>> {
    let bad = |why: String| RepositoryError::inconsistent(Object::Index, id, why);
    let file: DoomedListJson = json::parse(plaintext).map_err(|e| bad(e.to_string()))?;
    let listed = file.packs.unwrap_or_default();
    let times: Vec<Option<Time>> = listed.iter().map(|pack| pack.time).collect();
    let packs = packs_of(id, listed.into_iter().map(|pack| (pack.id, pack.blobs)))?;
    Ok(packs.into_iter().zip(times).map(|(pack, since)| DoomedPack { pack, since }).collect())
}

/// The JSON of an index file, as restic writes it.
#[must_use]
pub fn encode(packs: &[IndexedPack]) -> Vec<u8> {
    encode_with(packs, &[])
}

/// The same with packs that are to be removed, as rustic writes it; restic does not look at them.
#[must_use]
pub fn encode_with(packs: &[IndexedPack], doomed: &[DoomedPack]) -> Vec<u8> {
    let mut out = b"{\"packs\":[".to_vec();
    for (i, pack) in packs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_pack(&mut out, pack);
        out.push(b'}');
    }
    out.push(b']');
    for (i, doomed) in doomed.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b",\"packs_to_delete\":[" } else { b"," });
        push_pack(&mut out, &doomed.pack);
        if let Some(since) = &doomed.since {
            out.extend_from_slice(b",\"time\":\"");
            since.push(&mut out);
            out.push(b'"');
        }
        out.push(b'}');
    }
    if !doomed.is_empty() {
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
    out
}

/// A pack, without the brace that closes it.
fn push_pack(out: &mut Vec<u8>, pack: &IndexedPack) {
    use json::push_number;
    let mut hex = String::with_capacity(64);
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(pack.id.hex().as_bytes());
    out.extend_from_slice(b"\",\"blobs\":[");
    for (j, blob) in pack.blobs.iter().enumerate() {
        if j > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"id\":\"");
        hex.clear();
        blob.id.push_hex(&mut hex);
        out.extend_from_slice(hex.as_bytes());
        out.extend_from_slice(b"\",\"type\":\"");
        out.extend_from_slice(blob.kind.word().as_bytes());
        out.extend_from_slice(b"\",\"offset\":");
        push_number(out, u64::from(blob.offset));
        out.extend_from_slice(b",\"length\":");
        push_number(out, u64::from(blob.length));
        if let Some(length) = blob.uncompressed_length {
            out.extend_from_slice(b",\"uncompressed_length\":");
            push_number(out, u64::from(length));
        }
        out.push(b'}');
    }
    out.push(b']');
}

/// A place of a blob as a record that is sorted by blob: id, number of the pack, offset, length, uncompressed length.
///
/// The highest bit of the pack's number says "tree", so that a blob's places are adjacent and ordered by kind.
fn record(pack: u32, blob: &PackedBlob) -> Record {
    let mut record = [0; records::SIZE];
    let kind = if blob.kind == BlobKind::Tree { TREE } else { 0 };
    record[..32].copy_from_slice(&blob.id.0);
    record[32..36].copy_from_slice(&(pack | kind).to_be_bytes());
    record[36..40].copy_from_slice(&blob.offset.to_be_bytes());
    record[40..44].copy_from_slice(&blob.length.to_be_bytes());
    record[44..].copy_from_slice(&blob.uncompressed_length.unwrap_or(0).to_be_bytes());
    record
}

/// Takes back what [`record`] wrote.
fn place_of(record: &Record) -> (u32, PackedBlob) {
    let number = |at: usize| u32::from_be_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let mut id = [0; 32];
    id.copy_from_slice(&record[..32]);
    let (pack, uncompressed) = (number(32), number(44));
    let blob = PackedBlob {
        kind: if pack & TREE != 0 { BlobKind::Tree } else { BlobKind::Data },
        id: Id(id),
        offset: number(36),
        length: number(40),
        uncompressed_length: (uncompressed != 0).then_some(uncompressed),
    };
    (pack & !TREE, blob)
}

const TREE: u32 = 1 << 31;

/// Where one copy of a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pack.
    pub pack: Id,
    /// Its place in it.
    pub blob: PackedBlob,
    // The number of the pack in the index it came from.
    pub(crate) pack_number: u32,
}

/// The union of all index files.
#[derive(Debug, Default)]
pub struct Index {
    packs: Vec<Id>,
    blobs: Sorted,
    // The files it was read from, where that is known.
    pub(crate) files: BTreeSet<Id>,
}

/// Takes index files, one after another.
pub(crate) struct IndexBuilder {
    packs: Vec<Id>,
    numbers: HashMap<Id, u32>,
    blobs: records::Builder,
}

fn unread(error: std::io::Error) -> RepositoryError {
    RepositoryError::io("read", "the sorted index of the repository", error)
}

fn unsorted(error: std::io::Error) -> RepositoryError {
    RepositoryError::io("sort", "the index of the repository", error)
}

impl IndexBuilder {
    /// What memory should not hold is sorted below `scratch`; without one, everything stays in memory.
    pub(crate) fn new(scratch: Option<&Path>) -> Self {
        Self { packs: Vec::new(), numbers: HashMap::new(), blobs: records::Builder::new(scratch) }
    }

    /// The number of a pack.
    pub(crate) fn number(&mut self, pack: &Id) -> u32 {
        let packs = &mut self.packs;
        *self.numbers.entry(*pack).or_insert_with(|| {
            packs.push(*pack);
            u32::try_from(packs.len() - 1).expect("fewer than 2³¹ packs fit into memory")
        })
    }

    pub(crate) fn add(&mut self, file: &[IndexedPack]) -> Result<()> {
        for pack in file {
            let number = self.number(&pack.id);
            for blob in &pack.blobs {
                self.blobs.push(record(number, blob)).map_err(unsorted)?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Index> {
        let blobs = self.blobs.finish(true).map_err(unsorted)?;
        Ok(Index { packs: self.packs, blobs, files: BTreeSet::new() })
    }
}

impl Index {
    fn place(&self, record: &Record) -> Place {
        let (number, blob) = place_of(record);
        Place { pack: self.packs[number as usize], pack_number: number, blob }
    }

    /// Every place of a blob, in order of pack; empty when it does not exist. A tree id is not found as data, nor the reverse.
    pub fn places(&self, kind: BlobKind, id: &Id) -> Result<Vec<Place>> {
        let of_kind = |found: &[Record]| -> Vec<Place> {
            found.iter().map(|record| self.place(record)).filter(|place| place.blob.kind == kind).collect()
        };
        let mut places = self.blobs.starting_with(&id.0, of_kind).map_err(unread)?;
        // Index files are read by several threads, and numbers of packs tell who was first.
        places.sort_by_key(|place| (place.pack, place.blob.offset));
        Ok(places)
    }

    /// The first place of a blob.
    pub fn find(&self, kind: BlobKind, id: &Id) -> Result<Option<Place>> {
        let first = |found: &[Record]| {
            let places = found.iter().map(|record| self.place(record));
            places.filter(|place| place.blob.kind == kind).min_by_key(|place| (place.pack, place.blob.offset))
        };
        self.blobs.starting_with(&id.0, first).map_err(unread)
    }

    /// The number of a blob's first record, one for each blob that exists, and the place that it tells.
    pub(crate) fn find_numbered(&self, kind: BlobKind, id: &Id) -> Result<Option<(usize, Place)>> {
        let first = |at: usize, found: &[Record]| {
            let is_of_kind = |record: &Record| place_of(record).1.kind == kind;
            let skipped = found.iter().position(is_of_kind)?;
            Some((at + skipped, self.place(&found[skipped])))
        };
        self.blobs.places_of(&id.0, first).map_err(unread)
    }

    /// The place that the record of this number tells.
    pub(crate) fn numbered(&self, number: usize) -> Result<Place> {
        let records = self.blobs.read(number..number + 1).map_err(unread)?;
        Ok(self.place(&records[0]))
    }

    /// Gives all places of each blob, and the number of its first record, to `take`, in order of records.
    pub(crate) fn visit(&self, mut take: impl FnMut(usize, &[Place]) -> Result<()>) -> Result<()> {
        let mut places: Vec<Place> = Vec::new();
        let mut at = 0;
        while at < self.blobs.len() {
            let end = (at + 4096).min(self.blobs.len());
            for record in self.blobs.read(at..end).map_err(unread)?.iter() {
                let place = self.place(record);
                if let Some(last) = places.last()
                    && (last.blob.kind, last.blob.id) != (place.blob.kind, place.blob.id)
                {
                    take(at - places.len(), &places)?;
                    places.clear();
                }
                places.push(place);
                at += 1;
            }
        }
        if places.is_empty() { Ok(()) } else { take(at - places.len(), &places) }
    }

    /// Does the blob exist?
    pub fn has(&self, kind: BlobKind, id: &Id) -> Result<bool> {
        Ok(self.find(kind, id)?.is_some())
    }

    /// The ids of all blobs of a kind, each once, ascending.
    pub fn ids(&self, kind: BlobKind) -> Result<Vec<Id>> {
        let mut ids = Vec::new();
        let mut at = 0;
        while at < self.blobs.len() {
            let end = (at + 4096).min(self.blobs.len());
            for record in self.blobs.read(at..end).map_err(unread)?.iter() {
                let (_, blob) = place_of(record);
                if blob.kind == kind && ids.last() != Some(&blob.id) {
                    ids.push(blob.id);
                }
            }
            at = end;
        }
        Ok(ids)
    }

    /// All packs that are listed, by their numbers.
    pub(crate) fn packs(&self) -> &[Id] {
        &self.packs
    }

    pub(crate) fn pack_count(&self) -> usize {
        self.packs.len()
    }

    pub(crate) fn pack(&self, number: usize) -> Id {
        self.packs[number]
    }

    /// How many blobs, counting copies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Is there no blob at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blobs.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob(n: u32, kind: BlobKind) -> PackedBlob {
        PackedBlob {
            kind,
            id: Id::of(&n.to_le_bytes()),
            offset: n,
            length: 32 + n,
            uncompressed_length: n.is_multiple_of(2).then_some(n + 1),
        }
    }

    fn index_of(files: impl IntoIterator<Item = Vec<IndexedPack>>) -> Index {
        let mut builder = IndexBuilder::new(None);
        files.into_iter().for_each(|file| builder.add(&file).unwrap());
        builder.finish().unwrap()
    }

    #[test]
    fn every_blob_is_found_and_nothing_else() {
        for n in [0u32, 1, 2, 3, 100, 5000] {
            let pack =
                IndexedPack { id: Id::of(b"p"), blobs: (0..n).map(|i| blob(i, BlobKind::Data)).collect() };
            let index = index_of([vec![pack.clone()], vec![pack]]);
            assert_eq!(index.len(), n as usize);
            for i in 0..n {
                assert_eq!(
                    index.find(BlobKind::Data, &Id::of(&i.to_le_bytes())).unwrap().unwrap().blob,
                    blob(i, BlobKind::Data)
                );
                assert!(!index.has(BlobKind::Tree, &Id::of(&i.to_le_bytes())).unwrap());
            }
            let mut next = 0;
            index
                .visit(|number, places| {
                    assert_eq!(number, next, "every record is visited");
                    next += places.len();
                    let blob = places[0].blob;
                    assert!(places.iter().all(|p| (p.blob.kind, p.blob.id) == (blob.kind, blob.id)));
                    assert_eq!(index.find_numbered(blob.kind, &blob.id).unwrap().unwrap().0, number);
                    assert_eq!(index.numbered(number).unwrap(), places[0]);
                    Ok(())
                })
                .unwrap();
            assert_eq!(next, n as usize);
            for i in n..n + 100 {
                assert!(!index.has(BlobKind::Data, &Id::of(&i.to_le_bytes())).unwrap());
            }
        }
    }

    #[test]
    fn all_copies_of_a_blob_are_kept() {
        let packs: Vec<_> = (0..40u32)
            .map(|i| IndexedPack {
                id: Id::of(&i.to_le_bytes()),
                blobs: vec![blob(7, BlobKind::Data), blob(7, BlobKind::Tree)],
            })
            .collect();
        let index = index_of([packs]);
        assert_eq!(index.places(BlobKind::Data, &Id::of(&7u32.to_le_bytes())).unwrap().len(), 40);
        assert_eq!(index.places(BlobKind::Tree, &Id::of(&7u32.to_le_bytes())).unwrap().len(), 40);
    }

    #[test]
    fn an_unknown_blob_type_makes_the_index_unloadable() {
        let fine = encode(&[IndexedPack { id: Id::of(b"p"), blobs: vec![blob(1, BlobKind::Data)] }]);
        assert!(decode(&Id::default(), &fine).is_ok());
        let bad = String::from_utf8(fine).unwrap().replace("\"data\"", "\"dat\"");
        assert!(decode(&Id::default(), bad.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn index_files_round_trip(n in 0u32..60, upper in any::<bool>()) {
            let packs: Vec<_> = (0..n / 7 + 1).map(|p| IndexedPack {
                id: Id::of(&p.to_le_bytes()),
                blobs: (0..n).map(|i| blob(i, if i % 5 == 0 { BlobKind::Tree } else { BlobKind::Data })).collect(),
            }).collect();
            let mut text = String::from_utf8(encode(&packs)).unwrap();
            if upper {
                text = text.replace('a', "A").replace("dAtA", "data").replace("pAcks", "Packs");
            }
            prop_assert_eq!(decode(&Id::default(), text.as_bytes()).unwrap(), packs.clone());
            prop_assert!(decode_doomed(&Id::default(), text.as_bytes()).unwrap().is_empty());

            let times = [None, Some(Time::from_unix(1_700_000_000, 5))];
            let doomed: Vec<_> = packs.iter().enumerate()
                .map(|(n, pack)| DoomedPack { pack: pack.clone(), since: times[n % 2] }).collect();
            let text = encode_with(&packs[1..], &doomed);
            prop_assert_eq!(decode(&Id::default(), &text).unwrap(), &packs[1..]);
            prop_assert_eq!(decode_doomed(&Id::default(), &text).unwrap(), doomed);
        }
    }
}
