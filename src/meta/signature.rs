//! The signature of a webhook delivery: HMAC-SHA256 over the bytes as they came (META 1.2).
//!
//! There is no replay window, since Meta signs no time; that a lead is taken in once is what makes
//! a replay harmless. The old SHA-1 header is not looked at.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "x-hub-signature-256";
const PREFIX: &[u8] = b"sha256=";

/// Checks signatures against every app secret that is configured.
///
/// Several secrets are normal: several apps on one address, and the old beside the new one while a
/// secret is rotated. The keys are prepared once.
#[derive(Clone)]
pub struct SignatureVerifier {
    keys: Vec<Hmac<Sha256>>,
}

impl SignatureVerifier {
    /// Prepares the secrets.
    pub fn new(secrets: &[SecretString]) -> Self {
        Self { keys: secrets.iter().map(keyed).collect() }
    }

    /// Whether the header's value is the signature of the body under one of the secrets.
    ///
    /// Anything but `sha256=` and 64 hex digits is not. Digests are compared in constant time.
    pub fn verify(&self, header: &[u8], body: &[u8]) -> bool {
        let Some(digest) = read_header(header) else { return false };
        self.keys.iter().any(|key| key.clone().chain_update(body).verify_slice(&digest).is_ok())
    }
}

/// The digest that a header's value holds, if it has the form of a signature at all.
pub fn read_header(header: &[u8]) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(header.strip_prefix(PREFIX)?, &mut digest).ok()?;
    Some(digest)
}

/// The header's value for a body, as Meta would write it.
pub fn sign(secret: &SecretString, body: &[u8]) -> String {
    let digest = keyed(secret).chain_update(body).finalize().into_bytes();
    format!("sha256={}", hex::encode(digest))
}

fn keyed(secret: &SecretString) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes keys of every length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier(secrets: &[&str]) -> SignatureVerifier {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
        SignatureVerifier::new(&secrets)
    }

    #[test]
    fn known_vectors_are_signed_and_verified() {
        let capture = r#"{"object":"page","entry":[{"id":"138124712925158","time":1630087927,"changes":[{"value":{"form_id":"172036835026334","leadgen_id":"233370042045345","created_time":1630087926,"page_id":"138124712925158"},"field":"leadgen"}]}]}"#;
        for (secret, body, digest) in [
            (
                "test_app_secret",
                r#"{"object":"whatsapp_business_account","entry":[]}"#,
                "dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756",
            ),
            (
                "app_secret",
                capture,
                "03f0154c4ae9c79acaff1017806983d587e8ac7e61f1f277f58324caa415b899",
            ),
            (
                "app_secret",
                r#"{"a":"\u00e4\u00f6\u00e5"}"#,
                "72a1572b7461874b316340a9923650813352f326ddd1669fda0f07e642ceb2c0",
            ),
            (
                "app_secret",
                r#"{"a":"äöå"}"#,
                "2a15557cf81a9a25108f9b07139133e11a99bce674e13278e1e2b56e3e641d45",
            ),
        ] {
            let header = format!("sha256={digest}");
            assert_eq!(sign(&secret.into(), body.as_bytes()), header);
            assert!(verifier(&[secret]).verify(header.as_bytes(), body.as_bytes()));
        }
    }

    #[test]
    fn any_of_several_secrets_will_do() {
        let header = sign(&"old".into(), b"{}");
        assert!(verifier(&["new", "old"]).verify(header.as_bytes(), b"{}"));
        assert!(!verifier(&["new"]).verify(header.as_bytes(), b"{}"));
        assert!(!verifier(&[]).verify(header.as_bytes(), b"{}"));
    }

    #[test]
    fn a_malformed_header_is_no_signature() {
        let good = sign(&"secret".into(), b"{}");
        let digest = &good["sha256=".len()..];
        for bad in [
            String::new(),
            digest.to_owned(),
            format!("sha1={digest}"),
            format!("SHA256={digest}"),
            format!("sha256:{digest}"),
            format!("sha256={}", &digest[1..]),
            format!("sha256={digest}0"),
            format!("sha256= {digest}"),
            format!("sha256={}", digest.replace(|_: char| true, "z")),
            good.replace("sha256=", "xxxxxxx"),
        ] {
            assert!(!verifier(&["secret"]).verify(bad.as_bytes(), b"{}"), "{bad}");
        }
        assert!(!verifier(&["secret"]).verify(good.as_bytes(), b"{} "), "one byte more");
    }
}
