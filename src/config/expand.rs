//! `${NAME}`, `${NAME:-default}` and `$${` in string values. The environment is an argument. Tests: below.

/// Why a string could not be expanded. Never holds the value of a variable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The variable is not set and has no default.
    Missing(String),
    /// `${` without a name or without `}`; the text is what stands there.
    Malformed(String),
}

/// Replaces every `${NAME}`; a `$` before anything but `{` (or `${`) stays as it is.
///
/// As in a shell, `:-` gives the default for an empty variable too.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<Refused>> {
    let mut out = String::with_capacity(text.len());
    let mut refused = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some(end) = after.find('}') else {
                refused.push(Refused::Malformed(rest.to_owned()));
                return Err(refused);
            };
            match expand_one(&after[..end], env) {
                Ok(value) => out.push_str(&value),
                Err(why) => refused.push(why),
            }
            rest = &after[end + 1..];
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    if refused.is_empty() { Ok(out) } else { Err(refused) }
}

fn expand_one(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Refused> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !valid {
        return Err(Refused::Malformed(format!("${{{inside}}}")));
    }
    match (env(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Refused::Missing(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("alpha".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn replaces_and_leaves_alone() {
        for (text, expected) in [
            ("plain", "plain"),
            ("${A}", "alpha"),
            ("<${A}-${A}>", "<alpha-alpha>"),
            ("${B:-beta}", "beta"),
            ("${B:-}", ""),
            ("${A:-beta}", "alpha"),
            ("${EMPTY:-beta}", "beta"),
            ("${EMPTY}", ""),
            ("$${A}", "${A}"),
            ("cost $5, $A, $", "cost $5, $A, $"),
            // What a variable holds is data, never expanded again.
            ("${NESTED}", "${A}"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_refusal_is_reported() {
        assert_eq!(
            expand("${B} ${A} ${C}", &env),
            Err(vec![Refused::Missing("B".to_owned()), Refused::Missing("C".to_owned())])
        );
        for text in ["${A", "${}", "${:-x}", "${1A}", "${A B}", "${A-x}"] {
            assert!(matches!(expand(text, &env).unwrap_err()[..], [Refused::Malformed(_)]), "{text}");
        }
    }
}
