//! `[upstream.<name>]`. Tests: below (server URLs), `tests/it/config.rs`.

use super::address;
use super::item::Item;
use super::limits::Limits;
use super::walk::Table;
use crate::proxy::options::RouteOptions;
use crate::upstream::{Endpoint, UpstreamOptions};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::path::Path;

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
        let Some(list) = table.get("servers") else {
            table.problem("servers", "missing", "write servers = [\"http://127.0.0.1:3000\"]");
            continue;
        };
        let items = list.list("a list: [\"http://127.0.0.1:3000\"]").unwrap_or_default();
        if list.is_empty_list() {
            list.problem("no server in the list", "write servers = [\"http://127.0.0.1:3000\"]");
        }
        let wanted = items.len();
        let servers: Vec<Endpoint> = items.iter().filter_map(server).collect();
        if wanted > 0 && servers.len() == wanted {
            upstreams.list.push(UpstreamOptions { name: name.to_owned(), servers, max_response_head });
        }
    }
    upstreams
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
            if !is_local(&endpoint) {
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

fn is_local(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Http { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Endpoint::Unix(_) => true,
    }
}

fn parse(url: &str, base_dir: &Path) -> Result<Endpoint, (String, String)> {
    let refuse = |what: &str, hint: &str| Err((what.to_owned(), hint.to_owned()));
    if let Some(path) = url.strip_prefix("unix:") {
        return address::unix(path, base_dir)
            .map(Endpoint::Unix)
            .map_err(|_| ("not a socket's path".to_owned(), "write \"unix:/run/app.sock\"".to_owned()));
    }
    if url.starts_with("https://") {
        return refuse(
            "https upstreams are not built in this version",
            "use http:// on this machine, or a TLS tunnel",
        );
    }
    let Some(rest) = url.strip_prefix("http://") else {
        return refuse("not an upstream server", "write \"http://127.0.0.1:3000\" or \"unix:/run/app.sock\"");
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
    match split_authority(authority) {
        Some((host, port)) => Ok(Endpoint::Http { host, port }),
        None => refuse("not a host and port", "write \"http://127.0.0.1:3000\" or \"http://[::1]:3000\""),
    }
}

fn split_authority(authority: &str) -> Option<(String, u16)> {
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
        None => 80,
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
            "https://a",
            "ftp://a",
            "unix:",
            "HTTP://a",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn local_means_this_machine() {
        for (url, local) in [
            ("http://localhost:1", true),
            ("http://127.8.8.8:1", true),
            ("http://[::1]:1", true),
            ("unix:/a", true),
            ("http://10.0.0.1:1", false),
            ("http://app:1", false),
        ] {
            assert_eq!(is_local(&parse(url, Path::new("")).unwrap()), local, "{url}");
        }
    }
}
