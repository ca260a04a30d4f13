//! `[upstream.<name>]`. Tests: below (server URLs), `tests/it/config.rs`.

use super::address;
use super::item::Item;
use super::limits::{Limits, SHORTEST, usize_of};
use super::walk::Table;
use crate::proxy::options::RouteOptions;
use crate::upstream::tls::{self, ClientTls, TlsFiles};
use crate::upstream::{
    Balance, Ejection, Endpoint, Group, HealthCheck, MOST_ENDPOINTS, Protocol, UpstreamOptions,
};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Room for the headers of a response other than `X-Session-Update`, bytes.
const RESPONSE_HEADERS: usize = 64 << 10;

/// All upstreams.
pub(super) struct Upstreams {
    /// Those that are sound, in the order of the file.
    pub(super) list: Vec<UpstreamOptions>,
    /// The names of all, and where they stand.
    pub(super) names: Vec<(String, Range<usize>)>,
}

/// Reads `[upstream.*]`.
pub(super) fn upstreams(table: &Table<'_>, limits: &Limits) -> Upstreams {
    // An update of the largest session, as base64url, beside the app's own headers.
    let max_response_head = limits.session / 3 * 4 + RESPONSE_HEADERS;
    let mut upstreams = Upstreams { list: Vec::new(), names: Vec::new() };
    for (name, item) in table.entries() {
        upstreams.names.push((name.to_owned(), item.key_span.clone()));
        if !item.value().is_table() {
            item.problem("not a table", "write [upstream.app] with servers = [\"http://127.0.0.1:3000\"]");
            continue;
        }
        let Some(table) = item.table() else { continue };
        upstreams.list.extend(one(name, &table, limits, max_response_head));
    }
    upstreams
}

fn one(name: &str, table: &Table<'_>, limits: &Limits, max_response_head: usize) -> Option<UpstreamOptions> {
    let servers = servers(table);
    let protocols = [("http1", Protocol::Http1), ("h2c", Protocol::H2c), ("auto", Protocol::Auto)];
    let protocol = table.choice("protocol", &protocols).unwrap_or(Protocol::Http1);
    let tls = tls(table, servers.as_deref(), protocol);
    let balances = [
        ("round-robin", Balance::RoundRobin),
        ("least-requests", Balance::LeastRequests),
        ("sticky", Balance::Sticky),
    ];
    let balance = table.choice("balance", &balances).unwrap_or(Balance::RoundRobin);
    let count = |key, range, default| table.count(key, range).unwrap_or(default);
    let small = |key, range, default| u32::try_from(count(key, range, default)).unwrap_or(u32::MAX);
    let ejection = Ejection {
        after: small("eject_after", 0..=1000, 3),
        span: table.duration("eject_for", SHORTEST).unwrap_or(Duration::from_secs(5)),
    };
    let retries = small("retries", 0..=10, 1);
    // A connection downstream needs one here, but for HTTP/2, whose streams need one each.
    let max_connections = table.count("max_connections", 1..=1_000_000).map_or(limits.connections, usize_of);
    let max_idle = usize_of(count("max_idle", 0..=100_000, 128));
    let idle_timeout = table.duration("idle_timeout", SHORTEST).unwrap_or(Duration::from_secs(4));
    let resolve = table.duration("resolve", Duration::from_millis(500)).unwrap_or(Duration::from_secs(30));
    let health = table.get("health").map(|item| health(&item));
    let servers = servers?;
    Some(UpstreamOptions {
        name: name.to_owned(),
        group: Arc::new(Group::new(servers.len(), ejection)),
        servers,
        balance,
        protocol,
        tls: tls?,
        ejection,
        health: match health {
            Some(health) => Some(health?),
            None => None,
        },
        retries,
        max_connections,
        max_idle,
        idle_timeout,
        resolve,
        max_response_head,
    })
}

/// `None` when a problem was reported.
fn servers(table: &Table<'_>) -> Option<Vec<Endpoint>> {
    let Some(list) = table.get("servers") else {
        table.problem("servers", "missing", "write servers = [\"http://127.0.0.1:3000\"]");
        return None;
    };
    let items = list.list("a list: [\"http://127.0.0.1:3000\"]")?;
    if items.is_empty() {
        list.problem("no server in the list", "write servers = [\"http://127.0.0.1:3000\"]");
        return None;
    }
    if items.len() > MOST_ENDPOINTS {
        list.problem("too many servers", format!("{MOST_ENDPOINTS} at most"));
        return None;
    }
    let servers: Vec<Option<Endpoint>> = items.iter().map(server).collect();
    for (index, server) in servers.iter().enumerate().filter(|(_, server)| server.is_some()) {
        if servers[..index].contains(server) {
            let hint = "it gets the share of two; its failures are counted for each of them";
            items[index].warning("the same server twice", hint);
        }
    }
    servers.into_iter().collect()
}

/// `Some(None)`: no server has TLS.
fn tls(table: &Table<'_>, servers: Option<&[Endpoint]>, protocol: Protocol) -> Option<Option<ClientTls>> {
    let secure =
        servers.is_some_and(|servers| servers.iter().any(|server| matches!(server, Endpoint::Https { .. })));
    let item = table.get("tls");
    if let (Some(item), false, Some(_)) = (&item, secure, servers) {
        item.problem("tls without a server that has it", "write servers = [\"https://…\"], or remove tls");
        // What is wrong inside is said too.
        item.table().as_ref().and_then(tls_files);
        return None;
    }
    if secure
        && protocol == Protocol::H2c
        && let Some(item) = table.get("protocol")
    {
        item.problem("h2c is HTTP/2 without TLS, and a server is https", "write protocol = \"auto\"");
        return None;
    }
    let files = match &item {
        None => TlsFiles::default(),
        Some(item) => tls_files(&item.table()?)?,
    };
    if !secure {
        return Some(None);
    }
    match tls::load(&files, protocol) {
        Ok(tls) => Some(Some(tls)),
        Err(problem) => {
            let inner = item.as_ref().and_then(Item::table);
            let place = inner.as_ref().and_then(|table| table.get(problem.key));
            // The other keys of this second reading were read before.
            if let Some(table) = inner {
                TLS_KEYS.iter().for_each(|key| drop(table.get(key)));
            }
            match place.or(item) {
                Some(place) => place.problem(problem.what, ""),
                None => table.problem("tls", problem.what, ""),
            }
            None
        }
    }
}

const TLS_KEYS: [&str; 5] = ["ca", "cert", "key", "server_name", "insecure"];

fn tls_files(table: &Table<'_>) -> Option<TlsFiles> {
    // `Err` when a problem was reported.
    let file = |key| table.get(key).map(|item| item.path().ok_or(())).transpose();
    let (ca, cert, key) = (file("ca"), file("cert"), file("key"));
    let server_name = table.get("server_name").map(|item| item.text().ok_or(())).transpose();
    let insecure = table.flag("insecure").unwrap_or(false);
    if let (true, Some(item)) = (insecure, table.get("insecure")) {
        item.warning(
            "every certificate is believed",
            "whoever gets between can read and write sessions; name the authority with `ca` instead",
        );
    }
    Some(TlsFiles {
        ca: ca.ok()?,
        cert: cert.ok()?,
        key: key.ok()?,
        server_name: server_name.ok()?.map(|text| text.value),
        insecure,
    })
}

/// `None` when a problem was reported.
fn health(item: &Item<'_>) -> Option<HealthCheck> {
    let table = item.table()?;
    let path = match table.get("path") {
        None => Some("/healthz".to_owned()),
        Some(item) => check_path(&item),
    };
    let interval = table.duration("interval", Duration::from_millis(50)).unwrap_or(Duration::from_secs(5));
    let timeout = table.duration("timeout", SHORTEST).unwrap_or(Duration::from_secs(1));
    let count = |key, default| u32::try_from(table.count(key, 1..=100).unwrap_or(default)).unwrap_or(1);
    let (healthy, unhealthy) = (count("healthy", 2), count("unhealthy", 3));
    let expect = table.count("expect", 100..=599).unwrap_or(200);
    let expect = u16::try_from(expect).unwrap_or(200);
    Some(HealthCheck { path: path?, interval, timeout, healthy, unhealthy, expect })
}

fn check_path(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let sound = text.value.starts_with('/')
        && !text.value.contains('#')
        && text.value.bytes().all(|byte| byte.is_ascii_graphic())
        && http::Uri::try_from(text.value.as_str()).is_ok();
    if !sound {
        item.problem(format!("`{}` is not a path", text.shown), "write one like \"/healthz\"");
        return None;
    }
    Some(text.value)
}

/// Warns about upstreams that nothing leads to.
pub(super) fn warn_unused(root: &Table<'_>, upstreams: &Upstreams, routes: &[RouteOptions]) {
    for (name, span) in &upstreams.names {
        let index = upstreams.list.iter().position(|upstream| upstream.name == *name);
        if index.is_some_and(|index| !routes.iter().any(|route| route.upstream == index)) {
            root.walk.warning(&format!("upstream.{name}"), span.clone(), "no route leads here", "");
        }
    }
}

fn server(item: &Item<'_>) -> Option<Endpoint> {
    let text = item.text()?;
    match parse(&text.value, item.walk.base_dir) {
        Ok(endpoint) => {
            if !is_private(&endpoint) {
                let hint = "keep the app on this machine, or the way to it private: sessions travel it as readable headers";
                item.warning("plain http to another machine", hint);
            }
            Some(endpoint)
        }
        Err((what, hint)) => {
            item.problem(what, hint);
            None
        }
    }
}

/// Nobody between here and there can read along.
fn is_private(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Http { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Endpoint::Https { .. } | Endpoint::Unix(_) => true,
    }
}

fn parse(url: &str, base_dir: &Path) -> Result<Endpoint, (String, String)> {
    let refuse = |what: &str, hint: &str| Err((what.to_owned(), hint.to_owned()));
    if let Some(path) = url.strip_prefix("unix:") {
        return address::unix(path, base_dir)
            .map(Endpoint::Unix)
            .map_err(|_| ("not a socket's path".to_owned(), "write \"unix:/run/app.sock\"".to_owned()));
    }
    let (rest, port, secure) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (rest, 80, false),
        (None, Some(rest)) => (rest, 443, true),
        (None, None) => {
            let hint = "write \"http://127.0.0.1:3000\", \"https://app.internal\" or \"unix:/run/app.sock\"";
            return refuse("not an upstream server", hint);
        }
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(path, "" | "/") {
        return refuse(
            "a path after the server",
            "remove it: the app gets the path that the client asked for",
        );
    }
    if authority.contains('@') {
        return refuse("user and password in the URL of a server", "remove them");
    }
    match split_authority(authority, port) {
        Some((host, port)) if secure => Ok(Endpoint::Https { host, port }),
        Some((host, port)) => Ok(Endpoint::Http { host, port }),
        None => refuse("not a host and port", "write \"http://127.0.0.1:3000\" or \"http://[::1]:3000\""),
    }
}

fn split_authority(authority: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if host.is_empty() || !(host.bytes().all(named) || authority.starts_with('[')) {
        return None;
    }
    let port = match port {
        None => default_port,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port > 0)?
        }
        Some(_) => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let http = |host: &str, port| Ok(Endpoint::Http { host: host.to_owned(), port });
        let parse = |url| parse(url, Path::new("/etc"));
        assert_eq!(parse("http://127.0.0.1:3000"), http("127.0.0.1", 3000));
        assert_eq!(parse("http://App.internal/"), http("app.internal", 80));
        assert_eq!(parse("http://[::1]:3000"), http("::1", 3000));
        assert_eq!(parse("http://[::1]"), http("::1", 80));
        let https = |host: &str, port| Ok(Endpoint::Https { host: host.to_owned(), port });
        assert_eq!(parse("https://app.internal"), https("app.internal", 443));
        assert_eq!(parse("https://[::1]:8443/"), https("::1", 8443));
        assert_eq!(parse("unix:app.sock"), Ok(Endpoint::Unix("/etc/app.sock".into())));
        for url in [
            "",
            "app",
            "app:3000",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:",
            "http://[::1",
            "http://[x]:1",
            "http://[::1]x",
            "http://::1:80",
            "http://a b",
            "http://u:p@a",
            "http://a/x",
            "http://a?x",
            "https://a/b",
            "ftp://a",
            "unix:",
            "HTTP://a",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn private_means_this_machine_or_tls() {
        for (url, private) in [
            ("http://localhost:1", true),
            ("http://127.8.8.8:1", true),
            ("http://[::1]:1", true),
            ("unix:/a", true),
            ("http://10.0.0.1:1", false),
            ("http://app:1", false),
            ("https://app:1", true),
        ] {
            assert_eq!(is_private(&parse(url, Path::new("")).unwrap()), private, "{url}");
        }
    }
}
