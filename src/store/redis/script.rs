//! What Redis does in one step: the scripts, and how a command is written.
//!
//! Every script touches one key, so a cluster can run it too. It is sent by its hash; a server that does not know it (restarted, failed
//! over, flushed) says NOSCRIPT, has done nothing then, and gets the text. Tests: `tests/it/store_conformance/redis.rs`.

use aws_lc_rs::digest;
use redis::{Cmd, Pipeline};
use std::fmt::Write as _;
use std::sync::LazyLock;

/// A Lua script and its SHA-1.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

/// `KEYS[1]`, expected, new, seconds, longest: stores `new` if `expected` is there.
/// Answers: 0 nothing there, 1 done, or `{value, PTTL}` of what is there instead (no more of it than one byte past `longest`).
pub(super) static UPDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local v = redis.pcall('GET', KEYS[1])
if not v then return 0 end
if type(v) == 'table' then return v end
if v ~= ARGV[1] then return {string.sub(v, 1, ARGV[4] + 1), redis.call('PTTL', KEYS[1])} end
if tonumber(ARGV[3]) > 0 then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) else redis.call('DEL', KEYS[1]) end
return 1",
    )
});

/// `KEYS[1]`, expected, longest: deletes the key if `expected` is there. Answers as [`UPDATE`] does.
pub(super) static DESTROY_IF: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local v = redis.pcall('GET', KEYS[1])
if not v then return 0 end
if type(v) == 'table' then return v end
if v ~= ARGV[1] then return {string.sub(v, 1, ARGV[2] + 1), redis.call('PTTL', KEYS[1])} end
redis.call('DEL', KEYS[1])
return 1",
    )
});

/// `KEYS[1]`, SHA-1 of the loaded value, seconds: `EXPIRE` if that value is still there. Answers 0 when nothing is there.
pub(super) static TOUCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local v = redis.pcall('GET', KEYS[1])
if not v then return 0 end
if type(v) == 'table' then return v end
if redis.sha1hex(v) == ARGV[1] then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 1",
    )
});

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hash: sha1_hex(text.as_bytes()) }
    }

    /// The call by hash.
    pub(super) fn by_hash(&self, key: &str, arguments: &[&str]) -> Pipeline {
        call("EVALSHA", &self.hash, key, arguments)
    }

    /// The call with the text, which the server keeps from then on.
    pub(super) fn by_text(&self, key: &str, arguments: &[&str]) -> Pipeline {
        call("EVAL", self.text, key, arguments)
    }
}

fn call(name: &str, script: &str, key: &str, arguments: &[&str]) -> Pipeline {
    let mut command = Cmd::with_capacity(
        4 + arguments.len(),
        16 + script.len() + key.len() + arguments.iter().map(|argument| argument.len()).sum::<usize>(),
    );
    command.arg(name).arg(script).arg(1).arg(key);
    for argument in arguments {
        command.arg(*argument);
    }
    one(command)
}

/// One command as a pipeline.
pub(super) fn one(command: Cmd) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(1);
    pipeline.add_command(command);
    pipeline
}

/// Lower-case hex of the SHA-1, as Redis's `sha1hex` writes it. It names a value or a script; it protects nothing.
pub(super) fn sha1_hex(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    hash.as_ref().iter().fold(String::with_capacity(40), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_one_that_redis_writes() {
        assert_eq!(sha1_hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
