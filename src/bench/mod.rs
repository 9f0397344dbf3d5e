//! A load generator: it puts load on a server from outside and measures the answers.
//!
//! Deliveries are signed, unique and made ahead, so that a run costs little while the clock runs:
//! it may have to share a machine with the server. In a closed loop each connection sends when its
//! answer has come. In an open loop requests become due by themselves, as those of Meta do, and a
//! latency counts from that moment: a server that stalls is charged for everybody who waited.
//!
//! It measures nothing inside the server, and does not ask whose server it is.

mod connection;
mod ids;
mod plan;
mod prepare;
mod reading;
mod report;
mod schedule;
mod supply;
mod wait;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{io, thread};

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::connection::Connection;
use self::prepare::Maker;
use self::reading::Reading;
use self::schedule::Schedule;
use self::supply::Supply;
use self::worker::{Watch, drive};
use crate::clock::SystemClock;
use crate::limits::BENCH_PROGRESS_EVERY;

pub use self::ids::LeadIds;
pub use self::plan::{BenchError, Load, Pace, Plan, Until};
pub use self::report::{Failure, Offered, Report};

/// Runs a plan, and tells how many requests are done while it does.
///
/// The load comes from one thread with a runtime of its own, and a second one that makes requests.
///
/// # Errors
/// If the plan makes no sense or nobody is there at the start. What fails later is counted.
pub async fn run(plan: Plan, progress: impl Fn(u64)) -> Result<Report, BenchError> {
    plan.check()?;
    let watch = Watch::default();
    let _stop = watch.stop.clone().drop_guard();
    let (sender, mut report) = oneshot::channel();
    let run = {
        let watch = watch.clone();
        // Nobody listens any more if the future was dropped.
        move || drop(sender.send(run_here(&plan, watch)))
    };
    thread::Builder::new().name("bench".to_owned()).spawn(run)?;
    let mut ticks = tokio::time::interval(BENCH_PROGRESS_EVERY);
    loop {
        tokio::select! {
            report = &mut report => {
                return report.map_err(|_| io::Error::other("its thread has died"))?;
            }
            _ = ticks.tick() => progress(watch.done.load(Ordering::Relaxed)),
        }
    }
}

/// Runs a plan on this thread.
fn run_here(plan: &Plan, watch: Watch) -> Result<Report, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let maker = Maker::new(&plan.server, &plan.load, plan.seed)?;
        let supply = Supply::start(maker, Arc::new(SystemClock), plan.requests_max()).await?;
        // Not before: a server closes connections on which nothing is asked.
        let connections = connect(plan).await?;
        let (pace, warm_up, until) = (plan.pace, plan.warm_up, plan.until);
        let schedule = Schedule::new(Instant::now(), pace, warm_up, until, plan.seed);
        let reading = Reading::of(&plan.load);
        let mut report = drive(connections, schedule, supply, &reading, watch).await;
        report.numbers = match plan.load {
            Load::Webhooks { first, .. } => first..first + report.numbers.end,
            _ => 0..0,
        };
        Ok(report)
    })
}

/// Opens the connections.
async fn connect(plan: &Plan) -> Result<Vec<Connection>, BenchError> {
    let unreachable = |source| {
        let address = plan.server.origin().ascii_serialization();
        BenchError::Unreachable { address, source }
    };
    let host = plan.server.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = plan.server.port_or_known_default().unwrap_or(80);
    let address = tokio::net::lookup_host((host, port)).await.map_err(unreachable)?.next();
    let nobody = || unreachable(io::ErrorKind::NotFound.into());
    let address = address.ok_or_else(nobody)?;
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        connections.push(Connection::open(address).await.map_err(unreachable)?);
    }
    Ok(connections)
}

#[cfg(test)]
mod tests;
