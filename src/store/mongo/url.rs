//! `store.url` before anything connects: what the driver takes, and what this program does not.
//!
//! Tests: `tests/it/store_conformance/mongodb_url.rs`.

use super::fault;
use mongodb::options::{Acknowledgment, ConnectionString, Tls};

/// Is this a MongoDB URL? For the configuration's check: connects to nothing, and the text never holds the URL's password.
pub(in crate::store) fn check_url(url: &str) -> Result<(), String> {
    parse_url(url).map(drop)
}

pub(super) fn parse_url(url: &str) -> Result<ConnectionString, String> {
    let parsed = ConnectionString::parse(url).map_err(|error| fault::masked(url, &error.kind.to_string()))?;
    let w = parsed.write_concern.as_ref().and_then(|concern| concern.w.as_ref());
    if w == Some(&Acknowledgment::Nodes(0)) {
        return Err(
            "w=0 means writes that nobody acknowledges, and a response waits for its write".to_owned()
        );
    }
    if let Some(Tls::Enabled(tls)) = &parsed.tls {
        let files = [("tlsCAFile", &tls.ca_file_path), ("tlsCertificateKeyFile", &tls.cert_key_file_path)];
        for (option, path) in files {
            let Some(Err(error)) = path.as_ref().map(std::fs::File::open) else { continue };
            return Err(format!("{option}: {error} (a relative path counts from the working directory)"));
        }
    }
    Ok(parsed)
}
