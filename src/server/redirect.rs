//! `redirect_to_https`: the same URL over https. Pure; tests at the end of this file.

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Uri, header};

/// `Location` for a request that came in plain text; `None` when it names no valid host (or two).
///
/// `port` is where https is served; 443 is left out of the URL.
pub(super) fn location<B>(request: &Request<B>, port: u16) -> Option<HeaderValue> {
    let authority = authority(request.uri(), request.headers())?;
    let host = authority.host();
    // The path begins with `/`, so nothing a client puts there can become a part of the host.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let location = match port {
        443 => format!("https://{host}{path}"),
        _ => format!("https://{host}:{port}{path}"),
    };
    HeaderValue::from_str(&location).or_else(|_| HeaderValue::from_bytes(location.as_bytes())).ok()
}

/// RFC 9112 §3.2: the target's authority (HTTP/2, absolute form), else the one Host line.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    // CONNECT's authority form asks for a tunnel, not for a page.
    if uri.authority().is_some() && uri.scheme().is_none() {
        return None;
    }
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => {
            let mut lines = headers.get_all(header::HOST).iter();
            let only = lines.next().filter(|_| lines.next().is_none())?;
            Authority::try_from(only.as_bytes()).ok()?
        }
    };
    let port_is_fine = authority.as_str().len() == authority.host().len() || authority.port_u16().is_some();
    (is_host(authority.host()) && !authority.as_str().contains('@') && port_is_fine).then_some(authority)
}

/// A name, an IPv4 address, or an IPv6 address in brackets: nothing that a browser could read in another way.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(target: &str, hosts: &[&str], port: u16) -> Option<String> {
        let mut request = Request::builder().uri(target).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        location(&request, port).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_same_url_over_https() {
        for (target, hosts, port, expected) in [
            ("/", &["example.com"][..], 443, "https://example.com/"),
            ("/a/b?c=d&e=%0d%0a", &["example.com:8080"], 443, "https://example.com/a/b?c=d&e=%0d%0a"),
            ("/?", &["example.com"], 8443, "https://example.com:8443/?"),
            ("//evil.example/x", &["example.com"], 443, "https://example.com//evil.example/x"),
            ("/", &["[::1]:80"], 8443, "https://[::1]:8443/"),
            ("/", &["192.0.2.1"], 443, "https://192.0.2.1/"),
            ("http://first.example/x", &["second.example"], 443, "https://first.example/x"),
            ("*", &["example.com"], 443, "https://example.com/"),
        ] {
            assert_eq!(to(target, hosts, port).as_deref(), Some(expected), "{target} {hosts:?}");
        }
    }

    #[test]
    fn a_request_without_one_valid_host_goes_nowhere() {
        for (target, hosts) in [
            ("/", &[][..]),
            ("/", &[""]),
            ("/", &["a.example", "b.example"]),
            ("/", &["user@evil.example"]),
            ("/", &["example.com:"]),
            ("/", &["example.com:99999"]),
            ("/", &["example.com/evil"]),
            ("/", &["example.com\\evil"]),
            ("/", &["exam ple.com"]),
            ("/", &["[::1"]),
            ("/", &["[not-an-address]"]),
            ("/", &["ex\u{e4}mple.com"]),
            ("http://user@evil.example/", &["example.com"]),
            ("example.com:443", &["example.com:443"]),
        ] {
            assert_eq!(to(target, hosts, 443), None, "{target} {hosts:?}");
        }
    }
}
