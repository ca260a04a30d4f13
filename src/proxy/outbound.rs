//! The request as the app will see it: forwarding headers, names, framing; and sending it.
//!
//! Runs after hop-by-hop removal, so that no `Connection` line can take away what is added here. Tests: `tests/it/hop_headers.rs`,
//! `reserved_headers.rs`.

use super::Proxy;
use super::body::RequestBody;
use super::error::ProxyError;
use super::options::{RouteOptions, UnderscoreHeaders};
use super::trace::Trace;
use crate::headers::client::ClientAddr;
use crate::headers::forwarded::{self, Trust};
use crate::headers::hop::Hop;
use crate::headers::names::{X_FORWARDED_PROTO, X_REQUEST_ID};
use crate::headers::reserved::{UnderscorePolicy, apply_underscore};
use crate::headers::trace::{clean_trace_context, take_request_id};
use crate::proxy::BodyError;
use crate::server::Peer;
use crate::session::sid::Sid;
use crate::upstream::{Answer, Progress, UpstreamError, UpstreamErrorKind};
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use std::cell::Cell;
use std::rc::Rc;
use tokio::time::{Instant, timeout_at};

/// What was received, as far as it is needed again when the response is there.
pub(super) struct Received {
    /// The request is secure (contract §6).
    pub(super) secure: bool,
    /// `X-Forwarded-Proto` as it came, for the log line of a withheld cookie.
    forwarded_proto: Option<HeaderValue>,
}

/// A request that was answered.
pub(super) struct Sent {
    pub(super) answer: Answer<RequestBody>,
    pub(super) progress: Rc<Progress>,
    /// When the whole response must have come: `timeouts.request`.
    pub(super) deadline: Option<Instant>,
}

/// Request ids: unique, not secret. 64 random bits of the worker and a mixed counter.
pub(super) struct RequestIds {
    worker: u64,
    next: Cell<u64>,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        let mut seed = [0_u8; 16];
        // Without randomness ids repeat across workers, which a log can live with.
        let _ = getrandom::fill(&mut seed);
        let (worker, first) = seed.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        Self { worker: number(worker), next: Cell::new(number(first)) }
    }

    pub(super) fn next(&self) -> HeaderValue {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let count = self.next.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.next.set(count);
        let mixed = (count ^ (count >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mut text = [0_u8; 32];
        for (index, digit) in text.iter_mut().enumerate() {
            let word = if index < 16 { self.worker } else { mixed };
            *digit = HEX[usize::try_from(word >> (60 - 4 * (index % 16)) & 15).unwrap_or(0)];
        }
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }
}

impl Received {
    /// The one line that answers "why is there no cookie?".
    pub(super) fn log_withheld(&self, proxy: Option<bool>, trust: &Trust, peer: &Peer, request_id: &str) {
        let peer_ip = peer.ip.map_or_else(|| "unix socket".to_owned(), |ip| ip.to_string());
        let header =
            self.forwarded_proto.as_ref().map_or("absent", |value| value.to_str().unwrap_or("unreadable"));
        let rule = match proxy {
            Some(false) => {
                "session.proxy = false: only TLS that ends here counts, and this connection has none"
            }
            Some(true) => "session.proxy = true: X-Forwarded-Proto must begin with https",
            None if trust.trusts_peer(peer.ip) => {
                "the peer is trusted, but X-Forwarded-Proto does not begin with exactly https"
            }
            None => {
                "the connection has no TLS, and the peer is not in server.trust_proxy, so X-Forwarded-Proto is not believed"
            }
        };
        tracing::warn!(
            request_id, peer = %peer_ip, x_forwarded_proto = header, rule,
            "session cookie not set: it is `secure` and this request is not"
        );
    }
}

impl Proxy {
    /// Trust decides who the client is; `X-Forwarded-*`, `X-Request-Id` and `traceparent` are set accordingly.
    pub(super) fn settle_forwarding(
        &self,
        headers: &mut HeaderMap,
        peer: &Peer,
        trace: &mut Trace,
    ) -> Received {
        let client = self.options.trust.resolve(peer.ip, peer.tls, headers);
        let proxy = self.options.session.as_ref().and_then(|session| session.proxy);
        let secure = forwarded::session_secure(proxy, peer.tls, &client, headers);
        let forwarded_proto = if secure { None } else { headers.get(X_FORWARDED_PROTO).cloned() };
        forwarded::apply(headers, &client, &peer.forwarded, self.options.forwarded);
        trace.request_id = take_request_id(headers, client.peer_trusted).unwrap_or_else(|| {
            let id = self.ids.next();
            headers.insert(X_REQUEST_ID, id.clone());
            id
        });
        clean_trace_context(headers);
        if let ClientAddr::Forwarded(item) = &client.addr {
            let named = std::str::from_utf8(item.as_bytes()).ok().and_then(|text| text.parse().ok());
            trace.client = named.or(peer.ip);
        }
        Received { secure, forwarded_proto }
    }

    /// Strips every reserved name, then deals with names that hold an underscore.
    pub(super) fn settle_names(&self, headers: &mut HeaderMap, trace: &Trace) -> Result<(), ProxyError> {
        let stripped = self.reserved.strip(headers);
        self.reserved.strip_trailer_names(headers);
        if stripped > 0 {
            tracing::debug!(
                request_id = trace.request_id(),
                stripped,
                "reserved headers from the client removed"
            );
        }
        let policy = match self.options.underscore_headers {
            UnderscoreHeaders::Drop => UnderscorePolicy::Drop,
            UnderscoreHeaders::Pass => UnderscorePolicy::Pass,
            UnderscoreHeaders::Reject => UnderscorePolicy::Reject,
        };
        apply_underscore(headers, policy).map(drop).map_err(|_| ProxyError::Underscore)
    }

    /// Sends the request and waits for the response head. `sid`: of the session that the store has, for sticky balancing.
    pub(super) async fn send(
        &self,
        route: &RouteOptions,
        head: http::request::Parts,
        body: Incoming,
        hop: &Hop,
        sid: Option<&Sid>,
    ) -> Result<Sent, ProxyError> {
        let (body, progress, failure) = if body.is_end_stream() {
            (RequestBody::default(), Rc::clone(&self.no_body), None)
        } else {
            check_announced_length(&head.headers, route.max_request_body)?;
            let progress = Progress::new(false);
            let gap = route.timeouts.request_body;
            let failure = Rc::new(Cell::new(None));
            let (moved, failed) = (Rc::clone(&progress), Rc::clone(&failure));
            (
                RequestBody::new(body, route.max_request_body, gap, moved, failed, Rc::clone(&self.reserved)),
                progress,
                Some(failure),
            )
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = origin_form(&head.uri);
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = head.headers;
        let framed = request.body().is_end_stream() || request.headers().contains_key(CONTENT_LENGTH);
        let headers = request.headers_mut();
        if !framed {
            // hyper would send a GET or HEAD without a length as one without a body.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(protocol) = &hop.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        } else if hop.te_trailers {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let affinity = sid.map(|sid| sid.as_str().as_bytes());
        let upstream = &self.upstreams[route.upstream];
        let deadline = route.timeouts.request.map(|limit| Instant::now() + limit);
        let sent = match deadline {
            None => upstream.send(request, affinity, &progress, &route.timeouts).await,
            // Boxed, so that requests without a deadline have no room for it.
            Some(deadline) => {
                let sending = upstream.send(request, affinity, &progress, &route.timeouts);
                let sent = Box::pin(timeout_at(deadline, sending)).await;
                sent.unwrap_or_else(|_| Err(UpstreamError::request_timeout()))
            }
        };
        match sent {
            Ok(answer) => Ok(Sent { answer, progress, deadline }),
            Err(error) => {
                // A request body that failed takes the upstream exchange with it: say what really happened.
                if let Some(failure) = failure.and_then(|failure| failure.get()) {
                    return Err(ProxyError::Request(failure));
                }
                if error.kind != UpstreamErrorKind::RequestBody {
                    self.counters.upstream_errors.inc(&self.names[route.upstream], error.kind);
                    return Err(ProxyError::Upstream(error));
                }
                Err(ProxyError::Request(BodyError::RequestBroken))
            }
        }
    }
}

/// Did the app agree to the very protocol that was asked for?
pub(super) fn is_agreed(asked: &Hop, agreed: Option<&HeaderValue>) -> bool {
    match (&asked.upgrade, agreed) {
        (Some(asked), Some(agreed)) => asked.as_bytes().eq_ignore_ascii_case(agreed.as_bytes()),
        _ => false,
    }
}

/// Puts the hop-by-hop headers of a 101 back.
pub(super) fn announce_upgrade(headers: &mut HeaderMap, protocol: Option<HeaderValue>) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
    }
}

/// Path and query only: the authority is in `Host`.
fn origin_form(uri: &Uri) -> Uri {
    Uri::from(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// A body that says up front that it is too large is refused before the app hears of it.
fn check_announced_length(headers: &HeaderMap, limit: Option<u64>) -> Result<(), ProxyError> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    match (length, limit) {
        (Some(length), Some(limit)) if length > limit => Err(ProxyError::Request(BodyError::RequestTooLarge)),
        _ => Ok(()),
    }
}
