//! The session's cookies on the wire: which of those that came counts, which ones the browser should forget, and the `Set-Cookie`.
//!
//! Whether a cookie is due is [`crate::session::lifecycle`]'s decision. Tests: `tests/it/cookie_comforts.rs`, `cookie_forgery.rs`.

use super::sessions::Sessions;
use crate::headers::names::X_FORWARDED_HOST;
use crate::session::Millis;
use crate::session::cookie::{self, ResolvedAttributes, Ticket, Tickets};
use crate::session::lifecycle::CookieStep;
use crate::session::sid::Sid;
use crate::store::{Loaded, Lookup, StoreError};
use http::header::{CACHE_CONTROL, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use std::cell::RefCell;
use std::collections::HashMap;

/// What the store says of the cookies that verified.
pub(super) enum Claimed {
    /// The session that counts: the first that is alive.
    Live(Ticket, Box<Loaded>, Jar),
    /// None of them is alive.
    Expired(Jar),
    /// None is alive, and of this one nobody can tell.
    Unreadable(Sid, String),
    /// The store gave no answer.
    Unknown(Sid, StoreError),
}

/// What is to be said to the browser about its cookies beside the one that carries the session.
#[derive(Debug, Default)]
pub(super) struct Jar {
    /// The cookie that counted should be set anew.
    pub(super) stale: bool,
    /// `Set-Cookie` lines that make the browser forget what does not count any more.
    forget: Vec<HeaderValue>,
}

/// A request, as far as the scopes of its cookies go.
pub(super) struct Scope<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) path: &'a str,
    pub(super) secure: bool,
}

/// What became of the tickets of one request.
#[derive(Default)]
struct Verdicts<'a> {
    live: Option<(&'a Ticket, Loaded)>,
    unreadable: Option<(&'a Ticket, String)>,
    /// Their session is gone.
    dead: Vec<&'a Ticket>,
    /// Not the one that counts, and not known to be dead.
    others: Vec<&'a Ticket>,
}

/// When each dead twin's browser was last told to forget it: what a browser cannot forget is not told it with every response.
#[derive(Default)]
pub(super) struct Told(RefCell<HashMap<Sid, Millis>>);

/// How long that is enough.
const TOLD_FOR: Millis = 60_000;
/// How many are remembered.
const MOST_TOLD: usize = 4096;

impl Told {
    /// Should it be told now? Remembers that it was.
    fn is_due(&self, sid: &Sid, now: Millis) -> bool {
        let mut told = self.0.borrow_mut();
        if told.get(sid).is_some_and(|at| now.saturating_sub(*at) < TOLD_FOR) {
            return false;
        }
        if told.len() >= MOST_TOLD {
            told.retain(|_, at| now.saturating_sub(*at) < TOLD_FOR);
        }
        // Somebody plays with us; nobody is harmed.
        if told.len() >= MOST_TOLD {
            told.clear();
        }
        told.insert(sid.clone(), now);
        true
    }
}

impl Sessions {
    /// Asks the store for the sessions of all cookies that verified. One cookie is one read, as a browser has it nearly always.
    pub(super) async fn claim(&self, tickets: Tickets, scope: &Scope<'_>, now: Millis) -> Claimed {
        let mut verdicts = Verdicts::default();
        for ticket in std::iter::once(&tickets.first).chain(&tickets.others) {
            match self.committer.store.load(&ticket.sid, now).await {
                Ok(Lookup::Live(loaded)) if !self.options.policy.outlived(&loaded.record, now) => {
                    match verdicts.live {
                        None => verdicts.live = Some((ticket, loaded)),
                        Some(_) => verdicts.others.push(ticket),
                    }
                }
                Ok(Lookup::Live(_) | Lookup::Absent) => verdicts.dead.push(ticket),
                Ok(Lookup::Unreadable(what)) => {
                    verdicts.others.push(ticket);
                    verdicts.unreadable.get_or_insert((ticket, what));
                }
                Err(error) if verdicts.live.is_none() => return Claimed::Unknown(ticket.sid.clone(), error),
                Err(_) => verdicts.others.push(ticket),
            }
        }
        let forget = self.forget(&tickets, &verdicts, scope, now);
        match (verdicts.live, verdicts.unreadable) {
            (Some((ticket, loaded)), _) => {
                self.committer.counters.cookie_keys.verified(ticket.key, now);
                let stale = ticket.key > 0 || ticket.name > 0 || !forget.is_empty();
                Claimed::Live(ticket.clone(), Box::new(loaded), Jar { stale, forget })
            }
            (None, Some((ticket, what))) => Claimed::Unreadable(ticket.sid.clone(), what),
            // Told when a new session is set: until then nothing hides anything.
            (None, None) => Claimed::Expired(Jar { stale: false, forget }),
        }
    }

    /// Cookies whose session is gone, and one of an older name that has done its service. The lines reach all scopes of a name, so it
    /// is left alone unless every cookie of it that came is ours and, but for the one that counts, known to be dead.
    fn forget(
        &self,
        tickets: &Tickets,
        verdicts: &Verdicts<'_>,
        scope: &Scope<'_>,
        now: Millis,
    ) -> Vec<HeaderValue> {
        let live = verdicts.live.as_ref().map(|(ticket, _)| *ticket);
        let alone = tickets.others.is_empty();
        if alone && live.is_none_or(|ticket| ticket.name == 0) {
            return Vec::new();
        }
        // With no live session the lines go out with the next new one only, and then they must not be missing.
        let gone = verdicts.dead.iter().filter(|ticket| live.is_none() || self.told.is_due(&ticket.sid, now));
        let mut names: Vec<usize> = gone.map(|ticket| ticket.name).collect();
        names.extend(live.map(|ticket| ticket.name).filter(|name| *name > 0));
        names.sort_unstable();
        names.dedup();
        names.retain(|name| {
            tickets.all_ours(*name) && verdicts.others.iter().all(|ticket| ticket.name != *name)
        });
        let Some(&name) = names.first() else { return Vec::new() };
        // One name a response: the head stays small, and the others' turn comes.
        self.forget_name(name, scope)
    }

    fn forget_name(&self, name: usize, scope: &Scope<'_>) -> Vec<HeaderValue> {
        let host = scope.headers.get(X_FORWARDED_HOST).or_else(|| scope.headers.get(HOST));
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = host.split(',').next().unwrap_or_default().trim().to_ascii_lowercase();
        let attributes = cookie::resolve(&self.options.policy.cookie, scope.secure);
        let own = (attributes.domain.map(plain_domain), attributes.path);
        let mut lines = Vec::new();
        let mut push = |attributes: ResolvedAttributes<'_>| {
            lines.push(cookie::render_clear_cookie(&self.options.names[name], &attributes));
        };
        for (domain, path) in cookie::scopes(&host, attributes.path, scope.path) {
            if name > 0 || (domain.map(str::to_owned), path) != own {
                push(ResolvedAttributes { domain, path, ..attributes });
            } else if attributes.partitioned {
                // The same scope outside the partition, from before `partitioned` was set.
                push(ResolvedAttributes { partitioned: false, ..attributes });
            }
        }
        lines
    }

    /// Appends our Set-Cookie after the app's own. `true`: it was due, and withheld.
    pub(super) fn set_cookie(
        &self,
        step: CookieStep,
        sid: &Sid,
        jar: Jar,
        secure: bool,
        headers: &mut HeaderMap,
    ) -> bool {
        let options = &self.options;
        let attributes = || -> ResolvedAttributes<'_> { cookie::resolve(&options.policy.cookie, secure) };
        let value = match step {
            CookieStep::Leave => return false,
            CookieStep::Withheld => return true,
            CookieStep::Clear => cookie::render_clear_cookie(options.name(), &attributes()),
            CookieStep::Set { expires } => {
                cookie::render_set_cookie(options.name(), sid, &options.keys, &attributes(), expires)
            }
        };
        for line in jar.forget {
            headers.append(SET_COOKIE, line);
        }
        headers.append(SET_COOKIE, value);
        false
    }
}

/// Does the response let shared caches keep it (RFC 9111 §5.2.2.9, §5.2.2.10)?
pub(super) fn is_shared_by_caches(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|line| {
        line.as_bytes().split(|&byte| byte == b',').any(|directive| {
            let directive = directive.trim_ascii();
            directive.eq_ignore_ascii_case(b"public")
                || directive.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"s-maxage"))
        })
    })
}

/// A domain as browsers compare it: without the leading dot of old, in lower case.
fn plain_domain(domain: &str) -> String {
    domain.strip_prefix('.').unwrap_or(domain).to_ascii_lowercase()
}
