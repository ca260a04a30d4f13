//! `limits.connections_per_peer`: connections by the address that they come from, over all workers and listeners.
//!
//! An IPv6 peer is its /64 network: one household has all of it. Loopback and unix sockets are not counted: what comes from there is
//! a balancer on this machine. Tests: below, and `tests/it/abuse.rs`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One for the process; locked twice for each connection, and only with a limit.
#[derive(Clone, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<u128, usize>>>);

/// A peer has one connection more until this is dropped.
pub(super) struct PeerSeat {
    peers: Peers,
    key: u128,
}

impl Peers {
    /// Counts a connection of `ip`; `Err`: the peer has `most` already. `Ok(None)`: it is not counted.
    pub(super) fn sit(&self, ip: Option<IpAddr>, most: usize) -> Result<Option<PeerSeat>, ()> {
        let Some(ip) = ip.filter(|ip| !ip.is_loopback()) else { return Ok(None) };
        let key = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            // An IPv4 address within IPv6 is its own network: peers are canonical.
            IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
        };
        let mut peers = self.lock();
        let open = peers.entry(key).or_default();
        if *open >= most {
            return Err(());
        }
        *open += 1;
        Ok(Some(PeerSeat { peers: self.clone(), key }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PeerSeat {
    fn drop(&mut self) {
        let mut peers = self.peers.lock();
        if let Some(open) = peers.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                peers.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_a_network_and_leaves_nothing_behind() {
        let peers = Peers::default();
        let sit = |ip: &str| peers.sit(ip.parse().ok(), 2);
        let first = sit("192.0.2.1").unwrap().unwrap();
        let second = sit("192.0.2.1").unwrap().unwrap();
        assert!(sit("192.0.2.1").is_err());
        assert!(sit("192.0.2.2").is_ok_and(|seat| seat.is_some()), "and goes at once");
        drop(first);
        let third = sit("192.0.2.1").unwrap();
        assert!(sit("192.0.2.1").is_err());
        let network = [sit("2001:db8::1").unwrap(), sit("2001:db8::ffff:0:0:2").unwrap()];
        assert!(sit("2001:db8::3").is_err());
        let neighbour = sit("2001:db8:0:1::1").unwrap();
        for uncounted in ["127.0.0.1", "127.9.9.9", "::1", "no address"] {
            for _ in 0..5 {
                assert!(sit(uncounted).is_ok_and(|seat| seat.is_none()), "{uncounted}");
            }
        }
        assert_eq!(peers.lock().len(), 3);
        drop((second, third, network, neighbour));
        assert!(peers.lock().is_empty());
    }
}
