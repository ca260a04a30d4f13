//! connect-mongo's `crypto` and `cryptoAdapter` as `[store.crypto]`. Sessions that the app encrypts are never written in
//! plain text. Tests: `tests/it/import.rs`.

use super::expr::Shape;
use super::fields::{Field, Fields};
use super::session::{Import, SAMPLE_SECRET};
use super::store::Store;
use super::text::Text;
use super::value::Value;
use super::write::Section;

const HERE: Section = Section::Crypto;

/// What the sidecar seals with when the app's own secret belongs to another format.
const OWN: &str = "SESSION_CRYPTO_SECRET";

/// Writes `[store.crypto]` when the store encrypts.
pub(super) fn crypto<'s>(import: &mut Import<'s>, store: &mut Store<'s>, old: bool) {
    if old {
        if let Some(secret) = store.fields.take("secret") {
            version_3(import, &secret, &mut store.fields);
        }
        return;
    }
    if let Some(field) = store.fields.take("crypto") {
        match import.reading.fields_of(&field) {
            Some(fields) => kruptein(import, fields),
            None if import.reading.truth(&import.reading.eval(field.expr)) == Some(false) => {
                import.draft.taken += 1
            }
            None => unknown_crypto(import, &field),
        }
    }
    if let Some(field) = store.fields.take("cryptoAdapter") {
        adapter(import, &field);
    }
}

fn adapter<'s>(import: &mut Import<'s>, field: &Field<'s>) {
    let Value::Other(reduced) = import.reading.eval(field.expr) else {
        import.draft.taken += 1;
        return;
    };
    let made = match &reduced.shape {
        Shape::Call(callee, arguments) => match &callee.shape {
            Shape::Name(name) | Shape::Member(_, name) => {
                arguments.first().map(|options| (name.as_str(), options))
            }
            _ => None,
        },
        _ => None,
    };
    let options = made.and_then(|(name, options)| Some((name, import.reading.fields(options)?)));
    match options {
        Some(("createWebCryptoAdapter", fields)) => web_crypto(import, fields),
        Some(("createKrupteinAdapter", fields)) => kruptein(import, fields),
        _ => unknown_crypto(import, field),
    }
}

fn own_secret(import: &mut Import<'_>, comment: &str) {
    let text = Text::variable(&import.secret_name(OWN)).unwrap_or_default();
    import.draft.set_text(HERE, "secret", &text, SAMPLE_SECRET, "");
    import.draft.above(comment);
}

fn unknown_crypto<'s>(import: &mut Import<'s>, field: &Field<'s>) {
    import.remark(
        HERE,
        field,
        "an adapter of the app's own, or not to be told from the text: its sessions cannot be read",
    );
    own_secret(
        import,
        "Sessions stay encrypted, in the format of createWebCryptoAdapter({ secret }): make a secret with `cloakroom secret`.",
    );
}

fn web_crypto<'s>(import: &mut Import<'s>, mut fields: Fields<'s>) {
    match fields.take("secret") {
        Some(field) => {
            import.draft.taken += 1;
            let (text, comment) = import.secret_reference(field.expr, OWN);
            import.draft.set(HERE, "secret", text.toml(), "");
            comment.into_iter().for_each(|comment| import.draft.above(comment));
        }
        None => own_secret(import, "No secret of the adapter in the input: set it to the app's."),
    }
    encoding(import, HERE, "encoding", fields.take("encoding"));
    import.text(&mut fields, HERE, "salt", "salt", "", "salt");
    if let Some(field) = fields.take("iterations") {
        match import.value(&field) {
            Value::Number(count) if count.fract() == 0.0 && (1.0..=1e7).contains(&count) => {
                import.draft.taken += 1;
                if (count - 310_000.0).abs() > 0.5 {
                    import.draft.set(HERE, "iterations", format!("{count:.0}"), "");
                }
            }
            _ => import.remark(HERE, &field, "not a number between 1 and 10,000,000, or not to be told from the text; without it the app's sessions cannot be read"),
        }
    }
    only(
        import,
        HERE,
        fields.take("algorithm"),
        "AES-GCM",
        "only AES-GCM is built: AES-CBC and AES-CTR have no protection against changes; move the app to AES-GCM first, its sessions cannot be read",
    );
    if let Some(field) = fields.take("ivLength") {
        match import.value(&field) {
            Value::Number(12.0) | Value::Undefined => import.draft.taken += 1,
            _ => import.remark(
                HERE,
                &field,
                "only 12 bytes, the adapter's default; sessions with another length cannot be read",
            ),
        }
    }
    import.unknown(HERE, fields, "createWebCryptoAdapter has no option of this name");
}

/// `crypto: { secret, … }`: read, and sealed anew in the adapter's format.
fn kruptein<'s>(import: &mut Import<'s>, mut fields: Fields<'s>) {
    let secret = fields.take("secret");
    if secret
        .as_ref()
        .is_none_or(|field| import.reading.truth(&import.reading.eval(field.expr)) == Some(false))
    {
        import.draft.remark(Section::Store, "crypto: no secret in it, so connect-mongo encrypts nothing.");
        return;
    }
    let Some(secret) = secret else { return };
    own_secret(
        import,
        "The app encrypts with kruptein. Its sessions are read (store.crypto.kruptein), and sealed with their next save in the format of \
         connect-mongo 6's createWebCryptoAdapter({ secret }), with this secret: make one with `cloakroom secret`. An app that goes on \
         using the collection has to have cryptoAdapter: createWebCryptoAdapter({ secret }) too.",
    );
    import.draft.taken += 1;
    let (text, comment) = import.secret_reference(secret.expr, "KRUPTEIN_SECRET");
    import.draft.set(Section::Kruptein, "secret", text.toml(), "");
    comment.into_iter().for_each(|comment| import.draft.above(comment));
    if let Some(field) = fields.take("hashing") {
        match import.value(&field) {
            Value::Text(text) if text.as_literal() == Some("sha512") => import.draft.taken += 1,
            Value::Text(text) if matches!(text.as_literal(), Some("sha256" | "sha384")) => {
                import.draft.taken += 1;
                import.draft.set(Section::Kruptein, "hashing", text.toml(), "");
            }
            _ => import.remark(Section::Kruptein, &field, "only sha256, sha384 and sha512 are read"),
        }
    }
    encoding(import, Section::Kruptein, "encodeas", fields.take("encodeas"));
    only(
        import,
        Section::Kruptein,
        fields.take("algorithm"),
        "aes-256-gcm",
        "only aes-256-gcm is read; sessions in another form cannot be",
    );
    for (key, default) in [("key_size", 32.0), ("iv_size", 16.0), ("at_size", 16.0)] {
        let Some(field) = fields.take(key) else { continue };
        match import.value(&field) {
            Value::Number(size) if size == default => import.draft.taken += 1,
            _ => import.remark(Section::Kruptein, &field, "only connect-mongo's default is read"),
        }
    }
    import.unknown(
        Section::Kruptein,
        fields,
        "only connect-mongo's own defaults are read; sessions made with it may not be readable",
    );
}

/// `secret` of connect-mongo 3: a format of its own.
fn version_3<'s>(import: &mut Import<'s>, secret: &Field<'s>, fields: &mut Fields<'s>) {
    let line = import.reading.line(secret.expr);
    import.draft.remark(HERE, format!("secret (line {line}): connect-mongo 3 encrypts in a format of its own, which is not read: its sessions are unreadable and start anew."));
    own_secret(
        import,
        "Sessions stay encrypted, in the format of connect-mongo 6's createWebCryptoAdapter({ secret }): make a secret with `cloakroom secret`.",
    );
    for key in ["algorithm", "hashing", "encodeas", "key_size", "iv_size", "at_size"] {
        if let Some(field) = fields.take(key) {
            import.remark(HERE, &field, "belongs to the encryption of connect-mongo 3");
        }
    }
}

fn encoding<'s>(import: &mut Import<'s>, section: Section, key: &'static str, field: Option<Field<'s>>) {
    let Some(field) = field else { return };
    match import.value(&field) {
        Value::Undefined => import.draft.taken += 1,
        Value::Text(text) if text.as_literal() == Some("base64") => import.draft.taken += 1,
        Value::Text(text) if matches!(text.as_literal(), Some("hex" | "base64url")) => {
            import.draft.taken += 1;
            import.draft.set(section, key, text.toml(), "");
        }
        _ => import.remark(section, &field, "\"base64\", \"base64url\" and \"hex\" are what is read"),
    }
}

/// An option of which only one value is built.
fn only<'s>(import: &mut Import<'s>, section: Section, field: Option<Field<'s>>, value: &str, why: &str) {
    let Some(field) = field else { return };
    match import.value(&field) {
        Value::Text(text) if text.as_literal() == Some(value) => import.draft.taken += 1,
        _ => import.remark(section, &field, why),
    }
}
