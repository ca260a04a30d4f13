//! The facts as a person reads them. Judges nothing. Tests: `tests/it/doctor.rs`.

use super::Case;
use super::judge_mongodb::{looks, name};
use crate::store::survey::{
    EmbeddedFacts, Facts, FileFacts, IndexState, MongoFacts, RedisFacts, Sample, Sizes, Survey, Topology,
};
use crate::store::{Acknowledge, WriteConcernOptions};
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// Columns of the names.
const NAME: usize = 14;

pub(super) fn render(case: &Case<'_>, survey: &Survey) -> String {
    let mut out = Sheet::default();
    out.title("Store");
    match &survey.facts {
        Facts::Memory => {
            out.line(
                "kind",
                "memory: the sessions live in the sidecar's process, there is nothing to sample",
            );
            return out.0 + "\n";
        }
        Facts::Mongodb(facts) => mongodb(facts, &mut out),
        Facts::Redis(facts) => redis(facts, &mut out),
        Facts::File(facts) => file(facts, &mut out),
        Facts::Embedded(facts) => embedded(facts, &mut out),
    }
    let sample = &survey.sample;
    let total = survey.total.map_or("how many is not known".to_owned(), |total| format!("about {total}"));
    let cut = survey.cut_short.as_ref().map(|why| format!(" (cut short: {why})")).unwrap_or_default();
    out.line("sessions", format!("{total}; looked at {}{cut}", sample.looked_at));
    if sample.looked_at > 0 {
        stored(survey, &mut out);
        sizes(case, sample, &mut out);
        cookies(sample, &mut out);
    }
    out.0 + "\n"
}

#[derive(Default)]
struct Sheet(String);

impl Sheet {
    fn title(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn line(&mut self, name: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "  {name:<NAME$}  {value}");
    }
}

fn mongodb(facts: &MongoFacts, out: &mut Sheet) {
    let topology = match &facts.topology {
        Topology::Standalone => "a single server (no failover)".to_owned(),
        Topology::ReplicaSet(name) => format!("replica set {name}"),
        Topology::Sharded => "sharded cluster".to_owned(),
    };
    out.line("kind", format!("MongoDB {}, {topology}", facts.version));
    out.line(
        "where",
        format!("{}, database {}, collection {}", facts.hosts.join(", "), facts.database, facts.collection),
    );
    let concern = facts.write_concern.as_ref().map_or("the server's default".to_owned(), shown_concern);
    out.line("write concern", concern);
    out.line(
        "TTL index",
        match &facts.index {
            Ok(IndexState::Missing) => "none on expires".to_owned(),
            Ok(IndexState::Good) => "{ expires: 1 }, expireAfterSeconds: 0".to_owned(),
            Ok(IndexState::Hidden(name)) => format!("{name}, hidden"),
            Ok(IndexState::Odd(name, why)) => format!("{name}: {why}"),
            Err(why) => format!("cannot be listed: {why}"),
        },
    );
    if !facts.expires.is_empty() {
        out.line("expires", counts(&facts.expires));
        let [modified, created, updated] = facts.dated;
        out.line(
            "other dates",
            format!("lastModified in {modified}, createdAt in {created}, updatedAt in {updated}"),
        );
    }
}

fn shown_concern(concern: &WriteConcernOptions) -> String {
    let w = match &concern.w {
        None => "w as the server has it".to_owned(),
        Some(Acknowledge::Nodes(nodes)) => format!("w = {nodes}"),
        Some(Acknowledge::Majority) => "w = majority".to_owned(),
        Some(Acknowledge::Named(name)) => format!("w = {name:?}"),
    };
    let journal = concern.journal.map(|on| format!(", j = {on}")).unwrap_or_default();
    let timeout = concern.timeout.map(|limit| format!(", wtimeout = {limit:?}")).unwrap_or_default();
    w + &journal + &timeout
}

fn redis(facts: &RedisFacts, out: &mut Sheet) {
    let mode = if facts.is_cluster { "cluster" } else { "a single server" };
    out.line("kind", format!("Redis {}, {mode}", facts.version));
    out.line(
        "where",
        format!("{}, prefix {:?}, {} keys in all", facts.nodes.join(", "), facts.prefix, facts.keys),
    );
    out.line("eviction", facts.eviction.as_deref().unwrap_or("no memory limit is known"));
    out.line(
        "persistence",
        match facts.is_persistent {
            Some(true) => "on",
            Some(false) => "none: a restart of Redis logs everybody out",
            None => "not known",
        },
    );
    if let Some(ttls) = spread(&facts.ttls, |seconds| format!("{seconds} s")) {
        out.line("time to live", format!("{ttls}; none in {}", facts.endless));
    }
    if !facts.types.is_empty() {
        out.line("other types", counts(&facts.types));
    }
}

fn file(facts: &FileFacts, out: &mut Sheet) {
    out.line("kind", "files (session-file-store)");
    out.line(
        "where",
        format!("{}{}", facts.path.display(), if facts.exists { "" } else { ", which does not exist" }),
    );
    let others = facts.leftovers.total() + facts.other_endings.total() + facts.strangers;
    out.line("other names", format!("{others} ({} left by interrupted writes)", facts.leftovers.total()));
}

fn embedded(facts: &EmbeddedFacts, out: &mut Sheet) {
    out.line("kind", "embedded (one file of the sidecar's own)");
    match facts.bytes {
        Some(size) => out.line("where", format!("{}, {}", facts.path.display(), bytes(size as usize))),
        None => out.line("where", format!("{}, which does not exist yet", facts.path.display())),
    }
    if facts.expired > 0 {
        out.line("expired", format!("{} of the sample, not swept yet", facts.expired));
    }
}

fn stored(survey: &Survey, out: &mut Sheet) {
    let sample = &survey.sample;
    if let Facts::Mongodb(_) = survey.facts {
        let form = match (sample.texts, sample.objects) {
            (0, 0) => "sealed".to_owned(),
            (_, 0) => "text (stringify = true)".to_owned(),
            (0, _) => "objects (stringify = false)".to_owned(),
            (texts, objects) => format!("mixed: text in {texts}, objects in {objects}"),
        };
        out.line("stored as", form);
        let plain = sample.texts + sample.objects;
        let sealed: Vec<String> =
            sample.sealed.iter().map(|(format, count)| format!("{} in {count}", name(*format))).collect();
        out.line(
            "encryption",
            match (sealed.is_empty(), plain) {
                (true, 0) => "unknown".to_owned(),
                (true, _) => "none".to_owned(),
                (false, 0) => format!("{}; {} opened", sealed.join(", "), sample.opened),
                (false, _) => {
                    format!("mixed: {}, none in {plain}; {} opened", sealed.join(", "), sample.opened)
                }
            },
        );
    }
    let ids: Vec<String> =
        sample.ids().iter().map(|(shape, count)| format!("{count} look {}", looks(shape))).collect();
    out.line("ids", ids.join("; "));
    for (why, seen) in &sample.unreadable.0 {
        let example =
            if seen.example.is_empty() { String::new() } else { format!(" (first: {})", seen.example) };
        out.line("unreadable", format!("{} {why}{example}", seen.count));
    }
}

fn sizes(case: &Case<'_>, sample: &Sample, out: &mut Sheet) {
    let shown = |size: usize| bytes(case.as_header(size));
    if let Some(sizes) = spread(&sample.header_sizes, shown) {
        out.title("Data of a session");
        out.line("in X-Session", format!("{sizes}; limits.session_header is {}", bytes(case.header_limit)));
    }
    if let Some(sizes) = spread(&sample.sizes, bytes) {
        out.line("stored", format!("{sizes}; limits.session is {}", bytes(case.store.max_payload)));
    }
}

fn cookies(sample: &Sample, out: &mut Sheet) {
    if sample.cookie.is_empty() {
        return;
    }
    out.title("Cookie attributes in the sessions");
    for (attribute, values) in &sample.cookie {
        out.line(attribute, counts(values));
    }
    if sample.without_cookie > 0 {
        out.line("no cookie", sample.without_cookie);
    }
}

/// `date 990, string 10`
fn counts<K: Display + Ord>(values: &BTreeMap<K, usize>) -> String {
    let parts: Vec<String> = values.iter().map(|(value, count)| format!("{value} in {count}")).collect();
    parts.join(", ")
}

fn spread(sizes: &Sizes, show: impl Fn(usize) -> String) -> Option<String> {
    let at = |percent| sizes.percentile(percent).map(&show);
    Some(format!("p50 {}, p99 {}, most {}", at(50)?, at(99)?, at(100)?))
}

pub(super) fn bytes(size: usize) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{}.{} KiB", size / 1024, size % 1024 * 10 / 1024),
        _ => format!("{}.{} MiB", size / 1_048_576, size % 1_048_576 * 10 / 1_048_576),
    }
}
