//! Places among the operations under way: bounded, and waited for within the operation's own deadline.
//!
//! Must not know any backend. Tests: `tests/it/store_conformance/burst.rs`.

use super::StoreError;
use super::error::{Kind, Op};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// A place. One that is free is had without waiting, so that the work begins before its caller can leave.
pub(super) async fn place(
    places: &Arc<Semaphore>,
    op: Op,
    until: Instant,
) -> Result<OwnedSemaphorePermit, StoreError> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Ok(place);
    }
    match timeout_at(until, Arc::clone(places).acquire_owned()).await {
        Ok(Ok(place)) if Instant::now() < until => Ok(place),
        _ => Err(StoreError::new(op, Kind::Overloaded, "too many operations are under way")),
    }
}
