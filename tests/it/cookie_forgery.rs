//! Cookies that the sidecar did not sign: the app never sees what they claim (contract §1).

use crate::support::app::App;
use crate::support::client::Browser;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::ticket::{self, SECRET};
use serde_json::json;

/// Last year's secret.
const OLD: &str = "the-secret-of-last-year-0123456789abcdef";

/// A browser whose session says `{"user":"victim"}`.
fn victim(sidecar: &Sidecar) -> Browser {
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"user":"victim"}"#)]);
    browser
}

#[test]
fn a_cookie_that_does_not_verify_is_an_anonymous_session() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = victim(&sidecar);
    let good = browser.jar["connect.sid"].clone();
    let sid = ticket::sid_of(&good);
    let signed = ticket::sign(&sid, SECRET);
    let (_, mac) = signed.rsplit_once('.').unwrap();
    let swapped_case: String = mac
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    let forged = [
        ("unsigned sid", sid.clone()),
        ("unsigned, with the mark", format!("s:{sid}")),
        ("no sid", format!("s:.{mac}")),
        ("an empty sid, correctly signed", format!("s:{}", ticket::sign("", SECRET))),
        ("empty", String::new()),
        ("only the mark", "s:".into()),
        ("cut mac", format!("s:{}", &signed[..signed.len() - 1])),
        ("mac with more", format!("s:{signed}A")),
        ("padded mac", format!("s:{signed}=")),
        ("swapped case", format!("s:{sid}.{swapped_case}")),
        ("URL-safe mac", format!("s:{sid}.{}", mac.replace('+', "-").replace('/', "_") + "_")),
        ("other trailing bits", format!("s:{sid}.{}", other_trailing_bits(mac))),
        ("another secret", format!("s:{}", ticket::sign(&sid, "another secret"))),
        (
            "another sid's mac",
            format!("s:{sid}.{}", ticket::sign("other", SECRET).rsplit_once('.').unwrap().1),
        ),
        ("capital mark", format!("S:{signed}")),
        ("j: cookie", format!("j:{signed}")),
        ("a NUL inside", format!("s:{sid}\0.{mac}")),
    ];
    for (what, value) in forged {
        for cookie in [ticket::encode(&value), value] {
            // What cannot stand in a header at all is no test of the cookie.
            if cookie.contains('\0') {
                continue;
            }
            let response = sidecar.client().get("/", &[("Cookie", &format!("connect.sid={cookie}"))]);
            let request = app.last();
            assert_eq!((response.status, response.cookie()), (200, None), "{what}");
            assert_eq!(request.session(), json!({}), "{what}");
            assert_eq!(request.header("x-session-new"), Some("true"), "{what}");
            assert_ne!(request.header("x-session-id"), Some(&*sid), "{what}");
            let status = request.header("x-session-status").unwrap();
            assert!(["none", "invalid"].contains(&status), "{what}: {status}");
            assert_eq!(request.header("cookie"), None, "{what}");
        }
    }
    assert_eq!(browser.session(), json!({"user": "victim"}));
}

/// The same 32 bytes to a careless decoder: the last character's low two bits are not part of them.
fn other_trailing_bits(mac: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (head, last) = mac.split_at(mac.len() - 1);
    let index = ALPHABET.iter().position(|&c| c == last.as_bytes()[0]).unwrap();
    format!("{head}{}", char::from(ALPHABET[index ^ 1]))
}

#[test]
fn of_several_cookies_the_first_that_verifies_wins() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let good = format!("connect.sid={}", victim(&sidecar).jar["connect.sid"]);
    let mut second = sidecar.browser();
    second.say(&[("X-Session-Update", r#"{"user":"second"}"#)]);
    let second = format!("connect.sid={}", second.jar["connect.sid"]);
    let forged = ticket::cookie("forged", "another secret");
    let cases: [(&[&str], &str); 5] = [
        (&[&format!("{forged}; {good}; {second}")], "victim"),
        (&[&format!("{second}; {good}")], "second"),
        (&[&forged, &good], "victim"),
        (&[&format!("connect.sid=; {forged}"), &format!("a=b; {second}")], "second"),
        (&[&format!("connect.sid=x;{good}")], "victim"),
    ];
    for (lines, user) in cases {
        let headers: Vec<(&str, &str)> = lines.iter().map(|line| ("Cookie", *line)).collect();
        sidecar.client().get("/", &headers);
        assert_eq!(app.last().session(), json!({"user": user}), "{lines:?}");
        assert!(!String::from_utf8_lossy(&app.last().head.bytes).contains("connect.sid"), "{lines:?}");
    }
}

#[test]
fn http2_crumbs_are_one_cookie_header() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let good = format!("connect.sid={}", victim(&sidecar).jar["connect.sid"]);
    let mut h2 = crate::support::h2::H2Client::connect(sidecar.address());
    let response = h2.ask("GET", "/", &[("cookie", "a=1"), ("cookie", &good), ("cookie", "b=2")]);
    assert_eq!(response.text(), r#"{"user":"victim"}"#);
    assert_eq!(app.last().head.headers.all("cookie").collect::<Vec<_>>(), ["a=1; b=2"]);
}

#[test]
fn every_spelling_of_a_good_cookie_verifies() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let good = victim(&sidecar).jar["connect.sid"].clone();
    let plain = format!("s:{}", ticket::sign(&ticket::sid_of(&good), SECRET));
    for value in [good.clone(), plain.clone(), format!("\"{plain}\""), good.replace("%3A", "%3a")] {
        sidecar.client().get("/", &[("Cookie", &format!("connect.sid={value}"))]);
        assert_eq!(app.last().session(), json!({"user": "victim"}), "{value}");
    }
}

#[test]
fn every_secret_verifies_and_the_first_signs() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).secrets(&[SECRET, OLD]).session("rolling = true").start();
    let sid = ticket::sid_of(&victim(&sidecar).jar["connect.sid"]);
    let response = sidecar.client().get("/", &[("Cookie", &ticket::cookie(&sid, OLD))]);
    assert_eq!(app.last().session(), json!({"user": "victim"}));
    assert!(response.cookie().unwrap().starts_with(&ticket::cookie(&sid, SECRET)), "{response:?}");
    sidecar.client().get("/", &[("Cookie", &ticket::cookie(&sid, "a secret of nobody's, long enough"))]);
    assert_eq!(app.last().header("x-session-status"), Some("invalid"));
}
