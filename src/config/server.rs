//! `[server]`, `[admin]` and `[log]`. Tests: `tests/it/config.rs`.

use super::address::{self, is_local};
use super::item::Item;
use super::limits::usize_of;
use super::listener::Listeners;
use super::secret;
use super::walk::Table;
use crate::admin::AdminOptions;
use crate::headers::forwarded::{Trust, TrustSetting};
use crate::proxy::options::UnderscoreHeaders;
use toml::de::DeValue;

/// `[log]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// `access`: one line for each request; default true.
    pub access: bool,
    /// `session_events`: a record for each change of a stored session.
    pub session_events: bool,
    /// `format`; default `auto`.
    pub format: LogFormat,
    /// `level`; default `info`.
    pub level: LogLevel,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.level`: the least important records that are still written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// `server.reload`: when the configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// At SIGHUP, and when the file or one that it names has changed.
    Watch,
    /// At SIGHUP only.
    Signal,
}

/// `[server]`
pub(super) struct Server {
    /// `None` when a problem was reported.
    pub(super) trust: Option<Trust>,
    /// Somebody may speak for the client: `trust_proxy` is not `false`.
    pub(super) trusts_anyone: bool,
    pub(super) underscore_headers: UnderscoreHeaders,
    pub(super) forwarded: bool,
    pub(super) threads: usize,
    pub(super) reload: Reload,
}

/// Reads `[server]`.
pub(super) fn server(table: &Table<'_>) -> Server {
    let item = table.get("trust_proxy");
    let setting = item.as_ref().map_or(Some(TrustSetting::None), trust_setting);
    let trusts_anyone = setting.as_ref().is_some_and(|setting| !matches!(setting, TrustSetting::None));
    let trust = setting.and_then(|setting| match Trust::new(setting) {
        Ok(trust) => Some(trust),
        Err((index, why)) => {
            refuse_trust(item.as_ref()?, index, &why);
            None
        }
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Server {
        trust,
        trusts_anyone,
        underscore_headers: table
            .choice(
                "underscore_headers",
                &[
                    ("drop", UnderscoreHeaders::Drop),
                    ("pass", UnderscoreHeaders::Pass),
                    ("reject", UnderscoreHeaders::Reject),
                ],
            )
            .unwrap_or(UnderscoreHeaders::Drop),
        forwarded: table.flag("forwarded").unwrap_or(false),
        threads: table.count("threads", 1..=1024).map_or(cores, usize_of),
        reload: table
            .choice("reload", &[("watch", Reload::Watch), ("signal", Reload::Signal)])
            .unwrap_or(Reload::Watch),
    }
}

/// Express's forms; `None` when a problem was reported.
fn trust_setting(item: &Item<'_>) -> Option<TrustSetting> {
    match item.value() {
        DeValue::Boolean(false) => Some(TrustSetting::None),
        DeValue::Boolean(true) => {
            let hint = "a client can then claim any address; name your proxies instead, like [\"loopback\", \"10.0.0.0/8\"]";
            item.warning("every peer is trusted", hint);
            Some(TrustSetting::All)
        }
        DeValue::Integer(_) => {
            let hops = item.count(0..=255)?;
            Some(if hops == 0 { TrustSetting::None } else { TrustSetting::Hops(u32::try_from(hops).ok()?) })
        }
        DeValue::String(_) => {
            let text = item.text()?;
            let parts: Vec<String> = text.value.split(',').map(|part| part.trim().to_owned()).collect();
            let sound = parts.iter().all(|part| trusted_peer(item, part, &text.shown));
            sound.then_some(TrustSetting::List(parts))
        }
        _ => {
            let items =
                item.list("false, true, a number of hops, or a list like [\"loopback\", \"10.0.0.0/8\"]")?;
            let parts = items.iter().map(|item| {
                let text = item.text()?;
                trusted_peer(item, &text.value, &text.shown).then_some(text.value)
            });
            // First all, then any: every bad one is reported.
            let parts: Vec<Option<String>> = parts.collect();
            let parts: Option<Vec<String>> = parts.into_iter().collect();
            parts.map(|parts| if parts.is_empty() { TrustSetting::None } else { TrustSetting::List(parts) })
        }
    }
}

/// The mistakes whose cure is not "write an address".
fn trusted_peer(item: &Item<'_>, part: &str, shown: &str) -> bool {
    if part.parse::<i64>().is_ok() {
        let hint = format!("for a number of hops write it alone and without quotes: trust_proxy = {part}");
        item.problem(format!("`{shown}` is a number in quotes"), hint);
        return false;
    }
    if matches!(part, "true" | "false") {
        item.problem(
            format!("`{shown}` in quotes is no address"),
            format!("write it without quotes: trust_proxy = {part}"),
        );
        return false;
    }
    if part.ends_with("/0") {
        item.problem(
            format!("`{shown}` is every address there is"),
            "name your proxies; trust_proxy = true trusts everybody",
        );
        return false;
    }
    true
}

fn refuse_trust(item: &Item<'_>, index: usize, why: &str) {
    let hint = "write addresses, CIDRs like \"10.0.0.0/8\", or \"loopback\", \"linklocal\", \"uniquelocal\"";
    let items = if item.value().is_array() { item.list("").unwrap_or_default() } else { Vec::new() };
    let item = items.get(index).unwrap_or(item);
    // The reason quotes what it got, which is not for showing when it came from the environment.
    match item.text() {
        Some(text) if text.shown != text.value => {
            item.problem(format!("`{}` is not an address", text.shown), hint)
        }
        _ => item.problem(why, hint),
    }
}

/// Reads `[admin]`; `None` without it, or when a problem was reported.
pub(super) fn admin(table: &Table<'_>, listeners: &Listeners) -> Option<AdminOptions> {
    let token = secret::one(table, "token", "token_file");
    let Some(item) = table.get("address") else {
        if table.exists() {
            table.problem("address", "missing", "write address = \"127.0.0.1:9901\"");
        }
        return None;
    };
    let address = address::listen(&item)?;
    if listeners.list.iter().any(|listener| listener.address == address) {
        item.problem("a listener has the same address", "give the admin port an address of its own");
    }
    if !is_local(&address) {
        item.warning("the admin port is open to other machines", "bind it to 127.0.0.1 or to a unix socket");
    }
    Some(AdminOptions { address, token })
}

/// Reads `[log]`.
pub(super) fn log(table: &Table<'_>) -> LogOptions {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
    ];
    LogOptions {
        access: table.flag("access").unwrap_or(true),
        session_events: table.flag("session_events").unwrap_or(false),
        format: table.choice("format", &formats).unwrap_or(LogFormat::Auto),
        level: table.choice("level", &levels).unwrap_or(LogLevel::Info),
    }
}
