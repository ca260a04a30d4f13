//! PROXY protocol, versions 1 and 2: a balancer says in front of everything else who connected to it.
//!
//! As haproxy's `proxy-protocol.txt` has it. Pure: bytes in, an origin out; `connection` reads, `serve` has the deadline. What is
//! no such header is refused: guessing would let strangers choose their address. Tests: below, and `tests/it/proxy_protocol.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 2 that is read, in bytes, TLVs included (nginx's figure). Addresses take 232 at most.
const MOST: usize = 4096;
/// The longest line of version 1, its end included.
const LONGEST_LINE: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8] = b"PROXY ";
/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// Who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Whoever the socket says: the balancer itself (`LOCAL`, a health check), or it does not know.
    Socket,
    /// From there, to an address of the balancer.
    Ip { from: SocketAddr, to: SocketAddr },
    /// A client of the balancer's own unix socket.
    Unix,
}

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) origin: Origin,
    /// In bytes; what follows is the client's.
    pub(super) length: usize,
}

/// Why the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The peer is not in `proxy_protocol_from`.
    Peer,
    /// The first bytes are something else.
    Missing,
    /// Longer than any sender needs.
    TooLong,
    /// It begins like one and breaks the rules.
    Malformed,
    /// The connection ended inside it.
    Ended,
}

impl Refusal {
    /// A word for the counter's label.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Missing => "missing",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Ended => "ended",
        }
    }
}

/// Reads the header at the beginning of `bytes`; `None`: more bytes are needed.
///
/// # Errors
/// As soon as it cannot become a header any more.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Refusal> {
    let begins = |mark: &[u8]| bytes.iter().zip(mark).all(|(byte, want)| byte == want);
    if begins(WORD) {
        return line(bytes);
    }
    if begins(SIGNATURE) {
        return binary(bytes);
    }
    Err(Refusal::Missing)
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n`.
fn line(bytes: &[u8]) -> Result<Option<Header>, Refusal> {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if within.len() < LONGEST_LINE { Ok(None) } else { Err(Refusal::TooLong) };
    };
    let words = within[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(WORD));
    let origin = words.and_then(addresses).ok_or(Refusal::Malformed)?;
    Ok(Some(Header { origin, length: end + 1 }))
}

fn addresses(words: &[u8]) -> Option<Origin> {
    // Whatever stands behind this word is to be ignored.
    if words == b"UNKNOWN" || words.starts_with(b"UNKNOWN ") {
        return Some(Origin::Socket);
    }
    let words: Vec<&str> = std::str::from_utf8(words).ok()?.split(' ').collect();
    let [family, from, to, from_port, to_port] = words[..] else { return None };
    let ip = |text: &str| match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        "TCP6" => text.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let from = SocketAddr::new(ip(from)?, port(from_port)?);
    let to = SocketAddr::new(ip(to)?, port(to_port)?);
    Some(Origin::Ip { from, to })
}

/// Digits without a sign or a leading zero.
fn port(text: &str) -> Option<u16> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Option<Header>, Refusal> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else { return Ok(None) };
    let is_local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Refusal::Malformed),
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > MOST {
        return Err(Refusal::TooLong);
    }
    let Some(block) = rest.get(..length) else { return Ok(None) };
    // A local connection's family is to be ignored.
    let origin =
        if is_local { Origin::Socket } else { origin(fixed[13], block).ok_or(Refusal::Malformed)? };
    Ok(Some(Header { origin, length: FIXED + length }))
}

/// The addresses at the beginning of `block`; the TLVs behind them are skipped. Datagrams too: a balancer may speak HTTP/3 in front.
fn origin(family: u8, block: &[u8]) -> Option<Origin> {
    match (family >> 4, family & 15) {
        (0, 0..=2) | (1..=3, 0) => Some(Origin::Socket),
        (1, 1 | 2) => {
            let (ips, ports) = (block.first_chunk::<8>()?, block.get(8..12)?);
            let (from, to) = ips.split_at(4);
            let ip = |octets: &[u8]| <[u8; 4]>::try_from(octets).ok().map(|ip| Ipv4Addr::from(ip).into());
            pair(ip(from)?, ip(to)?, ports)
        }
        (2, 1 | 2) => {
            let (ips, ports) = (block.first_chunk::<32>()?, block.get(32..36)?);
            let (from, to) = ips.split_at(16);
            let ip = |octets: &[u8]| <[u8; 16]>::try_from(octets).ok().map(|ip| Ipv6Addr::from(ip).into());
            pair(ip(from)?, ip(to)?, ports)
        }
        (3, 1 | 2) => block.get(..216).map(|_| Origin::Unix),
        _ => None,
    }
}

fn pair(from: IpAddr, to: IpAddr, ports: &[u8]) -> Option<Origin> {
    let [a, b, c, d] = ports else { return None };
    let from = SocketAddr::new(from, u16::from_be_bytes([*a, *b]));
    Some(Origin::Ip { from, to: SocketAddr::new(to, u16::from_be_bytes([*c, *d])) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version, family]);
        bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        bytes.extend(block);
        bytes
    }

    fn ip(from: &str, to: &str) -> Origin {
        Origin::Ip { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn v4_block() -> Vec<u8> {
        vec![192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb]
    }

    fn v6_block() -> Vec<u8> {
        let mut block = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets().to_vec();
        block.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        block.extend([0xdc, 0x04, 0x01, 0xbb]);
        block
    }

    fn whole() -> Vec<(Vec<u8>, Origin)> {
        let v4 = ip("192.0.2.1:56324", "192.0.2.2:443");
        let v6 = ip("[2001:db8::1]:56324", "[2001:db8::2]:443");
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let with_tlvs = [v4_block(), vec![4, 0, 3, 1, 2, 3, 0xff, 0xff, 0xff]].concat();
        let large = [v4_block(), vec![0xea; MOST - FIXED - 12]].concat();
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        vec![
            (line("TCP4 192.0.2.1 192.0.2.2 56324 443"), v4),
            (line("TCP4 192.0.2.1 192.0.2.2 0 65535"), ip("192.0.2.1:0", "192.0.2.2:65535")),
            (line("TCP6 2001:db8::1 2001:db8::2 56324 443"), v6),
            (line("TCP6 ::ffff:192.0.2.1 ::1 1 2"), ip("[::ffff:192.0.2.1]:1", "[::1]:2")),
            (line("UNKNOWN"), Origin::Socket),
            (line("UNKNOWN \u{e9} whatever"), Origin::Socket),
            (line(&format!("UNKNOWN {longest} {longest} 65535 65535")), Origin::Socket),
            (v2(0x21, 0x11, &v4_block()), v4),
            (v2(0x21, 0x12, &v4_block()), v4),
            (v2(0x21, 0x21, &v6_block()), v6),
            (v2(0x21, 0x22, &v6_block()), v6),
            (v2(0x21, 0x31, &[b'/'; 216]), Origin::Unix),
            (v2(0x21, 0x32, &[0; 220]), Origin::Unix),
            (v2(0x21, 0x00, &[]), Origin::Socket),
            (v2(0x21, 0x00, b"any bytes"), Origin::Socket),
            (v2(0x21, 0x10, &v4_block()), Origin::Socket),
            (v2(0x20, 0x00, &[]), Origin::Socket),
            (v2(0x20, 0xff, b"ignored"), Origin::Socket),
            (v2(0x21, 0x11, &with_tlvs), v4),
            (v2(0x21, 0x11, &large), v4),
        ]
    }

    #[test]
    fn every_form_is_read_and_wants_all_its_bytes_and_no_more() {
        for (bytes, origin) in whole() {
            let shown = bytes.escape_ascii().to_string();
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes of {shown}");
            }
            let header = Header { origin, length: bytes.len() };
            assert_eq!(parse(&bytes), Ok(Some(header)), "{shown}");
            assert_eq!(parse(&[&bytes[..], b"GET / HTTP/1.1\r\n"].concat()), Ok(Some(header)), "{shown}");
        }
    }

    /// `tests/fixtures/proxy-protocol`: a real sender's bytes.
    #[test]
    fn what_haproxy_sends_is_read() {
        let fixture = include_str!("../../tests/fixtures/proxy-protocol/haproxy-2.6.12.txt");
        let cases: Vec<&str> = fixture.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(cases.len(), 7);
        for case in cases {
            let [_, want, hex] = case.split(" | ").collect::<Vec<_>>()[..] else { panic!("{case}") };
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            let origin = want.split_once(' ').map_or(Origin::Socket, |(from, to)| ip(from, to));
            assert_eq!(parse(&bytes), Ok(Some(Header { origin, length: bytes.len() })), "{case}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        use Refusal::{Malformed, Missing, TooLong};
        let line = |text: &str| format!("{text}\r\n").into_bytes();
        let short = |family, block: &[u8]| v2(0x21, family, &block[..block.len() - 1]);
        let mut cases = vec![
            (line("GET / HTTP/1.1"), Missing),
            (line("proxy TCP4 192.0.2.1 192.0.2.2 1 2"), Missing),
            (line("PROXY"), Missing),
            (line(" PROXY UNKNOWN"), Missing),
            (b"\x16\x03\x01".to_vec(), Missing),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Missing),
            (b"\0".to_vec(), Missing),
            (line(&format!("PROXY UNKNOWN {}", "x".repeat(92))), TooLong),
            (format!("PROXY TCP4 {}", "1".repeat(200)).into_bytes(), TooLong),
            (v2(0x21, 0x11, &vec![0; MOST - FIXED + 1]), TooLong),
            (v2(0x20, 0x00, &vec![0; 65535]), TooLong),
            (v2(0x11, 0x11, &v4_block()), Malformed),
            (v2(0x31, 0x11, &v4_block()), Malformed),
            (v2(0x22, 0x11, &v4_block()), Malformed),
            (v2(0x2f, 0x11, &v4_block()), Malformed),
            (v2(0x21, 0x13, &v4_block()), Malformed),
            (v2(0x21, 0x41, &[0; 300]), Malformed),
            (v2(0x21, 0x03, &v4_block()), Malformed),
            (short(0x11, &v4_block()), Malformed),
            (short(0x21, &v6_block()), Malformed),
            (short(0x31, &[0; 216]), Malformed),
            (v2(0x21, 0x11, &[]), Malformed),
            (b"PROXY UNKNOWN\n".to_vec(), Malformed),
            (b"PROXY \r\n".to_vec(), Malformed),
            (b"PROXY UNKNOWN\0\r\r\n".to_vec(), Malformed),
        ];
        for text in [
            "UNKNOWNS",
            "TCP 192.0.2.1 192.0.2.2 1 2",
            "UDP4 192.0.2.1 192.0.2.2 1 2",
            "tcp4 192.0.2.1 192.0.2.2 1 2",
            "TCP4",
            "TCP4 192.0.2.1 192.0.2.2 1",
            "TCP4 192.0.2.1 192.0.2.2 1 2 3",
            "TCP4 192.0.2.1 192.0.2.2 1 2 ",
            "TCP4  192.0.2.1 192.0.2.2 1 2",
            "TCP4\t192.0.2.1 192.0.2.2 1 2",
            "TCP4 192.0.2.1 192.0.2.2 65536 2",
            "TCP4 192.0.2.1 192.0.2.2 -1 2",
            "TCP4 192.0.2.1 192.0.2.2 +1 2",
            "TCP4 192.0.2.1 192.0.2.2 01 2",
            "TCP4 192.0.2.1 192.0.2.2  2",
            "TCP4 192.0.2.256 192.0.2.2 1 2",
            "TCP4 192.0.2.01 192.0.2.2 1 2",
            "TCP4 192.0.2 192.0.2.2 1 2",
            "TCP4 ::1 ::1 1 2",
            "TCP6 192.0.2.1 192.0.2.2 1 2",
            "TCP6 ::1%eth0 ::1 1 2",
            "TCP6 [::1] ::1 1 2",
            "TCP6 ::1 192.0.2.1 1 2",
            "TCP4 localhost 192.0.2.2 1 2",
        ] {
            cases.push((line(&format!("PROXY {text}")), Malformed));
        }
        for (bytes, refusal) in cases {
            assert_eq!(parse(&bytes), Err(refusal), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_first_wrong_byte_is_enough() {
        let mut bytes = v2(0x21, 0x11, &v4_block());
        for index in 0..12 {
            bytes[index] ^= 1;
            assert_eq!(parse(&bytes[..=index]), Err(Refusal::Missing), "{index}");
            bytes[index] ^= 1;
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm_and_more_never_changes_an_answer(
            mark in prop_oneof![Just(&b""[..]), Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 "[..]), Just(&SIGNATURE[..])],
            tail in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [mark, &tail].concat();
            let mut settled = None;
            for end in 0..=bytes.len() {
                let answer = parse(&bytes[..end]);
                if let Some(settled) = settled {
                    prop_assert_eq!(answer, settled);
                } else if answer != Ok(None) {
                    settled = Some(answer);
                }
                if let Ok(Some(header)) = answer {
                    prop_assert!(header.length <= end && header.length <= MOST);
                }
            }
        }
    }
}
