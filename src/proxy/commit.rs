//! Carries a plan out: the store write that a response asked for, before its head (or, for trailers, its end) is released.
//!
//! Merges are compare-and-swap: on a conflict the update is applied again to what is stored by then. Nothing revives a session
//! that vanished. Tests: `tests/it/session_update.rs`, `tests/faults/two_sidecars.py`.

use super::lines::{Lines, Place};
use super::outcome::{Base, CommitError, Committed, Outcome};
use crate::drain::Drain;
use crate::events::{self, Events};
use crate::session::Millis;
use crate::session::lifecycle::{self, Evolved, Policy, Write};
use crate::session::sid::Sid;
use crate::session::wire::{Invalid, Update};
use crate::store::error::{Kind, Op};
use crate::store::{Created, Loaded, Lookup, Store, StoreError, Swapped, Touched, Version};
use crate::telemetry::counters::Counters;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{MutexGuard, oneshot};

/// What a commit needs; one per worker.
pub(super) struct Committer {
    pub(super) store: Store,
    pub(super) policy: Rc<Policy>,
    pub(super) lines: Arc<Lines>,
    pub(super) drain: Drain,
    /// Counts those who may still need the store.
    pub(super) in_use: Drain,
    pub(super) counters: Arc<Counters>,
    pub(super) events: Arc<Events>,
    /// `timeouts.store`: also the longest that conflicts are fought.
    pub(super) deadline: Duration,
}

/// Boxed, because it is rare and large: every request under way would carry its room.
type CommitTask = Pin<Box<dyn Future<Output = Result<Committed, CommitError>>>>;

type Sender = oneshot::Sender<Result<Committed, CommitError>>;

/// The way to whoever waits for a commit; a task that has more to do than to answer may answer first.
#[derive(Clone)]
pub(super) struct Answer(Rc<Cell<Option<Sender>>>);

impl Answer {
    /// Answers, once; what comes later is for nobody.
    pub(super) fn give(&self, result: Result<Committed, CommitError>) {
        if let Some(sender) = self.0.take() {
            // Whoever has left needs no answer.
            let _ = sender.send(result);
        }
    }
}

/// A change of a stored session, as the task that carries it out knows it.
pub(super) struct Change {
    pub(super) sid: Sid,
    /// What `next` was made from.
    pub(super) base: Loaded,
    pub(super) next: Evolved,
    /// Applied again to what others stored meanwhile.
    pub(super) update: Update,
    pub(super) now: Millis,
    /// The update came in a trailer, so no cookie can be set any more.
    pub(super) head_is_out: bool,
}

impl Change {
    /// Applies the update to what is stored by now.
    pub(super) fn rebase(&mut self, committer: &Committer, base: Loaded) -> Result<(), Invalid> {
        let attributes = &self.next.record.cookie.attributes;
        self.next =
            lifecycle::evolve(&committer.policy, attributes, Some(&base.record), &self.update, self.now)?;
        self.base = base;
        Ok(())
    }
}

impl Committer {
    /// Carries `write` out. Dropping the future (the client left) does not stop a write that has begun. `head_is_out`: the update
    /// came in a trailer, so no cookie can be set any more.
    pub(super) async fn commit(
        self: &Rc<Self>,
        base: Base,
        write: Write,
        update: Option<Update>,
        now: Millis,
        head_is_out: bool,
    ) -> Result<Committed, CommitError> {
        match (write, base.live.clone()) {
            (Write::Nothing, _) => Ok(Committed { outcome: Outcome::Unchanged, base }),
            (Write::Touch { expires_at }, Some(loaded)) => {
                Ok(self.touch(base, &loaded, expires_at, now).await)
            }
            (Write::Confirm, Some(_)) => match self.store.load(&base.sid, now).await {
                Ok(Lookup::Absent) => Ok(self.vanished(base.sid)),
                // An outage changes nothing about the cookie.
                Ok(Lookup::Live(_) | Lookup::Unreadable(_)) | Err(_) => {
                    Ok(Committed { outcome: Outcome::Unchanged, base })
                }
            },
            (Write::Create(evolved), _) => {
                let fresh = update.is_some_and(|update| update.regenerate);
                let first = if fresh { new_sid()? } else { base.sid };
                Box::pin(self.create(first, evolved, now)).await
            }
            (Write::Save(next), Some(loaded)) => {
                let update = update.unwrap_or_default();
                let change = Change { sid: base.sid, base: loaded, next, update, now, head_is_out };
                let committer = Rc::clone(self);
                self.run(|answer| Box::pin(committer.save(change, answer))).await
            }
            (Write::Regenerate(next), Some(loaded)) => {
                let update = Update { regenerate: true, ..update.unwrap_or_default() };
                let change = Change { sid: base.sid, base: loaded, next, update, now, head_is_out };
                let committer = Rc::clone(self);
                self.run(|answer| Box::pin(committer.regenerate(change, answer))).await
            }
            (Write::Destroy, Some(_)) => {
                if !self.destroy(&base.sid, now).await? {
                    // A logout means the session, also when it got a new sid while the app worked.
                    if let Some(renamed) = self.lines.renamed_to(&base.sid) {
                        self.destroy(&renamed, now).await?;
                    }
                }
                Ok(gone(base.sid, Outcome::Destroyed))
            }
            // The rules plan these for live sessions only.
            (
                Write::Touch { .. } | Write::Confirm | Write::Save(_) | Write::Regenerate(_) | Write::Destroy,
                None,
            ) => Ok(Committed { outcome: Outcome::Unchanged, base }),
        }
    }

    async fn destroy(&self, sid: &Sid, now: Millis) -> Result<bool, StoreError> {
        let existed = self.store.destroy(sid).await?;
        if existed {
            self.lines.remember_destroyed(sid);
            self.counters.sessions_destroyed.inc();
            self.tell(events::Kind::Destroy, sid, now);
        }
        Ok(existed)
    }

    /// Several store operations that belong together run on a task of their own, which a client that leaves cannot stop.
    async fn run(&self, task: impl FnOnce(Answer) -> CommitTask) -> Result<Committed, CommitError> {
        let (sender, result) = oneshot::channel();
        let answer = Answer(Rc::new(Cell::new(Some(sender))));
        let work = task(answer.clone());
        // The handle is not needed: the task ends by itself, and the drain knows it.
        let in_use = self.in_use.guard();
        drop(self.drain.spawn_local(async move {
            let _in_use = in_use;
            answer.give(work.await);
        }));
        result.await.unwrap_or_else(|_| {
            let detail = "the commit task ended early".to_owned();
            Err(CommitError::Store(StoreError { op: Op::Update, kind: Kind::Refused, detail }))
        })
    }

    async fn touch(&self, base: Base, loaded: &Loaded, expires_at: Millis, now: Millis) -> Committed {
        match self.store.touch(&base.sid, loaded, expires_at, now).await {
            Ok(Touched::Done) => {
                self.counters.sessions_touched.inc();
                self.tell(events::Kind::Touch, &base.sid, now);
                Committed { outcome: Outcome::Touched, base }
            }
            Ok(Touched::Absent) => self.vanished(base.sid),
            Err(error) => {
                self.counters.store_errors.inc(error.op, error.kind);
                tracing::warn!(session = %base.sid, %error, "session not extended; its data is as it was");
                Committed { outcome: Outcome::NotTouched, base }
            }
        }
    }

    async fn create(&self, first: Sid, evolved: Evolved, now: Millis) -> Result<Committed, CommitError> {
        let (sid, version) = self.create_under_free_sid(first, None, &evolved, now).await?;
        self.counters.sessions_created.inc();
        let live = Some(stored(evolved, version, now));
        Ok(Committed { outcome: Outcome::Created, base: Base { sid, live } })
    }

    pub(super) async fn create_under_free_sid(
        &self,
        first: Sid,
        before: Option<&Version>,
        next: &Evolved,
        now: Millis,
    ) -> Result<(Sid, Version), CommitError> {
        let mut sid = first;
        // 192 random bits do not collide twice.
        for _ in 0..3 {
            match self.store.create_after(&sid, before, &next.record, next.expires_at, now).await? {
                Created::Done(version) => {
                    self.tell(events::Kind::Create, &sid, now);
                    return Ok((sid, version));
                }
                Created::Exists => sid = new_sid()?,
            }
        }
        let detail = "three new session ids in a row exist already".to_owned();
        Err(CommitError::Store(StoreError { op: Op::Create, kind: Kind::Refused, detail }))
    }

    async fn save(self: Rc<Self>, change: Change, answer: Answer) -> Result<Committed, CommitError> {
        let (mut change, mut followed, started) = (change, false, Instant::now());
        let now = change.now;
        let place = self.lines.enter(&change.sid);
        let mut latest = self.turn(&place, Op::Update, started).await?;
        if let Some(latest) = latest.take() {
            change.rebase(&self, latest)?;
        }
        loop {
            if !followed && lifecycle::privilege_changed(&self.policy, &change.base.record, &change.next) {
                // Asked here, against what others stored meanwhile: `regenerate_on` holds for what is really written.
                if change.head_is_out {
                    return Err(CommitError::Invalid(Invalid::NeedsCookie));
                }
                change.update.regenerate = true;
                change.rebase(&self, change.base.clone())?;
                return self.swap_sid(change, &answer).await;
            }
            if !(change.next.modified || change.update.save || self.policy.resave) {
                // Somebody else wrote the very same: what is left is the touch.
                let (base, expires_at) = (change.base, change.next.expires_at);
                let stored = Base { sid: change.sid, live: Some(base.clone()) };
                return Ok(self.touch(stored, &base, expires_at, now).await);
            }
            let Change { sid, base, next, .. } = &change;
            match self.store.update(sid, &base.version, &next.record, next.expires_at, now).await? {
                Swapped::Done(version) => {
                    self.counters.sessions_updated.inc();
                    self.tell(events::Kind::Update, sid, now);
                    let stored = stored(change.next, version, now);
                    let outcome = if followed { Outcome::Followed } else { Outcome::Updated };
                    if !followed {
                        *latest = Some(stored.clone());
                    }
                    return Ok(Committed { outcome, base: Base { sid: change.sid, live: Some(stored) } });
                }
                Swapped::Absent => match self.renamed(sid, now).await? {
                    Some((renamed, found)) => {
                        // Merged as if it had come just before the new sid. Whose cookie this response answers is not known to
                        // be the browser that got the new one, so it gets none.
                        change.rebase(&self, found)?;
                        (change.sid, followed) = (renamed, true);
                    }
                    None => return Ok(self.vanished(change.sid)),
                },
                Swapped::Conflict(lookup) => {
                    if started.elapsed() >= self.deadline {
                        return Err(conflict(Op::Update));
                    }
                    let Some(found) = self.after_conflict(Op::Update, *lookup)? else {
                        return Ok(self.vanished(change.sid));
                    };
                    change.rebase(&self, found)?;
                }
            }
        }
    }

    /// Where a session that is gone lives on, if it was renamed a moment ago.
    async fn renamed(&self, sid: &Sid, now: Millis) -> Result<Option<(Sid, Loaded)>, CommitError> {
        let Some(renamed) = self.lines.renamed_to(sid) else { return Ok(None) };
        match self.store.load(&renamed, now).await? {
            Lookup::Live(mut found) => {
                self.hide_store_keys(&mut found);
                Ok(Some((renamed, found)))
            }
            Lookup::Absent | Lookup::Unreadable(_) => Ok(None),
        }
    }

    /// Waits for the turn in a session's line. Whoever waited for most of the deadline is refused: in an outage the writer before
    /// it took all of it in vain, and the next one would too.
    pub(super) async fn turn<'p>(
        &self,
        place: &'p Place,
        op: Op,
        started: Instant,
    ) -> Result<MutexGuard<'p, Option<Loaded>>, CommitError> {
        let patience = self.deadline.mul_f32(0.75);
        let turn = tokio::time::timeout(patience, place.turn()).await.ok().flatten();
        turn.filter(|_| started.elapsed() < patience).ok_or_else(|| {
            let detail = "the writers before this one took all of timeouts.store".to_owned();
            CommitError::Store(StoreError { op, kind: Kind::Timeout, detail })
        })
    }

    /// What to go on from after another writer came first; `None`: the session is gone.
    pub(super) fn after_conflict(&self, op: Op, lookup: Lookup) -> Result<Option<Loaded>, CommitError> {
        self.counters.update_conflicts.inc();
        match lookup {
            Lookup::Live(mut stored) => {
                self.hide_store_keys(&mut stored);
                Ok(Some(stored))
            }
            Lookup::Absent => Ok(None),
            Lookup::Unreadable(what) => {
                let detail = format!("the stored session became unreadable: {what}");
                Err(CommitError::Store(StoreError { op, kind: Kind::Refused, detail }))
            }
        }
    }

    /// What the store keeps for itself among the data is nobody's data (contract §3).
    pub(super) fn hide_store_keys(&self, loaded: &mut Loaded) {
        loaded.record.payload = loaded.record.payload.without_keys(&self.policy.store_keys);
    }

    pub(super) fn tell(&self, kind: events::Kind, sid: &Sid, now: Millis) {
        self.events.tell(&self.counters, kind, sid, now);
    }

    pub(super) fn vanished(&self, sid: Sid) -> Committed {
        self.counters.sessions_vanished.inc();
        tracing::info!(session = %sid, "session ended while the app worked; its response's update is dropped");
        gone(sid, Outcome::Vanished)
    }
}

pub(super) fn stored(evolved: Evolved, version: Version, now: Millis) -> Loaded {
    Loaded { record: evolved.record, expires_at: Some(evolved.expires_at), touched_at: Some(now), version }
}

fn gone(sid: Sid, outcome: Outcome) -> Committed {
    Committed { outcome, base: Base { sid, live: None } }
}

pub(super) fn conflict(op: Op) -> CommitError {
    let detail = "other writers came first until timeouts.store had passed".to_owned();
    CommitError::Store(StoreError { op, kind: Kind::Conflict, detail })
}

pub(super) fn new_sid() -> Result<Sid, CommitError> {
    Sid::random().map_err(|error| {
        let detail = format!("no randomness for a session id: {error}");
        CommitError::Store(StoreError { op: Op::Create, kind: Kind::Refused, detail })
    })
}
