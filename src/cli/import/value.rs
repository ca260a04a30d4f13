//! What expressions of a snippet come to, as far as that can be told without running it: constants, arithmetic, environment
//! variables, and choices by `NODE_ENV`, which is taken for "production". Tests: `tests/it/import.rs`.

use super::expr::{Expr, Property, Shape};
use super::number::{arithmetic, ms, number_of, text_of};
use super::scope::{Condition, Declaration, Script};
use super::text::{Piece, Text};
use std::cell::Cell;

/// What an expression comes to.
#[derive(Debug, Clone)]
pub(super) enum Value<'s> {
    Text(Text),
    Number(f64),
    Bool(bool),
    Null,
    Undefined,
    /// An object, list, function, call …: the expression behind all names and choices.
    Other(&'s Expr),
}

/// Steps of all evaluations together, and how deep one may go.
const FUEL: u32 = 50_000;
const DEEPEST: u32 = 150;

/// The variable by which Node apps know where they run.
const NODE_ENV: &str = "NODE_ENV";

/// A script under evaluation.
pub(super) struct Reading<'s> {
    pub(super) script: &'s Script<'s>,
    fuel: Cell<u32>,
    depth: Cell<u32>,
    assumed: Cell<bool>,
}

impl<'s> Reading<'s> {
    pub(super) fn new(script: &'s Script<'s>) -> Self {
        Self { script, fuel: Cell::new(FUEL), depth: Cell::new(0), assumed: Cell::new(false) }
    }

    /// Was `NODE_ENV` taken for "production" since the last time this was asked?
    pub(super) fn take_assumed(&self) -> bool {
        self.assumed.take()
    }

    pub(super) fn line(&self, expr: &Expr) -> usize {
        self.script.tokens.place(expr.at.start).0
    }

    /// The source of an expression for a comment, without what its strings say.
    pub(super) fn shown(&self, expr: &Expr) -> String {
        self.script.tokens.excerpt(expr.at.clone())
    }

    /// Evaluates; what cannot be told is `Other`.
    pub(super) fn eval(&self, expr: &'s Expr) -> Value<'s> {
        if self.fuel.get() == 0 || self.depth.get() >= DEEPEST {
            return Value::Other(expr);
        }
        self.fuel.set(self.fuel.get() - 1);
        self.depth.set(self.depth.get() + 1);
        let value = self.eval_inside(expr).unwrap_or(Value::Other(expr));
        self.depth.set(self.depth.get() - 1);
        value
    }

    fn eval_inside(&self, expr: &'s Expr) -> Option<Value<'s>> {
        match &expr.shape {
            Shape::Text(text) => Some(Value::Text(Text::literal(text.as_str()))),
            Shape::Number(number) => Some(Value::Number(*number)),
            Shape::Bool(flag) => Some(Value::Bool(*flag)),
            Shape::Null => Some(Value::Null),
            Shape::Template(texts, between) => {
                let mut whole = Text::literal(texts.first()?.as_str());
                for (inner, text) in between.iter().zip(texts.iter().skip(1)) {
                    whole = whole.join(text_of(&self.eval(inner))?)?.join(Text::literal(text.as_str()))?;
                }
                Some(Value::Text(whole))
            }
            Shape::Name(name) => self.name(expr, name),
            Shape::Member(object, name) => self.member(object, name),
            Shape::Call(callee, arguments) => self.call(callee, arguments),
            Shape::Unary(mark, operand) => self.unary(mark, operand),
            Shape::Binary(mark, left, right) => self.binary(mark, left, right),
            Shape::Conditional(condition, yes, no) => match self.truth(&self.eval(condition)) {
                Some(true) => Some(self.eval(yes)),
                Some(false) => Some(self.eval(no)),
                None => None,
            },
            _ => None,
        }
    }

    fn name(&self, expr: &'s Expr, name: &str) -> Option<Value<'s>> {
        match name {
            "undefined" => Some(Value::Undefined),
            "NaN" => Some(Value::Number(f64::NAN)),
            "Infinity" => Some(Value::Number(f64::INFINITY)),
            _ => Some(self.eval(self.declared(name, expr.at.start)?)),
        }
    }

    /// What a name was last made before `at`, else what it is made anywhere.
    pub(super) fn declared(&self, name: &str, at: usize) -> Option<&'s Expr> {
        self.declaration(name, at)?.value.as_ref().ok()
    }

    pub(super) fn declaration(&self, name: &str, at: usize) -> Option<&'s Declaration> {
        let all = self.script.declarations.get(name)?;
        let possible = |declaration: &&Declaration| self.conditions(declaration.at) != Some(Some(false));
        let before = all.iter().rev().take(16).filter(|declaration| declaration.at < at).find(possible);
        before.or_else(|| all.first())
    }

    /// Do the conditions around a token hold? `None`: there are none. `Some(None)`: cannot be told.
    pub(super) fn conditions(&self, at: usize) -> Option<Option<bool>> {
        let mut all = None;
        for Condition { value, negated } in self.script.conditions(at) {
            let holds = self.condition(&value).map(|truth| truth != negated);
            all = match (all, holds) {
                (Some(Some(false)), _) | (_, Some(false)) => Some(Some(false)),
                (Some(None), _) | (_, None) => Some(None),
                (None | Some(Some(true)), Some(true)) => Some(Some(true)),
            };
        }
        all
    }

    /// Of conditions only the plain forms are told: they are read anew each time and outlive nothing.
    fn condition(&self, expr: &Expr) -> Option<bool> {
        match &expr.shape {
            Shape::Unary("!", inner) => self.condition(inner).map(|truth| !truth),
            Shape::Bool(flag) => Some(*flag),
            Shape::Name(name) => {
                let value = self.script.declarations.get(name)?.first()?.value.as_ref().ok()?;
                if self.fuel.get() == 0 || self.depth.get() >= DEEPEST {
                    None
                } else {
                    self.truth(&self.eval(value))
                }
            }
            Shape::Binary(mark @ ("===" | "==" | "!==" | "!="), left, right) => {
                let text = match (&left.shape, &right.shape) {
                    (_, Shape::Text(text)) if self.is_node_env(left) => text,
                    (Shape::Text(text), _) if self.is_node_env(right) => text,
                    _ => return None,
                };
                self.assumed.set(true);
                Some((text == "production") == mark.starts_with('='))
            }
            _ => None,
        }
    }

    fn is_node_env(&self, expr: &Expr) -> bool {
        match &expr.shape {
            Shape::Member(object, name) => name == NODE_ENV && self.is_environment(object, 8),
            Shape::Call(callee, arguments) => asks_for_env(callee, arguments),
            Shape::Name(name) => {
                let declared = self.script.declarations.get(name).and_then(|list| list.first());
                let value = declared.and_then(|declaration| declaration.value.as_ref().ok());
                value.is_some_and(|value| !matches!(value.shape, Shape::Name(_)) && self.is_node_env(value))
            }
            Shape::Binary("||" | "??", left, _) => self.is_node_env(left),
            _ => false,
        }
    }

    /// `process.env`, or a name for it.
    fn is_environment(&self, expr: &Expr, depth: usize) -> bool {
        match &expr.shape {
            Shape::Member(object, name) if name == "env" => match &object.shape {
                Shape::Name(process) => process == "process",
                Shape::Member(import, meta) => {
                    meta == "meta" && matches!(&import.shape, Shape::Name(n) if n == "import")
                }
                _ => false,
            },
            Shape::Name(name) if depth > 0 => {
                let declared = self.script.declarations.get(name).and_then(|list| list.first());
                let value = declared.and_then(|declaration| declaration.value.as_ref().ok());
                match value {
                    Some(value) => self.is_environment(value, depth - 1),
                    None => {
                        name == "env" && self.script.modules.get(name).is_some_and(|m| m.contains("process"))
                    }
                }
            }
            _ => false,
        }
    }

    fn member(&self, object: &'s Expr, name: &str) -> Option<Value<'s>> {
        if self.is_environment(object, 8) {
            return Text::variable(name).map(Value::Text);
        }
        let Value::Other(Expr { shape: Shape::Object(properties), .. }) = self.eval(object) else {
            return None;
        };
        let spread = properties.iter().any(|property| property.key.is_none());
        match properties.iter().rev().find(|property| property.key.as_deref() == Some(name)) {
            Some(Property { value, .. }) => Some(self.eval(value)),
            None => (!spread).then_some(Value::Undefined),
        }
    }

    fn call(&self, callee: &'s Expr, arguments: &'s [Expr]) -> Option<Value<'s>> {
        if asks_for_env(callee, arguments) {
            return Text::variable(NODE_ENV).map(Value::Text);
        }
        match &callee.shape {
            Shape::Name(name) => {
                let value = self.eval(arguments.first()?);
                match name.as_str() {
                    "Number" | "parseInt" | "parseFloat" => number_of(&value, name == "Number"),
                    "String" => text_of(&value).map(Value::Text),
                    "Boolean" => self.truth(&value).map(Value::Bool),
                    "ms" => match value {
                        Value::Text(text) => ms(text.as_literal()?).map(Value::Number),
                        _ => None,
                    },
                    _ => None,
                }
            }
            Shape::Member(object, method) => match (method.as_str(), &object.shape) {
                ("freeze", Shape::Name(name)) if name == "Object" => Some(self.eval(arguments.first()?)),
                ("toString" | "trim", _) => match self.eval(object) {
                    value @ Value::Text(_) => Some(value),
                    _ => None,
                },
                _ => None,
            },
            // `require('ms')('1d')`
            Shape::Call(..) if self.script.module_of(callee, 4) == Some("ms") => {
                match self.eval(arguments.first()?) {
                    Value::Text(text) => ms(text.as_literal()?).map(Value::Number),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn unary(&self, mark: &str, operand: &'s Expr) -> Option<Value<'s>> {
        let value = self.eval(operand);
        match mark {
            "!" => self.truth(&value).map(|truth| Value::Bool(!truth)),
            "+" => number_of(&value, true),
            "-" => match number_of(&value, true)? {
                Value::Number(number) => Some(Value::Number(-number)),
                _ => None,
            },
            _ => None,
        }
    }

    fn binary(&self, mark: &str, left: &'s Expr, right: &'s Expr) -> Option<Value<'s>> {
        let first = self.eval(left);
        match mark {
            "||" | "&&" | "??" => self.choice(mark, first, right),
            "===" | "==" | "!==" | "!=" => {
                let same = self.same(&first, &self.eval(right))?;
                Some(Value::Bool(same == mark.starts_with('=')))
            }
            _ => match (mark, first, self.eval(right)) {
                (_, Value::Number(a), Value::Number(b)) => arithmetic(mark, a, b).map(Value::Number),
                ("+", a @ Value::Text(_), b) | ("+", a, b @ Value::Text(_)) => {
                    text_of(&a)?.join(text_of(&b)?).map(Value::Text)
                }
                _ => None,
            },
        }
    }

    fn choice(&self, mark: &str, first: Value<'s>, right: &'s Expr) -> Option<Value<'s>> {
        // A variable with a default.
        if let Value::Text(text) = &first
            && text.as_variable().is_some()
            && mark != "&&"
        {
            let default = text_of(&self.eval(right));
            let with = default.as_ref().and_then(Text::as_literal).and_then(|default| text.or(default));
            return with.map(Value::Text);
        }
        let nullish = match &first {
            Value::Null | Value::Undefined => Some(true),
            Value::Other(_) => self.truth(&first).map(|_| false),
            _ => Some(false),
        };
        let take_right = match mark {
            "??" => nullish?,
            "||" => !self.truth(&first)?,
            _ => self.truth(&first)?,
        };
        Some(if take_right { self.eval(right) } else { first })
    }

    fn same(&self, a: &Value<'s>, b: &Value<'s>) -> Option<bool> {
        match (a, b) {
            (Value::Text(a), Value::Text(b)) => match (a.as_literal(), b.as_literal()) {
                (Some(a), Some(b)) => Some(a == b),
                (None, Some(word)) => self.in_production(a, word),
                (Some(word), None) => self.in_production(b, word),
                (None, None) => None,
            },
            #[expect(clippy::float_cmp, reason = "as JavaScript compares")]
            (Value::Number(a), Value::Number(b)) => Some(a == b),
            (Value::Bool(a), Value::Bool(b)) => Some(a == b),
            _ => None,
        }
    }

    fn in_production(&self, variable: &Text, word: &str) -> Option<bool> {
        let (NODE_ENV, _) = variable.as_variable()? else { return None };
        self.assumed.set(true);
        Some(word == "production")
    }

    /// As JavaScript has it in a condition; `None` when that cannot be told.
    pub(super) fn truth(&self, value: &Value<'s>) -> Option<bool> {
        match value {
            Value::Text(text) => match text.as_literal() {
                Some(literal) => Some(!literal.is_empty()),
                None => text
                    .pieces()
                    .iter()
                    .any(|p| matches!(p, Piece::Literal(t) if !t.is_empty()))
                    .then_some(true),
            },
            Value::Number(number) => Some(*number != 0.0 && !number.is_nan()),
            Value::Bool(flag) => Some(*flag),
            Value::Null | Value::Undefined => Some(false),
            Value::Other(expr) => {
                matches!(expr.shape, Shape::Object(_) | Shape::Array(_) | Shape::Function(_) | Shape::New(..))
                    .then_some(true)
            }
        }
    }
}

/// `app.get('env')`
fn asks_for_env(callee: &Expr, arguments: &[Expr]) -> bool {
    matches!(&callee.shape, Shape::Member(_, name) if name == "get")
        && matches!(arguments, [Expr { shape: Shape::Text(text), .. }] if text == "env")
}
