//! A real Redis: a free port, a directory of its own, gone at the end of the test. Also one with TLS, and a cluster of three.
//!
//! As beside mongod sits a small watcher beside every server that holds a pipe from this process: when the tests end, however they
//! end, it takes the server and its directory with it. `redis-server` is found on the `PATH`; without it the tests fail.

use super::patience;
use super::ports::free_port;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One server process.
pub(crate) struct Redis {
    child: Option<Child>,
    watcher: Option<Child>,
    directory: PathBuf,
    port: u16,
    tls_port: Option<u16>,
    arguments: Vec<String>,
}

/// Three servers that share the slots.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Redis {
    /// Starts one and waits until it takes commands.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these arguments too.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut redis = Self::prepare();
        redis.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        redis.restart();
        redis
    }

    /// Has a port and a directory, and nobody listens yet.
    pub(crate) fn prepare() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("cloakroom-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (port, arguments) = (free_port(), Vec::new());
        Self { child: None, watcher: None, directory, port, tls_port: None, arguments }
    }

    /// One that also speaks TLS, with a certificate for `localhost` of a private authority: see [`Redis::ca`].
    pub(crate) fn with_tls() -> Self {
        let mut redis = Self::prepare();
        let write = |name: &str, text: String| std::fs::write(redis.directory.join(name), text).unwrap();
        let authority = authority();
        write("ca.pem", authority.0.pem());
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&authority.1, &authority.2);
        let mut names = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        // OpenSSL takes a certificate whose subject is its issuer's for one that vouches for itself.
        names.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
        write("cert.pem", names.signed_by(&key, &issuer).unwrap().pem());
        write("key.pem", key.serialize_pem());
        write("other.pem", self::authority().0.pem());
        let port = free_port();
        redis.tls_port = Some(port);
        for (name, file) in [("cert", "cert.pem"), ("key", "key.pem"), ("ca-cert", "ca.pem")] {
            redis.arguments.push(format!("--tls-{name}-file"));
            redis.arguments.push(redis.file(file));
        }
        redis.arguments.extend(["--tls-auth-clients", "optional", "--tls-port"].map(str::to_owned));
        redis.arguments.push(port.to_string());
        redis.restart();
        redis
    }

    /// Starts it (again) on the same port. Nothing is on disk: it is empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--enable-debug-command", "no"])
            .args(["--logfile", "log", "--port", &self.port.to_string()])
            .arg("--dir")
            .arg(&self.directory)
            .arg("--unixsocket")
            .arg(self.directory.join("socket"))
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server does not start: {error}"));
        self.watcher = Some(watch(&child, &self.directory));
        let child = self.child.insert(child);
        let (client, log) =
            (redis::Client::open(plain(&self.arguments, self.port)).unwrap(), self.directory.join("log"));
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        let until = Instant::now() + patience();
        while client.get_connection().is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("redis-server ended ({status}): {}", log());
            }
            assert!(Instant::now() < until, "redis-server does not listen: {}", log());
            std::thread::yield_now();
        }
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
        let id = self.child.as_ref().unwrap().id().to_string();
        let until = Instant::now() + patience();
        loop {
            let states = Command::new("ps").args(["-L", "-o", "stat=", "-p", &id]).output().unwrap().stdout;
            let states = String::from_utf8(states).unwrap();
            if !states.is_empty() && states.lines().all(|state| state.starts_with('T')) {
                return;
            }
            assert!(Instant::now() < until, "redis-server does not stop: {states}");
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

    /// A URL with this user and password (`user:password@`, or nothing) and database.
    pub(crate) fn url(&self, user: &str, database: u8) -> String {
        format!("redis://{user}127.0.0.1:{}/{database}", self.port)
    }

    /// The URL over TLS.
    pub(crate) fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port.unwrap())
    }

    /// The path of a file in its directory: `socket`, and with TLS `ca.pem`, `other.pem` (an authority it has nothing to do with).
    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// What it answers to a command, in database 0, as whoever may do everything.
    pub(crate) fn command(&self, words: &[&str]) -> redis::Value {
        let mut connection =
            redis::Client::open(plain(&self.arguments, self.port)).unwrap().get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same as text.
    pub(crate) fn text(&self, words: &[&str]) -> String {
        match self.command(words) {
            redis::Value::BulkString(text) => String::from_utf8(text).unwrap(),
            other => panic!("{words:?}: {other:?}"),
        }
    }

    /// The same as a number.
    pub(crate) fn number(&self, words: &[&str]) -> i64 {
        match self.command(words) {
            redis::Value::Int(number) => number,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

impl Cluster {
    /// Starts three and waits until each knows all slots.
    pub(crate) fn start() -> Self {
        let nodes: Vec<Redis> = (0..3)
            .map(|_| {
                let bus = free_port().to_string();
                let fast = ["--cluster-node-timeout", "2000"];
                Redis::start_with(
                    &[&["--cluster-enabled", "yes", "--cluster-port", &bus][..], &fast].concat(),
                )
            })
            .collect();
        let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (index, (node, (first, last))) in nodes.iter().zip(slots).enumerate() {
            node.command(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let bus = node.arguments[3].clone();
            nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus]);
        }
        let cluster = Self { nodes };
        cluster.wait();
        cluster
    }

    /// Until every node knows all slots and every other node.
    pub(crate) fn wait(&self) {
        super::eventually("the cluster to agree", || {
            let agrees = |node: &Redis| {
                let told = node.text(&["CLUSTER", "INFO"]);
                told.contains("cluster_state:ok") && told.contains("cluster_known_nodes:3")
            };
            self.nodes.iter().all(agrees).then_some(())
        });
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url("", 0)).collect()
    }

    /// The index of the node that has this key.
    pub(crate) fn owner(&self, key: &str) -> usize {
        let slot = self.nodes[0].number(&["CLUSTER", "KEYSLOT", key]);
        usize::from(slot > 5460) + usize::from(slot > 10922)
    }
}

/// The URL of whoever may do everything.
fn plain(arguments: &[String], port: u16) -> String {
    let password = arguments.windows(2).find(|pair| pair[0] == "--requirepass");
    let user = password.map(|pair| format!(":{}@", pair[1].replace('/', "%2F"))).unwrap_or_default();
    format!("redis://{user}127.0.0.1:{port}")
}

fn authority() -> (rcgen::Certificate, rcgen::CertificateParams, rcgen::KeyPair) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), params, key)
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
