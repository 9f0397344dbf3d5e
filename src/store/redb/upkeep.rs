//! What is done to the file of a store while no server has it: putting a backup in place, and
//! giving unused space back.
//!
//! Every step leaves a whole store under the name, the old one or the new one, where the file
//! system has hard links; nothing that was there is ever deleted.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use crate::domain::time::Timestamp;
use crate::limits::COPY_CACHE_BYTES;
use crate::store::StoreError;
use crate::store::redb::Purpose;
use crate::store::redb::base::Lag;
use crate::store::redb::engine::open_database;
use crate::store::redb::proof::{Contents, check_ours, prove_file};
use crate::store::redb::volume::{StoreFile, folder_of, private_file, sync_folder};

/// A backup that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it holds.
    pub contents: Contents,
    /// Where the store went that was there before.
    pub kept: Option<PathBuf>,
}

/// The length of a store's file in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Before it was compacted.
    pub before: u64,
    /// Afterwards.
    pub after: u64,
}

/// Puts a backup in the place of a store, after it has been copied there and proven. A store that
/// is there already is replaced if that is wished, and kept under another name.
///
/// # Errors
/// [`StoreError::Unsupported`] if the backup is not one, is for another purpose, or a store is
/// there that is in use or not to be replaced; [`StoreError::Corrupt`] if it is damaged;
/// [`StoreError::Unavailable`] if something can't be read or written.
pub fn restore(
    backup: &Path,
    store: &Path,
    purpose: Purpose,
    replace: bool,
    now: Timestamp,
) -> Result<Restored, StoreError> {
    let _kept_from_servers = lock_store(store, replace)?;
    let unfinished = store.with_added_extension("restore");
    let placed = place(backup, &unfinished, store, purpose, now);
    if placed.is_err() {
        // What could not be put in place helps nobody.
        let _ = std::fs::remove_file(&unfinished);
    }
    placed
}

fn place(
    backup: &Path,
    unfinished: &Path,
    store: &Path,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Restored, StoreError> {
    copy_bytes(backup, unfinished)?;
    give_to_owner(unfinished, store)?;
    let contents = prove_purpose(unfinished, purpose, now)?;
    let kept = put_in_place(unfinished, store, now)?;
    Ok(Restored { contents, kept })
}

/// Keeps servers away from a store that is there, as long as the answer is held.
fn lock_store(store: &Path, replace: bool) -> Result<Option<FileBackend>, StoreError> {
    let file = match OpenOptions::new().read(true).write(true).open(store) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let backend = FileBackend::new(file)?;
    match backend.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
        Ok(false) => Err(redb::DatabaseError::DatabaseAlreadyOpen.into()),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
        Ok(true) if !replace => Err(StoreError::Unsupported(
            "a store is there already; --force keeps it under another name".into(),
        )),
        Ok(true) => Ok(Some(backend)),
    }
}

fn copy_bytes(backup: &Path, copy: &Path) -> io::Result<()> {
    let mut backup = File::open(backup)?;
    let mut copy = private_file(copy)?;
    copy.set_len(0)?;
    io::copy(&mut backup, &mut copy)?;
    copy.sync_all()
}

/// Makes a file belong to whoever owns the store that is there, or the folder that it goes to: who
/// restores is the administrator, often, and not the user that the server runs as.
fn give_to_owner(file: &Path, store: &Path) -> io::Result<()> {
    let there = if store.exists() { store } else { folder_of(store) };
    let (owner, ours) = (std::fs::metadata(there)?, std::fs::metadata(file)?);
    if (owner.uid(), owner.gid()) != (ours.uid(), ours.gid()) {
        // Only the administrator may; everybody else keeps what is their own.
        let _ = std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid()));
    }
    Ok(())
}

fn prove_purpose(path: &Path, purpose: Purpose, now: Timestamp) -> Result<Contents, StoreError> {
    let contents = prove_file(path, now)?;
    if contents.purpose != purpose {
        let what = match contents.purpose {
            Purpose::Live => "it holds live leads, and the store is for a run with --sandbox",
            Purpose::Sandbox => "it was made by a run with --sandbox",
        };
        return Err(StoreError::Unsupported(what.into()));
    }
    Ok(contents)
}

/// Gives a proven file the store's name. The store that has it gets another name first, which
/// tells the time.
fn put_in_place(unfinished: &Path, store: &Path, now: Timestamp) -> io::Result<Option<PathBuf>> {
    if !store.exists() {
        publish(unfinished, store)?;
        return Ok(None);
    }
    let time = jiff::Timestamp::from_millisecond(now.as_millis()).map_err(io::Error::other)?;
    let kept = store.with_added_extension(time.strftime("replaced-%Y%m%dT%H%M%SZ").to_string());
    replace(unfinished, store, &kept, |store, kept| std::fs::hard_link(store, kept))?;
    sync_folder(store)?;
    Ok(Some(kept))
}

/// Keeps a store under another name, and puts a file in its place.
pub(super) fn replace(
    unfinished: &Path,
    store: &Path,
    kept: &Path,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    // It has both names for a moment, and a file that is kept already is not overwritten. If we
    // die before the next step the store is as it was; after it, the backup is in place.
    match link(store, kept) {
        Ok(()) => std::fs::rename(unfinished, store),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists || kept.exists() => Err(error),
        // Not every file system has two names for a file. If we die between these two steps, the
        // store has its other name only.
        Err(_) => {
            std::fs::rename(store, kept)?;
            std::fs::rename(unfinished, store).inspect_err(|_| {
                let _ = std::fs::rename(kept, store);
            })
        }
    }
}

/// Gives a finished file its name, which must not be taken, and makes that durable.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the name is taken; others as they come.
pub fn publish(unfinished: &Path, path: &Path) -> io::Result<()> {
    match std::fs::hard_link(unfinished, path) {
        Ok(()) => std::fs::remove_file(unfinished)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists || path.exists() => {
            return Err(error);
        }
        // Not every file system has two names for a file.
        Err(_) => std::fs::rename(unfinished, path)?,
    }
    sync_folder(path)
}

/// Gives the unused space inside a store's file back to the disk. If we die meanwhile, the store is
/// whole, and as long as it was at that moment.
///
/// # Errors
/// [`StoreError::Unsupported`] if a server has the file open or it is no store of ours; others as
/// they come.
pub fn compact(path: &Path) -> Result<Compacted, StoreError> {
    let length = || std::fs::metadata(path).map(|file| file.len());
    let before = length()?;
    let mut builder = Database::builder();
    builder.set_cache_size(COPY_CACHE_BYTES);
    let file = Arc::new(StoreFile::open(path)?);
    let (base, _) = open_database(file, &builder, Lag::default(), check_ours)?;
    base.settle()?;
    let mut database = base.into_database();
    database.compact().map_err(|error| StoreError::Unavailable(error.to_string()))?;
    database.close()?;
    Ok(Compacted { before, after: length()? })
}
