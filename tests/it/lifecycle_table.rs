//! The lifecycle rules, enumerated: every combination of facts, options and updates, held against contract §4 restated as
//! express-session's four questions. Beside it, named rows with exact plans.

use cloakroom::session::Millis;
use cloakroom::session::cookie::stored_attributes;
use cloakroom::session::json::Json;
use cloakroom::session::lifecycle::{
    CookieOptions, CookieStep, Facts, Live, Plan, Policy, SameSite, Secure, Unset, Write, decide_response,
    decide_trailer,
};
use cloakroom::session::record::{Payload, Record};
use cloakroom::session::wire::{Change, Invalid, MaxAge, Update};
use std::sync::Arc;

const NOW: Millis = 1_800_000_000_000;
const TTL: Millis = 14 * 86_400_000;
const AGE: Millis = 3_600_000;

fn policy() -> Policy {
    Policy {
        resave: false,
        save_uninitialized: false,
        rolling: false,
        unset: Unset::Keep,
        clear_cookie_on_destroy: true,
        cookie: CookieOptions {
            path: "/".into(),
            domain: None,
            http_only: true,
            secure: Secure::Auto,
            same_site: SameSite::Lax,
            partitioned: None,
            priority: None,
            max_age: Some(AGE),
        },
        ttl: TTL,
        touch_after: 0,
        max_payload: 1 << 20,
        store_keys: vec![],
        regenerate_on: vec![],
        absolute_timeout: None,
    }
}

fn record(max_age: Option<Millis>) -> Record {
    let age = max_age.map_or("null".to_owned(), |age| age.to_string());
    Record::parse_json(&format!(
        r#"{{"cookie":{{"originalMaxAge":{age},"expires":null}},"a":1,"b":{{"c":2}}}}"#
    ))
    .unwrap()
}

fn object(text: &str) -> cloakroom::session::json::Object {
    match Json::parse(text, 64) {
        Ok(Json::Object(object)) => object,
        other => panic!("{other:?}"),
    }
}

fn updates() -> Vec<(&'static str, Option<Update>)> {
    let of = |change| Update { change, ..Update::default() };
    let merge = |text| of(Change::Merge(object(text)));
    vec![
        ("silent", None),
        ("empty control", Some(Update::default())),
        ("merge nothing", Some(merge("{}"))),
        ("merge same", Some(merge(r#"{"a":1.0}"#))),
        ("merge change", Some(merge(r#"{"a":2}"#))),
        ("merge delete", Some(merge(r#"{"a":null}"#))),
        ("replace same, other order", Some(of(Change::Replace(object(r#"{"b":{"c":2},"a":1}"#))))),
        ("replace change", Some(of(Change::Replace(object(r#"{"z":null}"#))))),
        ("null", Some(of(Change::Null))),
        ("destroy", Some(Update { destroy: true, ..Update::default() })),
        ("regenerate", Some(Update { regenerate: true, ..Update::default() })),
        ("save", Some(Update { save: true, ..Update::default() })),
        ("max-age", Some(Update { save: true, max_age: Some(MaxAge::Millis(60_000)), ..Update::default() })),
        ("max-age=session", Some(Update { save: true, max_age: Some(MaxAge::Session), ..Update::default() })),
        ("regenerate and merge", Some(Update { regenerate: true, ..merge(r#"{"user":7}"#) })),
    ]
}

/// What contract §4 says in words, as conditions.
struct Words {
    modified: bool,
    destroys: bool,
    drops: bool,
}

fn words(policy: &Policy, live: Option<&Record>, update: Option<&Update>) -> Words {
    let nothing = Update::default();
    let update = update.unwrap_or(&nothing);
    let null = update.change == Change::Null;
    let destroys = update.destroy || (null && policy.unset == Unset::Destroy);
    let before = live.map_or(Json::Object(Default::default()), |record| record.payload.to_json());
    let mut after = before.clone();
    match &update.change {
        Change::Merge(patch) => cloakroom::session::patch::apply(&mut after, Json::Object(patch.clone())),
        Change::Replace(data) => after = Json::Object(data.clone()),
        Change::Keep | Change::Null => {}
    }
    Words { modified: update.regenerate || before != after, destroys, drops: null && !destroys }
}

#[test]
fn every_combination_is_what_the_contract_says() {
    let mut rows = 0;
    for bits in 0..2_u32.pow(10) {
        let flag = |index: u32| bits >> index & 1 == 1;
        let mut policy = policy();
        policy.resave = flag(0);
        policy.save_uninitialized = flag(1);
        policy.rolling = flag(2);
        policy.unset = if flag(3) { Unset::Destroy } else { Unset::Keep };
        policy.cookie.secure = if flag(4) { Secure::Always } else { Secure::Auto };
        policy.touch_after = if flag(5) { 1000 } else { 0 };
        let (secure, has_expiry, client_has_cookie) = (flag(6), flag(7), flag(8));
        let stale_cookie = flag(9);
        let stored = record(has_expiry.then_some(AGE));
        for live in [None, Some(&stored)] {
            // A live session was presented by a cookie.
            if (live.is_some() && !client_has_cookie) || (live.is_none() && stale_cookie) {
                continue;
            }
            for touched_at in [None, Some(NOW - 500), Some(NOW - 1000)] {
                for (name, update) in updates() {
                    let facts = Facts {
                        live: live.map(|record| Live { record, touched_at }),
                        client_has_cookie,
                        stale_cookie,
                        secure,
                        now: NOW,
                    };
                    let attributes = Arc::new(stored_attributes(&policy.cookie, secure));
                    let plan = decide_response(&policy, &attributes, facts, update.as_ref()).unwrap();
                    check(&policy, facts, update.as_ref(), &plan, name);
                    rows += 1;
                }
            }
        }
    }
    assert!(rows > 15_000, "only {rows} rows");
}

fn check(policy: &Policy, facts: Facts<'_>, update: Option<&Update>, plan: &Plan, name: &str) {
    let live = facts.live.map(|live| live.record);
    let Words { modified, destroys, drops } = words(policy, live, update);
    let nothing = Update::default();
    let asked = update.unwrap_or(&nothing);
    let context = format!("{name}: {policy:?} {facts:?} -> {plan:?}");
    let may_set = policy.cookie.secure != Secure::Always || facts.secure;
    if destroys {
        assert_eq!(matches!(plan.write, Write::Destroy), live.is_some(), "{context}");
        let expected = match (facts.client_has_cookie, may_set) {
            (false, _) => CookieStep::Leave,
            (true, true) => CookieStep::Clear,
            (true, false) => CookieStep::Withheld,
        };
        return assert_eq!(plan.cookie, expected, "{context}");
    }
    if drops {
        return assert_eq!((&plan.write, plan.cookie), (&Write::Nothing, CookieStep::Leave), "{context}");
    }
    // save
    let (saves, evolved) = match &plan.write {
        Write::Create(evolved) | Write::Save(evolved) | Write::Regenerate(evolved) => (true, Some(evolved)),
        Write::Nothing | Write::Touch { .. } | Write::Confirm | Write::Destroy => (false, None),
    };
    let due = if live.is_some() { policy.resave || modified } else { policy.save_uninitialized || modified };
    assert_eq!(saves, due || asked.save, "{context}");
    match &plan.write {
        Write::Create(_) => assert!(live.is_none(), "{context}"),
        Write::Save(_) => assert!(live.is_some() && !asked.regenerate, "{context}"),
        Write::Regenerate(_) => assert!(live.is_some() && asked.regenerate, "{context}"),
        Write::Destroy => panic!("{context}"),
        // touch: presented, not saved, not throttled
        Write::Touch { .. } | Write::Confirm | Write::Nothing => {
            let throttled = policy.touch_after > 0
                && facts
                    .live
                    .and_then(|live| live.touched_at)
                    .is_some_and(|at| NOW - at < policy.touch_after);
            assert_eq!(matches!(plan.write, Write::Touch { .. }), live.is_some() && !throttled, "{context}");
            let confirms = live.is_some() && throttled && facts.stale_cookie;
            assert_eq!(plan.write == Write::Confirm, confirms, "{context}");
        }
    }
    // cookie
    let age = match (asked.max_age, live) {
        (Some(MaxAge::Millis(age)), _) => Some(age),
        (Some(MaxAge::Session), _) => None,
        (None, Some(record)) if !asked.regenerate => record.cookie.original_max_age,
        (None, _) => policy.cookie.max_age,
    };
    let expires = age.map(|age| NOW + age);
    let sets = match live {
        Some(_) if asked.regenerate || asked.max_age.is_some() => true,
        Some(_) => policy.rolling || facts.stale_cookie || (modified && expires.is_some()),
        None => policy.save_uninitialized || modified || asked.save,
    };
    let expected = match (sets, may_set) {
        (false, _) => CookieStep::Leave,
        (true, true) => CookieStep::Set { expires },
        (true, false) => CookieStep::Withheld,
    };
    assert_eq!(plan.cookie, expected, "{context}");
    if let Some(evolved) = evolved {
        assert_eq!(evolved.record.cookie.original_max_age, age, "{context}");
        assert_eq!(evolved.record.cookie.expires, expires, "{context}");
        assert_eq!(evolved.expires_at, expires.unwrap_or(NOW + TTL), "{context}");
        assert_eq!(evolved.modified, modified, "{context}");
    }
    if let Write::Touch { expires_at } = plan.write {
        assert_eq!(expires_at, expires.unwrap_or(NOW + TTL), "{context}");
    }
}

fn decide(policy: &Policy, live: Option<&Record>, update: Option<&Update>) -> Result<Plan, Invalid> {
    let facts = Facts {
        live: live.map(|record| Live { record, touched_at: None }),
        client_has_cookie: live.is_some(),
        stale_cookie: false,
        secure: true,
        now: NOW,
    };
    decide_response(policy, &Arc::new(stored_attributes(&policy.cookie, true)), facts, update)
}

#[test]
fn a_session_that_would_grow_too_large_is_an_invalid_update() {
    let mut policy = policy();
    policy.max_payload = 30;
    let update =
        Update { change: Change::Merge(object(r#"{"long":"0123456789012345"}"#)), ..Update::default() };
    assert_eq!(decide(&policy, Some(&record(None)), Some(&update)), Err(Invalid::DataTooLarge));
    assert!(decide(&policy, None, Some(&update)).is_ok());
}

#[test]
fn regenerate_on_gives_a_new_sid_when_the_field_appears_or_changes() {
    let mut policy = policy();
    policy.regenerate_on = vec![cloakroom::session::guard::FieldPath::parse("user.id").unwrap()];
    let merge = |text: &str| Update { change: Change::Merge(object(text)), ..Update::default() };
    let plan = |base: &str, update: &str| {
        let mut record = record(None);
        record.payload = Payload::from_json(&Json::Object(object(base)));
        decide(&policy, Some(&record), Some(&merge(update))).unwrap().write
    };
    assert!(matches!(plan("{}", r#"{"user":{"id":1}}"#), Write::Regenerate(_)));
    assert!(matches!(plan(r#"{"user":{"id":1}}"#, r#"{"user":{"id":2}}"#), Write::Regenerate(_)));
    assert!(matches!(plan(r#"{"user":{"id":1}}"#, r#"{"user":{"name":"x"}}"#), Write::Save(_)));
    assert!(matches!(plan(r#"{"user":{"id":1}}"#, r#"{"user":null}"#), Write::Save(_)));
    assert!(matches!(plan("{}", r#"{"user":{"id":null,"x":1}}"#), Write::Save(_)));
}

#[test]
fn a_document_without_cookie_counts_with_the_configured_one() {
    let stored = Record::parse_json(r#"{"a":1}"#).unwrap();
    let plan = decide(&policy(), Some(&stored), None).unwrap();
    assert_eq!(plan.write, Write::Touch { expires_at: NOW + AGE });
}

#[test]
fn absolute_timeout_caps_every_expiry() {
    let mut policy = policy();
    policy.absolute_timeout = Some(AGE * 2);
    let mut stored = record(Some(AGE));
    stored.created_at = Some(NOW - AGE - 1000);
    let Write::Touch { expires_at } = decide(&policy, Some(&stored), None).unwrap().write else { panic!() };
    assert_eq!(expires_at, NOW + AGE - 1000);
    assert!(!policy.outlived(&stored, NOW));
    assert!(policy.outlived(&stored, NOW + AGE));
    let update = Update { regenerate: true, ..Update::default() };
    let Write::Regenerate(evolved) = decide(&policy, Some(&stored), Some(&update)).unwrap().write else {
        panic!()
    };
    assert_eq!(evolved.record.created_at, stored.created_at);
    assert_eq!(evolved.record.cookie.expires, Some(NOW + AGE - 1000));
}

#[test]
fn trailers_do_what_needs_no_cookie() {
    let policy = policy();
    let attributes = Arc::new(stored_attributes(&policy.cookie, true));
    let stored = record(Some(AGE));
    for (name, update) in updates() {
        let Some(update) = update else { continue };
        let facts =
            |live| Facts { live, client_has_cookie: true, stale_cookie: false, secure: true, now: NOW };
        let on_live = decide_trailer(
            &policy,
            &attributes,
            facts(Some(Live { record: &stored, touched_at: None })),
            &update,
        );
        let needs_cookie = update.regenerate || update.max_age.is_some();
        assert_eq!(on_live == Err(Invalid::NeedsCookie), needs_cookie, "{name}");
        let on_new = decide_trailer(&policy, &attributes, facts(None), &update);
        let Words { modified, destroys, drops } = words(&policy, None, Some(&update));
        let creates = !destroys && !drops && (modified || update.save);
        assert_eq!(on_new == Err(Invalid::NeedsCookie), creates || needs_cookie, "{name}");
    }
}
