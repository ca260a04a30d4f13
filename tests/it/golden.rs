//! The golden corpus: cookies and stored sessions that the released npm packages really wrote (`tests/compat/generate-golden.mjs`,
//! versions in the folder names). Each goes into a real store as it is; the sidecar is asked with its cookie, and its app must see
//! the data to the byte. Only reading is looked at here; `tests/compat/run.mjs` has both sides write.

use crate::support::app::App;
use crate::support::mongo::Database;
use crate::support::redis::Redis;
use crate::support::sidecar::Setup;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::Document;
use cloakroom::session::cookie::{Presented, read};
use cloakroom::session::signature::KeyRing;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One stored session and what was written with it.
struct Case {
    /// Package, version and case: what a failure names.
    name: String,
    value: Value,
}

impl Case {
    fn text(&self, key: &str) -> &str {
        self.value[key].as_str().unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }

    fn secrets(&self) -> Vec<&str> {
        self.value["secrets"].as_array().unwrap().iter().map(|secret| secret.as_str().unwrap()).collect()
    }

    /// `connect.sid=s%3A…`, as a browser would send it.
    fn cookie(&self) -> &str {
        self.text("set_cookie").split(';').next().unwrap()
    }

    /// What a sidecar must be told to read it; cases that say the same share one.
    fn sidecar(&self) -> (String, Vec<&str>) {
        (self.text("sidecar_store").to_owned(), self.secrets())
    }
}

/// All cases of the packages whose names begin so. A package or a case that is missing is a failure of its own.
fn corpus(packages: &str, versions: usize, at_least: usize) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden");
    let sorted = |folder: &Path| {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let folders: Vec<PathBuf> =
        sorted(&root).into_iter().filter(|folder| name(folder).starts_with(packages)).collect();
    assert_eq!(folders.len(), versions, "{folders:?}");
    let mut cases = Vec::new();
    for folder in folders {
        let files = sorted(&folder);
        assert!(files.len() >= at_least, "{}: {} cases are too few", name(&folder), files.len());
        for file in files {
            let value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            cases.push(Case { name: format!("{}/{}", name(&folder), name(&file)), value });
        }
    }
    cases
}

/// Asks a sidecar for every case; `lines` turns a case's `[store]` into one that knows where the store is.
fn ask(cases: &[Case], lines: impl Fn(&str) -> String) {
    let mut groups: BTreeMap<(String, Vec<&str>), Vec<&Case>> = BTreeMap::new();
    for case in cases {
        groups.entry(case.sidecar()).or_default().push(case);
    }
    let app = App::parrot();
    let mut wrong = Vec::new();
    for ((store, secrets), cases) in groups {
        let sidecar = Setup::before(&app)
            .secrets(&secrets)
            .store(&lines(&store))
            .more("[limits]\nsession_header = \"256KiB\"")
            .start();
        for case in cases {
            let response = sidecar.client().get("/", &[("Cookie", case.cookie())]);
            let seen = app.last();
            let found = (response.status, seen.header("x-session-status"), seen.header("x-session"));
            let expected = (200, Some("live"), Some(case.text("x_session")));
            if found != expected {
                wrong.push(format!("{}:\n  {found:?}\n  {expected:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn what_connect_mongo_wrote_is_read() {
    let (database, cases) = (Database::fresh(), corpus("connect-mongo-", 4, 20));
    for case in &cases {
        let bytes = STANDARD.decode(case.value["stored"]["bson"].as_str().unwrap()).unwrap();
        database.insert(Document::from_reader(bytes.as_slice()).unwrap());
    }
    let url = format!("mongodb://{}/app", database.server());
    ask(&cases, |store| store.replace("${URL}", &url));
}

#[test]
fn what_connect_redis_wrote_is_read() {
    let (redis, cases) = (Redis::start(), corpus("connect-redis-", 5, 15));
    for case in &cases {
        let stored = &case.value["stored"];
        let [key, value] = ["key", "value"].map(|name| stored[name].as_str().unwrap());
        let ttl = stored["ttl"].as_i64().unwrap();
        assert!(ttl > 0, "{}: connect-redis wrote it with an expiry", case.name);
        redis.command(&["SET", key, value, "EX", &ttl.to_string()]);
    }
    ask(&cases, |store| store.replace("${URL}", &redis.url("", 0)));
}

#[test]
fn what_session_file_store_wrote_is_read() {
    let folder = std::env::temp_dir().join(format!("cloakroom-golden-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let cases = corpus("session-file-store-", 1, 15);
    for case in &cases {
        let stored = &case.value["stored"];
        let [file, text] = ["file", "text"].map(|name| stored[name].as_str().unwrap());
        fs::write(folder.join(file), text).unwrap();
    }
    ask(&cases, |store| store.replace("${PATH}", folder.to_str().unwrap()));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn every_golden_cookie_verifies() {
    for case in corpus("", 10, 15) {
        let keys = KeyRing::new(case.secrets().iter().map(|&secret| secret.into()).collect()).unwrap();
        let presented = read(|| [case.cookie().as_bytes()], ["connect.sid"], &keys);
        let Presented::Valid(tickets) = presented else { panic!("{}: {presented:?}", case.name) };
        // The rotated one was signed by the secret that is now second.
        let key = case.secrets().len() - 1;
        assert_eq!((tickets.first.sid.as_str(), tickets.first.key), (case.text("sid"), key), "{}", case.name);
    }
}
