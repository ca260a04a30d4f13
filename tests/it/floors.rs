//! A room imports lower floors only (design §1): scans the sources for paths that begin with `crate::`.

use std::fs;
use std::path::{Path, PathBuf};

const FLOORS: &[(u8, &[&str])] = &[
    (0, &["session", "headers"]),
    (1, &["telemetry", "drain", "events", "socket"]),
    (2, &["store", "upstream", "route", "server"]),
    (3, &["proxy", "admin"]),
    (4, &["config"]),
    (5, &["app", "cli", "main", "lib"]),
];

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

/// May `room` name something of `other`? Everything below, and its neighbours, but for floor 2: the edges do not know each other.
fn may_import(room: &str, other: &str) -> bool {
    match (floor(room), floor(other)) {
        (Some(own), Some(theirs)) => room == other || theirs < own || (theirs == own && own != 2),
        _ => false,
    }
}

#[test]
fn no_room_imports_a_higher_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&src);
    assert!(files.len() > 20, "only {} files under {}", files.len(), src.display());
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in &files {
        let path = file.strip_prefix(&src).unwrap();
        let room = path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        assert!(floor(room).is_some(), "{} is in no room of the plan", path.display());
        for (number, other) in imports(&fs::read_to_string(file).unwrap()) {
            seen += 1;
            if !may_import(room, &other) {
                wrong.push(format!("{}:{number}: {room} imports {other}", path.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} imports seen: the scan is blind");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_every_way_to_name_a_room() {
    let text = "use crate::store::Store;\n//! [`crate::proxy`]\nlet x = crate::config::load();\n\
                use crate::{drain::Drain, session::{sid, record}, app};\npub(crate) fn f() {}\n";
    let rooms: Vec<String> = imports(text).into_iter().map(|(_, room)| room).collect();
    assert_eq!(rooms, ["store", "config", "drain", "session", "app"]);
    assert!(may_import("proxy", "store") && may_import("store", "store") && may_import("session", "headers"));
    assert!(
        !may_import("store", "proxy") && !may_import("store", "upstream") && !may_import("proxy", "config")
    );
}

/// Line and room of every `crate::…` path outside comments.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, mark) in code.match_indices("crate::") {
            let rest = &code[at + mark.len()..];
            match rest.strip_prefix('{') {
                Some(list) => found.extend(top_level(list).into_iter().map(|room| (number + 1, room))),
                None => found.push((number + 1, first_name(rest))),
            }
        }
    }
    found
}

/// The first names in `drain::Drain, session::{sid, record}, app};`.
fn top_level(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ => names.last_mut().unwrap().push(c),
        }
    }
    names.iter().map(|name| first_name(name.trim())).filter(|name| !name.is_empty()).collect()
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files
}
