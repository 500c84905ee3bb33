//! `start --wait`: whether the container has reached its default runlevel, asked of its own init. What PID 1 is
//! decides how it is asked ([`vz_types::inits`]).

use super::{
    Live,
    inittab::{self, Look, Table, Watch},
};
use crate::{pool::Pool, ready::readable};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout_at;
use vz_sys::proc;
use vz_types::{
    fact::Booted,
    inits::{self, Booted as Way},
    plan::{AttachPlan, PROTOCOL},
    run::RunRecord,
};

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
pub(super) enum Progress {
    /// It is over, and how it went.
    Booted(Booted),
    /// The container is going down.
    Ending,
    /// Not there yet; what its init says, if it says something.
    Underway(String),
}

/// Why a boot is not waited for any longer.
#[derive(Debug)]
pub enum NotBooted {
    /// The container ended meanwhile.
    Ended,
    /// Its time is over.
    TooLong {
        /// Its init.
        init: String,
        /// What that says, if it answers.
        says: String,
        /// It is one that lists its jobs.
        systemd: bool,
    },
    /// It cannot be asked.
    Io(io::Error),
}

/// Who asks: nothing of this holds a thread while it waits.
#[derive(Debug)]
pub struct Asker {
    /// `/run/vz/ct/<CTID>`.
    pub run_dir: PathBuf,
    /// The container.
    pub live: Live,
    /// The vzmon program.
    pub program: PathBuf,
    /// Threads for what is looked up.
    pub pool: Pool,
}

/// How long a boot is waited for, in seconds.
pub const LONGEST: u64 = BOOT.as_secs();

/// Waits until a started container has booted; says how it went.
///
/// # Errors
/// It ended, it takes too long, or it cannot be asked.
pub async fn wait(asker: &Asker) -> Result<Booted, NotBooted> {
    let pid = asker.live.record.init.pid;
    let name = looked(asker, move || proc::exe_name(pid).unwrap_or_default()).await?;
    let Some(way) = inits::of_exe(Path::new(&name)).map(|i| i.booted) else {
        // One that ends at once has not booted.
        return match ends_within(&asker.live, inittab::QUIET).await {
            true => Err(NotBooted::Ended),
            false => Ok(Booted::Untold { init: name, seconds: inittab::QUIET.as_secs() }),
        };
    };
    let begun = Instant::now();
    let until = begun + BOOT;
    // Files inside are read once: what init does depends on what it read itself when it started.
    let mut watch: Option<Watch> = None;
    loop {
        let progress = match way {
            Way::Systemd => systemd(asker, until).await?,
            Way::Inittab => {
                if watch.is_none() {
                    let text = question(asker, inittab::READ, inittab::READ_BY_BUSYBOX, until).await?;
                    let table = match text {
                        Answer::None => None,
                        Answer::Text(text) => text.trim_end().strip_suffix(inittab::END).map(Table::of),
                        // Nothing there could read one: nor did init, or it says nothing of what it does.
                        Answer::NoSuchProgram => Some(Table::default()),
                    };
                    watch = table.map(|table| Watch::new(&name, table));
                }
                match watch.take() {
                    Some(mut seen) => {
                        let record = asker.live.record.clone();
                        let (progress, seen) =
                            looked(asker, move || (seen.progress(&look(&record), Instant::now()), seen)).await?;
                        watch = Some(seen);
                        progress
                    }
                    None => Progress::Underway("starting".into()),
                }
            }
            Way::Openrc => openrc(asker, until).await?,
            Way::Runit => runit(asker, until, begun.elapsed() >= SERVICES).await?,
        };
        let says = match progress {
            Progress::Booted(booted) => return Ok(booted),
            Progress::Ending => return Err(NotBooted::Ended),
            Progress::Underway(says) => says,
        };
        // Waiting for the container's end is what there is to wait for between two questions.
        if ends_within(&asker.live, AGAIN).await {
            return Err(NotBooted::Ended);
        }
        if Instant::now() >= until {
            return Err(NotBooted::TooLong { init: name, says, systemd: way == Way::Systemd });
        }
    }
}

/// Looks something up where it may block.
async fn looked<T: Send + 'static>(asker: &Asker, look: impl FnOnce() -> T + Send + 'static) -> Result<T, NotBooted> {
    asker.pool.run(look).await.map_err(|_| NotBooted::Io(io::Error::other("vzd failed inside")))
}

async fn systemd(asker: &Asker, until: Instant) -> Result<Progress, NotBooted> {
    let answer = question(asker, &["systemctl", "is-system-running", "--wait"], &[], until).await?.text();
    let init = || "systemd".to_owned();
    Ok(match answer.trim() {
        "running" => Progress::Booted(Booted::Well { init: init() }),
        "degraded" => Progress::Booted(Booted::WithFailures { init: init(), services: Vec::new(), dir: None }),
        "stopping" => Progress::Ending,
        other => Progress::Underway(other.to_owned()),
    })
}

async fn openrc(asker: &Asker, until: Instant) -> Result<Progress, NotBooted> {
    const QUESTION: &str =
        "until [ -p /run/openrc/init.ctl ]; do sleep 0.05; done; echo booted; rc-status -f ini --crashed 2>&1";
    let answer = question(asker, &["sh", "-c", QUESTION], &[], until).await?.text();
    let mut lines = answer.lines().map(str::trim).filter(|l| !l.is_empty());
    let init = || "openrc".to_owned();
    Ok(match lines.next() {
        Some("booted") if lines.any(|l| l.ends_with("crashed")) => {
            Progress::Booted(Booted::WithFailures { init: init(), services: Vec::new(), dir: None })
        }
        Some("booted") => Progress::Booted(Booted::Well { init: init() }),
        other => Progress::Underway(other.unwrap_or_default().to_owned()),
    })
}

/// `late`: what is not up by now is not waited for.
async fn runit(asker: &Asker, until: Instant, late: bool) -> Result<Progress, NotBooted> {
    let record = asker.live.record.clone();
    let all = looked(asker, move || children(&record)).await?;
    let words = |of: &dyn Fn(&Vec<String>) -> bool| all.iter().find(|(_, words)| of(words)).map(|(_, words)| words);
    let supervisor = words(&|w| w.first().is_some_and(|p| last(p) == "runsvdir"));
    let Some(dir) = supervisor.and_then(|c| c.iter().skip(1).find(|word| word.starts_with('/')).cloned()) else {
        // A second stage of somebody's own shows nothing.
        let second = words(&|w| w.iter().take(2).any(|word| word == "/etc/runit/2")).is_some();
        return Ok(match second && late {
            true => Progress::Booted(Booted::Quiet { init: "runit".into(), seconds: SERVICES.as_secs() }),
            false => Progress::Underway("starting".into()),
        });
    };
    const QUESTION: &str =
        r#"for s in "$0"/*/; do [ -d "$s" ] && { sv -w 5 check "$s" || echo "down: $s"; }; done; echo end"#;
    let answer = question(asker, &["sh", "-c", QUESTION, &dir], &[], until).await?.text();
    let down: Vec<&str> = answer.lines().filter_map(|l| l.strip_prefix("down: ")).collect();
    let down: Vec<String> = down.iter().map(|d| last(d.trim_end_matches('/')).to_owned()).collect();
    let init = "runit".to_owned();
    Ok(match (answer.trim_end().ends_with("end"), down.is_empty()) {
        (true, true) => Progress::Booted(Booted::Well { init }),
        (true, false) if late => Progress::Booted(Booted::WithFailures { init, services: down, dir: Some(dir) }),
        _ => Progress::Underway(format!("waiting for {}", down.join(" "))),
    })
}

/// What came of a question.
enum Answer {
    /// This was printed.
    Text(String),
    /// It was not done in time.
    None,
    /// There is no such program inside.
    NoSuchProgram,
}

impl Answer {
    /// What was printed.
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::None | Self::NoSuchProgram => String::new(),
        }
    }
}

/// Runs a program inside, or the other one where the first is not there, and gives what it printed.
async fn question(asker: &Asker, argv: &[&str], other: &[&str], until: Instant) -> Result<Answer, NotBooted> {
    let owned = |words: &[&str]| words.iter().map(|s| (*s).into()).collect();
    let plan = AttachPlan {
        run_dir: asker.run_dir.clone(),
        argv: owned(argv),
        env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
        tty: false,
        script_fd: None,
        argv_fallback: owned(other),
        fail_as: None,
        farewell: None,
    };
    let program = asker.program.clone();
    let mut child = looked(asker, move || ask(&program, &plan)).await?.map_err(NotBooted::Io)?;
    let limit = (Instant::now() + QUESTION).min(until);
    let answered = child.answers(&asker.live, limit).await;
    let answer = looked(asker, move || child.answer(answered)).await?;
    answer.map_err(NotBooted::Io)
}

/// A program inside that is asked.
struct Asked {
    child: Child,
    pidfd: Arc<OwnedFd>,
}

fn ask(program: &Path, plan: &AttachPlan) -> io::Result<Asked> {
    let text = serde_json::to_vec(plan)?;
    let memfd = rustix::fs::memfd_create("vz-attach-plan", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut plan_file = File::from(memfd);
    plan_file.write_all(&text).and_then(|()| plan_file.rewind())?;
    let child = Command::new(program)
        .args(["attach", "0", &PROTOCOL.to_string()])
        .env_clear()
        .stdin(plan_file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pidfd =
        rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), rustix::process::PidfdFlags::empty())?;
    Ok(Asked { child, pidfd: Arc::new(pidfd) })
}

impl Asked {
    /// Waits for its end; false where the container's or its time's comes first.
    async fn answers(&mut self, live: &Live, until: Instant) -> bool {
        let both = async {
            tokio::select! {
                biased;
                () = readable(Some(self.pidfd.clone())) => true,
                () = readable(live.monitor.clone()) => false,
            }
        };
        timeout_at(until.into(), both).await.unwrap_or(false)
    }

    fn answer(mut self, answered: bool) -> io::Result<Answer> {
        /// vzmon's status where there is no such program (as a shell's).
        const NOT_FOUND: i32 = 127;
        if !answered {
            super::process::kill(&*self.pidfd);
        }
        let status = self.child.wait()?;
        let Some(out) = self.child.stdout.take().filter(|_| answered) else { return Ok(Answer::None) };
        // A pipe holds as much; a program that writes more is not done in time and has no answer.
        let mut bytes = Vec::new();
        out.take(ANSWER).read_to_end(&mut bytes)?;
        Ok(match status.code() {
            Some(NOT_FOUND) if bytes.is_empty() => Answer::NoSuchProgram,
            _ => Answer::Text(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }
}

async fn ends_within(live: &Live, time: Duration) -> bool {
    timeout_at((Instant::now() + time).into(), readable(live.monitor.clone())).await.is_ok()
}

/// The last component of a path.
pub(super) fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// PID 1 as it is now.
fn look(record: &RunRecord) -> Look {
    let pid = record.init.pid;
    Look {
        init: proc::cmdline(pid).unwrap_or_default(),
        asleep: proc::stat(pid).is_ok_and(|stat| stat.state == 'S'),
        call: proc::syscall(pid).unwrap_or_default(),
        children: children(record),
    }
}

/// PID 1's children as the host's /proc has them: pids and command lines.
fn children(record: &RunRecord) -> Vec<(i32, Vec<String>)> {
    let mut pids = Vec::new();
    members(&record.cgroup.join("ns"), &mut pids);
    let is_child = |pid: &i32| proc::stat(*pid).is_ok_and(|stat| stat.ppid == record.init.pid);
    pids.into_iter().filter(is_child).map(|pid| (pid, proc::cmdline(pid).unwrap_or_default())).collect()
}

/// Every process of a cgroup and those below it.
fn members(dir: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            members(&entry.path(), pids);
        }
    }
}
