//! What is judged of a MongoDB collection. Tests: `tests/it/doctor.rs`: a prepared collection for each fault.

use super::Case;
use super::finding::{Findings, plural};
use super::judge::{TRY_A_COOKIE, reasons};
use crate::store::survey::{IdShape, IndexState, MongoFacts, Sample, SealFormat, Survey, Topology};
use crate::store::{
    Acknowledge, AutoRemove, IdHash, MongoOptions, StoreKind, TextEncoding, WriteConcernOptions,
};

pub(super) fn judge(
    case: &Case<'_>,
    survey: &Survey,
    facts: &MongoFacts,
    is_found: bool,
    findings: &mut Findings,
) {
    let StoreKind::Mongodb(options) = &case.store.kind else { return };
    let sample = &survey.sample;
    if let Some(why) = &facts.unreadable {
        findings.problem("the collection cannot be read", why, &grant(facts));
    }
    emptiness(sample, facts, findings);
    index(options, facts, findings);
    deployment(facts, findings);
    if sample.looked_at == 0 {
        return;
    }
    expiry(options, sample, facts, findings);
    forms(options, sample, findings);
    sealed(options, sample, findings);
    ids(options, sample, is_found, findings);
}

fn emptiness(sample: &Sample, facts: &MongoFacts, findings: &mut Findings) {
    if sample.looked_at > 0 || facts.unreadable.is_some() {
        return;
    }
    if facts.elsewhere.is_empty() {
        return findings.ok("the collection is empty, and no other one holds sessions");
    }
    let state = if facts.exists == Some(false) { "does not exist" } else { "is empty" };
    let default = if facts.database_is_named {
        ""
    } else {
        "; the URL names no database, so it is `test`, as in the Node driver"
    };
    findings.problem(
        format!(
            "{}.{} {state}, and there are sessions in {}{default}",
            facts.database,
            facts.collection,
            facts.elsewhere.join(", ")
        ),
        "whoever is logged in to the app is a stranger here",
        "write database = \"…\" and collection = \"…\" in [store] as the app has dbName and collectionName",
    );
}

fn index(options: &MongoOptions, facts: &MongoFacts, findings: &mut Findings) {
    let shell = shell(facts);
    let create = "createIndex({ expires: 1 }, { expireAfterSeconds: 0 })";
    let native = options.auto_remove == AutoRemove::Native;
    match &facts.index {
        Err(why) => findings.warning(
            "the indexes cannot be listed, so nobody knows whether expired sessions are removed",
            why,
            &grant(facts),
        ),
        // The sidecar makes it with the collection.
        Ok(IndexState::Missing) if facts.exists == Some(false) => {}
        Ok(IndexState::Missing) if native => findings.problem(
            "there is no TTL index on `expires`, and store.auto_remove is \"native\"",
            "expired sessions are not served, and stay stored for ever; a sidecar that may not make the index says so when it starts",
            &format!("let the sidecar's user create indexes and start it, or {shell}.{create}"),
        ),
        Ok(IndexState::Missing) => {}
        Ok(IndexState::Good) => findings.ok("the TTL index on `expires` is as connect-mongo makes it"),
        Ok(IndexState::Hidden(name)) => findings.warning(
            format!("the TTL index {name} is hidden"),
            "expired sessions are removed all the same, and no query may use the index",
            &format!("{shell}.unhideIndex(\"{name}\")"),
        ),
        Ok(IndexState::Odd(name, why)) => {
            let what = format!("the index {name} is not the one that removes expired sessions: {why}");
            let why = "expired sessions are not removed when they should be, and neither connect-mongo nor the sidecar can make the right index beside it";
            let cure = format!("{shell}.dropIndex(\"{name}\")\n\t{}.{create}", collection(facts));
            if native { findings.problem(what, why, &cure) } else { findings.warning(what, why, &cure) }
        }
    }
    if !facts.other_ttl.is_empty() {
        findings.warning(
            format!("there are TTL indexes on other fields: {}", facts.other_ttl.join(", ")),
            "they remove sessions that have not expired",
            &format!("{shell}.getIndexes()\nand dropIndex what is not meant"),
        );
    }
}

/// What a command in MongoDB's shell begins with.
fn shell(facts: &MongoFacts) -> String {
    format!("in mongosh, database {}:\n\t{}", facts.database, collection(facts))
}

fn collection(facts: &MongoFacts) -> String {
    format!("db.getCollection({:?})", facts.collection)
}

fn grant(facts: &MongoFacts) -> String {
    format!(
        "in mongosh:\n\tdb.grantRolesToUser(\"<user>\", [{{ role: \"readWrite\", db: {:?} }}])",
        facts.database
    )
}

fn deployment(facts: &MongoFacts, findings: &mut Findings) {
    if facts.reads_secondaries {
        findings.warning(
            "the URL's readPreference sends reads to secondaries",
            "a secondary lags behind, so data may be as old as the lag, and a logout elsewhere is seen as late; nobody is logged out by it, what would end a session is asked again of the primary",
            "if that is too old, remove readPreference from store.url, or write readPreference=primary",
        );
    }
    let Some(WriteConcernOptions { w: Some(w), .. }) = &facts.write_concern else { return };
    match (&facts.topology, w) {
        (Topology::Standalone, Acknowledge::Nodes(nodes)) if *nodes > 1 => findings.problem(
            format!("the write concern asks {nodes} nodes, and this is a single server"),
            "every save is refused",
            "remove w from store.write_concern or store.url, or make it a replica set",
        ),
        (Topology::Standalone, Acknowledge::Named(name)) => findings.problem(
            format!("the write concern \"{name}\" has no meaning on a single server"),
            "every save is refused",
            "remove w from store.write_concern or store.url, or make it a replica set",
        ),
        (Topology::ReplicaSet(_) | Topology::Sharded, Acknowledge::Nodes(1)) => findings.warning(
            "the write concern is w = 1 on a replica set",
            "a session that was saved and answered may be gone after a failover",
            "write write_concern = \"majority\" in [store], or remove w=1 from store.url",
        ),
        _ => {}
    }
}

fn expiry(options: &MongoOptions, sample: &Sample, facts: &MongoFacts, findings: &mut Findings) {
    let wrong: Vec<String> = facts
        .expires
        .iter()
        .filter(|(kind, _)| !matches!(**kind, "date" | "missing"))
        .map(|(kind, count)| format!("{kind} in {count}"))
        .collect();
    let mongosh = shell(facts);
    if !wrong.is_empty() {
        findings.problem(
            format!("`expires` is no date: {} of {} sessions", wrong.join(", "), sample.looked_at),
            "neither connect-mongo nor the sidecar finds such a session, and no TTL index removes it",
            &format!("{mongosh}.updateMany({{ expires: {{ $type: [\"string\", \"number\"] }} }}, [{{ $set: {{ expires: {{ $toDate: \"$expires\" }} }} }}])"),
        );
    }
    if let Some(missing) = facts.expires.get("missing") {
        findings.warning(
            format!("`expires` is missing in {missing} of {} sessions", sample.looked_at),
            "they are served until somebody deletes them; connect-mongo always writes it",
            &format!("set it, or {mongosh}.deleteMany({{ expires: {{ $exists: false }} }})"),
        );
    }
    // An index that is missing or odd has been named already.
    let is_known = options.auto_remove == AutoRemove::Native && facts.index != Ok(IndexState::Good);
    if facts.overdue > 0 && !is_known {
        findings.warning(
            format!("{} of {} sessions expired more than ten minutes ago and are still stored", facts.overdue, sample.looked_at),
            "they are not served, but nobody removes them",
            "write auto_remove = \"native\" in [store]; with the TTL index in place: is the server's TTL monitor on (ttlMonitorEnabled)?",
        );
    }
}

fn forms(options: &MongoOptions, sample: &Sample, findings: &mut Findings) {
    let (texts, objects) = (sample.texts, sample.objects);
    let harmless = "both forms are read, and each save writes the configured one; connect-mongo itself reads only the form that it is told";
    if texts > 0 && objects > 0 {
        findings.warning(
            format!("{texts} sessions are stored as text and {objects} as objects"),
            harmless,
            "give every app on this collection the same stringify",
        );
    } else if objects > 0 && options.stringify {
        findings.warning(
            "sessions are stored as objects, and store.stringify is true",
            harmless,
            "write stringify = false in [store]",
        );
    } else if texts > 0 && !options.stringify && sample.sealed.is_empty() {
        findings.warning(
            "sessions are stored as text, and store.stringify is false",
            harmless,
            "write stringify = true in [store]",
        );
    }
}

fn sealed(options: &MongoOptions, sample: &Sample, findings: &mut Findings) {
    let count: usize = sample.sealed.values().sum();
    let plain = sample.texts + sample.objects;
    let formats: Vec<&str> = sample.sealed.keys().map(|format| name(*format)).collect();
    match (&options.crypto, count) {
        (None, 0) => {}
        (None, _) => {
            let cure = match sample.sealed.keys().next() {
                Some(SealFormat::WebCrypto) => {
                    "write [store.crypto] with secret = \"${…}\" (and salt, iterations) as the app's createWebCryptoAdapter has them"
                }
                Some(SealFormat::Kruptein) => {
                    "write [store.crypto] with a new secret, and kruptein = { secret = \"${…}\" } as the app's crypto option has it"
                }
                _ => "let the app rewrite them with connect-mongo 4 or later: this format is not read",
            };
            findings.problem(
                format!("{count} of {} sessions are sealed ({}), and there is no [store.crypto]", sample.looked_at, formats.join(", ")),
                "none of them can be read: their users are strangers here",
                cure,
            );
        }
        (Some(_), 0) => findings.warning(
            "[store.crypto] is configured, and no session is sealed",
            "an app with crypto on this collection cannot read them, and what is plain stays readable for whoever reads the database",
            "remove [store.crypto], or let the sessions be saved again",
        ),
        (Some(_), _) => {
            for (format, why) in &sample.unopened {
                findings.problem(
                    format!("{} of {count} sealed sessions do not open: {}", why.total(), reasons(why)),
                    "their users are strangers here",
                    key(*format),
                );
            }
            if sample.unopened.is_empty() {
                findings.ok(format!("{} sealed session{} opened ({})", sample.opened, plural(sample.opened), formats.join(", ")));
            }
            if plain > 0 {
                findings.warning(
                    format!("{plain} of {} sessions are not sealed", sample.looked_at),
                    "an app with crypto on this collection cannot read them",
                    "let them be saved again, or expire",
                );
            }
        }
    }
}

/// The cure for texts that stay closed.
fn key(format: SealFormat) -> &'static str {
    match format {
        SealFormat::WebCrypto => {
            "compare secret, salt, iterations and encoding in [store.crypto] with the app's createWebCryptoAdapter; an older secret of the app goes into store.crypto.old_secrets"
        }
        SealFormat::Kruptein => {
            "compare store.crypto.kruptein.secret, and hashing and encodeas beside it, with the app's crypto option: it is that option's secret, not store.crypto.secret"
        }
        SealFormat::ConnectMongo3 => "let the app rewrite them with connect-mongo 4 or later",
    }
}

pub(super) fn name(format: SealFormat) -> &'static str {
    match format {
        SealFormat::WebCrypto => "Web Crypto",
        SealFormat::Kruptein => "kruptein",
        SealFormat::ConnectMongo3 => "connect-mongo 3",
    }
}

fn ids(options: &MongoOptions, sample: &Sample, is_found: bool, findings: &mut Findings) {
    let ids = sample.ids();
    let count = |test: &dyn Fn(&IdShape) -> bool| {
        ids.iter().filter(|(shape, _)| test(shape)).map(|(_, count)| count).sum::<usize>()
    };
    let no_text = count(&|shape| matches!(shape, IdShape::NoText(_)));
    if no_text > 0 {
        findings.problem(
            format!("{no_text} of {} documents have an `_id` that is no text", sample.looked_at),
            "a session is found by its sid, which is text: these never are",
            "is this the sessions' collection? see store.collection",
        );
    }
    match &options.transform_id {
        Some(transform) => {
            let fits = match transform.hash {
                Some(hash) => count(&|shape| fits(hash, transform.encoding, shape)),
                None => sample.looked_at - no_text - sample.unprefixed,
            };
            if fits * 2 < sample.looked_at - no_text {
                findings.problem(
                    format!(
                        "{} of {} `_id`s are not what store.transform_id makes",
                        sample.looked_at - no_text - fits,
                        sample.looked_at
                    ),
                    "no session is found: its sid is looked for under another `_id`",
                    "remove transform_id from [store], or write it as the app's transformId does it",
                );
            }
        }
        None if is_found => {}
        None => untransformed(sample, findings),
    }
}

/// `_id`s that look as if a `transformId` had made them.
fn untransformed(sample: &Sample, findings: &mut Findings) {
    let ids = sample.ids();
    let Some((shape, count)) = ids.iter().max_by_key(|(_, count)| **count) else { return };
    if count * 2 <= sample.looked_at {
        return;
    }
    let Some(line) = transform_for(shape) else { return };
    findings.warning(
        format!("{count} of {} `_id`s look {}, and store.transform_id is not set", sample.looked_at, looks(shape)),
        "if the app has a transformId, none of its sessions is found here; if its genid makes such sids, all is well",
        &format!("{TRY_A_COOKIE}{line}"),
    );
}

/// The line of the configuration; `None` for ids that nobody transformed.
fn transform_for(shape: &IdShape) -> Option<String> {
    let (prefix, bare) = match shape {
        IdShape::Prefixed(Some(prefix), bare) => (prefix.as_str(), &**bare),
        // What each id has of its own, no transformId put there.
        IdShape::Prefixed(None, _) => return None,
        shape => ("", shape),
    };
    let hash = match bare {
        IdShape::Hex(40) | IdShape::Base64(20) => "sha1",
        IdShape::Hex(64) | IdShape::Base64(32) => "sha256",
        IdShape::Hex(128) | IdShape::Base64(64) => "sha512",
        _ if prefix.is_empty() => return None,
        _ => return Some(format!("transform_id = {{ prefix = {prefix:?} }}")),
    };
    Some(match (bare, prefix) {
        (IdShape::Hex(_), "") => format!("transform_id = \"{hash}\""),
        (IdShape::Hex(_), _) => format!("transform_id = {{ hash = \"{hash}\", prefix = {prefix:?} }}"),
        _ => format!(
            "transform_id = {{ hash = \"{hash}\", encoding = \"base64\", prefix = {prefix:?} }}\nor with encoding = \"base64url\""
        ),
    })
}

/// After "`_id`s look".
pub(super) fn looks(shape: &IdShape) -> String {
    match shape {
        IdShape::Express => "like express-session's sids (32 characters of base64url)".to_owned(),
        IdShape::Hex(length) => format!("like a hash ({length} hex digits)"),
        IdShape::Base64(bytes) => format!("like a hash ({bytes} bytes in base64)"),
        IdShape::Uuid => "like UUIDs".to_owned(),
        IdShape::Prefixed(Some(prefix), bare) => format!("prefixed with {prefix:?}, then {}", looks(bare)),
        IdShape::Prefixed(None, bare) => format!("{}, with prefixes of their own", looks(bare)),
        IdShape::Other => "like nothing in particular".to_owned(),
        IdShape::NoText(kind) => format!("like no text ({kind})"),
    }
}

/// Could this hash have made an id of this shape? The survey took the configured prefix off.
fn fits(hash: IdHash, encoding: TextEncoding, shape: &IdShape) -> bool {
    let bytes = match hash {
        IdHash::Sha1 => 20,
        IdHash::Sha256 => 32,
        IdHash::Sha512 => 64,
    };
    match encoding {
        TextEncoding::Hex => *shape == IdShape::Hex(bytes * 2),
        TextEncoding::Base64 | TextEncoding::Base64url => *shape == IdShape::Base64(bytes),
    }
}
