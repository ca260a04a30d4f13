//! The bounded stop: connections, tunnels and store writes are counted, and the process ends when none is left or the
//! deadline has passed.
//!
//! Knows nothing of what it counts. One atomic per counted thing, no lock on the way of a request.
//! Tests: at the end of this file, and `tests/it` for the whole program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// A handle on the stop. Cheap to clone; all clones, on all workers, are one.
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    begun: AtomicBool,
    patient: AtomicBool,
    signal: watch::Sender<bool>,
    running: AtomicUsize,
    empty: Notify,
}

/// The stop waits until this is dropped. May move between threads.
pub struct DrainGuard {
    shared: Arc<Shared>,
}

impl Drain {
    /// A stop that has not begun, with nothing to wait for.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                begun: AtomicBool::new(false),
                patient: AtomicBool::new(false),
                signal: watch::Sender::new(false),
                running: AtomicUsize::new(0),
                empty: Notify::new(),
            }),
        }
    }

    /// Spawns a task on this worker's runtime (current thread, need not be Send) that the stop waits for.
    ///
    /// It goes on when the handle is dropped: nobody can interrupt a store write by going away.
    pub fn spawn_local<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let guard = self.guard();
        tokio::task::spawn_local(async move {
            let _guard = guard;
            future.await
        })
    }

    /// Something the stop waits for until the guard is dropped: a connection, a tunnel.
    pub fn guard(&self) -> DrainGuard {
        self.shared.running.fetch_add(1, Ordering::AcqRel);
        DrainGuard { shared: Arc::clone(&self.shared) }
    }

    /// Begins the stop, or makes a patient one strict; from any thread, as often as one likes.
    pub fn begin(&self) {
        self.shared.patient.store(false, Ordering::Release);
        self.signal();
    }

    /// Begins a stop that nobody may notice, because another process serves whoever comes next: what is idle is not cut off at once,
    /// for its next request may be on its way.
    pub fn begin_patiently(&self) {
        self.shared.patient.store(true, Ordering::Release);
        self.signal();
    }

    fn signal(&self) {
        self.shared.begun.store(true, Ordering::Release);
        self.shared.signal.send_replace(true);
    }

    /// Has the stop begun?
    pub fn is_stopping(&self) -> bool {
        self.shared.begun.load(Ordering::Acquire)
    }

    /// Was the stop begun with [`Self::begin_patiently`], and is not strict yet?
    pub fn is_patient(&self) -> bool {
        self.shared.patient.load(Ordering::Acquire)
    }

    /// Resolves when the stop begins; at once when it has begun already.
    pub fn stopping(&self) -> impl Future<Output = ()> + 'static {
        let mut signal = self.shared.signal.subscribe();
        // The handle kept here keeps the sender alive, so the wait ends with the signal and nothing else.
        let shared = Arc::clone(&self.shared);
        async move {
            let _shared = shared;
            let _ = signal.wait_for(|stopping| *stopping).await;
        }
    }

    /// How many guards and tasks are counted now.
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Resolves when nothing is counted any more, whether or not the stop has begun.
    pub async fn empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.shared.empty.notified());
            // Registered before the count is read, so a guard that is dropped in between is not missed.
            emptied.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Waits until nothing is counted any more: `true`; or `within` has passed: `false`. Needs a tokio runtime with time.
    pub async fn finished(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.empty()).await.is_ok()
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, future)
    }

    #[test]
    fn a_task_goes_on_without_its_handle_and_the_stop_waits_for_it() {
        run(async {
            let drain = Drain::new();
            let written = Rc::new(Cell::new(false));
            let (release, released) = oneshot::channel::<()>();
            drop(drain.spawn_local({
                let written = Rc::clone(&written);
                async move {
                    let _ = released.await;
                    written.set(true);
                }
            }));
            drain.begin();
            assert!(!drain.finished(Duration::from_millis(10)).await, "the task still runs");
            release.send(()).unwrap();
            assert!(drain.finished(Duration::from_secs(10)).await);
            assert!(written.get());
            assert_eq!(drain.running(), 0);
        });
    }

    #[test]
    fn a_task_that_panics_is_not_counted_for_ever() {
        run(async {
            let drain = Drain::new();
            let task = drain.spawn_local(async { panic!("on purpose") });
            assert!(task.await.is_err());
            assert!(drain.finished(Duration::ZERO).await);
        });
    }

    #[test]
    fn a_guard_dropped_on_another_thread_ends_the_wait_here() {
        run(async {
            let drain = Drain::new();
            let guard = drain.guard();
            let waiting = drain.clone();
            let wait =
                tokio::task::spawn_local(async move { waiting.finished(Duration::from_secs(10)).await });
            tokio::task::yield_now().await;
            std::thread::spawn(move || drop(guard)).join().unwrap();
            assert!(wait.await.unwrap());
        });
    }

    #[test]
    fn everybody_hears_of_the_stop_before_and_after_it_begins() {
        run(async {
            let drain = Drain::new();
            assert!(!drain.is_stopping());
            let early = tokio::task::spawn_local(drain.stopping());
            let remote = drain.clone();
            std::thread::spawn(move || remote.begin()).join().unwrap();
            early.await.unwrap();
            drain.stopping().await;
            assert!(drain.is_stopping());
        });
    }
}
