//! The session cookie: read it, strip it from what the app sees, and write it (contract §1).
//!
//! `read` follows npm `cookie` 0.7's parser, `set` its serializer. Must not know: stores, requests, whether a cookie is due
//! (`lifecycle` decides). Tests: beside each file, and `tests/it/cookie_table.rs` against the packages themselves.

mod forget;
mod read;
mod set;

pub use forget::scopes;
pub use read::{Fault, Presented, Stripped, Ticket, Tickets, parse_first, read, strip};
pub use set::{
    CookieProblem, ResolvedAttributes, check, may_be_set, render_clear_cookie, render_set_cookie, resolve,
    stored_attributes,
};
