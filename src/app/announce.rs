//! What a person reads when the program starts, and the log it goes to. Tests: `tests/it/readme.rs`.

use crate::config::{Config, LogFormat, LogLevel, LogOptions};
use crate::proxy::options::SessionMode;
use crate::server::{Address, Listener};
use crate::store::{StoreKind, StoreOptions};
use crate::telemetry::log::{self, Format};

pub(super) fn format_of(format: LogFormat) -> Format {
    match format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    }
}

pub(super) fn start_log(options: &LogOptions) -> Result<(), String> {
    log::init(format_of(options.format), word(options.level))
}

/// `log.level` as the log understands it.
pub(super) fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

/// The start-up lines that a person reads.
pub(super) fn announce(config: &Config, listeners: &[Listener], admin: Option<&Listener>) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = config.threads, "cloakroom starts");
    for (listener, options) in listeners.iter().zip(&config.listeners) {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let what = if options.redirect_to_https { " (redirects to https)" } else { "" };
        tracing::info!("listening on {}{what}", display_address(scheme, listener.local_addr()));
    }
    announce_routes(config);
    if let (Some(store), Some(session)) = (&config.store, &config.proxy.session) {
        tracing::info!("sessions in {}, cookie `{}`", display_store(store), session.name());
    }
    if let Some(admin) = admin {
        let paths = match config.admin.as_ref().is_some_and(|admin| admin.token.is_some()) {
            true => "/healthz /readyz /metrics, with the token /v1/events",
            false => "/healthz /readyz /metrics",
        };
        tracing::info!("admin on {}: {paths}", display_address("http", admin.local_addr()));
    }
}

/// Where requests go, also after a reload.
pub(super) fn announce_routes(config: &Config) {
    for route in &config.proxy.routes {
        let session = match route.session {
            SessionMode::On => "sessions on",
            SessionMode::ReadOnly => "sessions read-only",
            SessionMode::Off => "sessions off",
        };
        let upstream = &config.proxy.upstreams[route.upstream];
        let servers: Vec<String> = upstream.servers.iter().map(ToString::to_string).collect();
        let host = route.host.as_deref().unwrap_or("");
        tracing::info!("route {host}{} to {} ({}), {session}", route.path, upstream.name, servers.join(", "));
    }
}

fn display_address(scheme: &str, address: &Address) -> String {
    match address {
        Address::Tcp(address) => format!("{scheme}://{address}"),
        Address::Unix(path) => format!("unix:{} ({scheme})", path.display()),
    }
}

fn display_store(store: &StoreOptions) -> String {
    match &store.kind {
        StoreKind::Memory { max_bytes } => format!("memory (at most {max_bytes} bytes; gone at exit)"),
        StoreKind::Embedded { path } => format!("the file {}", path.display()),
        StoreKind::Mongodb(options) => {
            let database = options.database.as_deref().unwrap_or("named in store.url");
            format!("mongodb, collection {}, database {database}", options.collection)
        }
        StoreKind::Redis(options) if options.cluster => {
            format!("redis cluster of {} known nodes, prefix {}", options.urls.len(), options.prefix)
        }
        StoreKind::Redis(options) => format!("redis, prefix {}", options.prefix),
        StoreKind::File(options) => format!("the directory {}", options.path.display()),
    }
}
