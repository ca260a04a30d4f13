//! npm `cookie-signature`: `<sid>.<mac>`, mac = HMAC-SHA256(secret, sid) in standard base64 without padding (contract §1).
//!
//! Must not know: cookies, percent-encoding, the `s:` in front. Tests: below, and `tests/it/cookie_table.rs` against the package.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;

/// Length of a mac as text: 32 bytes in base64 without padding.
const MAC_TEXT: usize = 43;

/// The secrets of a session cookie: the first signs, every one verifies. Cheap to clone; `Debug` shows their number only.
#[derive(Clone)]
pub struct KeyRing(Arc<[Hmac<Sha256>]>);

impl KeyRing {
    /// Prepares the secrets, each any bytes. `None` without a secret, and for an empty one, with which anybody could sign.
    pub fn new(secrets: Vec<Vec<u8>>) -> Option<Self> {
        if secrets.is_empty() || secrets.iter().any(Vec::is_empty) {
            return None;
        }
        let keys: Option<_> = secrets.iter().map(|secret| Hmac::new_from_slice(secret).ok()).collect();
        keys.map(Self)
    }

    /// Number of secrets, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a key ring is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends `<sid>.<mac>` signed with the first secret.
    pub fn sign(&self, sid: &str, out: &mut String) {
        out.push_str(sid);
        out.push('.');
        STANDARD_NO_PAD.encode_string(keyed(&self.0[0], sid).finalize().into_bytes(), out);
    }

    /// The sid of `<sid>.<mac>` (what follows `s:`) and the index of the secret that signed it. The sid ends at the last dot.
    /// `None` when no secret did, and for an empty sid, which express-session treats as no session.
    pub fn verify<'a>(&self, value: &'a str) -> Option<(&'a str, usize)> {
        let (sid, mac) = value.rsplit_once('.')?;
        if sid.is_empty() || mac.len() != MAC_TEXT {
            return None;
        }
        // The package compares texts. This decoder takes the one canonical text of each mac only (no padding, no URL-safe letters,
        // no other trailing bits), so comparing bytes, in constant time, decides the same.
        let mac = STANDARD_NO_PAD.decode(mac).ok()?;
        let key = self.0.iter().position(|key| keyed(key, sid).verify_slice(&mac).is_ok())?;
        Some((sid, key))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} secrets)", self.len())
    }
}

fn keyed(key: &Hmac<Sha256>, sid: &str) -> Hmac<Sha256> {
    key.clone().chain_update(sid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(secrets: &[&str]) -> KeyRing {
        KeyRing::new(secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect()).unwrap()
    }

    fn signed(keys: &KeyRing, sid: &str) -> String {
        let mut out = String::new();
        keys.sign(sid, &mut out);
        out
    }

    #[test]
    fn the_example_of_cookie_signature() {
        let keys = ring(&["tobiiscool"]);
        let text = "hello.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI";
        assert_eq!(signed(&keys, "hello"), text);
        assert_eq!(keys.verify(text), Some(("hello", 0)));
    }

    #[test]
    fn only_the_canonical_text_of_a_mac_counts() {
        let keys = ring(&["tobiiscool"]);
        for forged in [
            "",
            ".",
            "hello",
            "hello.",
            "hello.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI=",
            "hello.DGDUkGlIkCzPz-C0B064FNgHdEjox7ch8tOBGslZ5QI",
            "hello.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QJ",
            "hello.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5Q",
            "hellp.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI",
            "hello.DGDUkGlIkCzPz C0B064FNgHdEjox7ch8tOBGslZ5QI",
            "DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI",
        ] {
            assert_eq!(keys.verify(forged), None, "{forged}");
        }
        let empty = signed(&keys, "");
        assert_eq!(keys.verify(&empty), None);
    }

    #[test]
    fn a_ring_needs_real_secrets_and_hides_them() {
        assert!(KeyRing::new(vec![]).is_none());
        assert!(KeyRing::new(vec![b"a".to_vec(), vec![]]).is_none());
        assert_eq!(format!("{:?}", ring(&["hunter2", "old"])), "KeyRing(2 secrets)");
    }

    proptest! {
        #[test]
        fn every_secret_verifies_and_no_other(sid in "\\PC{1,20}|[a.]{1,6}", secrets in prop::collection::hash_set("\\PC{1,80}", 3)) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let keys = ring(&secrets);
            for (index, secret) in secrets.iter().enumerate() {
                let value = signed(&ring(&[secret]), &sid);
                prop_assert_eq!(keys.verify(&value), Some((sid.as_str(), index)));
                let others: Vec<&str> = secrets.iter().filter(|other| *other != secret).copied().collect();
                prop_assert_eq!(ring(&others).verify(&value), None);
            }
        }

        #[test]
        fn any_change_is_noticed(sid in "[a-z.]{1,8}", at in any::<prop::sample::Index>(), with in "[a-zA-Z0-9+/._=-]") {
            let keys = ring(&["k"]);
            let value = signed(&keys, &sid);
            let at = at.index(value.len());
            let mut changed = value.clone();
            changed.replace_range(at..=at, &with);
            prop_assert_eq!(keys.verify(&changed).is_some(), changed == value);
        }
    }
}
