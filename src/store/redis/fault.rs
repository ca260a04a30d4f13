//! Redis's errors in our words: what the caller can do about them, and a text without secrets.
//!
//! A server may quote arguments, and those hold sids, sessions and passwords: everything from the first quote on is cut, but for the
//! name of a command that the user has no right to.
//! Tests: here.

use super::super::error::Kind;
use redis::{ErrorKind, RedisError, ServerError, Value};

/// What went wrong in a call.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// No connection could be made, and why.
    Unconnected(Box<Self>),
    /// The connection, or the server's refusal of all that was sent.
    Driver(RedisError),
    /// The server's refusal of a command.
    Server(ServerError),
    /// An answer of another shape than Redis gives.
    Odd,
    /// No answer in time.
    Late,
}

const QUOTES: [char; 3] = ['\'', '"', '`'];
/// A longer text helps nobody.
const LONGEST: usize = 300;

/// The server is not the one to ask, or not now. It has done nothing.
const ELSEWHERE: &[&str] =
    &["READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "BUSY", "UNBLOCKED"];
/// A new connection may find another server behind the same name, or be logged in again.
const RECONNECT: &[&str] = &["READONLY", "MASTERDOWN", "NOAUTH"];

impl Fault {
    pub(super) fn explain(&self) -> (Kind, String) {
        match self {
            Self::Unconnected(why) => {
                let (kind, text) = why.explain();
                (kind, format!("no connection: {text}"))
            }
            Self::Driver(error) => (driver_kind(error), shortened(&error.to_string())),
            Self::Server(error) => {
                let text = server_text(error);
                let kind = if names(&text, ELSEWHERE) { Kind::Unreachable } else { Kind::Refused };
                (kind, shortened(&text))
            }
            Self::Odd => (Kind::Refused, "the server's answer is not one of Redis".to_owned()),
            Self::Late => (Kind::Timeout, "no answer within timeouts.store".to_owned()),
        }
    }

    /// Is this connection of no more use?
    pub(super) fn ends_the_connection(&self) -> bool {
        match self {
            Self::Driver(error) => {
                matches!(
                    error.kind(),
                    ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound
                )
            }
            Self::Server(error) => names(&server_text(error), RECONNECT),
            Self::Unconnected(_) | Self::Odd | Self::Late => false,
        }
    }

    /// The command's key holds no string.
    pub(super) fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Server(error) if names(&server_text(error), &["WRONGTYPE"]))
    }

    /// The server does not have the script, and has done nothing.
    pub(super) fn is_unknown_script(&self) -> bool {
        matches!(self, Self::Server(error) if error.code() == "NOSCRIPT")
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        match ServerError::try_from(error) {
            Ok(error) => Self::Server(error),
            Err(error) => Self::Driver(error),
        }
    }
}

/// An answer, unless it is a refusal.
pub(super) fn checked(value: Value) -> Result<Value, Fault> {
    match value {
        Value::ServerError(error) => Err(Fault::Server(error)),
        value => Ok(value),
    }
}

/// `text` without any of `passwords`.
pub(super) fn masked(passwords: &[String], text: String) -> String {
    passwords.iter().fold(text, |text, password| text.replace(password, "***"))
}

fn driver_kind(error: &RedisError) -> Kind {
    match error.kind() {
        ErrorKind::Io if error.is_timeout() => Kind::Timeout,
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound => Kind::Unreachable,
        _ if names(&error.to_string(), ELSEWHERE) => Kind::Unreachable,
        _ => Kind::Refused,
    }
}

/// Up to Redis 6 an error inside a script is quoted in a longer text whose code is ERR, so the codes are looked for anywhere.
fn names(text: &str, codes: &[&str]) -> bool {
    text.split(|c: char| !c.is_ascii_uppercase()).any(|word| codes.contains(&word))
}

fn server_text(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

fn shortened(text: &str) -> String {
    let start = text.split(QUOTES).next().unwrap_or_default();
    let text = forbidden_command(text, start).unwrap_or(start).trim_end();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `text` up to the end of "no permissions to run the 'get' command", if it goes on so after `start`, which ends at the first quote.
fn forbidden_command<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    const END: &str = "' command";
    let rest = text.strip_prefix(start)?.strip_prefix('\'')?;
    let (name, _) = rest.split_once(END)?;
    // `config|set` is a command with its subcommand, `json.get` one of a module.
    let is_name =
        name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"|-_.".contains(&byte));
    let is_said = names(start, &["NOPERM"]) && start.ends_with("to run the ");
    (is_name && is_said).then(|| &text[..start.len() + 1 + name.len() + END.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn said(line: &str) -> Fault {
        checked(redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()).unwrap_err()
    }

    #[test]
    fn every_refusal_has_its_kind() {
        for (line, kind, reconnect) in [
            ("READONLY You can't write against a read only replica.", Kind::Unreachable, true),
            ("MASTERDOWN Link with MASTER is down", Kind::Unreachable, true),
            ("LOADING Redis is loading the dataset in memory", Kind::Unreachable, false),
            ("CLUSTERDOWN Hash slot not served", Kind::Unreachable, false),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Kind::Unreachable, false),
            ("BUSY Redis is busy running a script", Kind::Unreachable, false),
            ("NOAUTH Authentication required.", Kind::Refused, true),
            ("WRONGPASS invalid username-password pair or user is disabled.", Kind::Refused, false),
            ("NOPERM this user has no permissions", Kind::Refused, false),
            ("OOM command not allowed when used memory > maxmemory.", Kind::Refused, false),
            ("MISCONF Redis is configured to save RDB snapshots", Kind::Refused, false),
            ("NOREPLICAS Not enough good replicas to write.", Kind::Refused, false),
            ("ERR unknown command", Kind::Refused, false),
            // Redis 6, from within a script.
            (
                "ERR Error running script (call to f_0): @user_script:5: @user_script: 5: -READONLY You can't",
                Kind::Unreachable,
                true,
            ),
        ] {
            let fault = said(line);
            assert_eq!((fault.explain().0, fault.ends_the_connection()), (kind, reconnect), "{line}");
            assert_eq!(Fault::Unconnected(Box::new(fault)).explain().0, kind, "{line}");
        }
        assert!(said("WRONGTYPE Operation against a key").is_wrong_type());
        assert!(said("NOSCRIPT No matching script.").is_unknown_script());
    }

    #[test]
    fn a_broken_connection_is_unreachable_and_a_slow_one_late() {
        for (error, kind) in [
            (io::ErrorKind::ConnectionRefused, Kind::Unreachable),
            (io::ErrorKind::BrokenPipe, Kind::Unreachable),
            (io::ErrorKind::TimedOut, Kind::Timeout),
        ] {
            let fault = Fault::from(RedisError::from(io::Error::from(error)));
            assert_eq!(fault.explain().0, kind);
            assert!(fault.ends_the_connection());
        }
    }

    #[test]
    fn no_argument_and_no_password_is_shown() {
        let (_, text) = said("ERR unknown command 'AUTH', with args beginning with: 'hunter2' ").explain();
        assert_eq!(text, "ERR unknown command");
        for (line, shown) in [
            // Redis 7, Redis 6, from within a script.
            (
                "NOPERM User app has no permissions to run the 'config|set' command",
                "NOPERM User app has no permissions to run the 'config|set' command",
            ),
            (
                "NOPERM this user has no permissions to run the 'get' command or its subcommand",
                "NOPERM this user has no permissions to run the 'get' command",
            ),
            (
                "NOPERM ACL failure in script: User app has no permissions to run the 'expire' command script: f_1",
                "NOPERM ACL failure in script: User app has no permissions to run the 'expire' command",
            ),
            // Nothing else that is quoted.
            (
                "NOPERM User app has no permissions to access the 'sess:x' key",
                "NOPERM User app has no permissions to access the",
            ),
            ("NOPERM no permissions to run the 'a b' command", "NOPERM no permissions to run the"),
            ("NOPERM no permissions to run the 'get", "NOPERM no permissions to run the"),
            ("ERR not allowed to run the 'get' command", "ERR not allowed to run the"),
        ] {
            assert_eq!(said(line).explain().1, shown);
        }
        assert_eq!(masked(&["hunter2".to_owned()], "a hunter2 b".to_owned()), "a *** b");
    }
}
