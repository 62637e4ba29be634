//! The whole product as a person has it: its program, a configuration, a repository, a state directory; and the stock
//! programs that judge what it leaves.
//!
//! Everything lies in one directory with a name of its own, so that what is left running can be found by that name.
//! Nothing here looks inside the product: it is run, and what it prints and leaves is read.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use seaworthy_repository::{Control, InitOptions, KdfParams, Repository, open_store};
use serde_json::Value;

use crate::components::restics;

/// The password of every repository that is made here.
pub const PASSWORD: &str = "correct horse";

/// Longest run of one verb: a hang is a failure with a name.
const PATIENCE: Duration = Duration::from_secs(180);

/// Why the product, or a judge, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProductError {
    /// The file system.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The repository could not be made.
    #[error("make the repository")]
    Repository(#[source] seaworthy_repository::RepositoryError),
    /// A program did not end in time and was killed.
    #[error("`{0}` did not end within {PATIENCE:?}")]
    Hung(String),
    /// A program ended otherwise than was asked for.
    #[error("`{command}` ended with {code:?}\n{stdout}\n{stderr}")]
    Ended {
        /// Which.
        command: String,
        /// How; `None` for a signal.
        code: Option<i32>,
        /// What it printed.
        stdout: String,
        /// What it said.
        stderr: String,
    },
    /// A program printed something that could not be understood.
    #[error("understand what `{command}` printed: {stdout}")]
    Words {
        /// Which.
        command: String,
        /// What.
        stdout: String,
    },
    /// No judge is installed.
    #[error(transparent)]
    Missing(#[from] crate::components::MissingProgram),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ProductError {
    let what = what.into();
    move |source| ProductError::Io { what, source }
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command, for messages.
    pub command: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output if the exit code is `code`, the whole story otherwise.
    pub fn expect(self, code: i32) -> Result<String, ProductError> {
        if self.code == Some(code) {
            return Ok(self.stdout);
        }
        let Self { command, code, stdout, stderr } = self;
        Err(ProductError::Ended { command, code, stdout, stderr })
    }
}

/// Runs a command to its end, with its output in memory; kills it when it takes too long.
pub fn run(mut command: Command) -> Result<Ran, ProductError> {
    let words = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io_error(words.clone()))?;
    finish(child, &words)
}

/// Waits for a child whose output is piped.
pub fn finish(mut child: Child, words: &str) -> Result<Ran, ProductError> {
    let reader = |pipe: Option<Box<dyn io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes));
            read.map(|_| String::from_utf8_lossy(&bytes).into_owned())
        })
    };
    let stdout = reader(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read + Send>));
    let stderr = reader(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read + Send>));
    let status = wait(&mut child, PATIENCE).map_err(io_error(words))?;
    let Some(status) = status else {
        child.kill().map_err(io_error(words))?;
        child.wait().map_err(io_error(words))?;
        return Err(ProductError::Hung(words.to_owned()));
    };
    let joined = |thread: std::thread::JoinHandle<io::Result<String>>| match thread.join() {
        Ok(text) => text.map_err(io_error(words)),
        Err(_) => Err(ProductError::Hung(words.to_owned())),
    };
    Ok(Ran {
        command: words.to_owned(),
        code: status.code(),
        stdout: joined(stdout)?,
        stderr: joined(stderr)?,
    })
}

/// Waits for a child's end; `None` when it has not ended by then.
pub fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The product, installed in a directory of its own. Removed when dropped.
#[derive(Debug)]
pub struct Product {
    program: PathBuf,
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Product {
    /// Makes the directory, a password file and an empty repository for `program`, with the services of `services`
    /// (tables `[services.…]` in TOML). Below `SEAWORTHY_TEST_PLACE`, or `/var/tmp`.
    pub fn new(program: impl Into<PathBuf>, services: &str) -> Result<Self, ProductError> {
        // Not below a home: the sandbox's user must be able to pass through.
        let place = std::env::var_os("SEAWORTHY_TEST_PLACE").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        Self::new_in(&place, program, services)
    }

    /// The same, in a directory below `place`.
    pub fn new_in(place: &Path, program: impl Into<PathBuf>, services: &str) -> Result<Self, ProductError> {
        let made = tempfile::Builder::new().prefix("swt-").tempdir_in(place);
        let directory = made.map_err(io_error("make a directory"))?;
        let product = Self { program: program.into(), directory, variables: Vec::new() };
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(product.path(), open).map_err(io_error("open the directory"))?;
        let password = product.path().join("password");
        fs::write(&password, PASSWORD).map_err(io_error("write the password"))?;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&password, private).map_err(io_error("close the password"))?;
        let store = open_store(product.repository()).map_err(ProductError::Repository)?;
        let options = InitOptions { kdf: KdfParams::fast_and_weak(), ..InitOptions::default() };
        Repository::init(&store, PASSWORD.as_bytes(), &options, &Control::new())
            .map_err(ProductError::Repository)?;
        product.configure(services)?;
        Ok(product)
    }

    /// Writes the configuration anew.
    pub fn configure(&self, services: &str) -> Result<(), ProductError> {
        let text = format!(
            "[defaults]\nowner = \"crew\"\ntier = \"standard\"\n\n[repositories.local]\nlocation = \"{}\"\npassword = \"file:{}\"\n\
             medium = \"disk\"\nsite = \"here\"\n\n{services}",
            self.repository().display(),
            self.path().join("password").display(),
        );
        fs::write(self.path().join("seaworthy.toml"), text).map_err(io_error("write the configuration"))
    }

    /// The directory of everything.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.path().join("repository")
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The scratch directory.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.path().join("s")
    }

    /// The program, about to run a verb.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments(arguments)).current_dir(self.path()).env_clear();
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command.stdin(Stdio::null());
        command
    }

    /// The whole argument list of a verb.
    #[must_use]
    pub fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let path = |name: &str| self.path().join(name).display().to_string();
        let mut all: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (config, state) = (path("seaworthy.toml"), path("state"));
        all.extend([
            "--config".to_owned(),
            config,
            "--state-dir".to_owned(),
            state,
            "--scratch-dir".to_owned(),
            path("s"),
            "--no-progress".to_owned(),
        ]);
        all
    }

    /// The environment of a run: what a service manager would give it, and a mark by which it is found.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let home = self.path().display().to_string();
        [
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), home.clone()),
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
            ("VOYAGE".to_owned(), home),
        ]
        .into_iter()
        .chain(self.variables.iter().cloned())
        .collect()
    }

    /// Runs have this variable in their environment from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Runs a verb to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Ran, ProductError> {
        run(self.command(arguments))
    }

    /// Runs a verb with `--json`, expects `code`, and returns what its summaries say under `key`.
    pub fn summaries(&self, arguments: &[&str], code: i32, key: &str) -> Result<Vec<Value>, ProductError> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let ran = self.run(&all)?;
        let command = ran.command.clone();
        let stdout = ran.expect(code)?;
        let lost = || ProductError::Words { command: command.clone(), stdout: stdout.clone() };
        let mut found = Vec::new();
        for line in stdout.lines() {
            let event: Value = serde_json::from_str(line).map_err(|_| lost())?;
            if event["event"] == "summary" {
                found.push(event[key].clone());
            }
        }
        if found.is_empty() { Err(lost()) } else { Ok(found) }
    }

    /// Backs up a service with one source; what the receipt says. Anything but a complete copy is an error.
    pub fn backup(&self, service: &str) -> Result<Value, ProductError> {
        let mut found = self.summaries(&["backup", service], 0, "backup")?;
        Ok(found.remove(0))
    }

    /// Drills the latest point of a service with one source, expects the exit code; what the receipt says.
    pub fn drill(&self, service: &str, code: i32) -> Result<Value, ProductError> {
        let mut found = self.summaries(&["drill", service], code, "drill")?;
        Ok(found.remove(0))
    }

    /// Runs one stock restic on the repository; what it printed.
    pub fn restic(&self, program: &Path, arguments: &[&str]) -> Result<String, ProductError> {
        let mut command = Command::new(program);
        command
            .arg("--no-cache")
            .arg("-r")
            .arg(self.repository())
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path())
            .env("RESTIC_PASSWORD", PASSWORD);
        run(command)?.expect(0)
    }

    /// Runs every stock restic that is here.
    pub fn judged(&self, arguments: &[&str]) -> Result<(), ProductError> {
        for program in restics()? {
            self.restic(&program, arguments)?;
        }
        Ok(())
    }

    /// Processes that bear our mark in their environment, arguments, working directory or view of the file system.
    ///
    /// Those of this very process and of its own tests are not counted.
    pub fn processes(&self) -> Result<Vec<String>, ProductError> {
        let mark = self.path().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").map_err(io_error("list /proc"))? {
            let path = entry.map_err(io_error("list /proc"))?.path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
                continue;
            };
            if pid == std::process::id() {
                continue;
            }
            // A process that ends while it is looked at is none.
            let bears = ["environ", "cmdline", "mountinfo"].iter().any(|name| {
                fs::read(path.join(name)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&mark))
            });
            let works = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.path()));
            if bears || works {
                let words = fs::read(path.join("cmdline")).unwrap_or_default();
                found.push(format!("{pid}: {}", String::from_utf8_lossy(&words).replace('\0', " ")));
            }
        }
        Ok(found)
    }

    /// Waits until no process bears our mark; those that still do when patience ends.
    pub fn quiet(&self, patience: Duration) -> Result<Vec<String>, ProductError> {
        let until = Instant::now() + patience;
        loop {
            let left = self.processes()?;
            if left.is_empty() || Instant::now() >= until {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What lies in the scratch directory, below it and in its staging directory.
    pub fn left_in_scratch(&self) -> Result<Vec<String>, ProductError> {
        let mut left = Vec::new();
        for directory in [self.scratch(), self.scratch().join("staging")] {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error(format!("list `{}`", directory.display()))(error)),
            };
            for entry in entries {
                let entry = entry.map_err(io_error("list the scratch directory"))?;
                if entry.file_name() != "staging" {
                    left.push(entry.path().display().to_string());
                }
            }
        }
        left.sort();
        Ok(left)
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // Trees that were restored may hold directories that even their owner may not enter.
        let mut open = vec![self.path().to_path_buf()];
        while let Some(directory) = open.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let own = fs::Permissions::from_mode(0o700);
                    if fs::set_permissions(entry.path(), own).is_ok() {
                        open.push(entry.path());
                    }
                }
            }
        }
    }
}

/// What the codes of a drill's findings are, of its checks and beside them, sorted.
#[must_use]
pub fn codes(drill: &Value) -> Vec<String> {
    let of = |findings: &Value| -> Vec<String> {
        let all = findings.as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|finding| Some(finding["code"].as_str()?.to_owned())).collect()
    };
    let mut found = of(&drill["findings"]);
    for check in drill["checks"].as_array().cloned().unwrap_or_default() {
        found.extend(of(&check["findings"]));
    }
    found.sort();
    found.dedup();
    found
}
