//! Counters and their Prometheus text. Each worker has its own, so that no cache line travels between cores; rendering adds
//! them up.
//!
//! Labels are fixed words, never text from a stranger. Tests: at the end of this file.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A number that grows; with [`Counter::sub`] a gauge.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// `n` fewer, for gauges; the same worker's counters must have been raised before.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of rare events by two words. A lock, so not for what happens with every request.
#[derive(Debug, Default)]
pub struct Labelled(Mutex<BTreeMap<(String, String), u64>>);

impl Labelled {
    /// One more of `first` and `second`.
    pub fn inc(&self, first: impl Display, second: impl Display) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((first.to_string(), second.to_string())).or_default() += 1;
    }

    /// Gauges: forgets all values and takes these. Workers are added up, so one of them alone may set them.
    pub fn replace(&self, values: impl IntoIterator<Item = ((String, String), u64)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = values.into_iter().collect();
    }

    fn add_to(&self, sums: &mut BTreeMap<(String, String), u64>) {
        for (labels, count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *sums.entry(labels.clone()).or_default() += count;
        }
    }
}

/// Gauges of 0 and 1 that may come and go, by two words. Each worker says only what it changed: the sums over all workers are the truth. A lock, so
/// not for what happens with every request.
#[derive(Debug, Default)]
pub struct Levels(Mutex<BTreeMap<(String, String), (i64, i64)>>);

impl Levels {
    /// `shown` is 1 when the gauge of `first` and `second` appears, -1 when it goes; `by` is what its value changes by.
    pub fn shift(&self, first: impl Display, second: impl Display, shown: i64, by: i64) {
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let level = levels.entry((first.to_string(), second.to_string())).or_default();
        *level = (level.0 + shown, level.1 + by);
    }

    /// Those that are shown, summed over all workers.
    fn sum(workers: &[&Counters]) -> BTreeMap<(String, String), u64> {
        let mut sums: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
        for worker in workers {
            for (labels, level) in worker.endpoints_up.0.lock().unwrap_or_else(PoisonError::into_inner).iter()
            {
                let sum = sums.entry(labels.clone()).or_default();
                *sum = (sum.0 + level.0, sum.1 + level.1);
            }
        }
        let shown = sums.into_iter().filter(|(_, (shown, _))| *shown > 0);
        shown.map(|(labels, (_, level))| (labels, u64::from(level > 0))).collect()
    }
}

/// How often each secret verified the cookie of a live session, and when last. The first sixteen secrets; later ones count as the
/// sixteenth.
#[derive(Debug, Default)]
pub struct KeyUses {
    configured: AtomicUsize,
    keys: [KeyUse; 16],
}

#[derive(Debug, Default)]
struct KeyUse {
    verified: AtomicU64,
    /// Seconds since 1970; 0: never.
    last: AtomicU64,
}

impl KeyUses {
    /// How many secrets there are.
    pub fn configure(&self, count: usize) {
        self.configured.store(count.min(self.keys.len()), Ordering::Relaxed);
    }

    /// The secret with this index verified a cookie; `now` is in milliseconds.
    pub fn verified(&self, index: usize, now: i64) {
        let key = &self.keys[index.min(self.keys.len() - 1)];
        key.verified.fetch_add(1, Ordering::Relaxed);
        key.last.store(u64::try_from(now / 1000).unwrap_or_default(), Ordering::Relaxed);
    }

    /// How often, and when last, over all workers.
    fn sum(workers: &[&Counters], index: usize) -> (u64, u64) {
        let keys = || workers.iter().map(|worker| &worker.cookie_keys.keys[index]);
        let verified = keys().map(|key| key.verified.load(Ordering::Relaxed)).sum();
        (verified, keys().map(|key| key.last.load(Ordering::Relaxed)).max().unwrap_or_default())
    }
}

/// What is counted. Names and meanings in Prometheus's words: [`render`].
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the HELP texts below say it, and a test checks that each field has one")]
pub struct Counters {
    pub responses_1xx: Counter,
    pub responses_2xx: Counter,
    pub responses_3xx: Counter,
    pub responses_4xx: Counter,
    pub responses_5xx: Counter,
    pub response_bytes: Counter,
    pub request_bytes: Counter,
    pub bad_requests: Counter,
    pub redirected_to_https: Counter,
    pub connections_accepted: Counter,
    pub connections_open: Counter,
    pub connections_refused_tls: Counter,
    pub connections_timed_out: Counter,
    pub accept_errors: Counter,
    pub sessions_loaded: Counter,
    pub sessions_created: Counter,
    pub sessions_updated: Counter,
    pub sessions_touched: Counter,
    pub sessions_destroyed: Counter,
    pub sessions_regenerated: Counter,
    pub sessions_vanished: Counter,
    pub sessions_unreadable: Counter,
    pub events_create: Counter,
    pub events_update: Counter,
    pub events_set: Counter,
    pub events_touch: Counter,
    pub events_destroy: Counter,
    pub cookies_forged: Counter,
    pub updates_invalid: Counter,
    pub update_conflicts: Counter,
    pub access_lines_dropped: Counter,
    pub cookie_keys: KeyUses,
    pub connections_closed: Labelled,
    pub certificates: Labelled,
    pub store_errors: Labelled,
    pub upstream_errors: Labelled,
    pub upstream_retries: Counter,
    pub endpoints_up: Levels,
}

impl Counters {
    /// Counts an answer by the class of its status.
    pub fn response(&self, status: u16) {
        match status {
            100..200 => &self.responses_1xx,
            200..300 => &self.responses_2xx,
            300..400 => &self.responses_3xx,
            400..500 => &self.responses_4xx,
            _ => &self.responses_5xx,
        }
        .inc();
    }
}

/// Prometheus text (version 0.0.4) of the sums over all workers.
pub fn render<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> String {
    let mut text = Text::default();
    let workers: Vec<&Counters> = workers.into_iter().collect();
    let sum = |pick: fn(&Counters) -> &Counter| workers.iter().map(|worker| pick(worker).value()).sum();
    let labelled = |pick: fn(&Counters) -> &Labelled| {
        let mut sums = BTreeMap::new();
        workers.iter().for_each(|worker| pick(worker).add_to(&mut sums));
        sums
    };
    text.family("responses_total", "counter", "Answers by the class of their status.");
    text.sample("responses_total", "{class=\"1xx\"}", sum(|c| &c.responses_1xx));
    text.sample("responses_total", "{class=\"2xx\"}", sum(|c| &c.responses_2xx));
    text.sample("responses_total", "{class=\"3xx\"}", sum(|c| &c.responses_3xx));
    text.sample("responses_total", "{class=\"4xx\"}", sum(|c| &c.responses_4xx));
    text.sample("responses_total", "{class=\"5xx\"}", sum(|c| &c.responses_5xx));
    for (name, kind, help, pick) in SINGLE {
        text.family(name, kind, help);
        text.sample(name, "", sum(*pick));
    }
    text.family(
        "session_events_total",
        "counter",
        "Acknowledged changes of stored sessions, in express-session's words.",
    );
    text.sample("session_events_total", "{event=\"create\"}", sum(|c| &c.events_create));
    text.sample("session_events_total", "{event=\"update\"}", sum(|c| &c.events_update));
    text.sample("session_events_total", "{event=\"set\"}", sum(|c| &c.events_set));
    text.sample("session_events_total", "{event=\"touch\"}", sum(|c| &c.events_touch));
    text.sample("session_events_total", "{event=\"destroy\"}", sum(|c| &c.events_destroy));
    // An old secret whose last use lies further back than the longest cookie may go.
    let secrets = workers.iter().map(|worker| worker.cookie_keys.configured.load(Ordering::Relaxed)).max();
    let uses: Vec<(usize, (u64, u64))> =
        (0..secrets.unwrap_or(0)).map(|index| (index, KeyUses::sum(&workers, index))).collect();
    text.family(
        "cookie_key_verified_total",
        "counter",
        "Cookies of live sessions by the secret that signed them, the signing one first.",
    );
    for (index, (verified, _)) in &uses {
        text.sample("cookie_key_verified_total", &format!("{{key=\"{index}\"}}"), *verified);
    }
    text.family(
        "cookie_key_last_verified_timestamp_seconds",
        "gauge",
        "When that was last; 0: not since the start.",
    );
    for (index, (_, last)) in &uses {
        text.sample("cookie_key_last_verified_timestamp_seconds", &format!("{{key=\"{index}\"}}"), *last);
    }
    text.family(
        "certificate_not_after_timestamp_seconds",
        "gauge",
        "When a listener's certificate ceases to be valid.",
    );
    text.samples(
        "certificate_not_after_timestamp_seconds",
        ("listener", "certificate"),
        labelled(|c| &c.certificates),
    );
    text.labelled(
        "connections_closed_total",
        "Connections closed because of what the client did.",
        ("stage", "reason"),
        labelled(|c| &c.connections_closed),
    );
    text.labelled(
        "store_errors_total",
        "Store operations without an answer.",
        ("op", "kind"),
        labelled(|c| &c.store_errors),
    );
    text.labelled(
        "upstream_errors_total",
        "Exchanges with an upstream that failed.",
        ("upstream", "kind"),
        labelled(|c| &c.upstream_errors),
    );
    text.family("upstream_endpoint_up", "gauge", "1: in service; 0: ejected, or its health checks fail.");
    text.samples("upstream_endpoint_up", ("upstream", "endpoint"), Levels::sum(&workers));
    text.0
}

type Single = (&'static str, &'static str, &'static str, fn(&Counters) -> &Counter);

const SINGLE: &[Single] = &[
    ("response_bytes_total", "counter", "Bytes of response bodies sent downstream.", |c| &c.response_bytes),
    ("request_bytes_total", "counter", "Bytes of request bodies received from downstream.", |c| {
        &c.request_bytes
    }),
    ("bad_requests_total", "counter", "Requests that are no HTTP, or whose head is over a limit.", |c| {
        &c.bad_requests
    }),
    ("redirected_to_https_total", "counter", "Requests sent on to https.", |c| &c.redirected_to_https),
    ("connections_accepted_total", "counter", "Downstream connections accepted.", |c| {
        &c.connections_accepted
    }),
    ("connections_open", "gauge", "Downstream connections and tunnels open now.", |c| &c.connections_open),
    ("connections_refused_tls_total", "counter", "Connections whose TLS handshake failed.", |c| {
        &c.connections_refused_tls
    }),
    (
        "connections_timed_out_total",
        "counter",
        "Connections and HTTP/2 streams closed by a deadline, idle ones not counted.",
        |c| &c.connections_timed_out,
    ),
    ("accept_errors_total", "counter", "Times that accepting was paused for want of resources.", |c| {
        &c.accept_errors
    }),
    ("sessions_loaded_total", "counter", "Sessions found in the store.", |c| &c.sessions_loaded),
    ("sessions_created_total", "counter", "Sessions stored for the first time.", |c| &c.sessions_created),
    ("sessions_updated_total", "counter", "Sessions whose data was written.", |c| &c.sessions_updated),
    ("sessions_touched_total", "counter", "Sessions extended without a change.", |c| &c.sessions_touched),
    ("sessions_destroyed_total", "counter", "Sessions deleted because the app said so.", |c| {
        &c.sessions_destroyed
    }),
    ("sessions_regenerated_total", "counter", "Sessions that got a new id.", |c| &c.sessions_regenerated),
    ("sessions_vanished_total", "counter", "Updates dropped because the session was gone by then.", |c| {
        &c.sessions_vanished
    }),
    ("sessions_unreadable_total", "counter", "Stored documents that are no session.", |c| {
        &c.sessions_unreadable
    }),
    ("cookies_forged_total", "counter", "Session cookies that did not verify.", |c| &c.cookies_forged),
    ("updates_invalid_total", "counter", "Updates from an app that broke the rules.", |c| &c.updates_invalid),
    ("update_conflicts_total", "counter", "Merges that met another writer and were applied again.", |c| {
        &c.update_conflicts
    }),
    (
        "upstream_retries_total",
        "counter",
        "Requests sent again because the first endpoint did not answer.",
        |c| &c.upstream_retries,
    ),
    (
        "access_lines_dropped_total",
        "counter",
        "Lines lost because nobody read the access log fast enough.",
        |c| &c.access_lines_dropped,
    ),
];

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string cannot fail.
        let _ = write!(self.0, "# HELP cloakroom_{name} {help}\n# TYPE cloakroom_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "cloakroom_{name}{labels} {value}");
    }

    fn labelled(
        &mut self,
        name: &str,
        help: &str,
        keys: (&str, &str),
        sums: BTreeMap<(String, String), u64>,
    ) {
        self.family(name, "counter", help);
        self.samples(name, keys, sums);
    }

    fn samples(&mut self, name: &str, keys: (&str, &str), sums: BTreeMap<(String, String), u64>) {
        for ((first, second), value) in sums {
            let labels = format!("{{{}=\"{}\",{}=\"{}\"}}", keys.0, escape(&first), keys.1, escape(&second));
            self.sample(name, &labels, value);
        }
    }
}

/// Upstream names come from the config and may hold anything.
fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up_and_labels_escaped() {
        let (one, two) = (Counters::default(), Counters::default());
        one.response(200);
        two.response(204);
        two.response(503);
        one.connections_open.add(3);
        one.connections_open.sub(1);
        one.store_errors.inc("load", "timeout");
        two.store_errors.inc("load", "timeout");
        two.upstream_errors.inc("a\"\\\nb", "connect");
        let text = render([&one, &two]);
        for expected in [
            "cloakroom_responses_total{class=\"2xx\"} 2\n",
            "cloakroom_responses_total{class=\"5xx\"} 1\n",
            "cloakroom_connections_open 2\n",
            "cloakroom_store_errors_total{op=\"load\",kind=\"timeout\"} 2\n",
            "cloakroom_upstream_errors_total{upstream=\"a\\\"\\\\\\nb\",kind=\"connect\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }

    #[test]
    fn a_level_is_what_all_workers_changed_and_goes_when_nobody_shows_it() {
        let (one, two) = (Counters::default(), Counters::default());
        one.endpoints_up.shift("app", "a", 1, 1);
        one.endpoints_up.shift("app", "b", 1, 1);
        two.endpoints_up.shift("app", "b", 0, -1);
        let text = render([&one, &two]);
        assert!(
            text.contains("cloakroom_upstream_endpoint_up{upstream=\"app\",endpoint=\"a\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("cloakroom_upstream_endpoint_up{upstream=\"app\",endpoint=\"b\"} 0\n"),
            "{text}"
        );
        two.endpoints_up.shift("app", "a", -1, -1);
        assert!(!render([&one, &two]).contains("endpoint=\"a\""));
    }

    #[test]
    fn every_sample_follows_its_help_and_type_and_every_field_is_rendered() {
        let counters = Counters::default();
        for (_, _, _, pick) in SINGLE {
            pick(&counters).add(7);
        }
        for class in [100, 200, 300, 400, 500] {
            (0..7).for_each(|_| counters.response(class));
        }
        let events: [fn(&Counters) -> &Counter; 5] = [
            |c| &c.events_create,
            |c| &c.events_update,
            |c| &c.events_set,
            |c| &c.events_touch,
            |c| &c.events_destroy,
        ];
        events.iter().for_each(|pick| pick(&counters).add(7));
        counters.cookie_keys.configure(1);
        (0..7).for_each(|_| counters.cookie_keys.verified(0, 7000));
        counters.certificates.replace([(("0.0.0.0:443".to_owned(), "cert.pem".to_owned()), 7)]);
        (0..7).for_each(|_| counters.connections_closed.inc("proxy_protocol", "missing"));
        (0..7).for_each(|_| counters.store_errors.inc("load", "timeout"));
        (0..7).for_each(|_| counters.upstream_errors.inc("app", "connect"));
        counters.endpoints_up.shift("app", "a", 1, 1);
        let rendered = render([&counters]);
        let mut families = Vec::new();
        for line in rendered.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                families.push(rest.split(' ').next().unwrap().to_owned());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(families.last().map(String::as_str), Some(name));
                // A gauge of 0 and 1.
                let value = if name == "cloakroom_upstream_endpoint_up" { " 1" } else { " 7" };
                assert!(line.ends_with(value), "{line}: a field is rendered twice or mixed up");
            }
        }
        // The Debug text names every field: one that SINGLE forgets would still be 0 here.
        assert!(!format!("{counters:?}").contains("Counter(0)"), "{counters:?}");
        families.sort();
        let all = families.len();
        families.dedup();
        assert_eq!(families.len(), all);
    }
}
