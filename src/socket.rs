//! A connected socket under hyper, of either side: it hands out little at a time, without a copy.
//!
//! hyper doubles its buffer whenever a read fills it, up to the largest head, and holds several of them for a peer that reads slowly.
//! One byte less than a power of two never fills it. Knows nothing of HTTP. Tests: below, and `tests/it/body_streaming.rs`.

use bytes::{BufMut, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Holds most request heads and TLS hellos, so that looking at the first bytes costs no extra read.
const FIRST_READ: usize = 1024;

/// TCP or unix: one type, so that hyper's machinery is compiled once. One read takes at most `MOST` bytes.
pub enum Socket<const MOST: usize> {
    /// TCP
    Tcp(TcpStream),
    /// A unix socket
    Unix(UnixStream),
}

impl<const MOST: usize> Socket<MOST> {
    /// Waits for bytes and appends what is there to `bytes`; 0 at the end of the stream. Needs no memory while it waits.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn read_some(&self, bytes: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self {
                Self::Tcp(stream) => stream.readable().await?,
                Self::Unix(stream) => stream.readable().await?,
            }
            bytes.reserve(FIRST_READ);
            let read = match self {
                Self::Tcp(stream) => stream.try_read_buf(bytes),
                Self::Unix(stream) => stream.try_read_buf(bytes),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

macro_rules! each_socket {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl<const MOST: usize> AsyncRead for Socket<MOST> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Most messages are small, and this saves the system call that finds nothing more.
        if buf.remaining() <= MOST {
            return each_socket!(self, stream => Pin::new(stream).poll_read(cx, buf));
        }
        each_socket!(self, stream => loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(&mut (&mut *buf).limit(MOST)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.map(drop)),
            }
        })
    }
}

impl<const MOST: usize> AsyncWrite for Socket<MOST> {
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

    const MOST: usize = 32 * 1024 - 1;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_large_buffer_is_not_filled_and_nothing_is_lost() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n >> 3) as u8).collect();
        let bytes = sent.clone();
        let writer = tokio::spawn(async move {
            theirs.write_all(&bytes).await.unwrap();
        });
        let mut socket = Socket::<MOST>::Unix(ours);
        let (mut received, mut large) = (Vec::new(), vec![0; 256 * 1024]);
        loop {
            let length = socket.read(&mut large).await.unwrap();
            assert!(length <= MOST, "{length}");
            if length == 0 {
                break;
            }
            received.extend_from_slice(&large[..length]);
        }
        assert!(received == sent);
        writer.await.unwrap();
    }
}
