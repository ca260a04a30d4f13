//! The composition root: a checked [`Config`] becomes bound listeners, workers with a proxy each, an admin port and a bounded stop.
//!
//! One `current_thread` runtime per worker thread: a connection lives on one worker, and so does everything it touches, so that
//! nothing on a request's path is shared or locked. The main thread has a runtime of its own for signals and the admin port.
//! Tests: `tests/it/drain.rs` and every other module there, which run the binary.

use crate::admin::{Admin, AdminOptions};
use crate::config::{Config, LogFormat, LogLevel, LogOptions};
use crate::drain::Drain;
use crate::events::Events;
use crate::proxy::options::{ProxyOptions, SessionMode};
use crate::proxy::{Lines, Parts, Proxy};
use crate::server::{
    Address, ConnectionLimit, Listener, ListenerOptions, Seat, Server, ServerOptions, raise_open_files, seats,
};
use crate::store::{SharedStore, StoreKind, StoreOptions};
use crate::telemetry::access::{AccessLog, AccessWriter, Sink};
use crate::telemetry::counters::Counters;
use crate::telemetry::log::{self, Format};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// How long the last lines of the access log may take, within what is left of `timeouts.drain` …
const LOG_FLUSH: Duration = Duration::from_secs(2);
/// … and how long they, and what was cut off, may take beyond it.
const OVERTIME: Duration = Duration::from_millis(100);

/// Runs until SIGTERM or SIGINT and then until everything has drained, `timeouts.drain` at most.
///
/// # Errors
/// A text for the operator: an address that cannot be bound, a store file that cannot be opened.
pub fn run(config: Config) -> Result<(), String> {
    start_log(&config.log)?;
    // The mongodb driver and rustls look the provider up; a second call is no fault.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let store = config.store.as_ref().map(|options| SharedStore::open(options.clone())).transpose()?;
    raise_open_files(config.server.max_connections);
    let listeners: Vec<Listener> = config.listeners.iter().map(Listener::bind).collect::<Result<_, _>>()?;
    let admin_listener = config.admin.as_ref().map(bind_admin).transpose()?;
    let access = match config.log.access {
        true => Some(
            AccessWriter::stdout(format_of(config.log.format))
                .map_err(|error| format!("access log: {error}"))?,
        ),
        false => None,
    };
    announce(&config, &listeners, admin_listener.as_ref());

    let shared = Arc::new(Shared {
        proxy: config.proxy,
        server: config.server.clone(),
        limit: ConnectionLimit::new(config.server.max_connections),
        store_deadline: config.store.as_ref().map_or(Duration::ZERO, |store| store.deadline),
        store,
        lines: Arc::new(Lines::default()),
        events: Arc::new(Events::new(config.log.session_events)),
        drain: Drain::new(),
        cut_off: Drain::new(),
        sink: access.as_ref().map(AccessWriter::sink),
    });
    let counters: Vec<Arc<Counters>> = (0..config.threads).map(|_| Arc::default()).collect();
    let (running, ended) = channel();
    let threads = counters
        .iter()
        .zip(seats(&counters))
        .enumerate()
        .map(|(index, (counters, seat))| {
            let (shared, counters) = (Arc::clone(&shared), Arc::clone(counters));
            spawn_worker(index, shared, listeners.clone(), seat, counters, running.clone())
        })
        .collect::<Result<_, _>>()?;
    let workers = Workers { threads, ended };
    drop((listeners, running));

    let admin = admin_listener.zip(config.admin);
    let runtime = runtime()?;
    let outcome = LocalSet::new().block_on(&runtime, oversee(&shared, admin, counters, config.drain));
    // Without waiting for a name that the admin port's store may be looking up.
    runtime.shutdown_background();
    finish(workers, shared, access, outcome)
}

/// What all workers share; nothing in it is locked on a request's path.
struct Shared {
    proxy: ProxyOptions,
    server: ServerOptions,
    limit: ConnectionLimit,
    store: Option<SharedStore>,
    store_deadline: Duration,
    lines: Arc<Lines>,
    events: Arc<Events>,
    drain: Drain,
    /// Begins when `timeouts.drain` has passed: workers drop what still runs and end.
    cut_off: Drain,
    sink: Option<Sink>,
}

/// The worker threads.
struct Workers {
    threads: Vec<JoinHandle<Result<(), String>>>,
    /// Disconnected when all have ended.
    ended: Receiver<()>,
}

fn spawn_worker(
    index: usize,
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    seat: Seat,
    counters: Arc<Counters>,
    running: Sender<()>,
) -> Result<JoinHandle<Result<(), String>>, String> {
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let stop = shared.drain.clone();
            let result = runtime().and_then(|runtime| {
                // What is cut off is dropped with the tasks, after the last await but still inside the runtime.
                let _inside = runtime.enter();
                LocalSet::new().block_on(&runtime, work(shared, listeners, seat, counters))
            });
            // A worker that cannot go on takes the process with it: half a sidecar helps nobody.
            stop.begin();
            drop(running);
            result
        })
        .map_err(|error| format!("no thread for a worker: {error}"))
}

async fn work(
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    seat: Seat,
    counters: Arc<Counters>,
) -> Result<(), String> {
    let log = match &shared.sink {
        Some(sink) => AccessLog::new(sink.clone(), Arc::clone(&counters)),
        None => AccessLog::off(Arc::clone(&counters)),
    };
    let parts = Parts {
        store: shared.store.as_ref().map(|store| store.attach(&shared.drain)),
        lines: Arc::clone(&shared.lines),
        drain: shared.drain.clone(),
        counters: Arc::clone(&counters),
        events: Arc::clone(&shared.events),
        log: Rc::new(log),
        store_deadline: shared.store_deadline,
    };
    let proxy = Rc::new(Proxy::new(shared.proxy.clone(), parts)?);
    let server = Server {
        options: shared.server.clone(),
        limit: shared.limit.clone(),
        counters,
        drain: shared.drain.clone(),
    };
    let housekeeping = Rc::clone(&proxy);
    let cut_off = shared.cut_off.stopping();
    tokio::select! {
        served = server.serve(listeners, proxy, Some(seat), move || housekeeping.tick()) => {
            served.map_err(|error| format!("a worker cannot serve its listeners: {error}"))
        }
        // What still runs is dropped with this worker's tasks, and says so in the access log.
        () = cut_off => Ok(()),
    }
}

/// The main thread: the admin port, signals, and the bound on the stop, which is returned.
async fn oversee(
    shared: &Arc<Shared>,
    admin: Option<(Listener, AdminOptions)>,
    counters: Vec<Arc<Counters>>,
    bound: Duration,
) -> Result<Instant, String> {
    // The admin port has a drain of its own: it answers while requests finish, and counts for nothing.
    let admin_drain = Drain::new();
    if let Some((listener, options)) = admin {
        let store = shared.store.as_ref().map(|store| store.attach(&admin_drain));
        let handler =
            Rc::new(Admin::new(options, store, counters, Arc::clone(&shared.events), shared.drain.clone()));
        let server = Server {
            options: shared.server.clone(),
            limit: ConnectionLimit::new(100),
            counters: Arc::default(),
            drain: admin_drain.clone(),
        };
        tokio::task::spawn_local(async move {
            if let Err(error) = server.serve(vec![listener], handler, None, || ()).await {
                tracing::error!(%error, "the admin port cannot serve");
            }
        });
    }
    wait_for_stop(&shared.drain).await?;
    shared.drain.begin();
    let deadline = Instant::now() + bound;
    let running = shared.drain.running();
    tracing::info!(running, within = ?bound, "stopping: no new connections; what runs may finish");
    if shared.drain.finished(bound).await {
        tracing::info!("stopped");
    } else {
        tracing::warn!(
            running = shared.drain.running(),
            "timeouts.drain has passed; what still runs is cut off"
        );
        shared.cut_off.begin();
    }
    // The admin port's last words.
    admin_drain.begin();
    admin_drain.finished(OVERTIME).await;
    Ok(deadline)
}

async fn wait_for_stop(drain: &Drain) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
        // A worker gave up.
        () = drain.stopping() => {}
    }
    Ok(())
}

/// Ends what has ended by now, by `deadline` and a little more at the latest.
fn finish(
    workers: Workers,
    shared: Arc<Shared>,
    access: Option<AccessWriter>,
    outcome: Result<Instant, String>,
) -> Result<(), String> {
    let deadline = *outcome.as_ref().unwrap_or(&Instant::now());
    let left = || deadline.saturating_duration_since(Instant::now()).max(OVERTIME).min(LOG_FLUSH);
    let all_ended = workers.ended.recv_timeout(left()) == Err(RecvTimeoutError::Disconnected);
    let mut result = outcome.map(drop);
    for worker in workers.threads {
        // A worker that is stuck past the bound is left behind: the process ends without it.
        if all_ended || worker.is_finished() {
            let ended = worker.join().unwrap_or_else(|_| Err("a worker panicked".to_owned()));
            result = result.and(ended);
        }
    }
    if let Ok(shared) = Arc::try_unwrap(shared) {
        drop(shared.sink);
        if let Some(store) = shared.store {
            store.close();
        }
    }
    if let Some(access) = access {
        access.finish(left());
    }
    result
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(200)
        .build()
        .map_err(|error| format!("no async runtime: {error}"))
}

fn bind_admin(options: &AdminOptions) -> Result<Listener, String> {
    Listener::bind(&ListenerOptions { address: options.address.clone(), tls: None, redirect_to_https: false })
}

fn format_of(format: LogFormat) -> Format {
    match format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    }
}

fn start_log(options: &LogOptions) -> Result<(), String> {
    let level = match options.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    log::init(format_of(options.format), level)
}

/// The start-up lines that a person reads.
fn announce(config: &Config, listeners: &[Listener], admin: Option<&Listener>) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = config.threads, "cloakroom starts");
    for (listener, options) in listeners.iter().zip(&config.listeners) {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let what = if options.redirect_to_https { " (redirects to https)" } else { "" };
        tracing::info!("listening on {}{what}", display_address(scheme, listener.local_addr()));
    }
    for route in &config.proxy.routes {
        let session = match route.session {
            SessionMode::On => "sessions on",
            SessionMode::ReadOnly => "sessions read-only",
            SessionMode::Off => "sessions off",
        };
        let upstream = &config.proxy.upstreams[route.upstream];
        let servers: Vec<String> = upstream.servers.iter().map(ToString::to_string).collect();
        let host = route.host.as_deref().unwrap_or("");
        tracing::info!("route {host}{} to {} ({}), {session}", route.path, upstream.name, servers.join(", "));
    }
    if let (Some(store), Some(session)) = (&config.store, &config.proxy.session) {
        tracing::info!("sessions in {}, cookie `{}`", display_store(store), session.name());
    }
    if let Some(admin) = admin {
        let paths = match config.admin.as_ref().is_some_and(|admin| admin.token.is_some()) {
            true => "/healthz /readyz /metrics, with the token /v1/events",
            false => "/healthz /readyz /metrics",
        };
        tracing::info!("admin on {}: {paths}", display_address("http", admin.local_addr()));
    }
}

fn display_address(scheme: &str, address: &Address) -> String {
    match address {
        Address::Tcp(address) => format!("{scheme}://{address}"),
        Address::Unix(path) => format!("unix:{} ({scheme})", path.display()),
    }
}

fn display_store(store: &StoreOptions) -> String {
    match &store.kind {
        StoreKind::Memory { max_bytes } => format!("memory (at most {max_bytes} bytes; gone at exit)"),
        StoreKind::Embedded { path } => format!("the file {}", path.display()),
        StoreKind::Mongodb(options) => {
            let database = options.database.as_deref().unwrap_or("named in store.url");
            format!("mongodb, collection {}, database {database}", options.collection)
        }
        StoreKind::Redis(options) if options.cluster => {
            format!("redis cluster of {} known nodes, prefix {}", options.urls.len(), options.prefix)
        }
        StoreKind::Redis(options) => format!("redis, prefix {}", options.prefix),
        StoreKind::File(options) => format!("the directory {}", options.path.display()),
    }
}
