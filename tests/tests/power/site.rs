//! Where the power goes: the virtual test host whose QEMU is killed, or a file system of its own here that stops dead.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use vz_tests::{
    command::{self, Output},
    netns::NetNs,
    rig,
    template::Template::Tiny,
    vm::{BOOT, LIMIT, Vm, link::quoted, stream::Stream},
    wait::{self, Process},
};

/// One that can be cut off.
pub trait Site {
    /// What is before `/etc/vz` and `/var/lib/vz`.
    fn root(&self) -> String;
    /// Runs a shell line that has the functions of `guest.sh`.
    fn run(&self, line: &str, limit: Duration) -> Output;
    /// Starts one, whose output is read as it comes.
    fn stream(&self, line: &str) -> Stream;
    /// vzd is to end at this point from now on; its number.
    fn vzd(&mut self, fault: Option<&str>) -> String;
    /// The power goes.
    fn cut(&mut self);
    /// It comes back, and vzd answers.
    fn power_on(&mut self);
    /// vzd's last words.
    fn log(&self) -> String;
    /// What there is to say of the machine itself, which should be nothing.
    fn complaints(&self) -> String;
    /// Whether the containers that are to run after a boot do.
    fn boots(&self) -> bool;
}

/// Nothing that was not asked for reaches a disk: neither a file's pages nor the journal of the file system go by themselves.
const UNFLUSHED: &str = "sysctl -qw vm.dirty_writeback_centisecs=0 vm.dirty_expire_centisecs=720000 \
     vm.dirty_background_ratio=80 vm.dirty_ratio=90 && mount -o remount,commit=3600 / && \
     mount -o remount,commit=3600 /var/lib/vz && findmnt -no OPTIONS /var/lib/vz | grep commit=3600";
const FUNCTIONS: &[u8] = include_bytes!("guest.sh");

impl Site for &Vm {
    fn root(&self) -> String {
        String::new()
    }
    fn run(&self, line: &str, limit: Duration) -> Output {
        self.sh_within(&format!("WORK=/run/power; . /run/power.sh; {line}"), limit)
    }
    fn stream(&self, line: &str) -> Stream {
        Vm::stream(self, &format!("WORK=/run/power; . /run/power.sh; {line}"))
    }
    fn vzd(&mut self, fault: Option<&str>) -> String {
        let pid = "systemctl show -p MainPID --value vzd";
        match fault {
            Some(point) => self.ok(&format!(
                "mkdir -p /run/systemd/system/vzd.service.d && \
                 printf '[Service]\nEnvironment=VZ_FAULT={point}\nRestart=no\n' >/run/systemd/system/vzd.service.d/fault.conf && \
                 systemctl daemon-reload && systemctl restart vzd && {pid}"
            )),
            None => self.ok(pid),
        }
    }
    fn cut(&mut self) {
        self.cut_power();
    }
    fn power_on(&mut self) {
        if !self.is_on() {
            Vm::power_on(self);
        }
        self.sh_with(&format!("cat >/run/power.sh && {UNFLUSHED}"), FUNCTIONS, BOOT).ok();
    }
    fn log(&self) -> String {
        self.vzd_log(60)
    }
    fn complaints(&self) -> String {
        self.sh("systemctl --failed --no-legend; dmesg | grep -E 'EXT4-fs (error|warning)'").stdout
    }
    fn boots(&self) -> bool {
        true
    }
}

/// A manager whose everything is on a file system in a file. Its power goes when that file system is shut down as it is
/// (ext4's `EXT4_IOC_SHUTDOWN` without a flush of its log, as xfstests do it): what it has not written is lost, and its
/// journal is replayed at the next mount. Containers and vzd are killed with it, their network goes, and what a boot
/// empties is a tmpfs.
pub struct Native {
    dir: tempfile::TempDir,
    host: NetNs,
    vzd: Option<Child>,
}

impl Native {
    /// A new one, with the template `tiny`.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vzt-power-").tempdir().unwrap();
        let site = Self { dir, host: NetNs::new().unwrap(), vzd: None };
        let cached = Tiny.cached();
        site.here(&format!(
            "truncate -s 3G disk && mkfs.ext4 -q disk && mkdir m work && {} && \
             mkdir -p m/etc/vz/conf m/var/lib/vz/template m/run && cp -a {} m/var/lib/vz/template/tiny && sync -f m && umount m",
            Self::MOUNT,
            quoted(&cached.display().to_string())
        ));
        std::fs::write(site.dir.path().join("power.sh"), FUNCTIONS).unwrap();
        site
    }

    /// By a device of its own each time: while somebody's mount namespace still has the dead one, that is what `mount -o
    /// loop` would give.
    const MOUNT: &str = "d=$(losetup -f --show disk) && mount -o commit=3600 $d m && losetup -d $d";

    fn base(&self) -> PathBuf {
        self.dir.path().join("m")
    }

    /// A line in the directory of it all.
    #[track_caller]
    fn here(&self, line: &str) -> String {
        let mut c = Command::new("sh");
        c.args(["-c", line]).current_dir(self.dir.path());
        command::run(&mut c, None, LIMIT).unwrap().ok().text().to_owned()
    }

    fn shell(&self, line: &str) -> Command {
        let mut c = self.host.command("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        let work = self.dir.path().display().to_string();
        let line = format!("WORK={work}/work; . {work}/power.sh; {line}");
        c.args(["-c", &line]).env("VZ_ROOT", self.base()).env("LC_ALL", "C.UTF-8");
        c.env("PATH", format!("{}:{path}", rig::bin_dir().display()));
        c
    }

    fn spawn(&mut self, fault: Option<&str>) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut c = self.host.command(rig::bin_dir().join("vzd"));
        c.arg("--root").arg(self.base()).env_remove("NOTIFY_SOCKET").envs(fault.map(|f| ("VZ_FAULT", f)));
        c.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.vzd = Some(c.spawn().unwrap());
        let up = wait::retry(LIMIT, Duration::from_millis(20), || {
            (self.run("vzlist -a >/dev/null 2>&1", LIMIT).code() == 0).then_some(())
        });
        assert!(up.is_some(), "vzd does not answer:\n{}", self.log());
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("vzd.log")
    }

    fn kill_vzd(&mut self) {
        if let Some(mut vzd) = self.vzd.take() {
            let _ = vzd.kill();
            let _ = vzd.wait();
        }
    }

    /// Ends monitors, and with them their containers.
    fn kill_containers(&self) {
        for entry in std::fs::read_dir(self.base().join("run/vz/ct")).into_iter().flatten().flatten() {
            let text = std::fs::read(entry.path().join("state.json")).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            for who in ["monitor", "init"] {
                let pid = record[who]["pid"].as_u64().and_then(|p| u32::try_from(p).ok());
                if let Some(p) = pid.and_then(|p| Process::open(p).ok()) {
                    p.kill();
                    let _ = p.ended(Duration::from_secs(10));
                }
            }
        }
    }

    fn unmount(&self) {
        let base = self.base().display().to_string();
        // What was mounted in it first. A helper of vzd's may hold it until it has met with the dead disk.
        self.here(&format!(
            "grep -o ' {base}/[^ ]*' /proc/self/mounts | tac | xargs -r umount -l; \
             for i in $(seq 200); do umount m 2>/dev/null && exit 0; sleep 0.05; done; umount m"
        ));
    }
}

impl Site for Native {
    fn root(&self) -> String {
        self.base().display().to_string()
    }
    fn run(&self, line: &str, limit: Duration) -> Output {
        command::run(&mut self.shell(line), None, limit).unwrap()
    }
    fn stream(&self, line: &str) -> Stream {
        Stream::of(self.shell(line)).unwrap()
    }
    fn vzd(&mut self, fault: Option<&str>) -> String {
        if let (Some(point), Some(mut vzd)) = (fault, self.vzd.take_if(|_| fault.is_some())) {
            Process::open(vzd.id()).unwrap().terminate();
            vzd.wait().unwrap();
            self.spawn(Some(point));
        }
        self.vzd.as_ref().map(|c| c.id().to_string()).unwrap_or_default()
    }
    fn cut(&mut self) {
        let script = "open(my $f, '<', $ARGV[0]) or die; my $how = pack('L', 2); ioctl($f, 0x8004587d, $how) or die $!";
        let mut c = Command::new("perl");
        c.args(["-e", script]).arg(self.base());
        command::run(&mut c, None, LIMIT).unwrap().ok();
        self.kill_vzd();
        self.kill_containers();
        self.host = NetNs::new().unwrap();
    }
    fn power_on(&mut self) {
        if self.vzd.is_none() {
            if is_mounted(&self.base()) {
                self.unmount();
            }
            self.here(&format!("{} && mount -t tmpfs tmpfs m/run", Self::MOUNT));
            self.spawn(None);
        }
    }
    fn log(&self) -> String {
        vz_tests::census::tail(&self.log_file(), 60)
    }
    fn complaints(&self) -> String {
        String::new()
    }
    fn boots(&self) -> bool {
        // The kernel has not booted, which is what vzd goes by.
        false
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.kill_vzd();
        self.kill_containers();
        if is_mounted(&self.base()) {
            self.unmount();
        }
    }
}

fn is_mounted(dir: &Path) -> bool {
    let of = format!(" {} ", dir.display());
    std::fs::read_to_string("/proc/self/mounts").is_ok_and(|all| all.contains(&of))
}
