//! On the virtual test host: a container inside a container, with the controllers that only unified cgroups give it.
//! What else runs in a container is proven by the native suite of this name.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::Duration;
use vz_tests::vm::{Vm, link};

/// Forty packages are set up by an emulated processor that others use as well.
const PACKAGES: Duration = Duration::from_secs(420);
const LONG: Duration = Duration::from_secs(180);
const CTID: u32 = 2501;
const ADDRESS: &str = "10.99.25.1";

/// The guest's own way out for its containers, as an operator would set it up; gone when dropped.
struct WayOut<'a>(&'a Vm);

impl<'a> WayOut<'a> {
    fn of(vm: &'a Vm) -> Self {
        vm.ok("nft add table ip t2500 && nft add chain ip t2500 out '{ type nat hook postrouting priority 100; }' && \
               nft add rule ip t2500 out ip saddr 10.99.25.0/24 oifname != 'venet*' masquerade");
        Self(vm)
    }
}

impl Drop for WayOut<'_> {
    fn drop(&mut self) {
        self.0.sh("nft delete table ip t2500");
    }
}

#[test]
fn podman_in_a_container_with_nesting_has_limits_of_its_own_and_serves() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[CTID]);
    let _way = WayOut::of(&vm);
    // QEMU's user network has its name server there.
    vm.ok(&format!(
        "vzctl create {CTID} --ostemplate debian-13 --ipadd {ADDRESS} --nameserver 10.0.2.3 --ram 768M && \
         vzctl set {CTID} --features nesting:on --save"
    ));
    vm.sh_within(&format!("vzctl start {CTID} --wait"), LONG).ok();
    let inside = |script: &str, limit: Duration| {
        vm.sh_within(&format!("vzctl exec2 {CTID} {}", link::quoted(script)), limit).ok().text().to_owned()
    };
    inside(
        "export DEBIAN_FRONTEND=noninteractive
         apt-get -qq update
         apt-get -qq install -y --no-install-recommends \
            podman crun fuse-overlayfs nftables busybox-static >/root/log 2>&1 || { tail -40 /root/log >&2; exit 1; }",
        PACKAGES,
    );
    let out = inside(
        "set -eu; mkdir /tmp/r; cd /tmp/r; mkdir bin www; cp /bin/busybox bin; for a in sh cat httpd; do ln -s busybox bin/$a; done
         echo from-a-nested-container >www/index.html
         tar -c . | podman import -q - local/tiny >/dev/null
         podman run --rm --network=none --memory 64m --pids-limit 20 local/tiny sh -c \
            'echo written >/file; cat /file /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max'
         podman run -d --name web -p 8080:80 local/tiny httpd -f -p 80 -h /www >/dev/null
         podman ps --format '{{.Names}}'
         systemctl is-system-running",
        LONG,
    );
    assert_eq!(out, "written\n67108864\n20\nweb\nrunning");
    assert_eq!(vm.until(&format!("curl -fsS --max-time 10 http://{ADDRESS}:8080/"), LONG), "from-a-nested-container");
    // Whatever is given out inside, the container's own limit stands above it.
    assert_eq!(vm.ok(&format!("cat /sys/fs/cgroup/vz/{CTID}/memory.max")), (768u64 << 20).to_string());
    vm.ok(&format!("vzctl stop {CTID}"));
}
