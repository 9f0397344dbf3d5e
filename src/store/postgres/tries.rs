//! Doing again what a conflict or a lost connection ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{DB_RETRY_MS, DB_RETRY_MS_MAX, DB_TRIES_TIME};
use crate::store::StoreError;
use crate::store::postgres::error::Failure;
use crate::store::postgres::session::Database;

/// How often something was tried, and how long to wait before the next time.
pub(super) struct Tries {
    count: u32,
    began_at: Instant,
    database: Database,
}

impl Tries {
    /// Nothing was tried yet.
    pub(super) fn new(database: &Database) -> Self {
        Self { count: 0, began_at: Instant::now(), database: database.clone() }
    }

    /// How often it was tried.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Waits a little after what is passing: a conflict for as long as there is time, since each
    /// means that somebody else got on; anything else up to a number of times.
    ///
    /// # Errors
    /// What is not passing, or was too often.
    pub(super) async fn again_after(&mut self, failure: Failure) -> Result<(), StoreError> {
        self.count += 1;
        self.database.look_elsewhere_after(&failure);
        if !failure.is_passing() || self.is_over(&failure) {
            return Err(failure.into());
        }
        tracing::debug!(%failure, tries = self.count, "a transaction is done again");
        let traffic = &self.database.traffic;
        if failure.is_conflict() {
            traffic.conflicts.fetch_add(1, Ordering::Relaxed);
        } else {
            traffic.lost.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(self.wait()).await;
        Ok(())
    }

    fn is_over(&self, failure: &Failure) -> bool {
        let faults = &self.database.faults;
        let is_late = self.began_at.elapsed() >= DB_TRIES_TIME && !faults.is_forced();
        is_late || !failure.is_conflict() && self.count >= faults.tries_max()
    }

    fn wait(&self) -> Duration {
        if self.database.faults.is_forced() {
            return Duration::ZERO;
        }
        let longest_ms = (DB_RETRY_MS << self.count.min(u32::BITS)).min(DB_RETRY_MS_MAX);
        let wait_ms = longest_ms / 2 + self.database.random.next_u64() % (longest_ms / 2 + 1);
        Duration::from_millis(wait_ms)
    }
}

/// Reads at one moment; again if the connection was lost.
macro_rules! reading {
    ($store:expr, $session:ident => $read:expr) => {{
        let mut tries = Tries::new(&$store.database);
        loop {
            let read = async {
                let mut session = $store.database.read().await?;
                let $session = &mut session;
                $read.await
            };
            match read.await {
                Ok(found) => break Ok::<_, StoreError>(found),
                Err(failure) => tries.again_after(failure).await?,
            }
        }
    }};
}

/// Writes something that is about no lead; again if the connection was lost.
macro_rules! writing {
    ($store:expr, $session:ident => $write:expr) => {{
        let mut tries = Tries::new(&$store.database);
        loop {
            let written = async {
                let mut session = $store.database.write().await?;
                let $session = &mut session;
                let done = $write.await?;
                // Durable from here on; if we die before, whoever asked asks again.
                session.commit().await?;
                Ok::<_, Failure>(done)
            };
            match written.await {
                Ok(done) => break Ok::<_, StoreError>(done),
                Err(failure) => tries.again_after(failure).await?,
            }
        }
    }};
}

pub(super) use {reading, writing};
