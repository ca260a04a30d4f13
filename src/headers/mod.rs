//! Rules about header fields: which may pass, which are ours, whom to believe.
//!
//! Pure: no tokio, no sockets, no config, no clock. The order in which the rules are applied to a request is
//! ([`gate`], on the bytes) → [`framing`] → [`path`] (routing) → [`hop`] → [`reserved`] → [`client`] → [`forwarded`] and [`trace`] ([`trailers`] behind the body), so that nothing a
//! client writes into `Connection` can delete what the sidecar adds. Tests: at the end of each file, and `tests/it/trust_table.rs` (Express's answers).

pub mod client;
pub mod forwarded;
pub mod framing;
pub mod gate;
pub mod hop;
pub mod names;
pub mod path;
pub mod reserved;
pub mod trace;
pub mod trailers;
pub mod trust;

/// For the tests of this room.
#[cfg(test)]
pub(crate) mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    /// Fields in this order, duplicates as often as they are written.
    pub(crate) fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = name.parse::<HeaderName>().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }
}
