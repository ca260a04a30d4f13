//! A real mongod: a free port, a directory of its own, gone at the end of the test, or of the process for the shared one.
//!
//! Beside every server sits a small watcher that holds a pipe from this process: when the tests end, however they end, the pipe
//! closes and the watcher takes the server and its directory with it.
//!
//! The binary is named by `CLOAKROOM_TEST_MONGOD`. Without it the tests that need it fail, they do not skip.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The server that the tests of this process share; everybody takes a database of their own on it.
pub(crate) fn address() -> SocketAddr {
    static SHARED: OnceLock<Mongod> = OnceLock::new();
    SHARED.get_or_init(Mongod::start).address()
}

/// One server process.
pub(crate) struct Mongod {
    child: Option<Child>,
    watcher: Option<Child>,
    directory: PathBuf,
    port: u16,
    /// Beside those that every server gets.
    arguments: Vec<String>,
}

impl Mongod {
    /// Starts one and waits until it takes connections.
    pub(crate) fn start() -> Self {
        let mut mongod = Self::prepare();
        mongod.restart();
        mongod
    }

    /// One with further arguments: `--auth`, TLS, a replica set.
    pub(crate) fn start_with<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut mongod = Self::prepare();
        mongod.arguments = arguments.into_iter().map(str::to_owned).collect();
        mongod.restart();
        mongod
    }

    /// Has a port and a directory, and nobody listens yet.
    pub(crate) fn prepare() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("cloakroom-mongod-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self { child: None, watcher: None, directory, port: free_port(), arguments: Vec::new() }
    }

    /// Starts it (again) on the same port and data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut child = Command::new(binary())
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet", "--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--port", &self.port.to_string()])
            .arg("--dbpath")
            .arg(&self.directory)
            .arg("--logpath")
            .arg(self.directory.join("log"))
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", binary().display()));
        let until = Instant::now() + PATIENCE;
        self.watcher = Some(watch(&child, &self.directory));
        while TcpStream::connect(self.address()).is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("mongod ended ({status}): {}", self.log());
            }
            assert!(Instant::now() < until, "mongod does not listen: {}", self.log());
            std::thread::yield_now();
        }
        self.child = Some(child);
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // First, or it might one day kill another process that got the number.
        if let Some(mut watcher) = self.watcher.take() {
            watcher.kill().ok();
            watcher.wait().ok();
        }
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Stops the process in its tracks: connections stay open and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
        // Every thread must have stopped, or one of them still answers.
        let id = self.child.as_ref().unwrap().id().to_string();
        let until = Instant::now() + PATIENCE;
        loop {
            let states = Command::new("ps").args(["-L", "-o", "stat=", "-p", &id]).output().unwrap().stdout;
            let states = String::from_utf8(states).unwrap();
            if !states.is_empty() && states.lines().all(|state| state.starts_with('T')) {
                return;
            }
            assert!(Instant::now() < until, "mongod does not stop: {states}");
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A URL with this database in it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("mongodb://127.0.0.1:{}/{database}", self.port)
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

fn watch(child: &Child, directory: &Path) -> Child {
    Command::new("sh")
        .args(["-c", "cat >/dev/null; kill -9 \"$1\"; rm -rf \"$2\"", "watcher", &child.id().to_string()])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh watches the server")
}

fn binary() -> PathBuf {
    let named = std::env::var_os("CLOAKROOM_TEST_MONGOD");
    PathBuf::from(named.expect("set CLOAKROOM_TEST_MONGOD to the path of a mongod binary"))
}

/// Below the ephemeral range, so that no outgoing connection takes it between the probe and the server's start.
fn free_port() -> u16 {
    let mut seed = [0; 2];
    loop {
        getrandom::fill(&mut seed).unwrap();
        let port = 10_000 + u16::from_le_bytes(seed) % 22_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
