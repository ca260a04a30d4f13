//! What the options of a `mongodb://` URL do, on real servers: users and their rights, TLS, replica sets with a member that lags or dies;
//! and what a sharded cluster asks of every statement.

use super::mongodb::{open, options};
use super::words::{block_on, live, now, payload, record, sid};
use crate::support::app::App;
use crate::support::mongod::{self, Mongod};
use crate::support::sidecar::Setup;
use ::mongodb::Client;
use bson::{Bson, Document, doc};
use cloakroom::drain::Drain;
use cloakroom::store::error::Kind;
use cloakroom::store::{Created, Lookup, Store, StoreError, Swapped, Touched, check_mongodb_url};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

fn store_at(url: &str) -> Store {
    open(options(url.to_owned(), "sessions"), DEADLINE).attach(&Drain::new())
}

/// Writes and reads one session.
async fn use_it(url: &str) -> Result<(), StoreError> {
    let (store, now) = (store_at(url), now());
    store.create(&sid("a"), &record("{\"n\":1}"), now + 60_000, now).await?;
    assert_eq!(payload(&live(store.load(&sid("a"), now).await)), "{\"n\":1}");
    assert!(store.destroy(&sid("a")).await?);
    Ok(())
}

async fn admin(url: &str) -> ::mongodb::Database {
    Client::with_uri_str(url).await.unwrap().database("admin")
}

/// A server that knows `root`, with the URL of `root`.
async fn guarded() -> (Mongod, String) {
    let mongod = Mongod::start_with(["--auth"]);
    // The first user may be made by anybody on this machine.
    let root = doc! { "createUser": "root", "pwd": "root", "roles": ["root"] };
    admin(&mongod.url("")).await.run_command(root).await.unwrap();
    let url = format!("mongodb://root:root@{}/", mongod.address());
    (mongod, url)
}

#[test]
fn users_are_who_they_say() {
    block_on(async {
        let (mongod, root) = guarded().await;
        let client = Client::with_uri_str(root).await.unwrap();
        for (database, user, mechanism) in [("app", "new", "SCRAM-SHA-256"), ("admin", "old", "SCRAM-SHA-1")]
        {
            let create = doc! {
                "createUser": user, "pwd": "p@ss/w0rd", "mechanisms": [mechanism],
                "roles": [{ "role": "readWrite", "db": "app" }],
            };
            client.database(database).run_command(create).await.unwrap();
        }
        let url = |user: &str, more: &str| format!("mongodb://{user}@{}/app{more}", mongod.address());
        let password = "p%40ss%2Fw0rd";
        use_it(&url(&format!("new:{password}"), "")).await.unwrap();
        use_it(&url(&format!("new:{password}"), "?authMechanism=SCRAM-SHA-256&authSource=app"))
            .await
            .unwrap();
        use_it(&url(&format!("old:{password}"), "?authSource=admin")).await.unwrap();
        use_it(&url(&format!("old:{password}"), "?authMechanism=SCRAM-SHA-1&authSource=admin"))
            .await
            .unwrap();
        for bad in [
            url(&format!("old:{password}"), ""),
            url(&format!("new:{password}"), "?authMechanism=SCRAM-SHA-1"),
            url("new:hunter22", ""),
            format!("mongodb://{}/app", mongod.address()),
        ] {
            let error = use_it(&bad).await.unwrap_err();
            assert_eq!(error.kind, Kind::Refused, "{error}");
            assert!(
                !error.to_string().contains("hunter22") && !error.to_string().contains("p@ss"),
                "{error}"
            );
        }
    });
}

/// A user may store sessions and not make indexes: the sidecar works, and says what it lacks once, if anything is lacking.
#[test]
fn an_index_that_may_not_be_made_is_told_unless_it_is_there() {
    let app = App::parrot();
    let (mongod, root) = block_on(async {
        let (mongod, root) = guarded().await;
        let client = Client::with_uri_str(&root).await.unwrap();
        for (role, more) in [("blind", None), ("seeing", Some("listIndexes"))] {
            let actions: Vec<&str> = ["find", "insert", "update", "remove"].into_iter().chain(more).collect();
            let create = doc! {
                "createRole": role, "roles": [],
                "privileges": [{ "resource": { "db": "app", "collection": "" }, "actions": actions }],
            };
            client.database("app").run_command(create).await.unwrap();
            let create = doc! { "createUser": role, "pwd": role, "roles": [role] };
            client.database("app").run_command(create).await.unwrap();
        }
        (mongod, root)
    });
    let start = |user: &str| {
        let url = format!("mongodb://{user}:{user}@{}/app", mongod.address());
        let store = format!("kind = \"mongodb\"\nurl = \"{url}\"");
        Setup::before(&app).store(&store).more("[log]\nlevel = \"debug\"").start()
    };
    let refused = "cannot make its TTL index";
    let sidecar = start("blind");
    sidecar.logged(&[refused, "code 13", "cannot be listed either"]);
    assert_eq!(sidecar.browser().say(&[("X-Session-Update", "{\"a\":1}")]).status, 200);
    start("seeing").logged(&[refused, "code 13", "no index on expires"]);
    let make = |index: Document| {
        let command = doc! { "createIndexes": "sessions", "indexes": [index] };
        block_on(async {
            let database = Client::with_uri_str(&root).await.unwrap().database("app");
            database.run_command(doc! { "dropIndexes": "sessions", "index": "*" }).await.unwrap();
            database.run_command(command).await.unwrap();
        });
    };
    make(doc! { "key": { "expires": 1 }, "name": "expires_1", "expireAfterSeconds": 3600, "unique": true });
    start("seeing").logged(&[
        refused,
        "expireAfterSeconds is 3600, wanted 0",
        "unique is true, wanted false",
    ]);
    make(doc! { "key": { "expires": 1 }, "name": "by_the_operator", "expireAfterSeconds": 0 });
    let sidecar = start("seeing");
    sidecar.logged(&["the TTL index is there, made by somebody else"]);
    assert!(!sidecar.log().contains(refused), "{}", sidecar.log());
}

/// With all rights, an index that is in the way is described; one that does the work under another name is not complained about.
#[test]
fn an_index_in_the_way_is_described() {
    let app = App::parrot();
    let url = format!("mongodb://{}", mongod::address());
    for (database, index, said) in [
        (
            "way1",
            doc! { "key": { "expires": 1 }, "name": "expires_1", "expireAfterSeconds": 60 },
            "expireAfterSeconds is 60, wanted 0",
        ),
        (
            "way2",
            doc! { "key": { "expires": 1 }, "name": "mine", "expireAfterSeconds": 5 },
            "index mine: expireAfterSeconds is 5, wanted 0",
        ),
        (
            "way3",
            doc! { "key": { "x": 1 }, "name": "expires_1" },
            "its key is { x: 1 }, wanted { expires: 1 }",
        ),
        (
            "way4",
            doc! { "key": { "expires": 1 }, "name": "mine", "expireAfterSeconds": 0 },
            "the TTL index is there",
        ),
    ] {
        block_on(async {
            let client = Client::with_uri_str(&url).await.unwrap();
            let command = doc! { "createIndexes": "sessions", "indexes": [index] };
            client.database(database).run_command(command).await.unwrap();
        });
        let store = format!("kind = \"mongodb\"\nurl = \"{url}/{database}\"");
        let sidecar = Setup::before(&app).store(&store).more("[log]\nlevel = \"debug\"").start();
        sidecar.logged(&[said]);
        assert_eq!(
            sidecar.log().contains("cannot make its TTL index"),
            database != "way4",
            "{}",
            sidecar.log()
        );
    }
}

/// Certificates of an authority of our own: for the server, and for a client.
struct Certificates(PathBuf);

impl Certificates {
    fn make() -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("cloakroom-mongo-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let named = |names: &[&str], unit: &str| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let mut parameters = CertificateParams::new(names).unwrap();
            parameters.distinguished_name = DistinguishedName::new();
            parameters.distinguished_name.push(DnType::OrganizationalUnitName, unit);
            parameters.distinguished_name.push(DnType::CommonName, unit);
            parameters
        };
        let mut authority = named(&[], "authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(authority, key);
        for (file, names) in
            [("server", &["127.0.0.1"][..]), ("client", &[]), ("elsewhere", &["other.example"])]
        {
            let key = KeyPair::generate().unwrap();
            let certificate = named(names, file).signed_by(&key, &issuer).unwrap();
            let both = format!("{}{}", certificate.pem(), key.serialize_pem());
            std::fs::write(folder.join(format!("{file}.pem")), both).unwrap();
        }
        Self(folder)
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().to_owned()
    }

    fn server(&self, certificate: &str, more: &[&str]) -> Mongod {
        let (certificate, authority) = (self.path(certificate), self.path("ca.pem"));
        let tls =
            ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", &certificate, "--tlsCAFile", &authority];
        Mongod::start_with(tls.into_iter().chain(more.iter().copied()))
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn tls_is_what_the_url_asks_for() {
    let files = Certificates::make();
    let (authority, client) = (files.path("ca.pem"), files.path("client.pem"));
    let anybody = ["--tlsAllowConnectionsWithoutCertificates"];
    let open = files.server("server.pem", &anybody);
    let elsewhere = files.server("elsewhere.pem", &anybody);
    let strict = files.server("server.pem", &[]);
    let url = |server: &Mongod, more: &str| server.url(&format!("app?serverSelectionTimeoutMS=1000{more}"));
    block_on(async {
        let with_authority = format!("&tls=true&tlsCAFile={authority}");
        use_it(&url(&open, &with_authority)).await.unwrap();
        use_it(&url(&open, "&tls=true&tlsAllowInvalidCertificates=true")).await.unwrap();
        use_it(&url(&elsewhere, "&tls=true&tlsAllowInvalidCertificates=true")).await.unwrap();
        let with_client = format!("{with_authority}&tlsCertificateKeyFile={client}");
        use_it(&url(&strict, &with_client)).await.unwrap();
        for (server, more) in [
            (&open, ""),
            // An authority that no browser knows; another name in the certificate; no client certificate.
            (&open, "&tls=true"),
            (&elsewhere, with_authority.as_str()),
            (&strict, with_authority.as_str()),
        ] {
            let error = use_it(&url(server, more)).await.unwrap_err();
            assert!(matches!(error.kind, Kind::Unreachable | Kind::Timeout), "{more}: {error}");
        }
    });
}

#[test]
fn a_certificate_may_be_the_user() {
    let files = Certificates::make();
    let mongod = files.server("server.pem", &["--auth"]);
    let tls = format!(
        "tls=true&tlsCAFile={}&tlsCertificateKeyFile={}",
        files.path("ca.pem"),
        files.path("client.pem")
    );
    block_on(async {
        let root = doc! { "createUser": "root", "pwd": "root", "roles": ["root"] };
        admin(&mongod.url(&format!("?{tls}"))).await.run_command(root).await.unwrap();
        let url = format!("mongodb://root:root@{}/?{tls}", mongod.address());
        let client = Client::with_uri_str(url).await.unwrap();
        let user =
            doc! { "createUser": "CN=client,OU=client", "roles": [{ "role": "readWrite", "db": "app" }] };
        client.database("$external").run_command(user).await.unwrap();
        use_it(&mongod.url(&format!("app?{tls}&authMechanism=MONGODB-X509&authSource=$external")))
            .await
            .unwrap();
        assert!(use_it(&mongod.url(&format!("app?{tls}"))).await.is_err());
    });
}

#[test]
fn a_url_with_a_fault_is_refused_before_the_start() {
    for (url, said) in [
        ("mongodb://h/?tls=true&tlsCAFile=/nowhere/ca.pem", "tlsCAFile"),
        ("mongodb://h/?tls=true&tlsCertificateKeyFile=/nowhere/client.pem", "tlsCertificateKeyFile"),
        ("mongodb://h/?readPreference=nearby", "read preference"),
        ("mongodb://h/?authMechanism=NONE", "mechanism"),
        ("mongodb://h/?w=0", "w=0"),
        ("mongodb://h/?tls=false&tlsCAFile=ca.pem", "tls"),
        ("mongodb+srv://a,b/app", ""),
        ("mongodb+srv://db.example.com:27017/app", ""),
    ] {
        let why = check_mongodb_url(url).expect_err(url);
        assert!(why.to_lowercase().contains(&said.to_lowercase()), "{url}: {why}");
    }
    for url in [
        "mongodb+srv://user:pass@cluster0.example.mongodb.net/app?retryWrites=true&w=majority",
        "mongodb://a:1,b:2,c:3/app?replicaSet=rs0&readPreference=secondaryPreferred&readPreferenceTags=dc:ny&maxStalenessSeconds=120",
        "mongodb://a/app?retryWrites=false&w=2&wtimeoutMS=500&journal=true",
        "mongodb://u:p@a/app?authSource=admin&authMechanism=SCRAM-SHA-1&tls=true&tlsInsecure=true",
    ] {
        check_mongodb_url(url).expect(url);
    }
}

/// Servers that are one replica set.
struct ReplicaSet {
    members: Vec<Mongod>,
}

impl ReplicaSet {
    /// With quick elections. The first member is the primary as long as it lives.
    async fn start(size: usize) -> Self {
        let arguments = ["--replSet", "rs", "--setParameter", "enableTestCommands=1", "--oplogSize", "16"];
        let members: Vec<Mongod> = (0..size).map(|_| Mongod::start_with(arguments)).collect();
        let listed: Vec<Document> = (0_i32..)
            .zip(&members)
            .map(|(id, member)| {
                let priority = if id == 0 { 2.0 } else { 1.0 };
                doc! { "_id": id, "host": member.address().to_string(), "priority": priority }
            })
            .collect();
        let settings = doc! { "electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200 };
        let config = doc! { "_id": "rs", "members": listed, "settings": settings };
        let set = Self { members };
        set.direct(0).await.run_command(doc! { "replSetInitiate": config }).await.unwrap();
        // Every member has all there is when it takes a write that all of them acknowledge.
        let client = Client::with_uri_str(set.url("w=1&serverSelectionTimeoutMS=60000")).await.unwrap();
        let command = doc! { "insert": "ready", "documents": [{}], "writeConcern": { "w": i32::try_from(size).unwrap() } };
        client.database("test").run_command(command).await.unwrap();
        set
    }

    fn url(&self, options: &str) -> String {
        let members: Vec<String> = self.members.iter().map(|member| member.address().to_string()).collect();
        format!("mongodb://{}/app?replicaSet=rs&{options}", members.join(","))
    }

    /// One member's `admin` database.
    async fn direct(&self, member: usize) -> ::mongodb::Database {
        admin(&self.members[member].url("?directConnection=true")).await
    }

    /// A secondary that goes on answering and takes over nothing any more; or takes everything over again.
    async fn lag(&self, member: usize, lags: bool) {
        let mode = if lags { "alwaysOn" } else { "off" };
        let command = doc! { "configureFailPoint": "rsSyncApplyStop", "mode": mode };
        self.direct(member).await.run_command(command).await.unwrap();
    }
}

/// Reads may go to a secondary; that it has not heard of a session yet logs nobody out.
#[test]
fn a_secondary_that_lags_ends_no_session() {
    block_on(async {
        let set = ReplicaSet::start(2).await;
        let now = now();
        let writer = store_at(&set.url("w=2"));
        for name in ["changed", "ended", "touched", "garbled"] {
            writer.create(&sid(name), &record("{\"n\":1}"), now + 60_000, now).await.unwrap();
        }
        // One worker that reads from the secondary, and does not wait for it when it writes.
        let store = store_at(&set.url("w=1&readPreference=secondary"));
        let before = live(store.load(&sid("touched"), now).await);
        let documents = Client::with_uri_str(set.url("w=1")).await.unwrap();
        let documents = documents.database("app").collection::<Document>("sessions");
        documents.insert_one(doc! { "_id": "repaired", "session": "{" }).write_concern(both()).await.unwrap();
        set.lag(1, true).await;

        // Made, and there at once: alone and among others, however many ask.
        store.create(&sid("new"), &record("{\"n\":1}"), now + 60_000, now).await.unwrap();
        assert_eq!(payload(&live(store.load(&sid("new"), now).await)), "{\"n\":1}");
        let (new, changed, nobody) = (sid("new"), sid("changed"), sid("nobody"));
        let (new, old, none) =
            tokio::join!(store.load(&new, now), store.load(&changed, now), store.load(&nobody, now));
        assert_eq!((payload(&live(new)), payload(&live(old))), ("{\"n\":1}", "{\"n\":1}"));
        assert!(matches!(none, Ok(Lookup::Absent)));
        // Extended on the primary, past the end that the secondary knows.
        assert_eq!(store.touch(&sid("touched"), &before, now + 120_000, now).await.unwrap(), Touched::Done);
        assert_eq!(live(store.load(&sid("touched"), now + 60_000).await).expires_at, Some(now + 120_000));
        // What cannot be read there may be readable by now.
        documents
            .update_one(doc! { "_id": "repaired" }, doc! { "$set": { "session": "{\"n\":2}" } })
            .await
            .unwrap();
        assert_eq!(payload(&live(store.load(&sid("repaired"), now).await)), "{\"n\":2}");

        // A read that is behind shows the past; a write computed from it is a conflict, and sees the present.
        documents
            .update_one(doc! { "_id": "changed" }, doc! { "$set": { "session": "{\"n\":2}" } })
            .await
            .unwrap();
        let behind = live(store.load(&sid("changed"), now).await);
        assert_eq!(payload(&behind), "{\"n\":1}");
        let swapped =
            store.update(&sid("changed"), &behind.version, &record("{}"), now + 60_000, now).await.unwrap();
        let Swapped::Conflict(found) = swapped else { panic!("{swapped:?}") };
        assert_eq!(payload(&live(Ok(*found))), "{\"n\":2}");
        // And what has been destroyed stays so, whatever was read.
        documents.delete_one(doc! { "_id": "ended" }).await.unwrap();
        let behind = live(store.load(&sid("ended"), now).await);
        let swapped = store.update(&sid("ended"), &behind.version, &record("{}"), now + 60_000, now).await;
        assert!(matches!(swapped, Ok(Swapped::Absent)), "{swapped:?}");
        assert_eq!(store.touch(&sid("ended"), &behind, now + 60_000, now).await.unwrap(), Touched::Absent);

        // A write that asks for the one that lags is not acknowledged in time.
        let slow = store_at(&set.url("w=2&wtimeoutMS=200"));
        let error = slow.create(&sid("slow"), &record("{}"), now + 60_000, now).await.unwrap_err();
        assert_eq!(error.kind, Kind::Timeout, "{error}");
        set.lag(1, false).await;
        let caught_up = Instant::now() + PATIENCE;
        while payload(&live(store.load(&sid("changed"), now).await)) != "{\"n\":2}" {
            assert!(Instant::now() < caught_up, "the secondary never caught up");
        }
    });
}

fn both() -> ::mongodb::options::WriteConcern {
    ::mongodb::options::WriteConcern::nodes(2)
}

/// The primary dies: errors within the deadline or success, then a new primary, and everything that was acknowledged is there.
#[test]
fn a_primary_that_dies_is_replaced() {
    const SHORT: Duration = Duration::from_millis(1500);
    block_on(async {
        let mut set = ReplicaSet::start(3).await;
        let now = now();
        let url = set.url("w=majority&readPreference=primaryPreferred");
        let drain = Drain::new();
        let store = open(options(url, "sessions"), SHORT).attach(&drain);
        store.create(&sid("before"), &record("{\"n\":1}"), now + 600_000, now).await.unwrap();
        set.members[0].kill();
        let until = Instant::now() + PATIENCE;
        let (mut acknowledged, mut failed) = (Vec::new(), 0);
        // Until three writes in a row are well, which the new primary took.
        for n in 0.. {
            assert!(Instant::now() < until, "no new primary");
            let (name, began) = (sid(&format!("s{n}")), Instant::now());
            match store.create(&name, &record("{}"), now + 600_000, now).await {
                Ok(Created::Done(_)) => acknowledged.push(name),
                Ok(Created::Exists) => panic!("made twice"),
                Err(error) => {
                    assert!(
                        matches!(error.kind, Kind::Unreachable | Kind::Timeout | Kind::Overloaded),
                        "{error}"
                    );
                    failed += 1;
                    tokio::task::yield_now().await;
                }
            }
            assert!(began.elapsed() < SHORT + Duration::from_secs(2), "{:?}", began.elapsed());
            // Nobody is logged out meanwhile: there, or no answer.
            match store.load(&sid("before"), now).await {
                Ok(Lookup::Live(_)) | Err(_) => {}
                other => panic!("{other:?}"),
            }
            if acknowledged.len() == 3 {
                break;
            }
        }
        println!("{failed} writes failed");
        let reader = Client::with_uri_str(set.url("readConcernLevel=majority")).await.unwrap();
        let documents = reader.database("app").collection::<Document>("sessions");
        for name in acknowledged.iter().chain([&sid("before")]) {
            let found = documents.find_one(doc! { "_id": name.as_str() }).await.unwrap();
            assert!(found.is_some(), "lost");
        }
        set.members[0].restart();
        assert!(drain.finished(PATIENCE).await, "tasks are left");
    });
}

/// There is no `mongos` to test with. What a collection sharded by `{ _id: "hashed" }` asks is that every statement names its `_id`: the
/// server's own profile shows that each one does, whatever the store was asked.
#[test]
fn every_statement_names_its_id_as_sharding_asks() {
    block_on(async {
        let (name, now) = ("profiled", now());
        let client = Client::with_uri_str(format!("mongodb://{}", mongod::address())).await.unwrap();
        let database = client.database(name);
        database.run_command(doc! { "profile": 2 }).await.unwrap();
        let store = store_at(&format!("mongodb://{}/{name}", mongod::address()));
        let (a, b) = (sid("a"), sid("b"));
        let record = record("{}");
        store.create(&a, &record, now + 60_000, now).await.unwrap();
        store.create(&a, &record, now + 70_000, now).await.unwrap();
        store.create(&b, &record, now - 5, now - 9).await.unwrap();
        store.create(&b, &record, now + 60_000, now).await.unwrap();
        let loaded = live(store.load(&a, now).await);
        let (one, two) = tokio::join!(store.load(&a, now), store.load(&b, now));
        assert!(one.is_ok() && two.is_ok());
        let large = super::words::record(&format!("{{\"a\":\"{}\"}}", "x".repeat(5000)));
        store.update(&a, &loaded.version, &large, now + 60_000, now).await.unwrap();
        store.update(&a, &loaded.version, &record, now + 60_000, now).await.unwrap();
        let large = live(store.load(&a, now).await);
        for loaded in [&large, &loaded] {
            store.touch(&a, loaded, now + 80_000, now).await.unwrap();
        }
        store.destroy_if(&a, &loaded.version, now).await.unwrap();
        store.destroy_if(&a, &large.version, now).await.unwrap();
        store.destroy(&b).await.unwrap();
        database.run_command(doc! { "profile": 0 }).await.unwrap();
        let profile = database.collection::<Document>("system.profile");
        let mut cursor = profile.find(doc! { "ns": format!("{name}.sessions") }).await.unwrap();
        let mut seen = std::collections::BTreeMap::new();
        while cursor.advance().await.unwrap() {
            let entry = cursor.deserialize_current().unwrap();
            let (op, command) = (entry.get_str("op").unwrap(), entry.get_document("command").unwrap());
            let filter = command.get("q").or_else(|| command.get("filter"));
            let is_named = match (op, filter) {
                ("insert", None) => true,
                (_, Some(Bson::Document(filter))) => match filter.get("_id") {
                    Some(Bson::String(_)) => true,
                    Some(Bson::Document(list)) => list.contains_key("$in") && op == "query",
                    _ => false,
                },
                _ => false,
            };
            assert!(is_named, "{op}: {command}");
            assert_ne!(command.get("upsert"), Some(&Bson::Boolean(true)));
            *seen.entry(op.to_owned()).or_insert(0) += 1;
        }
        let operations: Vec<&str> = seen.keys().map(String::as_str).collect();
        assert_eq!(operations, ["insert", "query", "remove", "update"], "{seen:?}");
        assert!(seen.values().sum::<i32>() >= 15, "{seen:?}");
    });
}
