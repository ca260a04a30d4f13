//! connect-mongo 3 to 6 as `[store]` with kind "mongodb". Tests: `tests/it/import.rs`.

use super::crypto;
use super::expr::{Expr, Shape};
use super::fields::Field;
use super::session::Import;
use super::store::Store;
use super::text::{Text, quoted};
use super::value::Value;
use super::write::Section;

const HERE: Section = Section::Store;
const SAMPLE_URL: &str = "mongodb://127.0.0.1:27017/app";

/// Options that have no match, in all versions.
const REMARKS: &[(&str, &str)] = &[
    (
        "serialize",
        "sessions in a form of the app's own cannot be read or written; go back to connect-mongo's (stringify) first",
    ),
    (
        "unserialize",
        "sessions in a form of the app's own cannot be read or written; go back to connect-mongo's (stringify) first",
    ),
    (
        "mongoOptions",
        "what is needed of it goes into the url: ?tls=true&authSource=admin&maxPoolSize=20; useNewUrlParser and useUnifiedTopology are not needed",
    ),
    ("advancedOptions", "what is needed of it goes into the url: ?tls=true&authSource=admin&maxPoolSize=20"),
    ("createAutoRemoveIdx", "an old name; auto_remove = \"native\" makes the index and is the default"),
];

/// Writes `[store]`.
pub(super) fn store<'s>(import: &mut Import<'s>, mut store: Store<'s>) {
    if let Some(field) = store.fields.take("fallbackMemory") {
        import.remark(HERE, &field, "sessions in memory when it is set; kind = \"memory\" has them");
    }
    // Version 3 and before: other names for some options.
    let names = ["url", "mongooseConnection", "collection"].iter().any(|key| store.fields.has(key));
    let guessed = !store.known_module && store.constructed && names && !store.fields.has("mongoUrl");
    let old = store.made_with_session || guessed;
    import.draft.set(HERE, "kind", "\"mongodb\"", if old { "connect-mongo 3" } else { "connect-mongo" });
    connection(import, &mut store, old);
    let (collection, foreign) =
        if old { ("collection", "collectionName") } else { ("collectionName", "collection") };
    import.text(&mut store.fields, HERE, collection, "collection", "sessions", "sessions");
    if let Some(field) = store.fields.take(foreign) {
        let why = format!(
            "this version of connect-mongo calls it {collection} and ignores it; its sessions are in \"sessions\""
        );
        import.remark(HERE, &field, &why);
    }
    if let Some(field) = store.fields.take("ttl") {
        import.store_duration(&field, "ttl", 1000.0, 1000.0, "\"14d\"");
    }
    if let Some(field) = store.fields.take("touchAfter") {
        import.store_duration(&field, "touch_after", 1000.0, 0.0, "\"0s\"");
    }
    auto_remove(import, &mut store);
    stringify(import, store.fields.take("stringify"));
    import.flag(&mut store.fields, HERE, "timestamps", "timestamps", false, false);
    if let Some(field) = store.fields.take("transformId") {
        transform_id(import, &field);
    }
    if let Some(field) = store.fields.take("writeOperationOptions") {
        write_concern(import, &field);
    }
    crypto::crypto(import, &mut store, old);
    for (key, why) in REMARKS {
        import.without_match(&mut store.fields, HERE, key, why);
    }
    import.unknown(
        HERE,
        store.fields,
        "connect-mongo has no option of this name and ignores it; nothing to do",
    );
}

fn connection<'s>(import: &mut Import<'s>, store: &mut Store<'s>, old: bool) {
    let url = store.fields.take("mongoUrl").or_else(|| store.fields.take("url"));
    let given = ["client", "clientPromise", "mongooseConnection", "db"]
        .into_iter()
        .filter_map(|key| store.fields.take(key));
    let given: Vec<Field<'s>> = given.collect();
    match (&url, given.first()) {
        (Some(field), _) => {
            import.draft.taken += 1;
            import.url(field.expr, "MONGO_URL", SAMPLE_URL);
        }
        (None, field) => {
            let line = field.map_or(store.line, |field| import.reading.line(field.expr));
            if field.is_some() {
                import.draft.taken += 1;
            }
            let found = import.connected(field.map(|field| field.expr));
            match found {
                Some(expr) => {
                    import.url(expr, "MONGO_URL", SAMPLE_URL);
                    import.draft.above(format!("The app hands over its own connection (line {line}); this is the URL that it connects to."));
                }
                None => {
                    import.url_reference("MONGO_URL", SAMPLE_URL, &format!("The app hands over its own connection (line {line}): set MONGO_URL to where that leads, the database included."));
                }
            }
        }
    }
    import.text(&mut store.fields, HERE, "dbName", "database", "", "app");
    if old && url.is_none() && given.iter().any(|field| field.key == "db") {
        import.draft.note(HERE, "`db` is an option of connect-mongo 2 and before; the URL says it all.");
    }
}

fn auto_remove<'s>(import: &mut Import<'s>, store: &mut Store<'s>) {
    let every = store.fields.take("autoRemoveInterval");
    let mut interval = false;
    if let Some(field) = store.fields.take("autoRemove") {
        let value = import.value(&field);
        let reason = import.reason(&field);
        match &value {
            Value::Text(text) if text.as_literal() == Some("native") => import.draft.taken += 1,
            Value::Text(text) if text.as_literal() == Some("interval") => {
                import.draft.taken += 1;
                interval = true;
                import.draft.set(HERE, "auto_remove", "\"interval\"", reason);
            }
            Value::Text(text) if text.as_literal().is_some() => {
                import.draft.taken += 1;
                import.draft.set(HERE, "auto_remove", "\"disabled\"", reason);
            }
            _ => import.remark(
                HERE,
                &field,
                "cannot be told from the text; \"native\", \"interval\" and \"disabled\" are what there is",
            ),
        }
    }
    match every {
        Some(field) if interval => {
            import.store_duration(&field, "auto_remove_interval", 60_000.0, 1000.0, "\"10m\"")
        }
        Some(field) => {
            import.remark(HERE, &field, "means nothing without autoRemove: 'interval'; nothing to do")
        }
        None => {}
    }
}

/// Only `false` means something.
fn stringify<'s>(import: &mut Import<'s>, field: Option<Field<'s>>) {
    let Some(field) = field else { return };
    let value = import.value(&field);
    let reason = import.reason(&field);
    match value {
        Value::Bool(false) => {
            import.draft.taken += 1;
            import.draft.set(HERE, "stringify", "false", reason);
        }
        Value::Other(_) => import.remark(
            HERE,
            &field,
            "cannot be told from the text; both forms are read, stringify = false writes objects",
        ),
        _ => import.draft.taken += 1,
    }
}

/// A function in connect-mongo: the usual ones are understood.
fn transform_id<'s>(import: &mut Import<'s>, field: &Field<'s>) {
    let reduced = match import.reading.eval(field.expr) {
        Value::Other(expr) => expr,
        _ => field.expr,
    };
    let transform = match &reduced.shape {
        Shape::Function(function) => match (&function.parameter, &function.result) {
            (Some(parameter), Some(result)) => read_transform(import, result, parameter),
            _ => None,
        },
        _ => None,
    };
    let Some((prefix, hash)) = transform else {
        let why = "only prefix + hash(sid) is understood: transform_id = { hash = \"sha256\", encoding = \"hex\", prefix = \"\" }; without it no session of the app is found";
        import.remark(HERE, field, why);
        return;
    };
    import.draft.taken += 1;
    import.draft.register(&prefix, "sess:");
    let plain = prefix.as_literal() == Some("");
    let toml = match &hash {
        None if plain => return,
        None => format!("{{ prefix = {} }}", prefix.toml()),
        Some((hash, encoding)) if plain && encoding == "hex" => quoted(hash),
        Some((hash, encoding)) if plain => {
            format!("{{ hash = {}, encoding = {} }}", quoted(hash), quoted(encoding))
        }
        Some((hash, encoding)) => {
            format!(
                "{{ hash = {}, encoding = {}, prefix = {} }}",
                quoted(hash),
                quoted(encoding),
                prefix.toml()
            )
        }
    };
    import.draft.set(HERE, "transform_id", toml, "");
}

/// A prefix, and the hash with its encoding.
type Transform = (Text, Option<(String, String)>);

fn read_transform<'s>(import: &Import<'s>, expr: &'s Expr, parameter: &str) -> Option<Transform> {
    match &expr.shape {
        Shape::Name(name) => (name == parameter).then(|| (Text::literal(""), None)),
        Shape::Template(texts, between) => match (texts.as_slice(), between.as_slice()) {
            ([prefix, end], [inner]) if end.is_empty() => {
                let (rest, hash) = read_transform(import, inner, parameter)?;
                Some((Text::literal(prefix.as_str()).join(rest)?, hash))
            }
            _ => None,
        },
        Shape::Binary("+", left, right) => {
            let Value::Text(prefix) = import.reading.eval(left) else { return None };
            let (rest, hash) = read_transform(import, right, parameter)?;
            Some((prefix.join(rest)?, hash))
        }
        Shape::Call(callee, arguments) => match &callee.shape {
            Shape::Name(name) if name == "String" => read_transform(import, arguments.first()?, parameter),
            Shape::Member(object, name) if name == "toString" && arguments.is_empty() => {
                read_transform(import, object, parameter)
            }
            Shape::Member(object, name) if name == "digest" => {
                let encoding =
                    word(arguments.first()?).filter(|e| ["hex", "base64", "base64url"].contains(e))?;
                let hash = hash_of(object, parameter)
                    .filter(|hash| ["sha1", "sha256", "sha512"].contains(&hash.as_str()))?;
                Some((Text::literal(""), Some((hash, encoding.to_owned()))))
            }
            _ => None,
        },
        _ => None,
    }
}

/// `createHash('sha256').update(sid)`
fn hash_of(expr: &Expr, parameter: &str) -> Option<String> {
    let Shape::Call(callee, arguments) = &expr.shape else { return None };
    let Shape::Member(object, name) = &callee.shape else { return None };
    let plain = matches!(&arguments.first()?.shape, Shape::Name(name) if name == parameter);
    let Shape::Call(create, of) = &object.shape else { return None };
    let creates = match &create.shape {
        Shape::Name(name) | Shape::Member(_, name) => name == "createHash",
        _ => false,
    };
    let utf8 = arguments.get(1).is_none_or(|encoding| matches!(word(encoding), Some("utf8" | "utf-8")));
    (name == "update" && plain && creates && utf8)
        .then(|| word(of.first()?).map(|hash| hash.to_ascii_lowercase().replace('-', "")))?
}

fn word(expr: &Expr) -> Option<&str> {
    match &expr.shape {
        Shape::Text(text) => Some(text),
        _ => None,
    }
}

fn write_concern<'s>(import: &mut Import<'s>, field: &Field<'s>) {
    let Some(mut fields) = import.reading.fields_of(field) else {
        import.remark(HERE, field, "cannot be told from the text; write write_concern = { w = \"majority\" } or whatever it comes to");
        return;
    };
    let mut parts = Vec::new();
    for (name, key) in
        [("w", "w"), ("j", "j"), ("journal", "j"), ("wtimeout", "wtimeout"), ("wtimeoutMS", "wtimeout")]
    {
        let Some(field) = fields.take(name) else { continue };
        let value = import.value(&field);
        let toml = match (&value, key) {
            (Value::Number(nodes), "w") if *nodes >= 1.0 && *nodes <= 50.0 && nodes.fract() == 0.0 => {
                Some(nodes.to_string())
            }
            (Value::Number(_), "w") => {
                import.remark(
                    HERE,
                    &field,
                    "a write that nobody has is none: a response waits for its write",
                );
                continue;
            }
            (Value::Text(text), "w") if text.as_literal() != Some("") => {
                import.draft.register(text, "majority");
                Some(text.toml())
            }
            (Value::Bool(flag), "j") => Some(flag.to_string()),
            (Value::Number(0.0), "wtimeout") => None,
            (Value::Number(_), "wtimeout") => import.span(&value, 1.0, "ms").map(|(toml, _)| toml),
            _ => {
                import.remark(HERE, &field, "cannot be told from the text");
                continue;
            }
        };
        import.draft.taken += 1;
        parts.extend(toml.map(|toml| format!("{key} = {toml}")));
    }
    if !parts.is_empty() {
        import.draft.set(HERE, "write_concern", format!("{{ {} }}", parts.join(", ")), "");
    }
    import.unknown(HERE, fields, "no part of a write concern");
}
