//! What is judged alike for every store: what can be read, how large it is, what its cookies say. Tests: `tests/it/doctor.rs`.

use super::Case;
use super::finding::{Findings, plural};
use crate::proxy::options::Encoding;
use crate::session::lifecycle::{Priority, SameSite, Secure};
use crate::store::survey::{Sample, Tally};

/// Before a line that is right only if the app's own ids are made otherwise: obeyed in vain, it loses every session.
pub(super) const TRY_A_COOKIE: &str = "find out first, with the cookie of somebody who is logged in to the app:\n\tcloakroom doctor --cookie 'connect.sid=…'\nonly if the store has no session of it, write in [store]:\n\t";

pub(super) fn sessions(case: &Case<'_>, sample: &Sample, findings: &mut Findings) {
    unreadable(sample, findings);
    if sample.readable() == 0 {
        return;
    }
    sizes(case, sample, findings);
    reserved(sample, findings);
    cookies(case, sample, findings);
}

fn unreadable(sample: &Sample, findings: &mut Findings) {
    let count = sample.unreadable.total();
    if count == 0 {
        if sample.readable() > 0 {
            findings.ok(format!(
                "{} sampled session{} can be read",
                sample.readable(),
                plural(sample.readable())
            ));
        }
        return;
    }
    findings.problem(
        format!("{count} of {} sessions cannot be read: {}", sample.looked_at, reasons(&sample.unreadable)),
        "their users are served an empty session (session.unreadable), and nothing is stored for them until they are gone",
        "find out who writes them; delete those that no app can read either, and their users get new sessions",
    );
}

/// `3 broken JSON (first: 0a1b2c3d4e), 1 …`
pub(super) fn reasons(tally: &Tally) -> String {
    let parts: Vec<String> = tally
        .0
        .iter()
        .map(|(why, seen)| match seen.example.as_str() {
            "" => format!("{} {why}", seen.count),
            example => format!("{} {why} (first: {example})", seen.count),
        })
        .collect();
    parts.join("; ")
}

fn sizes(case: &Case<'_>, sample: &Sample, findings: &mut Findings) {
    let limit = case.header_limit;
    // The largest JSON whose header still fits.
    let fits = match case.session.encoding {
        Encoding::Json => limit,
        Encoding::Base64url => limit.saturating_mul(3) / 4,
    };
    let above = sample.header_sizes.above(fits);
    if above == 0 {
        return findings.ok("every sampled session fits into X-Session");
    }
    let why = "a request with such a session is answered 500, it never reaches the app";
    let what = format!(
        "{above} of {} sessions {} larger than limits.session_header ({limit} bytes)",
        sample.readable(),
        if above == 1 { "is" } else { "are" }
    );
    if case.only_fields {
        return findings.ok(format!("{what}, and every route sends only its `fields`"));
    }
    let cure = "forward less: fields = [\"user\", …] on the routes; or raise limits.session_header, and the app's own limit on headers with it (node --max-http-header-size)";
    if sample.header_sizes.percentile(99).is_some_and(|size| size > fits) {
        findings.problem(what, why, cure);
    } else {
        findings.warning(what, why, cure);
    }
}

fn reserved(sample: &Sample, findings: &mut Findings) {
    if sample.reserved_keys.0.is_empty() {
        return;
    }
    findings.warning(
        format!("data under a key that is the store's own: {}", reasons(&sample.reserved_keys)),
        "`lastModified` belongs to connect-mongo with touchAfter, `__lastAccess` to session-file-store: what an app stores under these names is hidden from it, or is a trace of another configuration",
        "write touch_after in [store] if the app has touchAfter; else rename the key in the app",
    );
}

/// What most sessions' cookies have, where the configuration has something else.
fn cookies(case: &Case<'_>, sample: &Sample, findings: &mut Findings) {
    let with_cookie = sample.readable().saturating_sub(sample.without_cookie);
    if sample.without_cookie > 0 {
        findings.warning(
            format!("{} of {} sessions have no `cookie`", sample.without_cookie, sample.readable()),
            "the configured cookie counts for them; express-session itself cannot load such a session",
            "find out who writes them",
        );
    }
    let mut different = Vec::new();
    for (attribute, key, expected) in expectations(case) {
        let Some(values) = sample.cookie.get(attribute) else { continue };
        let Some((value, count)) = values.iter().max_by_key(|(_, count)| **count) else { continue };
        if count * 2 > with_cookie && !expected.iter().any(|fine| fine == value) {
            let ours = expected.first().map_or("", String::as_str);
            different.push((format!("{attribute} is {value} in {count}, here {ours}"), key));
        }
    }
    if different.is_empty() {
        return;
    }
    let (what, keys): (Vec<String>, Vec<&str>) = different.into_iter().unzip();
    findings.warning(
        format!("cookies of other attributes than [session.cookie]: {}", what.join("; ")),
        "another app that shares these sessions sets its cookies differently, so a browser's cookie changes with whoever answers",
        &format!("give both the same, here: session.cookie.{}", keys.join(", session.cookie.")),
    );
}

/// Attribute as stored, config key, values that are fine (the first is the config's).
fn expectations(case: &Case<'_>) -> Vec<(&'static str, &'static str, Vec<String>)> {
    let cookie = &case.session.policy.cookie;
    let flag = |on: bool| if on { vec!["true".to_owned()] } else { vec!["false".into(), "unset".into()] };
    let text = |value: Option<&str>| vec![value.map_or("unset".to_owned(), |value| format!("\"{value}\""))];
    let same_site = match cookie.same_site {
        SameSite::Lax => vec!["\"lax\"".to_owned()],
        // `sameSite: true` is strict.
        SameSite::Strict => vec!["\"strict\"".into(), "true".into()],
        SameSite::None => vec!["\"none\"".into()],
        SameSite::Auto => vec!["\"auto\"".into(), "\"none\"".into(), "\"lax\"".into()],
        SameSite::Unset => vec!["unset".into(), "false".into()],
    };
    let secure = match cookie.secure {
        Secure::Always => flag(true),
        Secure::Never => flag(false),
        Secure::Auto => vec!["\"auto\"".into(), "true".into(), "false".into(), "unset".into()],
    };
    let priority = cookie.priority.map(|priority| match priority {
        Priority::Low => "low",
        Priority::Medium => "medium",
        Priority::High => "high",
    });
    let max_age = cookie.max_age.map_or("unset".to_owned(), |age| age.to_string());
    vec![
        ("originalMaxAge", "max_age", vec![max_age]),
        ("secure", "secure", secure),
        ("httpOnly", "http_only", flag(cookie.http_only)),
        ("sameSite", "same_site", same_site),
        ("path", "path", text(Some(&cookie.path))),
        ("domain", "domain", text(cookie.domain.as_deref())),
        ("partitioned", "partitioned", flag(cookie.partitioned == Some(true))),
        ("priority", "priority", text(priority)),
    ]
}
