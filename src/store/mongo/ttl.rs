//! Which indexes of a collection remove expired sessions, and in what the one that should differs from connect-mongo's.
//!
//! Must not know the driver. Tests: here.

use bson::{Bson, Document};

/// The index that connect-mongo makes.
pub(super) const WANTED: &str = "{ expires: 1 } with expireAfterSeconds 0";
/// The name that MongoDB gives it.
pub(super) const NAME: &str = "expires_1";

/// What the indexes of a collection mean for `auto_remove = "native"`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum State {
    /// One of them removes sessions as they expire.
    Works,
    /// None of them does. The text names what is in the way and how it differs.
    Differs(String),
    /// There is no index on `expires` at all.
    Missing,
}

/// Looks at the answer to `listIndexes`.
pub(in crate::store) fn state(indexes: &[Document]) -> State {
    let mut differences = Vec::new();
    for index in indexes {
        let name = index.get_str("name").unwrap_or_default();
        let key = index.get_document("key").ok();
        if name != NAME && !key.is_some_and(|key| key.contains_key("expires")) {
            continue;
        }
        let different = differing(index, key);
        if different.is_empty() {
            return State::Works;
        }
        differences.push(format!("index {name}: {}", different.join(", ")));
    }
    if differences.is_empty() { State::Missing } else { State::Differs(differences.join("; ")) }
}

/// Field by field. Sparse, hidden, a collation, another name, the descending order: all of those remove what has expired just as well.
fn differing(index: &Document, key: Option<&Document>) -> Vec<String> {
    let mut out = Vec::new();
    let is_ours = key.is_some_and(|key| {
        key.len() == 1 && key.get("expires").is_some_and(|order| matches!(number(order), Some(1 | -1)))
    });
    if !is_ours {
        out.push(format!("its key is {}, wanted {{ expires: 1 }}", key.map(shown).unwrap_or_default()));
    }
    match index.get("expireAfterSeconds") {
        None => out.push("expireAfterSeconds is not set, wanted 0".to_owned()),
        Some(seconds) if number(seconds) == Some(0) => {}
        Some(seconds) => out.push(format!("expireAfterSeconds is {seconds}, wanted 0")),
    }
    if let Some(filter) = index.get("partialFilterExpression") {
        out.push(format!("partialFilterExpression is {filter}, wanted none"));
    }
    if index.get("unique") == Some(&Bson::Boolean(true)) {
        out.push(
            "unique is true, wanted false: two sessions that expire at the same moment exclude each other"
                .to_owned(),
        );
    }
    out
}

fn number(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(value) => Some((*value).into()),
        Bson::Int64(value) => Some(*value),
        #[expect(clippy::cast_possible_truncation, reason = "only small whole numbers are looked for")]
        Bson::Double(value) if value.fract() == 0.0 => Some(*value as i64),
        _ => None,
    }
}

fn shown(key: &Document) -> String {
    let fields: Vec<String> = key.iter().map(|(name, order)| format!("{name}: {order}")).collect();
    format!("{{ {} }}", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn index(change: Document) -> Document {
        let mut index =
            doc! { "v": 2, "key": { "expires": 1 }, "name": "expires_1", "expireAfterSeconds": 0 };
        index.extend(change);
        index
    }

    fn of(index: Document) -> State {
        state(&[doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }, index])
    }

    #[test]
    fn what_removes_expired_sessions_works() {
        for change in [
            doc! {},
            doc! { "background": true },
            doc! { "expireAfterSeconds": 0.0, "name": "ttl", "key": { "expires": -1.0 } },
            doc! { "sparse": true, "hidden": true, "collation": { "locale": "de" }, "expireAfterSeconds": 0_i64 },
        ] {
            assert_eq!(of(index(change.clone())), State::Works, "{change}");
        }
    }

    #[test]
    fn every_difference_is_named() {
        for (change, said) in [
            (doc! { "expireAfterSeconds": 3600 }, "index expires_1: expireAfterSeconds is 3600, wanted 0"),
            (
                doc! { "key": { "expires": 1, "x": -1 } },
                "index expires_1: its key is { expires: 1, x: -1 }, wanted { expires: 1 }",
            ),
            (doc! { "key": { "expires": "hashed" } }, "its key is { expires: \"hashed\" }, wanted"),
            (doc! { "key": { "other": 1 } }, "its key is { other: 1 }, wanted"),
            (doc! { "unique": true }, "unique is true, wanted false"),
            (
                doc! { "partialFilterExpression": { "a": 1 }, "expireAfterSeconds": 5 },
                "expireAfterSeconds is 5, wanted 0, partialFilterExpression is { \"a\": 1 }, wanted none",
            ),
        ] {
            let State::Differs(text) = of(index(change)) else { panic!("{said}") };
            assert!(text.contains(said), "{text}");
        }
        let mut plain = index(doc! {});
        plain.remove("expireAfterSeconds");
        assert_eq!(
            of(plain),
            State::Differs("index expires_1: expireAfterSeconds is not set, wanted 0".to_owned())
        );
        assert_eq!(of(index(doc! { "name": "n", "key": { "n": 1 } })), State::Missing);
        assert_eq!(state(&[]), State::Missing);
        // One that works is enough.
        assert_eq!(
            state(&[index(doc! { "expireAfterSeconds": 5 }), index(doc! { "name": "b" })]),
            State::Works
        );
    }
}
