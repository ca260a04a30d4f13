//! The request side of a session on the wire: what the app is shown, and the cookies that are taken off on the way.
//!
//! Only renders what is decided elsewhere. Tests: `tests/it/session_load.rs`, `routes.rs`.

use super::error::ProxyError;
use super::options::Encoding;
use super::sessions::{Opened, Sessions};
use crate::session::Millis;
use crate::session::cookie::{self, Stripped};
use crate::session::date::render_iso;
use crate::session::guard::{FieldPath, claim_value, is_uri_component_byte, percent_encode, project};
use crate::session::record::Payload;
use crate::session::sid::Sid;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::Mac;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

type HmacSha256 = hmac::Hmac<sha2::Sha256>;

/// The header names under the configured prefix.
pub(super) struct Names {
    pub(super) session: HeaderName,
    pub(super) id: HeaderName,
    pub(super) new: HeaderName,
    pub(super) status: HeaderName,
    pub(super) expires: HeaderName,
    pub(super) signature: HeaderName,
    pub(super) update: HeaderName,
    pub(super) control: HeaderName,
}

/// `X-Session-Status`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Live,
    None,
    Invalid,
    Expired,
    Unavailable,
}

impl Sessions {
    /// Takes the session's cookies off the request and makes one Cookie line of several (RFC 9113 §8.2.3).
    pub(super) fn settle_cookies(&self, headers: &mut HeaderMap) {
        settle_cookies(headers, if self.options.forward_cookie { &[] } else { &self.options.names });
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
            insert_text(headers, &names.expires, &render_iso(expires));
        }
        Ok(())
    }

    fn shown_payload(&self, opened: &Opened, fields: &[FieldPath]) -> Bytes {
        let json = match &opened.base.live {
            None => Payload::empty().as_bytes().clone(),
            Some(loaded) if fields.is_empty() => loaded.record.payload.to_ascii(),
            Some(_) => Payload::from_json(&project(fields, opened.data())).to_ascii(),
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
            None => policy.new_expiry(now),
            Some(loaded) => {
                let touched = policy.touched_expiry(&loaded.record, now)?;
                let due =
                    opened.is_writable() && (policy.resave || policy.touch_is_due(loaded.touched_at, now));
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
    ) -> Result<(), ProxyError> {
        if claims.is_empty() {
            return Ok(());
        }
        for (name, path) in claims {
            let Some(value) = claim_value(path, opened.data()) else { continue };
            if value.len() > self.header_limit {
                return Err(ProxyError::SessionHeader(value.len(), self.header_limit));
            }
            insert_text(headers, name, &value);
        }
        Ok(())
    }
}

impl Status {
    pub(super) fn word(self) -> &'static str {
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
    pub(super) fn new(prefix: &str) -> Result<Self, String> {
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

/// Removes the cookies of these names; joins several lines to one.
pub(super) fn settle_cookies(headers: &mut HeaderMap, names: &[String]) {
    let mut lines = headers.get_all(COOKIE).iter();
    let (Some(first), several) = (lines.next(), lines.next().is_some()) else { return };
    let strip = |line: &HeaderValue| strip_all(line, names);
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

/// One line without the cookies of all these names.
fn strip_all(line: &HeaderValue, names: &[String]) -> Stripped {
    let mut rest = Stripped::Unchanged;
    for name in names {
        let next = match &rest {
            Stripped::Unchanged => cookie::strip(line, name),
            Stripped::Rest(line) => cookie::strip(line, name),
            Stripped::Empty => return rest,
        };
        if next != Stripped::Unchanged {
            rest = next;
        }
    }
    rest
}

/// `{uri}` in `otherwise.redirect`: the path and query asked for, safe inside a query. A path that a browser would take for another
/// host (`//evil.example`, `/\evil.example`) becomes `/`: the app may well redirect to it after the login.
pub(super) fn redirect_target(template: &str, uri: &str) -> String {
    let elsewhere = uri.strip_prefix('/').is_none_or(|rest| rest.starts_with(['/', '\\']));
    template.replace("{uri}", &percent_encode(if elsewhere { "/" } else { uri }, is_uri_component_byte))
}

fn insert_text(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_comes_back_to_this_site() {
        for (uri, expected) in [
            ("/a?b=c&d", "/login?next=%2Fa%3Fb%3Dc%26d"),
            ("//evil.example", "/login?next=%2F"),
            ("/\\evil.example", "/login?next=%2F"),
            ("*", "/login?next=%2F"),
            ("/", "/login?next=%2F"),
        ] {
            assert_eq!(redirect_target("/login?next={uri}", uri), expected, "{uri}");
        }
    }
}
