//! The directory on disk: whole files in, whole files out, and the locks under which they are compared and replaced.
//!
//! Every call blocks. Must not know sessions. Tests: here and in `tests/it/store_conformance/file.rs`.

use super::super::error::Kind;
use super::draft::{Draft, Seen, is_nothing, is_same};
use super::name;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Enough that writes of different sessions seldom wait for each other's sync. All sidecars of a directory must have the same.
const LOCKS: usize = 32;
/// How often a file may be replaced between looking at it and opening it.
const TRIES: u32 = 100;

pub(super) struct Disk {
    path: PathBuf,
    /// The file system, so that an empty mount point is not taken for a directory without sessions.
    device: u64,
    /// Bytes of a file that is read.
    longest: usize,
    /// A `flock` excludes other processes, the mutex around it the threads of this one.
    locks: Vec<Mutex<Option<File>>>,
    /// Names of unfinished files: random for the process, then counted.
    run: u64,
    number: AtomicU64,
}

/// What stands under a name.
pub(super) enum Found {
    Nothing,
    /// Something that is no session's text; says what.
    Odd(&'static str),
    Text {
        text: String,
        seen: Seen,
    },
}

/// The lock on a name, until it is dropped.
pub(super) struct Held<'a>(MutexGuard<'a, Option<File>>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(file) = &*self.0 {
            // The next `lock` of this process has it all the same; another process would wait for this one's end.
            file.unlock().ok();
        }
    }
}

impl Disk {
    /// Makes the directory if there is none (mode 0700), and tries all that will be done in it.
    pub(super) fn open(path: PathBuf, longest: usize) -> Result<Self, String> {
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(|error| format!("the system has no randomness: {error}"))?;
        let explain = |error: io::Error| explain_open(&path, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(explain)?;
        let device = fs::metadata(&path).map_err(explain)?.dev();
        let disk = Self {
            device,
            longest,
            locks: (0..LOCKS).map(|_| Mutex::default()).collect(),
            run: u64::from_le_bytes(run),
            number: AtomicU64::new(0),
            path: path.clone(),
        };
        fs::read_dir(&path).map_err(explain)?;
        disk.probe().map_err(explain)?;
        match open_lock(&path.join(name::lock(0))).map_err(explain)?.try_lock() {
            // Another sidecar is writing: so locks work here.
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(disk),
            Err(TryLockError::Error(error)) => Err(format!(
                "store.path {}: no lock can be had there ({error}); choose a directory on a file system with flock",
                path.display()
            )),
        }
    }

    /// What stands under `name`. Only a regular file is opened: a symbolic link leads anywhere, and a pipe would never answer.
    pub(super) fn read(&self, name: &str) -> io::Result<Found> {
        let path = self.path.join(name);
        for _ in 0..TRIES {
            let listed = match fs::symlink_metadata(&path) {
                Err(error) if is_nothing(&error) => {
                    self.check_directory()?;
                    return Ok(Found::Nothing);
                }
                listed => listed?,
            };
            if !listed.is_file() {
                return Ok(Found::Odd(odd(&listed)));
            }
            let file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            let metadata = file.metadata()?;
            if is_same(&listed, &metadata) {
                return self.read_text(Seen { file, metadata });
            }
        }
        Err(io::Error::other("the file is replaced faster than it can be opened"))
    }

    fn read_text(&self, seen: Seen) -> io::Result<Found> {
        let expected = usize::try_from(seen.metadata.len()).unwrap_or(usize::MAX).min(self.longest);
        let mut bytes = Vec::with_capacity(expected + 1);
        (&seen.file).take(self.longest as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > self.longest {
            return Ok(Found::Odd(super::super::TOO_LARGE));
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Found::Text { text, seen },
            Err(_) => Found::Odd("not UTF-8"),
        })
    }

    /// A file with this text, on the disk and under no name yet. It has mode 0600, or the mode and, as far as this process may, the
    /// owner of the one that it shall replace, as with session-file-store.
    pub(super) fn draft(&self, text: &str, before: Option<&Seen>) -> io::Result<Draft> {
        let draft = Draft::write(self.temporary(), text.as_bytes(), before)?;
        draft.sync()?;
        Ok(draft)
    }

    /// Puts the draft in the place of what was `seen` under `name` (`None`: of nothing); `false` if something else is there now.
    /// Lasts beyond a power cut after [`Self::settle`].
    pub(super) fn replace(&self, name: &str, seen: Option<Seen>, draft: Draft) -> io::Result<bool> {
        draft.replace(&self.path.join(name), seen)
    }

    /// Removes a name; `false` if there was none.
    pub(super) fn remove(&self, name: &str) -> io::Result<bool> {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => Ok(true),
            Err(error) if is_nothing(&error) => self.check_directory().map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Removes what was `seen` under `name`; `false` if something else, or nothing, is there now.
    pub(super) fn remove_seen(&self, name: &str, seen: &Seen) -> io::Result<bool> {
        Ok(seen.is_at(&self.path.join(name))? && self.remove(name)?)
    }

    /// Names that were set or removed until now survive a power cut.
    pub(super) fn settle(&self) -> io::Result<()> {
        match File::open(&self.path)?.sync_all() {
            // Some file systems cannot sync a directory; there is nothing to be done.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            synced => synced,
        }
    }

    /// Waits for the lock of a name: against the threads of this process and against other sidecars, not against Node.
    pub(super) fn lock(&self, name: &str) -> io::Result<Held<'_>> {
        let number = stripe(name);
        // What is under these locks does not panic half-way through a change.
        let mut slot = self.locks[number].lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.join(name::lock(number));
        loop {
            let file = match slot.take() {
                Some(file) => file,
                None => open_lock(&path)?,
            };
            while let Err(error) = file.lock() {
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            // A lock on a file that was removed meanwhile excludes nobody: its successor is the lock.
            match fs::metadata(&path) {
                Ok(listed) if is_same(&listed, &file.metadata()?) => {
                    *slot = Some(file);
                    return Ok(Held(slot));
                }
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Is the directory there, and does it take a file with something in it?
    pub(super) fn probe(&self) -> io::Result<()> {
        self.check_directory()?;
        Draft::write(self.temporary(), b"cloakroom", None)?.discard()
    }

    /// All names that are there. A name that is no UTF-8 is nobody's here.
    pub(super) fn names(&self) -> io::Result<impl Iterator<Item = io::Result<String>> + Send + use<>> {
        let names = fs::read_dir(&self.path)?;
        Ok(names.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose()))
    }

    /// Removes an unfinished file that nobody has written to for so long.
    pub(super) fn remove_if_older(&self, name: &str, age: Duration) -> io::Result<bool> {
        let path = self.path.join(name);
        let modified = fs::symlink_metadata(&path)?.modified()?;
        let old = SystemTime::now().duration_since(modified).is_ok_and(|past| past > age);
        if old { fs::remove_file(path).map(|()| true) } else { Ok(false) }
    }

    fn temporary(&self) -> PathBuf {
        self.path.join(name::temporary(self.run, self.number.fetch_add(1, Ordering::Relaxed)))
    }

    /// Nothing under a name means that there is no such session only while this is the directory in which it would be.
    fn check_directory(&self) -> io::Result<()> {
        let found = fs::metadata(&self.path)?;
        if !found.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        if found.dev() != self.device {
            let what = "another file system is mounted there than at the start; restart cloakroom if that is intended";
            return Err(io::Error::other(what));
        }
        Ok(())
    }
}

/// What an error means for the caller, with a text for the log. Names are sids, and errors of `std::fs` do not show them.
pub(super) fn explain(error: &io::Error) -> (Kind, String) {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::FileTooLarge
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidFilename => Kind::Refused,
        // A text that could not be read back.
        ErrorKind::InvalidData => Kind::Unstorable,
        _ => Kind::Unreachable,
    };
    let text = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            format!("the directory store.path is gone: {error}")
        }
        ErrorKind::PermissionDenied => {
            format!(
                "no right to it: {error}; let the user that runs cloakroom read and write store.path and what is in it"
            )
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("the disk of store.path is full: {error}")
        }
        _ => error.to_string(),
    };
    (kind, text)
}

fn explain_open(path: &Path, error: &io::Error) -> String {
    let cure = match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => ": it is a file; name a directory",
        ErrorKind::PermissionDenied => ": let the user that runs cloakroom read and write it",
        ErrorKind::ReadOnlyFilesystem => ": name a directory on a file system that can be written",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ": make room on its disk",
        _ => "",
    };
    format!("store.path {}: {error}{cure}", path.display())
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The same for every version of this program and on every machine.
fn stripe(name: &str) -> usize {
    name.bytes().fold(0_usize, |sum, byte| (sum * 31 + usize::from(byte)) % 8191) % LOCKS
}

fn odd(metadata: &Metadata) -> &'static str {
    if metadata.is_dir() {
        "a directory"
    } else if metadata.is_symlink() {
        "a symbolic link, which is not followed"
    } else {
        "no regular file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_what_can_be_done_about_it() {
        // Linux and macOS number these alike.
        for (code, kind, part) in [
            (2, Kind::Unreachable, "store.path is gone"),
            (5, Kind::Unreachable, "os error 5"),
            (13, Kind::Refused, "let the user"),
            (20, Kind::Unreachable, "store.path is gone"),
            (24, Kind::Unreachable, "os error 24"),
            (28, Kind::Refused, "is full"),
            (30, Kind::Refused, "os error 30"),
        ] {
            let (found, text) = explain(&io::Error::from_raw_os_error(code));
            assert_eq!(found, kind, "{code}");
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(explain(&ErrorKind::InvalidData.into()).0, Kind::Unstorable);
    }

    /// Sidecars of two versions on one directory exclude each other only while this does not change.
    #[test]
    fn a_name_has_the_same_lock_for_ever() {
        assert_eq!(["a.json", "b.json", "EZ_-09az.json"].map(stripe), [0, 7, 26]);
        let all: std::collections::HashSet<usize> = (0..1000).map(|n| stripe(&format!("{n}.json"))).collect();
        assert_eq!(all.len(), LOCKS);
    }
}
