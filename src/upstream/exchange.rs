//! One request on one connection, until its response head is there or cannot come.

use super::error::{UpstreamError, is_refused};
use super::pool::{Lane, PooledConnection};
use super::{ExchangeTimeouts, Progress};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use std::time::{Duration, Instant};

/// What HTTP/2 has no place for, beside `Host` (RFC 9113 §8.2.2). hyper would remove it too, and complain.
const OF_HTTP1: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// No response head.
pub(super) struct Broken<B> {
    pub(super) error: UpstreamError,
    /// The request as it was given, if it never left.
    pub(super) unsent: Option<Box<Request<B>>>,
    /// The app has not looked at it, for certain.
    pub(super) refused: bool,
}

/// Sends and waits.
pub(super) async fn exchange<B>(
    connection: &mut PooledConnection<B>,
    mut request: Request<B>,
    progress: &Progress,
    timeouts: &ExchangeTimeouts,
) -> Result<Response<Incoming>, Broken<B>>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match connection.lane() {
        Lane::One(Some((sender, _))) => {
            shape_for_one(&mut request);
            await_head(sender.try_send_request(request), progress, timeouts).await
        }
        Lane::One(None) => {
            let error = UpstreamError::connect("the connection was given back");
            Err(Broken { error, unsent: Some(Box::new(request)), refused: true })
        }
        Lane::Two(sender, ..) => {
            shape_for_two(&mut request);
            await_head(sender.try_send_request(request), progress, timeouts).await
        }
    }
}

async fn await_head<B>(
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>>,
    progress: &Progress,
    timeouts: &ExchangeTimeouts,
) -> Result<Response<Incoming>, Broken<B>> {
    tokio::pin!(answer);
    let started = Instant::now();
    let timer = tokio::time::sleep(timeouts.response_head);
    tokio::pin!(timer);
    loop {
        tokio::select! {
            biased;
            result = &mut answer => return result.map_err(|mut error| {
                let unsent = error.take_message().map(Box::new);
                let refused = unsent.is_some() || is_refused(error.error());
                Broken { unsent, refused, error: UpstreamError::from_exchange(error.error()) }
            }),
            () = &mut timer => {
                // The deadline counts from the end of the request, or from when the app took the last piece of it: an
                // upload may take as long as it keeps moving.
                let since = progress.moved_at().max(started);
                let waited = since.elapsed();
                if !progress.waits_for_client() && waited >= timeouts.response_head {
                    let error = UpstreamError::response_head_timeout();
                    return Err(Broken { error, unsent: None, refused: false });
                }
                let rest = timeouts.response_head.saturating_sub(waited);
                let rest = rest.max(timeouts.response_head.min(Duration::from_secs(1)));
                timer.as_mut().reset(tokio::time::Instant::now() + rest);
            }
        }
    }
}

/// May it be done twice (RFC 9110 §9.2.2)?
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// The same request without a body.
pub(super) fn copy_head<B: Default>(request: &Request<B>) -> Request<B> {
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// HTTP/2: the authority stands in the URI, and nothing speaks of the connection.
fn shape_for_two<B>(request: &mut Request<B>) {
    if request.version() == Version::HTTP_2 {
        return;
    }
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    let host = headers.remove(HOST);
    for name in &OF_HTTP1 {
        headers.remove(name);
    }
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("localhost")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// HTTP/1.1, also of a request that was shaped for HTTP/2 and came back unsent.
fn shape_for_one<B: Body>(request: &mut Request<B>) {
    if request.version() != Version::HTTP_2 {
        return;
    }
    *request.version_mut() = Version::HTTP_11;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = None;
    let authority = parts.authority.take();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    let unframed = !request.body().is_end_stream() && !request.headers().contains_key(CONTENT_LENGTH);
    let headers: &mut HeaderMap = request.headers_mut();
    if let Some(host) = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        headers.insert(HOST, host);
    }
    if unframed {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if headers.contains_key(TE) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;

    #[test]
    fn a_request_is_shaped_for_http2_and_back() {
        let asked = || {
            let request = Request::put("/a?b").header(HOST, "app.test:81").header(TE, "trailers");
            let request = request.header(CONNECTION, "te").header(TRANSFER_ENCODING, "chunked");
            request.header("x-a", "1").body(Full::new(Bytes::from_static(b"body"))).unwrap()
        };
        let mut request = asked();
        shape_for_two(&mut request);
        assert_eq!(
            (request.version(), request.uri()),
            (Version::HTTP_2, &"http://app.test:81/a?b".parse().unwrap())
        );
        let mut names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["te", "x-a"]);
        shape_for_one(&mut request);
        assert_eq!((request.version(), request.uri()), (Version::HTTP_11, asked().uri()));
        assert_eq!(request.headers(), asked().headers());
        let mut request = asked();
        shape_for_one(&mut request);
        assert_eq!(request.headers(), asked().headers());
    }

    #[test]
    fn without_a_usable_host_there_still_is_an_authority() {
        for host in [None, Some("not a host")] {
            let mut request = Request::get("/").body(()).unwrap();
            if let Some(host) = host {
                request.headers_mut().insert(HOST, HeaderValue::from_static(host));
            }
            shape_for_two(&mut request);
            assert_eq!(request.uri(), "http://localhost/");
        }
    }
}
