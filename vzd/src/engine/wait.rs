//! `start --wait`: whether the container has reached its default runlevel, asked of its own init. What PID 1 is
//! decides how it is asked ([`vz_types::inits`]).

use super::{Engine, Error, Result, lock, process, run::Live};
use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use vz_types::{
    Ctid, ExitCode,
    inits::{self, Booted as Way},
    plan::{AttachPlan, PROTOCOL},
    run::RunRecord,
};

mod inittab;

/// Longest a boot is waited for.
const BOOT: Duration = Duration::from_secs(180);
/// Between two questions while init does not answer yet.
const AGAIN: Duration = Duration::from_millis(50);
/// What one question may take before it is asked anew.
const QUESTION: Duration = Duration::from_secs(170);
/// How long supervised services may need to come up before the boot counts as done without them.
const SERVICES: Duration = Duration::from_secs(30);
/// Most that is read of an answer.
const ANSWER: u64 = 64 << 10;

/// What is known of a boot under way.
enum Progress {
    /// It is over; the sentence says how it went.
    Booted(String),
    /// The container is going down.
    Ending,
    /// Not there yet; what its init says, if it says something.
    Underway(String),
}

impl Engine {
    /// Waits until a started container has booted; says how it went.
    pub(crate) fn wait_booted(&self, ctid: Ctid) -> Result<String> {
        let ended = || {
            Error::refused(
                ExitCode::Environment,
                format!("CT {ctid} ended while it was booting"),
                &format!("`vzctl console {ctid}` shows what it said"),
            )
        };
        let Some(live) = lock(&self.cell(ctid).live).clone() else { return Err(ended()) };
        let name = init_name(live.record.init.pid);
        let Some(way) = inits::of_exe(Path::new(&name)).map(|i| i.booted) else {
            return Ok(format!(
                "Container is started; its init ({name}) does not tell when its default runlevel is reached"
            ));
        };
        let until = Instant::now() + BOOT;
        let begun = Instant::now();
        // Files inside are read once: what init does depends on what it read itself when it started.
        let mut respawned = None;
        loop {
            let progress = match way {
                Way::Systemd => self.systemd(ctid, &live, until)?,
                Way::Inittab => {
                    if respawned.is_none() {
                        let text = self.question(ctid, &live.monitor, inittab::READ, until)?;
                        respawned = text.trim_end().strip_suffix(inittab::END).map(inittab::respawned);
                    }
                    match &respawned {
                        Some(programs) => inittab::progress(&name, programs, &children(&live.record)),
                        None => Progress::Underway("starting".into()),
                    }
                }
                Way::Openrc => self.openrc(ctid, &live, until)?,
                Way::Runit => self.runit(ctid, &live, until, begun.elapsed() >= SERVICES)?,
            };
            let said = match progress {
                Progress::Booted(sentence) => return Ok(sentence),
                Progress::Ending => return Err(ended()),
                Progress::Underway(said) => said,
            };
            // Waiting for the container's end is what there is to wait for between two questions.
            if process::wait_end(&live.monitor, AGAIN) {
                return Err(ended());
            }
            if Instant::now() >= until {
                let message = format!(
                    "CT {ctid} runs, but has not reached its default runlevel within {} s: its init ({name}) {}",
                    BOOT.as_secs(),
                    if said.is_empty() { "does not answer".to_owned() } else { format!("says `{said}`") }
                );
                let hint = match way {
                    Way::Systemd => format!("`vzctl exec {ctid} systemctl list-jobs` shows what it waits for"),
                    _ => format!("`vzctl console {ctid}` shows what it is doing"),
                };
                return Err(Error::refused(ExitCode::ExecTimeout, message, &hint));
            }
        }
    }

    fn systemd(&self, ctid: Ctid, live: &Live, until: Instant) -> Result<Progress> {
        let answer = self.question(ctid, &live.monitor, &["systemctl", "is-system-running", "--wait"], until)?;
        Ok(match answer.trim() {
            "running" => Progress::Booted("Container has booted: its default target is reached, no unit failed".into()),
            "degraded" => Progress::Booted(
                "Container has booted, but some of its units failed: `systemctl --failed` inside names them".into(),
            ),
            "stopping" => Progress::Ending,
            other => Progress::Underway(other.to_owned()),
        })
    }

    fn openrc(&self, ctid: Ctid, live: &Live, until: Instant) -> Result<Progress> {
        const QUESTION: &str =
            "until [ -p /run/openrc/init.ctl ]; do sleep 0.05; done; echo booted; rc-status -f ini --crashed 2>&1";
        let answer = self.question(ctid, &live.monitor, &["sh", "-c", QUESTION], until)?;
        let mut lines = answer.lines().map(str::trim).filter(|l| !l.is_empty());
        Ok(match lines.next() {
            Some("booted") if lines.any(|l| l.ends_with("crashed")) => Progress::Booted(
                "Container has booted, but some of its services crashed: `rc-status --crashed` inside names them"
                    .into(),
            ),
            Some("booted") => Progress::Booted("Container has booted: its default runlevel is reached".into()),
            other => Progress::Underway(other.unwrap_or_default().to_owned()),
        })
    }

    /// `late`: what is not up by now is not waited for.
    fn runit(&self, ctid: Ctid, live: &Live, until: Instant, late: bool) -> Result<Progress> {
        let supervisor = children(&live.record).into_iter().find(|c| c.first().is_some_and(|p| last(p) == "runsvdir"));
        let Some(dir) = supervisor.and_then(|c| c.into_iter().skip(1).find(|word| word.starts_with('/'))) else {
            return Ok(Progress::Underway("starting".into()));
        };
        const QUESTION: &str =
            r#"for s in "$0"/*/; do [ -d "$s" ] && { sv -w 5 check "$s" || echo "down: $s"; }; done; echo end"#;
        let answer = self.question(ctid, &live.monitor, &["sh", "-c", QUESTION, &dir], until)?;
        let down: Vec<&str> = answer.lines().filter_map(|l| l.strip_prefix("down: ")).collect();
        let down: Vec<&str> = down.iter().map(|d| last(d.trim_end_matches('/'))).collect();
        Ok(match (answer.trim_end().ends_with("end"), down.is_empty()) {
            (true, true) => {
                Progress::Booted("Container has booted: runit's second stage runs, its services are up".into())
            }
            (true, false) if late => Progress::Booted(format!(
                "Container has booted, but some of its services are down: {}; `sv status {dir}/*` inside shows them",
                down.join(" ")
            )),
            _ => Progress::Underway(format!("waiting for {}", down.join(" "))),
        })
    }

    /// Runs a program inside and gives what it printed; nothing if it was not done in time.
    fn question(&self, ctid: Ctid, monitor: &Arc<OwnedFd>, argv: &[&str], until: Instant) -> Result<String> {
        let plan = AttachPlan {
            run_dir: self.paths.ct_run(ctid),
            argv: argv.iter().map(|s| (*s).to_owned()).collect(),
            env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            tty: false,
            script_fd: None,
            argv_fallback: Vec::new(),
            fail_as: None,
            farewell: None,
        };
        let text = serde_json::to_vec(&plan).map_err(|e| Error::Io {
            what: "writing",
            path: "attach plan".into(),
            source: e.into(),
        })?;
        let io = |source| Error::Io { what: "asking the init of", path: format!("CT {ctid}").into(), source };
        let memfd =
            rustix::fs::memfd_create("vz-attach-plan", rustix::fs::MemfdFlags::CLOEXEC).map_err(|e| io(e.into()))?;
        let mut plan_file = File::from(memfd);
        plan_file.write_all(&text).and_then(|()| plan_file.rewind()).map_err(io)?;
        let mut child = Command::new(self.monitor()?.program())
            .args(["attach", "0", &PROTOCOL.to_string()])
            .env_clear()
            .stdin(plan_file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io)?;
        let pidfd =
            rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), rustix::process::PidfdFlags::empty())
                .map_err(|e| io(e.into()))?;
        let limit = QUESTION.min(until.saturating_duration_since(Instant::now()));
        let answered = wait_either(&pidfd, monitor, limit);
        if !answered {
            process::kill(&pidfd);
        }
        child.wait().map_err(io)?;
        let mut answer = String::new();
        if answered {
            if let Some(out) = child.stdout.take() {
                // A pipe holds as much; a program that writes more is not done in time and has no answer.
                let mut bytes = Vec::new();
                out.take(ANSWER).read_to_end(&mut bytes).map_err(io)?;
                answer = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        Ok(answer)
    }
}

/// The last component of a path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The last component of a process's executable, without the mark of a file that was replaced.
fn init_name(pid: i32) -> String {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.trim_end_matches(" (deleted)").to_owned()
}

/// The command lines of PID 1's children, as the host's /proc has them.
fn children(record: &RunRecord) -> Vec<Vec<String>> {
    let mut pids = Vec::new();
    members(&record.cgroup.join("ns"), &mut pids);
    let parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in field 2 may hold anything, so fields count from its last `)`.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    let line = |pid: u32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = bytes.split(|b| *b == 0).filter(|w| !w.is_empty());
        words.map(|w| String::from_utf8_lossy(w).into_owned()).collect()
    };
    pids.into_iter().filter(|p| parent(p) == Some(record.init.pid)).map(line).collect()
}

/// Every process of a cgroup and those below it.
fn members(dir: &Path, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            members(&entry.path(), pids);
        }
    }
}

/// Waits for the first process to end; false when the second one ends before it, or at the deadline.
fn wait_either(first: &OwnedFd, second: &OwnedFd, deadline: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(deadline).unwrap_or(Timespec { tv_sec: 60, tv_nsec: 0 });
    let mut both = [PollFd::new(first, PollFlags::IN), PollFd::new(second, PollFlags::IN)];
    let _ = poll(&mut both, Some(&timeout));
    !both[0].revents().is_empty()
}
