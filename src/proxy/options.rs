//! What the proxy needs to know, filled in by `config`.

use crate::headers::forwarded::Trust;
use crate::session::guard::FieldPath;
use crate::session::lifecycle::Policy;
use crate::session::signature::KeyRing;
use crate::upstream::{ExchangeTimeouts, UpstreamOptions};

/// Everything `proxy` needs.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// `server.trust_proxy`
    pub trust: Trust,
    /// `server.underscore_headers`
    pub underscore_headers: UnderscoreHeaders,
    /// Some listener asks clients for a certificate: what is said of it is the sidecar's to say, on every listener.
    pub client_certificates: bool,
    /// `server.forwarded`: also send RFC 7239 `Forwarded`; default false.
    pub forwarded: bool,
    /// `[session]`; `None` when the file has no `[session]` and no route has sessions on.
    pub session: Option<SessionOptions>,
    /// `[upstream.*]`
    pub upstreams: Vec<UpstreamOptions>,
    /// `[[route]]` in the order of the file.
    pub routes: Vec<RouteOptions>,
    /// `timeouts.keep_alive` of upstream connections is fixed at 4 s, below Node's 5 s.
    pub session_header_limit: usize,
}

/// `[session]` as the proxy needs it.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The cookie's `name`, then `accept_names`: read as well, and replaced.
    pub names: Vec<String>,
    /// `secrets`: the first signs, all verify.
    pub keys: KeyRing,
    /// The pure rules' part: resave, rolling, cookie attributes, ttl, …
    pub policy: Policy,
    /// `proxy`: unset, true, false (contract §6).
    pub proxy: Option<bool>,
    /// `forward_cookie`
    pub forward_cookie: bool,
    /// `unreadable`
    pub unreadable: Unreadable,
    /// `headers.prefix`, default `X-Session`
    pub header_prefix: String,
    /// `headers.encoding`
    pub encoding: Encoding,
    /// `headers.signing_key`
    pub signing_key: Option<Secret>,
}

impl SessionOptions {
    /// The name under which cookies are set.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// Bytes that never appear in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `headers.encoding`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Encoding {
    Json,
    Base64url,
}

/// `session.unreadable`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unreadable {
    Anonymous,
    Error,
}

/// `server.underscore_headers`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum UnderscoreHeaders {
    Drop,
    Pass,
    Reject,
}

/// `session.store_unavailable`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum StoreUnavailable {
    Error,
    Anonymous,
}

/// `session.invalid_update`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum InvalidUpdate {
    Error,
    Ignore,
}

/// `route.session`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SessionMode {
    On,
    ReadOnly,
    Off,
}

/// One `[[route]]`.
#[derive(Debug, Clone)]
pub struct RouteOptions {
    /// `host`: exact, or `*.example.com`; `None` matches every host.
    pub host: Option<String>,
    /// `path`: a prefix that ends at a segment boundary; begins with `/`.
    pub path: String,
    /// Index into `upstreams`.
    pub upstream: usize,
    /// `session`
    pub session: SessionMode,
    /// `require`
    pub require: Vec<FieldPath>,
    /// `otherwise`
    pub otherwise: Otherwise,
    /// `claims`: header name and the field it shows.
    pub claims: Vec<(http::HeaderName, FieldPath)>,
    /// `fields`: only these are forwarded in `X-Session`; empty = all.
    pub fields: Vec<FieldPath>,
    /// `timeouts`, overrides applied.
    pub timeouts: ExchangeTimeouts,
    /// `limits.request_body`, bytes; `None` is unlimited.
    pub max_request_body: Option<u64>,
    /// `store_unavailable`, override applied.
    pub store_unavailable: StoreUnavailable,
    /// `invalid_update`, override applied.
    pub invalid_update: InvalidUpdate,
}

/// What a route answers when `require` is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    /// A 303 to this location; `{uri}` is the request's path and query, percent-encoded.
    Redirect(String),
    /// A bare status, 400 to 599.
    Status(u16),
}
