//! One value of the file, read as what its key asks for. Every mismatch is reported with what to write instead.
//! Knows no key. Tests: `tests/it/config.rs`.

use super::expand::{Refused, expand};
use super::nearest::nearest;
use super::units::{self, DURATION_CURE, SIZE_CURE};
use super::veil::{is_secret, may_hold_password};
use super::walk::{Table, Walk};
use crate::session::guard::FieldPath;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// One value of the file.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub(super) walk: &'a Walk<'a>,
    pub(super) path: String,
    pub(super) key_span: Range<usize>,
    pub(super) node: &'a Spanned<DeValue<'a>>,
}

/// A string after `${NAME}` was replaced, and as it stands in the file: messages show only the latter, because what
/// comes from the environment may be a secret in the wrong place.
pub(super) struct Text {
    pub(super) value: String,
    pub(super) shown: String,
}

impl<'a> Item<'a> {
    pub(super) fn span(&self) -> Range<usize> {
        self.node.span()
    }

    pub(super) fn problem(&self, what: impl Into<String>, hint: impl Into<String>) {
        self.walk.problem(&self.path, self.span(), what, hint);
    }

    pub(super) fn warning(&self, what: impl Into<String>, hint: impl Into<String>) {
        self.walk.warning(&self.path, self.span(), what, hint);
    }

    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.node.get_ref()
    }

    fn wrong_type(&self, wanted: &str) {
        let given = match self.value() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problem(format!("wrong type: this is {given}"), format!("write {wanted}"));
    }

    pub(super) fn flag(&self) -> Option<bool> {
        if let DeValue::Boolean(flag) = self.value() {
            return Some(*flag);
        }
        self.wrong_type("true or false, without quotes");
        None
    }

    /// Is it the string `word`, once expanded? Reports nothing.
    pub(super) fn says(&self, word: &str) -> bool {
        let DeValue::String(source) = self.value() else { return false };
        expand(source, self.walk.env).is_ok_and(|text| text == word)
    }

    /// A list without anything in it.
    pub(super) fn is_empty_list(&self) -> bool {
        self.value().as_array().is_some_and(|list| list.is_empty())
    }

    pub(super) fn text(&self) -> Option<Text> {
        self.text_or("a string in quotes")
    }

    fn text_or(&self, wanted: &str) -> Option<Text> {
        let DeValue::String(source) = self.value() else {
            self.wrong_type(wanted);
            return None;
        };
        match expand(source, self.walk.env) {
            Ok(value) => {
                let hidden = is_secret(&self.path) || may_hold_password(source);
                Some(Text { value, shown: if hidden { "…".to_owned() } else { shorten(source) } })
            }
            Err(refused) => {
                refused.iter().for_each(|why| self.refuse(why));
                None
            }
        }
    }

    fn refuse(&self, why: &Refused) {
        let span = self.span();
        let (part, what, hint) = match why {
            Refused::Missing(name) if is_secret(&self.path) => (
                format!("${{{name}"),
                format!("environment variable {name} is not set"),
                cure_of_missing(&self.path, name),
            ),
            Refused::Missing(name) => (
                format!("${{{name}"),
                format!("environment variable {name} is not set"),
                format!("set it, or give a default: ${{{name}:-…}}"),
            ),
            Refused::Malformed(text) => (
                text.clone(),
                "`${` does not begin a variable here".to_owned(),
                "write ${NAME} or ${NAME:-default}, and $${ for a literal ${".to_owned(),
            ),
        };
        // Point at the variable itself; with escapes before it in the string, at the string.
        let inside = self.walk.text.get(span.clone()).and_then(|source| source.find(&part));
        let span = inside.map_or(span.clone(), |at| span.start + at..span.end);
        self.walk.problem(&self.path, span, what, hint);
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let valid = names.join(", ");
        let text = self.text_or(&format!("one of {valid}"))?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text.value) {
            return Some(*value);
        }
        let hint = match nearest(&text.shown, choices.iter().map(|(name, _)| *name)) {
            Some(near) => format!("did you mean \"{near}\"? (valid: {valid})"),
            None => format!("valid: {valid}"),
        };
        self.problem(format!("`{}` is not a valid value", text.shown), hint);
        None
    }

    pub(super) fn duration(&self, least: Duration) -> Option<Duration> {
        let text = self.text_or("a duration in quotes, like \"30s\"")?;
        let Some(duration) = units::parse_duration(&text.value) else {
            self.problem(format!("`{}` is not a duration", text.shown), DURATION_CURE);
            return None;
        };
        if duration < least {
            self.problem("too short", format!("the least is {}", units::show_duration(least)));
            return None;
        }
        Some(duration)
    }

    /// A size in bytes; `also` is what else the caller understands, for the message.
    pub(super) fn size(&self, range: RangeInclusive<u64>, also: &str) -> Option<u64> {
        let bytes = if let DeValue::Integer(_) = self.value() {
            self.integer().and_then(|number| u64::try_from(number).ok())
        } else {
            let text = self.text_or(&format!("a size, like \"64KiB\"{also}"))?;
            let parsed = units::parse_size(&text.value);
            if parsed.is_none() {
                self.problem(format!("`{}` is not a size", text.shown), format!("{SIZE_CURE}{also}"));
                return None;
            }
            parsed
        };
        let bytes = bytes.filter(|bytes| range.contains(bytes));
        if bytes.is_none() {
            let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
            self.problem("out of range", format!("between {least} and {most}{also}"));
        }
        bytes
    }

    pub(super) fn count(&self, range: RangeInclusive<u64>) -> Option<u64> {
        if !matches!(self.value(), DeValue::Integer(_)) {
            self.wrong_type("a whole number, without quotes");
            return None;
        }
        let number = self.integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.problem("out of range", format!("between {} and {}", range.start(), range.end()));
        }
        number
    }

    /// The whole number that stands here; `None` for other types and for what 64 bits cannot hold.
    pub(super) fn integer(&self) -> Option<i64> {
        let DeValue::Integer(integer) = self.value() else { return None };
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    pub(super) fn list(&self, wanted: &str) -> Option<Vec<Self>> {
        let DeValue::Array(nodes) = self.value() else {
            self.wrong_type(wanted);
            return None;
        };
        let item = |(index, node): (usize, &'a Spanned<DeValue<'a>>)| Self {
            walk: self.walk,
            path: format!("{}[{index}]", self.path),
            key_span: node.span(),
            node,
        };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.value(), DeValue::Table(_))
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value() else {
            self.wrong_type("a table");
            return None;
        };
        Some(Table::of(self, entries))
    }

    pub(super) fn field(&self) -> Option<FieldPath> {
        let text = self.text_or("a field path, like \"user.id\"")?;
        let field = FieldPath::parse(&text.value);
        if field.is_none() {
            self.problem(
                format!("`{}` is not a field path", text.shown),
                "write keys joined by dots: \"user.id\"",
            );
        }
        field
    }

    /// A file name, relative to the folder of the configuration file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let text = self.text_or("a file name in quotes")?;
        if text.value.is_empty() || text.value.contains('\0') {
            self.problem("not a file name", "write a path, relative to the folder of this file or absolute");
            return None;
        }
        Some(self.walk.file(&self.path, &text.value))
    }
}

/// What to do about a secret's variable that is not set. Whoever comes from an Express app has the secret already, and a fresh one would
/// end every session.
fn cure_of_missing(path: &str, name: &str) -> String {
    let make = format!("export {name}=\"$(cloakroom secret)\"");
    match path.split('[').next().unwrap_or(path) {
        "session.secrets" | "store.crypto.secret" => {
            format!("set it to the app's secret; for a new deployment make one: {make}")
        }
        "store.crypto.old_secrets" => {
            format!("set it to the secret that older sessions are sealed with: export {name}='…'")
        }
        "store.crypto.kruptein.secret" => {
            format!("set it to the secret of the app's crypto option: export {name}='…'")
        }
        path if path.ends_with("token") || path.ends_with("signing_key") => {
            format!("set it to a secret of its own: {make}")
        }
        _ => format!("set it: export {name}='…'"),
    }
}

/// At most 60 characters, on one line, for a message.
fn shorten(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(61).collect();
    if clean.chars().count() > 60 { clean.chars().take(59).chain(['…']).collect() } else { clean }
}
