//! The one writer: a thread that owns all writes, and commits what gathered together.
//!
//! Callers hand over a piece of work and wait. The thread takes everything that is waiting, runs
//! it in one transaction, commits, and only then answers all of them; so the price of a flush is
//! shared, and nobody is told of something that is not on disk. If the disk fails, nothing of the
//! group has happened and each caller is told so. If a record can't be read, the group is taken
//! apart until the work that needs it is alone, and only that is refused.
//!
//! After an I/O error nobody knows what is on the disk, so the writer opens the file anew as soon
//! as that takes writes; until then what was seen is shown to readers, and whoever would write is
//! refused at once. It does not decide what is written.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::limits::{COMMIT_GROUP_MAX, COMMIT_WEIGHT_MAX, STORE_REOPEN_EVERY, WRITE_QUEUE_MAX};
use crate::store::StoreError;
use crate::store::redb::engine::{Engine, Shared};
use crate::store::redb::tables::Tables;
use crate::store::redb::{Opening, Purpose, Volume};

/// A running transaction, shared by all work of one group.
pub(super) struct Unit<'t> {
    /// The tables.
    pub(super) tables: Tables<'t>,
    last_seq: u64,
}

impl Unit<'_> {
    /// The next number of the one run that orders leads, events, attempts and queues.
    pub(super) fn seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    /// The number that was given out last.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }
}

/// A piece of work with somebody waiting for its result.
trait Job: Send {
    /// Does the work inside the transaction; once more if an earlier one came to nothing.
    fn apply(&mut self, unit: &mut Unit<'_>) -> Result<(), StoreError>;
    /// How many leads or reports it is about; a commit takes so many.
    fn weight(&self) -> usize;
    /// Tells the result, after the commit.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Waiting<F, T> {
    work: F,
    weight: usize,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Waiting<F, T>
where
    F: Fn(&mut Unit<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn apply(&mut self, unit: &mut Unit<'_>) -> Result<(), StoreError> {
        self.result = Some((self.work)(unit)?);
        Ok(())
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let never_run = || StoreError::Unavailable("the work was not run".into());
        let result = committed.and_then(|()| result.ok_or_else(never_run));
        // Whoever asked may have gone away; what was committed stays committed.
        let _ = reply.send(result);
    }
}

/// The way to the writer; closing it ends the thread after the work that is waiting.
pub(super) struct Writer {
    jobs: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    died: CancellationToken,
}

impl Writer {
    /// Opens the database and starts the thread.
    pub(super) fn start(
        purpose: Purpose,
        volume: Arc<dyn Volume>,
    ) -> Result<(Self, Shared), StoreError> {
        let shared = Shared::default();
        let engine = Engine::open(&*volume, Opening::First, purpose, &shared)?;
        let last_seq = engine.last_seq()?;
        let (jobs, queue) = sync_channel(WRITE_QUEUE_MAX);
        let died = CancellationToken::new();
        let guard = died.clone();
        let mut thread = WriterThread {
            queue,
            purpose,
            volume,
            shared: shared.clone(),
            engine: Some(engine),
            has_failed: false,
            last_seq,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let _cancelled_when_this_thread_ends = guard.drop_guard();
                thread.run();
            })
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok((Self { jobs: Some(jobs), thread: Some(thread), died }, shared))
    }

    /// Runs work in the next commit and answers once that is durable. The work may be run again,
    /// in another transaction; what an earlier run did is undone then.
    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.submit_about(1, work).await
    }

    /// The same for work that is about so many leads or reports.
    pub(super) async fn submit_about<T, F>(&self, weight: usize, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Waiting { work, weight, result: None, reply });
        let stopped = || StoreError::Unavailable("the writer has stopped".into());
        match self.jobs.as_ref().ok_or_else(stopped)?.try_send(job) {
            Ok(()) => answer.await.map_err(|_| stopped())?,
            Err(TrySendError::Full(_)) => {
                Err(StoreError::Unavailable("too many writes are waiting".into()))
            }
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
    }

    /// Cancelled when the thread has ended, by a panic if nobody closed the store.
    pub(super) fn died(&self) -> CancellationToken {
        self.died.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct WriterThread {
    queue: Receiver<Box<dyn Job>>,
    purpose: Purpose,
    volume: Arc<dyn Volume>,
    shared: Shared,
    engine: Option<Engine>,
    /// Whether a write has failed since the store was opened; it can only be read then.
    has_failed: bool,
    last_seq: u64,
}

impl WriterThread {
    fn run(&mut self) {
        loop {
            let first = self.queue.recv_timeout(STORE_REOPEN_EVERY);
            self.reopen_if_failed();
            match first {
                Ok(first) => {
                    let group = self.gather(first);
                    self.commit(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tend();
        }
        self.close();
    }

    /// Takes what is waiting.
    fn gather(&self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut weight = first.weight();
        let mut group = vec![first];
        while group.len() < COMMIT_GROUP_MAX && weight < COMMIT_WEIGHT_MAX {
            let Ok(job) = self.queue.try_recv() else { break };
            weight += job.weight();
            group.push(job);
        }
        group
    }

    /// Commits a group, and answers everybody in it.
    fn commit(&mut self, mut group: Vec<Box<dyn Job>>) {
        let committed = self.transact(&mut group);
        if let Err(error) = &committed {
            // A record that can't be read says nothing against the file as a whole, and nothing
            // against those who do not need it.
            let is_corrupt = matches!(error, StoreError::Corrupt(_));
            if is_corrupt && group.len() > 1 {
                let second_half = group.split_off(group.len() / 2);
                self.commit(group);
                return self.commit(second_half);
            }
            tracing::error!(%error, operations = group.len(), "commit failed");
            self.has_failed |= !is_corrupt;
        }
        for job in group {
            job.finish(committed.clone());
        }
    }

    fn transact(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let engine = self.engine.as_mut().filter(|_| !self.has_failed);
        let engine = engine
            .ok_or_else(|| StoreError::Unavailable("the store is not open for writing".into()))?;
        let transaction = engine.begin();
        let mut unit = Unit { tables: transaction.tables(), last_seq: self.last_seq };
        for job in group {
            job.apply(&mut unit)?;
        }
        let last_seq = unit.last_seq;
        // Whatever it is, it says something against the store, and nothing against a piece of work.
        engine.commit(transaction).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        // From here on the whole group is durable. If we die now, nobody has been answered: Meta
        // and the CRM report again, and find what they reported already stored; a batch that was
        // settled is not sent again, because it left its queue in this very commit.
        self.last_seq = last_seq;
        Ok(())
    }

    /// Lets the store do what is due between commits, when everybody has been answered.
    fn tend(&mut self) {
        // A database that could not be read once can't be read any more until it is opened anew.
        self.has_failed |= self.shared.could_not_be_read();
        let engine = self.engine.as_mut().filter(|_| !self.has_failed);
        if let Some(Err(error)) = engine.map(Engine::tend) {
            tracing::error!(%error, "rows could not be brought into the database");
            self.has_failed = true;
        }
    }

    /// Gives the store up; its file closes when the last reader lets go.
    fn close(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close(!self.has_failed);
        }
    }

    /// Opens the store anew once the disk takes writes; until then it is left open, because what
    /// is in it can be read.
    fn reopen_if_failed(&mut self) {
        if !self.has_failed || !self.volume.is_writable() {
            return;
        }
        self.close();
        let opened = Engine::open(&*self.volume, Opening::Again, self.purpose, &self.shared);
        match opened.and_then(|engine| Ok((engine.last_seq()?, engine))) {
            Ok((last_seq, engine)) => {
                // Numbers of a commit whose fate is unknown are not given out a second time.
                self.last_seq = self.last_seq.max(last_seq);
                self.engine = Some(engine);
                self.has_failed = false;
                tracing::warn!("store opened again");
            }
            Err(error) => tracing::error!(%error, "store could not be opened again"),
        }
    }
}
