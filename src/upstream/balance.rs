//! Who gets the next request. Knows no sockets and no sessions: a session is some bytes. One worker's; tests: below.

use super::options::{Balance, Endpoint};
use std::cell::Cell;

/// Endpoints that a request has tried: a bit each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tried(u64);

/// The most endpoints of an upstream.
pub const MOST_ENDPOINTS: usize = 64;

impl Tried {
    pub(super) fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(super) fn has(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    pub(super) fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

pub(super) struct Balancer {
    balance: Balance,
    /// What tells an endpoint from others when sessions are dealt out; the same in every process.
    keys: Vec<u64>,
    next: Cell<usize>,
    random: Cell<u64>,
}

impl Balancer {
    pub(super) fn new(balance: Balance, endpoints: &[Endpoint]) -> Self {
        let keys = endpoints.iter().map(|endpoint| hash(endpoint.to_string().as_bytes())).collect();
        let mut seed = [0_u8; 8];
        // Without randomness the lots of all workers fall alike, which is no harm.
        let _ = getrandom::fill(&mut seed);
        let random = Cell::new(u64::from_ne_bytes(seed));
        Self { balance, keys, next: Cell::new(0), random }
    }

    /// An endpoint that was not tried and admits a request; if there is none, one that only comes back, one that was not tried, any.
    /// `admits` is told a number from 0 to 1 that decides in doubt.
    pub(super) fn pick(
        &self,
        affinity: Option<&[u8]>,
        tried: Tried,
        load: impl Fn(usize) -> usize,
        admits: impl Fn(usize, f64) -> bool,
    ) -> usize {
        let count = self.keys.len();
        if count == 1 {
            return 0;
        }
        let session = affinity.filter(|_| self.balance == Balance::Sticky).map(hash);
        let admitted = |index: usize| {
            let draw = session.unwrap_or_else(|| self.random());
            !tried.has(index) && admits(index, unit(mix(draw ^ self.keys[index])))
        };
        let in_service = |index: usize| !tried.has(index) && admits(index, 0.0);
        let untried = |index: usize| !tried.has(index);
        let choose = |may: &dyn Fn(usize) -> bool| match (session, self.balance) {
            (Some(session), _) => self.highest(session, may),
            (None, Balance::RoundRobin) => self.in_turn(tried, may),
            (None, _) => self.less_busy(&load, may),
        };
        choose(&admitted)
            .or_else(|| choose(&in_service))
            .or_else(|| choose(&untried))
            .or_else(|| choose(&|_| true))
            .unwrap_or(0)
    }

    fn in_turn(&self, tried: Tried, may: &dyn Fn(usize) -> bool) -> Option<usize> {
        let count = self.keys.len();
        let first = self.next.get();
        let index = (0..count).map(|step| (first + step) % count).find(|&index| may(index))?;
        // After the one that was chosen, not after the one whose turn it was: else who follows a dead one gets its share too. A second
        // try is out of turn: else a broken one would be next again.
        if tried.count() == 0 {
            self.next.set((index + 1) % count);
        }
        Some(index)
    }

    /// Rendezvous: every pair of session and endpoint has a rank, so that the loss of one endpoint moves its sessions only.
    fn highest(&self, session: u64, may: &dyn Fn(usize) -> bool) -> Option<usize> {
        let rank = |&index: &usize| mix(session ^ self.keys[index]);
        // By rank first and then by leave: who may not has its sessions go to their second choice.
        (0..self.keys.len()).filter(|&index| may(index)).max_by_key(rank)
    }

    fn less_busy(&self, load: &impl Fn(usize) -> usize, may: &dyn Fn(usize) -> bool) -> Option<usize> {
        let one = self.draw(may, None)?;
        Some(match self.draw(may, Some(one)) {
            Some(other) if load(other) < load(one) => other,
            _ => one,
        })
    }

    /// One by lot, but not `except`. Two lots are drawn blindly, which nearly always do; then all are looked at.
    fn draw(&self, may: &dyn Fn(usize) -> bool, except: Option<usize>) -> Option<usize> {
        let right = |index: &usize| Some(*index) != except && may(*index);
        let count = self.keys.len();
        let lot = |among: usize| usize::try_from(self.random() % among.max(1) as u64).unwrap_or(0);
        let blind = [lot(count), lot(count)].into_iter().find(right);
        blind.or_else(|| {
            let first = lot(count);
            (0..count).map(|step| (first + step) % count).find(right)
        })
    }

    fn random(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(next);
        mix(next)
    }
}

/// FNV-1a, mixed: spread, not secret. Who could choose ids that fall on one endpoint has signed ids already.
fn hash(bytes: &[u8]) -> u64 {
    let sum = bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    mix(sum)
}

/// The finalizer of splitmix64.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// The upper bits as a number from 0 to 1.
fn unit(word: u64) -> f64 {
    f64::from(u32::try_from(word >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(balance: Balance, count: u16) -> Balancer {
        let endpoints: Vec<Endpoint> =
            (0..count).map(|n| Endpoint::Http { host: "app".to_owned(), port: 3000 + n }).collect();
        Balancer::new(balance, &endpoints)
    }

    fn tried(list: &[usize]) -> Tried {
        let mut tried = Tried::default();
        list.iter().for_each(|&index| tried.add(index));
        tried
    }

    fn spread(count: usize, picks: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut spread = vec![0; count];
        picks.for_each(|index| spread[index] += 1);
        spread
    }

    #[test]
    fn in_turn_and_fair_without_the_dead() {
        let balancer = balancer(Balance::RoundRobin, 3);
        let pick = |admits: fn(usize) -> bool| {
            balancer.pick(None, Tried::default(), |_| 0, |index, _| admits(index))
        };
        assert_eq!([(); 6].map(|()| pick(|_| true)), [0, 1, 2, 0, 1, 2]);
        let mut again = Tried::default();
        again.add(0);
        assert_eq!(balancer.pick(None, again, |_| 0, |_, _| true), 1);
        assert_eq!([(); 3].map(|()| pick(|_| true)), [0, 1, 2]);
        assert_eq!(spread(3, (0..100).map(|_| pick(|index| index != 0))), [0, 50, 50]);
    }

    #[test]
    fn of_two_the_less_busy() {
        let balancer = balancer(Balance::LeastRequests, 2);
        for loads in [[0, 1], [7, 3]] {
            let want = usize::from(loads[1] < loads[0]);
            for _ in 0..100 {
                assert_eq!(balancer.pick(None, Tried::default(), |index| loads[index], |_, _| true), want);
            }
        }
        let even = spread(2, (0..1000).map(|_| balancer.pick(None, Tried::default(), |_| 0, |_, _| true)));
        assert!(even.iter().all(|&count| count > 400), "{even:?}");
    }

    #[test]
    fn what_was_tried_or_is_out_comes_last_but_somebody_always_comes() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Sticky] {
            let balancer = balancer(balance, 4);
            for turn in 0..200_u32 {
                let sid = turn.to_string();
                let pick = |list: &[usize], out: &'static [usize]| {
                    balancer.pick(
                        Some(sid.as_bytes()),
                        tried(list),
                        |_| 0,
                        move |index, _| !out.contains(&index),
                    )
                };
                assert_eq!(pick(&[0, 1], &[2]), 3, "{balance:?}");
                assert_eq!(pick(&[], &[0, 1, 2]), 3, "{balance:?}");
                assert_eq!(pick(&[0, 1, 3], &[0, 1, 2, 3]), 2, "panic, {balance:?}");
                assert!(pick(&[0, 1, 2, 3], &[0, 1, 2, 3]) < 4);
            }
        }
    }

    #[test]
    fn who_comes_back_is_asked_before_who_is_out() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Sticky] {
            let balancer = balancer(balance, 3);
            for turn in 0..100_u32 {
                let sid = turn.to_string();
                let comes_back = |index, draw| index == 1 && draw < 0.01;
                assert_eq!(balancer.pick(Some(sid.as_bytes()), Tried::default(), |_| 0, comes_back), 1);
            }
        }
    }

    #[test]
    fn a_lost_endpoint_moves_its_own_sessions_only_and_they_spread() {
        let balancer = balancer(Balance::Sticky, 4);
        let sids: Vec<String> = (0..4000).map(|n| format!("session {n}")).collect();
        let of = |sid: &String, out: usize| {
            balancer.pick(Some(sid.as_bytes()), Tried::default(), |_| 0, |index, _| index != out)
        };
        let before: Vec<usize> = sids.iter().map(|sid| of(sid, 9)).collect();
        let shares = spread(4, before.iter().copied());
        assert!(shares.iter().all(|&count| (800..1200).contains(&count)), "{shares:?}");
        let moved: Vec<usize> = sids
            .iter()
            .zip(&before)
            .filter_map(|(sid, &old)| {
                let new = of(sid, 2);
                assert!(old == 2 || new == old, "{sid} moved from {old} to {new}");
                (old == 2).then_some(new)
            })
            .collect();
        let heirs = spread(4, moved.into_iter());
        assert!(heirs[2] == 0 && [0, 1, 3].iter().all(|&index| heirs[index] > 200), "{heirs:?}");
        assert_eq!(of(&"a".to_owned(), 9), of(&"a".to_owned(), 9));
    }

    #[test]
    fn a_session_moves_once_while_its_endpoint_comes_back() {
        let balancer = balancer(Balance::Sticky, 3);
        for n in 0..500 {
            let sid = format!("session {n}");
            let at = |share: f64| {
                balancer.pick(
                    Some(sid.as_bytes()),
                    Tried::default(),
                    |_| 0,
                    |index, draw| index != 1 || draw < share,
                )
            };
            let path: Vec<usize> = (0..=10).map(|step| at(f64::from(step) / 10.0)).collect();
            let moves = path.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(moves <= 1, "{path:?}");
        }
    }
}
