//! What several rounds of a measurement say together.

use serde::{Deserialize, Serialize};

/// A figure of each round, in the order of the rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The one in the middle, or the mean of the two in the middle; 0 of none.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The least and the greatest; 0 of none.
    pub(crate) fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let end = |sample: Option<&f64>| sample.copied().unwrap_or_default();
        (end(sorted.first()), end(sorted.last()))
    }

    /// The ratio to another figure, round by round: what disturbed a round disturbed both.
    pub(crate) fn ratio_to(&self, other: &Self) -> Self {
        self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect()
    }

    /// The sum with another figure, round by round.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        self.0.iter().zip(&other.0).map(|(a, b)| a + b).collect()
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// A count as a real number.
#[expect(clippy::cast_precision_loss, reason = "nothing here is counted beyond 2^53")]
pub(crate) fn real(count: u64) -> f64 {
    count as f64
}

/// A quantile of figures, which it sorts; 0 of none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a length is a place in it"
)]
pub(crate) fn quantile(figures: &mut [f64], share: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let place = (real(figures.len() as u64) * share) as usize;
    figures.get(place.min(figures.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Which share of the answered requests is this share of all that were due, if what failed counts
/// as slower than every answer; nothing if that many were not answered.
pub(crate) fn share_of_answered(share: f64, answered: u64, failed: u64) -> Option<f64> {
    let of_answered = share * real(answered + failed) / real(answered);
    (of_answered <= 1.0).then_some(of_answered)
}
