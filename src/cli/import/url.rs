//! URLs of databases: those of the input as they are, unless a password stands in them. Tests: `tests/it/import.rs`.

use super::expr::{Expr, Shape};
use super::session::Import;
use super::text::{Piece, Text};
use super::value::Value;
use super::write::Section;

const HERE: Section = Section::Store;

impl<'s> Import<'s> {
    /// `url`: as it is without a password, else as a reference.
    pub(super) fn url(&mut self, expr: &'s Expr, variable: &str, sample: &str) {
        let line = self.reading.line(expr);
        let comment = match self.reading.eval(expr) {
            // A variable whose default has a password.
            Value::Text(text) if text.as_variable().is_some() && shows_a_password(&text) => {
                let reference = text.without_defaults();
                self.draft.set_text(HERE, "url", &reference, sample, "");
                self.draft
                    .above(format!("The default on line {line} has a password and is not repeated here."));
                return;
            }
            Value::Text(text) if shows_a_password(&text) => {
                format!(
                    "A password stands in the URL on line {line} of the input: set {variable} to that URL; it is not repeated here."
                )
            }
            Value::Text(text) => {
                self.draft.set_text(HERE, "url", &text, sample, "");
                if let Some(reference) = Text::variable(variable) {
                    let reason = format!(
                        "The URL on line {line} is not one that the driver takes as it is: set {variable} to one that is"
                    );
                    self.draft.or_else(&reference, sample, &reason);
                }
                return;
            }
            _ => format!(
                "What the URL on line {line} comes to cannot be told from the text: set {variable} to it."
            ),
        };
        self.url_reference(variable, sample, &comment);
    }

    pub(super) fn url_reference(&mut self, variable: &str, sample: &str, comment: &str) {
        let reference = Text::variable(variable).unwrap_or_default();
        self.draft.set_text(HERE, "url", &reference, sample, "");
        self.draft.above(comment);
    }

    /// The URL that the snippet connects to: that of the given client, else of the first connection in it.
    pub(super) fn connected(&self, client: Option<&'s Expr>) -> Option<&'s Expr> {
        let own = client.and_then(|client| self.connects(client, 8));
        own.or_else(|| {
            let script = self.reading.script;
            let calls = script
                .calls
                .iter()
                .filter(|call| ["connect", "createConnection", "MongoClient"].contains(&call.name.as_str()));
            calls.filter_map(|call| call.arguments.as_ref().ok()?.first()).find(|expr| self.is_mongodb(expr))
        })
    }

    fn connects(&self, expr: &'s Expr, depth: usize) -> Option<&'s Expr> {
        let depth = depth.checked_sub(1)?;
        match &expr.shape {
            Shape::Name(name) => self.connects(self.reading.declared(name, expr.at.start)?, depth),
            Shape::Call(callee, arguments) | Shape::New(callee, arguments) => {
                let first = arguments.first().filter(|first| self.is_mongodb(first));
                first.or_else(|| self.connects(callee, depth))
            }
            Shape::Member(object, _) => self.connects(object, depth),
            _ => None,
        }
    }

    /// A MongoDB URL, or a variable that may hold one.
    fn is_mongodb(&self, expr: &'s Expr) -> bool {
        match self.reading.eval(expr) {
            Value::Text(text) => match text.pieces().first() {
                Some(Piece::Literal(text)) => text.starts_with("mongodb"),
                Some(Piece::Variable { name, .. }) => {
                    let name = name.to_ascii_uppercase();
                    ["MONGO", "DB", "DATABASE", "ATLAS"].iter().any(|part| name.contains(part))
                }
                None => false,
            },
            _ => false,
        }
    }
}

/// Is there anything between the `:` and the `@` of a URL that is no variable, or a default that has a password?
pub(super) fn shows_a_password(text: &Text) -> bool {
    // Variables become one character each that no URL has.
    let mut flat = String::new();
    for piece in text.pieces() {
        match piece {
            Piece::Literal(text) => flat.push_str(text),
            Piece::Variable { default: Some(default), .. }
                if shows_a_password(&Text::literal(default.as_str())) =>
            {
                return true;
            }
            Piece::Variable { .. } => flat.push('\u{1}'),
        }
    }
    let lower = flat.to_ascii_lowercase();
    if ["password=", "passwd=", "token:", "token="].iter().any(|part| lower.contains(part)) {
        return true;
    }
    let rest = flat.split_once("://").map_or(flat.as_str(), |(_, rest)| rest);
    let Some((user, _)) = rest.rsplit_once('@') else { return false };
    match user.split_once(':') {
        Some((_, password)) => !password.is_empty() && password != "\u{1}",
        None => false,
    }
}
