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

/// A number and its noun, which is another word for one than for several.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_counted_in_other_words_than_none_and_several() {
        let shown = [0, 1, 2].map(|count| counted(count, "row was", "rows were"));
        assert_eq!(shown, ["0 rows were", "1 row was", "2 rows were"]);
    }
}
