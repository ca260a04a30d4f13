//! What becomes of an endpoint is said: to all workers, once in the log, in the gauge `upstream_endpoint_up`.

use super::options::UpstreamOptions;
use super::state::Change;
use crate::telemetry::counters::Counters;
use std::sync::Arc;
use std::time::Instant;

pub(super) struct Reporter {
    options: UpstreamOptions,
    counters: Arc<Counters>,
}

impl Reporter {
    pub(super) fn new(options: UpstreamOptions, counters: Arc<Counters>) -> Self {
        Self { options, counters }
    }

    /// The gauges of all endpoints appear, or go.
    pub(super) fn show(&self, shown: bool) {
        let group = &self.options.group;
        for (index, endpoint) in self.options.servers.iter().enumerate() {
            let sign = if shown { 1 } else { -1 };
            let up = if group.is_up(index) { sign } else { 0 };
            self.counters.endpoints_up.shift(&self.options.name, endpoint, sign, up);
        }
    }

    pub(super) fn retried(&self) {
        self.counters.upstream_retries.inc();
    }

    /// A response head came.
    pub(super) fn succeeded(&self, index: usize) {
        if let Some(change) = self.options.group.succeeded(index, Instant::now) {
            self.tell(index, change);
        }
    }

    /// None came, and that is the endpoint's fault.
    pub(super) fn failed(&self, index: usize) {
        if let Some(change) = self.options.group.failed(index, Instant::now()) {
            self.tell(index, change);
        }
    }

    pub(super) fn checked(&self, index: usize, healthy: bool, now: Instant) {
        if let Some(change) = self.options.group.checked(index, healthy, now) {
            self.tell(index, change);
        }
    }

    fn tell(&self, index: usize, change: Change) {
        let Some(endpoint) = self.options.servers.get(index) else { return };
        let upstream = self.options.name.as_str();
        let by = if change.is_up() { 1 } else { -1 };
        self.counters.endpoints_up.shift(upstream, endpoint, 0, by);
        match change {
            Change::Ejected(failures, span) => {
                tracing::warn!(upstream, %endpoint, failures, seconds = span.as_secs_f64(), "endpoint ejected: it failed several times in a row");
            }
            Change::Returned => tracing::info!(upstream, %endpoint, "endpoint is back"),
            Change::Unhealthy => {
                tracing::warn!(upstream, %endpoint, "endpoint out of service: its health checks fail")
            }
            Change::Healthy => {
                tracing::info!(upstream, %endpoint, "endpoint back in service: its health checks pass")
            }
        }
    }
}
