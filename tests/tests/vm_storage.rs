//! On the virtual test host: disk limits by project quota on ext4 and xfs and by images on btrfs, enforced from
//! inside's point of view, changed while the container runs; overlays on this kernel.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::Duration;
use vz_tests::{command::Output, vm::Vm};

const MIB: u64 = 1 << 20;

/// A manager in the guest: the machine's own, or one on another file system, ended when dropped.
struct Manager<'a> {
    vm: &'a Vm,
    root: Option<&'static str>,
}

impl<'a> Manager<'a> {
    /// The one that the package runs, on ext4 with project quota.
    fn own(vm: &'a Vm) -> Self {
        Self { vm, root: None }
    }

    /// A second one with everything of its own below `root`.
    fn at(vm: &'a Vm, root: &'static str) -> Self {
        let m = Self { vm, root: Some(root) };
        m.end();
        vm.ok(&format!(
            "mkdir -p {root}/var/lib/vz/template && cp -a /var/lib/vz/template/tiny {root}/var/lib/vz/template/"
        ));
        vm.ok(&format!(
            "systemd-run -q --unit={} -p Delegate=yes -p KillMode=process -p TasksMax=infinity -p Type=notify \
                        /usr/sbin/vzd --root {root}",
            m.unit()
        ));
        m
    }

    fn unit(&self) -> String {
        format!("vz-at-{}", self.root.unwrap_or("/").trim_matches('/').replace('/', "-"))
    }

    fn line(&self, line: &str) -> String {
        match self.root {
            Some(root) => format!("export VZ_ROOT={root}; {line}"),
            None => line.to_owned(),
        }
    }

    fn ok(&self, line: &str) -> String {
        let out = self.sh(line);
        if out.code() != 0 {
            let log = self.vm.sh(&format!("journalctl -u {} -o cat --no-pager -n 20", self.unit())).stdout;
            panic!("expected success:\n{out}--- {}\n{log}", self.unit());
        }
        out.text().to_owned()
    }

    fn sh(&self, line: &str) -> Output {
        self.vm.sh(&self.line(line))
    }

    fn inside(&self, ctid: u32, line: &str) -> String {
        self.ok(&format!("vzctl exec2 {ctid} {}", vz_tests::vm::link::quoted(line)))
    }

    /// (size, used, free) in bytes and inodes of / inside.
    fn df(&self, ctid: u32) -> (u64, u64, u64) {
        let said = self.inside(ctid, "df -k / | tail -1; df -i / | tail -1");
        let rows: Vec<Vec<u64>> =
            said.lines().map(|l| l.split_whitespace().filter_map(|w| w.parse().ok()).collect()).collect();
        (rows[0][0] << 10, rows[0][1] << 10, rows[1][0])
    }

    fn end(&self) {
        let Some(root) = self.root else { return };
        let line = format!(
            "export VZ_ROOT={root}; for c in $(vzlist -aH -o ctid 2>/dev/null); do vzctl stop $c --fast; vzctl destroy $c; done; \
             systemctl stop {unit} 2>/dev/null; systemctl reset-failed {unit} 2>/dev/null; \
             grep -o ' {root}/[^ ]*' /proc/self/mounts | tac | xargs -r umount -l; rm -rf --one-file-system {root}; true",
            unit = self.unit()
        );
        let out = self.vm.sh(&line);
        if !std::thread::panicking() {
            out.ok();
        }
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes into / until it is full: bytes that went in, and what was said.
fn fill(m: &Manager<'_>, ctid: u32, mib: u64) -> (u64, String) {
    let said = m.inside(ctid, &format!("dd if=/dev/zero of=/big bs=1M count={mib} 2>&1; sync; stat -c %s /big"));
    let size = said.lines().last().unwrap().trim().parse().unwrap();
    (size, said)
}

/// A limit on space and inodes holds inside, is what df shows, and is shown in use by vzlist.
fn limits_hold(m: &Manager<'_>, ctid: u32, exact: bool) {
    m.ok(&format!("vzctl create {ctid} --ostemplate tiny --diskspace 128M --diskinodes 2048"));
    m.ok(&format!("vzctl start {ctid}"));
    let (size, _, inodes) = m.df(ctid);
    if exact {
        assert_eq!((size, inodes), (128 * MIB, 2048), "df inside shows the limits");
    }
    assert!((100 * MIB..=128 * MIB).contains(&size), "df says {size} bytes for 128M");
    let (written, said) = fill(m, ctid, 300);
    assert!(said.contains("Disk quota exceeded") || said.contains("No space left"), "{said}");
    assert!((90 * MIB..=128 * MIB).contains(&written), "{written} bytes fit into 128M: {said}");
    let listed: serde_json::Value = serde_json::from_str(&m.ok(&format!("vzlist -j {ctid}"))).unwrap();
    // In KiB, as the classic column is.
    let usage = listed[0]["diskspace"]["usage"].as_u64().unwrap();
    assert!(usage >= 90 << 10, "{listed}");
    m.inside(ctid, "rm /big");
    let made = m.inside(
        ctid,
        "mkdir /many; i=0; while [ $i -lt 3000 ] && true >/many/$i; do i=$((i+1)); done 2>/dev/null; echo $i",
    );
    let made: u64 = made.lines().last().unwrap().parse().unwrap();
    assert!((1800..=2048).contains(&made), "{made} files could be made under a limit of 2048 inodes");
    m.inside(ctid, "rm -rf /many; : >/again");
}

/// Larger at once while it runs.
fn grows_live(m: &Manager<'_>, ctid: u32) {
    let before = m.df(ctid).0;
    m.ok(&format!("vzctl set {ctid} --diskspace 300M --save"));
    let after = m.df(ctid).0;
    assert!(after > before + 150 * MIB && after <= 300 * MIB, "{before} grew to {after}");
    let (written, said) = fill(m, ctid, 400);
    assert!((220 * MIB..=300 * MIB).contains(&written), "{written} bytes fit into 300M: {said}");
    let refused = m.sh(&format!("vzctl set {ctid} --diskspace 150M --save"));
    assert!(refused.code() != 0 && refused.stderr.contains("in use"), "{refused}");
    m.inside(ctid, "rm /big && sync");
}

#[test]
fn project_quota_on_ext4_holds_grows_and_shrinks_live() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2131, 2132]);
    let m = Manager::own(&vm);
    limits_hold(&m, 2131, true);
    assert!(!vm.sh("ls /var/lib/vz/private/2131/disk.img").status.success(), "no image where there is project quota");
    grows_live(&m, 2131);
    m.ok("vzctl set 2131 --diskspace 100M --diskinodes 1100 --save");
    let (size, _, inodes) = m.df(2131);
    assert_eq!((size, inodes), (100 * MIB, 1100), "shrunk while it runs");
    // Neighbours have projects of their own.
    m.ok("vzctl create 2132 --ostemplate tiny --diskspace 64M && vzctl start 2132");
    let project = |ctid: u32| vm.ok(&format!("lsattr -pd /var/lib/vz/private/{ctid}/rw | awk '{{print $1}}'"));
    let (one, two) = (project(2131), project(2132));
    assert!(one != two && one != "0" && two != "0", "{one} {two}");
    let (_, said) = fill(&m, 2131, 200);
    assert!(said.contains("quota"), "{said}");
    m.inside(2132, "dd if=/dev/zero of=/f bs=1M count=20");
    // The limits are there again after a stop and a start, and gone with the container.
    m.ok("vzctl stop 2131 --fast && vzctl start 2131");
    assert_eq!(m.df(2131).0, 100 * MIB);
    let limits = |id: &str| vm.ok(&format!("repquota -Pn /var/lib/vz | awk '$1 == \"#{id}\" {{print $5}}'"));
    assert_eq!(limits(&one), (100 << 10).to_string());
    m.ok("vzctl stop 2131 --fast && vzctl destroy 2131");
    assert!(["", "0"].contains(&limits(&one).as_str()), "the project's limits are taken away");
}

/// FS_IOC_FSSETXATTR and FS_IOC_SETFLAGS on directories that only the template has: project 0, no inheritance.
const LEAVE_PROJECT: &[&str] = &[
    r#"perl -e 'open(F,"<","/root")||die; my $b="\0"x28; ioctl(F,0x801c581f,$b) or die "get: $!"; substr($b,0,4)=pack("L",0); substr($b,12,4)=pack("L",0); ioctl(F,0x401c5820,$b) or die "set: $!"; print "left\n"'"#,
    r#"perl -e 'open(F,"<","/opt")||die; my $b=pack("L",0x40); ioctl(F,0x40086602,$b) or die "set: $!"; print "left\n"'"#,
    r#"perl -e 'my $p="/srv\0"; my $b="\0"x28; syscall(469,-100,$p,$b,28,0)==0 or die "set: $!"; print "left\n"'"#,
];

#[test]
fn root_inside_cannot_leave_its_disk_quota() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2133]);
    let m = Manager::own(&vm);
    m.ok("vzctl create 2133 --ostemplate debian-13 --diskspace 200M && vzctl start 2133");
    for attempt in LEAVE_PROJECT {
        let out = vm.sh(&format!("vzctl exec2 2133 {}", vz_tests::vm::link::quoted(attempt)));
        assert!(out.code() != 0 && out.stderr.contains("set: ") && !out.stdout.contains("left"), "{out}");
    }
    for dir in ["/root", "/opt", "/srv"] {
        let line = format!(
            "mkdir -p {dir}/d; dd if=/dev/zero of={dir}/d/big bs=1M count=300 2>&1; sync; stat -c %s {dir}/d/big; rm {dir}/d/big"
        );
        let said = m.inside(2133, &line);
        let written: u64 = said.lines().last().unwrap().trim().parse().unwrap();
        assert!(written <= 200 * MIB, "{dir}: {said}");
    }
    // Other users' files count as well.
    m.inside(2133, "su nobody -s /bin/sh -c 'dd if=/dev/zero of=/var/tmp/big bs=1M count=300' 2>&1; sync");
    let used = m.df(2133).1;
    assert!((150 * MIB..=200 * MIB).contains(&used), "{used} bytes in use of 200M");
}

#[test]
fn project_quota_on_xfs_holds_grows_and_shrinks_live() {
    let vm = Vm::shared();
    let m = Manager::at(&vm, "/mnt/xfs/vz");
    assert!(m.ok("vzctl check").contains("on at /mnt/xfs/vz"));
    limits_hold(&m, 2134, true);
    grows_live(&m, 2134);
    m.ok("vzctl set 2134 --diskspace 100M --save");
    assert_eq!(m.df(2134).0, 100 * MIB);
    m.ok("vzctl stop 2134 --fast && vzctl start 2134");
    assert_eq!(m.df(2134).0, 100 * MIB);
}

#[test]
fn an_image_on_btrfs_holds_and_grows_while_it_is_mounted() {
    let vm = Vm::shared();
    let m = Manager::at(&vm, "/mnt/btrfs/vz");
    limits_hold(&m, 2135, false);
    vm.ok("test -f /mnt/btrfs/vz/var/lib/vz/private/2135/disk.img");
    grows_live(&m, 2135);
    let shrink = m.sh("vzctl set 2135 --diskspace 200M --save");
    assert!(shrink.code() != 0 && shrink.stderr.contains("stop"), "{shrink}");
    let before = m.df(2135).0;
    m.ok("vzctl stop 2135 --fast && vzctl set 2135 --diskspace 200M --save && vzctl start 2135");
    let after = m.df(2135).0;
    assert!(after < before && after <= 200 * MIB, "{before} shrunk to {after} while stopped");
    m.ok("vzctl stop 2135 --fast && e2fsck -fn /mnt/btrfs/vz/var/lib/vz/private/2135/disk.img");
}

/// Waits until a Debian inside has started all it starts.
fn booted(vm: &Vm, ctid: u32) {
    let line = format!("vzctl exec2 {ctid} 'systemctl is-system-running --wait; systemctl --failed --no-legend'");
    let state = vm.until(&format!("s=$({line}); echo \"$s\"; test -n \"$s\""), Duration::from_secs(120));
    assert_eq!(state, "running");
}

#[test]
fn a_container_changes_and_removes_what_its_template_brought() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2136, 2137]);
    let m = Manager::own(&vm);
    m.ok("vzctl create 2136 --ostemplate debian-13 --ipadd 10.99.21.36 && vzctl create 2137 --ostemplate debian-13");
    let before =
        vm.ok("find /var/lib/vz/template/debian-13/*/root -xdev -printf '%p %m %U %G %s %T@\n' | sort | md5sum");
    m.ok("vzctl start 2136");
    booted(&vm, 2136);
    vm.until("timeout 5 bash -c 'read -r l </dev/tcp/10.99.21.36/22; echo $l | grep SSH'", Duration::from_secs(60));
    m.inside(
        2136,
        "set -e; echo changed >>/etc/issue; rm /etc/motd; mv /etc/cron.daily /etc/cron.daily2; mkdir /etc/cron.daily; \
         rm -rf /etc/logrotate.d; mkdir /etc/logrotate.d; test -z \"$(ls /etc/logrotate.d)\"; chown nobody /usr/bin/perl; \
         chmod 4755 /usr/bin/perl; ln /etc/issue /etc/issue.link; echo more >>/etc/issue.link; grep more /etc/issue; \
         touch /tmp/f; chmod 600 /tmp/f; setpriv --reuid=65534 --regid=65534 --clear-groups test ! -r /tmp/f",
    );
    assert_eq!(m.inside(2136, "stat -c '%U %a' /usr/bin/perl"), "nobody 4755");
    m.ok("vzctl stop 2136 && vzctl start 2136");
    assert_eq!(
        m.inside(2136, "stat -c '%U %a' /usr/bin/perl; ls /etc/logrotate.d | wc -l; test -e /etc/motd; echo $?"),
        "nobody 4755\n0\n1"
    );
    let after =
        vm.ok("find /var/lib/vz/template/debian-13/*/root -xdev -printf '%p %m %U %G %s %T@\n' | sort | md5sum");
    assert_eq!(before, after, "the template is as it was");
    m.ok("vzctl start 2137");
    assert_eq!(m.inside(2137, "stat -c '%U %a' /usr/bin/perl"), "root 755", "and so is it in another container");
}

#[test]
fn what_is_mounted_over_a_device_inside_is_not_seen_on_the_host() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2138]);
    let m = Manager::own(&vm);
    m.ok("vzctl create 2138 --ostemplate tiny && vzctl start 2138");
    assert_eq!(vm.ok("findmnt -no PROPAGATION /"), "shared", "as systemd makes it");
    let before = vm.ok("cat /proc/self/mountinfo | wc -l");
    m.inside(2138, "touch /x && mount --bind /x /dev/null; mount -t tmpfs none /mnt; mount -t tmpfs none /root; grep -c . /proc/mounts");
    assert_eq!(vm.ok("cat /proc/self/mountinfo | wc -l"), before);
    assert_eq!(vm.ok("stat -c %F /dev/null"), "character special file");
}
