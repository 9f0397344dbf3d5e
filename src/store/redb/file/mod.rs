//! The file of a store: a log of what was committed last, and the database behind it.
//!
//! ```text
//! | header | segment of the log | segment of the log | database |
//! ```
//!
//! A commit is one write to the log. The database has what was committed before, and gets the rest
//! later, in large pieces. A copy of a store has no log and no header: it is a database alone, and
//! becomes a store when a server first opens it. What the rows mean is not known here.

mod log;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::InMemoryBackend;
use redb::{BackendError, StorageBackend};

use crate::limits::{STORE_CHUNK_BYTES, STORE_FLUSH_BYTES};
use crate::store::StoreError;
pub(super) use log::Log;

/// What the parts of the file are multiples of, in bytes.
pub(super) const BLOCK: u64 = 4_096;
const MAGIC: [u8; 16] = *b"leadloop store 2";
/// How one of another version begins.
const OTHER_MAGIC: &[u8] = b"leadloop store ";
/// How a file of redb's begins.
const DATABASE_MAGIC: [u8; 4] = *b"redb";
/// How the last sector of one begins that has a journal behind it.
const JOURNAL_MAGIC: [u8; 8] = *b"lljourn1";
const SECTOR_BYTES: u64 = 512;
/// Where the header's fields stand, in bytes.
const SEGMENT_AT: usize = 16;
const CHECKSUM_AT: usize = 24;
const HEADER_BYTES: usize = 32;

/// What a file lies on.
pub trait Medium: StorageBackend {
    /// Writes, and returns when this is durable; the rest need not be.
    ///
    /// # Errors
    /// As they come from the medium.
    fn write_through(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(offset, data)?;
        self.sync_data()
    }
}

impl Medium for InMemoryBackend {}

/// What a file was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing yet.
    Empty,
    /// A database alone.
    Database,
    /// A store.
    Store(Layout),
}

impl Form {
    /// Looks at what lies on a medium.
    pub(super) fn of(medium: &dyn Medium) -> Result<Self, StoreError> {
        let length = medium.len()?;
        let mut head = [0; HEADER_BYTES];
        let there = usize::try_from(length).unwrap_or(HEADER_BYTES).min(HEADER_BYTES);
        medium.read(0, &mut head[..there])?;
        if length == 0 {
            Ok(Self::Empty)
        } else if head.starts_with(&DATABASE_MAGIC) {
            refuse_journal(medium, length)?;
            Ok(Self::Database)
        } else {
            let layout = Layout::read(&head);
            layout.map(Self::Store).ok_or_else(|| {
                let is_other = head.starts_with(OTHER_MAGIC) && !head.starts_with(&MAGIC);
                let problem = if is_other { "another version wrote it" } else { "it is no store" };
                StoreError::Unsupported(problem.into())
            })
        }
    }
}

/// Refuses a database with a journal behind it, which this program cannot read any more.
fn refuse_journal(medium: &dyn Medium, length: u64) -> Result<(), StoreError> {
    let mut trailer = [0; JOURNAL_MAGIC.len()];
    if let Some(at) = length.checked_sub(SECTOR_BYTES) {
        medium.read(at, &mut trailer)?;
    }
    if trailer == JOURNAL_MAGIC {
        let problem = "it was not closed by the version that wrote it: start that and stop it";
        return Err(StoreError::Unsupported(problem.into()));
    }
    Ok(())
}

/// Where the parts of the file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    segment_bytes: u64,
}

impl Layout {
    /// A log with segments of this size, in bytes; a multiple of [`BLOCK`].
    pub(super) fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes }
    }

    fn read(head: &[u8; HEADER_BYTES]) -> Option<Self> {
        let segment_bytes = field(head, SEGMENT_AT)?;
        let layout = Self { segment_bytes };
        let is_possible = segment_bytes.is_multiple_of(BLOCK)
            && (2 * BLOCK..=1 << 40).contains(&segment_bytes)
            && *head == layout.header();
        is_possible.then_some(layout)
    }

    fn header(self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..SEGMENT_AT].copy_from_slice(&MAGIC);
        header[SEGMENT_AT..CHECKSUM_AT].copy_from_slice(&self.segment_bytes.to_le_bytes());
        let checksum = u64::from(crc32fast::hash(&header[..CHECKSUM_AT]));
        header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    fn segment_at(self, segment: usize) -> u64 {
        BLOCK + segment as u64 * self.segment_bytes
    }

    /// Where the database begins.
    pub(super) fn database_at(self) -> u64 {
        self.segment_at(2)
    }

    /// Makes an empty file a store with an empty log and no database.
    pub(super) fn make(self, medium: &dyn Medium) -> io::Result<()> {
        // The log is written now, so that a flush has nothing to note about the file later on.
        medium.set_len(self.database_at())?;
        for at in (BLOCK..self.database_at()).step_by(ZEROS.len()) {
            let length = (self.database_at() - at).min(ZEROS.len() as u64);
            medium.write(at, &ZEROS[..index(length)])?;
        }
        Log::make(medium, self)?;
        medium.sync_data()?;
        // From here on it is a store; if we die before, it has no name yet.
        medium.write_through(0, &self.header())
    }
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The number in a field, in little-endian order.
fn field(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("it is within a slice")
}

/// The database's part of a file.
#[derive(Debug)]
pub(super) struct DatabasePart {
    medium: Arc<dyn Medium>,
    start: u64,
    /// Bytes that were written since the last flush.
    unflushed: AtomicU64,
}

impl DatabasePart {
    /// The part that begins there.
    pub(super) fn new(medium: Arc<dyn Medium>, start: u64) -> Self {
        Self { medium, start, unflushed: AtomicU64::new(0) }
    }

    /// Writes everything once more, as it can be read: a flush that failed may have left some of it
    /// in memory only, where no later flush looks for it.
    pub(super) fn mend(&self) -> io::Result<()> {
        let (length, mut at) = (self.len()?, 0);
        let mut chunk = vec![0; STORE_CHUNK_BYTES];
        while at < length {
            let piece = chunk.len().min(index(length - at));
            self.read(at, &mut chunk[..piece])?;
            // Where nothing was written yet there is a hole, which a full disk can't fill.
            if chunk[..piece].iter().any(|byte| *byte != 0) {
                self.medium.write(self.start + at, &chunk[..piece])?;
            }
            at += piece as u64;
        }
        self.sync_data()
    }
}

impl StorageBackend for DatabasePart {
    fn len(&self) -> io::Result<u64> {
        Ok(self.medium.len()?.saturating_sub(self.start))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.medium.read(self.start + offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.medium.set_len(self.start + len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unflushed.store(0, Ordering::Relaxed);
        self.medium.sync_data()
    }

    /// Flushes now and then without being asked, so that the log waits for a piece and not for all
    /// of it. An error of such a flush comes from here, which the database minds for all that it
    /// has to write, and it has to write everything: each of its commits is flushed.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.medium.write(self.start + offset, data)?;
        let written = data.len() as u64;
        let unflushed = self.unflushed.fetch_add(written, Ordering::Relaxed) + written;
        if unflushed < STORE_FLUSH_BYTES { Ok(()) } else { self.sync_data() }
    }

    fn close(&self) -> io::Result<()> {
        self.medium.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.medium.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.medium.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.medium.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.medium.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.medium.unlock_range(start, end)
    }
}
