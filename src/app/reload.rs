//! The configuration read again while the program runs: checked completely, compared with what serves, handed to the workers.
//!
//! A wrong configuration changes nothing. What cannot change without a restart is named and stays as it was; the rest is taken.
//! Tests: below, and `tests/it/reload.rs`.

use super::announce::{announce_routes, word};
use super::watch::Watch;
use super::worker::Order;
use super::{Origin, Shared};
use crate::admin::Admin;
use crate::config::{self, Config, Problem, Reload, Warning};
use crate::server::{Listener, ListenerOptions};
use crate::telemetry::log;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// What the main thread needs for a reload.
pub(super) struct Reloader {
    path: PathBuf,
    /// What serves.
    pub(super) config: Config,
    watch: Watch,
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Order>>,
    listeners: Rc<Vec<Listener>>,
    admin: Option<Rc<Admin>>,
}

impl Reloader {
    pub(super) fn new(
        origin: Origin,
        config: Config,
        shared: Arc<Shared>,
        workers: Vec<UnboundedSender<Order>>,
        listeners: Rc<Vec<Listener>>,
        admin: Option<Rc<Admin>>,
    ) -> Self {
        let watch = watch(&origin.path, origin.files);
        Self { path: origin.path, config, watch, shared, workers, listeners, admin }
    }

    /// Resolves when a file has changed; never with `server.reload = "signal"`.
    pub(super) async fn changed(&mut self) {
        match self.config.reload {
            Reload::Watch => self.watch.changed().await,
            Reload::Signal => std::future::pending().await,
        }
    }

    /// Reads, checks and takes the configuration; says in the log and in the metrics what became of it.
    pub(super) async fn reload(&mut self) {
        let config::Reading { outcome, files } = config::read(&self.path);
        let outcome = outcome.map_err(|problems| problems.0.iter().map(Problem::to_line).collect::<Vec<_>>());
        let taken = match outcome {
            Ok((fresh, warnings)) => {
                self.watch = watch(&self.path, files);
                match settle(&self.config, fresh) {
                    Ok((config, kept)) => self.take(config, &warnings, &kept).await,
                    Err(why) => Err(vec![why]),
                }
            }
            // The files that it could not name are watched as before.
            Err(problems) => Err(problems),
        };
        match taken {
            Ok(()) => self.shared.life.reloaded(),
            Err(problems) => {
                self.shared.life.refused();
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                let count = problems.len();
                tracing::error!(
                    problems = count,
                    "the new configuration is refused; the one before serves on"
                );
            }
        }
    }

    async fn take(
        &mut self,
        config: Config,
        warnings: &[Warning],
        kept: &[&'static str],
    ) -> Result<(), Vec<String>> {
        for (listener, options) in self.listeners.iter().zip(&config.listeners) {
            listener.reconfigure(options).map_err(|why| vec![why])?;
        }
        let options = Arc::new(config.proxy.clone());
        let order = |worker: &UnboundedSender<Order>| {
            let (done, answer) = oneshot::channel();
            // A worker that has ended takes the process with it; nothing is to be said here.
            worker.send(Order { options: Arc::clone(&options), done }).ok().map(|()| answer)
        };
        let answers: Vec<_> = self.workers.iter().filter_map(order).collect();
        for answer in answers {
            if let Ok(Err(why)) = answer.await {
                return Err(vec![why]);
            }
        }
        if let (Some(admin), Some(options)) = (&self.admin, &config.admin) {
            admin.set_token(options.token.clone());
        }
        self.shared.events.set_log(config.log.session_events);
        if let Err(why) = log::set_level(word(config.log.level)) {
            tracing::error!(%why);
        }
        warnings.iter().for_each(|warning| tracing::warn!("{}", warning.0.to_line()));
        if !kept.is_empty() {
            let keys = kept.join(", ");
            tracing::warn!(keys, "these have changed and stay as they were until a restart");
        }
        tracing::info!("the new configuration serves");
        announce_routes(&config);
        self.config = config;
        Ok(())
    }
}

fn watch(path: &std::path::Path, mut files: Vec<PathBuf>) -> Watch {
    files.push(path.to_owned());
    Watch::new(files)
}

/// The fresh configuration with what cannot change as it is now, and the names of what differs there.
///
/// # Errors
/// When the fresh one cannot serve without a restart.
fn settle(current: &Config, mut fresh: Config) -> Result<(Config, Vec<&'static str>), String> {
    if current.store.is_none() && fresh.store.is_some() {
        return Err("sessions are on now, and no store is open: restart to open one".to_owned());
    }
    let mut kept = Vec::new();
    let mut differs = |differs: bool, name| {
        if differs {
            kept.push(name);
        }
        differs
    };
    let listeners = keep_addresses(&current.listeners, &fresh.listeners);
    differs(listeners.is_none(), "the addresses of [[listener]]");
    fresh.listeners = listeners.unwrap_or_else(|| current.listeners.clone());
    // Plain numbers: equal text, equal options.
    if differs(
        format!("{:?}", current.server) != format!("{:?}", fresh.server),
        "[timeouts] and [limits] of client connections",
    ) {
        fresh.server = current.server.clone();
    }
    if differs(current.threads != fresh.threads, "server.threads") {
        fresh.threads = current.threads;
    }
    let address = |config: &Config| config.admin.as_ref().map(|admin| admin.address.clone());
    if differs(address(current) != address(&fresh), "admin.address") {
        let token = fresh.admin.and_then(|admin| admin.token);
        fresh.admin = current.admin.clone();
        if let (Some(admin), Some(token)) = (&mut fresh.admin, token) {
            admin.token = Some(token);
        }
    }
    let log = |config: &Config| (config.log.access, config.log.format);
    if differs(log(current) != log(&fresh), "log.access, log.format") {
        (fresh.log.access, fresh.log.format) = log(current);
    }
    let other_store = fresh.store.is_some() && fresh.store != current.store;
    let now = current.proxy.session.as_ref().map(|session| &session.policy);
    if differs(other_store, "[store], timeouts.store, limits.session")
        && let (Some(fresh), Some(now)) = (&mut fresh.proxy.session, now)
    {
        (fresh.policy.ttl, fresh.policy.touch_after) = (now.ttl, now.touch_after);
        (fresh.policy.max_payload, fresh.policy.store_keys) = (now.max_payload, now.store_keys.clone());
    }
    fresh.store.clone_from(&current.store);
    Ok((fresh, kept))
}

/// The fresh listeners in the order of those that are bound; `None` when there is another address, more or fewer of them.
fn keep_addresses(bound: &[ListenerOptions], fresh: &[ListenerOptions]) -> Option<Vec<ListenerOptions>> {
    let mut left: Vec<&ListenerOptions> = fresh.iter().collect();
    let take = |bound: &ListenerOptions| {
        let index = left.iter().position(|fresh| fresh.address == bound.address)?;
        Some(left.remove(index).clone())
    };
    let kept: Option<Vec<_>> = bound.iter().map(take).collect();
    kept.filter(|_| left.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const PLAIN: &str = "[[listener]]\naddress = '127.0.0.1:1'\n[upstream.a]\nservers = ['http://[::1]:1']\n\
                         [[route]]\npath = '/'\nupstream = 'a'\n";
    const SECRETS: &str = "[session]\nsecrets = ['0123456789abcdef0123456789abcdef']\n";

    fn config(more: &str) -> Config {
        let text = format!("{PLAIN}{more}");
        config::parse(&text, "p.toml", Path::new(""), |_| None).unwrap_or_else(|p| panic!("{p}")).0
    }

    #[test]
    fn what_needs_a_restart_is_named_and_kept_and_the_rest_is_taken() {
        let current = config(&format!(
            "{SECRETS}[store]\nkind = 'memory'\n[admin]\naddress = '127.0.0.1:2'\ntoken = 'a'\n"
        ));
        let other = "[session]\nname = 'other'\nsecrets = ['fedcba9876543210fedcba9876543210']\n\
                     [store]\nkind = 'file'\nttl = '1h'\n[server]\nthreads = 7\n\
                     [admin]\naddress = '127.0.0.1:3'\ntoken = 'b'\n[timeouts]\nkeep_alive = '1s'\ndrain = '7s'\n\
                     [log]\naccess = false\nlevel = 'debug'\n";
        let (settled, kept) = settle(&current, config(other)).unwrap();
        assert_eq!(
            kept,
            [
                "[timeouts] and [limits] of client connections",
                "server.threads",
                "admin.address",
                "log.access, log.format",
                "[store], timeouts.store, limits.session",
            ]
        );
        let session = settled.proxy.session.unwrap();
        assert_eq!(session.name(), "other");
        assert_eq!((session.policy.ttl, &session.policy.store_keys[..]), (14 * 86_400_000, &[][..]));
        assert_eq!(settled.threads, current.threads);
        assert_eq!(settled.store, current.store);
        assert_eq!(settled.drain.as_secs(), 7);
        assert!(settled.log.access && settled.log.level == config::LogLevel::Debug);
        let admin = settled.admin.unwrap();
        assert_eq!((admin.address, admin.token.unwrap().0), (current.admin.unwrap().address, b"b".to_vec()));
    }

    #[test]
    fn the_same_again_keeps_nothing_back_and_a_store_that_nobody_opened_is_refused() {
        let on = config(SECRETS);
        assert_eq!(settle(&on, config(SECRETS)).unwrap().1, [] as [&str; 0]);
        let off =
            || config::parse(&format!("{PLAIN}session = 'off'\n"), "p", Path::new(""), |_| None).unwrap().0;
        assert!(settle(&off(), on.clone()).unwrap_err().contains("restart"));
        let (settled, kept) = settle(&on, off()).unwrap();
        assert!(settled.proxy.session.is_none() && kept.is_empty());
        // The store is still open: sessions may come back.
        assert!(settle(&settled, on).is_ok());
    }
}
