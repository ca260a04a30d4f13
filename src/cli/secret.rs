//! `cloakroom secret`: a fresh secret on standard output, alone, so that a shell can catch it. Tests: below.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::process::ExitCode;

pub(super) fn secret() -> ExitCode {
    match fresh() {
        Ok(secret) => {
            println!("{secret}");
            eprintln!("put it first in session.secrets, or: export SESSION_SECRET=\"$(cloakroom secret)\"");
            ExitCode::SUCCESS
        }
        Err(error) => super::finish(Err(format!("the system gives no random bytes: {error}"))),
    }
}

/// 32 random bytes as base64url, 43 characters.
pub(super) fn fresh() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::fresh;

    #[test]
    fn secrets_are_long_plain_and_new() {
        let (one, two) = (fresh().unwrap(), fresh().unwrap());
        assert_eq!(one.len(), 43);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_ne!(one, two);
    }
}
