//! What a command answers, on its way to stdout.

use std::io::{ErrorKind, Write};

use crate::cli::exit::Failure;

/// Writes to stdout. Whoever reads may stop before the end, as `head` does; that is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
