//! The one thread that writes: it takes all that is queued, applies it in one transaction, commits with one sync, answers all.
//!
//! Compare-and-swap is decided inside that transaction, so two workers can never both win. A commit that fails (full disk, I/O
//! error) answers everybody of its batch `Refused`, opens the file again and goes on. Once a second the extensions in
//! [`Touches`](super::touches::Touches) are written and a few rows are swept. Tests: here, and `tests/it/store_conformance.rs`.

use super::super::error::{Kind, Op};
use super::super::{Created, StoreError, Swapped, Version, VersionKind};
use super::Inner;
use super::file::SESSIONS;
use super::row::{self, Head};
use super::touches::Touch;
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Jobs of one transaction.
const BATCH: usize = 512;
/// How long an extension may wait for the disk.
const TICK: Duration = Duration::from_secs(1);
/// Extensions of one transaction; more follow in the next.
const TOUCHES_PER_TURN: usize = 4096;
/// Rows looked at by one turn of the sweeper.
const SWEEP_ROWS: usize = 512;
/// The pause between two walks through the whole table.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);
/// An expired row stays this long, so that the sweeper never races a touch of the last moment.
const SWEEP_GRACE: Millis = 10_000;

pub(super) type OpenFile = Box<dyn Fn() -> Result<Database, String> + Send>;
type Row<'a> = Table<'a, &'static str, &'static [u8]>;

pub(super) enum Message {
    Job(Job),
    Close,
}

pub(super) struct Job {
    pub(super) op: Op,
    pub(super) sid: Sid,
    pub(super) change: Change,
    pub(super) answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

pub(super) enum Change {
    Create { record: Record, expires_at: Millis, now: Millis },
    Update { expected: Version, record: Record, expires_at: Millis, now: Millis },
    Destroy,
    DestroyIf { expected: Version, now: Millis },
}

pub(super) enum Outcome {
    Created(Created),
    Swapped(Swapped),
    Destroyed(bool),
}

pub(super) struct Writer {
    inner: Arc<Inner>,
    queue: Receiver<Message>,
    open: OpenFile,
    /// Starts at a random place at each start, so that no revision of a sid ever comes back.
    revision: u64,
    sweep_from: Option<String>,
    sweep_at: Instant,
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>, queue: Receiver<Message>, open: OpenFile, revision: u64) -> Self {
        Self { inner, queue, open, revision, sweep_from: None, sweep_at: Instant::now() }
    }

    /// Runs until it is told to close, or until nobody can ask any more.
    pub(super) fn run(mut self) {
        let mut next_tick = Instant::now() + TICK;
        let mut closing = false;
        while !closing {
            let mut jobs = Vec::new();
            match self.queue.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(Message::Job(job)) => jobs.push(job),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => closing = true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while !closing && jobs.len() < BATCH {
                match self.queue.try_recv() {
                    Ok(Message::Job(job)) => jobs.push(job),
                    Ok(Message::Close) => closing = true,
                    Err(_) => break,
                }
            }
            let due = closing || Instant::now() >= next_tick;
            let more = self.turn(jobs, due);
            if due && !more {
                next_tick = Instant::now() + TICK;
            }
        }
        while self.turn(Vec::new(), true) {}
        drop(self.inner.database_mut().take());
    }

    /// One transaction, if there is anything to write. `true`: more extensions wait.
    fn turn(&mut self, jobs: Vec<Job>, due: bool) -> bool {
        let touches = if due { self.inner.touches.waiting(TOUCHES_PER_TURN) } else { Vec::new() };
        let more = touches.len() == TOUCHES_PER_TURN;
        let swept = if due { self.find_expired() } else { Vec::new() };
        let probe = due && self.inner.is_failing();
        if jobs.is_empty() && touches.is_empty() && swept.is_empty() && !probe {
            return false;
        }
        // A panic inside redb (a damaged page) must not end the only writer.
        let result = catch_unwind(AssertUnwindSafe(|| self.commit(&jobs, &touches, &swept)))
            .unwrap_or_else(|_| Err("redb panicked".to_owned()));
        match result {
            Ok(outcomes) => {
                self.inner.touches.forget(&touches);
                self.inner.set_failing(false);
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    // The caller may have gone; the write stands.
                    job.answer.send(Ok(outcome)).ok();
                }
                more
            }
            Err(why) => {
                if !self.inner.is_failing() {
                    tracing::error!(%why, "the session file cannot be written");
                }
                self.inner.set_failing(true);
                for job in jobs {
                    job.answer.send(Err(StoreError::new(job.op, Kind::Refused, why.clone()))).ok();
                }
                self.reopen();
                false
            }
        }
    }

    fn commit(
        &mut self,
        jobs: &[Job],
        touches: &[(Sid, Touch)],
        swept: &[Sid],
    ) -> Result<Vec<Outcome>, String> {
        if self.inner.database().is_none() {
            self.reopen();
        }
        let inner = Arc::clone(&self.inner);
        let guard = inner.database();
        let database = guard.as_ref().ok_or("the file is not open")?;
        self.write(database, jobs, touches, swept).map_err(|error| error.to_string())
    }

    fn write(
        &mut self,
        database: &Database,
        jobs: &[Job],
        touches: &[(Sid, Touch)],
        swept: &[Sid],
    ) -> Result<Vec<Outcome>, redb::Error> {
        let mut txn = database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        let mut outcomes = Vec::with_capacity(jobs.len());
        {
            let mut table = txn.open_table(SESSIONS)?;
            for (sid, touch) in touches {
                extend(&mut table, sid, *touch)?;
            }
            for job in jobs {
                outcomes.push(self.apply(&mut table, job)?);
            }
            let now = clock() - SWEEP_GRACE;
            for sid in swept {
                if self
                    .inner
                    .head(sid, table.get(sid.as_str())?.map(|row| Head::parse(row.value())))
                    .is_some_and(|head| head.expires_at <= now)
                {
                    table.remove(sid.as_str())?;
                }
            }
        }
        txn.commit()?;
        Ok(outcomes)
    }

    fn apply(&mut self, table: &mut Row<'_>, job: &Job) -> Result<Outcome, redb::Error> {
        let sid = job.sid.as_str();
        match &job.change {
            Change::Create { record, expires_at, now } => {
                let taken = match table.get(sid)? {
                    None => false,
                    Some(row) => match Head::parse(row.value()) {
                        Ok(head) => head.touched(self.inner.touches.find(&job.sid)).expires_at > *now,
                        // Something that cannot be read is never overwritten.
                        Err(_) => true,
                    },
                };
                if taken {
                    return Ok(Outcome::Created(Created::Exists));
                }
                let created_at = record.created_at.or(Some(*now));
                let version = self.put(table, sid, record, created_at, *expires_at, *now)?;
                Ok(Outcome::Created(Created::Done(version)))
            }
            Change::Update { expected, record, expires_at, now } => {
                let created_at = match self.compare(table, &job.sid, expected, *now)? {
                    Ok(head) => head.created_at,
                    Err(swapped) => return Ok(Outcome::Swapped(swapped)),
                };
                let version = self.put(table, sid, record, created_at, *expires_at, *now)?;
                Ok(Outcome::Swapped(Swapped::Done(version)))
            }
            Change::Destroy => Ok(Outcome::Destroyed(table.remove(sid)?.is_some())),
            Change::DestroyIf { expected, now } => {
                if let Err(swapped) = self.compare(table, &job.sid, expected, *now)? {
                    return Ok(Outcome::Swapped(swapped));
                }
                table.remove(sid)?;
                Ok(Outcome::Swapped(Swapped::Done(expected.clone())))
            }
        }
    }

    /// The header of the row if it still is `expected`; else what the caller is told.
    fn compare(
        &self,
        table: &Row<'_>,
        sid: &Sid,
        expected: &Version,
        now: Millis,
    ) -> Result<Result<Head, Swapped>, redb::Error> {
        let Some(row) = table.get(sid.as_str())? else {
            return Ok(Err(Swapped::Absent));
        };
        let touch = self.inner.touches.find(sid);
        Ok(match Head::parse(row.value()).map(|head| head.touched(touch)) {
            Ok(head) if head.expires_at <= now => Err(Swapped::Absent),
            Ok(head) if Version(VersionKind::Revision(head.revision)) == *expected => Ok(head),
            _ => {
                Err(Swapped::Conflict(Box::new(row::lookup(row.value(), touch, now, self.inner.max_payload))))
            }
        })
    }

    fn put(
        &mut self,
        table: &mut Row<'_>,
        sid: &str,
        record: &Record,
        created_at: Option<Millis>,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Version, redb::Error> {
        self.revision = self.revision.wrapping_add(1);
        let head = Head::of(record, created_at, expires_at, now, self.revision);
        table.insert(sid, head.render(record.payload.as_bytes()).as_slice())?;
        Ok(Version(VersionKind::Revision(self.revision)))
    }

    /// Walks on through the table and returns what ended some time ago. Reading only; what is removed is looked at again.
    fn find_expired(&mut self) -> Vec<Sid> {
        if Instant::now() < self.sweep_at {
            return Vec::new();
        }
        let inner = Arc::clone(&self.inner);
        let guard = inner.database();
        let Some(database) = guard.as_ref() else { return Vec::new() };
        let found = sweep_page(&inner, database, self.sweep_from.as_deref());
        match found {
            Ok((expired, next)) => {
                if next.is_none() {
                    self.sweep_at = Instant::now() + SWEEP_PAUSE;
                }
                self.sweep_from = next;
                expired
            }
            Err(error) => {
                tracing::warn!(%error, "the session file cannot be swept");
                self.sweep_at = Instant::now() + SWEEP_PAUSE;
                Vec::new()
            }
        }
    }

    /// redb refuses everything after an I/O error until the file is opened anew.
    fn reopen(&self) {
        let mut database = self.inner.database_mut();
        // The old one holds the lock on the file.
        drop(database.take());
        match (self.open)() {
            Ok(fresh) => *database = Some(fresh),
            Err(why) => tracing::error!(%why, "the session file cannot be opened again"),
        }
    }
}

fn extend(table: &mut Row<'_>, sid: &Sid, touch: Touch) -> Result<(), redb::Error> {
    let fresh = match table.get(sid.as_str())? {
        Some(row) => match Head::parse(row.value()) {
            Ok(head) if head.revision == touch.revision => {
                head.touched(Some(touch)).render(row::payload(row.value()))
            }
            _ => return Ok(()),
        },
        None => return Ok(()),
    };
    table.insert(sid.as_str(), fresh.as_slice())?;
    Ok(())
}

fn sweep_page(
    inner: &Inner,
    database: &Database,
    from: Option<&str>,
) -> Result<(Vec<Sid>, Option<String>), redb::Error> {
    let table = database.begin_read()?.open_table(SESSIONS)?;
    let now = clock() - SWEEP_GRACE;
    let mut expired = Vec::new();
    for (seen, item) in table.range::<&str>(from.unwrap_or("")..)?.enumerate() {
        let (key, row) = item?;
        if seen == SWEEP_ROWS {
            return Ok((expired, Some(key.value().to_owned())));
        }
        let Some(sid) = Sid::from_text(key.value()) else { continue };
        if inner.head(&sid, Some(Head::parse(row.value()))).is_some_and(|head| head.expires_at <= now) {
            expired.push(sid);
        }
    }
    Ok((expired, None))
}

fn clock() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
