//! `leadloop store copy`: everything goes to another store, from a file to a database or back.

use std::fmt::Write as _;

use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::cli::Global;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::progress::{bar, counter};
use crate::cli::settings::layers;
use crate::clock::{Random as _, SystemRandom};
use crate::config::{ConfigError, StoreAddress};
use crate::store::Purpose;
use crate::store::transfer::{CopyError, Inventory, Place, Stage, copy};

/// What is done with a store as a whole.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Copy everything to another store, and see that it is the same there
    ///
    /// Either store is the path of a file or a `postgres://` URL. One of them need not be named: it
    /// is `LEADLOOP_STORE` of the settings then. So a password need not stand on the command line,
    /// where everybody on the machine can see it; it may also be in `PGPASSWORD` or `~/.pgpass`.
    ///
    /// Stop all servers of both stores first. A file that a server has open is refused, and so is a
    /// database that an instance has worked on in the last minute. The source is only read.
    ///
    /// The target has to be empty: a file that is not there yet, or a database without a record;
    /// the schema is made if it is missing. Whether it holds live leads or those of a run with
    /// `--sandbox` goes along, and so do leads, events, queues, dead letters, attempts, links,
    /// customers, idempotency keys, erasures, quarantine, API keys and alarms, with their numbers.
    ///
    /// Everything is read first, then copied, and then read where it was written. What is printed,
    /// how many records there are of each kind and a digest of them, was found to be the same in
    /// both. If it is not, or the copying is interrupted, the target is not used: a file is not
    /// there then, and a server refuses the database. Run the same command again; a file is begun
    /// anew, and in a database `--force` goes on where it was.
    Copy(CopyArgs),
}

#[derive(Debug, clap::Args)]
#[group(id = "stores", required = true, multiple = true, args = ["from", "to"])]
struct CopyArgs {
    /// The store that is copied, if not `LEADLOOP_STORE` of the settings
    #[arg(long, value_name = "STORE")]
    from: Option<String>,
    /// The store that it is copied to, if not `LEADLOOP_STORE` of the settings
    #[arg(long, value_name = "STORE")]
    to: Option<String>,
    /// Go on in a database where a copy of the same store was begun and not finished; any other
    /// that is not empty is refused all the same
    #[arg(long)]
    force: bool,
}

/// Copies a store, and prints what it holds.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let Command::Copy(CopyArgs { from, to, force }) = args.command;
    let started = Instant::now();
    let from = address(global, "--from", from)?;
    let to = address(global, "--to", to)?;
    let mut shown = Shown { stage: Stage::Reading, bar: counter("records read") };
    let progress = &mut |stage, records| shown.advance(stage, records);
    let copied = copy(place(&from), place(&to), force, SystemRandom.next_u64(), progress).await;
    shown.bar.finish_and_clear();
    let inventory = copied.map_err(|error| failure(&from, &to, &error))?;
    let mut text =
        format!("from              {}\nto                {}\n", from.shown(), to.shown());
    describe(&inventory, &mut text);
    let _ = writeln!(text, "seconds           {:.1}", started.elapsed().as_secs_f64());
    print(&text)
}

/// A store that an option names, or the settings.
fn address(
    global: &Global,
    option: &'static str,
    named: Option<String>,
) -> Result<StoreAddress, Failure> {
    let Some(named) = named else { return Ok(StoreAddress::from_layers(&layers(global)?)?) };
    StoreAddress::parse(&named).map_err(|error| ConfigError::new(option, error.problem).into())
}

fn place(address: &StoreAddress) -> Place<'_> {
    match address {
        StoreAddress::File(path) => Place::File(path),
        StoreAddress::Database(url) => Place::Database(url),
    }
}

fn failure(from: &StoreAddress, to: &StoreAddress, error: &CopyError) -> Failure {
    let is_missing = matches!(from, StoreAddress::File(path) if !path.exists());
    match error {
        CopyError::Source(_) if is_missing => {
            Failure::new(Exit::NotFound, format!("{}: does not exist", from.shown()))
        }
        CopyError::Source(_) => Failure::new(Exit::Failure, format!("{}: {error}", from.shown())),
        CopyError::Target(_) | CopyError::Differs(_) => {
            Failure::new(Exit::Failure, format!("{}: {error}", to.shown()))
        }
    }
}

/// What a store holds, line by line.
fn describe(inventory: &Inventory, text: &mut String) {
    let purpose = match inventory.purpose {
        Purpose::Live => "live leads",
        Purpose::Sandbox => "a run with --sandbox",
    };
    let _ = writeln!(text, "of                {purpose}");
    for (kind, tally) in &inventory.tallies {
        let (name, digest) = (kind.name(), tally.digest());
        let _ = writeln!(text, "{name:<16}  {:>10}  {digest}", tally.records);
    }
}

/// How far the copying is.
struct Shown {
    stage: Stage,
    bar: ProgressBar,
}

impl Shown {
    fn advance(&mut self, stage: Stage, records: u64) {
        if stage != self.stage {
            self.bar.finish_and_clear();
            self.stage = stage;
            self.bar = match stage {
                Stage::Reading => counter("records read"),
                Stage::Copying(all) => bar(all, "records copied"),
                Stage::Checking(all) => bar(all, "records checked"),
            };
        }
        self.bar.inc(records);
    }
}
