//! The one integration binary: a module for each behaviour.
//!
//! Tables run against the library; everything else starts the real sidecar (`support::sidecar`) before an app that records
//! what it was sent, and looks at the wire. A test that needs MongoDB starts a `mongod` of its own (`tests/setup.sh core` fetches
//! the binary).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

// The library's rules.
mod config;
mod cookie_table;
mod floors;
mod framing_hyper;
mod import;
mod lifecycle_table;
mod readme;
mod store_conformance;
mod trust_table;

// The sidecar on the wire.
mod abuse;
mod body_streaming;
mod certificates;
mod client_disconnect;
mod cookie_comforts;
mod cookie_forgery;
mod doctor;
mod drain;
mod events;
mod expect_continue;
mod framing_corpus;
mod framing_wire;
mod golden;
mod head_204_304;
mod hop_headers;
mod journey;
mod lifecycle;
mod limits;
mod mongo_documents;
mod overlapping_requests;
mod proxy_protocol;
mod reload;
mod reserved_headers;
mod routes;
mod session_load;
mod session_update;
mod slow_upstream;
mod store_outage;
mod takeover;
mod tls;
mod trailers;
mod upgrade;
mod upstream_balance;
mod upstream_failover;
mod upstream_health;
mod upstream_http2;
mod upstream_limits;
mod upstream_reuse;
mod upstream_tls;
