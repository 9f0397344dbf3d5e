//! `leadloop import` against a real server, and against one that is not always there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use leadloop::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::program::{API_KEY, APP_SECRET, EMAIL, Ended, Place, Server, settings};

/// A server with its stand-in and two leads.
async fn served(place: &Place) -> (Server, Server, [String; 2]) {
    place.write("leadloop.toml", "[[sources]]\nname = \"zoho\"\n[[sources]]\nname = \"hubspot\"\n");
    let meta = place.sandbox(&settings(&[], [])).await;
    let with = [("META_GRAPH_URL", meta.url.as_str()), ("LEADLOOP_API_KEY", API_KEY)];
    let server = place.serve(&settings(&[], with)).await;
    let webhook = format!("{}/webhooks/meta", server.url);
    let created = (now() - 3_600).to_string();
    let secret = [("META_APP_SECRET", APP_SECRET)];
    let sent = place
        .run(&["trigger", "--url", &webhook, "--leads", "2", "--created-time", &created], &secret)
        .await;
    let mut leads = sent.stdout.lines().map(str::to_owned);
    (server, meta, [leads.next().unwrap(), leads.next().unwrap()])
}

/// The summary on stdout, and the exit code.
fn summary(ended: &Ended) -> (Option<i32>, Value) {
    let summary = serde_json::from_str(&ended.stdout);
    (ended.code, summary.unwrap_or_else(|_| panic!("{ended:?}")))
}

fn now() -> i64 {
    SystemClock.now().seconds().get()
}

#[tokio::test]
async fn a_table_is_looked_at_then_reported_and_then_known() {
    let place = Place::new();
    let (server, _meta, [first, second]) = served(&place).await;
    let (lately, old) = (now() - 60, now() - 7_200);
    let table = format!(
        "Lead;Status;When;E-Mail;phone;Owner\n\
         l:{first};won;{lately};{EMAIL};12;Max\n\
         {second};lost;{lately};;;\n\
         {second};won;{old};;;\n\
         3.67957E+16;won;{lately};;;\n\
         {first};seen;;;;\n"
    );
    place.write("stages.csv", &table);
    let environment = [("LEADLOOP_API_KEY", API_KEY), ("LEADLOOP_SERVER", server.url.as_str())];
    let names = [
        "import",
        "stages.csv",
        "--column",
        "lead_id=Lead",
        "--column",
        "stage=Status",
        "--column",
        "event_time=When",
        "--column",
        "email=E-Mail",
    ];
    let run = async |more: &[&str]| place.run(&[&names, more].concat(), &environment).await;

    let looked = run(&[]).await;
    let (code, would) = summary(&looked);
    assert_eq!((code, &would["dry_run"], &would["accepted"]), (Some(1), &json!(true), &json!(2)));
    assert!(looked.stderr.contains("nothing was changed"), "{looked:?}");
    let lead = server.get(&format!("/v1/leads/{first}"), API_KEY).await;
    assert_eq!(lead["events"].as_array().unwrap().len(), 1, "{lead}");

    let done = run(&["--send", "--rejected", "rejected.csv"]).await;
    assert!(done.stderr.contains("these columns are not read: Owner"), "{done:?}");
    let (code, done) = summary(&done);
    assert_eq!((code, &done["accepted"], &done["known"]), (Some(1), &json!(2), &json!(0)));
    let refused = done["refused"].as_array().unwrap();
    let refused: Vec<_> = refused.iter().map(|it| (it["code"].as_str(), &it["lines"])).collect();
    let expected = [
        (Some("event_time_missing"), &json!([6])),
        (Some("event_time_not_after_lead"), &json!([4])),
        (Some("rounded_number"), &json!([5])),
    ];
    assert_eq!(refused, expected);
    assert_eq!(would["refused"], done["refused"]);
    let field = json!([{"field": "customer.ph", "reason": "country_code_missing", "rows": 1, "lines": [2]}]);
    assert_eq!((&would["left_out"], &done["left_out"]), (&field, &field));
    let rejected = std::fs::read_to_string(place.path("rejected.csv")).unwrap();
    // As they were, to the byte, and the problem behind; the one of `wrong` is known at once.
    let rows = [0, 4, 5, 3].map(|line| table.lines().nth(line).unwrap());
    assert_eq!(rejected.lines().count(), rows.len());
    for (rejected, row) in rejected.lines().zip(rows) {
        assert!(rejected.starts_with(&format!("{row};\"")), "{rejected}");
    }
    assert!(rejected.contains("rounded_number: "), "{rejected}");

    let (_, again) = summary(&run(&["--send"]).await);
    assert_eq!((&again["accepted"], &again["known"]), (&json!(0), &json!(2)));
    server.settled_timeline(&first, API_KEY).await;
    server.stop().await;
}

#[tokio::test]
async fn lines_of_json_are_imported_too_and_all_good_ones_are_a_success() {
    let place = Place::new();
    let (server, _meta, [first, second]) = served(&place).await;
    let lately = now() - 60;
    let line =
        |lead: &str| json!({"lead_id": lead, "stage": "won", "event_time": lately}).to_string();
    place.write("stages.ndjson", &format!("{}\n\n{}", line(&first), line(&second)));
    let environment = [("LEADLOOP_API_KEY", API_KEY), ("LEADLOOP_SERVER", server.url.as_str())];
    let arguments = ["import", "stages.ndjson", "--send", "--source", "zoho"];
    let misspelt = ["import", "stages.ndjson", "--send", "--source", "zohoo"];
    let refused = place.run(&misspelt, &environment).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no source \"zohoo\"; it has hubspot, zoho"), "{refused:?}");
    let (code, done) = summary(&place.run(&arguments, &environment).await);
    assert_eq!((code, &done["accepted"], &done["refused"]), (Some(0), &json!(2), &json!([])));
    let events = server.get(&format!("/v1/events?lead_id={first}"), API_KEY).await;
    assert!(events.to_string().contains("zoho"), "{events}");
    server.stop().await;
}

/// A server that answers each request by its number, and its address.
async fn sometimes(answer: fn(u32, Value) -> (StatusCode, Value)) -> (String, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let router = axum::Router::new().route(
        "/v1/stage-updates/batch",
        post(async move |Json(body): Json<Value>| {
            let (status, body) = answer(count.fetch_add(1, Ordering::SeqCst), body);
            (status, [(header::RETRY_AFTER, "0")], Json(body)).into_response()
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, asked)
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_one_that_refuses_is_not() {
    for (answer, code, asked) in [
        (
            (|number, _| match number {
                0 => (StatusCode::SERVICE_UNAVAILABLE, json!({"code": "overloaded"})),
                _ => (StatusCode::OK, json!({"results": [{"status": 202}]})),
            }) as fn(u32, Value) -> (StatusCode, Value),
            0,
            2,
        ),
        (|_, _| (StatusCode::FORBIDDEN, json!({"code": "forbidden", "detail": "no"})), 1, 1),
        (|_, _| (StatusCode::OK, json!({"results": []})), 1, 1),
    ] {
        let place = Place::new();
        place.write("stages.csv", "lead_id,stage,event_time\n1,won,1\n");
        let (url, count) = sometimes(answer).await;
        let environment = [("LEADLOOP_API_KEY", API_KEY), ("LEADLOOP_SERVER", url.as_str())];
        let ended = place.run(&["import", "stages.csv", "--send"], &environment).await;
        assert_eq!((ended.code, count.load(Ordering::SeqCst)), (Some(code), asked), "{ended:?}");
    }
}

#[tokio::test]
async fn without_send_the_server_is_asked_what_it_would_do() {
    let place = Place::new();
    place.write("stages.csv", "lead_id,stage,event_time\n1,won,1\n2,won,\n3,won,1\n");
    let (url, asked) = sometimes(|_, body| {
        assert_eq!(body["dry_run"], true);
        let lead_ids: Vec<_> = body["updates"].as_array().unwrap().iter().collect();
        assert_eq!(lead_ids.len(), 2);
        (
            StatusCode::OK,
            json!({"results": [{"status": 202, "state": "awaiting_lead"}, {"status": 200}]}),
        )
    })
    .await;
    let environment = [("LEADLOOP_API_KEY", API_KEY), ("LEADLOOP_SERVER", url.as_str())];
    let ended = place.run(&["import", "stages.csv"], &environment).await;
    let (code, would) = summary(&ended);
    let counts = ["rows", "accepted", "awaiting_lead", "known"].map(|name| would[name].as_u64());
    assert_eq!((code, counts), (Some(1), [3, 1, 1, 1].map(Some)));
    assert_eq!((&would["dry_run"], asked.load(Ordering::SeqCst)), (&json!(true), 1));
    assert!(ended.stderr.contains("nothing was changed"), "{ended:?}");
    assert!(ended.stderr.contains("1 row would be refused"), "{ended:?}");
}

#[tokio::test]
async fn a_batch_that_got_no_answer_is_sent_again() {
    let place = Place::new();
    let rows: Vec<String> = (0..1_500).map(|n| format!("{n},won,1")).collect();
    place.write("stages.csv", &format!("crm_id,stage,event_time\n{}", rows.join("\n")));
    let (url, asked) = sometimes(|number, body| {
        assert_ne!(number, 1, "the server dies");
        let updates = body["updates"].as_array().unwrap();
        // What it had taken in before it died is known to it.
        let first = if number == 2 { 200 } else { 202 };
        assert_eq!(updates.len(), if number == 0 { 1_000 } else { 500 });
        let results = updates.iter().enumerate();
        let results = results.map(|(at, _)| json!({"status": if at == 0 { first } else { 202 }}));
        (StatusCode::OK, json!({"results": results.collect::<Vec<_>>()}))
    })
    .await;
    let environment = [("LEADLOOP_API_KEY", API_KEY), ("LEADLOOP_SERVER", url.as_str())];
    let (code, done) = summary(&place.run(&["import", "stages.csv", "--send"], &environment).await);
    assert_eq!((code, asked.load(Ordering::SeqCst)), (Some(0), 3), "{done}");
    assert_eq!((&done["accepted"], &done["known"]), (&json!(1_499), &json!(1)));
}

#[tokio::test]
async fn a_file_that_is_none_and_a_server_that_is_nowhere_are_told_at_once() {
    let place = Place::new();
    place.write("names.csv", "Erika Mustermann,a@x.org\n");
    place.write("good.csv", "lead_id,stage,event_time\n1,won,1\n");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let environment = [("LEADLOOP_API_KEY", API_KEY), ("LEADLOOP_SERVER", nobody.as_str())];
    for (file, code, words) in [
        ("nowhere.csv", 1, "cannot be read"),
        ("names.csv", 1, "has no column stage"),
        ("good.csv", 69, "is the server running?"),
        ("-", 1, "is empty"),
    ] {
        let ended = place.run(&["import", file], &environment).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
        assert!(ended.stderr.contains(words) && !ended.stderr.contains("Erika"), "{ended:?}");
    }
}
