//! Small words for tests of the store.

use crate::support::patience;
use cloakroom::drain::Drain;
use cloakroom::session::Millis;
use cloakroom::session::record::Record;
use cloakroom::session::sid::Sid;
use cloakroom::store::{Loaded, Lookup, Store, StoreError};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// `store.ttl` in these tests, milliseconds: how long a session without a max age lasts where the store derives it.
pub(crate) const TTL: Millis = 70_000;
/// A store's clock and ours may be read so far apart, milliseconds.
const APART: Millis = 50;

/// A directory of its own, gone at the end.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cloakroom-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Whose clock decides what has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// The `now` of each call: time is told, exact to the millisecond, and passes at once.
    Told,
    /// The store's own (redis): time has to pass, and lives are whole seconds, rounded up.
    Real,
}

/// A fresh store that a rule is tried on.
pub(crate) struct Subject {
    pub(crate) store: Store,
    pub(crate) drain: Drain,
    pub(crate) time: Time,
}

impl Subject {
    /// It is `moment`, or a little later: what to pass as `now`.
    pub(crate) async fn at(&self, moment: Millis) -> Millis {
        if self.time == Time::Told {
            return moment;
        }
        tokio::time::sleep(Duration::from_millis(u64::try_from(moment - now()).unwrap_or(0))).await;
        now().max(moment)
    }

    /// The session that ends at `ends` has ended, at that moment and no earlier: what to pass as `now`.
    pub(crate) async fn ended(&self, sid: &Sid, ends: Millis) -> Millis {
        if self.time == Time::Told {
            assert!(matches!(self.store.load(sid, ends).await, Ok(Lookup::Absent)), "it has not ended");
            return ends;
        }
        let until = Instant::now() + patience();
        // Twice, because in a key's last millisecond the server still has what is absent to us.
        let mut absent = 0;
        while absent < 2 {
            match self.store.load(sid, now()).await.unwrap() {
                Lookup::Absent => absent += 1,
                other => assert!(Instant::now() < until, "it has not ended: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let gone = now();
        assert!(gone >= ends - APART, "ended {} ms early", ends - gone);
        gone.max(ends)
    }

    /// Is this the end of what was written at `written` for `ms` milliseconds?
    #[track_caller]
    pub(crate) fn ends(&self, found: Option<Millis>, written: Millis, ms: Millis) {
        let Some(found) = found else { panic!("it never ends") };
        let (wanted, late) = (written + ms, now() - written);
        match self.time {
            Time::Told => assert_eq!(found, wanted),
            Time::Real => assert!(
                (wanted - APART..wanted + 1000 + late + APART).contains(&found),
                "{found} is {} from {wanted}",
                found - wanted
            ),
        }
    }
}

/// Runs as a worker does: one thread, `spawn_local`.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

pub(crate) fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

pub(crate) fn sid(text: &str) -> Sid {
    Sid::from_text(text).unwrap()
}

/// A record with these data.
pub(crate) fn record(data: &str) -> Record {
    Record::parse_json(data).unwrap()
}

/// A record with these data whose cookie says that it lasts `ms` milliseconds from `now` on, and when that ends.
pub(crate) fn lasting(data: &str, now: Millis, ms: Millis) -> (Record, Millis) {
    let mut record = record(data);
    record.cookie.original_max_age = Some(ms);
    record.cookie.expires = Some(now + ms);
    record.cookie_missing = false;
    (record, now + ms)
}

/// The same for a minute.
pub(crate) fn minute(data: &str, now: Millis) -> (Record, Millis) {
    lasting(data, now, 60_000)
}

pub(crate) fn payload(loaded: &Loaded) -> &str {
    std::str::from_utf8(loaded.record.payload.as_bytes()).unwrap()
}

pub(crate) fn live(found: Result<Lookup, StoreError>) -> Loaded {
    match found {
        Ok(Lookup::Live(loaded)) => loaded,
        other => panic!("not live: {other:?}"),
    }
}
