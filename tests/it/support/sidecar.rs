//! The sidecar: the real binary, with a config of the test's own in a folder of its own.

use super::app::App;
use super::client::{Browser, Client};
use super::ports::free_port;
use super::ticket::SECRET;
use super::{eventually, patience};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a test wants different from a plain sidecar before `app` with a store in memory.
#[derive(Clone)]
pub(crate) struct Setup {
    servers: Vec<String>,
    upstream: String,
    listener: String,
    threads: usize,
    server: String,
    secrets: Vec<String>,
    session: String,
    cookie: String,
    headers: String,
    store: String,
    admin: String,
    routes: String,
    more: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn before(app: &App) -> Self {
        Self::before_address(app.address())
    }

    /// For an upstream that is no [`App`].
    pub(crate) fn before_address(app: SocketAddr) -> Self {
        Self::before_servers(&[format!("http://{app}")])
    }

    /// For an upstream of several servers, or of other ones than plain TCP.
    pub(crate) fn before_servers(servers: &[String]) -> Self {
        Self {
            servers: servers.to_vec(),
            upstream: String::new(),
            listener: String::new(),
            threads: 1,
            server: String::new(),
            secrets: vec![SECRET.into()],
            session: String::new(),
            cookie: String::new(),
            headers: String::new(),
            store: "kind = \"memory\"".into(),
            admin: String::new(),
            routes: "[[route]]\npath = \"/\"\nupstream = \"app\"\n".into(),
            more: String::new(),
            environment: Vec::new(),
        }
    }

    /// Lines for `[upstream.app]`.
    pub(crate) fn upstream(mut self, lines: &str) -> Self {
        self.upstream = lines.into();
        self
    }

    /// Lines for the `[[listener]]`.
    pub(crate) fn listener(mut self, lines: &str) -> Self {
        self.listener = lines.into();
        self
    }

    /// So many workers, in place of one.
    pub(crate) fn threads(mut self, count: usize) -> Self {
        self.threads = count;
        self
    }

    /// Lines for `[server]`.
    pub(crate) fn server(mut self, lines: &str) -> Self {
        self.server = lines.into();
        self
    }

    /// The secrets, in place of the one; without any, no line for them.
    pub(crate) fn secrets(mut self, secrets: &[&str]) -> Self {
        self.secrets = secrets.iter().map(|&secret| secret.into()).collect();
        self
    }

    /// Lines for `[session]`.
    pub(crate) fn session(mut self, lines: &str) -> Self {
        self.session = lines.into();
        self
    }

    /// Lines for `[session.cookie]`.
    pub(crate) fn cookie(mut self, lines: &str) -> Self {
        self.cookie = lines.into();
        self
    }

    /// Lines for `[session.headers]`.
    pub(crate) fn headers(mut self, lines: &str) -> Self {
        self.headers = lines.into();
        self
    }

    /// Lines for `[store]`, in place of the memory store.
    pub(crate) fn store(mut self, lines: &str) -> Self {
        self.store = lines.into();
        self
    }

    /// Lines for `[admin]`.
    pub(crate) fn admin(mut self, lines: &str) -> Self {
        self.admin = lines.into();
        self
    }

    /// Whole `[[route]]` tables, in place of the one that sends everything to the upstream `app`.
    pub(crate) fn routes(mut self, tables: &str) -> Self {
        self.routes = tables.into();
        self
    }

    /// A variable of its environment.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Further tables.
    pub(crate) fn more(mut self, tables: &str) -> Self {
        self.more = tables.into();
        self
    }

    /// Starts it and waits until `/readyz` answers 200.
    #[track_caller]
    pub(crate) fn start(self) -> Sidecar {
        self.start_until("/readyz")
    }

    /// Starts it and waits for life only: its store may be down.
    #[track_caller]
    pub(crate) fn start_alive(self) -> Sidecar {
        self.start_until("/healthz")
    }

    #[track_caller]
    fn start_until(self, path: &str) -> Sidecar {
        let (address, admin) = (local(free_port()), local(free_port()));
        let folder = folder();
        fs::write(folder.join("proxy.toml"), self.toml(address, admin)).unwrap();
        let environment = self.environment;
        let mut sidecar =
            Sidecar { address, admin, child: spawn(&folder, &environment), folder, environment };
        sidecar.wait_for(path);
        sidecar
    }

    fn toml(&self, address: SocketAddr, admin: SocketAddr) -> String {
        let mut out = String::new();
        let secrets = match &self.secrets[..] {
            [] => String::new(),
            secrets => format!("secrets = {secrets:?}\n"),
        };
        let tables = [
            ("[listener]", format!("address = \"{address}\"\n{}", self.listener)),
            ("server", format!("threads = {}\n{}", self.threads, self.server)),
            ("session", format!("{secrets}{}", self.session)),
            ("session.cookie", self.cookie.clone()),
            ("session.headers", self.headers.clone()),
            ("store", self.store.clone()),
            ("upstream.app", format!("servers = {:?}\n{}", self.servers, self.upstream)),
            ("admin", format!("address = \"{admin}\"\n{}", self.admin)),
        ];
        for (name, lines) in tables {
            writeln!(out, "[{name}]\n{lines}").unwrap();
        }
        format!("{out}{}\n{}\n", self.routes, self.more)
    }
}

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl Sidecar {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// A browser that has never been here.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.address)
    }

    /// A connection to the admin port.
    pub(crate) fn admin_client(&self) -> Client {
        Client::connect(self.admin)
    }

    /// The same, bare, for what does not end.
    pub(crate) fn admin_socket(&self) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        stream
    }

    /// `GET` on the admin port.
    pub(crate) fn admin(&self, path: &str) -> u16 {
        Client::connect(self.admin).get(path, &[("Connection", "close")]).status
    }

    /// What `/metrics` says.
    pub(crate) fn metrics(&self) -> String {
        Client::connect(self.admin).get("/metrics", &[("Connection", "close")]).text()
    }

    /// Everything it has written to stdout and stderr.
    pub(crate) fn log(&self) -> String {
        ["stdout", "stderr"]
            .map(|name| fs::read_to_string(self.folder.join(name)).unwrap_or_default())
            .concat()
    }

    /// Waits until a line of the log holds all of `words`, and returns it.
    #[track_caller]
    pub(crate) fn logged(&self, words: &[&str]) -> String {
        eventually(&format!("a log line with {words:?}"), || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// Asks it to stop (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its `proxy.toml` lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes another configuration for the same ports; nothing tells the sidecar.
    pub(crate) fn rewrite(&self, setup: &Setup) {
        let text = setup.toml(self.address, self.admin);
        fs::write(self.folder.join("new.toml"), text).unwrap();
        fs::rename(self.folder.join("new.toml"), self.folder.join("proxy.toml")).unwrap();
    }

    /// One number of `/metrics`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the end of the sidecar", || child.try_wait().unwrap())
    }

    /// Stops it in order.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// `kill -9`, and the same sidecar again: same folder, same ports.
    #[track_caller]
    pub(crate) fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    /// `kill -9`.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same again, after its end.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.folder, &self.environment);
        self.wait_for("/readyz");
    }

    #[track_caller]
    fn wait_for(&mut self, path: &str) {
        let (child, admin) = (&mut self.child, self.admin);
        let folder = &self.folder;
        eventually(path, || {
            if let Some(status) = child.try_wait().unwrap() {
                let log = fs::read_to_string(folder.join("stderr")).unwrap_or_default();
                panic!("the sidecar ended with {status}:\n{log}");
            }
            let stream = std::net::TcpStream::connect(admin).ok()?;
            stream.set_read_timeout(Some(patience())).unwrap();
            let mut client = Client::over(stream);
            client.send(format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"));
            client.try_receive("GET").ok().flatten().filter(|response| response.status == 200)
        });
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended already; that is what some tests are about.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- log of the sidecar\n{}---", self.log());
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn spawn(folder: &Path, environment: &[(String, String)]) -> Child {
    let output = |name: &str| File::options().create(true).append(true).open(folder.join(name)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .args(["--config", "proxy.toml"])
        .current_dir(folder)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output("stdout"))
        .stderr(output("stderr"))
        .spawn()
        .unwrap()
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("cloakroom-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}
