//! What a sample of sessions adds up to: counters, sizes and a fingerprint here and there. Never an id in full, never content.
//!
//! The same for every store. Must not judge. Tests: here, and `tests/it/doctor.rs`.

use super::shape::{IdShape, SealFormat, id_shape, is_showable};
use crate::session::json::{DOCUMENT_DEPTH, Json, JsonErrorKind, Object};
use crate::session::record::Record;
use crate::session::sid::Sid;
use std::collections::BTreeMap;

/// Different values that are counted one by one; what comes later is `other values`.
const MOST_VALUES: usize = 8;
/// With fewer ids, a prefix that all of them have may still be one user's.
pub(super) const FEWEST_SHARING: usize = 5;
/// connect-redis' own, which says nothing of anybody.
pub(super) const DEFAULT_PREFIX: &str = "sess:";
/// Characters of a value that are shown.
const LONGEST_VALUE: usize = 40;

/// Counters over the sampled sessions.
#[derive(Debug, Default, Clone)]
pub struct Sample {
    /// How many were looked at.
    pub looked_at: usize,
    /// Sessions stored as JSON text.
    pub texts: usize,
    /// Sessions stored as objects.
    pub objects: usize,
    /// Sealed sessions by format.
    pub sealed: BTreeMap<SealFormat, usize>,
    /// How many of the sealed ones the configured secrets opened.
    pub opened: usize,
    /// Why sealed sessions did not open, by format.
    pub unopened: BTreeMap<SealFormat, Tally>,
    /// What the ids look like, each with its own prefix: for [`Self::ids`] alone.
    shapes: BTreeMap<IdShape, usize>,
    /// Ids of text that do not begin with the configured prefix.
    pub unprefixed: usize,
    /// What cannot be read as a session, by reason.
    pub unreadable: Tally,
    /// Bytes of each session's data as `X-Session` would hold it with `encoding = "json"`.
    pub header_sizes: Sizes,
    /// Bytes of each session's data as stored, without `cookie`.
    pub sizes: Sizes,
    /// Sessions without a `cookie` object.
    pub without_cookie: usize,
    /// Values of cookie attributes: attribute, value as JSON, how many.
    pub cookie: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// Top-level keys that no app can keep: a store's own, and what express-session's session object has itself.
    pub reserved_keys: Tally,
}

/// How often something occurred, and the fingerprint of one session where it did.
#[derive(Debug, Default, Clone)]
pub struct Tally(pub BTreeMap<String, Seen>);

/// One line of a [`Tally`].
#[derive(Debug, Clone)]
pub struct Seen {
    /// How often.
    pub count: usize,
    /// The fingerprint of the first, as logs have it.
    pub example: String,
}

/// Sizes in bytes.
#[derive(Debug, Default, Clone)]
pub struct Sizes(Vec<usize>);

/// Attributes of `cookie` that are counted.
const ATTRIBUTES: [&str; 8] =
    ["originalMaxAge", "secure", "httpOnly", "sameSite", "path", "domain", "partitioned", "priority"];

/// Keys of the stores themselves.
pub(super) const STORE_KEYS: [&str; 2] = ["lastModified", "__lastAccess"];

impl Sample {
    /// Counts an id of text, and gives its fingerprint. `prefix` is the configured one; it does not belong to the shape.
    pub(super) fn id(&mut self, id: &str, prefix: &str) -> String {
        let stripped = id.strip_prefix(prefix);
        self.unprefixed += usize::from(stripped.is_none());
        let bare = stripped.unwrap_or(id);
        let mut shape = id_shape(bare);
        // A stranger's ids could all have prefixes of their own.
        if !self.shapes.contains_key(&shape)
            && self.shapes.len() >= MOST_VALUES
            && let IdShape::Prefixed(prefix, _) = &mut shape
        {
            *prefix = None;
        }
        *self.shapes.entry(shape).or_default() += 1;
        Sid::from_text(bare).map(|sid| sid.fingerprint()).unwrap_or_default()
    }

    /// Counts an id that is no text.
    pub(super) fn odd_id(&mut self, kind: &'static str) -> String {
        *self.shapes.entry(IdShape::NoText(kind)).or_default() += 1;
        kind.to_owned()
    }

    /// Counts a session's JSON text, wherever it came from. `hidden`: top-level keys that the app is not shown.
    pub(super) fn session(&mut self, text: &str, hidden: &[&str], max_payload: usize, example: &str) {
        let object = match Json::parse(text, DOCUMENT_DEPTH) {
            Ok(Json::Object(object)) => object,
            Ok(_) => return self.unreadable.add("JSON, but no object", example),
            // Without the place, which is another one in each.
            Err(error) => {
                let what = match error.kind {
                    JsonErrorKind::TooDeep => "JSON that is nested too deep",
                    _ => "broken JSON",
                };
                return self.unreadable.add(what, example);
            }
        };
        self.count_cookie(&object);
        for key in STORE_KEYS {
            if object.get(key).is_some() && !(key == "__lastAccess" && hidden.contains(&key)) {
                self.reserved_keys.add(key, example);
            }
        }
        let data = Record::from_object(object).payload;
        let stored = data.as_bytes().len();
        if stored > max_payload {
            self.unreadable.add("larger than limits.session", example);
        }
        self.sizes.0.push(stored);
        self.header_sizes.0.push(data.without_keys(hidden).to_ascii().len());
    }

    fn count_cookie(&mut self, session: &Object) {
        let Some(cookie) = session.get("cookie").and_then(Json::as_object) else {
            self.without_cookie += 1;
            return;
        };
        for attribute in ATTRIBUTES {
            let value = match cookie.get(attribute) {
                None | Some(Json::Null) => "unset".to_owned(),
                Some(value) => shown(&value.to_text()),
            };
            let values = self.cookie.entry(attribute).or_default();
            let known = values.contains_key(&value) || values.len() < MOST_VALUES;
            *values.entry(if known { value } else { "other values".to_owned() }).or_default() += 1;
        }
    }

    /// What the ids look like. A prefix is among it only if nearly all ids have it: else it tells them apart, and may be a user's name or
    /// a part of the secret.
    pub fn ids(&self) -> BTreeMap<IdShape, usize> {
        let total: usize = self.shapes.values().sum();
        let mut sharing: BTreeMap<&str, usize> = BTreeMap::new();
        for (shape, count) in &self.shapes {
            if let IdShape::Prefixed(Some(prefix), _) = shape {
                *sharing.entry(prefix).or_default() += count;
            }
        }
        let is_shared = |prefix: &str| {
            let count = sharing.get(prefix).copied().unwrap_or_default();
            count * 10 >= total * 9
                && (prefix == DEFAULT_PREFIX || count >= FEWEST_SHARING && is_showable(prefix))
        };
        let mut ids = BTreeMap::new();
        for (shape, count) in &self.shapes {
            let shape = match shape {
                IdShape::Prefixed(Some(prefix), bare) if !is_shared(prefix) => {
                    IdShape::Prefixed(None, bare.clone())
                }
                other => other.clone(),
            };
            *ids.entry(shape).or_default() += count;
        }
        ids
    }

    /// How many could be read.
    pub fn readable(&self) -> usize {
        self.sizes.0.len()
    }
}

impl Tally {
    pub(super) fn add(&mut self, what: &str, example: &str) {
        // Reasons hold offsets and types, so there are few; a limit all the same.
        let what =
            if self.0.len() < 4 * MOST_VALUES || self.0.contains_key(what) { what } else { "other reasons" };
        let seen = self.0.entry(what.to_owned()).or_insert(Seen { count: 0, example: example.to_owned() });
        seen.count += 1;
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.0.values().map(|seen| seen.count).sum()
    }
}

impl Sizes {
    pub(super) fn push(&mut self, size: usize) {
        self.0.push(size);
    }

    /// The size that `percent` of all do not exceed; `None` without any.
    pub fn percentile(&self, percent: usize) -> Option<usize> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// How many exceed `limit`.
    pub fn above(&self, limit: usize) -> usize {
        self.0.iter().filter(|size| **size > limit).count()
    }
}

/// A value from outside on a terminal: no control characters, not too long.
pub(super) fn shown(text: &str) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_control() { '?' } else { c }).take(LONGEST_VALUE).collect();
    if text.chars().nth(LONGEST_VALUE).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let sizes = Sizes((1..=200).rev().collect());
        assert_eq!((sizes.percentile(50), sizes.percentile(99)), (Some(100), Some(198)));
        assert_eq!((sizes.percentile(100), sizes.above(199)), (Some(200), 1));
        assert_eq!(Sizes(vec![7]).percentile(50), Some(7));
        assert_eq!(Sizes::default().percentile(50), None);
    }

    #[test]
    fn a_session_is_counted_without_its_content() {
        let mut sample = Sample::default();
        let text = r#"{"cookie":{"originalMaxAge":60000,"secure":true,"path":"/"},"name":"secret-ü","lastModified":1}"#;
        let print = sample.id("the-sid", "");
        sample.session(text, &["lastModified"], 1000, &print);
        sample.session("{\"secret\":", &[], 1000, &print);
        sample.session("[\"secret\"]", &[], 1000, &print);
        assert_eq!((sample.readable(), sample.unreadable.total()), (1, 2));
        assert_eq!(sample.header_sizes.percentile(100), Some(r#"{"name":"secret-\u00fc"}"#.len()));
        assert_eq!(sample.cookie["secure"]["true"], 1);
        assert_eq!(sample.cookie["sameSite"]["unset"], 1);
        assert!(sample.reserved_keys.0.contains_key("lastModified"));
        let all = format!("{sample:?}");
        assert!(!all.contains("secret") && !all.contains("the-sid"), "{all}");
    }

    #[test]
    fn a_prefix_is_shown_only_if_nearly_all_ids_have_it() {
        let express = "aZ09-_aZ09-_aZ09-_aZ09-_aZ09-_aZ";
        let of = |prefixes: &[String]| {
            let mut sample = Sample::default();
            prefixes.iter().for_each(|prefix| drop(sample.id(&format!("{prefix}{express}"), "")));
            sample.ids()
        };
        let prefixed =
            |prefix: Option<&str>| IdShape::Prefixed(prefix.map(str::to_owned), Box::new(IdShape::Express));
        let many = |prefix: &str, count: usize| vec![prefix.to_owned(); count];
        assert_eq!(of(&many("app:", 5)), BTreeMap::from([(prefixed(Some("app:")), 5)]));
        // Those of a few, of one user, or in the way of the first ones.
        assert_eq!(of(&many("app:", 4)), BTreeMap::from([(prefixed(None), 4)]));
        assert_eq!(of(&many("ann@example.com:", 50)), BTreeMap::from([(prefixed(None), 50)]));
        assert_eq!(of(&many("a-prefix-of-twenty-five-c:", 50)), BTreeMap::from([(prefixed(None), 50)]));
        let mut mixed: Vec<String> = (0..2).map(|n| format!("ann{n}:")).collect();
        mixed.extend(many("app:", 18));
        assert_eq!(of(&mixed), BTreeMap::from([(prefixed(None), 2), (prefixed(Some("app:")), 18)]));
        mixed.push("bob:".to_owned());
        assert_eq!(of(&mixed), BTreeMap::from([(prefixed(None), 21)]));
    }

    #[test]
    fn what_strangers_store_does_not_fill_the_memory_or_the_terminal() {
        let mut sample = Sample::default();
        for n in 0..100 {
            let text = format!("{{\"cookie\":{{\"path\":\"/{n}\\u001b[2J{}\"}}}}", "x".repeat(1000));
            sample.session(&text, &[], 10_000, "");
            sample.unreadable.add(&format!("reason {n}"), "");
            sample.id(&format!("p{n}:{}", "a".repeat(32)), "");
        }
        assert_eq!(sample.cookie["path"].len(), MOST_VALUES + 1);
        assert_eq!(sample.shapes.len(), MOST_VALUES + 1);
        assert_eq!(
            sample.ids(),
            BTreeMap::from([(IdShape::Prefixed(None, Box::new(IdShape::Hex(32))), 100)])
        );
        assert_eq!(sample.unreadable.total(), 100);
        assert!(sample.cookie["path"].keys().all(|value| value.chars().count() <= LONGEST_VALUE + 1));
        assert_eq!(shown("a\u{1b}[2J\n"), "a?[2J?");
    }
}
