//! Copying a store while it is in use.
//!
//! A snapshot is the store as it was at one moment, however long the copying takes, and every row
//! of it goes into a new database. So the copy is consistent and packed. Meanwhile the store can't
//! use the pages again that its writes free, and grows by them.
//!
//! A copy must never cost the store its disk: it fails when the disk is nearly full, long before a
//! write of the store's does. Reading the file itself would not do: its pages change meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, StorageBackend};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::domain::time::Timestamp;
use crate::limits::{COPY_CACHE_BYTES, COPY_CHUNK_BYTES, COPY_RESERVE_BYTES};
use crate::store::redb::engine::Shared;
use crate::store::redb::error::from_redb;
use crate::store::redb::proof::{open_file, prove};
use crate::store::redb::snapshot::Snapshot;
use crate::store::redb::tables::{Tables, mark_copy};
use crate::store::{BackedUp, StoreCopy, StoreError};

/// What became of copying one file into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The copy is whole.
    Done,
    /// The disk is too full, and the copy is not to be used.
    NoRoom,
}

/// See [`crate::store::Store::back_up`].
pub(super) fn back_up(
    shared: &Shared,
    folder: &Path,
    now: Timestamp,
    turn: OwnedSemaphorePermit,
    stop: CancellationToken,
) -> Result<BackedUp, StoreError> {
    // It does not keep the file open: if that fails and has to be opened again meanwhile it can be,
    // and the copying fails instead.
    let transaction = shared.get()?.begin();
    let file = match tempfile::tempfile_in(folder) {
        Ok(file) => Arc::new(file),
        Err(error) if is_full(&error) => return Ok(BackedUp::NoRoom),
        Err(error) => return Err(error.into()),
    };
    let copy = CopyFile { file: file.clone(), stop };
    if copy_into(&transaction.tables(), copy.clone(), now)? == Copied::NoRoom {
        return Ok(BackedUp::NoRoom);
    }
    let rows = transaction.tables().count_rows()?;
    drop(transaction);
    if prove(copy.clone(), now)?.rows != rows {
        return Err(StoreError::Corrupt("the copy has not the rows of the store".into()));
    }
    let (bytes, sha256) = measure(&copy)?;
    drop(copy);
    let file = Arc::into_inner(file)
        .ok_or_else(|| StoreError::Unavailable("the copy is still in use".into()))?;
    Ok(BackedUp::Done(StoreCopy { file, bytes, sha256, _turn: turn }))
}

/// Copies the file of a store that no server has open, into a file that must not exist yet, and
/// leaves the first as it is. The copy is flushed, and not proven.
///
/// # Errors
/// [`StoreError::Unsupported`] if the file is in use or no store of ours; others as they come.
pub fn copy_file(store: &Path, file: File, now: Timestamp) -> Result<Copied, StoreError> {
    let base = open_file(store)?;
    let file = Arc::new(file);
    let copy = CopyFile { file: file.clone(), stop: CancellationToken::new() };
    let copied = copy_into(&Snapshot::of(&base)?.begin().tables(), copy, now)?;
    file.sync_all()?;
    Ok(copied)
}

/// Copies all rows into a new database.
pub(super) fn copy_into(
    tables: &Tables<'_>,
    backend: impl StorageBackend,
    now: Timestamp,
) -> Result<Copied, StoreError> {
    match try_copy_into(tables, backend, now) {
        Ok(()) => Ok(Copied::Done),
        Err(redb::Error::Io(error)) if is_full(&error) => Ok(Copied::NoRoom),
        Err(error) => Err(from_redb(error)),
    }
}

fn try_copy_into(
    tables: &Tables<'_>,
    backend: impl StorageBackend,
    now: Timestamp,
) -> Result<(), redb::Error> {
    let mut builder = Database::builder();
    let mut database = builder.set_cache_size(COPY_CACHE_BYTES).create_with_backend(backend)?;
    let copying = database.begin_write()?;
    tables.copy_to(&copying)?;
    mark_copy(&copying, now)?;
    copying.commit()?;
    // A new file has grown in large steps; the last one is given back.
    database.compact()?;
    // Closing writes, too; a mere drop would hide that it failed.
    database.close()?;
    Ok(())
}

/// Length and SHA-256.
fn measure(copy: &CopyFile) -> io::Result<(u64, [u8; 32])> {
    let (bytes, mut at, mut digest) = (copy.len()?, 0, Sha256::new());
    let mut chunk = vec![0; COPY_CHUNK_BYTES];
    while at < bytes {
        let wanted = usize::try_from(bytes - at).map_or(chunk.len(), |left| left.min(chunk.len()));
        copy.read(at, &mut chunk[..wanted])?;
        digest.update(&chunk[..wanted]);
        at += wanted as u64;
    }
    Ok((bytes, digest.finalize().into()))
}

/// Fails, as a full disk does, once less than the reserve is free on the disk of a file.
pub fn check_room(file: &File) -> io::Result<()> {
    let disk = rustix::fs::fstatvfs(file)?;
    // Not every file system tells.
    let is_known = disk.f_blocks > 0;
    if is_known && disk.f_bavail.saturating_mul(disk.f_frsize) < COPY_RESERVE_BYTES {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file that a copy is written to; it can be stopped at any read and write.
#[derive(Clone, Debug)]
pub(super) struct CopyFile {
    pub(super) file: Arc<File>,
    pub(super) stop: CancellationToken,
}

impl CopyFile {
    fn check_stop(&self) -> io::Result<()> {
        if self.stop.is_cancelled() { Err(io::Error::other("stopped")) } else { Ok(()) }
    }
}

impl StorageBackend for CopyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_stop()?;
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        // A copy that is not finished is worth nothing; whoever keeps a finished one flushes it.
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_stop()?;
        check_room(&self.file)?;
        self.file.write_all_at(data, offset)
    }
}
