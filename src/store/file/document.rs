//! session-file-store's file, both ways: `JSON.stringify` of the session with `__lastAccess` among its data.
//!
//! Reading is tolerant (contract §5). Writing puts `__lastAccess` where session-file-store leaves it: last in a new session; later,
//! as a property of the session like any other, where it stood, with new data behind it. Must not know the disk. Tests: here.

use super::super::{Loaded, Lookup, TOO_LARGE, Version, VersionKind};
use crate::session::Millis;
use crate::session::date::render_iso;
use crate::session::json::{DOCUMENT_DEPTH, JsStr, Json, Member, Number, scan_object};
use crate::session::record::{Payload, Record};
use bytes::Bytes;
use std::collections::HashSet;

/// What a file may hold beyond `limits.session`: the `cookie` object, the key below, the spelling of other software.
pub(super) const ALLOWANCE: usize = 4096;

const LAST_ACCESS: &str = "__lastAccess";

/// A file's content, understood.
pub(super) struct Document {
    record: Record,
    /// Milliseconds, as JavaScript would calculate with them.
    last_access: Option<f64>,
}

impl Document {
    /// The error says what is wrong, without content.
    pub(super) fn parse(text: &str, max_payload: usize) -> Result<Self, String> {
        let mut record = Record::parse_json(text)?;
        let last_access = take_last_access(&mut record.payload);
        if record.payload.as_bytes().len() > max_payload {
            return Err(TOO_LARGE.to_owned());
        }
        Ok(Self { record, last_access })
    }

    /// What a compare-and-swap compares: data and max age. Not the moment of the last access and the cookie's `expires`, which every
    /// touch changes, and not the cookie's attributes, which are each application's own.
    pub(super) fn version(&self) -> Version {
        let payload = self.record.payload.as_str();
        let text = match self.record.cookie.original_max_age {
            Some(age) => format!("{age}{payload}"),
            None => payload.to_owned(),
        };
        Version(VersionKind::Text(text.into()))
    }

    /// When it ends, by session-file-store's rule: the last access and the max age, or `ttl` without one (0 is none in JavaScript).
    /// A session that was never accessed (a file that other software made) never ends there, nor here.
    pub(super) fn ends(&self, ttl: Millis) -> Option<Millis> {
        let age = self.record.cookie.original_max_age.filter(|age| *age != 0).unwrap_or(ttl);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "JavaScript's arithmetic; `as` saturates"
        )]
        self.last_access.map(|at| (at + age as f64) as Millis)
    }

    /// Is it gone for whoever asks at `now`? At the very millisecond of its end it is, as in all stores of ours; session-file-store
    /// serves it for this one millisecond longer.
    pub(super) fn has_ended(&self, ttl: Millis, now: Millis) -> bool {
        self.ends(ttl).is_some_and(|ends| ends <= now)
    }

    /// Would session-file-store still serve it to nobody? Only then may it be reaped.
    pub(super) fn is_reapable(&self, ttl: Millis, now: Millis) -> bool {
        self.ends(ttl).is_some_and(|ends| ends < now)
    }

    pub(super) fn max_age(&self) -> Option<Millis> {
        self.record.cookie.original_max_age
    }

    /// When it was accessed, if that was after `now` and is past: whoever is late at `now` must not set it back. A last access that
    /// is still to come by the real `clock` is a clock that was wrong.
    pub(super) fn access_after(&self, now: Millis, clock: Millis) -> Option<Millis> {
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
        let at = self.last_access.map(|at| at as Millis);
        at.filter(|at| (now + 1..=clock).contains(at))
    }

    /// What it means to somebody who asks at `now`.
    pub(super) fn into_lookup(self, ttl: Millis, now: Millis) -> Lookup {
        let (expires_at, version) = (self.ends(ttl), self.version());
        if expires_at.is_some_and(|ends| ends <= now) {
            return Lookup::Absent;
        }
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
        let touched_at = self.last_access.map(|at| at as Millis);
        // A last access that is still to come is a clock that was wrong, and nothing to throttle touches by.
        let touched_at = touched_at.filter(|at| *at <= now);
        Lookup::Live(Loaded { record: self.record, expires_at, touched_at, version })
    }
}

/// The text of a session that is written at `now`; `before` is what is stored until then.
pub(super) fn render(record: &Record, before: Option<&str>, now: Millis) -> String {
    let mut record = record.clone();
    take_last_access(&mut record.payload);
    let mut text = record.render_json();
    let place = before.and_then(|before| place(&text, before));
    match place {
        Some(at) => text.insert_str(at, &format!("\"{LAST_ACCESS}\":{now},")),
        None => {
            text.pop();
            // A rendered session is never empty: it has its cookie.
            text.push_str(&format!(",\"{LAST_ACCESS}\":{now}}}"));
        }
    }
    text
}

/// What a touch writes: `before` with another `__lastAccess` and another `expires` in its cookie, all else as it was.
pub(super) fn render_touched(
    before: &str,
    max_age: Option<Millis>,
    expires_at: Millis,
    now: Millis,
) -> Result<String, String> {
    let Ok(Json::Object(mut object)) = Json::parse(before, DOCUMENT_DEPTH) else {
        return Err("not a session's JSON".to_owned());
    };
    let cookie = object.iter_mut().find(|(key, _)| key.as_escaped() == "cookie");
    if let Some((_, Json::Object(cookie))) = cookie {
        // express-session's `resetMaxAge`: without a max age there is no `expires` either.
        let expires = max_age.map_or(Json::Null, |_| Json::string(&render_iso(expires_at)));
        cookie.insert(JsStr::from_plain("expires"), expires);
    }
    object.insert(JsStr::from_plain(LAST_ACCESS), Json::Number(Number::from(now)));
    Ok(Json::Object(object).to_text())
}

/// Takes the key out of the data and gives its value: a number, `null` as the 0 that JavaScript takes it for, else nothing.
fn take_last_access(payload: &mut Payload) -> Option<f64> {
    let text = payload.as_str();
    // The keys of a payload have one spelling.
    if !text.contains(LAST_ACCESS) {
        return None;
    }
    let (members, at) = members_until(text, |member| member.key.is(LAST_ACCESS));
    let member = members.get(at)?;
    let value = match &text[member.value.clone()] {
        "null" => Some(0.0),
        number => number.parse().ok(),
    };
    let rest = match (members.get(at + 1), at.checked_sub(1)) {
        (Some(next), _) => [&text[..member.start], &text[next.start..]].concat(),
        (None, Some(last)) => [&text[..members[last].value.end], "}"].concat(),
        (None, None) => "{}".to_owned(),
    };
    *payload = Payload::trusted(Bytes::from(rest));
    value
}

/// The byte of `text` before which `__lastAccess` belongs: behind the data that stood before it in `before`, and behind JavaScript's
/// array indices, which always come first. `None`: at the end.
fn place(text: &str, before: &str) -> Option<usize> {
    let (old, at) = members_until(before, |member| member.key.is(LAST_ACCESS));
    if at == old.len() {
        return None;
    }
    let stood: HashSet<JsStr> = old[..at].iter().map(|member| member.key.to_js()).collect();
    let is_behind =
        |member: &Member<'_>| !is_index(member.key.as_raw()) && !stood.contains(&member.key.to_js());
    let (new, at) = members_until(text, is_behind);
    new.get(at).map(|member| member.start)
}

/// The members of an object, and how many come before the first that `is_it`.
fn members_until(text: &str, is_it: impl Fn(&Member<'_>) -> bool) -> (Vec<Member<'_>>, usize) {
    let mut members = Vec::with_capacity(16);
    // Only texts that were read or rendered before come here.
    let valid = scan_object(text, DOCUMENT_DEPTH + 1, |member| members.push(member)).is_ok();
    let at = if valid { members.iter().position(is_it) } else { None };
    let at = at.unwrap_or(members.len());
    (members, at)
}

/// One of JavaScript's array indices: 0 to 2^32 - 2, canonically spelt.
fn is_index(key: &str) -> bool {
    let canonical = key == "0" || key.starts_with(|first: char| ('1'..='9').contains(&first));
    canonical
        && key.bytes().all(|byte| byte.is_ascii_digit())
        && key.parse::<u32>().is_ok_and(|index| index != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::CookieAttributes;
    use std::sync::Arc;

    const TTL: Millis = 3_600_000;
    const NOW: Millis = 1_795_191_220_123;
    /// What session-file-store 1.5 and express-session 1.19 wrote: a new session, later one with another field.
    const STORED: &str = r#"{"cookie":{"originalMaxAge":60000,"expires":"2026-11-20T16:14:40.123Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"n":1,"__lastAccess":1795191220123,"later":2}"#;

    fn parse(text: &str) -> Document {
        Document::parse(text, 1000).unwrap()
    }

    fn record(data: &str, max_age: Option<Millis>) -> Record {
        let mut record = Record::parse_json(data).unwrap();
        record.cookie.attributes = Arc::new(CookieAttributes {
            http_only: true,
            path: "/".to_owned(),
            ..CookieAttributes::default()
        });
        record.cookie.original_max_age = max_age;
        record.cookie.expires = max_age.map(|age| NOW + age);
        record
    }

    #[test]
    fn a_file_is_taken_apart() {
        let Lookup::Live(loaded) = parse(STORED).into_lookup(TTL, NOW) else { panic!("not live") };
        assert_eq!(loaded.record.payload.as_str(), r#"{"n":1,"later":2}"#);
        assert_eq!((loaded.expires_at, loaded.touched_at), (Some(NOW + 60_000), Some(NOW)));
        assert_eq!(loaded.record.cookie.original_max_age, Some(60_000));
        for (text, data) in [
            (r#"{"__lastAccess":5}"#, "{}"),
            (r#"{"a":1,"__lastAccess":5}"#, r#"{"a":1}"#),
            (r#"{"__lastAccess":5,"a":{"__lastAccess":6}}"#, r#"{"a":{"__lastAccess":6}}"#),
            (r#"{"__last\u0041ccess":5,"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":"\"__lastAccess\":7"}"#, r#"{"a":"\"__lastAccess\":7"}"#),
            (r#"{ "__lastAccess" : 5, "a" : 1.50 }"#, r#"{"a":1.5}"#),
            (r#"{"__lastAccess":4,"a":1,"__lastAccess":5}"#, r#"{"a":1}"#),
        ] {
            let document = parse(text);
            assert_eq!(document.record.payload.as_str(), data, "{text}");
            let none = text.contains("\\\"");
            assert_eq!(document.last_access, (!none).then_some(5.0), "{text}");
        }
        for broken in ["", "null", "[]", "7", "{", "{\"a\":}"] {
            assert!(Document::parse(broken, 1000).is_err(), "{broken}");
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1000));
        assert!(Document::parse(&large, 1000).is_err_and(|why| why == TOO_LARGE));
    }

    /// Every row was asked of session-file-store's `isExpired`, but for the one millisecond that is said at `has_ended`.
    #[test]
    fn a_session_ends_when_session_file_store_says_so() {
        let at = |cookie: &str, last: &str| format!("{{\"cookie\":{cookie},\"__lastAccess\":{last}}}");
        for (text, ends) in [
            (at("{\"originalMaxAge\":1000}", "5000"), Some(6000)),
            (at("{\"originalMaxAge\":null}", "5000"), Some(5000 + TTL)),
            (at("{\"originalMaxAge\":0}", "5000"), Some(5000 + TTL)),
            (at("{\"originalMaxAge\":-1}", "5000"), Some(4999)),
            (at("null", "5000"), Some(5000 + TTL)),
            (at("{}", "5000.75"), Some(5000 + TTL)),
            (at("{}", "1e300"), Some(Millis::MAX)),
            (at("{}", "null"), Some(TTL)),
            ("{\"cookie\":{\"originalMaxAge\":1000}}".to_owned(), None),
            (at("{}", "{}"), None),
            (at("{}", "\"never\""), None),
        ] {
            assert_eq!(parse(&text).ends(TTL), ends, "{text}");
        }
        let document = parse(&at("{\"originalMaxAge\":1000}", "5000"));
        let seen =
            [5999, 6000, 6001].map(|now| (document.has_ended(TTL, now), document.is_reapable(TTL, now)));
        assert_eq!(seen, [(false, false), (true, false), (true, true)]);
        assert!(matches!(document.into_lookup(TTL, 6000), Lookup::Absent));
        let Lookup::Live(early) = parse(STORED).into_lookup(TTL, NOW - 1) else { panic!("not live") };
        assert_eq!(early.touched_at, None);
    }

    #[test]
    fn a_new_session_has_it_last() {
        let cookie = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}"#;
        for (data, rest) in [
            ("{}", r#","__lastAccess":7}"#),
            (r#"{"n":1}"#, r#","n":1,"__lastAccess":7}"#),
            (r#"{"__lastAccess":3,"n":1}"#, r#","n":1,"__lastAccess":7}"#),
        ] {
            assert_eq!(render(&record(data, None), None, 7), format!("{cookie}{rest}"), "{data}");
        }
        let indices = render(&record(r#"{"2":0,"n":1}"#, None), None, 7);
        assert!(
            indices.starts_with(r#"{"2":0,"cookie":{"#) && indices.ends_with(r#"},"n":1,"__lastAccess":7}"#)
        );
    }

    /// The texts on the right are those of express-session and session-file-store after the same change.
    #[test]
    fn an_update_leaves_it_where_it_stood() {
        for (before, data, after) in [
            (r#""n":1,"__lastAccess":3"#, r#"{"n":2}"#, r#""n":2,"__lastAccess":7"#),
            (r#""n":1,"__lastAccess":3"#, r#"{"n":1,"m":2}"#, r#""n":1,"__lastAccess":7,"m":2"#),
            (r#""n":1,"__lastAccess":3,"m":2"#, r#"{"m":2}"#, r#""__lastAccess":7,"m":2"#),
            (r#""n":1,"__lastAccess":3,"m":2"#, r#"{"n":1}"#, r#""n":1,"__lastAccess":7"#),
            (r#""n":1,"__lastAccess":3,"m":2"#, r#"{"m":2,"n":1}"#, r#""__lastAccess":7,"m":2,"n":1"#),
            (r#""__lastAccess":3"#, r#"{"n":1}"#, r#""__lastAccess":7,"n":1"#),
            (r#""é\n":1,"__lastAccess":3"#, r#"{"é\n":1,"x":1}"#, r#""é\n":1,"__lastAccess":7,"x":1"#),
            (r#""n":1"#, r#"{"n":1,"m":2}"#, r#""n":1,"m":2,"__lastAccess":7"#),
        ] {
            let cookie = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"#;
            let text = render(&record(data, None), Some(&format!("{cookie}{before}}}")), 7);
            assert_eq!(text, format!("{cookie}{after}}}"), "{before} {data}");
            assert_eq!(parse(&text).last_access, Some(7.0));
        }
        let before = r#"{"cookie":{},"n":1,"__lastAccess":3}"#;
        let text = render(&record(r#"{"5":1,"n":1,"05":2}"#, None), Some(before), 7);
        assert!(
            text.starts_with(r#"{"5":1,"cookie":"#) && text.ends_with(r#","n":1,"__lastAccess":7,"05":2}"#),
            "{text}"
        );
    }

    #[test]
    fn a_touch_changes_two_values_in_place() {
        let touched = render_touched(STORED, Some(60_000), NOW + 65_000, NOW + 5000).unwrap();
        let expected =
            STORED.replace("16:14:40.123Z", "16:14:45.123Z").replace("1795191220123", "1795191225123");
        assert_ne!(touched, STORED);
        assert_eq!(touched, expected);
        assert_eq!(parse(&touched).version(), parse(STORED).version());
        for (before, max_age, after) in [
            (
                r#"{"cookie":{"originalMaxAge":null,"expires":null,"path":"/"},"n":1}"#,
                None,
                r#"{"cookie":{"originalMaxAge":null,"expires":null,"path":"/"},"n":1,"__lastAccess":7}"#,
            ),
            (r#"{ "n" : 1.50, "2" : [ ], "__lastAccess":3 }"#, None, r#"{"2":[],"n":1.5,"__lastAccess":7}"#),
            (r#"{"cookie":5,"__lastAccess":3}"#, None, r#"{"cookie":5,"__lastAccess":7}"#),
            (
                r#"{"id":12345678901234567890,"__lastAccess":3}"#,
                None,
                r#"{"id":12345678901234567890,"__lastAccess":7}"#,
            ),
        ] {
            assert_eq!(render_touched(before, max_age, NOW, 7).unwrap(), after);
        }
        assert!(render_touched("[]", None, NOW, 7).is_err());
    }

    #[test]
    fn an_access_counts_as_later_only_if_it_has_been() {
        let of = |last: &str| parse(&format!("{{\"__lastAccess\":{last}}}")).access_after(100, 200);
        assert_eq!(
            ["100", "101", "150.75", "200", "201", "1e300", "null", "\"x\""].map(of),
            [None, Some(101), Some(150), Some(200), None, None, None, None]
        );
        assert_eq!(parse("{}").access_after(100, 200), None);
    }

    #[test]
    fn a_version_is_the_data_and_the_max_age() {
        let version = |text: &str| parse(text).version();
        assert_ne!(version(r#"{"a":1}"#), version(r#"{"a":2}"#));
        let of_age = |age: &str| version(&format!("{{\"cookie\":{{\"originalMaxAge\":{age}}},\"a\":1}}"));
        assert_ne!(of_age("1000"), of_age("2000"));
        assert_eq!(of_age("null"), version(r#"{"a":1,"__lastAccess":3}"#));
    }
}
