//! Programs that take `/etc/resolv.conf` over once a tenant installs them, tried as he does: install, reboot, and the
//! operator's `set --nameserver`.

use crate::{Rig, command, dns, proxy::Proxy, template::Template};
use std::{net::Ipv4Addr, time::Duration};

/// Two name servers, on addresses of the test host. Each answers with an address of its own.
const SERVERS: [(&str, [u8; 4]); 2] = [("10.98.0.1", [192, 0, 2, 1]), ("10.98.0.2", [192, 0, 2, 2])];
const PACKAGES: Duration = Duration::from_secs(540);
const BOOT: Duration = Duration::from_secs(120);

/// A manager with name servers and packages.
pub struct Site {
    rig: Rig,
    proxy: Proxy,
}

impl Site {
    /// One whose containers are of these templates.
    ///
    /// # Panics
    /// It cannot be had.
    #[track_caller]
    pub fn new(templates: &[Template]) -> Self {
        let rig = Rig::new(templates);
        for (at, _) in SERVERS {
            rig.host.ip(&format!("addr add {at}/32 dev lo"));
        }
        for (at, answer) in SERVERS {
            // They answer for as long as this process lives; what they were asked is of no interest.
            dns::Stub::start(&rig.host, at.parse().expect("an address"), Ipv4Addr::from(answer))
                .expect("starting a name server");
        }
        let proxy = Proxy::start(&rig.host, SERVERS[0].0.parse().expect("an address")).expect("starting the proxy");
        Self { rig, proxy }
    }

    #[track_caller]
    fn script(&self, ctid: u32, text: &str) -> String {
        let mut c = self.rig.vzctl_command(&["exec2", &ctid.to_string(), "bash -eu -o pipefail"]);
        command::run(&mut c, Some(text.as_bytes()), PACKAGES).unwrap_or_else(|e| panic!("{e}")).ok().text().to_owned()
    }

    /// Names resolve, whole and short ones, by this server and no other, as libc does it.
    #[track_caller]
    fn resolves_by(&self, ctid: u32, server: usize, when: &str) {
        let answer = Ipv4Addr::from(SERVERS[server].1);
        let seen = self.script(ctid, "for n in www.example.net intranet; do timeout 20 getent ahostsv4 $n | head -1 | cut -d' ' -f1; done || true");
        let all = || self.script(ctid, "ls -l /etc/resolv.conf; cat /etc/resolv.conf; grep ^hosts /etc/nsswitch.conf");
        assert_eq!(seen, format!("{answer}\n{answer}"), "{when}\n{}", all());
        let failed = self.rig.inside(ctid, "systemctl --failed --plain --no-legend");
        assert_eq!(failed, "", "{when}");
    }

    #[track_caller]
    fn reboot(&self, ctid: u32) {
        let boots = self.rig.record(ctid).boots;
        self.rig.vzctl(&["exec2", &ctid.to_string(), "systemctl reboot"]);
        self.rig.wait_record(ctid, BOOT, |r| r.boots == boots + 1);
        self.rig.inside(ctid, "timeout 80 sh -c 'until [ -S /run/systemd/private ]; do sleep 0.05; done; until systemctl is-system-running --wait; do sleep 0.05; done'");
    }

    /// In a new container: this package is installed.
    ///
    /// # Panics
    /// Names do not resolve right after that, after a reboot inside, or after `set --nameserver`.
    #[track_caller]
    pub fn take_over(&self, ctid: u32, template: Template, package: &str) {
        let (id, address) = (ctid.to_string(), format!("10.99.0.{}", ctid - 100));
        let options =
            ["--ipadd", &address, "--nameserver", SERVERS[0].0, "--searchdomain", "example.org", "--hostname", "ct"];
        self.rig.create(ctid, template, &options);
        self.rig.ok(&["start", &id, "--wait"]);
        let when = |what: &str| format!("{package} in {}, {what}", template.name());
        self.resolves_by(ctid, 0, &when("not installed yet"));
        self.script(
            ctid,
            &format!(
                "{}
                 export DEBIAN_FRONTEND=noninteractive
                 apt-get -qq update
                 apt-get -qq install -y {package} >/root/install.log 2>&1 || {{ cat /root/install.log; exit 1; }}",
                self.proxy.apt()
            ),
        );
        self.resolves_by(ctid, 0, &when("just installed"));
        self.reboot(ctid);
        self.resolves_by(ctid, 0, &when("after a reboot"));
        self.rig.ok(&["set", &id, "--nameserver", SERVERS[1].0, "--save"]);
        self.resolves_by(ctid, 1, &when("after `set --nameserver`"));
        self.reboot(ctid);
        self.resolves_by(ctid, 1, &when("after that and a reboot"));
        self.rig.ok(&["stop", &id, "--fast"]);
        self.rig.ok(&["destroy", &id]);
    }
}
