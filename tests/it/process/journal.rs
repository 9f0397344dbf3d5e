//! What must hold after kills: a check of what clients were told against what the server shows and
//! what the stand-in received.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// The name of the raw-lead stage.
pub const RAW: &str = "initial_lead";

/// What the clients know for sure, since they were told.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Leads whose webhook was answered 200, each with the events of its acknowledged stage
    /// updates, in the order in which they were acknowledged.
    pub leads: BTreeMap<String, Vec<String>>,
    /// The leads of each delivery that was not acknowledged and not repeated.
    pub given_up: Vec<Vec<String>>,
    /// Events that a look-up showed as delivered, with how many requests the stand-in had seen when
    /// the first one did so.
    pub delivered: BTreeMap<String, u64>,
    /// Runs of servers that were killed.
    pub killed: BTreeSet<usize>,
    /// The requests that were under way while the database was away.
    pub outages: Vec<RangeInclusive<u64>>,
}

impl Journal {
    /// Every lead that was told of.
    pub fn all_leads(&self) -> impl Iterator<Item = &String> {
        self.leads.keys().chain(self.given_up.iter().flatten())
    }
}

/// An event as the server shows it in the end.
#[derive(Clone, Debug)]
pub struct Shown {
    pub event_id: String,
    pub stage: String,
    pub state: String,
}

/// An event as the stand-in received it.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub event_id: String,
    /// The run of the server that sent it.
    pub run: usize,
    /// The request that carried it.
    pub request: u64,
}

/// What was checked, and what was allowed to happen.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Acknowledged, and there.
    pub leads: usize,
    pub events: usize,
    /// Deliveries without an answer: nothing of them is there, or all.
    pub given_up: usize,
    /// Those that are there.
    pub given_up_and_stored: usize,
    /// Events as the stand-in received them.
    pub receipts: usize,
    /// Receipts of an event that had been received before a kill and was not recorded yet.
    pub received_again: usize,
}

/// Checks, and answers with everything that is wrong. `receipts` are in the order of arrival.
pub fn check(
    journal: &Journal,
    timelines: &BTreeMap<String, Vec<Shown>>,
    receipts: &[Receipt],
) -> Result<Summary, Vec<String>> {
    let mut faults = Vec::new();
    check_acknowledged(journal, timelines, &mut faults);
    let given_up_and_stored = check_given_up(journal, timelines, &mut faults);
    check_order(journal, timelines, receipts, &mut faults);
    let received_again = check_repeats(journal, receipts, &mut faults);
    let known: BTreeSet<&String> =
        timelines.values().flatten().map(|shown| &shown.event_id).collect();
    for receipt in receipts.iter().filter(|receipt| !known.contains(&receipt.event_id)) {
        faults.push(format!("{} was sent and is not on record", receipt.event_id));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Summary {
        leads: journal.leads.len(),
        events: known.len(),
        given_up: journal.given_up.len(),
        given_up_and_stored,
        receipts: receipts.len(),
        received_again,
    })
}

/// Whatever was acknowledged is there, once, and delivered.
fn check_acknowledged(
    journal: &Journal,
    timelines: &BTreeMap<String, Vec<Shown>>,
    faults: &mut Vec<String>,
) {
    for (lead_id, updates) in &journal.leads {
        let Some(timeline) = timelines.get(lead_id) else {
            faults.push(format!("lead {lead_id} is lost"));
            continue;
        };
        let raw = timeline.iter().filter(|shown| shown.stage == RAW).count();
        if raw != 1 {
            faults.push(format!("lead {lead_id} has {raw} raw-lead events"));
        }
        for event_id in updates {
            let times = timeline.iter().filter(|shown| shown.event_id == *event_id).count();
            if times != 1 {
                faults.push(format!("update {event_id} is on record {times} times"));
            }
        }
        for shown in timeline.iter().filter(|shown| shown.state != "delivered") {
            faults.push(format!("{} is {}", shown.event_id, shown.state));
        }
    }
}

/// A delivery that nobody was answered to is there wholly or not at all; counts the former.
fn check_given_up(
    journal: &Journal,
    timelines: &BTreeMap<String, Vec<Shown>>,
    faults: &mut Vec<String>,
) -> usize {
    let mut whole = 0;
    for delivery in &journal.given_up {
        let stored = delivery.iter().filter_map(|lead_id| timelines.get(lead_id));
        let stored: Vec<_> = stored.collect();
        if stored.len() == delivery.len() {
            whole += 1;
        } else if !stored.is_empty() {
            let (part, all) = (stored.len(), delivery.len());
            faults.push(format!(
                "{part} of {all} leads of the delivery of {} are there",
                delivery[0]
            ));
        }
        for timeline in stored.iter().filter(|timeline| timeline.len() != 1) {
            faults.push(format!("a given up lead has {} events: {timeline:?}", timeline.len()));
        }
    }
    whole
}

/// The stand-in received each lead's events in order: the raw lead, then the updates.
fn check_order(
    journal: &Journal,
    timelines: &BTreeMap<String, Vec<Shown>>,
    receipts: &[Receipt],
    faults: &mut Vec<String>,
) {
    let mut first = BTreeMap::new();
    let mut last = BTreeMap::new();
    for (place, receipt) in receipts.iter().enumerate() {
        first.entry(&receipt.event_id).or_insert(place);
        last.insert(&receipt.event_id, place);
    }
    for (lead_id, updates) in &journal.leads {
        let timeline = timelines.get(lead_id).into_iter().flatten();
        let raw = timeline.filter(|shown| shown.stage == RAW).map(|shown| &shown.event_id);
        let expected: Vec<&String> = raw.chain(updates).collect();
        for event_id in expected.iter().filter(|event_id| !first.contains_key(*event_id)) {
            faults.push(format!("{event_id} never arrived"));
        }
        for places in [&first, &last] {
            if !expected.iter().filter_map(|event_id| places.get(*event_id)).is_sorted() {
                faults.push(format!("the events of lead {lead_id} arrived in another order"));
            }
        }
    }
}

/// Only what was under way when something was killed may arrive again, as long as nobody had been
/// told that it was delivered: it was in the last request of a run that was killed, or in one of
/// those while the database was away.
fn check_repeats(journal: &Journal, receipts: &[Receipt], faults: &mut Vec<String>) -> usize {
    let mut last_request = BTreeMap::new();
    for receipt in receipts {
        last_request.insert(receipt.run, receipt.request);
    }
    let was_under_way = |previous: &Receipt, again: &Receipt| {
        if previous.run == again.run {
            return journal.outages.iter().any(|outage| outage.contains(&previous.request));
        }
        journal.killed.contains(&previous.run) && last_request[&previous.run] == previous.request
    };
    let mut before: BTreeMap<&String, &Receipt> = BTreeMap::new();
    let mut received_again = 0;
    for receipt in receipts {
        let event_id = &receipt.event_id;
        if journal.delivered.get(event_id).is_some_and(|requests| *requests < receipt.request) {
            faults.push(format!("{event_id} was sent again after it was shown as delivered"));
        }
        let Some(previous) = before.insert(event_id, receipt) else {
            continue;
        };
        received_again += 1;
        if !was_under_way(previous, receipt) {
            faults.push(format!("{event_id} was sent again although it was not under way"));
        }
    }
    received_again
}

/// A good end of two runs: `a` has a raw lead and two updates, `b` a raw lead only, which was under
/// way at the kill; nobody was answered to the delivery of `c` and `d`, and both are there.
fn example() -> (Journal, BTreeMap<String, Vec<Shown>>, Vec<Receipt>) {
    let shown = |event_id: &str| Shown {
        event_id: event_id.to_owned(),
        stage: if event_id.ends_with("raw") { RAW } else { "won" }.to_owned(),
        state: "delivered".to_owned(),
    };
    let of = |ids: &[&str]| ids.iter().copied().map(shown).collect();
    let receipt =
        |event_id: &str, run, request| Receipt { event_id: event_id.into(), run, request };
    let journal = Journal {
        leads: [("a".into(), vec!["a1".into(), "a2".into()]), ("b".into(), Vec::new())].into(),
        given_up: vec![vec!["c".into(), "d".into()]],
        delivered: [("a-raw".into(), 1), ("a1".into(), 3)].into(),
        killed: [0].into(),
        outages: Vec::new(),
    };
    let timelines = [
        ("a".into(), of(&["a-raw", "a1", "a2"])),
        ("b".into(), of(&["b-raw"])),
        ("c".into(), of(&["c-raw"])),
        ("d".into(), of(&["d-raw"])),
    ];
    let receipts = vec![receipt("a-raw", 0, 1), receipt("b-raw", 0, 2), receipt("b-raw", 1, 3)]
        .into_iter()
        .chain([receipt("a1", 1, 3), receipt("a2", 1, 4)]);
    (journal, timelines.into(), receipts.collect())
}

/// What the check says of the example after a change for the worse.
fn faults_after(
    change: impl FnOnce(&mut Journal, &mut BTreeMap<String, Vec<Shown>>, &mut Vec<Receipt>),
) -> String {
    let (mut journal, mut timelines, mut receipts) = example();
    change(&mut journal, &mut timelines, &mut receipts);
    check(&journal, &timelines, &receipts).unwrap_err().join("; ")
}

#[test]
fn the_check_passes_a_good_end_and_counts_what_arrived_again() {
    let (journal, timelines, receipts) = example();
    let summary = Summary {
        leads: 2,
        events: 6,
        given_up: 1,
        given_up_and_stored: 1,
        receipts: 5,
        received_again: 1,
    };
    assert_eq!(check(&journal, &timelines, &receipts), Ok(summary));
}

#[test]
fn the_check_finds_what_is_lost() {
    let lost = faults_after(|_, timelines, _| drop(timelines.remove("a")));
    assert!(lost.contains("lead a is lost"), "{lost}");
    let lost = faults_after(|_, timelines, _| drop(timelines.get_mut("a").unwrap().remove(2)));
    assert!(lost.contains("update a2 is on record 0 times"), "{lost}");
    let lost = faults_after(|_, timelines, _| drop(timelines.get_mut("b").unwrap().remove(0)));
    assert!(lost.contains("lead b has 0 raw-lead events"), "{lost}");
    let lost = faults_after(|_, _, receipts| drop(receipts.pop()));
    assert!(lost.contains("a2 never arrived"), "{lost}");
    let stuck =
        faults_after(|_, timelines, _| timelines.get_mut("b").unwrap()[0].state = "held".into());
    assert!(stuck.contains("b-raw is held"), "{stuck}");
}

#[test]
fn the_check_finds_what_is_torn() {
    let torn = faults_after(|_, timelines, _| drop(timelines.remove("d")));
    assert!(torn.contains("1 of 2 leads of the delivery of c are there"), "{torn}");
    let torn = faults_after(|_, timelines, _| timelines.get_mut("d").unwrap().clear());
    assert!(torn.contains("a given up lead has 0 events"), "{torn}");
}

#[test]
fn the_check_finds_what_is_doubled() {
    let again = |event_id: &str, run, request| {
        let event_id = event_id.to_owned();
        faults_after(|_, _, receipts| receipts.push(Receipt { event_id, run, request }))
    };
    let doubled = again("a-raw", 1, 5);
    assert!(doubled.contains("a-raw was sent again after it was shown as delivered"), "{doubled}");
    assert!(doubled.contains("a-raw was sent again although it was not under way"), "{doubled}");
    let doubled = again("a2", 1, 5);
    assert!(doubled.contains("a2 was sent again although"), "in the same run: {doubled}");
    let doubled = faults_after(|journal, _, _| journal.killed.clear());
    assert!(doubled.contains("b-raw was sent again although"), "without a kill: {doubled}");
    let doubled = faults_after(|_, timelines, _| {
        let raw = timelines["b"][0].clone();
        timelines.get_mut("b").unwrap().push(raw);
    });
    assert!(doubled.contains("lead b has 2 raw-lead events"), "{doubled}");
    let invented = again("e-raw", 1, 5);
    assert!(invented.contains("e-raw was sent and is not on record"), "{invented}");
}

#[test]
fn the_check_finds_a_wrong_order() {
    let order = faults_after(|_, _, receipts| receipts.swap(3, 4));
    assert!(order.contains("the events of lead a arrived in another order"), "{order}");
}
