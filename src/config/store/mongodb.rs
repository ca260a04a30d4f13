//! `[store]` with kind "mongodb": connect-mongo's options. Tests: `tests/it/config.rs`.

use super::super::item::Item;
use super::super::secret;
use super::super::walk::Table;
use super::crypto;
use crate::session::Millis;
use crate::store::{
    Acknowledge, AutoRemove, IdHash, MongoOptions, TextEncoding, TransformId, WriteConcernOptions,
    check_mongodb_url,
};
use std::time::Duration;

pub(super) fn mongodb(table: &Table<'_>, touch_after: Millis) -> Option<MongoOptions> {
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
        transform_id: table.get("transform_id").and_then(|item| transform_id(&item)),
        crypto: table.get("crypto").and_then(|item| crypto::crypto(&item.table()?).map(Box::new)),
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
            Ok(()) => {
                warn_about_reads(&url, item);
                return Some(url);
            }
            Err(why) => item.problem(format!("not a MongoDB URL that the driver takes: {why}"), cure),
        },
    }
    None
}

/// Node's driver has the same option, and its users the same surprises.
fn warn_about_reads(url: &str, item: &Item<'_>) {
    let options = url.split_once('?').map(|(_, options)| options.to_ascii_lowercase()).unwrap_or_default();
    let elsewhere = options
        .split('&')
        .filter_map(|option| option.strip_prefix("readpreference="))
        .any(|preference| preference != "primary");
    if elsewhere {
        item.warning(
            "readPreference lets sessions be read from a secondary, which may show them as they were before the last change or logout",
            "remove it, unless the primary cannot carry the reads",
        );
    }
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

/// `"sha256"`, or `{ hash = "sha256", encoding = "hex", prefix = "" }`: connect-mongo takes any function, these are the ones in use.
fn transform_id(item: &Item<'_>) -> Option<TransformId> {
    const HASHES: [(&str, IdHash); 3] =
        [("sha1", IdHash::Sha1), ("sha256", IdHash::Sha256), ("sha512", IdHash::Sha512)];
    if !item.is_table() {
        let hash = item.choice(&HASHES)?;
        return Some(TransformId { prefix: String::new(), hash: Some(hash), encoding: TextEncoding::Hex });
    }
    let table = item.table()?;
    let transform = TransformId {
        prefix: table.get("prefix").and_then(|item| item.text()).map(|text| text.value).unwrap_or_default(),
        hash: table.choice("hash", &HASHES),
        encoding: crypto::encoding(&table, "encoding").unwrap_or(TextEncoding::Hex),
    };
    if let (None, Some(encoding)) = (transform.hash, table.get("encoding")) {
        encoding.warning(
            "an encoding without a hash: the sid is stored as it is",
            "write hash = \"sha256\", or remove it",
        );
    }
    if table.get("hash").is_none() && transform.prefix.is_empty() {
        table.problem(
            "hash",
            "a transform_id that transforms nothing",
            "write hash = \"sha256\", or a prefix",
        );
        return None;
    }
    Some(transform)
}
