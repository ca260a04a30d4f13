//! Binding a listening socket, with errors that name the address, the reason and the cure. Tests: `tests.rs`.

use super::live::{Live, Settings};
use super::{Address, ListenerOptions};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Connections that may wait to be accepted; the system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

/// A bound socket. Cheap to clone, one clone per worker; when the last one is dropped, nobody listens any more.
#[derive(Clone)]
pub struct Listener {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) socket: Bound,
    pub(super) address: Address,
    pub(super) live: Arc<Live>,
    file: Option<SocketFile>,
}

pub(super) enum Bound {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds and loads the certificates.
    ///
    /// # Errors
    /// A text for people that names the address, what the system said, and what helps.
    pub fn bind(options: &ListenerOptions) -> Result<Self, String> {
        let settings = Settings::load(options, None)?;
        let (socket, address, file) = match &options.address {
            Address::Tcp(address) => {
                let listener = bind_tcp(*address).map_err(|error| cannot_listen(*address, &error))?;
                let bound = listener.local_addr().map_err(|error| cannot_listen(*address, &error))?;
                (Bound::Tcp(listener), Address::Tcp(bound), None)
            }
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path, options.mode)?;
                (Bound::Unix(listener), options.address.clone(), Some(file))
            }
        };
        let inner = Inner { socket, address, live: Arc::new(Live::new(settings)), file };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes over a socket that listens already, in the place of [`Self::bind`]: another process made it.
    ///
    /// # Errors
    /// A text for people: certificates that cannot be read, or a socket that is none.
    pub fn adopt(options: &ListenerOptions, socket: OwnedFd) -> Result<Self, String> {
        let fail = |error: io::Error| format!("cannot listen on an inherited socket: {error}");
        let settings = Settings::load(options, None)?;
        let (socket, address, file) = match &options.address {
            Address::Tcp(_) => {
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true).map_err(fail)?;
                let bound = listener.local_addr().map_err(fail)?;
                (Bound::Tcp(listener), Address::Tcp(bound), None)
            }
            Address::Unix(path) => {
                let listener = UnixListener::from(socket);
                listener.set_nonblocking(true).map_err(fail)?;
                // A file that somebody removed serves those who are connected, and is no reason to stop.
                let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.mode));
                let file = std::fs::symlink_metadata(path).ok().map(|made| SocketFile {
                    path: path.clone(),
                    identity: (made.dev(), made.ino()),
                    ours: AtomicBool::new(false),
                });
                (Bound::Unix(listener), options.address.clone(), file)
            }
        };
        let inner = Inner { socket, address, live: Arc::new(Live::new(settings)), file };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A descriptor of the same socket, for another process.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        match &self.inner.socket {
            Bound::Tcp(socket) => socket.try_clone().map(OwnedFd::from),
            Bound::Unix(socket) => socket.try_clone().map(OwnedFd::from),
        }
    }

    /// Whether the file of a unix socket goes with this listener. True for one that was bound here, false for an adopted one, until
    /// somebody says otherwise: of two processes that listen on one socket only one may remove its file.
    pub fn own_file(&self, ours: bool) {
        if let Some(file) = &self.inner.file {
            file.ours.store(ours, Ordering::Relaxed);
        }
    }

    /// Changes everything but the address, for the connections that come from now on. The old settings stay when the new ones are wrong.
    ///
    /// # Errors
    /// A text for people that names the file and what is wrong with it.
    pub fn reconfigure(&self, options: &ListenerOptions) -> Result<(), String> {
        self.inner.live.replace(options)
    }

    /// Where it listens; with port 0 in the options, the port that the system chose.
    pub fn local_addr(&self) -> &Address {
        &self.inner.address
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let cure = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another program listens on port {}: stop it (`ss -ltnp` shows which one) or choose another port",
            address.port()
        ),
        ErrorKind::PermissionDenied if address.port() < 1024 => format!(
            "port {} needs the right to bind ports below 1024: give the program CAP_NET_BIND_SERVICE or choose a higher port",
            address.port()
        ),
        ErrorKind::AddrNotAvailable => {
            format!(
                "no interface of this machine has the address {}: use 0.0.0.0 or [::] for all",
                address.ip()
            )
        }
        _ => "check `address` of this listener".to_owned(),
    };
    format!("cannot listen on {address}: {error}; {cure}")
}

fn bind_unix(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), String> {
    let fail =
        |error: &io::Error, cure: &str| format!("cannot listen on unix:{}: {error}; {cure}", path.display());
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(|error| {
        let cure = match error.kind() {
            ErrorKind::NotFound => "the folder does not exist: create it",
            ErrorKind::PermissionDenied => "the folder is not writable for this user",
            ErrorKind::InvalidInput => "the path is longer than the 107 bytes that the system allows",
            _ => "check `address` of this listener",
        };
        fail(&error, cure)
    })?;
    let settle = || {
        // Backlog again: the standard library's is 128.
        socket2::SockRef::from(&listener).listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        std::fs::symlink_metadata(path)
    };
    let made = settle().map_err(|error| fail(&error, "the socket's mode or backlog cannot be set"))?;
    Ok((
        listener,
        SocketFile { path: path.to_owned(), identity: (made.dev(), made.ino()), ours: AtomicBool::new(true) },
    ))
}

/// A socket file without a listener is what a killed process leaves behind. Anything else is somebody's.
fn remove_stale(path: &Path) -> Result<(), String> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(format!(
            "cannot listen on unix:{0}: {0} exists and is no socket; remove it or choose another path",
            path.display()
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| {
                format!("cannot remove the stale socket {}: {error}; remove it by hand", path.display())
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        answer => Err(format!(
            "cannot listen on unix:{}: {}; stop the program that uses it or choose another path",
            path.display(),
            answer
                .err()
                .map_or_else(|| "another program listens there".to_owned(), |error| error.to_string())
        )),
    }
}

/// The file of a unix socket, removed at the end if it still is ours (a new process may have put its own there).
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    ours: AtomicBool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let unchanged =
            std::fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if unchanged && self.ours.load(Ordering::Relaxed) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
