//! One session as bytes: a small versioned header, then the payload. Little endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | format, 1 |
//! | 1..9 | `expires_at`, ms since the epoch |
//! | 9..17 | `touched_at` |
//! | 17..25 | `created_at`, or the smallest number for none |
//! | 25..33 | `cookie.originalMaxAge`, the same |
//! | 33..41 | `cookie.expires`, the same |
//! | 41..49 | revision |
//! | 49.. | the payload: JSON text |
//!
//! Must not know redb or threads. Tests: here.

use super::super::{Loaded, Lookup, TOO_LARGE, Version, VersionKind};
use super::touches::Touch;
use crate::session::Millis;
use crate::session::record::{CookieData, Payload, Record};
use bytes::Bytes;

const FORMAT: u8 = 1;
const HEAD: usize = 49;
const NONE: Millis = Millis::MIN;

/// The header of a row, with an extension that is not on disk yet already applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) expires_at: Millis,
    pub(super) touched_at: Millis,
    pub(super) created_at: Option<Millis>,
    pub(super) original_max_age: Option<Millis>,
    pub(super) cookie_expires: Option<Millis>,
    pub(super) revision: u64,
}

impl Head {
    /// Reads a row's header. The error says what is wrong with it, without its content.
    pub(super) fn parse(row: &[u8]) -> Result<Self, String> {
        match row.first() {
            None => return Err("an empty row".to_owned()),
            Some(&FORMAT) if row.len() >= HEAD => {}
            Some(&FORMAT) => return Err("a row that is cut short".to_owned()),
            Some(other) => return Err(format!("a row of format {other}, written by another version")),
        }
        let field = |index: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&row[1 + 8 * index..9 + 8 * index]);
            Millis::from_le_bytes(bytes)
        };
        let optional = |index| Some(field(index)).filter(|&at| at != NONE);
        Ok(Self {
            expires_at: field(0),
            touched_at: field(1),
            created_at: optional(2),
            original_max_age: optional(3),
            cookie_expires: optional(4),
            revision: field(5).cast_unsigned(),
        })
    }

    /// An extension counts for the revision that it extended and for no other.
    pub(super) fn touched(mut self, touch: Option<Touch>) -> Self {
        if let Some(touch) = touch.filter(|touch| touch.revision == self.revision) {
            self.expires_at = touch.expires_at;
            self.touched_at = touch.touched_at;
        }
        self
    }

    pub(super) fn render(&self, payload: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(HEAD + payload.len());
        row.push(FORMAT);
        for field in [
            self.expires_at,
            self.touched_at,
            self.created_at.unwrap_or(NONE),
            self.original_max_age.unwrap_or(NONE),
            self.cookie_expires.unwrap_or(NONE),
            self.revision.cast_signed(),
        ] {
            row.extend_from_slice(&field.to_le_bytes());
        }
        row.extend_from_slice(payload);
        row
    }

    /// The row of a record that is written now.
    pub(super) fn of(
        record: &Record,
        created_at: Option<Millis>,
        expires_at: Millis,
        now: Millis,
        revision: u64,
    ) -> Self {
        Self {
            expires_at,
            touched_at: now,
            created_at,
            original_max_age: record.cookie.original_max_age,
            cookie_expires: record.cookie.expires,
            revision,
        }
    }
}

pub(super) fn payload(row: &[u8]) -> &[u8] {
    row.get(HEAD..).unwrap_or_default()
}

/// What a row means to somebody who asks at `now`.
pub(super) fn lookup(row: &[u8], touch: Option<Touch>, now: Millis, max_payload: usize) -> Lookup {
    let head = match Head::parse(row) {
        Ok(head) => head.touched(touch),
        Err(why) => return Lookup::Unreadable(why),
    };
    if head.expires_at <= now {
        return Lookup::Absent;
    }
    let payload = payload(row);
    if payload.len() > max_payload {
        return Lookup::Unreadable(TOO_LARGE.to_owned());
    }
    let cookie = CookieData {
        original_max_age: head.original_max_age,
        expires: head.cookie_expires,
        attributes: Default::default(),
    };
    Lookup::Live(Loaded {
        record: Record {
            cookie,
            payload: Payload::trusted(Bytes::copy_from_slice(payload)),
            created_at: head.created_at,
            cookie_missing: false,
        },
        expires_at: Some(head.expires_at),
        touched_at: Some(head.touched_at),
        version: Version(VersionKind::Revision(head.revision)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Head = Head {
        expires_at: 5000,
        touched_at: 10,
        created_at: None,
        original_max_age: Some(-1),
        cookie_expires: Some(0),
        revision: u64::MAX,
    };

    #[test]
    fn a_row_survives_the_round_trip() {
        let full = Head { created_at: Some(7), original_max_age: None, ..PLAIN };
        for head in [PLAIN, full] {
            let row = head.render(b"{}");
            assert_eq!(Head::parse(&row), Ok(head));
            assert_eq!(payload(&row), b"{}");
        }
    }

    #[test]
    fn a_row_that_is_none_is_unreadable() {
        let good = PLAIN.render(b"{}");
        for bad in [&[][..], &good[..48], &[2; 60], b"{\"cookie\":{}}"] {
            assert!(matches!(lookup(bad, None, 1, 100), Lookup::Unreadable(_)), "{bad:?}");
        }
        assert!(matches!(lookup(&good, None, 1, 1), Lookup::Unreadable(_)));
        assert!(matches!(lookup(&good, None, 4999, 100), Lookup::Live(_)));
        assert!(matches!(lookup(&good, None, 5000, 100), Lookup::Absent));
    }

    #[test]
    fn an_extension_belongs_to_one_revision() {
        let touch = Touch { revision: u64::MAX, expires_at: 9000, touched_at: 20 };
        assert_eq!(PLAIN.touched(Some(touch)).expires_at, 9000);
        assert_eq!(PLAIN.touched(Some(Touch { revision: 3, ..touch })), PLAIN);
    }
}
