//! Fields that concern one connection only (RFC 9110 §7.6.1), removed from requests and responses.
//!
//! Removed: `Connection` and what it names, `Keep-Alive`, `Proxy-Connection`, `TE`, `Transfer-Encoding` (hyper
//! frames anew), `Upgrade`, `HTTP2-Settings`, `Proxy-Authenticate` and `Proxy-Authorization` (RFC 9110 leaves them to
//! the first proxy, as Go's ReverseProxy does; nginx and Envoy pass them), `Proxy` (httpoxy, CVE-2016-5385) and
//! `Expect` (hyper answers it). `Trailer` stays: hyper sends only trailers that it announces.
//! `Content-Length` goes when `Transfer-Encoding` is there, since it then lies (RFC 9112 §6.3).
//!
//! `Connection` cannot name what both ends need ([`is_end_to_end`]) nor what is reserved: RFC 9110 forbids a sender to
//! name fields meant for all recipients, and a client could delete what a proxy before us had added.
//! Runs before anything is added. Tests: below.

use super::names::{KEEP_ALIVE, PROXY_CONNECTION, list_items, trim_ows};
use super::reserved::ReservedNames;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

/// What the removed fields had asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hop {
    /// The protocol to switch to, in the sender's spelling: HTTP/1.1, `Connection: upgrade` and exactly one `Upgrade`
    /// line naming one protocol other than HTTP itself (`h2c`) or TLS. On a 101 response: what was agreed.
    pub upgrade: Option<HeaderValue>,
    /// `TE` contained `trailers`: the caller sends `TE: trailers` on to upstreams that get trailers.
    pub te_trailers: bool,
}

/// Removes the hop-by-hop fields of a request or a response of `version`.
pub fn take_hop_by_hop(headers: &mut HeaderMap, version: Version, reserved: &ReservedNames) -> Hop {
    let mut hop = Hop::default();
    let found = find(headers);
    if found == 0 {
        return hop;
    }
    if found & bit(Field::Te) != 0 {
        // `trailers;q=0.5` is not in the grammar; a weight on anything else does not concern us.
        hop.te_trailers = list_items(headers, &TE).any(|item| item.eq_ignore_ascii_case(b"trailers"));
    }
    if found & bit(Field::Upgrade) != 0 && version == Version::HTTP_11 {
        hop.upgrade = requested_upgrade(headers);
    }
    if found & bit(Field::Connection) != 0 {
        for name in named_by_connection(headers, reserved) {
            headers.remove(&name);
        }
    }
    if found & bit(Field::TransferEncoding) != 0 {
        headers.remove(CONTENT_LENGTH);
    }
    for (index, name) in FIELDS.iter().enumerate() {
        if found & (1 << index) != 0 {
            headers.remove(name);
        }
    }
    hop
}

/// Fields that `Connection` cannot remove: framing, routing, credentials, what proxies tell each other.
#[must_use]
pub fn is_end_to_end(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "host"
            | "cookie"
            | "set-cookie"
            | "authorization"
            | "www-authenticate"
            | "forwarded"
            | "via"
            | "trailer"
            | "x-real-ip"
            | "x-request-id"
            | "traceparent"
            | "tracestate"
            | "date"
            | "location"
            | "origin"
            | "range"
            | "cache-control"
            | "expires"
            | "vary"
            | "etag"
            | "strict-transport-security"
            | "x-forwarded"
    ) || name.starts_with("content-")
        || name.starts_with("x-forwarded-")
        || name.starts_with("sec-")
        || name.starts_with("access-control-")
}

#[derive(Clone, Copy)]
enum Field {
    Connection,
    KeepAlive,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
    Http2Settings,
    ProxyAuthenticate,
    ProxyAuthorization,
    Proxy,
    Expect,
}

/// In the order of [`Field`].
static FIELDS: [HeaderName; 11] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy"),
    EXPECT,
];

const fn bit(field: Field) -> u16 {
    1 << field as u16
}

/// One walk over the names instead of eleven look-ups: most messages hold none or one of them.
fn find(headers: &HeaderMap) -> u16 {
    headers.keys().fold(0, |found, name| found | field_bit(name))
}

fn field_bit(name: &HeaderName) -> u16 {
    match name.as_str() {
        "connection" => bit(Field::Connection),
        "keep-alive" => bit(Field::KeepAlive),
        "proxy-connection" => bit(Field::ProxyConnection),
        "te" => bit(Field::Te),
        "transfer-encoding" => bit(Field::TransferEncoding),
        "upgrade" => bit(Field::Upgrade),
        "http2-settings" => bit(Field::Http2Settings),
        "proxy-authenticate" => bit(Field::ProxyAuthenticate),
        "proxy-authorization" => bit(Field::ProxyAuthorization),
        "proxy" => bit(Field::Proxy),
        "expect" => bit(Field::Expect),
        _ => 0,
    }
}

fn requested_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    if !list_items(headers, &CONNECTION).any(|item| item.eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    let mut lines = headers.get_all(UPGRADE).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let protocol = trim_ows(line.as_bytes());
    let is_one_protocol = !protocol.is_empty() && protocol.iter().all(|b| b.is_ascii_graphic() && *b != b',');
    // Another HTTP connection, or TLS that hides one, would run past every rule here.
    let is_http = [&b"h2"[..], b"h3", b"HTTP/", b"TLS/"]
        .iter()
        .any(|other| protocol.get(..other.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(other)));
    (is_one_protocol && !is_http).then(|| line.clone())
}

fn named_by_connection(headers: &HeaderMap, reserved: &ReservedNames) -> Vec<HeaderName> {
    // `close`, `keep-alive` and `upgrade` are options rather than names of fields that are still to be removed.
    let is_option = |item: &[u8]| {
        item.eq_ignore_ascii_case(b"close")
            || item.eq_ignore_ascii_case(b"keep-alive")
            || item.eq_ignore_ascii_case(b"upgrade")
            || item.eq_ignore_ascii_case(b"te")
    };
    list_items(headers, &CONNECTION)
        .filter(|item| !is_option(item))
        .filter_map(|item| HeaderName::from_bytes(item).ok())
        .filter(|name| !is_end_to_end(name) && !reserved.is_reserved(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> ReservedNames {
        ReservedNames::new("X-Session", [HeaderName::from_static("x-user")].iter())
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn take(fields: &[(&str, &str)]) -> (Hop, Vec<String>) {
        let mut headers = map(fields);
        let hop = take_hop_by_hop(&mut headers, Version::HTTP_11, &names());
        let mut left: Vec<_> = headers.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        (hop, left)
    }

    #[test]
    fn the_table_and_its_bits_agree() {
        for (index, name) in FIELDS.iter().enumerate() {
            assert_eq!(find(&map(&[(name.as_str(), "x")])), 1 << index, "{name}");
            assert!(take(&[(name.as_str(), "x"), (name.as_str(), "y"), ("accept", "*/*")]).1 == ["accept"]);
        }
    }

    #[test]
    fn all_connection_lines_count() {
        let (hop, left) = take(&[
            ("connection", "close"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("connection", "X-A ,x-b"),
            ("x-b", "1"),
        ]);
        assert_eq!((hop, left), (Hop::default(), vec![]));
    }

    #[test]
    fn connection_cannot_name_what_both_ends_need() {
        let kept = [
            "authorization",
            "content-length",
            "content-type",
            "cookie",
            "forwarded",
            "host",
            "sec-websocket-key",
            "trailer",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-request-id",
            "x-session",
            "x-session-id",
            "x-user",
            "x_session",
        ];
        let mut fields: Vec<(&str, &str)> = kept.iter().map(|name| (*name, "1")).collect();
        let all = kept.join(", ");
        fields.push(("connection", &all));
        assert_eq!(take(&fields).1, kept);
    }

    #[test]
    fn an_upgrade_needs_connection_one_protocol_and_http_1_1() {
        let upgrade = |fields: &[(&str, &str)]| {
            let (hop, left) = take(fields);
            assert!(left.is_empty(), "{left:?}");
            hop.upgrade
        };
        let websocket = Some(HeaderValue::from_static("WebSocket"));
        assert_eq!(upgrade(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]), websocket);
        assert_eq!(upgrade(&[("upgrade", "websocket")]), None);
        assert_eq!(upgrade(&[("upgrade", "websocket"), ("connection", "close")]), None);
        for refused in
            ["h2c", "H2C", "HTTP/2.0", "TLS/1.0, HTTP/1.1", "websocket, h2c", "", "h2c-14", "h2", "TLS/1.0"]
        {
            assert_eq!(
                upgrade(&[
                    ("connection", "upgrade, http2-settings"),
                    ("upgrade", refused),
                    ("http2-settings", "A")
                ]),
                None
            );
        }
        assert_eq!(upgrade(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")]), None);
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let mut headers = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
            assert_eq!(take_hop_by_hop(&mut headers, version, &names()), Hop::default());
        }
    }

    #[test]
    fn te_is_reduced_to_trailers() {
        assert!(
            take(&[("te", "gzip;q=0.5"), ("te", "deflate, Trailers"), ("connection", "te")]).0.te_trailers
        );
        assert!(!take(&[("te", "gzip, trailers-not")]).0.te_trailers);
    }

    #[test]
    fn content_length_goes_with_transfer_encoding() {
        assert!(take(&[("content-length", "5"), ("transfer-encoding", "chunked")]).1.is_empty());
        assert_eq!(take(&[("content-length", "5"), ("connection", "close")]).1, ["content-length"]);
    }

    #[test]
    fn junk_in_connection_is_ignored() {
        assert_eq!(take(&[("connection", "a b, \u{e9}, @, \"x-a\",, ;x-a"), ("x-a", "1")]).1, ["x-a"]);
    }

    proptest! {
        /// However the list is cut into lines and padded, no named field is left, and no other one is lost.
        #[test]
        fn nothing_named_is_left(
            named in proptest::collection::btree_set("x-[a-f]{1,3}", 0..6),
            other in proptest::collection::btree_set("y-[a-f]{1,3}", 0..6),
            cuts in proptest::collection::vec(0..5usize, 6),
        ) {
            let mut headers = HeaderMap::new();
            let mut line = String::new();
            for (name, cut) in named.iter().zip(&cuts) {
                line.push_str(&name.to_uppercase());
                line.push_str([",", " , ", ",,", "\t,", ""][*cut]);
                if *cut == 4 {
                    headers.append(CONNECTION, line.parse().unwrap());
                    line.clear();
                }
            }
            headers.append(CONNECTION, line.parse().unwrap());
            for name in named.iter().chain(&other).chain(&named) {
                headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("v"));
            }
            take_hop_by_hop(&mut headers, Version::HTTP_11, &names());
            let left: std::collections::BTreeSet<String> = headers.keys().map(ToString::to_string).collect();
            prop_assert_eq!(left, other);
        }
    }
}
