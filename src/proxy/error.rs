//! Why a request got no answer from the app, and what the client gets instead.
//!
//! The client learns a status, a short text and the request id; the cause is logged once, where the answer is made.

use super::body::{BodyError, ResponseBody};
use crate::headers::framing::{self, FramingError};
use crate::session::wire::Invalid;
use crate::store::StoreError;
use crate::upstream::{UpstreamError, UpstreamErrorKind};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use http::{HeaderValue, Response, StatusCode};

/// One failed request.
#[derive(Debug)]
pub(super) enum ProxyError {
    /// The request is malformed or ambiguous.
    Framing(FramingError),
    /// A header name with `_`, and `server.underscore_headers = "reject"`.
    Underscore,
    /// The path has two readings that lead to different routes, or leads above the root.
    Path,
    /// No route for this host and path.
    NoRoute,
    /// The request body.
    Request(BodyError),
    /// The app.
    Upstream(UpstreamError),
    /// Where the app's response ends is open to interpretation.
    ResponseFraming(FramingError),
    /// The app switched protocols though nobody asked.
    UnaskedUpgrade,
    /// The app's update is invalid.
    Update(Invalid),
    /// The store.
    Store(StoreError),
    /// The store, after a session had got its new sid: the cookie for it, which goes out with the 503.
    HalfRegenerated(StoreError, Option<HeaderValue>),
    /// The stored session cannot be read, and `unreadable = "error"`.
    Unreadable,
    /// `X-Session` would be larger than `limits.session_header`: its size, and the limit.
    SessionHeader(usize, usize),
}

/// Who is to look into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    Client,
    App,
    Store,
    Config,
}

impl ProxyError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Framing(error) => error.status(),
            Self::Underscore | Self::Path | Self::Request(BodyError::RequestBroken) => {
                StatusCode::BAD_REQUEST
            }
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Request(BodyError::RequestTooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Request(BodyError::RequestStalled) => StatusCode::REQUEST_TIMEOUT,
            Self::Request(
                BodyError::ResponseStalled
                | BodyError::TookTooLong
                | BodyError::ResponseBroken
                | BodyError::InvalidTrailer
                | BodyError::TrailerNotStored,
            )
            | Self::ResponseFraming(_)
            | Self::UnaskedUpgrade
            | Self::Update(_) => StatusCode::BAD_GATEWAY,
            Self::Upstream(error) => match error.kind {
                UpstreamErrorKind::ResponseHeadTimeout
                | UpstreamErrorKind::RequestTimeout
                | UpstreamErrorKind::ConnectTimeout => StatusCode::GATEWAY_TIMEOUT,
                UpstreamErrorKind::Connect
                | UpstreamErrorKind::Tls
                | UpstreamErrorKind::Reset
                | UpstreamErrorKind::Protocol => StatusCode::BAD_GATEWAY,
                UpstreamErrorKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
                UpstreamErrorKind::RequestBody => StatusCode::BAD_REQUEST,
            },
            Self::Store(_) | Self::HalfRegenerated(..) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreadable | Self::SessionHeader(..) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A stable word for logs and metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Framing(error) => error.reason(),
            Self::Underscore => "underscore_header",
            Self::Path => "ambiguous_path",
            Self::NoRoute => "no_route",
            Self::Request(error) => error.reason(),
            Self::Upstream(error) => error.kind.reason(),
            Self::ResponseFraming(_) => UpstreamErrorKind::Protocol.reason(),
            Self::UnaskedUpgrade => "unasked_upgrade",
            Self::Update(_) => "invalid_update",
            Self::Store(_) | Self::HalfRegenerated(..) => "store_unavailable",
            Self::Unreadable => "session_unreadable",
            Self::SessionHeader(..) => "session_header_too_large",
        }
    }

    pub(super) fn blame(&self) -> Blame {
        match self {
            Self::Framing(_) | Self::Underscore | Self::Path | Self::NoRoute | Self::Request(_) => {
                Blame::Client
            }
            Self::Upstream(_) | Self::ResponseFraming(_) | Self::UnaskedUpgrade | Self::Update(_) => {
                Blame::App
            }
            Self::Store(_) | Self::HalfRegenerated(..) | Self::Unreadable => Blame::Store,
            Self::SessionHeader(..) => Blame::Config,
        }
    }

    /// Writes the one log line. Faults of strangers are not worth a warning each: the access log has their reason.
    pub(super) fn log(&self, request_id: &str) {
        let reason = self.reason();
        match self {
            Self::Upstream(error) => {
                tracing::warn!(request_id, reason, error = %error.detail, "no answer from the app")
            }
            Self::Update(invalid) => {
                tracing::warn!(request_id, reason, error = %invalid, "the app's session update is invalid; nothing was changed")
            }
            Self::Store(error) | Self::HalfRegenerated(error, _) => {
                tracing::warn!(request_id, reason, %error, "the session store did not answer")
            }
            Self::SessionHeader(size, limit) => tracing::error!(
                request_id,
                reason,
                size,
                limit,
                "the session is larger than limits.session_header; forward less with `fields` on the route, or raise the limit and the app server's"
            ),
            Self::Unreadable => tracing::error!(request_id, reason, "the stored session cannot be read"),
            Self::ResponseFraming(error) => {
                tracing::warn!(request_id, reason, %error, "the app's response is framed in a way that can be misread");
            }
            Self::UnaskedUpgrade => tracing::warn!(
                request_id,
                reason,
                "the app answered 101 to a request that asked for no upgrade"
            ),
            Self::Framing(_) | Self::Underscore | Self::Path | Self::NoRoute | Self::Request(_) => {
                tracing::debug!(request_id, reason, blame = ?self.blame(), "request refused");
            }
        }
    }

    /// What the client gets: opaque.
    pub(super) fn response(&self, request_id: &str) -> Response<ResponseBody> {
        let status = self.status();
        let mut response = plain(status, request_id);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if let Self::HalfRegenerated(_, Some(cookie)) = self {
            response.headers_mut().insert(SET_COOKIE, cookie.clone());
        }
        if matches!(self, Self::Framing(_)) {
            // Who frames one request badly is not asked for the next one. (hyper takes it off for HTTP/2.)
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(framing::ALLOW));
        }
        response
    }
}

/// A short plain answer of the proxy's own.
pub(super) fn plain(status: StatusCode, request_id: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::text(format!("{status}\nrequest id: {request_id}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
