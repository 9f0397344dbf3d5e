//! One lead in each delivery, random lead ids: the rate of durable answers beside a route that does
//! nothing, one that verifies and parses, and a bare log.

use std::collections::BTreeMap;

use crate::candidate::Candidate;
use crate::outcome::{Axis, Line, Outcome, Plot, Scale, Table, Target, Unit};
use crate::rig::{Rig, rotated, webhooks};
use crate::samples::Samples;
use crate::work::Works;

const CANDIDATES: [Candidate; 5] = [
    Candidate::NoOp,
    Candidate::Verify,
    Candidate::Wal,
    Candidate::Leadloop,
    Candidate::Undelivered,
];
/// Connections, and at least which part of the log's and of the verifying route's rate is wanted.
const GOALS: [(u32, f64, f64); 4] =
    [(1, 0.75, 0.22), (16, 0.75, 0.24), (64, 0.75, 0.45), (256, 0.75, 0.60)];

/// With how many it is told what the cores do.
const WATCHED: u32 = 64;

type Rates = BTreeMap<(Candidate, u32), Samples>;

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let (mut rates, mut works) = (Rates::new(), BTreeMap::<_, Works>::new());
    for round in rig.rounds() {
        for (connections, ..) in GOALS {
            for candidate in rotated(&CANDIDATES, round) {
                rig.step(format!("round {}, {candidate}, {connections} connections", round + 1));
                let server = rig.start(candidate).await?;
                let load = webhooks(1, 0);
                let (report, work) =
                    rig.load_and_watch(&server, load, connections as usize).await?;
                rates.entry((candidate, connections)).or_default().push(report.per_s());
                if connections == WATCHED {
                    works.entry(candidate).or_default().push(work);
                }
            }
        }
    }
    let mut outcome = outcome(&rates);
    let mut table = Table::new(format!("{WATCHED} connections"), &Works::HEAD);
    for candidate in CANDIDATES {
        table.row(candidate, works[&candidate].figures());
    }
    outcome.tables.push(table);
    Ok(outcome)
}

fn outcome(rates: &Rates) -> Outcome {
    let mut outcome = Outcome::default();
    let ratio = |baseline: Candidate, connections: u32| {
        rates[&(Candidate::Leadloop, connections)].ratio_to(&rates[&(baseline, connections)])
    };
    for (connections, of_wal, _) in GOALS {
        let what = format!("durable ingest ÷ raw WAL, {}", counted(connections));
        let samples = ratio(Candidate::Wal, connections);
        outcome.goal(what, Target::AtLeast(of_wal), Unit::Ratio, samples);
    }
    for (connections, _, of_verify) in GOALS {
        let what = format!("durable ingest ÷ verify and parse, {}", counted(connections));
        let samples = ratio(Candidate::Verify, connections);
        outcome.goal(what, Target::AtLeast(of_verify), Unit::Ratio, samples);
    }
    let head = ["requests a second, at connections".to_owned()].into_iter();
    let head: Vec<_> = head.chain(GOALS.map(|(connections, ..)| connections.to_string())).collect();
    let mut table = Table::new("", &head);
    let mut lines = Vec::new();
    for candidate in CANDIDATES {
        let figures = GOALS.map(|(connections, ..)| &rates[&(candidate, connections)]);
        table.row(candidate, figures.map(|samples| Unit::PerSecond.summary(samples)));
        let points = GOALS.map(|(connections, ..)| {
            (f64::from(connections), rates[&(candidate, connections)].median())
        });
        lines.push(Line { name: candidate.to_string(), points: points.to_vec() });
    }
    outcome.tables.push(table);
    outcome.plots.push(Plot {
        name: "ingest".to_owned(),
        title: "Durable ingest beside its baselines".to_owned(),
        x: Axis::new("connections", Scale::Logarithmic),
        y: Axis::new("requests a second", Scale::Logarithmic),
        lines,
    });
    outcome.note(
        "Each delivery has one lead. leadloop also sends each lead's event to a stand-in for Meta \
         on the same cores meanwhile; the baselines send nothing, and neither does leadloop in the \
         last row. All of them run on leadloop's own accept loop and runtime. The raw WAL verifies \
         and parses, too; then one thread appends what gathered meanwhile to a file and calls \
         `fdatasync` once.",
    );
    outcome
}

fn counted(connections: u32) -> String {
    if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") }
}
