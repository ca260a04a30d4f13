//! `auto_remove`: how expired documents leave the collection. One task of the process, in the background.
//!
//! Nothing here stops or delays anything: a server that is down is tried again, rights that are missing and an index that differs
//! are said once. Expiry itself never depends on it, every read checks. Tests: `tests/it/store_conformance.rs`.

use super::super::AutoRemove;
use super::fault::{self, Fault};
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
                let (_, why) = fault.explain();
                let found = mongo.drain.spawn_local(Rc::clone(&mongo).describe_index()).await;
                let found = found.unwrap_or_default();
                tracing::warn!(
                    %why,
                    wanted = "{ expires: 1 }, expireAfterSeconds: 0",
                    %found,
                    "no TTL index of ours on the session collection; expired sessions may stay stored, they are never served"
                );
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
            "indexes": [{ "key": { "expires": 1 }, "name": "expires_1", "background": true, "expireAfterSeconds": 0 }],
        };
        self.handles().await?.database.run_command(command).await?;
        Ok(())
    }

    /// The index that is in the way, for the operator.
    async fn describe_index(self: Rc<Self>) -> String {
        let command = doc! { "listIndexes": &self.shared.options.collection };
        let Ok(handles) = self.handles().await else { return String::new() };
        let Ok(reply) = handles.database.run_command(command).await else { return String::new() };
        let on_expires = |index: &&Bson| {
            let index = index.as_document();
            let key = index.and_then(|index| index.get_document("key").ok());
            key.is_some_and(|key| key.contains_key("expires"))
                || index.is_some_and(|index| index.get_str("name").is_ok_and(|name| name == "expires_1"))
        };
        let indexes = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let found: Vec<String> = indexes
            .map(|indexes| indexes.iter().filter(on_expires).map(ToString::to_string).collect())
            .unwrap_or_default();
        found.join(", ")
    }

    async fn remove_expired(&self) -> Result<(), Fault> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let expired: Document = doc! { "expires": { "$lt": date(now) } };
        self.handles().await?.sessions.delete_many(expired).await?;
        Ok(())
    }
}
