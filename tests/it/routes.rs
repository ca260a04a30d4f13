//! Routes by host and path, and what a route may demand of a session (contract §7).

use crate::support::app::App;
use crate::support::sidecar::Setup;
use serde_json::json;

/// Which of the upstreams a request went to.
fn reached(apps: &[&App]) -> Vec<usize> {
    apps.iter().map(|app| app.seen().len()).collect()
}

#[test]
fn host_and_longest_prefix_choose_and_prefixes_end_at_segments() {
    let (app, api, wild) = (App::parrot(), App::parrot(), App::parrot());
    let routes = format!(
        "[upstream.api]\nservers = [\"http://{}\"]\n[upstream.wild]\nservers = [\"http://{}\"]\n\
         [[route]]\npath = \"/\"\nupstream = \"app\"\n\
         [[route]]\npath = \"/api\"\nupstream = \"api\"\n\
         [[route]]\nhost = \"*.wild.test\"\npath = \"/\"\nupstream = \"wild\"\n",
        api.address(),
        wild.address()
    );
    let sidecar = Setup::before(&app).routes(&routes).start();
    let cases = [
        ("a.test", "/", [1, 0, 0]),
        ("a.test", "/apiary", [1, 0, 0]),
        ("a.test", "/api", [0, 1, 0]),
        ("a.test", "/api/x", [0, 1, 0]),
        ("a.test", "/api?q", [0, 1, 0]),
        ("a.test", "/x/../y", [1, 0, 0]),
        ("one.wild.test", "/api-like", [0, 0, 1]),
        ("ONE.wild.test:8080", "/", [0, 0, 1]),
        ("wild.test", "/", [1, 0, 0]),
        ("evilwild.test", "/", [1, 0, 0]),
    ];
    for (host, path, expected) in cases {
        let before = reached(&[&app, &api, &wild]);
        assert_eq!(sidecar.client().get(path, &[("Host", host)]).status, 200, "{host}{path}");
        let after = reached(&[&app, &api, &wild]);
        let hit: Vec<usize> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(hit, expected, "{host}{path}");
    }
}

#[test]
fn a_path_that_two_apps_could_read_differently_reaches_neither() {
    let (app, api) = (App::parrot(), App::parrot());
    let routes = format!(
        "[upstream.api]\nservers = [\"http://{}\"]\n[[route]]\npath = \"/\"\nupstream = \"app\"\n\
         [[route]]\npath = \"/api\"\nupstream = \"api\"\n",
        api.address()
    );
    let sidecar = Setup::before(&app).routes(&routes).start();
    for path in ["/x/../api/y", "/api/../x", "/../x", "/x/%2e%2e/api", "/api%2f..%2fx", "/a%00b"] {
        assert_eq!(sidecar.client().get(path, &[]).status, 400, "{path}");
    }
    assert_eq!(reached(&[&app, &api]), [0, 0]);
    // What has one meaning is not refused for its spelling.
    assert_eq!(sidecar.client().get("/x/../y/./z", &[]).status, 200);
    assert_eq!(app.last().target(), "/x/../y/./z");
}

#[test]
fn no_route_is_a_404() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).routes("[[route]]\npath = \"/only\"\nupstream = \"app\"\n").start();
    assert_eq!(sidecar.client().get("/only/x", &[]).status, 200);
    assert_eq!(sidecar.client().get("/", &[]).status, 404);
    assert_eq!(sidecar.client().get("/onlyx", &[]).status, 404);
}

#[test]
fn a_route_can_require_what_the_session_says() {
    let app = App::parrot();
    let routes = r#"
[[route]]
path = "/"
upstream = "app"
[[route]]
path = "/account"
upstream = "app"
require = ["user.id", "mfa"]
otherwise = { redirect = "/login?next={uri}" }
[[route]]
path = "/api"
upstream = "app"
require = ["user.id"]
otherwise = { status = 401 }
"#;
    let sidecar = Setup::before(&app).routes(routes).start();
    let mut browser = sidecar.browser();
    let response = browser.get("/account/x?a=b&c=%20d", &[]);
    assert_eq!(response.status, 303);
    assert_eq!(response.header("location"), Some("/login?next=%2Faccount%2Fx%3Fa%3Db%26c%3D%2520d"));
    assert_eq!(browser.get("/api", &[]).status, 401);
    assert!(app.seen().is_empty());
    browser.say(&[("X-Session-Update", r#"{"user":{"id":7}}"#)]);
    assert_eq!(browser.get("/account", &[]).status, 303);
    assert_eq!(browser.get("/api", &[]).status, 200);
    browser.say(&[("X-Session-Update", r#"{"mfa":true}"#)]);
    assert_eq!(browser.get("/account", &[]).status, 200);
}

#[test]
fn a_requirement_cannot_be_walked_around() {
    let app = App::parrot();
    let routes = "[[route]]\npath = \"/\"\nupstream = \"app\"\n\
                  [[route]]\npath = \"/account\"\nupstream = \"app\"\nrequire = [\"user\"]\notherwise = { status = 401 }\n";
    let sidecar = Setup::before(&app).routes(routes).start();
    for path in [
        "/account",
        "/account/",
        "/account?x",
        "/./account",
        "/x/../account",
        "/%61ccount",
        "/account/../account",
        "//account",
        "/x//../../account",
    ] {
        let status = sidecar.client().get(path, &[]).status;
        assert!(status == 401 || status == 400, "{path}: {status}");
    }
    assert!(app.seen().is_empty(), "{:?}", app.seen());
}

#[test]
fn fields_and_claims_show_the_app_what_it_needs_and_no_more() {
    let app = App::parrot();
    let routes = "[[route]]\npath = \"/\"\nupstream = \"app\"\nfields = [\"user.id\", \"cart.count\", \"absent\"]\n\
                  claims = { \"X-User\" = \"user.name\", \"X-Nobody\" = \"user.nobody\" }\n";
    let sidecar = Setup::before(&app).routes(routes).start();
    let mut browser = sidecar.browser();
    let data = r#"{"user":{"id":7,"name":"zoe","secret":1},"cart":{"count":2,"items":[1]},"other":1}"#;
    browser.say(&[("X-Session-Update", data)]);
    browser.get("/", &[("X-User", "forged"), ("X-Nobody", "forged")]);
    let request = app.last();
    assert_eq!(request.session(), json!({"user": {"id": 7}, "cart": {"count": 2}}));
    assert_eq!(request.header("x-user"), Some("zoe"));
    assert_eq!(request.header("x-nobody"), None);
    // What the app did not see is not lost by a merge.
    browser.say(&[("X-Session-Update", r#"{"cart":{"count":3}}"#)]);
    browser.get("/", &[]);
    assert_eq!(app.last().session(), json!({"user": {"id": 7}, "cart": {"count": 3}}));
}

#[test]
fn a_read_only_route_shows_the_session_and_saves_nothing() {
    let app = App::parrot();
    let routes = "[[route]]\npath = \"/\"\nupstream = \"app\"\n[[route]]\npath = \"/read\"\nupstream = \"app\"\nsession = \"read-only\"\n";
    let sidecar = Setup::before(&app).routes(routes).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    let response = browser.get("/read", &[("Say-X-Session-Update", r#"{"a":2}"#)]);
    assert_eq!(response.cookie(), None);
    assert!(response.headers.folded("x-session").is_empty());
    assert_eq!(app.last().session(), json!({"a": 1}));
    assert_eq!(browser.session(), json!({"a": 1}));
}
