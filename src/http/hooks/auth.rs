//! Who sends a CRM's webhook, checked before a byte of it is parsed.
//!
//! [`HookBody`] is the only way to the body, so no handler can forget the check. Secrets are
//! compared in constant time, and the one in a path is in no log: there is no line per request.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;

use crate::config::hooks::{Encoding, HmacAuth, Hook, HookAuth, SignedPart};
use crate::domain::stage::SourceName;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::http::error::{ApiError, Code};
use crate::http::extract::{Reporter, single_header};
use crate::http::state::{AppState, secrets_match};
use crate::limits::{HOOK_BODY_BYTES_MAX, HOOK_TIMESTAMP_TOLERANCE_S};

/// A CRM's webhook, whose sender has shown who it is.
pub struct HookBody {
    /// The source.
    pub source: SourceName,
    /// How it is read.
    pub hook: Arc<Hook>,
    /// What the sender calls the body.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl FromRequest<AppState> for HookBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let found = enter(&mut parts, state).await;
        let (source, hook) = found.inspect_err(|_| state.metrics.hook("refused"))?;
        let headers = &parts.headers;
        let body = state.bodies.read(headers, body, HOOK_BODY_BYTES_MAX).await;
        let body = body.inspect_err(|error| {
            state.metrics.hook("unreadable_body");
            // What else can be wrong with a body passes when the CRM sends it again.
            if matches!(error.code(), Code::PayloadTooLarge | Code::UnsupportedEncoding) {
                state.refused_hooks.tell(&source, error.code(), state.clock.now());
            }
        })?;
        if let HookAuth::Hmac(auth) = &hook.auth
            && !is_signed(auth, headers, &body, state.clock.now())
        {
            state.metrics.hook("refused");
            state.refused_hooks.tell(&source, Code::InvalidSignature, state.clock.now());
            return Err(ApiError::plain(Code::InvalidSignature));
        }
        let content_type = single_header(headers, CONTENT_TYPE.as_str());
        let content_type = content_type.map(|name| String::from_utf8_lossy(name).to_lowercase());
        Ok(Self { source, hook, content_type, body })
    }
}

/// Finds the source and checks what can be checked before the body is there.
async fn enter(parts: &mut Parts, state: &AppState) -> Result<(SourceName, Arc<Hook>), ApiError> {
    let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
    let Path(path) =
        path.map_err(|error| ApiError::new(Code::InvalidRequest, error.body_text()))?;
    let shown = path.get("secret").map(String::as_str);
    let source = path.get("source").and_then(|name| SourceName::parse(name).ok());
    let found =
        source.and_then(|name| Some((state.config.sources.get(&name)?.hook.clone()?, name)));
    let Some((hook, source)) = found else {
        // Which sources there are is told to nobody without a key.
        Reporter::from_request_parts(parts, state).await?;
        return Err(ApiError::new(Code::NotFound, "no source of this name takes webhooks"));
    };
    match admit(&hook, shown, parts, state).await {
        Ok(()) => Ok((source, hook)),
        Err(error) => {
            state.refused_hooks.tell(&source, error.code(), state.clock.now());
            Err(error)
        }
    }
}

/// Checks what the sender shows.
async fn admit(
    hook: &Hook,
    shown: Option<&str>,
    parts: &mut Parts,
    state: &AppState,
) -> Result<(), ApiError> {
    let is_right = match (&hook.auth, shown) {
        (HookAuth::Path(secret), Some(shown)) => secrets_match(shown, secret.expose_secret()),
        (HookAuth::Path(_), None) | (_, Some(_)) => false,
        (HookAuth::Bearer, None) => {
            Reporter::from_request_parts(parts, state).await?;
            true
        }
        (HookAuth::Header(auth), None) => single_header(&parts.headers, &auth.header)
            .and_then(|value| std::str::from_utf8(value).ok())
            .is_some_and(|value| secrets_match(value, auth.secret.expose_secret())),
        // Who shows nothing that could be a signature does not get to send a body first.
        (HookAuth::Hmac(auth), None) => digest(auth, &parts.headers).is_some(),
    };
    if !is_right {
        let is_signature = matches!(hook.auth, HookAuth::Hmac(_));
        let code = if is_signature { Code::InvalidSignature } else { Code::Unauthorized };
        return Err(ApiError::plain(code));
    }
    Ok(())
}

/// The digest that the header holds, if it has the form of one.
fn digest(auth: &HmacAuth, headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = single_header(headers, &auth.header)?.strip_prefix(auth.prefix.as_bytes())?;
    let digest = match auth.encoding {
        Encoding::Hex => hex::decode(value).ok()?,
        Encoding::Base64 => STANDARD.decode(value).ok()?,
    };
    (digest.len() == 32).then_some(digest)
}

fn is_signed(auth: &HmacAuth, headers: &HeaderMap, body: &[u8], now: Timestamp) -> bool {
    let Some(digest) = digest(auth, headers) else { return false };
    let timestamp = match &auth.timestamp_header {
        None => b"",
        Some(name) => match single_header(headers, name) {
            Some(value) if is_recent(value, now) => value,
            _ => return false,
        },
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(auth.secret.expose_secret().as_bytes())
        .expect("HMAC takes keys of every length");
    for part in &auth.signed {
        mac.update(match part {
            SignedPart::Body => body,
            SignedPart::Timestamp => timestamp,
            SignedPart::Text(text) => text.as_bytes(),
        });
    }
    mac.verify_slice(&digest).is_ok()
}

/// Whether a signature's time, in seconds or milliseconds, is about now.
fn is_recent(value: &[u8], now: Timestamp) -> bool {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
    number.is_some_and(|number| {
        let in_millis = UnixSeconds::looks_like_milliseconds(number);
        let seconds = UnixSeconds::new(if in_millis { number / 1_000 } else { number });
        (now.seconds() - seconds).abs() <= HOOK_TIMESTAMP_TOLERANCE_S
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    const NOW: Timestamp = Timestamp::from_millis(1_762_000_000_000);
    const URL: &str = "https://leadloop.example/v1/hooks/hubspot";

    fn auth(encoding: Encoding, prefix: &str, timestamp_header: Option<&str>) -> HmacAuth {
        let text = |text: &str| SignedPart::Text(text.into());
        let signed = match timestamp_header {
            None => vec![SignedPart::Body],
            Some(_) => vec![text("POST"), text(URL), SignedPart::Body, SignedPart::Timestamp],
        };
        HmacAuth {
            header: "x-sign".into(),
            secret: "key".into(),
            encoding,
            prefix: prefix.into(),
            signed,
            timestamp_header: timestamp_header.map(Into::into),
        }
    }

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        of.iter().map(header).collect()
    }

    /// HMAC-SHA256 of a well-known text under the key `key`, as published in many places.
    const TEXT: &[u8] = b"The quick brown fox jumps over the lazy dog";
    const HEX: &str = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
    const BASE64: &str = "97yD9DBThCSxMpjmqm+xQ+9NWaFJRhdZl0edvC0aPNg=";

    #[test]
    fn a_published_vector_is_taken_in_either_encoding_and_nothing_near_it_is() {
        let hex = auth(Encoding::Hex, "sha256=", None);
        let base64 = auth(Encoding::Base64, "", None);
        let signed = |auth: &HmacAuth, value: &str, body: &[u8]| {
            is_signed(auth, &headers(&[("x-sign", value)]), body, NOW)
        };
        assert!(signed(&hex, &format!("sha256={HEX}"), TEXT));
        assert!(signed(&base64, BASE64, TEXT));
        for (value, body) in [
            (format!("sha256={HEX}"), &TEXT[1..]),
            (HEX.to_owned(), TEXT),
            (format!("sha1={HEX}"), TEXT),
            (format!("sha256={}", &HEX[2..]), TEXT),
            (format!("sha256={HEX}00"), TEXT),
            (format!("sha256={BASE64}"), TEXT),
            ("sha256=".to_owned(), TEXT),
        ] {
            assert!(!signed(&hex, &value, body), "{value}");
        }
        let twice = headers(&[("x-sign", BASE64), ("x-sign", BASE64)]);
        assert!(!is_signed(&base64, &twice, TEXT, NOW), "which of the two was meant?");
        assert!(!is_signed(&base64, &headers(&[]), TEXT, NOW));
    }

    #[test]
    fn a_signature_with_a_time_is_good_for_five_minutes() {
        let auth = auth(Encoding::Hex, "", Some("x-time"));
        let signed = |time: &str, shown: &str| {
            let mut mac = Hmac::<Sha256>::new_from_slice(b"key").unwrap();
            mac.update(format!("POST{URL}{{}}{time}").as_bytes());
            let digest = hex::encode(mac.finalize().into_bytes());
            is_signed(&auth, &headers(&[("x-sign", &digest), ("x-time", shown)]), b"{}", NOW)
        };
        for time in ["1762000000", "1762000000000", "1761999700", "1762000300"] {
            assert!(signed(time, time), "{time}");
        }
        for (time, shown) in [
            ("1761999699", "1761999699"),
            ("1762000301", "1762000301"),
            ("1761999000", "1762000000"),
            ("soon", "soon"),
            ("", ""),
            ("-9223372036854775808", "-9223372036854775808"),
        ] {
            assert!(!signed(time, shown), "{time}");
        }
    }
}
