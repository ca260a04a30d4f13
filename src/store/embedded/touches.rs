//! Extensions that are not on disk yet. A touch would cost a sync each; it waits here for at most a second.
//!
//! Shared by all workers and the writer. An entry names the revision that it extends, so that it can never prolong a session
//! that was written, or destroyed and made anew, in between. Tests: `tests/it/store_conformance.rs` and `writer.rs`.

use crate::session::Millis;
use crate::session::sid::Sid;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touch {
    pub(super) revision: u64,
    pub(super) expires_at: Millis,
    pub(super) touched_at: Millis,
}

pub(super) struct Touches {
    shards: Vec<Mutex<HashMap<Sid, Touch>>>,
    hasher: RandomState,
}

impl Touches {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Ask this first and the file afterwards: an entry leaves only after its row was committed, so one of them has it.
    pub(super) fn find(&self, sid: &Sid) -> Option<Touch> {
        self.shard(sid).get(sid).copied()
    }

    pub(super) fn insert(&self, sid: &Sid, touch: Touch) {
        self.shard(sid).insert(sid.clone(), touch);
    }

    /// Up to `limit` entries to be written; they stay until [`Touches::forget`].
    pub(super) fn waiting(&self, limit: usize) -> Vec<(Sid, Touch)> {
        let mut out = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let room = limit - out.len();
            out.extend(shard.iter().take(room).map(|(sid, touch)| (sid.clone(), *touch)));
        }
        out
    }

    /// Drops what is on disk now, unless a newer touch has taken its place.
    pub(super) fn forget(&self, written: &[(Sid, Touch)]) {
        for (sid, touch) in written {
            let mut shard = self.shard(sid);
            if shard.get(sid) == Some(touch) {
                shard.remove(sid);
            }
        }
    }

    fn shard(&self, sid: &Sid) -> MutexGuard<'_, HashMap<Sid, Touch>> {
        let index = usize::try_from(self.hasher.hash_one(sid) % SHARDS as u64).unwrap_or(0);
        lock(&self.shards[index])
    }
}

// Nothing under these locks can stop half-way.
fn lock(shard: &Mutex<HashMap<Sid, Touch>>) -> MutexGuard<'_, HashMap<Sid, Touch>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
