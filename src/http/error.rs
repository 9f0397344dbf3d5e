//! Errors as callers see them: `application/problem+json` with a stable code.
//!
//! This is the only place that knows status codes. What a caller gets is written for the caller;
//! what went wrong inside is logged where it is handled and never sent. The catalogue below is
//! what the documentation and the OpenAPI document are made of.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::domain::intake::Refusal;
use crate::domain::rules::RefusedTime;
use crate::store::StoreError;

/// Declares the catalogue: code, status, and what it means.
macro_rules! catalogue {
    ($($(#[doc = $meaning:literal])+ $code:ident = $name:literal, $status:ident;)*) => {
        /// The stable code of a problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[doc = $meaning])+ $code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The code as it is sent.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// The status that comes with it.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)* }
            }

            /// What it means, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => concat!($($meaning),+).trim_ascii(),)* }
            }
        }
    };
}

catalogue! {
    /// The event's time is at or before the lead's creation; Meta would discard it silently.
    EventTimeNotAfterLead = "event_time_not_after_lead", UNPROCESSABLE_ENTITY;
    /// The event's time is more than 7 days ago; Meta would refuse it.
    EventTimeTooOld = "event_time_too_old", UNPROCESSABLE_ENTITY;
    /// The event's time is in the future.
    EventTimeInFuture = "event_time_in_future", UNPROCESSABLE_ENTITY;
    /// No lead is known that this is about.
    LeadNotFound = "lead_not_found", NOT_FOUND;
    /// The lead comes from Meta's Test button and is never sent to a dataset.
    LeadIsTest = "lead_is_test", UNPROCESSABLE_ENTITY;
    /// The lead has as many events as a lead may have.
    TooManyEvents = "too_many_events", UNPROCESSABLE_ENTITY;
    /// The value is no lead id of Meta's.
    InvalidLeadId = "invalid_lead_id", BAD_REQUEST;
    /// A customer parameter has too many values, or one that is too long.
    InvalidCustomer = "invalid_customer", UNPROCESSABLE_ENTITY;
    /// What is said of the person is too little for Meta to find anybody by, and no lead is named.
    CustomerInsufficient = "customer_insufficient", UNPROCESSABLE_ENTITY;
    /// Several leads fit, and the source is configured to be told; `lead_ids` names them.
    AmbiguousMatch = "ambiguous_match", CONFLICT;
    /// What the CRM sent can't be read by the mapping of its source; `field` and `path` say why.
    Unmappable = "unmappable", UNPROCESSABLE_ENTITY;
    /// The idempotency key was used before with other content.
    IdempotencyConflict = "idempotency_conflict", CONFLICT;
    /// The dead letter can't be sent any more: its time is over or was wrong from the start.
    NotRetriable = "not_retriable", CONFLICT;
    /// Leads are being read from Meta already; one at a time.
    BackfillRunning = "backfill_running", CONFLICT;
    /// No Page's token is configured, so no lead can be read from Meta.
    ReadingNotConfigured = "reading_not_configured", CONFLICT;
    /// A backup is being made or fetched already; one at a time.
    BackupRunning = "backup_running", CONFLICT;
    /// A backup would leave too little room on the disk of the store; the store itself goes on.
    BackupNoRoom = "backup_no_room", INSUFFICIENT_STORAGE;
    /// The store of this server is no file; a database has backups of its own.
    BackupNotSupported = "backup_not_supported", NOT_IMPLEMENTED;
    /// The request can't be understood; the detail says where.
    InvalidRequest = "invalid_request", BAD_REQUEST;
    /// The key is missing, malformed or unknown.
    Unauthorized = "unauthorized", UNAUTHORIZED;
    /// The webhook's signature is missing, malformed or wrong.
    InvalidSignature = "invalid_signature", UNAUTHORIZED;
    /// The key may not do this, or the webhook's verify token is wrong.
    Forbidden = "forbidden", FORBIDDEN;
    /// There is nothing at this address.
    NotFound = "not_found", NOT_FOUND;
    /// The address exists, and not with this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// The body, or the number of items in it, is over the limit.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE;
    /// The body is compressed; send it as it is.
    UnsupportedEncoding = "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE;
    /// The body did not come in time.
    BodyTimedOut = "body_timed_out", REQUEST_TIMEOUT;
    /// Nothing can be stored or read at the moment; nothing was changed; try again.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE;
    /// Too many large bodies are being read at the moment; nothing was changed; try again.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// The request took too long; it may or may not have been carried out; repeating it is safe.
    TimedOut = "timed_out", SERVICE_UNAVAILABLE;
    /// A defect of leadloop's; it is in the log.
    Internal = "internal", INTERNAL_SERVER_ERROR;
}

/// A problem (RFC 9457). Some codes add fields of their own, such as the times that do not fit.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what `ApiError::to_json` writes")]
pub struct Problem {
    /// `urn:leadloop:problem:` and the code.
    r#type: String,
    /// What the code means.
    title: String,
    /// The HTTP status.
    status: u16,
    /// The stable code.
    #[schema(example = "event_time_too_old")]
    code: String,
    /// What is wrong in this case.
    detail: String,
    /// The field that is wrong, if it is one.
    field: Option<String>,
}

/// A problem to answer with.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    code: Code,
    detail: String,
    fields: Map<String, Value>,
}

impl ApiError {
    /// A problem with a sentence for the caller.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), fields: Map::new() }
    }

    /// A problem that needs no more words than its code has.
    pub fn plain(code: Code) -> Self {
        Self::new(code, code.meaning())
    }

    /// Adds a field of its own to the problem.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// The same words under another code.
    #[must_use]
    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The problem as a JSON object, also for the results of a batch.
    pub fn to_json(&self) -> Value {
        let mut problem = json!({
            "type": format!("urn:leadloop:problem:{}", self.code.name()),
            "title": self.code.meaning(),
            "status": self.code.status().as_u16(),
            "code": self.code.name(),
            "detail": self.detail,
        });
        if let Value::Object(problem) = &mut problem {
            problem.extend(self.fields.clone());
        }
        problem
    }
}

/// The content type of problems.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.code.status(), Json(self.to_json())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        let extra: Option<(HeaderName, &'static str)> = match self.code {
            Code::Unauthorized => Some((header::WWW_AUTHENTICATE, "Bearer")),
            Code::StoreUnavailable | Code::TimedOut | Code::Overloaded => {
                Some((header::RETRY_AFTER, "5"))
            }
            Code::UnsupportedEncoding => Some((header::ACCEPT_ENCODING, "identity")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "store failed");
        Self::plain(Code::StoreUnavailable)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Time(RefusedTime::NotAfterLead { event_time, lead_created_time }) => {
                Self::new(Code::EventTimeNotAfterLead, detail)
                    .with("event_time", event_time.get())
                    .with("lead_created_time", lead_created_time.get())
            }
            Refusal::Time(RefusedTime::TooOld { event_time }) => {
                Self::new(Code::EventTimeTooOld, detail).with("event_time", event_time.get())
            }
            Refusal::Time(RefusedTime::InFuture { event_time }) => {
                Self::new(Code::EventTimeInFuture, detail).with("event_time", event_time.get())
            }
            Refusal::Ambiguous(ambiguous) => {
                let lead_ids = ambiguous.lead_ids.iter().map(ToString::to_string);
                Self::new(Code::AmbiguousMatch, detail)
                    .with("lead_ids", lead_ids.collect::<Vec<_>>())
            }
            Refusal::CustomerInsufficient => Self::new(Code::CustomerInsufficient, detail),
            Refusal::LeadNotFound | Refusal::LeadErased => Self::new(Code::LeadNotFound, detail),
            Refusal::LeadIsTest => Self::new(Code::LeadIsTest, detail),
            Refusal::IdempotencyConflict => Self::new(Code::IdempotencyConflict, detail),
            Refusal::TooManyEvents => Self::new(Code::TooManyEvents, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::UnixSeconds;

    #[test]
    fn the_catalogue_of_codes_is_stable() {
        let catalogue: Vec<String> = Code::ALL
            .iter()
            .map(|code| format!("{} {}: {}", code.status().as_u16(), code.name(), code.meaning()))
            .collect();
        insta::assert_snapshot!(catalogue.join("\n"));
    }

    #[test]
    fn a_time_before_the_lead_is_answered_with_both_times() {
        let refusal = Refusal::Time(RefusedTime::NotAfterLead {
            event_time: UnixSeconds::new(5),
            lead_created_time: UnixSeconds::new(6),
        });
        let problem = ApiError::from(refusal).to_json();
        assert_eq!(problem["code"], "event_time_not_after_lead");
        assert_eq!((&problem["event_time"], &problem["lead_created_time"]), (&json!(5), &json!(6)));
    }

    #[test]
    fn a_failing_store_is_a_503_that_tells_nothing_of_our_insides() {
        let error = ApiError::from(StoreError::Unavailable("/secret/path: disk full".into()));
        assert!(!error.to_json().to_string().contains("secret"));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }
}
