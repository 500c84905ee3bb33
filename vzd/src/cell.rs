//! Where one container is, in memory: its stored state, what keeps it in trouble, and its monitor while it runs. Written
//! by the container's driver alone; read by everybody.

use crate::monitor::Live;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vz_types::{CtState, UidBase, state::Trouble};

/// What is in memory of one container.
#[derive(Debug)]
pub struct Cell {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    state: CtState,
    trouble: Option<Trouble>,
    live: Option<Live>,
    /// So many boots of this run have been told of; 0: that is not known.
    boots: u32,
    /// It runs and is not in the inventory: its uid range, as far as that is known.
    stranger: Option<UidBase>,
    /// And its ranges besides that one.
    strangers_more: Vec<UidBase>,
}

impl Cell {
    /// Of a container in this state, with nothing known of a monitor.
    pub fn new(state: CtState, trouble: Option<Trouble>) -> Self {
        Self {
            kept: Mutex::new(Kept { state, trouble, live: None, boots: 0, stranger: None, strangers_more: Vec::new() }),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is, and what keeps it in trouble.
    pub fn state(&self) -> (CtState, Option<Trouble>) {
        let kept = self.kept();
        (kept.state, kept.trouble.clone())
    }

    /// Where it is from now on. The inventory knows already.
    pub fn set(&self, state: CtState, trouble: Option<Trouble>) {
        let mut kept = self.kept();
        (kept.state, kept.trouble) = (state, trouble);
    }

    /// Its monitor and record, while it runs.
    pub fn live(&self) -> Option<Live> {
        self.kept().live.clone()
    }

    /// Whether it runs with one of these uid ranges, in the inventory or not. Asked of every other container at each start: nothing is
    /// copied.
    pub fn has_uids(&self, mine: &[UidBase]) -> bool {
        let kept = self.kept();
        let theirs = kept.live.as_ref().filter(|l| !l.ended()).map(|l| (l.record.uid_base, &l.record.uid_more));
        mine.iter().any(|base| {
            kept.stranger == Some(*base)
                || kept.strangers_more.contains(base)
                || theirs.is_some_and(|(first, more)| first == *base || more.contains(base))
        })
    }

    /// As [`Cell::live`], after looking whether the monitor has replaced its record.
    pub fn live_now(&self, run_dir: &std::path::Path) -> Option<Live> {
        let mut kept = self.kept();
        let live = kept.live.as_mut().filter(|l| !l.ended())?;
        live.refresh(run_dir);
        Some(live.clone())
    }

    /// It runs, or runs no more.
    pub fn set_live(&self, live: Option<Live>) {
        let mut kept = self.kept();
        if live.is_none() {
            kept.boots = 0;
        }
        kept.live = live;
    }

    /// How many boots of this run have been told of, if that is known.
    pub fn boots(&self) -> Option<u32> {
        Some(self.kept().boots).filter(|n| *n > 0)
    }

    /// So many have been told of.
    pub fn set_boots(&self, boots: u32) {
        self.kept().boots = boots;
    }

    /// Its uid range, if it runs without being in the inventory.
    pub fn stranger(&self) -> Option<UidBase> {
        self.kept().stranger
    }

    /// It runs without being in the inventory, with this uid range; or no more.
    pub fn set_stranger(&self, uid_base: Option<UidBase>, more: Vec<UidBase>) {
        let mut kept = self.kept();
        (kept.stranger, kept.strangers_more) = (uid_base, more);
    }

    /// All its uid ranges, if it runs without being in the inventory.
    pub fn strangers_uids(&self) -> Vec<UidBase> {
        let kept = self.kept();
        kept.stranger.iter().chain(&kept.strangers_more).copied().collect()
    }
}
