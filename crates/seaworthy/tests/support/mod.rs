//! What the tests of the face share: an estate of their own with a state directory, a scratch directory, a repository
//! and sources, and runs of the real program with a cleared environment, no standard input, and a deadline.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The repository's password. Whatever the program prints, this is not in it.
pub(crate) const CANARY: &str = "canary-5up3r-53cr3t-0f-th3-t35t5";

/// Longest run of the program in these tests, on a machine that does other things too.
const RUN_MAX: Duration = Duration::from_secs(120);

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    /// What was called.
    pub(crate) call: String,
    /// Exit code; 128 + the signal where one killed it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Run {
    /// Asserts the exit code, and hands the run back.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Asserts that standard output or standard error says each of `words`.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "`{word}` is missing in {self}");
        }
        self
    }

    /// Asserts that there is a hint.
    #[track_caller]
    pub(crate) fn hints(self) -> Self {
        assert!(self.err.contains("hint: ") || self.err.contains("help: "), "no hint in {self}");
        self
    }

    /// The last line of standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.call, self.code, self.took, self.out, self.err
        )
    }
}

/// An estate of its own: nothing of it is shared with another test or with the user who runs the tests.
pub(crate) struct Estate {
    root: tempfile::TempDir,
    environment: BTreeMap<String, OsString>,
}

impl Estate {
    /// An estate without a configuration.
    pub(crate) fn empty() -> Self {
        // Short, because a socket's path has 107 bytes; passable, because the sandbox runs as another user.
        let root = tempfile::Builder::new().prefix("swt-").tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let mut environment = BTreeMap::new();
        environment.insert("PATH".to_owned(), std::env::var_os("PATH").unwrap_or_default());
        Self { root, environment }
    }

    /// An estate with a tree of files, a SQLite database, a configuration and a repository.
    pub(crate) fn new() -> Self {
        let estate = Self::empty();
        estate.sources();
        estate.configure("");
        estate.run(&["init", "--missing-repositories"]).exits(0);
        estate
    }

    /// Makes the sources.
    pub(crate) fn sources(&self) {
        let files = self.path("files");
        std::fs::create_dir_all(files.join("deep/er")).unwrap();
        std::fs::write(files.join("letter.txt"), "dear reader\n".repeat(400)).unwrap();
        std::fs::write(files.join("deep/er/ledger.csv"), "a,b\n1,2\n").unwrap();
        std::fs::write(files.join("noise.bin"), noise(256 * 1024)).unwrap();
        std::os::unix::fs::symlink("letter.txt", files.join("link")).unwrap();
        let database = rusqlite::Connection::open(self.path("shop.db")).unwrap();
        database
            .execute_batch(
                "CREATE TABLE sale(id INTEGER PRIMARY KEY, what TEXT NOT NULL, at TEXT);
                 CREATE INDEX sale_by_time ON sale(at);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                 INSERT INTO sale SELECT i, 'thing ' || i, '2026-01-01T00:00:00Z' FROM n;",
            )
            .unwrap();
    }

    /// Writes the configuration, the password and the state directory; `more` is appended.
    pub(crate) fn configure(&self, more: &str) {
        if !self.path("state").exists() {
            std::fs::DirBuilder::new().mode(0o700).create(self.path("state")).unwrap();
        }
        self.secret("password", CANARY);
        let root = self.root.path().display();
        let text = format!(
            "[defaults]\nowner = \"tests\"\ntier = \"standard\"\n\n[repositories.local]\nlocation = \"{root}/repository\"\n\
             password = \"file:{root}/password\"\nsite = \"here\"\n\n[services.shop.sources.database]\nkind = \"sqlite\"\n\
             path = \"{root}/shop.db\"\n\n[services.papers.sources.files]\nkind = \"files\"\npaths = [\"{root}/files\"]\n{more}"
        );
        std::fs::write(self.path("seaworthy.toml"), text).unwrap();
    }

    /// Writes a secret that only we can read.
    pub(crate) fn secret(&self, name: &str, content: &str) {
        let path = self.path(name);
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// A path in the estate.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The program, called with `arguments`; its state, scratch and configuration are the estate's.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
        command.env_clear().envs(&self.environment).current_dir(self.root.path()).stdin(Stdio::null());
        command.arg("--state-dir").arg(self.path("state")).arg("--scratch-dir").arg(self.path("s"));
        command.args(arguments);
        command
    }

    /// Runs the program to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        finish(self.start(arguments), arguments.join(" "))
    }

    /// Starts the program.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Every file of the repository's directory `kind`.
    pub(crate) fn objects(&self, kind: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.path("repository").join(kind), &mut found);
        found.sort();
        found
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Bytes that do not compress, the same every time.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..size).map(|_| next().to_le_bytes()[3]).collect()
}

/// Waits for a started run, kills it after the deadline, and looks for the canary in what it said.
#[track_caller]
pub(crate) fn finish(mut child: Child, call: String) -> Run {
    let began = Instant::now();
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    let out = std::thread::spawn(move || read_all(stdout.as_mut()));
    let err = std::thread::spawn(move || read_all(stderr.as_mut()));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > RUN_MAX {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "`{call}` did not end within {RUN_MAX:?}\n{}\n{}",
                out.join().unwrap(),
                err.join().unwrap()
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let run = Run { call, code, out: out.join().unwrap(), err: err.join().unwrap(), took: began.elapsed() };
    assert!(!run.out.contains(CANARY) && !run.err.contains(CANARY), "a secret was printed: {run}");
    assert!(!run.err.contains("panicked"), "{run}");
    run
}

fn read_all(stream: Option<&mut impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.read_to_end(&mut bytes).unwrap();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Flips one bit in the middle of a file, mode kept.
pub(crate) fn flip(path: &Path) {
    let mode = std::fs::metadata(path).unwrap().permissions();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    let mut bytes = Vec::new();
    std::fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, mode).unwrap();
}
