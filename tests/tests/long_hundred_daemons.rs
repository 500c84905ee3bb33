//! The daemons of `tests/daemons.toml` in a container of each Debian, one after another: installed as on a machine, then
//! no unit has failed and no process spins. Part of `cargo xtask long`; the suite `workloads` has the worst of them.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::{Duration, Instant};
use vz_tests::{
    Output, Rig, command, daemons,
    proxy::Proxy,
    template::Template::{self, Debian12, Debian13},
};

const ADDRESS: &str = "10.99.0.1";
const HOST: &str = "10.98.0.1";
/// One package, with all it needs, on a machine that has other things to do.
const PACKAGE: Duration = Duration::from_secs(900);

/// Prints one line for each unit that failed and each process that spins. `$1` is the package.
const TRY: &str = r#"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
up() { systemctl list-units --plain --no-legend --state=active,activating --type=service,socket,timer,path,automount | cut -d' ' -f1 | sort; }
up >/run/before
apt-get -q install -y --no-install-recommends -o Dpkg::Use-Pty=0 "$1" >/run/install.log 2>&1 ||
    { echo "install: $(grep -v -e ^Get: -e ^Setting -e ^Unpacking -e ^Selecting -e ^Preparing /run/install.log | tail -n 12 | tr '\n' '~')"; dpkg --configure -a >/dev/null 2>&1; apt-get -qq -f install -y >/dev/null 2>&1; }
# Units that restart have failed when they give up; nothing is asked of those that wait for the network.
timeout 60 sh -c 'while systemctl list-jobs --no-legend | grep -q .; do sleep 0.3; done' || echo "jobs: $(systemctl list-jobs --no-legend | tr '\n' '~')"
ticks() { awk 'FNR == 1 { sub(/^.*\) /, ""); split($0, f, " "); if (FILENAME != "/proc/'$$'/stat") print FILENAME, f[12] + f[13] }' /proc/[0-9]*/stat 2>/dev/null | sort; }
# A spinning process is one that in each of twenty looks of two seconds had a quarter of a processor.
cp /dev/null /run/spins; ticks >/run/ticks
for look in $(seq 20); do
    sleep 2
    ticks >/run/ticks.now
    join /run/ticks /run/ticks.now | awk '$3 - $2 > 50 { print $1 }' >/run/spins.now
    mv /run/ticks.now /run/ticks
    if [ "$look" = 1 ]; then cp /run/spins.now /run/spins; else comm -12 /run/spins /run/spins.now >/run/spins.both; mv /run/spins.both /run/spins; fi
    [ -s /run/spins ] || break
done
while read -r stat; do echo "spins: $(tr '\0' ' ' <"${stat%stat}cmdline")"; done </run/spins
systemctl list-units --failed --plain --no-legend | cut -d' ' -f1 >/run/failed
while read -r unit; do
    echo "failed: $unit: $(systemctl show -P Result "$unit"): $(journalctl -b -u "$unit" -n 8 -o cat --no-pager | tr '\n' '~')"
done </run/failed
systemctl list-units --plain --no-legend --state=auto-restart --type=service | while read -r unit rest; do
    echo "restarts: $unit: $(journalctl -b -u "$unit" -n 8 -o cat --no-pager | tr '\n' '~')"
done
# The next one finds ports and memory free.
up >/run/after
comm -13 /run/before /run/after | grep -v -e '^session-' -e '^user' -e '^run-' | xargs -r timeout 150 systemctl disable -q --now 2>/dev/null
xargs -r systemctl disable -q </run/failed 2>/dev/null
systemctl reset-failed
apt-get clean
true
"#;

fn attempt(rig: &Rig, text: &str) -> Output {
    let mut c = rig.vzctl_command(&["exec2", "101", "bash -u"]);
    command::run(&mut c, Some(text.as_bytes()), PACKAGE).unwrap_or_else(|e| panic!("{e}"))
}

fn installs(template: Template) {
    let rig = Rig::new(&[template]);
    rig.host.ip(&format!("addr add {HOST}/32 dev lo"));
    let proxy = Proxy::start(&rig.host, HOST.parse().unwrap()).unwrap();
    rig.create(101, template, &["--ipadd", ADDRESS, "--hostname", "ct101.example.org"]);
    rig.ok(&["start", "101", "--wait"]);
    attempt(&rig, &format!("{} && apt-get -qq update", proxy.apt())).ok();
    let (list, mut unexplained) = (daemons::list(), Vec::new());
    let only = std::env::var("VZ_DAEMONS").unwrap_or_default();
    for package in list.packages().filter(|p| only.is_empty() || only.split(' ').any(|o| o == *p)) {
        let begun = Instant::now();
        let known = package
            .split('|')
            .find(|p| attempt(&rig, &format!("apt-cache policy {p} | grep -q 'Candidate: [^(]'")).code() == 0);
        let Some(name) = known else {
            println!("{:<26} not in {}", package, template.name());
            continue;
        };
        let out = attempt(&rig, &format!("set -- {name}\n{TRY}"));
        let seen: Vec<&str> = out.stdout.lines().collect();
        println!("{name:<26} {:>4} s  {}", begun.elapsed().as_secs(), if seen.is_empty() { "well" } else { "" });
        for line in seen {
            println!("    {line}");
            if !list.explains(name, line) {
                unexplained.push(format!("{name}: {line}"));
            }
        }
        if out.code() != 0 {
            unexplained.push(format!("{name}: {out}"));
        }
    }
    assert!(
        unexplained.is_empty(),
        "{} things without a line in docs/reference/inits.md:\n{}",
        unexplained.len(),
        unexplained.join("\n")
    );
}

#[test]
fn a_hundred_daemons_of_debian_12_fail_no_unit_and_spin_nowhere() {
    installs(Debian12);
}

#[test]
fn a_hundred_daemons_of_debian_13_fail_no_unit_and_spin_nowhere() {
    installs(Debian13);
}
