//! Large tables, copied into a restored database out of the repository: what is restored lies on the disk once, and
//! loading begins at once.
//!
//! `pg_restore` makes everything and fills everything else. For the files of large tables it is run in parts: what comes
//! before the data; the data of small tables, sequences and large objects, while the large tables are copied beside it by
//! their own COPY statements; then what comes after the data together with all grants, which it puts into their order. That
//! is the order in which it does everything at once. (It cannot be fed: from 15.20 and 17.12 on it opens nothing but
//! regular files.)
//!
//! Each table is emptied and copied in one transaction, as `pg_restore` does with several workers: a server that need not
//! write its log for a table made or emptied in the same transaction does not. The rows go over as they are stored; a
//! copy that cannot be read ends the COPY as failed, never as finished.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    CopyEntry, CopyPath, CopyReader, Cx, DriverError, EntryKind, ErrorKind, Progress, Restoring,
};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::witness::postgres::printable;
use tokio::sync::mpsc;

use super::archive::{self, ArchiveFacts, Section, TocEntry};
use super::names::identifier;
use super::restore::{archive_path, blocking};
use super::session::{CopyError, Session};
use super::tools::argument;

/// Smallest file that is not put on the disk first: a smaller one is fetched in some milliseconds.
const LOADED_BYTES_MIN: u64 = 8 << 20;
/// Tables that are copied at once: as many as `pg_restore` has workers.
const WORKERS: usize = 2;
/// Bytes of rows that are handed on at once, and how many such parts may wait for the server.
const PART_BYTES: usize = 256 << 10;
const PARTS_WAITING: usize = 4;
/// Lists for `pg_restore`, beside the archive's own files: what comes before the rows and the rows that it fills in itself,
/// without grants; what comes after, with all grants.
const LIST_UNTIL_ROWS: &str = "list.until-rows";
const LIST_AFTER: &str = "list.after";
/// What is wanted, where that is not everything and nothing is large.
const LIST_OF_WANTED: &str = "list.wanted";
/// Kinds of entries that grant something.
const GRANTS: [&[u8]; 3] = [b"ACL", b"ACL LANGUAGE", b"DEFAULT ACL"];

/// A part of a restore, which is one run of `pg_restore`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Schemas, types, tables.
    Before,
    /// Rows of small tables, positions of sequences, large objects.
    Data,
    /// Constraints, indexes, triggers; then who may do what, which must not keep rows or indexes out before; then rows of
    /// materialised views, which need the grants.
    After,
}

/// A table whose rows are copied out of the repository.
#[derive(Debug)]
struct Load {
    path: CopyPath,
    size: u64,
    /// For people.
    name: String,
    statements: Statements,
}

/// What our session says to fill a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Statements {
    /// Empties it.
    truncate: String,
    /// Copies its rows.
    copy: String,
}

/// A file of rows: their table, whether anybody wants them, and how we could copy them.
struct Rows {
    name: String,
    is_wanted: bool,
    statements: Option<Statements>,
}

/// The archive of a copy, without the rows of its large tables.
#[derive(Debug)]
pub(super) struct Loads {
    archive: PathBuf,
    tables: Vec<Load>,
    /// Whether not everything is wanted.
    is_partial: bool,
    /// What was written as files.
    files: Written,
    /// Bytes of rows that were copied, and tables that are complete.
    copied: AtomicU64,
    complete: AtomicUsize,
}

/// The database that is filled: how to reach it, and how to run `pg_restore` on it.
#[async_trait]
pub(super) trait Target: Sync {
    /// Opens a session in it.
    async fn open(&self, cx: &Cx) -> Result<Session, DriverError>;

    /// Runs `pg_restore` with these options beside its own.
    async fn run(&self, cx: &Cx, options: &[String]) -> Result<(), DriverError>;

    /// Whether one after the other is to be done: two had come to wait for each other.
    fn is_alone(&self) -> bool;

    /// What an error of the server's amounts to, that it gave to a statement of ours.
    fn fault(&self, error: DriverError) -> DriverError {
        error
    }
}

/// The table of contents of a copy's archive.
pub(super) async fn contents(cx: &Cx, from: &Arc<dyn CopyReader>) -> Result<ArchiveFacts, DriverError> {
    let reader = Arc::clone(from);
    let path = archive_path()?.join("toc.dat");
    blocking(cx, move || {
        let path = path.ok_or_else(|| DriverError::new(ErrorKind::Other, "name the table of contents"))?;
        archive::read_directory_toc(reader.open(&path)?).map_err(|error| {
            let error = match error {
                archive::ArchiveError::Read(error) => {
                    return DriverError::io("read the archive's table of contents", error);
                }
                error => error,
            };
            DriverError::new(ErrorKind::Corrupt, "read the archive's table of contents")
                .because(error)
                .code(FindingCode::ArchiveTruncated)
        })
    })
    .await
}

/// Fetches the archive of a copy into `archive`, but for the rows of its large tables; with `wanted`, only what those
/// entries need, as far as it is large.
///
/// Whoever is to read it must be given everything below `archive` afterwards.
pub(super) async fn fetch(
    cx: &Cx,
    from: &Arc<dyn CopyReader>,
    archive: &Path,
    facts: &ArchiveFacts,
    wanted: Option<&BTreeSet<i64>>,
) -> Result<Loads, DriverError> {
    let is_wanted = |entry: &&TocEntry| wanted.is_none_or(|wanted| wanted.contains(&entry.dump_id));
    let rows: BTreeMap<Vec<u8>, Rows> = facts
        .entries
        .iter()
        .filter(|entry| entry.has_data && entry.desc == b"TABLE DATA")
        .map(|entry| {
            let file = format!("{}.dat", entry.dump_id).into_bytes();
            let (name, is_wanted) = (shown(entry), is_wanted(&entry));
            let statements =
                if is_wanted { statements(entry, &facts.entries, &facts.encoding) } else { None };
            (file, Rows { name, is_wanted, statements })
        })
        .collect();
    let has_objects = facts.entries.iter().filter(is_wanted).any(|entry| entry.desc == b"BLOBS");
    let (reader, place, under) = (Arc::clone(from), archive.to_path_buf(), archive_path()?);
    let (tables, files) = blocking(cx, move || {
        let mut tables = Vec::new();
        let mut left_out = BTreeSet::new();
        for CopyEntry { path, size, kind, .. } in reader.list(Some(&under))? {
            let name =
                path.as_bytes().strip_prefix(under.as_bytes()).and_then(|name| name.strip_prefix(b"/"));
            let Some(name) = name.filter(|_| kind == EntryKind::File && size >= LOADED_BYTES_MIN) else {
                continue;
            };
            match rows.get(name) {
                Some(Rows { name, statements: Some(statements), .. }) => {
                    left_out.insert(path.clone());
                    tables.push(Load { path, size, name: name.clone(), statements: statements.clone() });
                }
                // What nobody asks for is not fetched.
                Some(rows) if !rows.is_wanted => drop(left_out.insert(path)),
                None if !has_objects && name.starts_with(b"blob_") => drop(left_out.insert(path)),
                Some(_) | None => {}
            }
        }
        tables.sort_by_key(|load: &Load| Reverse(load.size));
        let files = reader.restore(&under, &place, &Restoring { left_out, ..Restoring::default() })?;
        Ok((tables, files))
    })
    .await?;
    let loads = Loads {
        archive: archive.to_owned(),
        tables,
        is_partial: wanted.is_some(),
        files,
        copied: AtomicU64::new(0),
        complete: AtomicUsize::new(0),
    };
    loads.write_lists(facts, wanted)?;
    Ok(loads)
}

fn grants(entry: &TocEntry) -> bool {
    GRANTS.contains(&entry.desc.as_slice())
}

fn shown(entry: &TocEntry) -> String {
    let part = |bytes: &[u8]| printable(&super::names::text_of(bytes));
    format!("{}.{}", part(&entry.namespace), part(&entry.tag))
}

/// How our own session empties and fills a table; `None` where that is left to `pg_restore`:
///
/// - its name or its statement is none that our session can say, which speaks UTF-8 (the rows keep the archive's encoding,
///   which the statement names), or none that `pg_dump` writes;
/// - the archive does not make the table. An extension has made and filled it, and only rows that were added are here: it must
///   not be emptied, and its tables come in an order;
/// - its rows go into the root of its partitions, and some of them into other partitions than this.
fn statements(entry: &TocEntry, entries: &[TocEntry], encoding: &str) -> Option<Statements> {
    let is_made_here = entries.iter().any(|table| {
        table.desc == b"TABLE"
            && table.namespace == entry.namespace
            && table.tag == entry.tag
            && entry.dependencies.contains(&table.dump_id)
    });
    if !is_made_here || entry.is_via_root {
        return None;
    }
    let is_plain =
        !encoding.is_empty() && encoding.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        (encoding == "UTF8" || text.is_ascii()).then(|| text.to_owned())
    };
    let table = format!("{}.{}", identifier(&text(&entry.namespace)?), identifier(&text(&entry.tag)?));
    let statement = text(&entry.copy_statement)?;
    let head = statement.strip_suffix(" FROM stdin;\n").filter(|head| head.starts_with("COPY "))?;
    is_plain.then(|| Statements {
        truncate: format!("TRUNCATE ONLY {table}"),
        copy: format!("{head} FROM STDIN WITH (FORMAT text, ENCODING '{encoding}')"),
    })
}

impl Loads {
    fn write_lists(&self, facts: &ArchiveFacts, wanted: Option<&BTreeSet<i64>>) -> Result<(), DriverError> {
        if self.tables.is_empty() && wanted.is_none() {
            return Ok(());
        }
        let loaded: BTreeSet<&[u8]> = self
            .tables
            .iter()
            .filter_map(|load| load.path.as_bytes().rsplit(|byte| *byte == b'/').next())
            .collect();
        let is_loaded = |entry: &TocEntry| {
            entry.desc == b"TABLE DATA" && loaded.contains(format!("{}.dat", entry.dump_id).as_bytes())
        };
        let write = |name: &str, keeps: &dyn Fn(&TocEntry) -> bool| {
            // The order of a list is the order of the restore, and the archive's own order is a right one.
            let lines = facts
                .entries
                .iter()
                .filter(|entry| wanted.is_none_or(|wanted| wanted.contains(&entry.dump_id)) && keeps(entry));
            let text: String = lines.map(|entry| format!("{};\n", entry.dump_id)).collect();
            std::fs::write(self.archive.join(name), text)
                .map_err(|error| DriverError::io("write a list of entries", error))
        };
        write(LIST_OF_WANTED, &|_| true)?;
        write(LIST_UNTIL_ROWS, &|entry| {
            entry.section != Section::After && !grants(entry) && !is_loaded(entry)
        })?;
        write(LIST_AFTER, &|entry| entry.section == Section::After || grants(entry))
    }

    /// What the restored database was made of, so far.
    pub(super) fn written(&self) -> Written {
        let complete = self.complete.load(Ordering::Acquire) as u64;
        Written {
            files: self.files.files + complete,
            bytes: self.files.bytes + self.copied.load(Ordering::Acquire),
        }
    }

    /// Restores everything that was fetched, and the rows that were not.
    ///
    /// The first error of either side ends the other; the copy's own comes before what follows from it.
    pub(super) async fn restore(
        &self,
        cx: &Cx,
        from: &Arc<dyn CopyReader>,
        to: &dyn Target,
    ) -> Result<(), DriverError> {
        // A second attempt begins anew.
        self.copied.store(0, Ordering::Release);
        self.complete.store(0, Ordering::Release);
        if self.tables.is_empty() {
            return to.run(cx, &self.options(None)?).await;
        }
        to.run(cx, &self.options(Some(Part::Before))?).await?;
        let data = self.options(Some(Part::Data))?;
        if to.is_alone() {
            to.run(cx, &data).await?;
            self.load(cx, from, to, 1).await?;
        } else {
            self.beside(cx, from, to, &data).await?;
        }
        to.run(cx, &self.options(Some(Part::After))?).await
    }

    /// Fills small tables and large ones at the same time.
    async fn beside(
        &self,
        cx: &Cx,
        from: &Arc<dyn CopyReader>,
        to: &dyn Target,
        data: &[String],
    ) -> Result<(), DriverError> {
        let (within, token) = cx.child();
        let small = async {
            let done = to.run(&within, data).await;
            if done.is_err() {
                token.cancel();
            }
            done
        };
        let large = async {
            let done = self.load(&within, from, to, WORKERS).await;
            if done.is_err() {
                token.cancel();
            }
            done
        };
        let ended: (Result<(), DriverError>, Result<(), DriverError>) = tokio::join!(small, large);
        match ended {
            (Ok(()), Ok(())) => Ok(()),
            (Err(error), Err(other)) => {
                let is_consequence = matches!(other.kind, ErrorKind::Stopped(_));
                Err(if is_consequence { error } else { other })
            }
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
        }
    }

    /// The options of one run; `None` for everything at once.
    fn options(&self, part: Option<Part>) -> Result<Vec<String>, DriverError> {
        let (section, list) = match part {
            None => (None, self.is_partial.then_some(LIST_OF_WANTED)),
            Some(Part::Before) => (Some("--section=pre-data"), Some(LIST_UNTIL_ROWS)),
            Some(Part::Data) => (Some("--section=data"), Some(LIST_UNTIL_ROWS)),
            // No section: grants stand in all of them.
            Some(Part::After) => (None, Some(LIST_AFTER)),
        };
        let mut options: Vec<String> = section.map(str::to_owned).into_iter().collect();
        if let Some(list) = list {
            options.push(format!("--use-list={}", argument(&self.archive.join(list))?));
        }
        Ok(options)
    }

    /// Copies every large table, the largest first.
    async fn load(
        &self,
        cx: &Cx,
        from: &Arc<dyn CopyReader>,
        to: &dyn Target,
        workers: usize,
    ) -> Result<(), DriverError> {
        let next = AtomicUsize::new(0);
        let workers = (0..workers.min(self.tables.len())).map(|_| self.work(cx, from, to, &next));
        futures::future::try_join_all(workers).await.map(drop)
    }

    async fn work(
        &self,
        cx: &Cx,
        from: &Arc<dyn CopyReader>,
        to: &dyn Target,
        next: &AtomicUsize,
    ) -> Result<(), DriverError> {
        let session = to.open(cx).await?;
        // Amounts of money are read as pg_restore reads them: as the database is set, not as we measure it.
        session.execute(cx, "read money as pg_restore does", "RESET lc_monetary").await?;
        while let Some(load) = self.tables.get(next.fetch_add(1, Ordering::AcqRel)) {
            self.load_one(cx, from, to, &session, load).await?;
        }
        Ok(())
    }

    async fn load_one(
        &self,
        cx: &Cx,
        from: &Arc<dyn CopyReader>,
        to: &dyn Target,
        session: &Session,
        load: &Load,
    ) -> Result<(), DriverError> {
        let what = format!("restore the archive: copy the rows of {}", load.name);
        let begin = format!("BEGIN; {}", load.statements.truncate);
        session.execute(cx, &what, &begin).await.map_err(|error| to.fault(error))?;
        let (parts, taken) = mpsc::channel(PARTS_WAITING);
        let (reader, path, size) = (Arc::clone(from), load.path.clone(), load.size);
        let reading = tokio::task::spawn_blocking(move || read(reader.as_ref(), &path, size, &parts));
        let total = self.tables.iter().map(|load| load.size).sum();
        let sink = cx.sink();
        let told = |bytes: usize| {
            let done = self.copied.fetch_add(bytes as u64, Ordering::AcqRel) + bytes as u64;
            sink(Progress::Bytes { done, total: Some(total) });
        };
        let copied = session.copy_in(cx, &what, &load.statements.copy, taken, told).await;
        // The thread ends with the channel, which is closed by now.
        let read =
            reading.await.map_err(|error| DriverError::new(ErrorKind::Other, what.clone()).because(error));
        copied.map_err(|error| match error {
            CopyError::Data(error) => error,
            CopyError::Server(error) => to.fault(error),
        })?;
        read?;
        session.execute(cx, &what, "COMMIT").await.map_err(|error| to.fault(error))?;
        self.complete.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Hands the parts of a file on, or why it cannot be read; ends when nobody takes them any more.
fn read(
    from: &dyn CopyReader,
    path: &CopyPath,
    size: u64,
    parts: &mpsc::Sender<Result<Vec<u8>, DriverError>>,
) {
    let attempt = || -> Result<(), DriverError> {
        let context = || format!("read {path} of the copy");
        let mut source = from.open(path)?;
        let mut done = 0;
        loop {
            let mut part = vec![0; PART_BYTES];
            let mut length = 0;
            while length < part.len() {
                match source.read(&mut part[length..]).map_err(|error| DriverError::io(context(), error))? {
                    0 => break,
                    read => length += read,
                }
            }
            part.truncate(length);
            done += length as u64;
            if length == 0 {
                break;
            }
            if parts.blocking_send(Ok(part)).is_err() {
                return Ok(());
            }
        }
        if done == size {
            return Ok(());
        }
        let why = format!("its size is recorded as {size}, its content has {done} bytes");
        Err(DriverError::new(ErrorKind::Corrupt, context()).because(why).code(FindingCode::ArchiveTruncated))
    };
    if let Err(error) = attempt() {
        // Whoever is gone has an error of his own.
        drop(parts.blocking_send(Err(error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(namespace: &[u8], tag: &[u8], statement: &[u8]) -> TocEntry {
        TocEntry {
            dump_id: 7,
            has_data: true,
            is_via_root: false,
            section: Section::Data,
            table_oid: 0,
            oid: 0,
            tag: tag.to_vec(),
            desc: b"TABLE DATA".to_vec(),
            namespace: namespace.to_vec(),
            copy_statement: statement.to_vec(),
            owner: Vec::new(),
            dependencies: vec![3],
        }
    }

    fn table_of(rows: &TocEntry) -> TocEntry {
        let (desc, section) = (b"TABLE".to_vec(), Section::Before);
        TocEntry { dump_id: 3, desc, section, has_data: false, dependencies: Vec::new(), ..rows.clone() }
    }

    fn said(rows: &TocEntry, encoding: &str) -> Option<Statements> {
        statements(rows, &[table_of(rows), rows.clone()], encoding)
    }

    #[test]
    fn a_table_that_the_archive_does_not_make_is_never_emptied() {
        let rows = entry(b"public", b"spatial_ref_sys", b"COPY public.spatial_ref_sys (srid) FROM stdin;\n");
        assert!(said(&rows, "UTF8").is_some());
        assert!(statements(&rows, std::slice::from_ref(&rows), "UTF8").is_none(), "an extension makes it");
        let other = TocEntry { dump_id: 4, ..table_of(&rows) };
        assert!(statements(&rows, &[other], "UTF8").is_none());
        let via_root = TocEntry { is_via_root: true, ..rows };
        assert!(said(&via_root, "UTF8").is_none(), "its rows belong to several partitions");
    }

    #[test]
    fn a_statement_names_the_encoding_of_its_rows() {
        let plain = entry(b"public", b"a \"b", b"COPY public.\"a \"\"b\" (id, note) FROM stdin;\n");
        let said = said(&plain, "LATIN1").unwrap();
        assert_eq!(said.truncate, "TRUNCATE ONLY \"public\".\"a \"\"b\"");
        assert_eq!(
            said.copy,
            "COPY public.\"a \"\"b\" (id, note) FROM STDIN WITH (FORMAT text, ENCODING 'LATIN1')"
        );
    }

    #[test]
    fn what_our_session_cannot_say_is_left_to_pg_restore() {
        let accented = entry(b"public", "tä".as_bytes(), "COPY public.\"tä\" (id) FROM stdin;\n".as_bytes());
        assert!(said(&accented, "UTF8").is_some());
        assert!(said(&accented, "SQL_ASCII").is_none(), "these bytes are no text");
        let latin = entry(b"public", b"t\xe4", b"COPY public.\"t\xe4\" (id) FROM stdin;\n");
        assert!(said(&latin, "LATIN1").is_none());
        for statement in [&b""[..], b"COPY t FROM stdin", b"SELECT 1; FROM stdin;\n"] {
            assert!(said(&entry(b"public", b"t", statement), "UTF8").is_none());
        }
        let plain = entry(b"public", b"t", b"COPY public.t (id) FROM stdin;\n");
        assert!(said(&plain, "").is_none());
        assert!(said(&plain, "UTF8'; DROP TABLE x; --").is_none());
    }
}
