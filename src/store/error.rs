//! What can go wrong between the proxy and a store. Absent is a value, not an error.
//!
//! Must not know any backend. Tests: `tests/it/store_conformance.rs`.

use std::fmt;

/// A store operation that gave no answer. The session may or may not exist.
#[derive(Debug, Clone, thiserror::Error)]
#[error("session store: {op} failed ({kind}): {detail}")]
pub struct StoreError {
    /// Which operation.
    pub op: Op,
    /// What the caller can do about it.
    pub kind: Kind,
    /// The driver's own words, for the log only.
    pub detail: String,
}

impl StoreError {
    pub(crate) fn new(op: Op, kind: Kind, detail: impl Into<String>) -> Self {
        Self { op, kind, detail: detail.into() }
    }
}

/// The store operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Op {
    Load,
    Create,
    Update,
    Touch,
    Destroy,
    Ping,
}

/// Kinds of failure, by what the caller does differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No connection, or it broke.
    Unreachable,
    /// The deadline (`timeouts.store`) passed.
    Timeout,
    /// No place among the operations under way until the deadline passed (embedded: refused at once).
    Overloaded,
    /// The store answered, and refused: rights, disk full, a bug of ours.
    Refused,
    /// A merge met another writer at every attempt.
    Conflict,
    /// The store's format cannot hold this session: a fault of what the app sent, not of the store.
    Unstorable,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Create => "create",
            Self::Update => "update",
            Self::Touch => "touch",
            Self::Destroy => "destroy",
            Self::Ping => "ping",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Unstorable => "unstorable",
        })
    }
}
