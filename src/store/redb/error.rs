//! What redb's errors mean to a caller.

use crate::store::StoreError;

/// redb's errors are about the file; what they mean to a caller is told in three words.
macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                from_redb(error.into())
            }
        })*
    };
}

impl From<redb::DatabaseError> for StoreError {
    /// Opening failed. A file whose very head can't be read is no store of ours.
    fn from(error: redb::DatabaseError) -> Self {
        let is_foreign = matches!(
            &error,
            redb::DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() == std::io::ErrorKind::InvalidData
        );
        match from_redb(error.into()) {
            Self::Unavailable(message) if is_foreign => {
                Self::Unsupported(format!("it is no store: {message}"))
            }
            Self::Corrupt(message) => Self::Unsupported(format!("it is no store: {message}")),
            other => other,
        }
    }
}

from_redb!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// What an error of any kind means.
pub(super) fn from_redb(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(message) => StoreError::Corrupt(message),
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            StoreError::Unsupported("another process has it open".into())
        }
        redb::Error::TableDoesNotExist(_) => {
            StoreError::Unsupported("it has not the tables of a store".into())
        }
        error @ (redb::Error::UpgradeRequired(_) | redb::Error::TableTypeMismatch { .. }) => {
            StoreError::Unsupported(error.to_string())
        }
        other => StoreError::Unavailable(other.to_string()),
    }
}
