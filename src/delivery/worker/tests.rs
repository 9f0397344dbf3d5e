//! A worker on a scripted way to Meta: what it sends, when it looks again, what it writes down.

mod bench;

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use self::bench::{Bench, NOW, Outcome, add_lead, at, finished, lead_id, turn_until};
use crate::clock::Clock;
use crate::delivery::verdict::NoAnswer;
use crate::delivery::worker::Next;
use crate::limits::{RETRY_SCHEDULE_MS, SEND_BATCH_MAX, SEND_EVERY_MS};
use crate::store::Store;

const WEEK: i64 = 7 * 86_400;

/// Whether a wait is the one after so many failures in a row.
fn is_wait_after(failures: usize, wait_ms: i64) -> bool {
    let step_ms = RETRY_SCHEDULE_MS[failures.min(RETRY_SCHEDULE_MS.len()) - 1].cast_signed();
    (step_ms / 2..=step_ms).contains(&wait_ms)
}

// ---- When it looks again ----------------------------------------------------------------------

#[tokio::test]
async fn an_empty_queue_is_looked_at_again_in_five_seconds_or_when_it_grows() {
    let mut bench = Bench::new();
    assert_eq!(bench.step().await, Next::Idle(at(NOW + 5)));
    assert_eq!(bench.sink.bodies(), [Value::Null; 0]);
}

#[tokio::test]
async fn after_a_delivery_there_may_be_more_at_once() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    assert_eq!(bench.step().await, Next::Now);
    assert_eq!(bench.step().await, Next::Idle(at(NOW + 5)));
    assert_eq!(bench.states(1).await, ["initial_lead delivered 1"]);
}

#[tokio::test]
async fn requests_that_are_not_full_do_not_follow_each_other_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.step_and_company().await, None, "nothing was sent");
    bench.lead(1, NOW - 10).await;
    assert_eq!(bench.step_and_company().await, Some(SEND_EVERY_MS));
    assert_eq!(bench.step_and_company().await, None, "the next one goes out when it comes");
    for number in 2..=SEND_BATCH_MAX as u64 + 2 {
        bench.lead(number, NOW - 10).await;
    }
    assert_eq!(bench.step_and_company().await, None, "a full one");
    assert_eq!(bench.step_and_company().await, Some(SEND_EVERY_MS), "the last one");
}

#[tokio::test]
async fn an_event_that_falls_due_soon_is_looked_at_when_it_does() {
    let mut bench = Bench::new();
    bench.lead(1, NOW + 60).await;
    assert_eq!(bench.step().await, Next::Idle(at(NOW + 5)), "and no later than ever");
    bench.lead(2, NOW + 2).await;
    assert_eq!(bench.step().await, Next::Idle(at(NOW + 3)));
    bench.clock.advance_ms(3_000);
    assert_eq!(bench.step().await, Next::Now);
    assert_eq!(bench.sink.sent(), [["2 initial_lead"]]);
}

#[tokio::test]
async fn the_wait_grows_with_every_failure_up_to_its_last_step() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    for failures in 1..=RETRY_SCHEDULE_MS.len() + 2 {
        bench.sink.will([Outcome::Status(500)]);
        let wait_ms = bench.back_off().await;
        assert!(is_wait_after(failures, wait_ms), "{wait_ms} ms after {failures}");
        bench.clock.advance_ms(wait_ms);
    }
    assert_eq!(bench.states(1).await, ["initial_lead pending 12"]);
}

#[tokio::test]
async fn a_success_ends_the_count_of_failures() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    bench.sink.will([Outcome::Status(500), Outcome::Status(500), Outcome::Received]);
    bench.back_off().await;
    bench.back_off().await;
    assert_eq!(bench.step().await, Next::Now);
    bench.lead(2, NOW - 10).await;
    bench.sink.will([Outcome::Status(500)]);
    assert!(is_wait_after(1, bench.back_off().await));
}

#[tokio::test]
async fn every_outcome_that_is_no_success_is_a_failed_attempt() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    let outcomes = [
        Outcome::Status(200),
        Outcome::Status(400),
        Outcome::Lost(NoAnswer::NotConnected),
        Outcome::Lost(NoAnswer::TimedOut),
        Outcome::Lost(NoAnswer::Broken),
        Outcome::Lost(NoAnswer::TooLarge),
    ];
    bench.sink.will(outcomes.clone());
    for _ in &outcomes {
        bench.back_off().await;
    }
    assert_eq!(bench.states(1).await, ["initial_lead pending 6"]);
    assert!(bench.metrics.render().contains("{dataset=\"7\",outcome=\"failed\"} 6"));
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_is_looked_at_again_in_a_second() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    bench.store.fail_reads(3);
    for _ in 1..=3 {
        assert_eq!(bench.back_off().await, 1_000, "trouble of the store is not Meta's");
    }
    assert_eq!(bench.sink.bodies(), [Value::Null; 0]);
    assert_eq!(bench.step().await, Next::Now);
}

// ---- What it sends ----------------------------------------------------------------------------

#[tokio::test]
async fn a_request_carries_what_is_due_in_the_order_of_the_queue() {
    let mut bench = Bench::new();
    for (number, created) in [(1, NOW - 10), (2, NOW + 10), (3, NOW - 20)] {
        bench.lead(number, created).await;
    }
    bench.step().await;
    assert_eq!(bench.sink.sent(), [["3 initial_lead", "1 initial_lead"]]);
    let body = &bench.sink.bodies()[0];
    assert_eq!(body["test_event_code"], json!("TEST7"));
    assert_eq!(body["data"][0]["custom_data"]["lead_event_source"], json!("CRM of seven"));
}

#[tokio::test]
async fn a_failed_request_is_repeated_with_what_has_gathered() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    bench.sink.will([Outcome::Lost(NoAnswer::TimedOut)]);
    bench.back_off().await;
    bench.lead(2, NOW - 10).await;
    bench.step().await;
    let sent = bench.sink.sent();
    assert_eq!(sent, [vec!["1 initial_lead"], vec!["1 initial_lead", "2 initial_lead"]]);
    let bodies = bench.sink.bodies();
    assert_eq!(bodies[0]["data"][0], bodies[1]["data"][0], "the same to the letter");
}

#[tokio::test]
async fn a_long_queue_goes_out_in_full_requests() {
    let mut bench = Bench::new();
    for number in 0..=SEND_BATCH_MAX as u64 {
        bench.lead(number, NOW - 10).await;
    }
    assert_eq!((bench.step().await, bench.step().await), (Next::Now, Next::Now));
    let sizes: Vec<usize> = bench.sink.sent().iter().map(Vec::len).collect();
    assert_eq!(sizes, [SEND_BATCH_MAX, 1]);
}

#[tokio::test]
async fn what_expired_beside_good_events_is_given_up_and_the_good_ones_are_sent() {
    let mut bench = Bench::new();
    for (number, created) in [(1, NOW - WEEK + 30), (2, NOW - 10), (3, NOW - WEEK + 59)] {
        bench.lead(number, created).await;
    }
    assert_eq!((bench.step().await, bench.step().await), (Next::Now, Next::Now));
    assert_eq!(bench.sink.sent(), [["2 initial_lead"]]);
    assert_eq!(bench.states(1).await, ["initial_lead dead 0"]);
    assert_eq!(bench.states(2).await, ["initial_lead delivered 1"]);
    assert_eq!(bench.states(3).await, ["initial_lead dead 0"]);
    assert!(bench.metrics.render().contains("events_dead_total{reason=\"expired\"} 2"));
}

#[tokio::test]
async fn a_batch_of_nothing_but_expired_events_makes_no_request() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - WEEK + 30).await;
    assert_eq!(bench.step().await, Next::Now);
    assert_eq!(bench.step().await, Next::Idle(at(NOW + 5)));
    assert_eq!(bench.sink.bodies(), [Value::Null; 0]);
}

// ---- What it writes down ----------------------------------------------------------------------

#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_is_recorded_later_and_nothing_sent_meanwhile() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    bench.store.fail_settling(3);
    let (store, clock, sink) = (bench.store.clone(), bench.clock.clone(), bench.sink.clone());
    let step = tokio::spawn(async move {
        let next = bench.step().await;
        (bench, next)
    });
    for tries in 1..=3 {
        turn_until(|| store.settlings() == tries).await;
        bench::turn().await;
        assert!(!step.is_finished() && store.settlings() == tries, "it waits");
        clock.advance_ms(RETRY_SCHEDULE_MS[tries - 1].cast_signed());
    }
    let (mut bench, next) = finished(step).await;
    assert_eq!((next, sink.bodies().len()), (Next::Now, 1));
    assert_eq!(bench.states(1).await, ["initial_lead delivered 1"]);
    bench.step().await;
    assert_eq!(bench.sink.bodies().len(), 1);
}

#[tokio::test]
async fn a_worker_that_is_stopped_goes_on_recording_what_meta_took() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    bench.store.fail_settling(2);
    let (store, clock, stop) = (bench.store.clone(), bench.clock.clone(), bench.stop.clone());
    let ending = tokio::spawn(async move {
        bench.step().await;
        bench
    });
    turn_until(|| store.settlings() == 1).await;
    stop.cancel();
    clock.advance_ms(1_000);
    turn_until(|| store.settlings() == 2).await;
    clock.advance_ms(1_000);
    let bench = finished(ending).await;
    assert_eq!(bench.states(1).await, ["initial_lead delivered 1"]);
}

// ---- The loop ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_worker_with_nothing_to_do_ends_at_once_when_it_is_stopped() {
    let bench = Bench::new();
    let (store, stop) = (bench.store.clone(), bench.stop.clone());
    let worker = tokio::spawn(bench.run(Arc::default()));
    turn_until(|| store.reads() == 1).await;
    stop.cancel();
    finished(worker).await;
}

#[tokio::test]
async fn a_worker_that_backs_off_ends_at_once_when_it_is_stopped() {
    let bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    bench.sink.will([Outcome::Status(500)]);
    let (sink, stop) = (bench.sink.clone(), bench.stop.clone());
    let worker = tokio::spawn(bench.run(Arc::default()));
    turn_until(|| sink.bodies().len() == 1).await;
    stop.cancel();
    finished(worker).await;
}

#[tokio::test]
async fn it_waits_a_moment_after_a_request_that_had_room_for_more() {
    let bench = Bench::new();
    let (clock, sink, stop) = (bench.clock.clone(), bench.sink.clone(), bench.stop.clone());
    bench.lead(1, NOW - 10).await;
    let worker = tokio::spawn(bench.run(Arc::default()));
    turn_until(|| sink.bodies().len() == 1).await;
    turn_until(|| clock.pauses() == 1).await;
    stop.cancel();
    finished(worker).await;
}

#[tokio::test]
async fn a_request_that_is_under_way_is_finished_and_recorded_before_the_end() {
    let bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    let answer = Arc::new(Notify::new());
    bench.sink.will([Outcome::ReceivedAfter(answer.clone())]);
    let (store, sink, stop) = (bench.store.clone(), bench.sink.clone(), bench.stop.clone());
    let worker = tokio::spawn(bench.run(Arc::default()));
    turn_until(|| sink.bodies().len() == 1).await;
    stop.cancel();
    bench::turn().await;
    assert!(!worker.is_finished());
    answer.notify_one();
    finished(worker).await;
    assert_eq!(bench::states(&*store, 1, at(NOW)).await, ["initial_lead delivered 1"]);
}

#[tokio::test]
async fn a_call_ends_an_idle_wait_but_not_a_back_off() {
    let bench = Bench::new();
    let (clock, sink, stop) = (bench.clock.clone(), bench.sink.clone(), bench.stop.clone());
    let (store, wake) = (bench.store.clone(), Arc::new(Notify::new()));
    let worker = tokio::spawn(bench.run(wake.clone()));
    turn_until(|| store.reads() == 1).await;
    sink.will([Outcome::Status(500)]);
    bench::add_lead(&*store, 1, NOW - 10, clock.now()).await;
    wake.notify_one();
    turn_until(|| sink.bodies().len() == 1).await;
    wake.notify_one();
    bench::turn().await;
    assert_eq!(sink.bodies().len(), 1, "the back-off is not cut short");
    clock.advance_ms(RETRY_SCHEDULE_MS[0].cast_signed());
    turn_until(|| sink.bodies().len() == 2).await;
    stop.cancel();
    finished(worker).await;
}

#[tokio::test]
async fn a_worker_that_is_stopped_before_it_starts_does_nothing() {
    let bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    bench.stop.cancel();
    let sink = bench.sink.clone();
    finished(tokio::spawn(bench.run(Arc::default()))).await;
    assert_eq!(sink.bodies(), [Value::Null; 0]);
}

// ---- Refusals ---------------------------------------------------------------------------------

#[tokio::test]
async fn bad_events_in_a_row_do_not_hold_up_the_good_ones_behind_them() {
    let mut bench = Bench::new();
    let bad = 70;
    bench.sink.refuse(0..bad);
    for number in 0..bad {
        bench.lead(number, NOW - 3_600).await;
        bench.step().await;
    }
    for number in bad..bad + 20 {
        bench.lead(number, NOW - 3_600).await;
    }
    for _ in 0..12 {
        if let Next::BackOff(until) | Next::Idle(until) = bench.step().await {
            bench.clock.advance_ms(until.millis_since(bench.clock.now()));
        }
    }
    for number in bad..bad + 20 {
        let states = bench.states(number).await;
        assert!(states[0].starts_with("initial_lead delivered"), "{number}: {states:?}");
    }
    let requests = bench.sink.sent().len();
    assert!(requests < 600, "{requests} requests");
}

#[tokio::test]
async fn a_lead_that_is_erased_while_its_batch_is_taken_apart_is_not_sent_again() {
    let mut bench = Bench::new();
    for number in 1..=4 {
        bench.lead(number, NOW - 3_600).await;
    }
    let answer = Arc::new(Notify::new());
    bench.sink.will([Outcome::RefusedAfter(answer.clone())]);
    let (store, sink) = (bench.store.clone(), bench.sink.clone());
    let step = tokio::spawn(async move { bench.step().await });
    turn_until(|| sink.sent().len() == 1).await;
    store.erase_lead(lead_id(3), at(NOW)).await.unwrap();
    answer.notify_one();
    finished(step).await;
    let again = sink.sent()[1..].concat();
    assert_eq!(again, ["1 initial_lead", "2 initial_lead", "4 initial_lead"]);
}

#[tokio::test]
async fn an_urgent_event_shortens_the_wait_for_its_sake() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    for _ in 0..12 {
        bench.sink.will([Outcome::Status(500)]);
        bench.back_off().await;
    }
    bench.sink.will([Outcome::Status(500)]);
    bench.lead(2, NOW - WEEK + 300).await;
    assert_eq!(bench.back_off().await, 60_000, "it has five minutes left");
}

#[tokio::test]
async fn an_urgent_event_that_comes_during_a_wait_is_tried_within_two_minutes() {
    let mut bench = Bench::new();
    bench.lead(1, NOW - 10).await;
    bench.sink.will(vec![Outcome::Status(500); 13]);
    for _ in 0..12 {
        bench.back_off().await;
    }
    let (store, clock) = (bench.store.clone(), bench.clock.clone());
    let (sink, stop) = (bench.sink.clone(), bench.stop.clone());
    let worker = tokio::spawn(bench.run(Arc::default()));
    turn_until(|| sink.bodies().len() == 13).await;
    add_lead(&*store, 2, NOW - WEEK + 300, clock.now()).await;
    // The worker looks at deadlines once a minute, and tries within the next.
    for _ in 0..2 {
        clock.advance_ms(60_000);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    turn_until(|| sink.bodies().len() > 13).await;
    assert_eq!(sink.sent()[13], ["2 initial_lead", "1 initial_lead"]);
    stop.cancel();
    finished(worker).await;
}
