//! Which QEMU, and whether it may use the processor's own virtualisation. `/dev/kvm` proves nothing: a boot sector that
//! says "alive" and ends is run under it. Without KVM the guest is emulated, and that needs QEMU 10: the 7.2 of Debian
//! 12 corrupts a Linux 6.12 guest, with every processor model tried.

use crate::{deps, show};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path, process::Command, time::Duration};
use vz_tests::command;

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

/// Makes sure of a QEMU that serves here, and says which way it runs.
///
/// # Errors
/// It cannot be installed.
pub fn choose(scratch: &Path) -> Result<Choice> {
    if version().is_none() {
        install()?;
    }
    let have = version().context("QEMU is installed, yet it does not tell its version")?;
    let why = match kvm_works(scratch)? {
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

/// Writes 0x10 to the port of QEMU's `isa-debug-exit`, which ends QEMU with exit code 2 * 0x10 + 1.
const BOOT_CODE: &[u8] = &[0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]; // mov al,10h; out f4h,al; hlt; jmp -3
const ALIVE: i32 = 33;

/// Why KVM does not work; `None` when it does.
fn kvm_works(scratch: &Path) -> Result<Option<String>> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Some("there is no /dev/kvm".into()));
    }
    let mut sector = [0u8; 512];
    sector[..BOOT_CODE.len()].copy_from_slice(BOOT_CODE);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::create_dir_all(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let file = scratch.join("alive.img");
    fs::write(&file, sector).with_context(|| format!("cannot write {}", file.display()))?;
    let mut c = Command::new(PROGRAM);
    c.args(["-machine", "pc", "-nodefaults", "-no-user-config", "-display", "none", "-m", "32", "-no-reboot"]);
    c.args(KVM.arguments).args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-boot", "a"]);
    c.arg("-drive").arg(format!("file={},format=raw,if=floppy", file.display()));
    let tried = command::run(&mut c, None, Duration::from_secs(20));
    let _ = fs::remove_file(&file);
    Ok(match tried {
        Ok(o) if o.code() == ALIVE => None,
        Ok(o) => {
            let said = o.stderr.lines().find(|l| l.contains("KVM") || l.contains("kvm")).unwrap_or_default();
            let said = said.strip_prefix(&format!("{PROGRAM}: ")).unwrap_or(said);
            Some(if said.is_empty() { format!("a guest under KVM ends with {}", o.status) } else { said.to_owned() })
        }
        Err(e) if e.kind() == std::io::ErrorKind::TimedOut => Some("a guest under KVM hangs".into()),
        Err(e) => return Err(e.into()),
    })
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
