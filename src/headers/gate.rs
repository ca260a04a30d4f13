//! The bytes of an HTTP/1 client, read once before hyper does: what hyper repairs is refused here.
//!
//! hyper takes a lone LF for the end of a line, drops `Content-Length` when `Transfer-Encoding` is there (or does not look
//! at it at all), merges equal lengths, cuts `#fragment` off a target, and skips blanks behind a chunk's size. RFC 9112 allows
//! that (§2.2, §6.3, §7.1); whoever stands in front of us may have read the same bytes otherwise, so they are refused, as nginx
//! and Envoy do. The gate follows heads and bodies, so it sees pipelined requests too. What it refuses it overwrites with
//! bytes that hyper answers with 400; everything behind them is overwritten as well.
//! One look at each byte of a head, none at those of a body. Must not know: sockets, hyper. Tests: below, and the corpus
//! (`tests/it/framing_corpus/`), on the wire.

use super::names::trim_ows;
use std::io::BufRead;

/// What is kept of a line that comes in pieces. A longer length or coding is refused; of other lines only the beginning counts.
const HELD: usize = 256;
/// The longest body that is believed, in bytes.
const MOST: u64 = i64::MAX as u64;

/// Where in the stream of requests one connection is.
#[derive(Debug, Default)]
pub struct RequestGate {
    place: Place,
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Before a request line.
    #[default]
    Start,
    Fields,
    /// So many bytes of a body with a length are still to come.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Behind a request that asked to switch protocols.
    MaySwitch,
    /// No HTTP/1 any more.
    Off,
    /// The offence is spoiled, the byte behind it not yet.
    Refusing,
    Refused,
}

struct Refused;

impl RequestGate {
    /// Looks at the next bytes of the connection, and spoils them from the first offence on. `unanswered`: the answer to a request is
    /// still to come; who asked to switch protocols may be talking the other one already, and is left alone from then on.
    pub fn inspect(&mut self, bytes: &mut [u8], unanswered: bool) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.place {
                Place::Off => return,
                Place::Refusing => {
                    // The byte that no state of hyper takes for good.
                    bytes[at] = 0;
                    self.place = Place::Refused;
                    1
                }
                Place::Refused => {
                    // hyper does not parse what it knows in part until it sees an empty line.
                    bytes[at..].fill(b'\n');
                    return;
                }
                Place::MaySwitch => {
                    self.place = if unanswered || at > 0 { Place::Off } else { Place::Start };
                    0
                }
                Place::Body(left) => {
                    let (taken, left) = take(rest, left);
                    self.place = if left == 0 { self.end() } else { Place::Body(left) };
                    taken
                }
                Place::Chunk(left) => {
                    let (taken, left) = take(rest, left);
                    self.place = if left == 0 { Place::ChunkEnd } else { Place::Chunk(left) };
                    taken
                }
                Place::Start | Place::Fields | Place::ChunkSize | Place::ChunkEnd | Place::Trailers => {
                    let Some(end) = line_end(rest) else {
                        self.hold(rest);
                        return;
                    };
                    let after_cr = self.held.last() == Some(&b'\r');
                    match self.line(&rest[..end]) {
                        Ok(place) => self.place = place,
                        Err(Refused) => self.refuse(&mut bytes[at..=at + end], after_cr),
                    }
                    end + 1
                }
            };
        }
    }

    fn hold(&mut self, piece: &[u8]) {
        let room = HELD.saturating_sub(self.held.len());
        let (kept, rest) = piece.split_at(room.min(piece.len()));
        self.held.extend_from_slice(kept);
        // The last byte always counts: it may be the CR.
        if let (Some(last), Some(slot)) = (rest.last(), self.held.last_mut()) {
            *slot = *last;
        }
    }

    fn line(&mut self, piece: &[u8]) -> Result<Place, Refused> {
        if self.held.is_empty() {
            return self.whole_line(piece);
        }
        self.hold(piece);
        let held = std::mem::take(&mut self.held);
        self.whole_line(&held)
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<Place, Refused> {
        let line = line.strip_suffix(b"\r").ok_or(Refused)?;
        match self.place {
            // An empty line before a request is to be ignored (RFC 9112 §2.2).
            Place::Start if line.is_empty() => Ok(Place::Start),
            Place::Start => {
                (self.length, self.chunked, self.upgrade) = (None, false, false);
                // The target has no fragment (RFC 9112 §3.2); a method may have the character.
                let target =
                    line.iter().position(|byte| *byte == b' ').map_or(&b""[..], |blank| &line[blank..]);
                if target.contains(&b'#') { Err(Refused) } else { Ok(Place::Fields) }
            }
            Place::Fields if line.is_empty() => Ok(match self.length {
                _ if self.chunked => Place::ChunkSize,
                None | Some(0) => self.end(),
                Some(length) => Place::Body(length),
            }),
            Place::Fields => self.field(line).map(|()| Place::Fields),
            Place::ChunkSize => match chunk_size(line)? {
                0 => Ok(Place::Trailers),
                size => Ok(Place::Chunk(size)),
            },
            Place::ChunkEnd if line.is_empty() => Ok(Place::ChunkSize),
            Place::Trailers if line.is_empty() => Ok(self.end()),
            Place::Trailers => Ok(Place::Trailers),
            _ => Err(Refused),
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refused> {
        let is = |name: &[u8]| {
            line.len() > name.len()
                && matches!(line[name.len()], b':' | b' ' | b'\t')
                && line[..name.len()].eq_ignore_ascii_case(name)
        };
        // Most names begin with another letter.
        match line.first() {
            Some(b'c' | b'C') if is(b"content-length") => {
                if self.length.is_some() || self.chunked || line.len() >= HELD - 1 {
                    return Err(Refused);
                }
                let value = trim_ows(&line[b"content-length:".len()..]);
                // Beyond that, many read a negative number.
                self.length = Some(number(value, 10).filter(|length| *length <= MOST).ok_or(Refused)?);
            }
            Some(b't' | b'T') if is(b"transfer-encoding") => {
                if self.length.is_some() || self.chunked || line.len() >= HELD - 1 {
                    return Err(Refused);
                }
                // hyper and `framing` refuse everything that does not end in, and is not, `chunked`.
                self.chunked = true;
            }
            Some(b'u' | b'U') if is(b"upgrade") => self.upgrade = true,
            _ => {}
        }
        Ok(())
    }

    /// The request has ended.
    fn end(&self) -> Place {
        if self.upgrade { Place::MaySwitch } else { Place::Start }
    }

    /// Spoils a line, or the last piece of one, whose beginning hyper may have taken already (the CR too: `after_cr`).
    fn refuse(&mut self, piece: &mut [u8], after_cr: bool) {
        match (self.place, piece) {
            // A lone LF is refused by hyper itself.
            (Place::ChunkSize, [lf]) => *lf = if after_cr { 0 } else { b'\n' },
            // Behind a digit, a blank or CR the NUL is refused, in an extension the LF.
            (Place::ChunkSize, [first, rest @ ..]) => {
                *first = 0;
                rest.fill(b'\n');
            }
            // Trailers are parsed at their end; only a CR without LF ends them at once.
            (Place::Trailers, [.., lf]) => *lf = b'\r',
            (_, [.., lf]) => *lf = 0,
            (_, []) => {}
        }
        self.place = Place::Refusing;
    }
}

/// Where the LF is. The standard library's search looks at many bytes at once; a loop over them would be the gate's whole cost.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let last = (&mut &*bytes).skip_until(b'\n').ok()?.checked_sub(1)?;
    (bytes.get(last) == Some(&b'\n')).then_some(last)
}

/// How many of `left` bytes `rest` holds, and how many are left then.
fn take(rest: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    (taken, left - taken as u64)
}

/// RFC 9112 §7.1: at most 16 hexadecimal digits, and extensions of visible characters and blanks, which mean nothing to anybody.
fn chunk_size(line: &[u8]) -> Result<u64, Refused> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(digits);
    let extension_is_good = extension.is_empty()
        || trim_ows(extension).starts_with(b";")
            && extension.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control());
    if digits.len() > 16 || !extension_is_good {
        return Err(Refused);
    }
    number(digits, 16).ok_or(Refused)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    // `from_str_radix` takes a sign.
    let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))?;
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether the gate lets the bytes through, in one piece and in pieces of every size.
    #[track_caller]
    fn passes(stream: &[u8]) -> bool {
        let through = |size: usize| {
            let mut gate = RequestGate::default();
            let mut out = stream.to_vec();
            out.chunks_mut(size).for_each(|piece| gate.inspect(piece, false));
            let passed = !matches!(gate.place, Place::Refusing | Place::Refused);
            assert!(!passed || out == stream, "what passes is untouched");
            passed
        };
        let whole = through(stream.len());
        for size in 1..stream.len() {
            assert_eq!(through(size), whole, "{} in pieces of {size}", stream.escape_ascii());
        }
        whole
    }

    const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn good_requests_in_a_row_are_untouched() {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX: \x7f#\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:\t 5 \r\n\r\n\n#\r\n\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n02 ;a=\"b\"\r\n\r\n\r\n0\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length-X: a\r\nTransfer-Encodings: b\r\n\r\n",
        ] {
            assert!(passes(format!("{request}{NEXT}{request}{request}").as_bytes()), "{request}");
        }
    }

    #[test]
    fn offences_are_refused_wherever_they_stand() {
        for offence in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: x\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
            "POST / HTTP/1.1\r\nContent-Length: a\r\n\r\na",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\na",
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\na",
            "POST / HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\na",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;\x01\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000001\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n",
        ] {
            assert!(!passes(offence.as_bytes()), "{offence}");
            assert!(!passes(format!("{NEXT}{offence}").as_bytes()), "behind another: {offence}");
        }
    }

    #[test]
    fn nothing_behind_an_offence_is_left() {
        let mut stream = format!("GET / HTTP/1.1\n\r\n{NEXT}").into_bytes();
        let mut gate = RequestGate::default();
        gate.inspect(&mut stream, false);
        assert!(stream.starts_with(b"GET / HTTP/1.1\0\0\n") && stream.ends_with(&[b'\n'; NEXT.len()]));
        let mut more = NEXT.as_bytes().to_vec();
        gate.inspect(&mut more, false);
        assert!(more.iter().all(|byte| *byte == b'\n'));
    }

    #[test]
    fn lengths_and_codings_have_no_room_to_hide() {
        for name in ["Content-Length", "Transfer-Encoding"] {
            let line = format!("POST / HTTP/1.1\r\n{name}:{}1\r\n\r\n", " ".repeat(HELD));
            assert!(!passes(line.as_bytes()));
        }
        assert!(passes(format!("GET / HTTP/1.1\r\nX:{}1\r\n\r\n", " ".repeat(2 * HELD)).as_bytes()));
    }

    #[test]
    fn who_asked_to_switch_may_talk_another_protocol() {
        let upgrade = b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        for unanswered in [true, false] {
            let mut gate = RequestGate::default();
            gate.inspect(&mut upgrade.to_vec(), false);
            let mut bytes = *b"\n\n";
            gate.inspect(&mut bytes, unanswered);
            assert_eq!(bytes == *b"\n\n", unanswered);
        }
        assert!(passes([upgrade.as_slice(), NEXT.as_bytes()].concat().as_slice()));
    }

    proptest! {
        /// Whatever comes, in whatever pieces: no panic, and what is refused whole is refused in pieces.
        #[test]
        fn pieces_make_no_difference(stream in "[\r\n0-9a ;:#CTU]{0,40}") {
            let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{stream}");
            passes(stream.as_bytes());
        }
    }
}
