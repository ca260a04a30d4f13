//! What is stored under a key, read tolerantly (contract §5): nothing that is there can crash it, and no text of it is shown.
//!
//! Must not know the connection. Tests: here.

use super::super::{Loaded, Lookup, TOO_LARGE, Version, VersionKind};
use crate::session::Millis;
use crate::session::record::Record;
use std::sync::Arc;

/// What a stored text may hold beyond `limits.session`: the `cookie` object and the spelling of other software.
const COOKIE_ALLOWANCE: usize = 4096;

/// What is said of a key that holds a list, a hash, or the like.
pub(super) const OTHER_TYPE: &str = "not a string but another Redis type";

/// What reading needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// `limits.session`, bytes.
    pub(super) max_payload: usize,
    /// `store.ttl`, milliseconds: of sessions without a max age.
    pub(super) ttl: Millis,
}

impl Reading {
    /// The longest value that is read at all, bytes.
    pub(super) fn longest(self) -> usize {
        self.max_payload.saturating_add(COOKIE_ALLOWANCE)
    }

    /// What `value` with `pttl` milliseconds to live (negative: for ever) means to somebody who asks at `now`, while the clock says
    /// `clock`.
    pub(super) fn lookup(self, value: &[u8], pttl: Millis, clock: Millis, now: Millis) -> Lookup {
        let expires_at = (pttl >= 0).then(|| clock.saturating_add(pttl));
        if expires_at.is_some_and(|ends| ends <= now) {
            return Lookup::Absent;
        }
        if value.is_empty() {
            // It went between two commands; an empty value is none for connect-redis either.
            return Lookup::Absent;
        }
        let (record, text) = match self.parse(value) {
            Ok(parsed) => parsed,
            Err(why) => return Lookup::Unreadable(why),
        };
        // `EX` is in whole seconds, rounded up; nothing was touched in the future.
        let span = record.cookie.original_max_age.unwrap_or(self.ttl);
        let touched_at = expires_at.map(|ends| ends.saturating_sub(span).min(clock));
        let version = Version(VersionKind::Text(Arc::from(text)));
        Lookup::Live(Loaded { record, expires_at, touched_at, version })
    }

    fn parse(self, value: &[u8]) -> Result<(Record, &str), String> {
        if value.len() > self.longest() {
            return Err(TOO_LARGE.to_owned());
        }
        let text = std::str::from_utf8(value).map_err(|_| "not UTF-8 text".to_owned())?;
        let record = Record::parse_json(text)?;
        if record.payload.as_bytes().len() > self.max_payload {
            return Err(TOO_LARGE.to_owned());
        }
        Ok((record, text))
    }
}

/// `EX` for a session that ends at `expires_at`: whole seconds, rounded up as connect-redis does; 0 when it has ended.
pub(super) fn seconds(expires_at: Millis, now: Millis) -> Millis {
    let left = expires_at.saturating_sub(now).max(0);
    left / 1000 + Millis::from(left % 1000 > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading = Reading { max_payload: 1000, ttl: 90_000 };
    const CLOCK: Millis = 1_000_000;

    fn live(value: &str, pttl: Millis) -> Loaded {
        match READING.lookup(value.as_bytes(), pttl, CLOCK, CLOCK) {
            Lookup::Live(loaded) => loaded,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_end_and_the_last_touch_are_told_by_the_time_to_live() {
        let dated = live(r#"{"cookie":{"originalMaxAge":60000},"n":1}"#, 50_000);
        assert_eq!((dated.expires_at, dated.touched_at), (Some(CLOCK + 50_000), Some(CLOCK - 10_000)));
        let session = live(r#"{"cookie":{"originalMaxAge":null}}"#, 50_000);
        assert_eq!((session.expires_at, session.touched_at), (Some(CLOCK + 50_000), Some(CLOCK - 40_000)));
        let rounded_up = live(r#"{"cookie":{"originalMaxAge":60000}}"#, 60_700);
        assert_eq!(rounded_up.touched_at, Some(CLOCK));
        let forever = live("{}", -1);
        assert_eq!((forever.expires_at, forever.touched_at), (None, None));
        assert!(matches!(READING.lookup(b"{}", 500, CLOCK, CLOCK + 500), Lookup::Absent));
        assert!(matches!(READING.lookup(b"{}", 500, CLOCK, CLOCK + 499), Lookup::Live(_)));
        assert!(matches!(READING.lookup(b"", 500, CLOCK, CLOCK), Lookup::Absent));
    }

    #[test]
    fn what_is_no_session_is_unreadable_and_says_why_without_content() {
        let long = format!("{{\"secret\":\"{}\"}}", "x".repeat(1000));
        let longer = "secret".repeat(10_000);
        for odd in [
            &b"secret"[..],
            b"[\"secret\"]",
            b"{\"secret\":",
            b"\"secret\"",
            b"{\"secret\":\"\xff\"}",
            long.as_bytes(),
            longer.as_bytes(),
        ] {
            let Lookup::Unreadable(why) = READING.lookup(odd, 5000, CLOCK, CLOCK) else {
                panic!("{odd:?} was readable")
            };
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn seconds_are_those_of_connect_redis() {
        for (left, expected) in
            [(1, 1), (999, 1), (1000, 1), (1001, 2), (86_400_000, 86_400), (0, 0), (-1, 0), (-5000, 0)]
        {
            assert_eq!(seconds(CLOCK + left, CLOCK), expected, "{left}");
        }
        assert_eq!(seconds(Millis::MAX, Millis::MIN), Millis::MAX / 1000 + 1);
    }
}
