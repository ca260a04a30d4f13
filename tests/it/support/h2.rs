//! An HTTP/2 client: prior knowledge over TCP, or over TLS with ALPN.

use super::client::Response;
use super::message::Fields;
use super::{patience, tls};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::runtime::Runtime;
use tokio::time::timeout;

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// One HTTP/2 connection.
pub(crate) struct H2Client {
    runtime: Runtime,
    sender: SendRequest<Body>,
}

impl H2Client {
    /// Plain text, prior knowledge.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = runtime();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            start(TokioIo::new(stream)).await
        });
        Self { runtime, sender }
    }

    /// TLS; panics unless the server chooses `h2`.
    pub(crate) fn connect_tls(address: SocketAddr) -> Self {
        let runtime = runtime();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(tls::config(&["h2", "http/1.1"]));
            let stream = connector.connect(tls::name("localhost"), stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            start(TokioIo::new(stream)).await
        });
        Self { runtime, sender }
    }

    /// A request without a body.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.try_ask(method, path, headers).unwrap()
    }

    /// The same, where the connection may have ended.
    pub(crate) fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, hyper::Error> {
        self.send(request(method, path, headers, Full::default().boxed()))
    }

    /// A request with a body and trailers.
    #[track_caller]
    pub(crate) fn post(
        &mut self,
        path: &str,
        body: &'static [u8],
        trailers: &[(&'static str, &str)],
    ) -> Response {
        let mut map = HeaderMap::new();
        for (name, value) in trailers {
            map.append(*name, value.parse().unwrap());
        }
        let body = Full::new(Bytes::from_static(body)).with_trailers(async move { Some(Ok(map)) }).boxed();
        self.send(request("POST", path, &[], body)).unwrap()
    }

    /// The response, or why there is none; a body that was cut is a response that is not complete.
    pub(crate) fn send(&mut self, request: Request<Body>) -> Result<Response, hyper::Error> {
        let Self { runtime, sender } = self;
        runtime.block_on(async {
            let answer =
                timeout(patience(), sender.send_request(request)).await.expect("a response in time")?;
            let (head, mut body) = answer.into_parts();
            let mut response = Response {
                status: head.status.as_u16(),
                headers: fields(&head.headers),
                body: Vec::new(),
                trailers: Fields::default(),
                complete: true,
            };
            while let Some(frame) =
                timeout(patience(), body.frame()).await.expect("the rest of the body in time")
            {
                match frame.map(http_body::Frame::into_data) {
                    Ok(Ok(data)) => response.body.extend_from_slice(&data),
                    Ok(Err(other)) => {
                        response.trailers = other.trailers_ref().map(fields).unwrap_or_default()
                    }
                    Err(_) => response.complete = false,
                }
                if !response.complete {
                    break;
                }
            }
            Ok(response)
        })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn start<T>(io: TokioIo<T>) -> SendRequest<Body>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
    // Its end shows in the requests.
    tokio::spawn(connection);
    sender
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(format!("http://app.test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

fn fields(map: &HeaderMap) -> Fields {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Fields(map.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect())
}
