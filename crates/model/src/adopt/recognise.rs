//! What a file is: by its first bytes, and by its name only where those cannot say (inside an encryption, a compression).

use std::fmt;

use jiff::civil::DateTime;

/// How many first bytes of a file decide: a tar archive says what it is at its 257th.
pub const HEAD_BYTES: usize = 4096;

/// What lies around the data, from outside in: first an encryption, then a compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrapping {
    /// `openssl enc` with a salt: nothing in it says which cipher.
    OpensslSalted,
    /// OpenPGP, opened by a passphrase.
    OpenPgpPassphrase,
    /// OpenPGP, opened by a private key.
    OpenPgpKey,
    /// age.
    Age,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Wrapping {
    /// Its name, for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OpensslSalted => "openssl enc",
            Self::OpenPgpPassphrase => "gpg, passphrase",
            Self::OpenPgpKey => "gpg, private key",
            Self::Age => "age",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// Whether it takes a secret to open.
    #[must_use]
    pub fn is_encryption(self) -> bool {
        matches!(self, Self::OpensslSalted | Self::OpenPgpPassphrase | Self::OpenPgpKey | Self::Age)
    }

    /// What the first bytes say.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        let starts = |magic: &[u8]| head.starts_with(magic);
        if starts(b"Salted__") {
            return Some(Self::OpensslSalted);
        }
        if starts(b"age-encryption.org/") || starts(b"-----BEGIN AGE ENCRYPTED FILE-----") {
            return Some(Self::Age);
        }
        if starts(&[0x1f, 0x8b]) {
            return Some(Self::Gzip);
        }
        if starts(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Some(Self::Zstd);
        }
        if starts(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            return Some(Self::Xz);
        }
        if starts(b"BZh") && head.get(4..10) == Some(&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) {
            return Some(Self::Bzip2);
        }
        if starts(b"-----BEGIN PGP MESSAGE-----") {
            // Armour hides the packet; a key is what it is mostly for, and gpg itself decides.
            return Some(Self::OpenPgpKey);
        }
        // A packet of OpenPGP begins with bit 7 set: old format 10tttt.., new format 11tttttt; then a version.
        let tag = match *head.first()? {
            first if first & 0xc0 == 0xc0 => first & 0x3f,
            first if first & 0xc0 == 0x80 => (first >> 2) & 0x0f,
            _ => return None,
        };
        let version_at = if head[0] & 0x40 != 0 { 2 } else { 1 + (1 << (head[0] & 3)) };
        match (tag, head.get(version_at)) {
            (1, Some(3 | 6)) => Some(Self::OpenPgpKey),
            (3, Some(4..=6)) => Some(Self::OpenPgpPassphrase),
            _ => None,
        }
    }

    /// What the end of a name says, and the name without it.
    #[must_use]
    pub fn named(name: &str) -> Option<(Self, &str)> {
        [
            (".gpg", Self::OpenPgpPassphrase),
            (".pgp", Self::OpenPgpPassphrase),
            (".enc", Self::OpensslSalted),
            (".age", Self::Age),
            (".gz", Self::Gzip),
            (".zst", Self::Zstd),
            (".xz", Self::Xz),
            (".bz2", Self::Bzip2),
        ]
        .into_iter()
        .find_map(|(end, wrapping)| Some((wrapping, name.strip_suffix(end)?)))
        .filter(|(_, rest)| !rest.is_empty())
    }
}

/// The data itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payload {
    /// `pg_dump -Fc`.
    PgCustom,
    /// `pg_dump -Ft`.
    PgTar,
    /// `pg_dump -Fd`: a directory with a `toc.dat`.
    PgDirectory,
    /// SQL that `pg_dump` or `pg_dumpall` wrote.
    PgPlain,
    /// A SQLite database.
    Sqlite,
    /// SQL that `sqlite3 .dump` wrote.
    SqliteSql,
    /// SQL that `mysqldump` or `mariadb-dump` wrote.
    MysqlSql,
    /// A tar archive.
    Tar,
    /// A repository of restic's.
    Restic,
    /// A repository of borg's.
    Borg,
}

impl Payload {
    /// Its name, for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::PgCustom => "pg_dump, custom format",
            Self::PgTar => "pg_dump, tar format",
            Self::PgDirectory => "pg_dump, directory format",
            Self::PgPlain => "pg_dump, SQL",
            Self::Sqlite => "SQLite database",
            Self::SqliteSql => "sqlite3 .dump",
            Self::MysqlSql => "mysqldump",
            Self::Tar => "tar archive",
            Self::Restic => "restic repository",
            Self::Borg => "borg repository",
        }
    }

    /// What the first bytes say.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"PGDMP") {
            return Some(Self::PgCustom);
        }
        if head.starts_with(b"SQLite format 3\0") {
            return Some(Self::Sqlite);
        }
        if head.get(257..262) == Some(b"ustar") {
            return Some(if head.starts_with(b"toc.dat\0") { Self::PgTar } else { Self::Tar });
        }
        let holds = |words: &[u8]| head.windows(words.len()).any(|window| window == words);
        if holds(b"-- PostgreSQL database dump") || holds(b"-- PostgreSQL database cluster dump") {
            return Some(Self::PgPlain);
        }
        if head.starts_with(b"-- MySQL dump")
            || head.starts_with(b"-- MariaDB dump")
            || head.starts_with(b"/*M!")
        {
            return Some(Self::MysqlSql);
        }
        if head.starts_with(b"PRAGMA foreign_keys=OFF;") {
            return Some(Self::SqliteSql);
        }
        None
    }

    /// What the end of a name says, where the bytes cannot be seen.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if ends(&[".dump", ".pgdump", ".custom", ".pgc", ".backup"]) {
            Some(Self::PgCustom)
        } else if ends(&[".sql"]) {
            Some(Self::PgPlain)
        } else if ends(&[".db", ".sqlite", ".sqlite3"]) {
            Some(Self::Sqlite)
        } else if ends(&[".tar"]) {
            Some(Self::Tar)
        } else {
            None
        }
    }
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// What lies around the data, from outside in.
    pub wrappings: Vec<Wrapping>,
    /// The data; `None` where nothing says.
    pub payload: Option<Payload>,
    /// Whether the data were seen, and not only their name.
    pub was_seen: bool,
}

impl Shape {
    /// Of a file with this name and these first bytes.
    #[must_use]
    pub fn of(name: &str, head: &[u8]) -> Self {
        if let Some(payload) = Payload::of(head) {
            return Self { wrappings: Vec::new(), payload: Some(payload), was_seen: true };
        }
        let Some(outer) = Wrapping::of(head) else {
            return Self { wrappings: Vec::new(), payload: None, was_seen: true };
        };
        // `.tgz` and its like are two endings in one.
        let long = [(".tgz", ".tar.gz"), (".txz", ".tar.xz"), (".tbz", ".tar.bz2"), (".tzst", ".tar.zst")]
            .into_iter()
            .find_map(|(short, long)| Some(format!("{}{long}", name.strip_suffix(short)?)));
        let mut rest = long.as_deref().unwrap_or(name);
        let mut wrappings = vec![outer];
        let mut is_first = true;
        while let Some((wrapping, inner)) = Wrapping::named(rest) {
            // The first ending is the outermost wrapping, which was seen.
            if !is_first {
                wrappings.push(wrapping);
            }
            is_first = false;
            rest = inner;
        }
        Self { wrappings, payload: Payload::named(rest), was_seen: false }
    }

    /// Whether it takes a secret to open it.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.wrappings.iter().any(|wrapping| wrapping.is_encryption())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.payload.map_or("not recognised", Payload::word))?;
        if !self.was_seen && self.payload.is_some() {
            f.write_str(" (by its name)")?;
        }
        for wrapping in self.wrappings.iter().rev() {
            write!(f, ", {}", wrapping.word())?;
        }
        Ok(())
    }
}

/// What a dump says of itself in its first bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DumpHead {
    /// When it was begun, by the wall clock of the host that made it.
    pub created: Option<DateTime>,
    /// Version of the server that it is of, as the server says it.
    pub server_version: Option<String>,
    /// Version of the program that made it.
    pub dump_version: Option<String>,
    /// Encoding of its texts.
    pub encoding: Option<String>,
}

impl DumpHead {
    /// What the head of a dump of any format says; what it does not say is absent.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        // A dump in tar format begins with its table of contents, after one block.
        match Payload::of(head) {
            Some(Payload::PgCustom) => archive(head).unwrap_or_default(),
            Some(Payload::PgTar) => head.get(512..).and_then(archive).unwrap_or_default(),
            Some(Payload::PgPlain) => plain(head),
            _ => Self::default(),
        }
    }

    /// The major version of the server.
    #[must_use]
    pub fn server_major(&self) -> Option<u32> {
        major(self.server_version.as_deref()?)
    }

    /// The major version of the program that made it.
    #[must_use]
    pub fn dump_major(&self) -> Option<u32> {
        major(self.dump_version.as_deref()?)
    }
}

fn major(version: &str) -> Option<u32> {
    let digits: String = version.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// A reader of the numbers and texts of an archive's head.
struct Head<'a> {
    rest: &'a [u8],
    int_bytes: usize,
}

impl Head<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn int(&mut self) -> Option<i64> {
        let is_negative = self.byte()? != 0;
        let (raw, rest) = self.rest.split_at_checked(self.int_bytes)?;
        self.rest = rest;
        let value = raw
            .iter()
            .rev()
            .try_fold(0_i64, |value, byte| value.checked_mul(256)?.checked_add((*byte).into()))?;
        Some(if is_negative { -value } else { value })
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.int()?).ok()?;
        let (raw, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(String::from_utf8_lossy(raw).into_owned())
    }
}

/// The head of an archive: signature, version, sizes, format, compression, date, names and versions.
fn archive(head: &[u8]) -> Option<DumpHead> {
    let rest = head.strip_prefix(b"PGDMP")?;
    let mut from = Head { rest, int_bytes: 4 };
    let version = (from.byte()?, from.byte()?, from.byte()?);
    let int_bytes = usize::from(from.byte()?);
    if !(1..=8).contains(&int_bytes) || version < (1, 12, 0) {
        return None;
    }
    from.int_bytes = int_bytes;
    let (_offset_bytes, _format) = (from.byte()?, from.byte()?);
    // From 1.15 on an algorithm, before that a level.
    if version >= (1, 15, 0) {
        from.byte()?;
    } else {
        from.int()?;
    }
    let mut part = || from.int();
    let (second, minute, hour, day, month, year) = (part()?, part()?, part()?, part()?, part()?, part()?);
    let _is_daylight_saving = part()?;
    let small = |value: i64| i8::try_from(value).ok();
    let created = (|| {
        DateTime::new(
            i16::try_from(year.checked_add(1900)?).ok()?,
            small(month.checked_add(1)?)?,
            small(day)?,
            small(hour)?,
            small(minute)?,
            // A leap second is written as the 60th.
            small(second.min(59))?,
            0,
        )
        .ok()
    })();
    let _database = from.text()?;
    Some(DumpHead { created, server_version: from.text(), dump_version: from.text(), encoding: None })
}

/// The comments with which SQL of `pg_dump` begins.
fn plain(head: &[u8]) -> DumpHead {
    let text = String::from_utf8_lossy(head);
    let after = |words: &str| {
        text.lines().find_map(|line| line.strip_prefix(words)).map(|rest| rest.trim().to_owned())
    };
    // `-- Started on 2026-11-29 02:50:00 CET`, with `--verbose` only.
    let created = after("-- Started on ").and_then(|rest| rest.get(..19)?.replace(' ', "T").parse().ok());
    let encoding =
        after("SET client_encoding = '").and_then(|rest| rest.strip_suffix("';").map(str::to_owned));
    DumpHead {
        created,
        server_version: after("-- Dumped from database version "),
        dump_version: after("-- Dumped by pg_dump version "),
        encoding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let tar = |name: &[u8]| {
            let mut block = vec![0; 512];
            block[..name.len()].copy_from_slice(name);
            block[257..262].copy_from_slice(b"ustar");
            block
        };
        for (head, wanted) in [
            (b"PGDMP\x01\x0e".to_vec(), Payload::PgCustom),
            (b"--\n-- PostgreSQL database dump\n--\n".to_vec(), Payload::PgPlain),
            (b"--\n-- PostgreSQL database cluster dump\n".to_vec(), Payload::PgPlain),
            (b"SQLite format 3\0\x10".to_vec(), Payload::Sqlite),
            (b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;".to_vec(), Payload::SqliteSql),
            (b"-- MariaDB dump 10.19".to_vec(), Payload::MysqlSql),
            (tar(b"toc.dat"), Payload::PgTar),
            (tar(b"etc/passwd"), Payload::Tar),
        ] {
            assert_eq!(Shape::of("a.name.that.lies.gz", &head).payload, Some(wanted), "{wanted:?}");
        }
        for (head, wanted) in [
            (b"Salted__12345678".to_vec(), Wrapping::OpensslSalted),
            (vec![0x1f, 0x8b, 8], Wrapping::Gzip),
            (vec![0x28, 0xb5, 0x2f, 0xfd], Wrapping::Zstd),
            (b"\xfd7zXZ\0".to_vec(), Wrapping::Xz),
            (b"BZh91AY&SY".to_vec(), Wrapping::Bzip2),
            (vec![0x8c, 0x0d, 4, 9], Wrapping::OpenPgpPassphrase),
            (vec![0xc3, 0x0d, 4, 9], Wrapping::OpenPgpPassphrase),
            (vec![0x85, 0x01, 0x8c, 3], Wrapping::OpenPgpKey),
            (b"age-encryption.org/v1\n".to_vec(), Wrapping::Age),
        ] {
            assert_eq!(Wrapping::of(&head), Some(wanted), "{wanted:?}");
        }
        for nothing in [&b""[..], b"hello", b"\x8c", b"BZhello", b"\xff\xff\xff"] {
            assert_eq!(Wrapping::of(nothing), None);
            assert_eq!(Shape::of("x.dump.gz", nothing).payload, None);
        }
    }

    #[test]
    fn what_lies_inside_is_taken_from_the_name() {
        let gzip = [0x1f, 0x8b];
        let shape = Shape::of("shop_20261129.sql.gz", &gzip);
        assert_eq!((shape.payload, shape.was_seen), (Some(Payload::PgPlain), false));
        assert_eq!(shape.to_string(), "pg_dump, SQL (by its name), gzip");
        let both = Shape::of("shop.sql.gz.gpg", &[0x8c, 0x0d, 4, 9]);
        assert_eq!(both.wrappings, [Wrapping::OpenPgpPassphrase, Wrapping::Gzip]);
        assert!(both.is_encrypted() && !shape.is_encrypted());
        assert_eq!(Shape::of("x.tgz", &gzip).payload, Some(Payload::Tar));
        assert_eq!(Shape::of("x.gz", &gzip).to_string(), "not recognised, gzip");
    }

    #[test]
    fn the_head_of_an_archive_is_read() {
        let mut head = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
        let int = |head: &mut Vec<u8>, value: i32| {
            head.push(u8::from(value < 0));
            head.extend(value.unsigned_abs().to_le_bytes());
        };
        for value in [-1, 7, 50, 2, 29, 10, 126, 0] {
            int(&mut head, value);
        }
        for text in ["shop", "15.18 (Debian 15.18-0+deb12u1)", "15.18"] {
            int(&mut head, i32::try_from(text.len()).unwrap());
            head.extend(text.bytes());
        }
        let read = DumpHead::of(&head);
        assert_eq!(read.created, Some("2026-11-29T02:50:07".parse().unwrap()));
        assert_eq!((read.server_major(), read.dump_major()), (Some(15), Some(15)));
        // Every cut of it says less, and none panics.
        for length in 0..head.len() {
            drop(DumpHead::of(&head[..length]));
        }
    }

    #[test]
    fn the_head_of_sql_is_read() {
        let head = b"--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 13.4\n\
                     -- Dumped by pg_dump version 17.10\n\n-- Started on 2026-11-29 02:50:00 CET\n\
                     SET client_encoding = 'LATIN1';\n";
        let read = DumpHead::of(head);
        assert_eq!((read.server_major(), read.dump_major()), (Some(13), Some(17)));
        assert_eq!(read.created, Some("2026-11-29T02:50:00".parse().unwrap()));
        assert_eq!(read.encoding.as_deref(), Some("LATIN1"));
    }
}
