//! Runs in simulated time, against a server that stalls.

use std::collections::VecDeque;

use super::*;
use crate::bench::prepare::Prepared;
use crate::bench::{Pace, Until};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 4;

/// A server that takes a millisecond for each request, and answers none from one moment to another.
#[derive(Clone)]
struct Stalling {
    from: Instant,
    to: Instant,
}

impl Exchange for Stalling {
    async fn wait_until(&mut self, due: Instant) {
        tokio::time::sleep_until(due).await;
    }

    async fn exchange(&mut self, _: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        let now = Instant::now();
        let taken = if (self.from..self.to).contains(&now) { self.to } else { now };
        tokio::time::sleep_until(taken + MILLISECOND).await;
        Ok(Bytes::new())
    }
}

/// Ten seconds, of which the server stalls for two.
async fn report(pace: Pace) -> Report {
    report_after(Duration::ZERO, pace).await
}

/// The same after a warm-up.
async fn report_after(warm_up: Duration, pace: Pace) -> Report {
    let start = Instant::now();
    let server = Stalling { from: start + 3 * SECOND, to: start + 5 * SECOND };
    let schedule = Schedule::new(start, pace, warm_up, Until::Elapsed(10 * SECOND), 7);
    let request = Prepared { request: Request::default(), leads: 1 };
    let supply = Supply::from_ready(VecDeque::from(vec![request; 50_000]));
    let servers = vec![server; CONNECTIONS];
    drive(servers, schedule, supply, &Reading::Status, Watch::default()).await
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_shows_a_stall_to_everybody_who_waited() {
    let report = report(Pace::Open { per_s: 100.0 }).await;
    assert!((900..1_100).contains(&report.requests), "{}", report.requests);
    assert_eq!(report.failed(), 0);
    // A fifth of them became due during the stall, and waited for one second on average.
    assert!(report.quantile_us(0.5) < 5e3, "{}", report.quantile_us(0.5));
    assert!((0.7e6..1.3e6).contains(&report.quantile_us(0.9)), "{}", report.quantile_us(0.9));
    assert!(report.quantile_us(0.99) > 1.7e6, "{}", report.quantile_us(0.99));
    let offered = report.offered.unwrap();
    assert_eq!(offered.requests, report.requests);
    assert!(offered.kept_up() && offered.most_late > SECOND, "{offered:?}");
}

/// The control: who sends nothing while nobody answers sees a few slow answers only.
#[tokio::test(start_paused = true)]
async fn a_closed_loop_hides_the_same_stall() {
    let report = report(Pace::Closed).await;
    assert!(report.requests > 20_000, "{}", report.requests);
    assert!(report.quantile_us(0.999) < 5e3, "{}", report.quantile_us(0.999));
    let slow = report.latency.count_between(1_000_000_000, u64::MAX);
    assert_eq!(slow, CONNECTIONS as u64);
    assert_eq!(report.offered, None);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_if_the_backlog_grows() {
    // Four connections can send 4,000 a second.
    let report = report(Pace::Open { per_s: 4_500.0 }).await;
    let offered = report.offered.unwrap();
    assert!(!offered.kept_up(), "{offered:?}");
    assert_eq!(report.requests + report.failed(), offered.requests);
    assert!(report.per_s() < 4_100.0, "{}", report.per_s());
}

#[tokio::test(start_paused = true)]
async fn a_warm_up_is_in_no_figure_but_the_number_of_leads() {
    let report = report_after(6 * SECOND, Pace::Open { per_s: 100.0 }).await;
    assert!((900..1_100).contains(&report.requests), "{}", report.requests);
    assert!(report.quantile_us(1.0) < 1e5, "the stall was before: {}", report.quantile_us(1.0));
    assert!(report.elapsed < 11 * SECOND, "{:?}", report.elapsed);
    assert!(report.numbers.end > report.leads + 500, "{:?}", report.numbers);
}
