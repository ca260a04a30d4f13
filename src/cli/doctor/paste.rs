//! Text that somebody copied somewhere, taken for a session cookie: what it is, and what is wrong with it. Pure.
//!
//! A Cookie header, a Set-Cookie line, `name=value`, the bare value; percent-encoded once, more often, or not at all; in quotes.
//! Tests: below.

use crate::session::cookie::parse_first;
use crate::session::guard::percent_encode;
use crate::session::sid::Sid;
use crate::session::signature::KeyRing;

/// How often a value may have been percent-encoded.
const MOST_ENCODINGS: usize = 4;
/// Characters of a mac: 32 bytes in base64 without padding.
pub(super) const MAC_LENGTH: usize = 43;

/// What a pasted cookie turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The name that stood before it, if it is none of the session's.
    pub(super) other_name: Option<String>,
    /// How often the value was percent-encoded.
    pub(super) encodings: usize,
    pub(super) outcome: Result<Ticket, Fault>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) sid: Sid,
    /// Index of the secret.
    pub(super) key: usize,
}

/// Why a cookie does not verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    /// No cookie of the session's name is in it; the names that are.
    NotThere(Vec<String>),
    /// No `s:` in front. Would the rest verify?
    NoPrefix(bool),
    /// `j:`, as the cookie-parser package writes objects.
    JsonCookie,
    NoDot,
    EmptySid,
    /// Which secret signed it, once the mac is written as it should be.
    UrlSafe(Option<usize>),
    Padded(Option<usize>),
    Blanks(Option<usize>),
    MacTooShort(usize),
    MacTooLong(usize),
    MacAlphabet,
    Stranger,
}

/// Reads what was pasted as a cookie of one of `names`.
pub(super) fn verdict(pasted: &str, names: &[String], keys: &KeyRing) -> Verdict {
    let text = unquoted(without_header(unquoted(pasted.trim())));
    let (other_name, value) = match find(text, names) {
        Ok(found) => found,
        Err(fault) => return Verdict { other_name: None, encodings: 0, outcome: Err(fault) },
    };
    let mut value = unquoted(value).to_owned();
    let mut encodings = 0;
    let mut outcome = ticket(&value, keys);
    // One step after the other: a sid may hold a percent sign of its own.
    while outcome.is_err()
        && encodings < MOST_ENCODINGS
        && let Some(next) = decoded_once(&value)
    {
        outcome = ticket(&next, keys);
        (value, encodings) = (next, encodings + 1);
    }
    Verdict { other_name, encodings, outcome }
}

/// The value, and the name that stood before it when it is none of the session's. Of several that are, the first that is signed.
fn find<'a>(text: &'a str, names: &[String]) -> Result<(Option<String>, &'a str), Fault> {
    let pieces: Vec<&str> =
        text.split([';', '\n']).map(str::trim).filter(|piece| !piece.is_empty()).collect();
    let pairs: Vec<(&str, &str)> = pieces
        .iter()
        .filter_map(|piece| piece.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let ours: Vec<&str> = pairs
        .iter()
        .filter(|(name, _)| names.iter().any(|own| own == name))
        .map(|(_, value)| *value)
        .collect();
    if let Some(value) = ours.iter().find(|value| looks_signed(value)).or(ours.first()) {
        return Ok((None, value));
    }
    // A bare value may end in padding, which looks like a pair.
    if let Some(bare) = pieces.iter().find(|piece| looks_signed(piece)) {
        return Ok((None, bare));
    }
    if let Some((name, value)) = pairs.iter().find(|(_, value)| looks_signed(value)) {
        return Ok((Some(plain(name)), value));
    }
    match (pieces.as_slice(), pairs.as_slice()) {
        ([], _) => Err(Fault::Empty),
        ([bare], []) => Ok((None, bare)),
        ([bare], [(name, _)]) if name.contains('.') && name.len() > MAC_LENGTH => Ok((None, bare)),
        _ => Err(Fault::NotThere(pairs.iter().map(|(name, _)| plain(name)).collect())),
    }
}

/// Begins with `s:` once it is decoded?
fn looks_signed(value: &str) -> bool {
    let mut value = unquoted(value).to_owned();
    for _ in 0..MOST_ENCODINGS {
        match decoded_once(&value) {
            Some(next) => value = next,
            None => break,
        }
    }
    value.starts_with("s:")
}

/// A cookie's name on a terminal.
fn plain(name: &str) -> String {
    name.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn ticket(value: &str, keys: &KeyRing) -> Result<Ticket, Fault> {
    if value.is_empty() {
        return Err(Fault::Empty);
    }
    if value.starts_with("j:") {
        return Err(Fault::JsonCookie);
    }
    let Some(signed) = value.strip_prefix("s:") else {
        return Err(Fault::NoPrefix(keys.verify(value).is_some()));
    };
    if let Some((sid, key)) = keys.verify(signed) {
        return Sid::from_text(sid).map(|sid| Ticket { sid, key }).ok_or(Fault::EmptySid);
    }
    let Some((sid, mac)) = signed.rsplit_once('.') else { return Err(Fault::NoDot) };
    if sid.is_empty() {
        return Err(Fault::EmptySid);
    }
    let retry = |mac: &str| keys.verify(&format!("{sid}.{mac}")).map(|(_, key)| key);
    let standard = mac.trim_end_matches('=').replace('-', "+").replace('_', "/").replace(' ', "+");
    Err(match standard.len() {
        _ if !standard.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')) => {
            Fault::MacAlphabet
        }
        ..MAC_LENGTH => Fault::MacTooShort(standard.len()),
        MAC_LENGTH if mac.contains(' ') => Fault::Blanks(retry(&standard)),
        MAC_LENGTH if mac.contains(['-', '_']) => Fault::UrlSafe(retry(&standard)),
        MAC_LENGTH if mac.ends_with('=') => Fault::Padded(retry(&standard)),
        MAC_LENGTH => Fault::Stranger,
        length => Fault::MacTooLong(length),
    })
}

/// As the sidecar decodes a cookie's value; `None` when it stays as it is.
fn decoded_once(value: &str) -> Option<String> {
    // What has no place in a Cookie header was decoded by somebody, so it is encoded again for the sidecar's own reader.
    let line = percent_encode(value, |byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b';'));
    let decoded = parse_first(format!("c={line}").as_bytes(), "c")?.into_owned();
    (decoded != line && decoded != value).then_some(decoded)
}

fn without_header(text: &str) -> &str {
    for header in ["set-cookie:", "cookie:"] {
        if let Some((head, rest)) = text.split_at_checked(header.len())
            && head.eq_ignore_ascii_case(header)
        {
            return rest.trim();
        }
    }
    text
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner.trim();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::guard::is_uri_component_byte;

    const SIDS: [&str; 3] = ["aZ09-_aZ09-_aZ09-_aZ09-_aZ09-_aZ", "a.b", "ü %41"];

    fn ring(secrets: &[&str]) -> KeyRing {
        KeyRing::new(secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect()).unwrap()
    }

    fn signed(sid: &str, secret: &str) -> String {
        let mut out = String::from("s:");
        ring(&[secret]).sign(sid, &mut out);
        out
    }

    fn encode(text: &str) -> String {
        percent_encode(text, is_uri_component_byte)
    }

    fn of(pasted: &str) -> Verdict {
        verdict(pasted, &["connect.sid".to_owned(), "old.sid".to_owned()], &ring(&["new", "old"]))
    }

    fn fault(pasted: &str) -> Fault {
        of(pasted).outcome.unwrap_err()
    }

    #[test]
    fn every_form_in_which_people_copy_a_cookie_is_understood() {
        for (key, secret) in ["new", "old"].into_iter().enumerate() {
            let plain = signed(SIDS[0], secret);
            let once = encode(&plain);
            let twice = encode(&once);
            for (value, encodings) in [(&plain, 0), (&once, 1), (&twice, 2)] {
                for form in [
                    value.clone(),
                    format!("  {value}\n"),
                    format!("'{value}'"),
                    format!("\"{value}\""),
                    format!("connect.sid={value}"),
                    format!("old.sid={value}"),
                    format!("'connect.sid={value}'"),
                    format!("connect.sid=\"{value}\""),
                    format!("Cookie: a=b; connect.sid={value}; c=d"),
                    format!("cookie: connect.sid=s%3Aforged; connect.sid={value}")
                        .replace("s%3Aforged", "junk"),
                    format!("Set-Cookie: connect.sid={value}; Path=/; HttpOnly; SameSite=Lax"),
                    format!("connect.sid={value}; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
                    format!("connect.sid = {value}"),
                ] {
                    let found = of(&form);
                    let ticket = Ticket { sid: Sid::from_text(SIDS[0]).unwrap(), key };
                    assert_eq!(found, Verdict { other_name: None, encodings, outcome: Ok(ticket) }, "{form}");
                }
            }
        }
    }

    #[test]
    fn odd_sids_are_read_as_the_sidecar_reads_them() {
        for sid in SIDS {
            let found = of(&format!("connect.sid={}", encode(&signed(sid, "new"))));
            assert_eq!(found.outcome.map(|ticket| ticket.sid.as_str().to_owned()), Ok(sid.to_owned()));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = signed(SIDS[0], "new");
        let (head, mac) = good.rsplit_once('.').unwrap();
        // A mac with both letters that differ in the URL-safe alphabet.
        let (sid, letters) = (0..)
            .map(|n| format!("sid{n}"))
            .map(|sid| (signed(&sid, "old"), sid))
            .find(|(value, _)| value.contains('+') && value.contains('/'))
            .map(|(value, sid)| (sid, value))
            .unwrap();
        assert!(letters.contains(&sid));
        for (pasted, expected) in [
            (String::new(), Fault::Empty),
            ("Cookie: ".to_owned(), Fault::Empty),
            ("connect.sid=".to_owned(), Fault::Empty),
            ("a=b; c=d".to_owned(), Fault::NotThere(vec!["a".into(), "c".into()])),
            (good[2..].to_owned(), Fault::NoPrefix(true)),
            (format!("connect.sid={}", &good[2..]), Fault::NoPrefix(true)),
            ("connect.sid=hello".to_owned(), Fault::NoPrefix(false)),
            ("hello".to_owned(), Fault::NoPrefix(false)),
            ("connect.sid=j%3A%7B%7D".to_owned(), Fault::JsonCookie),
            (head.to_owned(), Fault::NoDot),
            (format!("s:.{mac}"), Fault::EmptySid),
            (format!("{good}="), Fault::Padded(Some(0))),
            (format!("connect.sid={}%3D", encode(&good)), Fault::Padded(Some(0))),
            (letters.replace('+', "-").replace('/', "_"), Fault::UrlSafe(Some(1))),
            (letters.replace('+', " "), Fault::Blanks(Some(1))),
            (good[..good.len() - 3].to_owned(), Fault::MacTooShort(40)),
            (format!("{good}abc"), Fault::MacTooLong(46)),
            (format!("{}!", &good[..good.len() - 1]), Fault::MacAlphabet),
            (signed(SIDS[0], "another"), Fault::Stranger),
            (format!("s:x{}", &good[3..]), Fault::Stranger),
        ] {
            assert_eq!(fault(&pasted), expected, "{pasted}");
        }
    }

    #[test]
    fn another_name_is_named_and_the_value_is_checked_all_the_same() {
        let found = of(&format!("Cookie: a=b; app.sid={}", encode(&signed("x", "old"))));
        assert_eq!(found.other_name.as_deref(), Some("app.sid"));
        assert_eq!(found.outcome.map(|ticket| ticket.key), Ok(1));
    }
}
