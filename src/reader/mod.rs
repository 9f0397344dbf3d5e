//! Reading leads from the Graph API: those that a stage update named before they arrived, those
//! that the webhook lost, and what the person wrote of those that it brought.
//!
//! Nobody waits for a reading: webhook, stage updates and delivery go on without it. [`verdict`],
//! [`gate`] and [`agenda`] are pure; [`graph`] asks, through [`source`]; [`intake`] takes in what
//! was read, as if a webhook had brought it.

pub mod agenda;
pub mod backfill;
#[cfg(test)]
mod fixtures;
pub mod gate;
pub mod graph;
pub mod intake;
pub mod look_up;
pub mod source;
pub mod verdict;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Random};
use crate::config::Config;
use crate::delivery::Wakers;
use crate::reader::backfill::{Backfiller, Backfills};
use crate::reader::graph::Graph;
use crate::reader::intake::LeadIntake;
use crate::reader::look_up::{LookUps, Searcher};
use crate::reader::source::GraphSource;
use crate::store::Store;
use crate::telemetry::Metrics;

/// What reading needs of the rest.
pub struct Tools {
    /// Where leads go to.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For the jitter of waits.
    pub random: Arc<dyn Random>,
    /// Where readings are counted.
    pub metrics: Arc<Metrics>,
    /// Settings.
    pub config: Arc<Config>,
    /// Wakes whoever sends events.
    pub wakers: Wakers,
    /// The way to Meta.
    pub source: Arc<dyn GraphSource>,
}

/// Where readings are wished for; without a token nothing comes of it.
#[derive(Clone, Default)]
pub struct Reader {
    /// Leads that a stage update named or a webhook brought.
    pub look_ups: LookUps,
    /// Leads that the webhook lost.
    pub backfills: Backfills,
}

/// Starts what reads, until `stop` is cancelled; nothing, if there is no token.
///
/// A defect there must not end what takes leads in, so a panic is only logged.
pub fn start(tools: Tools, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Reader {
    let Tools { store, clock, random, metrics, config, wakers, source } = tools;
    let tokens = config.reading.tokens.clone();
    if tokens.is_empty() {
        return Reader::default();
    }
    let graph = Arc::new(Graph::new(source, clock.clone(), random, metrics.clone(), tokens));
    let intake = LeadIntake { store, clock, config, wakers, metrics };
    let (look_ups, backfills) = (LookUps::heard(), Backfills::heard());
    let backfiller = Backfiller::new(graph.clone(), intake.clone(), &backfills);
    let searcher = Searcher::new(graph, intake, look_ups.clone());
    for task in
        [tokio::spawn(searcher.run(stop.clone())), tokio::spawn(backfiller.run(stop.clone()))]
    {
        tasks.spawn(async move {
            if task.await.is_err() {
                tracing::error!("what reads leads died; it does not until the next start");
            }
        });
    }
    Reader { look_ups, backfills }
}
