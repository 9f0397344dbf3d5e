//! `leadloop openapi`: the OpenAPI document.

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::http::openapi;

/// Prints the document as JSON.
pub(super) fn run() -> Result<(), Failure> {
    let document = openapi().to_pretty_json();
    let document = document.map_err(|error| Failure::new(Exit::Software, error.to_string()))?;
    print(&format!("{document}\n"))
}
