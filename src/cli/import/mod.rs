//! `cloakroom import`: options of express-session and its store, as JSON or pasted JavaScript, to a `proxy.toml`.
//!
//! `token` and `scan` read the characters, `literal` (with `object` and `function`) expressions, `scope` what a snippet declares and calls, `value` and `fields` what
//! that comes to; `session`, `cookie`, `store` and a file for each store write the configuration's lines into `write`'s draft. Nothing
//! of the input is run. No secret of the input is written anywhere. Tests: below each, and `tests/it/import.rs`.

mod cookie;
mod crypto;
mod expr;
mod fields;
mod file;
mod function;
mod literal;
mod mongodb;
mod number;
mod object;
mod redis;
mod refusal;
mod scan;
mod scope;
mod session;
mod store;
mod text;
mod token;
mod url;
mod value;
mod write;

pub use refusal::Refusal;

use super::EXIT_USAGE;
use expr::{Expr, Shape};
use fields::Fields;
use scope::{Script, looks_like_session};
use session::Import;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use value::{Reading, Value};
use write::{Draft, Section};

/// Nobody's options are longer.
const LARGEST: u64 = 1 << 20;

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// The app's options: JSON, an object literal, or the source around session({ … }); standard input without it
    file: Option<PathBuf>,
    /// Write the configuration to this file, not to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the output file
    #[arg(long)]
    force: bool,
}

/// A configuration made of an app's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// `proxy.toml`; valid once its variables are set.
    pub toml: String,
    /// Options that it carries over, those included that are defaults here too.
    pub taken: usize,
    /// Options that have only a comment.
    pub remarked: usize,
    /// The environment variables that it names.
    pub variables: Vec<String>,
}

pub(super) fn import(asked: &Asked) -> ExitCode {
    let name = asked.file.as_deref().map_or("standard input".to_owned(), |path| path.display().to_string());
    let outcome = read(asked.file.as_deref())
        .map_err(|why| Refusal::of_input(&format!("cannot read: {why}"), ""))
        .and_then(|bytes| convert(&bytes));
    let imported = match outcome {
        Ok(imported) => imported,
        Err(refusal) => {
            let separator = if refusal.place.is_some() { ":" } else { ": " };
            eprintln!("error: {name}{separator}{refusal}; nothing was written");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let written = match &asked.output {
        Some(path) => write_file(path, &imported.toml, asked.force),
        None => std::io::stdout()
            .write_all(imported.toml.as_bytes())
            .map_err(|error| (error.to_string(), ExitCode::FAILURE)),
    };
    if let Err((why, code)) = written {
        eprintln!("error: {why}");
        return code;
    }
    eprint!("{}", summary(&imported, asked.output.as_deref()));
    ExitCode::SUCCESS
}

fn summary(imported: &Imported, output: Option<&Path>) -> String {
    let count = |number: usize| format!("{number} option{}", if number == 1 { "" } else { "s" });
    let set = match imported.variables.as_slice() {
        [] => String::new(),
        names => format!("set: {}\n", names.join(" ")),
    };
    let output = output.map_or("proxy.toml".to_owned(), |path| path.display().to_string());
    format!(
        "{} taken over, {} without a match (a comment each)\n{set}next: cloakroom check --config {output}\n",
        count(imported.taken),
        imported.remarked,
    )
}

/// At most one byte more than is allowed.
fn read(path: Option<&Path>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match path {
        Some(path) => std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?,
        None => std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

fn write_file(path: &Path, text: &str, force: bool) -> Result<(), (String, ExitCode)> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(true);
    let options = if force { options.create(true) } else { options.create_new(true) };
    let done = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    done.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => (
            format!("{} is there already; --force overwrites it", path.display()),
            ExitCode::from(EXIT_USAGE),
        ),
        _ => (format!("cannot write {}: {error}", path.display()), ExitCode::FAILURE),
    })
}

/// Makes a configuration of an app's options: a JSON object, an object literal, or source that has `session({ … })` in it.
///
/// # Errors
/// What is no JavaScript, is larger than 1 MiB, or has no options in it.
pub fn convert(input: &[u8]) -> Result<Imported, Refusal> {
    if input.len() as u64 > LARGEST {
        return Err(Refusal::of_input("larger than 1 MiB", "paste only what is around session({ … })"));
    }
    let source = str::from_utf8(input).map_err(|error| {
        let line = input[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Refusal::of_input(&format!("line {line} is not UTF-8 text"), "save the file as UTF-8")
    })?;
    if source.trim().is_empty() {
        return Err(Refusal::of_input("there is nothing in it", HINT));
    }
    let script =
        Script::read(source).map_err(|refusal| if looks_like_yaml(source) { yaml() } else { refusal })?;
    let mut import = Import { reading: Reading::new(&script), draft: Draft::default() };
    let fields = options(&mut import, source)?;
    around(&mut import);
    import.session(fields);
    let mut draft = import.draft;
    let toml = draft.finish();
    Ok(Imported { toml, taken: draft.taken, remarked: draft.remarked, variables: draft.variables() })
}

const HINT: &str = "expected an options object, or source with app.use(session({ … })) in it";

fn yaml() -> Refusal {
    Refusal::of_input("this looks like YAML, not JavaScript or JSON", HINT)
}

/// `word: …` at the beginning, without a brace before it.
fn looks_like_yaml(source: &str) -> bool {
    let first = source.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', '/']));
    first.is_some_and(|line| {
        let key = line.split_once(':').map(|(key, _)| key.trim());
        line == "---"
            || key.is_some_and(|key| {
                !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
            })
    })
}

/// The options of the session: of the first call, else of an object that looks like it.
fn options<'s>(import: &mut Import<'s>, source: &str) -> Result<Fields<'s>, Refusal> {
    let script = import.reading.script;
    if let Some(call) = script.calls.iter().find(|call| call.name == "session") {
        let arguments = call.arguments.as_ref().map_err(|why| why.refusal(&script.tokens))?;
        for other in script.sessions.iter().skip(1).take(8) {
            let line = script.tokens.place(*other).0;
            import.draft.note(
                Section::Session,
                format!("line {line} has another session(…), which is not imported."),
            );
        }
        let Some(first) = arguments.first() else { return Ok(Fields::default()) };
        return import.reading.fields(first).ok_or_else(|| why_not(import, first));
    }
    if let Some(Err(why)) = script.bare.first() {
        return Err(why.refusal(&script.tokens));
    }
    let bare = script.bare.iter().any(|value| value.as_ref().is_ok_and(|value| value.at.start <= 1));
    let objects = script.objects();
    let found = objects
        .iter()
        .find(|(_, object)| matches!(&object.shape, Shape::Object(list) if looks_like_session(list)));
    // An object alone is what was meant, whatever is in it.
    let found = found.or(if bare { objects.first() } else { None });
    match found {
        Some((name, object)) => {
            let fields = match name {
                Some(name) => import.reading.fields_named(name, object),
                None => import.reading.fields(object),
            };
            fields.ok_or_else(|| why_not(import, object))
        }
        None if looks_like_yaml(source) => Err(yaml()),
        None => Err(Refusal::of_input("no session({ … }) and no options of express-session in it", HINT)),
    }
}

fn why_not(import: &Import<'_>, expr: &Expr) -> Refusal {
    let tokens = &import.reading.script.tokens;
    if let Shape::Name(name) = &expr.shape
        && let Some(declaration) = import.reading.declaration(name, expr.at.start)
        && let Err(why) = &declaration.value
    {
        return why.refusal(tokens);
    }
    let what = format!("expected the options of the session, found {}", tokens.excerpt(expr.at.clone()));
    tokens.refusal(expr.at.start, what, "paste the object itself, or what makes it as well")
}

/// Where requests come in and go to, and whom the app trusts.
fn around(import: &mut Import<'_>) {
    let script = import.reading.script;
    let mut port = None;
    for call in &script.calls {
        let Ok(arguments) = &call.arguments else { continue };
        let Some(first) = arguments.first() else { continue };
        match call.name.as_str() {
            "set" | "enable" | "disable" if matches!(&first.shape, Shape::Text(text) if text == "trust proxy") =>
            {
                trust(import, call.at, &call.name, first, arguments.get(1));
            }
            "listen" if port.is_none() => port = port_of(import, first),
            _ => {}
        }
    }
    // The sidecar cannot listen where the app does.
    let own = if port == Some(8080) { 8000 } else { 8080 };
    import.draft.set(
        Section::Listener,
        "address",
        format!("\"127.0.0.1:{own}\""),
        "change: where browsers, or your TLS proxy, come in",
    );
    let app = port.unwrap_or(3000);
    let why = if port.is_some() { "where the app listens" } else { "change: where the app listens" };
    import.draft.set(Section::Upstream, "servers", format!("[\"http://127.0.0.1:{app}\"]"), why);
    import.draft.set(Section::Route, "path", "\"/\"", "");
    import.draft.set(Section::Route, "upstream", "\"app\"", "");
}

fn trust<'s>(import: &mut Import<'s>, at: usize, method: &str, first: &'s Expr, second: Option<&'s Expr>) {
    import.reading.take_assumed();
    let holds = import.reading.conditions(at);
    let assumed = import.reading.take_assumed();
    if holds == Some(Some(false)) || import.draft.value_of(Section::Server, "trust_proxy").is_some() {
        return;
    }
    let reason = match holds {
        Some(None) => "set under a condition in the app: is it what you want?",
        Some(Some(true)) if assumed => "the app's value for NODE_ENV=production",
        _ => "",
    };
    match (method, second) {
        ("enable", _) => import.trust_proxy(first, Some(true), reason),
        ("disable", _) => import.trust_proxy(first, Some(false), reason),
        (_, Some(value)) => import.trust_proxy(value, None, reason),
        _ => {}
    }
}

/// `app.listen(3000)`, `app.listen(process.env.PORT || 3000)`
fn port_of<'s>(import: &Import<'s>, expr: &'s Expr) -> Option<u16> {
    match import.reading.eval(expr) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        Value::Number(port) if port.fract() == 0.0 && (1.0..65_536.0).contains(&port) => Some(port as u16),
        Value::Text(text) => {
            text.as_literal().or(text.as_variable()?.1)?.parse().ok().filter(|port| *port > 0)
        }
        _ => None,
    }
}
