//! HTTP/2 as bytes: just enough of it to send what no library would, and to read what comes back.

use super::case::Frame;
use crate::support::patience;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What came of the streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) streams: BTreeMap<u32, Stream>,
    /// The connection was ended by the other side with an error.
    pub(super) goaway: bool,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) status: Option<u16>,
    pub(super) body: Vec<u8>,
    pub(super) ended: bool,
    pub(super) reset: bool,
}

impl Stream {
    fn is_over(&self) -> bool {
        self.ended || self.reset
    }

    /// `200`, `200 cut`, `reset`.
    pub(super) fn words(&self) -> Vec<String> {
        let status = self.status.map(|status| status.to_string());
        let end = match (self.ended, self.status) {
            (true, _) => None,
            (false, Some(_)) => Some("cut".to_owned()),
            (false, None) => Some("reset".to_owned()),
        };
        status.into_iter().chain(end).collect()
    }
}

/// Sends `frames`, and reads until every stream of `wanted` is over, or the connection is.
pub(super) fn exchange(address: SocketAddr, frames: &[&Frame], wanted: &[u32]) -> Outcome {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(render(4, 0, 0, &[]));
    for frame in frames {
        bytes.extend(render(frame.kind, frame.flags, frame.stream, &frame.payload));
    }
    // The other side may end the connection at any frame.
    drop(socket.write_all(&bytes));
    let mut outcome = Outcome::default();
    while !wanted.iter().all(|stream| outcome.streams.get(stream).is_some_and(Stream::is_over)) {
        match read_frame(&mut socket) {
            Ok(frame) => take(&mut outcome, &frame),
            // A stream without an end is no outcome that a case expects.
            Err(_) => break,
        }
        if outcome.goaway {
            break;
        }
    }
    outcome
}

pub(super) fn render(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

fn read_frame(socket: &mut TcpStream) -> io::Result<Frame> {
    let mut head = [0; 9];
    socket.read_exact(&mut head)?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    socket.read_exact(&mut payload)?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Ok(Frame { kind: head[3], flags: head[4], stream, payload })
}

fn take(outcome: &mut Outcome, frame: &Frame) {
    if frame.kind == 7 {
        outcome.goaway = true;
        return;
    }
    if frame.stream == 0 {
        return;
    }
    let stream = outcome.streams.entry(frame.stream).or_default();
    match frame.kind {
        0 => stream.body.extend(&frame.payload),
        1 if stream.status.is_none() => stream.status = Some(status(&frame.payload)),
        3 => stream.reset = true,
        _ => {}
    }
    stream.ended |= frame.kind <= 1 && frame.flags & 1 != 0;
}

/// `:status`, which comes first (RFC 7541 §6 and its table).
fn status(block: &[u8]) -> u16 {
    // A table size update may stand before it.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block[0] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // A literal, with or without indexing, whose name is entry 8..=14.
        literal if (8..=14).contains(&(literal & 0x0f)) => {
            let length = usize::from(block[1] & 0x7f);
            let value = &block[2..2 + length];
            let text = if block[1] & 0x80 == 0 { value.to_vec() } else { huffman_digits(value) };
            String::from_utf8(text).unwrap().parse().unwrap()
        }
        other => panic!("a status in an unknown coding: {other:#x}"),
    }
}

/// RFC 7541 appendix B, digits only: 0 to 2 have 5 bits, the others 6.
fn huffman_digits(bytes: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |value, bit| value * 2 + bit);
    let (mut out, mut at) = (Vec::new(), 0);
    while out.len() < 3 {
        let five = number(&bits[at..at + 5]);
        if five < 3 {
            out.push(b'0' + five);
            at += 5;
        } else {
            out.push(b'3' + number(&bits[at..at + 6]) - 0x19);
            at += 6;
        }
    }
    out
}
