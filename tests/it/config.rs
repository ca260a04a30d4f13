//! `config::parse` over `tests/fixtures/config`, and what a valid file becomes.
//!
//! Every file of `invalid/` names in `# expect: <line>:<column> <key>: <part of the message>` lines exactly the problems
//! that it has, every file of `valid/` in `# warn:` lines its warnings. Secrets in fixtures contain `hunter2`, and no
//! message may.

use cloakroom::config::{self, Config, LogFormat, LogLevel, Problem, Problems, Warning};
use cloakroom::proxy::options::{
    Encoding, InvalidUpdate, Otherwise, SessionMode, StoreUnavailable, UnderscoreHeaders, Unreadable,
};
use cloakroom::server::{Address, TlsOptions};
use cloakroom::session::lifecycle::{Priority, SameSite, Secure, Unset};
use cloakroom::store::{AutoRemove, StoreKind};
use cloakroom::upstream::{Balance, Ejection, Endpoint, HealthCheck, Protocol};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECRET: &str = "hunter2-and-forty-more-characters-of-secret";
const DAY: i64 = 86_400_000;

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" | "SESSION_SECRET" | "HEADER_KEY" | "ADMIN_TOKEN" => Some(SECRET.to_owned()),
        "MONGODB_URL" => Some("mongodb://127.0.0.1/".to_owned()),
        "EMPTY" => Some(String::new()),
        "LEAK" => Some("hunter2 from the environment".to_owned()),
        _ => None,
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config")
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(fixtures().join(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn parse(text: &str) -> Result<(Config, Vec<Warning>), Problems> {
    config::parse(text, "proxy.toml", &fixtures(), env)
}

/// Compares what was found with the comments that begin with `marker`, one for one and in order.
fn compare(path: &Path, text: &str, marker: &str, found: &[Problem]) -> Result<(), String> {
    let expected: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix(marker)).map(str::trim).collect();
    let mut wrong = Vec::new();
    for index in 0..expected.len().max(found.len()) {
        let actual = found.get(index).map(|problem| {
            let hint = problem.hint.as_deref().unwrap_or_default();
            format!("{}:{} {}: {}; {hint}", problem.line, problem.column, problem.key, problem.what)
        });
        let matches = match (&actual, expected.get(index)) {
            (Some(actual), Some(expected)) => {
                let (place, part) = expected.split_once(": ").unwrap_or((expected, ""));
                actual.split_once(": ").is_some_and(|(at, said)| at == place && said.contains(part))
            }
            _ => false,
        };
        if !matches {
            wrong.push(format!("  expected {:?}\n  found    {actual:?}", expected.get(index)));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}:\n{}", path.display(), wrong.join("\n"))) }
}

#[test]
fn every_problem_of_an_invalid_file_is_reported_where_it_is() {
    let files = files("invalid");
    assert!(files.len() >= 15, "saw only {} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        match parse(&text) {
            Ok(_) => wrong.push(format!("{}: accepted", path.display())),
            Err(problems) => {
                assert!(
                    !problems.to_string().contains("hunter2"),
                    "{} shows a secret:\n{problems}",
                    path.display()
                );
                wrong.extend(compare(&path, &text, "# expect: ", &problems.0).err());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn valid_files_are_accepted_with_exactly_their_warnings() {
    let files = files("valid");
    assert!(files.len() >= 5, "saw only {} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        match parse(&text) {
            Ok((config, warnings)) => {
                let shown: String = warnings.iter().map(Warning::to_string).collect();
                assert!(
                    !format!("{config:?}{shown}").contains("hunter2"),
                    "{} shows a secret",
                    path.display()
                );
                let warnings: Vec<Problem> = warnings.into_iter().map(|warning| warning.0).collect();
                wrong.extend(compare(&path, &text, "# warn: ", &warnings).err());
            }
            Err(problems) => wrong.push(format!("{}:\n{problems}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_problem_is_shown_with_its_line_a_caret_and_a_cure() {
    let text = "[[listener]]\naddress = \"127.0.0.1:8080\"\n[session]\n  roling = true # why\n";
    let problems = parse(text).unwrap_err().to_string();
    let expected = "proxy.toml:4:3: session.roling: unknown key; did you mean `rolling`?\n    |   roling = true\n    |   ^^^^^^\n";
    assert!(problems.contains(expected), "{problems}");
    assert!(problems.ends_with("error: 3 problems; nothing was started"), "{problems}");
}

#[test]
fn a_secret_that_an_app_has_already_is_not_made_anew() {
    let cure = |tables: &str| {
        let text = format!("[[listener]]\naddress = \"127.0.0.1:8080\"\n{tables}");
        let problems = parse(&text).unwrap_err().0;
        problems.into_iter().find(|problem| problem.what.contains("MISSING")).unwrap().hint.unwrap()
    };
    let fresh = "$(cloakroom secret)";
    for tables in [
        "[session]\nsecrets = [\"${MISSING}\"]",
        "[store]\nkind = \"mongodb\"\n[store.crypto]\nsecret = \"${MISSING}\"",
    ] {
        let cure = cure(tables);
        assert!(cure.starts_with("set it to the app's secret; for a new deployment"), "{cure}");
        assert!(cure.contains(fresh), "{cure}");
    }
    for tables in [
        "[store]\nkind = \"mongodb\"\n[store.crypto]\nkruptein = { secret = \"${MISSING}\" }",
        "[store]\nkind = \"mongodb\"\n[store.crypto]\nold_secrets = [\"${MISSING}\"]",
        "[store]\nkind = \"mongodb\"\nurl = \"${MISSING}\"",
    ] {
        let cure = cure(tables);
        assert!(
            cure.starts_with("set it") && cure.contains("export MISSING=") && !cure.contains(fresh),
            "{cure}"
        );
    }
    assert!(cure("[admin]\ntoken = \"${MISSING}\"").starts_with("set it to a secret of its own"));
}

#[test]
fn the_defaults_are_the_contracts() {
    let text = fs::read_to_string(fixtures().join("valid/minimal.toml")).unwrap();
    let (config, _) = parse(&text).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(config.drain, seconds(30));
    assert_eq!(config.threads, std::thread::available_parallelism().unwrap().get());
    assert!(config.admin.is_none());
    assert_eq!(
        (config.log.access, config.log.format, config.log.level),
        (true, LogFormat::Auto, LogLevel::Info)
    );
    let server = &config.server;
    assert_eq!(
        (server.tls_handshake, server.request_head, server.keep_alive),
        (seconds(10), seconds(10), seconds(75))
    );
    assert_eq!((server.max_request_head, server.max_headers, server.max_connections), (65_536, 100, 10_000));
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address, Address::Tcp("127.0.0.1:8080".parse().unwrap()));
    assert!(config.listeners[0].tls.is_none() && !config.listeners[0].redirect_to_https);

    let store = config.store.unwrap();
    assert_eq!((store.deadline, store.max_payload), (seconds(2), 1 << 20));
    assert!(matches!(store.kind, StoreKind::Embedded { path } if path == fixtures().join("sessions.redb")));

    let proxy = config.proxy;
    assert_eq!((proxy.underscore_headers, proxy.forwarded), (UnderscoreHeaders::Drop, false));
    assert_eq!(proxy.session_header_limit, 8192);
    assert!(proxy.upstreams[0].max_response_head > (1 << 20) * 4 / 3);
    let session = proxy.session.unwrap();
    assert_eq!((session.name(), session.header_prefix.as_str()), ("connect.sid", "X-Session"));
    assert_eq!((session.proxy, session.forward_cookie), (None, false));
    assert_eq!((session.unreadable, session.encoding), (Unreadable::Anonymous, Encoding::Json));
    assert!(session.signing_key.is_none());
    let policy = session.policy;
    assert!(
        !policy.resave && !policy.save_uninitialized && !policy.rolling && policy.clear_cookie_on_destroy
    );
    assert_eq!((policy.unset, policy.ttl, policy.touch_after), (Unset::Keep, 14 * DAY, 0));
    assert_eq!((policy.max_payload, policy.absolute_timeout), (1 << 20, None));
    assert!(policy.store_keys.is_empty() && policy.regenerate_on.is_empty());
    let cookie = policy.cookie;
    assert_eq!((cookie.path.as_str(), cookie.domain, cookie.http_only), ("/", None, true));
    assert_eq!((cookie.secure, cookie.same_site), (Secure::Auto, SameSite::Lax));
    assert_eq!((cookie.partitioned, cookie.priority, cookie.max_age), (None, None, None));

    let route = &proxy.routes[0];
    assert_eq!((route.host.as_deref(), route.path.as_str(), route.upstream), (None, "/", 0));
    assert_eq!((route.session, &route.otherwise), (SessionMode::On, &Otherwise::Status(401)));
    assert!(route.require.is_empty() && route.claims.is_empty() && route.fields.is_empty());
    assert_eq!(route.max_request_body, None);
    assert_eq!(
        (route.store_unavailable, route.invalid_update),
        (StoreUnavailable::Error, InvalidUpdate::Error)
    );
    let timeouts = route.timeouts;
    assert_eq!(
        (timeouts.connect, timeouts.response_head, timeouts.request_body),
        (seconds(3), seconds(60), seconds(30))
    );
    assert_eq!((timeouts.response_body, timeouts.tunnel), (seconds(60), seconds(3600)));
}

#[test]
fn every_key_reaches_its_option() {
    let text = fs::read_to_string(fixtures().join("valid/everything.toml")).unwrap();
    let (config, _) = parse(&text).unwrap();
    assert!(matches!(config.listeners[0].tls, Some(TlsOptions::SelfSigned)));
    assert_eq!((config.threads, config.drain), (3, Duration::ZERO));
    assert_eq!(config.reload, config::Reload::Signal);
    assert_eq!(
        (config.log.access, config.log.format, config.log.level),
        (false, LogFormat::Json, LogLevel::Debug)
    );
    let admin = config.admin.unwrap();
    assert_eq!(admin.address, Address::Unix(fixtures().join("admin.sock")));
    assert_eq!(admin.token.unwrap().0, b"a-token-of-the-file-hunter2-hunter2-hunter2");

    let StoreKind::Mongodb(mongo) = config.store.unwrap().kind else { panic!("not mongodb") };
    assert_eq!(mongo.url, "mongodb://app:hunter2@127.0.0.1:27017/app");
    assert_eq!((mongo.database.as_deref(), mongo.collection.as_str()), (Some("coats"), "tickets"));
    assert_eq!((mongo.stringify, mongo.timestamps, mongo.touch_after), (false, true, 3_600_000));
    assert_eq!(mongo.auto_remove, AutoRemove::Interval(Duration::from_secs(300)));

    let proxy = config.proxy;
    assert_eq!((proxy.underscore_headers, proxy.forwarded), (UnderscoreHeaders::Reject, true));
    let session = proxy.session.unwrap();
    assert_eq!((session.name(), session.header_prefix.as_str()), ("__Host-sid", "X-Coat"));
    assert_eq!((session.proxy, session.forward_cookie), (Some(false), true));
    assert_eq!((session.unreadable, session.encoding), (Unreadable::Error, Encoding::Base64url));
    assert!(session.signing_key.is_some());
    assert_eq!(session.keys.len(), 2);
    let policy = session.policy;
    assert!(policy.resave && policy.save_uninitialized && policy.rolling && !policy.clear_cookie_on_destroy);
    assert_eq!((policy.unset, policy.ttl, policy.touch_after), (Unset::Destroy, DAY, 3_600_000));
    assert_eq!((policy.absolute_timeout, policy.regenerate_on.len()), (Some(30 * DAY), 2));
    assert_eq!(policy.store_keys, ["lastModified"]);
    let cookie = policy.cookie;
    assert_eq!(
        (cookie.http_only, cookie.secure, cookie.same_site),
        (false, Secure::Always, SameSite::Strict)
    );
    assert_eq!((cookie.partitioned, cookie.priority), (Some(true), Some(Priority::High)));
    assert_eq!(cookie.max_age, Some(250 * 3_600_000));

    let servers = &proxy.upstreams[0].servers;
    assert_eq!(servers[1], Endpoint::Http { host: "::1".to_owned(), port: 80 });
    assert_eq!(servers[2], Endpoint::Unix(fixtures().join("app.sock")));
    let [first, second] = &proxy.routes[..] else { panic!("two routes") };
    assert_eq!(
        (first.store_unavailable, first.invalid_update),
        (StoreUnavailable::Anonymous, InvalidUpdate::Ignore)
    );
    assert_eq!(first.max_request_body, Some(4096));
    assert_eq!((second.host.as_deref(), second.path.as_str()), (Some("*.example.com"), "/café au lait/"));
    assert_eq!((second.upstream, second.session), (1, SessionMode::ReadOnly));
    assert_eq!(
        (second.require.len(), second.fields.len(), &second.otherwise),
        (1, 2, &Otherwise::Status(403))
    );
    assert_eq!(
        second.claims.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["x-user", "x-forwarded-user"]
    );
    assert_eq!(
        (second.store_unavailable, second.invalid_update),
        (StoreUnavailable::Error, InvalidUpdate::Error)
    );
    assert_eq!(
        (second.timeouts.response_head, second.timeouts.tunnel),
        (Duration::from_secs(300), Duration::from_secs(7200))
    );
    assert_eq!((second.timeouts.connect, second.max_request_body), (first.timeouts.connect, Some(10 << 20)));
}

#[test]
fn without_sessions_there_is_no_store_and_no_secret_to_give() {
    let text = fs::read_to_string(fixtures().join("valid/without_sessions.toml")).unwrap();
    let (config, _) = parse(&text).unwrap();
    assert!(config.proxy.session.is_none() && config.store.is_none());
    let text = fs::read_to_string(fixtures().join("valid/redirect_only.toml")).unwrap();
    let (config, _) = parse(&text).unwrap();
    assert!(config.proxy.routes.is_empty() && config.listeners[0].redirect_to_https);
}

/// The shipped file works with one variable set, says nothing but defaults, and each commented-out key is a real one.
#[test]
fn the_shipped_file_is_valid_and_shows_real_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (config, warnings) = parse(&text).unwrap();
    assert_eq!(warnings, []);
    let minimal = fs::read_to_string(fixtures().join("valid/minimal.toml")).unwrap();
    let (mut defaults, _) = parse(&minimal).unwrap();
    defaults.admin.clone_from(&config.admin);
    assert_eq!(format!("{config:?}"), format!("{defaults:?}"));

    let unset = config::parse(&text, "proxy.toml", &fixtures(), |_| None).unwrap_err();
    assert_eq!(unset.0.len(), 1, "{unset}");
    assert!(unset.0[0].what.contains("SESSION_SECRET"), "{unset}");

    let (keys, blocks) = commented_out(&text);
    assert!(
        keys.len() >= 10 && blocks.len() >= 3,
        "saw only {} keys and {} tables",
        keys.len(),
        blocks.len()
    );
    for variant in keys.into_iter().chain(blocks) {
        let Err(problems) = parse(&variant) else { continue };
        for problem in &problems.0 {
            let misplaced =
                ["unknown key", "a key of", "not valid TOML"].iter().any(|part| problem.what.contains(part));
            assert!(!misplaced, "{problem}\n{variant}");
        }
    }
}

/// The text once for each commented-out key with that key in force, and once for each commented-out table with that
/// table in force (in place of the one of its name, unless it is one of a list).
fn commented_out(text: &str) -> (Vec<String>, Vec<String>) {
    let paragraphs: Vec<&str> = text.split("\n\n").collect();
    let (mut keys, mut blocks) = (Vec::new(), Vec::new());
    for (index, paragraph) in paragraphs.iter().enumerate() {
        if let Some(header) = paragraph.strip_prefix("# [").and_then(|rest| rest.lines().next()) {
            let block = paragraph
                .lines()
                .map(|line| format!("{}\n", line.trim_start_matches("# ")))
                .collect::<String>();
            let stays = |other: &&&str| {
                header.starts_with('[') || !other.lines().any(|line| line.strip_prefix('[') == Some(header))
            };
            let others: Vec<&str> = paragraphs.iter().filter(stays).copied().collect();
            blocks.push(format!("{}\n{block}", others.join("\n\n")));
            continue;
        }
        for line in paragraph.lines() {
            let key = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).map(|(key, _)| key);
            if index > 0 && key.is_some_and(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')) {
                keys.push(text.replacen(line, line.trim_start_matches("# "), 1));
            }
        }
    }
    (keys, blocks)
}

#[test]
fn certificates_are_looked_at() {
    let folder = std::env::temp_dir().join(format!("cloakroom-test-tls-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let text = |tls: &str| {
        format!(
            "[[listener]]\naddress = '127.0.0.1:8443'\ntls = {tls}\n[[listener]]\naddress = '127.0.0.1:8080'\nredirect_to_https = true\n\
                 [[route]]\npath = '/'\nupstream = 'app'\n[upstream.app]\nservers = ['http://127.0.0.1:1']\n\
                 [session]\nname = '__Host-sid'\nsecrets = ['${{SECRET}}']"
        )
    };
    let parse = |tls: &str| config::parse(&text(tls), "proxy.toml", &folder, env);
    let one = "{ cert = 'cert.pem', key = 'key.pem' }";
    for tls in [one, &format!("[{one}, {one}]")] {
        let (config, warnings) = parse(tls).unwrap();
        // With every serving listener on TLS, secure = "auto" is enough for __Host-.
        assert_eq!(warnings, []);
        assert!(
            matches!(&config.listeners[0].tls, Some(TlsOptions::Files(files)) if files[0].cert == folder.join("cert.pem"))
        );
    }
    let problems = parse(&format!("[{one}, {{ cert = 'cert.pem', key = 'nowhere.pem' }}]")).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
    assert_eq!((problems.0[0].key.as_str(), problems.0[0].line), ("listener[0].tls[1]", 3));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_with_a_cure() {
    let problems = config::load(Path::new("nowhere/proxy.toml")).unwrap_err().to_string();
    assert!(problems.starts_with("nowhere/proxy.toml: no such file; name one with --config"), "{problems}");
    let problems = config::load(&fixtures()).unwrap_err().to_string();
    assert!(problems.contains("folder"), "{problems}");
    let odd = std::env::temp_dir().join(format!("cloakroom-test-{}.toml", std::process::id()));
    fs::write(&odd, b"[log]\nlevel = \"\xff\"\n").unwrap();
    let problems = config::load(&odd).unwrap_err().to_string();
    assert!(problems.contains("line 2 is not UTF-8"), "{problems}");
    fs::remove_file(odd).unwrap();
}

#[test]
fn line_ends_and_marks_of_other_systems_do_not_move_places() {
    let problems = parse("\u{feff}[log]\r\naccess = true\r\nlevle = \"ä\"\r\n").unwrap_err();
    let last = problems.0.last().unwrap();
    assert_eq!((last.line, last.column, last.key.as_str()), (3, 1, "log.levle"));
}

proptest::proptest! {
    /// Whatever stands in the file, the answer is a configuration or a list of problems that name places in it.
    #[test]
    fn no_text_makes_it_panic(at in 0_usize..4000, length in 0_usize..40, put in r#"[\[\]{}"'=.,#$\\ \n\PC]{0,6}"#, which in 0_usize..100) {
        let files = [files("valid"), files("invalid")].concat();
        let text = fs::read_to_string(&files[which % files.len()]).unwrap();
        let mut chars: Vec<char> = text.chars().collect();
        let start = at % chars.len();
        let end = (start + length).min(chars.len());
        chars.splice(start..end, put.chars());
        let text: String = chars.into_iter().collect();
        if let Err(problems) = parse(&text) {
            proptest::prop_assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                proptest::prop_assert!((1..=text.lines().count().max(1) + 1).contains(&problem.line), "{}", problem);
                proptest::prop_assert!(!problem.to_string().contains("please report"), "{}", problem);
            }
        }
    }
}

#[test]
fn every_key_of_an_upstream_reaches_its_option() {
    let text = fs::read_to_string(fixtures().join("valid/warnings_upstreams.toml")).unwrap();
    let (config, _) = parse(&text).unwrap();
    let [all, far] = &config.proxy.upstreams[..] else { panic!("two upstreams") };
    let (millis, seconds) = (Duration::from_millis, Duration::from_secs);
    assert_eq!(all.servers[1], Endpoint::Https { host: "app.internal".to_owned(), port: 443 });
    assert_eq!((all.balance, all.protocol), (Balance::LeastRequests, Protocol::Auto));
    assert!(all.tls.is_some() && far.tls.is_none());
    assert_eq!(all.ejection, Ejection { after: 5, span: seconds(1) });
    assert_eq!((all.retries, all.max_connections, all.max_idle), (0, 100, 0));
    assert_eq!((all.idle_timeout, all.resolve), (seconds(30), seconds(5)));
    let health = HealthCheck {
        path: "/up?x=1".to_owned(),
        interval: seconds(2),
        timeout: millis(500),
        healthy: 1,
        unhealthy: 1,
        expect: 204,
    };
    assert_eq!(all.health, Some(health));

    assert_eq!((far.balance, far.protocol), (Balance::Sticky, Protocol::Http1));
    assert_eq!(far.ejection, Ejection { after: 3, span: seconds(5) });
    assert_eq!((far.retries, far.max_connections, far.max_idle), (1, 10_000, 128));
    assert_eq!((far.idle_timeout, far.resolve), (seconds(4), seconds(30)));
    let health = far.health.as_ref().unwrap();
    assert_eq!(
        (health.path.as_str(), health.expect, health.healthy, health.unhealthy),
        ("/healthz", 200, 2, 3)
    );
    assert_eq!((health.interval, health.timeout), (seconds(5), seconds(1)));
    let totals: Vec<_> = config.proxy.routes.iter().map(|route| route.timeouts.request).collect();
    assert_eq!(totals, [None, Some(seconds(300))]);
}
