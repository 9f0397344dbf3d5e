//! A database that does not answer any more, and whose connections nobody ends: a primary behind a
//! broken network, or one that waits for a standby that is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};

use crate::limits::{DB_ANSWER_TIMEOUT, DB_CONNECT_TIMEOUT, DB_CONNECTIONS_MAX, DB_PROBE_TIMEOUT};
use crate::store::conformance::support::{NOBODY, at, dataset, ingest, lead};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::tests::cluster::TestDatabase;
use crate::store::{Intake, LeadOutcome, Purpose, Store, StoreError};

/// The name of a server's socket in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

/// The way to a database, which can swallow everything.
pub(super) struct Way {
    folder: TempDir,
    is_open: watch::Sender<bool>,
}

impl Way {
    /// Opens a way to the server whose socket is in a directory.
    fn open(server: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let (is_open, seen) = watch::channel(true);
        let server = server.join(SOCKET);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server.clone(), seen.clone()));
            }
        });
        Self { folder, is_open }
    }

    /// The way to a database, and its URL by this way.
    pub(super) fn to(database: &TestDatabase) -> (Self, SecretString) {
        let url = database.url().expose_secret().to_owned();
        let (user, rest) = url.split_once('@').unwrap();
        let (host, name) = rest.split_once('/').unwrap();
        let way = Self::open(Path::new(&host.replace("%2F", "/")));
        let host = way.folder.path().to_str().unwrap().replace('/', "%2F");
        (way, format!("{user}@{host}/{name}").into())
    }

    /// Swallows everything from now on, also what was sent before and is still under way.
    pub(super) fn swallow(&self) {
        self.is_open.send_replace(false);
    }

    /// Lets new connections through. Those that were swallowed stay silent.
    pub(super) fn let_through(&self) {
        self.is_open.send_replace(true);
    }
}

async fn forward(mut client: UnixStream, server: PathBuf, mut is_open: watch::Receiver<bool>) {
    let mut server = UnixStream::connect(server).await.unwrap();
    let swallowed = async { drop(is_open.wait_for(|is_open| !is_open).await) };
    tokio::select! {
        biased;
        () = swallowed => {}
        _ = copy_bidirectional(&mut client, &mut server) => return,
    }
    // Both ends stay open, and nothing comes through any more.
    std::future::pending::<()>().await;
}

fn intake(number: u64) -> Intake {
    Intake { leads: vec![lead(number)], quarantined: Vec::new() }
}

/// How long something took by a clock that goes on at once when nothing else happens.
async fn took<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began_at = Instant::now();
    let done = timeout(DB_ANSWER_TIMEOUT * 9, work).await.expect("it ends");
    (done, began_at.elapsed())
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_database_that_is_silent() {
    let database = TestDatabase::new().await;
    let (way, url) = Way::to(&database);
    let store = PostgresStore::open(&url, Purpose::Live, 1).await.unwrap();
    assert_eq!(ingest(&store, &[lead(1)]).await, [LeadOutcome::New]);
    let hold = store.next_batch(dataset(1), at(9), 10, &NOBODY).await.unwrap().hold.unwrap();
    way.swallow();
    tokio::time::pause();
    let longest = DB_ANSWER_TIMEOUT + DB_CONNECT_TIMEOUT * 2;
    let (ingested, waited) = took(store.ingest(intake(2), at(5))).await;
    assert!(matches!(ingested, Err(StoreError::Unavailable(_))) && waited < longest, "{waited:?}");
    let (read, waited) = took(store.find_lead(lead(1).reported.lead_id)).await;
    assert!(read.is_err() && waited < longest, "{waited:?}");
    assert!(!hold.is_valid(), "it was not renewed");
    let (ready, waited) = took(store.probe()).await;
    assert!(ready.is_err() && waited <= DB_PROBE_TIMEOUT, "{waited:?}");
    // Nor is there a connection that is not given up: all of them are silent by now.
    for _ in 0..DB_CONNECTIONS_MAX {
        assert!(took(store.stats()).await.0.is_err());
    }
    way.let_through();
    tokio::time::resume();
    let works_again = async {
        let mut looks = interval(Duration::from_millis(50));
        while store.ingest(intake(2), at(5)).await.is_err() {
            looks.tick().await;
        }
    };
    timeout(DB_ANSWER_TIMEOUT, works_again).await.expect("the writer goes on");
    assert_eq!(ingest(&store, &[lead(2)]).await, [LeadOutcome::Duplicate]);
    way.swallow();
    tokio::time::pause();
    let ((), waited) = took(store.close()).await;
    assert!(waited <= DB_CONNECT_TIMEOUT * 4, "{waited:?}");
    tokio::time::resume();
    drop(store);
    database.end().await;
}
