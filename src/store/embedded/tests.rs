//! What the disk can do to the file: errors in the middle, and what survives them.

use super::super::{Loaded, VersionKind};
use super::*;
use redb::{Builder, Database, StorageBackend, backends::FileBackend};
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;

/// A file whose disk can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device")),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cloakroom-disk-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn open_on_disk(path: PathBuf, full: Arc<AtomicBool>) -> Embedded {
    let open = move || -> Result<Database, String> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let disk = Disk { file: FileBackend::new(file).unwrap(), full: Arc::clone(&full) };
        let database = Builder::new().create_with_backend(disk).map_err(|error| error.to_string())?;
        file::prepare(&database)?;
        Ok(database)
    };
    Embedded::open_with(Box::new(open), Duration::from_secs(5), 1000).unwrap()
}

fn sid(text: &str) -> Sid {
    Sid::from_text(text).unwrap()
}

fn record() -> Record {
    Record::parse_json(r#"{"cookie":{"originalMaxAge":1000},"a":1}"#).unwrap()
}

fn live(found: Result<Lookup, StoreError>) -> Loaded {
    match found {
        Ok(Lookup::Live(loaded)) => loaded,
        other => panic!("not live: {other:?}"),
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

#[test]
fn a_full_disk_refuses_and_the_writer_survives() {
    let place = Place::new("full");
    let full = Arc::new(AtomicBool::new(false));
    let store = open_on_disk(place.0.join("s.redb"), Arc::clone(&full));
    let now = now();
    block_on(async {
        store.create(&sid("kept"), &record(), now + 60_000, now).await.unwrap();
        let kept = live(store.load(&sid("kept"), now)).version;
        full.store(true, Ordering::SeqCst);
        let error = store.create(&sid("lost"), &record(), now + 60_000, now).await.unwrap_err();
        assert_eq!(error.kind, Kind::Refused, "{error}");
        assert!(store.ping().is_err());
        assert!(store.touch(&sid("kept"), &kept, now + 90_000, now).is_err());
        full.store(false, Ordering::SeqCst);
        assert!(matches!(
            store.create(&sid("later"), &record(), now + 60_000, now).await,
            Ok(Created::Done(_))
        ));
        store.ping().unwrap();
        live(store.load(&sid("kept"), now));
        live(store.load(&sid("later"), now));
        assert!(matches!(store.load(&sid("lost"), now), Ok(Lookup::Absent)));
    });
}

#[test]
fn a_disk_that_recovers_is_noticed_without_any_request() {
    let place = Place::new("recovers");
    let full = Arc::new(AtomicBool::new(false));
    let store = open_on_disk(place.0.join("s.redb"), Arc::clone(&full));
    let now = now();
    block_on(store.create(&sid("kept"), &record(), now + 60_000, now)).unwrap();
    full.store(true, Ordering::SeqCst);
    block_on(store.destroy(&sid("kept"))).unwrap_err();
    full.store(false, Ordering::SeqCst);
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while store.ping().is_err() {
        assert!(std::time::Instant::now() < until, "the writer never tried again");
        std::thread::yield_now();
    }
    live(store.load(&sid("kept"), now));
}

#[test]
fn expired_rows_are_swept_and_extended_ones_are_not() {
    let place = Place::new("sweep");
    let path = place.0.join("s.redb");
    let store = Embedded::open(&path, Duration::from_secs(5), 1000).unwrap();
    let long_ago = now() - 100_000;
    block_on(async {
        for name in ["old", "extended"] {
            store.create(&sid(name), &record(), long_ago + 10, long_ago).await.unwrap();
        }
    });
    let extended = live(store.load(&sid("extended"), long_ago)).version;
    assert_eq!(store.touch(&sid("extended"), &extended, now() + 60_000, long_ago).unwrap(), Touched::Done);
    let rows = |name: &str| store.inner.read(Op::Load, &sid(name), |row| row.is_some()).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while rows("old") {
        assert!(std::time::Instant::now() < until, "never swept");
        std::thread::yield_now();
    }
    assert!(rows("extended"));
}

#[test]
fn a_row_that_cannot_be_read_is_never_overwritten() {
    let place = Place::new("foreign");
    let path = place.0.join("s.redb");
    let database = file::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(file::SESSIONS).unwrap().insert("odd", &[9_u8, 9, 9][..]).unwrap();
    txn.commit().unwrap();
    drop(database);
    let store = Embedded::open(&path, Duration::from_secs(5), 1000).unwrap();
    let any = Version(VersionKind::Revision(1));
    block_on(async {
        assert!(matches!(store.load(&sid("odd"), 1), Ok(Lookup::Unreadable(_))));
        assert!(matches!(store.create(&sid("odd"), &record(), 100, 1).await, Ok(Created::Exists)));
        let swapped = store.update(&sid("odd"), &any, &record(), 100, 1).await.unwrap();
        assert!(matches!(swapped, Swapped::Conflict(found) if matches!(*found, Lookup::Unreadable(_))));
        assert_eq!(store.touch(&sid("odd"), &any, 100, 1).unwrap(), Touched::Absent);
        assert!(store.destroy(&sid("odd")).await.unwrap());
    });
}
