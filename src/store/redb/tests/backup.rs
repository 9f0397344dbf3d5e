//! Copies of a store: of one moment whatever is written meanwhile, proven, refused when damaged.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, ENOSPC, Fault, When};
use super::model::everything;
use super::{database_in, eventually, intake};
use crate::domain::event::DeadReason;
use crate::store::conformance::support::{
    DAY, accept, at, deliver_due, due, ingest, kill_due, lead, lead_of, piece, update,
};
use crate::store::memory::MemoryStore;
use crate::store::redb::copy::copy_into;
use crate::store::redb::proof::prove;
use crate::store::redb::upkeep::replace;
use crate::store::redb::{
    Compacted, Contents, Copied, Purpose, RedbStore, compact, copy_file, fresh_file, private_file,
    prove_file, publish, restore,
};
use crate::store::{BackedUp, Intake, Store, StoreCopy, StoreError};

/// A folder with a store in it.
struct Place {
    folder: TempDir,
    store: RedbStore,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::open(&folder.path().join("store.redb"), Purpose::Live).unwrap();
        Self { folder, store }
    }

    /// With leads, events, attempts, dead letters and pieces, over several commits.
    async fn filled() -> Self {
        let place = Self::new();
        fill(&place.store).await;
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Closes the store, and answers where its file is.
    fn closed(self) -> (TempDir, PathBuf) {
        let path = self.path("store.redb");
        (self.folder, path)
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path()).unwrap().count()
    }
}

async fn fill(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    deliver_due(store, 9).await;
    accept(store, update(1, "won", 6), at(9)).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    accept(store, update(9, "won", 6), at(9)).await;
    ingest(store, &[lead(3), lead_of(4, 3)]).await;
    let quarantined = vec![piece("unreadable")];
    store.ingest(Intake { leads: Vec::new(), quarantined }, at(9)).await.unwrap();
    store.add_api_key([7; 32]).await.unwrap();
}

async fn back_up(store: &dyn Store) -> StoreCopy {
    match store.back_up(at(20), &CancellationToken::new()).await.unwrap() {
        BackedUp::Done(copy) => copy,
        other => panic!("{other:?}"),
    }
}

/// Writes a copy to a file.
fn save(mut copy: StoreCopy, path: &Path) {
    let length = io::copy(&mut copy.file, &mut private_file(path).unwrap()).unwrap();
    assert_eq!(length, copy.bytes);
}

fn backend(bytes: &[u8]) -> InMemoryBackend {
    let backend = InMemoryBackend::new();
    backend.set_len(bytes.len() as u64).unwrap();
    backend.write(0, bytes).unwrap();
    backend
}

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, part: &str) {
    let error = result.expect_err("it must be refused").to_string();
    assert!(error.contains(part), "`{part}` is not in: {error}");
}

// ---- Of one moment ----------------------------------------------------------------------------

/// One of a series of writes: each is known by its number, and acknowledged before the next.
async fn write(store: &dyn Store, number: u64) {
    if number.is_multiple_of(2) {
        ingest(store, &[lead(1 + number / 2)]).await;
    } else {
        accept(store, update(1 + number / 2, "won", 6), at(9)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_the_store_at_one_moment_with_all_that_was_answered_before() {
    let place = Arc::new(Place::new());
    for number in 0..200 {
        write(&place.store, number).await;
    }
    let answered = Arc::new(AtomicU64::new(200));
    let stop = CancellationToken::new();
    let writing = tokio::spawn({
        let (place, answered, stop) = (place.clone(), answered.clone(), stop.clone());
        async move {
            while !stop.is_cancelled() {
                write(&place.store, answered.load(Ordering::SeqCst)).await;
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let mut written_meanwhile = 0;
    let mut copies = Vec::new();
    for number in 0..3 {
        let before = answered.load(Ordering::SeqCst);
        let path = place.path(&format!("copy-{number}"));
        save(back_up(&place.store).await, &path);
        let after = answered.load(Ordering::SeqCst);
        written_meanwhile += after - before;
        copies.push((path, before, after));
    }
    stop.cancel();
    writing.await.unwrap();
    assert!(written_meanwhile > 0, "nothing was written while the copies were made");
    for (path, before, after) in copies {
        let writes = prove_file(&path, at(20)).unwrap().events;
        assert!(before <= writes && writes <= after + 1, "{before} {writes} {after}");
        let model = MemoryStore::default();
        for number in 0..writes {
            write(&model, number).await;
        }
        let copy = RedbStore::open(&path, Purpose::Live).unwrap();
        assert_eq!(everything(&copy, at(20)).await, everything(&model, at(20)).await);
    }
}

#[tokio::test]
async fn a_plain_reading_of_a_file_in_use_is_torn() {
    let disk = Disk::new();
    let store = disk.store();
    fill(&store).await;
    let before = disk.bytes();
    prove(backend(&before), at(20)).unwrap();
    for number in 10..40 {
        let leads: Vec<_> = (0..20).map(|more| lead(number * 20 + more)).collect();
        ingest(&store, &leads).await;
    }
    let after = disk.bytes();
    prove(backend(&after), at(20)).unwrap();
    // `cp` has read so much when the leads come, and reads on afterwards.
    let mut torn = 0;
    let length = before.len().min(after.len());
    let cuts: Vec<usize> = (4_096..length).step_by(4_096).collect();
    for cut in &cuts {
        let bytes = [&before[..*cut], &after[*cut..]].concat();
        torn += usize::from(prove(backend(&bytes), at(20)).is_err());
    }
    assert!(torn > 0, "none of {} readings is torn", cuts.len());
}

#[tokio::test]
async fn a_copy_holds_everything_and_a_store_that_starts_from_it_goes_on() {
    let place = Place::filled().await;
    save(back_up(&place.store).await, &place.path("copy"));
    let copy = RedbStore::open(&place.path("copy"), Purpose::Live).unwrap();
    assert_eq!(everything(&copy, at(20)).await, everything(&place.store, at(20)).await);
    assert_eq!(copy.api_keys().await.unwrap(), [[7; 32]]);
    assert_eq!(due(&copy, 1, at(20)).await, ["3 initial_lead"], "what was queued is queued");
    ingest(&copy, &[lead(5)]).await;
    assert_eq!(copy.stats().await.unwrap().leads, 5);
}

// ---- What ends a copy -------------------------------------------------------------------------

#[tokio::test]
async fn one_copy_at_a_time_until_it_is_let_go() {
    let place = Place::filled().await;
    let first = back_up(&place.store).await;
    let second = place.store.back_up(at(20), &CancellationToken::new()).await.unwrap();
    assert!(matches!(second, BackedUp::Running), "{second:?}");
    drop(first);
    back_up(&place.store).await;
    assert_eq!(place.files(), 1, "a copy is no file that could be left behind");
}

#[tokio::test]
async fn a_copy_that_is_stopped_or_that_nobody_waits_for_ends() {
    let place = Place::filled().await;
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(matches!(place.store.back_up(at(20), &stop).await, Err(StoreError::Unavailable(_))));
    {
        let stop = CancellationToken::new();
        let mut waiting = std::pin::pin!(place.store.back_up(at(20), &stop));
        // It has begun; on a machine with little to do it may even be done.
        let _ = futures_util::poll!(&mut waiting);
    }
    let again = async || match place.store.back_up(at(20), &CancellationToken::new()).await {
        Ok(BackedUp::Done(copy)) => Some(copy),
        _ => None,
    };
    eventually(again).await;
    assert_eq!(place.files(), 1);
    ingest(&place.store, &[lead(5)]).await;
}

#[tokio::test]
async fn a_disk_that_is_full_at_any_write_of_the_copy_ends_the_copy_and_not_the_store() {
    let disk = Disk::new();
    let store = disk.store();
    fill(&store).await;
    let transaction = store.shared.get().unwrap().begin();
    let mut writes = 0;
    loop {
        let full = Disk::empty();
        full.plan(When::Operation(writes + 1), Fault::FromHereOn(ENOSPC));
        match copy_into(&transaction.tables(), full, at(20)).unwrap() {
            Copied::NoRoom => writes += 1,
            Copied::Done => break,
        }
    }
    assert!(writes > 10, "{writes}");
    drop(transaction);
    ingest(&store, &[lead(5)]).await;
    assert_eq!(store.stats().await.unwrap().leads, 5);
}

#[tokio::test]
async fn a_store_that_fails_is_opened_again_although_a_copy_is_being_made() {
    let disk = Disk::new();
    let store = disk.store();
    fill(&store).await;
    let transaction = store.shared.get().unwrap().begin();
    disk.set_broken(true);
    assert!(store.ingest(intake(5), at(9)).await.is_err());
    disk.set_broken(false);
    ingest(&store, &[lead(6)]).await;
    let copied = copy_into(&transaction.tables(), InMemoryBackend::new(), at(20));
    assert!(matches!(copied, Err(StoreError::Unavailable(_))), "{copied:?}");
    assert_eq!(store.stats().await.unwrap().leads, 5);
}

#[tokio::test]
async fn a_store_in_memory_says_that_it_has_nothing_to_copy() {
    let copied = MemoryStore::default().back_up(at(20), &CancellationToken::new()).await.unwrap();
    assert!(matches!(copied, BackedUp::NotSupported), "{copied:?}");
}

// ---- Proving ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_proof_tells_what_is_in_a_file_and_leaves_it_as_it_is() {
    let place = Place::filled().await;
    let copy = place.path("copy");
    save(back_up(&place.store).await, &copy);
    let bytes = std::fs::read(&copy).unwrap();
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let found = prove_file(&copy, at(20)).unwrap();
    let expected = Contents {
        purpose: Purpose::Live,
        backed_up_at: Some(at(20)),
        newest_at: Some(at(9)),
        leads: 4,
        events: 6,
        queued: 2,
        too_old: 0,
        awaiting: 1,
        dead: 1,
        quarantined: 1,
        rows: found.rows.clone(),
    };
    assert_eq!(found, expected);
    assert_eq!(prove_file(&copy, at(8 * DAY)).unwrap().too_old, 2, "they would be given up");
    assert!(std::fs::read(&copy).unwrap() == bytes);
}

#[tokio::test]
async fn a_backup_that_was_written_to_since_is_no_backup_of_its_moment_any_more() {
    let place = Place::filled().await;
    let copy = place.path("copy");
    save(back_up(&place.store).await, &copy);
    let store = RedbStore::open(&copy, Purpose::Live).unwrap();
    let late = crate::store::conformance::support::heard_of(lead(5).reported, at(30));
    ingest(&store, &[late]).await;
    drop(store);
    let found = prove_file(&copy, at(40)).unwrap();
    assert_eq!((found.backed_up_at, found.newest_at), (None, Some(at(30))));
}

#[tokio::test]
async fn a_file_with_a_flipped_bit_is_refused_or_has_lost_nothing() {
    let disk = Disk::new();
    let store = disk.store();
    fill(&store).await;
    let mut copy = Vec::new();
    back_up(&store).await.file.read_to_end(&mut copy).unwrap();
    drop(store);
    for (what, bytes) in [("copy", copy), ("store", disk.bytes())] {
        let sound = prove(backend(&bytes), at(20)).unwrap();
        let (mut refusals, mut flips) = (0, 0);
        for at_byte in (0..bytes.len()).step_by(61) {
            flips += 1;
            let mut damaged = bytes.clone();
            damaged[at_byte] ^= 0x10;
            match prove(backend(&damaged), at(20)) {
                Err(_) => refusals += 1,
                Ok(found) => assert_eq!(found, sound, "{what}: {at_byte}"),
            }
        }
        println!("{what}: {flips} flips, {refusals} refused");
        assert!(refusals > 100);
    }
}

#[tokio::test]
async fn a_file_that_is_cut_short_is_refused() {
    let place = Place::filled().await;
    save(back_up(&place.store).await, &place.path("copy"));
    let bytes = std::fs::read(place.path("copy")).unwrap();
    for length in (0..bytes.len()).step_by(4_096).chain([1, bytes.len() - 1]) {
        assert!(prove(backend(&bytes[..length]), at(20)).is_err(), "{length} bytes");
    }
}

#[tokio::test]
async fn what_is_in_use_or_no_store_is_refused() {
    let place = Place::filled().await;
    let prove = |name: &str| prove_file(&place.path(name), at(20));
    refused(prove("store.redb"), "another process has it open");
    refused(prove("missing"), "No such file");
    std::fs::write(place.path("empty"), "").unwrap();
    refused(prove("empty"), "it is empty");
    std::fs::write(place.path("text"), "not a store\n".repeat(10_000)).unwrap();
    refused(prove("text"), "it is no store");
    let theirs = redb::Database::create(place.path("theirs")).unwrap();
    let transaction = theirs.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(theirs);
    refused(prove("theirs"), "another program");
    drop(redb::Database::create(place.path("nothing")).unwrap());
    refused(prove("nothing"), "not the tables of a store");
}

#[tokio::test]
async fn a_backup_of_before_a_table_came_is_good_and_one_of_another_layout_is_not() {
    let place = Place::filled().await;
    let copy = place.path("copy");
    save(back_up(&place.store).await, &copy);
    let change = |work: &dyn Fn(&redb::WriteTransaction)| {
        let database = database_in(&copy);
        let transaction = database.begin_write().unwrap();
        work(&transaction);
        transaction.commit().unwrap();
    };
    change(&|transaction| {
        let alarms = redb::TableDefinition::<(&str, i64), &[u8]>::new("alarms");
        assert!(transaction.delete_table(alarms).unwrap());
    });
    assert_eq!(prove_file(&copy, at(20)).unwrap().leads, 4);
    let file = private_file(&place.path("again")).unwrap();
    assert_eq!(copy_file(&copy, file, at(20)).unwrap(), Copied::Done);
    assert!(RedbStore::open(&copy, Purpose::Live).is_ok());
    change(&|transaction| {
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        transaction.open_table(meta).unwrap().insert("layout", 1).unwrap();
    });
    refused(prove_file(&copy, at(20)), "it has layout 1");
    refused(compact(&copy), "it has layout 1");
}

// ---- Without a server -------------------------------------------------------------------------

#[tokio::test]
async fn a_store_that_was_killed_is_copied_from_its_file_which_stays_as_it_is() {
    let place = Place::filled().await;
    // What a kill leaves: everything that was committed, and the file not closed.
    let left = place.path("left.redb");
    std::fs::copy(place.path("store.redb"), &left).unwrap();
    let bytes = std::fs::read(&left).unwrap();
    let file = private_file(&place.path("copy")).unwrap();
    assert_eq!(copy_file(&left, file, at(20)).unwrap(), Copied::Done);
    assert!(std::fs::read(&left).unwrap() == bytes);
    let copy = RedbStore::open(&place.path("copy"), Purpose::Live).unwrap();
    assert_eq!(everything(&copy, at(20)).await, everything(&place.store, at(20)).await);
    let file = private_file(&place.path("other")).unwrap();
    refused(copy_file(&place.path("store.redb"), file, at(20)), "another process has it open");
}

#[tokio::test]
async fn a_backup_is_put_in_place_where_nothing_is() {
    let place = Place::filled().await;
    save(back_up(&place.store).await, &place.path("copy"));
    let (copy, new) = (place.path("copy"), place.path("new.redb"));
    let restored = restore(&copy, &new, Purpose::Live, false, at(20)).unwrap();
    assert_eq!((restored.contents.leads, restored.kept), (4, None));
    let store = RedbStore::open(&new, Purpose::Live).unwrap();
    assert_eq!(everything(&store, at(20)).await, everything(&place.store, at(20)).await);
    assert_eq!(place.files(), 3, "store, copy, new store");
}

#[tokio::test]
async fn a_store_that_is_there_is_replaced_only_if_that_is_wished_and_kept() {
    let place = Place::filled().await;
    let (copy, path) = (place.path("copy"), place.path("store.redb"));
    save(back_up(&place.store).await, &copy);
    ingest(&place.store, &[lead(5)]).await;
    let put = |replace| restore(&copy, &path, Purpose::Live, replace, at(20));
    refused(put(true), "another process has it open");
    drop(place.store);
    refused(put(false), "a store is there already");
    let restored = put(true).unwrap();
    let kept = restored.kept.unwrap();
    assert!(kept.ends_with("store.redb.replaced-20251101T122700Z"), "{}", kept.display());
    assert_eq!(prove_file(&kept, at(20)).unwrap().leads, 5);
    assert_eq!(prove_file(&path, at(20)).unwrap().leads, 4);
    let again = put(true);
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "what is kept stays: {again:?}");
    assert_eq!(prove_file(&kept, at(20)).unwrap().leads, 5);
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_backup_that_is_damaged_or_for_another_purpose_replaces_nothing() {
    let place = Place::filled().await;
    let (copy, sandbox) = (place.path("copy"), place.path("sandbox.redb"));
    save(back_up(&place.store).await, &copy);
    drop(RedbStore::open(&sandbox, Purpose::Sandbox).unwrap());
    let (_folder, path) = place.closed();
    let before = std::fs::read(&path).unwrap();
    refused(restore(&sandbox, &path, Purpose::Live, true, at(20)), "--sandbox");
    refused(restore(&copy, &path, Purpose::Sandbox, true, at(20)), "live leads");
    let length = std::fs::metadata(&copy).unwrap().len();
    File::options().write(true).open(&copy).unwrap().set_len(length / 2).unwrap();
    assert!(restore(&copy, &path, Purpose::Live, true, at(20)).is_err());
    assert!(std::fs::read(&path).unwrap() == before);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 3, "nothing is left");
}

#[test]
fn a_finished_file_takes_no_name_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (new, path) = (folder.path().join("new"), folder.path().join("path"));
    std::fs::write(&new, "new").unwrap();
    std::fs::write(&path, "old").unwrap();
    assert_eq!(publish(&new, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    std::fs::remove_file(&path).unwrap();
    publish(&new, &path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    assert!(!new.exists());
}

#[test]
fn a_store_is_replaced_and_kept_where_there_are_no_hard_links() {
    let folder = tempfile::tempdir().unwrap();
    let [new, store, kept] = ["new", "store", "kept"].map(|name| folder.path().join(name));
    let no_links = |_: &Path, _: &Path| Err(io::ErrorKind::Unsupported.into());
    let put = || replace(&new, &store, &kept, no_links);
    let texts = || [&store, &kept].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&store, "old").unwrap();
    assert!(put().is_err(), "there is nothing to put in its place");
    assert!(store.exists() && !kept.exists(), "it has its name again");
    std::fs::write(&new, "new").unwrap();
    put().unwrap();
    assert_eq!(texts(), ["new", "old"]);
    std::fs::write(&new, "newer").unwrap();
    assert!(put().is_err());
    assert_eq!(texts(), ["new", "old"], "what is kept stays");
}

#[test]
fn a_fresh_file_is_private_and_replaces_only_what_nobody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    std::fs::write(&path, "left behind, for all to read").unwrap();
    let file = fresh_file(&path).unwrap();
    let found = file.metadata().unwrap();
    assert_eq!((found.len(), found.permissions().mode() & 0o777), (0, 0o600));
    assert_eq!(fresh_file(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(file);
    fresh_file(&path).unwrap();
}

#[tokio::test]
async fn compacting_gives_space_back_and_changes_nothing_else() {
    let place = Place::filled().await;
    for number in 10..300 {
        ingest(&place.store, &[lead(number)]).await;
    }
    let before = everything(&place.store, at(20)).await;
    refused(compact(&place.path("store.redb")), "another process has it open");
    let (_folder, path) = place.closed();
    let length = std::fs::metadata(&path).unwrap().len();
    let compacted = compact(&path).unwrap();
    println!("{compacted:?}");
    assert_eq!(compacted.before, length);
    assert_eq!(compacted.after, std::fs::metadata(&path).unwrap().len());
    assert!(compacted.after < compacted.before, "{compacted:?}");
    let store = RedbStore::open(&path, Purpose::Live).unwrap();
    assert_eq!(everything(&store, at(20)).await, before);
}

/// Ingests leads one by one until it is stopped, 200 at least: how many a second.
async fn leads_a_second(store: &dyn Store, first: u64, stop: &CancellationToken) -> u64 {
    let started = tokio::time::Instant::now();
    let mut count = 0;
    while count < 200 || !stop.is_cancelled() {
        ingest(store, &[lead(first + count)]).await;
        count += 1;
    }
    count * 1_000 / u64::try_from(started.elapsed().as_millis()).unwrap().max(1)
}

/// `LEADLOOP_BACKUP_LEADS=1000000 cargo test --release --lib packed -- --nocapture` prints figures.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_packed_and_a_store_shrinks_when_it_is_compacted() {
    let leads = std::env::var_os("LEADLOOP_BACKUP_LEADS")
        .and_then(|leads| leads.to_str()?.parse().ok())
        .unwrap_or(2_000);
    let place = Place::new();
    for first in (0..leads).step_by(100) {
        // Their ids come in no order, as Meta's do.
        let some = (first..first + 100).map(|number| lead(number * 7_919 % 1_000_003));
        let leads = some.collect();
        place.store.ingest(Intake { leads, quarantined: Vec::new() }, at(9)).await.unwrap();
        deliver_due(&place.store, 9).await;
    }
    let length = || std::fs::metadata(place.path("store.redb")).unwrap().len();
    let stopped = CancellationToken::new();
    stopped.cancel();
    let alone = leads_a_second(&place.store, 2_000_000, &stopped).await;
    let (made, before_copy) = (CancellationToken::new(), length());
    let copying = async {
        let started = tokio::time::Instant::now();
        let copy = back_up(&place.store).await;
        made.cancel();
        (copy, started.elapsed())
    };
    let writing = leads_a_second(&place.store, 3_000_000, &made);
    let ((copy, copied_in), meanwhile) = tokio::join!(copying, writing);
    let (bytes, grown) = (copy.bytes, length() - before_copy);
    save(copy, &place.path("copy"));
    let started = tokio::time::Instant::now();
    prove_file(&place.path("copy"), at(20)).unwrap();
    let proven_in = started.elapsed();
    let path = place.path("store.redb");
    drop(place.store);
    // What is removed leaves room inside the file.
    let store = RedbStore::open(&path, Purpose::Live).unwrap();
    let mut next = Some(0);
    while let Some(from) = next {
        next = store.remove_old(at(10), from).await.unwrap().next;
    }
    drop(store);
    let started = tokio::time::Instant::now();
    let Compacted { before, after } = compact(&path).unwrap();
    let compacted_in = started.elapsed();
    println!("{leads} leads in {before_copy} bytes, copied to {bytes} in {copied_in:.1?}");
    println!("leads a second: {alone}, and while copying {meanwhile}; the store grew by {grown}");
    println!("a proof takes {proven_in:.1?}");
    println!("compacted from {before} to {after} bytes in {compacted_in:.1?}");
    assert!(bytes < before && after < before, "{bytes} {after} {before}");
}
