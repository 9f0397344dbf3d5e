//! A disk in memory that can lose its power, fill up and fail, at an operation that is chosen.
//!
//! What was flushed is kept apart from what was only written: of that, each sector survives a power
//! cut by chance, whatever the order it was written in.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;
use rand::rngs::StdRng;
use redb::StorageBackend;

use crate::store::StoreError;
use crate::store::redb::{Lag, Medium, Merging, Opening, Purpose, RedbStore, Volume};

const SECTOR: usize = 512;
/// Small, so that a segment of the log is full every few commits.
const SEGMENT_BYTES: u64 = 32 * 1024;
/// The number of the error "no space left on device".
pub(super) const ENOSPC: i32 = 28;
/// The number of the error "input/output error".
pub(super) const EIO: i32 = 5;

/// A write or a change of length.
#[derive(Clone, Debug)]
enum Piece {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl Piece {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => write_at(content, *offset, data),
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

fn write_at(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// A write by the sectors of the disk, where each begins and what of it is written.
fn sectors(offset: usize, data: &[u8]) -> impl ExactSizeIterator<Item = (usize, &[u8])> {
    let end = offset + data.len();
    let first = offset / SECTOR;
    (first..end.div_ceil(SECTOR)).map(move |sector| {
        let (from, to) = ((sector * SECTOR).max(offset), ((sector + 1) * SECTOR).min(end));
        (from, &data[from - offset..to - offset])
    })
}

/// When something goes wrong, counted from the first operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::redb) enum When {
    /// At a write, a change of length or a flush.
    Operation(u64),
    /// At a flush.
    Flush(u64),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::redb) enum Fault {
    /// The power goes before the operation has an effect.
    PowerCut,
    /// The power goes when the operation has had its effect and before anybody hears of it.
    PowerCutAfter,
    /// The operation fails with this error, and those after it do not.
    Once(i32),
    /// Everything fails with this error from here on, until the disk is repaired.
    FromHereOn(i32),
    /// A flush fails, once, and what it was to flush is not flushed by the next one either; it can
    /// be read until the power goes. That is how Linux does it.
    Forgotten,
}

/// How often something was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store::redb) struct Count {
    pub(in crate::store::redb) operations: u64,
    pub(in crate::store::redb) flushes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Works,
    Fails(i32),
    IsOff,
}

#[derive(Clone, Debug, Default)]
struct Platter {
    flushed: Vec<u8>,
    current: Vec<u8>,
    /// What was written and not flushed, in order.
    unflushed: Vec<Piece>,
    done: Count,
    plan: Option<(When, Fault)>,
    state: State,
    /// Whether a flush only says that it flushed.
    lies: bool,
    /// Whether what can be read is trusted when the store is opened again.
    is_trusted: bool,
}

impl Platter {
    /// A write, a change of length, or a flush.
    fn operate(&mut self, piece: Option<Piece>) -> io::Result<()> {
        self.done.operations += 1;
        self.done.flushes += u64::from(piece.is_none());
        let strikes = |(when, _): &(When, Fault)| match *when {
            When::Operation(number) => self.done.operations == number,
            When::Flush(number) => piece.is_none() && self.done.flushes == number,
        };
        let fault = self.plan.take_if(|plan| strikes(plan)).map(|(_, fault)| fault);
        match fault {
            None => {}
            Some(Fault::Once(error) | Fault::FromHereOn(error)) => self.state = State::Fails(error),
            Some(Fault::PowerCut) => self.state = State::IsOff,
            Some(Fault::PowerCutAfter) => {
                self.perform(piece.clone());
                self.state = State::IsOff;
            }
            Some(Fault::Forgotten) => {
                self.unflushed.clear();
                return Err(io::Error::from_raw_os_error(EIO));
            }
        }
        let done = match self.state {
            State::Works => {
                self.perform(piece);
                Ok(())
            }
            State::Fails(error) => {
                self.perform_half(piece);
                Err(io::Error::from_raw_os_error(error))
            }
            State::IsOff => Err(io::Error::other("no power")),
        };
        if let Some(Fault::Once(_)) = fault {
            self.state = State::Works;
        }
        done
    }

    /// Whether this is what can be read there.
    fn holds(&self, offset: u64, data: &[u8]) -> bool {
        let offset = usize::try_from(offset).unwrap();
        self.current.get(offset..offset + data.len()) == Some(data)
    }

    fn perform(&mut self, piece: Option<Piece>) {
        if let Some(piece) = piece {
            piece.apply(&mut self.current);
            self.unflushed.push(piece);
        } else if !self.lies {
            for piece in self.unflushed.drain(..) {
                piece.apply(&mut self.flushed);
            }
        }
    }

    /// What a write has done when it fails: half of its sectors are written.
    fn perform_half(&mut self, piece: Option<Piece>) {
        if let Some(Piece::Write { offset, mut data }) = piece {
            let sectors = sectors(offset, &data);
            let half = sectors.len() / 2;
            let written: usize = sectors.take(half).map(|(_, sector)| sector.len()).sum();
            data.truncate(written);
            self.perform(Some(Piece::Write { offset, data }));
        }
    }
}

/// A disk; clones are the same one, and what is on it survives the database that used it.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    /// A disk with an empty database on it.
    pub(crate) fn new() -> Self {
        let disk = Self(Arc::default());
        drop(disk.store());
        disk.with(|platter| {
            assert_eq!(platter.unflushed.len(), 0, "closing flushes");
            platter.done = Count::default();
        });
        disk
    }

    /// A disk with nothing on it.
    pub(in crate::store::redb) fn empty() -> Self {
        Self(Arc::default())
    }

    /// The same as a new one, but it only says that it flushes.
    pub(crate) fn that_lies() -> Self {
        let disk = Self::new();
        disk.lie();
        disk
    }

    /// From now on it only says that it flushes.
    pub(in crate::store::redb) fn lie(&self) {
        self.with(|platter| platter.lies = true);
    }

    /// The same, but what can be read of it after a failure is trusted to be on it.
    pub(super) fn that_is_trusted() -> Self {
        let disk = Self::new();
        disk.with(|platter| platter.is_trusted = true);
        disk
    }

    fn with<T>(&self, work: impl FnOnce(&mut Platter) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets something go wrong, once; a disk has one plan at a time.
    pub(in crate::store::redb) fn plan(&self, when: When, fault: Fault) {
        self.with(|platter| platter.plan = Some((when, fault)));
    }

    /// Lets the power go after so many further operations.
    pub(crate) fn cut_after(&self, operations: u64) {
        let done = self.count().operations;
        self.plan(When::Operation(done + operations + 1), Fault::PowerCut);
    }

    /// Whether what was planned has happened.
    pub(in crate::store::redb) fn has_struck(&self) -> bool {
        self.with(|platter| platter.plan.is_none())
    }

    /// Whether everything fails for now.
    pub(crate) fn is_broken(&self) -> bool {
        self.with(|platter| platter.state != State::Works)
    }

    /// Lets everything fail from now on, or work again.
    pub(super) fn set_broken(&self, broken: bool) {
        let state = if broken { State::Fails(ENOSPC) } else { State::Works };
        self.with(|platter| platter.state = state);
    }

    /// All that can be read of it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.with(|platter| platter.current.clone())
    }

    /// What was done so far.
    pub(in crate::store::redb) fn count(&self) -> Count {
        self.with(|platter| platter.done)
    }

    /// The disk as it may be found when the power comes back. Each time it is another one; this
    /// one stays as it is.
    pub(crate) fn after_the_cut(&self, random: &mut StdRng) -> Self {
        let keep = [0.0, 0.1, 0.5, 0.9, 1.0][random.random_range(0..5)];
        self.after_keeping(keep, random)
    }

    /// The same, with this probability for each sector to survive.
    pub(super) fn after_keeping(&self, keep: f64, random: &mut StdRng) -> Self {
        let (mut content, lies) = self.with(|platter| (platter.flushed.clone(), platter.lies));
        for piece in self.with(|platter| platter.unflushed.clone()) {
            match piece {
                Piece::Length(_) if random.random_bool(keep) => piece.apply(&mut content),
                Piece::Length(_) => {}
                Piece::Write { offset, data } => {
                    for (at, sector) in sectors(offset, &data) {
                        if random.random_bool(keep) {
                            write_at(&mut content, at, sector);
                        }
                    }
                }
            }
        }
        let flushed = content.clone();
        let found = Platter { flushed, current: content, lies, ..Platter::default() };
        Self(Arc::new(Mutex::new(found)))
    }

    /// Opens the store on this disk; it is opened again whenever it needs to be.
    pub(crate) fn try_store(&self) -> Result<RedbStore, StoreError> {
        let open = || RedbStore::open_on(Purpose::Live, self.clone());
        // redb may panic on what a disk that lies has left.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(open));
        opened.unwrap_or_else(|_| Err(StoreError::Unsupported("opening it panics".into())))
    }

    /// The same, when it has to work.
    pub(super) fn store(&self) -> RedbStore {
        self.try_store().unwrap()
    }
}

impl Volume for Disk {
    fn medium(&self, _: Opening) -> Result<Arc<dyn Medium>, StoreError> {
        Ok(Arc::new(self.clone()))
    }

    fn is_writable(&self) -> bool {
        !self.is_broken()
    }

    fn merging(&self) -> Merging {
        Merging::Between
    }

    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES
    }

    fn cache_bytes(&self) -> usize {
        1024 * 1024
    }

    fn index_lag(&self) -> Lag {
        Lag { part: 1, max: 3 }
    }
}

impl Medium for Disk {
    fn write_through(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.with(|platter| platter.is_trusted && platter.holds(offset, data)) {
            return Ok(());
        }
        self.write(offset, data)?;
        self.sync_data()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|platter| platter.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.with(|platter| {
            let held = platter.current.get(offset..offset + out.len());
            out.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).unwrap();
        self.with(|platter| platter.operate(Some(Piece::Length(length))))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|platter| platter.operate(None))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.with(|platter| platter.operate(Some(Piece::Write { offset, data: data.to_vec() })))
    }
}
