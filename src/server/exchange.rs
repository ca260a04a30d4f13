//! One request on a connection: what the server answers itself, what it hands on, and what it adds to the answer. Tests: `tests.rs`.

use super::activity::Stream;
use super::body::{Answer, RequestGuard, Served};
use super::connection::Connection;
use super::serve::Worker;
use super::{Handler, Peer, redirect};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::rc::Rc;

/// What a request on a connection meets.
pub(super) struct Exchange<H> {
    pub(super) worker: Rc<Worker<H>>,
    pub(super) connection: Rc<Connection>,
    pub(super) peer: Rc<Peer>,
    pub(super) redirect: bool,
    pub(super) hsts: Option<HeaderValue>,
}

impl<H> Clone for Exchange<H> {
    fn clone(&self) -> Self {
        Self {
            worker: Rc::clone(&self.worker),
            connection: Rc::clone(&self.connection),
            peer: Rc::clone(&self.peer),
            redirect: self.redirect,
            hsts: self.hsts.clone(),
        }
    }
}

impl<H: Handler> Exchange<H> {
    /// Not an `async fn`, so that the guard exists before hyper polls for the first time.
    pub(super) fn answer(
        self,
        request: Request<Incoming>,
        stream: Option<Rc<Stream>>,
    ) -> impl Future<Output = Result<Response<Served<H::Body>>, Infallible>> + 'static {
        let guard = RequestGuard::begin(&self.connection, stream, request.version());
        let bodiless = request.method() == Method::HEAD;
        async move {
            if let Some(mut refused) = self.own_answer(&request) {
                demand_tls(self.hsts, refused.headers_mut());
                return Ok(refused.map(|text| Served::new(Answer::Text(Some(text)), guard)));
            }
            let mut response = Rc::clone(&self.worker.handler).handle(request, self.peer).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                self.connection.activity.switch();
            } else if self.worker.server.drain.is_stopping() && self.connection.activity.is_http1() {
                // Said in time, so that the client sends nothing more here; hyper closes after such an answer.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            demand_tls(self.hsts, response.headers_mut());
            if bodiless {
                guard.settle();
            }
            Ok(response.map(|body| Served::new(Answer::Handler(body), guard)))
        }
    }

    /// What the server answers without its handler.
    fn own_answer(&self, request: &Request<Incoming>) -> Option<Response<Bytes>> {
        let counters = &self.worker.server.counters;
        let response = if request.headers().len() > self.worker.server.options.max_headers {
            // HTTP/2; for HTTP/1.1 hyper has counted already.
            counters.bad_requests.inc();
            text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "431 too many header fields\n")
        } else if self.redirect {
            self.redirected(request)
        } else {
            return None;
        };
        counters.response(response.status().as_u16());
        Some(response)
    }

    fn redirected(&self, request: &Request<Incoming>) -> Response<Bytes> {
        let counters = &self.worker.server.counters;
        match redirect::location(request, self.worker.https_port) {
            Some(location) => {
                counters.redirected_to_https.inc();
                let mut response = text(StatusCode::PERMANENT_REDIRECT, "this site is served over https\n");
                response.headers_mut().insert(header::LOCATION, location);
                response
            }
            None => {
                counters.bad_requests.inc();
                text(StatusCode::BAD_REQUEST, "400 the request names no valid host\n")
            }
        }
    }
}

/// `hsts`, unless the app has said it.
fn demand_tls(hsts: Option<HeaderValue>, headers: &mut HeaderMap) {
    if let Some(hsts) = hsts {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(hsts);
    }
}

fn text(status: StatusCode, words: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(words.as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
