//! Has a file changed? Looks every two seconds at size, time and identity: that sees what an editor, certbot, a mounted secret or
//! a file system without notifications does, and costs a handful of system calls. Knows no configuration. Tests: below.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

/// How often is looked.
const PAUSE: Duration = Duration::from_secs(2);
/// A change counts when nothing has moved for so long: certificate and key are written one after the other.
const SETTLED: Duration = Duration::from_millis(300);

/// Files and what they looked like.
pub(super) struct Watch {
    files: Vec<PathBuf>,
    known: Vec<Option<Stamp>>,
    /// Something has changed that was not told yet.
    unsettled: bool,
}

/// What tells one content of a file from the next: device, inode, size, seconds and nanoseconds of the last change.
type Stamp = (u64, u64, u64, i64, i64);

impl Watch {
    /// Knows the files as they are now.
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let known = look(&files);
        Self { files, known, unsettled: false }
    }

    /// Resolves when one of them has changed, and has settled. May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        while !self.unsettled {
            sleep(PAUSE).await;
            self.unsettled = self.moved();
        }
        loop {
            sleep(SETTLED).await;
            if !self.moved() {
                break;
            }
        }
        self.unsettled = false;
    }

    /// Does something look different from the last time?
    fn moved(&mut self) -> bool {
        let seen = look(&self.files);
        let moved = seen != self.known;
        self.known = seen;
        moved
    }
}

/// Through links: a mounted secret is changed by pointing a link elsewhere. What is no plain file is not looked at.
fn look(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let about = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
        Some((about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_way_to_change_a_file_is_seen_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("cloakroom-watch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let at = |name: &str| folder.join(name);
        fs::write(at("a"), "1").unwrap();
        fs::write(at("first"), "x").unwrap();
        fs::write(at("second"), "x").unwrap();
        symlink(at("first"), at("link")).unwrap();
        let mut watch = Watch::new(vec![at("a"), at("later"), at("link"), folder.clone()]);
        let mut seen = |what: &str, expected: bool| assert_eq!(watch.moved(), expected, "{what}");
        fs::write(at("neighbour"), "").unwrap();
        seen("a neighbour, and so the folder", false);
        fs::write(at("a"), "22").unwrap();
        seen("written in place", true);
        seen("nothing more", false);
        fs::write(at("new"), "33").unwrap();
        fs::rename(at("new"), at("a")).unwrap();
        seen("replaced", true);
        fs::write(at("later"), "").unwrap();
        seen("made", true);
        fs::remove_file(at("link")).unwrap();
        symlink(at("second"), at("link")).unwrap();
        seen("a link that points elsewhere", true);
        fs::remove_file(at("later")).unwrap();
        seen("removed", true);
        fs::remove_dir_all(&folder).unwrap();
    }
}
