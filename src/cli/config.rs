//! `leadloop config`: check the settings, and show what they come to.

use std::fmt::Write as _;

use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::print;
use crate::cli::settings::layers;
use crate::config::layers::SETTINGS;
use crate::config::{Config, DEFAULT_FILE};
use crate::domain::customer::Country;

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
    let mut text = String::new();
    for setting in SETTINGS {
        let shown = match layers.get(setting.env) {
            None => "(not set)",
            Some(_) if setting.secret => "(set)",
            Some(value) => value,
        };
        let _ = writeln!(text, "{:<27} {shown}", setting.env);
    }
    for dataset in config.datasets.values() {
        let _ = writeln!(
            text,
            "dataset {}: {}, raw stage {}",
            dataset.id, dataset.crm_name, dataset.raw_stage
        );
    }
    for page in &layers.tables.pages {
        let _ = writeln!(text, "page {}: dataset {}", page.id, page.dataset);
    }
    for (name, source) in &config.sources {
        let tolerance_s = source.policy.clock_tolerance_s;
        let _ = writeln!(
            text,
            "source {name}: clock tolerance {tolerance_s} s, strict {}, time zone {}, country {}",
            source.policy.strict,
            source.time_zone.as_ref().and_then(|zone| zone.iana_name()).unwrap_or("(not set)"),
            source.default_country.map_or("(not set)", Country::code),
        );
    }
    for key in &config.api_keys {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        let _ = writeln!(text, "API key {}: {}", key.name, scopes.join(", "));
    }
    print(&text)
}
