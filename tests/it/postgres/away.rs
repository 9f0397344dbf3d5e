//! A database that is stopped and started again under a running program.

use std::time::Duration;

use leadloop::clock::SeededRandom;
use reqwest::Method;

use super::node::Node;
use crate::process::load::{SEED, World, stand_in};
use crate::process::program::{API_KEY, Place, Server, settings, within};

/// Waits until the program says that it is ready, or is not.
async fn until_ready_is(server: &Server, expected: u16) {
    let mut interval = tokio::time::interval(Duration::from_millis(50));
    let asking = async {
        while server.ask(Method::GET, "/readyz", "", "").await.0 != expected {
            interval.tick().await;
        }
    };
    within(asking).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_callers_are_told_to_come_back_and_nothing_is_lost() {
    let mut node = Node::start().await;
    let (meta, meta_url) = stand_in().await;
    let (place, world, random) = (Place::new(), World::new(meta), SeededRandom::new(SEED));
    let url = node.url();
    let with = [
        ("CRM_NAME", "run 0"),
        ("META_GRAPH_URL", meta_url.as_str()),
        ("LEADLOOP_API_KEY", API_KEY),
        ("LEADLOOP_STORE", &url),
    ];
    let mut environment = settings(&["CRM_NAME"], with);
    environment.push(("LEADLOOP_LOG", "info"));
    let server = place.serve(&environment).await;
    world.urls.send_replace(vec![server.url.clone()]);
    let clients = world.start(World::be_a_client);
    for _ in 0..2 {
        world.moment(&random).await;
        let last_request = world.meta.requests();
        node.stop();
        world.journal.lock().unwrap().outages.push(last_request..=world.meta.requests() + 1);
        // Clients are told 503, or they would panic; that some were is seen here.
        let refused = *world.refused.borrow();
        until_ready_is(&server, 503).await;
        within(world.refused.subscribe().wait_for(|now| *now > refused)).await.unwrap();
        assert_eq!(server.ask(Method::GET, "/healthz", "", "").await.0, 200, "it is alive");
        node.go_on().await;
        until_ready_is(&server, 200).await;
        world.wait_for_acknowledgements(1).await;
    }
    world.moment(&random).await;
    world.finish(clients).await;
    let summary = world.check(&server.url).await.unwrap_or_else(|faults| {
        panic!("seed {SEED}, {} faults:\n{}", faults.len(), faults.join("\n"))
    });
    println!("seed {SEED}, 2 outages: {summary:#?}");
    server.stop().await;
}
