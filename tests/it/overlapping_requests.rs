//! Two requests of one session that overlap: the second has loaded the session, the first runs from end to end, and only then the
//! second one's app answers. What is stored and what the browser keeps must not depend on luck.

use crate::support::app::{App, parrot};
use crate::support::client::{Browser, Response};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::link::{Link, Mode};
use crate::support::mongo::Database;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::ticket;
use serde_json::json;
use std::time::{Duration, Instant};

const MONTH: &str = "max-age=2592000";

/// An app that says what it is told to say, and keeps requests with the header `Hold` waiting.
fn app(gate: &Gate) -> App {
    let gate = gate.clone();
    App::start(move |request| {
        if request.header("hold").is_some() {
            gate.pass();
        }
        parrot(request)
    })
}

/// `late` loads the session, `early` runs, `late` is answered.
fn race(
    gate: &Gate,
    browser: &Browser,
    early: &[(&str, &str)],
    late: &[(&str, &str)],
) -> (Response, Response) {
    gate.shut();
    let held: Vec<(&str, &str)> = late.iter().copied().chain([("Hold", "1")]).collect();
    let (mut one, mut two) = (browser.clone(), browser.clone());
    std::thread::scope(|scope| {
        let late = scope.spawn(move || two.get("/", &held));
        gate.arrived(1);
        let early = one.get("/", early);
        gate.open();
        (early, late.join().unwrap())
    })
}

fn with_session(sidecar: &Sidecar, data: &str) -> Browser {
    let mut browser = sidecar.browser();
    assert!(browser.say(&[("X-Session-Update", data)]).cookie().is_some());
    browser
}

fn sid(browser: &Browser) -> String {
    ticket::sid_of(&browser.jar["connect.sid"])
}

fn days_left(at: bson::DateTime) -> i64 {
    (at.timestamp_millis() - bson::DateTime::now().timestamp_millis()) / 86_400_000
}

#[test]
fn a_touch_does_not_undo_a_max_age() {
    let (gate, database) = (Gate::default(), Database::fresh());
    let app = app(&gate);
    let sidecar = Setup::before(&app).cookie("max_age = \"1h\"").store(&database.store()).start();
    let browser = with_session(&sidecar, r#"{"a":1}"#);
    race(&gate, &browser, &[("Say-X-Session-Control", MONTH)], &[]);
    let expires = *database.find(&sid(&browser)).unwrap().get_datetime("expires").unwrap();
    assert_eq!(days_left(expires), 29);
}

#[test]
fn a_cookie_has_the_expiry_of_what_was_stored() {
    let gate = Gate::default();
    let app = app(&gate);
    let sidecar = Setup::before(&app).cookie("max_age = \"1h\"").start();
    let browser = with_session(&sidecar, r#"{"a":1}"#);
    let (early, late) =
        race(&gate, &browser, &[("Say-X-Session-Control", MONTH)], &[("Say-X-Session-Update", r#"{"b":2}"#)]);
    let day = |response: &Response| {
        let line = response.cookie().unwrap();
        line.split("Expires=").nth(1).unwrap().split(' ').take(4).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(day(&early), day(&late));
}

#[test]
fn a_response_on_the_old_sid_does_not_clear_the_cookie_of_the_new_one() {
    let gate = Gate::default();
    let app = app(&gate);
    let sidecar = Setup::before(&app).start();
    for late in
        [&[][..], &[("Say-X-Session-Update", r#"{"b":2}"#)], &[("Say-X-Session-Control", "regenerate")]]
    {
        let browser = with_session(&sidecar, r#"{"a":1}"#);
        let (early, late) = race(&gate, &browser, &[("Say-X-Session-Control", "regenerate")], late);
        assert!(early.cookie().is_some() && !early.clears_cookie());
        assert_eq!((late.status, late.cookie()), (200, None));
    }
    let browser = with_session(&sidecar, r#"{"a":1}"#);
    let (_, late) = race(&gate, &browser, &[("Say-X-Session-Control", "destroy")], &[]);
    assert!(late.clears_cookie(), "after a destroy it is cleared: {late:?}");
}

#[test]
fn a_regenerate_that_is_refused_leaves_nothing_behind() {
    let (gate, database) = (Gate::default(), Database::fresh());
    let app = app(&gate);
    let sidecar = Setup::before(&app).store(&database.store()).more("[limits]\nsession = \"1KiB\"").start();
    let browser = with_session(&sidecar, r#"{"a":1}"#);
    let half = |key: &str| format!(r#"{{"{key}":"{}"}}"#, "x".repeat(700));
    let (early, late) = race(
        &gate,
        &browser,
        &[("Say-X-Session-Update", &half("one"))],
        &[("Say-X-Session-Update", &half("two")), ("Say-X-Session-Control", "regenerate")],
    );
    assert_eq!((early.status, late.status, late.cookie()), (200, 502, None));
    assert_eq!(database.count(), 1);
}

#[test]
fn regenerate_on_holds_for_what_others_stored_meanwhile() {
    let gate = Gate::default();
    let app = app(&gate);
    let sidecar = Setup::before(&app).session("regenerate_on = [\"user.id\"]").start();
    let mut browser = with_session(&sidecar, r#"{"user":{"id":1}}"#);
    let (early, late) = race(
        &gate,
        &browser,
        &[("Say-X-Session-Update", r#"{"user":null}"#)],
        &[("Say-X-Session-Update", r#"{"user":{"id":1},"z":1}"#)],
    );
    assert_eq!(early.status, 200);
    let line = late.cookie().expect("a new sid").to_owned();
    let old = sid(&browser);
    browser.jar.insert("connect.sid".into(), line.split(['=', ';']).nth(1).unwrap().into());
    assert_ne!(sid(&browser), old);
    assert_eq!(browser.session(), json!({"user": {"id": 1}, "z": 1}));
}

#[test]
fn a_trailer_for_a_session_that_vanished_is_dropped_and_the_response_is_whole() {
    let gate = Gate::default();
    let app = app(&gate);
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar, r#"{"a":1}"#);
    let (_, late) = race(
        &gate,
        &browser,
        &[("Say-X-Session-Control", "destroy")],
        &[("Say-Trailer-X-Session-Update", r#"{"b":1}"#)],
    );
    assert!(late.complete && late.clears_cookie(), "{late:?}");
    assert_eq!(browser.session(), json!({}));
}

/// A merge that was under way when the session got its new sid is merged all the same, and a logout ends it all the same. The cookie
/// of the new sid goes to the request that regenerated, and to nobody else.
#[test]
fn what_was_under_way_follows_the_session_to_its_new_sid() {
    let gate = Gate::default();
    let app = app(&gate);
    let sidecar = Setup::before(&app).start();
    let regenerate = [("Say-X-Session-Control", "regenerate"), ("Say-X-Session-Update", r#"{"user":1}"#)];
    let mut browser = with_session(&sidecar, r#"{"a":1}"#);
    let merge = [("Say-X-Session-Update", r#"{"b":2}"#)];
    let (early, late) = race(&gate, &browser, &regenerate, &merge);
    assert_eq!((late.status, late.cookie()), (200, None));
    follow(&mut browser, &early);
    assert_eq!(browser.session(), json!({"a": 1, "user": 1, "b": 2}));

    let (early, late) = race(&gate, &browser, &regenerate, &[("Say-X-Session-Control", "destroy")]);
    assert!(late.clears_cookie());
    follow(&mut browser, &early);
    assert_eq!(browser.session(), json!({}));
}

/// The store takes its time over the old session's deletion: the client hears so and has its new cookie, and what others did to the
/// old session meanwhile holds.
#[test]
fn a_regenerate_whose_deletion_is_late_loses_no_merge_and_revives_no_logout() {
    let (gate, database) = (Gate::default(), Database::fresh());
    let app = app(&gate);
    let slow = Link::to(database.server());
    let timeouts = "[timeouts]\nstore = \"500ms\"";
    let one = Setup::before(&app).store(&database.store_at(slow.address())).more(timeouts).start();
    let other = Setup::before(&app).store(&database.store()).start();
    for (meanwhile, left) in [
        (&[("X-Session-Update", r#"{"paid":true}"#)][..], json!({"a": 1, "paid": true})),
        (&[("X-Session-Control", "destroy")], json!({})),
    ] {
        let mut browser = with_session(&one, r#"{"a":1}"#);
        let mut elsewhere = other.browser();
        elsewhere.jar.clone_from(&browser.jar);
        slow.set(Mode::StallDeletes);
        let response = browser.say(&[("X-Session-Control", "regenerate")]);
        assert_eq!(response.status, 503);
        assert!(response.cookie().is_some() && !response.clears_cookie(), "{response:?}");
        assert_eq!(elsewhere.say(meanwhile).status, 200);
        slow.set(Mode::Forward);
        eventually("the old session to be gone and the new one to have followed", || {
            (elsewhere.clone().session() == json!({}) && browser.clone().session() == left).then_some(())
        });
    }
}

/// Keeps what the response sets.
fn follow(browser: &mut Browser, response: &Response) {
    let line = response.cookie().unwrap();
    browser.jar.insert("connect.sid".into(), line.split(['=', ';']).nth(1).unwrap().into());
}

#[test]
fn writers_of_one_session_do_not_add_up_their_waits_in_an_outage() {
    let (gate, database) = (Gate::default(), Database::fresh());
    let link = Link::to(database.server());
    let app = app(&gate);
    let sidecar = Setup::before(&app)
        .store(&database.store_at(link.address()))
        .more("[timeouts]\nstore = \"1s\"")
        .start();
    let browser = with_session(&sidecar, r#"{"a":1}"#);
    gate.shut();
    let slowest = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|index| {
                let mut browser = browser.clone();
                scope.spawn(move || {
                    let update = format!(r#"{{"k{index}":1}}"#);
                    let headers = [("Hold", "1"), ("Say-X-Session-Update", update.as_str())];
                    let response = browser.get("/", &headers);
                    assert_eq!(response.status, 503);
                    Instant::now()
                })
            })
            .collect();
        gate.arrived(8);
        link.set(Mode::Stall);
        let opened = Instant::now();
        gate.open();
        writers.into_iter().map(|writer| writer.join().unwrap() - opened).max().unwrap()
    });
    assert!(slowest < Duration::from_secs(3), "{slowest:?} for a deadline of 1 s");
}
