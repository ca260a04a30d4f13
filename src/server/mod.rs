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
//! | `exchange` | one request: own answers, and what is added to all |
//! | `activity` | what a connection is doing since when, and which deadline that means |
//! | `flood` | how many frames that carry nothing an HTTP/2 client may send |
//! | `peers` | connections by address |
//! | `io` | the byte stream under hyper, and what a connection counts against |
//! | `body` | a response body that knows when it ends |
//! | `descriptors` | the system's limit of open files |
//! | `redirect` | `redirect_to_https` |
//! | `tls` | certificates: `x509` reads what rustls does not tell, `certificates` reads changed files again |
//! | `live` | what of a listener may change while it is served |
//! | `proxy_protocol` | who connected to the balancer in front |
//! | `refused` | connections that are closed before a request, counted and said seldom |

mod activity;
mod balance;
mod body;
mod certificates;
mod connection;
mod descriptors;
mod exchange;
mod flood;
mod io;
mod listener;
mod live;
mod peers;
mod proxy_protocol;
mod redirect;
mod refused;
mod serve;
#[cfg(test)]
mod tests;
pub mod tls;
mod x509;

pub use balance::{Seat, seats};
pub use certificates::Certificates;
pub use descriptors::raise_open_files;
pub use listener::Listener;
pub use serve::{ConnectionLimit, Server};
pub use tls::{CLIENT_CERTIFICATE_NAMES, ClientCertificate};

use crate::headers::forwarded::{PeerHeaders, Trust};
use crate::session::Millis;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
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
    /// `tls.client_ca`: clients are asked for a certificate. Needs `tls`.
    pub client_auth: Option<ClientAuth>,
    /// `redirect_to_https`: answer every request with 308 to the same URL over https.
    pub redirect_to_https: bool,
    /// `proxy_protocol = true`: every connection begins with a PROXY protocol header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `hsts`: `Strict-Transport-Security` of every answer whose app says nothing else. Needs `tls`.
    pub hsts: Option<HeaderValue>,
    /// `mode` of a unix socket's file; 0660 by default.
    pub mode: u32,
}

impl ListenerOptions {
    /// A plain listener with nothing else set.
    pub const fn new(address: Address) -> Self {
        Self {
            address,
            tls: None,
            client_auth: None,
            redirect_to_https: false,
            proxy_protocol: None,
            hsts: None,
            mode: 0o660,
        }
    }
}

/// Who may speak the PROXY protocol.
#[derive(Debug, Clone)]
pub struct ProxyProtocol {
    /// `proxy_protocol_from`: other peers are closed at once; `None`: everybody may.
    pub from: Option<Trust>,
}

/// A listening address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

/// Which client certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// `tls.client_ca`: PEM, the certificates that sign those of clients.
    pub ca: PathBuf,
    /// `tls.client_auth = "require"`; otherwise a client may have none. One that does not verify ends the handshake.
    pub required: bool,
}

/// Where a listener's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsOptions {
    /// PEM files; several are chosen between by SNI, the first is the default.
    Files(Vec<CertificateFiles>),
    /// A certificate for `localhost` made at start, for development.
    SelfSigned,
}

/// One certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// `limits.connections_per_peer`; `None` is unlimited.
    pub max_connections_per_peer: Option<usize>,
    /// `limits.streams`: requests that one HTTP/2 connection may have open at once.
    pub max_streams: u32,
    /// `limits.control_frames`: HTTP/2 frames without a payload that one connection may send per second, beyond those for data.
    pub max_control_frames: u32,
    /// `limits.resets`: requests that one HTTP/2 connection may cut short per second.
    pub max_resets: u32,
}

/// The socket at the other end of a downstream connection; behind a balancer that speaks the PROXY protocol, of the balancer's client.
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
    /// The certificate that it showed and that was verified.
    pub certificate: Option<ClientCertificate>,
}

impl Peer {
    fn new(from: Option<SocketAddr>, local_port: u16, tls: bool) -> Self {
        // An IPv4 client of a socket that listens on [::] is an IPv4 client.
        let ip = from.map(|address| address.ip().to_canonical());
        let port = from.map_or(0, |address| address.port());
        Self {
            forwarded: PeerHeaders::new(ip, local_port, tls),
            ip,
            port,
            local_port,
            tls,
            certificate: None,
        }
    }
}

/// Wall clock, milliseconds since the epoch; once per request. A clock before 1970 reads 0.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
