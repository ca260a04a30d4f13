//! The main thread: the admin port, signals, reloads, a takeover, and the bound on the stop.
//! Tests: `tests/it/drain.rs`, `reload.rs`, `takeover.rs`.

use super::heir::Heir;
use super::notify::notify;
use super::reload::Reloader;
use super::takeover::{self, Estate, News};
use super::worker::Order;
use super::{OVERTIME, Origin, Shared};
use crate::admin::{Admin, AdminOptions};
use crate::config::Config;
use crate::drain::Drain;
use crate::server::{Certificates, ConnectionLimit, Listener, Server};
use crate::store::StoreKind;
use crate::telemetry::counters::Counters;
use rustix::process::{Pid, kill_process};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How long idle connections are waited for in a takeover before a store's file is let go: longer than the server's own patience
/// with them, two seconds and two ticks.
const IDLE_LEAVES: Duration = Duration::from_millis(3100);
/// How long every worker takes to tell its connections that the stop is strict now: longer than a tick.
const TOLD: Duration = Duration::from_millis(600);

/// What the main thread looks after.
pub(super) struct Charge {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Config,
    pub(super) origin: Option<Origin>,
    /// What is to be told that this process serves.
    pub(super) heir: Option<Heir>,
    pub(super) admin: Option<(Listener, AdminOptions)>,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) workers: Vec<UnboundedSender<Order>>,
    /// Each worker's.
    pub(super) in_use: Vec<Drain>,
    pub(super) listeners: Rc<Vec<Listener>>,
}

/// Why the stop begins.
enum Stop {
    /// A signal, or a worker that gave up.
    Asked,
    /// This new process serves.
    Replaced(u32),
    /// A new process would serve if it had the store.
    Inherited(oneshot::Sender<()>),
}

/// Until the stop has ended; the moment that bounds it.
pub(super) async fn oversee(charge: Charge) -> Result<Instant, String> {
    let Charge { shared, config, origin, heir, admin, counters, workers, in_use, listeners } = charge;
    // The admin port has a drain of its own: it answers while requests finish, and counts for nothing.
    let admin_drain = Drain::new();
    if let Some(counters) = counters.first() {
        tokio::task::spawn_local(Certificates::of(&listeners).watch(Arc::clone(counters)));
    }
    let mut offer = Offer::new(&config, &listeners, admin.as_ref().map(|(listener, _)| listener));
    let admin =
        admin.map(|(listener, options)| serve_admin(&shared, listener, options, counters, &admin_drain));
    let bound = config.drain;
    let reloader =
        origin.map(|origin| Reloader::new(origin, config, Arc::clone(&shared), workers, listeners, admin));
    let (stop, bound) = wait_for_stop(&shared, reloader, heir, &mut offer, bound).await?;
    begin(&stop, &shared, &mut offer, &admin_drain);
    let deadline = Instant::now() + bound;
    let running = shared.drain.running();
    tracing::info!(running, within = ?bound, "stopping: no new connections; what runs may finish");
    let handed_over = async {
        match stop {
            Stop::Inherited(closed) => {
                hand_over_store(&shared, &in_use, deadline, closed).await;
                offer.outcome(&admin_drain).await
            }
            _ => Ok(()),
        }
    };
    let (finished, handed_over) = tokio::join!(shared.drain.finished(bound), handed_over);
    if finished {
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
    handed_over.map(|()| deadline)
}

/// The stop begins, in the way that its reason asks for.
fn begin(stop: &Stop, shared: &Shared, offer: &mut Offer, admin_drain: &Drain) {
    match stop {
        Stop::Asked => {
            offer.withdraw();
            notify("STOPPING=1");
            shared.drain.begin();
        }
        Stop::Replaced(process) => {
            admin_drain.begin();
            offer.give_away();
            shared.drain.begin_patiently();
            replaced_by(*process);
        }
        Stop::Inherited(_) => shared.drain.begin_patiently(),
    }
}

/// Closes the store's file as soon as no request needs it any more: tunnels, downloads and streams may go on without it.
async fn hand_over_store(shared: &Shared, in_use: &[Drain], deadline: Instant, closed: oneshot::Sender<()>) {
    let unused = async {
        tokio::select! {
            () = shared.drain.empty() => return,
            () = sleep(IDLE_LEAVES) => {}
        }
        // What is left are streams and tunnels; a connection that carries one gets no further request.
        shared.drain.begin();
        sleep(TOLD).await;
        for worker in in_use {
            worker.empty().await;
        }
    };
    if tokio::time::timeout_at(deadline.into(), unused).await.is_err() {
        tracing::warn!("timeouts.drain has passed; requests that still need the store fail");
    }
    if let Some(store) = &shared.store {
        store.close();
    }
    // It may have ended meanwhile, which its news will tell.
    let _ = closed.send(());
}

/// What a new process may have, and what is heard of it.
struct Offer {
    /// As the configuration names them, the admin port last.
    listeners: Vec<(String, Listener)>,
    store: Option<PathBuf>,
    /// The store is this process's memory.
    forgets: bool,
    news: UnboundedReceiver<News>,
    teller: UnboundedSender<News>,
    /// The process that is about to take over.
    under_way: Option<Pid>,
}

impl Offer {
    fn new(config: &Config, listeners: &[Listener], admin: Option<&Listener>) -> Self {
        let addresses = config.listeners.iter().map(|options| &options.address);
        let named =
            addresses.zip(listeners).chain(config.admin.as_ref().map(|admin| &admin.address).zip(admin));
        let listeners =
            named.map(|(address, listener)| (takeover::name_of(address), listener.clone())).collect();
        let kind = config.store.as_ref().map(|store| &store.kind);
        let store = match kind {
            Some(StoreKind::Embedded { path }) => Some(takeover::store_file(path)),
            _ => None,
        };
        let forgets = matches!(kind, Some(StoreKind::Memory { .. }));
        let (teller, news) = unbounded_channel();
        Self { listeners, store, forgets, news, teller, under_way: None }
    }

    /// Starts a new process.
    fn begin(&mut self) -> Result<(), String> {
        if self.under_way.is_some() {
            return Err("one is under way already".to_owned());
        }
        let share = |(name, listener): &(String, Listener)| Ok((name.clone(), listener.share()?));
        let sockets: std::io::Result<_> = self.listeners.iter().map(share).collect();
        let sockets = sockets.map_err(|error| format!("the sockets cannot be shared: {error}"))?;
        let estate = Estate { sockets, store: self.store.clone() };
        self.under_way = Some(takeover::begin(estate, self.teller.clone())?);
        if self.forgets {
            tracing::warn!("sessions in memory stay behind: store.kind = \"embedded\" keeps them");
        }
        Ok(())
    }

    /// Nobody listens from here on, and nobody takes over any more.
    fn withdraw(&mut self) {
        self.listeners.clear();
        if let Some(process) = self.under_way.take() {
            // It may have ended already.
            let _ = kill_process(process, rustix::process::Signal::TERM);
        }
    }

    /// The sockets and their files are the new process's.
    fn give_away(&mut self) {
        self.listeners.drain(..).for_each(|(_, listener)| listener.own_file(false));
    }

    /// Whether the new process, which has the store by now, serves.
    async fn outcome(&mut self, admin: &Drain) -> Result<(), String> {
        match self.news.recv().await {
            Some(News::Ready(process)) => {
                admin.begin();
                self.give_away();
                replaced_by(process);
                Ok(())
            }
            Some(News::Failed(why)) => {
                Err(format!("the new process failed after it had been given the store: {why}"))
            }
            Some(News::WantsStore(_)) | None => Err("the new process asked for the store twice".to_owned()),
        }
    }
}

fn replaced_by(process: u32) {
    tracing::info!(process, "a new process serves");
    notify(&format!("MAINPID={process}"));
}

fn serve_admin(
    shared: &Shared,
    listener: Listener,
    options: AdminOptions,
    counters: Vec<Arc<Counters>>,
    drain: &Drain,
) -> Rc<Admin> {
    let store = shared.store.as_ref().map(|store| store.attach(drain));
    let (life, events) = (Arc::clone(&shared.life), Arc::clone(&shared.events));
    let admin = Rc::new(Admin::new(options, store, counters, life, events, shared.drain.clone()));
    let server = Server {
        options: shared.server.clone(),
        limit: ConnectionLimit::new(100),
        counters: Arc::default(),
        drain: drain.clone(),
    };
    let handler = Rc::clone(&admin);
    tokio::task::spawn_local(async move {
        if let Err(error) = server.serve(vec![listener], handler, None, || ()).await {
            tracing::error!(%error, "the admin port cannot serve");
        }
    });
    admin
}

/// Looks after reloads and takeovers until something asks for the stop; `timeouts.drain` as it is by then.
async fn wait_for_stop(
    shared: &Shared,
    mut reloader: Option<Reloader>,
    heir: Option<Heir>,
    offer: &mut Offer,
    bound: Duration,
) -> Result<(Stop, Duration), String> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut replace = listen(SignalKind::user_defined2())?;
    // Not before signals are listened for: the next one may come at once.
    match heir {
        Some(heir) => heir.ready(offer.listeners.iter().map(|(_, listener)| listener)),
        None => notify("READY=1"),
    }
    let stop = loop {
        let change = async {
            match &mut reloader {
                Some(reloader) => reloader.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // A worker gave up.
            () = shared.drain.stopping() => break Stop::Asked,
            _ = terminate.recv() => {
                tracing::info!("SIGTERM");
                break Stop::Asked;
            }
            _ = interrupt.recv() => {
                tracing::info!("SIGINT");
                break Stop::Asked;
            }
            Some(news) = offer.news.recv() => match news {
                News::WantsStore(closed) => break Stop::Inherited(closed),
                News::Ready(process) => break Stop::Replaced(process),
                News::Failed(why) => {
                    offer.under_way = None;
                    tracing::error!(%why, "the new process cannot take over; this one serves on");
                    continue;
                }
            },
            _ = replace.recv() => {
                tracing::info!("SIGUSR2: starting a new process to take over");
                if let Err(why) = offer.begin() {
                    tracing::error!(%why, "no takeover; this process serves on");
                }
                continue;
            }
            _ = hangup.recv() => tracing::info!("SIGHUP: reading the configuration again"),
            () = change => tracing::info!("a file has changed: reading the configuration again"),
        }
        match &mut reloader {
            Some(reloader) => reloader.reload().await,
            None => tracing::info!("there is no configuration file to read again"),
        }
    };
    Ok((stop, reloader.map_or(bound, |reloader| reloader.config.drain)))
}

fn listen(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("cannot listen for signals: {error}"))
}
