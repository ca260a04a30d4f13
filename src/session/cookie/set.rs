//! Response side: `Set-Cookie` as express-session writes it, byte for byte.
//!
//! Attributes stand in the order of npm `cookie`'s serializer: Domain, Path, Expires, HttpOnly, Secure, Partitioned, Priority,
//! SameSite. They come from the current config (contract §1); only the expiry belongs to the session.

use crate::session::Millis;
use crate::session::lifecycle::{CookieOptions, Priority, SameSite, Secure};
use crate::session::record::CookieAttributes;
use crate::session::sid::Sid;
use crate::session::signature::KeyRing;
use http::HeaderValue;
use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999, where IMF-fixdate ends.
const LAST_SECOND: u64 = 253_402_300_799;

/// The attributes of one `Set-Cookie`, with every `auto` decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedAttributes<'a> {
    /// `Domain`; an empty one is left out
    pub domain: Option<&'a str>,
    /// `Path`; an empty one is left out
    pub path: &'a str,
    /// `HttpOnly`
    pub http_only: bool,
    /// `Secure`
    pub secure: bool,
    /// `Partitioned`
    pub partitioned: bool,
    /// `Priority`
    pub priority: Option<Priority>,
    /// `SameSite`: `Lax`, `Strict` or `None`
    pub same_site: Option<&'static str>,
}

/// Decides what is `auto` for a request that is secure or not (contract §6).
pub fn resolve(options: &CookieOptions, secure_request: bool) -> ResolvedAttributes<'_> {
    ResolvedAttributes {
        domain: options.domain.as_deref(),
        path: &options.path,
        http_only: options.http_only,
        secure: secure_attribute(options, secure_request),
        partitioned: options.partitioned == Some(true),
        priority: options.priority,
        same_site: match options.same_site {
            SameSite::Strict => Some("Strict"),
            SameSite::None => Some("None"),
            SameSite::Auto if secure_request => Some("None"),
            SameSite::Lax | SameSite::Auto => Some("Lax"),
            SameSite::Unset => None,
        },
    }
}

/// Whether a cookie may be set on this request at all: `secure = true` sets it on secure ones only.
pub fn may_be_set(options: &CookieOptions, secure_request: bool) -> bool {
    secure_request || options.secure != Secure::Always
}

/// What a save stores in express-session's `cookie` beside the expiry.
pub fn stored_attributes(options: &CookieOptions, secure_request: bool) -> CookieAttributes {
    let resolved = resolve(options, secure_request);
    CookieAttributes {
        partitioned: options.partitioned,
        priority: options.priority.map(|priority| priority_name(priority).to_ascii_lowercase()),
        secure: Some(resolved.secure),
        http_only: options.http_only,
        domain: options.domain.clone(),
        path: options.path.clone(),
        same_site: resolved.same_site.map(str::to_ascii_lowercase),
    }
}

/// The cookie that hands a session to the browser: `name=s%3A<sid>.<mac>` and its attributes. Marked sensitive, so that neither
/// `Debug` nor a header compression table keeps it. Empty, hence ignored by browsers, for options that [`check`] refuses.
pub fn render_set_cookie(
    name: &str,
    sid: &Sid,
    keys: &KeyRing,
    attributes: &ResolvedAttributes<'_>,
    expires: Option<Millis>,
) -> HeaderValue {
    let mut signed = String::with_capacity(96);
    signed.push_str("s:");
    keys.sign(sid.as_str(), &mut signed);
    let mut out = begin(name);
    push_uri_component(&signed, &mut out);
    finish(out, attributes, expires)
}

/// The cookie that makes the browser forget its session: empty, expired in 1970, same scope as the one to be forgotten.
pub fn render_clear_cookie(name: &str, attributes: &ResolvedAttributes<'_>) -> HeaderValue {
    finish(begin(name), attributes, Some(0))
}

/// Why cookie options cannot be written; npm `cookie` throws at these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CookieProblem {
    /// Of RFC 9110's token characters, at least one.
    #[error("the cookie's name must be an HTTP token")]
    Name,
    /// Visible ASCII and blanks without `;` and `<`.
    #[error("the cookie's path must be printable ASCII without ';' and '<'")]
    Path,
    /// Labels of letters, digits and inner hyphens, 63 at most; one leading dot allowed.
    #[error("the cookie's domain must be a host name")]
    Domain,
    /// `__Host-` wants Secure, path `/` and no domain (RFC 6265bis §4.1.3).
    #[error("a name with the prefix __Host- needs secure = true, path = \"/\" and no domain")]
    HostPrefix,
    /// `__Secure-` wants Secure.
    #[error("a name with the prefix __Secure- needs secure = true")]
    SecurePrefix,
}

/// Checks at start-up what [`render_set_cookie`] relies on. `secure = "auto"` satisfies the prefixes: on a plain request the
/// browser refuses the cookie, on a secure one it is right.
///
/// # Errors
/// The first problem.
pub fn check(name: &str, options: &CookieOptions) -> Result<(), CookieProblem> {
    let domain = options.domain.as_deref().unwrap_or_default();
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(CookieProblem::Name);
    }
    if !options.path.bytes().all(|byte| matches!(byte, 0x20..=0x3a | 0x3d..=0x7e)) {
        return Err(CookieProblem::Path);
    }
    if !domain.is_empty() && !domain.strip_prefix('.').unwrap_or(domain).split('.').all(is_label) {
        return Err(CookieProblem::Domain);
    }
    // Browsers compare the prefixes without regard to case.
    let has_prefix =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    let insecure = options.secure == Secure::Never;
    if has_prefix("__Host-") && (insecure || options.path != "/" || !domain.is_empty()) {
        return Err(CookieProblem::HostPrefix);
    }
    if has_prefix("__Secure-") && insecure {
        return Err(CookieProblem::SecurePrefix);
    }
    Ok(())
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn begin(name: &str) -> String {
    let mut out = String::with_capacity(256);
    out.push_str(name);
    out.push('=');
    out
}

fn finish(mut out: String, attributes: &ResolvedAttributes<'_>, expires: Option<Millis>) -> HeaderValue {
    let mut push = |parts: [&str; 2]| out.extend(["; ", parts[0], parts[1]]);
    if let Some(domain) = attributes.domain.filter(|domain| !domain.is_empty()) {
        push(["Domain=", domain]);
    }
    if !attributes.path.is_empty() {
        push(["Path=", attributes.path]);
    }
    if let Some(expires) = expires {
        push(["Expires=", &http_date(expires)]);
    }
    if attributes.http_only {
        push(["HttpOnly", ""]);
    }
    if attributes.secure {
        push(["Secure", ""]);
    }
    if attributes.partitioned {
        push(["Partitioned", ""]);
    }
    if let Some(priority) = attributes.priority {
        push(["Priority=", priority_name(priority)]);
    }
    if let Some(same_site) = attributes.same_site {
        push(["SameSite=", same_site]);
    }
    let mut value = HeaderValue::try_from(out).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn secure_attribute(options: &CookieOptions, secure_request: bool) -> bool {
    match options.secure {
        Secure::Always => true,
        Secure::Never => false,
        Secure::Auto => secure_request,
    }
}

fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "Low",
        Priority::Medium => "Medium",
        Priority::High => "High",
    }
}

/// JavaScript's `toUTCString`, from 1970 to 9999; moments outside are clamped.
fn http_date(at: Millis) -> String {
    let seconds = u64::try_from(at.div_euclid(1000)).unwrap_or(0).min(LAST_SECOND);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// JavaScript's `encodeURIComponent`.
fn push_uri_component(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value & 15)]);
            out.extend(['%', digit(byte >> 4), digit(byte)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> CookieOptions {
        CookieOptions {
            path: "/".to_owned(),
            domain: None,
            http_only: true,
            secure: Secure::Auto,
            same_site: SameSite::Lax,
            partitioned: None,
            priority: None,
            max_age: None,
        }
    }

    #[test]
    fn attributes_stand_in_the_order_of_the_contract() {
        let all = CookieOptions {
            path: "/app".to_owned(),
            domain: Some("example.com".to_owned()),
            secure: Secure::Always,
            same_site: SameSite::Auto,
            partitioned: Some(true),
            priority: Some(Priority::High),
            ..options()
        };
        let keys = KeyRing::new(vec![b"tobiiscool".to_vec()]).unwrap();
        let sid = Sid::from_text("hello").unwrap();
        let value =
            render_set_cookie("connect.sid", &sid, &keys, &resolve(&all, true), Some(1_795_191_220_999));
        assert_eq!(
            value.to_str().unwrap(),
            "connect.sid=s%3Ahello.DGDUkGlIkCzPz%2BC0B064FNgHdEjox7ch8tOBGslZ5QI; Domain=example.com; Path=/app; \
             Expires=Fri, 20 Nov 2026 16:13:40 GMT; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None"
        );
        assert!(value.is_sensitive() && !format!("{value:?}").contains("hello"));
        assert_eq!(
            render_clear_cookie("connect.sid", &resolve(&options(), false)).to_str().unwrap(),
            "connect.sid=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn auto_follows_the_request() {
        let auto = CookieOptions { same_site: SameSite::Auto, ..options() };
        let seen = |secure_request| {
            let resolved = resolve(&auto, secure_request);
            (resolved.secure, resolved.same_site, may_be_set(&auto, secure_request))
        };
        assert_eq!(seen(true), (true, Some("None"), true));
        assert_eq!(seen(false), (false, Some("Lax"), true));
        let always = CookieOptions { secure: Secure::Always, ..options() };
        assert!(may_be_set(&always, true) && !may_be_set(&always, false));
        let stored = stored_attributes(&auto, true);
        assert_eq!((stored.secure, stored.same_site.as_deref()), (Some(true), Some("none")));
        let unset = CookieOptions { same_site: SameSite::Unset, secure: Secure::Never, ..options() };
        assert_eq!(stored_attributes(&unset, true).same_site, None);
        assert_eq!(stored_attributes(&unset, true).secure, Some(false));
    }

    #[test]
    fn no_moment_is_too_far() {
        assert_eq!(http_date(Millis::MIN), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(Millis::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_start_up() {
        let with = |path: &str, domain: Option<&str>| CookieOptions {
            path: path.to_owned(),
            domain: domain.map(str::to_owned),
            ..options()
        };
        for name in ["", "a b", "a=b", "a;b", "é", "a\"", "a\n"] {
            assert_eq!(check(name, &options()), Err(CookieProblem::Name), "{name}");
        }
        for path in ["/;x", "/<", "/é", "/\n", "/\u{7f}"] {
            assert_eq!(check("s", &with(path, None)), Err(CookieProblem::Path), "{path}");
        }
        let long = "a".repeat(64);
        for domain in
            [".", "..a", "a..b", "a.", "-a", "a-", "a_b", "a;b", "a b", "1.2.3.4:80", "é.de", long.as_str()]
        {
            assert_eq!(check("s", &with("/", Some(domain))), Err(CookieProblem::Domain), "{domain}");
        }
        for domain in ["example.com", ".example.com", "a-b.c1", "1.2.3.4", &long[1..], ""] {
            assert_eq!(check("s", &with("/", Some(domain))), Ok(()), "{domain}");
        }
        let never = CookieOptions { secure: Secure::Never, ..options() };
        assert_eq!(check("__Host-s", &options()), Ok(()));
        assert_eq!(check("__Host-s", &with("/a", None)), Err(CookieProblem::HostPrefix));
        assert_eq!(check("__host-s", &with("/", Some("a.b"))), Err(CookieProblem::HostPrefix));
        assert_eq!(check("__Host-s", &never), Err(CookieProblem::HostPrefix));
        assert_eq!(check("__Secure-s", &never), Err(CookieProblem::SecurePrefix));
        assert_eq!(check("__Secure-s", &with("/a", Some("a.b"))), Ok(()));
    }
}
