//! What can go wrong with a database, and what is tried again.

use crate::store::StoreError;

/// Why a transaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The database, or the way to it.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// No answer came in time, and none will: the way or the server is gone without a word.
    #[error("the database does not answer")]
    Silence,
    /// What was found there.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Conflicts with other transactions: nothing has happened, and it may go well the next time.
const CONFLICTS: [&str; 2] = ["40001", "40P01"];
/// Somebody else made the same row at the same moment; the next time it is seen.
const UNIQUE_VIOLATION: &str = "23505";
/// The server is going away, starting, too full, or a standby by now, or has ended a connection
/// that nobody used for too long.
const AWAY: [&str; 8] = ["57P01", "57P02", "57P03", "57P05", "53200", "53300", "25006", "25P03"];
/// All codes of lost connections begin so.
const CONNECTION: &str = "08";

impl Failure {
    /// Whether the same may go well when it is done again at once or soon. Everything that a
    /// transaction does may be done twice, so a lost connection counts, also at the commit.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                let code = code.as_ref();
                CONFLICTS.contains(&code)
                    || code == UNIQUE_VIOLATION
                    || AWAY.contains(&code)
                    || code.starts_with(CONNECTION)
            }),
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed
            ),
            // It took long already, and may take as long again.
            Self::Silence | Self::Store(_) => false,
        }
    }

    /// Whether two transactions were in each other's way.
    pub(super) fn is_conflict(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| CONFLICTS.contains(&code.as_ref()))
    }

    /// Whether the server that takes writes may be another one by now, or was not found in time.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error
                .code()
                .is_some_and(|code| AWAY.contains(&code.as_ref()) || code.starts_with(CONNECTION)),
            Self::Database(error) => {
                self.is_passing() || matches!(error, sqlx::Error::PoolTimedOut)
            }
            Self::Silence => true,
            Self::Store(_) => false,
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Database(_) | Failure::Silence => Self::Unavailable(failure.to_string()),
            Failure::Store(error) => error,
        }
    }
}
