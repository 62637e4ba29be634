//! Reads secrets when they are needed, from where the configuration points. A secret is never printed, logged, put
//! into an argument list or written anywhere.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seaworthy_model::finding::FindingCode;
use seaworthy_model::secret::SecretRef;
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// The bytes of a secret; wiped when dropped, printed as `<secret>`.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The bytes, to be handed to what needs them and nowhere else.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// As text, where what needs it wants text.
    pub(crate) fn expose_text(&self, what: &SecretRef) -> Outcome<&str> {
        std::str::from_utf8(&self.0)
            .map_err(|_| Failure::new(Exit::Usage, format!("the secret at `{what}` is not valid UTF-8")))
    }

    /// A secret that a person has typed.
    pub(crate) fn typed(text: String) -> Self {
        Self(Zeroizing::new(text.into_bytes()))
    }

    fn trimmed(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        // One line ending only: restic strips it from a password file too, and a password may end in a blank.
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A secret is short; more than this is a wrong path.
const BYTES_MAX: u64 = 64 * 1024;

/// How long a program may take to print a secret.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the secret that `reference` points to. One that is not there, or empty, is KY-02.
pub(crate) fn resolve(reference: &SecretRef) -> Outcome<Secret> {
    read_from(reference).map_err(|mut failure| {
        let code = FindingCode::SecretUnreadable;
        if let Some(first) = failure.chain.first_mut().filter(|_| failure.exit == Exit::Usage) {
            *first = format!("{first} [{code}]");
            failure.hint.get_or_insert_with(|| code.remedy().to_owned());
        }
        failure
    })
}

fn read_from(reference: &SecretRef) -> Outcome<Secret> {
    let secret = match reference {
        SecretRef::File(path) => from_file(Path::new(path))?,
        SecretRef::Env(name) => {
            let value = std::env::var_os(name).ok_or_else(|| {
                Failure::new(Exit::Usage, format!("the environment variable `{name}` is not set")).hint(
                    format!("set {name}, or refer to the secret in another way (file:, cmd:, systemd:)"),
                )
            })?;
            Secret(Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value)))
        }
        SecretRef::Cmd(argv) => from_command(argv)?,
        SecretRef::Systemd(name) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    format!("the credential `systemd:{name}` is not here: CREDENTIALS_DIRECTORY is not set"),
                )
                .hint("start this under a unit with LoadCredential=, or use file:")
            })?;
            let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            if !is_plain {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("`systemd:{name}` is not the name of a credential"),
                ));
            }
            read(&PathBuf::from(directory).join(name))?
        }
        SecretRef::Vault { path, .. } => {
            return Err(Failure::new(
                Exit::Usage,
                format!("reading `vault:{path}` is not supported by this version"),
            )
            .hint("use cmd: with your Vault client, e.g. cmd:vault kv get -field=password path"));
        }
    };
    if secret.0.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("the secret at `{reference}` is empty")));
    }
    Ok(secret)
}

/// Whether a key or password file is closed to everybody but its owner, and its owner is us or root.
pub(crate) fn file_exposure(path: &Path) -> std::io::Result<Option<String>> {
    let facts = std::fs::symlink_metadata(path)?;
    if facts.file_type().is_symlink() {
        return Ok(Some(format!("`{}` is a symbolic link", path.display())));
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Ok(Some(format!("`{}` has mode {mode:04o}; others can read or write it", path.display())));
    }
    let us = rustix::process::geteuid().as_raw();
    if facts.uid() != us && facts.uid() != 0 {
        return Ok(Some(format!(
            "`{}` belongs to uid {}, not to us (uid {us})",
            path.display(),
            facts.uid()
        )));
    }
    parents_exposure(path)
}

/// Whether somebody else could exchange a directory that leads to `path`, and the file with it.
///
/// A directory with the sticky bit keeps what is ours. One that a group may write to is taken for ours where the group is
/// root's or our own: with a group for each user that is nobody else.
fn parents_exposure(path: &Path) -> std::io::Result<Option<String>> {
    let us = rustix::process::geteuid().as_raw();
    let own_group = rustix::process::getegid().as_raw();
    let written = std::path::absolute(path)?;
    let true_path = written.canonicalize()?;
    // The path as it is written, whose links somebody could turn, and the one that it leads to.
    for parent in written.ancestors().skip(1).chain(true_path.ancestors().skip(1)) {
        let facts = std::fs::symlink_metadata(parent)?;
        if facts.uid() != us && facts.uid() != 0 {
            return Ok(Some(format!(
                "`{}`, which leads to `{}`, belongs to uid {}, who could exchange it",
                parent.display(),
                path.display(),
                facts.uid()
            )));
        }
        let mode = facts.mode() & 0o7777;
        let is_shared = mode & 0o020 != 0 && facts.gid() != 0 && facts.gid() != own_group;
        let is_open = facts.is_dir() && mode & 0o1000 == 0 && (mode & 0o002 != 0 || is_shared);
        if is_open {
            return Ok(Some(format!(
                "`{}`, which leads to `{}`, has mode {mode:04o}; others could exchange it",
                parent.display(),
                path.display()
            )));
        }
    }
    Ok(None)
}

fn from_file(path: &Path) -> Outcome<Secret> {
    let exposure = file_exposure(path).map_err(|error| {
        Failure::because(Exit::Usage, format!("look at the secret file `{}`", path.display()), &error)
    })?;
    if let Some(exposure) = exposure {
        return Err(Failure::new(Exit::Refused, format!("{exposure} [KY-05]"))
            .hint(format!("chmod 600 {0} && chown $(id -u) {0}", path.display())));
    }
    read(path)
}

fn read(path: &Path) -> Outcome<Secret> {
    let failed = |error: std::io::Error| {
        Failure::because(Exit::Usage, format!("read the secret file `{}`", path.display()), &error)
    };
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path).map_err(failed)?.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    bounded(bytes, &format!("file:{}", path.display()))
}

fn bounded(bytes: Zeroizing<Vec<u8>>, what: &str) -> Outcome<Secret> {
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Failure::new(
            Exit::Usage,
            format!("`{what}` holds more than {BYTES_MAX} bytes; that is not a secret"),
        ));
    }
    Ok(Secret::trimmed(bytes))
}

fn from_command(argv: &[String]) -> Outcome<Secret> {
    let (program, arguments) = argv.split_first().expect("a reference with an empty command does not parse");
    let what = format!("run `{program}` for a secret");
    let failed = |error: std::io::Error| Failure::because(Exit::Usage, what.clone(), &error);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let stdout = child.stdout.take().expect("standard output was piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::new());
        stdout.take(BYTES_MAX + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let deadline = Instant::now() + COMMAND_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return Err(Failure::new(
                Exit::Usage,
                format!("{what}: no answer within {} s", COMMAND_TIMEOUT.as_secs()),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let bytes = reader
        .join()
        .map_err(|_| Failure::new(Exit::Unexpected, format!("{what}: its reader panicked")))?
        .map_err(failed)?;
    if !status.success() {
        return Err(Failure::new(Exit::Usage, format!("{what}: it ended with {status}")));
    }
    bounded(bytes, &format!("cmd:{program}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_password_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "swordfish\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let failure = from_file(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(!failure.render().contains("swordfish"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(from_file(&path).unwrap().expose(), b"swordfish");
    }

    #[test]
    fn a_link_to_a_password_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "swordfish").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(from_file(&link).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn a_password_file_that_others_could_exchange_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        let inner = open.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        let path = inner.join("key");
        std::fs::write(&path, "swordfish").unwrap();
        let mode = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&path, 0o600);
        mode(&inner, 0o755);
        for (shared, is_refused) in
            [(0o755, false), (0o777, true), (0o1777, false), (0o757, true), (0o775, false)]
        {
            mode(&open, shared);
            assert_eq!(from_file(&path).is_err(), is_refused, "{shared:o}");
        }
        // A link that somebody else could turn is no better than a directory that they could exchange.
        mode(&open, 0o777);
        std::os::unix::fs::symlink(&inner, open.join("link")).unwrap();
        assert_eq!(from_file(&open.join("link/key")).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn a_command_is_run_without_a_shell() {
        let reference = SecretRef::try_from("cmd:/bin/echo $HOME;id".to_owned()).unwrap();
        assert_eq!(resolve(&reference).unwrap().expose(), b"$HOME;id");
        let failing = SecretRef::try_from("cmd:/bin/false".to_owned()).unwrap();
        assert!(resolve(&failing).is_err());
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret(Zeroizing::new(b"swordfish".to_vec()));
        assert_eq!(format!("{secret:?}"), "<secret>");
    }
}
