//! When the watcher tells that something begins or ends.

use super::*;
use crate::clock::MockClock;
use crate::domain::alarm::{AlarmKind, AlarmKinds, Alarms};
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

impl Bench {
    async fn new(silence_s: Option<i64>) -> Self {
        let store = Arc::new(MemoryStore::default());
        store.keep_alarms(AlarmKind::ALL.iter().copied().collect()).await.unwrap();
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
    bench.watcher.store.keep_alarms(AlarmKinds::NONE).await.unwrap();
    assert_eq!(bench.told_after(100).await, [""; 0]);
    assert!(bench.watcher.metrics.render().contains("leadloop_webhook_silent 1"));
    assert_eq!(bench.watcher.store.alarms().await.unwrap(), Alarms::default());
}
