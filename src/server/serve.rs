//! One worker's share of the listeners: accept loops, the tick, the stop. Tests: `tests.rs`.

use super::activity::{Clock, Command, TICK};
use super::balance::{Arrival, Doors, Seat};
use super::connection::{self, Connection, Protocols, Task};
use super::io::Socket;
use super::listener::{Bound, Listener};
use super::live::Live;
use super::peers::{PeerSeat, Peers};
use super::refused::Refused;
use super::{Address, Handler, ServerOptions};
use crate::drain::{Drain, DrainGuard};
use crate::telemetry::counters::Counters;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;

/// How long accepting pauses when the process has no descriptor or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// `limits.connections`: permits that all workers and listeners share. Tunnels hold theirs until they end.
///
/// When none is left, each accept loop keeps the one connection it has already accepted waiting, and the system's backlog
/// keeps the rest, until a connection ends. Nobody is refused.
#[derive(Clone)]
pub struct ConnectionLimit {
    permits: Arc<Semaphore>,
    reported: Arc<AtomicBool>,
    pub(super) peers: Peers,
}

impl ConnectionLimit {
    /// At most `connections` at once (at least one).
    pub fn new(connections: usize) -> Self {
        let permits = connections.clamp(1, Semaphore::MAX_PERMITS);
        let (permits, reported) = (Arc::new(Semaphore::new(permits)), Arc::new(AtomicBool::new(false)));
        Self { permits, reported, peers: Peers::default() }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        if !self.reported.swap(true, Ordering::Relaxed) {
            tracing::warn!("limits.connections is reached: new connections wait until one ends (said once)");
        }
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }
}

/// What a connection counts against, until its last byte.
pub(super) struct Ticket {
    _permit: OwnedSemaphorePermit,
    _drain: DrainGuard,
    /// Once it is known who the peer is, with `limits.connections_per_peer`.
    pub(super) peer: Option<PeerSeat>,
    counters: Arc<Counters>,
}

#[cfg(test)]
impl Ticket {
    pub(super) async fn for_test() -> Self {
        let permit = ConnectionLimit::new(1).permit().await.expect("a fresh limit has a permit");
        let counters = Arc::<Counters>::default();
        counters.connections_open.inc();
        Self { _permit: permit, _drain: Drain::new().guard(), peer: None, counters }
    }
}

impl Ticket {
    fn new(permit: OwnedSemaphorePermit, drain: &Drain, counters: &Arc<Counters>) -> Self {
        counters.connections_accepted.inc();
        counters.connections_open.inc();
        Self { _permit: permit, _drain: drain.guard(), peer: None, counters: Arc::clone(counters) }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.counters.connections_open.sub(1);
    }
}

/// What a worker needs to serve.
#[derive(Clone)]
pub struct Server {
    /// Limits and deadlines.
    pub options: ServerOptions,
    /// One for the process.
    pub limit: ConnectionLimit,
    /// This worker's own.
    pub counters: Arc<Counters>,
    /// One for the process.
    pub drain: Drain,
}

/// One worker's state; `Rc`, never shared with another.
pub(super) struct Worker<H> {
    pub(super) server: Server,
    pub(super) handler: Rc<H>,
    pub(super) protocols: Protocols,
    /// Where https is served, for redirects.
    pub(super) https_port: u16,
    pub(super) refused: Refused,
    clock: Arc<Clock>,
    connections: RefCell<Vec<Weak<Connection>>>,
}

/// What the connections of one listener have in common.
struct Port {
    live: Arc<Live>,
    number: u16,
}

impl Server {
    /// Serves until the drain begins and then until nothing in the process is counted any more; the caller sets the bound.
    /// Call it in a `LocalSet` on a `current_thread` runtime with I/O and time.
    ///
    /// `on_tick` is called every 500 ms and once more at the end; it must not block. When the drain begins, the listeners are
    /// dropped, idle connections close, half-received heads are dropped, requests under way finish.
    ///
    /// # Errors
    /// When the runtime cannot take the sockets.
    pub async fn serve<H: Handler>(
        self,
        listeners: Vec<Listener>,
        handler: Rc<H>,
        seat: Option<Seat>,
        on_tick: impl Fn(),
    ) -> io::Result<()> {
        let drain = self.drain.clone();
        let worker = Rc::new(Worker {
            protocols: Protocols::new(&self.options),
            https_port: https_port(&listeners),
            refused: Refused::new(Arc::clone(&self.counters)),
            clock: Arc::default(),
            connections: RefCell::default(),
            server: self,
            handler,
        });
        let acceptors: Vec<_> = listeners.iter().map(Acceptor::new).collect::<io::Result<_>>()?;
        let doors = seat.as_ref().map(|seat| Rc::new(seat.doors()));
        let ports = acceptors.iter().map(|acceptor| Rc::clone(&acceptor.port)).collect();
        for (index, acceptor) in acceptors.into_iter().enumerate() {
            drain.spawn_local(accept_loop(Rc::clone(&worker), acceptor, index, doors.clone()));
        }
        if let Some(seat) = seat {
            // Not counted, or it would wait for its own end: what arrives is counted by its ticket.
            tokio::task::spawn_local(welcome_loop(Rc::clone(&worker), seat, ports));
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        {
            let mut stopping = std::pin::pin!(drain.stopping());
            loop {
                tokio::select! {
                    () = &mut stopping => break,
                    _ = tick.tick() => worker.beat(&on_tick),
                }
            }
        }
        drop(listeners);
        worker.sweep();
        loop {
            tokio::select! {
                () = drain.empty() => break,
                _ = tick.tick() => worker.beat(&on_tick),
            }
        }
        on_tick();
        Ok(())
    }
}

/// The port of the first TLS listener; 443 when there is none, or when it is a unix socket behind something else.
fn https_port(listeners: &[Listener]) -> u16 {
    let ports = listeners.iter().filter(|listener| listener.inner.live.current().tls.is_some()).filter_map(
        |listener| match listener.inner.address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        },
    );
    ports.into_iter().next().unwrap_or(443)
}

impl<H: Handler> Worker<H> {
    fn beat(&self, on_tick: &impl Fn()) {
        self.clock.advance();
        self.sweep();
        on_tick();
    }

    /// Tells every connection that is past a deadline, and forgets those that have ended.
    fn sweep(&self) {
        let drain = &self.server.drain;
        let (stopping, patient) = (drain.is_stopping(), drain.is_patient());
        self.connections.borrow_mut().retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let counters = &self.server.counters;
            counters.connections_timed_out.add(connection.reset_stalled_streams());
            connection.leak();
            let (activity, options) = (&connection.activity, &self.server.options);
            let verdict =
                if patient { activity.patient_verdict(options) } else { activity.verdict(options, stopping) };
            if let Some(command) = verdict {
                if command == Command::Drop && !stopping {
                    counters.connections_timed_out.inc();
                }
                connection.tell(command);
            }
            true
        });
    }

    fn start(self: &Rc<Self>, socket: Socket, from: Option<SocketAddr>, port: &Rc<Port>, ticket: Ticket) {
        let (settings, from) = (port.live.current(), (from, port.number));
        let shakes_hands = settings.tls.is_some() || settings.proxy_protocol.is_some();
        let connection = Connection::new(&self.clock, shakes_hands);
        self.connections.borrow_mut().push(Rc::downgrade(&connection));
        let work = connection::serve(Rc::clone(self), Rc::clone(&connection), socket, settings, from, ticket);
        tokio::task::spawn_local(Task { connection, work: Box::pin(work) });
    }
}

/// This worker's own descriptor of a listening socket.
struct Acceptor {
    socket: AcceptSocket,
    port: Rc<Port>,
}

enum AcceptSocket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    fn new(listener: &Listener) -> io::Result<Self> {
        let inner = &listener.inner;
        let socket = match &inner.socket {
            Bound::Tcp(socket) => AcceptSocket::Tcp(tokio::net::TcpListener::from_std(socket.try_clone()?)?),
            Bound::Unix(socket) => {
                AcceptSocket::Unix(tokio::net::UnixListener::from_std(socket.try_clone()?)?)
            }
        };
        let number = match inner.address {
            Address::Tcp(address) => address.port(),
            Address::Unix(_) => 0,
        };
        let port = Rc::new(Port { live: Arc::clone(&inner.live), number });
        Ok(Self { socket, port })
    }

    async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.socket {
            AcceptSocket::Tcp(socket) => {
                socket.accept().await.map(|(stream, from)| (Socket::Tcp(stream), Some(from)))
            }
            AcceptSocket::Unix(socket) => {
                socket.accept().await.map(|(stream, _)| (Socket::Unix(stream), None))
            }
        }
    }
}

/// Serves what other workers accepted for this one, also what they accepted just before the stop.
async fn welcome_loop<H: Handler>(worker: Rc<Worker<H>>, mut seat: Seat, ports: Vec<Rc<Port>>) {
    while let Some(arrival) = seat.arrivals.recv().await {
        match arrival.unpack() {
            Ok((socket, from, listener, ticket)) => worker.start(socket, from, &ports[listener], ticket),
            Err(error) => tracing::warn!(%error, "a connection could not be taken over by its worker"),
        }
    }
}

/// One at a time and then a turn for the others, so that a burst of connections does not hold up those that are served.
async fn accept_loop<H: Handler>(
    worker: Rc<Worker<H>>,
    acceptor: Acceptor,
    index: usize,
    doors: Option<Rc<Doors>>,
) {
    let mut stopping = std::pin::pin!(worker.server.drain.stopping());
    let mut exhausted = false;
    loop {
        let next = async {
            let accepted = acceptor.accept().await;
            let permit = match accepted {
                Ok(_) => worker.server.limit.permit().await,
                Err(_) => None,
            };
            (accepted, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = &mut stopping => return,
            next = next => next,
        };
        match (accepted, permit) {
            (Ok((socket, from)), Some(permit)) => {
                exhausted = false;
                let drain = &worker.server.drain;
                match doors.as_ref().and_then(|doors| doors.lighter().map(|lighter| (doors, lighter))) {
                    None => {
                        let ticket = Ticket::new(permit, drain, &worker.server.counters);
                        worker.start(socket, from, &acceptor.port, ticket);
                    }
                    Some((doors, lighter)) => {
                        let ticket = Ticket::new(permit, drain, doors.counters(lighter));
                        // A socket that cannot leave this runtime is a socket that broke: it is closed.
                        if let Ok(arrival) = Arrival::new(socket, from, index, ticket) {
                            doors.hand_over(lighter, arrival);
                        }
                    }
                }
                tokio::task::yield_now().await;
            }
            (Err(error), _) if !is_of_one_connection(&error) => {
                worker.server.counters.accept_errors.inc();
                if !exhausted {
                    tracing::error!(%error, "cannot accept connections, trying again; raise the limit of open files (ulimit -n) if it is reached");
                }
                exhausted = true;
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            _ => {}
        }
    }
}

/// accept(2): errors of a connection that ended while it waited are reported by accept and concern nobody else.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let gone = [
        Kind::ConnectionAborted,
        Kind::ConnectionReset,
        Kind::ConnectionRefused,
        Kind::Interrupted,
        Kind::NetworkDown,
        Kind::NetworkUnreachable,
        Kind::HostUnreachable,
        Kind::TimedOut,
        Kind::PermissionDenied,
    ];
    gone.contains(&error.kind())
}
