//! The driver's errors in our words: what the caller can do about them, and a text without secrets.
//!
//! The server quotes commands in its messages, and commands hold sids and sessions; everything from the first brace on is cut.
//! Tests: here.

use super::super::error::Kind;
use mongodb::error::{Error, ErrorKind, WriteFailure};

/// What went wrong in a driver call.
pub(super) enum Fault {
    Driver(Error),
    /// Something of ours that BSON cannot hold.
    Bson,
    Bug(&'static str),
}

/// A longer text helps nobody.
const LONGEST: usize = 400;

impl Fault {
    pub(super) fn explain(&self) -> (Kind, String) {
        match self {
            Self::Driver(error) => (kind(error), shortened(&text(error))),
            Self::Bson => (Kind::Refused, "cannot be written as BSON".to_owned()),
            Self::Bug(what) => (Kind::Refused, (*what).to_owned()),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<bson::error::Error> for Fault {
    fn from(_: bson::error::Error) -> Self {
        Self::Bson
    }
}

pub(super) fn is_duplicate_key(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == 11000)
}

/// The server's code, if it was the server that refused.
pub(super) fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        _ => None,
    }
}

/// `text` without the password of `url`, however the driver may have split it.
pub(super) fn masked(url: &str, text: &str) -> String {
    let mut out = text.to_owned();
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    // A password that should have been percent-encoded may hold any of these.
    let Some((user, _)) = after.rsplit_once('@') else { return out };
    let Some((_, password)) = user.split_once(':') else { return out };
    let mut pieces = vec![password];
    for (at, separator) in password.match_indices(['/', '@', ':', '?', '#']) {
        pieces.extend([&password[..at], &password[at + separator.len()..]]);
    }
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    for piece in pieces.into_iter().filter(|piece| piece.len() > 2) {
        out = out.replace(piece, "***");
    }
    out
}

fn kind(error: &Error) -> Kind {
    match &*error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown => Kind::Unreachable,
        _ => match code(error) {
            // The driver specification's codes of a node that steps down, shuts down, recovers, or lost the network.
            Some(6 | 7 | 89 | 91 | 134 | 189 | 9001 | 10058 | 10107 | 11600 | 11602 | 13435 | 13436) => {
                Kind::Unreachable
            }
            // MaxTimeMSExpired, WriteConcernTimeout, ExceededTimeLimit
            Some(50 | 64 | 262) => Kind::Timeout,
            _ => Kind::Refused,
        },
    }
}

fn text(error: &Error) -> String {
    let quoted = |code: i32, name: &str, message: &str| {
        let message = message.split(['{', '"']).next().unwrap_or_default().trim_end();
        format!("code {code} {name}: {message}")
    };
    match &*error.kind {
        ErrorKind::Command(error) => quoted(error.code, &error.code_name, &error.message),
        ErrorKind::Write(WriteFailure::WriteError(error)) => {
            quoted(error.code, error.code_name.as_deref().unwrap_or_default(), &error.message)
        }
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => {
            quoted(error.code, &error.code_name, &error.message)
        }
        // These speak of servers and sockets only, and their braces hold the reason.
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Authentication { .. }
        | ErrorKind::InvalidTlsConfig { .. }
        | ErrorKind::IncompatibleServer { .. }
        | ErrorKind::ConnectionPoolCleared { .. } => error.kind.to_string(),
        other => other.to_string().split('{').next().unwrap_or_default().to_owned(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url = "mongodb://app:s3cr3t/p@ss@db.example/app";
        for text in ["bad s3cr3t/p@ss here", "invalid port: s3cr3t", "host p@ss of db"] {
            let shown = masked(url, text);
            assert!(!shown.contains("s3cr3t") && !shown.contains("p@ss"), "{shown}");
        }
        assert_eq!(masked("mongodb://db.example/app", "plain"), "plain");
    }
}
