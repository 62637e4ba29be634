//! Snapshot files: when, what, from where, and the root tree. Pure.

use serde::Serialize;

use crate::error::{Object, RepositoryError, Result};
use crate::id::{Id, SnapshotId};
use crate::json::{self, go_struct, push_number, push_string};
use crate::time::Time;

go_struct! {
    /// What a run counted. Field names are restic's; the integers have its meaning.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct SnapshotSummary {
        /// When the run began.
        pub backup_start: Time = "backup_start",
        /// When it ended.
        pub backup_end: Time = "backup_end",
        /// Files without a counterpart in the parent.
        pub files_new: u64 = "files_new",
        /// Files that differ from the parent.
        pub files_changed: u64 = "files_changed",
        /// Files taken over from the parent unread.
        pub files_unmodified: u64 = "files_unmodified",
        /// Directories without a counterpart in the parent.
        pub dirs_new: u64 = "dirs_new",
        /// Directories that differ from the parent.
        pub dirs_changed: u64 = "dirs_changed",
        /// Directories equal to the parent's.
        pub dirs_unmodified: u64 = "dirs_unmodified",
        /// Data blobs stored.
        pub data_blobs: u64 = "data_blobs",
        /// Tree blobs stored.
        pub tree_blobs: u64 = "tree_blobs",
        /// Plaintext bytes stored.
        pub data_added: u64 = "data_added",
        /// The same, as stored.
        pub data_added_packed: u64 = "data_added_packed",
        /// Files in the snapshot.
        pub total_files_processed: u64 = "total_files_processed",
        /// Their bytes.
        pub total_bytes_processed: u64 = "total_bytes_processed",
    }
}

go_struct! {
    /// One snapshot. Unknown fields of other writers are skipped.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Snapshot {
        /// When, with the writer's offset.
        pub time: Time = "time",
        /// The snapshot whose unchanged files were taken over.
        pub parent: Option<Id> = "parent",
        /// The root, above the backed-up paths.
        pub tree: Option<Id> = "tree",
        /// What was backed up: absolute and cleaned.
        pub paths: Vec<String> = "paths",
        /// The host; with the paths it is the identity for retention and parents.
        pub hostname: String = "hostname",
        /// Who ran it.
        pub username: String = "username",
        /// Numeric owner of the run.
        pub uid: u32 = "uid",
        /// Numeric group of the run.
        pub gid: u32 = "gid",
        /// Exclude patterns as given.
        pub excludes: Vec<String> = "excludes",
        /// Tags, without commas.
        pub tags: Vec<String> = "tags",
        /// The first incarnation of a rewritten snapshot.
        pub original: Option<Id> = "original",
        /// Which program.
        pub program_version: String = "program_version",
        /// What it counted.
        pub summary: Option<SnapshotSummary> = "summary",
    }
}

impl Snapshot {
    /// No later than anything in it was read: the begin of the run where that is told, or its instant where that is earlier.
    #[must_use]
    pub fn began(&self) -> Time {
        match &self.summary {
            Some(summary) if summary.backup_start.unix_nanos() < self.time.unix_nanos() => {
                summary.backup_start
            }
            Some(_) | None => self.time,
        }
    }

    /// Reads the JSON; refuses one without a tree.
    pub fn decode(id: &SnapshotId, plaintext: &[u8]) -> Result<Self> {
        let bad = |why: String| RepositoryError::inconsistent(Object::Snapshot, id, why);
        let snapshot: Self = json::parse(plaintext).map_err(|e| bad(e.to_string()))?;
        if snapshot.tree.is_none() {
            return Err(bad("it has no tree".into()));
        }
        Ok(snapshot)
    }

    /// The JSON in restic's order, empty values omitted.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"time\":\"".to_vec();
        self.time.push(&mut out);
        out.push(b'"');
        let id = |out: &mut Vec<u8>, key: &str, id: Option<Id>| {
            if let Some(id) = id {
                out.extend_from_slice(format!(",\"{key}\":\"{id}\"").as_bytes());
            }
        };
        let list = |out: &mut Vec<u8>, key: &str, list: &[String], always: bool| {
            if list.is_empty() && !always {
                return;
            }
            out.extend_from_slice(format!(",\"{key}\":[").as_bytes());
            for (i, text) in list.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                push_string(out, text);
            }
            out.push(b']');
        };
        let text = |out: &mut Vec<u8>, key: &str, text: &str| {
            if !text.is_empty() {
                out.extend_from_slice(format!(",\"{key}\":").as_bytes());
                push_string(out, text);
            }
        };
        let number = |out: &mut Vec<u8>, key: &str, n: u32| {
            if n != 0 {
                out.extend_from_slice(format!(",\"{key}\":").as_bytes());
                push_number(out, u64::from(n));
            }
        };
        id(&mut out, "parent", self.parent);
        id(&mut out, "tree", self.tree);
        list(&mut out, "paths", &self.paths, true);
        text(&mut out, "hostname", &self.hostname);
        text(&mut out, "username", &self.username);
        number(&mut out, "uid", self.uid);
        number(&mut out, "gid", self.gid);
        list(&mut out, "excludes", &self.excludes, false);
        list(&mut out, "tags", &self.tags, false);
        id(&mut out, "original", self.original);
        text(&mut out, "program_version", &self.program_version);
        if let Some(s) = &self.summary {
            out.extend_from_slice(b",\"summary\":{\"backup_start\":\"");
            s.backup_start.push(&mut out);
            out.extend_from_slice(b"\",\"backup_end\":\"");
            s.backup_end.push(&mut out);
            out.push(b'"');
            for (key, n) in [
                ("files_new", s.files_new),
                ("files_changed", s.files_changed),
                ("files_unmodified", s.files_unmodified),
                ("dirs_new", s.dirs_new),
                ("dirs_changed", s.dirs_changed),
                ("dirs_unmodified", s.dirs_unmodified),
                ("data_blobs", s.data_blobs),
                ("tree_blobs", s.tree_blobs),
                ("data_added", s.data_added),
                ("data_added_packed", s.data_added_packed),
                ("total_files_processed", s.total_files_processed),
                ("total_bytes_processed", s.total_bytes_processed),
            ] {
                out.extend_from_slice(format!(",\"{key}\":").as_bytes());
                push_number(&mut out, n);
            }
            out.push(b'}');
        }
        out.push(b'}');
        out
    }
}

/// Lock files, in restic's form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LockFile {
    pub(crate) time: String,
    pub(crate) exclusive: bool,
    pub(crate) hostname: String,
    pub(crate) username: String,
    pub(crate) pid: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) uid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) gid: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

go_struct! {
    #[derive(Default)]
    pub(crate) struct LockJson {
        pub(crate) time: Time = "time",
        pub(crate) exclusive: bool = "exclusive",
        pub(crate) hostname: String = "hostname",
        pub(crate) username: String = "username",
        pub(crate) pid: i64 = "pid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_round_trips_in_restics_order() {
        let text = concat!(
            r#"{"time":"2026-02-02T10:00:00+01:00","parent":"59557678fbd4b5330a739071d92a536cdddd72d6fecc7244e455dad2b3ff4edb","#,
            r#""tree":"d3d146dfedb02976e5989180c4a1864f1995c26adc494730a628f77439cba027","paths":["/srv/golden"],"#,
            r#""hostname":"golden-host","username":"root","excludes":["*.excluded"],"tags":["first","nightly"],"program_version":"restic 0.19.1","#,
            r#""summary":{"backup_start":"2026-11-21T13:03:57.758091426Z","backup_end":"2026-11-21T13:03:58.485717335Z","files_new":31,"files_changed":0,"#,
            r#""files_unmodified":0,"dirs_new":6,"dirs_changed":0,"dirs_unmodified":0,"data_blobs":32,"tree_blobs":6,"data_added":4749443,"#,
            r#""data_added_packed":2623404,"total_files_processed":31,"total_bytes_processed":7360331}}"#
        );
        let snapshot = Snapshot::decode(&Id::default(), text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(snapshot.encode()).unwrap(), text);
    }

    #[test]
    fn a_snapshot_without_tree_or_zone_is_refused_and_null_lists_are_not() {
        let tree = "d3".repeat(32);
        for (text, fine) in [
            (r#"{"time":"2026-02-02T10:00:00Z","paths":[]}"#.to_owned(), false),
            (format!(r#"{{"time":"2026-02-02T10:00:00","tree":"{tree}"}}"#), false),
            (
                format!(
                    r#"{{"time":"2026-02-02T10:00:00Z","tree":"{tree}","paths":null,"tags":null,"x":{{}}}}"#
                ),
                true,
            ),
        ] {
            assert_eq!(Snapshot::decode(&Id::default(), text.as_bytes()).is_ok(), fine, "{text}");
        }
    }
}
