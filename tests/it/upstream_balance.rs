//! Who gets a request: everybody in turn, the less busy one, always the same for a session.

use crate::support::app::{App, Reply};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::sidecar::Setup;
use std::collections::BTreeSet;
use std::net::TcpStream;

fn named(name: &'static str) -> App {
    App::start(move |_| Reply::ok(name).header("X-Session-Update", "{\"seen\":true}"))
}

fn before(apps: &[App]) -> Setup {
    let servers: Vec<String> = apps.iter().map(|app| format!("http://{}", app.address())).collect();
    Setup::before_servers(&servers)
}

#[test]
fn everybody_in_turn_is_the_default() {
    let apps = [named("a"), named("b"), named("c")];
    let sidecar = before(&apps).start();
    let answers: Vec<String> = (0..6).map(|_| sidecar.client().get("/", &[]).text()).collect();
    assert_eq!(answers, ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn a_session_stays_with_its_endpoint_until_that_one_is_gone() {
    let mut apps = vec![named("a"), named("b"), named("c")];
    let sidecar = before(&apps)
        .upstream("balance = \"sticky\"\neject_after = 1\neject_for = \"1h\"\nidle_timeout = \"1ms\"")
        .start();
    let mut homes = Vec::new();
    for _ in 0..30 {
        let mut browser = sidecar.browser();
        // The first request has no session yet; it may go anywhere.
        browser.get("/", &[]);
        let home = browser.get("/", &[]).text();
        for _ in 0..3 {
            assert_eq!(browser.get("/", &[]).text(), home);
        }
        homes.push((browser, home));
    }
    let used: BTreeSet<&str> = homes.iter().map(|(_, home)| home.as_str()).collect();
    assert_eq!(used.len(), 3, "30 sessions and one endpoint without any");

    // A kept connection would still be served.
    eventually("kept connections to close", || (apps[1].connections() == 0).then_some(()));
    let lost = apps.remove(1).address();
    eventually("the endpoint to be gone", || TcpStream::connect(lost).is_err().then_some(()));
    for (browser, home) in &mut homes {
        let now = browser.get("/", &[]);
        assert_eq!(now.status, 200);
        match home.as_str() {
            "b" => assert_ne!(now.text(), "b"),
            home => assert_eq!(now.text(), home, "only the lost endpoint's sessions move"),
        }
    }
}

#[test]
fn the_less_busy_of_two_gets_the_request() {
    let gate = Gate::default();
    let app = |name: &'static str| {
        let gate = gate.clone();
        App::start(move |request| {
            if request.target() == "/wait" {
                gate.pass();
            }
            Reply::ok(name)
        })
    };
    let apps = [app("a"), app("b")];
    let sidecar = before(&apps).upstream("balance = \"least-requests\"").start();
    let mut waiting = sidecar.client();
    waiting.send("GET /wait HTTP/1.1\r\nHost: app.test\r\n\r\n");
    gate.arrived(1);
    let free = if apps[0].seen().is_empty() { "a" } else { "b" };
    for _ in 0..40 {
        assert_eq!(sidecar.client().get("/", &[]).text(), free);
    }
    gate.open();
    assert_ne!(waiting.receive().text(), free);
    let answers: BTreeSet<String> = (0..60).map(|_| sidecar.client().get("/", &[]).text()).collect();
    assert_eq!(answers.len(), 2, "both are free again");
}
