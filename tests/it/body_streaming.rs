//! Bodies pass both ways, whole and under back-pressure. (1 GiB with figures: `tests/faults/big_bodies.py`.)

use crate::support::app::{App, Reply};
use crate::support::eventually;
use crate::support::h2::H2Client;
use crate::support::sidecar::Setup;
use crate::support::tls;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Bytes that repeat nowhere near a buffer's size.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn sixteen_mib_arrive_as_they_were_sent() {
    let app = App::start(|request| Reply::ok(Sha256::digest(&request.body.bytes).to_vec()));
    let sidecar = Setup::before(&app).start();
    let body = pattern(16 * MIB);
    let mut client = sidecar.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    assert_eq!(client.receive().body, Sha256::digest(&body).to_vec());

    let mut chunked = b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(100_000) {
        write!(chunked, "{:x}\r\n", chunk.len()).unwrap();
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    client.send(&chunked);
    assert_eq!(client.receive().body, Sha256::digest(&body).to_vec());
}

#[test]
fn sixteen_mib_pass_over_tls_both_ways() {
    let app = App::start(|request| Reply::ok(request.body.bytes.clone()));
    let sidecar = Setup::before(&app).listener("tls = { self_signed = true }").start();
    let body = pattern(16 * MIB);
    let (mut client, _) = tls::connect(sidecar.address(), "localhost", tls::config(&[]));
    client.send(format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    let response = client.receive();
    assert!(response.complete && response.body == body);
}

#[test]
fn sixteen_mib_come_back_as_the_app_sent_them() {
    let body = Arc::new(pattern(16 * MIB));
    let sent = Arc::clone(&body);
    let app = App::start(move |_| Reply::ok(sent.to_vec()));
    let sidecar = Setup::before(&app).start();
    let response = sidecar.client().get("/", &[]);
    assert!(response.complete && response.body == *body);
    let response = H2Client::connect(sidecar.address()).ask("GET", "/", &[]);
    assert!(response.complete && response.body == *body);
}

#[test]
fn a_slow_reader_holds_the_app_back() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let app = App::start(move |_| {
        let count = Arc::clone(&count);
        Reply::take_over(move |wire| {
            write!(wire.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 256 * MIB)?;
            let chunk = vec![1; MIB];
            for _ in 0..256 {
                wire.get_mut().write_all(&chunk)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    });
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    // Once nothing moves any more, what is under way fits into socket buffers and a little of the sidecar's own.
    let mut last = (0, Instant::now());
    let stuck = eventually("the app to be held back", || {
        let now = written.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(500)).then_some(now)
    });
    assert!(stuck < 64, "{stuck} MiB were taken from the app for a client that reads nothing");
}

#[test]
fn an_answer_before_the_body_reaches_the_client() {
    // Written by hand, since `App` reads a body before it answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.read(&mut [0; 4096]));
            drop(
                stream.write_all(
                    b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
                ),
            );
        }
    });
    let sidecar = Setup::before_address(address).start();
    let mut client = sidecar.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\nfirst bytes",
        64 * MIB
    ));
    assert_eq!(client.receive().status, 413);
}
