//! The session store: the only door to where sessions live.
//!
//! Rules that hold for every backend (tests: `tests/it/store_conformance.rs`, one suite over all of them):
//! - `create` fails on a sid that exists; `update`, `touch` report `Absent` instead of reviving; `destroy` of nothing is success.
//! - an expired record is absent, even before a sweeper ran.
//! - `update` and `destroy_if` are compare-and-swap: they name the version they were computed from.
//! - absent is a value, unavailable is a [`StoreError`].
//! - a caller may be dropped at any moment (the client left): an operation that was started is finished all the same.
//!
//! It must not know HTTP, the configuration file or what a session means. All futures belong to one worker (they are not `Send`).

mod embedded;
pub mod error;
mod file;
mod memory;
mod mongo;
mod options;
mod place;
mod redis;
mod seal;
pub mod survey;

pub use error::StoreError;
pub use options::{
    Acknowledge, AutoRemove, CryptoOptions, FileOptions, IdHash, KrupteinHash, KrupteinOptions, MongoOptions,
    RedisOptions, StoreKind, StoreOptions, TextEncoding, TransformId, WriteConcernOptions,
};

use crate::drain::Drain;
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use embedded::Embedded;
use file::{Files, FilesShared};
use memory::Memory;
use mongo::{Mongo, MongoShared};
use redis::{Redis, RedisShared};
use std::rc::Rc;
use std::sync::Arc;

/// The answer to `load`.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// A live session.
    Live(Loaded),
    /// No such session, or an expired one.
    Absent,
    /// Something is stored that is no session record; the text says what, without its content.
    Unreadable(String),
}

/// A live session and what is known of it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The session.
    pub record: Record,
    /// When the store lets it go; `None` when it never does.
    pub expires_at: Option<Millis>,
    /// When it was last written or touched, as far as `touch_after` may count on it (mongodb: `lastModified`).
    pub touched_at: Option<Millis>,
    /// What a compare-and-swap compares.
    pub version: Version,
}

/// What a write was computed from.
#[derive(Debug, Clone, PartialEq)]
pub struct Version(pub(crate) VersionKind);

/// How many deadlines [`Store::destroy_if`] waits.
const SETTLE_DEADLINES: u32 = 15;

/// The answer to `create`.
#[derive(Debug, Clone)]
pub enum Created {
    /// Stored; the version is the new one.
    Done(Version),
    /// That sid exists already.
    Exists,
}

/// The answer to `update` and `destroy_if`.
#[derive(Debug, Clone)]
pub enum Swapped {
    /// Stored (or destroyed); the version is the new one (for `destroy_if`: the one that was compared).
    Done(Version),
    /// Somebody else wrote in between: this is what is stored now.
    Conflict(Box<Lookup>),
    /// Gone.
    Absent,
}

/// The answer to `touch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// Extended.
    Done,
    /// Gone.
    Absent,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum VersionKind {
    /// memory, embedded: a number that changes with every write
    Revision(u64),
    /// mongodb: the exact stored `session` value
    Mongo(Arc<bson::RawBson>),
    /// redis, file: the exact stored text
    Text(Arc<str>),
}

/// What all workers of the process share: the data of `memory`, the file of `embedded`, the settings of `mongodb`.
pub struct SharedStore(Shared);

enum Shared {
    Memory(Arc<Memory>),
    Embedded(Arc<Embedded>),
    Mongodb(Arc<MongoShared>),
    Redis(Arc<RedisShared>),
    File(Arc<FilesShared>),
}

/// One worker's door to the store. Cheap to clone; stays in the worker's thread.
#[derive(Clone)]
pub struct Store(Backend);

#[derive(Clone)]
enum Backend {
    Memory(Arc<Memory>),
    Embedded(Arc<Embedded>),
    Mongodb(Rc<Mongo>),
    Redis(Rc<Redis>),
    File(Rc<Files>),
}

/// Is this a MongoDB URL that the driver takes? For the configuration's check: connects to nothing.
///
/// # Errors
/// What is wrong with it; the text never holds the URL's password.
pub fn check_mongodb_url(url: &str) -> Result<(), String> {
    mongo::check_url(url)
}

/// Is this a Redis URL that the driver takes? For the configuration's check: connects to nothing.
///
/// # Errors
/// What is wrong with it; the text never holds the URL's password.
pub fn check_redis_url(url: &str) -> Result<(), String> {
    redis::check_url(url)
}

impl SharedStore {
    /// Opens the store. A store that is not reachable is no error (readiness tells).
    ///
    /// # Errors
    /// A text for the operator: a file that cannot be opened, or a URL that is none. It never holds the URL's password.
    pub fn open(options: StoreOptions) -> Result<Self, String> {
        let StoreOptions { kind, deadline, max_payload } = options;
        Ok(Self(match kind {
            StoreKind::Memory { max_bytes } => Shared::Memory(Arc::new(Memory::new(max_bytes, max_payload))),
            StoreKind::Embedded { path } => {
                Shared::Embedded(Arc::new(Embedded::open(&path, deadline, max_payload)?))
            }
            StoreKind::Mongodb(mongo) => {
                Shared::Mongodb(Arc::new(MongoShared::new(mongo, deadline, max_payload)?))
            }
            StoreKind::Redis(redis) => {
                Shared::Redis(Arc::new(RedisShared::new(redis, deadline, max_payload)?))
            }
            StoreKind::File(files) => {
                Shared::File(Arc::new(FilesShared::open(files, deadline, max_payload)?))
            }
        }))
    }

    /// A worker's handle; call it inside that worker's tokio runtime.
    pub fn attach(&self, drain: &Drain) -> Store {
        Store(match &self.0 {
            Shared::Memory(memory) => Backend::Memory(Arc::clone(memory)),
            Shared::Embedded(embedded) => Backend::Embedded(Arc::clone(embedded)),
            Shared::Mongodb(shared) => Backend::Mongodb(Mongo::attach(shared, drain)),
            Shared::Redis(shared) => Backend::Redis(Redis::attach(shared, drain)),
            Shared::File(shared) => Backend::File(Files::attach(shared, drain)),
        })
    }

    /// Flushes and closes: touches that are still in memory reach the disk, and the file's lock is released. Blocks for the
    /// length of one disk write. What a worker asks for afterwards fails as `Unreachable`.
    pub fn close(&self) {
        if let Shared::Embedded(embedded) = &self.0 {
            embedded.close();
        }
    }
}

impl Store {
    /// Reads a session. Concurrent loads are coalesced where that saves round trips.
    ///
    /// # Errors
    /// [`StoreError`] when the store gave no answer; absent and unreadable are values.
    pub async fn load(&self, sid: &Sid, now: Millis) -> Result<Lookup, StoreError> {
        match &self.0 {
            Backend::Memory(memory) => Ok(memory.load(sid, now)),
            Backend::Embedded(embedded) => embedded.load(sid, now),
            Backend::Mongodb(mongo) => mongo.load(sid, now).await,
            Backend::Redis(redis) => redis.load(sid, now).await,
            Backend::File(files) => files.load(sid, now).await,
        }
    }

    /// Stores a new session.
    ///
    /// # Errors
    /// [`StoreError`] when it is not known to be stored.
    pub async fn create(
        &self,
        sid: &Sid,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, StoreError> {
        self.create_after(sid, None, record, expires_at, now).await
    }

    /// Stores a new session that goes on from another one, of this version: what both have keeps its stored type (mongodb with
    /// sub-documents: Dates, ObjectIds, binaries that an Express app put there).
    ///
    /// # Errors
    /// As [`Store::create`].
    pub async fn create_after(
        &self,
        sid: &Sid,
        before: Option<&Version>,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, StoreError> {
        match &self.0 {
            Backend::Memory(memory) => memory.create(sid, record, expires_at, now),
            Backend::Embedded(embedded) => embedded.create(sid, record, expires_at, now).await,
            Backend::Mongodb(mongo) => mongo.create(sid, before, record, expires_at, now).await,
            Backend::Redis(redis) => redis.create(sid, record, expires_at, now).await,
            Backend::File(files) => files.create(sid, record, expires_at, now).await,
        }
    }

    /// Replaces a session if it still is `expected`. When it began (`created_at`) stays as it was.
    ///
    /// # Errors
    /// [`StoreError`] when it is not known to be stored.
    pub async fn update(
        &self,
        sid: &Sid,
        expected: &Version,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        match &self.0 {
            Backend::Memory(memory) => memory.update(sid, expected, record, expires_at, now),
            Backend::Embedded(embedded) => embedded.update(sid, expected, record, expires_at, now).await,
            Backend::Mongodb(mongo) => mongo.update(sid, expected, record, expires_at, now).await,
            Backend::Redis(redis) => redis.update(sid, expected, record, expires_at, now).await,
            Backend::File(files) => files.update(sid, expected, record, expires_at, now).await,
        }
    }

    /// Extends a session, data unchanged. A session that was saved since it was loaded keeps the expiry of that save, which may
    /// be of another length.
    ///
    /// # Errors
    /// [`StoreError`] when it is not known to be extended.
    pub async fn touch(
        &self,
        sid: &Sid,
        loaded: &Loaded,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Touched, StoreError> {
        match &self.0 {
            Backend::Memory(memory) => Ok(memory.touch(sid, &loaded.version, expires_at, now)),
            Backend::Embedded(embedded) => embedded.touch(sid, &loaded.version, expires_at, now),
            Backend::Mongodb(mongo) => mongo.touch(sid, loaded, expires_at, now).await,
            Backend::Redis(redis) => redis.touch(sid, loaded, expires_at, now).await,
            Backend::File(files) => files.touch(sid, loaded, expires_at, now).await,
        }
    }

    /// Deletes a session; `true` if there was one (one that has expired and is not swept yet may count).
    ///
    /// # Errors
    /// [`StoreError`] when it is not known to be gone.
    pub async fn destroy(&self, sid: &Sid) -> Result<bool, StoreError> {
        match &self.0 {
            Backend::Memory(memory) => Ok(memory.destroy(sid)),
            Backend::Embedded(embedded) => embedded.destroy(sid).await,
            Backend::Mongodb(mongo) => mongo.destroy(sid).await,
            Backend::Redis(redis) => redis.destroy(sid).await,
            Backend::File(files) => files.destroy(sid).await,
        }
    }

    /// Deletes a session if it still is `expected`. Waits for the store's own answer for 15 deadlines, where all other operations
    /// wait for one: whoever gives a session a new sid has to know what became of the old one. The caller bounds its own wait.
    ///
    /// # Errors
    /// [`StoreError`] when it is not known to be gone.
    pub async fn destroy_if(
        &self,
        sid: &Sid,
        expected: &Version,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        match &self.0 {
            Backend::Memory(memory) => Ok(memory.destroy_if(sid, expected, now)),
            Backend::Embedded(embedded) => embedded.destroy_if(sid, expected, now).await,
            Backend::Mongodb(mongo) => mongo.destroy_if(sid, expected, now).await,
            Backend::Redis(redis) => redis.destroy_if(sid, expected, now).await,
            Backend::File(files) => files.destroy_if(sid, expected, now).await,
        }
    }

    /// Is the store there, and would it take a write?
    ///
    /// # Errors
    /// [`StoreError`] when it is not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match &self.0 {
            Backend::Memory(_) => Ok(()),
            Backend::Embedded(embedded) => embedded.ping(),
            Backend::Mongodb(mongo) => mongo.ping().await,
            Backend::Redis(redis) => redis.ping().await,
            Backend::File(files) => files.ping().await,
        }
    }
}

/// What is said of a payload above `limits.session`.
pub(crate) const TOO_LARGE: &str = "larger than limits.session";
