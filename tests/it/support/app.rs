//! The app behind the sidecar: a closure on raw sockets that records the exact bytes it was sent.

use super::message::{Body, Head, read_body, read_head};
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A running app. It stops listening when dropped.
pub(crate) struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
    seen: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

/// A request as the app saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) head: Head,
    pub(crate) body: Body,
}

impl Request {
    pub(crate) fn method(&self) -> &str {
        self.head.start.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.start.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)
    }

    /// The data in `X-Session`.
    #[track_caller]
    pub(crate) fn session(&self) -> serde_json::Value {
        let text = self.header("x-session").expect("a request with X-Session");
        serde_json::from_str(text).unwrap_or_else(|error| panic!("X-Session is {text:?}: {error}"))
    }
}

/// The app's side of one connection.
pub(crate) type Wire = BufReader<TcpStream>;

type TakeOver = Box<dyn FnOnce(&mut Wire) -> io::Result<()> + Send>;

/// What the app does about a request.
pub(crate) enum Reply {
    /// A response; with `trailers` it is chunked.
    Message {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        trailers: Option<Vec<(String, String)>>,
    },
    /// The connection is the closure's, and closed when it returns.
    TakeOver(TakeOver),
}

impl Reply {
    /// A 200 with this body.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Message { status: 200, headers: Vec::new(), body: body.into(), trailers: None }
    }

    /// These bytes, and then the end of the connection.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::take_over(move |wire| wire.get_mut().write_all(&bytes))
    }

    /// The connection is the closure's, and closed when it returns.
    pub(crate) fn take_over(with: impl FnOnce(&mut Wire) -> io::Result<()> + Send + 'static) -> Self {
        Self::TakeOver(Box::new(with))
    }

    /// One more header of a message.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Message { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

impl App {
    /// Starts an app that answers with `handler`.
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), handler)
    }

    /// The same on an address of the test's choice.
    pub(crate) fn on(
        listener: TcpListener,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let app = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream));
            }
        });
        app
    }

    /// An app that says what the client tells it to: `Say-Status: 404` sets the status, every other `Say-<Name>: <value>` becomes a
    /// response header, `Say-Trailer-<Name>` a trailer. The body is the `X-Session` that it was given.
    pub(crate) fn parrot() -> Self {
        Self::start(parrot)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What arrived so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The newest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Request {
        self.seen().pop().expect("the app saw no request")
    }

    /// Connections that are open now.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut wire = BufReader::new(stream);
        // A connection that the sidecar breaks is a matter for the test's own assertions.
        while let Ok(true) = self.exchange(&mut wire) {}
        drop(wire);
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// One request and its answer; `false` when the connection is over.
    fn exchange(&self, wire: &mut Wire) -> io::Result<bool> {
        let Some(head) = read_head(wire)? else { return Ok(false) };
        let body = read_body(wire, &head.headers, false)?;
        let request = Request { head, body };
        self.seen.lock().unwrap().push(request.clone());
        match (self.handler)(&request) {
            Reply::TakeOver(with) => with(wire).map(|()| false),
            Reply::Message { status, headers, body, trailers } => {
                let bytes = render(request.method(), status, &headers, &body, trailers.as_deref());
                wire.get_mut().write_all(&bytes).map(|()| true)
            }
        }
    }
}

pub(crate) fn parrot(request: &Request) -> Reply {
    let mut status = 200;
    let mut headers = Vec::new();
    let mut trailers = Vec::new();
    for (name, value) in &request.head.headers.0 {
        match name.to_ascii_lowercase().strip_prefix("say-") {
            Some("status") => status = value.parse().unwrap(),
            Some(said) => match said.strip_prefix("trailer-") {
                Some(said) => trailers.push((said.to_owned(), value.clone())),
                None => headers.push((said.to_owned(), value.clone())),
            },
            None => {}
        }
    }
    let body = request.header("x-session").unwrap_or("no session").as_bytes().to_vec();
    Reply::Message { status, headers, body, trailers: (!trailers.is_empty()).then_some(trailers) }
}

fn render(
    method: &str,
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
    trailers: Option<&[(String, String)]>,
) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} Said So\r\n{}", lines(headers)).into_bytes();
    let bodiless = method == "HEAD" || status == 204 || status == 304;
    match trailers {
        Some(trailers) => {
            let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
            write!(out, "Transfer-Encoding: chunked\r\nTrailer: {}\r\n\r\n", names.join(", ")).unwrap();
            if !body.is_empty() {
                write!(out, "{:x}\r\n", body.len()).unwrap();
                out.extend_from_slice(body);
                out.extend_from_slice(b"\r\n");
            }
            write!(out, "0\r\n{}\r\n", lines(trailers)).unwrap();
        }
        None if status == 204 => out.extend_from_slice(b"\r\n"),
        None => {
            write!(out, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
            if !bodiless {
                out.extend_from_slice(body);
            }
        }
    }
    out
}

fn lines(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}
