//! What the app says, on the wire: `X-Session-Update` and `X-Session-Control` to an [`Update`] (contract §3).
//!
//! The app's headers are hostile input: sizes, depth, duplicates and contradictions all have an answer, and it is never a panic.
//! Taking the headers off the response is the caller's; so is what an invalid update costs.

use super::Millis;
use super::json::{Json, JsonErrorKind, Object};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;
use std::fmt;

/// The deepest nesting of an update; `{}` is 1.
pub const MAX_UPDATE_DEPTH: usize = super::json::UPDATE_DEPTH;
/// The largest `max-age`, in seconds: 400 days, where browsers cap a cookie's age (RFC 6265bis).
pub const MAX_AGE_SECONDS: Millis = 34_560_000;

const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(false),
);

/// Names that express-session's `Session` object has already: it would drop or shadow data of these names.
const NAMES_EXPRESS_CANNOT_HOLD: [&str; 20] = [
    "id",
    "req",
    "touch",
    "resetMaxAge",
    "save",
    "reload",
    "destroy",
    "regenerate",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
    "__proto__",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
];

/// What one response asks for, checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Update {
    /// What happens to the data.
    pub change: Change,
    /// `destroy`
    pub destroy: bool,
    /// `regenerate`
    pub regenerate: bool,
    /// `save`; also implied by `max-age`
    pub save: bool,
    /// `max-age`
    pub max_age: Option<MaxAge>,
}

/// What happens to the data.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Change {
    /// Nothing.
    #[default]
    Keep,
    /// RFC 7396 merge patch.
    Merge(Object),
    /// The object becomes the data.
    Replace(Object),
    /// `X-Session-Update: null`: express-session's `req.session = null`, decided by `unset`.
    Null,
}

/// `max-age`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxAge {
    /// So many milliseconds.
    Millis(Millis),
    /// A browser-session cookie.
    Session,
}

/// Why an update is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// Several `X-Session-Update` headers.
    SeveralUpdates,
    /// Larger than `limits.session`.
    TooLarge,
    /// Neither JSON nor base64url of JSON.
    Encoding,
    /// The JSON is broken, at this byte.
    Json(usize),
    /// Deeper than [`MAX_UPDATE_DEPTH`].
    TooDeep,
    /// JSON, but no object.
    NotAnObject,
    /// A top-level key that belongs to express-session or to the store.
    ReservedKey(&'static str),
    /// A word that is no directive.
    UnknownDirective(String),
    /// `max-age` without, or with an impossible, number.
    MaxAge,
    /// Two `max-age`.
    TwoMaxAges,
    /// `merge` with `replace`.
    MergeAndReplace,
    /// `replace` without an update.
    ReplaceWithoutUpdate,
    /// `destroy` with another directive or an update.
    DestroyWithOthers,
    /// `null` with a directive.
    NullWithDirective,
    /// A trailer cannot set a cookie: no `regenerate`, `max-age`, or first save of a session there.
    NeedsCookie,
    /// The data would become larger than `limits.session`.
    DataTooLarge,
    /// The store's format cannot hold it: a key with a NUL in a BSON document, nesting beyond MongoDB's.
    Unstorable,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeveralUpdates => f.write_str("several X-Session-Update headers in one response"),
            Self::TooLarge => f.write_str("the update is larger than limits.session"),
            Self::Encoding => f.write_str(
                "the update is neither UTF-8 JSON (it begins with `{`, or is `null`) nor base64url of it; write text outside ASCII as \\uXXXX or send base64url",
            ),
            Self::Json(at) => write!(f, "the update is no valid JSON (byte {at})"),
            Self::TooDeep => write!(f, "the update is nested deeper than {MAX_UPDATE_DEPTH}"),
            Self::NotAnObject => f.write_str("the update is no JSON object"),
            Self::ReservedKey(key) => write!(f, "the update names the reserved key `{key}`"),
            Self::UnknownDirective(word) => write!(f, "unknown directive `{word}` in X-Session-Control"),
            Self::MaxAge => {
                write!(f, "max-age must be `session` or whole seconds from 1 to {MAX_AGE_SECONDS}")
            }
            Self::TwoMaxAges => f.write_str("two max-age directives"),
            Self::MergeAndReplace => f.write_str("merge and replace in one response"),
            Self::ReplaceWithoutUpdate => f.write_str("replace without X-Session-Update"),
            Self::DestroyWithOthers => f.write_str("destroy together with another directive or an update"),
            Self::NullWithDirective => f.write_str("X-Session-Update: null together with a directive"),
            Self::NeedsCookie => {
                f.write_str("a trailer cannot set a cookie (regenerate, max-age, first save of a session)")
            }
            Self::DataTooLarge => f.write_str("the session would become larger than limits.session"),
            Self::Unstorable => f.write_str("the store's format cannot hold a key or the depth of this session"),
        }
    }
}

/// The rules that a value is held against.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// `limits.session`, bytes: of the value as sent, and of the JSON.
    pub max_bytes: usize,
    /// Top-level keys that belong to the store.
    pub store_keys: &'a [&'static str],
}

/// Reads the update of one response from the values of its Update and Control headers. `Ok(None)`: it has neither.
///
/// # Errors
/// [`Invalid`] for everything contract §3 calls invalid.
pub fn parse_update<'v>(
    updates: impl IntoIterator<Item = &'v [u8]>,
    controls: impl IntoIterator<Item = &'v [u8]>,
    limits: Limits<'_>,
) -> Result<Option<Update>, Invalid> {
    let mut directives = Directives::default();
    let mut any = false;
    for line in controls {
        any = true;
        directives.read_line(line)?;
    }
    let mut updates = updates.into_iter();
    let value = updates.next();
    if updates.next().is_some() {
        return Err(Invalid::SeveralUpdates);
    }
    let Some(value) = value else {
        return if any { directives.without_update().map(Some) } else { Ok(None) };
    };
    let value = value.trim_ascii();
    if value.len() > limits.max_bytes.saturating_mul(4) / 3 + 4 {
        return Err(Invalid::TooLarge);
    }
    let text = decode(value)?;
    if text.len() > limits.max_bytes {
        return Err(Invalid::TooLarge);
    }
    if text == "null" && value == b"null" {
        return directives.with_null().map(Some);
    }
    let object = parse_object(&text)?;
    for &key in ["cookie"].iter().chain(limits.store_keys) {
        if object.get(key).is_some() {
            return Err(Invalid::ReservedKey(key));
        }
    }
    directives.with_object(object).map(Some)
}

/// The first top-level key of an update that express-session could not hold, to be warned about once.
pub fn name_express_cannot_hold(update: &Update) -> Option<&'static str> {
    let (Change::Merge(object) | Change::Replace(object)) = &update.change else { return None };
    NAMES_EXPRESS_CANNOT_HOLD.into_iter().find(|name| object.get(name).is_some())
}

fn decode(value: &[u8]) -> Result<Cow<'_, str>, Invalid> {
    if value.first() == Some(&b'{') || value == b"null" {
        return std::str::from_utf8(value).map(Cow::Borrowed).map_err(|_| Invalid::Encoding);
    }
    let bytes = BASE64URL.decode(value).map_err(|_| Invalid::Encoding)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Invalid::Encoding)
}

fn parse_object(text: &str) -> Result<Object, Invalid> {
    match Json::parse(text, MAX_UPDATE_DEPTH) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err(Invalid::NotAnObject),
        Err(error) if error.kind == JsonErrorKind::TooDeep => Err(Invalid::TooDeep),
        Err(error) => Err(Invalid::Json(error.at)),
    }
}

/// The directives of all Control lines together.
#[derive(Default)]
struct Directives {
    merge: bool,
    replace: bool,
    destroy: bool,
    regenerate: bool,
    save: bool,
    max_age: Option<MaxAge>,
}

impl Directives {
    fn read_line(&mut self, line: &[u8]) -> Result<(), Invalid> {
        for word in line.split(|&byte| byte == b',') {
            let word = word.trim_ascii();
            if word.is_empty() {
                continue;
            }
            let word = String::from_utf8_lossy(word).to_ascii_lowercase();
            match word.as_str() {
                "merge" => self.merge = true,
                "replace" => self.replace = true,
                "destroy" => self.destroy = true,
                "regenerate" => self.regenerate = true,
                "save" => self.save = true,
                word => self.read_max_age(word)?,
            }
        }
        Ok(())
    }

    fn read_max_age(&mut self, word: &str) -> Result<(), Invalid> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if name.trim_end() != "max-age" {
            let shown: String = word.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
            return Err(Invalid::UnknownDirective(shown));
        }
        let value = value.trim_start();
        let age = if value == "session" {
            MaxAge::Session
        } else if !value.is_empty() && value.len() <= 8 && value.bytes().all(|b| b.is_ascii_digit()) {
            let seconds: Millis = value.parse().map_err(|_| Invalid::MaxAge)?;
            if !(1..=MAX_AGE_SECONDS).contains(&seconds) {
                return Err(Invalid::MaxAge);
            }
            MaxAge::Millis(seconds * 1000)
        } else {
            return Err(Invalid::MaxAge);
        };
        if self.max_age.replace(age).is_some() {
            return Err(Invalid::TwoMaxAges);
        }
        Ok(())
    }

    fn any_but_destroy(&self) -> bool {
        self.merge || self.replace || self.regenerate || self.save || self.max_age.is_some()
    }

    fn without_update(self) -> Result<Update, Invalid> {
        if self.merge && self.replace {
            return Err(Invalid::MergeAndReplace);
        }
        if self.destroy && self.any_but_destroy() {
            return Err(Invalid::DestroyWithOthers);
        }
        if self.replace {
            return Err(Invalid::ReplaceWithoutUpdate);
        }
        Ok(self.into_update(Change::Keep))
    }

    fn with_null(self) -> Result<Update, Invalid> {
        if self.destroy || self.any_but_destroy() {
            return Err(Invalid::NullWithDirective);
        }
        Ok(self.into_update(Change::Null))
    }

    fn with_object(self, object: Object) -> Result<Update, Invalid> {
        if self.destroy {
            return Err(Invalid::DestroyWithOthers);
        }
        if self.merge && self.replace {
            return Err(Invalid::MergeAndReplace);
        }
        let change = if self.replace { Change::Replace(object) } else { Change::Merge(object) };
        Ok(self.into_update(change))
    }

    fn into_update(self, change: Change) -> Update {
        Update {
            change,
            destroy: self.destroy,
            regenerate: self.regenerate,
            save: self.save || self.max_age.is_some(),
            max_age: self.max_age,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(update: &[&str], control: &[&str]) -> Result<Option<Update>, Invalid> {
        let limits = Limits { max_bytes: 200, store_keys: &["lastModified"] };
        parse_update(update.iter().map(|v| v.as_bytes()), control.iter().map(|v| v.as_bytes()), limits)
    }

    fn object(text: &str) -> Object {
        match Json::parse(text, 64) {
            Ok(Json::Object(object)) => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_said() {
        assert_eq!(parse(&[], &[]), Ok(None));
        assert_eq!(parse(&[], &[" , "]), Ok(Some(Update::default())));
    }

    #[test]
    fn updates_in_both_encodings() {
        let merge = Update { change: Change::Merge(object(r#"{"a":1}"#)), ..Update::default() };
        for value in [r#"{"a":1}"#, r#" {"a": 1} "#, "eyJhIjoxfQ", "eyJhIjoxfQ=="] {
            assert_eq!(parse(&[value], &[]).as_ref(), Ok(&Some(merge.clone())), "{value}");
            assert_eq!(parse(&[value], &["MERGE"]).as_ref(), Ok(&Some(merge.clone())), "{value}");
        }
        let replaced = parse(&["{}"], &["Replace , SAVE", "max-age = 60"]).unwrap().unwrap();
        assert_eq!(replaced.change, Change::Replace(object("{}")));
        assert!(replaced.save);
        assert_eq!(replaced.max_age, Some(MaxAge::Millis(60_000)));
        assert_eq!(parse(&["null"], &[]).unwrap().unwrap().change, Change::Null);
        assert_eq!(parse(&[], &["max-age=session"]).unwrap().unwrap().max_age, Some(MaxAge::Session));
        assert!(parse(&[], &["destroy"]).unwrap().unwrap().destroy);
    }

    #[test]
    fn every_kind_of_invalid_update() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(64), "}".repeat(64));
        assert!(parse_update([deep.as_bytes()], [], Limits { max_bytes: 1000, store_keys: &[] }).is_ok());
        let deeper = format!(r#"{{"a":{deep}}}"#);
        assert_eq!(
            parse_update([deeper.as_bytes()], [], Limits { max_bytes: 1000, store_keys: &[] }),
            Err(Invalid::TooDeep)
        );
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(200));
        let large64 = BASE64URL.encode(&large);
        let cases: &[(&[&str], &[&str], Invalid)] = &[
            (&["{}", "{}"], &[], Invalid::SeveralUpdates),
            (&[&large], &[], Invalid::TooLarge),
            (&[&large64], &[], Invalid::TooLarge),
            (&["{\"a\":}"], &[], Invalid::Json(5)),
            (&[""], &[], Invalid::Json(0)),
            (&["[1]"], &[], Invalid::Encoding),
            (&["a+/b"], &[], Invalid::Encoding),
            (&["WzFd"], &[], Invalid::NotAnObject),
            (&["bnVsbA"], &[], Invalid::NotAnObject),
            (&["MQ"], &[], Invalid::NotAnObject),
            (&[r#"{"cookie":null}"#], &[], Invalid::ReservedKey("cookie")),
            (&[r#"{"coo\u006bie":null}"#], &[], Invalid::ReservedKey("cookie")),
            (&[r#"{"lastModified":1}"#], &["replace"], Invalid::ReservedKey("lastModified")),
            (&[], &["destry"], Invalid::UnknownDirective("destry".into())),
            (&[], &["max-age"], Invalid::MaxAge),
            (&[], &["max-age=0"], Invalid::MaxAge),
            (&[], &["max-age=-1"], Invalid::MaxAge),
            (&[], &["max-age=+1"], Invalid::MaxAge),
            (&[], &["max-age=1.5"], Invalid::MaxAge),
            (&[], &["max-age=34560001"], Invalid::MaxAge),
            (&[], &["max-age=99999999999999999999"], Invalid::MaxAge),
            (&[], &["max-age=60, max-age=60"], Invalid::TwoMaxAges),
            (&["{}"], &["merge, replace"], Invalid::MergeAndReplace),
            (&[], &["replace"], Invalid::ReplaceWithoutUpdate),
            (&["{}"], &["destroy"], Invalid::DestroyWithOthers),
            (&[], &["destroy", "save"], Invalid::DestroyWithOthers),
            (&["null"], &["save"], Invalid::NullWithDirective),
            (&["null"], &["destroy"], Invalid::NullWithDirective),
        ];
        for (update, control, expected) in cases {
            assert_eq!(parse(update, control).as_ref(), Err(expected), "{update:?} {control:?}");
            assert!(!expected.to_string().is_empty());
        }
    }

    #[test]
    fn nested_keys_of_any_name_are_data() {
        let update = parse(&[r#"{"a":{"cookie":1,"lastModified":2}}"#], &[]).unwrap().unwrap();
        assert_eq!(name_express_cannot_hold(&update), None);
        let update = parse(&[r#"{"id":1}"#], &[]).unwrap().unwrap();
        assert_eq!(name_express_cannot_hold(&update), Some("id"));
    }
}
