//! `[store]` with kind "file": session-file-store's options. Tests: `tests/it/config.rs`.

use super::super::walk::Table;
use crate::session::Millis;
use crate::store::FileOptions;
use std::path::PathBuf;
use std::time::Duration;

/// session-file-store's `reapInterval`.
const REAP_INTERVAL: Duration = Duration::from_secs(3600);

/// Reads the keys of this kind. `ttl` is `store.ttl`.
pub(super) fn file(table: &Table<'_>, ttl: Millis) -> Option<FileOptions> {
    let path: Option<PathBuf> = match table.get("path") {
        None => Some(table.walk.base_dir.join("sessions")),
        Some(item) => item.path(),
    };
    let reap_interval = match table.get("reap_interval") {
        None => Some(REAP_INTERVAL),
        Some(item) if item.says("never") => None,
        Some(item) => Some(item.duration(Duration::from_secs(1))?),
    };
    Some(FileOptions { path: path?, ttl, reap_interval })
}
