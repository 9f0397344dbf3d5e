//! What scenarios measure with: a disk, a stand-in for Meta, servers, stores and load.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use leadloop::bench::{Load, Pace, Plan, Report, Until, run};
use reqwest::Url;
use tokio::time::{Instant, timeout};

use crate::candidate::{Candidate, Server, baseline, leadloop};
use crate::disk::Disk;
use crate::options::Effort;
use crate::outcome::grouped;
use crate::peers;
use crate::process::{busy_s, free_address};
use crate::stores::NOWHERE;
use crate::work::Work;

pub(crate) const APP_SECRET: &str = "performance-app-secret";
pub(crate) const API_KEY: &str = "performance-api-key";
pub(crate) const DATASET: &str = "700";
/// By which lead ids and chance are chosen.
pub(crate) const SEED: u64 = 20_251_101;
const PAGE_ID: u64 = 300;
/// How much longer than planned a run may take before something is wrong.
const GRACE: Duration = Duration::from_mins(1);
/// One request in so many may have to wait for the generator before that has to be told.
const STARVED_MAX: u64 = 100;
/// Longest that a request of a thousand leads may take, while a store is filled.
const PER_REQUEST_MAX: Duration = Duration::from_millis(250);

/// Everything that a scenario needs.
pub(crate) struct Rig {
    pub(crate) effort: Effort,
    /// Takes events, in a process of its own, which ends before its folder does.
    pub(crate) sink: Server,
    pub(crate) disk: Disk,
    /// Where things are that outlive a run.
    pub(crate) directory: PathBuf,
    /// Files of leadloop's with many leads, made when they are first asked for.
    pub(crate) stores: RefCell<BTreeMap<String, PathBuf>>,
    python: RefCell<Option<PathBuf>>,
    /// How many requests of a scenario were sent, and how many of them were not made in time.
    sent: Cell<(u64, u64)>,
    bar: ProgressBar,
}

impl Rig {
    pub(crate) async fn new(effort: Effort, directory: PathBuf) -> anyhow::Result<Self> {
        let disk = Disk::below(&directory)?;
        let address = free_address()?;
        let mut command = baseline("serve-sink", address)?;
        let sink = Server::start(&mut command, address, disk.folder()?).await;
        let sink = sink.context("the stand-in for Meta")?;
        let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})")?;
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(250));
        let (stores, python) = (RefCell::default(), RefCell::default());
        let sent = Cell::default();
        Ok(Self { effort, sink, disk, directory, stores, python, sent, bar })
    }

    /// Begins a scenario, which is told even where nobody sees the bar.
    pub(crate) fn begin(&self, scenario: &str) {
        self.sent.set((0, 0));
        self.bar.set_prefix(scenario.to_owned());
        self.say(scenario);
    }

    /// What has to be known of the generator to judge a scenario's figures, if anything.
    pub(crate) fn reservation(&self) -> Option<String> {
        let (sent, starved) = self.sent.get();
        (starved * STARVED_MAX > sent).then(|| {
            format!(
                "Of {} requests {} had to wait until the generator had made them, so the fastest \
                 of these figures are the generator's.",
                grouped(sent),
                grouped(starved)
            )
        })
    }

    /// Tells what goes on right now.
    pub(crate) fn step(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// Tells something that is to stay.
    pub(crate) fn say(&self, what: &str) {
        self.bar.suspend(|| eprintln!("{what}"));
    }

    /// The rounds.
    pub(crate) fn rounds(&self) -> std::ops::Range<usize> {
        0..self.effort.rounds
    }

    /// Starts a server with nothing in it.
    pub(crate) async fn start(&self, candidate: Candidate) -> anyhow::Result<Server> {
        let (address, folder) = (free_address()?, self.disk.folder()?);
        let mut command = match candidate {
            Candidate::NoOp => baseline("serve-noop", address)?,
            Candidate::Verify => baseline("serve-verify", address)?,
            Candidate::Wal => {
                let mut command = baseline("serve-wal", address)?;
                command.arg("--log").arg(folder.path().join("wal"));
                command
            }
            Candidate::Leadloop => leadloop(address, "leadloop.redb", &self.sink.url()),
            Candidate::Undelivered => leadloop(address, "leadloop.redb", NOWHERE),
            Candidate::FastApi => peers::fastapi(&self.python()?, address, folder.path()),
            Candidate::Webhook => peers::webhook(address, folder.path())?,
        };
        command.current_dir(folder.path());
        let server = Server::start(&mut command, address, folder).await;
        server.with_context(|| candidate.to_string())
    }

    /// The interpreter of the peer in Python, made when it is first asked for.
    pub(crate) fn python(&self) -> anyhow::Result<PathBuf> {
        if let Some(python) = &*self.python.borrow() {
            return Ok(python.clone());
        }
        let python = peers::python(&self.directory)?;
        Ok(self.python.borrow_mut().insert(python).clone())
    }

    /// Puts load on a server: warms it up, then measures.
    ///
    /// # Errors
    /// If a request of a closed loop fails: half an answer is no figure.
    pub(crate) async fn load(
        &self,
        server: &Server,
        load: Load,
        connections: usize,
        pace: Pace,
    ) -> anyhow::Result<Report> {
        let until = Until::Elapsed(self.effort.measure);
        self.load_until(server, load, connections, pace, until).await
    }

    /// The same, and tells how many cores worked for it.
    pub(crate) async fn load_and_watch(
        &self,
        server: &Server,
        load: Load,
        connections: usize,
    ) -> anyhow::Result<(Report, Work)> {
        let busy = || anyhow::Ok([server.process.busy_s()?, busy_s("self")?]);
        let (before, started) = (busy()?, Instant::now());
        let report = self.load(server, load, connections, Pace::Closed).await?;
        let (after, took_s) = (busy()?, started.elapsed().as_secs_f64());
        let [server, generator] = [0, 1].map(|at| (after[at] - before[at]) / took_s);
        let server_us = server / report.per_s() * 1e6;
        Ok((report, Work { server, generator, server_us }))
    }

    /// The same until something else.
    pub(crate) async fn load_until(
        &self,
        server: &Server,
        load: Load,
        connections: usize,
        pace: Pace,
        until: Until,
    ) -> anyhow::Result<Report> {
        let report = self.attempt(&server.url(), load, connections, pace, until).await?;
        ensure!(report.requests > 0, "nothing was answered: {:?}", report.failures);
        let is_closed = pace == Pace::Closed;
        ensure!(!is_closed || report.failed() == 0, "requests failed: {:?}", report.failures);
        Ok(report)
    }

    /// The same, whatever is answered.
    pub(crate) async fn attempt(
        &self,
        server: &str,
        load: Load,
        connections: usize,
        pace: Pace,
        until: Until,
    ) -> anyhow::Result<Report> {
        let (warm_up, limit) = match until {
            Until::Elapsed(time) => (self.effort.warm_up, time + self.effort.warm_up + GRACE),
            Until::Requests(requests) => {
                (Duration::ZERO, PER_REQUEST_MAX * u32::try_from(requests)? + GRACE)
            }
        };
        let server = Url::parse(server)?;
        let plan = Plan { server, load, connections, pace, until, warm_up, seed: SEED };
        let report = timeout(limit, run(plan, |_| ())).await.context("it takes too long")??;
        let (sent, starved) = self.sent.get();
        self.sent.set((sent + report.requests, starved + report.starved));
        Ok(report)
    }
}

/// Deliveries of leads that are new to a server that has the leads before the first.
pub(crate) fn webhooks(leads_per_post: usize, first: u64) -> Load {
    Load::Webhooks { app_secret: APP_SECRET.into(), page_id: PAGE_ID, leads_per_post, first }
}

/// Some things in another order each round, so that none always comes after the same other.
pub(crate) fn rotated<T: Copy>(all: &[T], round: usize) -> impl Iterator<Item = T> {
    all.iter().copied().cycle().skip(round % all.len()).take(all.len())
}
