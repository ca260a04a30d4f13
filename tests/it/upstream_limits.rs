//! `max_connections`, `max_idle`, `idle_timeout`: what one client can make the sidecar open and keep towards the app.

use crate::support::app::{App, Reply};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::sidecar::Setup;

/// Holds what is asked of it until the gate opens.
fn held(gate: &Gate) -> App {
    let gate = gate.clone();
    App::start(move |_| {
        gate.pass();
        Reply::ok("done")
    })
}

fn ask_all(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"));
}

#[test]
fn no_more_connections_than_allowed_and_the_others_wait_their_turn() {
    let gate = Gate::default();
    let app = held(&gate);
    let sidecar = Setup::before(&app).upstream("max_connections = 2").start();
    let mut clients: Vec<Client> = (0..10).map(|_| sidecar.client()).collect();
    ask_all(&mut clients);
    gate.arrived(2);
    // An eleventh one is answered by the sidecar itself, so what could be opened was.
    assert_eq!(sidecar.client().ask("TRACE", "/", &[]).status, 405);
    assert_eq!((app.connections(), app.seen().len()), (2, 2));
    gate.open();
    for client in &mut clients {
        assert_eq!(client.receive().status, 200);
    }
    assert_eq!(app.connections(), 2);
}

#[test]
fn who_waits_too_long_gets_a_503_and_no_connection_is_lost() {
    let gate = Gate::default();
    let app = held(&gate);
    let sidecar =
        Setup::before(&app).upstream("max_connections = 1").more("[timeouts]\nconnect = \"200ms\"").start();
    let mut first = sidecar.client();
    ask_all(std::slice::from_mut(&mut first));
    gate.arrived(1);
    let refused = sidecar.client().get("/", &[]);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("2")));
    sidecar.logged(&["upstream_busy"]);
    // The client of the one under way leaves: its connection closes, and its place is free again.
    drop(first);
    gate.open();
    eventually("the place to be free", || (sidecar.client().get("/", &[]).status == 200).then_some(()));
    assert_eq!(sidecar.client().get("/", &[]).status, 200);
}

/// A tunnel holds its connection for as long as it lives.
#[test]
fn a_tunnel_counts() {
    let app = App::start(|request| match request.header("upgrade") {
        Some(_) => Reply::take_over(|wire| {
            use std::io::{Read, Write};
            wire.get_mut().write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
            )?;
            wire.read_to_end(&mut Vec::new()).map(drop)
        }),
        None => Reply::ok("done"),
    });
    let sidecar =
        Setup::before(&app).upstream("max_connections = 1").more("[timeouts]\nconnect = \"200ms\"").start();
    let mut tunnel = sidecar.client();
    assert_eq!(tunnel.get("/", &[("Connection", "upgrade"), ("Upgrade", "echo")]).status, 101);
    assert_eq!(sidecar.client().get("/", &[]).status, 503);
    drop(tunnel);
    eventually("the place to be free", || (sidecar.client().get("/", &[]).status == 200).then_some(()));
}

#[test]
fn what_is_kept_is_bounded_in_number_and_time() {
    let gate = Gate::default();
    let app = held(&gate);
    let sidecar = Setup::before(&app).upstream("max_idle = 1\nidle_timeout = \"1s\"").start();
    let mut clients: Vec<Client> = (0..5).map(|_| sidecar.client()).collect();
    ask_all(&mut clients);
    gate.arrived(5);
    assert_eq!(app.connections(), 5);
    gate.open();
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().status, 200));
    eventually("all but one to close", || (app.connections() <= 1).then_some(()));
    eventually("the last one to close", || (app.connections() == 0).then_some(()));
}
