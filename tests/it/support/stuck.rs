//! Clients that hold connections open in every way there is, and let nothing come of it.

use std::time::Duration;

use leadloop::meta::signature::SIGNATURE_HEADER;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::within_patience;

/// How many there are when nothing is in the way.
pub const STUCK: usize = 1_000;
/// Files that a test needs besides: two for each connection are counted apart.
const OTHER_FILES: usize = 200;
/// Answers that are asked for and not taken; together they are larger than any buffer.
const ANSWERS: usize = 100;

/// How many clients the limit on open files allows, if both ends are in this process.
pub fn stuck_clients() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let allowed = soft.map_or(STUCK, |soft: usize| soft.saturating_sub(OTHER_FILES) / 2);
    if allowed < STUCK {
        eprintln!("{allowed} stuck clients and not {STUCK}: raise `ulimit -n`");
    }
    allowed.min(STUCK)
}

/// Connections of which each sent what it will ever send.
pub struct Stuck(Vec<TcpStream>);

impl Stuck {
    /// Connects so many: silent, in the middle of a head, of a body, and taking no answer.
    pub async fn connect(address: &str, count: usize) -> Self {
        let digits = "0".repeat(64);
        let post = format!(
            "POST /webhooks/meta HTTP/1.1\r\nHost: x\r\n{SIGNATURE_HEADER}: sha256={digits}\r\n"
        );
        let kinds = [
            String::new(),
            format!("{post}X-Half: "),
            format!("{post}Content-Length: 1000000\r\n\r\n{}", "x".repeat(20_000)),
            "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(ANSWERS),
        ];
        let address = address.parse().unwrap();
        let mut streams = Vec::with_capacity(count);
        for sent in kinds.iter().cycle().take(count) {
            let socket = TcpSocket::new_v4().unwrap();
            // The kernel is not to take the answers for a client that does not.
            socket.set_recv_buffer_size(4_096).unwrap();
            let mut stream = within_patience(socket.connect(address)).await.unwrap();
            within_patience(stream.write_all(sent.as_bytes())).await.unwrap();
            streams.push(stream);
        }
        Self(streams)
    }

    /// How many the server has not let go of.
    pub fn held(&mut self) -> usize {
        // What is written to a closed connection is an error, at the second try at the latest.
        self.0.retain(|stream| match stream.try_write(b"x") {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        self.0.len()
    }

    /// Waits until the server has let go of all of them.
    pub async fn let_go(mut self) {
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        let letting_go = async {
            while self.held() > 0 {
                interval.tick().await;
            }
        };
        within_patience(letting_go).await;
    }
}
