//! The framing corpus: odd and hostile bytes from both sides through the real sidecar, judged by what each side gets.
//!
//! The cases are data (`tests/fixtures/framing/`, the format is in its README); one sidecar serves all cases of a file. Behind
//! every case comes a good request on the same connection, so that what hides behind the case, or is swallowed by it, shows.

mod case;
mod frames;

use crate::support::app::{App, Reply, Request};
use crate::support::message::{read_body, read_head};
use crate::support::patience;
use crate::support::sidecar::{Setup, Sidecar};
use case::{Arrival, Case, Frame, Then};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

const REQUESTS: &str = include_str!("../../fixtures/framing/requests.txt");
const HTTP2: &str = include_str!("../../fixtures/framing/http2.txt");
const RESPONSES: &str = include_str!("../../fixtures/framing/responses.txt");

/// What comes behind every case.
const END: &[u8] = b"GET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n";

#[test]
fn the_corpus_is_large() {
    let cases = [REQUESTS, HTTP2, RESPONSES].map(|text| case::parse(text).len());
    assert!(cases.iter().sum::<usize>() >= 200, "{cases:?}");
}

#[test]
fn http_1_requests() {
    let (app, sidecar) = start();
    let mut judge = Judge::new(&app);
    for case in case::parse(REQUESTS) {
        for size in [case.sent.len(), 1] {
            // A large one byte by byte says nothing that a small one does not.
            if size < case.sent.len() && case.sent.len() > 1024 {
                continue;
            }
            let got = http1(sidecar.address(), &[&case.sent, END].concat(), size);
            let ends = case.client.last().is_none_or(|word| word != "close");
            let mut want: Vec<String> = case
                .client
                .iter()
                .filter(|word| !["close", "none"].contains(&word.as_str()))
                .cloned()
                .collect();
            if ends {
                want.push("200".into());
            }
            judge.client(&case, size, &want, &got);
            judge.app(&case, size, ends);
        }
    }
    judge.verdict();
}

#[test]
fn http_2_requests() {
    let (app, sidecar) = start();
    let mut judge = Judge::new(&app);
    let end = good_request(101);
    for case in case::parse(HTTP2) {
        let frames: Vec<&Frame> = case.frames.iter().chain([&end]).collect();
        let first = case.frames.iter().map(|frame| frame.stream).find(|stream| *stream != 0).unwrap_or(1);
        let wanted = if case.client == ["nothing"] { vec![end.stream] } else { vec![first, end.stream] };
        let outcome = frames::exchange(sidecar.address(), &frames, &wanted);
        let mut got = match outcome.streams.get(&first) {
            _ if outcome.goaway => vec!["goaway".into()],
            Some(stream) => stream.words(),
            None => vec!["nothing".into()],
        };
        let ends = outcome.streams.get(&end.stream).is_some_and(|stream| stream.status == Some(200));
        if !ends && !outcome.goaway {
            got.push("and no end".into());
        }
        judge.client(&case, 0, &case.client, &got);
        judge.app(&case, 0, ends);
    }
    judge.verdict();
}

/// Every case once for a client of each version.
#[test]
fn responses() {
    let cases = Arc::new(case::parse(RESPONSES));
    let known = Arc::clone(&cases);
    let app = App::start(move |request| answer(&known, request.target()));
    let sidecar = Setup::before(&app).more(LIMITS).start();
    let mut judge = Judge::new(&app);
    for case in cases.iter() {
        let head = case.sent.starts_with(b"HEAD");
        let method = if head { "HEAD" } else { "GET" };
        let one = format!("{method} /{} HTTP/1.1\r\nHost: a\r\n\r\n", case.name);
        let got = first_response(sidecar.address(), one.as_bytes(), head);
        judge.client(case, 1, &case.client, &got);
        judge.client(case, 1, &["200".into(), "end".into()], &first_response(sidecar.address(), END, false));
        let request = Frame { payload: fields(method, &format!("/{}", case.name)), ..good_request(1) };
        let outcome = frames::exchange(sidecar.address(), &[&request, &good_request(3)], &[1, 3]);
        let nothing = frames::Stream::default();
        let of = |stream| outcome.streams.get(&stream).unwrap_or(&nothing);
        let stream = of(1);
        let body = String::from_utf8_lossy(&stream.body).into_owned();
        let mut got = stream.words();
        if !matches!(stream.status, Some(502 | 504)) && !body.is_empty() {
            got.insert(1, body.escape_default().to_string());
        }
        judge.client(case, 2, &case.client, &got);
        judge.client(case, 2, &["200".into()], &of(3).words());
        judge.forget();
    }
    judge.verdict();
}

const LIMITS: &str = "[limits]\nrequest_head = \"8KiB\"\nheader_count = 20\n[timeouts]\nrequest_body = \"300ms\"\nresponse_head = \"1s\"\nresponse_body = \"300ms\"";

fn start() -> (App, Sidecar) {
    let app = App::start(|_| Reply::ok("hi"));
    let sidecar = Setup::before(&app).more(LIMITS).start();
    (app, sidecar)
}

/// The bytes of the case that is asked for, and so on with what is asked on the same connection.
fn answer(cases: &Arc<Vec<Case>>, target: &str) -> Reply {
    let (cases, mut target) = (Arc::clone(cases), target.to_owned());
    Reply::take_over(move |wire| {
        loop {
            let case = cases.iter().find(|case| target[1..] == case.name);
            let end = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend";
            wire.get_mut().write_all(case.map_or(&end[..], |case| &case.reply))?;
            if case.is_some_and(|case| case.then == Then::Close) {
                return Ok(());
            }
            let Some(head) = read_head(wire)? else { return Ok(()) };
            read_body(wire, &head.headers, false)?;
            target = head.start.split(' ').nth(1).unwrap_or_default().to_owned();
        }
    })
}

fn good_request(stream: u32) -> Frame {
    Frame { kind: 1, flags: 5, stream, payload: fields("GET", "/end") }
}

/// The fields of a good request, in HPACK.
fn fields(method: &str, path: &str) -> Vec<u8> {
    let text = format!(
        "== x\n= 200\nheaders 1 end\nh :method|{method}\nh :scheme|http\nh :path|{path}\nh :authority|end"
    );
    case::parse(&text).remove(0).frames.remove(0).payload
}

/// Sends `bytes` in pieces of `size` and reads to the end of the connection: the statuses.
fn http1(address: SocketAddr, bytes: &[u8], size: usize) -> Vec<String> {
    let mut socket = connect(address);
    for piece in bytes.chunks(size.max(1)) {
        // Who has refused does not listen any more.
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    let mut wire = BufReader::new(socket);
    let methods = methods(bytes);
    let mut words = Vec::new();
    loop {
        let head = match read_head(&mut wire) {
            Ok(Some(head)) => head,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                words.push("hangs".into());
                return words;
            }
            _ => break,
        };
        let status = head.start.split(' ').nth(1).unwrap_or_default().to_owned();
        let bodiless = status.starts_with('1')
            || methods.get(words.iter().filter(|word| **word != "100").count()).is_some_and(|m| m == "HEAD");
        words.push(status);
        if !bodiless {
            let body = read_body(&mut wire, &head.headers, true).unwrap();
            if !body.complete {
                words.push("cut".into());
            }
        }
    }
    let mut rest = Vec::new();
    drop(wire.read_to_end(&mut rest));
    if !rest.is_empty() {
        words.push(format!("and {}", rest.escape_ascii()));
    }
    words
}

/// The methods of the requests that a case holds, as far as HEAD goes.
fn methods(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split("\r\n").filter(|line| line.ends_with(" HTTP/1.1") || line.ends_with(" HTTP/1.0"));
    lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    socket
}

/// Status, body, and `cut` when it did not come to its end.
fn first_response(address: SocketAddr, request: &[u8], head: bool) -> Vec<String> {
    let mut socket = connect(address);
    socket.write_all(request).unwrap();
    let mut wire = BufReader::new(socket);
    let Ok(Some(answer)) = read_head(&mut wire) else { return vec!["nothing".into()] };
    let status = answer.start.split(' ').nth(1).unwrap_or_default().to_owned();
    let lengths = answer.headers.all("content-length").count();
    let chunked = answer.headers.all("transfer-encoding").count();
    assert!(lengths + chunked <= 1, "two lengths: {:?}", answer.headers);
    let bodiless = head || status.starts_with('1') || status == "204" || status == "304";
    assert!(!(status == "204" && lengths + chunked > 0), "204 with a length: {:?}", answer.headers);
    if bodiless {
        return vec![status];
    }
    let body = read_body(&mut wire, &answer.headers, true).unwrap();
    let mut words = vec![status];
    // The sidecar's own answers say why, with a request id.
    if !matches!(words[0].as_str(), "502" | "504") && !body.bytes.is_empty() {
        words.push(String::from_utf8_lossy(&body.bytes).escape_default().to_string());
    }
    if !body.complete {
        words.push("cut".into());
    }
    words
}

/// Collects what is wrong, so that one run shows all of it.
struct Judge<'a> {
    app: &'a App,
    known: usize,
    wrong: Vec<String>,
}

impl<'a> Judge<'a> {
    fn new(app: &'a App) -> Self {
        Self { app, known: 0, wrong: Vec::new() }
    }

    fn client(&mut self, case: &Case, way: usize, want: &[String], got: &[String]) {
        if want != got {
            self.wrong.push(format!("{} ({way}): the client got {got:?}, not {want:?}", case.name));
        }
    }

    /// What arrived since the last case; `ends`: with the request that comes behind every case.
    fn app(&mut self, case: &Case, way: usize, ends: bool) {
        let seen = self.app.seen();
        // Of one that was cut short the app knows that it was.
        let mut arrived: Vec<&Request> =
            seen[self.known..].iter().filter(|request| request.body.complete).collect();
        self.known = seen.len();
        let all = arrived.len();
        arrived.retain(|request| request.header("host") != Some("end"));
        if all - arrived.len() != usize::from(ends) {
            self.wrong.push(format!("{} ({way}): the end came {} times", case.name, all - arrived.len()));
        }
        let starts: Vec<String> = arrived
            .iter()
            .map(|request| request.head.start.strip_suffix(" HTTP/1.1").unwrap_or("not HTTP/1.1").to_owned())
            .collect();
        if starts != case.app.iter().map(|arrival| arrival.start.clone()).collect::<Vec<_>>() {
            self.wrong.push(format!("{} ({way}): the app got {starts:?}", case.name));
            return;
        }
        for (request, arrival) in arrived.iter().zip(&case.app) {
            if let Err(what) = compare(request, arrival) {
                self.wrong.push(format!("{} ({way}): {what}", case.name));
            }
        }
    }

    fn forget(&mut self) {
        self.known = self.app.seen().len();
    }

    fn verdict(self) {
        // Nothing may come late either.
        let late = self.app.seen()[self.known..].iter().filter(|request| request.body.complete).count();
        assert!(self.wrong.is_empty() && late == 0, "{late} late\n{}", self.wrong.join("\n"));
    }
}

/// What holds for every request, and what the case says of this one.
fn compare(request: &Request, arrival: &Arrival) -> Result<(), String> {
    let headers = &request.head.headers;
    let all = |name: &str| headers.all(name).collect::<Vec<_>>();
    let (lengths, codings) = (all("content-length").len(), all("transfer-encoding"));
    let framed = lengths + codings.len() <= 1 && codings.iter().all(|coding| *coding == "chunked");
    let lone = request.head.bytes.split(|byte| *byte == b'\n').rev().skip(1).any(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(b"\n");
        line.iter().any(|byte| b"\r\n\0".contains(byte))
    });
    // `*` lies outside the cookie's path, so it has no session.
    let sessions: &[&str] = if request.target() == "*" { &[] } else { &["{}"] };
    if !framed || lone || all("host").len() != 1 || all("x-session") != sessions {
        return Err(format!("not well framed: {}", request.head.bytes.escape_ascii()));
    }
    for (name, want) in &arrival.fields {
        let got = match name.as_str() {
            "body" => request.body.bytes.clone(),
            "trailers" => {
                request.body.trailers.0.iter().map(|(n, v)| format!("{n}={v};")).collect::<String>().into()
            }
            _ if all(name).is_empty() => b"-".to_vec(),
            _ => raw_values(&request.head.bytes, name),
        };
        if got != *want {
            return Err(format!("{name} is {:?}", got.escape_ascii().to_string()));
        }
    }
    Ok(())
}

/// All values of a name, as bytes, joined with ` | `.
fn raw_values(head: &[u8], name: &str) -> Vec<u8> {
    let lines = head.split(|byte| *byte == b'\n').filter_map(|line| {
        let (field, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b": ")?;
        field
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| value.strip_suffix(b"\r").unwrap_or(value).to_vec())
    });
    lines.collect::<Vec<_>>().join(&b" | "[..])
}
