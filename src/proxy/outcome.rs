//! What a commit starts from and what becomes of it: values, between the rules, the writes and the headers.
//!
//! Tests: those of [`super::commit`].

use crate::session::Millis;
use crate::session::sid::Sid;
use crate::session::wire::Invalid;
use crate::store::error::Kind;
use crate::store::{Loaded, StoreError};

/// A session as one request knows it.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) sid: Sid,
    pub(super) live: Option<Loaded>,
}

/// What became of the session.
pub(super) struct Committed {
    pub(super) outcome: Outcome,
    /// The session from now on: what a trailer's update is applied to.
    pub(super) base: Base,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Unchanged,
    Touched,
    /// The touch failed; the data is as it was.
    NotTouched,
    Created,
    Updated,
    /// Updated under the sid that another request gave it meanwhile.
    Followed,
    Regenerated,
    Destroyed,
    /// It was destroyed or expired while the app worked: whatever the response said is dropped.
    Vanished,
}

pub(super) enum CommitError {
    Store(StoreError),
    Invalid(Invalid),
    /// The session is stored under a new sid, and whether the old one is gone is not known.
    HalfRegenerated {
        error: StoreError,
        sid: Sid,
        expires: Option<Millis>,
    },
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            // What the app sent is the trouble, and no other attempt would end better.
            Kind::Unstorable => Self::Invalid(Invalid::Unstorable),
            _ => Self::Store(error),
        }
    }
}

impl From<Invalid> for CommitError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl Outcome {
    /// The access log's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Touched => "touched",
            Self::NotTouched => "touch_failed",
            Self::Created => "created",
            Self::Updated | Self::Followed => "updated",
            Self::Regenerated => "regenerated",
            Self::Destroyed => "destroyed",
            Self::Vanished => "vanished",
        }
    }
}
