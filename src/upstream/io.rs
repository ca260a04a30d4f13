//! The byte stream under hyper's client: it hands out little at a time, without a copy.
//!
//! Tests: below, and `tests/it/body_streaming.rs` with a reader that takes nothing.

use bytes::BufMut;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The most that one read takes. hyper doubles its buffer whenever a read fills it, up to the largest response head, and holds
/// several of them for a client that reads slowly; one byte less than a power of two never fills it.
const MOST_PER_READ: usize = 32 * 1024 - 1;

/// A connected socket under hyper: one type, so that hyper's machinery is compiled once.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! each_socket {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Most answers are small, and this saves the system call that finds nothing more.
        if buf.remaining() <= MOST_PER_READ {
            return each_socket!(self, stream => Pin::new(stream).poll_read(cx, buf));
        }
        each_socket!(self, stream => loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(&mut (&mut *buf).limit(MOST_PER_READ)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.map(drop)),
            }
        })
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each_socket!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_socket!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_socket!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_socket!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_large_buffer_is_not_filled_and_nothing_is_lost() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n >> 3) as u8).collect();
        let bytes = sent.clone();
        let writer = tokio::spawn(async move {
            theirs.write_all(&bytes).await.unwrap();
        });
        let mut socket = Socket::Unix(ours);
        let (mut received, mut large) = (Vec::new(), vec![0; 256 * 1024]);
        loop {
            let length = socket.read(&mut large).await.unwrap();
            assert!(length <= MOST_PER_READ, "{length}");
            if length == 0 {
                break;
            }
            received.extend_from_slice(&large[..length]);
        }
        assert!(received == sent);
        writer.await.unwrap();
    }
}
