//! Opens what `openssl enc` and `gpg` have encrypted, into the sandbox and nowhere else.
//!
//! `openssl enc -aes-256-cbc -pbkdf2` is undone here: PBKDF2 with SHA-256, AES-256 in CBC mode, padding of PKCS #7. Nothing in such
//! a file authenticates it, so a wrong passphrase is told from damage by what comes out: where the first bytes are those of
//! a dump, the passphrase was right. `gpg` is the real program, run in the sandbox with a home of its own; its exit
//! status and its word that the whole was decrypted and its integrity code held are both asked for.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt as _, KeyInit as _};
use seaworthy_interface::{Cx, DriverError, ErrorKind, Exec, Sandbox};
use seaworthy_model::adopt::recognise::{Payload, Wrapping};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::witness::postgres::printable;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

use super::super::restore::{environment, exec, room};
use super::super::tools::argument;
use super::program;
use crate::source::blocking::{Watch, blocking};

/// Bytes of a block of AES.
const BLOCK: usize = 16;
/// Bytes decrypted at once; a multiple of a block.
const PIECE_BYTES: usize = 1 << 20;
/// How an armoured private key begins.
const PRIVATE_KEY: &[u8] = b"-----BEGIN PGP PRIVATE KEY BLOCK-----";

/// The secret with which copies are opened, and how often its passphrase is hashed.
#[derive(Debug, Clone)]
pub struct Opening {
    /// A passphrase, or an armoured private key of OpenPGP without one.
    pub secret: SecretSlice<u8>,
    /// Rounds of PBKDF2 of `openssl enc`.
    pub iterations: u32,
}

fn wrong_key(words: &str) -> DriverError {
    DriverError::new(ErrorKind::Unauthenticated, format!("open the copy: {words}"))
        .code(FindingCode::WrongKey)
        .hint("is `decrypt` the secret that this set was encrypted with, and `iterations` what -iter said?")
}

fn cut(words: &str) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, format!("open the copy: {words}"))
        .code(FindingCode::ArchiveTruncated)
}

fn damaged(words: &str) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, format!("open the copy: {words}")).code(FindingCode::ObjectDamaged)
}

/// Opens `from` into `into`, which must not exist.
pub(super) async fn open(
    cx: &Cx,
    sandbox: &dyn Sandbox,
    wrapping: Wrapping,
    opening: &Opening,
    from: &Path,
    into: &Path,
) -> Result<(), DriverError> {
    match wrapping {
        Wrapping::OpensslSalted => {
            let (opening, source, target) = (opening.clone(), from.to_owned(), into.to_owned());
            blocking(cx, move |watch| salted(&source, &target, &opening, watch)).await?;
            sandbox.own(cx, into).await
        }
        Wrapping::OpenPgpPassphrase | Wrapping::OpenPgpKey => gpg(cx, sandbox, opening, from, into).await,
        Wrapping::Age | Wrapping::Gzip | Wrapping::Zstd | Wrapping::Xz | Wrapping::Bzip2 => Err(environment(
            FindingCode::EnvOther,
            ErrorKind::Unsupported,
            format!("open the copy: it is encrypted with {}", wrapping.word()),
        )
        .hint("this version opens `openssl enc` and gpg; decrypt it into a directory of your own and adopt that")),
    }
}

/// Undoes `openssl enc -aes-256-cbc -pbkdf2 -md sha256`.
fn salted(from: &Path, into: &Path, opening: &Opening, watch: &Watch) -> Result<(), DriverError> {
    let reading = |error| DriverError::io("read the copy", error);
    let writing = |error| room(DriverError::io("write the opened copy", error));
    let mut source = File::open(from).map_err(reading)?;
    let length = source.metadata().map_err(reading)?.len();
    let blocks = BLOCK as u64;
    if length < 2 * blocks || length % blocks != 0 {
        return Err(cut(&format!("{length} bytes are no whole number of blocks: it was cut")));
    }
    let mut head = [0; BLOCK];
    source.read_exact(&mut head).map_err(reading)?;
    let mut derived = zeroize_on_drop([0_u8; 48]);
    pbkdf2::pbkdf2_hmac::<Sha256>(
        opening.secret.expose_secret(),
        &head[8..],
        opening.iterations,
        &mut derived.0,
    );
    let cipher = Aes256::new_from_slice(&derived.0[..32])
        .map_err(|_| DriverError::new(ErrorKind::Other, "make a key for the copy"))?;
    let mut before: [u8; BLOCK] = std::array::from_fn(|index| derived.0[32 + index]);
    let mut target = File::create_new(into).map_err(writing)?;
    let mut left = length - blocks;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut is_first = true;
    while left > 0 {
        watch.check()?;
        let count = usize::try_from(left.min(PIECE_BYTES as u64)).unwrap_or(PIECE_BYTES);
        let piece = &mut buffer[..count];
        source.read_exact(piece).map_err(reading)?;
        for block in piece.chunks_exact_mut(BLOCK) {
            let sealed: [u8; BLOCK] = std::array::from_fn(|index| block[index]);
            let mut opened = Array::from(sealed);
            cipher.decrypt_block(&mut opened);
            for (index, byte) in block.iter_mut().enumerate() {
                *byte = opened[index] ^ before[index];
            }
            before = sealed;
        }
        left -= count as u64;
        if is_first {
            is_first = false;
            if Payload::of(piece).is_none() && Wrapping::of(piece).is_none() {
                return Err(wrong_key(
                    "what comes out is nothing that is known, so the passphrase is wrong, or the copy is damaged at its \
                     beginning; `openssl enc` cannot tell which",
                ));
            }
        }
        let mut kept = count;
        if left == 0 {
            let padding = usize::from(piece[count - 1]);
            let is_padding = (1..=BLOCK).contains(&padding)
                && piece[count - padding..].iter().all(|byte| usize::from(*byte) == padding);
            if !is_padding {
                return Err(cut("it does not end as `openssl enc` ends: it was cut or changed"));
            }
            kept -= padding;
        }
        target.write_all(&piece[..kept]).map_err(writing)?;
    }
    Ok(())
}

/// Bytes that are wiped when they are no longer needed.
struct Wiped(#[doc = "the bytes"] [u8; 48]);

fn zeroize_on_drop(bytes: [u8; 48]) -> Wiped {
    Wiped(bytes)
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

/// Opens an OpenPGP message with the real gpg. The secret lies in the sandbox's private directory while gpg runs, before anything
/// that was restored runs there, and is removed with gpg's home.
async fn gpg(
    cx: &Cx,
    sandbox: &dyn Sandbox,
    opening: &Opening,
    from: &Path,
    into: &Path,
) -> Result<(), DriverError> {
    let gpg = program("gpg")?;
    let root = sandbox.root().to_path_buf();
    let (home, secret) = (root.join("gpg"), root.join("gpg-secret"));
    let failed = |error| DriverError::io("make a place for gpg", error);
    std::fs::create_dir(&home).map_err(failed)?;
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed)?;
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&secret)
        .and_then(|mut file| file.write_all(opening.secret.expose_secret()))
        .map_err(failed)?;
    let ran = async {
        sandbox.own(cx, &home).await?;
        sandbox.own(cx, &secret).await?;
        let (home, from, into) = (argument(&home)?, argument(from)?, argument(into)?);
        let base = [gpg.as_str(), "--homedir", &home, "--batch", "--no-tty", "--status-fd", "1"];
        let is_key = opening.secret.expose_secret().starts_with(PRIVATE_KEY);
        if is_key {
            let import =
                exec(&[&base[..], &["--pinentry-mode", "loopback", "--import"]].concat(), &root, &[])?;
            let outcome =
                sandbox.exec(cx, Exec { stdin: Some(secret.clone()), ..import }).await.map_err(room)?;
            if !String::from_utf8_lossy(&outcome.stdout).contains("[GNUPG:] IMPORT_OK") {
                return Err(wrong_key("gpg cannot import the private key; it must have no passphrase"));
            }
        }
        let options: &[&str] = &["--pinentry-mode", "loopback", "--output", &into, "--decrypt", &from];
        let passphrase: &[&str] = if is_key { &[] } else { &["--passphrase-fd", "0"] };
        let run = exec(&[&base[..], passphrase, options].concat(), &root, &[])?;
        let stdin = (!is_key).then(|| secret.clone());
        sandbox.exec(cx, Exec { stdin, ..run }).await.map_err(room)
    }
    .await;
    // Whatever became of it, the secret does not stay.
    let removed = std::fs::remove_file(&secret).and_then(|()| std::fs::remove_dir_all(&home));
    let outcome = ran?;
    removed.map_err(|error| DriverError::io("remove gpg's home", error))?;
    let status = String::from_utf8_lossy(&outcome.stdout);
    let said = |word: &str| status.lines().any(|line| line.split(' ').nth(1) == Some(word));
    if outcome.status == 0 && said("DECRYPTION_OKAY") && said("GOODMDC") {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    let words = printable(stderr.lines().last().unwrap_or("it said nothing").trim());
    if stderr.contains("No space left on device") {
        return Err(environment(
            FindingCode::EnvDisk,
            ErrorKind::Exhausted,
            format!("open the copy: gpg: {words}"),
        ));
    }
    let is_key_at_fault =
        ["Bad session key", "Bad passphrase", "No secret key", "No passphrase given", "Invalid passphrase"];
    if is_key_at_fault.iter().any(|fault| stderr.contains(fault)) || said("NO_SECKEY") {
        return Err(wrong_key(&format!("gpg: {words}")));
    }
    if outcome.status >= 126 {
        return Err(environment(
            FindingCode::EnvOther,
            ErrorKind::Other,
            format!("open the copy: gpg ended with {}", outcome.status),
        ));
    }
    Err(damaged(&format!("gpg: status {}: {words}", outcome.status)))
}
