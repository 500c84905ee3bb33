//! A machine in memory: monitors, files, links and cgroups that fail or let vzd die at any call. What is a file for
//! vzd is one here too, below the manager's own directories; what would take root is only noted. It outlives the vzd
//! that uses it, as a host does: each vzd has a [`Seat`], and one that has died does nothing any more.
//!
//! Unlike a real machine it tidies nothing up by itself: a link stays when its namespace is gone, a mount when its
//! monitor was killed. What vzd leaves behind shows.

mod files;
pub mod monitor;
mod net;

use super::Hands;
use rustix::event::{EventfdFlags, eventfd};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use vz_types::{CtAddr, Ctid, Paths};

/// What goes wrong, and at which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// Nothing.
    Never,
    /// One call fails.
    Fail {
        /// Which.
        at: usize,
        /// After it has done what it was to do.
        done: bool,
    },
    /// A call and all that follow fail.
    FailFrom {
        /// The first.
        at: usize,
    },
    /// vzd dies at a call.
    Die {
        /// Which.
        at: usize,
        /// Just after it.
        done: bool,
    },
}

/// How the name of a call begins that is a write to the inventory.
const INVENTORY: &str = "inventory: ";

/// Whether a call of this name does something, so that failing before it and after it are two things.
pub fn has_effect(call: &str) -> bool {
    !call.contains('.') && !call.starts_with(INVENTORY)
}

/// How vzd dies here: every thread of it unwinds at its next call.
#[derive(Debug)]
pub struct Died;

/// The machine.
#[derive(Clone)]
pub struct World(Arc<Machine>);

struct Machine {
    paths: Paths,
    state: Mutex<State>,
    meanwhile: Mutex<Option<Meanwhile>>,
}

/// What somebody else does just before or after a call, once.
struct Meanwhile {
    at: usize,
    done: bool,
    does: Box<dyn FnOnce() + Send>,
}

/// What it is like.
#[derive(Clone)]
pub struct State {
    /// Roots that are mounted on the host.
    pub mounted: BTreeSet<PathBuf>,
    /// Small filesystems that are.
    pub small: BTreeSet<PathBuf>,
    /// Addresses the filter lets containers use.
    pub allowed: BTreeMap<Ctid, BTreeSet<CtAddr>>,
    /// Links, with the addresses routed to them.
    pub links: BTreeMap<Ctid, BTreeSet<CtAddr>>,
    /// Every monitor there was, by pid.
    pub monitors: BTreeMap<i32, monitor::Process>,
    /// What must not happen, whatever fails.
    pub wrongs: Vec<String>,
    /// A monitor that lost its vzd is not done when the next one looks.
    pub slow: bool,
    /// A monitor ends as soon as it has said that it runs.
    pub short_lived: bool,
    /// Monitors are never done with what they are asked.
    pub never_ready: bool,
    /// A bug of ours in this call.
    pub panics_at: Option<&'static str>,
    /// The calls since [`World::arm`].
    pub calls: Vec<String>,
    /// The trip has happened.
    pub tripped: bool,
    trip: Trip,
    armed: bool,
    /// Which vzd is alive.
    vzd: u64,
}

/// What one vzd has of it.
#[derive(Clone)]
pub struct Seat {
    world: World,
    vzd: u64,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

/// A descriptor that is readable from the start.
fn ready() -> Arc<OwnedFd> {
    Arc::new(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap())
}

/// What the machine says where it was told to fail.
fn on_purpose() -> io::Error {
    io::Error::other("on purpose")
}

impl World {
    /// With nothing in it.
    pub fn new(paths: &Paths) -> Self {
        let state = State {
            mounted: BTreeSet::new(),
            small: BTreeSet::new(),
            allowed: BTreeMap::new(),
            links: BTreeMap::new(),
            monitors: BTreeMap::new(),
            wrongs: Vec::new(),
            slow: false,
            short_lived: false,
            never_ready: false,
            panics_at: None,
            calls: Vec::new(),
            tripped: false,
            trip: Trip::Never,
            armed: false,
            vzd: 0,
        };
        Self(Arc::new(Machine { paths: paths.clone(), state: Mutex::new(state), meanwhile: Mutex::default() }))
    }

    /// Its state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is as it was when its state was taken; every vzd so far is dead.
    pub fn restore(&self, was: &State) {
        let mut state = self.state();
        let vzd = state.vzd + 1;
        *state = was.clone();
        state.vzd = vzd;
        state.monitors.values_mut().for_each(monitor::Process::renew);
    }

    /// From now on calls are counted, and this happens.
    pub fn arm(&self, trip: Trip) {
        let mut state = self.state();
        (state.trip, state.armed, state.tripped) = (trip, true, false);
        state.calls.clear();
    }

    /// Somebody else does this at the call of this number, before it or when it is `done`. Calls that write to the
    /// inventory are left out: whoever makes them holds it.
    pub fn meanwhile(&self, at: usize, done: bool, does: impl FnOnce() + Send + 'static) {
        *self.0.meanwhile.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Meanwhile { at, done, does: Box::new(does) });
    }

    /// Whether that has happened.
    pub fn has_met(&self) -> bool {
        self.0.meanwhile.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Nothing goes wrong any more. Which calls there were.
    pub fn disarm(&self) -> Vec<String> {
        let mut state = self.state();
        (state.trip, state.armed) = (Trip::Never, false);
        state.calls.clone()
    }

    /// vzd is killed.
    pub fn kill_vzd(&self) {
        self.state().die();
    }

    /// For the vzd that starts now.
    pub fn seat(&self) -> Seat {
        Seat { world: self.clone(), vzd: self.state().vzd }
    }

    /// The container is restarted from inside.
    pub fn reboot(&self, ctid: Ctid) {
        self.state().reboot_of(ctid);
    }

    /// The container ends by itself.
    pub fn power_off(&self, ctid: Ctid) {
        self.state().end_of(ctid, vz_types::run::ExitReason::Poweroff);
    }
}

impl State {
    fn die(&mut self) {
        self.vzd += 1;
        let slow = self.slow;
        let mut unmounted = Vec::new();
        for process in self.monitors.values_mut() {
            unmounted.extend(process.orphaned(slow));
        }
        unmounted.iter().for_each(|root| _ = self.unmount(root));
    }

    /// Says what is to happen to this call. `sure`: it cannot fail.
    fn next(&mut self, what: &str, sure: bool) -> Next {
        if self.panics_at == Some(what) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        if !self.armed {
            return Next::Go;
        }
        let n = self.calls.len();
        self.calls.push(what.to_owned());
        let next = match self.trip {
            Trip::Fail { at, done } if at == n && !sure => Next::Fail { done },
            Trip::FailFrom { at } if at <= n && !sure => Next::Fail { done: false },
            Trip::Die { at, done } if at == n => Next::Die { done },
            _ => Next::Go,
        };
        self.tripped |= !matches!(next, Next::Go);
        next
    }
}

enum Next {
    Go,
    Fail { done: bool },
    Die { done: bool },
}

impl Seat {
    /// The hands of this vzd.
    pub fn hands(&self) -> Hands {
        let tree = self.clone();
        Hands {
            monitor: Box::new(self.clone()),
            storage: Box::new(self.clone()),
            network: Arc::new(self.clone()),
            tree: Box::new(move || Ok(Box::new(net::Cgroups::new(tree.clone())))),
        }
    }

    /// A step of an operation begins or has ended: a moment to die at.
    pub fn point(&self, name: &str) {
        self.sure(name, |_| ());
    }

    /// Something is to be written to the inventory. Says whether there is room for it.
    pub fn room(&self, what: &str) -> bool {
        self.call(&format!("{INVENTORY}{what}"), |_| Ok(()), |_| ()).is_ok()
    }

    fn paths(&self) -> &Paths {
        &self.world.0.paths
    }

    /// The machine, unless this vzd is dead.
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.world.state();
        if state.vzd != self.vzd {
            drop(state);
            die();
        }
        state
    }

    /// The number of the call that comes now.
    fn number(&self, what: &str) -> Option<usize> {
        let state = self.state();
        (state.armed && !what.starts_with(INVENTORY)).then_some(state.calls.len())
    }

    /// Does what somebody else is to do here, while nobody holds the machine.
    fn others(&self, number: Option<usize>, done: bool) {
        let mut meanwhile = self.world.0.meanwhile.lock().unwrap_or_else(PoisonError::into_inner);
        let does = meanwhile.take_if(|m| Some(m.at) == number && m.done == done);
        drop(meanwhile);
        if let Some(Meanwhile { does, .. }) = does {
            does();
        }
    }

    /// One call that may fail with `fails`.
    fn call<T, E>(
        &self,
        what: &str,
        does: impl FnOnce(&mut State) -> Result<T, E>,
        fails: impl FnOnce(io::Error) -> E,
    ) -> Result<T, E> {
        self.call_as(what, true, does, fails)
    }

    fn call_as<T, E>(
        &self,
        what: &str,
        half: bool,
        does: impl FnOnce(&mut State) -> Result<T, E>,
        fails: impl FnOnce(io::Error) -> E,
    ) -> Result<T, E> {
        let number = self.number(what);
        self.others(number, false);
        let mut state = self.state();
        match state.next(what, false) {
            Next::Go => {
                let done = does(&mut state);
                drop(state);
                self.others(number, true);
                done
            }
            Next::Fail { done } => {
                if done && half {
                    does(&mut state)?;
                }
                Err(fails(on_purpose()))
            }
            Next::Die { done } => {
                if done {
                    let _ = does(&mut state);
                }
                state.die();
                drop(state);
                die()
            }
        }
    }

    /// One call that may fail, and has then done nothing where the container is mounted: what the kernel does as a whole.
    fn whole<T, E>(
        &self,
        what: &str,
        in_use: impl FnOnce(&State) -> bool,
        does: impl FnOnce(&mut State) -> Result<T, E>,
        fails: impl FnOnce(io::Error) -> E,
    ) -> Result<T, E> {
        let half = !in_use(&self.state());
        self.call_as(what, half, does, fails)
    }

    /// One call that cannot fail.
    fn sure<T>(&self, what: &str, does: impl FnOnce(&mut State) -> T) -> T {
        let number = self.number(what);
        self.others(number, false);
        let mut state = self.state();
        match state.next(what, true) {
            Next::Die { done } => {
                if done {
                    does(&mut state);
                }
                state.die();
                drop(state);
                die()
            }
            _ => {
                let done = does(&mut state);
                drop(state);
                self.others(number, true);
                done
            }
        }
    }
}

/// Ends this thread's part of a vzd that is dead, without a word.
fn die() -> ! {
    std::panic::resume_unwind(Box::new(Died))
}
