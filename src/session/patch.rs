//! JSON merge patch (RFC 7396) on trees.
//!
//! Linear in the size of both documents, whatever a hostile patch looks like, and without recursion.
//! Must not know: what the documents mean. Tests: below, the RFC's appendix among them.

use super::json::{Json, Object};

/// Merges `patch` into `target`: members that are `null` remove, objects merge, everything else replaces.
/// New keys come after the known ones, in the patch's order (array indices where JavaScript has them).
pub fn apply(target: &mut Json, patch: Json) {
    let mut work = vec![(target, patch)];
    while let Some((target, patch)) = work.pop() {
        let Json::Object(patch) = patch else {
            *target = patch;
            continue;
        };
        if !matches!(target, Json::Object(_)) {
            *target = Json::Object(Object::new());
        }
        if let Json::Object(target) = target {
            apply_members(target, patch, &mut work);
        }
    }
}

/// Merges one level and leaves what is nested to the caller.
fn apply_members<'a>(target: &'a mut Object, mut patch: Object, work: &mut Vec<(&'a mut Json, Json)>) {
    // Removing keys one by one would be quadratic, so one pass removes them all.
    if patch.iter().any(|(_, value)| matches!(value, Json::Null)) {
        target.retain(|key, _| !matches!(patch.get_js(key), Some(Json::Null)));
        patch.retain(|_, value| !matches!(value, Json::Null));
    }
    // New keys take their places, then the values go where they belong.
    let new: Vec<_> =
        patch.iter().filter(|(key, _)| target.get_js(key).is_none()).map(|(key, _)| key.clone()).collect();
    target.extend(new.into_iter().map(|key| (key, Json::Null)));
    let changes = target.iter_mut().filter_map(|(key, value)| Some((value, patch.take(key)?)));
    work.extend(changes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;

    fn merged(target: &str, patch: &str) -> String {
        let mut target = Json::parse(target, 64).unwrap();
        apply(&mut target, Json::parse(patch, 64).unwrap());
        target.to_text()
    }

    #[test]
    fn the_appendix_of_rfc_7396() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merged(target, patch), result, "{target} + {patch}");
        }
    }

    #[test]
    fn keys_keep_javascript_order() {
        assert_eq!(
            merged(r#"{"b":1,"a":{"x":1}}"#, r#"{"c":{"k":1},"a":{"y":2},"d":1,"b":2}"#),
            r#"{"b":2,"a":{"x":1,"y":2},"c":{"k":1},"d":1}"#
        );
        assert_eq!(
            merged(r#"{"z":1,"5":1}"#, r#"{"3":{},"y":1,"7":0}"#),
            r#"{"3":{},"5":1,"7":0,"z":1,"y":1}"#
        );
        assert_eq!(merged(r#"{"a":null}"#, r#"{"a":{"b":[null]}}"#), r#"{"a":{"b":[null]}}"#);
    }

    /// Linear work takes seconds here even without optimisation, quadratic work many minutes.
    #[test]
    fn hostile_sizes_stay_linear() {
        let begin = std::time::Instant::now();
        let object = |value: &dyn Fn(usize) -> String| {
            let mut text = String::from("{");
            for n in (0..50_000).rev() {
                let _ = write!(text, "\"{n}\":{},\"k{n}\":{},", value(n), value(n));
            }
            text + "\"end\":1}"
        };
        let full = object(&|_| "{\"a\":1}".to_owned());
        assert_eq!(merged(&full, &object(&|_| "null".to_owned())), r#"{"end":1}"#);
        assert_eq!(merged("{}", &full), Json::parse(&full, 64).unwrap().to_text());
        assert!(merged(&full, &object(&|_| "{\"a\":null}".to_owned())).starts_with(r#"{"0":{},"1":{},"#));
        let deep = format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64));
        assert_eq!(merged(&deep, &deep), deep);
        assert!(begin.elapsed().as_secs() < 60);
    }

    /// The RFC's own pseudo code.
    fn merge_of_the_rfc(target: serde_json::Value, patch: &serde_json::Value) -> serde_json::Value {
        let serde_json::Value::Object(patch) = patch else { return patch.clone() };
        let mut target = match target {
            serde_json::Value::Object(map) => map,
            _ => serde_json::Map::new(),
        };
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                let old = target.remove(key).unwrap_or_default();
                target.insert(key.clone(), merge_of_the_rfc(old, value));
            }
        }
        serde_json::Value::Object(target)
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            (0..3_i32).prop_map(Into::into),
            Just(serde_json::json!([null, {"a": null}])),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop::collection::hash_map("[ab12]", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn the_result_is_that_of_the_rfc(target in any_json(), patch in any_json()) {
            let expected = merge_of_the_rfc(target.clone(), &patch);
            let ours = merged(&target.to_string(), &patch.to_string());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&ours).unwrap(), expected);
            prop_assert_eq!(merged(&ours, &patch.to_string()), ours, "a patch applied twice changes nothing more");
        }
    }
}
