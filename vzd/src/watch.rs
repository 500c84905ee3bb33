//! Noticing the end of a container: one thread asleep on the pidfds of all monitors. What is to be done then is told by
//! whoever asked ([`Watcher::on_end`]).

use crate::monitor::{Live, process};
use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::{read, write},
};
use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use vz_sys::spawn::Spawned;
use vz_types::{Ctid, run::ProcessId};

/// Between two looks at monitors for which no descriptor could be spared.
const BLIND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// What the thread's own eventfd is known by: no CTID is 0.
const WAKE: u64 = 0;

/// One monitor that is watched.
enum Watched {
    /// Our own child, which is reaped as well.
    Child(Spawned),
    /// By its descriptor.
    Seen(Arc<OwnedFd>),
    /// By its number.
    Blind(ProcessId),
    /// It has ended before it could be watched.
    Gone,
}

type Told = Box<dyn Fn(Ctid) + Send + Sync>;

struct Shared {
    wake: OwnedFd,
    added: Mutex<Vec<(Ctid, Watched)>>,
    told: OnceLock<Told>,
    /// Nobody can ask any more.
    left: AtomicBool,
}

/// The thread's ear. Dropped, it ends the thread.
pub struct Watcher(Arc<Shared>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.left.store(true, Ordering::Release);
        self.ring();
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

impl Watcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub fn start() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&set, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let shared =
            Arc::new(Shared { wake, added: Mutex::default(), told: OnceLock::new(), left: AtomicBool::new(false) });
        let ear = shared.clone();
        std::thread::Builder::new().name("watch".into()).stack_size(128 << 10).spawn(move || watch(&set, &ear))?;
        Ok(Self(shared))
    }

    /// What is to be done when a container has ended. Said once.
    pub fn on_end(&self, told: impl Fn(Ctid) + Send + Sync + 'static) {
        let _ = self.0.told.set(Box::new(told));
        self.ring();
    }

    /// Watches a container's monitor until it ends, reaps it if it is our child, and tells. `live`: none where it ended
    /// before it could be looked at.
    pub fn add(&self, ctid: Ctid, live: Option<Live>, child: Option<Spawned>) {
        let watched = match (child, live) {
            (Some(child), _) => Watched::Child(child),
            (None, Some(Live { monitor: Some(fd), .. })) => Watched::Seen(fd),
            (None, Some(live)) => Watched::Blind(live.record.monitor),
            (None, None) => Watched::Gone,
        };
        self.0.added.lock().unwrap_or_else(PoisonError::into_inner).push((ctid, watched));
        self.ring();
    }

    fn ring(&self) {
        // The counter cannot overflow: the thread reads it to zero.
        let _ = write(&self.0.wake, &1u64.to_ne_bytes());
    }
}

fn watch(set: &OwnedFd, shared: &Shared) {
    let mut all: HashMap<Ctid, Watched> = HashMap::new();
    let mut ended: Vec<Ctid> = Vec::new();
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        let blind = all.values().any(|w| matches!(w, Watched::Blind(_)));
        // An interrupted wait finds nothing and waits again.
        let _ = epoll::wait(set, spare_capacity(&mut events), blind.then_some(&BLIND));
        if shared.left.load(Ordering::Acquire) {
            return;
        }
        for event in &events {
            match event.data.u64() {
                WAKE => _ = read(&shared.wake, &mut [0u8; 8]),
                n => ended.extend(u32::try_from(n).ok().and_then(|n| Ctid::try_from(n).ok())),
            }
        }
        ended.extend(all.iter().filter_map(|(ctid, w)| match w {
            Watched::Blind(id) => matches!(process::find(*id), Ok(process::Process::Gone)).then_some(*ctid),
            _ => None,
        }));
        let added = std::mem::take(&mut *shared.added.lock().unwrap_or_else(PoisonError::into_inner));
        for (ctid, watched) in added {
            // What was watched of an earlier run has ended, or it would not run again.
            if let Some(before) = all.remove(&ctid) {
                reap(ctid, set, before);
            }
            let data = epoll::EventData::new_u64(ctid.get().into());
            let added = match &watched {
                Watched::Child(child) => epoll::add(set, child.pidfd(), data, epoll::EventFlags::IN),
                Watched::Seen(fd) => epoll::add(set, fd, data, epoll::EventFlags::IN),
                Watched::Blind(_) => Ok(()),
                Watched::Gone => {
                    ended.push(ctid);
                    Ok(())
                }
            };
            if let Err(e) = added {
                tracing::error!(ctid = ctid.get(), "its end will not be noticed by itself: {e}");
            }
            all.insert(ctid, watched);
        }
        // Until somebody listens, ends are kept.
        let Some(told) = shared.told.get() else { continue };
        for ctid in std::mem::take(&mut ended) {
            if let Some(watched) = all.remove(&ctid) {
                reap(ctid, set, watched);
                told(ctid);
            }
        }
    }
}

fn reap(ctid: Ctid, set: &OwnedFd, watched: Watched) {
    match watched {
        Watched::Child(mut child) => {
            let _ = epoll::delete(set, child.pidfd());
            // It has ended: this does not wait.
            if let Err(e) = child.wait() {
                tracing::warn!(ctid = ctid.get(), "its monitor could not be reaped: {e}");
            }
        }
        Watched::Seen(fd) => _ = epoll::delete(set, &fd),
        Watched::Blind(_) | Watched::Gone => {}
    }
}
