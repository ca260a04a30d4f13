//! The options of an object: its literal, what is spread into it, and what the snippet assigns to it later.
//! Tests: `tests/it/import.rs`.

use super::expr::{Expr, Shape};
use super::scope::Assignment;
use super::value::{Reading, Value};

/// Nobody has as many options.
const MOST: usize = 1000;

/// One option.
pub(super) struct Field<'s> {
    pub(super) key: String,
    pub(super) expr: &'s Expr,
    /// The snippet sets it under a condition that cannot be told.
    pub(super) uncertain: bool,
    /// Because `NODE_ENV` was taken for "production".
    pub(super) assumed: bool,
    /// Assignments to what is in it.
    inside: Vec<Suffix<'s>>,
}

/// Options not asked for yet.
#[derive(Default)]
pub(super) struct Fields<'s> {
    list: Vec<Field<'s>>,
    /// Spreads and computed keys of which nothing is known.
    pub(super) unread: Vec<&'s Expr>,
}

/// An assignment, and how much of its path was followed.
#[derive(Clone, Copy)]
struct Suffix<'s> {
    assignment: &'s Assignment,
    from: usize,
    uncertain: bool,
    assumed: bool,
}

impl<'s> Fields<'s> {
    /// The field, taken away.
    pub(super) fn take(&mut self, key: &str) -> Option<Field<'s>> {
        let at = self.list.iter().position(|field| field.key == key)?;
        Some(self.list.remove(at))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.list.iter().any(|field| field.key == key)
    }

    /// What nobody asked for, in the order of the source.
    pub(super) fn rest(self) -> Vec<Field<'s>> {
        self.list
    }

    fn set(&mut self, field: Field<'s>) {
        match self.list.iter_mut().find(|own| own.key == field.key) {
            Some(own) => *own = field,
            None => self.list.push(field),
        }
    }
}

impl<'s> Reading<'s> {
    /// The options of an object; `None` when it is none, or none that can be read.
    pub(super) fn fields(&self, expr: &'s Expr) -> Option<Fields<'s>> {
        self.fields_with(expr, Vec::new(), 12)
    }

    /// The options of the object that a name was declared to be.
    pub(super) fn fields_named(&self, name: &str, expr: &'s Expr) -> Option<Fields<'s>> {
        self.fields_with(expr, self.assigned(name), 12)
    }

    /// The options of the object that an option holds.
    pub(super) fn fields_of(&self, field: &Field<'s>) -> Option<Fields<'s>> {
        self.fields_with(field.expr, field.inside.clone(), 12)
    }

    fn fields_with(&self, expr: &'s Expr, mut assigned: Vec<Suffix<'s>>, depth: usize) -> Option<Fields<'s>> {
        let depth = depth.checked_sub(1)?;
        let mut fields = Fields::default();
        let mut expr = expr;
        for _ in 0..8 {
            let Shape::Name(name) = &expr.shape else { break };
            assigned.splice(0..0, self.assigned(name));
            let Some(declared) = self.declared(name, expr.at.start) else { break };
            expr = declared;
        }
        let Value::Other(object) = self.eval(expr) else { return None };
        match &object.shape {
            Shape::Object(properties) if properties.len() > MOST => return None,
            Shape::Object(properties) => {
                for property in properties {
                    match &property.key {
                        Some(key) => fields.set(Field {
                            key: key.clone(),
                            expr: &property.value,
                            uncertain: false,
                            assumed: false,
                            inside: Vec::new(),
                        }),
                        None => self.spread(&mut fields, &property.value, depth),
                    }
                }
            }
            Shape::Call(callee, arguments) if makes_an_object(callee) => {
                for argument in arguments {
                    self.spread(&mut fields, argument, depth);
                }
            }
            _ => return None,
        }
        for suffix in assigned {
            self.apply(&mut fields, suffix);
        }
        Some(fields)
    }

    /// Takes over the fields of what is spread; nothing of `false`, `null` and the like.
    fn spread(&self, fields: &mut Fields<'s>, expr: &'s Expr, depth: usize) {
        self.take_assumed();
        match self.eval(expr) {
            Value::Other(object) => {
                let assumed = self.take_assumed();
                match self.fields_with(
                    if matches!(expr.shape, Shape::Name(_)) { expr } else { object },
                    Vec::new(),
                    depth,
                ) {
                    Some(inner) => {
                        fields.unread.extend(inner.unread);
                        for mut field in inner.list {
                            field.assumed |= assumed;
                            fields.set(field);
                        }
                    }
                    None => fields.unread.push(expr),
                }
            }
            Value::Text(_) => fields.unread.push(expr),
            _ => {}
        }
    }

    fn assigned(&self, name: &str) -> Vec<Suffix<'s>> {
        let script = self.script;
        let mut found = Vec::new();
        for assignment in script.assignments.iter().filter(|assignment| assignment.path[0] == name).take(256)
        {
            self.take_assumed();
            let holds = self.conditions(assignment.at);
            let suffix = Suffix {
                assignment,
                from: 1,
                uncertain: holds == Some(None),
                assumed: self.take_assumed() && holds.is_some(),
            };
            if holds != Some(Some(false)) {
                found.push(suffix);
            }
        }
        found
    }

    fn apply(&self, fields: &mut Fields<'s>, suffix: Suffix<'s>) {
        let path = &suffix.assignment.path[suffix.from..];
        let Suffix { assignment, uncertain, assumed, .. } = suffix;
        match path {
            [] => {}
            [key] => fields.set(Field {
                key: key.clone(),
                expr: &assignment.value,
                uncertain,
                assumed,
                inside: Vec::new(),
            }),
            [key, ..] => match fields.list.iter_mut().find(|field| field.key == *key) {
                Some(field) => field.inside.push(Suffix { from: suffix.from + 1, ..suffix }),
                None => fields.unread.push(&assignment.value),
            },
        }
    }
}

/// `Object.assign({}, a, b)`, `Object.freeze(a)`
fn makes_an_object(callee: &Expr) -> bool {
    match &callee.shape {
        Shape::Member(object, name) => {
            matches!(name.as_str(), "assign" | "freeze")
                && matches!(&object.shape, Shape::Name(name) if name == "Object")
        }
        _ => false,
    }
}
