//! `[session]` and `[session.headers]`. Tests: `tests/it/config.rs`.

use super::cookie;
use super::limits::Limits;
use super::listener::Listeners;
use super::secret;
use super::server::Server;
use super::store::Store;
use super::walk::Table;
use crate::headers::names::fold;
use crate::proxy::options::{Encoding, InvalidUpdate, Secret, SessionOptions, StoreUnavailable, Unreadable};
use crate::session::Millis;
use crate::session::guard::FieldPath;
use crate::session::lifecycle::{CookieOptions, Policy, Unset};
use crate::session::signature::KeyRing;
use std::time::Duration;

/// `store_unavailable`, here and in routes.
pub(super) const STORE_UNAVAILABLE: [(&str, StoreUnavailable); 2] =
    [("error", StoreUnavailable::Error), ("anonymous", StoreUnavailable::Anonymous)];

/// `invalid_update`, here and in routes.
pub(super) const INVALID_UPDATE: [(&str, InvalidUpdate); 2] =
    [("error", InvalidUpdate::Error), ("ignore", InvalidUpdate::Ignore)];

/// Headers that the proxy or HTTP itself gives a meaning: a prefix must not swallow them, a claim not be them.
pub(super) const STANDARD_HEADERS: &[&str] = &[
    "accept",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// `[session]` as read, before the store has had its say.
pub(super) struct Session {
    /// `secrets` or `secrets_file` is there (good or not).
    pub(super) secrets_given: bool,
    pub(super) store_unavailable: StoreUnavailable,
    pub(super) invalid_update: InvalidUpdate,
    pub(super) header_prefix: String,
    names: Vec<String>,
    secrets: Vec<Secret>,
    resave: bool,
    save_uninitialized: bool,
    rolling: bool,
    unset: Unset,
    clear_cookie_on_destroy: bool,
    cookie: CookieOptions,
    regenerate_on: Vec<FieldPath>,
    absolute_timeout: Option<Millis>,
    proxy: Option<bool>,
    forward_cookie: bool,
    unreadable: Unreadable,
    encoding: Encoding,
    signing_key: Option<Secret>,
    max_payload: usize,
}

/// Reads `[session]`.
pub(super) fn session(table: &Table<'_>, limits: &Limits, server: &Server, listeners: &Listeners) -> Session {
    let secrets_given = table.get("secrets").is_some() || table.get("secrets_file").is_some();
    let proxy = table.get("proxy");
    if let Some(item) = proxy.as_ref().filter(|item| item.value().as_bool() == Some(true)) {
        item.warning(
            "X-Forwarded-Proto is believed from anyone",
            "leave `proxy` out and name your proxies in server.trust_proxy",
        );
    }
    let proxy = proxy.and_then(|item| item.flag());
    // Who may call a plain request secure: a trusted proxy, or with `proxy = true` anyone.
    let vouched = (server.trusts_anyone && proxy != Some(false)) || proxy == Some(true);
    let (names, cookie) = cookie::cookie(table, listeners, vouched);
    let headers = table.table("headers");
    let unreadable = [("anonymous", Unreadable::Anonymous), ("error", Unreadable::Error)];
    let encodings = [("json", Encoding::Json), ("base64url", Encoding::Base64url)];
    let second = Duration::from_secs(1);
    Session {
        secrets_given,
        secrets: secret::several(table, "secrets", "secrets_file"),
        store_unavailable: table
            .choice("store_unavailable", &STORE_UNAVAILABLE)
            .unwrap_or(StoreUnavailable::Error),
        invalid_update: table.choice("invalid_update", &INVALID_UPDATE).unwrap_or(InvalidUpdate::Error),
        names,
        cookie,
        proxy,
        resave: table.flag("resave").unwrap_or(false),
        save_uninitialized: table.flag("save_uninitialized").unwrap_or(false),
        rolling: table.flag("rolling").unwrap_or(false),
        unset: table
            .choice("unset", &[("keep", Unset::Keep), ("destroy", Unset::Destroy)])
            .unwrap_or(Unset::Keep),
        clear_cookie_on_destroy: table.flag("clear_cookie_on_destroy").unwrap_or(true),
        regenerate_on: table.fields("regenerate_on"),
        absolute_timeout: table.duration("absolute_timeout", second).map(millis),
        forward_cookie: table.flag("forward_cookie").unwrap_or(false),
        unreadable: table.choice("unreadable", &unreadable).unwrap_or(Unreadable::Anonymous),
        header_prefix: header_prefix(&headers),
        encoding: headers.choice("encoding", &encodings).unwrap_or(Encoding::Json),
        signing_key: secret::one(&headers, "signing_key", "signing_key_file"),
        max_payload: limits.session,
    }
}

impl Session {
    /// The options of the proxy; `None` when a problem was reported.
    pub(super) fn finish(self, store: &Store) -> Option<SessionOptions> {
        Some(SessionOptions {
            names: self.names,
            keys: KeyRing::new(self.secrets.into_iter().map(|secret| secret.0).collect())?,
            policy: Policy {
                resave: self.resave,
                save_uninitialized: self.save_uninitialized,
                rolling: self.rolling,
                unset: self.unset,
                clear_cookie_on_destroy: self.clear_cookie_on_destroy,
                cookie: self.cookie,
                ttl: store.ttl,
                touch_after: store.touch_after,
                max_payload: self.max_payload,
                store_keys: store.own_keys.clone(),
                regenerate_on: self.regenerate_on,
                absolute_timeout: self.absolute_timeout,
            },
            proxy: self.proxy,
            forward_cookie: self.forward_cookie,
            unreadable: self.unreadable,
            header_prefix: self.header_prefix,
            encoding: self.encoding,
            signing_key: self.signing_key,
        })
    }
}

fn header_prefix(table: &Table<'_>) -> String {
    let default = || "X-Session".to_owned();
    let Some(item) = table.get("prefix") else { return default() };
    let Some(text) = item.text() else { return default() };
    if !is_token(&text.value) || !text.value.bytes().any(|b| b.is_ascii_alphanumeric()) {
        item.problem(format!("`{}` is not a header name", text.shown), "write something like \"X-Session\"");
        return default();
    }
    let (own, below) = (fold(text.value.as_bytes()), fold(format!("{}-", text.value).as_bytes()));
    let swallows = |name: &&&str| name.as_bytes() == own || name.as_bytes().starts_with(&below);
    let swallowed = STANDARD_HEADERS.iter().find(swallows);
    if let Some(swallowed) = swallowed {
        let what = format!("a prefix that would take the header `{swallowed}` away");
        item.problem(what, "write something like \"X-Session\"");
        return default();
    }
    text.value
}

/// RFC 9110 `token`, which RFC 6265 also asks of cookie names.
pub(super) fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

/// Durations of this configuration are at most a hundred years, which fits.
pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
