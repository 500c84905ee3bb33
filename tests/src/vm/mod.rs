//! The virtual test host, as tests see it: a Debian machine with systemd, unified cgroup v2, disks with project
//! quota and this checkout's vz installed, driven from outside over ssh. `cargo xtask vm` makes and starts it (see
//! `docs/guide/testing.md`); tests find it by `VZ_VM`, the directory of the running machine. Without that a test
//! fails: it never skips.
//!
//! ```no_run
//! use vz_tests::vm::Vm;
//! let vm = Vm::shared(); // or Vm::alone() when the test restarts vzd, reboots, or counts what is there
//! vm.ok("vzctl create 101 --ostemplate tiny");
//! assert!(vm.sh("vzctl start 101").code() == 0);
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | the QEMU process: start, end, reset, its console |
//! | [`link`] | the ssh connection |
//! | [`limits`] | counters, cgroup files, floods |
//! | [`stream`] | output that is read as it comes |

pub mod limits;
pub mod link;
pub mod machine;
pub mod stream;

use crate::{command::Output, wait};
use link::Link;
use machine::Machine;
use rustix::fs::FlockOperation;
use std::{
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The variable that names the directory of the running machine.
pub const VARIABLE: &str = "VZ_VM";
/// How long one command in the guest may take unless told otherwise. Emulated, it is 10 to 20 times slower.
pub const LIMIT: Duration = Duration::from_secs(120);
/// How long the guest may take from power on until it lets one in.
pub const BOOT: Duration = Duration::from_secs(300);
/// Names of OS templates there are in the guest, ready for use.
pub const TEMPLATES: &[&str] = &["tiny", "debian-12", "debian-13", "debian-12-sysvinit"];

/// The running machine, held for one test.
pub struct Vm {
    machine: Machine,
    link: Link,
    _turn: File,
}

impl Vm {
    /// The machine, together with other tests that ask for it this way: use CTIDs of your own, take away what you
    /// make, restart nothing.
    ///
    /// # Panics
    /// There is no machine, or it does not answer.
    #[track_caller]
    pub fn shared() -> Self {
        Self::get(FlockOperation::LockShared)
    }

    /// The machine with nobody else at it: for reboots, power cuts, restarts of vzd.
    ///
    /// # Panics
    /// There is no machine, or it does not answer.
    #[track_caller]
    pub fn alone() -> Self {
        Self::get(FlockOperation::LockExclusive)
    }

    #[track_caller]
    fn get(how: FlockOperation) -> Self {
        let Some(dir) = std::env::var_os(VARIABLE) else {
            panic!("no virtual test host: {VARIABLE} is not set. Run this test with `cargo xtask vm test`");
        };
        let dir = Path::new(&dir);
        let turn = File::create(dir.join("turn")).unwrap_or_else(|e| panic!("{VARIABLE}={}: {e}", dir.display()));
        // Waiting for one's turn is bounded by the runner's own limit on a test.
        rustix::fs::flock(&turn, how).unwrap_or_else(|e| panic!("cannot wait for the machine: {e}"));
        let machine = Machine::open(dir).unwrap_or_else(|e| panic!("{e}"));
        if let Some(why) = machine.given_up() {
            panic!("an earlier test lost the virtual test host: {why}");
        }
        let link = Link::new(&machine);
        let vm = Self { machine, link, _turn: turn };
        // A test that failed with the power off leaves it off.
        if vm.machine.is_off_on_purpose() {
            vm.power_on();
        } else {
            vm.up(Duration::from_secs(120));
        }
        vm
    }

    /// Runs a shell line in the guest as root, for at most [`LIMIT`].
    #[track_caller]
    pub fn sh(&self, line: &str) -> Output {
        self.sh_within(line, LIMIT)
    }

    /// Runs a shell line in the guest as root, for at most `limit`.
    ///
    /// # Panics
    /// It is not done in time, or the guest cannot be reached.
    #[track_caller]
    pub fn sh_within(&self, line: &str, limit: Duration) -> Output {
        self.answer(self.link.run(line, None, limit))
    }

    /// The same with this standard input.
    #[track_caller]
    pub fn sh_with(&self, line: &str, stdin: &[u8], limit: Duration) -> Output {
        self.answer(self.link.run(line, Some(stdin), limit))
    }

    /// What the guest answered. When it did not, it is asked for a sign of life: without one it is given up, and no
    /// later test waits for it.
    #[track_caller]
    fn answer(&self, said: anyhow::Result<Output>) -> Output {
        said.unwrap_or_else(|e| match self.link.proven(&self.machine) {
            Ok(()) => panic!("{e:#}"),
            Err(gone) => {
                self.machine.give_up(&format!("{gone:#}"));
                panic!("{e:#}\n{gone:#}")
            }
        })
    }

    /// Runs a shell line, expects success, and gives its output without the white space around it.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let out = self.sh(line);
        if out.code() != 0 {
            panic!("expected success:\n{out}--- vzd\n{}", self.vzd_log(30));
        }
        out.text().to_owned()
    }

    /// Runs a shell line inside a running container, expects success, and gives its output.
    #[track_caller]
    pub fn inside(&self, ctid: u32, line: &str) -> String {
        self.ok(&format!("vzctl exec2 {ctid} {}", link::quoted(line)))
    }

    /// Repeats a shell line, at most once a second, until it succeeds; gives its output.
    ///
    /// # Panics
    /// It did not in `limit`.
    #[track_caller]
    pub fn until(&self, line: &str, limit: Duration) -> String {
        let mut last = None;
        let found = wait::retry(limit, Duration::from_secs(1), || {
            let out = self.sh(line);
            let good = (out.code() == 0).then(|| out.text().to_owned());
            last = Some(out);
            good
        });
        match (found, last) {
            (Some(text), _) => text,
            (None, Some(out)) => panic!("not within {} s:\n{out}--- vzd\n{}", limit.as_secs(), self.vzd_log(30)),
            (None, None) => panic!("never tried: {line}"),
        }
    }

    /// Starts a shell line as root whose output is read as it comes. Its end is nobody's business but the caller's.
    ///
    /// # Panics
    /// ssh cannot be run.
    #[track_caller]
    pub fn stream(&self, line: &str) -> stream::Stream {
        let line = format!("bash -c {}", link::quoted(line));
        stream::Stream::start(&self.link, &line).unwrap_or_else(|e| panic!("cannot run ssh: {e}"))
    }

    /// Copies a file of the build machine into the guest, with its permissions.
    #[track_caller]
    pub fn push(&self, from: &Path, to: &str) {
        let bytes = std::fs::read(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        use std::os::unix::fs::MetadataExt;
        let mode = std::fs::metadata(from).map(|m| m.mode() & 0o7777).unwrap_or(0o644);
        let to = link::quoted(to);
        self.sh_with(&format!("cat >{to} && chmod {mode:o} {to}"), &bytes, LIMIT).ok();
    }

    /// vzd's last lines in the journal.
    pub fn vzd_log(&self, lines: u32) -> String {
        if self.machine.given_up().is_some() {
            return String::new();
        }
        match self.link.run(&format!("journalctl -u vzd -o cat --no-pager -n {lines}"), None, LIMIT) {
            Ok(o) => o.stdout,
            Err(e) => format!("{e:#}"),
        }
    }

    /// Boots the guest again in an orderly way, and waits until it lets one in and vzd answers.
    #[track_caller]
    pub fn reboot(&self) {
        let before = self.ok("cat /proc/sys/kernel/random/boot_id");
        self.ok(link::REBOOT);
        self.link.forget();
        let end = Instant::now() + BOOT;
        let other = || {
            let now = self.link.run("cat /proc/sys/kernel/random/boot_id", None, Duration::from_secs(20)).ok()?;
            (now.code() == 0 && now.text() != before).then_some(())
        };
        let left = || end.saturating_duration_since(Instant::now());
        let up = wait::retry(left(), Duration::from_secs(1), || {
            self.machine.alive_and_well().unwrap_or_else(|e| panic!("{e}"));
            other()
        });
        if up.is_none() {
            let lost = self.machine.trouble(&format!("the guest did not boot again in {} s", BOOT.as_secs()));
            self.machine.give_up(&format!("{lost:#}"));
            panic!("{lost:#}");
        }
        self.settle();
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        !self.machine.is_off_on_purpose()
    }

    /// Takes the power away: what the guest had not written to its disks by now is lost.
    #[track_caller]
    pub fn cut_power(&self) {
        // The connection after it: what runs in the guest must not end before.
        self.machine.cut().unwrap_or_else(|e| panic!("{e}"));
        self.link.forget();
    }

    /// Gives the power back after [`Vm::cut_power`], and waits until the guest lets one in and vzd answers.
    #[track_caller]
    pub fn power_on(&self) {
        self.machine.start().unwrap_or_else(|e| panic!("{e}"));
        self.up(BOOT);
        self.settle();
    }

    #[track_caller]
    fn up(&self, limit: Duration) {
        if let Err(e) = self.link.wait_up(&self.machine, limit) {
            self.machine.give_up(&format!("{e:#}"));
            panic!("{e:#}");
        }
    }

    /// Boot is through (whatever failed meanwhile) and vzd serves.
    #[track_caller]
    fn settle(&self) {
        let out = self.sh_within("systemctl is-system-running --wait; systemctl is-active vzd", BOOT);
        assert!(out.stdout.lines().any(|l| l == "active"), "vzd is not running after boot:\n{out}{}", self.vzd_log(30));
    }

    /// Stops and destroys these containers, whatever state they are in; none of them need be there.
    pub fn clear(&self, ctids: &[u32]) {
        for ctid in ctids {
            // Nothing is cleared on a machine that does not answer.
            if self.machine.given_up().is_some() {
                return;
            }
            let _ = self.link.run(
                &format!(
                    "vzctl status {ctid} | grep -q deleted || {{ vzctl stop {ctid} --fast; vzctl destroy {ctid}; }}"
                ),
                None,
                LIMIT,
            );
        }
    }

    /// Containers of these numbers are taken away when this goes out of scope, also when a test fails.
    #[must_use]
    pub fn clean_up<'a>(&'a self, ctids: &'a [u32]) -> CleanUp<'a> {
        self.clear(ctids);
        CleanUp { vm: self, ctids }
    }
}

/// Takes containers away when dropped; see [`Vm::clean_up`].
pub struct CleanUp<'a> {
    vm: &'a Vm,
    ctids: &'a [u32],
}

impl Drop for CleanUp<'_> {
    fn drop(&mut self) {
        if self.vm.machine.given_up().is_some() || (thread::panicking() && self.vm.machine.is_off_on_purpose()) {
            return;
        }
        if thread::panicking() {
            for ctid in self.ctids {
                let show = format!("tail -n 20 /run/vz/ct/{ctid}/console.log");
                if let Ok(o) = self.vm.link.run(&show, None, LIMIT)
                    && o.code() == 0
                {
                    eprintln!("--- console of CT {ctid}\n{}", o.stdout);
                }
            }
        }
        self.vm.clear(self.ctids);
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if thread::panicking() && self.machine.given_up().is_none() {
            eprintln!(
                "--- the machine's console ({})\n{}",
                self.machine.console().display(),
                self.machine.console_tail(15)
            );
        }
    }
}
