//! The command line: what was asked for, exit codes, and what a person reads. A file for each command.
//! Exit codes: 0 done, 1 failed while running, 64 wrong usage or configuration, 69 no store (doctor). Tests: below, and in each command's file.

mod check;
mod demo;
mod doctor;
pub mod import;
mod secret;

use crate::app::Origin;
use crate::config::{self, Config, Problems, Warning};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Wrong usage or configuration (`EX_USAGE` of sysexits.h); nothing was started.
const EXIT_USAGE: u8 = 64;

/// Server-side sessions for unmodified web apps: a reverse-proxy sidecar.
#[derive(Debug, Parser)]
#[command(name = "cloakroom", version, max_term_width = 100, subcommand_negates_reqs = true)]
struct Arguments {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and say everything that is wrong with it
    Check,
    /// Look into the store, say what is wrong with it, and check a cookie
    Doctor(doctor::Asked),
    /// Make a proxy.toml of the options that an app gives to express-session and its store
    Import(import::Asked),
    /// Print a fresh secret for `session.secrets`
    Secret,
    /// Run a counter app behind a sidecar on this machine, to try it out
    Demo {
        /// The port of the sidecar; by default 8080 or the next free one
        #[arg(long)]
        port: Option<u16>,
    },
}

/// Does what the arguments (the program's name first) ask for; without a command, runs the sidecar until it has drained.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // `--help` and `--version` come this way too, and are no error. A closed pipe is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match arguments.command {
        None => serve(&arguments.config),
        Some(Command::Check) => check::check(&arguments.config),
        Some(Command::Doctor(asked)) => doctor::doctor(&arguments.config, &asked),
        Some(Command::Import(asked)) => import::import(&asked),
        Some(Command::Secret) => secret::secret(),
        Some(Command::Demo { port }) => demo::demo(port),
    }
}

fn serve(path: &Path) -> ExitCode {
    let config::Reading { outcome, files } = config::read(path);
    match outcome {
        Ok((config, warnings)) => {
            warnings.iter().for_each(|warning| eprintln!("{warning}"));
            finish(crate::app::run(config, Some(Origin { path: path.to_owned(), files })))
        }
        Err(problems) => refuse(&problems),
    }
}

/// Loads the file, or says all that is wrong with it.
fn load(path: &Path) -> Result<(Config, Vec<Warning>), ExitCode> {
    config::load(path).map_err(|problems| refuse(&problems))
}

fn refuse(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::from(EXIT_USAGE)
}

fn finish(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn arguments() {
        Arguments::command().debug_assert();
        let plain = parse("cloakroom").unwrap();
        assert_eq!(plain.config, Path::new("proxy.toml"));
        assert!(plain.command.is_none());
        for line in ["cloakroom --config a.toml check", "cloakroom check --config a.toml"] {
            let check = parse(line).unwrap();
            assert_eq!(check.config, Path::new("a.toml"), "{line}");
            assert!(matches!(check.command, Some(Command::Check)), "{line}");
        }
        assert!(matches!(
            parse("cloakroom demo --port 9").unwrap().command,
            Some(Command::Demo { port: Some(9) })
        ));
        assert!(parse("cloakroom demo --port 65536").is_err());
        assert!(matches!(
            parse("cloakroom import app.js --output proxy.toml --force").unwrap().command,
            Some(Command::Import(_))
        ));
        assert!(parse("cloakroom serve").is_err());
    }

    #[test]
    fn wrong_usage_and_wrong_configuration_are_64() {
        let run = |line: &[&str]| run(line.iter().map(OsString::from));
        assert_eq!(run(&["cloakroom", "--help"]), ExitCode::SUCCESS);
        assert_eq!(run(&["cloakroom", "--bogus"]), ExitCode::from(64));
        assert_eq!(run(&["cloakroom", "check", "--config", "nowhere/proxy.toml"]), ExitCode::from(64));
        assert_eq!(run(&["cloakroom", "--config", "nowhere/proxy.toml"]), ExitCode::from(64));
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config/valid/redirect_only.toml");
        assert_eq!(run(&["cloakroom", "check", "--config", file]), ExitCode::SUCCESS);
    }
}
