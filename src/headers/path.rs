//! The readings of a path under which a route is chosen; the path sent upstream stays byte-identical.
//!
//! Apps read one path differently: some resolve `..`, merge `//`, take `%2f` or `\` for a slash, cut `;params`;
//! others do not. A guard that knows one reading is bypassed through another. So a route counts only when both extreme
//! readings choose the same one ([`RoutePath::agree`]); a request on which they differ is refused, as one that climbs
//! above the root, hides a dot segment behind an encoded slash or a parameter, or holds `%00` (nginx refuses the first and
//! last; Envoy refuses encoded slashes on demand). Ordinary paths have one reading and cost one scan.
//! Knows no routes. Tests: below.

use std::borrow::Cow;
use std::fmt;

/// Why a path cannot be routed safely: answer 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// `..` leads above the root.
    AboveRoot,
    /// `%00`
    Nul,
    /// A dot segment behind an encoded slash, a backslash, a parameter or an empty segment.
    HiddenDots,
    /// Its readings lead to different routes.
    Ambiguous,
}

impl PathError {
    /// A short word for logs and counters.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::AboveRoot => "path_above_root",
            Self::Nul => "path_nul",
            Self::HiddenDots => "path_hidden_dots",
            Self::Ambiguous => "path_ambiguous",
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for PathError {}

/// A path in its readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePath<'a> {
    literal: Cow<'a, str>,
    resolved: Option<String>,
}

impl<'a> RoutePath<'a> {
    /// Reads `path` (without the query) as hyper hands it over.
    ///
    /// # Errors
    /// [`PathError`], never [`PathError::Ambiguous`].
    pub fn parse(path: &'a str) -> Result<Self, PathError> {
        if !path.starts_with('/') || is_plain(path.as_bytes()) {
            return Ok(Self { literal: Cow::Borrowed(path), resolved: None });
        }
        let literal = String::from_utf8_lossy(&decode(path.as_bytes(), false)?).into_owned();
        let resolved = resolve(path)?;
        let resolved = (resolved != literal).then_some(resolved);
        Ok(Self { literal: Cow::Owned(literal), resolved })
    }

    /// Percent-decoded, but for `%2F`, `%5C`, `%25` and control bytes; nothing resolved. Bytes that are no UTF-8 are
    /// U+FFFD.
    #[must_use]
    pub fn literal(&self) -> &str {
        &self.literal
    }

    /// Percent-decoded whole, `\` as `/`, slashes merged, parameters cut, dot segments resolved; `None` when that is
    /// the same as [`Self::literal`].
    #[must_use]
    pub fn resolved(&self) -> Option<&str> {
        self.resolved.as_deref()
    }

    /// What `find` answers for every reading.
    ///
    /// # Errors
    /// [`PathError::Ambiguous`] when the answers differ.
    pub fn agree<T: PartialEq>(&self, find: impl Fn(&str) -> T) -> Result<T, PathError> {
        let found = find(&self.literal);
        match &self.resolved {
            Some(resolved) if find(resolved) != found => Err(PathError::Ambiguous),
            _ => Ok(found),
        }
    }
}

fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|byte| {
        let follows_slash = before == b'/';
        before = *byte;
        match byte {
            b'%' | b';' | b'\\' => false,
            b'/' | b'.' => !follows_slash,
            _ => true,
        }
    })
}

/// Percent-decodes; broken escapes stay as they are. Slashes, backslashes, percent signs and control bytes only with
/// `all`.
fn decode(text: &[u8], all: bool) -> Result<Vec<u8>, PathError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let escaped = if *byte == b'%' { hex_pair(text.get(at + 1..at + 3)) } else { None };
        match escaped {
            Some(0) => return Err(PathError::Nul),
            Some(value) if all || !(value.is_ascii_control() || b"/\\%".contains(&value)) => {
                decoded.push(value);
                at += 3;
            }
            Some(_) => {
                decoded.extend(text[at..at + 3].iter().map(u8::to_ascii_uppercase));
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    Ok(decoded)
}

fn hex_pair(pair: Option<&[u8]>) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match pair {
        Some(&[high, low]) => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}

fn resolve(path: &str) -> Result<String, PathError> {
    let mut kept: Vec<String> = Vec::new();
    let mut ends_open = false;
    let mut after_empty = false;
    for segment in path.split('/').skip(1) {
        let decoded = decode(segment.as_bytes(), true)?;
        let is_split = decoded.iter().any(|byte| matches!(byte, b'/' | b'\\'));
        for part in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
            let name = part.split(|byte| *byte == b';').next().unwrap_or(part);
            let is_dots = matches!(name, b"." | b"..");
            if is_dots && (is_split || name.len() != part.len()) {
                return Err(PathError::HiddenDots);
            }
            ends_open = is_dots || name.is_empty();
            match name {
                b"" | b"." => {}
                // RFC 3986 removes the empty segment, mergers remove the one before it.
                b".." if after_empty => return Err(PathError::HiddenDots),
                b".." => drop(kept.pop().ok_or(PathError::AboveRoot)?),
                _ => kept.push(String::from_utf8_lossy(name).into_owned()),
            }
            after_empty = name.is_empty();
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for name in &kept {
        resolved.push('/');
        resolved.push_str(name);
    }
    if ends_open || resolved.is_empty() {
        resolved.push('/');
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn readings(path: &str) -> Result<(String, Option<String>), PathError> {
        RoutePath::parse(path).map(|path| (path.literal().to_owned(), path.resolved().map(str::to_owned)))
    }

    #[test]
    fn plain_paths_are_borrowed() {
        for path in ["/", "/a/b.c/", "/a..b/.", "*", "/caf\u{e9}/~u:1@x"] {
            let parsed = RoutePath::parse(path).unwrap();
            assert_eq!(parsed.literal(), path);
            assert_eq!(matches!(parsed.literal, Cow::Borrowed(_)), !path.ends_with("/."), "{path}");
        }
    }

    #[test]
    fn both_readings() {
        for (path, literal, resolved) in [
            ("/%61ccount", "/account", None),
            ("/caf%C3%A9", "/caf\u{e9}", None),
            ("/a%20b%zz%4", "/a b%zz%4", None),
            ("//account", "//account", Some("/account")),
            ("/a/./b", "/a/./b", Some("/a/b")),
            ("/a/%2E%2e/b", "/a/../b", Some("/b")),
            ("/a/b/..", "/a/b/..", Some("/a/")),
            ("/a/..", "/a/..", Some("/")),
            ("/g%2fp/x", "/g%2Fp/x", Some("/g/p/x")),
            ("/g\\p%5cq", "/g\\p%5Cq", Some("/g/p/q")),
            ("/account;x=1/y", "/account;x=1/y", Some("/account/y")),
            ("/%2561", "/%2561", Some("/%61")),
            ("/a%0ab", "/a%0Ab", Some("/a\nb")),
            ("/...", "/...", None),
            ("/.well-known/x", "/.well-known/x", None),
            ("/%ff", "/\u{fffd}", None),
        ] {
            assert_eq!(readings(path), Ok((literal.into(), resolved.map(Into::into))), "{path}");
        }
    }

    #[test]
    fn refused() {
        for (path, error) in [
            ("/..", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2e/b", PathError::AboveRoot),
            ("/a%00", PathError::Nul),
            ("/a/..%2fb", PathError::HiddenDots),
            ("/a%2f../b", PathError::HiddenDots),
            ("/a%5c..%5cb", PathError::HiddenDots),
            ("/a\\..\\b", PathError::HiddenDots),
            ("/a/..;/b", PathError::HiddenDots),
            ("/a/.;x/b", PathError::HiddenDots),
            ("/a//../b", PathError::HiddenDots),
        ] {
            assert_eq!(readings(path), Err(error), "{path}");
        }
    }

    /// Segment-safe longest prefix, as `route` does it.
    fn find(path: &str) -> &'static str {
        ["/account", "/public"]
            .into_iter()
            .find(|prefix| {
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .unwrap_or("/")
    }

    #[test]
    fn a_route_is_found_only_when_all_readings_agree() {
        let route = |path| RoutePath::parse(path).and_then(|path| path.agree(find));
        assert_eq!(route("/account/x"), Ok("/account"));
        assert_eq!(route("/%61ccount"), Ok("/account"));
        assert_eq!(route("/account/a;b/../c"), Ok("/account"));
        assert_eq!(route("/files/g%2fp"), Ok("/"));
        for path in [
            "//account",
            "/public/../account",
            "/account/../public",
            "/account;a/x",
            "/account%2fx",
            "/x/../account",
        ] {
            assert_eq!(route(path), Err(PathError::Ambiguous), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_resolved_reading_has_no_dots_and_no_double_slash(path in "/[a./;%2fe5c\\\\]{0,24}") {
            if let Ok(parsed) = RoutePath::parse(&path) {
                let last = parsed.resolved().unwrap_or(parsed.literal());
                prop_assert!(last.starts_with('/'));
                let segments: Vec<&str> = last.split('/').skip(1).collect();
                for (index, segment) in segments.iter().enumerate() {
                    prop_assert!(*segment != "." && *segment != "..", "{last}");
                    prop_assert!(!segment.is_empty() || index + 1 == segments.len(), "{last}");
                }
            }
        }
    }
}
