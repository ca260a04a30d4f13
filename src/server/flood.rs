//! HTTP/2 frames that cost us work and the client nothing: how many of them one connection may send.
//!
//! h2 bounds memory: CONTINUATION frames, resets before a request is taken, one unanswered PING and SETTINGS at a time. What it does not
//! bound is work: pings, settings, window updates, priorities, empty frames, and requests that are cancelled as soon as they are
//! with the app. Here they are counted while they pass, in leaking buckets: a limit is per second, on average and at once. Whoever moves
//! data or asks for something may send more. Tests: below, and `tests/it/abuse.rs`.

use super::ServerOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What one control frame weighs against bytes that move in either direction: a window update for each KiB is free.
const FRAME: u64 = 1024;
/// A request comes with control frames of its own.
const REQUEST: u64 = 2 * FRAME;

/// The buckets of one connection. Atomics, because hyper wants streams to be Send; nothing is contended.
pub(super) struct Flood {
    most_frames: u64,
    most_resets: u64,
    frames: AtomicU64,
    resets: AtomicU64,
    over_frames: AtomicBool,
    over_resets: AtomicBool,
}

impl Flood {
    pub(super) fn new(options: &ServerOptions) -> Arc<Self> {
        Arc::new(Self {
            most_frames: u64::from(options.max_control_frames) * FRAME,
            most_resets: u64::from(options.max_resets),
            frames: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            over_frames: AtomicBool::new(false),
            over_resets: AtomicBool::new(false),
        })
    }

    /// A request ended before its answer did.
    pub(super) fn cut_short(&self) {
        let resets = self.resets.load(Relaxed) + 1;
        self.resets.store(resets, Relaxed);
        if resets > self.most_resets {
            self.over_resets.store(true, Relaxed);
        }
    }

    /// Bytes went out.
    pub(super) fn sent(&self, bytes: usize) {
        self.relieve(bytes as u64);
    }

    /// Half a second has passed.
    pub(super) fn leak(&self) {
        self.relieve(self.most_frames / 2);
        self.resets.store(self.resets.load(Relaxed).saturating_sub((self.most_resets / 2).max(1)), Relaxed);
    }

    /// The limit that the connection went over; it must end.
    pub(super) fn verdict(&self) -> Option<&'static str> {
        match (self.over_frames.load(Relaxed), self.over_resets.load(Relaxed)) {
            (true, _) => Some("control_frames"),
            (_, true) => Some("resets"),
            _ => None,
        }
    }

    fn relieve(&self, weight: u64) {
        self.frames.store(self.frames.load(Relaxed).saturating_sub(weight), Relaxed);
    }

    fn control_frame(&self) {
        let frames = self.frames.load(Relaxed) + FRAME;
        self.frames.store(frames, Relaxed);
        if frames > self.most_frames {
            self.over_frames.store(true, Relaxed);
        }
    }
}

/// Reads the heads of the frames that a client sends.
pub(super) struct Meter {
    pub(super) flood: Arc<Flood>,
    /// Bytes that belong to no frame head: the preface, then payloads.
    skip: usize,
    head: [u8; 9],
    have: usize,
}

const PREFACE_LENGTH: usize = 24;

impl Meter {
    pub(super) fn new(flood: Arc<Flood>) -> Self {
        Self { flood, skip: PREFACE_LENGTH, head: [0; 9], have: 0 }
    }

    /// Bytes came in.
    pub(super) fn received(&mut self, mut bytes: &[u8]) {
        self.flood.relieve(bytes.len() as u64);
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (self.head.len() - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.head.len() {
                self.have = 0;
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const END_STREAM: u8 = 1;
        match kind {
            DATA if self.skip > 0 || flags & END_STREAM != 0 => {}
            HEADERS => self.flood.relieve(REQUEST),
            _ => self.flood.control_frame(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::options;
    use proptest::prelude::*;

    fn meter(frames: u32, resets: u32) -> Meter {
        let flood =
            Flood::new(&ServerOptions { max_control_frames: frames, max_resets: resets, ..options() });
        let mut meter = Meter::new(flood);
        meter.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        meter
    }

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + length, b'x');
        bytes
    }

    /// How many of these in a row are too many; `None`: none of 100 000 was.
    fn too_many(meter: &mut Meter, frame: &[u8]) -> Option<usize> {
        (1..=100_000).find(|_| {
            meter.received(frame);
            meter.flood.verdict().is_some()
        })
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_and_what_carries_something_pays_for_them() {
        for (name, kind, flags, length) in [
            ("ping", 6, 0, 8),
            ("settings", 4, 0, 0),
            ("window", 8, 0, 4),
            ("empty data", 0, 0, 0),
            ("reset", 3, 0, 4),
            ("unknown", 99, 0, 1),
        ] {
            let counted = too_many(&mut meter(1000, 10), &frame(kind, flags, length))
                .unwrap_or_else(|| panic!("{name}"));
            assert!((1001..1030).contains(&counted), "{name}: {counted}");
        }
        for (name, kind, flags, length) in
            [("data", 0, 0, 1), ("the last data", 0, 1, 0), ("headers", 1, 5, 10)]
        {
            assert_eq!(too_many(&mut meter(1000, 10), &frame(kind, flags, length)), None, "{name}");
        }
        let with_window = [frame(0, 0, 1024), frame(8, 0, 4)].concat();
        assert_eq!(too_many(&mut meter(1000, 10), &with_window), None, "an upload with its window updates");
        let request = [frame(1, 4, 40), frame(0, 1, 0), frame(8, 0, 4), frame(6, 0, 8)].concat();
        assert_eq!(too_many(&mut meter(1000, 10), &request), None, "requests with pings");
        let mut download = meter(1000, 10);
        for _ in 0..100_000 {
            download.flood.sent(1100);
            download.received(&frame(8, 0, 4));
        }
        assert_eq!(download.flood.verdict(), None);
    }

    #[test]
    fn half_a_second_takes_half_of_the_limit() {
        let meter = &mut meter(1000, 10);
        for _ in 0..10 {
            (0..500).for_each(|_| meter.received(&frame(6, 0, 8)));
            meter.flood.leak();
        }
        assert_eq!(meter.flood.verdict(), None);
        (0..10).for_each(|_| meter.flood.cut_short());
        meter.flood.leak();
        (0..5).for_each(|_| meter.flood.cut_short());
        assert_eq!(meter.flood.verdict(), None);
        meter.flood.cut_short();
        assert_eq!(meter.flood.verdict(), Some("resets"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(
            frames in proptest::collection::vec((0_u8..12, any::<u8>(), 0_usize..40), 0..60),
            cuts in proptest::collection::vec(1_usize..50, 1..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
            let control = frames.iter().filter(|(kind, flags, length)| match kind {
                0 => *length == 0 && flags & 1 == 0,
                kind => *kind != 1,
            });
            let expected = control.count();
            // So large a limit never leaks, and nothing is relieved when counting alone.
            let mut whole = meter(u32::MAX, 10);
            whole.flood.frames.store(1 << 40, Relaxed);
            whole.received(&bytes);
            let mut pieces = meter(u32::MAX, 10);
            pieces.flood.frames.store(1 << 40, Relaxed);
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                pieces.received(piece);
                rest = after;
            }
            let level = |meter: &Meter| meter.flood.frames.load(Relaxed);
            prop_assert_eq!(level(&whole), level(&pieces));
            let headers = frames.iter().filter(|(kind, ..)| *kind == 1).count();
            let weight = (1_u64 << 40) + expected as u64 * FRAME - headers as u64 * REQUEST - bytes.len() as u64;
            prop_assert_eq!(level(&whole), weight);
        }
    }
}
