//! A journal below the database: a commit is one write to one place.
//!
//! A commit of the database changes pages all over its file, and a disk takes each of them for
//! itself. Here they go into a journal first, in one piece and with one flush, and that makes the
//! commit durable; to their places they are brought later, many at a time, while the next commits
//! go on. Whoever reads gets a block from the newest place where it stands.
//!
//! The journal lies behind the database in the same file, and only while the file is open: closing
//! brings everything to its place and leaves nothing but the database. After a crash, opening finds
//! the frames that are whole, and goes on where we were. Nothing that is in the journal is
//! overwritten before it is at its place, and durable there.

mod frame;
mod region;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use redb::{BackendError, StorageBackend};

use frame::{BLOCK, Frame};
pub(super) use region::Sizes;
use region::{Blocks, Region};

/// What a journal needs of the medium that it lies on.
pub(super) trait Medium: StorageBackend {
    /// Writes, and returns when this is durable; the rest need not be.
    fn write_through(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(offset, data)?;
        self.sync_data()
    }
}

/// Who brings blocks to their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checkpoints {
    /// A thread, while commits go on.
    Beside,
    /// Whoever commits, before the next commit; then the same is always done in the same order.
    Between,
}

/// A medium with a journal.
#[derive(Debug)]
pub(super) struct Journaled<M> {
    shared: Arc<Shared<M>>,
    journal: Mutex<Journal>,
    checkpoints: Checkpoints,
    sizes: Sizes,
}

/// What those who read and those who bring blocks to their places share.
#[derive(Debug)]
struct Shared<M> {
    medium: M,
    layers: RwLock<Layers>,
}

/// Where the newest version of each block stands; below is the database's own place.
#[derive(Debug)]
struct Layers {
    /// The length of the database, in bytes.
    length: u64,
    /// What the commit under way wrote.
    pending: Arc<Frame>,
    /// What stands in the segment that frames are appended to.
    active: Blocks,
    /// What stands in the other one, while it is brought to its place.
    sealed: Arc<Blocks>,
}

/// What only those who write look at.
#[derive(Debug, Default)]
struct Journal {
    /// None before the first commit, and while the database changes its length.
    region: Option<Region>,
    checkpoint: Option<JoinHandle<io::Result<()>>>,
    /// Something could not be written, so what is on the medium is not known. Opening it anew
    /// finds out.
    has_failed: bool,
}

impl<M: Medium> Journaled<M> {
    /// Opens what lies on a medium, with what a journal on it holds. The medium must be locked.
    pub(super) fn open(medium: M, checkpoints: Checkpoints, sizes: Sizes) -> io::Result<Self> {
        let found = Region::find(&medium)?;
        let mut layers = Layers {
            // A journal that is not in use any more has been cut off by now.
            length: medium.len()?,
            pending: Arc::new(Frame::new()),
            active: Blocks::new(),
            sealed: Arc::default(),
        };
        let mut journal = Journal::default();
        if let Some(found) = found {
            layers.length = found.length;
            layers.active = found.active;
            layers.sealed = Arc::new(found.sealed);
            journal.region = Some(found.region);
        }
        let shared = Arc::new(Shared { medium, layers: RwLock::new(layers) });
        Ok(Self { shared, journal: Mutex::new(journal), checkpoints, sizes })
    }

    /// The journal, for those who change something; an error if something has failed before.
    fn change<T>(&self, work: impl FnOnce(&mut Journal) -> io::Result<T>) -> io::Result<T> {
        let mut journal = self.journal();
        if journal.has_failed {
            return Err(io::Error::other("a write has failed before"));
        }
        let done = work(&mut journal);
        journal.has_failed = done.is_err();
        done
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what was written since the last commit durable.
    fn commit(&self, journal: &mut Journal) -> io::Result<()> {
        let Some(frame) = self.finish_frame(journal)? else { return Ok(()) };
        let region = journal.region.as_mut().expect("finishing a frame makes room for it");
        let place = region.append(&self.shared.medium, frame.bytes(), self.sizes)?;
        // From here on the commit is durable; if we die now, opening finds its frame.
        let mut layers = self.shared.layers_mut();
        layers.active.extend(frame.blocks().map(|(number, at)| (number, place + at)));
        drop(frame);
        Arc::make_mut(&mut layers.pending).clear();
        let gathered = (layers.length / 4).max(self.sizes.checkpoint_bytes_min);
        drop(layers);
        journal.collect(false)?;
        let is_due = journal
            .region
            .as_ref()
            .is_some_and(|region| region.tail() >= gathered.min(self.sizes.segment_bytes / 2));
        if is_due && journal.checkpoint.is_none() { self.turn(journal) } else { Ok(()) }
    }

    /// The frame of the commit under way, and room for it; `None` if nothing was written.
    fn finish_frame(&self, journal: &mut Journal) -> io::Result<Option<Arc<Frame>>> {
        let (length, bytes) = {
            let layers = self.shared.layers();
            if layers.pending.is_empty() {
                return Ok(None);
            }
            (layers.length, layers.pending.bytes().len())
        };
        if journal.region.as_ref().is_some_and(|region| !region.fits(bytes)) {
            self.fold(journal)?;
        }
        if journal.region.as_ref().is_some_and(|region| !region.has_room(bytes)) {
            self.turn(journal)?;
        }
        if journal.region.is_none() {
            let region = Region::make(&self.shared.medium, length, bytes, self.sizes)?;
            journal.region = Some(region);
        }
        let seq = journal.region.as_ref().map_or(0, Region::next_seq);
        let mut layers = self.shared.layers_mut();
        Arc::make_mut(&mut layers.pending).finish(seq, length);
        Ok(Some(layers.pending.clone()))
    }

    /// Goes on in the other segment, and begins to bring what this one holds to its place.
    fn turn(&self, journal: &mut Journal) -> io::Result<()> {
        self.finish_checkpoint(journal)?;
        let mut layers = self.shared.layers_mut();
        layers.sealed = Arc::new(std::mem::take(&mut layers.active));
        drop(layers);
        if let Some(region) = &mut journal.region {
            region.turn(&self.shared.medium)?;
        }
        match self.checkpoints {
            Checkpoints::Between => self.shared.checkpoint(),
            Checkpoints::Beside => {
                let shared = self.shared.clone();
                let thread = std::thread::Builder::new().name("store-checkpoint".into());
                journal.checkpoint = Some(thread.spawn(move || shared.checkpoint())?);
                Ok(())
            }
        }
    }

    /// Waits until the sealed segment is at its place, whoever brings it there.
    fn finish_checkpoint(&self, journal: &mut Journal) -> io::Result<()> {
        journal.collect(true)?;
        // After a crash nobody has begun.
        self.shared.checkpoint()
    }

    /// Brings everything to its place and gives the journal up, so that the file is the database
    /// and nothing else.
    fn fold(&self, journal: &mut Journal) -> io::Result<()> {
        self.finish_checkpoint(journal)?;
        let Some(region) = &journal.region else { return Ok(()) };
        let mut layers = self.shared.layers_mut();
        layers.sealed = Arc::new(std::mem::take(&mut layers.active));
        drop(layers);
        self.shared.checkpoint()?;
        region.remove(&self.shared.medium)?;
        journal.region = None;
        Ok(())
    }

    fn set_length(&self, journal: &mut Journal, length: u64) -> io::Result<()> {
        self.fold(journal)?;
        self.shared.medium.set_len(length)?;
        let mut layers = self.shared.layers_mut();
        layers.length = length;
        Arc::make_mut(&mut layers.pending).truncate(length.div_ceil(BLOCK as u64));
        Ok(())
    }
}

impl Journal {
    /// What became of the thread that brings blocks to their places, if it has ended.
    fn collect(&mut self, wait: bool) -> io::Result<()> {
        let ended = self.checkpoint.take_if(|thread| wait || thread.is_finished());
        let panicked = |_| Err(io::Error::other("the checkpoint panicked"));
        ended.map_or(Ok(()), |thread| thread.join().unwrap_or_else(panicked))
    }
}

impl<M: Medium> Shared<M> {
    fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn layers_mut(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings what the sealed segment holds to its place, but for what was written again since.
    fn checkpoint(&self) -> io::Result<()> {
        let sealed = self.layers().sealed.clone();
        if sealed.is_empty() {
            return Ok(());
        }
        let mut block = [0; BLOCK];
        for (&number, &at) in &*sealed {
            if !self.layers().active.contains_key(&number) {
                self.medium.read(at, &mut block)?;
                self.medium.write(number * BLOCK as u64, &block)?;
            }
        }
        self.medium.sync_data()?;
        // From here on these blocks are durable at their places, or newer ones in the other
        // segment are; if we die now, opening brings them there once more.
        self.layers_mut().sealed = Arc::default();
        Ok(())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        let layers = self.layers();
        if end > layers.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut numbers = offset / BLOCK as u64..end.div_ceil(BLOCK as u64);
        if numbers.clone().all(|number| layers.is_at_its_place(number)) {
            // A block that is read does not change meanwhile, so nobody has to wait for the disk.
            drop(layers);
            return self.medium.read(offset, out);
        }
        numbers.try_for_each(|number| {
            let (within, piece) = part(number, offset, out);
            // As long as the lock is held, no segment is used for something else.
            layers.read(&self.medium, number, within, piece)
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        let mut layers = self.layers_mut();
        if end > layers.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for number in offset / BLOCK as u64..end.div_ceil(BLOCK as u64) {
            let start = number * BLOCK as u64;
            let (first, last) = (offset.max(start), end.min(start + BLOCK as u64));
            let is_whole = last - first == BLOCK as u64;
            if !is_whole && layers.pending.get(number).is_none() {
                let mut block = [0; BLOCK];
                let held = within(layers.length.saturating_sub(start)).min(BLOCK);
                layers.read(&self.medium, number, 0, &mut block[..held])?;
                Arc::make_mut(&mut layers.pending).get_mut(number).copy_from_slice(&block);
            }
            let block = Arc::make_mut(&mut layers.pending).get_mut(number);
            block[within(first - start)..within(last - start)]
                .copy_from_slice(&data[within(first - offset)..within(last - offset)]);
        }
        Ok(())
    }
}

impl Layers {
    fn is_at_its_place(&self, number: u64) -> bool {
        self.pending.get(number).is_none()
            && !self.active.contains_key(&number)
            && !self.sealed.contains_key(&number)
    }

    /// Reads from a block, from `at` on.
    fn read(&self, medium: &impl Medium, number: u64, at: usize, out: &mut [u8]) -> io::Result<()> {
        if let Some(block) = self.pending.get(number) {
            out.copy_from_slice(&block[at..at + out.len()]);
            return Ok(());
        }
        let journaled = self.active.get(&number).or_else(|| self.sealed.get(&number));
        let block = journaled.copied().unwrap_or(number * BLOCK as u64);
        medium.read(block + at as u64, out)
    }
}

/// The part of what is to be read from `offset` on that is in a block, and where in that it begins.
fn part(number: u64, offset: u64, out: &mut [u8]) -> (usize, &mut [u8]) {
    let start = number * BLOCK as u64;
    let first = offset.max(start);
    let last = (offset + out.len() as u64).min(start + BLOCK as u64);
    (within(first - start), &mut out[within(first - offset)..within(last - offset)])
}

fn within(offset: u64) -> usize {
    usize::try_from(offset).expect("it is within a slice")
}

impl<M: Medium> StorageBackend for Journaled<M> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.shared.layers().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.shared.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|journal| self.set_length(journal, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|journal| self.commit(journal))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.shared.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        let folded = self.change(|journal| self.fold(journal));
        // Nobody else may open the file as long as a thread writes to it.
        let _ = self.journal().collect(true);
        // What could not be brought to its place is when the file is opened again.
        self.shared.medium.close().and(folded)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.shared.medium.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.shared.medium.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.shared.medium.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.shared.medium.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.shared.medium.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.shared.medium.query_lock_range(start, end)
    }
}
