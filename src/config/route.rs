//! `[[route]]`. Tests: `tests/it/config.rs`.

use super::item::Item;
use super::limits::{self, Limits, Timeouts};
use super::nearest::nearest;
use super::session::{INVALID_UPDATE, STANDARD_HEADERS, STORE_UNAVAILABLE, Session};
use super::upstream::Upstreams;
use super::walk::Table;
use crate::headers::names::{fold, folds_to};
use crate::proxy::options::{Otherwise, RouteOptions, SessionMode};
use crate::session::guard::FieldPath;
use http::HeaderName;
use std::net::Ipv6Addr;

/// What a route takes over from the rest of the file.
pub(super) struct Defaults<'a> {
    pub(super) timeouts: &'a Timeouts,
    pub(super) limits: &'a Limits,
    pub(super) session: &'a Session,
}

/// All routes.
pub(super) struct Routes {
    /// Those that are sound, in the order of the file.
    pub(super) list: Vec<RouteOptions>,
    /// There are some, sound or not.
    pub(super) declared: bool,
    /// Some route has sessions.
    pub(super) with_sessions: bool,
}

/// Reads `[[route]]`.
pub(super) fn routes(root: &Table<'_>, upstreams: &Upstreams, defaults: &Defaults<'_>) -> Routes {
    let tables = root.tables("route");
    let mut routes = Routes {
        list: Vec::new(),
        declared: root.get("route").is_some_and(|item| !item.is_empty_list()),
        with_sessions: false,
    };
    let mut seen: Vec<(Option<String>, String, String)> = Vec::new();
    for table in &tables {
        let host = host(table);
        let path = path(table);
        if let (Ok(host), Some(path)) = (&host, &path) {
            if let Some((_, _, other)) = seen.iter().find(|(h, p, _)| h == host && p == path) {
                let what = format!("the same host and path as {other}");
                let span = table.get("path").map_or(table.span.clone(), |item| item.span());
                table.walk.problem(&table.path_of("path"), span, what, "remove one of the two");
            }
            seen.push((host.clone(), path.clone(), table.path.clone()));
        }
        let route = one(table, host, path, upstreams, defaults, &mut routes.with_sessions);
        routes.list.extend(route);
    }
    for (table, route) in tables.iter().zip(&routes.list).filter(|_| tables.len() == routes.list.len()) {
        warn_about_loop(table, route, &routes.list);
    }
    routes
}

fn one(
    table: &Table<'_>,
    host: Result<Option<String>, ()>,
    path: Option<String>,
    upstreams: &Upstreams,
    defaults: &Defaults<'_>,
    with_sessions: &mut bool,
) -> Option<RouteOptions> {
    let upstream = upstream(table, upstreams);
    let modes = [("on", SessionMode::On), ("read-only", SessionMode::ReadOnly), ("off", SessionMode::Off)];
    let session = table.choice("session", &modes).unwrap_or(SessionMode::On);
    *with_sessions |= session != SessionMode::Off;
    let require = table.fields("require");
    let otherwise = otherwise(table);
    let claims = claims(table, &defaults.session.header_prefix);
    let fields = table.fields("fields");
    needs_sessions(
        table,
        session,
        &["require", "otherwise", "claims", "fields", "store_unavailable", "invalid_update"],
    );
    let store_unavailable = table.choice("store_unavailable", &STORE_UNAVAILABLE);
    let invalid_update = table.choice("invalid_update", &INVALID_UPDATE);
    let timeouts = limits::route_timeouts(&table.table("timeouts"), &defaults.timeouts.exchange);
    let max_request_body = match table.table("limits").get("request_body") {
        Some(item) => limits::body_limit(&item),
        None => defaults.limits.request_body,
    };
    Some(RouteOptions {
        host: host.ok()?,
        path: path?,
        upstream: upstream?,
        session,
        require,
        otherwise: otherwise?,
        claims,
        fields,
        timeouts,
        max_request_body,
        store_unavailable: store_unavailable.unwrap_or(defaults.session.store_unavailable),
        invalid_update: invalid_update.unwrap_or(defaults.session.invalid_update),
    })
}

/// `Err` when a problem was reported.
fn host(table: &Table<'_>) -> Result<Option<String>, ()> {
    let Some(item) = table.get("host") else { return Ok(None) };
    let text = item.text().ok_or(())?;
    let host = text.value.to_ascii_lowercase();
    let name = host.strip_prefix("*.").unwrap_or(&host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let hint = match () {
        () if literal.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()) => return Ok(Some(host)),
        () if name.split('.').all(label) => return Ok(Some(host)),
        () if host == "*" => "leave `host` out to match every host",
        () if host.contains("://") => "write the name alone, without scheme and path",
        () if name.contains(':') => "write it without port",
        () if name.contains('*') => "a wildcard stands for whole labels at the front: \"*.example.com\"",
        () if !host.is_ascii() => "write it as punycode (xn--…)",
        () => "write a host name like \"app.example.com\" or \"*.example.com\"",
    };
    item.problem(format!("`{}` is not a host name", text.shown), hint);
    Err(())
}

fn path(table: &Table<'_>) -> Option<String> {
    let Some(item) = table.get("path") else {
        table.problem("path", "missing", "write path = \"/\" for everything");
        return None;
    };
    let text = item.text()?;
    let hint = match text.value.as_str() {
        path if !path.starts_with('/') => "it begins with /",
        path if path.contains(['?', '#']) => "write the path alone, without query and fragment",
        path if path.contains('*') => "write the prefix alone: \"/api\" matches /api and everything below it",
        path if path.contains(['%', '\\', ';']) || path.contains(char::is_control) => {
            "write it as people read it: requests are matched after percent-decoding, without `;` parameters"
        }
        path if path.contains("//") || path.split('/').any(|segment| matches!(segment, "." | "..")) => {
            "write it without empty, . and .. segments: requests are matched without them"
        }
        _ => return Some(text.value),
    };
    item.problem(format!("`{}` is not a path", text.shown), hint);
    None
}

/// The index of the upstream among the sound ones; `None` also when the upstream itself was refused.
fn upstream(table: &Table<'_>, upstreams: &Upstreams) -> Option<usize> {
    let names = || upstreams.names.iter().map(|(name, _)| name.as_str());
    let Some(item) = table.get("upstream") else {
        let hint = match names().next() {
            Some(name) => format!("write upstream = \"{name}\""),
            None => "write upstream = \"app\", and [upstream.app] with servers = [\"http://127.0.0.1:3000\"]"
                .to_owned(),
        };
        table.problem("upstream", "missing", hint);
        return None;
    };
    let text = item.text()?;
    if !names().any(|name| name == text.value) {
        let hint = match (nearest(&text.shown, names()), names().next()) {
            (Some(near), _) => format!("did you mean \"{near}\"?"),
            (None, None) => {
                format!("add [upstream.{}] with servers = [\"http://127.0.0.1:3000\"]", text.shown)
            }
            (None, Some(_)) => format!("there is: {}", names().collect::<Vec<_>>().join(", ")),
        };
        item.problem(format!("there is no upstream `{}`", text.shown), hint);
    }
    upstreams.list.iter().position(|upstream| upstream.name == text.value)
}

fn needs_sessions(table: &Table<'_>, session: SessionMode, keys: &[&'static str]) {
    for item in keys.iter().filter_map(|key| table.get(key)).filter(|_| session == SessionMode::Off) {
        let what = "needs sessions, and this route has session = \"off\"";
        item.walk.problem(
            &item.path,
            item.key_span.clone(),
            what,
            "remove it, or write session = \"on\" or \"read-only\"",
        );
    }
}

fn otherwise(table: &Table<'_>) -> Option<Otherwise> {
    let Some(item) = table.get("otherwise") else { return Some(Otherwise::Status(401)) };
    if table.get("require").is_none() {
        item.walk.problem(
            &item.path,
            item.key_span.clone(),
            "otherwise without require",
            "add require = [\"user.id\"]",
        );
    }
    let answer = item.table()?;
    let (redirect, status) = (answer.get("redirect"), answer.get("status"));
    match (redirect, status) {
        (Some(item), None) => redirect_to(&item).map(Otherwise::Redirect),
        (None, Some(item)) => Some(Otherwise::Status(u16::try_from(item.count(400..=599)?).ok()?)),
        (both, _) => {
            let what =
                if both.is_some() { "both redirect and status" } else { "neither redirect nor status" };
            item.problem(what, "write { redirect = \"/login?next={uri}\" } or { status = 401 }");
            None
        }
    }
}

fn redirect_to(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let target = text.value.as_str();
    let local = target.starts_with('/') && !target.starts_with("//") && !target.starts_with("/\\");
    let absolute = ["https://", "http://"]
        .iter()
        .any(|scheme| target.strip_prefix(scheme).is_some_and(|r| !r.is_empty()));
    let hint = if !local && !absolute {
        "begin it with / or with https://"
    } else if !target.bytes().all(|b| b.is_ascii_graphic()) {
        "percent-encode blanks and everything outside ASCII"
    } else if target.replace("{uri}", "").contains(['{', '}']) {
        "the only placeholder is {uri}"
    } else {
        return Some(text.value);
    };
    item.problem(format!("`{}` is not a place to redirect to", text.shown), hint);
    None
}

fn claims(table: &Table<'_>, prefix: &str) -> Vec<(HeaderName, FieldPath)> {
    let (prefix, prefix_of_others) = (fold(prefix.as_bytes()), fold(format!("{prefix}-").as_bytes()));
    let mut claims: Vec<(HeaderName, FieldPath)> = Vec::new();
    for (name, item) in table.table("claims").entries() {
        let folded = fold(name.as_bytes());
        let refuse = |what: &str, hint: &str| {
            item.walk.problem(&item.path, item.key_span.clone(), what, hint);
        };
        let field = item.field();
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            refuse("not a header name", "write something like \"X-Remote-User\"");
            continue;
        };
        if STANDARD_HEADERS.iter().any(|standard| standard.as_bytes() == folded) {
            refuse("a header with a meaning of its own", "write something like \"X-Remote-User\"");
        } else if folded == prefix || folded.starts_with(&prefix_of_others) {
            refuse("this header is the sidecar's own", "write something like \"X-Remote-User\"");
        } else if claims.iter().any(|(other, _)| folds_to(other.as_str().as_bytes(), &folded)) {
            refuse("the same header twice", "case, `_` and `-` do not tell headers apart");
        } else if let Some(field) = field {
            claims.push((header, field));
        }
    }
    claims
}

/// A redirect that is answered by the very route that redirects goes round for ever.
fn warn_about_loop(table: &Table<'_>, route: &RouteOptions, routes: &[RouteOptions]) {
    let Otherwise::Redirect(target) = &route.otherwise else { return };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let below = |prefix: &str| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
    };
    // Routes of the same host come before those of any; other hosts' do not see the request.
    let rank = |other: &&RouteOptions| (other.host.is_some(), other.path.len());
    let answers =
        |other: &&RouteOptions| (other.host == route.host || other.host.is_none()) && below(&other.path);
    let answered = routes.iter().filter(answers).max_by_key(rank);
    if let (Some(answered), Some(item)) = (answered, table.get("otherwise"))
        && std::ptr::eq(answered, route)
    {
        item.warning(
            "the redirect leads back to this route, which asks for the same again",
            "add a [[route]] without require for the page that it leads to",
        );
    }
}
