//! A TCP link that can be broken on purpose: between the sidecar and its database.

use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What the link does with connections and bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Forward,
    /// Resets what is open and every new connection.
    Reset,
    /// Accepts, keeps everything open, and moves no byte.
    Stall,
    /// Holds back MongoDB's `delete` commands, and what comes after them on their connections.
    StallDeletes,
}

/// A listening address that forwards to `target`.
pub(crate) struct Link {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    mode: Mutex<Mode>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
}

impl Link {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target,
            mode: Mutex::new(Mode::Forward),
            changed: Condvar::new(),
            open: Mutex::default(),
        });
        let link = Self { address, state: Arc::clone(&state) };
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                state.join(near);
            }
        });
        link
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
        self.state.changed.notify_all();
        if mode == Mode::Reset {
            for stream in self.state.open.lock().unwrap().drain(..) {
                reset(&stream);
            }
        }
    }
}

impl State {
    fn join(self: &Arc<Self>, near: TcpStream) {
        let mode = *self.mode.lock().unwrap();
        let far = match mode {
            Mode::Reset => None,
            Mode::Forward | Mode::Stall | Mode::StallDeletes => TcpStream::connect(self.target).ok(),
        };
        let Some(far) = far else { return reset(&near) };
        self.open.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
        for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
            let state = Arc::clone(self);
            thread::spawn(move || state.pump(from, to));
        }
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length) = from.read(&mut buffer) {
            self.wait_while_stalled(&buffer[..length]);
            if length == 0 || to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // Both ends are done; an end that is gone already is no news.
        drop(to.shutdown(Shutdown::Both));
    }

    fn wait_while_stalled(&self, bytes: &[u8]) {
        // The command's first element: a string (type 2) called "delete".
        let deletes = bytes.windows(8).any(|part| part == b"\x02delete\0");
        let mode = self.mode.lock().unwrap();
        let held = |mode: &mut Mode| *mode == Mode::Stall || (deletes && *mode == Mode::StallDeletes);
        drop(self.changed.wait_while(mode, held));
    }
}

/// Closes with a RST, as a peer that died does.
fn reset(stream: &TcpStream) {
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
    drop(stream.shutdown(Shutdown::Both));
}
