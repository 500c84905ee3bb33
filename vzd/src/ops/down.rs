//! Taking a container down: asking it to end, and clearing away everything it has left. The half that `stop`, `restart`
//! and every end nobody asked for have in common. It only goes forward, and past errors, which are told at the end.

use super::{
    Work,
    step::{Flow, Resume, Step, Wait},
};
use crate::{
    accounts,
    ct::{StopSpec, settle},
    error::{Error, Result},
    hands::Asked,
    inventory::CtRow,
    manager::now,
    monitor::{
        Live,
        live::{exit_words, read_exit, read_record},
        process,
    },
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use vz_types::{
    CtAddr, CtState, Ctid, Fact,
    plan::{ControlReply, ControlRequest},
    run::{ExitReason, ExitRecord},
    time::utc,
};

/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(20);
/// What the monitor needs beyond the time it gives the container.
const GRACE: Duration = Duration::from_secs(15);
/// What a monitor may take for a stop that gives no time.
const FAST: Duration = Duration::from_secs(5);
/// How long a stop may go on before its monitor is looked at: one that is stopped answers nobody.
const LOOK: Duration = Duration::from_secs(5);
/// How long a monitor that is not stopped may then take to answer what it can answer at once, busy as the host may be.
const HEARD: Duration = Duration::from_secs(10);
/// How long the end of a monitor may take to be seen that shows in other ways already.
const SEEN: Duration = Duration::from_secs(1);

/// How a container is to be ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct How {
    /// Kill at once.
    pub fast: bool,
    /// Seconds before the kill.
    pub timeout: u32,
    /// When that is over, in seconds since the host's boot, which outlive this vzd and follow no change of the wall clock;
    /// 0: it has not been asked yet. What an earlier version noted, since the epoch, gives it all its time once more.
    pub until: u64,
}

impl How {
    /// Seconds it has left at this moment, in seconds since the host's boot.
    fn left(self, at: u64) -> u32 {
        let left = if self.until == 0 { self.timeout.into() } else { self.until.saturating_sub(at) };
        u32::try_from(left).unwrap_or(u32::MAX).min(self.timeout).max(1)
    }
}

/// A container on its way down.
#[derive(Debug)]
pub struct Down {
    /// Which.
    pub row: CtRow,
    live: Option<Live>,
    /// How it is asked.
    pub how: How,
    umount: bool,
    asked: Option<Box<dyn Asked>>,
    asked_fast: bool,
    deadline: Option<Instant>,
    /// When it is to be seen next whether its monitor listens; `None`: it does, or need not.
    look: Option<Instant>,
    /// Asked of it for no other reason.
    probe: Option<Box<dyn Asked>>,
    exit: Option<ExitRecord>,
    /// Its monitor has left a record of this host boot that it runs, and none of its end.
    lost: bool,
    /// Its monitor was ended by us, because it did not answer.
    silenced: bool,
}

impl Down {
    /// Of a container that runs, or has run.
    pub fn new(row: CtRow, live: Option<Live>, how: How) -> Self {
        Self {
            row,
            live,
            how,
            umount: true,
            asked: None,
            asked_fast: false,
            deadline: None,
            look: None,
            probe: None,
            exit: None,
            lost: false,
            silenced: false,
        }
    }

    /// Its files stay mounted: they were before it ran.
    pub fn keep_mounted(mut self) -> Self {
        self.umount = false;
        self
    }

    /// Asks it to end, and waits for its end. Who comes later may hurry it.
    fn signal(&mut self, w: &Work) -> Result<Flow> {
        let ended = self.has_ended(w);
        if ended && self.asked.is_none() {
            return Ok(Flow::Done);
        }
        let fast = self.how.fast || w.handle.is_fast();
        // One that has ended may have answered before that.
        if self.asked.is_none() || fast && !self.asked_fast && !ended {
            // Of a stop that an earlier vzd began, what is left of its time.
            let left = self.how.left(since_boot());
            let request = ControlRequest::Stop { fast, timeout: Some(left) };
            let run_dir = w.m.paths.ct_run(self.row.ctid);
            match w.m.hands.monitor.ask(&run_dir, &request) {
                Ok(asked) => self.asked = Some(asked),
                Err(e) => return Ok(self.silent(w, &e)),
            }
            self.asked_fast = fast;
            (self.look, self.probe) = ((!fast).then(|| Instant::now() + LOOK), None);
            let patience = if fast { FAST } else { GRACE + Duration::from_secs(left.into()) };
            self.deadline = Some(Instant::now() + patience);
        }
        let (Some(asked), Some(until)) = (&mut self.asked, self.deadline) else { return Ok(Flow::Done) };
        match asked.answer() {
            Ok(Some(ControlReply::Ended { reason: ExitReason::Killed })) if !fast => {
                w.tell(Fact::Killed { seconds: self.how.timeout });
                Ok(Flow::Done)
            }
            Ok(Some(_)) => Ok(Flow::Done),
            Ok(None) if Instant::now() < until => {
                let fd = asked.fd();
                match self.listens(w) {
                    Ok(next) => Ok(Flow::Wait(Wait { fd, until: next.map_or(until, |next| next.min(until)) })),
                    Err(cause) => Ok(self.silenced(w, cause)),
                }
            }
            Ok(None) => Ok(self.silenced(w, "no answer in time".into())),
            Err(e) => Ok(self.silent(w, &e)),
        }
    }

    /// Whether its monitor is known to have ended, and with it the container.
    fn has_ended(&self, w: &Work) -> bool {
        match &self.live {
            Some(live) => live.ended(),
            // Found with a record that cannot be read, or not found at all.
            None => matches!(settle::runs(&w.m, self.row.ctid), settle::Runs::No),
        }
    }

    /// Sees whether a monitor that has not answered the stop yet is there for anybody: a graceful stop may take its time.
    /// Answers when to look again; why it is not waited for any longer.
    fn listens(&mut self, w: &Work) -> std::result::Result<Option<Instant>, String> {
        let now = Instant::now();
        let Some(look) = self.look.filter(|look| *look <= now) else { return Ok(self.look) };
        if let Some(mut probe) = self.probe.take() {
            self.look = None;
            return match probe.answer() {
                Ok(None) => Err(format!("it has answered nothing for {} s", (LOOK + HEARD).as_secs())),
                // Whatever it says, it listens. That it has ended is seen by who asked for that.
                _ => Ok(None),
            };
        }
        if let Some(pid) = self.live.as_ref().and_then(Live::stopped) {
            return Err(format!("it is stopped (pid {pid})"));
        }
        self.look = None;
        let request = ControlRequest::Console { replay: false };
        match w.m.hands.monitor.ask(&w.m.paths.ct_run(self.row.ctid), &request) {
            Ok(probe) => (self.probe, self.look) = (Some(probe), Some(look + HEARD)),
            Err(e) if e.is_timeout() => return Err("its socket takes nobody in".into()),
            // It is about to end.
            Err(_) => {}
        }
        Ok(self.look)
    }

    /// It was asked in vain: the next step clears up after a monitor that has ended, and ends one that has not.
    fn silent(&mut self, w: &Work, e: &crate::monitor::Error) -> Flow {
        let ending = self.live.as_ref().and_then(|l| l.monitor.as_ref()).filter(|_| !e.is_timeout());
        let ended = ending.is_some_and(|fd| process::wait_end(&**fd, SEEN)) || self.has_ended(w);
        match ended {
            true => Flow::Done,
            false => self.silenced(w, e.cause()),
        }
    }

    /// The next step ends it without the monitor's help.
    fn silenced(&mut self, w: &Work, cause: String) -> Flow {
        self.silenced = true;
        w.tell(Fact::MonitorSilent { cause });
        Flow::Done
    }

    fn kill(&mut self, w: &Work) -> Result<()> {
        if let Some(live) = &self.live {
            let answered = self.exit_is_there(w);
            let patience = if answered { Duration::from_secs(5) } else { Duration::ZERO };
            if !w.m.hands.monitor.end(live, patience) {
                let path = w.m.paths.ct_run(self.row.ctid);
                return Err(Error::Teardown {
                    ctid: self.row.ctid,
                    problems: vec![format!("its monitor ({}) cannot be killed", path.display())],
                });
            }
        }
        Ok(w.m.tree()?.kill(self.row.ctid, KILLED)?)
    }

    fn exit_is_there(&self, w: &Work) -> bool {
        read_exit(&w.m.paths.ct_run(self.row.ctid)).is_some()
    }

    fn network(&mut self, w: &Work) -> Result<()> {
        let ctid = self.row.ctid;
        let addresses: Vec<CtAddr> = w.m.inventory.addresses(ctid)?.into_iter().map(|(ip, _)| ip).collect();
        Ok(w.m.hands.network.detach(ctid, &addresses)?)
    }

    /// Where it is then: down, or mounted still where that could not be taken away.
    pub fn state(&self, w: &Work) -> CtState {
        w.m.mounted_or_stopped(&self.row)
    }

    /// How it ended, for people, and the kind of event that is.
    pub fn ended(&self) -> (&'static str, String) {
        match &self.exit {
            Some(record) => {
                let kind = match &record.reason {
                    ExitReason::Poweroff | ExitReason::Killed | ExitReason::Exited { status: 0 } => "stopped",
                    ExitReason::Exited { .. } | ExitReason::Crashed { .. } | ExitReason::RebootFailed { .. } => {
                        "crashed"
                    }
                };
                (kind, exit_words(record, &utc(record.at)))
            }
            // Nobody saw it.
            None if self.live.is_none() => {
                ("crashed", format!("its monitor had ended without a record when that was found at {}", utc(now())))
            }
            None => ("crashed", format!("its monitor ended without a record at {}", utc(now()))),
        }
    }

    /// Whether it ended because its monitor did, and not in order.
    pub fn is_lost(&self) -> bool {
        self.ran() && self.exit.is_none() && !self.silenced
    }

    /// Whether it runs now.
    pub fn runs(&self) -> bool {
        self.live.as_ref().is_some_and(|l| !l.ended())
    }

    /// Whether it ran at all, as far as that is known.
    pub fn ran(&self) -> bool {
        self.exit.is_some() || self.live.is_some() || self.lost
    }

    /// Gives back addresses that were only for the run that has ended. A filter element that stays for a moment lets
    /// nothing of use through, and a vzd that starts makes the filter from the claims.
    fn unsaved(&mut self, w: &Work) -> Result<()> {
        let ctid = self.row.ctid;
        let all = w.m.inventory.addresses(ctid)?;
        let (saved, unsaved): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, saved)| *saved);
        if unsaved.is_empty() {
            return Ok(());
        }
        let ips = |v: Vec<(CtAddr, bool)>| v.into_iter().map(|(ip, _)| ip).collect::<Vec<_>>();
        let (saved, unsaved) = (ips(saved), ips(unsaved));
        let name = w.m.inventory.container(ctid)?.and_then(|r| r.name);
        w.write_anyway("giving addresses back", move |c| c.settle(ctid, name.as_ref(), &saved, &[]))?;
        Ok(w.m.hands.network.deny(ctid, &unsaved)?)
    }

    /// Everything that is cleared away, without asking first and without writing anything down: after a start that
    /// failed, and for what is found at the start of vzd. What failed, in words.
    pub fn clear(&mut self, w: &Work) -> Vec<String> {
        let mut problems = Vec::new();
        for step in after() {
            if !(step.when)(self) {
                continue;
            }
            if let Err(e) = (step.does)(self, w) {
                problems.push(format!("{}: {}", step.name, e.report()));
            }
        }
        problems
    }
}

/// A container on its way down, with the time it gets.
pub fn begun(w: &Work, ctid: Ctid, spec: StopSpec) -> Result<Down> {
    let row = w.m.row(ctid)?;
    // A broken configuration keeps nobody from stopping.
    let config = w.m.conf.read(ctid).ok();
    let timeout = spec.timeout.unwrap_or_else(|| settle::stop_timeout(&w.m, config.as_deref()));
    let how = How { fast: spec.fast, timeout, until: since_boot() + u64::from(timeout) };
    Ok(Down::new(row, w.m.cell(ctid).live(), how))
}

fn since_boot() -> u64 {
    vz_sys::proc::boottime().as_secs()
}

/// The same after a crash: its monitor goes on with it meanwhile.
pub fn resumed(w: &Work, how: How) -> Result<Down> {
    let ctid = w.ctid()?;
    let row = w.m.row(ctid)?;
    Ok(Down::new(row, w.m.cell(ctid).live(), how))
}

/// Its monitor was not asked: it runs on, unless it has ended by itself.
pub fn not_asked_yet(down: &Down) -> Resume {
    if down.runs() { Resume::Back } else { Resume::Forward }
}

/// Asking it to end. Recovery asks again: the monitor goes on with the stop it is at, and answers the new one too.
pub fn signal() -> Step<Down> {
    Step::waiting("signal", Down::signal).onward()
}

/// How a teardown that was cut short, or has left something, goes on: it is asked to end once, and cleared away after
/// as often as it takes.
pub fn how(step: &str) -> Resume {
    match step {
        "journal" | "signal" => Resume::Forward,
        _ => Resume::At(KILL),
    }
}

/// The first step after it has been asked.
const KILL: &str = "kill";

/// Clearing away after it, in this order.
pub fn after() -> Vec<Step<Down>> {
    let step = |name, does: fn(&mut Down, &Work) -> Result<()>| Step::new(name, does).onward();
    vec![
        step(KILL, Down::kill),
        step("accounts", |d, w| {
            accounts::close(&w.m, &d.row);
            Ok(())
        })
        .tolerant(),
        step("hide-own-files", |d, w| {
            w.m.hands.storage.remove_small_filesystem(&w.m.paths.bc(d.row.ctid));
            Ok(())
        })
        .tolerant(),
        step("umount", |d, w| settle::hide(&w.m, &w.m.storage_plan(&d.row)))
            .when(|d| d.umount)
            // What cannot be unmounted is mounted, which the operator can end.
            .forgiven(),
        step("detach", Down::network).tolerant(),
        step("remove-cgroup", |d, w| Ok(w.m.tree()?.remove(d.row.ctid)?)).tolerant(),
        step("clear-rundir", |d, w| {
            let dir = w.m.paths.ct_run(d.row.ctid);
            if let Ok(Some(record)) = read_record(&dir) {
                w.m.tell_reboots_of(d.row.ctid, record.boots);
                // One of another host boot says nothing of how that ended.
                d.lost = record.host_boot_id == w.m.boot_id;
            }
            d.exit = read_exit(&dir).or(d.exit.take());
            settle::clear_run_dir(&dir)
        })
        .tolerant(),
        step("addresses", |d, w| {
            let done = d.unsaved(w);
            w.m.cell(d.row.ctid).set_live(None);
            done
        })
        .tolerant(),
    ]
}

#[cfg(test)]
mod tests {
    use super::How;

    #[test]
    fn a_stop_that_is_gone_on_with_has_what_is_left_of_its_time_whatever_the_wall_clock_says() {
        let how = How { fast: false, timeout: 60, until: 1060 };
        assert_eq!((how.left(1000), how.left(1045), how.left(5000)), (60, 15, 1));
        // As an earlier version noted it, in seconds since the epoch.
        assert_eq!(How { until: 1_800_000_000, ..how }.left(1000), 60);
        assert_eq!(How { until: 0, ..how }.left(1000), 60);
    }
}
