//! Sealed sessions: the text that connect-mongo 6 stores with its Web Crypto adapter, both ways, and kruptein's, which connect-mongo 4
//! to 6 store with the option `crypto`, for reading.
//!
//! `encoding(iv || AES-256-GCM(JSON) || tag)`, the key from PBKDF2-SHA-256: worked out once per secret, at start-up. Neither format ties a
//! text to its sid: who may write to the collection can still put one session in the place of another.
//! Must not know any store, nor what a session is. What is said of a text that cannot be opened never holds any of it.
//! Tests: here, beside each file, and `tests/it/store_conformance/sealed.rs` over texts that the real packages wrote.

mod der;
mod kruptein;
mod text;

pub(crate) use kruptein::{Kruptein, Locked};
pub(crate) use text::encode;

use super::{CryptoOptions, TextEncoding};
use crate::session::json::{DOCUMENT_DEPTH, Json};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;
use std::sync::Arc;

const TAG_LEN: usize = 16;

const WRONG: &str = "no secret of store.crypto opens it: sealed with another secret, salt or iterations, or changed or cut short since";
const KRUPTEIN: &str =
    "sealed by connect-mongo's `crypto` option (kruptein), and store.crypto.kruptein is not set";
const CONNECT_MONGO_3: &str = "sealed by the `secret` option of connect-mongo 3, which is not read";

/// The keys of one collection.
pub(crate) struct Seal {
    /// The first one seals, every one opens.
    keys: Vec<LessSafeKey>,
    encoding: TextEncoding,
    kruptein: Option<Arc<Kruptein>>,
}

/// A stored text, taken apart.
pub(crate) enum Opened {
    /// The session's JSON.
    Text(String),
    /// kruptein's, and the key is not at hand: some ten milliseconds of computing, which is nothing for a worker's thread.
    Locked(Locked),
}

impl Seal {
    /// Works out the keys: about a tenth of a second for each secret.
    ///
    /// # Errors
    /// A text for the operator.
    pub(crate) fn new(options: &CryptoOptions) -> Result<Self, String> {
        let key = |secret: &Vec<u8>| {
            let mut bytes = [0; 32];
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, options.iterations, &options.salt, secret, &mut bytes);
            UnboundKey::new(&AES_256_GCM, &bytes).map(LessSafeKey::new)
        };
        let keys: Result<Vec<_>, _> = options.secrets.iter().map(key).collect();
        Ok(Self {
            keys: keys.map_err(|_| "store.crypto: no key can be made of a secret".to_owned())?,
            encoding: options.encoding,
            kruptein: options.kruptein.as_ref().map(|options| Arc::new(Kruptein::new(options))),
        })
    }

    /// Seals with a fresh random IV: the same text becomes another one each time.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(crate) fn seal(&self, plain: &str) -> Result<String, String> {
        let mut iv = [0; NONCE_LEN];
        getrandom::fill(&mut iv).map_err(|_| "the system has no randomness".to_owned())?;
        self.seal_with(iv, plain)
    }

    fn seal_with(&self, iv: [u8; NONCE_LEN], plain: &str) -> Result<String, String> {
        let key = self.keys.first().ok_or("store.crypto has no secret")?;
        let mut out = Vec::with_capacity(NONCE_LEN + plain.len() + TAG_LEN);
        out.extend_from_slice(&iv);
        out.extend_from_slice(plain.as_bytes());
        let nonce = Nonce::assume_unique_for_key(iv);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[NONCE_LEN..])
            .map_err(|_| "a session too large to be sealed".to_owned())?;
        out.extend_from_slice(tag.as_ref());
        Ok(encode(self.encoding, &out))
    }

    /// Opens what [`Self::seal`], connect-mongo's adapter or kruptein sealed.
    ///
    /// # Errors
    /// Why it stays closed.
    pub(crate) fn open(&self, stored: &str) -> Result<Opened, String> {
        let bytes = text::decode(self.encoding, stored);
        if let Some(plain) = bytes.as_deref().and_then(|bytes| self.open_bytes(bytes)) {
            return unwrapped(plain?).map(Opened::Text);
        }
        if let Some(kruptein) = &self.kruptein
            && let Some(locked) = kruptein.parse(stored)
        {
            return match kruptein.open_known(&locked) {
                Some(plain) => plain.map(Opened::Text),
                None => Ok(Opened::Locked(locked)),
            };
        }
        Err(self.why_closed(stored, bytes.as_deref()))
    }

    /// The kruptein options, if the collection has such texts.
    pub(crate) fn kruptein(&self) -> Option<&Arc<Kruptein>> {
        self.kruptein.as_ref()
    }

    fn open_bytes(&self, bytes: &[u8]) -> Option<Result<String, String>> {
        let (iv, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        if sealed.len() < TAG_LEN {
            return None;
        }
        self.keys.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(iv).ok()?;
            let mut plain = sealed.to_vec();
            let length = key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
            plain.truncate(length);
            Some(String::from_utf8(plain).map_err(|_| "sealed text that is no UTF-8".to_owned()))
        })
    }

    fn why_closed(&self, stored: &str, bytes: Option<&[u8]>) -> String {
        let why = match (guess(stored), bytes) {
            (Some(Guess::Kruptein { cut: true }), _) => "sealed by kruptein and cut short",
            (Some(Guess::Kruptein { .. }), _) if self.kruptein.is_none() => KRUPTEIN,
            (Some(Guess::Kruptein { .. }), _) => {
                "a kruptein text in another encoding than store.crypto.kruptein.encodeas"
            }
            (Some(Guess::ConnectMongo3), _) => CONNECT_MONGO_3,
            (None, None) => "no text of store.crypto.encoding, or one that is cut short",
            (None, Some(bytes)) if bytes.len() < NONCE_LEN + TAG_LEN => "sealed text that is cut short",
            (None, Some(_)) => WRONG,
        };
        why.to_owned()
    }
}

/// What a text without `store.crypto` looks like, if it looks sealed: for the operator who forgot the option.
pub(crate) fn looks_sealed(stored: &str) -> Option<&'static str> {
    match guess(stored) {
        Some(Guess::Kruptein { .. }) => {
            Some("sealed by connect-mongo's `crypto` option (kruptein), and store.crypto is not set")
        }
        Some(Guess::ConnectMongo3) => Some(CONNECT_MONGO_3),
        None => {
            let sealed = |encoding| {
                text::decode(encoding, stored).is_some_and(|bytes| bytes.len() >= NONCE_LEN + TAG_LEN)
            };
            let any = sealed(TextEncoding::Hex) || sealed(TextEncoding::Base64);
            any.then_some("it looks sealed, and store.crypto is not set")
        }
    }
}

enum Guess {
    Kruptein { cut: bool },
    ConnectMongo3,
}

fn guess(stored: &str) -> Option<Guess> {
    if stored.starts_with("\"{\\\"hmac\\\":") || stored.starts_with("{\"hmac\":") {
        return Some(Guess::ConnectMongo3);
    }
    [TextEncoding::Hex, TextEncoding::Base64].into_iter().find_map(|encoding| {
        let bytes = text::decode(encoding, stored)?;
        match der::fields(&bytes) {
            Ok(_) => Some(Guess::Kruptein { cut: false }),
            Err(der::Fault::CutShort) => Some(Guess::Kruptein { cut: true }),
            Err(der::Fault::Other) => None,
        }
    })
}

/// connect-mongo seals a string, or JSON of a string that is JSON: both are read, as its `parseDecryptedPayload` does.
fn unwrapped(plain: String) -> Result<String, String> {
    if !plain.trim_start().starts_with('"') {
        return Ok(plain);
    }
    match Json::parse(&plain, DOCUMENT_DEPTH) {
        Ok(Json::String(text)) => Ok(text.to_plain().into_owned()),
        _ => Err("sealed text that is no session's JSON".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn seal(secrets: &[&str], encoding: TextEncoding) -> Seal {
        Seal::new(&CryptoOptions {
            secrets: secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect(),
            salt: b"salt".to_vec(),
            iterations: NonZeroU32::new(10).unwrap(),
            encoding,
            kruptein: None,
        })
        .unwrap()
    }

    fn opened(seal: &Seal, stored: &str) -> Result<String, String> {
        match seal.open(stored)? {
            Opened::Text(text) => Ok(text),
            Opened::Locked(_) => panic!("taken for kruptein's"),
        }
    }

    #[test]
    fn what_is_sealed_opens_again_and_never_looks_the_same() {
        for encoding in [TextEncoding::Hex, TextEncoding::Base64, TextEncoding::Base64url] {
            let seal = seal(&["a"], encoding);
            for plain in
                ["{}", "{\"a\":\"\u{fc}\u{1f600}\"}", &format!("{{\"a\":\"{}\"}}", "x".repeat(10_000))]
            {
                let stored = seal.seal(plain).unwrap();
                assert_ne!(stored, seal.seal(plain).unwrap());
                assert_eq!(opened(&seal, &stored).unwrap(), plain);
            }
        }
    }

    #[test]
    fn the_first_secret_seals_and_every_one_opens() {
        let (old, new) = (seal(&["old"], TextEncoding::Base64), seal(&["new"], TextEncoding::Base64));
        let both = seal(&["new", "old"], TextEncoding::Base64);
        assert_eq!(opened(&both, &old.seal("{}").unwrap()).unwrap(), "{}");
        assert_eq!(opened(&new, &both.seal("{}").unwrap()).unwrap(), "{}");
        assert_eq!(opened(&new, &old.seal("{}").unwrap()), Err(WRONG.to_owned()));
    }

    #[test]
    fn a_changed_byte_anywhere_keeps_it_closed() {
        let seal = seal(&["a"], TextEncoding::Hex);
        let stored = seal.seal("{\"a\":1}").unwrap();
        for at in 0..stored.len() {
            let mut changed = stored.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(opened(&seal, &changed).is_err(), "{at}");
        }
    }

    #[test]
    fn the_reason_names_the_likely_cause() {
        let seal = seal(&["a"], TextEncoding::Base64);
        let stored = seal.seal("{\"a\":\"some data\"}").unwrap();
        for (text, why) in [
            (&stored[..20], "cut short"),
            (&stored[..40], "cut short since"),
            ("secret!", "store.crypto.encoding"),
            ("", "cut short"),
            ("\"{\\\"hmac\\\":\\\"secret\\\"}\"", "connect-mongo 3"),
        ] {
            let said = opened(&seal, text).unwrap_err();
            assert!(said.contains(why) && !said.contains("secret!"), "{text}: {said}");
        }
        assert!(looks_sealed(&stored).is_some());
        assert!(looks_sealed("{\"a\":1}").is_none() && looks_sealed("not json").is_none());
    }

    /// One document that connect-mongo 6 sealed, as text and sealed, and who sealed it.
    fn golden(file: &str) -> (String, String) {
        let row: serde_json::Value = serde_json::from_str(file.lines().next().unwrap()).unwrap();
        let bytes = text::decode(TextEncoding::Base64, row["bson"].as_str().unwrap()).unwrap();
        let document = bson::RawDocumentBuf::from_bytes(bytes).unwrap();
        (row["text"].as_str().unwrap().to_owned(), document.get_str("session").unwrap().to_owned())
    }

    #[test]
    fn the_same_iv_gives_the_text_of_connect_mongo() {
        let (plain, stored) =
            golden(include_str!("../../../tests/fixtures/mongodb/connect-mongo-6.0.0-webcrypto.jsonl"));
        let seal = Seal::new(&CryptoOptions {
            secrets: vec![b"AA11!!aa-golden-seal".to_vec()],
            salt: b"connect-mongo:webcrypto-default-salt".to_vec(),
            iterations: NonZeroU32::new(310_000).unwrap(),
            encoding: TextEncoding::Base64,
            kruptein: None,
        })
        .unwrap();
        let iv = text::decode(TextEncoding::Base64, &stored).unwrap()[..NONCE_LEN].try_into().unwrap();
        assert_eq!(seal.seal_with(iv, &plain).unwrap(), stored);
    }

    #[test]
    fn a_key_of_kruptein_is_worked_out_once_even_if_it_does_not_fit() {
        let file = include_str!("../../../tests/fixtures/mongodb/connect-mongo-6.0.0-kruptein-3.0.8.jsonl");
        let (plain, stored) = golden(file);
        for (secret, expected) in [("AA11!!aa-golden-seal", Some(plain)), ("another", None)] {
            let mut seal = seal(&["a"], TextEncoding::Base64);
            let options = crate::store::KrupteinOptions {
                secret: secret.into(),
                hashing: crate::store::KrupteinHash::Sha512,
                encoding: TextEncoding::Base64,
            };
            seal.kruptein = Some(Arc::new(Kruptein::new(&options)));
            let Ok(Opened::Locked(locked)) = seal.open(&stored) else { panic!("open without a key") };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let kruptein = seal.kruptein().unwrap();
            let Ok(Opened::Locked(unwanted)) = seal.open(&stored) else { panic!("open without a key") };
            assert!(runtime.block_on(kruptein.open(unwanted, || false)).is_none());
            let opened = runtime.block_on(kruptein.open(locked, || true)).unwrap();
            assert_eq!(opened.ok(), expected);
            match seal.open(&stored) {
                Ok(Opened::Text(text)) => assert_eq!(Some(text), expected),
                Err(_) => assert_eq!(expected, None),
                Ok(Opened::Locked(_)) => panic!("the key was not kept"),
            }
        }
    }

    #[test]
    fn json_of_a_string_is_read_too() {
        let seal = seal(&["a"], TextEncoding::Base64);
        let stored = seal.seal("\"{\\\"n\\\":1}\"").unwrap();
        assert_eq!(opened(&seal, &stored).unwrap(), "{\"n\":1}");
        assert!(opened(&seal, &seal.seal("\"{").unwrap()).is_err());
    }
}
