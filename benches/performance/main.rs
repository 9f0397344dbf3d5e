//! Measures the real program over loopback, beside its baselines, and writes `docs/performance.md`.
//!
//!     cargo bench --bench performance
//!
//! Only ratios within one run mean anything, so everything that is compared is measured in turns,
//! round by round, and a ratio is that of one round. Servers, stores and logs are in a folder of
//! their own on a real disk. No process outlives the run.

mod baseline;
mod candidate;
mod cluster;
mod disk;
mod machine;
mod options;
mod outcome;
mod page;
mod peers;
mod plot;
mod process;
mod rig;
mod samples;
mod scenario;
mod stores;
mod work;

use std::process::ExitCode;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use crate::machine::Stamp;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::page::{Measured, Page};
use crate::rig::Rig;

fn main() -> ExitCode {
    match run(Options::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("performance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    if let Some(baseline) = options.baseline {
        return baseline.run();
    }
    if options.render {
        return options.page().map_or(Ok(()), |page| Page::open(page)?.write());
    }
    // The generator has a thread of its own; the other core is the server's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // What is under way is dropped then, and with it every process.
        tokio::select! {
            ended = measure(&options) => ended,
            _ = terminate.recv() => bail!("terminated"),
            _ = interrupt.recv() => bail!("interrupted"),
        }
    })
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let rig = Rig::new(options.effort(), options.directory.clone()).await?;
    let mut page = options.page().map(Page::open).transpose()?;
    let mut failed = Vec::new();
    for scenario in options.scenarios() {
        rig.begin(&scenario.to_string());
        let mut outcome = match scenario.measure(&rig).await {
            Ok(outcome) => outcome,
            // What others measure is worth having all the same.
            Err(error) => {
                rig.say(&format!("  failed: {error:#}"));
                failed.push(scenario.to_string());
                continue;
            }
        };
        outcome.notes.extend(rig.reservation());
        tell(&rig, &outcome);
        if let Some(page) = &mut page {
            let stamp = Stamp::new(rig.disk.file_system(), options.command(scenario));
            page.add(scenario, Measured { stamp, outcome })?;
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("not measured: {}", failed.join(", ")) }
}

/// Shows what was measured where the command was started.
fn tell(rig: &Rig, outcome: &Outcome) {
    for goal in &outcome.goals {
        let met = if goal.is_met() { "met" } else { "NOT MET" };
        let figure = goal.unit.summary(&goal.samples);
        rig.say(&format!("  {}: {figure}, goal {}: {met}", goal.what, goal.wanted()));
    }
    for table in &outcome.tables {
        for row in [&table.head].into_iter().chain(&table.rows) {
            rig.say(&format!("    {}", row.join("  |  ")));
        }
    }
    for note in &outcome.notes {
        rig.say(&format!("  {note}"));
    }
}
