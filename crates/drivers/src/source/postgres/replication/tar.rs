//! The archives in which a server sends a base backup, taken apart while they pass: POSIX `ustar`, as PostgreSQL writes it.
//!
//! Names are those of the server's own files. One that would leave its directory, or that stands twice as a file being written, cannot
//! be from an honest server, and is refused: what comes is put into a copy under these names.

use std::str;

/// Bytes of a block.
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarKind {
    /// A file; its bytes follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, of a tablespace.
    Symlink(Vec<u8>),
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Relative path, without a slash at its end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TarKind,
    /// Bytes of a file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

/// A part of an archive, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// An entry begins.
    Entry(TarEntry),
    /// Bytes of the file that has begun.
    Data(&'a [u8]),
    /// The file is whole.
    Whole,
}

/// An archive that no server sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// A header is damaged.
    #[error("a header of the archive does not have its checksum")]
    Checksum,
    /// A header holds something that it cannot.
    #[error("a header of the archive has no {0}")]
    Field(&'static str),
    /// A name would leave the directory.
    #[error("the archive names `{0}`")]
    Path(String),
    /// An entry is of a kind that no server sends.
    #[error("the archive has an entry of kind {0:?}")]
    Kind(char),
    /// Something follows the end of the archive.
    #[error("the archive goes on behind its end")]
    Behind,
    /// It ends within an entry.
    #[error("the archive ends within an entry")]
    Cut,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Body {
        left: u64,
        padding: usize,
    },
    Padding(usize),
    /// A block of zeros has come.
    Ending,
}

/// Takes an archive apart that comes in pieces.
#[derive(Debug)]
pub struct Untar {
    header: [u8; BLOCK],
    filled: usize,
    stage: Stage,
}

impl Default for Untar {
    fn default() -> Self {
        Self { header: [0; BLOCK], filled: 0, stage: Stage::Header }
    }
}

impl Untar {
    /// Takes the next piece; tells what is in it, in order.
    ///
    /// # Errors
    ///
    /// Where it is no archive of a server, and whatever `tell` returns.
    pub fn push<E: From<TarError>>(
        &mut self,
        mut bytes: &[u8],
        tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            match &mut self.stage {
                Stage::Header | Stage::Ending => {
                    let taken = bytes.len().min(BLOCK - self.filled);
                    let (now, later) = bytes.split_at(taken);
                    self.header[self.filled..self.filled + taken].copy_from_slice(now);
                    self.filled += taken;
                    bytes = later;
                    if self.filled == BLOCK {
                        self.filled = 0;
                        self.header(tell)?;
                    }
                }
                Stage::Body { left, padding } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (now, later) = bytes.split_at(taken);
                    tell(Part::Data(now))?;
                    *left -= taken as u64;
                    bytes = later;
                    if *left == 0 {
                        self.stage = if *padding == 0 { Stage::Header } else { Stage::Padding(*padding) };
                        tell(Part::Whole)?;
                    }
                }
                Stage::Padding(left) => {
                    let taken = (*left).min(bytes.len());
                    bytes = &bytes[taken..];
                    *left -= taken;
                    if *left == 0 {
                        self.stage = Stage::Header;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the archive may end here. Servers before PostgreSQL 15 leave out the blocks of zeros at its end.
    ///
    /// # Errors
    ///
    /// Where it ends within an entry.
    pub fn finish(&self) -> Result<(), TarError> {
        let is_between = self.filled == 0 && matches!(self.stage, Stage::Header | Stage::Ending);
        if is_between { Ok(()) } else { Err(TarError::Cut) }
    }

    fn header<E: From<TarError>>(
        &mut self,
        tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.header.iter().all(|byte| *byte == 0) {
            self.stage = Stage::Ending;
            return Ok(());
        }
        if self.stage == Stage::Ending {
            return Err(TarError::Behind.into());
        }
        let entry = entry(&self.header)?;
        let size = entry.size;
        let is_file = entry.kind == TarKind::File;
        tell(Part::Entry(entry))?;
        if is_file {
            let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
            if size > 0 {
                self.stage = Stage::Body { left: size, padding };
            } else {
                tell(Part::Whole)?;
            }
        }
        Ok(())
    }
}

fn entry(header: &[u8; BLOCK]) -> Result<TarEntry, TarError> {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) })
        .sum();
    if number(&header[148..156]) != Some(sum) {
        return Err(TarError::Checksum);
    }
    let size = number(&header[124..136]).ok_or(TarError::Field("size"))?;
    // Larger than any file that there can be; its end must stay a number.
    if size > i64::MAX as u64 {
        return Err(TarError::Field("size that a file can have"));
    }
    let mode = number(&header[100..108]).ok_or(TarError::Field("mode"))?;
    let modified = number(&header[136..148]).ok_or(TarError::Field("time"))?;
    let kind = match header[156] {
        b'0' | 0 => TarKind::File,
        b'5' => TarKind::Directory,
        b'2' => TarKind::Symlink(text(&header[157..257]).to_vec()),
        other => return Err(TarError::Kind(char::from(other))),
    };
    let name = text(&header[..100]);
    // Some directories are sent as `./pg_wal/`.
    let path = name.strip_suffix(b"/").unwrap_or(name);
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let mut parts = path.split(|byte| *byte == b'/');
    if parts.any(|part| part.is_empty() || part == b"." || part == b"..") {
        return Err(TarError::Path(name.escape_ascii().to_string()));
    }
    let size = if kind == TarKind::File { size } else { 0 };
    Ok(TarEntry {
        path: path.to_vec(),
        kind,
        size,
        mode: u32::try_from(mode & 0o7777).unwrap_or(0),
        modified: i64::try_from(modified).unwrap_or(i64::MAX),
    })
}

/// Bytes up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An octal number, or a binary one where its first bit says so.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        let (zeros, rest) = rest.split_at(rest.len().saturating_sub(8));
        if zeros.iter().any(|byte| *byte != 0) {
            return None;
        }
        return Some(rest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let digits = str::from_utf8(field).ok()?.trim_matches(|character| matches!(character, ' ' | '\0'));
    if digits.is_empty() || !digits.bytes().all(|byte| (b'0'..b'8').contains(&byte)) {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header as the server writes it.
    fn header(path: &str, kind: u8, size: u64, link: &str) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..107].copy_from_slice(b"0000600");
        if size < 1 << 33 {
            header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        } else {
            header[124] = 0x80;
            header[128..136].copy_from_slice(&size.to_be_bytes());
        }
        header[136..147].copy_from_slice(format!("{:011o}", 1_700_000_000).as_bytes());
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        sealed(header)
    }

    fn sealed(mut header: [u8; BLOCK]) -> [u8; BLOCK] {
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        header[154] = 0;
        header
    }

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(header("base", b'5', 0, ""));
        bytes.extend(header("base/1", b'0', 700, ""));
        bytes.extend([7; 700]);
        bytes.extend([0; 324]);
        bytes.extend(header("empty", b'0', 0, ""));
        bytes.extend(header("whole", b'0', 512, ""));
        bytes.extend([8; 512]);
        bytes.extend(header("pg_tblspc/16400", b'2', 0, "/srv/fast"));
        bytes.extend([0; 1_024]);
        bytes
    }

    /// What is told, with data put together.
    fn told(pieces: &[&[u8]]) -> Result<Vec<String>, TarError> {
        let mut untar = Untar::default();
        let mut told: Vec<String> = Vec::new();
        let mut data = 0;
        for piece in pieces {
            untar.push::<TarError>(piece, &mut |part| {
                match part {
                    Part::Entry(entry) => told.push(format!(
                        "{} {:?} {} {:o} {}",
                        entry.path.escape_ascii(),
                        entry.kind,
                        entry.size,
                        entry.mode,
                        entry.modified
                    )),
                    Part::Data(bytes) => data += bytes.len(),
                    Part::Whole => told.push(format!("{} bytes", std::mem::take(&mut data))),
                }
                Ok(())
            })?;
        }
        untar.finish()?;
        Ok(told)
    }

    #[test]
    fn an_archive_is_taken_apart_wherever_it_is_cut_into_pieces() {
        let bytes = archive();
        let whole = told(&[&bytes]).unwrap();
        assert_eq!(
            whole,
            [
                "base Directory 0 600 1700000000",
                "base/1 File 700 600 1700000000",
                "700 bytes",
                "empty File 0 600 1700000000",
                "0 bytes",
                "whole File 512 600 1700000000",
                "512 bytes",
                "pg_tblspc/16400 Symlink([47, 115, 114, 118, 47, 102, 97, 115, 116]) 0 600 1700000000",
            ]
        );
        for at in 0..bytes.len() {
            assert_eq!(told(&[&bytes[..at], &bytes[at..]]).unwrap(), whole, "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(told(&single).unwrap(), whole);
        // Older servers leave out the end.
        assert_eq!(told(&[&bytes[..bytes.len() - 1_024]]).unwrap(), whole);
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        let bytes = archive();
        assert_eq!(told(&[&bytes[..800]]), Err(TarError::Cut));
        assert_eq!(told(&[&bytes[..1_700]]), Err(TarError::Cut));
        let mut damaged = bytes.clone();
        damaged[3] ^= 1;
        assert_eq!(told(&[&damaged]), Err(TarError::Checksum));
        let behind = [bytes.as_slice(), &header("more", b'0', 0, "")].concat();
        assert_eq!(told(&[&behind]), Err(TarError::Behind));
        for path in ["../x", "./../x", "././x", "/etc/passwd", "a//b", "a/./b", "", "./", ".", "a/.."] {
            let wrong = told(&[&header(path, b'0', 0, "")]);
            assert!(matches!(wrong, Err(TarError::Path(_))), "{path}: {wrong:?}");
        }
        assert_eq!(
            told(&[&header("./pg_wal/", b'5', 0, "")]).unwrap(),
            ["pg_wal Directory 0 600 1700000000"]
        );
        assert_eq!(told(&[&header("x", b'3', 0, "")]), Err(TarError::Kind('3')));
        let mut sizeless = header("x", b'0', 0, "");
        sizeless[124..136].fill(b'9');
        assert_eq!(told(&[&sealed(sizeless)]), Err(TarError::Field("size")));
        let mut endless = header("x", b'0', 1 << 40, "");
        endless[128] = 0xff;
        assert_eq!(told(&[&sealed(endless)]), Err(TarError::Field("size that a file can have")));
        let large = told(&[&header("x", b'0', 1 << 40, "")]);
        assert_eq!(large, Err(TarError::Cut));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_apart_or_refused(bytes: Vec<u8>, cut: prop::sample::Index) {
            let at = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) };
            drop(told(&[&bytes[..at], &bytes[at..]]));
        }
    }
}
