//! The whole of it: syntax, every section in turn, what sections say of each other. Tests: `tests/it/config.rs`.

use super::listener::Listeners;
use super::problem::{Finding, Problem, Problems, Warning, locate};
use super::veil::veils;
use super::walk::{Table, Walk};
use super::{Config, Reading, limits, listener, route, server, session, store, upstream};
use crate::proxy::options::ProxyOptions;
use crate::store::{StoreKind, StoreOptions};
use std::path::Path;
use toml::de::DeTable;

pub(super) fn check(
    text: &str,
    file_name: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Reading {
    // Offsets of the tree count from after a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What follows a syntax error is a guess, so no rule is applied to it.
        let problems = Problems(locate(file_name, text, syntax_findings(text, &errors), &[]));
        return Reading { outcome: Err(problems), files: Vec::new() };
    }
    let walk = Walk::new(text, base_dir, env);
    let config = sections(&walk.root(tree.get_ref()));
    let veils = veils(tree.get_ref());
    let (mut problems, warnings, files) = walk.finish();
    // What the program writes itself says nothing about its configuration; listeners look after their certificates themselves.
    let watched = |key: &str| key != "store.path" && !key.starts_with("listener[");
    let files = files.into_iter().filter(|(key, _)| watched(key)).map(|(_, path)| path).collect();
    let outcome = match config {
        Some(config) if problems.is_empty() => {
            let warnings = locate(file_name, text, warnings, &veils).into_iter().map(Warning).collect();
            Ok((config, warnings))
        }
        _ => {
            if problems.is_empty() {
                // A reader gave up without a word. That is our bug, and still no reason to start or to panic.
                let what = "the configuration could not be understood".to_owned();
                let hint = "please report this file as a bug";
                Err(Problems(vec![Problem::of_file(file_name, what, hint)]))
            } else {
                problems.dedup_by(|later, earlier| later.span == earlier.span && later.what == earlier.what);
                Err(Problems(locate(file_name, text, problems, &veils)))
            }
        }
    };
    Reading { outcome, files }
}

/// Every section, always: an `Option` that is `None` has reported why.
fn sections(root: &Table<'_>) -> Option<Config> {
    let listeners = listener::listeners(root);
    let server = server::server(&root.table("server"));
    let timeouts = limits::timeouts(&root.table("timeouts"));
    let limits = limits::limits(&root.table("limits"));
    let session_table = root.table("session");
    let session = session::session(&session_table, &limits, &server, &listeners);
    let store = store::store(&root.table("store"));
    let upstreams = upstream::upstreams(&root.table("upstream"), &limits);
    let defaults = route::Defaults { timeouts: &timeouts, limits: &limits, session: &session };
    let routes = route::routes(root, &upstreams, &defaults);
    let admin = server::admin(&root.table("admin"), &listeners);
    let log = server::log(&root.table("log"));

    require_routes(root, &listeners, routes.declared);
    upstream::warn_unused(root, &upstreams, &routes.list);
    let sessions = session_table.exists() || routes.with_sessions;
    if sessions && !session.secrets_given {
        let hint = "make one with `cloakroom secret`, then write secrets = [\"${SESSION_SECRET}\"]";
        session_table.problem(
            "secrets",
            "sessions are on, and there is no secret to sign their cookies with",
            hint,
        );
    }
    if let Some(item) = session_table.get("absolute_timeout")
        && let Some(cure) = store.kind.as_ref().and_then(age_is_not_kept)
    {
        item.problem("this store does not keep when a session was made", cure);
    }
    let session = if sessions { Some(session.finish(&store)?) } else { None };
    let store = if sessions {
        Some(StoreOptions { kind: store.kind?, deadline: timeouts.store, max_payload: limits.session })
    } else {
        None
    };
    Some(Config {
        server: limits::server_options(&timeouts, &limits),
        listeners: listeners.list,
        threads: server.threads,
        reload: server.reload,
        proxy: ProxyOptions {
            trust: server.trust?,
            underscore_headers: server.underscore_headers,
            client_certificates: listeners.client_certificates,
            forwarded: server.forwarded,
            session,
            upstreams: upstreams.list,
            routes: routes.list,
            session_header_limit: limits.session_header,
        },
        store,
        admin,
        drain: timeouts.drain,
        log,
    })
}

/// What to do where nobody would know how old a session is.
fn age_is_not_kept(kind: &StoreKind) -> Option<&'static str> {
    match kind {
        StoreKind::Mongodb(options) if !options.timestamps => {
            Some("write timestamps = true in [store]: it adds createdAt, which is where the age is read from")
        }
        StoreKind::Redis(_) | StoreKind::File(_) => Some(
            "its format has no room for it: use kind = \"mongodb\" with timestamps = true, or \"embedded\"",
        ),
        StoreKind::Mongodb(_) | StoreKind::Embedded { .. } | StoreKind::Memory { .. } => None,
    }
}

fn require_routes(root: &Table<'_>, listeners: &Listeners, declared: bool) {
    if !declared && !listeners.only_redirects {
        let hint = "add [[route]] with path = \"/\" and upstream = \"app\", and [upstream.app] with servers = [\"http://127.0.0.1:3000\"]";
        root.problem("route", "there is no route", hint);
    }
}

/// One finding a line: the parser stumbles on, and what it says later of the same line helps nobody.
fn syntax_findings(text: &str, errors: &[toml::de::Error]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = errors
        .iter()
        .map(|error| Finding {
            span: error.span().unwrap_or(0..0),
            key: String::new(),
            what: format!("not valid TOML: {}", error.message()),
            hint: None,
            with_source: false,
        })
        .collect();
    findings.sort_by_key(|finding| finding.span.start);
    let line =
        |finding: &Finding| text.as_bytes().iter().take(finding.span.start).filter(|b| **b == b'\n').count();
    findings.dedup_by_key(|finding| line(finding));
    findings
}
