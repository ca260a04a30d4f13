//! Redis keys in connect-redis's format, shared with Express apps that are running: `<prefix><sid>` = the session's JSON, with `EX`.
//!
//! A change that depends on what is stored is one script, which Redis runs in one step: `update` and `destroy_if` compare the whole
//! stored text, so neither another sidecar nor an Express app is overwritten unseen, and nothing vanished comes back. Redis's own clock
//! decides what has expired. A touch is `EXPIRE`, the text stays as it is.
//!
//! A change runs in a task of its own, which the stop waits for, and is sent once: when its answer is lost, nobody knows whether it was
//! done, and that is an error. Reads may be asked twice. The driver's futures may be dropped. All belongs to one worker. When too many
//! changes are under way, the next one waits for a place, as long as its deadline allows.
//!
//! Must not know the other stores. Tests: `tests/it/store_conformance/redis.rs` over a real Redis, and beside each file.

mod fault;
mod line;
mod script;
mod url;
mod value;

use super::error::{Kind, Op};
use super::place::place;
use super::{
    Created, Loaded, Lookup, RedisOptions, SETTLE_DEADLINES, StoreError, Swapped, TOO_LARGE, Touched,
    Version, VersionKind,
};
use crate::drain::Drain;
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use fault::{Fault, checked};
use line::Line;
use redis::{Pipeline, Value, cmd};
use script::Script;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use url::Door;
pub(super) use url::{check_url, client};
use value::{OTHER_TYPE, Reading, seconds};

/// Changes of one worker that may be under way.
const OUTSTANDING: usize = 512;

/// What the workers have in common.
pub(crate) struct RedisShared {
    options: RedisOptions,
    door: Door,
    /// What no message may hold.
    passwords: Vec<String>,
    deadline: Duration,
    reading: Reading,
    /// A key that nobody else has, and that never exists: `ping` would replace it.
    nobody: String,
}

/// One worker's connection.
pub(crate) struct Redis {
    shared: Arc<RedisShared>,
    drain: Drain,
    line: Rc<Line>,
    changes: Arc<Semaphore>,
}

impl RedisShared {
    pub(crate) fn new(options: RedisOptions, deadline: Duration, max_payload: usize) -> Result<Self, String> {
        let door = Door::new(&options, deadline)?;
        let passwords = url::passwords(&options);
        let reading = Reading { max_payload, ttl: options.ttl };
        let random = Sid::random().map_err(|error| format!("no random numbers: {error}"))?;
        let nobody = format!("{}cloakroom:{}", options.prefix, random.as_str());
        Ok(Self { options, door, passwords, deadline, reading, nobody })
    }
}

impl Redis {
    /// Starts this worker's connection in the background; a server that is down is nobody's error yet.
    pub(crate) fn attach(shared: &Arc<RedisShared>, drain: &Drain) -> Rc<Self> {
        let line = Line::new(shared);
        line.connect();
        Rc::new(Self {
            shared: Arc::clone(shared),
            drain: drain.clone(),
            line,
            changes: Arc::new(Semaphore::new(OUTSTANDING)),
        })
    }

    pub(crate) async fn load(self: &Rc<Self>, sid: &Sid, now: Millis) -> Result<Lookup, StoreError> {
        let began = std::time::Instant::now();
        match tokio::time::timeout(self.shared.deadline, self.load_now(sid, now)).await {
            Ok(found) => found.map_err(|fault| self.explain(Op::Load, &fault)),
            Err(_) => Err(self.late(Op::Load, began)),
        }
    }

    pub(crate) async fn create(
        self: &Rc<Self>,
        sid: &Sid,
        record: &Record,
        expires_at: Millis,
        now: Millis,
    ) -> Result<Created, StoreError> {
        let (text, key) = (self.render(Op::Create, record)?, self.key(sid));
        let version = version(&text);
        let left = seconds(expires_at, now);
        let command = if left > 0 {
            cmd("SET").arg(&key).arg(&text).arg("EX").arg(left).arg("NX").take()
        } else {
            // connect-redis stores nothing that has ended already.
            cmd("EXISTS").arg(&key).take()
        };
        let redis = Rc::clone(self);
        self.run(Op::Create, async move {
            match redis.change(&key, &script::one(command)).await? {
                Value::Okay | Value::Int(0) => Ok(Created::Done(version)),
                Value::Nil | Value::Int(_) => Ok(Created::Exists),
                _ => Err(Fault::Odd),
            }
        })
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
        let (text, before) = (self.render(Op::Update, record)?, before(Op::Update, expected)?);
        let (redis, key, left) = (Rc::clone(self), self.key(sid), seconds(expires_at, now).to_string());
        self.run(Op::Update, async move {
            let longest = redis.shared.reading.longest().to_string();
            let answer = redis.call(&script::UPDATE, &key, &[&before, &text, &left, &longest]).await;
            redis.swapped(answer, version(&text), now)
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
        if self.shared.options.disable_touch {
            return self.touch_nothing(sid).await;
        }
        let hash = script::sha1_hex(before(Op::Touch, &loaded.version)?.as_bytes());
        let (redis, key, left) = (Rc::clone(self), self.key(sid), seconds(expires_at, now).to_string());
        self.run(Op::Touch, async move {
            match redis.call(&script::TOUCH, &key, &[&hash, &left]).await {
                Ok(Value::Int(0)) => Ok(Touched::Absent),
                Ok(Value::Int(_)) => Ok(Touched::Done),
                Ok(_) => Err(Fault::Odd),
                // Something else lies there now. It is not ours to prolong.
                Err(fault) if fault.is_wrong_type() => Ok(Touched::Done),
                Err(fault) => Err(fault),
            }
        })
        .await
    }

    /// With `disable_touch`: whether it is there is asked all the same, nobody goes on with a session that is gone.
    async fn touch_nothing(self: &Rc<Self>, sid: &Sid) -> Result<Touched, StoreError> {
        let (redis, command) = (Rc::clone(self), cmd("EXISTS").arg(self.key(sid)).take());
        self.run(Op::Touch, async move {
            match redis.read(&script::one(command)).await?.first() {
                Some(Value::Int(0)) => Ok(Touched::Absent),
                Some(Value::Int(_)) => Ok(Touched::Done),
                _ => Err(Fault::Odd),
            }
        })
        .await
    }

    pub(crate) async fn destroy(self: &Rc<Self>, sid: &Sid) -> Result<bool, StoreError> {
        let (redis, key) = (Rc::clone(self), self.key(sid));
        self.run(Op::Destroy, async move {
            let command = cmd("DEL").arg(&key).take();
            match redis.change(&key, &script::one(command)).await? {
                Value::Int(gone) => Ok(gone > 0),
                _ => Err(Fault::Odd),
            }
        })
        .await
    }

    pub(crate) async fn destroy_if(
        self: &Rc<Self>,
        sid: &Sid,
        expected: &Version,
        now: Millis,
    ) -> Result<Swapped, StoreError> {
        let before = before(Op::Destroy, expected)?;
        let (redis, key, expected) = (Rc::clone(self), self.key(sid), expected.clone());
        self.run_within(self.shared.deadline * SETTLE_DEADLINES, Op::Destroy, async move {
            let longest = redis.shared.reading.longest().to_string();
            let answer = redis.call(&script::DESTROY_IF, &key, &[&before, &longest]).await;
            redis.swapped(answer, expected, now)
        })
        .await
    }

    /// A write that changes nothing: a replica, a Redis that cannot save and one whose memory is full refuse it.
    pub(crate) async fn ping(self: &Rc<Self>) -> Result<(), StoreError> {
        let redis = Rc::clone(self);
        self.run(Op::Ping, async move {
            let command = cmd("SET").arg(&redis.shared.nobody).arg("").arg("XX").take();
            redis.read(&script::one(command)).await.map(drop)
        })
        .await
    }

    async fn load_now(&self, sid: &Sid, now: Millis) -> Result<Lookup, Fault> {
        let (key, reading) = (self.key(sid), self.shared.reading);
        let mut commands = Pipeline::with_capacity(2);
        // One byte more than may be there shows that it is too large, however large it is.
        commands.cmd("PTTL").arg(&key).cmd("GETRANGE").arg(&key).arg(0).arg(reading.longest());
        match self.read(&commands).await {
            Ok(answers) => match <[Value; 2]>::try_from(answers) {
                Ok([Value::Int(-2), _]) => Ok(Lookup::Absent),
                Ok([Value::Int(pttl), Value::BulkString(value)]) => {
                    Ok(reading.lookup(&value, pttl, clock(), now))
                }
                _ => Err(Fault::Odd),
            },
            Err(fault) if fault.is_wrong_type() => Ok(Lookup::Unreadable(OTHER_TYPE.to_owned())),
            Err(fault) => Err(fault),
        }
    }

    /// What [`script::UPDATE`] and [`script::DESTROY_IF`] answer.
    fn swapped(&self, answer: Result<Value, Fault>, done: Version, now: Millis) -> Result<Swapped, Fault> {
        let found = match answer {
            Ok(Value::Int(0)) => return Ok(Swapped::Absent),
            Ok(Value::Int(_)) => return Ok(Swapped::Done(done)),
            Ok(Value::Array(there)) => match <[Value; 2]>::try_from(there) {
                Ok([Value::BulkString(value), Value::Int(pttl)]) => {
                    self.shared.reading.lookup(&value, pttl, clock(), now)
                }
                _ => return Err(Fault::Odd),
            },
            Ok(_) => return Err(Fault::Odd),
            Err(fault) if fault.is_wrong_type() => Lookup::Unreadable(OTHER_TYPE.to_owned()),
            Err(fault) => return Err(fault),
        };
        Ok(match found {
            Lookup::Absent => Swapped::Absent,
            found => Swapped::Conflict(Box::new(found)),
        })
    }

    /// Commands that change nothing, so that a connection which the server closed while it was idle costs no error.
    async fn read(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let answers = match self.line.ask(commands).await {
            Err(fault) if fault.ends_the_connection() => self.line.ask(commands).await,
            answers => answers,
        };
        answers?.into_iter().map(checked).collect()
    }

    /// One command that changes something: sent once, on a connection that was alive a moment ago.
    async fn change(&self, key: &str, command: &Pipeline) -> Result<Value, Fault> {
        if self.line.is_idle() {
            self.read(&script::one(cmd("EXISTS").arg(key).take())).await?;
        }
        self.line.ask(command).await?.into_iter().next().map_or(Err(Fault::Odd), checked)
    }

    async fn call(&self, script: &Script, key: &str, arguments: &[&str]) -> Result<Value, Fault> {
        match self.change(key, &script.by_hash(key, arguments)).await {
            Err(fault) if fault.is_unknown_script() => {
                self.change(key, &script.by_text(key, arguments)).await
            }
            answer => answer,
        }
    }

    /// Runs a change, within the deadline, in a task that goes on when its caller has gone.
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
        let began = Instant::now();
        let until = began + patience;
        let place = place(&self.changes, op, until).await?;
        let task = self.drain.spawn_local(async move {
            let _place = place;
            // After that nobody waits for the answer, and on a connection that went silent none would come.
            timeout_at(until, work).await
        });
        match task.await {
            Ok(Ok(result)) => result.map_err(|fault| self.explain(op, &fault)),
            Ok(Err(_)) => Err(self.late(op, began.into_std())),
            Err(_) => Err(StoreError::new(op, Kind::Refused, "the operation's task ended early")),
        }
    }

    fn late(&self, op: Op, began: std::time::Instant) -> StoreError {
        self.line.is_late(began);
        self.explain(op, &Fault::Late)
    }

    fn explain(&self, op: Op, fault: &Fault) -> StoreError {
        let (kind, detail) = fault.explain();
        StoreError::new(op, kind, fault::masked(&self.shared.passwords, detail))
    }

    fn key(&self, sid: &Sid) -> String {
        [&self.shared.options.prefix, sid.as_str()].concat()
    }

    fn render(&self, op: Op, record: &Record) -> Result<String, StoreError> {
        if record.payload.as_bytes().len() > self.shared.reading.max_payload {
            return Err(StoreError::new(op, Kind::Refused, TOO_LARGE));
        }
        Ok(record.render_json())
    }
}

fn version(text: &str) -> Version {
    Version(VersionKind::Text(Arc::from(text)))
}

fn before(op: Op, version: &Version) -> Result<Arc<str>, StoreError> {
    match &version.0 {
        VersionKind::Text(text) => Ok(Arc::clone(text)),
        VersionKind::Revision(_) | VersionKind::Mongo(_) => {
            Err(StoreError::new(op, Kind::Refused, "a version of another store"))
        }
    }
}

/// Redis tells how long a key lives, not until when.
fn clock() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(now.as_millis()).unwrap_or(Millis::MAX)
}
