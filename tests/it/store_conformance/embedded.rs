//! What the embedded store promises beyond the common rules: what was answered is on disk.

use super::words::{Place, block_on, live, now, payload, record, sid};
use cloakroom::drain::Drain;
use cloakroom::store::{Lookup, SharedStore, Store, StoreKind, StoreOptions, Swapped, Touched};
use std::path::Path;
use std::time::{Duration, Instant};

fn open(path: &Path) -> SharedStore {
    let kind = StoreKind::Embedded { path: path.to_owned() };
    SharedStore::open(StoreOptions { kind, deadline: Duration::from_secs(10), max_payload: 10_000 }).unwrap()
}

fn with<T>(shared: &SharedStore, work: impl AsyncFnOnce(Store) -> T) -> T {
    block_on(async { work(shared.attach(&Drain::new())).await })
}

#[test]
fn a_restart_keeps_data_touches_and_versions() {
    let place = Place::new();
    let path = place.path("s.redb");
    let now = now();
    let shared = open(&path);
    let before = with(&shared, async |store| {
        store.create(&sid("a"), &record(r#"{"n":1}"#), now + 1000, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        assert_eq!(store.touch(&sid("a"), &loaded, now + 90_000, now + 10).await.unwrap(), Touched::Done);
        loaded
    });
    shared.close();
    let shared = open(&path);
    with(&shared, async |store| {
        let after = live(store.load(&sid("a"), now + 2000).await);
        assert_eq!((payload(&after), after.expires_at), (r#"{"n":1}"#, Some(now + 90_000)));
        assert_eq!((after.touched_at, after.record.created_at), (Some(now + 10), Some(now)));
        assert_eq!(after.version, before.version);
        let done =
            store.update(&sid("a"), &before.version, &record("{}"), now + 90_000, now + 2000).await.unwrap();
        let Swapped::Done(version) = done else { panic!("{done:?}") };
        assert_ne!(version, before.version);
        assert_eq!(live(store.load(&sid("a"), now + 2000).await).record.created_at, Some(now));
    });
}

#[test]
fn a_kill_loses_nothing_that_was_answered() {
    let place = Place::new();
    let now = now();
    let shared = open(&place.path("s.redb"));
    with(&shared, async |store| {
        for n in 0..50 {
            store.create(&sid(&format!("s{n}")), &record("{}"), now + 60_000, now).await.unwrap();
        }
        assert!(store.destroy(&sid("s7")).await.unwrap());
    });
    // The file as it is while the process runs is what a kill leaves behind.
    std::fs::copy(place.path("s.redb"), place.path("killed.redb")).unwrap();
    let killed = open(&place.path("killed.redb"));
    with(&killed, async |store| {
        for n in 0..50 {
            let found = store.load(&sid(&format!("s{n}")), now).await;
            assert_eq!(matches!(found, Ok(Lookup::Live(_))), n != 7, "{n}: {found:?}");
        }
    });
}

#[test]
fn a_touch_reaches_the_disk_by_itself() {
    let place = Place::new();
    let now = now();
    let shared = open(&place.path("s.redb"));
    with(&shared, async |store| {
        store.create(&sid("a"), &record("{}"), now + 1000, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        store.touch(&sid("a"), &loaded, now + 90_000, now).await.unwrap();
    });
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < until, "the touch was never written");
        std::fs::copy(place.path("s.redb"), place.path("copy.redb")).unwrap();
        // A copy that was taken in the middle of a commit may be one that cannot be opened.
        let kind = StoreKind::Embedded { path: place.path("copy.redb") };
        let options = StoreOptions { kind, deadline: Duration::from_secs(1), max_payload: 10_000 };
        let Ok(copy) = SharedStore::open(options) else { continue };
        let found = with(&copy, async |store| store.load(&sid("a"), now + 2000).await);
        if matches!(found, Ok(Lookup::Live(_))) {
            break;
        }
    }
}

#[test]
fn workers_share_the_file_and_what_is_not_on_disk_yet() {
    let place = Place::new();
    let shared = open(&place.path("s.redb"));
    let now = now();
    with(&shared, async |store| {
        store.create(&sid("a"), &record("{}"), now + 1000, now).await.unwrap();
        let loaded = live(store.load(&sid("a"), now).await);
        store.touch(&sid("a"), &loaded, now + 90_000, now).await.unwrap();
    });
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                with(&shared, async |store| {
                    assert_eq!(live(store.load(&sid("a"), now + 2000).await).expires_at, Some(now + 90_000));
                });
            });
        }
    });
}

#[test]
fn after_the_close_nothing_is_served_and_the_file_is_free() {
    let place = Place::new();
    let path = place.path("s.redb");
    let now = now();
    let shared = open(&path);
    block_on(async {
        let store = shared.attach(&Drain::new());
        store.create(&sid("a"), &record("{}"), now + 60_000, now).await.unwrap();
        shared.close();
        assert!(store.load(&sid("a"), now).await.is_err());
        assert!(store.create(&sid("b"), &record("{}"), now + 60_000, now).await.is_err());
        assert!(store.ping().await.is_err());
        let again = open(&path).attach(&Drain::new());
        live(again.load(&sid("a"), now).await);
    });
}
