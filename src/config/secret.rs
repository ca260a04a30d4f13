//! Secrets: a value in the file, or a file beside it (`token` or `token_file`). What they hold never enters a message.
//! Tests: below, and `tests/it/config.rs`.

use super::item::Item;
use super::walk::Table;
use crate::proxy::options::Secret;

/// Keys shorter than this are guessable enough for a warning.
const COMFORTABLE_LENGTH: usize = 32;

/// The one secret of `key` or `<key>_file`.
pub(super) fn one(table: &Table<'_>, key: &'static str, file_key: &'static str) -> Option<Secret> {
    let (value, file) = either(table, key, file_key);
    if let Some(item) = value {
        let secret = item.text()?.value.into_bytes();
        return checked(&item, secret, "");
    }
    let item = file?;
    let content = contents(&item)?;
    checked(&item, without_newline(&content).to_vec(), "the file is empty")
}

/// The list of secrets of `key`, or the lines of `<key>_file`; empty when neither is there or nothing in it is usable.
pub(super) fn several(table: &Table<'_>, key: &'static str, file_key: &'static str) -> Vec<Secret> {
    let (value, file) = either(table, key, file_key);
    let secrets = match (value, file) {
        (Some(item), _) => {
            let items =
                item.list("a list, the signing secret first: [\"${SESSION_SECRET}\"]").unwrap_or_default();
            if item.is_empty_list() {
                item.problem("no secret in the list", "make one with `cloakroom secret`");
            }
            let read = |item: Item<'_>| {
                let secret = item.text()?.value.into_bytes();
                checked(&item, secret, "")
            };
            items.into_iter().filter_map(read).collect()
        }
        (None, Some(item)) => {
            let content = contents(&item).unwrap_or_default();
            lines(&content)
                .filter_map(|line| checked(&item, line.to_vec(), "a line of the file is empty"))
                .collect()
        }
        (None, None) => Vec::new(),
    };
    warn_about_repeats(table, key, &secrets);
    secrets
}

/// A value that may hold a password: `url` or `url_file`.
pub(super) fn text<'a>(
    table: &Table<'a>,
    key: &'static str,
    file_key: &'static str,
) -> Option<(String, Item<'a>)> {
    let (value, file) = either(table, key, file_key);
    if let Some(item) = value {
        return Some((item.text()?.value, item));
    }
    let item = file?;
    let content = contents(&item)?;
    match str::from_utf8(without_newline(&content)) {
        Ok(text) => Some((text.to_owned(), item)),
        Err(_) => {
            item.problem("the file is not UTF-8 text", "");
            None
        }
    }
}

fn either<'a>(
    table: &Table<'a>,
    key: &'static str,
    file_key: &'static str,
) -> (Option<Item<'a>>, Option<Item<'a>>) {
    let (value, file) = (table.get(key), table.get(file_key));
    if let (Some(_), Some(file)) = (&value, &file) {
        let what = format!("both `{key}` and `{file_key}` are given");
        file.walk.problem(&file.path, file.key_span.clone(), what, "keep one of them");
        return (value, None);
    }
    (value, file)
}

fn checked(item: &Item<'_>, secret: Vec<u8>, empty: &str) -> Option<Secret> {
    if secret.is_empty() {
        let what = if empty.is_empty() { "an empty secret" } else { empty };
        item.problem(what, "make one with `cloakroom secret`");
        return None;
    }
    if secret.len() < COMFORTABLE_LENGTH {
        let what = format!("a secret shorter than {COMFORTABLE_LENGTH} characters");
        item.warning(what, "make one with `cloakroom secret`");
    }
    Some(Secret(secret))
}

fn warn_about_repeats(table: &Table<'_>, key: &str, secrets: &[Secret]) {
    let repeated = secrets.iter().enumerate().any(|(index, secret)| secrets[..index].contains(secret));
    if repeated {
        let (span, path) = (table.span.clone(), table.path_of(key));
        table.walk.warning(&path, span, "the same secret more than once", "");
    }
}

fn contents(item: &Item<'_>) -> Option<Vec<u8>> {
    let path = item.path()?;
    match std::fs::read(&path) {
        Ok(bytes) if bytes.is_empty() => {
            item.problem("the file is empty", "make a secret with `cloakroom secret`");
            None
        }
        Ok(bytes) => Some(bytes),
        Err(error) => {
            item.problem(format!("cannot read the file: {error}"), "check the path and who may read it");
            None
        }
    }
}

/// The lines of a file; the newline at its very end begins no further line.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ended = content.strip_suffix(b"\n").unwrap_or(content);
    ended
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take(if content.is_empty() { 0 } else { usize::MAX })
}

fn without_newline(content: &[u8]) -> &[u8] {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    content.strip_suffix(b"\r").unwrap_or(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_secret_a_line_of_any_bytes() {
        let of = |content: &'static [u8]| lines(content).collect::<Vec<_>>();
        assert_eq!(of(b"new\nold\n"), [b"new", b"old"]);
        assert_eq!(of(b"new\r\nold"), [b"new", b"old"]);
        assert_eq!(of(b" a b \xff\0\n"), [b" a b \xff\0"]);
        assert_eq!(of(b"a\n\nb\n"), [&b"a"[..], b"", b"b"]);
        assert_eq!(of(b"\n"), [b""]);
        assert!(of(b"").is_empty());
    }

    #[test]
    fn one_trailing_newline_is_not_part_of_a_secret() {
        assert_eq!(without_newline(b"s\n"), b"s");
        assert_eq!(without_newline(b"s\r\n"), b"s");
        assert_eq!(without_newline(b"s\n\n"), b"s\n");
        assert_eq!(without_newline(b"s"), b"s");
    }
}
