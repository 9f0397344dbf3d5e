//! The way to the receiver: one small, signed and bounded request.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::alarm::message::Message;
use crate::alarm::signature::sign;
use crate::client::http_client_within;
use crate::config::alarms::AlarmReceiver;
use crate::domain::time::Timestamp;

/// The receiver of alarms.
pub struct Post {
    client: reqwest::Client,
    url: SecretString,
    keys: Vec<SecretSlice<u8>>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The receiver has it: it answered 2xx.
    Taken,
    /// It answered something else.
    Refused(u16),
    /// It did not answer; whether it has the message is not known.
    NoAnswer(&'static str),
}

impl Post {
    /// A way to a receiver that has so much time for its answer.
    ///
    /// # Errors
    /// If the platform's certificates can't be used.
    pub fn new(receiver: &AlarmReceiver, timeout: Duration) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: http_client_within(receiver.url.expose_secret(), timeout)?,
            url: receiver.url.clone(),
            keys: receiver.keys.clone(),
        })
    }

    /// Posts a message and looks at the status of the answer; its body is not read.
    pub async fn post(&self, message: &Message, now: Timestamp) -> Posted {
        let at = now.seconds();
        let request = self
            .client
            .post(self.url.expose_secret())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", at.get())
            .header("webhook-signature", sign(&self.keys, &message.id, at, &message.body))
            .body(message.body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Posted::Taken,
            Ok(answer) => Posted::Refused(answer.status().as_u16()),
            // The error's own words would show the address.
            Err(error) if error.is_connect() => Posted::NoAnswer("nobody answers at the address"),
            Err(error) if error.is_timeout() => Posted::NoAnswer("there was no answer in time"),
            Err(_) => Posted::NoAnswer("the connection broke"),
        }
    }
}
