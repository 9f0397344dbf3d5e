//! What is measured; each file is a part of the goals.

mod batches;
mod churn;
mod disk;
mod drain;
mod filled;
mod ingest;
mod latency;
mod memory;
mod open_loop;
mod peers;
mod postgres;
mod prompt;
mod reads;
mod restart;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::rig::Rig;

/// A part of the goals, in the order of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Durable rate beside its baselines
    Ingest,
    /// The same beside what others would put in its place
    Peers,
    /// Latency of a lone client beside the disk's
    Latency1,
    /// Latency of requests that become due by themselves
    OpenLoop,
    /// Deliveries of 1,000 leads
    Batches,
    /// Whether it gets slower as it fills
    Filled,
    /// How soon Meta is told
    Prompt,
    /// How fast a queue empties
    Drain,
    /// Look-ups, lists and stage updates
    Reads,
    /// What a lead takes of the disk
    Disk,
    /// What it takes of the memory
    Memory,
    /// How soon it is back
    Restart,
    /// The store on PostgreSQL
    Postgres,
}

impl Scenario {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ingest => "Durable, verified ingest",
            Self::Peers => "What others would put in its place",
            Self::Latency1 => "A lone client",
            Self::OpenLoop => "Requests that become due by themselves",
            Self::Batches => "Deliveries of 1,000 leads",
            Self::Filled => "As the store fills",
            Self::Prompt => "How soon Meta is told",
            Self::Drain => "When Meta was away",
            Self::Reads => "Look-ups, lists and stage updates",
            Self::Disk => "Disk",
            Self::Memory => "Memory",
            Self::Restart => "After kill -9",
            Self::Postgres => "On PostgreSQL",
        }
    }

    pub(crate) async fn measure(self, rig: &Rig) -> anyhow::Result<Outcome> {
        match self {
            Self::Ingest => ingest::measure(rig).await,
            Self::Peers => peers::measure(rig).await,
            Self::Latency1 => latency::measure(rig).await,
            Self::OpenLoop => open_loop::measure(rig).await,
            Self::Batches => batches::measure(rig).await,
            Self::Filled => filled::measure(rig).await,
            Self::Prompt => prompt::measure(rig).await,
            Self::Drain => drain::measure(rig).await,
            Self::Reads => reads::measure(rig).await,
            Self::Disk => disk::measure(rig).await,
            Self::Memory => memory::measure(rig).await,
            Self::Restart => restart::measure(rig).await,
            Self::Postgres => postgres::measure(rig).await,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no scenario is skipped");
        f.pad(value.get_name())
    }
}
