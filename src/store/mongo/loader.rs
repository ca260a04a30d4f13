//! Reads of one worker, coalesced: what is queued when a batch starts goes into one `find`, and nobody ever waits for company.
//!
//! A read costs the driver as much as four proxied requests; 32 of them in one command cost a tenth of that. A batch that passes
//! the deadline gives its place to the next one, so that a stalled connection does not hold up the others; its own task goes on
//! (a driver future is never dropped), and only so many may be in that state.
//! A read joins only what has not been sent yet, so whoever asks after a write sees that write.
//! Tests: `tests/it/store_conformance.rs`.

use super::super::error::{Kind, Op};
use super::super::{Lookup, StoreError};
use super::fault::Fault;
use super::{Mongo, document};
use crate::session::Millis;
use crate::session::sid::Sid;
use bson::doc;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use tokio::sync::oneshot;

/// Different sids in one command.
const BATCH: usize = 64;
/// Commands on their way.
const FLYING: usize = 2;
/// Commands that passed the deadline and have not ended yet.
const STALLED: usize = 64;
/// Reads that wait for a place.
const QUEUE: usize = 10_000;

#[derive(Default)]
pub(super) struct Loader {
    queue: RefCell<VecDeque<Waiter>>,
    /// A batch is spawned and has not taken its share yet.
    scheduled: Cell<bool>,
    flying: Rc<Cell<usize>>,
    stalled: Rc<Cell<usize>>,
}

struct Waiter {
    sid: Sid,
    now: Millis,
    answer: oneshot::Sender<Result<Lookup, StoreError>>,
}

/// One in a counter for as long as it lives, so that not even a panic leaves a place taken.
struct Place(Rc<Cell<usize>>);

impl Mongo {
    pub(crate) async fn load(self: &Rc<Self>, sid: &Sid, now: Millis) -> Result<Lookup, StoreError> {
        let refuse = |kind, detail| Err(StoreError::new(Op::Load, kind, detail));
        if self.loader.stalled.get() >= STALLED {
            return refuse(Kind::Overloaded, "too many reads have no answer");
        }
        let (answer, found) = oneshot::channel();
        {
            let mut queue = self.loader.queue.borrow_mut();
            if queue.len() >= QUEUE {
                return refuse(Kind::Overloaded, "too many reads wait");
            }
            queue.push_back(Waiter { sid: sid.clone(), now, answer });
        }
        self.schedule();
        match tokio::time::timeout(self.shared.deadline, found).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => refuse(Kind::Refused, "the read's task ended early"),
            Err(_) => refuse(Kind::Timeout, "no answer within timeouts.store"),
        }
    }

    fn schedule(self: &Rc<Self>) {
        let loader = &self.loader;
        if loader.scheduled.get() || loader.flying.get() >= FLYING || loader.queue.borrow().is_empty() {
            return;
        }
        loader.scheduled.set(true);
        let mongo = Rc::clone(self);
        self.drain.spawn_local(async move { mongo.fly().await });
    }

    async fn fly(self: Rc<Self>) {
        self.loader.scheduled.set(false);
        let (sids, waiters) = self.loader.take();
        if sids.is_empty() {
            return;
        }
        let flying = Place::take(&self.loader.flying);
        self.schedule();
        // The earliest clock decides here; `answer` looks again for those with a later one.
        let now = waiters.iter().map(|(_, waiter)| waiter.now).min().unwrap_or_default();
        let mut find = pin!(self.find(&sids, now));
        match tokio::time::timeout(self.shared.deadline, find.as_mut()).await {
            Ok(found) => {
                drop(flying);
                self.line.is_alive();
                answer(waiters, found.map_err(|fault| self.explain(Op::Load, &fault)));
                self.schedule();
            }
            Err(_) => {
                let _stalled = Place::take(&self.loader.stalled);
                drop(flying);
                self.line.is_late();
                let why = StoreError::new(Op::Load, Kind::Timeout, "no answer within timeouts.store");
                answer(waiters, Err(why));
                self.schedule();
                find.await.ok();
            }
        }
    }

    /// What is stored under each of `sids`, in their order.
    async fn find(&self, sids: &[Sid], now: Millis) -> Result<Vec<Lookup>, Fault> {
        let sessions = self.handles().await?.sessions;
        let max = self.shared.max_payload;
        if let [sid] = sids {
            let found = sessions.find_one(doc! { "_id": sid.as_str() }).await?;
            return Ok(vec![found.map_or(Lookup::Absent, |found| document::parse(&found, now, max))]);
        }
        let places: HashMap<&str, usize> =
            sids.iter().enumerate().map(|(at, sid)| (sid.as_str(), at)).collect();
        let mut out = vec![Lookup::Absent; sids.len()];
        let ids: Vec<&str> = sids.iter().map(Sid::as_str).collect();
        let mut cursor = sessions.find(doc! { "_id": { "$in": ids } }).await?;
        while cursor.advance().await? {
            let found = cursor.current();
            if let Some(&at) = found.get_str("_id").ok().and_then(|id| places.get(id)) {
                out[at] = document::parse(found, now, max);
            }
        }
        Ok(out)
    }
}

impl Loader {
    /// The next batch: different sids, and who waits for which of them. Callers that have gone are left out.
    fn take(&self) -> (Vec<Sid>, Vec<(usize, Waiter)>) {
        let mut queue = self.queue.borrow_mut();
        let mut places: HashMap<Sid, usize> = HashMap::new();
        let mut sids = Vec::new();
        let mut waiters = Vec::new();
        while let Some(waiter) = queue.pop_front() {
            if waiter.answer.is_closed() {
                continue;
            }
            let at = match places.get(&waiter.sid) {
                Some(&at) => at,
                None if sids.len() == BATCH => {
                    queue.push_front(waiter);
                    break;
                }
                None => {
                    places.insert(waiter.sid.clone(), sids.len());
                    sids.push(waiter.sid.clone());
                    sids.len() - 1
                }
            };
            waiters.push((at, waiter));
        }
        (sids, waiters)
    }
}

impl Place {
    fn take(counter: &Rc<Cell<usize>>) -> Self {
        counter.set(counter.get() + 1);
        Self(Rc::clone(counter))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn answer(waiters: Vec<(usize, Waiter)>, found: Result<Vec<Lookup>, StoreError>) {
    for (at, waiter) in waiters {
        let result = match &found {
            Ok(lookups) => Ok(match &lookups[at] {
                Lookup::Live(loaded) if loaded.expires_at.is_some_and(|ends| ends <= waiter.now) => {
                    Lookup::Absent
                }
                found => found.clone(),
            }),
            Err(error) => Err(error.clone()),
        };
        // Whoever has gone needs no answer.
        waiter.answer.send(result).ok();
    }
}
