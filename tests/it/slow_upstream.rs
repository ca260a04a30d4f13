//! An app that does not answer: 504 in time; an app that stops in its body is cut.

use crate::support::app::{App, Reply};
use crate::support::sidecar::Setup;
use crate::support::{eventually, patience};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;

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

/// A body that trickles without a gap is cut all the same, and so is an endless wait for a head.
#[test]
fn the_whole_request_may_have_a_deadline() {
    let app = App::start(|request| match request.target() {
        "/trickle" => Reply::take_over(|wire| {
            wire.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
            wire.get_mut().set_read_timeout(Some(std::time::Duration::from_millis(5)))?;
            // A byte now and then, until the sidecar hangs up.
            while wire.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                wire.get_mut().write_all(b"x")?;
            }
            Ok(())
        }),
        "/head" => Reply::take_over(|wire| wire.read_to_end(&mut Vec::new()).map(drop)),
        _ => Reply::ok("in time"),
    });
    let sidecar = Setup::before(&app).more("[timeouts]\nrequest = \"400ms\"").start();
    let cut = sidecar.client().get("/trickle", &[]);
    assert!(cut.status == 200 && !cut.complete && !cut.body.is_empty(), "{cut:?}");
    sidecar.logged(&["request_timeout", "/trickle"]);
    assert_eq!(sidecar.client().get("/head", &[]).status, 504);
    assert_eq!(sidecar.client().get("/", &[]).text(), "in time");
    eventually("the app's connections to close", || (app.connections() <= 1).then_some(()));
}

#[test]
fn a_gap_in_the_response_body_cuts_it() {
    let app = hangs();
    let sidecar = Setup::before(&app).more("[timeouts]\nresponse_body = \"300ms\"").start();
    let response = sidecar.client().get("/body", &[]);
    assert_eq!((response.status, response.complete, response.text().as_str()), (200, false, "half"));
}

/// The deadline holds although the request is not out yet, and nothing is kept for it.
#[test]
fn an_app_that_stops_reading_an_upload_is_a_504() {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let sidecar = Setup::before_address(deaf.local_addr().unwrap())
        .more("[timeouts]\nresponse_head = \"300ms\"")
        .start();
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000000\r\n\r\n");
    let mut writer = client.socket().try_clone().unwrap();
    // Writes until nobody takes more; the answer comes all the same.
    let flood = std::thread::spawn(move || while writer.write_all(&[b'x'; 65536]).is_ok() {});
    let (mut held, _) = deaf.accept().unwrap();
    assert_eq!(client.receive().status, 504);
    client.socket().shutdown(std::net::Shutdown::Both).unwrap();
    flood.join().unwrap();
    // Ends, or is reset: either way it is closed. A connection that is kept would run into the timeout.
    held.set_read_timeout(Some(patience())).unwrap();
    let end = held.read_to_end(&mut Vec::new());
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn a_get_with_a_body_of_unknown_length_keeps_it() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    for method in ["GET", "POST", "DELETE"] {
        let mut client = sidecar.client();
        client.send(format!(
            "{method} /search HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        ));
        assert_eq!(client.receive().status, 200);
        assert_eq!(app.last().body.bytes, b"hello", "{method}");
    }
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
