//! Where a database lies: how it is opened, and whether it can be written at the moment.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend};

use crate::limits::{STORE_CACHE_BYTES, STORE_PROBE_BYTES};
use crate::store::StoreError;

/// Whether a database is opened at the start, and may be new, or once more after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// At the start.
    First,
    /// After a failure: what is opened must be what was open.
    Again,
}

/// Where a database lies.
pub trait Volume: Send + Sync + 'static {
    /// Opens the database.
    fn open(&self, opening: Opening) -> Result<Database, StoreError>;

    /// Makes sure, before it is opened again, that what can be read of it is on the disk. The
    /// database that failed is still open then, for those who read. May take long.
    fn mend(&self) -> io::Result<()> {
        Ok(())
    }

    /// Whether it is worth trying to write again after a failure. Until then the database that
    /// failed stays open, because it can still be read.
    fn is_writable(&self) -> bool {
        true
    }
}

impl<F: Fn(Opening) -> Result<Database, StoreError> + Send + Sync + 'static> Volume for F {
    fn open(&self, opening: Opening) -> Result<Database, StoreError> {
        self(opening)
    }
}

/// A file.
pub(super) struct FileVolume {
    /// Its path.
    pub(super) path: PathBuf,
}

impl FileVolume {
    /// Makes a new database under another name, and gives it its own when it is whole: if we die
    /// or the disk is full before that, the next start begins anew and finds no half-made file.
    fn make(&self, builder: &Builder) -> Result<(), StoreError> {
        let unavailable = |error: io::Error| StoreError::Unavailable(error.to_string());
        let unfinished = self.path.with_added_extension("new");
        if unfinished.exists() {
            std::fs::remove_file(&unfinished).map_err(unavailable)?;
        }
        private_file(&unfinished).map_err(unavailable)?;
        drop(builder.create(&unfinished)?);
        std::fs::rename(&unfinished, &self.path).map_err(unavailable)?;
        // From here on the empty store is there under its name, if the folder reaches the disk; if
        // it does not, nothing has been stored yet either.
        sync_folder(&self.path).map_err(unavailable)
    }
}

impl Volume for FileVolume {
    fn open(&self, opening: Opening) -> Result<Database, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(STORE_CACHE_BYTES);
        let is_new = std::fs::metadata(&self.path).map_or(0, |file| file.len()) == 0;
        // A file that is gone with its disk must not be replaced by an empty one.
        if is_new && opening == Opening::First {
            self.make(&builder)?;
        }
        Ok(builder.open(&self.path)?)
    }

    fn mend(&self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        // The database that failed holds the lock, and does not write any more.
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        write_again(&backend)
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

/// Writes again what can be read of a database, and flushes it.
///
/// When a flush fails, Linux takes what it could not write for written: it can be read until the
/// power goes, and no later flush writes it. A database that trusted what it reads would build on
/// pages that are not on the disk.
pub(super) fn write_again(backend: &impl StorageBackend) -> io::Result<()> {
    const PAGE: usize = 4_096;
    for offset in (0..backend.len()?).step_by(PAGE) {
        let mut page = [0; PAGE];
        backend.read(offset, &mut page)?;
        // Zeros are mostly where nothing was ever written, and would take up space.
        if page != [0; PAGE] {
            backend.write(offset, &page)?;
        }
    }
    backend.sync_data()
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
