//! `leadloop bench`: load on a server, and what its answers were like.

mod result;

use std::time::Duration;

use reqwest::{Method, Url};

use crate::bench::{BenchError, Load, Pace, Plan, Until};
use crate::cli::Global;
use crate::cli::api::Server;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::progress::{bar, counter};
use crate::cli::settings::{SANDBOX_API_KEY, SANDBOX_APP_SECRET, layers};
use crate::clock::{Random, SystemRandom};
use crate::config::Layers;

/// Examples and exit codes, for the end of the help.
pub(super) const MORE: &str = "\
Examples:
  leadloop serve --sandbox
      a server that sends nothing to Meta; the others run beside it
  leadloop bench webhooks --requests 1000 --leads-per-post 1000 --seed 1
      stores a million leads
  leadloop bench look-ups --leads 1000000 --seed 1
      looks some of them up
  leadloop bench webhooks --rate 5000 --duration 30s
      5,000 new leads a second, whether the server keeps up or not

Exit codes, beside those of `leadloop --help`:
   0  at least one request was answered 2xx; failures are counted in the result
   1  none was, or the server was not loaded because its events go to Meta";

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    load: Wanted,
}

#[derive(Debug, clap::Subcommand)]
enum Wanted {
    /// Deliveries of new leads, as Meta sends them
    ///
    /// Each is signed and tells of leads that nobody has told of; run it twice with one seed, and
    /// the second run tells of the same leads.
    Webhooks {
        /// Leads of one delivery, 1 to 1000
        #[arg(long, default_value_t = 1, value_name = "NUMBER")]
        leads_per_post: usize,
        /// Number of the first lead
        #[arg(long, default_value_t = 0, value_name = "NUMBER")]
        first: u64,
        /// Id of their Page
        #[arg(long, default_value_t = 1_000_000_001, value_name = "ID")]
        page_id: u64,
        /// Also load a server whose events go to Meta
        #[arg(long)]
        send_to_meta: bool,
        #[command(flatten)]
        run: Run,
    },
    /// Look-ups of single leads, chosen at random among those of an earlier run
    LookUps {
        #[command(flatten)]
        loaded: Loaded,
        #[command(flatten)]
        run: Run,
    },
    /// Lists of leads, page after page from the newest one on
    Listings {
        /// Leads of a page, 1 to 200
        #[arg(long, default_value_t = 50, value_name = "NUMBER")]
        limit: usize,
        /// Pages until a connection begins anew
        #[arg(long, default_value_t = 20, value_name = "NUMBER")]
        pages: u64,
        #[command(flatten)]
        run: Run,
    },
    /// Stages of the leads of an earlier run, reached now
    ///
    /// Each lead in a random order, then each again with another stage.
    StageUpdates {
        #[command(flatten)]
        loaded: Loaded,
        /// Updates of one request, 1 to 1000
        #[arg(long, default_value_t = 1, value_name = "NUMBER")]
        per_request: usize,
        /// Also load a server whose events go to Meta
        #[arg(long)]
        send_to_meta: bool,
        #[command(flatten)]
        run: Run,
    },
}

/// Which leads an earlier run has stored.
#[derive(Debug, clap::Args)]
struct Loaded {
    /// How many leads the run with this seed has stored
    #[arg(long, requires = "seed", value_name = "NUMBER")]
    leads: u64,
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    server: Server,
    /// How many connections are open
    #[arg(long, default_value_t = 64, value_name = "NUMBER")]
    connections: usize,
    /// Requests that become due a second, on average; without it, each connection sends when its
    /// last request is answered
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// For how long
    #[arg(
        long,
        default_value = "10s",
        value_parser = duration,
        conflicts_with = "requests",
        value_name = "TIME"
    )]
    duration: Duration,
    /// How many requests
    #[arg(long, value_name = "NUMBER")]
    requests: Option<u64>,
    /// For how long requests are sent before any counts; their leads are stored like others
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "TIME")]
    warm_up: Duration,
    /// What lead ids and chance follow from; another number each time by default, which is shown
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Reads a time such as `1m 30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: Result<jiff::SignedDuration, _> = text.parse();
    let duration = duration.map_err(|_| "expected a time such as 10s, 500ms or 2m".to_owned())?;
    duration.try_into().map_err(|_| "must not be negative".to_owned())
}

/// Runs it, and prints what came of it.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let mut layers = layers(global)?;
    layers.default_to("META_APP_SECRET", SANDBOX_APP_SECRET);
    layers.default_to("LEADLOOP_API_KEY", SANDBOX_API_KEY);
    let (run, load, makes_events) = args.load.read(&layers);
    let server = run.server.address();
    let wrong = |error| Failure::new(Exit::Failure, format!("--server {server}: {error}"));
    let plan = Plan {
        server: Url::parse(server).map_err(wrong)?,
        load,
        connections: run.connections,
        pace: run.rate.map_or(Pace::Closed, |per_s| Pace::Open { per_s }),
        until: run.requests.map_or(Until::Elapsed(run.duration), Until::Requests),
        warm_up: run.warm_up,
        // Short, since somebody may type it.
        seed: run.seed.unwrap_or_else(|| SystemRandom.next_u64() % 1_000_000_000),
    };
    if makes_events {
        refuse_meta(&run.server, setting(&layers, "LEADLOOP_API_KEY")).await?;
    }
    let shown = run.requests.map_or_else(|| counter("requests"), |all| bar(all, "requests"));
    let report = crate::bench::run(plan.clone(), |done| shown.set_position(done)).await;
    shown.finish_and_clear();
    let report = report?;
    print(&if run.json { result::json(&plan, &report) } else { result::text(&plan, &report) })?;
    if report.requests == 0 {
        return Err(Failure::new(Exit::Failure, "no request was answered 2xx"));
    }
    Ok(())
}

fn setting<'l>(layers: &'l Layers, name: &str) -> &'l str {
    // Several secrets are separated by commas; the first one is the newest.
    layers.get(name).and_then(|all| all.split(',').next()).unwrap_or_default().trim()
}

impl Wanted {
    /// The run, its load, and whether that makes events which must not go to Meta.
    fn read(self, layers: &Layers) -> (Run, Load, bool) {
        let api_key = || setting(layers, "LEADLOOP_API_KEY").into();
        match self {
            Self::Webhooks { leads_per_post, first, page_id, send_to_meta, run } => {
                let app_secret = setting(layers, "META_APP_SECRET").into();
                (run, Load::Webhooks { app_secret, page_id, leads_per_post, first }, !send_to_meta)
            }
            Self::LookUps { loaded, run } => {
                (run, Load::LookUps { api_key: api_key(), leads: loaded.leads }, false)
            }
            Self::Listings { limit, pages, run } => {
                (run, Load::Listings { api_key: api_key(), limit, pages }, false)
            }
            Self::StageUpdates { loaded, per_request, send_to_meta, run } => {
                let leads = loaded.leads;
                let load = Load::StageUpdates { api_key: api_key(), leads, per_request };
                (run, load, !send_to_meta)
            }
        }
    }
}

/// Fails unless the events of a server go to a stand-in for Meta.
async fn refuse_meta(server: &Server, key: &str) -> Result<(), Failure> {
    let asked = server.client_with(key)?.ask(Method::GET, "/v1/datasets", &[], None).await;
    let answer = asked.map_err(|failure| {
        let message = format!(
            "where the server sends its events is not known: {}; with --send-to-meta it is loaded \
             all the same",
            failure.message
        );
        Failure::new(failure.exit, message)
    })?;
    let datasets = answer["datasets"].as_array().map_or(&[][..], Vec::as_slice);
    if !datasets.is_empty() && datasets.iter().all(|dataset| dataset["stand_in"] == true) {
        return Ok(());
    }
    let message = "the events of this server go to Meta, and the leads would be made up: load one \
                   that was started with `leadloop serve --sandbox`, or say --send-to-meta";
    Err(Failure::new(Exit::Failure, message))
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let exit = match error {
            BenchError::Unreachable { .. } => Exit::Unavailable,
            BenchError::Plan(_) | BenchError::Machine(_) => Exit::Failure,
        };
        Self::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["10", "", "-1s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
