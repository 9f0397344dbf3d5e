//! Mending takes its time, and may fail.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use redb::Database;
use tokio::time::{Instant, timeout};

use super::disk::{Disk, EIO, Fault, When};
use super::{eventually, intake};
use crate::limits::{STORE_MEND_PAUSE, STORE_MEND_WAIT};
use crate::store::conformance::support::{at, ingest, lead};
use crate::store::redb::{Opening, Purpose, RedbStore, Volume};
use crate::store::{Store, StoreError};

/// A disk whose mending ends when and how it is told.
struct Told {
    disk: Disk,
    begun: Arc<AtomicU64>,
    ends: Mutex<Receiver<io::Result<()>>>,
}

impl Volume for Told {
    fn open(&self, opening: Opening) -> Result<Database, StoreError> {
        self.disk.open(opening)
    }

    fn mend(&self) -> io::Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let told = self.ends.lock().unwrap().recv();
        told.unwrap_or_else(|_| Err(io::Error::other("nobody tells any more")))?;
        self.disk.mend()
    }
}

/// A store that holds one lead and has just failed to take the second; how many times it was
/// begun to be mended, and the way to tell how that ends.
async fn failed() -> (RedbStore, Arc<AtomicU64>, Sender<io::Result<()>>) {
    let (disk, begun) = (Disk::new(), Arc::<AtomicU64>::default());
    let (end, ends) = channel();
    let volume = Told { disk: disk.clone(), begun: begun.clone(), ends: Mutex::new(ends) };
    let store = RedbStore::open_on(Purpose::Live, volume).unwrap();
    ingest(&store, &[lead(1)]).await;
    disk.plan(When::Operation(disk.count().operations + 1), Fault::Once(EIO));
    assert_refused(&store, 2).await;
    (store, begun, end)
}

async fn assert_refused(store: &RedbStore, number: u64) {
    let bound = STORE_MEND_WAIT + Duration::from_secs(5);
    let answer = timeout(bound, store.ingest(intake(number), at(9))).await;
    let answer = answer.expect("nobody waits until all is written again");
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn while_a_store_is_mended_writes_are_refused_and_reads_go_on() {
    let (store, begun, end) = failed().await;
    for number in 2..10 {
        assert_refused(&store, number).await;
        let read = store.find_lead(lead(1).reported.lead_id).await.unwrap();
        assert_eq!(read.unwrap().lead, lead(1));
    }
    end.send(Ok(())).unwrap();
    eventually(async || store.probe().await.ok()).await;
    ingest(&store, &[lead(2)]).await;
    assert_eq!(store.stats().await.unwrap().leads, 2);
    assert_eq!(begun.load(Ordering::SeqCst), 1, "once at a time");
}

#[tokio::test]
async fn after_mending_has_failed_the_next_try_waits() {
    let started = Instant::now();
    let (store, begun, end) = failed().await;
    end.send(Err(io::Error::from_raw_os_error(EIO))).unwrap();
    end.send(Ok(())).unwrap();
    eventually(async || store.probe().await.ok()).await;
    assert!(started.elapsed() >= STORE_MEND_PAUSE);
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_store_that_is_closed_while_it_is_mended_stays_open_until_that_has_ended() {
    let (store, begun, end) = failed().await;
    let database = Arc::downgrade(&store.shared.get().unwrap());
    assert_refused(&store, 2).await;
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    drop(store);
    assert!(database.upgrade().is_some(), "it is locked while it is written");
    end.send(Ok(())).unwrap();
    eventually(async || database.upgrade().is_none().then_some(())).await;
}
