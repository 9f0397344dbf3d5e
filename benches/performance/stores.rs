//! Files of leadloop's with many leads in them: each is made once, and copied where it is used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use leadloop::bench::{Pace, Until};
use leadloop::client::http_client;
use tokio::time::{interval, timeout};

use crate::candidate::{Server, leadloop, store_in};
use crate::disk::copy_flushed;
use crate::process::free_address;
use crate::rig::{Rig, webhooks};

/// Where nobody listens, so that all events stay in the queue.
pub(crate) const NOWHERE: &str = "http://127.0.0.1:9";
/// Leads of a delivery when a store is filled.
const LEADS_PER_POST: usize = 1_000;
const CONNECTIONS: usize = 4;
/// A line of leadloop's metrics, up to its figure.
const QUEUED: &str = "leadloop_stored{kind=\"events_queued\"} ";
/// Longest that a queue may take to be empty, for each thousand events.
const DRAIN_PER_THOUSAND: Duration = Duration::from_millis(250);

/// What became of the raw-lead events of a store's leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Events {
    /// None was sent yet.
    Queued,
    /// All are delivered.
    Delivered,
}

impl Rig {
    /// A file with so many leads.
    pub(crate) async fn store(&self, leads: u64, events: Events) -> anyhow::Result<PathBuf> {
        let name = format!("{leads}-{events:?}");
        if let Some(path) = self.stores.borrow().get(&name) {
            return Ok(path.clone());
        }
        let folder = match events {
            Events::Queued => self.fill(leads).await?,
            Events::Delivered => self.deliver(leads).await?,
        };
        let path = self.disk.path(&name);
        std::fs::rename(store_in(folder.path()), &path)?;
        self.stores.borrow_mut().insert(name, path.clone());
        Ok(path)
    }

    async fn fill(&self, leads: u64) -> anyhow::Result<tempfile::TempDir> {
        self.step(format!("loading {leads} leads"));
        let server = self.start_leadloop(None, NOWHERE).await?;
        let posts = Until::Requests(leads / LEADS_PER_POST as u64);
        let load = webhooks(LEADS_PER_POST, 0);
        let report = self.load_until(&server, load, CONNECTIONS, Pace::Closed, posts).await?;
        ensure!(report.leads == leads, "{} leads were taken", report.leads);
        server.stop().await
    }

    async fn deliver(&self, leads: u64) -> anyhow::Result<tempfile::TempDir> {
        let queued = Box::pin(self.store(leads, Events::Queued)).await?;
        self.step(format!("delivering {leads} events"));
        let server = self.start_leadloop(Some(&queued), &self.sink.url()).await?;
        server.until_nothing_is_queued(leads).await?;
        server.stop().await
    }

    /// Starts leadloop on a copy of a store, or on a new one, with a stand-in for Meta.
    pub(crate) async fn start_leadloop(
        &self,
        store: Option<&Path>,
        meta: &str,
    ) -> anyhow::Result<Server> {
        let (address, folder) = (free_address()?, self.disk.folder()?);
        if let Some(store) = store {
            copy_flushed(store, &store_in(folder.path()))?;
        }
        let mut command = leadloop(address, "leadloop.redb", meta);
        command.current_dir(folder.path());
        Server::start(&mut command, address, folder).await.context("leadloop")
    }
}

impl Server {
    /// Waits until leadloop has sent everything.
    pub(crate) async fn until_nothing_is_queued(&self, events: u64) -> anyhow::Result<()> {
        let limit = DRAIN_PER_THOUSAND * u32::try_from(events / 1_000)? + Duration::from_mins(1);
        let client = http_client(&self.url())?;
        let waiting = async {
            let mut pace = interval(Duration::from_millis(100));
            while self.queued(&client).await? > 0 {
                pace.tick().await;
            }
            Ok(())
        };
        timeout(limit, waiting).await.context("the queue does not get empty")?
    }

    /// How many events leadloop's metrics say are queued.
    async fn queued(&self, client: &reqwest::Client) -> anyhow::Result<u64> {
        let metrics = client.get(format!("{}/metrics", self.url())).send().await?.text().await?;
        let figure = metrics.lines().find_map(|line| line.strip_prefix(QUEUED));
        Ok(figure.context("the metrics do not tell")?.parse()?)
    }
}
