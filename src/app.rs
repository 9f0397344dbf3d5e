//! The composition root: settings, a store, a clock and a listener become a running server.
//!
//! It is handed everything that touches the world, so a test starts exactly what the command line
//! starts, on its own port, store and time.

use std::sync::Arc;

use axum::Router;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alarm::LastHeard;
use crate::alarm::post::Post;
use crate::alarm::sender::{self, Sender};
use crate::alarm::watch::Watcher;
use crate::clock::{Clock, Random};
use crate::config::{ApiKey, Config, Scope};
use crate::delivery::housekeeper::Housekeeper;
use crate::delivery::retention::Retention;
use crate::delivery::sink::{EventSink, GraphSink};
use crate::delivery::status::StatusBoard;
use crate::delivery::{self, Tools, Wakers};
use crate::domain::alarm::{Condition, Kept};
use crate::http;
use crate::http::body::BodyReader;
use crate::http::refused::RefusedHooks;
use crate::http::server::DoorLimits;
use crate::http::state::Services;
use crate::limits::{ALARM_TIMEOUT, SHUTDOWN_GRACE};
use crate::meta::signature::SignatureVerifier;
use crate::reader::source::{GraphSource, HttpGraph};
use crate::reader::{self, Reader};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// What a server needs of the world.
#[derive(Clone)]
pub struct World {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers, for keys and for the jitter of waits.
    pub random: Arc<dyn Random>,
}

/// A server that is ready to run.
pub struct App {
    config: Arc<Config>,
    tools: Tools,
    api_keys: Vec<ApiKey>,
    made_api_key: Option<String>,
    heard: LastHeard,
    post: Option<Arc<Post>>,
    source: Option<Arc<dyn GraphSource>>,
    door: DoorLimits,
}

impl App {
    /// Checks the store, makes a first API key if there is none, and gives held events the
    /// dataset that is configured for them by now.
    ///
    /// # Errors
    /// If the store or the platform's certificates can't be used.
    pub async fn build(config: Config, world: World) -> anyhow::Result<Self> {
        let sink = Arc::new(GraphSink::new(&config.graph_base)?);
        let source = Arc::new(HttpGraph::new(&config.graph_base)?);
        let app = Self::build_on(config, world, sink).await?;
        Ok(Self { source: Some(source), ..app })
    }

    /// The same with another way to send to Meta, and none to read from there.
    ///
    /// # Errors
    /// If the store can't be used.
    pub async fn build_on(
        config: Config,
        world: World,
        sink: Arc<dyn EventSink>,
    ) -> anyhow::Result<Self> {
        let (api_keys, made_api_key) = api_keys(&config, &world).await?;
        let routed = world.store.route_held(&config.routing).await?;
        if routed > 0 {
            tracing::info!(events = routed, "held events have a dataset now");
        }
        warn_of_what_is_dangerous(&config, &*world.store).await;
        world.store.keep_alarms(kept_alarms(&config)).await?;
        let now = world.clock.now();
        let heard = match config.alarms.webhook_silence_s {
            Some(_) => LastHeard::at_start(&*world.store, now).await,
            None => LastHeard::now(now),
        };
        let post = config.alarms.receiver.as_ref();
        let post = post.map(|receiver| Post::new(receiver, ALARM_TIMEOUT)).transpose()?;
        let tools = Tools {
            store: world.store,
            clock: world.clock,
            random: world.random,
            sink,
            metrics: Arc::new(Metrics::default()),
            status: StatusBoard::default(),
        };
        let door = DoorLimits::default();
        let (config, post) = (Arc::new(config), post.map(Arc::new));
        let source = None;
        Ok(Self { config, tools, api_keys, made_api_key, heard, post, source, door })
    }

    /// The key that was made because there was none: to be shown now, and never again.
    pub fn made_api_key(&self) -> Option<&str> {
        self.made_api_key.as_deref()
    }

    /// Other limits on what a client can hold open, for tests that have no time.
    #[must_use]
    pub fn with_door(mut self, door: DoorLimits) -> Self {
        self.door = door;
        self
    }

    /// Serves until `stop` is cancelled; then finishes what is under way, within bounds.
    ///
    /// # Errors
    /// If a task of the server's panicked. It has stopped then, because a dataset without its
    /// worker would be silent, and starting again is what repairs it.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> Result<(), TaskDied> {
        let door = self.door;
        let (router, tasks) = self.start(&stop);
        let door = http::server::serve(listener, router, door, stop.clone());
        let (died, ()) = tokio::join!(watch(tasks, &stop), door);
        died
    }

    /// Starts everything that works in the background until `stop` is cancelled, and answers with
    /// the door, to which a listener is still to be brought.
    pub fn start(self, stop: &CancellationToken) -> (Router, JoinSet<()>) {
        let datasets = self.config.datasets.values().cloned();
        let (wakers, mut tasks) = delivery::start(datasets, &self.tools, stop);
        tasks.spawn(Housekeeper::new(self.tools.clone()).run(stop.clone()));
        if let Some(days) = self.config.retention_days {
            tasks.spawn(Retention::new(self.tools.clone(), days).run(stop.clone()));
        }
        self.start_alarms(&mut tasks, stop);
        let reader = self.start_reading(&wakers, &mut tasks, stop);
        let services = Services {
            verifier: SignatureVerifier::new(&self.config.app_secrets),
            config: self.config,
            store: self.tools.store,
            clock: self.tools.clock,
            metrics: self.tools.metrics,
            status: self.tools.status,
            heard: self.heard,
            wakers,
            look_ups: reader.look_ups,
            backfills: reader.backfills,
            refused_hooks: RefusedHooks::default(),
            bodies: BodyReader::new(self.door.body_timeout, self.door.body_budget_bytes),
            stop: stop.clone(),
            api_keys: Arc::new(self.api_keys),
        };
        (http::router(services.into()), tasks)
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.tools.metrics.clone()
    }

    /// Starts what reads leads from Meta, if there is a token.
    fn start_reading(
        &self,
        wakers: &Wakers,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Reader {
        let Some(source) = self.source.clone() else { return Reader::default() };
        let tools = reader::Tools {
            store: self.tools.store.clone(),
            clock: self.tools.clock.clone(),
            random: self.tools.random.clone(),
            metrics: self.tools.metrics.clone(),
            config: self.config.clone(),
            wakers: wakers.clone(),
            source,
        };
        reader::start(tools, tasks, stop)
    }

    /// Starts what tells of alarms. A defect there must not end what takes leads in, so a panic is
    /// only logged.
    fn start_alarms(&self, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        let Tools { store, clock, random, metrics, status, .. } = self.tools.clone();
        let watcher = Watcher {
            store: store.clone(),
            clock: clock.clone(),
            status,
            heard: self.heard.clone(),
            silence_s: self.config.alarms.webhook_silence_s,
            metrics: metrics.clone(),
        };
        let mut alarm_tasks = vec![tokio::spawn(watcher.run(stop.clone()))];
        if let Some(post) = self.post.clone() {
            let tools = sender::Tools { store, clock, random, metrics, post };
            alarm_tasks.push(tokio::spawn(Sender::new(tools).run(stop.clone())));
        }
        for task in alarm_tasks {
            tasks.spawn(async move {
                if task.await.is_err() {
                    tracing::error!("a task for alarms died; none are told until the next start");
                }
            });
        }
    }
}

/// A task of the server's panicked; the log has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task of the server died; start again to repair it")]
pub struct TaskDied;

/// Waits for the tasks to end, which they do when `stop` is cancelled; one that dies before stops
/// everything.
async fn watch(mut tasks: JoinSet<()>, stop: &CancellationToken) -> Result<(), TaskDied> {
    let mut result = Ok(());
    let all_ended = async {
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err() {
                tracing::error!("a task of the server died");
                result = Err(TaskDied);
                stop.cancel();
            }
        }
    };
    let out_of_time = async {
        stop.cancelled().await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        () = all_ended => {}
        // Their events are queued still, and go out after the next start.
        () = out_of_time => tracing::warn!("some deliveries did not end in time"),
    }
    result
}

/// The configured keys and those that were made here; makes one if there is none at all.
async fn api_keys(
    config: &Config,
    world: &World,
) -> Result<(Vec<ApiKey>, Option<String>), StoreError> {
    let made_key = |digest| ApiKey { name: "made".into(), digest, scopes: vec![Scope::Admin] };
    let mut keys = config.api_keys.clone();
    if !keys.is_empty() {
        return Ok((keys, None));
    }
    keys.extend(world.store.api_keys().await?.into_iter().map(made_key));
    if !keys.is_empty() {
        return Ok((keys, None));
    }
    let mut secret = [0; 32];
    world.random.fill(&mut secret);
    let key = format!("ll_{}", hex::encode(secret));
    let digest = Sha256::digest(key.as_bytes()).into();
    world.store.add_api_key(digest).await?;
    // Durable as a digest only: if we die before the key is shown it is lost, and nobody has it.
    // Whoever needs one then configures LEADLOOP_API_KEY.
    Ok((vec![made_key(digest)], Some(key)))
}

/// What is kept of alarms by these settings.
fn kept_alarms(config: &Config) -> Kept {
    let datasets = config.datasets.keys().copied().map(Condition::DatasetPaused);
    let silence = config.alarms.webhook_silence_s.map(|_| Condition::WebhookSilent);
    Kept { kinds: config.alarms.kinds_told(), watched: datasets.chain(silence).collect() }
}

/// A warning that can't be given keeps nobody from starting.
async fn warn_of_what_is_dangerous(config: &Config, store: &dyn Store) {
    let datasets: Vec<String> = config.datasets.keys().map(ToString::to_string).collect();
    tracing::info!(datasets = datasets.join(","), graph = config.graph_base, "delivering to");
    for dataset in config.datasets.values().filter(|dataset| dataset.test_event_code.is_some()) {
        tracing::warn!(
            dataset = %dataset.id,
            "test_event_code is set: Meta shows these events as tests and counts them all the same"
        );
    }
    let fronts = store.fronts().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "it is not known what is queued and for which datasets");
        Vec::new()
    });
    for (dataset_id, _) in fronts {
        match dataset_id {
            None => tracing::warn!("events are held: no dataset is configured for their Page"),
            Some(id) if !config.datasets.contains_key(&id) => tracing::error!(
                dataset = %id,
                "events are queued for a dataset that is not configured; they are not delivered"
            ),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_dies_stops_the_others() {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let other = stop.clone();
        tasks.spawn(async move { other.cancelled().await });
        tasks.spawn(async { panic!("a defect") });
        assert_eq!(watch(tasks, &stop).await, Err(TaskDied));
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn tasks_that_end_when_they_are_told_to_are_no_failure() {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let told = stop.clone();
        tasks.spawn(async move { told.cancelled().await });
        stop.cancel();
        assert_eq!(watch(tasks, &stop).await, Ok(()));
    }
}
