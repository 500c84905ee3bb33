//! A running machine with this checkout's vz installed: what is there already and still right is used again.

use super::{
    image::{self, Base},
    qemu,
};
use crate::{deb, deps, programs, show};
use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};
use vz_tests::{
    template::checkout,
    vm::{
        BOOT,
        link::{Link, quoted},
        machine::{Machine, Spec},
    },
};

/// How long installing the package may take in an emulated guest.
const INSTALL: Duration = Duration::from_secs(300);
/// Memory of the guest, in MiB.
const MEMORY: u32 = 4096;
/// Room for what ssh appends to the path of its control socket while it makes it (unix(7): 108 bytes in all).
const LONGEST: usize = 80;

/// Makes sure of it all.
///
/// # Errors
/// A prerequisite cannot be installed, a build fails, or the machine does not come up; with its console log.
pub fn up(fresh: bool) -> Result<Machine> {
    let (machine, bin) = boot(fresh)?;
    install(&machine, &bin)?;
    Ok(machine)
}

/// The machine, up; and the directory of the programs to be installed.
fn boot(fresh: bool) -> Result<(Machine, PathBuf)> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("not root: building the machine's disks needs root");
    }
    deps::install(deps::ALL)?;
    deps::install(deps::VM)?;
    let dir = image::run_dir();
    if dir.as_os_str().len() > LONGEST {
        bail!("{} is too long a path for sockets: set VZ_TEST_CACHE to a shorter one", dir.display());
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let base = Base::made()?;
    let choice = qemu::choose(&dir, &base)?;
    let bin = programs::build()?;
    let data = image::data(&bin)?;
    let lock = fs::File::create(dir.join("lock")).context("making the machine's lock")?;
    // Whoever holds it is starting the machine, which has deadlines.
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).context("waiting for the machine")?;
    let made_of = format!("{} {} {} {MEMORY}", base.file("").display(), data.display(), choice.accelerator);
    let made_of_file = dir.join("made-of");
    let same = fs::read_to_string(&made_of_file).is_ok_and(|was| was == made_of);
    if let Ok(machine) = Machine::open(&dir)
        && !fresh
        && same
        && (machine.process().is_some() || machine.is_off_on_purpose())
    {
        let link = Link::new(&machine);
        let was = if machine.is_off_on_purpose() { "power on" } else { "the machine runs" };
        let answers = show::step(was, || {
            machine.start()?;
            link.wait_up(&machine, BOOT)
        });
        match answers {
            Ok(()) => return Ok((machine, bin)),
            Err(e) => show::say(format!("     it is of no use any more, a new one is made: {e:#}")),
        }
    }
    end(&dir)?;
    let disks = image::disks(&dir, &base, &data)?;
    let console = dir.join("console.log");
    if console.exists() {
        fs::rename(&console, dir.join("console.old.log")).context("keeping the earlier console log")?;
    }
    let machine = started(&dir, &base, &disks, &choice)?;
    let link = Link::new(&machine);
    let title = format!("boot the virtual test host ({})", choice.accelerator);
    show::step(&title, || {
        link.wait_up(&machine, BOOT)?;
        let through = link.run("systemctl is-system-running --wait; systemctl --failed --no-legend", None, BOOT)?;
        if through.stdout.lines().next() != Some("running") {
            bail!("units failed at boot:\n{}\nconsole: {}", through.stdout, machine.console().display());
        }
        share(&link)
    })?;
    // Last: one that was given up half-way is not taken for a good one.
    fs::write(&made_of_file, made_of).context("noting what the machine is made of")?;
    Ok((machine, bin))
}

/// Starts QEMU on a free port.
fn started(dir: &Path, base: &Base, disks: &[image::Disk], choice: &qemu::Choice) -> Result<Machine> {
    let mut last = None;
    // Between finding a free port and QEMU's taking it somebody else may.
    for _ in 0..3 {
        let port =
            TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).context("finding a free port")?.port();
        let spec = Spec {
            command: command(base, disks, choice, port),
            accelerator: choice.accelerator.into(),
            port,
            key: base.file("key"),
        };
        let machine = Machine::make(dir, spec)?;
        match machine.start() {
            Ok(()) => return Ok(machine),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("QEMU was never tried")))
}

/// What the guest's kernel is told: a crash must end in a message on the console, not in a machine that half works.
const KERNEL: &str = "root=/dev/vda rw console=ttyS0 loglevel=5 oops=panic mitigations=off";

fn command(base: &Base, disks: &[image::Disk], choice: &qemu::Choice, port: u16) -> Vec<String> {
    let cpus = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let mut c: Vec<String> = vec![qemu::PROGRAM.into()];
    c.extend(["-name", "vz-test-host", "-machine", "q35", "-nodefaults", "-no-user-config"].map(String::from));
    c.extend(["-display", "none"].map(String::from));
    c.extend(choice.arguments.iter().map(|a| (*a).to_owned()));
    c.extend(["-smp".into(), cpus.to_string(), "-m".into(), MEMORY.to_string()]);
    let file = |name: &str| base.file(name).display().to_string();
    c.extend(["-kernel".into(), file("vmlinuz"), "-initrd".into(), file("initrd"), "-append".into(), KERNEL.into()]);
    for disk in disks {
        // What the guest has not written is lost in a power cut, with QEMU. What it has written this machine's kernel keeps
        // anyhow, so its flushes need not wait for this machine's disk.
        let options =
            format!("file={},if=virtio,format={},cache=unsafe,discard=unmap", disk.file.display(), disk.format);
        c.extend(["-drive".into(), options]);
    }
    c.extend(["-netdev".into(), format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22")]);
    c.extend(["-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"].map(String::from));
    for (tag, path) in shares() {
        let options = format!("local,path={},mount_tag={tag},security_model=none,readonly=on", path.display());
        c.extend(["-virtfs".into(), options]);
    }
    c
}

/// What the guest sees of the build machine, read-only and at the same paths: the checkout, and what is built of it.
fn shares() -> Vec<(&'static str, PathBuf)> {
    let (source, target) = (checkout(), programs::target_dir());
    let mut all = vec![("checkout", source.clone())];
    if !target.starts_with(&source) {
        all.push(("target", target));
    }
    all
}

fn share(link: &Link) -> Result<()> {
    let mut script = String::from("set -e; ");
    for (tag, path) in shares() {
        let path = path.display().to_string();
        // fstab(5): a space is \040.
        let field = path.replace(' ', "\\040");
        script += &format!("mkdir -p {}; ", quoted(&path));
        let row = format!(
            "{tag} {field} 9p trans=virtio,version=9p2000.L,msize=512000,ro,nofail,x-systemd.requires=systemd-modules-load.service 0 0"
        );
        script += &format!("echo {} >>/etc/fstab; mount {}; ", quoted(&row), quoted(&path));
    }
    let done = link.run(&script, None, Duration::from_secs(120))?;
    if done.code() != 0 {
        bail!("the checkout cannot be mounted in the guest:\n{done}");
    }
    Ok(())
}

/// Installs this checkout's package the way a user does, unless it is there.
fn install(machine: &Machine, bin: &Path) -> Result<()> {
    let mark = format!("{:016x}", deb::fingerprint()?);
    let link = Link::new(machine);
    let there = format!(
        "test \"$(cat /etc/vz-test-host.package)\" = {mark} && cmp {} /usr/sbin/vzd && systemctl is-active vzd",
        quoted(&bin.join("vzd").display().to_string())
    );
    if link.run(&there, None, INSTALL)?.code() == 0 {
        show::settled("ok   this checkout's vz is installed");
        return Ok(());
    }
    let package = deb::packed()?;
    show::step("install this checkout's package", || {
        let script = format!(
            "set -e; cp {} /var/cache/vz.deb; export DEBIAN_FRONTEND=noninteractive; \
             apt-get install -q -y --no-install-recommends --reinstall --allow-downgrades /var/cache/vz.deb; \
             systemctl is-active vzd; echo {mark} >/etc/vz-test-host.package",
            quoted(&package.display().to_string())
        );
        let done = link.run(&script, None, INSTALL)?;
        if done.code() != 0 {
            bail!("{done}\nconsole: {}", machine.console().display());
        }
        Ok(())
    })
}

/// Ends the machine of a directory, if there is one.
pub fn end(dir: &Path) -> Result<()> {
    let Ok(machine) = Machine::open(dir) else { return Ok(()) };
    Link::new(&machine).forget();
    machine.end()?;
    for file in ["off", "made-of"] {
        let _ = fs::remove_file(dir.join(file));
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".qcow2") || name.ends_with(".raw") {
            fs::remove_file(entry.path()).with_context(|| format!("cannot delete {name}"))?;
        }
    }
    Ok(())
}
