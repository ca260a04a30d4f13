//! What the MongoDB store promises beyond the common rules: connect-mongo's documents, whatever is in the collection, and whoever
//! else writes there.

use super::words::{block_on, live, now, payload, record, sid};
use crate::support::mongod;
use bson::{Bson, DateTime, Document, doc};
use cloakroom::drain::Drain;
use cloakroom::session::Millis;
use cloakroom::session::record::{CookieAttributes, Record};
use cloakroom::store::{
    Acknowledge, AutoRemove, Created, Lookup, MongoOptions, SharedStore, Store, StoreKind, StoreOptions,
    Swapped, Touched, WriteConcernOptions,
};
use mongodb::{Client, Collection};
use std::time::Duration;

pub(super) fn options(url: String, collection: &str) -> MongoOptions {
    MongoOptions {
        url,
        database: None,
        collection: collection.to_owned(),
        stringify: true,
        timestamps: false,
        touch_after: 0,
        auto_remove: AutoRemove::Disabled,
        write_concern: None,
        transform_id: None,
        crypto: None,
    }
}

pub(super) fn open(options: MongoOptions, deadline: Duration) -> SharedStore {
    SharedStore::open(StoreOptions { kind: StoreKind::Mongodb(options), deadline, max_payload: 10_000 })
        .unwrap()
}

/// A store, and the driver's own view of its collection.
fn with(
    change: impl FnOnce(&mut MongoOptions),
    collection: &str,
    test: impl AsyncFnOnce(Store, Collection<Document>),
) {
    let mut options = options(format!("mongodb://{}/formats", mongod::address()), collection);
    change(&mut options);
    block_on(async {
        let client = Client::with_uri_str(&options.url).await.unwrap();
        let documents = client.database("formats").collection(&options.collection);
        documents.drop().await.unwrap();
        let shared = open(options, Duration::from_secs(10));
        test(shared.attach(&Drain::new()), documents).await;
    });
}

fn keys(document: &Document) -> Vec<&str> {
    document.keys().map(String::as_str).collect()
}

fn at(moment: Millis) -> DateTime {
    DateTime::from_millis(moment)
}

/// With attributes, as the sidecar's config gives them.
fn dressed(data: &str) -> Record {
    let mut record = record(data);
    record.cookie.attributes =
        CookieAttributes { http_only: true, path: "/".to_owned(), ..CookieAttributes::default() }.into();
    record
}

#[test]
fn the_documents_are_those_of_connect_mongo() {
    let now = now();
    with(
        |_| {},
        "plain",
        async |store, documents| {
            let record =
                dressed(r#"{"cookie":{"originalMaxAge":60000,"expires":"2026-11-20T16:37:02.938Z"},"n":1}"#);
            store.create(&sid("a"), &record, now + 60_000, now).await.unwrap();
            let text = "{\"cookie\":{\"originalMaxAge\":60000,\"expires\":\"2026-11-20T16:37:02.938Z\",\"httpOnly\":true,\"path\":\"/\"},\"n\":1}";
            let found = documents.find_one(doc! { "_id": "a" }).await.unwrap().unwrap();
            assert_eq!(keys(&found), ["_id", "expires", "session"]);
            assert_eq!(found, doc! { "_id": "a", "expires": at(now + 60_000), "session": text });
        },
    );
    let all = |options: &mut MongoOptions| {
        (options.stringify, options.timestamps, options.touch_after) = (false, true, 1000);
    };
    with(all, "full", async |store, documents| {
        store
            .create(&sid("a"), &dressed(r#"{"cookie":{},"n":1,"big":5e9}"#), now + 60_000, now)
            .await
            .unwrap();
        let found = documents.find_one(doc! { "_id": "a" }).await.unwrap().unwrap();
        assert_eq!(keys(&found), ["_id", "createdAt", "expires", "lastModified", "session", "updatedAt"]);
        let session = found.get_document("session").unwrap();
        assert_eq!(
            keys(session.get_document("cookie").unwrap()),
            [
                "originalMaxAge",
                "partitioned",
                "priority",
                "expires",
                "secure",
                "httpOnly",
                "domain",
                "path",
                "sameSite"
            ]
        );
        assert_eq!((session.get("n"), session.get("big")), (Some(&Bson::Int32(1)), Some(&Bson::Double(5e9))));
        // An update leaves the order and `createdAt` alone, and the server's clock is in `updatedAt`.
        let loaded = live(store.load(&sid("a"), now).await);
        assert_eq!((loaded.touched_at, loaded.record.created_at), (Some(now), Some(now)));
        store.update(&sid("a"), &loaded.version, &dressed("{}"), now + 70_000, now + 5).await.unwrap();
        let updated = documents.find_one(doc! { "_id": "a" }).await.unwrap().unwrap();
        assert_eq!(keys(&updated), keys(&found));
        assert_eq!(updated.get("createdAt"), found.get("createdAt"));
        assert_eq!(updated.get("lastModified"), Some(&Bson::DateTime(at(now + 5))));
    });
}

#[test]
fn a_touch_writes_what_connect_mongo_touches() {
    let now = now();
    let touched = |options: &mut MongoOptions| (options.timestamps, options.touch_after) = (true, 1000);
    with(touched, "touch", async |store, documents| {
        for (name, dated) in [("dated", true), ("undated", false)] {
            let mut stored =
                doc! { "_id": name, "expires": at(now + 1000), "session": "{\"n\" : 1}", "theirs": 5 };
            if dated {
                stored.insert("lastModified", at(now - 5000));
            }
            documents.insert_one(&stored).await.unwrap();
            let loaded = live(store.load(&sid(name), now).await);
            assert_eq!(store.touch(&sid(name), &loaded, now + 9000, now).await.unwrap(), Touched::Done);
            let found = documents.find_one(doc! { "_id": name }).await.unwrap().unwrap();
            assert_eq!(found.get("session"), stored.get("session"));
            assert_eq!(found.get("theirs"), stored.get("theirs"));
            assert_eq!(found.get("expires"), Some(&Bson::DateTime(at(now + 9000))));
            assert_eq!(found.get("lastModified"), dated.then(|| Bson::DateTime(at(now))).as_ref());
            assert!(matches!(found.get("updatedAt"), Some(Bson::DateTime(_))));
        }
    });
}

#[test]
fn both_forms_are_read_and_written_over_whatever_stringify_says() {
    let now = now();
    for stringify in [true, false] {
        with(
            |options| options.stringify = stringify,
            &format!("forms_{stringify}"),
            async |store, documents| {
                let object =
                    doc! { "cookie": { "originalMaxAge": 5.0, "expires": at(now) }, "n": 1, "when": at(0) };
                let forms: [(&str, Bson); 2] = [
                    ("text", "{ \"cookie\":{\"originalMaxAge\":5}, \"n\":1 }".into()),
                    ("object", object.into()),
                ];
                for (name, session) in forms {
                    documents
                        .insert_one(doc! { "_id": name, "session": session, "expires": at(now + 9000) })
                        .await
                        .unwrap();
                    let loaded = live(store.load(&sid(name), now).await);
                    assert!(payload(&loaded).starts_with("{\"n\":1"), "{}", payload(&loaded));
                    assert_eq!(loaded.record.cookie.original_max_age, Some(5));
                    let done = store
                        .update(&sid(name), &loaded.version, &dressed("{\"n\":2}"), now + 9000, now)
                        .await;
                    assert!(matches!(done, Ok(Swapped::Done(_))), "{name}: {done:?}");
                    let found = documents.find_one(doc! { "_id": name }).await.unwrap().unwrap();
                    assert_eq!(matches!(found.get("session"), Some(Bson::String(_))), stringify);
                    assert_eq!(payload(&live(store.load(&sid(name), now).await)), "{\"n\":2}");
                }
            },
        );
    }
}

#[test]
fn an_express_app_that_writes_in_between_is_seen() {
    let now = now();
    with(
        |_| {},
        "between",
        async |store, documents| {
            store.create(&sid("a"), &dressed("{\"n\":1}"), now + 60_000, now).await.unwrap();
            let loaded = live(store.load(&sid("a"), now).await);
            let theirs =
                doc! { "$set": { "session": "{\"cookie\":{},\"n\":7}", "expires": at(now + 60_000) } };
            documents.update_one(doc! { "_id": "a" }, theirs).await.unwrap();
            let swapped =
                store.update(&sid("a"), &loaded.version, &dressed("{}"), now + 60_000, now).await.unwrap();
            let Swapped::Conflict(found) = swapped else { panic!("{swapped:?}") };
            assert_eq!(payload(&live(Ok(*found))), "{\"n\":7}");
            // What became unreadable meanwhile is a conflict too, and is left as it is.
            documents.update_one(doc! { "_id": "a" }, doc! { "$set": { "session": 5 } }).await.unwrap();
            let swapped =
                store.update(&sid("a"), &loaded.version, &dressed("{}"), now + 60_000, now).await.unwrap();
            assert!(matches!(swapped, Swapped::Conflict(found) if matches!(*found, Lookup::Unreadable(_))));
            let swapped = store.destroy_if(&sid("a"), &loaded.version, now).await.unwrap();
            assert!(matches!(swapped, Swapped::Conflict(_)));
            assert!(matches!(
                store.create(&sid("a"), &dressed("{}"), now + 1, now).await,
                Ok(Created::Exists)
            ));
            let found = documents.find_one(doc! { "_id": "a" }).await.unwrap().unwrap();
            assert_eq!(found.get("session"), Some(&Bson::Int32(5)));
        },
    );
}

#[test]
fn a_create_whose_answer_was_lost_finds_its_own_document() {
    let now = now();
    with(
        |_| {},
        "twice",
        async |store, documents| {
            let record = dressed("{\"n\":1}");
            store.create(&sid("a"), &record, now + 60_000, now).await.unwrap();
            let again = store.create(&sid("a"), &record, now + 60_000, now).await.unwrap();
            let Created::Done(version) = again else { panic!("not recognised") };
            assert_eq!(version, live(store.load(&sid("a"), now).await).version);
            // Another end, or other data, is another session.
            assert!(matches!(store.create(&sid("a"), &record, now + 60_001, now).await, Ok(Created::Exists)));
            assert!(matches!(
                store.create(&sid("a"), &dressed("{}"), now + 60_000, now).await,
                Ok(Created::Exists)
            ));
            assert_eq!(documents.count_documents(doc! {}).await.unwrap(), 1);
        },
    );
}

#[test]
fn a_refusal_of_the_server_tells_no_sid_and_no_session() {
    let now = now();
    with(
        |_| {},
        "refusing",
        async |store, documents| {
            let unique = mongodb::options::IndexOptions::builder().unique(true).build();
            let index = mongodb::IndexModel::builder().keys(doc! { "session": 1 }).options(unique).build();
            documents.create_index(index).await.unwrap();
            store.create(&sid("one"), &dressed("{\"secret\":1}"), now + 60_000, now).await.unwrap();
            let error =
                store.create(&sid("two"), &dressed("{\"secret\":1}"), now + 60_000, now).await.unwrap_err();
            assert_eq!(error.kind, cloakroom::store::error::Kind::Refused);
            assert!(error.detail.contains("11000") && !error.to_string().contains("secret"), "{error}");
        },
    );
}

#[test]
fn one_odd_document_does_not_disturb_its_neighbours() {
    let now = now();
    with(
        |_| {},
        "odd",
        async |store, documents| {
            let ends = at(now + 60_000);
            let mut odd: Vec<Document> = [
                Bson::Null,
                5.into(),
                Bson::Array(vec![]),
                "not json".into(),
                "[1]".into(),
                "{\"a\":".into(),
                "x".repeat(50_000).into(),
                Bson::MaxKey,
            ]
            .into_iter()
            .enumerate()
            .map(|(n, session)| doc! { "_id": format!("odd{n}"), "expires": ends, "session": session })
            .collect();
            odd.push(doc! { "_id": "odd8", "expires": ends });
            documents.insert_many(&odd).await.unwrap();
            documents.insert_one(doc! { "_id": "forever", "session": "{\"n\":1}" }).await.unwrap();
            documents.insert_one(doc! { "_id": "null", "session": "{}", "expires": null }).await.unwrap();
            let (known, absent) = (sid("forever"), sid("null"));
            let names: Vec<_> = (0..9).map(|n| sid(&format!("odd{n}"))).collect();
            // In one batch, and one by one.
            let drain = Drain::new();
            let tasks: Vec<_> = names
                .iter()
                .cloned()
                .map(|name| {
                    let store = store.clone();
                    drain.spawn_local(async move { store.load(&name, now).await })
                })
                .collect();
            let forever = live(store.load(&known, now).await);
            assert_eq!((payload(&forever), forever.expires_at), ("{\"n\":1}", None));
            assert!(forever.record.cookie_missing);
            assert!(matches!(store.load(&absent, now).await, Ok(Lookup::Absent)));
            for (name, task) in names.iter().zip(tasks) {
                assert!(matches!(task.await.unwrap(), Ok(Lookup::Unreadable(_))), "{}", name.as_str());
                assert!(
                    matches!(store.load(name, now).await, Ok(Lookup::Unreadable(_))),
                    "{}",
                    name.as_str()
                );
            }
            // One without `expires` can be written, touched and compared like any other.
            let done = store.update(&known, &forever.version, &dressed("{}"), now + 9000, now).await.unwrap();
            assert!(matches!(done, Swapped::Done(_)));
        },
    );
}

#[test]
fn the_database_is_the_named_one_then_the_urls_then_test() {
    let server = mongod::address();
    let now = now();
    block_on(async {
        let client = Client::with_uri_str(format!("mongodb://{server}")).await.unwrap();
        for (named, url, expected) in [
            (Some("named"), format!("mongodb://{server}/inurl"), "named"),
            (None, format!("mongodb://{server}/inurl?appName=x"), "inurl"),
            (None, format!("mongodb://{server}"), "test"),
        ] {
            let options = MongoOptions { database: named.map(str::to_owned), ..options(url, "where") };
            let store = open(options, Duration::from_secs(10)).attach(&Drain::new());
            store.create(&sid(expected), &dressed("{}"), now + 60_000, now).await.unwrap();
            let documents = client.database(expected).collection::<Document>("where");
            assert!(documents.find_one(doc! { "_id": expected }).await.unwrap().is_some(), "{expected}");
        }
    });
}

/// A server that stands alone knows no second node, which shows that the concern reaches it.
#[test]
fn a_write_that_is_not_acknowledged_as_asked_is_an_error() {
    let (url, now) = (format!("mongodb://{}/concern", mongod::address()), now());
    let concern = |w| Some(WriteConcernOptions { w: Some(w), ..WriteConcernOptions::default() });
    block_on(async {
        for (write_concern, done) in [
            (concern(Acknowledge::Nodes(1)), true),
            (concern(Acknowledge::Majority), true),
            (concern(Acknowledge::Nodes(2)), false),
            (concern(Acknowledge::Named("two_sites".to_owned())), false),
        ] {
            let options = MongoOptions { write_concern: write_concern.clone(), ..options(url.clone(), "w") };
            let store = open(options, Duration::from_secs(10)).attach(&Drain::new());
            let name = sid(&format!("{write_concern:?}"));
            let created = store.create(&name, &dressed("{}"), now + 60_000, now).await;
            assert_eq!(created.is_ok(), done, "{write_concern:?}: {created:?}");
        }
    });
}

#[test]
fn a_url_that_is_none_is_told_without_its_password() {
    for url in [
        "mongodb://app:s3cr3t/x@host/db",
        "mongodb://app:s3cr3t@host:port/db",
        "mongodb://app:s3cr3t@host/db?w=0",
        "http://app:s3cr3t@h",
        "s3cr3t",
    ] {
        let kind = StoreKind::Mongodb(options(url.to_owned(), "sessions"));
        let shown = format!("{kind:?}");
        let opened =
            SharedStore::open(StoreOptions { kind, deadline: Duration::from_secs(1), max_payload: 10 });
        let why = opened.err().unwrap_or_else(|| panic!("{url} was taken"));
        assert!(
            why.starts_with("store.url") && !why.contains("s3cr3t") && !shown.contains("s3cr3t"),
            "{why}"
        );
    }
}
