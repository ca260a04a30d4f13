//! Text to tree, tree to text, and the walks over trees (clone, equality), none of them recursive.

use super::lex::{JsonError, Sink, walk};
use super::{Array, JsStr, Json, Number, Object};
use indexmap::IndexMap;
use std::fmt;
use std::ops::Range;

pub(super) fn parse(text: &str, max_depth: usize) -> Result<Json, JsonError> {
    let mut parser = Parser { text, builder: Builder::default() };
    walk(text, max_depth, &mut parser)?;
    Ok(parser.builder.done)
}

pub(super) fn render(value: &Json, out: &mut String) {
    let mut comma = false;
    for event in Events::of(value) {
        if comma && !matches!(event, Event::CloseObject | Event::CloseArray) {
            out.push(',');
        }
        comma = !matches!(event, Event::OpenObject | Event::OpenArray | Event::Key(_));
        match event {
            Event::OpenObject => out.push('{'),
            Event::OpenArray => out.push('['),
            Event::CloseObject => out.push('}'),
            Event::CloseArray => out.push(']'),
            Event::Key(key) => {
                push_quoted(key, out);
                out.push(':');
            }
            Event::Scalar(Json::String(string)) => push_quoted(string, out),
            Event::Scalar(Json::Number(number)) => out.push_str(number.as_text()),
            Event::Scalar(Json::Bool(true)) => out.push_str("true"),
            Event::Scalar(Json::Bool(false)) => out.push_str("false"),
            Event::Scalar(_) => out.push_str("null"),
        }
    }
}

fn push_quoted(string: &JsStr, out: &mut String) {
    out.push('"');
    out.push_str(string.as_escaped());
    out.push('"');
}

impl Clone for Json {
    fn clone(&self) -> Self {
        let mut builder = Builder::default();
        for event in Events::of(self) {
            match event {
                Event::OpenObject => builder.open(true),
                Event::OpenArray => builder.open(false),
                Event::CloseObject | Event::CloseArray => builder.close(),
                Event::Key(key) => builder.key(key.clone()),
                Event::Scalar(Self::String(string)) => builder.value(Self::String(string.clone())),
                Event::Scalar(Self::Number(number)) => builder.value(Self::Number(number.clone())),
                Event::Scalar(Self::Bool(value)) => builder.value(Self::Bool(*value)),
                Event::Scalar(_) => builder.value(Self::Null),
            }
        }
        builder.done
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        let mut pairs = vec![(self, other)];
        while let Some(pair) = pairs.pop() {
            let same = match pair {
                (Self::Null, Self::Null) => true,
                (Self::Bool(a), Self::Bool(b)) => a == b,
                (Self::Number(a), Self::Number(b)) => a == b,
                (Self::String(a), Self::String(b)) => a == b,
                (Self::Array(a), Self::Array(b)) => {
                    pairs.extend(a.iter().zip(b.iter()));
                    a.len() == b.len()
                }
                (Self::Object(a), Self::Object(b)) => {
                    let before = pairs.len();
                    pairs.extend(a.iter().filter_map(|(key, value)| Some((value, b.get_js(key)?))));
                    a.len() == b.len() && pairs.len() - before == a.len()
                }
                _ => false,
            };
            if !same {
                return false;
            }
        }
        true
    }
}

/// The JSON text.
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// What one meets on the way through a tree.
enum Event<'a> {
    OpenObject,
    OpenArray,
    CloseObject,
    CloseArray,
    Key(&'a JsStr),
    Scalar(&'a Json),
}

enum Frame<'a> {
    Object(indexmap::map::Iter<'a, JsStr, Json>),
    Array(std::slice::Iter<'a, Json>),
}

struct Events<'a> {
    /// The value that comes next, if it is known.
    next: Option<&'a Json>,
    open: Vec<Frame<'a>>,
}

impl<'a> Events<'a> {
    fn of(value: &'a Json) -> Self {
        Self { next: Some(value), open: Vec::new() }
    }

    fn enter(&mut self, value: &'a Json) -> Event<'a> {
        match value {
            Json::Object(object) => {
                self.open.push(Frame::Object(object.iter()));
                Event::OpenObject
            }
            Json::Array(array) => {
                self.open.push(Frame::Array(array.iter()));
                Event::OpenArray
            }
            scalar => Event::Scalar(scalar),
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        if let Some(value) = self.next.take() {
            return Some(self.enter(value));
        }
        match self.open.last_mut()? {
            Frame::Object(members) => {
                if let Some((key, value)) = members.next() {
                    self.next = Some(value);
                    return Some(Event::Key(key));
                }
                self.open.pop();
                Some(Event::CloseObject)
            }
            Frame::Array(values) => {
                if let Some(value) = values.next() {
                    return Some(self.enter(value));
                }
                self.open.pop();
                Some(Event::CloseArray)
            }
        }
    }
}

/// Puts a tree together from its events.
struct Builder {
    open: Vec<Open>,
    done: Json,
}

impl Default for Builder {
    fn default() -> Self {
        Self { open: Vec::new(), done: Json::Null }
    }
}

enum Open {
    Object { map: IndexMap<JsStr, Json>, key: Option<JsStr> },
    Array(Vec<Json>),
}

impl Builder {
    fn open(&mut self, object: bool) {
        self.open.push(if object {
            Open::Object { map: IndexMap::new(), key: None }
        } else {
            Open::Array(Vec::new())
        });
    }

    fn key(&mut self, new: JsStr) {
        if let Some(Open::Object { key, .. }) = self.open.last_mut() {
            *key = Some(new);
        }
    }

    fn value(&mut self, value: Json) {
        match self.open.last_mut() {
            None => self.done = value,
            Some(Open::Array(values)) => values.push(value),
            Some(Open::Object { map, key }) => {
                if let Some(key) = key.take() {
                    // A duplicate replaces the value and keeps the place.
                    map.insert(key, value);
                }
            }
        }
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some(Open::Object { map, .. }) => self.value(Json::Object(Object::from_map(map))),
            Some(Open::Array(values)) => self.value(Json::Array(Array::from(values))),
            None => {}
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    builder: Builder,
}

impl Sink for Parser<'_> {
    fn open(&mut self, object: bool, _at: usize) {
        self.builder.open(object);
    }

    fn close(&mut self, _end: usize) {
        self.builder.close();
    }

    fn key(&mut self, raw: Range<usize>) {
        self.builder.key(JsStr::from_raw(&self.text[raw]));
    }

    fn string(&mut self, raw: Range<usize>) {
        self.builder.value(Json::String(JsStr::from_raw(&self.text[raw])));
    }

    fn number(&mut self, raw: Range<usize>) {
        self.builder.value(Json::Number(Number::from_source(&self.text[raw])));
    }

    fn literal(&mut self, value: Option<bool>, _end: usize) {
        self.builder.value(value.map_or(Json::Null, Json::Bool));
    }
}

#[cfg(test)]
mod tests {
    use super::super::JsonErrorKind::{self, End, TooDeep, Unexpected};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_grammar_is_that_of_json_parse() {
        let cases: &[(&str, usize, JsonErrorKind)] = &[
            ("", 0, End),
            (" ", 1, End),
            ("{", 1, End),
            ("[1", 2, End),
            ("\"a", 2, End),
            ("tru", 3, End),
            ("-", 1, End),
            ("{\"a\"", 4, End),
            ("{\"a\":", 5, End),
            ("\"\\u12", 5, End),
            ("1.", 2, End),
            ("1e+", 3, End),
            ("\u{feff}{}", 0, Unexpected),
            ("{,}", 1, Unexpected),
            ("[1,]", 3, Unexpected),
            ("{\"a\":1,}", 7, Unexpected),
            ("{a:1}", 1, Unexpected),
            ("{\"a\" 1}", 5, Unexpected),
            ("[1}", 2, Unexpected),
            ("{\"a\":1]", 6, Unexpected),
            ("01", 1, Unexpected),
            ("+1", 0, Unexpected),
            (".5", 0, Unexpected),
            ("1.e5", 2, Unexpected),
            ("0x1", 1, Unexpected),
            ("NaN", 0, Unexpected),
            ("'a'", 0, Unexpected),
            ("\"\\x41\"", 2, Unexpected),
            ("\"\\u12g4\"", 5, Unexpected),
            ("\"a\tb\"", 2, Unexpected),
            ("1 2", 2, Unexpected),
            ("{}{}", 2, Unexpected),
            ("[]]", 2, Unexpected),
            ("\u{a0}1", 0, Unexpected),
            ("//c", 0, Unexpected),
            ("nul1", 3, Unexpected),
            ("[\u{b}]", 1, Unexpected),
            ("[[[]]]", 2, TooDeep),
            ("[{\"a\":{}}]", 6, TooDeep),
        ];
        for (text, at, kind) in cases {
            assert_eq!(Json::parse(text, 2), Err(JsonError { at: *at, kind: *kind }), "{text}");
        }
        for text in ["null", " {\n} ", "\t[ ]\r", "[{}, {}]", "-0.5E-7", "\"\u{7f}\u{2028}\""] {
            assert!(Json::parse(text, 2).is_ok(), "{text}");
        }
        assert!(Json::parse("{}", 0).is_err() && Json::parse("1", 0).is_ok());
    }

    /// Runs in the 2 MB of a test thread; debug frames are the largest there are.
    #[test]
    fn no_depth_overflows_the_stack() {
        for depth in [63, 64, 65, 128, 129, 10_000] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
                let levels = depth / open.matches(['[', '{']).count();
                let text = format!("{}null{}", open.repeat(levels), close.repeat(levels));
                let json = Json::parse(&text, depth).unwrap();
                assert_eq!(json.to_text(), text);
                let copy = json.clone();
                assert!(copy == json && format!("{copy:?}") == text);
                drop(json);
                assert!(Json::parse(&text[..text.len() - 1], depth).is_err());
                let mut wrong = text.clone();
                wrong.replace_range(text.len() - levels.., "x");
                assert!(Json::parse(&wrong, depth).is_err());
            }
        }
        assert!(Json::parse(&"[".repeat(1_000_000), 10_000).is_err());
    }

    #[test]
    fn equality_counts_neither_order_nor_spelling() {
        let eq = |a: &str, b: &str| Json::parse(a, 9).unwrap() == Json::parse(b, 9).unwrap();
        assert!(eq(r#"{"a":1,"b":[1.0,{"x":"\u0061"}]}"#, r#"{"b":[1,{"x":"a"}],"a":1e0}"#));
        for (a, b) in [
            ("1", "true"),
            ("[1]", "[1,1]"),
            ("[1,1]", "[1]"),
            ("{}", "[]"),
            ("null", "false"),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":1}"#),
            (r#"{"a":null}"#, "{}"),
            ("[1,2]", "[2,1]"),
            (r#""1""#, "1"),
        ] {
            assert!(!eq(a, b) && !eq(b, a), "{a} {b}");
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::hash_map("[0-9a-c\\PC]{0,3}", inner, 0..8)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_json_reads_we_read_alike(value in any_json(), pretty in any::<bool>()) {
            let source = if pretty { format!("{value:#}") } else { value.to_string() };
            let ours = Json::parse(&source, 64).unwrap();
            let text = ours.to_text();
            let again: serde_json::Value = serde_json::from_str(&text).unwrap();
            let before: serde_json::Value = serde_json::from_str(&source).unwrap();
            prop_assert!(same(&again, &before), "{} {}", source, text);
            // A text is written the same way twice, and equality survives the trip.
            let twice = Json::parse(&text, 64).unwrap();
            prop_assert_eq!(twice.to_text(), text);
            prop_assert_eq!(twice, ours);
        }

        #[test]
        fn nothing_is_accepted_that_serde_json_refuses(text in r#"[\[\]{}:,"a01.eE+\-\\unltrf \n]{0,12}"#) {
            // serde_json cannot hold numbers beyond f64; the grammar has them.
            let strict = serde_json::from_str::<serde_json::Value>(&text)
                .map_or_else(|error| error.to_string().contains("out of range"), |_| true);
            prop_assert_eq!(Json::parse(&text, 64).is_ok(), strict, "{}", text);
        }
    }

    /// Numbers may change their kind (`1.0` to `1`), not their value.
    fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
        use serde_json::Value::{Array, Number, Object};
        match (a, b) {
            // serde_json reads decimals within a unit in the last place; `tests/it/cookie_table.rs` is exact.
            (Number(a), Number(b)) => a == b || close(a.as_f64(), b.as_f64()),
            (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Object(a), Object(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
            }
            _ => a == b,
        }
    }

    fn close(a: Option<f64>, b: Option<f64>) -> bool {
        matches!((a, b), (Some(a), Some(b)) if (a - b).abs() <= a.abs() * 1e-15)
    }
}
