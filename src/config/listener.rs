//! `[[listener]]`. Tests: `tests/it/config.rs`.

use super::address::{self, is_local};
use super::item::Item;
use super::walk::Table;
use crate::headers::forwarded::{Trust, TrustSetting};
use crate::server::tls::TlsProblem;
use crate::server::{Address, CertificateFiles, ClientAuth, ListenerOptions, ProxyProtocol, TlsOptions};
use http::HeaderValue;
use std::ops::Range;
use std::time::Duration;

/// All listeners, and what other sections ask about them.
pub(super) struct Listeners {
    pub(super) list: Vec<ListenerOptions>,
    /// Every listener that serves requests has TLS, and there is one.
    pub(super) all_tls: bool,
    /// Some listener has TLS.
    pub(super) any_tls: bool,
    /// Some listener asks for client certificates.
    pub(super) client_certificates: bool,
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
        let proxy_protocol = proxy_protocol(table, address.as_ref());
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
        let mode = table.get("mode").and_then(|item| mode(&item, address.as_ref())).unwrap_or(0o660);
        let client_auth = tls.as_ref().and_then(client_auth);
        let hsts = table.get("hsts").and_then(|item| hsts(&item, tls.is_some()));
        let tls = tls.map(|item| tls_options(&item));
        if let (Some(address), None | Some(Some(_))) = (address, &tls) {
            list.push(ListenerOptions {
                address,
                tls: tls.flatten(),
                client_auth,
                redirect_to_https,
                proxy_protocol,
                hsts,
                mode,
            });
        }
    }
    let any_tls = serving > plain.len();
    Listeners {
        client_certificates: list.iter().any(|listener| listener.client_auth.is_some()),
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

/// `mode = "0660"`, of a unix socket's file.
fn mode(item: &Item<'_>, address: Option<&Address>) -> Option<u32> {
    if matches!(address, Some(Address::Tcp(_))) {
        item.problem("only the file of a unix socket has a mode", "remove it");
        return None;
    }
    let text = item.text()?;
    let digits = text.value.len() >= 3 && text.value.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(&text.value, 8).ok().filter(|mode| digits && *mode <= 0o777);
    if mode.is_none() {
        item.problem(format!("`{}` is not a mode", text.shown), "write it in octal and in quotes: \"0660\"");
    }
    mode
}

/// `hsts = "180d"` or `{ max_age = "180d", include_subdomains = true, preload = true }` (RFC 6797).
fn hsts(item: &Item<'_>, has_tls: bool) -> Option<HeaderValue> {
    if !has_tls {
        let what = "browsers believe it over TLS only, and this listener has none";
        item.problem(what, "write it into the listener with tls");
        return None;
    }
    let (max_age, subdomains, preload) = if item.is_table() {
        let table = item.table()?;
        let flag = |key| table.flag(key).unwrap_or(false);
        let (subdomains, preload) = (flag("include_subdomains"), flag("preload"));
        let Some(max_age) = table.get("max_age") else {
            table.problem("max_age", "missing", "write max_age = \"180d\"");
            return None;
        };
        (max_age.duration(Duration::ZERO)?, subdomains, preload)
    } else {
        (item.duration(Duration::ZERO)?, false, false)
    };
    if preload && !(subdomains && max_age >= Duration::from_secs(31_536_000)) {
        let hint = "write max_age = \"365d\" or more and include_subdomains = true, or remove preload";
        item.problem("preload lists take a year or more, with the subdomains", hint);
        return None;
    }
    let mut value = format!("max-age={}", max_age.as_secs());
    value.push_str(if subdomains { "; includeSubDomains" } else { "" });
    value.push_str(if preload { "; preload" } else { "" });
    HeaderValue::try_from(value).ok()
}

/// `proxy_protocol` and `proxy_protocol_from`.
fn proxy_protocol(table: &Table<'_>, address: Option<&Address>) -> Option<ProxyProtocol> {
    let (on, list) = (table.flag("proxy_protocol").unwrap_or(false), table.get("proxy_protocol_from"));
    let Some(list) = list else {
        if let (true, Some(item), Some(address)) = (on, table.get("proxy_protocol"), address)
            && !is_local(address)
        {
            let hint = "name the balancers: proxy_protocol_from = [\"10.0.0.0/8\"]";
            item.warning("whoever reaches this address can claim any client address", hint);
        }
        return on.then_some(ProxyProtocol { from: None });
    };
    if !on {
        list.problem("it says nothing without the protocol", "add proxy_protocol = true, or remove it");
        return None;
    }
    if matches!(address, Some(Address::Unix(_))) {
        let hint = "remove it: the folder and the mode of the socket say who may connect";
        list.problem("peers of a unix socket have no address", hint);
        return None;
    }
    Some(ProxyProtocol { from: Some(balancers(&list)?) })
}

fn balancers(list: &Item<'_>) -> Option<Trust> {
    let items = list.list("a list of addresses, like [\"10.0.0.0/8\"]")?;
    if items.is_empty() {
        list.problem("nobody could connect", "name the balancers, like [\"10.0.0.0/8\"]");
        return None;
    }
    // First all, then any: every bad one is reported.
    let texts: Vec<Option<String>> = items
        .iter()
        .map(|item| {
            let text = item.text()?;
            let sound = Trust::new(TrustSetting::List(vec![text.value.clone()]));
            if sound.is_err() {
                let hint = "write an address, a CIDR, or loopback, linklocal, uniquelocal";
                item.problem(format!("`{}` is not an address", text.shown), hint);
            }
            sound.ok().map(|_| text.value)
        })
        .collect();
    Trust::new(TrustSetting::List(texts.into_iter().collect::<Option<_>>()?)).ok()
}

fn tls_options(item: &Item<'_>) -> Option<TlsOptions> {
    let (places, files) = if item.value().is_array() {
        certificates(item)?
    } else {
        let table = item.table()?;
        let (_, _) = (table.get("client_ca"), table.get("client_auth"));
        if let Some(list) = table.get("certificates") {
            for key in ["cert", "key", "self_signed"] {
                if let Some(other) = table.get(key) {
                    other.problem(
                        "beside a list of certificates",
                        "write it into the list, or remove the list",
                    );
                }
            }
            let (places, files) = certificates(&list)?;
            return settled(files, &places);
        }
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
    settled(files, &places)
}

type Certificates<'a> = (Vec<Item<'a>>, Vec<Option<CertificateFiles>>);

fn certificates<'a>(item: &Item<'a>) -> Option<Certificates<'a>> {
    let list = item.list("a list like [{ cert = \"cert.pem\", key = \"key.pem\" }]")?;
    if list.is_empty() {
        item.problem("no certificate in the list", "write { cert = \"cert.pem\", key = \"key.pem\" }");
        return None;
    }
    let files = list.iter().map(|item| certificate(&item.table()?)).collect();
    Some((list, files))
}

fn settled(files: Vec<Option<CertificateFiles>>, places: &[Item<'_>]) -> Option<TlsOptions> {
    let tls = TlsOptions::Files(files.into_iter().collect::<Option<_>>()?);
    check_files(&tls, places).then_some(tls)
}

/// `tls.client_ca` and `tls.client_auth`. The keys of the table are known to [`tls_options`], which reads it as a whole.
fn client_auth(tls: &Item<'_>) -> Option<ClientAuth> {
    if !tls.is_table() {
        return None;
    }
    let table = tls.table()?;
    table.entries();
    let required = table.choice("client_auth", &[("require", true), ("optional", false)]);
    let Some(place) = table.get("client_ca") else {
        if let Some(item) = table.get("client_auth") {
            let hint = "name the certificates that sign those of clients: client_ca = \"clients.pem\"";
            item.problem("it says nothing without client_ca", hint);
        }
        return None;
    };
    let auth = ClientAuth { ca: place.path()?, required: required.unwrap_or(true) };
    if let Err(problem) = crate::server::tls::check_client_ca(&auth) {
        place.problem(shown(&place, &problem), "");
        return None;
    }
    Some(auth)
}

/// A name from the environment is not shown: it may be something else in the wrong place.
fn shown(place: &Item<'_>, problem: &TlsProblem) -> String {
    let from_env = place.walk.text.get(place.span()).is_some_and(|source| source.contains("${"));
    if from_env { problem.what.clone() } else { problem.to_string() }
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
            place.problem(shown(place, &problem), "");
        }
    }
    false
}
