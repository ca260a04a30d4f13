//! The app side: endpoints, kept-alive connections, sending one request. Knows no session, no route, no listener.
//!
//! One [`Upstream`] belongs to one worker, so nothing here is shared between threads and nothing is locked. HTTP/1.1 only.
//! Tests: `tests/it/slow_upstream.rs`, `client_disconnect.rs`, `body_streaming.rs`, with real sockets.

mod connect;
mod error;
mod pool;

pub use error::{UpstreamError, UpstreamErrorKind};
pub use pool::PooledConnection;

use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use pool::Pool;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One `[upstream.<name>]`.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// Its name in the config.
    pub name: String,
    /// `servers`: at least one, in order.
    pub servers: Vec<Endpoint>,
    /// The largest response head accepted, bytes: an update in a header of `limits.session` bytes must fit.
    pub max_response_head: usize,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://host:port` (port 80 by default); the host is resolved at connect.
    Http {
        /// Host name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `unix:/path`
    Unix(std::path::PathBuf),
}

/// Deadlines of one exchange; a route may override them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeTimeouts {
    /// `timeouts.connect`
    pub connect: Duration,
    /// `timeouts.response_head`
    pub response_head: Duration,
    /// `timeouts.request_body`: the longest gap inside a request body.
    pub request_body: Duration,
    /// `timeouts.response_body`: the longest gap inside a response body.
    pub response_body: Duration,
    /// `timeouts.tunnel`: a silent tunnel.
    pub tunnel: Duration,
}

/// How far the request body has got; shared between the body, which moves it on, and [`Upstream::send`], which waits.
#[derive(Debug)]
pub struct Progress {
    finished: Cell<bool>,
    waits_for_client: Cell<bool>,
    moved_at: Cell<Instant>,
}

impl Progress {
    /// A body that has all of itself still to send, or nothing at all.
    pub fn new(finished: bool) -> Rc<Self> {
        let (waits_for_client, moved_at) = (Cell::new(false), Cell::new(Instant::now()));
        Rc::new(Self { finished: Cell::new(finished), waits_for_client, moved_at })
    }

    /// Another piece went out.
    pub fn moved(&self) {
        self.waits_for_client.set(false);
        self.moved_at.set(Instant::now());
    }

    /// The client makes us wait: its own deadline runs, not the app's.
    pub fn waits(&self) {
        self.waits_for_client.set(true);
    }

    /// The end went out.
    pub fn finish(&self) {
        self.moved();
        self.finished.set(true);
    }

    /// Did the end go out?
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }
}

/// A response head and the connection that its body still comes from.
pub struct Answer<B> {
    /// The response; the caller reads the body.
    pub response: Response<Incoming>,
    /// To be given back with [`PooledConnection::release`] when both bodies have ended; dropped, it closes the connection.
    pub connection: PooledConnection<B>,
}

/// One worker's side of an upstream.
pub struct Upstream<B> {
    options: UpstreamOptions,
    pools: Vec<Rc<Pool<B>>>,
    next: Cell<usize>,
}

impl<B> Upstream<B>
where
    B: Body + Default + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Connects to nothing yet.
    pub fn new(options: UpstreamOptions) -> Self {
        let pools = options.servers.iter().map(|_| Rc::new(Pool::new())).collect();
        Self { options, pools, next: Cell::new(0) }
    }

    /// Its name in the config.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Sends a request and waits for the response head.
    ///
    /// A kept connection may die just as the request goes out. The request is then sent once more on a new connection if it
    /// never left, or if it is idempotent and has no body (RFC 9110 §9.2.2).
    ///
    /// # Errors
    /// [`UpstreamError`]; the request may have reached the app unless the kind is `Connect`.
    pub async fn send(
        &self,
        request: Request<B>,
        progress: &Rc<Progress>,
        timeouts: &ExchangeTimeouts,
    ) -> Result<Answer<B>, UpstreamError> {
        let index = self.pick();
        let (endpoint, pool) = (&self.options.servers[index], &self.pools[index]);
        let mut request = request;
        let mut kept = pool.checkout().await;
        loop {
            let reused = kept.is_some();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                // Boxed, because it is rare and large: every request under way would carry its room.
                None => {
                    Box::pin(connect::open(endpoint, timeouts.connect, self.options.max_response_head, pool))
                        .await?
                }
            };
            let replay = (reused && is_replayable(&request, progress)).then(|| copy_head(&request));
            match self.exchange(&mut connection, request, progress, timeouts).await {
                Ok(response) => return Ok(Answer { response, connection }),
                Err(Failed { unsent: Some(unsent), .. }) if reused => request = *unsent,
                Err(Failed { error, .. }) => match replay {
                    Some(copy) if error.kind == UpstreamErrorKind::Reset => request = copy,
                    _ => return Err(error),
                },
            }
        }
    }

    /// Closes idle connections that were idle for too long; called by the worker's tick.
    pub fn sweep(&self) {
        for pool in &self.pools {
            pool.sweep();
        }
    }

    fn pick(&self) -> usize {
        if self.pools.len() == 1 {
            return 0;
        }
        let index = self.next.get();
        self.next.set((index + 1) % self.pools.len());
        index
    }

    async fn exchange(
        &self,
        connection: &mut PooledConnection<B>,
        request: Request<B>,
        progress: &Rc<Progress>,
        timeouts: &ExchangeTimeouts,
    ) -> Result<Response<Incoming>, Failed<B>> {
        let answer = connection.sender().try_send_request(request);
        tokio::pin!(answer);
        let started = Instant::now();
        let timer = tokio::time::sleep(timeouts.response_head);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                biased;
                result = &mut answer => return result.map_err(|mut error| Failed {
                    unsent: error.take_message().map(Box::new),
                    error: UpstreamError::from_exchange(error.error()),
                }),
                () = &mut timer => {
                    // The deadline counts from the end of the request, or from when the app took the last piece of it: an
                    // upload may take as long as it keeps moving.
                    let since = progress.moved_at.get().max(started);
                    let waited = since.elapsed();
                    if !progress.waits_for_client.get() && waited >= timeouts.response_head {
                        return Err(Failed { unsent: None, error: UpstreamError::response_head_timeout() });
                    }
                    let rest = timeouts.response_head.saturating_sub(waited).max(timeouts.response_head.min(Duration::from_secs(1)));
                    timer.as_mut().reset(tokio::time::Instant::now() + rest);
                }
            }
        }
    }
}

struct Failed<B> {
    unsent: Option<Box<Request<B>>>,
    error: UpstreamError,
}

fn is_replayable<B>(request: &Request<B>, progress: &Progress) -> bool {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    idempotent && progress.is_finished()
}

fn copy_head<B: Default>(request: &Request<B>) -> Request<B> {
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}
