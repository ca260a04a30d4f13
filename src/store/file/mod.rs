//! A directory in session-file-store's format, shared with an Express app that is running.
//!
//! Every change reads, compares and replaces a file under a lock, so no two sidecars on a directory, nor two workers, overwrite
//! each other unseen. **Node takes no such lock.** So the new file is written and synced first; directly before its rename the old one
//! is looked at once more, and if it is another one now, all begins anew. What an Express app writes between that look and the rename
//! is overwritten, as its own writes overwrite ours, and a file that it deletes there comes back. That is some 10 µs (measured on ext4
//! by what was lost: 122 of 5,223 saves while 60,000 replacements were made without a pause), longer only for a thread that the
//! system sets aside just there. The sidecar and the app have to run as the same user: new files have mode 0600, as a session is
//! nobody else's business, where session-file-store leaves it to the umask.
//!
//! The format has no field for the end of a session: it follows from the last access and the session's max age (or `ttl`), so what a
//! caller says of the end is what is read again only as far as it is that sum, which it is by the rules of `session::lifecycle`.
//!
//! Disk work blocks and may hang (NFS), so none of it is done on the worker's thread. A read of a small file takes 7 µs there and 17 µs
//! by way of another thread, but a single read that hangs there would take all of the worker's sessions with it. So many operations
//! may be at the disk and so many under way; beyond that their callers wait for a place, as long as the deadline allows. A change that
//! is under way is finished although its caller has gone.
//!
//! Must not know the other stores. Tests: `tests/it/store_conformance/file.rs`, and beside each file.

mod directory;
mod disk;
mod document;
mod draft;
mod name;
mod reap;

use super::error::{Kind, Op};
use super::place::place;
use super::{
    Created, FileOptions, Loaded, Lookup, SETTLE_DEADLINES, StoreError, Swapped, TOO_LARGE, Touched, Version,
};
use crate::drain::Drain;
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use directory::Directory;
use disk::Disk;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Reads of the process that may be at the disk at once. Their threads are not those of the changes: a lock that another sidecar
/// does not give back stops no read.
const READING: usize = 16;
/// Changes that may be at the disk at once; file systems sync many of them in one go.
const CHANGING: usize = 32;
/// Operations of either kind under way, those included that wait for one of those threads.
const OUTSTANDING: usize = 1024;

/// What the workers have in common: the directory, and how many may be at its disk.
pub(crate) struct FilesShared {
    directory: Arc<Directory>,
    deadline: Duration,
    reap_interval: Option<Duration>,
    /// Set by the first worker: one reaper for the whole process is enough.
    reaping: AtomicBool,
    reads: Lane,
    changes: Lane,
}

/// One worker's door to the directory.
pub(crate) struct Files {
    shared: Arc<FilesShared>,
    drain: Drain,
}

/// How many operations may be under way, and how many of them at the disk.
struct Lane {
    outstanding: Arc<Semaphore>,
    threads: Arc<Semaphore>,
}

impl FilesShared {
    /// Blocks: the directory is made, or looked at.
    pub(crate) fn open(options: FileOptions, deadline: Duration, max_payload: usize) -> Result<Self, String> {
        let FileOptions { path, ttl, reap_interval } = options;
        let disk = Disk::open(path, max_payload.saturating_add(document::ALLOWANCE))?;
        Ok(Self {
            directory: Arc::new(Directory { disk, ttl, max_payload }),
            deadline,
            reap_interval,
            reaping: AtomicBool::new(false),
            reads: Lane::new(READING),
            changes: Lane::new(CHANGING),
        })
    }
}

impl Files {
    pub(crate) fn attach(shared: &Arc<FilesShared>, drain: &Drain) -> Rc<Self> {
        let files = Rc::new(Self { shared: Arc::clone(shared), drain: drain.clone() });
        reap::start(&files);
        files
    }

    pub(crate) async fn load(self: &Rc<Self>, sid: &Sid, now: Millis) -> Result<Lookup, StoreError> {
        let Some(name) = name::of(sid) else { return Ok(Lookup::Absent) };
        let (directory, reads) = (Arc::clone(&self.shared.directory), &self.shared.reads);
        let until = Instant::now() + self.shared.deadline;
        let place = place(&reads.outstanding, Op::Load, until).await?;
        let reading = reads.run(Op::Load, place, move || directory.load(&name, now));
        match timeout_at(until, reading).await {
            Ok(found) => found,
            Err(_) => Err(late(Op::Load)),
        }
    }

    pub(crate) async fn create(
        self: &Rc<Self>,
        sid: &Sid,
        record: &Record,
        _expires_at: Millis,
        now: Millis,
    ) -> Result<Created, StoreError> {
        let Some(name) = name::of(sid) else {
            let why = "a session id that is no file name; those that cloakroom makes are";
            return Err(StoreError::new(Op::Create, Kind::Refused, why));
        };
        let record = self.fitting(Op::Create, record)?;
        self.change(Op::Create, move |directory| directory.create(&name, &record, now)).await
    }

    pub(crate) async fn update(
        self: &Rc<Self>,
        sid: &Sid,
        expected: &Version,
        record: &Record,
        _expires_at: Millis,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        let Some(name) = name::of(sid) else { return Ok(Swapped::Absent) };
        let record = self.fitting(Op::Update, record)?;
        let expected = expected.clone();
        self.change(Op::Update, move |directory| directory.update(&name, &expected, &record, now)).await
    }

    pub(crate) async fn touch(
        self: &Rc<Self>,
        sid: &Sid,
        loaded: &Loaded,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Touched, StoreError> {
        let Some(name) = name::of(sid) else { return Ok(Touched::Absent) };
        let loaded = loaded.version.clone();
        self.change(Op::Touch, move |directory| directory.touch(&name, &loaded, expires_at, now)).await
    }

    pub(crate) async fn destroy(self: &Rc<Self>, sid: &Sid) -> Result<bool, StoreError> {
        let Some(name) = name::of(sid) else { return Ok(false) };
        self.change(Op::Destroy, move |directory| directory.destroy(&name)).await
    }

    pub(crate) async fn destroy_if(
        self: &Rc<Self>,
        sid: &Sid,
        expected: &Version,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        let Some(name) = name::of(sid) else { return Ok(Swapped::Absent) };
        let (patience, expected) = (self.shared.deadline * SETTLE_DEADLINES, expected.clone());
        self.change_within(patience, Op::Destroy, move |directory| {
            directory.destroy_if(&name, &expected, now)
        })
        .await
    }

    pub(crate) async fn ping(self: &Rc<Self>) -> Result<(), StoreError> {
        self.change(Op::Ping, |directory| directory.disk.probe()).await
    }

    fn fitting(&self, op: Op, record: &Record) -> Result<Record, StoreError> {
        if record.payload.as_bytes().len() > self.shared.directory.max_payload {
            return Err(StoreError::new(op, Kind::Refused, TOO_LARGE));
        }
        Ok(record.clone())
    }

    async fn change<T: Send + 'static>(
        &self,
        op: Op,
        work: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.change_within(self.shared.deadline, op, work).await
    }

    /// Does a change in a task that outlives its caller and that the stop waits for.
    async fn change_within<T: Send + 'static>(
        &self,
        patience: Duration,
        op: Op,
        work: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (directory, changes) = (Arc::clone(&self.shared.directory), &self.shared.changes);
        let until = Instant::now() + patience;
        let place = place(&changes.outstanding, op, until).await?;
        let task = self.drain.spawn_local(changes.run(op, place, move || work(&directory)));
        match timeout_at(until, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(ended_early(op)),
            Err(_) => Err(late(op)),
        }
    }
}

impl Lane {
    fn new(threads: usize) -> Self {
        Self {
            outstanding: Arc::new(Semaphore::new(OUTSTANDING)),
            threads: Arc::new(Semaphore::new(threads)),
        }
    }

    /// Work for a thread that may block, once it has a place there. Its permits go with the work, not with whoever waits for it: a
    /// hanging disk holds so many threads and no more.
    fn run<T: Send + 'static>(
        &self,
        op: Op,
        place: OwnedSemaphorePermit,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + 'static {
        let threads = Arc::clone(&self.threads);
        async move {
            // The semaphore is never closed.
            let thread: Option<OwnedSemaphorePermit> = threads.acquire_owned().await.ok();
            let done = tokio::task::spawn_blocking(move || {
                let _places = (place, thread);
                work()
            });
            match done.await {
                Ok(result) => result.map_err(|error| {
                    let (kind, detail) = disk::explain(&error);
                    StoreError::new(op, kind, detail)
                }),
                Err(_) => Err(ended_early(op)),
            }
        }
    }
}

fn late(op: Op) -> StoreError {
    StoreError::new(op, Kind::Timeout, "the disk did not answer within timeouts.store")
}

fn ended_early(op: Op) -> StoreError {
    StoreError::new(op, Kind::Refused, "the operation's task ended early")
}
