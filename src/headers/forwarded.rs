//! What the app is told about the client: `X-Forwarded-*`, `Forwarded`, `X-Real-IP`.
//!
//! From an untrusted peer every `X-Forwarded*`, `Forwarded` and `X-Real-IP`, in any spelling, is dropped, and For, Proto,
//! Host, Port are set from the socket; from a trusted one For is extended by the peer and the rest is kept when its first
//! item is valid (contract §6). Runs after `framing` (which settles `Host`), `hop` and `reserved`; who the client is says
//! [`super::client`]. Knows no session. Tests: below.

pub use super::client::{Client, ClientAddr, HeaderSlice, Proto, session_secure};
pub use super::trust::{Trust, TrustSetting};

use super::client::first_item;
use super::framing::{is_valid_host, parse_port};
use super::names::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, begins_folded, fold_byte,
    folds_to, remove_where, trim_ows,
};
use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write as _;
use std::net::IpAddr;

/// What [`apply`] says about the socket, rendered once per connection.
#[derive(Debug, Clone)]
pub struct PeerHeaders {
    ip: Option<(IpAddr, HeaderValue)>,
    port: Option<HeaderValue>,
    tls: bool,
}

impl PeerHeaders {
    /// `peer`: `None` for a unix socket. `local_port`: the port the peer connected to; 0 says nothing.
    #[must_use]
    pub fn new(peer: Option<IpAddr>, local_port: u16, tls: bool) -> Self {
        let ip = peer.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok().map(|value| (ip, value)));
        let port = (local_port != 0).then(|| HeaderValue::from(local_port));
        Self { ip, port, tls }
    }

    const fn proto(&self) -> HeaderValue {
        HeaderValue::from_static(if self.tls { "https" } else { "http" })
    }
}

/// Sets `X-Forwarded-For/Proto/Host/Port`, and `Forwarded` when `emit_forwarded` (otherwise nobody's is passed on).
///
/// A trusted peer that sent Proto or Host but no Port gets the port that these two imply, since the local one then
/// belongs to the hop between the proxies. A unix socket has no address: For is left as a trusted peer sent it.
pub fn apply(headers: &mut HeaderMap, client: &Client, peer: &PeerHeaders, emit_forwarded: bool) {
    let forwarded =
        if emit_forwarded && client.peer_trusted { join_lines(headers, &FORWARDED) } else { None };
    remove_where(headers, |name| is_forwarding(name) && !(client.peer_trusted && is_passed_on(name)));
    let host = headers.get(HOST).filter(|host| !host.is_empty()).cloned();
    if emit_forwarded {
        let element = forwarded_element(peer, host.as_ref());
        set(headers, FORWARDED, HeaderValue::try_from(append(forwarded, element.as_bytes())).ok());
    }
    if !client.peer_trusted {
        set(headers, X_FORWARDED_FOR, peer.ip.as_ref().map(|(_, value)| value.clone()));
        set(headers, X_FORWARDED_PROTO, Some(peer.proto()));
        set(headers, X_FORWARDED_HOST, host);
        set(headers, X_FORWARDED_PORT, peer.port.clone());
        return;
    }
    if let Some((_, ip)) = &peer.ip {
        let value = match join_lines(headers, &X_FORWARDED_FOR) {
            None => Some(ip.clone()),
            before => HeaderValue::try_from(append(before, ip.as_bytes())).ok(),
        };
        set(headers, X_FORWARDED_FOR, value);
    }
    let has_proto = keeps(headers, &X_FORWARDED_PROTO, is_scheme);
    let has_host = keeps(headers, &X_FORWARDED_HOST, is_valid_host);
    if !has_proto {
        set(headers, X_FORWARDED_PROTO, Some(peer.proto()));
    }
    if !has_host {
        set(headers, X_FORWARDED_HOST, host);
    }
    if !keeps(headers, &X_FORWARDED_PORT, |item| parse_port(item).is_some()) {
        let port = if has_proto || has_host { implied_port(headers) } else { peer.port.clone() };
        set(headers, X_FORWARDED_PORT, port);
    }
}

/// The fields this room owns, in any spelling.
fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let first = name.first().map_or(0, |byte| fold_byte(*byte));
    (first == b'x'
        && (begins_folded(name, b"x-forwarded-")
            || folds_to(name, b"x-forwarded")
            || folds_to(name, b"x-real-ip")))
        || (first == b'f' && folds_to(name, b"forwarded"))
}

/// Of these, what a trusted peer may say: everything in the spelling with dashes, but `Forwarded`.
fn is_passed_on(name: &HeaderName) -> bool {
    *name != FORWARDED && name.as_str().bytes().all(|byte| fold_byte(byte) == byte)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

/// Whether the field is there and its first item is valid.
fn keeps(headers: &HeaderMap, name: &HeaderName, is_valid: impl Fn(&[u8]) -> bool) -> bool {
    first_item(headers, name).is_some_and(|item| is_valid(trim_ows(item.text)))
}

/// RFC 3986 §3.1
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

fn implied_port(headers: &HeaderMap) -> Option<HeaderValue> {
    let host = first_item(headers, &X_FORWARDED_HOST).map_or(&b""[..], |item| trim_ows(item.text));
    let tail = match host.iter().rposition(|byte| *byte == b']') {
        Some(end) => &host[end + 1..],
        None => host,
    };
    if let Some(port) =
        tail.rsplit(|byte| *byte == b':').next().and_then(parse_port).filter(|_| tail.contains(&b':'))
    {
        return Some(HeaderValue::from(port));
    }
    let proto = first_item(headers, &X_FORWARDED_PROTO).map_or(&b""[..], |item| trim_ows(item.text));
    let is_tls = proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss");
    Some(HeaderValue::from_static(if is_tls { "443" } else { "80" }))
}

/// RFC 7239 §4. The host is quoted: it may have a port.
fn forwarded_element(peer: &PeerHeaders, host: Option<&HeaderValue>) -> String {
    let mut element = match &peer.ip {
        Some((IpAddr::V4(ip), _)) => format!("for={ip}"),
        Some((IpAddr::V6(ip), _)) => format!("for=\"[{ip}]\""),
        None => "for=unknown".to_owned(),
    };
    if let Some(host) = host.and_then(|host| host.to_str().ok()).filter(|host| is_valid_host(host.as_bytes()))
    {
        let _ = write!(element, ";host=\"{host}\"");
    }
    element.push_str(if peer.tls { ";proto=https" } else { ";proto=http" });
    element
}

/// All lines of a field as one; `None` when there are no items in them.
fn join_lines(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines = headers.get_all(name).iter().map(|line| trim_ows(line.as_bytes()));
    let lines = lines.filter(|line| line.iter().any(|byte| !b" \t,".contains(byte)));
    lines.fold(None, |joined, line| Some(append(joined, line)))
}

fn append(joined: Option<Vec<u8>>, item: &[u8]) -> Vec<u8> {
    let mut joined = joined.unwrap_or_default();
    if !joined.is_empty() {
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(item);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::map;

    const PEER: &str = "10.0.0.9";

    /// The fields after `apply`, sorted, without `host`.
    fn applied(
        setting: TrustSetting,
        peer: Option<&str>,
        emit: bool,
        fields: &[(&str, &str)],
    ) -> Vec<String> {
        let mut headers = map(&[&[("host", "a.example")], fields].concat());
        let peer: Option<IpAddr> = peer.map(|ip| ip.parse().unwrap());
        let client = Trust::new(setting).unwrap().resolve(peer, false, &headers);
        apply(&mut headers, &client, &PeerHeaders::new(peer, 8080, false), emit);
        let mut lines: Vec<String> = headers
            .iter()
            .filter(|(name, _)| *name != HOST)
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort_unstable();
        lines
    }

    const OURS: [&str; 4] = [
        "x-forwarded-for: 10.0.0.9",
        "x-forwarded-host: a.example",
        "x-forwarded-port: 8080",
        "x-forwarded-proto: http",
    ];

    const CLAIMED: [(&str, &str); 14] = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
        ("x_forwarded_for", "6.6.6.6"),
        ("x.forwarded-proto", "https"),
        ("X-Forwarded_Host", "evil"),
        ("x-forwarded-prefix", "/p"),
        ("x_forwarded_prefix", "/q"),
        ("x-forwarded", "for=6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "1.1.1.1"),
        ("x_real_ip", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwardedness", "kept"),
    ];

    #[test]
    fn an_untrusted_peer_is_not_repeated() {
        assert_eq!(applied(TrustSetting::None, Some(PEER), false, &[]), OURS);
        let mut want = OURS.to_vec();
        want.push("x-forwardedness: kept");
        assert_eq!(applied(TrustSetting::None, Some(PEER), false, &CLAIMED), want);
    }

    #[test]
    fn a_trusted_peer_is_extended() {
        assert_eq!(
            applied(TrustSetting::All, Some(PEER), false, &CLAIMED),
            [
                "x-forwarded-for: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.9",
                "x-forwarded-host: shop.example",
                "x-forwarded-port: 443",
                "x-forwarded-prefix: /p",
                "x-forwarded-proto: https",
                "x-forwarded: for=6.6.6.6",
                "x-forwardedness: kept",
                "x-real-ip: 1.1.1.1",
            ]
        );
        assert_eq!(applied(TrustSetting::Hops(1), Some(PEER), false, &[]), OURS);
    }

    #[test]
    fn invalid_claims_of_a_trusted_peer_are_replaced() {
        let junk = [
            ("x-forwarded-for", " , "),
            ("x-forwarded-proto", "ht tp, https"),
            ("x-forwarded-host", "a b"),
            ("x-forwarded-port", "99999"),
        ];
        assert_eq!(applied(TrustSetting::All, Some(PEER), false, &junk), OURS);
    }

    #[test]
    fn the_port_follows_what_the_trusted_peer_said() {
        for (fields, port) in [
            (&[("x-forwarded-port", "444, 1")][..], "444, 1"),
            (&[("x-forwarded-proto", "wss")], "443"),
            (&[("x-forwarded-proto", "http")], "80"),
            (&[("x-forwarded-host", "b:8443"), ("x-forwarded-proto", "https")], "8443"),
            (&[("x-forwarded-host", "[::1]")], "80"),
            (&[("x-forwarded-host", "[::1]:81")], "81"),
            (&[("x-forwarded-host", "b, c:9")], "80"),
        ] {
            let lines = applied(TrustSetting::All, Some(PEER), false, fields);
            assert!(lines.contains(&format!("x-forwarded-port: {port}")), "{fields:?}: {lines:?}");
        }
    }

    #[test]
    fn a_unix_socket_has_no_address() {
        let xff = [("x-forwarded-for", "1.1.1.1")];
        assert_eq!(applied(TrustSetting::None, None, false, &xff), OURS[1..]);
        let mut want = OURS.to_vec();
        want[0] = "x-forwarded-for: 1.1.1.1";
        assert_eq!(applied(TrustSetting::All, None, false, &xff), want);
    }

    #[test]
    fn forwarded_is_said_only_when_asked_for() {
        let line = |setting, peer, fields: &[(&str, &str)]| {
            applied(setting, peer, true, fields)
                .into_iter()
                .find(|line| line.starts_with("forwarded"))
                .unwrap()
        };
        let before = [("forwarded", "for=1.1.1.1"), ("forwarded", "for=2.2.2.2")];
        assert_eq!(
            line(TrustSetting::None, Some(PEER), &before),
            "forwarded: for=10.0.0.9;host=\"a.example\";proto=http"
        );
        assert_eq!(
            line(TrustSetting::All, Some("::1"), &before),
            "forwarded: for=1.1.1.1, for=2.2.2.2, for=\"[::1]\";host=\"a.example\";proto=http"
        );
        assert_eq!(
            line(TrustSetting::All, None, &[]),
            "forwarded: for=unknown;host=\"a.example\";proto=http"
        );
        assert!(applied(TrustSetting::All, Some(PEER), false, &before) == OURS);
    }
}
