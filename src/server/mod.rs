//! Listeners, TLS, connections and their limits. Knows no session, no route, no upstream.
//!
//! Every worker thread (a `current_thread` runtime in a `LocalSet`) calls [`Server::serve`] with the same listeners: one
//! socket per address, its descriptor shared; a new connection goes to the worker with the fewest. A connection is a task; it sets no timer of its own,
//! one tick per worker closes those that are past a deadline (`activity`). Tests: beside the code, with real sockets.
//!
//! | file | what for |
//! |---|---|
//! | `listener` | binding, with errors that name the cure |
//! | `balance` | which worker serves a new connection |
//! | `serve` | one worker: accept loops, the tick, the stop |
//! | `connection` | one connection: TLS or plain, HTTP/1.1 or HTTP/2, hyper's settings |
//! | `activity` | what a connection is doing since when, and which deadline that means |
//! | `io` | the byte stream under hyper, and what a connection counts against |
//! | `body` | a response body that knows when it ends |
//! | `descriptors` | the system's limit of open files |
//! | `redirect` | `redirect_to_https` |
//! | `tls` | certificates |

mod activity;
mod balance;
mod body;
mod connection;
mod descriptors;
mod io;
mod listener;
mod redirect;
mod serve;
#[cfg(test)]
mod tests;
pub mod tls;

pub use balance::{Seat, seats};
pub use descriptors::raise_open_files;
pub use listener::Listener;
pub use serve::{ConnectionLimit, Server};

use crate::headers::forwarded::PeerHeaders;
use crate::session::Millis;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What answers requests; one per worker, so nothing of it need be Send.
pub trait Handler: 'static {
    /// The body of an answer. An error cuts the answer short: HTTP/1 without its last chunk, HTTP/2 with a reset.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin + 'static;

    /// Answers one request. Dropped when the client leaves; what must not be dropped belongs on a task of its own.
    ///
    /// An upgrade is `hyper::upgrade::on(request)` and a 101; the tunnel counts as a connection and holds up the stop until
    /// it is dropped.
    fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: Rc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;
}

/// One `[[listener]]`.
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// Where to listen.
    pub address: Address,
    /// `tls`; `None` is plain text.
    pub tls: Option<TlsOptions>,
    /// `redirect_to_https`: answer every request with 308 to the same URL over https.
    pub redirect_to_https: bool,
}

/// A listening address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

/// Where a listener's certificate comes from.
#[derive(Debug, Clone)]
pub enum TlsOptions {
    /// PEM files; several are chosen between by SNI, the first is the default.
    Files(Vec<CertificateFiles>),
    /// A certificate for `localhost` made at start, for development.
    SelfSigned,
}

/// One certificate chain and its key.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Limits and deadlines of connections.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// `timeouts.tls_handshake`
    pub tls_handshake: Duration,
    /// `timeouts.request_head`: a whole request head, from its first byte (or from accept) to its end.
    pub request_head: Duration,
    /// `timeouts.keep_alive`: an idle connection.
    pub keep_alive: Duration,
    /// `limits.request_head`, bytes.
    pub max_request_head: usize,
    /// `limits.header_count`
    pub max_headers: usize,
    /// `limits.connections`, all listeners and workers together.
    pub max_connections: usize,
}

/// The socket at the other end of a downstream connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; `None` for a unix socket.
    pub ip: Option<IpAddr>,
    /// Its port; 0 for a unix socket.
    pub port: u16,
    /// The port it connected to; 0 for a unix socket.
    pub local_port: u16,
    /// TLS ends here.
    pub tls: bool,
    /// The same as the header values that the app is told, rendered once.
    pub forwarded: PeerHeaders,
}

/// Wall clock, milliseconds since the epoch; once per request. A clock before 1970 reads 0.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
