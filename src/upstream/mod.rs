//! The app side: endpoints, who gets the next request, kept connections, sending one request and what may be sent again.
//! Knows no session, no route, no listener.
//!
//! One [`Upstream`] belongs to one worker, so nothing on the way of a request is locked; what is known of endpoints is shared by all
//! workers ([`Group`]) and costs one relaxed load while all is well. Tests: `tests/it/upstream_*.rs`, `slow_upstream.rs`,
//! `client_disconnect.rs`, `body_streaming.rs`, with real sockets.
//!
//! | file | what for |
//! |---|---|
//! | `options` | what `config` fills in |
//! | `balance`, `state`, `budget` | who is next; who is in service; how much is sent again. No sockets |
//! | `report` | what becomes of an endpoint, said in the log and in gauges |
//! | `check` | active health checks |
//! | `pool`, `connect`, `resolve`, `tls`, `wire` | connections |
//! | `exchange` | one request on one connection |

mod balance;
mod budget;
mod check;
mod connect;
mod error;
mod exchange;
mod options;
mod pool;
mod progress;
mod report;
mod resolve;
mod state;
pub mod tls;
mod wire;

pub use balance::MOST_ENDPOINTS;
pub use error::{UpstreamError, UpstreamErrorKind};
pub use options::{Balance, Ejection, Endpoint, ExchangeTimeouts, HealthCheck, Protocol, UpstreamOptions};
pub use pool::PooledConnection;
pub use progress::Progress;
pub use state::Group;

use crate::telemetry::counters::Counters;
use balance::{Balancer, Tried};
use budget::Budget;
use check::Checks;
use connect::{Dialer, within};
use exchange::{copy_head, exchange, is_idempotent};
use http::header::UPGRADE;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use pool::{Leave, Pool};
use report::Reporter;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// How often a request that the app certainly never saw is sent again to the same endpoint.
const TRIES_HERE: u32 = 3;

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
    balancer: Balancer,
    budget: Budget,
    routes: Vec<Route<B>>,
    reporter: Rc<Reporter>,
    /// On the one worker that looks after them.
    checks: RefCell<Option<Checks>>,
}

/// The way to one endpoint.
struct Route<B> {
    dialer: Rc<Dialer>,
    pool: Rc<Pool<B>>,
}

/// A request that got no response head.
struct Failed<B> {
    error: UpstreamError,
    /// The request again, if there is one that may be sent.
    request: Option<Box<Request<B>>>,
    /// The app has not seen it, for certain.
    unseen: bool,
    /// It was the connection that was at fault: it was kept, or shared, and may have ended by the time the request came.
    stale: bool,
}

impl<B> Upstream<B>
where
    B: Body + Default + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Connects to nothing yet.
    pub fn new(options: UpstreamOptions, counters: Arc<Counters>) -> Self {
        let route = |endpoint| {
            let dialer = Rc::new(Dialer::new(endpoint, &options));
            let pool = Rc::new(Pool::new(&options, dialer.multiplexes()));
            Route { dialer, pool }
        };
        Self {
            balancer: Balancer::new(options.balance, &options.servers),
            budget: Budget::new(Instant::now()),
            routes: options.servers.iter().map(route).collect(),
            reporter: Rc::new(Reporter::new(options.clone(), counters)),
            checks: RefCell::new(None),
            options,
        }
    }

    /// Its name in the config.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Sends a request and waits for the response head. `affinity`: what sticky balancing goes by.
    ///
    /// A request that certainly never reached an app is sent again: to the same endpoint when a kept connection was the reason,
    /// else to each of the others. One that may have reached an app is sent again only if it is idempotent and its body
    /// had not begun (RFC 9110 §9.2.2), `retries` times at most and within the upstream's budget.
    ///
    /// # Errors
    /// [`UpstreamError`]; the request may have reached the app unless the kind says that it never left.
    pub async fn send(
        &self,
        request: Request<B>,
        affinity: Option<&[u8]>,
        progress: &Progress,
        timeouts: &ExchangeTimeouts,
    ) -> Result<Answer<B>, UpstreamError> {
        self.budget.request();
        let (mut tried, mut retries) = (Tried::default(), self.options.retries);
        let (mut request, mut index, mut here) = (request, self.pick(affinity, tried), 0);
        loop {
            let elsewhere = tried.count() + 1 < self.routes.len();
            let failed = match self
                .attempt(index, request, here > 0, retries > 0 && elsewhere, progress, timeouts)
                .await
            {
                Ok(answer) => {
                    self.reporter.succeeded(index);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            if !failed.stale && failed.error.kind.blames_endpoint() {
                self.reporter.failed(index);
            }
            let Some(again) = failed.request else { return Err(failed.error) };
            request = *again;
            // An app that is about to stop may say on several connections that it never looked; one that is too busy should not be
            // pressed for it.
            if failed.stale && (here == 0 || (failed.unseen && here < TRIES_HERE && self.budget.take())) {
                here += 1;
                continue;
            }
            let free = failed.unseen && failed.error.kind.is_quick();
            if !elsewhere || !(free || (retries > 0 && self.budget.take())) {
                return Err(failed.error);
            }
            retries -= u32::from(!free);
            self.reporter.retried();
            tried.add(index);
            (index, here) = (self.pick(affinity, tried), 0);
        }
    }

    /// Housekeeping: closes what was idle for too long, looks names up anew, looks after the checks. Called by the worker's tick.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.budget.turn(now);
        if self.options.group.claim() {
            self.reporter.show(true);
            self.checks.replace(Some(check::begin(&self.options, &self.reporter)));
        }
        for route in &self.routes {
            route.pool.sweep();
            if route.dialer.name.as_ref().is_some_and(|name| name.is_due(now)) {
                route.look_up(now);
            }
        }
    }

    fn pick(&self, affinity: Option<&[u8]>, tried: Tried) -> usize {
        let load = |index: usize| self.routes[index].pool.load();
        let admits = |index, draw| self.options.group.admits(index, draw, Instant::now);
        self.balancer.pick(affinity, tried, load, admits)
    }

    /// One try at one endpoint. `fresh`: on no connection that was kept. `again`: another endpoint could be tried.
    async fn attempt(
        &self,
        index: usize,
        request: Request<B>,
        fresh: bool,
        again: bool,
        progress: &Progress,
        timeouts: &ExchangeTimeouts,
    ) -> Result<Answer<B>, Failed<B>> {
        let route = &self.routes[index];
        let seat = route.pool.seat();
        // An upgrade is HTTP/1.1's.
        let http1 = route.dialer.multiplexes().is_none() && request.headers().contains_key(UPGRADE);
        let (connection, kept) = match route.connection(http1, fresh, timeouts).await {
            Ok(found) => found,
            Err(error) => {
                let request = Some(Box::new(request));
                return Err(Failed { error, request, unseen: true, stale: false });
            }
        };
        let mut connection = connection.seated(seat);
        let shared = connection.is_shared();
        let idempotent = is_idempotent(request.method());
        // On a shared connection the app may say that it never looked: then any request can be sent again.
        let copied = progress.is_finished() && (shared || (idempotent && (kept || again)));
        let copy = copied.then(|| Box::new(copy_head(&request)));
        let broken = match exchange(&mut connection, request, progress, timeouts).await {
            Ok(response) => return Ok(Answer { response, connection }),
            Err(broken) => broken,
        };
        let may_repeat = broken.refused || (idempotent && broken.error.kind == UpstreamErrorKind::Reset);
        let request = broken.unsent.or(copy.filter(|_| may_repeat));
        let stale = broken.refused || (kept && broken.error.kind == UpstreamErrorKind::Reset);
        Err(Failed { error: broken.error, request, unseen: broken.refused, stale })
    }
}

impl<B> Drop for Upstream<B> {
    fn drop(&mut self) {
        if self.checks.get_mut().take().is_some() {
            self.reporter.show(false);
            self.options.group.disclaim();
        }
    }
}

impl<B> Route<B>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A connection, and whether it was there before.
    async fn connection(
        &self,
        http1: bool,
        fresh: bool,
        timeouts: &ExchangeTimeouts,
    ) -> Result<(PooledConnection<B>, bool), UpstreamError> {
        // What is shared is not kept: who finds a dead one among them does not find it twice.
        if (!fresh || self.dialer.multiplexes() != Some(false))
            && let Some(kept) = self.pool.checkout(http1, fresh).await
        {
            return Ok((kept, true));
        }
        // Boxed, because it is rare and large: every request under way would carry its room.
        Box::pin(self.open_or_wait(http1, fresh, timeouts)).await
    }

    async fn open_or_wait(
        &self,
        http1: bool,
        fresh: bool,
        timeouts: &ExchangeTimeouts,
    ) -> Result<(PooledConnection<B>, bool), UpstreamError> {
        let until = tokio::time::Instant::now() + timeouts.connect;
        loop {
            match self.pool.leave(http1, fresh) {
                Leave::Open(place, _opening) => {
                    let rest = until.saturating_duration_since(tokio::time::Instant::now());
                    let opened =
                        within(&self.dialer.endpoint, rest, self.dialer.open(http1, place, &self.pool))
                            .await?;
                    return Ok((opened, false));
                }
                Leave::Look => {}
                Leave::Wait => {
                    if tokio::time::timeout_at(until, self.pool.freed()).await.is_err() {
                        if self.pool.is_opening() {
                            let detail = format_args!("{} within timeouts.connect", self.dialer.endpoint);
                            return Err(UpstreamError::connect_timeout(detail));
                        }
                        return Err(UpstreamError::busy(format_args!(
                            "{}: max_connections in use",
                            self.dialer.endpoint
                        )));
                    }
                }
            }
            if let Some(kept) = self.pool.checkout(http1, fresh).await {
                return Ok((kept, true));
            }
        }
    }

    /// In the background: requests go on with what is known.
    fn look_up(&self, now: Instant) {
        let (dialer, pool) = (Rc::clone(&self.dialer), Rc::clone(&self.pool));
        tokio::task::spawn_local(async move {
            let Some(name) = &dialer.name else { return };
            match name.refresh(now, resolve::lookup).await {
                Ok(true) => {
                    tracing::info!(endpoint = %dialer.endpoint, "the host has moved: new connections from now on");
                    pool.retire();
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(endpoint = %dialer.endpoint, %error, "the host cannot be looked up; the last good answer stays");
                }
            }
        });
    }
}
