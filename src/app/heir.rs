//! The new process's side of a takeover: the sockets it inherits, the store it waits for, the word that it serves.
//! Tests: `tests/it/takeover.rs`.

use super::takeover::{PARENT, name_of, receive, send, store_file, words};
use crate::drain::Drain;
use crate::server::{Address, Listener, ListenerOptions};
use crate::store::{SharedStore, StoreKind, StoreOptions};
use rustix::fd::AsFd;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the store may take to answer before the takeover is given up: the process before this one may well reach it.
const STORE_ANSWERS: Duration = Duration::from_secs(10);
/// Between two questions whether it does.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What a process inherits from the one before it.
pub(super) struct Heir {
    channel: OwnedFd,
    sockets: Vec<(String, OwnedFd)>,
    store: Option<PathBuf>,
}

impl Heir {
    /// The inheritance; `None` for a process that was started by anybody but its predecessor.
    ///
    /// # Errors
    /// A text for the operator: the process before said something else.
    pub(super) fn find() -> Result<Option<Self>, String> {
        let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().to_string());
        if parent.is_none() || std::env::var(PARENT).ok() != parent {
            return Ok(None);
        }
        let failed = |error: io::Error| format!("the process before this one cannot be heard: {error}");
        let channel = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let mut heir = Self { channel, sockets: Vec::new(), store: None };
        loop {
            let Some((word, socket)) = receive(&heir.channel).map_err(failed)? else {
                return Err("the process before this one ended too early".to_owned());
            };
            if word == words::BEGIN {
                return Ok(Some(heir));
            }
            match (word.strip_prefix(words::SOCKET), word.strip_prefix(words::STORE), socket) {
                (Some(name), _, Some(socket)) => heir.sockets.push((name.to_owned(), socket)),
                (_, Some(path), _) => heir.store = Some(path.into()),
                _ => return Err(format!("the process before this one said {word:?}")),
            }
        }
    }

    /// Listens on the inherited socket of this address, or on a new one.
    pub(super) fn listen(heir: Option<&mut Self>, options: &ListenerOptions) -> Result<Listener, String> {
        match heir.and_then(|heir| heir.take(&options.address)) {
            Some(socket) => Listener::adopt(options, socket),
            None => Listener::bind(options),
        }
    }

    fn take(&mut self, address: &Address) -> Option<OwnedFd> {
        let name = name_of(address);
        let index = self.sockets.iter().position(|(other, _)| *other == name)?;
        Some(self.sockets.remove(index).1)
    }

    /// Waits until the process before has closed the store, if it is the same file. Call it last: from then on there is no way back.
    ///
    /// # Errors
    /// A text for the operator: that process has gone without a word.
    pub(super) fn wait_for_store(&self, options: &StoreOptions) -> Result<(), String> {
        let StoreKind::Embedded { path } = &options.kind else { return Ok(()) };
        if self.store.as_deref() != Some(&store_file(path)) {
            return Ok(());
        }
        let failed = |error: io::Error| format!("the process before this one cannot be heard: {error}");
        send(&self.channel, words::WANT_STORE, None).map_err(failed)?;
        match receive(&self.channel).map_err(failed)? {
            Some((word, _)) if word == words::STORE_CLOSED => Ok(()),
            // It was killed: its lock went with it.
            None => Ok(()),
            Some((word, _)) => Err(format!("the process before this one said {word:?}")),
        }
    }

    /// Tells the process before that this one serves. The sockets' files are this one's now.
    pub(super) fn ready<'a>(self, listeners: impl IntoIterator<Item = &'a Listener>) {
        listeners.into_iter().for_each(|listener| listener.own_file(true));
        if let Err(error) = send(&self.channel, words::READY, None) {
            tracing::warn!(%error, "the process before this one has gone");
        }
        // The conversation is over; standard input is what it is for a service.
        let nothing = std::fs::File::open("/dev/null");
        if let Err(error) = nothing.and_then(|nothing| Ok(rustix::stdio::dup2_stdin(nothing)?)) {
            tracing::debug!(%error, "standard input stays as it is");
        }
        let unclaimed = self.sockets.len();
        tracing::info!(unclaimed, "took over from the process before");
    }
}

/// Waits until the store answers: where it does not, the process before serves better.
///
/// # Errors
/// A text for the operator: it does not.
pub(super) async fn try_store(store: &SharedStore) -> Result<(), String> {
    let drain = Drain::new();
    let (store, began) = (store.attach(&drain), Instant::now());
    loop {
        match store.ping().await {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() > STORE_ANSWERS => {
                return Err(format!("the session store does not answer: {error}"));
            }
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}
