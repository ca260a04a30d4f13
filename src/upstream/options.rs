//! What an upstream needs to know, filled in by `config`.

use super::state::Group;
use super::tls::ClientTls;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One `[upstream.<name>]`. Clones share what is known of its endpoints: all workers eject and forgive together.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// Its name in the config.
    pub name: String,
    /// `servers`: 1 to 64, in order.
    pub servers: Vec<Endpoint>,
    /// `balance`
    pub balance: Balance,
    /// `protocol`
    pub protocol: Protocol,
    /// `tls`, for servers that are `https`.
    pub tls: Option<ClientTls>,
    /// `eject_after`, `eject_for`
    pub ejection: Ejection,
    /// `health`; `None`: no active checks.
    pub health: Option<HealthCheck>,
    /// `retries`: how often one request may be sent again that may have reached an app.
    pub retries: u32,
    /// `max_connections`, of one worker to one endpoint.
    pub max_connections: usize,
    /// `max_idle`, of one worker to one endpoint.
    pub max_idle: usize,
    /// `idle_timeout`: a kept connection that is idle for so long is closed.
    pub idle_timeout: Duration,
    /// `resolve`: how often a host name is looked up anew.
    pub resolve: Duration,
    /// The largest response head accepted, bytes: an update in a header of `limits.session` bytes must fit.
    pub max_response_head: usize,
    /// What all workers know of the endpoints; made by [`Group::new`] of as many endpoints as `servers` has.
    pub group: Arc<Group>,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://host:port` (port 80 by default).
    Http {
        /// Host name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `https://host:port` (port 443 by default).
    Https {
        /// Host name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `unix:/path`
    Unix(PathBuf),
}

/// `balance`: who gets the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Everybody in turn.
    RoundRobin,
    /// Of two endpoints drawn by lot, the one with fewer requests under way from this worker.
    LeastRequests,
    /// One endpoint for each session, by rendezvous hashing; without a session as `LeastRequests`.
    Sticky,
}

/// `protocol`: what is spoken with the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
    /// With TLS what ALPN agrees on, without TLS HTTP/1.1.
    Auto,
}

/// Passive ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// `eject_after`: failures in a row; 0 never ejects.
    pub after: u32,
    /// `eject_for`: the first time; doubled each time in a row, five minutes at most unless this is longer.
    pub span: Duration,
}

/// `health`: active checks, from one thread of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// `path`: path and query.
    pub path: String,
    /// `interval`
    pub interval: Duration,
    /// `timeout` of a whole check.
    pub timeout: Duration,
    /// `healthy`: successes in a row that bring an endpoint back.
    pub healthy: u32,
    /// `unhealthy`: failures in a row that take an endpoint out.
    pub unhealthy: u32,
    /// `expect`: the status that is a success.
    pub expect: u16,
}

/// Deadlines of one exchange; a route may override them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeTimeouts {
    /// `timeouts.connect`: waiting for a free connection included.
    pub connect: Duration,
    /// `timeouts.response_head`
    pub response_head: Duration,
    /// `timeouts.request_body`: the longest gap inside a request body.
    pub request_body: Duration,
    /// `timeouts.response_body`: the longest gap inside a response body.
    pub response_body: Duration,
    /// `timeouts.request`: from the request's leaving to the response's end; `None` is unlimited.
    pub request: Option<Duration>,
    /// `timeouts.tunnel`: a silent tunnel.
    pub tunnel: Duration,
}

impl UpstreamOptions {
    /// Would both be served in the same way? What is known of the endpoints does not count; of TLS files, what was in them does.
    pub fn is_same(&self, other: &Self) -> bool {
        let plain = |options: &Self| {
            let Self { balance, protocol, ejection, retries, max_connections, max_idle, .. } = *options;
            let Self { idle_timeout, resolve, max_response_head, .. } = *options;
            (
                (balance, protocol, ejection, retries, max_connections),
                (max_idle, idle_timeout, resolve, max_response_head),
            )
        };
        let named = |options: &Self| (options.name.clone(), options.servers.clone(), options.health.clone());
        self.tls == other.tls && plain(self) == plain(other) && named(self) == named(other)
    }
}

impl Endpoint {
    /// What stands in `Host` for a request that nobody else gave one.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Http { host, port } | Self::Https { host, port } if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            Self::Http { host, port } | Self::Https { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { .. } => write!(f, "http://{}", self.authority()),
            Self::Https { .. } => write!(f, "https://{}", self.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
