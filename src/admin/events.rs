//! `/v1/events`: what happens to sessions, as server-sent events (HTML, section "Server-sent events").
//!
//! One event is `event: <create|update|set|touch|destroy>` and `data: {"at":"<ISO 8601>","sid":"…","session":"<fingerprint>"}`.
//! A listener that is too slow gets `event: lagged` with `{"missed":n}`. Tests: `tests/it/events.rs`.

use crate::drain::Drain;
use crate::events::Event;
use crate::session::date::render_iso;
use crate::session::json::JsStr;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Proxies close a stream that is silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that wait for a slow reader here; beyond them the backlog of [`crate::events`] fills.
const WAITING: usize = 64;

/// An answer of the admin port.
pub enum AdminBody {
    /// A whole one.
    Whole(Full<Bytes>),
    /// A stream of events that ends with the process.
    Events(mpsc::Receiver<Bytes>),
}

impl AdminBody {
    /// A stream of everything that `events` hears, until the reader leaves or the sidecar stops.
    pub(super) fn stream(mut events: Receiver<Event>, place: OwnedSemaphorePermit, drain: &Drain) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let stopping = drain.stopping();
        tokio::task::spawn_local(async move {
            let _place = place;
            let mut stopping = std::pin::pin!(stopping);
            // Something at once, so that the reader sees the stream begin.
            let mut next = Bytes::from_static(b": here\n\n");
            loop {
                let sent = tokio::select! {
                    sent = sender.send(next) => sent.is_ok(),
                    () = &mut stopping => false,
                };
                if !sent {
                    return;
                }
                next = tokio::select! {
                    event = events.recv() => match event {
                        Ok(event) => render(&event),
                        Err(RecvError::Lagged(missed)) => {
                            Bytes::from(format!("event: lagged\ndata: {{\"missed\":{missed}}}\n\n"))
                        }
                        Err(RecvError::Closed) => return,
                    },
                    () = tokio::time::sleep(HEARTBEAT) => Bytes::from_static(b": still here\n\n"),
                    () = sender.closed() => return,
                    () = &mut stopping => return,
                };
            }
        });
        Self::Events(receiver)
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Events(events) => {
                events.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

fn render(event: &Event) -> Bytes {
    let Event { kind, sid, at } = event;
    let (kind, at, shown) = (kind.word(), render_iso(*at), JsStr::from_plain(sid.as_str()));
    Bytes::from(format!(
        "event: {kind}\ndata: {{\"at\":\"{at}\",\"sid\":\"{}\",\"session\":\"{sid}\"}}\n\n",
        shown.as_escaped()
    ))
}
