//! What only a durable store can promise: reopening, shared commits, faults, foreign files.

mod backup;
pub(crate) mod disk;
mod failing;
mod index;
mod layers;
mod list;
mod matrix;
pub(in crate::store) mod model;
mod power;
mod remove;
pub(in crate::store) mod script;
mod stranded;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, TableDefinition};

use self::disk::Disk;
use crate::domain::event::DeadReason;
use crate::store::conformance::support::{
    accept, all, at, deliver_due, due, found, ingest, keyed, kill_due, know, lead, lead_of, leads,
    piece, routing, timeline, update,
};
use crate::store::query::{EventFilter, LeadFilter};
use crate::store::redb::file::{DatabasePart, Form};
use crate::store::redb::layout::LAYOUT_VERSION;
use crate::store::redb::volume::StoreFile;
use crate::store::redb::{
    Copied, Medium, Opening, Purpose, RedbStore, compact, copy_file, private_file, prove_file,
};
use crate::store::{Intake, Store, StoreError, UpdateOutcome};

fn intake(number: u64) -> Intake {
    Intake { leads: vec![lead(number)], quarantined: Vec::new() }
}

/// The database inside the file of a store, or of a copy of one.
pub(crate) fn database_in(path: &Path) -> Database {
    let file = Arc::new(StoreFile::open(path).unwrap());
    let part = DatabasePart::new(file.clone(), start_of(Form::of(&*file).unwrap()));
    Database::builder().create_with_backend(part).unwrap()
}

/// Where the database begins.
fn start_of(form: Form) -> u64 {
    match form {
        Form::Store(layout) => layout.database_at(),
        _ => 0,
    }
}

/// Why a store that must not open did not.
fn refusal(path: &Path) -> StoreError {
    match RedbStore::open(path, Purpose::Live) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

// ---- Opening again ----------------------------------------------------------------------------

#[tokio::test]
async fn everything_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = RedbStore::open(&path, Purpose::Live).unwrap();
    ingest(&store, &[lead(1)]).await;
    deliver_due(&store, 9).await;
    ingest(&store, &[lead(2), lead_of(3, 3)]).await;
    accept(&store, keyed("k", update(2, "won", 6)), at(9)).await;
    accept(&store, update(4, "won", 6), at(9)).await;
    store.add_api_key([7; 32]).await.unwrap();
    let pieces = Intake { quarantined: vec![piece("unreadable")], ..Intake::default() };
    store.ingest(pieces, at(9)).await.unwrap();
    let before = model::everything(&store, at(20)).await.unwrap();
    drop(store);
    let store = RedbStore::open(&path, Purpose::Live).unwrap();
    assert_eq!(model::everything(&store, at(20)).await.unwrap(), before);
    know(&store, keyed("k", update(2, "won", 6)), at(20)).await;
    assert_eq!(store.api_keys().await.unwrap(), [[7; 32]]);
}

#[tokio::test]
async fn numbers_go_on_after_opening_again_whatever_was_last() {
    let disk = Disk::new();
    let mut expected = Vec::new();
    for number in 1..=8 {
        let store = disk.store();
        // A lead, an attempt, an awaiting event, a dead letter and a quarantined piece are the
        // last to get a number in turn.
        match number % 4 {
            0 => deliver_due(&store, 9).await,
            1 => drop(accept(&store, update(100 + number, "won", 6), at(9)).await),
            2 => kill_due(&store, DeadReason::Expired, 9).await,
            _ => {
                let quarantined = vec![piece(&format!("unreadable {number}"))];
                let leads = Vec::new();
                store.ingest(Intake { leads, quarantined }, at(9)).await.unwrap();
            }
        }
        drop(store);
        let store = disk.store();
        ingest(&store, &[lead(number)]).await;
        expected.insert(0, number);
        assert_eq!(leads(&store, LeadFilter::default(), at(9)).await, expected);
        let events = store.list_events(EventFilter::default(), all(), at(9)).await.unwrap().items;
        assert_eq!(events[0].event.lead_id, lead(number).reported.lead_id);
        assert_eq!(events.len() as u64, number + number.div_ceil(4), "none was overwritten");
    }
    let quarantine = disk.store().list_quarantine(all()).await.unwrap();
    assert_eq!(quarantine.items.len(), 2);
}

#[tokio::test]
async fn a_queue_goes_on_after_opening_again() {
    let disk = Disk::new();
    ingest(&disk.store(), &[lead(1), lead_of(2, 2), lead_of(3, 3)]).await;
    ingest(&disk.store(), &[lead(4)]).await;
    assert_eq!(due(&disk.store(), 1, at(9)).await, ["1 initial_lead", "4 initial_lead"]);
    assert_eq!(disk.store().stats().await.unwrap().queued, 4);
}

// ---- Shared commits ---------------------------------------------------------------------------

#[tokio::test]
async fn writes_that_wait_together_share_a_commit() {
    let disk = Disk::new();
    let store = disk.store();
    let before = disk.count().flushes;
    ingest(&store, &[lead(1)]).await;
    let of_one = disk.count().flushes - before;
    assert!(of_one > 0, "an answer means that the disk was flushed");
    let numbers = 2..=501;
    let ingests = numbers.map(|number| store.ingest(intake(number), at(5)));
    for ingested in join_all(ingests).await {
        ingested.unwrap();
    }
    let of_many = disk.count().flushes - before - of_one;
    assert!(of_many < 100 * of_one, "{of_many} flushes for 500 writes, {of_one} for one");
    assert_eq!(store.stats().await.unwrap().leads, 501);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_fails_only_the_writes_of_its_commit_that_need_it() {
    let disk = Disk::new();
    let store = disk.store();
    ingest(&store, &[lead(1), lead(2)]).await;
    let damage = |unit: &mut super::writer::Unit<'_>| {
        let seq = unit.tables.lead_index.get(lead(1).reported.lead_id.get())?.unwrap().value();
        unit.tables.leads.insert(seq, [255].as_slice());
        Ok(())
    };
    store.writer.submit(damage).await.unwrap();
    let before = disk.count().flushes;
    // The writer waits at the gate until the others wait too, so that they are one group.
    let (gate, closed) = std::sync::mpsc::channel::<()>();
    let waits = store.writer.submit(move |_| Ok(closed.recv().is_err()));
    let (routing, updates) = (routing(), |number| vec![update(number, "won", 6)]);
    let of_damaged = store.record_stage_updates(updates(1), &routing, at(9));
    let again = store.ingest(intake(1), at(9));
    let neighbour = store.record_stage_updates(updates(2), &routing, at(9));
    let opens = async { drop(gate) };
    let others = join_all((3..203).map(|number| store.ingest(intake(number), at(9))));
    let (waited, of_damaged, neighbour, others, again, ()) =
        tokio::join!(waits, of_damaged, neighbour, others, again, opens);
    assert_eq!(waited, Ok(true));
    assert!(matches!(of_damaged, Err(StoreError::Corrupt(_))), "{of_damaged:?}");
    assert!(matches!(again, Err(StoreError::Corrupt(_))), "{again:?}");
    assert!(matches!(neighbour.unwrap().outcomes[..], [UpdateOutcome::Accepted(_)]));
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    let flushes = disk.count().flushes - before;
    assert!(flushes < 100, "{flushes} flushes for 204 writes: they were all done alone");
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.leads, stats.queued), (202, 203), "each was done once");
}

// ---- Faults -----------------------------------------------------------------------------------

#[tokio::test]
async fn a_failed_write_is_told_and_leaves_nothing_and_the_store_heals() {
    let disk = Disk::new();
    let store = disk.store();
    ingest(&store, &[lead(1)]).await;
    accept(&store, update(1, "won", 6), at(9)).await;
    disk.set_broken(true);
    for number in [2, 3] {
        let failed = store.ingest(intake(number), at(9)).await;
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    }
    assert!(!store.died().is_cancelled(), "it may heal");
    disk.set_broken(false);
    ingest(&store, &[lead(4)]).await;
    assert_eq!(leads(&store, LeadFilter::default(), at(9)).await, [4, 1]);
    let expected = ["1 initial_lead", "4 initial_lead", "1 won"];
    assert_eq!(due(&store, 1, at(9)).await, expected);
    drop(store);
    assert_eq!(due(&disk.store(), 1, at(9)).await, expected, "on disk too");
}

#[tokio::test]
async fn all_writes_of_a_failed_commit_are_told() {
    let disk = Disk::new();
    let store = disk.store();
    disk.set_broken(true);
    let ingests = (1..=50).map(|number| store.ingest(intake(number), at(5)));
    for ingested in join_all(ingests).await {
        assert!(matches!(ingested, Err(StoreError::Unavailable(_))), "{ingested:?}");
    }
    disk.set_broken(false);
    ingest(&store, &[lead(1)]).await;
    assert_eq!(store.stats().await.unwrap().leads, 1);
    assert_eq!(timeline(&store, 1, at(9)).await, ["1 initial_lead pending"]);
}

#[tokio::test]
async fn a_panic_in_the_writer_is_told_and_what_was_committed_is_kept() {
    let disk = Disk::new();
    let store = disk.store();
    ingest(&store, &[lead(1)]).await;
    let before = found(&store, 1).await;
    let work = |_: &mut super::writer::Unit<'_>| -> Result<(), StoreError> { panic!("on purpose") };
    let failed = store.writer.submit(work).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    store.died().cancelled().await;
    let after = store.ingest(intake(2), at(9)).await;
    assert!(matches!(after, Err(StoreError::Unavailable(_))), "{after:?}");
    drop(store);
    let store = disk.store();
    assert_eq!(found(&store, 1).await, before);
    ingest(&store, &[lead(2)]).await;
}

#[tokio::test]
async fn closing_a_store_does_the_work_that_is_waiting() {
    let disk = Disk::new();
    let store = disk.store();
    let died = store.died();
    {
        let waiting = store.ingest(intake(1), at(5));
        let mut waiting = Box::pin(waiting);
        let first_poll = futures_util::poll!(&mut waiting);
        assert!(first_poll.is_pending() || matches!(first_poll, std::task::Poll::Ready(Ok(_))));
    }
    drop(store);
    assert!(died.is_cancelled());
    assert_eq!(disk.store().stats().await.unwrap().leads, 1, "though nobody waited for it");
}

#[tokio::test]
async fn reads_go_on_while_nothing_can_be_written() {
    let disk = Disk::new();
    let store = disk.store();
    ingest(&store, &[lead(1)]).await;
    disk.set_broken(true);
    for number in 2..6 {
        assert!(store.ingest(intake(number), at(9)).await.is_err());
        let read = eventually(async || store.find_lead(lead(1).reported.lead_id).await.ok()).await;
        assert_eq!(read.unwrap().lead, lead(1));
    }
}

#[tokio::test]
async fn a_store_that_is_gone_is_not_replaced_by_an_empty_one() {
    let disk = Disk::new();
    let first = disk.clone();
    let store = RedbStore::open_on(Purpose::Live, move |opening: Opening| {
        Ok(match opening {
            Opening::First => Arc::new(first.clone()) as Arc<dyn Medium>,
            Opening::Again => Arc::new(InMemoryBackend::new()),
        })
    })
    .unwrap();
    ingest(&store, &[lead(1)]).await;
    disk.set_broken(true);
    for number in 2..5 {
        assert!(store.ingest(intake(number), at(9)).await.is_err());
        let read = store.find_lead(lead(1).reported.lead_id).await;
        assert!(!matches!(read, Ok(None)), "a known lead is never said to be unknown");
    }
}

/// Asks until there is an answer; the store is opened again between two questions.
async fn eventually<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap()
}

// ---- Files that are not for us ----------------------------------------------------------------

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Marks a store that nobody has open with another layout.
fn mark_layout(path: &Path, version: u64) {
    let database = database_in(path);
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("layout", version).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_file_of_a_newer_layout_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(RedbStore::open(&path, Purpose::Live).unwrap());
    mark_layout(&path, LAYOUT_VERSION + 1);
    let StoreError::Unsupported(message) = refusal(&path) else {
        panic!("another error");
    };
    assert!(message.contains(&format!("layout {LAYOUT_VERSION}")), "{message}");
    mark_layout(&path, LAYOUT_VERSION);
    assert!(RedbStore::open(&path, Purpose::Live).is_ok());
}

#[test]
fn a_file_of_the_layout_before_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(RedbStore::open(&path, Purpose::Live).unwrap());
    mark_layout(&path, LAYOUT_VERSION - 1);
    assert!(prove_file(&path, at(9)).is_ok());
    drop(RedbStore::open(&path, Purpose::Live).unwrap());
    let marked = database_in(&path).begin_read().unwrap().open_table(META).unwrap();
    assert_eq!(marked.get("layout").unwrap().unwrap().value(), LAYOUT_VERSION);
}

#[test]
fn a_file_of_the_first_layout_is_told_by_its_layout_whoever_opens_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let outbox = TableDefinition::<(u64, u64), (u64, u64, i64)>::new("outbox");
    transaction.open_table(outbox).unwrap().insert((1, 2), (3, 4, 5)).unwrap();
    let mut meta = transaction.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
    meta.insert("layout", 1).unwrap();
    meta.insert("purpose", Purpose::Live as u64).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);
    let copy = private_file(&folder.path().join("copy.redb")).unwrap();
    let refusals = [
        Some(refusal(&path)),
        prove_file(&path, at(9)).err(),
        copy_file(&path, copy, at(9)).err(),
        compact(&path).err(),
    ];
    for refused in refusals {
        let Some(StoreError::Unsupported(message)) = refused else {
            panic!("{refused:?}");
        };
        let expected = format!("it has layout 1, this program knows layout {LAYOUT_VERSION}");
        assert_eq!(message, expected);
    }
}

#[test]
fn a_database_of_another_program_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(refusal(&path), StoreError::Unsupported(_)));
    let transaction = Database::open(&path).unwrap().begin_write().unwrap();
    assert_eq!(transaction.list_tables().unwrap().count(), 1);
}

#[test]
fn a_file_that_was_begun_and_not_finished_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    std::fs::write(&path, "").unwrap();
    std::fs::write(folder.path().join("store.redb.new"), [0; 4_096]).unwrap();
    assert!(RedbStore::open(&path, Purpose::Live).is_ok());
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "nothing is left beside it");
}

#[test]
fn a_store_whose_database_is_gone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(RedbStore::open(&path, Purpose::Live).unwrap());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let Form::Store(layout) = Form::of(&StoreFile::open(&path).unwrap()).unwrap() else {
        panic!("it is no store");
    };
    file.set_len(layout.database_at()).unwrap();
    assert!(matches!(refusal(&path), StoreError::Unsupported(_)));
}

#[tokio::test]
async fn a_copy_for_another_purpose_or_with_a_journal_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = (folder.path().join("copy.redb"), folder.path().join("store.redb"));
    drop(RedbStore::open(&store, Purpose::Sandbox).unwrap());
    assert_eq!(copy_file(&store, private_file(&path).unwrap(), at(9)), Ok(Copied::Done));
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(matches!(refusal(&path), StoreError::Unsupported(_)));
    assert!(std::fs::read(&path).unwrap() == bytes);
    // As a version left it that had a journal behind the database, and was not closed.
    bytes.extend(b"lljourn1");
    bytes.resize(bytes.len() + 504, 0);
    std::fs::write(&path, &bytes).unwrap();
    let refused = RedbStore::open(&path, Purpose::Sandbox).err();
    assert!(matches!(refused, Some(StoreError::Unsupported(_))), "{refused:?}");
    assert!(std::fs::read(&path).unwrap() == bytes);
}

#[test]
fn a_file_keeps_to_its_purpose() {
    let folder = tempfile::tempdir().unwrap();
    for (purpose, other) in [(Purpose::Live, Purpose::Sandbox), (Purpose::Sandbox, Purpose::Live)] {
        let path = folder.path().join(format!("{purpose:?}.redb"));
        drop(RedbStore::open(&path, purpose).unwrap());
        let refused = RedbStore::open(&path, other).err();
        assert!(matches!(refused, Some(StoreError::Unsupported(_))), "{refused:?}");
        assert!(RedbStore::open(&path, purpose).is_ok());
    }
}

#[test]
fn a_file_that_is_no_store_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let long = "not a store\n".repeat(10_000);
    for content in ["x", "redb", "not a store", &long] {
        std::fs::write(&path, content).unwrap();
        let error = refusal(&path);
        let told = matches!(error, StoreError::Unsupported(_) | StoreError::Unavailable(_));
        assert!(told, "{error:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_folder_that_is_not_there_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&folder.path().join("missing").join("store.redb"));
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[test]
fn a_file_that_is_open_already_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let first = RedbStore::open(&path, Purpose::Live).unwrap();
    assert!(matches!(refusal(&path), StoreError::Unsupported(_)));
    drop(first);
    assert!(RedbStore::open(&path, Purpose::Live).is_ok());
}

#[cfg(unix)]
#[test]
fn only_its_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let _store = RedbStore::open(&path, Purpose::Live).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
