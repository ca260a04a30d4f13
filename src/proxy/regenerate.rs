//! A new sid for a session: the one commit that takes several store operations.
//!
//! Tests: `tests/it/overlapping_requests.rs`, `session_update.rs`.

use super::commit::{Base, CommitError, Committed, Committer, Outcome, conflict, new_sid, stored};
use crate::session::Millis;
use crate::session::lifecycle::Evolved;
use crate::session::sid::Sid;
use crate::session::wire::Update;
use crate::store::error::Op;
use crate::store::{Loaded, Lookup, Swapped, Version};
use std::rc::Rc;
use std::time::Instant;

impl Committer {
    pub(super) async fn regenerate(
        self: Rc<Self>,
        old: Sid,
        loaded: Loaded,
        evolved: Evolved,
        update: Update,
        now: Millis,
    ) -> Result<Committed, CommitError> {
        let started = Instant::now();
        let place = self.lines.enter(&old);
        let _turn = self.turn(&place, Op::Destroy, started).await?;
        self.swap_sid(old, loaded, evolved, update, now, started).await
    }

    /// The new session is stored before the old one goes, and the old one goes only as the very version that the new one was made
    /// from: no moment loses data, and a session that vanished meanwhile is not revived under another name.
    pub(super) async fn swap_sid(
        &self,
        old: Sid,
        loaded: Loaded,
        evolved: Evolved,
        update: Update,
        now: Millis,
        started: Instant,
    ) -> Result<Committed, CommitError> {
        let (mut base, mut next) = (loaded, evolved);
        let (sid, mut version) =
            self.create_under_free_sid(new_sid()?, &next.record, next.expires_at, now).await?;
        let step = loop {
            match self.store.destroy_if(&old, &base.version, now).await {
                Ok(Swapped::Done(_)) => {
                    self.counters.sessions_regenerated.inc();
                    self.lines.remember_renamed(&old);
                    let base = Base { sid, live: Some(stored(next, version, now)) };
                    return Ok(Committed { outcome: Outcome::Regenerated, base });
                }
                Ok(Swapped::Absent) => break Ok(()),
                Ok(Swapped::Conflict(lookup)) => {
                    match self
                        .follow_conflict(&sid, &mut version, &mut next, *lookup, &update, now, started)
                        .await
                    {
                        Ok(Some(found)) => base = found,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
                // Whether the old one is gone is unknown, the new one is there: the client gets it, with the 503.
                Err(error) => {
                    self.lines.remember_renamed(&old);
                    return Err(CommitError::HalfRegenerated {
                        error,
                        sid,
                        expires: next.record.cookie.expires,
                    });
                }
            }
        };
        // Nothing was regenerated: nothing of the attempt stays behind.
        self.store.destroy(&sid).await?;
        step.map(|()| self.vanished(old))
    }

    /// Somebody wrote to the old session while it was being renamed: the new one follows. `None`: the old one is gone.
    #[expect(clippy::too_many_arguments, reason = "one step of the loop above, which owns all of it")]
    async fn follow_conflict(
        &self,
        sid: &Sid,
        version: &mut Version,
        next: &mut Evolved,
        lookup: Lookup,
        update: &Update,
        now: Millis,
        started: Instant,
    ) -> Result<Option<Loaded>, CommitError> {
        let Some(found) = self.after_conflict(Op::Destroy, lookup, started)? else { return Ok(None) };
        *next = self.evolve(&found, &next.record.cookie.attributes, update, now)?;
        match self.store.update(sid, version, &next.record, next.expires_at, now).await? {
            Swapped::Done(swapped) => *version = swapped,
            Swapped::Absent | Swapped::Conflict(_) => return Err(conflict(Op::Update)),
        }
        Ok(Some(found))
    }
}
