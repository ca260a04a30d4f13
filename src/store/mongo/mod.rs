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
mod fault;
mod index;
mod line;
mod loader;
mod render;

use super::error::{Kind, Op};
use super::{
    Created, Loaded, Lookup, MongoOptions, SETTLE_DEADLINES, StoreError, Swapped, TOO_LARGE, Touched,
    Version, VersionKind,
};
use crate::drain::Drain;
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use bson::{Bson, DateTime, Document, RawBson, RawDocumentBuf, doc};
use fault::Fault;
use line::{Handles, Line};
use loader::Loader;
use mongodb::options::{Acknowledgment, ConnectionString, ReadPreference, SelectionCriteria};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Bytes of a stored session that a touch sends along to name it.
const SENT_WITH_TOUCH: usize = 1024;
/// Operations of one worker that may be under way, those included whose caller has given up.
const OUTSTANDING: usize = 512;

/// What the workers have in common: settings, and who does the housekeeping.
pub(crate) struct MongoShared {
    options: MongoOptions,
    connection: ConnectionString,
    deadline: Duration,
    max_payload: usize,
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

/// Is this a MongoDB URL? For the configuration's check: connects to nothing, and the text never holds the URL's password.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    parse_url(url).map(drop)
}

fn parse_url(url: &str) -> Result<ConnectionString, String> {
    let parsed = ConnectionString::parse(url).map_err(|error| fault::masked(url, &error.kind.to_string()))?;
    let w = parsed.write_concern.as_ref().and_then(|concern| concern.w.as_ref());
    if w == Some(&Acknowledgment::Nodes(0)) {
        return Err(
            "w=0 means writes that nobody acknowledges, and a response waits for its write".to_owned()
        );
    }
    Ok(parsed)
}

impl MongoShared {
    pub(crate) fn new(options: MongoOptions, deadline: Duration, max_payload: usize) -> Result<Self, String> {
        let connection = parse_url(&options.url).map_err(|why| format!("store.url: {why}"))?;
        Ok(Self { options, connection, deadline, max_payload, housekeeping: AtomicBool::new(false) })
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
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, StoreError> {
        let session = self.render(Op::Create, record, None)?;
        let (mongo, sid, created_at) = (Rc::clone(self), sid.clone(), record.created_at);
        self.run(
            Op::Create,
            async move { mongo.create_now(&sid, session, created_at, expires_at, now).await },
        )
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
        let (mongo, sid, expected) = (Rc::clone(self), sid.clone(), expected.clone());
        let created_at = record.created_at;
        self.run(Op::Update, async move {
            mongo.update_now(&sid, &expected, session, created_at, expires_at, now).await
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
        let (mongo, sid, dated) = (Rc::clone(self), sid.clone(), loaded.touched_at.is_some());
        let (loaded, ends) = (loaded.version.clone(), loaded.expires_at);
        self.run(Op::Touch, async move {
            let mut set = doc! { "expires": date(expires_at) };
            // As connect-mongo: `lastModified` is kept up to date, not introduced, by a touch.
            if dated && mongo.shared.options.touch_after > 0 {
                set.insert("lastModified", date(now));
            }
            let sessions = mongo.handles().await?.sessions;
            let filter = not_saved_since(&sid, &loaded, ends, now)?;
            if sessions.update_one(filter, mongo.change(set)).await?.matched_count > 0 {
                return Ok(Touched::Done);
            }
            Ok(match mongo.read_again(&sid, now).await? {
                Lookup::Absent => Touched::Absent,
                // Saved (or, a large one, touched) since: that gave it a fresh expiry.
                Lookup::Live(_) | Lookup::Unreadable(_) => Touched::Done,
            })
        })
        .await
    }

    pub(crate) async fn destroy(self: &Rc<Self>, sid: &Sid) -> Result<bool, StoreError> {
        let (mongo, sid) = (Rc::clone(self), sid.clone());
        self.run(Op::Destroy, async move {
            let sessions = mongo.handles().await?.sessions;
            Ok(sessions.delete_one(doc! { "_id": sid.as_str() }).await?.deleted_count > 0)
        })
        .await
    }

    pub(crate) async fn destroy_if(
        self: &Rc<Self>,
        sid: &Sid,
        expected: &Version,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        let (mongo, sid, expected) = (Rc::clone(self), sid.clone(), expected.clone());
        self.run_within(self.shared.deadline * SETTLE_DEADLINES, Op::Destroy, async move {
            let sessions = mongo.handles().await?.sessions;
            let filter = unchanged(&sid, &expected, now)?;
            if sessions.delete_one(filter).await?.deleted_count > 0 {
                return Ok(Swapped::Done(expected));
            }
            Ok(match mongo.read_again(&sid, now).await? {
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
        sid: &Sid,
        session: RawBson,
        created_at: Option<Millis>,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, Fault> {
        let sessions = self.handles().await?.sessions;
        let document = document::new(&self.shared.options, sid, &session, created_at, expires_at, now);
        let Err(error) = sessions.insert_one(&document).await else {
            return Ok(Created::Done(version(session)));
        };
        if !fault::is_duplicate_key(&error) {
            return Err(error.into());
        }
        let Some(found) = self.read_raw(sid).await? else {
            // Not our `_id`: some other unique index of that collection objects.
            return Err(error.into());
        };
        // A write whose first answer was lost and that the driver sent twice: this is our own document.
        if document::holds(&found, &session, expires_at) {
            return Ok(Created::Done(version(session)));
        }
        // An expired document is absent, even before the TTL monitor came by.
        let expired = doc! { "_id": sid.as_str(), "expires": { "$lte": date(now) } };
        let replaced = sessions.replace_one(expired, &document).await?.matched_count > 0;
        Ok(if replaced { Created::Done(version(session)) } else { Created::Exists })
    }

    async fn update_now(
        &self,
        sid: &Sid,
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
        let filter = unchanged(sid, expected, now)?;
        if sessions.update_one(filter, self.change(set)).await?.matched_count > 0 {
            return Ok(Swapped::Done(version(session)));
        }
        // Also when it is our own value that a lost answer made the driver send twice: somebody else may have computed the same,
        // and whoever merges does it again without harm.
        Ok(match self.read_again(sid, now).await? {
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
    async fn read_again(&self, sid: &Sid, now: Millis) -> Result<Lookup, Fault> {
        Ok(match self.read_raw(sid).await? {
            Some(found) => document::parse(&found, now, self.shared.max_payload),
            None => Lookup::Absent,
        })
    }

    async fn read_raw(&self, sid: &Sid) -> Result<Option<RawDocumentBuf>, Fault> {
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let sessions = self.handles().await?.sessions;
        Ok(sessions.find_one(doc! { "_id": sid.as_str() }).selection_criteria(primary).await?)
    }

    fn render(&self, op: Op, record: &Record, before: Option<&RawBson>) -> Result<RawBson, StoreError> {
        if record.payload.as_bytes().len() > self.shared.max_payload {
            return Err(StoreError::new(op, Kind::Refused, TOO_LARGE));
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
        let Ok(permit) = Arc::clone(&self.changes).try_acquire_owned() else {
            return Err(StoreError::new(op, Kind::Overloaded, "too many operations are under way"));
        };
        let task = self.drain.spawn_local(async move {
            let _permit = permit;
            work.await
        });
        match tokio::time::timeout(patience, task).await {
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

fn version(session: RawBson) -> Version {
    Version(VersionKind::Mongo(Arc::new(session)))
}

fn date(at: Millis) -> DateTime {
    DateTime::from_millis(at)
}

/// connect-mongo's condition for a live document.
fn alive(now: Millis) -> Bson {
    Bson::Array(vec![
        doc! { "expires": { "$exists": false } }.into(),
        doc! { "expires": { "$gt": date(now) } }.into(),
    ])
}

/// The condition of a touch. A large session is known by its expiry, which every save changes: sending all of it with every request
/// would cost more than the touch.
fn not_saved_since(
    sid: &Sid,
    loaded: &Version,
    ends: Option<Millis>,
    now: Millis,
) -> Result<Document, Fault> {
    let small = match &loaded.0 {
        VersionKind::Mongo(session) => match &**session {
            RawBson::String(text) => text.len() <= SENT_WITH_TOUCH,
            RawBson::Document(object) => object.as_bytes().len() <= SENT_WITH_TOUCH,
            _ => true,
        },
        VersionKind::Revision(_) => true,
    };
    match ends {
        Some(ends) if !small => {
            Ok(doc! { "_id": sid.as_str(), "expires": { "$eq": date(ends), "$gt": date(now) } })
        }
        _ => unchanged(sid, loaded, now),
    }
}

/// The condition of a compare-and-swap. `$eq`, because a stored object might begin with an operator's name.
fn unchanged(sid: &Sid, expected: &Version, now: Millis) -> Result<Document, Fault> {
    let VersionKind::Mongo(session) = &expected.0 else {
        return Err(Fault::Bug("a version of another store"));
    };
    let session = Bson::try_from(RawBson::clone(session))?;
    Ok(doc! { "_id": sid.as_str(), "session": { "$eq": session }, "$or": alive(now) })
}
