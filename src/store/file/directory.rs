//! The store's operations on the directory, as they are done on a thread that may block.
//!
//! Reads take no lock: what stands under a name is always one whole file. Every change compares and replaces under the name's lock.
//! Must not know tokio. Tests: `tests/it/store_conformance/file.rs`.

use super::super::{Created, Lookup, Swapped, Touched, Version};
use super::disk::{Disk, Found};
use super::document::{self, Document};
use super::name;
use crate::session::Millis;
use crate::session::record::Record;
use std::fs::Metadata;
use std::io;
use std::time::Duration;

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
    metadata: Metadata,
    document: Document,
}

impl Directory {
    pub(super) fn load(&self, name: &str, now: Millis) -> io::Result<Lookup> {
        self.read(name).map(|stored| self.lookup(stored, now))
    }

    pub(super) fn create(&self, name: &str, record: &Record, now: Millis) -> io::Result<Created> {
        let (text, version) = self.render(record, None, now)?;
        let _held = self.disk.lock(name)?;
        match self.read(name)? {
            Stored::Nothing => {}
            Stored::Session(old) if old.document.has_ended(self.ttl, now) => {}
            Stored::Session(_) | Stored::Unreadable(_) => return Ok(Created::Exists),
        }
        self.disk.replace(name, &text, None)?;
        self.disk.settle()?;
        Ok(Created::Done(version))
    }

    pub(super) fn update(
        &self,
        name: &str,
        expected: &Version,
        record: &Record,
        now: Millis,
    ) -> io::Result<Swapped> {
        let _held = self.disk.lock(name)?;
        let old = match self.expect(name, expected, now)? {
            Ok(old) => old,
            Err(other) => return Ok(other),
        };
        let (text, version) = self.render(record, Some(&old.text), now)?;
        self.disk.replace(name, &text, Some(&old.metadata))?;
        self.disk.settle()?;
        Ok(Swapped::Done(version))
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
        let old = match self.expect(name, loaded, now)? {
            Ok(old) => old,
            Err(Swapped::Absent) => return Ok(Touched::Absent),
            // Saved since: that gave it a fresh expiry, perhaps of another length.
            Err(_) => return Ok(Touched::Done),
        };
        let max_age = old.document.max_age();
        let text = document::render_touched(&old.text, max_age, expires_at, now).map_err(unstorable)?;
        self.disk.replace(name, &text, Some(&old.metadata))?;
        Ok(Touched::Done)
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
        if let Err(other) = self.expect(name, expected, now)? {
            return Ok(other);
        }
        self.disk.remove(name)?;
        self.disk.settle()?;
        Ok(Swapped::Done(expected.clone()))
    }

    /// Removes what has expired, or was left unfinished, under `name`; `true` if it did. Never anything that is not ours to judge.
    pub(super) fn reap(&self, name: &str, now: Millis) -> io::Result<bool> {
        if name::is_temporary(name) {
            return self.disk.remove_if_older(name, ABANDONED);
        }
        if !name::is_session(name) || !self.is_reapable(name, now)? {
            return Ok(false);
        }
        let _held = self.disk.lock(name)?;
        // Somebody may have come back before the lock was had.
        Ok(self.is_reapable(name, now)? && self.disk.remove(name)?)
    }

    fn is_reapable(&self, name: &str, now: Millis) -> io::Result<bool> {
        match self.read(name)? {
            Stored::Session(session) => Ok(session.document.is_reapable(self.ttl, now)),
            Stored::Nothing | Stored::Unreadable(_) => Ok(false),
        }
    }

    fn read(&self, name: &str) -> io::Result<Stored> {
        Ok(match self.disk.read(name)? {
            Found::Nothing => Stored::Nothing,
            Found::Odd(what) => Stored::Unreadable(what.to_owned()),
            Found::Text { text, metadata } => match Document::parse(&text, self.max_payload) {
                Ok(document) => Stored::Session(Box::new(Session { text, metadata, document })),
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

fn unstorable(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
