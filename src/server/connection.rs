//! One connection, from accept to its last byte: TLS or plain, HTTP/1.1 or HTTP/2, and hyper's settings for both.
//!
//! hyper's own header timer is off: it cannot tell a silent connection from a slow head, and costs a timer per request.
//! The worker's tick ([`super::activity`]) says when a connection must finish or be dropped. Tests: `tests.rs`.

use super::activity::{Activity, Clock, Command, Phase, Stream};
use super::exchange::Exchange;
use super::flood::Flood;
use super::io::{Io, Rewound, Socket, Transport};
use super::live::Settings;
use super::proxy_protocol::{self, Origin, Refusal};
use super::serve::{Ticket, Worker};
use super::tls::ClientCertificate;
use super::{Handler, Peer, ProxyProtocol, ServerOptions};
use bytes::{Buf, BytesMut};
use http::{HeaderValue, StatusCode};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a client may send ahead on one stream, and on all of a connection together: what it can make us hold in memory.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// What we hold of one stream's answer while the client takes none of it.
const SEND_BUFFER: usize = 64 * 1024;
/// What hyper may hold of an HTTP/1.1 connection in each direction, unless a request head may be larger.
const LEAST_BUFFER: usize = 64 * 1024;
/// A client that is gone without a word is noticed within the sum of these.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// hyper's limit of header lines, which costs nothing; any other one moves its table to the heap.
const HYPER_MAX_HEADERS: usize = 100;

/// What the worker keeps of a connection.
pub(super) struct Connection {
    pub(super) activity: Arc<Activity>,
    command: Cell<Option<Command>>,
    waker: RefCell<Option<Waker>>,
    /// HTTP/2 only; those that have ended are forgotten at the tick.
    streams: RefCell<Vec<Weak<Stream>>>,
    /// HTTP/2 only.
    flood: OnceCell<Arc<Flood>>,
}

impl Connection {
    /// `shakes_hands`: TLS or a balancer's header come before the first request.
    pub(super) fn new(clock: &Arc<Clock>, shakes_hands: bool) -> Rc<Self> {
        let phase = if shakes_hands { Phase::Handshake } else { Phase::Head };
        let activity = Arc::new(Activity::new(Arc::clone(clock), phase));
        Rc::new(Self {
            activity,
            command: Cell::default(),
            waker: RefCell::default(),
            streams: RefCell::default(),
            flood: OnceCell::new(),
        })
    }

    fn stream(&self) -> Rc<Stream> {
        let stream = Rc::<Stream>::default();
        self.streams.borrow_mut().push(Rc::downgrade(&stream));
        stream
    }

    /// Resets the streams whose client takes nothing; how many.
    pub(super) fn reset_stalled_streams(&self) -> u64 {
        let mut reset = 0;
        self.streams.borrow_mut().retain(|stream| match stream.upgrade() {
            Some(stream) => {
                reset += u64::from(stream.reset_if_stalled(self.activity.clock()));
                true
            }
            None => false,
        });
        reset
    }

    /// A request ended before its answer did.
    pub(super) fn cut_short(&self) {
        if let Some(flood) = self.flood.get() {
            flood.cut_short();
        }
    }

    /// The tick.
    pub(super) fn leak(&self) {
        if let Some(flood) = self.flood.get() {
            flood.leak();
        }
    }

    pub(super) fn tell(&self, command: Command) {
        self.command.set(Some(command));
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn must_finish(&self) -> bool {
        self.command.get() == Some(Command::Finish) && self.command.take().is_some()
    }
}

/// A connection's task: its work, until it is done or the worker says [`Command::Drop`].
pub(super) struct Task<F> {
    pub(super) connection: Rc<Connection>,
    pub(super) work: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.connection.command.get() == Some(Command::Drop) {
            return Poll::Ready(());
        }
        let known = self.connection.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !known {
            *self.connection.waker.borrow_mut() = Some(cx.waker().clone());
        }
        self.work.as_mut().poll(cx)
    }
}

/// hyper's settings, made once per worker.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<LocalExecutor>,
    executor: LocalExecutor,
}

impl Protocols {
    pub(super) fn new(options: &ServerOptions) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .half_close(false)
            .header_read_timeout(None)
            .max_header_size(options.max_request_head)
            // Also the most that waits for a client that reads slowly; hyper's own figure would cap the head at 408 KiB.
            .max_buf_size(options.max_request_head.max(LEAST_BUFFER));
        if options.max_headers != HYPER_MAX_HEADERS {
            http1.max_headers(options.max_headers);
        }
        let executor = LocalExecutor::default();
        let mut http2 = http2::Builder::new(executor.clone());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(options.max_request_head).unwrap_or(u32::MAX))
            .max_concurrent_streams(options.max_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        Self { http1, http2, executor }
    }
}

/// Streams of an HTTP/2 connection are tasks of the same worker. They end with their connection, which is what is counted.
///
/// hyper calls the service and hands the stream to the executor in one breath; the cell carries the service's [`Stream`]
/// across, so that it knows its task.
#[derive(Clone, Default)]
pub(super) struct LocalExecutor(Rc<Cell<Option<Rc<Stream>>>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        let task = tokio::task::spawn_local(future);
        if let Some(stream) = self.0.take() {
            stream.runs_on(task.abort_handle());
        }
    }
}

/// Serves one accepted socket to its end. Errors are the client's business: they are counted, not logged.
pub(super) async fn serve<H: Handler>(
    worker: Rc<Worker<H>>,
    connection: Rc<Connection>,
    socket: Socket,
    settings: Arc<Settings>,
    (from, local_port): (Option<SocketAddr>, u16),
    mut ticket: Ticket,
) {
    let tls = settings.tls.as_ref();
    let mut first = BytesMut::new();
    let (mut from, mut local_port) = (from, local_port);
    if let Some(rule) = &settings.proxy_protocol {
        match Box::pin(read_origin(rule, from, &socket, &mut first)).await {
            Ok(Origin::Socket) => {}
            Ok(Origin::Unix) => (from, local_port) = (None, 0),
            Ok(Origin::Ip { from: client, to }) => (from, local_port) = (Some(client), to.port()),
            // A balancer that looks whether the port is open.
            Err(Refusal::Ended) if first.is_empty() => return,
            Err(refusal) => return worker.refused.proxy_protocol(refusal, from),
        }
        if tls.is_none() {
            connection.activity.enter(Phase::Head);
        }
    }
    let peer = Rc::new(Peer::new(from, local_port, tls.is_some()));
    if let Some(most) = worker.server.options.max_connections_per_peer {
        match worker.server.limit.peers.sit(peer.ip, most) {
            Ok(seat) => ticket.peer = seat,
            Err(()) => return worker.refused.peer(peer.ip),
        }
    }
    // A copy of its own: a shared one would be counted by all workers with every answer.
    let hsts = settings.hsts.as_ref().and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    let exchange = Exchange { worker, connection, peer, redirect: settings.redirect, hsts };
    match tls {
        None => plain(exchange, socket, first, ticket).await,
        Some(tls) => Box::pin(encrypted(exchange, &tls.config, socket, first, ticket)).await,
    }
}

/// Reads a balancer's header; `first` keeps what was read behind it. [`Refusal::Ended`] also when nothing came at all.
async fn read_origin(
    rule: &ProxyProtocol,
    from: Option<SocketAddr>,
    socket: &Socket,
    first: &mut BytesMut,
) -> Result<Origin, Refusal> {
    let ip = from.map(|from| from.ip());
    if rule.from.as_ref().is_some_and(|allowed| !allowed.trusts_peer(ip)) {
        return Err(Refusal::Peer);
    }
    loop {
        if let Some(header) = proxy_protocol::parse(first)? {
            first.advance(header.length);
            if first.is_empty() {
                *first = BytesMut::new();
            }
            return Ok(header.origin);
        }
        if !matches!(socket.read_some(first).await, Ok(1..)) {
            return Err(Refusal::Ended);
        }
    }
}

async fn plain<H: Handler>(exchange: Exchange<H>, socket: Socket, mut first: BytesMut, ticket: Ticket) {
    // Until the bytes differ from HTTP/2's preface (in practice: one read). Nothing is allocated before the first byte.
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        if !matches!(socket.read_some(&mut first).await, Ok(1..)) {
            return;
        }
    }
    let http2 = first.starts_with(PREFACE);
    let transport = Transport::Plain(Rewound::new(first.freeze(), socket));
    let io = Io::new(transport, Arc::clone(&exchange.connection.activity), ticket);
    if http2 { Box::pin(http2_connection(exchange, io)).await } else { http1_connection(exchange, io).await }
}

async fn encrypted<H: Handler>(
    mut exchange: Exchange<H>,
    tls: &Arc<rustls::ServerConfig>,
    socket: Socket,
    mut first: BytesMut,
    ticket: Ticket,
) {
    if first.is_empty() && !matches!(socket.read_some(&mut first).await, Ok(1..)) {
        return;
    }
    let counters = Arc::clone(&exchange.worker.server.counters);
    if first[0].is_ascii_alphabetic() {
        // The first byte of a TLS record is 22; a letter is an HTTP method. Anything else gets TLS's own alert.
        counters.bad_requests.inc();
        return refuse_plain_text(socket, first).await;
    }
    let Ok(stream) = TlsAcceptor::from(Arc::clone(tls)).accept(Rewound::new(first.freeze(), socket)).await
    else {
        counters.connections_refused_tls.inc();
        return;
    };
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    if let Some(certificate) = session.peer_certificates().and_then(<[_]>::first) {
        let certificate = Some(ClientCertificate::new(certificate));
        exchange.peer = Rc::new(Peer { certificate, ..(*exchange.peer).clone() });
    }
    exchange.connection.activity.enter(Phase::Head);
    let io = Io::new(Transport::Tls(Box::new(stream)), Arc::clone(&exchange.connection.activity), ticket);
    if http2 { http2_connection(exchange, io).await } else { http1_connection(exchange, io).await }
}

/// What nginx says. The rest of the request is read (a little of it), or closing would take the answer back.
async fn refuse_plain_text(mut socket: Socket, mut read: BytesMut) {
    const TEXT: &str = "The plain HTTP request was sent to HTTPS port\n";
    const ENOUGH: usize = 64 * 1024;
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{TEXT}",
        TEXT.len()
    );
    if socket.write_all(head.as_bytes()).await.is_err() || socket.shutdown().await.is_err() {
        return;
    }
    let mut total = 0;
    while total < ENOUGH {
        read.clear();
        match socket.read_some(&mut read).await {
            Ok(bytes @ 1..) => total += bytes,
            _ => return,
        }
    }
}

async fn http1_connection<H: Handler>(exchange: Exchange<H>, io: Io) {
    let connection = Rc::clone(&exchange.connection);
    let worker = Rc::clone(&exchange.worker);
    let service = service_fn(move |request| exchange.clone().answer(request, None));
    let mut http = pin!(worker.protocols.http1.serve_connection(TokioIo::new(io), service).with_upgrades());
    let end = std::future::poll_fn(|cx| {
        if connection.must_finish() {
            http.as_mut().graceful_shutdown();
        }
        http.as_mut().poll(cx)
    })
    .await;
    if end.is_err_and(|error| error.is_parse()) {
        // hyper has answered 400, 414 or 431 itself.
        worker.server.counters.bad_requests.inc();
        worker.server.counters.response(StatusCode::BAD_REQUEST.as_u16());
    }
}

async fn http2_connection<H: Handler>(exchange: Exchange<H>, mut io: Io) {
    let connection = Rc::clone(&exchange.connection);
    let worker = Rc::clone(&exchange.worker);
    connection.activity.multiplex();
    let flood = Flood::new(&worker.server.options);
    io.meter(Arc::clone(&flood));
    let _ = connection.flood.set(Arc::clone(&flood));
    let ip = exchange.peer.ip;
    let service = service_fn(move |request| {
        let stream = exchange.connection.stream();
        exchange.worker.protocols.executor.0.set(Some(Rc::clone(&stream)));
        exchange.clone().answer(request, Some(stream))
    });
    let mut http = pin!(worker.protocols.http2.serve_connection(TokioIo::new(io), service));
    let end = std::future::poll_fn(|cx| {
        if connection.must_finish() {
            http.as_mut().graceful_shutdown();
        }
        http.as_mut().poll(cx)
    })
    .await;
    if let Some(reason) = flood.verdict() {
        worker.refused.http2(reason, ip);
    } else if let Some(reason) = end.err().and_then(|error| fault(&error)) {
        // The client was told with a GOAWAY.
        worker.refused.http2(reason, ip);
    }
}

/// A client's fault; a connection that broke is nobody's.
fn fault(error: &hyper::Error) -> Option<&'static str> {
    let source = std::error::Error::source(error)?;
    if source.is::<std::io::Error>() {
        return None;
    }
    // h2's words for ENHANCE_YOUR_CALM: too many CONTINUATION frames, resets, empty frames.
    Some(if source.to_string().contains("excessive load") { "excessive" } else { "protocol" })
}
