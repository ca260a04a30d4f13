//! Bytes as text, as Node's `Buffer` writes and reads them: `hex`, `base64`, `base64url`.
//!
//! Node's reading is lenient. Followed as far as it loses nothing: white space, either alphabet, missing padding, capital digits. A
//! character that Node would skip in silence makes the text unreadable here. Tests: here.

use super::super::TextEncoding;
use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// `buffer.toString(encoding)`
pub(crate) fn encode(encoding: TextEncoding, bytes: &[u8]) -> String {
    match encoding {
        TextEncoding::Hex => {
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or_default()).collect()
        }
        TextEncoding::Base64 => STANDARD.encode(bytes),
        TextEncoding::Base64url => URL_SAFE_NO_PAD.encode(bytes),
    }
}

/// `Buffer.from(text, encoding)`; `None` for what is none.
pub(super) fn decode(encoding: TextEncoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        TextEncoding::Hex => {
            let digits = text.trim_ascii().as_bytes();
            let pairs = digits.chunks_exact(2);
            let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            let whole = pairs.remainder().is_empty();
            let bytes = pairs.map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?));
            if whole { bytes.collect() } else { None }
        }
        TextEncoding::Base64 | TextEncoding::Base64url => LENIENT.decode(&*standard(text)).ok(),
    }
}

/// In the standard alphabet and without white space; as it is when it is that already.
fn standard(text: &str) -> Cow<'_, [u8]> {
    let odd = |byte: u8| byte.is_ascii_whitespace() || byte == b'-' || byte == b'_';
    if !text.bytes().any(odd) {
        return Cow::Borrowed(text.as_bytes());
    }
    let bytes = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let standard = bytes.map(|byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    });
    Cow::Owned(standard.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_node() {
        let bytes = [0xfb, 0xef, 0xff, 0x00];
        assert_eq!(encode(TextEncoding::Hex, &bytes), "fbefff00");
        assert_eq!(encode(TextEncoding::Base64, &bytes), "++//AA==");
        assert_eq!(encode(TextEncoding::Base64url, &bytes), "--__AA");
    }

    #[test]
    fn what_node_reads_is_read() {
        let bytes = Some(vec![0xfb, 0xef, 0xff, 0x00]);
        for text in ["++//AA==", "--__AA", "++//AA", "+-/_\r\n AA==\n", "++//AB=="] {
            assert_eq!(decode(TextEncoding::Base64, text), bytes, "{text}");
            assert_eq!(decode(TextEncoding::Base64url, text), bytes, "{text}");
        }
        for text in ["fbefff00", "FBefFF00", " fbefff00\n"] {
            assert_eq!(decode(TextEncoding::Hex, text), bytes, "{text}");
        }
    }

    #[test]
    fn what_would_lose_something_is_none() {
        for text in ["{\"a\":1}", "++//A", "++=//", "++\u{fc}/", "a"] {
            assert_eq!(decode(TextEncoding::Base64, text), None, "{text}");
        }
        for text in ["f", "fg", "fbe", "\u{fc}\u{fc}", "fb ef", "+f"] {
            assert_eq!(decode(TextEncoding::Hex, text), None, "{text}");
        }
    }
}
