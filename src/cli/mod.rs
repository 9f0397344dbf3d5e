//! The command line: one file per command.
//!
//! What a command answers goes to stdout, to be piped; what it says about itself goes to stderr.
//! Commands about live data are clients of the server's API, since the store's file belongs to the
//! server. This is the only place that reads the environment.

mod api;
mod config;
mod datasets;
mod events;
pub mod exit;
mod leads;
mod openapi;
mod sandbox;
mod serve;
mod settings;
mod trigger;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::exit::{Exit, Failure};
use crate::telemetry::{LogFormat, init_logs};

/// Meta Lead Ads in, Conversions API events out.
///
/// leadloop takes leads from Meta's webhook, sends Meta the raw-lead event at once, takes stage
/// updates from a CRM, and delivers them to the Conversions API, in order and on record.
///
/// Settings come from the environment, from a file `.env`, or from `leadloop.toml`; the command
/// `config --default` prints every setting. Try `leadloop serve --sandbox` first: it needs none.
///
/// Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 69 server not reachable,
/// 70 defect, 78 wrong settings.
#[derive(Debug, Parser)]
#[command(name = "leadloop", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args, Debug)]
struct Global {
    /// File with settings; without it `leadloop.toml` is read if it is there
    #[arg(long, global = true, env = "LEADLOOP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: a level, or a filter such as `info,leadloop::delivery=debug`
    #[arg(
        long,
        global = true,
        env = "LEADLOOP_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log: String,
    /// How to write logs
    #[arg(long, global = true, env = "LEADLOOP_LOG_FORMAT", default_value = "human")]
    log_format: LogStyle,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogStyle {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Args),
    /// Run the stand-in for Meta on its own
    Sandbox(sandbox::Args),
    /// Send a signed sample webhook, as Meta would
    Trigger(trigger::Args),
    /// List leads, or show one with its timeline
    Leads(leads::Args),
    /// List events, show one with its attempts, or send a dead letter after all
    Events(events::Args),
    /// Show how the datasets are doing, and why one is paused
    Datasets(datasets::Args),
    /// Check the settings and show them, without secrets
    Config(config::Args),
    /// Print the OpenAPI document
    Openapi,
}

/// Runs the command; what went wrong is said on stderr.
pub fn run() -> Exit {
    let cli = Cli::parse();
    let format = match cli.global.log_format {
        LogStyle::Human => LogFormat::Human,
        LogStyle::Json => LogFormat::Json,
    };
    init_logs(format, &cli.global.log);
    match dispatch(&cli.global, cli.command) {
        Ok(()) => Exit::Success,
        Err(Failure { exit, message }) => {
            eprintln!("leadloop: {message}");
            exit
        }
    }
}

fn dispatch(global: &Global, command: Command) -> Result<(), Failure> {
    // Printing needs no runtime.
    match command {
        Command::Config(args) => return config::run(global, &args),
        Command::Openapi => return openapi::run(),
        _ => {}
    }
    // One core is left for the store's thread, which the runtime would otherwise compete with.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
    runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::run(global, args).await,
            Command::Sandbox(args) => sandbox::run(global, args).await,
            Command::Trigger(args) => trigger::run(global, args).await,
            Command::Leads(args) => leads::run(global, args).await,
            Command::Events(args) => events::run(global, args).await,
            Command::Datasets(args) => datasets::run(global, args).await,
            Command::Config(_) | Command::Openapi => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
