//! The main job in one go, on real parts: a client over TLS and HTTP/2, an app that knows two headers, the session in MongoDB.

use crate::support::app::{App, Reply};
use crate::support::client::Response;
use crate::support::h2::H2Client;
use crate::support::mongo::Database;
use crate::support::sidecar::Setup;
use crate::support::ticket;

const ROUTES: &str = r#"
[[route]]
path = "/"
upstream = "app"
[[route]]
path = "/account"
upstream = "app"
require = ["user.id"]
otherwise = { redirect = "/login?next={uri}" }
claims = { "X-User" = "user.name" }
"#;

/// A shop: no session code, only the two headers.
fn shop() -> App {
    App::start(|request| match request.target() {
        "/login" => Reply::ok("welcome")
            .header("X-Session-Control", "regenerate")
            .header("X-Session-Update", r#"{"user":{"id":7,"name":"zoe"}}"#),
        "/add" => {
            let count = request.session()["cart"].as_u64().unwrap_or(0) + 1;
            Reply::ok(count.to_string()).header("X-Session-Update", &format!("{{\"cart\":{count}}}"))
        }
        "/account" => Reply::ok(format!("hello {}", request.header("x-user").unwrap())),
        "/logout" => Reply::ok("bye").header("X-Session-Control", "destroy"),
        _ => Reply::ok("shop"),
    })
}

#[test]
fn from_the_first_visit_to_the_logout() {
    let (app, database) = (shop(), Database::fresh());
    let sidecar = Setup::before(&app)
        .listener("tls = { self_signed = true }")
        .cookie("secure = true\nmax_age = \"14d\"")
        .store(&database.store())
        .routes(ROUTES)
        .start();
    let mut h2 = H2Client::connect_tls(sidecar.address());
    let mut cookie = String::new();
    let mut visit = |path: &str, cookie: &mut String| -> Response {
        let response = h2.ask("GET", path, &[("cookie", cookie.as_str())]);
        if let Some(line) = response.cookie() {
            *cookie = line.split(';').next().unwrap().to_owned();
        }
        response
    };
    let sid = |cookie: &str| ticket::sid_of(cookie.strip_prefix("connect.sid=").unwrap());

    assert_eq!(visit("/account", &mut cookie).header("location"), Some("/login?next=%2Faccount"));
    assert_eq!(visit("/add", &mut cookie).text(), "1");
    let anonymous = sid(&cookie);
    let response = visit("/login", &mut cookie);
    assert!(response.cookie().unwrap().ends_with("; HttpOnly; Secure; SameSite=Lax"), "{response:?}");
    assert_ne!(sid(&cookie), anonymous, "a login is a new sid");
    assert_eq!(visit("/account", &mut cookie).text(), "hello zoe");
    for count in 2..=10 {
        assert_eq!(visit("/add", &mut cookie).text(), count.to_string());
    }
    let document = database.find(&sid(&cookie)).unwrap();
    let stored = document.get_str("session").unwrap();
    assert!(stored.ends_with(r#""cart":10,"user":{"id":7,"name":"zoe"}}"#), "{stored}");
    assert_eq!(database.count(), 1);
    let mut old = cookie.clone();
    assert!(visit("/logout", &mut cookie).clears_cookie());
    assert_eq!(database.count(), 0);
    assert_eq!(visit("/account", &mut old).status, 303, "a logout is final");
    sidecar.stop();
}
