//! Is an endpoint in service? Failures in a row take it out for a while, active checks take it out until they pass; after either it comes
//! back slowly. Knows no sockets; `now` is an argument.
//!
//! One [`Group`] for the whole process: what one worker learns, all know. On the way of a request an endpoint without trouble
//! costs one relaxed load; the lock is taken only while there is trouble. Tests: below, `tests/it/upstream_failover.rs`.

use super::options::Ejection;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest ejection, unless `eject_for` itself is longer.
const LONGEST: Duration = Duration::from_secs(300);
/// The share of its requests that an endpoint gets at first when it comes back: one in twenty.
const TRICKLE: f64 = 0.05;

/// What the workers know together of one upstream's endpoints.
pub struct Group {
    states: Vec<State>,
    ejection: Ejection,
    /// Some worker looks after the checks and the gauges.
    claimed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Anything but plainly in service; kept beside the lock for those who only choose.
    trouble: AtomicBool,
    /// In a row.
    failures: AtomicU32,
    detail: Mutex<Detail>,
}

#[derive(Debug, Default)]
struct Detail {
    phase: Phase,
    /// Ejections since it last came back for good.
    ejections: u32,
    unhealthy: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum Phase {
    #[default]
    In,
    Out {
        until: Instant,
    },
    /// Gets more and more of its share; `proven` by a first success.
    Back {
        since: Instant,
        proven: bool,
    },
}

/// What changed for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It went out after so many failures in a row, for this long.
    Ejected(u32, Duration),
    /// It is back.
    Returned,
    /// Checks fail.
    Unhealthy,
    /// Checks pass again.
    Healthy,
}

impl Change {
    pub(super) fn is_up(self) -> bool {
        matches!(self, Self::Returned | Self::Healthy)
    }
}

impl Group {
    /// `endpoints` of them, all in service.
    pub fn new(endpoints: usize, ejection: Ejection) -> Self {
        let states = std::iter::repeat_with(State::default).take(endpoints).collect();
        Self { states, ejection, claimed: AtomicBool::new(false) }
    }

    /// True for one caller, until that one [`Self::disclaim`]s.
    pub(super) fn claim(&self) -> bool {
        !self.claimed.load(Ordering::Relaxed) && !self.claimed.swap(true, Ordering::AcqRel)
    }

    pub(super) fn disclaim(&self) {
        self.claimed.store(false, Ordering::Release);
    }

    /// May it get a request now? `draw` is a number from 0 to 1 that decides while it comes back: a random one, or the session's own, so
    /// that a session moves once.
    pub(super) fn admits(&self, index: usize, draw: f64, now: impl FnOnce() -> Instant) -> bool {
        let Some(state) = self.states.get(index) else { return false };
        if !state.trouble.load(Ordering::Relaxed) {
            return true;
        }
        let (mut detail, now) = (state.lock(), now());
        if let Phase::Out { until } = detail.phase
            && until <= now
        {
            detail.phase = Phase::Back { since: now, proven: false };
        }
        match detail.phase {
            _ if detail.unhealthy => false,
            Phase::In => true,
            Phase::Out { .. } => false,
            Phase::Back { since, .. } => draw < self.share(now.saturating_duration_since(since)),
        }
    }

    /// What part of its requests an endpoint gets that came back so long ago.
    fn share(&self, since: Duration) -> f64 {
        (since.as_secs_f64() / self.ejection.span.as_secs_f64()).max(TRICKLE)
    }

    /// It answered.
    pub(super) fn succeeded(&self, index: usize, now: impl FnOnce() -> Instant) -> Option<Change> {
        let state = self.states.get(index)?;
        if state.failures.load(Ordering::Relaxed) != 0 {
            state.failures.store(0, Ordering::Relaxed);
        }
        if !state.trouble.load(Ordering::Relaxed) {
            return None;
        }
        let (mut detail, now) = (state.lock(), now());
        let was_up = detail.is_up();
        match detail.phase {
            Phase::In => {}
            // It was asked because everybody was out, and it works.
            Phase::Out { .. } => detail.phase = Phase::Back { since: now, proven: true },
            Phase::Back { since, .. } if now.saturating_duration_since(since) >= self.ejection.span => {
                detail.phase = Phase::In;
                detail.ejections = 0;
            }
            Phase::Back { since, .. } => detail.phase = Phase::Back { since, proven: true },
        }
        state.settle(&detail);
        (!was_up && detail.is_up()).then_some(Change::Returned)
    }

    /// It did not answer. The last one in service stays in, however often it fails.
    pub(super) fn failed(&self, index: usize, now: Instant) -> Option<Change> {
        let state = self.states.get(index)?;
        let failures = state.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if self.ejection.after == 0 || !self.another_is_up(index) {
            return None;
        }
        let mut detail = state.lock();
        let was_up = detail.is_up();
        let due = match detail.phase {
            Phase::In => failures >= self.ejection.after,
            Phase::Out { .. } => false,
            // Who comes back has one try.
            Phase::Back { .. } => true,
        };
        if !due {
            return None;
        }
        let span = self.ejection.span.saturating_mul(1 << detail.ejections.min(16));
        let span = span.min(LONGEST.max(self.ejection.span));
        detail.ejections = detail.ejections.saturating_add(1);
        detail.phase = Phase::Out { until: now + span };
        state.settle(&detail);
        was_up.then_some(Change::Ejected(failures, span))
    }

    /// What the active checks say.
    pub(super) fn checked(&self, index: usize, healthy: bool, now: Instant) -> Option<Change> {
        let state = self.states.get(index)?;
        let mut detail = state.lock();
        if detail.unhealthy != healthy {
            return None;
        }
        let was_up = detail.is_up();
        detail.unhealthy = !healthy;
        if healthy {
            // The check is the proof; the slow return is for the app, which may have to warm up.
            detail.phase = Phase::Back { since: now, proven: true };
            state.failures.store(0, Ordering::Relaxed);
        }
        state.settle(&detail);
        let change = if healthy { Change::Healthy } else { Change::Unhealthy };
        (was_up != detail.is_up()).then_some(change)
    }

    /// As the gauge shows it.
    pub(super) fn is_up(&self, index: usize) -> bool {
        self.states
            .get(index)
            .is_some_and(|state| !state.trouble.load(Ordering::Relaxed) || state.lock().is_up())
    }

    fn another_is_up(&self, index: usize) -> bool {
        (0..self.states.len()).any(|other| other != index && self.is_up(other))
    }
}

/// Options are compared by their text, and this is no option.
impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Group")
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Detail> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, detail: &Detail) {
        self.trouble.store(detail.unhealthy || !matches!(detail.phase, Phase::In), Ordering::Relaxed);
    }
}

impl Detail {
    fn is_up(&self) -> bool {
        !self.unhealthy && matches!(self.phase, Phase::In | Phase::Back { proven: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(5);

    fn group(endpoints: usize) -> (Group, Instant) {
        (Group::new(endpoints, Ejection { after: 3, span: SPAN }), Instant::now())
    }

    fn fail(group: &Group, index: usize, times: usize, now: Instant) -> Option<Change> {
        (0..times).fold(None, |_, _| group.failed(index, now))
    }

    #[test]
    fn failures_in_a_row_eject_for_a_growing_time_and_a_success_in_between_does_not_count() {
        let (group, start) = group(2);
        assert_eq!(fail(&group, 0, 2, start), None);
        assert_eq!(group.succeeded(0, || start), None);
        assert_eq!(fail(&group, 0, 2, start), None);
        assert_eq!(group.failed(0, start), Some(Change::Ejected(3, SPAN)));
        assert!(!group.is_up(0) && !group.admits(0, 0.0, || start + SPAN / 2));
        // One failure of who comes back, and it is out for longer.
        let mut now = start;
        for turn in 1..=8_u32 {
            now += LONGEST;
            assert!(group.admits(0, 0.01, || now));
            let span = (SPAN * (1 << turn)).min(LONGEST);
            assert_eq!(group.failed(0, now), None, "it never was up");
            assert!(!group.admits(0, 0.0, || now + span - Duration::from_millis(1)));
            assert!(group.admits(0, 0.0, || now + span));
        }
    }

    #[test]
    fn it_comes_back_as_a_trickle_that_grows() {
        let (group, start) = group(2);
        fail(&group, 0, 3, start);
        let back = start + SPAN;
        assert!(group.admits(0, 0.04, || back) && !group.admits(0, 0.06, || back));
        assert!(!group.is_up(0), "nothing is proven yet");
        assert_eq!(group.succeeded(0, || back), Some(Change::Returned));
        assert!(group.is_up(0));
        assert!(group.admits(0, 0.4, || back + SPAN / 2) && !group.admits(0, 0.6, || back + SPAN / 2));
        assert!(group.admits(0, 0.999, || back + SPAN));
        assert_eq!(group.succeeded(0, || back + SPAN), None);
        // All is forgotten: three failures again, and the first span again.
        assert_eq!(fail(&group, 0, 2, back + SPAN), None);
        assert_eq!(group.failed(0, back + SPAN), Some(Change::Ejected(3, SPAN)));
    }

    #[test]
    fn the_last_one_stays_in() {
        let (pair, now) = group(2);
        fail(&pair, 0, 3, now);
        assert_eq!(fail(&pair, 1, 100, now), None);
        assert!(pair.is_up(1));
        let (alone, now) = group(1);
        assert_eq!(fail(&alone, 0, 100, now), None);
        assert!(alone.is_up(0));
    }

    #[test]
    fn checks_take_out_and_bring_back_once() {
        let (group, now) = group(1);
        assert_eq!(group.checked(0, true, now), None);
        assert_eq!(group.checked(0, false, now), Some(Change::Unhealthy));
        assert_eq!(group.checked(0, false, now), None);
        assert!(!group.admits(0, 0.0, || now));
        assert_eq!(group.succeeded(0, || now), None, "an answer in panic mode does not overrule the checks");
        assert_eq!(group.checked(0, true, now), Some(Change::Healthy));
        assert!(group.is_up(0) && group.admits(0, 0.04, || now) && !group.admits(0, 0.5, || now));
        group.succeeded(0, || now + SPAN);
        assert!(group.admits(0, 0.999, || now));
    }

    #[test]
    fn it_never_ejects_when_told_so_and_has_one_keeper() {
        let group = Group::new(2, Ejection { after: 0, span: SPAN });
        assert_eq!(fail(&group, 0, 100, Instant::now()), None);
        assert!(group.claim() && !group.claim());
        group.disclaim();
        assert!(group.claim());
    }
}
