//! Real parts for the tests: the sidecar's own binary, an app, clients, a database, a breakable link. Nothing here knows the
//! library's types: the tests talk to the binary over the wire, as its users do.

pub(crate) mod app;
pub(crate) mod client;
pub(crate) mod endpoint;
pub(crate) mod gate;
pub(crate) mod h2;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod message;
pub(crate) mod mongo;
pub(crate) mod mongod;
pub(crate) mod ports;
pub(crate) mod redis;
pub(crate) mod sidecar;
pub(crate) mod ticket;
pub(crate) mod tls;

use std::time::{Duration, Instant};

/// How long a test waits for something that must come: 15 s, or `CLOAKROOM_TEST_PATIENCE` seconds on a slow machine.
pub(crate) fn patience() -> Duration {
    let seconds = std::env::var("CLOAKROOM_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

/// Asks again and again until `probe` has an answer; panics with `what` when patience ends.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {:?} in vain: {what}", patience());
        std::thread::sleep(Duration::from_millis(10));
    }
}
