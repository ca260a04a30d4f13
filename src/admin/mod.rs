//! The admin port: is it alive, is it ready, what does it count, what happens to sessions.
//!
//! What names a session is under `/v1` and asks for the token. It shows no data and no secret, and knows neither routes nor
//! requests. Tests: `tests/it/events.rs`, `drain.rs`, `store_outage.rs`.

mod events;

use crate::drain::Drain;
use crate::events::Events;
use crate::proxy::options::Secret;
use crate::server::{Address, Handler, Peer};
use crate::store::Store;
use crate::telemetry::counters::{self, Counters};
use crate::telemetry::life::Life;
use bytes::Bytes;
use events::AdminBody;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// `[admin]`
#[derive(Debug, Clone)]
pub struct AdminOptions {
    /// `address`
    pub address: Address,
    /// `token`: what `/v1` asks for as `Authorization: Bearer …`; without one `/v1` is closed.
    pub token: Option<Secret>,
}

/// Answers on the admin port.
pub struct Admin {
    token: RefCell<Option<Secret>>,
    store: Option<Store>,
    counters: Vec<Arc<Counters>>,
    life: Arc<Life>,
    events: Arc<Events>,
    streams: Arc<Semaphore>,
    drain: Drain,
}

/// Streams of events at a time: the port's other connections are for health checks.
const STREAMS: usize = 32;

impl Admin {
    /// `counters`: one set for each worker; `drain`: the workers'.
    pub fn new(
        options: AdminOptions,
        store: Option<Store>,
        counters: Vec<Arc<Counters>>,
        life: Arc<Life>,
        events: Arc<Events>,
        drain: Drain,
    ) -> Self {
        Self {
            token: RefCell::new(options.token),
            store,
            counters,
            life,
            events,
            streams: Arc::new(Semaphore::new(STREAMS)),
            drain,
        }
    }

    /// Another token, for requests from now on.
    pub fn set_token(&self, token: Option<Secret>) {
        self.token.replace(token);
    }

    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<AdminBody> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD here\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" => self.readiness().await,
            "/metrics" => {
                let counters = counters::render(self.counters.iter().map(|counters| &**counters));
                let mut response = text(StatusCode::OK, counters + &self.life.render());
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/v1/events" => match self.refusal(headers) {
                Some(refusal) => refusal,
                None if *method == Method::HEAD => stream(AdminBody::Whole(Full::default())),
                None => match Arc::clone(&self.streams).try_acquire_owned() {
                    Ok(place) => stream(AdminBody::stream(self.events.listen(), place, &self.drain)),
                    Err(_) => text(
                        StatusCode::SERVICE_UNAVAILABLE,
                        format!("{STREAMS} listeners are here already\n"),
                    ),
                },
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "here are /healthz, /readyz, /metrics, and with the token /v1/events\n".to_owned(),
            ),
        }
    }

    /// What is said to somebody without the token (RFC 6750).
    fn refusal(&self, headers: &HeaderMap) -> Option<Response<AdminBody>> {
        let token = self.token.borrow();
        let Some(token) = token.as_ref() else {
            return Some(text(
                StatusCode::FORBIDDEN,
                "closed: write a token in [admin] to open /v1\n".to_owned(),
            ));
        };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let given = given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        let right = given.is_some_and(|(_, given)| {
            aws_lc_rs::constant_time::verify_slices_are_equal(given.trim_ascii(), &token.0).is_ok()
        });
        if right {
            return None;
        }
        let mut response =
            text(StatusCode::UNAUTHORIZED, "send Authorization: Bearer <admin.token>\n".to_owned());
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Some(response)
    }

    /// Ready: not stopping, and the store answers.
    async fn readiness(&self) -> Response<AdminBody> {
        if self.drain.is_stopping() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping\n".to_owned());
        }
        match &self.store {
            Some(store) => match store.ping().await {
                Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
                Err(error) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: session store {}\n", error.kind),
                ),
            },
            None => text(StatusCode::OK, "ready\n".to_owned()),
        }
    }
}

impl Handler for Admin {
    type Body = AdminBody;

    async fn handle(self: Rc<Self>, request: Request<Incoming>, _peer: Rc<Peer>) -> Response<Self::Body> {
        self.answer(request.method(), request.uri().path(), request.headers()).await
    }
}

fn stream(body: AdminBody) -> Response<AdminBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text(status: StatusCode, body: String) -> Response<AdminBody> {
    let mut response = Response::new(AdminBody::Whole(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
