//! What the Redis store promises beyond the common rules: connect-redis's keys, whatever lies there, and whoever else writes there; and
//! a Redis that is down, frozen, a replica, or not there yet.

use super::outage::{Relay, recovered};
use super::words::{block_on, lasting, live, minute, now, payload, record, sid};
use crate::support::redis::{Cluster, Redis};
use crate::support::{eventually, patience};
use cloakroom::drain::Drain;
use cloakroom::session::record::{CookieAttributes, Record};
use cloakroom::store::error::Kind;
use cloakroom::store::{
    Created, Lookup, RedisOptions, SharedStore, Store, StoreKind, StoreOptions, Swapped, Touched,
};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_millis(1500);
/// A busy machine may be late, but not by much.
const SLACK: Duration = Duration::from_secs(2);

pub(super) fn kind(urls: Vec<String>, cluster: bool, prefix: &str) -> StoreKind {
    StoreKind::Redis(redis(urls, cluster, prefix))
}

fn redis(urls: Vec<String>, cluster: bool, prefix: &str) -> RedisOptions {
    let prefix = format!("{prefix}:");
    RedisOptions { urls, cluster, prefix, ttl: super::words::TTL, disable_touch: false }
}

fn open(options: RedisOptions) -> SharedStore {
    let kind = StoreKind::Redis(options);
    SharedStore::open(StoreOptions { kind, deadline: DEADLINE, max_payload: 10_000 }).unwrap()
}

fn single(server: &Redis) -> SharedStore {
    open(redis(vec![server.url("", 0)], false, "sess"))
}

/// A store on a server of its own, and the server.
fn with(test: impl AsyncFnOnce(Store, &Redis)) {
    let server = Redis::start();
    let shared = single(&server);
    block_on(async {
        let drain = Drain::new();
        test(shared.attach(&drain), &server).await;
        assert!(drain.finished(patience()).await, "tasks are left");
    });
}

fn dressed(mut record: Record) -> Record {
    record.cookie.attributes =
        CookieAttributes { http_only: true, path: "/".to_owned(), ..CookieAttributes::default() }.into();
    record
}

async fn is_absent(store: &Store, name: &str) -> bool {
    matches!(store.load(&sid(name), now()).await.unwrap(), Lookup::Absent)
}

#[test]
fn the_keys_are_those_of_connect_redis() {
    with(async |store, server| {
        let now = now();
        let mut record = dressed(record(r#"{"n":1}"#));
        record.cookie.original_max_age = Some(60_500);
        record.cookie.expires = Some(1_763_656_622_938);
        store.create(&sid("a"), &record, now + 60_500, now).await.unwrap();
        let text = r#"{"cookie":{"originalMaxAge":60500,"expires":"2025-11-20T16:37:02.938Z","httpOnly":true,"path":"/"},"n":1}"#;
        assert_eq!(server.text(&["GET", "sess:a"]), text);
        assert_eq!(server.number(&["TTL", "sess:a"]), 61);
        let loaded = live(store.load(&sid("a"), now).await);
        store.update(&sid("a"), &loaded.version, &record, now + 90_000, now).await.unwrap();
        assert_eq!((server.text(&["GET", "sess:a"]).as_str(), server.number(&["TTL", "sess:a"])), (text, 90));
        assert_eq!(server.number(&["DBSIZE"]), 1);
    });
}

#[test]
fn a_touch_is_expire_and_nothing_else() {
    with(async |store, server| {
        for (name, size) in [("small", 1), ("large", 9000)] {
            let (now, key) = (now(), format!("sess:{name}"));
            let spelled =
                format!("{{\"a\" : \"{}\", \"cookie\":{{\"originalMaxAge\":60000}}}}", "x".repeat(size));
            server.command(&["SET", &key, &spelled, "EX", "60"]);
            let loaded = live(store.load(&sid(name), now).await);
            assert!(loaded.touched_at.is_some_and(|at| (now - 2000..now + 2000).contains(&at)));
            assert_eq!(store.touch(&sid(name), &loaded, now + 99_001, now).await.unwrap(), Touched::Done);
            assert_eq!((server.text(&["GET", &key]), server.number(&["TTL", &key])), (spelled, 100));
            // Saved by somebody else: the touch keeps off.
            server.command(&["SET", &key, "{}", "EX", "50"]);
            assert_eq!(store.touch(&sid(name), &loaded, now + 99_001, now).await.unwrap(), Touched::Done);
            assert_eq!(server.number(&["TTL", &key]), 50);
        }
    });
}

#[test]
fn disable_touch_extends_nothing_and_tells_whether_it_is_there() {
    let server = Redis::start();
    let shared = open(RedisOptions { disable_touch: true, ..redis(vec![server.url("", 0)], false, "sess") });
    block_on(async {
        let (store, now) = (shared.attach(&Drain::new()), now());
        let (record, ends) = minute("{}", now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        let touched = async || store.touch(&sid("a"), &loaded, now + 90_000, now).await.unwrap();
        assert_eq!((touched().await, server.number(&["TTL", "sess:a"])), (Touched::Done, 60));
        server.command(&["PERSIST", "sess:a"]);
        assert_eq!((touched().await, server.number(&["TTL", "sess:a"])), (Touched::Done, -1));
        server.command(&["DEL", "sess:a"]);
        assert_eq!((touched().await, server.number(&["DBSIZE"])), (Touched::Absent, 0));
        server.command(&["RPUSH", "sess:a", "x"]);
        assert_eq!(touched().await, Touched::Done);
    });
}

#[test]
fn an_express_app_that_writes_in_between_is_seen() {
    with(async |store, server| {
        let now = now();
        let (record, ends) = minute(r#"{"n":1}"#, now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        server.command(&["SET", "sess:a", r#"{"cookie":{},"n":7}"#, "EX", "500"]);
        for found in [
            store.update(&sid("a"), &loaded.version, &record, ends, now).await.unwrap(),
            store.destroy_if(&sid("a"), &loaded.version, now).await.unwrap(),
        ] {
            let Swapped::Conflict(found) = found else { panic!("{found:?}") };
            let found = live(Ok(*found));
            assert_eq!(payload(&found), r#"{"n":7}"#);
            assert!(found.expires_at.is_some_and(|at| at > now + 450_000));
        }
    });
}

#[test]
fn what_is_no_session_is_unreadable_and_left_alone() {
    with(async |store, server| {
        let now = now();
        let (record, ends) = minute("{}", now);
        store.create(&sid("good"), &record, ends, now).await.unwrap();
        let good = live(store.load(&sid("good"), now).await);
        let huge = format!("{{\"secret\":\"{}\"}}", "x".repeat(2_000_000));
        let large = format!("{{\"secret\":\"{}\"}}", "x".repeat(10_000));
        let long = large.len().to_string();
        let odd: [&[&str]; 8] = [
            &["SET", "sess:odd", "secret"],
            &["SET", "sess:odd", "[\"secret\"]"],
            &["SET", "sess:odd", "5"],
            &["SET", "sess:odd", &large],
            &["SET", "sess:odd", &huge],
            &["SETRANGE", "sess:odd", "3", "secret"],
            &["RPUSH", "sess:odd", "secret", &long],
            &["HSET", "sess:odd", "secret", "1"],
        ];
        for command in odd {
            server.command(&["DEL", "sess:odd"]);
            server.command(command);
            server.command(&["EXPIRE", "sess:odd", "500"]);
            let told = |found: &Lookup| match found {
                Lookup::Unreadable(why) => assert!(!why.contains("secret") && !why.contains("xx"), "{why}"),
                other => panic!("{}: {other:?}", command[2]),
            };
            told(&store.load(&sid("odd"), now).await.unwrap());
            let dump = server.command(&["DUMP", "sess:odd"]);
            assert!(matches!(store.create(&sid("odd"), &record, ends, now).await, Ok(Created::Exists)));
            let updated = store.update(&sid("odd"), &good.version, &record, ends, now).await.unwrap();
            let Swapped::Conflict(found) = updated else { panic!("{updated:?}") };
            told(&found);
            let gone = store.destroy_if(&sid("odd"), &good.version, now).await.unwrap();
            let Swapped::Conflict(found) = gone else { panic!("{gone:?}") };
            told(&found);
            assert_eq!(store.touch(&sid("odd"), &good, ends, now).await.unwrap(), Touched::Done);
            assert_eq!(server.command(&["DUMP", "sess:odd"]), dump);
            assert_eq!(server.number(&["TTL", "sess:odd"]), 500);
        }
        // connect-redis takes an empty value for none.
        server.command(&["SET", "sess:odd", ""]);
        assert!(is_absent(&store, "odd").await);
    });
}

#[test]
fn a_key_without_an_end_is_served() {
    with(async |store, server| {
        let now = now();
        server.command(&["SET", "sess:a", r#"{"cookie":{"originalMaxAge":60000},"n":1}"#]);
        let loaded = live(store.load(&sid("a"), now + 999_000_000).await);
        assert_eq!((payload(&loaded), loaded.expires_at, loaded.touched_at), (r#"{"n":1}"#, None, None));
        let (record, ends) = minute("{}", now);
        let done = store.update(&sid("a"), &loaded.version, &record, ends, now).await.unwrap();
        assert!(matches!(done, Swapped::Done(_)));
        assert_eq!(server.number(&["TTL", "sess:a"]), 60);
    });
}

#[test]
fn nothing_lives_that_has_ended_when_it_is_written() {
    with(async |store, server| {
        let now = now();
        let (record, ends) = minute("{}", now);
        let created = store.create(&sid("a"), &record, now, now).await.unwrap();
        assert!(matches!(created, Created::Done(_)) && server.number(&["DBSIZE"]) == 0);
        for name in ["updated", "touched"] {
            store.create(&sid(name), &record, ends, now).await.unwrap();
            let created = store.create(&sid(name), &record, now - 1, now).await.unwrap();
            assert!(matches!(created, Created::Exists));
        }
        let loaded = live(store.load(&sid("updated"), now).await);
        let updated = store.update(&sid("updated"), &loaded.version, &record, now - 5000, now).await.unwrap();
        assert!(matches!(updated, Swapped::Done(_)) && server.number(&["DBSIZE"]) == 1);
        assert_eq!(store.touch(&sid("touched"), &loaded, now - 1, now).await.unwrap(), Touched::Done);
        assert_eq!(server.number(&["DBSIZE"]), 0);
    });
}

#[test]
fn scripts_that_the_server_forgot_are_sent_again() {
    with(async |store, server| {
        let now = now();
        let (record, ends) = minute("{}", now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        for _ in 0..2 {
            server.command(&["SCRIPT", "FLUSH"]);
            assert_eq!(store.touch(&sid("a"), &loaded, ends, now).await.unwrap(), Touched::Done);
            let done = store.update(&sid("a"), &loaded.version, &record, ends, now).await.unwrap();
            assert!(matches!(done, Swapped::Done(_)));
        }
        assert!(matches!(store.destroy_if(&sid("a"), &loaded.version, now).await, Ok(Swapped::Done(_))));
        let sent = server.text(&["INFO", "commandstats"]);
        let count = |name: &str| sent.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(count("cmdstat_eval:").contains("calls=5,"), "{sent}");
    });
}

#[test]
fn users_passwords_and_databases_of_the_url_count() {
    let server = Redis::start_with(&["--requirepass", "hunter2/x"]);
    server.command(&["ACL", "SETUSER", "app", "on", ">hunter2@", "~sess:*", "+@all"]);
    server.command(&["ACL", "SETUSER", "reader", "on", ">hunter2", "~sess:*", "+@read", "+ping"]);
    let now = now();
    let (record, ends) = minute("{}", now);
    let tried = |user: &str, database: u8| {
        let shared = open(redis(vec![server.url(user, database)], false, "sess"));
        block_on(async {
            let store = shared.attach(&Drain::new());
            let loaded = store.load(&sid("nobody"), now).await.map(drop);
            (loaded, store.create(&sid(&format!("s{user}")), &record, ends, now).await.map(drop))
        })
    };
    for (user, database) in [(":hunter2%2Fx@", 0), ("app:hunter2%40@", 3)] {
        let (loaded, created) = tried(user, database);
        assert!(loaded.is_ok() && created.is_ok(), "{user}: {loaded:?} {created:?}");
    }
    assert!(server.text(&["INFO", "keyspace"]).contains("db3:keys=1"));
    for user in ["", ":hunter3@", "app:hunter2@", "nobody:hunter2@"] {
        let (loaded, created) = tried(user, 0);
        for error in [loaded.unwrap_err(), created.unwrap_err()] {
            assert_eq!(error.kind, Kind::Refused, "{user}: {error}");
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
    }
    let (loaded, created) = tried("reader:hunter2@", 0);
    assert!(loaded.is_ok());
    let error = created.unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    // The right that it lacks is named.
    assert!(error.detail.ends_with("no permissions to run the 'set' command"), "{error}");
}

/// The rights that the README names are enough, and so is either protocol.
#[test]
fn few_rights_are_enough_and_so_is_resp3() {
    let server = Redis::start();
    let rights = "+get +getrange +set +del +exists +expire +pttl +eval +evalsha";
    let rule = format!("ACL SETUSER app on >hunter2 ~sess:* {rights}");
    server.command(&rule.split(' ').collect::<Vec<_>>());
    for protocol in ["resp2", "resp3"] {
        // RESP3 logs in with HELLO, which needs no right of its own.
        let url = format!("{}?protocol={protocol}", server.url("app:hunter2@", 0));
        let shared = open(redis(vec![url], false, "sess"));
        block_on(async {
            let (store, now) = (shared.attach(&Drain::new()), now());
            let (record, ends) = minute(r#"{"n":1}"#, now);
            store.ping().await.unwrap();
            assert!(is_absent(&store, "a").await);
            store.create(&sid("a"), &record, ends, now).await.unwrap();
            assert!(matches!(store.create(&sid("a"), &record, ends, now).await, Ok(Created::Exists)));
            let old = live(store.load(&sid("a"), now).await);
            let other = minute(r#"{"n":2}"#, now).0;
            assert_eq!(store.touch(&sid("a"), &old, ends, now).await.unwrap(), Touched::Done);
            let done = store.update(&sid("a"), &old.version, &other, ends, now).await.unwrap();
            let Swapped::Done(version) = done else { panic!("{done:?}") };
            let found = store.destroy_if(&sid("a"), &old.version, now).await.unwrap();
            assert!(matches!(found, Swapped::Conflict(_)), "{found:?}");
            assert!(matches!(store.destroy_if(&sid("a"), &version, now).await, Ok(Swapped::Done(_))));
            assert!(!store.destroy(&sid("a")).await.unwrap());
        });
    }
}

#[test]
fn a_unix_socket_and_tls_lead_there_too() {
    let server = Redis::with_tls();
    let now = now();
    let (record, ends) = minute("{}", now);
    let tried = |url: String| {
        let shared = open(redis(vec![url.clone()], false, "sess"));
        block_on(async { shared.attach(&Drain::new()).create(&sid(&url), &record, ends, now).await })
    };
    let (ca, other) = (server.file("ca.pem"), server.file("other.pem"));
    let (certificate, key) = (server.file("cert.pem"), server.file("key.pem"));
    for url in [
        format!("redis+unix://{}?db=1", server.file("socket")),
        format!("{}?ssl_ca_certs={ca}", server.tls_url()),
    ] {
        tried(url.clone()).unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    // Nobody vouches for it; somebody else does; it is not who was asked for.
    let elsewhere = server.tls_url().replace("localhost", "127.0.0.1");
    for url in [
        server.tls_url(),
        format!("{}?ssl_ca_certs={other}", server.tls_url()),
        format!("{elsewhere}?ssl_ca_certs={ca}"),
    ] {
        let error = tried(url.clone()).map(drop).unwrap_err();
        assert!(error.detail.contains("certificate"), "{url}: {error}");
    }
    // A client's certificate, where the server insists on one.
    server.command(&["CONFIG", "SET", "tls-auth-clients", "yes"]);
    assert!(tried(format!("{}?ssl_ca_certs={ca}", server.tls_url())).is_err());
    let both = format!("ssl_ca_certs={ca}&ssl_certfile={certificate}&ssl_keyfile={key}");
    tried(format!("{}/3?{both}", server.tls_url())).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_killed_server_is_an_error_within_the_deadline_and_then_forgotten() {
    let mut server = Redis::start();
    let shared = single(&server);
    block_on(async {
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        let (record, ends) = minute("{}", now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        server.kill();
        let began = Instant::now();
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                let store = store.clone();
                drain.spawn_local(async move { store.load(&sid(&format!("s{n}")), now).await })
            })
            .collect();
        let touch = store.touch(&sid("a"), &loaded, ends, now).await.unwrap_err();
        assert_eq!(touch.kind, Kind::Unreachable, "{touch}");
        for task in tasks {
            let error = task.await.unwrap().unwrap_err();
            assert_eq!(error.kind, Kind::Unreachable, "{error}");
        }
        // Refused at once, not at the deadline.
        assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
        assert_eq!(store.ping().await.unwrap_err().kind, Kind::Unreachable);
        server.restart();
        // The very first request succeeds.
        let began = Instant::now();
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
        live(store.load(&sid("a"), now).await);
        assert!(drain.finished(patience()).await, "tasks are left");
    });
}

#[test]
fn a_server_that_is_not_there_yet_is_found_when_it_comes() {
    let mut server = Redis::prepare();
    let shared = single(&server);
    block_on(async {
        let (store, now) = (shared.attach(&Drain::new()), now());
        let error = store.load(&sid("a"), now).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
        server.restart();
        assert!(is_absent(&store, "a").await);
        // And in the background, with nobody asking.
        let second = shared.attach(&Drain::new());
        let clients = || server.text(&["CLIENT", "LIST"]).matches("lib-name=cloakroom").count();
        let named = server.text(&["INFO", "server"]).contains("redis_version:7.2");
        let until = Instant::now() + patience();
        while named && clients() < 2 {
            assert!(Instant::now() < until, "no connection");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(second);
    });
}

#[test]
fn a_frozen_server_holds_nobody_longer_than_the_deadline() {
    let server = Redis::start();
    let shared = single(&server);
    block_on(async {
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        let (record, ends) = minute("{}", now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        server.freeze();
        let began = Instant::now();
        let error = store.create(&sid("b"), &record, ends, now).await.unwrap_err();
        assert_eq!(error.kind, Kind::Timeout, "{error}");
        for _ in 0..2 {
            let error = store.load(&sid("a"), now).await.unwrap_err();
            assert_eq!(error.kind, Kind::Timeout, "{error}");
        }
        assert!(began.elapsed() < 3 * (DEADLINE + SLACK), "{:?}", began.elapsed());
        server.thaw();
        recovered(&store).await;
        live(store.load(&sid("a"), now).await);
        assert!(drain.finished(patience()).await, "tasks are left");
        // The write whose caller had given up was not dropped.
        assert!(matches!(store.create(&sid("b"), &record, ends, now).await, Ok(Created::Exists)));
    });
}

#[test]
fn a_stalled_connection_is_given_up() {
    let server = Redis::start();
    block_on(async {
        let relay = Relay::to(server.address()).await;
        let url = format!("redis://127.0.0.1:{}", relay.port);
        let shared = open(redis(vec![url], false, "sess"));
        let (store, now) = (shared.attach(&Drain::new()), now());
        let (record, ends) = minute("{}", now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        relay.stall();
        let error = store.load(&sid("a"), now).await.unwrap_err();
        assert_eq!(error.kind, Kind::Timeout, "{error}");
        live(store.load(&sid("a"), now).await);
        store.create(&sid("b"), &record, ends, now).await.unwrap();
    });
}

#[test]
fn too_many_operations_wait_for_a_place_until_the_deadline() {
    let server = Redis::start();
    let shared = single(&server);
    block_on(async {
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        let (record, ends) = minute("{}", now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        server.freeze();
        // These wait for 15 deadlines.
        let patient: Vec<_> = (0..512)
            .map(|n| {
                let (store, version) = (store.clone(), loaded.version.clone());
                tokio::task::spawn_local(async move {
                    store.destroy_if(&sid(&format!("s{n}")), &version, now).await
                })
            })
            .collect();
        let began = Instant::now();
        let waiting: Vec<_> = (0..500)
            .map(|n| {
                let (store, record) = (store.clone(), record.clone());
                tokio::task::spawn_local(async move {
                    store.create(&sid(&format!("s{n}")), &record, ends, now).await
                })
            })
            .collect();
        for task in waiting {
            let error = task.await.unwrap().unwrap_err();
            assert_eq!(error.kind, Kind::Overloaded, "{error}");
            assert!(began.elapsed() >= DEADLINE, "refused after {:?}", began.elapsed());
        }
        assert!(began.elapsed() < DEADLINE + SLACK, "{:?}", began.elapsed());
        assert_eq!(drain.running(), 512);
        server.thaw();
        for task in patient {
            let answer = task.await.unwrap().unwrap();
            assert!(matches!(answer, Swapped::Absent), "{answer:?}");
        }
        // Who was refused has written nothing.
        assert_eq!(server.number(&["DBSIZE"]), 1);
    });
}

#[test]
fn a_connection_that_the_server_closed_costs_no_error() {
    with(async |store, server| {
        let now = now();
        let (record, ends) = minute("{}", now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        let close = || server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        close();
        live(store.load(&sid("a"), now).await);
        close();
        // As a server does that has `timeout` set: some time after the last word.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(matches!(store.create(&sid("b"), &record, ends, now).await, Ok(Created::Done(_))));
        close();
        store.ping().await.unwrap();
    });
}

#[test]
fn a_server_that_may_not_write_is_told_from_one_that_is_gone() {
    with(async |store, server| {
        let now = now();
        let (record, ends) = minute("{}", now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        let all = async || {
            [
                store.create(&sid("b"), &record, ends, now).await.map(drop).unwrap_err().kind,
                store
                    .update(&sid("a"), &loaded.version, &record, ends, now)
                    .await
                    .map(drop)
                    .unwrap_err()
                    .kind,
                store.touch(&sid("a"), &loaded, ends, now).await.map(drop).unwrap_err().kind,
                store.destroy(&sid("a")).await.map(drop).unwrap_err().kind,
                store.destroy_if(&sid("a"), &loaded.version, now).await.map(drop).unwrap_err().kind,
                store.ping().await.unwrap_err().kind,
            ]
        };
        // A failover made it a replica of a master that is nowhere.
        let nowhere = Redis::prepare().address().port().to_string();
        server.command(&["REPLICAOF", "127.0.0.1", &nowhere]);
        assert_eq!(all().await, [Kind::Unreachable; 6]);
        live(store.load(&sid("a"), now).await);
        server.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
        assert_eq!(store.load(&sid("a"), now).await.unwrap_err().kind, Kind::Unreachable);
        server.command(&["REPLICAOF", "NO", "ONE"]);
        store.ping().await.unwrap();
        // It has to have replicas, and has none.
        server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        assert_eq!(all().await, [Kind::Refused; 6]);
        live(store.load(&sid("a"), now).await);
        server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        // Its memory is full: what makes room is still done.
        server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        let full = store.create(&sid("b"), &record, ends, now).await.map(drop).unwrap_err();
        assert_eq!(full.kind, Kind::Refused, "{full}");
        let full = store.update(&sid("a"), &loaded.version, &record, ends, now).await.map(drop).unwrap_err();
        assert_eq!(full.kind, Kind::Refused, "{full}");
        let full = store.ping().await.unwrap_err();
        assert!(full.kind == Kind::Refused && full.detail.starts_with("OOM"), "{full}");
        assert!(store.destroy(&sid("a")).await.unwrap());
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        store.ping().await.unwrap();
        assert_eq!(server.number(&["DBSIZE"]), 0);
    });
}

/// Forwards to a server, and hangs up in place of the first answer to a script, once the server has given it.
async fn swallow_one_answer(server: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let swallowed = Rc::new(Cell::new(false));
    tokio::task::spawn_local(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let swallowed = Rc::clone(&swallowed);
            tokio::task::spawn_local(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let (mut asked, mut told) = (vec![0; 1 << 16], vec![0; 1 << 16]);
                let mut script = false;
                loop {
                    tokio::select! {
                        Ok(length @ 1..) = client.read(&mut asked) => {
                            script |= asked[..length].windows(7).any(|word| word == b"EVALSHA");
                            server.write_all(&asked[..length]).await.unwrap();
                        }
                        Ok(length @ 1..) = server.read(&mut told) => {
                            if script && !swallowed.replace(true) {
                                return;
                            }
                            client.write_all(&told[..length]).await.unwrap();
                        }
                        else => return,
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_write_whose_answer_was_lost_is_an_error_and_is_not_sent_again() {
    let server = Redis::start();
    block_on(async {
        let now = now();
        let (record, ends) = minute("{}", now);
        // The server knows the scripts already.
        let first = single(&server).attach(&Drain::new());
        first.create(&sid("a"), &record, ends, now).await.unwrap();
        let loaded = live(first.load(&sid("a"), now).await);
        first.update(&sid("a"), &loaded.version, &record, ends, now).await.unwrap();
        let before = server.text(&["INFO", "commandstats"]);
        let port = swallow_one_answer(server.address()).await;
        let shared = open(redis(vec![format!("redis://127.0.0.1:{port}")], false, "sess"));
        let store = shared.attach(&Drain::new());
        let loaded = live(store.load(&sid("a"), now).await);
        let other = minute(r#"{"n":1}"#, now).0;
        let error = store.update(&sid("a"), &loaded.version, &other, ends, now).await.map(drop).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
        assert_eq!(payload(&live(store.load(&sid("a"), now).await)), r#"{"n":1}"#);
        let calls = |stats: &str| {
            let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap().to_owned();
            line.split(['=', ',']).nth(1).unwrap().parse::<u32>().unwrap()
        };
        assert_eq!(calls(&server.text(&["INFO", "commandstats"])), calls(&before) + 1);
    });
}

#[test]
fn a_cluster_is_followed_when_a_slot_moves() {
    let cluster = Cluster::start();
    let shared = open(redis(cluster.urls()[..1].to_vec(), true, "sess"));
    block_on(async {
        let (store, now) = (shared.attach(&Drain::new()), now());
        let (record, ends) = minute(r#"{"n":1}"#, now);
        store.create(&sid("a"), &record, ends, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        let from = cluster.owner("sess:a");
        let (source, target) = (&cluster.nodes[from], &cluster.nodes[(from + 1) % 3]);
        let slot = source.number(&["CLUSTER", "KEYSLOT", "sess:a"]).to_string();
        let (source_id, target_id) = (source.text(&["CLUSTER", "MYID"]), target.text(&["CLUSTER", "MYID"]));
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]);
        source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]);
        let port = target.address().port().to_string();
        source.command(&["MIGRATE", "127.0.0.1", &port, "sess:a", "0", "5000"]);
        // The slot is the source's, the key is the target's: ASK.
        let moving = live(store.load(&sid("a"), now).await);
        assert_eq!(moving.version, loaded.version);
        let other = minute(r#"{"n":2}"#, now).0;
        let done = store.update(&sid("a"), &loaded.version, &other, ends, now).await.unwrap();
        assert!(matches!(done, Swapped::Done(_)));
        // The slot is the target's: MOVED.
        for node in [target, source] {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]);
        }
        let moved = live(store.load(&sid("a"), now).await);
        assert_eq!(payload(&moved), r#"{"n":2}"#);
        assert_eq!(store.touch(&sid("a"), &moved, ends, now).await.unwrap(), Touched::Done);
        assert!(store.destroy(&sid("a")).await.unwrap());
    });
}

#[test]
fn a_cluster_without_one_node_serves_the_others_sessions() {
    let mut cluster = Cluster::start();
    for node in &cluster.nodes {
        node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let shared = open(redis(cluster.urls(), true, "sess"));
    block_on(async {
        let (store, now) = (shared.attach(&Drain::new()), now());
        let (record, ends) = lasting("{}", now, 600_000);
        let names: Vec<String> = (0..30).map(|n| format!("s{n}")).collect();
        for name in &names {
            store.create(&sid(name), &record, ends, now).await.unwrap();
        }
        cluster.nodes[2].kill();
        let gone = |name: &str| cluster.owner(&format!("sess:{name}")) == 2;
        for name in &names {
            match store.load(&sid(name), now).await {
                Ok(Lookup::Live(_)) => assert!(!gone(name), "{name}"),
                Err(error) => {
                    assert!(gone(name), "{name}: {error}");
                    assert!(matches!(error.kind, Kind::Unreachable | Kind::Timeout), "{error}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(names.iter().any(|name| gone(name)) && !names.iter().all(|name| gone(name)));
        let lost = names.iter().find(|name| gone(name)).unwrap().clone();
        cluster.nodes[2].restart();
        eventually("the cluster takes it back", || {
            cluster.nodes[0].text(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
        });
        let until = Instant::now() + patience();
        while let Err(error) = store.create(&sid(&lost), &record, ends, now).await {
            assert!(Instant::now() < until, "{error}");
            tokio::task::yield_now().await;
        }
        live(store.load(&sid(&lost), now).await);
    });
}

#[test]
fn a_frozen_node_of_a_cluster_holds_up_its_own_sessions_only() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let deadline = Duration::from_millis(300);
    let kind = kind(cluster.urls(), true, "sess");
    let shared = SharedStore::open(StoreOptions { kind, deadline, max_payload: 10_000 }).unwrap();
    block_on(async {
        let (store, now) = (shared.attach(&Drain::new()), now());
        let (record, ends) = lasting("{}", now, 600_000);
        let names: Vec<String> = (0..30).map(|n| format!("s{n}")).collect();
        let owners: Vec<usize> = names.iter().map(|name| cluster.owner(&format!("sess:{name}"))).collect();
        recovered(&store).await;
        for name in &names {
            store.create(&sid(name), &record, ends, now).await.unwrap();
        }
        cluster.nodes[2].freeze();
        // Long enough for several renewals of the connections.
        let until = Instant::now() + 12 * deadline;
        let mut held_up = 0;
        while Instant::now() < until {
            for (name, owner) in names.iter().zip(&owners) {
                match store.load(&sid(name), now).await {
                    Ok(Lookup::Live(_)) => assert_ne!(*owner, 2, "{name}"),
                    Err(error) => {
                        assert_eq!(*owner, 2, "{name}: {error}");
                        assert!(matches!(error.kind, Kind::Unreachable | Kind::Timeout), "{error}");
                        held_up += 1;
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
        assert!(held_up > 2, "only {held_up}");
        cluster.nodes[2].thaw();
        let of_it = names.iter().zip(&owners).find(|(_, owner)| **owner == 2).unwrap().0;
        let until = Instant::now() + patience();
        while let Err(error) = store.load(&sid(of_it), now).await {
            assert!(Instant::now() < until, "{error}");
        }
    });
}
