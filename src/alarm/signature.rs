//! The signature of an alarm, as [Standard Webhooks](https://www.standardwebhooks.com) says:
//! HMAC-SHA256 over id, time and body, in base64, one for each key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use crate::domain::time::UnixSeconds;

/// The value of `webhook-signature`. Who knows one of the keys can verify it, so a receiver may
/// change its key at any time while both are configured.
pub(super) fn sign(keys: &[SecretSlice<u8>], id: &str, at: UnixSeconds, body: &[u8]) -> String {
    let signature = |key: &SecretSlice<u8>| {
        let mac = Hmac::<Sha256>::new_from_slice(key.expose_secret());
        let mac = mac.expect("HMAC takes keys of every length");
        let mac = mac.chain_update(format!("{id}.{at}.")).chain_update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    keys.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_the_specification_is_signed_as_it_says() {
        let key: SecretSlice<u8> =
            STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().into();
        let signed = |keys: &[SecretSlice<u8>], body: &[u8]| {
            sign(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", UnixSeconds::new(1_614_265_330), body)
        };
        let body = br#"{"test": 2432232314}"#;
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signed(std::slice::from_ref(&key), body), expected);
        let both = signed(&[vec![7; 24].into(), key.clone()], body);
        let (other, last) = both.split_once(' ').unwrap();
        assert_eq!(last, expected);
        assert!(other.starts_with("v1,") && other != expected);
        assert_ne!(signed(&[key], br#"{"test": 2432232315}"#), expected);
    }
}
