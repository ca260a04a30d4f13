//! Apps that speak TLS or HTTP/2, and the authority that vouches for them.

use super::message::read_head;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

/// A certificate authority with a folder of its own.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: rcgen::Certificate,
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("cloakroom-ca-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        Self { params, key, certificate, folder }
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        (certificate, key)
    }

    /// A certificate and its key, in files.
    pub(crate) fn issue_files(&self, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(name);
        let (cert_file, key_file) = (self.folder.join("cert.pem"), self.folder.join("key.pem"));
        fs::write(&cert_file, certificate.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    /// TLS for an app of this name; with `clients`, only for clients that this authority vouches for.
    pub(crate) fn server(&self, name: &str, clients: Option<&Self>, alpn: &[&str]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = match clients {
            None => builder.unwrap().with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = self.issue(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// An HTTP/1.1 app behind TLS that answers with the request line.
pub(crate) struct TlsApp {
    address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
}

impl TlsApp {
    pub(crate) fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&handshakes);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, count) = (Arc::clone(&config), Arc::clone(&count));
                thread::spawn(move || serve_tls(stream, config, &count));
            }
        });
        Self { address, handshakes }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Handshakes that led to a request.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }
}

fn serve_tls(stream: TcpStream, config: Arc<ServerConfig>, count: &AtomicUsize) {
    let mut wire = BufReader::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream));
    let mut first = true;
    // A handshake that fails ends here too; the test looks at what the sidecar says of it.
    while let Ok(Some(head)) = read_head(&mut wire) {
        count.fetch_add(usize::from(std::mem::take(&mut first)), Ordering::SeqCst);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", head.start.len(), head.start);
        if wire.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// One request to an [`H2App`].
pub(crate) struct Call {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<bytes::Bytes>,
    /// From 0, of all connections.
    pub(crate) number: usize,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Handler = Arc<dyn Fn(Call) -> Work + Send + Sync>;

/// An HTTP/2 app, with TLS or by prior knowledge.
pub(crate) struct H2App {
    address: SocketAddr,
    shared: Arc<H2Shared>,
}

#[derive(Default)]
struct H2Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    calls: AtomicUsize,
}

impl H2App {
    /// `streams`: how many it allows at once on a connection; `calls`: after so many a connection says GOAWAY, and takes no more.
    pub(crate) fn start(
        tls: Option<Arc<ServerConfig>>,
        streams: u32,
        calls: usize,
        handler: impl Fn(Call) -> Work + Send + Sync + 'static,
    ) -> Self {
        let (shared, handler): (Arc<H2Shared>, Handler) = (Arc::default(), Arc::new(handler));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::clone(&shared);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    count.accepted.fetch_add(1, Ordering::SeqCst);
                    count.open.fetch_add(1, Ordering::SeqCst);
                    let (tls, shared, handler) = (tls.clone(), Arc::clone(&count), Arc::clone(&handler));
                    tokio::spawn(async move {
                        match tls {
                            None => serve_h2(stream, streams, calls, &shared, handler).await,
                            Some(tls) => {
                                if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await
                                {
                                    serve_h2(stream, streams, calls, &shared, handler).await;
                                }
                            }
                        }
                        shared.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Requests so far.
    pub(crate) fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }
}

async fn serve_h2<T>(stream: T, streams: u32, calls: usize, shared: &H2Shared, handler: Handler)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(stream).await else { return };
    let mut taken = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let number = shared.calls.fetch_add(1, Ordering::SeqCst);
        taken += 1;
        tokio::spawn(handler(Call { request, respond, number }));
        if taken == calls {
            connection.graceful_shutdown();
        }
    }
}

impl Call {
    /// The whole body, and the trailers.
    pub(crate) async fn read(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let body = self.request.body_mut();
        let mut bytes = Vec::new();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            bytes.extend_from_slice(&data);
        }
        (bytes, body.trailers().await.ok().flatten())
    }

    /// A 200 whose body is still to come.
    pub(crate) fn begin(&mut self) -> SendStream<bytes::Bytes> {
        self.respond.send_response(http::Response::new(()), false).unwrap()
    }

    /// A 200 with this body.
    pub(crate) fn answer(&mut self, body: &str) {
        // The client may have left; that is what some tests are about.
        if let Ok(mut stream) = self.respond.send_response(http::Response::new(()), false) {
            drop(stream.send_data(bytes::Bytes::copy_from_slice(body.as_bytes()), true));
        }
    }
}
