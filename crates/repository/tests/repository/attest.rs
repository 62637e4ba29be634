//! A target that tells the SHA-256 of what it holds: what is believed of that, and what finds a target that tells it wrongly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use seaworthy_repository::{
    Attested, CopyOf, CopyOptions, CopyReport, Cuts, FileKind, Repository, RepositoryError, Share, Store,
    copy,
};
use sha2::{Digest as _, Sha256};

use crate::common::{Fixture, PASSWORD, control, init_options, noise, store_stream};

/// What is told of a file, from its bytes and its path.
type Tells = fn(&[u8], &str) -> object_store::Result<Option<[u8; 32]>>;

struct Target {
    store: Store,
    repository: Repository,
    asked: Arc<AtomicU64>,
    damages: Arc<AtomicBool>,
}

/// A target that tells something of each pack; while `damages` is set, another bit lies there as soon as it is asked.
fn target(tells: Tells) -> Target {
    let objects = Arc::new(InMemory::new());
    let (asked, damages) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (inner, count, harm) = (Arc::clone(&objects), Arc::clone(&asked), Arc::clone(&damages));
    let attest =
        Arc::new(move |path: Path| -> futures::future::BoxFuture<'static, object_store::Result<Attested>> {
            let (inner, count, harm) = (Arc::clone(&inner), Arc::clone(&count), Arc::clone(&harm));
            Box::pin(async move {
                let bytes = inner.get(&path).await?.bytes().await?.to_vec();
                count.fetch_add(1, Ordering::SeqCst);
                if harm.load(Ordering::SeqCst) {
                    let mut other = bytes.clone();
                    let middle = other.len() / 2;
                    other[middle] ^= 1;
                    inner.put(&path, other.into()).await?;
                }
                Ok(Attested { size: bytes.len() as u64, sha256: tells(&bytes, path.as_ref())? })
            })
        });
    let store = Store::attesting(Arc::clone(&objects) as Arc<dyn ObjectStore>, attest).unwrap();
    let repository = Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control()).unwrap();
    Target { store, repository, asked, damages }
}

#[expect(clippy::unnecessary_wraps, reason = "as the others")]
fn truly(bytes: &[u8], _: &str) -> object_store::Result<Option<[u8; 32]>> {
    Ok(Some(Sha256::digest(bytes).into()))
}

/// A source with some thirty packs of the size that the options ask for.
fn source() -> Fixture {
    let source = Fixture::new();
    let cuts = Cuts::Pages { page: 4096, pages_per_piece: 4 };
    store_stream(&source.repository, "/dump", &noise(5, 2 << 20), cuts);
    source
}

fn options(part: f64) -> CopyOptions {
    CopyOptions { verify: Share { part, seed: 9 }, pack_size: 64 << 10, ..CopyOptions::default() }
}

fn copied(source: &Fixture, target: &Target, options: &CopyOptions) -> CopyReport {
    copy(&source.repository, CopyOf::All, &target.repository, options, &control()).unwrap()
}

#[test]
fn of_what_a_target_tells_the_first_pack_and_a_share_are_read_all_the_same() {
    let source = source();
    let mut read = Vec::new();
    for part in [0.0, 0.3, 1.0] {
        let target = target(truly);
        let report = copied(&source, &target, &options(part));
        assert!(report.packs > 8 && report.packs_verified == report.packs, "{report:?}");
        assert_eq!(target.asked.load(Ordering::SeqCst), report.packs, "one look for each pack");
        read.push((report.packs - report.packs_attested, report.packs));
    }
    assert_eq!(read[0].0, 1);
    assert!(read[1].0 > 1 && read[1].0 < read[1].1, "{read:?}");
    assert_eq!(read[2].0, read[2].1);
    // Who believes nobody reads all of them.
    let report = copied(&source, &target(truly), &CopyOptions { believe_target: false, ..options(0.0) });
    assert_eq!((report.packs_attested, report.packs_verified), (0, report.packs));
}

#[test]
fn what_is_not_exactly_the_right_digest_proves_nothing_and_is_read() {
    let source = source();
    let none: Tells = |_, _| Ok(None);
    let wrong: Tells = |_, _| Ok(Some([7; 32]));
    let denied: Tells = |_, path| {
        Err(object_store::Error::PermissionDenied { path: path.to_owned(), source: "AccessDenied".into() })
    };
    for (name, tells) in [("none", none), ("wrong", wrong), ("denied", denied)] {
        let target = target(tells);
        let report = copied(&source, &target, &options(0.0));
        assert_eq!((report.packs_attested, report.packs_verified), (0, report.packs), "{name}");
        // Two packs may be on their way when the first is refused.
        let asked = target.asked.load(Ordering::SeqCst);
        assert!(name != "denied" || asked <= 4, "{name}: asked {asked} times what is refused for good");
    }
}

#[test]
fn a_target_that_tells_the_right_digest_and_holds_other_bytes_is_found_and_nothing_rests_on_it() {
    let source = source();
    let target = target(truly);
    target.damages.store(true, Ordering::SeqCst);
    let error =
        copy(&source.repository, CopyOf::All, &target.repository, &options(0.0), &control()).unwrap_err();
    // What was going on beside it has failed because of it.
    let cause = match &error {
        RepositoryError::Failed { cause } => cause.as_ref(),
        error => error,
    };
    assert!(matches!(cause, RepositoryError::Damaged { .. }), "{cause}");
    assert!(cause.to_string().contains("believe nothing"), "{cause}");
    // Also what was only told before is listed by no index that a later copy would believe.
    assert!(target.store.list(FileKind::Index, &control()).unwrap().is_empty());
    assert!(target.repository.snapshots(&control()).unwrap().is_empty());
    target.damages.store(false, Ordering::SeqCst);
    let report = copied(&source, &target, &options(1.0));
    assert_eq!((report.packs_attested, report.packs_verified), (0, report.packs));
}
