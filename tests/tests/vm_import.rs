//! On the virtual test host: a root filesystem that somebody else packed is imported and boots, on its kernel and
//! cgroups, with vz installed as a user installs it; and one that cannot be used leaves nothing behind.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{fs, time::Duration};
use vz_tests::{tarball::Tarball, vm::Vm};

const LONG: Duration = Duration::from_secs(300);
/// Where the archives are put in the guest.
const DIR: &str = "/var/tmp/import";

/// The guest's archives and templates are taken away when this goes out of scope.
struct Clean<'a>(&'a Vm);

impl Clean<'_> {
    const TEMPLATES: &'static str = "theirs packed";

    fn now(&self) {
        let rm =
            format!("rm -rf {DIR}; for t in {}; do vzctl template remove $t; done 2>/dev/null; true", Self::TEMPLATES);
        self.0.sh(&rm);
    }
}

impl Drop for Clean<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

#[test]
fn a_debian_made_without_us_is_imported_and_boots() {
    let vm = Vm::shared();
    let clean = Clean(&vm);
    clean.now();
    let _clean = vm.clean_up(&[2401, 2402]);
    let bytes = fs::read(Tarball::Mmdebstrap.cached()).unwrap();
    vm.sh_with(&format!("mkdir -p {DIR} && cat >{DIR}/theirs.tar.zst"), &bytes, LONG).ok();
    let made = vm.sh_within(&format!("vzctl template import {DIR}/theirs.tar.zst --json"), LONG).ok().json();
    let told = ["name", "distribution", "init", "status"].map(|k| made[k].as_str().unwrap_or_default().to_owned());
    assert_eq!(told, ["theirs", "debian 12", "systemd", "ready"], "{made}");
    vm.ok("vzctl create 2401 --ostemplate theirs --ipadd 10.99.24.1 --hostname one.example.org --ram 512M");
    vm.sh_within("vzctl start 2401 --wait", LONG).ok();
    assert_eq!(vm.inside(2401, "cat /proc/1/comm; hostname"), "systemd\none.example.org");
    assert_eq!(vm.inside(2401, "systemctl is-system-running; systemctl --failed --plain --no-legend"), "running");
    vm.until("ping -c1 -W2 10.99.24.1 && ssh-keyscan -T 20 10.99.24.1 2>/dev/null | grep -q ssh-", LONG);
    assert_eq!(vm.ok("cat /sys/fs/cgroup/vz/2401/memory.max"), (512u64 << 20).to_string(), "its limits are real ones");
    vm.ok("vzctl stop 2401");
    assert_eq!(vm.ok("vzlist -H -o status 2401"), "stopped");
    vm.ok("vzctl destroy 2401 && vzctl template remove theirs");
}

#[test]
fn archives_in_each_compression_boot_and_a_bad_one_leaves_nothing() {
    let vm = Vm::shared();
    let clean = Clean(&vm);
    clean.now();
    let _clean = vm.clean_up(&[2403]);
    vm.ok(&format!("mkdir -p {DIR} && tar -C /var/lib/vz/template/tiny/current/root -cf {DIR}/packed.tar ."));
    for pack in ["gzip -1", "xz -0", "zstd -q -1"] {
        vm.ok(&format!("{pack} <{DIR}/packed.tar | vzctl template import - --name packed"));
        vm.ok("vzctl create 2403 --ostemplate packed && vzctl start 2403");
        assert_eq!(vm.inside(2403, "readlink /proc/1/exe"), "/bin/busybox", "{pack}");
        vm.ok("vzctl stop 2403 --fast && vzctl destroy 2403 && vzctl template remove packed");
    }
    let before = vm.ok("ls -A /var/lib/vz/template");
    let out = vm.sh(&format!("head -c 700000 {DIR}/packed.tar | vzctl template import - --name packed"));
    assert!(out.code() != 0 && out.stderr.contains("truncated"), "{out}");
    vm.ok(&format!(
        "cd {DIR} && mkdir -p evil && echo x >evil/x && tar -P --transform s,x,../../x, -cf evil.tar evil/x"
    ));
    let out = vm.sh(&format!("vzctl template import {DIR}/evil.tar --name packed"));
    assert!(out.code() != 0 && out.stderr.contains("entry evil/../../x"), "{out}");
    assert_eq!(vm.ok("ls -A /var/lib/vz/template"), before);
}
