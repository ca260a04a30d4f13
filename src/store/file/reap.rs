//! Removing what has expired, for a directory that nobody sweeps otherwise. One task of the process, in the background.
//!
//! Expiry itself never depends on it, every read checks. It does its disk work on one thread of its own, a bounded number of files
//! at a time, so that a directory of any size delays nobody. Tests: `tests/it/store_conformance/file.rs`.

use super::directory::{Directory, clock};
use super::disk::explain;
use super::{Files, FilesShared};
use crate::drain::Drain;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Files that are looked at before anybody else may have the thread, and before a stop is noticed.
const BATCH: usize = 256;

type Names = Box<dyn Iterator<Item = io::Result<String>> + Send>;

/// What one look at the directory did.
#[derive(Default)]
struct Swept {
    removed: u64,
    /// Files that could not be looked at or removed, and why the last of them could not.
    failed: u64,
    why: String,
}

/// Starts the reaping, unless another worker of this process has it. The loop is not tracked: the stop must not wait for it.
pub(super) fn start(files: &Rc<Files>) {
    let Some(pause) = files.shared.reap_interval else { return };
    if files.shared.reaping.swap(true, Ordering::AcqRel) {
        return;
    }
    let (shared, drain) = (Arc::downgrade(&files.shared), files.drain.clone());
    tokio::task::spawn_local(keep_reaping(shared, drain, pause));
}

async fn keep_reaping(shared: Weak<FilesShared>, drain: Drain, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else { return };
        match sweep(&shared.directory, &drain).await {
            Ok(Swept { removed, failed: 0, .. }) => {
                tracing::debug!(removed, "expired session files are removed")
            }
            Ok(Swept { removed, failed, why }) => {
                tracing::warn!(removed, failed, %why, "some expired session files cannot be removed");
            }
            Err(error) => {
                let (_, why) = explain(&error);
                tracing::warn!(%why, "expired session files cannot be removed");
            }
        }
    }
}

async fn sweep(directory: &Arc<Directory>, drain: &Drain) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let mut names: Option<Names> = None;
    while !drain.is_stopping() {
        let directory = Arc::clone(directory);
        let batch = tokio::task::spawn_blocking(move || {
            let mut names = match names {
                Some(names) => names,
                None => Box::new(directory.disk.names()?),
            };
            let over = sweep_some(&directory, &mut names, &mut swept)?;
            Ok::<_, io::Error>((over, names, swept))
        });
        // It does not panic; if it did, the next round begins anew.
        let (over, rest, so_far) = batch.await.map_err(io::Error::other)??;
        swept = so_far;
        if over {
            break;
        }
        names = Some(rest);
    }
    Ok(swept)
}

/// `true` when that was all.
fn sweep_some(directory: &Directory, names: &mut Names, swept: &mut Swept) -> io::Result<bool> {
    let now = clock();
    for _ in 0..BATCH {
        let Some(name) = names.next() else { return Ok(true) };
        match directory.reap(&name?, now) {
            Ok(removed) => swept.removed += u64::from(removed),
            // Gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                swept.failed += 1;
                swept.why = explain(&error).1;
            }
        }
    }
    Ok(false)
}
