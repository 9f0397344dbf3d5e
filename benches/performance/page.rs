//! The page that shows what was measured, and the file that keeps it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::machine::Stamp;
use crate::outcome::{Goal, Outcome, Table};
use crate::plot;
use crate::scenario::Scenario;

const BEGIN: &str = "<!-- measured: begin; what follows is written by the command -->";
const END: &str = "<!-- measured: end -->";

/// A scenario's last measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) stamp: Stamp,
    pub(crate) outcome: Outcome,
}

/// What was measured so far, also by earlier runs, beside the page that shows it.
#[derive(Debug)]
pub(crate) struct Page {
    path: PathBuf,
    measured: BTreeMap<Scenario, Measured>,
}

impl Page {
    /// The page in a file, with what earlier runs measured.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let mut page = Self { path, measured: BTreeMap::new() };
        if let Ok(kept) = std::fs::read_to_string(page.beside("results.json")) {
            page.measured = serde_json::from_str(&kept).context("results.json")?;
        }
        Ok(page)
    }

    /// Adds a measurement, and writes page, plots and results.
    pub(crate) fn add(&mut self, scenario: Scenario, measured: Measured) -> anyhow::Result<()> {
        self.measured.insert(scenario, measured);
        self.write()
    }

    /// Writes page, plots and results.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.beside(""))?;
        let mut kept = serde_json::to_string_pretty(&self.measured)?;
        kept.push('\n');
        std::fs::write(self.beside("results.json"), kept)?;
        for plot in self.measured.values().flat_map(|measured| &measured.outcome.plots) {
            plot::draw(plot, &self.beside(&format!("{}.svg", plot.name)))?;
        }
        let page = std::fs::read_to_string(&self.path).unwrap_or_default();
        let (before, after) = match (page.split_once(BEGIN), page.split_once(END)) {
            (Some((before, _)), Some((_, after))) => (before, after),
            _ => (page.as_str(), "\n"),
        };
        let page = format!("{before}{BEGIN}\n\n{}{END}{after}", self.text());
        Ok(std::fs::write(&self.path, page)?)
    }

    /// A file in the folder that has the page's name.
    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_extension("").join(name)
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "## The goals\n\n\
             | what | goal | median | least – most | met | by |\n\
             | --- | --- | --- | --- | --- | --- |\n",
        );
        for (scenario, measured) in &self.measured {
            for goal in &measured.outcome.goals {
                let link = format!("[{scenario}](#{})", anchor(scenario.title()));
                let _ = writeln!(text, "| {} | {link} |", goal_cells(goal));
            }
        }
        for (scenario, measured) in &self.measured {
            let folder = self.path.file_stem().map_or(Path::new(""), Path::new);
            let _ = write!(text, "\n## {}\n\n{}", scenario.title(), section(measured, folder));
        }
        text.push('\n');
        text
    }
}

fn goal_cells(goal: &Goal) -> String {
    let (least, most) = goal.samples.range();
    let met = if goal.is_met() { "yes" } else { "**no**" };
    let show = |figure| goal.unit.show(figure);
    format!(
        "{} | {} | {} | {} – {} | {met}",
        goal.what,
        goal.wanted(),
        show(goal.samples.median()),
        show(least),
        show(most)
    )
}

fn section(Measured { stamp, outcome }: &Measured, folder: &Path) -> String {
    let mut text = format!(
        "{}, {}, commit {}:\n\n    {}\n",
        stamp.date, stamp.machine, stamp.commit, stamp.command
    );
    for plot in &outcome.plots {
        let file = folder.join(format!("{}.svg", plot.name));
        let _ = write!(text, "\n![{}]({})\n", plot.title, file.display());
    }
    for table in &outcome.tables {
        let _ = write!(text, "\n{}", lines(table));
    }
    for note in &outcome.notes {
        let _ = write!(text, "\n{note}\n");
    }
    text
}

fn lines(table: &Table) -> String {
    let mut text = String::new();
    if !table.title.is_empty() {
        let _ = write!(text, "{}\n\n", table.title);
    }
    let rule = vec!["---".to_owned(); table.head.len()];
    for row in [&table.head, &rule].into_iter().chain(&table.rows) {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let heading = heading.to_lowercase().replace(' ', "-");
    heading.chars().filter(|char| char.is_alphanumeric() || *char == '-').collect()
}
