//! JSON as JavaScript reads and writes it, without losing a digit or a lone surrogate.
//!
//! Two ways in: [`scan_object`] validates a text and shows its top-level members without building anything (every request),
//! [`Json::parse`] builds a tree (updates, and stores that hold documents). `JSON.parse` and `JSON.stringify` are the reference,
//! except that numbers beyond `f64` keep their digits. Nothing here recurses, so no depth can overflow the stack.
//! Must not know: sessions, headers, stores. Tests: beside each file, and `tests/it/cookie_table.rs` against Node itself.

mod lex;
mod number;
mod object;
mod scan;
mod string;
mod tree;

pub use lex::{JsonError, JsonErrorKind};
pub use number::Number;
pub use object::{Array, Object};
pub use scan::{Member, RawStr, Shape, compact_ascii, scan_object};
pub use string::JsStr;

/// How deep a stored document may be nested; `{}` is 1. Above contract §3's 64 for updates, because other software wrote it, and
/// far below what any reader of such a document would survive.
pub const DOCUMENT_DEPTH: usize = 512;

/// How deep an update may be nested (contract §3); `{}` is 1.
pub const UPDATE_DEPTH: usize = 64;

/// One JSON value. Equality is that of JSON values: neither the order of keys nor the spelling of numbers counts.
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number, with all its digits.
    Number(Number),
    /// A string, lone surrogates included.
    String(JsStr),
    /// An array; a `Vec` in all but its `Drop`.
    Array(Array),
    /// An object in JavaScript's order of keys.
    Object(Object),
}

impl Json {
    /// Parses one value as `JSON.parse` does: RFC 8259, white space around it, no byte order mark. `{}` has depth 1.
    ///
    /// # Errors
    /// The byte offset of the first fault, or of the bracket that is deeper than `max_depth`.
    pub fn parse(text: &str, max_depth: usize) -> Result<Self, JsonError> {
        tree::parse(text, max_depth)
    }

    /// Appends the text that `JSON.stringify` would write.
    pub fn render(&self, out: &mut String) {
        tree::render(self, out);
    }

    /// The text that `JSON.stringify` would write.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.render(&mut out);
        out
    }

    /// A string value from plain text.
    pub fn string(plain: &str) -> Self {
        Self::String(JsStr::from_plain(plain))
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The object, if it is one.
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }
}
