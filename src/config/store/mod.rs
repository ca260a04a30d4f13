//! `[store]`: which kind it is, and what all kinds have. Tests: `tests/it/config.rs`.

mod crypto;
mod file;
mod mongodb;
mod redis;

use super::limits::usize_of;
use super::session::millis;
use super::walk::Table;
use crate::session::Millis;
use crate::store::StoreKind;
use std::time::Duration;

/// `[store]` as read.
pub(super) struct Store {
    /// `None` when a problem was reported.
    pub(super) kind: Option<StoreKind>,
    pub(super) ttl: Millis,
    pub(super) touch_after: Millis,
    /// Top-level keys that the store keeps for itself.
    pub(super) own_keys: Vec<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedded,
    Memory,
    Mongodb,
    Redis,
    File,
}

/// Keys of single kinds; the others belong to all.
const KEYS: &[(&str, &[Kind])] = &[
    ("path", &[Kind::Embedded, Kind::File]),
    ("max_memory", &[Kind::Memory]),
    ("url", &[Kind::Mongodb, Kind::Redis]),
    ("url_file", &[Kind::Mongodb, Kind::Redis]),
    ("database", &[Kind::Mongodb]),
    ("collection", &[Kind::Mongodb]),
    ("stringify", &[Kind::Mongodb]),
    ("timestamps", &[Kind::Mongodb]),
    ("auto_remove", &[Kind::Mongodb]),
    ("auto_remove_interval", &[Kind::Mongodb]),
    ("write_concern", &[Kind::Mongodb]),
    ("transform_id", &[Kind::Mongodb]),
    ("crypto", &[Kind::Mongodb]),
    ("cluster", &[Kind::Redis]),
    ("prefix", &[Kind::Redis]),
    ("disable_touch", &[Kind::Redis]),
    ("reap_interval", &[Kind::File]),
];

/// Reads `[store]`.
pub(super) fn store(table: &Table<'_>) -> Store {
    let names = [
        ("embedded", Kind::Embedded),
        ("memory", Kind::Memory),
        ("mongodb", Kind::Mongodb),
        ("redis", Kind::Redis),
        ("file", Kind::File),
    ];
    let kind = match table.get("kind") {
        None => Some(Kind::Embedded),
        Some(item) => item.choice(&names),
    };
    let ttl = table.duration("ttl", Duration::from_secs(1)).unwrap_or(Duration::from_secs(14 * 86_400));
    let touch_after = millis(table.duration("touch_after", Duration::ZERO).unwrap_or_default());
    for (key, kinds) in KEYS {
        // Asked for here in any case, so that a key of another kind is not called unknown.
        let Some(item) = table.get(key) else { continue };
        if kind.is_some_and(|kind| !kinds.contains(&kind)) {
            let of: Vec<String> = names
                .iter()
                .filter(|(_, kind)| kinds.contains(kind))
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            let hint = format!("remove it, or write kind = {}", of.join(" or "));
            item.walk.problem(&item.path, item.key_span.clone(), "not a key of this kind of store", hint);
        }
    }
    let options = match kind {
        None => None,
        Some(Kind::Embedded) => match table.get("path") {
            None => Some(StoreKind::Embedded { path: table.walk.base_dir.join("sessions.redb") }),
            Some(item) => item.path().map(|path| StoreKind::Embedded { path }),
        },
        Some(Kind::Memory) => {
            let max_bytes = usize_of(table.size("max_memory", 1 << 20..=1 << 40).unwrap_or(64 << 20));
            Some(StoreKind::Memory { max_bytes })
        }
        Some(Kind::Mongodb) => mongodb::mongodb(table, touch_after).map(StoreKind::Mongodb),
        Some(Kind::Redis) => redis::redis(table, millis(ttl)).map(StoreKind::Redis),
        Some(Kind::File) => file::file(table, millis(ttl)).map(StoreKind::File),
    };
    let own_keys = match kind {
        Some(Kind::Mongodb) if touch_after > 0 => vec!["lastModified"],
        Some(Kind::File) => vec!["__lastAccess"],
        _ => Vec::new(),
    };
    // connect-redis's `disableTouch`: no touch is ever due.
    let untouched = matches!(&options, Some(StoreKind::Redis(redis)) if redis.disable_touch);
    let touch_after = if untouched { Millis::MAX } else { touch_after };
    Store { kind: options, ttl: millis(ttl), touch_after, own_keys }
}
