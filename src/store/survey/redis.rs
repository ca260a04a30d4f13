//! Looks at Redis keys: those under the prefix, those that look like sessions under another one, and what the server does with them.
//! Tests: `tests/it/doctor.rs` over a real redis-server.

use super::super::{RedisOptions, StoreOptions};
use super::sample::{DEFAULT_PREFIX, FEWEST_SHARING, shown};
use super::shape::{IdShape, id_shape, is_showable};
use super::{Facts, SHORTEST_PATIENCE, Sizes, Survey, SurveyError, SurveyPlan};
use crate::session::json::{DOCUMENT_DEPTH, Json};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, IntoConnectionInfo, RedisError};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What only Redis has.
#[derive(Debug, Clone, Default)]
pub struct RedisFacts {
    /// Where it looked: host and port of each master, without user and password.
    pub nodes: Vec<String>,
    /// The server's version.
    pub version: String,
    /// The server calls itself a cluster.
    pub is_cluster: bool,
    /// Keys of whatever kind.
    pub keys: u64,
    /// The key prefix.
    pub prefix: String,
    /// Sessions without a time to live.
    pub endless: usize,
    /// Times to live, seconds.
    pub ttls: Sizes,
    /// Sessions that Redis keeps for a day and more after their cookie has expired.
    pub outlasting: usize,
    /// Keys under the prefix that hold no string, by type.
    pub types: BTreeMap<String, usize>,
    /// Other prefixes of keys that hold sessions, and how many such keys were seen.
    /// `None`: prefixes that are not shown, because they may be a part of ids.
    pub elsewhere: BTreeMap<Option<String>, usize>,
    /// `maxmemory-policy`, when a memory limit is set and the server tells.
    pub eviction: Option<String>,
    /// Is anything written to disk (RDB or AOF)? `None` when the server does not tell.
    pub is_persistent: Option<bool>,
}

/// Keys asked for at once.
const BATCH: usize = 100;
/// Keys of all kinds that are looked at for sessions under another prefix.
const MOST_FOREIGN: usize = 20_000;
/// Time for all of it.
const SAMPLE_TIME: Duration = Duration::from_secs(20);
/// What a stored text may hold beyond `limits.session`: the `cookie` object and the spelling of other software.
const COOKIE_ALLOWANCE: usize = 4096;
/// A longer text helps nobody.
const LONGEST: usize = 300;
const DAY_MILLIS: i64 = 86_400_000;

pub(super) async fn survey(
    options: &RedisOptions,
    store: &StoreOptions,
    plan: &SurveyPlan,
) -> Result<Survey, SurveyError> {
    let patience = store.deadline.max(SHORTEST_PATIENCE);
    let nodes = connect(options, patience).await?;
    let mut visit = Visit {
        options,
        plan,
        max_payload: store.max_payload,
        until: Instant::now() + SAMPLE_TIME,
        survey: Survey::of(Facts::Memory),
        facts: RedisFacts { prefix: options.prefix.clone(), ..RedisFacts::default() },
    };
    let (count, mut sessions, mut complete) = (nodes.len(), 0, true);
    for (left, (name, mut node)) in (1..=count).rev().zip(nodes) {
        visit.facts.nodes.push(name);
        let share = (plan.sample - visit.survey.sample.looked_at.min(plan.sample)).div_ceil(left);
        let outcome = visit.node(&mut node, share).await;
        let (seen, ended) = outcome.map_err(|error| failure(options, &error))?;
        sessions += seen;
        complete &= ended;
    }
    let Visit { mut survey, facts, .. } = visit;
    survey.total = complete.then_some(sessions);
    survey.facts = Facts::Redis(Box::new(facts));
    Ok(survey)
}

type Node = (String, MultiplexedConnection);

/// A connection to the server, or to every master of the cluster.
async fn connect(options: &RedisOptions, patience: Duration) -> Result<Vec<Node>, SurveyError> {
    let mut last = SurveyError::Unreachable("no URL".to_owned());
    for url in &options.urls {
        match open(options, url, None, patience).await {
            Ok(node) if options.cluster => return masters(options, url, node, patience).await,
            Ok(node) => return Ok(vec![node]),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `node`: another one than the URL says.
async fn open(
    options: &RedisOptions,
    url: &str,
    node: Option<(&str, u16)>,
    patience: Duration,
) -> Result<Node, SurveyError> {
    let (client, name) = super::super::redis::client(url, node).map_err(SurveyError::Refused)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(patience));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    Ok((name, connection.map_err(|error| failure(options, &error))?))
}

/// Every master that `CLUSTER SLOTS` names.
async fn masters(
    options: &RedisOptions,
    url: &str,
    seed: Node,
    patience: Duration,
) -> Result<Vec<Node>, SurveyError> {
    let (seed_name, mut seed) = seed;
    let slots: redis::Value = Cmd::new()
        .arg("CLUSTER")
        .arg("SLOTS")
        .query_async(&mut seed)
        .await
        .map_err(|error| failure(options, &error))?;
    let seed_host = seed_name.rsplit_once(':').map_or(seed_name.as_str(), |(host, _)| host);
    let mut places: Vec<(String, u16)> = Vec::new();
    let ranges: Vec<redis::Value> = redis::from_redis_value(slots).unwrap_or_default();
    for range in ranges {
        let range: Vec<redis::Value> = redis::from_redis_value(range).unwrap_or_default();
        let Some(master) = range.into_iter().nth(2) else { continue };
        let mut master = redis::from_redis_value::<Vec<redis::Value>>(master).unwrap_or_default().into_iter();
        let host = master.next().and_then(|host| redis::from_redis_value::<String>(host).ok());
        let port = master.next().and_then(|port| redis::from_redis_value::<u16>(port).ok());
        // A node that does not know its own name leaves it out: it is the one that was asked.
        let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| seed_host.to_owned());
        if let Some(port) = port
            && !places.contains(&(host.clone(), port))
        {
            places.push((host, port));
        }
    }
    let mut nodes = Vec::with_capacity(places.len());
    for (host, port) in places {
        nodes.push(open(options, url, Some((&host, port)), patience).await?);
    }
    if nodes.is_empty() {
        return Err(SurveyError::Refused("the cluster names no master that serves a slot".to_owned()));
    }
    Ok(nodes)
}

struct Visit<'a> {
    options: &'a RedisOptions,
    plan: &'a SurveyPlan,
    max_payload: usize,
    until: Instant,
    survey: Survey,
    facts: RedisFacts,
}

impl Visit<'_> {
    /// One server: `share` sessions of it. How many it has, and whether all were counted.
    async fn node(
        &mut self,
        node: &mut MultiplexedConnection,
        share: usize,
    ) -> Result<(u64, bool), RedisError> {
        self.facts.keys += Cmd::new().arg("DBSIZE").query_async::<u64>(node).await?;
        self.settings(node).await;
        let pattern = format!("{}*", escaped(&self.options.prefix));
        let (mut cursor, mut seen, mut taken) = (0_u64, 0, 0);
        loop {
            let (next, keys): (u64, Vec<Vec<u8>>) = Cmd::new()
                .arg("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(1000)
                .query_async(node)
                .await?;
            seen += keys.len() as u64;
            let wanted: Vec<Vec<u8>> = keys.into_iter().take(share - taken).collect();
            taken += wanted.len();
            for batch in wanted.chunks(BATCH) {
                self.batch(node, batch).await?;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
            if Instant::now() > self.until {
                if taken < share {
                    self.survey.cut_short = Some(format!("{} s have passed", SAMPLE_TIME.as_secs()));
                }
                return Ok((seen, false));
            }
        }
        self.look_elsewhere(node).await?;
        Ok((seen, true))
    }

    /// A server that does not tell has its reasons.
    async fn settings(&mut self, node: &mut MultiplexedConnection) {
        let info: String = Cmd::new().arg("INFO").query_async(node).await.unwrap_or_default();
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|value| shown(value.trim()))
        };
        self.facts.version = field("redis_version").unwrap_or_else(|| "of unknown version".to_owned());
        self.facts.is_cluster |= field("redis_mode").as_deref() == Some("cluster");
        let limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
        if limited && let Some(policy) = field("maxmemory_policy") {
            self.facts.eviction = Some(policy);
        }
        let save: Result<Vec<String>, _> =
            Cmd::new().arg("CONFIG").arg("GET").arg("save").query_async(node).await;
        let appends = field("aof_enabled").map(|on| on == "1");
        let saves = save.ok().and_then(|pair| pair.into_iter().nth(1)).map(|rules| !rules.is_empty());
        self.facts.is_persistent = match (appends, saves) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => self.facts.is_persistent,
        };
    }

    async fn batch(&mut self, node: &mut MultiplexedConnection, keys: &[Vec<u8>]) -> Result<(), RedisError> {
        let mut asked = redis::pipe();
        for key in keys {
            asked.cmd("TYPE").arg(key).cmd("PTTL").arg(key);
        }
        let answers: Vec<redis::Value> = asked.query_async(node).await?;
        for (key, pair) in keys.iter().zip(answers.chunks_exact(2)) {
            let kind: String = redis::from_redis_value(pair[0].clone()).unwrap_or_default();
            let ttl: i64 = redis::from_redis_value(pair[1].clone()).unwrap_or(-2);
            // It went while it was looked at.
            if kind == "none" || ttl == -2 {
                continue;
            }
            self.survey.sample.looked_at += 1;
            let sid = String::from_utf8_lossy(key);
            let id = self.survey.sample.id(&sid, &self.options.prefix);
            if kind != "string" {
                let what = format!("a Redis {}, no string", shown(&kind));
                self.survey.sample.unreadable.add(&what, &id);
                *self.facts.types.entry(shown(&kind)).or_default() += 1;
                continue;
            }
            let length: usize = Cmd::new().arg("STRLEN").arg(key).query_async(node).await?;
            if length > self.max_payload.saturating_add(COOKIE_ALLOWANCE) {
                self.survey.sample.unreadable.add("larger than limits.session", &id);
                continue;
            }
            let text: Option<Vec<u8>> = Cmd::new().arg("GET").arg(key).query_async(node).await?;
            if let Some(text) = text {
                self.session(&text, ttl, &id);
            }
        }
        Ok(())
    }

    fn session(&mut self, text: &[u8], ttl: i64, id: &str) {
        let sample = &mut self.survey.sample;
        let Ok(text) = std::str::from_utf8(text) else {
            return sample.unreadable.add("no UTF-8 text", id);
        };
        sample.texts += 1;
        let before = sample.readable();
        sample.session(text, &self.plan.hidden, self.max_payload, id);
        if sample.readable() == before {
            return;
        }
        if ttl < 0 {
            self.facts.endless += 1;
            return;
        }
        self.facts.ttls.push(usize::try_from(ttl / 1000).unwrap_or(usize::MAX));
        let expires = expires_in(text);
        let ends = self.plan.now.saturating_add(ttl);
        self.facts.outlasting += usize::from(expires.is_some_and(|at| ends > at.saturating_add(DAY_MILLIS)));
    }

    /// Keys of any prefix that end as express-session's ids do, and hold a session.
    async fn look_elsewhere(&mut self, node: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let (mut cursor, mut seen) = (0_u64, 0);
        let mut candidates: BTreeMap<String, (usize, Vec<u8>)> = BTreeMap::new();
        while seen < MOST_FOREIGN && Instant::now() < self.until {
            let (next, keys): (u64, Vec<Vec<u8>>) =
                Cmd::new().arg("SCAN").arg(cursor).arg("COUNT").arg(1000).query_async(node).await?;
            seen += keys.len();
            for key in keys {
                let text = String::from_utf8_lossy(&key);
                let prefix = match id_shape(&text) {
                    IdShape::Prefixed(Some(prefix), _) => prefix,
                    IdShape::Express => String::new(),
                    _ => continue,
                };
                let is_ours = !self.options.prefix.is_empty() && text.starts_with(&self.options.prefix);
                if !is_ours && prefix != self.options.prefix && candidates.len() < BATCH {
                    candidates.entry(prefix).or_insert((0, key)).0 += 1;
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        for (prefix, (count, key)) in candidates {
            let text: Result<Vec<u8>, _> =
                Cmd::new().arg("GETRANGE").arg(&key).arg(0).arg(self.max_payload).query_async(node).await;
            if text.is_ok_and(|text| is_session(&text)) {
                *self.facts.elsewhere.entry(shared(&prefix, count)).or_default() += count;
            }
        }
        Ok(())
    }
}

/// As much of a prefix as is nobody's id: what several keys have in common, or connect-redis' default.
fn shared(prefix: &str, count: usize) -> Option<String> {
    if count >= FEWEST_SHARING && is_showable(prefix) {
        return Some(prefix.to_owned());
    }
    prefix.starts_with(DEFAULT_PREFIX).then(|| DEFAULT_PREFIX.to_owned())
}

fn is_session(text: &[u8]) -> bool {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| Json::parse(text, DOCUMENT_DEPTH).ok());
    parsed
        .as_ref()
        .and_then(Json::as_object)
        .is_some_and(|session| session.get("cookie").is_some_and(|cookie| cookie.as_object().is_some()))
}

fn expires_in(text: &str) -> Option<i64> {
    crate::session::record::Record::parse_json(text).ok()?.cookie.expires
}

/// A prefix as a pattern that means itself.
fn escaped(prefix: &str) -> String {
    let mut out = String::with_capacity(prefix.len());
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The driver's error in our words. A URL's password is masked, should the driver ever quote it.
fn failure(options: &RedisOptions, error: &RedisError) -> SurveyError {
    let mut text = error.to_string();
    for url in &options.urls {
        let info = url.as_str().into_connection_info().ok();
        let password = info.and_then(|info| info.redis_settings().password().map(str::to_owned));
        if let Some(password) = password.filter(|password| password.len() > 2) {
            text = text.replace(&password, "***");
        }
    }
    // The server quotes arguments, and those hold sids.
    let text = text.split(", with args").next().unwrap_or_default();
    let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    if error.is_io_error()
        || error.is_timeout()
        || error.is_connection_refusal()
        || error.kind() == ErrorKind::Io
    {
        SurveyError::Unreachable(text)
    } else {
        SurveyError::Refused(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_itself() {
        assert_eq!(escaped("sess:"), "sess:");
        assert_eq!(escaped("a*b?[c]\\"), "a\\*b\\?\\[c\\]\\\\");
    }

    #[test]
    fn a_prefix_that_may_be_a_part_of_ids_is_not_shown() {
        for (prefix, count, seen) in [
            ("app:sess:", 5, Some("app:sess:")),
            ("app:sess:", 4, None),
            ("sess:", 1, Some("sess:")),
            ("sess:ann@example.com:", 50, Some("sess:")),
            ("ann@example.com:", 50, None),
        ] {
            assert_eq!(shared(prefix, count).as_deref(), seen, "{prefix}");
        }
    }

    #[test]
    fn what_is_a_session_elsewhere() {
        assert!(is_session(br#"{"cookie":{"path":"/"},"a":1}"#));
        for other in [&b"{\"a\":1}"[..], b"{\"cookie\":1}", b"{\"cookie\":", b"\xff", b"[]"] {
            assert!(!is_session(other), "{other:?}");
        }
    }
}
