//! What TLS does not tell of a certificate: until when it is valid, and whose it is, in OpenSSL's words.
//!
//! Reads DER that was checked already (rustls has parsed it), and believes nothing all the same. Tests: below.

use std::fmt::Write as _;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which certificates of version 1 do not have.
const EXPLICIT_0: u8 = 0xa0;

/// Of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The last second at which it is valid, since 1970; 0 for what lies before.
    pub(super) not_after: u64,
    /// The subject as `openssl x509 -subject -nameopt RFC2253` and nginx's `$ssl_client_s_dn` show it: visible ASCII, last part first.
    pub(super) subject: String,
}

/// Reads a certificate (RFC 5280 §4.1); `None`: it is none.
pub(super) fn facts(der: &[u8]) -> Option<Facts> {
    let (certificate, _) = element(SEQUENCE, der)?;
    let (signed, _) = element(SEQUENCE, certificate)?;
    let after_version = element(EXPLICIT_0, signed).map_or(signed, |(_, rest)| rest);
    let (.., rest) = next(after_version)?;
    let (_, rest) = element(SEQUENCE, rest)?;
    let (_issuer, rest) = element(SEQUENCE, rest)?;
    let (validity, rest) = element(SEQUENCE, rest)?;
    let (subject, _) = element(SEQUENCE, rest)?;
    let (.., end) = next(validity)?;
    let (tag, not_after, _) = next(end)?;
    Some(Facts { not_after: time(tag, not_after)?, subject: name(subject)? })
}

/// One element with this tag, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    next(bytes).filter(|(found, ..)| *found == tag).map(|(_, inside, rest)| (inside, rest))
}

/// One element: tag, content, what follows.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(first), bytes),
        0x81..=0x84 => {
            let (length, bytes) = bytes.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), bytes)
        }
        _ => return None,
    };
    let (inside, rest) = bytes.split_at_checked(length)?;
    Some((tag, inside, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |part: &[u8]| std::str::from_utf8(part).ok()?.parse::<u16>().ok();
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            (number(year)? + if number(year)? < 50 { 2000 } else { 1900 }, rest)
        }
        GENERALIZED_TIME => {
            digits.split_at_checked(4).and_then(|(year, rest)| Some((number(year)?, rest)))?
        }
        _ => return None,
    };
    let mut parts = [0_u8; 5];
    if rest.len() != 10 || !rest.iter().all(u8::is_ascii_digit) {
        return None;
    }
    for (part, digits) in parts.iter_mut().zip(rest.chunks(2)) {
        *part = u8::try_from(number(digits)?).ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    let month = time::Month::try_from(month).ok()?;
    let date = time::Date::from_calendar_date(i32::from(year), month, day).ok()?;
    let moment = date.with_hms(hour, minute, second.min(59)).ok()?.assume_utc();
    Some(u64::try_from(moment.unix_timestamp()).unwrap_or(0))
}

/// RFC 2253: the last relative name first, joined by commas; the parts of one by plus signs.
fn name(mut sequence: &[u8]) -> Option<String> {
    let mut relative = Vec::new();
    while !sequence.is_empty() {
        let (mut set, rest) = element(SET, sequence)?;
        let mut parts = Vec::new();
        while !set.is_empty() {
            let (pair, rest) = element(SEQUENCE, set)?;
            parts.push(attribute(pair)?);
            set = rest;
        }
        // OpenSSL walks the whole name backwards, the parts of a relative one too.
        parts.reverse();
        relative.push(parts.join("+"));
        sequence = rest;
    }
    relative.reverse();
    Some(relative.join(","))
}

fn attribute(pair: &[u8]) -> Option<String> {
    let (oid, value) = element(OID, pair)?;
    let (tag, bytes, _) = next(value)?;
    let known = word(oid);
    match (known, text(tag, bytes)) {
        (Some(word), Some(text)) => Some(format!("{word}={}", escape(&text))),
        // A name or a type that nobody knows: all of it in hex.
        _ => {
            let kind = known.map_or_else(|| dotted(oid), str::to_owned);
            let whole = &value[..value.len().min(4096)];
            let hex = whole.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02X}");
                hex
            });
            Some(format!("{kind}=#{hex}"))
        }
    }
}

/// OpenSSL's short names.
fn word(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 42] => "GN",
        [0x55, 4, 97] => "organizationIdentifier",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        _ => return None,
    })
}

fn dotted(oid: &[u8]) -> String {
    let mut numbers: Vec<u128> = Vec::new();
    let mut number = 0_u128;
    for byte in oid {
        number = (number << 7) | u128::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let first = numbers.first().copied().unwrap_or(0);
    let root = (first / 40).min(2);
    let mut text = format!("{root}.{}", first - root * 40);
    for number in numbers.iter().skip(1) {
        let _ = write!(text, ".{number}");
    }
    text
}

/// The characters of a string type; `None`: no string, or not what its type says.
fn text(tag: u8, bytes: &[u8]) -> Option<String> {
    match tag {
        // UTF8String
        0x0c => std::str::from_utf8(bytes).ok().map(str::to_owned),
        // Numeric, Printable, IA5, Visible; Teletex is read as Latin-1, as OpenSSL does.
        0x12..=0x14 | 0x16 | 0x1a => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        // BMPString
        0x1e => {
            let units = bytes.chunks(2).map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
            String::from_utf16(&units.collect::<Option<Vec<u16>>>()?).ok()
        }
        _ => None,
    }
}

/// RFC 2253 §2.4; bytes outside visible ASCII in hex, so that the result is a header's value and one line.
fn escape(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    text.bytes().enumerate().fold(String::with_capacity(text.len()), |mut out, (at, byte)| {
        let edge = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            _ if edge => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    fn made(parts: Vec<(DnType, DnValue)>, not_after: time::OffsetDateTime) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind, value);
        }
        params.not_after = not_after;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    /// `openssl x509 -noout -enddate -subject -nameopt RFC2253` says the same of `tests/fixtures/x509/subjects.pem`.
    #[test]
    fn the_subject_is_what_openssl_says() {
        use rustls::pki_types::pem::PemObject;
        let fixture = include_bytes!("../../tests/fixtures/x509/subjects.pem");
        let certificates: Vec<_> =
            rustls::pki_types::CertificateDer::pem_slice_iter(fixture).map(Result::unwrap).collect();
        let expected: Vec<(u64, &str)> = include_str!("../../tests/fixtures/x509/subjects.txt")
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(end, subject)| (end.parse().unwrap(), subject))
            .collect();
        assert!(expected.len() >= 6 && certificates.len() == expected.len());
        for (der, (not_after, subject)) in certificates.iter().zip(expected) {
            assert_eq!(facts(der), Some(Facts { not_after, subject: subject.to_owned() }));
        }
    }

    /// Checked with OpenSSL 3.0.
    #[test]
    fn a_name_that_nobody_knows_is_shown_in_hex() {
        let end = time::OffsetDateTime::UNIX_EPOCH;
        let found = facts(&made(vec![(DnType::CustomDnType(vec![1, 2, 3, 40000, 5]), utf8("foo"))], end));
        assert_eq!(found.unwrap().subject, "1.2.3.40000.5=#0C03666F6F");
    }

    #[test]
    fn times_of_both_forms() {
        for seconds in [1_900_000_000, 2_524_607_999, 2_524_608_000, 4_102_444_800] {
            let end = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let found = facts(&made(vec![(DnType::CommonName, utf8("a"))], end)).unwrap();
            assert_eq!(found.not_after, u64::try_from(seconds).unwrap());
        }
        assert_eq!(time(UTC_TIME, b"991231235959Z"), Some(946_684_799));
        assert_eq!(time(UTC_TIME, b"500101000000Z"), Some(0));
        for bad in
            ["", "Z", "99123123595Z", "991331235959Z", "9912312359590", "99123123:959Z", "+91231235959Z9"]
        {
            assert_eq!(time(UTC_TIME, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_is_cut_short_is_nothing_and_nothing_panics() {
        let whole = made(vec![(DnType::CommonName, utf8("a"))], time::OffsetDateTime::UNIX_EPOCH);
        for end in 0..whole.len() {
            assert_eq!(facts(&whole[..end]), None);
        }
    }

    proptest! {
        #[test]
        fn the_subject_is_always_visible_ascii(text in "\\PC{0,40}|.{0,40}", flips in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4)) {
            let mut der = made(vec![(DnType::CommonName, utf8(&text)), (DnType::OrganizationName, utf8("x"))], time::OffsetDateTime::UNIX_EPOCH);
            for (at, byte) in flips {
                let at = at.index(der.len());
                der[at] = byte;
            }
            if let Some(found) = facts(&der) {
                prop_assert!(found.subject.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", found.subject);
            }
        }
    }
}
