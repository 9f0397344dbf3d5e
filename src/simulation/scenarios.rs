//! Runs that are told step by step.

use axum::http::Method;
use serde_json::json;

use crate::delivery::verdict::NoAnswer;
use crate::simulation::in_simulated_time;
use crate::simulation::input::{dataset_id, lead_id};
use crate::simulation::meta::{Course, Heard};
use crate::simulation::world::World;

const MINUTE: i64 = 60 * 1_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

const fn course(heard_after_ms: i64, heard: Heard) -> Course {
    Course { judged_after_ms: None, heard_after_ms, heard }
}

#[test]
fn a_dataset_that_hangs_costs_its_own_worker_only() {
    for hang in [Heard::Never, Heard::Nothing(NoAnswer::TimedOut)] {
        in_simulated_time(async {
            let mut world = World::new(7, false, false);
            world.meta.set_weather(dataset_id(2), Some(course(30_000, hang)));
            world.start().await;
            for number in 1..=20 {
                world.tell_of_lead_of(302, number).await;
                world.tell_of_lead_of(301, 100 + number).await;
                world.pass_ms(1_000).await;
                let so_far = usize::try_from(number).unwrap();
                assert_eq!(world.delivered(), so_far, "each within a second, beside the other");
            }
            world.meta.set_weather(dataset_id(2), None);
            world.stop().await;
            world.start().await;
            world.pass_ms(MINUTE).await;
            assert_eq!(world.delivered(), 40, "the other goes on when it is answered again");
            world.check();
            assert_eq!(world.ledger.open().faults, [""; 0]);
        });
    }
}

#[test]
fn a_clock_that_is_set_back_parks_a_dataset_for_an_hour_at_most() {
    in_simulated_time(async {
        let mut world = World::new(7, false, false);
        world.set_clock(3 * DAY);
        world.meta.set_weather(dataset_id(1), Some(course(50, Heard::Says(503, ""))));
        world.start().await;
        world.tell_of_lead_of(301, 1).await;
        world.pass_ms(2 * HOUR).await;
        world.meta.set_weather(dataset_id(1), None);
        world.set_clock(0);
        world.pass_ms(HOUR + 10 * MINUTE).await;
        assert_eq!(world.delivered(), 1);
    });
}

#[test]
fn a_clock_that_is_set_back_does_not_prolong_the_doubt_about_a_refused_event() {
    in_simulated_time(async {
        let mut world = World::new(7, false, false);
        world.set_clock(3 * DAY);
        world.start().await;
        world.meta.disown(lead_id(1), None);
        world.tell_of_lead_of(301, 1).await;
        world.tell_of_lead_of(301, 2).await;
        world.pass_ms(MINUTE).await;
        world.set_clock(0);
        world.pass_ms(HOUR).await;
        assert_eq!((world.delivered(), world.pending()), (1, Vec::new()));
    });
}

#[test]
fn no_event_overtakes_one_of_its_lead_that_meta_refused_for_now_in_the_same_batch() {
    in_simulated_time(async {
        let mut world = World::new(7, false, false);
        let slow =
            Course { judged_after_ms: Some(100), heard_after_ms: 3_000, heard: Heard::Truth };
        let down = course(3, Heard::Nothing(NoAnswer::NotConnected));
        world.meta.set_weather(dataset_id(1), Some(down));
        world.start().await;
        world.tell_of_lead_of(301, 1).await;
        world.tell_of_lead_of(301, 2).await;
        let won = json!({"lead_id": lead_id(1).to_string(), "stage": "won"});
        world.api(Method::POST, "/v1/stage-updates", Some(won), |_, _, _| {}).await;
        world.tell_of_lead_of(301, 3).await;
        world.meta.set_weather(dataset_id(1), Some(slow));
        // Meta gets to know the first lead after it refused all four, the first two, and the first.
        let until = world.now().plus_millis(9_000);
        world.meta.disown(lead_id(1), Some(until));
        for _ in 0..60 {
            world.pass_ms(1_000).await;
        }
        assert_eq!(world.delivered(), 4);
        assert_eq!(world.ledger.open().faults, [""; 0]);
    });
}

#[test]
fn a_lead_whose_erasure_was_answered_by_a_power_cut_may_be_gone() {
    let (mut gone, mut unsure) = (0, 0);
    for (operations, seed) in (0..4).flat_map(|it| (0..16).map(move |seed| (it, seed))) {
        in_simulated_time(async {
            let mut world = World::new(seed, false, false);
            world.start().await;
            world.tell_of_lead_of(301, 1).await;
            world.pass_ms(MINUTE).await;
            let path = format!("/v1/leads/{}", lead_id(1));
            world.cut_after(operations);
            world.api(Method::DELETE, &path, None, |_, _, _| {}).await;
            world.pass_ms(MINUTE).await;
            world.check();
            let faults = world.ledger.open().faults.clone();
            assert_eq!(faults, [""; 0], "after {operations} operations, seed {seed}");
            gone += usize::from(world.delivered() == 0);
            unsure += world.ledger.open().tally.unsure;
        });
    }
    println!("{gone} of 64 erased, {unsure} of them without an answer");
    assert!((1..64).contains(&gone) && unsure > 0, "{gone} {unsure}");
}

#[test]
fn a_stage_that_was_reported_before_its_record_was_linked_is_sent_once_and_for_the_right_lead() {
    in_simulated_time(async {
        let mut world = World::new(7, false, false);
        world.start().await;
        world.tell_of_lead_of(301, 1).await;
        world.pass_ms(MINUTE).await;
        let now_s = world.now().seconds().get();
        let won = json!({"crm_id": "r1", "stage": "won", "event_time": now_s});
        let report = || Some(won.clone());
        world.api(Method::POST, "/v1/stage-updates", report(), |_, _, _| {}).await;
        world.pass_ms(MINUTE).await;
        assert_eq!(world.delivered(), 1);
        let path = format!("/v1/leads/{}/crm-ids/crm/r1", lead_id(1));
        world.api(Method::PUT, &path, None, |_, _, _| {}).await;
        world.api(Method::POST, "/v1/stage-updates", report(), |_, _, _| {}).await;
        let by_id = json!({"lead_id": lead_id(1).to_string(), "stage": "won", "event_time": now_s});
        world.api(Method::POST, "/v1/stage-updates", Some(by_id), |_, _, _| {}).await;
        world.pass_ms(MINUTE).await;
        world.check();
        assert_eq!(world.ledger.open().faults, [""; 0]);
        assert_eq!(world.delivered(), 2);
    });
}
