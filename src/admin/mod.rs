//! The admin port: is it alive, is it ready, what does it count.
//!
//! It shows no session and no secret, and knows neither routes nor requests. Tests: `tests/it/admin.rs`.

use crate::drain::Drain;
use crate::proxy::options::Secret;
use crate::server::{Address, Handler, Peer};
use crate::store::Store;
use crate::telemetry::counters::{self, Counters};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use std::rc::Rc;
use std::sync::Arc;

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
    store: Option<Store>,
    counters: Vec<Arc<Counters>>,
    drain: Drain,
}

impl Admin {
    /// `counters`: one set for each worker; `drain`: the workers'.
    pub fn new(
        _options: AdminOptions,
        store: Option<Store>,
        counters: Vec<Arc<Counters>>,
        drain: Drain,
    ) -> Self {
        Self { store, counters, drain }
    }

    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD here\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" => self.readiness().await,
            "/metrics" => {
                let mut response =
                    text(StatusCode::OK, counters::render(self.counters.iter().map(|counters| &**counters)));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n".to_owned()),
        }
    }

    /// Ready: not stopping, and the store answers.
    async fn readiness(&self) -> Response<Full<Bytes>> {
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
    type Body = Full<Bytes>;

    async fn handle(self: Rc<Self>, request: Request<Incoming>, _peer: Rc<Peer>) -> Response<Self::Body> {
        self.answer(request.method(), request.uri().path()).await
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
