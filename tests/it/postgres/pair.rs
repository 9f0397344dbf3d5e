//! Two instances on one database, one of which is killed under load, again and again.
//!
//! Clients call both in turn, so what one instance was told the other one has to know.
//! `LEADLOOP_PG_KILLS=20 cargo test --test it postgres::pair -- --nocapture` kills 20 times.

use std::time::Duration;

use leadloop::clock::{Random as _, SeededRandom};
use leadloop::limits::LEASE;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::cluster::TestDatabase;
use super::times;
use crate::process::journal::Summary;
use crate::process::load::{SEED, World, run_of, stand_in};
use crate::process::program::{API_KEY, Place, Server, settings};

const KILLS_IN_CI: usize = 2;
/// Longest that another instance may take to send after the one that did was killed.
const TAKE_OVER_MAX: Duration = LEASE.saturating_mul(2);
/// Longest that all of it may take, and each kill on top.
const TIME_MAX: Duration = Duration::from_mins(1);
const KILL_MAX: Duration = Duration::from_secs(20);

/// Instances of the program, each run of which has a number by which it names itself as the CRM.
struct Instances {
    database: String,
    meta: String,
    places: [Place; 2],
    running: Vec<(usize, Server)>,
    runs: usize,
}

impl Instances {
    async fn start(database: &TestDatabase, meta: String) -> Self {
        let database = database.url().expose_secret().to_owned();
        let places = [Place::new(), Place::new()];
        let mut instances = Self { database, meta, places, running: Vec::new(), runs: 0 };
        for index in 0..2 {
            let server = instances.serve(index).await;
            instances.running.push(server);
        }
        instances
    }

    /// Starts the next run.
    async fn serve(&mut self, index: usize) -> (usize, Server) {
        let name = format!("run {}", self.runs);
        let with = [
            ("CRM_NAME", name.as_str()),
            ("META_GRAPH_URL", &self.meta),
            ("LEADLOOP_API_KEY", API_KEY),
            ("LEADLOOP_STORE", &self.database),
        ];
        let mut environment = settings(&["CRM_NAME"], with);
        environment.push(("LEADLOOP_LOG", "info"));
        self.runs += 1;
        (self.runs - 1, self.places[index].serve(&environment).await)
    }

    fn urls(&self) -> Vec<String> {
        self.running.iter().map(|(_, server)| server.url.clone()).collect()
    }
}

/// How long nothing was sent after the sender was killed.
type Gaps = Vec<Duration>;

/// Kills one of two instances, half of the time the one that sends, and starts it again.
async fn kill_one(
    instances: &mut Instances,
    world: &World,
    random: &SeededRandom,
    gaps: &mut Gaps,
) {
    let sender = world.meta.events().last().map(run_of);
    let wanted = instances.running.iter().position(|(run, _)| Some(*run) == sender);
    let choice = random.next_u64();
    let other = usize::try_from(choice / 2 % 2).unwrap();
    let index = wanted.filter(|_| choice.is_multiple_of(2)).unwrap_or(other);
    let (run, server) = &mut instances.running[index];
    let is_sender = Some(*run) == sender;
    server.program.kill();
    world.journal.lock().unwrap().killed.insert(*run);
    let (killed_at, taken) = (Instant::now(), world.meta.events().len());
    instances.running[index] = instances.serve(index).await;
    world.urls.send_replace(instances.urls());
    let sent_again = world.meta.wait_for_events(taken + 1);
    tokio::time::timeout(TAKE_OVER_MAX, sent_again).await.expect("somebody takes over");
    if is_sender {
        gaps.push(killed_at.elapsed());
    }
}

async fn check_after<C: Future<Output = ()> + Send + 'static>(
    kills: usize,
    client: fn(World) -> C,
) -> (Result<Summary, Vec<String>>, Gaps) {
    let database = TestDatabase::new().await;
    let (meta, meta_url) = stand_in().await;
    let (world, random) = (World::new(meta), SeededRandom::new(SEED));
    let mut gaps = Gaps::new();
    let test = async {
        let mut instances = Instances::start(&database, meta_url).await;
        world.urls.send_replace(instances.urls());
        let clients = world.start(client);
        for _ in 0..kills {
            world.moment(&random).await;
            kill_one(&mut instances, &world, &random, &mut gaps).await;
        }
        world.moment(&random).await;
        world.finish(clients).await;
        let checked = world.check(&instances.running[0].1.url).await;
        for (_, server) in instances.running {
            server.stop().await;
        }
        checked
    };
    let time_max = TIME_MAX + KILL_MAX * u32::try_from(kills).unwrap();
    let checked = tokio::time::timeout(time_max, test).await.expect("it takes too long");
    database.end().await;
    gaps.sort();
    (checked, gaps)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_of_two_instances_is_killed_nothing_is_lost_and_the_other_takes_over() {
    let kills = times("LEADLOOP_PG_KILLS", KILLS_IN_CI);
    let (checked, gaps) = check_after(kills, World::be_a_client).await;
    let summary = checked.unwrap_or_else(|faults| {
        panic!("seed {SEED}, {} faults:\n{}", faults.len(), faults.join("\n"))
    });
    println!("seed {SEED}, {kills} kills: {summary:#?}\nsending went on after {gaps:.1?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_that_count_as_answered_too_early_are_lost_when_an_instance_is_killed() {
    let (checked, _) = check_after(2, World::be_gullible).await;
    let faults = checked.expect_err("the check can fail");
    let lost = faults.iter().filter(|fault| fault.ends_with(" is lost")).count();
    println!("seed {SEED}, 2 kills: {lost} lost");
    assert!(lost > 0, "{faults:?}");
}
