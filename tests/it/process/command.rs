//! The commands about live data, and what each way to end is called.

use std::process::{Command, Stdio};

use leadloop::domain::ids::{EventId, LeadId};
use leadloop::domain::stage::StageName;
use leadloop::domain::time::UnixSeconds;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::program::{API_KEY, APP_SECRET, EMAIL, Ended, PROGRAM, Place, Server, settings};

/// A server with its stand-in and one lead that has reached two stages.
async fn served(place: &Place) -> (Server, Server, String) {
    let meta = place.sandbox(&settings(&[], [])).await;
    let with = [("META_GRAPH_URL", meta.url.as_str()), ("LEADLOOP_API_KEY", API_KEY)];
    let server = place.serve(&settings(&[], with)).await;
    let webhook = format!("{}/webhooks/meta", server.url);
    let secret = [("META_APP_SECRET", APP_SECRET)];
    let sent = place.run(&["trigger", "--url", &webhook], &secret).await;
    let lead_id = sent.stdout.trim().to_owned();
    let update = json!({"lead_id": lead_id, "stage": "won", "crm_id": "deal/7",
                        "customer": {"email": EMAIL}});
    let update = update.to_string();
    let (status, _) = server.ask(Method::POST, "/v1/stage-updates", API_KEY, &update).await;
    assert_eq!(status, 202);
    server.settled_timeline(&lead_id, API_KEY).await;
    (server, meta, lead_id)
}

fn json_of(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

#[tokio::test]
async fn leads_and_events_are_looked_up_from_the_command_line() {
    let place = Place::new();
    let (server, _meta, lead_id) = served(&place).await;
    let environment = [("LEADLOOP_API_KEY", API_KEY), ("LEADLOOP_SERVER", &server.url)];
    let run = async |arguments: &[&str]| place.run(arguments, &environment).await;

    let leads = json_of(&run(&["leads"]).await);
    assert_eq!(leads["leads"][0]["lead_id"], lead_id.as_str());
    assert_eq!(json_of(&run(&["leads", "--stage", "lost"]).await)["leads"], json!([]));
    for (by, found) in [
        (["--crm-id", "deal/7"], 1),
        (["--crm-id", "deal/8"], 0),
        (["--email", EMAIL], 1),
        (["--phone", "+49 151 12345678"], 0),
        (["--form-id", "1000000002"], 1),
    ] {
        let leads = json_of(&run(&["leads", by[0], by[1]]).await);
        assert_eq!(leads["leads"].as_array().map(Vec::len), Some(found), "{by:?} {leads}");
    }
    let lead = json_of(&run(&["leads", &lead_id]).await);
    assert_eq!(lead["stage"], "won");

    let events = json_of(&run(&["events", "--state", "delivered", "--limit", "1"]).await);
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
    let cursor = events["next_cursor"].as_str().unwrap();
    let next = json_of(&run(&["events", "--state", "delivered", "--cursor", cursor]).await);
    assert_ne!(next["events"][0]["event_id"], events["events"][0]["event_id"]);
    let event_id = lead["events"][1]["event_id"].as_str().unwrap();
    let event = json_of(&run(&["events", event_id]).await);
    assert_eq!((&event["stage"], &event["state"]), (&json!("won"), &json!("delivered")));
    assert_eq!(event["attempt_log"].as_array().map_or(0, Vec::len), 1, "{event}");
    let kept = json_of(&run(&["events", event_id, "--retry"]).await);
    assert_eq!(kept["state"], "delivered", "only a dead letter is put back");
    server.stop().await;
}

#[tokio::test]
async fn how_a_command_ended_is_told_by_its_exit_code_and_one_line() {
    let place = Place::new();
    let (server, _meta, _) = served(&place).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let unknown_lead = LeadId::parse("999999999999999").unwrap();
    let stage = StageName::parse("won").unwrap();
    let unknown_event = EventId::derive(unknown_lead, &stage, UnixSeconds::new(1)).to_string();
    for (arguments, key, url, code) in [
        (vec!["leads", "999999999999999"], API_KEY, &server.url, 3),
        (vec!["events", &unknown_event], API_KEY, &server.url, 3),
        (vec!["leads"], API_KEY, &nobody, 69),
        (vec!["events"], API_KEY, &nobody, 69),
        (vec!["trigger", "--url", &nobody], API_KEY, &server.url, 69),
        (vec!["leads"], "", &server.url, 78),
        (vec!["leads"], "wrong-key", &server.url, 1),
        (vec!["leads", "--state", "lost"], API_KEY, &server.url, 1),
        (vec!["leads", "1"], API_KEY, &server.url, 2),
        (vec!["events", "1"], API_KEY, &server.url, 2),
    ] {
        // Logs would stand beside the one line.
        let environment =
            [("LEADLOOP_API_KEY", key), ("LEADLOOP_SERVER", url), ("LEADLOOP_LOG", "off")];
        let ended = place.run(&arguments, &environment).await;
        assert_eq!(ended.code, Some(code), "{arguments:?} {ended:?}");
        assert_eq!(ended.stdout, "");
        assert!(code == 2 || ended.stderr.lines().count() == 1, "{ended:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_webhook_that_is_refused_fails_the_trigger() {
    let place = Place::new();
    let server = place.serve(&settings(&[], [])).await;
    let webhook = format!("{}/webhooks/meta", server.url);
    let other = [("META_APP_SECRET", "another-secret")];
    let ended = place.run(&["trigger", "--url", &webhook], &other).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("the webhook answered 401"), "{ended:?}");
    server.stop().await;
}

#[test]
fn a_reader_that_stops_before_the_end_makes_no_command_fail() {
    for arguments in [&["config", "--default"][..], &["openapi"]] {
        let mut command = Command::new(PROGRAM);
        let mut child = command.args(arguments).env_clear().stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }
}

#[tokio::test]
async fn the_doctor_says_what_is_well_and_what_to_do() {
    let place = Place::new();
    let (server, meta, _) = served(&place).await;
    let with = [("META_GRAPH_URL", meta.url.as_str()), ("LEADLOOP_SERVER", server.url.as_str())];
    let run = async |without: &[&str], more: &[(&str, &str)]| {
        let environment = settings(without, with.iter().chain(more).copied());
        place.run(&["doctor"], &environment).await
    };
    let well = run(&[], &[]).await;
    assert_eq!(well.code, Some(0), "{well:?}");
    for line in ["ok       settings", "ok       server", "ok       clock", "ok       dataset 700"] {
        assert!(well.stdout.contains(line), "{}", well.stdout);
    }
    let token = run(&["META_ACCESS_TOKEN"], &[("META_ACCESS_TOKEN", "another")]).await;
    assert_eq!(token.code, Some(1));
    assert!(token.stdout.contains("PROBLEM  dataset 700: The token is invalid"), "{token:?}");
    assert!(token.stdout.contains("Make a new token"), "{token:?}");
    let missing = run(&["META_VERIFY_TOKEN"], &[]).await;
    assert!(missing.stdout.contains("PROBLEM  settings: META_VERIFY_TOKEN"), "{missing:?}");
    server.stop().await;
}
