//! `leadloop bench` against a real server.

use leadloop::bench::LeadIds;
use reqwest::Method;
use serde_json::{Value, json};

use super::program::{API_KEY, APP_SECRET, Ended, Place, Server, settings};

/// What the command needs to know of the server.
fn environment(server: &Server) -> [(&str, &str); 3] {
    [
        ("META_APP_SECRET", APP_SECRET),
        ("LEADLOOP_API_KEY", API_KEY),
        ("LEADLOOP_SERVER", &server.url),
    ]
}

/// A server beside its stand-in.
async fn served(place: &Place) -> (Server, Server) {
    let meta = place.sandbox(&settings(&[], [])).await;
    let with = [("META_GRAPH_URL", meta.url.as_str()), ("LEADLOOP_API_KEY", API_KEY)];
    let server = place.serve(&settings(&[], with)).await;
    (server, meta)
}

/// The result on stdout.
fn result(ended: &Ended, code: i32) -> Value {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
}

#[tokio::test]
async fn every_lead_that_was_reported_as_taken_is_stored_and_can_be_used_by_further_runs() {
    let place = Place::new();
    let (server, _meta) = served(&place).await;
    let environment = environment(&server);
    let run = async |arguments: &str| {
        let arguments: Vec<&str> = ["bench"].into_iter().chain(arguments.split(' ')).collect();
        place.run(&[&arguments, &["--json"][..]].concat(), &environment).await
    };
    let count = "--requests 20 --connections 3 --seed 7";

    let told = result(&run(&format!("webhooks --leads-per-post 4 {count}")).await, 0);
    assert_eq!(
        (&told["requests"], &told["failed"], &told["leads"]),
        (&json!(20), &json!(0), &json!(80))
    );
    assert_eq!((&told["first_lead"], &told["next_lead"]), (&json!(0), &json!(80)));
    let more = result(&run("webhooks --first 80 --rate 200 --duration 100ms --seed 7").await, 0);
    assert_eq!((&more["requests"], &more["failed"]), (&more["due"], &json!(0)));
    let leads = more["next_lead"].as_u64().unwrap();
    assert_eq!(json!(leads - 80), more["leads"]);
    let ids = LeadIds::new(7);
    for number in 0..leads {
        let lead = server.get(&format!("/v1/leads/{}", ids.get(number)), API_KEY).await;
        assert_eq!(lead["raw_lead"], "emitted", "{number} {lead}");
    }
    let next = format!("/v1/leads/{}", ids.get(leads));
    let (status, _) = server.ask(Method::GET, &next, API_KEY, "").await;
    assert_eq!(status, 404, "only what was told of is stored");

    let found = result(&run(&format!("look-ups --leads {leads} {count}")).await, 0);
    assert_eq!((&found["leads"], &found["failures"]), (&json!(20), &json!({})));
    let listed = result(&run(&format!("listings --limit 9 {count}")).await, 0);
    assert_eq!((&listed["leads"], &listed["failures"]), (&json!(180), &json!({})));
    let updated =
        result(&run(&format!("stage-updates --leads 80 --per-request 4 {count}")).await, 0);
    assert_eq!((&updated["leads"], &updated["failures"]), (&json!(80), &json!({})));
    for number in 0..80 {
        let lead = server.get(&format!("/v1/leads/{}", ids.get(number)), API_KEY).await;
        assert_eq!(lead["stage"], "bench 1", "{lead}");
    }
    let once = result(&run(&format!("stage-updates --leads 80 {count}")).await, 0);
    assert_eq!((&once["leads"], &once["failures"]), (&json!(20), &json!({})));

    // The control: of another seed nothing was stored, and that is seen.
    let strangers = result(&run(&format!("look-ups --leads 80 {count}8")).await, 1);
    assert_eq!((&strangers["requests"], &strangers["failures"]), (&json!(0), &json!({"404": 20})));
    server.stop().await;
}

#[tokio::test]
async fn refused_deliveries_are_counted_and_fail_the_command() {
    let place = Place::new();
    let (server, _meta) = served(&place).await;
    let mut environment = environment(&server);
    environment[0].1 = "another-secret";
    let arguments = ["bench", "webhooks", "--requests", "10"];
    let ended = place.run(&arguments, &environment).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("          10  401\n"), "{}", ended.stdout);
    assert!(ended.stderr.contains("no request was answered 2xx"), "{ended:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_whose_events_go_to_meta_is_left_alone_unless_it_is_meant() {
    let place = Place::new();
    let server = place.serve(&settings(&[], [("LEADLOOP_API_KEY", API_KEY)])).await;
    let environment = environment(&server);
    for load in [&["webhooks"][..], &["stage-updates", "--leads", "1", "--seed", "7"]] {
        let arguments = [&["bench"], load, &["--requests", "1"]].concat();
        let ended = place.run(&arguments, &environment).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains("--send-to-meta"), "{ended:?}");
    }
    // To read does no harm.
    let listed = ["bench", "listings", "--requests", "1", "--json"];
    let listed = result(&place.run(&listed, &environment).await, 0);
    assert_eq!(listed["leads"], 0, "nothing was stored before: {listed}");
    // Its Page is unknown and its dataset would be Meta's; a wrong secret keeps the lead away.
    let mut wrong = environment;
    wrong[0].1 = "another-secret";
    let meant = ["bench", "webhooks", "--requests", "1", "--send-to-meta", "--json"];
    let meant = result(&place.run(&meant, &wrong).await, 1);
    assert_eq!(meant["failures"], json!({"401": 1}));
    server.stop().await;
}
