//! What happens to stored sessions, for whoever wants to know: express-session's store events as counters, log records and a stream.
//!
//! connect-mongo's words: `create` and `update` tell what a save was, `set` follows each of them, `touch`, `destroy`. Told when the
//! store has acknowledged. Must not know requests, stores or the admin port. Nothing here waits: a listener that is slow loses
//! events and is told how many. Tests: `tests/it/events.rs`.

use crate::session::Millis;
use crate::session::sid::Sid;
use crate::telemetry::counters::Counters;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::broadcast::{Receiver, Sender, channel};

/// How many events a listener may lag behind.
const BACKLOG: usize = 1024;

/// Something that happened to a stored session.
#[derive(Debug, Clone)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// To which session. A secret: for the admin port's token only, the log shows its fingerprint.
    pub sid: Sid,
    /// When, milliseconds since 1970.
    pub at: Millis,
}

/// The events of express-session's stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Stored for the first time, also under a new sid.
    Create,
    /// Saved again.
    Update,
    /// Saved: follows each `create` and `update`.
    Set,
    /// Extended without a change.
    Touch,
    /// Deleted, also because it goes on under a new sid.
    Destroy,
}

impl Kind {
    /// The event's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Set => "set",
            Self::Touch => "touch",
            Self::Destroy => "destroy",
        }
    }
}

/// The process's events; shared by all workers.
#[derive(Debug)]
pub struct Events {
    log: AtomicBool,
    listeners: Sender<Event>,
}

impl Events {
    /// `log`: also as records of the log (`log.session_events`).
    pub fn new(log: bool) -> Self {
        Self { log: AtomicBool::new(log), listeners: channel(BACKLOG).0 }
    }

    /// From now on also, or no longer, as records of the log.
    pub fn set_log(&self, log: bool) {
        self.log.store(log, Ordering::Relaxed);
    }

    /// Listens from now on.
    pub fn listen(&self) -> Receiver<Event> {
        self.listeners.subscribe()
    }

    /// Tells that `kind` happened, and after a save `set`. Costs two additions when nobody listens.
    pub fn tell(&self, counters: &Counters, kind: Kind, sid: &Sid, at: Millis) {
        self.tell_one(counters, kind, sid, at);
        if matches!(kind, Kind::Create | Kind::Update) {
            self.tell_one(counters, Kind::Set, sid, at);
        }
    }

    fn tell_one(&self, counters: &Counters, kind: Kind, sid: &Sid, at: Millis) {
        match kind {
            Kind::Create => &counters.events_create,
            Kind::Update => &counters.events_update,
            Kind::Set => &counters.events_set,
            Kind::Touch => &counters.events_touch,
            Kind::Destroy => &counters.events_destroy,
        }
        .inc();
        if self.log.load(Ordering::Relaxed) {
            tracing::info!(event = kind.word(), session = %sid, "session event");
        }
        if self.listeners.receiver_count() > 0 {
            // The last listener may have gone this moment.
            let _ = self.listeners.send(Event { kind, sid: sid.clone(), at });
        }
    }
}
