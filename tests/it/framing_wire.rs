//! Where a message ends is seen alike by everybody: lengths, codings, trailers, and answers that are cut short.

use crate::support::app::{App, Reply};
use crate::support::h2::H2Client;
use crate::support::sidecar::Setup;
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Everything until the end of the connection; `Err` when it ended with a reset.
fn rest(mut socket: &TcpStream) -> (String, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).map(drop);
    (String::from_utf8_lossy(&bytes).into_owned(), end)
}

#[test]
fn an_http_1_0_client_can_tell_an_answer_that_was_cut_short() {
    let app = App::start(|request| match request.target() {
        "/broken" => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        _ => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    });
    let sidecar = Setup::before(&app).start();
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let mut client = sidecar.client();
        client.send(format!("GET /broken HTTP/1.0\r\nHost: a\r\n{keep_alive}\r\n"));
        let (text, end) = rest(client.socket());
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{text:?}");

        let mut client = sidecar.client();
        client.send(format!("GET /whole HTTP/1.0\r\nHost: a\r\n{keep_alive}\r\n"));
        let (text, end) = rest(client.socket());
        assert!(end.is_ok() && text.ends_with("\r\n\r\nhello"), "{text:?} {end:?}");
    }
}

#[test]
fn an_http_1_0_client_can_tell_an_invalid_trailer() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    let mut client = sidecar.client();
    let cookies = browser.cookies();
    client.send(format!(
        "GET / HTTP/1.0\r\nHost: a\r\nCookie: {cookies}\r\nSay-Trailer-X-Session-Update: broken!\r\n\r\n"
    ));
    let (text, end) = rest(client.socket());
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{text:?}");
}

#[test]
fn a_coding_that_nobody_removes_is_not_passed_on_without_its_name() {
    let app = App::start(|request| {
        let coding = request.header("x-coding").unwrap();
        Reply::raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n2\r\nhi\r\n0\r\n\r\n"))
    });
    let sidecar = Setup::before(&app).start();
    for coding in ["gzip, chunked", "gzip", "chunked, chunked", "identity"] {
        assert_eq!(sidecar.client().get("/", &[("X-Coding", coding)]).status, 502, "{coding}");
    }
    let response = sidecar.client().get("/", &[("X-Coding", "Chunked")]);
    assert_eq!((response.status, response.text()), (200, "hi".into()));
}

#[test]
fn a_length_that_http_2_says_twice_is_refused() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let lengths = [("content-length", "0"), ("content-length", "0")];
    assert_eq!(H2Client::connect(sidecar.address()).ask("POST", "/", &lengths).status, 400);
    assert_eq!(app.seen().len(), 0);
}

const TRAILERS: [(&str, &str); 7] = [
    ("X-Checksum", "42"),
    ("Transfer_Encoding", "chunked"),
    ("TE", "gzip"),
    ("Host", "evil.test"),
    ("Set_Cookie", "a=b"),
    ("X_Session_Update", "{}"),
    ("X_Forwarded_For", "6.6.6.6"),
];

#[test]
fn only_what_may_be_a_trailer_reaches_the_app() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let names: Vec<&str> = TRAILERS.iter().map(|(name, _)| *name).chain(["Other_Name"]).collect();
    let lines: String = TRAILERS
        .iter()
        .chain(&[("Other_Name", "1")])
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let mut client = sidecar.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: {}\r\n\r\n2\r\nhi\r\n0\r\n{lines}\r\n",
        names.join(", ")
    ));
    assert_eq!(client.receive().status, 200);
    let request = app.last();
    assert_eq!(request.header("trailer").map(str::to_ascii_lowercase).as_deref(), Some("x-checksum"));
    let trailers: Vec<_> =
        request.body.trailers.0.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    assert_eq!(trailers, ["x-checksum"]);
}

#[test]
fn only_what_may_be_a_trailer_reaches_the_client() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let said: Vec<(String, &str)> = TRAILERS
        .iter()
        .filter(|(name, _)| *name != "X_Session_Update")
        .map(|(name, value)| (format!("say-trailer-{}", name.to_ascii_lowercase()), *value))
        .collect();
    let mut said: Vec<(&str, &str)> = said.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    // Names with `_` reach the app only like this.
    let sidecar_that_passes = Setup::before(&app).server("underscore_headers = \"pass\"").start();
    let response = H2Client::connect(sidecar_that_passes.address()).ask("GET", "/", &said);
    assert_eq!(
        (response.trailers.0.len(), response.trailers.get("x-checksum")),
        (1, Some("42")),
        "{response:?}"
    );
    assert_eq!(response.header("trailer"), Some("x-checksum"));
    said.push(("te", "trailers"));
    let mut client = sidecar.client();
    said.push(("connection", "te"));
    let response = client.get("/", &said);
    assert_eq!(
        (response.trailers.0.len(), response.trailers.get("x-checksum")),
        (1, Some("42")),
        "{response:?}"
    );
}

#[test]
fn an_update_in_a_trailer_may_be_as_large_as_one_in_a_header() {
    let update = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length));
    let app = App::start(move |request| match request.target() {
        "/login" => Reply::ok("hi").header("X-Session-Update", "{\"a\":1}"),
        "/show" => Reply::ok(request.header("x-session").unwrap().len().to_string()),
        "/header" => Reply::ok("hi").header("X-Session-Update", &update(900_000)),
        _ => Reply::take_over(move |wire| {
            write!(
                wire.get_mut(),
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Session-Update\r\n\r\n2\r\nhi\r\n0\r\n\
                 X-Session-Update: {}\r\n\r\n",
                update(800_000)
            )
        }),
    });
    let sidecar = Setup::before(&app).more("[limits]\nsession_header = \"1MiB\"").start();
    let mut browser = sidecar.browser();
    browser.get("/login", &[]);
    for (path, length) in [("/header", 900_008), ("/trailer", 800_008)] {
        let response = browser.get(path, &[]);
        assert!(response.status == 200 && response.complete, "{path}: {}", response.status);
        assert_eq!(browser.get("/show", &[]).text(), length.to_string(), "{path}");
    }
}

#[test]
fn a_tunnel_is_left_alone_whatever_its_bytes_look_like() {
    const NO_HTTP: &[u8] = b"\n\0GET /#x HTTP/1.1\nContent-Length: +1\n\n\n\r\r\n";
    let app = App::start(|_| {
        Reply::take_over(|wire| {
            let head =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            wire.get_mut().write_all(head)?;
            let mut bytes = vec![0; 2 * NO_HTTP.len()];
            wire.read_exact(&mut bytes)?;
            wire.get_mut().write_all(&bytes)
        })
    });
    let sidecar = Setup::before(&app).start();
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    for ahead in [true, false] {
        let mut client = sidecar.client();
        // A client that does not wait for the 101 is no reason to spoil its bytes either.
        client.send(if ahead { [head, NO_HTTP].concat() } else { head.to_vec() });
        assert_eq!(client.receive().status, 101);
        if !ahead {
            client.send(NO_HTTP);
        }
        client.send(NO_HTTP);
        assert_eq!(client.read_exactly(2 * NO_HTTP.len()), [NO_HTTP, NO_HTTP].concat(), "ahead: {ahead}");
    }
}
