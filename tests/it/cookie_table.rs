//! Cookies, signatures and JSON against golden tables that the real npm packages wrote (`tests/compat/generate-cookies.mjs`):
//! the house answers every row as they do, save where the contract says otherwise.

use cloakroom::session::cookie::{
    Fault, Presented, ResolvedAttributes, check, may_be_set, parse_first, read, render_clear_cookie,
    render_set_cookie, resolve, stored_attributes,
};
use cloakroom::session::json::{Json, compact_ascii, scan_object};
use cloakroom::session::lifecycle::{CookieOptions, Priority, SameSite, Secure};
use cloakroom::session::record::CookieAttributes;
use cloakroom::session::sid::Sid;
use cloakroom::session::signature::KeyRing;
use serde_json::Value;

/// The rows of one table; a truncated or emptied table is a failure of its own.
fn rows(table: &str, at_least: usize) -> Vec<Value> {
    let rows: Vec<Value> = table.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() >= at_least, "{} rows are too few", rows.len());
    rows
}

fn keys(row: &Value) -> KeyRing {
    let secrets = row["secrets"].as_array().unwrap();
    KeyRing::new(secrets.iter().map(|secret| secret.as_str().unwrap().into()).collect()).unwrap()
}

/// The bytes that Node showed as these characters.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
}

#[test]
fn cookie_headers_are_read_as_npm_cookie_and_express_session_read_them() {
    let (mut winners, mut deviations) = (0, 0);
    for row in rows(include_str!("../fixtures/cookies/cookie-0.7.2.jsonl"), 1000) {
        let (header, name) = (latin1(row["header"].as_str().unwrap()), row["name"].as_str().unwrap());
        assert_eq!(parse_first(&header, name).as_deref(), row["value"].as_str(), "{row}");

        let presented = read(|| [header.as_slice()], [name], &keys(&row));
        let expected = match (&row["winner"], row["count"].as_u64().unwrap()) {
            (Value::Null, 0) => Presented::None,
            (Value::Null, count) => Presented::Invalid {
                reason: if row["signed"] == true { Fault::Forged } else { Fault::Unsigned },
                count: usize::try_from(count).unwrap(),
            },
            (winner, _) => {
                let Presented::Valid(tickets) = &presented else { panic!("{row}: {presented:?}") };
                assert_eq!(tickets.first.sid.as_str(), winner["sid"].as_str().unwrap(), "{row}");
                assert_eq!(tickets.first.key as u64, winner["key"].as_u64().unwrap(), "{row}");
                presented.clone()
            }
        };
        assert_eq!(presented, expected, "{row}");
        // Crumbs mean what the joined line means.
        let crumbs = || header.split(|byte| *byte == b';');
        assert_eq!(read(crumbs, [name], &keys(&row)), expected, "{row}");
        winners += usize::from(!row["winner"].is_null());
        // Where express-session gives up at the first cookie of the name, the contract looks on.
        deviations += usize::from(row["express"].is_null() && !row["winner"].is_null());
    }
    assert!(
        winners >= 200 && deviations >= 20,
        "{winners} winners, {deviations} deviations: the table proves too little"
    );
}

#[test]
fn signatures_are_those_of_cookie_signature() {
    let mut genuine = 0;
    for row in rows(include_str!("../fixtures/cookies/cookie-signature-1.0.7.jsonl"), 1000) {
        let keys = keys(&row);
        let mut signed = String::new();
        keys.sign(row["sid"].as_str().unwrap(), &mut signed);
        assert_eq!(signed, row["signed"].as_str().unwrap(), "{row}");

        let ours = keys.verify(row["value"].as_str().unwrap());
        let theirs = row["unsigned"]
            .as_object()
            .map(|found| (found["sid"].as_str().unwrap(), found["key"].as_u64().unwrap()));
        // express-session drops an empty sid one step later.
        assert_eq!(
            ours.map(|(sid, key)| (sid, key as u64)),
            theirs.filter(|(sid, _)| !sid.is_empty()),
            "{row}"
        );
        genuine += usize::from(ours.is_some());
    }
    assert!(genuine >= 300, "{genuine} genuine signatures prove too little");
}

fn options(row: &Value) -> CookieOptions {
    let options = &row["options"];
    CookieOptions {
        path: options["path"].as_str().unwrap().to_owned(),
        domain: options["domain"].as_str().map(str::to_owned),
        http_only: options["httpOnly"].as_bool().unwrap(),
        secure: match options["secure"].as_bool() {
            Some(true) => Secure::Always,
            Some(false) => Secure::Never,
            None => Secure::Auto,
        },
        same_site: match options["sameSite"].as_str() {
            Some("lax") => SameSite::Lax,
            Some("strict") => SameSite::Strict,
            Some("none") => SameSite::None,
            Some("auto") => SameSite::Auto,
            other => {
                assert_eq!(other, None);
                SameSite::Unset
            }
        },
        partitioned: options["partitioned"].as_bool(),
        priority: options["priority"].as_str().map(|priority| match priority {
            "low" => Priority::Low,
            "medium" => Priority::Medium,
            _ => Priority::High,
        }),
        max_age: None,
    }
}

#[test]
fn set_cookie_is_byte_identical_to_express_session() {
    let mut set = 0;
    for row in rows(include_str!("../fixtures/cookies/express-session-1.19.0-set-cookie.jsonl"), 300) {
        let (options, secure_request) = (options(&row), row["secure_request"].as_bool().unwrap());
        let name = row["name"].as_str().unwrap();
        let attributes: ResolvedAttributes<'_> = resolve(&options, secure_request);
        if !name.starts_with("__Host-") {
            assert_eq!(check(name, &options), Ok(()), "{row}");
        }
        assert_eq!(may_be_set(&options, secure_request), !row["set_cookie"].is_null(), "{row}");
        if let Some(expected) = row["set_cookie"].as_str() {
            let sid = Sid::from_text(row["sid"].as_str().unwrap()).unwrap();
            let ours = render_set_cookie(name, &sid, &keys(&row), &attributes, row["expires"].as_i64());
            assert_eq!(ours.to_str().unwrap(), expected, "{row}");
            // What we set we read again.
            let pair = expected.split(';').next().unwrap();
            let Presented::Valid(tickets) = read(|| [pair.as_bytes()], [name], &keys(&row)) else {
                panic!("{row}")
            };
            assert_eq!((tickets.first.sid, tickets.first.key), (sid, 0), "{row}");
            set += 1;
        }
        assert_eq!(
            render_clear_cookie(name, &attributes).to_str().unwrap(),
            row["clear"].as_str().unwrap(),
            "{row}"
        );

        let stored = &row["stored"];
        let text = |key: &str| stored[key].as_str().map(str::to_owned);
        let expected = CookieAttributes {
            partitioned: stored["partitioned"].as_bool(),
            priority: text("priority"),
            secure: stored["secure"].as_bool(),
            http_only: stored["httpOnly"].as_bool().unwrap(),
            domain: text("domain"),
            path: text("path").unwrap(),
            same_site: text("sameSite"),
        };
        assert_eq!(stored_attributes(&options, secure_request), expected, "{row}");
    }
    assert!(set >= 200, "{set} cookies prove too little");
}

#[test]
fn json_is_read_and_written_as_node_does() {
    let (mut accepted, mut refused, mut objects, mut kept) = (0, 0, 0, 0);
    for row in rows(include_str!("../fixtures/cookies/json-node-20.jsonl"), 1500) {
        let text = row["text"].as_str().unwrap();
        let parsed = Json::parse(text, 64);
        let Some(expected) = row["out"].as_str() else {
            assert!(parsed.is_err() && scan_object(text, 64, |_| ()).is_err(), "{row}");
            refused += 1;
            continue;
        };
        let parsed = parsed.unwrap_or_else(|error| panic!("{error} {row}"));
        assert_eq!(parsed.to_text(), expected, "{row}");
        assert_eq!(Json::parse(expected, 64).as_ref(), Ok(&parsed), "{row}");

        let mut ascii = Vec::new();
        compact_ascii(text, &mut ascii);
        let ascii = String::from_utf8(ascii).unwrap();
        assert!(ascii.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{row}");
        assert_eq!(Json::parse(&ascii, 64).map(|json| json.to_text()).as_deref(), Ok(expected), "{row}");

        assert_eq!(scan_object(text, 64, |_| ()).is_ok(), matches!(parsed, Json::Object(_)), "{row}");
        if let Json::Object(_) = parsed {
            objects += 1;
            let shape = scan_object(&ascii, 64, |_| ()).unwrap();
            assert!(shape.ascii && shape.compact, "{row}");
        }
        accepted += 1;
        kept += usize::from(row["kept"] == true);
    }
    assert!(
        accepted >= 800 && refused >= 500 && objects >= 150 && kept >= 10,
        "{accepted} {refused} {objects} {kept}"
    );
}
