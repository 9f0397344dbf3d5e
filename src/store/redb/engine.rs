//! What the writer writes to: the log, the recent rows, and the database behind both.
//!
//! A commit is durable once the log has its rows. They are seen from then on, and a thread brings
//! them into the database when a segment of the log is full enough, while commits go on in the
//! other one.

use std::io;
use std::sync::atomic::{self, AtomicBool};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use redb::{Builder, Database, ReadableDatabase, StorageBackend};

use crate::limits::STORE_MERGE_NICENESS;
use crate::store::StoreError;
use crate::store::redb::base::{Base, Lag};
use crate::store::redb::file::{DatabasePart, Form, Layout, Log, Medium};
use crate::store::redb::recent::Recent;
use crate::store::redb::snapshot::{Snapshot, Transaction};
use crate::store::redb::tables::{last_seq, make_tables, shape_of};
use crate::store::redb::volume::{Merging, Opening, Volume};
use crate::store::redb::{Purpose, layout};

/// The store as readers see it.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Shown>);

#[derive(Default)]
struct Shown {
    /// Empty while it is being opened again.
    snapshot: RwLock<Option<Snapshot>>,
    could_not_be_read: AtomicBool,
}

impl Shared {
    /// The store at this moment.
    pub(super) fn get(&self) -> Result<Snapshot, StoreError> {
        let snapshot = self.0.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone();
        snapshot.ok_or_else(|| StoreError::Unavailable("the store is being opened again".into()))
    }

    /// What a reader has got, and remembers it if the file could not be read.
    pub(super) fn seen<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(read, Err(StoreError::Unavailable(_))) {
            self.0.could_not_be_read.store(true, atomic::Ordering::Relaxed);
        }
        read
    }

    /// Whether the file could not be read since this was last asked.
    pub(super) fn could_not_be_read(&self) -> bool {
        self.0.could_not_be_read.swap(false, atomic::Ordering::Relaxed)
    }

    /// Shows this from now on.
    pub(super) fn set(&self, snapshot: Option<Snapshot>) {
        let mut shown = self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *shown, snapshot);
        // What is not seen any more may take a while to free.
        drop(shown);
        drop(before);
    }
}

/// An open store.
pub(super) struct Engine {
    base: Arc<Base>,
    log: Log,
    snapshot: Snapshot,
    shared: Shared,
    merging: Merging,
    merge: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Engine {
    /// Opens what lies on a volume, and shows it to readers.
    pub(super) fn open(
        volume: &dyn Volume,
        opening: Opening,
        purpose: Purpose,
        shared: &Shared,
    ) -> Result<Self, StoreError> {
        let medium = volume.medium(opening)?;
        match (Form::of(&*medium)?, opening) {
            (Form::Empty, Opening::First) => Layout::new(volume.segment_bytes()).make(&*medium)?,
            (Form::Empty, Opening::Again) => {
                return Err(StoreError::Unavailable("the file is empty".into()));
            }
            (Form::Database, _) => {
                return Err(StoreError::Unsupported("it is a copy of a store".into()));
            }
            (Form::Store(layout), _) => {
                let part = DatabasePart::new(medium.clone(), layout.database_at());
                if part.len()? == 0 {
                    return Err(StoreError::Unsupported("its database is gone".into()));
                }
                if opening == Opening::Again {
                    part.mend()?;
                }
            }
        }
        let mut builder = Database::builder();
        builder.set_cache_size(volume.cache_bytes());
        let lag = volume.index_lag();
        let (base, log) = open_database(medium, &builder, lag, |database| match opening {
            Opening::First => make(database, purpose),
            Opening::Again => Ok(layout::check(&database.begin_read()?, purpose)?),
        })?;
        let log = log.ok_or_else(|| StoreError::Unsupported("it has no log".into()))?;
        let snapshot = Snapshot::of(&base)?;
        shared.set(Some(snapshot.clone()));
        Ok(Self {
            base: Arc::new(base),
            log,
            snapshot,
            shared: shared.clone(),
            merging: volume.merging(),
            merge: None,
        })
    }

    /// Where the run of numbers stands.
    pub(super) fn last_seq(&self) -> Result<u64, StoreError> {
        last_seq(&self.begin().tables())
    }

    /// Begins a transaction; there is one at a time.
    pub(super) fn begin(&self) -> Transaction {
        self.snapshot.begin()
    }

    /// Makes what a transaction wrote durable, and seen.
    pub(super) fn commit(&mut self, transaction: Transaction) -> Result<(), StoreError> {
        let mut written = transaction.end();
        if !self.log.has_room(&written.changes) {
            self.turn()?;
            written.active = Recent::default();
            written.active.replay(&written.changes, shape_of)?;
        }
        if self.log.fits(&written.changes) {
            self.log.append(&written.changes)?;
            self.snapshot.adopt(written);
            self.show();
            return Ok(());
        }
        // It is too much for the log, and goes into the database at once. What the log has must be
        // there before, or it would overrule this if we died.
        self.finish_merge()?;
        self.base.merge(&written.active)?;
        written.active = Recent::default();
        self.snapshot.adopt(written);
        self.take_over()
    }

    /// Does what is due between commits: takes over what was merged, and begins to merge.
    pub(super) fn tend(&mut self) -> Result<(), StoreError> {
        if self.merge.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish_merge()?;
        }
        // The rest of the segment is for what comes while its rows are being merged.
        let is_due = self.log.used_bytes() >= self.log.segment_bytes() / 8 * 5;
        if is_due && self.merge.is_none() { self.turn() } else { Ok(()) }
    }

    /// Goes on in the other segment of the log, and begins to bring what this one has into the
    /// database.
    fn turn(&mut self) -> Result<(), StoreError> {
        self.finish_merge()?;
        let sealed = self.log.turn();
        let rows = self.snapshot.freeze();
        self.show();
        let base = self.base.clone();
        let work = move || {
            base.merge(&rows)?;
            // From here on the rows are durable in the database; if we die before the segment is
            // released, opening brings the same rows there once more.
            Ok(sealed.release()?)
        };
        match self.merging {
            Merging::Between => {
                work()?;
                self.take_over()
            }
            Merging::Beside => {
                let thread = std::thread::Builder::new().name("store-merge".into());
                self.merge = Some(thread.spawn(move || {
                    give_way();
                    work()
                })?);
                Ok(())
            }
        }
    }

    /// Waits until everything that was set apart is in the database.
    fn finish_merge(&mut self) -> Result<(), StoreError> {
        let Some(merge) = self.merge.take() else { return Ok(()) };
        let panicked = |_| Err(StoreError::Unavailable("the merge panicked".into()));
        merge.join().unwrap_or_else(panicked)?;
        self.take_over()
    }

    fn take_over(&mut self) -> Result<(), StoreError> {
        let merged = self.snapshot.adopt_merged(&self.base)?;
        self.show();
        if self.merging == Merging::Beside {
            // A hundred thousand rows take a while to free, and nobody has to wait for that.
            let thread = std::thread::Builder::new().name("store-free".into());
            drop(thread.spawn(move || {
                give_way();
                drop(merged);
            }));
        }
        Ok(())
    }

    fn show(&self) {
        self.shared.set(Some(self.snapshot.clone()));
    }

    /// Gives the store up, with everything in the database if the disk takes it.
    pub(super) fn close(mut self, is_well: bool) {
        let closed = if is_well {
            self.turn().and_then(|()| self.finish_merge())
        } else {
            self.finish_merge()
        };
        if let Err(error) = closed {
            // What could not be brought into the database is when the file is opened again.
            tracing::error!(%error, "store could not be closed well");
        }
        self.shared.set(None);
        // The database gives back what nobody reads any more when it is closed, so it goes last.
        let Self { base, snapshot, .. } = self;
        drop(snapshot);
        drop(base);
    }
}

/// Lets whoever answers somebody go before this thread. If that leaves it no time, the log fills
/// up, and then everybody waits for it.
fn give_way() {
    // Elsewhere it would be said of the whole program.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, STORE_MERGE_NICENESS);
}

/// Opens the database of a file, brings what the log has into it, and empties the log. What has to
/// be done to the database before that is done first. A copy of a store has no log.
pub(super) fn open_database(
    medium: Arc<dyn Medium>,
    builder: &Builder,
    lag: Lag,
    prepare: impl FnOnce(&Database) -> Result<(), StoreError>,
) -> Result<(Base, Option<Log>), StoreError> {
    let layout = match Form::of(&*medium)? {
        Form::Empty => return Err(StoreError::Unsupported("it is empty".into())),
        Form::Database => {
            let database = builder.create_with_backend(DatabasePart::new(medium, 0))?;
            prepare(&database)?;
            return Ok((Base::new(database, lag)?, None));
        }
        Form::Store(layout) => layout,
    };
    let part = DatabasePart::new(medium.clone(), layout.database_at());
    let database = builder.create_with_backend(part)?;
    prepare(&database)?;
    let base = Base::new(database, lag)?;
    let (mut log, payloads) = Log::open(medium, layout).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => StoreError::Corrupt(error.to_string()),
        _ => error.into(),
    })?;
    if !payloads.is_empty() {
        let mut rows = Recent::default();
        for payload in payloads {
            rows.replay(&payload, shape_of)?;
        }
        base.merge(&rows)?;
        // From here on the database has everything, also a frame that a failed flush left in
        // memory only, where it could be read.
    }
    // Marks may be in memory only, too, so they are written in any case.
    log.reset()?;
    Ok((base, Some(log)))
}

/// Makes the tables of a new store, and refuses what is no store of ours.
fn make(database: &Database, purpose: Purpose) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    layout::mark(&transaction, purpose)?;
    make_tables(&transaction)?;
    transaction.commit()?;
    Ok(())
}
