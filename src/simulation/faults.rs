//! The fault table of delivery: each step of a delivery, and each way in which it can go wrong.
//!
//! A row says what goes wrong, whether events may be sent twice because of it, and what happens
//! then. The test makes every row happen to the real program and sees that the row is true, to the
//! letter: what may be sent twice is, and nothing else. Lost is nothing in any row. The table is
//! also the page `docs/reference/delivery-faults.md`, which a test keeps equal to it.

use std::fmt::Write as _;

use axum::http::Method;
use serde_json::json;

use crate::delivery::verdict::NoAnswer;
use crate::domain::customer::Customer;
use crate::domain::event::{DeadReason, SourcePolicy, StageUpdate, Standing};
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::UnixSeconds;
use crate::simulation::in_simulated_time;
use crate::simulation::input::{BEGIN, lead_id};
use crate::simulation::ledger::{WHOLE, told};
use crate::simulation::meta::{Course, Heard};
use crate::simulation::store_faults::StoreFault;
use crate::simulation::world::World;
use crate::store::Store;
use crate::store::query::EventFilter;

/// One way in which one step goes wrong.
struct Row {
    step: &'static str,
    fault: &'static str,
    injected: Injected,
    /// Whether events are sent twice because of it, with the same event ids.
    twice: bool,
    then: &'static str,
}

/// How a row is made to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Injected {
    /// To a request.
    Request(Course),
    /// To a call of the store.
    Store(&'static str, StoreFault),
    /// An event is queued that cannot be written as JSON.
    Unwritable,
    /// The program ends when everything is done.
    Crash,
}

use Injected::{Request, Store as AtStore};

const AGAIN: &str = "tries again, later and later, in the same order";
const REPEATS: &str = "nobody knows that Meta has the events: sends them again";
const RESTART: &str = "the next start finds the events in their queue, and sends them";
const RESTART_TWICE: &str = "the next start finds the events in their queue, and sends them again";
const KEEPS: &str = "keeps the outcome, records it as soon as it can, and sends nothing until then";
const ERROR: &str = r#"{"error":{"code":1}}"#;
const TOKEN: &str = r#"{"error":{"code":190}}"#;
const THROTTLE: &str = r#"{"error":{"code":4}}"#;
const ERROR_INSIDE: &str = r#"{"events_received":1,"error":{"code":2}}"#;

const fn course(judged_after_ms: Option<i64>, heard_after_ms: i64, heard: Heard) -> Injected {
    Request(Course { judged_after_ms, heard_after_ms, heard })
}

/// Meta took none of it.
const fn untaken(heard_after_ms: i64, heard: Heard) -> Injected {
    course(None, heard_after_ms, heard)
}

/// Meta took all of it.
const fn taken(heard_after_ms: i64, heard: Heard) -> Injected {
    course(Some(20), heard_after_ms, heard)
}

const fn row(
    (step, fault): (&'static str, &'static str),
    injected: Injected,
    twice: bool,
    then: &'static str,
) -> Row {
    Row { step, fault, injected, twice, then }
}

const READ: &str = "read the queue";
const BUILD: &str = "build the request";
const CONNECT: &str = "connect";
const SEND: &str = "send";
const META: &str = "Meta's processing";
const HEAD: &str = "the answer's head";
const BODY: &str = "the answer's body";
const RECORD: &str = "record";
const AFTER: &str = "after the record";

#[rustfmt::skip]
const ROWS: [Row; 37] = [
    row((READ, "fails"), AtStore("next_batch", StoreFault::Fails), false, "reads again in a second"),
    row((READ, "takes longer than a minute"), AtStore("next_batch", StoreFault::Slow(90_000)), false,
        "looks again at what is too old by now, and sends the rest"),
    row((READ, "the program ends"), AtStore("next_batch", StoreFault::CrashAfter), false, RESTART),
    row((BUILD, "an event cannot be written"), Injected::Unwritable, false,
        "finds the event, which is a dead letter, and sends the others"),
    row((CONNECT, "is refused"), untaken(3, Heard::Nothing(NoAnswer::NotConnected)), false, AGAIN),
    row((CONNECT, "takes longer than ten seconds"),
        untaken(10_000, Heard::Nothing(NoAnswer::NotConnected)), false, AGAIN),
    row((CONNECT, "the program ends"), untaken(2, Heard::Crash), false, RESTART),
    row((SEND, "is cut in the middle"), untaken(30, Heard::Nothing(NoAnswer::Broken)), false, AGAIN),
    row((SEND, "takes longer than thirty seconds"),
        untaken(30_000, Heard::Nothing(NoAnswer::TimedOut)), false, AGAIN),
    row((SEND, "the program ends"), untaken(30, Heard::Crash), false, RESTART),
    row((META, "fails"), untaken(50, Heard::Says(500, ERROR)), false, AGAIN),
    row((META, "fails after the events were accepted"), taken(50, Heard::Says(500, ERROR)), true,
        REPEATS),
    row((META, "refuses for now: too many calls"), untaken(50, Heard::Says(400, THROTTLE)), false,
        "waits as long as Meta asks, an hour at most"),
    row((META, "refuses for now: the token"), untaken(50, Heard::Says(401, TOKEN)), false,
        "pauses the dataset, and probes until it works"),
    row((META, "takes 25 seconds"), course(Some(25_000), 25_050, Heard::Truth), false, "waits"),
    row((META, "accepts the events after thirty seconds"),
        course(Some(45_000), 30_000, Heard::Nothing(NoAnswer::TimedOut)), true, REPEATS),
    row((META, "never ends"), untaken(30_000, Heard::Nothing(NoAnswer::TimedOut)), false, AGAIN),
    row((META, "the program ends, Meta goes on"), course(Some(60), 30, Heard::Crash), true,
        RESTART_TWICE),
    row((HEAD, "is lost after the events were accepted"),
        taken(50, Heard::Nothing(NoAnswer::Broken)), true, REPEATS),
    row((HEAD, "never comes, and the events were accepted"),
        taken(30_000, Heard::Nothing(NoAnswer::TimedOut)), true, REPEATS),
    row((HEAD, "has a wrong status, and the events were accepted"), taken(50, Heard::Says(404, "")),
        true, REPEATS),
    row((HEAD, "speaks of the token, and the events were accepted"),
        taken(50, Heard::Says(401, TOKEN)), true,
        "pauses the dataset, and sends the events again when a probe works"),
    row((HEAD, "the program ends"), taken(50, Heard::Crash), true, RESTART_TWICE),
    row((BODY, "is cut in the middle, and the events were accepted"),
        taken(50, Heard::Says(200, "{\"events_rec")), true, REPEATS),
    row((BODY, "is no JSON, and the events were accepted"), taken(50, Heard::Says(200, "<html>")),
        true, REPEATS),
    row((BODY, "is no JSON, and none were accepted"), untaken(50, Heard::Says(200, "<html>")),
        false, AGAIN),
    row((BODY, "holds an error, and the events were accepted"),
        taken(50, Heard::Says(200, ERROR_INSIDE)), true, REPEATS),
    row((BODY, "holds an error, and none were accepted"),
        untaken(50, Heard::Says(200, ERROR_INSIDE)), false, AGAIN),
    row((BODY, "counts one event less, and all were accepted"), taken(50, Heard::OneLess), true,
        REPEATS),
    row((BODY, "counts one event less, and none were accepted"), untaken(50, Heard::OneLess), false,
        AGAIN),
    row((BODY, "has no end, and the events were accepted"),
        taken(900, Heard::Nothing(NoAnswer::TooLarge)), true, REPEATS),
    row((RECORD, "fails"), AtStore("settle", StoreFault::Fails), false, KEEPS),
    row((RECORD, "fails after it was done"), AtStore("settle", StoreFault::FailsAfterwards), false,
        "records it once more, which changes nothing"),
    row((RECORD, "takes longer than a minute"), AtStore("settle", StoreFault::Slow(90_000)), false,
        "sends nothing until then"),
    row((RECORD, "the program ends before it is done"),
        AtStore("settle", StoreFault::CrashBefore), true, RESTART_TWICE),
    row((RECORD, "the program ends after it was done"), AtStore("settle", StoreFault::CrashAfter),
        false, "the next start finds the events delivered"),
    row((AFTER, "the program ends"), Injected::Crash, false,
        "the next start finds the events delivered"),
];

/// What can happen to a request, for the simulation.
pub(super) fn troubles() -> Vec<Course> {
    let courses = ROWS.iter().filter_map(|row| match row.injected {
        Request(course) => Some(course),
        _ => None,
    });
    courses.collect()
}

// ---- Making a row happen ----------------------------------------------------------------------

const LEADS: u64 = 3;
const STAGES: [&str; 3] = ["qualified", "proposal", "won"];

/// How a row ended.
#[derive(Debug)]
struct Outcome {
    faults: Vec<String>,
    delivered: usize,
    dead: Vec<DeadReason>,
    times_taken_max: u64,
}

/// Makes a row happen to the first request, which is of one event, or to the second, of many.
async fn happen(row: &Row, to_second: bool, sink_loses: bool) -> Outcome {
    let mut world = World::new(7, false, false);
    world.datasets = [1].into();
    if sink_loses {
        world.meta.lose_what_is_confirmed();
    }
    world.start().await;
    if !to_second {
        inject(&mut world, row).await;
    }
    world.tell_of_lead_of(301, 1).await;
    world.pass_ms(60).await;
    // These come while the first request is under way, and go together into the second.
    for number in 2..=LEADS {
        world.tell_of_lead_of(301, number).await;
    }
    for stage in STAGES {
        for number in 1..=LEADS {
            report(&mut world, number, stage).await;
        }
    }
    if to_second {
        inject(&mut world, row).await;
    }
    world.pass_ms(2 * 3_600_000).await;
    if row.injected == Injected::Crash {
        world.crash().await;
    }
    world.revive().await;
    world.pass_ms(3_600_000).await;
    world.check();
    outcome(&world)
}

async fn inject(world: &mut World, row: &Row) {
    match row.injected {
        Request(course) => world.meta.script([course]),
        AtStore(method, fault) => world.store_faults.script(method, fault),
        Injected::Unwritable => world.queue(unwritable()).await,
        Injected::Crash => {}
    }
}

/// An update that the door does not let in; it is about a lead that is told of later.
fn unwritable() -> StageUpdate {
    StageUpdate {
        lead: lead_id(LEADS).into(),
        stage: StageName::parse("unwritable").unwrap(),
        event_time: Some(UnixSeconds::new(BEGIN)),
        came_at: None,
        source: SourceName::unnamed_crm(),
        idempotency_key: None,
        customer: Customer::default(),
        custom_data: Some("no JSON".into()),
        policy: SourcePolicy::default(),
    }
}

async fn report(world: &mut World, number: u64, stage: &str) {
    let update = json!({"lead_id": lead_id(number).to_string(), "stage": stage});
    world.api(Method::POST, "/v1/stage-updates", Some(update), |_, _, _| {}).await;
}

fn outcome(world: &World) -> Outcome {
    let model = world.ledger.model();
    let events = told(model.list_events(EventFilter::default(), WHOLE, world.now())).items;
    let delivered = world.delivered();
    let pages = world.ledger.open();
    let dead = events.iter().filter_map(|detail| match detail.standing {
        Standing::Dead { reason, .. } => Some(reason),
        _ => None,
    });
    let times_taken = events.iter().map(|detail| pages.times_taken(detail.event.id()));
    Outcome {
        faults: pages.faults.clone(),
        delivered,
        dead: dead.collect(),
        times_taken_max: times_taken.max().unwrap_or_default(),
    }
}

// ---- The tests --------------------------------------------------------------------------------

#[test]
fn each_row_of_the_fault_table_is_true() {
    for row in &ROWS {
        for to_second in [false, true] {
            let name = format!("{}: {}, to the second: {to_second}", row.step, row.fault);
            let ended = in_simulated_time(happen(row, to_second, false));
            assert_eq!(ended.faults, [""; 0], "{name}");
            let all = usize::try_from(LEADS).unwrap() * (1 + STAGES.len());
            assert_eq!(ended.delivered, all, "{name}: {ended:?}");
            let is_unwritable = row.injected == Injected::Unwritable;
            assert_eq!(ended.dead.len(), usize::from(is_unwritable), "{name}: {ended:?}");
            assert_eq!(ended.times_taken_max, if row.twice { 2 } else { 1 }, "{name}");
        }
    }
}

#[test]
fn a_sink_that_loses_what_it_confirms_makes_every_row_fail() {
    for row in &ROWS {
        let ended = in_simulated_time(happen(row, true, true));
        assert_ne!(ended.faults, [""; 0], "{}: {}", row.step, row.fault);
    }
}

/// The table as a page of the documentation.
fn page() -> String {
    let mut page = String::from(
        "# What can go wrong on the way to Meta\n\n\
         Made from the table in `src/simulation/faults.rs`. A test makes every row happen to the \
         first and to the second of two requests, and sees that it is true: everything arrives, \
         the events of a lead in their order, and nothing is taken twice but where it says so, \
         under the same event id. Nothing is lost in any row.\n\n\
         | step | what goes wrong | sent twice | what leadloop does |\n| --- | --- | --- | --- |\n",
    );
    for Row { step, fault, twice, then, .. } in &ROWS {
        let twice = if *twice { "yes" } else { "no" };
        writeln!(page, "| {step} | {fault} | {twice} | {then} |").unwrap();
    }
    page.push_str(
        "\nEvents are sent twice in one case only: Meta has accepted them, and its answer or the \
         record of it is lost.\n",
    );
    page
}

#[test]
fn the_page_of_the_documentation_is_the_fault_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/delivery-faults.md");
    if std::env::var_os("LEADLOOP_WRITE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, page(), "write it anew with LEADLOOP_WRITE_DOCS=1 cargo test the_page_of");
}
