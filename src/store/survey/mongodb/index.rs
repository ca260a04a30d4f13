//! The index on `expires`, and others that remove documents. Tests: here, and `tests/it/doctor.rs`.

use super::super::super::mongo::door::{self, TtlState};
use super::super::sample::shown;
use super::Visit;
use bson::{Document, doc};

/// What there is of an index on `expires`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexState {
    /// None.
    Missing,
    /// `{ expires: 1 }` with `expireAfterSeconds: 0`, as connect-mongo makes it.
    Good,
    /// A good one that is hidden from queries; the server still removes what has expired.
    Hidden(String),
    /// It is there and does not remove what has expired, or not then: its name and why.
    Odd(String, String),
}

const NO_SUCH_NAMESPACE: i32 = 26;

impl Visit<'_> {
    /// The state of the index on `expires`, or why the indexes cannot be listed; and the keys of TTL indexes on other fields.
    pub(super) async fn indexes(&self) -> (Result<IndexState, String>, Vec<String>) {
        let asked = self.database.run_cursor_command(doc! { "listIndexes": &self.options.collection }).await;
        let mut cursor = match asked {
            Ok(cursor) => cursor,
            Err(error) if door::code(&error) == Some(NO_SUCH_NAMESPACE) => {
                return (Ok(IndexState::Missing), Vec::new());
            }
            Err(error) => return (Err(self.explain(&error)), Vec::new()),
        };
        let (mut state, mut others) = (IndexState::Missing, Vec::new());
        loop {
            match cursor.advance().await {
                Ok(true) => {}
                Ok(false) => return (Ok(state), others),
                Err(error) => return (Err(self.explain(&error)), others),
            }
            let Ok(index) = Document::try_from(cursor.current().to_owned()) else { continue };
            match index_state(&index) {
                // A good one is not spoilt by others.
                Some(_) if state == IndexState::Good => {}
                Some(found) => state = found,
                None if index.contains_key("expireAfterSeconds") => {
                    others
                        .push(shown(&index.get_document("key").map(ToString::to_string).unwrap_or_default()));
                }
                None => {}
            }
        }
    }
}

/// What an index means for the expiry, as the sidecar itself judges it; `None` when it has nothing to do with `expires`.
fn index_state(index: &Document) -> Option<IndexState> {
    let name = index.get_str("name").unwrap_or_default();
    match door::ttl_state(std::slice::from_ref(index)) {
        TtlState::Missing => None,
        TtlState::Works if matches!(index.get_bool("hidden"), Ok(true)) => {
            Some(IndexState::Hidden(shown(name)))
        }
        TtlState::Works => Some(IndexState::Good),
        TtlState::Differs(how) => {
            let how = how.strip_prefix(&format!("index {name}: ")).unwrap_or(&how);
            Some(IndexState::Odd(shown(name), how.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::Bson;

    #[test]
    fn only_a_plain_ttl_index_on_expires_is_good() {
        let good = doc! { "v": 2, "key": { "expires": 1 }, "name": "expires_1", "expireAfterSeconds": 0 };
        assert_eq!(index_state(&good), Some(IndexState::Good));
        assert_eq!(index_state(&doc! { "key": { "_id": 1 }, "name": "_id_" }), None);
        let with = |key: &str, value: Bson| {
            let mut index = good.clone();
            index.insert(key, value);
            index_state(&index)
        };
        assert_eq!(with("expireAfterSeconds", 0_i64.into()), Some(IndexState::Good));
        assert_eq!(with("sparse", true.into()), Some(IndexState::Good));
        for (key, value, said) in [
            ("expireAfterSeconds", 3600.into(), "3600"),
            ("partialFilterExpression", doc! { "a": 1 }.into(), "partial"),
            ("key", doc! { "expires": 1, "a": 1 }.into(), "its key is"),
            ("key", doc! { "expires": "hashed" }.into(), "hashed"),
            ("unique", true.into(), "unique"),
        ] {
            let Some(IndexState::Odd(name, why)) = with(key, value) else { panic!("{key} was good") };
            assert!(name == "expires_1" && why.contains(said), "{why}");
        }
        assert_eq!(with("hidden", true.into()), Some(IndexState::Hidden("expires_1".to_owned())));
        let plain = doc! { "key": { "expires": -1 }, "name": "e" };
        assert!(matches!(index_state(&plain), Some(IndexState::Odd(_, why)) if why.contains("not set")));
    }
}
