//! Which store a `store` option is, and `[store]` for those that Cloakroom has no more to read of than that.
//! Tests: `tests/it/import.rs`.

use super::expr::{Expr, Shape};
use super::fields::{Field, Fields};
use super::session::Import;
use super::value::Value;
use super::write::{Draft, Section};
use super::{file, mongodb, redis};

const HERE: Section = Section::Store;

/// Packages that Cloakroom knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Package {
    ConnectMongo,
    ConnectRedis,
    SessionFileStore,
    MemoryStore,
    Memorystore,
    /// Any other, with sessions in a form that Cloakroom does not read.
    Foreign,
}

/// A store as it stands in the input.
pub(super) struct Store<'s> {
    pub(super) fields: Fields<'s>,
    pub(super) line: usize,
    /// `new X(…)`, not `X.create(…)`.
    pub(super) constructed: bool,
    /// The input says what package it is of.
    pub(super) known_module: bool,
    /// `require('x')(session)`, as packages have it that do without imports.
    pub(super) made_with_session: bool,
}

/// Writes `[store]`.
pub(super) fn store<'s>(import: &mut Import<'s>, field: Option<Field<'s>>) {
    let Some(field) = field else {
        in_memory(&mut import.draft, "no store in the input: express-session's MemoryStore");
        return;
    };
    import.reading.take_assumed();
    let reduced = match import.reading.eval(field.expr) {
        Value::Other(expr) => expr,
        Value::Null | Value::Undefined | Value::Bool(false) => {
            in_memory(&mut import.draft, "no store in the input: express-session's MemoryStore");
            return;
        }
        _ => field.expr,
    };
    let reason = import.reason(&field);
    if !reason.is_empty() {
        import.draft.note(HERE, format!("The store is {reason}."));
    }
    let (callee, options) = parts(reduced);
    let fields = match options {
        None => Some(Fields::default()),
        Some(options) => import.reading.fields(options),
    };
    let readable = fields.is_some();
    let store = Store {
        fields: fields.unwrap_or_default(),
        line: import.reading.line(reduced),
        constructed: matches!(reduced.shape, Shape::New(..)),
        known_module: callee.is_some_and(|callee| import.reading.script.module_of(callee, 12).is_some()),
        made_with_session: callee.is_some_and(|callee| made_with_session(import, callee)),
    };
    let package = package(import, callee, &store);
    if !readable && package.is_some_and(|package| package != Package::Foreign) {
        import.draft.remark(HERE, format!("store (line {}): its options are not an object that can be told from the text; add them by hand.", store.line));
    }
    if package.is_some_and(|package| package != Package::Foreign) {
        import.draft.taken += 1;
    }
    match package {
        Some(Package::ConnectMongo) => mongodb::store(import, store),
        Some(Package::ConnectRedis) => redis::store(import, store, options),
        Some(Package::SessionFileStore) => file::store(import, store),
        Some(Package::MemoryStore) => in_memory(&mut import.draft, "express-session's MemoryStore"),
        Some(Package::Memorystore) => memorystore(import, store),
        Some(Package::Foreign) => foreign(import, &field, "Cloakroom does not read this store"),
        None => foreign(import, &field, "this does not say which store it is"),
    }
}

/// What makes the store, and its options.
fn parts(expr: &Expr) -> (Option<&Expr>, Option<&Expr>) {
    match &expr.shape {
        Shape::New(callee, arguments) | Shape::Call(callee, arguments) => {
            let options = arguments
                .iter()
                .find(|argument| !matches!(&argument.shape, Shape::Name(name) if name == "session"));
            (Some(callee), options.or(arguments.first()))
        }
        Shape::Object(_) => (None, Some(expr)),
        _ => (Some(expr), None),
    }
}

/// Is the class the result of `require('package')(session)`?
fn made_with_session(import: &Import<'_>, callee: &Expr) -> bool {
    match &callee.shape {
        Shape::Call(inner, arguments) => {
            let requires = matches!(&inner.shape, Shape::Name(name) if name == "require");
            !requires && !arguments.is_empty()
        }
        Shape::Name(name) => {
            let declared = import.reading.script.declarations.get(name).and_then(|list| list.first());
            let value = declared.and_then(|declaration| declaration.value.as_ref().ok());
            value.is_some_and(|value| {
                matches!(value.shape, Shape::Call(..)) && made_with_session(import, value)
            })
        }
        _ => false,
    }
}

fn package(import: &Import<'_>, callee: Option<&Expr>, store: &Store<'_>) -> Option<Package> {
    let module = callee.and_then(|callee| import.reading.script.module_of(callee, 12));
    match module {
        Some("connect-mongo") => return Some(Package::ConnectMongo),
        Some("connect-redis") => return Some(Package::ConnectRedis),
        Some("session-file-store") => return Some(Package::SessionFileStore),
        Some("memorystore") => return Some(Package::Memorystore),
        Some("express-session") => return Some(Package::MemoryStore),
        // A file of the app's own says nothing; its name may.
        Some(module) if !module.starts_with('.') => return Some(Package::Foreign),
        _ => {}
    }
    let fields = &store.fields;
    let name = callee.and_then(last_name).unwrap_or_default().to_ascii_lowercase();
    match () {
        () if name.contains("mongodb") || (name.contains("mongo") && fields.has("uri")) => {
            Some(Package::Foreign)
        }
        () if name.contains("mongo") => Some(Package::ConnectMongo),
        () if name.contains("redis") => Some(Package::ConnectRedis),
        () if name.contains("file") => Some(Package::SessionFileStore),
        () if name.contains("memory") && (fields.has("checkPeriod") || store.made_with_session) => {
            Some(Package::Memorystore)
        }
        () if name.contains("memory") => Some(Package::MemoryStore),
        () if !name.is_empty() => None,
        // JSON cannot say more than options.
        () if fields.has("mongoUrl") || fields.has("touchAfter") || fields.has("autoRemove") => {
            Some(Package::ConnectMongo)
        }
        () if fields.has("client") || fields.has("disableTouch") || fields.has("scanCount") => {
            Some(Package::ConnectRedis)
        }
        () if fields.has("reapInterval") || fields.has("path") => Some(Package::SessionFileStore),
        () if fields.has("checkPeriod") => Some(Package::Memorystore),
        () => None,
    }
}

/// `MongoStore` of `MongoStore.create`, `RedisStore` of `connect.RedisStore`.
fn last_name(expr: &Expr) -> Option<&str> {
    match &expr.shape {
        Shape::Name(name) => Some(name),
        Shape::Member(object, name) => {
            let class = name.starts_with(char::is_uppercase);
            if class { Some(name) } else { last_name(object) }
        }
        Shape::Call(callee, arguments) | Shape::New(callee, arguments) => {
            match arguments.first().map(|a| &a.shape) {
                Some(Shape::Text(module)) if matches!(&callee.shape, Shape::Name(n) if n == "require") => {
                    Some(module)
                }
                _ => last_name(callee),
            }
        }
        _ => None,
    }
}

fn in_memory(draft: &mut Draft, why: &str) {
    draft.set(HERE, "kind", "\"memory\"", why);
    draft.above("Gone at exit, as in the app. Without kind = \"memory\" sessions survive a restart, in one crash-safe file.");
}

fn foreign<'s>(import: &mut Import<'s>, field: &Field<'s>, why: &str) {
    let why = format!(
        "{why}; sessions start anew in Cloakroom's own file. To keep the live ones, move the app to connect-mongo, connect-redis or session-file-store first"
    );
    import.remark(HERE, field, &why);
    import.draft.set(HERE, "kind", "\"embedded\"", "");
}

/// memorystore: `ttl` and `checkPeriod` in milliseconds.
fn memorystore<'s>(import: &mut Import<'s>, mut store: Store<'s>) {
    in_memory(&mut import.draft, "memorystore");
    match store.fields.take("ttl") {
        None => {
            import.draft.set(HERE, "ttl", "\"1d\"", "memorystore's default for sessions without a max age")
        }
        Some(field) => {
            let value = import.value(&field);
            match import.span(&value, 1.0, "ms") {
                Some((toml, None)) if matches!(value, Value::Number(number) if number >= 1000.0) => {
                    import.draft.taken += 1;
                    import.draft.set(
                        HERE,
                        "ttl",
                        toml,
                        "of sessions without a max age; memorystore has it for all",
                    );
                }
                _ => import.remark(
                    HERE,
                    &field,
                    "a function, or not to be told from the text; write ttl = \"1d\" or whatever it comes to",
                ),
            }
        }
    }
    for (key, why) in [
        ("checkPeriod", "ended sessions are removed all the time; nothing to do"),
        ("max", "a number of sessions; max_memory = \"64MiB\" is the bound here"),
        ("stale", "an ended session is never served"),
        ("dispose", "nothing calls the app; the event counters of the admin port tell"),
        ("noDisposeOnSet", "nothing calls the app"),
        ("serializer", "sessions are JSON"),
    ] {
        import.without_match(&mut store.fields, HERE, key, why);
    }
    import.unknown(HERE, store.fields, "memorystore has no option of this name");
}

impl<'s> Import<'s> {
    /// Seconds or minutes as a duration. Less than `least` milliseconds is what `otherwise` says.
    pub(super) fn store_duration(
        &mut self,
        field: &Field<'s>,
        key: &'static str,
        unit: f64,
        least: f64,
        own: &str,
    ) {
        let value = self.value(field);
        let reason = self.reason(field);
        let (suffix, name) = if unit > 1000.0 { ("m", "minutes") } else { ("s", "seconds") };
        let enough = !matches!(value, Value::Number(number) if number * unit < least);
        match self.span(&value, unit, suffix).filter(|_| enough) {
            Some((toml, variable)) => {
                self.draft.taken += 1;
                if let Some(text) = &variable {
                    self.draft.register(text, "3600");
                }
                if toml != own || !reason.is_empty() {
                    self.draft.set(Section::Store, key, toml, reason);
                }
            }
            None => {
                let why = format!(
                    "too short, a function, or not to be told from the text; write {key} = \"1h\" or whatever it comes to (the app has {name})"
                );
                self.remark(Section::Store, field, &why);
            }
        }
    }
}
