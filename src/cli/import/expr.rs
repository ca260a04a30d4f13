//! What the reader makes of JavaScript: only the shapes that options are written in, all else is opaque. Tests: `tests/it/import.rs`.

use std::ops::Range;
use std::rc::Rc;

/// An expression and the tokens that it is made of.
#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub(super) shape: Shape,
    pub(super) at: Range<usize>,
    /// Of the tree below, bounded so that every walk over it is.
    pub(super) height: u16,
}

/// The shapes.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Text(String),
    Number(f64),
    Bool(bool),
    Null,
    /// Texts and what stands between them: one text more.
    Template(Vec<String>, Vec<Expr>),
    Array(Vec<Expr>),
    Object(Vec<Property>),
    Name(String),
    Member(Rc<Expr>, String),
    Call(Rc<Expr>, Vec<Expr>),
    New(Rc<Expr>, Vec<Expr>),
    Unary(&'static str, Rc<Expr>),
    Binary(&'static str, Rc<Expr>, Rc<Expr>),
    Conditional(Rc<Expr>, Rc<Expr>, Rc<Expr>),
    Function(Function),
    /// `...x`, in lists and arguments: what comes of it is not asked.
    Spread,
    Opaque,
}

/// A property of an object literal.
#[derive(Debug, Clone)]
pub(super) struct Property {
    /// `None`: computed, or a spread.
    pub(super) key: Option<String>,
    pub(super) value: Expr,
}

/// A function, as far as one of a single expression is understood.
#[derive(Debug, Clone)]
pub(super) struct Function {
    /// Its only parameter, when there is exactly one and it is a plain name.
    pub(super) parameter: Option<String>,
    /// What it returns, when that is all it does.
    pub(super) result: Option<Rc<Expr>>,
}
