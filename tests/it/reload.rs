//! A changed configuration is taken while requests run, a wrong one is refused, and nobody notices either.

use crate::support::app::{App, Reply};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::load::{self, Kind, Load};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::ticket::{SECRET, cookie, sid_of_any};
use serde_json::json;
use std::fs;

const TAKEN: &str = "cloakroom_config_reloads_total{outcome=\"taken\"}";
const REFUSED: &str = "cloakroom_config_reloads_total{outcome=\"refused\"}";
const SUCCESSFUL: &str = "cloakroom_config_last_reload_successful";
const OTHER: &str = "another-secret-of-the-tests-0123456789abcde";

/// Reload number `count` (of those with this outcome) by signal.
#[track_caller]
fn reload(sidecar: &Sidecar, setup: &Setup, outcome: &str, count: u64) {
    sidecar.rewrite(setup);
    sidecar.signal("-HUP");
    eventually("the reload", || (sidecar.metric(outcome) == count).then_some(()));
}

/// Resident memory in KiB, and open descriptors.
fn size(sidecar: &Sidecar) -> (u64, usize) {
    let process = format!("/proc/{}", sidecar.id());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (resident, fs::read_dir(format!("{process}/fd")).unwrap().count())
}

#[test]
fn a_hundred_reloads_under_load_fail_no_request_and_leak_nothing() {
    let apps = [load::app("one"), load::app("two")];
    let setups = [(&apps[0], [SECRET, OTHER]), (&apps[1], [OTHER, SECRET])]
        .map(|(app, secrets)| Setup::before(app).secrets(&secrets).threads(2).server("reload = \"signal\""));
    let sidecar = setups[0].clone().start();
    let kinds = [Kind::Kept, Kind::Kept, Kind::New, Kind::Http2, Kind::WebSocket];
    let load = Load::start(sidecar.address(), &kinds);
    let mut after_twenty = (0, 0);
    for count in 1..=100 {
        let served = load.served();
        reload(&sidecar, &setups[count as usize % 2], TAKEN, count);
        eventually("requests under the new configuration", || {
            (load.served() > served + 5 || load.has_failed()).then_some(())
        });
        if count == 20 {
            after_twenty = size(&sidecar);
        }
    }
    let (resident, descriptors) = size(&sidecar);
    let (served, apps) = load.stop();
    assert!(served > 500, "{served}");
    assert_eq!(apps, ["one", "two"]);
    assert!(resident < after_twenty.0 + 8 * 1024, "from {} to {resident} KiB", after_twenty.0);
    assert!(descriptors <= after_twenty.1 + 8, "from {} to {descriptors} descriptors", after_twenty.1);
    assert_eq!(sidecar.metric(SUCCESSFUL), 1);
    sidecar.stop();
}

#[test]
fn a_wrong_configuration_is_refused_with_every_reason_and_the_old_one_serves_on() {
    let (one, two) = (load::app("one"), load::app("two"));
    let good = Setup::before(&one);
    let sidecar = good.start();
    let at_start = sidecar.metric("cloakroom_config_last_reload_success_timestamp_seconds");
    assert!(at_start > 1_700_000_000 && sidecar.metric(SUCCESSFUL) == 1);
    let mut browser = sidecar.browser();
    assert_eq!(browser.get("/", &[]).text(), "one {}");
    let bad = Setup::before(&two).session("rollling = true").more("[timeouts]\ndrain = \"soon\"");
    reload(&sidecar, &bad, REFUSED, 1);
    sidecar.logged(&["session.rollling: unknown key; did you mean `rolling`?"]);
    sidecar.logged(&["timeouts.drain", "`soon` is not a duration"]);
    sidecar.logged(&["refused", "serves on"]);
    assert_eq!(sidecar.metric(SUCCESSFUL), 0);
    assert_eq!(browser.get("/", &[]).text(), "one {\"user\":\"known\"}");
    fs::remove_file(sidecar.folder().join("proxy.toml")).unwrap();
    sidecar.signal("-HUP");
    sidecar.logged(&["proxy.toml: no such file"]);
    assert_eq!(browser.get("/", &[]).text(), "one {\"user\":\"known\"}");
    reload(&sidecar, &Setup::before(&two), TAKEN, 1);
    assert_eq!(sidecar.metric(SUCCESSFUL), 1);
    assert_eq!(browser.get("/", &[]).text(), "two {\"user\":\"known\"}");
    sidecar.stop();
}

#[test]
fn a_request_under_way_ends_with_the_configuration_it_met() {
    let gate = Gate::default();
    let before_the_gate = gate.clone();
    let app = App::start(move |request| {
        if request.target() == "/slow" {
            before_the_gate.pass();
        }
        Reply::ok("done").header("X-Session-Update", "{\"a\":1}").header("X-Other-Update", "{\"b\":1}")
    });
    let sidecar = Setup::before(&app).start();
    let mut slow = sidecar.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n");
    gate.arrived(1);
    reload(&sidecar, &Setup::before(&app).headers("prefix = \"X-Other\""), TAKEN, 1);
    let fresh = sidecar.client().get("/", &[]);
    assert_eq!((fresh.header("x-session-update"), fresh.header("x-other-update")), (Some("{\"a\":1}"), None));
    assert!(app.last().header("x-session").is_none() && app.last().header("x-other").is_some());
    gate.open();
    let old = slow.receive();
    assert_eq!((old.status, old.header("x-session-update")), (200, None));
    assert!(old.cookie().is_some() && old.header("x-other-update").is_some());
    // The next request of the same connection meets the new one.
    assert_eq!(slow.get("/", &[]).header("x-other-update"), None);
    sidecar.stop();
}

#[test]
fn a_secrets_file_that_changes_is_read_without_a_signal_and_logs_nobody_out() {
    let app = App::parrot();
    let folder = std::env::temp_dir().join(format!("cloakroom-rotation-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("secrets");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let sidecar = Setup::before(&app).secrets(&[]).session(&format!("secrets_file = {file:?}")).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"user":1}"#)]);
    let signed_before = browser.cookies();
    fs::write(folder.join("new"), format!("{OTHER}\n{SECRET}\n")).unwrap();
    fs::rename(folder.join("new"), &file).unwrap();
    eventually("the new secrets", || (sidecar.metric(TAKEN) == 1).then_some(()));
    assert_eq!(browser.session(), json!({"user": 1}));
    let sid = sid_of_any(&signed_before);
    assert_eq!(signed_before, cookie(&sid, SECRET));
    // Signed anew, so that the old secret can go.
    assert_eq!(browser.cookies(), cookie(&sid, OTHER));
    fs::write(&file, format!("{OTHER}\n")).unwrap();
    eventually("the old secret to go", || (sidecar.metric(TAKEN) == 2).then_some(()));
    assert_eq!(browser.session(), json!({"user": 1}));
    let old = sidecar.client().get("/", &[("Cookie", &signed_before)]);
    assert_eq!(old.text(), "{}");
    sidecar.stop();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_needs_a_restart_is_named_once_and_the_rest_is_taken() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let other = Setup::before(&app)
        .server("reload = \"signal\"")
        .store("kind = \"file\"")
        .session("name = \"other.sid\"")
        .more("[log]\nlevel = \"debug\"\nsession_events = true\naccess = false");
    reload(&sidecar, &other, TAKEN, 1);
    let line = sidecar.logged(&["stay as they were until a restart"]);
    assert!(line.contains("[store]") && line.contains("log.access") && line.contains("WARN"), "{line}");
    let response = sidecar.client().get("/", &[("Say-X-Session-Update", "{\"a\":1}")]);
    assert!(response.header("set-cookie").unwrap().starts_with("other.sid=s%3A"));
    sidecar.logged(&["session event", "create"]);
    assert!(!sidecar.folder().join("sessions").exists());
    // Only a signal counts now.
    sidecar.rewrite(&Setup::before(&app));
    reload(&sidecar, &Setup::before(&app), TAKEN, 2);
    let response = sidecar.client().get("/", &[("Say-X-Session-Update", "{\"a\":1}")]);
    assert!(response.cookie().is_some());
    sidecar.stop();
}
