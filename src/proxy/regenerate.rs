//! A new sid for a session: the one commit that takes several store operations.
//!
//! Tests: `tests/it/overlapping_requests.rs`, `session_update.rs`.

use super::commit::{Answer, Change, Committer, conflict, new_sid, stored};
use super::outcome::{Base, CommitError, Committed, Outcome};
use crate::events;
use crate::session::sid::Sid;
use crate::store::error::{Kind, Op};
use crate::store::{Lookup, StoreError, Swapped, Version};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often the deletion of the old session is tried when the store gives no answer, and the pause before each further time.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

impl Committer {
    pub(super) async fn regenerate(
        self: Rc<Self>,
        change: Change,
        answer: Answer,
    ) -> Result<Committed, CommitError> {
        let place = self.lines.enter(&change.sid);
        let _turn = self.turn(&place, Op::Destroy, Instant::now()).await?;
        self.swap_sid(change, &answer).await
    }

    /// The new session is stored before the old one goes, and the old one goes only as the very version that the new one was made
    /// from: no moment loses data, and a session that vanished meanwhile is not revived under another name.
    ///
    /// When the store leaves open whether the old one is gone, the client gets a 503 with the new cookie, and this goes on until it
    /// is known: what others merged follows, and a logout that came first takes the new session along.
    pub(super) async fn swap_sid(&self, change: Change, answer: &Answer) -> Result<Committed, CommitError> {
        let now = change.now;
        let mut change = change;
        let (sid, mut version) =
            self.create_under_free_sid(new_sid()?, Some(&change.base.version), &change.next, now).await?;
        let half = |error: StoreError, change: &Change| {
            self.lines.remember_renamed(&change.sid, &sid);
            let expires = change.next.record.cookie.expires;
            CommitError::HalfRegenerated { error, sid: sid.clone(), expires }
        };
        let mut unanswered = 0;
        let step = loop {
            let expected = change.base.version.clone();
            let mut deletion = Box::pin(self.store.destroy_if(&change.sid, &expected, now));
            let deleted = match tokio::time::timeout(self.deadline, &mut deletion).await {
                Ok(deleted) => deleted,
                Err(_) => {
                    let detail = "the old session's deletion has no answer within timeouts.store".to_owned();
                    let error = StoreError { op: Op::Destroy, kind: Kind::Timeout, detail };
                    answer.give(Err(half(error, &change)));
                    deletion.as_mut().await
                }
            };
            drop(deletion);
            match deleted {
                // Absent after a try without an answer: that try did it.
                Ok(Swapped::Absent) if unanswered == 0 => break Ok(()),
                Ok(Swapped::Done(_) | Swapped::Absent) => {
                    self.counters.sessions_regenerated.inc();
                    self.tell(events::Kind::Destroy, &change.sid, now);
                    self.lines.remember_renamed(&change.sid, &sid);
                    let base = Base { sid, live: Some(stored(change.next, version, now)) };
                    return Ok(Committed { outcome: Outcome::Regenerated, base });
                }
                // Each further round takes another writer who came first; our own wait in line.
                Ok(Swapped::Conflict(lookup)) => {
                    match self.follow_conflict(&sid, &mut version, &mut change, *lookup).await {
                        Ok(true) => {}
                        Ok(false) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
                Err(error) => {
                    unanswered += 1;
                    answer.give(Err(half(error.clone(), &change)));
                    if unanswered == TRIES {
                        tracing::warn!(session = %change.sid, %error, "a session has a new id, and its old one may still be stored");
                        return Err(CommitError::Store(error));
                    }
                    tokio::time::sleep(PAUSE * unanswered).await;
                }
            }
        };
        // Nothing was regenerated: nothing of the attempt stays behind.
        match self.store.destroy(&sid).await {
            Ok(_) => self.tell(events::Kind::Destroy, &sid, now),
            Err(error) => {
                tracing::warn!(session = %sid, %error, "a copy of a session that nobody holds an id for stays until it expires");
            }
        }
        step.map(|()| self.vanished(change.sid))
    }

    /// Somebody wrote to the old session while it was being renamed: the new one follows. `false`: the old one is gone.
    async fn follow_conflict(
        &self,
        sid: &Sid,
        version: &mut Version,
        change: &mut Change,
        lookup: Lookup,
    ) -> Result<bool, CommitError> {
        let Some(found) = self.after_conflict(Op::Destroy, lookup)? else { return Ok(false) };
        change.rebase(self, found)?;
        let Change { next, now, .. } = &*change;
        match self.store.update(sid, version, &next.record, next.expires_at, *now).await? {
            Swapped::Done(swapped) => {
                self.tell(events::Kind::Update, sid, *now);
                *version = swapped;
            }
            Swapped::Absent | Swapped::Conflict(_) => return Err(conflict(Op::Update)),
        }
        Ok(true)
    }
}
