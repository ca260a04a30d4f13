//! `[store.crypto]`: sealing and opening sessions as connect-mongo's Web Crypto adapter does. Tests: `tests/it/config.rs`.

use super::super::secret;
use super::super::walk::Table;
use crate::store::{CryptoOptions, KrupteinHash, KrupteinOptions, TextEncoding};
use std::num::NonZeroU32;

/// connect-mongo's default, which is no secret; a salt of one's own is better where several apps share a password.
const DEFAULT_SALT: &[u8] = b"connect-mongo:webcrypto-default-salt";
const DEFAULT_ITERATIONS: u32 = 310_000;
/// A start-up that derives a key for longer than some seconds looks like one that hangs.
const MOST_ITERATIONS: u64 = 10_000_000;

/// Reads `[store.crypto]`.
pub(super) fn crypto(table: &Table<'_>) -> Option<CryptoOptions> {
    only(
        table,
        "algorithm",
        "AES-GCM",
        "connect-mongo's default; its AES-CBC and AES-CTR have no protection against changes",
    );
    if let Some(item) = table.get("iv_length")
        && item.integer() != Some(12)
    {
        item.problem("only 12 bytes, connect-mongo's default for AES-GCM", "remove it");
    }
    let old = secret::several(table, "old_secrets", "old_secrets_file");
    let first = secret::one(table, "secret", "secret_file");
    if table.get("secret").is_none() && table.get("secret_file").is_none() {
        table.problem("secret", "missing", "write secret = \"${SESSION_CRYPTO_SECRET}\"");
    }
    let salt = table.get("salt").and_then(|item| item.text()).map(|text| text.value.into_bytes());
    let iterations =
        table.count("iterations", 1..=MOST_ITERATIONS).and_then(|count| u32::try_from(count).ok());
    Some(CryptoOptions {
        salt: salt.unwrap_or_else(|| DEFAULT_SALT.to_vec()),
        iterations: NonZeroU32::new(iterations.unwrap_or(DEFAULT_ITERATIONS)).unwrap_or(NonZeroU32::MIN),
        encoding: encoding(table, "encoding").unwrap_or(TextEncoding::Base64),
        kruptein: table.get("kruptein").and_then(|item| {
            let hint = "let Express apps on this store use createWebCryptoAdapter of connect-mongo 6 first; remove this when the old sessions are gone";
            item.warning("kruptein's sessions are read, and saved in a format that kruptein does not read", hint);
            kruptein(&item.table()?)
        }),
        secrets: std::iter::once(first?).chain(old).map(|secret| secret.0).collect(),
    })
}

/// connect-mongo's `crypto` option, under kruptein's names.
fn kruptein(table: &Table<'_>) -> Option<KrupteinOptions> {
    only(table, "algorithm", "aes-256-gcm", "connect-mongo's default; other algorithms are not read");
    let hashes = [
        ("sha256", KrupteinHash::Sha256),
        ("sha384", KrupteinHash::Sha384),
        ("sha512", KrupteinHash::Sha512),
    ];
    if table.get("secret").is_none() && table.get("secret_file").is_none() {
        table.problem("secret", "missing", "write the secret of connect-mongo's crypto option");
    }
    let hashing = table.choice("hashing", &hashes).unwrap_or(KrupteinHash::Sha512);
    let encoding = encoding(table, "encodeas").unwrap_or(TextEncoding::Base64);
    let (secret, item) = secret::text(table, "secret", "secret_file")?;
    if secret.is_empty() {
        item.problem("an empty secret", "write the secret of connect-mongo's crypto option");
    }
    Some(KrupteinOptions { hashing, encoding, secret: secret.into_bytes() })
}

/// Node's `Buffer` encodings.
pub(super) fn encoding(table: &Table<'_>, key: &'static str) -> Option<TextEncoding> {
    let encodings = [
        ("hex", TextEncoding::Hex),
        ("base64", TextEncoding::Base64),
        ("base64url", TextEncoding::Base64url),
    ];
    table.choice(key, &encodings)
}

fn only(table: &Table<'_>, key: &'static str, value: &str, why: &str) {
    if let Some(item) = table.get(key)
        && !item.says(value)
    {
        item.problem(format!("only \"{value}\""), format!("remove it: {why}"));
    }
}
