//! Kill -9, again and again, under load: what was acknowledged stays, and what was recorded as
//! delivered is not sent again.
//!
//! Each run of the server names itself as the CRM, so that every event tells which run sent it.
//! The journal of what was acknowledged is kept here, outside of the process that is killed.
//! `LEADLOOP_KILLS=200 cargo test --test it kill -- --nocapture` kills it 200 times.

use std::time::Duration;

use leadloop::clock::SeededRandom;

use super::journal::Summary;
use super::load::{SEED, World, stand_in};
use super::program::{API_KEY, Place, Server, settings};

const KILLS_IN_CI: usize = 10;
/// Longest that all of it may take, and each kill on top.
const TIME_MAX: Duration = Duration::from_mins(1);
const KILL_MAX: Duration = Duration::from_secs(6);

async fn serve(place: &Place, world: &World, meta: &str, run: usize) -> Server {
    let name = format!("run {run}");
    let with =
        [("CRM_NAME", name.as_str()), ("META_GRAPH_URL", meta), ("LEADLOOP_API_KEY", API_KEY)];
    let mut environment = settings(&["CRM_NAME"], with);
    environment.push(("LEADLOOP_LOG", "info"));
    let server = place.serve(&environment).await;
    world.urls.send_replace(vec![server.url.clone()]);
    server
}

/// Kills servers under the load of clients, and checks what the last one shows.
async fn check_after<C: Future<Output = ()> + Send + 'static>(
    kills: usize,
    client: fn(World) -> C,
) -> Result<Summary, Vec<String>> {
    let (meta, meta_url) = stand_in().await;
    let (place, world, random) = (Place::new(), World::new(meta), SeededRandom::new(SEED));
    let test = async {
        let mut server = serve(&place, &world, &meta_url, 0).await;
        let clients = world.start(client);
        for run in 0..kills {
            world.moment(&random).await;
            server.program.kill();
            world.journal.lock().unwrap().killed.insert(run);
            server = serve(&place, &world, &meta_url, run + 1).await;
        }
        world.moment(&random).await;
        world.finish(clients).await;
        let checked = world.check(&server.url).await;
        server.stop().await;
        checked
    };
    let time_max = TIME_MAX + KILL_MAX * u32::try_from(kills).unwrap();
    tokio::time::timeout(time_max, test).await.expect("it takes too long")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_under_load_loses_nothing_and_repeats_nothing_it_has_recorded() {
    let wanted = std::env::var_os("LEADLOOP_KILLS");
    let kills = wanted.map_or(KILLS_IN_CI, |wanted| wanted.to_str().unwrap().parse().unwrap());
    let summary = check_after(kills, World::be_a_client).await.unwrap_or_else(|faults| {
        panic!("seed {SEED}, {} faults:\n{}", faults.len(), faults.join("\n"))
    });
    println!("seed {SEED}, {kills} kills, nothing lost, stored twice or torn: {summary:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_that_count_as_answered_before_they_are_committed_are_lost_by_kills() {
    let faults = check_after(2, World::be_gullible).await.expect_err("the check can fail");
    let lost = faults.iter().filter(|fault| fault.ends_with(" is lost")).count();
    println!("seed {SEED}, 2 kills: {lost} lost");
    assert!(lost > 0, "{faults:?}");
}
