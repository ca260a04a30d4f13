//! Sessions between JSON and BSON, as the Node driver and `JSON.stringify` would have it.
//!
//! To BSON: `cookie` with undefined as null and `expires` as a Date, whole numbers within 32 bits as Int32, all others as Double.
//! To JSON: what an Express app would see if it stringified what the Node driver gave it. Tests: here.

use super::super::TOO_LARGE;
use super::date;
use crate::session::date::render_iso;
use crate::session::json::{JsStr, Json, Number};
use crate::session::record::{CookieData, Record};
use bson::raw::{RawBsonRef, RawDocument};
use bson::{Bson, Document, RawBson, RawDocumentBuf};
use std::collections::HashMap;
use std::fmt::Write as _;

/// MongoDB itself holds about 180 levels; beyond that it would refuse the write anyway.
const WRITE_DEPTH: usize = 150;
/// What no MongoDB server would ever hand out; it bounds the recursion here.
const READ_DEPTH: usize = 250;

/// The value of the field `session`. `before` is what is stored now: what an update leaves unchanged keeps its BSON type, so that
/// an Express app on the same collection still finds its Dates, ObjectIds and binaries.
pub(super) fn session(record: &Record, stringify: bool, before: Option<&RawBson>) -> Result<RawBson, String> {
    if stringify {
        return Ok(RawBson::String(record.render_json()));
    }
    let Ok(Json::Object(data)) = Json::parse(record.payload.as_str(), WRITE_DEPTH) else {
        return Err("a payload that is no JSON object, or is nested too deep for MongoDB".to_owned());
    };
    let mut out = Document::new();
    out.insert("cookie", cookie(&record.cookie));
    let before = match before {
        Some(RawBson::Document(before)) => members(before),
        _ => HashMap::new(),
    };
    for (key, value) in &data {
        let key = key.to_plain();
        let value = bson_after(value, before.get(&*key).copied(), 2);
        out.insert(key, value);
    }
    // Fails for a key with a NUL in it, which BSON cannot hold.
    let raw = RawDocumentBuf::try_from(&out).map_err(|_| "a key that BSON cannot hold".to_owned())?;
    Ok(RawBson::Document(raw))
}

fn cookie(cookie: &CookieData) -> Document {
    let text = |value: &Option<String>| value.clone().map_or(Bson::Null, Bson::String);
    let flag = |value: Option<bool>| value.map_or(Bson::Null, Bson::Boolean);
    let attributes = &cookie.attributes;
    let mut out = Document::new();
    #[expect(clippy::cast_precision_loss, reason = "JavaScript has it as a double as well")]
    let max_age = cookie
        .original_max_age
        .map_or(Bson::Null, |age| i32::try_from(age).map_or(Bson::Double(age as f64), Bson::Int32));
    out.insert("originalMaxAge", max_age);
    out.insert("partitioned", flag(attributes.partitioned));
    out.insert("priority", text(&attributes.priority));
    out.insert("expires", cookie.expires.map_or(Bson::Null, |at| Bson::DateTime(date(at))));
    out.insert("secure", flag(attributes.secure));
    out.insert("httpOnly", attributes.http_only);
    out.insert("domain", text(&attributes.domain));
    out.insert("path", attributes.path.as_str());
    out.insert("sameSite", text(&attributes.same_site));
    out
}

fn members(object: &RawDocument) -> HashMap<&str, RawBsonRef<'_>> {
    object.iter().flatten().map(|(key, value)| (key.as_str(), value)).collect()
}

/// A value in the place of another one: the other one, wherever both are the same JSON.
fn bson_after(value: &Json, before: Option<RawBsonRef<'_>>, depth: usize) -> Bson {
    let Some(before) = before else { return bson(value) };
    if shows(before, value, depth)
        && let Ok(kept) = Bson::try_from(before)
    {
        return kept;
    }
    let (Json::Object(object), RawBsonRef::Document(before)) = (value, before) else { return bson(value) };
    let before = members(before);
    let mut out = Document::new();
    for (key, value) in object {
        let key = key.to_plain();
        let value = bson_after(value, before.get(&*key).copied(), depth + 1);
        out.insert(key, value);
    }
    Bson::Document(out)
}

fn shows(stored: RawBsonRef<'_>, value: &Json, depth: usize) -> bool {
    let mut text = String::new();
    push_value(&mut text, stored, depth, usize::MAX).is_ok()
        && Json::parse(&text, READ_DEPTH + 1).is_ok_and(|stored| stored == *value)
}

fn bson(value: &Json) -> Bson {
    match value {
        Json::Null => Bson::Null,
        Json::Bool(value) => Bson::Boolean(*value),
        Json::Number(number) => number.as_i32().map_or_else(|| Bson::Double(number.as_f64()), Bson::Int32),
        Json::String(text) => Bson::String(text.to_plain().into_owned()),
        Json::Array(items) => Bson::Array(items.iter().map(bson).collect()),
        Json::Object(object) => {
            let mut out = Document::new();
            for (key, value) in object {
                out.insert(key.to_plain(), bson(value));
            }
            Bson::Document(out)
        }
    }
}

/// The JSON text of a stored object. The error says what is wrong, without content.
pub(super) fn json(object: &RawDocument, longest: usize) -> Result<String, String> {
    let mut out = String::with_capacity(object.as_bytes().len());
    push_object(&mut out, object, 1, longest)?;
    Ok(out)
}

fn push_object(out: &mut String, object: &RawDocument, depth: usize, longest: usize) -> Result<(), String> {
    check(out, depth, longest)?;
    let mut separator = '{';
    for item in object {
        let (key, value) = item.map_err(|_| "broken BSON".to_owned())?;
        // The Node driver makes it JavaScript's undefined, which JSON.stringify leaves out.
        if matches!(value, RawBsonRef::Undefined) {
            continue;
        }
        out.push(separator);
        separator = ',';
        push_string(out, key.as_str());
        out.push(':');
        push_value(out, value, depth, longest)?;
    }
    out.push_str(if separator == '{' { "{}" } else { "}" });
    Ok(())
}

fn push_value(out: &mut String, value: RawBsonRef<'_>, depth: usize, longest: usize) -> Result<(), String> {
    match value {
        RawBsonRef::Document(object) => push_object(out, object, depth + 1, longest)?,
        RawBsonRef::Array(items) => {
            check(out, depth + 1, longest)?;
            let mut separator = '[';
            for item in items {
                out.push(separator);
                separator = ',';
                push_value(out, item.map_err(|_| "broken BSON".to_owned())?, depth + 1, longest)?;
            }
            out.push_str(if separator == '[' { "[]" } else { "]" });
        }
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => push_string(out, text),
        RawBsonRef::Double(value) => match Number::from_f64(value) {
            Some(number) => out.push_str(number.as_text()),
            None => out.push_str("null"),
        },
        RawBsonRef::Int32(value) => push_shown(out, value),
        RawBsonRef::Int64(value) => push_shown(out, value),
        RawBsonRef::Boolean(value) => push_shown(out, value),
        RawBsonRef::DateTime(at) => push_string(out, &render_iso(at.timestamp_millis())),
        RawBsonRef::ObjectId(id) => push_string(out, &id.to_hex()),
        RawBsonRef::Null | RawBsonRef::Undefined => out.push_str("null"),
        other => push_exotic(out, other),
    }
    Ok(())
}

/// Types that hardly anybody keeps in a session, as the Node driver's classes print themselves.
fn push_exotic(out: &mut String, value: RawBsonRef<'_>) {
    match value {
        RawBsonRef::Binary(binary) => {
            let binary = binary.to_binary();
            match binary.to_uuid() {
                Ok(uuid) => push_string(out, &uuid.to_string()),
                Err(_) => push_string(out, &base64(&binary.bytes)),
            }
        }
        RawBsonRef::Decimal128(value) => push_tagged(out, "$numberDecimal", &value.to_string()),
        RawBsonRef::Timestamp(at) => {
            let both = (u64::from(at.time) << 32) | u64::from(at.increment);
            push_tagged(out, "$timestamp", &both.to_string());
        }
        RawBsonRef::JavaScriptCode(code) => push_tagged(out, "code", code),
        RawBsonRef::JavaScriptCodeWithScope(scoped) => push_tagged(out, "code", scoped.code),
        // A RegExp, MinKey, MaxKey, a pointer: JavaScript prints them as an object without members.
        _ => out.push_str("{}"),
    }
}

fn check(out: &str, depth: usize, longest: usize) -> Result<(), String> {
    if depth > READ_DEPTH {
        return Err("nested too deep".to_owned());
    }
    if out.len() > longest {
        return Err(TOO_LARGE.to_owned());
    }
    Ok(())
}

fn push_tagged(out: &mut String, tag: &str, text: &str) {
    out.push('{');
    push_string(out, tag);
    out.push(':');
    push_string(out, text);
    out.push('}');
}

fn push_string(out: &mut String, text: &str) {
    Json::String(JsStr::from_plain(text)).render(out);
}

fn push_shown(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a String does not fail.
    write!(out, "{value}").ok();
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::raw::{RawArrayBuf, cstr};
    use bson::{DateTime, oid::ObjectId};

    fn text_of(value: impl Into<Bson>) -> String {
        let document = RawDocumentBuf::try_from(&bson::doc! { "v": value.into() }).unwrap();
        let text = json(&document, 10_000).unwrap();
        text.strip_prefix("{\"v\":").unwrap().strip_suffix('}').unwrap().to_owned()
    }

    /// Every expectation was printed by `JSON.stringify` of what the Node driver 6 read.
    #[test]
    fn every_type_prints_as_in_node() {
        assert_eq!(text_of(1e300), "1e+300");
        assert_eq!(text_of(1e-7), "1e-7");
        assert_eq!(text_of(f64::NAN), "null");
        assert_eq!(text_of(-0.0), "0");
        assert_eq!(text_of(3), "3");
        assert_eq!(text_of(7_i64), "7");
        assert_eq!(text_of(9_007_199_254_740_993_i64), "9007199254740993");
        assert_eq!(text_of(Bson::Decimal128("1.50".parse().unwrap())), "{\"$numberDecimal\":\"1.50\"}");
        assert_eq!(
            text_of(Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 })),
            "{\"$timestamp\":\"4294967298\"}"
        );
        let binary = |subtype, bytes: &[u8]| Bson::Binary(bson::Binary { subtype, bytes: bytes.to_vec() });
        assert_eq!(text_of(binary(bson::spec::BinarySubtype::Generic, b"hi")), "\"aGk=\"");
        let uuid = bson::Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(text_of(uuid), "\"00112233-4455-6677-8899-aabbccddeeff\"");
        assert_eq!(text_of(Bson::MinKey), "{}");
        assert_eq!(text_of(Bson::JavaScriptCode("x".into())), "{\"code\":\"x\"}");
        let id = ObjectId::parse_str("0123456789abcdef01234567").unwrap();
        assert_eq!(text_of(id), "\"0123456789abcdef01234567\"");
        assert_eq!(text_of(DateTime::from_millis(0)), "\"1970-01-01T00:00:00.000Z\"");
        assert_eq!(text_of(Bson::Symbol("s\n\"".into())), "\"s\\n\\\"\"");
        assert_eq!(text_of(Bson::Array(vec![Bson::Undefined, Bson::Null])), "[null,null]");
        let members = bson::doc! { "u": Bson::Undefined, "a": {}, "b": [], "c": [{ "d": true }] };
        assert_eq!(text_of(members), "{\"a\":{},\"b\":[],\"c\":[{\"d\":true}]}");
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let mut deep = RawArrayBuf::new();
        for _ in 0..300 {
            let mut outer = RawArrayBuf::new();
            outer.push(deep);
            deep = outer;
        }
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("v"), deep);
        assert_eq!(json(&document, 10_000), Err("nested too deep".to_owned()));

        let long =
            RawDocumentBuf::try_from(&bson::doc! { "a": vec![bson::doc! {"b": "x".repeat(100)}; 100] });
        assert_eq!(json(&long.unwrap(), 5000), Err(TOO_LARGE.to_owned()));
    }

    /// What connect-mongo 6 with `stringify: false` left in the collection.
    #[test]
    fn an_object_is_stored_as_connect_mongo_stores_it() {
        let text = r#"{"cookie":{"originalMaxAge":60000,"expires":"2026-11-20T16:37:02.938Z","httpOnly":true,"path":"/"},
            "user":{"id":5,"big":5000000000,"f":1.5,"neg":-0.0,"nested":[1,{"x":null}],"half":"\ud800"}}"#;
        let mut record = Record::parse_json(text).unwrap();
        let mut attributes = (*record.cookie.attributes).clone();
        (attributes.http_only, attributes.path) = (true, "/".to_owned());
        record.cookie.attributes = attributes.into();
        let RawBson::Document(raw) = session(&record, false, None).unwrap() else { panic!("no document") };
        let expected = bson::doc! {
            "cookie": {
                "originalMaxAge": 60000, "partitioned": null, "priority": null,
                "expires": DateTime::from_millis(1_795_192_622_938), "secure": null, "httpOnly": true,
                "domain": null, "path": "/", "sameSite": null,
            },
            "user": {
                "id": 5, "big": 5_000_000_000.0, "f": 1.5, "neg": 0, "nested": [1, { "x": null }],
                "half": "\u{fffd}",
            },
        };
        assert_eq!(raw, RawDocumentBuf::try_from(&expected).unwrap());
        let back = Record::parse_json(&json(&raw, 10_000).unwrap()).unwrap();
        assert_eq!(back.cookie.expires, record.cookie.expires);
    }

    #[test]
    fn what_bson_cannot_hold_is_refused() {
        let nul = Record::parse_json(r#"{"a\u0000b":1}"#).unwrap();
        assert!(session(&nul, false, None).is_err());
        assert!(session(&nul, true, None).is_ok());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(session(&Record::parse_json(&deep).unwrap(), false, None).is_err());
    }
}
