//! Endpoints that die: what may be sent again is, what may not is not, and who was dead comes back.

use crate::support::app::{App, Reply};
use crate::support::client::{Client, Response};
use crate::support::eventually;
use crate::support::ports::free_port;
use crate::support::sidecar::{Setup, Sidecar};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn before(addresses: &[SocketAddr]) -> Setup {
    let servers: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    Setup::before_servers(&servers)
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// Reads a request and hangs up without a word.
fn hangs_up() -> App {
    App::start(|_| Reply::raw(""))
}

fn gauge(sidecar: &Sidecar, endpoint: SocketAddr) -> Option<u8> {
    let name = format!("cloakroom_upstream_endpoint_up{{upstream=\"app\",endpoint=\"http://{endpoint}\"}} ");
    sidecar.metrics().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
}

/// Real processes, killed with -9 and started again while clients ask without pause.
#[test]
fn endpoints_are_killed_and_restarted_under_load_and_no_client_notices() {
    let app = App::start(|_| Reply::ok("hello"));
    // Each endpoint is a sidecar of its own: a process that can be killed.
    let mut endpoints = [Setup::before(&app).start(), Setup::before(&app).start()];
    let addresses = endpoints.each_ref().map(Sidecar::address);
    let sidecar = before(&addresses).upstream("eject_for = \"200ms\"").start();
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let (stop, served, address) = (Arc::clone(&stop), Arc::clone(&served), sidecar.address());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let method = ["GET", "DELETE"][n % 2];
                while !stop.load(Ordering::Relaxed) {
                    let response = client.ask(method, "/", &[]);
                    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = |count: usize| {
        let enough = served.load(Ordering::Relaxed) + count;
        eventually("more answers", || (served.load(Ordering::Relaxed) >= enough).then_some(()));
    };
    for turn in 0..4 {
        let (victim, address) = (turn % 2, addresses[turn % 2]);
        more(100);
        endpoints[victim].crash();
        eventually("the dead endpoint to be ejected", || (gauge(&sidecar, address) == Some(0)).then_some(()));
        more(100);
        endpoints[victim].restart();
        eventually("the endpoint to come back", || (gauge(&sidecar, address) == Some(1)).then_some(()));
        assert_eq!(gauge(&sidecar, addresses[1 - victim]), Some(1));
    }
    more(100);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no client saw an error");
    }
    sidecar.logged(&["endpoint ejected", &format!("http://{}", addresses[0])]);
    sidecar.logged(&["endpoint is back", &format!("http://{}", addresses[0])]);
}

/// Nothing was sent, so even a body that cannot be sent twice goes to the next.
#[test]
fn what_could_not_be_sent_goes_elsewhere_whatever_it_is() {
    let app = App::parrot();
    let sidecar =
        before(&[nobody(), nobody(), app.address()]).upstream("eject_after = 0\nretries = 0").start();
    for turn in 1..=6 {
        let mut client = sidecar.client();
        client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.receive().status, 200);
        assert_eq!((app.seen().len(), app.last().body.bytes), (turn, b"body".to_vec()));
    }
}

fn once(sidecar: &Sidecar, request: &str) -> Response {
    let mut client = sidecar.client();
    client.send(request);
    client.receive()
}

#[test]
fn what_may_have_arrived_is_sent_again_only_if_it_may_be_done_twice() {
    let (broken, app) = (hangs_up(), App::parrot());
    let start = |lines: &str| before(&[broken.address(), app.address()]).upstream(lines).start();
    let sidecar = start("eject_after = 0");
    let ask = |start: &str, body: &str| {
        once(&sidecar, &format!("{start} HTTP/1.1\r\nHost: app.test\r\n{body}")).status
    };
    for method in ["GET", "OPTIONS", "PUT", "DELETE"] {
        // Of two requests one begins at the broken one.
        assert_eq!(
            [ask(&format!("{method} /"), "\r\n"), ask(&format!("{method} /"), "\r\n")],
            [200, 200],
            "{method}"
        );
    }
    let post = "Content-Length: 4\r\n\r\nbody";
    for (method, body) in
        [("POST", "Content-Length: 0\r\n\r\n"), ("POST", post), ("PATCH", post), ("PUT", post)]
    {
        let mut statuses = [ask(&format!("{method} /"), body), ask(&format!("{method} /"), body)];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502], "{method}: one of two went to the broken one and stays there");
    }
    assert_eq!(app.seen().len() + broken.seen().len(), 8 + 4 + 8, "no other request was sent twice");
    assert!(sidecar.metrics().contains("cloakroom_upstream_retries_total 4\n"));

    let sidecar = start("eject_after = 0\nretries = 0");
    let mut statuses = [0; 2].map(|_: u16| sidecar.client().get("/", &[]).status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
}

#[test]
fn who_failed_three_times_is_left_alone_and_tried_again_later() {
    let (broken, app) = (hangs_up(), App::parrot());
    let sidecar = before(&[broken.address(), app.address()]).upstream("eject_for = \"1h\"").start();
    for _ in 0..20 {
        assert_eq!(sidecar.client().get("/", &[]).status, 200);
    }
    assert_eq!(broken.seen().len(), 3, "three failures in a row, and then none for an hour");
    eventually("the gauge", || (gauge(&sidecar, broken.address()) == Some(0)).then_some(()));
}

/// The last endpoint is never ejected, and when all are dead all are tried, so that the first to live again is found at once.
#[test]
fn when_all_are_dead_all_are_tried() {
    let (one, two) = (nobody(), nobody());
    let sidecar =
        before(&[one, two]).upstream("eject_after = 1\neject_for = \"1h\"\nidle_timeout = \"1ms\"").start();
    for _ in 0..6 {
        assert_eq!(sidecar.client().get("/", &[]).status, 502);
    }
    sidecar.logged(&["no answer from the app", "upstream_connect"]);
    let late = App::on(TcpListener::bind(one).unwrap(), |_| Reply::ok("late"));
    assert_eq!(sidecar.client().get("/", &[]).text(), "late");
    drop(late);
    let late = App::on(TcpListener::bind(two).unwrap(), |_| Reply::ok("later"));
    eventually("the other one", || (sidecar.client().get("/", &[]).text() == "later").then_some(()));
    drop(late);
}
