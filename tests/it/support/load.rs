//! Clients that never pause: kept connections, new ones, HTTP/2, a WebSocket, each with a session of its own that must not be lost.
//! They stop at the first request that fails, and say which.

use super::app::{App, Reply, Request};
use super::client::{Client, Response};
use super::h2::H2Client;
use super::ticket::sid_of_any;
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

/// An app for it: answers its name and the session it was shown, and echoes what comes through a WebSocket.
pub(crate) fn app(name: &'static str) -> App {
    App::start(move |request| match request.header("upgrade") {
        None => answer(name, request),
        Some(_) => Reply::take_over(|wire| {
            wire.get_mut().write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            loop {
                let bytes = wire.fill_buf()?.to_vec();
                if bytes.is_empty() {
                    return Ok(());
                }
                wire.consume(bytes.len());
                wire.get_mut().write_all(&bytes)?;
            }
        }),
    })
}

fn answer(name: &str, request: &Request) -> Reply {
    let session = request.session();
    let reply = Reply::ok(format!("{name} {session}"));
    match session["user"].as_str() {
        None => reply.header("X-Session-Update", "{\"user\":\"known\"}"),
        Some(_) => reply,
    }
}

/// Running clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    served: AtomicUsize,
    /// The names of the apps that answered.
    apps: Mutex<BTreeSet<String>>,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Starts them; `kinds`: which.
    pub(crate) fn start(address: SocketAddr, kinds: &[Kind]) -> Self {
        let shared = Arc::<Shared>::default();
        let start = |kind: &Kind| {
            let (shared, kind) = (Arc::clone(&shared), *kind);
            spawn(move || {
                if let Err(why) = shared.run(address, kind) {
                    shared.failures.lock().unwrap().push(format!("{kind:?}: {why}"));
                }
            })
        };
        let threads = kinds.iter().map(start).collect();
        Self { shared, threads }
    }

    /// Requests answered so far.
    pub(crate) fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Has a request failed?
    pub(crate) fn has_failed(&self) -> bool {
        !self.shared.failures.lock().unwrap().is_empty()
    }

    /// Ends them; panics when a request failed. How many were answered, and by which apps.
    #[track_caller]
    pub(crate) fn stop(self) -> (usize, Vec<String>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let failures = self.shared.failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:#?}");
        let apps = self.shared.apps.lock().unwrap().iter().cloned().collect();
        (self.shared.served.load(Ordering::Relaxed), apps)
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// HTTP/1.1, as long as the connection is kept; a new one only after `Connection: close`.
    Kept,
    /// A connection for each request.
    New,
    /// HTTP/2; a new connection only after GOAWAY.
    Http2,
    /// One tunnel.
    WebSocket,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn run(&self, address: SocketAddr, kind: Kind) -> Result<(), String> {
        let mut ticket = Ticket::default();
        match kind {
            Kind::Kept => {
                let mut client = Client::connect(address);
                while self.goes_on() {
                    let response = ticket.ask(&mut client)?;
                    self.judge(&response, &mut ticket)?;
                    if response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
                    {
                        client = Client::connect(address);
                    }
                }
            }
            Kind::New => {
                while self.goes_on() {
                    let response = ticket.ask(&mut Client::connect(address))?;
                    self.judge(&response, &mut ticket)?;
                }
            }
            Kind::Http2 => {
                let mut client = H2Client::connect(address);
                while self.goes_on() {
                    match client.try_ask("GET", "/", &ticket.headers()) {
                        Ok(response) => self.judge(&response, &mut ticket)?,
                        // GOAWAY came first: the request was not sent, or is one that the server says it has not looked at.
                        Err(error) if is_unseen(&error) => client = H2Client::connect(address),
                        Err(error) => return Err(format!("{error:?}")),
                    }
                }
            }
            Kind::WebSocket => self.echo(address)?,
        }
        Ok(())
    }

    fn echo(&self, address: SocketAddr) -> Result<(), String> {
        let mut client = Client::connect(address);
        client.send(
            "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        if client.receive().status != 101 {
            return Err("no tunnel".into());
        }
        for turn in 0_u32.. {
            if !self.goes_on() {
                break;
            }
            let message = turn.to_be_bytes();
            client.try_send(message).map_err(|error| error.to_string())?;
            let echoed = client.try_read_exactly(4).map_err(|error| error.to_string())?;
            if echoed != message {
                return Err(format!("sent {message:?}, got {echoed:?}"));
            }
            self.served.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn judge(&self, response: &Response, ticket: &mut Ticket) -> Result<(), String> {
        let text = response.text();
        let Some((app, session)) =
            text.split_once(' ').filter(|_| response.status == 200 && response.complete)
        else {
            return Err(format!("{response:?}"));
        };
        if ticket.cookie.is_some() && session != "{\"user\":\"known\"}" {
            return Err(format!("logged out: {response:?}"));
        }
        if let Some(cookie) = response.cookie() {
            let pair = cookie.split(';').next().unwrap_or_default().to_owned();
            let sid = sid_of_any(&pair);
            if ticket.sid.get_or_insert_with(|| sid.clone()) != &sid {
                return Err(format!("another session: {response:?}"));
            }
            ticket.cookie = Some(pair);
        }
        self.apps.lock().unwrap().insert(app.to_owned());
        self.served.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What a client carries.
#[derive(Default)]
struct Ticket {
    cookie: Option<String>,
    sid: Option<String>,
}

impl Ticket {
    fn headers(&self) -> Vec<(&str, &str)> {
        self.cookie.iter().map(|cookie| ("Cookie", cookie.as_str())).collect()
    }

    fn ask(&self, client: &mut Client) -> Result<Response, String> {
        let cookie = self.cookie.as_ref().map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        client
            .try_send(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{cookie}\r\n"))
            .map_err(|error| error.to_string())?;
        client
            .try_receive("GET")
            .map_err(|error| error.to_string())?
            .ok_or_else(|| "the connection ended before an answer".to_owned())
    }
}

/// RFC 9113 §6.8: what an orderly end of the connection left untouched may be sent again.
fn is_unseen(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    let goes = |error: &h2::Error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.is_canceled() || cause.is_some_and(goes)
}
