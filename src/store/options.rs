//! What each store is told: the options of the package whose format it shares, under that package's names.
//!
//! Filled in by `config`. `Debug` masks whatever may hold a password. Tests: `tests/it/config.rs`.

use crate::session::Millis;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// What the store is and how long one operation may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Which backend.
    pub kind: StoreKind,
    /// `timeouts.store`: one operation, waiting included.
    pub deadline: Duration,
    /// `limits.session`: bytes of one stored payload.
    pub max_payload: usize,
}

/// The backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// Bounded, gone at exit. `max_bytes` of payloads; past it the sessions that end soonest go first.
    Memory {
        /// Bytes of sids and payloads together, with a fixed surcharge for each session's bookkeeping.
        max_bytes: usize,
    },
    /// One crash-safe file.
    Embedded {
        /// `store.path`
        path: PathBuf,
    },
    /// A MongoDB collection in connect-mongo's format.
    Mongodb(MongoOptions),
    /// Redis keys in connect-redis's format.
    Redis(RedisOptions),
    /// A directory in session-file-store's format.
    File(FileOptions),
}

/// connect-redis's options, and where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// `redis://` or `rediss://`; several for a cluster. They may hold passwords, so `Debug` masks them.
    pub urls: Vec<String>,
    /// `cluster`: the URLs are nodes of a Redis Cluster.
    pub cluster: bool,
    /// `prefix`, default `sess:`
    pub prefix: String,
    /// `ttl`, milliseconds: of sessions without a max age. Only tells when such a session was touched last.
    pub ttl: Millis,
    /// `disable_touch`: a touch writes nothing.
    pub disable_touch: bool,
}

/// session-file-store's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// `path`: the directory.
    pub path: PathBuf,
    /// `ttl`, milliseconds: how long after its last access a session without a max age ends.
    pub ttl: Millis,
    /// `reap_interval`: how often expired files are removed; `None`: never.
    pub reap_interval: Option<Duration>,
}

/// connect-mongo's options.
#[derive(Clone, PartialEq, Eq)]
pub struct MongoOptions {
    /// `mongodb://` or `mongodb+srv://`; may hold a password, so `Debug` masks it.
    pub url: String,
    /// `database`; `None` is the one in the URL, else `test` as the Node driver has it.
    pub database: Option<String>,
    /// `collection`, default `sessions`
    pub collection: String,
    /// `stringify`: the session as a JSON string (true) or as a sub-document.
    pub stringify: bool,
    /// `timestamps`: keep `createdAt` and `updatedAt`.
    pub timestamps: bool,
    /// `touch_after` > 0: keep `lastModified`.
    pub touch_after: Millis,
    /// `auto_remove`
    pub auto_remove: AutoRemove,
    /// `write_concern`; `None` is the URL's, else the server's default (`majority` on replica sets).
    pub write_concern: Option<WriteConcernOptions>,
    /// `transform_id`; `None`: the sid is the `_id`.
    pub transform_id: Option<TransformId>,
    /// `crypto`; `None`: sessions are stored in plain text.
    pub crypto: Option<Box<CryptoOptions>>,
}

/// connect-mongo's `transformId`, which is a function there: `prefix + encoding(hash(sid))`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformId {
    /// Stands before the rest.
    pub prefix: String,
    /// `None`: the sid as it is.
    pub hash: Option<IdHash>,
    /// How the hash is written.
    pub encoding: TextEncoding,
}

/// Node's `crypto.createHash` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum IdHash {
    Sha1,
    Sha256,
    Sha512,
}

/// Node's `Buffer.toString` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TextEncoding {
    Hex,
    Base64,
    Base64url,
}

/// The options of connect-mongo's `createWebCryptoAdapter`, and of the kruptein adapter that may have written before.
#[derive(Clone, PartialEq, Eq)]
pub struct CryptoOptions {
    /// `secret` first, then `old_secrets`: the first seals, every one opens.
    pub secrets: Vec<Vec<u8>>,
    /// `salt` of PBKDF2; connect-mongo's default is `connect-mongo:webcrypto-default-salt`.
    pub salt: Vec<u8>,
    /// `iterations` of PBKDF2-SHA-256, default 310,000.
    pub iterations: NonZeroU32,
    /// `encoding` of the stored text, default base64.
    pub encoding: TextEncoding,
    /// `kruptein`: documents of connect-mongo's `crypto` option are read too, and sealed anew with their next save.
    pub kruptein: Option<KrupteinOptions>,
}

/// connect-mongo's `crypto` options (algorithm aes-256-gcm).
#[derive(Clone, PartialEq, Eq)]
pub struct KrupteinOptions {
    /// `secret`
    pub secret: Vec<u8>,
    /// `hashing`, default SHA-512 as connect-mongo has it.
    pub hashing: KrupteinHash,
    /// `encodeas`, default base64.
    pub encoding: TextEncoding,
}

/// kruptein's `hashing`, as far as connect-mongo's users have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum KrupteinHash {
    Sha256,
    Sha384,
    Sha512,
}

/// connect-mongo's `writeOperationOptions`: when a write counts as done. What is `None` is the server's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteConcernOptions {
    /// `w`
    pub w: Option<Acknowledge>,
    /// `j`: also in the journal on disk.
    pub journal: Option<bool>,
    /// `wtimeout`
    pub timeout: Option<Duration>,
}

/// `w`: who has to have a write. Never nobody: a response waits for its write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledge {
    /// So many nodes, at least one.
    Nodes(u32),
    /// Most of the replica set.
    Majority,
    /// A write concern that the replica set's configuration names.
    Named(String),
}

/// connect-mongo's `autoRemove`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoRemove {
    /// A TTL index on `expires`.
    Native,
    /// A `deleteMany` every so often.
    Interval(Duration),
    /// Nobody removes anything.
    Disabled,
}

impl fmt::Debug for MongoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoOptions")
            .field("url", &"(masked)")
            .field("database", &self.database)
            .field("collection", &self.collection)
            .field("stringify", &self.stringify)
            .field("timestamps", &self.timestamps)
            .field("touch_after", &self.touch_after)
            .field("auto_remove", &self.auto_remove)
            .field("transform_id", &self.transform_id)
            .field("crypto", &self.crypto)
            .finish()
    }
}

impl fmt::Debug for CryptoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptoOptions")
            .field("secrets", &self.secrets.len())
            .field("iterations", &self.iterations)
            .field("encoding", &self.encoding)
            .field("kruptein", &self.kruptein)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KrupteinOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KrupteinOptions")
            .field("hashing", &self.hashing)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("urls", &"(masked)")
            .field("cluster", &self.cluster)
            .field("prefix", &self.prefix)
            .field("disable_touch", &self.disable_touch)
            .finish()
    }
}
