//! Small words for tests of the store.

use cloakroom::session::Millis;
use cloakroom::session::record::Record;
use cloakroom::session::sid::Sid;
use cloakroom::store::{Loaded, Lookup, StoreError};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A directory of its own, gone at the end.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cloakroom-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Runs as a worker does: one thread, `spawn_local`.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

pub(crate) fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

pub(crate) fn sid(text: &str) -> Sid {
    Sid::from_text(text).unwrap()
}

/// A record with these data.
pub(crate) fn record(data: &str) -> Record {
    Record::parse_json(data).unwrap()
}

pub(crate) fn payload(loaded: &Loaded) -> &str {
    std::str::from_utf8(loaded.record.payload.as_bytes()).unwrap()
}

pub(crate) fn live(found: Result<Lookup, StoreError>) -> Loaded {
    match found {
        Ok(Lookup::Live(loaded)) => loaded,
        other => panic!("not live: {other:?}"),
    }
}
