//! The index: which blob lies where. Files are JSON; in memory it is one sorted array.
//!
//! The index is the only way to find a blob, and it is not trusted for content: whoever reads a blob compares its hash.

use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::json::{self, go_struct};
use crate::pack::PackedBlob;

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

/// Reads the JSON of one index file.
pub fn decode(id: &Id, plaintext: &[u8]) -> Result<Vec<IndexedPack>> {
    let bad = |why: String| RepositoryError::inconsistent(Object::Index, id, why);
    let file: IndexJson = json::parse(plaintext).map_err(|e| bad(e.to_string()))?;
    let mut packs = Vec::new();
    for pack in file.packs.unwrap_or_default() {
        let pack_id = pack.id.ok_or_else(|| bad("a pack has no id".into()))?;
        let mut blobs = Vec::with_capacity(pack.blobs.len());
        for blob in pack.blobs {
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

/// The JSON of an index file, as restic writes it.
#[must_use]
pub fn encode(packs: &[IndexedPack]) -> Vec<u8> {
    use json::push_number;
    let mut out = b"{\"packs\":[".to_vec();
    let mut hex = String::with_capacity(64);
    for (i, pack) in packs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
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
            push_number(&mut out, u64::from(blob.offset));
            out.extend_from_slice(b",\"length\":");
            push_number(&mut out, u64::from(blob.length));
            if let Some(length) = blob.uncompressed_length {
                out.extend_from_slice(b",\"uncompressed_length\":");
                push_number(&mut out, u64::from(length));
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// One place of one blob. 48 bytes, because there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    id: Id,
    // The highest bit says "tree", so that a blob's places are adjacent and ordered by kind.
    pack: u32,
    offset: u32,
    length: u32,
    uncompressed_length: u32,
}

const TREE: u32 = 1 << 31;

/// The first eight bytes, which order ids as all 32 do but for collisions.
fn word(id: &Id) -> u64 {
    u64::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3], id.0[4], id.0[5], id.0[6], id.0[7]])
}

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
    entries: Vec<Entry>,
}

impl Index {
    pub(crate) fn build(files: impl IntoIterator<Item = Vec<IndexedPack>>) -> Self {
        let mut packs = Vec::new();
        let mut numbers = std::collections::HashMap::new();
        let mut entries = Vec::new();
        for pack in files.into_iter().flatten() {
            let number = *numbers.entry(pack.id).or_insert_with(|| {
                packs.push(pack.id);
                u32::try_from(packs.len() - 1).expect("fewer than 2³¹ packs fit into memory")
            });
            entries.extend(pack.blobs.iter().map(|blob| Entry {
                id: blob.id,
                pack: number | if blob.kind == BlobKind::Tree { TREE } else { 0 },
                offset: blob.offset,
                length: blob.length,
                uncompressed_length: blob.uncompressed_length.unwrap_or(0),
            }));
        }
        // Comparing a word settles nearly every pair; comparing 32 bytes is a call.
        entries.sort_unstable_by(|a, b| word(&a.id).cmp(&word(&b.id)).then_with(|| a.cmp(b)));
        entries.dedup();
        entries.shrink_to_fit();
        Self { packs, entries }
    }

    fn range(&self, id: &Id) -> &[Entry] {
        // Ids are uniform, so the place is guessed and the search is short.
        let n = self.entries.len();
        if n == 0 {
            return &[];
        }
        let key =
            u64::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3], id.0[4], id.0[5], id.0[6], id.0[7]]);
        let guess = usize::try_from((u128::from(key) * n as u128) >> 64).unwrap_or(0);
        let (mut low, mut high) = (guess, guess);
        let mut step = 16;
        while low > 0 && self.entries[low].id >= *id {
            low = low.saturating_sub(step);
            step *= 4;
        }
        step = 16;
        while high < n && self.entries[high].id <= *id {
            high = (high + step).min(n);
            step *= 4;
        }
        let slice = &self.entries[low..high];
        let start = slice.partition_point(|entry| entry.id < *id);
        let end = start + slice[start..].iter().take_while(|entry| entry.id == *id).count();
        &slice[start..end]
    }

    fn place(&self, entry: &Entry) -> Place {
        let kind = if entry.pack & TREE != 0 { BlobKind::Tree } else { BlobKind::Data };
        let number = entry.pack & !TREE;
        Place {
            pack: self.packs[number as usize],
            pack_number: number,
            blob: PackedBlob {
                kind,
                id: entry.id,
                offset: entry.offset,
                length: entry.length,
                uncompressed_length: (entry.uncompressed_length != 0).then_some(entry.uncompressed_length),
            },
        }
    }

    /// Every place of a blob; empty when it does not exist. A tree id is not found as data, nor the reverse.
    pub fn places(&self, kind: BlobKind, id: &Id) -> impl Iterator<Item = Place> + '_ {
        self.range(id).iter().map(|entry| self.place(entry)).filter(move |place| place.blob.kind == kind)
    }

    /// The first place of a blob.
    #[must_use]
    pub fn find(&self, kind: BlobKind, id: &Id) -> Option<Place> {
        self.places(kind, id).next()
    }

    /// Does the blob exist?
    #[must_use]
    pub fn has(&self, kind: BlobKind, id: &Id) -> bool {
        self.find(kind, id).is_some()
    }

    /// The ids of all blobs of a kind, each once, ascending.
    #[must_use]
    pub fn ids(&self, kind: BlobKind) -> Vec<Id> {
        let mut ids: Vec<Id> = self
            .entries
            .iter()
            .filter(|e| (e.pack & TREE != 0) == (kind == BlobKind::Tree))
            .map(|e| e.id)
            .collect();
        ids.dedup();
        ids
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
        self.entries.len()
    }

    /// Is there no blob at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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

    #[test]
    fn every_blob_is_found_and_nothing_else() {
        for n in [0u32, 1, 2, 3, 100, 5000] {
            let pack =
                IndexedPack { id: Id::of(b"p"), blobs: (0..n).map(|i| blob(i, BlobKind::Data)).collect() };
            let index = Index::build([vec![pack.clone()], vec![pack]]);
            assert_eq!(index.len(), n as usize);
            for i in 0..n {
                assert_eq!(
                    index.find(BlobKind::Data, &Id::of(&i.to_le_bytes())).unwrap().blob,
                    blob(i, BlobKind::Data)
                );
                assert!(!index.has(BlobKind::Tree, &Id::of(&i.to_le_bytes())));
            }
            for i in n..n + 100 {
                assert!(!index.has(BlobKind::Data, &Id::of(&i.to_le_bytes())));
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
        let index = Index::build([packs]);
        assert_eq!(index.places(BlobKind::Data, &Id::of(&7u32.to_le_bytes())).count(), 40);
        assert_eq!(index.places(BlobKind::Tree, &Id::of(&7u32.to_le_bytes())).count(), 40);
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
            prop_assert_eq!(decode(&Id::default(), text.as_bytes()).unwrap(), packs);
        }
    }
}
