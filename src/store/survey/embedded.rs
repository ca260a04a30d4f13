//! Looks at the embedded store's file, read-only: how many sessions, how large. Tests: `tests/it/doctor.rs`.

use super::super::StoreOptions;
use super::super::embedded::survey::{Row, read_rows};
use super::{Facts, Survey, SurveyError, SurveyPlan};
use redb::{Builder, DatabaseError};
use std::path::{Path, PathBuf};

/// What only the embedded store has.
#[derive(Debug, Clone)]
pub struct EmbeddedFacts {
    /// The file.
    pub path: PathBuf,
    /// Its size, bytes; `None` when there is no such file.
    pub bytes: Option<u64>,
    /// Sessions of the sample that have expired and are not swept yet.
    pub expired: usize,
}

pub(super) fn survey(path: &Path, store: &StoreOptions, plan: &SurveyPlan) -> Result<Survey, SurveyError> {
    let bytes = std::fs::metadata(path).ok().map(|found| found.len());
    let mut facts = EmbeddedFacts { path: path.to_owned(), bytes, expired: 0 };
    let mut survey = Survey::of(Facts::Memory);
    if bytes.is_some() {
        if let Err(DatabaseError::DatabaseAlreadyOpen) = Builder::new().open_read_only(path) {
            return Err(SurveyError::InUse);
        }
        let sample = &mut survey.sample;
        let total = read_rows(path, plan.sample, |sid, row| {
            sample.looked_at += 1;
            let id = sample.id(sid, "");
            match row {
                Row::Session { payload, expires_at } => {
                    facts.expired += usize::from(expires_at <= plan.now);
                    match std::str::from_utf8(payload) {
                        Ok(text) => sample.session(text, &plan.hidden, store.max_payload, &id),
                        Err(_) => sample.unreadable.add("no UTF-8 text", &id),
                    }
                }
                Row::Unreadable(why) => sample.unreadable.add(&why, &id),
            }
        })
        .map_err(SurveyError::Refused)?;
        // A row has no room for the attributes, so none is missing.
        survey.sample.without_cookie = 0;
        survey.total = Some(total);
    }
    survey.facts = Facts::Embedded(facts);
    Ok(survey)
}
