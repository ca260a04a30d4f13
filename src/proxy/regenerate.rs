//! A new sid for a session: the one commit that takes several store operations.
//!
//! Tests: `tests/it/overlapping_requests.rs`, `session_update.rs`.

use super::commit::{Answer, Base, CommitError, Committed, Committer, Outcome, conflict, new_sid, stored};
use crate::session::Millis;
use crate::session::lifecycle::Evolved;
use crate::session::sid::Sid;
use crate::session::wire::Update;
use crate::store::error::{Kind, Op};
use crate::store::{Loaded, Lookup, StoreError, Swapped, Version};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often the deletion of the old session is tried when the store gives no answer, and the pause before each further time.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

impl Committer {
    pub(super) async fn regenerate(
        self: Rc<Self>,
        old: Sid,
        loaded: Loaded,
        evolved: Evolved,
        update: Update,
        now: Millis,
        answer: Answer,
    ) -> Result<Committed, CommitError> {
        let place = self.lines.enter(&old);
        let _turn = self.turn(&place, Op::Destroy, Instant::now()).await?;
        self.swap_sid(old, loaded, evolved, update, now, &answer).await
    }

    /// The new session is stored before the old one goes, and the old one goes only as the very version that the new one was made
    /// from: no moment loses data, and a session that vanished meanwhile is not revived under another name.
    ///
    /// When the store leaves open whether the old one is gone, the client gets a 503 with the new cookie, and this goes on until it
    /// is known: what others merged follows, and a logout that came first takes the new session along.
    pub(super) async fn swap_sid(
        &self,
        old: Sid,
        loaded: Loaded,
        evolved: Evolved,
        update: Update,
        now: Millis,
        answer: &Answer,
    ) -> Result<Committed, CommitError> {
        let (mut base, mut next) = (loaded, evolved);
        let (sid, mut version) =
            self.create_under_free_sid(new_sid()?, &next.record, next.expires_at, now).await?;
        let half = |error: StoreError, next: &Evolved| {
            self.lines.remember_renamed(&old, &sid);
            let expires = next.record.cookie.expires;
            CommitError::HalfRegenerated { error, sid: sid.clone(), expires }
        };
        let mut unanswered = 0;
        let step = loop {
            let expected = base.version.clone();
            let mut deletion = Box::pin(self.store.destroy_if(&old, &expected, now));
            let deleted = match tokio::time::timeout(self.deadline, &mut deletion).await {
                Ok(deleted) => deleted,
                Err(_) => {
                    let detail = "the old session's deletion has no answer within timeouts.store".to_owned();
                    answer
                        .give(Err(half(StoreError { op: Op::Destroy, kind: Kind::Timeout, detail }, &next)));
                    deletion.as_mut().await
                }
            };
            drop(deletion);
            match deleted {
                // Absent after a try without an answer: that try did it.
                Ok(Swapped::Absent) if unanswered == 0 => break Ok(()),
                Ok(Swapped::Done(_) | Swapped::Absent) => {
                    self.counters.sessions_regenerated.inc();
                    self.lines.remember_renamed(&old, &sid);
                    let base = Base { sid, live: Some(stored(next, version, now)) };
                    return Ok(Committed { outcome: Outcome::Regenerated, base });
                }
                // Each further round takes another writer who came first; our own wait in line.
                Ok(Swapped::Conflict(lookup)) => {
                    match self.follow_conflict(&sid, &mut version, &mut next, *lookup, &update, now).await {
                        Ok(Some(found)) => base = found,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
                Err(error) => {
                    unanswered += 1;
                    answer.give(Err(half(error.clone(), &next)));
                    if unanswered == TRIES {
                        tracing::warn!(session = %old, %error, "a session has a new id, and its old one may still be stored");
                        return Err(CommitError::Store(error));
                    }
                    tokio::time::sleep(PAUSE * unanswered).await;
                }
            }
        };
        // Nothing was regenerated: nothing of the attempt stays behind.
        if let Err(error) = self.store.destroy(&sid).await {
            tracing::warn!(session = %sid, %error, "a copy of a session that nobody holds an id for stays until it expires");
        }
        step.map(|()| self.vanished(old))
    }

    /// Somebody wrote to the old session while it was being renamed: the new one follows. `None`: the old one is gone.
    async fn follow_conflict(
        &self,
        sid: &Sid,
        version: &mut Version,
        next: &mut Evolved,
        lookup: Lookup,
        update: &Update,
        now: Millis,
    ) -> Result<Option<Loaded>, CommitError> {
        let Some(found) = self.after_conflict(Op::Destroy, lookup)? else { return Ok(None) };
        *next = self.evolve(&found, &next.record.cookie.attributes, update, now)?;
        match self.store.update(sid, version, &next.record, next.expires_at, now).await? {
            Swapped::Done(swapped) => *version = swapped,
            Swapped::Absent | Swapped::Conflict(_) => return Err(conflict(Op::Update)),
        }
        Ok(Some(found))
    }
}
