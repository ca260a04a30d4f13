//! Certificates that change while connections are open, and certificates of clients.

use crate::support::app::App;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::h2::H2Client;
use crate::support::ports::free_port;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::tls::{config, config_showing, connect, name};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is removed at the end of a test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("cloakroom-certificates-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// As a careful renewal does it: written beside, then renamed.
    fn exchange(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

struct Pair {
    cert: String,
    key: String,
    der: Vec<u8>,
}

fn pair(host: &str) -> Pair {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    Pair { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().to_vec() }
}

fn seen_by(address: SocketAddr, host: &str) -> Vec<u8> {
    connect(address, host, config(&["http/1.1"])).1.certificate
}

#[track_caller]
fn serves(sidecar: &Sidecar, host: &str, der: &[u8]) {
    eventually("the new certificate", || (seen_by(sidecar.address(), host) == der).then_some(()));
}

fn ends(sidecar: &Sidecar, file: &Path) -> Option<u64> {
    let metrics = sidecar.metrics();
    let certificate = format!("certificate=\"{}\"}} ", file.display());
    let line = metrics.lines().find(|line| {
        line.starts_with("cloakroom_certificate_not_after_timestamp_seconds{") && line.contains(&certificate)
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn changed_files_are_served_to_new_connections_and_open_ones_stay() {
    let app = App::parrot();
    let folder = Folder::new();
    let (old, new) = (pair("localhost"), pair("localhost"));
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    folder.exchange("cert.pem", &old.cert);
    folder.exchange("key.pem", &old.key);
    let sidecar =
        Setup::before(&app).listener(&format!("tls = {{ cert = {cert:?}, key = {key:?} }}")).start();
    let (mut open, handshake) = connect(sidecar.address(), "localhost", config(&["http/1.1"]));
    let mut http2 = H2Client::connect_tls(sidecar.address());
    assert!(handshake.certificate == old.der);
    assert_eq!(open.get("/", &[]).status, 200);
    assert!(eventually("the gauge", || ends(&sidecar, &cert)) > 60_000_000_000, "rcgen's own end is 4096");

    // One file after the other.
    folder.exchange("key.pem", &new.key);
    folder.exchange("cert.pem", &new.cert);
    serves(&sidecar, "localhost", &new.der);
    assert_eq!(open.get("/", &[]).status, 200);
    assert_eq!(http2.ask("GET", "/", &[]).status, 200);
    sidecar.logged(&["certificates read again"]);
    assert!(!sidecar.log().contains("not replaced"), "{}", sidecar.log());
}

#[test]
fn a_broken_file_changes_nothing_and_is_named_once_and_the_next_good_one_counts() {
    let app = App::parrot();
    let folder = Folder::new();
    let (old, new) = (pair("localhost"), pair("localhost"));
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    folder.exchange("cert.pem", &old.cert);
    folder.exchange("key.pem", &old.key);
    let sidecar =
        Setup::before(&app).listener(&format!("tls = {{ cert = {cert:?}, key = {key:?} }}")).start();
    let mut said = 0;
    let mut spoil = |what: &dyn Fn(), words: &str| {
        what();
        sidecar.logged(&["ERROR", "the old ones stay in use", words]);
        said += 1;
        assert!(seen_by(sidecar.address(), "localhost") == old.der);
        assert_eq!(sidecar.log().matches("the old ones stay in use").count(), said);
    };
    spoil(&|| folder.exchange("cert.pem", "nothing"), "cert.pem: no PEM certificate");
    spoil(&|| folder.exchange("cert.pem", &new.cert), "key.pem: the key does not belong");
    spoil(&|| fs::remove_file(&key).unwrap(), "key.pem: cannot read the file");
    folder.exchange("key.pem", &new.key);
    serves(&sidecar, "localhost", &new.der);
}

#[test]
fn every_certificate_of_a_list_and_links_that_are_turned_are_followed() {
    let app = App::parrot();
    let folder = Folder::new();
    let pairs = ["one.test", "two.test", "two.test"].map(pair);
    for (index, pair) in pairs.iter().enumerate() {
        fs::create_dir(folder.path(&index.to_string())).unwrap();
        folder.exchange(&format!("{index}/cert.pem"), &pair.cert);
        folder.exchange(&format!("{index}/key.pem"), &pair.key);
    }
    // As Kubernetes exchanges a secret: one link to a folder is replaced.
    symlink("1", folder.path("current")).unwrap();
    let entry = |at: &str| {
        let (cert, key) = (folder.path(at).join("cert.pem"), folder.path(at).join("key.pem"));
        format!("{{ cert = {cert:?}, key = {key:?} }}")
    };
    let listener = format!("tls = {{ certificates = [{}, {}] }}", entry("0"), entry("current"));
    let sidecar = Setup::before(&app).listener(&listener).start();
    assert!(seen_by(sidecar.address(), "two.test") == pairs[1].der);
    symlink("2", folder.path("next")).unwrap();
    fs::rename(folder.path("next"), folder.path("current")).unwrap();
    serves(&sidecar, "two.test", &pairs[2].der);
    assert!(seen_by(sidecar.address(), "one.test") == pairs[0].der);
}

/// A CA and what it signs.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "clients");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `O=Shop, Inc., CN=<who>` and a client's TLS settings with it.
    fn client(&self, who: &str) -> (Vec<u8>, Arc<ClientConfig>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop, Inc.");
        params.distinguished_name.push(DnType::CommonName, who);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let der = cert.der().clone();
        (der.to_vec(), config_showing(der, PrivateKeyDer::try_from(key.serialize_der()).unwrap()))
    }
}

/// With TLS 1.3 a client learns of the server's refusal only when it reads.
fn is_refused(address: SocketAddr, config: Arc<ClientConfig>) -> bool {
    let socket = TcpStream::connect(address).unwrap();
    let session = ClientConnection::new(config, name("localhost")).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    let sent = stream.write_all(b"GET /refused HTTP/1.1\r\nHost: a\r\n\r\n");
    sent.is_err() || stream.read(&mut [0]).is_err()
}

#[test]
fn the_app_is_told_whose_certificate_it_was_and_nobody_else_can_say_so() {
    let app = App::parrot();
    let folder = Folder::new();
    let (ca, stranger) = (Ca::new(), Ca::new());
    fs::write(folder.path("ca.pem"), &ca.pem).unwrap();
    let port = free_port();
    let listener = |auth: &str, other: u16| {
        let path = folder.path("ca.pem");
        format!(
            "tls = {{ self_signed = true, client_ca = {path:?}, client_auth = \"{auth}\" }}\n\
             [[listener]]\naddress = \"127.0.0.1:{other}\""
        )
    };
    let sidecar = Setup::before(&app).listener(&listener("require", port)).start();
    let (der, ann) = ca.client("Ann");
    let fingerprint: String = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
    let forged = [
        ("X-Client-Cert-Subject", "CN=root"),
        ("x_client_cert_subject", "CN=root"),
        ("X-Client-Cert-Fingerprint", "00"),
        ("Connection", "X-Client-Cert-Subject, X-Client-Cert-Fingerprint"),
    ];
    let shown = |name: &str| app.last().header(name).map(str::to_owned);
    let address = sidecar.address();
    // Twice: the second one resumes the first one's session.
    for path in ["/first", "/resumed"] {
        let (mut client, _) = connect(address, "localhost", Arc::clone(&ann));
        assert_eq!(client.get(path, &forged).status, 200);
        assert_eq!(shown("x-client-cert-subject").as_deref(), Some("CN=Ann,O=Shop\\, Inc."));
        assert_eq!(shown("x-client-cert-fingerprint"), Some(fingerprint.clone()));
        assert_eq!(app.last().head.headers.all("x-client-cert-subject").count(), 1);
        assert_eq!(shown("x_client_cert_subject"), None);
    }
    let seen = app.seen().len();
    assert!(is_refused(address, config(&[])), "without a certificate");
    assert!(is_refused(address, stranger.client("Ann").1), "signed by somebody else");
    assert_eq!(app.seen().len(), seen);

    // On a listener that asks nobody, nobody can say so either.
    let mut plain = Client::connect((Ipv4Addr::LOCALHOST, port).into());
    assert_eq!(plain.get("/plain", &forged).status, 200);
    assert_eq!((shown("x-client-cert-subject"), shown("x-client-cert-fingerprint")), (None, None));

    let sidecar = Setup::before(&app).listener(&listener("optional", free_port())).start();
    let (mut client, _) = connect(sidecar.address(), "localhost", config(&[]));
    assert_eq!(client.get("/none", &forged).status, 200);
    assert_eq!((shown("x-client-cert-subject"), shown("x-client-cert-fingerprint")), (None, None));
    let (mut client, _) = connect(sidecar.address(), "localhost", ann);
    assert_eq!(client.get("/ann", &forged).status, 200);
    assert_eq!(shown("x-client-cert-fingerprint"), Some(fingerprint));
    assert!(is_refused(sidecar.address(), stranger.client("Ann").1));
}

#[test]
fn without_a_client_ca_the_headers_are_nobodys_business() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).listener("tls = { self_signed = true }").start();
    let (mut client, _) = connect(sidecar.address(), "localhost", config(&[]));
    assert_eq!(client.get("/", &[("X-Client-Cert-Subject", "CN=from nginx")]).status, 200);
    assert_eq!(app.last().header("x-client-cert-subject"), Some("CN=from nginx"));
}

#[test]
fn who_is_no_longer_believed_cannot_resume_a_session() {
    let app = App::parrot();
    let folder = Folder::new();
    let (old, new) = (Ca::new(), Ca::new());
    folder.exchange("ca.pem", &old.pem);
    let path = folder.path("ca.pem");
    let listener = format!("tls = {{ self_signed = true, client_ca = {path:?} }}");
    let sidecar = Setup::before(&app).listener(&listener).start();
    let ann = old.client("Ann").1;
    let (mut client, first) = connect(sidecar.address(), "localhost", Arc::clone(&ann));
    assert_eq!(client.get("/", &[]).status, 200);
    folder.exchange("ca.pem", &new.pem);
    sidecar.logged(&["certificates read again"]);
    assert!(is_refused(sidecar.address(), ann));
    assert_eq!(client.get("/", &[]).status, 200, "an open connection stays");
    let (mut client, second) = connect(sidecar.address(), "localhost", new.client("Bob").1);
    assert_eq!(client.get("/", &[]).status, 200);
    assert!(first.certificate == second.certificate, "a self-signed certificate outlives a reload");
}
