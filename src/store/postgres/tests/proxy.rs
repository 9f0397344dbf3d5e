//! Something between a store and its database that cuts one connection at a chosen round trip.
//!
//! A request and its answer are one round trip. What a pool does between two uses is not counted:
//! it looks whether a connection is alive, and rolls back what was given up.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

/// The name of a server's socket in its directory.
const SOCKET: &str = ".s.PGSQL.5432";
/// A request that asks for nothing.
const PING: &[u8] = b"S\0\0\0\x04";
/// The round trips in which a connection is made and asked whether it is one to a primary.
const CONNECTING: usize = 3;
/// The type of the message with which a client takes its leave.
const TERMINATE: u8 = b'X';

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It ends before the server gets a request.
    Unsent,
    /// It ends when the server has done what was asked, and its answer is on the way.
    Unanswered,
    /// It stays, and nothing goes through it any more.
    Silent,
}

#[derive(Default)]
struct Plan {
    /// How many round trips go well before the cut.
    before: usize,
    cut: Option<Cut>,
    /// Whether the making of a connection counts, too.
    connecting: bool,
    /// Whether it was a commit that was cut.
    at_commit: bool,
}

impl Plan {
    /// Whether a connection is cut at this round trip, and how.
    fn next(&mut self, request: &[u8], is_connecting: bool) -> Option<Cut> {
        if !is_counted(request) || is_connecting && !self.connecting {
            return None;
        }
        if self.before > 0 {
            self.before -= 1;
            return None;
        }
        self.at_commit |= self.cut.is_some() && request.ends_with(b"COMMIT\0");
        self.cut.take()
    }
}

#[derive(Default)]
struct Shared {
    plan: Mutex<Plan>,
    /// Told when a connection falls silent.
    silent: Notify,
    /// Ends the connections that there are.
    hang_up: watch::Sender<()>,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap()
    }
}

/// The way through.
pub struct Proxy {
    folder: TempDir,
    database: String,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Stands before the database of a URL, whose server is reached by a socket.
    pub fn start(url: &SecretString) -> Self {
        let (_, rest) = url.expose_secret().split_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let server = Path::new(&server.replace("%2F", "/")).join(SOCKET);
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let shared = Arc::<Shared>::default();
        let proxy = Self { folder, database: database.to_owned(), shared: shared.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, shared) = (server.clone(), shared.clone());
                let mut end = shared.hang_up.subscribe();
                // Whichever side goes away, the other one is let go.
                tokio::spawn(async move {
                    tokio::select! {
                        _ = forward(client, &server, &shared) => {}
                        _ = end.changed() => {}
                    }
                });
            }
        });
        proxy
    }

    /// The URL of the same database by this way.
    pub fn url(&self) -> SecretString {
        let socket = self.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{}?sslmode=disable", self.database).into()
    }

    /// Ends all connections, so that the same calls make the same round trips.
    pub fn hang_up(&self) {
        self.shared.hang_up.send_replace(());
    }

    /// Cuts one connection after so many round trips, of which those that make a connection may be
    /// some.
    pub fn cut_after(&self, before: usize, cut: Cut, connecting: bool) {
        *self.shared.plan() = Plan { before, cut: Some(cut), connecting, at_commit: false };
    }

    /// Cuts no more. If a cut was made: whether it was at a commit.
    pub fn let_through(&self) -> Option<bool> {
        let Plan { cut, at_commit, .. } = std::mem::take(&mut *self.shared.plan());
        cut.is_none().then_some(at_commit)
    }

    /// Returns when a connection falls silent.
    pub async fn fell_silent(&self) {
        self.shared.silent.notified().await;
    }
}

/// Forwards round trips until one is cut.
async fn forward(
    mut client: UnixStream,
    server: &Path,
    shared: &Shared,
) -> Result<(), std::io::Error> {
    let mut server = UnixStream::connect(server).await?;
    let mut request = read_start(&mut client).await?;
    for round_trips in 0.. {
        let cut = shared.plan().next(&request, round_trips < CONNECTING);
        match cut {
            Some(Cut::Unsent) => return Ok(()),
            Some(Cut::Silent) => {
                shared.silent.notify_one();
                while client.read_u8().await.is_ok() {}
                return Ok(());
            }
            Some(Cut::Unanswered) | None => {}
        }
        server.write_all(&request).await?;
        // The server is ready for the next one.
        let answer = read_until(&mut server, b"Z").await?;
        if cut.is_some() {
            return Ok(());
        }
        client.write_all(&answer).await?;
        // A query, the end of a series of messages, or of the connection.
        request = read_until(&mut client, &[b'Q', b'S', TERMINATE]).await?;
    }
    Ok(())
}

fn is_counted(request: &[u8]) -> bool {
    request != PING && request[0] != TERMINATE && !request.ends_with(b"ROLLBACK\0")
}

/// Reads the first message, which has no type.
async fn read_start(client: &mut UnixStream) -> Result<Vec<u8>, std::io::Error> {
    let length = client.read_u32().await?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(length as usize, 0);
    client.read_exact(&mut message[4..]).await?;
    Ok(message)
}

/// Reads messages up to one of some types.
async fn read_until(from: &mut UnixStream, types: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut messages = Vec::new();
    loop {
        let (kind, length) = (from.read_u8().await?, from.read_u32().await?);
        messages.push(kind);
        messages.extend(length.to_be_bytes());
        let start = messages.len();
        messages.resize(start + length as usize - 4, 0);
        from.read_exact(&mut messages[start..]).await?;
        if types.contains(&kind) {
            return Ok(messages);
        }
    }
}
