//! A gate inside the app: a request stands before it until the test opens it. Waits end when patience does.

use super::patience;
use std::sync::{Arc, Condvar, Mutex};

/// Cheap to clone; closed at first.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    arrived: usize,
    open: bool,
}

impl Gate {
    /// The app's side: says that a request is here, and waits until the gate is open.
    pub(crate) fn pass(&self) {
        self.change(|state| state.arrived += 1);
        self.wait("the test to open the gate", |state| state.open);
    }

    /// The test's side: waits until this many requests have arrived since the gate was last shut.
    #[track_caller]
    pub(crate) fn arrived(&self, count: usize) {
        self.wait("requests before the gate", |state| state.arrived >= count);
    }

    pub(crate) fn open(&self) {
        self.change(|state| state.open = true);
    }

    pub(crate) fn shut(&self) {
        self.change(|state| *state = State::default());
    }

    fn change(&self, with: impl FnOnce(&mut State)) {
        with(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    #[track_caller]
    fn wait(&self, what: &str, until: impl Fn(&State) -> bool) {
        let state = self.0.0.lock().unwrap();
        let (state, _) = self.0.1.wait_timeout_while(state, patience(), |state| !until(state)).unwrap();
        assert!(until(&state), "waited in vain for {what}");
    }
}
