//! What became of the configuration's reloads, as Prometheus text. One for the process, written by the main thread only.
//!
//! Knows no configuration. Tests: `tests/it/reload.rs`.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The outcome of the last reload; the start counts as one that succeeded.
#[derive(Debug)]
pub struct Life {
    successful: AtomicBool,
    /// Seconds since 1970.
    succeeded_at: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Life {
    /// Begins now.
    pub fn new() -> Self {
        Self {
            successful: AtomicBool::new(true),
            succeeded_at: AtomicU64::new(now()),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// A new configuration serves.
    pub fn reloaded(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.succeeded_at.store(now(), Ordering::Relaxed);
        self.successful.store(true, Ordering::Relaxed);
    }

    /// A new configuration was wrong; the old one serves on.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.successful.store(false, Ordering::Relaxed);
    }

    /// Prometheus text (version 0.0.4).
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, u64)]| {
            // Writing into a string cannot fail.
            let _ = write!(text, "# HELP cloakroom_{name} {help}\n# TYPE cloakroom_{name} {kind}\n");
            for (labels, value) in samples {
                let _ = writeln!(text, "cloakroom_{name}{labels} {value}");
            }
        };
        let value = |number: &AtomicU64| number.load(Ordering::Relaxed);
        family(
            "config_last_reload_successful",
            "gauge",
            "1: the configuration file is what serves. 0: it was wrong when it was read last, and an older one serves.",
            &[("", u64::from(self.successful.load(Ordering::Relaxed)))],
        );
        family(
            "config_last_reload_success_timestamp_seconds",
            "gauge",
            "When the configuration that serves was read.",
            &[("", value(&self.succeeded_at))],
        );
        family(
            "config_reloads_total",
            "counter",
            "Reloads by what became of them.",
            &[("{outcome=\"taken\"}", value(&self.taken)), ("{outcome=\"refused\"}", value(&self.refused))],
        );
        text
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
