//! Killed under load and started again: how long until the first answer that is durable.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use leadloop::bench::{Pace, Until};
use leadloop::client::http_client;
use leadloop::clock::{Random, SeededRandom};
use leadloop::sandbox::trigger::{deliver, sample_lead_id, webhook_body};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::candidate::{Server, leadloop};
use crate::outcome::{Outcome, Target, Unit, grouped};
use crate::process::Process;
use crate::rig::{APP_SECRET, Rig, SEED, webhooks};
use crate::samples::Samples;
use crate::scenario::prompt::sample;
use crate::stores::Events;

const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_mins(5);

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let sizes = [Some((rig.effort.many_leads, 0.5)), rig.effort.most_leads.map(|n| (n, 2.0))];
    for (leads, most_s) in sizes.into_iter().flatten() {
        let store = rig.store(leads, Events::Delivered).await?;
        let mut took_s = Samples::default();
        for round in rig.rounds() {
            rig.step(format!("round {}, {leads} leads", round + 1));
            took_s.push(restart(rig, &store, leads, round).await?);
        }
        let what = format!("kill -9 under load → first durable 200, {} leads", grouped(leads));
        outcome.goal(what, Target::AtMost(most_s), Unit::Seconds, took_s);
    }
    outcome.note(
        "From the start of the new process to a 200 for a new lead, asked for all the time. The \
         file is in the page cache, as it is when a process dies and its machine does not.",
    );
    Ok(outcome)
}

async fn restart(rig: &Rig, store: &Path, leads: u64, round: usize) -> anyhow::Result<f64> {
    let mut server = rig.start_leadloop(Some(store), &rig.sink.url()).await?;
    let url = server.url();
    let (pace, until) = (Pace::Closed, Until::Elapsed(rig.effort.measure));
    let load = rig.attempt(&url, webhooks(1, leads), CONNECTIONS, pace, until);
    let kill = async {
        sleep(rig.effort.warm_up + rig.effort.measure / 2).await;
        server.process.kill()
    };
    // Of the load nothing counts: it ends in errors.
    let (_, killed) = tokio::join!(load, kill);
    killed?;
    let Server { address, folder, .. } = server;
    let mut command = leadloop(address, "leadloop.redb", &rig.sink.url());
    command.current_dir(folder.path());
    let first_answer = first_durable_answer(&url, round)?;
    let started = Instant::now();
    let _process = Process::start(&mut command, folder.path().join("second-log"))?;
    timeout(PATIENCE, first_answer).await.context("no answer in time")?;
    Ok(started.elapsed().as_secs_f64())
}

/// Sends a lead again and again until it is answered with 200.
fn first_durable_answer(url: &str, round: usize) -> anyhow::Result<impl Future<Output = ()>> {
    let (client, secret) = (http_client(url)?, APP_SECRET.into());
    let random = SeededRandom::new(SEED + round as u64);
    let body = webhook_body(&[sample(sample_lead_id(random.next_u64()))?]);
    let address = format!("{url}/webhooks/meta");
    Ok(async move {
        let mut pace = interval(Duration::from_millis(1));
        loop {
            pace.tick().await;
            if deliver(&client, &address, &secret, body.clone()).await.is_ok_and(|it| it == 200) {
                return;
            }
        }
    })
}
