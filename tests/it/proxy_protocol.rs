//! The PROXY protocol on the wire: the header's address is the peer, over HTTP/1.1, HTTP/2 and TLS, and nothing else is served.

use crate::support::app::App;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::h2::H2Client;
use crate::support::ports::free_port;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::tls::{config, connect};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n";
const REQUEST: &[u8] = b"GET /asked HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// Version 2, `PROXY`, over TCP, with a TLV behind the addresses.
fn v2(family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    bytes.push(family);
    bytes.extend(u16::try_from(addresses.len() + 4).unwrap().to_be_bytes());
    bytes.extend(addresses);
    bytes.extend([0xe0, 0, 1, b'x']);
    bytes
}

fn v2_tcp4() -> Vec<u8> {
    v2(0x11, &[203, 0, 113, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb])
}

fn v2_tcp6() -> Vec<u8> {
    let mut block = [0; 36];
    block[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    block[15] = 7;
    block[34..].copy_from_slice(&443_u16.to_be_bytes());
    v2(0x21, &block)
}

/// A balancer: whoever connects to it reaches `address` behind `header`.
fn balancer(address: SocketAddr, header: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let own = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut server = TcpStream::connect(address).unwrap();
            server.write_all(&header).unwrap();
            pump(client.try_clone().unwrap(), server.try_clone().unwrap());
            pump(server, client);
        }
    });
    own
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
}

fn start(app: &App, listener: &str) -> Sidecar {
    Setup::before(app).listener(&format!("proxy_protocol = true\n{listener}")).start()
}

fn closed(sidecar: &Sidecar, reason: &str) -> u64 {
    let name = format!("connections_closed_total{{stage=\"proxy_protocol\",reason=\"{reason}\"}} ");
    let metrics = sidecar.metrics();
    metrics.lines().find_map(|line| line.split_once(&name)?.1.parse().ok()).unwrap_or(0)
}

#[test]
fn the_header_says_who_the_client_is() {
    let app = App::parrot();
    let sidecar = start(&app, "");
    for (header, ip, port) in [
        (V1.to_vec(), "203.0.113.7", Some("443")),
        (v2_tcp4(), "203.0.113.7", Some("443")),
        (v2_tcp6(), "2001:db8::7", Some("443")),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1 80\r\n".to_vec(), "203.0.113.9", Some("80")),
    ] {
        let mut client = sidecar.client();
        client.send([&header[..], REQUEST].concat());
        assert_eq!(client.receive().status, 200);
        assert_eq!(app.last().header("x-forwarded-for"), Some(ip));
        assert_eq!(app.last().header("x-forwarded-port"), port);
        assert_eq!(app.last().header("x-forwarded-proto"), Some("http"));
        sidecar.logged(&["/asked", ip]);
        // It stays so for the whole connection.
        assert_eq!(client.get("/again", &[("X-Forwarded-For", "1.1.1.1")]).status, 200);
        assert_eq!(app.last().header("x-forwarded-for"), Some(ip));
    }
}

#[test]
fn without_an_address_the_sockets_counts() {
    let app = App::parrot();
    let sidecar = start(&app, "");
    let own = sidecar.address().port().to_string();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), local, v2(0, b"")] {
        let mut client = sidecar.client();
        client.send([&header[..], REQUEST].concat());
        assert_eq!(client.receive().status, 200);
        assert_eq!(app.last().header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(app.last().header("x-forwarded-port"), Some(own.as_str()));
    }
    let mut client = sidecar.client();
    client.send([&v2(0x31, &[b'/'; 216])[..], REQUEST].concat());
    assert_eq!(client.receive().status, 200);
    assert_eq!(app.last().header("x-forwarded-for"), None, "a client of the balancer's unix socket");
}

#[test]
fn trust_is_about_the_address_in_the_header() {
    let app = App::parrot();
    let setup =
        Setup::before(&app).listener("proxy_protocol = true").server("trust_proxy = [\"203.0.113.0/24\"]");
    let sidecar = setup.start();
    for (header, expected) in [
        (V1, "192.0.2.55, 203.0.113.7"),
        (&b"PROXY TCP4 203.0.114.7 198.51.100.1 1 2\r\n"[..], "203.0.114.7"),
    ] {
        let mut client = sidecar.client();
        client.send(header);
        assert_eq!(client.get("/", &[("X-Forwarded-For", "192.0.2.55")]).status, 200);
        assert_eq!(app.last().header("x-forwarded-for"), Some(expected));
    }
}

#[test]
fn a_header_may_come_in_pieces_wherever_it_is_cut() {
    let app = App::parrot();
    let sidecar = start(&app, "");
    for header in [V1.to_vec(), v2_tcp4(), v2_tcp6()] {
        let all = [&header[..], REQUEST].concat();
        for cut in 1..header.len() + 3 {
            let mut client = sidecar.client();
            client.send(&all[..cut]);
            client.send(&all[cut..]);
            assert_eq!(client.receive().status, 200, "cut at {cut}");
        }
        let mut client = sidecar.client();
        all.iter().for_each(|byte| client.send([*byte]));
        assert_eq!(client.receive().status, 200, "byte by byte");
        assert_ne!(app.last().header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn it_stands_before_tls_and_before_http_2() {
    let app = App::parrot();
    let encrypted = start(&app, "tls = { self_signed = true }");
    let plain = start(&app, "");
    for header in [V1.to_vec(), v2_tcp4()] {
        let front = balancer(encrypted.address(), header.clone());
        let (mut client, _) = connect(front, "localhost", config(&["http/1.1"]));
        assert_eq!(client.get("/", &[]).status, 200);
        assert_eq!(app.last().header("x-forwarded-for"), Some("203.0.113.7"));
        assert_eq!(app.last().header("x-forwarded-proto"), Some("https"));
        assert_eq!(H2Client::connect_tls(front).ask("GET", "/h2", &[]).status, 200);
        assert_eq!(app.last().header("x-forwarded-for"), Some("203.0.113.7"));
        let mut http2 = H2Client::connect(balancer(plain.address(), header));
        assert_eq!(http2.ask("GET", "/h2c", &[]).status, 200);
        assert_eq!(http2.ask("GET", "/h2c", &[]).status, 200);
        assert_eq!(app.last().header("x-forwarded-for"), Some("203.0.113.7"));
    }
    // A request in plain text behind a header still meets TLS's answer.
    let mut client = Client::connect(balancer(encrypted.address(), V1.to_vec()));
    client.send(REQUEST);
    assert_eq!(client.receive().status, 400);
}

#[test]
fn what_is_no_header_is_closed_unanswered_and_counted() {
    let app = App::parrot();
    let sidecar = start(&app, "");
    let mut huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
    huge.extend([0; 4096]);
    let (long, twice) = (format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)), [V1, V1].concat());
    let cases: [(&[u8], &str); 8] = [
        (b"", "missing"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "missing"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "missing"),
        (&huge, "too_long"),
        (long.as_bytes(), "too_long"),
        (b"PROXY TCP4 203.0.113.7 198.51.100.1 56324\r\n", "malformed"),
        (b"PROXY TCP4 localhost 198.51.100.1 56324 443\r\n", "malformed"),
        (b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c", "malformed"),
    ];
    for (bytes, reason) in cases {
        let before = closed(&sidecar, reason);
        let mut client = sidecar.client();
        // The refusal may come before everything is sent.
        drop(client.socket().write_all(&[bytes, REQUEST].concat()));
        assert!(client.is_closed(), "{}", bytes.escape_ascii());
        assert_eq!(closed(&sidecar, reason), before + 1, "{reason}");
    }
    // A second header is no request.
    let mut client = sidecar.client();
    client.send(&twice);
    assert_eq!(client.receive().status, 400);
    // One that is cut short; a port scan is nothing to speak of.
    let mut client = sidecar.client();
    client.send(&V1[..20]);
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert!(client.is_closed());
    assert_eq!(closed(&sidecar, "ended"), 1);
    sidecar.client().socket().shutdown(Shutdown::Both).unwrap();

    assert!(app.seen().is_empty());
    let lines = sidecar.log().lines().filter(|line| line.contains("PROXY protocol")).count();
    assert_eq!(lines, 1, "strangers must not fill the log: {}", sidecar.log());
    sidecar.logged(&["PROXY protocol", "127.0.0.1", "missing"]);
    let mut client = sidecar.client();
    client.send([V1, REQUEST].concat());
    assert_eq!(client.receive().status, 200);
    assert_eq!(closed(&sidecar, "ended"), 1);
}

#[test]
fn only_balancers_on_the_list_may_speak() {
    let app = App::parrot();
    let sidecar = start(&app, "proxy_protocol_from = [\"192.0.2.0/24\", \"2001:db8::/32\"]");
    let mut client = sidecar.client();
    drop(client.socket().write_all(&[V1, REQUEST].concat()));
    assert!(client.is_closed());
    assert_eq!(closed(&sidecar, "peer"), 1);
    assert!(app.seen().is_empty());

    let sidecar = start(&app, "proxy_protocol_from = [\"loopback\"]");
    let mut client = sidecar.client();
    client.send([V1, REQUEST].concat());
    assert_eq!(client.receive().status, 200);
    assert_eq!(app.last().header("x-forwarded-for"), Some("203.0.113.7"));
}

#[test]
fn a_slow_header_is_closed_at_the_deadline_of_the_handshake() {
    let app = App::parrot();
    for tls in ["", "tls = { self_signed = true }"] {
        let setup = Setup::before(&app).listener(&format!("proxy_protocol = true\n{tls}"));
        let sidecar = setup.more("[timeouts]\ntls_handshake = \"300ms\"\nrequest_head = \"1h\"").start();
        let begun = Instant::now();
        for bytes in [&b""[..], &V1[..V1.len() - 1], &v2_tcp4()[..20]] {
            let mut client = sidecar.client();
            client.send(bytes);
            assert!(client.is_closed());
        }
        assert!(begun.elapsed() >= Duration::from_millis(900));
        eventually("three timed out", || {
            sidecar.metrics().contains("connections_timed_out_total 3\n").then_some(())
        });
    }
    // Behind the header the head has a time of its own.
    let sidecar = Setup::before(&app)
        .listener("proxy_protocol = true")
        .more("[timeouts]\ntls_handshake = \"1h\"\nrequest_head = \"300ms\"")
        .start();
    let mut client = sidecar.client();
    client.send(V1);
    assert!(client.is_closed());
}

#[test]
fn each_listener_has_its_own_rule() {
    let app = App::parrot();
    let port = free_port();
    let sidecar =
        start(&app, &format!("[[listener]]\naddress = \"127.0.0.1:{port}\"\nproxy_protocol = false"));
    let mut plain = Client::connect((Ipv4Addr::LOCALHOST, port).into());
    assert_eq!(plain.get("/", &[]).status, 200);
    assert_eq!(app.last().header("x-forwarded-for"), Some("127.0.0.1"));
    let mut client = Client::connect((Ipv4Addr::LOCALHOST, port).into());
    client.send([V1, REQUEST].concat());
    assert_eq!(client.receive().status, 400, "nobody may claim an address there");
    let mut client = sidecar.client();
    client.send(V1);
    let mut nothing = [0];
    client.socket().set_nonblocking(true).unwrap();
    assert_eq!(client.socket().read(&mut nothing).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}
