//! How a store can fail; nothing here knows HTTP or a kind of database.

/// A use case that a store could not carry out. Nothing of it has happened, or it is unknown
/// whether it did and doing it again is safe: every use case may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It could not be made durable, or not be read: disk, database or queue. Try again.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Something that was stored can't be understood.
    #[error("the store holds a record that cannot be read: {0}")]
    Corrupt(String),
    /// The store was written by a newer version, or is no store of ours. Do not try again.
    #[error("the store cannot be opened: {0}")]
    Unsupported(String),
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
