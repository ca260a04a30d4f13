//! The rows of the file for `store::survey`: read-only, so that looking changes nothing. Tests: `tests/it/doctor.rs`.

use super::super::Lookup;
use super::file::SESSIONS;
use super::row::{Head, lookup, payload};
use crate::session::Millis;
use crate::session::sid::Sid;
use redb::{
    Builder, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, ReadableTableMetadata,
};
use std::fmt::Display;
use std::path::Path;

/// One row.
pub(in crate::store) enum Row<'a> {
    /// A session: its data as JSON text, and when it ends.
    Session { payload: &'a [u8], expires_at: Millis },
    /// Something else.
    Unreadable(String),
}

/// Shows at most `limit` rows, and counts all.
///
/// # Errors
/// Why the file cannot be read, and the cure.
pub(in crate::store) fn read_rows(
    path: &Path,
    limit: usize,
    mut take: impl FnMut(&str, Row<'_>),
) -> Result<u64, String> {
    let database = open(path)?;
    let read = database.begin_read().map_err(damaged)?;
    let table = read.open_table(SESSIONS).map_err(damaged)?;
    for item in table.iter().map_err(damaged)?.take(limit) {
        let (sid, row) = item.map_err(damaged)?;
        let row = row.value();
        take(
            sid.value(),
            match Head::parse(row) {
                Ok(head) => Row::Session { payload: payload(row), expires_at: head.expires_at },
                Err(why) => Row::Unreadable(why),
            },
        );
    }
    table.len().map_err(damaged)
}

/// One session as `load` reads it.
///
/// # Errors
/// Why the file cannot be read, and the cure.
pub(in crate::store) fn read_row(
    path: &Path,
    sid: &Sid,
    now: Millis,
    max_payload: usize,
) -> Result<Lookup, String> {
    let read = open(path)?.begin_read().map_err(damaged)?;
    let table = read.open_table(SESSIONS).map_err(damaged)?;
    let row = table.get(sid.as_str()).map_err(damaged)?;
    Ok(row.map_or(Lookup::Absent, |row| lookup(row.value(), None, now, max_payload)))
}

fn open(path: &Path) -> Result<ReadOnlyDatabase, String> {
    Builder::new().open_read_only(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            "the file is in use, most likely by a running sidecar; stop it first".to_owned()
        }
        DatabaseError::RepairAborted => {
            "the file was not closed cleanly; start the sidecar once, which mends it, and stop it again"
                .to_owned()
        }
        other => format!("the file cannot be opened: {other}"),
    })
}

fn damaged(error: impl Display) -> String {
    format!("the file cannot be read: {error}")
}
