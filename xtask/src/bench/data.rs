//! The data that is measured on: made once per scale, kept between runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use seaworthy_testkit::components;
use seaworthy_testkit::estate::{self, Dice};

use crate::process::{self, Echo};

/// One data set. The letters are those of the project's earlier measurements; c is b under load and not used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Set {
    /// About 52,000 files, 2 GB: a third text, a third binaries, a third that does not compress.
    #[value(name = "a")]
    Mixed,
    /// The directory of a stopped PostgreSQL server, 2 GB of pgbench tables.
    #[value(name = "b")]
    Database,
    /// 100,000 files of 1 to 4 KiB.
    #[value(name = "d")]
    Small,
    /// A PostgreSQL server that runs: for the whole product, not for the engine alone.
    #[value(name = "l")]
    Live,
    /// Very many files for the product, very many blobs for the engine: for memory alone.
    #[value(name = "m")]
    Many,
    /// A repository that is replicated into object stores.
    #[value(name = "r")]
    Stores,
    /// A PostgreSQL cluster that runs, as it lies on disk.
    #[value(name = "p")]
    Cluster,
}

impl Set {
    /// Its letter.
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::Mixed => "a",
            Self::Database => "b",
            Self::Small => "d",
            Self::Live => "l",
            Self::Many => "m",
            Self::Stores => "r",
            Self::Cluster => "p",
        }
    }
}

/// What the changed pages of the database compress to with zstd, level 3.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangedPages {
    /// All of them as one stream: a bound that no tool reaches that stores pieces.
    pub(super) stream_bytes: u64,
    /// Each page alone.
    pub(super) alone_bytes: u64,
}

/// A data set on disk.
#[derive(Debug)]
pub(super) struct Data {
    /// Which one.
    pub(super) set: Set,
    /// Its root.
    pub(super) path: PathBuf,
    /// How many files it has.
    pub(super) files: u64,
    bytes: u64,
}

const PAGE_BYTES: u64 = 8192;
/// 20 min: pgbench at a large scale on a slow disk.
const LOAD_LIMIT: Duration = Duration::from_secs(1200);

type Failure = Box<dyn std::error::Error>;

/// The data set at this scale; made when it is not there yet, or not whole.
pub(super) fn provide(set: Set, scale: f64, work: &Path) -> Result<Data, Failure> {
    let name = format!("{}-{scale}", set.letter());
    let path = work.join("data").join(&name);
    let complete = work.join("data").join(format!("{name}.complete"));
    if !complete.exists() {
        println!("   making data set {name} in {}", path.display());
        super::empty(&path)?;
        match set {
            Set::Mixed => {
                estate::mixed_tree(&path, scaled(52_516, scale), scaled(2_140_000_000, scale), 1)?;
            }
            Set::Small => {
                estate::small_files(&path, scaled(100_000, scale), 1)?;
            }
            Set::Database => database(&path, scale, work)?,
            Set::Live | Set::Many | Set::Stores | Set::Cluster => {
                return Err("this set has no files to give to others".into());
            }
        }
        File::create(&complete)?.sync_all()?;
    }
    let mut data = Data { set, path, files: 0, bytes: 0 };
    for size in files_below(&data.path)?.values() {
        data.files += 1;
        data.bytes += size;
    }
    Ok(data)
}

fn scaled(whole: u64, scale: f64) -> u64 {
    ((whole as f64) * scale).round().max(1.0) as u64
}

/// A throw-away server, filled by pgbench and stopped. Not the same bytes every time: the server writes times and its
/// own identifier. Its tables are the same.
fn database(path: &Path, scale: f64, work: &Path) -> Result<(), Failure> {
    let programs = components::postgres_bin()?;
    let pgbench = components::program("pgbench")?;
    let user = ServerUser::find()?;
    user.owns(path)?;
    let sockets = work.join("sockets");
    super::empty(&sockets)?;
    user.owns(&sockets)?;
    let run = |program: &Path, arguments: &[&str]| -> Result<(), Failure> {
        let mut command = user.command(program);
        command.args(arguments).current_dir("/").env("LC_ALL", "C");
        let ran = process::run_keeping_servers(&mut command, LOAD_LIMIT, Echo::Quiet)?;
        if ran.is_success() {
            Ok(())
        } else {
            Err(format!("{} {}: {}", program.display(), ran.describe(), process::last_lines(&ran.output, 3))
                .into())
        }
    };
    let (data, socket) = (path.to_string_lossy(), sockets.to_string_lossy());
    run(&programs.join("initdb"), &["-D", &data, "-A", "trust", "-U", "bench", "-N", "--encoding=UTF8"])?;
    let log = sockets.join("server.log");
    let settings = format!(
        "-k {socket} -c listen_addresses= -c fsync=off -c shared_buffers=256MB -c max_wal_size=512MB -c autovacuum=off"
    );
    run(
        &programs.join("pg_ctl"),
        &["-D", &data, "-w", "-t", "60", "-l", &log.to_string_lossy(), "-o", &settings, "start"],
    )?;
    // pgbench's scale 1 is about 15 MB of tables and indexes.
    let factor = scaled(130, scale).to_string();
    let loaded = run(&pgbench, &["-h", &socket, "-U", "bench", "-i", "-q", "-s", &factor, "postgres"])
        .and_then(|()| {
            run(
                &pgbench,
                &["-h", &socket, "-U", "bench", "-n", "-c", "2", "-t", "5000", "--random-seed=1", "postgres"],
            )
        });
    let stopped = run(&programs.join("pg_ctl"), &["-D", &data, "-w", "-t", "300", "-m", "fast", "stop"]);
    loaded?;
    stopped
}

/// The user that a server runs as: ourselves, or `postgres` when we are root, because servers refuse root.
struct ServerUser {
    name: Option<&'static str>,
}

impl ServerUser {
    fn find() -> Result<Self, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { name: None });
        }
        let passwd = fs::read_to_string("/etc/passwd")?;
        if passwd.lines().any(|line| line.starts_with("postgres:")) {
            Ok(Self { name: Some("postgres") })
        } else {
            Err("running as root, and there is no user `postgres` to run a server as: install postgresql"
                .into())
        }
    }

    fn owns(&self, path: &Path) -> Result<(), Failure> {
        let Some(name) = self.name else { return Ok(()) };
        process::capture("chown", &[name, &path.to_string_lossy()], Duration::from_secs(30))?;
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        match self.name {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", name, "--regid", name, "--clear-groups", "--"]).arg(program);
                command
            }
        }
    }
}

impl Data {
    /// In words, with its real size.
    pub(super) fn describe(&self) -> String {
        let what = match self.set {
            Set::Mixed => "mixed files, a third each text, binaries and incompressible",
            Set::Database => "directory of a stopped PostgreSQL server with pgbench tables",
            Set::Small => "files of 1 to 4 KiB of text",
            Set::Live => "a live PostgreSQL database",
            Set::Many => "very many files and blobs",
            Set::Stores => "a repository that is replicated",
            Set::Cluster => "a live PostgreSQL cluster as it lies on disk",
        };
        format!("{} {what}: {} files, {:.2} GB", self.set.letter(), self.files, self.bytes as f64 / 1e9)
    }

    /// Reads everything once, so that names and bytes are in memory.
    pub(super) fn warm(&self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        for name in files_below(&self.path)?.keys() {
            let mut file = File::open(self.path.join(name))?;
            while file.read(&mut buffer)? > 0 {}
        }
        Ok(())
    }

    /// Changes 1 % of the pages of every relation of at least 1 MiB, in place; doing it again undoes it. Returns what the
    /// changed pages compress to.
    pub(super) fn change_one_percent(&self) -> io::Result<ChangedPages> {
        let mut dice = Dice::new(99);
        let (mut pages, mut changed) = (0, 0);
        let mut stream = zstd::stream::Encoder::new(Counter::default(), 3)?;
        let mut alone = 0;
        let base = self.path.join("base");
        for (name, size) in files_below(&base)? {
            // Small relations are catalogues, and other files are not made of pages.
            if size < 1 << 20 || size % PAGE_BYTES != 0 {
                continue;
            }
            let path = base.join(name);
            let numbers = estate::change_pages(&path, PAGE_BYTES, 1.0, &mut dice)?;
            pages += size / PAGE_BYTES;
            changed += numbers.len();
            let file = File::open(&path)?;
            let mut page = vec![0; PAGE_BYTES as usize];
            for number in numbers {
                file.read_exact_at(&mut page, number * PAGE_BYTES)?;
                stream.write_all(&page)?;
                alone += zstd::bulk::compress(&page, 3)?.len() as u64;
            }
        }
        let compressed = ChangedPages { stream_bytes: stream.finish()?.bytes, alone_bytes: alone };
        println!(
            "   changed {changed} of {pages} pages of 8 KiB; they compress to {} bytes one by one, {} as one stream",
            compressed.alone_bytes, compressed.stream_bytes
        );
        Ok(compressed)
    }

    /// Compares a restore with the data. Tools restore below the whole original path or below its last part; the deepest
    /// directory that holds what we look for is found.
    pub(super) fn differs_from(&self, restored: &Path) -> io::Result<Option<String>> {
        let Some(found) = beginning(restored, &self.path)? else {
            return Ok(Some("the restore is empty".to_owned()));
        };
        let (want, have) = (files_below(&self.path)?, files_below(&found)?);
        if let Some(name) = want.keys().find(|name| !have.contains_key(*name)) {
            return Ok(Some(format!("not restored: {}", name.display())));
        }
        if let Some(name) = have.keys().find(|name| !want.contains_key(*name)) {
            return Ok(Some(format!("restored, but never there: {}", name.display())));
        }
        for name in want.keys() {
            if !is_equal(&self.path.join(name), &found.join(name))? {
                return Ok(Some(format!("restored with other content: {}", name.display())));
            }
        }
        Ok(None)
    }
}

/// Counts what is written into it.
#[derive(Debug, Default)]
struct Counter {
    bytes: u64,
}

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the data begins below `restored`: `restored/<whole path>`, `restored/<last part>`, or `restored` itself.
fn beginning(restored: &Path, original: &Path) -> io::Result<Option<PathBuf>> {
    let relative = original.strip_prefix("/").unwrap_or(original);
    let mut candidates = vec![restored.join(relative)];
    if let Some(name) = original.file_name() {
        candidates.push(restored.join(name));
    }
    if let Some(found) = candidates.into_iter().find(|candidate| candidate.is_dir()) {
        return Ok(Some(found));
    }
    let is_empty = fs::read_dir(restored)?.next().is_none();
    Ok((!is_empty).then(|| restored.to_path_buf()))
}

fn is_equal(one: &Path, other: &Path) -> io::Result<bool> {
    if fs::metadata(one)?.len() != fs::metadata(other)?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

/// Every regular file below `root`, relative, with its size.
fn files_below(root: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let data = entry.metadata()?;
            if data.is_dir() {
                open.push(entry.path());
            } else if data.is_file() {
                let path = entry.path();
                found.insert(path.strip_prefix(root).unwrap_or(&path).to_path_buf(), data.len());
            }
        }
    }
    Ok(found)
}

/// Bytes of all files of a repository.
pub(super) fn size_of(root: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let data = entry.metadata()?;
            if data.is_dir() {
                open.push(entry.path());
            } else {
                total += data.size();
            }
        }
    }
    Ok(total)
}

/// How long a file must have been left alone before a backup for the next one to take it over unread: our engine's rule, with a second more.
const SETTLED: Duration = Duration::from_secs(61);

/// Waits until everything below a directory has been left alone for so long: what a tool measures of a backup of unchanged data is otherwise
/// that of data that were made a moment ago.
pub(super) fn settle(root: &Path) -> io::Result<()> {
    let mut newest = 0;
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            newest = newest.max(metadata.ctime());
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    let changed = std::time::UNIX_EPOCH + Duration::from_secs(newest.try_into().unwrap_or(0));
    let age = changed.elapsed().unwrap_or_default();
    if let Some(left) = SETTLED.checked_sub(age) {
        println!("   the data are left alone for {} s", left.as_secs());
        std::thread::sleep(left);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (tempfile::TempDir, Data) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data/x");
        fs::create_dir_all(path.join("inner")).unwrap();
        fs::write(path.join("one"), "1").unwrap();
        fs::write(path.join("inner/two"), "22").unwrap();
        (place, Data { set: Set::Small, path, files: 2, bytes: 3 })
    }

    fn restored(data: &Data, below: &Path) -> PathBuf {
        let target = below.join(data.path.strip_prefix("/").unwrap());
        fs::create_dir_all(target.join("inner")).unwrap();
        fs::write(target.join("one"), "1").unwrap();
        fs::write(target.join("inner/two"), "22").unwrap();
        target
    }

    #[test]
    fn a_wrong_restore_does_not_count() {
        let (place, data) = sample();
        let below = place.path().join("restored");
        let target = restored(&data, &below);
        assert_eq!(data.differs_from(&below).unwrap(), None);
        fs::write(target.join("inner/two"), "2x").unwrap();
        assert!(data.differs_from(&below).unwrap().unwrap().contains("other content"));
        fs::remove_file(target.join("inner/two")).unwrap();
        assert!(data.differs_from(&below).unwrap().unwrap().contains("not restored"));
        restored(&data, &below);
        fs::write(target.join("more"), "").unwrap();
        assert!(data.differs_from(&below).unwrap().unwrap().contains("never there"));
    }

    #[test]
    fn an_empty_restore_does_not_count() {
        let (place, data) = sample();
        let below = place.path().join("nothing");
        fs::create_dir(&below).unwrap();
        assert!(data.differs_from(&below).unwrap().is_some());
    }
}
