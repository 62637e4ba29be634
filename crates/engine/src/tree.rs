//! Trees of files between the store and the doors.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use seaworthy_interface::copy::{EntryState, LeftOut, Written};
use seaworthy_interface::{DriverError, EntryKind, Piece, TreeEntry, TreeOptions};
use seaworthy_model::finding::FindingCode;
use seaworthy_repository::tree::mode;
use seaworthy_repository::{
    Control, Node, NodeKind, Repository, RestoreOptions, Session, SnapshotId, SnapshotPath, TreeEvent,
    TreeOutcome,
};

use crate::store::driver_error;

/// Archives a directory of this machine under its own absolute path.
pub(crate) fn archive(
    session: &Session,
    root: &Path,
    options: &TreeOptions,
    observe: &(dyn Fn(TreeEntry) + Send + Sync),
) -> Result<(), DriverError> {
    let store_options = seaworthy_repository::TreeOptions {
        excludes: options.exclude.clone(),
        one_file_system: options.one_file_system,
        ..seaworthy_repository::TreeOptions::default()
    };
    let base = root.as_os_str().as_bytes();
    session
        .tree(root, &store_options, &mut |event| observe(entry(base, &event)))
        .map(|_| ())
        .map_err(|error| driver_error(format!("archive `{}`", root.display()), error))
}

fn entry(base: &[u8], event: &TreeEvent<'_>) -> TreeEntry {
    let mut path = base.to_vec();
    if !event.path.is_empty() {
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(event.path);
    }
    let mut allocated = 0;
    let (kind, pieces, state) = match event.outcome {
        TreeOutcome::File { pieces, changed_while_read, from_parent: _, blocks_512 } => {
            allocated = blocks_512;
            let state = if changed_while_read { EntryState::ChangedWhileRead } else { EntryState::Stored };
            (
                EntryKind::File,
                pieces.iter().map(|(length, sha256)| Piece { length: *length, sha256: *sha256 }).collect(),
                state,
            )
        }
        TreeOutcome::Directory => (EntryKind::Directory, Vec::new(), EntryState::Stored),
        TreeOutcome::MountPoint => (EntryKind::Directory, Vec::new(), EntryState::MountPoint),
        TreeOutcome::Special => (kind(event.node), Vec::new(), EntryState::Stored),
        TreeOutcome::SocketSkipped => (EntryKind::Socket, Vec::new(), EntryState::Excluded(LeftOut::Socket)),
        TreeOutcome::Excluded => (kind(event.node), Vec::new(), EntryState::Excluded(LeftOut::Pattern)),
        TreeOutcome::Unreadable(error) => {
            (kind(event.node), Vec::new(), EntryState::Unreadable(error.to_string()))
        }
        TreeOutcome::Vanished => (kind(event.node), Vec::new(), EntryState::Vanished),
    };
    let Some(node) = event.node else {
        return TreeEntry {
            path,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime_ns: 0,
            size: 0,
            inode: (0, 0, 0),
            link_target: None,
            rdev: 0,
            xattrs: Vec::new(),
            blocks_512: 0,
            pieces,
            state,
        };
    };
    TreeEntry {
        path,
        kind,
        mode: mode::to_unix_permissions(node.mode),
        uid: node.uid,
        gid: node.gid,
        mtime_ns: node.mtime.unix_nanos(),
        size: node.size,
        inode: (node.inode, node.device_id, node.links),
        link_target: (node.kind == NodeKind::Symlink).then(|| node.linktarget.clone()),
        rdev: node.device,
        xattrs: node.xattrs.iter().map(|xattr| (xattr.name.clone().into(), xattr.value.clone())).collect(),
        blocks_512: allocated,
        pieces,
        state,
    }
}

fn kind(node: Option<&Node>) -> EntryKind {
    match node.map(|node| &node.kind) {
        Some(NodeKind::Dir) => EntryKind::Directory,
        Some(NodeKind::Symlink) => EntryKind::Symlink,
        Some(NodeKind::Fifo) => EntryKind::Fifo,
        Some(NodeKind::Device) => EntryKind::BlockDevice,
        Some(NodeKind::CharDevice) => EntryKind::CharDevice,
        Some(NodeKind::Socket) => EntryKind::Socket,
        Some(NodeKind::File | NodeKind::Other(_)) | None => EntryKind::File,
    }
}

/// Restores a part of a snapshot into a new or empty directory, and says how many bytes of content an old place had. Anything that could
/// not be restored is an error.
pub(crate) fn restore(
    repository: &Repository,
    snapshot: &SnapshotId,
    under: &SnapshotPath,
    into: &Path,
    options: &RestoreOptions,
    control: &Control,
) -> Result<(Written, u64), DriverError> {
    let done = repository.restore(snapshot, under, into, options, control).map_err(|error| {
        driver_error(format!("restore `{under}` of the copy into `{}`", into.display()), error)
    })?;
    if let Some(first) = done.problems.into_iter().next() {
        let path = first.path.escape_ascii().to_string();
        let context = format!(
            "restore `{path}` of the copy ({} of its entries could not be restored)",
            done.problem_count
        );
        let is_ours = matches!(
            first.error,
            seaworthy_repository::RepositoryError::Io { .. }
                | seaworthy_repository::RepositoryError::Refused { .. }
        );
        let error = driver_error(context, first.error);
        return Err(if is_ours && error.code.is_none() {
            error.code(FindingCode::EnvPermission)
        } else {
            error
        });
    }
    Ok((Written { files: done.files, bytes: done.bytes }, done.bytes_reused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_leaves_out_and_what_is_mounted_are_told_apart() {
        let mounted = Node { kind: NodeKind::Dir, ..Node::default() };
        let told = |node, outcome| entry(b"/srv", &TreeEvent { path: b"x", node, outcome });
        let one = told(Some(&mounted), TreeOutcome::MountPoint);
        assert_eq!((one.kind, one.state), (EntryKind::Directory, EntryState::MountPoint));
        let other = told(None, TreeOutcome::Excluded);
        assert_eq!(other.state, EntryState::Excluded(LeftOut::Pattern));
    }
}
