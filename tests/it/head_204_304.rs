//! Responses without a body: they save and set cookies like any other, and leave the connection usable.

use crate::support::app::App;
use crate::support::sidecar::Setup;
use serde_json::json;

#[test]
fn head_204_and_304_save_and_set_cookies_like_200() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)] {
        let mut browser = sidecar.browser();
        let said = [
            ("Say-Status", &*status.to_string()),
            ("Say-X-Session-Update", "{\"a\":1}"),
            ("Say-ETag", "\"e\""),
        ];
        let response = browser.ask(method, "/", &said);
        assert_eq!((response.status, response.body.len()), (status, 0), "{method} {status}");
        assert_eq!(response.header("etag"), Some("\"e\""), "{method} {status}");
        assert!(response.cookie().is_some(), "{method} {status}");
        assert_eq!(browser.session(), json!({"a": 1}), "{method} {status}");
    }
}

#[test]
fn a_response_without_a_body_leaves_the_connection_usable() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304"), ("GET", "200")] {
        assert_eq!(client.ask(method, "/", &[("Say-Status", status)]).status.to_string(), status);
    }
    assert_eq!(app.connections(), 1);
}

#[test]
fn head_keeps_the_length_of_what_get_would_send() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let response = sidecar.client().ask("HEAD", "/", &[]);
    assert_eq!(response.header("content-length"), Some("2"), "{response:?}");
}
