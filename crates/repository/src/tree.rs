//! Directories: the JSON of a tree blob, byte for byte as restic writes it. Pure.
//!
//! The same directory must give the same bytes each time, because the id of a tree is the hash of its JSON.

use std::io::Read;

use serde_json::Value;

use crate::error::{Object, RepositoryError, Result};
use crate::id::Id;
use crate::json::{self, Base64, go_struct, push_base64, push_lossy_string, push_number, push_string};
use crate::quote::{quote, unquote};
use crate::time::Time;

/// The tree of the empty directory, with its newline.
pub const EMPTY: &[u8] = b"{\"nodes\":[]}\n";

/// What is read of a streamed tree at once …
const CHUNK: usize = 256 << 10;
/// … and how long one entry may be, written and read: a file of 16 million pieces.
const ENTRY_MAX: usize = 1 << 30;

/// Go's `FileMode` bits above the permissions.
pub mod mode {
    /// A directory.
    pub const DIR: u32 = 1 << 31;
    /// A symbolic link.
    pub const SYMLINK: u32 = 1 << 27;
    /// A device.
    pub const DEVICE: u32 = 1 << 26;
    /// A named pipe.
    pub const FIFO: u32 = 1 << 25;
    /// A socket.
    pub const SOCKET: u32 = 1 << 24;
    /// Set user id.
    pub const SETUID: u32 = 1 << 23;
    /// Set group id.
    pub const SETGID: u32 = 1 << 22;
    /// A character device, together with [`DEVICE`].
    pub const CHAR_DEVICE: u32 = 1 << 21;
    /// Sticky.
    pub const STICKY: u32 = 1 << 20;

    /// Go's mode for the kernel's `st_mode`.
    #[must_use]
    pub fn from_unix(st_mode: u32) -> u32 {
        let mut mode = st_mode & 0o777;
        mode |= match st_mode & 0o170_000 {
            0o040_000 => DIR,
            0o120_000 => SYMLINK,
            0o020_000 => DEVICE | CHAR_DEVICE,
            0o060_000 => DEVICE,
            0o010_000 => FIFO,
            0o140_000 => SOCKET,
            _ => 0,
        };
        if st_mode & 0o4000 != 0 {
            mode |= SETUID;
        }
        if st_mode & 0o2000 != 0 {
            mode |= SETGID;
        }
        if st_mode & 0o1000 != 0 {
            mode |= STICKY;
        }
        mode
    }

    /// The kernel's permission bits, setuid, setgid and sticky included. Kernel bits in Go's mode are ignored, as restic does.
    #[must_use]
    pub fn to_unix_permissions(mode: u32) -> u32 {
        let mut bits = mode & 0o777;
        if mode & SETUID != 0 {
            bits |= 0o4000;
        }
        if mode & SETGID != 0 {
            bits |= 0o2000;
        }
        if mode & STICKY != 0 {
            bits |= 0o1000;
        }
        bits
    }
}

/// What a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Device,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A kind that this version does not know; it is listed, and restoring it is an error.
    Other(String),
}

impl NodeKind {
    /// The word in the tree.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            NodeKind::File => "file",
            NodeKind::Dir => "dir",
            NodeKind::Symlink => "symlink",
            NodeKind::Device => "dev",
            NodeKind::CharDevice => "chardev",
            NodeKind::Fifo => "fifo",
            NodeKind::Socket => "socket",
            NodeKind::Other(word) => word,
        }
    }

    fn from_word(word: &str) -> Self {
        match word {
            "file" => NodeKind::File,
            "dir" => NodeKind::Dir,
            "symlink" => NodeKind::Symlink,
            "dev" => NodeKind::Device,
            "chardev" => NodeKind::CharDevice,
            "fifo" => NodeKind::Fifo,
            "socket" => NodeKind::Socket,
            other => NodeKind::Other(other.to_owned()),
        }
    }
}

/// An extended attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xattr {
    /// Its name, as listed by the kernel.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// One entry of a directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Raw bytes, one path component.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// Go's mode bits, see [`mode`].
    pub mode: u32,
    /// Last change of the content.
    pub mtime: Time,
    /// restic stores mtime here.
    pub atime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name, empty when it has none.
    pub user: String,
    /// Group's name, empty when it has none.
    pub group: String,
    /// Inode number, 0 when there is none.
    pub inode: u64,
    /// Device that holds the inode, 0 when there is none.
    pub device_id: u64,
    /// Size of a file: the sum of its pieces.
    pub size: u64,
    /// Number of hard links; more than one only with a true inode.
    pub links: u64,
    /// Target of a symbolic link, true bytes.
    pub linktarget: Vec<u8>,
    /// Was the link target stored with replacement characters instead of its bytes (restic before 0.16)?
    pub linktarget_lossy: bool,
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
    /// Attributes of other systems, kept as they are.
    pub generic_attributes: Option<Value>,
    /// `st_rdev` of a device.
    pub device: u64,
    /// The pieces of a file; `None` where the tree says `null`.
    pub content: Option<Vec<Id>>,
    /// The tree of a directory.
    pub subtree: Option<Id>,
    /// What the writer could not read.
    pub error: String,
}

impl Node {
    /// Is the name safe to create: one component, not `.`, `..` or empty, without `/` and NUL?
    #[must_use]
    pub fn name_is_safe(&self) -> bool {
        name_is_safe(&self.name)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"name\":");
        push_string(out, &quote(&self.name));
        out.extend_from_slice(b",\"type\":");
        push_string(out, self.kind.word());
        let number = |out: &mut Vec<u8>, key: &[u8], n: u64| {
            if n != 0 {
                out.extend_from_slice(key);
                push_number(out, n);
            }
        };
        let text = |out: &mut Vec<u8>, key: &[u8], text: &str| {
            if !text.is_empty() {
                out.extend_from_slice(key);
                push_string(out, text);
            }
        };
        let time = |out: &mut Vec<u8>, key: &[u8], time: Time| {
            out.extend_from_slice(key);
            out.push(b'"');
            time.push(out);
            out.push(b'"');
        };
        number(out, b",\"mode\":", u64::from(self.mode));
        time(out, b",\"mtime\":", self.mtime);
        time(out, b",\"atime\":", self.atime);
        time(out, b",\"ctime\":", self.ctime);
        out.extend_from_slice(b",\"uid\":");
        push_number(out, u64::from(self.uid));
        out.extend_from_slice(b",\"gid\":");
        push_number(out, u64::from(self.gid));
        text(out, b",\"user\":", &self.user);
        text(out, b",\"group\":", &self.group);
        number(out, b",\"inode\":", self.inode);
        number(out, b",\"device_id\":", self.device_id);
        number(out, b",\"size\":", self.size);
        number(out, b",\"links\":", self.links);
        if !self.linktarget.is_empty() {
            out.extend_from_slice(b",\"linktarget\":");
            if self.linktarget_lossy {
                let bytes = String::from_utf8_lossy(&self.linktarget).replace('\u{fffd}', "\0");
                let mut escaped = Vec::new();
                push_string(&mut escaped, &bytes);
                out.extend_from_slice(
                    String::from_utf8_lossy(&escaped).replace("\\u0000", "\\ufffd").as_bytes(),
                );
            } else {
                push_lossy_string(out, &self.linktarget);
                if std::str::from_utf8(&self.linktarget).is_err() {
                    out.extend_from_slice(b",\"linktarget_raw\":");
                    push_base64(out, &self.linktarget);
                }
            }
        }
        if !self.xattrs.is_empty() {
            out.extend_from_slice(b",\"extended_attributes\":[");
            for (i, xattr) in self.xattrs.iter().enumerate() {
                out.extend_from_slice(if i == 0 { b"{\"name\":" } else { b",{\"name\":" });
                push_string(out, &xattr.name);
                out.extend_from_slice(b",\"value\":");
                push_base64(out, &xattr.value);
                out.push(b'}');
            }
            out.push(b']');
        }
        if let Some(attributes) = &self.generic_attributes {
            out.extend_from_slice(b",\"generic_attributes\":");
            out.extend_from_slice(attributes.to_string().as_bytes());
        }
        number(out, b",\"device\":", self.device);
        out.extend_from_slice(b",\"content\":");
        match &self.content {
            None => out.extend_from_slice(b"null"),
            Some(ids) => {
                out.push(b'[');
                let mut text = String::with_capacity(64);
                for (i, id) in ids.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    text.clear();
                    id.push_hex(&mut text);
                    out.push(b'"');
                    out.extend_from_slice(text.as_bytes());
                    out.push(b'"');
                }
                out.push(b']');
            }
        }
        if let Some(subtree) = &self.subtree {
            out.extend_from_slice(b",\"subtree\":\"");
            out.extend_from_slice(subtree.hex().as_bytes());
            out.push(b'"');
        }
        text(out, b",\"error\":", &self.error);
        out.push(b'}');
    }
}

pub(crate) fn name_is_safe(name: &[u8]) -> bool {
    !(name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0))
}

/// The bytes of a tree, entry by entry.
#[derive(Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
    last: Option<Vec<u8>>,
}

impl Encoder {
    /// Appends an entry; refuses names out of order, duplicates, and names that are not one safe component.
    pub(crate) fn push(&mut self, node: &Node) -> Result<()> {
        if !node.name_is_safe() {
            return Err(RepositoryError::refused(format!(
                "name \"{}\" is not one path component",
                quote(&node.name)
            )));
        }
        match &mut self.last {
            None => {
                self.bytes.extend_from_slice(b"{\"nodes\":[");
                self.last = Some(node.name.clone());
            }
            Some(last) => {
                if *last >= node.name {
                    return Err(RepositoryError::refused(format!(
                        "name \"{}\" is out of order",
                        quote(&node.name)
                    )));
                }
                self.bytes.push(b',');
                last.clear();
                last.extend_from_slice(&node.name);
            }
        }
        let before = self.bytes.len();
        node.encode(&mut self.bytes);
        if self.bytes.len() - before > ENTRY_MAX {
            // Nobody could read it back.
            return Err(RepositoryError::refused(format!(
                "\"{}\" has {} pieces: an entry of more than {ENTRY_MAX} bytes cannot be stored",
                quote(&node.name),
                node.content.as_ref().map_or(0, Vec::len)
            )));
        }
        Ok(())
    }

    /// What was appended since it was last taken; whoever takes it clears it.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The rest of the bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        match self.last {
            None => EMPTY.to_vec(),
            Some(_) => {
                self.bytes.extend_from_slice(b"]}\n");
                self.bytes
            }
        }
    }
}

/// The bytes of a tree; refuses names out of order, duplicates, and names that are not one safe component.
pub fn encode(nodes: &[Node]) -> Result<Vec<u8>> {
    let mut encoder = Encoder::default();
    nodes.iter().try_for_each(|node| encoder.push(node))?;
    Ok(encoder.finish())
}

/// Re-serialises without any check; only for proving that decoding lost nothing.
#[doc(hidden)]
#[must_use]
pub fn encode_unchecked(nodes: &[Node]) -> Vec<u8> {
    let mut out = b"{\"nodes\":[".to_vec();
    for (i, node) in nodes.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        node.encode(&mut out);
    }
    out.extend_from_slice(b"]}\n");
    out
}

go_struct! {
    #[derive(Default)]
    struct XattrJson {
        name: String = "name",
        value: Base64 = "value",
    }
}

go_struct! {
    #[derive(Default)]
    struct NodeJson {
        name: String = "name",
        kind: String = "type",
        mode: u32 = "mode",
        mtime: Time = "mtime",
        atime: Time = "atime",
        ctime: Time = "ctime",
        uid: u32 = "uid",
        gid: u32 = "gid",
        user: String = "user",
        group: String = "group",
        inode: u64 = "inode",
        device_id: u64 = "device_id",
        size: u64 = "size",
        links: u64 = "links",
        linktarget: String = "linktarget",
        linktarget_raw: Base64 = "linktarget_raw",
        xattrs: Vec<XattrJson> = "extended_attributes",
        generic_attributes: Value = "generic_attributes",
        device: u64 = "device",
        content: Vec<Id> = "content",
        // Go tells null from [] by leaving the slice nil; so does this field's absence.
        subtree: Option<Id> = "subtree",
        error: String = "error",
    }
}

/// `Some` only when the JSON had an array.
#[derive(Default)]
struct NodeContent(NodeJson, bool);

impl<'de> serde::Deserialize<'de> for NodeContent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `content` is read as `Vec`, whose emptiness does not say whether it was null; a dir has no content and a file
        // always has, so only an empty list needs the distinction, and the kind decides it.
        let node = NodeJson::deserialize(deserializer)?;
        let present = !node.content.is_empty() || node.kind == "file";
        Ok(Self(node, present))
    }
}

/// The nodes of a tree, in their stored order, names as stored (safe or not).
///
/// Refuses what restic cannot decode either: bad JSON, numbers that do not fit, badly quoted names.
pub fn decode(id: &Id, bytes: &[u8]) -> Result<Vec<Node>> {
    Entries::held(*id, bytes.to_vec()).collect()
}

fn node_of(NodeContent(node, present): NodeContent) -> Result<Node, String> {
    let name = unquote(&node.name).ok_or_else(|| format!("badly quoted name {:?}", node.name))?;
    let lossy = node.linktarget_raw.0.is_empty() && node.linktarget.contains('\u{fffd}');
    Ok(Node {
        name,
        kind: NodeKind::from_word(&node.kind),
        mode: node.mode,
        mtime: node.mtime,
        atime: node.atime,
        ctime: node.ctime,
        uid: node.uid,
        gid: node.gid,
        user: node.user,
        group: node.group,
        inode: node.inode,
        device_id: node.device_id,
        size: node.size,
        links: node.links,
        linktarget: if node.linktarget_raw.0.is_empty() {
            node.linktarget.into_bytes()
        } else {
            node.linktarget_raw.0
        },
        linktarget_lossy: lossy,
        xattrs: node.xattrs.into_iter().map(|x| Xattr { name: x.name, value: x.value.0 }).collect(),
        generic_attributes: (!node.generic_attributes.is_null()).then_some(node.generic_attributes),
        device: node.device,
        content: present.then_some(node.content),
        subtree: node.subtree,
        error: node.error,
    })
}

/// The nodes of a tree one by one, in their stored order, names as stored (safe or not).
///
/// It holds the JSON, not the nodes, and of a large tree only a part of the JSON. An error ends it; a tree is sound only
/// when its end was reached without one.
pub(crate) struct Entries {
    id: Id,
    // The rest of the JSON, after what is in the buffer.
    rest: Option<Box<dyn Read + Send>>,
    buffer: Vec<u8>,
    at: usize,
    // What is read at once.
    chunk: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    First,
    Next,
    Ended,
}

/// Why a value was not read.
enum Unread {
    /// It, or the error, is final.
    Bad(String),
    Io(std::io::Error),
}

impl Entries {
    /// Of a tree whose JSON, verified by the caller, is held.
    pub(crate) fn held(id: Id, json: Vec<u8>) -> Self {
        Self { id, rest: None, buffer: json, at: 0, chunk: CHUNK, state: State::Begin }
    }

    /// Of a tree whose JSON, verified by the caller, comes as a stream.
    pub(crate) fn streamed(id: Id, json: Box<dyn Read + Send>) -> Self {
        Self { id, rest: Some(json), buffer: Vec::new(), at: 0, chunk: CHUNK, state: State::Begin }
    }

    /// Reads more; whether there was more.
    fn refill(&mut self) -> Result<bool, Unread> {
        let Some(rest) = &mut self.rest else { return Ok(false) };
        self.buffer.drain(..self.at);
        self.at = 0;
        let filled = self.buffer.len();
        if filled > ENTRY_MAX {
            return Err(Unread::Bad(format!("an entry in it is longer than {ENTRY_MAX} bytes")));
        }
        // At least doubled, so that a long entry is not parsed from its beginning too often.
        let more = filled.max(self.chunk);
        self.buffer.reserve_exact(more);
        let n = rest.take(more as u64).read_to_end(&mut self.buffer).map_err(Unread::Io)?;
        if n == 0 {
            self.rest = None;
        }
        Ok(n > 0)
    }

    /// The next byte that is not white space, not taken.
    fn peek(&mut self) -> Result<Option<u8>, Unread> {
        loop {
            while let Some(byte) = self.buffer.get(self.at) {
                if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                    return Ok(Some(*byte));
                }
                self.at += 1;
            }
            if !self.refill()? {
                return Ok(None);
            }
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Unread> {
        match self.peek()? {
            Some(byte) if byte == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(byte) => {
                Err(Unread::Bad(format!("expected {:?}, found {:?}", char::from(wanted), char::from(byte))))
            }
            None => Err(Unread::Bad("it ends within a value".into())),
        }
    }

    /// The next value.
    fn value<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Unread> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer[self.at..]).into_iter::<T>();
            let error = match values.next() {
                Some(Ok(value)) => {
                    let end = self.at + values.byte_offset();
                    // A number may go on in what was not read yet.
                    if end == self.buffer.len() && self.refill()? {
                        continue;
                    }
                    self.at = end.min(self.buffer.len());
                    return Ok(value);
                }
                Some(Err(error)) if !error.is_eof() => error.to_string(),
                Some(Err(_)) | None => {
                    if self.refill()? {
                        continue;
                    }
                    return Err(Unread::Bad("it ends within a value".into()));
                }
            };
            let Some(length) = json::value_length(&self.buffer[self.at..]) else {
                // A number that is cut within may read as a wrong one.
                if self.refill()? {
                    continue;
                }
                return Err(Unread::Bad(error));
            };
            // Bytes that are not UTF-8 are replaced, as Go does.
            if std::str::from_utf8(&self.buffer[self.at..self.at + length]).is_ok() {
                return Err(Unread::Bad(error));
            }
            let end = self.at + length;
            let value = json::parse(&self.buffer[self.at..end]).map_err(|e| Unread::Bad(e.to_string()))?;
            self.at = end;
            return Ok(value);
        }
    }

    /// Up to the list of nodes.
    fn begin(&mut self) -> Result<(), Unread> {
        self.expect(b'{')?;
        if self.key_before_list(true)? {
            self.state = State::First;
            return Ok(());
        }
        Err(Unread::Bad("it has no list of nodes".into()))
    }

    /// Skips members of the outermost object; whether it stopped in the list of nodes, not at the end.
    fn key_before_list(&mut self, mut is_first: bool) -> Result<bool, Unread> {
        loop {
            match self.peek()? {
                Some(b'}') => {
                    self.at += 1;
                    return Ok(false);
                }
                _ if is_first => is_first = false,
                _ => self.expect(b',')?,
            }
            if self.peek()? != Some(b'"') {
                return Err(Unread::Bad("a key is missing".into()));
            }
            let key: String = self.value()?;
            self.expect(b':')?;
            if key.eq_ignore_ascii_case("nodes") && self.peek()? == Some(b'[') {
                self.at += 1;
                return Ok(true);
            }
            if key.eq_ignore_ascii_case("nodes") {
                // `null` leaves it as it was; anything else is no list.
                self.value::<Option<Vec<serde::de::IgnoredAny>>>()?;
            } else {
                self.value::<serde::de::IgnoredAny>()?;
            }
        }
    }

    fn read(&mut self) -> Result<Option<Node>, Unread> {
        if self.state == State::Begin {
            self.begin()?;
        }
        match self.peek()? {
            Some(b']') => {
                self.at += 1;
                if self.key_before_list(false)? {
                    return Err(Unread::Bad("it has two lists of nodes".into()));
                }
                if self.peek()?.is_some() {
                    return Err(Unread::Bad("something follows it".into()));
                }
                self.state = State::Ended;
                return Ok(None);
            }
            _ if self.state == State::First => self.state = State::Next,
            _ => self.expect(b',')?,
        }
        self.peek()?;
        let node: NodeContent = self.value()?;
        node_of(node).map(Some).map_err(Unread::Bad)
    }
}

impl Iterator for Entries {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        match self.read() {
            Ok(node) => node.map(Ok),
            Err(unread) => {
                self.state = State::Ended;
                Some(Err(match unread {
                    Unread::Bad(why) => RepositoryError::inconsistent(Object::Tree, self.id, why),
                    Unread::Io(e) => RepositoryError::io("read", format!("tree {}", self.id), e),
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Trap 10.
    #[test]
    fn the_empty_directory_is_the_empty_tree() {
        assert_eq!(encode(&[]).unwrap(), EMPTY);
        assert_eq!(Id::of(EMPTY).hex(), "ac08ce34ba4f8123618661bef2425f7028ffb9ac740578a3ee88684d2523fee8");
    }

    /// Trap 10.
    #[test]
    fn an_empty_file_has_a_list_and_everything_else_null() {
        let file = Node { name: b"f".to_vec(), content: Some(vec![]), ..Node::default() };
        let dir = Node {
            name: b"d".to_vec(),
            kind: NodeKind::Dir,
            subtree: Some(Id::of(EMPTY)),
            ..Node::default()
        };
        let text = String::from_utf8(encode(&[dir, file]).unwrap()).unwrap();
        assert!(text.contains(r#""content":null,"subtree""#), "{text}");
        assert!(text.contains(r#""content":[]}"#), "{text}");
        assert!(!text.contains("size"));
    }

    /// Trap 6.
    #[test]
    fn nodes_are_ordered_by_raw_bytes() {
        let names: Vec<&[u8]> =
            vec![b"B", b"a", b"a-b", b"a.b", b"a.txt", b"ab", "café".as_bytes(), b"caf\xe9"];
        let mut nodes: Vec<Node> = names
            .iter()
            .map(|n| Node { name: n.to_vec(), content: Some(vec![]), ..Node::default() })
            .collect();
        assert!(encode(&nodes).is_ok());
        nodes.swap(3, 4);
        assert!(encode(&nodes).is_err());
        nodes[4] = nodes[3].clone();
        assert!(encode(&nodes).is_err());
    }

    #[test]
    fn unsafe_names_are_never_written() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            let node = Node { name: name.to_vec(), ..Node::default() };
            assert!(encode(&[node]).is_err(), "{name:?}");
        }
    }

    /// Trap 8.
    #[test]
    fn modes_are_those_of_go() {
        for (unix, go) in [
            (0o100_644, 420),
            (0o040_755, 2_147_484_141),
            (0o041_777, 2_148_532_735),
            (0o120_777, 134_218_239),
            (0o010_640, 33_554_848),
            (0o020_600, 69_206_400),
            (0o060_600, 67_109_248),
            (0o104_755, 8_389_101),
            (0o102_755, 4_194_797),
        ] {
            assert_eq!(mode::from_unix(unix), go, "{unix:o}");
            assert_eq!(mode::to_unix_permissions(go), unix & 0o7777, "{unix:o}");
        }
    }

    /// However the stream is cut, the nodes are those of the whole.
    #[test]
    fn a_streamed_tree_has_the_nodes_of_the_held_one() {
        struct Trickle(std::io::Cursor<Vec<u8>>, usize);
        impl Read for Trickle {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let n = out.len().min(self.1);
                self.0.read(&mut out[..n])
            }
        }
        let many: Vec<Node> = (0..3000)
            .map(|n| Node {
                name: format!("file {n:05} \u{e9}").into_bytes(),
                size: n,
                content: Some(vec![Id::of(b"x"); usize::try_from(n % 50).unwrap()]),
                ..Node::default()
            })
            .collect();
        let json = encode(&many).unwrap();
        assert!(json.len() > 4 * CHUNK);
        for step in [1, 1000, CHUNK - 1, CHUNK, usize::MAX] {
            let stream = Trickle(std::io::Cursor::new(json.clone()), step);
            let nodes: Result<Vec<Node>> = Entries::streamed(Id::default(), Box::new(stream)).collect();
            assert_eq!(nodes.unwrap(), many, "in steps of {step}");
        }
        let cuttable = json;
        // Whatever is cut: numbers, escapes, characters, keys of the future.
        let json = "{ \"a\": -12.5e+10 , \"b\": [1, -2.5E-3, {\"c\": \"\\u00e9\\\\ é\"}], \"nodes\" :\n[ {\"name\": \"é\", \"type\": \
                    \"file\", \"z\": -1.5e-7, \"uid\": 1000, \"x\": [true, null]} ,{\"name\":\"b\",\"type\":\"dir\"}] , \"y\": 1e+5 }\n";
        let whole = decode(&Id::default(), json.as_bytes()).unwrap();
        assert_eq!((whole.len(), whole[0].uid), (2, 1000));
        for chunk in 1..json.len() + 1 {
            let stream = Box::new(std::io::Cursor::new(json.as_bytes().to_vec()));
            let entries = Entries { chunk, ..Entries::streamed(Id::default(), stream) };
            assert_eq!(entries.collect::<Result<Vec<Node>>>().unwrap(), whole, "in chunks of {chunk}");
        }
        for cut in [0, 1, 9, 10, 11, CHUNK, cuttable.len() - 3, cuttable.len() - 2] {
            let stream = std::io::Cursor::new(cuttable[..cut].to_vec());
            let nodes: Result<Vec<Node>> = Entries::streamed(Id::default(), Box::new(stream)).collect();
            assert!(nodes.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced() {
        let json = b"{\"nodes\":[{\"name\":\"a\",\"type\":\"file\",\"user\":\"\xff}\\\"]\"},{\"name\":\"b\",\"type\":\"dir\"}]}";
        let nodes = decode(&Id::default(), json).unwrap();
        assert_eq!(nodes[0].user, "\u{fffd}}\"]");
        assert_eq!(nodes[1].name, b"b");
    }

    #[test]
    fn what_breaks_restic_is_refused() {
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"nodes":null}"#,
            r#"{"nodes":7}"#,
            r#"{"nodes":[}"#,
            r#"{"nodes":[,]}"#,
            r#"{"nodes":[{},]}"#,
            r#"{"nodes":[{} {}]}"#,
            r#"{"nodes":[7]}"#,
            r#"{"nodes":[]"#,
            r#"{"nodes":[]} x"#,
            r#"{"nodes":[],}"#,
            r#"{"nodes":[],"nodes":[]}"#,
            r#"{"nodes":[] "x":1}"#,
            r#"{"nodes":[{"name":"a","type":"file","uid":-1}]}"#,
            r#"{"nodes":[{"name":"a\"b","type":"file"}]}"#,
            r#"{"nodes":[{"name":"a\nb","type":"file"}]}"#,
            r#"{"nodes":[{"name":"a","type":"file","mtime":"10000-01-01T00:00:00Z"}]}"#,
        ] {
            assert!(decode(&Id::default(), bad.as_bytes()).is_err(), "{bad}");
        }
        let tolerated = r#"{ "x": 1, "nodes": null, "Nodes": [ {"Type":"file", "NAME":"a", "nodes": [], "content": []} ],
            "y": {"nodes": [1]}, "nodes": null } "#;
        assert_eq!(decode(&Id::default(), tolerated.as_bytes()).unwrap()[0].name, b"a");
    }

    proptest! {
        #[test]
        fn trees_round_trip(
            mut names in proptest::collection::btree_set(
                proptest::collection::vec(1u8..=255, 1..12).prop_filter("safe", |n| name_is_safe(n)), 0..12),
            seconds in any::<i64>(), nanos in 0u32..1_000_000_000, size in any::<u64>(), uid in any::<u32>(),
            target in proptest::collection::vec(1u8..=255, 0..12),
            value in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut nodes = Vec::new();
            while let Some(name) = names.pop_first() {
                let time = Time::from_unix(seconds, nanos);
                let link = size % 2 == 0;
                nodes.push(Node {
                    name, mtime: time, atime: time, ctime: time, uid, gid: uid, size, inode: size, links: 1,
                    kind: if link { NodeKind::Symlink } else { NodeKind::File },
                    // A target that holds U+FFFD reads back as one of unknown bytes; it is tried elsewhere.
                    linktarget: if String::from_utf8_lossy(&target).contains('\u{fffd}')
                        && std::str::from_utf8(&target).is_ok() { vec![] } else { target.clone() },
                    xattrs: vec![Xattr { name: "user.x".into(), value: value.clone() }],
                    content: (!link).then(|| vec![Id::of(b"x"); usize::from(uid % 3 == 0)]),
                    ..Node::default()
                });
            }
            let bytes = encode(&nodes).unwrap();
            prop_assert_eq!(decode(&Id::of(&bytes), &bytes).unwrap(), nodes);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode(&Id::default(), &bytes).ok();
        }
    }
}
