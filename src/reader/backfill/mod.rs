//! Looking for leads that the webhook lost: all leads of all forms since the mark of each form.
//!
//! There is one at a time, by hand or by schedule. `run` reads; this module keeps the wish and
//! the progress, which whoever asks can see.

mod run;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::{FormId, LeadId, PageId};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::reader::backfill::run::Run;
use crate::reader::graph::Graph;
use crate::reader::intake::LeadIntake;
use crate::store::Duty;

/// Which leads are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Of this Page only.
    pub page_id: Option<PageId>,
    /// Of this form only.
    pub form_id: Option<FormId>,
    /// Created since then; since the mark of each form if nothing is said.
    pub since: Option<UnixSeconds>,
    /// Only tell how many there are; store nothing.
    pub dry_run: bool,
}

/// How a backfill is going, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was wished for.
    pub wish: Wish,
    /// Whether nobody asked for it but the schedule.
    pub scheduled: bool,
    /// Since when.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Until when it waits for Meta.
    pub waits_until: Option<Timestamp>,
    /// How many.
    pub counts: Counts,
    /// The first of the new leads.
    pub new_leads: Vec<LeadId>,
}

/// What a backfill has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Forms that are to be read.
    pub forms: u64,
    /// Forms that have been read.
    pub forms_read: u64,
    /// Forms, or lists of forms, that could not be read to their end.
    pub forms_failed: u64,
    /// Leads that were read.
    pub read: u64,
    /// Leads that nobody had told us of.
    pub new: u64,
    /// Leads that were known, or are erased.
    pub known: u64,
    /// Leads that could not be read.
    pub failed: u64,
    /// Of the new ones, those that the webhook should have brought long ago. What is found before a
    /// form has a mark may be older than the webhook, and is not counted.
    pub lost: u64,
}

/// Why a backfill was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBegun {
    /// There is no token to read with.
    NoToken,
    /// One is under way.
    Running,
}

/// Where a backfill is wished for, and seen.
#[derive(Clone, Default)]
pub struct Backfills(Option<Arc<Board>>);

#[derive(Default)]
struct Board {
    progress: Mutex<Option<Progress>>,
    wake: Notify,
}

impl Backfills {
    /// Wishes that are heard by a [`Backfiller`].
    pub fn heard() -> Self {
        Self(Some(Arc::default()))
    }

    /// Begins one.
    ///
    /// # Errors
    /// If there is one already, or no token.
    pub fn begin(&self, wish: Wish, now: Timestamp) -> Result<Progress, NotBegun> {
        let board = self.0.as_ref().ok_or(NotBegun::NoToken)?;
        let begun = board.begin(wish, false, now)?;
        board.wake.notify_one();
        Ok(begun)
    }

    /// How the last one is going, or how it ended.
    pub fn progress(&self) -> Option<Progress> {
        self.0.as_ref().and_then(|board| board.open().clone())
    }
}

impl Board {
    fn open(&self) -> MutexGuard<'_, Option<Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, wish: Wish, scheduled: bool, now: Timestamp) -> Result<Progress, NotBegun> {
        let mut progress = self.open();
        if progress.as_ref().is_some_and(|progress| progress.finished_at.is_none()) {
            return Err(NotBegun::Running);
        }
        let begun = Progress {
            wish,
            scheduled,
            started_at: now,
            finished_at: None,
            waits_until: None,
            counts: Counts::default(),
            new_leads: Vec::new(),
        };
        *progress = Some(begun.clone());
        Ok(begun)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> Option<T> {
        self.open().as_mut().map(change)
    }
}

/// Reads what is wished for, and by schedule.
pub struct Backfiller {
    graph: Arc<Graph>,
    intake: LeadIntake,
    board: Arc<Board>,
    every_ms: Option<i64>,
}

impl Backfiller {
    /// One who hears these wishes.
    pub fn new(graph: Arc<Graph>, intake: LeadIntake, backfills: &Backfills) -> Self {
        let board = backfills.0.clone().unwrap_or_default();
        let every_ms = intake.config.reading.backfill_every_s.map(|every_s| every_s * 1_000);
        Self { graph, intake, board, every_ms }
    }

    /// Works until `stop` is cancelled: by schedule at once, since a start is when leads may have
    /// been lost.
    pub async fn run(self, stop: CancellationToken) {
        Arc::new(self).work(stop).await;
    }

    async fn work(self: Arc<Self>, stop: CancellationToken) {
        let clock = self.intake.clock.clone();
        let mut next = self.every_ms.map(|_| clock.now());
        loop {
            let scheduled = async {
                match next {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.board.wake.notified() => {}
                () = scheduled => {
                    let now = clock.now();
                    next = self.every_ms.map(|every_ms| now.plus_millis(every_ms));
                    // If one was begun by hand meanwhile, that one is as good.
                    if matches!(self.intake.store.hold(Duty::Reading).await, Ok(Some(_))) {
                        let _ = self.board.begin(Wish::default(), true, now);
                    }
                }
            }
            let is_wished = self.board.open().as_ref().is_some_and(|it| it.finished_at.is_none());
            if is_wished {
                self.clone().fill_or_fail(&stop).await;
            }
        }
    }

    /// Reads what is wished for, until `stop` is cancelled. A defect costs this backfill, and not
    /// those after it, which would seem to go on for ever.
    async fn fill_or_fail(self: Arc<Self>, stop: &CancellationToken) {
        let filler = self.clone();
        let mut filling = tokio::spawn(async move { filler.fill().await });
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                filling.abort();
                let _ = filling.await;
            }
            ended = &mut filling => if ended.is_err() {
                tracing::error!("a backfill panicked");
                self.board.change(|progress| progress.counts.forms_failed += 1);
                self.end();
            }
        }
    }

    /// As soon as this one has ended, another one may be begun in its place.
    fn end(&self) -> Option<Progress> {
        let now = self.intake.clock.now();
        self.board.change(|progress| {
            progress.finished_at = Some(now);
            progress.waits_until = None;
            progress.clone()
        })
    }

    async fn fill(&self) {
        Run::new(self).all().await;
        let Some(Progress { counts, wish, scheduled, .. }) = self.end() else { return };
        let Counts { forms, forms_failed, read, new, failed, lost, .. } = counts;
        let dry_run = wish.dry_run;
        tracing::info!(
            scheduled,
            dry_run,
            forms,
            forms_failed,
            read,
            new,
            failed,
            "backfill ended"
        );
        if lost > 0 && !dry_run {
            self.intake.metrics.leads_found_by_backfill(lost);
            tracing::warn!(leads = lost, "the webhook had lost leads; they were read from Meta");
        }
        if failed > 0 || forms_failed > 0 {
            tracing::warn!(leads = failed, forms = forms_failed, "some leads could not be read");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::delivery::verdict::NoAnswer;
    use crate::meta::graph::GraphQuery;
    use crate::reader::fixtures::{NOW, reader};
    use crate::reader::source::{GraphAnswer, GraphSource};
    use crate::store::query::PageRequest;
    use async_trait::async_trait;
    use secrecy::SecretString;
    use serde_json::json;

    #[test]
    fn there_is_one_at_a_time() {
        let now = Timestamp::from_millis(0);
        let backfills = Backfills::heard();
        assert_eq!(backfills.progress(), None);
        let begun = backfills.begin(Wish::default(), now).unwrap();
        assert_eq!(backfills.begin(Wish::default(), now), Err(NotBegun::Running));
        assert_eq!(backfills.progress(), Some(begun));
        backfills.0.as_ref().unwrap().change(|progress| progress.finished_at = Some(now));
        assert!(backfills.begin(Wish::default(), now).is_ok());
    }

    /// A Page with one form, whose list of leads has one that is not dated; it breaks at a word.
    #[derive(Default)]
    struct OneForm {
        breaks: AtomicBool,
    }

    #[async_trait]
    impl GraphSource for OneForm {
        async fn ask(&self, _: &SecretString, query: &GraphQuery) -> Result<GraphAnswer, NoAnswer> {
            assert!(!self.breaks.swap(false, Ordering::Relaxed), "told to break");
            let body = if query.path.ends_with("/leads") {
                json!({"data": [
                    {"id": "36795652870078329", "created_time": "2025-11-01T12:20:00+0000"},
                    {"id": "36795652870078330", "field_data": [{"name": "secret", "values": []}]},
                ]})
            } else {
                json!({"data": [{"id": "17", "page_id": "300", "leads_count": 2, "questions": []}]})
            };
            let body = body.to_string().into_bytes();
            Ok(GraphAnswer { http_status: 200, body, ..GraphAnswer::default() })
        }
    }

    /// Begins a backfill, and answers how it ended.
    async fn ended(backfills: &Backfills) -> Counts {
        backfills.begin(Wish::default(), NOW).unwrap();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
            if let Some(Progress { finished_at: Some(_), counts, .. }) = backfills.progress() {
                return counts;
            }
        }
        panic!("it does not end");
    }

    #[tokio::test]
    async fn a_defect_costs_one_backfill_and_the_next_one_is_done() {
        let source = Arc::new(OneForm { breaks: true.into() });
        let (graph, intake, _) = reader(source);
        let (backfills, stop) = (Backfills::heard(), CancellationToken::new());
        let backfiller = Backfiller::new(graph, intake, &backfills);
        let running = tokio::spawn(backfiller.run(stop.clone()));
        let broken = ended(&backfills).await;
        assert_eq!((broken.forms_failed, broken.read), (1, 0));
        let next = ended(&backfills).await;
        assert_eq!((next.forms_failed, next.read), (0, 1));
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_lead_without_a_time_is_told_and_does_not_hold_its_form() {
        let (graph, intake, _) = reader(Arc::new(OneForm::default()));
        let (backfills, stop) = (Backfills::heard(), CancellationToken::new());
        let store = intake.store.clone();
        let running = tokio::spawn(Backfiller::new(graph, intake, &backfills).run(stop.clone()));
        for _ in 0..2 {
            assert_eq!(ended(&backfills).await.failed, 1);
        }
        let mark = store.form_mark(FormId::from_u64(17).unwrap()).await.unwrap();
        assert_eq!(mark.read_until, Some(UnixSeconds::new(1_761_999_600)));
        let page = PageRequest { cursor: None, limit: 10 };
        let kept = store.list_quarantine(page).await.unwrap().items;
        let payloads: Vec<_> = kept.iter().map(|it| String::from_utf8_lossy(&it.payload)).collect();
        let only_ids = r#"{"form_id":"17","lead_id":"36795652870078330"}"#;
        assert_eq!(payloads, [only_ids], "once, and nothing that the person wrote");
        stop.cancel();
        running.await.unwrap();
    }

    #[test]
    fn without_a_token_there_is_none() {
        let backfills = Backfills::default();
        let begun = backfills.begin(Wish::default(), Timestamp::from_millis(0));
        assert_eq!(begun, Err(NotBegun::NoToken));
    }
}
