//! The demo's app: an HTTP/1 server with a counter. It is on purpose as ignorant as an app can be: it knows the headers
//! `X-Session`, `X-Session-Update` and `X-Session-Control`, and nothing of this crate. Tests: below.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

const PAGE: &str = include_str!("page.html");

/// Starts the app on a thread of its own and a free port of this machine; it ends with the process.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("demo-app".to_owned())
        .spawn(move || runtime.block_on(serve(listener)))?;
    Ok(address)
}

async fn serve(listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: wait for one.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = service_fn(|request: Request<Incoming>| async move {
            let session =
                request.headers().get("x-session").map_or("{}", |value| value.to_str().unwrap_or("{}"));
            Ok::<_, Infallible>(answer(request.method(), request.uri().path(), session))
        });
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        // A connection that breaks is the other side's business.
        tokio::spawn(async { drop(connection.await) });
    }
}

fn answer(method: &Method, path: &str, session: &str) -> Response<Full<Bytes>> {
    let data: serde_json::Value = serde_json::from_str(session).unwrap_or_default();
    let count = data.get("count").and_then(serde_json::Value::as_u64).unwrap_or(0);
    match (method, path) {
        (&Method::GET, "/") => {
            let page = PAGE.replace("{count}", &visits(count)).replace("{session}", &escape(session));
            respond("text/html; charset=utf-8", page)
        }
        (&Method::GET | &Method::POST, "/count") => {
            let count = count.saturating_add(1);
            let mut response = match *method {
                Method::GET => {
                    respond("text/plain; charset=utf-8", format!("You have been here {}\n", visits(count)))
                }
                _ => back(),
            };
            if let Ok(update) = HeaderValue::from_str(&format!("{{\"count\":{count}}}")) {
                response.headers_mut().insert("x-session-update", update);
            }
            response
        }
        (&Method::POST, "/logout") => {
            let mut response = back();
            response.headers_mut().insert("x-session-control", HeaderValue::from_static("destroy"));
            response
        }
        _ => {
            let mut response = respond(
                "text/plain; charset=utf-8",
                "There is only /, /count and POST /logout.\n".to_owned(),
            );
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn respond(content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

/// After a form: to the page, so that a reload does not send the form again.
fn back() -> Response<Full<Bytes>> {
    let mut response = respond("text/plain; charset=utf-8", "Done.\n".to_owned());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    response
}

fn visits(count: u64) -> String {
    if count == 1 { "1 time".to_owned() } else { format!("{count} times") }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn ask(app: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(app).unwrap();
        write!(stream, "{head}\r\nHost: app\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn counts_shows_and_logs_out_by_headers_alone() {
        let app = start().unwrap();
        let first = ask(app, "GET /count HTTP/1.1");
        assert!(
            first.contains("x-session-update: {\"count\":1}")
                && first.ends_with("You have been here 1 time\n"),
            "{first}"
        );
        let third = ask(app, "GET /count HTTP/1.1\r\nX-Session: {\"count\":2}");
        assert!(
            third.contains("x-session-update: {\"count\":3}") && third.ends_with("here 3 times\n"),
            "{third}"
        );
        let page = ask(app, "GET / HTTP/1.1\r\nX-Session: {\"count\":7,\"x\":\"<b>\"}");
        assert!(
            page.contains(">7 times<") && page.contains("&lt;b&gt;") && !page.contains("x-session-update"),
            "{page}"
        );
        let form = ask(app, "POST /count HTTP/1.1\r\nContent-Length: 0\r\nX-Session: {}");
        assert!(
            form.starts_with("HTTP/1.1 303") && form.contains("x-session-update: {\"count\":1}"),
            "{form}"
        );
        let out = ask(app, "POST /logout HTTP/1.1\r\nContent-Length: 0");
        assert!(out.starts_with("HTTP/1.1 303") && out.contains("x-session-control: destroy"), "{out}");
        assert!(ask(app, "GET /other HTTP/1.1").starts_with("HTTP/1.1 404"));
    }
}
