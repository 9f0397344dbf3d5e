//! Logs and metrics: how they are set up, and every metric by name.
//!
//! Logs go to stderr and carry no personal data and no secrets: ids, counts, codes and times only.
//! The metrics live in a registry that is passed around, so each test has its own.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::domain::ids::DatasetId;
use crate::domain::time::UnixSeconds;

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr. `filter` is in the form of `RUST_LOG`.
pub fn init_logs(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let logs = logs.with_ansi(std::io::stderr().is_terminal());
    // A second start, in tests, keeps the first one's settings.
    let _ = match format {
        LogFormat::Human => logs.with_target(false).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
}

type Label = (&'static str, Cow<'static, str>);
type CounterBy<const N: usize> = Family<[Label; N], Counter>;

/// Every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    webhooks: CounterBy<1>,
    hooks: CounterBy<1>,
    leads: CounterBy<1>,
    updates: CounterBy<1>,
    requests: CounterBy<2>,
    delivered: CounterBy<1>,
    dead: CounterBy<1>,
    delay: Histogram,
    paused: Family<[Label; 1], Gauge>,
    near_deadline: Family<[Label; 1], Gauge>,
    stored: Family<[Label; 1], Gauge>,
    queue_front: Family<[Label; 1], Gauge>,
    alarms_waiting: Gauge,
    alarms_sent: Counter,
    alarms_failed: Counter,
    alarms_given_up: Counter,
    webhook_silent: Gauge,
    graph_reads: CounterBy<2>,
    leads_read: CounterBy<2>,
    leads_found: Counter,
    look_ups_left_out: Counter,
    database: Database,
}

/// Of a store on a database; without one nothing is shown.
#[derive(Debug, Default)]
struct Database {
    connections: Family<[Label; 1], Gauge>,
    statements: Family<[Label; 0], Counter>,
    statement_seconds: Family<[Label; 0], Counter<f64, AtomicU64>>,
    repeats: CounterBy<1>,
}

fn dataset_label(dataset_id: Option<DatasetId>) -> Label {
    ("dataset", dataset_id.map_or(Cow::Borrowed("none"), |id| id.to_string().into()))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("leadloop");
        let mut metrics = Self {
            registry: Registry::default(),
            webhooks: Family::default(),
            hooks: Family::default(),
            leads: Family::default(),
            updates: Family::default(),
            requests: Family::default(),
            delivered: Family::default(),
            dead: Family::default(),
            delay: Histogram::new(exponential_buckets(0.001, 4.0, 12)),
            paused: Family::default(),
            near_deadline: Family::default(),
            stored: Family::default(),
            queue_front: Family::default(),
            alarms_waiting: Gauge::default(),
            alarms_sent: Counter::default(),
            alarms_failed: Counter::default(),
            alarms_given_up: Counter::default(),
            webhook_silent: Gauge::default(),
            graph_reads: Family::default(),
            leads_read: Family::default(),
            leads_found: Counter::default(),
            look_ups_left_out: Counter::default(),
            database: Database::default(),
        };
        let of = &metrics;
        registry.register("webhook_deliveries", "Webhook calls by result", of.webhooks.clone());
        registry.register("leads", "Leads in webhooks by outcome", of.leads.clone());
        registry.register("hooks", "Records of CRMs' webhooks by result", of.hooks.clone());
        registry.register("stage_updates", "Stage updates by outcome", of.updates.clone());
        registry.register("send_requests", "Requests to Meta by outcome", of.requests.clone());
        registry.register("events_delivered", "Events that Meta accepted", of.delivered.clone());
        registry.register("events_dead", "Events given up, by reason", of.dead.clone());
        let help = "Seconds from hearing of an event to Meta's acceptance";
        registry.register("delivery_delay_seconds", help, of.delay.clone());
        let help = "1 while a dataset is paused until somebody mends something";
        registry.register("dataset_paused", help, of.paused.clone());
        let help = "Undelivered events that will be too old within a day";
        registry.register("events_near_deadline", help, of.near_deadline.clone());
        registry.register("stored", "Rows in the store by kind", of.stored.clone());
        let help = "Event time of the event in front of a queue, in Unix seconds";
        registry.register("queue_front_event_time_seconds", help, of.queue_front.clone());
        metrics.register_alarms(&mut registry);
        metrics.register_reading(&mut registry);
        metrics.register_database(&mut registry);
        metrics.registry = registry;
        metrics
    }
}

impl Metrics {
    fn register_alarms(&self, registry: &mut Registry) {
        let help = "Messages that wait for the receiver of alarms";
        registry.register("alarms_waiting", help, self.alarms_waiting.clone());
        registry.register("alarms_sent", "Alarms that arrived", self.alarms_sent.clone());
        let help = "Tries in which an alarm did not arrive";
        registry.register("alarms_failed", help, self.alarms_failed.clone());
        let help = "Alarms that nobody took for three days";
        registry.register("alarms_given_up", help, self.alarms_given_up.clone());
        let help = "1 while no delivery of the webhook has come for as long as is configured";
        registry.register("webhook_silent", help, self.webhook_silent.clone());
    }

    fn register_reading(&self, registry: &mut Registry) {
        let help = "Readings from the Graph API by what was asked for and outcome";
        registry.register("graph_reads", help, self.graph_reads.clone());
        let help = "Leads read from the Graph API by source and outcome";
        registry.register("leads_read", help, self.leads_read.clone());
        let help = "Leads that the webhook had lost and a backfill found";
        registry.register("leads_found_by_backfill", help, self.leads_found.clone());
        let help = "Leads that were not looked for at once, because too many are";
        registry.register("look_ups_left_out", help, self.look_ups_left_out.clone());
    }

    fn register_database(&self, registry: &mut Registry) {
        let of = &self.database;
        let help = "Connections to the database by state";
        registry.register("database_connections", help, of.connections.clone());
        registry.register("database_statements", "Statements", of.statements.clone());
        let help = "Seconds that statements took together";
        registry.register("database_statement_seconds", help, of.statement_seconds.clone());
        let help = "Transactions that were done again, by what had ended them";
        registry.register("database_repeats", help, of.repeats.clone());
    }

    /// Sets how many connections to the database there are, and how many of them are idle.
    pub fn database_connections(&self, connections: u64, idle: u64) {
        for (state, count) in [("used", connections.saturating_sub(idle)), ("idle", idle)] {
            let gauge = self.database.connections.get_or_create(&[("state", state.into())]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets how many statements there were, and how many microseconds they took together.
    pub fn database_statements(&self, statements: u64, took_us: u64) {
        let counter = self.database.statements.get_or_create(&[]);
        counter.inner().store(statements, Ordering::Relaxed);
        let seconds = Duration::from_micros(took_us).as_secs_f64();
        let counter = self.database.statement_seconds.get_or_create(&[]);
        counter.inner().store(seconds.to_bits(), Ordering::Relaxed);
    }

    /// Sets how many transactions were done again because of a conflict, or a lost connection.
    pub fn database_repeats(&self, conflicts: u64, lost: u64) {
        for (cause, count) in [("conflict", conflicts), ("connection", lost)] {
            let counter = self.database.repeats.get_or_create(&[("cause", cause.into())]);
            counter.inner().store(count, Ordering::Relaxed);
        }
    }

    /// Counts a reading from the Graph API.
    pub fn graph_read(&self, what: &'static str, outcome: &'static str) {
        let labels = [("what", what.into()), ("outcome", outcome.into())];
        self.graph_reads.get_or_create(&labels).inc();
    }

    /// Counts a lead that was read from the Graph API.
    pub fn lead_read(&self, source: &str, outcome: &'static str) {
        let labels = [("source", source.to_owned().into()), ("outcome", outcome.into())];
        self.leads_read.get_or_create(&labels).inc();
    }

    /// Counts leads that found no room among those that are looked for.
    pub fn look_ups_left_out(&self, leads: u64) {
        self.look_ups_left_out.inc_by(leads);
    }

    /// Counts leads that the webhook had lost.
    pub fn leads_found_by_backfill(&self, leads: u64) {
        self.leads_found.inc_by(leads);
    }

    /// Counts a webhook call.
    pub fn webhook(&self, result: &'static str) {
        self.webhooks.get_or_create(&[("result", result.into())]).inc();
    }

    /// Counts a record of a CRM's webhook, or a whole one that was not taken.
    pub fn hook(&self, result: &'static str) {
        self.hooks.get_or_create(&[("result", result.into())]).inc();
    }

    /// Counts a lead, or a piece that could not be read.
    pub fn lead(&self, outcome: &'static str) {
        self.leads.get_or_create(&[("outcome", outcome.into())]).inc();
    }

    /// Counts a stage update.
    pub fn stage_update(&self, outcome: &'static str) {
        self.updates.get_or_create(&[("outcome", outcome.into())]).inc();
    }

    /// Counts a request to Meta.
    pub fn send_request(&self, dataset_id: DatasetId, outcome: &'static str) {
        let dataset = ("dataset", Cow::from(dataset_id.to_string()));
        self.requests.get_or_create(&[dataset, ("outcome", outcome.into())]).inc();
    }

    /// Counts an event that Meta accepted so many milliseconds after we heard of it.
    pub fn event_delivered(&self, dataset_id: DatasetId, delay_ms: i64) {
        let dataset = ("dataset", Cow::from(dataset_id.to_string()));
        self.delivered.get_or_create(&[dataset]).inc();
        let delay_ms = u32::try_from(delay_ms.max(0)).unwrap_or(u32::MAX);
        self.delay.observe(f64::from(delay_ms) / 1_000.0);
    }

    /// Counts an event that was given up.
    pub fn event_dead(&self, reason: &'static str) {
        self.dead.get_or_create(&[("reason", reason.into())]).inc();
    }

    /// Sets whether a dataset is paused.
    pub fn dataset_paused(&self, dataset_id: DatasetId, paused: bool) {
        let dataset = ("dataset", Cow::from(dataset_id.to_string()));
        self.paused.get_or_create(&[dataset]).set(paused.into());
    }

    /// Sets how many events of each dataset will be too old soon; datasets not named have none.
    pub fn events_near_deadline(&self, near: impl IntoIterator<Item = (Option<DatasetId>, u64)>) {
        self.near_deadline.clear();
        for (dataset_id, events) in near {
            let events = i64::try_from(events).unwrap_or(i64::MAX);
            self.near_deadline.get_or_create(&[dataset_label(dataset_id)]).set(events);
        }
    }

    /// Sets how many rows of a kind the store holds.
    pub fn stored(&self, kind: &'static str, rows: u64) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.stored.get_or_create(&[("kind", kind.into())]).set(rows);
    }

    /// Sets the times of the events in front of the queues; queues not named are empty.
    pub fn queue_fronts(&self, fronts: &[(Option<DatasetId>, UnixSeconds)]) {
        self.queue_front.clear();
        for (dataset_id, event_time) in fronts {
            self.queue_front.get_or_create(&[dataset_label(*dataset_id)]).set(event_time.get());
        }
    }

    /// Sets how many messages wait for the receiver of alarms.
    pub fn alarms_waiting(&self, messages: usize) {
        self.alarms_waiting.set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// Counts an alarm that arrived.
    pub fn alarm_sent(&self) {
        self.alarms_sent.inc();
    }

    /// Counts a try in which an alarm did not arrive.
    pub fn alarm_failed(&self) {
        self.alarms_failed.inc();
    }

    /// Counts an alarm that was given up.
    pub fn alarm_given_up(&self) {
        self.alarms_given_up.inc();
    }

    /// Sets whether the webhook is silent.
    pub fn webhook_silent(&self, silent: bool) {
        self.webhook_silent.set(silent.into());
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if a metric can't write itself.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_with_their_labels() {
        let metrics = Metrics::default();
        metrics.webhook("accepted");
        metrics.send_request(DatasetId::from_u64(7).unwrap(), "delivered");
        metrics.queue_fronts(&[(None, UnixSeconds::new(5))]);
        let text = metrics.render();
        for line in [
            "leadloop_webhook_deliveries_total{result=\"accepted\"} 1",
            "leadloop_send_requests_total{dataset=\"7\",outcome=\"delivered\"} 1",
            "leadloop_queue_front_event_time_seconds{dataset=\"none\"} 5",
        ] {
            assert!(text.contains(line), "{text}");
        }
        metrics.queue_fronts(&[]);
        assert!(!metrics.render().contains("dataset=\"none\""), "an empty queue has no front");
    }
}
