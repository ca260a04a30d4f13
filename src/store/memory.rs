//! The store in this process's memory: bounded, gone at exit, what express-session's `MemoryStore` is in spirit.
//!
//! Must not know tokio: every operation is a few nanoseconds under one shard's lock. A load shares the payload, it does not
//! copy it. Tests: `tests/it/store_conformance.rs`, and here for the bound.

use super::error::{Kind, Op};
use super::{Created, Loaded, Lookup, StoreError, Swapped, TOO_LARGE, Touched, Version, VersionKind};
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Few enough to look at all of them when something must go, many enough that workers seldom meet.
const SHARDS: usize = 16;
/// What one session costs beside its sid and payload: two map nodes, the record, allocator slack. Rounded up.
const SURCHARGE: usize = 384;
/// How many expired sessions a write clears away on its own shard, so that no sweeper is needed.
const SWEEP_PER_WRITE: usize = 4;

pub(crate) struct Memory {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    used: AtomicUsize,
    max_bytes: usize,
    max_payload: usize,
    revision: AtomicU64,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Sid, Entry>,
    /// The same sids by the moment at which they end.
    ending: BTreeSet<(Millis, Sid)>,
}

struct Entry {
    record: Record,
    expires_at: Millis,
    touched_at: Millis,
    revision: u64,
}

impl Memory {
    pub(crate) fn new(max_bytes: usize, max_payload: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            used: AtomicUsize::new(0),
            max_bytes,
            max_payload,
            revision: AtomicU64::new(1),
        }
    }

    pub(crate) fn load(&self, sid: &Sid, now: Millis) -> Lookup {
        match self.shard(sid).live(sid, now) {
            Some(entry) => entry.lookup(self.max_payload),
            None => Lookup::Absent,
        }
    }

    pub(crate) fn create(
        &self,
        sid: &Sid,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, StoreError> {
        self.check_size(Op::Create, sid, record)?;
        let mut shard = self.shard(sid);
        if shard.live(sid, now).is_some() {
            return Ok(Created::Exists);
        }
        let created_at = record.created_at.or(Some(now));
        let record = Record { created_at, cookie_missing: false, ..record.clone() };
        let revision = self.put(&mut shard, sid, record, expires_at, now);
        drop(shard);
        self.make_room(sid);
        Ok(Created::Done(revision))
    }

    pub(crate) fn update(
        &self,
        sid: &Sid,
        expected: &Version,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        self.check_size(Op::Update, sid, record)?;
        let mut shard = self.shard(sid);
        let Some(entry) = shard.live(sid, now) else {
            return Ok(Swapped::Absent);
        };
        if entry.version() != *expected {
            return Ok(Swapped::Conflict(Box::new(entry.lookup(self.max_payload))));
        }
        let record = Record { created_at: entry.record.created_at, cookie_missing: false, ..record.clone() };
        let revision = self.put(&mut shard, sid, record, expires_at, now);
        drop(shard);
        self.make_room(sid);
        Ok(Swapped::Done(revision))
    }

    pub(crate) fn touch(&self, sid: &Sid, loaded: &Version, expires_at: Millis, now: Millis) -> Touched {
        let mut shard = self.shard(sid);
        let Shard { entries, ending } = &mut *shard;
        match entries.get_mut(sid) {
            // Saved since: that gave it a fresh expiry, perhaps of another length.
            Some(entry) if entry.expires_at > now && entry.version() != *loaded => Touched::Done,
            Some(entry) if entry.expires_at > now => {
                ending.remove(&(entry.expires_at, sid.clone()));
                ending.insert((expires_at, sid.clone()));
                entry.expires_at = expires_at;
                entry.touched_at = now;
                Touched::Done
            }
            _ => Touched::Absent,
        }
    }

    pub(crate) fn destroy(&self, sid: &Sid) -> bool {
        let mut shard = self.shard(sid);
        self.remove(&mut shard, sid)
    }

    pub(crate) fn destroy_if(&self, sid: &Sid, expected: &Version, now: Millis) -> Swapped {
        let mut shard = self.shard(sid);
        let Some(entry) = shard.live(sid, now) else {
            return Swapped::Absent;
        };
        if entry.version() != *expected {
            return Swapped::Conflict(Box::new(entry.lookup(self.max_payload)));
        }
        self.remove(&mut shard, sid);
        Swapped::Done(expected.clone())
    }

    fn shard(&self, sid: &Sid) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one(sid) % SHARDS as u64).unwrap_or(0);
        lock(&self.shards[index])
    }

    fn check_size(&self, op: Op, sid: &Sid, record: &Record) -> Result<(), StoreError> {
        if record.payload.as_bytes().len() > self.max_payload {
            return Err(StoreError::new(op, Kind::Refused, TOO_LARGE));
        }
        if cost(sid, record) > self.max_bytes {
            return Err(StoreError::new(op, Kind::Refused, "larger than the whole memory store"));
        }
        Ok(())
    }

    fn put(&self, shard: &mut Shard, sid: &Sid, record: Record, expires_at: Millis, now: Millis) -> Version {
        self.remove(shard, sid);
        for _ in 0..SWEEP_PER_WRITE {
            match shard.ending.first() {
                Some((ends, expired)) if *ends <= now => {
                    let expired = expired.clone();
                    self.remove(shard, &expired);
                }
                _ => break,
            }
        }
        let revision = self.revision.fetch_add(1, Ordering::Relaxed);
        self.used.fetch_add(cost(sid, &record), Ordering::Relaxed);
        shard.ending.insert((expires_at, sid.clone()));
        shard.entries.insert(sid.clone(), Entry { record, expires_at, touched_at: now, revision });
        Version(VersionKind::Revision(revision))
    }

    fn remove(&self, shard: &mut Shard, sid: &Sid) -> bool {
        let Some(entry) = shard.entries.remove(sid) else {
            return false;
        };
        shard.ending.remove(&(entry.expires_at, sid.clone()));
        self.used.fetch_sub(cost(sid, &entry.record), Ordering::Relaxed);
        true
    }

    /// Past the bound, the session that ends soonest of all goes, but never the one that was just written: its client is
    /// about to be told that it is stored.
    fn make_room(&self, written: &Sid) {
        while self.used.load(Ordering::Relaxed) > self.max_bytes {
            let soonest = self
                .shards
                .iter()
                .filter_map(|shard| lock(shard).ending.iter().find(|(_, sid)| sid != written).cloned())
                .min();
            let Some((_, sid)) = soonest else { return };
            let mut shard = self.shard(&sid);
            self.remove(&mut shard, &sid);
        }
    }
}

impl Shard {
    fn live(&self, sid: &Sid, now: Millis) -> Option<&Entry> {
        self.entries.get(sid).filter(|entry| entry.expires_at > now)
    }
}

impl Entry {
    fn version(&self) -> Version {
        Version(VersionKind::Revision(self.revision))
    }

    fn lookup(&self, max_payload: usize) -> Lookup {
        if self.record.payload.as_bytes().len() > max_payload {
            return Lookup::Unreadable(TOO_LARGE.to_owned());
        }
        Lookup::Live(Loaded {
            record: self.record.clone(),
            expires_at: Some(self.expires_at),
            touched_at: Some(self.touched_at),
            version: self.version(),
        })
    }
}

fn cost(sid: &Sid, record: &Record) -> usize {
    sid.as_str().len() + record.payload.as_bytes().len() + SURCHARGE
}

// No code under these locks can panic half-way through a change; a poisoned lock is still good.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::{CookieData, Payload};
    use bytes::Bytes;

    fn sid(text: &str) -> Sid {
        Sid::from_text(text).unwrap()
    }

    fn record(size: usize) -> Record {
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(size));
        let cookie = CookieData { original_max_age: None, expires: None, attributes: Default::default() };
        Record {
            cookie,
            payload: Payload::trusted(Bytes::from(text)),
            created_at: None,
            cookie_missing: false,
        }
    }

    #[test]
    fn what_ends_soonest_goes_first_and_never_the_one_just_written() {
        let memory = Memory::new(3 * (SURCHARGE + 110), 1000);
        for (name, ends) in [("a", 500), ("b", 200), ("c", 900)] {
            memory.create(&sid(name), &record(90), ends, 1).unwrap();
        }
        let Lookup::Live(a) = memory.load(&sid("a"), 1) else { panic!("not live") };
        memory.touch(&sid("a"), &a.version, 100, 1);
        memory.create(&sid("d"), &record(90), 50, 1).unwrap();
        let there = |name| matches!(memory.load(&sid(name), 10), Lookup::Live(_));
        assert_eq!(["a", "b", "c", "d"].map(there), [false, true, true, true]);
        for name in ["b", "c", "d"] {
            memory.destroy(&sid(name));
        }
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
        assert!(memory.shards.iter().all(|shard| lock(shard).ending.is_empty()));
    }

    #[test]
    fn a_session_that_can_never_fit_is_refused_and_evicts_nobody() {
        let memory = Memory::new(2 * SURCHARGE, 100_000);
        memory.create(&sid("a"), &record(10), 500, 1).unwrap();
        let refused = memory.create(&sid("b"), &record(5000), 500, 1).unwrap_err();
        assert_eq!(refused.kind, Kind::Refused);
        assert!(matches!(memory.load(&sid("a"), 1), Lookup::Live(_)));
    }

    #[test]
    fn a_load_shares_the_payload() {
        let memory = Memory::new(10_000, 1000);
        let record = record(50);
        memory.create(&sid("a"), &record, 500, 1).unwrap();
        let Lookup::Live(loaded) = memory.load(&sid("a"), 1) else { panic!("absent") };
        assert_eq!(loaded.record.payload.as_bytes().as_ptr(), record.payload.as_bytes().as_ptr());
    }

    #[test]
    fn expired_sessions_are_cleared_away_by_later_writes() {
        let memory = Memory::new(1 << 20, 1000);
        for n in 0..200 {
            memory.create(&sid(&format!("old{n}")), &record(10), 100, 1).unwrap();
        }
        for n in 0..400 {
            memory.create(&sid(&format!("new{n}")), &record(10), 9000, 500).unwrap();
        }
        let held: usize = memory.shards.iter().map(|shard| lock(shard).entries.len()).sum();
        assert_eq!(held, 400);
    }
}
