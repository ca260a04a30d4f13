//! The options of express-session as `[session]`, `[session.cookie]` and `[server]`, with its defaults written out where
//! Cloakroom's differ. Tests: `tests/it/import.rs`.

use super::expr::{Expr, Shape};
use super::fields::{Field, Fields};
use super::store;
use super::text::{Text, quoted};
use super::value::{Reading, Value};
use super::write::{Draft, Section, duration, list};

/// Stands for any secret when the result is checked.
pub(super) const SAMPLE_SECRET: &str = "sample-sample-sample-sample-sample-sample";

/// An import under way.
pub(super) struct Import<'s> {
    pub(super) reading: Reading<'s>,
    pub(super) draft: Draft,
}

impl<'s> Import<'s> {
    /// `[session]` with its cookie, and the store.
    pub(super) fn session(&mut self, mut fields: Fields<'s>) {
        self.secret(fields.take("secret"));
        let old_name = fields.take("key");
        let named = fields.take("name");
        self.name(named.or(old_name));
        self.flag(&mut fields, Section::Session, "resave", "resave", true, false);
        self.flag(&mut fields, Section::Session, "saveUninitialized", "save_uninitialized", true, false);
        self.flag(&mut fields, Section::Session, "rolling", "rolling", false, false);
        self.unset(fields.take("unset"));
        self.proxy(fields.take("proxy"));
        if let Some(field) = fields.take("genid") {
            self.remark(
                Section::Session,
                &field,
                "the sidecar makes the session ids: 24 random bytes. Ids that the app made stay valid",
            );
        }
        let cookie = fields.take("cookie");
        self.cookie(cookie);
        store::store(self, fields.take("store"));
        self.unknown(
            Section::Session,
            fields,
            "express-session has no option of this name and ignores it; nothing to do",
        );
    }

    /// Options that nobody knows, each with the reason why it has no match.
    pub(super) fn unknown(&mut self, section: Section, fields: Fields<'s>, why: &str) {
        for expr in &fields.unread {
            let (line, shown) = (self.reading.line(expr), self.reading.shown(expr));
            self.draft.remark(
                section,
                format!("line {line}: {shown}: cannot be told from the text; add what it sets by hand."),
            );
        }
        for field in fields.rest() {
            self.remark(section, &field, why);
        }
    }

    /// A comment: what the option was, and why it has no match.
    pub(super) fn remark(&mut self, section: Section, field: &Field<'s>, why: &str) {
        let (line, shown) = (self.reading.line(field.expr), self.reading.shown(field.expr));
        let key = super::token::shorten(&field.key, 40);
        self.draft.remark(section, format!("{key}: {shown} (line {line}): {why}."));
    }

    /// A comment for an option that has no match, unless the app has switched it off.
    pub(super) fn without_match(&mut self, fields: &mut Fields<'s>, section: Section, key: &str, why: &str) {
        let Some(field) = fields.take(key) else { return };
        match self.value(&field) {
            Value::Bool(false) | Value::Null | Value::Undefined => self.draft.taken += 1,
            _ => self.remark(section, &field, why),
        }
    }

    /// The value of an option; what it had to assume is said by [`Self::reason`].
    pub(super) fn value(&self, field: &Field<'s>) -> Value<'s> {
        self.reading.take_assumed();
        self.reading.eval(field.expr)
    }

    /// What must be said about how a value was found: to be asked right after [`Self::value`].
    pub(super) fn reason(&self, field: &Field<'s>) -> &'static str {
        let assumed = self.reading.take_assumed() || field.assumed;
        match (assumed, field.uncertain) {
            (true, _) => "the app's value for NODE_ENV=production",
            (false, true) => "set under a condition in the app: is it what you want?",
            (false, false) => "",
        }
    }

    /// A Boolean by JavaScript's rules. `missing` is the app's when the option is left out, `own` Cloakroom's.
    pub(super) fn flag(
        &mut self,
        fields: &mut Fields<'s>,
        section: Section,
        name: &str,
        key: &'static str,
        missing: bool,
        own: bool,
    ) {
        let Some(field) = fields.take(name) else {
            if missing != own {
                self.draft.set(
                    section,
                    key,
                    missing.to_string(),
                    "express-session's default when it is left out",
                );
            }
            return;
        };
        let value = self.value(&field);
        let truth = match value {
            Value::Undefined => Some(missing),
            _ => self.reading.truth(&value),
        };
        let reason = self.reason(&field);
        match truth {
            Some(truth) => {
                self.draft.taken += 1;
                if truth != own || !reason.is_empty() {
                    self.draft.set(section, key, truth.to_string(), reason);
                }
            }
            None => self.remark(
                section,
                &field,
                &format!("cannot be told from the text; write {key} = true or false"),
            ),
        }
    }

    /// A text as it is; `fallback` stands in for one that cannot be told.
    pub(super) fn text(
        &mut self,
        fields: &mut Fields<'s>,
        section: Section,
        name: &str,
        key: &'static str,
        default: &str,
        sample: &str,
    ) {
        let Some(field) = fields.take(name) else { return };
        match self.value(&field) {
            Value::Text(text) => {
                let reason = self.reason(&field);
                self.draft.taken += 1;
                if text.as_literal() != Some(default) {
                    self.draft.set_text(section, key, &text, sample, reason);
                }
            }
            Value::Null | Value::Undefined => self.draft.taken += 1,
            _ => self.remark(section, &field, &format!("cannot be told from the text; write {key} = \"…\"")),
        }
    }

    /// The name for a secret that stands in the input: the first that is free.
    pub(super) fn secret_name(&self, base: &str) -> String {
        let free = |name: &String| !self.draft.knows(name);
        std::iter::once(base.to_owned())
            .chain((2..).map(|n| format!("{base}_{n}")))
            .find(free)
            .unwrap_or_default()
    }

    /// A reference to a secret, and what to set it to. The secret itself is never written.
    pub(super) fn secret_reference(&mut self, expr: &'s Expr, base: &str) -> (Text, Option<String>) {
        let line = self.reading.line(expr);
        let value = self.reading.eval(expr);
        let (text, comment) = match value {
            Value::Text(text)
                if text.pieces().iter().all(|piece| matches!(piece, super::text::Piece::Variable { .. }))
                    && !text.pieces().is_empty() =>
            {
                let with_default = text
                    .pieces()
                    .iter()
                    .any(|piece| matches!(piece, super::text::Piece::Variable { default: Some(_), .. }));
                let text = text.without_defaults();
                let comment = with_default.then(|| format!("The default on line {line} is not repeated here: it is a secret that everybody can read."));
                (text, comment)
            }
            Value::Text(_) => {
                let name = self.secret_name(base);
                let comment =
                    format!("Set {name} to the text on line {line} of the input; it is not repeated here.");
                (Text::variable(&name).unwrap_or_default(), Some(comment))
            }
            _ => match self.first_variable(expr) {
                Some(text) => {
                    (text, Some(format!("Line {line} also has a fallback; it is not repeated here.")))
                }
                None => {
                    let name = self.secret_name(base);
                    let comment = format!(
                        "Set {name} to what line {line} of the input comes to; that cannot be told from the text."
                    );
                    (Text::variable(&name).unwrap_or_default(), Some(comment))
                }
            },
        };
        self.draft.register(&text, SAMPLE_SECRET);
        (text, comment)
    }

    /// `process.env.A || something`: the variable.
    fn first_variable(&self, expr: &'s Expr) -> Option<Text> {
        let expr = match &expr.shape {
            Shape::Name(name) => self.reading.declared(name, expr.at.start)?,
            _ => expr,
        };
        let Shape::Binary("||" | "??", left, _) = &expr.shape else { return None };
        match self.reading.eval(left) {
            Value::Text(text) if text.as_variable().is_some() => Some(text.without_defaults()),
            _ => self.first_variable(left),
        }
    }

    fn secret(&mut self, field: Option<Field<'s>>) {
        let mut references = Vec::new();
        let mut comments = Vec::new();
        match &field {
            None => comments.push(
                "No secret in the input: set SESSION_SECRET to the one that the app signs with.".to_owned(),
            ),
            Some(field) => {
                let reduced = match self.reading.eval(field.expr) {
                    Value::Other(expr) => expr,
                    _ => field.expr,
                };
                let items: Vec<&'s Expr> = match &reduced.shape {
                    Shape::Array(items) if !items.is_empty() => items.iter().take(32).collect(),
                    _ => vec![field.expr],
                };
                self.draft.taken += 1;
                for item in items {
                    let (text, comment) = self.secret_reference(item, "SESSION_SECRET");
                    references.push(text);
                    comments.extend(comment);
                }
                if references.len() > 1 {
                    comments.push("The first signs, every one verifies.".to_owned());
                }
            }
        }
        if references.is_empty() {
            let text = Text::variable("SESSION_SECRET").unwrap_or_default();
            self.draft.register(&text, SAMPLE_SECRET);
            references.push(text);
        }
        self.draft.set(Section::Session, "secrets", list(references.iter().map(Text::toml)), "");
        for comment in comments {
            self.draft.above(comment);
        }
    }

    fn name(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else { return };
        match self.value(&field) {
            Value::Text(text) if text.as_literal() == Some("connect.sid") => self.draft.taken += 1,
            Value::Text(text) if text.as_literal() != Some("") => {
                let reason = self.reason(&field);
                self.draft.taken += 1;
                self.draft.set_text(Section::Session, "name", &text, "sid", reason);
            }
            value if self.reading.truth(&value) == Some(false) => self.draft.taken += 1,
            _ => self.remark(
                Section::Session,
                &field,
                "cannot be told from the text; write name = \"…\", or all sessions are lost",
            ),
        }
    }

    fn unset(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else { return };
        match self.value(&field) {
            Value::Text(text) if text.as_literal() == Some("destroy") => {
                self.draft.taken += 1;
                let reason = self.reason(&field);
                self.draft.set(Section::Session, "unset", "\"destroy\"", reason);
            }
            Value::Text(text) if text.as_literal() == Some("keep") => self.draft.taken += 1,
            value if self.reading.truth(&value) == Some(false) => self.draft.taken += 1,
            _ => self.remark(
                Section::Session,
                &field,
                "express-session knows \"keep\" and \"destroy\"; \"keep\" is the default",
            ),
        }
    }

    /// Only `true` and `false` mean something to express-session; all else leaves it to Express.
    fn proxy(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else { return };
        match self.value(&field) {
            Value::Bool(flag) => {
                self.draft.taken += 1;
                let reason = self.reason(&field);
                let reason = if flag && reason.is_empty() {
                    "X-Forwarded-Proto is believed from anyone; server.trust_proxy is better"
                } else {
                    reason
                };
                self.draft.set(Section::Session, "proxy", flag.to_string(), reason);
            }
            Value::Null | Value::Undefined => self.draft.taken += 1,
            Value::Other(_) => self.remark(
                Section::Session,
                &field,
                "cannot be told from the text; write proxy = true or false",
            ),
            _ => self.remark(
                Section::Session,
                &field,
                "neither true nor false, so express-session leaves it to `trust proxy`, as Cloakroom does",
            ),
        }
    }

    /// `app.set('trust proxy', …)`
    pub(super) fn trust_proxy(&mut self, expr: &'s Expr, enabled: Option<bool>, reason: &str) {
        let line = self.reading.line(expr);
        let value = match enabled {
            Some(flag) => Value::Bool(flag),
            None => self.reading.eval(expr),
        };
        let toml = match &value {
            Value::Bool(false) => {
                self.draft.taken += 1;
                return;
            }
            Value::Bool(true) => Some("true".to_owned()),
            Value::Number(hops) if hops.fract() == 0.0 && (0.0..=255.0).contains(hops) => {
                Some(format!("{hops:.0}"))
            }
            Value::Text(text) => {
                self.draft.register(text, "loopback");
                Some(text.toml())
            }
            Value::Other(Expr { shape: Shape::Array(items), .. }) => {
                let texts: Option<Vec<String>> = items
                    .iter()
                    .map(|item| match self.reading.eval(item) {
                        Value::Text(text) if text.as_literal().is_some() => Some(text.toml()),
                        _ => None,
                    })
                    .collect();
                texts.map(list)
            }
            _ => None,
        };
        match toml {
            Some(toml) => {
                self.draft.taken += 1;
                self.draft.set(Section::Server, "trust_proxy", toml, reason);
            }
            None => {
                let shown = self.reading.shown(expr);
                self.draft.remark(Section::Server, format!("trust proxy: {shown} (line {line}): a function, or not to be told from the text; name your proxies: trust_proxy = [\"loopback\", \"10.0.0.0/8\"]."));
            }
        }
    }

    /// Milliseconds as a duration. `unit` is that of the option in milliseconds, `suffix` its name for variables.
    pub(super) fn span(&self, value: &Value<'s>, unit: f64, suffix: &str) -> Option<(String, Option<Text>)> {
        match value {
            Value::Number(number) if number.is_finite() && *number >= 0.0 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive; a huge one is capped"
                )]
                let millis = (number * unit).trunc().min(36_500.0 * 86_400_000.0) as u64;
                Some((duration(millis), None))
            }
            Value::Text(text) => {
                text.as_variable()?;
                Some((quoted(&format!("{}{suffix}", text.expandable())), Some(text.clone())))
            }
            _ => None,
        }
    }
}
