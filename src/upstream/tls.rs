//! TLS to endpoints: whom we believe, who we say we are, which protocol we offer. Tests: `tests/it/upstream_tls.rs`, `config.rs`.

use super::options::Protocol;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `upstream.<name>.tls` as the file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `ca`: PEM; the authorities to believe in place of the public ones.
    pub ca: Option<PathBuf>,
    /// `cert`: our own chain, PEM, leaf first.
    pub cert: Option<PathBuf>,
    /// `key`: its key.
    pub key: Option<PathBuf>,
    /// `server_name`: the name to ask for and to check, in place of the server's host.
    pub server_name: Option<String>,
    /// `insecure`: believe every certificate.
    pub insecure: bool,
}

/// Everything read and ready.
#[derive(Clone)]
pub struct ClientTls {
    /// Offers what `protocol` allows.
    pub(super) config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone, for what HTTP/2 has no way to say.
    pub(super) http1: Arc<ClientConfig>,
    pub(super) server_name: Option<ServerName<'static>>,
    /// Of what was read.
    digest: String,
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.server_name == other.server_name && self.digest == other.digest
    }
}

/// Tells apart what was read from files of the same names, and shows nothing of it.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientTls").field(&self.server_name).field(&self.digest).finish()
    }
}

/// Why it cannot be used: the key that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsProblem {
    /// `ca`, `cert`, `key` or `server_name`.
    pub key: &'static str,
    /// What is wrong, and the cure.
    pub what: String,
}

/// Reads the files.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn load(files: &TlsFiles, protocol: Protocol) -> Result<ClientTls, ClientTlsProblem> {
    let server_name = match &files.server_name {
        Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| {
            problem("server_name", "not a host name or address; write it as in the certificate".to_owned())
        })?),
        None => None,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let words = |error: rustls::Error| problem("ca", format!("TLS cannot be set up: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(words)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(files, provider)?);
    let mut config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(chain("cert", cert)?, private_key(key)?)
            .map_err(|error| problem("key", format!("not a key for the certificate: {error}")))?,
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => return Err(problem("cert", "without a key; name `key` too".to_owned())),
        (None, Some(_)) => return Err(problem("key", "without a certificate; name `cert` too".to_owned())),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let http1 = Arc::new(config.clone());
    if protocol == Protocol::Auto {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    Ok(ClientTls { config: Arc::new(config), http1, server_name, digest: digest(files) })
}

/// What cannot be read now was refused before.
fn digest(files: &TlsFiles) -> String {
    let read = |path: &Option<PathBuf>| path.as_ref().and_then(|path| std::fs::read(path).ok());
    let mut hash = Sha256::new();
    for part in [&files.ca, &files.cert, &files.key].map(read) {
        hash.update(Sha256::digest(part.unwrap_or_default()));
    }
    hash.update([u8::from(files.insecure)]);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn problem(key: &'static str, what: String) -> ClientTlsProblem {
    ClientTlsProblem { key, what }
}

fn verifier(
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ClientTlsProblem> {
    if files.insecure {
        return Ok(Arc::new(Anybody(provider)));
    }
    let mut roots = RootCertStore::empty();
    match &files.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in chain("ca", path)? {
                roots.add(certificate).map_err(|error| {
                    problem("ca", format!("{}: a certificate that cannot be read: {error}", path.display()))
                })?;
            }
        }
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier
        .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
        .map_err(|error| problem("ca", error.to_string()))
}

fn chain(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientTlsProblem> {
    let refuse = |what: String| problem(key, format!("{}: {what}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refuse(format!("cannot be read: {error}")))?;
    if certificates.is_empty() {
        return Err(refuse("holds no PEM certificate (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientTlsProblem> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let what = format!("{}: no PEM private key without passphrase can be read: {error}", path.display());
        problem("key", what)
    })
}

/// `insecure = true`: any certificate will do, but its owner must hold the key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_tells_files_of_one_name_apart() {
        let path = std::env::temp_dir().join(format!("cloakroom-upstream-ca-{}.pem", std::process::id()));
        let files = TlsFiles { ca: Some(path.clone()), ..TlsFiles::default() };
        let load = || {
            let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
            std::fs::write(&path, made.cert.pem()).unwrap();
            load(&files, Protocol::Auto).unwrap()
        };
        let (one, two) = (load(), load());
        std::fs::remove_file(&path).unwrap();
        assert!(one == one.clone() && one != two);
        assert_ne!(one, ClientTls { server_name: ServerName::try_from("b").ok(), ..one.clone() });
    }
}
