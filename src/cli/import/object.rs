//! Object literals: keys of all kinds, shorthands, methods, spreads. Tests: `tests/it/import.rs`.

use super::expr::{Property, Shape};
use super::literal::{Reader, Unread};
use super::token::Kind;

impl Reader<'_, '_> {
    /// `{ … }`, which stands at this place.
    pub(super) fn properties(&mut self) -> Result<Vec<Property>, Unread> {
        self.at += 1;
        let mut properties = Vec::new();
        while !self.eat("}") {
            properties.push(self.property()?);
            if !self.eat(",") && !self.is("}") {
                return self.expected("`,` or `}`");
            }
        }
        Ok(properties)
    }

    fn property(&mut self) -> Result<Property, Unread> {
        let start = self.at;
        if self.eat("...") {
            let value = self.assignment()?;
            return Ok(Property { key: None, value });
        }
        // `get x() {}`, `async *x() {}`: the words before a method's name.
        while matches!(self.word(), Some("get" | "set" | "async" | "static" | "readonly"))
            && !matches!(self.tokens.mark(self.at + 1), Some(":" | "," | "}" | "(" | "="))
        {
            self.at += 1;
        }
        self.eat("*");
        let key_at = self.at;
        let key = self.key()?;
        if self.eat(":") {
            return Ok(Property { key, value: self.assignment()? });
        }
        if self.is("(") || self.is("<") {
            return Ok(Property { key, value: self.callable(start)? });
        }
        match (&key, self.word_at(key_at)) {
            (Some(name), true) if self.is(",") || self.is("}") => {
                let value = self.node(Shape::Name(name.clone()), start, 0)?;
                Ok(Property { key, value })
            }
            _ => self.expected("`:` and a value"),
        }
    }

    fn word_at(&self, at: usize) -> bool {
        self.tokens.name(at).is_some()
    }

    /// `None` for a computed one that is not a plain string.
    fn key(&mut self) -> Result<Option<String>, Unread> {
        let key = match self.tokens.list.get(self.at).map(|token| &token.kind) {
            Some(Kind::Name) => self.word().map(str::to_owned),
            Some(Kind::Text(text)) => Some(text.clone()),
            Some(Kind::Number(number)) => Some(number.to_string()),
            Some(Kind::Mark("[")) => {
                let close = self.tokens.partner[self.at];
                let text = self.tokens.text(self.at + 1).filter(|_| self.at + 2 == close).map(str::to_owned);
                self.at = close;
                text
            }
            _ => return self.expected("a property name or `}`"),
        };
        self.at += 1;
        Ok(key)
    }
}
