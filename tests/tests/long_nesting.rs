//! Every container runtime of Debian's inside a container with nesting, privileged and not. Part of `cargo xtask long`; the
//! suite `workloads` has podman.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{thread, time::Duration};
use vz_tests::{
    Rig, command,
    proxy::Proxy,
    template::Template::{Debian12, Debian13},
};

const HOST: &str = "10.98.0.1";
const PACKAGES: Duration = Duration::from_secs(900);

const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y podman >/root/install.log 2>&1
docker=docker.io; apt-cache show docker-cli >/dev/null 2>&1 && docker="docker.io docker-cli"
apt-get -qq install -y --no-install-recommends $docker buildah systemd-container lxc fuse-overlayfs busybox-static >>/root/install.log 2>&1
# A host without the pids controller cannot keep podman's default promise.
grep -qw pids /sys/fs/cgroup/cgroup.controllers || printf '[containers]\npids_limit = 0\n' >/etc/containers/containers.conf
useradd -m -s /bin/bash anna
echo anna:20000:40000 >/etc/subuid; echo anna:20000:40000 >/etc/subgid
echo root:20000:40000 >>/etc/subuid; echo root:20000:40000 >>/etc/subgid
loginctl enable-linger anna
mkdir /root/r; cd /root/r; mkdir -p bin etc tmp www proc sys dev root run var usr
cp /bin/busybox bin/
for a in sh id cat ls httpd mount tty sleep; do ln -s busybox bin/$a; done
echo root:x:0:0::/root:/bin/sh >etc/passwd; echo ID=x >etc/os-release
tar --numeric-owner --owner=0 --group=0 -cf /var/tmp/root.tar .
for at in /var/lib/machines/n /var/lib/lxc/n/rootfs /var/lib/lxc/u/rootfs; do mkdir -p $at; tar -C $at -xf /var/tmp/root.tar; done
chown -R 20000:20000 /var/lib/lxc/u/rootfs
for n in n u; do
    printf 'lxc.rootfs.path = dir:/var/lib/lxc/%s/rootfs\nlxc.uts.name = %s\nlxc.net.0.type = empty\nlxc.mount.auto = proc:mixed sys:ro\n' $n $n >/var/lib/lxc/$n/config
done
printf 'lxc.idmap = u 0 20000 10000\nlxc.idmap = g 0 20000 10000\n' >>/var/lib/lxc/u/config
podman import -q /var/tmp/root.tar local/tiny
su - anna -c 'podman import -q /var/tmp/root.tar local/tiny'
systemctl start docker
docker import /var/tmp/root.tar local/tiny
printf 'FROM local/tiny\nRUN echo built >/built\n' >/root/Dockerfile
"#;

/// What is tried, one line each, as root in /root.
const TRIED: &[&str] = &[
    "podman run --rm local/tiny id",
    "podman run --rm --privileged local/tiny sh -c 'mount -t tmpfs t /tmp && id'",
    "podman run --rm --uidmap 0:20000:10000 local/tiny id",
    "script -qec 'podman run --rm -it local/tiny tty' /dev/null",
    "podman build -q -t local/b . && podman run --rm local/b cat /built",
    "podman run --rm -v /:/host local/tiny ls /host/etc/hostname",
    "su - anna -c 'podman run --rm local/tiny id'",
    "su - anna -c 'podman run --rm --privileged local/tiny id'",
    "docker run --rm local/tiny id",
    "docker run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined local/tiny mount -t tmpfs t /tmp",
    "docker run --rm -v /srv:/mnt:rshared local/tiny id",
    "docker run --rm -v /:/host local/tiny ls /host/etc/hostname",
    "DOCKER_BUILDKIT=0 docker build -q -t local/b . && docker run --rm local/b cat /built",
    "docker run -d --name web -p 8081:80 local/tiny httpd -f -p 80 -h /www && timeout 20 bash -c 'until : <>/dev/tcp/127.0.0.1/8081; do :; done' && docker rm -f web",
    "c=$(buildah from --pull-never local/tiny) && buildah run $c id && buildah rm $c",
    "c=$(buildah from --pull-never local/tiny) && buildah run --isolation chroot $c id && buildah rm $c",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn -q -D /var/lib/machines/n id",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn -q --private-network -D /var/lib/machines/n id",
    "lxc-execute -n n -- /bin/id",
    "lxc-start -n u -d -- /bin/sleep 100 && lxc-attach -n u -- /bin/id && lxc-stop -k -n u",
];
/// Docker of Debian 12 asks for capabilities that no container has (docs/guide/nesting.md).
const TRIED_ON_13: &str = "docker run --rm --privileged local/tiny sh -c 'mount -t tmpfs t /tmp && id'";

#[test]
fn every_runtime_of_debian_runs_inside_privileged_and_not() {
    let rig = Rig::new(&[Debian12, Debian13]);
    rig.host.ip(&format!("addr add {HOST}/32 dev lo"));
    let proxy = Proxy::start(&rig.host, HOST.parse().unwrap()).unwrap();
    let script = |ctid: u32, text: &str, limit: Duration| {
        let mut c = rig.vzctl_command(&["exec2", &ctid.to_string(), "bash -eu -o pipefail"]);
        command::run(&mut c, Some(text.as_bytes()), limit).unwrap_or_else(|e| panic!("{e}"))
    };
    let one = |ctid: u32, template| {
        let id = ctid.to_string();
        rig.create(ctid, template, &["--ipadd", &format!("10.99.0.{}", ctid - 100), "--features", "nesting:on"]);
        rig.ok(&["start", &id, "--wait"]);
        script(ctid, &format!("{}\n{INSTALL}", proxy.apt()), PACKAGES).ok();
        let also = (template == Debian13).then_some(&TRIED_ON_13);
        let mut wrong = Vec::new();
        for tried in TRIED.iter().chain(also) {
            let out = script(ctid, &format!("cd /root; ({tried}) </dev/null"), Duration::from_secs(120));
            if out.code() != 0 {
                wrong.push(format!("{template:?}: {out}"));
            }
        }
        wrong
    };
    let failed: Vec<String> = thread::scope(|s| {
        let jobs = [(101, Debian12), (102, Debian13)].map(|(ctid, template)| {
            let one = &one;
            s.spawn(move || one(ctid, template))
        });
        jobs.into_iter().flat_map(|job| job.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
