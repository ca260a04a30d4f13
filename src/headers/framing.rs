//! Is this message one that everybody on the way reads alike? Answered before any other rule looks at it.
//!
//! hyper has already refused broken lines, differing lengths and most `Transfer-Encoding`s, and [`super::gate`] what hyper
//! repairs; what both let through is refused here (RFC 9112 §3.2, §6; RFC 9113 §8.2.2, §8.3.1). Knows nothing of routes.
//! Tests: below, and the corpus (`tests/it/framing_corpus/`); paths in [`super::path`].

pub use super::trailers::clean_trailers;

use super::names::{ALT_SVC, KEEP_ALIVE, PROXY_CONNECTION, list_items, trim_ows};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use std::fmt;
use std::net::Ipv6Addr;

/// The value of `Allow` in the answer to a refused method (RFC 9110 §15.5.6): what goes through to an app. Methods that are
/// not registered do too; a list cannot say that.
pub const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request is refused before it is routed, or a response not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// `CONNECT` (no forward proxy) or `TRACE` (the app would echo `X-Session` to the client).
    Method,
    /// Neither `/path` nor `http://host/path`, or `*` without `OPTIONS`, or a byte that no URI may have.
    Target,
    /// No `Host` where the version demands one.
    MissingHost,
    /// More than one `Host` line.
    SeveralHosts,
    /// `Host` or authority is not a host name or address with an optional port.
    BadHost,
    /// HTTP/2: `:authority` and `Host` differ.
    HostMismatch,
    /// Both `Content-Length` and `Transfer-Encoding`.
    TwoLengths,
    /// `Content-Length` that is no number, or several; in a response, several that differ.
    BadLength,
    /// `Transfer-Encoding` is several codings or several lines.
    BadTransferEncoding,
    /// `Transfer-Encoding` names a coding other than `chunked`.
    UnknownTransferEncoding,
    /// HTTP/2 with a field that concerns connections.
    ConnectionField,
    /// HTTP/2 with a blank at an end of a value, where HTTP/1 has no way to say it (RFC 9113 §8.2.1).
    BlankAroundValue,
}

impl FramingError {
    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownTransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::Target
            | Self::MissingHost
            | Self::SeveralHosts
            | Self::BadHost
            | Self::HostMismatch
            | Self::TwoLengths
            | Self::BadLength
            | Self::BadTransferEncoding
            | Self::ConnectionField
            | Self::BlankAroundValue => StatusCode::BAD_REQUEST,
        }
    }

    /// A short word for logs and counters.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Target => "target",
            Self::MissingHost => "missing_host",
            Self::SeveralHosts => "several_hosts",
            Self::BadHost => "bad_host",
            Self::HostMismatch => "host_mismatch",
            Self::TwoLengths => "two_lengths",
            Self::BadLength => "bad_length",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::UnknownTransferEncoding => "unknown_transfer_encoding",
            Self::ConnectionField => "connection_field",
            Self::BlankAroundValue => "blank_around_value",
        }
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for FramingError {}

/// Checks a request as hyper hands it over, and leaves exactly one `Host` line: the target's authority when it has
/// one (HTTP/2, absolute form), else what was sent; an empty one for HTTP/1.0 without `Host`. The caller sends the
/// target's path and query on, never its authority.
///
/// # Errors
/// [`FramingError`]; the headers may have been changed by then.
pub fn check_request(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<(), FramingError> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(FramingError::Method);
    }
    check_target(method, uri)?;
    check_lengths(headers)?;
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(FramingError::BadLength);
    }
    if version >= Version::HTTP_2 {
        check_http2(uri, headers)?;
    }
    settle_host(uri, version, headers)
}

/// Whether everybody reads the end of a response where hyper does: by one length, or by exactly one `chunked`.
/// hyper takes anything that ends in `chunked` and reads everything else to the end of the connection, so a coding that nobody
/// removed would be passed on without its name; it prefers the coding to a length that is there as well (nginx and Envoy refuse
/// both together), and does not look at the lengths of answers that have no body. Call it on the response as hyper hands it
/// over, before [`clean_response`].
///
/// # Errors
/// Those of lengths and codings: answer 502 whatever [`FramingError::status`] says, for it is the app's fault, and close the
/// connection to it.
pub fn check_response(headers: &HeaderMap) -> Result<(), FramingError> {
    check_lengths(headers)
}

/// Makes a response's framing plain before it is framed anew: equal `Content-Length` lines become one. Takes `Alt-Svc` off: it
/// would invite browsers to a door that is not ours. Runs after [`check_response`], before [`super::hop::take_hop_by_hop`].
pub fn clean_response(headers: &mut HeaderMap) {
    keep_one_length(headers);
    headers.remove(ALT_SVC);
}

/// Whether `host` is a name or address with an optional port: letters, digits and `-._`, or an IPv6 address in
/// brackets. Narrower than RFC 3986: no percent signs, commas or quotes, since apps put it into links and lists.
#[must_use]
pub fn is_valid_host(host: &[u8]) -> bool {
    let (name, port) = if host.starts_with(b"[") {
        let Some(end) = host.iter().position(|byte| *byte == b']') else { return false };
        let address = std::str::from_utf8(&host[1..end]).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        (address.map(|_| &b"v6"[..]), &host[end + 1..])
    } else {
        let end = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
        (Some(&host[..end]), &host[end..])
    };
    let is_name = |name: &[u8]| {
        !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    name.is_some_and(is_name) && (port.is_empty() || is_port_suffix(port))
}

/// The number of a port as text: 1 to 65535, digits only.
#[must_use]
pub(super) fn parse_port(text: &[u8]) -> Option<u16> {
    let is_number = !text.is_empty() && text.len() <= 5 && text.iter().all(u8::is_ascii_digit);
    if !is_number {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|port| *port != 0)
}

fn is_port_suffix(suffix: &[u8]) -> bool {
    // `host:` with nothing behind it is in the grammar.
    suffix.strip_prefix(b":").is_some_and(|port| port.is_empty() || parse_port(port).is_some())
}

fn check_target(method: &Method, uri: &Uri) -> Result<(), FramingError> {
    let is_origin_or_absolute = uri.path().starts_with('/')
        && match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(_)) => scheme == "http" || scheme == "https",
            (None, None) => true,
            // Authority form belongs to CONNECT.
            (None, Some(_)) | (Some(_), None) => false,
        };
    let is_asterisk = uri.path() == "*" && *method == Method::OPTIONS;
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let is_clean = target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    if (is_origin_or_absolute || is_asterisk) && is_clean { Ok(()) } else { Err(FramingError::Target) }
}

fn check_lengths(headers: &HeaderMap) -> Result<(), FramingError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(first) = lengths.next() {
        if headers.contains_key(TRANSFER_ENCODING) {
            return Err(FramingError::TwoLengths);
        }
        let first = first.as_bytes();
        let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        if !is_number || lengths.any(|length| length.as_bytes() != first) {
            return Err(FramingError::BadLength);
        }
    }
    check_coding(headers)
}

/// No `Transfer-Encoding`, or one line that says `chunked` and nothing else.
fn check_coding(headers: &HeaderMap) -> Result<(), FramingError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let coding = trim_ows(coding.as_bytes());
    if codings.next().is_some() || coding.is_empty() || coding.contains(&b',') {
        return Err(FramingError::BadTransferEncoding);
    }
    if !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(FramingError::UnknownTransferEncoding);
    }
    Ok(())
}

/// Equal lines, which HTTP/2 lets through, become one: a receiver may refuse several (RFC 9110 §8.6).
fn keep_one_length(headers: &mut HeaderMap) {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(first), Some(_)) = (lengths.next().cloned(), lengths.next()) {
        headers.insert(CONTENT_LENGTH, first);
    }
}

fn check_http2(uri: &Uri, headers: &HeaderMap) -> Result<(), FramingError> {
    // `:path` begins with a slash (RFC 9113 §8.3.1); absolute form over HTTP/1 may do without.
    if uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?')) {
        return Err(FramingError::Target);
    }
    if headers.values().any(|value| trim_ows(value.as_bytes()).len() != value.len()) {
        return Err(FramingError::BlankAroundValue);
    }
    let has_one = [CONNECTION, PROXY_CONNECTION, KEEP_ALIVE, TRANSFER_ENCODING, UPGRADE]
        .iter()
        .any(|name| headers.contains_key(name));
    let has_te = list_items(headers, &TE).any(|item| !item.eq_ignore_ascii_case(b"trailers"));
    if has_one || has_te { Err(FramingError::ConnectionField) } else { Ok(()) }
}

fn settle_host(uri: &Uri, version: Version, headers: &mut HeaderMap) -> Result<(), FramingError> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(FramingError::SeveralHosts);
    }
    let sent = host.map_or(&b""[..], HeaderValue::as_bytes);
    if !sent.is_empty() && !is_valid_host(sent) {
        return Err(FramingError::BadHost);
    }
    let Some(authority) = uri.authority().map(|authority| authority.as_str().as_bytes()) else {
        return match version {
            _ if !sent.is_empty() => Ok(()),
            Version::HTTP_09 | Version::HTTP_10 => {
                headers.insert(HOST, HeaderValue::from_static(""));
                Ok(())
            }
            _ => Err(FramingError::MissingHost),
        };
    };
    if !is_valid_host(authority) {
        return Err(FramingError::BadHost);
    }
    if version >= Version::HTTP_2 {
        if host.is_some() && !sent.eq_ignore_ascii_case(authority) {
            return Err(FramingError::HostMismatch);
        }
    } else if version == Version::HTTP_11 && host.is_none() {
        return Err(FramingError::MissingHost);
    }
    if sent != authority {
        let value = HeaderValue::from_bytes(authority).map_err(|_| FramingError::BadHost)?;
        headers.insert(HOST, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::map;

    /// The one `Host` line left, or the refusal.
    fn check(
        method: &str,
        target: &str,
        version: Version,
        fields: &[(&str, &str)],
    ) -> Result<String, FramingError> {
        let mut headers = map(fields);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        check_request(&method, &target.parse().unwrap(), version, &mut headers)?;
        let hosts: Vec<_> = headers.get_all(HOST).iter().collect();
        assert_eq!(hosts.len(), 1, "exactly one Host");
        Ok(hosts[0].to_str().unwrap().to_owned())
    }

    fn h1(method: &str, target: &str, fields: &[(&str, &str)]) -> Result<String, FramingError> {
        check(method, target, Version::HTTP_11, fields)
    }

    const H: (&str, &str) = ("host", "a.example");

    #[test]
    fn targets() {
        assert_eq!(h1("GET", "/x?y", &[H]), Ok("a.example".into()));
        assert_eq!(h1("OPTIONS", "*", &[H]), Ok("a.example".into()));
        assert_eq!(h1("GET", "*", &[H]), Err(FramingError::Target));
        assert_eq!(h1("GET", "evil:80", &[H]), Err(FramingError::Target));
        assert_eq!(h1("CONNECT", "evil:80", &[H]), Err(FramingError::Method));
        assert_eq!(h1("TRACE", "/", &[H]), Err(FramingError::Method));
        assert_eq!(h1("GET", "ftp://a.example/", &[H]), Err(FramingError::Target));
        assert_eq!(h1("GET", "/caf\u{e9}", &[H]), Ok("a.example".into()));
    }

    #[test]
    fn absolute_form_wins_over_host() {
        assert_eq!(h1("GET", "http://b.example:81/x", &[H]), Ok("b.example:81".into()));
        assert_eq!(h1("GET", "http://b.example", &[H]), Ok("b.example".into()));
        assert_eq!(h1("GET", "http://b.example/x", &[]), Err(FramingError::MissingHost));
        assert_eq!(h1("GET", "http://u:p@b.example/x", &[H]), Err(FramingError::BadHost));
        assert_eq!(h1("GET", "http://b.example/x", &[("host", "a b")]), Err(FramingError::BadHost));
    }

    #[test]
    fn hosts() {
        assert_eq!(h1("GET", "/", &[]), Err(FramingError::MissingHost));
        assert_eq!(h1("GET", "/", &[("host", "")]), Err(FramingError::MissingHost));
        assert_eq!(h1("GET", "/", &[H, H]), Err(FramingError::SeveralHosts));
        assert_eq!(check("GET", "/", Version::HTTP_10, &[]), Ok(String::new()));
        assert_eq!(check("GET", "/", Version::HTTP_10, &[H]), Ok("a.example".into()));
        for host in ["a", "A.b_c-d.", "127.0.0.1:1", "[::1]", "[::1]:8080", "a:65535", "a:"] {
            assert!(is_valid_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1:2",
            "a b",
            "a,b",
            "a/b",
            "u@a",
            "a\"",
            "a\\b",
            "::1",
            "[::1",
            "[::1]x",
            "[x]",
            "[]",
            "a%00",
            "<a>",
            "caf\u{e9}",
            "a:1 ",
        ] {
            assert!(!is_valid_host(host.as_bytes()), "{host}");
            assert!(h1("GET", "/", &[("host", host)]).is_err(), "{host}");
        }
    }

    #[test]
    fn lengths() {
        let post = |fields: &[(&str, &str)]| h1("POST", "/", &[&[H], fields].concat()).map(drop);
        let te = |value| ("transfer-encoding", value);
        let cl = |value| ("content-length", value);
        assert_eq!(post(&[te("Chunked")]), Ok(()));
        assert_eq!(post(&[cl("10")]), Ok(()));
        assert_eq!(post(&[cl("10"), cl("10")]), Err(FramingError::BadLength));
        assert_eq!(post(&[cl("10"), te("chunked")]), Err(FramingError::TwoLengths));
        for value in ["gzip", "identity", "xchunked", "chunked;q=1"] {
            assert_eq!(post(&[te(value)]), Err(FramingError::UnknownTransferEncoding), "{value}");
        }
        for value in ["gzip, chunked", "chunked, chunked", "chunked,", ""] {
            assert_eq!(post(&[te(value)]), Err(FramingError::BadTransferEncoding), "{value}");
        }
        assert_eq!(post(&[te("identity"), te("chunked")]), Err(FramingError::BadTransferEncoding));
        for value in ["", "+2", "2, 2", "0x2", "-1", "2 "] {
            assert_eq!(post(&[cl(value)]), Err(FramingError::BadLength), "{value}");
        }
        assert_eq!(post(&[cl("1"), cl("2")]), Err(FramingError::BadLength));
        assert_eq!(FramingError::TwoLengths.status(), 400);
        assert_eq!(FramingError::UnknownTransferEncoding.status(), 501);
        assert_eq!(FramingError::Method.status(), 405);
    }

    #[test]
    fn http_2() {
        let h2 = |target: &str, fields: &[(&str, &str)]| check("GET", target, Version::HTTP_2, fields);
        assert_eq!(h2("https://a.example/x", &[]), Ok("a.example".into()));
        assert_eq!(h2("https://a.example/x", &[("host", "A.Example")]), Ok("a.example".into()));
        assert_eq!(h2("https://a.example/x", &[("host", "b.example")]), Err(FramingError::HostMismatch));
        assert_eq!(h2("https://a.example/x", &[("host", "")]), Err(FramingError::HostMismatch));
        assert_eq!(h2("/x", &[("host", "b.example")]), Ok("b.example".into()));
        assert_eq!(h2("/x", &[]), Err(FramingError::MissingHost));
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            assert_eq!(h2("https://a/", &[(name, "chunked")]), Err(FramingError::ConnectionField), "{name}");
        }
        assert_eq!(h2("https://a?x", &[]), Err(FramingError::Target));
        assert_eq!(h2("https://a/", &[("x", " y")]), Err(FramingError::BlankAroundValue));
        assert_eq!(h2("https://a/", &[("te", "trailers")]), Ok("a".into()));
        assert_eq!(h2("https://a/", &[("te", "trailers, gzip")]), Err(FramingError::ConnectionField));
    }

    #[test]
    fn responses() {
        let mut headers = map(&[("transfer-encoding", "chunked"), ("alt-svc", "h3=\":443\""), ("x", "1")]);
        clean_response(&mut headers);
        assert_eq!(headers, map(&[("transfer-encoding", "chunked"), ("x", "1")]));
        let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
        assert_eq!(check_response(&map(&both)), Err(FramingError::TwoLengths));
        for bad in [&[("content-length", "x")][..], &[("content-length", "1"), ("content-length", "2")]] {
            assert_eq!(check_response(&map(bad)), Err(FramingError::BadLength), "{bad:?}");
        }
        for good in [&[][..], &[("transfer-encoding", "chunked")], &[("transfer-encoding", " Chunked\t")]] {
            assert_eq!(check_response(&map(good)), Ok(()), "{good:?}");
        }
        for bad in ["gzip, chunked", "chunked, chunked", "chunked, gzip", "gzip", "identity", "", "xchunked"]
        {
            assert!(check_response(&map(&[("transfer-encoding", bad)])).is_err(), "{bad}");
        }
        let split = [("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")];
        assert_eq!(check_response(&map(&split)), Err(FramingError::BadTransferEncoding));
        let mut headers = map(&[("content-length", "5"), ("content-length", "5")]);
        clean_response(&mut headers);
        assert_eq!(headers, map(&[("content-length", "5")]));
    }
}
