//! Features finer than nesting: what each opens with the programs people want it for, and what stays closed.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::{Duration, Instant};
use vz_tests::{
    Rig, command,
    proxy::Proxy,
    template::Template::{Debian12, Tiny},
};

const HOST: &str = "10.98.0.1";
const PACKAGES: Duration = Duration::from_secs(400);

/// A program with a link of its own whose other end it is: what VPNs do. It answers two pings to 10.55.0.2.
const VPN: &str = r#"
use strict;
open(my $tun, '+<', '/dev/net/tun') or die "open: $!";
my $request = pack('a16 s x22', 'tun7', 0x1001);
ioctl($tun, 0x400454ca, $request) or die "TUNSETIFF: $!";
system('ip addr add 10.55.0.1/24 dev tun7 && ip link set tun7 up') == 0 or die;
my $pid = fork;
if (!$pid) { exec 'ping', '-q', '-c2', '-W5', '10.55.0.2' }
$SIG{ALRM} = sub { die "no packet" };
alarm 20;
for (my $n = 0; $n < 2;) {
    sysread($tun, my $p, 2000) or die;
    next unless ord($p) >> 4 == 4 && ord(substr $p, 9, 1) == 1 && ord(substr $p, 20, 1) == 8;
    my ($from, $to) = (substr($p, 12, 4), substr($p, 16, 4));
    substr($p, 12, 8) = $to . $from;
    substr($p, 20, 1) = "\0";
    my $sum = unpack('n', substr $p, 22, 2) + 0x0800;
    substr($p, 22, 2) = pack('n', ($sum & 0xffff) + ($sum >> 16));
    syswrite($tun, $p);
    $n++;
}
waitpid $pid, 0;
exit $? >> 8;
"#;

fn script(rig: &Rig, line: &str, text: &str) -> String {
    let mut c = rig.vzctl_command(&["exec2", "101", line]);
    command::run(&mut c, Some(text.as_bytes()), PACKAGES).unwrap_or_else(|e| panic!("{e}")).ok().text().to_owned()
}

#[test]
fn vpns_fuse_filesystems_and_ip_netns_exec_work_with_their_features_and_tcpdump_without_any() {
    let rig = Rig::new(&[Debian12]);
    rig.host.ip(&format!("addr add {HOST}/32 dev lo"));
    let proxy = Proxy::start(&rig.host, HOST.parse().unwrap()).unwrap();
    rig.create(101, Debian12, &["--ipadd", "10.99.0.1"]);
    rig.ok(&["start", "101", "--wait"]);
    script(
        &rig,
        "bash -eu",
        &format!(
            "export DEBIAN_FRONTEND=noninteractive
             {}
             apt-get -qq update
             apt-get -qq install -y --no-install-recommends tcpdump iproute2 iputils-ping bindfs >/root/log 2>&1 || {{ cat /root/log; exit 1; }}
             mkdir -p /srv/a /mnt/b; echo hello >/srv/a/file",
            proxy.apt()
        ),
    );
    // libpcap: "can't create rx ring on packet socket: Protocol not available". Of a service, and of the operator.
    for program in ["", "systemd-run --wait --pipe -q "] {
        let seen = script(
            &rig,
            "bash -eu",
            &format!(
                "{program}timeout 60 tcpdump -l -n -i venet0 -c 1 icmp 2>/tmp/said >/tmp/seen & capture=$!
                 until grep -q '^listening' /tmp/said; do kill -0 $capture || {{ cat /tmp/said; exit 1; }}; sleep 0.05; done
                 while kill -0 $capture 2>/dev/null; do ping -q -c1 -W1 {HOST} >/dev/null || true; done
                 wait $capture; cat /tmp/seen"
            ),
        );
        assert!(seen.contains(&format!("10.99.0.1 > {HOST}: ICMP echo request")), "{seen}");
    }
    // What looks at requests for rings is shown a page of each option: longer ones pass (iptables-legacy with many rules).
    script(
        &rig,
        "perl",
        "use Socket; socket(my $s, PF_INET, SOCK_DGRAM, 0) or die; setsockopt($s, SOL_SOCKET, SO_RCVBUF, pack('i x8188', 65536)) or die $!;",
    );
    // As long as nobody asked for them, they fail as on a machine without the driver.
    let netns = "ip netns list | grep -q blue || ip netns add blue; ip netns exec blue ls /sys/class/net";
    for (line, why) in [
        ("bindfs /srv/a /mnt/b", "fuse: device not found"),
        (netns, "mount of /sys failed: Operation not permitted"),
        ("ip tuntap add mode tun tun7", "No such file or directory"),
    ] {
        let refused = rig.vzctl(&["exec2", "101", line]);
        assert_ne!(refused.code(), 0, "`{line}`");
        refused.says(why);
    }
    rig.ok(&["set", "101", "--features", "tun:on,fuse:on,netns:on", "--save", "--setmode", "restart"]);
    rig.inside(101, "timeout 80 sh -c 'until systemctl is-system-running --wait; do sleep 0.05; done'");
    script(&rig, "perl", VPN);
    rig.inside(101, "ip tuntap add mode tap tap7 && ip link show tap7 && ip tuntap del mode tap tap7");
    // A network namespace with a name has a /sys of its own, and packets go between it and the container.
    assert_eq!(rig.inside(101, netns), "lo");
    rig.inside(
        101,
        "ip link add v0 type veth peer name v1 netns blue && ip addr add 10.66.0.1/24 dev v0 && ip link set v0 up && \
         ip -n blue addr add 10.66.0.2/24 dev v1 && ip -n blue link set v1 up && ip netns exec blue ping -q -c1 -W5 10.66.0.1",
    );
    assert_eq!(rig.inside(101, "ip netns exec blue ls /sys/class/net | sort | xargs; ip netns del blue"), "lo v1");
    assert_eq!(rig.inside(101, "bindfs /srv/a /mnt/b && cat /mnt/b/file"), "hello");
    // Other people's namespaces stay closed: the container can still be moved.
    assert_ne!(rig.vzctl(&["exec2", "101", "unshare -U true"]).code(), 0);
    // Whoever waits for a filesystem that does not answer is the container's own trouble.
    rig.inside(101, "pkill -STOP bindfs; (ls /mnt/b >/dev/null 2>&1 &)");
    assert_eq!(rig.inside(101, "echo it runs"), "it runs");
    let begun = Instant::now();
    rig.ok(&["stop", "101", "--fast"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn each_feature_opens_what_it_names_and_nothing_else() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1"]);
    let probes = [
        ("tun", "head -c0 </dev/net/tun"),
        ("fuse", "head -c0 </dev/fuse"),
        ("netns", "unshare -n -m sh -c 'umount -l /sys && mount -t sysfs s /sys'"),
        ("proc", "unshare -m sh -c 'umount -l /proc && mount -t proc p /proc'"),
        ("nesting", "unshare -U true"),
        ("pid", "unshare -p -f true"),
    ];
    for (on, open) in [
        (&["tun"][..], &["tun"][..]),
        (&["fuse"], &["fuse"]),
        (&["netns"], &["netns"]),
        (&["tun", "fuse", "netns"], &["tun", "fuse", "netns"]),
        (&["nesting"], &["tun", "fuse", "netns", "proc", "nesting", "pid"]),
        (&["nesting", "tun"], &["tun", "fuse", "netns", "proc", "nesting", "pid"]),
        (&[], &[]),
    ] {
        let words: Vec<String> = ["tun", "fuse", "netns", "nesting"]
            .iter()
            .map(|f| format!("{f}:{}", if on.contains(f) { "on" } else { "off" }))
            .collect();
        rig.ok(&["set", "101", "--features", &words.join(","), "--save"]);
        rig.ok(&["start", "101"]);
        let found: Vec<&str> = probes
            .iter()
            .filter(|(_, line)| rig.vzctl(&["exec2", "101", &format!("{line} 2>/dev/null")]).code() == 0)
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(found, open, "with {on:?}");
        rig.ok(&["stop", "101", "--fast"]);
    }
    rig.vzctl(&["set", "101", "--features", "vpn:on", "--save"]).says("tun, fuse, netns");
}
