//! What is too much is refused with the right status, and slow clients do not stay.

use crate::support::app::App;
use crate::support::client::Client;
use crate::support::sidecar::Setup;

#[test]
fn a_head_that_is_too_large_is_a_431() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nrequest_head = \"16KiB\"\nheader_count = 40").start();
    let large = "x".repeat(20_000);
    assert_eq!(sidecar.client().get("/", &[("X-Large", &large)]).status, 431);
    let many: Vec<(String, &str)> = (0..60).map(|n| (format!("X-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(sidecar.client().get("/", &many).status, 431);
    assert!(app.seen().is_empty());
    assert_eq!(sidecar.client().get("/", &many[..20]).status, 200);
}

#[test]
fn a_body_that_is_too_large_is_a_413_announced_or_not() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nrequest_body = \"1KiB\"").start();
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1025\r\n\r\n");
    assert_eq!(client.receive().status, 413);
    assert!(app.seen().is_empty());
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("400\r\n{}\r\n1\r\ny\r\n0\r\n\r\n", "x".repeat(1024)));
    assert_eq!(client.receive().status, 413);
    let mut client = sidecar.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    ));
    assert_eq!(client.receive().status, 200);
}

#[test]
fn a_route_may_allow_more() {
    let app = App::parrot();
    let routes = "[[route]]\npath = \"/\"\nupstream = \"app\"\n[[route]]\npath = \"/upload\"\nupstream = \"app\"\n\
                  [route.limits]\nrequest_body = \"4KiB\"\n";
    let sidecar = Setup::before(&app).routes(routes).more("[limits]\nrequest_body = \"1KiB\"").start();
    for (path, status) in [("/", 413), ("/upload", 200), ("/upload/x", 200), ("/uploads", 413)] {
        let mut client = sidecar.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2000\r\n\r\n"));
        if status == 200 {
            client.send("x".repeat(2000));
        }
        assert_eq!(client.receive().status, status, "{path}");
    }
}

#[test]
fn a_client_that_does_not_finish_its_head_is_closed() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[timeouts]\nrequest_head = \"300ms\"").start();
    for bytes in ["", "GET / HTTP/1.1\r\nHost: app", "PRI * HTTP/2.0\r\n"] {
        let mut client = sidecar.client();
        client.send(bytes);
        // An answer such as 408 is fine, staying is not.
        drop(client.try_receive("GET"));
        assert!(client.is_closed(), "{bytes:?}");
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[timeouts]\nkeep_alive = \"300ms\"").start();
    let mut client = sidecar.client();
    assert_eq!(client.get("/", &[]).status, 200);
    assert!(client.is_closed());
}

#[test]
fn a_gap_in_the_request_body_ends_the_request() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[timeouts]\nrequest_body = \"300ms\"").start();
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nhalf");
    let response = client.try_receive("POST");
    assert!(matches!(&response, Ok(None)) || response.unwrap().unwrap().status == 408);
}

#[test]
fn connections_beyond_the_limit_wait_and_are_served_when_one_leaves() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nconnections = 2").start();
    let mut first = sidecar.client();
    let mut second = sidecar.client();
    assert_eq!((first.get("/", &[]).status, second.get("/", &[]).status), (200, 200));
    let mut third = Client::connect(sidecar.address());
    third.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    drop(first);
    assert_eq!(third.receive().status, 200);
}
