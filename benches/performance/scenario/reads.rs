//! Whether look-ups, lists and stage updates get slower as the store fills.

use std::collections::BTreeMap;

use leadloop::bench::{Load, Pace};

use crate::baseline::{FIXED_LOOK_UP, NO_OP_LOOK_UP};
use crate::candidate::{Candidate, Server};
use crate::outcome::{Outcome, Table, Target, Unit, grouped};
use crate::rig::{API_KEY, Rig, rotated};
use crate::samples::Samples;
use crate::stores::Events;

const FEW_LEADS: u64 = 10_000;
const PAGE_LEADS: usize = 50;
const PAGES: u64 = 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    LookUp,
    Listing,
    StageUpdate,
}

impl Ask {
    const ALL: [(Self, &'static str); 3] = [
        (Self::LookUp, "look-up, 64 connections"),
        (Self::Listing, "page of 50 leads, 8 connections"),
        (Self::StageUpdate, "stage update, 16 connections"),
    ];

    fn load(self, leads: u64) -> (Load, usize) {
        let api_key = API_KEY.into();
        match self {
            Self::LookUp => (Load::LookUps { api_key, leads }, 64),
            Self::Listing => (Load::Listings { api_key, limit: PAGE_LEADS, pages: PAGES }, 8),
            Self::StageUpdate => (Load::StageUpdates { api_key, leads, per_request: 1 }, 16),
        }
    }
}

/// Rates by what was asked for and how many leads there were.
type Rates = BTreeMap<(Ask, u64), Samples>;

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let mut sizes = vec![FEW_LEADS, rig.effort.many_leads];
    sizes.extend(rig.effort.most_leads);
    let (mut rates, mut floors) = (Rates::new(), [NO_OP_LOOK_UP, FIXED_LOOK_UP].map(floor));
    for round in rig.rounds() {
        rig.step(format!("round {}, no-op route", round + 1));
        let server = rig.start(Candidate::NoOp).await?;
        for (path, rates) in &mut floors {
            let load = Load::Gets { path: (*path).to_owned() };
            rates.push(rig.load(&server, load, 64, Pace::Closed).await?.per_s());
        }
        for leads in rotated(&sizes, round) {
            let store = rig.store(leads, Events::Delivered).await?;
            let server = rig.start_leadloop(Some(&store), &rig.sink.url()).await?;
            rig.step(format!("round {}, {leads} leads", round + 1));
            ask(rig, &server, leads, &mut rates).await?;
        }
    }
    let [(_, no_op), (_, fixed)] = floors;
    Ok(outcome(&sizes, &rates, &no_op, &fixed))
}

/// A route of a baseline with its rates.
fn floor(path: &'static str) -> (&'static str, Samples) {
    (path, Samples::default())
}

async fn ask(rig: &Rig, server: &Server, leads: u64, rates: &mut Rates) -> anyhow::Result<()> {
    for (ask, _) in Ask::ALL {
        let (load, connections) = ask.load(leads);
        let report = rig.load(server, load, connections, Pace::Closed).await?;
        rates.entry((ask, leads)).or_default().push(report.per_s());
    }
    Ok(())
}

fn outcome(sizes: &[u64], rates: &Rates, no_op: &Samples, fixed: &Samples) -> Outcome {
    let mut outcome = Outcome::default();
    let most = sizes[sizes.len() - 1];
    for (ask, name) in Ask::ALL {
        let ratio = rates[&(ask, most)].ratio_to(&rates[&(ask, FEW_LEADS)]);
        let what = format!("{name}: with {} leads ÷ with {}", grouped(most), grouped(FEW_LEADS));
        outcome.goal(what, Target::AtLeast(0.85), Unit::Ratio, ratio);
    }
    let ratio = rates[&(Ask::LookUp, most)].ratio_to(no_op);
    let what = format!("look-up ÷ no-op route, {} leads, 64 connections", grouped(most));
    outcome.goal(what, Target::AtLeast(0.6), Unit::Ratio, ratio);
    let head = ["a second, with leads stored".to_owned()].into_iter();
    let head: Vec<_> = head.chain(sizes.iter().map(grouped)).collect();
    let mut table = Table::new("", &head);
    for (ask, name) in Ask::ALL {
        let figures = sizes.iter().map(|leads| &rates[&(ask, *leads)]);
        table.row(name, figures.map(|samples| Unit::PerSecond.summary(samples)));
    }
    for (name, floor) in [("no-op route", no_op), ("a route with a fixed answer", fixed)] {
        let floor = Unit::PerSecond.summary(floor);
        table.row(format!("{name}, 64 connections"), sizes.iter().map(|_| floor.clone()));
    }
    outcome.tables.push(table);
    outcome.note(format!(
        "Look-ups and stage updates are of random leads; lists are of {PAGES} pages from the newest \
         lead on, again and again. A stage update is durable when it is answered. The fixed answer \
         is of 1,000 bytes, about as many as the answer to a look-up has."
    ));
    outcome
}
