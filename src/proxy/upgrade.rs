//! Tunnels after a 101: bytes both ways until one side ends, or nothing was said for `timeouts.tunnel`.
//!
//! A tunnel is no request any more: none of the body deadlines hold for it, and the stop waits for it within its bound.
//! Tests: `tests/it/upgrade.rs`.

use crate::drain::Drain;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

/// Joins the two connections once both have switched.
pub(super) fn join(drain: &Drain, downstream: OnUpgrade, upstream: OnUpgrade, silence: Duration) {
    // The handle is not needed: the task ends by itself, and the drain knows it.
    drop(drain.spawn_local(async move {
        let (down, up) = match tokio::try_join!(downstream, upstream) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "upgrade not completed");
                return;
            }
        };
        let last = Rc::new(Cell::new(Instant::now()));
        let mut down = Watched { inner: TokioIo::new(down), last: Rc::clone(&last) };
        let mut up = Watched { inner: TokioIo::new(up), last: Rc::clone(&last) };
        tokio::select! {
            result = copy_bidirectional(&mut down, &mut up) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "tunnel broke off");
                }
            }
            () = silent(&last, silence) => tracing::debug!("tunnel closed: silent for timeouts.tunnel"),
        }
    }));
}

async fn silent(last: &Cell<Instant>, limit: Duration) {
    loop {
        let rest = limit.saturating_sub(last.get().elapsed());
        if rest.is_zero() {
            return;
        }
        tokio::time::sleep(rest).await;
    }
}

/// A stream that notes when something was read from it.
struct Watched {
    inner: TokioIo<Upgraded>,
    last: Rc<Cell<Instant>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            self.last.set(Instant::now());
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
