//! How much is sent again: at most a fifth of an upstream's requests over a window, and a floor for small traffic. An app that fails under
//! load must not get twice the load for it. One worker's; tests: below.

use std::cell::Cell;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
/// Retries that every window may hold.
const FLOOR: u32 = 100;
/// One in so many requests may be sent again.
const ONE_IN: u32 = 5;

pub(super) struct Budget {
    /// Of this window and the one before it.
    requests: [Cell<u32>; 2],
    retries: [Cell<u32>; 2],
    began: Cell<Instant>,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { requests: Default::default(), retries: Default::default(), began: Cell::new(now) }
    }

    /// A request came.
    pub(super) fn request(&self) {
        add(&self.requests[0]);
    }

    /// May one be sent again? If so, that counts.
    pub(super) fn take(&self) -> bool {
        let sum = |counts: &[Cell<u32>; 2]| counts[0].get().saturating_add(counts[1].get());
        let granted = sum(&self.retries) < (sum(&self.requests) / ONE_IN).saturating_add(FLOOR);
        if granted {
            add(&self.retries[0]);
        }
        granted
    }

    /// Called now and then: begins a new window when the old one is over.
    pub(super) fn turn(&self, now: Instant) {
        if now.saturating_duration_since(self.began.get()) < WINDOW {
            return;
        }
        self.began.set(now);
        for counts in [&self.requests, &self.retries] {
            counts[1].set(counts[0].replace(0));
        }
    }
}

fn add(count: &Cell<u32>) {
    count.set(count.get().saturating_add(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(budget: &Budget) -> u32 {
        (0..1_000_000).take_while(|_| budget.take()).count().try_into().unwrap()
    }

    #[test]
    fn a_fifth_of_the_requests_and_a_floor() {
        let start = Instant::now();
        let budget = Budget::new(start);
        assert_eq!(granted(&budget), FLOOR);
        (0..1000).for_each(|_| budget.request());
        assert_eq!(granted(&budget), 200);
        assert!(!budget.take());
        // What was spent counts for one more window.
        budget.turn(start + WINDOW);
        assert!(!budget.take());
        budget.turn(start + WINDOW + WINDOW);
        assert_eq!(granted(&budget), FLOOR);
    }
}
