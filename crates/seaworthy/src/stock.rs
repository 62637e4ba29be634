//! The stock restic of this machine: found, asked for its version, and known by the digest of its file.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Longest wait for a program to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its file, without links.
    pub(crate) program: PathBuf,
    /// What it says of itself: `restic 0.18.0 compiled with …`.
    pub(crate) version: String,
    /// SHA-256 of its file, 64 digits.
    pub(crate) sha256: String,
}

/// Where restic is: the one that was named, or the first in `PATH`.
pub(crate) fn find(named: Option<&Path>) -> Outcome<PathBuf> {
    if let Some(path) = named {
        return path.canonicalize().map_err(|error| {
            Failure::because(Exit::Usage, format!("find the program `{}`", path.display()), &error)
        });
    }
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    let searched = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&searched)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("restic"))
        .find(is_program)
        .and_then(|path| path.canonicalize().ok())
        .ok_or_else(|| {
            Failure::new(Exit::Usage, "there is no restic on this machine [ENV-BINARY]")
                .hint("install it (apt-get install restic), or name one with --restic PROGRAM")
        })
}

/// Asks a program what it is.
pub(crate) fn look(program: &Path) -> Outcome<Found> {
    let failed = |error: std::io::Error| {
        Failure::because(Exit::Usage, format!("look at the program `{}`", program.display()), &error)
    };
    let mut file = std::fs::File::open(program).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let sha256: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Found { version: version(program).map_err(failed)?, program: program.to_owned(), sha256 })
}

fn version(program: &Path) -> std::io::Result<String> {
    let mut child = Command::new(program)
        .arg("version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::other(format!(
                "`restic version` gave no answer within {} s",
                PATIENCE.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // One line; a pipe holds it while we wait.
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(4096).read_to_end(&mut said)?;
    }
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next().unwrap_or_default().trim().to_owned();
    if line.starts_with("restic ") {
        Ok(line)
    } else {
        Err(std::io::Error::other("it does not say that it is restic"))
    }
}
