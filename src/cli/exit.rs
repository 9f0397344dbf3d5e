//! Exit codes, each with its meaning; the ones above 64 are those of `sysexits.h`.

use std::process::{ExitCode, Termination};

use crate::config::ConfigError;
use crate::store::StoreError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked.
    Success = 0,
    /// It failed.
    Failure = 1,
    /// What was asked for does not exist.
    NotFound = 3,
    /// The server can't be reached.
    Unavailable = 69,
    /// A defect of the program: the store's thread died. Starting again repairs it.
    Software = 70,
    /// The settings are wrong.
    Config = 78,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// Why a command failed, in one sentence.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The sentence.
    pub message: String,
}

impl Failure {
    /// A failure with its words.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failure, format!("{error:#}"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::Failure, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failure, error.to_string())
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let cause = if error.is_connect() {
            "nobody answers at this address: is the server running?"
        } else if error.is_timeout() {
            "there was no answer in time"
        } else {
            "the connection broke, or the answer made no sense"
        };
        let address = error
            .url()
            .map_or_else(String::new, |url| format!("{}: ", url.origin().ascii_serialization()));
        Self::new(Exit::Unavailable, format!("{address}{cause}"))
    }
}
