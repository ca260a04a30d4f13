//! Cloakroom: a reverse-proxy sidecar that gives unmodified web apps server-side sessions.
//!
//! # Map (a floor imports only lower ones; `tests/it/floors.rs` checks it)
//!
//! | floor | rooms | what for |
//! |---|---|---|
//! | 0 | [`session`], [`headers`] | pure rules: no tokio, no sockets, no clock |
//! | 1 | [`telemetry`], [`drain`], [`events`], [`socket`] | logs, access log, counters; tracked tasks and the bounded stop; what happens to sessions; the byte stream |
//! | 2 | [`store`], [`upstream`], [`route`], [`server`] | the edges; they do not know each other |
//! | 3 | [`proxy`], [`admin`] | the product: one request from head to last byte |
//! | 4 | [`config`] | `proxy.toml` to the `Options` that each room declares |
//! | 5 | [`app`], [`cli`], `main` | assembly |
//!
//! # The journey of one request
//!
//! `server` accepts and parses; [`proxy`] finds the route, removes hop-by-hop and reserved headers, reads the cookie, loads
//! the session, injects `X-Session*`, sends the request upstream, takes the update headers off the answer, commits to the store,
//! and only then releases the response head. No step goes back.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod drain;
pub mod events;
pub mod headers;
pub mod proxy;
pub mod route;
pub mod server;
pub mod session;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod upstream;
