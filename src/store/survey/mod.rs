//! What is in a store, for `cloakroom doctor`: counts, sizes, types, indexes. Facts only; what they mean is judged in `cli::doctor`.
//!
//! Reads and nothing else: no write, no index, no directory made. Bounded in time and memory whatever is stored: documents are
//! looked at one after the other, and only counters stay. Cold code, so it connects on its own and plainly.
//! Must not know the configuration file. Tests: beside each file, and `tests/it/doctor.rs` over real servers.

mod embedded;
mod file;
mod lookup;
mod mongodb;
mod redis;
mod sample;
mod shape;

pub use embedded::EmbeddedFacts;
pub use file::FileFacts;
pub use lookup::{look_up, other_transform};
pub use mongodb::{IndexState, MongoFacts, Topology};
pub use redis::RedisFacts;
pub use sample::{Sample, Seen, Sizes, Tally};
pub use shape::{IdShape, SealFormat};

use super::{StoreKind, StoreOptions};
use crate::session::Millis;
use std::time::Duration;

/// How much is looked at.
#[derive(Debug, Clone)]
pub struct SurveyPlan {
    /// Sessions to look at, at most.
    pub sample: usize,
    /// Top-level keys that the store keeps and the app is not shown.
    pub hidden: Vec<&'static str>,
    /// The clock.
    pub now: Millis,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Survey {
    /// How many sessions there are, as far as the store knows without counting them one by one.
    pub total: Option<u64>,
    /// Why the sample ended early, if it did.
    pub cut_short: Option<String>,
    /// What the sample adds up to.
    pub sample: Sample,
    /// What only this kind of store has.
    pub facts: Facts,
}

/// What only one kind of store has.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Facts {
    Memory,
    Mongodb(Box<MongoFacts>),
    Redis(Box<RedisFacts>),
    File(Box<FileFacts>),
    Embedded(EmbeddedFacts),
}

/// Why there is no survey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SurveyError {
    /// Nobody answered.
    Unreachable(String),
    /// The store answered, and refused: a password, a right, a format.
    Refused(String),
    /// A running sidecar has the store's file for itself.
    InUse,
}

/// No single question to a store may take longer.
const LONGEST_QUESTION: Duration = Duration::from_secs(10);
/// A person waits, so a server is given more time than a request has.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(3);

/// Looks at a store. Call it inside a tokio runtime.
///
/// # Errors
/// [`SurveyError`] when nothing could be looked at; texts never hold a password.
pub async fn survey(options: &StoreOptions, plan: &SurveyPlan) -> Result<Survey, SurveyError> {
    match &options.kind {
        StoreKind::Memory { .. } => Ok(Survey::of(Facts::Memory)),
        StoreKind::Mongodb(mongo) => mongodb::survey(mongo, options, plan).await,
        StoreKind::Redis(redis) => redis::survey(redis, options, plan).await,
        StoreKind::File(files) => file::survey(files, options, plan),
        StoreKind::Embedded { path } => embedded::survey(path, options, plan),
    }
}

impl Survey {
    fn of(facts: Facts) -> Self {
        Self { total: None, cut_short: None, sample: Sample::default(), facts }
    }
}
