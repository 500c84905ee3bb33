//! What a process has from whoever started it without having been given it: a container and what is executed in it begin
//! as on a machine of their own, whatever vzd and vzctl were started under.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{fs, time::Duration};
use vz_tests::{
    Rig, command,
    template::Template::{Debian13, Tiny},
};

/// Everything a shell can change of itself that its children have from it. Hard limits are lowered as well where root may
/// raise them again (CAP_SYS_RESOURCE): the test machine, not every place this runs in.
fn odd() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caps =
        status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(|c| u64::from_str_radix(c.trim(), 16).unwrap());
    let may_raise = caps.unwrap() & 1 << 24 != 0;
    let both = if may_raise { "" } else { "-S" };
    let limits = ["c 0", "n 500", "u 4000", "i 100", "q 1000", "l 40", "f 1000000", "s 4096", "d 4000000", "x 50"];
    let limits: Vec<String> = limits.iter().map(|l| format!("ulimit {both} -{l}")).collect();
    format!(
        "umask 077; {}; renice -n 7 -p $$; ionice -c 3 -p $$; taskset -p 1 $$; chrt -b -p 0 $$; \
         echo 1 >/proc/self/coredump_filter; trap '' CHLD HUP INT QUIT USR1",
        limits.join("; ")
    )
}

/// What a process of the container's has, from its files below /proc.
fn state(limits: &str, status: &str, stat: &str) -> Vec<String> {
    let mut out: Vec<String> =
        limits.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let fields = ["Umask:", "Cpus_allowed:", "SigBlk:", "SigIgn:", "NoNewPrivs:"];
    out.extend(status.lines().filter(|l| fields.iter().any(|f| l.starts_with(f))).map(str::to_owned));
    // Behind the name: priority, nice, real-time priority and policy (proc_pid_stat(5), fields 18, 19, 40 and 41).
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    out.push(format!("priority {} nice {} rt {} policy {}", fields[15], fields[16], fields[37], fields[38]));
    out
}

fn of_init(rig: &Rig) -> Vec<String> {
    let init = rig.record(101).init.pid;
    let file = |name: &str| fs::read_to_string(format!("/proc/{init}/{name}")).unwrap();
    let mut all = state(&file("limits"), &file("status"), &file("stat"));
    all.push(format!("dumped {} slack {}", file("coredump_filter").trim(), file("timerslack_ns").trim()));
    all.push(rig.inside(101, "ls -ld /sys/fs/cgroup | cut -c1-10"));
    all
}

const SHOW: &str = "cat /proc/self/limits; echo ==; cat /proc/self/status; echo ==; cat /proc/self/stat; echo ==; \
                    cat /proc/self/coredump_filter";

fn of_exec(rig: &Rig, setup: &str) -> Vec<String> {
    let vzctl = rig.vzctl_command(&["exec2", "101", SHOW]);
    let mut line = rig.host.command("bash");
    line.args(["-c", &format!("{setup}; exec \"$0\" \"$@\""), &vzctl.get_program().to_string_lossy()]);
    line.args(vzctl.get_args());
    line.envs(vzctl.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let out = command::run(&mut line, None, Duration::from_secs(20)).unwrap().ok();
    let (_, shown) = out.stdout.split_at(out.stdout.find("Limit").unwrap());
    let parts: Vec<&str> = shown.split("==\n").collect();
    let mut all = state(parts[0], parts[1], parts[2]);
    all.push(format!("dumped {}", parts[3].trim()));
    all
}

#[test]
fn a_container_has_nothing_of_what_vzd_was_started_with() {
    let rig = Rig::with_tiny();
    let plain = of_init(&rig);
    assert!(plain.iter().any(|l| l == "priority 20 nice 0 rt 0 policy 0"), "{plain:?}");
    assert!(plain.iter().any(|l| l == "Max core file size 0 unlimited bytes"), "{plain:?}");
    assert!(plain.iter().any(|l| l == "drwxr-xr-x"), "{plain:?}");
    rig.ok(&["stop", "101", "--fast"]);
    rig.stop_vzd();
    rig.start_vzd_behind(&odd());
    rig.ok(&["start", "101"]);
    rig.settled(101);
    assert_eq!(of_init(&rig), plain);
}

#[test]
fn what_is_executed_inside_has_nothing_of_its_caller() {
    let rig = Rig::with_tiny();
    let plain = of_exec(&rig, ":");
    assert_eq!(of_exec(&rig, &odd()), plain);
}

#[test]
fn every_user_inside_may_ping() {
    let rig = Rig::new(&[Tiny, Debian13]);
    rig.create(101, Tiny, &[]);
    rig.create(102, Debian13, &["--ipadd", "10.99.0.2"]);
    rig.ok(&["start", "101"]);
    rig.ok(&["start", "102", "--wait"]);
    for ctid in [101, 102] {
        let range = rig.inside(ctid, "cat /proc/sys/net/ipv4/ping_group_range");
        assert_eq!(range.split_whitespace().collect::<Vec<_>>(), ["0", "65535"], "CT {ctid}");
    }
    // Its own value stays over a change of its addresses.
    rig.inside(102, "echo '100 200' >/proc/sys/net/ipv4/ping_group_range");
    rig.ok(&["set", "102", "--ipadd", "10.99.0.3"]);
    assert!(rig.inside(102, "cat /proc/sys/net/ipv4/ping_group_range").starts_with("100"));
}

#[test]
fn what_is_executed_inside_has_the_locale_of_the_container_and_waits_for_no_file_of_its() {
    let rig = Rig::with_tiny();
    let env = |rig: &Rig| rig.inside(101, "env | grep -E '^(LANG|LC_)' | sort | tr '\\n' ' '");
    assert_eq!(env(&rig), "");
    rig.inside(
        101,
        "mkdir -p /etc/default; echo 'LANG=\"de_DE.UTF-8\"' >/etc/default/locale; echo LC_TIME=C >>/etc/default/locale",
    );
    assert_eq!(env(&rig), "LANG=de_DE.UTF-8 LC_TIME=C");
    rig.inside(101, "rm /etc/default/locale; mkfifo /etc/default/locale; echo LANG=C.UTF-8 >/etc/locale.conf");
    assert_eq!(env(&rig), "LANG=C.UTF-8");
    rig.inside(
        101,
        "mv /etc/passwd /etc/passwd.old; mkfifo /etc/passwd; rm /etc/locale.conf; ln -s /dev/zero /etc/locale.conf",
    );
    let mut enter = rig.vzctl_command(&["enter", "101"]);
    let out = command::run(&mut enter, Some(b"echo in; exit 4\n"), Duration::from_secs(20)).unwrap();
    assert_eq!((out.code(), out.stdout.contains("in\n")), (4, true), "{out}");
}
