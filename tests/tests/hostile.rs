//! A hostile root inside: traps laid in its files for whoever edits them from outside, and things of the kernel's that it
//! takes until there are none. The host and the neighbours must not notice.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
    time::Duration,
};
use vz_tests::{Rig, command, probe, template::Template::Tiny};
use vz_types::policy;

const SOON: Duration = Duration::from_secs(30);

/// CT 101.
fn running() -> Rig {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["start", "101"]);
    rig.wait_console(101, "tiny is up", SOON);
    rig
}

#[test]
fn one_container_that_takes_all_inotify_instances_leaves_the_others_and_the_host_theirs() {
    let rig = running();
    rig.create(102, Tiny, &[]);
    rig.ok(&["start", "102"]);
    let mut hog = rig.vzctl_command(&["exec2", "101", "probe inotify"]);
    let mut hog = hog.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(hog.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let taken: u32 = first.split_whitespace().next().unwrap().parse().unwrap();
    assert!(taken > 10, "{first}");
    let neighbour = rig.vzctl_with(&["exec2", "102", "probe inotify"], b"").ok();
    let host = command::run(Command::new(probe::binary()).arg("inotify"), Some(b""), SOON).unwrap().ok();
    for (who, out) in [("the neighbour", neighbour), ("host root", host)] {
        let left: u32 = out.stdout.split_whitespace().next().unwrap().parse().unwrap();
        assert!(left > 10, "{who} has {left} inotify instances left");
    }
    hog.stdin.take().unwrap().write_all(b"").unwrap();
    hog.wait().unwrap();
}

/// `probe rings WORDS` as long as the answer is alive: how many it got, and what the next one was refused with.
struct Hoard {
    process: std::process::Child,
    got: u64,
}

impl Hoard {
    #[track_caller]
    fn take(rig: &Rig, ctid: &str, line: &str) -> Self {
        let mut taker = rig.vzctl_command(&["exec2", ctid, line]);
        let mut process = taker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let words: Vec<u64> = first.split_whitespace().map(|w| w.parse().unwrap()).collect();
        assert_eq!(words.get(1), Some(&12), "`{line}`: {first:?}, 12 being \"Cannot allocate memory\"");
        Self { process, got: words[0] }
    }

    fn give_back(mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

#[test]
fn ring_memory_of_packet_sockets_is_bounded_in_sum_whoever_holds_it_in_whichever_network_namespace() {
    const MIB: u64 = 1 << 20;
    let rig = Rig::new(&[Tiny]);
    for ctid in [101, 102] {
        rig.create(ctid, Tiny, &[]);
        rig.ok(&["set", &ctid.to_string(), "--features", "nesting:on", "--save"]);
        rig.ok(&["start", &ctid.to_string()]);
    }
    rig.wait_console(101, "tiny is up", SOON);
    // Captures one after the other find what the last one gave back.
    assert_eq!(rig.inside(101, "probe captures 30"), "0");
    let take = |ctid: &str, line: &str| Hoard::take(&rig, ctid, line);
    let nested = "su -s /bin/sh nobody -c 'unshare -U -r -n probe rings 262144'";
    let all = policy::PACKET_MEMORY / MIB;
    let first = take("101", "probe rings 1048576");
    assert!((all / 2..=all).contains(&first.got), "{} rings of 1 MiB", first.got);
    // Nobody else in this container gets another one, wherever he looks at packets.
    let left = (all - first.got) * 4;
    for line in ["probe rings 262144", nested, "probe rings 262144 n"] {
        let more = take("101", line);
        assert!(more.got <= left, "`{line}`: {} more of 256 KiB", more.got);
        more.give_back();
    }
    // The neighbour has its own.
    let other = take("102", "probe rings 1048576");
    assert_eq!(other.got, first.got);
    other.give_back();
    first.give_back();
    // Small ones count as 256 KiB each, and tables of fanout groups count too. Each begins when what the last one
    // had is given back, with or without vzd.
    rig.kill_vzd();
    for (line, most) in [("probe rings 4096", 64), ("probe rings 2097152 n", 12)] {
        let again = vz_tests::wait::retry(SOON, Duration::from_millis(200), || {
            let hoard = take("101", line);
            let (got, enough) = (hoard.got, hoard.got * 2 >= most);
            hoard.give_back();
            enough.then_some(got)
        });
        let got = again.unwrap_or_else(|| panic!("`{line}` never gets half of {most}"));
        assert!(got <= most, "`{line}`: {got}");
    }
    // A reboot inside begins with all of it.
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, SOON, |r| r.boots == 2);
    let fresh = vz_tests::wait::retry(SOON, Duration::from_millis(200), || {
        let hoard = take("101", "probe rings 1048576");
        let got = hoard.got;
        hoard.give_back();
        (got == all - 1).then_some(())
    });
    assert!(fresh.is_some(), "not all of it is there after a reboot inside");
    rig.start_vzd(&[]);
}

/// A file of the host that a container must never reach, beside the manager's root.
struct Canary {
    dir: tempfile::TempDir,
}

impl Canary {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "untouched\n").unwrap();
        Self { dir }
    }

    fn path(&self) -> String {
        self.dir.path().join("file").display().to_string()
    }

    #[track_caller]
    fn assert_untouched(&self, when: &str) {
        let names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{when}");
        assert_eq!(fs::read_to_string(self.path()).unwrap(), "untouched\n", "{when}");
        assert_eq!(fs::metadata(self.path()).unwrap().uid(), 0, "{when}");
    }
}

#[test]
fn hostile_links_and_fifos_are_harmless_for_every_option_that_touches_files() {
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHjkFoFz2WkNPHTpx2GhLwuHV4mZmvHkkhC2WZyyzyzE operator@example";
    // Option and value, the file it edits, that file's directory.
    let options: &[(&[&str], &str)] = &[
        (&["--hostname", "new.example", "--save"], "/etc/hostname"),
        (&["--hostname", "new.example", "--save"], "/etc/hosts"),
        (&["--nameserver", "192.0.2.53", "--save"], "/etc/resolv.conf"),
        (&["--searchdomain", "example.org", "--nameserver", "192.0.2.53", "--save"], "/etc/resolv.conf"),
        (&["--userpasswd", "root:secret-word"], "/etc/shadow"),
        (&["--userpasswd", "root:secret-word"], "/etc/passwd"),
        (&["--userpasswd", "fresh:secret-word"], "/etc/group"),
        (&["--sshkey", KEY], "/root/.ssh/authorized_keys"),
        (&["--sshkey", KEY], "/root/.ssh"),
    ];
    let rig = running();
    let canary = Canary::new();
    let target = canary.path();
    // What a tenant puts in the file's place; each leaves a way back.
    let traps: Vec<(&str, String)> = vec![
        ("an absolute link out", format!("ln -s {target} $F")),
        ("a relative link out", format!("ln -s ../../../../../../../..{target} $F")),
        ("a link through proc", format!("ln -s /proc/1/root{target} $F")),
        ("a magic link to the host side", "ln -s /proc/self/exe $F".into()),
        ("a fifo nobody reads", "mkfifo $F".into()),
        ("a directory", "mkdir $F".into()),
        ("a loop of links", "ln -s $F $F".into()),
        ("a device", "ln -s /dev/zero $F".into()),
        ("a hard link to its own set-uid program", "ln /bin/busybox $F".into()),
        (
            "a huge sparse file",
            "truncate -s 1000G $F 2>/dev/null || dd if=/dev/zero of=$F bs=1 count=1 seek=1000000000".into(),
        ),
    ];
    for (words, file) in options {
        for (trap, line) in &traps {
            for stopped in [false, true] {
                let when =
                    format!("{} with {trap} at {file}, {}", words[0], if stopped { "stopped" } else { "running" });
                rig.inside(
                    101,
                    &format!("F={file}; mkdir -p /root/.ssh; cp -a /etc /root/etc-kept; rm -rf $F; {line}"),
                );
                if stopped {
                    rig.inside(101, "sync");
                    rig.ok(&["stop", "101", "--fast"]);
                }
                let mut all = vec!["set", "101"];
                all.extend(*words);
                let out = rig.vzctl(&all);
                assert!(out.took < Duration::from_secs(15), "{when}: it hung\n{out}");
                assert!(!out.stderr.contains("panicked"), "{when}\n{out}");
                canary.assert_untouched(&when);
                if stopped {
                    rig.ok(&["start", "101"]);
                }
                assert_eq!(rig.status(101), "exist mounted running", "{when}");
                rig.inside(101, "rm -rf /root/.ssh; for f in hostname hosts resolv.conf shadow passwd group; do rm -rf /etc/$f; cp -a /root/etc-kept/$f /etc/$f; done; rm -rf /root/etc-kept");
            }
        }
    }
}

#[test]
fn a_hostile_tree_cannot_lead_a_start_or_an_exec_astray() {
    let rig = running();
    let canary = Canary::new();
    let dir = canary.dir.path().display().to_string();
    let traps = [
        format!("rm -rf /run && ln -s {dir} /run"),
        format!("rm -rf /tmp && ln -s {dir} /tmp"),
        format!("rm -rf /mnt && ln -s {dir} /mnt"),
        format!("rm -rf /var/log && ln -s {dir} /var/log"),
        "rm -f /etc/passwd && mkfifo /etc/passwd".to_owned(),
    ];
    for trap in &traps {
        rig.inside(101, &format!("{trap}; sync"));
        rig.ok(&["stop", "101", "--fast"]);
        rig.ok(&["start", "101"]);
        let out = rig.vzctl(&["exec2", "101", "true"]);
        assert!(out.took < Duration::from_secs(10), "{trap}: {out}");
        canary.assert_untouched(trap);
    }
    rig.ok(&["stop", "101", "--fast"]);
    // Mount points that are links: a start refuses or copes, and never mounts on the host.
    for (n, point) in (102u32..).zip(["proc", "sys", "dev"]) {
        let id = n.to_string();
        rig.create(n, Tiny, &[]);
        rig.ok(&["start", &id]);
        // In a view of its own, where nothing is mounted over them.
        rig.settled(n);
        let swap = format!(
            "cd /; while umount -l /{point}; do :; done; until rmdir /{point}; do sleep 0.1; done; ln -s {dir} /{point} && sync"
        );
        rig.inside(n, &format!("unshare -m timeout 20 sh -c '{swap}' 2>/dev/null"));
        rig.ok(&["stop", &id, "--fast"]);
        let there = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| l.contains(&dir)).count();
        let before = there();
        let out = rig.vzctl(&["start", &id]);
        assert_eq!(before, there(), "/{point} led a mount onto the host: {out}");
        assert!(!out.stderr.contains("panicked"), "{out}");
        canary.assert_untouched(point);
        rig.ok(&["stop", &id, "--fast"]);
        rig.ok(&["destroy", &id]);
    }
}

#[test]
fn namespaces_are_counted_per_container_and_its_root_cannot_raise_the_caps() {
    let rig = running();
    rig.create(102, Tiny, &[]);
    rig.ok(&["start", "102"]);
    rig.wait_console(102, "tiny is up", SOON);
    for (kind, flag) in [("net", "n"), ("mnt", "m")] {
        let (_, cap) = policy::NAMESPACE_CAPS.iter().find(|(k, _)| *k == kind).unwrap();
        // Its root raises what it can reach, then holds as many as it gets, each by one sleeping process.
        let script = format!(
            "echo 2147483647 > /proc/sys/user/max_{kind}_namespaces; made=0
             while [ $made -lt {} ] && unshare -{flag} true 2>/tmp/why; do
                 unshare -{flag} sleep 600 & made=$((made+1))
             done
             for i in 1 2 3 4 5 6 7 8 9 10; do
                 held=$(for n in /proc/[0-9]*/ns/{kind}; do readlink $n; done | sort -u | wc -l)
                 [ $held -ge {} ] && break; sleep 0.1
             done
             echo held $held; cat /tmp/why",
            cap + 64,
            cap - 1,
        );
        let out = rig.ok(&["exec", "101", &script]);
        let held: u32 = out.text().split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default();
        assert!((cap / 2..=*cap).contains(&held), "{kind}: {held} namespaces where at most {cap} are allowed\n{out}");
        assert!(out.text().contains("No space left"), "{kind}: {out}");
        let other = rig.ok(&["exec", "102", &format!("unshare -{flag} echo made")]);
        assert_eq!(other.text().trim(), "made", "a neighbour is not affected: {other}");
        rig.ok(&["exec", "101", "kill -9 $(pidof sleep)"]);
    }
}
