//! A sandbox that isolates nothing: a private directory, for tests of drivers that only need the place.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use async_trait::async_trait;
use seaworthy_interface::{
    Cx, DriverError, ErrorKind, Exec, ExecOutcome, Sandbox, SandboxFacts, SandboxProcess,
};

/// A temporary directory behind the sandbox's door. Removed when dropped.
#[derive(Debug)]
pub struct DirectorySandbox {
    place: tempfile::TempDir,
    root: PathBuf,
    facts: SandboxFacts,
}

impl DirectorySandbox {
    /// An empty one.
    pub fn new() -> std::io::Result<Self> {
        let place = tempfile::tempdir()?;
        let root = place.path().to_owned();
        let facts = SandboxFacts {
            provider: "directory".to_owned(),
            mode: "not isolated, for tests".to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            interfaces: Vec::new(),
            refused_connections: Vec::new(),
            limits: Vec::new(),
            inherited_descriptors: 0,
        };
        Ok(Self { place, root, facts })
    }
}

#[async_trait]
impl Sandbox for DirectorySandbox {
    fn root(&self) -> &Path {
        &self.root
    }

    fn facts(&self) -> &SandboxFacts {
        &self.facts
    }

    async fn own(&self, _cx: &Cx, _path: &Path) -> Result<(), DriverError> {
        Ok(())
    }

    async fn exec(&self, _cx: &Cx, exec: Exec) -> Result<ExecOutcome, DriverError> {
        let Some((program, arguments)) = exec.argv.split_first() else {
            return Err(DriverError::new(ErrorKind::Refused, "run nothing"));
        };
        let began = Instant::now();
        let output = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(exec.env)
            .current_dir(exec.cwd.as_deref().unwrap_or(&self.root))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| DriverError::io(format!("run `{program}`"), error))?;
        Ok(ExecOutcome {
            status: output.status.code().unwrap_or(128),
            stdout: output.stdout,
            stderr: output.stderr,
            dropped_bytes: 0,
            took: began.elapsed(),
        })
    }

    async fn spawn(&self, _cx: &Cx, _exec: Exec) -> Result<Box<dyn SandboxProcess>, DriverError> {
        Err(DriverError::new(ErrorKind::Unsupported, "keep a program running in a plain directory"))
    }

    async fn close(&self, _cx: &Cx) -> Result<u64, DriverError> {
        if self.place.path().exists() {
            std::fs::remove_dir_all(self.place.path())
                .map_err(|error| DriverError::io("remove the sandbox", error))?;
        }
        Ok(0)
    }
}
