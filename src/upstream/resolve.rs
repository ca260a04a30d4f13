//! Host names to addresses: looked up anew every `resolve`, in the background, and the last good answer stays when a name server does not.
//! One worker's, for one endpoint. Tests: below.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub(super) struct Name {
    host: String,
    port: u16,
    /// The last good answer.
    known: RefCell<Vec<SocketAddr>>,
    looked_up: Cell<Option<Instant>>,
    under_way: Cell<bool>,
    interval: Duration,
}

impl Name {
    /// An address that is no name is known at once and never looked up.
    pub(super) fn new(host: &str, port: u16, interval: Duration) -> Self {
        let known = host.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)).into_iter().collect();
        let (looked_up, under_way) = (Cell::new(None), Cell::new(false));
        Self { host: host.to_owned(), port, known: RefCell::new(known), looked_up, under_way, interval }
    }

    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    /// The addresses to try, in order.
    pub(super) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let known = self.known.borrow().clone();
        if known.is_empty() {
            self.refresh(Instant::now(), lookup).await?;
            return Ok(self.known.borrow().clone());
        }
        Ok(known)
    }

    /// The address that just worked is tried first from now on.
    pub(super) fn prefer(&self, address: SocketAddr) {
        let mut known = self.known.borrow_mut();
        if let Some(at @ 1..) = known.iter().position(|other| *other == address) {
            known[..=at].rotate_right(1);
        }
    }

    /// Should [`Self::refresh`] be called?
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let old = self.looked_up.get().is_some_and(|at| now.saturating_duration_since(at) >= self.interval);
        old && !self.under_way.get() && !self.is_address()
    }

    /// Looks the name up; `true` when an address that was known is gone. After an error what was known stays.
    pub(super) async fn refresh<F>(
        &self,
        now: Instant,
        lookup: impl FnOnce(String, u16) -> F,
    ) -> io::Result<bool>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        self.looked_up.set(Some(now));
        self.under_way.set(true);
        let found = lookup(self.host.clone(), self.port).await;
        self.under_way.set(false);
        let found = found?;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        let mut known = self.known.borrow_mut();
        let lost = known.iter().any(|address| !found.contains(address));
        // Those that still hold keep their order: the first one worked.
        known.retain(|address| found.contains(address));
        for address in found {
            if !known.contains(&address) {
                known.push(address);
            }
        }
        Ok(lost)
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// Asks the system.
pub(super) async fn lookup(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    async fn answer(name: &Name, now: Instant, found: io::Result<Vec<SocketAddr>>) -> io::Result<bool> {
        name.refresh(now, |_, _| std::future::ready(found)).await
    }

    #[tokio::test]
    async fn the_last_good_answer_stays_and_the_address_that_works_comes_first() {
        let (name, start) = (Name::new("app.internal", 80, Duration::from_secs(30)), Instant::now());
        assert!(!name.is_due(start), "nobody asked for it yet");
        assert!(!answer(&name, start, Ok(vec![at(1), at(2), at(3)])).await.unwrap());
        name.prefer(at(3));
        assert_eq!(name.addresses().await.unwrap(), [at(3), at(1), at(2)]);
        assert!(
            !name.is_due(start + Duration::from_secs(29)) && name.is_due(start + Duration::from_secs(30))
        );

        let later = start + Duration::from_secs(30);
        answer(&name, later, Err(io::ErrorKind::TimedOut.into())).await.unwrap_err();
        answer(&name, later, Ok(vec![])).await.unwrap_err();
        assert_eq!(name.addresses().await.unwrap().len(), 3);
        assert!(!name.is_due(later), "a name server that is down is not asked more often");

        assert!(!answer(&name, later, Ok(vec![at(4), at(1), at(2), at(3)])).await.unwrap());
        assert!(answer(&name, later, Ok(vec![at(5), at(2)])).await.unwrap(), "3, 1 and 4 are gone");
        assert_eq!(name.addresses().await.unwrap(), [at(2), at(5)]);
    }

    #[tokio::test]
    async fn an_address_is_never_looked_up_and_a_name_that_is_none_is_an_error() {
        let name = Name::new("::1", 80, Duration::ZERO);
        assert_eq!(name.addresses().await.unwrap(), ["[::1]:80".parse().unwrap()]);
        assert!(!name.is_due(Instant::now()));
        let name = Name::new("localhost", 80, Duration::ZERO);
        assert!(name.addresses().await.unwrap().iter().all(|address| address.ip().is_loopback()));
        assert!(name.is_due(Instant::now()));
    }
}
