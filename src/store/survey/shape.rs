//! What an id and a sealed text look like from outside: guesses by length and alphabet, without a key. Pure. Tests: here.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// What a stored session's id looks like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdShape {
    /// express-session's own: 32 characters of base64url.
    Express,
    /// Hexadecimal digits, as many as a hash has: 32, 40, 64 or 128.
    Hex(usize),
    /// Base64 of 20, 32 or 64 bytes, as of a hash: how many bytes.
    Base64(usize),
    /// A UUID.
    Uuid,
    /// Text up to a separator, then one of the others. `None`: not shown, because most ids begin otherwise or it is no name.
    Prefixed(Option<String>, Box<Self>),
    /// Any other text.
    Other,
    /// No text at all: the name of its type.
    NoText(&'static str),
}

/// How a session was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealFormat {
    /// connect-mongo's Web Crypto adapter: base64, base64url or hex of iv and ciphertext.
    WebCrypto,
    /// kruptein, connect-mongo's `crypto` option: base64, base64url or hex of DER.
    Kruptein,
    /// The `secret` option of connect-mongo 3: JSON with `hmac` and `ct`.
    ConnectMongo3,
}

/// The shortest sealed text: an iv of 12 bytes, a tag of 16, and `{}`.
const SHORTEST_SEALED: usize = 30;
/// A longer prefix is none.
const LONGEST_PREFIX: usize = 64;
/// A longer prefix may be part of a secret, whoever shares it. Characters.
const LONGEST_SHOWN: usize = 24;

/// What `id` looks like.
pub(super) fn id_shape(id: &str) -> IdShape {
    if let Some(shape) = bare_shape(id) {
        return shape;
    }
    // The shortest prefix wins; it ends with something that no id begins with.
    let ends = id.char_indices().filter(|(_, c)| matches!(c, ':' | '.' | '/' | '|' | '_' | '-' | '#' | '~'));
    for (at, separator) in ends.take_while(|(at, _)| *at < LONGEST_PREFIX) {
        let (prefix, rest) = id.split_at(at + separator.len_utf8());
        if let Some(shape) = bare_shape(rest) {
            return IdShape::Prefixed(Some(prefix.to_owned()), Box::new(shape));
        }
    }
    IdShape::Other
}

/// May a prefix that many ids share be shown? Only what is short and cannot be somebody's address.
pub(super) fn is_showable(prefix: &str) -> bool {
    prefix.chars().count() <= LONGEST_SHOWN && !prefix.chars().any(|c| c == '@' || c.is_control())
}

fn bare_shape(id: &str) -> Option<IdShape> {
    let all = |test: fn(&u8) -> bool| id.bytes().all(|byte| test(&byte));
    let is_hex = all(u8::is_ascii_hexdigit);
    let is_url_safe = all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_hex && matches!(id.len(), 32 | 40 | 64 | 128) {
        return Some(IdShape::Hex(id.len()));
    }
    if id.len() == 36 && is_uuid(id) {
        return Some(IdShape::Uuid);
    }
    if is_url_safe && id.len() == 32 {
        return Some(IdShape::Express);
    }
    let plain = id.trim_end_matches('=');
    let is_base64 =
        plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/'));
    let bytes = match plain.len() {
        27 => 20,
        43 => 32,
        86 => 64,
        _ => return None,
    };
    is_base64.then_some(IdShape::Base64(bytes))
}

fn is_uuid(id: &str) -> bool {
    id.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

/// How `text`, which is no session's JSON, was sealed; `None` when it does not look sealed.
pub(super) fn seal_of(text: &str) -> Option<SealFormat> {
    let text = text.trim();
    if text.starts_with("{\"hmac\":") || text.starts_with("\"{\\\"hmac\\\":") {
        return Some(SealFormat::ConnectMongo3);
    }
    let bytes = decoded(text)?;
    if is_der_sequence(&bytes) {
        return Some(SealFormat::Kruptein);
    }
    // A word happens to be base64 too; ciphertext has bytes that no text has.
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    (bytes.len() >= SHORTEST_SEALED && !is_text).then_some(SealFormat::WebCrypto)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    if text.len().is_multiple_of(2) && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        return text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    }
    STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()
}

/// A DER sequence that fills all the bytes.
fn is_der_sequence(bytes: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = bytes else { return false };
    let octets = usize::from(length & 0x7f);
    if *length < 0x80 {
        return octets == rest.len();
    }
    if octets > 4 || rest.len() < octets {
        return false;
    }
    let (length, content) = rest.split_at(octets);
    length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) == content.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_by_their_looks() {
        let express = "aZ09-_aZ09-_aZ09-_aZ09-_aZ09-_aZ";
        let prefixed =
            |prefix: &str, shape: IdShape| IdShape::Prefixed(Some(prefix.to_owned()), Box::new(shape));
        for (id, shape) in [
            (express.to_owned(), IdShape::Express),
            ("0123456789abcdef".repeat(2), IdShape::Hex(32)),
            ("0123456789abcdef".repeat(4), IdShape::Hex(64)),
            ("ab12".repeat(10), IdShape::Hex(40)),
            (format!("{}=", "aB+/".repeat(10) + "xyz"), IdShape::Base64(32)),
            ("6f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0".to_owned(), IdShape::Uuid),
            (format!("sess:{express}"), prefixed("sess:", IdShape::Express)),
            (format!("app:sess:{express}"), prefixed("app:sess:", IdShape::Express)),
            (format!("s_{}", "ab".repeat(32)), prefixed("s_", IdShape::Hex(64))),
            ("user-7".to_owned(), IdShape::Other),
            (String::new(), IdShape::Other),
            ("ü:é".to_owned(), IdShape::Other),
        ] {
            assert_eq!(id_shape(&id), shape, "{id}");
        }
    }

    #[test]
    fn sealed_texts_are_told_by_their_looks() {
        let cipher: Vec<u8> = (0..60_u8).map(|byte| byte.wrapping_mul(37).wrapping_add(200)).collect();
        let der: Vec<u8> = [&[0x30, 0x81, 60][..], &cipher].concat();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (text, seal) in [
            (STANDARD.encode(&cipher), Some(SealFormat::WebCrypto)),
            (URL_SAFE_NO_PAD.encode(&cipher), Some(SealFormat::WebCrypto)),
            (hex(&cipher), Some(SealFormat::WebCrypto)),
            (STANDARD.encode(&der), Some(SealFormat::Kruptein)),
            (hex(&der), Some(SealFormat::Kruptein)),
            (r#"{"hmac":"a","ct":"b"}"#.to_owned(), Some(SealFormat::ConnectMongo3)),
            (r#""{\"hmac\":\"a\"}""#.to_owned(), Some(SealFormat::ConnectMongo3)),
            (r#"{"cookie":{},"a":1}"#.to_owned(), None),
            ("hello".to_owned(), None),
            (STANDARD.encode("a text that is only base64 of more text"), None),
            (STANDARD.encode([200; 20]), None),
            (String::new(), None),
        ] {
            assert_eq!(seal_of(&text), seal, "{text}");
        }
    }
}
