//! A store that does not answer: 503 in time, nothing reaches the app, other routes go on, recovery without a restart.

use crate::support::app::App;
use crate::support::eventually;
use crate::support::link::{Link, Mode};
use crate::support::mongo::Database;
use crate::support::sidecar::{Setup, Sidecar};
use serde_json::json;
use std::time::{Duration, Instant};

const ROUTES: &str = r#"
[[route]]
path = "/"
upstream = "app"
[[route]]
path = "/off"
upstream = "app"
session = "off"
[[route]]
path = "/anonymous"
upstream = "app"
store_unavailable = "anonymous"
"#;

/// `timeouts.store` here, and what a loaded machine may add to it.
const DEADLINE: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(3);

fn behind_link(app: &App, database: &Database) -> (Link, Setup) {
    let link = Link::to(database.server());
    let setup = Setup::before(app)
        .store(&database.store_at(link.address()))
        .routes(ROUTES)
        .more(&format!("[timeouts]\nstore = \"{}ms\"", DEADLINE.as_millis()));
    (link, setup)
}

/// What must hold as long as the store is away.
#[track_caller]
fn assert_outage(app: &App, sidecar: &Sidecar, browser: &mut crate::support::client::Browser) {
    let before = app.seen().len();
    let start = Instant::now();
    let response = browser.get("/", &[]);
    assert_eq!(response.status, 503);
    assert!(start.elapsed() < DEADLINE + LATE, "{:?}", start.elapsed());
    let seconds: u32 = response.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!(seconds > 0);
    assert_eq!(response.cookie(), None, "an outage logs nobody out");
    assert_eq!(app.seen().len(), before, "nothing reaches the app");

    let start = Instant::now();
    assert_eq!(browser.get("/off", &[]).status, 200);
    assert!(start.elapsed() < DEADLINE, "a route without sessions waits for nobody: {:?}", start.elapsed());

    let response = browser.get("/anonymous", &[("Say-X-Session-Update", r#"{"lost":true}"#)]);
    assert_eq!((response.status, response.text().as_str(), response.cookie()), (200, "{}", None));
    assert_eq!(app.last().header("x-session-status"), Some("unavailable"));
    assert_ne!(sidecar.admin("/readyz"), 200);
    assert_eq!(sidecar.admin("/healthz"), 200);
}

#[track_caller]
fn assert_recovery(sidecar: &Sidecar, browser: &mut crate::support::client::Browser) {
    eventually("the session's return", || (browser.get("/", &[]).status == 200).then_some(()));
    assert_eq!(browser.session(), json!({"a": 1}));
    eventually("readiness", || (sidecar.admin("/readyz") == 200).then_some(()));
}

#[test]
fn a_store_that_breaks_or_hangs_is_a_503_until_it_is_back() {
    let (app, database) = (App::parrot(), Database::fresh());
    let (link, setup) = behind_link(&app, &database);
    let sidecar = setup.start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    for mode in [Mode::Reset, Mode::Stall] {
        link.set(mode);
        eventually("the outage", || (browser.get("/", &[]).status == 503).then_some(()));
        eventually("red readiness", || (sidecar.admin("/readyz") != 200).then_some(()));
        assert_outage(&app, &sidecar, &mut browser);
        link.set(Mode::Forward);
        assert_recovery(&sidecar, &mut browser);
    }
    sidecar.logged(&["store", "load"]);
    sidecar.stop();
}

#[test]
fn a_sidecar_starts_without_its_store() {
    let (app, database) = (App::parrot(), Database::fresh());
    let (link, setup) = behind_link(&app, &database);
    link.set(Mode::Reset);
    let sidecar = setup.start_alive();
    assert_ne!(sidecar.admin("/readyz"), 200);
    let mut browser = sidecar.browser();
    browser.jar.insert(
        "connect.sid".into(),
        crate::support::ticket::cookie("sid", crate::support::ticket::SECRET)[12..].into(),
    );
    assert_outage(&app, &sidecar, &mut browser);
    link.set(Mode::Forward);
    eventually("recovery", || {
        (sidecar.browser().say(&[("X-Session-Update", "{\"a\":1}")]).status == 200).then_some(())
    });
}

#[test]
fn a_failed_save_answers_503_in_place_of_the_response() {
    let (app, database) = (App::parrot(), Database::fresh());
    let (link, setup) = behind_link(&app, &database);
    let sidecar = setup.start();
    // Without a cookie nothing is loaded, so the save is the first to meet the outage.
    link.set(Mode::Stall);
    let response = sidecar.browser().say(&[("X-Session-Update", r#"{"a":1}"#), ("X-Leaked", "yes")]);
    assert_eq!((response.status, response.header("x-leaked"), response.cookie()), (503, None, None));
    assert!(response.header("retry-after").is_some());
}

#[test]
fn an_outage_does_not_pile_up_work() {
    let (app, database) = (App::parrot(), Database::fresh());
    let (link, setup) = behind_link(&app, &database);
    let sidecar = setup.start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    link.set(Mode::Stall);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..40 {
            let mut browser = browser.clone();
            scope.spawn(move || assert_eq!(browser.get("/", &[]).status, 503));
        }
    });
    assert!(start.elapsed() < DEADLINE + LATE, "forty waited one after another: {:?}", start.elapsed());
    link.set(Mode::Forward);
    assert_recovery(&sidecar, &mut browser);
}
