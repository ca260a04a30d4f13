//! The byte stream under hyper: TCP or unix, plain or TLS, with the bytes that were looked at put back in front.
//!
//! It reports to [`Activity`] and carries the [`Ticket`], so that a connection counts until its last byte, tunnels included.

use super::activity::Activity;
use super::flood::{Flood, Meter};
use super::serve::Ticket;
use crate::headers::gate::RequestGate;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// An accepted socket. hyper holds 16 reads of an upload for an app that reads slowly, hence half of what the app's side takes.
pub(super) type Socket = crate::socket::Socket<{ 16 * 1024 - 1 }>;

/// A socket with bytes put back in front of it.
pub(super) struct Rewound {
    first: Bytes,
    socket: Socket,
}

impl Rewound {
    pub(super) fn new(first: Bytes, socket: Socket) -> Self {
        Self { first, socket }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let taken = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..taken]);
        self.first.advance(taken);
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
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
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Plain or TLS: one type, so that hyper's machinery is compiled once.
pub(super) enum Transport {
    Plain(Rewound),
    Tls(Box<TlsStream<Rewound>>),
}

/// What hyper reads and writes.
pub(super) struct Io {
    transport: Transport,
    activity: Arc<Activity>,
    gate: RequestGate,
    /// HTTP/2 only.
    meter: Option<Box<Meter>>,
    _ticket: Ticket,
}

impl Io {
    pub(super) fn new(transport: Transport, activity: Arc<Activity>, ticket: Ticket) -> Self {
        Self { transport, activity, gate: RequestGate::default(), meter: None, _ticket: ticket }
    }

    /// From here on it is HTTP/2, and its frames are counted.
    pub(super) fn meter(&mut self, flood: Arc<Flood>) {
        self.meter = Some(Box::new(Meter::new(flood)));
    }

    fn report(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Pending => self.activity.blocked(),
            Poll::Ready(_) => self.activity.sent(),
        }
        if let (Some(meter), Poll::Ready(Ok(bytes))) = (&self.meter, &result) {
            meter.flood.sent(*bytes);
        }
        result
    }
}

impl Drop for Io {
    /// An answer without a frame was cut short: a reset says so, an orderly end would say that it is complete. (A unix socket
    /// has no reset.)
    fn drop(&mut self) {
        if self.activity.owes_unframed() {
            let rewound = match &self.transport {
                Transport::Plain(stream) => stream,
                Transport::Tls(stream) => stream.get_ref().0,
            };
            if let Socket::Tcp(stream) = &rewound.socket {
                // It fails when the connection is gone already.
                let _ = stream.set_zero_linger();
            }
        }
    }
}

macro_rules! each_transport {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.transport {
            Transport::Plain($stream) => $call,
            Transport::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(over) = self.meter.as_ref().and_then(|meter| meter.flood.verdict()) {
            return Poll::Ready(Err(io::Error::other(over)));
        }
        let before = buf.filled().len();
        let result = each_transport!(self, stream => Pin::new(stream).poll_read(cx, buf));
        ready!(result)?;
        if buf.filled().len() > before {
            self.activity.received();
            if self.activity.is_http1() {
                let unanswered = self.activity.may_talk_another_protocol();
                self.gate.inspect(&mut buf.filled_mut()[before..], unanswered);
            }
            if let Some(meter) = &mut self.meter {
                meter.received(&buf.filled()[before..]);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = each_transport!(self, stream => Pin::new(stream).poll_write(cx, bytes));
        self.report(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = each_transport!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices));
        self.report(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = each_transport!(self, stream => Pin::new(stream).poll_flush(cx));
        match result {
            Poll::Pending => self.activity.blocked(),
            Poll::Ready(_) => self.activity.flushed(),
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_transport!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ServerOptions;
    use crate::server::activity::{Clock, Command, Phase};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    fn options() -> ServerOptions {
        let long = Duration::from_secs(100_000);
        ServerOptions {
            tls_handshake: long,
            request_head: long,
            keep_alive: long,
            max_request_head: 65536,
            max_headers: 100,
            max_connections: 100,
            max_connections_per_peer: None,
            max_streams: 128,
            max_control_frames: 5000,
            max_resets: 200,
        }
    }

    #[tokio::test]
    async fn a_client_that_stops_reading_is_noticed_and_one_that_goes_on_is_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let clock = Arc::new(Clock::default());
        let activity = Arc::new(Activity::new(Arc::clone(&clock), Phase::Head));
        activity.request_began();
        let transport = Transport::Plain(Rewound::new(Bytes::new(), Socket::Unix(ours)));
        let mut io = Io::new(transport, Arc::clone(&activity), Ticket::for_test().await);
        let verdict_after_two_minutes = || {
            (0..240).for_each(|_| clock.advance());
            activity.verdict(&options(), false)
        };
        assert_eq!(verdict_after_two_minutes(), None, "nothing to send is no stall");
        let mut sent = 0;
        let chunk = vec![0; 64 * 1024];
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(50), io.write(&chunk)).await {
            sent += written.unwrap();
        }
        let mut taken = vec![0; sent];
        theirs.read_exact(&mut taken).await.unwrap();
        io.write_all(b"more").await.unwrap();
        assert_eq!(verdict_after_two_minutes(), None, "it read on");
        while tokio::time::timeout(Duration::from_millis(50), io.write(&chunk)).await.is_ok() {}
        assert_eq!(verdict_after_two_minutes(), Some(Command::Drop));
    }

    #[tokio::test]
    async fn bytes_put_back_come_first_and_only_once() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut stream = Rewound::new(Bytes::from_static(b"first "), Socket::Unix(ours));
        theirs.write_all(b"second").await.unwrap();
        drop(theirs);
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&two, rest.as_str()), (b"fi", "rst second"));
    }
}
