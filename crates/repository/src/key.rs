//! Key files: the repository's master key under a password. The only plaintext files.
//!
//! A foreign key file may ask for any amount of memory; the demand is bounded before scrypt is called.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::crypto::{BoxError, Key};
use crate::error::{Object, RepositoryError, Result};
use crate::id::KeyId;
use crate::json::{self, Base64, go_struct, push_base64, push_number, push_string};
use crate::time::Time;

/// How hard the password hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParams {
    /// Cost, a power of two.
    pub n: u64,
    /// Block size.
    pub r: u32,
    /// Parallelism.
    pub p: u32,
}

impl Default for KdfParams {
    /// As hard as N = 2^17, p = 1 (OWASP, "Password Storage Cheat Sheet"), but in lanes of 32 MiB that two cores work on
    /// at the same time: half the wait at each opening, half the memory at its peak.
    fn default() -> Self {
        Self { n: 1 << 15, r: 8, p: 4 }
    }
}

impl KdfParams {
    /// The cheapest that stock restic accepts; for tests only.
    #[must_use]
    pub fn fast_and_weak() -> Self {
        Self { n: 1024, r: 8, p: 1 }
    }

    fn checked(self) -> Result<scrypt::Params> {
        let unsupported = || RepositoryError::Unsupported {
            what: format!("scrypt parameters N={} r={} p={} of a key file", self.n, self.r, self.p),
        };
        // 1 GiB and 64 passes: eight times what restic and rustic write, and what a small host survives.
        let memory = u128::from(self.n) * u128::from(self.r) * 128;
        let blocks = u128::from(self.p) * u128::from(self.r) * 128;
        if !self.n.is_power_of_two() || self.n < 2 || self.r == 0 || self.p == 0 || self.p > 64 {
            return Err(unsupported());
        }
        if memory > 1 << 30 || blocks > 1 << 24 || memory * u128::from(self.p) > 4 << 30 {
            return Err(unsupported());
        }
        let log_n = u8::try_from(self.n.ilog2()).map_err(|_| unsupported())?;
        scrypt::Params::new(log_n, self.r, self.p).map_err(|_| unsupported())
    }
}

go_struct! {
    #[derive(Default)]
    pub(crate) struct KeyFile {
        pub(crate) created: Option<Time> = "created",
        pub(crate) username: String = "username",
        pub(crate) hostname: String = "hostname",
        kdf: String = "kdf",
        n: u64 = "N",
        r: u32 = "r",
        p: u32 = "p",
        salt: Base64 = "salt",
        data: Base64 = "data",
    }
}

go_struct! {
    #[derive(Default)]
    struct MacJson {
        k: Base64 = "k",
        r: Base64 = "r",
    }
}
go_struct! {
    #[derive(Default)]
    struct MasterJson {
        mac: MacJson = "mac",
        encrypt: Base64 = "encrypt",
    }
}

/// Whether these bytes are a file of a key that we would try a password on; only for proving that any bytes may be asked.
#[doc(hidden)]
#[must_use]
pub fn is_understood(bytes: &[u8]) -> bool {
    KeyFile::decode(&KeyId::of(bytes), bytes).is_ok()
}

impl KeyFile {
    pub(crate) fn decode(id: &KeyId, bytes: &[u8]) -> Result<Self> {
        if KeyId::of(bytes) != *id {
            return Err(RepositoryError::damaged(Object::Key, id, "its SHA-256 is not its name"));
        }
        let file: Self =
            json::parse(bytes).map_err(|e| RepositoryError::inconsistent(Object::Key, id, e.to_string()))?;
        if file.kdf != "scrypt" {
            return Err(RepositoryError::Unsupported { what: format!("key derivation {:?}", file.kdf) });
        }
        if file.salt.0.len() != 64 {
            return Err(RepositoryError::inconsistent(Object::Key, id, "its salt is not 64 bytes"));
        }
        Ok(file)
    }

    /// The master key, or `None` when the password does not fit.
    pub(crate) fn open(&self, id: &KeyId, password: &[u8]) -> Result<Option<Key>> {
        let params = KdfParams { n: self.n, r: self.r, p: self.p }.checked()?;
        let user = derive(password, &self.salt.0, &params);
        let plain = match user.open(&self.data.0) {
            Ok(plain) => Zeroizing::new(plain),
            Err(BoxError::Mac) => return Ok(None),
            Err(e) => return Err(RepositoryError::damaged(Object::Key, id, e)),
        };
        let bad = |why: &str| RepositoryError::inconsistent(Object::Key, id, why);
        let master: MasterJson = json::parse(&plain).map_err(|_| bad("its master key is not JSON"))?;
        let parts = [&master.encrypt.0, &master.mac.k.0, &master.mac.r.0];
        if parts.map(Vec::len) != [32, 16, 16] {
            return Err(bad("its master key has the wrong length"));
        }
        let mut raw = Zeroizing::new([0u8; 64]);
        raw[..32].copy_from_slice(parts[0]);
        raw[32..48].copy_from_slice(parts[1]);
        raw[48..].copy_from_slice(parts[2]);
        Ok(Some(Key::from_bytes(&raw)))
    }
}

pub(crate) fn derive(password: &[u8], salt: &[u8], params: &scrypt::Params) -> Key {
    let mut out = Zeroizing::new([0u8; 64]);
    scrypt::scrypt(password, salt, params, out.as_mut()).expect("64 bytes is a legal length");
    Key::from_bytes(&out)
}

/// The bytes of a new key file.
pub(crate) fn encode(
    master: &Key,
    password: &[u8],
    params: KdfParams,
    created: Time,
    username: &str,
    hostname: &str,
) -> Result<Vec<u8>> {
    let checked = params.checked()?;
    let mut salt = [0u8; 64];
    getrandom::fill(&mut salt).map_err(RepositoryError::random)?;
    let user = derive(password, &salt, &checked);
    let plain = Zeroizing::new(format!(
        r#"{{"mac":{{"k":"{}","r":"{}"}},"encrypt":"{}"}}"#,
        STANDARD.encode(master.mac_k_part()),
        STANDARD.encode(master.mac_r_part()),
        STANDARD.encode(master.encrypt_part())
    ));
    let data = user.seal(plain.as_bytes()).map_err(RepositoryError::random)?;
    let mut out = b"{\"created\":\"".to_vec();
    created.push(&mut out);
    out.extend_from_slice(b"\",\"username\":");
    push_string(&mut out, username);
    out.extend_from_slice(b",\"hostname\":");
    push_string(&mut out, hostname);
    out.extend_from_slice(b",\"kdf\":\"scrypt\",\"N\":");
    push_number(&mut out, params.n);
    out.extend_from_slice(b",\"r\":");
    push_number(&mut out, u64::from(params.r));
    out.extend_from_slice(b",\"p\":");
    push_number(&mut out, u64::from(params.p));
    out.extend_from_slice(b",\"salt\":");
    push_base64(&mut out, &salt);
    out.extend_from_slice(b",\"data\":");
    push_base64(&mut out, &data);
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_opens_with_its_password_only() {
        let master = Key::random().unwrap();
        let bytes = encode(&master, b"pw", KdfParams::fast_and_weak(), Time::now(), "u", "h").unwrap();
        let id = KeyId::of(&bytes);
        let file = KeyFile::decode(&id, &bytes).unwrap();
        let opened = file.open(&id, b"pw").unwrap().unwrap();
        assert_eq!(opened.encrypt_part(), master.encrypt_part());
        // Trap 16: no newline is stripped, nothing is normalised.
        assert!(file.open(&id, b"pw\n").unwrap().is_none());
        assert!(KeyFile::decode(&KeyId::default(), &bytes).is_err());
    }

    /// Trap 20: a hostile key file cannot make us allocate.
    #[test]
    fn the_memory_that_a_key_file_may_ask_for_is_bounded() {
        for (n, r, p) in [
            (1u64 << 40, 8, 1),
            (1 << 20, 4096, 1),
            (1024, 1 << 30, 1),
            (1024, 8, 1 << 30),
            (1000, 8, 1),
            (0, 8, 1),
        ] {
            assert!(KdfParams { n, r, p }.checked().is_err(), "{n} {r} {p}");
        }
        for (n, r, p) in [(1024, 8, 1), (32768, 8, 8), (131_072, 8, 1)] {
            assert!(KdfParams { n, r, p }.checked().is_ok(), "{n} {r} {p}");
        }
    }
}
