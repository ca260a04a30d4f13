//! Connections that are closed because of what the client did: each is counted under a reason, and a line is written seldom,
//! for strangers must not be able to fill a log. Tests: below.

use super::proxy_protocol::Refusal;
use crate::telemetry::counters::Counters;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One worker's book.
pub(super) struct Refused {
    counters: Arc<Counters>,
    proxy_protocol: Seldom,
    peer: Seldom,
    http2: Seldom,
}

impl Refused {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            proxy_protocol: Seldom::default(),
            peer: Seldom::default(),
            http2: Seldom::default(),
        }
    }

    /// A connection of a listener with `proxy_protocol` that did not begin as it must; `from` is the socket's other end.
    pub(super) fn proxy_protocol(&self, refusal: Refusal, from: Option<SocketAddr>) {
        let reason = refusal.word();
        self.counters.connections_closed.inc("proxy_protocol", reason);
        if let Some(unsaid) = self.proxy_protocol.may_speak(Instant::now()) {
            let peer = show(from.map(|from| from.ip().to_canonical()));
            tracing::warn!(
                peer,
                reason,
                unsaid,
                "closed a connection that begins with no valid PROXY protocol header of an allowed peer: the balancer must send one, or proxy_protocol is too much here"
            );
        }
    }

    /// A connection beyond `limits.connections_per_peer`.
    pub(super) fn peer(&self, ip: Option<IpAddr>) {
        self.counters.connections_closed.inc("accept", "connections_per_peer");
        if let Some(unsaid) = self.peer.may_speak(Instant::now()) {
            tracing::warn!(peer = show(ip), unsaid, "closed a connection beyond limits.connections_per_peer");
        }
    }

    /// An HTTP/2 connection that broke a rule or went over a limit.
    pub(super) fn http2(&self, reason: &'static str, ip: Option<IpAddr>) {
        self.counters.connections_closed.inc("http2", reason);
        if let Some(unsaid) = self.http2.may_speak(Instant::now()) {
            tracing::warn!(
                peer = show(ip),
                reason,
                unsaid,
                "closed an HTTP/2 connection for what its client did"
            );
        }
    }
}

fn show(ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| "unix".to_owned(), |ip| ip.to_string())
}

/// One line in [`PAUSE`].
#[derive(Default)]
struct Seldom {
    spoke: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

const PAUSE: Duration = Duration::from_secs(10);

impl Seldom {
    /// May a line be written? With how often it was not since the last one.
    fn may_speak(&self, now: Instant) -> Option<u64> {
        if self.spoke.get().is_some_and(|spoke| now.duration_since(spoke) < PAUSE) {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.spoke.set(Some(now));
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_while_and_it_says_how_many_were_not_written() {
        let seldom = Seldom::default();
        let begun = Instant::now();
        assert_eq!(seldom.may_speak(begun), Some(0));
        assert_eq!(seldom.may_speak(begun), None);
        assert_eq!(seldom.may_speak(begun + PAUSE / 2), None);
        assert_eq!(seldom.may_speak(begun + PAUSE), Some(2));
        assert_eq!(seldom.may_speak(begun + PAUSE), None);
        assert_eq!(seldom.may_speak(begun + PAUSE * 2), Some(1));
    }
}
