//! The express session record: the app's data, and the `cookie` object that express-session keeps beside it.
//!
//! Reading takes the text apart without building a tree; writing puts it together as `JSON.stringify` would. Tests: below.

use super::Millis;
use super::date::{parse_iso, render_iso};
use super::json::{DOCUMENT_DEPTH, JsStr, Json, Member, Object, compact_ascii, scan_object};
use bytes::Bytes;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// One session as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What express-session keeps in the key `cookie`.
    pub cookie: CookieData,
    /// The app's data: everything but `cookie`.
    pub payload: Payload,
    /// When the session began, if the store knows it (`absolute_timeout`).
    pub created_at: Option<Millis>,
    /// The stored document had no `cookie` object: the configured one counts.
    pub cookie_missing: bool,
}

/// The part of express-session's `cookie` object that belongs to each session, and the attributes that the config gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct CookieData {
    /// `originalMaxAge`, milliseconds; `None` for a browser-session cookie.
    pub original_max_age: Option<Millis>,
    /// `expires`; `None` for a browser-session cookie.
    pub expires: Option<Millis>,
    /// What a save writes beside them. Reading leaves the default here: attributes always come from the current config (contract §1).
    pub attributes: Arc<CookieAttributes>,
}

/// The cookie attributes as express-session stores them. `None` is JavaScript's `undefined`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieAttributes {
    /// `partitioned`
    pub partitioned: Option<bool>,
    /// `priority`: `low`, `medium` or `high`
    pub priority: Option<String>,
    /// `secure`, with `auto` already decided
    pub secure: Option<bool>,
    /// `httpOnly`
    pub http_only: bool,
    /// `domain`
    pub domain: Option<String>,
    /// `path`
    pub path: String,
    /// `sameSite` as stored: `lax`, `strict`, `none`
    pub same_site: Option<String>,
}

/// The app's data as compact JSON text: one object, valid UTF-8, no white space outside strings, no duplicate keys, no key `cookie`.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Record {
    /// Reads express-session's JSON. A `cookie` that is no object counts as missing; of duplicate keys the last counts.
    ///
    /// # Errors
    /// What is wrong with the text, without any of its content.
    pub fn parse_json(text: &str) -> Result<Self, String> {
        let mut members = Vec::with_capacity(16);
        let shape = scan_object(text, DOCUMENT_DEPTH, |member| members.push(member))
            .map_err(|error| format!("not a session's JSON: {error}"))?;
        if !shape.compact || !keys_are_plain_and_distinct(&members) {
            let Ok(Json::Object(object)) = Json::parse(text, DOCUMENT_DEPTH) else {
                return Err("not a session's JSON".to_owned());
            };
            return Ok(Self::from_object(object));
        }
        let cookie = members.iter().position(|member| member.key.as_raw() == "cookie");
        let Some(cookie) = cookie else {
            return Ok(Self::new(None, Payload(Bytes::copy_from_slice(text.trim().as_bytes()))));
        };
        let parsed = Json::parse(&text[members[cookie].value.clone()], DOCUMENT_DEPTH).ok();
        Ok(Self::new(parsed, without_member(text, &members, cookie)))
    }

    /// Makes a record of a parsed document.
    pub fn from_object(mut object: Object) -> Self {
        let cookie = object.remove("cookie");
        Self::new(cookie, Payload::from_json(&Json::Object(object)))
    }

    fn new(cookie: Option<Json>, payload: Payload) -> Self {
        let cookie = cookie.as_ref().and_then(Json::as_object);
        Self {
            cookie: CookieData {
                original_max_age: cookie.and_then(|cookie| span(cookie.get("originalMaxAge")?)),
                expires: cookie.and_then(|cookie| date(cookie.get("expires")?)),
                attributes: Arc::default(),
            },
            payload,
            created_at: None,
            cookie_missing: cookie.is_none(),
        }
    }

    /// Express-session's JSON of this record, as `JSON.stringify` writes it: `cookie` first, but after integer-like keys.
    pub fn render_json(&self) -> String {
        let payload = self.payload.as_str();
        let mut cookie = String::with_capacity(200 + payload.len());
        if payload.as_bytes().get(2).is_some_and(u8::is_ascii_digit) {
            self.cookie.render(&mut cookie);
            let mut object = Object::new();
            object.insert(JsStr::from_plain("cookie"), parse_trusted(&cookie));
            if let Json::Object(data) = self.payload.to_json() {
                for (key, value) in data {
                    object.insert(key, value);
                }
            }
            return Json::Object(object).to_text();
        }
        cookie.push_str("{\"cookie\":");
        self.cookie.render(&mut cookie);
        if payload.len() > 2 {
            cookie.push(',');
        }
        cookie.push_str(&payload[1..]);
        cookie
    }
}

impl CookieData {
    /// The `cookie` object in express-session's order of keys; undefined ones are left out, as `JSON.stringify` does.
    fn render(&self, out: &mut String) {
        let attributes = &self.attributes;
        out.push_str("{\"originalMaxAge\":");
        // Writing to a String cannot fail.
        let _ = match self.original_max_age {
            Some(age) => write!(out, "{age}"),
            None => write!(out, "null"),
        };
        if let Some(partitioned) = attributes.partitioned {
            let _ = write!(out, ",\"partitioned\":{partitioned}");
        }
        push_text(out, "priority", attributes.priority.as_deref());
        match self.expires {
            Some(expires) => push_text(out, "expires", Some(&render_iso(expires))),
            None => out.push_str(",\"expires\":null"),
        }
        if let Some(secure) = attributes.secure {
            let _ = write!(out, ",\"secure\":{secure}");
        }
        let _ = write!(out, ",\"httpOnly\":{}", attributes.http_only);
        push_text(out, "domain", attributes.domain.as_deref());
        push_text(out, "path", Some(&attributes.path));
        push_text(out, "sameSite", attributes.same_site.as_deref());
        out.push('}');
    }
}

impl Payload {
    /// The data of a new session.
    pub fn empty() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    /// Text that this program rendered itself, read back from a store whose integrity is checked there.
    pub fn trusted(text: Bytes) -> Self {
        Self(text)
    }

    /// The text of a JSON object. Anything but an object is taken for an empty one.
    pub fn from_json(data: &Json) -> Self {
        match data {
            Json::Object(_) => Self(Bytes::from(data.to_text())),
            _ => Self::empty(),
        }
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("{}")
    }

    /// The data as a tree.
    pub fn to_json(&self) -> Json {
        parse_trusted(self.as_str())
    }

    /// The same JSON in visible ASCII only, `\uXXXX` for the rest; no copy when it is that already.
    pub fn to_ascii(&self) -> Bytes {
        if self.0.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return self.0.clone();
        }
        let mut out = Vec::with_capacity(self.0.len() * 2);
        compact_ascii(self.as_str(), &mut out);
        Bytes::from(out)
    }

    /// Without these top-level keys; the same value when it has none of them.
    pub fn without_keys(&self, keys: &[&str]) -> Self {
        if !keys.iter().any(|key| self.as_str().contains(key)) {
            return self.clone();
        }
        let Json::Object(mut object) = self.to_json() else { return self.clone() };
        for key in keys {
            object.remove(key);
        }
        Self::from_json(&Json::Object(object))
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// The text of one JSON object without one of its members.
fn without_member(text: &str, members: &[Member<'_>], skip: usize) -> Payload {
    let mut out = Vec::with_capacity(text.len() + 1 - members[skip].value.len());
    out.push(b'{');
    for (index, member) in members.iter().enumerate() {
        if index != skip {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(&text.as_bytes()[member.start..member.value.end]);
        }
    }
    out.push(b'}');
    Payload(Bytes::from(out))
}

fn keys_are_plain_and_distinct(members: &[Member<'_>]) -> bool {
    if members.iter().any(|member| member.key.as_raw().contains('\\')) {
        return false;
    }
    if members.len() <= 24 {
        let keys = |index: usize| members[index].key.as_raw();
        return (1..members.len()).all(|a| (0..a).all(|b| keys(a) != keys(b)));
    }
    let mut seen = HashSet::with_capacity(members.len());
    members.iter().all(|member| seen.insert(member.key.as_raw()))
}

/// Text that was validated or rendered before.
fn parse_trusted(text: &str) -> Json {
    Json::parse(text, DOCUMENT_DEPTH + 1).unwrap_or_else(|_| Json::Object(Object::new()))
}

/// `originalMaxAge`: milliseconds; JavaScript's `Date` drops the fraction.
fn span(value: &Json) -> Option<Millis> {
    let Json::Number(number) = value else { return None };
    let value = number.as_f64();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked, the fraction is dropped on purpose"
    )]
    (value.abs() <= 8.64e15).then_some(value as Millis)
}

/// `expires`: an ISO string.
fn date(value: &Json) -> Option<Millis> {
    let Json::String(text) = value else { return None };
    parse_iso(&text.to_plain())
}

fn push_text(out: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        let _ = write!(out, ",\"{key}\":\"{}\"", JsStr::from_plain(value).as_escaped());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = r#"{"cookie":{"originalMaxAge":1209600000,"expires":"2026-12-04T16:13:40.123Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"user":{"id":7},"n":1.50}"#;

    #[test]
    fn a_stored_session_is_taken_apart() {
        let record = Record::parse_json(STORED).unwrap();
        assert_eq!(record.cookie.original_max_age, Some(1_209_600_000));
        assert_eq!(record.cookie.expires, parse_iso("2026-12-04T16:13:40.123Z"));
        assert_eq!(record.payload.as_str(), r#"{"user":{"id":7},"n":1.50}"#);
        assert!(!record.cookie_missing);
    }

    #[test]
    fn every_shape_of_document_has_an_answer() {
        for (text, payload, missing) in [
            ("{}", "{}", true),
            (r#" {"a" : 1 } "#, r#"{"a":1}"#, true),
            (r#"{"a":1,"cookie":{}}"#, r#"{"a":1}"#, false),
            (r#"{"a":1,"cookie":{},"b":2}"#, r#"{"a":1,"b":2}"#, false),
            (r#"{"coo\u006bie":{},"b":2}"#, r#"{"b":2}"#, false),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#, true),
            (r#"{"cookie":null,"a":1}"#, r#"{"a":1}"#, true),
            (r#"{"cookie":5,"a":1}"#, r#"{"a":1}"#, true),
            (r#"{"a":"\ud800"}"#, r#"{"a":"\ud800"}"#, true),
            (r#"{"a":1e999}"#, r#"{"a":1e999}"#, true),
            (r#"{"__proto__":{"x":1}}"#, r#"{"__proto__":{"x":1}}"#, true),
        ] {
            let record = Record::parse_json(text).unwrap();
            assert_eq!((record.payload.as_str(), record.cookie_missing), (payload, missing), "{text}");
        }
        for broken in ["", "null", "[]", "1", "\"x\"", "{", r#"{"a":}"#, r#"{"a":1}x"#, "{'a':1}"] {
            assert!(Record::parse_json(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn rendering_is_json_stringify_of_a_session() {
        let mut record = Record::parse_json(STORED).unwrap();
        record.cookie.attributes = Arc::new(CookieAttributes {
            secure: Some(false),
            http_only: true,
            path: "/".into(),
            same_site: Some("lax".into()),
            ..CookieAttributes::default()
        });
        assert_eq!(record.render_json(), STORED);
        record.cookie.attributes = Arc::new(CookieAttributes {
            partitioned: Some(true),
            priority: Some("high".into()),
            domain: Some("a\"b".into()),
            path: "/x".into(),
            ..CookieAttributes::default()
        });
        record.cookie.original_max_age = None;
        record.cookie.expires = None;
        record.payload = Payload::trusted(Bytes::from_static(br#"{"2":0,"a":1}"#));
        assert_eq!(
            record.render_json(),
            r#"{"2":0,"cookie":{"originalMaxAge":null,"partitioned":true,"priority":"high","expires":null,"httpOnly":false,"domain":"a\"b","path":"/x"},"a":1}"#
        );
        record.payload = Payload::empty();
        assert!(record.render_json().ends_with(r#""path":"/x"}}"#));
    }

    #[test]
    fn headers_hold_ascii_only() {
        let payload = Payload::from_json(&Json::parse("{\"ä\":\"😀\u{7f}\"}", 4).unwrap());
        assert_eq!(&payload.to_ascii()[..], br#"{"\u00e4":"\ud83d\ude00\u007f"}"#);
        assert_eq!(format!("{payload:?}"), "Payload(14 bytes)");
        let data = Payload::trusted(Bytes::from_static(br#"{"lastModified":1,"a":{"lastModified":2}}"#));
        assert_eq!(data.without_keys(&["lastModified"]).as_str(), r#"{"a":{"lastModified":2}}"#);
    }
}
