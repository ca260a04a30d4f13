//! TLS to the app: whom the sidecar believes, who it says it is, and what it says when that fails.

use crate::support::client::Response;
use crate::support::endpoint::{Authority, TlsApp};
use crate::support::sidecar::Setup;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

fn before(app: &TlsApp, tls: &str) -> Setup {
    let server = format!("https://localhost:{}", app.address().port());
    Setup::before_servers(&[server]).upstream(&format!("eject_after = 0\n{tls}"))
}

fn ask(setup: Setup) -> (Response, String) {
    let sidecar = setup.start();
    let response = sidecar.client().get("/", &[]);
    (response, sidecar.log())
}

#[test]
fn an_authority_of_ones_own_is_believed_and_others_are_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let app = TlsApp::start(ours.server("localhost", None, &["http/1.1"]));
    let (response, _) = ask(before(&app, &format!("tls = {{ ca = {:?} }}", ours.file())));
    assert_eq!((response.status, response.text().as_str()), (200, "GET / HTTP/1.1"));

    for wrong in [format!("tls = {{ ca = {:?} }}", theirs.file()), String::new()] {
        let (response, log) = ask(before(&app, &wrong));
        assert_eq!(response.status, 502);
        assert!(log.contains("upstream_tls") && log.contains("UnknownIssuer"), "{log}");
    }
    let (response, _) = ask(before(&app, "tls = { insecure = true }"));
    assert_eq!(response.status, 200);
}

#[test]
fn the_name_is_checked_and_may_be_another_than_the_hosts() {
    let ours = Authority::new();
    let app = TlsApp::start(ours.server("app.internal", None, &["http/1.1"]));
    let (response, log) = ask(before(&app, &format!("tls = {{ ca = {:?} }}", ours.file())));
    assert_eq!(response.status, 502);
    assert!(log.contains("upstream_tls"), "{log}");
    let named = format!("tls = {{ ca = {:?}, server_name = \"app.internal\" }}", ours.file());
    assert_eq!(ask(before(&app, &named)).0.status, 200);
}

#[test]
fn an_app_that_asks_for_a_certificate_gets_ours() {
    let ours = Authority::new();
    let app = TlsApp::start(ours.server("localhost", Some(&ours), &["http/1.1"]));
    let ca = ours.file();
    let (response, log) = ask(before(&app, &format!("tls = {{ ca = {ca:?} }}")));
    assert_eq!(response.status, 502, "{log}");
    let (cert, key) = ours.issue_files("cloakroom");
    let with = format!("tls = {{ ca = {ca:?}, cert = {cert:?}, key = {key:?} }}");
    assert_eq!(ask(before(&app, &with)).0.status, 200);
    assert!(fs::read_to_string(key).unwrap().contains("PRIVATE KEY"));
}

#[test]
fn an_app_without_tls_is_an_error_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
            drop(stream.read_to_end(&mut Vec::new()));
        }
    });
    let (response, log) = ask(Setup::before_servers(&[server]));
    assert_eq!(response.status, 502);
    assert!(log.contains("upstream_tls"), "{log}");
}

/// A kept TLS connection is used again, and one that the app has closed is not.
#[test]
fn tls_connections_are_kept() {
    let ours = Authority::new();
    let app = TlsApp::start(ours.server("localhost", None, &["http/1.1"]));
    let sidecar = before(&app, &format!("tls = {{ ca = {:?} }}", ours.file())).start();
    for _ in 0..20 {
        assert_eq!(sidecar.client().get("/", &[]).status, 200);
    }
    assert_eq!(app.handshakes(), 1);
}
