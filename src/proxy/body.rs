//! The two bodies: what the client sends up, and what goes down to it. Both stream under back-pressure; neither is ever copied.
//!
//! A body enforces its gap timeout and its limit, strips reserved trailers, and the response body holds its end back until a
//! trailer's session update is committed. Tests: `tests/it/body_streaming.rs`, `trailers.rs`, `slow_upstream.rs`.

use super::trace::Trace;
use super::trailer::TrailerCommit;
use crate::headers::framing::clean_trailers;
use crate::headers::reserved::ReservedNames;
use crate::upstream::{PooledConnection, Progress};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client sent more than `limits.request_body`.
    #[error("request body larger than limits.request_body")]
    RequestTooLarge,
    /// The client sent nothing for `timeouts.request_body`.
    #[error("request body stalled")]
    RequestStalled,
    /// The client left, or its chunks are broken.
    #[error("request body broken off")]
    RequestBroken,
    /// The app sent nothing for `timeouts.response_body`.
    #[error("response body stalled")]
    ResponseStalled,
    /// `timeouts.request` passed before the app's response was complete.
    #[error("response not complete within timeouts.request")]
    TookTooLong,
    /// The app broke off.
    #[error("response body broken off")]
    ResponseBroken,
    /// The update in the trailers is invalid.
    #[error("invalid session update in trailers")]
    InvalidTrailer,
    /// The update in the trailers could not be stored.
    #[error("session update in trailers not stored")]
    TrailerNotStored,
}

impl BodyError {
    /// A stable word for logs.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::RequestTooLarge => "request_body_too_large",
            Self::RequestStalled => "request_body_timeout",
            Self::RequestBroken => "request_body_broken",
            Self::ResponseStalled => "response_body_timeout",
            Self::TookTooLong => "request_timeout",
            Self::ResponseBroken => "response_body_broken",
            Self::InvalidTrailer => "invalid_update_trailer",
            Self::TrailerNotStored => "store_unavailable",
        }
    }
}

/// How much of a response is read on for its trailers' sake when the client has left, and for how long.
const UNSEEN_BYTES: usize = 1 << 20;
const UNSEEN_TIME: Duration = Duration::from_secs(5);

/// The longest gap between two frames. The timer is armed only when a body makes its reader wait.
struct Gap {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Gap {
    fn new(limit: Duration) -> Self {
        Self { limit, timer: None, waiting: false }
    }

    fn moved(&mut self) {
        self.waiting = false;
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx)
    }
}

/// The client's body on its way up. The default is no body.
#[derive(Default)]
pub struct RequestBody(Option<Box<Upload>>);

struct Upload {
    inner: Incoming,
    left: Option<u64>,
    gap: Gap,
    progress: Rc<Progress>,
    failure: Rc<Cell<Option<BodyError>>>,
    reserved: Rc<ReservedNames>,
}

impl RequestBody {
    /// Wraps a body that is not empty.
    pub(super) fn new(
        inner: Incoming,
        max_bytes: Option<u64>,
        gap: Duration,
        progress: Rc<Progress>,
        failure: Rc<Cell<Option<BodyError>>>,
        reserved: Rc<ReservedNames>,
    ) -> Self {
        Self(Some(Box::new(Upload {
            inner,
            left: max_bytes,
            gap: Gap::new(gap),
            progress,
            failure,
            reserved,
        })))
    }
}

impl Upload {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            self.progress.waits();
            ready!(self.gap.poll_expired(cx));
            return Poll::Ready(Some(Err(BodyError::RequestStalled)));
        };
        self.gap.moved();
        let Some(frame) = frame else { return Poll::Ready(None) };
        let mut frame = frame.map_err(|_| BodyError::RequestBroken)?;
        if let Some(data) = frame.data_ref()
            && let Some(left) = &mut self.left
        {
            *left = left.checked_sub(data.len() as u64).ok_or(BodyError::RequestTooLarge)?;
        }
        if let Some(trailers) = frame.trailers_mut() {
            clean_trailers(trailers, &self.reserved);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(upload) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(upload.poll_frame(cx));
        match &frame {
            Some(Err(error)) => upload.failure.set(Some(*error)),
            Some(Ok(_)) if !upload.inner.is_end_stream() => upload.progress.moved(),
            Some(Ok(_)) | None => upload.progress.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| upload.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |upload| upload.inner.size_hint())
    }
}

/// What goes down to the client.
pub struct ResponseBody {
    content: Content,
    trace: Option<Box<Trace>>,
}

enum Content {
    Nothing,
    Text(Bytes),
    Stream(Box<Download>),
}

/// The app's body on its way down.
pub(super) struct Download {
    pub(super) inner: Incoming,
    pub(super) connection: Option<PooledConnection<RequestBody>>,
    pub(super) progress: Rc<Progress>,
    pub(super) hidden: Rc<ReservedNames>,
    pub(super) trailer: Option<TrailerCommit>,
    gap: Gap,
    /// When all of it must have come: `timeouts.request`.
    deadline: Option<Pin<Box<Sleep>>>,
    held: Option<HeaderMap>,
}

impl Download {
    pub(super) fn new(
        inner: Incoming,
        connection: PooledConnection<RequestBody>,
        progress: Rc<Progress>,
        hidden: Rc<ReservedNames>,
        trailer: Option<TrailerCommit>,
        gap: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            inner,
            connection: Some(connection),
            progress,
            hidden,
            trailer,
            gap: Gap::new(gap),
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            held: None,
        }
    }

    /// The body has ended: the connection is free again, if the request has ended too (hyper #4176).
    fn release(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.progress.is_finished()
        {
            connection.release();
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.held.is_some() {
            return self.poll_held(cx);
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(BodyError::TookTooLong)));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            ready!(self.gap.poll_expired(cx));
            return Poll::Ready(Some(Err(BodyError::ResponseStalled)));
        };
        self.gap.moved();
        let frame = match frame {
            None => {
                self.release();
                return Poll::Ready(None);
            }
            Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::ResponseBroken))),
            Some(Ok(frame)) => frame,
        };
        let trailers = match frame.into_trailers() {
            Ok(trailers) => trailers,
            Err(data) => {
                if self.inner.is_end_stream() {
                    self.release();
                }
                return Poll::Ready(Some(Ok(data)));
            }
        };
        if let Some(commit) = &mut self.trailer {
            commit.begin(&trailers);
        } else if trailers.keys().any(|name| self.hidden.is_reserved(name)) {
            tracing::warn!(
                "session headers in trailers that `Trailer` did not announce, or of a request without a session: dropped"
            );
        }
        let mut trailers = trailers;
        clean_trailers(&mut trailers, &self.hidden);
        self.held = Some(trailers);
        self.poll_held(cx)
    }

    /// An update was announced, and the trailers have not come yet.
    fn awaits_trailer(&self) -> bool {
        self.trailer.as_ref().is_some_and(TrailerCommit::is_pending)
    }

    /// The client has left, but the app may have more to say of the session: reads on, within bounds, for the trailers' sake.
    fn finish_without_client(mut self: Box<Self>) {
        let Some(trailer) = &self.trailer else { return };
        let Some(permit) = trailer.permit_without_client() else { return };
        let drain = trailer.drain();
        // The handle is not needed: the task ends by itself, and the drain knows it.
        drop(drain.spawn_local(async move {
            let _permit = permit;
            let mut left = UNSEEN_BYTES;
            let read_on = async {
                while let Some(Ok(frame)) = std::future::poll_fn(|cx| self.poll_frame(cx)).await {
                    let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
                    left = rest;
                }
            };
            // Whether it ended, was cut or took too long: there is nobody left to tell.
            let _ = tokio::time::timeout(UNSEEN_TIME, read_on).await;
        }));
    }

    /// The end is held back until the trailers' update is stored.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(commit) = &mut self.trailer {
            ready!(commit.poll_done(cx))?;
        }
        self.release();
        match self.held.take() {
            Some(trailers) if !trailers.is_empty() => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            _ => Poll::Ready(None),
        }
    }
}

impl ResponseBody {
    pub(super) fn empty() -> Self {
        Self { content: Content::Nothing, trace: None }
    }

    pub(super) fn text(text: String) -> Self {
        Self { content: Content::Text(Bytes::from(text)), trace: None }
    }

    pub(super) fn stream(mut download: Download) -> Self {
        if download.inner.is_end_stream() {
            download.release();
            return Self::empty();
        }
        Self { content: Content::Stream(Box::new(download)), trace: None }
    }

    /// The access log's line is written when this body has ended or is dropped.
    pub(super) fn traced(mut self, trace: Box<Trace>) -> Self {
        self.trace = Some(trace);
        self
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Content::Stream(download) = std::mem::replace(&mut self.content, Content::Nothing)
            && download.awaits_trailer()
        {
            download.finish_without_client();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.content {
            Content::Nothing => None,
            Content::Text(text) => {
                let text = std::mem::take(text);
                this.content = Content::Nothing;
                Some(Ok(Frame::data(text)))
            }
            Content::Stream(download) => ready!(download.poll_frame(cx)),
        };
        if let Some(trace) = &mut this.trace {
            match &frame {
                Some(Ok(frame)) => trace.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(error)) => trace.cut_short(error.reason()),
                None => trace.ended(),
            }
            if this.content.is_over() {
                trace.ended();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing => SizeHint::with_exact(0),
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Stream(download) => download.inner.size_hint(),
        }
    }
}

impl Content {
    fn is_over(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Text(_) => false,
            Self::Stream(download) => download.held.is_none() && download.inner.is_end_stream(),
        }
    }
}
