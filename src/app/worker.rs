//! One worker thread: its runtime, its proxy, and how a reload puts another proxy in that one's place.
//!
//! A request is served to its end by the proxy that it met: swapping costs later requests one more pointer, and nobody a lock.
//! Tests: `tests/it/reload.rs`, `drain.rs`.

use super::Shared;
use crate::drain::Drain;
use crate::proxy::options::ProxyOptions;
use crate::proxy::{Parts, Proxy, ResponseBody};
use crate::server::{Handler, Listener, Peer, Seat, Server};
use crate::telemetry::access::AccessLog;
use crate::telemetry::counters::Counters;
use http::{Request, Response};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// What one worker is given to begin with.
pub(super) struct Place {
    pub(super) index: usize,
    pub(super) listeners: Vec<Listener>,
    pub(super) seat: Seat,
    pub(super) counters: Arc<Counters>,
    pub(super) orders: UnboundedReceiver<Order>,
    /// Counts the requests of this worker that may still need the store.
    pub(super) in_use: Drain,
    /// Dropped when the worker has ended.
    pub(super) running: Sender<()>,
}

/// Serve requests from now on with these options, and say when.
pub(super) struct Order {
    pub(super) options: Arc<ProxyOptions>,
    pub(super) done: oneshot::Sender<Result<(), String>>,
}

pub(super) fn spawn(shared: Arc<Shared>, place: Place) -> Result<JoinHandle<Result<(), String>>, String> {
    std::thread::Builder::new()
        .name(format!("worker-{}", place.index))
        .spawn(move || {
            let stop = shared.drain.clone();
            let running = place.running.clone();
            let result = super::runtime().and_then(|runtime| {
                // What is cut off is dropped with the tasks, after the last await but still inside the runtime.
                let _inside = runtime.enter();
                LocalSet::new().block_on(&runtime, work(shared, place))
            });
            // A worker that cannot go on takes the process with it: half a sidecar helps nobody.
            stop.begin();
            drop(running);
            result
        })
        .map_err(|error| format!("no thread for a worker: {error}"))
}

async fn work(shared: Arc<Shared>, place: Place) -> Result<(), String> {
    let Place { listeners, seat, counters, mut orders, in_use, .. } = place;
    let log = match &shared.sink {
        Some(sink) => AccessLog::new(sink.clone(), Arc::clone(&counters)),
        None => AccessLog::off(Arc::clone(&counters)),
    };
    let parts = Parts {
        store: shared.store.as_ref().map(|store| store.attach(&shared.drain)),
        lines: Arc::clone(&shared.lines),
        drain: shared.drain.clone(),
        in_use,
        counters: Arc::clone(&counters),
        events: Arc::clone(&shared.events),
        log: Rc::new(log),
        store_deadline: shared.store_deadline,
    };
    let current = Rc::new(Current::new(&shared.proxy, parts)?);
    let server = Server {
        options: shared.server.clone(),
        limit: shared.limit.clone(),
        counters,
        drain: shared.drain.clone(),
    };
    let renewed = Rc::clone(&current);
    // Not counted by the drain: it ends with the worker.
    tokio::task::spawn_local(async move {
        while let Some(Order { options, done }) = orders.recv().await {
            // Nobody waits any more when the stop has begun.
            let _ = done.send(renewed.renew(&options));
        }
    });
    let housekeeping = Rc::clone(&current);
    let cut_off = shared.cut_off.stopping();
    tokio::select! {
        served = server.serve(listeners, current, Some(seat), move || housekeeping.tick()) => {
            served.map_err(|error| format!("a worker cannot serve its listeners: {error}"))
        }
        // What still runs is dropped with this worker's tasks, and says so in the access log.
        () = cut_off => Ok(()),
    }
}

/// The proxy that serves new requests.
struct Current {
    proxy: RefCell<Rc<Proxy>>,
    parts: Parts,
}

impl Current {
    fn new(options: &ProxyOptions, parts: Parts) -> Result<Self, String> {
        let proxy = Rc::new(Proxy::new(options.clone(), parts.clone(), None)?);
        Ok(Self { proxy: RefCell::new(proxy), parts })
    }

    fn renew(&self, options: &ProxyOptions) -> Result<(), String> {
        let before = self.now();
        let fresh = Proxy::new(options.clone(), self.parts.clone(), Some(&before))?;
        self.proxy.replace(Rc::new(fresh));
        Ok(())
    }

    fn now(&self) -> Rc<Proxy> {
        Rc::clone(&self.proxy.borrow())
    }

    fn tick(&self) {
        self.now().tick();
    }
}

impl Handler for Current {
    type Body = ResponseBody;

    fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: Rc<Peer>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static {
        let in_use = self.parts.in_use.guard();
        let answer = self.now().handle(request, peer);
        async move {
            let _in_use = in_use;
            answer.await
        }
    }
}
