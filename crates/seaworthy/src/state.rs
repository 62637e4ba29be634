//! The state directory: ledger, signing key, locks. Ours alone (0700); what is in it is found by name, never guessed.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use seaworthy_model::config::Settings;
use seaworthy_model::signature::{PublicKey, SigningKey, TrustedKeys};
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::secrets::file_exposure;

/// Where this run keeps what it remembers, and where it restores to.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The state directory.
    pub(crate) directory: PathBuf,
    /// The directory of scratch restores; short, because a socket's path has 107 bytes.
    pub(crate) scratch: PathBuf,
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl State {
    /// The directories that the settings and the XDG rules name. Makes nothing.
    pub(crate) fn locate(settings: &Settings) -> Outcome<Self> {
        let directory = match &settings.state_dir {
            Some(directory) => PathBuf::from(directory),
            None => default_directory()?,
        };
        let scratch = settings
            .scratch_dir
            .as_ref()
            .map_or_else(|| PathBuf::from(format!("/var/tmp/seaworthy-{}", uid())), PathBuf::from);
        Ok(Self { directory, scratch })
    }

    /// Makes the state directory where it is missing; refuses one that others may enter.
    pub(crate) fn open(&self) -> Outcome<()> {
        private_directory(&self.directory)
    }

    /// The ledger and catalogue.
    pub(crate) fn catalogue(&self) -> PathBuf {
        self.directory.join("catalogue.sqlite")
    }

    /// The public half of the signing key.
    pub(crate) fn public_key_path(&self) -> PathBuf {
        self.directory.join("signing.pub")
    }

    fn signing_key_path(&self) -> PathBuf {
        self.directory.join("signing.key")
    }

    /// The signing key; makes one where there is none.
    pub(crate) fn signing_key(&self) -> Outcome<SigningKey> {
        let path = self.signing_key_path();
        let unreadable = |error: std::io::Error| {
            Failure::because(Exit::Unexpected, format!("read the signing key `{}`", path.display()), &error)
        };
        match file_exposure(&path) {
            Ok(None) => {
                let pem = Zeroizing::new(std::fs::read_to_string(&path).map_err(unreadable)?);
                let key = SigningKey::from_pem(&pem).map_err(|error| {
                    Failure::because(
                        Exit::Unexpected,
                        format!("understand the signing key `{}`", path.display()),
                        &error,
                    )
                })?;
                self.publish(&key)?;
                Ok(key)
            }
            Ok(Some(exposure)) => Err(Failure::new(Exit::Refused, format!("{exposure} [KY-05]"))
                .hint("whoever could read it can sign receipts: replace the key, then chmod 600 it")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = self.make_signing_key()?;
                self.publish(&key)?;
                Ok(key)
            }
            Err(error) => Err(unreadable(error)),
        }
    }

    fn make_signing_key(&self) -> Outcome<SigningKey> {
        let mut random = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *random).map_err(|error| {
            Failure::new(Exit::Unexpected, format!("get random bytes for a signing key: {error}"))
        })?;
        let key = SigningKey::from_random(&random);
        let pem = key
            .to_pem()
            .map_err(|error| Failure::because(Exit::Unexpected, "encode the signing key", &error))?;
        write_durably(&self.signing_key_path(), pem.as_bytes(), 0o600)?;
        Ok(key)
    }

    /// Writes the public half where it is missing: it follows from the private one, so a crash between them heals. The one
    /// of a key that was replaced stays trusted: what it has signed is still ours.
    fn publish(&self, key: &SigningKey) -> Outcome<()> {
        let path = self.public_key_path();
        let own = key.public();
        if path.exists() {
            let was = self.public_key()?;
            if was.id() == own.id() {
                return Ok(());
            }
            self.keep(&was)?;
        }
        write_durably(&path, own.to_pem().as_bytes(), 0o644)
    }

    /// The public key that verifies this state directory's receipts.
    pub(crate) fn public_key(&self) -> Outcome<PublicKey> {
        read_public_key(&self.public_key_path())
    }

    fn taken_over(&self) -> PathBuf {
        self.directory.join("trusted-keys")
    }

    /// The keys by which a receipt in this state directory may be signed: its own, and those of ledgers that a person has
    /// taken over into it.
    pub(crate) fn trusted_keys(&self) -> Outcome<TrustedKeys> {
        let mut keys = TrustedKeys::default();
        if self.public_key_path().exists() {
            keys.trust(self.public_key()?);
        }
        let directory = self.taken_over();
        let failed = |error: std::io::Error| {
            Failure::because(Exit::Unexpected, format!("list `{}`", directory.display()), &error)
        };
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(keys),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "pub") {
                keys.trust(read_public_key(&path)?);
            }
        }
        Ok(keys)
    }

    /// Believes receipts by this key from now on: those of a ledger that is taken over from another state directory.
    pub(crate) fn trust(&self, key: &PublicKey) -> Outcome<()> {
        if self.public_key_path().exists() && self.public_key()?.id() == key.id() {
            return Ok(());
        }
        self.keep(key)
    }

    fn keep(&self, key: &PublicKey) -> Outcome<()> {
        private_directory(&self.taken_over())?;
        let name: String = key.id().0.chars().filter(char::is_ascii_alphanumeric).collect();
        write_durably(&self.taken_over().join(format!("{name}.pub")), key.to_pem().as_bytes(), 0o644)
    }
}

/// Reads a public key in PEM.
pub(crate) fn read_public_key(path: &Path) -> Outcome<PublicKey> {
    let pem = std::fs::read_to_string(path).map_err(|error| {
        Failure::because(Exit::NotFound, format!("read the public key `{}`", path.display()), &error)
            .hint("name it with --key FILE")
    })?;
    PublicKey::from_pem(&pem).map_err(|error| {
        Failure::because(Exit::Usage, format!("understand the public key `{}`", path.display()), &error)
    })
}

fn default_directory() -> Outcome<PathBuf> {
    if let Some(base) =
        std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|base| base.is_absolute())
    {
        return Ok(base.join("seaworthy"));
    }
    if uid() == 0 {
        return Ok(PathBuf::from("/var/lib/seaworthy"));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    home.map(|home| home.join(".local/state/seaworthy")).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no home directory to keep state in")
            .hint("name a directory with --state-dir")
    })
}

/// A path made absolute without following links.
pub(crate) fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Failure::because(Exit::Usage, format!("find `{}`", path.display()), &error))
}

/// Makes a directory that only we may enter, or checks that an existing one is.
pub(crate) fn private_directory(path: &Path) -> Outcome<()> {
    let failed = |error: std::io::Error| {
        Failure::because(Exit::Unexpected, format!("make the directory `{}`", path.display()), &error)
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let facts = std::fs::symlink_metadata(path).map_err(failed)?;
    if !facts.is_dir() || facts.uid() != uid() || facts.mode() & 0o077 != 0 {
        return Err(Failure::new(
            Exit::Refused,
            format!("`{}` is not a directory of ours that is closed to others", path.display()),
        )
        .hint(format!(
            "chmod 700 it, or name another one; it belongs to uid {} with mode {:04o}",
            facts.uid(),
            facts.mode() & 0o7777
        )));
    }
    Ok(())
}

/// Writes a file durably, so that a crash leaves the old one, none, or the new one, never a part: a temporary name in the
/// same directory, content, rename, directory.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Outcome<()> {
    let failed = |error: std::io::Error| {
        Failure::because(Exit::Unexpected, format!("write `{}`", path.display()), &error)
    };
    // A bare file name has the empty path as its parent, which cannot be opened.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))?;
    let temporary = parent.join(format!(".new-{:016x}", u64::from_le_bytes(random)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(parent)?.sync_all()
    })();
    written.map_err(|error| match std::fs::remove_file(&temporary) {
        Ok(()) => failed(error),
        Err(left) if left.kind() == std::io::ErrorKind::NotFound => failed(error),
        Err(_) => failed(error).hint(format!("`{}` is left over and can be removed", temporary.display())),
    })
}
