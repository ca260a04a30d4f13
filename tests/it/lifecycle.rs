//! express-session's options as they show on the wire (contract §4). The whole table stands in `lifecycle_table`, beside the rules.

use crate::support::app::App;
use crate::support::sidecar::Setup;
use serde_json::json;

#[test]
fn save_uninitialized_stores_and_sets_at_once() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).session("save_uninitialized = true").start();
    let mut browser = sidecar.browser();
    assert!(browser.get("/", &[]).cookie().is_some());
    assert_eq!(browser.get("/", &[]).cookie(), None);
    assert_eq!(app.last().header("x-session-status"), Some("live"));
}

#[test]
fn rolling_sets_the_cookie_with_each_response() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).session("rolling = true").start();
    let mut browser = sidecar.browser();
    assert_eq!(browser.get("/", &[]).cookie(), None, "nothing to roll yet");
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    assert!(browser.get("/", &[]).cookie().is_some());
}

#[test]
fn a_change_sets_the_cookie_again_only_where_it_has_an_expiry() {
    let app = App::parrot();
    for (max_age, again) in [("\"session\"", false), ("\"1h\"", true)] {
        let sidecar = Setup::before(&app).cookie(&format!("max_age = {max_age}")).start();
        let mut browser = sidecar.browser();
        browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
        assert_eq!(browser.get("/", &[]).cookie(), None);
        assert_eq!(browser.say(&[("X-Session-Update", r#"{"a":2}"#)]).cookie().is_some(), again, "{max_age}");
        assert_eq!(
            browser.say(&[("X-Session-Update", r#"{"a":2}"#)]).cookie(),
            None,
            "the same value is no change"
        );
        assert_eq!(
            browser.say(&[("X-Session-Update", r#"{"a":2.0}"#)]).cookie(),
            None,
            "nor is another spelling"
        );
    }
}

#[test]
fn the_moment_of_the_end_moves_with_each_request() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).cookie("max_age = \"1h\"").start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    browser.get("/", &[]);
    let first = app.last().header("x-session-expires").unwrap().to_owned();
    browser.get("/", &[]);
    let second = app.last().header("x-session-expires").unwrap().to_owned();
    assert!(second >= first, "{first} {second}");
}

#[test]
fn a_session_ends_at_its_max_age() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).cookie("max_age = \"1s\"").start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    let mut kept = browser.clone();
    assert_eq!(browser.session(), json!({"a": 1}));
    // Asking keeps it alive, so each probe lets more than the max age pass first.
    std::thread::sleep(std::time::Duration::from_millis(1300));
    kept.get("/", &[]);
    assert_eq!(app.last().header("x-session-status"), Some("expired"));
}

#[test]
fn the_cookies_attributes_are_the_configs() {
    let app = App::parrot();
    let cases = [
        ("", "; Path=/; HttpOnly; SameSite=Lax"),
        ("http_only = false\nsame_site = \"unset\"", "; Path=/"),
        (
            "domain = \"app.test\"\npath = \"/\"\nsame_site = \"strict\"",
            "; Domain=app.test; Path=/; HttpOnly; SameSite=Strict",
        ),
        (
            "secure = false\npartitioned = true\npriority = \"high\"\nsame_site = \"none\"",
            "; Path=/; HttpOnly; Partitioned; Priority=High; SameSite=None",
        ),
    ];
    for (cookie, attributes) in cases {
        let sidecar = Setup::before(&app).cookie(cookie).start();
        let response = sidecar.browser().say(&[("X-Session-Update", r#"{"a":1}"#)]);
        assert!(response.cookie().unwrap().ends_with(attributes), "{cookie}: {response:?}");
        let pair = response.cookie().unwrap().strip_suffix(attributes).unwrap();
        assert!(!pair.contains(';'), "{cookie}: {pair}");
    }
}
