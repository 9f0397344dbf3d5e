//! Several instances on one database: who migrates, who sends, and that nothing falls between them.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::domain::event::EventState;
use crate::domain::time::Timestamp;
use crate::limits::LEASE;
use crate::store::conformance::support::{
    NOBODY, all, at, attempt, dataset, ingest, lead, lead_id, listed, report, routing, settlement,
    timeline, update,
};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::tests::cluster::TestDatabase;
use crate::store::postgres::tests::faults::Planned;
use crate::store::query::LeadFilter;
use crate::store::{Batch, Intake, LeadOutcome, Purpose, Settlement, Store, StoreError};

async fn open(database: &TestDatabase, owner: u64) -> PostgresStore {
    PostgresStore::open(&database.url(), Purpose::Live, owner).await.unwrap()
}

async fn run(store: &PostgresStore, statement: &'static str) {
    sqlx::query(statement).execute(&store.database.pool).await.unwrap();
}

async fn batch(store: &PostgresStore, now: Timestamp) -> Batch {
    store.next_batch(dataset(1), now, 10, &NOBODY).await.unwrap()
}

#[tokio::test]
async fn instances_that_start_at_once_migrate_an_empty_database_once() {
    let database = TestDatabase::new().await;
    let mut starting = JoinSet::new();
    for owner in 1..=8 {
        let url = database.url();
        starting.spawn(async move { PostgresStore::open(&url, Purpose::Live, owner).await });
    }
    let opened = starting.join_all().await;
    let stores: Vec<PostgresStore> = opened.into_iter().map(Result::unwrap).collect();
    for (number, store) in (1..).zip(&stores) {
        assert_eq!(ingest(store, &[lead(number)]).await, [LeadOutcome::New]);
    }
    let leads = stores[0].list_leads(LeadFilter::default(), all(), at(9)).await.unwrap();
    assert_eq!(leads.items.len(), stores.len());
    drop(stores);
    database.end().await;
}

#[tokio::test]
async fn a_schema_that_is_newer_is_refused_and_left_alone() {
    let database = TestDatabase::new().await;
    let store = open(&database, 1).await;
    run(
        &store,
        "INSERT INTO _sqlx_migrations \
         (version, description, success, checksum, execution_time) VALUES (999, '', true, '', 0)",
    )
    .await;
    let refused = PostgresStore::open(&database.url(), Purpose::Live, 2).await.err().unwrap();
    let expected = "the database has schema 999 and this program knows 1";
    assert!(matches!(&refused, StoreError::Unsupported(it) if it.contains(expected)), "{refused}");
    drop(store);
    database.end().await;
}

#[tokio::test]
async fn an_instance_needs_no_right_to_change_the_schema() {
    let database = TestDatabase::new().await;
    drop(open(&database, 1).await);
    let guide = include_str!("../../../../docs/guides/postgresql.md");
    let grants = guide.lines().map(str::trim).filter(|line| line.starts_with("GRANT "));
    database.run("CREATE ROLE leadloop LOGIN").await;
    for grant in grants {
        database.run(grant).await;
    }
    let url = database.url().expose_secret().replace("//postgres@", "//leadloop@").into();
    let store = PostgresStore::open(&url, Purpose::Live, 2).await.unwrap();
    assert_eq!(ingest(&store, &[lead(1)]).await, [LeadOutcome::New]);
    let first = batch(&store, at(9)).await;
    let delivered = vec![first.events[0].entry];
    let sent = Settlement { delivered, ..settlement(Some(attempt(9, true)), 9) };
    store.settle(Settlement { hold: first.hold.unwrap(), ..sent }).await.unwrap();
    assert_eq!(timeline(&store, 1, at(9)).await, ["1 initial_lead delivered"]);
    sqlx::query("CREATE TABLE more ()").execute(&store.database.pool).await.unwrap_err();
    store.close().await;
    drop(store);
    database.run("DROP OWNED BY leadloop").await;
    database.run("DROP ROLE leadloop").await;
    database.end().await;
}

#[tokio::test]
async fn a_database_keeps_to_its_purpose() {
    let database = TestDatabase::new().await;
    drop(open(&database, 1).await);
    let refused = PostgresStore::open(&database.url(), Purpose::Sandbox, 2).await.err().unwrap();
    assert!(matches!(&refused, StoreError::Unsupported(it) if it.contains("holds live leads")));
    database.end().await;
}

#[tokio::test]
async fn the_events_of_a_dataset_are_sent_by_one_instance_until_that_gives_up() {
    let database = TestDatabase::new().await;
    let (one, two) = (open(&database, 1).await, open(&database, 2).await);
    ingest(&two, &[lead(1)]).await;
    let first = batch(&one, at(9)).await;
    assert_eq!(first.events.len(), 1);
    assert_eq!(batch(&two, at(9)).await, Batch::default(), "the other one leaves it alone");
    one.close().await;
    let hold = first.hold.unwrap();
    assert!(!hold.is_valid());
    assert_eq!(batch(&two, at(9)).await.events, first.events, "it is taken over at once");
    let stale = Settlement {
        delivered: vec![first.events[0].entry],
        hold,
        ..settlement(Some(attempt(9, true)), 9)
    };
    one.settle(stale).await.unwrap_err();
    assert_eq!(timeline(&two, 1, at(9)).await, ["1 initial_lead pending"]);
    drop((one, two));
    database.end().await;
}

#[tokio::test]
async fn what_an_instance_did_that_died_is_taken_over_in_seconds_and_not_before() {
    let database = TestDatabase::new().await;
    let (one, two) = (open(&database, 1).await, open(&database, 2).await);
    ingest(&two, &[lead(1)]).await;
    assert_eq!(batch(&one, at(9)).await.events.len(), 1);
    let died_at = Instant::now();
    drop(one);
    let taken_over = async {
        let mut looks = interval(Duration::from_millis(50));
        while batch(&two, at(9)).await.events.is_empty() {
            looks.tick().await;
        }
    };
    timeout(LEASE * 3, taken_over).await.unwrap();
    assert!(died_at.elapsed() > LEASE / 2, "{:?}", died_at.elapsed());
    drop(two);
    database.end().await;
}

#[tokio::test]
async fn a_duty_is_kept_for_as_long_as_it_is_renewed() {
    let database = TestDatabase::new().await;
    let (one, two) = (open(&database, 1).await, open(&database, 2).await);
    let hold = batch(&one, at(9)).await.hold.unwrap();
    let lost = timeout(LEASE + LEASE / 2, async {
        let mut looks = interval(Duration::from_millis(100));
        while batch(&two, at(9)).await.hold.is_none() {
            looks.tick().await;
        }
    });
    assert!(lost.await.is_err(), "the other instance got it");
    assert!(hold.is_valid());
    drop((one, two));
    database.end().await;
}

/// One instance hears of leads while the other one is told their stages, all at once; how many
/// stages were left waiting for a lead that is there.
async fn left_waiting_after_a_race(rounds: u64, is_serializable: bool) -> usize {
    let database = TestDatabase::new().await;
    let faults = Planned::default();
    if !is_serializable {
        faults.weaken();
    }
    let one = super::open(&database, 1, &faults).await;
    let two = super::open(&database, 2, &faults).await;
    for number in 1..=rounds {
        let intake = Intake { leads: vec![lead(number)], quarantined: Vec::new() };
        let (ingested, _) = tokio::join!(
            one.ingest(intake, at(5)),
            report(&two, update(number, "won", 60), at(70)),
        );
        assert_eq!(ingested.unwrap().outcomes, [LeadOutcome::New]);
    }
    let waiting = listed(&one, EventState::AwaitingLead, at(80)).await.len();
    drop((one, two));
    database.end().await;
    waiting
}

#[tokio::test]
async fn no_stage_waits_for_a_lead_that_came_to_another_instance_at_the_same_moment() {
    assert_eq!(left_waiting_after_a_race(60, true).await, 0);
}

/// The control: without serializable transactions the same race leaves stages behind.
#[tokio::test]
async fn weaker_transactions_would_leave_stages_behind() {
    let mut left = 0;
    for _ in 0..20 {
        left += left_waiting_after_a_race(60, false).await;
        if left > 0 {
            return;
        }
    }
    panic!("the race never happened, so the test of it proves nothing");
}

#[tokio::test]
async fn the_same_lead_that_comes_to_two_instances_at_once_is_stored_once() {
    let database = TestDatabase::new().await;
    let (one, two) = (open(&database, 1).await, open(&database, 2).await);
    for number in 1..=40 {
        let intake = || Intake { leads: vec![lead(number)], quarantined: Vec::new() };
        let (first, second) =
            tokio::join!(one.ingest(intake(), at(5)), two.ingest(intake(), at(5)));
        let mut outcomes = [first.unwrap().outcomes[0], second.unwrap().outcomes[0]];
        outcomes.sort_by_key(|outcome| *outcome != LeadOutcome::New);
        assert_eq!(outcomes, [LeadOutcome::New, LeadOutcome::Duplicate]);
    }
    assert_eq!(one.stats().await.unwrap().queued, 40);
    assert!(two.find_lead(lead_id(7)).await.unwrap().is_some());
    let answers = two.record_stage_updates(vec![update(7, "won", 60)], &routing(), at(70)).await;
    assert_eq!(answers.unwrap().enqueued.0.len(), 1);
    drop((one, two));
    database.end().await;
}
