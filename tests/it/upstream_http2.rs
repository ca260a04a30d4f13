//! HTTP/2 to the app: few connections for many requests, trailers both ways, and what an app may say instead of an answer.

use crate::support::client::Client;
use crate::support::endpoint::{Authority, Call, H2App, TlsApp};
use crate::support::eventually;
use crate::support::h2::H2Client;
use crate::support::sidecar::Setup;
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

fn h2c(app: &H2App) -> Setup {
    Setup::before_servers(&[format!("http://{}", app.address())]).upstream("protocol = \"h2c\"")
}

/// Answers with what it was asked, once there is leave.
fn waits(leave: &Arc<Semaphore>, streams: u32) -> H2App {
    let leave = Arc::clone(leave);
    H2App::start(None, streams, usize::MAX, move |mut call: Call| {
        let leave = Arc::clone(&leave);
        Box::pin(async move {
            leave.acquire().await.unwrap().forget();
            call.answer("waited");
        })
    })
}

fn ask_all(sidecar: &crate::support::sidecar::Sidecar, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| sidecar.client()).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"));
    clients
}

#[test]
fn a_request_arrives_in_the_form_of_http2_with_its_session() {
    let app = H2App::start(None, 100, usize::MAX, |mut call| {
        Box::pin(async move {
            let (body, _) = call.read().await;
            let (head, body) = (format!("{:?}", call.request), String::from_utf8(body).unwrap());
            let wrong =
                ["\"connection\"", "\"host\"", "\"transfer-encoding\""].map(|name| head.contains(name));
            let uri = call.request.uri().to_string();
            let session = call.request.headers()["x-session"].to_str().unwrap().to_owned();
            let mut response = http::Response::new(());
            response.headers_mut().insert("x-session-update", "{\"a\":1}".parse().unwrap());
            let text = format!("{uri} {session} {body} {wrong:?}");
            let mut stream = call.respond.send_response(response, false).unwrap();
            stream.send_data(Bytes::from(text), true).unwrap();
        })
    });
    let sidecar = h2c(&app).start();
    let mut browser = sidecar.browser();
    let first = browser.ask("DELETE", "/a?b", &[]).text();
    assert_eq!(first, "http://app.test/a?b {}  [false, false, false]");
    assert_eq!(browser.get("/", &[]).text(), "http://app.test/ {\"a\":1}  [false, false, false]");
    let mut client = sidecar.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!(client.receive().text(), "http://app.test/ {} body [false, false, false]");
    assert_eq!((app.accepted(), app.calls()), (1, 3));
}

#[test]
fn trailers_pass_both_ways() {
    let app = H2App::start(None, 100, usize::MAX, |mut call| {
        Box::pin(async move {
            let (body, trailers) = call.read().await;
            let te = call.request.headers().get("te").cloned();
            let mut stream = call.begin();
            stream.send_data(Bytes::from(body), false).unwrap();
            let mut back = trailers.unwrap_or_default();
            back.insert("grpc-status", "0".parse().unwrap());
            back.insert("x-te", te.unwrap_or("none".parse().unwrap()));
            stream.send_trailers(back).unwrap();
        })
    });
    let sidecar = h2c(&app).start();
    let mut client = H2Client::connect(sidecar.address());
    let response = client.post("/grpc", b"message", &[("x-checksum", "12")]);
    assert_eq!((response.status, response.text().as_str(), response.complete), (200, "message", true));
    assert_eq!(response.trailers.get("grpc-status"), Some("0"));
    assert_eq!(response.trailers.get("x-checksum"), Some("12"));
}

#[test]
fn many_requests_share_one_connection_and_the_apps_limit_is_respected() {
    let leave = Arc::new(Semaphore::new(0));
    let app = waits(&leave, 100);
    let sidecar = h2c(&app).start();
    let mut clients = ask_all(&sidecar, 50);
    eventually("all to arrive", || (app.calls() == 50).then_some(()));
    assert_eq!(app.accepted(), 1);
    leave.add_permits(50);
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().text(), "waited"));

    // Two at once on one connection, and one connection.
    let app = waits(&leave, 2);
    let sidecar = h2c(&app).upstream("protocol = \"h2c\"\nmax_connections = 1").start();
    let mut clients = ask_all(&sidecar, 10);
    leave.add_permits(10);
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().text(), "waited"));
    assert_eq!((app.accepted(), app.calls()), (1, 10));
}

/// Every connection takes three requests and says GOAWAY; what it did not take goes to the next, POSTs too.
#[test]
fn after_a_goaway_nothing_is_lost_and_nothing_is_done_twice() {
    let app = H2App::start(None, 100, 3, |mut call| {
        Box::pin(async move {
            call.read().await;
            call.answer("done");
        })
    });
    let sidecar = h2c(&app).start();
    for _ in 0..10 {
        let mut clients: Vec<Client> = (0..8).map(|_| sidecar.client()).collect();
        for client in &mut clients {
            client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n");
        }
        clients.iter_mut().for_each(|client| assert_eq!(client.receive().text(), "done"));
    }
    assert_eq!(app.calls(), 80);
    assert!(app.accepted() >= 80 / 8);
}

/// A frame without payload limits or padding, as a peer might write it by hand.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Reads frames until the next HEADERS, and gives its stream; `None` at the end.
fn next_request(stream: &mut TcpStream) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).ok()?;
        if head[3] == 1 {
            return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
    }
}

/// The first connection takes stream 1 of three, says so with a GOAWAY, and answers it. POSTs all of them.
#[test]
fn streams_above_the_last_of_a_goaway_go_to_the_next_connection_and_the_others_finish() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let sidecar = Setup::before_servers(&[server]).upstream("protocol = \"h2c\"").start();
    let mut clients: Vec<Client> = (0..3).map(|_| sidecar.client()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n");
    }
    let accept = || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        stream.write_all(&frame(4, 0, 0, b"")).unwrap();
        stream
    };
    // END_STREAM and END_HEADERS; `:status: 200`.
    let ok = |stream| frame(1, 5, stream, &[0x88]);
    let mut first = accept();
    let streams: Vec<u32> = (0..3).map(|_| next_request(&mut first).unwrap()).collect();
    assert_eq!(streams, [1, 3, 5]);
    first.write_all(&frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).unwrap();
    let mut second = accept();
    let streams: Vec<u32> = (0..2).map(|_| next_request(&mut second).unwrap()).collect();
    assert_eq!(streams, [1, 3]);
    second.write_all(&[ok(1), ok(3)].concat()).unwrap();
    first.write_all(&ok(1)).unwrap();
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().status, 200));
    assert_eq!(next_request(&mut first), None, "nothing more on the connection that said goodbye");
}

/// HTTP/2 has no `Upgrade`: such a request gets an HTTP/1.1 connection of its own, where there is a choice.
#[test]
fn an_upgrade_goes_over_http1_although_the_app_speaks_http2() {
    let ours = Authority::new();
    let one = TlsApp::start(ours.server("localhost", None, &["h2", "http/1.1"]));
    let tls = format!("protocol = \"auto\"\ntls = {{ ca = {:?} }}", ours.file());
    let server = format!("https://localhost:{}", one.address().port());
    let sidecar = Setup::before_servers(&[server]).upstream(&tls).start();
    let response = sidecar.client().get("/", &[("Connection", "upgrade"), ("Upgrade", "echo")]);
    // The app would have been spoken to in HTTP/2, which it does not understand.
    assert_eq!(response.text(), "GET / HTTP/1.1");
}

/// REFUSED_STREAM says that the app has not looked: even a POST is sent again, once.
#[test]
fn a_refused_stream_is_sent_again() {
    let app = H2App::start(None, 100, usize::MAX, |mut call| {
        Box::pin(async move {
            match call.number % 2 {
                0 => call.respond.send_reset(h2::Reason::REFUSED_STREAM),
                _ => call.answer("done"),
            }
        })
    });
    let sidecar = h2c(&app).start();
    for turn in 1..=5 {
        let mut client = sidecar.client();
        client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.receive().text(), "done");
        assert_eq!(app.calls(), 2 * turn);
    }
}

#[test]
fn any_other_reset_is_a_502_for_a_post_and_cuts_a_body_short() {
    let app = H2App::start(None, 100, usize::MAX, |mut call| {
        Box::pin(async move {
            if call.request.uri().path() == "/body" {
                let mut stream = call.begin();
                stream.send_data(Bytes::from_static(b"half"), false).unwrap();
                tokio::task::yield_now().await;
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            } else {
                call.respond.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        })
    });
    let sidecar = h2c(&app).start();
    assert_eq!(sidecar.client().ask("POST", "/", &[("Content-Length", "0")]).status, 502);
    assert_eq!(app.calls(), 1);
    let mut client = sidecar.client();
    client.send("GET /body HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let cut = client.try_receive("GET").unwrap().unwrap();
    assert!(cut.status == 502 || !cut.complete, "{cut:?}");
}

/// The client leaves before the head, in the middle of its upload, or in the middle of the answer: the app hears of each.
#[test]
fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let resets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resets);
    let app = H2App::start(None, 100, usize::MAX, move |mut call| {
        let count = Arc::clone(&count);
        Box::pin(async move {
            match call.request.uri().path() {
                "/fine" => return call.answer("fine"),
                "/head" => drop(std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await),
                "/upload" => {
                    let body = call.request.body_mut();
                    // Ends with an error, never with an end: what was sent is no complete request.
                    while let Some(data) = body.data().await {
                        match data {
                            Ok(data) => body.flow_control().release_capacity(data.len()).unwrap(),
                            Err(_) => {
                                count.fetch_add(1, Ordering::SeqCst);
                                return;
                            }
                        }
                    }
                    panic!("an upload that was cut off came to an end");
                }
                _ => {
                    let mut stream = call.begin();
                    stream.send_data(Bytes::from_static(b"first"), false).unwrap();
                    drop(std::future::poll_fn(|cx| stream.poll_reset(cx)).await);
                }
            }
            count.fetch_add(1, Ordering::SeqCst);
        })
    });
    let sidecar = h2c(&app).start();
    let requests = [
        "GET /head HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
        "GET /answer HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for (turn, request) in requests.iter().enumerate() {
        let mut client = sidecar.client();
        client.send(request);
        eventually("the request to arrive", || (app.calls() == 2 * turn + 1).then_some(()));
        drop(client);
        eventually("the app to hear of it", || (resets.load(Ordering::SeqCst) == turn + 1).then_some(()));
        assert_eq!(sidecar.client().get("/fine", &[]).text(), "fine");
    }
    assert_eq!(app.accepted(), 1, "the connection lives on");
}

#[test]
fn alpn_decides_with_protocol_auto() {
    let ours = Authority::new();
    let tls = format!("protocol = \"auto\"\ntls = {{ ca = {:?} }}", ours.file());
    let server = |port: u16| [format!("https://localhost:{port}")];
    let two = H2App::start(
        Some(ours.server("localhost", None, &["h2", "http/1.1"])),
        100,
        usize::MAX,
        |mut call| Box::pin(async move { call.answer("two") }),
    );
    let sidecar = Setup::before_servers(&server(two.address().port())).upstream(&tls).start();
    for _ in 0..5 {
        assert_eq!(sidecar.client().get("/", &[]).text(), "two");
    }
    assert_eq!(two.accepted(), 1);

    let one = TlsApp::start(ours.server("localhost", None, &["http/1.1"]));
    let sidecar = Setup::before_servers(&server(one.address().port())).upstream(&tls).start();
    for _ in 0..5 {
        assert_eq!(sidecar.client().get("/", &[]).text(), "GET / HTTP/1.1");
    }
    assert_eq!(one.handshakes(), 1);
}

#[test]
fn an_idle_connection_is_closed() {
    let app = H2App::start(None, 100, usize::MAX, |mut call| Box::pin(async move { call.answer("done") }));
    let sidecar = h2c(&app).upstream("protocol = \"h2c\"\nidle_timeout = \"100ms\"").start();
    assert_eq!(sidecar.client().get("/", &[]).status, 200);
    eventually("the connection to close", || (app.open() == 0).then_some(()));
    assert_eq!(sidecar.client().get("/", &[]).status, 200);
}
