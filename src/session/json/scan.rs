//! JSON text without a tree: the fast path of every request.
//!
//! Tests: below, and `tests/it/cookie_table.rs` against Node.

use super::lex::{Facts, JsonError, JsonErrorKind, Sink, walk};
use super::string::{JsStr, push_unit};
use std::ops::Range;

/// One top-level member of a scanned object, in the order of the text; duplicates come as often as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// The key as the text writes it.
    pub key: RawStr<'a>,
    /// Byte offset of the key's opening quote.
    pub start: usize,
    /// Byte range of the value, without white space around it.
    pub value: Range<usize>,
}

/// A string as a JSON text writes it, without the quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawStr<'a>(&'a str);

impl<'a> RawStr<'a> {
    /// The text between the quotes.
    pub fn as_raw(&self) -> &'a str {
        self.0
    }

    /// Whether it spells `plain`: `coo\u006bie` is `cookie`.
    pub fn is(&self, plain: &str) -> bool {
        if self.0.contains('\\') { JsStr::from_plain(plain) == self.to_js() } else { self.0 == plain }
    }

    /// The string in its one canonical spelling; two keys are the same when these are equal.
    pub fn to_js(&self) -> JsStr {
        JsStr::from_raw(self.0)
    }
}

/// What a scan found out about the text as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Every byte is in 0x20..=0x7e: fit for a header as it is.
    pub ascii: bool,
    /// No white space outside strings.
    pub compact: bool,
    /// Number of top-level members.
    pub members: usize,
}

/// Validates `text` as one JSON object (the grammar and depth rule of [`super::Json::parse`]) and shows each top-level member.
/// Allocates nothing up to depth 64. The members seen before an error were well formed, but the text is not.
///
/// # Errors
/// As [`super::Json::parse`]; a valid beginning of anything but an object is [`JsonErrorKind::NotAnObject`].
pub fn scan_object<'a>(
    text: &'a str,
    max_depth: usize,
    visit: impl FnMut(Member<'a>),
) -> Result<Shape, JsonError> {
    let begin = text.bytes().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    if let Some(at) = begin
        && matches!(text.as_bytes()[at], b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
    {
        return Err(JsonError { at, kind: JsonErrorKind::NotAnObject });
    }
    let mut top = Top { text, visit, depth: 0, members: 0, key: 0..0, value: 0 };
    let Facts { ascii, compact } = walk(text, max_depth, &mut top)?;
    Ok(Shape { ascii, compact, members: top.members })
}

/// The sink that sees only what stands at depth 1.
struct Top<'a, V> {
    text: &'a str,
    visit: V,
    depth: usize,
    members: usize,
    key: Range<usize>,
    /// Where the value that is open at depth 1 begins.
    value: usize,
}

impl<'a, V: FnMut(Member<'a>)> Top<'a, V> {
    #[inline]
    fn complete(&mut self, value: Range<usize>) {
        if self.depth == 1 {
            self.members += 1;
            let key = self.key.clone();
            (self.visit)(Member { start: key.start - 1, key: RawStr(&self.text[key]), value });
        }
    }
}

impl<'a, V: FnMut(Member<'a>)> Sink for Top<'a, V> {
    #[inline]
    fn open(&mut self, _object: bool, at: usize) {
        if self.depth == 1 {
            self.value = at;
        }
        self.depth += 1;
    }

    #[inline]
    fn close(&mut self, end: usize) {
        self.depth -= 1;
        self.complete(self.value..end);
    }

    #[inline]
    fn key(&mut self, raw: Range<usize>) {
        if self.depth == 1 {
            self.key = raw;
        }
    }

    #[inline]
    fn string(&mut self, raw: Range<usize>) {
        self.complete(raw.start - 1..raw.end + 1);
    }

    #[inline]
    fn number(&mut self, raw: Range<usize>) {
        self.complete(raw);
    }

    #[inline]
    fn literal(&mut self, value: Option<bool>, end: usize) {
        let length = if value == Some(false) { 5 } else { 4 };
        self.complete(end - length..end);
    }
}

/// Appends valid JSON `text` without insignificant white space and as bytes 0x20..=0x7e only: everything else becomes `\uXXXX`,
/// astral characters a surrogate pair. Escapes of the source stay as they are.
pub fn compact_ascii(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len());
    let bytes = text.as_bytes();
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        let mut length = 1;
        match byte {
            b'"' => {
                in_string = !in_string;
                out.push(byte);
            }
            b'\\' if in_string && bytes.get(at + 1).is_some_and(u8::is_ascii_graphic) => {
                length = 2;
                out.extend_from_slice(&bytes[at..at + 2]);
            }
            b' ' if in_string => out.push(byte),
            0x21..=0x7e => out.push(byte),
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => {}
            _ => {
                let Some(wide) = text[at..].chars().next() else { return };
                length = wide.len_utf8();
                for unit in wide.encode_utf16(&mut [0; 2]) {
                    push_unit(*unit, |text| out.extend_from_slice(text));
                }
            }
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Json;
    use super::*;
    use proptest::prelude::*;

    fn members(text: &str) -> Vec<(&str, &str)> {
        let mut seen = Vec::new();
        let shape = scan_object(text, 64, |member| {
            assert_eq!(text.as_bytes()[member.start], b'"');
            seen.push((member.key.as_raw(), &text[member.value]));
        });
        assert_eq!(shape.unwrap().members, seen.len());
        seen
    }

    #[test]
    fn only_the_top_level_is_shown() {
        let text = " { \"a\" : {\"x\":[1,{}]} ,\"b\\u0061\":[ ], \"c\":-1.5e3\n,\"d\":\"}\\\"\",\"e\":false,\"a\":null , \"f\":true} ";
        let expected = [
            ("a", "{\"x\":[1,{}]}"),
            ("b\\u0061", "[ ]"),
            ("c", "-1.5e3"),
            ("d", "\"}\\\"\""),
            ("e", "false"),
            ("a", "null"),
            ("f", "true"),
        ];
        assert_eq!(members(text), expected);
        assert_eq!(members("{}"), []);
    }

    #[test]
    fn keys_are_compared_as_strings() {
        let is = |raw: &str, plain: &str| RawStr(raw).is(plain);
        assert!(
            is("cookie", "cookie")
                && is(r"coo\u006bie", "cookie")
                && is(r"a\/b", "a/b")
                && is("é", "é")
                && is(r"\u00E9", "é")
        );
        assert!(!is("cookie2", "cookie") && !is(r"coo\\u006bie", "cookie") && !is(r"\ud800", "\u{fffd}"));
    }

    #[test]
    fn the_shape_says_what_a_header_needs() {
        let shape = |text| scan_object(text, 9, |_| ()).map(|shape| (shape.ascii, shape.compact)).unwrap();
        assert_eq!(shape(r#"{"a b":[1,"x y"]}"#), (true, true));
        assert_eq!(shape(r#"{"a": 1}"#), (true, false));
        assert_eq!(shape("{\n}"), (false, false));
        assert_eq!(shape("{\"a\":\"é\"}"), (false, true));
        assert_eq!(shape("{\"a\u{7f}\":1}"), (false, true));
        assert_eq!(shape(" {}"), (true, false));
    }

    #[test]
    fn only_objects_are_taken() {
        let kind = |text: &str| scan_object(text, 2, |_| ()).map_err(|error| (error.at, error.kind));
        for other in ["[]", "null", "1", "\"a\"", "true", "-"] {
            assert_eq!(kind(other), Err((0, JsonErrorKind::NotAnObject)), "{other}");
        }
        assert_eq!(kind(" \n[]"), Err((2, JsonErrorKind::NotAnObject)));
        assert_eq!(kind(""), Err((0, JsonErrorKind::End)));
        assert_eq!(kind("x"), Err((0, JsonErrorKind::Unexpected)));
        assert_eq!(kind("{\"a\":[[]]}"), Err((6, JsonErrorKind::TooDeep)));
        assert_eq!(kind("{\"a\":1"), Err((6, JsonErrorKind::End)));
    }

    #[test]
    fn compacting_leaves_visible_ascii_and_the_same_value() {
        let text = " {\"a\\\\\" : \"é\u{7f} \\\"x \u{1f600}\\n\\ud800\" ,\n\"b\":[ 1 , 2 ] }";
        let mut out = Vec::new();
        compact_ascii(text, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, r#"{"a\\":"\u00e9\u007f \"x \ud83d\ude00\n\ud800","b":[1,2]}"#);
        assert_eq!(Json::parse(&out, 9), Json::parse(text, 9));
    }

    proptest! {
        #[test]
        fn compacting_any_text_gives_visible_ascii(text in "\\PC*|[\"\\\\ a\u{7f}\u{0}é😀\n]*") {
            let mut out = Vec::new();
            compact_ascii(&text, &mut out);
            prop_assert!(out.iter().all(|byte| (0x20..=0x7e).contains(byte)));
        }

        #[test]
        fn scan_and_parse_agree(text in r#"\{[\[\]{}:,"a01.e\-\\unltrf ]{0,14}\}|\{"a":[\[\]{}:,"a0]{0,10}\}"#) {
            let parsed = Json::parse(&text, 3);
            prop_assert_eq!(scan_object(&text, 3, |_| ()).map(|_| ()), parsed.map(|_| ()));
        }
    }
}
