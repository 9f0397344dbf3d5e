//! Copying a store to another one that is empty, and seeing that both hold the same.
//!
//! Nobody works on either meanwhile. Everything is read three times: first to learn what there is,
//! which also finds a record that can't be read before anything is written; then to copy it; and at
//! the end it is read where it was written. The target is a store from then on and not before.

use std::path::Path;

use secrecy::SecretString;
use tokio::sync::mpsc;

use crate::limits::TRANSFER_BATCHES_WAITING;
use crate::store::postgres::{DatabaseSource, DatabaseTarget};
use crate::store::redb::{FileSource, FileTarget, WrittenFile};
use crate::store::transfer::{Batch, Inventory};
use crate::store::{Purpose, StoreError};

/// Where a store is.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In a file.
    File(&'a Path),
    /// In a PostgreSQL database.
    Database(&'a SecretString),
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The source is read, to see what there is.
    Reading,
    /// So many records are copied.
    Copying(u64),
    /// So many records are read where they were written.
    Checking(u64),
}

/// Who is told how far it is: the stage, and how many more records are through.
pub type Progress<'a> = &'a mut dyn FnMut(Stage, u64);

/// Why a store was not copied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The source is in the way.
    #[error("{0}")]
    Source(StoreError),
    /// The target is.
    #[error("{0}")]
    Target(StoreError),
    /// The target has not the same records, of these kinds.
    #[error("what was written is not what was read, of {0}")]
    Differs(String),
}

/// Copies a store; what there was. `go_on` lets it go on in a database with the same copy that was
/// begun before. `random` tells this program from others that speak to the database.
///
/// # Errors
/// Which store is in the way, and why. The target is no store then.
pub async fn copy(
    from: Place<'_>,
    to: Place<'_>,
    go_on: bool,
    random: u64,
    progress: Progress<'_>,
) -> Result<Inventory, CopyError> {
    use CopyError::{Source as AtSource, Target as AtTarget};
    let source = Source::open(from, random).await.map_err(AtSource)?;
    let found = source.inventory(Stage::Reading, progress).await.map_err(AtSource)?;
    let mut target = Target::begin(to, &found, go_on, random).await.map_err(AtTarget)?;
    let stage = Stage::Copying(found.records());
    let copied = source.read(async |batch| {
        let records = batch.records.len() as u64;
        target.put(batch).await?;
        progress(stage, records);
        Ok(())
    });
    copied.await?;
    source.check_unchanged().await.map_err(AtSource)?;
    let written = target.write().map_err(AtTarget)?;
    let stage = Stage::Checking(found.records());
    let again = written.open().map_err(AtTarget)?;
    let seen = again.inventory(stage, progress).await.map_err(AtTarget)?;
    drop(again);
    let differences = found.differences(&seen);
    if !differences.is_empty() {
        return Err(CopyError::Differs(differences.join(", ")));
    }
    written.publish().await.map_err(AtTarget)?;
    Ok(found)
}

/// A store that records are read from.
enum Source {
    File(FileSource),
    Database(DatabaseSource),
}

impl Source {
    async fn open(place: Place<'_>, random: u64) -> Result<Self, StoreError> {
        Ok(match place {
            Place::File(path) => Self::File(FileSource::open(path)?),
            Place::Database(url) => Self::Database(DatabaseSource::open(url, random).await?),
        })
    }

    fn purpose(&self) -> Purpose {
        match self {
            Self::File(file) => file.purpose,
            Self::Database(database) => database.purpose,
        }
    }

    async fn send(&self, batches: mpsc::Sender<Batch>) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.send(batches).await,
            Self::Database(database) => database.send(batches).await,
        }
    }

    /// Reads all records, and hands them on as fast as they are taken.
    async fn read(
        &self,
        mut take: impl AsyncFnMut(Batch) -> Result<(), StoreError>,
    ) -> Result<(), CopyError> {
        let (sender, mut batches) = mpsc::channel(TRANSFER_BATCHES_WAITING);
        let taking = async move {
            while let Some(batch) = batches.recv().await {
                take(batch).await?;
            }
            Ok(())
        };
        let (sent, taken) = tokio::join!(self.send(sender), taking);
        // If nobody takes them the sending fails, too, and does not know why.
        taken.map_err(CopyError::Target)?;
        sent.map_err(CopyError::Source)
    }

    /// What there is.
    async fn inventory(
        &self,
        stage: Stage,
        progress: Progress<'_>,
    ) -> Result<Inventory, StoreError> {
        let mut inventory = Inventory::new(self.purpose());
        let reading = self.read(async |batch| {
            inventory.add(&batch);
            progress(stage, batch.records.len() as u64);
            Ok(())
        });
        match reading.await {
            Ok(()) => Ok(inventory),
            Err(CopyError::Source(error) | CopyError::Target(error)) => Err(error),
            Err(other) => Err(StoreError::Corrupt(other.to_string())),
        }
    }

    async fn check_unchanged(&self) -> Result<(), StoreError> {
        match self {
            // It is locked.
            Self::File(_) => Ok(()),
            Self::Database(database) => database.check_unchanged().await,
        }
    }
}

/// A store that records are written to.
enum Target {
    File(Box<FileTarget>),
    Database(DatabaseTarget),
}

impl Target {
    async fn begin(
        place: Place<'_>,
        contents: &Inventory,
        go_on: bool,
        random: u64,
    ) -> Result<Self, StoreError> {
        let purpose = contents.purpose;
        Ok(match place {
            Place::File(path) => Self::File(Box::new(FileTarget::begin(path, purpose)?)),
            Place::Database(url) => {
                let copy = (contents.fingerprint(), go_on);
                Self::Database(DatabaseTarget::begin(url, purpose, copy, random).await?)
            }
        })
    }

    async fn put(&mut self, batch: Batch) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.put(batch),
            Self::Database(database) => database.put(&batch).await,
        }
    }

    /// Makes what was written durable, and nobody's yet.
    fn write(self) -> Result<Written, StoreError> {
        Ok(match self {
            Self::File(file) => Written::File(file.write()?),
            Self::Database(database) => Written::Database(database),
        })
    }
}

/// A store that is written, and that nobody may use yet.
enum Written {
    File(WrittenFile),
    Database(DatabaseTarget),
}

impl Written {
    fn open(&self) -> Result<Source, StoreError> {
        Ok(match self {
            Self::File(file) => Source::File(file.open()?),
            Self::Database(database) => Source::Database(database.as_source()),
        })
    }

    async fn publish(self) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.publish(),
            Self::Database(database) => database.publish().await,
        }
    }
}
