//! What can go wrong between the proxy and the app.

use std::fmt;

/// One failed exchange.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("upstream: {kind}: {detail}")]
pub struct UpstreamError {
    /// By what the caller answers.
    pub kind: UpstreamErrorKind,
    /// The cause in words, for the log only.
    pub detail: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamErrorKind {
    /// No connection: refused, unreachable, unknown host. The request never left.
    Connect,
    /// `timeouts.connect` passed. The request never left.
    ConnectTimeout,
    /// `timeouts.response_head` passed.
    ResponseHeadTimeout,
    /// The connection broke before the response head was complete.
    Reset,
    /// What came back is no HTTP/1.1 response.
    Protocol,
    /// The request's own body failed: the client left, was too slow, or sent too much.
    RequestBody,
}

impl UpstreamErrorKind {
    /// A stable word for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connect => "upstream_connect",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::ResponseHeadTimeout => "upstream_response_timeout",
            Self::Reset => "upstream_reset",
            Self::Protocol => "upstream_protocol",
            Self::RequestBody => "request_body",
        }
    }
}

impl fmt::Display for UpstreamErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl UpstreamError {
    pub(super) fn connect(detail: impl fmt::Display) -> Self {
        Self { kind: UpstreamErrorKind::Connect, detail: detail.to_string() }
    }

    pub(super) fn connect_timeout(detail: impl fmt::Display) -> Self {
        Self { kind: UpstreamErrorKind::ConnectTimeout, detail: detail.to_string() }
    }

    pub(super) fn response_head_timeout() -> Self {
        let detail = "no response head within timeouts.response_head".to_owned();
        Self { kind: UpstreamErrorKind::ResponseHeadTimeout, detail }
    }

    pub(super) fn from_exchange(error: &hyper::Error) -> Self {
        let kind = if error.is_user() {
            UpstreamErrorKind::RequestBody
        } else if error.is_parse() {
            UpstreamErrorKind::Protocol
        } else {
            UpstreamErrorKind::Reset
        };
        let mut detail = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            detail.push_str(": ");
            detail.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { kind, detail }
    }
}
