//! connect-mongo's document, both ways: `{_id, createdAt?, expires, lastModified?, session, updatedAt?}`.
//!
//! Reading is tolerant (contract §5): both storage forms, any types; nothing that is stored can crash it. Must not know the
//! driver. Tests: here, and `tests/it/store_conformance.rs` over documents of many shapes.

use super::super::{Loaded, Lookup, MongoOptions, TOO_LARGE, Version, VersionKind};
use super::{date, render};
use crate::session::Millis;
use crate::session::record::Record;
use crate::session::sid::Sid;
use bson::raw::{RawBsonRef, RawDocument};
use bson::{RawBson, RawDocumentBuf};
use std::sync::Arc;

/// What a stored text may hold beyond `limits.session`: the `cookie` object and the spelling of other software.
const COOKIE_ALLOWANCE: usize = 4096;

/// The fields in the order in which connect-mongo's upsert leaves them.
pub(super) fn new(
    options: &MongoOptions,
    sid: &Sid,
    session: &RawBson,
    created_at: Option<Millis>,
    expires_at: Millis,
    now: Millis,
) -> RawDocumentBuf {
    use bson::raw::cstr;
    let mut out = RawDocumentBuf::new();
    out.append(cstr!("_id"), sid.as_str());
    if options.timestamps {
        out.append(cstr!("createdAt"), date(created_at.unwrap_or(now)));
    }
    out.append(cstr!("expires"), date(expires_at));
    if options.touch_after > 0 {
        out.append(cstr!("lastModified"), date(now));
    }
    out.append(cstr!("session"), session.as_raw_bson_ref());
    if options.timestamps {
        out.append(cstr!("updatedAt"), date(now));
    }
    out
}

/// Is this the document that a `create` of ours wrote?
pub(super) fn holds(found: &RawDocument, session: &RawBson, expires_at: Millis) -> bool {
    matches!(found.get("session"), Ok(Some(stored)) if stored == session.as_raw_bson_ref())
        && matches!(found.get("expires"), Ok(Some(RawBsonRef::DateTime(at))) if at == date(expires_at))
}

/// What a stored document means to somebody who asks at `now`.
pub(super) fn parse(found: &RawDocument, now: Millis, max_payload: usize) -> Lookup {
    let fields = match Fields::take(found) {
        Ok(fields) => fields,
        Err(why) => return Lookup::Unreadable(why),
    };
    let expires_at = match fields.expires {
        None => None,
        Some(RawBsonRef::DateTime(at)) if at.timestamp_millis() > now => Some(at.timestamp_millis()),
        // connect-mongo's query finds neither the expired nor what is no Date.
        Some(_) => return Lookup::Absent,
    };
    let (mut record, version) = match session(fields.session, max_payload) {
        Ok(parsed) => parsed,
        Err(why) => return Lookup::Unreadable(why),
    };
    record.created_at = fields.created_at;
    Lookup::Live(Loaded {
        record,
        expires_at,
        touched_at: fields.last_modified,
        version: Version(VersionKind::Mongo(Arc::new(version))),
    })
}

#[derive(Default)]
struct Fields<'a> {
    expires: Option<RawBsonRef<'a>>,
    session: Option<RawBsonRef<'a>>,
    last_modified: Option<Millis>,
    created_at: Option<Millis>,
}

impl<'a> Fields<'a> {
    fn take(found: &'a RawDocument) -> Result<Self, String> {
        let mut fields = Self::default();
        for item in found {
            let (key, value) = item.map_err(|_| "broken BSON".to_owned())?;
            let moment = value.as_datetime().map(bson::DateTime::timestamp_millis);
            match key.as_str() {
                "expires" => fields.expires = Some(value),
                "session" => fields.session = Some(value),
                "lastModified" => fields.last_modified = moment,
                "createdAt" => fields.created_at = moment,
                _ => {}
            }
        }
        Ok(fields)
    }
}

fn session(stored: Option<RawBsonRef<'_>>, max_payload: usize) -> Result<(Record, RawBson), String> {
    let longest = max_payload.saturating_add(COOKIE_ALLOWANCE);
    let (record, version) = match stored {
        Some(RawBsonRef::String(text)) if text.len() > longest => return Err(TOO_LARGE.to_owned()),
        Some(RawBsonRef::String(text)) => (Record::parse_json(text)?, RawBson::String(text.to_owned())),
        Some(RawBsonRef::Document(object)) => {
            let text = render::json(object, longest)?;
            (Record::parse_json(&text)?, RawBson::Document(object.to_owned()))
        }
        Some(other) => return Err(format!("session is a {:?}", other.element_type())),
        None => return Err("no session field".to_owned()),
    };
    if record.payload.as_bytes().len() > max_payload {
        return Err(TOO_LARGE.to_owned());
    }
    Ok((record, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, DateTime, Document, doc};

    const NOW: Millis = 1_000_000;

    fn lookup(document: &Document) -> Lookup {
        parse(&RawDocumentBuf::try_from(document).unwrap(), NOW, 1000)
    }

    fn options() -> MongoOptions {
        MongoOptions {
            url: String::new(),
            database: None,
            collection: "sessions".to_owned(),
            stringify: true,
            timestamps: true,
            touch_after: 1,
            auto_remove: super::super::super::AutoRemove::Disabled,
            write_concern: None,
        }
    }

    #[test]
    fn the_fields_stand_in_the_order_of_connect_mongo() {
        let sid = Sid::from_text("s").unwrap();
        let session = RawBson::String("{}".to_owned());
        let keys = |options: &MongoOptions| -> Vec<String> {
            let raw = new(options, &sid, &session, None, 5, 4);
            assert!(holds(&raw, &session, 5) && !holds(&raw, &session, 6));
            raw.iter().map(|item| item.unwrap().0.as_str().to_owned()).collect()
        };
        let full = options();
        assert_eq!(keys(&full), ["_id", "createdAt", "expires", "lastModified", "session", "updatedAt"]);
        assert_eq!(
            keys(&MongoOptions { timestamps: false, touch_after: 0, ..full }),
            ["_id", "expires", "session"]
        );
    }

    #[test]
    fn expiry_is_read_as_connect_mongo_queries_it() {
        let at = |expires: Bson| doc! { "_id": "s", "expires": expires, "session": "{}" };
        let later = Bson::DateTime(DateTime::from_millis(NOW + 1));
        assert!(matches!(lookup(&at(later)), Lookup::Live(loaded) if loaded.expires_at == Some(NOW + 1)));
        assert!(matches!(lookup(&at(Bson::DateTime(DateTime::from_millis(NOW)))), Lookup::Absent));
        for odd in [Bson::Null, Bson::Int64(NOW * 2), Bson::String("2099-01-01".into()), Bson::Array(vec![])]
        {
            assert!(matches!(lookup(&at(odd.clone())), Lookup::Absent), "{odd:?}");
        }
        let forever = doc! { "_id": "s", "session": "{}" };
        assert!(matches!(lookup(&forever), Lookup::Live(loaded) if loaded.expires_at.is_none()));
    }

    #[test]
    fn what_is_no_session_is_unreadable_and_says_why_without_content() {
        let odd: Vec<Bson> = vec![
            Bson::Null,
            5.into(),
            true.into(),
            Bson::Array(vec!["secret".into()]),
            Bson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes: b"secret".to_vec(),
            }),
            "".into(),
            "secret".into(),
            "[\"secret\"]".into(),
            "{\"secret\":".into(),
            "\"secret\"".into(),
            format!("{{\"secret\":\"{}\"}}", "x".repeat(1000)).into(),
            doc! { "secret": "x".repeat(1000) }.into(),
            doc! { "secret": "x".repeat(100_000) }.into(),
        ];
        for session in odd {
            let Lookup::Unreadable(why) = lookup(&doc! { "_id": "s", "session": &session }) else {
                panic!("{session:?} was readable")
            };
            assert!(!why.contains("secret"), "{why}");
        }
        assert!(matches!(lookup(&doc! { "_id": "s" }), Lookup::Unreadable(_)));
    }

    #[test]
    fn broken_bytes_never_crash() {
        let good = RawDocumentBuf::try_from(&doc! { "_id": "s", "session": { "a": [1, "b"] } }).unwrap();
        let good = good.into_bytes();
        for at in 4..good.len() - 1 {
            for byte in [0, 1, 2, 3, 4, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                if let Ok(raw) = RawDocumentBuf::from_bytes(bad) {
                    // Any answer will do.
                    let _ = parse(&raw, NOW, 1000);
                }
            }
        }
    }
}
