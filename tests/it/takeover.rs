//! SIGUSR2: a new process takes the sockets over, and nobody notices; one that fails changes nothing.

use crate::support::app::{App, Reply};
use crate::support::gate::Gate;
use crate::support::load::{self, Kind, Load};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::{eventually, patience};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A sidecar whose process changes; the last one is killed at the end of the test.
struct Dynasty {
    first: Sidecar,
    process: u32,
}

impl Dynasty {
    fn start(setup: Setup) -> Self {
        let first = setup.start();
        Self { process: first.id(), first }
    }

    /// The next process: the last one that the log tells of, once it tells of one more.
    #[track_caller]
    fn replace(&mut self) {
        let told = self.told().len();
        signal(self.process, "-USR2");
        self.is_replaced(told);
    }

    /// Waits until the log tells of more than `told` new processes.
    #[track_caller]
    fn is_replaced(&mut self, told: usize) {
        self.process = eventually("a new process", || self.told().get(told).copied());
    }

    fn told(&self) -> Vec<u32> {
        let log = self.first.log();
        log.lines().filter(|line| line.contains("a new process serves")).filter_map(process_in).collect()
    }

    #[track_caller]
    fn stop(mut self) {
        signal(self.process, "-TERM");
        let gone = Path::new("/proc").join(self.process.to_string());
        eventually("the end of the last process", || (!is_alive(&gone)).then_some(()));
        if self.process != self.first.id() {
            let status = self.first.wait();
            assert!(status.success(), "the first process: {status}");
        }
        self.process = 0;
    }
}

impl Drop for Dynasty {
    fn drop(&mut self) {
        if self.process != 0 && self.process != self.first.id() {
            signal(self.process, "-KILL");
        }
    }
}

fn process_in(line: &str) -> Option<u32> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line["process"].as_u64()?.try_into().ok()
}

/// Ended and not yet collected counts as gone: whose child it is, is not ours to say.
fn is_alive(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn signal(process: u32, name: &str) {
    drop(Command::new("kill").args([name, &process.to_string()]).status());
}

fn under_load(store: &str, takeovers: usize, kinds: &[Kind]) {
    let app = load::app("one");
    let mut dynasty = Dynasty::start(Setup::before(&app).threads(2).store(store));
    let load = Load::start(dynasty.first.address(), kinds);
    for _ in 0..takeovers {
        dynasty.replace();
        let served = load.served();
        eventually("requests by the new process", || {
            (load.served() > served + 20 || load.has_failed()).then_some(())
        });
    }
    let (served, _) = load.stop();
    assert!(served > takeovers * 20, "{served}");
    dynasty.stop();
}

#[test]
fn twenty_takeovers_under_load_fail_no_request_with_a_store_that_is_shared() {
    let folder = std::env::temp_dir().join(format!("cloakroom-dynasty-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let store = format!("kind = \"file\"\npath = {:?}", folder.join("sessions"));
    under_load(&store, 20, &[Kind::Kept, Kind::Kept, Kind::New, Kind::New, Kind::Http2]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn takeovers_under_load_fail_no_request_with_a_store_that_one_process_has_at_a_time() {
    let store = "kind = \"embedded\"\npath = \"sessions.redb\"";
    under_load(store, 20, &[Kind::Kept, Kind::Kept, Kind::New, Kind::New, Kind::Http2]);
}

#[test]
fn a_tunnel_outlives_the_handing_over_of_the_store() {
    let app = load::app("one");
    let store = "kind = \"embedded\"\npath = \"sessions.redb\"";
    let mut dynasty = Dynasty::start(Setup::before(&app).store(store));
    let mut browser = dynasty.first.browser();
    assert_eq!(browser.get("/", &[]).text(), "one {}");
    let mut tunnel = dynasty.first.client();
    tunnel.send("GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.receive().status, 101);
    dynasty.replace();
    assert_eq!(browser.get("/", &[]).text(), "one {\"user\":\"known\"}");
    tunnel.send("still here");
    assert_eq!(tunnel.read_exactly(10), b"still here");
    drop(tunnel);
    dynasty.stop();
}

#[test]
fn a_request_under_way_keeps_the_store_until_it_is_answered_and_new_ones_wait_for_the_new_process() {
    let gate = Gate::default();
    let before_the_gate = gate.clone();
    let app = App::start(move |request| {
        if request.target() == "/slow" {
            before_the_gate.pass();
        }
        Reply::ok(request.header("x-session").unwrap()).header("X-Session-Update", "{\"a\":1}")
    });
    let store = "kind = \"embedded\"\npath = \"sessions.redb\"";
    let mut dynasty = Dynasty::start(Setup::before(&app).store(store));
    let mut slow = dynasty.first.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n");
    gate.arrived(1);
    dynasty.first.signal("-USR2");
    dynasty.first.logged(&["stopping: no new connections"]);
    let mut waiting = dynasty.first.client();
    waiting.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    // Longer than the patience with idle connections: the store must wait for the request all the same.
    waiting.socket().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(waiting.try_receive("GET").is_err(), "nobody serves without the store");
    waiting.socket().set_read_timeout(Some(patience())).unwrap();
    gate.open();
    let answered = slow.receive();
    assert_eq!((answered.status, answered.header("connection")), (200, Some("close")));
    let mut browser = dynasty.first.browser();
    browser.keep(&answered);
    assert_eq!(waiting.receive().status, 200);
    dynasty.is_replaced(0);
    assert_eq!(browser.session(), json!({"a": 1}));
    dynasty.stop();
}

#[test]
fn a_kept_connection_is_told_that_its_next_answer_is_the_last() {
    let app = App::parrot();
    let mut dynasty = Dynasty::start(Setup::before(&app));
    let mut kept = dynasty.first.client();
    assert_eq!(kept.get("/", &[]).header("connection"), None);
    dynasty.replace();
    dynasty.first.logged(&["WARN", "sessions in memory stay behind"]);
    let last = kept.get("/", &[]);
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(kept.is_closed());
    assert_eq!(dynasty.first.client().get("/", &[]).header("connection"), None);
    dynasty.stop();
}

#[test]
fn a_new_process_that_cannot_start_changes_nothing() {
    let app = App::parrot();
    let mut dynasty =
        Dynasty::start(Setup::before(&app).store("kind = \"embedded\"\npath = \"sessions.redb\""));
    let mut browser = dynasty.first.browser();
    browser.say(&[("X-Session-Update", "{\"a\":1}")]);
    let good = fs::read_to_string(dynasty.first.folder().join("proxy.toml")).unwrap();
    for (bad, words) in [
        ("[nonsense]\n", "exit status: 64"),
        // A store that is wrong, and nobody's but its own.
        ("[store]\nkind = \"embedded\"\npath = \"/nowhere/at/all.redb\"\n", "exit status: 1"),
    ] {
        let kept = if bad.starts_with("[store]") { without_store(&good) } else { good.clone() };
        fs::write(dynasty.first.folder().join("proxy.toml"), format!("{kept}\n{bad}")).unwrap();
        dynasty.first.signal("-USR2");
        dynasty.first.logged(&["cannot take over", "serves on", words]);
        assert_eq!(browser.session(), json!({"a": 1}));
        assert_eq!(dynasty.first.admin("/readyz"), 200);
    }
    fs::write(dynasty.first.folder().join("proxy.toml"), good).unwrap();
    dynasty.replace();
    assert_eq!(browser.session(), json!({"a": 1}));
    dynasty.stop();
}

fn without_store(toml: &str) -> String {
    let (before, rest) = toml.split_once("[store]\n").unwrap();
    let (_, after) = rest.split_once("\n[").unwrap();
    format!("{before}[{after}")
}

#[test]
fn a_new_configuration_comes_with_the_new_process_and_so_do_new_listeners() {
    let (one, two) = (load::app("one"), load::app("two"));
    let mut dynasty = Dynasty::start(Setup::before(&one).server("reload = \"signal\""));
    let folder = dynasty.first.folder().to_owned();
    let socket = folder.join("sidecar.sock");
    let unix = format!("[[listener]]\naddress = \"unix:{}\"\n", socket.display());
    let add = |setup: &Setup| {
        dynasty.first.rewrite(setup);
        let toml = fs::read_to_string(folder.join("proxy.toml")).unwrap();
        fs::write(folder.join("proxy.toml"), toml + &unix).unwrap();
    };
    add(&Setup::before(&two).server("reload = \"signal\""));
    let ask = |path: &Path| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    dynasty.replace();
    assert_eq!(dynasty.first.client().get("/", &[]).text(), "two {}");
    assert!(ask(&socket).ends_with("two {}"));
    // The file of the socket outlives the process that made it.
    dynasty.replace();
    assert!(ask(&socket).ends_with("two {}"));
    dynasty.stop();
    assert!(!socket.exists(), "the last process removes it");
}

#[test]
fn systemd_hears_which_process_it_is_now() {
    let app = App::parrot();
    let folder = std::env::temp_dir().join(format!("cloakroom-notify-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let inbox = UnixDatagram::bind(folder.join("notify")).unwrap();
    inbox.set_read_timeout(Some(patience())).unwrap();
    let next = || {
        let mut bytes = [0; 200];
        let length = inbox.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let setup = Setup::before(&app).environment("NOTIFY_SOCKET", folder.join("notify").to_str().unwrap());
    let mut dynasty = Dynasty::start(setup);
    assert_eq!(next(), "READY=1");
    dynasty.replace();
    assert_eq!(next(), format!("MAINPID={}", dynasty.process));
    dynasty.stop();
    assert_eq!(next(), "STOPPING=1");
    fs::remove_dir_all(folder).unwrap();
}
