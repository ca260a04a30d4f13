//! Names in the directory: which sids may be file names at all, and what belongs to whom.
//!
//! A sid comes from whoever knows the secret, an Express app with an odd `genid` included, so it is text like any other until it
//! was looked at here; nothing else in this room makes a path. Must not know the disk. Tests: here.

use crate::session::sid::Sid;

/// session-file-store's `fileExtension`, the default.
const EXTENSION: &str = ".json";
/// What the usual file systems take.
const LONGEST: usize = 255;
/// What is ours begins with this: hidden, and nothing that session-file-store lists.
const OWN: &str = ".cloakroom-";
const TEMPORARY: &str = ".tmp";

/// The file of a session; `None` for a sid that must never touch the disk. session-file-store joins any sid to its path: with
/// `../x` it leaves the directory, with `a/b` and with long ones it fails.
pub(super) fn of(sid: &Sid) -> Option<String> {
    is_safe(sid.as_str()).then(|| format!("{}{EXTENSION}", sid.as_str()))
}

/// Is this a file that [`of`] could have named?
pub(super) fn is_session(name: &str) -> bool {
    name.strip_suffix(EXTENSION).is_some_and(is_safe)
}

/// Is this a file that is being written, or that a kill left behind?
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(OWN) && name.ends_with(TEMPORARY)
}

/// A file that is being written. `run` differs from process to process, `number` within one.
pub(super) fn temporary(run: u64, number: u64) -> String {
    format!("{OWN}{run:016x}-{number}{TEMPORARY}")
}

/// One of the files whose locks exclude other sidecars.
pub(super) fn lock(number: usize) -> String {
    format!("{OWN}{number:02}.lock")
}

fn is_safe(sid: &str) -> bool {
    !sid.is_empty()
        && !sid.starts_with('.')
        && sid.len() + EXTENSION.len() <= LONGEST
        && !sid.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_is_a_file_in_the_directory_or_nothing() {
        let name = |sid: &str| of(&Sid::from_text(sid).unwrap());
        for sid in ["EZ_-09az", "a'b\"c", "$where", "a.b", " ", "s\u{fc}\u{1f511}", "a.json", "-rf", "a..b"] {
            assert_eq!(name(sid), Some(format!("{sid}.json")));
        }
        assert_eq!(name(&"l".repeat(250)).map(|name| name.len()), Some(255));
        let long = ["l".repeat(251), "l".repeat(10_000), "\u{fc}".repeat(126)];
        let bad = [
            ".",
            "..",
            "../x",
            "../../etc/passwd",
            "/etc/passwd",
            "a/b",
            "a/",
            "a\\b",
            "a\0b",
            "\0",
            "a\nb",
            "\u{7f}",
            "\u{85}",
            ".hidden",
            ".cloakroom-00",
            ".cloakroom-0.tmp",
        ];
        for sid in bad.into_iter().chain(long.iter().map(String::as_str)) {
            assert_eq!(name(sid), None, "{sid:?}");
        }
    }

    #[test]
    fn what_is_ours_is_known_and_no_session() {
        let (temporary, lock) = (temporary(7, 1), lock(3));
        assert!(
            is_temporary(&temporary) && !is_session(&temporary) && !is_session(&lock) && !is_temporary(&lock)
        );
        assert_eq!(
            (temporary.as_str(), lock.as_str()),
            (".cloakroom-0000000000000007-1.tmp", ".cloakroom-03.lock")
        );
        assert!(is_session("a.json"));
        // Foreign: session-file-store's own unfinished write among them.
        for foreign in ["a.json.1234567", "a.txt", ".json", ".a.json", "json", "a.tmp", "a.JSON"] {
            assert!(!is_session(foreign) && !is_temporary(foreign), "{foreign}");
        }
    }
}
