//! Whether look-ups, lists and stage updates get slower as the store fills.

use std::collections::BTreeMap;

use leadloop::bench::Load;

use crate::baseline::{FIXED_LOOK_UP, NO_OP_LOOK_UP};
use crate::candidate::{Candidate, Server};
use crate::outcome::{Outcome, Table, Target, Unit, grouped};
use crate::rig::{API_KEY, Rig, rotated};
use crate::samples::Samples;
use crate::stores::Events;
use crate::work::Works;

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

/// Routes that read nothing, with their names.
const FLOORS: [(&str, &str); 2] =
    [("no-op route", NO_OP_LOOK_UP), ("a route with a fixed answer", FIXED_LOOK_UP)];

/// All that is measured.
#[derive(Default)]
struct Measured {
    rates: Rates,
    /// Those of [`FLOORS`].
    floors: [Samples; 2],
    /// What cores do at look-ups, by what is looked up.
    works: BTreeMap<String, Works>,
}

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let mut sizes = vec![FEW_LEADS, rig.effort.many_leads];
    sizes.extend(rig.effort.most_leads);
    let mut measured = Measured::default();
    for round in rig.rounds() {
        rig.step(format!("round {}, no-op route", round + 1));
        let server = rig.start(Candidate::NoOp).await?;
        for ((name, path), rates) in FLOORS.into_iter().zip(&mut measured.floors) {
            let load = Load::Gets { path: path.to_owned() };
            let (report, work) = rig.load_and_watch(&server, load, 64).await?;
            rates.push(report.per_s());
            measured.works.entry(name.to_owned()).or_default().push(work);
        }
        for leads in rotated(&sizes, round) {
            let store = rig.store(leads, Events::Delivered).await?;
            let server = rig.start_leadloop(Some(&store), &rig.sink.url()).await?;
            rig.step(format!("round {}, {leads} leads", round + 1));
            measured.ask(rig, &server, leads).await?;
        }
    }
    Ok(measured.outcome(&sizes))
}

impl Measured {
    async fn ask(&mut self, rig: &Rig, server: &Server, leads: u64) -> anyhow::Result<()> {
        for (ask, _) in Ask::ALL {
            let (load, connections) = ask.load(leads);
            let (report, work) = rig.load_and_watch(server, load, connections).await?;
            self.rates.entry((ask, leads)).or_default().push(report.per_s());
            if ask == Ask::LookUp {
                let name = format!("look-ups, {} leads", grouped(leads));
                self.works.entry(name).or_default().push(work);
            }
        }
        Ok(())
    }

    fn outcome(&self, sizes: &[u64]) -> Outcome {
        let mut outcome = Outcome::default();
        let most = sizes[sizes.len() - 1];
        let rates = |ask, leads| &self.rates[&(ask, leads)];
        for (ask, name) in Ask::ALL {
            let ratio = rates(ask, most).ratio_to(rates(ask, FEW_LEADS));
            let what =
                format!("{name}: with {} leads ÷ with {}", grouped(most), grouped(FEW_LEADS));
            outcome.goal(what, Target::AtLeast(0.85), Unit::Ratio, ratio);
        }
        let ratio = rates(Ask::LookUp, most).ratio_to(&self.floors[0]);
        let what = format!("look-up ÷ no-op route, {} leads, 64 connections", grouped(most));
        outcome.goal(what, Target::AtLeast(0.6), Unit::Ratio, ratio);
        let head = ["a second, with leads stored".to_owned()].into_iter();
        let head: Vec<_> = head.chain(sizes.iter().map(grouped)).collect();
        let mut table = Table::new("", &head);
        for (ask, name) in Ask::ALL {
            let figures = sizes.iter().map(|leads| rates(ask, *leads));
            table.row(name, figures.map(|samples| Unit::PerSecond.summary(samples)));
        }
        for ((name, _), floor) in FLOORS.into_iter().zip(&self.floors) {
            let floor = Unit::PerSecond.summary(floor);
            table.row(format!("{name}, 64 connections"), sizes.iter().map(|_| floor.clone()));
        }
        let mut works = Table::new("look-ups, 64 connections", &Works::HEAD);
        for (name, work) in &self.works {
            works.row(name, work.figures());
        }
        outcome.tables.extend([table, works]);
        outcome.note(format!(
            "Look-ups and stage updates are of random leads; lists are of {PAGES} pages from the \
             newest lead on, again and again. A stage update is durable when it is answered. The \
             fixed answer is of 1,000 bytes, about as many as the answer to a look-up has. One core \
             is the most that a server's runtime takes here, as it leaves one to the store."
        ));
        outcome
    }
}
