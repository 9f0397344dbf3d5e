//! Where a database lies: how it is opened, and whether it can be written at the moment.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use redb::Database;

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
pub trait Volume: Send + 'static {
    /// Opens the database.
    fn open(&self, opening: Opening) -> Result<Database, StoreError>;

    /// Whether it is worth trying to write again after a failure. Until then the database that
    /// failed stays open, because it can still be read.
    fn is_writable(&self) -> bool {
        true
    }
}

impl<F: Fn(Opening) -> Result<Database, StoreError> + Send + 'static> Volume for F {
    fn open(&self, opening: Opening) -> Result<Database, StoreError> {
        self(opening)
    }
}

/// A file.
pub(super) struct FileVolume {
    /// Its path.
    pub(super) path: PathBuf,
}

impl Volume for FileVolume {
    fn open(&self, opening: Opening) -> Result<Database, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(STORE_CACHE_BYTES);
        if opening == Opening::Again {
            // A file that is gone with its disk must not be replaced by an empty one.
            return Ok(builder.open(&self.path)?);
        }
        private_file(&self.path).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(builder.create(&self.path)?)
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

/// Opens a file, and makes it if it is missing, so that nobody but its owner can ever read it.
fn private_file(path: &std::path::Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
