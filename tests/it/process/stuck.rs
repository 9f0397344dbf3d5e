//! How much slower a thousand stuck clients make the program for one that wants something.
//!
//! It prints and never judges: time on a machine that others use proves nothing by itself. That
//! stuck clients are answered around, and let go, is tested in `door`.
//! `LEADLOOP_STUCK_ROUNDS=30 cargo test --release --test it stuck_clients_cost -- --nocapture`

use std::time::Duration;

use leadloop::clock::{Clock, SystemClock};
use leadloop::domain::ids::{FormId, LeadId, PageId};
use leadloop::meta::signature::{SIGNATURE_HEADER, sign};
use leadloop::sandbox::trigger::{SampleLead, webhook_body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::program::{APP_SECRET, Place, settings, within};
use crate::support::stuck::{Stuck, stuck_clients};

/// Requests of each kind in a round.
const REQUESTS: usize = 200;
/// Requests before them that are not counted.
const UNTIMED: usize = 50;
/// Nobody around; a thousand stuck clients; nobody again, which shows what is noise.
const ARMS: [&str; 3] = ["alone", "with stuck clients", "alone again"];

/// How long requests took in one arm: webhooks, which wait for the disk, and health checks.
type Times = [Vec<Duration>; 2];

/// A legitimate client, with one connection that stays open.
struct Client {
    stream: TcpStream,
    next_lead: u64,
}

impl Client {
    /// Sends a request, and answers with the time to its answer, which must be a 200.
    async fn time(&mut self, request: &str) -> Duration {
        let started = Instant::now();
        within(self.stream.write_all(request.as_bytes())).await.unwrap();
        let mut answer = [0; 1_024];
        // Both answers are a head and `ok`, in one packet.
        let length = within(self.stream.read(&mut answer)).await.unwrap();
        let answer = &answer[..length];
        let whole = answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"\r\n\r\nok");
        assert!(whole, "{}", answer.escape_ascii());
        started.elapsed()
    }

    /// A delivery of a lead that was never told of before.
    fn webhook(&mut self) -> String {
        self.next_lead += 1;
        let body = webhook_body(&[SampleLead {
            lead_id: LeadId::from_u64(self.next_lead).unwrap(),
            page_id: PageId::from_u64(300).unwrap(),
            form_id: FormId::from_u64(17).unwrap(),
            created_time: SystemClock.now().seconds(),
        }]);
        let signature = sign(&APP_SECRET.into(), body.as_bytes());
        let length = body.len();
        format!(
            "POST /webhooks/meta HTTP/1.1\r\nHost: x\r\n{SIGNATURE_HEADER}: {signature}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    }

    /// Asks without taking the time, until whatever was begun before is over, and then with it.
    async fn round(&mut self, times: &mut Times) {
        for number in 0..UNTIMED + REQUESTS {
            let webhook = self.webhook();
            let took = self.time(&webhook).await;
            let took = [took, self.time("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await];
            if number >= UNTIMED {
                times.iter_mut().zip(took).for_each(|(times, took)| times.push(took));
            }
        }
    }
}

/// The time that so many of a thousand requests did not exceed.
fn quantile(times: &[Duration], of_1000: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[(sorted.len() * of_1000 / 1_000).min(sorted.len() - 1)]
}

#[tokio::test]
async fn what_stuck_clients_cost_a_legitimate_one_is_printed() {
    let rounds = std::env::var_os("LEADLOOP_STUCK_ROUNDS");
    let rounds: usize = rounds.map_or(1, |number| number.to_str().unwrap().parse().unwrap());
    let place = Place::new();
    // Nobody listens there: what is measured is the door.
    let world =
        [("META_GRAPH_URL", "http://127.0.0.1:9"), ("LEADLOOP_LOG", "error,leadloop::cli=info")];
    let server = place.serve(&settings(&[], world)).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let stream = TcpStream::connect(&address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut client = Client { stream, next_lead: 36_795_652_870_078_001 };
    client.round(&mut Times::default()).await;
    let count = stuck_clients();
    let mut arms: [Times; 3] = Default::default();
    let mut held = usize::MAX;
    for round in 0..rounds {
        // Each arm is first, second and last as often as the others.
        for arm in (0..ARMS.len()).map(|place| (round + place) % ARMS.len()) {
            if ARMS[arm] != "with stuck clients" {
                client.round(&mut arms[arm]).await;
                continue;
            }
            let mut stuck = Stuck::connect(&address, count).await;
            client.round(&mut arms[arm]).await;
            held = held.min(stuck.held());
        }
    }
    println!("{rounds} rounds of {REQUESTS} requests; at least {held} of {count} stuck all along");
    for (kind, name) in ["webhook", "healthz"].into_iter().enumerate() {
        for (arm, times) in ARMS.iter().zip(&arms) {
            let [p50, p99] = [500, 990].map(|of_1000| quantile(&times[kind], of_1000));
            let ratio = p99.as_secs_f64() / quantile(&arms[0][kind], 990).as_secs_f64();
            println!("{name:8} {arm:20} p50 {p50:>9.1?}  p99 {p99:>9.1?}  p99 ratio {ratio:.2}");
        }
    }
    server.stop().await;
}
