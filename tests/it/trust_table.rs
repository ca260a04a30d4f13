//! Every row of a table that the real Express 5 and express-session wrote (`tests/compat/generate-trust.mjs`).

use cloakroom::headers::forwarded::{ClientAddr, Trust, TrustSetting, session_secure};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::net::IpAddr;

const TABLE: &str = include_str!("../fixtures/trust-proxy/express-5.jsonl");

#[test]
fn every_row_is_answered_as_express_answers_it() {
    let (mut rows, mut refused, mut forwarded) = (0, 0, 0);
    for (index, line) in TABLE.lines().enumerate() {
        let row: Value = serde_json::from_str(line).unwrap();
        let number = index + 1;
        rows += 1;
        match (Trust::new(setting(&row["trust"])), row["error"].as_u64()) {
            (Err((bad, _)), Some(want)) => {
                assert_eq!(u64::try_from(bad).unwrap(), want, "row {number}: {line}");
                refused += 1;
            }
            (Ok(trust), None) => forwarded += usize::from(check(&trust, &row, number)),
            (answer, want) => panic!("row {number}: {answer:?}, Express: {want:?}: {line}"),
        }
    }
    assert!(rows >= 1000, "{rows} rows");
    assert!(refused >= 50, "{refused} refused settings");
    assert!(forwarded >= 300, "{forwarded} rows name somebody other than the peer");
}

/// Checks one row; whether `X-Forwarded-For` named the client.
fn check(trust: &Trust, row: &Value, number: usize) -> bool {
    let headers = headers(&row["headers"]);
    let peer: Option<IpAddr> = row["peer"].as_str().map(|text| text.parse().unwrap());
    let tls = row["tls"].as_bool().unwrap();
    let client = trust.resolve(peer, tls, &headers);

    match (&client.addr, row["ip"].as_str()) {
        (ClientAddr::Unknown, None) => {}
        (ClientAddr::Peer(ip), Some(_)) => {
            assert_eq!((Some(*ip), &row["ip"]), (peer, &row["peer"]), "row {number}: {row}");
        }
        (ClientAddr::Forwarded(item), Some(want)) => {
            assert_eq!(item.as_bytes(), latin1(want), "row {number}: {row}");
        }
        (addr, want) => panic!("row {number}: {addr:?}, Express: {want:?}: {row}"),
    }
    let protocol = latin1(row["protocol"].as_str().unwrap());
    assert_eq!(client.proto.as_bytes(), protocol, "row {number}: {row}");
    assert_eq!(client.secure, row["secure"].as_bool().unwrap(), "row {number}: {row}");
    let host = client.host.as_ref().map(|host| host.as_bytes().to_vec());
    assert_eq!(host, row["host"].as_str().map(latin1), "row {number}: {row}");
    for (name, proxy) in [("unset", None), ("true", Some(true)), ("false", Some(false))] {
        let secure = session_secure(proxy, tls, &client, &headers);
        assert_eq!(secure, row["session"][name].as_bool().unwrap(), "row {number}, proxy {name}: {row}");
    }
    matches!(client.addr, ClientAddr::Forwarded(_))
}

fn setting(value: &Value) -> TrustSetting {
    match value {
        Value::Bool(true) => TrustSetting::All,
        Value::Bool(false) => TrustSetting::None,
        Value::Number(hops) => TrustSetting::Hops(hops.as_u64().unwrap().try_into().unwrap()),
        Value::Array(items) => {
            TrustSetting::List(items.iter().map(|item| item.as_str().unwrap().to_owned()).collect())
        }
        other => panic!("no setting: {other}"),
    }
}

fn headers(lines: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.as_array().unwrap() {
        let name: HeaderName = line[0].as_str().unwrap().parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(&latin1(line[1].as_str().unwrap())).unwrap());
    }
    headers
}

/// Node shows bytes as Latin-1.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect()
}
