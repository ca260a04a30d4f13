//! Trailers: passed on, and a place for an update (contract §3).

use crate::support::app::{App, Reply};
use crate::support::client::{Browser, Response};
use crate::support::h2::H2Client;
use crate::support::sidecar::{Setup, Sidecar};
use serde_json::json;

fn with_session(sidecar: &Sidecar) -> Browser {
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    browser
}

/// An HTTP/1.1 request that welcomes trailers.
fn say(browser: &mut Browser, headers: &[(&str, &str)]) -> Response {
    let headers: Vec<(&str, &str)> =
        headers.iter().copied().chain([("TE", "trailers"), ("Connection", "TE")]).collect();
    browser.get("/", &headers)
}

#[test]
fn a_response_trailer_passes() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let response = say(&mut sidecar.browser(), &[("Say-Trailer-X-Checksum", "42")]);
    assert!(response.complete);
    assert_eq!(response.trailers.get("x-checksum"), Some("42"), "{response:?}");
    let response = H2Client::connect(sidecar.address()).ask("GET", "/", &[("say-trailer-x-checksum", "42")]);
    assert_eq!(response.trailers.get("x-checksum"), Some("42"), "{response:?}");
}

#[test]
fn an_update_in_a_trailer_is_saved_before_the_end_is_released() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    let response = say(
        &mut browser,
        &[("Say-Trailer-X-Session-Update", r#"{"b":2}"#), ("Say-Trailer-X-Checksum", "42")],
    );
    assert!(response.complete, "{response:?}");
    assert!(response.trailers.folded("x-session").is_empty(), "{response:?}");
    let announced = response.header("trailer").unwrap_or_default().to_ascii_lowercase();
    assert!(!announced.contains("session"), "{announced}");
    assert_eq!(browser.session(), json!({"a": 1, "b": 2}));
}

#[test]
fn a_client_that_wants_no_trailers_changes_nothing_about_the_update() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    assert!(browser.get("/", &[("Say-Trailer-X-Session-Update", r#"{"b":2}"#)]).complete);
    assert_eq!(browser.session(), json!({"a": 1, "b": 2}));
}

#[test]
fn a_trailer_can_destroy() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    assert!(say(&mut browser, &[("Say-Trailer-X-Session-Control", "destroy")]).complete);
    browser.get("/", &[]);
    assert_eq!(app.last().header("x-session-status"), Some("expired"));
}

#[test]
fn an_invalid_trailer_changes_nothing_and_cuts_the_response() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = with_session(&sidecar);
    let invalid: [&[(&str, &str)]; 5] = [
        &[("Say-Trailer-X-Session-Update", "{\"b\":")],
        &[("Say-Trailer-X-Session-Control", "regenerate")],
        &[("Say-Trailer-X-Session-Control", "max-age=60")],
        &[("Say-Trailer-X-Session-Control", "obliterate")],
        &[("Say-Trailer-X-Session-Update", "{\"b\":1}"), ("Say-Trailer-X-Session-Update", "{\"c\":1}")],
    ];
    for said in invalid {
        let response = say(&mut browser, said);
        assert!(!response.complete, "HTTP/1.1, {said:?}: {response:?}");
        let mut h2 = H2Client::connect(sidecar.address());
        let lower: Vec<(String, &str)> =
            said.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
        let cookies = browser.cookies();
        let mut headers: Vec<(&str, &str)> =
            lower.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        headers.push(("cookie", &cookies));
        assert!(!h2.ask("GET", "/", &headers).complete, "HTTP/2, {said:?}");
        assert_eq!(browser.session(), json!({"a": 1}), "{said:?}");
    }
    sidecar.logged(&["invalid"]);
}

#[test]
fn a_new_session_cannot_begin_in_a_trailer() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    assert!(!say(&mut sidecar.browser(), &[("Say-Trailer-X-Session-Update", "{\"a\":1}")]).complete);
}

#[test]
fn an_app_that_dies_in_its_body_saves_nothing_and_the_client_can_tell() {
    let app = App::start(|request| match request.target() {
        "/cut" => Reply::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Session-Update\r\n\r\n5\r\nhello\r\n",
        ),
        _ => Reply::ok(request.header("x-session").unwrap()).header("X-Session-Update", r#"{"a":1}"#),
    });
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.get("/", &[]);
    assert!(!browser.get("/cut", &[]).complete);
    assert_eq!(browser.session(), json!({"a": 1}));
}
