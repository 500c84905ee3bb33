//! What a customer does with his machine: servers from the distribution's packages that others use, jobs and users of
//! its own, upgrades while all of it runs, containers inside. All of it is there again after a reboot typed inside.
//!
//! Packages come through the test host's proxy, as in the other suites; each test installs once and uses it all.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{process::Command, thread, time::Duration};
use vz_tests::{
    Output, Rig, command,
    proxy::Proxy,
    ssh::Identity,
    template::Template::{self, Debian12, Debian13},
};

/// Address and template of each container: every one is server and client of the other.
const PAIR: [(u32, &str, Template); 2] = [(101, "10.99.0.1", Debian12), (102, "10.99.0.2", Debian13)];
const HOST: &str = "10.98.0.1";
const PASSWORD: &str = "correct-horse-9";
const BOOT: Duration = Duration::from_secs(120);
/// A machine that shares two cores with others fetches, unpacks and sets up a hundred packages in this time.
const PACKAGES: Duration = Duration::from_secs(540);

/// Containers whose package manager works, and a user's way in.
struct Site {
    rig: Rig,
    identity: Identity,
}

impl Site {
    fn new(containers: &[(u32, &str, Template)]) -> Self {
        let mut templates: Vec<Template> = containers.iter().map(|(.., t)| *t).collect();
        templates.dedup();
        let rig = Rig::new(&templates);
        rig.host.ip(&format!("addr add {HOST}/32 dev lo"));
        let proxy = Proxy::start(&rig.host, HOST.parse().unwrap()).unwrap();
        let identity = Identity::new(&rig.paths.base);
        let site = Self { rig, identity };
        for (ctid, address, template) in containers {
            site.rig.create(*ctid, *template, &["--ipadd", address, "--hostname", &format!("ct{ctid}.example.org")]);
            site.rig.ok(&["start", &ctid.to_string(), "--wait"]);
            site.script(
                *ctid,
                &format!(
                    "{}
                     adduser --quiet --disabled-password --gecos '' anna
                     echo anna:{PASSWORD} | chpasswd
                     adduser --quiet anna sudo",
                    proxy.apt()
                ),
            );
        }
        site
    }

    /// Runs a shell script as root inside; its output.
    #[track_caller]
    fn script(&self, ctid: u32, text: &str) -> String {
        self.attempt(ctid, text).ok().text().to_owned()
    }

    #[track_caller]
    fn attempt(&self, ctid: u32, text: &str) -> Output {
        let mut c = self.rig.vzctl_command(&["exec2", &ctid.to_string(), "bash -eu -o pipefail"]);
        command::run(&mut c, Some(text.as_bytes()), PACKAGES).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same script in all of them at once.
    #[track_caller]
    fn everywhere(&self, text: &str) {
        thread::scope(|s| {
            let jobs = PAIR.map(|(ctid, ..)| s.spawn(move || self.attempt(ctid, text)));
            for job in jobs {
                job.join().unwrap().ok();
            }
        });
    }

    /// `reboot`, typed by the user who logged in with his password, and everything that starts by itself started.
    #[track_caller]
    fn reboot_by_user(&self, ctid: u32, address: &str) {
        let boots = self.rig.record(ctid).boots;
        let line = format!("echo {PASSWORD} | sudo -S -p '' systemctl reboot");
        // The connection may end before the answer does.
        self.identity.run_with_password(&self.rig.host, "anna", PASSWORD, address, &line);
        self.rig.wait_record(ctid, BOOT, |r| r.boots == boots + 1);
        self.rig.inside(ctid, "timeout 80 sh -c 'until [ -S /run/systemd/private ]; do sleep 0.05; done; until systemctl is-system-running --wait; do sleep 0.05; done'");
    }

    /// Nothing of a machine's services has failed.
    #[track_caller]
    fn assert_healthy(&self, ctid: u32) {
        let failed = self.rig.inside(ctid, "systemctl --failed --plain --no-legend");
        assert_eq!(failed, "", "{}", self.rig.inside(ctid, "journalctl -b -p warning --no-pager | tail -40"));
        assert_eq!(self.rig.inside(ctid, "systemctl is-system-running"), "running");
    }
}

#[test]
fn servers_from_packages_serve_another_container_and_are_back_after_a_reboot() {
    let site = Site::new(&PAIR);
    // As postgrey and others look for the address they serve on, in a container with IPv4 alone.
    site.everywhere(
        "perl -MSocket=:all -e 'for (qw(::1 localhost 127.0.0.1)) {
             my ($error) = getaddrinfo($_, 10023, {flags => AI_ADDRCONFIG, socktype => SOCK_STREAM}); die \"$_: $error\" if $error }'",
    );
    // Runs while packages are installed, so that nobody has to wait for its minute.
    site.everywhere("echo '* * * * * echo $(id -un) $(cat /proc/uptime) >>$HOME/cron.log' | crontab -u anna -");
    site.everywhere(&format!(
        "export DEBIAN_FRONTEND=noninteractive
         apt-get -qq update
         apt-get -qq install -y --no-install-recommends nginx redis-server postgresql >/root/install.log 2>&1 || {{ cat /root/install.log; exit 1; }}
         head -c 3000000 /dev/zero | tr '\\0' v >/var/www/html/page
         cd /etc/postgresql/*/main
         echo \"listen_addresses = '*'\" >conf.d/lan.conf
         echo 'host all all 10.99.0.0/24 scram-sha-256' >>pg_hba.conf
         runuser -u postgres -- psql -q -c \"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'\" -c 'CREATE DATABASE shop OWNER shop'
         sed -i 's/^bind .*/bind 0.0.0.0/; s/^# requirepass .*/requirepass {PASSWORD}/' /etc/redis/redis.conf
         systemctl restart postgresql redis-server"
    ));
    let used = |round: u32| {
        for ((_, server, _), (client, ..)) in [(PAIR[0], PAIR[1]), (PAIR[1], PAIR[0])] {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS orders (n int PRIMARY KEY, what text); \
                 INSERT INTO orders VALUES ({round}, 'tea'); SELECT count(*), sum(n) FROM orders"
            );
            let out = site.script(
                client,
                &format!(
                    "curl -fsS http://{server}/page | wc -c
                     curl -fsS http://{server}/ | grep -o 'Welcome to nginx!' | head -1
                     export PGPASSWORD={PASSWORD} PGOPTIONS='-c client_min_messages=warning'
                     psql -h {server} -U shop -qtA -c \"{sql}\" shop
                     redis-cli -h {server} --no-auth-warning -a {PASSWORD} incr visits
                     redis-cli -h {server} --no-auth-warning -a {PASSWORD} set last {round}
                     redis-cli -h {server} --no-auth-warning -a {PASSWORD} get last
                     PGPASSWORD=wrong psql -h {server} -U shop -c '' shop 2>/dev/null && exit 9
                     redis-cli -h {server} get last"
                ),
            );
            let sum: u32 = (1..=round).sum();
            let expected = format!("3000000\nWelcome to nginx!\n{round}|{sum}\n{round}\nOK\n{round}\nNOAUTH");
            assert!(out.starts_with(&expected), "round {round}, of {server}:\n{out}\nexpected\n{expected}");
        }
    };
    used(1);
    for (ctid, address, _) in PAIR {
        site.assert_healthy(ctid);
        let line = format!("echo {PASSWORD} | sudo -S -p '' id -u");
        let out = site.identity.run_with_password(&site.rig.host, "anna", PASSWORD, address, &line).ok();
        assert_eq!(out.text(), "0", "anna is let in by her password, and sudo takes it");
        let refused = site.identity.run_with_password(&site.rig.host, "anna", PASSWORD, address, "sudo -n id -u");
        assert_ne!(refused.code(), 0, "{refused}");
        // The minute has passed by now unless this machine is very quick.
        let ran = site
            .script(ctid, "timeout 70 sh -c 'until [ -s ~anna/cron.log ]; do sleep 0.2; done'; tail -1 ~anna/cron.log");
        assert!(ran.starts_with("anna "), "{ran}");
    }
    for (ctid, address, _) in PAIR {
        site.reboot_by_user(ctid, address);
    }
    for (ctid, ..) in PAIR {
        let services = "nginx redis-server postgresql ssh cron";
        assert_eq!(site.rig.inside(ctid, &format!("systemctl is-active {services}")), ["active"; 5].join("\n"));
        assert!(site.rig.inside(ctid, "crontab -u anna -l").contains("cron.log"));
    }
    used(2);
    for (ctid, ..) in PAIR {
        site.assert_healthy(ctid);
        assert!(site.rig.inside(ctid, "journalctl --list-boots --no-pager | wc -l").parse::<u32>().unwrap() >= 2);
    }
}

/// What a machine would do with the kernel itself, and what a container has no part of: none of it fails, here or after a
/// reboot, and what has no effect says so where its user looks. (`cargo xtask long hundred_daemons` has all others.)
#[test]
fn units_that_nothing_needs_in_a_container_do_not_fail_after_apt_install() {
    const HOSTS_OWN: [&str; 7] = ["auditd", "atopacct", "acct", "rngd", "autofs", "gpm", "nfs-server"];
    let site = Site::new(&PAIR);
    site.everywhere(
        "export DEBIAN_FRONTEND=noninteractive
         apt-get -qq update
         apt-get -qq install -y --no-install-recommends auditd atop acct rng-tools5 autofs gpm nfs-kernel-server >/root/install.log 2>&1 || { cat /root/install.log; exit 1; }
         cd /etc/systemd/system
         unit() { printf '[Service]\\nExecStart=/bin/sleep infinity\\n%b\\n[Install]\\nWantedBy=multi-user.target\\n' \"$2\" >$1.service; }
         unit urgent 'CPUSchedulingPolicy=rr\\nCPUSchedulingPriority=20\\nIOSchedulingClass = realtime\\nIOSchedulingPriority=1'
         unit fenced 'IPAddressDeny=any\\nDynamicUser=yes'
         # Set from outside of the unit's own file, in a template.
         unit later@ ''; mkdir later@.service.d; printf '[Service]\\nCPUSchedulingPolicy=fifo\\n' >later@.service.d/mine.conf
         # Another policy than those is kept.
         unit idle 'CPUSchedulingPolicy=idle\\nIOSchedulingClass=idle'
         systemctl daemon-reload
         systemctl -q enable --now urgent fenced later@one idle",
    );
    for round in ["installed", "rebooted"] {
        for (ctid, ..) in PAIR {
            site.assert_healthy(ctid);
            let look = "for u in urgent fenced later@one idle; do systemctl is-active $u; done
                for u in urgent later@one idle; do p=$(systemctl show -P MainPID $u); chrt -p $p | grep -o 'SCHED_[A-Z]*'; ionice -p $p; done";
            let expected = "active\nactive\nactive\nactive\nSCHED_OTHER\nnone: prio 0\nSCHED_OTHER\nnone: prio 0\nSCHED_IDLE\nidle";
            assert_eq!(site.script(ctid, look), expected, "{round}");
            for unit in HOSTS_OWN {
                let state = site.script(ctid, &format!("systemctl show -P ActiveState -P ConditionResult {unit}"));
                assert_eq!(state, "inactive\nno", "{round}: {unit}");
            }
            let status = site.script(ctid, "systemctl status fenced --no-pager");
            assert!(status.contains("IPAddressDeny= has no effect in this container"), "{round}: {status}");
        }
        if round == "installed" {
            site.everywhere("systemctl is-system-running");
            let restart = |ctid: u32| drop(site.rig.ok(&["restart", &ctid.to_string(), "--wait"]));
            thread::scope(|s| {
                for (ctid, ..) in PAIR {
                    let restart = &restart;
                    s.spawn(move || restart(ctid));
                }
            });
        }
    }
}

#[test]
fn a_release_upgrade_runs_unattended_under_running_services() {
    let (ctid, address, _) = PAIR[0];
    let site = Site::new(&PAIR[..1]);
    site.script(
        ctid,
        "export DEBIAN_FRONTEND=noninteractive
         apt-get -qq update
         apt-get -qq dist-upgrade -y >/root/upgrade.log 2>&1 || { cat /root/upgrade.log; exit 1; }
         apt-get -qq install -y --no-install-recommends nginx-light redis-server >/root/install.log 2>&1
         echo kept >/var/www/html/page; redis-cli set kept yes
         sed -i s/bookworm/trixie/g $(grep -rl bookworm /etc/apt/sources.list* | sort -u)
         apt-get -qq update",
    );
    let before = site.rig.record(ctid);
    let log = site.script(
        ctid,
        "export DEBIAN_FRONTEND=noninteractive
         apt-get -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold dist-upgrade",
    );
    let trouble: Vec<&str> = log
        .lines()
        .filter(|l| {
            ["Errors were encountered", "dpkg: error", "unsandboxed", "Failed to "].iter().any(|w| l.contains(w))
        })
        .collect();
    assert!(trouble.is_empty(), "{trouble:?}\n{log}");
    let upgraded = |name: &str| log.contains(&format!("Setting up {name}"));
    assert!(["libc6:", "systemd ", "openssh-server ", "sudo ", "redis-server "].into_iter().all(upgraded), "{log}");
    // The same boot of the same machine, in working order before anybody restarts anything ...
    assert_eq!(site.rig.record(ctid), before);
    assert_eq!(
        site.script(ctid, "dpkg --audit; apt-get -qq check; cut -d. -f1 /etc/debian_version; redis-cli get kept"),
        "13\nyes"
    );
    site.assert_healthy(ctid);
    // ... and after a reboot.
    site.reboot_by_user(ctid, address);
    site.assert_healthy(ctid);
    let after = site.script(
        ctid,
        &format!(
            "systemctl is-active nginx redis-server ssh cron; curl -fsS http://{address}/page; redis-cli get kept"
        ),
    );
    assert_eq!(after, "active\nactive\nactive\nactive\nkept\nyes");
    let out = site.identity.run_with_password(&site.rig.host, "anna", PASSWORD, address, "id -un").ok();
    assert_eq!(out.text(), "anna");
}

/// A root filesystem somebody has at hand: a shell and a web server that says who it is.
fn root_filesystem() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let line = "mkdir -p bin etc tmp www && cp /bin/busybox bin/ && for a in sh id cat grep ip ls httpd; do ln -s busybox bin/$a; done \
                && echo root:x:0:0::/:/bin/sh >etc/passwd && echo from-a-nested-container >www/index.html \
                && tar --numeric-owner --owner=0 --group=0 -cf root.tar bin etc tmp www";
    command::run(Command::new("sh").args(["-c", line]).current_dir(dir.path()), None, BOOT).unwrap().ok();
    std::fs::read(dir.path().join("root.tar")).unwrap()
}

#[test]
fn podman_from_packages_runs_a_local_root_filesystem_where_nesting_is_on_and_only_there() {
    let site = Site::new(&PAIR);
    site.everywhere(
        "export DEBIAN_FRONTEND=noninteractive
         apt-get -qq update
         apt-get -qq install -y podman >/root/install.log 2>&1 || { cat /root/install.log; exit 1; }
         # A host without the pids controller cannot keep podman's default promise; crun then starts nothing.
         grep -qw pids /sys/fs/cgroup/cgroup.controllers || printf '[containers]\\npids_limit = 0\\n' >/etc/containers/containers.conf
         # Only a part of the container's own ids can be given on.
         echo anna:20000:40000 >/etc/subuid; echo anna:20000:40000 >/etc/subgid",
    );
    let tar = root_filesystem();
    for (ctid, ..) in PAIR {
        let id = ctid.to_string();
        site.rig.vzctl_with(&["exec2", &id, "cat >/var/tmp/root.tar; chmod 644 /var/tmp/root.tar"], &tar).ok();
        // Off: podman cannot, and says what was refused.
        let out = site.attempt(
            ctid,
            "podman import -q /var/tmp/root.tar local/tiny && podman run --rm --network=none local/tiny id",
        );
        assert_ne!(out.code(), 0, "{out}");
        let out = site.attempt(ctid, "unshare -U true");
        assert_ne!(out.code(), 0, "{out}");
        out.says("Operation not permitted");
        site.rig.ok(&["set", &id, "--features", "nesting:on", "--save", "--setmode", "restart"]);
    }
    for (ctid, address, _) in PAIR {
        let out = site.script(
            ctid,
            "rm -rf /var/lib/containers /run/containers /run/libpod
             podman import -q /var/tmp/root.tar local/tiny
             podman run --rm local/tiny id
             podman run --rm --network=none local/tiny sh -c 'echo written >/file; cat /file; cat /www/index.html'
             podman run -d --name web --restart=always -p 8080:80 local/tiny httpd -f -p 80 -h /www
             systemctl -q enable podman-restart
             podman ps --format '{{.Names}}'",
        );
        assert!(
            out.contains("\nuid=0(root) gid=0\nwritten\nfrom-a-nested-container\n") && out.ends_with("\nweb"),
            "{out}"
        );
        // Privileged: with all devices there are and a writable /sys, for root and for a user.
        let mounts = "id -u; grep -c ' /sys sysfs rw' /proc/mounts";
        let privileged = format!("podman run --rm --network=none --privileged local/tiny sh -c \"{mounts}\"");
        assert_eq!(site.script(ctid, &privileged), "0\n1");
        // A user's own, without root: his id is root in there, with a network of its own.
        let out = site.script(
            ctid,
            "loginctl enable-linger anna
             su - anna -c 'podman import -q /var/tmp/root.tar local/tiny; podman run --rm local/tiny sh -c \"id; cat /proc/self/uid_map; ip -o link | wc -l\"'",
        );
        assert!(out.contains("uid=0(root)") && out.contains("20000") && out.ends_with("\n2"), "{out}");
        assert_eq!(site.script(ctid, &format!("su - anna -c '{}'", privileged.replace('\'', "'\\''"))), "0\n1");
        assert!(!site.rig.inside(ctid, "podman images -q | wc -l").is_empty());
        // On the address of the container, from the other one.
        let client = PAIR.iter().map(|(c, ..)| *c).find(|c| *c != ctid).unwrap();
        let fetch = format!("curl -fsS --retry 20 --retry-delay 1 --retry-all-errors http://{address}:8080/");
        assert_eq!(site.rig.inside(client, &fetch), "from-a-nested-container");
        site.assert_healthy(ctid);
        site.reboot_by_user(ctid, address);
        assert_eq!(site.rig.inside(client, &fetch), "from-a-nested-container", "it is back after a reboot");
        site.assert_healthy(ctid);
    }
}
