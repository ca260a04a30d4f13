//! Cookies that are nearly right: stale twins, older names, older secrets. The user stays logged in and the browser is tidied up.

use crate::support::app::App;
use crate::support::client::Response;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::ticket::{self, SECRET};
use serde_json::json;

const OLD: &str = "the-secret-of-last-year-0123456789abcdef";

/// A stored session that says `{"user":"ann"}`; its sid.
fn ann(sidecar: &Sidecar) -> String {
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"user":"ann"}"#)]);
    ticket::sid_of(browser.jar.values().next().unwrap())
}

/// The cookie of a session that the store does not have.
fn stale() -> String {
    ticket::cookie("nobody-has-this-one", SECRET)
}

fn set_cookies(response: &Response) -> Vec<&str> {
    response.headers.all("set-cookie").collect()
}

#[test]
fn of_two_good_cookies_the_one_that_is_alive_wins_and_the_other_is_forgotten() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let live = ticket::cookie(&ann(&sidecar), SECRET);
    for (name, order) in [("one", [true, false]), ("two", [false, true])] {
        let stale = ticket::cookie(&format!("nobody-has-{name}"), SECRET);
        let cookies = order.map(|first| if first { &*stale } else { &*live }).join("; ");
        let headers = [("Cookie", &*cookies), ("Host", "shop.example.com:8080")];
        let response = sidecar.client().get("/cart/items?x=1", &headers);
        assert_eq!(app.last().session(), json!({"user": "ann"}), "{cookies}");
        let lines = set_cookies(&response);
        let (set, forgotten) = lines.split_last().unwrap();
        assert_eq!(*set, format!("{live}; Path=/; HttpOnly; SameSite=Lax"));
        let scopes: Vec<&str> = forgotten
            .iter()
            .map(|line| {
                let scope = line.strip_prefix("connect.sid=; ").unwrap();
                scope.strip_suffix("; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax").unwrap()
            })
            .collect();
        // All but the scope that the session's own cookie is set in.
        let expected = [
            "Path=/cart",
            "Path=/cart/items",
            "Domain=shop.example.com; Path=/",
            "Domain=shop.example.com; Path=/cart",
            "Domain=shop.example.com; Path=/cart/items",
            "Domain=example.com; Path=/",
            "Domain=example.com; Path=/cart",
            "Domain=example.com; Path=/cart/items",
        ];
        assert_eq!(scopes, expected, "{cookies}");
        // A browser that cannot forget it is not told so with every response.
        let response = sidecar.client().get("/cart/items?x=1", &headers);
        assert!(set_cookies(&response).is_empty(), "{response:?}");
    }
}

#[test]
fn nothing_is_forgotten_above_the_sessions_own_path_or_beside_another_living_session() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).cookie("path = \"/admin\"").start();
    let mut browser = sidecar.browser();
    browser.ask("GET", "/admin", &[("Say-X-Session-Update", r#"{"user":"ann"}"#)]);
    let live = ticket::cookie(&ticket::sid_of(&browser.jar["connect.sid"]), SECRET);
    let cookies = format!("{}; {live}", stale());
    let response = sidecar.client().get("/admin/users", &[("Cookie", &cookies), ("Host", "localhost")]);
    let lines = set_cookies(&response);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("; Path=/admin")), "{lines:?}");

    let sidecar = Setup::before(&app).start();
    let (first, second) = (ticket::cookie(&ann(&sidecar), SECRET), ticket::cookie(&ann(&sidecar), SECRET));
    let response = sidecar.client().get("/", &[("Cookie", &format!("{first}; {}; {second}", stale()))]);
    assert!(set_cookies(&response).is_empty(), "{response:?}");
}

#[test]
fn planted_cookies_that_are_dead_do_not_outlive_a_login() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let planted: Vec<String> = (0..5).map(|n| ticket::cookie(&format!("planted-{n}"), SECRET)).collect();
    let cookies = planted.join("; ");
    let ask = |cookies: &str, update: &str| {
        let headers = [("Cookie", cookies), ("Host", "localhost"), ("Say-X-Session-Update", update)];
        sidecar.client().get("/login/form", &headers)
    };
    let response = sidecar.client().get("/login/form", &[("Cookie", &cookies), ("Host", "localhost")]);
    assert!(set_cookies(&response).is_empty(), "nothing hides anything yet");
    let response = ask(&cookies, r#"{"user":"ann"}"#);
    let lines = set_cookies(&response);
    assert!(lines.iter().any(|line| line.starts_with("connect.sid=; Path=/login/form")), "{lines:?}");
    let login = lines.last().unwrap().split(';').next().unwrap();
    // And while they are there, all the same: the living one counts, wherever it stands.
    sidecar.client().get("/", &[("Cookie", &format!("{cookies}; {login}"))]);
    assert_eq!(app.last().session(), json!({"user": "ann"}));
}

#[test]
fn no_cookie_is_set_anew_where_a_cache_would_share_it_or_the_session_has_gone() {
    let app = App::parrot();
    let sidecar =
        Setup::before(&app).secrets(&[SECRET, OLD]).store("kind = \"memory\"\ntouch_after = \"1h\"").start();
    let sid = ann(&sidecar);
    let old = ticket::cookie(&sid, OLD);
    for (cache, set) in
        [("public, max-age=600", false), ("S-MaxAge=5", false), ("private", true), ("max-age=1", true)]
    {
        let response = sidecar.client().get("/", &[("Cookie", &old), ("Say-Cache-Control", cache)]);
        assert_eq!(response.cookie().is_some(), set, "{cache}");
    }
}

#[test]
fn a_name_that_somebody_else_uses_too_is_left_alone() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let live = ticket::cookie(&ann(&sidecar), SECRET);
    let strangers = ticket::cookie("theirs", "a secret of another app");
    let response = sidecar.client().get("/", &[("Cookie", &format!("{strangers}; {}; {live}", stale()))]);
    assert_eq!(app.last().session(), json!({"user": "ann"}));
    assert!(set_cookies(&response).is_empty(), "{response:?}");
    // Two living sessions: the first counts, and neither is forgotten.
    let second = ticket::cookie(&ann(&sidecar), SECRET);
    let response = sidecar.client().get("/", &[("Cookie", &format!("{live}; {second}"))]);
    assert!(set_cookies(&response).is_empty(), "{response:?}");
    // The same cookie twice, and only stale ones.
    for cookies in [format!("{live}; {live}"), stale(), format!("{}; {}", stale(), stale())] {
        let response = sidecar.client().get("/", &[("Cookie", &cookies)]);
        assert!(set_cookies(&response).is_empty(), "{cookies} {response:?}");
    }
}

#[test]
fn a_cookie_signed_by_an_old_secret_is_signed_anew() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).secrets(&[SECRET, OLD]).cookie("max_age = \"1h\"").start();
    let sid = ann(&sidecar);
    let response = sidecar.client().get("/", &[("Cookie", &ticket::cookie(&sid, OLD))]);
    assert_eq!(app.last().session(), json!({"user": "ann"}));
    let line = response.cookie().unwrap();
    assert!(line.starts_with(&ticket::cookie(&sid, SECRET)) && line.contains("; Expires="), "{line}");
    let response = sidecar.client().get("/", &[("Cookie", &ticket::cookie(&sid, SECRET))]);
    assert_eq!(response.cookie(), None);
    let metrics = sidecar.metrics();
    for expected in [
        "cloakroom_cookie_key_verified_total{key=\"0\"} 1\n",
        "cloakroom_cookie_key_verified_total{key=\"1\"} 1\n",
    ] {
        assert!(metrics.contains(expected), "{expected} in\n{metrics}");
    }
    let last = metrics.split("last_verified_timestamp_seconds{key=\"1\"} ").nth(1).unwrap();
    let last: u64 = last.lines().next().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now - 60..=now).contains(&last), "{last} is not about {now}");
    // A secure cookie cannot be set on a plain request, and a route that may not write says nothing.
    let quiet = Setup::before(&app).secrets(&[SECRET, OLD]).cookie("secure = true").start();
    let response = quiet.client().get("/", &[("Cookie", &ticket::cookie(&sid, OLD))]);
    assert_eq!(response.cookie(), None);
}

#[test]
fn an_older_name_is_read_and_replaced() {
    let app = App::parrot();
    let setup =
        || Setup::before(&app).session("name = \"new.sid\"\naccept_names = [\"connect.sid\", \"app.sid\"]");
    let sidecar = setup().start();
    let sid = ann(&sidecar);
    let old = ticket::cookie(&sid, SECRET);
    let new = old.replace("connect.sid=", "new.sid=");
    let ask = |cookies: &str| sidecar.client().get("/", &[("Cookie", cookies), ("Host", "localhost")]);
    let response = ask(&format!("a=1; {old}"));
    assert_eq!(app.last().session(), json!({"user": "ann"}));
    assert_eq!(app.last().header("cookie"), Some("a=1"), "the old name is nobody's business either");
    let forgotten = "connect.sid=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax";
    assert_eq!(set_cookies(&response), [forgotten, &format!("{new}; Path=/; HttpOnly; SameSite=Lax")]);
    // The new name wins, whatever stands first, and an old one that lives goes on unharmed.
    let other = ticket::cookie(&ann(&sidecar), SECRET);
    assert!(set_cookies(&ask(&format!("{other}; {new}"))).is_empty());
    // A logout forgets both.
    let response = sidecar
        .client()
        .get("/", &[("Cookie", &old), ("Say-X-Session-Control", "destroy"), ("Host", "localhost")]);
    let cleared: Vec<&str> =
        set_cookies(&response).iter().map(|line| line.split(';').next().unwrap()).collect();
    assert_eq!(cleared, ["connect.sid=", "new.sid="]);
    let response = ask(&old);
    assert_eq!((app.last().header("x-session-status"), set_cookies(&response).len()), (Some("expired"), 0));
    // Unless the sidecar is told so, another name is just another cookie.
    let plain = Setup::before(&app).session("name = \"new.sid\"").start();
    plain.client().get("/", &[("Cookie", &old)]);
    assert_eq!(
        (app.last().header("cookie"), app.last().header("x-session-status")),
        (Some(&*old), Some("none"))
    );
}
