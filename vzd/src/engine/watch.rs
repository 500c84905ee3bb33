//! Noticing the end of a container that nobody asked for: one thread asleep on the pidfds of all monitors.

use super::{Engine, lock, stop};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{read, write},
};
use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};
use vz_sys::spawn::Spawned;
use vz_types::{Ctid, state::Op};

/// Longest an operation is waited for before clearing away after a container: it clears away itself, or
/// the next one does.
const OPERATION: Duration = Duration::from_secs(3600);

/// One monitor that is watched.
struct Watched {
    engine: Arc<Engine>,
    ctid: Ctid,
    monitor: Arc<OwnedFd>,
    child: Option<Spawned>,
}

/// The thread's ear: monitors to watch from now on, and an eventfd that says there are some.
#[derive(Debug)]
pub(crate) struct Watcher {
    wake: Arc<OwnedFd>,
    added: Arc<Mutex<Vec<Watched>>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watched({})", self.ctid)
    }
}

impl Watcher {
    /// Starts the thread. It ends with the process.
    pub(crate) fn start() -> std::io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let added = Arc::new(Mutex::new(Vec::new()));
        let (ear, inbox) = (wake.clone(), added.clone());
        std::thread::Builder::new().name("watch".into()).stack_size(128 << 10).spawn(move || watch(&ear, &inbox))?;
        Ok(Self { wake, added })
    }

    /// Watches a monitor until it ends, reaps it if it is our child, and clears away what it left.
    pub(crate) fn add(&self, engine: &Arc<Engine>, ctid: Ctid, monitor: Arc<OwnedFd>, child: Option<Spawned>) {
        lock(&self.added).push(Watched { engine: engine.clone(), ctid, monitor, child });
        // The counter cannot overflow: the thread reads it to zero.
        let _ = write(&*self.wake, &1u64.to_ne_bytes());
    }
}

fn watch(wake: &OwnedFd, inbox: &Mutex<Vec<Watched>>) {
    let mut all: Vec<Watched> = Vec::new();
    loop {
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(wake, PollFlags::IN)];
        fds.extend(all.iter().map(|w| PollFd::new(&*w.monitor, PollFlags::IN)));
        // An interrupted poll finds nothing and polls again.
        let _ = poll(&mut fds, None);
        let ended: Vec<bool> = fds.iter().skip(1).map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        let mut is_ended = ended.into_iter();
        let (gone, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|_| is_ended.next() == Some(true));
        all = left;
        for w in gone {
            let runtime = w.engine.runtime.clone();
            runtime.spawn_blocking(move || {
                reap_child(w.child);
                stop::reap_when_free(&w.engine, w.ctid, OPERATION);
            });
        }
        let _ = read(wake, &mut [0u8; 8]);
        all.append(&mut lock(inbox));
    }
}

/// For a monitor that ended before it could be watched.
pub(crate) fn bury(engine: &Arc<Engine>, ctid: Ctid, child: Option<Spawned>) {
    let engine = engine.clone();
    let runtime = engine.runtime.clone();
    runtime.spawn_blocking(move || {
        reap_child(child);
        let Some(_guard) = engine.take_waiting(ctid, Op::Stop, OPERATION) else { return };
        if let Ok(Some(row)) = engine.inventory.container(ctid) {
            for problem in engine.take_down(&row, None, true) {
                tracing::warn!(ctid = ctid.get(), "{problem}");
            }
        }
    });
}

fn reap_child(child: Option<Spawned>) {
    if let Some(mut child) = child {
        if let Err(e) = child.wait() {
            tracing::warn!("a monitor could not be reaped: {e}");
        }
    }
}
