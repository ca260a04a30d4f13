//! `cloakroom check`: is the configuration valid? Starts nothing. Tests: below.

use crate::config::Config;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn check(path: &Path) -> ExitCode {
    match super::load(path) {
        Ok((config, warnings)) => {
            warnings.iter().for_each(|warning| eprintln!("{warning}"));
            println!("{} is valid: {}", path.display(), summary(&config));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn summary(config: &Config) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let proxy = &config.proxy;
    [
        count(config.listeners.len(), "listener"),
        count(proxy.routes.len(), "route"),
        count(proxy.upstreams.len(), "upstream"),
        if proxy.session.is_some() { "sessions on".to_owned() } else { "sessions off".to_owned() },
        if config.admin.is_some() { "admin port on".to_owned() } else { "admin port off".to_owned() },
    ]
    .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        let text = "[[listener]]\naddress = '127.0.0.1:1'\n[[listener]]\naddress = '127.0.0.1:2'\n\
                    [[route]]\npath = '/'\nupstream = 'a'\nsession = 'off'\n[upstream.a]\nservers = ['http://[::1]:1']";
        let (config, warnings) = crate::config::parse(text, "p.toml", Path::new(""), |_| None).unwrap();
        assert_eq!(summary(&config), "2 listeners, 1 route, 1 upstream, sessions off, admin port off");
        assert_eq!(warnings, []);
    }
}
