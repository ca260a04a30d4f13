//! The two containers: objects in JavaScript's order of keys, and arrays; both drop without recursion.

use super::Json;
use super::string::{JsStr, escape};
use indexmap::IndexMap;
use std::ops::{Deref, DerefMut};

/// A JSON object. Array indices (`"0"` to `"4294967294"`) come first and ascend, all other keys follow as they were inserted;
/// `__proto__` is a key like any other. Equality does not count the order.
#[derive(Default, Clone, PartialEq, Debug)]
pub struct Object(Box<IndexMap<JsStr, Json>>);

impl Object {
    /// An empty object.
    pub fn new() -> Self {
        Self::default()
    }

    /// Restores the order of keys after the map was filled in another one.
    pub(super) fn from_map(map: IndexMap<JsStr, Json>) -> Self {
        let mut object = Self(Box::new(map));
        object.restore_order();
        object
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is `{}`.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key given as plain text.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(&*escape(key))
    }

    /// The value of a key.
    pub fn get_js(&self, key: &JsStr) -> Option<&Json> {
        self.0.get(key)
    }

    /// Sets a key: a known one keeps its place, a new one comes where JavaScript has it. Linear for a new array index; many
    /// keys at once are for [`Object::extend`].
    pub fn insert(&mut self, key: JsStr, value: Json) -> Option<Json> {
        let new_index = key.index().filter(|_| !self.0.contains_key(&key));
        let Some(index) = new_index else { return self.0.insert(key, value) };
        let place = self.0.partition_point(|known, _| known.index().is_some_and(|known| known < index));
        self.0.shift_insert(place, key, value)
    }

    /// Removes a key given as plain text, keeping the order of the others. Linear; many at once are for [`Object::retain`].
    pub fn remove(&mut self, key: &str) -> Option<Json> {
        self.0.shift_remove(&*escape(key))
    }

    /// Keeps the members for which `keep` says so; linear.
    pub fn retain(&mut self, keep: impl FnMut(&JsStr, &mut Json) -> bool) {
        self.0.retain(keep);
    }

    /// The members in JavaScript's order.
    pub fn iter(&self) -> indexmap::map::Iter<'_, JsStr, Json> {
        self.0.iter()
    }

    /// The members in JavaScript's order, their values changeable.
    pub fn iter_mut(&mut self) -> indexmap::map::IterMut<'_, JsStr, Json> {
        self.0.iter_mut()
    }

    /// The value of a key, which keeps its place with `null` in it.
    pub fn take(&mut self, key: &JsStr) -> Option<Json> {
        self.0.get_mut(key).map(|value| std::mem::replace(value, Json::Null))
    }

    fn restore_order(&mut self) {
        if self.0.keys().any(|key| key.index().is_some()) {
            // Stable, so the other keys keep their order.
            self.0.sort_by_key(|key, _| key.index().map_or(u64::MAX, u64::from));
        }
    }
}

/// Sets many keys in the order given; n log n.
impl Extend<(JsStr, Json)> for Object {
    fn extend<I: IntoIterator<Item = (JsStr, Json)>>(&mut self, members: I) {
        self.0.extend(members);
        self.restore_order();
    }
}

impl FromIterator<(JsStr, Json)> for Object {
    fn from_iter<I: IntoIterator<Item = (JsStr, Json)>>(members: I) -> Self {
        let mut object = Self::new();
        object.extend(members);
        object
    }
}

impl<'a> IntoIterator for &'a Object {
    type Item = (&'a JsStr, &'a Json);
    type IntoIter = indexmap::map::Iter<'a, JsStr, Json>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Object {
    type Item = (JsStr, Json);
    type IntoIter = indexmap::map::IntoIter<JsStr, Json>;

    fn into_iter(mut self) -> Self::IntoIter {
        std::mem::take(&mut *self.0).into_iter()
    }
}

/// A JSON array: a `Vec` that drops deep nesting without recursion.
#[derive(Default, Clone, PartialEq, Debug)]
pub struct Array(Vec<Json>);

impl From<Vec<Json>> for Array {
    fn from(values: Vec<Json>) -> Self {
        Self(values)
    }
}

impl Deref for Array {
    type Target = Vec<Json>;

    fn deref(&self) -> &Vec<Json> {
        &self.0
    }
}

impl DerefMut for Array {
    fn deref_mut(&mut self) -> &mut Vec<Json> {
        &mut self.0
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if self.0.values().any(is_nested) {
            bury(self.0.drain(..).map(|(_, value)| value).filter(is_nested).collect());
        }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        if self.0.iter().any(is_nested) {
            bury(self.0.drain(..).filter(is_nested).collect());
        }
    }
}

fn is_nested(value: &Json) -> bool {
    match value {
        Json::Array(array) => !array.is_empty(),
        Json::Object(object) => !object.is_empty(),
        _ => false,
    }
}

/// Takes containers apart one level at a time; each is empty when its own `drop` runs.
fn bury(mut nested: Vec<Json>) {
    while let Some(value) = nested.pop() {
        match value {
            Json::Array(mut array) => nested.extend(array.0.drain(..).filter(is_nested)),
            Json::Object(mut object) => {
                nested.extend(object.0.drain(..).map(|(_, value)| value).filter(is_nested))
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Json {
        Json::parse(text, 10).unwrap()
    }

    #[test]
    fn keys_stand_where_javascript_has_them() {
        for (source, text) in [
            (r#"{"b":1,"2":1,"a":1,"10":1,"1":1}"#, r#"{"1":1,"2":1,"10":1,"b":1,"a":1}"#),
            (r#"{"b":1,"a":2,"b":3}"#, r#"{"b":3,"a":2}"#),
            (
                r#"{"01":1,"-1":2,"4294967295":3,"4294967294":4}"#,
                r#"{"4294967294":4,"01":1,"-1":2,"4294967295":3}"#,
            ),
            (r#"{"a":1,"__proto__":2,"\u0061":3}"#, r#"{"a":3,"__proto__":2}"#),
        ] {
            assert_eq!(object(source).to_text(), text, "{source}");
        }
    }

    #[test]
    fn one_insertion_keeps_the_order() {
        let mut json = object(r#"{"x":0,"5":0}"#);
        for key in ["7", "y", "1", "5", "x", "6"] {
            json.as_object_mut().unwrap().insert(JsStr::from_plain(key), Json::Bool(true));
        }
        assert_eq!(json.to_text(), r#"{"1":true,"5":true,"6":true,"7":true,"x":true,"y":true}"#);
        assert_eq!(json.as_object_mut().unwrap().remove("6"), Some(Json::Bool(true)));
        assert_eq!(json.to_text(), r#"{"1":true,"5":true,"7":true,"x":true,"y":true}"#);
    }

    #[test]
    fn keys_are_found_by_their_plain_text() {
        let json = object(r#"{"a\"\u00e9\n":1}"#);
        assert!(json.as_object().unwrap().get("a\"é\n").is_some());
        assert!(json.as_object().unwrap().get(r#"a\"é\n"#).is_none());
    }
}
