//! A new file beside the one that it shall replace: written and synced first, then compared and renamed.
//!
//! A rename leaves the old file or the new one, never half of one, whatever is killed. Between the comparison and the rename are two
//! system calls and nothing that waits for a disk: whoever writes without our locks (Node) is overwritten unseen only there.
//! Must not know the directory. Tests: here.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// A file as it was when it was opened. It stays open, so that its inode becomes nobody else's meanwhile.
pub(super) struct Seen {
    pub(super) file: File,
    pub(super) metadata: Metadata,
}

/// A whole file that nobody looks for yet. Gone when it is dropped.
pub(super) struct Draft {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Seen {
    /// Does this stand at `path`, and has nobody written to it since?
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(listed) => Ok(is_unchanged(&self.metadata, &listed)),
            Err(error) if is_nothing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Draft {
    /// A new file, dressed as the one that it shall replace.
    pub(super) fn write(path: PathBuf, bytes: &[u8], before: Option<&Seen>) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut draft = Self { path, file, placed: false };
        if let Some(before) = before {
            dress(&draft.file, &before.metadata)?;
        }
        draft.file.write_all(bytes)?;
        Ok(draft)
    }

    /// Waits until the content is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Takes the place of what was `seen` at `target` (`None`: of nothing). If something else is there now, `false`, and nothing is done.
    pub(super) fn replace(mut self, target: &Path, seen: Option<Seen>) -> io::Result<bool> {
        let undisturbed = match &seen {
            Some(seen) => seen.is_at(target)?,
            None => match fs::symlink_metadata(target) {
                Ok(_) => false,
                Err(error) if is_nothing(&error) => true,
                Err(error) => return Err(error),
            },
        };
        if undisturbed {
            // NFS moves a file aside that is open while it is replaced, and others find nothing for a moment.
            drop(seen);
            fs::rename(&self.path, target)?;
            self.placed = true;
        }
        Ok(undisturbed)
    }

    /// Removes it, and says so if that fails.
    pub(super) fn discard(mut self) -> io::Result<()> {
        self.placed = true;
        fs::remove_file(&self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed {
            // Whatever stays is reaped one day.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// One file, whatever is in it.
pub(super) fn is_same(a: &Metadata, b: &Metadata) -> bool {
    a.ino() == b.ino() && a.dev() == b.dev()
}

/// No such file, or a name that this file system does not take.
pub(super) fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename)
}

/// One file, and nobody has written to it in between. Its owner cannot set the time that is compared.
fn is_unchanged(a: &Metadata, b: &Metadata) -> bool {
    is_same(a, b) && (a.ctime(), a.ctime_nsec(), a.size()) == (b.ctime(), b.ctime_nsec(), b.size())
}

/// Mode and owner of the file that is replaced. Who may not give files away keeps its own.
fn dress(file: &File, before: &Metadata) -> io::Result<()> {
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
        fchown(file, Some(before.uid()), Some(before.gid())).ok();
    }
    let mode = before.mode() & 0o777;
    if made.mode() & 0o777 == mode { Ok(()) } else { file.set_permissions(fs::Permissions::from_mode(mode)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cloakroom-draft-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn seen(&self) -> Seen {
            let file = File::open(self.target()).unwrap();
            let metadata = file.metadata().unwrap();
            Seen { file, metadata }
        }

        fn draft(&self) -> Draft {
            Draft::write(self.0.join("draft"), b"ours", None).unwrap()
        }

        fn target(&self) -> PathBuf {
            self.0.join("target")
        }

        fn names(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn what_somebody_wrote_in_between_is_not_replaced() {
        let place = Place::new("between");
        let (target, other) = (place.target(), place.0.join("other"));
        let replaced: &dyn Fn() = &|| {
            // As session-file-store writes, and more than once: an inode may come back.
            for _ in 0..3 {
                fs::write(&other, "them").unwrap();
                fs::rename(&other, &target).unwrap();
            }
        };
        let rewritten: &dyn Fn() = &|| {
            // A file system's clock is coarse, so it may take another write until the time is another one.
            let before = fs::metadata(&target).unwrap();
            let until = Instant::now() + Duration::from_secs(20);
            while is_unchanged(&before, &fs::metadata(&target).unwrap()) {
                assert!(Instant::now() < until);
                fs::write(&target, "them").unwrap();
            }
        };
        for disturb in [replaced, rewritten] {
            fs::write(&target, "old!").unwrap();
            let (seen, draft) = (place.seen(), place.draft());
            disturb();
            assert!(!seen.is_at(&target).unwrap());
            assert!(!draft.replace(&target, Some(seen)).unwrap());
            assert_eq!((fs::read_to_string(&target).unwrap().as_str(), place.names()), ("them", 1));
        }
        let (seen, draft) = (place.seen(), place.draft());
        fs::remove_file(&target).unwrap();
        assert!(!draft.replace(&target, Some(seen)).unwrap());
        assert_eq!(place.names(), 0);
        let draft = place.draft();
        fs::write(&target, "them").unwrap();
        assert!(!draft.replace(&target, None).unwrap());
        assert_eq!((fs::read_to_string(&target).unwrap().as_str(), place.names()), ("them", 1));
    }

    #[test]
    fn what_was_seen_is_replaced_and_so_is_nothing() {
        let place = Place::new("seen");
        assert!(place.draft().replace(&place.target(), None).unwrap());
        assert_eq!(fs::read_to_string(place.target()).unwrap(), "ours");
        fs::write(place.target(), "old").unwrap();
        let (seen, draft) = (place.seen(), place.draft());
        assert!(draft.replace(&place.target(), Some(seen)).unwrap());
        assert_eq!((fs::read_to_string(place.target()).unwrap().as_str(), place.names()), ("ours", 1));
    }
}
