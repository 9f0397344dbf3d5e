//! The one writer of an instance: what waits is committed together.
//!
//! Callers hand over a use case and what it is about, and wait. The writer takes what gathered,
//! reads the part of the database that is about it, lets the use cases work on that, writes what
//! they changed, commits, and only then answers. So the price of round trips and of the commit is
//! shared, and nobody is told of something that is not durable.
//!
//! A transaction that was in the way of another one, or whose connection was lost, is done again
//! from reading on. If it is unknown whether a commit came through, this finds what it wrote, since
//! every use case may be repeated; only what an alarm counts is counted once more then.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::domain::time::Timestamp;
use crate::limits::{COMMIT_GROUP_MAX, DB_CONFLICTS_MAX, DB_GROUP_WEIGHT_MAX, WRITE_QUEUE_MAX};
use crate::store::StoreError;
use crate::store::memory::State;
use crate::store::postgres::alarms::{self, AlarmRows};
use crate::store::postgres::error::Failure;
use crate::store::postgres::instance::Numbers;
use crate::store::postgres::leases::{Fence, current};
use crate::store::postgres::load::{Seeds, load};
use crate::store::postgres::rows::Rows;
use crate::store::postgres::save::save;
use crate::store::postgres::session::{Database, Session};
use crate::store::postgres::tries::Tries;

/// A use case with somebody waiting for its result.
trait Job: Send + Sync {
    fn seeds(&self) -> &Seeds;
    fn needs_alarms(&self) -> bool;
    fn now(&self) -> Option<Timestamp>;
    fn fence(&self) -> Option<Fence>;
    fn is_sweep(&self) -> bool;
    /// Does the work; once more if an earlier one came to nothing.
    fn apply(&mut self, state: &mut State);
    /// Notes that it must not be done.
    fn refuse(&mut self);
    /// Tells the result, after the commit.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

/// What a use case is about and when it happens.
pub(super) struct About {
    /// What is to be read for it.
    pub(super) seeds: Seeds,
    /// Whether it is about alarms.
    pub(super) alarms: bool,
    /// When; numbers that are given out count from then.
    pub(super) now: Option<Timestamp>,
    /// Under which epoch of a duty it is done.
    pub(super) fence: Option<Fence>,
    /// Whether it is about all that was read, so that it must not be done with others, which may
    /// have read a lead in part.
    pub(super) sweep: bool,
}

impl From<Seeds> for About {
    fn from(seeds: Seeds) -> Self {
        Self { seeds, alarms: false, now: None, fence: None, sweep: false }
    }
}

impl About {
    /// Alarms and nothing else.
    pub(super) fn alarms() -> Self {
        Self { alarms: true, ..Self::from(Seeds::default()) }
    }

    /// All of some leads.
    pub(super) fn sweep(seeds: Seeds) -> Self {
        Self { sweep: true, ..Self::from(seeds) }
    }

    /// The same at a moment.
    pub(super) fn at(self, now: Timestamp) -> Self {
        Self { now: Some(now), ..self }
    }
}

struct Waiting<F, T> {
    about: About,
    work: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Waiting<F, T>
where
    F: Fn(&mut State) -> T + Send + Sync,
    T: Send + Sync,
{
    fn seeds(&self) -> &Seeds {
        &self.about.seeds
    }

    fn needs_alarms(&self) -> bool {
        self.about.alarms
    }

    fn now(&self) -> Option<Timestamp> {
        self.about.now
    }

    fn fence(&self) -> Option<Fence> {
        self.about.fence
    }

    fn is_sweep(&self) -> bool {
        self.about.sweep
    }

    fn apply(&mut self, state: &mut State) {
        self.result = Some((self.work)(state));
    }

    fn refuse(&mut self) {
        self.result = None;
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let never_run = || StoreError::Unavailable("another instance has the duty by now".into());
        // Whoever asked may have gone away; what was committed stays committed.
        let _ = reply.send(committed.and_then(|()| result.ok_or_else(never_run)));
    }
}

/// The way to the writer; when it is dropped the writer ends after the work that waits.
pub(super) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    died: CancellationToken,
}

impl Writer {
    /// Starts the task.
    pub(super) fn start(database: Database, numbers: Numbers) -> Self {
        let (jobs, queue) = mpsc::channel(WRITE_QUEUE_MAX);
        let died = CancellationToken::new();
        let guard = died.clone().drop_guard();
        tokio::spawn(async move {
            let _cancelled_when_this_task_ends = guard;
            WriterTask { database, numbers, queue }.run().await;
        });
        Self { jobs, died }
    }

    /// Cancelled when nothing can be written any more: the task panicked.
    pub(super) fn died(&self) -> CancellationToken {
        self.died.clone()
    }

    /// Does work in the next transaction and answers once that is durable. The work may be done
    /// again; what an earlier one did is undone then.
    pub(super) async fn submit<T, F>(
        &self,
        about: impl Into<About>,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + Sync + 'static,
        F: Fn(&mut State) -> T + Send + Sync + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Waiting { about: about.into(), work, result: None, reply };
        self.jobs.try_send(Box::new(job)).map_err(|error| {
            StoreError::Unavailable(match error {
                mpsc::error::TrySendError::Full(_) => "too many writes are waiting".into(),
                mpsc::error::TrySendError::Closed(_) => "the writer has ended".into(),
            })
        })?;
        let gone = |_| StoreError::Unavailable("the writer has ended".into());
        answer.await.map_err(gone)?
    }
}

struct WriterTask {
    database: Database,
    numbers: Numbers,
    queue: mpsc::Receiver<Box<dyn Job>>,
}

impl WriterTask {
    async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.queue.recv_many(&mut waiting, COMMIT_GROUP_MAX).await > 0 {
            for group in groups(std::mem::take(&mut waiting)) {
                self.commit(group).await;
            }
        }
    }

    /// Commits a group and answers all of it. It is done in halves if something that was stored
    /// can't be understood, so that only who needs it is refused, and if others are in the way
    /// again and again, so that something shorter comes through between them.
    async fn commit(&mut self, group: Vec<Box<dyn Job>>) {
        let mut parts = vec![group];
        while let Some(mut part) = parts.pop() {
            let Some(committed) = self.commit_together(&mut part).await else {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
                continue;
            };
            for job in part {
                job.finish(committed.clone());
            }
        }
    }

    /// Commits a group; `None` if that is to be tried with fewer at a time.
    async fn commit_together(
        &mut self,
        group: &mut [Box<dyn Job>],
    ) -> Option<Result<(), StoreError>> {
        let mut tries = Tries::new(&self.database);
        loop {
            let Err(failure) = self.try_commit(group).await else { return Some(Ok(())) };
            let is_corrupt = matches!(failure, Failure::Store(StoreError::Corrupt(_)));
            let is_in_the_way = failure.is_conflict() && tries.count() >= DB_CONFLICTS_MAX;
            if group.len() > 1 && (is_corrupt || is_in_the_way) {
                return None;
            }
            if let Err(error) = tries.again_after(failure).await {
                return Some(Err(error));
            }
        }
    }

    async fn try_commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), Failure> {
        let mut seeds = Seeds::default();
        for job in &*group {
            seeds.merge(job.seeds().clone());
        }
        let now = group.iter().filter_map(|job| job.now()).max();
        let mut session = self.database.write().await?;
        let before = load(&mut session, &seeds).await?;
        let mut state = before.to_state()?;
        let mut alarms = None;
        if group.iter().any(|job| job.needs_alarms()) {
            alarms = Some(load_alarms(&mut session, &mut state).await?);
        }
        let fences = group.iter().filter_map(|job| job.fence()).collect();
        let owner = self.database.place.map_or(0, |place| place.owner);
        let current = current(&mut session, owner, &fences).await?;
        self.numbers.lend(&mut state, now);
        for job in group {
            match job.fence() {
                Some(fence) if !current.contains(&fence) => job.refuse(),
                _ => job.apply(&mut state),
            }
        }
        self.numbers.take_back(&state);
        if state.alarms.is_noted() && alarms.is_none() {
            alarms = Some(load_alarms(&mut session, &mut state).await?);
        }
        state.alarms.carry_out();
        save(&mut session, &before, Rows::of_state(&state)?).await?;
        if let Some(before) = alarms {
            alarms::save(&mut session, &before, AlarmRows::of_state(&state.alarms)?).await?;
        }
        // From here on everything that the group did is durable, or nothing of it. If we die before
        // the answers, whoever asked asks again and is told what it became.
        session.commit().await
    }
}

/// What is committed together of what waits, in order: not too much, so that nobody waits long for
/// what others asked for, and another instance's transactions are not in the way for ever.
fn groups(waiting: Vec<Box<dyn Job>>) -> Vec<Vec<Box<dyn Job>>> {
    let (mut groups, mut weight): (Vec<Vec<Box<dyn Job>>>, _) = (Vec::new(), 0);
    for job in waiting {
        weight += job.seeds().weight();
        match groups.last_mut() {
            Some(group)
                if weight <= DB_GROUP_WEIGHT_MAX && !job.is_sweep() && !group[0].is_sweep() =>
            {
                group.push(job);
            }
            _ => {
                weight = job.seeds().weight();
                groups.push(vec![job]);
            }
        }
    }
    groups
}

/// Reads what is kept of alarms into a state.
async fn load_alarms(session: &mut Session, state: &mut State) -> Result<AlarmRows, Failure> {
    let rows = alarms::load(session).await?;
    state.alarms.adopt(rows.to_state());
    // As it would be written, so that what can't be read stays.
    Ok(AlarmRows::of_state(&state.alarms)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::support::lead_id;

    /// A job about so many leads.
    fn job(leads: u64, sweep: bool) -> Box<dyn Job> {
        let seeds = Seeds::leads((1..=leads).map(lead_id));
        let about = About { sweep, ..About::from(seeds) };
        let (reply, _) = oneshot::channel();
        Box::new(Waiting { about, work: |_: &mut State| (), result: None, reply })
    }

    fn sizes(waiting: Vec<Box<dyn Job>>) -> Vec<usize> {
        groups(waiting).iter().map(Vec::len).collect()
    }

    #[test]
    fn a_group_is_about_no_more_leads_than_one_transaction_should_be() {
        let many = |count: usize| (0..count).map(|_| job(500, false)).collect();
        assert_eq!(sizes(many(9)), [4, 4, 1]);
        let small = (0..COMMIT_GROUP_MAX).map(|_| job(1, false)).collect();
        assert_eq!(sizes(small), [COMMIT_GROUP_MAX]);
        assert_eq!(sizes(vec![job(5_000, false), job(1, false)]), [1, 1]);
    }

    #[test]
    fn what_is_about_all_that_was_read_is_committed_alone() {
        let waiting = vec![job(1, false), job(1, false), job(1, true), job(1, false)];
        assert_eq!(sizes(waiting), [2, 1, 1]);
    }
}
