//! JavaScript strings in the spelling that `JSON.stringify` gives them, so that lone surrogates survive in UTF-8 text.

use std::borrow::{Borrow, Cow};

/// A JavaScript string, held escaped exactly as `JSON.stringify` writes it, without the quotes. One string has one spelling, so
/// equality of text is equality of strings, and rendering is a copy.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct JsStr(Box<str>);

impl JsStr {
    /// From plain text.
    pub fn from_plain(plain: &str) -> Self {
        match escape(plain) {
            Cow::Borrowed(text) => Self(text.into()),
            Cow::Owned(text) => Self(text.into()),
        }
    }

    /// From what stands between the quotes of a valid JSON text.
    pub(super) fn from_raw(raw: &str) -> Self {
        if !raw.contains('\\') {
            return Self(raw.into());
        }
        let mut out = String::with_capacity(raw.len());
        for piece in Pieces(raw) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Char(decoded) => push_escaped(decoded, &mut out),
                Piece::Lone(unit) => push_unit(unit, |text| out.extend(text.iter().map(|b| char::from(*b)))),
            }
        }
        Self(out.into())
    }

    /// The plain text; a lone surrogate becomes U+FFFD.
    pub fn to_plain(&self) -> Cow<'_, str> {
        if !self.0.contains('\\') {
            return Cow::Borrowed(&self.0);
        }
        let mut out = String::with_capacity(self.0.len());
        for piece in Pieces(&self.0) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Char(decoded) => out.push(decoded),
                Piece::Lone(_) => out.push(char::REPLACEMENT_CHARACTER),
            }
        }
        Cow::Owned(out)
    }

    /// The escaped text, without quotes.
    pub fn as_escaped(&self) -> &str {
        &self.0
    }

    /// The number, when it is one of JavaScript's array indices: 0..=2^32-2, canonically spelt.
    pub(super) fn index(&self) -> Option<u32> {
        let canonical = match self.0.as_bytes() {
            [b'0'] => true,
            [b'1'..=b'9', rest @ ..] => rest.len() < 10 && rest.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        canonical.then(|| self.0.parse().ok()).flatten().filter(|index| *index != u32::MAX)
    }
}

/// Looks up by the escaped text; its hash and equality are the same.
impl Borrow<str> for JsStr {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Plain text as `JSON.stringify` escapes it.
pub(super) fn escape(plain: &str) -> Cow<'_, str> {
    if plain.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        return Cow::Borrowed(plain);
    }
    let mut out = String::with_capacity(plain.len() + 8);
    plain.chars().for_each(|decoded| push_escaped(decoded, &mut out));
    Cow::Owned(out)
}

fn push_escaped(decoded: char, out: &mut String) {
    match decoded {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..='\u{1f}' => push_unit(decoded as u16, |text| out.extend(text.iter().map(|b| char::from(*b)))),
        _ => out.push(decoded),
    }
}

/// `\uXXXX` with lower-case digits, as JavaScript writes it.
pub(super) fn push_unit(unit: u16, mut push: impl FnMut(&[u8])) {
    let digit = |shift: u32| b"0123456789abcdef"[usize::from(unit >> shift & 15)];
    push(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

enum Piece<'a> {
    Text(&'a str),
    Char(char),
    Lone(u16),
}

/// Cuts a valid escaped text at its escapes and decodes them, surrogate pairs together.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let plain = self.0.find('\\').unwrap_or(self.0.len());
        if plain > 0 {
            let (text, rest) = self.0.split_at(plain);
            self.0 = rest;
            return Some(Piece::Text(text));
        }
        let letter = *self.0.as_bytes().get(1)?;
        if letter == b'u' {
            return self.unicode();
        }
        self.0 = self.0.get(2..)?;
        Some(Piece::Char(match letter {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            other => char::from(other),
        }))
    }
}

impl<'a> Pieces<'a> {
    fn unicode(&mut self) -> Option<Piece<'a>> {
        let first = unit(self.0)?;
        self.0 = self.0.get(6..)?;
        if let Some(decoded) = char::from_u32(u32::from(first)) {
            return Some(Piece::Char(decoded));
        }
        if let Some(second) = unit(self.0)
            && let Some(Ok(decoded)) = char::decode_utf16([first, second]).next()
        {
            self.0 = self.0.get(6..)?;
            return Some(Piece::Char(decoded));
        }
        Some(Piece::Lone(first))
    }
}

/// The unit of a `\uXXXX` at the beginning of `text`.
fn unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_string_has_one_spelling() {
        for (raw, escaped) in [
            (r"a\/b", "a/b"),
            (r"\u0061\u00E9\u007f", "aé\u{7f}"),
            (r"\u0000\u001F\u000a\u0008\u000C\u000d\u0009", r"\u0000\u001f\n\b\f\r\t"),
            (r"\u0022\u005c", r#"\"\\"#),
            (r"\uD83D\uDE00", "😀"),
            (r"\uD83Dx\uDE00", r"\ud83dx\ude00"),
            (r"\uD83D\uD83D\uDE00", "\\ud83d😀"),
            (r"\uDE00\uD83D", r"\ude00\ud83d"),
            (r"\uD83D\u0041", r"\ud83dA"),
            (r"\uD83D\n", r"\ud83d\n"),
        ] {
            assert_eq!(JsStr::from_raw(raw).as_escaped(), escaped, "{raw}");
            assert_eq!(JsStr::from_raw(escaped).as_escaped(), escaped, "{raw}");
        }
    }

    #[test]
    fn plain_text_goes_in_and_comes_out() {
        for plain in ["", "a", "\u{0}\u{1f}\u{7f}\"\\/\u{2028}", "é😀", "\\u0041"] {
            assert_eq!(JsStr::from_plain(plain).to_plain(), plain);
        }
        assert_eq!(JsStr::from_raw(r"a\ud800b").to_plain(), "a\u{fffd}b");
    }

    #[test]
    fn array_indices_are_those_of_javascript() {
        let index = |text: &str| JsStr::from_plain(text).index();
        assert_eq!(index("0"), Some(0));
        assert_eq!(index("4294967294"), Some(4_294_967_294));
        for no in [
            "",
            "00",
            "01",
            "-1",
            "+1",
            "4294967295",
            "4294967296",
            "9999999999",
            "42949672940",
            "1.0",
            "1e3",
            "１",
        ] {
            assert_eq!(index(no), None, "{no}");
        }
    }
}
