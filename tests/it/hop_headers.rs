//! Hop-by-hop headers end here, in both directions; the rest passes as it is.

use crate::support::app::{App, Reply};
use crate::support::sidecar::Setup;

#[test]
fn the_clients_hop_headers_do_not_reach_the_app() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let response = sidecar.client().get(
        "/?a=%2F&b",
        &[
            ("Connection", "X-One"),
            ("Connection", "keep-alive, X-Two"),
            ("X-One", "1"),
            ("X-Two", "2"),
            ("X-Three", "3"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic eDp5"),
            ("TE", "trailers, gzip"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
        ],
    );
    assert_eq!(response.status, 200);
    let request = app.last();
    assert_eq!(request.target(), "/?a=%2F&b");
    for gone in ["x-one", "x-two", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert_eq!(request.header(gone), None, "{gone} in {request:?}");
    }
    assert_eq!(request.header("x-three"), Some("3"));
    assert!(request.header("te").is_none_or(|te| te.eq_ignore_ascii_case("trailers")), "{request:?}");
}

#[test]
fn the_apps_hop_headers_do_not_reach_the_client() {
    let app = App::start(|_| {
        Reply::raw(
            "HTTP/1.1 200 OK\r\nConnection: X-One\r\nConnection: X-Two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\n\
             Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
        )
    });
    let sidecar = Setup::before(&app).start();
    let response = sidecar.client().get("/", &[]);
    assert_eq!((response.status, response.text()), (200, "hi".into()));
    for gone in ["x-one", "x-two", "keep-alive", "upgrade"] {
        assert_eq!(response.header(gone), None, "{gone} in {response:?}");
    }
    assert_eq!(response.header("x-three"), Some("3"));
}

#[test]
fn one_connection_of_a_client_carries_many_requests_and_so_does_one_to_the_app() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    for _ in 0..20 {
        assert_eq!(client.get("/", &[]).status, 200);
    }
    assert_eq!(app.connections(), 1);
    assert_eq!(app.seen().len(), 20);
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    let one = |n: u8| format!("GET /{n} HTTP/1.1\r\nHost: app.test\r\nSay-X-Number: {n}\r\n\r\n");
    client.send((0..5).map(one).collect::<String>());
    for n in 0..5_u8 {
        assert_eq!(client.receive().header("x-number"), Some(&*n.to_string()));
    }
}

#[test]
fn what_smugglers_send_is_refused() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let cases = [
        ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nab"),
        ("gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        ("blank before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"),
        ("authority form", "GET evil:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("connect", "CONNECT evil:80 HTTP/1.1\r\nHost: evil:80\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        let mut client = sidecar.client();
        client.send(bytes);
        let status = client.receive().status;
        assert!((400..=501).contains(&status) && status != 500, "{what}: {status}");
        assert!(app.seen().is_empty(), "{what} reached the app");
    }
}

#[test]
fn a_length_and_chunks_together_are_refused_and_nothing_hides_behind_them() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    client.send(
        "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
         GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.receive().status, 400);
    assert!(client.is_closed());
    assert_eq!(app.seen().len(), 0);
}

#[test]
fn an_absolute_target_decides_the_host() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    client.send("GET http://right.test/path?q HTTP/1.1\r\nHost: wrong.test\r\n\r\n");
    assert_eq!(client.receive().status, 200);
    assert_eq!(app.last().target(), "/path?q");
    assert_eq!(app.last().header("host"), Some("right.test"));
}

#[test]
fn an_untrusted_peers_forwarded_headers_are_replaced() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    sidecar.client().get(
        "/",
        &[
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil.test"),
            ("X-Forwarded-Port", "443"),
            ("Forwarded", "for=6.6.6.6"),
        ],
    );
    let request = app.last();
    assert_eq!(request.head.headers.all("x-forwarded-for").collect::<Vec<_>>(), ["127.0.0.1"]);
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("app.test"));
    assert_eq!(request.header("forwarded"), None);
    assert!(request.header("x-request-id").is_some());
}

#[test]
fn a_trusted_peers_are_extended() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).server("trust_proxy = [\"loopback\"]").start();
    sidecar.client().get("/", &[("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")]);
    let request = app.last();
    assert_eq!(
        request.header("x-forwarded-for").map(|v| v.replace(' ', "")).as_deref(),
        Some("203.0.113.9,127.0.0.1")
    );
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_dead_app_is_a_502_and_its_return_needs_no_restart() {
    let app = App::start(|request| match request.target() {
        "/close" => Reply::raw(""),
        "/garbage" => Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        "/lengths" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        "/unasked" => Reply::raw(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        _ => Reply::ok("fine"),
    });
    let sidecar = Setup::before(&app).start();
    for path in ["/close", "/garbage", "/lengths", "/unasked"] {
        let response = sidecar.client().ask("POST", path, &[("Content-Length", "0")]);
        assert_eq!(response.status, 502, "{path}");
        assert_eq!(sidecar.client().get("/", &[]).text(), "fine", "{path}");
    }
}
