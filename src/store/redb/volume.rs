//! What the file of a store lies on: how it is opened, and whether it can be written at the moment.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Bound;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend};
use rustix::fs::OFlags;

use crate::limits::{
    COPY_CHUNK_BYTES, STORE_CACHE_BYTES, STORE_LOG_SEGMENT_BYTES, STORE_PROBE_BYTES,
};
use crate::store::StoreError;
use crate::store::redb::base::Lag;
use crate::store::redb::file::{DatabasePart, Form, Layout, Medium};
use crate::store::redb::proof::open_unchanged;
use crate::store::redb::{Purpose, layout};

/// Whether a store is opened at the start, and may be new, or once more after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// At the start.
    First,
    /// After a failure: what is opened must be what was open.
    Again,
}

/// Who brings rows from the log into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    /// A thread, while commits go on.
    Beside,
    /// Whoever commits, before the next commit; then the same is always done in the same order.
    Between,
}

/// What the file of a store lies on.
pub trait Volume: Send + Sync + 'static {
    /// Opens the file.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] if it is in use or no store, others as they come.
    fn medium(&self, opening: Opening) -> Result<Arc<dyn Medium>, StoreError>;

    /// Whether it is worth trying to write again after a failure. Until then what was seen before
    /// can still be read.
    fn is_writable(&self) -> bool {
        true
    }

    /// Who brings rows from the log into the database.
    fn merging(&self) -> Merging {
        Merging::Beside
    }

    /// Bytes of a segment of the log, in a new store.
    fn segment_bytes(&self) -> u64 {
        STORE_LOG_SEGMENT_BYTES
    }

    /// Memory for cached pages of the database, in bytes.
    fn cache_bytes(&self) -> usize {
        STORE_CACHE_BYTES
    }

    /// How far the index of leads may lag behind.
    fn index_lag(&self) -> Lag {
        Lag::default()
    }
}

impl<F> Volume for F
where
    F: Fn(Opening) -> Result<Arc<dyn Medium>, StoreError> + Send + Sync + 'static,
{
    fn medium(&self, opening: Opening) -> Result<Arc<dyn Medium>, StoreError> {
        self(opening)
    }
}

/// A file.
pub(super) struct FileVolume {
    /// Its path.
    pub(super) path: PathBuf,
    /// What the store is for.
    pub(super) purpose: Purpose,
}

impl FileVolume {
    /// Makes a store under another name, and gives it its own when it is whole: if we die or the
    /// disk is full before that, the next start begins anew and finds no half-made file.
    fn make(
        &self,
        fill: impl FnOnce(Arc<StoreFile>, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let unfinished = self.path.with_added_extension("new");
        if unfinished.exists() {
            std::fs::remove_file(&unfinished)?;
        }
        private_file(&unfinished)?;
        let made = self.fill_and_rename(&unfinished, fill);
        if made.is_err() {
            // What is not whole helps nobody.
            let _ = std::fs::remove_file(&unfinished);
        }
        made
    }

    fn fill_and_rename(
        &self,
        unfinished: &Path,
        fill: impl FnOnce(Arc<StoreFile>, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (store, layout) = (StoreFile::open(unfinished)?, Layout::new(self.segment_bytes()));
        layout.make(&store)?;
        fill(Arc::new(store), layout.database_at())?;
        std::fs::rename(unfinished, &self.path)?;
        // From here on it is there under its name, if the folder reaches the disk; if it does not,
        // nothing has been stored since either.
        Ok(sync_folder(&self.path)?)
    }

    /// Whether there is nothing yet.
    fn is_missing(&self) -> Result<bool, StoreError> {
        match std::fs::metadata(&self.path) {
            Ok(file) => Ok(file.len() == 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a store of the copy of one, which stays locked until it is replaced.
    fn adopt(&self, copy: &StoreFile) -> Result<(), StoreError> {
        // Nothing is made a store of that is not whole, ours, and for what we are for.
        let proven = open_unchanged(FileBackend::new(File::open(&self.path)?)?)?;
        layout::check(&proven.database().begin_read()?, self.purpose)?;
        drop(proven);
        self.make(|store, start| {
            let (length, mut at) = (copy.len()?, 0);
            let mut chunk = vec![0; COPY_CHUNK_BYTES];
            while at < length {
                let left = usize::try_from(length - at).unwrap_or(usize::MAX);
                let piece = chunk.len().min(left);
                copy.read(at, &mut chunk[..piece])?;
                store.write(start + at, &chunk[..piece])?;
                at += piece as u64;
            }
            Ok(store.sync_data()?)
        })
    }
}

impl Volume for FileVolume {
    fn medium(&self, opening: Opening) -> Result<Arc<dyn Medium>, StoreError> {
        // A file that is gone with its disk must not be replaced by an empty one.
        if opening == Opening::First && self.is_missing()? {
            self.make(|store, start| {
                let part = DatabasePart::new(store, start);
                drop(Database::builder().create_with_backend(part)?);
                Ok(())
            })?;
        }
        let file = StoreFile::open(&self.path)?;
        if Form::of(&file)? != Form::Database {
            return Ok(Arc::new(file));
        }
        self.adopt(&file)?;
        drop(file);
        Ok(Arc::new(StoreFile::open(&self.path)?))
    }

    fn is_writable(&self) -> bool {
        let probe = self.path.with_added_extension("probe");
        let written = private_file(&probe).and_then(|mut file| {
            file.write_all(&vec![1; STORE_PROBE_BYTES])?;
            file.sync_all()
        });
        let removed = std::fs::remove_file(&probe);
        written.and(removed).is_ok()
    }
}

/// The file of a store, locked.
#[derive(Debug)]
pub(super) struct StoreFile {
    file: FileBackend,
    /// The same file. What is written through it is durable when that returns, and nothing else
    /// has to be: what is being brought into the database meanwhile is not waited for.
    through: File,
}

impl StoreFile {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = FileBackend::new(options.open(path)?)?;
        match file.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
            Ok(true) | Err(redb::BackendError::Unsupported) => {}
            Ok(false) => return Err(redb::DatabaseError::DatabaseAlreadyOpen.into()),
            Err(redb::BackendError::Io(error)) => return Err(error.into()),
            Err(error) => return Err(StoreError::Unavailable(error.to_string())),
        }
        let flags = i32::try_from(OFlags::DSYNC.bits()).map_err(io::Error::other)?;
        let through = options.custom_flags(flags).open(path)?;
        Ok(Self { file, through })
    }
}

impl Medium for StoreFile {
    fn write_through(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.through.write_all_at(data, offset)
    }
}

impl StorageBackend for StoreFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Makes the name of a file durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path)).and_then(|folder| folder.sync_all())
}

/// Makes a file that only its owner can read, in place of one that a run before left behind. It
/// stays locked until it is closed, so a second run is refused.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] if another run is writing it; others as they come.
pub fn fresh_file(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Ok(left) => {
            left.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => {
                    io::Error::new(io::ErrorKind::ResourceBusy, "another run is writing it")
                }
                TryLockError::Error(error) => error,
            })?;
            std::fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    // Shared, since whoever proves the file locks it so, too.
    file.lock_shared()?;
    Ok(file)
}

/// Opens a file, and makes it if it is missing, so that nobody but its owner can ever read it.
pub fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
