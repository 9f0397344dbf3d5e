//! What handlers ask for, checked before they run: a signed body, a key with a scope, JSON, a
//! path, a query. A handler that takes one of these can't forget the check.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::config::Scope;
use crate::http::error::{ApiError, Code};
use crate::http::state::AppState;
use crate::limits::WEBHOOK_BODY_BYTES_MAX;
use crate::meta::signature::{SIGNATURE_HEADER, read_header};

/// The bytes of a webhook whose signature was right.
pub struct SignedBody(pub Bytes);

impl FromRequest<AppState> for SignedBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let refuse = |result| {
            state.metrics.webhook(result);
            ApiError::plain(Code::InvalidSignature)
        };
        // Who shows nothing that could be a signature does not get to send a megabyte first.
        let signature = single_header(&parts.headers, SIGNATURE_HEADER);
        let signature = signature.filter(|header| read_header(header).is_some());
        let signature = signature.ok_or_else(|| refuse("no_signature"))?;
        let body = state.bodies.read(&parts.headers, body, WEBHOOK_BODY_BYTES_MAX).await;
        let body = body.inspect_err(|error| {
            let overloaded = error.code() == Code::Overloaded;
            state.metrics.webhook(if overloaded { "overloaded" } else { "unreadable_body" });
        })?;
        if !state.verifier.verify(signature, &body) {
            return Err(refuse("bad_signature"));
        }
        Ok(Self(body))
    }
}

/// The value of a header that is there exactly once.
pub(super) fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// Proof that the caller's key has a scope; [`Reader`], [`Reporter`] and [`Admin`] are such proofs.
pub struct Authorized<const SCOPE: u8>(());

/// May look up.
pub type Reader = Authorized<{ Scope::Read as u8 }>;
/// May report stages.
pub type Reporter = Authorized<{ Scope::Write as u8 }>;
/// May do everything.
pub type Admin = Authorized<{ Scope::Admin as u8 }>;

impl<const SCOPE: u8> FromRequestParts<AppState> for Authorized<SCOPE> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let shown = single_header(&parts.headers, AUTHORIZATION.as_str())
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, key)| key.trim());
        let key = shown.and_then(|shown| state.api_key(shown));
        let key = key.ok_or_else(|| ApiError::plain(Code::Unauthorized))?;
        let scope = Scope::ALL.into_iter().find(|scope| *scope as u8 == SCOPE);
        if scope.is_some_and(|scope| key.allows(scope)) {
            Ok(Self(()))
        } else {
            let needed = scope.map_or("", Scope::name);
            Err(ApiError::new(Code::Forbidden, format!("the key lacks the scope \"{needed}\"")))
        }
    }
}

/// A JSON body of at most so many bytes.
pub struct JsonBody<T, const BYTES_MAX: usize>(pub T);

impl<T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<AppState> for JsonBody<T, BYTES_MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = state.bodies.read(&parts.headers, body, BYTES_MAX).await?;
        // serde would take a list for an object, field by field.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::new(Code::InvalidRequest, "the body must be a JSON object"));
        }
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| ApiError::new(Code::InvalidRequest, what_is_wrong(&error)))
    }
}

/// What is wrong with a JSON text, without the value that is: it may be about a person.
pub(super) fn what_is_wrong(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let quoted = ["invalid type", "invalid value"].into_iter().find(|kind| text.starts_with(kind));
    match (quoted, text.rfind(", expected ")) {
        (Some(kind), Some(expected)) => format!("{kind}{}", &text[expected..]),
        _ => text,
    }
}

/// The variable part of a path, or several.
pub struct ApiPath<T = String>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(part)| Self(part))
            .map_err(|error| ApiError::new(Code::InvalidRequest, error.body_text()))
    }
}

/// The query of a request.
pub struct ApiQuery<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(query)| Self(query))
            .map_err(|error| ApiError::new(Code::InvalidRequest, error.body_text()))
    }
}
