//! Trailers, and the `Trailer` line that announces them: what may stand behind a body, in both directions.
//!
//! Many programs merge trailers into the head, so nothing passes that a head would lose, under any spelling: reserved names,
//! fields of one connection, and what RFC 9110 §6.5.1 keeps out of trailers (framing, routing, credentials, cookies). Over
//! HTTP/1.1 hyper sends only trailers that are announced, so the line matters as much as the fields. Tests: below.

use super::names::{begins_folded, folds_to, list_items, remove_where};
use super::reserved::ReservedNames;
use http::header::TRAILER;
use http::{HeaderMap, HeaderValue};

/// Removes from trailers what must not be there; the number of lines removed. For both directions; the update headers are
/// taken out before, names with `_` in a request by [`super::reserved::apply_underscore`] after.
pub fn clean_trailers(trailers: &mut HeaderMap, reserved: &ReservedNames) -> usize {
    remove_where(trailers, |name| reserved.is_reserved(name) || is_forbidden(name.as_str().as_bytes()))
}

/// Takes the names that are `unwanted` out of `Trailer`, and the field itself when nothing else is announced. Other lists
/// stay byte-identical.
pub(super) fn strip_announced(headers: &mut HeaderMap, unwanted: impl Fn(&[u8]) -> bool) {
    if !list_items(headers, &TRAILER).any(&unwanted) {
        return;
    }
    let kept: Vec<&[u8]> = list_items(headers, &TRAILER).filter(|item| !unwanted(item)).collect();
    let list = if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept.join(&b", "[..])).ok() };
    match list {
        Some(list) => drop(headers.insert(TRAILER, list)),
        None => drop(headers.remove(TRAILER)),
    }
}

/// Whether a field of this name, under the fold, may not be a trailer.
pub(super) fn is_forbidden(name: &[u8]) -> bool {
    /// Sorted by what they would do: framing and the connection; routing and the client's address; credentials; what
    /// controls caches; what describes the content.
    const NAMES: [&[u8]; 34] = [
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"max-forwards",
        b"proxy",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"forwarded",
        b"host",
        b"location",
        b"x-real-ip",
        b"x-request-id",
        b"authorization",
        b"cookie",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"set-cookie",
        b"set-cookie2",
        b"www-authenticate",
        b"age",
        b"alt-svc",
        b"cache-control",
        b"date",
        b"expires",
        b"vary",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"range",
    ];
    NAMES.iter().any(|forbidden| folds_to(name, forbidden)) || begins_folded(name, b"x-forwarded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn map(names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("v"));
        }
        headers
    }

    const GONE: [&str; 14] = [
        "set_cookie",
        "Set-Cookie",
        "content-length",
        "Transfer_Encoding",
        "transfer.encoding",
        "TE",
        "Host",
        "Trailer",
        "x-session-update",
        "X_Session",
        "x_forwarded.for",
        "x-forwarded-proto",
        "connection",
        "keep_alive",
    ];
    const KEPT: [&str; 6] = ["server-timing", "content-digest", "grpc-status", "etag", "x-checksum", "tea"];

    #[test]
    fn what_a_head_would_lose_is_no_trailer_under_any_spelling() {
        let mut trailers = map(&[GONE.as_slice(), KEPT.as_slice()].concat());
        let reserved = ReservedNames::new("X-Session", [].iter());
        assert_eq!(clean_trailers(&mut trailers, &reserved), GONE.len());
        assert_eq!(trailers, map(&KEPT));
    }

    #[test]
    fn nor_is_it_announced() {
        let reserved = ReservedNames::new("X-Session", [].iter());
        for gone in GONE {
            let mut headers = HeaderMap::new();
            headers.insert(TRAILER, HeaderValue::try_from(format!("ETag,{gone} ,tea")).unwrap());
            reserved.strip_trailer_names(&mut headers);
            assert_eq!(headers[TRAILER], "ETag, tea", "{gone}");
        }
    }
}
