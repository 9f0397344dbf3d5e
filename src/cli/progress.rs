//! How far a long command is, on stderr, and only where somebody looks: on a terminal.

use std::time::Duration;

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

/// Shows how much of a number of bytes is there.
pub(super) fn bytes(total: u64) -> ProgressBar {
    let style = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} ({eta})";
    let style = ProgressStyle::with_template(style);
    ProgressBar::new(total).with_style(style.expect("the template is right"))
}

/// Shows that something goes on whose steps nobody counts.
pub(super) fn spinner(what: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_right_and_what_is_done_is_counted() {
        for shown in [counter("events"), bar(3, "events"), bytes(3), spinner("waiting")] {
            shown.inc(2);
            assert_eq!(shown.position(), 2);
            shown.finish_and_clear();
        }
    }
}
