//! Expressions out of tokens: JSON, JavaScript and what TypeScript adds. Functions and classes are passed over by their
//! brackets. Evaluates nothing. Tests: `tests/it/import.rs`.

use super::expr::{Expr, Shape};
use super::refusal::Refusal;
use super::token::{Kind, Tokens};
use std::rc::Rc;

/// How high a tree of expressions may be: options are a few levels deep, and every walk over it is recursive.
const HIGHEST: u16 = 100;

/// Binary operators and how strongly they bind.
const BINARY: &[(&str, u8)] = &[
    ("??", 1),
    ("||", 2),
    ("&&", 3),
    ("|", 4),
    ("^", 5),
    ("&", 6),
    ("===", 7),
    ("!==", 7),
    ("==", 7),
    ("!=", 7),
    ("<", 8),
    (">", 8),
    ("<=", 8),
    (">=", 8),
    ("<<", 9),
    ("+", 10),
    ("-", 10),
    ("*", 11),
    ("/", 11),
    ("%", 11),
    ("**", 12),
];

/// Why no expression could be read: the token, what was expected. The place is computed only for those that are shown.
#[derive(Debug, Clone)]
pub(super) struct Unread {
    at: usize,
    what: String,
}

impl Unread {
    pub(super) fn refusal(&self, tokens: &Tokens<'_>) -> Refusal {
        tokens.refusal(self.at, self.what.clone(), "")
    }
}

/// Reads the expression that begins at `at`.
pub(super) fn expression(tokens: &Tokens<'_>, at: usize) -> Result<Expr, Unread> {
    Reader { tokens, at, depth: 0 }.assignment()
}

/// Reads the arguments of the call whose `(` is at `at`.
pub(super) fn arguments(tokens: &Tokens<'_>, at: usize) -> Result<Vec<Expr>, Unread> {
    Reader { tokens, at, depth: 0 }.arguments()
}

/// Passes over the type that begins at `at`; where it ends.
pub(super) fn past_type(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let mut reader = Reader { tokens, at, depth: 0 };
    reader.skip_type().ok().map(|()| reader.at)
}

/// A place among the tokens.
pub(super) struct Reader<'t, 's> {
    pub(super) tokens: &'t Tokens<'s>,
    pub(super) at: usize,
    depth: u16,
}

impl<'s> Reader<'_, 's> {
    pub(super) fn is(&self, mark: &str) -> bool {
        self.tokens.is(self.at, mark)
    }

    pub(super) fn word(&self) -> Option<&'s str> {
        self.tokens.name(self.at)
    }

    pub(super) fn eat(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expected<T>(&self, wanted: &str) -> Result<T, Unread> {
        Err(Unread { at: self.at, what: format!("expected {wanted}, found {}", self.tokens.shown(self.at)) })
    }

    /// An expression that begins at `start` and ends here; `below`: the height of its highest part.
    pub(super) fn node(&self, shape: Shape, start: usize, below: u16) -> Result<Expr, Unread> {
        if below >= HIGHEST {
            too_deep(start)
        } else {
            Ok(Expr { shape, at: start..self.at, height: below + 1 })
        }
    }

    /// One level down, as far as there is one.
    pub(super) fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unread>,
    ) -> Result<T, Unread> {
        if self.depth >= HIGHEST {
            return too_deep(self.at);
        }
        if !self.tokens.step() {
            let what = "too entangled; paste only what is around session({ … })".to_owned();
            return Err(Unread { at: self.at, what });
        }
        self.depth += 1;
        let outcome = read(self);
        self.depth -= 1;
        outcome
    }

    /// An expression without the comma operator.
    pub(super) fn assignment(&mut self) -> Result<Expr, Unread> {
        self.deeper(Self::conditional)
    }

    fn conditional(&mut self) -> Result<Expr, Unread> {
        let start = self.at;
        if let Some(function) = self.function()? {
            return Ok(function);
        }
        let condition = self.binary(1)?;
        if self.eat("?") {
            let yes = self.assignment()?;
            if !self.eat(":") {
                return self.expected("`:` of `? … : …`");
            }
            let no = self.assignment()?;
            let below = condition.height.max(yes.height).max(no.height);
            let shape = Shape::Conditional(Rc::new(condition), Rc::new(yes), Rc::new(no));
            return self.node(shape, start, below);
        }
        if ["=", "+=", "-=", "*=", "/=", "%=", "**=", "||=", "&&=", "??="].iter().any(|mark| self.is(mark)) {
            self.at += 1;
            let value = self.assignment()?;
            return self.node(Shape::Opaque, start, value.height);
        }
        Ok(condition)
    }

    fn binary(&mut self, least: u8) -> Result<Expr, Unread> {
        let start = self.at;
        let mut left = self.unary()?;
        loop {
            if matches!(self.word(), Some("as" | "satisfies")) && !self.tokens.begins_line(self.at) {
                self.at += 1;
                self.skip_type()?;
                continue;
            }
            if matches!(self.word(), Some("in" | "instanceof")) {
                self.at += 1;
                let right = self.unary()?;
                left = self.node(Shape::Opaque, start, left.height.max(right.height))?;
                continue;
            }
            let mark = self.tokens.mark(self.at);
            let Some((mark, strength)) =
                BINARY.iter().find(|(own, strength)| mark == Some(*own) && *strength >= least)
            else {
                return Ok(left);
            };
            self.at += 1;
            // `**` is the only one that groups to the right, and the strongest.
            let right = self.binary(if *mark == "**" { *strength } else { strength + 1 })?;
            let below = left.height.max(right.height);
            left = self.node(Shape::Binary(mark, Rc::new(left), Rc::new(right)), start, below)?;
        }
    }

    fn unary(&mut self) -> Result<Expr, Unread> {
        self.deeper(Self::unary_inside)
    }

    fn unary_inside(&mut self) -> Result<Expr, Unread> {
        let start = self.at;
        for mark in ["!", "-", "+", "~", "++", "--"] {
            if self.eat(mark) {
                let operand = self.unary()?;
                let below = operand.height;
                return self.node(Shape::Unary(mark, Rc::new(operand)), start, below);
            }
        }
        match self.word() {
            Some("await") => {
                self.at += 1;
                return self.unary();
            }
            Some("typeof" | "void" | "delete" | "yield") => {
                self.at += 1;
                let operand = self.unary()?;
                return self.node(Shape::Opaque, start, operand.height);
            }
            _ => {}
        }
        if self.is("<") && self.skip_type_arguments() {
            return self.unary();
        }
        let first = self.primary()?;
        let operand = self.suffixes(first)?;
        if self.is("++") || self.is("--") {
            self.at += 1;
        }
        Ok(operand)
    }

    /// Members, calls, `!` and tagged templates behind an operand.
    fn suffixes(&mut self, mut expr: Expr) -> Result<Expr, Unread> {
        let start = expr.at.start;
        loop {
            let optional = self.eat("?.");
            let mut below = expr.height;
            let shape = if self.is("(") {
                let arguments = self.arguments()?;
                below = below.max(tallest(&arguments));
                Shape::Call(Rc::new(expr), arguments)
            } else if self.is("[") {
                let close = self.tokens.partner[self.at];
                let key = match self.tokens.text(self.at + 1) {
                    Some(text) if self.at + 2 == close => Some(text.to_owned()),
                    _ => None,
                };
                self.at = close + 1;
                key.map_or(Shape::Opaque, |key| Shape::Member(Rc::new(expr), key))
            } else if optional || self.eat(".") {
                let Some(name) = self.word() else { return self.expected("a property name") };
                let name = name.to_owned();
                self.at += 1;
                Shape::Member(Rc::new(expr), name)
            } else if self.is("!") && !self.tokens.begins_line(self.at) {
                self.at += 1;
                continue;
            } else if matches!(
                self.tokens.list.get(self.at).map(|t| &t.kind),
                Some(Kind::Template { first: true, .. })
            ) {
                self.primary()?;
                Shape::Opaque
            } else if self.is("<") && self.skip_type_arguments() {
                continue;
            } else {
                return Ok(expr);
            };
            expr = self.node(shape, start, below)?;
        }
    }

    /// `(a, ...b)`, which stands at this place.
    fn arguments(&mut self) -> Result<Vec<Expr>, Unread> {
        self.items(")", "`,` or `)`")
    }

    /// What stands between two brackets, the first of them at this place.
    fn items(&mut self, close: &str, wanted: &str) -> Result<Vec<Expr>, Unread> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            if self.eat(close) {
                return Ok(items);
            }
            // A hole in a list is `undefined`.
            if self.eat(",") {
                continue;
            }
            items.push(self.item()?);
            if !self.eat(",") && !self.is(close) {
                return self.expected(wanted);
            }
        }
    }

    fn item(&mut self) -> Result<Expr, Unread> {
        let start = self.at;
        if !self.eat("...") {
            return self.assignment();
        }
        let spread = self.assignment()?;
        self.node(Shape::Spread, start, spread.height)
    }

    fn primary(&mut self) -> Result<Expr, Unread> {
        let start = self.at;
        let Some(token) = self.tokens.list.get(start) else { return self.expected("a value") };
        let shape = match &token.kind {
            Kind::Text(text) => Shape::Text(text.clone()),
            Kind::Number(number) => Shape::Number(*number),
            Kind::Regex => Shape::Opaque,
            Kind::Template { .. } => return self.template(),
            Kind::Mark("{") => {
                let properties = self.properties()?;
                let below = tallest(properties.iter().map(|property| &property.value));
                return self.node(Shape::Object(properties), start, below);
            }
            Kind::Mark("[") => {
                let items = self.items("]", "`,` or `]`")?;
                let below = tallest(&items);
                return self.node(Shape::Array(items), start, below);
            }
            Kind::Mark("(") => return self.group(),
            Kind::Name => return self.named(),
            Kind::Mark(_) => return self.expected("a value"),
        };
        self.at += 1;
        self.node(shape, start, 0)
    }

    /// `(a)`, or `(a, b)`, of which nothing is understood.
    fn group(&mut self) -> Result<Expr, Unread> {
        let start = self.at;
        let mut items = self.items(")", "`)`")?;
        match (items.pop(), items.is_empty()) {
            (Some(inside), true) => Ok(inside),
            (Some(_), false) => self.node(Shape::Opaque, start, 0),
            (None, _) => self.expected("`=>`"),
        }
    }

    fn named(&mut self) -> Result<Expr, Unread> {
        let start = self.at;
        let name = self.word().unwrap_or_default().to_owned();
        let shape = match name.as_str() {
            "true" => Shape::Bool(true),
            "false" => Shape::Bool(false),
            "null" => Shape::Null,
            "new" => return self.new_object(),
            "class" => {
                while !self.is("{") && self.at < self.tokens.list.len() {
                    self.at += 1;
                }
                self.at = self.tokens.partner.get(self.at).copied().unwrap_or(self.at);
                Shape::Opaque
            }
            "return" | "const" | "let" | "var" | "if" | "for" | "while" | "throw" | "case" | "else" => {
                return self.expected("a value");
            }
            _ => Shape::Name(name),
        };
        self.at += 1;
        self.node(shape, start, 0)
    }

    /// `new A.B<T>(…)`, with or without arguments.
    fn new_object(&mut self) -> Result<Expr, Unread> {
        let start = self.at;
        self.at += 1;
        let mut class = self.deeper(Self::primary)?;
        while self.eat(".") {
            let Some(name) = self.word().map(str::to_owned) else { return self.expected("a property name") };
            self.at += 1;
            let below = class.height;
            class = self.node(Shape::Member(Rc::new(class), name), start, below)?;
        }
        if self.is("<") {
            self.skip_type_arguments();
        }
        let arguments = if self.is("(") { self.arguments()? } else { Vec::new() };
        let below = tallest(&arguments).max(class.height);
        self.node(Shape::New(Rc::new(class), arguments), start, below)
    }

    fn template(&mut self) -> Result<Expr, Unread> {
        let start = self.at;
        let (mut texts, mut between) = (Vec::new(), Vec::new());
        loop {
            let Some(Kind::Template { text, more, .. }) =
                self.tokens.list.get(self.at).map(|token| &token.kind)
            else {
                return self.expected("`}` of the template string");
            };
            texts.push(text.clone());
            self.at += 1;
            if !more {
                let below = tallest(&between);
                return self.node(Shape::Template(texts, between), start, below);
            }
            between.push(self.assignment()?);
        }
    }
}

fn tallest<'e>(items: impl IntoIterator<Item = &'e Expr>) -> u16 {
    items.into_iter().map(|expr| expr.height).max().unwrap_or(0)
}

fn too_deep<T>(at: usize) -> Result<T, Unread> {
    Err(Unread { at, what: format!("deeper than {HIGHEST} levels") })
}
