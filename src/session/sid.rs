//! The session id: 24 random bytes as base64url (express-session's `uid-safe`), or whatever other software signed.
//!
//! A sid is a bearer secret. `Debug` and `Display` show a short fingerprint only; [`Sid::as_str`] is the sid itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// A session id. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(Arc<str>);

impl Sid {
    /// A new sid from 24 bytes of the system's random source, 32 characters long.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 24];
        getrandom::fill(&mut bytes)?;
        let mut text = [0_u8; 32];
        // 24 bytes are exactly 32 characters, so the buffer always fits.
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).unwrap_or(0);
        Ok(Self(String::from_utf8_lossy(&text[..written]).into()))
    }

    /// A sid that other software made; any text but the empty one.
    pub fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// The sid itself: a secret, never to be logged.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 10 hex digits of SHA-256: enough to follow a session through a log, useless to a thief.
    pub fn fingerprint(&self) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digest = Sha256::digest(self.0.as_bytes());
        let digits = digest.iter().take(5).flat_map(|byte| [byte >> 4, byte & 15]);
        digits.map(|digit| char::from(HEX[usize::from(digit)])).collect()
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_sids_have_the_shape_of_uid_safe_and_differ() {
        let one = Sid::random().unwrap();
        let two = Sid::random().unwrap();
        assert_eq!(one.as_str().len(), 32);
        assert!(one.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_ne!(one, two);
    }

    #[test]
    fn a_sid_is_never_printed() {
        let sid = Sid::from_text("a-very-secret-sid").unwrap();
        assert!(!format!("{sid} {sid:?}").contains("secret"));
        assert_eq!(sid.fingerprint().len(), 10);
        assert!(Sid::from_text("").is_none());
    }
}
