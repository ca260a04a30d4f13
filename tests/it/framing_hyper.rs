//! Raw bytes through hyper's HTTP/1 server into `headers::framing`: the pair decides, so the pair is tested.

use cloakroom::headers::framing::{FramingError, check_request};
use cloakroom::headers::hop::take_hop_by_hop;
use cloakroom::headers::path::RoutePath;
use cloakroom::headers::reserved::ReservedNames;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Debug, Clone, PartialEq)]
enum Seen {
    /// hyper answered by itself.
    Nothing,
    Refused(FramingError),
    Passed {
        host: String,
        target: String,
        body: String,
        lengths: usize,
        upgrade: bool,
    },
}

async fn judge(request: Request<Incoming>) -> Seen {
    let (mut parts, body) = request.into_parts();
    if let Err(error) = check_request(&parts.method, &parts.uri, parts.version, &mut parts.headers) {
        return Seen::Refused(error);
    }
    RoutePath::parse(parts.uri.path()).unwrap();
    let reserved = ReservedNames::new("X-Session", [].iter());
    let hop = take_hop_by_hop(&mut parts.headers, parts.version, &reserved);
    assert!(!parts.headers.contains_key(TRANSFER_ENCODING));
    let body =
        body.collect().await.map(|body| body.to_bytes()).unwrap_or_else(|_| Bytes::from_static(b"<error>"));
    Seen::Passed {
        host: parts.headers[HOST].to_str().unwrap().to_owned(),
        target: parts.uri.path_and_query().unwrap().to_string(),
        body: String::from_utf8(body.to_vec()).unwrap(),
        lengths: parts.headers.get_all(CONTENT_LENGTH).iter().count(),
        upgrade: hop.upgrade.is_some(),
    }
}

/// What the rules see of `raw`, and the first line that goes back.
fn through_hyper(raw: &[u8]) -> (Seen, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let seen = Arc::new(Mutex::new(Seen::Nothing));
        let slot = seen.clone();
        let service = service_fn(move |request| {
            let slot = slot.clone();
            async move {
                let judged = judge(request).await;
                *slot.lock().unwrap() = judged;
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::new())))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service);
        client.write_all(raw).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(connection, client.read_to_end(&mut answer));
        read.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let judged = seen.lock().unwrap().clone();
        (judged, answer.lines().next().unwrap_or_default().to_owned())
    })
}

fn passed(host: &str, target: &str, body: &str, lengths: usize) -> Seen {
    Seen::Passed { host: host.into(), target: target.into(), body: body.into(), lengths, upgrade: false }
}

#[test]
fn what_hyper_lets_through_is_refused_or_unambiguous() {
    const CHUNKED: &str = "2\r\nhi\r\n0\r\n\r\n";
    let post = |fields: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
    let refused = Seen::Refused;
    for (raw, want) in [
        ("GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), passed("a", "/x?y", "", 0)),
        ("GET /x HTTP/1.1\nHost: a\n\n".to_owned(), passed("a", "/x", "", 0)),
        ("GET /x HTTP/1.0\r\n\r\n".to_owned(), passed("", "/x", "", 0)),
        ("GET /x HTTP/1.1\r\n\r\n".to_owned(), refused(FramingError::MissingHost)),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), refused(FramingError::SeveralHosts)),
        ("GET /x HTTP/1.1\r\nHost: a,b\r\n\r\n".to_owned(), refused(FramingError::BadHost)),
        ("GET http://b:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), passed("b:81", "/x?y", "", 0)),
        ("GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), refused(FramingError::BadHost)),
        ("GET evil:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), refused(FramingError::Target)),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), refused(FramingError::Target)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), passed("a", "*", "", 0)),
        ("CONNECT evil:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), refused(FramingError::Method)),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), refused(FramingError::Method)),
        (post("Content-Length: 2\r\n", "hi"), passed("a", "/x", "hi", 1)),
        (post("Content-Length: 2\r\nContent-Length: 2\r\n", "hi"), passed("a", "/x", "hi", 1)),
        (post("Content-Length: 2\r\nContent-Length: 3\r\n", "hi!"), Seen::Nothing),
        (post("Transfer-Encoding: chunked\r\n", CHUNKED), passed("a", "/x", "hi", 0)),
        // hyper drops the length itself: nothing is left to be read in two ways.
        (post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", CHUNKED), passed("a", "/x", "hi", 0)),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", CHUNKED), passed("a", "/x", "hi", 0)),
        (post("Transfer-Encoding: gzip, chunked\r\n", CHUNKED), refused(FramingError::BadTransferEncoding)),
        (
            post("Transfer-Encoding: chunked, chunked\r\n", CHUNKED),
            refused(FramingError::BadTransferEncoding),
        ),
        (
            post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
            refused(FramingError::BadTransferEncoding),
        ),
        (post("Transfer-Encoding: xchunked\r\n", CHUNKED), Seen::Nothing),
        (post("Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n", ""), passed("a", "/x", "", 0)),
    ] {
        let (seen, line) = through_hyper(raw.as_bytes());
        assert_eq!(seen, want, "{raw}");
        assert_eq!(line.contains(" 400"), seen == Seen::Nothing, "{raw}: {line}");
    }
}

#[test]
fn an_upgrade_is_remembered() {
    let (seen, _) = through_hyper(
        b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert!(matches!(seen, Seen::Passed { upgrade: true, .. }), "{seen:?}");
}

#[test]
fn a_second_request_does_not_hide_behind_two_lengths() {
    let smuggled = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n\
                    0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let (seen, _) = through_hyper(smuggled.as_bytes());
    assert_eq!(seen, passed("a", "/x", "", 0));
}

#[test]
fn high_bytes_pass() {
    let (seen, _) = through_hyper("GET /caf\u{e9}?\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes());
    assert_eq!(seen, passed("a", "/caf\u{e9}?\u{fc}", "", 0));
    let (seen, line) = through_hyper(b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((seen, line.contains("400")), (Seen::Nothing, true));
}
