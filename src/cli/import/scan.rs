//! The characters of single JavaScript tokens: blanks, names, numbers, strings, templates, regular expressions.
//! Knows no token order. Tests: below.

use super::refusal::{Refusal, place};

/// A place in the source.
pub(super) struct Scanner<'s> {
    source: &'s str,
    pub(super) at: usize,
}

pub(super) fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$' | '#')
}

fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_numeric() || matches!(c, '\u{200c}' | '\u{200d}')
}

impl<'s> Scanner<'s> {
    /// At the beginning; a byte order mark and a `#!` line are passed over.
    pub(super) fn new(source: &'s str) -> Self {
        let mut scanner = Self { source, at: 0 };
        if source.starts_with('\u{feff}') {
            scanner.at = '\u{feff}'.len_utf8();
        }
        if scanner.rest().starts_with("#!") {
            scanner.skip_line();
        }
        scanner
    }

    pub(super) fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn skip_line(&mut self) {
        self.take_while(|c| !matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}'));
    }

    pub(super) fn refusal(&self, at: usize, what: impl Into<String>, hint: &str) -> Refusal {
        Refusal { place: Some(place(self.source, at)), what: what.into(), hint: hint.to_owned() }
    }

    /// Passes over white space and comments.
    pub(super) fn skip_blanks(&mut self) -> Result<(), Refusal> {
        loop {
            self.take_while(|c| c.is_whitespace() || c == '\u{feff}');
            if self.rest().starts_with("//") {
                self.skip_line();
            } else if self.rest().starts_with("/*") {
                match self.rest().find("*/") {
                    Some(end) => self.at += end + 2,
                    None => return Err(self.refusal(self.at, "a comment without end, expected `*/`", "")),
                }
            } else {
                return Ok(());
            }
        }
    }

    pub(super) fn name(&mut self) {
        self.take_while(is_name_part);
    }

    pub(super) fn digit_follows(&self) -> bool {
        self.rest().chars().nth(1).is_some_and(|c| c.is_ascii_digit())
    }

    /// Decimal, `0x`, `0o`, `0b`, `1_000`, `.5`, `1e3`, `10n`.
    pub(super) fn number(&mut self) -> Result<f64, Refusal> {
        let start = self.at;
        let radix = match self.rest().get(..2) {
            Some("0x" | "0X") => 16,
            Some("0o" | "0O") => 8,
            Some("0b" | "0B") => 2,
            _ => 10,
        };
        let value = if radix == 10 { self.decimal() } else { self.whole(radix) };
        let ends = !self.peek().is_some_and(is_name_part);
        value.filter(|_| ends).ok_or_else(|| {
            self.refusal(start, "not a JavaScript number", "expected digits; a text stands in quotes")
        })
    }

    fn whole(&mut self, radix: u32) -> Option<f64> {
        self.at += 2;
        let digits = self.take_while(|c| c.is_digit(radix) || c == '_');
        self.skip_big();
        let mut value = None;
        for digit in digits.chars().filter_map(|c| c.to_digit(radix)) {
            value = Some(value.unwrap_or(0.0) * f64::from(radix) + f64::from(digit));
        }
        value
    }

    fn decimal(&mut self) -> Option<f64> {
        let start = self.at;
        let digits = |c: char| c.is_ascii_digit() || c == '_';
        self.take_while(digits);
        if self.peek() == Some('.') {
            self.at += 1;
            self.take_while(digits);
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            let sign = usize::from(self.rest()[1..].starts_with(['+', '-']));
            if self.rest()[1 + sign..].starts_with(|c: char| c.is_ascii_digit()) {
                self.at += 1 + sign;
                self.take_while(digits);
            }
        }
        let text: String = self.source[start..self.at].chars().filter(|c| *c != '_').collect();
        self.skip_big();
        text.parse().ok()
    }

    fn skip_big(&mut self) {
        if self.peek() == Some('n') {
            self.at += 1;
        }
    }

    /// A string in `quote`s, which stands at this place.
    pub(super) fn string(&mut self, quote: char) -> Result<String, Refusal> {
        let start = self.at;
        self.at += 1;
        let mut units = Units::default();
        loop {
            match self.take() {
                Some(c) if c == quote => return Ok(units.finish()),
                Some('\\') => self.escape(&mut units)?,
                None | Some('\n' | '\r') => {
                    let what = format!("a string without end, expected {quote} on the same line");
                    return Err(self.refusal(start, what, "paste JavaScript or JSON"));
                }
                Some(c) => units.push(c),
            }
        }
    }

    /// The next piece of a template, from a backtick or the `}` of a substitution on; whether `${` follows.
    pub(super) fn template(&mut self) -> Result<(String, bool), Refusal> {
        let start = self.at;
        self.at += 1;
        let mut units = Units::default();
        loop {
            match self.take() {
                Some('`') => return Ok((units.finish(), false)),
                Some('$') if self.peek() == Some('{') => {
                    self.at += 1;
                    return Ok((units.finish(), true));
                }
                Some('\\') => self.escape(&mut units)?,
                None => {
                    return Err(self.refusal(
                        start,
                        "a template string without end, expected a backtick",
                        "",
                    ));
                }
                Some(c) => units.push(c),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self, units: &mut Units) -> Result<(), Refusal> {
        let start = self.at - 1;
        match self.take() {
            Some('n') => units.push('\n'),
            Some('t') => units.push('\t'),
            Some('r') => units.push('\r'),
            Some('b') => units.push('\u{8}'),
            Some('f') => units.push('\u{c}'),
            Some('v') => units.push('\u{b}'),
            Some('\r') if self.peek() == Some('\n') => self.at += 1,
            Some('\n' | '\r' | '\u{2028}' | '\u{2029}') | None => {}
            Some('x') => {
                let code = self.hexadecimal(2);
                units.code(code.ok_or_else(|| self.refusal(start, "expected two hex digits after \\x", ""))?);
            }
            Some('u') => {
                let code = if self.peek() == Some('{') { self.braced() } else { self.hexadecimal(4) };
                let hint = "\\u0041 or \\u{41}";
                units.code(code.ok_or_else(|| self.refusal(start, "expected hex digits after \\u", hint))?);
            }
            Some(digit @ '0'..='7') => {
                // Octal, as sloppy code may still have it; `\0` is its usual form.
                let mut code = digit.to_digit(8).unwrap_or_default();
                while let Some(next) =
                    self.peek().and_then(|c| c.to_digit(8)).filter(|next| code * 8 + next < 256)
                {
                    code = code * 8 + next;
                    self.at += 1;
                }
                units.code(code);
            }
            Some(c) => units.push(c),
        }
        Ok(())
    }

    fn hexadecimal(&mut self, digits: usize) -> Option<u32> {
        let text = self.rest().get(..digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        self.at += digits;
        u32::from_str_radix(text, 16).ok()
    }

    fn braced(&mut self) -> Option<u32> {
        let end = self.rest().find('}')?;
        let text = self.rest().get(1..end).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let code = u32::from_str_radix(text, 16).ok().filter(|code| *code <= 0x10_ffff)?;
        self.at += end + 1;
        Some(code)
    }

    /// `/…/flags`, which stands at this place.
    pub(super) fn regex(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        self.at += 1;
        let mut in_class = false;
        loop {
            match self.take() {
                Some('/') if !in_class => break,
                Some('[') => in_class = true,
                Some(']') => in_class = false,
                Some('\\') if !matches!(self.peek(), None | Some('\n')) => {
                    self.take();
                }
                None | Some('\n') => {
                    let what = "a regular expression without end, expected `/` on the same line";
                    return Err(self.refusal(start, what, ""));
                }
                Some(_) => {}
            }
        }
        self.name();
        Ok(())
    }
}

/// Text in the making; halves of surrogate pairs find each other, lone ones become U+FFFD.
#[derive(Default)]
struct Units {
    text: String,
    high: Option<u32>,
}

impl Units {
    fn push(&mut self, c: char) {
        self.flush();
        self.text.push(c);
    }

    fn code(&mut self, code: u32) {
        match (self.high.take(), code) {
            (Some(high), 0xdc00..=0xdfff) => {
                let pair = 0x1_0000 + ((high - 0xd800) << 10) + (code - 0xdc00);
                self.text.push(char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER));
                return;
            }
            (Some(_), _) => self.text.push(char::REPLACEMENT_CHARACTER),
            (None, _) => {}
        }
        if (0xd800..0xdc00).contains(&code) {
            self.high = Some(code);
        } else {
            self.text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
    }

    fn flush(&mut self) {
        if self.high.take().is_some() {
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn finish(mut self) -> String {
        self.flush();
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_javascripts_escapes() {
        for (source, expected) in [
            (r"'a\'b\n\t\\'", "a'b\n\t\\"),
            (r#""\x41\u0042\u{1F600}\uD83D\uDE00""#, "AB😀😀"),
            (r"'\ud83dx\udc00'", "\u{fffd}x\u{fffd}"),
            ("'a\\\nb\\\r\nc'", "abc"),
            (r"'\0\101\q'", "\0Aq"),
        ] {
            let quote = source.chars().next().unwrap();
            assert_eq!(Scanner::new(source).string(quote).as_deref(), Ok(expected), "{source}");
        }
        for source in ["'a", "'a\nb'", r"'\x4'", r"'\u{110000}'", r"'\u12'"] {
            assert!(Scanner::new(source).string('\'').is_err(), "{source}");
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these are exact")]
    fn numbers() {
        for (source, expected) in [
            ("0", 0.0),
            ("1_000", 1000.0),
            ("0xFF", 255.0),
            ("0b101", 5.0),
            ("0o17", 15.0),
            ("1e3", 1000.0),
            ("1.5E-1", 0.15),
            (".5", 0.5),
            ("5.", 5.0),
            ("10n", 10.0),
        ] {
            assert_eq!(Scanner::new(source).number().unwrap(), expected, "{source}");
        }
        for source in ["14d", "0x", "1e", "3abc", "0b2"] {
            assert!(Scanner::new(source).number().is_err(), "{source}");
        }
    }
}
