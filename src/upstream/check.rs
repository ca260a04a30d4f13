//! Active health checks: a `GET` on a connection of its own, from one worker of the process. Tests: `tests/it/upstream_health.rs`.

use super::connect::{Dialer, within};
use super::exchange::exchange;
use super::options::{HealthCheck, UpstreamOptions};
use super::pool::{Leave, Pool};
use super::report::Reporter;
use super::{ExchangeTimeouts, Progress, UpstreamError};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body_util::Empty;
use std::rc::Rc;
use std::time::Instant;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Checks that go on until they are dropped.
pub(super) struct Checks(Vec<JoinHandle<()>>);

impl Drop for Checks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Begins to check every endpoint, if the upstream has checks.
pub(super) fn begin(options: &UpstreamOptions, reporter: &Rc<Reporter>) -> Checks {
    let Some(health) = &options.health else { return Checks(Vec::new()) };
    let start = |(index, endpoint)| {
        let checker = Checker {
            index,
            health: health.clone(),
            dialer: Dialer::new(endpoint, options),
            options: options.clone(),
            reporter: Rc::clone(reporter),
        };
        tokio::task::spawn_local(checker.run())
    };
    Checks(options.servers.iter().enumerate().map(start).collect())
}

struct Checker {
    index: usize,
    health: HealthCheck,
    dialer: Dialer,
    options: UpstreamOptions,
    reporter: Rc<Reporter>,
}

impl Checker {
    async fn run(self) {
        let mut ticks = tokio::time::interval(self.health.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // How often in a row the same came out.
        let (mut good, mut bad) = (0_u32, 0_u32);
        loop {
            ticks.tick().await;
            match within(&self.dialer.endpoint, self.health.timeout, self.once()).await {
                Ok(()) => (good, bad) = (good.saturating_add(1), 0),
                Err(error) => {
                    (good, bad) = (0, bad.saturating_add(1));
                    tracing::debug!(upstream = self.options.name, endpoint = %self.dialer.endpoint, %error, "health check failed");
                }
            }
            if good >= self.health.healthy {
                self.reporter.checked(self.index, true, Instant::now());
            } else if bad >= self.health.unhealthy {
                self.reporter.checked(self.index, false, Instant::now());
            }
        }
    }

    async fn once(&self) -> Result<(), UpstreamError> {
        // A pool of its own, so that checks neither take a place from requests nor find out about old connections.
        let pool: Rc<Pool<Empty<Bytes>>> = Rc::new(Pool::new(&self.options, self.dialer.multiplexes()));
        let Leave::Open(place, _opening) = pool.leave(false, true) else {
            return Err(UpstreamError::connect("no place for a check"));
        };
        let mut connection = self.dialer.open(false, place, &pool).await?;
        // The whole check has a deadline.
        let limit = self.health.timeout;
        let timeouts = ExchangeTimeouts {
            connect: limit,
            response_head: limit,
            request_body: limit,
            response_body: limit,
            request: None,
            tunnel: limit,
        };
        let response = exchange(&mut connection, self.request(), &Progress::new(true), &timeouts).await;
        pool.retire();
        let status = response.map_err(|broken| broken.error)?.status().as_u16();
        if status == self.health.expect {
            return Ok(());
        }
        Err(UpstreamError::connect(format_args!("status {status}, expected {}", self.health.expect)))
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::try_from(self.health.path.as_str()).unwrap_or_default();
        let host = HeaderValue::try_from(self.dialer.endpoint.authority());
        let headers = request.headers_mut();
        headers.insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
        headers.insert(USER_AGENT, HeaderValue::from_static("cloakroom-health"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        request
    }
}
