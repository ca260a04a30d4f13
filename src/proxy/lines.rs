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

/// How long a sid that was regenerated or destroyed is remembered (at least; at most twice as long), and how many of them at once.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
const REMEMBERED_MOST: usize = 50_000;
const REMEMBERED_LONGEST: usize = 256;

/// All lines of the process. Locked for a map operation only, and only by requests that write.
pub struct Lines {
    shards: [Mutex<HashMap<Sid, Line>>; SHARDS],
    ended: Mutex<Ended>,
}

/// Old sid to new one (`None`: destroyed), in two generations: the older one is forgotten whole.
#[derive(Default)]
struct Ended {
    recent: HashMap<Sid, Option<Sid>>,
    older: HashMap<Sid, Option<Sid>>,
    since: Option<Instant>,
}

/// A place in one session's line.
pub(super) struct Place {
    lines: Arc<Lines>,
    sid: Sid,
    line: Option<Line>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), ended: Mutex::default() }
    }
}

impl Lines {
    pub(super) fn enter(self: &Arc<Self>, sid: &Sid) -> Place {
        let line = Arc::clone(self.shard(sid).entry(sid.clone()).or_default());
        Place { lines: Arc::clone(self), sid: sid.clone(), line: Some(line) }
    }

    /// The session of `old` lives on as `new`.
    pub(super) fn remember_renamed(&self, old: &Sid, new: &Sid) {
        self.remember(old, Some(new.clone()));
    }

    /// The session of `sid` was ended by an app's word.
    pub(super) fn remember_destroyed(&self, sid: &Sid) {
        self.remember(sid, None);
    }

    fn remember(&self, old: &Sid, new: Option<Sid>) {
        let mut ended = self.ended();
        let now = Instant::now();
        // A generation that is full is as good as one that is old: the newest renames matter most.
        let full = ended.recent.len() >= REMEMBERED_MOST;
        if full || ended.since.is_none_or(|since| since.elapsed() >= REMEMBERED_FOR) {
            ended.older = std::mem::take(&mut ended.recent);
            ended.since = Some(now);
        }
        // A sid of ours has 32 characters; what other software signed may have any length.
        if old.as_str().len() <= REMEMBERED_LONGEST {
            ended.recent.insert(old.clone(), new);
        }
    }

    /// What became of a session that was renamed a moment ago, by this process. Its browser has a newer cookie, or is about to get
    /// it, and what requests that began before say is meant for it.
    pub(super) fn renamed_to(&self, sid: &Sid) -> Option<Sid> {
        let ended = self.ended();
        ended.recent.get(sid).or_else(|| ended.older.get(sid)).cloned().flatten()
    }

    /// Did this process destroy it a moment ago? Else a session that is gone may have got a new sid elsewhere.
    pub(super) fn was_destroyed(&self, sid: &Sid) -> bool {
        let ended = self.ended();
        ended.recent.get(sid).or_else(|| ended.older.get(sid)).is_some_and(Option::is_none)
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(super) async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, Option<Loaded>>> {
        // There from the beginning until the drop.
        Some(self.line.as_ref()?.lock().await)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.lines.shard(&self.sid);
        // Let go under the lock, so that of two that leave at once the second one sees that it is the last.
        self.line = None;
        if shard.get(&self.sid).is_some_and(|line| Arc::strong_count(line) == 1) {
            shard.remove(&self.sid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind_when_all_have_gone_and_renamed_sids_are_found() {
        let lines = Arc::new(Lines::default());
        let (a, b) = (Sid::from_text("a").unwrap(), Sid::from_text("b").unwrap());
        for _ in 0..2000 {
            let places = [lines.enter(&a), lines.enter(&a)];
            std::thread::scope(|scope| {
                for place in places {
                    scope.spawn(move || drop(place));
                }
            });
            assert!(lines.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
        }
        assert_eq!(lines.renamed_to(&a), None);
        lines.remember_renamed(&a, &b);
        assert_eq!((lines.renamed_to(&a), lines.was_destroyed(&a)), (Some(b.clone()), false));
        lines.remember_destroyed(&b);
        assert_eq!((lines.renamed_to(&b), lines.was_destroyed(&b)), (None, true));
    }
}
