//! The guest's own network configuration: ifupdown, systemd-networkd and NetworkManager, installed and enabled as
//! their packages do it, neither fail nor undo what the manager set up.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::Duration;
use vz_tests::{Rig, inits::Row, proxy::Proxy, template::Template};

const A: &str = "10.99.0.1";
const A6: &str = "fd99::1";
const MORE: &str = "10.99.0.7";

/// CT 101, booted, with the package mirror within reach of its apt.
fn booted(template: Template, proxy: bool) -> (Rig, Option<Proxy>) {
    let rig = Rig::new(&[template]);
    rig.create(101, template, &["--ipadd", A, "--ipadd", A6, "--hostname", "web", "--nameserver", "192.0.2.53"]);
    rig.ok(&["start", "101", "--wait"]).says("Container has booted");
    let proxy = proxy.then(|| {
        rig.host.ip("addr add 10.98.0.1/32 dev lo");
        let proxy = Proxy::start(&rig.host, "10.98.0.1".parse().unwrap()).unwrap();
        rig.inside(101, &proxy.apt());
        proxy
    });
    (rig, proxy)
}

fn install(rig: &Rig, packages: &str) {
    for words in ["update".to_owned(), format!("install -y --no-install-recommends {packages}")] {
        let line = format!("DEBIAN_FRONTEND=noninteractive apt-get -q {words}");
        let mut c = rig.vzctl_command(&["exec2", "101", &line]);
        vz_tests::command::run(&mut c, None, Duration::from_secs(200)).unwrap_or_else(|e| panic!("{e}")).ok();
    }
}

/// Addresses, routes and resolver as the manager set them; the host reaches each address.
#[track_caller]
fn as_set(rig: &Rig, addresses: &[&str], when: &str) {
    let shown =
        rig.inside(101, "ip -o addr show venet0 scope global | awk '{print $4}' | sort; ip -o link show venet0");
    let mut listed: Vec<&str> = shown.lines().filter(|l| !l.contains("venet0")).collect();
    listed.sort_unstable();
    let mut wanted: Vec<String> =
        addresses.iter().map(|a| if a.contains(':') { format!("{a}/128") } else { format!("{a}/32") }).collect();
    wanted.sort_unstable();
    assert_eq!(listed, wanted, "{when}: {shown}");
    assert!(shown.contains("UP") && shown.contains("NOARP"), "{when}: {shown}");
    let routes = rig.inside(101, "ip route show default; ip -6 route show default");
    assert_eq!(routes.lines().filter(|l| l.contains("dev venet0")).count(), 2, "{when}: {routes}");
    assert_eq!(routes.lines().count(), 2, "{when}: {routes}");
    assert!(rig.inside(101, "cat /etc/resolv.conf").contains("nameserver 192.0.2.53"), "{when}");
    assert!(rig.inside(101, "ip -o link show lo").contains("UP"), "{when}");
    for a in addresses {
        // sshd may still be on its way up.
        let answers = vz_tests::wait::retry(Duration::from_secs(30), Duration::from_millis(200), || {
            rig.host.inside(|| std::net::TcpStream::connect((*a, 22)).ok().map(|_| ()))
        });
        assert!(answers.is_some(), "{when}: {a} does not answer");
    }
}

/// As they are, after an address is added live, after `restart` and after `reboot` inside.
#[track_caller]
fn stays(rig: &Rig, template: Template, proof: &str) {
    let row = Row::of(template);
    let healthy = |when: &str| {
        assert_eq!(rig.inside(101, &format!("{}; true", row.failed)), "", "{when}: failed");
        let out = rig.vzctl(&["exec2", "101", proof]);
        assert_eq!(out.code(), 0, "{when}: {out}");
    };
    as_set(rig, &[A, A6], "running");
    healthy("running");
    rig.ok(&["set", "101", "--ipadd", MORE, "--save"]);
    as_set(rig, &[A, A6, MORE], "address added");
    rig.ok(&["restart", "101", "--wait"]).says("Container has booted");
    as_set(rig, &[A, A6, MORE], "restarted");
    healthy("restarted");
    let boots = rig.record(101).boots;
    rig.vzctl(&["exec2", "101", "reboot"]);
    rig.wait_record(101, Duration::from_secs(60), |r| r.boots == boots + 1);
    let up = vz_tests::wait::retry(Duration::from_secs(60), Duration::from_millis(300), || {
        let calm = rig.vzctl(&["exec2", "101", &format!("[ -z \"$({})\" ] && {proof}", row.failed)]);
        (calm.code() == 0).then_some(())
    });
    assert!(up.is_some(), "rebooted: not up again\n{}", rig.console_log(101));
    as_set(rig, &[A, A6, MORE], "rebooted");
    healthy("rebooted");
    rig.ok(&["set", "101", "--ipdel", MORE, "--save"]);
    as_set(rig, &[A, A6], "address removed");
}

#[test]
fn ifupdown_neither_fails_nor_undoes_venet_under_systemd() {
    let (rig, _proxy) = booted(Template::Debian13, true);
    install(&rig, "ifupdown");
    // Its package does not; the next boot would.
    rig.inside(101, "systemctl start networking");
    stays(&rig, Template::Debian13, "systemctl is-enabled networking && systemctl is-active networking");
}

#[test]
fn ifupdown_neither_fails_nor_undoes_venet_under_sysvinit() {
    let (rig, _proxy) = booted(Template::Sysvinit, true);
    install(&rig, "ifupdown");
    stays(&rig, Template::Sysvinit, "service networking start && ifquery --state lo");
}

#[test]
fn systemd_networkd_neither_fails_nor_undoes_venet() {
    let (rig, _) = booted(Template::Debian13, false);
    // Enabled by hand, and with the file of a cloud image that wants every link for itself.
    rig.inside(
        101,
        "printf '[Match]\\nName=*\\n\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/50-all.network; \
        systemctl -q enable --now systemd-networkd",
    );
    stays(
        &rig,
        Template::Debian13,
        "systemctl is-active systemd-networkd && networkctl --no-pager list venet0 | grep -q unmanaged",
    );
}

#[test]
fn network_manager_neither_fails_nor_undoes_venet() {
    let (rig, _proxy) = booted(Template::Debian12, true);
    install(&rig, "network-manager");
    stays(
        &rig,
        Template::Debian12,
        "systemctl is-active NetworkManager && nmcli -g GENERAL.STATE device show venet0 | grep -q unmanaged",
    );
}
