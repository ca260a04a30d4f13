//! What a pasted snippet declares, imports, assigns and calls, wherever in it: statements are not parsed, their beginnings are
//! looked for. Evaluates nothing. Tests: `tests/it/import.rs`.

use super::expr::{Expr, Property, Shape};
use super::literal::{self, Unread};
use super::refusal::Refusal;
use super::token::Tokens;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A snippet, read.
pub(super) struct Script<'s> {
    pub(super) tokens: Tokens<'s>,
    pub(super) declarations: HashMap<String, Vec<Declaration>>,
    pub(super) modules: HashMap<String, String>,
    pub(super) assignments: Vec<Assignment>,
    pub(super) calls: Vec<Call>,
    /// Where express-session is called; of the first one the call is kept.
    pub(super) sessions: Vec<usize>,
    /// The names that declarations begin with, so that they are not taken for assignments as well.
    declared: HashSet<usize>,
    /// The first thing of the input, when that is an object in braces, and `module.exports = …` or `export default …`.
    pub(super) bare: Vec<Result<Expr, Unread>>,
}

/// `const name = value`, or `name = value`.
pub(super) struct Declaration {
    pub(super) at: usize,
    pub(super) value: Result<Expr, Unread>,
}

/// `path[0].path[1]… = value`.
pub(super) struct Assignment {
    pub(super) at: usize,
    pub(super) path: Vec<String>,
    pub(super) value: Expr,
}

/// A call that an import is interested in.
pub(super) struct Call {
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) arguments: Result<Vec<Expr>, Unread>,
}

/// The condition of an `if` around something.
pub(super) struct Condition {
    pub(super) value: Expr,
    /// It stands in the `else` branch.
    pub(super) negated: bool,
}

/// Calls of these names (after a `.`, but for the class) are kept.
const CALLS: &[&str] = &["set", "enable", "disable", "connect", "createConnection", "MongoClient", "listen"];

/// How far up `if`s are looked for, and how far back in a statement.
const REACH: usize = 60;

impl<'s> Script<'s> {
    /// Reads the input as far as it is needed.
    pub(super) fn read(source: &'s str) -> Result<Self, Refusal> {
        let mut script = Script {
            tokens: Tokens::read(source)?,
            declarations: HashMap::new(),
            modules: HashMap::new(),
            assignments: Vec::new(),
            calls: Vec::new(),
            sessions: Vec::new(),
            declared: HashSet::new(),
            bare: Vec::new(),
        };
        if script.tokens.is(0, "{") || (script.tokens.is(0, "(") && script.tokens.is(1, "{")) {
            script.bare.push(literal::expression(&script.tokens, 0));
        }
        for at in 0..script.tokens.list.len() {
            script.look_at(at);
        }
        // Only now it is known what express-session is called here.
        for at in 0..script.tokens.list.len() {
            let Some(open) = script.session_call(at) else { continue };
            if script.sessions.is_empty() {
                let arguments = literal::arguments(&script.tokens, open);
                script.calls.push(Call { at, name: "session".to_owned(), arguments });
            }
            script.sessions.push(at);
        }
        Ok(script)
    }

    fn look_at(&mut self, at: usize) {
        let Some(word) = self.tokens.name(at) else { return };
        let member = at > 0 && (self.tokens.is(at - 1, ".") || self.tokens.is(at - 1, "?."));
        match word {
            "import" if !member => self.import(at + 1),
            "const" | "let" | "var" if !member => self.declare(at + 1),
            "function" if !member => {
                if let Some(name) = self.tokens.name(at + 1) {
                    let value = literal::expression(&self.tokens, at);
                    self.add(name, at, value);
                }
            }
            "default" if at > 0 && self.tokens.name(at - 1) == Some("export") => {
                self.bare.push(literal::expression(&self.tokens, at + 1));
            }
            _ => {
                if CALLS.contains(&word) && self.tokens.is(at + 1, "(") {
                    let arguments = literal::arguments(&self.tokens, at + 1);
                    self.calls.push(Call { at, name: word.to_owned(), arguments });
                }
                if !member {
                    self.assign(at);
                }
            }
        }
    }

    fn add(&mut self, name: &str, at: usize, value: Result<Expr, Unread>) {
        self.declared.insert(at);
        self.declarations.entry(name.to_owned()).or_default().push(Declaration { at, value });
    }

    /// `X, { A as B } from 'm'`, `* as X from 'm'`, `X = require('m')`.
    fn import(&mut self, from: usize) {
        let mut names = Vec::new();
        let mut at = from;
        while at < from + 4 * REACH {
            match (self.tokens.name(at), self.tokens.mark(at)) {
                (Some("from"), _) if self.tokens.text(at + 1).is_some() => {
                    let module = self.tokens.text(at + 1).unwrap_or_default().to_owned();
                    for name in names {
                        self.modules.insert(name, module.clone());
                    }
                    return;
                }
                (Some("type" | "as"), _) => {}
                (Some(name), _) if self.tokens.name(at + 1) != Some("as") => names.push(name.to_owned()),
                (Some(_), _) | (None, Some("{" | "}" | "," | "*")) => {}
                (None, Some("=")) => {
                    let value = literal::expression(&self.tokens, at + 1);
                    if let Some(name) = names.pop() {
                        self.add(&name, at, value);
                    }
                    return;
                }
                _ => return,
            }
            at += 1;
        }
    }

    /// `a: T = x, b = y`, `{ c, d: e = z } = w`.
    fn declare(&mut self, from: usize) {
        let mut at = from;
        loop {
            let target = at;
            at = match self.tokens.mark(at) {
                Some("{" | "[") => self.tokens.partner[at] + 1,
                _ if self.tokens.name(at).is_some() => at + 1,
                _ => return,
            };
            if self.tokens.is(at, "!") {
                at += 1;
            }
            if self.tokens.is(at, ":") {
                match literal::past_type(&self.tokens, at + 1) {
                    Some(end) => at = end,
                    None => return,
                }
            }
            let mut end = Some(at);
            if self.tokens.is(at, "=") {
                let value = literal::expression(&self.tokens, at + 1);
                end = value.as_ref().ok().map(|value| value.at.end);
                match (self.tokens.name(target), value) {
                    (Some(name), value) => self.add(name, target, value),
                    (None, Ok(value)) if self.tokens.is(target, "{") => self.destructure(target, &value),
                    (None, _) => {}
                }
            }
            match end {
                Some(end) if self.tokens.is(end, ",") => at = end + 1,
                _ => return,
            }
        }
    }

    /// `{ a, b: c, d = 1 }` of `whole`; patterns in patterns are left out.
    fn destructure(&mut self, open: usize, whole: &Expr) {
        let whole = Rc::new(whole.clone());
        let close = self.tokens.partner[open];
        let mut at = open + 1;
        while at < close {
            let Some(key) = self.tokens.name(at) else { return };
            let mut name = Some(key);
            let mut name_at = at;
            let mut end = at + 1;
            if self.tokens.is(end, ":") {
                name_at = end + 1;
                name = self.tokens.name(name_at);
                end = if name.is_some() { end + 2 } else { self.tokens.partner[end + 1] + 1 };
            }
            let below = whole.height + 1;
            let member = Shape::Member(Rc::clone(&whole), key.to_owned());
            let mut value = Expr { shape: member, at: at..end, height: below };
            if self.tokens.is(end, "=") {
                let Ok(default) = literal::expression(&self.tokens, end + 1) else { return };
                end = default.at.end;
                let height = below.max(default.height) + 1;
                let shape = Shape::Binary("??", Rc::new(value), Rc::new(default));
                value = Expr { shape, at: at..end, height };
            }
            if let Some(name) = name {
                self.add(name, name_at, Ok(value));
            }
            if !self.tokens.is(end, ",") {
                return;
            }
            at = end + 1;
        }
    }

    /// `a = x`, `a.b.c = x`, `module.exports = x`.
    fn assign(&mut self, at: usize) {
        let mut path = Vec::new();
        let mut end = at;
        while let Some(name) = self.tokens.name(end) {
            path.push(name.to_owned());
            end += 1;
            if self.tokens.is(end, "!") {
                end += 1;
            }
            if path.len() > 8 || !(self.tokens.is(end, ".") || self.tokens.is(end, "?.")) {
                break;
            }
            end += 1;
        }
        if !self.tokens.is(end, "=") {
            return;
        }
        let value = literal::expression(&self.tokens, end + 1);
        match path.as_slice() {
            [name] => {
                let name = name.clone();
                if !self.declared.contains(&at) {
                    self.add(&name, at, value);
                }
            }
            [module, exports] if module == "module" && exports == "exports" => self.bare.push(value),
            _ => {
                if let Ok(value) = value {
                    self.assignments.push(Assignment { at, path, value });
                }
            }
        }
    }

    /// Where the arguments of a call of express-session begin, when one stands at `at`.
    fn session_call(&self, at: usize) -> Option<usize> {
        let tokens = &self.tokens;
        let name = tokens.name(at)?;
        let before = at.checked_sub(1);
        if name == "require" && tokens.text(at + 2) == Some("express-session") && tokens.is(at + 4, "(") {
            return Some(at + 4);
        }
        if !tokens.is(at + 1, "(") || before.is_some_and(|at| tokens.name(at) == Some("function")) {
            return None;
        }
        // A method of this name.
        let end = tokens.partner[at + 1];
        if tokens.is(end + 1, "{") || end == at + 2 {
            return None;
        }
        if before.is_some_and(|at| tokens.is(at, ".")) {
            // Express 3 had it on board.
            let express = at.checked_sub(2).and_then(|at| tokens.name(at)) == Some("express");
            return (express && name == "session").then_some(at + 1);
        }
        let bound = match self.module_of_name(name) {
            Some(module) => module == "express-session",
            None => {
                matches!(name, "session" | "expressSession" | "Session")
                    && !self.declarations.contains_key(name)
            }
        };
        bound.then_some(at + 1)
    }

    /// The module that a name stands for, however it was imported.
    fn module_of_name(&self, name: &str) -> Option<&str> {
        if let Some(module) = self.modules.get(name) {
            return Some(module);
        }
        let value = self.declarations.get(name)?.first()?.value.as_ref().ok()?;
        self.module_of(value, 8)
    }

    /// The module that an expression's value comes from: `require('m')`, `require('m')(session)`, `M.create(…)`, `new M(…)`.
    pub(super) fn module_of<'e>(&'e self, expr: &'e Expr, depth: usize) -> Option<&'e str> {
        let depth = depth.checked_sub(1)?;
        match &expr.shape {
            Shape::Name(name) => match self.modules.get(name) {
                Some(module) => Some(module),
                None => {
                    let value = self.declarations.get(name)?.first()?.value.as_ref().ok()?;
                    self.module_of(value, depth)
                }
            },
            Shape::Call(callee, arguments) => {
                let required =
                    matches!(&callee.shape, Shape::Name(name) if name == "require" || name == "import");
                match arguments.first().map(|argument| &argument.shape) {
                    Some(Shape::Text(module)) if required => Some(module),
                    _ => self.module_of(callee, depth),
                }
            }
            Shape::Member(inner, _) | Shape::New(inner, _) => self.module_of(inner, depth),
            _ => None,
        }
    }

    /// The conditions of the `if`s around a token, from the innermost on.
    pub(super) fn conditions(&self, at: usize) -> Vec<Condition> {
        let mut found = Vec::new();
        found.extend(self.condition_of_statement(at));
        let mut inside = self.tokens.parent[at];
        for _ in 0..REACH {
            let Some(open) = inside else { break };
            if self.tokens.is(open, "{") {
                found.extend(self.condition_before(open));
            }
            inside = self.tokens.parent[open];
        }
        found
    }

    /// `if (x) statement`, without braces.
    fn condition_of_statement(&self, at: usize) -> Option<Condition> {
        let mut at = at;
        for _ in 0..REACH {
            if let Some(condition) = self.condition_before(at) {
                return Some(condition);
            }
            let before = at.checked_sub(1)?;
            let ends = matches!(self.tokens.mark(before), Some(";" | "{" | "}" | "(" | "["));
            if ends || self.tokens.begins_line(at) {
                return None;
            }
            at = self.tokens.partner[before].min(before);
        }
        None
    }

    /// `if (x)` or `else` just before a token.
    fn condition_before(&self, at: usize) -> Option<Condition> {
        let before = at.checked_sub(1)?;
        let negated = self.tokens.name(before) == Some("else");
        let close = if negated {
            let end = before.checked_sub(1).filter(|end| self.tokens.is(*end, "}"))?;
            self.tokens.partner[end].checked_sub(1)?
        } else {
            before
        };
        if !self.tokens.is(close, ")") {
            return None;
        }
        let open = self.tokens.partner[close];
        if self.tokens.name(open.checked_sub(1)?) != Some("if") {
            return None;
        }
        literal::expression(&self.tokens, open).ok().map(|value| Condition { value, negated })
    }

    /// Objects that may hold options, with the names that they are declared by, in the order in which they are tried.
    pub(super) fn objects(&self) -> Vec<(Option<&str>, &Expr)> {
        let bare = self.bare.iter().filter_map(|value| Some((None, value.as_ref().ok()?)));
        let mut declared: Vec<(&String, &Declaration)> = self
            .declarations
            .iter()
            .flat_map(|(name, list)| list.iter().map(move |one| (name, one)))
            .collect();
        declared.sort_by_key(|(_, declaration)| declaration.at);
        let declared = declared
            .into_iter()
            .filter_map(|(name, one)| Some((Some(name.as_str()), one.value.as_ref().ok()?)));
        bare.chain(declared).filter(|(_, value)| matches!(value.shape, Shape::Object(_))).collect()
    }
}

/// Does an object literal look like options of express-session?
pub(super) fn looks_like_session(properties: &[Property]) -> bool {
    let has = |name: &str| properties.iter().any(|property| property.key.as_deref() == Some(name));
    ["secret", "resave", "saveUninitialized", "cookie", "rolling", "genid"]
        .iter()
        .filter(|name| has(name))
        .count()
        >= 2
        || has("saveUninitialized")
        || (has("secret") && (has("name") || has("store")))
}
