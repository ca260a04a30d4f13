//! The `_id` of a session's document: the sid, or what `transform_id` makes of it. Tests: here.

use super::super::seal::encode;
use super::super::{IdHash, TransformId};
use crate::session::sid::Sid;
use aws_lc_rs::digest;
use std::sync::Arc;

/// Cheap to clone. As secret as the sid, unless it is a hash.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Id {
    Sid(Sid),
    Made(Arc<str>),
}

impl Id {
    /// `prefix + encoding(hash(sid))`
    pub(super) fn of(sid: &Sid, transform: Option<&TransformId>) -> Self {
        let Some(TransformId { prefix, hash, encoding }) = transform else { return Self::Sid(sid.clone()) };
        let rest = hash
            .map(|hash| encode(*encoding, digest::digest(algorithm(hash), sid.as_str().as_bytes()).as_ref()));
        Self::Made(format!("{prefix}{}", rest.as_deref().unwrap_or(sid.as_str())).into())
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Sid(sid) => sid.as_str(),
            Self::Made(text) => text,
        }
    }
}

fn algorithm(hash: IdHash) -> &'static digest::Algorithm {
    match hash {
        // Old, and good enough for this: 24 random bytes cannot be guessed from it, nor two sids made that collide.
        IdHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        IdHash::Sha256 => &digest::SHA256,
        IdHash::Sha512 => &digest::SHA512,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::TextEncoding;
    use super::*;

    /// Expectations from Node: `prefix + crypto.createHash(hash).update(sid).digest(encoding)`.
    #[test]
    fn ids_are_those_of_node() {
        let sid = Sid::from_text("s\u{fc}").unwrap();
        let id = |prefix: &str, hash, encoding| {
            let transform = TransformId { prefix: prefix.to_owned(), hash, encoding };
            Id::of(&sid, Some(&transform)).as_str().to_owned()
        };
        assert_eq!(Id::of(&sid, None).as_str(), "s\u{fc}");
        assert_eq!(id("app:", None, TextEncoding::Hex), "app:s\u{fc}");
        assert_eq!(id("", Some(IdHash::Sha1), TextEncoding::Hex), "4758ca5ffac12d78df0d19c234c63bceec479ebd");
        assert_eq!(
            id("p-", Some(IdHash::Sha256), TextEncoding::Base64),
            "p-LuAW9ADOmMrRs9KUVUbXq/ihFkUVCK+aRMY1FcLChPc="
        );
        assert_eq!(
            id("", Some(IdHash::Sha512), TextEncoding::Base64url),
            "hpZzcpsymLpmWwmHkRdmRLjkFPdBSqBVbupfqxLxhbjGRGvUVjGJgKq2qMBtvorCPTljlEXZkSRL948FTyyr4A"
        );
    }
}
