//! The arithmetic behind the figures of `docs/performance.md`.

#[path = "../benches/performance/outcome.rs"]
#[expect(dead_code, reason = "only the arithmetic is looked at here")]
mod outcome;
#[path = "../benches/performance/samples.rs"]
mod samples;

use outcome::{Goal, Target, Unit, grouped};
use samples::{Samples, quantile, real, share_of_answered};

fn samples<const N: usize>(figures: [f64; N]) -> Samples {
    Samples::from_iter(figures)
}

#[track_caller]
fn same(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

#[test]
fn the_median_is_the_one_in_the_middle_whatever_the_order() {
    for (figures, median) in [
        (samples([3.0, 1.0, 2.0]), 2.0),
        (samples([4.0, 1.0, 2.0, 3.0]), 2.5),
        (samples([7.0]), 7.0),
        (Samples::default(), 0.0),
    ] {
        same(figures.median(), median);
    }
    assert_eq!(format!("{:?}", samples([3.0, 1.0, 2.0]).range()), "(1.0, 3.0)");
}

#[test]
fn a_ratio_is_that_of_one_round_and_not_of_the_medians() {
    let (ours, theirs) = (samples([1.0, 10.0, 3.0]), samples([1.0, 5.0, 100.0]));
    same(ours.ratio_to(&theirs).median(), 1.0);
    let mut added = ours.plus(&theirs);
    same(added.median(), 15.0);
    added.push(1_000.0);
    same(added.range().1, 1_000.0);
}

#[test]
fn a_quantile_is_a_figure_that_was_seen() {
    let mut figures: Vec<f64> = (1..=100).rev().map(real).collect();
    for (share, figure) in [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)] {
        same(quantile(&mut figures, share), figure);
    }
    same(quantile(&mut [], 0.5), 0.0);
}

#[test]
fn what_is_not_answered_counts_as_slower_than_every_answer() {
    same(share_of_answered(0.99, 1_000, 0).unwrap(), 0.99);
    same(share_of_answered(0.5, 900, 100).unwrap(), 0.5 / 0.9);
    assert_eq!(share_of_answered(0.99, 900, 100), None);
    assert_eq!(share_of_answered(0.5, 0, 10), None);
}

#[test]
fn a_goal_is_met_by_the_median() {
    let goal = |target| {
        let samples = samples([0.7, 0.76, 0.8]);
        Goal { what: String::new(), target, unit: Unit::Ratio, samples }.is_met()
    };
    assert!(goal(Target::AtLeast(0.75)) && goal(Target::AtMost(0.76)));
    assert!(!goal(Target::AtLeast(0.77)) && !goal(Target::AtMost(0.75)));
}

#[test]
fn figures_are_shown_with_their_unit() {
    for (unit, figure, shown) in [
        (Unit::Ratio, 0.756, "0.76"),
        (Unit::PerSecond, 39_938.4, "39,938/s"),
        (Unit::Milliseconds, 2.912, "2.91 ms"),
        (Unit::Milliseconds, 58.2, "58 ms"),
        (Unit::Seconds, 0.161, "0.16 s"),
        (Unit::Bytes, 151.4, "151 B"),
        (Unit::Megabytes, 29.66, "29.7 MB"),
    ] {
        assert_eq!(unit.show(figure), shown);
    }
    assert_eq!(Unit::Ratio.summary(&samples([0.5, 0.7, 0.6])), "0.60 (0.50 – 0.70)");
    assert_eq!(Unit::Ratio.summary(&samples([0.5])), "0.50");
    for (number, shown) in [(7, "7"), (100, "100"), (1_000, "1,000"), (1_000_000, "1,000,000")] {
        assert_eq!(grouped(number), shown);
    }
}
