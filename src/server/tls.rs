//! Certificates and the TLS settings of a listener: TLS 1.2 and 1.3, aws-lc-rs, HTTP/2 by ALPN, session tickets.
//!
//! Which certificate: the first whose names match the SNI, as a client would match them; else the first of all.
//! Tests: at the end of this file, and `tests.rs` for handshakes.

use super::{CertificateFiles, ClientAuth, Peer, TlsOptions, x509};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, ParsedCertificate, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The names in a self-signed certificate.
const SELF_SIGNED_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// A self-signed certificate is made anew at each start; a process that runs longer than this is no development server.
const SELF_SIGNED_DAYS: i64 = 90;

/// What the app is told of a verified client certificate: the subject as nginx's `$ssl_client_s_dn` has it, and the SHA-256 of
/// the certificate in lower-case hex, as Envoy's `Hash` has it.
pub const CLIENT_CERTIFICATE_NAMES: [HeaderName; 2] =
    [HeaderName::from_static("x-client-cert-subject"), HeaderName::from_static("x-client-cert-fingerprint")];

/// A client certificate that was verified, as header values in the order of [`CLIENT_CERTIFICATE_NAMES`], made once per connection.
#[derive(Debug, Clone)]
pub struct ClientCertificate([Option<HeaderValue>; 2]);

impl ClientCertificate {
    pub(super) fn new(certificate: &CertificateDer<'_>) -> Self {
        let subject = x509::facts(certificate).and_then(|facts| HeaderValue::try_from(facts.subject).ok());
        let digest = Sha256::digest(certificate);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self([subject, HeaderValue::try_from(hex).ok()])
    }
}

impl Peer {
    /// Tells the app whose certificate was verified. What a client sent under these names must be gone already.
    pub fn show_certificate(&self, headers: &mut HeaderMap) {
        let Some(ClientCertificate(values)) = &self.certificate else { return };
        for (name, value) in CLIENT_CERTIFICATE_NAMES.into_iter().zip(values) {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }
}

/// Why a certificate cannot be used, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsProblem {
    /// Which of the listener's certificates, from 0.
    pub index: usize,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, and the cure.
    pub what: String,
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// Reads the files and checks that they belong together. A self-signed certificate is made.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn load(options: &TlsOptions) -> Result<Arc<ServerConfig>, Vec<TlsProblem>> {
    let certificates = match options {
        TlsOptions::Files(files) => from_files(files)?,
        TlsOptions::SelfSigned => vec![self_signed().map_err(without_file)?],
    };
    let certificates = Arc::new(BySni(certificates.into_iter().map(Arc::new).collect()));
    let tickets = new_tickets().map_err(without_file)?;
    server_config(certificates, Arc::new(NoClientAuth), tickets).map_err(without_file)
}

/// Reads the certificates that sign those of clients.
///
/// # Errors
/// What is wrong with the file.
pub fn check_client_ca(auth: &ClientAuth) -> Result<(), TlsProblem> {
    client_verifier(auth).map(drop)
}

/// What a listener serves TLS with, and what it was made of.
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    /// Of each certificate: its file, and the second since 1970 until which it is valid.
    pub(super) ends: Vec<(String, u64)>,
    /// As the files were before they were read.
    pub(super) stamps: Vec<Option<Stamp>>,
    files: Vec<PathBuf>,
    certificates: Arc<BySni>,
    tickets: Arc<dyn ProducesTickets>,
    /// The client CAs as their file says; a session of other ones is not resumed.
    client_ca: Option<(ClientAuth, Vec<u8>)>,
    self_signed: bool,
}

/// Whether a file is still the same one: device, inode, size, and time of change. `None`: it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(u64, u64, u64, i64, i64);

impl Loaded {
    pub(super) fn stamps_now(&self) -> Vec<Option<Stamp>> {
        stamps(&self.files)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    // Through symbolic links: that is how certbot and Kubernetes exchange them.
    let stamp = |file: &PathBuf| {
        let meta = std::fs::metadata(file).ok()?;
        Some(Stamp(meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}

/// [`load`] for a listener: one text, and the fingerprint of a self-signed certificate in the log. `before` is what it had: its
/// self-signed certificate stays, and its tickets as long as the same clients are believed.
pub(super) fn for_listener(
    options: &TlsOptions,
    client: Option<&ClientAuth>,
    before: Option<&Loaded>,
) -> Result<Loaded, String> {
    let mut files: Vec<PathBuf> = match options {
        TlsOptions::Files(files) => {
            files.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]).collect()
        }
        TlsOptions::SelfSigned => Vec::new(),
    };
    files.extend(client.map(|client| client.ca.clone()));
    let stamps = stamps(&files);
    let certificates = certificates_for(options, before)?;
    let (verifier, client_ca): (Arc<dyn ClientCertVerifier>, _) = match client {
        None => (Arc::new(NoClientAuth), None),
        Some(client) => {
            let (verifier, text) = client_verifier(client).map_err(|problem| problem.to_string())?;
            (verifier, Some((client.clone(), text)))
        }
    };
    let tickets = match before.filter(|before| before.client_ca == client_ca) {
        Some(before) => Arc::clone(&before.tickets),
        None => new_tickets()?,
    };
    let config = server_config(Arc::clone(&certificates), verifier, Arc::clone(&tickets))?;
    let names = match options {
        TlsOptions::Files(files) => files.iter().map(|pair| pair.cert.display().to_string()).collect(),
        TlsOptions::SelfSigned => vec!["self-signed".to_owned()],
    };
    let end = |key: &Arc<CertifiedKey>| Some(x509::facts(key.cert.first()?)?.not_after);
    let ends =
        names.into_iter().zip(&certificates.0).filter_map(|(name, key)| Some((name, end(key)?))).collect();
    let self_signed = *options == TlsOptions::SelfSigned;
    Ok(Loaded { config, ends, stamps, files, certificates, tickets, client_ca, self_signed })
}

fn certificates_for(options: &TlsOptions, before: Option<&Loaded>) -> Result<Arc<BySni>, String> {
    let join =
        |problems: Vec<TlsProblem>| problems.iter().map(TlsProblem::to_string).collect::<Vec<_>>().join("; ");
    let keys = match (options, before.filter(|before| before.self_signed)) {
        (TlsOptions::Files(files), _) => from_files(files).map_err(join)?,
        (TlsOptions::SelfSigned, Some(before)) => return Ok(Arc::clone(&before.certificates)),
        (TlsOptions::SelfSigned, None) => {
            let certificate = self_signed()?;
            let names = SELF_SIGNED_NAMES.join(", ");
            tracing::warn!(
                sha256 = fingerprint(&certificate),
                "self-signed certificate for {names}: for development only"
            );
            vec![certificate]
        }
    };
    Ok(Arc::new(BySni(keys.into_iter().map(Arc::new).collect())))
}

/// The verifier, and the text of the file.
fn client_verifier(auth: &ClientAuth) -> Result<(Arc<dyn ClientCertVerifier>, Vec<u8>), TlsProblem> {
    let fail = |what| TlsProblem { index: 0, file: auth.ca.clone(), what };
    let text = read(&auth.ca).map_err(fail)?;
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(&auth.ca).map_err(fail)? {
        roots.add(certificate).map_err(|error| fail(format!("a certificate cannot be used: {error}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
    let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
    let verifier =
        builder.build().map_err(|error| fail(format!("cannot verify clients with it: {error}")))?;
    Ok((verifier, text))
}

fn without_file(what: String) -> Vec<TlsProblem> {
    vec![TlsProblem { index: 0, file: PathBuf::new(), what }]
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn words(error: rustls::Error) -> String {
    format!("TLS cannot be set up: {error}")
}

fn new_tickets() -> Result<Arc<dyn ProducesTickets>, String> {
    rustls::crypto::aws_lc_rs::Ticketer::new().map_err(words)
}

fn server_config(
    certificates: Arc<BySni>,
    verifier: Arc<dyn ClientCertVerifier>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, String> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(words)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    // Ours, the strongest first, and not whichever a client was told to ask for.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

/// Never empty: `server_config` is given at least one.
#[derive(Debug)]
struct BySni(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let matching = match (&self.0[..], hello.server_name()) {
            ([_, _, ..], Some(name)) => ServerName::try_from(name)
                .ok()
                .and_then(|name| self.0.iter().find(|key| has_name(key, &name))),
            _ => None,
        };
        matching.or(self.0.first()).cloned()
    }
}

/// As a client checks it, wildcards included. Reading the certificate again costs little beside the handshake's signature.
fn has_name(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, name).is_ok())
}

fn from_files(files: &[CertificateFiles]) -> Result<Vec<CertifiedKey>, Vec<TlsProblem>> {
    if files.is_empty() {
        return Err(without_file(
            "no certificate is given: name `cert` and `key`, or `self_signed = true`".into(),
        ));
    }
    let (mut keys, mut problems) = (Vec::new(), Vec::new());
    for (index, files) in files.iter().enumerate() {
        match one_from_files(files) {
            Ok(key) => keys.push(key),
            Err(found) => {
                problems.extend(found.into_iter().map(|(file, what)| TlsProblem {
                    index,
                    file: file.to_owned(),
                    what,
                }));
            }
        }
    }
    if problems.is_empty() { Ok(keys) } else { Err(problems) }
}

fn one_from_files(files: &CertificateFiles) -> Result<CertifiedKey, Vec<(&Path, String)>> {
    let (chain, key) = match (read_chain(&files.cert), read_key(&files.key)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => {
            let chain = chain.err().map(|what| (&*files.cert, what));
            return Err(chain.into_iter().chain(key.err().map(|what| (&*files.key, what))).collect());
        }
    };
    let key = provider().key_provider.load_private_key(key).map_err(|error| {
        vec![(&*files.key, format!("the key cannot be used: {error}; RSA (2048 bits or more), ECDSA P-256/P-384/P-521 and Ed25519 can"))]
    })?;
    let key = CertifiedKey::new(chain, key);
    key.end_entity_cert().and_then(ParsedCertificate::try_from).map_err(|error| {
        vec![(
            &*files.cert,
            format!("the first certificate cannot be read: {error}; write the chain again, leaf first"),
        )]
    })?;
    match key.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(key),
        Err(_) => Err(vec![(
            &*files.key,
            format!(
                "the key does not belong to the first certificate in {}: the leaf comes first, and both are renewed together",
                files.cert.display()
            ),
        )]),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        let cure = match error.kind() {
            ErrorKind::NotFound => "check the path",
            ErrorKind::PermissionDenied => "give the user that runs this program the right to read it",
            _ => "check the path",
        };
        format!("cannot read the file: {error}; {cure}")
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("broken PEM: {error}; write the file again"))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    let hint = if contains(&text, "PRIVATE KEY-----") {
        "it holds a private key: are `cert` and `key` swapped?"
    } else {
        "a PEM chain begins with -----BEGIN CERTIFICATE----- (a DER file is converted with `openssl x509 -inform der`)"
    };
    Err(format!("no PEM certificate in the file; {hint}"))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound if contains(&text, "ENCRYPTED PRIVATE KEY-----") => {
            "the key is encrypted; write it without a passphrase (`openssl pkey -in key.pem -out plain.pem`) and mode 0600"
                .to_owned()
        }
        PemError::NoItemsFound if contains(&text, "BEGIN CERTIFICATE-----") => {
            "no PEM private key in the file; it holds a certificate: are `cert` and `key` swapped?".to_owned()
        }
        PemError::NoItemsFound => {
            "no PEM private key in the file; PKCS#8, PKCS#1 (RSA) and SEC1 (EC) are understood".to_owned()
        }
        error => format!("broken PEM: {error}; write the file again"),
    })
}

fn contains(text: &[u8], needle: &str) -> bool {
    text.windows(needle.len()).any(|window| window == needle.as_bytes())
}

fn self_signed() -> Result<CertifiedKey, String> {
    let words = |error: &dyn fmt::Display| format!("a self-signed certificate cannot be made: {error}");
    let names = SELF_SIGNED_NAMES.map(str::to_owned).to_vec();
    let mut params = rcgen::CertificateParams::new(names).map_err(|error| words(&error))?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "cloakroom self-signed");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let now = time::OffsetDateTime::from(std::time::SystemTime::now());
    // A day back, for clients whose clock is behind.
    params.not_before = now - Duration::from_secs(24 * 3600);
    params.not_after = now + time::Duration::days(SELF_SIGNED_DAYS);
    let pair = rcgen::KeyPair::generate().map_err(|error| words(&error))?;
    let certificate = params.self_signed(&pair).map_err(|error| words(&error))?;
    let key = PrivateKeyDer::try_from(pair.serialize_der()).map_err(|error| words(&error))?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| words(&error))?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// SHA-256 of the leaf in the form that browsers show.
fn fingerprint(key: &CertifiedKey) -> String {
    let digest = key.cert.first().map(Sha256::digest).unwrap_or_default();
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::Folder;

    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn problems(files: &[CertificateFiles]) -> Vec<TlsProblem> {
        load(&TlsOptions::Files(files.to_vec())).unwrap_err()
    }

    #[test]
    fn every_problem_of_every_certificate_is_named_with_its_file_and_cure() {
        let folder = Folder::new();
        let (cert, key) = pair(&["a.example"]);
        let (_, other_key) = pair(&["b.example"]);
        let cert = folder.write("cert.pem", &cert);
        let key = folder.write("key.pem", &key);
        let other_key = folder.write("other.pem", &other_key);
        let empty = folder.write("empty.pem", "nothing here\n");
        let broken =
            folder.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
        let junk = folder.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let encrypted = folder.write("encrypted.pem", encrypted);
        let missing = folder.path().join("missing.pem");
        let files = |cert: &PathBuf, key: &PathBuf| CertificateFiles { cert: cert.clone(), key: key.clone() };
        let found = problems(&[
            files(&cert, &key),
            files(&missing, &missing),
            files(&empty, &empty),
            files(&key, &cert),
            files(&cert, &other_key),
            files(&broken, &encrypted),
            files(&junk, &key),
        ]);
        let expected = [
            (1, &missing, "cannot read"),
            (1, &missing, "check the path"),
            (2, &empty, "no PEM certificate"),
            (2, &empty, "no PEM private key"),
            (3, &key, "swapped"),
            (3, &cert, "swapped"),
            (4, &other_key, "does not belong"),
            (5, &broken, "broken PEM"),
            (5, &encrypted, "encrypted"),
            (6, &junk, "cannot be read"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (problem, (index, file, what)) in found.iter().zip(expected) {
            assert_eq!((problem.index, &problem.file), (index, file), "{problem}");
            assert!(problem.what.contains(what), "{what} in {problem}");
        }
        assert!(load(&TlsOptions::Files(vec![files(&cert, &key)])).is_ok());
        assert_eq!(problems(&[]).len(), 1);
    }

    #[test]
    fn names_match_as_a_client_matches_them() {
        let key = |names: &[&str]| {
            let made =
                rcgen::generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
                    .unwrap();
            let private = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let private = provider().key_provider.load_private_key(private).unwrap();
            CertifiedKey::new(vec![made.cert.der().clone()], private)
        };
        let matches =
            |names: &[&str], name: &str| has_name(&key(names), &ServerName::try_from(name).unwrap());
        assert!(matches(&["a.example"], "A.example"));
        assert!(matches(&["*.example.com", "example.org"], "www.example.com"));
        assert!(matches(&["*.example.com", "example.org"], "example.org"));
        assert!(!matches(&["*.example.com"], "example.com"));
        assert!(!matches(&["*.example.com"], "a.b.example.com"));
    }

    #[test]
    fn a_self_signed_certificate_is_new_each_time_and_its_fingerprint_readable() {
        let (one, two) = (self_signed().unwrap(), self_signed().unwrap());
        one.keys_match().unwrap();
        assert_ne!(fingerprint(&one), fingerprint(&two));
        assert_eq!(fingerprint(&one).len(), 95);
        assert!(load(&TlsOptions::SelfSigned).is_ok());
    }
}
