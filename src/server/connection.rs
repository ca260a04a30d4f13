//! One connection, from accept to its last byte: TLS or plain, HTTP/1.1 or HTTP/2, and hyper's settings for both.
//!
//! hyper's own header timer is off: it cannot tell a silent connection from a slow head, and costs a timer per request.
//! The worker's tick ([`super::activity`]) says when a connection must finish or be dropped. Tests: `tests.rs`.

use super::activity::{Activity, Clock, Command, Phase, Stream};
use super::body::{Answer, RequestGuard, Served};
use super::io::{Io, Rewound, Socket, Transport};
use super::serve::{Port, Ticket, Worker};
use super::{Handler, Peer, ServerOptions, redirect};
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams that one HTTP/2 client may have open at once (nginx: 128).
const STREAMS: u32 = 128;
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
}

impl Connection {
    pub(super) fn new(clock: &Arc<Clock>, tls: bool) -> Rc<Self> {
        let phase = if tls { Phase::Handshake } else { Phase::Head };
        let activity = Arc::new(Activity::new(Arc::clone(clock), phase));
        Rc::new(Self {
            activity,
            command: Cell::default(),
            waker: RefCell::default(),
            streams: RefCell::default(),
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
            .max_concurrent_streams(STREAMS)
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
    port: Rc<Port>,
    peer: Peer,
    ticket: Ticket,
) {
    let exchange = Exchange { worker, connection, peer: Rc::new(peer), redirect: port.redirect };
    match &port.tls {
        None => plain(exchange, socket, ticket).await,
        Some(tls) => Box::pin(encrypted(exchange, tls, socket, ticket)).await,
    }
}

async fn plain<H: Handler>(exchange: Exchange<H>, socket: Socket, ticket: Ticket) {
    let mut first = BytesMut::new();
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
    exchange: Exchange<H>,
    tls: &Arc<rustls::ServerConfig>,
    socket: Socket,
    ticket: Ticket,
) {
    let mut first = BytesMut::new();
    if !matches!(socket.read_some(&mut first).await, Ok(1..)) {
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
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
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

async fn http2_connection<H: Handler>(exchange: Exchange<H>, io: Io) {
    let connection = Rc::clone(&exchange.connection);
    let worker = Rc::clone(&exchange.worker);
    connection.activity.multiplex();
    let service = service_fn(move |request| {
        let stream = exchange.connection.stream();
        exchange.worker.protocols.executor.0.set(Some(Rc::clone(&stream)));
        exchange.clone().answer(request, Some(stream))
    });
    let mut http = pin!(worker.protocols.http2.serve_connection(TokioIo::new(io), service));
    // A protocol error ends the connection with a GOAWAY that says which; there is nobody else to tell.
    let _ = std::future::poll_fn(|cx| {
        if connection.must_finish() {
            http.as_mut().graceful_shutdown();
        }
        http.as_mut().poll(cx)
    })
    .await;
}

/// What a request on this connection meets.
struct Exchange<H> {
    worker: Rc<Worker<H>>,
    connection: Rc<Connection>,
    peer: Rc<Peer>,
    redirect: bool,
}

impl<H> Clone for Exchange<H> {
    fn clone(&self) -> Self {
        Self {
            worker: Rc::clone(&self.worker),
            connection: Rc::clone(&self.connection),
            peer: Rc::clone(&self.peer),
            redirect: self.redirect,
        }
    }
}

impl<H: Handler> Exchange<H> {
    /// Not an `async fn`, so that the guard exists before hyper polls for the first time.
    fn answer(
        self,
        request: Request<Incoming>,
        stream: Option<Rc<Stream>>,
    ) -> impl Future<Output = Result<Response<Served<H::Body>>, Infallible>> + 'static {
        let guard = RequestGuard::begin(&self.connection, stream, request.version());
        async move {
            if let Some(refused) = self.own_answer(&request) {
                return Ok(refused.map(|text| Served::new(Answer::Text(Some(text)), guard)));
            }
            let response = Rc::clone(&self.worker.handler).handle(request, self.peer).await;
            Ok(response.map(|body| Served::new(Answer::Handler(body), guard)))
        }
    }

    /// What the server answers without its handler.
    fn own_answer(&self, request: &Request<Incoming>) -> Option<Response<Bytes>> {
        let counters = &self.worker.server.counters;
        let response = if request.headers().len() > self.worker.server.options.max_headers {
            // HTTP/2; for HTTP/1.1 hyper has counted already.
            counters.bad_requests.inc();
            text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "431 too many header fields\n")
        } else if self.redirect {
            self.redirected(request)
        } else {
            return None;
        };
        counters.response(response.status().as_u16());
        Some(response)
    }

    fn redirected(&self, request: &Request<Incoming>) -> Response<Bytes> {
        let counters = &self.worker.server.counters;
        match redirect::location(request, self.worker.https_port) {
            Some(location) => {
                counters.redirected_to_https.inc();
                let mut response = text(StatusCode::PERMANENT_REDIRECT, "this site is served over https\n");
                response.headers_mut().insert(header::LOCATION, location);
                response
            }
            None => {
                counters.bad_requests.inc();
                text(StatusCode::BAD_REQUEST, "400 the request names no valid host\n")
            }
        }
    }
}

fn text(status: StatusCode, words: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(words.as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}
