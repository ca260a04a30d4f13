//! `store.url` and `store.cluster`: what the URL says, checked before the driver sees it, and the driver's client made of it.
//!
//! The driver ignores what it does not know: a fragment, a parameter, a user without a password. In a URL whose password should have
//! been percent-encoded each of these is a piece of the password and the host is another one, so all of them are refused.
//! Problems never hold a part of the URL. Tests: here, and `tests/it/store_conformance/redis.rs` for TLS and passwords.

use super::super::RedisOptions;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    TlsCertificates,
};
use std::time::Duration;

/// A connection that is silent for so long is probed, more often than firewalls forget it (240 s and more).
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Requests between the callers and the socket.
const QUEUE: usize = 512;

/// How to reach the server.
#[derive(Clone)]
pub(super) enum Door {
    Single(Box<Client>, AsyncConnectionConfig),
    Cluster(Box<ClusterClient>),
}

/// Parameters of a `rediss` URL, with the names that redis-py gave them: paths of PEM files.
const CA: &str = "ssl_ca_certs";
const CERTIFICATE: &str = "ssl_certfile";
const KEY: &str = "ssl_keyfile";

/// One URL as checked.
struct Server {
    info: ConnectionInfo,
    ca: Option<String>,
    /// Certificate and key.
    identity: Option<(String, String)>,
}

/// Is this a Redis URL? For the configuration's check: connects to nothing and opens nothing.
pub(in crate::store) fn check_url(url: &str) -> Result<(), String> {
    parse(url).map(drop)
}

impl Door {
    /// Reads the certificates that the URLs name. `deadline` is `timeouts.store`.
    pub(super) fn new(options: &RedisOptions, deadline: Duration) -> Result<Self, String> {
        let patience = patience(deadline);
        let servers: Vec<Server> =
            options.urls.iter().map(|url| parse(url)).collect::<Result<_, _>>().map_err(at(options))?;
        let Some(first) = servers.first() else {
            return Err(at(options)("no server is named".to_owned()));
        };
        let certificates = first.certificates().map_err(at(options))?;
        if options.cluster {
            return Self::cluster(servers, certificates, patience).map_err(at(options));
        }
        let info = first.info.clone();
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            // The callers keep their own time.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        Ok(Self::Single(Box::new(client.map_err(|error| at(options)(error.to_string()))?), config))
    }

    fn cluster(
        servers: Vec<Server>,
        certificates: Option<TlsCertificates>,
        patience: Duration,
    ) -> Result<Self, String> {
        if servers.iter().any(|server| server.info.redis_settings().db() != 0) {
            return Err("a cluster has no databases but 0".to_owned());
        }
        if servers.windows(2).any(|pair| pair[0].ca != pair[1].ca || pair[0].identity != pair[1].identity) {
            return Err("the nodes name different certificates".to_owned());
        }
        let mut builder = ClusterClientBuilder::new(servers.into_iter().map(|server| server.info))
            .connection_timeout(patience)
            .tcp_settings(tcp())
            // The driver would also repeat what may have been done. Redirections are followed in `line`.
            .retries(0);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        Ok(Self::Cluster(Box::new(builder.build().map_err(|error| error.to_string())?)))
    }
}

/// For `survey`: a client of the server that the URL names, or with its user, password and TLS of another node of the same cluster;
/// and where that is.
pub(in crate::store) fn client(url: &str, node: Option<(&str, u16)>) -> Result<(Client, String), String> {
    let server = parse(url)?;
    let certificates = server.certificates()?;
    let mut info = server.info;
    if let Some((host, port)) = node {
        let host = host.to_owned();
        info = match info.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                info.set_addr(ConnectionAddr::TcpTls { host, port, insecure, tls_params })
            }
            _ => info.set_addr(ConnectionAddr::Tcp(host, port)),
        };
    }
    let place = info.addr().to_string();
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    };
    client.map(|client| (client, place)).map_err(|error| error.to_string())
}

/// How long one attempt to connect may take. Requests wait for it no longer than their deadline.
pub(super) fn patience(deadline: Duration) -> Duration {
    deadline.clamp(Duration::from_secs(1), Duration::from_secs(10))
}

/// What must not be shown: the passwords in the URLs, as they are sent.
pub(super) fn passwords(options: &RedisOptions) -> Vec<String> {
    let parsed = options.urls.iter().filter_map(|url| parse(url).ok());
    let passwords = parsed.filter_map(|server| server.info.redis_settings().password().map(str::to_owned));
    // Shorter ones are in every text by chance.
    passwords.filter(|password| password.len() > 2).collect()
}

impl Server {
    fn certificates(&self) -> Result<Option<TlsCertificates>, String> {
        if self.ca.is_none() && self.identity.is_none() {
            return Ok(None);
        }
        let client_tls = match &self.identity {
            Some((certificate, key)) => Some(ClientTlsConfig {
                client_cert: read(CERTIFICATE, certificate)?,
                client_key: read(KEY, key)?,
            }),
            None => None,
        };
        let root_cert = self.ca.as_ref().map(|path| read(CA, path)).transpose()?;
        Ok(Some(TlsCertificates { client_tls, root_cert }))
    }
}

fn parse(url: &str) -> Result<Server, String> {
    let parsed = redis::parse_redis_url(url)
        .ok_or("it has to begin with redis://, rediss:// or redis+unix://, and be a URL")?;
    if parsed.fragment().is_some() {
        return Err("# begins a fragment, which means nothing here; write %23 in a password".to_owned());
    }
    let unix = parsed.scheme().ends_with("unix");
    let tls = matches!(parsed.scheme(), "rediss" | "valkeys");
    if !unix && parsed.host_str().unwrap_or_default().is_empty() {
        return Err("no host".to_owned());
    }
    if !parsed.username().is_empty() && parsed.password().is_none() {
        return Err(
            "a user without a password; a password alone is written redis://:password@host".to_owned()
        );
    }
    let (mut ca, mut certificate, mut key) = (None, None, None);
    for (name, value) in parsed.query_pairs() {
        match &*name {
            "protocol" if matches!(&*value, "2" | "3" | "resp2" | "resp3") => {}
            "db" | "user" | "pass" if unix => {}
            CA if tls => ca = Some(value.into_owned()),
            CERTIFICATE if tls => certificate = Some(value.into_owned()),
            KEY if tls => key = Some(value.into_owned()),
            _ => return Err(unknown_parameter(unix, tls)),
        }
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(format!("{CERTIFICATE} and {KEY} belong together")),
    };
    // The driver's own words hold nothing of the URL in these cases.
    let info = parsed.into_connection_info().map_err(|error| error.to_string())?;
    if info.redis_settings().db() < 0 {
        return Err("the number of a database is not negative".to_owned());
    }
    if unix && info.redis_settings().username().is_some() && info.redis_settings().password().is_none() {
        return Err("`user` without `pass`".to_owned());
    }
    let settings = info.redis_settings().clone().set_lib_name("cloakroom", env!("CARGO_PKG_VERSION"));
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp());
    Ok(Server { info, ca, identity })
}

fn unknown_parameter(unix: bool, tls: bool) -> String {
    let names = match (unix, tls) {
        (true, _) => "`db`, `user`, `pass` and `protocol=resp3`",
        (_, true) => "`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and `protocol=resp3`",
        (_, false) => "`protocol=resp3`",
    };
    format!("a parameter that means nothing here (it knows {names}); write %3F for ? in a password")
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_keepalive(TcpKeepalive::new().with_time(KEEP_ALIVE))
}

fn read(name: &str, path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{name}: {path}: {error}"))
}

fn at(options: &RedisOptions) -> impl Fn(String) -> String {
    let key = if options.cluster { "store.cluster" } else { "store.url" };
    move |why| format!("{key}: {why}")
}

/// Where the server is, for a message.
impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Single(client, _) => match client.get_connection_info().addr() {
                ConnectionAddr::Unix(path) => write!(f, "{}", path.display()),
                address => write!(f, "{address}"),
            },
            Self::Cluster(_) => f.write_str("the cluster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_all_kinds_are_taken() {
        for (url, address, db) in [
            ("redis://127.0.0.1:6380/2", "127.0.0.1:6380", 2),
            ("redis://db.example", "db.example:6379", 0),
            ("redis://[::1]:6380/", "::1:6380", 0),
            ("redis://:p%40ss%2Fw@h:1/3", "h:1", 3),
            ("redis://app:p@ss@h", "h:6379", 0),
            ("rediss://app:secret@h:6380?ssl_ca_certs=/ca.pem", "h:6380", 0),
            ("rediss://h?ssl_certfile=/c.pem&ssl_keyfile=/k.pem&protocol=resp3", "h:6379", 0),
            ("redis+unix:///run/redis.sock?db=4&pass=x", "/run/redis.sock", 4),
            ("valkey://h", "h:6379", 0),
        ] {
            let server = parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
            assert_eq!(server.info.addr().to_string(), address, "{url}");
            assert_eq!(server.info.redis_settings().db(), db, "{url}");
        }
        let server = parse("redis://app:p%40ss%2Fw@h").unwrap();
        assert_eq!(server.info.redis_settings().password(), Some("p@ss/w"));
    }

    #[test]
    fn what_would_be_misread_is_refused_and_never_shown() {
        for url in [
            "",
            "hunter2",
            "http://app:hunter2@h",
            "redis:hunter2",
            "redis://",
            "redis:///0",
            "redis://:hunter2@/0",
            "redis://hunter2@h",
            "redis://app:@h",
            // Each has a password that should have been percent-encoded: the host would be `app`.
            "redis://app:12#hunter2@h",
            "redis://app:12/hunter2@h",
            "redis://app:12?hunter2@h",
            "redis://app:12?hunter2=1@h",
            "redis://app:hunter2@h/one",
            "redis://app:hunter2@h/-1",
            "redis://app:hunter2@h/0/1",
            "redis://app:hunter2@h:port",
            "redis://app:hunter2@0.0.0.0",
            "redis://h?protocol=hunter2",
            "redis://h?ssl_ca_certs=hunter2",
            "rediss://app:hunter2@h#insecure",
            "rediss://h?ssl_certfile=hunter2",
            "redis+unix://hunter2/run/redis.sock",
            "redis+unix:///run/redis.sock?user=hunter2",
            "redis+unix:///run/redis.sock?db=hunter2",
        ] {
            let why = parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!why.contains("hunter2") && !why.is_empty(), "{url}: {why}");
        }
    }

    fn open(urls: &[&str], cluster: bool) -> Result<Door, String> {
        let options = RedisOptions {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            cluster,
            prefix: "sess:".to_owned(),
            ttl: 1000,
            disable_touch: false,
        };
        Door::new(&options, Duration::from_secs(1))
    }

    #[test]
    fn the_nodes_of_a_cluster_agree() {
        assert!(open(&["redis://a", "redis://b:7000"], true).is_ok());
        for urls in [
            &["redis://a/1"][..],
            &["redis://a", "rediss://b"],
            &["redis://:hunter2@a", "redis://b"],
            &["redis+unix:///run/redis.sock"],
            &["rediss://a?ssl_ca_certs=/a.pem", "rediss://b"],
            &[],
        ] {
            let why = open(urls, true).err().unwrap_or_else(|| panic!("{urls:?} were taken"));
            assert!(why.starts_with("store.cluster: ") && !why.contains("hunter2"), "{why}");
        }
        let why = open(&["rediss://h?ssl_ca_certs=/no/such.pem"], false).err().unwrap();
        assert!(why.starts_with("store.url: ssl_ca_certs: /no/such.pem: "), "{why}");
    }
}
