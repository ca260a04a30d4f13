//! SIGUSR2: the same program is started anew, perhaps from a replaced file, and takes the listening sockets over.
//!
//! The two processes talk over the new one's standard input, a socket: that way no descriptor number has to be believed and no
//! other child can inherit anything. The sockets are the same ones, so what waits to be accepted waits for whoever accepts next.
//! A store in a file is open in one process at a time: the new one asks for it when everything else is ready, and connections
//! wait until it has it. This file is the old process's side; `heir` is the new one's. Tests: `tests/it/takeover.rs`.

use crate::server::Address;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use rustix::process::Pid;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// The variable that tells a process that it is an heir: the process id of the one before it.
pub(super) const PARENT: &str = "CLOAKROOM_TAKES_OVER_FROM";
/// How long the new process may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// A message has an address or a path in it.
const LONGEST_MESSAGE: usize = 8 * 1024;

/// The words between the two.
pub(super) mod words {
    /// old to new, with a descriptor: a listening socket; the address follows.
    pub(in super::super) const SOCKET: &str = "socket ";
    /// old to new: the file of the store that is open; the path follows.
    pub(in super::super) const STORE: &str = "store ";
    /// old to new: that was all.
    pub(in super::super) const BEGIN: &str = "begin";
    /// new to old: let the store go.
    pub(in super::super) const WANT_STORE: &str = "want store";
    /// old to new: it is closed.
    pub(in super::super) const STORE_CLOSED: &str = "store closed";
    /// new to old: I serve.
    pub(in super::super) const READY: &str = "ready";
}

/// What the old process gives away.
pub(super) struct Estate {
    /// With [`name_of`] the address in the configuration.
    pub(super) sockets: Vec<(String, OwnedFd)>,
    /// The file of the embedded store.
    pub(super) store: Option<PathBuf>,
}

/// What the main thread hears of a takeover.
pub(super) enum News {
    /// Everything is ready but the store: close it, then say so.
    WantsStore(oneshot::Sender<()>),
    /// This process serves now.
    Ready(u32),
    /// It does not, and has ended.
    Failed(String),
}

/// An address as both sides write it: as the configuration has it.
pub(super) fn name_of(address: &Address) -> String {
    format!("{address:?}")
}

/// Starts the new process, whose id is returned; what becomes of it is told to `news`.
///
/// # Errors
/// A text for the operator: it cannot be started.
pub(super) fn begin(estate: Estate, news: UnboundedSender<News>) -> Result<Pid, String> {
    if std::process::id() == 1 {
        return Err(
            "this process is number 1, and a container ends with it: start a new container instead".into()
        );
    }
    let (channel, child) = start().map_err(|error| format!("the new process cannot be started: {error}"))?;
    let process = Pid::from_child(&child);
    let talk = move || {
        let mut child = child;
        // Nobody listens any more when this process is ending.
        let _ = match converse(&channel, &estate, child.id(), &news) {
            Ok(()) => news.send(News::Ready(child.id())),
            Err(why) => news.send(News::Failed(end(&mut child, &why))),
        };
    };
    let thread = std::thread::Builder::new().name("takeover".into()).spawn(talk);
    thread.map(|_| process).map_err(|error| format!("no thread for the takeover: {error}"))
}

fn start() -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(SILENCE))?;
    let mut arguments = std::env::args_os();
    // As it was started, not /proc/self/exe: a file that was replaced is the new version.
    let program = arguments.next().ok_or(io::ErrorKind::NotFound)?;
    let child = Command::new(program)
        .args(arguments)
        .env(PARENT, std::process::id().to_string())
        .stdin(Stdio::from(theirs))
        .spawn()?;
    Ok((ours, child))
}

/// The conversation, until the new process serves.
fn converse(
    channel: &OwnedFd,
    estate: &Estate,
    heir: u32,
    news: &UnboundedSender<News>,
) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => format!("it said nothing for {} s", SILENCE.as_secs()),
        _ => error.to_string(),
    };
    for (name, socket) in &estate.sockets {
        send(channel, &format!("{}{name}", words::SOCKET), Some(socket)).map_err(failed)?;
    }
    if let Some(store) = &estate.store {
        send(channel, &format!("{}{}", words::STORE, store.display()), None).map_err(failed)?;
    }
    send(channel, words::BEGIN, None).map_err(failed)?;
    loop {
        match receive(channel).map_err(failed)? {
            Some((word, _)) if word == words::READY => return Ok(()),
            Some((word, _)) if word == words::WANT_STORE => {
                let (closed, wait) = oneshot::channel();
                // Either end of these goes only when this process ends.
                if news.send(News::WantsStore(closed)).is_err() || wait.blocking_recv().is_err() {
                    return Err(format!("the store was not let go for process {heir}"));
                }
                send(channel, words::STORE_CLOSED, None).map_err(failed)?;
            }
            Some((word, _)) => return Err(format!("it said {word:?}, which is no word of a takeover")),
            None => return Err("it ended".to_owned()),
        }
    }
}

/// Makes sure that a process that failed is gone; the reason with its exit code.
fn end(child: &mut Child, why: &str) -> String {
    // It may have ended already.
    let _ = child.kill();
    match child.wait() {
        Ok(status) => format!("{why} ({status})"),
        Err(_) => why.to_owned(),
    }
}

/// One message, with a descriptor or without.
pub(super) fn send(channel: &OwnedFd, word: &str, socket: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = socket.map(|socket| [socket.as_fd()]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let bytes = [IoSlice::new(word.as_bytes())];
    sendmsg(channel, &bytes, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; `None` when the other side has ended.
pub(super) fn receive(channel: &OwnedFd) -> io::Result<Option<(String, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; LONGEST_MESSAGE];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = loop {
        match recvmsg(channel, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            done => break done?,
        }
    };
    let sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let socket = sockets.flatten().next();
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    let word = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some((word, socket)))
}

/// The file of the store, as both sides see it.
pub(super) fn store_file(path: &std::path::Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_socket_that_was_sent_is_the_same_socket() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = TcpStream::connect(address).unwrap();
        waiting.write_all(b"x").unwrap();
        send(&ours, "socket a", Some(&OwnedFd::from(listener))).unwrap();
        send(&ours, "begin", None).unwrap();
        drop(ours);
        let (word, socket) = receive(&theirs).unwrap().unwrap();
        assert_eq!(word, "socket a");
        let mut byte = [0];
        let adopted = TcpListener::from(socket.unwrap());
        adopted.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
        assert!(matches!(receive(&theirs).unwrap(), Some((word, None)) if word == "begin"));
        assert!(receive(&theirs).unwrap().is_none(), "the end");
    }
}
