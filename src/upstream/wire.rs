//! The socket under hyper: it holds its place among `max_connections` for as long as it lives, and looks for bytes that nobody asked for
//! before a kept connection is used again.
//!
//! What an app sent beyond its last answer would be taken for the answer to the next request, which may be another client's. hyper
//! reads before it writes, but trusts what the runtime last heard of the socket, which on a busy worker is a while ago; so the first read after
//! [`Fuse::arm`] asks the system itself. The same look finds a connection that the app has closed, while the request is still ours.
//! Tests: `tests/it/upstream_reuse.rs`.

use std::io::{self, ErrorKind, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;

/// A connected endpoint.
pub(super) type Socket = crate::socket::Socket<{ 32 * 1024 - 1 }>;

/// The connections to one endpoint, counted. May be let go of on any thread: hyper wants its sockets movable.
#[derive(Debug, Default)]
pub(super) struct Room {
    open: AtomicUsize,
    /// Wakes one who waits for a connection.
    pub(super) freed: Notify,
}

/// One of them, until dropped.
pub(super) struct Place(Arc<Room>);

impl Room {
    /// A place, if there are fewer than `most`.
    pub(super) fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        // Only this worker adds.
        if self.open.load(Ordering::Relaxed) >= most {
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

/// Tells a [`Wire`] that its connection begins another exchange.
#[derive(Clone, Default)]
pub(super) struct Fuse(Arc<AtomicBool>);

impl Fuse {
    pub(super) fn arm(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A socket with its place.
pub(super) struct Wire {
    socket: Socket,
    fuse: Fuse,
    _place: Place,
}

impl Wire {
    pub(super) fn new(socket: Socket, fuse: Fuse, place: Place) -> Self {
        Self { socket, fuse, _place: place }
    }

    /// Reads what the system has at this moment, whatever the runtime knows.
    fn read_now(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.socket {
            Socket::Tcp(stream) => (&*socket2::SockRef::from(stream)).read(bytes),
            Socket::Unix(stream) => (&*socket2::SockRef::from(stream)).read(bytes),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.fuse.0.load(Ordering::Relaxed) {
            self.fuse.0.store(false, Ordering::Relaxed);
            let mut early = [0_u8; 64];
            let room = early.len().min(buf.remaining());
            match self.read_now(&mut early[..room]) {
                Ok(length) => {
                    buf.put_slice(&early[..length]);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// With TLS or without: one type, so that hyper's machinery is compiled once.
pub(super) enum Stream {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

macro_rules! each_stream {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each_stream!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each_stream!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_stream!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(wire) => wire.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_stream!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_stream!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::pin::pin;

    fn poll(wire: &mut Wire) -> Poll<io::Result<usize>> {
        let mut bytes = [0; 1024];
        let mut buf = ReadBuf::new(&mut bytes);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        pin!(wire).poll_read(&mut cx, &mut buf).map(|read| read.map(|()| buf.filled().len()))
    }

    fn pair() -> (Wire, Fuse, Arc<Room>, std::os::unix::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (fuse, room) = (Fuse::default(), Arc::new(Room::default()));
        let place = room.enter(1).unwrap();
        (Wire::new(Socket::Unix(ours), fuse.clone(), place), fuse, room, theirs.into_std().unwrap())
    }

    /// The runtime gets no turn in these tests, as on a worker that is busy: it knows nothing of what came.
    #[tokio::test]
    async fn the_first_read_after_arming_sees_what_the_runtime_does_not_know_yet() {
        let (mut wire, fuse, _, mut theirs) = pair();
        assert!(poll(&mut wire).is_pending());
        theirs.write_all(b"HTTP/1.1 200 STOLEN").unwrap();
        assert!(poll(&mut wire).is_pending(), "else the fuse would be needless");
        fuse.arm();
        assert!(matches!(poll(&mut wire), Poll::Ready(Ok(19))));
        // Once per arming.
        assert!(poll(&mut wire).is_pending());
    }

    #[tokio::test]
    async fn it_sees_an_end_too_and_nothing_where_there_is_nothing() {
        let (mut wire, fuse, _, theirs) = pair();
        fuse.arm();
        assert!(poll(&mut wire).is_pending());
        drop(theirs);
        fuse.arm();
        assert!(matches!(poll(&mut wire), Poll::Ready(Ok(0))));
    }

    #[tokio::test]
    async fn a_place_is_taken_for_as_long_as_the_socket_lives() {
        let (wire, _, room, _theirs) = pair();
        assert!(room.enter(1).is_none());
        drop(wire);
        assert!(room.enter(1).is_some());
    }
}
