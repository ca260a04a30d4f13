//! Sessions that kruptein sealed: opened beside the worker, each for whoever still waits for it.
//!
//! Tests: `tests/it/store_conformance/sealed.rs`.

use super::super::Lookup;
use super::Mongo;
use super::document::{Locked, Reading};

impl Mongo {
    /// What a reading means, with the key worked out if it takes one. What nobody
    /// asks for any more (`is_wanted`) stays closed.
    pub(super) async fn unlock(&self, reading: Reading, is_wanted: impl Fn() -> bool) -> Lookup {
        let Locked { text, rest } = match reading {
            Reading::Known(lookup) => return lookup,
            Reading::Locked(locked) => *locked,
        };
        let plain = match self.shared.reader.kruptein() {
            Some(kruptein) => kruptein.open(text, is_wanted).await,
            None => None,
        };
        rest.with(plain.unwrap_or_else(|| Err("nobody waited for its key".to_owned())))
    }
}
