//! The README and `deploy/` against the code: configurations parse, the config reference names exactly the keys that there are,
//! the defaults it gives are the real ones, and the reason words are spoken by the code.
//!
//! The list of keys comes from the code itself: an unknown key's problem says what is valid in its place.

use cloakroom::config::{self, Config, Problems, Warning};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// No key that anybody would write, and near to none.
const UNKNOWN: &str = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";

/// A configuration with every section; `#<section>` marks where a line of that section may be put.
const EVERY_SECTION: &str = r##"
#root
[[listener]]
address = "127.0.0.1:8080"
#[[listener]]
[server]
#[server]
[session]
secrets = ["${SESSION_SECRET}"]
#[session]
[session.cookie]
#[session.cookie]
[session.headers]
#[session.headers]
[store]
#[store]
[upstream.app]
servers = ["http://127.0.0.1:3000"]
#[upstream.<name>]
[[route]]
path = "/"
upstream = "app"
#[[route]]
[admin]
address = "127.0.0.1:9901"
#[admin]
[log]
#[log]
[timeouts]
#[timeouts]
[limits]
#[limits]
"##;

/// Tables that the reference lists with their parent, as dotted keys.
const INLINE_TABLES: [(&str, &str); 7] = [
    ("[[listener]]", "tls"),
    ("[store.crypto]", "kruptein"),
    ("[upstream.<name>]", "tls"),
    ("[upstream.<name>]", "health"),
    ("[[route]]", "otherwise"),
    ("[[route]]", "limits"),
    ("[[route]]", "timeouts"),
];

const MONGODB: &str = "kind = 'mongodb'\nurl = 'mongodb://127.0.0.1/app'";

/// A folder that holds what the examples name, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cloakroom-readme-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("secrets"), format!("{}\n", "s".repeat(43))).unwrap();
        Self(path)
    }

    fn parse(&self, text: &str) -> Result<(Config, Vec<Warning>), Problems> {
        config::parse(text, "proxy.toml", &self.0, |variable| match variable {
            "CREDENTIALS_DIRECTORY" => Some(self.0.display().to_string()),
            _ => Some("s".repeat(43)),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// The fenced blocks of one language.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{language}") {
            blocks.push(
                lines
                    .by_ref()
                    .take_while(|line| line.trim() != "```")
                    .map(|line| format!("{line}\n"))
                    .collect(),
            );
        }
    }
    blocks
}

/// The literal blocks called `proxy.toml` of a YAML file.
fn embedded(yaml: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = yaml.lines().collect();
    let begins = lines.iter().enumerate().filter(|(_, line)| line.trim() == "proxy.toml: |");
    begins
        .map(|(at, begin)| {
            let inside = |line: &&&str| line.trim().is_empty() || indent(line) > indent(begin);
            lines[at + 1..].iter().take_while(inside).map(|line| format!("{}\n", line.trim_start())).collect()
        })
        .collect()
}

/// The text between a heading `## <title>` and the next of its rank.
fn section<'a>(readme: &'a str, title: &str) -> &'a str {
    let (_, rest) =
        readme.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n## ").next().unwrap()
}

/// The cells of the body rows of every table.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let body = |at: &usize| {
        lines[*at].starts_with('|')
            && lines[..*at].iter().rev().take_while(|l| l.starts_with('|')).count() >= 2
    };
    let cells =
        |at: usize| lines[at].trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    (0..lines.len()).filter(body).map(cells).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Section to its keys, each with its documented default (the cell as written).
fn reference() -> BTreeMap<String, BTreeMap<String, String>> {
    let readme = readme();
    let mut reference = BTreeMap::new();
    for part in section(&readme, "Config reference").split("\n#### ").skip(1) {
        let (heading, table) = part.split_once('\n').unwrap();
        let mut keys = BTreeMap::new();
        for row in rows(table) {
            for key in quoted(&row[0]) {
                assert!(keys.insert(key.to_owned(), row[2].clone()).is_none(), "{heading} names {key} twice");
            }
        }
        reference.insert(quoted(heading)[0].to_owned(), keys);
    }
    reference
}

fn with_line(section: &str, lines: &str) -> String {
    // A table of one kind of store only.
    if section == "[store.crypto]" {
        let secret = "s".repeat(43);
        return with_line("[store]", &format!("{MONGODB}\n[store.crypto]\nsecret = '{secret}'\n{lines}"));
    }
    let marker = format!("#{section}\n");
    assert!(
        EVERY_SECTION.contains(&marker),
        "the reference has a section {section} that this test does not know"
    );
    EVERY_SECTION.replacen(&marker, &format!("{lines}\n"), 1)
}

/// The keys that the code knows in a place, in its own words.
fn known(folder: &Folder, section: &str, table: &str) -> BTreeSet<String> {
    let Err(Problems(problems)) = folder.parse(&with_line(section, &format!("{table}{UNKNOWN} = 1"))) else {
        panic!("{section}: an unknown key was accepted");
    };
    let problem = problems.iter().find(|problem| problem.key.ends_with(UNKNOWN)).unwrap();
    let hint = problem.hint.as_deref().unwrap();
    hint.strip_prefix("valid here: ")
        .unwrap_or_else(|| panic!("{section}: {hint}"))
        .split(", ")
        .map(str::to_owned)
        .collect()
}

/// Some keys are known to a route only to be refused with a better word.
fn is_for_routes(folder: &Folder, key: &str) -> bool {
    match folder.parse(&with_line("[[route]]", &format!("{key} = '5s'"))) {
        Ok(_) => true,
        Err(Problems(problems)) => problems.iter().all(|problem| problem.what != "not a route's own timeout"),
    }
}

/// What a key cannot stand without.
fn prelude(section: &str, key: &str) -> String {
    match (section, key) {
        ("[store]", "max_memory") => "kind = 'memory'".to_owned(),
        ("[store]", "auto_remove_interval") => format!("{MONGODB}\nauto_remove = 'interval'"),
        ("[store]", "collection" | "stringify" | "timestamps" | "auto_remove") => MONGODB.to_owned(),
        ("[store]", "prefix" | "disable_touch") => "kind = 'redis'\nurl = 'redis://127.0.0.1'".to_owned(),
        ("[store]", "reap_interval") => "kind = 'file'".to_owned(),
        ("[store.crypto]", "kruptein.hashing" | "kruptein.encodeas") => {
            format!("kruptein.secret = '{}'", "k".repeat(43))
        }
        ("[upstream.<name>]", "health.path") => "health.expect = 200".to_owned(),
        ("[upstream.<name>]", key) if key.starts_with("health.") => "health.path = '/healthz'".to_owned(),
        ("[[route]]", "otherwise.status") => "require = ['user']".to_owned(),
        _ => String::new(),
    }
}

#[test]
fn every_configuration_shown_is_valid() {
    let folder = Folder::new("blocks");
    let mut found: Vec<(String, String)> =
        blocks(&readme(), "toml").into_iter().map(|block| ("README.md".to_owned(), block)).collect();
    assert!(!found.is_empty(), "README.md has no toml block");
    let in_readme = found.len();
    for entry in fs::read_dir(root().join("deploy")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => found.push((name, text)),
            Some("yaml") => found.extend(embedded(&text).into_iter().map(|block| (name.clone(), block))),
            Some("md") => found.extend(blocks(&text, "toml").into_iter().map(|block| (name.clone(), block))),
            _ => {}
        }
    }
    assert!(
        found.len() >= in_readme + 3,
        "deploy/ has a configuration for systemd, compose and Kubernetes each"
    );
    for (name, text) in found {
        if let Err(problems) = folder.parse(&text) {
            panic!("{name}:\n{text}\n{problems}");
        }
    }
}

#[test]
fn the_reference_names_every_key_and_no_other() {
    let folder = Folder::new("keys");
    let reference = reference();
    let top = |section: &str| section.trim_matches(['[', ']']).split('.').next().unwrap().to_owned();
    let sections: BTreeSet<String> = reference.keys().map(|section| top(section)).collect();
    assert_eq!(known(&folder, "root", ""), sections);

    for (section, documented) in &reference {
        let mut keys = known(&folder, section, "");
        let name = section.trim_matches(['[', ']']);
        keys.retain(|key| !reference.contains_key(&format!("[{name}.{key}]")));
        for (_, table) in INLINE_TABLES.iter().filter(|(of, _)| of == section) {
            assert!(keys.remove(*table), "{section} has no {table}");
            let inner =
                known(&folder, section, &format!("{table}.")).into_iter().map(|key| format!("{table}.{key}"));
            keys.extend(inner.filter(|key| *table != "timeouts" || is_for_routes(&folder, key)));
        }
        let documented: BTreeSet<String> = documented.keys().cloned().collect();
        assert_eq!(keys, documented, "{section}: left the code, right the README");
    }
}

#[test]
fn documented_defaults_are_the_real_ones() {
    let folder = Folder::new("defaults");
    let show = |text: &str| match folder.parse(text) {
        Ok((config, _)) => format!("{config:?}"),
        Err(problems) => panic!("{text}\n{problems}"),
    };
    let mut compared = 0;
    for (section, keys) in reference() {
        for (key, cell) in keys {
            let default = match quoted(&cell)[..] {
                [default] if cell == format!("`{default}`") => default,
                _ => continue,
            };
            let prelude = prelude(&section, &key);
            let without = show(&with_line(&section, &prelude));
            let with = show(&with_line(&section, &format!("{prelude}\n{key} = {default}")));
            assert_eq!(with, without, "{section} {key} = {default} is not the default");
            compared += 1;
        }
    }
    assert!(compared >= 50, "only {compared} defaults were compared");
}

#[test]
fn the_reason_words_are_the_codes() {
    let readme = readme();
    let sources: String = ["proxy/error.rs", "proxy/body.rs", "headers/framing.rs", "upstream/error.rs"]
        .map(|file| fs::read_to_string(root().join("src").join(file)).unwrap())
        .concat();
    let table = rows(section(&readme, "When something fails"));
    let words: BTreeSet<&str> = table.iter().flat_map(|row| quoted(&row[2])).collect();
    for word in words.iter().filter(|word| !["bad_requests_total", "touch_failed"].contains(word)) {
        assert!(sources.contains(&format!("=> \"{word}\"")), "no code says {word}");
    }
    let said = sources
        .split("fn reason(")
        .skip(1)
        .flat_map(|function| function.split("\n    }").next().unwrap().split("=> \"").skip(1));
    let said: BTreeSet<&str> = said.map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(said.len() >= 20, "saw only {said:?}");
    // The proxy says `request_body_broken` where `upstream` says `request_body`.
    for word in said.iter().filter(|word| **word != "request_body") {
        assert!(words.contains(word), "the README does not name {word}");
    }
}
