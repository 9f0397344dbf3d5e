//! One connection: how much longer an answer takes than a bare flush and an empty answer together.

use leadloop::bench::Pace;

use crate::candidate::Candidate;
use crate::outcome::{Outcome, Table, Target, Unit};
use crate::rig::{Rig, rotated, webhooks};
use crate::samples::Samples;

const CANDIDATES: [Candidate; 2] = [Candidate::NoOp, Candidate::Leadloop];

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let [mut flush, mut no_op, mut durable, mut durable_p99] = [const { Vec::new() }; 4];
    for round in rig.rounds() {
        rig.step(format!("round {}, bare flushes", round + 1));
        flush.push(rig.disk.flush_p50_ms()?);
        for candidate in rotated(&CANDIDATES, round) {
            rig.step(format!("round {}, {candidate}", round + 1));
            let server = rig.start(candidate).await?;
            let report = rig.load(&server, webhooks(1, 0), 1, Pace::Closed).await?;
            let p50 = report.quantile_us(0.5) / 1_000.0;
            if candidate == Candidate::NoOp {
                no_op.push(p50);
            } else {
                durable.push(p50);
                durable_p99.push(report.quantile_us(0.99) / 1_000.0);
            }
        }
    }
    let [flush, no_op, durable, durable_p99] =
        [flush, no_op, durable, durable_p99].map(Samples::from_iter);
    let mut outcome = Outcome::default();
    outcome.goal(
        "1 connection, p50 ÷ (4-KiB overwrite and fdatasync p50 + no-op p50)",
        Target::AtMost(1.6),
        Unit::Ratio,
        durable.ratio_to(&flush.plus(&no_op)),
    );
    let mut table = Table::new("", &["1 connection", "latency"]);
    for (what, samples) in [
        ("overwrite of 4 KiB at random and fdatasync, p50", flush),
        ("no-op route, p50", no_op),
        ("leadloop, p50", durable),
        ("leadloop, p99", durable_p99),
    ] {
        table.row(what, [Unit::Milliseconds.summary(&samples)]);
    }
    outcome.tables.push(table);
    Ok(outcome)
}
