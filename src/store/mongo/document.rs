//! connect-mongo's document, both ways: `{_id, createdAt?, expires, lastModified?, session, updatedAt?}`.
//!
//! Reading is tolerant (contract §5): both storage forms, sealed or not, any types; nothing that is stored can crash it. Must not know the
//! driver. Tests: here, and `tests/it/store_conformance.rs` over documents of many shapes.

use super::super::seal::{self, Kruptein, Opened, Seal};
use super::super::{Loaded, Lookup, MongoOptions, TOO_LARGE, Version, VersionKind};
use super::id::Id;
use super::{date, render};
use crate::session::Millis;
use crate::session::record::Record;
use bson::raw::{RawBsonRef, RawDocument};
use bson::{RawBson, RawDocumentBuf};
use std::sync::Arc;

/// What a stored text may hold beyond `limits.session`: the `cookie` object and the spelling of other software.
const COOKIE_ALLOWANCE: usize = 4096;
/// How much longer a text may be sealed: JSON in a JSON string, as hex, and kruptein 3.0 has it as hex once more.
const SEALED_FACTOR: usize = 8;

/// The fields in the order in which connect-mongo's upsert leaves them.
pub(super) fn new(
    options: &MongoOptions,
    id: &Id,
    session: &RawBson,
    created_at: Option<Millis>,
    expires_at: Millis,
    now: Millis,
) -> RawDocumentBuf {
    use bson::raw::cstr;
    let mut out = RawDocumentBuf::new();
    out.append(cstr!("_id"), id.as_str());
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

/// How the documents of this collection are read.
pub(super) struct Reader {
    pub(super) max_payload: usize,
    pub(super) seal: Option<Seal>,
}

/// What a stored document means.
pub(super) enum Reading {
    Known(Lookup),
    /// It takes a key that has to be worked out first.
    Locked(Box<Locked>),
}

/// A document whose session is still closed.
pub(super) struct Locked {
    pub(super) text: seal::Locked,
    pub(super) rest: Rest,
}

/// A live document but for its session.
pub(super) struct Rest {
    expires_at: Option<Millis>,
    touched_at: Option<Millis>,
    created_at: Option<Millis>,
    version: RawBson,
    max_payload: usize,
}

impl Reader {
    /// What a stored document means to somebody who asks at `now`.
    pub(super) fn read(&self, found: &RawDocument, now: Millis) -> Reading {
        self.try_read(found, now).unwrap_or_else(|why| Reading::Known(Lookup::Unreadable(why)))
    }

    pub(super) fn kruptein(&self) -> Option<&Arc<Kruptein>> {
        self.seal.as_ref().and_then(Seal::kruptein)
    }

    fn try_read(&self, found: &RawDocument, now: Millis) -> Result<Reading, String> {
        let fields = Fields::take(found)?;
        let expires_at = match fields.expires {
            None => None,
            Some(RawBsonRef::DateTime(at)) if at.timestamp_millis() > now => Some(at.timestamp_millis()),
            // connect-mongo's query finds neither the expired nor what is no Date.
            Some(_) => return Ok(Reading::Known(Lookup::Absent)),
        };
        let max_payload = self.max_payload;
        let rest = |version| Rest {
            expires_at,
            touched_at: fields.last_modified,
            created_at: fields.created_at,
            version,
            max_payload,
        };
        let longest = max_payload.saturating_add(COOKIE_ALLOWANCE);
        let lookup = match fields.session {
            Some(RawBsonRef::String(stored)) => {
                let version = || RawBson::String(stored.to_owned());
                match self.open(stored, longest)? {
                    None => rest(version()).parse(stored),
                    Some(Opened::Text(plain)) => rest(version()).with(Ok(plain)),
                    Some(Opened::Locked(text)) => {
                        return Ok(Reading::Locked(Box::new(Locked { text, rest: rest(version()) })));
                    }
                }
            }
            Some(RawBsonRef::Document(object)) => {
                rest(RawBson::Document(object.to_owned())).parse(&render::json(object, longest)?)
            }
            Some(other) => return Err(format!("session is a {:?}", other.element_type())),
            None => return Err("no session field".to_owned()),
        };
        Ok(Reading::Known(lookup))
    }

    /// A sealed text opened; `None` for one that is plain JSON. Those are read in a collection with `crypto` as well: it may have been
    /// taken over from an app that did not seal.
    fn open(&self, stored: &str, longest: usize) -> Result<Option<Opened>, String> {
        let is_plain = stored.trim_start().starts_with('{');
        match &self.seal {
            Some(seal) if !is_plain => {
                if stored.len() > longest.saturating_mul(SEALED_FACTOR) {
                    return Err(TOO_LARGE.to_owned());
                }
                seal.open(stored).map(Some)
            }
            None if !is_plain && stored.len() <= longest.saturating_mul(SEALED_FACTOR) => {
                match seal::looks_sealed(stored) {
                    Some(why) => Err(why.to_owned()),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}

impl Rest {
    /// The session, now that its text is open.
    pub(super) fn with(self, plain: Result<String, String>) -> Lookup {
        match plain {
            Ok(plain) => self.parse(&plain),
            Err(why) => Lookup::Unreadable(why),
        }
    }

    fn parse(self, text: &str) -> Lookup {
        if text.len() > self.max_payload.saturating_add(COOKIE_ALLOWANCE) {
            return Lookup::Unreadable(TOO_LARGE.to_owned());
        }
        let mut record = match Record::parse_json(text) {
            Ok(record) => record,
            Err(why) => return Lookup::Unreadable(why),
        };
        if record.payload.as_bytes().len() > self.max_payload {
            return Lookup::Unreadable(TOO_LARGE.to_owned());
        }
        record.created_at = self.created_at;
        Lookup::Live(Loaded {
            record,
            expires_at: self.expires_at,
            touched_at: self.touched_at,
            version: Version(VersionKind::Mongo(Arc::new(self.version))),
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::sid::Sid;
    use bson::{Bson, DateTime, Document, doc};

    const NOW: Millis = 1_000_000;

    const READER: Reader = Reader { max_payload: 1000, seal: None };

    fn lookup(document: &Document) -> Lookup {
        match READER.read(&RawDocumentBuf::try_from(document).unwrap(), NOW) {
            Reading::Known(lookup) => lookup,
            Reading::Locked(_) => panic!("locked without a seal"),
        }
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
            transform_id: None,
            crypto: None,
        }
    }

    #[test]
    fn the_fields_stand_in_the_order_of_connect_mongo() {
        let sid = Id::of(&Sid::from_text("s").unwrap(), None);
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
                    let _ = READER.read(&raw, NOW);
                }
            }
        }
    }
}
