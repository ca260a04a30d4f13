//! The log on stderr: one line per event, for people on a terminal, JSON otherwise. Requests are `access`'s business.

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How lines look, of the log and of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// Decides `Auto`: is the reader a person?
    pub fn is_text(self, terminal: bool) -> bool {
        match self {
            Self::Auto => terminal,
            Self::Text => true,
            Self::Json => false,
        }
    }
}

/// The variable that overrides the level: a level, or `tracing` directives such as `cloakroom=debug,mongodb=info`.
pub const LEVEL_VARIABLE: &str = "CLOAKROOM_LOG";

type Setter = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// Puts another filter in the place of the one that the log was started with.
static SETTER: OnceLock<Setter> = OnceLock::new();

/// Starts the log for the whole process. `level` is a level or directives; the variable [`LEVEL_VARIABLE`] wins over it.
///
/// # Errors
/// When the level cannot be understood (the text names it), or a log has been started already.
pub fn init(format: Format, level: &str) -> Result<(), String> {
    let filter = filter(from_environment().as_deref().unwrap_or(level))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let (started, setter): (_, Setter) = if format.is_text(terminal) {
        let builder = builder.with_ansi(terminal).event_format(Line).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |filter| handle.reload(filter)))
    } else {
        let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |filter| handle.reload(filter)))
    };
    started.map_err(|error| format!("cannot start the log: {error}"))?;
    // Whoever started it is the only one.
    let _ = SETTER.set(setter);
    Ok(())
}

/// Another level for a log that runs. Without effect while [`LEVEL_VARIABLE`] is set, which wins.
///
/// # Errors
/// When the level cannot be understood.
pub fn set_level(level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    match SETTER.get() {
        Some(set) if from_environment().is_none() => {
            set(filter).map_err(|error| format!("cannot change the log level: {error}"))
        }
        _ => Ok(()),
    }
}

fn from_environment() -> Option<String> {
    std::env::var(LEVEL_VARIABLE).ok().filter(|text| !text.trim().is_empty())
}

/// What the libraries below us may say: from `warn` on, or an outage would be told twice and at length. Those that parse what
/// strangers send only from `error` on, or strangers could write our log.
const LIBRARIES: &str = "warn,h2=error,hyper=error,rustls=error,tokio_rustls=error";

/// A bare level is ours, libraries have their own.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let text = text.trim();
    let unknown = |why: &dyn fmt::Display| {
        format!(
            "cannot understand the log level {text:?}{why}; \
             use error, warn, info, debug, trace, off, or directives like cloakroom=debug"
        )
    };
    let directives = match text.parse::<Level>() {
        Ok(level) if level >= Level::WARN => format!("{LIBRARIES},cloakroom={text}"),
        Ok(_) => text.to_owned(),
        // tracing would take a misspelt level for the name of a target, and say nothing.
        Err(_) if text != "off" && !text.contains('=') => return Err(unknown(&"")),
        Err(_) => text.to_owned(),
    };
    EnvFilter::try_new(&directives).map_err(|error| unknown(&format_args!(": {error}")))
}

/// `HH:MM:SS LEVEL message key=value`, time in UTC.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        write_line(&mut out, seconds, *event.metadata().level(), event)
    }
}

fn write_line(out: &mut Writer<'_>, seconds: u64, level: Level, fields: impl RecordFields) -> fmt::Result {
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    write!(out, "{hours:02}:{minutes:02}:{:02} ", seconds % 60)?;
    match (out.has_ansi_escapes(), color(level)) {
        (true, Some(color)) => write!(out, "\x1b[{color}m{level:<5}\x1b[0m ")?,
        _ => write!(out, "{level:<5} ")?,
    }
    let mut fields_out = Fields { out: out.by_ref(), result: Ok(()), first: true };
    fields.record(&mut fields_out);
    fields_out.result?;
    writeln!(out)
}

fn color(level: Level) -> Option<u8> {
    match level {
        Level::ERROR => Some(31),
        Level::WARN => Some(33),
        Level::INFO => None,
        _ => Some(2),
    }
}

struct Fields<'w> {
    out: Writer<'w>,
    result: fmt::Result,
    first: bool,
}

impl Fields<'_> {
    fn write(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if self.result.is_err() {
            return;
        }
        let gap = if self.first { "" } else { " " };
        self.first = false;
        // A line break inside a value must not make a second line, nor an escape sequence reach a terminal.
        let mut out = Printable(&mut self.out);
        self.result = match name {
            "message" => fmt::Write::write_fmt(&mut out, format_args!("{gap}{value}")),
            _ => fmt::Write::write_fmt(&mut out, format_args!("{gap}{name}={value}")),
        };
    }
}

impl tracing::field::Visit for Fields<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        let plain = !value.is_empty() && !value.contains([' ', '"', '=']);
        match field.name() {
            "message" => self.write("message", format_args!("{value}")),
            name if plain => self.write(name, format_args!("{value}")),
            name => self.write(name, format_args!("{value:?}")),
        }
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.write(field.name(), format_args!("{value:?}"));
    }
}

struct Printable<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Printable<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(char::is_control) {
            self.0.write_str(&rest[..at])?;
            let control = rest[at..].chars().next().unwrap_or_default();
            write!(self.0, "{}", control.escape_default())?;
            rest = &rest[at + control.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(directives: &str, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(directives).unwrap())
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Line)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_time_level_message_and_fields() {
        let text = logged("trace", || tracing::info!(port = 8080, path = "/a b", host = "x", "listening"));
        let (time, rest) = text.split_at(9);
        assert!(time.bytes().filter(|b| *b == b':').count() == 2 && time.ends_with(' '), "{time:?}");
        assert_eq!(rest, "INFO  listening port=8080 path=\"/a b\" host=x\n");
    }

    #[test]
    fn a_value_cannot_begin_a_line_of_its_own_or_reach_the_terminal() {
        let text =
            logged("trace", || tracing::warn!(evil = %"a\n12:00:00 INFO  forged\u{1b}[2J", "bad\r\nthing"));
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.contains('\u{1b}') && text.contains("bad\\r\\nthing evil=a\\n12:00:00"), "{text:?}");
    }

    #[test]
    fn a_bare_level_is_ours_and_libraries_start_at_warn() {
        let text = logged("debug", || {
            tracing::debug!(target: "mongodb::pool", "chatter");
            tracing::warn!(target: "mongodb::pool", "trouble");
            tracing::debug!(target: "cloakroom::server", "detail");
            tracing::trace!(target: "cloakroom::server", "finer");
        });
        assert!(!text.contains("chatter") && !text.contains("finer"), "{text}");
        assert!(text.contains("trouble") && text.contains("detail"), "{text}");
    }

    #[test]
    fn what_strangers_send_writes_no_line_through_a_library() {
        for level in ["warn", "info", "debug"] {
            let text = logged(level, || {
                tracing::warn!(target: "h2::proto::streams::recv", "stranger");
                tracing::warn!(target: "hyper::proto::h1", "stranger");
                tracing::warn!(target: "rustls::conn", "stranger");
                tracing::error!(target: "h2::proto", "fault");
                tracing::warn!(target: "mongodb::pool", "trouble");
            });
            assert!(!text.contains("stranger"), "{level}: {text}");
            assert!(text.contains("fault") && text.contains("trouble"), "{level}: {text}");
        }
        let asked = logged("h2=warn", || tracing::warn!(target: "h2::proto", "stranger"));
        assert!(asked.contains("stranger"), "whoever names a library hears it");
    }

    #[test]
    fn a_level_nobody_knows_is_an_error_that_names_the_cure() {
        for text in ["cloakroom=loud", "inof"] {
            let error = filter(text).unwrap_err();
            assert!(error.contains(text) && error.contains("debug"), "{error}");
        }
        assert!(filter("off").is_ok());
    }

    #[test]
    fn format_auto_asks_whether_a_person_reads() {
        assert!(Format::Auto.is_text(true) && !Format::Auto.is_text(false));
        assert!(Format::Text.is_text(false) && !Format::Json.is_text(true));
    }
}
