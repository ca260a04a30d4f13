//! `[store]`. Tests: `tests/it/config.rs`.

use super::item::Item;
use super::limits::usize_of;
use super::secret;
use super::session::millis;
use super::walk::{NOT_BUILT, Table};
use crate::session::Millis;
use crate::store::{
    Acknowledge, AutoRemove, MongoOptions, StoreKind, WriteConcernOptions, check_mongodb_url,
};
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
}

/// Keys of single kinds; the others belong to all.
const KEYS: &[(&str, &[Kind])] = &[
    ("path", &[Kind::Embedded]),
    ("max_memory", &[Kind::Memory]),
    ("url", &[Kind::Mongodb]),
    ("url_file", &[Kind::Mongodb]),
    ("database", &[Kind::Mongodb]),
    ("collection", &[Kind::Mongodb]),
    ("stringify", &[Kind::Mongodb]),
    ("timestamps", &[Kind::Mongodb]),
    ("auto_remove", &[Kind::Mongodb]),
    ("auto_remove_interval", &[Kind::Mongodb]),
    ("write_concern", &[Kind::Mongodb]),
];

const NOT_BUILT_KEYS: [(&str, &str); 3] = [
    ("crypto", "remove it: sessions are stored as plain JSON; encrypt the volume or the collection instead"),
    ("transform_id", "remove it: the sid is stored as it is"),
    ("prefix", "remove it: it belongs to kind = \"redis\""),
];

/// Reads `[store]`.
pub(super) fn store(table: &Table<'_>) -> Store {
    let names = [("embedded", Kind::Embedded), ("memory", Kind::Memory), ("mongodb", Kind::Mongodb)];
    let item = table.get("kind");
    let kind = match &item {
        None => Some(Kind::Embedded),
        Some(item) if item.says("redis") || item.says("file") => {
            item.problem(
                NOT_BUILT,
                "use \"mongodb\" to share sessions between machines, \"embedded\" on one",
            );
            None
        }
        Some(item) => item.choice(&names),
    };
    for (key, instead) in NOT_BUILT_KEYS {
        table.not_built(key, instead);
    }
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
        Some(Kind::Mongodb) => mongodb(table, touch_after).map(StoreKind::Mongodb),
    };
    let own_keys =
        if kind == Some(Kind::Mongodb) && touch_after > 0 { vec!["lastModified"] } else { Vec::new() };
    Store { kind: options, ttl: millis(ttl), touch_after, own_keys }
}

fn mongodb(table: &Table<'_>, touch_after: Millis) -> Option<MongoOptions> {
    let given = table.get("url").is_some() || table.get("url_file").is_some();
    if !given {
        table.problem("url", "missing", "write url = \"mongodb://127.0.0.1:27017/app\"");
    }
    let url = secret::text(table, "url", "url_file").and_then(|(url, item)| mongodb_url(url, &item));
    let name = |key: &'static str, forbidden: &str| {
        let item = table.get(key)?;
        let text = item.text()?;
        let sound =
            !text.value.is_empty() && !text.value.contains(|c: char| c == '\0' || forbidden.contains(c));
        if !sound {
            item.problem(format!("`{}` is not a {key} name", text.shown), "use letters, digits, - and _");
        }
        sound.then_some(text.value)
    };
    Some(MongoOptions {
        database: name("database", "/\\. \"$"),
        collection: name("collection", "$").unwrap_or_else(|| "sessions".to_owned()),
        stringify: table.flag("stringify").unwrap_or(true),
        timestamps: table.flag("timestamps").unwrap_or(false),
        touch_after,
        auto_remove: auto_remove(table),
        write_concern: table.get("write_concern").and_then(|item| write_concern(&item)),
        url: url?,
    })
}

/// The outline only: the store's driver has the last word. What stands in a URL is never shown, it may be a password.
fn mongodb_url(url: String, item: &Item<'_>) -> Option<String> {
    let rest = url.strip_prefix("mongodb://").or_else(|| url.strip_prefix("mongodb+srv://"));
    let hosts = rest.map(|rest| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default()
    });
    let cure =
        "write \"mongodb://host:27017/database\"; percent-encode special characters in user and password";
    match hosts {
        None => item.problem("not a MongoDB URL: it begins with mongodb:// or mongodb+srv://", cure),
        Some(hosts) if hosts.split(',').any(str::is_empty) => {
            item.problem("a MongoDB URL without a host", cure)
        }
        // The driver's own opinion: ports, options, encodings.
        Some(_) => match check_mongodb_url(&url) {
            Ok(()) => return Some(url),
            Err(why) => item.problem(format!("not a MongoDB URL that the driver takes: {why}"), cure),
        },
    }
    None
}

/// `{ w = "majority", j = true, wtimeout = "5s" }`, or `w` alone.
fn write_concern(item: &Item<'_>) -> Option<WriteConcernOptions> {
    if !item.is_table() {
        return Some(WriteConcernOptions { w: acknowledge(item), ..WriteConcernOptions::default() });
    }
    let table = item.table()?;
    Some(WriteConcernOptions {
        w: table.get("w").and_then(|item| acknowledge(&item)),
        journal: table.flag("j"),
        timeout: table.duration("wtimeout", Duration::from_millis(1)),
    })
}

fn acknowledge(item: &Item<'_>) -> Option<Acknowledge> {
    if item.integer().is_some() {
        // 50 is the most members that a replica set has.
        return item.count(1..=50).and_then(|nodes| u32::try_from(nodes).ok()).map(Acknowledge::Nodes);
    }
    let text = item.text()?;
    match text.value.as_str() {
        "majority" => Some(Acknowledge::Majority),
        "" => {
            item.problem("an empty write concern", "write w = \"majority\", or a number of nodes");
            None
        }
        _ => Some(Acknowledge::Named(text.value)),
    }
}

fn auto_remove(table: &Table<'_>) -> AutoRemove {
    let every = table.get("auto_remove_interval");
    let interval = every.as_ref().and_then(|item| item.duration(Duration::from_secs(1)));
    let default = AutoRemove::Interval(interval.unwrap_or(Duration::from_secs(600)));
    let choices = [("native", AutoRemove::Native), ("interval", default), ("disabled", AutoRemove::Disabled)];
    let chosen = table.choice("auto_remove", &choices).unwrap_or(AutoRemove::Native);
    if let (Some(item), AutoRemove::Native | AutoRemove::Disabled) = (every, chosen) {
        let what = "auto_remove_interval without auto_remove = \"interval\"";
        item.walk.warning(
            &item.path,
            item.key_span.clone(),
            what,
            "remove it, or write auto_remove = \"interval\"",
        );
    }
    chosen
}
