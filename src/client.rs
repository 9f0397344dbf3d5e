//! The one way to make an HTTP client: nothing it does waits without end.

use std::time::Duration;

use crate::limits::{SEND_CONNECT_TIMEOUT, SEND_TIMEOUT};

/// A client for an address. It follows no redirect, since a token must not follow one, and goes to
/// this machine without a proxy.
///
/// # Errors
/// If the platform's certificates can't be used.
pub fn http_client(address: &str) -> Result<reqwest::Client, reqwest::Error> {
    http_client_within(address, SEND_TIMEOUT)
}

/// The same with another longest wait for an answer.
///
/// # Errors
/// If the platform's certificates can't be used.
pub fn http_client_within(
    address: &str,
    timeout: Duration,
) -> Result<reqwest::Client, reqwest::Error> {
    // Fails only when somebody was first, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .connect_timeout(SEND_CONNECT_TIMEOUT)
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("leadloop/", env!("CARGO_PKG_VERSION")));
    if address.starts_with("http://") { builder.no_proxy().build() } else { builder.build() }
}
