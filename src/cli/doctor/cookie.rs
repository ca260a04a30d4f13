//! A pasted cookie: is it ours, who signed it, what is stored under it? If it does not verify: why not.
//!
//! Never shows the sid or the mac. Tests: below, and `tests/it/doctor.rs`.

use super::Case;
use super::facts::bytes;
use super::finding::Findings;
use super::paste::{Fault, MAC_LENGTH, verdict};
use crate::session::date::render_iso;
use crate::session::sid::Sid;
use crate::store::survey::{look_up, other_transform};
use crate::store::{Lookup, StoreKind, StoreOptions, TransformId};
use std::fmt::Write as _;

/// The report on a pasted cookie, and whether the store has its session. `reached`: the store answered.
pub(super) async fn examine(
    case: &Case<'_>,
    pasted: &str,
    reached: bool,
    findings: &mut Findings,
) -> (String, bool) {
    let verdict = verdict(pasted, &case.session.names, &case.session.keys);
    let mut out = String::from("Cookie\n");
    let mut is_found = false;
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<14}  {value}");
    };
    if let Some(name) = &verdict.other_name {
        findings.problem(
            format!("the cookie is called {name:?}, and session.name is {:?}", case.session.name()),
            "the sidecar does not look at it",
            "write name = \"…\" in [session] as the app has it, or accept_names = [\"…\"] to take over from an older name",
        );
    }
    line("encoding", encoding(verdict.encodings));
    if verdict.encodings > 1 {
        findings.warning(
            format!("the cookie's value is percent-encoded {} times", verdict.encodings),
            "the sidecar and express-session decode once: if the browser really sends it so, it does not verify",
            "if it was copied from a log or a tool, all is well; else find what encodes cookies on the way",
        );
    }
    match &verdict.outcome {
        Ok(ticket) => {
            line(
                "sid",
                &format!("{} (fingerprint), {} characters", ticket.sid, ticket.sid.as_str().chars().count()),
            );
            let (number, count) = (ticket.key + 1, case.session.keys.len());
            let role = if ticket.key == 0 { "the one that signs" } else { "an older one" };
            line("signed by", &format!("secret {number} of {count} in session.secrets, {role}"));
            findings.ok(format!("the cookie verifies: secret {number} of {count} signed it"));
            if reached {
                is_found = stored(case, &ticket.sid, &mut line, findings).await;
            }
        }
        Err(fault) => {
            let (what, cure) = fault.explain(case.session.keys.len(), case.session.name());
            line("signed by", "nobody that session.secrets knows");
            findings.problem(
                format!("the cookie does not verify: {what}"),
                "such a cookie counts as none: its user is a stranger",
                &cure,
            );
        }
    }
    (out + "\n", is_found)
}

/// Is it there, readable or not?
async fn stored(
    case: &Case<'_>,
    sid: &Sid,
    line: &mut impl FnMut(&str, &str),
    findings: &mut Findings,
) -> bool {
    let found = look_up(case.store, sid, case.now).await;
    let is_found = matches!(found, Ok(Lookup::Live(_) | Lookup::Unreadable(_)));
    match found {
        Err(why) => line("in the store", &format!("not known: {why}")),
        Ok(Lookup::Live(loaded)) => {
            let until =
                loaded.expires_at.map_or("for ever".to_owned(), |at| format!("until {}", render_iso(at)));
            line("in the store", &format!("yes, {until}"));
            let record = &loaded.record;
            let data = record.payload.without_keys(&case.session.policy.store_keys);
            let size = case.as_header(data.to_ascii().len());
            line("data", &format!("{} in X-Session", bytes(size)));
            let age = record.cookie.original_max_age.map_or("none".to_owned(), |age| format!("{age} ms"));
            line(
                "its cookie",
                &format!(
                    "originalMaxAge {age}{}",
                    if record.cookie_missing { ", no cookie object" } else { "" }
                ),
            );
            if size > case.header_limit {
                findings.problem(
                    "the cookie's session is larger than limits.session_header",
                    "its requests are answered 500",
                    "write fields = [\"…\"] on the routes, or raise limits.session_header",
                );
            }
            findings.ok("the store has the cookie's session");
        }
        Ok(Lookup::Unreadable(why)) => {
            line("in the store", &format!("yes, and it cannot be read: {why}"));
            findings.problem(
                "the cookie's session cannot be read",
                &why,
                "see what is said of unreadable sessions",
            );
        }
        Ok(Lookup::Absent) => {
            line("in the store", "no: it has expired, was destroyed, or is kept elsewhere");
            absent(other_transform(case.store, sid).await, case.store, findings);
        }
    }
    is_found
}

/// `other`: the `transform_id` under which there is a document all the same.
fn absent(other: Option<Option<TransformId>>, store: &StoreOptions, findings: &mut Findings) {
    let is_transformed = matches!(&store.kind, StoreKind::Mongodb(options) if options.transform_id.is_some());
    let what = "the cookie's session is stored under another `_id` than store.transform_id makes";
    let why = "nobody's session is found here";
    match other {
        Some(Some(TransformId { prefix, hash: Some(hash), encoding })) => {
            let (hash, encoding) = (format!("{hash:?}").to_lowercase(), format!("{encoding:?}").to_lowercase());
            findings.problem(
                what,
                why,
                &format!("write in [store]:\n\ttransform_id = {{ hash = \"{hash}\", encoding = \"{encoding}\", prefix = {prefix:?} }}"),
            );
        }
        Some(Some(TransformId { prefix, .. })) => {
            findings.problem(what, why, &format!("write transform_id = {{ prefix = {prefix:?} }} in [store]"));
        }
        Some(None) if is_transformed => findings.problem(what, why, "remove transform_id from [store]"),
        Some(None) => findings.warning(
            "a document of the cookie's sid is stored, and it does not count",
            "it has expired, or its `expires` is no date; it will be removed",
            "none is needed if the session was to end; else see what is said of `expires`",
        ),
        None => findings.warning(
            "the store has no session of this cookie",
            "its user is a stranger: the session has expired, was destroyed, or is kept elsewhere",
            "if the app knows this cookie: compare database, collection, prefix or path in [store] with the app's",
        ),
    }
}

fn encoding(times: usize) -> &'static str {
    match times {
        0 => "not percent-encoded (as decoded by some tool)",
        1 => "percent-encoded, as in a browser's header",
        _ => "percent-encoded several times",
    }
}

impl Fault {
    /// What is wrong, and the cure.
    fn explain(&self, secrets: usize, name: &str) -> (String, String) {
        let copy = "copy it again, as the browser sends it";
        let repaired = |by: &Option<usize>| match by {
            Some(key) => format!("; written as it should be, secret {} signed it", key + 1),
            None => "; and no secret signed it in either form".to_owned(),
        };
        let standard =
            "whoever makes it has to write standard base64 without padding, as cookie-signature does";
        let (what, cure) = match self {
            Self::Empty => ("it is empty".to_owned(), copy),
            Self::NotThere(names) if names.is_empty() => (format!("there is no cookie {name:?} in it"), copy),
            Self::NotThere(names) => {
                (format!("there is no cookie {name:?} in it, only {}", names.join(", ")), "see session.name")
            }
            Self::NoPrefix(true) => ("`s:` is missing in front; the rest is signed by us".to_owned(), copy),
            Self::NoPrefix(false) => (
                "it is not signed: `s:` is missing in front".to_owned(),
                "is it another package's cookie (cookie-session, an app's own)?",
            ),
            Self::JsonCookie => (
                "it is a JSON cookie (`j:`) of cookie-parser".to_owned(),
                "it is no express-session cookie; see session.name",
            ),
            Self::NoDot => ("there is no dot in it, so no signature: it is cut short".to_owned(), copy),
            Self::EmptySid => ("it signs an empty sid".to_owned(), "see the app's genid"),
            Self::UrlSafe(by) => {
                (format!("its signature has URL-safe letters (- and _){}", repaired(by)), standard)
            }
            Self::Padded(by) => (format!("its signature is padded (=){}", repaired(by)), standard),
            Self::Blanks(by) => {
                (format!("blanks stand where + was{}", repaired(by)), "something decodes it as a form does")
            }
            Self::MacTooShort(length) => (
                format!("its signature has {length} characters, {MAC_LENGTH} are right: it is cut short"),
                copy,
            ),
            Self::MacTooLong(length) => (
                format!(
                    "its signature has {length} characters, {MAC_LENGTH} are right: something follows it"
                ),
                copy,
            ),
            Self::MacAlphabet => ("its signature is no base64".to_owned(), copy),
            Self::Stranger => (
                format!(
                    "none of the {secrets} secret{} in session.secrets signed it, or it was changed",
                    if secrets == 1 { "" } else { "s" }
                ),
                "compare session.secrets with the app's secret, blanks and line ends included; put an older one at the end of the list",
            ),
        };
        (what, cure.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_explanation_shows_the_value() {
        for (fault, said) in [
            (Fault::Stranger, "none of the 2 secrets"),
            (Fault::Padded(None), "no secret signed it"),
            (Fault::MacTooShort(3), "3 characters"),
        ] {
            let (what, cure) = fault.explain(2, "connect.sid");
            assert!(what.contains(said) && !cure.is_empty(), "{what}");
        }
    }
}
