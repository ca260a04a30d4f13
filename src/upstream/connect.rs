//! Opening a connection to an endpoint: TCP or unix socket, TLS or none, HTTP/1.1 or HTTP/2.

use super::UpstreamError;
use super::options::{Endpoint, Protocol, UpstreamOptions};
use super::pool::{Pool, PooledConnection};
use super::resolve::Name;
use super::tls::ClientTls;
use super::wire::{Fuse, Place, Socket, Stream, Wire};
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Streams that one HTTP/2 connection carries at most, whatever the app allows …
pub(super) const MOST_STREAMS: usize = 100;
/// … and what each may send before somebody reads it. The connection's window holds all of them, so that slow readers never hold up others.
const STREAM_WINDOW: u32 = 256 << 10;
/// An HTTP/2 connection on which nothing moves is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// How to reach one endpoint.
pub(super) struct Dialer {
    pub(super) endpoint: Endpoint,
    /// Unless it is a unix socket.
    pub(super) name: Option<Name>,
    tls: Option<ClientTls>,
    protocol: Protocol,
    max_response_head: usize,
}

impl Dialer {
    pub(super) fn new(endpoint: &Endpoint, options: &UpstreamOptions) -> Self {
        let name = match endpoint {
            Endpoint::Http { host, port } | Endpoint::Https { host, port } => {
                Some(Name::new(host, *port, options.resolve))
            }
            Endpoint::Unix(_) => None,
        };
        let tls = options.tls.clone().filter(|_| matches!(endpoint, Endpoint::Https { .. }));
        let (protocol, max_response_head) = (options.protocol, options.max_response_head);
        Self { endpoint: endpoint.clone(), name, tls, protocol, max_response_head }
    }

    /// Does it speak HTTP/2? `None`: that is agreed on with each connection.
    pub(super) fn multiplexes(&self) -> Option<bool> {
        match self.protocol {
            Protocol::Http1 => Some(false),
            Protocol::H2c => Some(true),
            Protocol::Auto if self.tls.is_some() => None,
            Protocol::Auto => Some(false),
        }
    }

    /// `http1`: HTTP/1.1 and nothing else, where there is a choice.
    pub(super) async fn open<B>(
        &self,
        http1: bool,
        place: Place,
        pool: &Rc<Pool<B>>,
    ) -> Result<PooledConnection<B>, UpstreamError>
    where
        B: Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let fuse = Fuse::default();
        let wire = Wire::new(self.connect().await?, fuse.clone(), place);
        let (stream, http2) = match &self.tls {
            None => (Stream::Plain(wire), self.protocol == Protocol::H2c),
            Some(tls) => {
                let config = if http1 { &tls.http1 } else { &tls.config };
                let stream = self.secure(wire, tls, Arc::clone(config)).await?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Stream::Tls(Box::new(stream)), http2)
            }
        };
        if http2 { self.two(stream, pool).await } else { self.one(stream, fuse, pool).await }
    }

    async fn connect(&self) -> Result<Socket, UpstreamError> {
        match (&self.endpoint, &self.name) {
            (Endpoint::Unix(path), _) => {
                let stream = UnixStream::connect(path).await;
                stream
                    .map(Socket::Unix)
                    .map_err(|error| UpstreamError::connect(format_args!("{}: {error}", self.endpoint)))
            }
            (_, Some(name)) => self.connect_to(name).await,
            (_, None) => Err(UpstreamError::connect("an endpoint without a host")),
        }
    }

    /// The addresses of the host in turn, the one that worked last first.
    async fn connect_to(&self, name: &Name) -> Result<Socket, UpstreamError> {
        let failed = |error| UpstreamError::connect(format_args!("{}: {error}", self.endpoint));
        let mut last = std::io::Error::other("no address");
        for address in name.addresses().await.map_err(failed)? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    name.prefer(address);
                    // Without it a response head and its body can wait 40 ms for each other; failing to set it is no failure.
                    let _ = stream.set_nodelay(true);
                    return Ok(Socket::Tcp(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    async fn secure(
        &self,
        wire: Wire,
        tls: &ClientTls,
        config: Arc<rustls::ClientConfig>,
    ) -> Result<tokio_rustls::client::TlsStream<Wire>, UpstreamError> {
        let host = self.name.as_ref().map_or("", Name::host);
        let server_name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| UpstreamError::tls(format_args!("{}: not a name for TLS", self.endpoint)))?,
        };
        let stream = TlsConnector::from(config).connect(server_name, wire).await;
        stream.map_err(|error| UpstreamError::tls(format_args!("{}: {error}", self.endpoint)))
    }

    async fn one<B>(
        &self,
        stream: Stream,
        fuse: Fuse,
        pool: &Rc<Pool<B>>,
    ) -> Result<PooledConnection<B>, UpstreamError>
    where
        B: Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(self.max_response_head)
            // The trailers' limit too, which would otherwise be 16 KiB: an update may come there.
            .max_header_size(self.max_response_head)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(UpstreamError::connect)?;
        // The connection reads and writes on its own; it ends when its sender is dropped or the app closes.
        tokio::task::spawn_local(connection.with_upgrades());
        Ok(pool.adopt(sender, fuse))
    }

    async fn two<B>(&self, stream: Stream, pool: &Rc<Pool<B>>) -> Result<PooledConnection<B>, UpstreamError>
    where
        B: Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let window = STREAM_WINDOW * u32::try_from(MOST_STREAMS).unwrap_or(1);
        let (sender, mut connection) = http2::Builder::new(OnThisThread)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .max_header_list_size(u32::try_from(self.max_response_head).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(UpstreamError::connect)?;
        let most = Rc::new(Cell::new(MOST_STREAMS));
        let (told, over) = (Rc::clone(&most), Rc::clone(pool));
        // It runs whenever a request is sent, so the limit is at most one request old; hyper itself holds back what is too much.
        tokio::task::spawn_local(async move {
            let ended = std::future::poll_fn(|cx| {
                let ended = Pin::new(&mut connection).poll(cx);
                told.set(connection.current_max_send_streams().clamp(1, MOST_STREAMS));
                ended
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "HTTP/2 connection to an app ended");
            }
            over.wake_all();
        });
        Ok(pool.adopt_shared(sender, most))
    }
}

/// Runs hyper's own tasks on this worker.
#[derive(Clone)]
struct OnThisThread;

impl<F> hyper::rt::Executor<F> for OnThisThread
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Within `timeouts.connect`, what is left of it.
pub(super) async fn within<T>(
    endpoint: &Endpoint,
    limit: Duration,
    opening: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<T, UpstreamError> {
    timeout(limit, opening).await.unwrap_or_else(|_| {
        Err(UpstreamError::connect_timeout(format_args!("{endpoint} within timeouts.connect")))
    })
}
