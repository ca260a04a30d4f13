//! The conditions that changes carry. Each names its `_id`, so that a sharded collection takes them too.
//!
//! Tests: `tests/it/store_conformance.rs`, and `mongodb_url.rs` beside it for what the server saw.

use super::super::{Version, VersionKind};
use super::date;
use super::fault::Fault;
use super::id::Id;
use crate::session::Millis;
use bson::{Bson, Document, RawBson, doc};

/// Bytes of a stored session that a touch sends along to name it.
const SENT_WITH_TOUCH: usize = 1024;

/// connect-mongo's condition for a live document.
fn alive(now: Millis) -> Bson {
    Bson::Array(vec![
        doc! { "expires": { "$exists": false } }.into(),
        doc! { "expires": { "$gt": date(now) } }.into(),
    ])
}

/// The condition of a touch. A large session is known by its expiry, which every save changes: sending all of it with every request
/// would cost more than the touch.
pub(super) fn not_saved_since(
    id: &Id,
    loaded: &Version,
    ends: Option<Millis>,
    now: Millis,
) -> Result<Document, Fault> {
    let small = match &loaded.0 {
        VersionKind::Mongo(session) => match &**session {
            RawBson::String(text) => text.len() <= SENT_WITH_TOUCH,
            RawBson::Document(object) => object.as_bytes().len() <= SENT_WITH_TOUCH,
            _ => true,
        },
        VersionKind::Revision(_) | VersionKind::Text(_) => true,
    };
    match ends {
        Some(ends) if !small => {
            Ok(doc! { "_id": id.as_str(), "expires": { "$eq": date(ends), "$gt": date(now) } })
        }
        _ => unchanged(id, loaded, now),
    }
}

/// The condition of a compare-and-swap. `$eq`, because a stored object might begin with an operator's name.
pub(super) fn unchanged(id: &Id, expected: &Version, now: Millis) -> Result<Document, Fault> {
    let VersionKind::Mongo(session) = &expected.0 else {
        return Err(Fault::Bug("a version of another store"));
    };
    let session = Bson::try_from(RawBson::clone(session))?;
    Ok(doc! { "_id": id.as_str(), "session": { "$eq": session }, "$or": alive(now) })
}
