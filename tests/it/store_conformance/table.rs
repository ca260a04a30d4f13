//! What every store answers to every operation: as it should be, after somebody else wrote, when nothing is there, when what was there
//! has ended, and when the store is out of reach. The table is printed, and compared with the one written here.
//!
//! `-` is what cannot be: `ping` concerns no session, `memory` is never out of reach.

use super::redis::kind;
use super::words::{Place, Subject, TTL, Time, block_on, lasting, live, minute, now, sid};
use crate::support::mongod::Mongod;
use crate::support::redis::Redis;
use cloakroom::drain::Drain;
use cloakroom::store::error::Kind;
use cloakroom::store::{
    Created, FileOptions, Loaded, Lookup, SharedStore, StoreError, StoreKind, StoreOptions, Swapped, Touched,
};
use std::time::Duration;

const OPERATIONS: [&str; 7] = ["load", "create", "update", "touch", "destroy", "destroy_if", "ping"];
const SITUATIONS: [&str; 5] = ["normal", "conflict", "absent", "expired", "outage"];

const EXPECTED: &str = "
store     operation   normal    conflict  absent    expired   outage
memory    load        live      live      absent    absent    -
memory    create      done      exists    done      done      -
memory    update      done      conflict  absent    absent    -
memory    touch       done      done      absent    absent    -
memory    destroy     done      done      nothing   done      -
memory    destroy_if  done      conflict  absent    absent    -
memory    ping        done      -         -         -         -
embedded  load        live      live      absent    absent    away
embedded  create      done      exists    done      done      away
embedded  update      done      conflict  absent    absent    away
embedded  touch       done      done      absent    absent    away
embedded  destroy     done      done      nothing   done      away
embedded  destroy_if  done      conflict  absent    absent    away
embedded  ping        done      -         -         -         away
mongodb   load        live      live      absent    absent    away
mongodb   create      done      exists    done      done      away
mongodb   update      done      conflict  absent    absent    away
mongodb   touch       done      done      absent    absent    away
mongodb   destroy     done      done      nothing   done      away
mongodb   destroy_if  done      conflict  absent    absent    away
mongodb   ping        done      -         -         -         away
redis     load        live      live      absent    absent    away
redis     create      done      exists    done      done      away
redis     update      done      conflict  absent    absent    away
redis     touch       done      done      absent    absent    away
redis     destroy     done      done      nothing   nothing   away
redis     destroy_if  done      conflict  absent    absent    away
redis     ping        done      -         -         -         away
file      load        live      live      absent    absent    away
file      create      done      exists    done      done      away
file      update      done      conflict  absent    absent    away
file      touch       done      done      absent    absent    away
file      destroy     done      done      nothing   done      away
file      destroy_if  done      conflict  absent    absent    away
file      ping        done      -         -         -         away
";

/// One store of the table.
struct Shelf {
    name: &'static str,
    time: Time,
    kind: StoreKind,
    /// Puts it out of reach; what is returned lives until the end. `None`: that cannot be.
    outage: Option<Outage>,
}

type Outage = Box<dyn FnOnce(SharedStore) -> Box<dyn std::any::Any>>;

/// All stores in the order of the table. A store is added here, and its lines to `EXPECTED`.
fn shelves() -> Vec<Shelf> {
    vec![memory(), embedded(), mongodb(), redis(), file()]
}

fn memory() -> Shelf {
    Shelf { name: "memory", time: Time::Told, kind: StoreKind::Memory { max_bytes: 10 << 20 }, outage: None }
}

fn embedded() -> Shelf {
    let place = Place::new();
    Shelf {
        name: "embedded",
        time: Time::Told,
        kind: StoreKind::Embedded { path: place.path("s.redb") },
        // Its file is closed.
        outage: Some(Box::new(move |shared| {
            shared.close();
            Box::new(place)
        })),
    }
}

fn mongodb() -> Shelf {
    let mut mongod = Mongod::start();
    Shelf {
        name: "mongodb",
        time: Time::Told,
        kind: StoreKind::Mongodb(super::mongodb::options(mongod.url("table"), "sessions")),
        outage: Some(Box::new(move |shared| {
            mongod.kill();
            Box::new((mongod, shared))
        })),
    }
}

fn redis() -> Shelf {
    let mut server = Redis::start();
    Shelf {
        name: "redis",
        time: Time::Real,
        kind: kind(vec![server.url("", 0)], false, "table"),
        outage: Some(Box::new(move |shared| {
            server.kill();
            Box::new((server, shared))
        })),
    }
}

fn file() -> Shelf {
    let place = Place::new();
    let path = place.path("sessions");
    Shelf {
        name: "file",
        time: Time::Told,
        kind: StoreKind::File(FileOptions { path: path.clone(), ttl: TTL, reap_interval: None }),
        // Somebody moved it away.
        outage: Some(Box::new(move |shared| {
            std::fs::rename(path, place.path("elsewhere")).unwrap();
            Box::new((place, shared))
        })),
    }
}

#[test]
fn every_store_answers_every_operation_in_every_situation_as_the_table_says() {
    let mut table = String::from("\nstore     operation   ");
    let widths = |cells: &[&str]| cells.iter().map(|cell| format!("{cell:<10}")).collect::<String>();
    table += widths(&SITUATIONS).trim_end();
    table.push('\n');
    for shelf in shelves() {
        let name = shelf.name;
        let columns = observed(shelf);
        for (index, operation) in OPERATIONS.iter().enumerate() {
            let cells: Vec<&str> = columns.iter().map(|column| column[index]).collect();
            table += format!("{name:<10}{operation:<12}{}", widths(&cells)).trim_end();
            table.push('\n');
        }
    }
    println!("{table}");
    assert_eq!(table, EXPECTED);
}

/// A column of answers for each situation.
fn observed(shelf: Shelf) -> [[&'static str; 7]; 5] {
    let options = StoreOptions { kind: shelf.kind, deadline: Duration::from_secs(2), max_payload: 10_000 };
    let shared = SharedStore::open(options).unwrap();
    block_on(async {
        let drain = Drain::new();
        let subject = Subject { store: shared.attach(&drain), drain, time: shelf.time };
        subject.store.ping().await.unwrap();
        let normal = normal(&subject).await;
        let conflict = conflict(&subject).await;
        let absent = absent(&subject).await;
        let expired = expired(&subject).await;
        let Some(outage) = shelf.outage else { return [normal, conflict, absent, expired, ["-"; 7]] };
        let loaded = made(&subject, "outage").await;
        let broken = outage(shared);
        let away = answers(&subject, "outage", &loaded, now()).await;
        drop(broken);
        [normal, conflict, absent, expired, away]
    })
}

async fn normal(subject: &Subject) -> [&'static str; 7] {
    let now = now();
    let mut row = ["-"; 7];
    for (index, cell) in row.iter_mut().enumerate() {
        let name = format!("normal{index}");
        // A create finds nothing, the others find what was loaded.
        if index == 1 {
            let (record, ends) = minute("{}", now);
            *cell = created(subject.store.create(&sid(&name), &record, ends, now).await);
        } else {
            let loaded = made(subject, &name).await;
            *cell = answer(subject, index, &name, &loaded, now).await;
        }
    }
    row
}

async fn conflict(subject: &Subject) -> [&'static str; 7] {
    let now = now();
    let mut row = ["-"; 7];
    for (index, cell) in row.iter_mut().enumerate().take(6) {
        let name = format!("conflict{index}");
        let loaded = made(subject, &name).await;
        let (other, ends) = minute(r#"{"n":2}"#, now);
        let written = subject.store.update(&sid(&name), &loaded.version, &other, ends, now).await;
        assert!(matches!(written, Ok(Swapped::Done(_))));
        *cell = answer(subject, index, &name, &loaded, now).await;
    }
    row
}

async fn absent(subject: &Subject) -> [&'static str; 7] {
    let mut row = ["-"; 7];
    for (index, cell) in row.iter_mut().enumerate().take(6) {
        let name = format!("absent{index}");
        let loaded = made(subject, &name).await;
        assert!(subject.store.destroy(&sid(&name)).await.unwrap());
        *cell = answer(subject, index, &name, &loaded, now()).await;
    }
    row
}

async fn expired(subject: &Subject) -> [&'static str; 7] {
    let mut row = ["-"; 7];
    let mut all = Vec::new();
    for index in 0..6 {
        let (name, now) = (format!("expired{index}"), now());
        let (record, ends) = lasting("{}", now, 1000);
        subject.store.create(&sid(&name), &record, ends, now).await.unwrap();
        all.push((live(subject.store.load(&sid(&name), now).await), name, ends));
    }
    for (index, (loaded, name, ends)) in all.iter().enumerate() {
        let gone = subject.ended(&sid(name), *ends).await;
        row[index] = answer(subject, index, name, loaded, gone).await;
    }
    row
}

/// A session that exists, as loaded.
async fn made(subject: &Subject, name: &str) -> Loaded {
    let now = now();
    let (record, ends) = minute(r#"{"n":1}"#, now);
    let created = subject.store.create(&sid(name), &record, ends, now).await;
    assert!(matches!(created, Ok(Created::Done(_))), "{created:?}");
    live(subject.store.load(&sid(name), now).await)
}

async fn answers(subject: &Subject, name: &str, loaded: &Loaded, now: i64) -> [&'static str; 7] {
    let mut row = ["-"; 7];
    for (index, cell) in row.iter_mut().enumerate() {
        *cell = answer(subject, index, name, loaded, now).await;
    }
    row
}

async fn answer(subject: &Subject, index: usize, name: &str, loaded: &Loaded, now: i64) -> &'static str {
    let (store, sid) = (&subject.store, sid(name));
    let (record, ends) = lasting(r#"{"n":3}"#, now, TTL);
    match OPERATIONS[index] {
        "load" => match store.load(&sid, now).await {
            Ok(Lookup::Live(_)) => "live",
            Ok(Lookup::Absent) => "absent",
            Ok(Lookup::Unreadable(_)) => "unreadable",
            Err(error) => failed(&error),
        },
        "create" => created(store.create(&sid, &record, ends, now).await),
        "update" => swapped(store.update(&sid, &loaded.version, &record, ends, now).await),
        "touch" => match store.touch(&sid, loaded, ends, now).await {
            Ok(Touched::Done) => "done",
            Ok(Touched::Absent) => "absent",
            Err(error) => failed(&error),
        },
        "destroy" => match store.destroy(&sid).await {
            Ok(true) => "done",
            Ok(false) => "nothing",
            Err(error) => failed(&error),
        },
        "destroy_if" => swapped(store.destroy_if(&sid, &loaded.version, now).await),
        _ => match store.ping().await {
            Ok(()) => "done",
            Err(error) => failed(&error),
        },
    }
}

fn created(answer: Result<Created, StoreError>) -> &'static str {
    match answer {
        Ok(Created::Done(_)) => "done",
        Ok(Created::Exists) => "exists",
        Err(error) => failed(&error),
    }
}

fn swapped(answer: Result<Swapped, StoreError>) -> &'static str {
    match answer {
        Ok(Swapped::Done(_)) => "done",
        Ok(Swapped::Conflict(_)) => "conflict",
        Ok(Swapped::Absent) => "absent",
        Err(error) => failed(&error),
    }
}

/// `away`: the caller may try again later, whether nobody was there or nobody answered.
fn failed(error: &StoreError) -> &'static str {
    match error.kind {
        Kind::Unreachable | Kind::Timeout => "away",
        Kind::Overloaded => "overloaded",
        Kind::Refused => "refused",
        Kind::Conflict => "conflict",
        Kind::Unstorable => "unstorable",
    }
}
