//! Looking into the data: field paths like `user.id`, for `require`, claims, `fields` and `regenerate_on`.
//!
//! Pure. Tests: below, and `tests/it/routes.rs`.

use super::json::{JsStr, Json, Object};
use std::fmt::Write as _;

/// A path of keys into the session's data, written `user.id`. A step into an array is its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// Parses `user.id`. `None` for an empty path or an empty step.
    pub fn parse(text: &str) -> Option<Self> {
        let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
        (!steps.iter().any(String::is_empty)).then_some(Self(steps))
    }

    /// The keys, outermost first; at least one.
    pub fn steps(&self) -> &[String] {
        &self.0
    }

    /// The value there, if there is one.
    pub fn find<'j>(&self, data: &'j Json) -> Option<&'j Json> {
        self.0.iter().try_fold(data, |value, step| match value {
            Json::Object(object) => object.get(step),
            Json::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Something is there, and it is not `null`.
    pub fn is_present(&self, data: &Json) -> bool {
        self.find(data).is_some_and(|value| !matches!(value, Json::Null))
    }
}

/// What a claim header says: strings as they are, everything else as compact JSON; bytes outside visible ASCII (and `%`) are
/// percent-encoded in strings and `\\u`-escaped in JSON, so that no value can end the header line. `None` for nothing and `null`.
pub fn claim_value(path: &FieldPath, data: &Json) -> Option<String> {
    match path.find(data)? {
        Json::Null => None,
        Json::String(text) => {
            let text = text.to_plain();
            let encoded = percent_encode(text.trim(), |byte| (b' '..=b'~').contains(&byte) && byte != b'%');
            // Blanks at the ends would get lost on the way.
            let (lead, tail) = (text.len() - text.trim_start().len(), text.len() - text.trim_end().len());
            let blank = |part: &str| percent_encode(part, |_| false);
            Some(if text.trim().is_empty() {
                blank(&text)
            } else {
                format!("{}{encoded}{}", blank(&text[..lead]), blank(&text[text.len() - tail..]))
            })
        }
        other => {
            let mut out = Vec::new();
            super::json::compact_ascii(&other.to_text(), &mut out);
            String::from_utf8(out).ok()
        }
    }
}

/// The data reduced to these fields; what is not there stays away. An element of an array is not a field of its own: the path ends
/// at the array.
pub fn project(fields: &[FieldPath], data: &Json) -> Json {
    let mut result = Object::new();
    for path in fields {
        if let (Json::Object(source), Some((first, rest))) = (data, path.0.split_first()) {
            copy_path(source, first, rest, &mut result);
        }
    }
    Json::Object(result)
}

fn copy_path(source: &Object, first: &str, rest: &[String], target: &mut Object) {
    let Some(value) = source.get(first) else { return };
    let key = JsStr::from_plain(first);
    let (Json::Object(inner), Some((next, rest))) = (value, rest.split_first()) else {
        if rest.is_empty() || matches!(value, Json::Array(_)) {
            target.insert(key, value.clone());
        }
        return;
    };
    let mut branch = match target.remove(first) {
        Some(Json::Object(branch)) => branch,
        _ => Object::new(),
    };
    copy_path(inner, next, rest, &mut branch);
    if !branch.is_empty() {
        target.insert(key, Json::Object(branch));
    }
}

/// Text with every byte that `keep` refuses as `%XX`.
pub fn percent_encode(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if keep(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// As JavaScript's `encodeURIComponent` keeps them.
pub fn is_uri_component_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text, 20).unwrap()
    }

    fn path(text: &str) -> FieldPath {
        FieldPath::parse(text).unwrap()
    }

    #[test]
    fn paths_find_fields() {
        let data = json(r#"{"user":{"id":7,"name":"Zo\u00eb 100%\r\nX: y","none":null},"cart":[{"id":1}]}"#);
        assert!(path("user.id").is_present(&data));
        assert!(path("cart.0.id").is_present(&data));
        for absent in ["user.none", "user.id.x", "cart.1", "cart.x", "nobody"] {
            assert!(!path(absent).is_present(&data), "{absent}");
        }
        for bad in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(FieldPath::parse(bad), None);
        }
        assert_eq!(claim_value(&path("user.id"), &data).as_deref(), Some("7"));
        assert_eq!(claim_value(&path("user.name"), &data).as_deref(), Some("Zo%C3%AB 100%25%0D%0AX: y"));
        let blanks = json(r#"{"a":"  x y\t","b":" "}"#);
        assert_eq!(claim_value(&path("a"), &blanks).as_deref(), Some("%20%20x y%09"));
        assert_eq!(claim_value(&path("b"), &blanks).as_deref(), Some("%20"));
        assert_eq!(claim_value(&path("cart"), &data).as_deref(), Some(r#"[{"id":1}]"#));
        assert_eq!(claim_value(&path("user.none"), &data), None);
    }

    #[test]
    fn projections_keep_only_what_was_asked_for() {
        let data = json(r#"{"user":{"id":7,"mail":"x","deep":{"a":1,"b":2}},"cart":[1],"n":1}"#);
        let fields = [path("user.id"), path("cart.0"), path("user.deep.b"), path("nobody.x"), path("n.x")];
        assert_eq!(project(&fields, &data).to_text(), r#"{"cart":[1],"user":{"id":7,"deep":{"b":2}}}"#);
    }
}
