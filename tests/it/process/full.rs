//! A file system that is really full, under the real program: Meta is answered 503 and nothing is
//! half-stored, look-ups go on, and when there is space again the same process serves again.
//!
//! Mounting a small file system takes root or user namespaces. What a machine does not allow is
//! said on stderr, and is not tested there.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use leadloop::clock::{Clock, SystemClock};
use leadloop::domain::ids::{FormId, LeadId, PageId};
use leadloop::sandbox::trigger::{SampleLead, deliver, webhook_body};
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::time::Instant;

use super::program::{API_KEY, APP_SECRET, Place, Server, settings, within};

const TMPFS: &str = "mount -t tmpfs -o size=32m tmpfs small";
const EXT4: &str = "truncate -s 40M image && mkfs.ext4 -q -m 0 image && mount -o loop image small";
/// Leads of one delivery.
const LEADS: u64 = 25;
/// Deliveries that are sent at the same time.
const AT_ONCE: usize = 8;
/// Deliveries after which the disk must have been noticed to be full.
const DELIVERIES_MAX: usize = 4_000;
/// Longest from free space to the first 200.
const HEALED_MAX: Duration = Duration::from_secs(5);

/// A small file system. It lies in a mount namespace of the process that holds it, so it is gone
/// with that process, and is reached through it.
pub(super) struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts it, if the machine allows that.
    pub(super) fn mount(place: &Place, how: &str) -> Option<Self> {
        std::fs::create_dir(place.path("small")).unwrap();
        let script = format!("PATH=$PATH:/usr/sbin:/sbin; {how} && echo mounted && exec cat");
        // As root, or as the root of a user namespace.
        ["-m", "-Urm"].into_iter().find_map(|namespaces| {
            let mut command = Command::new("unshare");
            command.args([namespaces, "sh", "-c", &script]).current_dir(place.path(""));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut holder = command.spawn().ok()?;
            let mut said = String::new();
            BufReader::new(holder.stdout.take()?).read_line(&mut said).ok()?;
            let inside = place.path("small");
            let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
            let folder = root.join(inside.strip_prefix("/").unwrap());
            let disk = Self { holder, folder };
            (said == "mounted\n").then_some(disk)
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Leaves not a byte free.
    fn fill(&self) {
        let mut ballast = File::create(self.path("ballast")).unwrap();
        for size in [64 * 1024, 4 * 1024, 1] {
            while ballast.write_all(&vec![1; size]).and_then(|()| ballast.sync_all()).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A delivery of several leads.
struct Delivery(Vec<SampleLead>);

impl Delivery {
    fn number(number: u64) -> Self {
        let first = 36_795_652_870_070_000 + number * LEADS;
        let lead = |number| SampleLead {
            lead_id: LeadId::from_u64(number).unwrap(),
            page_id: PageId::from_u64(300).unwrap(),
            form_id: FormId::from_u64(17).unwrap(),
            created_time: SystemClock.now().seconds() + -60,
        };
        Self((first..first + LEADS).map(lead).collect())
    }

    /// Sends it, and answers with the status and how long that took.
    async fn send(&self, client: &Client, server: &Server) -> (u16, Duration) {
        let (address, started) = (format!("{}/webhooks/meta", server.url), Instant::now());
        let secret = APP_SECRET.into();
        let sending = deliver(client, &address, &secret, webhook_body(&self.0));
        (within(sending).await.unwrap(), started.elapsed())
    }

    /// How many of its leads are stored, each with its raw-lead event.
    async fn stored(&self, client: &Client, server: &Server) -> u64 {
        let mut stored = 0;
        for lead in &self.0 {
            let url = format!("{}/v1/leads/{}", server.url, lead.lead_id);
            let found = within(client.get(url).bearer_auth(API_KEY).send()).await.unwrap();
            assert!([200, 404].contains(&found.status().as_u16()), "{found:?}");
            if found.status() == 200 {
                let found: Value = found.json().await.unwrap();
                assert_eq!(found["events"].as_array().unwrap().len(), 1, "{found}");
                stored += 1;
            }
        }
        stored
    }
}

/// What was answered to deliveries.
struct Answered {
    client: Client,
    /// 200.
    taken: Vec<Delivery>,
    /// 503.
    refused: Vec<Delivery>,
    slowest_refusal: Duration,
    sent: u64,
}

impl Answered {
    fn new() -> Self {
        Self {
            client: leadloop::client::http_client("http://127.0.0.1").unwrap(),
            taken: Vec::new(),
            refused: Vec::new(),
            slowest_refusal: Duration::ZERO,
            sent: 0,
        }
    }

    /// Sends some new deliveries at the same time.
    async fn burst(&mut self, server: &Server) {
        let numbers = self.sent..self.sent + AT_ONCE as u64;
        self.sent = numbers.end;
        let deliveries: Vec<Delivery> = numbers.map(Delivery::number).collect();
        let sending = deliveries.iter().map(|delivery| delivery.send(&self.client, server));
        let answers = join_all(sending).await;
        for (delivery, (status, took)) in deliveries.into_iter().zip(answers) {
            match status {
                200 => self.taken.push(delivery),
                503 => {
                    self.refused.push(delivery);
                    self.slowest_refusal = self.slowest_refusal.max(took);
                }
                other => panic!("answered {other}"),
            }
        }
    }

    /// Sees that what was taken is there, and of what was refused all or nothing.
    async fn check(&self, server: &Server) {
        for delivery in &self.taken {
            assert_eq!(
                delivery.stored(&self.client, server).await,
                LEADS,
                "answered 200, and lost"
            );
        }
        for delivery in &self.refused {
            let stored = delivery.stored(&self.client, server).await;
            assert!([0, LEADS].contains(&stored), "{stored} of {LEADS} are stored");
        }
        let never_sent = Delivery::number(1_000_000);
        assert_eq!(never_sent.stored(&self.client, server).await, 0, "the check can fail");
    }
}

async fn ready(server: &Server) -> u16 {
    server.ask(Method::GET, "/readyz", "", "").await.0
}

/// Fills the disk under a server, and frees it again.
async fn run(kind: &str, how: &str) {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, how) else {
        eprintln!("NOT RUN: a full {kind}: this machine does not let the test mount one");
        return;
    };
    let meta = place.sandbox(&settings(&[], [])).await;
    let store = disk.path("leadloop.redb").to_str().unwrap().to_owned();
    let with = [("META_GRAPH_URL", meta.url.as_str()), ("LEADLOOP_API_KEY", API_KEY)];
    let mut environment = settings(&[], with);
    environment.push(("LEADLOOP_STORE", &store));
    let mut server = place.serve(&environment).await;
    let mut answered = Answered::new();
    answered.burst(&server).await;
    assert!(answered.refused.is_empty());

    disk.fill();
    while answered.refused.is_empty() {
        assert!(answered.sent < DELIVERIES_MAX as u64, "the disk is not noticed to be full");
        answered.burst(&server).await;
    }
    let taken = answered.taken.len();
    for _ in 0..4 {
        answered.burst(&server).await;
    }
    assert_eq!(answered.taken.len(), taken, "once full, it is full for everybody");
    assert_eq!(ready(&server).await, 503);
    for delivery in &answered.taken {
        assert_eq!(delivery.stored(&answered.client, &server).await, LEADS, "look-ups go on");
    }

    disk.free();
    let freed = Instant::now();
    while answered.taken.len() == taken {
        assert!(freed.elapsed() < HEALED_MAX, "it does not serve again");
        answered.burst(&server).await;
    }
    let healed = freed.elapsed();
    assert_eq!(ready(&server).await, 200);
    println!(
        "{kind}: {} deliveries taken, {} refused, the slowest in {} ms; served again after {} ms",
        answered.taken.len(),
        answered.refused.len(),
        answered.slowest_refusal.as_millis(),
        healed.as_millis(),
    );
    answered.check(&server).await;
    server.program.kill();
    let server = place.serve(&environment).await;
    answered.check(&server).await;
    for delivery in &answered.refused {
        let client = &answered.client;
        assert_eq!(delivery.send(client, &server).await.0, 200, "Meta sends it again");
        assert_eq!(delivery.stored(client, &server).await, LEADS);
    }
    for delivery in [answered.taken.first(), answered.refused.last()].into_iter().flatten() {
        let lead_id = delivery.0[0].lead_id.to_string();
        assert_eq!(server.settled_timeline(&lead_id, API_KEY).await, ["initial_lead delivered"]);
    }
    server.stop().await;
    meta.stop().await;
}

#[tokio::test]
async fn a_full_tmpfs_loses_nothing_and_is_served_from_again_when_there_is_space() {
    run("tmpfs", TMPFS).await;
}

#[tokio::test]
async fn a_full_ext4_loses_nothing_and_is_served_from_again_when_there_is_space() {
    run("ext4", EXT4).await;
}
