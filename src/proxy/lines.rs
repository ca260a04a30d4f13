//! Writers of one session line up: within this process only one at a time computes and swaps, and the next one starts from what the
//! last one stored. So a hundred merges of one session cost a hundred writes and not a hundred conflicts each. Correctness never
//! rests on it: other processes are met by the store's compare-and-swap.

use crate::session::sid::Sid;
use crate::store::Loaded;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SHARDS: usize = 32;

type Line = Arc<tokio::sync::Mutex<Option<Loaded>>>;

/// How long a sid that was regenerated away is remembered, and how many of them.
const RENAMED_FOR: Duration = Duration::from_secs(60);
const RENAMED_MOST: usize = 50_000;

/// All lines of the process. Locked for a map operation only, and only by requests that write.
pub struct Lines {
    shards: [Mutex<HashMap<Sid, Line>>; SHARDS],
    renamed: Mutex<HashMap<Sid, Instant>>,
}

/// A place in one session's line.
pub(super) struct Place {
    lines: Arc<Lines>,
    sid: Sid,
    line: Line,
}

impl Default for Lines {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), renamed: Mutex::default() }
    }
}

impl Lines {
    pub(super) fn enter(self: &Arc<Self>, sid: &Sid) -> Place {
        let line = Arc::clone(self.shard(sid).entry(sid.clone()).or_default());
        Place { lines: Arc::clone(self), sid: sid.clone(), line }
    }

    /// The session of this sid lives on under another one.
    pub(super) fn remember_renamed(&self, sid: &Sid) {
        let mut renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        if renamed.len() >= RENAMED_MOST {
            renamed.retain(|_, at| at.elapsed() < RENAMED_FOR);
        }
        if renamed.len() < RENAMED_MOST {
            renamed.insert(sid.clone(), Instant::now());
        }
    }

    /// Was the session renamed a moment ago? Then the browser has a newer cookie, or is about to get it: a response of a parallel
    /// request must not clear it.
    pub(super) fn was_renamed(&self, sid: &Sid) -> bool {
        let renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        renamed.get(sid).is_some_and(|at| at.elapsed() < RENAMED_FOR)
    }

    // A panic while the map was held leaves the map whole: it holds no half-done state.
    fn shard(&self, sid: &Sid) -> MutexGuard<'_, HashMap<Sid, Line>> {
        let mut hasher = DefaultHasher::new();
        sid.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the turn. The value is what the writer before left in the store, if there was one.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, Option<Loaded>> {
        self.line.lock().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.lines.shard(&self.sid);
        // The map's and ours: nobody else waits.
        if Arc::strong_count(&self.line) == 2 {
            shard.remove(&self.sid);
        }
    }
}
