//! `leadloop config`: check the settings, and show what they come to.

use std::fmt::Write as _;

use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::print;
use crate::cli::settings::layers;
use crate::config::layers::{SETTINGS, SourceTable};
use crate::config::{Config, DEFAULT_FILE, Dataset, Source};
use crate::domain::customer::Country;
use crate::domain::event::SourcePolicy;
use crate::domain::funnel::Funnel;
use crate::domain::matching::Ambiguity;
use crate::domain::stage::{SourceName, StageName};

/// Options of `config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a `leadloop.toml` with every setting, its default and what it means
    #[arg(long)]
    default: bool,
}

/// Prints the settings in force, secrets left out; fails if a server could not start with them.
pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    if args.default {
        return print(DEFAULT_FILE);
    }
    let layers = layers(global)?;
    let config = Config::from_layers(&layers)?;
    let (mut text, store) = (String::new(), config.store.shown());
    for setting in SETTINGS {
        let shown = match layers.get(setting.env) {
            None => "(not set)",
            Some(_) if setting.env == "LEADLOOP_STORE" => &store,
            Some(_) if setting.secret => "(set)",
            Some(value) => value,
        };
        let _ = writeln!(text, "{:<27} {shown}", setting.env);
    }
    for dataset in config.datasets.values() {
        let _ = writeln!(text, "{}", dataset_line(dataset));
    }
    for page in &layers.tables.pages {
        let _ = writeln!(text, "page {}: dataset {}", page.id, page.dataset);
    }
    for (name, source) in &config.sources {
        let _ = writeln!(text, "{}", source_line(name, source));
        if let Some(hook) = &source.hook {
            let is_it = |table: &&SourceTable| table.name == name.as_str();
            let table = layers.tables.sources.iter().find(is_it);
            let preset = table.and_then(|table| table.preset.as_deref()).unwrap_or("(none)");
            let kind = hook.auth.kind();
            let _ = writeln!(text, "  its webhooks: preset {preset}, shows who it is by {kind}");
        }
    }
    for key in &config.api_keys {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        let _ = writeln!(text, "API key {}: {}", key.name, scopes.join(", "));
    }
    print(&text)
}

fn dataset_line(dataset: &Dataset) -> String {
    let Dataset { id, crm_name, raw_stage, funnel, .. } = dataset;
    let mut line = format!("dataset {id}: {crm_name}, raw stage {raw_stage}");
    if let Some(Funnel { stages, fill_skipped }) = funnel {
        let stages: Vec<_> = stages.iter().map(StageName::as_str).collect();
        let _ = write!(line, ", funnel {}", stages.join(" > "));
        line.push_str(if *fill_skipped { ", skipped stages are filled in" } else { "" });
    }
    line
}

fn source_line(name: &SourceName, source: &Source) -> String {
    let SourcePolicy { clock_tolerance_s, strict, ambiguity, send_unmatched, dataset_id } =
        source.policy;
    let ambiguous = match ambiguity {
        Ambiguity::Newest => "newest",
        Ambiguity::Refuse => "refuse",
    };
    let mut line = format!(
        "source {name}: clock tolerance {clock_tolerance_s} s, strict {strict}, time zone {}, \
         country {}, ambiguous {ambiguous}, unmatched {}",
        source.time_zone.as_ref().and_then(|zone| zone.iana_name()).unwrap_or("(not set)"),
        source.default_country.map_or("(not set)", Country::code),
        if send_unmatched { "send" } else { "await" },
    );
    if let Some(dataset_id) = dataset_id {
        let _ = write!(line, ", dataset {dataset_id}");
    }
    line
}
