//! `cloakroom doctor`, the real binary over real stores: every planted fault is named, and nothing else is.

use crate::support::mongod::{self, Mongod};
use crate::support::ports::free_port;
use crate::support::redis::{Cluster, Redis};
use crate::support::ticket::{self, SECRET};
use bson::{Bson, DateTime, Document, doc};
use mongodb::{Client, Collection};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// What `createWebCryptoAdapter` of connect-mongo 6.0.0 made of [`TEXT`], with [`CRYPTO_SECRET`] and 1000 iterations.
const SEALED: &str = "9JvGaZsO8YzY4GrDe1SneOey/Fke71NgqnzDOQQz5z8sL5Lu7iEYJucxXurQGe8RUaqnRl440e3jZQ42UFyOjL13cp9ZwMUOrJ3TzJHP8PiPtOelqH/Qk0oPxrDlrGinKpaYpYcdz+TdnyUyAn4ndinaolzX7OFQU2+MzTEO73Sbp3Y7aj5t83t9BcaJ8A==";
/// The same with `createKrupteinAdapter` and its defaults.
const KRUPTEIN: &str = "MIICEgSBuEQzMml3blZtV1JnYUhNQndzQVhpc1BveHc4MWVmTUUxZ3VkVjdPbzlCY09JcWFBMDBJaG5VbUMwWVRLQ2FxdVZ4bUNtdVdheFY4QzI5OWtHd3dDcTJ4WWNHTHE2ZnJEVTZQWmVaWjdrK2ZsTFdEelo2S0pxd1ZONXZEd3RLaDRVUlNGTGFtc0I1bUtia1lMaThhZGViOHpYd1A2cUh6SVQ3WHUrYWxQZncxcEp6VWJFOTVSUGtBPT0EWGNMc2syN1Fxb0pnSWFNd1M1S2Q4UHZCNy8rV2VmVjZkL0dQcndTZDRmZTNwM29zc2xIcGRHdFZhUU9RU0tmODFlWEthRHhGa3JxSHVUczNuUUF5aG9nPT0EDCHgwqvs/f8AcI1I5ASBgK6OaJOjHfxPPAd5Vpyd0x1FyBlAAZlqbcxCUHh9IEy2MJGobZOMjJDoQMJnxmSKK16iH9Cc5mKD9oUl8NlLCB1dSvht2Zh2E1Bsq7BEb4HTbuNJO6nkQIe6+QPJbvalv6I3k9e5MV78gottNmHOzrqCqmndnhXh+slu+ImNUevoBBAi8P/feGOpv8QDJuhwuZXRBFhxTVg2a1Nxc0M4a0ZaaVhtbFJlc0JvZFJGc0dSZ2hCdEkzSFhpUjRrV1BCS1V0Y1JBaGltRDdtLzFTNnNEdVNlSEhRdWc3SVBiMFFUR1oreEZ0cmhvdz09";
const CRYPTO_SECRET: &str = "the-doctor-s-own-secret-of-forty-characters";

/// What every session of these tests holds, and no report may show.
const CONTENT: &str = "very-private";

fn text(more: &str) -> String {
    format!(
        "{{\"cookie\":{{\"originalMaxAge\":null,\"expires\":null,\"secure\":false,\"httpOnly\":true,\"path\":\"/\",\
         \"sameSite\":\"lax\"}},\"n\":\"{CONTENT}\"{more}}}"
    )
}

/// A sid as express-session makes them.
fn sid(n: usize) -> String {
    format!("{n:0>8}aZ09-_aZ09-_aZ09-_aZ09-_")
}

fn in_an_hour() -> DateTime {
    DateTime::from_system_time(SystemTime::now() + Duration::from_secs(3600))
}

fn document(n: usize) -> Document {
    doc! { "_id": sid(n), "expires": in_an_hour(), "session": text("") }
}

/// A configuration in a folder of its own, gone at the end.
struct Place {
    folder: PathBuf,
}

/// What the doctor said.
struct Report {
    code: i32,
    text: String,
}

impl Place {
    fn new(store: &str) -> Self {
        Self::with(store, "", "")
    }

    /// `route`: lines of the `[[route]]`; `tables`: further ones.
    fn with(store: &str, route: &str, tables: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("cloakroom-doctor-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "[[listener]]\naddress = \"127.0.0.1:8080\"\n[session]\nsecrets = [\"{SECRET}\", \"{CRYPTO_SECRET}\"]\n\
             [[route]]\npath = \"/\"\nupstream = \"app\"\n{route}\n[upstream.app]\nservers = [\"http://127.0.0.1:3000\"]\n{tables}\n[store]\n{store}\n"
        );
        fs::write(folder.join("proxy.toml"), config).unwrap();
        Self { folder }
    }

    fn doctor(&self, arguments: &[&str]) -> Report {
        self.doctor_reading(arguments, "")
    }

    fn doctor_reading(&self, arguments: &[&str], input: &str) -> Report {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
            .args(["doctor", "--config", "proxy.toml"])
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        for secret in [CONTENT, SECRET, CRYPTO_SECRET, "aZ09-_aZ09"] {
            assert!(!text.contains(secret), "{secret} is shown:\n{text}");
        }
        Report { code: output.status.code().unwrap(), text }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Report {
    /// Problems and warnings, whatever lines they were broken into.
    fn findings(&self) -> Vec<String> {
        let mut findings: Vec<String> = Vec::new();
        let mut is_finding = false;
        for line in self.text.lines() {
            if line.starts_with("problem: ") || line.starts_with("warning: ") {
                findings.push(line.to_owned());
                is_finding = true;
            } else if is_finding && line.starts_with("    ") {
                findings.last_mut().unwrap().push_str(&format!(" {}", line.trim()));
            } else {
                is_finding = false;
            }
        }
        findings
    }

    #[track_caller]
    fn names_only(&self, level: &str, words: &[&str]) {
        let findings = self.findings();
        assert_eq!(findings.len(), 1, "{}", self.text);
        assert!(findings[0].starts_with(level), "{}", self.text);
        assert!(words.iter().all(|word| findings[0].contains(word)), "{words:?} in:\n{}", self.text);
        assert!(findings[0].contains("cure: "), "{}", self.text);
        assert_eq!(self.code, i32::from(level == "problem"), "{}", self.text);
    }

    #[track_caller]
    fn is_healthy(&self) {
        assert!(self.findings().is_empty() && self.code == 0, "exit {}\n{}", self.code, self.text);
        assert!(self.text.contains("\nok: "), "{}", self.text);
    }
}

/// A collection in a database of its own on the shared server.
struct Prepared {
    runtime: tokio::runtime::Runtime,
    client: Client,
    database: String,
}

impl Prepared {
    fn new(name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client =
            runtime.block_on(Client::with_uri_str(format!("mongodb://{}", mongod::address()))).unwrap();
        Self { runtime, client, database: format!("doctor_{name}") }
    }

    /// Named as its database, so that no other test's is taken for it.
    fn sessions(&self) -> Collection<Document> {
        self.client.database(&self.database).collection(&self.database)
    }

    fn insert(&self, documents: Vec<Document>) {
        self.runtime.block_on(self.sessions().insert_many(documents).into_future()).unwrap();
    }

    fn index(&self, index: Document) {
        let command = doc! { "createIndexes": &self.database, "indexes": [index] };
        self.runtime
            .block_on(self.client.database(&self.database).run_command(command).into_future())
            .unwrap();
    }

    fn good_index(&self) {
        self.index(doc! { "key": { "expires": 1 }, "name": "expires_1", "expireAfterSeconds": 0 });
    }

    fn store(&self, query: &str) -> String {
        format!(
            "kind = \"mongodb\"\nurl = \"mongodb://{}/{}{query}\"\ncollection = \"{}\"",
            mongod::address(),
            self.database,
            self.database
        )
    }
}

/// Ten documents, one of which may be changed.
fn ten(change: impl FnOnce(&mut Document)) -> Vec<Document> {
    let mut documents: Vec<Document> = (0..10).map(document).collect();
    change(&mut documents[3]);
    documents
}

/// Ten documents with the same change.
fn all(change: impl Fn(usize, &mut Document)) -> Vec<Document> {
    let mut documents: Vec<Document> = (0..10).map(document).collect();
    documents.iter_mut().enumerate().for_each(|(n, document)| change(n, document));
    documents
}

struct Fault {
    name: &'static str,
    documents: Vec<Document>,
    /// Beside or in place of the good one.
    index: Option<Document>,
    store: &'static str,
    query: &'static str,
    level: &'static str,
    words: &'static [&'static str],
}

impl Fault {
    fn new(
        name: &'static str,
        documents: Vec<Document>,
        level: &'static str,
        words: &'static [&'static str],
    ) -> Self {
        Self { name, documents, index: None, store: "", query: "", level, words }
    }
}

fn set(document: &mut Document, key: &str, value: impl Into<Bson>) {
    document.insert(key, value.into());
}

/// One fault each.
fn faults() -> Vec<Fault> {
    let plain = || ten(|_| {});
    let index = |index: Document| Some(index);
    let ttl = || doc! { "key": { "expires": 1 }, "name": "expires_1" };
    let with = |key: &str, value: Bson| {
        let mut index = ttl();
        index.insert(key, value);
        Some(index)
    };
    let long = format!(",\"long\":\"{}\"", "x".repeat(9000));
    let object = || doc! { "cookie": { "originalMaxAge": null, "secure": false, "httpOnly": true, "path": "/", "sameSite": "lax" }, "n": CONTENT };
    vec![
        Fault {
            index: index(doc! { "key": { "n": 1 }, "name": "n_1" }),
            ..Fault::new("no_index", plain(), "problem", &["no TTL index", "createIndex"])
        },
        Fault {
            index: with("expireAfterSeconds", 3600.into()),
            ..Fault::new("other_seconds", plain(), "problem", &["expires_1", "3600", "dropIndex"])
        },
        Fault {
            index: index(ttl()),
            ..Fault::new("no_ttl", plain(), "problem", &["expires_1", "expireAfterSeconds is not set"])
        },
        Fault {
            index: index(
                doc! { "key": { "expires": 1 }, "name": "expires_1", "expireAfterSeconds": 0, "partialFilterExpression": { "n": 1 } },
            ),
            ..Fault::new("partial", plain(), "problem", &["expires_1", "partial"])
        },
        Fault {
            index: index(
                doc! { "key": { "expires": 1 }, "name": "expires_1", "expireAfterSeconds": 0, "hidden": true },
            ),
            ..Fault::new("hidden", plain(), "warning", &["expires_1", "hidden", "unhideIndex"])
        },
        Fault::new(
            "text_date",
            all(|_, document| set(document, "expires", "2099-01-01T00:00:00.000Z")),
            "problem",
            &["`expires` is no date", "string in 10", "$toDate"],
        ),
        Fault::new(
            "number_date",
            ten(|document| set(document, "expires", 4_070_908_800_000_i64)),
            "problem",
            &["`expires` is no date", "number in 1 of 10"],
        ),
        Fault::new(
            "no_date",
            ten(|document| drop(document.remove("expires"))),
            "warning",
            &["`expires` is missing in 1 of 10"],
        ),
        Fault::new(
            "mixed",
            ten(|document| set(document, "session", object())),
            "warning",
            &["9 sessions are stored as text and 1 as objects", "stringify"],
        ),
        Fault::new(
            "objects",
            all(|_, document| set(document, "session", object())),
            "warning",
            &["stored as objects", "stringify = false"],
        ),
        Fault {
            store: "stringify = false",
            ..Fault::new("texts", plain(), "warning", &["stored as text", "stringify = true"])
        },
        Fault::new(
            "sealed",
            all(|_, document| set(document, "session", SEALED)),
            "problem",
            &["10 of 10 sessions are sealed (Web Crypto)", "[store.crypto]"],
        ),
        Fault::new(
            "kruptein",
            all(|_, document| set(document, "session", KRUPTEIN)),
            "problem",
            &["sealed (kruptein)", "kruptein = {"],
        ),
        Fault {
            store: "crypto = { iterations = 1000, secret = \"another-secret-that-nobody-has-ever-used-here\" }",
            ..Fault::new(
                "other_secret",
                all(|_, document| set(document, "session", SEALED)),
                "problem",
                &["10 of 10 sealed sessions do not open", "old_secrets"],
            )
        },
        Fault {
            store: "crypto = { iterations = 1001, secret = \"the-doctor-s-own-secret-of-forty-characters\" }",
            ..Fault::new(
                "other_iterations",
                all(|_, document| set(document, "session", SEALED)),
                "problem",
                &["do not open", "iterations"],
            )
        },
        Fault {
            store: "crypto = { iterations = 10, secret = \"the-doctor-s-own-secret-of-forty-characters\", kruptein = { secret = \"not-the-one\" } }",
            ..Fault::new(
                "other_kruptein",
                all(|_, document| set(document, "session", KRUPTEIN)),
                "problem",
                &["10 of 10 sealed sessions do not open", "store.crypto.kruptein.secret"],
            )
        },
        Fault {
            store: "crypto = { iterations = 1000, secret = \"the-doctor-s-own-secret-of-forty-characters\" }",
            ..Fault::new(
                "cut_short",
                all(|n, document| set(document, "session", if n == 3 { &SEALED[..20] } else { SEALED })),
                "problem",
                &["1 of 10 sessions cannot be read: 1 sealed text that is cut short"],
            )
        },
        Fault {
            store: "crypto = { iterations = 1000, secret = \"the-doctor-s-own-secret-of-forty-characters\" }",
            ..Fault::new(
                "cut_unevenly",
                all(|n, document| {
                    set(document, "session", if n == 3 { &SEALED[..SEALED.len() - 6] } else { SEALED })
                }),
                "problem",
                &["1 of 10 sessions cannot be read: 1 no secret of store.crypto opens it", "cut short since"],
            )
        },
        Fault {
            store: "crypto = { iterations = 1000, secret = \"the-doctor-s-own-secret-of-forty-characters\" }",
            ..Fault::new("plain_with_crypto", plain(), "warning", &["no session is sealed"])
        },
        Fault::new(
            "hashed",
            all(|n, document| set(document, "_id", format!("{n:064x}"))),
            "warning",
            &["10 of 10 `_id`s look like a hash (64 hex digits)", "--cookie", "transform_id = \"sha256\""],
        ),
        Fault::new(
            "prefixed",
            all(|n, document| set(document, "_id", format!("sess:{}", sid(n)))),
            "warning",
            &["prefixed with \"sess:\"", "--cookie", "transform_id = { prefix = \"sess:\" }"],
        ),
        Fault {
            store: "transform_id = { prefix = \"app:\" }",
            ..Fault::new(
                "not_prefixed",
                plain(),
                "problem",
                &["10 of 10 `_id`s are not what store.transform_id makes"],
            )
        },
        Fault {
            store: "transform_id = \"sha256\"",
            ..Fault::new(
                "not_hashed",
                plain(),
                "problem",
                &["10 of 10 `_id`s are not what store.transform_id makes"],
            )
        },
        Fault::new(
            "object_ids",
            all(|_, document| set(document, "_id", bson::oid::ObjectId::new())),
            "problem",
            &["`_id` that is no text", "store.collection"],
        ),
        Fault::new(
            "large",
            ten(|document| set(document, "session", text(&long))),
            "problem",
            &["1 of 10 sessions is larger than limits.session_header (8192 bytes)", "fields"],
        ),
        Fault::new(
            "broken",
            ten(|document| set(document, "session", "{\"n\":\"very-private\"")),
            "problem",
            &["1 of 10 sessions cannot be read: 1 broken JSON"],
        ),
        Fault::new(
            "no_session",
            ten(|document| drop(document.remove("session"))),
            "problem",
            &["1 no field `session`"],
        ),
        Fault::new(
            "wrong_type",
            ten(|document| set(document, "session", 5)),
            "problem",
            &["1 `session` is a number"],
        ),
        Fault::new(
            "own_key",
            ten(|document| set(document, "session", text(",\"lastModified\":\"2026-01-01\""))),
            "warning",
            &["`lastModified`", "touch_after", "(first: "],
        ),
        Fault::new(
            "no_cookie",
            ten(|document| set(document, "session", "{\"n\":\"very-private\"}")),
            "warning",
            &["1 of 10 sessions have no `cookie`"],
        ),
        Fault::new(
            "other_cookie",
            all(|_, document| set(document, "session", text("").replace("\"lax\"", "\"none\""))),
            "warning",
            &["sameSite is \"none\" in 10, here \"lax\"", "session.cookie.same_site"],
        ),
        Fault {
            query: "?w=2",
            ..Fault::new("write_concern", plain(), "problem", &["asks 2 nodes", "single server"])
        },
        Fault {
            query: "?readPreference=secondaryPreferred",
            ..Fault::new(
                "secondaries",
                plain(),
                "warning",
                &["readPreference", "a logout elsewhere is seen as late", "nobody is logged out by it"],
            )
        },
        Fault {
            store: "auto_remove = \"disabled\"",
            index: index(doc! { "key": { "n": 1 }, "name": "n_1" }),
            ..Fault::new(
                "overdue",
                ten(|document| set(document, "expires", DateTime::from_millis(1))),
                "warning",
                &["1 of 10 sessions expired more than ten minutes ago"],
            )
        },
    ]
}

#[test]
fn the_planted_fault_of_a_collection_is_named_and_nothing_else() {
    for fault in faults() {
        let prepared = Prepared::new(fault.name);
        prepared.insert(fault.documents);
        match fault.index {
            Some(index) => prepared.index(index),
            None => prepared.good_index(),
        }
        let place = Place::new(&format!("{}\n{}", prepared.store(fault.query), fault.store));
        println!("{}", fault.name);
        place.doctor(&[]).names_only(fault.level, fault.words);
    }
}

#[test]
fn a_ttl_index_on_another_field_is_named() {
    let prepared = Prepared::new("other_ttl");
    prepared.insert(ten(|_| {}));
    prepared.good_index();
    prepared.index(doc! { "key": { "createdAt": 1 }, "name": "createdAt_1", "expireAfterSeconds": 60 });
    Place::new(&prepared.store(""))
        .doctor(&[])
        .names_only("warning", &["TTL indexes on other fields", "createdAt"]);
}

#[test]
fn an_empty_collection_beside_a_full_one_is_named() {
    let prepared = Prepared::new("elsewhere");
    prepared.insert(ten(|_| {}));
    let store =
        prepared.store("").replace("collection = \"doctor_elsewhere\"", "collection = \"nothing_here\"");
    Place::new(&store).doctor(&[]).names_only(
        "problem",
        &["does not exist", "there are sessions in doctor_elsewhere.doctor_elsewhere"],
    );
}

#[test]
fn a_healthy_collection_gives_no_finding() {
    let prepared = Prepared::new("healthy");
    prepared.insert(ten(|document| {
        document.insert("lastModified", DateTime::now());
    }));
    prepared.good_index();
    let report = Place::new(&prepared.store("")).doctor(&[]);
    report.is_healthy();
    for fact in [
        "MongoDB 6.",
        "about 10; looked at 10",
        "text (stringify = true)",
        "none",
        "date in 10",
        "lastModified in 1",
    ] {
        assert!(report.text.contains(fact), "{fact}:\n{}", report.text);
    }
    // The same with the options that belong to other documents.
    for (name, store, change) in [
        (
            "healthy_objects",
            "stringify = false",
            (|_, document| {
                set(
                    document,
                    "session",
                    doc! { "cookie": { "httpOnly": true, "path": "/", "sameSite": "lax" } },
                )
            }) as fn(usize, &mut Document),
        ),
        ("healthy_hashed", "transform_id = \"sha256\"", |n, document| {
            set(document, "_id", format!("{n:064x}"))
        }),
        ("healthy_prefixed", "transform_id = { prefix = \"sess:\" }", |n, document| {
            set(document, "_id", format!("sess:{}", sid(n)))
        }),
        (
            "healthy_sealed",
            "crypto = { iterations = 1000, secret = \"the-doctor-s-own-secret-of-forty-characters\" }",
            |_, document| set(document, "session", SEALED),
        ),
        (
            "healthy_kruptein",
            "crypto = { secret = \"a-new-secret-of-more-than-forty-characters-x\", iterations = 10, kruptein = { secret = \"the-doctor-s-own-secret-of-forty-characters\" } }",
            |_, document| set(document, "session", KRUPTEIN),
        ),
    ] {
        let prepared = Prepared::new(name);
        prepared.insert(all(change));
        prepared.good_index();
        Place::new(&format!("{}\n{store}", prepared.store(""))).doctor(&[]).is_healthy();
    }
}

#[test]
fn a_large_collection_is_sampled_and_nothing_is_written() {
    let prepared = Prepared::new("large_one");
    prepared.insert((0..3000).map(document).collect());
    let before = prepared.runtime.block_on(prepared.sessions().list_index_names().into_future()).unwrap();
    // Random below 5 %, then both ends, then all.
    for (sample, looked_at) in
        [("100", "looked at 100"), ("1001", "looked at 1001"), ("5000", "looked at 3000")]
    {
        let report = Place::new(&prepared.store("")).doctor(&["--sample", sample]);
        assert!(report.text.contains(looked_at) && report.text.contains("about 3000"), "{}", report.text);
        report.names_only("problem", &["no TTL index"]);
    }
    let place = Place::new(&prepared.store(""));
    place.doctor(&["--cookie", &ticket::cookie(&sid(1), SECRET)]);
    let after = prepared.runtime.block_on(prepared.sessions().list_index_names().into_future()).unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_store_that_is_not_there_is_69() {
    let port = free_port();
    for (store, key) in [
        (
            format!(
                "kind = \"mongodb\"\nurl = \"mongodb://app:hunter2@127.0.0.1:{port}/app?serverSelectionTimeoutMS=300\""
            ),
            "store.url",
        ),
        (format!("kind = \"redis\"\nurl = \"redis://app:hunter2@127.0.0.1:{port}\""), "store.url"),
        (format!("kind = \"redis\"\ncluster = [\"redis://app:hunter2@127.0.0.1:{port}\"]"), "store.cluster"),
    ] {
        let report = Place::new(&store).doctor(&["--cookie", &ticket::cookie("x", SECRET)]);
        assert_eq!(report.code, 69, "{}", report.text);
        assert!(
            report.text.contains("problem: the store does not answer") && report.text.contains(key),
            "{}",
            report.text
        );
        assert!(report.text.contains("ok: the cookie verifies"), "{}", report.text);
        assert!(!report.text.contains("hunter2"), "{}", report.text);
    }
}

#[test]
fn a_wrong_configuration_is_64_and_said_as_check_says_it() {
    let place = Place::new("kind = \"mongodb\"\nkolection = \"a\"");
    let report = place.doctor(&[]);
    let check = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .args(["check", "--config", "proxy.toml"])
        .current_dir(&place.folder)
        .output()
        .unwrap();
    assert_eq!((report.code, report.text.as_bytes()), (64, &check.stderr[..]));
}

#[test]
fn a_user_without_rights_and_a_wrong_password_are_named() {
    let mongod = Mongod::start_with(["--auth"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let create =
            |name: &str, roles: Vec<Document>| doc! { "createUser": name, "pwd": "hunter2", "roles": roles };
        let client = Client::with_uri_str(mongod.url("admin")).await.unwrap();
        let root = create("root", vec![doc! { "role": "root", "db": "admin" }]);
        client.database("admin").run_command(root).await.unwrap();
        let url = mongod.url("admin").replace("//", "//root:hunter2@");
        let client = Client::with_uri_str(url).await.unwrap();
        let nobody = create("nobody", vec![doc! { "role": "readWrite", "db": "elsewhere" }]);
        client.database("app").run_command(nobody).await.unwrap();
        client.database("app").collection("sessions").insert_one(document(1)).await.unwrap();
    });
    let store = |user: &str| {
        format!("kind = \"mongodb\"\nurl = \"{}\"", mongod.url("app").replace("//", &format!("//{user}@")))
    };
    let report = Place::new(&store("nobody:hunter2")).doctor(&[]);
    assert_eq!(report.code, 1, "{}", report.text);
    let findings = report.findings();
    assert!(
        findings.iter().any(|finding| finding.contains("the collection cannot be read")),
        "{}",
        report.text
    );
    assert!(
        findings.iter().any(|finding| finding.contains("the indexes cannot be listed")),
        "{}",
        report.text
    );
    let report = Place::new(&store("nobody:wrong-one")).doctor(&[]);
    report.names_only("problem", &["cannot be looked into", "user, password and rights"]);
    assert!(!report.text.contains("wrong-one") && !report.text.contains("hunter2"), "{}", report.text);
}

#[test]
fn a_pasted_cookie_is_checked_against_secrets_and_store() {
    let prepared = Prepared::new("cookies");
    prepared.insert(ten(|_| {}));
    prepared.good_index();
    let place = Place::new(&prepared.store(""));
    let good = ticket::cookie(&sid(1), SECRET);
    let fingerprint = cloakroom::session::sid::Sid::from_text(&sid(1)).unwrap().fingerprint();
    let value = good.strip_prefix("connect.sid=").unwrap();
    for form in [
        good.clone(),
        value.to_owned(),
        format!("Cookie: a=b; {good}"),
        format!("Set-Cookie: {good}; Path=/; HttpOnly"),
        format!("'{good}'"),
        value.replace("%3A", ":").replace("%2F", "/").replace("%2B", "+"),
    ] {
        let report = place.doctor(&["--cookie", &form]);
        report.is_healthy();
        for word in
            [fingerprint.as_str(), "secret 1 of 2", "ok: the store has the cookie's session", "yes, until 20"]
        {
            assert!(report.text.contains(word), "{word}:\n{}", report.text);
        }
    }
    let report = place.doctor_reading(&["--cookie", "-"], &format!("{good}\n"));
    assert!(report.text.contains("secret 1 of 2"), "{}", report.text);
    fs::write(place.folder.join("cookie"), ticket::cookie(&sid(2), CRYPTO_SECRET)).unwrap();
    let report = place.doctor(&["--cookie-file", "cookie"]);
    assert!(report.text.contains("secret 2 of 2") && report.text.contains("an older one"), "{}", report.text);
    assert_eq!(place.doctor(&["--cookie-file", "nowhere"]).code, 64);
    for (pasted, level, word) in [
        (ticket::cookie(&sid(1), "somebody-else-s-secret"), "problem", "none of the 2 secrets"),
        (good.replace("connect.sid", "app.sid"), "problem", "the cookie is called \"app.sid\""),
        (good.replace("s%3A", ""), "problem", "`s:` is missing"),
        (good[..good.len() - 8].to_owned(), "problem", "cut short"),
        (good.replace('%', "%25"), "warning", "percent-encoded 2 times"),
        (ticket::cookie("unheard-of", SECRET), "warning", "the store has no session of this cookie"),
    ] {
        place.doctor(&["--cookie", &pasted]).names_only(level, &[word]);
    }
}

#[test]
fn a_cookie_whose_session_has_just_ended_is_told_from_an_unknown_one() {
    let prepared = Prepared::new("cookie_ended");
    let ended = DateTime::from_system_time(SystemTime::now() - Duration::from_secs(60));
    prepared.insert(ten(|document| set(document, "expires", ended)));
    let store = format!("{}\nauto_remove = \"disabled\"", prepared.store(""));
    let cookie = ticket::cookie(&sid(3), SECRET);
    let report = Place::new(&store).doctor(&["--cookie", &cookie]);
    report.names_only("warning", &["is stored, and it does not count"]);
    let report = Place::new(&format!("{store}\ntransform_id = \"sha1\"")).doctor(&["--cookie", &cookie]);
    assert!(report.text.contains("cure: remove transform_id from [store]\n"), "{}", report.text);
}

#[test]
fn a_cookie_shows_a_transform_id_that_is_not_configured() {
    let prepared = Prepared::new("cookie_hash");
    let hash = |n: usize| {
        use sha2::Digest;
        sha2::Sha256::digest(sid(n)).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    prepared.insert(all(|n, document| set(document, "_id", hash(n))));
    prepared.good_index();
    let cookie = ticket::cookie(&sid(1), SECRET);
    let report = Place::new(&prepared.store("")).doctor(&["--cookie", &cookie]);
    assert!(
        report.text.contains("transform_id = { hash = \"sha256\", encoding = \"hex\""),
        "{}",
        report.text
    );
    let right = Place::new(&format!("{}\ntransform_id = \"sha256\"", prepared.store("")));
    let report = right.doctor(&["--cookie", &cookie]);
    report.is_healthy();
    assert!(report.text.contains("ok: the store has the cookie's session"), "{}", report.text);
}

#[test]
fn sids_of_an_app_s_own_genid_are_no_fault_and_are_not_shown() {
    for (n, (genid, says)) in [
        ((|n| format!("{n:064x}")) as fn(usize) -> String, "like a hash (64 hex digits)"),
        (|n| format!("sess-{n:032x}"), "prefixed with \"sess-\""),
        (|n| format!("user-42-{}", sid(n)), "prefixed with \"user-42-\""),
        (|n| format!("ann{n}.smith@example.com:{}", sid(n)), "with prefixes of their own"),
        (|n| format!("R4nd0mSecretPart{n}.{n:032x}"), "with prefixes of their own"),
        (|_| format!("ann.smith@example.com:{}", sid(1)), "with prefixes of their own"),
    ]
    .into_iter()
    .enumerate()
    {
        let prepared = Prepared::new(&format!("genid_{n}"));
        let mut documents = all(|n, document| set(document, "_id", genid(n)));
        documents.dedup_by(|a, b| a.get("_id") == b.get("_id"));
        prepared.insert(documents);
        prepared.good_index();
        let place = Place::new(&prepared.store(""));
        let report = place.doctor(&["--cookie", &ticket::cookie(&genid(1), SECRET)]);
        report.is_healthy();
        assert!(report.text.contains("ok: the store has the cookie's session"), "{}", report.text);
        let alone = place.doctor(&[]);
        // Nothing that costs the exit code, with the cookie or without.
        assert_eq!(alone.code, 0, "{}", alone.text);
        for text in [&report.text, &alone.text] {
            assert!(text.contains(says), "{says}:\n{text}");
            assert!(!text.contains("smith") && !text.contains("R4nd0m"), "{text}");
            assert!(!text.contains(&"0".repeat(16)), "{text}");
        }
    }
}

#[test]
fn cures_are_broken_into_lines_and_commands_are_not() {
    let prepared = Prepared::new("wrapped");
    prepared.insert(all(|n, document| {
        set(document, "expires", "2099-01-01T00:00:00.000Z");
        set(document, "_id", format!("{n:064x}"));
    }));
    let report = Place::new(&prepared.store("?readPreference=secondary")).doctor(&[]);
    assert_eq!((report.code, report.findings().len()), (1, 4), "{}", report.text);
    let (_, findings) = report.text.split_once("\nFindings\n").unwrap();
    let (findings, _) = findings.split_once("\n2 problems, 2 warnings\n").unwrap();
    for line in findings.lines().filter(|line| line.chars().count() > 80) {
        assert!(line.starts_with("          db.getCollection("), "{line}");
    }
    assert!(findings.contains("\n          transform_id = \"sha256\"\n"), "{findings}");
}

#[test]
fn what_a_route_forwards_and_how_it_is_encoded_decides_what_is_too_large() {
    let prepared = Prepared::new("sizes");
    let data = |length: usize| text(&format!(",\"long\":\"{}\"", "x".repeat(length)));
    prepared.insert(all(|_, document| set(document, "session", data(7000))));
    prepared.good_index();
    let store = prepared.store("");
    Place::new(&store).doctor(&[]).is_healthy();
    // A third more in base64.
    let encoded = Place::with(&store, "", "[session.headers]\nencoding = \"base64url\"");
    encoded.doctor(&[]).names_only("problem", &["10 of 10 sessions are larger than limits.session_header"]);
    let few = Place::with(&store, "fields = [\"n\"]", "[session.headers]\nencoding = \"base64url\"");
    few.doctor(&[]).is_healthy();
    // One of a hundred and more is no p99, and still somebody's session.
    prepared.insert((100..220).map(document).collect());
    let mut large = document(300);
    set(&mut large, "session", data(9000));
    prepared.insert(vec![large]);
    Place::new(&store).doctor(&[]).names_only("warning", &["1 of 131 sessions is larger"]);
}

#[test]
fn wrong_usage_is_64() {
    let place = Place::new("kind = \"memory\"");
    for arguments in [&["--sample", "0"][..], &["--cookie", "a", "--cookie-file", "b"], &["--write"]] {
        assert_eq!(place.doctor(arguments).code, 64, "{arguments:?}");
    }
}

#[test]
fn a_store_in_memory_has_nothing_to_sample() {
    let report = Place::new("kind = \"memory\"").doctor(&["--cookie", &ticket::cookie("x", SECRET)]);
    assert_eq!(report.code, 0, "{}", report.text);
    assert!(
        report.text.contains("nothing to sample") && report.text.contains("secret 1 of 2"),
        "{}",
        report.text
    );
}

fn redis_cli(redis: &Redis, arguments: &[&str]) {
    let port = redis.address().port().to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("ERR"), "{arguments:?}: {said}");
}

#[test]
fn redis_keys_are_looked_at() {
    let redis = Redis::start();
    let store = format!("kind = \"redis\"\nurl = \"redis://{}\"", redis.address());
    let place = Place::new(&store);
    let doctor = |arguments: &[&str]| place.doctor(arguments);
    let set = |key: &str, value: &str| redis_cli(&redis, &["SET", key, value, "EX", "3600"]);
    assert!(doctor(&[]).text.contains("no keys under the prefix \"sess:\""));
    for n in 0..10 {
        set(&format!("sess:{}", sid(n)), &text(""));
        set(&format!("other:{n}"), "data of an app");
    }
    let report = doctor(&["--cookie", &ticket::cookie(&sid(1), SECRET)]);
    report.is_healthy();
    for fact in ["Redis 7.", "about 10; looked at 10", "20 keys in all", "p50 35", "persistence     none"] {
        assert!(report.text.contains(fact), "{fact}:\n{}", report.text);
    }
    assert!(report.text.contains("ok: the store has the cookie's session"), "{}", report.text);

    let one = format!("sess:{}", sid(1));
    redis_cli(&redis, &["PERSIST", &one]);
    doctor(&[]).names_only("problem", &["1 of 10 sessions have no time to live", "EXPIRE"]);
    set(&one, "{\"broken\":");
    doctor(&[]).names_only("problem", &["1 of 10 sessions cannot be read: 1 broken JSON"]);
    redis_cli(&redis, &["DEL", &one]);
    redis_cli(&redis, &["LPUSH", &one, "a"]);
    doctor(&[]).names_only("problem", &["a Redis list, no string"]);
    redis_cli(&redis, &["DEL", &one]);
    let gone = text("").replacen("\"expires\":null", "\"expires\":\"2026-01-01T00:00:00.000Z\"", 1);
    set(&one, &gone);
    doctor(&[]).names_only("warning", &["1 of 10 sessions live a day and more longer than their cookie"]);
    set(&one, &text(""));
    (0..5).for_each(|n| set(&format!("app:sess:{}", sid(n)), &text("")));
    set(&format!("ann@example.com:{}", sid(1)), &text(""));
    let report = doctor(&[]);
    report.names_only(
        "warning",
        &["another prefix", "\"app:sess:\" (5)", "prefixes that may be parts of ids (1)"],
    );
    assert!(!report.text.contains("ann@"), "{}", report.text);
    redis_cli(&redis, &["DEL", &format!("ann@example.com:{}", sid(1))]);
    let elsewhere = Place::new(&format!("{store}\nprefix = \"nothing:\""));
    elsewhere.doctor(&[]).names_only("problem", &["another prefix", "\"app:sess:\" (5)", "\"sess:\" (10)"]);
    (0..5).for_each(|n| redis_cli(&redis, &["DEL", &format!("app:sess:{}", sid(n))]));
    (0..10).for_each(|n| {
        redis_cli(&redis, &["RENAME", &format!("sess:{}", sid(n)), &format!("sess:app:{}", sid(n))])
    });
    doctor(&[])
        .names_only("warning", &["10 of 10 keys go on with \"app:\"", "--cookie", "prefix = \"sess:app:\""]);
    // The app's genid made those: its cookie is found.
    doctor(&["--cookie", &ticket::cookie(&format!("app:{}", sid(1)), SECRET)]).is_healthy();
    (0..10).for_each(|n| {
        redis_cli(&redis, &["RENAME", &format!("sess:app:{}", sid(n)), &format!("sess:{}", sid(n))])
    });
    redis_cli(&redis, &["CONFIG", "SET", "maxmemory", "100mb"]);
    redis_cli(&redis, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    doctor(&[]).names_only("warning", &["allkeys-lru", "noeviction"]);
}

#[test]
fn every_master_of_a_cluster_is_looked_at() {
    let cluster = Cluster::start();
    let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for n in 0..90 {
        let set =
            redis::cmd("SET").arg(format!("sess:{}", sid(n))).arg(text("")).arg("EX").arg(3600).to_owned();
        set.query::<()>(&mut connection).unwrap();
    }
    let urls = cluster.urls();
    let report = Place::new(&format!("kind = \"redis\"\ncluster = [{:?}]", urls[0])).doctor(&[]);
    report.is_healthy();
    for fact in ["cluster", "about 90; looked at 90", "90 keys in all"] {
        assert!(report.text.contains(fact), "{fact}:\n{}", report.text);
    }
    let report = Place::new(&format!("kind = \"redis\"\nurl = {:?}", urls[0])).doctor(&["--sample", "5"]);
    report.names_only("problem", &["this Redis is a cluster", "cluster = ["]);
    let report = Place::new(&format!("kind = \"redis\"\ncluster = {urls:?}")).doctor(&["--sample", "9"]);
    assert!(report.text.contains("about 90; looked at 9\n"), "{}", report.text);
}

#[test]
fn redis_over_tls_and_with_a_password() {
    let redis = Redis::with_tls();
    let url = format!("{}?ssl_ca_certs={}", redis.tls_url(), redis.file("ca.pem"));
    let report = Place::new(&format!("kind = \"redis\"\nurl = {url:?}")).doctor(&[]);
    report.is_healthy();
    redis.command(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let store = |user: &str| format!("kind = \"redis\"\nurl = \"redis://{user}{}\"", redis.address());
    Place::new(&store(":hunter2@")).doctor(&[]).is_healthy();
    for user in ["", ":wrong-one@"] {
        let report = Place::new(&store(user)).doctor(&[]);
        report.names_only("problem", &["cannot be looked into", "user, password and rights"]);
        assert!(!report.text.contains("wrong-one"), "{}", report.text);
    }
}

#[test]
fn a_directory_of_files_is_looked_at() {
    let place = Place::new("kind = \"file\"\npath = \"sessions\"");
    place.doctor(&[]).names_only("warning", &["there is no directory"]);
    let folder = place.folder.join("sessions");
    assert!(!folder.exists(), "the doctor makes no directory");
    fs::create_dir(&folder).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let good = text(&format!(",\"__lastAccess\":{now}"));
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let mode = |mode: u32| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o700);
    (0..10).for_each(|n| write(&format!("{}.json", sid(n)), &good));
    let report = place.doctor(&["--cookie", &ticket::cookie(&sid(1), SECRET)]);
    report.is_healthy();
    assert!(report.text.contains("about 10; looked at 10"), "{}", report.text);
    assert!(report.text.contains("ok: the store has the cookie's session"), "{}", report.text);

    let odd = format!("{}.json", sid(1));
    for (content, words) in [
        ("{\"n\":", &["1 of 10 sessions cannot be read: 1 broken JSON"][..]),
        ("[]", &["JSON, but no object"]),
        (&text(""), &["1 of 10 sessions have no `__lastAccess`"]),
        (SEALED, &["1 of 10 files are encrypted"]),
    ] {
        write(&odd, content);
        place.doctor(&[]).names_only("problem", words);
    }
    write(&odd, &good);
    write(&sid(20), &good);
    place.doctor(&[]).names_only("problem", &["do not end in .json", "1 no ending"]);
    fs::rename(folder.join(sid(20)), folder.join(format!("{}.session", sid(20)))).unwrap();
    place.doctor(&[]).names_only("problem", &["do not end in .json", "1 .session"]);
    fs::remove_file(folder.join(format!("{}.session", sid(20)))).unwrap();
    write("README.md", "hello");
    place.doctor(&[]).names_only("warning", &["1 other files"]);
    fs::remove_file(folder.join("README.md")).unwrap();
    let leftover = format!("{}.json.1234567", sid(1));
    write(&leftover, &good);
    place.doctor(&[]).is_healthy();
    let old = SystemTime::now() - Duration::from_secs(300);
    fs::File::open(folder.join(&leftover)).unwrap().set_modified(old).unwrap();
    place.doctor(&[]).names_only("warning", &["1 interrupted writes"]);
    fs::remove_file(folder.join(&leftover)).unwrap();
    mode(0o755);
    place.doctor(&[]).is_healthy();
    fs::set_permissions(folder.join(&odd), fs::Permissions::from_mode(0o644)).unwrap();
    place.doctor(&[]).names_only("warning", &["other users", "chmod 700"]);
}

#[test]
fn the_embedded_file_is_counted_read_only() {
    let place = Place::new("kind = \"embedded\"\npath = \"sessions.redb\"");
    let report = place.doctor(&["--cookie", &ticket::cookie("x", SECRET)]);
    assert!(report.text.contains("does not exist yet"), "{}", report.text);
    assert!(!place.folder.join("sessions.redb").exists(), "the doctor makes no file");

    use cloakroom::session::record::Record;
    use cloakroom::store::{SharedStore, StoreKind, StoreOptions};
    let path = place.folder.join("sessions.redb");
    let options = StoreOptions {
        kind: StoreKind::Embedded { path: path.clone() },
        deadline: Duration::from_secs(5),
        max_payload: 1 << 20,
    };
    let shared = SharedStore::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let now =
        i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let store = shared.attach(&cloakroom::drain::Drain::new());
        for n in 0..10 {
            let sid = cloakroom::session::sid::Sid::from_text(&sid(n)).unwrap();
            let record = Record::parse_json(&text("")).unwrap();
            store.create(&sid, &record, now + 3_600_000, now).await.unwrap();
        }
    });
    let report = place.doctor(&[]);
    assert_eq!((report.code, report.findings().len()), (69, 1), "{}", report.text);
    assert!(report.findings()[0].contains("a running sidecar has it"), "{}", report.text);
    assert!(report.findings()[0].contains("stop it first, or ask the admin port"), "{}", report.text);
    shared.close();
    let before = fs::read(&path).unwrap();
    let report = place.doctor(&["--cookie", &ticket::cookie(&sid(1), SECRET)]);
    report.is_healthy();
    assert!(report.text.contains("about 10; looked at 10"), "{}", report.text);
    assert!(report.text.contains("ok: the store has the cookie's session"), "{}", report.text);
    assert!(fs::read(&path).unwrap() == before, "the file was written to");
}
