//! Identifiers of a request across programs: `X-Request-Id` and W3C Trace Context.
//!
//! Generates nothing (that needs randomness, which is the caller's). Knows no trust rule, only its answer. Tests: below.

use super::names::{TRACEPARENT, TRACESTATE, X_REQUEST_ID, folds_to, remove_where};
use http::{HeaderMap, HeaderValue};

/// Longest `X-Request-Id` that is kept, in bytes.
pub const MAX_REQUEST_ID: usize = 128;

/// The request id a trusted peer sent, when it is one line of 1 to [`MAX_REQUEST_ID`] visible ASCII bytes; it stays in the
/// headers. Otherwise every spelling is removed and the caller inserts an id of its own.
pub fn take_request_id(headers: &mut HeaderMap, peer_trusted: bool) -> Option<HeaderValue> {
    remove_where(headers, |name| {
        *name != X_REQUEST_ID && folds_to(name.as_str().as_bytes(), b"x-request-id")
    });
    let kept = {
        let mut lines = headers.get_all(X_REQUEST_ID).iter();
        let (line, more) = (lines.next()?, lines.next());
        let bytes = line.as_bytes();
        let is_sane =
            !bytes.is_empty() && bytes.len() <= MAX_REQUEST_ID && bytes.iter().all(u8::is_ascii_graphic);
        (peer_trusted && more.is_none() && is_sane).then(|| line.clone())
    };
    if kept.is_none() {
        headers.remove(X_REQUEST_ID);
    }
    kept
}

/// Drops `traceparent` unless it is exactly one line of valid syntax (W3C Trace Context §3.2), and `tracestate`
/// with it.
pub fn clean_trace_context(headers: &mut HeaderMap) {
    let is_valid = {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        matches!((lines.next(), lines.next()), (Some(line), None) if is_traceparent(line.as_bytes()))
    };
    if !is_valid {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    }
}

fn is_traceparent(value: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let Some((head, rest)) = value.split_at_checked(55) else { return false };
    let (version, trace, parent, flags) = (&head[..2], &head[3..35], &head[36..52], &head[53..]);
    let has_dashes = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
    // A future version may go on behind another dash; version 00 may not.
    let ends_well = rest.is_empty() || (version != b"00" && rest[0] == b'-');
    has_dashes
        && ends_well
        && [version, trace, parent, flags].into_iter().all(is_hex)
        && version != b"ff"
        && !is_zero(trace)
        && !is_zero(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn request_ids() {
        let take = |values: &[&str], trusted| {
            let mut headers = HeaderMap::new();
            headers.insert("x_request_id", HeaderValue::from_static("spelling"));
            for value in values {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let kept = take_request_id(&mut headers, trusted);
            assert_eq!(headers.get(X_REQUEST_ID), kept.as_ref());
            assert_eq!(headers.len(), usize::from(kept.is_some()));
            kept
        };
        let longest = "a".repeat(MAX_REQUEST_ID);
        for sane in ["a", "0af7-~!{}", &longest] {
            assert_eq!(take(&[sane], true).unwrap(), sane);
            assert_eq!(take(&[sane], false), None);
        }
        for bad in ["", "a b", "\u{e9}", &format!("{longest}a")] {
            assert_eq!(take(&[bad], true), None, "{bad}");
        }
        assert_eq!(take(&["a", "a"], true), None);
        assert_eq!(take(&[], true), None);
    }

    #[test]
    fn traceparents() {
        let keeps = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            for value in values {
                headers.append(TRACEPARENT, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            clean_trace_context(&mut headers);
            assert_eq!(headers.contains_key(TRACEPARENT), headers.contains_key(TRACESTATE));
            headers.contains_key(TRACEPARENT)
        };
        assert!(keeps(&[PARENT]));
        assert!(keeps(&[&format!("cc{}-what-the-future-brings", &PARENT[2..])]));
        assert!(!keeps(&[PARENT, PARENT]));
        assert!(!keeps(&[]));
        for bad in [
            String::new(),
            format!("{PARENT}-x"),
            format!("ff{}", &PARENT[2..]),
            format!("cc{}x", &PARENT[2..]),
            PARENT.to_uppercase(),
            PARENT[..54].to_owned(),
            PARENT.replace("-b7ad", "xb7ad"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16)),
        ] {
            assert!(!keeps(&[&bad]), "{bad}");
        }
    }
}
