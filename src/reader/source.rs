//! The way to Meta for reading: one bounded GET request.

use std::fmt;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::client::http_client;
use crate::delivery::sink::no_answer;
use crate::delivery::verdict::NoAnswer;
use crate::limits::READ_ANSWER_BYTES_MAX;
use crate::meta::graph::GraphQuery;
use crate::meta::usage::{used_percent, wait_s};

/// Asks the Graph API.
#[async_trait]
pub trait GraphSource: Send + Sync {
    /// Asks, and reads the answer; judges nothing and repeats nothing.
    async fn ask(&self, token: &SecretString, query: &GraphQuery) -> Result<GraphAnswer, NoAnswer>;
}

/// What the Graph API answered.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GraphAnswer {
    /// The HTTP status.
    pub http_status: u16,
    /// The body, which may be about people.
    pub body: Vec<u8>,
    /// How many seconds the headers ask to wait.
    pub wait_s: Option<u64>,
    /// How much of the budget of calls is used, in per cent.
    pub used_percent: Option<u64>,
}

impl fmt::Debug for GraphAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.len();
        let mut shown = f.debug_struct("GraphAnswer");
        shown.field("http_status", &self.http_status).field("bytes", &bytes);
        shown.finish_non_exhaustive()
    }
}

/// The Graph API over HTTP.
pub struct HttpGraph {
    client: reqwest::Client,
    graph_base: String,
}

impl HttpGraph {
    /// A way to an address such as `https://graph.facebook.com/v24.0`.
    ///
    /// # Errors
    /// If the platform's certificates can't be used.
    pub fn new(graph_base: &str) -> Result<Self, reqwest::Error> {
        Ok(Self { client: http_client(graph_base)?, graph_base: graph_base.to_owned() })
    }
}

#[async_trait]
impl GraphSource for HttpGraph {
    async fn ask(&self, token: &SecretString, query: &GraphQuery) -> Result<GraphAnswer, NoAnswer> {
        let bearer = format!("Bearer {}", token.expose_secret());
        let mut bearer = HeaderValue::try_from(bearer).map_err(|_| NoAnswer::Unwritable)?;
        bearer.set_sensitive(true);
        let request = self
            .client
            .get(format!("{}/{}", self.graph_base, query.path))
            .query(&query.parameters)
            .header(AUTHORIZATION, bearer);
        let mut response = request.send().await.map_err(|error| no_answer(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(&error))? {
            if body.len() + chunk.len() > READ_ANSWER_BYTES_MAX {
                return Err(NoAnswer::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        Ok(GraphAnswer {
            http_status: response.status().as_u16(),
            wait_s: wait_s(header),
            used_percent: used_percent(header),
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_not_shown_to_anybody_who_looks_at_it() {
        let answer = GraphAnswer { body: b"joe@example.com".to_vec(), ..GraphAnswer::default() };
        assert_eq!(format!("{answer:?}"), "GraphAnswer { http_status: 0, bytes: 15, .. }");
    }
}
