//! One session, read as the sidecar reads it, and nothing started that writes. Tests: `tests/it/doctor.rs`.

use super::super::mongo::door;
use super::super::{
    AutoRemove, IdHash, Lookup, SharedStore, StoreKind, StoreOptions, TextEncoding, TransformId,
};
use super::mongodb;
use crate::drain::Drain;
use crate::session::Millis;
use crate::session::sid::Sid;

/// What is stored under `sid`. Call it inside a tokio `LocalSet`.
///
/// # Errors
/// Why there is no answer, for a person.
pub async fn look_up(options: &StoreOptions, sid: &Sid, now: Millis) -> Result<Lookup, String> {
    let mut options = options.clone();
    match &mut options.kind {
        StoreKind::Memory { .. } => return Err("a store in memory lives in the sidecar's process".to_owned()),
        StoreKind::Embedded { path } if !path.exists() => return Ok(Lookup::Absent),
        StoreKind::Embedded { path } => {
            return super::super::embedded::survey::read_row(path, sid, now, options.max_payload);
        }
        StoreKind::File(files) if !files.path.exists() => return Ok(Lookup::Absent),
        StoreKind::File(files) => files.reap_interval = None,
        StoreKind::Mongodb(mongo) => mongo.auto_remove = AutoRemove::Disabled,
        StoreKind::Redis(_) => {}
    }
    let store = SharedStore::open(options)?.attach(&Drain::new());
    store.load(sid, now).await.map_err(|error| error.to_string())
}

/// Another `transform_id` under which a document of this sid is stored, when the configured one finds none. `Some(None)`: the sid as it is.
pub async fn other_transform(options: &StoreOptions, sid: &Sid) -> Option<Option<TransformId>> {
    let StoreKind::Mongodb(mongo) = &options.kind else { return None };
    let prefix = mongo.transform_id.as_ref().map(|transform| transform.prefix.clone()).unwrap_or_default();
    let mut candidates = vec![None];
    for prefix in [String::new(), prefix, "sess:".to_owned()] {
        for hash in [None, Some(IdHash::Sha1), Some(IdHash::Sha256), Some(IdHash::Sha512)] {
            for encoding in [TextEncoding::Hex, TextEncoding::Base64, TextEncoding::Base64url] {
                let transform = Some(TransformId { prefix: prefix.clone(), hash, encoding });
                let transforms = hash.is_some() || !prefix.is_empty();
                if transforms && transform != mongo.transform_id && !candidates.contains(&transform) {
                    candidates.push(transform);
                }
            }
        }
    }
    let ids: Vec<String> = candidates.iter().map(|transform| door::id(sid, transform.as_ref())).collect();
    let found = mongodb::which_exists(mongo, options, &ids).await?;
    candidates.into_iter().zip(ids).find(|(_, id)| *id == found).map(|(transform, _)| transform)
}
