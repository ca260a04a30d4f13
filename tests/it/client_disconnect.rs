//! A client that leaves: the app's connection is freed, and what was committed stays.

use crate::support::app::{App, Reply};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::sidecar::Setup;
use serde_json::json;
use std::io::{Read, Write};

#[test]
fn a_client_that_leaves_frees_the_connection_to_the_app() {
    let app = App::start(|_| Reply::take_over(|wire| wire.read_to_end(&mut Vec::new()).map(drop)));
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    eventually("the request at the app", || (app.seen().len() == 1).then_some(()));
    assert_eq!(app.connections(), 1);
    drop(client);
    eventually("the app's connection to close", || (app.connections() == 0).then_some(()));
}

#[test]
fn a_client_that_leaves_in_the_body_loses_no_committed_write() {
    let app = App::start(|request| {
        if request.target() != "/long" {
            return Reply::ok(request.header("x-session").unwrap()).header("X-Session-Control", "save");
        }
        Reply::take_over(|wire| {
            wire.get_mut().write_all(
                b"HTTP/1.1 200 OK\r\nX-Session-Update: {\"done\":1}\r\nContent-Length: 9\r\n\r\nhalf",
            )?;
            wire.read_to_end(&mut Vec::new()).map(drop)
        })
    });
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.get("/", &[]);
    let mut client = sidecar.client();
    client.send(format!("GET /long HTTP/1.1\r\nHost: app.test\r\nCookie: {}\r\n\r\n", browser.cookies()));
    // The head has come, so the write is done; the body never comes.
    assert_eq!(client.read_exactly(12), b"HTTP/1.1 200");
    drop(client);
    assert_eq!(browser.session(), json!({"done": 1}));
    eventually("the app's connection to close", || (app.connections() <= 1).then_some(()));
}

#[test]
fn an_update_in_trailers_is_committed_although_the_client_has_left() {
    let gate = Gate::default();
    let before_the_end = gate.clone();
    let app = App::start(move |request| {
        if request.target() != "/long" {
            return Reply::ok(request.header("x-session").unwrap()).header("X-Session-Control", "save");
        }
        let gate = before_the_end.clone();
        Reply::take_over(move |wire| {
            let head = "HTTP/1.1 200 OK\r\nTrailer: X-Session-Update\r\nTransfer-Encoding: chunked\r\n\r\n";
            wire.get_mut().write_all(format!("{head}4\r\nhalf\r\n").as_bytes())?;
            gate.pass();
            wire.get_mut().write_all(b"4\r\nrest\r\n0\r\nX-Session-Update: {\"done\":1}\r\n\r\n")
        })
    });
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.get("/", &[]);
    let mut client = sidecar.client();
    client.send(format!("GET /long HTTP/1.1\r\nHost: app.test\r\nCookie: {}\r\n\r\n", browser.cookies()));
    assert_eq!(client.read_exactly(12), b"HTTP/1.1 200");
    drop(client);
    sidecar.logged(&["client_left"]);
    gate.open();
    eventually("the trailer's update", || (browser.session() == json!({"done": 1})).then_some(()));
}
