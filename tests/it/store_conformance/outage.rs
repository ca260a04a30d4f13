//! A MongoDB that is down, frozen, or not there yet, and the TTL index that waits for it.

use super::mongodb::{open, options};
use super::words::{block_on, live, now, payload, record, sid};
use crate::support::mongod::Mongod;
use bson::{Bson, Document, doc};
use cloakroom::drain::Drain;
use cloakroom::store::error::Kind;
use cloakroom::store::{AutoRemove, Created, Lookup, Store};
use mongodb::{Client, IndexModel};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_millis(1500);
/// A busy machine may be late, but not by much.
const SLACK: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// Until it works again, without a new attach.
pub(super) async fn recovered(store: &Store) {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = store.ping().await {
        assert!(Instant::now() < until, "{error}");
        // A refusal may come without waiting; what ends it needs this thread.
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_killed_server_is_an_error_within_the_deadline_and_then_forgotten() {
    let mut mongod = Mongod::start();
    // An acknowledged write that survives the kill of a single server is one in its journal.
    let shared = open(options(mongod.url("outage?journal=true"), "sessions"), DEADLINE);
    block_on(async {
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        store.create(&sid("a"), &record("{\"n\":1}"), now + 600_000, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        mongod.kill();
        let began = Instant::now();
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                let store = store.clone();
                drain.spawn_local(async move { store.load(&sid(&format!("s{n}")), now).await })
            })
            .collect();
        let touch = store.touch(&sid("a"), &loaded, now + 700_000, now).await.unwrap_err();
        assert!(matches!(touch.kind, Kind::Unreachable | Kind::Timeout), "{touch}");
        for task in tasks {
            let error = task.await.unwrap().unwrap_err();
            assert!(matches!(error.kind, Kind::Unreachable | Kind::Timeout), "{error}");
        }
        assert!(began.elapsed() < DEADLINE + SLACK, "{:?}", began.elapsed());
        assert!(store.ping().await.is_err());
        mongod.restart();
        recovered(&store).await;
        assert_eq!(payload(&live(store.load(&sid("a"), now).await)), "{\"n\":1}");
        assert!(drain.finished(PATIENCE).await, "tasks are left");
    });
}

#[test]
fn a_frozen_server_holds_nobody_longer_than_the_deadline() {
    let mongod = Mongod::start();
    let shared = open(options(mongod.url("frozen"), "sessions"), DEADLINE);
    block_on(async {
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        store.create(&sid("a"), &record("{}"), now + 600_000, now).await.unwrap();
        mongod.freeze();
        // Several rounds: a batch that hangs gives its place away, so every round is answered in its own time.
        for _ in 0..3 {
            let began = Instant::now();
            let error = store.load(&sid("a"), now).await.unwrap_err();
            assert_eq!(error.kind, Kind::Timeout, "{error}");
            assert!(began.elapsed() < DEADLINE + SLACK, "{:?}", began.elapsed());
        }
        let error = store.create(&sid("b"), &record("{}"), now + 600_000, now).await.unwrap_err();
        assert_eq!(error.kind, Kind::Timeout, "{error}");
        mongod.thaw();
        recovered(&store).await;
        live(store.load(&sid("a"), now).await);
        assert!(drain.finished(PATIENCE).await, "tasks are left");
        // The write whose caller had given up was not dropped.
        assert!(matches!(
            store.create(&sid("b"), &record("{\"n\":2}"), now + 600_000, now).await,
            Ok(Created::Exists)
        ));
    });
}

/// Forwards to a server; connections made before [`Relay::stall`] hear nothing from it any more, later ones are well.
pub(super) struct Relay {
    pub(super) port: u16,
    made: Rc<Cell<usize>>,
    stalled: Rc<Cell<usize>>,
}

impl Relay {
    pub(super) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (made, stalled) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let relay = Self { port, made: Rc::clone(&made), stalled: Rc::clone(&stalled) };
        tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = made.replace(made.get() + 1);
                let stalled = Rc::clone(&stalled);
                tokio::task::spawn_local(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) =
                        TcpStream::connect(server).await.unwrap().into_split();
                    tokio::task::spawn_local(async move {
                        tokio::io::copy(&mut from_client, &mut to_server).await.ok();
                    });
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
                        if number < stalled.get() {
                            std::future::pending::<()>().await;
                        }
                        to_client.write_all(&buffer[..length]).await.ok();
                    }
                });
            }
        });
        relay
    }

    pub(super) fn stall(&self) {
        self.stalled.set(self.made.get());
    }
}

#[test]
fn a_stalled_connection_gives_its_place_to_the_next_read() {
    let mongod = Mongod::start();
    let deadline = Duration::from_millis(500);
    block_on(async {
        let relay = Relay::to(mongod.address()).await;
        let url = format!("mongodb://127.0.0.1:{}/stalled", relay.port);
        let shared = open(options(url, "sessions"), deadline);
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        recovered(&store).await;
        // Several connections in the pool, so that more reads hang than may fly at once.
        let tasks: Vec<_> = (0..40)
            .map(|n| {
                let store = store.clone();
                drain.spawn_local(async move {
                    store.create(&sid(&format!("s{n}")), &record("{}"), now + 60_000, now).await.ok()
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        relay.stall();
        let mut hung = 0;
        while let Err(error) = store.load(&sid("s1"), now).await {
            assert_eq!(error.kind, Kind::Timeout, "{error}");
            hung += 1;
            assert!(hung <= 10, "a read never found a connection that works");
        }
        assert!(hung > 2, "only {hung} connections were stalled; the test has shown nothing");
    });
}

#[test]
fn too_many_operations_wait_for_a_place_until_the_deadline() {
    let mongod = Mongod::start();
    let shared = open(options(mongod.url("many"), "sessions"), DEADLINE);
    block_on(async {
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        store.ping().await.unwrap();
        mongod.freeze();
        let began = Instant::now();
        let tasks: Vec<_> = (0..1000)
            .map(|n| {
                let store = store.clone();
                tokio::task::spawn_local(async move {
                    store.create(&sid(&format!("s{n}")), &record("{}"), now + 60_000, now).await
                })
            })
            .collect();
        let mut overloaded = 0;
        // The last ones first: would they not wait, they would be refused before the others are late.
        for (n, task) in tasks.into_iter().enumerate().rev() {
            let error = task.await.unwrap().unwrap_err();
            assert!(began.elapsed() >= DEADLINE, "refused after {:?}", began.elapsed());
            overloaded += usize::from(error.kind == Kind::Overloaded);
            assert!(n >= 512 || error.kind != Kind::Overloaded, "{n}: {error}");
        }
        assert!(began.elapsed() < DEADLINE + SLACK, "{:?}", began.elapsed());
        // But for one or the other whose place the driver freed at the last moment by giving up itself.
        assert!(overloaded > 400, "only {overloaded} found no place");
        mongod.thaw();
        recovered(&store).await;
        assert!(drain.finished(PATIENCE).await, "tasks are left");
        // Who was refused has written nothing.
        assert!(matches!(store.load(&sid("s999"), now).await, Ok(Lookup::Absent)));
    });
}

#[test]
fn the_index_is_made_when_the_server_comes_and_once() {
    let mut mongod = Mongod::prepare();
    let mut wanted = options(mongod.url("late"), "sessions");
    wanted.auto_remove = AutoRemove::Native;
    let shared = open(wanted, DEADLINE);
    block_on(async {
        let drain = Drain::new();
        let (store, _second) = (shared.attach(&drain), shared.attach(&drain));
        assert!(store.ping().await.is_err());
        mongod.restart();
        let client = Client::with_uri_str(mongod.url("late")).await.unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "no index");
            let listed = client.database("late").run_command(doc! { "listIndexes": "sessions" }).await;
            let Ok(listed) = listed else { continue };
            let indexes = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
            let Some(made) = indexes
                .iter()
                .filter_map(Bson::as_document)
                .find(|index| index.get_str("name").is_ok_and(|name| name == "expires_1"))
            else {
                continue;
            };
            // What connect-mongo 6 leaves, printed by the Node driver.
            let expected = doc! { "v": 2, "key": { "expires": 1 }, "name": "expires_1", "background": true, "expireAfterSeconds": 0 };
            assert_eq!(made, &expected);
            break;
        }
    });
}

#[test]
fn an_index_that_differs_stops_nothing() {
    let mongod = Mongod::start();
    let mut wanted = options(mongod.url("differs"), "sessions");
    wanted.auto_remove = AutoRemove::Native;
    let shared = open(wanted, DEADLINE);
    block_on(async {
        let client = Client::with_uri_str(mongod.url("differs")).await.unwrap();
        let documents = client.database("differs").collection::<Document>("sessions");
        documents.create_index(IndexModel::builder().keys(doc! { "expires": 1 }).build()).await.unwrap();
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        // The attempt is over when nothing is left under way.
        assert!(drain.finished(PATIENCE).await);
        store.create(&sid("a"), &record("{}"), now + 60_000, now).await.unwrap();
        live(store.load(&sid("a"), now).await);
        assert_eq!(documents.list_index_names().await.unwrap(), ["_id_", "expires_1"]);
    });
}

#[test]
fn the_interval_removes_what_has_expired() {
    let mongod = Mongod::start();
    let mut wanted = options(mongod.url("interval"), "sessions");
    wanted.auto_remove = AutoRemove::Interval(Duration::from_millis(50));
    let shared = open(wanted, DEADLINE);
    block_on(async {
        let (store, now) = (shared.attach(&Drain::new()), now());
        store.create(&sid("old"), &record("{}"), now - 1000, now - 2000).await.unwrap();
        store.create(&sid("live"), &record("{}"), now + 600_000, now).await.unwrap();
        let client = Client::with_uri_str(mongod.url("interval")).await.unwrap();
        let documents = client.database("interval").collection::<Document>("sessions");
        let until = Instant::now() + PATIENCE;
        while documents.find_one(doc! { "_id": "old" }).await.unwrap().is_some() {
            assert!(Instant::now() < until, "never removed");
        }
        live(store.load(&sid("live"), now).await);
    });
}

#[test]
fn disabled_makes_no_index_and_removes_nothing() {
    let mongod = Mongod::start();
    let shared = open(options(mongod.url("disabled"), "sessions"), DEADLINE);
    block_on(async {
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        store.create(&sid("old"), &record("{}"), now - 1000, now - 2000).await.unwrap();
        assert!(drain.finished(PATIENCE).await);
        let client = Client::with_uri_str(mongod.url("disabled")).await.unwrap();
        let documents = client.database("disabled").collection::<Document>("sessions");
        assert_eq!(documents.list_index_names().await.unwrap(), ["_id_"]);
        // Not served all the same.
        assert!(matches!(store.load(&sid("old"), now).await, Ok(Lookup::Absent)));
        assert!(documents.find_one(doc! { "_id": "old" }).await.unwrap().is_some());
    });
}
