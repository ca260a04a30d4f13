//! Documents that the released versions of connect-mongo really wrote (`tests/fixtures/mongodb`, made by
//! `tests/compat/generate-documents.mjs`): plain ones read and written alike, sealed ones opened; `transform_id` beside them.

use super::words::{Time, block_on, live, payload, sid};
use super::{ALL, keep_the_rules, mongodb, options};
use crate::support::mongod;
use base64::Engine;
use bson::{Bson, Document, doc};
use cloakroom::drain::Drain;
use cloakroom::session::Millis;
use cloakroom::session::record::{CookieAttributes, Record};
use cloakroom::store::{
    CryptoOptions, IdHash, KrupteinHash, KrupteinOptions, Lookup, MongoOptions, Store, StoreKind, Swapped,
    TextEncoding, TransformId,
};
use serde_json::Value;
use std::cell::RefCell;
use std::num::NonZeroU32;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// The day after the documents were written: those of browser-session cookies live for two weeks.
const THEN: Millis = 1_795_300_000_000;
const SECRET: &str = "AA11!!aa-golden-seal";

/// One stored document, and how it came about.
struct Golden {
    file: String,
    about: Value,
    document: Document,
}

impl Golden {
    fn name(&self) -> String {
        format!("{} {}", self.file, self.about)
    }

    fn text(&self, key: &str) -> &str {
        self.about[key].as_str().unwrap()
    }

    fn session(&self) -> &str {
        self.document.get_str("session").unwrap()
    }
}

/// Those whose file's name has all of `words`.
fn golden(words: &[&str]) -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mongodb");
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if !words.iter().all(|word| file.contains(word)) {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let mut about: Value = serde_json::from_str(line).unwrap();
            let bytes = about.as_object_mut().unwrap().remove("bson").unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(bytes.as_str().unwrap()).unwrap();
            let document = Document::from_reader(&bytes[..]).unwrap();
            out.push(Golden { file: file.clone(), about, document });
        }
    }
    assert!(!out.is_empty(), "no document of {words:?}");
    out
}

/// The record whose text it was, with the cookie attributes that it had.
fn record(text: &str) -> Record {
    let json: Value = serde_json::from_str(text).unwrap_or_else(|_| {
        // serde_json takes no lone surrogate; the cookie has none.
        serde_json::from_str(&text.replace("\\ud800", "?")).unwrap()
    });
    let cookie = &json["cookie"];
    let word = |key: &str| cookie[key].as_str().map(str::to_owned);
    let mut record = Record::parse_json(text).unwrap();
    record.cookie.attributes = CookieAttributes {
        partitioned: cookie["partitioned"].as_bool(),
        priority: word("priority"),
        secure: cookie["secure"].as_bool(),
        http_only: cookie["httpOnly"].as_bool().unwrap_or_default(),
        domain: word("domain"),
        path: word("path").unwrap(),
        same_site: word("sameSite"),
    }
    .into();
    record
}

fn crypto() -> CryptoOptions {
    CryptoOptions {
        secrets: vec![SECRET.into()],
        salt: b"connect-mongo:webcrypto-default-salt".to_vec(),
        iterations: NonZeroU32::new(310_000).unwrap(),
        encoding: TextEncoding::Base64,
        kruptein: None,
    }
}

/// As `proxy.toml` would have it for this document.
fn crypto_of(golden: &Golden) -> CryptoOptions {
    let mut crypto = crypto();
    if let Some(web) = golden.about["webcrypto"].as_object() {
        crypto.encoding = encoding(web.get("encoding"));
        if let Some(salt) = web.get("salt") {
            crypto.salt = salt.as_str().unwrap().into();
        }
        if let Some(count) = web.get("iterations") {
            crypto.iterations = NonZeroU32::new(count.as_u64().unwrap().try_into().unwrap()).unwrap();
        }
    }
    if let Some(kruptein) = golden.about["kruptein"].as_object() {
        // What the Web Crypto keys are made of makes no difference here, and the test is faster.
        crypto.iterations = NonZeroU32::MIN;
        crypto.kruptein = Some(KrupteinOptions {
            secret: SECRET.into(),
            hashing: match kruptein["hashing"].as_str().unwrap() {
                "sha256" => KrupteinHash::Sha256,
                "sha384" => KrupteinHash::Sha384,
                _ => KrupteinHash::Sha512,
            },
            encoding: encoding(kruptein.get("encodeas")),
        });
    }
    crypto
}

fn encoding(name: Option<&Value>) -> TextEncoding {
    match name.and_then(Value::as_str) {
        Some("hex") => TextEncoding::Hex,
        Some("base64url") => TextEncoding::Base64url,
        _ => TextEncoding::Base64,
    }
}

struct Place {
    store: Store,
    documents: ::mongodb::Collection<Document>,
    drain: Drain,
}

/// A store over an empty collection.
async fn place(collection: &str, change: impl FnOnce(&mut MongoOptions)) -> Place {
    let mut options = mongodb::options(format!("mongodb://{}/sealed", mongod::address()), collection);
    change(&mut options);
    let client = ::mongodb::Client::with_uri_str(&options.url).await.unwrap();
    let documents = client.database("sealed").collection(collection);
    documents.drop().await.unwrap();
    let drain = Drain::new();
    let store = mongodb::open(options, Duration::from_secs(10)).attach(&drain);
    Place { store, documents, drain }
}

/// A store for each set of options that documents need, in turn.
async fn each(
    all: &[Golden],
    name: &str,
    options: impl Fn(&Golden, &mut MongoOptions),
    test: impl AsyncFn(&Place, &Golden),
) {
    let key = |golden: &Golden| {
        let about = &golden.about;
        format!(
            "{}{}{}{}{}",
            about["stringify"],
            about["touchAfter"],
            about["timestamps"],
            about["webcrypto"],
            about["kruptein"]
        )
    };
    let mut done: Vec<(String, Place)> = Vec::new();
    for golden in all {
        let at = match done.iter().position(|(known, _)| *known == key(golden)) {
            Some(at) => at,
            None => {
                let collection = format!("{name}{}", done.len());
                done.push((key(golden), place(&collection, |change| options(golden, change)).await));
                done.len() - 1
            }
        };
        let place = &done[at].1;
        place.documents.delete_many(doc! {}).await.unwrap();
        place.documents.insert_one(&golden.document).await.unwrap();
        test(place, golden).await;
    }
}

/// A lone surrogate in an object is U+FFFD in BSON, as the Node driver writes it.
fn expected(golden: &Golden) -> Record {
    let is_object = matches!(golden.document.get("session"), Some(Bson::Document(_)));
    let text = golden.text("text");
    record(&if is_object { text.replace("\\ud800", "\u{fffd}") } else { text.to_owned() })
}

fn assert_same(found: &Record, golden: &Golden) {
    let expected = expected(golden);
    assert_eq!(found.payload.as_str(), expected.payload.as_str(), "{}", golden.name());
    assert_eq!(found.cookie.original_max_age, expected.cookie.original_max_age, "{}", golden.name());
    assert_eq!(found.cookie.expires, expected.cookie.expires, "{}", golden.name());
    assert!(!found.cookie_missing);
}

fn as_written(golden: &Golden, options: &mut MongoOptions) {
    options.stringify = golden.about["stringify"].as_bool().unwrap();
    options.timestamps = golden.about["timestamps"].as_bool().unwrap();
    options.touch_after = golden.about["touchAfter"].as_i64().unwrap() * 1000;
}

/// Clocks differ, everything else is the same: fields, their order, their types, every nested value.
fn assert_alike(ours: &Document, golden: &Golden) {
    let mut theirs = golden.document.clone();
    let mut ours = ours.clone();
    for document in [&mut ours, &mut theirs] {
        for clock in ["createdAt", "lastModified", "updatedAt"] {
            if let Some(value) = document.get_mut(clock) {
                assert!(matches!(value, Bson::DateTime(_)), "{}", golden.name());
                *value = Bson::Null;
            }
        }
    }
    // Documents are equal whatever their order of keys, so their texts are compared.
    assert_eq!(ours.to_string(), theirs.to_string(), "{}", golden.name());
}

#[test]
fn every_version_of_connect_mongo_and_the_sidecar_write_the_same_documents() {
    let mut all = golden(&["connect-mongo"]);
    all.retain(|golden| ["webcrypto", "kruptein", "secret"].iter().all(|key| golden.about[*key].is_null()));
    assert!(all.len() >= 45, "{}", all.len());
    let versions = ["3.2.0", "4.6.0", "5.1.0", "6.0.0"];
    assert!(versions.iter().all(|version| all.iter().any(|golden| golden.file.ends_with(version))));
    block_on(each(&all, "plain", as_written, async |place, golden| {
        let (sid, Place { store, documents, .. }) = (sid(golden.text("sid")), place);
        let found = live(store.load(&sid, THEN).await);
        assert_same(&found.record, golden);
        let ends = golden.document.get_datetime("expires").unwrap().timestamp_millis();
        assert_eq!(found.expires_at, Some(ends));
        // Saved over theirs, and stored as a new one: 3.2 to 5.1 have no `timestamps`, and set no fields for them.
        let own_timestamps = golden.about["timestamps"] == true && !golden.document.contains_key("createdAt");
        let swapped = store.update(&sid, &found.version, &expected(golden), ends, THEN).await.unwrap();
        assert!(matches!(swapped, Swapped::Done(_)));
        let without = |mut document: Document| {
            if own_timestamps {
                for key in ["createdAt", "updatedAt"] {
                    document.remove(key);
                }
            }
            document
        };
        let stored = documents.find_one(doc! {}).await.unwrap().unwrap();
        assert_alike(&without(stored), golden);
        store.destroy(&sid).await.unwrap();
        store.create(&sid, &expected(golden), ends, THEN).await.unwrap();
        let stored = documents.find_one(doc! {}).await.unwrap().unwrap();
        assert_alike(&without(stored), golden);
    }));
}

#[test]
fn what_connect_mongo_sealed_is_opened() {
    let mut all = golden(&["webcrypto"]);
    all.extend(golden(&["kruptein"]));
    assert!(all.len() >= 100, "{}", all.len());
    let options = |golden: &Golden, options: &mut MongoOptions| {
        as_written(golden, options);
        options.crypto = Some(Box::new(crypto_of(golden)));
    };
    block_on(each(&all, "opened", options, async |place, golden| {
        let (sid, Place { store, documents, .. }) = (sid(golden.text("sid")), place);
        let found = live(store.load(&sid, THEN).await);
        assert_same(&found.record, golden);
        // Touched by its exact text, and saved sealed, in the format of the Web Crypto adapter.
        store.touch(&sid, &found, THEN + 5000, THEN).await.unwrap();
        let touched = documents.find_one(doc! {}).await.unwrap().unwrap();
        assert_eq!(touched.get_str("session").unwrap(), golden.session());
        assert_eq!(touched.get_datetime("expires").unwrap().timestamp_millis(), THEN + 5000);
        let mut record = found.record.clone();
        record.cookie.attributes = expected(golden).cookie.attributes;
        let swapped = store.update(&sid, &found.version, &record, THEN + 9000, THEN).await.unwrap();
        assert!(matches!(swapped, Swapped::Done(_)), "{}", golden.name());
        let stored = documents.find_one(doc! {}).await.unwrap().unwrap();
        let text = stored.get_str("session").unwrap();
        assert!(text != golden.session() && !text.contains("cookie"), "{text}");
        assert_same(&live(store.load(&sid, THEN).await).record, golden);
        let stale = store.update(&sid, &found.version, &record, THEN + 9000, THEN).await.unwrap();
        let Swapped::Conflict(now) = stale else { panic!("{stale:?}") };
        assert_same(&live(Ok(*now)).record, golden);
    }));
}

#[test]
fn a_conflict_shows_what_kruptein_sealed() {
    let all = golden(&["kruptein-3.4"]);
    let [first, second] = [&all[0], &all[1]];
    block_on(async {
        let crypto = crypto_of(first);
        let Place { store, documents, .. } =
            place("conflict", |options| options.crypto = Some(Box::new(crypto))).await;
        documents.insert_one(doc! { "_id": "a", "session": "{\"n\":1}" }).await.unwrap();
        let loaded = live(store.load(&sid("a"), THEN).await);
        documents.update_one(doc! {}, doc! { "$set": { "session": second.session() } }).await.unwrap();
        let swapped = store.update(&sid("a"), &loaded.version, &loaded.record, THEN + 1, THEN).await.unwrap();
        let Swapped::Conflict(found) = swapped else { panic!("{swapped:?}") };
        assert_same(&live(Ok(*found)).record, second);
    });
}

#[test]
fn a_plain_collection_is_taken_over() {
    block_on(async {
        let Place { store, documents, .. } =
            place("takeover", |options| options.crypto = Some(Box::new(crypto()))).await;
        let forms: [(&str, Bson); 2] =
            [("text", " {\"cookie\":{},\"n\":1}".into()), ("object", doc! { "cookie": {}, "n": 1 }.into())];
        for (name, session) in forms {
            documents.insert_one(doc! { "_id": name, "session": session }).await.unwrap();
            let found = live(store.load(&sid(name), THEN).await);
            assert_eq!(payload(&found), "{\"n\":1}");
            store.update(&sid(name), &found.version, &found.record, THEN + 9000, THEN).await.unwrap();
            let stored = documents.find_one(doc! { "_id": name }).await.unwrap().unwrap();
            assert!(!stored.get_str("session").unwrap().contains('{'));
            assert_eq!(payload(&live(store.load(&sid(name), THEN).await)), "{\"n\":1}");
        }
    });
}

#[test]
fn what_stays_closed_says_why_and_is_left_alone() {
    let (web, old) = (golden(&["webcrypto"]), golden(&["6.0.0-kruptein"]));
    let third: Vec<Golden> = golden(&["connect-mongo-3.2"])
        .into_iter()
        .filter(|golden| !golden.about["secret"].is_null())
        .collect();
    let (web, old, third) = (web[0].session(), old[0].session(), third[0].session());
    let wrong = CryptoOptions { secrets: vec![b"another".to_vec()], ..crypto() };
    let with = |secret: &str| KrupteinOptions {
        secret: secret.into(),
        hashing: KrupteinHash::Sha512,
        encoding: TextEncoding::Base64,
    };
    let both = CryptoOptions { kruptein: Some(with("another")), ..crypto() };
    let table: [(Option<CryptoOptions>, &str, &str); 10] = [
        (Some(wrong), web, "another secret"),
        (Some(crypto()), &web[..24], "cut short"),
        (Some(crypto()), &web[..web.len() - 8], "cut short"),
        (Some(crypto()), old, "store.crypto.kruptein is not set"),
        (Some(crypto()), &old[..400], "kruptein and cut short"),
        (Some(both.clone()), old, "another secret or hashing"),
        (Some(both), third, "connect-mongo 3"),
        (None, web, "store.crypto is not set"),
        (None, old, "kruptein"),
        (None, third, "connect-mongo 3"),
    ];
    block_on(async {
        for (n, (crypto, session, said)) in table.into_iter().enumerate() {
            let Place { store, documents, .. } =
                place("closed", |options| options.crypto = crypto.map(Box::new)).await;
            let stored = doc! { "_id": "a", "session": session };
            documents.insert_one(&stored).await.unwrap();
            for _ in 0..2 {
                let found = store.load(&sid("a"), THEN).await;
                let Ok(Lookup::Unreadable(why)) = found else { panic!("{n}: {found:?}") };
                assert!(why.contains(said), "{n}: {why}");
            }
            assert_eq!(documents.find_one(doc! {}).await.unwrap(), Some(stored));
        }
    });
}

/// Keys for kruptein's documents are worked out elsewhere: whoever came in the same batch does not wait for them.
#[test]
fn slow_keys_hold_up_nobody() {
    let all: Vec<Golden> = golden(&["kruptein-3.0.8"]).into_iter().take(3).collect();
    let crypto = crypto_of(&all[0]);
    block_on(async {
        let Place { store, documents, drain } =
            place("slow", |options| options.crypto = Some(Box::new(crypto))).await;
        for golden in &all {
            documents.insert_one(&golden.document).await.unwrap();
        }
        documents.insert_one(doc! { "_id": "plain", "session": "{}" }).await.unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let names = all.iter().map(|golden| golden.text("sid")).chain(["plain"]);
        let tasks: Vec<_> = names
            .map(|name| {
                let (store, order, name) = (store.clone(), Rc::clone(&order), name.to_owned());
                drain.spawn_local(async move {
                    live(store.load(&sid(&name), THEN).await);
                    order.borrow_mut().push(name);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((order.borrow().len(), order.borrow()[0].as_str()), (4, "plain"));
        assert!(drain.finished(Duration::from_secs(10)).await);
    });
}

#[test]
fn sealed_and_renamed_documents_keep_the_rules() {
    let seals = CryptoOptions { iterations: NonZeroU32::MIN, ..crypto() };
    let transform = TransformId {
        prefix: "app:".to_owned(),
        hash: Some(IdHash::Sha256),
        encoding: TextEncoding::Base64url,
    };
    for stringify in [true, false] {
        keep_the_rules(ALL, Time::Told, |name| {
            let url = format!("mongodb://{}/sealed_rules", mongod::address());
            options(StoreKind::Mongodb(MongoOptions {
                stringify,
                transform_id: Some(transform.clone()),
                crypto: Some(Box::new(seals.clone())),
                ..mongodb::options(url, &format!("{name}_{stringify}"))
            }))
        });
    }
}

#[test]
fn the_id_is_what_transform_id_makes_of_the_sid() {
    let sid = sid("s1");
    let transform = |prefix: &str, hash, encoding| TransformId { prefix: prefix.to_owned(), hash, encoding };
    block_on(async {
        for (transform, id) in [
            (transform("p:", None, TextEncoding::Hex), "p:s1"),
            // crypto.createHash('sha1').update('s1').digest('hex')
            (
                transform("", Some(IdHash::Sha1), TextEncoding::Hex),
                "640d87e741e6aa4c669a82a4cd304787960513ab",
            ),
        ] {
            let Place { store, documents, .. } =
                place("renamed", |options| options.transform_id = Some(transform)).await;
            let record = Record::parse_json("{}").unwrap();
            store.create(&sid, &record, THEN + 9000, THEN).await.unwrap();
            let stored = documents.find_one(doc! {}).await.unwrap().unwrap();
            assert_eq!(stored.get_str("_id").unwrap(), id);
            // A document under the bare sid is somebody else's.
            documents.insert_one(doc! { "_id": "s1", "session": "{\"n\":1}" }).await.unwrap();
            let found = live(store.load(&sid, THEN).await);
            assert_eq!(payload(&found), "{}");
            store.destroy_if(&sid, &found.version, THEN).await.unwrap();
            assert!(matches!(store.load(&sid, THEN).await, Ok(Lookup::Absent)));
            assert_eq!(documents.count_documents(doc! {}).await.unwrap(), 1);
        }
    });
}
