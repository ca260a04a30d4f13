//! Host and path to a route. Knows nothing of what a route leads to.
//!
//! The most specific host wins (exact, then the longest `*.` wildcard, then routes without a host), within it the longest path.
//! A path matches at segment boundaries: `/account` matches `/account` and `/account/x`, never `/accounting`; a path that ends in
//! `/` matches what is below it. Where no path of a host matches, less specific hosts are asked. Tests: below.

/// A table of routes; the value `T` is what the caller wants to find.
#[derive(Debug)]
pub struct RouteTable<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    host: HostPattern,
    path: String,
    target: T,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum HostPattern {
    Any,
    /// `.example.com`; longer is more specific.
    Suffix(usize, String),
    Exact(String),
}

impl<T> RouteTable<T> {
    /// Builds the table from (host, path, target); `None` as host matches every host.
    pub fn new<'a>(routes: impl IntoIterator<Item = (Option<&'a str>, &'a str, T)>) -> Self {
        let mut entries: Vec<Entry<T>> = routes
            .into_iter()
            .map(|(host, path, target)| Entry { host: HostPattern::new(host), path: path.to_owned(), target })
            .collect();
        // Most specific first, so that the first match is the answer; the sort is stable: the file's order decides among equals.
        entries.sort_by(|a, b| b.host.cmp(&a.host).then(b.path.len().cmp(&a.path.len())));
        Self { entries }
    }

    /// The route of a request. `host` may carry a port; `path` is the normalised path without the query.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let host = bare_host(host);
        self.entries
            .iter()
            .find(|entry| entry.host.matches(host) && path_matches(&entry.path, path))
            .map(|entry| &entry.target)
    }
}

impl HostPattern {
    fn new(host: Option<&str>) -> Self {
        match host.map(|host| (host, host.strip_prefix('*'))) {
            None => Self::Any,
            Some((_, Some(suffix))) => Self::Suffix(suffix.len(), suffix.to_ascii_lowercase()),
            Some((host, None)) => Self::Exact(host.to_ascii_lowercase()),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Suffix(len, suffix) => {
                host.len() > *len
                    && host.as_bytes()[host.len() - len..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        }
    }
}

/// The host without port and without the root's dot: `Example.com.:8443` is `Example.com`, `[::1]:80` is `[::1]`.
pub fn bare_host(host: &str) -> &str {
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.rfind(':').unwrap_or(host.len()),
    };
    host[..end].trim_end_matches('.')
}

fn path_matches(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some("") => true,
        Some(rest) => prefix.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_route_wins() {
        let table = RouteTable::new([
            (None, "/", "any"),
            (None, "/api", "any-api"),
            (Some("*.example.com"), "/", "sub"),
            (Some("*.a.example.com"), "/", "subsub"),
            (Some("app.example.com"), "/account", "app-account"),
            (Some("app.example.com"), "/account/admin", "app-admin"),
            (Some("app.example.com"), "/files/", "app-files"),
        ]);
        for (host, path, expected) in [
            ("other", "/", "any"),
            ("", "/x", "any"),
            ("other", "/api", "any-api"),
            ("other", "/api/x", "any-api"),
            ("other", "/apix", "any"),
            ("x.example.com", "/api", "sub"),
            ("x.a.example.com", "/", "subsub"),
            ("example.com", "/", "any"),
            (".example.com", "/", "any"),
            ("evilexample.com", "/", "any"),
            ("APP.example.com:8443", "/account", "app-account"),
            ("app.example.com.", "/account/x", "app-account"),
            ("app.example.com", "/account/admin/y", "app-admin"),
            ("app.example.com", "/accounting", "sub"),
            ("app.example.com", "/files", "sub"),
            ("app.example.com", "/files/a", "app-files"),
        ] {
            assert_eq!(table.find(host, path), Some(&expected), "{host} {path}");
        }
        assert_eq!(RouteTable::new([(Some("a"), "/x", 1)]).find("a", "/"), None);
    }

    #[test]
    fn hosts_lose_port_and_dot() {
        for (host, bare) in [("a:80", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a.", "a"), ("", "")]
        {
            assert_eq!(bare_host(host), bare);
        }
    }
}
