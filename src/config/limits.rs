//! `[timeouts]` and `[limits]`, with the contract's defaults. Tests: `tests/it/config.rs`.

use super::item::Item;
use super::walk::Table;
use crate::server::ServerOptions;
use crate::upstream::ExchangeTimeouts;
use std::time::Duration;

/// No deadline is shorter than this: zero would mean "always too late".
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// `[timeouts]`
pub(super) struct Timeouts {
    tls_handshake: Duration,
    request_head: Duration,
    keep_alive: Duration,
    pub(super) exchange: ExchangeTimeouts,
    pub(super) store: Duration,
    pub(super) drain: Duration,
}

/// `[limits]`
pub(super) struct Limits {
    request_head: usize,
    header_count: usize,
    pub(super) connections: usize,
    /// `None` is unlimited.
    connections_per_peer: Option<usize>,
    streams: usize,
    control_frames: usize,
    resets: usize,
    /// `None` is unlimited.
    pub(super) request_body: Option<u64>,
    pub(super) session_header: usize,
    pub(super) session: usize,
}

/// Reads `[timeouts]`.
pub(super) fn timeouts(table: &Table<'_>) -> Timeouts {
    let of = |key, seconds| table.duration(key, SHORTEST).unwrap_or(Duration::from_secs(seconds));
    Timeouts {
        tls_handshake: of("tls_handshake", 10),
        request_head: of("request_head", 10),
        keep_alive: of("keep_alive", 75),
        exchange: ExchangeTimeouts {
            connect: of("connect", 3),
            response_head: of("response_head", 60),
            request_body: of("request_body", 30),
            response_body: of("response_body", 60),
            request: total(table, None),
            tunnel: of("tunnel", 3600),
        },
        store: of("store", 2),
        // Zero is meaningful here: stop at once.
        drain: table.duration("drain", Duration::ZERO).unwrap_or(Duration::from_secs(30)),
    }
}

/// `timeouts.request`: a duration, or `"unlimited"`.
fn total(table: &Table<'_>, default: Option<Duration>) -> Option<Duration> {
    match table.get("request") {
        None => default,
        Some(item) if item.says("unlimited") => None,
        Some(item) => item.duration(SHORTEST),
    }
}

/// A route's `timeouts`: those of one exchange may differ, the others belong to the connection or to the process.
pub(super) fn route_timeouts(table: &Table<'_>, defaults: &ExchangeTimeouts) -> ExchangeTimeouts {
    for key in ["tls_handshake", "request_head", "keep_alive", "store", "drain"] {
        if let Some(item) = table.get(key) {
            let hint = "set it in [timeouts]; a route may set connect, response_head, request_body, response_body, request, tunnel";
            item.walk.problem(&item.path, item.key_span.clone(), "not a route's own timeout", hint);
        }
    }
    let of = |key, default| table.duration(key, SHORTEST).unwrap_or(default);
    ExchangeTimeouts {
        connect: of("connect", defaults.connect),
        response_head: of("response_head", defaults.response_head),
        request_body: of("request_body", defaults.request_body),
        response_body: of("response_body", defaults.response_body),
        request: total(table, defaults.request),
        tunnel: of("tunnel", defaults.tunnel),
    }
}

/// Reads `[limits]`.
pub(super) fn limits(table: &Table<'_>) -> Limits {
    let size = |key, least, most, default| usize_of(table.size(key, least..=most).unwrap_or(default));
    let count = |key, least, most, default| usize_of(table.count(key, least..=most).unwrap_or(default));
    Limits {
        // hyper refuses a read buffer below 8 KiB.
        request_head: size("request_head", 8 << 10, 16 << 20, 64 << 10),
        header_count: count("header_count", 10, 10_000, 100),
        connections: count("connections", 1, 10_000_000, 10_000),
        connections_per_peer: table.get("connections_per_peer").and_then(|item| {
            if item.says("unlimited") { None } else { item.count(1..=10_000_000).map(usize_of) }
        }),
        streams: count("streams", 1, 10_000, 128),
        control_frames: count("control_frames", 100, 1_000_000, 5_000),
        resets: count("resets", 1, 1_000_000, 200),
        request_body: table.get("request_body").and_then(|item| body_limit(&item)),
        session_header: size("session_header", 256, 1 << 20, 8 << 10),
        // The most that a MongoDB document holds, less the room for what stands around the session.
        session: size("session", 1 << 10, 15 << 20, 1 << 20),
    }
}

/// `limits.request_body`: a size, or `"unlimited"` (`None`).
pub(super) fn body_limit(item: &Item<'_>) -> Option<u64> {
    if item.says("unlimited") {
        return None;
    }
    item.size(0..=1 << 50, ", or \"unlimited\"")
}

/// What `server` needs of both.
pub(super) fn server_options(timeouts: &Timeouts, limits: &Limits) -> ServerOptions {
    ServerOptions {
        tls_handshake: timeouts.tls_handshake,
        request_head: timeouts.request_head,
        keep_alive: timeouts.keep_alive,
        max_request_head: limits.request_head,
        max_headers: limits.header_count,
        max_connections: limits.connections,
        max_connections_per_peer: limits.connections_per_peer,
        max_streams: u32_of(limits.streams),
        max_control_frames: u32_of(limits.control_frames),
        max_resets: u32_of(limits.resets),
    }
}

/// Ranges above are far below what `u32` holds.
fn u32_of(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Ranges above are far below what any `usize` holds.
pub(super) fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
