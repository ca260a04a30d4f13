//! WebSocket and other upgrades: the 101 carries a session update like any response, then bytes flow both ways.

use crate::support::app::{App, Reply};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::sidecar::{Setup, Sidecar};
use serde_json::json;
use std::io::{BufRead, Read, Write};
use std::net::Shutdown;

/// Switches protocols and echoes; `/refuse` answers 403 instead.
fn echo() -> App {
    App::start(|request| {
        if request.target() == "/refuse" {
            return Reply::Message { status: 403, headers: Vec::new(), body: b"no".to_vec(), trailers: None };
        }
        if request.header("upgrade").is_none() {
            return Reply::ok(request.header("x-session").unwrap());
        }
        Reply::take_over(|wire| {
            // The first bytes of the tunnel stand in one segment with the head.
            wire.get_mut().write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Session-Update: {\"socket\":true}\r\n\r\nhello",
            )?;
            loop {
                let bytes = wire.fill_buf()?.to_vec();
                if bytes.is_empty() {
                    return Ok(());
                }
                wire.consume(bytes.len());
                wire.get_mut().write_all(&bytes)?;
            }
        })
    })
}

fn upgrade(sidecar: &Sidecar, path: &str) -> Client {
    let mut client = sidecar.client();
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    client
}

#[test]
fn a_websocket_echoes_and_its_101_saves_the_session() {
    let app = echo();
    let sidecar = Setup::before(&app).start();
    let mut client = upgrade(&sidecar, "/ws");
    let response = client.receive();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(response.headers.folded("x-session").is_empty());
    let mut browser = sidecar.browser();
    browser.keep(&response);
    assert_eq!(browser.session(), json!({"socket": true}));
    assert_eq!(client.read_exactly(5), b"hello");
    for message in [&b"ping"[..], &[0, 1, 2, 255], &[7; 100_000]] {
        client.send(message);
        assert_eq!(client.read_exactly(message.len()), message);
    }
    assert_eq!(app.seen()[0].header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
}

#[test]
fn the_end_of_one_side_is_the_end_of_the_other() {
    let app = echo();
    let sidecar = Setup::before(&app).start();
    let mut client = upgrade(&sidecar, "/ws");
    assert_eq!(client.receive().status, 101);
    assert_eq!(client.read_exactly(5), b"hello");
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert!(client.is_closed());
    eventually("the app's side to close", || (app.connections() == 0).then_some(()));
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    let app = echo();
    let sidecar = Setup::before(&app).start();
    let mut client = upgrade(&sidecar, "/refuse");
    let response = client.receive();
    assert_eq!((response.status, response.text()), (403, "no".into()));
    assert_eq!(client.get("/", &[]).status, 200);
}

#[test]
fn an_open_tunnel_does_not_keep_the_sidecar_alive_for_ever() {
    let app = echo();
    let sidecar = Setup::before(&app).more("[timeouts]\ndrain = \"1s\"").start();
    let mut client = upgrade(&sidecar, "/ws");
    assert_eq!(client.receive().status, 101);
    sidecar.stop();
    let mut rest = Vec::new();
    // However it ends, it ends.
    drop(client.socket().read_to_end(&mut rest));
}
