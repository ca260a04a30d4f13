//! More operations at once than may be under way, on a store that is well: they wait for a place, and none is refused.

use super::words::{Place, TTL, block_on, live, minute, now, payload, sid};
use crate::support::mongod::Mongod;
use crate::support::redis::Redis;
use cloakroom::drain::Drain;
use cloakroom::store::{
    Created, FileOptions, SharedStore, Store, StoreError, StoreKind, StoreOptions, Swapped, Version,
};
use std::time::Duration;

/// Several times what may be under way, of a worker or of the process.
const BURST: usize = 3000;

/// `BURST` operations, all begun before any has ended; their answers in order.
async fn burst<T: 'static, F>(store: &Store, operation: impl Fn(Store, usize) -> F) -> Vec<T>
where
    F: Future<Output = Result<T, StoreError>> + 'static,
{
    let tasks: Vec<_> = (0..BURST).map(|n| tokio::task::spawn_local(operation(store.clone(), n))).collect();
    let mut answers = Vec::with_capacity(BURST);
    for task in tasks {
        answers.push(task.await.unwrap().unwrap_or_else(|error| panic!("{error}")));
    }
    answers
}

fn is_served(kind: StoreKind) {
    // It is the bound that is tried here, not the disk of whoever runs this.
    let deadline = Duration::from_secs(120);
    let shared = SharedStore::open(StoreOptions { kind, deadline, max_payload: 1000 }).unwrap();
    block_on(async {
        let drain = Drain::new();
        let (store, now) = (shared.attach(&drain), now());
        let name = |n: usize| sid(&format!("s{n}"));
        let made = burst(&store, |store, n| async move {
            let (record, ends) = minute("{\"n\":1}", now);
            store.create(&name(n), &record, ends, now).await
        })
        .await;
        let versions: Vec<Version> = made
            .into_iter()
            .map(|made| match made {
                Created::Done(version) => version,
                Created::Exists => panic!("it exists"),
            })
            .collect();
        let saved = burst(&store, |store, n| {
            let version = versions[n].clone();
            async move {
                let (record, ends) = minute("{\"n\":2}", now);
                store.update(&name(n), &version, &record, ends, now).await
            }
        })
        .await;
        assert!(saved.iter().all(|saved| matches!(saved, Swapped::Done(_))));
        let found = burst(&store, |store, n| async move { store.load(&name(n), now).await }).await;
        assert!(found.into_iter().all(|found| payload(&live(Ok(found))) == "{\"n\":2}"));
        assert!(drain.finished(Duration::from_secs(20)).await, "tasks are left");
    });
}

#[test]
fn a_burst_on_mongodb_is_served() {
    let mongod = Mongod::start();
    is_served(StoreKind::Mongodb(super::mongodb::options(mongod.url("burst"), "sessions")));
}

#[test]
fn a_burst_on_redis_is_served() {
    let server = Redis::start();
    is_served(super::redis::kind(vec![server.url("", 0)], false, "burst"));
}

#[test]
fn a_burst_on_files_is_served() {
    let place = Place::new();
    is_served(StoreKind::File(FileOptions { path: place.path("sessions"), ttl: TTL, reap_interval: None }));
}
