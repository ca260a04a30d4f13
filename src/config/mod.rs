//! `proxy.toml` to the `Options` that each room declares (contract §7). Nothing runs here, and nobody below imports this.
//!
//! Stage one is the TOML text as a tree with places (`walk`); stage two is one file for each section, which reads every
//! key it knows, checks it and fills the room's type. No stage stops at the first problem: all of them are collected,
//! sorted by place and shown together. Secrets are masked in every message. The environment is an argument of [`parse`].
//! Tests: `tests/it/config.rs` over `tests/fixtures/config`, and beside the rules.

mod address;
mod check;
mod cookie;
mod expand;
mod item;
mod limits;
mod listener;
mod nearest;
mod problem;
mod route;
mod secret;
mod server;
mod session;
mod store;
mod units;
mod upstream;
mod veil;
mod walk;

pub use problem::{Problem, Problems, Warning};
pub use server::{LogFormat, LogLevel, LogOptions, Reload};

use crate::admin::AdminOptions;
use crate::proxy::options::ProxyOptions;
use crate::server::{ListenerOptions, ServerOptions};
use crate::store::StoreOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A whole configuration, checked: what each room needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[[listener]]`, at least one, no two on the same address.
    pub listeners: Vec<ListenerOptions>,
    /// Limits and deadlines of downstream connections.
    pub server: ServerOptions,
    /// `server.threads`: workers, at least one; by default one for each core.
    pub threads: usize,
    /// `server.reload`; by default [`Reload::Watch`].
    pub reload: Reload,
    /// Routes, upstreams, sessions, trust.
    pub proxy: ProxyOptions,
    /// `[store]`; there exactly when `proxy.session` is.
    pub store: Option<StoreOptions>,
    /// `[admin]`; `None` without that section.
    pub admin: Option<AdminOptions>,
    /// `timeouts.drain`: how long a stop waits for what runs.
    pub drain: Duration,
    /// `[log]`
    pub log: LogOptions,
}

/// A configuration that was read, right or wrong.
#[derive(Debug)]
pub struct Reading {
    /// The configuration, or everything that is wrong with it or its file.
    pub outcome: Result<(Config, Vec<Warning>), Problems>,
    /// The files that it names (`*_file` and the like), as far as it could be understood. Not those that others look after: the
    /// store's and the listeners' certificates.
    pub files: Vec<PathBuf>,
}

/// Reads, expands (from the environment of this process) and checks a configuration file.
///
/// # Errors
/// Everything that is wrong with it, or that it cannot be read.
pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), Problems> {
    read(path).outcome
}

/// [`load`], and the files that should be watched.
pub fn read(path: &Path) -> Reading {
    let name = path.display().to_string();
    match text_of(path, &name) {
        Ok(text) => {
            let base_dir = path.parent().unwrap_or(Path::new(""));
            check::check(&text, &name, base_dir, &|variable| std::env::var(variable).ok())
        }
        Err(problems) => Reading { outcome: Err(problems), files: Vec::new() },
    }
}

fn text_of(path: &Path, name: &str) -> Result<String, Problems> {
    let failed = |what: String, hint: &str| Problems(vec![Problem::of_file(name, what, hint)]);
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => failed(
            "no such file".to_owned(),
            "name one with --config, start from the proxy.toml that comes with Cloakroom, or try `cloakroom demo`",
        ),
        ErrorKind::IsADirectory => {
            failed("this is a folder".to_owned(), "name the file in it: --config <folder>/proxy.toml")
        }
        _ => failed(format!("cannot read the file: {error}"), "check who may read it"),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        failed(format!("line {line} is not UTF-8 text"), "save the file as UTF-8")
    })
}

/// Checks the text of a configuration. `file_name` is for messages, relative file names are looked up in `base_dir`,
/// `env` answers `${NAME}`. Certificate and `*_file` files are read; nothing else outside the text is touched.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    text: &str,
    file_name: &str,
    base_dir: &Path,
    env: impl Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<Warning>), Problems> {
    check::check(text, file_name, base_dir, &env).outcome
}
