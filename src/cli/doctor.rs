//! `leadloop doctor`: is everything as it must be, and what to do if not.
//!
//! It asks the server and Meta, changes nothing, and opens the store only when no server has it.

use std::fmt::Write;

use reqwest::header::DATE;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::cli::Global;
use crate::cli::api::Server;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::settings::layers;
use crate::client::http_client;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Dataset, StoreAddress};
use crate::limits::OWN_CLOCK_TOLERANCE_S;
use crate::meta::conversions::read_answer;
use crate::meta::errors::find_rule;
use crate::meta::graph::{GraphQuery, is_subscribed};
use crate::reader::source::{GraphSource, HttpGraph};
use crate::reader::verdict::{Trouble, judge};
use crate::store::Purpose;
use crate::store::postgres::PostgresStore;
use crate::store::redb::RedbStore;

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
}

/// What was found, line by line.
#[derive(Default)]
struct Report {
    text: String,
    problems: u32,
}

impl Report {
    fn good(&mut self, what: &str) {
        let _ = writeln!(self.text, "ok       {what}");
    }

    fn unknown(&mut self, what: &str) {
        let _ = writeln!(self.text, "unknown  {what}");
    }

    fn problem(&mut self, what: &str, advice: &str) {
        self.problems += 1;
        let _ = writeln!(self.text, "PROBLEM  {what}\n         {advice}");
    }
}

/// Prints a line for each check; fails if one of them found a problem.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let mut report = Report::default();
    match layers(global).and_then(|layers| Config::from_layers(&layers)) {
        Err(error) => report.problem(
            &format!("settings: {error}"),
            "Set it; `leadloop config --default` explains every setting.",
        ),
        Ok(config) => {
            report.good("settings: complete");
            check_server(&mut report, &args.server, &config).await;
            check_clock(&mut report, &config).await;
            for dataset in config.datasets.values() {
                check_dataset(&mut report, &config, dataset).await;
            }
            check_alarms(&mut report, &config);
            check_pages(&mut report, &config).await;
        }
    }
    print(&report.text)?;
    match report.problems {
        0 => Ok(()),
        problems => Err(Failure::new(Exit::Failure, format!("{problems} to be mended"))),
    }
}

/// The server, or the store if no server has it open.
async fn check_server(report: &mut Report, server: &Server, config: &Config) {
    match server.ready().await {
        Some(200) => report.good("server: runs, and can make leads durable"),
        Some(status) => report.problem(
            &format!("server: /readyz answers {status}; Meta gets 503 and repeats for 36 hours"),
            "See whether the disk is full, and what its log says.",
        ),
        None => {
            report.unknown("server: nobody answers; start it with `leadloop serve`");
            check_store(report, config).await;
        }
    }
}

async fn check_store(report: &mut Report, config: &Config) {
    let shown = config.store.shown();
    let (checked, advice) = match &config.store {
        StoreAddress::File(path) if !path.exists() => {
            return report.good(&format!("store: {shown} will be made at the first start"));
        }
        StoreAddress::File(path) => (
            RedbStore::open(path, Purpose::Live).map(drop),
            "Check LEADLOOP_STORE, the rights of the file, and who else runs.",
        ),
        StoreAddress::Database(url) => (
            PostgresStore::check(url).await,
            "Check LEADLOOP_STORE, the database's log, and the version of each instance.",
        ),
    };
    match checked {
        Ok(()) => report.good(&format!("store: {shown} can be opened")),
        Err(error) => report.problem(&format!("store: {shown}: {error}"), advice),
    }
}

/// Whether leads can be read with each Page's token, and whether the Page sends them to an app.
async fn check_pages(report: &mut Report, config: &Config) {
    if config.reading.tokens.is_empty() {
        return report.unknown(
            "subscription: only a Page's own token shows it; ask \
             GET /{page-id}/subscribed_apps with that, or set META_PAGE_ACCESS_TOKEN",
        );
    }
    let Ok(graph) = HttpGraph::new(&config.graph_base) else { return };
    for token in &config.reading.tokens {
        let page = token.page_id.map_or_else(|| "of the token".to_owned(), |id| id.to_string());
        let query = GraphQuery::subscribed_apps(token.page_id);
        match judge(graph.ask(&token.token, &query).await).map(|body| is_subscribed(&body)) {
            Ok(Ok(true)) => report.good(&format!("Page {page}: its leads are sent to an app")),
            Ok(Ok(false)) => report.problem(
                &format!("Page {page}: no app is told of its leads"),
                "Subscribe it: POST /{page-id}/subscribed_apps?subscribed_fields=leadgen.",
            ),
            Err(Trouble::Throttled { .. } | Trouble::Passing { .. }) => {
                report.unknown(&format!("Page {page}: Meta has no answer at the moment"));
            }
            Ok(Err(_)) | Err(Trouble::NotFound | Trouble::Denied(_) | Trouble::Refused) => report
                .problem(
                    &format!("Page {page}: the token can't see whether its leads are sent here"),
                    "Use a token of that Page; docs/guides/reading-leads.md names its rights.",
                ),
        }
    }
}

/// Whether somebody is told when something goes wrong.
fn check_alarms(report: &mut Report, config: &Config) {
    match &config.alarms.receiver {
        Some(receiver) => report
            .good(&format!("alarms: go to {}; `leadloop alarms test` tries it", receiver.origin())),
        None => report.unknown("alarms: nobody is told; set LEADLOOP_ALARM_URL, or watch /metrics"),
    }
}

/// This machine's clock against Meta's, which dates leads and judges events.
async fn check_clock(report: &mut Report, config: &Config) {
    let now = SystemClock.now().seconds();
    let answer = match http_client(&config.graph_base) {
        Ok(client) => client.get(&config.graph_base).send().await,
        Err(error) => Err(error),
    };
    let Ok(answer) = answer else {
        return report.problem(
            &format!("network: {} does not answer", config.graph_base),
            "Let this machine reach it over https, and check META_GRAPH_URL.",
        );
    };
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let Some(date) = date else { return report.unknown("clock: Meta's answer has no date") };
    let ahead_s = now.get() - date.timestamp().as_second();
    if ahead_s.abs() > i64::from(OWN_CLOCK_TOLERANCE_S) {
        report.problem(
            &format!("clock: {ahead_s} s ahead of Meta's"),
            "Let the machine keep its time by NTP: every event_time is judged by it.",
        );
    } else {
        report.good(&format!("clock: {ahead_s} s ahead of Meta's"));
    }
}

/// Whether the token can see its dataset, and whether that is one for CRM events.
async fn check_dataset(report: &mut Report, config: &Config, dataset: &Dataset) {
    let name = format!("dataset {}", dataset.id);
    let Ok(client) = http_client(&config.graph_base) else { return };
    let request = client
        .get(format!("{}/{}", config.graph_base, dataset.id))
        .query(&[("fields", "id,name,is_crm")])
        .bearer_auth(dataset.access_token.expose_secret());
    let Ok(response) = request.send().await else {
        return report.unknown(&format!("{name}: Meta does not answer"));
    };
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap_or_default();
    if status != 200 {
        let error = read_answer(status, &body).error.unwrap_or_default();
        let rule = find_rule(error.code, error.subcode);
        let meaning = rule
            .map_or("Meta refuses the token or does not know the dataset.", |rule| rule.meaning);
        let advice = rule.map_or("Look the code up in Meta's documentation.", |rule| rule.advice);
        let code = error.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        return report.problem(&format!("{name}: {meaning} (HTTP {status}, code {code})"), advice);
    }
    let is_crm = serde_json::from_slice::<Value>(&body).map(|body| body["is_crm"] == true);
    match is_crm {
        Ok(true) => report.good(&format!("{name}: the token holds it, and it is for CRM events")),
        _ => report.problem(
            &format!("{name}: the token holds it, and it is not for CRM events"),
            "Make a CRM dataset in Events Manager: events in another do not count as leads.",
        ),
    }
    if dataset.test_event_code.is_some() {
        report.problem(
            &format!("{name}: META_TEST_EVENT_CODE is set, and Meta counts test events"),
            "Unset it in production.",
        );
    }
}
