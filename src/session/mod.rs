//! The session rules, pure: no I/O, no clock (`now` is an argument), no knowledge of HTTP servers, stores or configuration files.
//!
//! What express-session decides in closures is decided here by values: the cookie becomes a [`cookie::Presented`], the stored
//! document a [`record::Record`], the app's answer a [`wire::Update`], and [`lifecycle`] turns them into a `Plan`.
//! Tests: beside each rule, and `tests/it/lifecycle_table.rs`.

pub mod cookie;
pub mod date;
pub mod guard;
pub mod json;
pub mod lifecycle;
pub mod patch;
pub mod record;
pub mod sid;
pub mod signature;
pub mod wire;

/// Milliseconds since the Unix epoch, or a span of them; what JavaScript's `Date` counts in.
pub type Millis = i64;
