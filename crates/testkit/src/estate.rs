//! Deterministic sample data: file trees with every oddity, trees for measuring, live SQLite databases.
//!
//! The same seed makes the same bytes on every machine. What a file system or an ordinary user cannot have (extended
//! attributes, device nodes, other owners) is *returned* as left out, so that a test decides whether it may do without.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

/// A small generator of random numbers (SplitMix64): for sample data only, never for keys.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Starts the sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0. The bias is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.roll() % bound }
    }

    /// Fills with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.roll().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}

/// What kind of bytes a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texture {
    /// Words and numbers in lines, as in logs and source code: compresses to about a third or less.
    Text,
    /// Records with counters, repeated fields and random parts, as in programs and images of programs.
    Binary,
    /// Random bytes: does not compress.
    Random,
}

const WORDS: &[&str] = &[
    "anchor", "ballast", "beacon", "berth", "bilge", "bollard", "bow", "bulkhead", "buoy", "cabin",
    "capstan", "cargo", "chart", "compass", "course", "crew", "current", "davit", "deck", "draught",
    "fathom", "fender", "galley", "gangway", "halyard", "harbour", "hatch", "hawser", "helm", "hull", "keel",
    "knot", "lantern", "league", "leeward", "log", "mast", "mooring", "pilot", "porthole", "quay", "rigging",
    "rudder", "sextant", "sounding", "stern", "tide", "watch",
];

/// `size` bytes of `texture`.
#[must_use]
pub fn bytes(texture: Texture, size: usize, dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 64);
    match texture {
        Texture::Random => {
            out.resize(size, 0);
            dice.fill(&mut out);
        }
        Texture::Text => {
            while out.len() < size {
                let random = dice.roll();
                out.extend_from_slice(WORDS[(random % WORDS.len() as u64) as usize].as_bytes());
                match (random >> 32) % 16 {
                    0 => out.extend_from_slice(format!(" {:08}\n", (random >> 8) & 0xff_ffff).as_bytes()),
                    1 => out.extend_from_slice(format!("={}; ", (random >> 16) & 0xffff).as_bytes()),
                    _ => out.push(b' '),
                }
            }
        }
        Texture::Binary => {
            let mut counter = dice.roll() & 0xffff;
            while out.len() < size {
                let random = dice.roll();
                counter += random % 5;
                out.extend_from_slice(&counter.to_le_bytes());
                out.extend_from_slice(&[0x48, 0x8b, (random & 7) as u8, 0x24, 0, 0, 0, 0]);
                out.extend_from_slice(&random.to_le_bytes()[..((random >> 60) & 7) as usize + 1]);
            }
        }
    }
    out.truncate(size);
    out
}

/// Makes a tree that stands for a home directory or a server: `files` files of all three textures, `total_bytes` in all,
/// many small and few large.
///
/// A third of the bytes each. Returns the number of bytes written.
pub fn mixed_tree(root: &Path, files: u64, total_bytes: u64, seed: u64) -> io::Result<u64> {
    let mut dice = Dice::new(seed);
    fs::create_dir_all(root)?;
    // 1 in 512 files is large and takes half of the bytes: the shape of real trees, where few files hold most bytes.
    let large = files.div_ceil(512).max(3);
    let small = files.saturating_sub(large).max(1);
    let mut written = 0;
    for number in 0..files {
        let texture = [Texture::Text, Texture::Binary, Texture::Random][(number % 3) as usize];
        let is_large = number >= small;
        let mean = if is_large { total_bytes / 2 / large } else { total_bytes / 2 / small };
        // Between a half and one and a half of the mean.
        let size = mean / 2 + dice.below(mean + 1);
        let directory = root.join(format!("d{:02}", number / 997)).join(format!("s{:02}", number % 31));
        fs::create_dir_all(&directory)?;
        let extension = ["txt", "bin", "zip"][(number % 3) as usize];
        let mut file = File::create(directory.join(format!("f{number:06}.{extension}")))?;
        let mut left = size;
        while left > 0 {
            let part = left.min(4 << 20) as usize;
            file.write_all(&bytes(texture, part, &mut dice))?;
            left -= part as u64;
        }
        written += size;
    }
    Ok(written)
}

/// Makes `count` files of 1 to 4 KiB of text, 500 to a directory. Returns the number of bytes written.
pub fn small_files(root: &Path, count: u64, seed: u64) -> io::Result<u64> {
    let mut dice = Dice::new(seed);
    let mut written = 0;
    for number in 0..count {
        let directory = root.join(format!("d{:04}", number / 500));
        if number % 500 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let size = 1024 + dice.below(3 * 1024 + 1);
        fs::write(directory.join(format!("f{number:06}")), bytes(Texture::Text, size as usize, &mut dice))?;
        written += size;
    }
    Ok(written)
}

/// What [`odd_tree`] made and what it could not make here.
#[derive(Debug, Default, Clone)]
pub struct Oddities {
    /// One word per oddity that is in the tree.
    pub made: Vec<&'static str>,
    /// One word per oddity that this file system or user does not allow, and why.
    pub left_out: Vec<(&'static str, String)>,
}

impl Oddities {
    fn note(&mut self, what: &'static str, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.made.push(what),
            Err(error) => self.left_out.push((what, error.to_string())),
        }
    }
}

/// Makes a tree with everything that backup programs get wrong, in a new or empty directory.
///
/// Names that are not UTF-8, with newlines, quotes and 255 bytes; hard links (also across directories); symbolic links
/// that are absolute, dangling, looping, and not UTF-8; holes at the start, in the middle and at the end; modes with
/// set-user-id, sticky and none at all; fifos; sockets; devices (as root); other owners (as root); extended attributes;
/// times with nanoseconds, before 1970 and after 2038; empty files and directories; a path deeper than 4096 bytes is not
/// made, one of 60 levels is. Directory times are set last, so that they hold.
pub fn odd_tree(root: &Path, seed: u64) -> io::Result<Oddities> {
    let mut dice = Dice::new(seed);
    let mut oddities = Oddities::default();
    fs::create_dir_all(root)?;

    names(root, &mut dice)?;
    oddities.made.extend([
        "name-not-utf8",
        "name-newline",
        "name-255",
        "gitignore",
        "empty-file",
        "empty-directory",
    ]);

    links(root, &mut dice)?;
    oddities.made.extend([
        "hardlink",
        "symlink-absolute",
        "symlink-dangling",
        "symlink-loop",
        "symlink-not-utf8",
    ]);

    holes(root, &mut dice)?;
    oddities.made.extend(["hole-start", "hole-middle", "hole-end"]);

    let modes = root.join("modes");
    fs::create_dir_all(&modes)?;
    for mode in [0o000, 0o400, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755] {
        let path = modes.join(format!("{mode:04o}"));
        fs::write(&path, bytes(Texture::Text, 100, &mut dice))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    oddities.made.push("modes");

    let special = root.join("special");
    fs::create_dir_all(&special)?;
    let node = |name: &str, kind, device| -> io::Result<()> {
        rustix::fs::mknodat(CWD, special.join(name), kind, Mode::from_raw_mode(0o640), device)
            .map_err(Into::into)
    };
    oddities.note("fifo", node("fifo", FileType::Fifo, 0));
    oddities.note("socket", node("socket", FileType::Socket, 0));
    oddities.note("device", node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)));

    oddities.note("xattr", attributes(root, &mut dice));
    oddities.note("other-owner", owners(root));

    deep(root, &mut dice)?;
    oddities.made.push("deep");

    times(root)?;
    oddities.made.extend(["nanoseconds", "before-1970", "after-2038"]);
    Ok(oddities)
}

fn names(root: &Path, dice: &mut Dice) -> io::Result<()> {
    let folder = root.join("names");
    fs::create_dir_all(folder.join("empty directory"))?;
    let long = vec![b'n'; 255];
    let odd: [&[u8]; 14] = [
        b"plain",
        b" leading and trailing ",
        b"new\nline",
        b"tab\tand\x07bell",
        b"quote'\"`$(x)\\",
        b"-rf",
        b"*?[a]",
        b"..almost",
        b"not-utf8-\xff\xfe\x80",
        "é-composed".as_bytes(),
        "e\u{301}-decomposed".as_bytes(),
        "\u{1f6a2} ship".as_bytes(),
        b"~",
        &long,
    ];
    for name in odd {
        fs::write(
            folder.join(OsStr::from_bytes(name)),
            bytes(Texture::Text, dice.below(3000) as usize, dice),
        )?;
    }
    fs::write(folder.join("empty"), b"")?;
    // Not an exclude list for us; the files it names must be backed up.
    fs::write(root.join(".gitignore"), b"*\n!.gitignore\n")?;
    fs::write(root.join("ignored-by-git"), b"must be in the copy\n")
}

fn links(root: &Path, dice: &mut Dice) -> io::Result<()> {
    let folder = root.join("links");
    fs::create_dir_all(folder.join("inner"))?;
    fs::write(folder.join("first"), bytes(Texture::Binary, 5000, dice))?;
    fs::hard_link(folder.join("first"), folder.join("second"))?;
    fs::hard_link(folder.join("first"), folder.join("inner/third"))?;
    symlink("first", folder.join("relative"))?;
    symlink("/etc/hostname", folder.join("absolute"))?;
    symlink("nowhere/at/all", folder.join("dangling"))?;
    symlink("loop-b", folder.join("loop-a"))?;
    symlink("loop-a", folder.join("loop-b"))?;
    symlink("../..", folder.join("upwards"))?;
    symlink("inner", folder.join("to-directory"))?;
    symlink(OsString::from_vec(b"target-\xff\xfe".to_vec()), folder.join("not-utf8"))
}

fn holes(root: &Path, dice: &mut Dice) -> io::Result<()> {
    const HOLE: u64 = 1 << 20;
    let folder = root.join("holes");
    fs::create_dir_all(&folder)?;
    let data = bytes(Texture::Random, 70_000, dice);
    let mut start = File::create(folder.join("start"))?;
    start.seek(SeekFrom::Start(HOLE))?;
    start.write_all(&data)?;
    let mut middle = File::create(folder.join("middle"))?;
    middle.write_all(&data)?;
    middle.seek(SeekFrom::Start(3 * HOLE))?;
    middle.write_all(&data)?;
    let mut end = File::create(folder.join("end"))?;
    end.write_all(&data)?;
    end.set_len(2 * HOLE + 17)?;
    File::create(folder.join("only"))?.set_len(5 * HOLE)?;
    // The same content without holes: a restore may tell them apart only by what was recorded.
    fs::write(folder.join("zeros"), vec![0; HOLE as usize])
}

fn attributes(root: &Path, dice: &mut Dice) -> io::Result<()> {
    let folder = root.join("attributes");
    fs::create_dir_all(&folder)?;
    let file = folder.join("file");
    fs::write(&file, b"with attributes\n")?;
    let mut value = vec![0; 300];
    dice.fill(&mut value);
    xattr::set(&file, "user.binary", &value)?;
    xattr::set(&file, "user.empty", b"")?;
    xattr::set(&folder, "user.on-directory", b"yes")
}

fn owners(root: &Path) -> io::Result<()> {
    let path = root.join("owned-by-another");
    fs::write(&path, b"uid 4242, gid 4343\n")?;
    rustix::fs::chownat(CWD, &path, Some(Uid::from_raw(4242)), Some(Gid::from_raw(4343)), AtFlags::empty())
        .map_err(Into::into)
}

fn deep(root: &Path, dice: &mut Dice) -> io::Result<()> {
    let mut path: PathBuf = root.join("deep");
    for level in 0..60 {
        path.push(format!("level-{level:02}"));
    }
    fs::create_dir_all(&path)?;
    fs::write(path.join("bottom"), bytes(Texture::Text, 500, dice))
}

fn times(root: &Path) -> io::Result<()> {
    let folder = root.join("times");
    fs::create_dir_all(&folder)?;
    let moments: [(&str, i64, i64); 5] = [
        ("nanoseconds", 1_700_000_000, 123_456_789),
        ("one-nanosecond", 1_700_000_000, 1),
        ("epoch", 0, 0),
        ("before-1970", -86_400, 999_999_999),
        ("after-2038", 4_000_000_000, 5),
    ];
    for (name, seconds, nanoseconds) in moments {
        fs::write(folder.join(name), name)?;
        set_time(&folder.join(name), seconds, nanoseconds)?;
    }
    symlink("epoch", folder.join("link"))?;
    set_time(&folder.join("link"), 1_000_000_000, 7)?;
    set_time(&folder, 1_234_567_890, 987_654_321)?;
    set_time(root, 1_600_000_000, 42)
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let moment = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let both = Timestamps { last_access: moment, last_modification: moment };
    rustix::fs::utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into)
}

/// Changes `share_percent` of the pages of `page_bytes` of a file, in place: an eighth of each, at a random place, as an
/// update of a few rows does. Returns the numbers of the changed pages.
///
/// The change is an exclusive or with the sequence of `dice` and does not depend on the content: the same call with the
/// same seed undoes it.
pub fn change_pages(
    path: &Path,
    page_bytes: u64,
    share_percent: f64,
    dice: &mut Dice,
) -> io::Result<Vec<u64>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let pages = file.metadata()?.len() / page_bytes;
    let length = page_bytes / 8;
    let (mut part, mut noise) = (vec![0; length as usize], vec![0; length as usize]);
    let mut changed = Vec::new();
    for number in 0..pages {
        if (dice.below(1_000_000) as f64) >= share_percent * 10_000.0 {
            continue;
        }
        let start = number * page_bytes + dice.below(page_bytes - length + 1);
        dice.fill(&mut noise);
        file.read_exact_at(&mut part, start)?;
        for (byte, other) in part.iter_mut().zip(&noise) {
            *byte ^= other;
        }
        file.write_all_at(&part, start)?;
        changed.push(number);
    }
    Ok(changed)
}

/// Live SQLite databases. Needs the feature `sqlite`.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use rusqlite::{Connection, params};

    use super::Dice;

    /// How a database keeps its journal.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Journal {
        /// Write-ahead log: a copy of the main file alone loses rows.
        Wal,
        /// Rollback journal.
        Rollback,
    }

    /// The application id that the sample databases carry.
    pub const APPLICATION_ID: i32 = 0x5ea_0071;
    /// The user version that they carry.
    pub const USER_VERSION: i32 = 17;

    /// Makes a shop: customers, orders with a foreign key, an index, a view, a trigger, a WITHOUT ROWID table, a partial
    /// and an expression index, a generated column, blobs, NULLs, numbers at the limits. `rows` orders.
    pub fn shop(path: &Path, journal: Journal, rows: u64, seed: u64) -> rusqlite::Result<()> {
        let mut connection = Connection::open(path)?;
        let mode = match journal {
            Journal::Wal => "wal",
            Journal::Rollback => "delete",
        };
        connection.pragma_update(None, "journal_mode", mode)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", USER_VERSION)?;
        connection.execute_batch(
            "CREATE TABLE customer (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, note TEXT, photo BLOB);
             CREATE TABLE \"order\" (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer(id),
                 cents INTEGER NOT NULL CHECK (cents >= 0), weight REAL, placed_at TEXT NOT NULL,
                 euros TEXT GENERATED ALWAYS AS (printf('%.2f', cents / 100.0)) VIRTUAL);
             CREATE TABLE setting (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;
             CREATE TABLE audit (at INTEGER, what TEXT);
             CREATE INDEX order_by_customer ON \"order\"(customer, placed_at DESC);
             CREATE INDEX order_large ON \"order\"(cents) WHERE cents > 900000;
             CREATE INDEX customer_by_lower_name ON customer(lower(name));
             CREATE VIEW turnover AS SELECT customer, sum(cents) AS cents FROM \"order\" GROUP BY customer;
             CREATE TRIGGER order_audit AFTER INSERT ON \"order\" WHEN new.cents > 990000
                 BEGIN INSERT INTO audit VALUES (new.id, 'large'); END;
             INSERT INTO setting VALUES ('currency', 'EUR'), ('limit', 9223372036854775807), ('nothing', NULL);",
        )?;
        let mut dice = Dice::new(seed);
        let transaction = connection.transaction()?;
        {
            let customers = rows.div_ceil(10).max(1);
            let mut customer =
                transaction.prepare("INSERT INTO customer (name, note, photo) VALUES (?1, ?2, ?3)")?;
            for number in 0..customers {
                let mut photo = vec![0; dice.below(200) as usize];
                dice.fill(&mut photo);
                let note = (number % 3 != 0).then(|| format!("line one\nline 'two' \u{1f6a2} {number}"));
                customer.execute(params![format!("Customer {number}"), note, photo])?;
            }
            let mut order = transaction.prepare(
                "INSERT INTO \"order\" (customer, cents, weight, placed_at) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for number in 0..rows {
                let weight = match number % 7 {
                    0 => None,
                    1 => Some(f64::MIN_POSITIVE),
                    2 => Some(-0.0),
                    _ => Some(dice.below(100_000) as f64 / 7.0),
                };
                let buyer = (dice.below(customers) + 1).cast_signed();
                let cents = dice.below(1_000_000).cast_signed();
                order.execute(params![
                    buyer,
                    cents,
                    weight,
                    format!("2026-11-{:02}T12:00:00Z", number % 28 + 1)
                ])?;
            }
        }
        transaction.commit()
    }

    /// A thread that commits one row at a time, as fast as it can or once per `pause`, until it is stopped.
    #[derive(Debug)]
    pub struct Writer {
        stop: Arc<AtomicBool>,
        committed: Arc<AtomicU64>,
        thread: Option<JoinHandle<rusqlite::Result<()>>>,
    }

    impl Writer {
        /// Starts to write into the table `ticks`, which is made when it is not there.
        #[must_use]
        pub fn start(path: PathBuf, pause: Duration) -> Self {
            let stop = Arc::new(AtomicBool::new(false));
            let committed = Arc::new(AtomicU64::new(0));
            let (halt, count) = (Arc::clone(&stop), Arc::clone(&committed));
            let thread = std::thread::spawn(move || {
                let connection = Connection::open(path)?;
                connection.busy_timeout(Duration::from_secs(30))?;
                connection
                    .execute_batch("CREATE TABLE IF NOT EXISTS ticks (n INTEGER PRIMARY KEY, filler TEXT)")?;
                let filler = "tide ".repeat(40);
                while !halt.load(Ordering::Relaxed) {
                    connection.execute("INSERT INTO ticks (filler) VALUES (?1)", [&filler])?;
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(pause);
                }
                Ok(())
            });
            Self { stop, committed, thread: Some(thread) }
        }

        /// Rows committed so far by this writer.
        #[must_use]
        pub fn committed(&self) -> u64 {
            self.committed.load(Ordering::Relaxed)
        }

        /// Stops, and returns the number of rows that it committed.
        pub fn stop(mut self) -> rusqlite::Result<u64> {
            self.stop.store(true, Ordering::Relaxed);
            if let Some(thread) = self.thread.take() {
                thread.join().expect("the writer returns its errors and does not panic")?;
            }
            Ok(self.committed())
        }
    }

    impl Drop for Writer {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn digest(root: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut open = vec![root.to_path_buf()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let data = fs::symlink_metadata(entry.path()).unwrap();
                if data.is_dir() {
                    open.push(entry.path());
                } else if data.is_file() {
                    let name = entry.path().strip_prefix(root).unwrap().to_path_buf();
                    // Mode 0000 can be read by root only.
                    let content = fs::read(entry.path()).unwrap_or_default();
                    found.insert(name, (data.len(), content));
                }
            }
        }
        found
    }

    #[test]
    fn the_same_seed_makes_the_same_tree() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for place in [&one, &two] {
            mixed_tree(&place.path().join("mixed"), 60, 600_000, 7).unwrap();
            small_files(&place.path().join("small"), 40, 7).unwrap();
            odd_tree(&place.path().join("odd"), 7).unwrap();
        }
        assert_eq!(digest(one.path()), digest(two.path()));
        let other = tempfile::tempdir().unwrap();
        mixed_tree(other.path(), 60, 600_000, 8).unwrap();
        assert_ne!(digest(&one.path().join("mixed")), digest(other.path()));
    }

    #[test]
    fn a_mixed_tree_has_about_the_size_that_was_asked_for() {
        let place = tempfile::tempdir().unwrap();
        let written = mixed_tree(place.path(), 600, 6_000_000, 1).unwrap();
        assert!((4_500_000..=7_500_000).contains(&written), "{written}");
        assert_eq!(digest(place.path()).len(), 600);
    }

    #[test]
    fn the_odd_tree_holds_what_it_says() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let oddities = odd_tree(root, 3).unwrap();
        assert!(oddities.made.len() >= 20, "{oddities:?}");
        let stat = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        assert_eq!(stat("links/first").nlink(), 3);
        assert_eq!(stat("links/first").ino(), stat("links/inner/third").ino());
        assert!(stat("holes/only").blocks() < 16, "a hole takes no room");
        assert_eq!(stat("times/nanoseconds").mtime_nsec(), 123_456_789);
        assert_eq!(stat("times/before-1970").mtime(), -86_400);
        assert_eq!(stat("times").mtime_nsec(), 987_654_321);
        assert_eq!(stat("modes/4755").mode() & 0o7777, 0o4755);
        assert!(root.join("names").join(OsStr::from_bytes(b"not-utf8-\xff\xfe\x80")).exists());
    }

    #[test]
    fn about_the_asked_share_of_pages_changes_and_the_size_does_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("relation");
        let before = bytes(Texture::Binary, 8192 * 2000 + 100, &mut Dice::new(1));
        fs::write(&path, &before).unwrap();
        let changed = change_pages(&path, 8192, 1.0, &mut Dice::new(2)).unwrap();
        assert!((5..=40).contains(&changed.len()), "{changed:?}");
        let after = fs::read(&path).unwrap();
        assert_eq!(after.len(), before.len());
        let pairs = before.chunks(8192).zip(after.chunks(8192)).zip(0..);
        let differing: Vec<u64> = pairs.filter(|((a, b), _)| a != b).map(|(_, number)| number).collect();
        assert_eq!(differing, changed);
        change_pages(&path, 8192, 1.0, &mut Dice::new(2)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before, "the same change undoes it");
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn copying_the_file_of_a_live_database_loses_rows_and_the_shop_is_sound() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("shop.db");
        sqlite::shop(&path, sqlite::Journal::Wal, 500, 1).unwrap();
        let writer = sqlite::Writer::start(path.clone(), std::time::Duration::from_millis(1));
        while writer.committed() < 50 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let copy = place.path().join("copy.db");
        fs::copy(&path, &copy).unwrap();
        let committed = writer.stop().unwrap();
        let live = rusqlite::Connection::open(&path).unwrap();
        let rows: i64 = live.query_row("SELECT count(*) FROM ticks", [], |row| row.get(0)).unwrap();
        assert_eq!(rows.cast_unsigned(), committed);
        let sound: String = live.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        let copied: i64 = rusqlite::Connection::open(&copy)
            .and_then(|copy| copy.query_row("SELECT count(*) FROM ticks", [], |row| row.get(0)))
            .unwrap_or_default();
        assert!(copied.cast_unsigned() < committed, "{copied} of {committed}");
    }
}
