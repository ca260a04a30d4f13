//! `[store]` with kind "redis": connect-redis's options. Tests: `tests/it/config.rs`.

use super::super::item::Item;
use super::super::secret;
use super::super::walk::Table;
use crate::session::Millis;
use crate::store::{RedisOptions, check_redis_url};

/// Reads the keys of this kind. `ttl` is `store.ttl`.
pub(super) fn redis(table: &Table<'_>, ttl: Millis) -> Option<RedisOptions> {
    let nodes = table.get("cluster");
    let given = table.get("url").is_some() || table.get("url_file").is_some();
    let single = secret::text(table, "url", "url_file").and_then(|(url, item)| redis_url(url, &item));
    let cluster = nodes.is_some();
    let urls: Vec<String> = match &nodes {
        Some(item) => {
            if given {
                let hint = "keep url for a single Redis, or cluster for a Redis Cluster";
                item.problem("both `cluster` and `url` are given", hint);
            }
            if item.is_empty_list() {
                item.problem("no node in the list", "name at least one: [\"redis://10.0.0.1:6379\"]");
            }
            let list = item.list("a list of URLs, like [\"redis://10.0.0.1:6379\"]").unwrap_or_default();
            list.iter().filter_map(|item| redis_url(item.text()?.value, item)).collect()
        }
        None => {
            if !given {
                table.problem("url", "missing", "write url = \"redis://127.0.0.1:6379\"");
            }
            single.into_iter().collect()
        }
    };
    let prefix = table.get("prefix").and_then(|item| item.text()).map(|text| text.value);
    let options = RedisOptions {
        urls,
        cluster,
        prefix: prefix.unwrap_or_else(|| "sess:".to_owned()),
        ttl,
        disable_touch: table.flag("disable_touch").unwrap_or(false),
    };
    // Without one, a problem was reported.
    (!options.urls.is_empty()).then_some(options)
}

/// What stands in a URL is never shown, it may be a password.
fn redis_url(url: String, item: &Item<'_>) -> Option<String> {
    match check_redis_url(&url) {
        Ok(()) => Some(url),
        Err(why) => {
            let cure = "write \"redis://user:password@host:6379/0\", or rediss:// for TLS; percent-encode special characters";
            item.problem(format!("not a Redis URL that the driver takes: {why}"), cure);
            None
        }
    }
}
