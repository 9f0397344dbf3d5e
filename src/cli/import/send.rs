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

/// Why a batch has no verdicts yet.
enum Trouble {
    /// Asking again would not help.
    Lasting(Failure),
    /// It may help, after the seconds that the server asked for.
    Passing(Failure, Option<u64>),
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
        let mut answer = insist(async || self.ask(&body).await).await?;
        match answer["results"].take() {
            Value::Array(results) if results.len() == count => Ok(results),
            _ => Err(Failure::new(Exit::Failure, "the server's answer makes no sense")),
        }
    }

    async fn ask(&mut self, body: &Value) -> Result<Value, Trouble> {
        let request = self.client.request(Method::POST, "/v1/stage-updates/batch").json(body);
        let response = request.send().await.map_err(|error| {
            if self.is_there {
                Trouble::Passing(error.into(), None)
            } else {
                Trouble::Lasting(error.into())
            }
        })?;
        self.is_there = true;
        let (status, asked) = (response.status(), retry_after_s(&response));
        if status.is_success() {
            return response.json().await.map_err(|error| Trouble::Passing(error.into(), None));
        }
        let failure = problem(status, &response.json().await.unwrap_or_default());
        Err(match status {
            StatusCode::SERVICE_UNAVAILABLE => Trouble::Passing(failure, asked),
            _ => Trouble::Lasting(failure),
        })
    }
}

/// Asks until there is an answer, or no hope of one.
async fn insist(mut ask: impl AsyncFnMut() -> Result<Value, Trouble>) -> Result<Value, Failure> {
    let mut waits_s = IMPORT_RETRY_SCHEDULE_S.into_iter();
    loop {
        let (failure, asked_s) = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(Trouble::Lasting(failure)) => return Err(failure),
            Err(Trouble::Passing(failure, asked_s)) => (failure, asked_s),
        };
        let Some(scheduled_s) = waits_s.next() else { return Err(failure) };
        // Whatever became of it, the server knows what it has taken in already.
        tokio::time::sleep(wait(scheduled_s, asked_s)).await;
    }
}

/// How long the server asks to be left alone, in seconds.
fn retry_after_s(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// How long to wait before the next try. What the server asks for is for one client; it must not
/// bring one back earlier that has asked in vain for minutes.
fn wait(scheduled_s: u64, asked_s: Option<u64>) -> Duration {
    let asked_s = asked_s.unwrap_or(0).min(IMPORT_RETRY_AFTER_S_MAX);
    Duration::from_secs(scheduled_s.max(asked_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[test]
    fn waits_are_the_longer_of_what_is_asked_for_and_the_schedule_and_have_an_end() {
        let seconds = |scheduled_s, asked_s| wait(scheduled_s, asked_s).as_secs();
        assert_eq!(seconds(1, None), 1);
        assert_eq!(seconds(30, Some(0)), 30);
        assert_eq!(seconds(1, Some(5)), 5);
        assert_eq!(seconds(1, Some(u64::MAX)), IMPORT_RETRY_AFTER_S_MAX);
        assert!(IMPORT_RETRY_SCHEDULE_S.is_sorted());
    }

    /// What comes of it, after how many tries and seconds, when the first tries fail so.
    async fn after(
        failed: usize,
        trouble: fn(Failure) -> Trouble,
    ) -> (Result<Value, String>, usize, u64) {
        let (began, mut tries) = (Instant::now(), 0);
        let answer = insist(async || {
            tries += 1;
            let failure = Failure::new(Exit::Unavailable, "gone");
            if tries > failed { Ok(json!("here")) } else { Err(trouble(failure)) }
        });
        let answer = answer.await.map_err(|failure| failure.message);
        (answer, tries, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_asked_again_for_minutes_and_then_given_up() {
        let busy = |failure| Trouble::Passing(failure, Some(0));
        assert_eq!(after(0, busy).await, (Ok(json!("here")), 1, 0));
        assert_eq!(after(3, busy).await, (Ok(json!("here")), 4, 1 + 2 + 5));
        assert_eq!(after(8, busy).await, (Ok(json!("here")), 9, 288));
        assert_eq!(after(9, busy).await, (Err("gone".to_owned()), 9, 288));
        assert_eq!(after(1, Trouble::Lasting).await, (Err("gone".to_owned()), 1, 0));
    }
}
