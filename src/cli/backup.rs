//! `leadloop backup`: a copy of everything, seen to be good, and the way back.
//!
//! A running server is asked for the copy, since its file can't be copied under its hands; the file
//! of a stopped one is read directly. Either way what is kept under the name that was asked for
//! has been opened and read from the first record to the last.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use reqwest::{Method, Response};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use crate::cli::Global;
use crate::cli::api::{Server, problem};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{counted, print};
use crate::cli::progress::{bytes, spinner};
use crate::cli::settings::layers;
use crate::clock::{Clock, SystemClock};
use crate::config::StoreAddress;
use crate::domain::time::Timestamp;
use crate::http::backup::DIGEST_HEADER;
use crate::http::time::rfc3339;
use crate::limits::{BACKUP_TIMEOUT, COPY_CHUNK_BYTES, COPY_RESERVE_BYTES, REQUEST_TIMEOUT};
use crate::store::StoreError;
use crate::store::redb::{
    Contents, Copied, Purpose, check_room, copy_file, fresh_file, prove_file, publish, restore,
};

/// Options of `backup`.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = false, args = ["output", "verify", "restore"])]
pub(super) struct Args {
    /// Make a backup: copy the store of the running server to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Check a backup: read all of it, and say what it holds
    #[arg(long, value_name = "FILE")]
    verify: Option<PathBuf>,
    /// Check a backup, and make it the store of a stopped server
    #[arg(long, value_name = "FILE")]
    restore: Option<PathBuf>,
    /// The store's file. With `--output`, copy this one, of a stopped server; with `--restore`, put
    /// the backup here and not at `LEADLOOP_STORE` of the settings
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    store: Option<PathBuf>,
    /// Replace a store that is there; it is kept under a name with the time
    #[arg(long, requires = "restore", conflicts_with_all = ["output", "verify"])]
    force: bool,
    /// Restore a backup of `serve --sandbox`
    #[arg(long, requires = "restore", conflicts_with_all = ["output", "verify"])]
    sandbox: bool,
    #[command(flatten)]
    server: Server,
}

/// Makes, checks or restores a backup, and prints what it holds.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let started = Instant::now();
    let now = SystemClock.now();
    let mut text = if let Some(output) = &args.output {
        describe(output, &make(global, &args, output, now).await?)?
    } else if let Some(backup) = &args.verify {
        describe(backup, &prove(backup, now)?)?
    } else {
        let backup = args.restore.as_deref().unwrap_or(Path::new(""));
        put_back(global, &args, backup, now)?
    };
    if args.restore.is_none() {
        let _ = writeln!(text, "seconds      {:.1}", started.elapsed().as_secs_f64());
    }
    print(&text)
}

/// The store of the settings, or the one that the command names.
pub(super) fn store_path(
    global: &Global,
    named: Option<PathBuf>,
    sandbox: bool,
) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named);
    }
    let mut layers = layers(global)?;
    if sandbox {
        layers.default_to("LEADLOOP_STORE", "leadloop-sandbox.redb");
    }
    Ok(StoreAddress::from_layers(&layers)?.file()?)
}

/// What is wrong with a file.
pub(super) fn about(path: &Path, error: &StoreError) -> Failure {
    if path.exists() {
        return Failure::new(Exit::Failure, format!("{}: {error}", path.display()));
    }
    Failure::new(Exit::NotFound, format!("{}: does not exist", path.display()))
}

fn prove(path: &Path, now: Timestamp) -> Result<Contents, Failure> {
    let waiting = spinner("checking every record");
    let contents = prove_file(path, now).map_err(|error| about(path, &error));
    waiting.finish_and_clear();
    contents
}

// ---- Making one -------------------------------------------------------------------------------

/// Makes a backup under another name, and gives it its own once it has been proven.
async fn make(
    global: &Global,
    args: &Args,
    output: &Path,
    now: Timestamp,
) -> Result<Contents, Failure> {
    if output.exists() {
        let message = format!("{}: exists already; choose another name", output.display());
        return Err(Failure::new(Exit::Failure, message));
    }
    let unfinished = output.with_added_extension("new");
    let at_output =
        |error: io::Error| Failure::new(Exit::Failure, format!("{}: {error}", output.display()));
    let mut file = fresh_file(&unfinished).map_err(at_output)?;
    let _kept_from_other_runs = file.try_clone().map_err(at_output)?;
    let copied = match &args.store {
        Some(store) => copy_stopped(store, file, now),
        None => fetch(global, &args.server, &mut file).await,
    };
    let kept = copied.and_then(|()| prove(&unfinished, now)).and_then(|contents| {
        publish(&unfinished, output).map_err(at_output)?;
        Ok(contents)
    });
    if kept.is_err() {
        // Half a backup would be taken for one some day.
        let _ = std::fs::remove_file(&unfinished);
    }
    kept
}

fn copy_stopped(store: &Path, file: File, now: Timestamp) -> Result<(), Failure> {
    let waiting = spinner("copying the store");
    let copied = copy_file(store, file, now).map_err(|error| about(store, &error));
    waiting.finish_and_clear();
    match copied? {
        Copied::Done => Ok(()),
        Copied::NoRoom => Err(no_room()),
    }
}

fn no_room() -> Failure {
    let reserve = COPY_RESERVE_BYTES / (1024 * 1024);
    let message = format!("too little room: a backup leaves {reserve} MiB free on its disk");
    Failure::new(Exit::Failure, message)
}

/// Takes the copy from the server, and sees that it is what was sent.
async fn fetch(global: &Global, server: &Server, file: &mut File) -> Result<(), Failure> {
    let waiting = spinner("the server makes the copy");
    let request = server.client(global)?.request(Method::POST, "/v1/backup");
    // It is made before the answer begins, and then it is sent.
    let response = request.timeout(2 * BACKUP_TIMEOUT).send().await?;
    waiting.finish_and_clear();
    let status = response.status();
    if !status.is_success() {
        return Err(problem(status, &response.json().await?));
    }
    let digest = response.headers().get(DIGEST_HEADER).map(|digest| digest.as_bytes().to_owned());
    let received = receive(response, file).await?;
    if digest.as_deref() != Some(hex::encode(received).as_bytes()) {
        let message = "what arrived is not what the server sent: its digest is another";
        return Err(Failure::new(Exit::Failure, message));
    }
    Ok(file.sync_all()?)
}

async fn receive(mut response: Response, file: &mut File) -> Result<[u8; 32], Failure> {
    let progress = bytes(response.content_length().unwrap_or(0));
    let mut digest = Sha256::new();
    let silent = |_| Failure::new(Exit::Unavailable, "the server does not send any more");
    while let Some(chunk) = timeout(REQUEST_TIMEOUT, response.chunk()).await.map_err(silent)?? {
        check_room(file).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => no_room(),
            _ => error.into(),
        })?;
        file.write_all(&chunk)?;
        digest.update(&chunk);
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    Ok(digest.finalize().into())
}

// ---- Putting one back -------------------------------------------------------------------------

fn put_back(
    global: &Global,
    args: &Args,
    backup: &Path,
    now: Timestamp,
) -> Result<String, Failure> {
    let store = store_path(global, args.store.clone(), args.sandbox)?;
    if !backup.exists() {
        let message = format!("{}: does not exist", backup.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    let purpose = if args.sandbox { Purpose::Sandbox } else { Purpose::Live };
    let restored = restore(backup, &store, purpose, args.force, now).map_err(|error| {
        let message = format!("{} to {}: {error}", backup.display(), store.display());
        Failure::new(Exit::Failure, message)
    })?;
    let mut text = describe(backup, &restored.contents)?;
    let _ = writeln!(text, "in place     {}", store.display());
    if let Some(kept) = restored.kept {
        let _ = writeln!(text, "kept         {}", kept.display());
    }
    text.push_str(&consequences(&restored.contents, now));
    Ok(text)
}

/// What a server that starts with a backup will do, and what it can't know.
fn consequences(contents: &Contents, now: Timestamp) -> String {
    let of = contents.backed_up_at.or(contents.newest_at);
    let age = of.map_or_else(|| "an unknown time".to_owned(), |of| age(now.millis_since(of)));
    let queued = counted(contents.queued, "event is", "events are");
    let too_old = counted(
        contents.too_old,
        "of them is too old to be sent and will be a dead letter",
        "of them are too old to be sent and will be dead letters",
    );
    format!(
        "
This is how things were {age} ago. What the server must be told again, and what it will do:

- Leads that came since are not in it, and Meta does not send them again. With a Page's token the
  server reads them from Meta when it starts.
- Leads that were erased since are in it again: erase them again.
- Stage updates that were reported since are not in it: let the CRM report them again.
- {queued} queued in it. {too_old}; the others
  are sent when the server starts, also those that were delivered since, with the same event ids.
"
    )
}

fn age(ms: i64) -> String {
    let minutes = ms / 60_000;
    match (minutes / 1_440, minutes / 60, minutes) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, _) => format!("{hours} h"),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

// ---- Telling ----------------------------------------------------------------------------------

/// What a backup is and holds, line by line.
fn describe(path: &Path, contents: &Contents) -> io::Result<String> {
    let (length, sha256) = measure(path)?;
    let time = |at: Option<Timestamp>| at.map_or_else(|| "unknown".to_owned(), rfc3339);
    let Contents { leads, events, queued, awaiting, dead, quarantined, .. } = contents;
    let purpose = match contents.purpose {
        Purpose::Live => "live leads",
        Purpose::Sandbox => "a run with --sandbox",
    };
    Ok(format!(
        "file         {}
bytes        {length}
sha256       {sha256}
of           {purpose}
made         {}
newest       {}
leads        {leads}
events       {events}
queued       {queued}
awaiting     {awaiting}
dead         {dead}
quarantined  {quarantined}
",
        path.display(),
        time(contents.backed_up_at),
        time(contents.newest_at),
    ))
}

fn measure(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut digest, mut bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut chunk = vec![0; COPY_CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((bytes, hex::encode(digest.finalize()))),
            length => {
                digest.update(&chunk[..length]);
                bytes += length as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_two_largest_units_at_most() {
        let minutes = |minutes: i64| age(minutes * 60_000);
        assert_eq!(minutes(59), "59 min");
        assert_eq!(minutes(60), "1 h");
        assert_eq!(minutes(1_439), "23 h");
        assert_eq!(minutes(3 * 1_440 + 61), "3 d 1 h");
    }
}
