//! What the app is told about a session (contract §2).

use crate::support::app::App;
use crate::support::sidecar::Setup;
use crate::support::ticket::{self, SECRET};
use serde_json::json;
use std::time::{Duration, SystemTime};

#[test]
fn a_new_visitor_is_a_new_empty_session_and_nothing_is_set() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let response = sidecar.browser().get("/", &[]);
    assert_eq!((response.status, response.cookie()), (200, None));
    let request = app.last();
    assert_eq!(request.header("x-session"), Some("{}"));
    assert_eq!(request.header("x-session-new"), Some("true"));
    assert_eq!(request.header("x-session-status"), Some("none"));
    assert_eq!(request.header("x-session-expires"), None);
    assert_eq!(request.header("x-session-signature"), None);
    let sid = request.header("x-session-id").unwrap();
    assert!(sid.len() == 32 && sid.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{sid}");
    sidecar.stop();
}

#[test]
fn what_the_app_said_comes_back_with_the_next_request() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"user":{"id":7},"cart":[1,2.5,null]}"#)]);
    let sid = app.last().header("x-session-id").unwrap().to_owned();
    assert_eq!(ticket::sid_of(&browser.jar["connect.sid"]), sid);
    assert_eq!(browser.session(), json!({"user": {"id": 7}, "cart": [1, 2.5, null]}));
    let request = app.last();
    assert_eq!(request.header("x-session-id"), Some(&*sid));
    assert_eq!(request.header("x-session-new"), Some("false"));
    assert_eq!(request.header("x-session-status"), Some("live"));
}

#[test]
fn the_data_is_visible_ascii_whatever_it_is() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"name":"Zo\u00eb \ud83d\ude00\r\n\u0000 Ωé"}"#)]);
    assert_eq!(browser.session(), json!({"name": "Zoë 😀\r\n\0 Ωé"}));
    let text = app.last().header("x-session").unwrap().to_owned();
    assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)), "{text:?}");
}

#[test]
fn a_verified_cookie_without_a_session_is_expired_and_its_sid_is_not_taken_over() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let cookie = ticket::cookie("a-sid-that-an-attacker-chose", SECRET);
    let response = sidecar.client().get("/", &[("Cookie", &cookie), ("Say-X-Session-Update", r#"{"a":1}"#)]);
    let request = app.last();
    assert_eq!(request.header("x-session-status"), Some("expired"));
    assert_eq!(request.header("x-session"), Some("{}"));
    assert_eq!(request.header("x-session-new"), Some("true"));
    let sid = request.header("x-session-id").unwrap();
    assert_ne!(sid, "a-sid-that-an-attacker-chose");
    assert!(response.cookie().unwrap().contains(&ticket::encode(&ticket::sign(sid, SECRET))));
}

#[test]
fn a_max_age_shows_as_the_moment_of_the_end() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).cookie("max_age = \"1h\"").start();
    let mut browser = sidecar.browser();
    let response = browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    let set = response.cookie().unwrap();
    assert!(set.contains("; Path=/; Expires=") && set.contains("GMT; HttpOnly; SameSite=Lax"), "{set}");
    assert!(!set.contains("Max-Age"), "{set}");
    let told = app.last().header("x-session-expires").unwrap().to_owned();
    assert!(told.len() == 24 && told.ends_with('Z') && told.as_bytes()[19] == b'.', "{told}");
    let told = bson::DateTime::parse_rfc3339_str(&told).unwrap().to_system_time();
    let end = set.split("Expires=").nth(1).unwrap().split(';').next().unwrap();
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    for moment in [told, httpdate::parse_http_date(end).unwrap()] {
        let apart = in_an_hour.duration_since(moment).unwrap_or_else(|later| later.duration());
        assert!(apart < Duration::from_secs(10), "{apart:?} from an hour from now");
    }
}

#[test]
fn the_session_cookie_is_taken_off_and_the_others_stay_as_they_are() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let ours = ticket::cookie("sid", SECRET);
    let sent = format!("a=1;  b=\"x y\"; {ours}; c=%zz; connect.sid=twice; Connect.Sid=other");
    sidecar.client().get("/", &[("Cookie", &sent)]);
    let passed = app.last().header("cookie").unwrap().to_owned();
    assert!(!passed.contains("connect.sid="), "{passed}");
    for pair in ["a=1", "b=\"x y\"", "c=%zz", "Connect.Sid=other"] {
        assert!(passed.split(';').any(|kept| kept.trim_start() == pair), "{pair} in {passed}");
    }
    sidecar.client().get("/", &[("Cookie", &ours)]);
    assert_eq!(app.last().header("cookie"), None);
}

#[test]
fn forward_cookie_keeps_all() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).session("forward_cookie = true").start();
    let sent = format!("a=1; {}", ticket::cookie("sid", SECRET));
    sidecar.client().get("/", &[("Cookie", &sent)]);
    assert_eq!(app.last().header("cookie"), Some(&*sent));
}

#[test]
fn base64url_is_the_same_json() {
    use base64::Engine;
    let app = App::parrot();
    let sidecar = Setup::before(&app).headers("encoding = \"base64url\"").start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"name":"Zo\u00eb"}"#)]);
    browser.get("/", &[]);
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(app.last().header("x-session").unwrap())
        .unwrap();
    let data: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(data, json!({"name": "Zoë"}));
}

#[test]
fn a_signing_key_lets_the_app_tell_the_sidecar_from_a_stranger() {
    let key = "a-key-between-the-sidecar-and-the-app";
    let app = App::parrot();
    let sidecar = Setup::before(&app).headers(&format!("signing_key = \"{key}\"")).start();
    sidecar.client().get("/", &[("X-Session-Signature", "t=1,v1=00")]);
    let request = app.last();
    let signature = request.header("x-session-signature").unwrap();
    let (time, mac) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let text = format!(
        "{time}.{}.{}",
        request.header("x-session-id").unwrap(),
        request.header("x-session").unwrap()
    );
    let expected: String =
        ticket::hmac(key.as_bytes(), text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(mac, expected);
}

#[test]
fn a_session_too_large_for_a_header_is_a_500_that_the_log_explains() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nsession_header = \"1KiB\"").start();
    let mut browser = sidecar.browser();
    let update = format!(r#"{{"big":"{}"}}"#, "x".repeat(2000));
    assert_eq!(browser.say(&[("X-Session-Update", &update)]).status, 200);
    let before = app.seen().len();
    let response = browser.get("/", &[]);
    assert_eq!(response.status, 500);
    assert_eq!(app.seen().len(), before);
    assert!(!response.text().contains("xxx"));
    sidecar.logged(&["session_header"]);
    assert!(!sidecar.log().contains("xxxxxxxx"), "a payload in the log");
}

#[test]
fn another_prefix_names_every_header() {
    let app = App::start(|request| {
        let asked = request.target() == "/set";
        let reply = crate::support::app::Reply::ok("");
        if asked { reply.header("X-Coat-Update", r#"{"a":1}"#) } else { reply }
    });
    let sidecar = Setup::before(&app).headers("prefix = \"X-Coat\"").start();
    let mut browser = sidecar.browser();
    let response = browser.get("/set", &[("X-Coat", "forged"), ("X_Coat-Id", "forged")]);
    assert_eq!(response.header("x-coat-update"), None);
    assert_eq!(app.last().header("x-coat"), Some("{}"));
    assert_eq!(app.last().head.headers.folded("x-coat").len(), 4, "{:?}", app.last());
    browser.get("/", &[]);
    assert_eq!(app.last().header("x-coat"), Some(r#"{"a":1}"#));
}
