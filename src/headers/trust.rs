//! `server.trust_proxy`: whose `X-Forwarded-*` is believed, in Express's forms (`utils.compileTrust`, proxy-addr 2.0.8).
//!
//! Addresses are read as ipaddr.js 1.9.1 reads them, its generous forms included (`0177.0.0.1`, `2130706433`), because
//! the same list must give the same answer behind Express and behind us. Knows no header ([`super::forwarded`]).
//! Tests: below and `tests/it/trust_table.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `server.trust_proxy` as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TrustSetting {
    /// `false`
    #[default]
    None,
    /// `true`
    All,
    /// That many hops, counted from the socket; 0 trusts none.
    Hops(u32),
    /// Addresses, CIDRs, `ipv4/netmask`, `loopback`, `linklocal`, `uniquelocal`; untrimmed, as in a JavaScript array.
    List(Vec<String>),
}

/// The compiled rule.
///
/// A peer on a unix socket has no address: it is trusted under `true` and a number of hops, never by a list (Express
/// sees `undefined` there).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust(Rule);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    All,
    /// 0 is "none".
    Hops(u32),
    Subnets(Box<[Subnet]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subnet {
    address: IpAddr,
    /// 1 to 32 or 128.
    prefix: u8,
}

impl Trust {
    /// Compiles a setting.
    ///
    /// # Errors
    /// The index of the first bad list item, and what is wrong with it.
    pub fn new(setting: TrustSetting) -> Result<Self, (usize, String)> {
        Ok(Self(match setting {
            TrustSetting::None => Rule::Hops(0),
            TrustSetting::All => Rule::All,
            TrustSetting::Hops(hops) => Rule::Hops(hops),
            TrustSetting::List(items) => {
                let mut subnets = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    add_item(item, &mut subnets).map_err(|reason| (index, reason))?;
                }
                Rule::Subnets(subnets.into_boxed_slice())
            }
        }))
    }

    /// Whether the socket's other end is believed; `None` is a unix socket.
    #[must_use]
    pub fn trusts_peer(&self, peer: Option<IpAddr>) -> bool {
        match &self.0 {
            Rule::All => true,
            Rule::Hops(hops) => *hops > 0,
            Rule::Subnets(subnets) => peer.is_some_and(|peer| is_within(peer, subnets)),
        }
    }

    /// Whether an item of `X-Forwarded-For` is believed, `distance` hops behind the socket (the socket is 0). Junk is
    /// within no list.
    #[must_use]
    pub fn trusts_item(&self, item: &[u8], distance: usize) -> bool {
        match &self.0 {
            Rule::All => true,
            Rule::Hops(hops) => distance < usize::try_from(*hops).unwrap_or(usize::MAX),
            Rule::Subnets(subnets) => {
                std::str::from_utf8(item).ok().and_then(parse_ip).is_some_and(|ip| is_within(ip, subnets))
            }
        }
    }
}

fn add_item(item: &str, subnets: &mut Vec<Subnet>) -> Result<(), String> {
    let ranges: &[&str] = match item {
        "loopback" => &["127.0.0.1/8", "::1/128"],
        "linklocal" => &["169.254.0.0/16", "fe80::/10"],
        "uniquelocal" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
        _ => &[item],
    };
    for range in ranges {
        subnets.push(parse_subnet(range)?);
    }
    Ok(())
}

fn parse_subnet(note: &str) -> Result<Subnet, String> {
    let (text, range) = match note.rsplit_once('/') {
        Some((text, range)) => (text, Some(range)),
        None => (note, None),
    };
    let address = parse_ip(text)
        .ok_or_else(|| format!("`{text}` is no IP address (nor `loopback`, `linklocal`, `uniquelocal`)"))?;
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match range {
        None => Some(longest),
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok()
        }
        Some(mask) if address.is_ipv4() => netmask_prefix(mask),
        Some(_) => None,
    };
    match prefix {
        Some(prefix) if prefix > 0 && prefix <= longest => Ok(Subnet { address, prefix }),
        _ => Err(format!(
            "the range of `{note}` must be 1 to {longest}{}",
            match address {
                IpAddr::V4(_) => " or a netmask",
                IpAddr::V6(_) => "",
            }
        )),
    }
}

fn netmask_prefix(mask: &str) -> Option<u8> {
    let Some(IpAddr::V4(mask)) = parse_ip(mask) else { return None };
    let bits = u32::from(mask);
    let prefix = bits.leading_ones();
    if bits.count_ones() == prefix { u8::try_from(prefix).ok() } else { None }
}

/// proxy-addr's `compileTrust`: a mapped address is its IPv4 address; a mapped subnet speaks about IPv4 only, and
/// only when its prefix covers the marker.
fn is_within(address: IpAddr, subnets: &[Subnet]) -> bool {
    let address = address.to_canonical();
    subnets.iter().any(|subnet| match (address, subnet.address) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            u32::from(address) >> (32 - u32::from(subnet.prefix))
                == u32::from(net) >> (32 - u32::from(subnet.prefix))
        }
        (IpAddr::V4(address), IpAddr::V6(net)) => {
            subnet.prefix >= 96
                && net.to_ipv4_mapped().is_some()
                && shares_prefix(address.to_ipv6_mapped(), net, subnet.prefix)
        }
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            net.to_ipv4_mapped().is_none() && shares_prefix(address, net, subnet.prefix)
        }
    })
}

fn shares_prefix(one: Ipv6Addr, other: Ipv6Addr, prefix: u8) -> bool {
    let shift = 128 - u32::from(prefix);
    u128::from(one) >> shift == u128::from(other) >> shift
}

/// An address as ipaddr.js reads it; zones are dropped.
fn parse_ip(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return text.parse().ok().or_else(|| parse_odd_v4(text)).map(IpAddr::V4);
    }
    // std reads `::1.2.3.4`, which ipaddr.js does not.
    let strict = if text.contains('.') { None } else { text.parse().ok() };
    strict.or_else(|| parse_odd_v6(text)).map(IpAddr::V6)
}

fn parse_odd_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    let first = parts.next()?;
    let Some(second) = parts.next() else {
        return u32::try_from(v4_number(first)?).ok().map(Ipv4Addr::from);
    };
    let all = [Some(first), Some(second), parts.next(), parts.next()];
    for (octet, part) in octets.iter_mut().zip(all) {
        *octet = u8::try_from(v4_number(part?)?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// `parseIntAuto` on `0?\d+|0x[a-f0-9]+`: a leading zero means octal, cut at the first digit that is none.
fn v4_number(part: &str) -> Option<u64> {
    if !is_v4_part(part) {
        return None;
    }
    let bytes = part.as_bytes();
    match bytes {
        [b'0', b'x', hex @ ..] => Some(number(hex, 16)),
        [b'0', octal @ ..] => {
            let end = octal.iter().position(|b| !matches!(b, b'0'..=b'7')).unwrap_or(octal.len());
            Some(number(&octal[..end], 8))
        }
        _ => Some(number(bytes, 10)),
    }
}

fn is_v4_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    match bytes {
        [b'0', b'x' | b'X', hex @ ..] => !hex.is_empty() && hex.iter().all(u8::is_ascii_hexdigit),
        _ => !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit),
    }
}

/// Digits that have been checked; saturating, since every limit is far below.
fn number(digits: &[u8], radix: u32) -> u64 {
    digits.iter().fold(0u64, |sum, digit| {
        let digit = char::from(*digit).to_digit(radix).unwrap_or(0);
        sum.saturating_mul(u64::from(radix)).saturating_add(u64::from(digit))
    })
}

fn parse_odd_v6(text: &str) -> Option<Ipv6Addr> {
    let (text, zone) = text.split_once('%').map_or((text, None), |(text, zone)| (text, Some(zone)));
    if zone.is_some_and(|zone| zone.is_empty() || !zone.bytes().all(|b| b.is_ascii_alphanumeric())) {
        return None;
    }
    let colon = text.rfind(':')?;
    let tail = &text[colon + 1..];
    let (head, parts) = if tail.contains('.') { (&text[..=colon], 6) } else { (text, 8) };
    let is_groups = head.bytes().all(|b| b == b':' || b.is_ascii_hexdigit())
        && (!head.starts_with(':') || head.starts_with("::"))
        && !head.contains(":::");
    if !is_groups {
        return None;
    }
    let mut groups = [0u16; 8];
    if parts == 8 {
        expand(head, &mut groups)?;
    } else {
        expand(&head[..head.len() - 1], &mut groups[..6])?;
        let mut octets = [0u8; 4];
        let mut split = tail.split('.');
        for octet in &mut octets {
            let part = split.next().filter(|part| is_v4_part(part))?;
            // Here a leading zero is decimal: ipaddr.js calls parseInt without a radix.
            let value = match part.as_bytes() {
                [b'0', b'x' | b'X', hex @ ..] => number(hex, 16),
                decimal => number(decimal, 10),
            };
            *octet = u8::try_from(value).ok()?;
        }
        if split.next().is_some() {
            return None;
        }
        groups[6] = u16::from_be_bytes([octets[0], octets[1]]);
        groups[7] = u16::from_be_bytes([octets[2], octets[3]]);
    }
    Some(Ipv6Addr::from(groups))
}

/// `expandIPv6`: fills exactly `groups`. One colon too many at an end is forgiven, as there.
fn expand(text: &str, groups: &mut [u16]) -> Option<()> {
    if text.find("::") != text.rfind("::") {
        return None;
    }
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    let colons = colons - usize::from(text.starts_with("::")) - usize::from(text.ends_with("::"));
    let missing = groups.len().checked_sub(colons)?;
    let filled = text.replacen("::", &format!(":{}", "0:".repeat(missing)), 1);
    let filled = filled.strip_prefix(':').unwrap_or(&filled);
    let filled = filled.strip_suffix(':').unwrap_or(filled);
    let mut parts = filled.split(':');
    for group in groups {
        let part = parts.next().filter(|part| !part.is_empty())?;
        *group = u16::try_from(number(part.as_bytes(), 16)).ok()?;
    }
    parts.next().is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Result<Trust, (usize, String)> {
        Trust::new(TrustSetting::List(items.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn bad_items_are_named_by_index() {
        for bad in [
            "",
            "true",
            "localhost",
            " 10.0.0.1",
            "0.0.0.0/0",
            "10.0.0.0/33",
            "::/0",
            "::1/129",
            "10.0.0.0/",
            "10.0.0.0/x",
            "10.0.0.0/255.0.255.0",
            "::1/255.0.0.0",
            "10.0.0.0/0.0.0.0",
            "a/b/8",
            "10.0.0.1,10.0.0.2",
            "Loopback",
            "10.0.0.0/+8",
            "::1.2.3.4",
        ] {
            let (index, reason) = list(&["loopback", bad]).unwrap_err();
            assert_eq!(index, 1, "{bad}");
            assert!(!reason.is_empty());
        }
        assert!(list(&[]).is_ok());
        assert!(list(&["10.0.0.0/255.0.0.0", "::ffff:1.2.3.4", "::ffff:0:0/96", "10.0.0.0/08"]).is_ok());
    }

    #[test]
    fn unix_sockets_are_within_no_list() {
        assert!(!list(&["loopback", "::/1"]).unwrap().trusts_peer(None));
        assert!(Trust::new(TrustSetting::All).unwrap().trusts_peer(None));
        assert!(Trust::new(TrustSetting::Hops(1)).unwrap().trusts_peer(None));
        assert!(!Trust::new(TrustSetting::Hops(0)).unwrap().trusts_peer(None));
        assert!(!Trust::new(TrustSetting::None).unwrap().trusts_peer(None));
    }

    #[test]
    fn odd_spellings_are_read_as_ipaddr_js_reads_them() {
        for (text, want) in [
            ("0177.0.0.1", Some("127.0.0.1")),
            ("0x7f.0.0.1", Some("127.0.0.1")),
            ("0X7f.0.0.1", Some("0.0.0.1")),
            ("2130706433", Some("127.0.0.1")),
            ("4294967296", None),
            ("09.1.1.1", Some("0.1.1.1")),
            ("1.2.3", None),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("::ffff:010.0.0.1", Some("::ffff:10.0.0.1")),
            ("1:2:3:4:5:6:7:8:", Some("1:2:3:4:5:6:7:8")),
            ("1:2:3:4:5:6::1.2.3.4", Some("1:2:3:4:5:6:102:304")),
            ("::1.2.3.4", None),
            ("a:::1.2.3.4", None),
            (":1:2:3:4:5:6:7:8", None),
            ("fe80::1%eth0", Some("fe80::1")),
            ("fe80::1%", None),
            ("::1%25%1", None),
            ("12345::", None),
            ("::", Some("::")),
            (":", None),
            ("1.2.3.4:80", None),
            ("[::1]", None),
        ] {
            assert_eq!(parse_ip(text), want.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }
}
