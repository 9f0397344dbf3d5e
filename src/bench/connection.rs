//! One connection to the server, opened again when it breaks.
//!
//! What moves its bytes is polled by whoever waits for an answer, in the same task: handing over to
//! another one would cost as much as the request.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::bench::report::Failure;
use crate::bench::wait::Wait;
use crate::bench::worker::Exchange;
use crate::limits::{BENCH_ANSWER_BYTES_MAX, BENCH_ANSWER_TIMEOUT, SEND_CONNECT_TIMEOUT};

/// A connection, open or about to be opened again.
pub(super) struct Connection {
    address: SocketAddr,
    wait: Wait,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// What moves its bytes, until it has ended. It is let go of then: whoever waits for an answer
    /// that it will not bring learns of it by that.
    mover: Option<Mover>,
}

type Mover = Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>;

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// If nobody is there.
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let open = Open::new(address).await?;
        Ok(Self { address, wait: Wait::new()?, open: Some(open) })
    }

    /// The open connection, if need be a new one.
    async fn opened(&mut self) -> Result<&mut Open, Failure> {
        let open = match self.open.take() {
            Some(open) if open.mover.is_some() && !open.sender.is_closed() => open,
            _ => Open::new(self.address).await.map_err(|_| Failure::Connect)?,
        };
        Ok(self.open.insert(open))
    }
}

impl Exchange for Connection {
    async fn wait_until(&mut self, due: Instant) {
        let wait = self.wait.until(due);
        match &mut self.open {
            // So that it is seen if the server closes it meanwhile.
            Some(open) => Open::beside(&mut open.mover, wait).await,
            None => wait.await,
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        let open = self.opened().await?;
        let answer = timeout(BENCH_ANSWER_TIMEOUT, open.exchange(request)).await;
        let answer = answer.unwrap_or(Err(Failure::TimedOut));
        // An answer that is no success is an answer: the next request may use the connection.
        if matches!(answer, Err(Failure::Broken | Failure::TimedOut)) {
            self.open = None;
        }
        answer
    }
}

impl Open {
    async fn new(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(SEND_CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        let (sender, mover) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, mover: Some(Box::pin(mover)) })
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        let Self { sender, mover } = self;
        let exchange = async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BENCH_ANSWER_BYTES_MAX);
            let body = body.collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body))
        };
        match Self::beside(mover, exchange).await {
            Ok((status, body)) if status.is_success() => Ok(body),
            Ok((status, _)) => Err(Failure::Status(status.as_u16())),
            Err(_) => Err(Failure::Broken),
        }
    }

    /// Waits for something, and moves the connection's bytes meanwhile.
    async fn beside<T>(mover: &mut Option<Mover>, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            mover.take_if(|mover| mover.as_mut().poll(context).is_ready());
            future.as_mut().poll(context)
        })
        .await
    }
}
