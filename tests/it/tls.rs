//! TLS: versions, ALPN, certificates by name, and what it means for the cookie.

use crate::support::app::App;
use crate::support::h2::H2Client;
use crate::support::ports::free_port;
use crate::support::sidecar::Setup;
use crate::support::tls::{config, config_for, connect};
use rustls::ProtocolVersion;

#[test]
fn a_self_signed_listener_speaks_both_protocols_and_both_versions() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).listener("tls = { self_signed = true }").start();
    let address = sidecar.address();
    let alpn = |offered: &[&str]| connect(address, "localhost", config(offered)).1.alpn;
    assert_eq!(alpn(&["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(alpn(&["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(alpn(&[]), None);
    for (version, name) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let (mut client, handshake) = connect(address, "localhost", config_for(&[], &[version]));
        assert_eq!(handshake.version, Some(name));
        assert_eq!(client.get("/", &[]).status, 200);
        assert_eq!(app.last().header("x-forwarded-proto"), Some("https"));
    }
    assert_eq!(H2Client::connect_tls(address).ask("GET", "/", &[]).status, 200);
}

#[test]
fn secure_cookies_are_set_over_tls_only_and_the_log_says_why() {
    let app = App::parrot();
    let said = [("Say-X-Session-Update", "{\"a\":1}")];
    let over_tls =
        Setup::before(&app).listener("tls = { self_signed = true }").cookie("secure = true").start();
    let (mut client, _) = connect(over_tls.address(), "localhost", config(&[]));
    let line = client.get("/", &said).cookie().unwrap().to_owned();
    assert!(line.ends_with("; Path=/; HttpOnly; Secure; SameSite=Lax"), "{line}");

    let plain = Setup::before(&app).cookie("secure = true").start();
    let response = plain.client().get("/", &[said[0], ("X-Forwarded-Proto", "https")]);
    assert_eq!((response.status, response.cookie()), (200, None));
    plain.logged(&["secure", "127.0.0.1"]);
}

#[test]
fn auto_follows_the_request_and_the_trust() {
    let app = App::parrot();
    let auto = "secure = \"auto\"\nsame_site = \"auto\"";
    let said = ("Say-X-Session-Update", "{\"a\":1}");
    let https = ("X-Forwarded-Proto", "https");
    let cases = [
        ("trust_proxy = false", "", https, "SameSite=Lax"),
        ("trust_proxy = [\"loopback\"]", "", https, "Secure; SameSite=None"),
        ("trust_proxy = true", "", ("X-Forwarded-Proto", "HTTPS"), "SameSite=Lax"),
        ("trust_proxy = true", "proxy = false", https, "SameSite=Lax"),
        (
            "trust_proxy = false",
            "proxy = true",
            ("X-Forwarded-Proto", "HTTPS, http"),
            "Secure; SameSite=None",
        ),
    ];
    for (server, session, header, end) in cases {
        let sidecar = Setup::before(&app).server(server).session(session).cookie(auto).start();
        let line = sidecar.client().get("/", &[said, header]).cookie().unwrap().to_owned();
        assert!(line.ends_with(&format!("; HttpOnly; {end}")), "{server} {session} {header:?}: {line}");
    }
}

#[test]
fn a_plain_listener_can_redirect() {
    let app = App::parrot();
    let port = free_port();
    let listener = format!(
        "tls = {{ self_signed = true }}\n[[listener]]\naddress = \"127.0.0.1:{port}\"\nredirect_to_https = true"
    );
    let sidecar = Setup::before(&app).listener(&listener).start();
    let mut client = crate::support::client::Client::connect(([127, 0, 0, 1], port).into());
    let response = client.get("/path?q=1", &[("Host", "app.test")]);
    assert_eq!(response.status, 308);
    let location = response.header("location").unwrap();
    let with_port = format!("https://app.test:{}/path?q=1", sidecar.address().port());
    assert!(location == "https://app.test/path?q=1" || location == with_port, "{location}");
    assert!(app.seen().is_empty());
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let app = App::parrot();
    let folder = std::env::temp_dir().join(format!("cloakroom-certs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut made = Vec::new();
    let mut list = Vec::new();
    for name in ["one.test", "two.test"] {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        list.push(format!("{{ cert = {cert:?}, key = {key:?} }}"));
        made.push(pair.cert.der().to_vec());
    }
    let sidecar = Setup::before(&app).listener(&format!("tls = [{}]", list.join(", "))).start();
    for (name, expected) in [("one.test", 0), ("two.test", 1), ("other.test", 0)] {
        assert!(connect(sidecar.address(), name, config(&[])).1.certificate == made[expected], "{name}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn hsts_is_said_over_tls_unless_the_app_says_it() {
    let app = App::parrot();
    let port = free_port();
    let listener = format!(
        "tls = {{ self_signed = true }}\nhsts = {{ max_age = \"365d\", include_subdomains = true }}\n\
         [[listener]]\naddress = \"127.0.0.1:{port}\""
    );
    let sidecar = Setup::before(&app).listener(&listener).start();
    let all = |headers: &crate::support::message::Fields| -> Vec<String> {
        headers.all("strict-transport-security").map(str::to_owned).collect()
    };
    let ours = ["max-age=31536000; includeSubDomains"];
    let (mut client, _) = connect(sidecar.address(), "localhost", config(&[]));
    for status in ["200", "404", "500"] {
        assert_eq!(all(&client.get("/", &[("Say-Status", status)]).headers), ours);
    }
    let said = [("Say-Strict-Transport-Security", "max-age=5")];
    assert_eq!(all(&client.get("/", &said).headers), ["max-age=5"]);
    assert_eq!(all(&client.get("/%zz/../..", &[]).headers), ours, "the sidecar's own answers too");
    assert_eq!(all(&H2Client::connect_tls(sidecar.address()).ask("GET", "/", &[]).headers), ours);
    let mut plain = crate::support::client::Client::connect(([127, 0, 0, 1], port).into());
    assert!(all(&plain.get("/", &[]).headers).is_empty());

    let sidecar = Setup::before(&app).listener("tls = { self_signed = true }\nhsts = \"180d\"").start();
    let (mut client, _) = connect(sidecar.address(), "localhost", config(&[]));
    assert_eq!(all(&client.get("/", &[]).headers), ["max-age=15552000"]);
}
