//! What a run is to be.

use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

use crate::bench::ids::LeadIds;
use crate::limits::{
    BATCH_UPDATES_MAX, BENCH_CONNECTIONS_MAX, BENCH_ELAPSED_MAX, BENCH_LEADS_PER_POST_MAX,
    BENCH_RATE_MAX, PAGE_MAX,
};

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server is: `http://`, a host and a port. For webhooks a path, if there is one, is
    /// where they go.
    pub server: Url,
    /// What is asked of it.
    pub load: Load,
    /// How many connections are open.
    pub connections: usize,
    /// When requests are sent.
    pub pace: Pace,
    /// When it is enough.
    pub until: Until,
    /// For how long requests are sent before any counts.
    pub warm_up: Duration,
    /// By which lead ids and chance are chosen.
    pub seed: u64,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection sends the next one when the last one is answered.
    Closed,
    /// They become due at random moments, as if by many who do not know of each other.
    Open {
        /// How many, a second, on average.
        per_s: f64,
    },
}

/// When a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many requests.
    Requests(u64),
}

/// What is asked of the server.
#[derive(Clone, Debug)]
pub enum Load {
    /// Deliveries of new leads, as Meta sends them, signed.
    Webhooks {
        /// What they are signed with.
        app_secret: SecretString,
        /// The Page of the leads.
        page_id: u64,
        /// Leads of one delivery.
        leads_per_post: usize,
        /// The number of the first lead, see [`LeadIds`].
        first: u64,
    },
    /// `GET /v1/leads/{id}`, of random leads.
    LookUps {
        /// A key that may read.
        api_key: SecretString,
        /// The leads with numbers below this are looked up.
        leads: u64,
    },
    /// `GET /v1/leads`, page after page from the newest one on, and anew after some pages.
    Listings {
        /// A key that may read.
        api_key: SecretString,
        /// Leads of a page.
        limit: usize,
        /// Pages until it begins anew.
        pages: u64,
    },
    /// Stages of leads, now: each lead in a random order, then each with another stage.
    StageUpdates {
        /// A key that may write.
        api_key: SecretString,
        /// The leads with numbers below this reach stages.
        leads: u64,
        /// Updates of one request.
        per_request: usize,
    },
    /// `GET` of a path, for comparison.
    Gets {
        /// The path.
        path: String,
    },
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The plan makes no sense.
    #[error("{0}")]
    Plan(String),
    /// Nobody is there.
    #[error("{address}: nobody answers at this address: is the server running?")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread could not be started, or has ended.
    #[error("the load generator cannot run: {0}")]
    Machine(#[from] std::io::Error),
}

impl Plan {
    /// Whether it makes sense.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let within = |what: &str, number: u64, most: u64| {
            let says = format!("{what}: {number} is not between 1 and {most}");
            if (1..=most).contains(&number) { Ok(()) } else { Err(BenchError::Plan(says)) }
        };
        if self.server.scheme() != "http" {
            return Err(BenchError::Plan(format!("{}: only http:// is spoken", self.server)));
        }
        within("connections", self.connections as u64, BENCH_CONNECTIONS_MAX as u64)?;
        match self.pace {
            Pace::Open { per_s } if !(per_s > 0.0 && per_s <= BENCH_RATE_MAX) => {
                let says = format!("rate: {per_s} is not between 0 and {BENCH_RATE_MAX}");
                return Err(BenchError::Plan(says));
            }
            _ => {}
        }
        match self.until {
            Until::Requests(requests) => within("requests", requests, u64::MAX)?,
            Until::Elapsed(elapsed) => {
                let most = BENCH_ELAPSED_MAX.as_secs();
                within(
                    "seconds",
                    elapsed.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX),
                    most,
                )?;
            }
        }
        match self.load {
            Load::Webhooks { leads_per_post, .. } => {
                let most = BENCH_LEADS_PER_POST_MAX as u64;
                within("leads of one delivery", leads_per_post as u64, most)
            }
            Load::LookUps { leads, .. } => within("leads", leads, LeadIds::COUNT),
            Load::Listings { limit, pages, .. } => {
                within("leads of a page", limit as u64, PAGE_MAX as u64)?;
                within("pages", pages, u64::MAX)
            }
            Load::StageUpdates { leads, per_request, .. } => {
                within("leads", leads, LeadIds::COUNT)?;
                within("updates of a request", per_request as u64, BATCH_UPDATES_MAX as u64)
            }
            Load::Gets { .. } => Ok(()),
        }
    }

    /// How many requests to make at most: in an open loop and for a number of them it is known how
    /// many are needed, but for chance.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of requests that is not negative and may be rounded"
    )]
    pub(super) fn requests_max(&self) -> u64 {
        const CHANCE: f64 = 1.1;
        const FEW: u64 = 1_000;
        let of_rate = |elapsed: Duration| match self.pace {
            Pace::Closed => u64::MAX,
            Pace::Open { per_s } => (elapsed.as_secs_f64() * per_s * CHANCE) as u64 + FEW,
        };
        match self.until {
            Until::Elapsed(elapsed) => of_rate(self.warm_up + elapsed),
            Until::Requests(requests) if self.warm_up.is_zero() => requests,
            Until::Requests(requests) => of_rate(self.warm_up).saturating_add(requests),
        }
    }
}
