//! Helpers for the tests. Nothing here decides whether something is right.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use seaworthy_repository::crypto::Key;
use seaworthy_repository::index::{self, IndexedPack};
use seaworthy_repository::pack::{self, PackedBlob};
use seaworthy_repository::{
    BlobKind, Control, Cuts, FileKind, FileMeta, Id, InitOptions, KdfParams, OpenOptions, ParentUse,
    Repository, SessionOptions, SnapshotId, SnapshotPath, Store, TreeOptions, open_store,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) fn control() -> Control {
    Control::new()
}

pub(crate) fn init_options() -> InitOptions {
    InitOptions { kdf: KdfParams::fast_and_weak(), ..InitOptions::default() }
}

/// A fresh repository in a directory of its own.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) repository: Repository,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = open_store(dir.path().join("repo")).expect("store");
        let repository =
            Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control()).expect("init");
        Self { dir, repository }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn reopen(&self) -> Repository {
        open(&self.path(), PASSWORD)
    }
}

pub(crate) fn open(path: &Path, password: &str) -> Repository {
    let store = open_store(path).expect("store");
    Repository::open(&store, password.as_bytes(), &OpenOptions::default(), &control()).expect("open")
}

pub(crate) fn in_memory() -> (Store, Repository) {
    let store = Store::new(std::sync::Arc::new(object_store::memory::InMemory::new())).expect("store");
    let repository =
        Repository::init(&store, PASSWORD.as_bytes(), &init_options(), &control()).expect("init");
    (store, repository)
}

pub(crate) fn options(path: &str) -> SessionOptions {
    SessionOptions {
        hostname: "test-host".into(),
        paths: vec![path.into()],
        workers: 2,
        // What the tests take over they have just made.
        settled: std::time::Duration::ZERO,
        ..SessionOptions::default()
    }
}

pub(crate) fn at(path: &str) -> SnapshotPath {
    SnapshotPath::new(path).expect("a path")
}

/// One snapshot with one stream in it.
pub(crate) fn store_stream(repository: &Repository, path: &str, content: &[u8], cuts: Cuts) -> SnapshotId {
    let session = repository.begin(options(path), &control()).expect("begin");
    let mut file = session.file(&at(path), FileMeta::default(), cuts).expect("file");
    for part in content.chunks(300_001) {
        file.write(part).expect("write");
    }
    let stored = file.finish().expect("finish");
    assert_eq!(stored.size, content.len() as u64);
    session.commit(&control()).expect("commit").id
}

/// One snapshot of a directory.
pub(crate) fn store_tree(
    repository: &Repository,
    root: &Path,
    parent: ParentUse,
) -> seaworthy_repository::Committed {
    let options = SessionOptions { parent, ..options(root.to_str().expect("UTF-8")) };
    let session = repository.begin(options, &control()).expect("begin");
    session.tree(root, &TreeOptions::default(), &mut |_| {}).expect("tree");
    session.commit(&control()).expect("commit")
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Every restic to judge by: the one on `PATH` and those of `SEAWORTHY_TEST_RESTIC`.
pub(crate) fn restics() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join("restic"))
        .filter(|path| path.is_file())
        .take(1)
        .collect();
    if let Some(more) = std::env::var_os("SEAWORTHY_TEST_RESTIC") {
        found.extend(std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()));
    }
    assert!(
        !found.is_empty(),
        "stock restic is the judge of these tests: install it or set SEAWORTHY_TEST_RESTIC"
    );
    found
}

pub(crate) fn restic(binary: &Path, repository: &Path, arguments: &[&OsStr]) -> Output {
    Command::new(binary)
        .args(arguments)
        .env("RESTIC_REPOSITORY", repository)
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("RESTIC_CACHE_DIR", repository.parent().expect("a parent").join("cache"))
        .env_remove("RESTIC_PASSWORD_FILE")
        .output()
        .expect("restic starts")
}

pub(crate) fn restic_ok(binary: &Path, repository: &Path, arguments: &[&str]) -> Vec<u8> {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    let output = restic(binary, repository, &arguments);
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}\n{}\n{}",
        binary.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Every stock restic finds the repository whole, all data read.
pub(crate) fn judge(repository: &Path) {
    for binary in restics() {
        restic_ok(&binary, repository, &["check", "--read-data"]);
    }
}

pub(crate) fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden")
}

/// A working copy of a golden repository.
pub(crate) fn golden(name: &str) -> (TempDir, Repository) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(golden_dir().join(format!("{name}.tar.gz")))
        .arg("-C")
        .arg(dir.path())
        .status()
        .expect("tar starts");
    assert!(status.success());
    let repository = open(&dir.path().join(name), "golden-password");
    (dir, repository)
}

#[derive(Deserialize, Debug)]
pub(crate) struct ManifestEntry {
    pub(crate) path_base64: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) mode: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_ns: i128,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<String>,
    pub(crate) nlink: Option<u64>,
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

pub(crate) fn base64(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

impl ManifestEntry {
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(base64(&self.path_base64)))
    }
}

pub(crate) fn manifest(name: &str) -> Vec<ManifestEntry> {
    let text = std::fs::read(golden_dir().join(format!("{name}.manifest.json"))).expect("a manifest");
    serde_json::from_slice(&text).expect("JSON")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Everything that a restore must bring back, as comparable text, by path.
pub(crate) fn describe(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn visit(root: &Path, path: &Path, out: &mut BTreeMap<Vec<u8>, String>) {
        for entry in std::fs::read_dir(path).expect("list") {
            let path = entry.expect("entry").path();
            let meta = path.symlink_metadata().expect("look at");
            let kind = meta.file_type();
            let mut xattrs: Vec<_> = xattr::list(&path)
                .expect("attributes")
                .map(|name| {
                    let value = xattr::get(&path, &name).expect("attribute").unwrap_or_default();
                    format!("{}={}", name.to_string_lossy(), sha256(&value))
                })
                .collect();
            xattrs.sort();
            let content = if kind.is_file() {
                sha256(&std::fs::read(&path).expect("read"))
            } else if kind.is_symlink() {
                format!("{:?}", std::fs::read_link(&path).expect("link").as_os_str().as_bytes())
            } else {
                String::new()
            };
            let links = if kind.is_file() { meta.nlink() } else { 0 };
            let size = if kind.is_file() { meta.size() } else { 0 };
            let text = format!(
                "{:o} {}:{} {}.{:09} size {size} links {links} rdev {} {xattrs:?} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.rdev()
            );
            out.insert(path.strip_prefix(root).expect("below").as_os_str().as_bytes().to_vec(), text);
            if kind.is_dir() {
                visit(root, &path, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    visit(root, root, &mut out);
    out
}

pub(crate) fn assert_same_tree(expected: &Path, actual: &Path) {
    let (expected, actual) = (describe(expected), describe(actual));
    for (path, text) in &expected {
        assert_eq!(actual.get(path), Some(text), "{}", String::from_utf8_lossy(path));
    }
    let more: Vec<_> = actual
        .keys()
        .filter(|path| !expected.contains_key(*path))
        .map(|p| String::from_utf8_lossy(p))
        .collect();
    assert!(more.is_empty(), "not in the original: {more:?}");
}

/// Every file below a directory of the repository.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Overwrites a file of the repository, which is read-only.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).expect("remove");
    std::fs::write(path, bytes).expect("write");
}

/// A directory with everything that is easily lost.
pub(crate) fn odd_directory(root: &Path) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    std::fs::create_dir_all(root.join("dir/empty-dir")).expect("mkdir");
    let names: [&[u8]; 10] = [
        b"B",
        b"a",
        b"a-b",
        b"a.b",
        b"a.txt",
        b"ab",
        b"caf\xe9",
        "café".as_bytes(),
        b"q\"uote\\back\tslash\nnl <&>",
        "zw-\u{200b}-\u{a0}-\u{2028}-\u{fffd}-𝄞".as_bytes(),
    ];
    for name in names {
        std::fs::write(root.join(OsStr::from_bytes(name)), name.repeat(40)).expect("write");
    }
    std::fs::write(root.join("empty"), b"").expect("write");
    std::fs::write(root.join("big"), noise(5, 5_000_000)).expect("write");
    std::fs::write(root.join("text"), b"all work and no play\n".repeat(60_000)).expect("write");
    std::fs::write(root.join(".gitignore"), b"*\n").expect("write");
    let sparse = std::fs::File::create(root.join("sparse")).expect("create");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"head", 0).expect("write");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"tail", 3 << 20).expect("write");
    symlink("a", root.join("link")).expect("link");
    symlink("/nowhere/at/all", root.join("dir/dangling")).expect("link");
    std::fs::hard_link(root.join("a"), root.join("dir/hard")).expect("hard link");
    xattr::set(root.join("a"), "user.bin", &(0..=255).collect::<Vec<u8>>()).expect("attribute");
    xattr::set(root.join("a"), "user.empty", b"").expect("attribute");
    xattr::set(root.join("dir"), "user.dir", b"x").expect("attribute");
    let chmod = |name: &str, mode: u32| {
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    let fifo = Command::new("mkfifo").arg(root.join("fifo")).status().expect("mkfifo starts");
    assert!(fifo.success());
    chmod("B", 0o4755);
    chmod("a-b", 0o600);
    chmod("a.b", 0o2755);
    chmod("dir/empty-dir", 0o1777);
    let time = |seconds: i64, nanos: u32| {
        let epoch = std::time::UNIX_EPOCH;
        let base = if seconds < 0 {
            epoch - std::time::Duration::from_secs(seconds.unsigned_abs())
        } else {
            epoch + std::time::Duration::from_secs(seconds.unsigned_abs())
        };
        std::fs::FileTimes::new().set_modified(base + std::time::Duration::from_nanos(u64::from(nanos)))
    };
    for (name, seconds, nanos) in
        [("a", -315_619_200i64, 999_999_999), ("ab", 1_700_000_000, 1), ("text", 1_700_000_000, 100_000_000)]
    {
        std::fs::File::options()
            .write(true)
            .open(root.join(name))
            .expect("open")
            .set_times(time(seconds, nanos))
            .expect("times");
    }
    std::fs::File::open(root.join("dir/empty-dir"))
        .expect("open")
        .set_times(time(1_600_000_000, 5))
        .expect("times");
}

/// The master key, from its key file, by the documented format alone.
pub(crate) fn master_key(fixture: &Fixture) -> Key {
    let path = &files(&fixture.path().join("keys"))[0];
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let n = file["N"].as_u64().unwrap();
    let params = scrypt::Params::new(n.ilog2() as u8, 8, 1).unwrap();
    let mut user = [0; 64];
    let decode = |text: &serde_json::Value| base64(text.as_str().unwrap());
    scrypt::scrypt(PASSWORD.as_bytes(), &decode(&file["salt"]), &params, &mut user).unwrap();
    let plain = Key::from_bytes(&user).open(&decode(&file["data"])).unwrap();
    let master: serde_json::Value = serde_json::from_slice(&plain).unwrap();
    let parts =
        [decode(&master["encrypt"]), decode(&master["mac"]["k"]), decode(&master["mac"]["r"])].concat();
    Key::from_bytes(&parts.try_into().unwrap())
}

/// Writes what an honest writer never would: any trees, any index, any snapshot, all authentic.
pub(crate) struct Forge {
    pub(crate) fixture: Fixture,
    pub(crate) key: Key,
    pack: [(Vec<u8>, Vec<PackedBlob>); 2],
}

impl Forge {
    pub(crate) fn new() -> Self {
        let fixture = Fixture::new();
        let key = master_key(&fixture);
        Self { fixture, key, pack: Default::default() }
    }

    /// Adds a blob; `declare` changes what is said about it.
    pub(crate) fn blob_with(
        &mut self,
        kind: BlobKind,
        plain: &[u8],
        declare: impl FnOnce(&mut PackedBlob),
    ) -> Id {
        let packed = zstd::bulk::compress(plain, 1).expect("zstd");
        let boxed = self.key.seal(&packed).expect("seal");
        let (bytes, blobs) = &mut self.pack[usize::from(kind == BlobKind::Tree)];
        let mut blob = PackedBlob {
            kind,
            id: Id::of(plain),
            offset: u32::try_from(bytes.len()).expect("small"),
            length: u32::try_from(boxed.len()).expect("small"),
            uncompressed_length: Some(u32::try_from(plain.len()).expect("small")),
        };
        declare(&mut blob);
        bytes.extend_from_slice(&boxed);
        blobs.push(blob);
        blob.id
    }

    pub(crate) fn blob(&mut self, kind: BlobKind, plain: &[u8]) -> Id {
        self.blob_with(kind, plain, |_| {})
    }

    pub(crate) fn tree(&mut self, json: &str) -> Id {
        self.blob(BlobKind::Tree, json.as_bytes())
    }

    pub(crate) fn unpacked(&self, kind: FileKind, json: &[u8]) -> Id {
        let boxed = self.key.seal(json).expect("seal");
        let id = Id::of(&boxed);
        self.fixture.repository.store().write(kind, &id, boxed.into(), &control()).expect("write");
        id
    }

    /// Packs, index, and a snapshot of this tree.
    pub(crate) fn commit(&mut self, tree: Id) -> SnapshotId {
        let mut packs = Vec::new();
        for (mut bytes, blobs) in std::mem::take(&mut self.pack) {
            if blobs.is_empty() {
                continue;
            }
            pack::finish(&self.key, &mut bytes, &blobs).expect("header");
            let id = Id::of(&bytes);
            self.fixture
                .repository
                .store()
                .write(FileKind::Pack, &id, bytes.into(), &control())
                .expect("write");
            packs.push(IndexedPack { id, blobs });
        }
        self.unpacked(FileKind::Index, &index::encode(&packs));
        let json = format!(
            r#"{{"time":"2026-01-01T00:00:00Z","tree":"{tree}","paths":["/x"],"hostname":"forged"}}"#
        );
        self.unpacked(FileKind::Snapshot, json.as_bytes())
    }
}

/// The JSON of a file node, with more fields.
pub(crate) fn file_node(name: &str, content: &[Id], more: &str) -> String {
    let content: Vec<String> = content.iter().map(|id| format!("\"{id}\"")).collect();
    let time = "2026-01-01T00:00:00Z";
    format!(
        r#"{{"name":"{name}","type":"file","mode":420,"mtime":"{time}","atime":"{time}","ctime":"{time}","uid":0,"gid":0{more},"content":[{}]}}"#,
        content.join(",")
    )
}
