//! Kept connections: what an app sent beyond its answer never reaches the next client, and one that died is nobody's failure.

use crate::support::app::{App, Reply};
use crate::support::eventually;
use crate::support::sidecar::Setup;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const EXTRA: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSTOLEN";

/// Two answers to one request, in one write: the second belongs to nobody.
#[test]
fn an_answer_too_many_is_thrown_away_with_its_connection() {
    let app = App::start(|_| {
        Reply::take_over(|wire| {
            let mut both = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine".to_vec();
            both.extend_from_slice(EXTRA);
            wire.get_mut().write_all(&both)?;
            // The connection stays open: a next request on it would find the second answer waiting.
            wire.fill_buf().map(drop)
        })
    });
    let sidecar = Setup::before(&app).start();
    for turn in 1..=50 {
        assert_eq!(sidecar.client().get("/", &[]).text(), "mine");
        assert_eq!(app.seen().len(), turn, "every request on a connection of its own");
    }
}

/// Bodies where there is none: what follows the head is an answer too many as well.
#[test]
fn a_body_that_must_not_be_is_thrown_away_with_its_connection() {
    let app = App::start(|request| {
        let head = match (request.method(), request.target()) {
            ("HEAD", _) => "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n",
            (_, "/204") => "HTTP/1.1 204 No Content\r\n\r\n",
            (_, "/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 43\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        let bytes = [head.as_bytes(), EXTRA].concat();
        Reply::take_over(move |wire| {
            wire.get_mut().write_all(&bytes)?;
            wire.fill_buf().map(drop)
        })
    });
    let sidecar = Setup::before(&app).start();
    for (method, target, status) in
        [("HEAD", "/", 200), ("GET", "/204", 204), ("GET", "/304", 304), ("GET", "/", 200)]
    {
        for _ in 0..10 {
            let answer = sidecar.client().ask(method, target, &[]);
            assert_eq!((answer.status, answer.text().as_str()), (status, ""), "{method} {target}");
        }
    }
    assert_eq!(app.seen().len(), 40, "every request on a connection of its own, and none sent twice");
}

/// The bytes come while the connection is kept.
#[test]
fn bytes_that_come_late_end_a_kept_connection() {
    let told = Arc::new(AtomicBool::new(false));
    let go = Arc::clone(&told);
    let app = App::start(move |_| {
        let go = Arc::clone(&go);
        Reply::take_over(move |wire| {
            wire.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")?;
            while !go.swap(false, Ordering::Relaxed) {
                std::thread::yield_now();
            }
            wire.get_mut().write_all(EXTRA)?;
            wire.fill_buf().map(drop)
        })
    });
    let sidecar = Setup::before(&app).start();
    for _ in 0..50 {
        assert_eq!(sidecar.client().get("/", &[]).text(), "mine");
        told.store(true, Ordering::Relaxed);
        eventually("the late bytes to be sent", || (!told.load(Ordering::Relaxed)).then_some(()));
        eventually("the connection to be closed for it", || (app.connections() == 0).then_some(()));
    }
}

/// The app closes each connection without having said so. By the time of the next request that is known, so even a POST is safe.
#[test]
fn a_post_survives_a_kept_connection_that_the_app_has_closed() {
    let app = App::start(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"));
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    for turn in 1..=100 {
        client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.receive().status, 200);
        assert_eq!(app.seen().len(), turn);
        eventually("the app to have closed", || (app.connections() == 0).then_some(()));
    }
}

/// The second request on a connection is read, and the connection closed without a word.
fn dies_under_the_second() -> App {
    App::start(|_| {
        Reply::take_over(|wire| {
            wire.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")?;
            wire.fill_buf().map(drop)
        })
    })
}

#[test]
fn a_get_survives_a_kept_connection_that_dies_under_it() {
    let app = dies_under_the_second();
    let sidecar = Setup::before(&app).upstream("retries = 0").start();
    let mut client = sidecar.client();
    for turn in 1..=20 {
        assert_eq!(client.get("/", &[]).status, 200);
        assert_eq!(app.seen().len(), turn);
    }
}

/// It may have been done: nobody but the client can know whether to ask again.
#[test]
fn a_post_that_may_have_arrived_is_a_502_and_not_repeated() {
    let app = dies_under_the_second();
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    let mut post = || {
        client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody");
        client.receive().status
    };
    assert_eq!([post(), post(), post()], [200, 502, 200]);
    assert_eq!(app.seen().len(), 2);
}
