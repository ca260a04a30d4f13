//! The configuration that is written: its sections in order, a key and a reason for each line, and the check that the
//! sidecar takes it. Knows no JavaScript. Tests: `tests/it/import.rs`.

use super::text::{Piece, Text, quoted};
use crate::config;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Comments end here.
const WIDTH: usize = 110;
/// Where comments beside a key begin, when there is room.
const BESIDE: usize = 38;

/// The sections of the file, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Listener,
    Server,
    Session,
    Cookie,
    Store,
    Crypto,
    Kruptein,
    Upstream,
    Route,
}

impl Section {
    fn header(self) -> &'static str {
        match self {
            Self::Listener => "[[listener]]",
            Self::Server => "[server]",
            Self::Session => "[session]",
            Self::Cookie => "[session.cookie]",
            Self::Store => "[store]",
            Self::Crypto => "[store.crypto]",
            Self::Kruptein => "[store.crypto.kruptein]",
            Self::Upstream => "[upstream.app]",
            Self::Route => "[[route]]",
        }
    }
}

/// A key with its value, or a comment alone.
#[derive(Debug, Clone)]
struct Entry {
    section: Section,
    above: Vec<String>,
    pair: Option<(&'static str, String)>,
    beside: String,
    /// In place of a value that the sidecar refuses.
    fallback: Option<(String, String)>,
}

/// A configuration in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    entries: Vec<Entry>,
    /// What stands in for the environment when the result is checked.
    samples: BTreeMap<String, String>,
    /// Options of the input that are in the file, or need no line there.
    pub(super) taken: usize,
    /// Options of the input that only have a comment.
    pub(super) remarked: usize,
}

impl Draft {
    /// `key = value`, with a reason (or none) beside it. `value` is TOML.
    pub(super) fn set(
        &mut self,
        section: Section,
        key: &'static str,
        value: impl Into<String>,
        beside: &str,
    ) {
        let (pair, beside) = (Some((key, value.into())), beside.to_owned());
        self.entries.push(Entry { section, above: Vec::new(), pair, beside, fallback: None });
    }

    /// `key = "text"`; `sample` is what its only variable may hold.
    pub(super) fn set_text(
        &mut self,
        section: Section,
        key: &'static str,
        text: &Text,
        sample: &str,
        beside: &str,
    ) {
        self.register(text, sample);
        self.set(section, key, text.toml(), beside);
    }

    /// A comment of its own before the key that was set last.
    pub(super) fn above(&mut self, comment: impl Into<String>) {
        if let Some(entry) = self.entries.last_mut() {
            entry.above.push(comment.into());
        }
    }

    /// What to write when the sidecar refuses the value that was set last.
    pub(super) fn or_else(&mut self, text: &Text, sample: &str, reason: &str) {
        self.register(text, sample);
        if let Some(entry) = self.entries.last_mut() {
            entry.fallback = Some((text.toml(), reason.to_owned()));
        }
    }

    /// A comment in a section, that counts no option.
    pub(super) fn note(&mut self, section: Section, comment: impl Into<String>) {
        let above = vec![comment.into()];
        self.entries.push(Entry { section, above, pair: None, beside: String::new(), fallback: None });
    }

    /// An option that has no match: what it was, why, what to do.
    pub(super) fn remark(&mut self, section: Section, comment: impl Into<String>) {
        self.remarked += 1;
        self.note(section, comment);
    }

    /// Remembers the variables of a text.
    pub(super) fn register(&mut self, text: &Text, sample: &str) {
        let whole = text.as_variable().is_some();
        for piece in text.pieces() {
            if let Piece::Variable { name, .. } = piece {
                // A piece of a URL: as a port, name or host.
                let sample = if whole { sample } else { "1" };
                self.samples.entry(name.clone()).or_insert_with(|| sample.to_owned());
            }
        }
    }

    /// Is a variable of this name in the file?
    pub(super) fn knows(&self, variable: &str) -> bool {
        self.samples.contains_key(variable)
    }

    /// The value that a key has so far.
    pub(super) fn value_of(&self, section: Section, key: &str) -> Option<&str> {
        let own = |entry: &'_ &Entry| {
            entry.section == section && entry.pair.as_ref().is_some_and(|(own, _)| *own == key)
        };
        self.entries.iter().find(own).and_then(|entry| entry.pair.as_ref()).map(|(_, value)| value.as_str())
    }

    /// The variables that the file names, in order of their names.
    pub(super) fn variables(&self) -> Vec<String> {
        let used = |name: &&String| {
            let (plain, with_default) = (format!("${{{name}}}"), format!("${{{name}:-"));
            let uses = |value: &str| value.contains(&plain) || value.contains(&with_default);
            self.entries.iter().any(|entry| entry.pair.as_ref().is_some_and(|(_, value)| uses(value)))
        };
        self.samples.keys().filter(used).cloned().collect()
    }

    /// The file. What the sidecar would refuse becomes a comment that says why.
    pub(super) fn finish(&mut self) -> String {
        self.entries.sort_by_key(|entry| entry.section);
        // Each round takes at least one line out, and what is left at the end is few lines.
        for _ in 0..self.entries.len() {
            let (text, owners) = self.render();
            let Err(problems) = self.check(&text) else { return text };
            let mut changed = false;
            for problem in &problems.0 {
                let owner = owners.get(problem.line.saturating_sub(1)).copied().flatten();
                let cure = problem.hint.as_deref().unwrap_or_default();
                changed |= owner.is_some_and(|owner| self.withdraw(owner, &problem.what, cure));
            }
            if !changed {
                return text;
            }
        }
        self.render().0
    }

    /// Is the file as it stands taken? The variables hold their samples.
    fn check(&self, text: &str) -> Result<(), config::Problems> {
        let env = |name: &str| self.samples.get(name).cloned();
        config::parse(text, "proxy.toml", Path::new(""), env).map(|_| ())
    }

    /// Puts the fallback, or a comment, in place of a pair. False when there is none to take away.
    fn withdraw(&mut self, owner: usize, what: &str, cure: &str) -> bool {
        let Some(entry) = self.entries.get_mut(owner) else { return false };
        let Some((key, _)) = entry.pair.take() else { return false };
        match entry.fallback.take() {
            Some((value, reason)) => {
                entry.pair = Some((key, value));
                entry.above.push(format!("{reason} ({what})."));
                entry.beside.clear();
            }
            None => {
                entry.above.push(format!(
                    "{key}: left out, the sidecar does not take the app's value: {what}; {cure}."
                ));
                entry.beside.clear();
                self.remarked += 1;
                self.taken = self.taken.saturating_sub(1);
            }
        }
        true
    }

    /// The text, and for each of its lines the entry that it belongs to.
    fn render(&self) -> (String, Vec<Option<usize>>) {
        let mut out = String::new();
        let mut owners = Vec::new();
        let mut line = |text: &str, owner: Option<usize>| {
            out.push_str(text);
            out.push('\n');
            owners.push(owner);
        };
        for text in [
            "# Made by `cloakroom import` from the options of express-session and its store.",
            "# Comments say what differs from Cloakroom's defaults because the app had it so, and what had no match.",
        ] {
            line(text, None);
        }
        let mut section = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if section != Some(entry.section) {
                line("", None);
                line(entry.section.header(), None);
                section = Some(entry.section);
            }
            for comment in &entry.above {
                wrap(comment).iter().for_each(|text| line(text, Some(index)));
            }
            let Some((key, value)) = &entry.pair else { continue };
            let pair = format!("{key} = {value}");
            if entry.beside.is_empty() {
                line(&pair, Some(index));
            } else if pair.chars().count().max(BESIDE) + entry.beside.chars().count() < WIDTH {
                let mut text = pair;
                let blanks = BESIDE.saturating_sub(text.chars().count()).max(2);
                let _ = write!(text, "{:blanks$}# {}", "", entry.beside);
                line(&text, Some(index));
            } else {
                wrap(&entry.beside).iter().for_each(|text| line(text, Some(index)));
                line(&pair, Some(index));
            }
        }
        (out, owners)
    }
}

/// A list of TOML values on one line.
pub(super) fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// Milliseconds as a duration of the configuration, in the largest unit that fits.
pub(super) fn duration(millis: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fitting = units.into_iter().find(|(factor, _)| millis > 0 && millis.is_multiple_of(*factor));
    let (factor, unit) = fitting.unwrap_or((1, if millis == 0 { "s" } else { "ms" }));
    quoted(&format!("{}{unit}", millis / factor))
}

/// A comment of as many lines as it needs.
fn wrap(comment: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let clean: String = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for word in clean.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("# {word}")),
        }
    }
    lines
}
