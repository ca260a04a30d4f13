//! `cloakroom import`: options as they stand in apps, the configuration that comes of each, and what is refused.
//!
//! Every input of `tests/fixtures/import` has its configuration beside it, as `.toml`; `check` accepts each once its variables
//! are set. Secrets in the inputs contain `hunter2`, and no output may.

use cloakroom::cli::import::{Imported, convert};
use cloakroom::config::{self, Config};
use cloakroom::session::lifecycle::{SameSite, Secure, Unset};
use cloakroom::store::{AutoRemove, StoreKind};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const DAY: i64 = 86_400_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import")
}

fn inputs() -> Vec<PathBuf> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end != "toml")).collect();
    files.sort();
    files
}

/// What an operator would set.
fn env(name: &str) -> Option<String> {
    let value = match name {
        name if name.contains("MONGO") => "mongodb://127.0.0.1:27017/app",
        "REDIS_URL" => "redis://127.0.0.1:6379",
        "COOKIE_DOMAIN" => "example.com",
        "REDIS_HOST" | "DB_USER" | "DB_PASS" | "STAGE" => "word",
        "SESSION_MS" | "TTL" => "60000",
        "NODE_3" => "10.0.0.3",
        "UNSET" => return None,
        _ => "a-secret-of-more-than-thirty-two-characters",
    };
    Some(value.to_owned())
}

fn import(input: &str) -> Imported {
    convert(input.as_bytes()).unwrap_or_else(|refusal| panic!("{refusal}\n{input}"))
}

fn accepted(toml: &str) -> Config {
    config::parse(toml, "proxy.toml", &folder(), env)
        .unwrap_or_else(|problems| panic!("{problems}\n{toml}"))
        .0
}

/// Imports `session({ … })` with these options.
fn options(inside: &str) -> (String, Config) {
    let toml = import(&format!("app.use(session({{ secret: process.env.S, {inside} }}))")).toml;
    let config = accepted(&toml);
    (toml, config)
}

/// The lines of the store's section.
fn store(inside: &str) -> String {
    let (toml, _) = options(&format!("store: {inside}"));
    toml.split("[store]\n").nth(1).unwrap().split("\n[upstream").next().unwrap().to_owned()
}

fn refused(input: &str) -> String {
    convert(input.as_bytes()).expect_err(input).to_string()
}

#[test]
fn every_input_becomes_its_configuration_and_check_accepts_it() {
    let inputs = inputs();
    assert!(inputs.len() >= 10, "saw only {}", inputs.len());
    let mut wrong = Vec::new();
    for path in inputs {
        let imported = import(&fs::read_to_string(&path).unwrap());
        let expected = fs::read_to_string(path.with_extension("toml")).unwrap();
        if imported.toml != expected {
            wrong.push(format!("{}: found\n{}", path.display(), imported.toml));
        }
        accepted(&imported.toml);
        assert!(imported.taken > 0, "{}", path.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_secret_of_an_input_is_in_its_configuration() {
    let mut with_secrets = 0;
    for path in inputs() {
        let input = fs::read_to_string(&path).unwrap();
        with_secrets += usize::from(input.contains("hunter2"));
        let toml = import(&input).toml;
        assert!(!toml.contains("hunter2"), "{}:\n{toml}", path.display());
    }
    assert!(with_secrets >= 10, "only {with_secrets} inputs have a secret");
    for inside in [
        "secret: ['hunter2', `hunter2`, 'hun' + 'ter2']",
        "secret: process.env.A || 'hunter2'",
        "secret: `${process.env.A}hunter2`",
        "secret: decrypt('hunter2')",
        "secret: A, genid: () => 'hunter2', name: f('hunter2'), rolling: g`hunter2`, x: /hunter2/",
        "secret: A, store: MongoStore.create({ mongoUrl: 'mongodb://:hunter2@h/a' })",
        "secret: A, store: MongoStore.create({ mongoUrl: process.env.MONGO || 'mongodb://u:hunter2@h/a' })",
        "secret: A, store: MongoStore.create({ mongoUrl: `mongodb://u:${process.env.P}hunter2@h/a` })",
        "secret: A, store: MongoStore.create({ mongoUrl: 'mongodb://h/a', cryptoAdapter: createWebCryptoAdapter({ secret: 'hunter2' }) })",
        "secret: A, store: new RedisStore({ client: createClient({ url: 'redis://u:hunter2@h' }) })",
        "secret: A, store: new RedisStore({ client: createClient({ url: 'redis://h', password: 'hunter2' }) })",
        "secret: A, store: new RedisStore({ client: createCluster({ rootNodes: [{ url: 'redis://:hunter2@h' }] }) })",
        "secret: A, store: new RedisStore({ client: new Redis('redis://:hunter2@h/1') })",
    ] {
        let toml = import(&format!("const A = 'hunter2'; session({{ {inside} }})")).toml;
        assert!(!toml.contains("hunter2"), "{inside}\n{toml}");
        accepted(&toml);
    }
}

#[test]
fn what_is_left_out_is_what_express_session_does() {
    let policy = options("").1.proxy.session.unwrap().policy;
    assert!((policy.resave, policy.save_uninitialized, policy.rolling) == (true, true, false));
    assert_eq!(policy.unset, Unset::Keep);
    assert_eq!(policy.cookie.secure, Secure::Never);
    assert_eq!(policy.cookie.same_site, SameSite::Unset);
    assert_eq!(policy.cookie.max_age, None);
    let kind = |inside: &str| options(inside).1.store.unwrap().kind;
    assert!(matches!(kind(""), StoreKind::Memory { .. }));
    let StoreKind::Redis(redis) = kind("store: new RedisStore({ client: createClient() })") else { panic!() };
    assert_eq!((redis.prefix.as_str(), redis.ttl), ("sess:", DAY));
    let StoreKind::File(file) = kind("store: new FileStore()") else { panic!() };
    assert_eq!(file.ttl, 3_600_000);
    let StoreKind::Mongodb(mongo) = kind("store: MongoStore.create({ mongoUrl: 'mongodb://h/a' })") else {
        panic!()
    };
    assert_eq!((mongo.collection.as_str(), mongo.auto_remove), ("sessions", AutoRemove::Native));
}

#[test]
fn ages_are_computed_in_the_units_of_each_option() {
    for (expression, expected) in [
        ("1000 * 60 * 60 * 24", "\"1d\""),
        ("(2 + 3) * 1e3", "\"5s\""),
        ("7 * 24 * HOUR", "\"7d\""),
        ("2 ** 10 + 476", "\"1500ms\""),
        ("+'60000'", "\"1m\""),
        ("Number('60000') % 50000", "\"10s\""),
        ("parseInt('3600000ms', 10)", "\"1h\""),
        ("ms('2 days')", "\"2d\""),
        ("process.env.NODE_ENV !== 'production' ? 1000 : 2000", "\"2s\""),
        ("null ?? 3000", "\"3s\""),
        ("times.week", "\"7d\""),
        ("1234.9", "\"1234ms\""),
        ("parseInt(process.env.TTL) || 5000", "\"${TTL:-5000}ms\""),
        ("1e99", "\"36500d\""),
    ] {
        let input = format!(
            "const HOUR = 3_600_000, times = {{ day: 24 * HOUR, get x() {{ return 1 }}, week: 7 * 24 * HOUR }}\n\
             session({{ secret: process.env.S, cookie: {{ maxAge: {expression} }} }})"
        );
        let toml = import(&input).toml;
        let line = toml.lines().find(|line| line.starts_with("max_age = "));
        let value = line.map(|line| line["max_age = ".len()..].split("  #").next().unwrap().trim());
        assert_eq!(value, Some(expected), "{expression}\n{toml}");
        accepted(&toml);
    }
    for expression in ["later()", "'60000'", "0", "-5", "NaN", "1 / 0", "x + 1", "process.env.A * 1000"] {
        let (toml, config) = options(&format!("cookie: {{ maxAge: {expression} }}"));
        assert!(toml.contains("# maxAge: "), "{expression}\n{toml}");
        assert_eq!(config.proxy.session.unwrap().policy.cookie.max_age, None, "{expression}");
    }
    let lines = store(
        "MongoStore.create({ mongoUrl: 'mongodb://h/a', ttl: 90, touchAfter: 1.5, autoRemove: 'interval', autoRemoveInterval: 0.5 })",
    );
    for line in ["ttl = \"90s\"", "touch_after = \"1500ms\"", "auto_remove_interval = \"30s\""] {
        assert!(lines.contains(line), "{line}\n{lines}");
    }
}

#[test]
fn transform_ids_in_the_usual_forms() {
    for (function, expected) in [
        ("(s) => createHash('sha256').update(s).digest('hex')", "\"sha256\""),
        ("sid => crypto.createHash('SHA-1').update(sid, 'utf8').digest('hex')", "\"sha1\""),
        ("function (a) { return `p:${a}`; }", "{ prefix = \"p:\" }"),
        ("(a) => 'x' + String(a)", "{ prefix = \"x\" }"),
        ("hashed", "{ hash = \"sha512\", encoding = \"base64\" }"),
    ] {
        let toml = import(&format!(
            "const hashed = (id) => {{ return createHash('sha512').update(id).digest('base64') }}\n\
             session({{ secret: process.env.S, store: MongoStore.create({{ mongoUrl: 'mongodb://h/a', transformId: {function} }}) }})"
        ))
        .toml;
        assert!(toml.contains(&format!("transform_id = {expected}\n")), "{function}\n{toml}");
        accepted(&toml);
    }
    for function in
        ["(a) => a.slice(1)", "(a) => createHash('md5').update(a).digest('hex')", "(a, b) => a", "f"]
    {
        let lines =
            store(&format!("MongoStore.create({{ mongoUrl: 'mongodb://h/a', transformId: {function} }})"));
        assert!(lines.contains("# transformId: "), "{function}\n{lines}");
    }
}

#[test]
fn an_app_that_encrypts_is_never_imported_in_plain_text() {
    for inside in [
        "crypto: { secret: 'x' }",
        "crypto: { secret: 'x', algorithm: 'aes-128-cbc' }",
        "crypto: cryptoOptions",
        "cryptoAdapter: createWebCryptoAdapter({ secret: 'x' })",
        "cryptoAdapter: createWebCryptoAdapter({ secret: 'x', algorithm: 'AES-CBC' })",
        "cryptoAdapter: createKrupteinAdapter({ secret: 'x' })",
        "cryptoAdapter: myAdapter()",
        "cryptoAdapter: adapter",
    ] {
        let (toml, config) =
            options(&format!("store: MongoStore.create({{ mongoUrl: 'mongodb://h/a', {inside} }})"));
        let StoreKind::Mongodb(mongo) = config.store.unwrap().kind else { panic!("{toml}") };
        assert!(mongo.crypto.is_some(), "{inside}\n{toml}");
    }
    let input = "const MongoStore = require('connect-mongo')(session)\n\
                 app.use(session({ secret: 'a', store: new MongoStore({ url: 'mongodb://h/a', secret: 'b' }) }))";
    let StoreKind::Mongodb(mongo) = accepted(&import(input).toml).store.unwrap().kind else { panic!() };
    assert!(mongo.crypto.is_some());
    for inside in ["crypto: { secret: false }", "crypto: undefined", "cryptoAdapter: null"] {
        let lines = store(&format!("MongoStore.create({{ mongoUrl: 'mongodb://h/a', {inside} }})"));
        assert!(!lines.contains("[store.crypto]"), "{inside}\n{lines}");
    }
}

#[test]
fn redis_clients_become_urls() {
    for (client, expected) in [
        ("createClient()", "url = \"redis://127.0.0.1:6379\""),
        ("createClient(6380, 'h')", "url = \"redis://h:6380\""),
        (
            "createClient({ socket: { host: 'h', port: 1, tls: true }, database: 2 })",
            "url = \"rediss://h:1/2\"",
        ),
        ("createClient({ socket: { host: 'h', tls: false } })", "url = \"redis://h:6379\""),
        ("createClient({ url: process.env.REDIS_URL }).on('error', log)", "url = \"${REDIS_URL}\""),
        ("new Redis(process.env.REDIS_URL)", "url = \"${REDIS_URL}\""),
        ("new IORedis({ host: 'h', password: process.env.P })", "url = \"redis://:${P}@h:6379\""),
        ("new Redis({ sentinels: [{ host: 'h' }], name: 'm' })", "url = \"${REDIS_URL}\""),
        ("somewhere", "url = \"${REDIS_URL}\""),
        ("createClient({ url: 'http://h' })", "url = \"${REDIS_URL}\""),
        (
            "new Redis.Cluster([{ host: 'a', port: 1 }, 'redis://b:2'])",
            "cluster = [\"redis://a:1\", \"redis://b:2\"]",
        ),
    ] {
        let lines = store(&format!("new RedisStore({{ client: {client} }})"));
        assert!(lines.contains(expected), "{client}\n{lines}");
    }
}

#[test]
fn what_the_sidecar_refuses_is_a_comment_that_says_why() {
    for (inside, comment) in [
        (
            "name: 'a b'",
            "# name: left out, the sidecar does not take the app's value: `a b` is not a cookie name",
        ),
        ("cookie: { path: 'x' }", "# path: left out, "),
        ("cookie: { domain: 'a:80' }", "# domain: left out, "),
        (
            "store: MongoStore.create({ mongoUrl: 'mongodb://h/a', collectionName: 'a$b' })",
            "# collection: left out, ",
        ),
    ] {
        let (toml, _) = options(inside);
        assert!(toml.contains(comment), "{inside}\n{toml}");
    }
    let toml = import("app.set('trust proxy', '1'); app.use(session({ secret: 'a' }))").toml;
    assert!(toml.contains("# trust_proxy: left out, "), "{toml}");
    accepted(&toml);
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    for (input, expected) in [
        ("", "there is nothing in it; expected an options object"),
        ("{ secret: 'x' resave: true }", "1:15: expected `,` or `}`, found `resave`"),
        ("session({\n  secret: ,\n})", "2:11: expected a value, found `,`"),
        ("app.use(session({ secret: 'x' })", "1:8: this bracket is never closed"),
        ("{ secret: 'x\n}", "1:11: a string without end, expected ' on the same line"),
        ("{ a: 14d }", "1:6: not a JavaScript number"),
        ("{ a: 1 /* }", "1:8: a comment without end"),
        ("session(require('./options'))", "1:9: expected the options of the session, found require('…')"),
        (
            "const o = { secret: 'x', cookie: { maxAge 5 } }\nsession(o)",
            "1:43: expected `:` and a value, found `5`",
        ),
        ("secret: keyboard\nresave: false\n", "this looks like YAML"),
        ("---\nsession:\n  secret: 'it's'\n", "this looks like YAML"),
        (
            "const app = express()\napp.listen(3000)",
            "no session({ … }) and no options of express-session in it",
        ),
        ("{ secret: \u{201c}x\u{201d} }", "1:11: '\u{201c}' is no JavaScript here"),
    ] {
        let refusal = refused(input);
        assert!(refusal.starts_with(expected), "{input}\n{refusal}");
    }
    assert!(convert(b"{ a: '\xff' }").unwrap_err().to_string().starts_with("line 1 is not UTF-8"));
    let large = format!("{{ a: '{}' }}", "x".repeat(1 << 20));
    assert!(refused(&large).starts_with("larger than 1 MiB"));
    for (open, close) in
        [("[", "]"), ("(", ")"), ("{ a: ", "}"), ("f(", ")"), ("!", ""), ("a => ", ""), ("`${", "}`")]
    {
        let deep = format!("session({{ secret: {}1{} }})", open.repeat(5000), close.repeat(5000));
        assert!(refused(&deep).contains("deeper than 100 levels"), "{open}: {}", refused(&deep));
    }
    let chain = format!("session({{ secret: a{}, x: 1{} }})", ".b".repeat(5000), "+1".repeat(5000));
    assert!(refused(&chain).contains("deeper than 100 levels"));
}

#[test]
fn variables_stay_variables() {
    for (inside, expected) in [
        ("name: process.env.NAME || 'sid'", "name = \"${NAME:-sid}\""),
        ("name: process.env['NAME'] ?? `a`", "name = \"${NAME:-a}\""),
        ("name: env.NAME", "name = \"${NAME}\""),
        ("name: 'a' + NAME + '.sid'", "name = \"a${NAME}.sid\""),
        ("name: OTHER", "name = \"${OTHER:-b}\""),
        ("name: third", "name = \"${THIRD:-c}\""),
        ("cookie: { domain: process.env.COOKIE_DOMAIN }", "domain = \"${COOKIE_DOMAIN}\""),
        ("cookie: { sameSite: process.env.SAME_SITE }", "same_site = \"${SAME_SITE}\""),
        ("store: MongoStore.create({ mongoUrl: process.env.MONGO })", "url = \"${MONGO}\""),
        (
            "store: MongoStore.create({ mongoUrl: 'mongodb://h/a', ttl: +process.env.TTL })",
            "ttl = \"${TTL}s\"",
        ),
        ("store: new FileStore({ path: process.env.DIR || './s' })", "path = \"${DIR:-./s}\""),
        (
            "store: new RedisStore({ client: c, prefix: process.env.NODE_ENV + ':' })",
            "prefix = \"${NODE_ENV}:\"",
        ),
        // No default of a secret, and no name that `${}` cannot hold.
        ("secret: process.env.A || process.env.B || 'c'", "secrets = [\"${A}\"]"),
        ("secret: process.env['a-b']", "secrets = [\"${SESSION_SECRET}\"]"),
        ("name: process.env['a-b']", "# name: "),
    ] {
        let input = format!(
            "const {{ env }} = process, {{ NAME, OTHER = 'b', THIRD: third = 'c' }} = process.env\napp.use(session({{ {inside} }}))"
        );
        let toml = import(&input).toml;
        assert!(toml.contains(expected), "{inside}\n{toml}");
        let of = |name: &str| if name == "SAME_SITE" { Some("none".to_owned()) } else { env(name) };
        assert!(config::parse(&toml, "proxy.toml", &folder(), of).is_ok(), "{toml}");
    }
}

#[test]
fn circles_and_doublings_end() {
    let mut input = String::from("const a0 = 'xxxxxxxxxxxxxxxx';\n");
    for index in 1..60 {
        input.push_str(&format!("const a{index} = a{} + a{};\n", index - 1, index - 1));
    }
    input.push_str("const p = q, q = p, o = { ...o, ...r }, r = { ...o };\n");
    input.push_str("session({ ...o, secret: a59, name: a40, cookie: { maxAge: p, ...q } })");
    accepted(&import(&input).toml);
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .arg("import")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse its arguments before it reads.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn the_command_reads_a_file_or_standard_input_and_overwrites_nothing() {
    let folder = std::env::temp_dir().join(format!("cloakroom-import-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let output = folder.join("out.toml");
    let output = output.to_str().unwrap();
    let input = "{ secret: 'hunter2', resave: false, genid: f }";

    let plain = run(&[], input);
    let said = String::from_utf8(plain.stderr).unwrap();
    assert_eq!(plain.status.code(), Some(0), "{said}");
    assert_eq!(String::from_utf8(plain.stdout).unwrap(), import(input).toml);
    let expected = "2 options taken over, 1 without a match (a comment each)\nset: SESSION_SECRET\nnext: cloakroom check --config proxy.toml\n";
    assert_eq!(said, expected);

    assert_eq!(run(&["--output", output], input).status.code(), Some(0));
    let again = run(&["--output", output], "{ secret: 'x', rolling: true }");
    assert_eq!(again.status.code(), Some(64));
    assert!(String::from_utf8(again.stderr).unwrap().contains("--force overwrites it"));
    assert_eq!(fs::read_to_string(output).unwrap(), import(input).toml);
    let file = folder.join("options.js");
    fs::write(&file, "{ secret: 'x', rolling: true }").unwrap();
    assert_eq!(run(&[file.to_str().unwrap(), "--output", output, "--force"], "").status.code(), Some(0));
    assert!(fs::read_to_string(output).unwrap().contains("rolling = true"));

    let bad = run(&[], "{ secret 'x' }");
    assert_eq!((bad.status.code(), bad.stdout.len()), (Some(64), 0));
    assert_eq!(
        String::from_utf8(bad.stderr).unwrap(),
        "error: standard input:1:10: expected `:` and a value, found a string; nothing was written\n"
    );
    assert_eq!(run(&["nowhere/options.js"], "").status.code(), Some(64));
    assert_eq!(run(&["--output", "/nowhere/at/all.toml"], input).status.code(), Some(1));
    fs::remove_dir_all(&folder).unwrap();
}

/// Pieces of which snippets are made, good and bad.
fn soup() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "session(",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ",",
        ":",
        ";",
        "=>",
        "=",
        "...",
        "`",
        "${",
        "'x'",
        "\"a",
        "/",
        "\\",
        "secret",
        "cookie",
        "maxAge",
        "store",
        "new",
        "MongoStore",
        "RedisStore",
        "client",
        "const",
        "function",
        "if",
        "else",
        "process.env.A",
        "1e3",
        "0x",
        "-",
        "+",
        "?",
        "||",
        "as",
        "<",
        ">",
        ".",
        "true",
        "null",
        "\n",
        "async",
        "import",
        "from",
        "return",
        "é",
        "\u{0}",
        "!",
        "class",
        "require('connect-mongo')",
        "app.set('trust proxy',",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
}

/// Values that an option may have.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "true",
            "false",
            "null",
            "undefined",
            "0",
            "-1",
            "1e9",
            "NaN",
            "''",
            "'lax'",
            "'auto'",
            "'${A}'",
            "'a\\nb'",
            "f()",
            "() => 1",
            "{}",
            "[]",
            "[1, 'a']",
            "/x/",
            "'mongodb://h/a'",
            "'redis://h'",
            "'__Host-a'",
            "'/'",
            "new Date()",
            "{ secret: 'x' }",
            "new X({})",
            "new RedisStore({ client: c, prefix: p, ttl: 5 })",
            "MongoStore.create({ mongoUrl: u, ttl: -1 })",
            "new FileStore({ path: './x', ttl: 0 })",
            "new MemoryStore({ checkPeriod: 1 })",
        ])
        .prop_map(str::to_owned),
        any::<f64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ]
}

fn pairs(keys: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec((prop::sample::select(keys), value()), 0..8)
        .prop_map(|pairs| pairs.into_iter().map(|(key, value)| format!("{key}: {value}, ")).collect())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), soup in soup()) {
        let _ = convert(text.as_bytes());
        let _ = convert(soup.as_bytes());
        let _ = convert(format!("session({{ secret: {soup} }})").as_bytes());
    }

    #[test]
    fn whatever_the_options_are_check_accepts_what_is_written(
        session in pairs(&["secret", "name", "key", "resave", "saveUninitialized", "rolling", "unset", "proxy", "genid", "store", "x"]),
        cookie in pairs(&["maxAge", "secure", "sameSite", "httpOnly", "path", "domain", "priority", "partitioned", "expires"]),
        mongo in pairs(&[
            "mongoUrl", "dbName", "collectionName", "ttl", "touchAfter", "autoRemove", "autoRemoveInterval", "stringify", "timestamps",
            "transformId", "crypto", "writeOperationOptions", "client", "serialize",
        ]),
        redis in pairs(&["client", "prefix", "ttl", "disableTouch", "disableTTL", "scanCount", "url", "host", "port"]),
        file in pairs(&["path", "ttl", "reapInterval", "secret", "fileExtension", "retries"]),
        trust in value(),
        which in 0..4,
    ) {
        let store = match which {
            0 => format!("store: MongoStore.create({{ {mongo} }})"),
            1 => format!("store: new RedisStore({{ {redis} }})"),
            2 => format!("store: new FileStore({{ {file} }})"),
            _ => String::new(),
        };
        let input = format!("app.set('trust proxy', {trust}); app.use(session({{ {session} cookie: {{ {cookie} }}, {store} }}))");
        let imported = convert(input.as_bytes());
        prop_assert!(imported.is_ok(), "{:?}\n{input}", imported.err());
        let toml = imported.unwrap().toml;
        let parsed = config::parse(&toml, "proxy.toml", &folder(), env);
        prop_assert!(parsed.is_ok(), "{}\n{input}\n{toml}", parsed.err().map(|p| p.to_string()).unwrap_or_default());
    }
}
