//! Kept-alive connections to one endpoint: last in, first out, so that the warm ones stay warm and the surplus ages out.

use hyper::client::conn::http1::SendRequest;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Idle connections are closed after this: below the 5 s after which Node closes its side.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How long a connection may take to settle between two requests.
const SETTLES_WITHIN: Duration = Duration::from_millis(20);
/// Idle connections kept per endpoint and worker.
const IDLE_MAX: usize = 128;

pub(super) struct Pool<B> {
    idle: RefCell<Vec<Idle<B>>>,
}

struct Idle<B> {
    sender: SendRequest<B>,
    since: Instant,
}

/// A connection in use. Dropped without [`Self::release`] it closes: nothing half read is ever reused.
pub struct PooledConnection<B> {
    sender: SendRequest<B>,
    pool: Rc<Pool<B>>,
}

impl<B> Pool<B> {
    pub(super) fn new() -> Self {
        Self { idle: RefCell::new(Vec::new()) }
    }

    /// The connection that was used last and still works.
    pub(super) async fn checkout(self: &Rc<Self>) -> Option<PooledConnection<B>> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if idle.since.elapsed() >= IDLE_LIMIT {
                // Everything below is older still.
                self.idle.borrow_mut().clear();
                return None;
            }
            let mut sender = idle.sender;
            // Not ready for a moment is normal: its task has yet to see the end of the last exchange. Longer means that the app does
            // not take what is still to be sent.
            if sender.is_ready() || matches!(timeout(SETTLES_WITHIN, sender.ready()).await, Ok(Ok(()))) {
                return Some(PooledConnection { sender, pool: Rc::clone(self) });
            }
        }
    }

    pub(super) fn sweep(&self) {
        self.idle.borrow_mut().retain(|idle| idle.since.elapsed() < IDLE_LIMIT && !idle.sender.is_closed());
    }

    pub(super) fn adopt(self: &Rc<Self>, sender: SendRequest<B>) -> PooledConnection<B> {
        PooledConnection { sender, pool: Rc::clone(self) }
    }
}

impl<B> PooledConnection<B> {
    pub(super) fn sender(&mut self) -> &mut SendRequest<B> {
        &mut self.sender
    }

    /// Gives the connection back. Only right when the request body and the response body have both ended.
    pub fn release(self) {
        let mut idle = self.pool.idle.borrow_mut();
        if !self.sender.is_closed() && idle.len() < IDLE_MAX {
            idle.push(Idle { sender: self.sender, since: Instant::now() });
        }
    }
}
