//! Reading what kruptein 3 sealed for connect-mongo 4 to 6: AES-256-GCM in an ASN.1 envelope, with a key of its own for each document.
//!
//! Three dialects, all of them called 3.x: the envelope tells text (3.0 to 3.3) from bytes (3.4), and the two of text are tried in turn.
//! The keys cost 15,000 or 20,000 rounds of PBKDF2 each, so they are worked out beside the workers, a few at a time, and kept: those of
//! texts that do not open as well, or whoever asks for such a session would cost the same again and again.
//! Tests: `tests/it/store_conformance/sealed.rs` over texts that the real kruptein wrote.

use super::super::{KrupteinHash, KrupteinOptions, TextEncoding};
use super::text::{decode, encode};
use super::{der, unwrapped};
use crate::session::json::{DOCUMENT_DEPTH, Json};
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Nonce};
use aws_lc_rs::{constant_time, hmac, pbkdf2};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use tokio::sync::Semaphore;

/// Keys that are kept, some 300 bytes each.
const KEPT: usize = 10_000;
/// kruptein's salts have 128 bytes; longer ones are somebody's attempt to fill the memory.
const LONGEST_SALT: usize = 256;

const WRONG: &str =
    "no kruptein text of store.crypto.kruptein: sealed with another secret or hashing, or changed since";
const CHANGED: &str = "a kruptein text that was changed";

/// The secret of one collection's older documents.
pub(crate) struct Kruptein {
    secret: Vec<u8>,
    hashing: KrupteinHash,
    encoding: TextEncoding,
    keys: Mutex<Keys>,
    /// How many keys are worked out at the same time.
    places: Arc<Semaphore>,
}

/// A text whose key has to be worked out.
pub(crate) struct Locked {
    envelope: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// 3.0: the hmac is of the ciphertext.
    First,
    /// 3.1 to 3.3: of ciphertext, salt and iv, which JavaScript's `+` makes text of.
    Second,
    /// 3.4: of their bytes; and everything in the envelope is bytes.
    Third,
}

type Key = [u8; 32];

#[derive(Default)]
struct Keys {
    /// By rounds and salt.
    known: HashMap<(u32, Vec<u8>), Key>,
    oldest: VecDeque<(u32, Vec<u8>)>,
}

impl Kruptein {
    pub(super) fn new(options: &KrupteinOptions) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            secret: options.secret.clone(),
            hashing: options.hashing,
            encoding: options.encoding,
            keys: Mutex::default(),
            places: Arc::new(Semaphore::new((processors / 2).max(1))),
        }
    }

    /// The envelope, if it is one.
    pub(super) fn parse(&self, stored: &str) -> Option<Locked> {
        let envelope = decode(self.encoding, stored)?;
        der::fields(&envelope).ok()?;
        Some(Locked { envelope })
    }

    /// Opens it with keys that are there already; `None` when one is missing.
    pub(super) fn open_known(&self, locked: &Locked) -> Option<Result<String, String>> {
        self.open_with(locked, |dialect, salt| {
            self.keys().known.get(&(dialect.rounds(), salt.to_vec())).copied()
        })
    }

    /// Works the key out, beside the worker, when its turn comes. `None` when nobody is waiting for it any more by then.
    ///
    /// # Errors
    /// The inner one: why it stays closed.
    pub(crate) async fn open(
        self: &Arc<Self>,
        locked: Locked,
        is_wanted: impl Fn() -> bool,
    ) -> Option<Result<String, String>> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        if !is_wanted() {
            return None;
        }
        let kruptein = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            kruptein.open_now(&locked)
        });
        Some(work.await.unwrap_or_else(|_| Err("the key's computation ended early".to_owned())))
    }

    fn open_now(&self, locked: &Locked) -> Result<String, String> {
        self.open_with(locked, |dialect, salt| Some(self.key(dialect, salt)))
            .unwrap_or_else(|| Err(WRONG.to_owned()))
    }

    /// Tries the dialects that the envelope may be of, as long as there are keys.
    fn open_with(
        &self,
        locked: &Locked,
        key: impl Fn(Dialect, &[u8]) -> Option<Key>,
    ) -> Option<Result<String, String>> {
        let Ok(fields) = der::fields(&locked.envelope) else { return Some(Err(WRONG.to_owned())) };
        let [_, hmac, _, salt, ..] = fields;
        let dialects: &[Dialect] = if hmac.len() == self.hashing.hmac().digest_algorithm().output_len() {
            &[Dialect::Third]
        } else {
            &[Dialect::First, Dialect::Second]
        };
        for dialect in dialects {
            let key = key(*dialect, salt)?;
            if self.is_authentic(*dialect, &key, fields) {
                return Some(self.decrypt(*dialect, &key, fields));
            }
        }
        Some(Err(WRONG.to_owned()))
    }

    fn key(&self, dialect: Dialect, salt: &[u8]) -> Key {
        let name = (dialect.rounds(), salt.to_vec());
        if let Some(key) = self.keys().known.get(&name) {
            return *key;
        }
        let rounds = NonZeroU32::new(name.0).unwrap_or(NonZeroU32::MIN);
        let mut key = Key::default();
        pbkdf2::derive(self.hashing.pbkdf2(), rounds, salt, &self.secret, &mut key);
        if salt.len() <= LONGEST_SALT {
            self.keys().keep(name, key);
        }
        key
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_authentic(&self, dialect: Dialect, key: &Key, fields: der::Fields<'_>) -> bool {
        let [ciphertext, stored, iv, salt, ..] = fields;
        let mut context = hmac::Context::with_key(&hmac::Key::new(self.hashing.hmac(), key));
        context.update(ciphertext);
        match dialect {
            Dialect::First => {}
            Dialect::Second => {
                context.update(String::from_utf8_lossy(salt).as_bytes());
                context.update(String::from_utf8_lossy(iv).as_bytes());
            }
            Dialect::Third => {
                context.update(salt);
                context.update(iv);
            }
        }
        let hmac = context.sign();
        let expected = match dialect {
            Dialect::First | Dialect::Second => Cow::Owned(encode(self.encoding, hmac.as_ref()).into_bytes()),
            Dialect::Third => Cow::Borrowed(hmac.as_ref()),
        };
        constant_time::verify_slices_are_equal(&expected, stored).is_ok()
    }

    fn decrypt(&self, dialect: Dialect, key: &Key, fields: der::Fields<'_>) -> Result<String, String> {
        let [ciphertext, _, iv, _, tag, aad] = fields;
        let bytes = |field| match dialect {
            Dialect::First | Dialect::Second => {
                std::str::from_utf8(field).ok().and_then(|text| decode(self.encoding, text))
            }
            Dialect::Third => Some(field.to_vec()),
        };
        let (Some(mut sealed), Some(aad)) = (bytes(ciphertext), bytes(aad)) else {
            return Err(CHANGED.to_owned());
        };
        sealed.extend_from_slice(tag);
        let payload = Payload { msg: &sealed, aad: &aad };
        let plain = match iv.len() {
            12 => decrypt_gcm::<U12>(key, iv, payload),
            // connect-mongo asks for this length; kruptein listens since 3.4.
            16 => decrypt_gcm::<U16>(key, iv, payload),
            _ => None,
        };
        let plain = plain.and_then(|plain| String::from_utf8(plain).ok()).ok_or(CHANGED)?;
        match dialect {
            Dialect::First | Dialect::Second => unwrapped(plain),
            Dialect::Third => untagged(&plain),
        }
    }
}

fn decrypt_gcm<Size>(key: &Key, iv: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>>
where
    Size: aes_gcm::aead::array::ArraySize,
{
    let nonce = Nonce::<Size>::try_from(iv).ok()?;
    AesGcm::<Aes256, Size>::new(key.into()).decrypt(&nonce, payload).ok()
}

/// 3.4 seals `{"type":"string","value":"<json>"}` or `{"type":"json","value":{…}}`.
fn untagged(plain: &str) -> Result<String, String> {
    let tagged = Json::parse(plain, DOCUMENT_DEPTH + 1).ok();
    match tagged.as_ref().and_then(Json::as_object).and_then(|tagged| tagged.get("value")) {
        Some(Json::String(text)) => Ok(text.to_plain().into_owned()),
        Some(value @ Json::Object(_)) => Ok(value.to_text()),
        _ => Err("a kruptein text that holds no session".to_owned()),
    }
}

impl Dialect {
    fn rounds(self) -> u32 {
        match self {
            Self::First => 15_000,
            Self::Second | Self::Third => 20_000,
        }
    }
}

impl KrupteinHash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

impl Keys {
    fn keep(&mut self, name: (u32, Vec<u8>), key: Key) {
        if self.known.insert(name.clone(), key).is_some() {
            return;
        }
        self.oldest.push_back(name);
        if self.oldest.len() > KEPT
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_keys_are_kept() {
        let mut keys = Keys::default();
        for n in 0..KEPT + 5 {
            keys.keep((1, n.to_be_bytes().to_vec()), Key::default());
            keys.keep((1, n.to_be_bytes().to_vec()), Key::default());
        }
        assert_eq!((keys.known.len(), keys.oldest.len()), (KEPT, KEPT));
        assert!(!keys.known.contains_key(&(1, 4_usize.to_be_bytes().to_vec())));
    }
}
