//! What is judged of Redis keys and of a directory of files. Tests: `tests/it/doctor.rs`.

use super::Case;
use super::finding::{Findings, plural};
use super::judge::reasons;
use crate::store::StoreKind;
use crate::store::survey::{FileFacts, IdShape, RedisFacts, Sample, Survey};

pub(super) fn redis(
    case: &Case<'_>,
    survey: &Survey,
    facts: &RedisFacts,
    is_found: bool,
    findings: &mut Findings,
) {
    let StoreKind::Redis(options) = &case.store.kind else { return };
    let sample = &survey.sample;
    if facts.is_cluster && !options.cluster {
        findings.problem(
            "this Redis is a cluster, and the configuration has store.url",
            "keys of other nodes are refused (MOVED)",
            "write cluster = [\"redis://…\", …] in place of url",
        );
    }
    elsewhere(sample, facts, findings);
    if !is_found {
        further(sample, facts, findings);
    }
    if facts.endless > 0 {
        findings.problem(
            format!("{} of {} sessions have no time to live", facts.endless, sample.looked_at),
            "they are never removed, and whoever has such a cookie stays logged in for ever; connect-redis does so with disableTTL",
            &format!("remove disableTTL from the app, and with redis-cli, for each key under {:?}:\n\tEXPIRE <key> 1209600", facts.prefix),
        );
    }
    if facts.outlasting > 0 {
        findings.warning(
            format!("{} of {} sessions live a day and more longer than their cookie", facts.outlasting, sample.looked_at),
            "Redis holds sessions that no browser can present any more; the app's ttl option is longer than its cookie's maxAge",
            "give the app's RedisStore no ttl, or one of the length of maxAge",
        );
    }
    match facts.eviction.as_deref() {
        Some("noeviction") | None => {}
        Some(policy) => findings.warning(
            format!("when its memory is full, this Redis throws keys away (maxmemory-policy {policy})"),
            "sessions are among them: users are logged out at random",
            "give sessions a Redis of their own, or with redis-cli:\n\tCONFIG SET maxmemory-policy noeviction\n\tCONFIG REWRITE",
        ),
    }
}

/// Is the prefix the app's?
fn elsewhere(sample: &Sample, facts: &RedisFacts, findings: &mut Findings) {
    let elsewhere: Vec<String> = facts
        .elsewhere
        .iter()
        .map(|(prefix, count)| format!("{} ({count})", shown(prefix.as_deref())))
        .collect();
    if sample.looked_at == 0 && elsewhere.is_empty() {
        findings
            .ok(format!("no keys under the prefix {:?}, and no sessions under another one", facts.prefix));
    }
    if !elsewhere.is_empty() {
        let what = format!(
            "there are sessions under another prefix than {:?}: {}",
            facts.prefix,
            elsewhere.join(", ")
        );
        let why = "whoever has such a session is a stranger here";
        let cure = "write prefix = \"…\" in [store] as the app's RedisStore has it";
        if sample.looked_at == 0 {
            findings.problem(what, why, cure)
        } else {
            findings.warning(what, why, cure)
        }
    }
}

fn shown(prefix: Option<&str>) -> String {
    prefix.map_or("prefixes that may be parts of ids".to_owned(), |prefix| format!("{prefix:?}"))
}

/// Does what all keys have in common go on after the prefix?
fn further(sample: &Sample, facts: &RedisFacts, findings: &mut Findings) {
    let ids = sample.ids();
    let found = ids.iter().find_map(|(shape, count)| match shape {
        IdShape::Prefixed(Some(further), _) if count * 2 > sample.looked_at => Some((further, count)),
        _ => None,
    });
    let Some((further, count)) = found else { return };
    findings.warning(
        format!("{count} of {} keys go on with {further:?} after the prefix {:?}", sample.looked_at, facts.prefix),
        "if that belongs to the prefix of the app's RedisStore, none of its sessions is found here; if the app's genid makes such sids, all is well",
        &format!(
            "{}prefix = {:?}",
            super::judge::TRY_A_COOKIE,
            format!("{}{further}", facts.prefix)
        ),
    );
}

pub(super) fn file(survey: &Survey, facts: &FileFacts, findings: &mut Findings) {
    let sample = &survey.sample;
    let path = facts.path.display();
    if !facts.exists {
        return findings.warning(
            format!("there is no directory {path}"),
            "the sidecar makes it when it starts; if the app has sessions already, they are elsewhere",
            "write path = \"…\" in [store] as the app's session-file-store has it",
        );
    }
    if facts.other_endings.total() > 0 {
        findings.problem(
            format!(
                "there are sessions in files that do not end in .json: {}",
                reasons(&facts.other_endings)
            ),
            "they are not found: only <sid>.json is",
            "remove fileExtension from the app's options and rename the files",
        );
    }
    if facts.sealed > 0 {
        findings.problem(
            format!("{} of {} files are encrypted", facts.sealed, sample.looked_at),
            "session-file-store's `secret` option is not read: these users are strangers here",
            "remove secret from the app's options; its users get new sessions",
        );
    }
    if facts.without_access > 0 {
        findings.problem(
            format!("{} of {} sessions have no `__lastAccess`", facts.without_access, sample.looked_at),
            "their age is unknown, so session-file-store never lets them expire",
            "delete them if session-file-store did not write them",
        );
    }
    if facts.is_open && facts.open_files > 0 {
        findings.warning(
            format!(
                "other users of this machine may read {path} and {} session file{}",
                facts.open_files,
                plural(facts.open_files)
            ),
            "a file's name is the sid: whoever lists the directory and knows the secret can be anybody",
            &format!("chmod 700 {path}"),
        );
    }
    if facts.leftovers.total() > 0 {
        findings.warning(
            format!("{} interrupted writes were left behind", facts.leftovers.total()),
            "they are of no use; a process was killed while it wrote",
            &format!("delete what ends in .json.<digits> or .tmp in {path} while nothing runs"),
        );
    }
    if facts.strangers > 0 {
        findings.warning(
            format!("{} other files or directories are in {path}", facts.strangers),
            "they slow every listing down, and may not be meant to lie there",
            "give sessions a directory of their own",
        );
    }
}
