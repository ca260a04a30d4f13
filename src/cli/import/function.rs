//! Functions, of which only the plainest are understood, and TypeScript's types, which are passed over.
//! Tests: `tests/it/import.rs`.

use super::expr::{Expr, Function, Shape};
use super::literal::{Reader, Unread};
use super::token::Kind;
use std::ops::Range;
use std::rc::Rc;

impl Reader<'_, '_> {
    /// A function or arrow function, when one stands at this place.
    pub(super) fn function(&mut self) -> Result<Option<Expr>, Unread> {
        let start = self.at;
        if self.word() == Some("async") && !self.tokens.begins_line(self.at + 1) {
            let next = self.tokens.name(self.at + 1).is_some() || self.tokens.is(self.at + 1, "(");
            self.at += usize::from(next);
        }
        if self.word() == Some("function") {
            self.at += 1;
            self.eat("*");
            if self.word().is_some() {
                self.at += 1;
            }
            return self.callable(start).map(Some);
        }
        let parameter = match self.arrow() {
            Some((parameter, body)) => {
                self.at = body;
                parameter
            }
            None => {
                self.at = start;
                return Ok(None);
            }
        };
        let result = if self.is("{") { self.body().map(Rc::new) } else { Some(Rc::new(self.assignment()?)) };
        let below = result.as_ref().map_or(0, |result| result.height);
        self.node(Shape::Function(Function { parameter, result }), start, below).map(Some)
    }

    /// The parameter and where the body begins, when an arrow function stands at this place.
    fn arrow(&mut self) -> Option<(Option<String>, usize)> {
        if let Some(name) = self.word() {
            return self.tokens.is(self.at + 1, "=>").then(|| (Some(name.to_owned()), self.at + 2));
        }
        if !self.is("(") {
            return None;
        }
        let open = self.at;
        let close = self.tokens.partner[open];
        let parameter = self.only_parameter(open..close);
        if self.tokens.is(close + 1, "=>") {
            return Some((parameter, close + 2));
        }
        if self.tokens.is(close + 1, ":") {
            self.at = close + 2;
            if self.skip_type().is_ok() && self.is("=>") {
                return Some((parameter, self.at + 1));
            }
        }
        None
    }

    /// `(x)`, `(x: T)`; the range has the opening bracket, not the closing one.
    fn only_parameter(&self, brackets: Range<usize>) -> Option<String> {
        let name = self.tokens.name(brackets.start + 1)?;
        let alone = brackets.start + 2 == brackets.end
            || (self.tokens.is(brackets.start + 2, ":")
                && brackets.skip(2).all(|at| !self.tokens.is(at, ",")));
        alone.then(|| name.to_owned())
    }

    /// `<T>(…): U { … }`: what follows the name of a function or method that begins at `start`.
    pub(super) fn callable(&mut self, start: usize) -> Result<Expr, Unread> {
        if self.is("<") {
            self.skip_type_arguments();
        }
        if !self.is("(") {
            return self.expected("`(` and the parameters");
        }
        let open = self.at;
        self.at = self.tokens.partner[open] + 1;
        let parameter = self.only_parameter(open..self.at - 1);
        if self.eat(":") {
            self.skip_type()?;
        }
        if !self.is("{") {
            return self.expected("`{` and the function's body");
        }
        let result = self.body().map(Rc::new);
        let below = result.as_ref().map_or(0, |result| result.height);
        self.node(Shape::Function(Function { parameter, result }), start, below)
    }

    /// Passes over `{ … }`; what it returns when that is its only statement.
    fn body(&mut self) -> Option<Expr> {
        let close = self.tokens.partner[self.at];
        let result = if self.tokens.name(self.at + 1) == Some("return") {
            self.at += 2;
            self.assignment().ok().filter(|_| {
                self.eat(";");
                self.at == close
            })
        } else {
            None
        };
        self.at = close + 1;
        result
    }

    /// `<A, B[]>` before a call, or `<T>` as a cast: passes over it, or stays and says no.
    pub(super) fn skip_type_arguments(&mut self) -> bool {
        let start = self.at;
        self.at += 1;
        loop {
            if self.skip_type().is_err() {
                break;
            }
            if self.eat(">") {
                let called = self.is("(") || self.is(">") || self.is(",") || self.is("[");
                // A cast, before an operand; a comparison has one on both sides.
                let cast = start == 0 || !matches!(self.tokens.list[start - 1].kind, Kind::Name);
                if called || cast {
                    return true;
                }
                break;
            }
            if !self.eat(",") {
                break;
            }
        }
        self.at = start;
        false
    }

    /// Passes over a TypeScript type.
    pub(super) fn skip_type(&mut self) -> Result<(), Unread> {
        self.deeper(Self::skip_union)
    }

    fn skip_union(&mut self) -> Result<(), Unread> {
        loop {
            self.eat("|");
            // Only what stands in brackets can be the parameters of a function type.
            let parameters = self.is("(");
            while matches!(self.word(), Some("typeof" | "keyof" | "readonly" | "unique" | "infer")) {
                self.at += 1;
            }
            match self.tokens.list.get(self.at).map(|token| &token.kind) {
                Some(Kind::Mark("{" | "[" | "(")) => self.at = self.tokens.partner[self.at] + 1,
                Some(Kind::Name) => {
                    self.at += 1;
                    while self.eat(".") {
                        self.at += 1;
                    }
                    if self.is("<") {
                        self.skip_type_arguments();
                    }
                }
                Some(Kind::Text(_) | Kind::Number(_)) => self.at += 1,
                _ => return self.expected("a type"),
            }
            while self.is("[") && !self.tokens.begins_line(self.at) {
                self.at = self.tokens.partner[self.at] + 1;
            }
            if !(self.eat("|") || self.eat("&") || (parameters && self.eat("=>"))) {
                return Ok(());
            }
        }
    }
}
