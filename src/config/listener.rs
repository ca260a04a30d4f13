//! `[[listener]]`. Tests: `tests/it/config.rs`.

use super::address;
use super::item::Item;
use super::walk::Table;
use crate::server::{Address, CertificateFiles, ListenerOptions, TlsOptions};
use std::ops::Range;

/// All listeners, and what other sections ask about them.
pub(super) struct Listeners {
    pub(super) list: Vec<ListenerOptions>,
    /// Every listener that serves requests has TLS, and there is one.
    pub(super) all_tls: bool,
    /// Some listener has TLS.
    pub(super) any_tls: bool,
    /// Every listener redirects to https, so no route is needed.
    pub(super) only_redirects: bool,
    /// The listeners that serve plain text, by place.
    pub(super) plain: Vec<(String, Range<usize>)>,
}

/// Reads `[[listener]]`.
pub(super) fn listeners(root: &Table<'_>) -> Listeners {
    let tables = root.tables("listener");
    let missing = root.get("listener").is_none_or(|item| item.is_empty_list());
    if missing {
        root.problem(
            "listener",
            "there is no listener",
            "add [[listener]] with address = \"127.0.0.1:8080\"",
        );
    }
    let mut list = Vec::new();
    let mut taken: Vec<(Address, String)> = Vec::new();
    let (mut plain, mut serving, mut redirects) = (Vec::new(), 0_usize, 0_usize);
    for table in &tables {
        let (address, tls) = (one_address(table, &mut taken), table.get("tls"));
        let redirect_to_https = table.flag("redirect_to_https").unwrap_or(false);
        if table.flag("proxy_protocol") == Some(true) {
            table.not_built(
                "proxy_protocol",
                "leave it out: a balancer's X-Forwarded-For counts with server.trust_proxy",
            );
        }
        if let (true, Some(tls)) = (redirect_to_https, &tls) {
            let what = "a listener with tls cannot redirect to https";
            tls.walk.problem(
                &tls.path,
                tls.key_span.clone(),
                what,
                "remove one of tls and redirect_to_https",
            );
        }
        serving += usize::from(!redirect_to_https);
        redirects += usize::from(redirect_to_https);
        if tls.is_none() && !redirect_to_https {
            plain.push((table.path.clone(), table.span.clone()));
        }
        let tls = tls.map(|item| tls_options(&item));
        if let (Some(address), None | Some(Some(_))) = (address, &tls) {
            list.push(ListenerOptions { address, tls: tls.flatten(), redirect_to_https });
        }
    }
    let any_tls = serving > plain.len();
    Listeners {
        list,
        all_tls: any_tls && plain.is_empty(),
        any_tls,
        only_redirects: redirects > 0 && serving == 0,
        plain,
    }
}

fn one_address(table: &Table<'_>, taken: &mut Vec<(Address, String)>) -> Option<Address> {
    let Some(item) = table.get("address") else {
        table.problem("address", "missing", "write address = \"127.0.0.1:8080\"");
        return None;
    };
    let address = address::listen(&item)?;
    // Port 0 asks the system for any free port, so two of them do not collide.
    let any_port = matches!(&address, Address::Tcp(address) if address.port() == 0);
    let other = taken.iter().find(|(other, _)| *other == address);
    if let (false, Some((_, other))) = (any_port, other) {
        item.problem(format!("the same address as {other}"), "give each listener an address of its own");
        return None;
    }
    taken.push((address.clone(), table.path.clone()));
    Some(address)
}

fn tls_options(item: &Item<'_>) -> Option<TlsOptions> {
    let (places, files): (Vec<Item<'_>>, Vec<Option<CertificateFiles>>) = if item.value().is_array() {
        let list = item.list("a list").unwrap_or_default();
        if list.is_empty() {
            item.problem("no certificate in the list", "write { cert = \"cert.pem\", key = \"key.pem\" }");
            return None;
        }
        let files = list.iter().map(|item| certificate(&item.table()?)).collect();
        (list, files)
    } else {
        let table = item.table()?;
        if item.value().get("acme").is_some() {
            table.not_built("acme", "use cert and key files, renewed by certbot or the like");
            return None;
        }
        match (table.flag("self_signed"), table.get("cert"), table.get("key")) {
            (Some(true), None, None) => return Some(TlsOptions::SelfSigned),
            (Some(true), ..) => {
                item.problem("self_signed = true with certificate files", "keep one of them");
                return None;
            }
            _ => (vec![item.clone()], vec![certificate(&table)]),
        }
    };
    let tls = TlsOptions::Files(files.into_iter().collect::<Option<_>>()?);
    check_files(&tls, &places).then_some(tls)
}

fn certificate(table: &Table<'_>) -> Option<CertificateFiles> {
    let file = |key: &'static str| {
        let file = table.get(key);
        if file.is_none() {
            let hint = "write tls = { cert = \"cert.pem\", key = \"key.pem\" }, or { self_signed = true } for a trial";
            table.problem(key, "missing", hint);
        }
        file?.path()
    };
    let (cert, key) = (file("cert"), file("key"));
    Some(CertificateFiles { cert: cert?, key: key? })
}

/// The one place where certificate files are looked at before the start.
fn check_files(tls: &TlsOptions, places: &[Item<'_>]) -> bool {
    let Err(problems) = crate::server::tls::load(tls) else { return true };
    for problem in problems {
        if let Some(place) = places.get(problem.index).or(places.first()) {
            // A name from the environment is not shown: it may be something else in the wrong place.
            let from_env = place.walk.text.get(place.span()).is_some_and(|source| source.contains("${"));
            place.problem(if from_env { problem.what } else { problem.to_string() }, "");
        }
    }
    false
}
