//! The session half of a request: from the cookie to what the app sees, and from what the app says to what is stored and set.
//!
//! Decisions are `session`'s, writes are [`super::commit`]'s; this file reads and sets headers. Tests: `tests/it/session_*.rs`.

use super::commit::{Base, CommitError, Committer, Outcome};
use super::error::ProxyError;
use super::options::{Encoding, InvalidUpdate, SessionOptions, StoreUnavailable, Unreadable};
use crate::session::Millis;
use crate::session::cookie::{self, Presented, ResolvedAttributes, Stripped};
use crate::session::guard::{FieldPath, claim_value, is_uri_component_byte, percent_encode, project};
use crate::session::json::Json;
use crate::session::lifecycle::{self, CookieStep, Facts, Live, Plan};
use crate::session::record::{CookieAttributes, Payload};
use crate::session::sid::Sid;
use crate::session::wire::{self, Invalid, Update};
use crate::store::error::{Kind, Op};
use crate::store::{Loaded, Lookup, StoreError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::Mac;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type HmacSha256 = hmac::Hmac<sha2::Sha256>;

/// One worker's session rules.
pub(super) struct Sessions {
    options: SessionOptions,
    names: Names,
    /// What a save stores, by whether the request is secure.
    attributes: [Arc<CookieAttributes>; 2],
    header_limit: usize,
    pub(super) committer: Rc<Committer>,
}

/// The header names under the configured prefix.
struct Names {
    session: HeaderName,
    id: HeaderName,
    new: HeaderName,
    status: HeaderName,
    expires: HeaderName,
    signature: HeaderName,
    update: HeaderName,
    control: HeaderName,
}

/// The session of one request.
pub(super) struct Opened {
    pub(super) base: Base,
    status: Status,
    client_has_cookie: bool,
    secure: bool,
    /// The route, the store and the document allow writing.
    writable: bool,
}

/// `X-Session-Status`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Live,
    None,
    Invalid,
    Expired,
    Unavailable,
}

/// What a request is asked with, beside its headers.
pub(super) struct Ask {
    pub(super) secure: bool,
    pub(super) writable: bool,
    pub(super) store_unavailable: StoreUnavailable,
    pub(super) now: Millis,
}

/// What a response did to the session.
pub(super) struct Closed {
    pub(super) base: Base,
    pub(super) outcome: Outcome,
    /// The cookie should have been set or cleared, but the request is not secure.
    pub(super) withheld: bool,
}

impl Sessions {
    /// # Errors
    /// A header prefix that makes no header names.
    pub(super) fn new(
        options: SessionOptions,
        header_limit: usize,
        committer: Rc<Committer>,
    ) -> Result<Self, String> {
        let names = Names::new(&options.header_prefix)?;
        let cookie = &options.policy.cookie;
        let attributes = [false, true].map(|secure| Arc::new(cookie::stored_attributes(cookie, secure)));
        Ok(Self { names, attributes, header_limit, committer, options })
    }

    pub(super) fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// A request outside `cookie.path` has no session at all: a plain prefix of the path as received, as in express-session.
    pub(super) fn covers(&self, path: &str) -> bool {
        path.starts_with(&self.options.policy.cookie.path)
    }

    /// Cookie to session. Reads the store only for a cookie that verified.
    pub(super) async fn open(&self, headers: &HeaderMap, ask: &Ask) -> Result<Opened, ProxyError> {
        let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let (sid, client_has_cookie) = match cookie::read(lines, &self.options.name, &self.options.keys) {
            Presented::Valid { sid, .. } => (sid, true),
            Presented::None => return self.fresh(Status::None, false, ask),
            Presented::Invalid { .. } => {
                self.committer.counters.cookies_forged.inc();
                return self.fresh(Status::Invalid, true, ask);
            }
        };
        match self.committer.store.load(&sid, ask.now).await {
            Ok(Lookup::Live(loaded)) if self.options.policy.outlived(&loaded.record, ask.now) => {
                self.fresh(Status::Expired, client_has_cookie, ask)
            }
            Ok(Lookup::Live(mut loaded)) => {
                self.committer.counters.sessions_loaded.inc();
                let hidden = &self.options.policy.store_keys;
                if !hidden.is_empty() {
                    loaded.record.payload = loaded.record.payload.without_keys(hidden);
                }
                let base = Base { sid, live: Some(loaded) };
                Ok(Opened {
                    base,
                    status: Status::Live,
                    client_has_cookie,
                    secure: ask.secure,
                    writable: ask.writable,
                })
            }
            Ok(Lookup::Absent) => self.fresh(Status::Expired, client_has_cookie, ask),
            Ok(Lookup::Unreadable(what)) => {
                self.committer.counters.sessions_unreadable.inc();
                tracing::error!(session = %sid, what, "stored session is unreadable; it is left as it is");
                match self.options.unreadable {
                    Unreadable::Error => Err(ProxyError::Unreadable),
                    Unreadable::Anonymous => self.read_only(client_has_cookie, ask),
                }
            }
            Err(error) => {
                self.committer.counters.store_errors.inc(error.op, error.kind);
                match ask.store_unavailable {
                    StoreUnavailable::Error => Err(ProxyError::Store(error)),
                    StoreUnavailable::Anonymous => {
                        tracing::warn!(session = %sid, %error, "session store unavailable; the app is asked with an empty session");
                        self.read_only(client_has_cookie, ask)
                    }
                }
            }
        }
    }

    fn fresh(&self, status: Status, client_has_cookie: bool, ask: &Ask) -> Result<Opened, ProxyError> {
        let base = Base { sid: new_sid()?, live: None };
        Ok(Opened { base, status, client_has_cookie, secure: ask.secure, writable: ask.writable })
    }

    /// An empty session that nothing is written for: we do not know what the real one is.
    fn read_only(&self, client_has_cookie: bool, ask: &Ask) -> Result<Opened, ProxyError> {
        Ok(Opened { writable: false, ..self.fresh(Status::Unavailable, client_has_cookie, ask)? })
    }

    /// Takes the session's cookies off the request and makes one Cookie line of several (RFC 9113 §8.2.3).
    pub(super) fn settle_cookies(&self, headers: &mut HeaderMap) {
        let name = (!self.options.forward_cookie).then_some(self.options.name.as_str());
        settle_cookies(headers, name);
    }

    /// Adds what the app sees.
    pub(super) fn inject(
        &self,
        opened: &Opened,
        fields: &[FieldPath],
        headers: &mut HeaderMap,
        now: Millis,
    ) -> Result<(), ProxyError> {
        let names = &self.names;
        let payload = self.shown_payload(opened, fields);
        if payload.len() > self.header_limit {
            return Err(ProxyError::SessionHeader(payload.len(), self.header_limit));
        }
        if let Some(key) = &self.options.signing_key {
            let seconds = now / 1000;
            if let Ok(mut mac) = <HmacSha256 as hmac::KeyInit>::new_from_slice(&key.0) {
                mac.update(format!("{seconds}.{}.", opened.base.sid.as_str()).as_bytes());
                mac.update(&payload);
                let tag: String =
                    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                insert_text(headers, &names.signature, &format!("t={seconds},v1={tag}"));
            }
        }
        if let Ok(mut value) = HeaderValue::from_maybe_shared(payload) {
            value.set_sensitive(true);
            headers.insert(names.session.clone(), value);
        }
        self.inject_sid(&opened.base.sid, headers);
        let new = if opened.base.live.is_some() { "false" } else { "true" };
        headers.insert(names.new.clone(), HeaderValue::from_static(new));
        headers.insert(names.status.clone(), HeaderValue::from_static(opened.status.word()));
        if let Some(expires) = self.shown_expiry(opened, now) {
            insert_text(headers, &names.expires, &crate::session::date::render_iso(expires));
        }
        Ok(())
    }

    fn shown_payload(&self, opened: &Opened, fields: &[FieldPath]) -> Bytes {
        let json = match &opened.base.live {
            None => Payload::empty().as_bytes().clone(),
            Some(loaded) if fields.is_empty() => loaded.record.payload.to_ascii(),
            Some(loaded) => Payload::from_json(&project(fields, &loaded.record.payload.to_json())).to_ascii(),
        };
        match self.options.encoding {
            Encoding::Json => json,
            Encoding::Base64url => Bytes::from(URL_SAFE_NO_PAD.encode(json)),
        }
    }

    fn inject_sid(&self, sid: &Sid, headers: &mut HeaderMap) {
        let text = sid.as_str();
        let value = if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            HeaderValue::from_str(text)
        } else {
            HeaderValue::try_from(percent_encode(text, |byte| byte.is_ascii_graphic()))
        };
        if let Ok(mut value) = value {
            value.set_sensitive(true);
            headers.insert(self.names.id.clone(), value);
        }
    }

    /// When the session ends if nothing but this request touches it (contract §2).
    fn shown_expiry(&self, opened: &Opened, now: Millis) -> Option<Millis> {
        let policy = &self.options.policy;
        match &opened.base.live {
            None => policy.cookie.max_age.map(|age| now.saturating_add(age)),
            Some(loaded) => {
                let touched = policy.touched_expiry(&loaded.record, now)?;
                let due = opened.writable && policy.touch_is_due(loaded.touched_at, now);
                Some(if due { touched } else { loaded.expires_at.unwrap_or(touched) })
            }
        }
    }

    /// Claims of a route: a header of its own for each field that is there.
    pub(super) fn inject_claims(
        &self,
        opened: &Opened,
        claims: &[(HeaderName, FieldPath)],
        headers: &mut HeaderMap,
    ) {
        let Some(data) = data_of(opened).filter(|_| !claims.is_empty()) else { return };
        for (name, path) in claims {
            if let Some(value) = claim_value(path, &data) {
                insert_text(headers, name, &value);
            }
        }
    }

    /// Takes the update off a response, commits it and sets the cookie: after this the head may go.
    pub(super) async fn close(
        &self,
        opened: Opened,
        invalid_update: InvalidUpdate,
        headers: &mut HeaderMap,
        now: Millis,
    ) -> Result<Closed, ProxyError> {
        let update = match self.take_update(headers) {
            Ok(update) => update,
            Err(invalid) => {
                self.committer.counters.updates_invalid.inc();
                self.refuse(invalid, invalid_update)?;
                None
            }
        };
        if !opened.writable {
            if update.is_some() {
                tracing::info!(session = %opened.base.sid, status = opened.status.word(), "update dropped: this session is read-only here");
            }
            return Ok(Closed { base: opened.base, outcome: Outcome::Unchanged, withheld: false });
        }
        let facts = opened.facts(now);
        let attributes = &self.attributes[usize::from(opened.secure)];
        let plan = match lifecycle::decide_response(&self.options.policy, attributes, facts, update.as_ref())
        {
            Ok(plan) => plan,
            Err(invalid) => {
                self.committer.counters.updates_invalid.inc();
                self.refuse(invalid, invalid_update)?;
                return Ok(Closed { base: opened.base, outcome: Outcome::Unchanged, withheld: false });
            }
        };
        let Plan { write, cookie } = plan;
        let client_has_cookie = opened.client_has_cookie;
        let committed = match self.committer.commit(opened.base.clone(), write, update, now).await {
            Ok(committed) => committed,
            Err(CommitError::Invalid(invalid)) => {
                self.committer.counters.updates_invalid.inc();
                self.refuse(invalid, invalid_update)?;
                return Ok(Closed { base: opened.base, outcome: Outcome::Unchanged, withheld: false });
            }
            Err(CommitError::Store(error)) => {
                self.committer.counters.store_errors.inc(error.op, error.kind);
                return Err(ProxyError::Store(error));
            }
        };
        let cookie = match committed.outcome {
            Outcome::Vanished if client_has_cookie => {
                lifecycle::clear_cookie(&self.options.policy, opened.secure)
            }
            Outcome::Vanished => CookieStep::Leave,
            _ => cookie,
        };
        let withheld = self.set_cookie(cookie, &committed.base.sid, opened.secure, headers);
        Ok(Closed { base: committed.base, outcome: committed.outcome, withheld })
    }

    fn refuse(&self, invalid: Invalid, policy: InvalidUpdate) -> Result<(), ProxyError> {
        match policy {
            InvalidUpdate::Error => Err(ProxyError::Update(invalid)),
            InvalidUpdate::Ignore => {
                tracing::warn!(reason = "invalid_update", error = %invalid, "the app's session update is invalid; ignored");
                Ok(())
            }
        }
    }

    /// The update of a response head, or of trailers. The headers stay; `reserved` strips them.
    pub(super) fn take_update(&self, headers: &HeaderMap) -> Result<Option<Update>, Invalid> {
        let policy = &self.options.policy;
        let limits = wire::Limits { max_bytes: policy.max_payload, store_keys: &policy.store_keys };
        let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let update = wire::parse_update(values(&self.names.update), values(&self.names.control), limits)?;
        if let Some(name) = update.as_ref().and_then(wire::name_express_cannot_hold) {
            warn_once(name);
        }
        Ok(update)
    }

    /// Does the response announce an update in its trailers?
    pub(super) fn announces_update(&self, headers: &HeaderMap) -> bool {
        headers.get_all(http::header::TRAILER).iter().any(|line| {
            line.as_bytes().split(|&byte| byte == b',').any(|name| {
                let name = name.trim_ascii();
                name.eq_ignore_ascii_case(self.names.update.as_str().as_bytes())
                    || name.eq_ignore_ascii_case(self.names.control.as_str().as_bytes())
            })
        })
    }

    /// Commits the update of a trailer.
    pub(super) async fn close_trailer(
        &self,
        opened: &Opened,
        update: Update,
        now: Millis,
    ) -> Result<(), TrailerFault> {
        let attributes = &self.attributes[usize::from(opened.secure)];
        let write = lifecycle::decide_trailer(&self.options.policy, attributes, opened.facts(now), &update)
            .map_err(TrailerFault::Invalid)?;
        match self.committer.commit(opened.base.clone(), write, Some(update), now).await {
            Ok(_) => Ok(()),
            Err(CommitError::Invalid(invalid)) => Err(TrailerFault::Invalid(invalid)),
            Err(CommitError::Store(error)) => Err(TrailerFault::Store(error)),
        }
    }

    /// Appends our Set-Cookie after the app's own. `true`: it was due, and withheld.
    fn set_cookie(&self, step: CookieStep, sid: &Sid, secure: bool, headers: &mut HeaderMap) -> bool {
        let attributes =
            || -> ResolvedAttributes<'_> { cookie::resolve(&self.options.policy.cookie, secure) };
        let value = match step {
            CookieStep::Leave => return false,
            CookieStep::Withheld => return true,
            CookieStep::Clear => cookie::render_clear_cookie(&self.options.name, &attributes()),
            CookieStep::Set { expires } => {
                cookie::render_set_cookie(&self.options.name, sid, &self.options.keys, &attributes(), expires)
            }
        };
        headers.append(SET_COOKIE, value);
        false
    }
}

pub(super) enum TrailerFault {
    Invalid(Invalid),
    Store(StoreError),
}

impl Opened {
    fn facts(&self, now: Millis) -> Facts<'_> {
        let live = self
            .base
            .live
            .as_ref()
            .map(|loaded: &Loaded| Live { record: &loaded.record, touched_at: loaded.touched_at });
        Facts { live, client_has_cookie: self.client_has_cookie, secure: self.secure, now }
    }

    /// The same session after the head's commit, for a trailer.
    pub(super) fn after_head(base: Base, secure: bool, writable: bool) -> Self {
        Self { base, status: Status::Live, client_has_cookie: true, secure, writable }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Are all these fields there?
    pub(super) fn satisfies(&self, required: &[FieldPath]) -> bool {
        required.is_empty()
            || data_of(self).is_some_and(|data| required.iter().all(|path| path.is_present(&data)))
    }
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::None => "none",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Names {
    fn new(prefix: &str) -> Result<Self, String> {
        let name = |suffix: &str| {
            let text = format!("{prefix}{suffix}");
            HeaderName::try_from(text.as_str()).map_err(|_| format!("`{text}` is no header name"))
        };
        Ok(Self {
            session: name("")?,
            id: name("-Id")?,
            new: name("-New")?,
            status: name("-Status")?,
            expires: name("-Expires")?,
            signature: name("-Signature")?,
            update: name("-Update")?,
            control: name("-Control")?,
        })
    }
}

/// Removes the cookies called `name`; joins several lines to one.
fn settle_cookies(headers: &mut HeaderMap, name: Option<&str>) {
    let mut lines = headers.get_all(COOKIE).iter();
    let (Some(first), several) = (lines.next(), lines.next().is_some()) else { return };
    let strip = |line: &HeaderValue| name.map_or(Stripped::Unchanged, |name| cookie::strip(line, name));
    if !several {
        match strip(first) {
            Stripped::Unchanged => {}
            Stripped::Empty => drop(headers.remove(COOKIE)),
            Stripped::Rest(rest) => drop(headers.insert(COOKIE, rest)),
        }
        return;
    }
    let mut joined = Vec::new();
    for line in headers.get_all(COOKIE) {
        let rest = match strip(line) {
            Stripped::Unchanged => line.clone(),
            Stripped::Empty => continue,
            Stripped::Rest(rest) => rest,
        };
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(rest.as_bytes());
    }
    match HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        Ok(value) if !value.is_empty() => drop(headers.insert(COOKIE, value)),
        _ => drop(headers.remove(COOKIE)),
    }
}

/// `{uri}` in `otherwise.redirect`: the path and query asked for, safe inside a query.
pub(super) fn redirect_target(template: &str, uri: &str) -> String {
    template.replace("{uri}", &percent_encode(uri, is_uri_component_byte))
}

fn data_of(opened: &Opened) -> Option<Json> {
    opened.base.live.as_ref().map(|loaded| loaded.record.payload.to_json())
}

fn insert_text(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name.clone(), value);
    }
}

fn new_sid() -> Result<Sid, ProxyError> {
    Sid::random().map_err(|error| {
        let detail = format!("no randomness for a session id: {error}");
        ProxyError::Store(StoreError { op: Op::Create, kind: Kind::Refused, detail })
    })
}

/// express-session could not hold data of this name: said once per process.
fn warn_once(name: &'static str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            key = name,
            "the app stores a session key that an Express app on the same store could not see (said once)"
        );
    }
}
