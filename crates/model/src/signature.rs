//! Who says so: Ed25519 keys, and the DSSE envelope that carries a payload with its signatures.
//!
//! Signatures are verified strictly (no small-order keys, no malleable encodings). Keys travel as PEM (PKCS #8 and
//! SPKI), so that `openssl pkey` reads them. No randomness here: a new key is made of 32 random bytes that are given.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::id::Digest;

/// The media type of an in-toto statement in a DSSE envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Why a key or an envelope cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a PEM of an Ed25519 key of the expected kind. Does not repeat the text: it may be a private key.
    #[error("this is not a PEM of an Ed25519 {0} key")]
    NotAKey(&'static str),
    /// A key could not be written as PEM.
    #[error("a key cannot be written as PEM")]
    Unwritable,
    /// Not a DSSE envelope.
    #[error("this is not a DSSE envelope: {0}")]
    NotAnEnvelope(String),
    /// An envelope of something else.
    #[error("the envelope carries `{0}`, not `{PAYLOAD_TYPE}`")]
    OtherPayload(String),
    /// No signature at all.
    #[error("the envelope carries no signature")]
    Unsigned,
    /// No signature by a trusted key.
    #[error("signed by {0}, which is not a trusted key")]
    Foreign(String),
    /// A signature that claims a trusted key and is not by it.
    #[error("the signature by {0} does not verify: the payload or the signature was altered")]
    Broken(KeyId),
}

/// The SHA-256 of `bytes`, in the project's notation.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(format!("sha256:{}", hex(&Sha256::digest(bytes))))
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Names a public key: `sha256:` and the SHA-256 of its SPKI DER.
///
/// `openssl pkey -pubin -in key.pub -outform DER | sha256sum` prints the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key that signs receipts. `Debug` never shows it; memory is wiped when it is dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, <secret>)", self.public().id())
    }
}

impl SigningKey {
    /// A key from 32 bytes, which must come from the operating system's source of randomness.
    #[must_use]
    pub fn from_random(random: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(random))
    }

    /// Reads a PKCS #8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self, SignatureError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|_| SignatureError::NotAKey("private"))
    }

    /// Writes a PKCS #8 PEM, without the public half, which OpenSSL before 3.5 refuses to read.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, SignatureError> {
        KeypairBytes { secret_key: self.0.to_bytes(), public_key: None }
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| SignatureError::Unwritable)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

/// The public half of a key: all that an auditor needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// Reads an SPKI PEM. Keys under which a signature would prove nothing are refused.
    pub fn from_pem(pem: &str) -> Result<Self, SignatureError> {
        let key = ed25519_dalek::VerifyingKey::from_public_key_pem(pem)
            .map_err(|_| SignatureError::NotAKey("public"))?;
        if key.is_weak() {
            return Err(SignatureError::NotAKey("public"));
        }
        Ok(Self(key))
    }

    /// Writes an SPKI PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("44 bytes of SPKI always encode as PEM")
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        // The SPKI of an Ed25519 key is this prefix (RFC 8410: SEQUENCE, OID 1.3.101.112, BIT STRING) and the key.
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend_from_slice(self.0.as_bytes());
        KeyId(sha256(&der).0)
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

/// Public keys that are believed, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys(BTreeMap<KeyId, PublicKey>);

impl TrustedKeys {
    /// Believes these keys and no others.
    #[must_use]
    pub fn of(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(keys.into_iter().map(|key| (key.id(), key)).collect())
    }

    /// Believes one more.
    pub fn trust(&mut self, key: PublicKey) {
        self.0.insert(key.id(), key);
    }

    /// No longer believes this one.
    pub fn distrust(&mut self, id: &KeyId) {
        self.0.remove(id);
    }

    /// The keys, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.values()
    }

    /// Whether this key is believed.
    #[must_use]
    pub fn is_trusted(&self, id: &KeyId) -> bool {
        self.0.contains_key(id)
    }
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Who is said to have signed; a hint until verified.
    pub keyid: KeyId,
    /// The signature, base64.
    pub sig: String,
}

/// A payload and who signed it (DSSE, version 1).
///
/// The payload's bytes are kept as they were signed; nothing in them is to be believed before
/// [`Envelope::verified_payload`] has returned them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The payload, base64.
    pub payload: String,
    /// Media type of the payload.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// Signatures over the pre-authentication encoding of type and payload.
    pub signatures: Vec<Signature>,
}

impl Envelope {
    /// Signs a payload.
    #[must_use]
    pub fn sign(payload: &[u8], key: &SigningKey) -> Self {
        let signature = key.0.sign(&pre_authentication_encoding(PAYLOAD_TYPE, payload));
        Self {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signature {
                keyid: key.public().id(),
                sig: STANDARD.encode(signature.to_bytes()),
            }],
        }
    }

    /// Reads an envelope from its JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, SignatureError> {
        serde_json::from_slice(json).map_err(|error| SignatureError::NotAnEnvelope(error.to_string()))
    }

    /// The envelope as one line of JSON, without the line's end.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an envelope is made of strings")
    }

    /// The payload's bytes, NOT verified: for reading what one has written oneself.
    pub fn payload_unverified(&self) -> Result<Vec<u8>, SignatureError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(SignatureError::OtherPayload(self.payload_type.clone()));
        }
        decode(&self.payload)
            .ok_or_else(|| SignatureError::NotAnEnvelope("the payload is not base64".to_owned()))
    }

    /// The payload's bytes and the key that signed them, once a trusted key's signature has been verified.
    ///
    /// Further signatures by keys that are not trusted are ignored (an auditor may countersign). A signature that
    /// names a trusted key and is not by it is an error even beside a good one.
    pub fn verified_payload(&self, keys: &TrustedKeys) -> Result<(Vec<u8>, KeyId), SignatureError> {
        let payload = self.payload_unverified()?;
        let message = pre_authentication_encoding(&self.payload_type, &payload);
        let mut good = None;
        for signature in &self.signatures {
            let Some(key) = keys.0.get(&signature.keyid) else { continue };
            let is_good = decode(&signature.sig).is_some_and(|bytes| key.verifies(&message, &bytes));
            if !is_good {
                return Err(SignatureError::Broken(signature.keyid.clone()));
            }
            good = Some(signature.keyid.clone());
        }
        match good {
            Some(key) => Ok((payload, key)),
            None if self.signatures.is_empty() => Err(SignatureError::Unsigned),
            None => {
                let names: Vec<&str> = self.signatures.iter().map(|one| one.keyid.0.as_str()).collect();
                Err(SignatureError::Foreign(names.join(", ")))
            }
        }
    }
}

/// What is signed: `DSSEv1`, then type and payload, each after its length in bytes.
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// DSSE allows both alphabets.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_random(&[seed; 32])
    }

    #[test]
    fn the_signed_bytes_are_those_of_the_dsse_specification() {
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        // RFC 8032, 7.1, test 1: the empty message.
        let random = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let key = SigningKey::from_random(&random);
        assert_eq!(
            hex(key.public().0.as_bytes()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        assert!(
            hex(&key.0.sign(b"").to_bytes()).starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974")
        );
    }

    #[test]
    fn keys_survive_pem_and_keep_their_name() {
        let key = key(7);
        let private = key.to_pem().unwrap();
        assert!(private.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(SigningKey::from_pem(&private).unwrap().public(), key.public());
        let public = key.public().to_pem();
        assert!(public.starts_with("-----BEGIN PUBLIC KEY-----\n"));
        assert_eq!(PublicKey::from_pem(&public).unwrap().id(), key.public().id());
        let der = key.public().0.to_public_key_der().unwrap();
        assert_eq!(key.public().id().0, sha256(der.as_bytes()).0, "the prefix is the encoder's");
    }

    #[test]
    fn a_private_key_is_never_shown() {
        let key = key(7);
        let private = key.to_pem().unwrap();
        assert!(format!("{key:?}").ends_with("<secret>)"));
        let error = PublicKey::from_pem(&private).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&private[30..60]));
    }

    #[test]
    fn a_weak_key_is_refused() {
        // The identity point: every signature with R = s·B would verify under it if verification were lax.
        let weak = ed25519_dalek::VerifyingKey::from_bytes(&{
            let mut bytes = [0; 32];
            bytes[0] = 1;
            bytes
        })
        .unwrap();
        let pem = weak.to_public_key_pem(LineEnding::LF).unwrap();
        assert_eq!(PublicKey::from_pem(&pem), Err(SignatureError::NotAKey("public")));
    }

    #[test]
    fn only_a_trusted_signature_over_these_bytes_is_believed() {
        let envelope = Envelope::sign(b"{}", &key(1));
        let trusted = TrustedKeys::of([key(1).public()]);
        assert_eq!(envelope.verified_payload(&trusted).unwrap(), (b"{}".to_vec(), key(1).public().id()));

        let others = TrustedKeys::of([key(2).public()]);
        assert!(matches!(envelope.verified_payload(&others), Err(SignatureError::Foreign(_))));

        let mut altered = envelope.clone();
        altered.payload = STANDARD.encode(b"[]");
        assert!(matches!(altered.verified_payload(&trusted), Err(SignatureError::Broken(_))));

        let mut retyped = envelope.clone();
        retyped.payload_type = "text/plain".to_owned();
        assert!(matches!(retyped.verified_payload(&trusted), Err(SignatureError::OtherPayload(_))));

        let mut unsigned = envelope.clone();
        unsigned.signatures.clear();
        assert_eq!(unsigned.verified_payload(&trusted), Err(SignatureError::Unsigned));

        let mut impostor = Envelope::sign(b"{}", &key(2));
        impostor.signatures[0].keyid = key(1).public().id();
        assert!(matches!(impostor.verified_payload(&trusted), Err(SignatureError::Broken(_))));
        let mut beside = envelope.clone();
        beside.signatures.extend(impostor.signatures);
        assert!(matches!(beside.verified_payload(&trusted), Err(SignatureError::Broken(_))));

        let mut countersigned = envelope;
        countersigned.signatures.extend(Envelope::sign(b"{}", &key(3)).signatures);
        assert!(countersigned.verified_payload(&trusted).is_ok());
    }

    #[test]
    fn a_key_is_shown_by_its_name() {
        assert_eq!(KeyId("sha256:1234".to_owned()).to_string(), "sha256:1234");
    }
}
