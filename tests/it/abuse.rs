//! HTTP/2 clients that mean harm, in raw frames: each is closed for a counted reason, memory stays bounded, and everybody else is
//! served meanwhile.

use crate::support::app::{App, Reply};
use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::h2::H2Client;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::{eventually, patience};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://a/`
const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b'a'];
/// `POST http://a/`
const POST: &[u8] = &[0x83, 0x84, 0x86, 0x41, 1, b'a'];
const UPLOAD: &[u8] = &[b'x'; 100_000];
/// More memory than any of these may take for good.
const MOST_KIB: u64 = 48 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![size[1], size[2], size[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn closed(sidecar: &Sidecar, stage: &str, reason: &str) -> u64 {
    let name = format!("connections_closed_total{{stage=\"{stage}\",reason=\"{reason}\"}} ");
    let metrics = sidecar.metrics();
    metrics.lines().find_map(|line| line.split_once(&name)?.1.parse().ok()).unwrap_or(0)
}

fn resident_kib(sidecar: &Sidecar) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Sends `begin` and then `more` of it again and again until the connection is closed. What comes back is read unless `deaf`.
#[track_caller]
fn flood(sidecar: &Sidecar, begin: &[u8], deaf: bool, mut more: impl FnMut() -> Vec<u8>) {
    let mut socket = TcpStream::connect(sidecar.address()).unwrap();
    socket.set_write_timeout(Some(patience())).unwrap();
    socket.write_all(&[PREFACE, begin].concat()).unwrap();
    let mut back = socket.try_clone().unwrap();
    let reader =
        (!deaf).then(|| std::thread::spawn(move || while matches!(back.read(&mut [0; 4096]), Ok(1..)) {}));
    let begun = Instant::now();
    while socket.write_all(&more()).is_ok() {
        assert!(begun.elapsed() < patience(), "it is never closed");
    }
    if let Some(reader) = reader {
        reader.join().unwrap();
    }
}

#[test]
fn floods_are_closed_for_a_reason_while_others_are_served() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut other = H2Client::connect(sidecar.address());
    assert_eq!(other.ask("GET", "/", &[]).status, 200);
    let before = resident_kib(&sidecar);
    let many = |frame: &[u8]| frame.repeat(500);
    let open = frame(HEADERS, END_HEADERS, 1, POST);
    let half_a_head = frame(HEADERS, END_STREAM, 1, GET);
    type Case<'a> = (&'a str, &'a [u8], Vec<u8>, &'a [&'a str]);
    let cases: [Case<'_>; 11] = [
        ("ping", b"", frame(PING, 0, 0, b"12345678"), &["control_frames"]),
        ("ping answers", b"", frame(PING, 1, 0, b"12345678"), &["control_frames"]),
        ("settings", b"", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]), &["control_frames"]),
        ("window", b"", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), &["control_frames"]),
        ("window of a stream", &open, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), &["control_frames"]),
        ("priority", &open, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), &["control_frames"]),
        ("unknown", b"", frame(0xfa, 0, 0, b""), &["control_frames"]),
        ("empty data", &open, frame(DATA, 0, 1, b""), &["control_frames", "excessive"]),
        ("continuation", &half_a_head, frame(CONTINUATION, 0, 1, b""), &["excessive", "control_frames"]),
        (
            "long continuation",
            &half_a_head,
            frame(CONTINUATION, 0, 1, &[0x40; 900]),
            &["excessive", "protocol"],
        ),
        ("reset of nothing", b"", frame(RESET, 0, 1, &[0, 0, 0, 8]), &["protocol"]),
    ];
    for (name, begin, more, reasons) in cases {
        let count =
            |sidecar: &Sidecar| reasons.iter().map(|reason| closed(sidecar, "http2", reason)).sum::<u64>();
        let earlier = count(&sidecar);
        let more = many(&more);
        flood(&sidecar, begin, false, || more.clone());
        eventually(name, || (count(&sidecar) == earlier + 1).then_some(()));
        assert_eq!(other.ask("GET", "/", &[]).status, 200, "{name}");
        assert_eq!(sidecar.client().get("/", &[]).status, 200, "{name}");
    }
    let grown = resident_kib(&sidecar).saturating_sub(before);
    assert!(grown < MOST_KIB, "{grown} KiB");
    // One line for all of them, or nearly.
    let lines = sidecar.log().lines().filter(|line| line.contains("closed an HTTP/2 connection")).count();
    assert!((1..6).contains(&lines), "{lines}");
}

#[test]
fn a_flood_whose_answers_nobody_reads_costs_no_memory() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut other = H2Client::connect(sidecar.address());
    assert_eq!(other.ask("GET", "/", &[]).status, 200);
    let before = resident_kib(&sidecar);
    let floods: Vec<_> = (0..8)
        .map(|index| {
            let mut socket = TcpStream::connect(sidecar.address()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let frame = match index % 2 {
                0 => frame(PING, 0, 0, b"12345678"),
                _ => frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
            };
            let mut bytes = PREFACE.to_vec();
            bytes.extend(frame.repeat(200_000));
            (socket.write(&bytes).unwrap_or(0), socket)
        })
        .collect();
    assert!(floods.iter().all(|(sent, _)| *sent > 0));
    for _ in 0..50 {
        assert_eq!(other.ask("GET", "/", &[]).status, 200);
    }
    let grown = resident_kib(&sidecar).saturating_sub(before);
    assert!(grown < MOST_KIB, "{grown} KiB");
}

#[test]
fn answers_that_nobody_takes_are_held_in_bounded_memory() {
    const ANSWER: usize = 4 << 20;
    const STREAMS: u32 = 100;
    let app = App::start(|request| match request.target() {
        "/" => Reply::ok("x".repeat(ANSWER)),
        _ => Reply::ok("small"),
    });
    let sidecar = Setup::before(&app).start();
    let mut other = H2Client::connect(sidecar.address());
    assert_eq!(other.ask("GET", "/small", &[]).status, 200);
    let before = resident_kib(&sidecar);
    // SETTINGS_INITIAL_WINDOW_SIZE 0: not a byte of a body may be sent.
    let closed_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let heads = (0..STREAMS).flat_map(|index| frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * index, GET));
    let begin = [&PREFACE[..24], &closed_window, &heads.collect::<Vec<u8>>()].concat();
    let mut socket = TcpStream::connect(sidecar.address()).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    socket.write_all(&begin).unwrap();
    // Until every head has come back.
    let (mut answered, mut head) = (0, [0; 9]);
    while answered < STREAMS {
        socket.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        socket.read_exact(&mut vec![0; length as usize]).unwrap();
        answered += u32::from(head[3] == HEADERS);
        assert!(head[3] != DATA || length == 0, "its window is closed");
    }
    for _ in 0..50 {
        assert_eq!(other.ask("GET", "/small", &[]).status, 200);
    }
    let grown = resident_kib(&sidecar).saturating_sub(before);
    assert!(grown < MOST_KIB, "{grown} KiB of {} KiB", STREAMS as usize * ANSWER / 1024);
}

#[test]
fn requests_that_are_reset_at_once_are_bounded() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut other = H2Client::connect(sidecar.address());
    let mut stream = 1;
    let resets = |sidecar: &Sidecar| {
        ["resets", "excessive", "control_frames"]
            .iter()
            .map(|reason| closed(sidecar, "http2", reason))
            .sum::<u64>()
    };
    flood(&sidecar, b"", false, || {
        let mut bytes = Vec::new();
        for _ in 0..50 {
            bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
            bytes.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
            stream += 2;
        }
        bytes
    });
    eventually("it was counted", || (resets(&sidecar) == 1).then_some(()));
    assert_eq!(other.ask("GET", "/", &[]).status, 200);
    // How many of them reached the app.
    assert!(app.seen().len() < 1000, "{}", app.seen().len());
}

#[test]
fn requests_that_are_reset_once_the_app_has_them_are_bounded_too() {
    let gate = Gate::default();
    let door = gate.clone();
    let app = App::start(move |_| {
        door.pass();
        Reply::ok("late")
    });
    let sidecar = Setup::before(&app).more("[limits]\nresets = 20").start();
    let mut socket = TcpStream::connect(sidecar.address()).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    socket.write_all(PREFACE).unwrap();
    // Twice as many as are open at once and still within the limit are over it together.
    for round in 0..2 {
        let ids: Vec<u32> = (0..15).map(|index| 1 + 30 * round + 2 * index).collect();
        let heads = ids.iter().flat_map(|id| frame(HEADERS, END_STREAM | END_HEADERS, *id, GET));
        socket.write_all(&heads.collect::<Vec<u8>>()).unwrap();
        gate.arrived(15 * (round as usize + 1));
        assert_eq!(closed(&sidecar, "http2", "resets"), 0);
        let resets = ids.iter().flat_map(|id| frame(RESET, 0, *id, &[0, 0, 0, 8]));
        socket.write_all(&resets.collect::<Vec<u8>>()).unwrap();
    }
    eventually("it is closed", || (closed(&sidecar, "http2", "resets") == 1).then_some(()));
    let mut rest = Vec::new();
    drop(socket.read_to_end(&mut rest));
    gate.open();
    assert_eq!(H2Client::connect(sidecar.address()).ask("GET", "/", &[]).status, 200);
}

#[test]
fn what_honest_clients_do_is_no_flood() {
    let app = App::start(|request| match request.method() {
        "POST" => Reply::ok(request.body.bytes.len().to_string()),
        _ => Reply::ok("x".repeat(300_000)),
    });
    let sidecar = Setup::before(&app).more("[limits]\ncontrol_frames = 100\nresets = 5").start();
    let mut client = H2Client::connect(sidecar.address());
    for _ in 0..100 {
        assert_eq!(client.ask("GET", "/large", &[]).body.len(), 300_000);
        assert_eq!(client.ask("HEAD", "/large", &[]).status, 200);
        assert_eq!(client.post("/", UPLOAD, &[("x-end", "1")]).text(), "100000");
    }
    assert_eq!(sidecar.metrics().matches("stage=\"http2\"").count(), 0, "{}", sidecar.metrics());
}

#[test]
fn the_number_of_open_streams_is_what_the_limit_says() {
    let gate = Gate::default();
    let door = gate.clone();
    let app = App::start(move |_| {
        door.pass();
        Reply::ok("late")
    });
    let sidecar = Setup::before(&app).more("[limits]\nstreams = 3").start();
    let mut socket = TcpStream::connect(sidecar.address()).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    let heads = (0..5).flat_map(|index| frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * index, GET));
    socket.write_all(&[PREFACE, &heads.collect::<Vec<u8>>()].concat()).unwrap();
    // REFUSED_STREAM for the two that are too many.
    let (mut refused, mut announced, mut head) = (Vec::new(), None, [0; 9]);
    while refused.len() < 2 {
        socket.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).unwrap();
        match head[3] {
            SETTINGS if head[4] == 0 => {
                announced = payload.chunks(6).find(|entry| entry[1] == 3).map(|entry| entry[5]);
            }
            RESET => refused.push((head[8], payload[3])),
            _ => {}
        }
    }
    assert_eq!((refused, announced), (vec![(7, 7), (9, 7)], Some(3)));
    gate.arrived(3);
    gate.open();
}

#[test]
fn a_peer_has_so_many_connections_and_the_next_one_is_closed() {
    let app = App::parrot();
    let sidecar = Setup::before(&app)
        .listener("proxy_protocol = true")
        .more("[limits]\nconnections_per_peer = 2")
        .start();
    let from = |ip: &str| {
        let mut client = sidecar.client();
        client.send(format!("PROXY TCP4 {ip} 198.51.100.1 1 80\r\n"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    let served = |client: &mut Client| client.try_receive("GET").ok().flatten().map(|answer| answer.status);
    let (mut first, mut second, mut third) = (from("203.0.113.7"), from("203.0.113.7"), from("203.0.113.7"));
    assert_eq!([&mut first, &mut second, &mut third].map(served), [Some(200), Some(200), None]);
    assert_eq!(closed(&sidecar, "accept", "connections_per_peer"), 1);
    sidecar.logged(&["limits.connections_per_peer", "203.0.113.7"]);
    assert_eq!(served(&mut from("203.0.113.8")), Some(200));
    drop(first);
    eventually("the seat is free again", || (served(&mut from("203.0.113.7")) == Some(200)).then_some(()));
    // This machine's own are not counted.
    let mut local: Vec<Client> = (0..5).map(|_| from("127.0.0.1")).collect();
    assert!(local.iter_mut().all(|client| served(client) == Some(200)));
}
