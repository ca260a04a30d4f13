//! What is remembered of a request until its last byte: the access log's line and the counters.
//!
//! Written once, when the response body has ended or was dropped, so that a client that left is seen too.

use crate::session::Millis;
use crate::session::sid::Sid;
use crate::telemetry::access::{AccessLine, AccessLog};
use crate::telemetry::counters::Counters;
use http::{HeaderValue, Method, Uri, Version};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// One request's record.
pub(super) struct Trace {
    pub(super) log: Rc<AccessLog>,
    pub(super) counters: Arc<Counters>,
    pub(super) started: Instant,
    pub(super) time: Millis,
    pub(super) client: Option<IpAddr>,
    pub(super) method: Method,
    pub(super) host: Option<HeaderValue>,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) tls: bool,
    pub(super) status: u16,
    pub(super) upstream: Option<Rc<str>>,
    pub(super) session: Option<Sid>,
    pub(super) outcome: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) request_id: HeaderValue,
    pub(super) bytes: u64,
    pub(super) ended: bool,
}

impl Trace {
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(super) fn ended(&mut self) {
        self.ended = true;
    }

    pub(super) fn cut_short(&mut self, reason: &'static str) {
        self.reason = Some(reason);
        self.ended = true;
    }

    /// The request id as text.
    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or("")
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.counters.response(self.status);
        self.counters.response_bytes.add(self.bytes);
        if !self.log.is_on() {
            return;
        }
        if !self.ended && self.reason.is_none() {
            self.reason = Some("client_left");
        }
        let fingerprint = self.session.as_ref().map(Sid::fingerprint);
        self.log.write(&AccessLine {
            time: self.time,
            client: self.client,
            method: &self.method,
            host: self.host.as_ref().map_or(&b""[..], HeaderValue::as_bytes),
            path: self.uri.path_and_query().map_or("", |path| path.as_str()),
            status: self.status,
            bytes: self.bytes,
            duration: self.started.elapsed(),
            upstream: self.upstream.as_deref(),
            session: fingerprint.as_deref(),
            outcome: self.outcome,
            reason: self.reason,
            request_id: self.request_id(),
            version: self.version,
            tls: self.tls,
        });
    }
}
