//! `leadloop compact`: unused space of a stopped server's store goes back to the disk.

use std::path::PathBuf;

use crate::cli::Global;
use crate::cli::backup::{about, store_path};
use crate::cli::exit::Failure;
use crate::cli::output::print;
use crate::store::redb::compact;

/// Options of `compact`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The store's file, if not `LEADLOOP_STORE` of the settings
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

/// Prints the length of the file before and after.
pub(super) fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let path = store_path(global, args.store, false)?;
    let compacted = compact(&path).map_err(|error| about(&path, &error))?;
    let (before, after) = (compacted.before, compacted.after);
    print(&format!("{}: {before} bytes before, {after} bytes after\n", path.display()))
}
