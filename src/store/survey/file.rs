//! Looks at a directory of session files. Tests: `tests/it/doctor.rs`.

use super::super::{FileOptions, StoreOptions};
use super::sample::Tally;
use super::{Facts, Survey, SurveyError, SurveyPlan};
use crate::session::json::{DOCUMENT_DEPTH, Json};
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// What only a directory has.
#[derive(Debug, Clone, Default)]
pub struct FileFacts {
    /// The directory.
    pub path: PathBuf,
    /// It is there.
    pub exists: bool,
    /// Others than its owner may read the directory and files in it.
    pub is_open: bool,
    /// Session files that others than their owner may read.
    pub open_files: usize,
    /// What an interrupted write left behind: a name that ends in `.json.` and more, older than a minute.
    pub leftovers: Tally,
    /// Files that hold a session and do not end in `.json`, by their ending.
    pub other_endings: Tally,
    /// Files and directories that have nothing to do with sessions.
    pub strangers: usize,
    /// Session files without `__lastAccess`: a number.
    pub without_access: usize,
    /// Session files that are encrypted.
    pub sealed: usize,
}

/// Names that are looked at in all.
const MOST_NAMES: usize = 1_000_000;
/// Files of another ending whose content is looked at.
const MOST_OTHERS: usize = 100;
/// What a stored text may hold beyond `limits.session`: the `cookie` object and the spelling of other software.
const COOKIE_ALLOWANCE: usize = 4096;
const MINUTE: u64 = 60;

pub(super) fn survey(
    options: &FileOptions,
    store: &StoreOptions,
    plan: &SurveyPlan,
) -> Result<Survey, SurveyError> {
    let mut visit = Visit {
        plan,
        longest: store.max_payload.saturating_add(COOKIE_ALLOWANCE),
        max_payload: store.max_payload,
        survey: Survey::of(Facts::Memory),
        facts: FileFacts { path: options.path.clone(), ..FileFacts::default() },
    };
    let entries = match fs::read_dir(&options.path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            visit.survey.facts = Facts::File(Box::new(visit.facts));
            return Ok(visit.survey);
        }
        Err(error) => {
            return Err(SurveyError::Refused(format!("{}: {error}", options.path.display())));
        }
    };
    visit.facts.exists = true;
    visit.facts.is_open =
        fs::metadata(&options.path).is_ok_and(|found| found.permissions().mode() & 0o044 != 0);
    let mut sessions = 0;
    for (seen, entry) in entries.enumerate() {
        if seen == MOST_NAMES {
            visit.survey.cut_short = Some(format!("more than {MOST_NAMES} names"));
            break;
        }
        let Ok(entry) = entry else { continue };
        sessions += u64::from(visit.entry(&entry));
    }
    visit.survey.total = Some(sessions);
    visit.survey.facts = Facts::File(Box::new(visit.facts));
    Ok(visit.survey)
}

struct Visit<'a> {
    plan: &'a SurveyPlan,
    longest: usize,
    max_payload: usize,
    survey: Survey,
    facts: FileFacts,
}

impl Visit<'_> {
    /// Is it a session file by its name?
    fn entry(&mut self, entry: &DirEntry) -> bool {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        match name.strip_suffix(".json") {
            Some(sid) if !sid.is_empty() => {
                if self.survey.sample.looked_at < self.plan.sample {
                    self.file(entry, sid, is_file);
                }
                true
            }
            _ => {
                self.other(entry, &name, is_file);
                false
            }
        }
    }

    fn file(&mut self, entry: &DirEntry, sid: &str, is_file: bool) {
        let sample = &mut self.survey.sample;
        sample.looked_at += 1;
        let id = sample.id(sid, "");
        if !is_file {
            return sample.unreadable.add("no regular file", &id);
        }
        let mode = entry.metadata().map(|found| found.permissions().mode()).unwrap_or_default();
        self.facts.open_files += usize::from(mode & 0o044 != 0);
        let text = match self.text(entry) {
            Ok(Some(text)) => text,
            Ok(None) => return self.survey.sample.unreadable.add("larger than limits.session", &id),
            Err(error) => {
                return self.survey.sample.unreadable.add(&format!("cannot be read: {}", error.kind()), &id);
            }
        };
        let sample = &mut self.survey.sample;
        let Ok(text) = String::from_utf8(text) else {
            return sample.unreadable.add("no UTF-8 text", &id);
        };
        if super::shape::seal_of(&text).is_some() {
            self.facts.sealed += 1;
            return;
        }
        sample.texts += 1;
        let before = sample.readable();
        sample.session(&text, &self.plan.hidden, self.max_payload, &id);
        let dated = Json::parse(&text, DOCUMENT_DEPTH).ok().is_some_and(|session| {
            session
                .as_object()
                .is_some_and(|session| matches!(session.get("__lastAccess"), Some(Json::Number(_))))
        });
        self.facts.without_access += usize::from(sample.readable() > before && !dated);
    }

    /// The content, unless it is too large.
    fn text(&self, entry: &DirEntry) -> io::Result<Option<Vec<u8>>> {
        let limit = self.longest as u64;
        let mut text = Vec::new();
        File::open(entry.path())?.take(limit + 1).read_to_end(&mut text)?;
        Ok((text.len() <= self.longest).then_some(text))
    }

    /// Anything that does not end in `.json`.
    fn other(&mut self, entry: &DirEntry, name: &str, is_file: bool) {
        // The sidecar's own locks.
        if is_file && name.starts_with(".cloakroom-") && name.ends_with(".lock") {
            return;
        }
        if is_file && (name.contains(".json.") || name.ends_with(".tmp")) {
            let age =
                entry.metadata().and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
            // A young one may be a write that is under way.
            if age.is_some_and(|age| age.as_secs() >= MINUTE) {
                self.facts.leftovers.add("leftover", "");
            }
            return;
        }
        let looks = self.facts.other_endings.total() + self.facts.strangers;
        let text = if is_file && looks < MOST_OTHERS { self.text(entry).ok().flatten() } else { None };
        let parsed = text.and_then(|text| String::from_utf8(text).ok());
        let parsed = parsed.and_then(|text| Json::parse(&text, DOCUMENT_DEPTH).ok());
        let is_session = parsed
            .as_ref()
            .and_then(Json::as_object)
            .is_some_and(|session| session.get("cookie").is_some_and(|cookie| cookie.as_object().is_some()));
        if is_session {
            let ending = match name.rsplit_once('.') {
                None => "no ending".to_owned(),
                // What follows the last dot of a sid is no ending.
                Some((_, ending)) if ending.len() > 8 || !ending.bytes().all(|b| b.is_ascii_alphabetic()) => {
                    "another ending".to_owned()
                }
                Some((_, ending)) => format!(".{ending}"),
            };
            self.facts.other_endings.add(&ending, "");
        } else {
            self.facts.strangers += 1;
        }
    }
}
