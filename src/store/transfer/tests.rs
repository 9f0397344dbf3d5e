//! A copy answers what the store answered that it was made of, whatever was done to that, and
//! whatever is done to both afterwards.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::stage::SourceName;
use crate::store::conformance::support::{at, ingest, lead};
use crate::store::postgres::tests::cluster::TestDatabase;
use crate::store::postgres::tests::faults::Planned;
use crate::store::postgres::{DatabaseSource, DatabaseTarget, PostgresStore};
use crate::store::redb::tests::model::{Step, everything, filtered, step, take};
use crate::store::redb::tests::script::script;
use crate::store::redb::{FileSource, RedbStore};
use crate::store::{Store, Unmapped};

const RANDOM: u64 = 5;
const OWNER: u64 = 9;

/// A folder for files, and a database.
struct Places {
    folder: TempDir,
    database: TestDatabase,
}

impl Places {
    async fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), database: TestDatabase::new().await }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.database.url(), Purpose::Live, OWNER).await.unwrap()
    }

    /// Makes the last instance on the database one of long ago.
    async fn rest(&self, store: PostgresStore) {
        store.close().await;
        drop(store);
        self.run("UPDATE instances SET seen_at = now() - interval '2 minutes'").await;
    }

    async fn run(&self, statement: &'static str) {
        self.database.run(statement).await;
    }
}

fn open(path: &Path) -> RedbStore {
    RedbStore::open(path, Purpose::Live).unwrap()
}

/// Copies with nobody looking on.
async fn copy_quietly(from: Place<'_>, to: Place<'_>) -> Result<Inventory, CopyError> {
    copy(from, to, false, RANDOM, &mut |_, _| {}).await
}

/// Does what steps say, from a second on; the second at the end.
async fn play(store: &dyn Store, steps: &[Step], mut now_s: i64) -> (i64, Vec<String>) {
    let mut answers = Vec::new();
    for step in steps {
        if let Step::Wait(seconds) = step {
            now_s += seconds;
        }
        answers.push(take(store, step, now_s).await.unwrap());
    }
    (now_s, answers)
}

async fn set_aside(store: &dyn Store) {
    let source = SourceName::unnamed_crm();
    let (field, reason) = ("stage".to_owned(), "missing".to_owned());
    let report = Unmapped { received_at: at(9), source, field, reason, sealed: b"sealed".to_vec() };
    store.set_aside(vec![report]).await.unwrap();
}

/// Compares all that two stores show.
async fn compare(left: &dyn Store, right: &dyn Store, now_s: i64) {
    let now = at(now_s);
    assert_eq!(everything(left, now).await, everything(right, now).await);
    assert_eq!(filtered(left, now).await, filtered(right, now).await);
    let all = crate::store::conformance::support::all();
    let unmapped = async |store: &dyn Store| store.list_unmapped(None, all).await.unwrap().items;
    assert_eq!(unmapped(left).await, unmapped(right).await);
    let cursors = async |store: &dyn Store| {
        let page = crate::store::query::PageRequest { cursor: None, limit: 1 };
        let filter = crate::store::query::EventFilter::default();
        store.list_events(filter, page, now).await.unwrap().next_cursor
    };
    assert_eq!(cursors(left).await, cursors(right).await, "numbers stay the same");
}

/// Makes a file in which something is of every kind, and says of which second it is.
async fn fill(path: &Path, steps: &[Step]) -> i64 {
    let store = open(path);
    let (now_s, _) = play(&store, steps, 5).await;
    play(&store, &[Step::Pause(true)], now_s).await;
    set_aside(&store).await;
    now_s
}

/// What is played until something goes for its age.
fn before_removals() -> Vec<Step> {
    let mut steps = script();
    let expires = steps.iter().position(|step| matches!(step, Step::Expire));
    steps.truncate(expires.unwrap());
    steps
}

#[tokio::test]
async fn a_store_goes_to_a_database_and_back_and_answers_the_same() {
    for (steps, is_full) in [(before_removals(), true), (script(), false)] {
        let places = Places::new().await;
        let (first, second) = (places.file("first"), places.file("second"));
        let url = places.database.url();
        let now_s = fill(&first, &steps).await;
        let there = copy_quietly(Place::File(&first), Place::Database(&url)).await.unwrap();
        let empty = there.tallies.iter().filter(|(_, tally)| tally.records == 0);
        let empty: Vec<_> = empty.map(|(kind, _)| kind.name()).collect();
        assert!(!is_full || empty.is_empty(), "there is nothing of {empty:?}");
        let database = places.open().await;
        compare(&open(&first), &database, now_s).await;
        places.rest(database).await;
        let back = copy_quietly(Place::Database(&url), Place::File(&second)).await.unwrap();
        assert_eq!(there, back);
        compare(&open(&first), &open(&second), now_s).await;
        let files = std::fs::read_dir(places.folder.path()).unwrap().count();
        assert_eq!(files, 2, "nothing is left beside them");
        places.database.end().await;
    }
}

/// Some steps, and some more.
fn steps() -> impl Strategy<Value = (Vec<Step>, Vec<Step>)> {
    (prop::collection::vec(step(), 10..60), prop::collection::vec(step(), 5..20))
}

/// Runs a test with random steps.
fn with_random_steps(cases: u32, test: impl AsyncFn(Vec<Step>, Vec<Step>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let tested = runner.run(&steps(), |(before, after)| {
        runtime.block_on(test(before, after));
        Ok(())
    });
    tested.unwrap();
}

#[test]
fn what_is_done_after_a_copy_to_a_database_comes_to_the_same() {
    with_random_steps(12, async |before, after| {
        let places = Places::new().await;
        let (file, url) = (places.file("file"), places.database.url());
        let store = open(&file);
        take(&store, &Step::KeepAlarms, 5).await.unwrap();
        let (now_s, _) = play(&store, &before, 5).await;
        drop(store);
        copy_quietly(Place::File(&file), Place::Database(&url)).await.unwrap();
        let (left, right) = (open(&file), places.open().await);
        compare(&left, &right, now_s).await;
        let (later_s, answers) = play(&left, &after, now_s).await;
        assert_eq!(play(&right, &after, now_s).await.1, answers);
        let everything = async |store| everything(store, at(later_s)).await;
        assert_eq!(everything(&left as &dyn Store).await, everything(&right).await);
        places.database.end().await;
    });
}

#[test]
fn what_is_done_after_a_copy_to_a_file_comes_to_the_same() {
    with_random_steps(12, async |before, after| {
        let places = Places::new().await;
        let (file, url) = (places.file("file"), places.database.url());
        let store = places.open().await;
        take(&store, &Step::KeepAlarms, 5).await.unwrap();
        let (now_s, _) = play(&store, &before, 5).await;
        places.rest(store).await;
        copy_quietly(Place::Database(&url), Place::File(&file)).await.unwrap();
        let (left, right) = (places.open().await, open(&file));
        compare(&left, &right, now_s).await;
        let (later_s, answers) = play(&left, &after, now_s).await;
        assert_eq!(play(&right, &after, now_s).await.1, answers);
        let everything = async |store| everything(store, at(later_s)).await;
        assert_eq!(everything(&left as &dyn Store).await, everything(&right).await);
        places.database.end().await;
    });
}

// ---- What gets in the way ---------------------------------------------------------------------

/// Copies until so many batches were copied, and is gone then; `None` if it was not in time.
async fn copy_until(from: Place<'_>, to: Place<'_>, batches: usize) -> Option<Inventory> {
    let (cut, mut copied) = (CancellationToken::new(), 0);
    let mut progress = |stage, _| {
        copied += usize::from(matches!(stage, Stage::Copying(_)));
        if copied == batches {
            cut.cancel();
        }
    };
    let copying = copy(from, to, true, RANDOM, &mut progress);
    tokio::select! {
        biased;
        () = cut.cancelled() => None,
        copied = copying => Some(copied.unwrap()),
    }
}

/// A file in which something is of every kind, and of which second it is.
async fn full_file(places: &Places) -> (PathBuf, i64) {
    let path = places.file("full");
    let now_s = fill(&path, &before_removals()).await;
    (path, now_s)
}

#[tokio::test]
async fn a_copy_to_a_database_that_was_interrupted_anywhere_goes_on_to_the_same() {
    let places = Places::new().await;
    let ((file, now_s), url) = (full_file(&places).await, places.database.url());
    let (from, to) = (Place::File(&file), Place::Database(&url));
    for batches in [1, 2, 3, 7, 12, 18] {
        assert_eq!(copy_until(from, to, batches).await, None);
        let refused = PostgresStore::open(&url, Purpose::Live, OWNER).await.err();
        assert!(matches!(refused, Some(StoreError::Unsupported(_))), "{refused:?}");
        let refused = copy_quietly(from, to).await.unwrap_err().to_string();
        assert!(refused.contains("--force goes on with it"), "{refused}");
    }
    let other = places.file("other");
    ingest(&open(&other), &[lead(1)]).await;
    let refused = copy(Place::File(&other), to, true, RANDOM, &mut |_, _| {}).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("of another store"), "{refused}");
    copy(from, to, true, RANDOM, &mut |_, _| {}).await.unwrap();
    compare(&open(&file), &places.open().await, now_s).await;
    places.database.end().await;
}

#[tokio::test]
async fn a_copy_to_a_file_that_was_interrupted_leaves_nothing_and_begins_anew() {
    let places = Places::new().await;
    let (file, now_s) = full_file(&places).await;
    let target = places.file("target");
    let (from, to) = (Place::File(&file), Place::File(&target));
    for batches in [1, 9] {
        assert_eq!(copy_until(from, to, batches).await, None);
        assert_eq!(std::fs::read_dir(places.folder.path()).unwrap().count(), 1);
    }
    // As if it had been killed.
    std::fs::write(target.with_added_extension("unfinished"), "half").unwrap();
    copy_quietly(from, to).await.unwrap();
    compare(&open(&file), &open(&target), now_s).await;
    let refused = copy(from, to, true, RANDOM, &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(refused, CopyError::Target(StoreError::Unsupported(_))), "{refused:?}");
    places.database.end().await;
}

#[tokio::test]
async fn a_database_that_fails_at_each_statement_gets_every_record_once() {
    let places = Places::new().await;
    let ((file, now_s), url) = (full_file(&places).await, places.database.url());
    let source = FileSource::open(&file).unwrap();
    let (sender, mut batches) = mpsc::channel(100);
    source.send(sender).await.unwrap();
    let target = DatabaseTarget::begin(&url, Purpose::Live, (1, false), RANDOM).await.unwrap();
    let faults = Planned::default();
    let target = target.with_faults(&faults);
    faults.force();
    while let Some(batch) = batches.recv().await {
        target.put(&batch).await.unwrap();
    }
    target.publish().await.unwrap();
    assert!(faults.struck() > 30, "the faults happened");
    drop(source);
    compare(&open(&file), &places.open().await, now_s).await;
    places.database.end().await;
}

#[tokio::test]
async fn what_is_there_already_and_differs_is_found() {
    let places = Places::new().await;
    let ((file, _), url) = (full_file(&places).await, places.database.url());
    let (from, to) = (Place::File(&file), Place::Database(&url));
    assert_eq!(copy_until(from, to, 2).await, None);
    places.run("UPDATE leads SET record = record || '\\x00'").await;
    let differs = copy(from, to, true, RANDOM, &mut |_, _| {}).await.unwrap_err();
    assert_eq!(differs, CopyError::Differs("leads".into()));
    assert!(PostgresStore::open(&url, Purpose::Live, OWNER).await.is_err(), "nobody uses it");
    places.database.end().await;
}

#[tokio::test]
async fn a_store_that_somebody_uses_or_has_used_is_refused() {
    let places = Places::new().await;
    let (file, url) = (places.file("file"), places.database.url());
    let store = open(&file);
    ingest(&store, &[lead(1)]).await;
    let (from, to) = (Place::File(&file), Place::Database(&url));
    let refused = copy_quietly(from, to).await.unwrap_err();
    assert!(matches!(refused, CopyError::Source(StoreError::Unsupported(_))), "{refused:?}");
    drop(store);

    let database = places.open().await;
    for refused in [copy_quietly(from, to).await, copy_quietly(to, from).await] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("in the last 60 seconds"), "{refused}");
    }
    ingest(&database, &[lead(2)]).await;
    places.rest(database).await;
    for go_on in [false, true] {
        let refused = copy(from, to, go_on, RANDOM, &mut |_, _| {}).await.unwrap_err().to_string();
        assert!(refused.contains("it is not empty"), "{refused}");
    }

    let source = DatabaseSource::open(&url, RANDOM).await.unwrap();
    source.check_unchanged().await.unwrap();
    places.rest(places.open().await).await;
    assert!(source.check_unchanged().await.is_err(), "an instance came and died");

    let source = DatabaseSource::open(&url, RANDOM).await.unwrap();
    let passing = PostgresStore::open(&url, Purpose::Live, OWNER + 1).await.unwrap();
    passing.close().await;
    drop(passing);
    assert!(source.check_unchanged().await.is_err(), "an instance came and went in good order");
    places.database.end().await;
}

#[tokio::test]
async fn what_a_store_is_for_goes_along() {
    let places = Places::new().await;
    let (file, back, url) = (places.file("file"), places.file("back"), places.database.url());
    drop(RedbStore::open(&file, Purpose::Sandbox).unwrap());
    let there = copy_quietly(Place::File(&file), Place::Database(&url)).await.unwrap();
    assert_eq!((there.purpose, there.records()), (Purpose::Sandbox, 0));
    assert!(PostgresStore::open(&url, Purpose::Live, OWNER).await.is_err());
    copy_quietly(Place::Database(&url), Place::File(&back)).await.unwrap();
    assert!(RedbStore::open(&back, Purpose::Live).is_err());
    assert!(RedbStore::open(&back, Purpose::Sandbox).is_ok());
    places.database.end().await;
}

#[tokio::test]
async fn many_records_come_in_many_batches() {
    let places = Places::new().await;
    let (file, url) = (places.file("file"), places.database.url());
    let leads: Vec<_> = (1..=2_500).map(lead).collect();
    ingest(&open(&file), &leads).await;
    let mut batches = 0;
    let progress = &mut |stage, records| {
        assert!(records <= TRANSFER_BATCH_RECORDS as u64);
        batches += usize::from(matches!(stage, Stage::Copying(_)));
    };
    let (from, to) = (Place::File(&file), Place::Database(&url));
    let copied = copy(from, to, false, RANDOM, progress).await.unwrap();
    // Leads and the outbox are three each, and of every other kind there is one, an empty one.
    assert_eq!((copied.records(), batches), (5_000, 18 + 2 + 2));
    places.database.end().await;
}

#[test]
fn contents_that_differ_in_anything_have_other_tallies() {
    let inventory = |records: &[(Kind, Record)]| {
        let mut inventory = Inventory::new(Purpose::Live);
        for (kind, record) in records {
            inventory.add(&Batch { kind: *kind, records: vec![record.clone()] });
        }
        inventory
    };
    let (one, two) = (record![1_u64, "a", &b"b"[..]], record![2_u64, "a", &b"b"[..]]);
    let all = inventory(&[(Kind::Leads, one.clone()), (Kind::Leads, two.clone())]);
    let reversed = inventory(&[(Kind::Leads, two.clone()), (Kind::Leads, one.clone())]);
    assert_eq!((all.fingerprint(), all.differences(&reversed)), (reversed.fingerprint(), vec![]));
    for other in [
        vec![(Kind::Leads, one.clone())],
        vec![(Kind::Leads, one.clone()), (Kind::Leads, one.clone())],
        vec![(Kind::Leads, one.clone()), (Kind::Events, two.clone())],
        vec![(Kind::Leads, one.clone()), (Kind::Leads, record![2_u64, &b"a"[..], &b"b"[..]])],
        vec![(Kind::Leads, one.clone()), (Kind::Leads, record![2_u64, "ab", &b""[..]])],
    ] {
        let other = inventory(&other);
        assert!(all.differences(&other).contains(&"leads"));
        assert_ne!(all.fingerprint(), other.fingerprint());
    }
}
