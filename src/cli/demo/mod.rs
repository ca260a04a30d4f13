//! `cloakroom demo`: a counter app that knows two headers, and the sidecar before it on a real configuration.
//!
//! Sessions and the secret that signs them stay in a private folder of the system's temporary folder, so that a restart
//! keeps them. Tests: below.

mod counter;

use crate::config::{self, Config};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The demo's `proxy.toml`.
const CONFIG: &str = include_str!("demo.toml");
/// Where the search for a free port begins, and how many are tried.
const FIRST_PORT: u16 = 8080;
const PORTS_TRIED: u16 = 100;

pub(super) fn demo(port: Option<u16>) -> ExitCode {
    match prepare(port) {
        Ok((config, message)) => {
            println!("{message}");
            super::finish(crate::app::run(config, None))
        }
        Err(why) => super::finish(Err(why)),
    }
}

fn prepare(port: Option<u16>) -> Result<(Config, String), String> {
    let folder = private_folder(std::env::temp_dir().join("cloakroom-demo"))?;
    let secret = kept_secret(&folder)?;
    let port = free_port(port)?;
    let app = counter::start().map_err(|error| format!("cannot start the counter app: {error}"))?;
    let config = configure(&folder, secret, port, app)?;
    Ok((config, instructions(&folder, port, app)))
}

fn instructions(folder: &Path, port: u16, app: SocketAddr) -> String {
    format!(
        "Cloakroom demo: a counter app on {app} that knows nothing of sessions, and the sidecar before it.\n\n\
         In a browser:  http://127.0.0.1:{port}/\n\
         In a terminal, the first line as often as you like:\n\n  \
         curl -c cookies.txt -b cookies.txt http://127.0.0.1:{port}/count\n  \
         curl -c cookies.txt -b cookies.txt -X POST http://127.0.0.1:{port}/logout\n\n\
         Sessions are kept in {} and survive a restart.\nStop with Ctrl-C.",
        folder.join("sessions.redb").display()
    )
}

fn configure(folder: &Path, secret: String, port: u16, app: SocketAddr) -> Result<Config, String> {
    let variable = |name: &str| match name {
        "PORT" => Some(port.to_string()),
        "APP" => Some(app.to_string()),
        "SESSION_SECRET" => Some(secret.clone()),
        _ => None,
    };
    match config::parse(CONFIG, "demo.toml", folder, variable) {
        Ok((config, _)) => Ok(config),
        Err(problems) => Err(format!("the demo's own configuration is refused:\n{problems}")),
    }
}

/// A folder that only this user can enter. One that somebody else put there is refused: the temporary folder is
/// everybody's, and the folder will hold a secret.
fn private_folder(path: PathBuf) -> Result<PathBuf, String> {
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => return Ok(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("cannot create {}: {error}", path.display())),
    }
    let found =
        fs::symlink_metadata(&path).map_err(|error| format!("cannot look at {}: {error}", path.display()))?;
    if !found.is_dir() || found.permissions().mode() & 0o077 != 0 {
        return Err(format!(
            "{} is not a folder of this user alone; remove it and start again",
            path.display()
        ));
    }
    Ok(path)
}

/// The secret of the last demo, or a fresh one.
fn kept_secret(folder: &Path) -> Result<String, String> {
    let path = folder.join("secret");
    match fs::read_to_string(&path) {
        Ok(secret) if !secret.is_empty() => return Ok(secret),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    }
    let secret =
        super::secret::fresh().map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    written
        .and_then(|mut file| file.write_all(secret.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(secret)
}

fn free_port(wanted: Option<u16>) -> Result<u16, String> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    if let Some(port) = wanted {
        let taken =
            || format!("port {port} is taken or not allowed; choose another with --port, or leave it out");
        return Some(port).filter(free).ok_or_else(taken);
    }
    let last = FIRST_PORT + PORTS_TRIED;
    (FIRST_PORT..last)
        .find(free)
        .ok_or_else(|| format!("no free port from {FIRST_PORT} to {last}; name one with --port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cloakroom-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn the_demos_configuration_is_valid_and_without_warnings() {
        let variable = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "APP" => Some("127.0.0.1:3000".to_owned()),
            "SESSION_SECRET" => Some("s".repeat(43)),
            _ => None,
        };
        let (config, warnings) = config::parse(CONFIG, "demo.toml", Path::new("/tmp"), variable).unwrap();
        assert_eq!(warnings, []);
        assert!(config.proxy.session.is_some() && config.listeners.len() == 1);
    }

    #[test]
    fn the_secret_is_kept_and_private() {
        let folder = private_folder(folder("kept")).unwrap();
        let first = kept_secret(&folder).unwrap();
        assert_eq!(kept_secret(&private_folder(folder.clone()).unwrap()).unwrap(), first);
        assert_eq!(fs::metadata(folder.join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let path = folder("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private_folder(path.clone()).unwrap_err().contains("remove it"));
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/", &path).unwrap();
        assert!(private_folder(path.clone()).is_err());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_taken_port_is_refused_by_name_and_passed_over_in_the_search() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(free_port(Some(port)).unwrap_err().contains(&port.to_string()));
        assert!((FIRST_PORT..FIRST_PORT + PORTS_TRIED).contains(&free_port(None).unwrap()));
    }
}
