//! One suite over all stores: the rules of `cloakroom::store`, and what each store promises beside them.
//!
//! Every rule is a function that is given a fresh store, and that knows whose clock decides there ([`Time`]). What is written says how
//! long it lasts in its cookie too ([`lasting`]), because a store may derive the end from that. The backends' own promises are in
//! files beside this one, and all answers in one table in `table.rs`.

mod burst;
mod embedded;
mod file;
mod mongodb;
mod mongodb_url;
mod outage;
mod redis;
mod sealed;
mod table;
mod words;

use crate::support::mongod::Mongod;
use crate::support::redis::{Cluster, Redis};
use cloakroom::drain::Drain;
use cloakroom::session::record::CookieAttributes;
use cloakroom::store::{
    AutoRemove, Created, Lookup, MongoOptions, SharedStore, StoreKind, StoreOptions, Swapped, Touched,
};
use std::pin::Pin;
use std::time::Duration;
use words::{Place, Subject, TTL, Time, block_on, lasting, live, minute, now, payload, record, sid};

type Rule = fn(Subject) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! rules {
    ($list:ident: $($name:ident),* $(,)?) => {
        const $list: &[(&str, Rule)] = &[$((stringify!($name), |subject| Box::pin($name(subject)))),*];
    };
}

rules![
    RULES:
    a_created_session_is_found,
    create_never_overwrites,
    an_unknown_session_is_absent,
    an_expired_session_is_absent_for_everything,
    of_two_writers_the_second_learns_what_the_first_wrote,
    a_conflict_tells_the_end_too,
    destroyed_is_final,
    destroy_if_compares,
    touch_extends_and_changes_nothing_else,
    touch_leaves_the_expiry_of_a_save_alone,
    many_loads_at_once_get_their_own_answers,
    of_many_creates_one_wins,
    concurrent_increments_all_count,
    any_data_survive,
    a_caller_that_leaves_does_not_stop_the_write,
    too_large_is_refused,
    a_store_that_is_there_answers_ping,
    a_write_and_a_read_at_the_limit_agree,
];

// For stores that are told when a session ends, and do not derive it from the session's own length.
rules![RULES_OF_TOLD_ENDS: touch_may_shorten];

// For stores that keep any sid; `file` refuses those that are no file names.
rules![RULES_OF_ANY_SID: any_sid_survives];

const ALL: &[&[(&str, Rule)]] = &[RULES, RULES_OF_TOLD_ENDS, RULES_OF_ANY_SID];

fn keep_the_rules(rules: &[&[(&str, Rule)]], time: Time, open: impl Fn(&str) -> StoreOptions) {
    for (name, rule) in rules.concat() {
        // The name of the rule that fails is the last one printed.
        println!("rule: {name}");
        let shared = SharedStore::open(open(name)).unwrap();
        block_on(async {
            let drain = Drain::new();
            rule(Subject { store: shared.attach(&drain), drain: drain.clone(), time }).await;
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
    keep_the_rules(ALL, Time::Told, |_| options(StoreKind::Memory { max_bytes: 10 << 20 }));
}

#[test]
fn embedded_keeps_the_rules() {
    let place = Place::new();
    keep_the_rules(ALL, Time::Told, |name| options(StoreKind::Embedded { path: place.path(name) }));
}

#[test]
fn mongodb_keeps_the_rules() {
    let mongod = Mongod::start();
    for (stringify, touch_after) in [(true, 0), (false, 1000)] {
        keep_the_rules(ALL, Time::Told, |name| {
            options(StoreKind::Mongodb(MongoOptions {
                url: mongod.url("rules"),
                database: None,
                collection: format!("{name}_{stringify}"),
                stringify,
                timestamps: touch_after > 0,
                touch_after,
                auto_remove: AutoRemove::Disabled,
                write_concern: None,
                transform_id: None,
                crypto: None,
            }))
        });
    }
}

#[test]
fn redis_keeps_the_rules() {
    let server = Redis::start();
    keep_the_rules(ALL, Time::Real, |name| options(redis::kind(vec![server.url("", 0)], false, name)));
}

#[test]
fn a_redis_cluster_keeps_the_rules() {
    let cluster = Cluster::start();
    keep_the_rules(ALL, Time::Real, |name| options(redis::kind(cluster.urls(), true, name)));
}

async fn a_created_session_is_found(subject: Subject) {
    let (store, now, sid) = (&subject.store, now(), sid("a"));
    let (mut record, ends) = minute(r#"{"n":1.5,"s":"ü"}"#, now);
    record.cookie.attributes =
        CookieAttributes { http_only: true, path: "/".to_owned(), ..CookieAttributes::default() }.into();
    let Created::Done(version) = store.create(&sid, &record, ends, now).await.unwrap() else {
        panic!("it exists")
    };
    let found = live(store.load(&sid, now).await);
    assert_eq!(payload(&found), r#"{"n":1.5,"s":"ü"}"#);
    assert_eq!(found.record.cookie.original_max_age, Some(60_000));
    assert_eq!(found.record.cookie.expires, record.cookie.expires);
    assert!(!found.record.cookie_missing);
    subject.ends(found.expires_at, now, 60_000);
    assert_eq!(found.version, version);
    // A browser-session cookie.
    let other = self::record(r#"{"cookie":{"originalMaxAge":null,"expires":null}}"#);
    let Swapped::Done(_) = store.update(&sid, &version, &other, now + TTL, now).await.unwrap() else {
        panic!("not updated")
    };
    let found = live(store.load(&sid, now).await);
    assert_eq!(payload(&found), "{}");
    subject.ends(found.expires_at, now, TTL);
    assert_eq!((found.record.cookie.original_max_age, found.record.cookie.expires), (None, None));
}

async fn create_never_overwrites(Subject { store, .. }: Subject) {
    let (now, sid) = (now(), sid("a"));
    let (one, ends) = minute(r#"{"n":1}"#, now);
    store.create(&sid, &one, ends, now).await.unwrap();
    let (two, ends) = minute(r#"{"n":2}"#, now);
    assert!(matches!(store.create(&sid, &two, ends, now).await.unwrap(), Created::Exists));
    assert_eq!(payload(&live(store.load(&sid, now).await)), r#"{"n":1}"#);
}

async fn an_unknown_session_is_absent(Subject { store, .. }: Subject) {
    let (now, known, unknown) = (now(), sid("known"), sid("unknown"));
    let (record, ends) = minute("{}", now);
    store.create(&known, &record, ends, now).await.unwrap();
    let loaded = live(store.load(&known, now).await);
    assert!(matches!(store.load(&unknown, now).await, Ok(Lookup::Absent)));
    let updated = store.update(&unknown, &loaded.version, &record, ends, now).await;
    assert!(matches!(updated, Ok(Swapped::Absent)));
    assert_eq!(store.touch(&unknown, &loaded, ends, now).await.unwrap(), Touched::Absent);
    assert!(!store.destroy(&unknown).await.unwrap());
    assert!(matches!(store.destroy_if(&unknown, &loaded.version, now).await, Ok(Swapped::Absent)));
    assert!(matches!(store.load(&unknown, now).await, Ok(Lookup::Absent)));
}

async fn an_expired_session_is_absent_for_everything(subject: Subject) {
    let (store, start, sid) = (&subject.store, now(), sid("a"));
    let (record, ends) = lasting(r#"{"n":1}"#, start, 2000);
    store.create(&sid, &record, ends, start).await.unwrap();
    let last = if subject.time == Time::Told { ends - 1 } else { start };
    let loaded = live(store.load(&sid, last).await);
    let gone = subject.ended(&sid, ends).await;
    let (next, later) = lasting("{}", gone, 9000);
    let updated = store.update(&sid, &loaded.version, &next, later, gone).await;
    assert!(matches!(updated, Ok(Swapped::Absent)), "{updated:?}");
    assert_eq!(store.touch(&sid, &loaded, gone + 2000, gone).await.unwrap(), Touched::Absent);
    assert!(matches!(store.destroy_if(&sid, &loaded.version, gone).await, Ok(Swapped::Absent)));
    // The touch and the update at the end have not prolonged it.
    assert!(matches!(store.load(&sid, gone).await, Ok(Lookup::Absent)));
    let (again, later) = lasting(r#"{"n":2}"#, gone, 9000);
    assert!(matches!(store.create(&sid, &again, later, gone).await.unwrap(), Created::Done(_)));
    assert_eq!(payload(&live(store.load(&sid, gone).await)), r#"{"n":2}"#);
}

async fn of_two_writers_the_second_learns_what_the_first_wrote(Subject { store, .. }: Subject) {
    let (now, sid) = (now(), sid("a"));
    let of = |n: u32| minute(&format!("{{\"n\":{n}}}"), now);
    let (record, ends) = of(1);
    store.create(&sid, &record, ends, now).await.unwrap();
    let (one, two) = (live(store.load(&sid, now).await), live(store.load(&sid, now).await));
    let first = store.update(&sid, &one.version, &of(2).0, ends, now).await.unwrap();
    let Swapped::Done(version) = first else { panic!("{first:?}") };
    let second = store.update(&sid, &two.version, &of(3).0, ends, now).await.unwrap();
    let Swapped::Conflict(found) = second else { panic!("{second:?}") };
    let found = live(Ok(*found));
    assert_eq!((payload(&found), &found.version), (r#"{"n":2}"#, &version));
    let third = store.update(&sid, &found.version, &of(4).0, ends, now).await.unwrap();
    assert!(matches!(third, Swapped::Done(_)));
    assert_eq!(payload(&live(store.load(&sid, now).await)), r#"{"n":4}"#);
    // The same data once more is no conflict and no absence.
    let last = live(store.load(&sid, now).await);
    let same = store.update(&sid, &last.version, &of(4).0, ends, now).await.unwrap();
    assert!(matches!(same, Swapped::Done(_)));
}

async fn a_conflict_tells_the_end_too(subject: Subject) {
    let (store, now, sid) = (&subject.store, now(), sid("a"));
    let (record, ends) = lasting(r#"{"n":1}"#, now, 9000);
    store.create(&sid, &record, ends, now).await.unwrap();
    let old = live(store.load(&sid, now).await);
    let (other, ends) = minute(r#"{"n":2}"#, now);
    store.update(&sid, &old.version, &other, ends, now).await.unwrap();
    let Swapped::Conflict(found) = store.update(&sid, &old.version, &other, ends, now).await.unwrap() else {
        panic!("no conflict")
    };
    subject.ends(live(Ok(*found)).expires_at, now, 60_000);
    let Swapped::Conflict(found) = store.destroy_if(&sid, &old.version, now).await.unwrap() else {
        panic!("no conflict")
    };
    subject.ends(live(Ok(*found)).expires_at, now, 60_000);
}

async fn destroyed_is_final(subject: Subject) {
    let (store, now, sid) = (&subject.store, now(), sid("a"));
    let (record, ends) = minute("{}", now);
    store.create(&sid, &record, ends, now).await.unwrap();
    let loaded = live(store.load(&sid, now).await);
    assert_eq!(store.touch(&sid, &loaded, now + 61_000, now + 1000).await.unwrap(), Touched::Done);
    assert!(store.destroy(&sid).await.unwrap());
    assert!(!store.destroy(&sid).await.unwrap());
    let updated = store.update(&sid, &loaded.version, &record, ends, now).await;
    assert!(matches!(updated, Ok(Swapped::Absent)));
    assert_eq!(store.touch(&sid, &loaded, ends, now).await.unwrap(), Touched::Absent);
    assert!(matches!(store.load(&sid, now).await, Ok(Lookup::Absent)));
    // An extension of the old one does not prolong a new one.
    let (record, ends) = lasting("{}", now, 1000);
    store.create(&sid, &record, ends, now).await.unwrap();
    subject.ended(&sid, ends).await;
}

async fn destroy_if_compares(Subject { store, .. }: Subject) {
    let (now, sid) = (now(), sid("a"));
    let (one, ends) = minute(r#"{"n":1}"#, now);
    store.create(&sid, &one, ends, now).await.unwrap();
    let old = live(store.load(&sid, now).await);
    store.update(&sid, &old.version, &minute(r#"{"n":2}"#, now).0, ends, now).await.unwrap();
    let refused = store.destroy_if(&sid, &old.version, now).await.unwrap();
    let Swapped::Conflict(found) = refused else { panic!("{refused:?}") };
    let found = live(Ok(*found));
    assert_eq!(payload(&found), r#"{"n":2}"#);
    let done = store.destroy_if(&sid, &found.version, now).await.unwrap();
    assert!(matches!(done, Swapped::Done(version) if version == found.version));
    assert!(matches!(store.load(&sid, now).await, Ok(Lookup::Absent)));
}

async fn touch_extends_and_changes_nothing_else(subject: Subject) {
    let (store, start, sid) = (&subject.store, now(), sid("a"));
    let (record, ends) = lasting(r#"{"n":1}"#, start, 4000);
    store.create(&sid, &record, ends, start).await.unwrap();
    let before = live(store.load(&sid, start).await);
    let first = subject.at(start + 1000).await;
    assert_eq!(store.touch(&sid, &before, first + 4000, first).await.unwrap(), Touched::Done);
    // After the old end, before the new one: touched again.
    let second = subject.at(first + 3100).await;
    assert!(second > ends);
    assert_eq!(store.touch(&sid, &before, second + 4000, second).await.unwrap(), Touched::Done);
    // And once more after the old end: loaded, and written with the version of before.
    let third = subject.at(second + 3100).await;
    assert!(third > first + 4000);
    let after = live(store.load(&sid, third).await);
    assert_eq!(payload(&after), r#"{"n":1}"#);
    subject.ends(after.expires_at, second, 4000);
    if let Some(touched) = after.touched_at {
        subject.ends(Some(touched), second, 0);
    }
    assert_eq!(after.version, before.version);
    let (other, ends) = lasting("{}", third, 5000);
    let written = store.update(&sid, &before.version, &other, ends, third).await.unwrap();
    assert!(matches!(written, Swapped::Done(_)));
    let last = if subject.time == Time::Told { ends - 100 } else { third };
    subject.ends(live(store.load(&sid, last).await).expires_at, third, 5000);
}

async fn touch_leaves_the_expiry_of_a_save_alone(subject: Subject) {
    let (store, now, sid) = (&subject.store, now(), sid("a"));
    let (record, ends) = lasting(r#"{"n":1}"#, now, 2000);
    store.create(&sid, &record, ends, now).await.unwrap();
    let before = live(store.load(&sid, now).await);
    let (saved, ends) = minute(r#"{"n":2}"#, now);
    store.update(&sid, &before.version, &saved, ends, now).await.unwrap();
    assert_eq!(store.touch(&sid, &before, now + 2000, now).await.unwrap(), Touched::Done);
    subject.ends(live(store.load(&sid, now).await).expires_at, now, 60_000);
}

async fn touch_may_shorten(subject: Subject) {
    let (store, now, sid) = (&subject.store, now(), sid("a"));
    let (record, ends) = minute("{}", now);
    store.create(&sid, &record, ends, now).await.unwrap();
    let loaded = live(store.load(&sid, now).await);
    store.touch(&sid, &loaded, now + 1000, now).await.unwrap();
    subject.ended(&sid, now + 1000).await;
}

async fn many_loads_at_once_get_their_own_answers(Subject { store, drain, time }: Subject) {
    let now = now();
    let name = |n: usize| sid(&format!("s{n}"));
    for n in 0..100 {
        let (record, ends) = minute(&format!("{{\"n\":{n}}}"), now);
        store.create(&name(n), &record, ends, now).await.unwrap();
    }
    // From the future nothing is there any more: at its end, where that is exact.
    let future = if time == Time::Told { 60_000 } else { 600_000 };
    let mut tasks = Vec::new();
    // Known ones several times over, unknown ones between them, some that ask from the future.
    for n in 0..600 {
        let store = store.clone();
        tasks.push(drain.spawn_local(async move {
            let asked = n % 150;
            let later = if n % 7 == 0 { future } else { 0 };
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

async fn of_many_creates_one_wins(Subject { store, drain, .. }: Subject) {
    let now = now();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            let (record, ends) = minute(&format!("{{\"n\":{n}}}"), now);
            drain.spawn_local(async move { store.create(&sid("a"), &record, ends, now).await.unwrap() })
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

async fn concurrent_increments_all_count(Subject { store, drain, .. }: Subject) {
    let now = now();
    let of = move |n: u32| minute(&format!("{{\"n\":{n}}}"), now);
    let (record, ends) = of(0);
    store.create(&sid("a"), &record, ends, now).await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            drain.spawn_local(async move {
                let mut seen = live(store.load(&sid("a"), now).await);
                loop {
                    let text = payload(&seen).to_owned();
                    let n: u32 = text[5..text.len() - 1].parse().unwrap();
                    match store.update(&sid("a"), &seen.version, &of(n + 1).0, ends, now).await.unwrap() {
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

async fn any_sid_survives(Subject { store, .. }: Subject) {
    let now = now();
    let long = "l".repeat(900);
    let (empty, ends) = minute("{}", now);
    for odd in ["a'b\"c", "$where", "a.b", "../../etc/passwd", "s\u{fc}\u{1f511}", " ", &long] {
        store.create(&sid(odd), &empty, ends, now).await.unwrap();
        live(store.load(&sid(odd), now).await);
        assert!(store.destroy(&sid(odd)).await.unwrap(), "{odd}");
    }
}

async fn any_data_survive(Subject { store, .. }: Subject) {
    let now = now();
    let (empty, ends) = minute("{}", now);
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
        store.create(&sid, &minute(text, now).0, ends, now).await.unwrap();
        let loaded = live(store.load(&sid, now).await);
        assert_eq!(payload(&loaded), text);
        // And a compare-and-swap finds it again.
        let swapped = store.update(&sid, &loaded.version, &empty, ends, now).await.unwrap();
        assert!(matches!(swapped, Swapped::Done(_)), "{text}");
    }
}

async fn a_caller_that_leaves_does_not_stop_the_write(Subject { store, drain, .. }: Subject) {
    let (now, sid) = (now(), sid("a"));
    let (record, ends) = minute(r#"{"n":1}"#, now);
    tokio::select! {
        biased;
        _ = store.create(&sid, &record, ends, now) => {}
        () = std::future::ready(()) => {}
    }
    assert!(drain.finished(Duration::from_secs(10)).await);
    // The embedded writer is a thread of its own: one more change of the same sid stands behind the first in its queue.
    let second = store.create(&sid, &minute(r#"{"n":2}"#, now).0, ends, now).await.unwrap();
    assert!(matches!(second, Created::Exists));
    assert_eq!(payload(&live(store.load(&sid, now).await)), r#"{"n":1}"#);
}

async fn too_large_is_refused(Subject { store, .. }: Subject) {
    let (now, sid) = (now(), sid("a"));
    let (large, ends) = minute(&format!("{{\"a\":\"{}\"}}", "x".repeat(100_000)), now);
    assert!(store.create(&sid, &large, ends, now).await.is_err());
    assert!(matches!(store.load(&sid, now).await, Ok(Lookup::Absent)));
    store.create(&sid, &minute("{}", now).0, ends, now).await.unwrap();
    let loaded = live(store.load(&sid, now).await);
    assert!(store.update(&sid, &loaded.version, &large, ends, now).await.is_err());
    assert_eq!(payload(&live(store.load(&sid, now).await)), "{}");
}

async fn a_write_and_a_read_at_the_limit_agree(Subject { store, .. }: Subject) {
    let (now, sid) = (now(), sid("a"));
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000 - 8));
    assert_eq!(text.len(), 100_000);
    let (record, ends) = minute(&text, now);
    store.create(&sid, &record, ends, now).await.unwrap();
    assert_eq!(payload(&live(store.load(&sid, now).await)).len(), 100_000);
}

async fn a_store_that_is_there_answers_ping(Subject { store, .. }: Subject) {
    store.ping().await.unwrap();
}
