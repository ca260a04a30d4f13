//! `cloakroom doctor`: looks into the configured store, says what it holds and what is wrong with it, and checks a pasted cookie.
//!
//! Reads only. The facts come from `store::survey`; here they are printed, judged against the configuration, and given a cure.
//! Exit codes: 0 nothing is wrong, 1 problems, 64 the configuration is wrong, 69 the store does not answer or is in use. A session's sid is shown as
//! the fingerprint that logs have, its content never. Tests: beside each file, and `tests/it/doctor.rs` over real stores.

mod cookie;
mod facts;
mod finding;
mod judge;
mod judge_mongodb;
mod judge_others;
mod paste;

use crate::config::Config;
use crate::proxy::options::{Encoding, SessionOptions};
use crate::session::Millis;
use crate::store::survey::{Survey, SurveyError, SurveyPlan, survey};
use crate::store::{StoreKind, StoreOptions};
use finding::Findings;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::LocalSet;

/// There is no store to look into (`EX_UNAVAILABLE` of sysexits.h).
const EXIT_UNAVAILABLE: u8 = 69;
/// No Cookie header that any server takes is longer.
const LONGEST_COOKIE: u64 = 1 << 16;

/// What `cloakroom doctor` is asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// Sessions to look at, at most
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: u32,
    /// A session cookie to check, in whatever form it was copied; `-` reads it from standard input
    #[arg(long, value_name = "COOKIE", allow_hyphen_values = true, conflicts_with = "cookie_file")]
    cookie: Option<String>,
    /// A file with a session cookie to check
    #[arg(long, value_name = "FILE")]
    cookie_file: Option<PathBuf>,
}

/// What is judged.
struct Case<'a> {
    session: &'a SessionOptions,
    store: &'a StoreOptions,
    /// `limits.session_header`
    header_limit: usize,
    /// Every route with sessions names its `fields`, so nobody is sent a whole session.
    only_fields: bool,
    now: Millis,
}

pub(super) fn doctor(path: &Path, asked: &Asked) -> ExitCode {
    let (config, warnings) = match super::load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let pasted = match asked.pasted() {
        Ok(pasted) => pasted,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(super::EXIT_USAGE);
        }
    };
    let Some(case) = Case::of(&config) else {
        say("sessions are off in this configuration: there is no store to look at\n");
        return ExitCode::SUCCESS;
    };
    // The mongodb driver and rustls look the provider up; a second call is no fault.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = LocalSet::new().block_on(&runtime, examine(&case, asked, pasted.as_deref()));
            // Without waiting for a name that somebody still looks up.
            runtime.shutdown_background();
            code
        }
        Err(error) => super::finish(Err(format!("no async runtime: {error}"))),
    }
}

async fn examine(case: &Case<'_>, asked: &Asked, pasted: Option<&str>) -> ExitCode {
    let plan = SurveyPlan {
        sample: usize::try_from(asked.sample).unwrap_or(usize::MAX),
        hidden: case.session.policy.store_keys.clone(),
        now: case.now,
    };
    let outcome = survey(case.store, &plan).await;
    if let Ok(survey) = &outcome {
        say(&facts::render(case, survey));
    }
    let answers = !matches!(outcome, Err(SurveyError::Unreachable(_) | SurveyError::InUse));
    let mut checked = Findings::default();
    let mut is_found = false;
    if let Some(pasted) = pasted {
        let (text, found) = cookie::examine(case, pasted, answers, &mut checked).await;
        say(&text);
        is_found = found;
    }
    let mut findings = Findings::default();
    match &outcome {
        Ok(survey) => judge_all(case, survey, is_found, &mut findings),
        Err(error) => no_survey(case.store, error, &mut findings),
    }
    findings.append(checked);
    say(&findings.render());
    match (answers, findings.has_problem()) {
        (false, _) => ExitCode::from(EXIT_UNAVAILABLE),
        (true, true) => ExitCode::FAILURE,
        (true, false) => ExitCode::SUCCESS,
    }
}

fn no_survey(store: &StoreOptions, error: &SurveyError, findings: &mut Findings) {
    match error {
        SurveyError::Unreachable(why) => findings.problem(
            "the store does not answer",
            why,
            &format!("check {} and that the store runs and can be reached from here", url_key(store)),
        ),
        SurveyError::InUse => findings.problem(
            "the embedded store is in use, so there is no store to look into",
            "a running sidecar has it: one process at a time may open its file",
            "stop it first, or ask the admin port (/readyz, /metrics)",
        ),
        SurveyError::Refused(why) => findings.problem(
            "the store is there, and cannot be looked into",
            why,
            match store.kind {
                StoreKind::Mongodb(_) | StoreKind::Redis(_) => "check user, password and rights",
                _ => "see store.path, and which user runs this command",
            },
        ),
    }
}

/// `is_found`: the pasted cookie's session was found, so its id is made as the app makes it.
fn judge_all(case: &Case<'_>, survey: &Survey, is_found: bool, findings: &mut Findings) {
    use crate::store::survey::Facts;
    match &survey.facts {
        Facts::Memory => return,
        Facts::Mongodb(facts) => judge_mongodb::judge(case, survey, facts, is_found, findings),
        Facts::Redis(facts) => judge_others::redis(case, survey, facts, is_found, findings),
        Facts::File(facts) => judge_others::file(survey, facts, findings),
        Facts::Embedded(_) => {}
    }
    judge::sessions(case, &survey.sample, findings);
}

impl<'a> Case<'a> {
    fn of(config: &'a Config) -> Option<Self> {
        use crate::proxy::options::SessionMode;
        let with_sessions = config.proxy.routes.iter().filter(|route| route.session != SessionMode::Off);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Some(Self {
            session: config.proxy.session.as_ref()?,
            store: config.store.as_ref()?,
            header_limit: config.proxy.session_header_limit,
            only_fields: with_sessions.clone().count() > 0
                && with_sessions.clone().all(|route| !route.fields.is_empty()),
            now: Millis::try_from(now).unwrap_or(Millis::MAX),
        })
    }

    /// Bytes of `X-Session` for so many bytes of JSON.
    fn as_header(&self, json: usize) -> usize {
        match self.session.encoding {
            Encoding::Json => json,
            Encoding::Base64url => (json * 4).div_ceil(3),
        }
    }
}

impl Asked {
    fn pasted(&self) -> Result<Option<String>, String> {
        let read = |source: Box<dyn Read>| {
            let mut text = Vec::new();
            let read = source.take(LONGEST_COOKIE).read_to_end(&mut text);
            read.map(|_| Some(String::from_utf8_lossy(&text).into_owned())).map_err(|error| error.to_string())
        };
        match (&self.cookie, &self.cookie_file) {
            (Some(cookie), _) if cookie == "-" => read(Box::new(std::io::stdin())),
            (Some(cookie), _) => Ok(Some(cookie.clone())),
            (None, Some(path)) => std::fs::File::open(path)
                .map_err(|error| error.to_string())
                .and_then(|file| read(Box::new(file)))
                .map_err(|why| format!("--cookie-file {}: {why}", path.display())),
            (None, None) => Ok(None),
        }
    }
}

fn url_key(store: &StoreOptions) -> &'static str {
    match &store.kind {
        StoreKind::Redis(options) if options.cluster => "store.cluster",
        StoreKind::Mongodb(_) | StoreKind::Redis(_) => "store.url",
        StoreKind::Memory { .. } | StoreKind::Embedded { .. } | StoreKind::File(_) => "store.path",
    }
}

/// A reader that has left (`| head`) is nobody's fault.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
