//! The grammar of RFC 8259, once: [`walk`] reads a text and tells a [`Sink`] what it meets.
//!
//! Tests: `tree.rs` and `scan.rs`, which are its two sinks.

use std::ops::Range;

/// Where and why a text is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {at}")]
pub struct JsonError {
    /// Byte offset into the text.
    pub at: usize,
    /// What is wrong there.
    pub kind: JsonErrorKind,
}

/// What is wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// The text is over where something must follow.
    #[error("unexpected end")]
    End,
    /// A byte that the grammar does not allow there.
    #[error("unexpected character")]
    Unexpected,
    /// More nested brackets than allowed.
    #[error("nested too deeply")]
    TooDeep,
    /// A valid beginning, but not of an object.
    #[error("not an object")]
    NotAnObject,
}

/// Who listens to [`walk`]. Ranges are byte ranges of the text; those of strings are without the quotes.
pub(super) trait Sink {
    fn open(&mut self, object: bool, at: usize);
    fn close(&mut self, end: usize);
    fn key(&mut self, raw: Range<usize>);
    fn string(&mut self, raw: Range<usize>);
    fn number(&mut self, raw: Range<usize>);
    fn literal(&mut self, value: Option<bool>, end: usize);
}

/// Facts about a text as a whole, found on the way.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    /// Every byte is in 0x20..=0x7e.
    pub(super) ascii: bool,
    /// There is no white space outside strings.
    pub(super) compact: bool,
}

/// Reads the whole text as one JSON value.
pub(super) fn walk(text: &str, max_depth: usize, sink: &mut impl Sink) -> Result<Facts, JsonError> {
    let mut lexer = Lexer { bytes: text.as_bytes(), at: 0, facts: Facts { ascii: true, compact: true } };
    let mut nest = Nest::default();
    loop {
        lexer.skip_space();
        if lexer.value_begins(max_depth, &mut nest, sink)? {
            continue;
        }
        loop {
            lexer.skip_space();
            if nest.depth == 0 {
                return if lexer.at == text.len() { Ok(lexer.facts) } else { Err(lexer.fault()) };
            }
            match (lexer.peek(), nest.in_object()) {
                (Some(b','), true) => {
                    lexer.at += 1;
                    lexer.skip_space();
                    lexer.key(sink)?;
                    break;
                }
                (Some(b','), false) => {
                    lexer.at += 1;
                    break;
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    lexer.at += 1;
                    nest.depth -= 1;
                    nest.pop();
                    sink.close(lexer.at);
                }
                _ => return Err(lexer.fault()),
            }
        }
    }
}

/// Which of the open brackets are objects: a bit each, 64 of them without an allocation.
#[derive(Default)]
struct Nest {
    depth: usize,
    bits: u64,
    spilled: Vec<u64>,
}

impl Nest {
    #[inline]
    fn push(&mut self, object: bool) {
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.spilled.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(object);
        self.depth += 1;
    }

    /// After `depth` went down by one.
    #[inline]
    fn pop(&mut self) {
        self.bits >>= 1;
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.bits = self.spilled.pop().unwrap_or_default();
        }
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    facts: Facts,
}

impl Lexer<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fault(&self) -> JsonError {
        let kind = if self.at < self.bytes.len() { JsonErrorKind::Unexpected } else { JsonErrorKind::End };
        JsonError { at: self.at, kind }
    }

    #[inline]
    fn skip_space(&mut self) {
        if self.peek().is_some_and(|byte| byte > b' ') {
            return;
        }
        while let Some(byte @ (b' ' | b'\t' | b'\n' | b'\r')) = self.peek() {
            self.facts.compact = false;
            self.facts.ascii &= byte == b' ';
            self.at += 1;
        }
    }

    /// One scalar, or the opening of a bracket. True when another value must follow at once.
    #[inline]
    fn value_begins(
        &mut self,
        max_depth: usize,
        nest: &mut Nest,
        sink: &mut impl Sink,
    ) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b'"') => {
                let raw = self.quoted()?;
                sink.string(raw);
            }
            Some(b'-' | b'0'..=b'9') => {
                let raw = self.number()?;
                sink.number(raw);
            }
            Some(open @ (b'{' | b'[')) => {
                if nest.depth >= max_depth {
                    return Err(JsonError { at: self.at, kind: JsonErrorKind::TooDeep });
                }
                let object = open == b'{';
                sink.open(object, self.at);
                self.at += 1;
                self.skip_space();
                if self.peek() == Some(if object { b'}' } else { b']' }) {
                    self.at += 1;
                    sink.close(self.at);
                    return Ok(false);
                }
                nest.push(object);
                if object {
                    self.key(sink)?;
                }
                return Ok(true);
            }
            Some(b't') => self.word("true", Some(true), sink)?,
            Some(b'f') => self.word("false", Some(false), sink)?,
            Some(b'n') => self.word("null", None, sink)?,
            _ => return Err(self.fault()),
        }
        Ok(false)
    }

    /// A key and its colon.
    #[inline]
    fn key(&mut self, sink: &mut impl Sink) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault());
        }
        let raw = self.quoted()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.fault());
        }
        self.at += 1;
        sink.key(raw);
        Ok(())
    }

    fn word(&mut self, word: &str, value: Option<bool>, sink: &mut impl Sink) -> Result<(), JsonError> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return Err(self.fault());
            }
            self.at += 1;
        }
        sink.literal(value, self.at);
        Ok(())
    }

    /// From the opening quote to behind the closing one; the range is what stands between.
    #[inline]
    fn quoted(&mut self) -> Result<Range<usize>, JsonError> {
        self.at += 1;
        let begin = self.at;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(plain) = rest.iter().position(|byte| IN_STRING[usize::from(*byte)] != PLAIN) else {
                self.at = self.bytes.len();
                return Err(self.fault());
            };
            self.at += plain;
            match IN_STRING[usize::from(rest[plain])] {
                QUOTE => {
                    self.at += 1;
                    return Ok(begin..self.at - 1);
                }
                WIDE => {
                    self.facts.ascii = false;
                    self.at += 1;
                }
                ESCAPE => self.escape()?,
                _ => return Err(self.fault()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.fault());
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.fault()),
        }
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Result<Range<usize>, JsonError> {
        let begin = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(begin..self.at)
    }

    /// One digit or more.
    #[inline]
    fn digits(&mut self) -> Result<(), JsonError> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == begin { Err(self.fault()) } else { Ok(()) }
    }
}

const PLAIN: u8 = 0;
const WIDE: u8 = 1;
const QUOTE: u8 = 2;
const ESCAPE: u8 = 3;
const CONTROL: u8 = 4;

/// What a byte means inside a string. DEL is allowed there but no visible ASCII.
static IN_STRING: [u8; 256] = {
    let mut table = [PLAIN; 256];
    let mut byte = 0;
    while byte < 256 {
        if byte < 0x20 {
            table[byte] = CONTROL;
        } else if byte >= 0x7f {
            table[byte] = WIDE;
        }
        byte += 1;
    }
    table[b'"' as usize] = QUOTE;
    table[b'\\' as usize] = ESCAPE;
    table
};
