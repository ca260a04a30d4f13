//! The rules of contract §4: what one response means for the store and for the browser's cookie.
//!
//! express-session decides this in four closures (`shouldDestroy`, `shouldSave`, `shouldTouch`, `shouldSetCookie`); here it is one
//! function from facts to a [`Plan`]. It touches nothing: `proxy::commit` carries the plan out. Tests: below, and the complete
//! enumeration in `tests/it/lifecycle_table.rs`.

use super::Millis;
use super::cookie::may_be_set;
use super::guard::FieldPath;
use super::json::Json;
use super::record::{CookieAttributes, CookieData, Payload, Record};
use super::wire::{Change, Invalid, MaxAge, Update};
use std::sync::Arc;

/// The part of `[session]` that the pure rules need.
#[derive(Debug, Clone)]
pub struct Policy {
    /// express-session's `resave`
    pub resave: bool,
    /// express-session's `saveUninitialized`
    pub save_uninitialized: bool,
    /// express-session's `rolling`
    pub rolling: bool,
    /// express-session's `unset`
    pub unset: Unset,
    /// `clear_cookie_on_destroy`
    pub clear_cookie_on_destroy: bool,
    /// `[session.cookie]`
    pub cookie: CookieOptions,
    /// `store.ttl`: how long a session without a max age is kept.
    pub ttl: Millis,
    /// `store.touch_after`
    pub touch_after: Millis,
    /// `limits.session`, bytes of a stored payload and of an update.
    pub max_payload: usize,
    /// Top-level keys that belong to the store (`lastModified` for mongodb with `touch_after`).
    pub store_keys: Vec<&'static str>,
    /// `regenerate_on`
    pub regenerate_on: Vec<FieldPath>,
    /// `absolute_timeout`
    pub absolute_timeout: Option<Millis>,
}

/// express-session's `unset`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unset {
    Destroy,
    Keep,
}

/// `[session.cookie]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieOptions {
    /// `path`
    pub path: String,
    /// `domain`
    pub domain: Option<String>,
    /// `http_only`
    pub http_only: bool,
    /// `secure`
    pub secure: Secure,
    /// `same_site`
    pub same_site: SameSite,
    /// `partitioned`; `None` is unset
    pub partitioned: Option<bool>,
    /// `priority`; `None` is unset
    pub priority: Option<Priority>,
    /// `max_age`; `None` is `"session"`
    pub max_age: Option<Millis>,
}

/// `cookie.secure`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Secure {
    Always,
    Never,
    Auto,
}

/// `cookie.same_site`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SameSite {
    Lax,
    Strict,
    None,
    Auto,
    Unset,
}

/// `cookie.priority`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Priority {
    Low,
    Medium,
    High,
}

/// What is known when the response arrives.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The session as the store had it; `None`: the app was shown a new, empty one.
    pub live: Option<Live<'a>>,
    /// The client sent at least one cookie of the session's name, good or bad.
    pub client_has_cookie: bool,
    /// The browser should hold another cookie than the one it sent: that one was signed by an old secret or bears an old name, or
    /// has a twin that is to be forgotten. Sets the cookie as `rolling` does, for this response.
    pub stale_cookie: bool,
    /// The request is secure (contract §6).
    pub secure: bool,
    /// The moment of the decision.
    pub now: Millis,
}

/// A stored session, as far as the rules care.
#[derive(Debug, Clone, Copy)]
pub struct Live<'a> {
    /// The session.
    pub record: &'a Record,
    /// When it was last written or touched, if the store says so.
    pub touched_at: Option<Millis>,
}

/// What one response means.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// For the store.
    pub write: Write,
    /// For the browser.
    pub cookie: CookieStep,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Nothing.
    Nothing,
    /// Extend the expiry.
    Touch {
        /// The new end.
        expires_at: Millis,
    },
    /// Nothing, but look whether it is still there: its cookie is to be set anew, and a login that ran beside this request may have
    /// set another.
    Confirm,
    /// Store a session that the store does not have.
    Create(Evolved),
    /// Store a session that the store has. On a conflict [`evolve`] is asked again with what is stored by then.
    Save(Evolved),
    /// Store the session under a new sid, then delete the old one.
    Regenerate(Evolved),
    /// Delete it.
    Destroy,
}

/// What happens to the browser's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieStep {
    /// Nothing.
    Leave,
    /// Set it, with this expiry.
    Set {
        /// `Expires`; `None` for a browser-session cookie.
        expires: Option<Millis>,
    },
    /// Delete it.
    Clear,
    /// It should be set or cleared, but is `secure` and the request is not.
    Withheld,
}

/// A session with an update applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Evolved {
    /// What to store.
    pub record: Record,
    /// The data differs from the base, as JSON values.
    pub modified: bool,
    /// Until when the store keeps it.
    pub expires_at: Millis,
}

impl Policy {
    /// The max age that a request gives a session by touching it.
    fn max_age(&self, record: &Record) -> Option<Millis> {
        if record.cookie_missing { self.cookie.max_age } else { record.cookie.original_max_age }
    }

    /// When a session that is new at `now` ends. A browser-session cookie has no end of its own.
    pub fn new_expiry(&self, now: Millis) -> Option<Millis> {
        self.cookie.max_age.map(|age| self.cap(now.saturating_add(age), Some(now)))
    }

    /// When the session ends if it is touched at `now` and never again. A browser-session cookie has no end of its own.
    pub fn touched_expiry(&self, record: &Record, now: Millis) -> Option<Millis> {
        self.max_age(record).map(|age| self.cap(now.saturating_add(age), record.created_at))
    }

    /// Until when the store keeps a session that ends at `expires`.
    pub fn stored_until(
        &self,
        expires: Option<Millis>,
        record_created: Option<Millis>,
        now: Millis,
    ) -> Millis {
        expires.unwrap_or_else(|| self.cap(now.saturating_add(self.ttl), record_created))
    }

    /// Has `absolute_timeout` passed?
    pub fn outlived(&self, record: &Record, now: Millis) -> bool {
        self.absolute_timeout
            .zip(record.created_at)
            .is_some_and(|(limit, created)| created.saturating_add(limit) <= now)
    }

    /// Is a touch due, or does `touch_after` hold it back? [`Millis::MAX`] is never.
    pub fn touch_is_due(&self, touched_at: Option<Millis>, now: Millis) -> bool {
        self.touch_after <= 0
            || (self.touch_after < Millis::MAX
                && touched_at.is_none_or(|at| now.saturating_sub(at) >= self.touch_after))
    }

    fn cap(&self, at: Millis, created_at: Option<Millis>) -> Millis {
        match self.absolute_timeout.zip(created_at) {
            Some((limit, created)) => at.min(created.saturating_add(limit)),
            None => at,
        }
    }
}

/// Decides what a response with this update (`None`: it said nothing) means.
///
/// # Errors
/// [`Invalid::DataTooLarge`] when the update would make the session larger than `limits.session`.
pub fn decide_response(
    policy: &Policy,
    attributes: &Arc<CookieAttributes>,
    facts: Facts<'_>,
    update: Option<&Update>,
) -> Result<Plan, Invalid> {
    let nothing = Update::default();
    let update = update.unwrap_or(&nothing);
    let dropped = matches!(update.change, Change::Null);
    if update.destroy || (dropped && policy.unset == Unset::Destroy) {
        return Ok(decide_destroy(policy, facts));
    }
    if dropped {
        return Ok(Plan { write: Write::Nothing, cookie: CookieStep::Leave });
    }
    let Some(live) = facts.live else {
        return decide_new(policy, attributes, facts, update);
    };
    if update.change == Change::Keep && !update.regenerate && !update.save && !policy.resave {
        return Ok(decide_untouched(policy, facts, live));
    }
    let evolved = evolve(policy, attributes, Some(live.record), update, facts.now)?;
    if update.regenerate {
        let cookie = set_cookie(policy, facts.secure, evolved.record.cookie.expires);
        return Ok(Plan { write: Write::Regenerate(evolved), cookie });
    }
    if privilege_changed(policy, live.record, &evolved) {
        return decide_response(
            policy,
            attributes,
            facts,
            Some(&Update { regenerate: true, ..update.clone() }),
        );
    }
    let expires = evolved.record.cookie.expires;
    let due = policy.rolling
        || facts.stale_cookie
        || update.max_age.is_some()
        || (evolved.modified && expires.is_some());
    let cookie = if due { set_cookie(policy, facts.secure, expires) } else { CookieStep::Leave };
    if evolved.modified || update.save || policy.resave {
        return Ok(Plan { write: Write::Save(evolved), cookie });
    }
    Ok(Plan { cookie, ..decide_untouched(policy, facts, live) })
}

/// Applies an update to a session (or to none): what a save writes. Asked again after every lost compare-and-swap.
///
/// # Errors
/// [`Invalid::DataTooLarge`].
pub fn evolve(
    policy: &Policy,
    attributes: &Arc<CookieAttributes>,
    base: Option<&Record>,
    update: &Update,
    now: Millis,
) -> Result<Evolved, Invalid> {
    let (payload, modified) = evolve_payload(policy, base, update)?;
    let fresh = base.is_none() || update.regenerate;
    let original_max_age = match (update.max_age, base) {
        (Some(MaxAge::Millis(age)), _) => Some(age),
        (Some(MaxAge::Session), _) => None,
        (None, Some(record)) if !fresh => policy.max_age(record),
        (None, _) => policy.cookie.max_age,
    };
    let created_at =
        policy.absolute_timeout.map(|_| base.and_then(|record| record.created_at).unwrap_or(now));
    let expires = original_max_age.map(|age| policy.cap(now.saturating_add(age), created_at));
    let cookie = CookieData { original_max_age, expires, attributes: Arc::clone(attributes) };
    Ok(Evolved {
        expires_at: policy.stored_until(expires, created_at, now),
        record: Record { cookie, payload, created_at, cookie_missing: false },
        modified: modified || update.regenerate,
    })
}

fn evolve_payload(
    policy: &Policy,
    base: Option<&Record>,
    update: &Update,
) -> Result<(Payload, bool), Invalid> {
    let empty = Payload::empty();
    let payload = base.map_or(&empty, |record| &record.payload);
    let before = match &update.change {
        Change::Keep | Change::Null => return Ok((payload.clone(), false)),
        Change::Merge(_) | Change::Replace(_) => payload.to_json(),
    };
    let after = match &update.change {
        Change::Merge(patch) => {
            let mut data = before.clone();
            super::patch::apply(&mut data, Json::Object(patch.clone()));
            data
        }
        Change::Replace(object) => Json::Object(object.clone()),
        Change::Keep | Change::Null => before.clone(),
    };
    if after == before {
        return Ok((payload.clone(), false));
    }
    let payload = Payload::from_json(&after);
    if payload.as_bytes().len() > policy.max_payload {
        return Err(Invalid::DataTooLarge);
    }
    Ok((payload, true))
}

/// Decides what an update in a trailer means. The head is out, so no cookie can be set any more.
///
/// # Errors
/// [`Invalid::NeedsCookie`] when the update cannot do without one, [`Invalid::DataTooLarge`].
pub fn decide_trailer(
    policy: &Policy,
    attributes: &Arc<CookieAttributes>,
    facts: Facts<'_>,
    update: &Update,
) -> Result<Write, Invalid> {
    if update.regenerate || update.max_age.is_some() {
        return Err(Invalid::NeedsCookie);
    }
    match decide_response(policy, attributes, facts, Some(update))?.write {
        Write::Create(_) | Write::Regenerate(_) => Err(Invalid::NeedsCookie),
        write => Ok(write),
    }
}

fn decide_destroy(policy: &Policy, facts: Facts<'_>) -> Plan {
    let write = if facts.live.is_some() { Write::Destroy } else { Write::Nothing };
    let cookie = if policy.clear_cookie_on_destroy && facts.client_has_cookie {
        clear_cookie(policy, facts.secure)
    } else {
        CookieStep::Leave
    };
    Plan { write, cookie }
}

fn decide_new(
    policy: &Policy,
    attributes: &Arc<CookieAttributes>,
    facts: Facts<'_>,
    update: &Update,
) -> Result<Plan, Invalid> {
    let evolved = evolve(policy, attributes, None, update, facts.now)?;
    if !(evolved.modified || policy.save_uninitialized || update.save) {
        return Ok(Plan { write: Write::Nothing, cookie: CookieStep::Leave });
    }
    let cookie = set_cookie(policy, facts.secure, evolved.record.cookie.expires);
    Ok(Plan { write: Write::Create(evolved), cookie })
}

/// A presented session that nobody changed: touch it when due, roll its cookie when asked to.
fn decide_untouched(policy: &Policy, facts: Facts<'_>, live: Live<'_>) -> Plan {
    let expires = policy.touched_expiry(live.record, facts.now);
    let write = if policy.touch_is_due(live.touched_at, facts.now) {
        Write::Touch { expires_at: policy.stored_until(expires, live.record.created_at, facts.now) }
    } else if facts.stale_cookie {
        Write::Confirm
    } else {
        Write::Nothing
    };
    let due = policy.rolling || facts.stale_cookie;
    let cookie = if due { set_cookie(policy, facts.secure, expires) } else { CookieStep::Leave };
    Plan { write, cookie }
}

/// `regenerate_on`: does a save of `after` make one of these fields appear or change?
pub fn privilege_changed(policy: &Policy, before: &Record, after: &Evolved) -> bool {
    if policy.regenerate_on.is_empty() || !after.modified {
        return false;
    }
    let (before, after) = (before.payload.to_json(), after.record.payload.to_json());
    policy.regenerate_on.iter().any(|path| {
        let now = path.find(&after).filter(|value| !matches!(value, Json::Null));
        now.is_some() && now != path.find(&before)
    })
}

/// The step that sets the browser's cookie.
pub fn set_cookie(policy: &Policy, secure: bool, expires: Option<Millis>) -> CookieStep {
    if may_be_set(&policy.cookie, secure) { CookieStep::Set { expires } } else { CookieStep::Withheld }
}

/// The step that deletes the browser's cookie: after a destroy, and when the session vanished while the app worked.
pub fn clear_cookie(policy: &Policy, secure: bool) -> CookieStep {
    if may_be_set(&policy.cookie, secure) { CookieStep::Clear } else { CookieStep::Withheld }
}
