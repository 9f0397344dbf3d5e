//! What a run came to, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{HumanCount, HumanFloatCount};
use serde_json::{Map, Value, json};

use crate::bench::{Pace, Plan, Report};

/// The quantiles of the latency that are shown.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// For people.
pub(super) fn text(plan: &Plan, report: &Report) -> String {
    let pace = match plan.pace {
        Pace::Closed => "closed loop".to_owned(),
        Pace::Open { per_s } => format!("open loop, {} due a second", HumanFloatCount(per_s)),
    };
    let connections = plan.connections;
    let plural = if connections == 1 { "" } else { "s" };
    let mut text = format!("{pace}, {connections} connection{plural}, seed {}\n\n", plan.seed);
    let mut row = |name: &str, what: String| {
        let _ = writeln!(text, "{name:<10}{what}");
    };
    let counted = |count: String, per_s: String| format!("{count:>12}{per_s:>14} a second");
    row("requests", counted(HumanCount(report.requests).to_string(), rate(report.per_s())));
    if report.leads != report.requests {
        row("leads", counted(HumanCount(report.leads).to_string(), rate(report.leads_per_s())));
    }
    row("failed", format!("{:>12}", HumanCount(report.failed()).to_string()));
    for (failure, times) in &report.failures {
        row("", format!("{:>12}  {failure}", HumanCount(*times).to_string()));
    }
    row("time", format!("{:>12}", shown(report.elapsed)));
    if report.requests > 0 {
        let quantiles = QUANTILES.map(|(name, at)| {
            format!("{name} {}", shown(Duration::from_nanos(report.latency.value_at_quantile(at))))
        });
        row("latency", format!("  {}", quantiles.join("   ")));
    }
    if let Some(offered) = report.offered {
        row(
            "due",
            format!(
                "{:>12}  sent {} late at most",
                HumanCount(offered.requests).to_string(),
                shown(offered.most_late)
            ),
        );
    }
    for sentence in remarks(report) {
        let _ = write!(text, "\n{sentence}\n");
    }
    text
}

/// What has to be known to read the figures.
fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(offered) = report.offered.filter(|offered| !offered.kept_up()) {
        remarks.push(format!(
            "The server, or this load generator, could not keep up: the last request was sent {} \
             after it was due.",
            shown(offered.last_late)
        ));
    }
    if report.starved > 0 {
        remarks.push(format!(
            "{} times a request was not made yet when it was to be sent: the server could have \
             done more.",
            report.starved
        ));
    }
    remarks
}

/// For programs.
pub(super) fn json(plan: &Plan, report: &Report) -> String {
    let failures =
        report.failures.iter().map(|(failure, times)| (failure.to_string(), json!(times)));
    let quantiles = QUANTILES.map(|(name, at)| (name.to_owned(), json!(report.quantile_us(at))));
    let mut result = json!({
        "seed": plan.seed,
        "connections": plan.connections,
        "requests": report.requests,
        "requests_per_s": report.per_s(),
        "leads": report.leads,
        "leads_per_s": report.leads_per_s(),
        "failed": report.failed(),
        "failures": failures.collect::<Map<String, Value>>(),
        "elapsed_s": report.elapsed.as_secs_f64(),
        "latency_us": quantiles.into_iter().collect::<Map<String, Value>>(),
        "first_lead": report.numbers.start,
        "next_lead": report.numbers.end,
        "starved": report.starved,
    });
    if let Some(offered) = report.offered {
        result["due"] = offered.requests.into();
        result["due_per_s"] = offered.per_s.into();
        result["last_late_s"] = offered.last_late.as_secs_f64().into();
        result["most_late_s"] = offered.most_late.as_secs_f64().into();
        result["kept_up"] = offered.kept_up().into();
    }
    format!("{result:#}\n")
}

fn rate(per_s: f64) -> String {
    if per_s >= 100.0 { HumanFloatCount(per_s.round()).to_string() } else { format!("{per_s:.1}") }
}

/// A time with three digits that count.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (number, unit) = if seconds >= 1.0 { (seconds, "s") } else { (seconds * 1e3, "ms") };
    let digits = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::{Failure, Load, Offered, Until};
    use hdrhistogram::Histogram;

    fn plan(pace: Pace) -> Plan {
        Plan {
            server: "http://here".parse().unwrap(),
            load: Load::Gets { path: "/".into() },
            connections: 2,
            pace,
            until: Until::Requests(1),
            warm_up: Duration::ZERO,
            seed: 7,
        }
    }

    /// A thousand latencies of 1 to 1,000 milliseconds, and some failures.
    fn report(offered: Option<Offered>) -> Report {
        let mut latency = Histogram::new(3).unwrap();
        (1..=1_000_u64).for_each(|ms| latency.record(ms * 1_000_000).unwrap());
        Report {
            requests: 1_000,
            leads: 2_000,
            failures: BTreeMap::from([(Failure::Status(503), 12), (Failure::Item(422), 1)]),
            elapsed: Duration::from_secs(8),
            latency,
            offered,
            numbers: 5..2_005,
            starved: 0,
        }
    }

    #[test]
    fn a_result_can_be_read_at_once() {
        let figures = "
requests         1,000           125 a second
leads            2,000           250 a second
failed              13
                    12  503
                     1  422 within a batch
time            8.00 s
latency     p50 500 ms   p90 900 ms   p99 990 ms   p99.9 999 ms   max 1.00 s
";
        let closed = text(&plan(Pace::Closed), &report(None));
        assert_eq!(closed, format!("closed loop, 2 connections, seed 7\n{figures}"));

        let late = Duration::from_millis(2_340);
        let offered = Offered { requests: 1_012, per_s: 125.5, last_late: late, most_late: late };
        let report = Report { starved: 3, ..report(Some(offered)) };
        let head = "open loop, 125.5 due a second, 2 connections, seed 7";
        let tail = "\
due              1,012  sent 2.34 s late at most

The server, or this load generator, could not keep up: the last request was sent 2.34 s after it was due.

3 times a request was not made yet when it was to be sent: the server could have done more.
";
        let open = text(&plan(Pace::Open { per_s: 125.5 }), &report);
        assert_eq!(open, format!("{head}\n{figures}{tail}"));
    }

    #[test]
    fn a_program_gets_every_figure_with_its_unit() {
        let late = Duration::from_millis(50);
        let offered = Offered { requests: 1_012, per_s: 125.5, last_late: late, most_late: late };
        let result = json(&plan(Pace::Open { per_s: 125.5 }), &report(Some(offered)));
        let mut result: Value = serde_json::from_str(&result).unwrap();
        let latency = result["latency_us"].take();
        assert!((500_000.0..501_000.0).contains(&latency["p50"].as_f64().unwrap()), "{latency}");
        assert!(latency["p99.9"].as_f64() < latency["max"].as_f64(), "{latency}");
        let expected = json!({
            "seed": 7, "connections": 2, "requests": 1_000, "requests_per_s": 125.0,
            "leads": 2_000, "leads_per_s": 250.0, "failed": 13,
            "failures": {"503": 12, "422 within a batch": 1}, "elapsed_s": 8.0,
            "latency_us": null, "first_lead": 5, "next_lead": 2_005, "starved": 0,
            "due": 1_012, "due_per_s": 125.5, "last_late_s": 0.05, "most_late_s": 0.05,
            "kept_up": true,
        });
        assert_eq!(result, expected);
    }
}
