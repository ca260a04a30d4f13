//! The client side: exact bytes over one HTTP/1.1 connection, and a browser of the simplest kind (a cookie jar).

use super::message::{Fields, read_body, read_head};
use super::patience;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection.
pub(crate) struct Client<S = TcpStream> {
    stream: BufReader<S>,
}

/// A response as the client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// The body came to its proper end.
    pub(crate) complete: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The one `Set-Cookie` of the session; `None` when there is none.
    pub(crate) fn cookie(&self) -> Option<&str> {
        let mut ours = self.headers.all("set-cookie").filter(|line| line.starts_with("connect.sid="));
        let first = ours.next();
        assert!(ours.next().is_none(), "two session cookies: {:?}", self.headers);
        first
    }

    /// Does it tell the browser to forget the session's cookie?
    pub(crate) fn clears_cookie(&self) -> bool {
        self.cookie().is_some_and(|line| line.starts_with("connect.sid=;"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.set_write_timeout(Some(patience())).unwrap();
        Self::over(stream)
    }

    /// The socket, to close a half of it.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Exactly these bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
        self.stream.get_mut().flush().unwrap();
    }

    /// The same, where the connection may have ended.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// The next response to a request that was no HEAD.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Response {
        self.try_receive("GET").unwrap().expect("a response, not the end of the connection")
    }

    /// The next response to `method`; `None` when the connection was closed instead.
    pub(crate) fn try_receive(&mut self, method: &str) -> io::Result<Option<Response>> {
        let Some(head) = read_head(&mut self.stream)? else { return Ok(None) };
        let status: u16 = head.start.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let body = if bodiless {
            super::message::Body { complete: true, ..Default::default() }
        } else {
            read_body(&mut self.stream, &head.headers, true)?
        };
        let headers = head.headers;
        Ok(Some(Response {
            status,
            headers,
            body: body.bytes,
            trailers: body.trailers,
            complete: body.complete,
        }))
    }

    /// Bytes of a tunnel.
    pub(crate) fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        self.try_read_exactly(length).unwrap()
    }

    /// The same, where the connection may have ended.
    pub(crate) fn try_read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether the peer closed the connection; bytes that are still to be read are an error.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// A request with these header lines, and its response.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        self.send(render(method, target, headers));
        self.try_receive(method).unwrap().expect("a response, not the end of the connection")
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.ask("GET", target, headers)
    }
}

fn render(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: app.test\r\n" };
    format!("{method} {target} HTTP/1.1\r\n{host}{lines}\r\n")
}

/// A client that keeps cookies, on a connection of its own for each request.
#[derive(Clone)]
pub(crate) struct Browser {
    address: SocketAddr,
    pub(crate) jar: BTreeMap<String, String>,
}

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, jar: BTreeMap::new() }
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.ask("GET", target, headers)
    }

    /// Sends a request with the jar's cookies and keeps what the response sets.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        let cookies = self.cookies();
        let mut headers = headers.to_vec();
        if !cookies.is_empty() {
            headers.push(("Cookie", &cookies));
        }
        let response = Client::connect(self.address).ask(method, target, &headers);
        self.keep(&response);
        response
    }

    /// Tells a parrot app to answer with these headers.
    #[track_caller]
    pub(crate) fn say(&mut self, headers: &[(&str, &str)]) -> Response {
        let said: Vec<(String, &str)> =
            headers.iter().map(|(name, value)| (format!("Say-{name}"), *value)).collect();
        let said: Vec<(&str, &str)> = said.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.get("/", &said)
    }

    /// The session's data as the app is told it now.
    #[track_caller]
    pub(crate) fn session(&mut self) -> serde_json::Value {
        let response = self.get("/", &[]);
        assert_eq!(response.status, 200, "{response:?}");
        serde_json::from_slice(&response.body).unwrap()
    }

    /// The value of `Cookie`.
    pub(crate) fn cookies(&self) -> String {
        let pairs: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    pub(crate) fn keep(&mut self, response: &Response) {
        for line in response.headers.all("set-cookie") {
            let (name, value) = line.split(';').next().unwrap_or_default().split_once('=').unwrap();
            if line.contains("Expires=Thu, 01 Jan 1970") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}
