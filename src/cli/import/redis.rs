//! connect-redis 6 to 10 as `[store]` with kind "redis", and what node-redis and ioredis are told as its URL.
//! Tests: `tests/it/import.rs`.

use super::expr::{Expr, Shape};
use super::fields::Fields;
use super::session::{Import, SAMPLE_SECRET};
use super::store::Store;
use super::text::{Text, quoted};
use super::url::shows_a_password;
use super::value::Value;
use super::write::{Section, list};

const HERE: Section = Section::Store;
const VARIABLE: &str = "REDIS_URL";
const SAMPLE_URL: &str = "redis://127.0.0.1:6379";

/// Writes `[store]`.
pub(super) fn store<'s>(import: &mut Import<'s>, mut store: Store<'s>, options: Option<&'s Expr>) {
    import.draft.set(HERE, "kind", "\"redis\"", "connect-redis");
    let client = store.fields.take("client");
    let mut key_prefix = None;
    match &client {
        Some(field) => {
            import.draft.taken += 1;
            key_prefix = client_of(import, field.expr);
        }
        // connect-redis 3 and before took the connection's options itself.
        None if ["url", "host", "port", "socket"].iter().any(|key| store.fields.has(key)) => {
            if let Some(options) = options {
                key_prefix = endpoint(import, options, &[]);
            }
            for key in ["url", "host", "port", "socket", "password", "pass", "db", "username"] {
                store.fields.take(key);
            }
        }
        None => unknown_client(import, store.line),
    }
    prefix(import, &mut store, key_prefix);
    match store.fields.take("ttl") {
        None => {
            import.draft.set(HERE, "ttl", "\"1d\"", "connect-redis's default for sessions without a max age")
        }
        Some(field) => match import.value(&field) {
            Value::Number(0.0) | Value::Null | Value::Undefined => {
                import.draft.taken += 1;
                import.draft.set(
                    HERE,
                    "ttl",
                    "\"1d\"",
                    "connect-redis's default for sessions without a max age",
                );
            }
            _ => {
                import.store_duration(&field, "ttl", 1000.0, 1000.0, "");
                if import.draft.value_of(HERE, "ttl").is_none() {
                    import.draft.set(HERE, "ttl", "\"1d\"", "connect-redis's default, for want of the app's");
                }
            }
        },
    }
    import.flag(&mut store.fields, HERE, "disableTouch", "disable_touch", false, false);
    for (key, why) in [
        (
            "disableTTL",
            "keys that never end fill Redis; the sidecar always gives them an end, ttl or the cookie's max age",
        ),
        ("scanCount", "only listing all sessions needs it; nothing to do"),
        ("serializer", "only JSON is read and written; sessions in another form have to be moved first"),
        ("logErrors", "errors are in the sidecar's log; nothing to do"),
    ] {
        import.without_match(&mut store.fields, HERE, key, why);
    }
    import.unknown(
        HERE,
        store.fields,
        "connect-redis has no option of this name and ignores it; nothing to do",
    );
}

/// ioredis puts its own prefix before connect-redis's.
fn prefix<'s>(import: &mut Import<'s>, store: &mut Store<'s>, outer: Option<Text>) {
    let own = store.fields.take("prefix");
    let value = own.as_ref().map_or(Value::Undefined, |field| import.value(field));
    let reason = own.as_ref().map_or("", |field| import.reason(field));
    let inner = match value {
        Value::Null | Value::Undefined => Some(Text::literal("sess:")),
        Value::Text(text) => Some(text),
        _ => None,
    };
    let before = outer.is_some();
    match (inner.and_then(|inner| outer.unwrap_or_default().join(inner)), own) {
        (Some(whole), own) => {
            import.draft.taken += usize::from(own.is_some());
            if whole.as_literal() != Some("sess:") {
                let reason = if before && reason.is_empty() {
                    "the client's keyPrefix and the store's prefix"
                } else {
                    reason
                };
                import.draft.set_text(HERE, "prefix", &whole, "sess:", reason);
            }
        }
        (None, Some(field)) => import.remark(
            HERE,
            &field,
            "cannot be told from the text; write prefix = \"…\", or no session of the app is found",
        ),
        (None, None) => {}
    }
}

fn unknown_client(import: &mut Import<'_>, line: usize) {
    import.url_reference(
        VARIABLE,
        SAMPLE_URL,
        &format!(
            "The client of the store (line {line}) is not in the input: set {VARIABLE} to where it connects."
        ),
    );
}

/// Writes where the client connects; its `keyPrefix`.
fn client_of<'s>(import: &mut Import<'s>, expr: &'s Expr) -> Option<Text> {
    let line = import.reading.line(expr);
    let Value::Other(mut reduced) = import.reading.eval(expr) else {
        unknown_client(import, line);
        return None;
    };
    // `createClient(…).on('error', …)`, `.connect()`
    for _ in 0..16 {
        let Shape::Call(callee, _) = &reduced.shape else { break };
        let Shape::Member(inner, method) = &callee.shape else { break };
        if !["on", "once", "connect", "duplicate"].contains(&method.as_str()) {
            break;
        }
        reduced = match import.reading.eval(inner) {
            Value::Other(inner) => inner,
            _ => break,
        };
    }
    match &reduced.shape {
        Shape::Call(callee, arguments) | Shape::New(callee, arguments) => match last_word(callee) {
            "createClient" | "Redis" | "IORedis" | "default" | "createClientPool" => match arguments
                .as_slice()
            {
                [] => {
                    import.draft.set(HERE, "url", quoted("redis://127.0.0.1:6379"), "the client's default");
                    None
                }
                [first, rest @ ..] => endpoint(import, first, rest),
            },
            "createCluster" | "Cluster" => {
                cluster(import, arguments);
                None
            }
            _ => {
                unknown_client(import, line);
                None
            }
        },
        _ => {
            unknown_client(import, line);
            None
        }
    }
}

fn last_word(expr: &Expr) -> &str {
    match &expr.shape {
        Shape::Name(name) | Shape::Member(_, name) => name,
        _ => "",
    }
}

/// `(url, options?)`, `(port, host?, options?)`, `({ … })`; the `keyPrefix` of the options.
fn endpoint<'s>(import: &mut Import<'s>, first: &'s Expr, rest: &'s [Expr]) -> Option<Text> {
    let mut options = Fields::default();
    for expr in std::iter::once(first).chain(rest) {
        if let Some(fields) = import.reading.fields(expr) {
            options = fields;
        }
    }
    let key_prefix = options.take("keyPrefix").and_then(|field| match import.reading.eval(field.expr) {
        Value::Text(text) => Some(text),
        _ => None,
    });
    if let Some(field) = options.take("url")
        && matches!(import.reading.eval(field.expr), Value::Text(_) | Value::Other(_))
    {
        import.url(field.expr, VARIABLE, SAMPLE_URL);
        return key_prefix;
    }
    match import.reading.eval(first) {
        Value::Text(text) if text.as_literal().is_none_or(|text| text.contains("://")) => {
            import.url(first, VARIABLE, SAMPLE_URL);
        }
        Value::Number(port) => {
            let host = rest.first().map(|host| import.reading.eval(host));
            let host = match host {
                Some(Value::Text(host)) => host,
                _ => Text::literal("127.0.0.1"),
            };
            let tls = options.take("tls").map(|field| import.reading.eval(field.expr));
            let tls = tls.is_some_and(|tls| import.reading.truth(&tls) == Some(true));
            let scheme = if tls { "rediss" } else { "redis" };
            let place = host.join(Text::literal(format!(":{port}"))).map(|place| (scheme, place));
            address(import, place, &mut options, import.reading.line(first));
        }
        _ => {
            let place = place_of(import, &mut options);
            address(import, place, &mut options, import.reading.line(first));
        }
    }
    key_prefix
}

/// Scheme and `host:port` of `{ host, port }` or `{ socket: { host, port } }`; `None` when they cannot be told.
fn place_of<'s>(import: &Import<'s>, options: &mut Fields<'s>) -> Option<(&'static str, Text)> {
    let socket = options.take("socket").and_then(|field| import.reading.fields_of(&field));
    let mut socket = socket.unwrap_or_default();
    let mut part = |name: &str, default: &str| {
        let field = socket.take(name).or_else(|| options.take(name));
        match field.map(|field| import.reading.eval(field.expr)) {
            None | Some(Value::Undefined | Value::Null) => Some(Text::literal(default)),
            Some(Value::Text(text)) => Some(text),
            Some(Value::Number(number)) => Some(Text::literal(number.to_string())),
            Some(_) => None,
        }
    };
    let (host, port, path) = (part("host", "127.0.0.1")?, part("port", "6379")?, part("path", "")?);
    if path.as_literal() != Some("") {
        return Some(("unix", path));
    }
    let tls = socket.take("tls").or_else(|| options.take("tls"));
    let tls = tls.is_some_and(|field| import.reading.truth(&import.reading.eval(field.expr)) == Some(true));
    Some((if tls { "rediss" } else { "redis" }, host.join(Text::literal(":"))?.join(port)?))
}

/// Writes the URL of a place, with the options' user, password and database.
fn address<'s>(
    import: &mut Import<'s>,
    place: Option<(&'static str, Text)>,
    options: &mut Fields<'s>,
    line: usize,
) {
    let sentinels = options.has("sentinels");
    let Some((scheme, place)) = place.filter(|_| !sentinels) else {
        let why = if sentinels {
            "Sentinels are not built: set REDIS_URL to the master"
        } else {
            "It cannot be told from the text where the client connects: set REDIS_URL to it"
        };
        import.url_reference(VARIABLE, SAMPLE_URL, &format!("{why} (line {line})."));
        return;
    };
    import.draft.register(&place, "127.0.0.1");
    let place = place.expandable();
    let (credentials, comment) = credentials(import, options);
    let database = match options
        .take("database")
        .or_else(|| options.take("db"))
        .map(|field| import.reading.eval(field.expr))
    {
        Some(Value::Number(number)) if number > 0.0 => format!("/{number}"),
        Some(Value::Text(text)) => {
            import.draft.register(&text, "0");
            format!("/{}", text.expandable())
        }
        _ => String::new(),
    };
    let url = quoted(&format!("{scheme}://{credentials}{place}{database}"));
    import.draft.set(HERE, "url", url, "");
    comment.into_iter().for_each(|comment| import.draft.above(comment));
    let reference = Text::variable(VARIABLE).unwrap_or_default();
    let reason = format!(
        "What the client is told on line {line} makes no URL that the driver takes: set REDIS_URL to one"
    );
    import.draft.or_else(&reference, SAMPLE_URL, &reason);
}

/// `user:${PASSWORD}@`
fn credentials<'s>(import: &mut Import<'s>, options: &mut Fields<'s>) -> (String, Option<String>) {
    let user = match options.take("username").map(|field| import.reading.eval(field.expr)) {
        Some(Value::Text(text)) => {
            import.draft.register(&text, "user");
            text.expandable()
        }
        _ => String::new(),
    };
    let password = ["password", "pass", "auth_pass"].into_iter().find_map(|key| options.take(key));
    let Some(password) =
        password.filter(|field| import.reading.truth(&import.reading.eval(field.expr)) != Some(false))
    else {
        return (if user.is_empty() { user } else { format!("{user}@") }, None);
    };
    let (text, comment) = import.secret_reference(password.expr, "REDIS_PASSWORD");
    let comment = format!(
        "{} It goes into a URL: percent-encode special characters in it.",
        comment.unwrap_or_default()
    );
    import.draft.register(&text, SAMPLE_SECRET);
    (format!("{user}:{}@", text.expandable()), Some(comment.trim().to_owned()))
}

/// `createCluster({ rootNodes, defaults })`, `new Redis.Cluster([{ host, port }], { redisOptions })`.
fn cluster<'s>(import: &mut Import<'s>, arguments: &'s [Expr]) {
    let Some(first) = arguments.first() else { return unknown_client(import, 1) };
    let line = import.reading.line(first);
    let (nodes, mut defaults) = match import.reading.fields(first) {
        Some(mut options) => {
            let nodes = options.take("rootNodes").map(|field| field.expr);
            (
                nodes,
                options
                    .take("defaults")
                    .and_then(|field| import.reading.fields_of(&field))
                    .unwrap_or_default(),
            )
        }
        None => {
            let redis =
                arguments.get(1).and_then(|options| import.reading.fields(options)?.take("redisOptions"));
            (Some(first), redis.and_then(|field| import.reading.fields_of(&field)).unwrap_or_default())
        }
    };
    let nodes = nodes.map(|nodes| match import.reading.eval(nodes) {
        Value::Other(expr) => expr,
        _ => nodes,
    });
    let items: &[Expr] = match nodes.map(|nodes| &nodes.shape) {
        Some(Shape::Array(items)) => items,
        _ => &[],
    };
    let (credentials, comment) = credentials(import, &mut defaults);
    let mut urls = Vec::new();
    for item in items.iter().take(64) {
        let node = node(import, item);
        if let Some(Text { .. }) = &node {
            import.draft.register(node.as_ref().unwrap_or(&Text::default()), SAMPLE_URL);
        }
        match node {
            Some(text) if !shows_a_password(&text) => {
                let url = text.expandable();
                let bare = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://")).filter(|rest| !rest.contains('@'));
                urls.push(quoted(&match bare {
                    Some(rest) if !credentials.is_empty() => url.replacen(rest, &format!("{credentials}{rest}"), 1),
                    _ => url,
                }));
            }
            _ => import.draft.remark(HERE, format!("line {}: a node with a password in its URL, or one that cannot be told from the text; add it to cluster.", import.reading.line(item))),
        }
    }
    if urls.is_empty() {
        let text = Text::variable(VARIABLE).unwrap_or_default();
        import.draft.register(&text, SAMPLE_URL);
        import.draft.set(HERE, "cluster", list([text.toml()]), "");
        import.draft.above(format!(
            "The nodes on line {line} cannot be told from the text: set REDIS_URL to one of them."
        ));
    } else {
        import.draft.set(HERE, "cluster", list(urls), "");
    }
    comment.into_iter().for_each(|comment| import.draft.above(comment));
}

fn node<'s>(import: &Import<'s>, item: &'s Expr) -> Option<Text> {
    match import.reading.eval(item) {
        Value::Text(url) => Some(url),
        Value::Other(_) => {
            let mut fields = import.reading.fields(item)?;
            if let Some(field) = fields.take("url") {
                return match import.reading.eval(field.expr) {
                    Value::Text(url) => Some(url),
                    _ => None,
                };
            }
            let (scheme, place) = place_of(import, &mut fields)?;
            Text::literal(format!("{scheme}://")).join(place)
        }
        _ => None,
    }
}
