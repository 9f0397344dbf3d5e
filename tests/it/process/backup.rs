//! `leadloop backup` and `leadloop compact`: the real program, under load, and what it refuses.

use std::path::Path;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::full::SmallDisk;
use super::program::{API_KEY, APP_SECRET, Ended, Place, Server, settings, within};

/// A server whose events stay queued, because nobody answers where Meta should be.
async fn serve_cut_off(place: &Place) -> Server {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let with = [("META_GRAPH_URL", nobody.as_str()), ("LEADLOOP_API_KEY", API_KEY)];
    place.serve(&settings(&[], with)).await
}

/// Sends leads as Meta would: their ids, once they were acknowledged.
async fn trigger(place: &Place, server: &Server, leads: &str) -> Vec<String> {
    let webhook = format!("{}/webhooks/meta", server.url);
    let arguments = ["trigger", "--leads", leads, "--url", &webhook];
    let sent = place.run(&arguments, &[("META_APP_SECRET", APP_SECRET)]).await;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    sent.stdout.lines().map(str::to_owned).collect()
}

/// Runs a command with the settings that commands need, and without logs beside its one line.
async fn run(place: &Place, url: &str, arguments: &[&str]) -> Ended {
    let environment =
        [("LEADLOOP_API_KEY", API_KEY), ("LEADLOOP_SERVER", url), ("LEADLOOP_LOG", "off")];
    place.run(arguments, &environment).await
}

/// What a command says under a name.
fn said<'t>(ended: &'t Ended, name: &str) -> &'t str {
    let line = ended.stdout.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}: {ended:?}"))[name.len()..].trim()
}

fn is_refused(ended: &Ended, code: i32, part: &str) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.contains(part), "{ended:?}");
}

fn files(place: &Place) -> Vec<String> {
    let names = std::fs::read_dir(place.path("")).unwrap();
    let mut names: Vec<String> =
        names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_has_all_that_was_acknowledged_and_delivers_what_was_queued() {
    let place = Place::new();
    let server = serve_cut_off(&place).await;
    let before = trigger(&place, &server, "50").await;
    let update = json!({"lead_id": before[0], "stage": "won"}).to_string();
    assert_eq!(server.ask(Method::POST, "/v1/stage-updates", API_KEY, &update).await.0, 202);
    let (backup, ()) =
        tokio::join!(run(&place, &server.url, &["backup", "--output", "b"]), async {
            for _ in 0..5 {
                trigger(&place, &server, "20").await;
            }
        });
    assert_eq!((backup.code, backup.stderr.as_str()), (Some(0), ""), "{backup:?}");
    let leads: usize = said(&backup, "leads").parse().unwrap();
    assert!((50..=150).contains(&leads), "{backup:?}");
    assert_eq!(said(&backup, "queued"), (leads + 1).to_string());
    assert_eq!(files(&place), ["b", "leadloop.redb"], "no half-made file is left");
    server.stop().await;

    let other = Place::new();
    let copied = other.path("b");
    std::fs::copy(place.path("b"), &copied).unwrap();
    let verified = run(&other, "", &["backup", "--verify", "b"]).await;
    for name in ["bytes", "sha256", "made", "newest", "leads", "events", "queued"] {
        assert_eq!(said(&verified, name), said(&backup, name));
    }
    let restored = run(&other, "", &["backup", "--restore", "b"]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert_eq!(said(&restored, "in"), "place     leadloop.redb");
    let queued = format!("- {} events are queued in it. 0 of them are too old", leads + 1);
    assert!(restored.stdout.contains(&queued), "{}", restored.stdout);

    let meta = other.sandbox(&settings(&[], [])).await;
    let with = [("META_GRAPH_URL", meta.url.as_str()), ("LEADLOOP_API_KEY", API_KEY)];
    let server = other.serve(&settings(&[], with)).await;
    for lead in &before[1..] {
        assert_eq!(server.settled_timeline(lead, API_KEY).await, ["initial_lead delivered"]);
    }
    let expected = ["initial_lead delivered", "won delivered"];
    assert_eq!(server.settled_timeline(&before[0], API_KEY).await, expected);
    server.stop().await;
}

#[tokio::test]
async fn a_file_in_use_is_left_alone_and_one_that_is_there_is_kept() {
    let place = Place::new();
    let server = serve_cut_off(&place).await;
    trigger(&place, &server, "3").await;
    let asked = async |arguments: &[&str]| run(&place, &server.url, arguments).await;
    let made = asked(&["backup", "--output", "b"]).await;
    assert_eq!(said(&made, "leads"), "3");
    is_refused(&asked(&["backup", "--output", "b"]).await, 1, "exists already");
    is_refused(&asked(&["backup", "--output", "leadloop.redb"]).await, 1, "exists already");
    let stopped = ["backup", "--store", "leadloop.redb", "--output", "c"];
    is_refused(&asked(&stopped).await, 1, "another process has it open");
    is_refused(&asked(&["backup", "--verify", "leadloop.redb"]).await, 1, "has it open");
    is_refused(&asked(&["backup", "--restore", "b", "--force"]).await, 1, "has it open");
    is_refused(&asked(&["compact"]).await, 1, "another process has it open");
    is_refused(&asked(&["backup", "--verify", "missing"]).await, 3, "missing");
    is_refused(&asked(&["backup", "--restore", "missing"]).await, 3, "missing");
    std::fs::write(place.path("text"), "not a store\n".repeat(1_000)).unwrap();
    is_refused(&asked(&["backup", "--verify", "text"]).await, 1, "it is no store");
    trigger(&place, &server, "2").await;
    server.stop().await;

    let asked = async |arguments: &[&str]| run(&place, "http://127.0.0.1:1", arguments).await;
    is_refused(&asked(&["backup", "--output", "c"]).await, 69, "is the server running?");
    assert_eq!(said(&asked(&stopped).await, "leads"), "5");
    is_refused(&asked(&["backup", "--restore", "b"]).await, 1, "a store is there already");
    is_refused(&asked(&["backup", "--restore", "text", "--force"]).await, 1, "it is no store");
    let restored = asked(&["backup", "--restore", "b", "--force"]).await;
    assert_eq!(said(&restored, "leads"), "3");
    let kept = said(&restored, "kept").to_owned();
    assert_eq!(said(&asked(&["backup", "--verify", &kept]).await, "leads"), "5");
    assert_eq!(files(&place), ["b", "c", "leadloop.redb", &kept, "text"]);
    let compacted = asked(&["compact", "--store", &kept]).await;
    let line = format!("{kept}: ");
    assert!(compacted.stdout.starts_with(&line) && compacted.code == Some(0), "{compacted:?}");
}

#[tokio::test]
async fn a_store_whose_server_was_killed_is_backed_up_from_its_file() {
    let place = Place::new();
    let mut server = serve_cut_off(&place).await;
    let leads = trigger(&place, &server, "20").await;
    server.program.kill();
    let store = std::fs::read(place.path("leadloop.redb")).unwrap();
    let made = run(&place, "", &["backup", "--store", "leadloop.redb", "--output", "b"]).await;
    assert_eq!(said(&made, "leads"), leads.len().to_string());
    assert!(std::fs::read(place.path("leadloop.redb")).unwrap() == store, "it was only read");
}

#[tokio::test]
async fn a_backup_that_would_fill_the_disk_is_refused_and_leads_are_stored() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, "mount -t tmpfs -o size=280m tmpfs small") else {
        eprintln!("NOT RUN: this machine lets nobody mount a file system");
        return;
    };
    let store = disk.path("leadloop.redb").display().to_string();
    let with = [
        ("META_GRAPH_URL", "http://127.0.0.1:1"),
        ("LEADLOOP_API_KEY", API_KEY),
        ("LEADLOOP_STORE", &store),
    ];
    let server = place.serve(&settings(&[], with)).await;
    trigger(&place, &server, "3").await;
    let asked =
        async |output: &str| run(&place, &server.url, &["backup", "--output", output]).await;
    assert_eq!(said(&asked("before").await, "leads"), "3");
    let on_it = |name: &str| disk.path(name).display().to_string();
    std::fs::write(disk.path("ballast"), vec![1; 28 * 1024 * 1024]).unwrap();
    is_refused(&asked("full").await, 1, "backup_no_room");
    trigger(&place, &server, "3").await;
    std::fs::remove_file(disk.path("ballast")).unwrap();
    assert_eq!(said(&asked(&on_it("after")).await, "leads"), "6");
    server.stop().await;
    // Nobody asks a server here: the command leaves the reserve free itself.
    std::fs::write(disk.path("ballast"), vec![1; 28 * 1024 * 1024]).unwrap();
    let stopped = ["backup", "--store", &store, "--output", &on_it("full")];
    is_refused(&run(&place, "", &stopped).await, 1, "256 MiB free");
    assert!(!disk.path("full").exists() && !disk.path("full.new").exists());
}

/// A server that gives the same answer to everybody.
async fn impostor(answer: Vec<u8>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    (url, answering)
}

fn answer(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), body].concat()
}

#[tokio::test]
async fn what_arrives_other_than_it_was_sent_is_not_kept() {
    let place = Place::new();
    let server = serve_cut_off(&place).await;
    let made = run(&place, &server.url, &["backup", "--output", "good"]).await;
    let digest = format!("leadloop-sha256: {}\r\n", said(&made, "sha256"));
    server.stop().await;
    let good = std::fs::read(place.path("good")).unwrap();
    let length = format!("content-length: {}\r\n", good.len());
    let mut wrong = good.clone();
    wrong[9_000] ^= 1;
    let text = b"{\"code\":\"backup_running\",\"detail\":\"one at a time\"}";
    for (sent, code, part) in [
        (answer(&format!("{digest}{length}"), &wrong), 1, "its digest is another"),
        (answer(&length, &good), 1, "its digest is another"),
        (answer(&format!("{digest}{length}"), &good[..good.len() / 2]), 69, "broke"),
        (answer("content-length: 3\r\n", b"no!"), 1, "its digest is another"),
        ([b"HTTP/1.1 409 Conflict\r\n\r\n", &text[..]].concat(), 1, "backup_running: one at"),
    ] {
        let (url, answering) = impostor(sent).await;
        let ended = within(run(&place, &url, &["backup", "--output", "b"])).await;
        is_refused(&ended, code, part);
        assert_eq!(files(&place), ["good", "leadloop.redb"], "{ended:?}");
        answering.abort();
    }
    let (url, answering) = impostor(answer(&format!("{digest}{length}"), &good)).await;
    let kept = run(&place, &url, &["backup", "--output", "b"]).await;
    assert_eq!(kept.code, Some(0), "the check can pass, too: {kept:?}");
    assert!(Path::new(&place.path("b")).exists());
    answering.abort();
}
