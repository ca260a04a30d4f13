//! Which worker serves a new connection: the one with the fewest open.
//!
//! All workers accept from the same socket, and whoever wakes first would keep all: four kept-alive connections of an ingress would
//! live on one core. Costs a hand-over between threads per connection that moves, and nothing per request. Tests: `tests.rs`.

use super::io::Socket;
use super::serve::Ticket;
use crate::telemetry::counters::Counters;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// One worker's place among all of them.
pub struct Seat {
    chairs: Arc<[Chair]>,
    index: usize,
    pub(super) arrivals: UnboundedReceiver<Arrival>,
}

struct Chair {
    counters: Arc<Counters>,
    door: UnboundedSender<Arrival>,
}

/// A connection on its way to another worker, counted there already. As many as there are permits at most.
pub(super) struct Arrival {
    socket: StdSocket,
    pub(super) from: Option<SocketAddr>,
    /// Index of the listener that accepted it.
    pub(super) listener: usize,
    pub(super) ticket: Ticket,
}

enum StdSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A seat for each worker, in the order of their counters.
pub fn seats(counters: &[Arc<Counters>]) -> Vec<Seat> {
    let (doors, arrivals): (Vec<_>, Vec<_>) = counters.iter().map(|_| unbounded_channel()).unzip();
    let chair = |(counters, door): (&Arc<Counters>, _)| Chair { counters: Arc::clone(counters), door };
    let chairs: Arc<[Chair]> = counters.iter().zip(doors).map(chair).collect();
    let seat = |(index, arrivals)| Seat { chairs: Arc::clone(&chairs), index, arrivals };
    arrivals.into_iter().enumerate().map(seat).collect()
}

/// The way to the other workers; stays with the accept loops.
pub(super) struct Doors {
    chairs: Arc<[Chair]>,
    index: usize,
}

impl Seat {
    pub(super) fn doors(&self) -> Doors {
        Doors { chairs: Arc::clone(&self.chairs), index: self.index }
    }
}

impl Doors {
    /// The worker with fewer open connections than this one has; `None`: this one may keep it.
    pub(super) fn lighter(&self) -> Option<usize> {
        let open = |index: usize| self.chairs[index].counters.connections_open.value();
        let mine = open(self.index);
        (0..self.chairs.len()).filter(|&index| open(index) < mine).min_by_key(|&index| open(index))
    }

    /// Counts a connection for the worker that will serve it.
    pub(super) fn counters(&self, index: usize) -> &Arc<Counters> {
        &self.chairs[index].counters
    }

    /// Hands a connection over. A worker that has stopped takes none: the connection is closed, as the stop would have it.
    pub(super) fn hand_over(&self, index: usize, arrival: Arrival) {
        let _ = self.chairs[index].door.send(arrival);
    }
}

impl Arrival {
    pub(super) fn new(
        socket: Socket,
        from: Option<SocketAddr>,
        listener: usize,
        ticket: Ticket,
    ) -> io::Result<Self> {
        let socket = match socket {
            Socket::Tcp(stream) => StdSocket::Tcp(stream.into_std()?),
            Socket::Unix(stream) => StdSocket::Unix(stream.into_std()?),
        };
        Ok(Self { socket, from, listener, ticket })
    }

    /// Takes the connection into this worker's runtime.
    pub(super) fn unpack(self) -> io::Result<(Socket, Option<SocketAddr>, usize, Ticket)> {
        let socket = match self.socket {
            StdSocket::Tcp(stream) => Socket::Tcp(tokio::net::TcpStream::from_std(stream)?),
            StdSocket::Unix(stream) => Socket::Unix(tokio::net::UnixStream::from_std(stream)?),
        };
        Ok((socket, self.from, self.listener, self.ticket))
    }
}
