//! The product: one request from head to last byte.
//!
//! `Proxy::serve` is the list of steps; each step is a call into the room that knows it. No step goes back. All state of a
//! request is in locals of that one function; one `Proxy` belongs to one worker, so nothing on the path is locked.
//! Must not know: TOML, sockets, which store it is. Tests: `tests/it/`, over real sockets.
//!
//! | file | what for |
//! |---|---|
//! | `outbound` | the request as the app will see it |
//! | `sessions` | cookie to session, update headers to plan and cookie; `inject`: what the app is shown |
//! | `commit` | the store write a response asked for; `regenerate`: the one that is several; `lines`: writers of one session line up |
//! | `trailer` | updates that come in trailers |
//! | `body` | the two streaming bodies |
//! | `upgrade` | tunnels |
//! | `error` | why there is no answer from the app, and what the client gets |
//! | `trace` | the access log's line |

mod body;
mod commit;
mod cookies;
mod error;
mod inject;
mod lines;
pub mod options;
mod outbound;
mod outcome;
mod regenerate;
mod sessions;
mod trace;
mod trailer;
mod upgrade;

pub use body::{BodyError, RequestBody, ResponseBody};
pub use lines::Lines;

use crate::drain::Drain;
use crate::events::Events;
use crate::headers::framing::{check_request, check_response, clean_response};
use crate::headers::hop::take_hop_by_hop;
use crate::headers::path::RoutePath;
use crate::headers::reserved::ReservedNames;
use crate::route::RouteTable;
use crate::server::{CLIENT_CERTIFICATE_NAMES, Handler, Peer, now};
use crate::session::Millis;
use crate::store::Store;
use crate::telemetry::access::AccessLog;
use crate::telemetry::counters::Counters;
use crate::upstream::{Progress, Upstream, UpstreamOptions};
use body::Download;
use commit::Committer;
use error::ProxyError;
use http::header::{HOST, LOCATION, TRAILER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use inject::{redirect_target, settle_cookies};
use options::{Otherwise, ProxyOptions, RouteOptions, SessionMode};
use outbound::RequestIds;
use sessions::{Ask, Opened, Sessions};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trace::Trace;
use trailer::TrailerCommit;

/// One worker's proxy.
pub struct Proxy {
    options: ProxyOptions,
    table: RouteTable<usize>,
    upstreams: Vec<Rc<Upstream<RequestBody>>>,
    names: Vec<Rc<str>>,
    /// What clients may not send: the prefix and all claims.
    reserved: Rc<ReservedNames>,
    /// What clients may not see: the prefix. A claim's name may well be a response header of the app.
    hidden: Rc<ReservedNames>,
    sessions: Option<Rc<Sessions>>,
    drain: Drain,
    counters: Arc<Counters>,
    log: Rc<AccessLog>,
    ids: RequestIds,
    /// What every request without a body shares.
    no_body: Rc<Progress>,
}

/// What a worker's proxy is made of, beside its options. Cheap to clone: a reload makes another proxy of the same parts.
#[derive(Clone)]
pub struct Parts {
    /// The worker's door to the store; there when `options.session` is.
    pub store: Option<Store>,
    /// The process's lines of writers.
    pub lines: Arc<Lines>,
    /// The stop.
    pub drain: Drain,
    /// Whoever may still need the store, trailers and writes: it must stay open for them. The worker's own.
    pub in_use: Drain,
    /// The worker's counters.
    pub counters: Arc<Counters>,
    /// The process's events.
    pub events: Arc<Events>,
    /// The worker's access log.
    pub log: Rc<AccessLog>,
    /// `timeouts.store`
    pub store_deadline: Duration,
}

impl Handler for Proxy {
    type Body = ResponseBody;

    // In a box of its own, for as long as the request lasts: hyper keeps room for the future on every idle connection.
    fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: Rc<Peer>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static {
        Box::pin(self.answer(request, peer))
    }
}

impl Proxy {
    async fn answer(self: Rc<Self>, request: Request<Incoming>, peer: Rc<Peer>) -> Response<ResponseBody> {
        let mut trace = Box::new(self.begin_trace(&request, &peer));
        let served = self.serve(request, &peer, &mut trace).await;
        let response = served.unwrap_or_else(|error| {
            if trace.request_id.is_empty() {
                // Refused before anybody could name it.
                trace.request_id = self.ids.next();
            }
            error.log(trace.request_id());
            trace.reason = Some(error.reason());
            error.response(trace.request_id())
        });
        // Nobody will poll such a body, so its end is now.
        if trace.method == Method::HEAD || response.body().is_end_stream() {
            trace.ended();
        }
        trace.status = response.status().as_u16();
        response.map(|body| body.traced(trace))
    }

    /// `before`: the proxy that this one takes the place of; an upstream that stays as it was keeps its connections.
    ///
    /// # Errors
    /// A header prefix that makes no header names.
    pub fn new(options: ProxyOptions, parts: Parts, before: Option<&Self>) -> Result<Self, String> {
        let Parts { store, lines, drain, in_use, counters, events, log, store_deadline } = parts;
        let prefix = options.session.as_ref().map_or("X-Session", |session| session.header_prefix.as_str());
        let claims = options.routes.iter().flat_map(|route| route.claims.iter().map(|(name, _)| name));
        let certificate = if options.client_certificates { &CLIENT_CERTIFICATE_NAMES[..] } else { &[] };
        let reserved = Rc::new(ReservedNames::new(prefix, claims.chain(certificate)));
        let hidden = Rc::new(ReservedNames::new(prefix, std::iter::empty()));
        let routes = options.routes.iter().enumerate();
        let table =
            RouteTable::new(routes.map(|(index, route)| (route.host.as_deref(), route.path.as_str(), index)));
        let sessions = match options.session.as_ref().zip(store) {
            None => None,
            Some((session, store)) => {
                let committer = Committer {
                    store,
                    policy: Rc::new(session.policy.clone()),
                    lines,
                    drain: drain.clone(),
                    in_use,
                    counters: Arc::clone(&counters),
                    events,
                    deadline: store_deadline,
                };
                Some(Rc::new(Sessions::new(
                    session.clone(),
                    options.session_header_limit,
                    Rc::new(committer),
                )?))
            }
        };
        Ok(Self {
            table,
            upstreams: options.upstreams.iter().map(|upstream| adopt(upstream, before, &counters)).collect(),
            names: options.upstreams.iter().map(|upstream| Rc::from(upstream.name.as_str())).collect(),
            reserved,
            hidden,
            sessions,
            drain,
            counters,
            log,
            ids: RequestIds::new(),
            no_body: Progress::new(true),
            options,
        })
    }

    /// Housekeeping, every half second: idle upstream connections go, the access log's buffer goes out.
    pub fn tick(&self) {
        self.upstreams.iter().for_each(|upstream| upstream.sweep());
        self.log.flush();
    }

    /// The journey of one request.
    async fn serve(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        trace: &mut Trace,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let (mut head, body) = request.into_parts();
        let framing = check_request(&head.method, &head.uri, head.version, &mut head.headers);
        trace.host = head.headers.get(HOST).cloned();
        framing.map_err(ProxyError::Framing)?;
        let route = self.find_route(&head.headers, head.uri.path())?;

        let hop = take_hop_by_hop(&mut head.headers, head.version, &self.reserved);
        let received = self.settle_forwarding(&mut head.headers, peer, trace);
        self.settle_names(&mut head.headers, trace)?;
        peer.show_certificate(&mut head.headers);

        let opened = self.open_session(route, &head.headers, head.uri.path(), &received, trace).await?;
        match &self.sessions {
            Some(sessions) => sessions.settle_cookies(&mut head.headers),
            None => settle_cookies(&mut head.headers, &[]),
        }
        if let Some(answer) = self.guard(route, opened.as_ref(), &head.uri) {
            return Ok(answer);
        }
        if let (Some(sessions), Some(opened)) = (&self.sessions, &opened) {
            sessions.inject(opened, &route.fields, &mut head.headers, trace.time)?;
            sessions.inject_claims(opened, &route.claims, &mut head.headers)?;
        }

        trace.upstream = Some(Rc::clone(&self.names[route.upstream]));
        let downstream = head.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let sid = opened.as_ref().filter(|opened| opened.base.live.is_some()).map(|opened| &opened.base.sid);
        let sent = self.send(route, head, body, &hop, sid).await?;

        self.release(route, opened, sent, &received, peer, &hop, downstream, trace).await
    }

    fn begin_trace(&self, request: &Request<Incoming>, peer: &Peer) -> Trace {
        Trace {
            log: Rc::clone(&self.log),
            counters: Arc::clone(&self.counters),
            started: Instant::now(),
            time: now(),
            client: peer.ip,
            method: request.method().clone(),
            host: None,
            uri: request.uri().clone(),
            version: request.version(),
            tls: peer.tls,
            // nginx's word for a client that left before there was an answer.
            status: 499,
            upstream: None,
            session: None,
            outcome: "off",
            reason: None,
            request_id: HeaderValue::from_static(""),
            bytes: 0,
            ended: false,
        }
    }

    fn find_route(&self, headers: &HeaderMap, path: &str) -> Result<&RouteOptions, ProxyError> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        // `OPTIONS *` asks about the server as a whole (RFC 9110 §9.3.7); `framing` lets no other method say so.
        let path = RoutePath::parse(if path == "*" { "/" } else { path }).map_err(|_| ProxyError::Path)?;
        let index = path.agree(|path| self.table.find(host, path)).map_err(|_| ProxyError::Path)?;
        index.and_then(|&index| self.options.routes.get(index)).ok_or(ProxyError::NoRoute)
    }

    async fn open_session(
        &self,
        route: &RouteOptions,
        headers: &HeaderMap,
        path: &str,
        received: &outbound::Received,
        trace: &mut Trace,
    ) -> Result<Option<Opened>, ProxyError> {
        let Some(sessions) = self
            .sessions
            .as_ref()
            .filter(|sessions| route.session != SessionMode::Off && sessions.covers(path))
        else {
            return Ok(None);
        };
        let ask = Ask {
            secure: received.secure,
            writable: route.session == SessionMode::On,
            store_unavailable: route.store_unavailable,
            now: trace.time,
        };
        trace.outcome = "unavailable";
        let opened = sessions.open(headers, path, &ask).await?;
        trace.outcome = "unchanged";
        if opened.base.live.is_some() {
            trace.session = Some(opened.base.sid.clone());
        }
        Ok(Some(opened))
    }

    /// `require` and `otherwise`: the answer for those who may not pass.
    fn guard(
        &self,
        route: &RouteOptions,
        opened: Option<&Opened>,
        uri: &http::Uri,
    ) -> Option<Response<ResponseBody>> {
        if route.require.is_empty() || opened.is_some_and(|opened| opened.satisfies(&route.require)) {
            return None;
        }
        let mut response = Response::new(ResponseBody::empty());
        match &route.otherwise {
            Otherwise::Status(status) => {
                *response.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::UNAUTHORIZED);
            }
            Otherwise::Redirect(template) => {
                *response.status_mut() = StatusCode::SEE_OTHER;
                let asked = uri.path_and_query().map_or("/", |path| path.as_str());
                if let Ok(location) = HeaderValue::try_from(redirect_target(template, asked)) {
                    response.headers_mut().insert(LOCATION, location);
                }
            }
        }
        response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }

    /// The response half: commit, then let the head go.
    #[expect(clippy::too_many_arguments, reason = "the request half's state, handed over in one piece")]
    async fn release(
        &self,
        route: &RouteOptions,
        opened: Option<Opened>,
        sent: outbound::Sent,
        received: &outbound::Received,
        peer: &Peer,
        hop: &crate::headers::hop::Hop,
        downstream: Option<hyper::upgrade::OnUpgrade>,
        trace: &mut Trace,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let outbound::Sent { answer, progress, deadline } = sent;
        let (mut head, incoming) = answer.response.into_parts();
        check_response(&head.headers).map_err(ProxyError::ResponseFraming)?;
        clean_response(&mut head.headers);
        let switched = take_hop_by_hop(&mut head.headers, head.version, &self.hidden).upgrade;
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if switching && !outbound::is_agreed(hop, switched.as_ref()) {
            return Err(ProxyError::UnaskedUpgrade);
        }
        let trailer = self.close_session(route, opened, received, peer, &mut head.headers, trace).await?;
        self.hidden.strip(&mut head.headers);
        self.hidden.strip_trailer_names(&mut head.headers);
        head.version = Version::HTTP_11;
        if switching {
            outbound::announce_upgrade(&mut head.headers, switched);
            let upstream = head.extensions.remove::<hyper::upgrade::OnUpgrade>();
            if let (Some(downstream), Some(upstream)) = (downstream, upstream) {
                upgrade::join(&self.drain, downstream, upstream, route.timeouts.tunnel);
            }
            return Ok(Response::from_parts(head, ResponseBody::empty()));
        }
        let gap = route.timeouts.response_body;
        let hidden = Rc::clone(&self.hidden);
        let download = Download::new(incoming, answer.connection, progress, hidden, trailer, gap, deadline);
        Ok(Response::from_parts(head, ResponseBody::stream(download)))
    }

    /// Takes the update off the response and commits it; what is left to do for trailers.
    async fn close_session(
        &self,
        route: &RouteOptions,
        opened: Option<Opened>,
        received: &outbound::Received,
        peer: &Peer,
        headers: &mut HeaderMap,
        trace: &mut Trace,
    ) -> Result<Option<TrailerCommit>, ProxyError> {
        let (Some(sessions), Some(opened)) = (&self.sessions, opened) else { return Ok(None) };
        let announced = headers.contains_key(TRAILER) && sessions.announces_update(headers);
        let writable = opened.is_writable();
        let at: Millis = if trace.started.elapsed() < Duration::from_millis(1) { trace.time } else { now() };
        let closed = sessions.close(opened, route.invalid_update, headers, at).await?;
        trace.outcome = closed.outcome.word();
        if closed.base.live.is_some() {
            trace.session = Some(closed.base.sid.clone());
        }
        if closed.withheld {
            received.log_withheld(sessions.options.proxy, &self.options.trust, peer, trace.request_id());
        }
        Ok(announced.then(|| {
            let opened = Opened::after_head(closed, received.secure, writable);
            TrailerCommit::new(Rc::clone(sessions), opened, route.invalid_update)
        }))
    }
}

/// The upstream of the proxy before if nothing about it has changed, or a new one.
fn adopt(
    options: &UpstreamOptions,
    before: Option<&Proxy>,
    counters: &Arc<Counters>,
) -> Rc<Upstream<RequestBody>> {
    let unchanged = before.and_then(|before| {
        let index = before.options.upstreams.iter().position(|old| old.is_same(options))?;
        before.upstreams.get(index).cloned()
    });
    unchanged.unwrap_or_else(|| Rc::new(Upstream::new(options.clone(), Arc::clone(counters))))
}
