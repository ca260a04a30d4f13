//! Nobody but the sidecar says what a session is (contract §2): spoofed headers in every spelling.

use crate::support::app::{App, Request};
use crate::support::h2::H2Client;
use crate::support::sidecar::{Setup, Sidecar};

const SPELLINGS: &[&str] = &[
    "X-Session",
    "x-session",
    "X_Session",
    "X.Session",
    "x_session",
    "X-SESSION",
    "X!Session",
    "X~Session",
    "X|Session",
    "X'Session",
    "X-Session-Id",
    "X_Session_Id",
    "X-Session_Id",
    "X.Session.New",
    "X-Session-Status",
    "X-Session-Expires",
    "X-Session-Signature",
    "X-Session-Update",
    "X-Session-Control",
    "X-Session-Of-Tomorrow",
    "X-Remote-User",
    "x_remote_user",
    "X.Remote.User",
];

const ROUTES: &str = r#"
[[route]]
path = "/"
upstream = "app"
claims = { "X-Remote-User" = "user.name" }
[[route]]
path = "/off"
upstream = "app"
session = "off"
"#;

fn start(app: &App) -> Sidecar {
    Setup::before(app).routes(ROUTES).start()
}

/// Not one byte of what the client forged arrived.
#[track_caller]
fn assert_clean(request: &Request, what: &str) {
    let all = format!("{}{:?}", String::from_utf8_lossy(&request.head.bytes), request.body.trailers);
    assert!(!all.contains("FORGED"), "{what}: {all}");
}

#[test]
fn every_spelling_is_removed() {
    let app = App::parrot();
    let sidecar = start(&app);
    for name in SPELLINGS {
        for path in ["/", "/off/x"] {
            let response =
                sidecar.client().get(path, &[(name, "FORGED"), (name, "FORGED"), ("X-Kept", "kept")]);
            assert_eq!(response.status, 200, "{name}");
            let request = app.last();
            assert_clean(&request, name);
            assert_eq!(request.header("x-kept"), Some("kept"), "{name}");
            let ours = request.head.headers.folded("x-session").len();
            assert_eq!(ours, if path == "/" { 4 } else { 0 }, "{name} {request:?}");
        }
    }
}

#[test]
fn all_spellings_at_once_leave_the_true_session() {
    let app = App::parrot();
    let sidecar = start(&app);
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"user":{"name":"true"}}"#)]);
    let forged: Vec<(&str, &str)> = SPELLINGS.iter().map(|name| (*name, "FORGED")).collect();
    browser.get("/", &forged);
    let request = app.last();
    assert_clean(&request, "all");
    assert_eq!(request.head.headers.all("x-session").collect::<Vec<_>>(), [r#"{"user":{"name":"true"}}"#]);
    assert_eq!(request.head.headers.all("x-remote-user").collect::<Vec<_>>(), ["true"]);
}

#[test]
fn connection_cannot_remove_what_the_sidecar_adds() {
    let app = App::parrot();
    let sidecar = start(&app);
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"user":{"name":"true"}}"#)]);
    browser.get(
        "/",
        &[
            ("Connection", "X-Session, X-Session-Id"),
            ("Connection", "x-session-new, x_session_status, X-Remote-User, close"),
            ("X-Session", "FORGED"),
        ],
    );
    let request = app.last();
    assert_clean(&request, "Connection");
    assert_eq!(request.header("x-session"), Some(r#"{"user":{"name":"true"}}"#));
    assert_eq!(request.header("x-session-new"), Some("false"));
    assert_eq!(request.header("x-session-status"), Some("live"));
    assert_eq!(request.header("x-remote-user"), Some("true"));
    assert!(request.header("x-session-id").is_some());
}

#[test]
fn trailers_are_stripped_too() {
    let app = App::parrot();
    let sidecar = start(&app);
    let mut client = sidecar.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Session, X_Session_Id, X-Remote-User, X-Checksum\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Session: FORGED\r\nX_Session_Id: FORGED\r\nX-Remote-User: FORGED\r\nX-Checksum: 42\r\n\r\n",
    );
    assert_eq!(client.receive().status, 200);
    let request = app.last();
    assert_clean(&request, "trailers");
    assert_eq!(request.body.bytes, b"hi");
    assert_eq!(request.body.trailers.get("x-checksum"), Some("42"), "{request:?}");
}

#[test]
fn http2_makes_no_difference() {
    let app = App::parrot();
    let sidecar = start(&app);
    let mut h2 = H2Client::connect(sidecar.address());
    for name in SPELLINGS.iter().map(|name| name.to_ascii_lowercase()) {
        for path in ["/", "/off/x"] {
            assert_eq!(h2.ask("GET", path, &[(&name, "FORGED"), (&name, "FORGED")]).status, 200, "{name}");
            assert_clean(&app.last(), &name);
        }
    }
    let response =
        h2.post("/", b"hi", &[("x-session", "FORGED"), ("x_session", "FORGED"), ("x-remote-user", "FORGED")]);
    assert_eq!(response.status, 200);
    assert_clean(&app.last(), "trailers over HTTP/2");
    assert_eq!(app.last().body.bytes, b"hi");
}

#[test]
fn a_request_outside_the_cookies_path_has_no_session_headers_at_all() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).cookie("path = \"/app\"").start();
    let response = sidecar.client().get(
        "/other",
        &[("X-Session", "FORGED"), ("Cookie", "connect.sid=x; a=1"), ("Say-X-Session-Update", "{\"a\":1}")],
    );
    assert_eq!((response.status, response.cookie()), (200, None));
    assert!(response.headers.folded("x-session").is_empty());
    assert!(app.last().head.headers.folded("x-session").is_empty());
    assert_eq!(app.last().header("cookie"), Some("a=1"));
    // A plain string prefix, as express-session has it.
    assert!(sidecar.client().get("/apple", &[("Say-X-Session-Update", "{\"a\":1}")]).cookie().is_some());
}

#[test]
fn other_names_with_an_underscore_follow_the_config() {
    for (setting, passed, status) in [("drop", false, 200), ("pass", true, 200), ("reject", false, 400)] {
        let app = App::parrot();
        let sidecar = Setup::before(&app).server(&format!("underscore_headers = \"{setting}\"")).start();
        let response = sidecar.client().get("/", &[("X_Other", "there")]);
        assert_eq!(response.status, status, "{setting}");
        let arrived = app.seen().iter().any(|request| request.header("x_other") == Some("there"));
        assert_eq!(arrived, passed, "{setting}");
    }
}
