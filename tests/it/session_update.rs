//! What the app may say (contract §3): every directive, every invalid update, two writers at once.

use crate::support::app::{App, Reply};
use crate::support::client::Browser;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::ticket;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// A browser with the session `{"a":1,"b":{"c":2,"d":3}}`.
fn with_session(sidecar: &Sidecar) -> Browser {
    let mut browser = sidecar.browser();
    let response = browser.say(&[("X-Session-Update", r#"{"a":1,"b":{"c":2,"d":3}}"#)]);
    assert!(response.cookie().is_some(), "{response:?}");
    browser
}

fn sid(browser: &Browser) -> String {
    ticket::sid_of(&browser.jar["connect.sid"])
}

#[test]
fn an_update_is_a_merge_patch() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    let response = browser.say(&[("X-Session-Update", r#"{"a":null,"b":{"c":null,"e":[1]},"f":true}"#)]);
    assert_eq!((response.status, response.cookie()), (200, None));
    assert_eq!(browser.session(), json!({"b": {"d": 3, "e": [1]}, "f": true}));
}

#[test]
fn base64url_carries_what_a_header_cannot() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    browser.say(&[("X-Session-Update", &URL_SAFE_NO_PAD.encode(r#"{"a":"Zoë\n"}"#))]);
    assert_eq!(browser.session(), json!({"a": "Zoë\n", "b": {"c": 2, "d": 3}}));
}

#[test]
fn replace_makes_the_object_the_data() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    browser.say(&[("X-Session-Control", "Replace"), ("X-Session-Update", r#"{"z":null}"#)]);
    assert_eq!(browser.session(), json!({"z": null}));
}

#[test]
fn destroy_ends_the_session_and_clears_the_cookie() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    let mut stolen = browser.clone();
    let response = browser.say(&[("X-Session-Control", "destroy")]);
    let line = response.cookie().unwrap();
    assert!(line.starts_with("connect.sid=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"), "{line}");
    assert!(browser.jar.is_empty());
    assert_eq!(stolen.session(), json!({}));
    assert_eq!(app.last().header("x-session-status"), Some("expired"));
}

#[test]
fn destroy_is_silent_where_the_config_says_so() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).session("clear_cookie_on_destroy = false").start();
    let mut browser = with_session(&sidecar);
    let response = browser.say(&[("X-Session-Control", "destroy")]);
    assert_eq!(response.cookie(), None);
    assert_eq!(browser.session(), json!({}));
}

#[test]
fn regenerate_gives_a_new_sid_keeps_the_data_and_deletes_the_old_one() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    let mut old = browser.clone();
    browser.say(&[("X-Session-Control", " save , REGENERATE,"), ("X-Session-Update", r#"{"a":9}"#)]);
    assert_ne!(sid(&browser), sid(&old));
    assert_eq!(browser.session(), json!({"a": 9, "b": {"c": 2, "d": 3}}));
    assert_eq!(app.last().header("x-session-id"), Some(&*sid(&browser)));
    assert_eq!(old.session(), json!({}));
}

#[test]
fn save_stores_a_session_in_which_nothing_changed() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    assert!(browser.say(&[("X-Session-Control", "save")]).cookie().is_some());
    assert_eq!(browser.session(), json!({}));
    assert_eq!(app.last().header("x-session-status"), Some("live"));
    assert_eq!(browser.say(&[("X-Session-Control", "save")]).cookie(), None);
}

#[test]
fn max_age_sets_another_end_and_a_new_cookie() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    let response = browser.say(&[("X-Session-Control", "max-age=60")]);
    assert!(response.cookie().unwrap().contains("; Expires="), "{response:?}");
    browser.get("/", &[]);
    assert!(app.last().header("x-session-expires").is_some());
    let response = browser.say(&[("X-Session-Control", "max-age=session")]);
    assert!(!response.cookie().unwrap().contains("Expires"), "{response:?}");
    browser.get("/", &[]);
    assert_eq!(app.last().header("x-session-expires"), None);
}

#[test]
fn max_age_is_a_whole_number_within_400_days() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    assert_eq!(browser.say(&[("X-Session-Control", "max-age=34560000")]).status, 200);
    for bad in ["0", "34560001", "-1", "1.5", "", "1e3", "99999999999999999999"] {
        let control = format!("max-age={bad}");
        assert_eq!(browser.say(&[("X-Session-Control", &control)]).status, 502, "{control}");
    }
}

#[test]
fn null_with_keep_drops_the_changes_of_this_request() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).session("rolling = true").cookie("max_age = \"1h\"").start();
    let mut browser = with_session(&sidecar);
    let response = browser.say(&[("X-Session-Update", "null")]);
    assert_eq!((response.status, response.cookie()), (200, None));
    assert_eq!(browser.session(), json!({"a": 1, "b": {"c": 2, "d": 3}}));
}

#[test]
fn null_with_destroy_ends_the_session() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).session("unset = \"destroy\"").start();
    let mut browser = with_session(&sidecar);
    let mut old = browser.clone();
    assert!(browser.say(&[("X-Session-Update", "null")]).clears_cookie());
    assert_eq!(old.session(), json!({}));
}

#[test]
fn the_update_headers_never_reach_the_client() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let response = sidecar.browser().say(&[
        ("X-Session-Update", r#"{"a":1}"#),
        ("X-Session-Control", "save"),
        ("X-Session-Control", "merge"),
        ("X-Other", "passes"),
    ]);
    assert_eq!(response.header("x-other"), Some("passes"));
    assert!(response.headers.folded("x-session").is_empty(), "{response:?}");
}

#[test]
fn the_sidecars_cookie_stands_after_the_apps_own() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let response = sidecar.browser().say(&[
        ("Set-Cookie", "a=1"),
        ("X-Session-Update", "{\"a\":1}"),
        ("Set-Cookie", "b=2"),
    ]);
    let lines: Vec<&str> = response.headers.all("set-cookie").map(|line| &line[..3]).collect();
    assert_eq!(lines, ["a=1", "b=2", "con"]);
}

#[test]
fn nested_keys_and_names_that_express_cannot_hold_are_data() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"x":{"cookie":1,"__proto__":2},"constructor":3,"id":4}"#)]);
    let data: serde_json::Value =
        serde_json::from_str(r#"{"x":{"cookie":1,"__proto__":2},"constructor":3,"id":4}"#).unwrap();
    assert_eq!(browser.session(), data);
}

/// Control lines, Update lines.
type Said = (&'static [&'static str], &'static [&'static str]);

const INVALID: &[(&str, Said)] = &[
    ("bad JSON", (&[], &["{\"a\":"])),
    ("bad JSON: something behind", (&[], &["{} {}"])),
    ("bad JSON: a single quote", (&[], &["{'a':1}"])),
    ("not base64url", (&[], &["!!!"])),
    ("base64url of no JSON", (&[], &["aGVsbG8"])),
    ("base64url of an array", (&[], &["W10"])),
    ("an array", (&[], &["[]"])),
    ("a number", (&[], &["1"])),
    ("a string", (&[], &["\"a\""])),
    ("empty", (&[], &[""])),
    ("two updates", (&[], &["{\"a\":2}", "{\"a\":3}"])),
    ("the reserved key", (&[], &["{\"cookie\":{}}"])),
    ("the reserved key, escaped", (&[], &["{\"coo\\u006bie\":null}"])),
    ("an unknown directive", (&["obliterate"], &["{\"a\":2}"])),
    ("destroy with an update", (&["destroy"], &["{\"a\":2}"])),
    ("destroy with save", (&["destroy, save"], &[])),
    ("destroy with regenerate on another line", (&["destroy", "regenerate"], &[])),
    ("destroy with null", (&["destroy"], &["null"])),
    ("merge with replace", (&["merge, replace"], &["{\"a\":2}"])),
    ("two max-age", (&["max-age=60, max-age=60"], &[])),
    ("max-age without a number", (&["max-age"], &[])),
    ("replace without an update", (&["replace"], &[])),
    ("null with save", (&["save"], &["null"])),
    ("null with regenerate", (&["regenerate"], &["null"])),
];

fn say(browser: &mut Browser, said: Said) -> crate::support::client::Response {
    let control = said.0.iter().map(|value| ("X-Session-Control", *value));
    let update = said.1.iter().map(|value| ("X-Session-Update", *value));
    browser.say(&control.chain(update).chain([("X-Passed", "yes")]).collect::<Vec<_>>())
}

#[test]
fn an_invalid_update_answers_502_changes_nothing_and_the_log_says_why() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    for (what, said) in INVALID {
        let before = browser.clone();
        let lines = sidecar.log().lines().filter(|line| line.contains("invalid")).count();
        let response = say(&mut browser, *said);
        assert_eq!(response.status, 502, "{what}");
        assert_eq!(response.cookie(), None, "{what}");
        assert_eq!(response.header("x-passed"), None, "{what}");
        assert_eq!(before.jar, browser.jar, "{what}");
        assert_eq!(browser.session(), json!({"a": 1, "b": {"c": 2, "d": 3}}), "{what}");
        eventually(&format!("a log line about {what}"), || {
            (sidecar.log().lines().filter(|line| line.contains("invalid")).count() > lines).then_some(())
        });
    }
}

#[test]
fn ignoring_an_invalid_update_passes_the_response_on_and_changes_nothing() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).session("invalid_update = \"ignore\"").start();
    let mut browser = with_session(&sidecar);
    for (what, said) in INVALID {
        let response = say(&mut browser, *said);
        assert_eq!((response.status, response.header("x-passed")), (200, Some("yes")), "{what}");
        assert!(response.headers.folded("x-session").is_empty(), "{what}");
        assert_eq!(browser.session(), json!({"a": 1, "b": {"c": 2, "d": 3}}), "{what}");
    }
}

#[test]
fn depth_and_size_are_limited() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nsession = \"2KiB\"").start();
    let mut browser = with_session(&sidecar);
    let nested = |depth: usize| format!("{}1{}", "{\"n\":".repeat(depth), "}".repeat(depth));
    assert_eq!(browser.say(&[("X-Session-Update", &nested(64))]).status, 200);
    assert_eq!(browser.say(&[("X-Session-Update", &nested(65))]).status, 502);
    assert_eq!(
        browser.say(&[("X-Session-Update", &format!("{{\"n\":\"{}\"}}", "x".repeat(2100)))]).status,
        502
    );
    // Each update is small enough, what they add up to is not.
    let half = "y".repeat(1200);
    assert_eq!(browser.say(&[("X-Session-Update", &format!("{{\"n\":\"{half}\"}}"))]).status, 200);
    assert_eq!(browser.say(&[("X-Session-Update", &format!("{{\"m\":\"{half}\"}}"))]).status, 502);
    assert_eq!(browser.session()["n"], json!(half));
}

#[test]
fn a_status_makes_no_difference() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    for status in ["201", "302", "404", "422", "500", "503"] {
        let mut browser = sidecar.browser();
        let response = browser.say(&[("Status", status), ("X-Session-Update", r#"{"a":1}"#)]);
        assert_eq!(response.status.to_string(), status);
        assert_eq!(browser.session(), json!({"a": 1}), "{status}");
    }
}

#[test]
fn merges_of_two_requests_at_once_both_survive() {
    let gate = Gate::default();
    let before_the_gate = gate.clone();
    let app = App::start(move |request| match request.target() {
        "/read" => Reply::ok(request.header("x-session").unwrap()),
        "/create" => Reply::ok("").header("X-Session-Update", "{\"start\":true}"),
        path => {
            before_the_gate.pass();
            Reply::ok("").header("X-Session-Update", &format!("{{\"{}\":1}}", &path[1..]))
        }
    });
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.get("/create", &[]);
    std::thread::scope(|scope| {
        for path in ["/left", "/right"] {
            let mut browser = browser.clone();
            scope.spawn(move || assert_eq!(browser.get(path, &[]).status, 200));
        }
        gate.arrived(2);
        gate.open();
    });
    let data: serde_json::Value = serde_json::from_slice(&browser.get("/read", &[]).body).unwrap();
    assert_eq!(data, json!({"start": true, "left": 1, "right": 1}));
}

#[test]
fn nothing_brings_a_session_back_that_was_destroyed_while_the_app_worked() {
    let gate = Gate::default();
    let before_the_gate = gate.clone();
    let app = App::start(move |request| match request.target() {
        "/create" => Reply::ok("").header("X-Session-Update", "{\"user\":1}"),
        "/logout" => Reply::ok("").header("X-Session-Control", "destroy"),
        "/slow" => {
            before_the_gate.pass();
            let control = request.header("say-control").unwrap();
            Reply::ok("").header("X-Session-Update", "{\"user\":2}").header("X-Session-Control", control)
        }
        _ => Reply::ok(request.header("x-session-status").unwrap()),
    });
    let sidecar = Setup::before(&app).start();
    for control in ["merge", "replace", "save", "max-age=60"] {
        gate.shut();
        let mut browser = sidecar.browser();
        browser.get("/create", &[]);
        let mut other_tab = browser.clone();
        let late = std::thread::scope(|scope| {
            let slow = scope.spawn(|| browser.get("/slow", &[("Say-Control", control)]));
            gate.arrived(1);
            assert!(other_tab.clone().get("/logout", &[]).clears_cookie());
            gate.open();
            slow.join().unwrap()
        });
        assert_eq!(late.status, 200, "{control}");
        assert!(late.clears_cookie(), "{control}: {late:?}");
        assert_eq!(other_tab.get("/status", &[]).text(), "expired", "{control}");
    }
}

#[test]
fn neither_sids_nor_payloads_are_logged() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"card":"4111-1111-SECRET"}"#)]);
    browser.say(&[("X-Session-Update", r#"{"card":"4111-1111-SECRET""#)]);
    browser.get("/?4711", &[]);
    sidecar.logged(&["4711"]);
    let log = sidecar.log();
    for secret in ["4111-1111-SECRET", &sid(&browser), ticket::SECRET] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
}
