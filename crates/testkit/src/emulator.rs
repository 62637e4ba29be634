//! Emulators of object stores that others wrote: LocalStack for S3, Azurite for Azure Blob Storage. They are installed by
//! `cargo xtask test`; one that is missing is an error.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tempfile::TempDir;

use crate::bucket::hmac;

/// An emulator and the release that the tests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// S3.
    LocalStack,
    /// Azure Blob Storage.
    Azurite,
}

impl Kind {
    /// The release: what it emulates changes with it.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::LocalStack => "4.12.0",
            Self::Azurite => "3.35.0",
        }
    }

    /// Where it is installed.
    #[must_use]
    pub fn directory(self) -> Option<PathBuf> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache =
            absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
        let name = match self {
            Self::LocalStack => "localstack",
            Self::Azurite => "azurite",
        };
        Some(cache.join("seaworthy/components").join(format!("{name}-{}", self.version())))
    }

    /// The program that runs it.
    #[must_use]
    pub fn program(self) -> Option<PathBuf> {
        let program = self.directory()?.join(match self {
            Self::LocalStack => "bin/python",
            Self::Azurite => "node_modules/.bin/azurite-blob",
        });
        program.exists().then_some(program)
    }
}

/// A running emulator with one empty bucket. It ends when this is dropped.
#[derive(Debug)]
pub struct Emulator {
    kind: Kind,
    child: Child,
    port: u16,
    _directory: TempDir,
}

/// How long it may take to start on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(180);
const ACCOUNT: &str = "devstoreaccount1";
/// Azurite's own, published in its documentation ("Default storage account").
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

impl Emulator {
    /// Starts one and makes the bucket.
    pub fn start(kind: Kind, bucket: &str) -> io::Result<Self> {
        let program = kind
            .program()
            .ok_or_else(|| io::Error::other(format!("{kind:?} is not installed; run `cargo xtask test`")))?;
        let directory = tempfile::tempdir()?;
        let place = directory.path();
        // Free until somebody else takes it in the moment between.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new(program);
        match kind {
            Kind::LocalStack => {
                command.args(["-m", "localstack.runtime.main"]).envs([
                    ("SERVICES", "s3".to_owned()),
                    ("STRICT_SERVICE_LOADING", "1".to_owned()),
                    ("EAGER_SERVICE_LOADING", "1".to_owned()),
                    ("GATEWAY_LISTEN", format!("127.0.0.1:{port}")),
                    ("DISABLE_EVENTS", "1".to_owned()),
                    ("SKIP_SSL_CERT_DOWNLOAD", "1".to_owned()),
                ]);
                command.env("LOCALSTACK_VOLUME_DIR", place).env("FILESYSTEM_ROOT", place);
                command.env("S3_DIR", place.join("s3")).env("TMPDIR", place);
            }
            Kind::Azurite => {
                command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"]);
                command.arg(place.join("data"));
                command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
            }
        }
        let log = fs::File::create(place.join("log"))?;
        let child = command
            .current_dir(place)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let mut emulator = Self { kind, child, port, _directory: directory };
        let until = Instant::now() + PATIENCE;
        loop {
            match emulator.make(bucket) {
                Ok(()) => return Ok(emulator),
                Err(error) if Instant::now() > until || emulator.child.try_wait()?.is_some() => {
                    let said = fs::read_to_string(emulator._directory.path().join("log")).unwrap_or_default();
                    return Err(io::Error::other(format!("{kind:?} did not start: {error}; {said}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Makes another bucket.
    pub fn make(&self, bucket: &str) -> io::Result<()> {
        self.ask("PUT", bucket).map(drop)
    }

    /// Makes a bucket of LocalStack in which objects can be locked.
    pub fn make_lockable(&self, bucket: &str) -> io::Result<()> {
        self.send(&format!("PUT /{bucket} HTTP/1.1\r\nx-amz-bucket-object-lock-enabled: true\r\n"), "")
            .map(drop)
    }

    /// Sets one of the settings of a bucket of LocalStack, as an administrator does: `lifecycle`, `acl`.
    pub fn set(&self, bucket: &str, setting: &str, document: &str) -> io::Result<()> {
        self.send(&format!("PUT /{bucket}?{setting} HTTP/1.1\r\n"), document).map(drop)
    }

    /// Takes one of the settings of a bucket of LocalStack away.
    pub fn unset(&self, bucket: &str, setting: &str) -> io::Result<()> {
        self.send(&format!("DELETE /{bucket}?{setting} HTTP/1.1\r\n"), "").map(drop)
    }

    /// Removes a bucket with all that is in it: the disaster.
    pub fn remove(&self, bucket: &str) -> io::Result<()> {
        if self.kind == Kind::LocalStack {
            loop {
                let page = self.ask("GET", bucket)?;
                let keys: Vec<&str> =
                    page.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).collect();
                if keys.is_empty() {
                    break;
                }
                for key in keys {
                    self.ask("DELETE", &format!("{bucket}/{key}"))?;
                }
            }
        }
        self.ask("DELETE", bucket).map(drop)
    }

    /// One request about a bucket, or of LocalStack about an object, which is carried out or an error; returns the whole answer.
    fn ask(&self, method: &str, resource: &str) -> io::Result<String> {
        let head = match self.kind {
            Kind::LocalStack => format!("{method} /{resource} HTTP/1.1\r\n"),
            Kind::Azurite => {
                let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                let resource = format!("/{ACCOUNT}/{resource}");
                let text = format!(
                    "{method}\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2023-11-03\n/{ACCOUNT}{resource}\nrestype:container"
                );
                let key = BASE64.decode(ACCOUNT_KEY).map_err(io::Error::other)?;
                let signature = BASE64.encode(hmac(&key, text.as_bytes()));
                format!(
                    "{method} {resource}?restype=container HTTP/1.1\r\nx-ms-date: {date}\r\nx-ms-version: 2023-11-03\r\n\
                     Authorization: SharedKey {ACCOUNT}:{signature}\r\n"
                )
            }
        };
        self.send(&head, "")
    }

    /// Sends the begin of a request with a body; returns the answer, which is a success.
    fn send(&self, head: &str, body: &str) -> io::Result<String> {
        let request = format!(
            "{head}Host: 127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        if status.starts_with('2') { Ok(answer) } else { Err(io::Error::other(answer)) }
    }

    /// What a repository in it is configured with, beside its location: keys and values of TOML.
    ///
    /// Credentials refer to the variables of [`Emulator::environment`].
    #[must_use]
    pub fn configuration(&self) -> String {
        self.configuration_at(&self.endpoint())
    }

    /// The same for somebody who reaches it at another address, e.g. through a [`crate::gateway::Gateway`].
    #[must_use]
    pub fn configuration_at(&self, endpoint: &str) -> String {
        match self.kind {
            Kind::LocalStack => format!(
                "endpoint = \"{endpoint}\"\naccess_key = \"env:EMULATOR_KEY\"\nsecret_key = \"env:EMULATOR_KEY\"\n"
            ),
            Kind::Azurite => format!(
                "endpoint = \"{endpoint}/{ACCOUNT}\"\nstorage_account = \"{ACCOUNT}\"\naccount_key = \"env:EMULATOR_KEY\"\n"
            ),
        }
    }

    /// See [`Emulator::configuration`].
    #[must_use]
    pub fn environment(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::LocalStack => ("EMULATOR_KEY", "test"),
            Kind::Azurite => ("EMULATOR_KEY", ACCOUNT_KEY),
        }
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `s3://bucket` or `az://bucket`.
    #[must_use]
    pub fn location(&self, bucket: &str) -> String {
        match self.kind {
            Kind::LocalStack => format!("s3://{bucket}"),
            Kind::Azurite => format!("az://{bucket}"),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // With all that it has started; what has ended already needs no end.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        }
        self.child.wait().ok();
    }
}
