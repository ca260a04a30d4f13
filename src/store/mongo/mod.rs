//! A MongoDB collection in connect-mongo's format, shared with Express apps that are running.
//!
//! Every change is one command that carries its condition: `update` names the exact stored `session`, `update` and `touch` name
//! "not expired", so neither another sidecar nor an Express app is overwritten unseen, and nothing vanished comes back.
//!
//! A driver future is never dropped (the driver's README forbids it; a dropped command costs its connection): each call runs in a
//! task of its own that the stop waits for, the caller waits for that task under the deadline, and the task holds the permit that
//! bounds how many there are. Client, connections and loader belong to one worker.
//!
//! Must not know the other stores. Tests: `tests/it/store_conformance.rs` over a real mongod, and beside each file.

mod document;
pub(super) mod door;
mod fault;
mod filter;
mod id;
mod index;
mod line;
mod loader;
mod render;
mod ttl;
mod unlock;
mod url;

use super::error::{Kind, Op};
use super::place::place;
use super::seal::Seal;
use super::{
    Created, Loaded, Lookup, MongoOptions, SETTLE_DEADLINES, StoreError, Swapped, TOO_LARGE, Touched,
    Version, VersionKind,
};
use crate::drain::Drain;
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use bson::{Bson, DateTime, Document, RawBson, RawDocumentBuf, doc};
use document::{Reader, Reading};
use fault::Fault;
use filter::{not_saved_since, unchanged};
use id::Id;
use line::{Handles, Line};
use loader::Loader;
use mongodb::options::{ConnectionString, ReadPreference, SelectionCriteria};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
pub(super) use url::check_url;

/// Operations of one worker that may be under way, those included whose caller has given up.
const OUTSTANDING: usize = 512;

/// What the workers have in common: settings, and who does the housekeeping.
pub(crate) struct MongoShared {
    options: MongoOptions,
    connection: ConnectionString,
    deadline: Duration,
    reader: Reader,
    /// Set by the first worker: one TTL index or one cleaner for the whole process is enough.
    housekeeping: AtomicBool,
}

/// One worker's client.
pub(crate) struct Mongo {
    shared: Arc<MongoShared>,
    drain: Drain,
    line: Line,
    changes: Arc<Semaphore>,
    loader: Loader,
}

impl MongoShared {
    pub(crate) fn new(options: MongoOptions, deadline: Duration, max_payload: usize) -> Result<Self, String> {
        let connection = url::parse_url(&options.url).map_err(|why| format!("store.url: {why}"))?;
        let seal = options.crypto.as_deref().map(Seal::new).transpose()?;
        let reader = Reader { max_payload, seal };
        Ok(Self { options, connection, deadline, reader, housekeeping: AtomicBool::new(false) })
    }

    fn id(&self, sid: &Sid) -> Id {
        Id::of(sid, self.options.transform_id.as_ref())
    }
}

impl Mongo {
    /// Starts this worker's client in the background; a server that is down is nobody's error yet.
    pub(crate) fn attach(shared: &Arc<MongoShared>, drain: &Drain) -> Rc<Self> {
        let mongo = Rc::new(Self {
            shared: Arc::clone(shared),
            drain: drain.clone(),
            line: Line::default(),
            changes: Arc::new(Semaphore::new(OUTSTANDING)),
            loader: Loader::default(),
        });
        let warm_up = Rc::clone(&mongo);
        // The first request should not pay for the first connection.
        drain.spawn_local(async move { warm_up.ping_now().await.ok() });
        index::start(&mongo);
        mongo
    }

    pub(crate) async fn create(
        self: &Rc<Self>,
        sid: &Sid,
        before: Option<&Version>,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, StoreError> {
        let before = before.and_then(|before| match &before.0 {
            VersionKind::Mongo(before) => Some(&**before),
            _ => None,
        });
        let session = self.render(Op::Create, record, before)?;
        let (mongo, id, created_at) = (Rc::clone(self), self.shared.id(sid), record.created_at);
        self.run(Op::Create, async move { mongo.create_now(&id, session, created_at, expires_at, now).await })
            .await
    }

    pub(crate) async fn update(
        self: &Rc<Self>,
        sid: &Sid,
        expected: &Version,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        let VersionKind::Mongo(before) = &expected.0 else {
            return Err(StoreError::new(Op::Update, Kind::Refused, "a version of another store"));
        };
        let session = self.render(Op::Update, record, Some(before))?;
        let (mongo, id, expected) = (Rc::clone(self), self.shared.id(sid), expected.clone());
        let created_at = record.created_at;
        self.run(Op::Update, async move {
            mongo.update_now(&id, &expected, session, created_at, expires_at, now).await
        })
        .await
    }

    pub(crate) async fn touch(
        self: &Rc<Self>,
        sid: &Sid,
        loaded: &Loaded,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Touched, StoreError> {
        let (mongo, id, dated) = (Rc::clone(self), self.shared.id(sid), loaded.touched_at.is_some());
        let (loaded, ends) = (loaded.version.clone(), loaded.expires_at);
        self.run(Op::Touch, async move {
            let mut set = doc! { "expires": date(expires_at) };
            // As connect-mongo: `lastModified` is kept up to date, not introduced, by a touch.
            if dated && mongo.shared.options.touch_after > 0 {
                set.insert("lastModified", date(now));
            }
            let sessions = mongo.handles().await?.sessions;
            let filter = not_saved_since(&id, &loaded, ends, now)?;
            if sessions.update_one(filter, mongo.change(set)).await?.matched_count > 0 {
                return Ok(Touched::Done);
            }
            Ok(match mongo.read_again(&id, now).await? {
                Lookup::Absent => Touched::Absent,
                // Saved (or, a large one, touched) since: that gave it a fresh expiry.
                Lookup::Live(_) | Lookup::Unreadable(_) => Touched::Done,
            })
        })
        .await
    }

    pub(crate) async fn destroy(self: &Rc<Self>, sid: &Sid) -> Result<bool, StoreError> {
        let (mongo, id) = (Rc::clone(self), self.shared.id(sid));
        self.run(Op::Destroy, async move {
            let sessions = mongo.handles().await?.sessions;
            Ok(sessions.delete_one(doc! { "_id": id.as_str() }).await?.deleted_count > 0)
        })
        .await
    }

    pub(crate) async fn destroy_if(
        self: &Rc<Self>,
        sid: &Sid,
        expected: &Version,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        let (mongo, id, expected) = (Rc::clone(self), self.shared.id(sid), expected.clone());
        self.run_within(self.shared.deadline * SETTLE_DEADLINES, Op::Destroy, async move {
            let sessions = mongo.handles().await?.sessions;
            let filter = unchanged(&id, &expected, now)?;
            if sessions.delete_one(filter).await?.deleted_count > 0 {
                return Ok(Swapped::Done(expected));
            }
            Ok(match mongo.read_again(&id, now).await? {
                Lookup::Absent => Swapped::Absent,
                found => Swapped::Conflict(Box::new(found)),
            })
        })
        .await
    }

    pub(crate) async fn ping(self: &Rc<Self>) -> Result<(), StoreError> {
        let mongo = Rc::clone(self);
        self.run(Op::Ping, async move { mongo.ping_now().await }).await
    }

    async fn ping_now(&self) -> Result<(), Fault> {
        self.handles().await?.database.run_command(doc! { "ping": 1 }).await?;
        Ok(())
    }

    async fn create_now(
        &self,
        id: &Id,
        session: RawBson,
        created_at: Option<Millis>,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, Fault> {
        let sessions = self.handles().await?.sessions;
        let document = document::new(&self.shared.options, id, &session, created_at, expires_at, now);
        let Err(error) = sessions.insert_one(&document).await else {
            return Ok(Created::Done(version(session)));
        };
        if !fault::is_duplicate_key(&error) {
            return Err(error.into());
        }
        let Some(found) = self.read_raw(id).await? else {
            // Not our `_id`: some other unique index of that collection objects.
            return Err(error.into());
        };
        // A write whose first answer was lost and that the driver sent twice: this is our own document.
        if document::holds(&found, &session, expires_at) {
            return Ok(Created::Done(version(session)));
        }
        // An expired document is absent, even before the TTL monitor came by.
        let expired = doc! { "_id": id.as_str(), "expires": { "$lte": date(now) } };
        let replaced = sessions.replace_one(expired, &document).await?.matched_count > 0;
        Ok(if replaced { Created::Done(version(session)) } else { Created::Exists })
    }

    async fn update_now(
        &self,
        id: &Id,
        expected: &Version,
        session: RawBson,
        created_at: Option<Millis>,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Swapped, Fault> {
        let sessions = self.handles().await?.sessions;
        let mut set = doc! { "session": Bson::try_from(session.clone())?, "expires": date(expires_at) };
        if self.shared.options.touch_after > 0 {
            set.insert("lastModified", date(now));
        }
        // `absolute_timeout`: an Express app without `timestamps` made this document, so its age counts from our first save.
        if let Some(created_at) = created_at.filter(|_| self.shared.options.timestamps) {
            set.insert("createdAt", date(created_at));
        }
        let filter = unchanged(id, expected, now)?;
        if sessions.update_one(filter, self.change(set)).await?.matched_count > 0 {
            return Ok(Swapped::Done(version(session)));
        }
        // Also when it is our own value that a lost answer made the driver send twice: somebody else may have computed the same,
        // and whoever merges does it again without harm.
        Ok(match self.read_again(id, now).await? {
            Lookup::Absent => Swapped::Absent,
            found => Swapped::Conflict(Box::new(found)),
        })
    }

    /// `$set`, and with `timestamps` the server's own clock in `updatedAt`, as connect-mongo does it.
    fn change(&self, set: Document) -> Document {
        let mut change = doc! { "$set": set };
        if self.shared.options.timestamps {
            change.insert("$currentDate", doc! { "updatedAt": true });
        }
        change
    }

    /// What is stored after a condition did not hold: from the primary, whatever the URL says about reads.
    async fn read_again(&self, id: &Id, now: Millis) -> Result<Lookup, Fault> {
        let reading = match self.read_raw(id).await? {
            Some(found) => self.shared.reader.read(&found, now),
            None => Reading::Known(Lookup::Absent),
        };
        Ok(self.unlock(reading, || true).await)
    }

    async fn read_raw(&self, id: &Id) -> Result<Option<RawDocumentBuf>, Fault> {
        let sessions = self.handles().await?.sessions;
        Ok(sessions.find_one(doc! { "_id": id.as_str() }).selection_criteria(primary()).await?)
    }

    fn render(&self, op: Op, record: &Record, before: Option<&RawBson>) -> Result<RawBson, StoreError> {
        let Reader { max_payload, seal } = &self.shared.reader;
        if record.payload.as_bytes().len() > *max_payload {
            return Err(StoreError::new(op, Kind::Refused, TOO_LARGE));
        }
        if let Some(seal) = seal {
            // The same text whatever `stringify` says: connect-mongo seals `JSON.stringify` of the object.
            let sealed = seal.seal(&record.render_json());
            return sealed.map(RawBson::String).map_err(|why| StoreError::new(op, Kind::Refused, why));
        }
        render::session(record, self.shared.options.stringify, before)
            .map_err(|why| StoreError::new(op, Kind::Unstorable, why))
    }

    /// Runs a change in a task that outlives its caller, and waits for it as long as the deadline allows.
    async fn run<T: 'static>(
        &self,
        op: Op,
        work: impl Future<Output = Result<T, Fault>> + 'static,
    ) -> Result<T, StoreError> {
        self.run_within(self.shared.deadline, op, work).await
    }

    async fn run_within<T: 'static>(
        &self,
        patience: Duration,
        op: Op,
        work: impl Future<Output = Result<T, Fault>> + 'static,
    ) -> Result<T, StoreError> {
        let until = Instant::now() + patience;
        let place = place(&self.changes, op, until).await?;
        let task = self.drain.spawn_local(async move {
            let _place = place;
            work.await
        });
        match timeout_at(until, task).await {
            Ok(Ok(result)) => {
                self.line.is_alive();
                result.map_err(|fault| self.explain(op, &fault))
            }
            Ok(Err(_)) => Err(StoreError::new(op, Kind::Refused, "the operation's task ended early")),
            Err(_) => {
                self.line.is_late();
                Err(StoreError::new(op, Kind::Timeout, "no answer within timeouts.store"))
            }
        }
    }

    async fn handles(&self) -> Result<Handles, Fault> {
        self.line.handles(&self.shared).await
    }

    fn explain(&self, op: Op, fault: &Fault) -> StoreError {
        let (kind, detail) = fault.explain();
        StoreError::new(op, kind, fault::masked(&self.shared.options.url, &detail))
    }
}

/// Whatever the URL says about reads.
fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

fn version(session: RawBson) -> Version {
    Version(VersionKind::Mongo(Arc::new(session)))
}

fn date(at: Millis) -> DateTime {
    DateTime::from_millis(at)
}
