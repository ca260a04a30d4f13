//! `cookie` of express-session as `[session.cookie]`. Tests: `tests/it/import.rs`.

use super::fields::{Field, Fields};
use super::session::Import;
use super::text::quoted;
use super::value::Value;
use super::write::Section;

const HERE: Section = Section::Cookie;

/// express-session sets none of these unless it is told to.
const UNSET: &str = "express-session's default when it is left out";

/// Why a cookie is secure whatever the option says.
const PROMISED: &str = "browsers drop a cookie of this name without it";

impl<'s> Import<'s> {
    pub(super) fn cookie(&mut self, field: Option<Field<'s>>) {
        let mut fields = match &field {
            None => Fields::default(),
            Some(field) => self.reading.fields_of(field).unwrap_or_else(|| {
                let nothing = matches!(self.reading.eval(field.expr), Value::Null | Value::Undefined | Value::Bool(false));
                if !nothing {
                    self.remark(HERE, field, "made for each request, or not to be told from the text; write the cookie's attributes by hand");
                }
                Fields::default()
            }),
        };
        self.max_age(fields.take("maxAge"));
        self.secure(fields.take("secure"));
        self.same_site(fields.take("sameSite"));
        self.http_only(fields.take("httpOnly"));
        self.cookie_path(fields.take("path"));
        self.domain(fields.take("domain"));
        self.flag(&mut fields, HERE, "partitioned", "partitioned", false, false);
        self.priority(fields.take("priority"));
        if let Some(field) = fields.take("expires") {
            match self.value(&field) {
                Value::Null | Value::Undefined | Value::Bool(false) => self.draft.taken += 1,
                _ => self.remark(HERE, &field, "one moment for all sessions, fixed when the app started; write max_age = \"14d\" or whatever was meant"),
            }
        }
        self.unknown(HERE, fields, "express-session sends no such cookie attribute; nothing to do");
    }

    fn max_age(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else { return };
        let value = self.value(&field);
        let reason = self.reason(&field);
        match &value {
            Value::Null | Value::Undefined | Value::Bool(false) => self.draft.taken += 1,
            Value::Number(number) if *number < 1000.0 => {
                self.remark(HERE, &field, "a session that ends as it begins; \"session\" (until the browser closes) is what stays");
            }
            Value::Number(number) if number.is_nan() || number.is_infinite() => {
                self.remark(HERE, &field, "not a number of milliseconds; \"session\" (until the browser closes) is what stays");
            }
            Value::Text(text) if text.as_literal().is_some() => {
                self.remark(HERE, &field, "a text, which express-session refuses: it wants milliseconds as a number; write max_age = \"14d\" or whatever was meant");
            }
            _ => match self.span(&value, 1.0, "ms") {
                Some((toml, variable)) => {
                    self.draft.taken += 1;
                    let reason = if variable.is_some() && reason.is_empty() { "milliseconds, as in the app" } else { reason };
                    if let Some(text) = &variable {
                        self.draft.register(text, "86400000");
                    }
                    self.draft.set(HERE, "max_age", toml, reason);
                }
                None => self.remark(HERE, &field, "cannot be told from the text; write max_age = \"14d\" or whatever it comes to (the app has milliseconds)"),
            },
        }
    }

    /// `__Host-` and `__Secure-` names are dropped by browsers without `Secure`, so they have it in any case.
    fn secure(&mut self, field: Option<Field<'s>>) {
        let why =
            "express-session's default when it is left out; with TLS before the sidecar, \"auto\" is better";
        let name = self.draft.value_of(Section::Session, "name").unwrap_or_default().to_ascii_lowercase();
        let promised = name.starts_with("\"__host-") || name.starts_with("\"__secure-");
        let Some(field) = field else {
            let (value, why) = if promised { ("true", PROMISED) } else { ("false", why) };
            self.draft.set(HERE, "secure", value, why);
            return;
        };
        let value = self.value(&field);
        let reason = self.reason(&field);
        if promised {
            self.draft.taken += 1;
            self.draft.set(HERE, "secure", "true", PROMISED);
            return;
        }
        let auto = matches!(&value, Value::Text(text) if text.as_literal() == Some("auto"));
        match self.reading.truth(&value) {
            Some(_) if auto => self.draft.taken += 1,
            Some(truth) => {
                self.draft.taken += 1;
                self.draft.set(HERE, "secure", truth.to_string(), reason);
            }
            None => self.remark(
                HERE,
                &field,
                "cannot be told from the text; Cloakroom's \"auto\" sets Secure on secure requests",
            ),
        }
    }

    fn same_site(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else {
            self.draft.set(HERE, "same_site", "\"unset\"", UNSET);
            return;
        };
        let value = self.value(&field);
        let reason = self.reason(&field);
        let word = match &value {
            Value::Bool(true) => Some("strict".to_owned()),
            Value::Bool(false) | Value::Null | Value::Undefined => Some("unset".to_owned()),
            Value::Text(text) => match text.as_literal().map(str::to_ascii_lowercase) {
                Some(word) if word.is_empty() => Some("unset".to_owned()),
                Some(word) if ["lax", "strict", "none", "auto"].contains(&word.as_str()) => Some(word),
                Some(_) => None,
                None => {
                    self.draft.taken += 1;
                    self.draft.set_text(HERE, "same_site", text, "lax", "in lower case");
                    return;
                }
            },
            _ => None,
        };
        match word {
            Some(word) => {
                self.draft.taken += 1;
                if word != "lax" || !reason.is_empty() {
                    self.draft.set(HERE, "same_site", quoted(&word), reason);
                }
            }
            None => self.remark(HERE, &field, "not a value that the cookie knows, or not to be told from the text; Cloakroom's \"lax\" stays"),
        }
    }

    fn http_only(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else { return };
        let value = self.value(&field);
        let reason = self.reason(&field);
        match self.reading.truth(&value) {
            Some(truth) => {
                self.draft.taken += 1;
                if !truth {
                    let reason =
                        if reason.is_empty() { "scripts of the page can read the cookie" } else { reason };
                    self.draft.set(HERE, "http_only", "false", reason);
                }
            }
            None => self.remark(HERE, &field, "cannot be told from the text; true stays"),
        }
    }

    fn cookie_path(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else { return };
        match self.value(&field) {
            Value::Text(text) if text.as_literal() == Some("/") => self.draft.taken += 1,
            Value::Text(text) if text.as_literal() != Some("") => {
                let reason = self.reason(&field);
                self.draft.taken += 1;
                self.draft.set_text(HERE, "path", &text, "/", reason);
            }
            _ => self.remark(
                HERE,
                &field,
                "a cookie without Path, or not to be told from the text; \"/\" stays",
            ),
        }
    }

    fn domain(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else { return };
        match self.value(&field) {
            Value::Text(text) if text.as_literal() != Some("") => {
                let reason = self.reason(&field);
                self.draft.taken += 1;
                self.draft.set_text(HERE, "domain", &text, "example.com", reason);
            }
            value if self.reading.truth(&value) == Some(false) => self.draft.taken += 1,
            _ => self.remark(HERE, &field, "cannot be told from the text; write domain = \"example.com\""),
        }
    }

    fn priority(&mut self, field: Option<Field<'s>>) {
        let Some(field) = field else { return };
        match self.value(&field) {
            Value::Text(text)
                if text.as_literal().is_some_and(|word| {
                    ["low", "medium", "high"].contains(&word.to_ascii_lowercase().as_str())
                }) =>
            {
                let word = text.as_literal().unwrap_or_default().to_ascii_lowercase();
                self.draft.taken += 1;
                self.draft.set(HERE, "priority", quoted(&word), "");
            }
            value if self.reading.truth(&value) == Some(false) => self.draft.taken += 1,
            _ => self.remark(HERE, &field, "\"low\", \"medium\" and \"high\" are what there is"),
        }
    }
}
