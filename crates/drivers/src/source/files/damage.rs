//! The control line's damage to a restored tree: one entry, harmed so that only the check that is meant may notice.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use seaworthy_interface::{CopyReader, Damage, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::witness::FilesWitness;
use seaworthy_model::witness::files::{
    CONTENT, ENTRIES, FileEntry, FileKind, HARDLINKS, Link, METADATA, TYPES, escape,
};

use super::compare::Lines;
use super::walk::Place;
use super::{Watch, failed, set_times};

/// Kinds of damage, each with the check that must notice it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    Flip,
    Delete,
    Chmod,
    Retarget,
    Split,
}

impl Harm {
    fn applies(self, entry: &FileEntry) -> bool {
        let is_file = entry.kind == FileKind::File;
        match self {
            Self::Flip => is_file && entry.content.as_ref().is_some_and(|content| content.size > 0),
            Self::Delete | Self::Chmod => is_file,
            Self::Retarget => entry.kind == FileKind::Symlink,
            // Not the first of its group: that one leaving would rename the whole group.
            Self::Split => matches!(&entry.link, Link::Group(first) if *first != entry.path),
        }
    }

    fn code(self) -> FindingCode {
        match self {
            Self::Flip => FindingCode::FileContent,
            Self::Delete => FindingCode::FileMissing,
            Self::Chmod => FindingCode::FileMetadata,
            Self::Retarget => FindingCode::FileType,
            Self::Split => FindingCode::FileLinks,
        }
    }

    /// Name of the check that must find it.
    fn check(self) -> &'static str {
        match self {
            Self::Flip => CONTENT,
            Self::Delete => ENTRIES,
            Self::Chmod => METADATA,
            Self::Retarget => TYPES,
            Self::Split => HARDLINKS,
        }
    }
}

/// splitmix64: the receipt's seed gives the same damage again.
fn roll(state: &mut u64, sides: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % sides.max(1)
}

pub(super) fn damage(
    expected: &FilesWitness,
    from: &dyn CopyReader,
    placed: &[Place],
    seed: u64,
    watch: &Watch,
) -> Result<Damage, DriverError> {
    let mut dice = seed;
    // Of each kind one entry, every one as likely as any other, in one reading of the manifest.
    let mut candidates: BTreeMap<Harm, (u64, Vec<u8>)> = BTreeMap::new();
    let mut lines = Lines::of(expected, from)?;
    let mut read = 0_u64;
    while let Some(entry) = lines.next()? {
        read += 1;
        if read.is_multiple_of(1024) {
            watch.check()?;
        }
        for harm in [Harm::Flip, Harm::Delete, Harm::Chmod, Harm::Retarget, Harm::Split] {
            if harm.applies(&entry) {
                let (count, chosen) = candidates.entry(harm).or_default();
                *count += 1;
                if roll(&mut dice, *count) == 0 {
                    chosen.clone_from(&entry.path);
                }
            }
        }
    }
    let turn = usize::try_from(roll(&mut dice, candidates.len() as u64)).unwrap_or(0);
    let Some((harm, (_, path))) = candidates.into_iter().nth(turn) else {
        return add_file(placed);
    };
    let wrong = |error| DriverError::io(format!("damage `{}`", path.escape_ascii()), error);
    for placed in placed {
        let Some((directory, name)) = placed.find(&path).map_err(wrong)? else { continue };
        let description = inflict(harm, &directory, &name, &mut dice).map_err(wrong)?;
        return Ok(Damage {
            description: format!("{description} `{}`", escape(&path)),
            expected: vec![harm.code()],
            checks: vec![harm.check().to_owned()],
        });
    }
    Err(DriverError::new(ErrorKind::NotFound, format!("damage `{}`", escape(&path))))
}

/// Where there is nothing to damage, something that does not belong there will do.
fn add_file(placed: &[Place]) -> Result<Damage, DriverError> {
    let Some(first) = placed.first() else {
        return Err(DriverError::new(ErrorKind::NotFound, "damage a restore that holds nothing"));
    };
    let path = first.at.join("seaworthy-was-here");
    fs::File::create_new(&path).map_err(failed("make", &path))?;
    Ok(Damage {
        description: "added a file to a tree without any".to_owned(),
        expected: vec![FindingCode::FileMissing],
        checks: vec![ENTRIES.to_owned()],
    })
}

/// Does one harm, and leaves every time as it was: only the check that is meant may notice.
fn inflict(harm: Harm, directory: &OwnedFd, name: &CString, dice: &mut u64) -> io::Result<&'static str> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let above = rustix::fs::fstat(directory)?;
    let owner = (Some(rustix::fs::Uid::from_raw(stat.st_uid)), Some(rustix::fs::Gid::from_raw(stat.st_gid)));
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let description = match harm {
        Harm::Flip => {
            let file = open_writable(directory, name, mode)?;
            let offset = roll(dice, u64::try_from(stat.st_size).unwrap_or(0));
            let mut byte = [0];
            rustix::io::pread(&file, &mut byte, offset)?;
            byte[0] ^= 1 << roll(dice, 8);
            rustix::io::pwrite(&file, &byte, offset)?;
            rustix::fs::fchmod(&file, mode)?;
            "flipped a bit, keeping size and time, of"
        }
        Harm::Delete => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            "deleted"
        }
        Harm::Chmod => {
            let other = Mode::from_raw_mode((stat.st_mode & 0o7777) ^ 0o040);
            rustix::fs::chmodat(directory, name, other, AtFlags::empty())?;
            "changed the mode of"
        }
        Harm::Retarget => {
            let mut target = rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes();
            target.push(b'~');
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            rustix::fs::symlinkat(target.as_slice(), directory, name)?;
            "retargeted"
        }
        Harm::Split => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut source = fs::File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let created = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut target = fs::File::from(created);
            io::copy(&mut source, &mut target)?;
            rustix::fs::fchmod(&target, mode)?;
            "split from its hard links"
        }
    };
    match harm {
        Harm::Retarget | Harm::Split => {
            let changed = rustix::fs::chownat(directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
            match changed {
                Ok(()) => {}
                Err(rustix::io::Errno::PERM) if !rustix::process::geteuid().is_root() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Harm::Flip | Harm::Delete | Harm::Chmod => {}
    }
    if harm != Harm::Delete {
        set_times(directory, name, &stat)?;
    }
    set_times(directory, c".", &above)?;
    Ok(description)
}

/// Opens a file of ours for writing, whatever its mode says.
fn open_writable(directory: &OwnedFd, name: &CString, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => {
            rustix::fs::chmodat(directory, name, mode | Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
            Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
        }
        opened => Ok(opened?),
    }
}
