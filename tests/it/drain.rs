//! SIGTERM: running requests finish, nothing new is taken, the exit code is 0; `kill -9`: what was acknowledged is there.

use crate::support::app::{App, Reply};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::sidecar::Setup;
use serde_json::json;
use std::net::TcpStream;

#[test]
fn a_running_request_finishes_and_its_change_is_stored() {
    let gate = Gate::default();
    let before_the_gate = gate.clone();
    let app = App::start(move |_| {
        before_the_gate.pass();
        Reply::ok("done").header("X-Session-Update", "{\"a\":1}")
    });
    let mut sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    gate.arrived(1);
    sidecar.terminate();
    let address = sidecar.address();
    eventually("the listener to close", || TcpStream::connect(address).is_err().then_some(()));
    gate.open();
    let response = client.receive();
    assert_eq!((response.status, response.text()), (200, "done".into()));
    assert!(response.cookie().is_some());
    assert!(client.is_closed());
    assert!(sidecar.wait().success());
}

#[test]
fn idle_connections_do_not_hold_the_stop_up() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut idle = sidecar.client();
    assert_eq!(idle.get("/", &[]).status, 200);
    let silent = Client::connect(sidecar.address());
    sidecar.stop();
    assert!(idle.is_closed());
    drop(silent);
}

#[test]
fn a_request_that_never_ends_does_not_hold_the_stop_up_beyond_the_drain_time() {
    let gate = Gate::default();
    let before_the_gate = gate.clone();
    let app = App::start(move |_| {
        before_the_gate.pass();
        Reply::ok("late")
    });
    let sidecar = Setup::before(&app).more("[timeouts]\ndrain = \"500ms\"").start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    gate.arrived(1);
    sidecar.stop();
    gate.open();
}

#[test]
fn an_acknowledged_change_survives_a_crash() {
    let app = App::parrot();
    let mut sidecar = Setup::before(&app).store("kind = \"embedded\"\npath = \"sessions.redb\"").start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":0}"#)]);
    for n in 1..=3 {
        browser.say(&[("X-Session-Update", &format!("{{\"a\":{n}}}"))]);
        sidecar.crash_and_restart();
        assert_eq!(browser.session(), json!({"a": n}));
    }
}

#[test]
fn an_orderly_stop_keeps_the_embedded_store_too() {
    let app = App::parrot();
    let folder = std::env::temp_dir().join(format!("cloakroom-drain-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let store = format!("kind = \"embedded\"\npath = {:?}", folder.join("kept.redb"));
    let first = Setup::before(&app).store(&store).start();
    let mut browser = first.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    let jar = browser.jar;
    first.stop();
    let second = Setup::before(&app).store(&store).start();
    let mut browser = second.browser();
    browser.jar = jar;
    assert_eq!(browser.session(), json!({"a": 1}));
    second.stop();
    std::fs::remove_dir_all(folder).unwrap();
}
