//! Names of fields, and the fold under which two spellings count as one name.
//!
//! CGI, WSGI, PHP and Rack turn `X-User`, `x_user` and `X.User` into one variable, so names that we must own are
//! compared folded. Knows nothing of which names are ours ([`super::reserved`]). Tests: below.

use http::{HeaderMap, HeaderName};

/// `X-Forwarded-For`
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `X-Forwarded-Port`
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// `X-Real-IP`
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// `X-Request-Id`
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `traceparent` (W3C Trace Context)
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate` (W3C Trace Context)
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `Keep-Alive`
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `Proxy-Connection`
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `Alt-Svc`
pub const ALT_SVC: HeaderName = HeaderName::from_static("alt-svc");

/// One byte of a name folded: ASCII lower case, everything outside `[a-z0-9]` as `-` (contract §2).
#[inline]
#[must_use]
pub const fn fold_byte(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' | b'0'..=b'9' => byte,
        b'A'..=b'Z' => byte | 0x20,
        _ => b'-',
    }
}

/// A whole name folded.
#[must_use]
pub fn fold(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| fold_byte(*byte)).collect()
}

/// Whether `name` folds to `folded`, which must be folded already. Allocates nothing.
#[inline]
#[must_use]
pub fn folds_to(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len() && begins_folded(name, folded)
}

/// Whether the fold of `name` begins with `folded`, which must be folded already. Allocates nothing.
#[inline]
#[must_use]
pub fn begins_folded(name: &[u8], folded: &[u8]) -> bool {
    name.len() >= folded.len() && name.iter().zip(folded).all(|(byte, want)| fold_byte(*byte) == *want)
}

/// Removes every field whose name `is_unwanted`; the number of field lines removed. Allocates only when it removes.
pub(super) fn remove_where(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) -> usize {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        if is_unwanted(name) {
            unwanted.push(name.clone());
        }
    }
    let mut removed = 0;
    for name in &unwanted {
        removed += headers.get_all(name).iter().count();
        headers.remove(name);
    }
    removed
}

/// `bytes` without blanks and tabs at its ends (the OWS of RFC 9110 §5.6.3).
#[must_use]
pub(super) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The items of a comma list over all lines of a field, trimmed; empty items are skipped (RFC 9110 §5.6.1).
pub(super) fn list_items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(trim_ows)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fold_is_lower_case_with_every_other_byte_as_a_dash() {
        assert_eq!(fold(b"X_Session.ID~9"), b"x-session-id-9");
        for byte in 0..=255u8 {
            let folded = fold_byte(byte);
            assert!(folded.is_ascii_lowercase() || folded.is_ascii_digit() || folded == b'-', "{byte}");
            assert_eq!(fold_byte(folded), folded, "folding twice is folding once: {byte}");
        }
        assert!(folds_to(b"X_User", b"x-user"));
        assert!(!folds_to(b"X_Users", b"x-user"));
        assert!(begins_folded(b"X_Users", b"x-user"));
        assert!(!begins_folded(b"X_Use", b"x-user"));
    }

    #[test]
    fn list_items_cross_lines_and_skip_empties() {
        let mut headers = HeaderMap::new();
        headers.append("trailer", "a,, b\t".parse().unwrap());
        headers.append("trailer", " ,c".parse().unwrap());
        let items: Vec<_> = list_items(&headers, &http::header::TRAILER).collect();
        assert_eq!(items, [b"a".as_slice(), b"b", b"c"]);
    }
}
