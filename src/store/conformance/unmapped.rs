//! What no mapping fits: kept once, bounded, listed by source, and gone when it is mended or old.

use std::collections::BTreeMap;

use super::support::at;
use crate::domain::alarm::{AlarmKind, Kept};
use crate::domain::stage::SourceName;
use crate::limits::UNMAPPED_PER_SOURCE_MAX;
use crate::store::query::PageRequest;
use crate::store::{SetAside, Store, Unmapped};

on_every_store![
    the_same_is_kept_once_and_listed_newest_first_by_source,
    what_is_ended_is_gone_and_may_come_again,
    no_more_is_kept_of_a_source_than_may_be_until_something_went,
    what_is_too_old_is_removed,
    what_is_kept_and_what_is_removed_for_its_age_is_told_by_source,
];

const WHOLE: PageRequest = PageRequest { cursor: None, limit: usize::MAX };

fn unmapped(source: &str, sealed: &[u8], second: i64) -> Unmapped {
    Unmapped {
        received_at: at(second),
        source: SourceName::parse(source).unwrap(),
        field: "stage".into(),
        reason: "nothing is there".into(),
        sealed: sealed.to_vec(),
    }
}

async fn keep(store: &dyn Store, source: &str, sealed: &[u8], second: i64) -> SetAside {
    store.set_aside(vec![unmapped(source, sealed, second)]).await.unwrap().remove(0)
}

/// Number and contents of what is kept.
async fn kept(store: &dyn Store, source: Option<&str>) -> Vec<(u64, Vec<u8>)> {
    let source = source.map(|name| SourceName::parse(name).unwrap());
    let page = store.list_unmapped(source, WHOLE).await.unwrap();
    page.items.into_iter().map(|row| (row.seq, row.unmapped.sealed)).collect()
}

fn contents(rows: &[(u64, Vec<u8>)]) -> Vec<&[u8]> {
    rows.iter().map(|(_, sealed)| sealed.as_slice()).collect()
}

async fn the_same_is_kept_once_and_listed_newest_first_by_source(store: &dyn Store) {
    assert_eq!(keep(store, "a", b"1", 1).await, SetAside::Kept);
    assert_eq!(keep(store, "a", b"2", 2).await, SetAside::Kept);
    assert_eq!(keep(store, "b", b"1", 3).await, SetAside::Kept);
    assert_eq!(keep(store, "a", b"1", 4).await, SetAside::Known);
    assert_eq!(contents(&kept(store, None).await), [b"1", b"2", b"1"]);
    assert_eq!(contents(&kept(store, Some("a")).await), [b"2", b"1"]);
    assert_eq!(contents(&kept(store, Some("c")).await), [b""; 0]);
    let page = store.list_unmapped(None, WHOLE).await.unwrap();
    assert_eq!(page.items.last().unwrap().unmapped, unmapped("a", b"1", 1));
    assert_eq!(store.stats().await.unwrap().unmapped, 3);
    let first = store.list_unmapped(None, PageRequest { cursor: None, limit: 2 }).await.unwrap();
    let rest = PageRequest { cursor: first.next_cursor, limit: 2 };
    assert_eq!(store.list_unmapped(None, rest).await.unwrap().items.len(), 1);
}

async fn what_is_ended_is_gone_and_may_come_again(store: &dyn Store) {
    keep(store, "a", b"1", 1).await;
    let (seq, _) = kept(store, None).await.remove(0);
    assert_eq!(store.end_unmapped(seq).await, Ok(true));
    assert_eq!(store.end_unmapped(seq).await, Ok(false), "it is gone already");
    assert_eq!(kept(store, None).await, []);
    assert_eq!(keep(store, "a", b"1", 2).await, SetAside::Kept);
    assert!(kept(store, None).await[0].0 > seq, "a number is given out once");
}

async fn no_more_is_kept_of_a_source_than_may_be_until_something_went(store: &dyn Store) {
    let sealed = |number: usize| number.to_be_bytes();
    let all = (0..=UNMAPPED_PER_SOURCE_MAX).map(|number| unmapped("a", &sealed(number), 1));
    let outcomes = store.set_aside(all.collect()).await.unwrap();
    let mut wanted = vec![SetAside::Kept; UNMAPPED_PER_SOURCE_MAX];
    wanted.push(SetAside::Full);
    assert!(outcomes == wanted, "the last is one too many");
    assert_eq!(keep(store, "b", b"more", 2).await, SetAside::Kept, "another source has room");
    assert_eq!(keep(store, "a", b"more", 2).await, SetAside::Full);
    assert_eq!(keep(store, "a", &sealed(0), 2).await, SetAside::Known);
    let (seq, _) = kept(store, Some("a")).await.remove(0);
    store.end_unmapped(seq).await.unwrap();
    let two = vec![unmapped("a", b"more", 2), unmapped("a", b"and more", 2)];
    assert_eq!(store.set_aside(two).await, Ok(vec![SetAside::Kept, SetAside::Full]));
}

async fn what_is_too_old_is_removed(store: &dyn Store) {
    // The clock was set back behind the first.
    for second in [3, 1, 2] {
        keep(store, "a", &[u8::try_from(second).unwrap()], second).await;
    }
    keep(store, "b", &[4], 1).await;
    let removed = store.remove_unmapped(at(3), at(9)).await.unwrap();
    let counts: Vec<_> = removed.iter().map(|(source, count)| (source.as_str(), *count)).collect();
    assert_eq!(counts, [("a", 2), ("b", 1)]);
    assert_eq!(store.remove_unmapped(at(3), at(9)).await, Ok(BTreeMap::new()));
    assert_eq!(contents(&kept(store, None).await), [[3]]);
    assert_eq!(keep(store, "a", &[1], 4).await, SetAside::Kept);
}

async fn what_is_kept_and_what_is_removed_for_its_age_is_told_by_source(store: &dyn Store) {
    let kinds = AlarmKind::ALL.iter().copied().collect();
    store.keep_alarms(Kept { kinds, ..Kept::default() }).await.unwrap();
    let both = vec![unmapped("a", b"1", 1), unmapped("a", b"2", 2)];
    store.set_aside(both).await.unwrap();
    keep(store, "a", b"1", 3).await;
    keep(store, "b", b"1", 3).await;
    assert_eq!(told(store).await, [("reports.kept a".to_owned(), 2), ("reports.kept b".into(), 1)]);
    let alarm = store.alarms().await.unwrap().waiting.remove(0);
    assert_eq!((alarm.first_at, alarm.last_at), (at(1), at(2)), "what is known is not told again");
    store.remove_unmapped(at(3), at(9)).await.unwrap();
    store.remove_unmapped(at(3), at(9)).await.unwrap();
    assert_eq!(told(store).await[0], ("reports.expired a".to_owned(), 2));
    assert_eq!(told(store).await.len(), 3);
    assert_eq!(store.alarms().await.unwrap().waiting[0].first_at, at(9));
}

/// What waits to be told, and how often it happened.
async fn told(store: &dyn Store) -> Vec<(String, u64)> {
    let waiting = store.alarms().await.unwrap().waiting;
    waiting.iter().map(|it| (it.cause.subject.to_string(), it.cause.count)).collect()
}
