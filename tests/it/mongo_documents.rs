//! The document in MongoDB is connect-mongo's (contract §5). The real connect-mongo is asked in `tests/compat`.

use crate::support::app::App;
use crate::support::mongo::Database;
use crate::support::sidecar::Setup;
use crate::support::ticket;
use bson::{Bson, DateTime, doc};
use serde_json::json;
use std::time::{Duration, SystemTime};

fn in_an_hour() -> DateTime {
    DateTime::from_system_time(SystemTime::now() + Duration::from_secs(3600))
}

#[test]
fn a_save_writes_id_session_text_and_expires() {
    let (app, database) = (App::parrot(), Database::fresh());
    let sidecar = Setup::before(&app).store(&database.store()).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"z":1,"a":{"b":[true,null]}}"#)]);
    let sid = ticket::sid_of(&browser.jar["connect.sid"]);
    let document = database.find(&sid).unwrap();
    assert_eq!(document.keys().collect::<Vec<_>>(), ["_id", "expires", "session"]);
    assert!(matches!(document.get("expires"), Some(Bson::DateTime(_))), "{document}");
    let text = document.get_str("session").unwrap();
    assert_eq!(
        text,
        r#"{"cookie":{"originalMaxAge":null,"expires":null,"secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"z":1,"a":{"b":[true,null]}}"#
    );
}

#[test]
fn a_document_of_either_form_is_read() {
    let (app, database) = (App::parrot(), Database::fresh());
    let sidecar = Setup::before(&app).store(&database.store()).start();
    let text = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"n":1}"#;
    database.insert(doc! { "_id": "text", "expires": in_an_hour(), "session": text });
    database.insert(
        doc! { "_id": "object", "expires": in_an_hour(), "session": { "cookie": { "path": "/" }, "n": 1 } },
    );
    database.insert(doc! { "_id": "without-expires", "session": text });
    for sid in ["text", "object", "without-expires"] {
        sidecar.client().get("/", &[("Cookie", &ticket::cookie(sid, ticket::SECRET))]);
        assert_eq!(app.last().session(), json!({"n": 1}), "{sid}");
    }
}

#[test]
fn what_is_no_session_any_more_is_not_served() {
    let (app, database) = (App::parrot(), Database::fresh());
    let sidecar =
        Setup::before(&app).store(&format!("{}\nauto_remove = \"disabled\"", database.store())).start();
    let text = r#"{"cookie":{"path":"/"},"n":1}"#;
    database.insert(doc! { "_id": "expired", "expires": DateTime::from_millis(1), "session": text });
    database.insert(doc! { "_id": "no-date", "expires": "2099-01-01", "session": text });
    for sid in ["expired", "no-date"] {
        sidecar.client().get("/", &[("Cookie", &ticket::cookie(sid, ticket::SECRET))]);
        assert_eq!(app.last().header("x-session-status"), Some("expired"), "{sid}");
    }
}

#[test]
fn an_unreadable_document_is_served_as_empty_and_never_overwritten() {
    let (app, database) = (App::parrot(), Database::fresh());
    let sidecar = Setup::before(&app).store(&database.store()).start();
    let unreadable = doc! { "_id": "broken", "expires": in_an_hour(), "session": "{\"cookie\":" };
    database.insert(unreadable.clone());
    let cookie = ticket::cookie("broken", ticket::SECRET);
    let response = sidecar.client().get("/", &[("Cookie", &cookie), ("Say-X-Session-Update", "{\"a\":1}")]);
    assert_eq!((response.text().as_str(), response.cookie()), ("{}", None));
    assert_eq!(database.find("broken"), Some(unreadable));
    assert_eq!(database.count(), 1);
    sidecar.logged(&["unreadable"]);
}

#[test]
fn destroy_and_regenerate_delete_the_old_document() {
    let (app, database) = (App::parrot(), Database::fresh());
    let sidecar = Setup::before(&app).store(&database.store()).start();
    let mut browser = sidecar.browser();
    browser.say(&[("X-Session-Update", r#"{"a":1}"#)]);
    let old = ticket::sid_of(&browser.jar["connect.sid"]);
    browser.say(&[("X-Session-Control", "regenerate")]);
    assert_eq!((database.find(&old), database.count()), (None, 1));
    browser.say(&[("X-Session-Control", "destroy")]);
    assert_eq!(database.count(), 0);
}

#[test]
fn what_an_update_or_a_new_sid_leaves_alone_keeps_its_bson_type() {
    let (app, database) = (App::parrot(), Database::fresh());
    let sidecar = Setup::before(&app).store(&format!("{}\nstringify = false", database.store())).start();
    let kept = doc! {
        "when": DateTime::from_millis(1_700_000_000_000),
        "id": bson::oid::ObjectId::new(),
        "long": 5_i64,
        "list": [DateTime::from_millis(1)],
        "deep": { "when": DateTime::from_millis(2), "n": 1 },
    };
    let mut session = doc! { "cookie": { "path": "/" } };
    session.extend(kept.clone());
    database.insert(doc! { "_id": "typed", "expires": in_an_hour(), "session": session });
    let cookie = ticket::cookie("typed", ticket::SECRET);
    let update = r#"{"k":1,"deep":{"n":2}}"#;
    let response = sidecar.client().get("/", &[("Cookie", &cookie), ("Say-X-Session-Update", update)]);
    assert_eq!(response.status, 200, "{response:?}");
    let check = |sid: &str, n: i32| {
        let stored = database.find(sid).unwrap();
        let stored = stored.get_document("session").unwrap();
        for key in ["when", "id", "long", "list"] {
            assert_eq!(stored.get(key), kept.get(key), "{key}");
        }
        let deep = doc! { "when": DateTime::from_millis(2), "n": n };
        assert_eq!(stored.get_document("deep").unwrap(), &deep);
        assert_eq!(stored.get("k"), Some(&Bson::Int32(1)));
    };
    check("typed", 2);
    let said = [
        ("Cookie", &*cookie),
        ("Say-X-Session-Control", "regenerate"),
        ("Say-X-Session-Update", r#"{"deep":{"n":3}}"#),
    ];
    let response = sidecar.client().get("/", &said);
    let pair = response.cookie().unwrap().split(';').next().unwrap();
    check(&ticket::sid_of(pair.strip_prefix("connect.sid=").unwrap()), 3);
}

#[test]
fn an_update_that_bson_cannot_hold_is_the_apps_fault() {
    let (app, database) = (App::parrot(), Database::fresh());
    let sidecar = Setup::before(&app).store(&format!("{}\nstringify = false", database.store())).start();
    let response = sidecar.browser().say(&[("X-Session-Update", "{\"a\\u0000b\":1}")]);
    assert_eq!((response.status, response.header("retry-after")), (502, None));
    assert_eq!(database.count(), 0);
}

#[test]
fn the_session_text_is_left_alone_by_a_touch() {
    let (app, database) = (App::parrot(), Database::fresh());
    let sidecar = Setup::before(&app).store(&database.store()).start();
    let expires = in_an_hour();
    let text =
        r#"{ "cookie": {"originalMaxAge": null, "expires": null, "path": "/elsewhere"}, "n": 1.0, "n": 2 }"#;
    database.insert(doc! { "_id": "touched", "expires": expires, "session": text, "ours": 1 });
    sidecar.client().get("/", &[("Cookie", &ticket::cookie("touched", ticket::SECRET))]);
    assert_eq!(app.last().session(), json!({"n": 2}));
    let after = database.find("touched").unwrap();
    assert_eq!((after.get_str("session").unwrap(), after.get_i32("ours").unwrap()), (text, 1));
    assert!(*after.get_datetime("expires").unwrap() > expires, "{after}");
}
