//! session-file-store as `[store]` with kind "file". Tests: `tests/it/import.rs`.

use super::expr::{Expr, Shape};
use super::session::Import;
use super::store::Store;
use super::text::Text;
use super::value::Value;
use super::write::Section;

const HERE: Section = Section::Store;

/// Options that have no match.
const REMARKS: &[(&str, &str)] = &[
    ("retries", "the sidecar reads again by itself; nothing to do"),
    ("factor", "the sidecar reads again by itself; nothing to do"),
    ("minTimeout", "the sidecar reads again by itself; nothing to do"),
    ("maxTimeout", "the sidecar reads again by itself; nothing to do"),
    ("reapMaxConcurrent", "nothing to do"),
    ("reapAsync", "the sidecar always reaps beside the requests; nothing to do"),
    ("reapSyncFallback", "the sidecar always reaps beside the requests; nothing to do"),
    ("logFn", "the sidecar has a log of its own: [log] and timeouts are in the README"),
    ("encoder", "only JSON is read and written; files in another form have to be moved first"),
    ("decoder", "only JSON is read and written; files in another form have to be moved first"),
    ("filePattern", "session-file-store makes it from fileExtension itself; nothing to do"),
    ("encryptEncoding", "belongs to secret, which has no match"),
    ("crypto", "belongs to secret, which has no match"),
    ("keyFunction", "belongs to secret, which has no match"),
];

/// Writes `[store]`.
pub(super) fn store<'s>(import: &mut Import<'s>, mut store: Store<'s>) {
    import.draft.set(HERE, "kind", "\"file\"", "session-file-store");
    path(import, &mut store);
    match store.fields.take("ttl") {
        Some(field) => import.store_duration(&field, "ttl", 1000.0, 1000.0, ""),
        None => import.draft.set(
            HERE,
            "ttl",
            "\"1h\"",
            "session-file-store's default for sessions without a max age",
        ),
    }
    if let Some(field) = store.fields.take("reapInterval") {
        match import.value(&field) {
            Value::Number(-1.0) => {
                import.draft.taken += 1;
                import.draft.set(HERE, "reap_interval", "\"never\"", "");
            }
            _ => import.store_duration(&field, "reap_interval", 1000.0, 1000.0, "\"1h\""),
        }
    }
    let secret = store.fields.take("secret");
    if let Some(field) =
        secret.filter(|field| !matches!(import.reading.eval(field.expr), Value::Null | Value::Undefined))
    {
        let line = import.reading.line(field.expr);
        import.draft.remark(
            HERE,
            format!(
                "secret (line {line}): files that session-file-store encrypts are not read, and new ones are NOT encrypted: sessions start anew in \
                 plain text. Keep the folder on an encrypted disk, or use kind = \"mongodb\" with [store.crypto]."
            ),
        );
    }
    for (key, plain, why) in [
        ("fileExtension", ".json", "only .json files are read and written; rename the files first"),
        ("encoding", "utf8", "files are UTF-8; those in another encoding have to be moved first"),
    ] {
        let Some(field) = store.fields.take(key) else { continue };
        match import.value(&field) {
            Value::Text(text) if text.as_literal() == Some(plain) => import.draft.taken += 1,
            _ => import.remark(HERE, &field, why),
        }
    }
    for (key, why) in REMARKS {
        import.without_match(&mut store.fields, HERE, key, why);
    }
    import.unknown(
        HERE,
        store.fields,
        "session-file-store has no option of this name and ignores it; nothing to do",
    );
}

fn path<'s>(import: &mut Import<'s>, store: &mut Store<'s>) {
    const FOLDER: &str = "relative to the folder of this file; the app's is relative to where it was started";
    let Some(field) = store.fields.take("path") else {
        import.draft.set(HERE, "path", "\"sessions\"", FOLDER);
        return;
    };
    let reduced = match import.value(&field) {
        Value::Other(expr) => expr,
        _ => field.expr,
    };
    match folder(import, reduced) {
        Some((text, beside_source)) => {
            import.draft.taken += 1;
            let absolute = text.as_literal().is_some_and(|path| path.starts_with('/'));
            let reason = match (beside_source, absolute) {
                (true, _) => "relative to the folder of this file; in the app, to that of its source",
                (false, true) => "",
                (false, false) => FOLDER,
            };
            import.draft.set_text(HERE, "path", &text, "sessions", reason);
        }
        None => import.remark(
            HERE,
            &field,
            "cannot be told from the text; write path = \"…\", or no session of the app is found",
        ),
    }
}

/// A folder, and whether it is relative to the app's source: `path.join(__dirname, 'x')`, `__dirname + '/x'`.
fn folder<'s>(import: &Import<'s>, expr: &'s Expr) -> Option<(Text, bool)> {
    if let Value::Text(text) = import.reading.eval(expr) {
        return (text.as_literal() != Some("")).then_some((text, false));
    }
    let parts: Vec<&'s Expr> = match &expr.shape {
        Shape::Call(callee, arguments) => match &callee.shape {
            Shape::Member(_, name) | Shape::Name(name) if name == "join" || name == "resolve" => {
                arguments.iter().collect()
            }
            _ => return None,
        },
        Shape::Binary("+", left, right) => vec![&**left, &**right],
        Shape::Template(_, between) => match between.as_slice() {
            [only] => {
                let Shape::Template(texts, _) = &expr.shape else { return None };
                let source = is_source_folder(only) && texts.first().is_some_and(String::is_empty);
                let rest = texts.get(1)?.trim_start_matches('/').to_owned();
                return (source && !rest.is_empty()).then(|| (Text::literal(rest), true));
            }
            _ => return None,
        },
        _ => return None,
    };
    let (first, rest) = parts.split_first()?;
    let source = is_source_folder(first);
    let mut whole = Text::literal("");
    for (index, part) in (if source { rest } else { &parts[..] }).iter().enumerate() {
        let Value::Text(text) = import.reading.eval(part) else { return None };
        let text = match text.as_literal() {
            Some(literal) if index > 0 || source => {
                Text::literal(literal.trim_matches('/').trim_start_matches("./"))
            }
            Some(literal) => Text::literal(literal.trim_end_matches('/')),
            None => text,
        };
        let slash = Text::literal(if index == 0 { "" } else { "/" });
        whole = whole.join(slash)?.join(text)?;
    }
    (whole.as_literal() != Some("")).then_some((whole, source))
}

/// `__dirname`, `import.meta.dirname`, `process.cwd()`
fn is_source_folder(expr: &Expr) -> bool {
    match &expr.shape {
        Shape::Name(name) => name == "__dirname",
        Shape::Member(_, name) => name == "dirname",
        Shape::Call(callee, _) => matches!(&callee.shape, Shape::Member(_, name) if name == "cwd"),
        _ => false,
    }
}
