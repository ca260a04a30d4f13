//! What systemd wants to know (sd_notify(3)), for `Type=notify`: that the service is ready, which process it is now, that it stops.
//! Without `NOTIFY_SOCKET` nobody asked. Tests: `tests/it/takeover.rs`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state`, lines of `NAME=value`. A system that does not listen is no reason to stop: it is said in the log only.
pub(super) fn notify(state: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = address.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&address),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "NOTIFY_SOCKET does not take it");
    }
}
