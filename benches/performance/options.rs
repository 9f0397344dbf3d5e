//! The command line.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::baseline::Baseline;
use crate::scenario::Scenario;

/// Measures leadloop beside its baselines, and writes what was measured into a page.
///
/// Results are kept in `results.json` beside the plots, so that a run of some scenarios leaves what
/// is known of the others as it is.
#[derive(Debug, Parser)]
#[command(name = "performance", args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Measure only these scenarios
    #[arg(long, value_enum, num_args = 1.., value_name = "NAME")]
    pub(crate) only: Vec<Scenario>,
    /// How often everything is measured; medians are of so many
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// How long each measurement takes, in seconds, after a second to warm up
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    seconds: u64,
    /// One round of a second, and 100,000 leads instead of a million: shows that it works, measures
    /// little, and writes nothing unless `--output` is given
    #[arg(long)]
    quick: bool,
    /// Measure with 10 million leads as well, which takes 30 GB of disk and hours
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// The page to write into, between its two marks
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the page again from the results that are there, and measure nothing
    #[arg(long)]
    pub(crate) render: bool,
    /// Where the stores under measurement are; on a real disk
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"), value_name = "DIRECTORY")]
    pub(crate) directory: PathBuf,
    /// What the benchmark starts itself as.
    #[command(subcommand)]
    pub(crate) baseline: Option<Baseline>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) measure: Duration,
    pub(crate) warm_up: Duration,
    /// Leads in a store that counts as large.
    pub(crate) many_leads: u64,
    /// Leads in one that counts as very large, if that is to be measured.
    pub(crate) most_leads: Option<u64>,
}

impl Options {
    /// What the command line says.
    pub(crate) fn read() -> Self {
        // cargo adds a flag of its own, which tells nothing here.
        Self::parse_from(std::env::args_os().filter(|argument| argument != "--bench"))
    }

    pub(crate) fn effort(&self) -> Effort {
        if self.quick {
            let second = Duration::from_secs(1);
            return Effort {
                rounds: 1,
                measure: second,
                warm_up: second / 2,
                many_leads: 100_000,
                most_leads: None,
            };
        }
        Effort {
            rounds: self.rounds.max(1),
            measure: Duration::from_secs(self.seconds.max(1)),
            warm_up: Duration::from_secs(1),
            many_leads: 1_000_000,
            most_leads: self.full.then_some(10_000_000),
        }
    }

    /// The scenarios to measure, in the order of the page.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let wanted = |scenario: &Scenario| self.only.is_empty() || self.only.contains(scenario);
        Scenario::value_variants().iter().copied().filter(wanted).collect()
    }

    /// The page to write, if one is to be written.
    pub(crate) fn page(&self) -> Option<PathBuf> {
        let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md"));
        self.output.clone().or_else(|| (!self.quick).then(default))
    }

    /// The command that measures a scenario as this run did.
    pub(crate) fn command(&self, scenario: Scenario) -> String {
        let mut command = format!("cargo bench --bench performance -- --only {scenario}");
        for (flag, is_set) in [("--quick", self.quick), ("--full", self.full)] {
            if is_set {
                command.push(' ');
                command.push_str(flag);
            }
        }
        if !self.quick && (self.rounds, self.seconds) != (5, 3) {
            let _ = write!(command, " --rounds {} --seconds {}", self.rounds, self.seconds);
        }
        command
    }
}
