//! What leadloop takes of the memory.

use std::time::Duration;

use leadloop::bench::{Load, Pace};
use tokio::time::sleep;

use crate::outcome::{Outcome, Target, Unit, grouped};
use crate::rig::{API_KEY, Rig, webhooks};
use crate::samples::Samples;
use crate::stores::Events;

/// After which nothing of the start is going on any more.
const SETTLED: Duration = Duration::from_secs(2);
const PER_S: f64 = 20_000.0;
const CONNECTIONS: usize = 256;

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let [mut idle, mut own, mut loaded, mut rates] = [const { Vec::new() }; 4];
    let sizes: Vec<u64> =
        [Some(rig.effort.many_leads), rig.effort.most_leads].into_iter().flatten().collect();
    let mut filled = vec![Samples::default(); sizes.len()];
    for round in rig.rounds() {
        rig.step(format!("round {}, idle and loaded", round + 1));
        let server = rig.start_leadloop(None, &rig.sink.url()).await?;
        sleep(SETTLED).await;
        idle.push(server.process.memory()?.resident_mb);
        own.push(server.process.own_memory_mb()?);
        let pace = Pace::Open { per_s: PER_S };
        let report = rig.load(&server, webhooks(1, 0), CONNECTIONS, pace).await?;
        rates.push(report.per_s());
        loaded.push(server.process.memory()?.peak_mb);
        for (leads, samples) in sizes.iter().zip(&mut filled) {
            let store = rig.store(*leads, Events::Delivered).await?;
            rig.step(format!("round {}, {leads} leads", round + 1));
            let server = rig.start_leadloop(Some(&store), &rig.sink.url()).await?;
            let look_ups = Load::LookUps { api_key: API_KEY.into(), leads: *leads };
            rig.load(&server, look_ups, CONNECTIONS, Pace::Closed).await?;
            rig.load(&server, webhooks(1, *leads), CONNECTIONS, Pace::Closed).await?;
            samples.push(server.process.memory()?.peak_mb);
        }
    }
    let rates = Samples::from_iter(rates);
    let mut outcome = Outcome::default();
    let mut goal = |what: String, most, samples| {
        outcome.goal(what, Target::AtMost(most), Unit::Megabytes, samples);
    };
    goal("memory, idle and empty".to_owned(), 15.0, Samples::from_iter(idle));
    goal("memory at 20,000/s, most".to_owned(), 150.0, Samples::from_iter(loaded));
    for (leads, samples) in sizes.iter().zip(filled) {
        let what = format!(
            "memory with {} leads, look-ups, then all the leads it can take",
            grouped(leads)
        );
        goal(format!("{what}, most"), 150.0, samples);
    }
    outcome.note(format!(
        "Resident memory of the process, as the kernel counts it. Idle and empty, {} of it is the \
         process's own (`RssAnon`), and the rest is pages of the program's file, which the kernel \
         maps around those that are used, and can take back. 20,000/s were offered at {CONNECTIONS} \
         connections, and {} answered.",
        Unit::Megabytes.summary(&Samples::from_iter(own)),
        Unit::PerSecond.summary(&rates)
    ));
    Ok(outcome)
}
