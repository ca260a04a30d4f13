//! Reading the spanned TOML tree: typed access by key that collects every problem instead of stopping at the first.
//!
//! A [`Table`] remembers which keys were asked for; what is left over when it is dropped is unknown. So the code that
//! reads a key is the only list of keys there is. Knows no key of its own. Tests: `tests/it/config.rs`.

use super::item::Item;
use super::nearest::nearest;
use super::problem::Finding;
use crate::session::guard::FieldPath;
use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::DeTable;

/// What is said of keys and values that the contract has and this version has not.
pub(super) const NOT_BUILT: &str = "not built in this version";

/// What all parts of one reading share.
pub(super) struct Walk<'a> {
    pub(super) text: &'a str,
    pub(super) base_dir: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<Finding>>,
    warnings: RefCell<Vec<Finding>>,
    /// Every file that a key names, with the key.
    files: RefCell<Vec<(String, PathBuf)>>,
}

/// A table of the file, or one that is not there (then every key is absent).
pub(super) struct Table<'a> {
    pub(super) walk: &'a Walk<'a>,
    pub(super) path: String,
    pub(super) span: Range<usize>,
    entries: Option<&'a DeTable<'a>>,
    known: RefCell<Vec<&'static str>>,
    /// Keys that were dealt with and are not worth a suggestion.
    silent: RefCell<Vec<&'static str>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: &'a str, base_dir: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            text,
            base_dir,
            env,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            files: RefCell::default(),
        }
    }

    pub(super) fn root(&'a self, table: &'a DeTable<'a>) -> Table<'a> {
        Table {
            walk: self,
            path: String::new(),
            span: 0..0,
            entries: Some(table),
            known: RefCell::default(),
            silent: RefCell::default(),
        }
    }

    pub(super) fn problem(
        &self,
        key: &str,
        span: Range<usize>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.borrow_mut().push(found(key, span, what.into(), hint.into()));
    }

    pub(super) fn warning(
        &self,
        key: &str,
        span: Range<usize>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.warnings.borrow_mut().push(found(key, span, what.into(), hint.into()));
    }

    /// The file's name as it was made absolute, remembered for whoever watches it.
    pub(super) fn file(&self, key: &str, name: &str) -> PathBuf {
        let path = self.base_dir.join(name);
        self.files.borrow_mut().push((key.to_owned(), path.clone()));
        path
    }

    /// Problems, warnings and the files that were named with their keys, once everything was read.
    pub(super) fn finish(self) -> (Vec<Finding>, Vec<Finding>, Vec<(String, PathBuf)>) {
        (self.problems.into_inner(), self.warnings.into_inner(), self.files.into_inner())
    }
}

impl<'a> Table<'a> {
    pub(super) fn exists(&self) -> bool {
        self.entries.is_some()
    }

    /// The value of a key; asking makes the key known.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'a>> {
        if !self.known.borrow().contains(&key) {
            self.known.borrow_mut().push(key);
        }
        self.find(key)
    }

    fn find(&self, key: &'static str) -> Option<Item<'a>> {
        let (key_span, node) = self.entries?.get_key_value(key)?;
        Some(Item { walk: self.walk, path: self.path_of(key), key_span: key_span.span(), node })
    }

    /// A key that is refused for a reason of its own, and never suggested.
    pub(super) fn refuse(&self, key: &'static str, what: &str, hint: &str) {
        self.silent.borrow_mut().push(key);
        if let Some(item) = self.find(key) {
            self.walk.problem(&item.path, item.key_span, what, hint);
        }
    }

    /// A key of the contract that this version cannot honour.
    pub(super) fn not_built(&self, key: &'static str, instead: &str) {
        self.refuse(key, NOT_BUILT, instead);
    }

    /// Every entry, for tables whose keys the user chooses.
    pub(super) fn entries(&self) -> Vec<(&'a str, Item<'a>)> {
        let Some(entries) = self.entries else { return Vec::new() };
        self.known.borrow_mut().push("*");
        let item = |(key, node): (&'a Spanned<_>, _)| {
            let key: &Spanned<std::borrow::Cow<'a, str>> = key;
            let name: &'a str = key.get_ref();
            (name, Item { walk: self.walk, path: self.path_of(name), key_span: key.span(), node })
        };
        entries.iter().map(item).collect()
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A problem of the table as a whole: something that is not there, or does not go together.
    pub(super) fn problem(&self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.walk.problem(&self.path_of(key), self.span.clone(), what, hint);
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.get(key)?.flag()
    }

    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        self.get(key)?.choice(choices)
    }

    pub(super) fn duration(&self, key: &'static str, least: Duration) -> Option<Duration> {
        self.get(key)?.duration(least)
    }

    pub(super) fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.get(key)?.size(range, "")
    }

    pub(super) fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.get(key)?.count(range)
    }

    pub(super) fn fields(&self, key: &'static str) -> Vec<FieldPath> {
        let items = self.get(key).and_then(|item| item.list("a list of field paths, like [\"user.id\"]"));
        items.unwrap_or_default().iter().filter_map(Item::field).collect()
    }

    /// A sub-table; one that is not there or is no table reads as empty.
    pub(super) fn table(&self, key: &'static str) -> Self {
        self.get(key).and_then(|item| item.table()).unwrap_or_else(|| self.absent(key))
    }

    /// A list of tables (`[[key]]`).
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let Some(item) = self.get(key) else { return Vec::new() };
        let what = format!("a list of tables, each begun with [[{key}]]");
        item.list(&what).unwrap_or_default().iter().filter_map(Item::table).collect()
    }

    /// The table that a value is.
    pub(super) fn of(item: &Item<'a>, entries: &'a DeTable<'a>) -> Self {
        let (known, silent) = (RefCell::default(), RefCell::default());
        Self {
            walk: item.walk,
            path: item.path.clone(),
            span: item.span(),
            entries: Some(entries),
            known,
            silent,
        }
    }

    fn absent(&self, key: &str) -> Self {
        let (walk, path, span) = (self.walk, self.path_of(key), self.span.clone());
        Self { walk, path, span, entries: None, known: RefCell::default(), silent: RefCell::default() }
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let known = self.known.borrow();
        if known.contains(&"*") {
            return;
        }
        for (key, _) in self.entries.into_iter().flat_map(DeTable::iter) {
            let name = key.get_ref().as_ref();
            if known.contains(&name) || self.silent.borrow().contains(&name) {
                continue;
            }
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("valid here: {}", known.join(", ")),
            };
            self.walk.problem(&self.path_of(name), key.span(), "unknown key", hint);
        }
    }
}

fn found(key: &str, span: Range<usize>, what: String, hint: String) -> Finding {
    let hint = (!hint.is_empty()).then_some(hint);
    // A quoted key may be anything, and this goes to a terminal.
    let key = key.replace(char::is_control, "?");
    Finding { span, key, what, hint, with_source: true }
}
