//! The store's operations on the directory, as they are done on a thread that may block.
//!
//! Reads take no lock: what stands under a name is always one whole file. Every change compares and replaces under the name's lock.
//! Node takes no lock, so what was read is compared with what is there once more when the new file is on the disk and has only to be
//! renamed; if somebody wrote meanwhile, all is done again from the start.
//! Must not know tokio. Tests: `tests/it/store_conformance/file.rs`.

use super::super::{Created, Lookup, Swapped, Touched, Version};
use super::disk::{Disk, Found};
use super::document::{self, Document};
use super::draft::Seen;
use super::name;
use crate::session::Millis;
use crate::session::record::Record;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a change begins anew because somebody wrote in between. Each costs a sync of the disk.
const TRIES: u32 = 100;
/// An unfinished file of this age has lost its writer.
const ABANDONED: Duration = Duration::from_secs(3600);

pub(super) struct Directory {
    pub(super) disk: Disk,
    pub(super) ttl: Millis,
    pub(super) max_payload: usize,
}

/// What is stored under a name.
enum Stored {
    Nothing,
    Unreadable(String),
    Session(Box<Session>),
}

struct Session {
    text: String,
    seen: Seen,
    document: Document,
}

impl Directory {
    pub(super) fn load(&self, name: &str, now: Millis) -> io::Result<Lookup> {
        self.read(name).map(|stored| self.lookup(stored, now))
    }

    pub(super) fn create(&self, name: &str, record: &Record, now: Millis) -> io::Result<Created> {
        let (text, version) = self.render(record, None, now)?;
        let _held = self.disk.lock(name)?;
        undisturbed(|| {
            let seen = match self.read(name)? {
                Stored::Nothing => None,
                Stored::Session(old) if old.document.has_ended(self.ttl, now) => Some(old.seen),
                Stored::Session(_) | Stored::Unreadable(_) => return Ok(Some(Created::Exists)),
            };
            // Whoever had the expired one is not this one's owner.
            let draft = self.disk.draft(&text, None)?;
            if !self.disk.replace(name, seen, draft)? {
                return Ok(None);
            }
            self.disk.settle()?;
            Ok(Some(Created::Done(version.clone())))
        })
    }

    pub(super) fn update(
        &self,
        name: &str,
        expected: &Version,
        record: &Record,
        now: Millis,
    ) -> io::Result<Swapped> {
        let _held = self.disk.lock(name)?;
        undisturbed(|| {
            let Session { text, seen, document } = match self.expect(name, expected, now)? {
                Ok(old) => *old,
                Err(other) => return Ok(Some(other)),
            };
            let accessed = document.access_after(now, clock()).unwrap_or(now);
            let (text, version) = self.render(record, Some(&text), accessed)?;
            let draft = self.disk.draft(&text, Some(&seen))?;
            if !self.disk.replace(name, Some(seen), draft)? {
                return Ok(None);
            }
            self.disk.settle()?;
            Ok(Some(Swapped::Done(version)))
        })
    }

    /// A touch is not settled: a power cut may leave the session with the end it had before.
    pub(super) fn touch(
        &self,
        name: &str,
        loaded: &Version,
        expires_at: Millis,
        now: Millis,
    ) -> io::Result<Touched> {
        let _held = self.disk.lock(name)?;
        undisturbed(|| {
            let Session { text, seen, document } = match self.expect(name, loaded, now)? {
                Ok(old) => *old,
                Err(Swapped::Absent) => return Ok(Some(Touched::Absent)),
                // Saved since: that gave it a fresh expiry, perhaps of another length.
                Err(_) => return Ok(Some(Touched::Done)),
            };
            // Somebody came by later and was faster.
            if document.access_after(now, clock()).is_some() {
                return Ok(Some(Touched::Done));
            }
            let text =
                document::render_touched(&text, document.max_age(), expires_at, now).map_err(unstorable)?;
            let draft = self.disk.draft(&text, Some(&seen))?;
            Ok(self.disk.replace(name, Some(seen), draft)?.then_some(Touched::Done))
        })
    }

    pub(super) fn destroy(&self, name: &str) -> io::Result<bool> {
        let _held = self.disk.lock(name)?;
        let there = self.disk.remove(name)?;
        if there {
            self.disk.settle()?;
        }
        Ok(there)
    }

    pub(super) fn destroy_if(&self, name: &str, expected: &Version, now: Millis) -> io::Result<Swapped> {
        let _held = self.disk.lock(name)?;
        undisturbed(|| {
            let old = match self.expect(name, expected, now)? {
                Ok(old) => old,
                Err(other) => return Ok(Some(other)),
            };
            if !self.disk.remove_seen(name, &old.seen)? {
                return Ok(None);
            }
            self.disk.settle()?;
            Ok(Some(Swapped::Done(expected.clone())))
        })
    }

    /// Removes what has expired, or was left unfinished, under `name`; `true` if it did. Never anything that is not ours to judge.
    pub(super) fn reap(&self, name: &str, now: Millis) -> io::Result<bool> {
        if name::is_temporary(name) {
            return self.disk.remove_if_older(name, ABANDONED);
        }
        if !name::is_session(name) || self.reapable(name, now)?.is_none() {
            return Ok(false);
        }
        let _held = self.disk.lock(name)?;
        // Somebody may have come back before the lock was had.
        match self.reapable(name, now)? {
            Some(seen) => self.disk.remove_seen(name, &seen),
            None => Ok(false),
        }
    }

    fn reapable(&self, name: &str, now: Millis) -> io::Result<Option<Seen>> {
        Ok(match self.read(name)? {
            Stored::Session(session) if session.document.is_reapable(self.ttl, now) => Some(session.seen),
            Stored::Session(_) | Stored::Nothing | Stored::Unreadable(_) => None,
        })
    }

    fn read(&self, name: &str) -> io::Result<Stored> {
        Ok(match self.disk.read(name)? {
            Found::Nothing => Stored::Nothing,
            Found::Odd(what) => Stored::Unreadable(what.to_owned()),
            Found::Text { text, seen } => match Document::parse(&text, self.max_payload) {
                Ok(document) => Stored::Session(Box::new(Session { text, seen, document })),
                Err(why) => Stored::Unreadable(why),
            },
        })
    }

    fn lookup(&self, stored: Stored, now: Millis) -> Lookup {
        match stored {
            Stored::Nothing => Lookup::Absent,
            Stored::Unreadable(why) => Lookup::Unreadable(why),
            Stored::Session(session) => session.document.into_lookup(self.ttl, now),
        }
    }

    /// The session, if it still is the one that is expected; else what the compare-and-swap answers.
    fn expect(
        &self,
        name: &str,
        expected: &Version,
        now: Millis,
    ) -> io::Result<Result<Box<Session>, Swapped>> {
        let stored = match self.read(name)? {
            Stored::Session(session) if !session.document.has_ended(self.ttl, now) => {
                if session.document.version() == *expected {
                    return Ok(Ok(session));
                }
                Stored::Session(session)
            }
            stored => stored,
        };
        Ok(Err(match self.lookup(stored, now) {
            Lookup::Absent => Swapped::Absent,
            found => Swapped::Conflict(Box::new(found)),
        }))
    }

    /// The text, read back before it is written: what is stored can be loaded.
    fn render(&self, record: &Record, before: Option<&str>, now: Millis) -> io::Result<(String, Version)> {
        let text = document::render(record, before, now);
        let version = Document::parse(&text, self.max_payload).map_err(unstorable)?.version();
        Ok((text, version))
    }
}

/// What `attempt` answers once nobody writes in between: `None` says that somebody did.
fn undisturbed<T>(mut attempt: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    for _ in 0..TRIES {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
    }
    Err(io::Error::other("the file is replaced faster than it can be compared"))
}

/// The moment of a call is when its request came, which may be a while ago.
pub(super) fn clock() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(now.as_millis()).unwrap_or(Millis::MAX)
}

fn unstorable(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
