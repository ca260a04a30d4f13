//! An app that does not answer: 504 in time; an app that stops in its body is cut.

use crate::support::app::{App, Reply};
use crate::support::eventually;
use crate::support::sidecar::Setup;
use serde_json::json;
use std::io::{Read, Write};

fn hangs() -> App {
    App::start(|request| match request.target() {
        "/head" => Reply::take_over(|wire| wire.read_to_end(&mut Vec::new()).map(drop)),
        "/body" => Reply::take_over(|wire| {
            wire.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")?;
            wire.read_to_end(&mut Vec::new()).map(drop)
        }),
        _ => Reply::ok(request.header("x-session").unwrap()).header("X-Session-Update", "{\"a\":1}"),
    })
}

#[test]
fn no_response_head_in_time_is_a_504_and_the_session_stays() {
    let app = hangs();
    let sidecar = Setup::before(&app).more("[timeouts]\nresponse_head = \"300ms\"").start();
    let mut browser = sidecar.browser();
    browser.get("/", &[]);
    let response = browser.get("/head", &[]);
    assert_eq!((response.status, response.cookie()), (504, None));
    assert_eq!(browser.session(), json!({"a": 1}));
    eventually("the app's connection to close", || (app.connections() <= 1).then_some(()));
}

#[test]
fn a_gap_in_the_response_body_cuts_it() {
    let app = hangs();
    let sidecar = Setup::before(&app).more("[timeouts]\nresponse_body = \"300ms\"").start();
    let response = sidecar.client().get("/body", &[]);
    assert_eq!((response.status, response.complete, response.text().as_str()), (200, false, "half"));
}

#[test]
fn a_route_may_wait_for_a_shorter_time() {
    let app = hangs();
    let routes = "[[route]]\npath = \"/\"\nupstream = \"app\"\n[[route]]\npath = \"/head\"\nupstream = \"app\"\n\
                  [route.timeouts]\nresponse_head = \"300ms\"\n";
    let sidecar = Setup::before(&app).routes(routes).start();
    assert_eq!(sidecar.client().get("/head", &[]).status, 504);
}

#[test]
fn an_app_that_is_not_there_is_a_502() {
    let gone = App::start(|_| Reply::ok(""));
    let address = gone.address();
    drop(gone);
    let sidecar = Setup::before_address(address).start();
    eventually("a 502", || (sidecar.client().get("/", &[]).status == 502).then_some(()));
}
