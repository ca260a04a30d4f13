//! One worker's connection: made in the background, shared by all of its requests, made anew when it broke or went silent.
//!
//! One connection is enough, requests and answers are pipelined on it; a cluster has one to each node. At most one attempt to connect
//! is under way, whoever waits for it gets its outcome, and after a failure the next one begins soon if somebody waits, else after a
//! growing pause. The driver sets no limit to silence: behind a firewall that forgot it a connection would be dead until TCP gives up, a
//! quarter of an hour later. So a connection on which nothing was heard for a whole deadline is given up.
//!
//! Nothing is ever sent twice here, but for what a cluster's node refused to do. Must not know sessions.
//! Tests: `tests/it/store_conformance/redis.rs`.

use super::RedisShared;
use super::fault::{self, Fault};
use super::url::{self, Door};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::{ErrorKind, Pipeline, RedisError, ServerErrorKind, Value, cmd};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// The least time from one attempt to the next.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest, while nobody waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so long a silence the server may have closed the connection.
const IDLE: Duration = Duration::from_secs(1);
/// A cluster mends broken connections itself; so many failures in a row, without an answer in between, and all are made anew.
const FAILURES: u32 = 4;
/// Deadlines from one such renewal to the next: each costs every node a connection.
const RENEWAL: u32 = 4;

pub(super) struct Line {
    shared: Arc<RedisShared>,
    link: RefCell<Option<Link>>,
    /// How many links there were, so that news of an old one does not end the present one.
    number: Cell<u64>,
    waiters: RefCell<Vec<oneshot::Sender<Outcome>>>,
    waited_for: Rc<Notify>,
    keeper: RefCell<Option<JoinHandle<()>>>,
    attempted: Cell<Option<Instant>>,
    heard: Cell<Option<Instant>>,
    failures: Cell<u32>,
}

type Outcome = Result<(u64, Link), Fault>;

#[derive(Clone)]
enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Line {
    pub(super) fn new(shared: &Arc<RedisShared>) -> Rc<Self> {
        Rc::new(Self {
            shared: Arc::clone(shared),
            link: RefCell::default(),
            number: Cell::new(0),
            waiters: RefCell::default(),
            waited_for: Rc::default(),
            keeper: RefCell::default(),
            attempted: Cell::new(None),
            heard: Cell::new(None),
            failures: Cell::new(0),
        })
    }

    /// Sends the commands together, once, and waits for their answers. The future may be dropped at any moment; what was sent is done.
    pub(super) async fn ask(self: &Rc<Self>, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let (number, mut link) = self.link().await?;
        let answers = link.send(commands).await.and_then(|values| match values.len() == commands.len() {
            true => Ok(values),
            false => Err(Fault::Odd),
        });
        match &answers {
            Ok(values) => {
                self.heard.set(Some(Instant::now()));
                self.failures.set(0);
                for value in values {
                    if let Value::ServerError(error) = value
                        && Fault::Server(error.clone()).ends_the_connection()
                    {
                        self.failed(number);
                    }
                }
            }
            Err(fault) if fault.ends_the_connection() => self.failed(number),
            Err(_) => {}
        }
        answers
    }

    /// Starts connecting, unless that is under way already.
    pub(super) fn connect(self: &Rc<Self>) {
        self.waited_for.notify_one();
        let mut keeper = self.keeper.borrow_mut();
        if keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            // Not tracked: the stop must not wait for a server that may never come. Who needs it waits under a deadline.
            *keeper = Some(tokio::task::spawn_local(keep_connecting(Rc::downgrade(self))));
        }
    }

    /// Has it been silent for so long that it may be closed?
    pub(super) fn is_idle(&self) -> bool {
        self.link.borrow().is_some() && self.heard.get().is_none_or(|at| at.elapsed() > IDLE)
    }

    /// An operation that began at `began` had no answer within the deadline.
    pub(super) fn is_late(self: &Rc<Self>, began: Instant) {
        if matches!(&*self.link.borrow(), Some(Link::Cluster(_))) {
            // Which node is silent is not known; answers of the others say nothing of it.
            return self.renew();
        }
        // Answers come in order: where one was heard since, the server is slow and the connection is well.
        let silent = self.heard.get().is_none_or(|at| at < began);
        if silent && self.link.borrow_mut().take().is_some() {
            tracing::warn!(server = %self.shared.door, "Redis does not answer on its connection; a new one is made");
            self.connect();
        }
    }

    /// The link with that number is of no more use. Requests that are under way hold a copy of their own.
    fn failed(self: &Rc<Self>, number: u64) {
        if number != self.number.get() {
            return;
        }
        if matches!(&*self.link.borrow(), Some(Link::Cluster(_))) {
            self.failures.set(self.failures.get() + 1);
            if self.failures.get() >= FAILURES {
                self.renew();
            }
        } else if self.link.borrow_mut().take().is_some() {
            self.connect();
        }
    }

    /// Makes all connections to a cluster anew. The old ones serve until the new ones are there: most of them may be well.
    fn renew(self: &Rc<Self>) {
        let rest = self.shared.deadline * RENEWAL;
        if self.attempted.get().is_none_or(|at| at.elapsed() > rest) {
            self.connect();
        }
    }

    async fn link(self: &Rc<Self>) -> Outcome {
        if let Some(link) = &*self.link.borrow() {
            return Ok((self.number.get(), link.clone()));
        }
        let (waiter, outcome) = oneshot::channel();
        self.waiters.borrow_mut().push(waiter);
        self.connect();
        match tokio::time::timeout(self.shared.deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Fault::Late),
        }
    }

    fn connected(&self, link: Link) {
        self.number.set(self.number.get() + 1);
        self.heard.set(Some(Instant::now()));
        self.failures.set(0);
        self.link.replace(Some(link.clone()));
        self.tell(&Ok((self.number.get(), link)));
    }

    fn tell(&self, outcome: &Outcome) {
        for waiter in self.waiters.take() {
            // Whoever has gone needs no answer.
            waiter.send(outcome.clone()).ok();
        }
    }
}

async fn keep_connecting(line: Weak<Line>) {
    let mut pause = SHORTEST_PAUSE;
    let mut complained = false;
    loop {
        let Some((shared, attempted)) =
            line.upgrade().map(|line| (Arc::clone(&line.shared), line.attempted.get()))
        else {
            return;
        };
        let rest = attempted.map_or(Duration::ZERO, |at| SHORTEST_PAUSE.saturating_sub(at.elapsed()));
        tokio::time::sleep(rest).await;
        let outcome = attempt(&shared.door, url::patience(shared.deadline)).await;
        let Some(line) = line.upgrade() else { return };
        line.attempted.set(Some(Instant::now()));
        let fault = match outcome {
            Ok(link) => {
                if complained {
                    tracing::info!(server = %shared.door, "connected to Redis");
                }
                return line.connected(link);
            }
            Err(fault) => fault,
        };
        if !complained {
            complained = true;
            let why = fault::masked(&shared.passwords, fault.explain().1);
            tracing::warn!(server = %shared.door, %why, "no connection to Redis; it is tried again until there is one");
        }
        line.tell(&Err(Fault::Unconnected(Box::new(fault))));
        let waited_for = Rc::clone(&line.waited_for);
        drop(line);
        tokio::select! {
            () = waited_for.notified() => {}
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

async fn attempt(door: &Door, patience: Duration) -> Result<Link, Fault> {
    let connecting = async {
        Ok(match door {
            Door::Single(client, config) => {
                Link::Single(client.get_multiplexed_async_connection_with_config(config).await?)
            }
            Door::Cluster(client) => Link::Cluster(client.get_async_connection().await?),
        })
    };
    let late = || Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut)));
    tokio::time::timeout(patience, connecting).await.unwrap_or_else(|_| late()).map_err(Fault::from)
}

impl Link {
    async fn send(&mut self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        match self {
            Self::Single(connection) => {
                Ok(connection.req_packed_commands(commands, 0, commands.len()).await?)
            }
            Self::Cluster(connection) => follow(connection, commands).await,
        }
    }
}

/// Goes where the cluster's nodes say. A redirection, and a node that is not connected, mean that nothing was done.
async fn follow(connection: &mut ClusterConnection, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
    let mut turns = 0..3;
    loop {
        let error = match connection.req_packed_commands(commands, 0, commands.len()).await {
            Ok(values) => return Ok(values),
            Err(error) => error,
        };
        match (error.kind(), turns.next()) {
            (ErrorKind::Server(ServerErrorKind::Ask), Some(_)) => {
                return match node(&error) {
                    Some(node) => asking(connection, commands, node).await,
                    None => Err(error.into()),
                };
            }
            // The driver has learnt the new map before it takes the next request.
            (ErrorKind::Server(ServerErrorKind::Moved) | ErrorKind::ClusterConnectionNotFound, Some(_)) => {}
            _ => return Err(error.into()),
        }
    }
}

/// A key that is being moved to `node`: each command there has to be announced.
async fn asking(
    connection: &mut ClusterConnection,
    commands: &Pipeline,
    node: SingleNodeRoutingInfo,
) -> Result<Vec<Value>, Fault> {
    let mut announced = Pipeline::with_capacity(2 * commands.len());
    for command in commands.cmd_iter() {
        announced.add_command(cmd("ASKING")).add_command(command.clone());
    }
    let count = announced.len();
    let answers = connection.route_pipeline(announced, 0, count, node).await?;
    Ok(answers.into_iter().skip(1).step_by(2).collect())
}

fn node(error: &RedisError) -> Option<SingleNodeRoutingInfo> {
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    Some(SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port: port.parse().ok()? })
}
