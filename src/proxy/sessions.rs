//! The session half of a request: from the cookie to what the app sees, and from what the app says to what is stored and set.
//!
//! Decisions are `session`'s, writes are [`super::commit`]'s; this file reads and sets headers. Tests: `tests/it/session_*.rs`.

use super::commit::Committer;
use super::cookies::{Claimed, Jar, Scope, Told, is_shared_by_caches};
use super::error::ProxyError;
use super::inject::{Names, Status};
use super::options::{InvalidUpdate, SessionOptions, StoreUnavailable, Unreadable};
use super::outcome::{Base, CommitError, Committed, Outcome};
use crate::session::Millis;
use crate::session::cookie::{self, Presented};
use crate::session::guard::FieldPath;
use crate::session::json::Json;
use crate::session::lifecycle::{self, CookieStep, Facts, Live, Plan, Write};
use crate::session::record::{CookieAttributes, Payload};
use crate::session::sid::Sid;
use crate::session::wire::{self, Invalid, Update};
use crate::store::error::{Kind, Op};
use crate::store::{Loaded, StoreError};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// One worker's session rules.
pub(super) struct Sessions {
    pub(super) options: SessionOptions,
    pub(super) names: Names,
    /// What a save stores, by whether the request is secure.
    pub(super) attributes: [Arc<CookieAttributes>; 2],
    pub(super) header_limit: usize,
    pub(super) committer: Rc<Committer>,
    pub(super) told: Told,
    /// Responses that are read on for their trailers' sake although the client has left.
    pub(super) without_client: Arc<Semaphore>,
}

/// How many of those one worker reads at once.
const WITHOUT_CLIENT: usize = 64;

/// The session of one request.
pub(super) struct Opened {
    pub(super) base: Base,
    pub(super) status: Status,
    client_has_cookie: bool,
    jar: Jar,
    pub(super) secure: bool,
    /// The route, the store and the document allow writing.
    writable: bool,
    /// The data as a tree, made when a route first looks into it.
    data: OnceCell<Json>,
}

/// What a request is asked with, beside its headers.
pub(super) struct Ask {
    pub(super) secure: bool,
    pub(super) writable: bool,
    pub(super) store_unavailable: StoreUnavailable,
    pub(super) now: Millis,
}

/// What a response did to the session.
pub(super) struct Closed {
    pub(super) base: Base,
    pub(super) outcome: Outcome,
    /// The cookie should have been set or cleared, but the request is not secure.
    pub(super) withheld: bool,
}

impl Closed {
    fn unchanged(base: Base) -> Self {
        Self { base, outcome: Outcome::Unchanged, withheld: false }
    }
}

impl Sessions {
    /// # Errors
    /// A header prefix that makes no header names.
    pub(super) fn new(
        options: SessionOptions,
        header_limit: usize,
        committer: Rc<Committer>,
    ) -> Result<Self, String> {
        let names = Names::new(&options.header_prefix)?;
        committer.counters.cookie_keys.configure(options.keys.len());
        let cookie = &options.policy.cookie;
        let attributes = [false, true].map(|secure| Arc::new(cookie::stored_attributes(cookie, secure)));
        let without_client = Arc::new(Semaphore::new(WITHOUT_CLIENT));
        Ok(Self {
            names,
            attributes,
            header_limit,
            committer,
            told: Told::default(),
            without_client,
            options,
        })
    }

    /// A request outside `cookie.path` has no session at all: a plain prefix of the path as received, as in express-session.
    pub(super) fn covers(&self, path: &str) -> bool {
        path.starts_with(&self.options.policy.cookie.path)
    }

    /// Cookie to session. Reads the store only for a cookie that verified.
    pub(super) async fn open(
        &self,
        headers: &HeaderMap,
        path: &str,
        ask: &Ask,
    ) -> Result<Opened, ProxyError> {
        let lines = || headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let names = self.options.names.iter().map(String::as_str);
        let tickets = match cookie::read(lines, names, &self.options.keys) {
            Presented::Valid(tickets) => tickets,
            Presented::None => return self.fresh(Status::None, false, Jar::default(), ask),
            Presented::Invalid { .. } => {
                self.committer.counters.cookies_forged.inc();
                return self.fresh(Status::Invalid, true, Jar::default(), ask);
            }
        };
        let scope = Scope { headers, path, secure: ask.secure };
        match self.claim(tickets, &scope, ask.now).await {
            Claimed::Live(ticket, mut loaded, jar) => {
                self.committer.counters.sessions_loaded.inc();
                self.committer.hide_store_keys(&mut loaded);
                let base = Base { sid: ticket.sid, live: Some(*loaded) };
                let (secure, writable) = (ask.secure, ask.writable);
                let status = Status::Live;
                Ok(Opened {
                    base,
                    status,
                    client_has_cookie: true,
                    jar,
                    secure,
                    writable,
                    data: OnceCell::new(),
                })
            }
            Claimed::Expired(jar) => self.fresh(Status::Expired, true, jar, ask),
            Claimed::Unreadable(sid, what) => {
                self.committer.counters.sessions_unreadable.inc();
                tracing::error!(session = %sid, what, "stored session is unreadable; it is left as it is");
                match self.options.unreadable {
                    Unreadable::Error => Err(ProxyError::Unreadable),
                    Unreadable::Anonymous => self.read_only(true, ask),
                }
            }
            Claimed::Unknown(sid, error) => {
                self.committer.counters.store_errors.inc(error.op, error.kind);
                match ask.store_unavailable {
                    StoreUnavailable::Error => Err(ProxyError::Store(error)),
                    StoreUnavailable::Anonymous => {
                        tracing::warn!(session = %sid, %error, "session store unavailable; the app is asked with an empty session");
                        self.read_only(true, ask)
                    }
                }
            }
        }
    }

    fn fresh(
        &self,
        status: Status,
        client_has_cookie: bool,
        jar: Jar,
        ask: &Ask,
    ) -> Result<Opened, ProxyError> {
        let base = Base { sid: new_sid()?, live: None };
        let (secure, writable) = (ask.secure, ask.writable);
        Ok(Opened { base, status, client_has_cookie, jar, secure, writable, data: OnceCell::new() })
    }

    /// An empty session that nothing is written for: we do not know what the real one is.
    fn read_only(&self, client_has_cookie: bool, ask: &Ask) -> Result<Opened, ProxyError> {
        Ok(Opened {
            writable: false,
            ..self.fresh(Status::Unavailable, client_has_cookie, Jar::default(), ask)?
        })
    }

    /// Takes the update off a response, commits it and sets the cookie: after this the head may go.
    pub(super) async fn close(
        &self,
        opened: Opened,
        invalid_update: InvalidUpdate,
        headers: &mut HeaderMap,
        now: Millis,
    ) -> Result<Closed, ProxyError> {
        if !opened.writable {
            if headers.contains_key(&self.names.update) || headers.contains_key(&self.names.control) {
                let status = opened.status.word();
                tracing::info!(session = %opened.base.sid, status, "update dropped unread: this session is read-only here");
            }
            return Ok(Closed::unchanged(opened.base));
        }
        let mut opened = opened;
        // A cache may hand a cookie to everybody, so none is set there for tidiness' sake.
        opened.jar.stale &=
            !is_shared_by_caches(headers) && cookie::may_be_set(&self.options.policy.cookie, opened.secure);
        let planned = self.take_update(headers).and_then(|update| {
            let attributes = &self.attributes[usize::from(opened.secure)];
            let plan = lifecycle::decide_response(
                &self.options.policy,
                attributes,
                opened.facts(now),
                update.as_ref(),
            )?;
            Ok((plan, update))
        });
        let (Plan { write, cookie }, update) = match planned {
            Ok(planned) => planned,
            Err(invalid) => {
                self.refuse(invalid, invalid_update)?;
                return Ok(Closed::unchanged(opened.base));
            }
        };
        let (secure, client_has_cookie) = (opened.secure, opened.client_has_cookie);
        let only_touched = matches!(write, Write::Touch { .. } | Write::Confirm);
        let committed = match self.committer.commit(opened.base.clone(), write, update, now, false).await {
            Ok(committed) => committed,
            Err(CommitError::Invalid(invalid)) => {
                self.refuse(invalid, invalid_update)?;
                return Ok(Closed::unchanged(opened.base));
            }
            Err(CommitError::Store(error)) => return Err(self.unavailable(error)),
            Err(CommitError::HalfRegenerated { error, sid, expires }) => {
                let mut answer = HeaderMap::new();
                self.set_cookie(
                    lifecycle::set_cookie(&self.options.policy, secure, expires),
                    &sid,
                    // What is to be forgotten can wait: the error carries one cookie, and this is the one that counts.
                    Jar::default(),
                    secure,
                    &mut answer,
                );
                return Err(ProxyError::HalfRegenerated(self.counted(error), answer.remove(SET_COOKIE)));
            }
        };
        let cookie = match committed.outcome {
            // Nothing was said that could be lost, and whoever gave the session a new sid, in whatever process, has set another
            // cookie: a poll beside a login must not take that away.
            Outcome::Vanished if only_touched && !self.ended_here(&opened.base, now) => CookieStep::Leave,
            _ => self.cookie_after(&committed, cookie, secure, client_has_cookie),
        };
        let withheld = self.set_cookie(cookie, &committed.base.sid, opened.jar, secure, headers);
        Ok(Closed { base: committed.base, outcome: committed.outcome, withheld })
    }

    /// Is it known that the session has ended, and did not just get a new sid?
    fn ended_here(&self, base: &Base, now: Millis) -> bool {
        let expired = base.live.as_ref().and_then(|loaded| loaded.expires_at).is_some_and(|at| at <= now);
        expired || self.committer.lines.was_destroyed(&base.sid)
    }

    /// The planned cookie, corrected by what really happened to the session.
    fn cookie_after(
        &self,
        committed: &Committed,
        planned: CookieStep,
        secure: bool,
        client_has_cookie: bool,
    ) -> CookieStep {
        let policy = &self.options.policy;
        let stored = committed.base.live.as_ref().and_then(|loaded| loaded.record.cookie.expires);
        match (committed.outcome, planned) {
            (Outcome::Vanished, _)
                if !client_has_cookie || self.committer.lines.renamed_to(&committed.base.sid).is_some() =>
            {
                CookieStep::Leave
            }
            (Outcome::Vanished, _) => lifecycle::clear_cookie(policy, secure),
            (Outcome::Followed, _) => CookieStep::Leave,
            // `regenerate_on` may have met a change that only the store knew of.
            (Outcome::Regenerated, _) => lifecycle::set_cookie(policy, secure, stored),
            // Another writer may have given the session another age.
            (Outcome::Updated, CookieStep::Set { .. }) => lifecycle::set_cookie(policy, secure, stored),
            (_, planned) => planned,
        }
    }

    pub(super) fn counted(&self, error: StoreError) -> StoreError {
        self.committer.counters.store_errors.inc(error.op, error.kind);
        error
    }

    fn unavailable(&self, error: StoreError) -> ProxyError {
        ProxyError::Store(self.counted(error))
    }

    fn refuse(&self, invalid: Invalid, policy: InvalidUpdate) -> Result<(), ProxyError> {
        self.committer.counters.updates_invalid.inc();
        match policy {
            InvalidUpdate::Error => Err(ProxyError::Update(invalid)),
            InvalidUpdate::Ignore => {
                tracing::warn!(reason = "invalid_update", error = %invalid, "the app's session update is invalid; ignored");
                Ok(())
            }
        }
    }

    /// The update of a response head, or of trailers. The headers stay; `reserved` strips them.
    pub(super) fn take_update(&self, headers: &HeaderMap) -> Result<Option<Update>, Invalid> {
        let policy = &self.options.policy;
        let limits = wire::Limits { max_bytes: policy.max_payload, store_keys: &policy.store_keys };
        let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let update = wire::parse_update(values(&self.names.update), values(&self.names.control), limits)?;
        if let Some(name) = update.as_ref().and_then(wire::name_express_cannot_hold) {
            warn_once(name);
        }
        Ok(update)
    }

    /// Does the response announce an update in its trailers?
    pub(super) fn announces_update(&self, headers: &HeaderMap) -> bool {
        headers.get_all(http::header::TRAILER).iter().any(|line| {
            line.as_bytes().split(|&byte| byte == b',').any(|name| {
                let name = name.trim_ascii();
                name.eq_ignore_ascii_case(self.names.update.as_str().as_bytes())
                    || name.eq_ignore_ascii_case(self.names.control.as_str().as_bytes())
            })
        })
    }
}

impl Opened {
    pub(super) fn facts(&self, now: Millis) -> Facts<'_> {
        let live = self
            .base
            .live
            .as_ref()
            .map(|loaded: &Loaded| Live { record: &loaded.record, touched_at: loaded.touched_at });
        Facts {
            live,
            client_has_cookie: self.client_has_cookie,
            stale_cookie: self.jar.stale,
            secure: self.secure,
            now,
        }
    }

    /// The same session after the head's commit, for a trailer.
    pub(super) fn after_head(closed: Closed, secure: bool, writable: bool) -> Self {
        // What the head's commit found gone, or destroyed itself, no trailer brings back.
        let writable = writable && !matches!(closed.outcome, Outcome::Vanished | Outcome::Destroyed);
        let base = closed.base;
        Self {
            base,
            status: Status::Live,
            client_has_cookie: true,
            jar: Jar::default(),
            secure,
            writable,
            data: OnceCell::new(),
        }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Are all these fields there?
    pub(super) fn satisfies(&self, required: &[FieldPath]) -> bool {
        required.is_empty()
            || (self.base.live.is_some() && required.iter().all(|path| path.is_present(self.data())))
    }

    /// The data as the request found it.
    pub(super) fn data(&self) -> &Json {
        self.data.get_or_init(|| match &self.base.live {
            Some(loaded) => loaded.record.payload.to_json(),
            None => Payload::empty().to_json(),
        })
    }
}

fn new_sid() -> Result<Sid, ProxyError> {
    Sid::random().map_err(|error| {
        let detail = format!("no randomness for a session id: {error}");
        ProxyError::Store(StoreError { op: Op::Create, kind: Kind::Refused, detail })
    })
}

/// express-session could not hold data of this name: said once per process.
fn warn_once(name: &'static str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            key = name,
            "the app stores a session key that an Express app on the same store could not see (said once)"
        );
    }
}
