//! What a lead takes of the disk once its raw-lead event is delivered.

use crate::disk::taken_bytes;
use crate::outcome::{Outcome, Table, Target, Unit, grouped};
use crate::rig::Rig;
use crate::samples::{Samples, real};
use crate::scenario::churn;
use crate::stores::Events;

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut table = Table::new("", &["leads, their events delivered", "taken", "length", "a lead"]);
    let sizes = [Some(rig.effort.many_leads), rig.effort.most_leads];
    for leads in sizes.into_iter().flatten() {
        let store = rig.store(leads, Events::Delivered).await?;
        let taken = taken_bytes(&store)?;
        let length = real(std::fs::metadata(&store)?.len());
        let per_lead = taken / real(leads);
        let megabytes = |bytes: f64| Unit::Megabytes.show(bytes / 1e6);
        table
            .row(grouped(leads), [megabytes(taken), megabytes(length), Unit::Bytes.show(per_lead)]);
        let what =
            format!("disk for a lead with its raw-lead event delivered, {} leads", grouped(leads));
        let samples = Samples::from_iter([per_lead]);
        outcome.goal(what, Target::AtMost(250.0), Unit::Bytes, samples);
    }
    outcome.tables.push(table);
    outcome.note(
        "The file after an ordinary stop, not compacted: the blocks that it takes, and its length.",
    );
    churn::measure(rig, &mut outcome).await?;
    Ok(outcome)
}
