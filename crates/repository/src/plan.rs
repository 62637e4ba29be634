//! What a prune does with each pack. Pure: no store, no clock.
//!
//! A pack in which nothing is needed goes. One in which something is needed and something is not is written anew without the
//! rest, the emptiest first, until the share that is not needed is small. Of a blob with several copies exactly one is kept,
//! and which one is decided once, for all of them, before anything is done. A copy that was read and is not sound is none.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::index::{Index, Place};
use crate::large;
use crate::marks::Marks;
use crate::packer::PACK_BLOBS;
use crate::time::Time;

/// Small packs are merged when there are so many of a kind: fewer are made by every backup.
const SMALL_MIN: usize = 10;
/// The last packs of a kind that are written may be small.
const OPEN_PACKS: usize = 2;

/// What is asked of a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    /// The share of what stays that may be unneeded.
    pub(crate) max_unused: f64,
    /// Packs of less than a quarter of this are small.
    pub(crate) pack_size: u64,
    /// How long a pack is doomed before it is removed.
    pub(crate) delete_after: Duration,
    /// The present, by the store's clock.
    pub(crate) now: Time,
    /// Trees and data may not share a pack, and trees are compressed.
    pub(crate) is_version_2: bool,
}

/// One pack, as it is found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pack {
    pub(crate) id: Id,
    /// Its size in the store; `None` when it is not there.
    pub(crate) stored: Option<u64>,
    /// Since when it is doomed; `None` when an index lists it.
    pub(crate) doomed: Option<Time>,
    /// The fewest blobs of it that an index file lists, where that is known.
    pub(crate) fewest: Option<u64>,
    /// Blobs that all of them list.
    pub(crate) blobs: u64,
    /// Its size, as its blobs tell it.
    pub(crate) size: u64,
    /// Bytes of the boxes that it holds …
    pub(crate) bytes: u64,
    /// … of those that nobody needs …
    pub(crate) unused: u64,
    /// … of those that are needed and in no other pack that stays …
    pub(crate) sole: u64,
    /// … and of those that are kept here.
    pub(crate) kept: u64,
    /// Blobs that are kept here.
    pub(crate) kept_blobs: u64,
    pub(crate) has_data: bool,
    pub(crate) has_trees: bool,
    /// Trees that are stored raw.
    pub(crate) has_raw_trees: bool,
    /// A tree that is too large to be held: it gets a pack of its own, however small.
    pub(crate) has_large_tree: bool,
}

impl Pack {
    /// It is in the store, and as long as its blobs make it.
    pub(crate) fn is_whole(&self) -> bool {
        self.stored == Some(self.size)
    }

    fn keep_nothing(&mut self) {
        (self.kept, self.kept_blobs) = (0, 0);
    }

    fn keep(&mut self, place: &Place) {
        self.kept += u64::from(place.blob.length);
        self.kept_blobs += 1;
    }

    /// It could take much more: bytes, and blobs, of which a pack of very small ones is full before it is large.
    fn is_small(&self, wishes: &Wishes) -> bool {
        self.size < wishes.pack_size / 4 && self.blobs < PACK_BLOBS as u64 / 4 && !self.has_large_tree
    }

    fn is_odd(&self, wishes: &Wishes) -> bool {
        // Different parts of it are listed by different files: what is written anew is listed once.
        self.fewest.is_some_and(|fewest| fewest < self.blobs)
            || wishes.is_version_2 && (self.has_data && self.has_trees || self.has_raw_trees)
    }

    /// Bytes in it that are not kept here.
    fn waste(&self) -> u64 {
        self.bytes - self.kept
    }
}

/// What happens to a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays, or is listed again if it was doomed.
    Keep,
    /// What is kept of it is written anew; then it is treated as [`Fate::Doom`].
    Repack,
    /// Nothing of it is needed: it is taken out of the index, and removed when it has been doomed for long enough.
    Doom,
    /// It is doomed, and not for long enough.
    Wait,
    /// It was doomed for long enough: it is removed.
    Remove,
    /// Nothing of it is needed, and the store does not have it: only its mention goes.
    Drop,
}

/// What happens to all packs, by their numbers in the index, and which records of the index are kept.
pub(crate) struct Plan {
    pub(crate) packs: Vec<Pack>,
    pub(crate) fates: Vec<Fate>,
    /// By numbers of records: exactly one of each blob that is needed.
    pub(crate) kept: Marks,
    /// Blobs that are needed.
    pub(crate) blobs: u64,
    /// Copies of them that are not kept.
    pub(crate) duplicates: u64,
}

/// Blobs and copies of them, by numbers of records of the index.
#[derive(Clone, Copy)]
pub(crate) struct Needed<'a> {
    /// The first record of each blob that is needed.
    pub(crate) used: &'a Marks,
    /// Copies that were read and are not what their ids say: none of them is kept.
    pub(crate) spoilt: &'a Marks,
}

/// Decides. Of `packs`, what the index does not tell is given.
///
/// Fails when a needed blob is in no pack that is there and of the right size, and when every copy of one is spoilt.
pub(crate) fn plan(needed: Needed<'_>, index: &Index, mut packs: Vec<Pack>, wishes: &Wishes) -> Result<Plan> {
    let Needed { used, spoilt } = needed;
    measure(used, index, &mut packs)?;
    let mut stays: Vec<bool> = packs.iter().map(Pack::is_whole).collect();
    tally(needed, index, &mut packs, &stays, None)?;
    let first = rank(&packs, true, wishes);
    // A doomed pack comes back for what no other has. From then on it is as the others are.
    choose(needed, index, &mut packs, &stays, &first)?;
    for (pack, stays) in packs.iter().zip(&mut stays) {
        *stays &= pack.doomed.is_none() || pack.kept_blobs > 0;
    }
    // A pack that goes makes copies in others the only ones, which may make more of them needless. What stays at last is what a
    // second plan would let stay.
    let rank = loop {
        let moved = tally(needed, index, &mut packs, &stays, Some(&first))?;
        let rank = rank(&packs, false, wishes);
        choose(needed, index, &mut packs, &stays, &rank)?;
        let next = staying(&packs, &stays, moved, wishes);
        if next == stays {
            break rank;
        }
        stays = next;
    };
    let kept = Marks::new(index.len());
    let (mut blobs, mut duplicates) = (0, 0);
    packs.iter_mut().for_each(Pack::keep_nothing);
    index.visit(|number, places| {
        if used.has(number) {
            // Where no pack that stays has it, from wherever it is best taken.
            let sound = |at: usize| !spoilt.has(number + at);
            let chosen = best(places, |at, pack| sound(at) && stays[pack], &rank)
                .or_else(|| best(places, |at, _| sound(at), &first));
            let Some((at, place)) = chosen else { return Err(none_is_sound(places)) };
            let pack = &mut packs[place.pack_number as usize];
            if !pack.is_whole() {
                return Err(unusable(pack, place));
            }
            pack.keep(place);
            kept.set(number + at);
            blobs += 1;
            duplicates += places.len() as u64 - 1;
        }
        Ok(())
    })?;
    let fates = packs
        .iter()
        .zip(&stays)
        .map(|(pack, stays)| match (pack.kept_blobs, pack.stored, pack.doomed) {
            _ if *stays => Fate::Keep,
            (0, None, _) => Fate::Drop,
            (0, Some(_), None) => Fate::Doom,
            (0, Some(_), Some(since)) if is_past(since, wishes.delete_after, wishes.now) => Fate::Remove,
            (0, Some(_), Some(_)) => Fate::Wait,
            _ => Fate::Repack,
        })
        .collect();
    Ok(Plan { packs, fates, kept, blobs, duplicates })
}

/// What the index tells of each pack.
fn measure(used: &Marks, index: &Index, packs: &mut [Pack]) -> Result<()> {
    for pack in packs.iter_mut() {
        pack.size = 36;
    }
    index.visit(|number, places| {
        for place in places {
            let pack = &mut packs[place.pack_number as usize];
            let blob = &place.blob;
            let length = u64::from(blob.length);
            pack.size += length + u64::from(blob.entry_size());
            pack.bytes += length;
            pack.blobs += 1;
            match blob.kind {
                BlobKind::Data => pack.has_data = true,
                BlobKind::Tree => {
                    pack.has_trees = true;
                    pack.has_raw_trees |= blob.uncompressed_length.is_none();
                    pack.has_large_tree |= large::is_large_tree(blob);
                }
            }
            if !used.has(number) {
                pack.unused += length;
            }
        }
        Ok(())
    })
}

/// Blobs that no pack that stays has.
#[derive(Clone, Copy, Default)]
struct Moved {
    bytes: u64,
    has_data: bool,
    has_trees: bool,
}

/// Finds what is in one pack alone, of those that stay, and what is in none.
fn tally(
    needed: Needed<'_>,
    index: &Index,
    packs: &mut [Pack],
    stays: &[bool],
    first: Option<&[u32]>,
) -> Result<Moved> {
    packs.iter_mut().for_each(|pack| pack.sole = 0);
    let mut moved = Moved::default();
    index.visit(|number, places| {
        if needed.used.has(number) {
            let sound = |at: usize| !needed.spoilt.has(number + at);
            let staying = places.iter().enumerate();
            let mut staying = staying.filter(|(at, place)| sound(*at) && stays[place.pack_number as usize]);
            match (staying.next(), staying.next()) {
                (Some((_, only)), None) => {
                    packs[only.pack_number as usize].sole += u64::from(only.blob.length);
                }
                (Some(_), Some(_)) => {}
                (None, _) => {
                    let Some((_, taken)) = first.and_then(|rank| best(places, |at, _| sound(at), rank))
                    else {
                        return Ok(());
                    };
                    moved.bytes += u64::from(taken.blob.length);
                    moved.has_data |= taken.blob.kind == BlobKind::Data;
                    moved.has_trees |= taken.blob.kind == BlobKind::Tree;
                }
            }
        }
        Ok(())
    })?;
    Ok(moved)
}

/// Chooses one copy of each needed blob among the packs that stay.
fn choose(needed: Needed<'_>, index: &Index, packs: &mut [Pack], stays: &[bool], rank: &[u32]) -> Result<()> {
    packs.iter_mut().for_each(Pack::keep_nothing);
    index.visit(|number, places| {
        let may = |at: usize, pack: usize| !needed.spoilt.has(number + at) && stays[pack];
        if needed.used.has(number)
            && let Some((_, place)) = best(places, may, rank)
        {
            packs[place.pack_number as usize].keep(place);
        }
        Ok(())
    })
}

fn none_is_sound(places: &[Place]) -> RepositoryError {
    let blob = places.first().expect("a blob has a place").blob;
    let why = format!("none of its {} copies is what its id says", places.len());
    RepositoryError::damaged(blob.kind.object(), blob.id, why)
}

fn unusable(pack: &Pack, place: &Place) -> RepositoryError {
    match pack.stored {
        None => RepositoryError::missing(Object::Pack, pack.id),
        Some(size) => {
            let why = format!(
                "it has {size} bytes instead of {}, and {} {} is in no other",
                pack.size,
                place.blob.kind.object(),
                place.blob.id
            );
            RepositoryError::damaged(Object::Pack, pack.id, why)
        }
    }
}

/// The place of each pack in the order in which copies are preferred.
fn rank(packs: &[Pack], doomed_last: bool, wishes: &Wishes) -> Vec<u32> {
    let mut order: Vec<u32> = (0..packs.len()).map(|n| u32::try_from(n).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|number| {
        let pack = &packs[*number as usize];
        (
            !pack.is_whole(),
            doomed_last && pack.doomed.is_some(),
            // Best where it need not be moved, and where something else stays anyway.
            pack.is_odd(wishes),
            pack.unused > 0,
            pack.sole == 0,
            pack.unused,
            Reverse(pack.bytes),
            pack.id,
        )
    });
    let mut rank = vec![0; packs.len()];
    for (at, number) in order.into_iter().enumerate() {
        rank[number as usize] = u32::try_from(at).unwrap_or(u32::MAX);
    }
    rank
}

/// The preferred of a blob's places that may be taken, and which of them it is. `may` is asked for which of them, and its pack.
fn best<'a>(
    places: &'a [Place],
    may: impl Fn(usize, usize) -> bool,
    rank: &[u32],
) -> Option<(usize, &'a Place)> {
    places
        .iter()
        .enumerate()
        .filter(|(at, place)| may(*at, place.pack_number as usize))
        .min_by_key(|(_, place)| (rank[place.pack_number as usize], place.blob.offset))
}

/// Which packs stay as they are, of those that would, once it is known what is kept in them.
fn staying(packs: &[Pack], stays: &[bool], mut moved: Moved, wishes: &Wishes) -> Vec<bool> {
    let mut next: Vec<bool> = packs
        .iter()
        .zip(stays)
        .map(|(pack, stays)| *stays && pack.kept_blobs > 0 && !pack.is_odd(wishes))
        .collect();
    // What is not needed and stays, and how much of that may stay.
    let needed = moved.bytes + packs.iter().map(|pack| pack.kept).sum::<u64>();
    let share = wishes.max_unused.clamp(0.0, 0.99);
    let allowed = needed as f64 * share / (1.0 - share);
    let mut wasteful: Vec<usize> = (0..packs.len()).filter(|n| next[*n] && packs[*n].waste() > 0).collect();
    let mut waste: u64 = wasteful.iter().map(|n| packs[*n].waste()).sum();
    wasteful.sort_by(|one, other| emptier(&packs[*one], &packs[*other]));
    for number in wasteful {
        if waste as f64 <= allowed {
            break;
        }
        waste -= packs[number].waste();
        next[number] = false;
    }
    for (number, pack) in packs.iter().enumerate() {
        let is_given_up = stays[number] && !next[number] && pack.kept_blobs > 0;
        moved.has_data |= is_given_up && pack.has_data;
        moved.has_trees |= is_given_up && pack.has_trees;
    }
    for (trees, is_moved) in [(false, moved.has_data), (true, moved.has_trees)] {
        let small: Vec<usize> = (0..packs.len())
            .filter(|n| {
                let pack = &packs[*n];
                next[*n] && pack.has_trees == trees && pack.is_small(wishes)
            })
            .collect();
        // What is written anew may end in as many small packs as are open at once.
        if small.len() + if is_moved { OPEN_PACKS } else { 0 } >= SMALL_MIN {
            small.into_iter().for_each(|number| next[number] = false);
        }
    }
    next
}

/// Which of two packs has the larger share that is not needed: it comes first.
fn emptier(one: &Pack, other: &Pack) -> Ordering {
    // Compared as fractions, exactly.
    let left = u128::from(one.waste()) * u128::from(other.bytes);
    let right = u128::from(other.waste()) * u128::from(one.bytes);
    right.cmp(&left).then_with(|| one.id.cmp(&other.id))
}

/// Whether something of `since` is so old; what lies in the future is of an unknown age, and not old.
pub(crate) fn is_past(since: Time, age: Duration, now: Time) -> bool {
    let passed = now.unix_nanos() - since.unix_nanos();
    passed >= 0 && passed >= i128::try_from(age.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{IndexBuilder, IndexedPack};
    use crate::pack::{self, PackedBlob};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A plan where no copy is known to be spoilt.
    fn plan(used: &Marks, index: &Index, packs: Vec<Pack>, wishes: &Wishes) -> Result<Plan> {
        let spoilt = Marks::new(index.len());
        super::plan(Needed { used, spoilt: &spoilt }, index, packs, wishes)
    }

    fn wishes() -> Wishes {
        Wishes {
            max_unused: 0.05,
            pack_size: 16 << 20,
            delete_after: Duration::from_secs(100),
            now: Time::from_unix(1_000_000, 0),
            is_version_2: true,
        }
    }

    fn blob(n: u8, offset: u32, length: u32, kind: BlobKind) -> PackedBlob {
        PackedBlob { kind, id: Id([n; 32]), offset, length, uncompressed_length: Some(1) }
    }

    /// Packs of these blobs, numbered in this order, all in the store.
    fn index_of(packs: &[Vec<PackedBlob>]) -> (Index, Vec<Pack>) {
        let mut builder = IndexBuilder::new(None);
        let listed: Vec<IndexedPack> = packs
            .iter()
            .enumerate()
            .map(|(n, blobs)| IndexedPack { id: Id([u8::try_from(n).unwrap(); 32]), blobs: blobs.clone() })
            .collect();
        builder.add(&listed).unwrap();
        let found = listed
            .iter()
            .map(|listed| Pack { id: listed.id, stored: Some(pack::size(&listed.blobs)), ..Pack::default() })
            .collect();
        (builder.finish().unwrap(), found)
    }

    fn used(index: &Index, ids: &[u8]) -> Marks {
        let marks = Marks::new(index.len());
        for n in ids {
            for kind in [BlobKind::Data, BlobKind::Tree] {
                if let Some((number, _)) = index.find_numbered(kind, &Id([*n; 32])).unwrap() {
                    marks.set(number);
                }
            }
        }
        marks
    }

    fn data(n: u8, offset: u32) -> PackedBlob {
        blob(n, offset, 5 << 20, BlobKind::Data)
    }

    #[test]
    fn packs_go_are_written_anew_or_stay_by_what_is_needed_of_them() {
        let at = |n: u32| n * (5 << 20);
        let whole = vec![data(1, 0), data(2, at(1)), data(3, at(2)), data(4, at(3))];
        let half = vec![data(5, 0), data(6, at(1))];
        let unused = vec![data(7, 0)];
        let tree = vec![blob(8, 0, 5 << 20, BlobKind::Tree)];
        let mixed = vec![blob(9, 0, 100, BlobKind::Tree), data(10, 100)];
        let (index, found) = index_of(&[whole, half, unused, tree, mixed]);
        let plan = plan(&used(&index, &[1, 2, 3, 4, 5, 8, 9, 10]), &index, found, &wishes()).unwrap();
        assert_eq!(plan.fates, [Fate::Keep, Fate::Repack, Fate::Doom, Fate::Keep, Fate::Repack]);
        assert_eq!((plan.blobs, plan.duplicates), (8, 0));
    }

    #[test]
    fn what_is_not_needed_may_stay_while_its_share_is_small() {
        let mut blobs: Vec<PackedBlob> = (0..20).map(|n| data(n, u32::from(n) * (5 << 20))).collect();
        let (index, found) = index_of(&[blobs.clone()]);
        let needed: Vec<u8> = (1..20).collect();
        let tight = Wishes { max_unused: 0.049, ..wishes() };
        let fate = |index: &Index, found: &Vec<Pack>, wishes: &Wishes| {
            plan(&used(index, &needed), index, found.clone(), wishes).unwrap().fates[0]
        };
        assert_eq!(fate(&index, &found, &wishes()), Fate::Keep, "5 % of what stays");
        assert_eq!(fate(&index, &found, &tight), Fate::Repack);
        // The emptiest go first, and no more than must.
        blobs.truncate(2);
        let other = vec![data(21, 0), data(22, 5 << 20), data(23, 10 << 20)];
        let (index, found) = index_of(&[blobs, other]);
        let loose = Wishes { max_unused: 0.3, ..wishes() };
        let plan = plan(&used(&index, &[1, 21, 22]), &index, found, &loose).unwrap();
        assert_eq!(plan.fates, [Fate::Repack, Fate::Keep]);
    }

    #[test]
    fn many_small_packs_are_merged_and_few_are_not() {
        for (count, fate) in [(9u8, Fate::Keep), (10, Fate::Repack)] {
            let packs: Vec<_> = (0..count).map(|n| vec![blob(n, 0, 1000, BlobKind::Data)]).collect();
            let (index, found) = index_of(&packs);
            let needed: Vec<u8> = (0..count).collect();
            let plan = plan(&used(&index, &needed), &index, found, &wishes()).unwrap();
            assert!(plan.fates.iter().all(|found| *found == fate), "{count}");
        }
        // A pack of very small blobs is full, however short it is.
        for (blobs, fate) in [(4_999u32, Fate::Repack), (5_000, Fate::Keep)] {
            let pack = |n: u8| {
                (0..blobs)
                    .map(|i| PackedBlob {
                        id: Id::of(&[&[n], &i.to_le_bytes()[..]].concat()),
                        ..blob(n, i * 50, 50, BlobKind::Data)
                    })
                    .collect()
            };
            let packs: Vec<Vec<PackedBlob>> = (0..10).map(pack).collect();
            let (index, found) = index_of(&packs);
            let all = Marks::new(index.len());
            (0..index.len()).for_each(|number| assert!(all.set(number)));
            let plan = plan(&all, &index, found, &wishes()).unwrap();
            assert!(plan.fates.iter().all(|found| *found == fate), "{blobs}");
        }
        // Trees that are too large to be held stay alone, however well they are compressed.
        let large = |n| PackedBlob { uncompressed_length: Some(9 << 20), ..blob(n, 0, 1000, BlobKind::Tree) };
        let packs: Vec<_> = (0..20).map(|n| vec![large(n)]).collect();
        let (index, found) = index_of(&packs);
        let plan = plan(&used(&index, &(0..20).collect::<Vec<u8>>()), &index, found, &wishes()).unwrap();
        assert!(plan.fates.iter().all(|found| *found == Fate::Keep));
    }

    #[test]
    fn a_doomed_pack_waits_is_removed_or_comes_back() {
        let packs: Vec<_> = (0..4).map(|n| vec![data(n, 0)]).collect();
        let (index, mut found) = index_of(&packs);
        found[0].doomed = Some(Time::from_unix(1_000_000 - 100, 0));
        found[1].doomed = Some(Time::from_unix(1_000_000 - 99, 0));
        found[2].doomed = Some(Time::from_unix(1_000_000 - 1000, 0));
        found[3].doomed = Some(Time::from_unix(1_000_001, 0));
        let plan_of =
            |wishes: &Wishes| plan(&used(&index, &[2]), &index, found.clone(), wishes).unwrap().fates;
        assert_eq!(plan_of(&wishes()), [Fate::Remove, Fate::Wait, Fate::Keep, Fate::Wait]);
        let at_once = Wishes { delete_after: Duration::ZERO, ..wishes() };
        let future = "what is dated in the future is of an unknown age";
        assert_eq!(plan_of(&at_once), [Fate::Remove, Fate::Remove, Fate::Keep, Fate::Wait], "{future}");
    }

    #[test]
    fn a_needed_blob_in_no_sound_pack_ends_it_and_an_unneeded_mention_is_dropped() {
        let (index, mut found) = index_of(&[vec![data(1, 0)], vec![data(2, 0)]]);
        found[0].stored = None;
        let of =
            |needed: &[u8], found: &Vec<Pack>| plan(&used(&index, needed), &index, found.clone(), &wishes());
        assert_eq!(of(&[2], &found).unwrap().fates, [Fate::Drop, Fate::Keep]);
        assert!(matches!(of(&[1, 2], &found), Err(RepositoryError::Missing { what: Object::Pack, .. })));
        found[0].stored = Some(7);
        assert!(matches!(of(&[1, 2], &found), Err(RepositoryError::Damaged { what: Object::Pack, .. })));
        assert_eq!(of(&[2], &found).unwrap().fates, [Fate::Doom, Fate::Keep]);
    }

    #[test]
    fn a_spoilt_copy_is_not_kept_and_without_a_sound_one_it_ends() {
        let (index, found) = index_of(&[vec![data(1, 0), data(2, 5 << 20)], vec![data(2, 0)]]);
        let marks = used(&index, &[1, 2]);
        let spoilt = Marks::new(index.len());
        let of = || {
            let needed = Needed { used: &marks, spoilt: &spoilt };
            super::plan(needed, &index, found.clone(), &wishes())
        };
        assert_eq!(of().unwrap().fates, [Fate::Keep, Fate::Doom]);
        let (number, _) = index.find_numbered(BlobKind::Data, &Id([2; 32])).unwrap().unwrap();
        let in_first = (number..number + 2).find(|n| index.numbered(*n).unwrap().pack_number == 0).unwrap();
        assert!(spoilt.set(in_first));
        let planned = of().unwrap();
        assert_eq!(planned.fates, [Fate::Repack, Fate::Keep], "half of the first is waste now");
        assert!(!planned.kept.has(in_first));
        assert!(spoilt.set(if in_first == number { number + 1 } else { number }));
        assert!(matches!(of(), Err(RepositoryError::Damaged { what: Object::DataBlob, .. })));
    }

    proptest! {
        /// Whatever lies where: of each needed blob exactly one copy is kept, in a sound pack that is not given up, and of the
        /// others none; what is written anew or kept holds all of them; and doing it leaves nothing to do.
        #[test]
        fn every_needed_blob_is_kept_once_and_a_second_plan_changes_nothing(
            layout in prop::collection::vec(prop::collection::vec((0u8..30, any::<bool>(), 1u32..9), 1..8), 1..14),
            needed in prop::collection::btree_set(0u8..30, 0..25),
            broken in prop::collection::btree_set(0usize..14, 0..3),
            doomed in prop::collection::btree_set(0usize..14, 0..4),
            max_unused in prop::sample::select(vec![0.0, 0.05, 0.3]),
        ) {
            let wishes = Wishes { max_unused, ..wishes() };
            let packs: Vec<Vec<PackedBlob>> = layout.iter().map(|blobs| {
                let mut offset = 0;
                blobs.iter().map(|(n, tree, units)| {
                    let kind = if *tree { BlobKind::Tree } else { BlobKind::Data };
                    let blob = blob(*n, offset, units << 20, kind);
                    offset += blob.length;
                    blob
                }).collect()
            }).collect();
            let (index, mut found) = index_of(&packs);
            for n in broken.iter().filter(|n| **n < packs.len()) {
                found[*n].stored = if n % 2 == 0 { None } else { Some(1) };
            }
            for n in doomed.iter().filter(|n| **n < packs.len()) {
                found[*n].doomed = Some(Time::from_unix(0, 0));
            }
            let ids: Vec<u8> = needed.iter().copied().collect();
            let marks = used(&index, &ids);
            let wanted: BTreeSet<(BlobKind, Id)> = packs.iter().flatten()
                .map(|blob| (blob.kind, blob.id)).filter(|(_, id)| needed.contains(&id.0[0])).collect();
            let sound = |n: usize| found[n].stored.is_some_and(|size| size > 36);
            let can_be_had = wanted.iter().all(|(kind, id)| packs.iter().enumerate().any(|(n, blobs)| {
                sound(n) && blobs.iter().any(|blob| (blob.kind, blob.id) == (*kind, *id))
            }));
            let planned = plan(&marks, &index, found.clone(), &wishes);
            prop_assert_eq!(planned.is_ok(), can_be_had);
            let Ok(planned) = planned else { return Ok(()) };
            let mut copies: BTreeMap<(BlobKind, Id), u32> = BTreeMap::new();
            for number in planned.kept.iter() {
                let place = index.numbered(number).unwrap();
                prop_assert!(sound(place.pack_number as usize));
                let fate = planned.fates[place.pack_number as usize];
                prop_assert!(matches!(fate, Fate::Keep | Fate::Repack), "{:?}", fate);
                *copies.entry((place.blob.kind, place.blob.id)).or_default() += 1;
            }
            prop_assert!(copies.values().all(|count| *count == 1));
            prop_assert_eq!(copies.keys().copied().collect::<BTreeSet<_>>(), wanted.clone());
            // A doomed pack comes back only for what no other has.
            for (n, fate) in planned.fates.iter().enumerate() {
                if matches!(fate, Fate::Keep | Fate::Repack) && found[n].doomed.is_some() {
                    let is_given_up = |place: &Place| {
                        let pack = place.pack_number as usize;
                        !sound(pack) || found[pack].doomed.is_some()
                    };
                    let is_needed = packs[n].iter().any(|blob| {
                        let places = index.places(blob.kind, &blob.id).unwrap();
                        wanted.contains(&(blob.kind, blob.id)) && places.iter().all(is_given_up)
                    });
                    prop_assert!(is_needed);
                }
            }
            // What is done: packs that stay, and one new pack of each kind.
            let mut after: Vec<Vec<PackedBlob>> = Vec::new();
            let mut moved: BTreeMap<BlobKind, Vec<PackedBlob>> = BTreeMap::new();
            for number in planned.kept.iter() {
                let place = index.numbered(number).unwrap();
                if planned.fates[place.pack_number as usize] == Fate::Repack {
                    let pack = moved.entry(place.blob.kind).or_default();
                    let offset = pack.last().map_or(0, |last| last.offset + last.length);
                    pack.push(PackedBlob { offset, ..place.blob });
                }
            }
            for (n, fate) in planned.fates.iter().enumerate() {
                if *fate == Fate::Keep {
                    after.push(packs[n].clone());
                }
            }
            after.extend(moved.into_values());
            let (index, found) = index_of(&after);
            let again = plan(&used(&index, &ids), &index, found, &wishes).unwrap();
            prop_assert!(again.fates.iter().all(|fate| *fate == Fate::Keep), "{:?}", again.fates);
        }
    }
}
