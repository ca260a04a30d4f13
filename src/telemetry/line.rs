//! How a line of the access log looks, written by hand into a buffer. Pure; tests at the end of this file.
//!
//! It must not know sids (only fingerprints), cookies or payloads; what a stranger sent cannot leave its field.

use crate::session::Millis;
use crate::session::date::iso_bytes;
use http::{Method, Version};
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

/// What one line says. Text from strangers is escaped here.
#[derive(Debug, Clone, Copy)]
pub struct AccessLine<'a> {
    /// When the request began.
    pub time: Millis,
    /// Who the trust rule says the client is; `None` for a unix socket.
    pub client: Option<IpAddr>,
    /// The method.
    pub method: &'a Method,
    /// The host asked for, as received.
    pub host: &'a [u8],
    /// Path and query as received.
    pub path: &'a str,
    /// The status sent.
    pub status: u16,
    /// Body bytes sent.
    pub bytes: u64,
    /// From the request's head to the answer's last byte.
    pub duration: Duration,
    /// The upstream's name, if one was asked.
    pub upstream: Option<&'a str>,
    /// The session's fingerprint, never the sid.
    pub session: Option<&'a str>,
    /// What became of the session, one word.
    pub outcome: &'static str,
    /// Why the answer is an error of ours, one word.
    pub reason: Option<&'static str>,
    /// `X-Request-Id`
    pub request_id: &'a str,
    /// The downstream protocol.
    pub version: Version,
    /// TLS ended here.
    pub tls: bool,
}

pub(super) fn render_json(out: &mut Vec<u8>, line: &AccessLine<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(&iso_bytes(line.time));
    out.push(b'"');
    if let Some(client) = line.client {
        // Writing into a vector cannot fail.
        let _ = write!(out, ",\"client\":\"{client}\"");
    }
    push_member(out, "method", line.method.as_str().as_bytes());
    push_member(out, "host", line.host);
    push_member(out, "path", line.path.as_bytes());
    let micros = line.duration.as_micros();
    let _ = write!(
        out,
        ",\"status\":{},\"bytes\":{},\"ms\":{}.{:03}",
        line.status,
        line.bytes,
        micros / 1000,
        micros % 1000
    );
    for (name, value) in [
        ("upstream", line.upstream),
        ("session", line.session),
        ("outcome", Some(line.outcome)),
        ("reason", line.reason),
        ("id", Some(line.request_id)),
        ("protocol", Some(protocol(line.version))),
    ] {
        if let Some(value) = value {
            push_member(out, name, value.as_bytes());
        }
    }
    out.extend_from_slice(if line.tls { b",\"tls\":true}\n" } else { b",\"tls\":false}\n" });
}

fn push_member(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    push_json_text(out, value);
    out.push(b'"');
}

/// The inside of a JSON string. What is not UTF-8 becomes U+FFFD, as a reader of JSON expects.
fn push_json_text(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(|b| matches!(b, 0x20..0x7f) && *b != b'"' && *b != b'\\') {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                c if c.is_control() => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

pub(super) fn render_text(out: &mut Vec<u8>, line: &AccessLine<'_>) {
    out.extend_from_slice(&iso_bytes(line.time)[11..19]);
    let _ = write!(out, " {} ", line.status);
    push_visible(out, line.method.as_str().as_bytes());
    out.push(b' ');
    push_visible(out, line.host);
    push_visible(out, line.path.as_bytes());
    let micros = line.duration.as_micros();
    let _ = write!(out, " {}.{}ms {}B", micros / 1000, micros % 1000 / 100, line.bytes);
    for (name, value) in [
        ("upstream", line.upstream),
        ("session", line.session),
        ("reason", line.reason),
        ("id", Some(line.request_id)),
    ] {
        if let Some(value) = value {
            let _ = write!(out, " {name}=");
            push_visible(out, value.as_bytes());
        }
    }
    let _ = write!(out, " outcome={} {}", line.outcome, protocol(line.version));
    if line.tls {
        out.extend_from_slice(b" tls");
    }
    if let Some(client) = line.client {
        let _ = write!(out, " client={client}");
    }
    out.push(b'\n');
}

/// Visible ASCII as it is, every other byte as `\xNN`: nothing a stranger sends can steer a terminal.
fn push_visible(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'!'..=b'~' => out.push(byte),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/3",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const NOON: Millis = 1_793_188_800_007;

    /// An ordinary line, for tests here and in `access`.
    pub(crate) fn line<'a>(host: &'a [u8], path: &'a str) -> AccessLine<'a> {
        AccessLine {
            time: NOON,
            client: Some(IpAddr::from([192, 0, 2, 7])),
            method: &Method::GET,
            host,
            path,
            status: 200,
            bytes: 1234,
            duration: Duration::from_micros(5_042),
            upstream: Some("app"),
            session: Some("0123456789"),
            outcome: "live",
            reason: None,
            request_id: "r-1",
            version: Version::HTTP_11,
            tls: true,
        }
    }

    fn json(line: &AccessLine<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        render_json(&mut out, line);
        assert_eq!(out.pop(), Some(b'\n'));
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_json_line_is_json_and_says_everything() {
        let expected = serde_json::json!({
            "time": "2026-10-28T12:00:00.007Z", "client": "192.0.2.7", "method": "GET", "host": "example.com",
            "path": "/a?b=c", "status": 200, "bytes": 1234, "ms": 5.042, "upstream": "app", "session": "0123456789",
            "outcome": "live", "id": "r-1", "protocol": "HTTP/1.1", "tls": true,
        });
        assert_eq!(json(&line(b"example.com", "/a?b=c")), expected);
    }

    #[test]
    fn hostile_text_stays_inside_its_string() {
        let value = json(&line(b"a\"},{\"\\\n\x1b\xff\xc3\xa9", "/\u{7f}\u{9b}\u{2028}ü\"\\"));
        assert_eq!(value["host"], "a\"},{\"\\\n\u{1b}\u{fffd}é");
        assert_eq!(value["path"], "/\u{7f}\u{9b}\u{2028}ü\"\\");
        let mut out = Vec::new();
        render_json(&mut out, &line(b"\x1b", "/\u{9b}"));
        assert!(!out.contains(&0x1b) && !out.contains(&0x9b));
    }

    #[test]
    fn a_text_line_holds_no_byte_that_steers_a_terminal() {
        let mut out = Vec::new();
        render_text(&mut out, &line(b"exa\x1b[2Jmple", "/\u{9b} \n"));
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("12:00:00 200 GET exa\\x1b[2Jmple/\\xc2\\x9b\\x20\\x0a 5.0ms 1234B "),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
