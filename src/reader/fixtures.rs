//! What the tests of reading share: a reader over a store in memory and a clock that stands still.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::{MockClock, SeededRandom};
use crate::config::{Config, Layers};
use crate::delivery::Wakers;
use crate::domain::time::Timestamp;
use crate::reader::graph::Graph;
use crate::reader::intake::LeadIntake;
use crate::reader::source::GraphSource;
use crate::store::memory::MemoryStore;
use crate::telemetry::Metrics;

pub const NOW: Timestamp = Timestamp::from_millis(1_762_000_000_000);

/// What reads with this way to Meta and one token for all Pages.
pub fn reader(source: Arc<dyn GraphSource>) -> (Arc<Graph>, LeadIntake, Arc<MockClock>) {
    let file = r#"
        meta_app_secret = "s"
        meta_verify_token = "t"
        meta_dataset_id = "1"
        meta_access_token = "a"
        meta_page_access_token = "p"
        backfill_every_s = 0
    "#;
    let read_file = |_: &str| Ok(String::new());
    let layers = Layers::read(&BTreeMap::new(), Some(file), &read_file).unwrap();
    let config = Arc::new(Config::from_layers(&layers).unwrap());
    let (clock, metrics) = (Arc::new(MockClock::at(NOW)), Arc::new(Metrics::default()));
    let (random, tokens) = (Arc::new(SeededRandom::new(1)), config.reading.tokens.clone());
    let graph = Graph::new(source, clock.clone(), random, metrics.clone(), tokens);
    let store = Arc::new(MemoryStore::default());
    let wakers = Wakers::default();
    let intake = LeadIntake { store, clock: clock.clone(), config, wakers, metrics };
    (Arc::new(graph), intake, clock)
}
