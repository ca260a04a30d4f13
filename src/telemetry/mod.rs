//! What the program says about itself: the log (`log`), one line per request (`access`), counters (`counters`), reloads (`life`).
//!
//! Knows no session rules, no store and no upstream: labels reach it as words. Sids, cookies and payloads never do.
//! Nothing here may block or end a request: a reader of our output that is slow or gone costs lines, which are counted.
//! Tests: beside the code.

pub mod access;
pub mod counters;
pub mod life;
mod line;
pub mod log;
