//! Addresses to listen on: `127.0.0.1:8080`, `[::]:443`, `localhost:8080`, `unix:/run/x.sock`. No name is looked up:
//! what a listener binds must not depend on a name server. Tests: below.

use super::item::Item;
use crate::server::Address;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What a unix socket's name may have in bytes on every system that Cloakroom runs on (`sun_path` less its end).
const LONGEST_SOCKET_NAME: usize = 103;

/// Reads an address to listen on; `None` when a problem was reported.
pub(super) fn listen(item: &Item<'_>) -> Option<Address> {
    if let Some(port) = item.integer() {
        item.problem(
            "a port alone is no address",
            format!("write \"127.0.0.1:{port}\" or \"0.0.0.0:{port}\""),
        );
        return None;
    }
    let text = item.text()?;
    match parse(&text.value, item.walk.base_dir) {
        Ok(address) => Some(address),
        Err(cure) => {
            item.problem(format!("`{}` is not an address to listen on", text.shown), cure);
            None
        }
    }
}

/// Can only this machine reach it?
pub(super) fn is_local(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}

fn parse(text: &str, base_dir: &Path) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path, base_dir).map(Address::Unix);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Address::Tcp(address));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("write host and port, like \"127.0.0.1:8080\", or \"unix:/path\"".to_owned());
    };
    let Ok(port) = port.parse::<u16>() else {
        return Err("the port is a number from 0 to 65535".to_owned());
    };
    match host {
        "localhost" => Ok(Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
        "" | "*" => Err(format!(
            "write \"0.0.0.0:{port}\" for every address of this machine, or \"127.0.0.1:{port}\" for this machine alone"
        )),
        _ if host.contains("//") => Err("write host and port alone, without http://".to_owned()),
        _ if host.contains(':') => Err(format!("write an IPv6 address in brackets: \"[::1]:{port}\"")),
        _ => Err("write an IP address: names other than localhost are not looked up here".to_owned()),
    }
}

/// A unix socket's path, relative to the folder of the configuration.
pub(super) fn unix(text: &str, base_dir: &Path) -> Result<PathBuf, String> {
    let path = base_dir.join(text);
    let length = path.as_os_str().len();
    if text.is_empty() || text.ends_with('/') || text.contains('\0') {
        return Err("write the path of the socket: \"unix:/run/cloakroom.sock\"".to_owned());
    }
    if length > LONGEST_SOCKET_NAME {
        return Err(format!(
            "a socket's path has at most {LONGEST_SOCKET_NAME} bytes, this one has {length}"
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |text: &str| match parse(text, Path::new("/etc")) {
            Ok(Address::Tcp(address)) => address.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(tcp("0.0.0.0:8443"), "0.0.0.0:8443");
        assert_eq!(tcp("[::]:80"), "[::]:80");
        assert_eq!(tcp("localhost:8080"), "127.0.0.1:8080");
        let socket = |path: &str| Ok(Address::Unix(PathBuf::from(path)));
        assert_eq!(parse("unix:/run/c.sock", Path::new("/etc")), socket("/run/c.sock"));
        assert_eq!(parse("unix:c.sock", Path::new("/etc")), socket("/etc/c.sock"));
    }

    #[test]
    fn mistakes_come_with_a_cure() {
        for (text, part) in [
            (":8080", "0.0.0.0:8080"),
            ("*:80", "0.0.0.0:80"),
            ("127.0.0.1", "host and port"),
            ("127.0.0.1:http", "port"),
            ("127.0.0.1:65536", "port"),
            ("::1:80", "[::1]:80"),
            ("example.com:80", "IP address"),
            ("http://0.0.0.0:80", "without http://"),
            ("unix:", "path of the socket"),
            ("unix:/run/", "path of the socket"),
            ("", "host and port"),
        ] {
            let cure = parse(text, Path::new("")).unwrap_err();
            assert!(cure.contains(part), "{text}: {cure}");
        }
        assert!(parse(&format!("unix:/{}", "x".repeat(110)), Path::new("")).unwrap_err().contains("111"));
    }
}
