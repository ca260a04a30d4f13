//! A response body that tells its connection when it has ended or been dropped.

use super::activity::Stream;
use super::connection::Connection;
use bytes::Bytes;
use http::Version;
use hyper::body::{Body, Frame, SizeHint};
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A request is under way on this connection until this is dropped.
pub(super) struct RequestGuard {
    connection: Rc<Connection>,
    /// HTTP/2 only.
    stream: Option<Rc<Stream>>,
    /// The answer came to its end, whichever: what follows is not the client's doing.
    settled: Cell<bool>,
}

impl RequestGuard {
    pub(super) fn begin(connection: &Rc<Connection>, stream: Option<Rc<Stream>>, version: Version) -> Self {
        connection.activity.request_began();
        if version < Version::HTTP_11 {
            connection.activity.answers_unframed();
        }
        Self { connection: Rc::clone(connection), stream, settled: Cell::new(false) }
    }

    /// Nothing of the answer is left to send.
    pub(super) fn settle(&self) {
        self.settled.set(true);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if !self.settled.get() {
            self.connection.cut_short();
        }
        self.connection.activity.request_ended();
    }
}

/// What the server sends: the handler's body, or a few words of the server's own.
pub(super) enum Answer<B> {
    Handler(B),
    Text(Option<Bytes>),
}

impl<B: Body> Answer<B> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Handler(body) => body.is_end_stream(),
            Self::Text(text) => text.is_none(),
        }
    }
}

/// A body and the guard that lives as long.
pub(super) struct Served<B> {
    answer: Answer<B>,
    guard: RequestGuard,
}

impl<B> Served<B> {
    pub(super) fn new(answer: Answer<B>, guard: RequestGuard) -> Self
    where
        B: Body,
    {
        if answer.is_end_stream() {
            guard.settle();
        }
        Self { answer, guard }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Served<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(stream) = &self.guard.stream {
            stream.asked();
        }
        let frame = match &mut self.answer {
            Answer::Handler(body) => Pin::new(body).poll_frame(cx),
            Answer::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        };
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.is_end_stream() {
            self.guard.settle();
        }
        if let (Some(stream), Poll::Ready(Some(Ok(_)))) = (&self.guard.stream, &frame) {
            stream.handed(self.guard.connection.activity.clock());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Handler(body) => body.size_hint(),
            Answer::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}
