//! When the watcher tells that something begins or ends.

use super::*;
use crate::clock::MockClock;
use crate::domain::alarm::{AlarmKind, Alarms, Kept};
use crate::domain::ids::DatasetId;
use crate::domain::time::UnixSeconds;
use crate::meta::errors::PauseReason;
use crate::store::memory::MemoryStore;

struct Bench {
    watcher: Watcher,
    clock: Arc<MockClock>,
    lasting: Option<Lasting>,
}

fn at(seconds: i64) -> Timestamp {
    UnixSeconds::new(1_762_000_000 + seconds).timestamp()
}

fn seven() -> DatasetId {
    DatasetId::from_u64(7).unwrap()
}

fn paused(reason: PauseReason) -> Activity {
    Activity::Paused { reason, since: at(-5), next_try_at: at(60) }
}

/// What settings with these datasets keep, if every kind is told.
fn keeping(datasets: &[DatasetId], silence: bool) -> Kept {
    let datasets = datasets.iter().copied().map(Condition::DatasetPaused);
    let watched = datasets.chain(silence.then_some(Condition::WebhookSilent)).collect();
    Kept { kinds: AlarmKind::ALL.iter().copied().collect(), watched }
}

impl Bench {
    async fn new(silence_s: Option<i64>) -> Self {
        let store = Arc::new(MemoryStore::default());
        store.keep_alarms(keeping(&[seven()], true)).await.unwrap();
        let clock = Arc::new(MockClock::at(at(0)));
        let watcher = Watcher {
            heard: LastHeard::at_start(&*store, at(0)).await,
            store,
            clock: clock.clone(),
            status: StatusBoard::default(),
            silence_s,
            metrics: Arc::default(),
        };
        Self { watcher, clock, lasting: None }
    }

    /// The same store after another start: nothing is known of the datasets.
    async fn restart(&mut self) {
        self.watcher.status = StatusBoard::default();
        self.watcher.heard = LastHeard::at_start(&*self.watcher.store, self.clock.now()).await;
        self.lasting = None;
    }

    /// Starts with these settings, and then with others.
    async fn restart_keeping(&mut self, settings: [Kept; 2]) {
        for kept in settings {
            self.watcher.store.keep_alarms(kept).await.unwrap();
            self.restart().await;
        }
    }

    /// Looks so many times, a second apart, and tells what was raised by then.
    async fn told_after(&mut self, rounds: usize) -> Vec<String> {
        for _ in 0..rounds {
            self.watcher.round(&mut self.lasting).await;
            self.clock.advance_ms(ALARM_WATCH_EVERY_MS);
        }
        let waiting = self.watcher.store.alarms().await.unwrap().waiting;
        waiting
            .iter()
            .map(|alarm| format!("{} {}", alarm.cause.count, alarm.cause.subject))
            .collect()
    }
}

#[tokio::test]
async fn a_pause_and_its_end_are_told_once_each() {
    let mut bench = Bench::new(None).await;
    assert_eq!(bench.told_after(3).await, [""; 0]);
    bench.watcher.status.set(seven(), paused(PauseReason::Token));
    assert_eq!(bench.told_after(3).await, ["1 dataset.paused 7 token"]);
    bench.watcher.status.set(seven(), paused(PauseReason::Permission));
    assert_eq!(bench.told_after(3).await, ["1 dataset.paused 7 token"], "it is paused still");
    let waiting = Activity::Waiting { since: at(0), next_try_at: at(9) };
    bench.watcher.status.set(seven(), waiting);
    assert_eq!(bench.told_after(3).await.len(), 1, "that is no success");
    bench.watcher.status.set(seven(), Activity::Active);
    let both = ["1 dataset.paused 7 token", "1 dataset.resumed 7"];
    assert_eq!(bench.told_after(3).await, both);
    let waiting = bench.watcher.store.alarms().await.unwrap().waiting;
    assert_eq!(waiting[1].cause.moment, Some(at(-5)), "it tells since when it was paused");
}

#[tokio::test]
async fn a_dataset_that_was_mended_by_a_restart_is_told_to_have_resumed() {
    let mut bench = Bench::new(None).await;
    bench.watcher.status.set(seven(), paused(PauseReason::Token));
    bench.told_after(1).await;
    bench.restart().await;
    assert_eq!(bench.told_after(9).await.len(), 1, "nothing is known of it yet");
    bench.watcher.status.set(seven(), Activity::Active);
    assert_eq!(bench.told_after(1).await[1..], ["1 dataset.resumed 7"]);
}

#[tokio::test]
async fn a_dataset_that_is_still_paused_after_a_restart_is_not_told_again() {
    let mut bench = Bench::new(None).await;
    bench.watcher.status.set(seven(), paused(PauseReason::Token));
    bench.told_after(1).await;
    bench.restart().await;
    bench.watcher.status.set(seven(), paused(PauseReason::Token));
    assert_eq!(bench.told_after(3).await, ["1 dataset.paused 7 token"]);
}

#[tokio::test]
async fn a_dataset_that_was_taken_out_of_the_settings_is_told_when_it_is_paused_again() {
    let mut bench = Bench::new(None).await;
    let all = keeping(&[seven()], true);
    for (between, expected) in [(all.clone(), 1), (keeping(&[], true), 2)] {
        bench.watcher.status.set(seven(), paused(PauseReason::Token));
        bench.told_after(1).await;
        bench.restart_keeping([between, all.clone()]).await;
        bench.watcher.status.set(seven(), paused(PauseReason::Token));
        assert_eq!(bench.told_after(3).await, [format!("{expected} dataset.paused 7 token")]);
    }
}

#[tokio::test]
async fn a_pause_is_told_once_its_kind_is_kept() {
    let mut bench = Bench::new(None).await;
    let all = keeping(&[seven()], true);
    let kinds = [AlarmKind::DatasetResumed].into_iter().collect();
    bench.watcher.store.keep_alarms(Kept { kinds, ..all.clone() }).await.unwrap();
    bench.watcher.status.set(seven(), paused(PauseReason::Token));
    assert_eq!(bench.told_after(1).await, [""; 0]);
    bench.restart_keeping([all.clone(), all]).await;
    bench.watcher.status.set(seven(), paused(PauseReason::Token));
    assert_eq!(bench.told_after(3).await, ["1 dataset.paused 7 token"]);
}

#[tokio::test]
async fn silence_is_told_again_when_its_setting_was_gone_meanwhile() {
    let mut bench = Bench::new(Some(60)).await;
    let all = keeping(&[seven()], true);
    for (between, expected) in [(all.clone(), 1), (keeping(&[seven()], false), 2)] {
        bench.told_after(61).await;
        bench.restart_keeping([between, all.clone()]).await;
        // No lead ever came, so each start counts as a delivery.
        bench.watcher.heard = LastHeard::now(at(0));
        assert_eq!(bench.told_after(1).await, [format!("{expected} webhook.silent")]);
    }
}

#[tokio::test]
async fn silence_is_told_once_and_so_is_its_end() {
    let mut bench = Bench::new(Some(60)).await;
    assert_eq!(bench.told_after(60).await, [""; 0]);
    assert_eq!(bench.told_after(1).await, ["1 webhook.silent"]);
    assert!(bench.watcher.metrics.render().contains("leadloop_webhook_silent 1"));
    assert_eq!(bench.told_after(100).await, ["1 webhook.silent"]);
    bench.watcher.heard.note(bench.clock.now());
    assert_eq!(bench.told_after(60).await, ["1 webhook.resumed", "1 webhook.silent"]);
    assert!(bench.watcher.metrics.render().contains("leadloop_webhook_silent 0"));
}

#[tokio::test]
async fn silence_that_lasts_over_a_restart_is_told_once() {
    let mut bench = Bench::new(Some(60)).await;
    bench.told_after(61).await;
    bench.restart().await;
    assert_eq!(bench.told_after(1).await.len(), 2, "without a lead, a start is a beginning");
    bench.restart().await;
    assert_eq!(bench.told_after(59).await.len(), 2);
}

#[tokio::test]
async fn without_a_receiver_silence_is_shown_and_nothing_is_stored() {
    let mut bench = Bench::new(Some(60)).await;
    bench.watcher.store.keep_alarms(Kept::default()).await.unwrap();
    assert_eq!(bench.told_after(100).await, [""; 0]);
    assert!(bench.watcher.metrics.render().contains("leadloop_webhook_silent 1"));
    assert_eq!(bench.watcher.store.alarms().await.unwrap(), Alarms::default());
}
