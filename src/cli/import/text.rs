//! Text that may hold environment variables, and how TOML writes it. Tests: below.

use std::fmt::Write;

/// Text of an option longer than this is no option.
const LONGEST: usize = 8192;

/// Literal text and variables, in turns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Text(Vec<Piece>);

/// A piece of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Variable { name: String, default: Option<String> },
}

impl Text {
    pub(super) fn literal(text: impl Into<String>) -> Self {
        Self(vec![Piece::Literal(text.into())])
    }

    /// `None` for a name that `${NAME}` cannot hold.
    pub(super) fn variable(name: &str) -> Option<Self> {
        let sound = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        sound.then(|| Self(vec![Piece::Variable { name: name.to_owned(), default: None }]))
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The text, when no variable is in it.
    pub(super) fn as_literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The name and default, when it is one variable and nothing else.
    pub(super) fn as_variable(&self) -> Option<(&str, Option<&str>)> {
        match self.0.as_slice() {
            [Piece::Variable { name, default }] => Some((name, default.as_deref())),
            _ => None,
        }
    }

    /// A single variable with a default for when it is not set; `None` when it cannot have (another) one.
    pub(super) fn or(&self, default: &str) -> Option<Self> {
        let (name, None) = self.as_variable()? else { return None };
        let sound = !default.contains('}') && !default.contains(char::is_control);
        sound
            .then(|| Self(vec![Piece::Variable { name: name.to_owned(), default: Some(default.to_owned()) }]))
    }

    /// Without the defaults, which may be secrets.
    pub(super) fn without_defaults(mut self) -> Self {
        for piece in &mut self.0 {
            if let Piece::Variable { default, .. } = piece {
                *default = None;
            }
        }
        self
    }

    /// `None` when it gets too long.
    pub(super) fn join(mut self, other: Self) -> Option<Self> {
        self.0.retain(|piece| !is_empty(piece));
        for piece in other.0.into_iter().filter(|piece| !is_empty(piece)) {
            match (self.0.last_mut(), piece) {
                (Some(Piece::Literal(text)), Piece::Literal(more)) => text.push_str(&more),
                (_, piece) => self.0.push(piece),
            }
        }
        let length = |piece: &Piece| match piece {
            Piece::Literal(text) => text.len(),
            Piece::Variable { name, .. } => name.len(),
        };
        (self.0.iter().map(length).sum::<usize>() <= LONGEST).then_some(self)
    }

    /// What a configuration would write for it, without quotes.
    pub(super) fn expandable(&self) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(&text.replace("${", "$${")),
                Piece::Variable { name, default: None } => out.push_str(&format!("${{{name}}}")),
                Piece::Variable { name, default: Some(default) } => {
                    out.push_str(&format!("${{{name}:-{default}}}"));
                }
            }
        }
        out
    }

    /// As a TOML string.
    pub(super) fn toml(&self) -> String {
        quoted(&self.expandable())
    }
}

fn is_empty(piece: &Piece) -> bool {
    matches!(piece, Piece::Literal(text) if text.is_empty())
}

/// A TOML basic string of exactly this text; `${` is not escaped.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_strings() {
        let text = Text::literal("a\"\\${b}\n").join(Text::variable("HOME").unwrap()).unwrap();
        assert_eq!(text.toml(), "\"a\\\"\\\\$${b}\\u000A${HOME}\"");
        assert_eq!(Text::variable("A").unwrap().or("x y").unwrap().toml(), "\"${A:-x y}\"");
        assert_eq!(Text::variable("A").unwrap().or("x}"), None);
        assert_eq!(Text::variable("1A"), None);
        assert_eq!(Text::variable(""), None);
    }
}
