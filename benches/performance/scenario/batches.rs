//! Deliveries of 1,000 leads, as Meta sends them after a pause: what is left of verify and parse
//! when all of it is also stored and flushed.

use std::collections::BTreeMap;

use leadloop::bench::Pace;

use crate::candidate::Candidate;
use crate::outcome::{Outcome, Table, Target, Unit};
use crate::rig::{Rig, rotated, webhooks};
use crate::samples::Samples;

const CANDIDATES: [Candidate; 4] =
    [Candidate::Verify, Candidate::Wal, Candidate::Leadloop, Candidate::Undelivered];
const CONNECTIONS: [usize; 3] = [1, 4, 16];
/// Where the goal is.
const GOAL_CONNECTIONS: usize = 16;
const LEADS_PER_POST: usize = 1_000;

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let mut rates: BTreeMap<(Candidate, usize), Samples> = BTreeMap::new();
    for round in rig.rounds() {
        for connections in CONNECTIONS {
            for candidate in rotated(&CANDIDATES, round) {
                rig.step(format!("round {}, {candidate}, {connections} connections", round + 1));
                let server = rig.start(candidate).await?;
                let load = webhooks(LEADS_PER_POST, 0);
                let report = rig.load(&server, load, connections, Pace::Closed).await?;
                rates.entry((candidate, connections)).or_default().push(report.leads_per_s());
            }
        }
    }
    let rate = |candidate: Candidate, connections| &rates[&(candidate, connections)];
    let mut outcome = Outcome::default();
    outcome.goal(
        format!("deliveries of 1,000 leads ÷ verify and parse, {GOAL_CONNECTIONS} connections"),
        Target::AtLeast(0.5),
        Unit::Ratio,
        rate(Candidate::Leadloop, GOAL_CONNECTIONS)
            .ratio_to(rate(Candidate::Verify, GOAL_CONNECTIONS)),
    );
    let head = ["leads a second, at connections".to_owned()].into_iter();
    let head: Vec<_> = head.chain(CONNECTIONS.map(|connections| connections.to_string())).collect();
    let mut table = Table::new("", &head);
    for candidate in CANDIDATES {
        let figures = CONNECTIONS.map(|connections| rate(candidate, connections));
        table.row(candidate, figures.map(|samples| Unit::PerSecond.summary(samples)));
    }
    outcome.tables.push(table);
    Ok(outcome)
}
