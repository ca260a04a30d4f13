//! The redb file: opening it with errors that name the cure, reading from it, and opening it again after a disk error.
//!
//! Must not know sessions beyond "text to bytes". Tests: here and in `tests/it/store_conformance.rs`.

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableHandle};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// sid to row. The number is that of the layout; a row has a format byte of its own.
pub(super) const SESSIONS: TableDefinition<'static, &str, &[u8]> =
    TableDefinition::new("cloakroom_sessions_1");

/// redb's default is 1 GiB; the pages of hot sessions are few.
const CACHE_BYTES: usize = 64 << 20;

/// Opens or makes the file, mode 0600.
pub(super) fn open(path: &Path) -> Result<Database, String> {
    let known = path.exists();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| explain_io(path, &error))?;
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_file(file)
        .map_err(|error| explain_database(path, &error))?;
    prepare(&database).map_err(|why| format!("store.path {}: {why}", path.display()))?;
    if !known {
        sync_directory(path);
    }
    Ok(database)
}

/// Makes the table, and refuses a file that belongs to another program.
pub(super) fn prepare(database: &Database) -> Result<(), String> {
    let txn = database.begin_read().map_err(|error| error.to_string())?;
    let names: Vec<String> =
        txn.list_tables().map_err(|error| error.to_string())?.map(|table| table.name().to_owned()).collect();
    if names.iter().any(|name| name == SESSIONS.name()) {
        return txn.open_table(SESSIONS).map(drop).map_err(|error| error.to_string());
    }
    if !names.is_empty() {
        return Err("is a redb file of another program; choose another path".to_owned());
    }
    drop(txn);
    let txn = database.begin_write().map_err(|error| error.to_string())?;
    txn.open_table(SESSIONS).map(drop).map_err(|error| error.to_string())?;
    txn.commit().map_err(|error| error.to_string())
}

/// Hands the row of `sid` to `take`, without copying it.
pub(super) fn read<T>(
    database: &Database,
    sid: &str,
    take: impl FnOnce(Option<&[u8]>) -> T,
) -> Result<T, redb::Error> {
    let table = database.begin_read()?.open_table(SESSIONS)?;
    let row = table.get(sid)?;
    Ok(take(row.as_ref().map(redb::AccessGuard::value)))
}

// A new name must survive a power cut as its content does. Where a directory cannot be synced there is nothing to be done.
fn sync_directory(path: &Path) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = File::open(parent).and_then(|directory| directory.sync_all()) {
        tracing::debug!(%error, "the directory of store.path cannot be synced");
    }
}

fn explain_io(path: &Path, error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::NotFound => ": its directory does not exist; create it",
        io::ErrorKind::PermissionDenied => ": let the user that runs cloakroom read and write it",
        io::ErrorKind::IsADirectory => ": it is a directory; name a file in it",
        io::ErrorKind::ReadOnlyFilesystem => ": choose a path on a disk that can be written",
        _ => "",
    };
    format!("store.path {}: cannot be opened ({error}){cure}", path.display())
}

fn explain_database(path: &Path, error: &DatabaseError) -> String {
    let path = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => format!(
            "store.path {path}: is in use by another process; stop that one, give each its own path, or share sessions \
             with store.kind = \"mongodb\""
        ),
        DatabaseError::UpgradeRequired(version) => format!(
            "store.path {path}: has redb's old file format {version}; move the file away (its sessions are lost) or \
             choose another path"
        ),
        DatabaseError::Storage(StorageError::Io(io)) if io.kind() != io::ErrorKind::InvalidData => {
            format!("store.path {path}: cannot be read ({io})")
        }
        other => format!(
            "store.path {path}: is no session file of cloakroom, or is damaged ({other}); move it away or choose another path"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A directory of its own for each test, gone at the end.
    struct Place(std::path::PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cloakroom-file-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn opening_errors_name_the_path_and_the_cure() {
        let place = Place::new("errors");
        let text = |path: &Path| open(path).err().unwrap_or_else(|| panic!("{} opened", path.display()));

        let nowhere = place.0.join("none/sessions.redb");
        assert!(text(&nowhere).contains("none/sessions.redb") && text(&nowhere).contains("create it"));
        assert!(text(&place.0).contains("is a directory"), "{}", text(&place.0));

        let foreign = place.0.join("notes.txt");
        std::fs::write(&foreign, "hello ".repeat(10_000)).unwrap();
        assert!(text(&foreign).contains("no session file"), "{}", text(&foreign));
        assert_eq!(std::fs::read(&foreign).unwrap(), "hello ".repeat(10_000).into_bytes());

        let taken = place.0.join("taken.redb");
        let first = open(&taken).unwrap();
        assert!(text(&taken).contains("another process"), "{}", text(&taken));
        drop(first);
        open(&taken).unwrap();

        let other = place.0.join("other.redb");
        let database = Database::create(&other).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap();
        txn.commit().unwrap();
        drop(database);
        assert!(text(&other).contains("another program"), "{}", text(&other));
    }

    #[test]
    fn the_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new("mode");
        let path = place.0.join("s.redb");
        drop(open(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
