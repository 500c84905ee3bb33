//! What is remembered in memory of what containers use: between two looks at the kernel's figures, and between a look and
//! the inventory. The looking is [`crate::accounts`]'s.

use crate::{
    inventory::{CounterRow, Minute},
    limits::{oom, processes::Sample, read::Raw},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};
use vz_types::{CtConfig, Ctid, limits::table::COUNTERS};

/// Between two looks at every process of a container, and at one in which nothing was done.
pub(crate) const SAMPLE: Duration = Duration::from_secs(60);

/// What is remembered of one container in memory.
#[derive(Debug, Default)]
pub struct Account {
    pub(crate) rows: [CounterRow; COUNTERS.len()],
    /// Counters whose row is not in the inventory yet, one bit each.
    pub(crate) dirty: u32,
    pub(crate) loaded: bool,
    pub(crate) sample: Option<Sampled>,
    pub(crate) last: Last,
    pub(crate) limits: Option<LimitsNow>,
    /// Its part of `user_beancounters`.
    pub(crate) text: Box<str>,
    /// Kernel totals at the last tick, for events.
    pub(crate) seen: Option<Totals>,
    /// Totals of pressure and throttled time of the last hour, one a minute, as in the inventory.
    pub(crate) minutes: VecDeque<Minute>,
    /// Those that are not in the inventory yet.
    pub(crate) unwritten: Vec<Minute>,
    pub(crate) disk_full: bool,
    /// Its filesystem was not writable at the last look.
    pub(crate) read_only: bool,
}

/// A look at the processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampled {
    pub(crate) at: Instant,
    /// Processor time when it was taken.
    pub(crate) usage: Option<u64>,
    pub(crate) sample: Sample,
}

/// The last look at the cgroup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Last {
    pub(crate) at: Option<Instant>,
    pub(crate) usage: Option<u64>,
    pub(crate) raws: Vec<Raw>,
    /// Counters of which the kernel held something else than what was asked for, and what.
    pub(crate) wrong: Vec<(&'static str, String)>,
}

impl Last {
    /// Whether nothing was done inside since: nobody can have without processor time.
    pub(crate) fn is_still(&self, usage: Option<u64>) -> bool {
        self.at.is_some() && usage.is_some() && self.usage == usage
    }

    /// Whether it is young enough for what others can change: the host takes memory back, root on it writes limits.
    pub(crate) fn is_fresh(&self) -> bool {
        self.at.is_some_and(|at| at.elapsed() < SAMPLE)
    }
}

/// What limits it while it runs, with what that was made from.
#[derive(Debug)]
pub(crate) struct LimitsNow {
    pub(crate) note: Option<Stamp>,
    pub(crate) config: Arc<CtConfig>,
    pub(crate) set: Arc<CtConfig>,
}

/// Tells one version of a file from the next.
pub(crate) type Stamp = (u64, i64, i64);

/// Totals that become events when they rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub(crate) oom_kill: u64,
    pub(crate) forks: u64,
    pub(crate) swap: u64,
    pub(crate) high: u64,
    pub(crate) throttled_us: u64,
    pub(crate) sockets: [u64; 2],
}

/// The accounts of one manager.
#[derive(Debug, Default)]
pub struct Accounts {
    pub(crate) all: Mutex<HashMap<Ctid, Arc<Mutex<Account>>>>,
    /// Who has something that is not in the inventory yet.
    pub(crate) noted: Mutex<BTreeSet<Ctid>>,
    /// Held while accounts are read to be written: what is written later is never older.
    pub(crate) writing: Mutex<()>,
    /// Guarantees of containers whose cgroup is there, those that have any, once they were read.
    pub(crate) promises: Mutex<Option<BTreeMap<Ctid, [u64; 2]>>>,
    pub(crate) kernel_log: Mutex<oom::KernelLog>,
    /// Something was refused and is not durable yet.
    pub(crate) unsynced: AtomicBool,
}

impl Accounts {
    fn all(&self) -> MutexGuard<'_, HashMap<Ctid, Arc<Mutex<Account>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account of a container, made where there is none yet.
    pub(crate) fn of(&self, ctid: Ctid) -> Arc<Mutex<Account>> {
        self.all().entry(ctid).or_default().clone()
    }

    /// The same, if there is one.
    pub(crate) fn known(&self, ctid: Ctid) -> Option<Arc<Mutex<Account>>> {
        self.all().get(&ctid).cloned()
    }

    /// Forgets what is in memory of a container that is gone.
    pub fn forget(&self, ctid: Ctid) {
        self.all().remove(&ctid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_processor_time_since_the_last_look_is_still() {
        let last = |usage| Last { at: Some(Instant::now()), usage, ..Last::default() };
        assert!(last(Some(5)).is_still(Some(5)) && last(Some(5)).is_fresh());
        assert!(!last(Some(5)).is_still(Some(6)));
        assert!(!last(None).is_still(None), "where nobody can tell it is looked at");
        assert!(!Last::default().is_still(Some(5)) && !Last::default().is_fresh());
    }
}
