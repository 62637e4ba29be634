//! Dumps that others made with `pg_dump` and `pg_dumpall`, in all formats, restored into a scratch engine.
//!
//! Archives (custom, directory, tar) are restored by `pg_restore`, as a person would; SQL is played by [`play`], because
//! psql would run whatever a dump tells it to. What lies around a dump (gzip and its like) is opened by the system's own
//! programs inside the sandbox. Everything is restored from a copy of the stored bytes that was made and hashed in one
//! reading.
//!
//! In the sandbox: `stored…` the bytes as they lie, `opened` the dump itself, `pg-N` the N-th engine with its socket.

mod decrypt;
mod examine;
mod play;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use seaworthy_interface::{
    Adopted, AdoptedRestore, Cx, Damage, DriverError, ErrorKind, Exec, ExecOutcome, Fetched, Sandbox,
};
use seaworthy_model::adopt::AdoptedSet;
use seaworthy_model::adopt::recognise::{DumpHead, Payload, Wrapping};
use seaworthy_model::adopt::said::{self, Said};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::witness::postgres::printable;

pub use self::decrypt::Opening;
use self::examine::{Contents, Restore, Scope};
use self::play::play;
use super::MAJOR_MAX;
use super::names::{conninfo_value, identifier, literal};
use super::restore::{
    Filled, PORT, SOCKET_PATH_MAX, begin_engine, ended_well, environment, exec, prove_fresh, room, started,
};
use super::restored::RestoredPostgres;
use super::session::{Address, Session, text};
use super::tools::{self, Tool, argument};
use crate::source::blocking::blocking;
use crate::source::lying;

/// Most wrappings around one another.
const WRAPPINGS_MAX: usize = 4;
/// Most bytes of a list of an archive's contents.
const LIST_BYTES_MAX: usize = 256 << 20;
/// Most bytes kept of what `pg_restore` says: every error counts, so that what is dropped is one.
const SAID_BYTES_MAX: usize = 4 << 20;
/// Superuser of a scratch engine: the name that most servers are born with, so that what it owns has its owner.
const BOOTSTRAP_ROLE: &str = "postgres";
/// The database that a dump without one of its own is restored to.
const DATABASE: &str = "restored";
/// The database in which the definitions are tried first, to learn which roles they name.
const REHEARSAL: &str = "rehearsal";
/// The end of every file of rows of a directory archive that is not compressed.
const ROWS_END: &[u8] = b"\\.\n\n\n";

/// One dump of an adopted set.
#[derive(Debug)]
pub struct AdoptedDump {
    set: AdoptedSet,
    path: PathBuf,
    programs: Vec<PathBuf>,
    opening: Option<Opening>,
    fetched: Mutex<Option<Opened>>,
    attempts: AtomicU32,
}

/// The dump in the sandbox.
#[derive(Debug, Clone)]
struct Opened {
    /// The stored bytes.
    stored: PathBuf,
    /// The dump; `stored` itself where nothing lies around it.
    dump: PathBuf,
    wrappings: Vec<Wrapping>,
    payload: Payload,
    head: DumpHead,
    /// Why it could not be opened, after it was damaged.
    fault: Option<(FindingCode, String)>,
}

/// The programs that open a wrapping, and the end of a name by which they know it.
fn opener(wrapping: Wrapping) -> Option<(&'static str, &'static [&'static str], &'static str)> {
    Some(match wrapping {
        Wrapping::Gzip => ("gzip", &["--decompress", "--keep", "--force"], ".gz"),
        Wrapping::Zstd => ("zstd", &["--decompress", "--keep", "--force", "--quiet"], ".zst"),
        Wrapping::Xz => ("xz", &["--decompress", "--keep", "--force"], ".xz"),
        Wrapping::Bzip2 => ("bzip2", &["--decompress", "--keep", "--force"], ".bz2"),
        Wrapping::OpensslSalted | Wrapping::OpenPgpPassphrase | Wrapping::OpenPgpKey | Wrapping::Age => {
            return None;
        }
    })
}

/// Where a program of the system is.
fn program(name: &str) -> Result<String, DriverError> {
    for directory in ["/usr/bin", "/bin", "/usr/local/bin"] {
        let path = Path::new(directory).join(name);
        if path.is_file() {
            return argument(&path);
        }
    }
    Err(environment(FindingCode::EnvBinary, ErrorKind::Unsupported, format!("find the program {name}"))
        .hint(format!("install the package of {name}")))
}

/// The end of a program that opens a wrapping, as an error unless it was a success.
fn opened_well(outcome: &ExecOutcome, program: &str) -> Result<(), DriverError> {
    if outcome.status == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&outcome.stderr);
    let line = printable(said.lines().last().unwrap_or("it said nothing").trim());
    let context = format!("open the copy: {program}: status {}: {line}", outcome.status);
    if said.contains("No space left on device") {
        return Err(environment(FindingCode::EnvDisk, ErrorKind::Exhausted, context));
    }
    if outcome.status == 126 || outcome.status == 127 || outcome.status >= 128 {
        return Err(environment(FindingCode::EnvOther, ErrorKind::Other, context));
    }
    let lower = said.to_lowercase();
    let is_cut = ["unexpected end", "ends unexpectedly", "premature", "unexpected eof", "read error (39)"];
    let code = if is_cut.iter().any(|words| lower.contains(words)) {
        FindingCode::ArchiveTruncated
    } else {
        FindingCode::ObjectDamaged
    };
    Err(DriverError::new(ErrorKind::Corrupt, context).code(code))
}

impl AdoptedDump {
    /// The dump at `path`, of `set`. `programs` are directories in which PostgreSQL's programs are looked for besides
    /// the usual ones; `opening` opens a copy that is encrypted.
    #[must_use]
    pub fn new(set: AdoptedSet, path: PathBuf, programs: Vec<PathBuf>, opening: Option<Opening>) -> Self {
        let mut directories: Vec<PathBuf> = set.bin_dir.iter().map(PathBuf::from).collect();
        directories.extend(programs);
        Self {
            set,
            path,
            programs: directories,
            opening,
            fetched: Mutex::default(),
            attempts: AtomicU32::new(0),
        }
    }

    fn held(&self) -> Result<Opened, DriverError> {
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fetched.ok_or_else(|| DriverError::new(ErrorKind::Other, "restore a copy that was not fetched"))
    }

    fn opened(&self) -> Result<Opened, DriverError> {
        let opened = self.held()?;
        match opened.fault {
            Some((code, words)) => Err(DriverError::new(ErrorKind::Corrupt, words).code(code)),
            None => Ok(opened),
        }
    }

    /// Opens what lies around the dump, layer by layer, and looks at what it is.
    async fn open(&self, cx: &Cx, sandbox: &dyn Sandbox, stored: PathBuf) -> Result<Opened, DriverError> {
        let root = sandbox.root().to_path_buf();
        let (mut dump, mut wrappings) = (stored.clone(), Vec::new());
        loop {
            if dump.is_dir() {
                let head = lying::head(&dump.join("toc.dat"))?;
                if !head.starts_with(b"PGDMP") {
                    return Err(DriverError::new(
                        ErrorKind::Corrupt,
                        "read toc.dat: it is none of pg_dump's",
                    )
                    .code(FindingCode::ObjectDamaged));
                }
                rows_are_whole(&dump)?;
                let head = DumpHead::of(&head);
                return Ok(Opened {
                    stored,
                    dump,
                    wrappings,
                    payload: Payload::PgDirectory,
                    head,
                    fault: None,
                });
            }
            let first = lying::head(&dump)?;
            if first.is_empty() {
                return Err(DriverError::new(ErrorKind::Corrupt, "open the copy: it has 0 bytes")
                    .code(FindingCode::PointImplausible));
            }
            if let Some(payload) = Payload::of(&first) {
                return match payload {
                    Payload::PgCustom | Payload::PgTar | Payload::PgPlain => Ok(Opened {
                        stored,
                        dump,
                        wrappings,
                        payload,
                        head: DumpHead::of(&first),
                        fault: None,
                    }),
                    Payload::PgDirectory
                    | Payload::Sqlite
                    | Payload::SqliteSql
                    | Payload::MysqlSql
                    | Payload::Tar
                    | Payload::Restic
                    | Payload::Borg => Err(DriverError::new(
                        ErrorKind::Corrupt,
                        format!("open the copy: it is no dump of PostgreSQL but: {}", payload.word()),
                    )
                    .code(FindingCode::ObjectSwapped)),
                };
            }
            let Some(wrapping) = Wrapping::of(&first) else {
                // A dump whose first bytes are gone is as little a dump as one that never was one.
                return Err(DriverError::new(
                    ErrorKind::Corrupt,
                    "open the copy: its first bytes are those of no dump that is known",
                )
                .code(FindingCode::ObjectDamaged));
            };
            if wrappings.len() >= WRAPPINGS_MAX {
                return Err(DriverError::new(
                    ErrorKind::Corrupt,
                    "open the copy: it is wrapped more than 4 times",
                )
                .code(FindingCode::LimitExceeded));
            }
            // The program finds the name of what it makes by the end of the name of what it opens.
            let made = root.join(format!("opened-{}", wrappings.len()));
            let failed = |error| DriverError::io("open the copy", error);
            if made.exists() {
                std::fs::remove_file(&made).map_err(failed)?;
            }
            let is_stored = dump == stored;
            let Some((name, options, end)) = opener(wrapping) else {
                let Some(opening) = &self.opening else {
                    return Err(DriverError::new(
                        ErrorKind::Unauthenticated,
                        format!("open the copy: it is encrypted ({})", wrapping.word()),
                    )
                    .code(FindingCode::WrongKey)
                    .hint("name its passphrase or private key with `decrypt` in the set's configuration"));
                };
                decrypt::open(cx, sandbox, wrapping, opening, &dump, &made).await?;
                if !is_stored {
                    std::fs::remove_file(&dump).map_err(failed)?;
                }
                dump = made;
                wrappings.push(wrapping);
                continue;
            };
            let wrapped = root.join(format!("opened-{}{end}", wrappings.len()));
            std::fs::rename(&dump, &wrapped).map_err(failed)?;
            let path = program(name)?;
            let file = argument(&wrapped)?;
            let mut arguments = vec![path.as_str()];
            arguments.extend(options);
            arguments.push(&file);
            let outcome = sandbox.exec(cx, exec(&arguments, &root, &[])?).await.map_err(room);
            if is_stored {
                std::fs::rename(&wrapped, &stored).map_err(failed)?;
            } else {
                std::fs::remove_file(&wrapped).map_err(failed)?;
            }
            opened_well(&outcome?, name)?;
            dump = made;
            wrappings.push(wrapping);
        }
    }
}

/// Whether the files of rows in a directory archive have their ends, where they are not compressed: `pg_restore` takes what
/// there is for all there was.
fn rows_are_whole(directory: &Path) -> Result<(), DriverError> {
    for (name, path) in lying::parts(directory)? {
        let is_rows =
            name.strip_suffix(".dat").is_some_and(|stem| stem.bytes().all(|byte| byte.is_ascii_digit()));
        if is_rows && !ends_with(&path, ROWS_END)? {
            return Err(DriverError::new(
                ErrorKind::Corrupt,
                format!("read `{name}` of the dump: it ends inside its rows"),
            )
            .code(FindingCode::ArchiveTruncated));
        }
    }
    Ok(())
}

fn ends_with(path: &Path, end: &[u8]) -> Result<bool, DriverError> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let failed = |error| DriverError::io(format!("read `{}`", path.display()), error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length < end.len() as u64 {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(length - end.len() as u64)).map_err(failed)?;
    let mut found = Vec::new();
    file.read_to_end(&mut found).map_err(failed)?;
    Ok(found == end)
}

#[async_trait]
impl Adopted for AdoptedDump {
    fn checks(&self) -> Vec<String> {
        examine::CHECKS.iter().map(|name| (*name).to_owned()).collect()
    }

    async fn fetch(&self, cx: &Cx, into: Arc<dyn Sandbox>) -> Result<Fetched, DriverError> {
        let stored = into.root().join("stored");
        let (from, target) = (self.path.clone(), stored.clone());
        let hashed = blocking(cx, move |watch| lying::read(&from, Some(&target), watch)).await?;
        into.own(cx, &stored).await?;
        let opened = self.open(cx, &*into, stored).await?;
        let head = opened.head.clone();
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(Fetched { bytes: hashed.bytes, sha256: hashed.sha256, head })
    }

    async fn restore(&self, cx: &Cx, into: Arc<dyn Sandbox>) -> Result<Box<dyn AdoptedRestore>, DriverError> {
        let opened = self.opened()?;
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        let root = into.root().to_path_buf();
        if let Some(before) = attempt.checked_sub(1) {
            let before = root.join(format!("pg-{before}"));
            blocking(cx, move |_| {
                std::fs::remove_dir_all(&before)
                    .map_err(|error| DriverError::io("remove the first restore", error))
            })
            .await?;
        }
        let place = root.join(format!("pg-{attempt}"));
        std::fs::create_dir(&place).map_err(|error| DriverError::io("make a place for the engine", error))?;
        into.own(cx, &place).await?;
        let socket = place.join(format!(".s.PGSQL.{PORT}"));
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(environment(
                FindingCode::EnvOther,
                ErrorKind::Unsupported,
                format!("make a socket below {}", place.display()),
            )
            .hint("the scratch directory's path must be shorter"));
        }
        let missing = FindingCode::EnvBinary;
        let major = opened.head.server_major().unwrap_or(super::MAJOR_MIN).clamp(super::MAJOR_MIN, MAJOR_MAX);
        let engine = tools::find(cx, Tool::Postgres, major..=MAJOR_MAX, &self.programs, missing).await?;
        let address = Address {
            host: argument(&place)?,
            port: PORT,
            user: BOOTSTRAP_ROLE.to_owned(),
            database: "template1".to_owned(),
            password: None,
        };
        let mut process = begin_engine(cx, &engine, BOOTSTRAP_ROLE, &*into, &place).await?;
        let filled = async {
            let session = started(cx, &address, &mut process).await?;
            let identity = prove_fresh(cx, &session, None).await?;
            let version = text(
                &session.row(cx, "ask the version", "SELECT current_setting('server_version')").await?,
                0,
            )?;
            let filling = Filling {
                dump: self,
                opened: &opened,
                sandbox: &*into,
                address: &address,
                session: &session,
            };
            let contents = filling.fill(cx, engine.version.major).await?;
            Ok::<_, DriverError>((Filled { identity, version, findings: Vec::new() }, contents))
        }
        .await;
        match filled {
            Ok((filled, contents)) => {
                let mut findings = Vec::new();
                if opened.wrappings.contains(&Wrapping::OpensslSalted) {
                    findings.push(Finding::new(
                        FindingCode::Unauthenticated,
                        "copy",
                        "`openssl enc` in CBC mode does not notice changed bytes; a digest that is signed would",
                    ));
                }
                if !contents.roles.is_empty() {
                    let names: Vec<String> =
                        contents.roles.iter().take(8).map(|role| printable(role)).collect();
                    findings.push(Finding::new(
                        FindingCode::RolesAbsent,
                        "roles",
                        format!(
                            "{} named and not in the dump, made for the drill: {}{}",
                            contents.roles.len(),
                            names.join(", "),
                            if contents.roles.len() > names.len() { ", …" } else { "" }
                        ),
                    ));
                }
                let dumped_from = opened.head.server_version.clone();
                let main = contents.databases.last().cloned().unwrap_or_else(|| DATABASE.to_owned());
                let inside = Address { database: main, ..address.clone() };
                let scope = Scope {
                    without_rows: self.set.without_rows.clone(),
                    may_be_empty: self.set.may_be_empty,
                };
                // The point only bounds what counts as data of the past; the caller says it with each question.
                let restored =
                    RestoredPostgres::new(Arc::clone(&into), process, inside, jiff::Timestamp::MAX, filled);
                Ok(Box::new(Restore { restored, address, contents, scope, findings, dumped_from }))
            }
            Err(error) => {
                // The sandbox kills what is left; asking first keeps the engine from writing while it is removed.
                let stopped = process.stop(&Cx::unbounded(), 3, Duration::from_secs(2)).await;
                Err(if stopped.is_err() {
                    error.hint("the scratch engine did not stop; its sandbox ends it")
                } else {
                    error
                })
            }
        }
    }

    async fn damage(&self, cx: &Cx, within: Arc<dyn Sandbox>, seed: u64) -> Result<Damage, DriverError> {
        let opened = self.held()?;
        let (stored, wrappings, payload) = (opened.stored.clone(), opened.wrappings.clone(), opened.payload);
        let description =
            blocking(cx, move |_| ruin(&stored, wrappings.first().copied(), payload, seed)).await?;
        let expected = vec![
            FindingCode::ObjectDamaged,
            FindingCode::ObjectMissing,
            FindingCode::ArchiveTruncated,
            FindingCode::StreamUnfinished,
            FindingCode::PointImplausible,
            FindingCode::RelationMissing,
            FindingCode::RowCount,
        ];
        // Opening it is the first step of restoring it: where that fails, restoring says so.
        let opened = match self.open(cx, &*within, opened.stored.clone()).await {
            Ok(opened) => opened,
            Err(error) => match error.code {
                Some(code) if expected.contains(&code) => {
                    Opened { fault: Some((code, error.to_string())), ..opened }
                }
                _ => return Err(error),
            },
        };
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        // What is stored was damaged: whatever of the restore notices has noticed it.
        Ok(Damage { description, expected, checks: Vec::new() })
    }
}

/// One number after another from a seed (SplitMix64): a damage must be repeatable from the receipt.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Damages the stored bytes where no whole copy can hide it, and says how.
///
/// A cut of SQL, of a stream that is compressed, or of a custom archive is always a loss. The tar format ends with blocks that
/// nothing reads, so it is cut inside its table of contents. Of a directory a file is taken away. A flipped bit is chosen only
/// where a checksum covers it: in a row of SQL it would be another row.
fn ruin(stored: &Path, outer: Option<Wrapping>, payload: Payload, seed: u64) -> Result<String, DriverError> {
    use std::os::unix::fs::FileExt as _;
    let failed = |error| DriverError::io("damage the copy", error);
    let number = mixed(seed);
    if stored.is_dir() {
        let parts = lying::parts(stored)?;
        let parts: Vec<_> = parts.iter().filter(|(name, _)| !name.starts_with("blob")).collect();
        let index = usize::try_from(number % parts.len().max(1) as u64).unwrap_or(0);
        let (name, path) =
            parts.get(index).ok_or_else(|| DriverError::new(ErrorKind::Other, "damage nothing"))?;
        std::fs::remove_file(path).map_err(failed)?;
        return Ok(format!("took the file {} away from the dump", printable(name)));
    }
    let file = std::fs::File::options().read(true).write(true).open(stored).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let is_checked = matches!(outer, Some(Wrapping::Gzip | Wrapping::Xz | Wrapping::Bzip2));
    if is_checked && length > 1024 && seed % 2 == 1 {
        // The middle half: heads hold fields that nothing checks.
        let at = length / 4 + number % (length / 2);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).map_err(failed)?;
        byte[0] ^= 0x10;
        file.write_all_at(&byte, at).map_err(failed)?;
        return Ok(format!("flipped a bit in byte {at} of {length} of the copy"));
    }
    let most = match (outer, payload) {
        (None, Payload::PgTar) => 512 + (length / 64).clamp(64, 1024),
        // The last lines of a script are of no use to it.
        (None, Payload::PgPlain) => length.saturating_sub(256).max(length / 2),
        _ => length,
    };
    let mut keep = 1 + number % most.saturating_sub(1).max(1);
    if outer == Some(Wrapping::OpensslSalted) {
        // Cut between two blocks it could be taken for another passphrase's work.
        keep |= 1;
    }
    file.set_len(keep).map_err(failed)?;
    Ok(format!("cut the copy after {keep} of {length} bytes"))
}

/// What a scratch engine is filled from, and by what.
struct Filling<'a> {
    dump: &'a AdoptedDump,
    opened: &'a Opened,
    sandbox: &'a dyn Sandbox,
    address: &'a Address,
    session: &'a Session,
}

impl Filling<'_> {
    async fn fill(&self, cx: &Cx, server: u32) -> Result<Contents, DriverError> {
        cx.phase("restore");
        match self.opened.payload {
            Payload::PgPlain => self.plain(cx).await,
            _ => self.archive(cx, server).await,
        }
    }

    /// Makes a database with an encoding, and with the locale that every system has.
    async fn make_database(&self, cx: &Cx, name: &str, encoding: Option<&str>) -> Result<(), DriverError> {
        let encoding = encoding.unwrap_or("UTF8");
        let kinds: &[&str] = if encoding.eq_ignore_ascii_case("UTF8") { &["C.UTF-8", "C"] } else { &["C"] };
        let mut last = None;
        for kind in kinds {
            let sql = format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE {}",
                identifier(name),
                literal(encoding),
                literal(kind)
            );
            match self.session.execute(cx, "make the scratch database", &sql).await {
                Ok(()) => return Ok(()),
                Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last
            .unwrap_or_else(|| DriverError::new(ErrorKind::Other, "make the scratch database"))
            .code(FindingCode::EnvLocale))
    }

    async fn plain(&self, cx: &Cx) -> Result<Contents, DriverError> {
        self.make_database(cx, DATABASE, self.opened.head.encoding.as_deref()).await?;
        let inside = Address { database: DATABASE.to_owned(), ..self.address.clone() };
        let played = play(cx, &self.opened.dump, &inside).await?;
        played.result()?;
        Ok(Contents::of_script(played))
    }

    async fn archive(&self, cx: &Cx, server: u32) -> Result<Contents, DriverError> {
        let made_by = self.opened.head.dump_major().unwrap_or(server).clamp(super::MAJOR_MIN, MAJOR_MAX);
        let least = made_by.max(server);
        let missing = FindingCode::EnvBinary;
        let pg_restore =
            tools::find(cx, Tool::PgRestore, least..=MAJOR_MAX, &self.dump.programs, missing).await?;
        let archive = argument(&self.opened.dump)?;
        let program = pg_restore.argument()?;
        let root = self.sandbox.root();

        let listed =
            Exec { output_bytes_max: LIST_BYTES_MAX, ..exec(&[&program, "--list", &archive], root, &[])? };
        let outcome = self.sandbox.exec(cx, listed).await.map_err(room)?;
        judged(&outcome, "list the archive")?;
        let list = String::from_utf8_lossy(&outcome.stdout).into_owned();

        let definitions = root.join("definitions.sql");
        let file = format!("--file={}", argument(&definitions)?);
        let wanted = exec(
            &[&program, "--schema-only", "--no-tablespaces", "--no-subscriptions", &file, &archive],
            root,
            &[],
        )?;
        let outcome = self.sandbox.exec(cx, wanted).await.map_err(room)?;
        judged(&outcome, "read the archive's definitions")?;
        let encoding = DumpHead::of(&lying::head(&definitions)?).encoding;
        self.make_database(cx, REHEARSAL, encoding.as_deref()).await?;
        let rehearsal = Address { database: REHEARSAL.to_owned(), ..self.address.clone() };
        let rehearsed = play(cx, &definitions, &rehearsal).await?;
        if rehearsed.environment.is_some() {
            rehearsed.result()?;
        }
        let roles = rehearsed.roles;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", identifier(REHEARSAL));
        self.session.execute(cx, "drop the rehearsal", &drop).await?;

        self.make_database(cx, DATABASE, encoding.as_deref()).await?;
        let dbname = format!("--dbname=dbname={}", conninfo_value(DATABASE));
        let mut arguments = vec![program.as_str(), "--no-password", "--no-tablespaces", "--no-subscriptions"];
        if self.opened.payload != Payload::PgTar {
            arguments.push("--jobs=2");
        }
        arguments.extend([dbname.as_str(), &archive]);
        let settings = [
            ("PGHOST", self.address.host.as_str()),
            ("PGPORT", &PORT.to_string()),
            ("PGUSER", &self.address.user),
        ];
        let run = Exec { output_bytes_max: SAID_BYTES_MAX, ..exec(&arguments, root, &settings)? };
        let outcome = self.sandbox.exec(cx, run).await.map_err(room)?;
        judged(&outcome, "restore the archive")?;
        Ok(Contents::of_archive(DATABASE, &list, roles))
    }
}

/// The end of `pg_restore` as an error, unless all that it complained of is harmless.
fn judged(outcome: &ExecOutcome, what: &str) -> Result<(), DriverError> {
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    let complaints = said::complaints(&stderr);
    let (mut wrong, mut lacking) = (None, None);
    let mut count = 0;
    for complaint in &complaints {
        match said::judge(None, &complaint.message, &complaint.statement) {
            Said::Harmless(_) => continue,
            Said::Damaged(code) => {
                let context = format!("{what}: {}", told(&complaint.message));
                return Err(DriverError::new(ErrorKind::Corrupt, context).code(code));
            }
            Said::Environment(code, hint) => {
                lacking.get_or_insert((code, hint, told(&complaint.message)));
            }
            Said::Role(_) | Said::Wrong => {
                wrong.get_or_insert_with(|| told(&complaint.message));
            }
        }
        count += 1;
    }
    if let Some((code, hint, words)) = lacking {
        let context = format!("{what}: {words} ({count} errors in all)");
        return Err(environment(code, ErrorKind::Unsupported, context).hint(hint));
    }
    if let Some(words) = wrong {
        let context = format!("{what}: {count} errors, the first: {words}");
        return Err(DriverError::new(ErrorKind::Corrupt, context).code(FindingCode::RelationMissing));
    }
    if outcome.status == 0 {
        return Ok(());
    }
    // A status that no complaint explains: only where each was harmless, was said, and the end was reached.
    let is_explained = outcome.status == 1
        && outcome.dropped_bytes == 0
        && !complaints.is_empty()
        && stderr.contains("errors ignored on restore: ");
    if is_explained { Ok(()) } else { ended_well(outcome, what, FindingCode::RelationMissing) }
}

/// What may be told of a complaint: where it is about rows, only which table's.
fn told(message: &str) -> String {
    let about_rows = message.strip_prefix("COPY failed for table ").and_then(|rest| rest.split_once(": "));
    printable(&match about_rows {
        Some((table, _)) => format!("COPY failed for table {table}"),
        None => message.chars().take(300).collect::<String>(),
    })
}
