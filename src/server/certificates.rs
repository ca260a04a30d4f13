//! Certificate, key and client CA files are read again when they change; connections that are open keep what they have.
//!
//! A renewal writes several files one after the other, so a change counts once it has stood still for one look. A broken file
//! changes nothing: the old certificate stays, and the log says why. Tests: `tests/it/certificates.rs`.

use super::live::Live;
use super::tls::{Loaded, Stamp};
use super::{Address, Listener};
use crate::telemetry::counters::Counters;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::MissedTickBehavior;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A certificate that ends sooner is worth a warning whenever it is read.
const SOON: u64 = 14 * 24 * 3600;

/// The files of all listeners. Holds no socket open.
pub struct Certificates(Vec<Watched>);

struct Watched {
    listener: String,
    live: Arc<Live>,
    /// As the files were at the last look, and when they were last read.
    seen: Vec<Option<Stamp>>,
    read: Vec<Option<Stamp>>,
}

impl Certificates {
    /// Those of listeners that have TLS now.
    pub fn of(listeners: &[Listener]) -> Self {
        let watched = listeners.iter().filter_map(|listener| {
            let live = Arc::clone(&listener.inner.live);
            let stamps = live.current().tls.as_ref()?.stamps.clone();
            let listener = match listener.local_addr() {
                Address::Tcp(address) => address.to_string(),
                Address::Unix(path) => format!("unix:{}", path.display()),
            };
            Some(Watched { listener, live, seen: stamps.clone(), read: stamps })
        });
        let certificates = Self(watched.collect());
        certificates.0.iter().for_each(Watched::warn_of_the_end);
        certificates
    }

    /// Looks for changes every second, for ever, and keeps the gauges of `counters` (those of one worker) up to date.
    pub async fn watch(mut self, counters: Arc<Counters>) {
        self.show(&counters);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if self.look() {
                self.show(&counters);
            }
        }
    }

    /// Reads every file again, changed or not, without waiting (SIGHUP).
    pub fn reload(&mut self) {
        self.0.iter_mut().for_each(Watched::reload);
    }

    /// One look; has anything been read?
    fn look(&mut self) -> bool {
        let mut any = false;
        for watched in &mut self.0 {
            any |= watched.look();
        }
        any
    }

    fn show(&self, counters: &Counters) {
        let values = self.0.iter().flat_map(|watched| {
            let settings = watched.live.current();
            let ends = settings.tls.as_ref().map(|tls| tls.ends.clone()).unwrap_or_default();
            ends.into_iter().map(|(file, end)| ((watched.listener.clone(), file), end))
        });
        counters.certificates.replace(values);
    }
}

impl Watched {
    fn look(&mut self) -> bool {
        let now = match &self.live.current().tls {
            Some(tls) => tls.stamps_now(),
            None => return false,
        };
        let stood_still = now == self.seen;
        self.seen = now;
        if self.seen == self.read || !stood_still {
            return false;
        }
        self.reload();
        true
    }

    fn reload(&mut self) {
        if let Some(tls) = &self.live.current().tls {
            // Before they are read: what changes meanwhile is seen at the next look.
            self.seen = tls.stamps_now();
        }
        self.read.clone_from(&self.seen);
        match self.live.reload() {
            Ok(()) => {
                tracing::info!(listener = self.listener, "certificates read again");
                self.warn_of_the_end();
            }
            Err(error) => tracing::error!(
                listener = self.listener,
                "the certificates were not replaced, the old ones stay in use: {error}"
            ),
        }
    }

    fn warn_of_the_end(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let settings = self.live.current();
        for (file, end) in settings.tls.iter().flat_map(|tls: &Loaded| &tls.ends) {
            if *end < now {
                tracing::error!(listener = self.listener, file, "this certificate is no longer valid");
            } else if *end < now + SOON {
                let days = (*end - now) / (24 * 3600);
                tracing::warn!(listener = self.listener, file, days, "this certificate ends soon");
            }
        }
    }
}
