//! The session cookie: its name and `[session.cookie]`, by the rules of RFC 6265bis and the npm package `cookie`.
//! Tests: `tests/it/config.rs`.

use super::item::Item;
use super::listener::Listeners;
use super::session::{is_token, millis};
use super::walk::Table;
use crate::session::Millis;
use crate::session::lifecycle::{CookieOptions, Priority, SameSite, Secure};
use std::time::Duration;

/// What is easily written one table too high.
const COOKIE_KEYS: [&str; 8] =
    ["path", "domain", "http_only", "secure", "same_site", "max_age", "partitioned", "priority"];

/// Each name is looked for in every request.
const MOST_OLDER_NAMES: usize = 8;

/// What browsers keep a cookie for at most (RFC 6265bis).
const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 86_400);

/// Reads `session.name`, `accept_names` and `[session.cookie]`; the name comes first of the names. `vouched`: somebody else may call
/// a plain request secure.
pub(super) fn cookie(
    session: &Table<'_>,
    listeners: &Listeners,
    vouched: bool,
) -> (Vec<String>, CookieOptions) {
    let name = cookie_name(session);
    for key in COOKIE_KEYS {
        session.refuse(key, "a key of the cookie", "move it into [session.cookie]");
    }
    let table = session.table("cookie");
    let cookie = attributes(&table);
    check_name_prefix(session, &table, &name, &cookie, listeners);
    warn_about_secure(session, &table, &cookie, listeners, vouched);
    let older = accept_names(session, &name);
    (std::iter::once(name).chain(older).collect(), cookie)
}

/// Older names of the cookie: read as well, and replaced by the new one.
fn accept_names(table: &Table<'_>, own: &str) -> Vec<String> {
    let Some(item) = table.get("accept_names") else { return Vec::new() };
    let items = item.list("a list of cookie names, like [\"connect.sid\"]").unwrap_or_default();
    if items.len() > MOST_OLDER_NAMES {
        item.problem("too many names", format!("keep at most {MOST_OLDER_NAMES}"));
    }
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let Some(name) = checked_name(&item) else { continue };
        if name == own || names.contains(&name) {
            item.problem("a name that is read already", "remove it");
            continue;
        }
        names.push(name);
    }
    names
}

fn cookie_name(table: &Table<'_>) -> String {
    let default = || "connect.sid".to_owned();
    table.get("name").and_then(|item| checked_name(&item)).unwrap_or_else(default)
}

fn checked_name(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if !is_token(&text.value) {
        let hint = "use letters, digits and any of !#$%&'*+-.^_`|~ (RFC 6265)";
        item.problem(format!("`{}` is not a cookie name", text.shown), hint);
        return None;
    }
    Some(text.value)
}

fn attributes(table: &Table<'_>) -> CookieOptions {
    let secure = table.get("secure").and_then(|item| match item.value().as_bool() {
        Some(true) => Some(Secure::Always),
        Some(false) => Some(Secure::Never),
        None if item.says("auto") => Some(Secure::Auto),
        None => {
            item.problem("not a valid value", "write true, false or \"auto\"");
            None
        }
    });
    let same_site = [
        ("lax", SameSite::Lax),
        ("strict", SameSite::Strict),
        ("none", SameSite::None),
        ("auto", SameSite::Auto),
        ("unset", SameSite::Unset),
    ];
    let priority = [("low", Priority::Low), ("medium", Priority::Medium), ("high", Priority::High)];
    CookieOptions {
        path: cookie_path(table).unwrap_or_else(|| "/".to_owned()),
        domain: table.get("domain").and_then(|item| cookie_domain(&item)),
        http_only: table.flag("http_only").unwrap_or(true),
        secure: secure.unwrap_or(Secure::Auto),
        same_site: table.choice("same_site", &same_site).unwrap_or(SameSite::Lax),
        partitioned: table.flag("partitioned"),
        priority: table.choice("priority", &priority),
        max_age: table.get("max_age").and_then(|item| max_age(&item)),
    }
}

fn cookie_path(table: &Table<'_>) -> Option<String> {
    let item = table.get("path")?;
    let text = item.text()?;
    let sound = text.value.starts_with('/')
        && text.value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b';' && b != b'<');
    if !sound {
        let hint = "it begins with / and has neither ; nor < nor anything outside printable ASCII";
        item.problem(format!("`{}` is not a cookie path", text.shown), hint);
    }
    sound.then_some(text.value)
}

/// The rule of the npm package `cookie`: dot-separated labels, a leading dot allowed.
fn cookie_domain(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let sound = text.value.strip_prefix('.').unwrap_or(&text.value).split('.').all(label);
    if !sound {
        item.problem(
            format!("`{}` is not a cookie domain", text.shown),
            "write a host name without port, like \"example.com\"",
        );
    }
    sound.then_some(text.value)
}

fn max_age(item: &Item<'_>) -> Option<Millis> {
    if item.says("session") {
        return None;
    }
    if let Some(number) = item.integer() {
        let hint =
            format!("write its unit, like \"{number}ms\" for express-session's milliseconds, or \"session\"");
        item.problem("a number without a unit", hint);
        return None;
    }
    let age = item.duration(Duration::from_secs(1))?;
    if age > LONGEST_COOKIE {
        item.warning("longer than browsers keep a cookie", "they cut it to 400 days");
    }
    Some(millis(age))
}

/// RFC 6265bis: browsers drop a cookie of such a name unless its attributes keep the promise.
fn check_name_prefix(
    session: &Table<'_>,
    table: &Table<'_>,
    name: &str,
    cookie: &CookieOptions,
    listeners: &Listeners,
) {
    let lower = name.to_ascii_lowercase();
    let host = lower.starts_with("__host-");
    if !host && !lower.starts_with("__secure-") {
        return;
    }
    let prefix = if host { "__Host-" } else { "__Secure-" };
    let at = |key: &'static str| {
        let place = table.get(key).or_else(|| session.get("name"));
        place.map_or(table.span.clone(), |item| item.span())
    };
    let problem = |key: &'static str, hint: &str| {
        let what = format!("browsers drop a {prefix} cookie like this");
        table.walk.problem(&table.path_of(key), at(key), what, hint);
    };
    let secure = match cookie.secure {
        Secure::Always => true,
        Secure::Auto => listeners.all_tls,
        Secure::Never => false,
    };
    if !secure {
        problem("secure", "write secure = true (\"auto\" is enough when every listener has tls)");
    }
    if host && cookie.path != "/" {
        problem("path", "write path = \"/\"");
    }
    if host && cookie.domain.is_some() {
        problem("domain", "leave the domain out");
    }
}

fn warn_about_secure(
    session: &Table<'_>,
    table: &Table<'_>,
    cookie: &CookieOptions,
    listeners: &Listeners,
    vouched: bool,
) {
    let possible = listeners.any_tls || vouched;
    let unsecured = cookie.secure == Secure::Never || (cookie.secure == Secure::Auto && !possible);
    let warn = |key: &'static str, what: &str| {
        if let Some(item) = table.get(key) {
            item.warning(what, "write secure = true and serve https");
        }
    };
    if unsecured && cookie.same_site == SameSite::None {
        warn("same_site", "browsers drop a SameSite=None cookie without Secure");
    }
    if unsecured && cookie.partitioned == Some(true) {
        warn("partitioned", "browsers drop a partitioned cookie without Secure");
    }
    if session.exists() && cookie.secure == Secure::Always && !vouched {
        for (path, span) in &listeners.plain {
            let what = "plain text and cookie.secure = true: no session cookie is ever set here";
            session.walk.warning(
                path,
                span.clone(),
                what,
                "give it tls, or name the TLS proxy before it in server.trust_proxy",
            );
        }
    }
}
