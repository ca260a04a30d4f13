//! `auto_remove`: how expired documents leave the collection. One task of the process, in the background.
//!
//! Nothing here stops or delays anything: a server that is down is tried again, rights that are missing and an index that differs
//! are said once. Expiry itself never depends on it, every read checks. Tests: `tests/it/store_conformance.rs`.

use super::super::AutoRemove;
use super::fault::{self, Fault};
use super::ttl::{self, State};
use super::{Mongo, date};
use bson::{Bson, Document, doc};
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Starts the housekeeping, unless another worker of this process has it.
///
/// The loop itself is not tracked: the stop must not wait for something that never ends. Its driver calls are.
pub(super) fn start(mongo: &Rc<Mongo>) {
    let shared = &mongo.shared;
    let mode = shared.options.auto_remove;
    if mode == AutoRemove::Disabled || shared.housekeeping.swap(true, Ordering::AcqRel) {
        return;
    }
    let mongo = Rc::downgrade(mongo);
    tokio::task::spawn_local(async move {
        match mode {
            AutoRemove::Native => keep_index(mongo).await,
            AutoRemove::Interval(pause) => keep_removing(mongo, pause).await,
            AutoRemove::Disabled => {}
        }
    });
}

async fn keep_index(mongo: Weak<Mongo>) {
    let mut pause = FIRST_PAUSE;
    while let Some(mongo) = mongo.upgrade() {
        let task = Rc::clone(&mongo);
        let made = mongo.drain.spawn_local(async move { task.make_index().await }).await;
        match made {
            Ok(Ok(())) | Err(_) => return,
            Ok(Err(fault)) if is_final(&fault) => {
                let found = mongo.drain.spawn_local(Rc::clone(&mongo).look_at_indexes()).await;
                report(&mongo, &fault, found.ok());
                return;
            }
            Ok(Err(fault)) => {
                let (_, why) = fault.explain();
                let why = fault::masked(&mongo.shared.options.url, &why);
                tracing::debug!(%why, "the TTL index cannot be made yet");
            }
        }
        drop(mongo);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn keep_removing(mongo: Weak<Mongo>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(mongo) = mongo.upgrade() else { return };
        let task = Rc::clone(&mongo);
        let removed = mongo.drain.spawn_local(async move { task.remove_expired().await }).await;
        if let Ok(Err(fault)) = removed {
            let (_, why) = fault.explain();
            tracing::warn!(why = %fault::masked(&mongo.shared.options.url, &why), "expired sessions cannot be removed");
        }
    }
}

/// Says once what is wrong, unless there is an index that does the work.
fn report(mongo: &Mongo, refusal: &Fault, found: Option<Result<State, Fault>>) {
    let (_, why) = refusal.explain();
    let why = fault::masked(&mongo.shared.options.url, &why);
    let found = match found {
        Some(Ok(State::Works)) => {
            tracing::debug!(%why, "the TTL index is there, made by somebody else");
            return;
        }
        Some(Ok(State::Differs(how))) => how,
        Some(Ok(State::Missing)) => "no index on expires".to_owned(),
        Some(Err(_)) | None => "the indexes cannot be listed either".to_owned(),
    };
    tracing::warn!(
        collection = %mongo.shared.options.collection,
        %why,
        wanted = ttl::WANTED,
        %found,
        "auto_remove = \"native\" cannot make its TTL index; expired sessions may stay stored, they are never served"
    );
}

/// Rights are missing, or an index with other options has that key or that name: trying again changes nothing.
fn is_final(fault: &Fault) -> bool {
    match fault {
        // Unauthorized, CannotCreateIndex, IndexOptionsConflict, IndexKeySpecsConflict, InvalidOptions, Atlas' own refusal
        Fault::Driver(error) => matches!(fault::code(error), Some(13 | 67 | 72 | 85 | 86 | 8000)),
        Fault::Bson | Fault::Bug(_) => true,
    }
}

impl Mongo {
    /// Word for word what connect-mongo's `createIndex` sends; making it again is no change.
    async fn make_index(&self) -> Result<(), Fault> {
        let command = doc! {
            "createIndexes": &self.shared.options.collection,
            "indexes": [{ "key": { "expires": 1 }, "name": ttl::NAME, "background": true, "expireAfterSeconds": 0 }],
        };
        self.handles().await?.database.run_command(command).await?;
        Ok(())
    }

    /// What there is, whoever made it. It may be readable for somebody who may not create.
    async fn look_at_indexes(self: Rc<Self>) -> Result<State, Fault> {
        let command = doc! { "listIndexes": &self.shared.options.collection };
        let reply = match self.handles().await?.database.run_command(command).await {
            Ok(reply) => reply,
            // NamespaceNotFound: nobody has stored anything yet.
            Err(error) if fault::code(&error) == Some(26) => return Ok(State::Missing),
            Err(error) => return Err(error.into()),
        };
        // A collection has 64 indexes at most, and the first batch is longer.
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let indexes =
            batch.map(|batch| batch.iter().filter_map(Bson::as_document).cloned().collect::<Vec<_>>());
        Ok(ttl::state(&indexes.unwrap_or_default()))
    }

    async fn remove_expired(&self) -> Result<(), Fault> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let expired: Document = doc! { "expires": { "$lt": date(now) } };
        self.handles().await?.sessions.delete_many(expired).await?;
        Ok(())
    }
}
