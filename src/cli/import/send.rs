//! Batches on their way to the server, which may be busy or gone for a moment.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::cli::api::{Client, problem};
use crate::cli::exit::{Exit, Failure};
use crate::limits::{IMPORT_RETRY_AFTER_S_MAX, IMPORT_RETRY_SCHEDULE_S};

/// Sends batches, one after the other.
pub(super) struct Sender<'c> {
    client: &'c Client,
    dry_run: bool,
    /// Whether the server has answered before; an address where nobody is is told at once.
    is_there: bool,
}

impl<'c> Sender<'c> {
    pub(super) fn new(client: &'c Client, dry_run: bool) -> Self {
        Self { client, dry_run, is_there: false }
    }

    /// The server's verdict on each update, in order.
    ///
    /// # Errors
    /// If it refuses the batch as a whole, or stays away. Sending the batch again is safe.
    pub(super) async fn send(
        &mut self,
        updates: Vec<Map<String, Value>>,
    ) -> Result<Vec<Value>, Failure> {
        let count = updates.len();
        let mut body = json!({"updates": updates});
        if self.dry_run {
            body["dry_run"] = true.into();
        }
        let mut tries = 0;
        let mut answer: Value = loop {
            let path = "/v1/stage-updates/batch";
            let sent = self.client.request(Method::POST, path).json(&body).send().await;
            let (failure, retry_after_s) = match sent {
                Ok(response) if response.status().is_success() => match response.json().await {
                    Ok(answer) => break answer,
                    Err(error) => (error.into(), None),
                },
                Ok(response) => {
                    let (status, asked) = (response.status(), retry_after_s(&response));
                    let failure = problem(status, &response.json().await.unwrap_or_default());
                    if status != StatusCode::SERVICE_UNAVAILABLE {
                        return Err(failure);
                    }
                    (failure, asked)
                }
                Err(error) if self.is_there => (error.into(), None),
                Err(error) => return Err(error.into()),
            };
            self.is_there = true;
            let Some(wait) = wait(tries, retry_after_s) else { return Err(failure) };
            tries += 1;
            // Whatever became of it, the server knows what it has taken in already.
            tokio::time::sleep(wait).await;
        };
        self.is_there = true;
        match answer["results"].take() {
            Value::Array(results) if results.len() == count => Ok(results),
            _ => Err(Failure::new(Exit::Failure, "the server's answer makes no sense")),
        }
    }
}

/// How long the server asks to be left alone, in seconds.
fn retry_after_s(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// How long to wait before the next try, if there is one.
fn wait(tries: usize, retry_after_s: Option<u64>) -> Option<Duration> {
    let scheduled = *IMPORT_RETRY_SCHEDULE_S.get(tries)?;
    let asked = retry_after_s.map(|seconds| seconds.min(IMPORT_RETRY_AFTER_S_MAX));
    Some(Duration::from_secs(asked.unwrap_or(scheduled)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_what_the_server_asks_for_or_grow_and_have_an_end() {
        let seconds = |tries, asked| wait(tries, asked).map(|wait| wait.as_secs());
        assert_eq!(seconds(0, None), Some(1));
        assert_eq!(seconds(4, None), Some(30));
        assert_eq!(seconds(4, Some(0)), Some(0));
        assert_eq!(seconds(0, Some(5)), Some(5));
        assert_eq!(seconds(0, Some(u64::MAX)), Some(IMPORT_RETRY_AFTER_S_MAX));
        assert_eq!(seconds(IMPORT_RETRY_SCHEDULE_S.len(), None), None);
        assert_eq!(seconds(IMPORT_RETRY_SCHEDULE_S.len(), Some(1)), None);
        assert!(IMPORT_RETRY_SCHEDULE_S.is_sorted());
    }
}
