//! Active checks take an endpoint out before a request finds out, and bring it back.

use crate::support::app::{App, Reply};
use crate::support::eventually;
use crate::support::sidecar::{Setup, Sidecar};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

const CHECKS: &str = "eject_for = \"50ms\"\n\
    health = { path = \"/healthz?full\", interval = \"50ms\", timeout = \"200ms\", healthy = 2, unhealthy = 2, expect = 204 }";

fn app(name: &'static str) -> (App, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(204));
    let told = Arc::clone(&status);
    let app = App::start(move |request| match request.target() {
        "/healthz?full" => Reply::Message {
            status: told.load(Ordering::Relaxed),
            headers: Vec::new(),
            body: Vec::new(),
            trailers: None,
        },
        _ => Reply::ok(name),
    });
    (app, status)
}

fn up(sidecar: &Sidecar) -> Vec<u8> {
    let metrics = sidecar.metrics();
    let values = metrics.lines().filter(|line| line.starts_with("cloakroom_upstream_endpoint_up{"));
    values.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

fn answers(sidecar: &Sidecar) -> BTreeSet<String> {
    (0..20).map(|_| sidecar.client().get("/", &[]).text()).collect()
}

#[test]
fn a_failing_check_takes_an_endpoint_out_and_passing_ones_bring_it_back() {
    let ((one, first), (two, second)) = (app("one"), app("two"));
    let servers = [&one, &two].map(|app| format!("http://{}", app.address()));
    let sidecar = Setup::before_servers(&servers).upstream(CHECKS).start();
    eventually("both checked", || (up(&sidecar) == [1, 1]).then_some(()));
    first.store(503, Ordering::Relaxed);
    eventually("one to go", || (up(&sidecar).iter().sum::<u8>() == 1).then_some(()));
    sidecar.logged(&["out of service", &servers[0]]);
    assert_eq!(answers(&sidecar), BTreeSet::from(["two".to_owned()]));

    // All out: all are tried.
    second.store(200, Ordering::Relaxed);
    eventually("both to go", || (up(&sidecar) == [0, 0]).then_some(()));
    assert_eq!(answers(&sidecar).len(), 2);

    first.store(204, Ordering::Relaxed);
    sidecar.logged(&["back in service", &servers[0]]);
    assert_eq!(answers(&sidecar), BTreeSet::from(["one".to_owned()]));
    let check = one.seen().into_iter().find(|request| request.target() == "/healthz?full").unwrap();
    assert_eq!(check.header("host"), Some(one.address().to_string().as_str()));
    assert_eq!(check.header("x-session"), None);
}

#[test]
fn an_app_that_does_not_answer_a_check_in_time_fails_it() {
    let ((one, _), deaf) = (app("one"), TcpListener::bind("127.0.0.1:0").unwrap());
    let servers = [format!("http://{}", deaf.local_addr().unwrap()), format!("http://{}", one.address())];
    let sidecar = Setup::before_servers(&servers).upstream(CHECKS).start();
    sidecar.logged(&["out of service", &servers[0]]);
    assert_eq!(answers(&sidecar), BTreeSet::from(["one".to_owned()]));
}
