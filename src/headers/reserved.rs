//! Names that belong to the sidecar: `X-Session`, every `X-Session-*`, every claim (contract §2).
//!
//! What a client (or, on the way back, an app) sends under any spelling of them is removed before anything else is
//! added, in heads and in trailers. Knows nothing of sessions or routes. Tests: below.

use super::names::{begins_folded, fold, fold_byte, folds_to, list_items, remove_where};
use super::trailers;
use http::header::TRAILER;
use http::{HeaderMap, HeaderName};
use std::fmt;

/// The reserved names of the whole sidecar: claims of one route are removed on every route.
#[derive(Debug, Clone)]
pub struct ReservedNames {
    prefix: Box<[u8]>,
    claims: Box<[Box<[u8]>]>,
    /// Bit `b % 64` is set when a reserved name may begin with the folded byte `b`: most names fail here.
    first_bytes: u64,
}

impl ReservedNames {
    /// `prefix` is `session.headers.prefix` (`X-Session`); dashes at its end do not count. `claims`: the claim
    /// headers of all routes.
    pub fn new<'a>(prefix: &str, claims: impl Iterator<Item = &'a HeaderName>) -> Self {
        let mut folded = fold(prefix.as_bytes());
        while folded.last() == Some(&b'-') {
            folded.pop();
        }
        let mut claims: Vec<Box<[u8]>> =
            claims.map(|name| fold(name.as_str().as_bytes()).into_boxed_slice()).collect();
        claims.sort_unstable();
        claims.dedup();
        let firsts = claims.iter().filter_map(|claim| claim.first()).chain(folded.first());
        let first_bytes = firsts.fold(0, |bits, byte| bits | first_bit(*byte));
        Self { prefix: folded.into_boxed_slice(), claims: claims.into_boxed_slice(), first_bytes }
    }

    /// Whether `name` is, under the fold, the prefix, begins with the prefix and a dash, or is a claim.
    #[inline]
    #[must_use]
    pub fn is_reserved(&self, name: &HeaderName) -> bool {
        self.is_reserved_bytes(name.as_str().as_bytes())
    }

    /// [`Self::is_reserved`] for a name that has not been parsed, such as an item of `Connection` or `Trailer`.
    #[inline]
    #[must_use]
    pub fn is_reserved_bytes(&self, name: &[u8]) -> bool {
        let Some(first) = name.first() else { return false };
        if self.first_bytes & first_bit(fold_byte(*first)) == 0 {
            return false;
        }
        self.is_prefixed(name) || self.claims.iter().any(|claim| folds_to(name, claim))
    }

    /// Removes every reserved field, all its lines; the number of lines removed. For heads and trailers, both ways.
    pub fn strip(&self, headers: &mut HeaderMap) -> usize {
        remove_where(headers, |name| self.is_reserved(name))
    }

    /// Takes reserved names, and what may not be a trailer at all, out of `Trailer`, and the field itself when nothing else is
    /// announced. Other lists stay byte-identical.
    pub fn strip_trailer_names(&self, headers: &mut HeaderMap) {
        trailers::strip_announced(headers, |item| {
            self.is_reserved_bytes(item) || trailers::is_forbidden(item)
        });
    }

    #[inline]
    fn is_prefixed(&self, name: &[u8]) -> bool {
        !self.prefix.is_empty()
            && begins_folded(name, &self.prefix)
            && name.get(self.prefix.len()).is_none_or(|next| fold_byte(*next) == b'-')
    }
}

#[inline]
const fn first_bit(folded: u8) -> u64 {
    1 << (folded % 64)
}

/// `server.underscore_headers`: what happens to names with `_` that are not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderscorePolicy {
    /// They are removed (default, as nginx does): behind CGI-like servers they are a second spelling of another name.
    #[default]
    Drop,
    /// They are passed on.
    Pass,
    /// The request is refused with 400.
    Reject,
}

/// A name with `_` under [`UnderscorePolicy::Reject`]: answer 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderscoreRefused;

impl fmt::Display for UnderscoreRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header name contains an underscore")
    }
}

impl std::error::Error for UnderscoreRefused {}

/// Applies `policy` to the fields of a request's head, and to the names in its `Trailer` line; the number of lines removed. Also
/// for its trailers. Call it after [`ReservedNames::strip`].
///
/// # Errors
/// [`UnderscoreRefused`] when the policy is [`UnderscorePolicy::Reject`] and such a name is there.
pub fn apply_underscore(
    headers: &mut HeaderMap,
    policy: UnderscorePolicy,
) -> Result<usize, UnderscoreRefused> {
    let has_underscore = |name: &HeaderName| name.as_str().as_bytes().contains(&b'_');
    let is_announced = |name: &[u8]| name.contains(&b'_');
    match policy {
        UnderscorePolicy::Pass => Ok(0),
        UnderscorePolicy::Drop => {
            trailers::strip_announced(headers, is_announced);
            Ok(remove_where(headers, has_underscore))
        }
        UnderscorePolicy::Reject
            if headers.keys().any(has_underscore) || list_items(headers, &TRAILER).any(is_announced) =>
        {
            Err(UnderscoreRefused)
        }
        UnderscorePolicy::Reject => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn reserved() -> ReservedNames {
        let claims = [HeaderName::from_static("x-user"), HeaderName::from_static("remote_email")];
        ReservedNames::new("X-Session", claims.iter())
    }

    fn map(names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("v"));
        }
        headers
    }

    #[test]
    fn every_spelling_goes_and_neighbours_stay() {
        let gone = [
            "X-Session",
            "x_session",
            "X.SESSION",
            "X~Session",
            "x-session-id",
            "X_Session_New",
            "x-session.",
            "x-session-",
            "X-Session",
            "x-user",
            "X_USER",
            "remote-email",
            "Remote_Email",
            "remote.email",
        ];
        let kept = [
            "x-sessionid",
            "x-sessions-id",
            "session",
            "xsession",
            "x-users",
            "x-use",
            "cookie",
            "-x-session",
        ];
        let mut headers = map(&[gone.as_slice(), kept.as_slice()].concat());
        assert_eq!(reserved().strip(&mut headers), gone.len());
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let mut want = kept.to_vec();
        want.sort_unstable();
        assert_eq!(left, want);
    }

    #[test]
    fn an_empty_prefix_reserves_only_the_claims() {
        let names = ReservedNames::new("", [HeaderName::from_static("x-user")].iter());
        let mut headers = map(&["-a", "x-session", "x_user"]);
        assert_eq!(names.strip(&mut headers), 1);
        assert!(!names.is_reserved_bytes(b""));
    }

    #[test]
    fn a_dash_at_the_end_of_the_prefix_does_not_open_a_hole() {
        let names = ReservedNames::new("X-App-", [].iter());
        assert!(names.is_reserved_bytes(b"x_app") && names.is_reserved_bytes(b"X-App-Id"));
        assert!(!names.is_reserved_bytes(b"x-apple"));
    }

    #[test]
    fn trailer_lists_lose_reserved_names_only() {
        let mut headers = HeaderMap::new();
        headers.append(TRAILER, HeaderValue::from_static("Server-Timing,X_Session_Update"));
        headers.append(TRAILER, HeaderValue::from_static("X-Session-Control , Digest"));
        reserved().strip_trailer_names(&mut headers);
        assert_eq!(headers.get_all(TRAILER).iter().collect::<Vec<_>>(), ["Server-Timing, Digest"]);

        let mut headers = HeaderMap::new();
        headers.append(TRAILER, HeaderValue::from_static("X-Session-Update"));
        reserved().strip_trailer_names(&mut headers);
        assert!(headers.is_empty());

        let mut headers = HeaderMap::new();
        headers.append(TRAILER, HeaderValue::from_static("Digest ,,  ETag"));
        reserved().strip_trailer_names(&mut headers);
        assert_eq!(headers[TRAILER], "Digest ,,  ETag");
    }

    #[test]
    fn underscores() {
        let mut headers = map(&["a_b", "a_b", "a-b"]);
        assert_eq!(apply_underscore(&mut headers.clone(), UnderscorePolicy::Reject), Err(UnderscoreRefused));
        assert_eq!(apply_underscore(&mut headers, UnderscorePolicy::Pass), Ok(0));
        assert_eq!(apply_underscore(&mut headers, UnderscorePolicy::Drop), Ok(2));
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["a-b"]);
        assert_eq!(apply_underscore(&mut headers, UnderscorePolicy::Reject), Ok(0));
        headers.insert(TRAILER, HeaderValue::from_static("ETag, a_b"));
        assert_eq!(apply_underscore(&mut headers, UnderscorePolicy::Reject), Err(UnderscoreRefused));
        assert_eq!(apply_underscore(&mut headers, UnderscorePolicy::Pass), Ok(0));
        assert_eq!(headers[TRAILER], "ETag, a_b");
        assert_eq!(apply_underscore(&mut headers, UnderscorePolicy::Drop), Ok(0));
        assert_eq!(headers[TRAILER], "ETag");
    }

    fn a_spelling_of(name: &'static str) -> impl Strategy<Value = String> {
        proptest::collection::vec(any::<prop::sample::Index>(), name.len()).prop_map(move |choices| {
            let odd = b"-_.~!#$%&'*+^`|";
            name.bytes()
                .zip(choices)
                .map(|(byte, choice)| match byte {
                    b'-' => char::from(odd[choice.index(odd.len())]),
                    _ if choice.index(2) == 0 => char::from(byte.to_ascii_uppercase()),
                    _ => char::from(byte),
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn strip_leaves_no_spelling_and_is_idempotent(
            ours in proptest::collection::vec(
                prop_oneof![a_spelling_of("x-session"), a_spelling_of("x-session-update"), a_spelling_of("x-user")], 0..8),
            others in proptest::collection::vec("[a-zA-Z][a-zA-Z0-9_.-]{0,12}", 0..8),
        ) {
            let mut headers = HeaderMap::new();
            for name in ours.iter().chain(&others) {
                headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("v"));
            }
            let names = reserved();
            prop_assert!(names.strip(&mut headers) >= ours.len());
            for name in headers.keys() {
                let folded = String::from_utf8(fold(name.as_str().as_bytes())).unwrap();
                prop_assert!(folded != "x-session" && !folded.starts_with("x-session-"), "{folded}");
                prop_assert!(folded != "x-user" && folded != "remote-email", "{folded}");
            }
            for name in &others {
                let parsed: HeaderName = name.parse().unwrap();
                prop_assert_eq!(headers.contains_key(&parsed), !names.is_reserved(&parsed));
            }
            prop_assert_eq!(names.strip(&mut headers), 0);
        }
    }
}
