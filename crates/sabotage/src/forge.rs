//! Wrong copies with true papers: what a fault between a source and its copy would leave behind.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;

use jiff::Timestamp;
use seaworthy_catalog::{Catalog as _, OpenMode, SqliteCatalog};
use seaworthy_model::id::{CopyId, Digest, RunId};
use seaworthy_model::receipt::{Act, ActKind, Backup, Due, seal};
use seaworthy_model::signature::{SigningKey, sha256};
use seaworthy_repository::{
    Control, Cuts, FileMeta, NodeKind, OpenOptions, Repository, Session, SessionOptions, SnapshotId,
    SnapshotPath, open_store,
};
use seaworthy_testkit::product::{PASSWORD, Product};
use serde_json::Value;

use crate::Outcome;

/// The files of a copy, by path.
pub(crate) type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// The largest file that is taken into memory here.
const FILE_MAX: u64 = 1 << 30;

pub(crate) fn opened(product: &Product) -> Outcome<Repository> {
    let store = open_store(product.repository())?;
    Ok(Repository::open(&store, PASSWORD.as_bytes(), &OpenOptions::default(), &Control::new())?)
}

pub(crate) fn copy_of(backup: &Value) -> Outcome<SnapshotId> {
    let text = backup["copy"].as_str().ok_or("the backup names no copy")?;
    SnapshotId::parse(text).ok_or_else(|| format!("`{text}` is no copy").into())
}

/// Every file of a copy.
pub(crate) fn files_of(repository: &Repository, copy: &SnapshotId) -> Outcome<Files> {
    let mut paths = Vec::new();
    let root = SnapshotPath::new("")?;
    repository.list(copy, &root, &Control::new(), |entry| {
        if entry.node.kind == NodeKind::File {
            paths.push(entry.path.join(&b'/'));
        }
        ControlFlow::Continue(())
    })?;
    let mut files = Files::new();
    for path in paths {
        let bytes = repository.read_file(copy, &SnapshotPath::new(&path)?, FILE_MAX, &Control::new())?;
        files.insert(path, bytes);
    }
    Ok(files)
}

/// Every directory of a copy, outer ones first.
pub(crate) fn directories_of(repository: &Repository, copy: &SnapshotId) -> Outcome<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    let root = SnapshotPath::new("")?;
    repository.list(copy, &root, &Control::new(), |entry| {
        if entry.node.kind == NodeKind::Dir {
            paths.push(entry.path.join(&b'/'));
        }
        ControlFlow::Continue(())
    })?;
    paths.retain(|path| !path.is_empty() && !path.starts_with(b".seaworthy"));
    paths.sort();
    Ok(paths)
}

pub(crate) fn put(session: &Session, path: &[u8], bytes: &[u8]) -> Outcome {
    let mut file = session.file(&SnapshotPath::new(path)?, FileMeta::default(), Cuts::ContentDefined)?;
    file.write(bytes)?;
    file.finish()?;
    Ok(())
}

/// The papers of a forged copy, which are the original's unless a mutation changes them.
#[derive(Default)]
pub(crate) struct Papers<'a> {
    /// Changes the witness; `None` leaves it out.
    pub(crate) witness: Option<&'a dyn Fn(Vec<u8>) -> Option<Vec<u8>>>,
    /// Changes the manifest of a tree.
    pub(crate) manifest: Option<&'a dyn Fn(Vec<u8>) -> Vec<u8>>,
    /// Whether the receipt names the changed witness rather than the original's.
    pub(crate) receipt_follows: bool,
    /// Signs the receipt instead of the product's own key.
    pub(crate) key: Option<SigningKey>,
}

/// Stores a copy with the content that `fill` gives it and the witness of `original`, and seals a receipt with the
/// product's own key which says that a backup made it.
pub(crate) fn forge(
    product: &Product,
    original: &Value,
    papers: Papers<'_>,
    fill: impl FnOnce(&Session) -> Outcome,
) -> Outcome<SnapshotId> {
    let repository = opened(product)?;
    let options = SessionOptions {
        hostname: "forger".to_owned(),
        paths: vec!["/forged".to_owned()],
        ..SessionOptions::default()
    };
    let session = repository.begin(options, &Control::new())?;
    fill(&session)?;
    let paper = |path: &str| -> Outcome<Vec<u8>> {
        let path = SnapshotPath::new(path)?;
        Ok(repository.read_file(&copy_of(original)?, &path, FILE_MAX, &Control::new())?)
    };
    let witness = paper(".seaworthy/witness.json")?;
    let witness = match papers.witness {
        Some(change) => change(witness),
        None => Some(witness),
    };
    if let Some(bytes) = &witness {
        put(&session, b".seaworthy/witness.json", bytes)?;
    }
    if original["source_kind"] == "files" {
        let manifest = paper(".seaworthy/manifest.tsv")?;
        let manifest = match papers.manifest {
            Some(change) => change(manifest),
            None => manifest,
        };
        put(&session, b".seaworthy/manifest.tsv", &manifest)?;
    }
    let copy = session.commit(&Control::new())?.id;
    let witness = if papers.receipt_follows { witness.as_deref().map(sha256) } else { None };
    tell(product, original, &copy, witness, papers.key)?;
    Ok(copy)
}

/// Seals a receipt which says that `copy` was made by a backup just now.
pub(crate) fn tell(
    product: &Product,
    original: &Value,
    copy: &SnapshotId,
    witness: Option<Digest>,
    key: Option<SigningKey>,
) -> Outcome {
    tell_at(product, original, copy, witness, key, Timestamp::now())
}

/// The same, with an end at another time than now: the clock has jumped while the run was under way.
pub(crate) fn tell_at(
    product: &Product,
    original: &Value,
    copy: &SnapshotId,
    witness: Option<Digest>,
    key: Option<SigningKey>,
    ended: Timestamp,
) -> Outcome {
    let mut backup: Backup = serde_json::from_value(original.clone())?;
    let now = Timestamp::now();
    backup.run = RunId(format!("backup-forged-{}", now.as_nanosecond()));
    backup.copy = Some(CopyId(copy.hex()));
    if witness.is_some() {
        backup.witness = witness;
    }
    let due = Due {
        run: backup.run.clone(),
        service: backup.service.clone(),
        source: backup.source.clone(),
        act: ActKind::Backup,
        due_at: now,
    };
    let own = SigningKey::from_pem(&fs::read_to_string(product.state().join("signing.key"))?)?;
    let key = key.unwrap_or(own);
    let catalogue = SqliteCatalog::open(&product.state().join("catalogue.sqlite"), OpenMode::Existing)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let head = catalogue.head().await?;
        let envelope = seal(&Act::Due(due), now, head.as_ref(), &key)?;
        let head = catalogue.append(head.as_ref(), vec![envelope.to_json()], None).await?;
        backup.due = Some(head.sequence);
        let envelope = seal(&Act::Backup(Box::new(backup)), ended, Some(&head), &key)?;
        catalogue.append(Some(&head), vec![envelope.to_json()], None).await?;
        Ok(())
    })
}

/// A forged copy of these files, with the original's papers.
pub(crate) fn forge_files(product: &Product, original: &Value, files: &Files) -> Outcome {
    forge(product, original, Papers::default(), |session| put_all(session, files)).map(drop)
}

/// Puts every file but the papers.
pub(crate) fn put_all(session: &Session, files: &Files) -> Outcome {
    for (path, bytes) in files.iter().filter(|(path, _)| !path.starts_with(b".seaworthy/")) {
        put(session, path, bytes)?;
    }
    Ok(())
}
