//! The access log: one line per request, on stdout; text on a terminal, JSON otherwise.
//!
//! A line is written by hand into a buffer of the worker (a tenth of what a `tracing` event costs); full buffers go to one
//! writer thread over a bounded channel. A stdout that is slow or gone costs lines, which are counted, and never a request.
//! How a line looks is `line`'s business. Tests: at the end of this file.

use super::counters::Counters;
use super::line::{render_json, render_text};
use super::log::Format;
use std::cell::RefCell;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

pub use super::line::AccessLine;

/// A buffer is handed over when it holds this many bytes.
const BUFFER: usize = 16 * 1024;
/// How many buffers may wait for the writer, of all workers: 4 MiB. Past that, lines are dropped.
const WAITING: usize = 256;
/// How long the writer waits when a non-blocking stdout is full.
const RETRY: Duration = Duration::from_millis(10);

/// The writer thread and the way to it; one for the process.
pub struct AccessWriter {
    sink: Sink,
    ending: Arc<AtomicBool>,
    done: Receiver<()>,
}

/// The way to the writer thread; cheap to clone, may move between threads.
#[derive(Clone)]
pub struct Sink {
    buffers: SyncSender<Buffer>,
    text: bool,
    immediate: bool,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    counters: Arc<Counters>,
}

/// One worker's access log. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    worker: Rc<Worker>,
}

struct Worker {
    buffer: RefCell<Buffer>,
    sink: Option<Sink>,
}

impl AccessWriter {
    /// Starts the writer on stdout.
    ///
    /// # Errors
    /// When stdout is closed or no thread can be had.
    pub fn stdout(format: Format) -> io::Result<Self> {
        use std::os::fd::AsFd;
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        // The file behind stdout, not `Stdout`: its own line buffer would copy and look for line ends again.
        let file = std::fs::File::from(stdout.as_fd().try_clone_to_owned()?);
        Self::start(file, format, terminal)
    }

    /// Starts the writer on anything; `terminal`: a person reads it, so lines go out at once.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(out: impl Write + Send + 'static, format: Format, terminal: bool) -> io::Result<Self> {
        let (buffers, incoming) = sync_channel(WAITING);
        let (finished, done) = sync_channel(1);
        let ending = Arc::<AtomicBool>::default();
        let last_round = Arc::clone(&ending);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            write_all_buffers(out, &incoming, &last_round);
            // Nobody waits any more if this fails.
            let _ = finished.send(());
        })?;
        Ok(Self { sink: Sink { buffers, text: format.is_text(terminal), immediate: terminal }, ending, done })
    }

    /// What a worker needs for its [`AccessLog`].
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Waits until everything handed over so far is written; `false` when `within` passed before. It waits for no
    /// [`AccessLog`] and no [`Sink`]: one that a stuck worker still holds must not hold up the end of the process.
    pub fn finish(self, within: Duration) -> bool {
        self.ending.store(true, Ordering::Release);
        // Wakes a writer that waits. When there is no room for it, the writer has work and looks at `ending` after it.
        let _ = self.sink.buffers.try_send(Buffer::default());
        self.done.recv_timeout(within).is_ok()
    }
}

/// The next buffer; `None` at the end: nobody can send any more, or the end was asked for and nothing waits.
fn next_buffer(incoming: &Receiver<Buffer>, ending: &AtomicBool) -> Option<Buffer> {
    match incoming.try_recv() {
        Ok(buffer) => Some(buffer),
        Err(TryRecvError::Empty) if !ending.load(Ordering::Acquire) => incoming.recv().ok(),
        Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
    }
}

fn write_all_buffers(mut out: impl Write, incoming: &Receiver<Buffer>, ending: &AtomicBool) {
    while let Some(buffer) = next_buffer(incoming, ending) {
        if write_patiently(&mut out, &buffer.bytes).is_err() {
            // The reader is gone (EPIPE) or the disk is full. The next buffer is tried again: a disk may be emptied.
            buffer.counters.access_lines_dropped.add(buffer.lines);
        }
    }
    let _ = out.flush();
}

/// `write_all` that also waits for a stdout that somebody set to non-blocking. Only the writer thread waits.
fn write_patiently(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl AccessLog {
    /// A worker's log; lines that are lost are counted in that worker's counters.
    pub fn new(sink: Sink, counters: Arc<Counters>) -> Self {
        Self::with(Some(sink), counters)
    }

    /// A log that writes nothing.
    pub fn off(counters: Arc<Counters>) -> Self {
        Self::with(None, counters)
    }

    fn with(sink: Option<Sink>, counters: Arc<Counters>) -> Self {
        let buffer = RefCell::new(Buffer { bytes: Vec::new(), lines: 0, counters });
        Self { worker: Rc::new(Worker { buffer, sink }) }
    }

    /// Is anybody listening? A caller may save itself the making of a line.
    pub fn is_on(&self) -> bool {
        self.worker.sink.is_some()
    }

    /// Adds a line.
    pub fn write(&self, line: &AccessLine<'_>) {
        let Some(sink) = &self.worker.sink else { return };
        let mut buffer = self.worker.buffer.borrow_mut();
        if buffer.bytes.capacity() == 0 {
            buffer.bytes.reserve(BUFFER + 1024);
        }
        match sink.text {
            true => render_text(&mut buffer.bytes, line),
            false => render_json(&mut buffer.bytes, line),
        }
        buffer.lines += 1;
        if sink.immediate || buffer.bytes.len() >= BUFFER {
            sink.hand_over(&mut buffer);
        }
    }

    /// Hands over what is buffered: on the worker's tick, and at its end.
    pub fn flush(&self) {
        if let Some(sink) = &self.worker.sink {
            sink.hand_over(&mut self.worker.buffer.borrow_mut());
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(sink) = &self.sink {
            sink.hand_over(self.buffer.get_mut());
        }
    }
}

impl Sink {
    fn hand_over(&self, buffer: &mut Buffer) {
        if buffer.bytes.is_empty() {
            return;
        }
        let full = Buffer {
            bytes: std::mem::take(&mut buffer.bytes),
            lines: std::mem::take(&mut buffer.lines),
            counters: Arc::clone(&buffer.counters),
        };
        if let Err(refused) = self.buffers.try_send(full) {
            let (std::sync::mpsc::TrySendError::Full(lost)
            | std::sync::mpsc::TrySendError::Disconnected(lost)) = refused;
            lost.counters.access_lines_dropped.add(lost.lines);
            // The allocation is kept: while the writer is stuck there is no reason to make new ones.
            buffer.bytes = lost.bytes;
            buffer.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::line::tests::line;
    use std::sync::{Condvar, Mutex};

    /// A writer that a test can watch, stop and break.
    #[derive(Clone, Default)]
    struct Tap(Arc<(Mutex<TapState>, Condvar)>);

    #[derive(Default)]
    struct TapState {
        bytes: Vec<u8>,
        stopped: bool,
        broken: bool,
        writes: usize,
    }

    impl Tap {
        fn set(&self, change: impl FnOnce(&mut TapState)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_all();
        }

        fn wait_until(&self, condition: impl Fn(&TapState) -> bool) {
            let state = self.0.0.lock().unwrap();
            let (state, out) = self
                .0
                .1
                .wait_timeout_while(state, Duration::from_secs(10), |state| !condition(state))
                .unwrap();
            assert!(!out.timed_out(), "after {} writes", state.writes);
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().bytes.clone()).unwrap()
        }
    }

    impl Write for Tap {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.0.lock().unwrap();
            state.writes += 1;
            self.0.1.notify_all();
            while state.stopped {
                state = self.0.1.wait(state).unwrap();
            }
            if state.broken {
                return Err(ErrorKind::BrokenPipe.into());
            }
            // The first attempt finds a non-blocking stdout full, and every write is a short one.
            if state.writes == 1 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(4000);
            state.bytes.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_is_written_in_order_though_writes_are_short_and_refused() {
        let tap = Tap::default();
        let counters = Arc::new(Counters::default());
        let writer = AccessWriter::start(tap.clone(), Format::Auto, false).unwrap();
        let log = AccessLog::new(writer.sink(), Arc::clone(&counters));
        for number in 0..1000 {
            log.write(&line(b"example.com", &format!("/{number}")));
        }
        drop(log);
        assert!(writer.finish(Duration::from_secs(10)));
        let paths: Vec<_> = tap
            .text()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].clone())
            .collect();
        assert_eq!(
            paths,
            (0..1000).map(|number| format!("/{number}").into()).collect::<Vec<serde_json::Value>>()
        );
        assert_eq!(counters.access_lines_dropped.value(), 0);
    }

    #[test]
    fn a_person_at_a_terminal_sees_a_line_at_once_and_a_pipe_at_the_tick() {
        let tap = Tap::default();
        let writer = AccessWriter::start(tap.clone(), Format::Auto, true).unwrap();
        let log = AccessLog::new(writer.sink(), Arc::default());
        log.write(&line(b"example.com", "/"));
        tap.wait_until(|state| state.bytes.ends_with(b"\n"));
        assert!(tap.text().starts_with("12:00:00 200 GET example.com/ "));

        let tap = Tap::default();
        let writer = AccessWriter::start(tap.clone(), Format::Auto, false).unwrap();
        let log = AccessLog::new(writer.sink(), Arc::default());
        log.write(&line(b"example.com", "/"));
        assert!(!log.worker.buffer.borrow().bytes.is_empty(), "it waits for the tick");
        log.flush();
        tap.wait_until(|state| state.bytes.ends_with(b"\n"));
    }

    #[test]
    fn a_stuck_reader_costs_lines_that_are_counted_and_nothing_waits() {
        let tap = Tap::default();
        tap.set(|state| state.stopped = true);
        let counters = Arc::new(Counters::default());
        let writer = AccessWriter::start(tap.clone(), Format::Auto, false).unwrap();
        let log = AccessLog::new(writer.sink(), Arc::clone(&counters));
        log.write(&line(b"example.com", "/first"));
        log.flush();
        tap.wait_until(|state| state.writes == 1);
        for _ in 0..WAITING + 10 {
            log.write(&line(b"example.com", "/"));
            log.flush();
        }
        assert_eq!(counters.access_lines_dropped.value(), 10);
        tap.set(|state| state.stopped = false);
        drop(log);
        assert!(writer.finish(Duration::from_secs(10)));
        assert_eq!(tap.text().lines().count(), WAITING + 1);
    }

    #[test]
    fn the_end_waits_for_what_was_handed_over_and_for_nobody_who_still_could() {
        let tap = Tap::default();
        let writer = AccessWriter::start(tap.clone(), Format::Auto, false).unwrap();
        let log = AccessLog::new(writer.sink(), Arc::default());
        log.write(&line(b"example.com", "/handed-over"));
        log.flush();
        // A worker that is stuck keeps its log, and with it the way to the writer.
        assert!(writer.finish(Duration::from_secs(10)));
        assert!(tap.text().contains("/handed-over"));
        drop(log);
    }

    #[test]
    fn a_reader_that_left_costs_lines_that_are_counted() {
        let tap = Tap::default();
        tap.set(|state| state.broken = true);
        let counters = Arc::new(Counters::default());
        let writer = AccessWriter::start(tap, Format::Auto, false).unwrap();
        let log = AccessLog::new(writer.sink(), Arc::clone(&counters));
        log.write(&line(b"example.com", "/"));
        log.write(&line(b"example.com", "/"));
        drop(log);
        assert!(writer.finish(Duration::from_secs(10)));
        assert_eq!(counters.access_lines_dropped.value(), 2);
    }
}
