//! Who the client is: Express 5's `req.ip`, `req.protocol`, `req.secure`, `req.host` (contract §6), down to how Node joins
//! repeated lines.
//!
//! Read after `framing` (which settles `Host`) and before [`super::forwarded::apply`] rewrites what is read here. Knows
//! no session. Tests: below and `tests/it/trust_table.rs`.

use super::names::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, trim_ows};
use super::trust::Trust;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::ops::Range;

/// The client as the trust rule names it. Owns what it shows without copying text, so the headers may change afterwards.
#[derive(Debug, Clone)]
pub struct Client {
    /// `req.ip`
    pub addr: ClientAddr,
    /// `req.protocol`
    pub proto: Proto,
    /// `req.secure`: `proto` is exactly `https`.
    pub secure: bool,
    /// `req.host`, with the port, as sent; `None` where Express has `undefined`. From a trusted peer it may be any text.
    pub host: Option<HeaderSlice>,
    /// The socket's other end is believed.
    pub peer_trusted: bool,
}

/// The client's address.
#[derive(Debug, Clone)]
pub enum ClientAddr {
    /// A unix socket's other end, with nothing believed about it.
    Unknown,
    /// The socket's other end.
    Peer(IpAddr),
    /// An item of `X-Forwarded-For`, verbatim: any text, also junk such as `unknown` or `1.2.3.4:555`.
    Forwarded(HeaderSlice),
}

impl fmt::Display for ClientAddr {
    /// The address; `-` when unknown. Junk is shown with `?` for bytes outside visible ASCII: safe in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("-"),
            Self::Peer(ip) => ip.fmt(f),
            Self::Forwarded(item) => item.fmt(f),
        }
    }
}

/// The protocol between the client and the first proxy.
#[derive(Debug, Clone)]
pub enum Proto {
    /// `http`
    Http,
    /// `https`
    Https,
    /// Anything else that a trusted peer sent, verbatim; may be empty.
    Other(HeaderSlice),
}

impl Proto {
    /// The exact text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Http => b"http",
            Self::Https => b"https",
            Self::Other(text) => text.as_bytes(),
        }
    }

    const fn of(tls: bool) -> Self {
        if tls { Self::Https } else { Self::Http }
    }
}

/// A part of a field's value, kept alive by reference count.
#[derive(Clone)]
pub struct HeaderSlice {
    line: HeaderValue,
    range: Range<usize>,
}

impl HeaderSlice {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.line.as_bytes().get(self.range.clone()).unwrap_or_default()
    }

    /// `part` must be a slice of `line`.
    fn new(line: &HeaderValue, part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).saturating_sub(line.as_bytes().as_ptr() as usize);
        Self { line: line.clone(), range: start..start + part.len() }
    }
}

impl fmt::Display for HeaderSlice {
    /// Bytes outside visible ASCII as `?`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| f.write_char(if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }))
    }
}

impl fmt::Debug for HeaderSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl Trust {
    /// Reads the client's address, protocol and host. `peer` is the socket's other end (`None`: a unix socket), `tls`
    /// whether TLS ends here.
    #[must_use]
    pub fn resolve(&self, peer: Option<IpAddr>, tls: bool, headers: &HeaderMap) -> Client {
        let host = || {
            headers
                .get(HOST)
                .filter(|host| !host.is_empty())
                .map(|host| HeaderSlice::new(host, host.as_bytes()))
        };
        let socket = peer.map_or(ClientAddr::Unknown, ClientAddr::Peer);
        if !self.trusts_peer(peer) {
            return Client {
                addr: socket,
                proto: Proto::of(tls),
                secure: tls,
                host: host(),
                peer_trusted: false,
            };
        }
        let addr = self.last_believed(headers).map_or(socket, ClientAddr::Forwarded);
        let proto = match first_item(headers, &X_FORWARDED_PROTO) {
            None => Proto::of(tls),
            Some(item) => match trim_js(item.text) {
                b"http" => Proto::Http,
                b"https" => Proto::Https,
                other => Proto::Other(HeaderSlice::new(item.line, other)),
            },
        };
        let host = match first_item(headers, &X_FORWARDED_HOST) {
            None => host(),
            Some(item) => {
                // Express trims here only what it cut at a comma.
                let text = if item.is_cut { trim_js_end(item.text) } else { item.text };
                (!text.is_empty()).then(|| HeaderSlice::new(item.line, text))
            }
        };
        Client { addr, secure: matches!(proto, Proto::Https), proto, host, peer_trusted: true }
    }

    /// Walks `X-Forwarded-For` from the right, past items that are trusted; `None` when it has no items.
    fn last_believed(&self, headers: &HeaderMap) -> Option<HeaderSlice> {
        let mut answer = None;
        let mut distance = 1;
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            let items = line.as_bytes().rsplit(|byte| *byte == b',').map(trim_blanks);
            for item in items.filter(|item| !item.is_empty()) {
                answer = Some((line, item));
                if !self.trusts_item(item, distance) {
                    return Some(HeaderSlice::new(line, item));
                }
                distance += 1;
            }
        }
        answer.map(|(line, item)| HeaderSlice::new(line, item))
    }
}

/// Whether cookies count this request as secure: express-session's `issecure` (contract §6). `proxy` is
/// `session.proxy`; `headers` as received, before [`super::forwarded::apply`].
#[must_use]
pub fn session_secure(proxy: Option<bool>, tls: bool, client: &Client, headers: &HeaderMap) -> bool {
    tls || match proxy {
        Some(false) => false,
        None => client.secure,
        Some(true) => first_item(headers, &X_FORWARDED_PROTO)
            .is_some_and(|item| trim_js(item.text).eq_ignore_ascii_case(b"https")),
    }
}

/// The text before the first comma of a field as Node shows it: repeated lines joined with `, `.
pub(super) struct FirstItem<'h> {
    pub(super) line: &'h HeaderValue,
    pub(super) text: &'h [u8],
    /// There was a comma.
    pub(super) is_cut: bool,
}

/// `None` when Node shows nothing or an empty text.
pub(super) fn first_item<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<FirstItem<'h>> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    let whole = trim_ows(line.as_bytes());
    let is_only = lines.next().is_none();
    if whole.is_empty() && is_only {
        return None;
    }
    let text = whole.split(|byte| *byte == b',').next().unwrap_or(whole);
    Some(FirstItem { line, text, is_cut: !is_only || text.len() < whole.len() })
}

fn trim_blanks(mut item: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = item {
        item = rest;
    }
    item
}

/// JavaScript's `trim` on Latin-1: a no-break space counts.
fn trim_js(item: &[u8]) -> &[u8] {
    let mut item = trim_js_end(item);
    while let [b' ' | b'\t' | 0xa0, rest @ ..] = item {
        item = rest;
    }
    item
}

fn trim_js_end(mut item: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t' | 0xa0] = item {
        item = rest;
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::map;
    use crate::headers::trust::TrustSetting;

    const PEER: &str = "10.0.0.9";

    #[test]
    fn what_is_shown_is_safe_in_a_log_line() {
        let trust = Trust::new(TrustSetting::All).unwrap();
        let addr = |value: &str| {
            trust.resolve(PEER.parse().ok(), false, &map(&[("x-forwarded-for", value)])).addr.to_string()
        };
        assert_eq!(addr("a\u{e9} \"b, 1.1.1.1"), "a???\"b");
        assert_eq!(addr(""), PEER);
        assert_eq!(trust.resolve(None, false, &HeaderMap::new()).addr.to_string(), "-");
    }

    #[test]
    fn slices_outlive_changes_of_the_map() {
        let mut headers = map(&[("x-forwarded-for", "8.8.8.8 , 9.9.9.9"), ("x-forwarded-proto", "ftp , x")]);
        let client = Trust::new(TrustSetting::All).unwrap().resolve(PEER.parse().ok(), true, &headers);
        headers.clear();
        assert_eq!(client.addr.to_string(), "8.8.8.8");
        assert_eq!(client.proto.as_bytes(), b"ftp");
        assert!(!client.secure && session_secure(None, true, &client, &headers));
    }
}
