//! One suite over all stores: the rules of `cloakroom::store`, and what each store promises beside them.
//!
//! Every rule is a function that is given a fresh store. The backends' own promises are in `embedded.rs`, `mongodb.rs` and
//! `outage.rs` beside this file.

mod embedded;
mod mongodb;
mod outage;
mod words;

use crate::support::mongod::Mongod;
use cloakroom::drain::Drain;
use cloakroom::session::record::Record;
use cloakroom::store::{
    AutoRemove, Created, Lookup, MongoOptions, SharedStore, Store, StoreKind, StoreOptions, Swapped, Touched,
};
use std::pin::Pin;
use std::time::Duration;
use words::{Place, block_on, live, now, payload, record, sid};

type Rule = fn(Store, Drain) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! rules {
    ($($name:ident),* $(,)?) => {
        const RULES: &[(&str, Rule)] = &[$((stringify!($name), |store, drain| Box::pin($name(store, drain)))),*];
    };
}

rules![
    a_created_session_is_found,
    create_never_overwrites,
    an_unknown_session_is_absent,
    an_expired_session_is_absent_for_everything,
    of_two_writers_the_second_learns_what_the_first_wrote,
    destroyed_is_final,
    destroy_if_compares,
    touch_extends_and_changes_nothing_else,
    touch_may_shorten,
    touch_leaves_the_expiry_of_a_save_alone,
    many_loads_at_once_get_their_own_answers,
    of_many_creates_one_wins,
    concurrent_increments_all_count,
    any_sid_and_any_data_survive,
    a_caller_that_leaves_does_not_stop_the_write,
    too_large_is_refused,
    a_store_that_is_there_answers_ping,
    a_write_and_a_read_at_the_limit_agree,
];

fn keep_the_rules(open: impl Fn(&str) -> StoreOptions) {
    for (name, rule) in RULES {
        // The name of the rule that fails is the last one printed.
        println!("rule: {name}");
        let shared = SharedStore::open(open(name)).unwrap();
        block_on(async {
            let drain = Drain::new();
            let store = shared.attach(&drain);
            rule(store, drain.clone()).await;
            assert!(drain.finished(Duration::from_secs(10)).await, "{name}: tasks are left");
        });
        shared.close();
    }
}

fn options(kind: StoreKind) -> StoreOptions {
    StoreOptions { kind, deadline: Duration::from_secs(10), max_payload: 100_000 }
}

#[test]
fn memory_keeps_the_rules() {
    keep_the_rules(|_| options(StoreKind::Memory { max_bytes: 10 << 20 }));
}

#[test]
fn embedded_keeps_the_rules() {
    let place = Place::new();
    keep_the_rules(|name| options(StoreKind::Embedded { path: place.path(name) }));
}

#[test]
fn mongodb_keeps_the_rules() {
    let mongod = Mongod::start();
    for (stringify, touch_after) in [(true, 0), (false, 1000)] {
        keep_the_rules(|name| {
            options(StoreKind::Mongodb(MongoOptions {
                url: mongod.url("rules"),
                database: None,
                collection: format!("{name}_{stringify}"),
                stringify,
                timestamps: touch_after > 0,
                touch_after,
                auto_remove: AutoRemove::Disabled,
                write_concern: None,
            }))
        });
    }
}

async fn a_created_session_is_found(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    let record = Record::parse_json(
        r#"{"cookie":{"originalMaxAge":60000,"expires":"2099-01-02T03:04:05.678Z","httpOnly":true,"path":"/"},"n":1.5,"s":"ü"}"#,
    )
    .unwrap();
    let Created::Done(version) = store.create(&sid, &record, now + 60_000, now).await.unwrap() else {
        panic!("it exists")
    };
    let found = live(store.load(&sid, now).await);
    assert_eq!(payload(&found), r#"{"n":1.5,"s":"ü"}"#);
    assert_eq!(found.record.cookie.original_max_age, Some(60_000));
    assert_eq!(found.record.cookie.expires, record.cookie.expires);
    assert!(!found.record.cookie_missing);
    assert_eq!(found.expires_at, Some(now + 60_000));
    assert_eq!(found.version, version);
    // A browser-session cookie.
    let other = Record::parse_json(r#"{"cookie":{"originalMaxAge":null,"expires":null}}"#).unwrap();
    let Swapped::Done(_) = store.update(&sid, &version, &other, now + 70_000, now).await.unwrap() else {
        panic!("not updated")
    };
    let found = live(store.load(&sid, now).await);
    assert_eq!((payload(&found), found.expires_at), ("{}", Some(now + 70_000)));
    assert_eq!((found.record.cookie.original_max_age, found.record.cookie.expires), (None, None));
}

async fn create_never_overwrites(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    store.create(&sid, &record(r#"{"n":1}"#), now + 60_000, now).await.unwrap();
    let second = store.create(&sid, &record(r#"{"n":2}"#), now + 60_000, now).await.unwrap();
    assert!(matches!(second, Created::Exists));
    assert_eq!(payload(&live(store.load(&sid, now).await)), r#"{"n":1}"#);
}

async fn an_unknown_session_is_absent(store: Store, _: Drain) {
    let (now, known, unknown) = (now(), sid("known"), sid("unknown"));
    store.create(&known, &record("{}"), now + 60_000, now).await.unwrap();
    let loaded = live(store.load(&known, now).await);
    assert!(matches!(store.load(&unknown, now).await, Ok(Lookup::Absent)));
    let updated = store.update(&unknown, &loaded.version, &record("{}"), now + 1, now).await;
    assert!(matches!(updated, Ok(Swapped::Absent)));
    assert_eq!(store.touch(&unknown, &loaded, now + 1, now).await.unwrap(), Touched::Absent);
    assert!(!store.destroy(&unknown).await.unwrap());
    assert!(matches!(store.destroy_if(&unknown, &loaded.version, now).await, Ok(Swapped::Absent)));
    assert!(matches!(store.load(&unknown, now).await, Ok(Lookup::Absent)));
}

async fn an_expired_session_is_absent_for_everything(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    let ends = now + 60_000;
    store.create(&sid, &record(r#"{"n":1}"#), ends, now).await.unwrap();
    let loaded = live(store.load(&sid, ends - 1).await);
    assert!(matches!(store.load(&sid, ends).await, Ok(Lookup::Absent)));
    let updated = store.update(&sid, &loaded.version, &record("{}"), ends + 9000, ends).await;
    assert!(matches!(updated, Ok(Swapped::Absent)));
    assert_eq!(store.touch(&sid, &loaded, ends + 9000, ends).await.unwrap(), Touched::Absent);
    assert!(matches!(store.destroy_if(&sid, &loaded.version, ends).await, Ok(Swapped::Absent)));
    // The touch and the update at the end have not prolonged it.
    assert!(matches!(store.load(&sid, ends).await, Ok(Lookup::Absent)));
    let again = store.create(&sid, &record(r#"{"n":2}"#), ends + 9000, ends).await.unwrap();
    assert!(matches!(again, Created::Done(_)));
    assert_eq!(payload(&live(store.load(&sid, ends).await)), r#"{"n":2}"#);
}

async fn of_two_writers_the_second_learns_what_the_first_wrote(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    store.create(&sid, &record(r#"{"n":1}"#), now + 60_000, now).await.unwrap();
    let (one, two) = (live(store.load(&sid, now).await), live(store.load(&sid, now).await));
    let first = store.update(&sid, &one.version, &record(r#"{"n":2}"#), now + 60_000, now).await.unwrap();
    let Swapped::Done(version) = first else { panic!("{first:?}") };
    let second = store.update(&sid, &two.version, &record(r#"{"n":3}"#), now + 60_000, now).await.unwrap();
    let Swapped::Conflict(found) = second else { panic!("{second:?}") };
    let found = live(Ok(*found));
    assert_eq!((payload(&found), &found.version), (r#"{"n":2}"#, &version));
    let third = store.update(&sid, &found.version, &record(r#"{"n":4}"#), now + 60_000, now).await.unwrap();
    assert!(matches!(third, Swapped::Done(_)));
    assert_eq!(payload(&live(store.load(&sid, now).await)), r#"{"n":4}"#);
    // The same data once more is no conflict and no absence.
    let last = live(store.load(&sid, now).await);
    let same = store.update(&sid, &last.version, &record(r#"{"n":4}"#), now + 60_000, now).await.unwrap();
    assert!(matches!(same, Swapped::Done(_)));
}

async fn destroyed_is_final(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    store.create(&sid, &record("{}"), now + 60_000, now).await.unwrap();
    let loaded = live(store.load(&sid, now).await);
    assert_eq!(store.touch(&sid, &loaded, now + 61_000, now).await.unwrap(), Touched::Done);
    assert!(store.destroy(&sid).await.unwrap());
    assert!(!store.destroy(&sid).await.unwrap());
    let updated = store.update(&sid, &loaded.version, &record("{}"), now + 60_000, now).await;
    assert!(matches!(updated, Ok(Swapped::Absent)));
    assert_eq!(store.touch(&sid, &loaded, now + 60_000, now).await.unwrap(), Touched::Absent);
    assert!(matches!(store.load(&sid, now).await, Ok(Lookup::Absent)));
    // An extension of the old one does not prolong a new one.
    store.create(&sid, &record("{}"), now + 1000, now).await.unwrap();
    assert!(matches!(store.load(&sid, now + 1000).await, Ok(Lookup::Absent)));
}

async fn destroy_if_compares(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    store.create(&sid, &record(r#"{"n":1}"#), now + 60_000, now).await.unwrap();
    let old = live(store.load(&sid, now).await);
    store.update(&sid, &old.version, &record(r#"{"n":2}"#), now + 60_000, now).await.unwrap();
    let refused = store.destroy_if(&sid, &old.version, now).await.unwrap();
    let Swapped::Conflict(found) = refused else { panic!("{refused:?}") };
    let found = live(Ok(*found));
    assert_eq!(payload(&found), r#"{"n":2}"#);
    let done = store.destroy_if(&sid, &found.version, now).await.unwrap();
    assert!(matches!(done, Swapped::Done(version) if version == found.version));
    assert!(matches!(store.load(&sid, now).await, Ok(Lookup::Absent)));
}

async fn touch_extends_and_changes_nothing_else(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    store.create(&sid, &record(r#"{"n":1}"#), now + 1000, now).await.unwrap();
    let before = live(store.load(&sid, now).await);
    assert_eq!(store.touch(&sid, &before, now + 5000, now + 500).await.unwrap(), Touched::Done);
    // After the old end, before the new one: touched again, loaded, and written with the version of before.
    assert_eq!(store.touch(&sid, &before, now + 9000, now + 2000).await.unwrap(), Touched::Done);
    let after = live(store.load(&sid, now + 6000).await);
    assert_eq!((payload(&after), after.expires_at), (r#"{"n":1}"#, Some(now + 9000)));
    if before.touched_at.is_some() {
        assert_eq!(after.touched_at, Some(now + 2000));
    }
    assert_eq!(after.version, before.version);
    let written = store.update(&sid, &before.version, &record("{}"), now + 9500, now + 7000).await.unwrap();
    assert!(matches!(written, Swapped::Done(_)));
    assert_eq!(live(store.load(&sid, now + 9400).await).expires_at, Some(now + 9500));
}

async fn touch_leaves_the_expiry_of_a_save_alone(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    store.create(&sid, &record(r#"{"n":1}"#), now + 1000, now).await.unwrap();
    let before = live(store.load(&sid, now).await);
    store.update(&sid, &before.version, &record(r#"{"n":2}"#), now + 60_000, now).await.unwrap();
    assert_eq!(store.touch(&sid, &before, now + 2000, now).await.unwrap(), Touched::Done);
    assert_eq!(live(store.load(&sid, now).await).expires_at, Some(now + 60_000));
}

async fn touch_may_shorten(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    store.create(&sid, &record("{}"), now + 60_000, now).await.unwrap();
    let loaded = live(store.load(&sid, now).await);
    store.touch(&sid, &loaded, now + 1000, now).await.unwrap();
    assert!(matches!(store.load(&sid, now + 1000).await, Ok(Lookup::Absent)));
}

async fn many_loads_at_once_get_their_own_answers(store: Store, drain: Drain) {
    let now = now();
    let name = |n: usize| sid(&format!("s{n}"));
    for n in 0..100 {
        store.create(&name(n), &record(&format!("{{\"n\":{n}}}")), now + 60_000, now).await.unwrap();
    }
    let mut tasks = Vec::new();
    // Known ones several times over, unknown ones between them, some that ask from the future.
    for n in 0..600 {
        let store = store.clone();
        tasks.push(drain.spawn_local(async move {
            let asked = n % 150;
            let later = if n % 7 == 0 { 60_000 } else { 0 };
            (asked, later, store.load(&name(asked), now + later).await)
        }));
    }
    for task in tasks {
        let (asked, later, found) = task.await.unwrap();
        if asked < 100 && later == 0 {
            assert_eq!(payload(&live(found)), format!("{{\"n\":{asked}}}"));
        } else {
            assert!(matches!(found, Ok(Lookup::Absent)), "{asked} {later}: {found:?}");
        }
    }
}

async fn of_many_creates_one_wins(store: Store, drain: Drain) {
    let now = now();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            let record = record(&format!("{{\"n\":{n}}}"));
            drain.spawn_local(
                async move { store.create(&sid("a"), &record, now + 60_000, now).await.unwrap() },
            )
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        if let Created::Done(version) = task.await.unwrap() {
            winners.push(version);
        }
    }
    assert_eq!(winners, [live(store.load(&sid("a"), now).await).version]);
}

async fn concurrent_increments_all_count(store: Store, drain: Drain) {
    let now = now();
    let of = |n: u32| record(&format!("{{\"n\":{n}}}"));
    store.create(&sid("a"), &of(0), now + 60_000, now).await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            drain.spawn_local(async move {
                let mut seen = live(store.load(&sid("a"), now).await);
                loop {
                    let text = payload(&seen).to_owned();
                    let n: u32 = text[5..text.len() - 1].parse().unwrap();
                    match store.update(&sid("a"), &seen.version, &of(n + 1), now + 60_000, now).await.unwrap()
                    {
                        Swapped::Done(_) => return,
                        Swapped::Conflict(found) => seen = live(Ok(*found)),
                        Swapped::Absent => panic!("it vanished"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(payload(&live(store.load(&sid("a"), now).await)), "{\"n\":20}");
}

async fn any_sid_and_any_data_survive(store: Store, _: Drain) {
    let now = now();
    let long = "l".repeat(900);
    for odd in ["a'b\"c", "$where", "a.b", "../../etc/passwd", "s\u{fc}\u{1f511}", " ", &long] {
        store.create(&sid(odd), &record("{}"), now + 60_000, now).await.unwrap();
        live(store.load(&sid(odd), now).await);
        assert!(store.destroy(&sid(odd)).await.unwrap(), "{odd}");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(60), "]".repeat(60));
    for (n, text) in [
        r#"{"a":"\u0000\n\" ","b":[1,-2.5,1e+300,null,true,{"c":[]}],"":""}"#,
        r#"{"$set":{"$gt":1},"a.b":{"c.d":1},"__proto__":{"x":1},"_id":5}"#,
        r#"{"2":1,"10":2,"b":1,"a":2}"#,
        &deep,
        &format!("{{\"a\":\"{}\"}}", "x".repeat(90_000)),
    ]
    .into_iter()
    .enumerate()
    {
        let sid = sid(&format!("data{n}"));
        store.create(&sid, &record(text), now + 60_000, now).await.unwrap();
        let loaded = live(store.load(&sid, now).await);
        assert_eq!(payload(&loaded), text);
        // And a compare-and-swap finds it again.
        let swapped = store.update(&sid, &loaded.version, &record("{}"), now + 60_000, now).await.unwrap();
        assert!(matches!(swapped, Swapped::Done(_)), "{text}");
    }
}

async fn a_caller_that_leaves_does_not_stop_the_write(store: Store, drain: Drain) {
    let (now, sid) = (now(), sid("a"));
    let record = record(r#"{"n":1}"#);
    tokio::select! {
        biased;
        _ = store.create(&sid, &record, now + 60_000, now) => {}
        () = std::future::ready(()) => {}
    }
    assert!(drain.finished(Duration::from_secs(10)).await);
    // The embedded writer is a thread of its own: one more change of the same sid stands behind the first in its queue.
    let second = store.create(&sid, &record_of_two(), now + 60_000, now).await.unwrap();
    assert!(matches!(second, Created::Exists));
    assert_eq!(payload(&live(store.load(&sid, now).await)), r#"{"n":1}"#);
}

fn record_of_two() -> Record {
    record(r#"{"n":2}"#)
}

async fn too_large_is_refused(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    let large = record(&format!("{{\"a\":\"{}\"}}", "x".repeat(100_000)));
    assert!(store.create(&sid, &large, now + 60_000, now).await.is_err());
    assert!(matches!(store.load(&sid, now).await, Ok(Lookup::Absent)));
    store.create(&sid, &record("{}"), now + 60_000, now).await.unwrap();
    let loaded = live(store.load(&sid, now).await);
    assert!(store.update(&sid, &loaded.version, &large, now + 60_000, now).await.is_err());
    assert_eq!(payload(&live(store.load(&sid, now).await)), "{}");
}

async fn a_write_and_a_read_at_the_limit_agree(store: Store, _: Drain) {
    let (now, sid) = (now(), sid("a"));
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000 - 8));
    assert_eq!(text.len(), 100_000);
    store.create(&sid, &record(&text), now + 60_000, now).await.unwrap();
    assert_eq!(payload(&live(store.load(&sid, now).await)).len(), 100_000);
}

async fn a_store_that_is_there_answers_ping(store: Store, _: Drain) {
    store.ping().await.unwrap();
}
