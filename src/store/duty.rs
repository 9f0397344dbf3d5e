//! What one instance at a time does, where several share a store.

use std::fmt;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::domain::ids::DatasetId;

/// Something that one instance at a time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// Sending the events of a dataset.
    Dataset(DatasetId),
    /// Telling alarms.
    Alarms,
    /// Reading leads by the schedule.
    Reading,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dataset(dataset_id) => write!(f, "dataset:{dataset_id}"),
            Self::Alarms => f.write_str("alarms"),
            Self::Reading => f.write_str("reading"),
        }
    }
}

/// The right to a duty. It ends when it is not renewed in time, which the store sees to.
///
/// By default it is that of the only instance, and never ends.
#[derive(Clone, Debug, Default)]
pub struct Hold {
    /// Grows with each instance that takes the duty over; a store takes nothing from an earlier
    /// one.
    pub(in crate::store) epoch: u64,
    /// Until when, as far as is known now.
    pub(in crate::store) until: Option<watch::Receiver<Instant>>,
}

impl Hold {
    /// Whether it has not ended by now.
    pub fn is_valid(&self) -> bool {
        self.until.as_ref().is_none_or(|until| Instant::now() < *until.borrow())
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        let Some(mut until) = self.until.clone() else { return std::future::pending().await };
        while self.is_valid() {
            let known = *until.borrow_and_update();
            tokio::select! {
                () = sleep_until(known) => {}
                changed = until.changed() => if changed.is_err() {
                    // Nobody renews it any more.
                    return sleep_until(known).await;
                }
            }
        }
    }
}

impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        self.epoch == other.epoch
    }
}

impl Eq for Hold {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hold_ends_at_its_time_unless_it_is_renewed() {
        let start = Instant::now();
        let (renew, until) = watch::channel(start + Duration::from_secs(5));
        let hold = Hold { epoch: 1, until: Some(until) };
        assert!(hold.is_valid());
        let (waiting, mut ended) = (hold.clone(), tokio::task::JoinSet::new());
        ended.spawn(async move { waiting.ended().await });
        tokio::time::advance(Duration::from_secs(4)).await;
        renew.send(start + Duration::from_secs(9)).unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(hold.is_valid() && ended.try_join_next().is_none());
        ended.join_next().await.unwrap().unwrap();
        assert!(!hold.is_valid());
        assert_eq!(start.elapsed().as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_that_was_lost_ends_at_once_and_that_of_the_only_instance_never() {
        let (renew, until) = watch::channel(Instant::now() + Duration::from_secs(5));
        let hold = Hold { epoch: 1, until: Some(until) };
        renew.send(Instant::now()).unwrap();
        hold.ended().await;
        assert!(!hold.is_valid());
        let only = Hold::default();
        let waited = tokio::time::timeout(Duration::from_secs(1_000_000), only.ended()).await;
        assert!(waited.is_err() && only.is_valid());
    }
}
