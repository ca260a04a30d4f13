//! Reads of one worker, coalesced: what is queued when a batch starts goes into one `find`, and nobody ever waits for company.
//!
//! A read costs the driver as much as four proxied requests; 32 of them in one command cost a tenth of that. A batch that passes
//! the deadline gives its place to the next one, so that a stalled connection does not hold up the others; its own task goes on
//! (a driver future is never dropped), and only so many may be in that state.
//! A read joins only what has not been sent yet, so whoever asks after a write sees that write.
//! Tests: `tests/it/store_conformance.rs`.

use super::super::error::{Kind, Op};
use super::super::{Lookup, StoreError};
use super::document::Reading;
use super::fault::Fault;
use super::id::Id;
use super::line::Handles;
use super::{Mongo, primary};
use crate::session::Millis;
use crate::session::sid::Sid;
use bson::{RawDocumentBuf, doc};
use mongodb::Collection;
use mongodb::action::Action;
use mongodb::options::SelectionCriteria;
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
/// Sessions of one worker whose key is being worked out, or waits for its turn.
const UNLOCKING: usize = 1000;

#[derive(Default)]
pub(super) struct Loader {
    queue: RefCell<VecDeque<Waiter>>,
    /// A batch is spawned and has not taken its share yet.
    scheduled: Cell<bool>,
    flying: Rc<Cell<usize>>,
    stalled: Rc<Cell<usize>>,
    unlocking: Rc<Cell<usize>>,
}

struct Waiter {
    id: Id,
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
            queue.push_back(Waiter { id: self.shared.id(sid), now, answer });
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
        let (ids, waiters) = self.loader.take();
        if ids.is_empty() {
            return;
        }
        let flying = Place::take(&self.loader.flying);
        self.schedule();
        let mut find = pin!(self.find(&ids, clocks(&waiters)));
        match tokio::time::timeout(self.shared.deadline, find.as_mut()).await {
            Ok(found) => {
                drop(flying);
                self.line.is_alive();
                match found {
                    Ok(found) => self.hand_out(waiters, found),
                    Err(fault) => refuse(waiters, &self.explain(Op::Load, &fault)),
                }
                self.schedule();
            }
            Err(_) => {
                let _stalled = Place::take(&self.loader.stalled);
                drop(flying);
                self.line.is_late();
                refuse(waiters, &StoreError::new(Op::Load, Kind::Timeout, "no answer within timeouts.store"));
                self.schedule();
                find.await.ok();
            }
        }
    }

    /// What is stored under each of `ids`, in their order.
    ///
    /// Where the URL sends reads to secondaries, those may lag: what ends a session (nothing there, expired, unreadable) is asked of
    /// the primary before anybody is logged out. A session that was only just made is found this way too.
    async fn find(&self, ids: &[Id], clocks: Clocks) -> Result<Vec<Reading>, Fault> {
        let Handles { sessions, may_lag, .. } = self.handles().await?;
        let mut found = self.find_at(&sessions, None, ids, clocks.first).await?;
        if !may_lag {
            return Ok(found);
        }
        let in_doubt: Vec<usize> = (0..ids.len()).filter(|&at| ends(&found[at], clocks.last)).collect();
        if !in_doubt.is_empty() {
            let ids: Vec<Id> = in_doubt.iter().map(|&at| ids[at].clone()).collect();
            let sure = self.find_at(&sessions, Some(primary()), &ids, clocks.first).await?;
            for (at, reading) in in_doubt.into_iter().zip(sure) {
                found[at] = reading;
            }
        }
        Ok(found)
    }

    async fn find_at(
        &self,
        sessions: &Collection<RawDocumentBuf>,
        whom: Option<SelectionCriteria>,
        ids: &[Id],
        now: Millis,
    ) -> Result<Vec<Reading>, Fault> {
        let reader = &self.shared.reader;
        let absent = || Reading::Known(Lookup::Absent);
        if let [id] = ids {
            let found = sessions
                .find_one(doc! { "_id": id.as_str() })
                .optional(whom, |find, whom| find.selection_criteria(whom))
                .await?;
            return Ok(vec![found.map_or_else(absent, |found| reader.read(&found, now))]);
        }
        let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let mut out: Vec<Reading> = ids.iter().map(|_| absent()).collect();
        let list: Vec<&str> = ids.iter().map(Id::as_str).collect();
        let find = sessions.find(doc! { "_id": { "$in": list } });
        let mut cursor = find.optional(whom, |find, whom| find.selection_criteria(whom)).await?;
        while cursor.advance().await? {
            let found = cursor.current();
            if let Some(&at) = found.get_str("_id").ok().and_then(|id| places.get(id)) {
                out[at] = reader.read(found, now);
            }
        }
        Ok(out)
    }

    /// Answers everybody whose session is open, and has the others opened one by one.
    fn hand_out(self: &Rc<Self>, waiters: Vec<(usize, Waiter)>, found: Vec<Reading>) {
        let mut waiting: Vec<Vec<Waiter>> = found.iter().map(|_| Vec::new()).collect();
        for (at, waiter) in waiters {
            waiting[at].push(waiter);
        }
        for (waiters, reading) in waiting.into_iter().zip(found) {
            match reading {
                Reading::Known(lookup) => answer(waiters, &lookup),
                Reading::Locked(_) if self.loader.unlocking.get() >= UNLOCKING => {
                    let why = StoreError::new(
                        Op::Load,
                        Kind::Overloaded,
                        "too many sessions of kruptein are being opened",
                    );
                    refuse(waiters.into_iter().map(|waiter| (0, waiter)).collect(), &why);
                }
                Reading::Locked(_) => {
                    let (mongo, place) = (Rc::clone(self), Place::take(&self.loader.unlocking));
                    self.drain.spawn_local(async move {
                        let _place = place;
                        let is_wanted = || waiters.iter().any(|waiter| !waiter.answer.is_closed());
                        let lookup = mongo.unlock(reading, is_wanted).await;
                        answer(waiters, &lookup);
                    });
                }
            }
        }
    }
}

/// The clocks of those who wait for a batch. The earliest decides what is read as live; `answer` looks again for the others.
#[derive(Clone, Copy)]
struct Clocks {
    first: Millis,
    last: Millis,
}

fn clocks(waiters: &[(usize, Waiter)]) -> Clocks {
    let all = || waiters.iter().map(|(_, waiter)| waiter.now);
    Clocks { first: all().min().unwrap_or_default(), last: all().max().unwrap_or_default() }
}

/// Would this end the session for anybody who asks until `last`?
fn ends(reading: &Reading, last: Millis) -> bool {
    match reading {
        Reading::Known(Lookup::Live(loaded)) => loaded.expires_at.is_some_and(|ends| ends <= last),
        Reading::Known(Lookup::Absent | Lookup::Unreadable(_)) => true,
        Reading::Locked(_) => false,
    }
}

impl Loader {
    /// The next batch: different sids, and who waits for which of them. Callers that have gone are left out.
    fn take(&self) -> (Vec<Id>, Vec<(usize, Waiter)>) {
        let mut queue = self.queue.borrow_mut();
        let mut places: HashMap<Id, usize> = HashMap::new();
        let mut ids = Vec::new();
        let mut waiters = Vec::new();
        while let Some(waiter) = queue.pop_front() {
            if waiter.answer.is_closed() {
                continue;
            }
            let at = match places.get(&waiter.id) {
                Some(&at) => at,
                None if ids.len() == BATCH => {
                    queue.push_front(waiter);
                    break;
                }
                None => {
                    places.insert(waiter.id.clone(), ids.len());
                    ids.push(waiter.id.clone());
                    ids.len() - 1
                }
            };
            waiters.push((at, waiter));
        }
        (ids, waiters)
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

fn answer(waiters: Vec<Waiter>, found: &Lookup) {
    for waiter in waiters {
        let lookup = match found {
            Lookup::Live(loaded) if loaded.expires_at.is_some_and(|ends| ends <= waiter.now) => {
                Lookup::Absent
            }
            found => found.clone(),
        };
        // Whoever has gone needs no answer.
        waiter.answer.send(Ok(lookup)).ok();
    }
}

fn refuse(waiters: Vec<(usize, Waiter)>, why: &StoreError) {
    for (_, waiter) in waiters {
        waiter.answer.send(Err(why.clone())).ok();
    }
}
