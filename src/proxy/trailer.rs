//! A session update that comes in the response's trailers: committed before the end of the response is released.
//!
//! Tests: `tests/it/trailers.rs`.

use super::body::BodyError;
use super::options::InvalidUpdate;
use super::outcome::CommitError;
use super::sessions::{Opened, Sessions};
use crate::drain::{Drain, DrainGuard};
use crate::session::Millis;
use crate::session::lifecycle;
use crate::session::wire::{Invalid, Update};
use crate::store::StoreError;
use http::HeaderMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;

type Task = Pin<Box<dyn Future<Output = Result<(), BodyError>>>>;

/// What is kept of a session until its response's trailers.
pub(super) struct TrailerCommit {
    sessions: Rc<Sessions>,
    opened: Option<Opened>,
    invalid_update: InvalidUpdate,
    task: Option<Task>,
    _in_use: DrainGuard,
}

impl TrailerCommit {
    pub(super) fn new(sessions: Rc<Sessions>, opened: Opened, invalid_update: InvalidUpdate) -> Self {
        let _in_use = sessions.committer.in_use.guard();
        Self { sessions, opened: Some(opened), invalid_update, task: None, _in_use }
    }

    /// The trailers have not come yet, and could change a session: a new one cannot begin in a trailer.
    pub(super) fn is_pending(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.is_writable() && opened.base.live.is_some())
    }

    /// Leave to read on for a client that has left; `None` when too many do already.
    pub(super) fn permit_without_client(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sessions.without_client).try_acquire_owned().ok()
    }

    /// What a task that commits without a client is tracked by.
    pub(super) fn drain(&self) -> Drain {
        self.sessions.committer.drain.clone()
    }

    /// The trailers are here: begins the commit, if they say something.
    pub(super) fn begin(&mut self, trailers: &HeaderMap) {
        let Some(opened) = self.opened.take() else { return };
        let sessions = Rc::clone(&self.sessions);
        let invalid_update = self.invalid_update;
        match self.sessions.take_update(trailers) {
            Ok(None) => {}
            Ok(Some(_)) if !opened.is_writable() => {}
            Err(invalid) => {
                let result = refuse(&sessions, &invalid, invalid_update);
                self.task = Some(Box::pin(std::future::ready(result)));
            }
            Ok(Some(update)) => {
                let now = crate::server::now();
                self.task = Some(Box::pin(async move {
                    match sessions.close_trailer(&opened, update, now).await {
                        Ok(()) => Ok(()),
                        Err(TrailerFault::Invalid(invalid)) => refuse(&sessions, &invalid, invalid_update),
                        Err(TrailerFault::Store(error)) => {
                            tracing::warn!(session = %opened.base.sid, %error, "session update in trailers not stored; the response is cut short");
                            Err(BodyError::TrailerNotStored)
                        }
                    }
                }));
            }
        }
    }

    /// Ready when nothing is left to commit.
    pub(super) fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match &mut self.task {
            Some(task) => task.as_mut().poll(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

enum TrailerFault {
    Invalid(Invalid),
    Store(StoreError),
}

impl Sessions {
    /// Commits the update of a trailer.
    async fn close_trailer(&self, opened: &Opened, update: Update, now: Millis) -> Result<(), TrailerFault> {
        let attributes = &self.attributes[usize::from(opened.secure)];
        let write = lifecycle::decide_trailer(&self.options.policy, attributes, opened.facts(now), &update)
            .map_err(TrailerFault::Invalid)?;
        match self.committer.commit(opened.base.clone(), write, Some(update), now, true).await {
            Ok(_) => Ok(()),
            Err(CommitError::Invalid(invalid)) => Err(TrailerFault::Invalid(invalid)),
            Err(CommitError::Store(error) | CommitError::HalfRegenerated { error, .. }) => {
                Err(TrailerFault::Store(self.counted(error)))
            }
        }
    }
}

fn refuse(sessions: &Sessions, invalid: &Invalid, policy: InvalidUpdate) -> Result<(), BodyError> {
    sessions.committer.counters.updates_invalid.inc();
    match policy {
        InvalidUpdate::Error => {
            tracing::warn!(reason = "invalid_update", error = %invalid, "the session update in the app's trailers is invalid; the response is cut short");
            Err(BodyError::InvalidTrailer)
        }
        InvalidUpdate::Ignore => {
            tracing::warn!(reason = "invalid_update", error = %invalid, "the session update in the app's trailers is invalid; ignored");
            Ok(())
        }
    }
}
