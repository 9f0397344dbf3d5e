//! The command line: one file per command.
//!
//! What a command answers goes to stdout, to be piped; what it says about itself goes to stderr.
//! Commands about live data are clients of the server's API, since the store's file belongs to the
//! server. This is the only place that reads the environment.

mod alarms;
mod api;
mod backfill;
mod backup;
mod bench;
mod compact;
mod config;
mod datasets;
mod doctor;
mod event_filter;
mod events;
pub mod exit;
mod export;
mod import;
mod leads;
mod mapping;
mod migrate;
mod openapi;
mod output;
mod part_file;
mod progress;
mod retry;
mod sandbox;
mod serve;
mod settings;
mod store;
mod store_copy;
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
/// Settings come from the environment, from a file `.env`, or from `leadloop.toml`, in this order;
/// `leadloop config --default` prints all of them. Try `leadloop serve --sandbox` first: it needs
/// none.
#[derive(Debug, Parser)]
#[command(
    name = "leadloop",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_long_help = EXIT_CODES
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  success
   1  failure
   2  wrong usage
   3  what was asked for does not exist
  69  the server cannot be reached
  70  a defect of the program; starting it again repairs the store
  78  a setting is missing or wrong";

/// Options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// File with settings; without it `leadloop.toml` is read if it is there
    #[arg(
        long,
        global = true,
        env = "LEADLOOP_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    /// What to log: a level, or a filter such as `info,leadloop::delivery=debug`
    #[arg(
        long,
        global = true,
        env = "LEADLOOP_LOG",
        hide_env_values = true,
        default_value = "info",
        value_name = "FILTER",
        value_parser = log_filter
    )]
    log: String,
    /// How to write logs, which go to stderr
    #[arg(
        long,
        global = true,
        env = "LEADLOOP_LOG_FORMAT",
        hide_env_values = true,
        default_value = "human",
        value_name = "STYLE"
    )]
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
    ///
    /// It takes leads at `/webhooks/meta` and stage updates at `/v1/stage-updates`, keeps them in
    /// its store, and delivers them to Meta. SIGINT and SIGTERM stop it: what is under way is
    /// finished first, and what is queued goes out after the next start.
    ///
    /// It needs `META_APP_SECRET`, `META_VERIFY_TOKEN`, `META_DATASET_ID` and `META_ACCESS_TOKEN`.
    /// Without a configured API key it makes one at the first start and prints it, this once.
    Serve(serve::Args),
    /// Run the stand-in for Meta on its own
    ///
    /// It takes events as the Conversions API would, with the same checks and error codes, and
    /// shows on a page what it took. It has the dataset and the token of the settings, so a server
    /// with the same settings and `META_GRAPH_URL` set to its address can use it. It keeps
    /// everything in memory.
    Sandbox(sandbox::Args),
    /// Send a signed sample webhook, as Meta would
    ///
    /// It is signed with `META_APP_SECRET`, or with the secret of `serve --sandbox` if that is not
    /// set. The ids of the leads are printed, one a line, once the webhook has answered 200.
    Trigger(trigger::Args),
    /// List leads, or show one with its timeline
    ///
    /// The answer of the server is printed as JSON. The API key is taken from `LEADLOOP_API_KEY` of
    /// the settings; an argument could be seen by everybody on the machine.
    Leads(leads::Args),
    /// List events, show one with its attempts, send dead letters after all, or export
    ///
    /// The answer of the server is printed as JSON. The API key is taken from `LEADLOOP_API_KEY` of
    /// the settings; an argument could be seen by everybody on the machine.
    Events(Box<events::Args>),
    /// Report the stages of a file, a line for each, as CSV or as lines of JSON
    ///
    /// A CSV file needs a first line with the names of its columns. These are understood:
    /// `lead_id`, `crm_id`, `stage`, `event_time`, `source`, `idempotency_key`, `value`,
    /// `currency`, and Meta's customer parameters, such as `em` or `email`, `ph` or `phone`, `fn`,
    /// `ln`, `ct`, `zp`, `country`, `external_id`. With `--column` a column of another name is
    /// taken; all others are not read. A line of JSON is the body of a stage update.
    ///
    /// Each row needs a lead, a stage and an `event_time`: without a time it would be dated now.
    /// Ids are texts. A spreadsheet that showed one as 1.23457E+15 has lost its digits, and the row
    /// is refused; the `l:` before the ids in Meta's own CSV is taken away.
    ///
    /// Without `--send` nothing is changed: the server is asked what it would do with each row, and
    /// that is summed up. With `--send` the rows are reported in order, up to 1,000 at a time. A
    /// report that is there already is `known`, so a run that was interrupted is simply started
    /// again. While the server is busy or gone for a moment it is asked again, for five minutes.
    ///
    /// The API key is taken from `LEADLOOP_API_KEY` of the settings; it needs the scope `write`.
    #[command(after_long_help = import::EXIT_CODES)]
    Import(import::Args),
    /// Show how the datasets are doing, and why one is paused
    ///
    /// For each dataset: whether it works, waits after a failure that will pass, or is paused until
    /// somebody mends something, and then what. The answer of the server is printed as JSON. The
    /// API key is taken from `LEADLOOP_API_KEY` of the settings.
    Datasets(datasets::Args),
    /// Show the alarms that wait for their receiver, or send it a test message
    ///
    /// The answer of the server is printed as JSON. The API key is taken from `LEADLOOP_API_KEY` of
    /// the settings. `leadloop alarms test` needs no server: it sends one signed message of the
    /// type `test` to `LEADLOOP_ALARM_URL`, and fails if that does not answer 2xx.
    Alarms(alarms::Args),
    /// Look for leads that the webhook lost, and take them in
    ///
    /// The server reads the leads of all forms from Meta, with `META_PAGE_ACCESS_TOKEN` of its
    /// settings; leads that are known stay as they are. It goes on if this command is stopped, and
    /// where it was if the server is. The server does the same by itself every hour, or as often
    /// as `LEADLOOP_BACKFILL_EVERY_S` says. The API key of `LEADLOOP_API_KEY` of the settings has
    /// to be one for `admin`.
    #[command(after_long_help = backfill::EXIT_CODES)]
    Backfill(backfill::Args),
    /// Make a backup while the server runs, check one, or put one back
    ///
    /// A backup is a copy of the whole store at one moment, with everything that was answered
    /// before. It is kept once every page and record of it has been read. The running server is
    /// asked for it, with the API key of `LEADLOOP_API_KEY` of the settings, which has to be one
    /// for `admin`; with `--store` the file of a stopped server is copied instead.
    ///
    /// What came after a backup is not in it, and events that were delivered after it are queued in
    /// it still: a server that starts with it sends these again, with the same event ids.
    #[command(override_usage = "leadloop backup --output <FILE> [--server <URL> | --store <FILE>]
       leadloop backup --verify <FILE>
       leadloop backup --restore <FILE> [--store <FILE>] [--force] [--sandbox]")]
    Backup(backup::Args),
    /// Give unused space of a stopped server's store back to the disk
    ///
    /// A server uses the space of what was removed again by itself. This makes the file shorter,
    /// and nothing else; stop the server first.
    Compact(compact::Args),
    /// Bring the schema of the PostgreSQL database in `LEADLOOP_STORE` up to date
    ///
    /// A server does so at its start; this is for whoever wants it done before, with another user
    /// or at another time. Any number may run at once: one migrates, the others wait. A schema that
    /// is newer than this program is left alone, and the exit code is 1.
    Migrate,
    /// Copy everything to another store, such as from a file to a database
    Store(store_copy::Args),
    /// Put load on a server, and measure how it answers
    ///
    /// Deliveries, look-ups, listings or stage updates are sent over a number of connections, for a
    /// time or up to a number. Without `--rate` each connection sends when its last request is
    /// answered: that shows how much the server can do. With `--rate` requests become due by
    /// themselves, at random moments, as those of many Pages do: that shows how long each has to
    /// wait, counted from the moment it was due, even if no connection was free then.
    ///
    /// The leads are made up, each with an id of its own that follows from `--seed` and its number,
    /// counted from zero: what one run has stored, another one with the same seed looks up.
    ///
    /// A server whose events go to Meta is not loaded with webhooks or stage updates unless
    /// `--send-to-meta` says so: it would report leads that nobody left.
    ///
    /// Deliveries are signed with `META_APP_SECRET`, requests of the API carry `LEADLOOP_API_KEY`
    /// of the settings; without them those of `serve --sandbox` are used.
    #[command(after_long_help = bench::MORE)]
    Bench(bench::Args),
    /// Check settings, server, store, clock and tokens, and say what to do
    ///
    /// Each line begins with `ok`, `unknown` or `PROBLEM`; below a problem stands what to do. Meta
    /// is asked whether each dataset is there and the token holds it; nothing is sent or changed.
    /// The exit code is 1 if there is a problem.
    Doctor(doctor::Args),
    /// Check the settings and show them, without secrets
    ///
    /// It fails, and names the setting, if a server could not start with them.
    Config(config::Args),
    /// Show how the webhooks of a CRM are understood
    ///
    /// A source with a `preset` or a `mapping` in the settings may send its own webhooks to
    /// `/v1/hooks/<source>`. `test` and `show` try and show such a mapping, and need no server;
    /// `unmapped` and `replay` are about what a server got and could not map.
    Mapping(mapping::Args),
    /// Print the OpenAPI document
    Openapi,
}

/// A filter that can't be read would silently log something else.
fn log_filter(text: &str) -> Result<String, String> {
    let filter = tracing_subscriber::EnvFilter::try_new(text);
    filter.map(|_| text.to_owned()).map_err(|error| error.to_string())
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
    // What only prints, or works on a file, needs no runtime.
    let command = match command {
        Command::Config(args) => return config::run(global, &args),
        Command::Openapi => return openapi::run(),
        Command::Compact(args) => return compact::run(global, args),
        command => command,
    };
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
            Command::Events(args) => events::run(global, *args).await,
            Command::Import(args) => import::run(global, args).await,
            Command::Datasets(args) => datasets::run(global, args).await,
            Command::Alarms(args) => alarms::run(global, args).await,
            Command::Backfill(args) => backfill::run(global, args).await,
            Command::Backup(args) => backup::run(global, args).await,
            Command::Migrate => migrate::run(global).await,
            Command::Store(args) => store_copy::run(global, args).await,
            Command::Bench(args) => bench::run(global, args).await,
            Command::Doctor(args) => doctor::run(global, args).await,
            Command::Mapping(args) => mapping::run(global, args).await,
            Command::Config(_) | Command::Openapi | Command::Compact(_) => Ok(()),
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
