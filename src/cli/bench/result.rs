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
