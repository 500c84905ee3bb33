//! Rounds: every running container is looked at again and again, those in which nothing was done for next to nothing.

use super::{
    beans_at, commit, files,
    notice::{notice_disk, notice_read_only},
    texts,
};
use crate::{
    ct::limits as ct_limits,
    ledger::SAMPLE,
    limits::{Host, processes::Locks},
    manager::{Manager, lock},
    monitor::Live,
};
use std::{
    cell::{Cell, OnceCell},
    sync::{Arc, Condvar, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};
use vz_types::Ctid;

/// Before the first look of a vzd, when whoever waits for it has had its answer.
const FIRST: Duration = Duration::from_secs(1);
/// Between two looks at every running container.
const TICK: Duration = Duration::from_secs(5);
/// So many times longer than a round has taken is waited before the next, however many containers there are.
const REST: u32 = 50;
/// But never longer than this: events are waited for.
const LONGEST: Duration = Duration::from_secs(20);

/// What containers that are looked at together share.
#[derive(Debug)]
pub struct Round {
    pub(super) locks: OnceCell<Locks>,
    pub(super) host: OnceCell<Option<Arc<Host>>>,
    /// How many may still be looked at although it is only their time.
    spare: Cell<usize>,
    /// Sockets come and go without the container's doing, so they are asked for in any case, if anybody wants to know.
    pub(super) sockets: bool,
}

impl Round {
    /// Because somebody asks.
    pub(crate) fn asked(sockets: bool) -> Self {
        Self { locks: OnceCell::new(), host: OnceCell::new(), spare: Cell::new(0), sockets }
    }

    /// Of so many running containers, all of which have their turn within a minute.
    fn regular(running: usize) -> Self {
        let rounds = (SAMPLE.as_secs() / TICK.as_secs()) as usize;
        Self { spare: Cell::new(running.div_ceil(rounds) * 2), ..Self::asked(true) }
    }

    /// One of those whose turn it is; false: the next round will do.
    pub(super) fn take(&self) -> bool {
        let left = self.spare.get();
        self.spare.set(left.saturating_sub(1));
        left > 0
    }
}

/// Starts the thread that keeps the accounts. It ends with the process.
///
/// # Errors
/// The kernel gives no thread.
pub fn keep(m: &Arc<Manager>) -> std::io::Result<()> {
    let m = m.clone();
    std::thread::Builder::new().name("accounts".into()).stack_size(256 << 10).spawn(move || {
        let never = (Mutex::new(()), Condvar::new());
        let mut pause = FIRST;
        let mut shown = None;
        loop {
            // Nobody rings: it is the time that counts.
            drop(never.1.wait_timeout_while(lock(&never.0), pause, |()| true));
            let begun = Instant::now();
            tick(&m, &mut shown);
            pause = (begun.elapsed() * REST).clamp(TICK, LONGEST);
        }
    })?;
    Ok(())
}

/// Looks at every running container, and writes the classic files. `shown`: whom the host's shows.
fn tick(m: &Manager, shown: &mut Option<Vec<Ctid>>) {
    let running = running(m);
    let round = Round::regular(running.len());
    let mut changed = false;
    for (ctid, live) in &running {
        match look_again(m, &round, *ctid, live) {
            Ok(one) => changed |= one,
            Err(e) => tracing::warn!(ctid = ctid.get(), "the beancounter files cannot be written: {e}"),
        }
    }
    commit(m);
    let ctids: Vec<Ctid> = running.into_iter().map(|(ctid, _)| ctid).collect();
    if changed || shown.as_ref() != Some(&ctids) || !m.paths.user_beancounters().exists() {
        match texts::write(m, &ctids) {
            Ok(()) => *shown = Some(ctids),
            Err(e) => tracing::warn!("the beancounter files cannot be written: {e}"),
        }
    }
    if m.accounts.unsynced.swap(false, Ordering::Relaxed) {
        if let Err(e) = m.inventory.flush() {
            tracing::warn!("{}", crate::error::Error::from(e).report());
        }
    }
}

/// What runs now, in CTID order.
fn running(m: &Manager) -> Vec<(Ctid, Live)> {
    m.cells().into_iter().filter_map(|(ctid, cell)| Some((ctid, cell.live().filter(|l| !l.ended())?))).collect()
}

/// One container's turn in a round; whether its text has changed.
fn look_again(m: &Manager, round: &Round, ctid: Ctid, live: &Live) -> std::io::Result<bool> {
    let files = files(m, &live.record.cgroup);
    let account = m.accounts.of(ctid);
    {
        let account = lock(&account);
        let same_limits = account.limits.as_ref().is_some_and(|l| l.note == ct_limits::stamp(m, ctid));
        if same_limits && account.last.is_still(files.usage()) && (account.last.is_fresh() || !round.take()) {
            return Ok(false);
        }
    }
    let Ok(config) = m.conf.read(ctid) else { return Ok(false) };
    let set = ct_limits::now(m, ctid, &config);
    let beans = beans_at(m, round, ctid, Some((live, &files)), &set, true);
    if let Ok(Some(row)) = m.inventory.container(ctid) {
        notice_disk(m, &row, &config);
        notice_read_only(m, &row);
    }
    let text = match texts::write_own(m, ctid, &beans) {
        // It ends at this moment.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        text => text?,
    };
    let mut account = lock(&account);
    if *account.text == *text {
        return Ok(false);
    }
    account.text = text.into();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_has_its_turn_within_a_minute_of_rounds() {
        for running in [1, 12, 1000] {
            let turns: usize = (0..12)
                .map(|_| {
                    let round = Round::regular(running);
                    std::iter::repeat_with(|| round.take()).take_while(|t| *t).count()
                })
                .sum();
            assert!(turns >= running, "{running}: {turns}");
        }
    }
}
