//! `start --wait`: whether the container has reached its default runlevel, asked of its own init.

use super::{Engine, Error, Result, lock, process};
use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use vz_types::{Ctid, ExitCode, plan::AttachPlan};

/// Longest a boot is waited for.
const BOOT: Duration = Duration::from_secs(180);
/// Between two questions while init does not answer yet.
const AGAIN: Duration = Duration::from_millis(50);
/// What one question may take before it is asked anew.
const QUESTION: Duration = Duration::from_secs(170);

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
        let exe = fs::read_link(format!("/proc/{}/exe", live.record.init.pid)).unwrap_or_default();
        let name = exe.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name != "systemd" {
            return Ok(format!(
                "Container is started; its init ({name}) does not tell when its default runlevel is reached"
            ));
        }
        let until = Instant::now() + BOOT;
        loop {
            let answer = self.ask_systemd(ctid, &live.monitor, until)?;
            match answer.trim() {
                "running" => return Ok("Container has booted: its default target is reached, no unit failed".into()),
                "degraded" => {
                    return Ok(
                        "Container has booted, but some of its units failed: `systemctl --failed` inside names them"
                            .into(),
                    );
                }
                "stopping" => return Err(ended()),
                _ => {}
            }
            // Waiting for the container's end is what there is to wait for between two questions.
            if process::wait_end(&live.monitor, AGAIN) {
                return Err(ended());
            }
            if Instant::now() >= until {
                let said = if answer.trim().is_empty() { "does not answer" } else { answer.trim() };
                let message = format!(
                    "CT {ctid} runs, but has not reached its default target within {} s: its systemd says `{said}`",
                    BOOT.as_secs()
                );
                return Err(Error::refused(
                    ExitCode::ExecTimeout,
                    message,
                    "`vzctl exec CTID systemctl list-jobs` shows what it waits for",
                ));
            }
        }
    }

    fn ask_systemd(&self, ctid: Ctid, monitor: &Arc<OwnedFd>, until: Instant) -> Result<String> {
        let plan = AttachPlan {
            run_dir: self.paths.ct_run(ctid),
            argv: ["systemctl", "is-system-running", "--wait"].map(String::from).into(),
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
        // vzmon takes the plan on a descriptor above the standard ones; the shell is what can place it there
        // without this threaded process changing descriptor flags that another spawn would see.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "exec \"$0\" attach 3 3<&0 </dev/null"])
            .arg(self.monitor()?.program())
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
                // One word; whatever the container's program writes beyond it does not count.
                out.take(64).read_to_string(&mut answer).map_err(io)?;
            }
        }
        Ok(answer)
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
