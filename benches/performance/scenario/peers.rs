//! What others would put in its place, with the same guarantees, at 8 connections.

use std::collections::BTreeMap;

use leadloop::bench::Pace;

use crate::candidate::Candidate;
use crate::outcome::{Outcome, Table, Target, Unit};
use crate::peers;
use crate::rig::{Rig, rotated, webhooks};
use crate::samples::Samples;

const CONNECTIONS: usize = 8;

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut candidates = vec![Candidate::Leadloop];
    match rig.python() {
        Ok(python) => {
            candidates.push(Candidate::FastApi);
            outcome.note(format!("Versions: {}.", peers::versions(&python)?));
        }
        Err(error) => {
            rig.say(&format!("  FastAPI and SQLite: skipped: {error:#}"));
            outcome.note("FastAPI and SQLite: not measured, its packages could not be installed.");
        }
    }
    if peers::has_webhook() {
        candidates.push(Candidate::Webhook);
    } else {
        rig.say("  Debian's webhook: not installed, skipped: apt install webhook");
        outcome.note("Debian's `webhook`: not installed, not measured (`apt install webhook`).");
    }
    let (mut rates, mut latencies): (BTreeMap<_, Samples>, BTreeMap<_, Samples>) =
        (BTreeMap::new(), BTreeMap::new());
    for round in rig.rounds() {
        for candidate in rotated(&candidates, round) {
            rig.step(format!("round {}, {candidate}", round + 1));
            let server = rig.start(candidate).await?;
            let report = rig.load(&server, webhooks(1, 0), CONNECTIONS, Pace::Closed).await?;
            rates.entry(candidate).or_default().push(report.per_s());
            latencies.entry(candidate).or_default().push(report.quantile_us(0.99) / 1_000.0);
        }
    }
    if let Some(by_hand) = rates.get(&Candidate::FastApi) {
        let ratio = rates[&Candidate::Leadloop].ratio_to(by_hand);
        let what = "durable ingest ÷ FastAPI and SQLite FULL, 8 connections";
        outcome.goal(what, Target::AtLeast(5.0), Unit::Ratio, ratio);
    }
    let mut table = Table::new("", &["8 connections", "requests a second", "p99"]);
    for (candidate, rate) in &rates {
        let latency = Unit::Milliseconds.summary(&latencies[candidate]);
        table.row(candidate, [Unit::PerSecond.summary(rate), latency]);
    }
    outcome.tables.push(table);
    outcome.note(
        "[FastAPI and SQLite](../benches/peers/fastapi_sqlite.py) verifies, stores a lead id once \
         and answers after a commit with `synchronous = FULL`, with one worker, as SQLite has one \
         writer. Debian's webhook verifies and runs [a script](../benches/peers/append.sh) that \
         appends and flushes; it knows no duplicates.",
    );
    Ok(outcome)
}
