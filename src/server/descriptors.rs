//! The system's limit of open files: raised as far as it goes, for a connection through the sidecar needs two of them.
//!
//! Tests: `tests/it/limits.rs`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For what is no connection: listeners, the store, logs, runtimes.
const RESERVE: u64 = 100;

/// Raises the soft limit of open files to the hard one, and warns when `max_connections` cannot be served with it: each takes a
/// descriptor downstream and one upstream.
pub fn raise_open_files(max_connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let open_files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        // Nothing is lost by a system that refuses; the warning below says what there is.
        Err(_) => limit.current,
    };
    let needed = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(RESERVE);
    if let Some(open_files) = open_files.filter(|open_files| *open_files < needed) {
        tracing::warn!(
            open_files,
            needed,
            connections = max_connections,
            "the hard limit of open files is too low for limits.connections; raise it (ulimit -Hn, LimitNOFILE=) or lower limits.connections"
        );
    }
}
