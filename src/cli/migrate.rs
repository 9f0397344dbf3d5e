//! `leadloop migrate`: the schema of a database, brought up to date.

use crate::cli::Global;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::settings::layers;
use crate::clock::{Random as _, SystemRandom};
use crate::config::StoreAddress;
use crate::store::postgres::PostgresStore;

/// Prints the version of the schema before and after.
pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let address = StoreAddress::from_layers(&layers(global)?)?;
    let shown = address.shown();
    let StoreAddress::Database(url) = address else {
        return Err(Failure::new(
            Exit::Config,
            format!("{shown}: is a file, which needs no migration; set LEADLOOP_STORE"),
        ));
    };
    let (before, after) = PostgresStore::migrate(&url, SystemRandom.next_u64())
        .await
        .map_err(|error| Failure::new(Exit::Failure, format!("{shown}: {error}")))?;
    let before = before.map_or_else(|| "none".to_owned(), |version| version.to_string());
    print(&format!("{shown}: schema {before} before, {after} now\n"))
}
