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
    /// TLS with the endpoint failed: its certificate, or ours. The request never left.
    Tls,
    /// `max_connections` are in use and none became free within `timeouts.connect`. The request never left.
    Busy,
    /// `timeouts.request` passed before there was a response head.
    RequestTimeout,
    /// `timeouts.response_head` passed.
    ResponseHeadTimeout,
    /// The connection broke before the response head was complete.
    Reset,
    /// What came back is no HTTP response.
    Protocol,
    /// The request's own body failed: the client left, was too slow, or sent too much.
    RequestBody,
}

impl UpstreamErrorKind {
    /// Does it speak against the endpoint? What came too late, or was the client's fault, does not.
    pub(super) fn blames_endpoint(self) -> bool {
        match self {
            Self::Connect | Self::ConnectTimeout | Self::Tls | Self::Reset | Self::Protocol => true,
            Self::Busy | Self::RequestTimeout | Self::ResponseHeadTimeout | Self::RequestBody => false,
        }
    }

    /// Known at once, so that all other endpoints can be asked without keeping the client waiting.
    pub(super) fn is_quick(self) -> bool {
        !matches!(self, Self::ConnectTimeout | Self::Busy | Self::ResponseHeadTimeout)
    }

    /// A stable word for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connect => "upstream_connect",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::Tls => "upstream_tls",
            Self::Busy => "upstream_busy",
            Self::RequestTimeout => "request_timeout",
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

    pub(super) fn tls(detail: impl fmt::Display) -> Self {
        Self { kind: UpstreamErrorKind::Tls, detail: detail.to_string() }
    }

    pub(super) fn busy(detail: impl fmt::Display) -> Self {
        Self { kind: UpstreamErrorKind::Busy, detail: detail.to_string() }
    }

    /// `timeouts.request` has passed, which the caller watches.
    pub fn request_timeout() -> Self {
        let detail = "no response head within timeouts.request".to_owned();
        Self { kind: UpstreamErrorKind::RequestTimeout, detail }
    }

    pub(super) fn response_head_timeout() -> Self {
        let detail = "no response head within timeouts.response_head".to_owned();
        Self { kind: UpstreamErrorKind::ResponseHeadTimeout, detail }
    }

    pub(super) fn from_exchange(error: &hyper::Error) -> Self {
        let kind = if error.is_user() {
            UpstreamErrorKind::RequestBody
        } else if error.is_parse() || http2_cause(error).is_some_and(h2::Error::is_library) {
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

/// Did the app say that it never looked at the request (RFC 9113 §8.7: a refused stream, or one above the last of a GOAWAY)?
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    http2_cause(error).is_some_and(|cause| {
        cause.is_remote() && (cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

fn http2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}
