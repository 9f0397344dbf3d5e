//! Duties that one instance at a time has: a row each, with who has it, until when, and an epoch
//! that grows with each who takes it over.
//!
//! Whoever has a duty renews it in good time. What an instance does under an epoch that is over is
//! refused by the row itself: a settlement locks it and looks. Moments are the database's, so the
//! clocks of instances need not agree; an instance takes its duties for ended a little earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::Row as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits::{DB_CONNECT_TIMEOUT, LEASE, LEASE_MARGIN, LEASE_RENEW_EVERY};
use crate::store::postgres::error::Failure;
use crate::store::postgres::rows::Int;
use crate::store::postgres::session::{Database, Place, Session, answer_within};
use crate::store::postgres::tries::Tries;
use crate::store::{Duty, Hold, StoreError};

/// A duty and the epoch in which something is done under it.
pub(super) type Fence = (Duty, u64);

/// Duties and their epochs.
type Epochs = BTreeMap<Duty, u64>;

/// The duties of one instance.
#[derive(Clone)]
pub(super) struct Leases(Arc<Inner>);

struct Inner {
    database: Database,
    owner: Int,
    held: Mutex<BTreeMap<Duty, Held>>,
}

/// A duty that this instance has.
struct Held {
    epoch: u64,
    until: watch::Sender<Instant>,
}

impl Leases {
    /// Those of an instance that has none yet, and the task that renews them until it is stopped;
    /// `died` is cancelled if another instance has taken this one's place.
    pub(super) fn start(
        database: Database,
        Place { owner, slot }: Place,
        stop: CancellationToken,
        died: CancellationToken,
    ) -> Self {
        let leases = Self(Arc::new(Inner { database, owner, held: Mutex::default() }));
        let renewing = leases.clone();
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(LEASE_RENEW_EVERY)).await.is_some() {
                if let Err(failure) = renewing.renew().await {
                    renewing.0.database.look_elsewhere_after(&failure);
                    tracing::warn!(%failure, "duties could not be renewed");
                }
                if let Ok(false) = renewing.beat(slot).await {
                    tracing::error!("another instance has taken this one's place");
                    died.cancel();
                }
            }
        });
        leases
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Duty, Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to a duty, if no other instance has it.
    pub(super) async fn hold(&self, duty: Duty) -> Result<Option<Hold>, StoreError> {
        let known = self.held().get(&duty).map(Held::hold);
        if known.as_ref().is_some_and(Hold::is_valid) {
            return Ok(known);
        }
        let mut tries = Tries::new(&self.0.database);
        let (asked_at, taken) = loop {
            let asked_at = Instant::now();
            match self.take(duty).await {
                Ok(taken) => break (asked_at, taken),
                // If it was taken and nobody heard of it, it is taken again, by the same owner.
                Err(failure) => tries.again_after(failure).await?,
            }
        };
        let Some(epoch) = taken else {
            self.held().remove(&duty);
            return Ok(None);
        };
        tracing::info!(%duty, epoch, "duty taken");
        let taken = Held { epoch, until: watch::Sender::new(ends(asked_at)) };
        let hold = taken.hold();
        self.held().insert(duty, taken);
        Ok(Some(hold))
    }

    /// Takes a duty that nobody has any more; its epoch.
    async fn take(&self, duty: Duty) -> Result<Option<u64>, Failure> {
        let statements = [
            "UPDATE leases SET owner = $2, epoch = epoch + 1, \
             until = now() + make_interval(secs => $3) \
             WHERE duty = $1 AND (until < now() OR owner = $2) RETURNING epoch",
            "INSERT INTO leases (duty, owner, epoch, until) \
             VALUES ($1, $2, 1, now() + make_interval(secs => $3)) \
             ON CONFLICT (duty) DO NOTHING RETURNING epoch",
        ];
        for statement in statements {
            let query = sqlx::query(statement).bind(duty.to_string()).bind(self.0.owner);
            let query = query.bind(LEASE.as_secs_f64());
            let taken = soon(query.fetch_optional(&self.0.database.pool)).await?;
            if let Some(row) = taken {
                return Ok(Some(row.try_get::<Int, _>(0)?.cast_unsigned()));
            }
        }
        Ok(None)
    }

    /// Renews what this instance has. What it has no more ends at once.
    async fn renew(&self) -> Result<(), Failure> {
        let asked: Epochs = self.held().iter().map(|(duty, held)| (*duty, held.epoch)).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let duties: Vec<String> = asked.keys().map(Duty::to_string).collect();
        let asked_at = Instant::now();
        // In the order in which who settles locks them, too.
        let query = sqlx::query(
            "UPDATE leases SET until = now() + make_interval(secs => $3) WHERE duty IN \
             (SELECT duty FROM leases WHERE duty = ANY($1) AND owner = $2 AND until >= now() \
             ORDER BY duty FOR UPDATE) RETURNING duty, epoch",
        );
        let query = query.bind(duties).bind(self.0.owner).bind(LEASE.as_secs_f64());
        let mut renewed = BTreeMap::new();
        for row in soon(query.fetch_all(&self.0.database.pool)).await? {
            let (duty, epoch): (String, Int) = (row.try_get(0)?, row.try_get(1)?);
            renewed.insert(duty, epoch.cast_unsigned());
        }
        note_renewed(&mut self.held(), &asked, &renewed, asked_at);
        Ok(())
    }

    /// Says that this instance is there; whether its place is still its own.
    async fn beat(&self, slot: Int) -> Result<bool, Failure> {
        let query =
            sqlx::query("UPDATE instances SET seen_at = now() WHERE slot = $1 AND owner = $2");
        let query = query.bind(slot).bind(self.0.owner);
        Ok(soon(query.execute(&self.0.database.pool)).await?.rows_affected() == 1)
    }

    /// Gives up all duties, so that others need not wait.
    pub(super) async fn give_up(&self) {
        let ended = std::mem::take(&mut *self.held());
        let now = Instant::now();
        for held in ended.values() {
            held.until.send_replace(now);
        }
        for statement in [
            "UPDATE leases SET until = 'epoch' WHERE duty IN \
             (SELECT duty FROM leases WHERE owner = $1 ORDER BY duty FOR UPDATE)",
            "UPDATE instances SET seen_at = 'epoch' WHERE owner = $1",
        ] {
            let query = sqlx::query(statement).bind(self.0.owner);
            if let Err(failure) = soon(query.execute(&self.0.database.pool)).await {
                tracing::warn!(%failure, "duties end by themselves in a few seconds");
            }
        }
    }
}

/// Notes which of the duties that were asked for are renewed. What was taken meanwhile stays.
fn note_renewed(
    held: &mut BTreeMap<Duty, Held>,
    asked: &Epochs,
    renewed: &BTreeMap<String, u64>,
    asked_at: Instant,
) {
    held.retain(|duty, held| {
        if asked.get(duty) != Some(&held.epoch) {
            return true;
        }
        let is_renewed = renewed.get(&duty.to_string()) == Some(&held.epoch);
        held.until.send_replace(if is_renewed { ends(asked_at) } else { asked_at });
        if !is_renewed {
            tracing::warn!(%duty, epoch = held.epoch, "duty lost");
        }
        is_renewed
    });
}

impl Held {
    fn hold(&self) -> Hold {
        Hold { epoch: self.epoch, until: Some(self.until.subscribe()) }
    }
}

/// Waits for an answer for as long as there is time to ask once more before a duty ends.
async fn soon<T>(asked: impl Future<Output = sqlx::Result<T>>) -> Result<T, Failure> {
    answer_within(DB_CONNECT_TIMEOUT, asked).await
}

/// When a duty ends for us that was asked for at a moment.
fn ends(asked_at: Instant) -> Instant {
    asked_at + LEASE - LEASE_MARGIN
}

/// Which of some duties are still an owner's in these epochs; until the end of the transaction
/// nobody takes those over. They are locked in order, so that nobody waits for each other.
pub(super) async fn current(
    session: &mut Session,
    owner: Int,
    fences: &BTreeSet<Fence>,
) -> Result<BTreeSet<Fence>, Failure> {
    if fences.is_empty() {
        return Ok(BTreeSet::new());
    }
    let duties: Vec<String> = fences.iter().map(|(duty, _)| duty.to_string()).collect();
    let query = sqlx::query(
        "SELECT duty, epoch FROM leases WHERE duty = ANY($1) AND owner = $2 \
         ORDER BY duty FOR SHARE",
    );
    let mut epochs = BTreeMap::new();
    for row in session.rows(query.bind(duties).bind(owner)).await? {
        let epoch = row.try_get::<Int, _>(1)?.cast_unsigned();
        epochs.insert(row.try_get::<String, _>(0)?, epoch);
    }
    let is_current = |(duty, epoch): &&Fence| epochs.get(&duty.to_string()) == Some(epoch);
    Ok(fences.iter().filter(is_current).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::support::dataset;

    #[tokio::test(start_paused = true)]
    async fn a_duty_that_was_taken_while_others_were_renewed_stays() {
        let asked_at = Instant::now();
        let held = |epoch| Held { epoch, until: watch::Sender::new(ends(asked_at)) };
        let [lost, kept, anew] = [1, 2, 3].map(|number| Duty::Dataset(dataset(number)));
        let mut now = BTreeMap::from([
            (lost, held(1)),
            (kept, held(1)),
            (anew, held(5)),
            (Duty::Alarms, held(1)),
        ]);
        let asked = BTreeMap::from([(lost, 1), (kept, 1), (anew, 4)]);
        let renewed = BTreeMap::from([(kept.to_string(), 1), (anew.to_string(), 5)]);
        note_renewed(&mut now, &asked, &renewed, asked_at);
        assert_eq!(now.into_keys().collect::<Vec<_>>(), [kept, anew, Duty::Alarms]);
    }
}
