//! How far a request body has got.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

/// Shared between the body, which moves it on, and [`Upstream::send`](super::Upstream::send), which waits.
#[derive(Debug)]
pub struct Progress {
    finished: Cell<bool>,
    waits_for_client: Cell<bool>,
    moved_at: Cell<Instant>,
}

impl Progress {
    /// A body that has all of itself still to send, or nothing at all.
    pub fn new(finished: bool) -> Rc<Self> {
        let (waits_for_client, moved_at) = (Cell::new(false), Cell::new(Instant::now()));
        Rc::new(Self { finished: Cell::new(finished), waits_for_client, moved_at })
    }

    /// Another piece went out.
    pub fn moved(&self) {
        self.waits_for_client.set(false);
        self.moved_at.set(Instant::now());
    }

    /// The client makes us wait: its own deadline runs, not the app's.
    pub fn waits(&self) {
        self.waits_for_client.set(true);
    }

    /// The end went out.
    pub fn finish(&self) {
        self.moved();
        self.finished.set(true);
    }

    /// Did the end go out?
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }

    pub(super) fn waits_for_client(&self) -> bool {
        self.waits_for_client.get()
    }

    pub(super) fn moved_at(&self) -> Instant {
        self.moved_at.get()
    }
}
