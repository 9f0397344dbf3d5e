//! Sealing what is kept of a CRM's payload, since it may name persons in the clear.
//!
//! XChaCha20-Poly1305 under a key that HKDF-SHA256 derives from the app secret, so that the store's
//! file alone tells nothing. The nonce is derived from what is sealed, as in SIV: the same is
//! sealed to the same bytes, by which the store knows it again
//! ([decision 13](../../../docs/decisions/0013-unmapped-reports-are-kept-sealed.md)).

use chacha20poly1305::aead::{Aead, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::domain::stage::SourceName;

const SALT: &[u8] = b"leadloop unmapped reports, version 1";
const NONCE_BYTES: usize = 24;

/// Seals with the first app secret, and opens with any.
pub(super) struct Sealer {
    keys: Vec<Keys>,
}

struct Keys {
    cipher: XChaCha20Poly1305,
    nonce: Hmac<Sha256>,
}

impl Keys {
    fn new(secret: &SecretString) -> Self {
        let derived = Hkdf::<Sha256>::new(Some(SALT), secret.expose_secret().as_bytes());
        let key = |purpose: &[u8]| {
            let mut key = [0; 32];
            derived.expand(purpose, &mut key).expect("HKDF-SHA256 gives up to 8,160 bytes");
            key
        };
        let cipher = XChaCha20Poly1305::new(&key(b"seal").into());
        let nonce = Hmac::new_from_slice(&key(b"nonce")).expect("HMAC takes keys of every length");
        Self { cipher, nonce }
    }

    fn nonce(&self, source: &[u8], plain: &[u8]) -> [u8; NONCE_BYTES] {
        let mac = self.nonce.clone().chain_update((source.len() as u64).to_be_bytes());
        let digest = mac.chain_update(source).chain_update(plain).finalize().into_bytes();
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&digest[..NONCE_BYTES]);
        nonce
    }
}

impl Sealer {
    /// Derives the keys.
    pub(super) fn new(app_secrets: &[SecretString]) -> Self {
        Self { keys: app_secrets.iter().map(Keys::new).collect() }
    }

    /// Seals something of a source; `None` without a secret, which no configuration is.
    pub(super) fn seal(&self, source: &SourceName, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.first()?;
        let source = source.as_str().as_bytes();
        let nonce = keys.nonce(source, plain);
        let payload = Payload { msg: plain, aad: source };
        let sealed = keys.cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed of this source under any of the secrets.
    pub(super) fn open(&self, source: &SourceName, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let source = source.as_str().as_bytes();
        let open = |keys: &Keys| {
            let payload = Payload { msg: sealed, aad: source };
            keys.cipher.decrypt(&XNonce::from(*nonce), payload).ok()
        };
        self.keys.iter().find_map(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(secrets: &[&str]) -> Sealer {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
        Sealer::new(&secrets)
    }

    fn source(name: &str) -> SourceName {
        SourceName::parse(name).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_under_an_old_secret_too_and_for_its_source_only() {
        let (plain, crm) = (b"erika@example.org".as_slice(), source("crm"));
        let sealed = sealer(&["old"]).seal(&crm, plain).unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"erika"));
        assert_eq!(sealer(&["new", "old"]).open(&crm, &sealed).as_deref(), Some(plain));
        assert_eq!(sealer(&["new"]).open(&crm, &sealed), None);
        assert_eq!(sealer(&["old"]).open(&source("other"), &sealed), None);
    }

    #[test]
    fn the_same_is_sealed_to_the_same_bytes_and_anything_else_to_others() {
        let sealer = sealer(&["secret"]);
        let seal = |name: &str, plain: &[u8]| sealer.seal(&source(name), plain).unwrap();
        assert_eq!(seal("crm", b"a"), seal("crm", b"a"));
        assert_ne!(seal("crm", b"a")[..NONCE_BYTES], seal("crm", b"b")[..NONCE_BYTES]);
        assert_ne!(seal("crm", b"a")[..NONCE_BYTES], seal("crma", b"")[..NONCE_BYTES]);
    }

    #[test]
    fn a_flipped_bit_and_a_cut_are_noticed() {
        let one = sealer(&["secret"]);
        let sealed = one.seal(&source("crm"), b"text").unwrap();
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(one.open(&source("crm"), &flipped), None, "{at}");
            assert_eq!(one.open(&source("crm"), &sealed[..at]), None, "{at}");
        }
    }

    #[test]
    fn version_1_is_sealed_to_these_bytes_for_ever() {
        let sealed = sealer(&["secret"]).seal(&source("crm"), b"text").unwrap();
        let golden = "d4b9fd19a06371095abc7b0951c82454bb4b2a1fedf07dd1a0b2a7babdea1ce29080a59f64b3053eaa44\
                      a698";
        assert_eq!(hex::encode(sealed), golden);
    }
}
