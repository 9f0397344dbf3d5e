//! Starting: the first minute of a newcomer, the key that is made, and whose store a file is.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::program::{
    API_KEY, APP_SECRET, EMAIL, Place, Server, between, have, line_with, settings, within,
};

/// Starts `serve --sandbox`, and answers with what it printed too.
async fn serve_sandbox(place: &Place) -> (Server, String) {
    let arguments = ["serve", "--sandbox", "--sandbox-listen", "127.0.0.1:0"];
    let program = place.start(&arguments, &[("LEADLOOP_LISTEN", "127.0.0.1:0")]);
    let printed = program.stdout.until(|text| text.contains("Ctrl-C stops it.")).await;
    let url = between(&printed, "API and webhook    ", " ").to_owned();
    (Server { url, program }, printed)
}

#[tokio::test]
async fn what_serve_sandbox_tells_a_newcomer_to_type_works_as_it_is_printed() {
    if !have("curl") {
        return;
    }
    let place = Place::new();
    let (server, printed) = serve_sandbox(&place).await;
    let commands = printed.lines().filter(|line| line.starts_with("     "));
    let commands: String = commands.flat_map(|line| [line, "\n"]).collect();
    assert_eq!(commands.matches("curl").count(), 2, "{printed}");
    let shell = move || {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-e", "-c", &format!("{commands}\necho; echo \"LEAD=$LEAD\"")]);
        shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()
    };
    let output = within(tokio::task::spawn_blocking(shell)).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\"state\":\"pending\"") || text.contains("delivered"), "{text}");
    let lead_id = between(&text, "LEAD=", "\n");
    assert!(text.contains(&format!("\"lead_id\":\"{lead_id}\"")), "{text}");

    let timeline = server.settled_timeline(lead_id, "sandbox-api-key").await;
    assert_eq!(timeline, ["initial_lead delivered", "qualified delivered"]);
    let meta = between(&printed, "Stand-in for Meta  ", " ").to_owned();
    let meta = Server { url: meta, program: server.program };
    let taken = meta.get("/sandbox/events", "").await;
    let taken = taken["events"].as_array().unwrap();
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|event| event["not_counted"] == json!([])), "{taken:?}");
    meta.stop().await;
}

#[tokio::test]
async fn serve_sandbox_uses_the_settings_that_are_there_and_shows_no_key_of_theirs() {
    let place = Place::new();
    let settings = "funnel = \"qualified, won\"\n[[sources]]\nname = \"zoho\"\n";
    place.write("leadloop.toml", &format!("api_key = \"{API_KEY}\"\n{settings}"));
    let (server, printed) = serve_sandbox(&place).await;
    assert!(printed.contains("$LEADLOOP_API_KEY") && !printed.contains(API_KEY), "{printed}");
    assert_eq!(server.get("/v1/sources", API_KEY).await["sources"][0]["source"], "zoho");
    assert!(printed.contains("leadloop-sandbox.redb"), "the store is its own: {printed}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_with_the_settings_of_the_environment_alone_delivers_to_the_stand_in() {
    let place = Place::new();
    let meta = place.sandbox(&settings(&[], [])).await;
    let with = [("META_GRAPH_URL", meta.url.as_str()), ("LEADLOOP_API_KEY", API_KEY)];
    let server = place.serve(&settings(&[], with)).await;
    let webhook = format!("{}/webhooks/meta", server.url);
    let secret = [("META_APP_SECRET", APP_SECRET)];
    let sent = place.run(&["trigger", "--leads", "2", "--url", &webhook], &secret).await;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let leads: Vec<&str> = sent.stdout.lines().collect();
    assert_eq!(leads.len(), 2);
    let update = json!({"lead_id": leads[1], "stage": "won", "customer": {"em": EMAIL}});
    let update = update.to_string();
    let (status, answer) = server.ask(Method::POST, "/v1/stage-updates", API_KEY, &update).await;
    assert_eq!(status, 202, "{answer}");

    assert_eq!(server.settled_timeline(leads[0], API_KEY).await, ["initial_lead delivered"]);
    let timeline = server.settled_timeline(leads[1], API_KEY).await;
    assert_eq!(timeline, ["initial_lead delivered", "won delivered"]);
    let taken = meta.get("/sandbox/events", "").await;
    let taken = taken["events"].as_array().unwrap();
    assert_eq!(taken.len(), 3);
    for event in taken {
        assert_eq!(event["dataset_id"], "700");
        assert_eq!(event["event"]["custom_data"]["lead_event_source"], "Process CRM");
        assert_eq!(event["not_counted"], json!([]));
    }
    server.stop().await;
}

#[tokio::test]
async fn an_api_key_is_made_at_the_first_start_shown_once_and_good_for_ever() {
    let place = Place::new();
    let mut server = place.serve(&settings(&[], [])).await;
    let printed =
        server.program.stdout.until(|text| text.ends_with("\n\n\n") || text.lines().count() == 4);
    let printed = printed.await;
    let key = line_with(&printed, "  ll_").unwrap().trim().to_owned();
    assert_eq!(key.len(), "ll_".len() + 64);
    server.program.keep_secret(&key);
    assert_eq!(server.get("/v1/leads", &key).await["leads"], json!([]));
    assert_eq!(server.ask(Method::GET, "/v1/leads", "ll_guessed", "").await.0, 401);
    let ended = server.stop().await;
    assert_eq!(ended.stdout.matches(&key).count(), 1);

    let mut server = place.serve(&settings(&[], [])).await;
    server.program.keep_secret(&key);
    assert_eq!(server.get("/v1/leads", &key).await["leads"], json!([]));
    let ended = server.stop().await;
    assert_eq!(ended.stdout, "", "the key is shown once, and nothing else is printed");
}

#[tokio::test]
async fn a_store_keeps_to_its_purpose() {
    let place = Place::new();
    let file = ("LEADLOOP_STORE", "one.redb");
    let arguments = ["serve", "--sandbox", "--sandbox-listen", "127.0.0.1:0"];
    let sandbox = [("LEADLOOP_LISTEN", "127.0.0.1:0"), file];
    let program = place.start(&arguments, &sandbox);
    program.stdout.until(|text| text.contains("Ctrl-C stops it.")).await;
    program.terminate();
    assert_eq!(program.ended().await.code, Some(0));
    let refused = place.run(&["serve"], &settings(&[], [file])).await;
    assert_eq!(refused.code, Some(1));
    let said = line_with(&refused.stderr, "leadloop: ").unwrap();
    assert!(said.contains("one.redb") && said.contains("--sandbox"), "{said}");

    place.serve(&settings(&[], [])).await.stop().await;
    let sandbox = [("LEADLOOP_LISTEN", "127.0.0.1:0"), ("LEADLOOP_STORE", "leadloop.redb")];
    let refused = place.run(&arguments, &sandbox).await;
    assert_eq!(refused.code, Some(1));
    let said = line_with(&refused.stderr, "leadloop: ").unwrap();
    assert!(said.contains("leadloop.redb") && said.contains("live leads"), "{said}");
}

#[tokio::test]
async fn a_store_is_its_owners_alone_and_one_servers_alone() {
    let place = Place::new();
    let server = place.serve(&settings(&[], [])).await;
    let mode = std::fs::metadata(place.path("leadloop.redb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = place.run(&["serve"], &settings(&[], [])).await;
    assert_eq!(refused.code, Some(1));
    let said = line_with(&refused.stderr, "leadloop: ").unwrap();
    assert!(said.contains("leadloop.redb") && said.contains("another process"), "{said}");
    assert_eq!(server.ask(Method::GET, "/readyz", "", "").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_made_stops_the_start_and_is_named() {
    let place = Place::new();
    let file = ("LEADLOOP_STORE", "no/such/folder.redb");
    let refused = place.run(&["serve"], &settings(&[], [file])).await;
    assert_eq!(refused.code, Some(1));
    let said = line_with(&refused.stderr, "leadloop: ").unwrap();
    assert!(said.contains("LEADLOOP_STORE") && said.contains("no/such/folder.redb"), "{said}");
}

#[tokio::test]
async fn the_handshake_keeps_the_verify_token_out_of_the_log() {
    let place = Place::new();
    let server = place.serve(&settings(&[], [])).await;
    let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    for (token, status) in [("process-verify-token", 200), ("wrong", 403)] {
        let path = format!("/webhooks/meta?{query}{token}");
        assert_eq!(server.ask(Method::GET, &path, "", "").await.0, status);
    }
    server.stop().await;
}
