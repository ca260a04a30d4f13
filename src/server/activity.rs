//! What a connection is doing, since when, and which deadline that means. No timer per request: the worker's tick asks.
//!
//! Time is counted in ticks, so nothing is closed early, and at most two ticks late.
//! Relaxed atomics instead of cells, because hyper wants the stream under an upgradeable connection to be Send; a connection
//! never leaves its worker, so they are plain loads and stores.

use super::ServerOptions;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::AbortHandle;

/// The worker's heartbeat.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// A client that takes none of an answer for this long is dropped (nginx's `send_timeout`); a test cannot wait a minute.
pub(super) const STALLED: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
/// How long a connection that was told to end may take to say goodbye when nothing is moving.
const LINGER: Duration = Duration::from_secs(2);

/// Ticks since the worker began.
#[derive(Default)]
pub(super) struct Clock(AtomicU32);

impl Clock {
    pub(super) fn advance(&self) {
        self.0.store(self.now().wrapping_add(1), Relaxed);
    }

    fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Surely longer ago than `limit`.
    fn is_past(&self, since: u32, limit: Duration) -> bool {
        ticks(self.now().wrapping_sub(since)) >= limit.saturating_add(TICK)
    }
}

/// One stream's answer, for HTTP/2: there the socket does not tell which client takes nothing, flow control is per stream.
#[derive(Default)]
pub(super) struct Stream {
    /// Tick + 1 at which hyper took bytes that it has not sent yet; 0: it waits for us, not for the client.
    handed: Cell<u32>,
    task: RefCell<Option<AbortHandle>>,
}

impl Stream {
    /// hyper asks for more.
    pub(super) fn asked(&self) {
        self.handed.set(0);
    }

    /// hyper has bytes to send.
    pub(super) fn handed(&self, clock: &Clock) {
        self.handed.set(clock.now().wrapping_add(1).max(1));
    }

    /// The task to end when the client takes nothing.
    pub(super) fn runs_on(&self, task: AbortHandle) {
        *self.task.borrow_mut() = Some(task);
    }

    /// Resets the stream if its client has taken nothing for too long. `true` if so.
    pub(super) fn reset_if_stalled(&self, clock: &Clock) -> bool {
        let handed = self.handed.get();
        let stalled = handed != 0 && clock.is_past(handed.wrapping_sub(1), STALLED);
        match self.task.borrow_mut().take_if(|_| stalled) {
            Some(task) => {
                task.abort();
                true
            }
            None => false,
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The TLS handshake.
    Handshake = 0,
    /// Nothing has come yet, or a part of a request head.
    Head = 1,
    /// Between requests.
    Idle = 2,
    /// At least one request is not answered to its end.
    Request = 3,
}

/// What the tick tells a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Finish what is running, then close.
    Finish,
    /// Drop it.
    Drop,
}

/// The state that a connection's stream and its service keep up to date.
pub(super) struct Activity {
    clock: Arc<Clock>,
    phase: AtomicU8,
    since: AtomicU32,
    requests: AtomicU32,
    /// Tick + 1 at which writing got stuck; 0: it is not stuck.
    stuck: AtomicU32,
    /// HTTP/2: bytes between requests are pings and windows, not the beginning of a head.
    multiplexed: AtomicBool,
    finishing: AtomicBool,
    /// An answer is under way whose end may be the connection's end.
    unframed: AtomicBool,
    /// A 101 was answered.
    switched: AtomicBool,
}

impl Activity {
    pub(super) fn new(clock: Arc<Clock>, phase: Phase) -> Self {
        let since = AtomicU32::new(clock.now());
        Self {
            clock,
            phase: AtomicU8::new(phase as u8),
            since,
            requests: AtomicU32::new(0),
            stuck: AtomicU32::new(0),
            multiplexed: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
            unframed: AtomicBool::new(false),
            switched: AtomicBool::new(false),
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.since.store(self.clock.now(), Relaxed);
    }

    /// From here on it is HTTP/2.
    pub(super) fn multiplex(&self) {
        self.multiplexed.store(true, Relaxed);
        self.enter(Phase::Idle);
    }

    /// From here on it is a tunnel.
    pub(super) fn switch(&self) {
        self.switched.store(true, Relaxed);
    }

    /// The bytes are HTTP/1, or what follows an upgrade of it.
    pub(super) fn is_http1(&self) -> bool {
        !self.multiplexed.load(Relaxed)
    }

    /// The last request is not answered, or was answered with 101.
    pub(super) fn may_talk_another_protocol(&self) -> bool {
        self.switched.load(Relaxed) || self.phase() == Phase::Request
    }

    pub(super) fn request_began(&self) {
        self.requests.store(self.requests.load(Relaxed) + 1, Relaxed);
        self.phase.store(Phase::Request as u8, Relaxed);
    }

    pub(super) fn request_ended(&self) {
        let left = self.requests.load(Relaxed).saturating_sub(1);
        self.requests.store(left, Relaxed);
        if left == 0 {
            self.enter(Phase::Idle);
        }
    }

    /// Bytes came in.
    pub(super) fn received(&self) {
        if self.phase() == Phase::Idle && !self.multiplexed.load(Relaxed) {
            self.enter(Phase::Head);
        }
    }

    /// Bytes went out. The rest of an answer that hyper buffered keeps the connection from being idle.
    pub(super) fn sent(&self) {
        self.stuck.store(0, Relaxed);
        if self.phase() == Phase::Idle {
            self.since.store(self.clock.now(), Relaxed);
        }
    }

    /// The answer to the request that began may have no other end than the connection's (HTTP/1.0).
    pub(super) fn answers_unframed(&self) {
        self.unframed.store(true, Relaxed);
    }

    /// A client would take an answer that was cut short for complete, if the connection ended in order now.
    pub(super) fn owes_unframed(&self) -> bool {
        self.unframed.load(Relaxed)
    }

    /// Nothing is left to send. hyper flushes whenever it is polled, so this alone is no sign of life.
    pub(super) fn flushed(&self) {
        // A body that failed ends its request as well, but hyper flushes nothing after an error.
        if self.phase() == Phase::Idle {
            self.unframed.store(false, Relaxed);
        }
        if self.stuck.load(Relaxed) != 0 {
            self.sent();
        }
    }

    /// The client does not take what we write.
    pub(super) fn blocked(&self) {
        if self.stuck.load(Relaxed) == 0 {
            self.stuck.store(self.clock.now().wrapping_add(1).max(1), Relaxed);
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Handshake,
            1 => Phase::Head,
            2 => Phase::Idle,
            _ => Phase::Request,
        }
    }

    /// What the tick has to say; `stopping`: the program is about to end.
    pub(super) fn verdict(&self, options: &ServerOptions, stopping: bool) -> Option<Command> {
        let past = |since, limit| self.clock.is_past(since, limit);
        let stuck = self.stuck.load(Relaxed);
        if stuck != 0 && past(stuck.wrapping_sub(1), STALLED) {
            return Some(Command::Drop);
        }
        let since = self.since.load(Relaxed);
        let finishing = self.finishing.load(Relaxed);
        match self.phase() {
            Phase::Handshake => (stopping || past(since, options.tls_handshake)).then_some(Command::Drop),
            Phase::Head => {
                (stopping || finishing || past(since, options.request_head)).then_some(Command::Drop)
            }
            Phase::Idle if finishing => past(since, LINGER).then_some(Command::Drop),
            Phase::Idle => (stopping || past(since, options.keep_alive)).then(|| self.finish()),
            Phase::Request => (stopping && !finishing).then(|| self.finish()),
        }
    }

    /// The same while another process takes over: an HTTP/1 connection ends after its next answer, which says so, or after a pause in
    /// which no request can be on its way. HTTP/2 says GOAWAY, which loses nothing.
    pub(super) fn patient_verdict(&self, options: &ServerOptions) -> Option<Command> {
        let paused = self.clock.is_past(self.since.load(Relaxed), LINGER);
        let finishing = self.finishing.load(Relaxed);
        match self.phase() {
            Phase::Idle | Phase::Request if !self.is_http1() && !finishing => Some(self.finish()),
            Phase::Handshake | Phase::Head if paused => Some(Command::Drop),
            Phase::Idle if paused && !finishing => Some(self.finish()),
            _ => self.verdict(options, false),
        }
    }

    fn finish(&self) -> Command {
        self.finishing.store(true, Relaxed);
        if self.phase() == Phase::Idle {
            self.since.store(self.clock.now(), Relaxed);
        }
        Command::Finish
    }
}

fn ticks(count: u32) -> Duration {
    TICK.saturating_mul(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ServerOptions {
        ServerOptions {
            tls_handshake: Duration::from_secs(5),
            request_head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            max_request_head: 65536,
            max_headers: 100,
            max_connections: 100,
            max_connections_per_peer: None,
            max_streams: 128,
            max_control_frames: 5000,
            max_resets: 200,
        }
    }

    fn at(phase: Phase) -> (Arc<Clock>, Activity) {
        let clock = Arc::new(Clock::default());
        (Arc::clone(&clock), Activity::new(clock, phase))
    }

    /// The first verdict and the seconds until it.
    fn first(clock: &Clock, activity: &Activity) -> Option<(Command, f64)> {
        (0..400).find_map(|tick| {
            let verdict = activity.verdict(&options(), false);
            clock.advance();
            verdict.map(|command| (command, f64::from(tick) / 2.0))
        })
    }

    #[test]
    fn every_phase_has_its_own_deadline_never_early() {
        for (phase, expected) in [
            (Phase::Handshake, Some((Command::Drop, 5.5))),
            (Phase::Head, Some((Command::Drop, 10.5))),
            (Phase::Idle, Some((Command::Finish, 75.5))),
        ] {
            let (clock, activity) = at(phase);
            assert_eq!(first(&clock, &activity), expected, "{phase:?}");
        }
        let (clock, activity) = at(Phase::Head);
        activity.request_began();
        assert_eq!(first(&clock, &activity), None, "a request has the proxy's deadlines, not ours");
    }

    #[test]
    fn a_head_counts_from_its_first_byte_and_drops_do_not_prolong_it() {
        let (clock, activity) = at(Phase::Idle);
        for _ in 0..20 {
            clock.advance();
        }
        activity.received();
        for _ in 0..10 {
            clock.advance();
            activity.received();
        }
        assert_eq!(first(&clock, &activity), Some((Command::Drop, 5.5)));
    }

    #[test]
    fn an_http2_connection_is_idle_while_it_pings_and_busy_while_any_stream_is() {
        let (clock, activity) = at(Phase::Handshake);
        activity.multiplex();
        activity.received();
        assert_eq!(activity.phase(), Phase::Idle);
        activity.request_began();
        activity.request_began();
        activity.request_ended();
        assert_eq!(activity.phase(), Phase::Request);
        activity.request_ended();
        assert_eq!(first(&clock, &activity), Some((Command::Finish, 75.5)));
    }

    #[test]
    fn the_rest_of_an_answer_on_its_way_to_a_slow_client_is_not_cut_off() {
        let (clock, activity) = at(Phase::Idle);
        for _ in 0..300 {
            activity.sent();
            clock.advance();
            assert_eq!(activity.verdict(&options(), false), None);
        }
        assert_eq!(activity.verdict(&options(), true), Some(Command::Finish));
        for _ in 0..20 {
            activity.sent();
            clock.advance();
            assert_eq!(activity.verdict(&options(), true), None, "it still takes bytes");
        }
        assert_eq!(first(&clock, &activity), Some((Command::Drop, 2.0)), "2.5 s after the last byte");
    }

    #[test]
    fn a_client_that_takes_nothing_of_an_answer_is_dropped() {
        let (clock, activity) = at(Phase::Head);
        activity.request_began();
        activity.blocked();
        activity.sent();
        assert_eq!(first(&clock, &activity), None, "it took something");
        activity.blocked();
        activity.flushed();
        assert_eq!(first(&clock, &activity), None, "it took everything");
        activity.blocked();
        clock.advance();
        activity.blocked();
        assert_eq!(first(&clock, &activity), Some((Command::Drop, STALLED.as_secs_f64())));
    }

    #[test]
    fn a_patient_stop_gives_a_request_that_is_on_its_way_the_time_to_arrive() {
        for (phase, expected) in
            [(Phase::Handshake, Command::Drop), (Phase::Head, Command::Drop), (Phase::Idle, Command::Finish)]
        {
            let (clock, activity) = at(phase);
            let ticks = (0..100).find_map(|tick| {
                let verdict = activity.patient_verdict(&options());
                clock.advance();
                verdict.map(|command| (command, tick))
            });
            assert_eq!(ticks, Some((expected, 5)), "{phase:?}: two seconds and a tick");
        }
        let (_, activity) = at(Phase::Head);
        activity.request_began();
        assert_eq!(activity.patient_verdict(&options()), None, "its answer will say that it is the last");
        activity.multiplex();
        activity.request_began();
        assert_eq!(activity.patient_verdict(&options()), Some(Command::Finish));
        assert_eq!(activity.patient_verdict(&options()), None, "said once");
    }

    #[test]
    fn the_stop_drops_unfinished_heads_and_lets_requests_end() {
        for (phase, expected) in [
            (Phase::Handshake, Some(Command::Drop)),
            (Phase::Head, Some(Command::Drop)),
            (Phase::Idle, Some(Command::Finish)),
        ] {
            assert_eq!(at(phase).1.verdict(&options(), true), expected);
        }
        let (_, activity) = at(Phase::Head);
        activity.request_began();
        assert_eq!(activity.verdict(&options(), true), Some(Command::Finish));
        assert_eq!(activity.verdict(&options(), true), None, "said once");
    }
}
