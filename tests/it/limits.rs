//! What is too much is refused with the right status, and slow clients do not stay.

use crate::support::app::{App, Reply};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::h2::H2Client;
use crate::support::ports::free_port;
use crate::support::sidecar::Setup;
use crate::support::ticket::SECRET;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_head_that_is_too_large_is_a_431() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nrequest_head = \"16KiB\"\nheader_count = 40").start();
    let large = "x".repeat(20_000);
    assert_eq!(sidecar.client().get("/", &[("X-Large", &large)]).status, 431);
    let many: Vec<(String, &str)> = (0..60).map(|n| (format!("X-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(sidecar.client().get("/", &many).status, 431);
    assert!(app.seen().is_empty());
    assert_eq!(sidecar.client().get("/", &many[..20]).status, 200);
}

#[test]
fn a_body_that_is_too_large_is_a_413_announced_or_not() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nrequest_body = \"1KiB\"").start();
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1025\r\n\r\n");
    assert_eq!(client.receive().status, 413);
    assert!(app.seen().is_empty());
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("400\r\n{}\r\n1\r\ny\r\n0\r\n\r\n", "x".repeat(1024)));
    assert_eq!(client.receive().status, 413);
    let mut client = sidecar.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    ));
    assert_eq!(client.receive().status, 200);
}

#[test]
fn a_route_may_allow_more() {
    let app = App::parrot();
    let routes = "[[route]]\npath = \"/\"\nupstream = \"app\"\n[[route]]\npath = \"/upload\"\nupstream = \"app\"\n\
                  [route.limits]\nrequest_body = \"4KiB\"\n";
    let sidecar = Setup::before(&app).routes(routes).more("[limits]\nrequest_body = \"1KiB\"").start();
    for (path, status) in [("/", 413), ("/upload", 200), ("/upload/x", 200), ("/uploads", 413)] {
        let mut client = sidecar.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2000\r\n\r\n"));
        if status == 200 {
            client.send("x".repeat(2000));
        }
        assert_eq!(client.receive().status, status, "{path}");
    }
}

#[test]
fn a_client_that_does_not_finish_its_head_is_closed() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[timeouts]\nrequest_head = \"300ms\"").start();
    for bytes in ["", "GET / HTTP/1.1\r\nHost: app", "PRI * HTTP/2.0\r\n"] {
        let mut client = sidecar.client();
        client.send(bytes);
        // An answer such as 408 is fine, staying is not.
        drop(client.try_receive("GET"));
        assert!(client.is_closed(), "{bytes:?}");
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[timeouts]\nkeep_alive = \"300ms\"").start();
    let mut client = sidecar.client();
    assert_eq!(client.get("/", &[]).status, 200);
    assert!(client.is_closed());
}

#[test]
fn a_gap_in_the_request_body_ends_the_request() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[timeouts]\nrequest_body = \"300ms\"").start();
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nhalf");
    let response = client.try_receive("POST");
    assert!(matches!(&response, Ok(None)) || response.unwrap().unwrap().status == 408);
}

#[test]
fn connections_beyond_the_limit_wait_and_are_served_when_one_leaves() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nconnections = 2").start();
    let mut first = sidecar.client();
    let mut second = sidecar.client();
    assert_eq!((first.get("/", &[]).status, second.get("/", &[]).status), (200, 200));
    let mut third = Client::connect(sidecar.address());
    third.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    drop(first);
    assert_eq!(third.receive().status, 200);
}

#[test]
fn a_head_as_large_as_the_limit_allows_passes() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).more("[limits]\nrequest_head = \"2MiB\"").start();
    let large = "x".repeat(1 << 20);
    assert_eq!(sidecar.client().get("/", &[("X-Large", &large)]).status, 200);
    assert_eq!(app.last().header("x-large").map(str::len), Some(1 << 20));
    let larger = "x".repeat(3 << 20);
    let mut client = sidecar.client();
    // The refusal may come before everything is sent.
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {larger}\r\n\r\n");
    drop(std::io::Write::write_all(&mut client.socket(), request.as_bytes()));
    assert!(
        client.try_receive("GET").map_or(true, |answer| answer.is_none_or(|answer| answer.status == 431))
    );
    assert_eq!(app.seen().len(), 1);
}

#[test]
fn open_files_are_raised_as_far_as_the_system_lets_us_and_too_few_are_said() {
    let folder = std::env::temp_dir().join(format!("cloakroom-open-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = format!(
        "[[listener]]\naddress = \"127.0.0.1:{}\"\n[session]\nsecrets = [{SECRET:?}]\n[store]\nkind = \"memory\"\n\
         [upstream.app]\nservers = [\"http://127.0.0.1:9\"]\n[[route]]\npath = \"/\"\nupstream = \"app\"\n",
        free_port()
    );
    std::fs::write(folder.join("proxy.toml"), config).unwrap();
    let log = folder.join("stderr");
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -Sn 200 && ulimit -Hn 300 && exec \"$0\" --config proxy.toml"])
        .arg(env!("CARGO_BIN_EXE_cloakroom"))
        .current_dir(&folder)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let line = eventually("a line about open files", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().find(|line| line.contains("open_files")).map(str::to_owned)
    });
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(open_files.split_whitespace().nth(3), Some("300"), "{open_files}");
    assert!(line.contains("WARN") && line.contains("300") && line.contains("20100"), "{line}");
}

#[test]
fn what_strangers_send_over_http_2_writes_no_line() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    // The preface, SETTINGS, an answer to a PING that nobody sent, and something that ends the connection.
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x08\x06\x01\0\0\0\0pingpong\0\0\x01\0\0\0\0\0\x09x");
    let mut bytes = Vec::new();
    drop(std::io::Read::read_to_end(&mut client.socket(), &mut bytes));
    assert_eq!(H2Client::connect(sidecar.address()).ask("GET", "/", &[]).status, 200);
    assert!(!sidecar.log().contains("h2::"), "{}", sidecar.log());
}

#[test]
fn a_stop_that_cuts_something_off_takes_the_drain_time_and_no_longer() {
    let gate = Gate::default();
    let before_the_gate = gate.clone();
    let app = App::start(move |_| {
        before_the_gate.pass();
        Reply::ok("late")
    });
    let mut sidecar = Setup::before(&app).more("[timeouts]\ndrain = \"500ms\"").start();
    let mut client = sidecar.client();
    client.send("GET /cut HTTP/1.1\r\nHost: app.test\r\n\r\n");
    gate.arrived(1);
    let started = Instant::now();
    sidecar.terminate();
    assert!(sidecar.wait().success());
    let took = started.elapsed();
    gate.open();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    // Half a second of slack for a busy machine; waiting for the access log's writer took two.
    assert!(took < Duration::from_millis(1500), "{took:?}");
    sidecar.logged(&["/cut", "499"]);
}
