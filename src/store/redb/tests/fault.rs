//! A disk that can fail, and counts: redb's memory backend with a switch.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

use crate::store::StoreError;
use crate::store::redb::{Opening, Purpose, RedbStore, Volume};

/// A disk; clones are the same one, and what is on it survives the database that used it.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<State>);

#[derive(Debug)]
struct State {
    content: InMemoryBackend,
    broken: AtomicBool,
    syncs: AtomicUsize,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self(Arc::new(State {
            content: InMemoryBackend::new(),
            broken: AtomicBool::new(false),
            syncs: AtomicUsize::new(0),
        }))
    }

    /// A store on this disk, opened again whenever it needs to be.
    pub(super) fn store(&self) -> RedbStore {
        RedbStore::open_on(Purpose::Live, self.clone()).unwrap()
    }

    /// Lets writes and flushes fail from now on, or work again.
    pub(super) fn set_broken(&self, broken: bool) {
        self.0.broken.store(broken, Ordering::SeqCst);
    }

    /// How often the disk was flushed.
    pub(super) fn syncs(&self) -> usize {
        self.0.syncs.load(Ordering::SeqCst)
    }

    fn writable(&self) -> io::Result<()> {
        if self.0.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("no space left"));
        }
        Ok(())
    }
}

impl Volume for Disk {
    fn open(&self, _: Opening) -> Result<Database, StoreError> {
        Ok(Database::builder().create_with_backend(self.clone())?)
    }

    fn is_writable(&self) -> bool {
        self.writable().is_ok()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.content.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.content.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.0.content.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.writable()?;
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        self.0.content.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writable()?;
        self.0.content.write(offset, data)
    }
}
