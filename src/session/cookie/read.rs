//! Request side: finding the cookies of the session's names, those that verify, and what remains without them.
//!
//! npm `cookie` 0.7 cuts a header at every `;` whatever quotes say, takes the first `=` of a piece, and drops pieces without one.
//! It never fails, so this never does. Lines of several Cookie headers and HTTP/2 crumbs mean the same as one joined with `; `.

use crate::session::sid::Sid;
use crate::session::signature::KeyRing;
use http::HeaderValue;
use std::borrow::Cow;

/// What the client's cookies say about its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// No cookie of the name.
    None,
    /// Cookies of the name, none of them signed by us. Means the same as no cookie, except to logs and `X-Session-Status`.
    Invalid {
        /// What is wrong: the worst of them.
        reason: Fault,
        /// How many there are.
        count: usize,
    },
    /// At least one whose signature verifies.
    Valid(Tickets),
}

/// The cookies that verify, each sid once: those of the session's name in the order of the header, then those of older names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tickets {
    /// The one that npm `cookie` would have taken, had the others not been there.
    pub first: Ticket,
    /// Twins with other sids; rare, and at most fifteen.
    pub others: Vec<Ticket>,
    /// A bit for each name (bit 0 is the session's own) of which a cookie came that is not ours.
    strangers: u32,
}

/// A cookie that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The sid it holds.
    pub sid: Sid,
    /// Index of the secret that signed it; not 0: an old one.
    pub key: usize,
    /// 0: the session's name; others: 1 more than the index in `accept_names`.
    pub name: usize,
}

impl Tickets {
    /// Are all cookies of this name ours? Only then may the browser be told to forget cookies of it: another app on a parent domain
    /// or path may use the same name.
    pub fn all_ours(&self, name: usize) -> bool {
        self.strangers & bit(name) == 0
    }
}

fn bit(name: usize) -> u32 {
    1 << name.min(31)
}

/// Different sids that are looked at.
const MOST_TICKETS: usize = 16;

/// Why a cookie of the name does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin with `s:`.
    Unsigned,
    /// No secret of ours made its signature, or it signs an empty sid.
    Forged,
}

/// Reads the session cookies from the values of all `Cookie` lines, which are gone through once for each name. `names`: the session's name, then the older ones that count too.
///
/// Where npm `cookie` takes the first cookie of a name, all that verify are given here: a stale or planted twin with another path
/// must not lock a user out.
pub fn read<'a, 'n, Lines: IntoIterator<Item = &'a [u8]>>(
    lines: impl Fn() -> Lines,
    names: impl IntoIterator<Item = &'n str>,
    keys: &KeyRing,
) -> Presented {
    let (mut reason, mut count) = (Fault::Unsigned, 0);
    let mut found: Option<Tickets> = None;
    let mut strangers = 0;
    for (name, text) in names.into_iter().enumerate() {
        for value in lines().into_iter().flat_map(|line| values(line, text)) {
            count += 1;
            match ticket(value, name, keys) {
                Ok(ticket) => match &mut found {
                    None => found = Some(Tickets { first: ticket, others: Vec::new(), strangers: 0 }),
                    Some(tickets) => tickets.add(ticket),
                },
                Err(fault) => {
                    strangers |= bit(name);
                    if fault == Fault::Forged {
                        reason = fault;
                    }
                }
            }
        }
    }
    match found {
        Some(tickets) => Presented::Valid(Tickets { strangers, ..tickets }),
        None if count == 0 => Presented::None,
        None => Presented::Invalid { reason, count },
    }
}

fn ticket(value: &[u8], name: usize, keys: &KeyRing) -> Result<Ticket, Fault> {
    let value = decode(value);
    let signed = value.strip_prefix("s:").ok_or(Fault::Unsigned)?;
    let (sid, key) = keys.verify(signed).ok_or(Fault::Forged)?;
    Ok(Ticket { sid: Sid::from_text(sid).ok_or(Fault::Forged)?, key, name })
}

impl Tickets {
    fn add(&mut self, ticket: Ticket) {
        let known = self.first.sid == ticket.sid || self.others.iter().any(|other| other.sid == ticket.sid);
        if !known && self.others.len() + 1 < MOST_TICKETS {
            self.others.push(ticket);
        }
    }
}

/// The decoded value of the first cookie of the name, as `cookie.parse(line)[name]` gives it.
pub fn parse_first<'a>(line: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    values(line, name).next().map(decode)
}

/// A Cookie line without the session's cookies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stripped {
    /// There was none; send the line as it is.
    Unchanged,
    /// There was nothing else; send no line.
    Empty,
    /// The other cookies, byte for byte.
    Rest(HeaderValue),
}

/// Removes every cookie of the name from one Cookie line.
pub fn strip(line: &HeaderValue, name: &str) -> Stripped {
    let bytes = line.as_bytes();
    if values(bytes, name).next().is_none() {
        return Stripped::Unchanged;
    }
    let mut rest = Vec::with_capacity(bytes.len());
    let mut first = true;
    for piece in bytes.split(|byte| *byte == b';').filter(|piece| value_of(piece, name).is_none()) {
        if first {
            rest.extend_from_slice(trim_start(piece));
        } else {
            rest.push(b';');
            rest.extend_from_slice(piece);
        }
        first = false;
    }
    if rest.iter().all(|byte| matches!(byte, b';' | b' ' | b'\t')) {
        return Stripped::Empty;
    }
    // Pieces of a valid header value are one; if not, a cookie less is safer than a secret more.
    HeaderValue::from_bytes(&rest).map_or(Stripped::Empty, |mut rest| {
        rest.set_sensitive(line.is_sensitive());
        Stripped::Rest(rest)
    })
}

/// The raw values of the cookies of the name, in their order.
fn values<'a, 'n>(line: &'a [u8], name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    line.split(|byte| *byte == b';').filter_map(move |piece| value_of(piece, name))
}

/// The value of one piece between semicolons, when it is a cookie of the name: blanks and one pair of quotes taken off.
fn value_of<'a>(piece: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = trim_start(piece).strip_prefix(name.as_bytes())?;
    let value = trim_end(trim_start(trim_start(rest).strip_prefix(b"=")?));
    Some(match value {
        // The package takes a single quote for both of a pair.
        [b'"'] => b"",
        [b'"', inner @ .., b'"'] => inner,
        plain => plain,
    })
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// `decodeURIComponent`, or the value itself where that throws. Bytes beyond ASCII are Latin-1, as Node reads headers.
fn decode(raw: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(raw)
        && raw.iter().all(|byte| byte.is_ascii() && *byte != b'%')
    {
        return Cow::Borrowed(text);
    }
    Cow::Owned(percent_decoded(raw).unwrap_or_else(|| raw.iter().map(|byte| char::from(*byte)).collect()))
}

/// `None` for a broken escape, or escapes that are not UTF-8.
fn percent_decoded(raw: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(raw.len() * 2);
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        if *first != b'%' {
            out.push(char::from(*first));
            rest = after;
            continue;
        }
        let mut encoded = [0; 4];
        encoded[0] = escaped_byte(rest)?;
        // How many bytes the character has; its other bytes must be escapes too.
        let length = match encoded[0] {
            0..=0x7f => 1,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return None,
        };
        for (index, byte) in encoded.iter_mut().enumerate().take(length) {
            *byte = escaped_byte(rest.get(index * 3..)?)?;
        }
        out.push_str(std::str::from_utf8(&encoded[..length]).ok()?);
        rest = &rest[length * 3..];
    }
    Some(out)
}

/// The byte of the `%XX` at the beginning.
fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "connect.sid";

    fn keys() -> KeyRing {
        KeyRing::new(vec![b"new".to_vec(), b"old".to_vec()]).unwrap()
    }

    /// A cookie of the name, signed with the secret of this index.
    fn cookie(sid: &str, key: usize) -> String {
        let secret = [b"new", b"old", b"bad"][key].to_vec();
        let mut value = format!("{NAME}=s%3A");
        KeyRing::new(vec![secret]).unwrap().sign(sid, &mut value);
        value.replace('+', "%2B").replace('/', "%2F")
    }

    fn found(lines: &[&str]) -> Presented {
        read(|| lines.iter().map(|line| line.as_bytes()), [NAME], &keys())
    }

    /// What is made of cookies of these sids, the first winning, with no stranger among them.
    fn valid(sids: &[(&str, usize)]) -> Presented {
        let mut tickets = sids.iter().map(|&(sid, key)| ticket(sid, key, 0));
        let first = tickets.next().unwrap();
        Presented::Valid(Tickets { first, others: tickets.collect(), strangers: 0 })
    }

    fn ticket(sid: &str, key: usize, name: usize) -> Ticket {
        Ticket { sid: Sid::from_text(sid).unwrap(), key, name }
    }

    #[test]
    fn all_cookies_that_verify_are_found_each_sid_once() {
        let (good, old, bad) = (cookie("good", 0), cookie("old", 1), cookie("bad", 2));
        assert_eq!(found(&[&good, &old]), valid(&[("good", 0), ("old", 1)]));
        assert_eq!(
            found(&[&format!("{good}; {old}; {good}"), &cookie("old", 0)]),
            valid(&[("good", 0), ("old", 1)])
        );
        let many: Vec<String> = (0..30).map(|n| cookie(&n.to_string(), 0)).collect();
        let Presented::Valid(tickets) = found(&[&many.join("; ")]) else { panic!() };
        assert_eq!((tickets.first.sid.as_str(), tickets.others.len()), ("0", MOST_TICKETS - 1));
        // A stranger changes nothing but that nobody may clean up.
        let Presented::Valid(tickets) = found(&[&format!("{bad}; {NAME}=x; a=1; {old}; {good}")]) else {
            panic!()
        };
        assert_eq!((&tickets.first, tickets.all_ours(0)), (&ticket("old", 1, 0), false));
        assert_eq!(tickets.others, [ticket("good", 0, 0)]);
    }

    #[test]
    fn older_names_come_after_the_sessions_own() {
        let lines = [format!("old.sid={}; {}", &cookie("a", 0)[NAME.len() + 1..], cookie("b", 1))];
        let read = |names: [&str; 2]| read(|| lines.iter().map(|line| line.as_bytes()), names, &keys());
        let Presented::Valid(tickets) = read([NAME, "old.sid"]) else { panic!() };
        assert_eq!((tickets.first, tickets.others), (ticket("b", 1, 0), vec![ticket("a", 0, 1)]));
        let Presented::Valid(tickets) = read(["none.sid", "old.sid"]) else { panic!() };
        assert_eq!((tickets.first, tickets.others), (ticket("a", 0, 1), vec![]));
    }

    #[test]
    fn what_does_not_verify_is_told_apart() {
        let invalid = |reason, count| Presented::Invalid { reason, count };
        let bad = cookie("bad", 2);
        assert_eq!(found(&[]), Presented::None);
        assert_eq!(
            found(&["", "a=1; Connect.sid=s:x; connect.sid; connect.sidx=1", "xconnect.sid=1"]),
            Presented::None
        );
        assert_eq!(found(&["connect.sid="]), invalid(Fault::Unsigned, 1));
        assert_eq!(found(&["connect.sid=j:x", &bad, "connect.sid=y"]), invalid(Fault::Forged, 3));
        assert_eq!(found(&["connect.sid=s:x.y"]), invalid(Fault::Forged, 1));
        let mut empty = "connect.sid=s:".to_owned();
        keys().sign("", &mut empty);
        assert_eq!(found(&[&empty]), invalid(Fault::Forged, 1));
    }

    #[test]
    fn values_are_decoded_as_decode_uri_component_does() {
        // From Node: cookie.parse(line, undefined).v, lines as Latin-1.
        let cases: [(&[u8], &str); 12] = [
            (b"v=%41b", "Ab"),
            (b"v=%c3%a9%F0%9F%98%80", "é😀"),
            (b"v=\xc3\xa9", "Ã©"),
            (b"v=%41\xe9", "Aé"),
            (b"v=%c3\xa9", "%c3©"),
            (b"v=%C3%41", "%C3%41"),
            (b"v=%ED%A0%80", "%ED%A0%80"),
            (b"v=%C0%80", "%C0%80"),
            (b"v=a%", "a%"),
            (b"v=%4", "%4"),
            (b"v=%+1", "%+1"),
            (b"v=%F4%90%80%80", "%F4%90%80%80"),
        ];
        for (line, value) in cases {
            assert_eq!(parse_first(line, "v").unwrap(), value);
        }
        for (line, value) in [
            ("v=\"a\"", "a"),
            ("v=\"", ""),
            ("v=\"\"", ""),
            ("v=\"a", "\"a"),
            ("v = a=b ", "a=b"),
            ("v=\t", ""),
        ] {
            assert_eq!(parse_first(line.as_bytes(), "v").unwrap(), value, "{line}");
        }
    }

    #[test]
    fn stripping_leaves_the_others_alone() {
        let strip = |line: &str| strip(&HeaderValue::from_str(line).unwrap(), NAME);
        let rest = |line: &str| Stripped::Rest(HeaderValue::from_str(line).unwrap());
        for line in [
            "",
            "a=1",
            "a=1;b=\"x y\" ;; c",
            "connect.sid",
            "connect.sidx=1",
            "Connect.sid=1",
            "a=connect.sid=1",
        ] {
            assert_eq!(strip(line), Stripped::Unchanged, "{line}");
        }
        for line in
            ["connect.sid=1", " connect.sid =1; connect.sid=", "connect.sid=1;; ", ";\tconnect.sid=\"1\""]
        {
            assert_eq!(strip(line), Stripped::Empty, "{line}");
        }
        assert_eq!(strip("connect.sid=1; a=%41"), rest("a=%41"));
        assert_eq!(strip("a=1; connect.sid=1"), rest("a=1"));
        assert_eq!(strip("a=1 ;connect.sid=1;  b=\"2\"; connect.sid=3; c"), rest("a=1 ;  b=\"2\"; c"));
        let bytes = HeaderValue::from_bytes(b"a=\xff; connect.sid=\xfe").unwrap();
        assert_eq!(super::strip(&bytes, NAME), Stripped::Rest(HeaderValue::from_bytes(b"a=\xff").unwrap()));
    }

    proptest! {
        #[test]
        fn no_cookie_of_the_name_survives_and_no_other_is_lost(
            pieces in prop::collection::vec("[ \t]?(connect\\.sid|a|b|connect)?[ \t]?=?[ \t]?[\"a=%1]{0,4}[ \t]?", 0..6),
            separator in "; ?",
        ) {
            let line = pieces.join(&separator);
            let value = HeaderValue::from_str(&line).unwrap();
            let rest = match strip(&value, NAME) {
                Stripped::Unchanged => value,
                Stripped::Empty => HeaderValue::from_static(""),
                Stripped::Rest(rest) => rest,
            };
            prop_assert_eq!(parse_first(rest.as_bytes(), NAME), None);
            for name in ["a", "b", "connect", ""] {
                let before: Vec<&[u8]> = values(line.as_bytes(), name).collect();
                let after: Vec<&[u8]> = values(rest.as_bytes(), name).collect();
                prop_assert_eq!(before, after, "{:?}", line);
            }
        }

        #[test]
        fn no_bytes_are_too_strange(line in prop::collection::vec(any::<u8>(), 0..60), name in "[a-c]{1,2}") {
            let lines = [line.as_slice(), b"a=%", b"b=s:"];
            let _ = read(|| lines, [name.as_str(), "a"], &keys());
            let _ = parse_first(&line, &name);
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let _ = strip(&value, &name);
            }
        }

        #[test]
        fn any_signed_sid_is_found_again(sid in "\\PC{1,12}", before in "[a-z=; \"%]{0,12}", key in 0..2_usize) {
            let mut signed = "s:".to_owned();
            KeyRing::new(vec![[b"new", b"old"][key].to_vec()]).unwrap().sign(&sid, &mut signed);
            let encoded: String = signed.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let Presented::Valid(tickets) = found(&[&format!("{before}; {NAME}={encoded}")]) else { panic!() };
            prop_assert_eq!(tickets.first, ticket(&sid, key, 0));
        }
    }
}
