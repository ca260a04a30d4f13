//! Where a twin of the session's cookie may live: the scopes that a browser could have sent it from.
//!
//! A browser sends name and value only, so a stale twin can be forgotten only by naming every scope that it may have (RFC 6265
//! §5.1.3, §5.1.4): the host and its parent domains, the path and its parents. Tests: below.

/// The host itself and its nearest parents; one line each in the response.
const MOST_DOMAINS: usize = 3;
/// The first paths from the top.
const MOST_PATHS: usize = 3;
/// Some proxies take response heads of 4 KiB only; a twin on a longer path stays.
const LONGEST_PATH: usize = 64;

/// The scopes of cookies that reach `host` and `path`: `Domain` (`None`: the host alone) and `Path`, at most twelve. `root` is the
/// session's own `cookie.path`: what lies above it is another app's.
pub fn scopes<'a>(
    host: &'a str,
    root: &'a str,
    path: &'a str,
) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
    let domains = std::iter::once(None).chain(domains(host).map(Some));
    domains.flat_map(move |domain| paths(root, path).map(move |path| (domain, path)))
}

/// The host's name and its parents of two labels and more: browsers take no cookie for a top-level domain. None for an address.
fn domains(host: &str) -> impl Iterator<Item = &str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let is_address =
        name.rsplit('.').next().is_none_or(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = name.len() <= 253 && name.split('.').all(label) && !is_address;
    let first = (is_name && name.contains('.')).then_some(name);
    std::iter::successors(first, |name| parent(name)).take(MOST_DOMAINS)
}

fn parent(name: &str) -> Option<&str> {
    let (_, parent) = name.split_once('.')?;
    parent.contains('.').then_some(parent)
}

/// `root`, then each directory of the path below it, from the top.
fn paths<'a>(root: &'a str, path: &'a str) -> impl Iterator<Item = &'a str> {
    let path = path.split('?').next().unwrap_or("/");
    let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
    let whole = (!path.ends_with('/')).then_some(path.len());
    let sound = move |path: &&str| {
        (root.len() + 1..=LONGEST_PATH).contains(&path.len())
            && path.starts_with(root)
            && path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b'<'))
    };
    std::iter::once(root).chain(ends.chain(whole).map(move |end| &path[..end]).filter(sound)).take(MOST_PATHS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_go_up_to_two_labels() {
        let of = |host| domains(host).collect::<Vec<_>>();
        assert_eq!(of("a.b.example.com:8443"), ["a.b.example.com", "b.example.com", "example.com"]);
        assert_eq!(of("example.com"), ["example.com"]);
        for alone in [
            "localhost",
            "localhost:80",
            "127.0.0.1:80",
            "10.0.0.1",
            "[::1]:80",
            "[::1]",
            "",
            ".",
            "a..b.c",
            "a b.c",
            "x;y.com",
        ] {
            assert!(of(alone).is_empty(), "{alone}");
        }
    }

    #[test]
    fn paths_go_down_from_the_root() {
        let of = |path| paths("/", path).collect::<Vec<_>>();
        assert_eq!(of("/"), ["/"]);
        assert_eq!(of("/a"), ["/", "/a"]);
        assert_eq!(of("/a/b/c/d?x=/y"), ["/", "/a", "/a/b"]);
        assert_eq!(of("/a/"), ["/", "/a"]);
        assert_eq!(of("//a"), ["/", "//a"]);
        assert_eq!(of("/a;b/c"), ["/"]);
        assert_eq!(of("*"), ["/"]);
        assert_eq!(of(""), ["/"]);
        assert_eq!(of(&format!("/{}/b", "x".repeat(64))), ["/"]);
        // Nothing above the session's own path.
        assert_eq!(
            paths("/admin", "/admin/users/7").collect::<Vec<_>>(),
            ["/admin", "/admin/users", "/admin/users/7"]
        );
        assert_eq!(paths("/admin", "/elsewhere/x").collect::<Vec<_>>(), ["/admin"]);
    }

    #[test]
    fn there_are_never_many() {
        let all: Vec<_> = scopes("a.b.c.d.e.example.com", "/", "/1/2/3/4/5/6").collect();
        assert_eq!(all.len(), 12);
        assert_eq!((all[0], all[11]), ((None, "/"), (Some("c.d.e.example.com"), "/1/2")));
    }
}
