//! What `survey` needs of this room: the same reading of objects, the same judgement of indexes, the same words for errors. Tests: `tests/it/doctor.rs`.

use super::super::TransformId;
use super::super::error::Kind;
use super::fault::{self, Fault};
use super::id::Id;
use super::render;
pub(in crate::store) use super::ttl::{State as TtlState, state as ttl_state};
use crate::session::sid::Sid;
use bson::raw::RawDocument;
use mongodb::error::Error;

/// The JSON text of a session that is stored as an object.
///
/// # Errors
/// What is wrong with it, without content.
pub(in crate::store) fn object_json(object: &RawDocument, longest: usize) -> Result<String, String> {
    render::json(object, longest)
}

/// A driver's error in our words, without the URL's password.
pub(in crate::store) fn explain(url: &str, error: &Error) -> (Kind, String) {
    let (kind, detail) = Fault::Driver(error.clone()).explain();
    (kind, fault::masked(url, &detail))
}

/// The server's code, if it was the server that refused.
pub(in crate::store) fn code(error: &Error) -> Option<i32> {
    fault::code(error)
}

/// The `_id` of a session's document.
pub(in crate::store) fn id(sid: &Sid, transform: Option<&TransformId>) -> String {
    Id::of(sid, transform).as_str().to_owned()
}
