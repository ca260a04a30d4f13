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
use http::header::{HOST, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

/// What the store says of the cookies that verified.
pub(super) enum Claimed {
    /// The session that counts: the first that is alive.
    Live(Ticket, Box<Loaded>, Jar),
    /// None of them is alive.
    Expired,
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

impl Sessions {
    /// Asks the store for the sessions of all cookies that verified. One cookie is one read, as a browser has it nearly always.
    pub(super) async fn claim(&self, tickets: Tickets, scope: &Scope<'_>, now: Millis) -> Claimed {
        let (mut live, mut unreadable, mut dead) = (None, None, Vec::new());
        for ticket in std::iter::once(&tickets.first).chain(&tickets.others) {
            match self.committer.store.load(&ticket.sid, now).await {
                Ok(Lookup::Live(loaded)) if !self.options.policy.outlived(&loaded.record, now) => {
                    live.get_or_insert((ticket, loaded));
                }
                Ok(Lookup::Live(_) | Lookup::Absent) => dead.push(ticket),
                Ok(Lookup::Unreadable(what)) => {
                    unreadable.get_or_insert((ticket, what));
                }
                Err(error) if live.is_none() => return Claimed::Unknown(ticket.sid.clone(), error),
                // A twin of which nothing is known is left alone.
                Err(_) => {}
            }
        }
        match (live, unreadable) {
            (Some((ticket, loaded)), _) => {
                self.committer.counters.cookie_keys.verified(ticket.key, now);
                let forget = self.forget(&tickets, ticket, &dead, scope);
                let stale = ticket.key > 0 || ticket.name > 0 || !forget.is_empty();
                Claimed::Live(ticket.clone(), Box::new(loaded), Jar { stale, forget })
            }
            (None, Some((ticket, what))) => Claimed::Unreadable(ticket.sid.clone(), what),
            (None, None) => Claimed::Expired,
        }
    }

    /// Cookies whose session is gone, and one of an older name that has done its service. Only under names of which every cookie
    /// that came is ours: the lines reach all scopes of a name, also that of another app on a parent domain.
    fn forget(
        &self,
        tickets: &Tickets,
        live: &Ticket,
        dead: &[&Ticket],
        scope: &Scope<'_>,
    ) -> Vec<HeaderValue> {
        let gone = dead.iter().map(|ticket| ticket.name);
        let mut names: Vec<usize> = gone.chain((live.name > 0).then_some(live.name)).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| tickets.all_ours(*name));
        if names.is_empty() {
            return Vec::new();
        }
        let host = scope.headers.get(X_FORWARDED_HOST).or_else(|| scope.headers.get(HOST));
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = host.split(',').next().unwrap_or_default().trim().to_ascii_lowercase();
        let attributes = cookie::resolve(&self.options.policy.cookie, scope.secure);
        let own = (attributes.domain.map(plain_domain), attributes.path);
        let mut lines = Vec::new();
        for name in names {
            for (domain, path) in cookie::scopes(&host, scope.path) {
                // There stands the session's own cookie, which is set in the same response.
                if name > 0 || (domain.map(str::to_owned), path) != own {
                    let attributes = ResolvedAttributes { domain, path, ..attributes };
                    lines.push(cookie::render_clear_cookie(&self.options.names[name], &attributes));
                }
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

/// A domain as browsers compare it: without the leading dot of old, in lower case.
fn plain_domain(domain: &str) -> String {
    domain.strip_prefix('.').unwrap_or(domain).to_ascii_lowercase()
}
