//! How far a long command is, on stderr, and only where somebody looks: on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// Counts what is done while nobody knows how much there is.
pub(super) fn counter(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} {msg} ({elapsed})");
    ProgressBar::no_length().with_style(style.expect("the template is right")).with_message(what)
}

/// Shows how much of a known number is done.
pub(super) fn bar(total: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {msg} ({eta})");
    ProgressBar::new(total).with_style(style.expect("the template is right")).with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_right_and_what_is_done_is_counted() {
        for shown in [counter("events"), bar(3, "events")] {
            shown.inc(2);
            assert_eq!(shown.position(), 2);
            shown.finish_and_clear();
        }
    }
}
