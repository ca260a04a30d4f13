//! The default store: one crash-safe file (redb), no server needed.
//!
//! Reads are done by the worker that asks, straight from the file's pages; every change goes through one writer thread that
//! commits in groups. What was answered `Done` is on disk, with one exception: **a touch is not synced by itself**. Extensions are
//! written once a second and at a clean stop, so a kill or a power cut may lose the last second of *extensions*, never data.
//!
//! Must not know the other stores. Tests: `tests/it/store_conformance.rs`, and `tests.rs` beside this file for disk errors.

mod file;
mod row;
pub(super) mod survey;
#[cfg(test)]
mod tests;
mod touches;
mod writer;

use super::error::{Kind, Op};
use super::{
    Created, Lookup, SETTLE_DEADLINES, StoreError, Swapped, TOO_LARGE, Touched, Version, VersionKind,
};
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use redb::Database;
use row::Head;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use touches::{Touch, Touches};
use writer::{Change, Job, Message, OpenFile, Outcome, Writer};

/// Changes that may wait for the writer; beyond them the answer is `Overloaded` at once.
const QUEUE: usize = 4096;

pub(crate) struct Embedded {
    inner: Arc<Inner>,
    queue: SyncSender<Message>,
    writer: Mutex<Option<JoinHandle<()>>>,
    deadline: Duration,
}

/// What readers and the writer share.
struct Inner {
    /// `None` while the file could not be opened again after an error, and after the close.
    database: RwLock<Option<Database>>,
    touches: Touches,
    /// The last transaction failed: an extension would never reach the disk.
    failing: AtomicBool,
    max_payload: usize,
}

impl Embedded {
    pub(crate) fn open(path: &Path, deadline: Duration, max_payload: usize) -> Result<Self, String> {
        let path = path.to_owned();
        Self::open_with(Box::new(move || file::open(&path)), deadline, max_payload)
    }

    fn open_with(open: OpenFile, deadline: Duration, max_payload: usize) -> Result<Self, String> {
        let database = open()?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| format!("the system has no randomness: {error}"))?;
        let inner = Arc::new(Inner {
            database: RwLock::new(Some(database)),
            touches: Touches::new(),
            failing: AtomicBool::new(false),
            max_payload,
        });
        let (queue, jobs) = sync_channel(QUEUE);
        let writer = Writer::new(Arc::clone(&inner), jobs, open, u64::from_le_bytes(seed));
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| format!("store: no thread for the writer: {error}"))?;
        Ok(Self { inner, queue, writer: Mutex::new(Some(thread)), deadline })
    }

    pub(crate) fn load(&self, sid: &Sid, now: Millis) -> Result<Lookup, StoreError> {
        let touch = self.inner.touches.find(sid);
        let max = self.inner.max_payload;
        self.inner
            .read(Op::Load, sid, |row| row.map_or(Lookup::Absent, |row| row::lookup(row, touch, now, max)))
    }

    pub(crate) async fn create(
        &self,
        sid: &Sid,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, StoreError> {
        self.check_size(Op::Create, record)?;
        let change = Change::Create { record: record.clone(), expires_at, now };
        match self.submit(Op::Create, sid, change).await? {
            Outcome::Created(created) => Ok(created),
            _ => Err(mismatch(Op::Create)),
        }
    }

    pub(crate) async fn update(
        &self,
        sid: &Sid,
        expected: &Version,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        self.check_size(Op::Update, record)?;
        let change = Change::Update { expected: expected.clone(), record: record.clone(), expires_at, now };
        match self.submit(Op::Update, sid, change).await? {
            Outcome::Swapped(swapped) => Ok(swapped),
            _ => Err(mismatch(Op::Update)),
        }
    }

    /// Extends in memory only; the writer carries it to the disk within a second.
    pub(crate) fn touch(
        &self,
        sid: &Sid,
        loaded: &Version,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Touched, StoreError> {
        if self.inner.failing.load(Ordering::Acquire) {
            return Err(StoreError::new(Op::Touch, Kind::Refused, "the session file cannot be written"));
        }
        let touch = self.inner.touches.find(sid);
        let head = self.inner.read(Op::Touch, sid, |row| row.map(Head::parse))?;
        match head {
            Some(Ok(head)) if head.touched(touch).expires_at > now => {
                // Saved since: that gave it a fresh expiry, perhaps of another length.
                if *loaded == Version(VersionKind::Revision(head.revision)) {
                    let touch = Touch { revision: head.revision, expires_at, touched_at: now };
                    self.inner.touches.insert(sid, touch);
                }
                Ok(Touched::Done)
            }
            _ => Ok(Touched::Absent),
        }
    }

    pub(crate) async fn destroy(&self, sid: &Sid) -> Result<bool, StoreError> {
        match self.submit(Op::Destroy, sid, Change::Destroy).await? {
            Outcome::Destroyed(there) => Ok(there),
            _ => Err(mismatch(Op::Destroy)),
        }
    }

    pub(crate) async fn destroy_if(
        &self,
        sid: &Sid,
        expected: &Version,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        let change = Change::DestroyIf { expected: expected.clone(), now };
        let patience = self.deadline * SETTLE_DEADLINES;
        match self.submit_within(patience, Op::Destroy, sid, change).await? {
            Outcome::Swapped(swapped) => Ok(swapped),
            _ => Err(mismatch(Op::Destroy)),
        }
    }

    pub(crate) fn ping(&self) -> Result<(), StoreError> {
        if self.inner.is_failing() {
            return Err(StoreError::new(Op::Ping, Kind::Refused, "the session file cannot be written"));
        }
        match self.inner.database().as_ref() {
            Some(_) => Ok(()),
            None => Err(not_open(Op::Ping)),
        }
    }

    /// Everything that was queued, and every extension, is on disk when this returns; the file's lock is free.
    pub(crate) fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        // A full queue is being worked off; a writer that is gone needs no word.
        self.queue.send(Message::Close).ok();
        if writer.join().is_err() {
            tracing::error!("the session file's writer panicked");
        }
    }

    fn check_size(&self, op: Op, record: &Record) -> Result<(), StoreError> {
        if record.payload.as_bytes().len() > self.inner.max_payload {
            return Err(StoreError::new(op, Kind::Refused, TOO_LARGE));
        }
        Ok(())
    }

    async fn submit(&self, op: Op, sid: &Sid, change: Change) -> Result<Outcome, StoreError> {
        self.submit_within(self.deadline, op, sid, change).await
    }

    async fn submit_within(
        &self,
        patience: Duration,
        op: Op,
        sid: &Sid,
        change: Change,
    ) -> Result<Outcome, StoreError> {
        let (answer, outcome) = oneshot::channel();
        let job = Job { op, sid: sid.clone(), change, answer };
        match self.queue.try_send(Message::Job(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(StoreError::new(op, Kind::Overloaded, "too many changes wait for the disk"));
            }
            Err(TrySendError::Disconnected(_)) => return Err(not_open(op)),
        }
        match tokio::time::timeout(patience, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(not_open(op)),
            Err(_) => Err(StoreError::new(op, Kind::Timeout, "the disk did not answer in time")),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn database_mut(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.database.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Release);
    }

    fn read<T>(&self, op: Op, sid: &Sid, take: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, StoreError> {
        let guard = self.database();
        let database = guard.as_ref().ok_or_else(|| not_open(op))?;
        file::read(database, sid.as_str(), take)
            .map_err(|error| StoreError::new(op, Kind::Unreachable, error.to_string()))
    }

    /// A header as it stands with the extension that waits for it; `None` for no row and for one that cannot be read.
    fn head(&self, sid: &Sid, parsed: Option<Result<Head, String>>) -> Option<Head> {
        parsed?.ok().map(|head| head.touched(self.touches.find(sid)))
    }
}

fn not_open(op: Op) -> StoreError {
    StoreError::new(op, Kind::Unreachable, "the session file is not open")
}

// The writer answers a change with the outcome of its kind; anything else is a bug of ours.
fn mismatch(op: Op) -> StoreError {
    StoreError::new(op, Kind::Refused, "the writer gave the answer to another question")
}
