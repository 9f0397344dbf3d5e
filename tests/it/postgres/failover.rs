//! A primary with a standby: the primary is killed under load, and the standby is promoted.
//!
//! The program has both in its URL and finds the one that takes writes by itself. After each
//! failover what was the primary becomes the new one's standby.
//! `LEADLOOP_PG_FAILOVERS=50 cargo test --test it postgres::failover -- --nocapture` does it 50
//! times.

use std::time::Duration;

use leadloop::clock::SeededRandom;
use tokio::time::Instant;

use super::node::{Node, url};
use super::times;
use crate::process::journal::Summary;
use crate::process::load::{SEED, World, stand_in};
use crate::process::program::{API_KEY, Place, Server, settings};

const FAILOVERS_IN_CI: usize = 2;
/// What clients are told while the standby hears of nothing.
const UNHEARD: usize = 30;
/// Longest that all of it may take, and each failover on top.
const TIME_MAX: Duration = Duration::from_mins(1);
const FAILOVER_MAX: Duration = Duration::from_mins(1);

async fn serve(place: &Place, store: &str, meta: &str) -> Server {
    let with = [
        ("CRM_NAME", "run 0"),
        ("META_GRAPH_URL", meta),
        ("LEADLOOP_API_KEY", API_KEY),
        ("LEADLOOP_STORE", store),
    ];
    let mut environment = settings(&["CRM_NAME"], with);
    environment.push(("LEADLOOP_LOG", "info"));
    place.serve(&environment).await
}

/// Kills the primary and promotes the standby; how long nothing was acknowledged.
async fn fail_over(world: &World, primary: &mut Node, standby: &Node) -> Duration {
    primary.kill();
    let (killed_at, last_request) = (Instant::now(), world.meta.requests());
    world.journal.lock().unwrap().outages.push(last_request..=last_request + 1);
    standby.promote().await;
    world.wait_for_acknowledgements(1).await;
    killed_at.elapsed()
}

async fn check_after(
    failovers: usize,
    is_synchronous: bool,
) -> (Result<Summary, Vec<String>>, Vec<Duration>) {
    let mut primary = Node::start().await;
    let mut standby = Node::standby_of(&primary).await;
    primary.wait_for_standby(is_synchronous).await;
    let (meta, meta_url) = stand_in().await;
    let (place, world, random) = (Place::new(), World::new(meta), SeededRandom::new(SEED));
    let mut gaps = Vec::new();
    let test = async {
        let server = serve(&place, &url(&[&primary, &standby]), &meta_url).await;
        world.urls.send_replace(vec![server.url.clone()]);
        let clients = world.start(World::be_a_client);
        for _ in 0..failovers {
            world.moment(&random).await;
            if !is_synchronous {
                primary.freeze_sender();
                world.wait_for_acknowledgements(UNHEARD).await;
            }
            gaps.push(fail_over(&world, &mut primary, &standby).await);
            std::mem::swap(&mut primary, &mut standby);
            standby.follow(&primary).await;
            primary.wait_for_standby(is_synchronous).await;
        }
        world.moment(&random).await;
        world.finish(clients).await;
        let checked = world.check(&server.url).await;
        server.stop().await;
        checked
    };
    let time_max = TIME_MAX + FAILOVER_MAX * u32::try_from(failovers).unwrap();
    let checked = tokio::time::timeout(time_max, test).await.expect("it takes too long");
    gaps.sort();
    (checked, gaps)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_takes_nothing_with_it_that_its_synchronous_standby_has() {
    let failovers = times("LEADLOOP_PG_FAILOVERS", FAILOVERS_IN_CI);
    let (checked, gaps) = check_after(failovers, true).await;
    let summary = checked.unwrap_or_else(|faults| {
        panic!("seed {SEED}, {} faults:\n{}", faults.len(), faults.join("\n"))
    });
    println!("seed {SEED}, {failovers} failovers: {summary:#?}\nanswered again after {gaps:.1?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_asynchronous_standby_has_not_heard_of_is_lost_with_the_primary() {
    let (checked, _) = check_after(1, false).await;
    let faults = checked.expect_err("the check can fail");
    let lost = faults.iter().filter(|fault| fault.ends_with(" is lost")).count();
    println!("seed {SEED}, 1 failover: {lost} leads lost");
    assert!(lost > 0, "{faults:?}");
}
