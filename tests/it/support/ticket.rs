//! The session cookie, made and read by code that is not the sidecar's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The secret that every test sidecar signs with.
pub(crate) const SECRET: &str = "the-secret-of-the-tests-0123456789abcdef";

/// `sid.mac` as cookie-signature makes it.
pub(crate) fn sign(sid: &str, secret: &str) -> String {
    format!("{sid}.{}", STANDARD_NO_PAD.encode(hmac(secret.as_bytes(), sid.as_bytes())))
}

/// `connect.sid=s%3A…`, the pair a browser would send.
pub(crate) fn cookie(sid: &str, secret: &str) -> String {
    format!("connect.sid={}", encode(&format!("s:{}", sign(sid, secret))))
}

/// The sid in a cookie's value; panics unless it is signed with [`SECRET`].
#[track_caller]
pub(crate) fn sid_of(value: &str) -> String {
    let text = value.replace("%3A", ":").replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    let signed = text.strip_prefix("s:").expect("a signed cookie");
    let (sid, _) = signed.rsplit_once('.').unwrap();
    assert_eq!(signed, sign(sid, SECRET));
    sid.to_owned()
}

/// The sid in `connect.sid=s%3A…`, whoever signed it.
pub(crate) fn sid_of_any(pair: &str) -> String {
    let text = pair.strip_prefix("connect.sid=s%3A").expect("a signed cookie");
    text.rsplit_once('.').unwrap().0.to_owned()
}

pub(crate) fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// JavaScript's `encodeURIComponent` for the characters that occur in cookies.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
