//! How many instructions the hot path takes: one delivery of one lead, and one look-up.
//!
//! `cargo bench --bench instructions` counts them with callgrind, which gives nearly the same count
//! whatever else the machine does, and fails where a count is a tenth above the one that is written
//! down in `benches/instructions.txt`. With `-- --write` it writes the counts there instead.
//!
//! The whole server is in it but for the sockets: the router, the signature, the parsing, the store
//! with its writer and the encoding of an answer. The store is in memory, because a disk counts no
//! instructions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use leadloop::app::{App, World};
use leadloop::clock::{MockClock, SeededRandom};
use leadloop::config::{Config, Dataset, Layers};
use leadloop::delivery::sink::EventSink;
use leadloop::delivery::verdict::NoAnswer;
use leadloop::domain::time::UnixSeconds;
use leadloop::meta::conversions::Answer;
use leadloop::meta::signature::{SIGNATURE_HEADER, sign};
use leadloop::store::StoreError;
use leadloop::store::redb::{Medium, Opening, Purpose, RedbStore};
use redb::backends::InMemoryBackend;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const COUNTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const WORKLOADS: [&str; 2] = ["delivery", "look-up"];
/// A workload is counted with so many repetitions and with more of them; the difference leaves out
/// what the start takes.
const REPETITIONS: [u64; 2] = [200, 700];
const PERCENT_MAX: u64 = 110;

const CREATED: i64 = 1_762_000_000;
const SECRET: &str = "app-secret";
const API_KEY: &str = "api-key";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", workload, repetitions, ..] => work(workload, repetitions),
        _ => count_all(arguments.iter().any(|argument| argument == "--write")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

// ---- Counting ---------------------------------------------------------------------------------

/// Counts each workload, and compares the counts with those that are written down, or writes them.
fn count_all(write: bool) -> anyhow::Result<()> {
    let expected = std::fs::read_to_string(COUNTS).unwrap_or_default();
    let expected: BTreeMap<&str, u64> = expected
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(workload, count)| Some((workload, count.parse().ok()?)))
        .collect();
    let (mut counts, mut regressed) = (String::new(), Vec::new());
    for workload in WORKLOADS {
        let count = count(workload)?;
        let before = expected.get(workload).copied();
        let share = before.map_or(String::new(), |before| {
            format!(", {} % of {before}", count * 100 / before.max(1))
        });
        println!("{workload}: {count} instructions{share}");
        writeln!(counts, "{workload} {count}")?;
        if before.is_none_or(|before| count * 100 > before * PERCENT_MAX) {
            regressed.push(workload);
        }
    }
    if write {
        return std::fs::write(COUNTS, counts).context("the counts can't be written");
    }
    ensure!(
        regressed.is_empty(),
        "more than {PERCENT_MAX} % of what is written down: {}; see to it, or write the counts \
         down with `cargo bench --bench instructions -- --write` and say why",
        regressed.join(", ")
    );
    Ok(())
}

/// Instructions of one repetition.
fn count(workload: &str) -> anyhow::Result<u64> {
    let [few, many] = REPETITIONS;
    Ok((count_run(workload, many)? - count_run(workload, few)?) / (many - few))
}

/// Instructions of a whole run.
fn count_run(workload: &str, repetitions: u64) -> anyhow::Result<u64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["work", workload, &repetitions.to_string()])
        .stdout(Stdio::null())
        .output()
        .context("valgrind can't be run; Debian's package is `valgrind`")?;
    let told = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.success(), "the run failed: {told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = collected.with_context(|| format!("callgrind told no count: {told}"))?;
    Ok(count.trim().parse()?)
}

// ---- What is counted --------------------------------------------------------------------------

/// Runs a workload, in the process that is counted.
fn work(workload: &str, repetitions: &str) -> anyhow::Result<()> {
    let repetitions: u64 = repetitions.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::start().await?;
        match workload {
            "delivery" => {
                for number in 0..repetitions {
                    server.deliver(number).await?;
                }
            }
            "look-up" => {
                let leads = REPETITIONS[0];
                for number in 0..leads {
                    server.deliver(number).await?;
                }
                for number in 0..repetitions {
                    server.look_up(number % leads).await?;
                }
            }
            _ => bail!("{workload} is no workload"),
        }
        Ok(())
    })
}

/// A server without sockets.
struct Server {
    router: Router,
    stop: CancellationToken,
}

impl Server {
    async fn start() -> anyhow::Result<Self> {
        let settings = format!(
            "meta_app_secret = \"{SECRET}\"\nmeta_verify_token = \"verify\"\n\
             meta_dataset_id = \"700\"\nmeta_access_token = \"token\"\napi_key = \"{API_KEY}\"\n"
        );
        let layers = Layers::read(&BTreeMap::new(), Some(&settings), &|_| Ok(String::new()))?;
        let config = Config::from_layers(&layers)?;
        let open = |_: Opening| -> Result<Arc<dyn Medium>, StoreError> {
            Ok(Arc::new(InMemoryBackend::new()))
        };
        let world = World {
            store: Arc::new(RedbStore::open_on(Purpose::Live, open)?),
            // The time stands still, so that nothing happens but what is counted.
            clock: Arc::new(MockClock::at(UnixSeconds::new(CREATED + 100).timestamp())),
            random: Arc::new(SeededRandom::new(1)),
        };
        let stop = CancellationToken::new();
        let (router, mut tasks) =
            App::build_on(config, world, Arc::new(Silent)).await?.start(&stop);
        tasks.detach_all();
        Ok(Self { router, stop })
    }

    async fn ask(&self, request: Request<Body>) -> anyhow::Result<()> {
        let answer = self.router.clone().oneshot(request).await?;
        ensure!(answer.status() == StatusCode::OK, "answered {}", answer.status());
        axum::body::to_bytes(answer.into_body(), 1 << 20).await?;
        Ok(())
    }

    async fn deliver(&self, number: u64) -> anyhow::Result<()> {
        let lead_id = lead_id(number);
        let body = format!(
            r#"{{"object":"page","entry":[{{"id":"138124712925158","time":{CREATED},"changes":[{{"value":{{"form_id":"172036835026334","leadgen_id":"{lead_id}","created_time":{CREATED},"page_id":"138124712925158"}},"field":"leadgen"}}]}}]}}"#
        );
        let request = Request::post("/webhooks/meta")
            .header("content-type", "application/json")
            .header(SIGNATURE_HEADER, sign(&SECRET.into(), body.as_bytes()))
            .body(body.into())?;
        self.ask(request).await
    }

    async fn look_up(&self, number: u64) -> anyhow::Result<()> {
        let request = Request::get(format!("/v1/leads/{}", lead_id(number)))
            .header("authorization", format!("Bearer {API_KEY}"))
            .body(Body::empty())?;
        self.ask(request).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Numbers in an order that looks random, as Meta's do to an index.
fn lead_id(number: u64) -> u64 {
    10_000_000_000_000_000 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 53)
}

/// A Conversions API that never answers, so that nothing more is sent meanwhile.
struct Silent;

#[async_trait]
impl EventSink for Silent {
    async fn send(&self, _: &Dataset, _: Vec<u8>) -> Result<Answer, NoAnswer> {
        std::future::pending().await
    }
}
