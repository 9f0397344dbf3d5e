//! The way to Meta: one bounded HTTP request.

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::ExposeSecret;

use crate::client::http_client;
use crate::config::Dataset;
use crate::delivery::verdict::NoAnswer;
use crate::limits::SEND_ANSWER_BYTES_MAX;
use crate::meta::conversions::{Answer, read_answer};
use crate::meta::usage::wait_s;

/// Sends the body of a request for a dataset.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Sends, and reads the answer; judges nothing and repeats nothing.
    async fn send(&self, dataset: &Dataset, body: Vec<u8>) -> Result<Answer, NoAnswer>;
}

/// The Graph API over HTTP.
pub struct GraphSink {
    client: reqwest::Client,
    graph_base: String,
}

impl GraphSink {
    /// A sink for an address such as `https://graph.facebook.com/v24.0`.
    ///
    /// # Errors
    /// If the platform's certificates can't be used.
    pub fn new(graph_base: &str) -> Result<Self, reqwest::Error> {
        Ok(Self { client: http_client(graph_base)?, graph_base: graph_base.to_owned() })
    }
}

#[async_trait]
impl EventSink for GraphSink {
    async fn send(&self, dataset: &Dataset, body: Vec<u8>) -> Result<Answer, NoAnswer> {
        let bearer = format!("Bearer {}", dataset.access_token.expose_secret());
        let mut bearer = HeaderValue::try_from(bearer).map_err(|_| NoAnswer::Unwritable)?;
        bearer.set_sensitive(true);
        let request = self
            .client
            .post(format!("{}/{}/events", self.graph_base, dataset.id))
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let mut response = request.send().await.map_err(|error| no_answer(&error))?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(&error))? {
            if answer.len() + chunk.len() > SEND_ANSWER_BYTES_MAX {
                return Err(NoAnswer::TooLarge);
            }
            answer.extend_from_slice(&chunk);
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let wait_s = wait_s(header);
        Ok(Answer { wait_s, ..read_answer(response.status().as_u16(), &answer) })
    }
}

/// Why a request has no answer, without its address.
pub(crate) fn no_answer(error: &reqwest::Error) -> NoAnswer {
    if error.is_connect() {
        NoAnswer::NotConnected
    } else if error.is_timeout() {
        NoAnswer::TimedOut
    } else {
        NoAnswer::Broken
    }
}
