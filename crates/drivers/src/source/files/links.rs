//! Groups of hard links: the files of one inode in one root, found by sorting.

use seaworthy_interface::DriverError;

use super::sorted::{Sorted, path_of};

/// What identifies a file with several names. Links between two roots are not groups: each root is restored by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) root: usize,
    pub(super) device: u64,
    pub(super) number: u64,
}

const INODE_BYTES: usize = 24;

impl Inode {
    /// The key of one of its names: by inode, then by path.
    pub(super) fn key(self, path_key: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(INODE_BYTES + path_key.len());
        key.extend_from_slice(&(self.root as u64).to_be_bytes());
        key.extend_from_slice(&self.device.to_be_bytes());
        key.extend_from_slice(&self.number.to_be_bytes());
        key.extend_from_slice(path_key);
        key
    }
}

/// Calls `member` for every name: its path, the first path of its group where there are at least two, and its value.
pub(super) fn each(
    mut names: Sorted,
    mut member: impl FnMut(&[u8], Option<&[u8]>, &[u8]) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let mut first: Option<First> = None;
    while let Some((key, value)) = names.next()? {
        let (inode, path) = key.split_at(INODE_BYTES.min(key.len()));
        let path = path_of(path);
        match &mut first {
            Some(first) if first.inode.as_slice() == inode => {
                if !first.is_told {
                    member(&first.path, Some(&first.path), &first.value)?;
                    first.is_told = true;
                }
                member(&path, Some(&first.path), &value)?;
            }
            other => {
                if let Some(alone) = other.as_ref().filter(|first| !first.is_told) {
                    member(&alone.path, None, &alone.value)?;
                }
                *other = Some(First { inode: inode.to_vec(), path, value, is_told: false });
            }
        }
    }
    match first.filter(|first| !first.is_told) {
        Some(alone) => member(&alone.path, None, &alone.value),
        None => Ok(()),
    }
}

/// The first name of an inode.
struct First {
    inode: Vec<u8>,
    path: Vec<u8>,
    value: Vec<u8>,
    /// Whether it has been told as the first of several.
    is_told: bool,
}

#[cfg(test)]
mod tests {
    use super::super::sorted::{Sorter, path_key};
    use super::*;

    #[test]
    fn names_of_one_inode_are_a_group_and_a_single_one_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(scratch.path());
        let names: [(usize, u64, &str); 7] = [
            (0, 7, "/b"),
            (0, 7, "/a/x"),
            (0, 8, "/c"),
            (1, 7, "/d"),
            (0, 9, "/e"),
            (0, 9, "/f"),
            (0, 7, "/a-b"),
        ];
        for (root, number, path) in names {
            let inode = Inode { root, device: 1, number };
            sorter.push(&inode.key(&path_key(path.as_bytes())), b"v").unwrap();
        }
        let mut told = Vec::new();
        each(sorter.finish().unwrap(), |path, first, value| {
            assert_eq!(value, b"v");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            told.push((text(path), first.map(text)));
            Ok(())
        })
        .unwrap();
        let pair = |path: &str, first: Option<&str>| (path.to_owned(), first.map(str::to_owned));
        assert_eq!(
            told,
            [
                pair("/a/x", Some("/a/x")),
                pair("/a-b", Some("/a/x")),
                pair("/b", Some("/a/x")),
                pair("/c", None),
                pair("/e", Some("/e")),
                pair("/f", Some("/e")),
                pair("/d", None),
            ]
        );
    }
}
