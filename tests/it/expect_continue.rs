//! `Expect: 100-continue` is answered by the sidecar; the app is not asked to.

use crate::support::app::App;
use crate::support::sidecar::Setup;

#[test]
fn a_client_that_expects_100_gets_it() {
    let app = App::parrot();
    let sidecar = Setup::before(&app).start();
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.receive().status, 100);
    client.send("hello");
    assert_eq!(client.receive().status, 200);
    assert_eq!(app.last().body.bytes, b"hello");
    assert_eq!(app.last().header("expect"), None);
}
