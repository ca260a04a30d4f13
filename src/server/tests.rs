//! The server against real sockets on port 0: a worker and its clients share one thread and one `LocalSet`.

use super::*;
use crate::drain::Drain;
use crate::telemetry::counters::Counters;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Frame, SizeHint};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};

/// A folder that is removed at the end of a test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("cloakroom-server-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const HUGE: usize = 64 * 1024 * 1024;

/// `/wait` answers when told to, `/huge` answers [`HUGE`] bytes in many pieces, `/stream` begins to answer and ends when told to, `/upgrade` becomes an echo, everything
/// else says what was asked.
#[derive(Default)]
struct App {
    arrived: Notify,
    release: Notify,
}

/// Some text, and an end that may have to be waited for.
struct Text {
    text: Option<Bytes>,
    again: usize,
    end: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Body for Text {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.again > 0 {
            self.again -= 1;
            return Poll::Ready(self.text.clone().map(|text| Ok(Frame::data(text))));
        }
        if let Some(text) = self.text.take() {
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        match &mut self.end {
            Some(end) => end.as_mut().poll(cx).map(|()| None),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.text, &self.end) {
            (Some(text), None) => SizeHint::with_exact((text.len() * (self.again + 1)) as u64),
            _ => SizeHint::default(),
        }
    }
}

impl Handler for App {
    type Body = Text;

    async fn handle(self: Rc<Self>, request: Request<Incoming>, peer: Rc<Peer>) -> Response<Text> {
        match request.uri().path() {
            "/wait" => {
                self.arrived.notify_one();
                self.release.notified().await;
            }
            "/upgrade" => {
                tokio::task::spawn_local(async move {
                    let tunnel = hyper::upgrade::on(request).await.unwrap();
                    let (mut read, mut write) = tokio::io::split(TokioIo::new(tunnel));
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
                let response =
                    Response::builder().status(101).header("upgrade", "echo").header("connection", "upgrade");
                return response.body(Text { text: None, again: 0, end: None }).unwrap();
            }
            "/huge" => {
                let text = Some(Bytes::from_static(&[b'x'; 64 * 1024]));
                return Response::new(Text { text, again: HUGE / (64 * 1024) - 1, end: None });
            }
            _ => {}
        }
        let (version, path) = (request.version(), request.uri().path());
        let text = format!("{version:?} {path} tls={} port={}", peer.tls, peer.local_port);
        let end: Option<Pin<Box<dyn Future<Output = ()>>>> = match path {
            "/stream" => Some(Box::pin(async move { self.release.notified().await })),
            _ => None,
        };
        Response::new(Text { text: Some(text.into()), again: 0, end })
    }
}

struct Running {
    app: Rc<App>,
    drain: Drain,
    counters: Arc<Counters>,
    addresses: Vec<Address>,
    ticks: Rc<Cell<u32>>,
    done: JoinHandle<std::io::Result<()>>,
}

pub(super) fn options() -> ServerOptions {
    ServerOptions {
        tls_handshake: Duration::from_secs(60),
        request_head: Duration::from_secs(60),
        keep_alive: Duration::from_secs(60),
        max_request_head: 16 * 1024,
        max_headers: 100,
        max_connections: 100,
        max_connections_per_peer: None,
        max_streams: 128,
        max_control_frames: 5000,
        max_resets: 200,
    }
}

fn tcp(tls: Option<TlsOptions>) -> ListenerOptions {
    ListenerOptions { tls, ..ListenerOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into())) }
}

fn start(options: ServerOptions, listeners: &[ListenerOptions]) -> Running {
    let listeners: Vec<_> = listeners.iter().map(|options| Listener::bind(options).unwrap()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().clone()).collect();
    let (app, drain, counters, ticks) =
        (Rc::<App>::default(), Drain::new(), Arc::<Counters>::default(), Rc::default());
    let limit = ConnectionLimit::new(options.max_connections);
    let server = Server { options, limit, counters: Arc::clone(&counters), drain: drain.clone() };
    let on_tick = {
        let ticks: Rc<Cell<u32>> = Rc::clone(&ticks);
        move || ticks.set(ticks.get() + 1)
    };
    let done = tokio::task::spawn_local(server.serve(listeners, Rc::clone(&app), None, on_tick));
    Running { app, drain, counters, addresses, ticks, done }
}

impl Running {
    fn address(&self, index: usize) -> SocketAddr {
        match self.addresses[index] {
            Address::Tcp(address) => address,
            Address::Unix(_) => unreachable!("a TCP listener"),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address(0)).await.unwrap()
    }

    async fn stop(self) {
        self.drain.begin();
        within(self.done).await.unwrap().unwrap();
        assert_eq!(self.counters.connections_open.value(), 0);
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// Nothing here takes long; what does not come is a failure, not a hanging test.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it did not happen within 20 s")
}

async fn eventually(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// One answer with a Content-Length.
async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    loop {
        let whole = std::str::from_utf8(&text).unwrap().split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= length.map_or(0, |length| length.parse().unwrap())
        });
        if whole {
            return String::from_utf8(text).unwrap();
        }
        let byte = within(stream.read_u8()).await.unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push(byte);
    }
}

async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn ask(stream: &mut (impl tokio::io::AsyncRead + AsyncWriteExt + Unpin), path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n").as_bytes()).await.unwrap();
    answer(stream).await
}

type Http2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn http2(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
) -> (Http2, JoinHandle<()>) {
    let (send, connection) =
        hyper::client::conn::http2::handshake(connection::LocalExecutor::default(), TokioIo::new(io))
            .await
            .unwrap();
    let ended = tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    (send, ended)
}

async fn ask_http2(send: &mut Http2, path: &str) -> (StatusCode, String) {
    let request = Request::builder().uri(format!("http://a.example{path}")).body(Empty::new()).unwrap();
    let response = within(send.send_request(request)).await.unwrap();
    let status = response.status();
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

mod deadlines {
    use super::*;

    #[test]
    fn silent_and_slow_heads_are_closed_at_request_head_and_not_before() {
        run(async {
            let limit = Duration::from_millis(600);
            let server = start(ServerOptions { request_head: limit, ..options() }, &[tcp(None)]);
            let begun = Instant::now();
            let mut silent = server.connect().await;
            let mut slow = server.connect().await;
            slow.write_all(b"GET / HTTP/1.1\r\nHost: a.exa").await.unwrap();
            let mut second = server.connect().await;
            assert!(ask(&mut second, "/").await.contains("HTTP/1.1 /"));
            second.write_all(b"G").await.unwrap();
            for stream in [&mut silent, &mut slow, &mut second] {
                let mut nothing = [0];
                // A drop with unread bytes is a reset, without a FIN.
                assert!(!matches!(within(stream.read(&mut nothing)).await, Ok(1)));
                assert!(begun.elapsed() >= limit);
            }
            assert_eq!(server.counters.connections_timed_out.value(), 3);
            assert!(server.ticks.get() > 0);
            server.stop().await;
        });
    }

    #[test]
    fn an_idle_connection_closes_and_a_running_request_does_not() {
        run(async {
            let limit = Duration::from_millis(600);
            let server =
                start(ServerOptions { keep_alive: limit, request_head: limit, ..options() }, &[tcp(None)]);
            let mut busy = server.connect().await;
            busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
            within(server.app.arrived.notified()).await;
            let mut streaming = server.connect().await;
            ask(&mut streaming, "/stream").await;
            let begun = Instant::now();
            let mut idle = server.connect().await;
            ask(&mut idle, "/").await;
            let (mut http2, http2_ended) = http2(server.connect().await).await;
            assert_eq!(
                ask_http2(&mut http2, "/").await.1,
                format!("HTTP/2.0 / tls=false port={}", server.address(0).port())
            );
            assert_eq!(rest(&mut idle).await, "");
            within(http2_ended).await.unwrap();
            assert!(begun.elapsed() >= limit);
            server.app.release.notify_waiters();
            assert!(answer(&mut busy).await.starts_with("HTTP/1.1 200"));
            // The text was read to some point by `ask`; what counts is that the last chunk comes.
            let mut text = Vec::new();
            while !text.ends_with(b"0\r\n\r\n") {
                text.push(within(streaming.read_u8()).await.unwrap());
            }
            drop((busy, streaming));
            assert_eq!(
                server.counters.connections_timed_out.value(),
                0,
                "closing an idle connection is no failure"
            );
            server.stop().await;
        });
    }

    #[test]
    fn a_client_that_takes_nothing_of_an_answer_is_dropped_and_of_a_stream_reset() {
        run(async {
            let server = start(options(), &[tcp(None)]);
            let mut stream = server.connect().await;
            stream.write_all(b"GET /huge HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let (mut send, http2_ended) = http2(server.connect().await).await;
            let huge = Request::builder().uri("http://a.example/huge").body(Empty::<Bytes>::new()).unwrap();
            let mut huge = within(send.send_request(huge)).await.unwrap();
            let waiting =
                Request::builder().uri("http://a.example/wait").body(Empty::<Bytes>::new()).unwrap();
            let waiting = tokio::task::spawn_local(send.send_request(waiting));
            eventually(|| server.counters.connections_timed_out.value() == 2).await;
            // The stream that waits for the app, not for the client, goes on; so does the connection.
            assert!(ask_http2(&mut send, "/").await.1.starts_with("HTTP/2.0 /"));
            assert!(!http2_ended.is_finished());
            let cut = within(async {
                while let Some(frame) = huge.body_mut().frame().await {
                    frame?;
                }
                Ok::<_, hyper::Error>(())
            });
            assert!(cut.await.is_err());
            server.app.release.notify_one();
            assert_eq!(within(waiting).await.unwrap().unwrap().status(), StatusCode::OK);
            let taken = within(stream.read_to_end(&mut Vec::new())).await;
            assert!(taken.is_err() || taken.unwrap() < HUGE);
            drop((send, huge));
            server.stop().await;
        });
    }

    #[test]
    fn a_handshake_that_does_not_end_is_dropped() {
        run(async {
            let limit = Duration::from_millis(100);
            let server = start(
                ServerOptions { tls_handshake: limit, ..options() },
                &[tcp(Some(TlsOptions::SelfSigned))],
            );
            let mut silent = server.connect().await;
            let mut slow = server.connect().await;
            slow.write_all(&[22, 3, 1, 0, 200, 1]).await.unwrap();
            assert_eq!(rest(&mut silent).await, "");
            assert_eq!(rest(&mut slow).await, "");
            assert_eq!(server.counters.connections_timed_out.value(), 2);
            server.stop().await;
        });
    }
}

mod protocols {
    use super::*;

    #[test]
    fn one_connection_serves_many_requests_and_pipelined_ones_in_order() {
        run(async {
            let server = start(options(), &[tcp(None)]);
            let mut stream = server.connect().await;
            for path in ["/one", "/two"] {
                assert!(ask(&mut stream, path).await.contains(&format!("HTTP/1.1 {path} tls=false")));
            }
            let two =
                "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(two.as_bytes()).await.unwrap();
            let text = rest(&mut stream).await;
            assert!(text.find("HTTP/1.1 /a ").unwrap() < text.find("HTTP/1.1 /b ").unwrap(), "{text}");
            assert_eq!(server.counters.connections_accepted.value(), 1);
            server.stop().await;
        });
    }

    #[test]
    fn http2_with_prior_knowledge_even_if_the_preface_comes_in_pieces() {
        run(async {
            let server = start(options(), &[tcp(None)]);
            let mut stream = server.connect().await;
            stream.set_nodelay(true).unwrap();
            for piece in [&b"PRI * HT"[..], b"TP/2.0\r\n\r\nSM", b"\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
                stream.write_all(piece).await.unwrap();
                // The server shares this thread: it reads each piece before the next one is written.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }
            let mut frame = [0; 9];
            within(stream.read_exact(&mut frame)).await.unwrap();
            assert_eq!(frame[3], 4, "SETTINGS: {frame:?}");
            drop(stream);

            let (mut send, _) = http2(server.connect().await).await;
            let (status, text) = ask_http2(&mut send, "/x").await;
            assert_eq!((status, text.starts_with("HTTP/2.0 /x tls=false")), (StatusCode::OK, true), "{text}");
            drop(send);
            server.stop().await;
        });
    }

    #[test]
    fn a_method_that_begins_like_the_preface_is_http1() {
        run(async {
            let server = start(options(), &[tcp(None)]);
            let mut stream = server.connect().await;
            stream.write_all(b"P").await.unwrap();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            stream.write_all(b"RIME / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
            drop(stream);
            server.stop().await;
        });
    }

    #[test]
    fn what_is_no_http_or_too_large_is_answered_and_counted() {
        run(async {
            let server = start(options(), &[tcp(None)]);
            let many: String = (0..101).map(|number| format!("a{number}: b\r\n")).collect();
            let large = format!("a: {}\r\n", "x".repeat(17 * 1024));
            let lines: [(String, &str); 4] = [
                ("garbage\r\n\r\n".into(), "HTTP/1.1 400"),
                (format!("GET / HTTP/1.1\r\n{many}\r\n"), "HTTP/1.1 431"),
                (format!("GET / HTTP/1.1\r\n{large}\r\n"), "HTTP/1.1 431"),
                ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), "HTTP/1.1 400"),
            ];
            for (number, (request, expected)) in (1..).zip(lines) {
                let mut stream = server.connect().await;
                stream.write_all(request.as_bytes()).await.unwrap();
                let text = answer(&mut stream).await;
                assert!(text.starts_with(expected), "{text}");
                eventually(|| server.counters.bad_requests.value() == number).await;
            }
            let (mut send, _) = http2(server.connect().await).await;
            let mut request = Request::builder().uri("http://a.example/");
            for number in 0..101 {
                request = request.header(format!("a{number}"), "b");
            }
            let response = within(send.send_request(request.body(Empty::new()).unwrap())).await.unwrap();
            assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            assert_eq!(server.counters.bad_requests.value(), 5);
            drop((send, response));
            server.stop().await;
        });
    }

    #[test]
    fn a_tunnel_counts_as_a_connection_and_holds_up_the_stop_until_it_ends() {
        run(async {
            let server = start(options(), &[tcp(None)]);
            let mut stream = server.connect().await;
            let request =
                "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst";
            stream.write_all(request.as_bytes()).await.unwrap();
            assert!(answer(&mut stream).await.starts_with("HTTP/1.1 101"));
            let mut echo = [0; 5];
            within(stream.read_exact(&mut echo)).await.unwrap();
            assert_eq!(&echo, b"first");
            server.drain.begin();
            assert!(!server.drain.finished(Duration::from_millis(50)).await);
            assert_eq!(server.counters.connections_open.value(), 1);
            stream.write_all(b"later").await.unwrap();
            within(stream.read_exact(&mut echo)).await.unwrap();
            assert_eq!(&echo, b"later");
            drop(stream);
            server.stop().await;
        });
    }
}

mod encryption {
    use super::*;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    /// Certificates for each list of names, and a client that trusts them all.
    fn certificates(
        folder: &Folder,
        names: &[&[&str]],
    ) -> (TlsOptions, rustls::RootCertStore, Vec<CertificateDer<'static>>) {
        let mut roots = rustls::RootCertStore::empty();
        let (mut files, mut leaves) = (Vec::new(), Vec::new());
        for (index, names) in names.iter().enumerate() {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let leaf = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap();
            roots.add(leaf.clone()).unwrap();
            leaves.push(leaf);
            files.push(CertificateFiles {
                cert: folder.write(&format!("{index}.crt"), &made.cert.pem()),
                key: folder.write(&format!("{index}.key"), &made.signing_key.serialize_pem()),
            });
        }
        (TlsOptions::Files(files), roots, leaves)
    }

    async fn connect(
        server: &Running,
        roots: &rustls::RootCertStore,
        name: &str,
        alpn: &[&str],
    ) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        within(TlsConnector::from(Arc::new(config)).connect(name, server.connect().await)).await.unwrap()
    }

    #[test]
    fn alpn_decides_between_http2_and_http1() {
        run(async {
            let folder = Folder::new();
            let (tls, roots, _) = certificates(&folder, &[&["a.example"]]);
            let server = start(options(), &[tcp(Some(tls))]);
            for alpn in [&["http/1.1"][..], &[]] {
                let mut stream = connect(&server, &roots, "a.example", alpn).await;
                assert!(ask(&mut stream, "/").await.contains("HTTP/1.1 / tls=true"));
            }
            let stream = connect(&server, &roots, "a.example", &["h2", "http/1.1"]).await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (mut send, _) = http2(stream).await;
            assert!(ask_http2(&mut send, "/").await.1.starts_with("HTTP/2.0 / tls=true"));
            drop(send);
            server.stop().await;
        });
    }

    #[test]
    fn sni_picks_the_certificate_and_the_first_is_the_default() {
        run(async {
            let folder = Folder::new();
            let names: &[&[&str]] = &[&["a.example", "127.0.0.1"], &["b.example"], &["*.c.example"]];
            let (tls, roots, leaves) = certificates(&folder, names);
            let server = start(options(), &[tcp(Some(tls))]);
            for (name, leaf) in [("a.example", 0), ("b.example", 1), ("www.c.example", 2), ("127.0.0.1", 0)] {
                let stream = connect(&server, &roots, name, &[]).await;
                assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], leaves[leaf], "{name}");
            }
            server.stop().await;
        });
    }

    #[test]
    fn plain_http_on_a_tls_port_is_told_so_and_other_bytes_are_not() {
        run(async {
            let server = start(options(), &[tcp(Some(TlsOptions::SelfSigned))]);
            let mut stream = server.connect().await;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let text = answer(&mut stream).await;
            assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("sent to HTTPS port"), "{text}");
            assert_eq!(rest(&mut stream).await, "");
            let mut stream = server.connect().await;
            stream.write_all(&[0; 32]).await.unwrap();
            assert!(!rest(&mut stream).await.contains("HTTP"));
            assert_eq!(server.counters.bad_requests.value(), 1);
            eventually(|| server.counters.connections_refused_tls.value() == 1).await;
            drop(stream);
            server.stop().await;
        });
    }
}

mod stop_and_limits {
    use super::*;

    #[test]
    fn the_stop_finishes_running_requests_and_closes_everything_else() {
        run(async {
            let server = start(options(), &[tcp(None)]);
            let mut idle = server.connect().await;
            ask(&mut idle, "/").await;
            let (mut send, http2_ended) = http2(server.connect().await).await;
            ask_http2(&mut send, "/").await;
            let mut half = server.connect().await;
            half.write_all(b"GET /").await.unwrap();
            let mut running = server.connect().await;
            running.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            within(server.app.arrived.notified()).await;
            eventually(|| server.counters.connections_open.value() == 4).await;

            server.drain.begin();
            assert_eq!(rest(&mut idle).await, "");
            within(http2_ended).await.unwrap();
            assert!(!matches!(within(half.read(&mut [0])).await, Ok(1)));
            eventually(|| server.counters.connections_open.value() == 1).await;
            assert!(TcpStream::connect(server.address(0)).await.is_err(), "nobody listens any more");
            assert!(!server.done.is_finished());

            server.app.release.notify_one();
            let text = answer(&mut running).await;
            assert!(text.starts_with("HTTP/1.1 200") && text.contains("connection: close"), "{text}");
            server.stop().await;
        });
    }

    #[test]
    fn past_the_limit_a_connection_waits_until_another_ends() {
        run(async {
            let server = start(ServerOptions { max_connections: 1, ..options() }, &[tcp(None)]);
            let mut first = server.connect().await;
            ask(&mut first, "/").await;
            let mut second = server.connect().await;
            second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            for _ in 0..20 {
                ask(&mut first, "/").await;
            }
            assert_eq!(second.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
            assert_eq!(server.counters.connections_open.value(), 1);
            drop(first);
            assert!(answer(&mut second).await.starts_with("HTTP/1.1 200"));
            drop(second);
            server.stop().await;
        });
    }

    #[test]
    fn workers_share_a_listener_a_limit_and_a_stop() {
        let listener = Listener::bind(&tcp(None)).unwrap();
        let Address::Tcp(address) = *listener.local_addr() else { unreachable!() };
        let (drain, limit) = (Drain::new(), ConnectionLimit::new(1000));
        let counters = [Arc::<Counters>::default(), Arc::default()];
        let workers: Vec<_> = counters
            .iter()
            .cloned()
            .zip(seats(&counters))
            .map(|(counters, seat)| {
                let (drain, limit, listener) = (drain.clone(), limit.clone(), listener.clone());
                std::thread::spawn(move || {
                    let server = Server { options: options(), limit, counters, drain };
                    let app = Rc::new(App::default());
                    run(server.serve(vec![listener], app, Some(seat), || ())).unwrap();
                })
            })
            .collect();
        drop(listener);
        run(async {
            let mut streams = Vec::new();
            // Few connections that stay are the case that matters: whoever wakes first must not keep them all.
            for _ in 0..8 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                assert!(ask(&mut stream, "/").await.starts_with("HTTP/1.1 200"));
                streams.push(stream);
            }
            assert_eq!(counters.each_ref().map(|worker| worker.connections_open.value()), [4, 4]);
            drain.begin();
            for mut stream in streams {
                assert_eq!(rest(&mut stream).await, "");
            }
            assert!(drain.finished(Duration::from_secs(20)).await);
        });
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[test]
    fn redirects_go_to_the_tls_listener() {
        run(async {
            let redirect = ListenerOptions { redirect_to_https: true, ..tcp(None) };
            let server = start(options(), &[redirect, tcp(Some(TlsOptions::SelfSigned))]);
            let mut stream = server.connect().await;
            let text = ask(&mut stream, "/x?y=z").await;
            assert!(text.starts_with("HTTP/1.1 308 "), "{text}");
            let location = format!("location: https://a.example:{}/x?y=z\r\n", server.address(1).port());
            assert!(text.contains(&location), "{text}");
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert!(answer(&mut stream).await.starts_with("HTTP/1.1 400 "));
            assert_eq!(
                (server.counters.redirected_to_https.value(), server.counters.bad_requests.value()),
                (1, 1)
            );
            drop(stream);
            server.stop().await;
        });
    }
}

mod binding {
    use super::*;

    fn unix(path: &Path) -> ListenerOptions {
        ListenerOptions::new(Address::Unix(path.to_owned()))
    }

    #[test]
    fn an_address_in_use_is_an_error_with_its_cure() {
        let listener = Listener::bind(&tcp(None)).unwrap();
        let options = ListenerOptions { address: listener.local_addr().clone(), ..tcp(None) };
        let error = Listener::bind(&options).err().unwrap();
        assert!(
            error.contains("127.0.0.1:") && error.contains("in use") && error.contains("choose another port"),
            "{error}"
        );
        let elsewhere = ListenerOptions { address: Address::Tcp(([192, 0, 2, 1], 0).into()), ..tcp(None) };
        let error = Listener::bind(&elsewhere).err().unwrap();
        assert!(error.contains("no interface of this machine"), "{error}");
    }

    #[test]
    fn accepted_sockets_send_at_once() {
        run(async {
            let listener = Listener::bind(&tcp(None)).unwrap();
            let Address::Tcp(address) = *listener.local_addr() else { unreachable!() };
            let listener::Bound::Tcp(socket) = &listener.inner.socket else { unreachable!() };
            let socket = tokio::net::TcpListener::from_std(socket.try_clone().unwrap()).unwrap();
            let (_client, accepted) = tokio::join!(TcpStream::connect(address), socket.accept());
            assert!(accepted.unwrap().0.nodelay().unwrap(), "the option is inherited");
        });
    }

    #[test]
    fn a_unix_socket_has_the_mode_that_was_asked_for() {
        let folder = Folder::new();
        for mode in [0o600, 0o666] {
            let path = folder.path().join("s");
            let listener = Listener::bind(&ListenerOptions { mode, ..unix(&path) }).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            drop(listener);
        }
    }

    #[test]
    fn a_unix_socket_is_for_its_group_replaces_a_stale_one_and_is_removed_at_the_end() {
        run(async {
            let folder = Folder::new();
            let path = folder.path().join("s");
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "a stale socket");
            let server = start(options(), &[unix(&path)]);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
            let error = Listener::bind(&unix(&path)).err().unwrap();
            assert!(error.contains("another program listens"), "{error}");
            let mut stream = UnixStream::connect(&path).await.unwrap();
            assert!(ask(&mut stream, "/").await.contains("HTTP/1.1 / tls=false port=0"));
            drop(stream);
            server.stop().await;
            assert!(!path.exists());
        });
    }

    #[test]
    fn a_file_that_is_no_socket_is_nobodys_to_remove() {
        let folder = Folder::new();
        let path = folder.write("precious", "data");
        let error = Listener::bind(&unix(&path)).err().unwrap();
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
        let error = Listener::bind(&unix(&folder.path().join("missing/s"))).err().unwrap();
        assert!(error.contains("does not exist"), "{error}");
    }

    #[test]
    fn the_clock_reads_milliseconds_of_this_century() {
        assert!((1_700_000_000_000..4_102_444_800_000).contains(&now()));
    }
}
