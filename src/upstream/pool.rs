//! Connections to one endpoint: HTTP/1.1 ones that are kept, last in, first out, so that the warm ones stay warm and the surplus ages out;
//! HTTP/2 ones that many requests share. Never more than `max_connections`: who finds none free waits.
//!
//! Tests: `tests/it/upstream_limits.rs`, `upstream_reuse.rs`, `upstream_http2.rs`.

use super::options::UpstreamOptions;
use super::wire::{Fuse, Place, Room};
use hyper::client::conn::{http1, http2};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a connection may take to settle between two requests.
const SETTLES_WITHIN: Duration = Duration::from_millis(20);

pub(super) struct Pool<B> {
    max_connections: usize,
    max_idle: usize,
    idle_timeout: Duration,
    idle: RefCell<Vec<Idle<B>>>,
    shared: RefCell<Vec<Shared<B>>>,
    /// HTTP/2, as far as known.
    multiplexes: Cell<Option<bool>>,
    /// A connection that others may share is being opened.
    opening: Cell<bool>,
    room: Arc<Room>,
    waiting: Cell<usize>,
    in_flight: Cell<usize>,
    /// Raised when the host has other addresses; connections of an older era are not used again.
    era: Cell<u32>,
}

struct Idle<B> {
    sender: http1::SendRequest<B>,
    fuse: Fuse,
    since: Instant,
}

struct Shared<B> {
    sender: http2::SendRequest<B>,
    streams: Rc<Cell<usize>>,
    /// What the app allows.
    most: Rc<Cell<usize>>,
    /// When it last had nothing to do.
    idle_since: Rc<Cell<Instant>>,
}

/// What the next request may do about a connection.
pub(super) enum Leave<B> {
    /// Open one; HTTP/2 or what may become it only once at a time.
    Open(Place, Option<Opening<B>>),
    /// Look again: there are free ones now.
    Look,
    /// Wait for [`Pool::freed`].
    Wait,
}

/// Others wait for this connection instead of opening their own.
pub(super) struct Opening<B>(Rc<Pool<B>>);

impl<B> Drop for Opening<B> {
    fn drop(&mut self) {
        self.0.opening.set(false);
        self.0.wake_all();
    }
}

/// A connection in use, or a share of one. Dropped without [`Self::release`] a connection of its own closes: nothing half read is ever
/// reused.
pub struct PooledConnection<B> {
    lane: Lane<B>,
    era: u32,
    pool: Rc<Pool<B>>,
    /// Of the request that it is used for.
    seat: Option<Seat<B>>,
}

/// What requests go into.
pub(super) enum Lane<B> {
    /// HTTP/1.1; `None` once given back.
    One(Option<(http1::SendRequest<B>, Fuse)>),
    /// HTTP/2
    Two(http2::SendRequest<B>, Rc<Cell<usize>>, Rc<Cell<Instant>>),
}

/// A request that is under way to this endpoint, for [`Pool::load`].
pub(super) struct Seat<B>(Rc<Pool<B>>);

impl<B> Drop for Seat<B> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

impl<B> Pool<B> {
    pub(super) fn new(options: &UpstreamOptions, multiplexes: Option<bool>) -> Self {
        Self {
            max_connections: options.max_connections,
            max_idle: options.max_idle,
            idle_timeout: options.idle_timeout,
            idle: RefCell::default(),
            shared: RefCell::default(),
            multiplexes: Cell::new(multiplexes),
            opening: Cell::new(false),
            room: Arc::default(),
            waiting: Cell::new(0),
            in_flight: Cell::new(0),
            era: Cell::new(0),
        }
    }

    /// Requests under way.
    pub(super) fn load(&self) -> usize {
        self.in_flight.get()
    }

    pub(super) fn seat(self: &Rc<Self>) -> Seat<B> {
        self.in_flight.set(self.in_flight.get() + 1);
        Seat(Rc::clone(self))
    }

    /// A share of a connection, or the one that was used last and still works. `http1`: HTTP/1.1 only. `fresh`: none that was kept.
    pub(super) async fn checkout(self: &Rc<Self>, http1: bool, fresh: bool) -> Option<PooledConnection<B>> {
        if !http1
            && self.multiplexes.get() != Some(false)
            && let Some(share) = self.share()
        {
            return Some(share);
        }
        if fresh {
            return None;
        }
        loop {
            let Idle { mut sender, fuse, since } = self.idle.borrow_mut().pop()?;
            if since.elapsed() >= self.idle_timeout {
                // Everything below is older still.
                self.idle.borrow_mut().clear();
                return None;
            }
            // Not ready for a moment is normal: its task has yet to see the end of the last exchange. Longer means that the app does
            // not take what is still to be sent.
            if sender.is_ready() || matches!(timeout(SETTLES_WITHIN, sender.ready()).await, Ok(Ok(()))) {
                fuse.arm();
                return Some(self.adopt(sender, fuse));
            }
        }
    }

    fn share(self: &Rc<Self>) -> Option<PooledConnection<B>> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| !connection.sender.is_closed());
        let free = shared.iter().find(|connection| connection.streams.get() < connection.most.get())?;
        free.streams.set(free.streams.get() + 1);
        let lane = Lane::Two(free.sender.clone(), Rc::clone(&free.streams), Rc::clone(&free.idle_since));
        Some(PooledConnection { lane, era: self.era.get(), pool: Rc::clone(self), seat: None })
    }

    /// May a connection be opened? `http1` and `fresh`: one that others cannot share, and none that was kept.
    pub(super) fn leave(self: &Rc<Self>, http1: bool, fresh: bool) -> Leave<B> {
        let alone = http1 || self.multiplexes.get() == Some(false);
        if !alone && self.opening.get() {
            return Leave::Wait;
        }
        if let Some(place) = self.room.enter(self.max_connections) {
            let opening = (!alone).then(|| {
                self.opening.set(true);
                Opening(Rc::clone(self))
            });
            return Leave::Open(place, opening);
        }
        let mut idle = self.idle.borrow_mut();
        match (idle.is_empty(), fresh) {
            (true, _) => Leave::Wait,
            (false, false) => Leave::Look,
            (false, true) => {
                // The oldest makes room; its place is free when its task has ended.
                drop(idle.remove(0));
                Leave::Wait
            }
        }
    }

    /// One waits for a connection that is being opened for several.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.get()
    }

    /// Waits until a connection, or a place for one, may have become free.
    pub(super) async fn freed(&self) {
        struct Waits<'a>(&'a Cell<usize>);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.waiting.set(self.waiting.get() + 1);
        let _waits = Waits(&self.waiting);
        self.room.freed.notified().await;
    }

    fn wake(&self) {
        if self.waiting.get() > 0 {
            self.room.freed.notify_one();
        }
    }

    pub(super) fn wake_all(&self) {
        self.room.freed.notify_waiters();
    }

    /// Closes what was idle for too long.
    pub(super) fn sweep(&self) {
        self.idle
            .borrow_mut()
            .retain(|idle| idle.since.elapsed() < self.idle_timeout && !idle.sender.is_closed());
        self.shared.borrow_mut().retain(|shared| {
            let idle = shared.streams.get() == 0 && shared.idle_since.get().elapsed() >= self.idle_timeout;
            !idle && !shared.sender.is_closed()
        });
    }

    /// The host has moved: what is open finishes, and is not used again.
    pub(super) fn retire(&self) {
        self.era.set(self.era.get().wrapping_add(1));
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }

    pub(super) fn adopt(self: &Rc<Self>, sender: http1::SendRequest<B>, fuse: Fuse) -> PooledConnection<B> {
        let lane = Lane::One(Some((sender, fuse)));
        if self.multiplexes.get().is_none() {
            self.multiplexes.set(Some(false));
        }
        PooledConnection { lane, era: self.era.get(), pool: Rc::clone(self), seat: None }
    }

    /// The first share of a new connection.
    pub(super) fn adopt_shared(
        self: &Rc<Self>,
        sender: http2::SendRequest<B>,
        most: Rc<Cell<usize>>,
    ) -> PooledConnection<B> {
        self.multiplexes.set(Some(true));
        let (streams, idle_since) = (Rc::new(Cell::new(1)), Rc::new(Cell::new(Instant::now())));
        let lane = Lane::Two(sender.clone(), Rc::clone(&streams), Rc::clone(&idle_since));
        self.shared.borrow_mut().push(Shared { sender, streams, most, idle_since });
        PooledConnection { lane, era: self.era.get(), pool: Rc::clone(self), seat: None }
    }
}

impl<B> PooledConnection<B> {
    /// The request counts as under way for as long as it has this connection.
    pub(super) fn seated(mut self, seat: Seat<B>) -> Self {
        self.seat = Some(seat);
        self
    }

    pub(super) fn lane(&mut self) -> &mut Lane<B> {
        &mut self.lane
    }

    /// Others may use it at the same time.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.lane, Lane::Two(..))
    }

    /// Gives the connection back. Only right when the request body and the response body have both ended.
    pub fn release(mut self) {
        let Lane::One(one) = &mut self.lane else { return };
        let Some((sender, fuse)) = one.take() else { return };
        let mut idle = self.pool.idle.borrow_mut();
        let room = idle.len() < self.pool.max_idle || self.pool.waiting.get() > 0;
        if !sender.is_closed() && room && self.era == self.pool.era.get() {
            idle.push(Idle { sender, fuse, since: Instant::now() });
            drop(idle);
            self.pool.wake();
        }
    }
}

impl<B> Drop for PooledConnection<B> {
    fn drop(&mut self) {
        if let Lane::Two(_, streams, idle_since) = &self.lane {
            streams.set(streams.get().saturating_sub(1));
            if streams.get() == 0 {
                idle_since.set(Instant::now());
            }
            self.pool.wake();
        }
    }
}
