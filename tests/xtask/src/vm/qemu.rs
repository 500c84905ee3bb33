//! Which QEMU, and whether it may use the processor's own virtualisation. `/dev/kvm` proves nothing, nor does a boot
//! sector that runs under it: a KVM that is itself a guest's may know only some instructions. So the guest's own kernel
//! is booted under it as far as its first process. Without KVM the guest is emulated, and that needs QEMU 10: the 7.2 of
//! Debian 12 corrupts a Linux 6.12 guest, with every processor model tried.

use super::image::Base;
use crate::{deps, show};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use vz_tests::{command, wait};

/// The emulator.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The first QEMU whose emulation is known to hold a current guest.
const EMULATES: u32 = 10;

/// What the machine is run with.
#[derive(Clone, Debug)]
pub struct Choice {
    /// `kvm` or `tcg`.
    pub accelerator: &'static str,
    /// QEMU's arguments for it.
    pub arguments: &'static [&'static str],
}

const KVM: Choice = Choice { accelerator: "kvm", arguments: &["-accel", "kvm", "-cpu", "host"] };
const TCG: Choice = Choice { accelerator: "tcg", arguments: &["-accel", "tcg,thread=multi", "-cpu", "Nehalem"] };

/// Makes sure of a QEMU that serves here for a guest of this base, and says which way it runs.
///
/// # Errors
/// It cannot be installed.
pub fn choose(scratch: &Path, base: &Base) -> Result<Choice> {
    if version().is_none() {
        install()?;
    }
    let have = version().context("QEMU is installed, yet it does not tell its version")?;
    let why = match kvm_works(scratch, base)? {
        None => {
            show::say(format!("ok   QEMU {}.{} with KVM", have.0, have.1));
            return Ok(KVM);
        }
        Some(why) => why,
    };
    if have.0 < EMULATES {
        show::say(format!(
            "     QEMU {}.{} does not emulate well enough: {EMULATES} or later is needed",
            have.0, have.1
        ));
        install()?;
    }
    match version() {
        Some(v) if v.0 >= EMULATES => {
            show::say(format!("ok   QEMU {}.{} with TCG, 10 to 20 times slower than KVM, because {why}", v.0, v.1));
            Ok(TCG)
        }
        v => bail!(
            "KVM does not work here ({why}), and emulation needs QEMU {EMULATES} or later; there is {v:?}. \
             Install a later qemu-system-x86"
        ),
    }
}

/// The installed version, major and minor.
fn version() -> Option<(u32, u32)> {
    let said = command::run(Command::new(PROGRAM).arg("--version"), None, Duration::from_secs(20)).ok()?;
    let word = said.stdout.split_whitespace().nth(3)?;
    let mut numbers = word.split('.').map_while(|n| n.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// What the first process of the trial says.
const ALIVE: &str = "alive under KVM";
/// How long the trial may take: a few seconds where KVM works; emulated it takes eight.
const TRIAL: Duration = Duration::from_secs(60);

/// Why KVM does not work for this guest; `None` when it does.
fn kvm_works(scratch: &Path, base: &Base) -> Result<Option<String>> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Some("there is no /dev/kvm".into()));
    }
    fs::create_dir_all(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let (console, errors) = (scratch.join("trial.console"), scratch.join("trial.errors"));
    let create = |f: &Path| fs::File::create(f).with_context(|| format!("cannot write {}", f.display()));
    let mut c = Command::new(PROGRAM);
    c.args(["-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-m", "512", "-no-reboot"]);
    c.args(KVM.arguments).arg("-kernel").arg(base.file("vmlinuz")).arg("-initrd").arg(base.file("initrd"));
    c.args(["-serial", "stdio", "-append"]);
    c.arg(format!("console=ttyS0 quiet panic=-1 rdinit=/bin/sh -- -c \"echo {ALIVE}; exec poweroff -f\""));
    c.stdin(Stdio::null()).stdout(create(&console)?).stderr(create(&errors)?);
    let mut guest = c.spawn().with_context(|| format!("starting {PROGRAM}"))?;
    let verdict = wait::retry(TRIAL, Duration::from_millis(50), || {
        // Before what it said: what is said before the end is then read.
        let ended = guest.try_wait();
        let errors = fs::read_to_string(&errors).unwrap_or_default();
        if fs::read(&console).is_ok_and(|said| String::from_utf8_lossy(&said).contains(ALIVE)) {
            return Some(None);
        }
        // After an internal error the guest stands still, and QEMU waits for somebody to look at it.
        if let Some(line) = errors.lines().find(|l| l.contains("KVM") || l.contains("kvm")) {
            return Some(Some(line.strip_prefix(&format!("{PROGRAM}: ")).unwrap_or(line).to_owned()));
        }
        match ended {
            Ok(Some(status)) => Some(Some(format!("a guest under KVM ends with {status}"))),
            Ok(None) => None,
            Err(e) => Some(Some(format!("a guest under KVM cannot be waited for: {e}"))),
        }
    });
    let _ = guest.kill();
    guest.wait().context("waiting for the trial's QEMU")?;
    for file in [console, errors] {
        let _ = fs::remove_file(file);
    }
    Ok(verdict.unwrap_or_else(|| Some(format!("a guest under KVM does not boot within {} s", TRIAL.as_secs()))))
}

/// Installs QEMU: on Debian 12 from the backports of the mirror the host already uses, named in an apt configuration
/// of our own so that the host's stays as it is.
fn install() -> Result<()> {
    let backports = match codename().as_deref() {
        Some("bookworm") => Some("bookworm-backports"),
        _ => None,
    };
    deps::install_from(&["qemu-system-x86"], backports)
}

/// `VERSION_CODENAME` of os-release(5).
fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME=")).map(|v| v.trim_matches('"').to_owned())
}
