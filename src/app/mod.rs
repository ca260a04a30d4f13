//! The composition root: a checked [`Config`] becomes bound listeners, workers with a proxy each, an admin port and a bounded stop.
//!
//! One `current_thread` runtime per worker thread: a connection lives on one worker, and so does everything it touches, so that
//! nothing on a request's path is shared or locked. The main thread has a runtime of its own for signals and the admin port.
//! Tests: `tests/it/drain.rs` and every other module there, which run the binary.
//!
//! | file | what for |
//! |---|---|
//! | `worker` | one worker thread, and the swap of its proxy |
//! | `oversee` | the main thread: signals, the admin port, the stop |
//! | `reload` | the configuration read again; `watch`: when a file has changed |
//! | `takeover` | SIGUSR2: the old process's side; `heir`: the new one's; `notify`: systemd hears of it |
//! | `announce` | what a person reads at the start |

mod announce;
mod heir;
mod notify;
mod oversee;
mod reload;
mod takeover;
mod watch;
mod worker;

use crate::config::Config;
use crate::drain::Drain;
use crate::events::Events;
use crate::proxy::Lines;
use crate::proxy::options::ProxyOptions;
use crate::server::{ConnectionLimit, ListenerOptions, ServerOptions, raise_open_files, seats};
use crate::store::SharedStore;
use crate::telemetry::access::{AccessWriter, Sink};
use crate::telemetry::counters::Counters;
use crate::telemetry::life::Life;
use announce::{announce, format_of, start_log};
use heir::Heir;
use oversee::{Charge, oversee};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::LocalSet;
use worker::Place;

/// How long the last lines of the access log may take, within what is left of `timeouts.drain` …
const LOG_FLUSH: Duration = Duration::from_secs(2);
/// … and how long they, and what was cut off, may take beyond it.
const OVERTIME: Duration = Duration::from_millis(100);

/// Where a configuration came from, to read it again.
#[derive(Debug)]
pub struct Origin {
    /// Its file.
    pub path: PathBuf,
    /// The files that it names.
    pub files: Vec<PathBuf>,
}

/// Runs until SIGTERM or SIGINT and then until everything has drained, `timeouts.drain` at most. With an `origin` it takes a
/// changed configuration (SIGHUP, `server.reload`) while it runs.
///
/// # Errors
/// A text for the operator: an address that cannot be bound, a store file that cannot be opened.
pub fn run(config: Config, origin: Option<Origin>) -> Result<(), String> {
    start_log(&config.log)?;
    // The mongodb driver and rustls look the provider up; a second call is no fault.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    raise_open_files(config.server.max_connections);
    let mut heir = Heir::find()?;
    let mut listen = |options: &ListenerOptions| Heir::listen(heir.as_mut(), options);
    let listeners = config.listeners.iter().map(&mut listen).collect::<Result<Vec<_>, _>>()?;
    let admin = config.admin.as_ref().map(|admin| ListenerOptions::new(admin.address.clone()));
    let admin_listener = admin.as_ref().map(listen).transpose()?;
    let access = start_access_log(&config)?;
    let runtime = runtime()?;
    let store = open_store(&config, heir.as_ref(), &runtime)?;
    announce(&config, &listeners, admin_listener.as_ref());

    let shared = Arc::new(Shared::new(&config, store, access.as_ref().map(AccessWriter::sink)));
    let counters: Vec<Arc<Counters>> = (0..config.threads).map(|_| Arc::default()).collect();
    let in_use: Vec<Drain> = counters.iter().map(|_| Drain::new()).collect();
    let (running, ended) = channel();
    let (orders, inboxes): (Vec<_>, Vec<_>) = counters.iter().map(|_| unbounded_channel()).unzip();
    let threads = seats(&counters)
        .into_iter()
        .zip(inboxes)
        .enumerate()
        .map(|(index, (seat, orders))| {
            let (listeners, counters) = (listeners.clone(), Arc::clone(&counters[index]));
            let (in_use, running) = (in_use[index].clone(), running.clone());
            let place = Place { index, listeners, seat, counters, orders, in_use, running };
            worker::spawn(Arc::clone(&shared), place)
        })
        .collect::<Result<_, _>>()?;
    let workers = Workers { threads, ended };
    drop(running);

    let admin = admin_listener.zip(config.admin.clone());
    let charge = Charge {
        shared: Arc::clone(&shared),
        config,
        origin,
        heir,
        admin,
        counters,
        workers: orders,
        in_use,
        listeners: Rc::new(listeners),
    };
    let outcome = LocalSet::new().block_on(&runtime, oversee(charge));
    // Without waiting for a name that the admin port's store may be looking up.
    runtime.shutdown_background();
    finish(workers, shared, access, outcome)
}

/// What all workers share; nothing in it is locked on a request's path.
struct Shared {
    /// What the workers begin with.
    proxy: ProxyOptions,
    server: ServerOptions,
    limit: ConnectionLimit,
    store: Option<SharedStore>,
    store_deadline: Duration,
    lines: Arc<Lines>,
    events: Arc<Events>,
    life: Arc<Life>,
    drain: Drain,
    /// Begins when `timeouts.drain` has passed: workers drop what still runs and end.
    cut_off: Drain,
    sink: Option<Sink>,
}

impl Shared {
    fn new(config: &Config, store: Option<SharedStore>, sink: Option<Sink>) -> Self {
        Self {
            proxy: config.proxy.clone(),
            server: config.server.clone(),
            limit: ConnectionLimit::new(config.server.max_connections),
            store,
            store_deadline: config.store.as_ref().map_or(Duration::ZERO, |store| store.deadline),
            lines: Arc::new(Lines::default()),
            events: Arc::new(Events::new(config.log.session_events)),
            life: Arc::default(),
            drain: Drain::new(),
            cut_off: Drain::new(),
            sink,
        }
    }
}

/// The worker threads.
struct Workers {
    threads: Vec<JoinHandle<Result<(), String>>>,
    /// Disconnected when all have ended.
    ended: Receiver<()>,
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

/// The store, after everything else that may fail: an heir gets a file only when the process before lets it go.
fn open_store(
    config: &Config,
    heir: Option<&Heir>,
    runtime: &Runtime,
) -> Result<Option<SharedStore>, String> {
    let Some(options) = &config.store else { return Ok(None) };
    if let Some(heir) = heir {
        heir.wait_for_store(options)?;
    }
    let store = SharedStore::open(options.clone())?;
    if heir.is_some() {
        LocalSet::new().block_on(runtime, heir::try_store(&store))?;
    }
    Ok(Some(store))
}

fn start_access_log(config: &Config) -> Result<Option<AccessWriter>, String> {
    if !config.log.access {
        return Ok(None);
    }
    AccessWriter::stdout(format_of(config.log.format))
        .map(Some)
        .map_err(|error| format!("access log: {error}"))
}
