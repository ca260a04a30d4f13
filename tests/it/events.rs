//! What happens to sessions, as counters, log records and the stream on the admin port.

use crate::support::app::App;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::ticket;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

const TOKEN: &str = "the-token-of-the-tests-0123456789abcdef";

/// A listener on `/v1/events`, past the stream's beginning.
fn listen(sidecar: &Sidecar) -> BufReader<TcpStream> {
    let mut stream = sidecar.admin_socket();
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
        .unwrap();
    let mut reader = BufReader::new(stream);
    let head = lines_until(&mut reader, "");
    assert_eq!(head[0], "HTTP/1.1 200 OK");
    assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
    lines_until(&mut reader, ": here");
    reader
}

/// The lines up to this one.
fn lines_until(reader: &mut impl BufRead, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the end after {lines:?}");
        let line = line.trim_end().to_owned();
        if line == last {
            return lines;
        }
        lines.push(line);
    }
}

/// The next event's name and data.
fn next(reader: &mut impl BufRead) -> (String, Value) {
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the stream has ended");
        let Some(name) = line.trim_end().strip_prefix("event: ") else { continue };
        let mut data = String::new();
        reader.read_line(&mut data).unwrap();
        return (name.to_owned(), serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap());
    }
}

#[test]
fn a_sessions_life_is_told() {
    let app = App::parrot();
    let sidecar = Setup::before(&app)
        .admin(&format!("token = \"{TOKEN}\""))
        .more("[log]\nsession_events = true")
        .start();
    let mut events = listen(&sidecar);
    let mut browser = sidecar.browser();
    let sid = |browser: &crate::support::client::Browser| ticket::sid_of(&browser.jar["connect.sid"]);
    browser.get("/", &[]);
    browser.say(&[("X-Session-Update", r#"{"n":1}"#)]);
    let first = sid(&browser);
    browser.get("/", &[]);
    browser.say(&[("X-Session-Update", r#"{"n":2}"#)]);
    browser.say(&[("X-Session-Control", "regenerate")]);
    let second = sid(&browser);
    browser.say(&[("X-Session-Control", "destroy")]);
    let expected = [
        ("create", &first),
        ("set", &first),
        ("touch", &first),
        ("update", &first),
        ("set", &first),
        ("create", &second),
        ("set", &second),
        ("destroy", &first),
        ("destroy", &second),
    ];
    for (kind, sid) in expected {
        let (name, data) = next(&mut events);
        assert_eq!((name.as_str(), &data["sid"]), (kind, &json!(sid)));
        let (at, shown) = (data["at"].as_str().unwrap(), data["session"].as_str().unwrap());
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        // The log says the same, without the sid.
        sidecar.logged(&["session event", kind, shown]);
    }
    assert!(!sidecar.log().contains(&first));
    let metrics = sidecar.metrics();
    for (event, count) in [("create", 2), ("update", 1), ("set", 3), ("touch", 1), ("destroy", 2)] {
        let line = format!("cloakroom_session_events_total{{event=\"{event}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

#[test]
fn the_stream_asks_for_the_token_and_ends_with_the_sidecar() {
    let app = App::parrot();
    let closed = Setup::before(&app).start();
    assert_eq!(closed.admin("/v1/events"), 403);
    let mut sidecar = Setup::before(&app).admin(&format!("token = \"{TOKEN}\"")).start();
    for authorization in
        ["", "Bearer ", "Bearer wrong", &format!("Basic {TOKEN}"), TOKEN, &format!("Bearer {TOKEN}x")]
    {
        let response = sidecar.admin_client().get("/v1/events", &[("Authorization", authorization)]);
        assert_eq!(
            (response.status, response.header("www-authenticate")),
            (401, Some("Bearer")),
            "{authorization}"
        );
    }
    // Listeners never take all of the port.
    let many: Vec<_> = (0..32).map(|_| listen(&sidecar)).collect();
    let authorization = format!("Bearer {TOKEN}");
    let ask = || sidecar.admin_client().get("/v1/events", &[("Authorization", &authorization)]).status;
    assert_eq!((ask(), sidecar.admin("/healthz")), (503, 200));
    drop(many);
    let mut events = crate::support::eventually("a free place", || {
        let mut stream = sidecar.admin_socket();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: admin\r\nAuthorization: {authorization}\r\n\r\n")
            .unwrap();
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        first.contains(" 200 ").then_some(reader)
    });
    lines_until(&mut events, ": here");
    sidecar.terminate();
    let rest = lines_until(&mut events, "0");
    assert!(rest.iter().all(String::is_empty), "the stream has its proper end: {rest:?}");
    assert!(sidecar.wait().success());
}
