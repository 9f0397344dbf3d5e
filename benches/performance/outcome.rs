//! What a scenario came to, as it is kept and shown.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::samples::Samples;

/// All that a scenario has to say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) goals: Vec<Goal>,
    pub(crate) tables: Vec<Table>,
    pub(crate) plots: Vec<Plot>,
    /// Sentences that a reader needs to judge the figures.
    pub(crate) notes: Vec<String>,
}

/// A figure that has a goal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) target: Target,
    pub(crate) unit: Unit,
    pub(crate) samples: Samples,
}

/// Where a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    Ratio,
    PerSecond,
    Milliseconds,
    Seconds,
    Bytes,
    Megabytes,
}

/// Rows of figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Lines over two axes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plot {
    /// Of its file.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// An axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
    /// Shares of requests such as 99.9 %, each nine as wide as the one before; a point's x is
    /// 1 ÷ (1 − share).
    Nines,
}

/// A line of a plot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Outcome {
    pub(crate) fn goal(
        &mut self,
        what: impl Into<String>,
        target: Target,
        unit: Unit,
        samples: Samples,
    ) {
        self.goals.push(Goal { what: what.into(), target, unit, samples });
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl Goal {
    pub(crate) fn is_met(&self) -> bool {
        let median = self.samples.median();
        match self.target {
            Target::AtLeast(least) => median >= least,
            Target::AtMost(most) => median <= most,
        }
    }

    /// The goal in words.
    pub(crate) fn wanted(&self) -> String {
        match self.target {
            Target::AtLeast(least) => format!("≥ {}", self.unit.show(least)),
            Target::AtMost(most) => format!("≤ {}", self.unit.show(most)),
        }
    }
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, head: &[impl Display]) -> Self {
        let head = head.iter().map(ToString::to_string).collect();
        Self { title: title.into(), head, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, name: impl Display, figures: impl IntoIterator<Item = String>) {
        self.rows.push([name.to_string()].into_iter().chain(figures).collect());
    }
}

impl Axis {
    pub(crate) fn new(label: impl Into<String>, scale: Scale) -> Self {
        Self { label: label.into(), scale }
    }
}

impl Unit {
    /// A figure with its unit, with as many digits as mean anything.
    pub(crate) fn show(self, figure: f64) -> String {
        match self {
            Self::Ratio => format!("{figure:.2}"),
            Self::PerSecond => format!("{}/s", grouped(figure.round())),
            Self::Milliseconds if figure < 10.0 => format!("{figure:.2} ms"),
            Self::Milliseconds => format!("{figure:.0} ms"),
            Self::Seconds => format!("{figure:.2} s"),
            Self::Bytes => format!("{figure:.0} B"),
            Self::Megabytes => format!("{figure:.1} MB"),
        }
    }

    /// Median, least and greatest.
    pub(crate) fn summary(self, samples: &Samples) -> String {
        let (least, most) = samples.range();
        let median = self.show(samples.median());
        if least.total_cmp(&most).is_eq() {
            return median;
        }
        format!("{median} ({} – {})", self.show(least), self.show(most))
    }
}

/// A whole number, its digits in groups of three.
pub(crate) fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
