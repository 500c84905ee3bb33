//! The writable layer: limits that hold from the first byte, `df` that shows them, a shared template nobody can
//! write to, nothing usable on the host, nothing left after destroy.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{fs, os::unix::fs::MetadataExt};
use vz_tests::{Rig, census, template::Template::Tiny};

fn running(options: &[&str]) -> Rig {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, options);
    rig.ok(&["start", "101"]);
    rig
}

/// (size, used, free) in KiB and (inodes) of / inside.
fn df(rig: &Rig) -> (u64, u64, u64) {
    let line = rig.inside(101, "df -k / | tail -1");
    let n: Vec<u64> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    (n[0], n[1], n[2])
}

#[test]
fn diskspace_holds_from_the_first_byte_and_df_shows_it() {
    let rig = running(&["--diskspace", "128M"]);
    let (size, _, free) = df(&rig);
    assert!((100 << 10..=128 << 10).contains(&size), "df says {size} KiB for a quota of 128M");
    assert!(free <= size);
    let out = rig
        .vzctl(&["exec2", "101", "dd if=/dev/zero of=/big bs=1M count=300 2>&1; ls -l /big | awk '{print $5}'"])
        .ok();
    // The one where the limit is an image's size, the other where it is a quota.
    assert!(["No space left", "Disk quota exceeded"].iter().any(|e| out.stdout.contains(e)), "{out}");
    let written: u64 = out.stdout.lines().last().and_then(|l| l.trim().parse().ok()).unwrap();
    assert!(written <= 128 << 20, "{written} bytes fit into 128M");
    assert!(written >= 90 << 20, "only {written} bytes of 128M can be used");
    // The host stores no more than that either.
    let image = fs::metadata(rig.paths.private_dir().join("101/disk.img"));
    if let Ok(image) = image {
        assert!(image.blocks() * 512 <= (128 << 20) + (4 << 20), "{} bytes on the host", image.blocks() * 512);
    }
    rig.inside(101, "rm /big");
    let listed = rig.vzlist(&["-j"]).ok().json();
    let figure = &listed[0]["diskspace"];
    assert!(figure["hardlimit"].as_u64().is_some_and(|l| l > 0) && figure["usage"].is_u64(), "{listed}");
}

#[test]
fn diskinodes_hold() {
    let rig = running(&["--diskspace", "128M", "--diskinodes", "2048"]);
    let out = rig.inside(
        101,
        "mkdir /many; i=0; while [ $i -lt 4000 ] && true >/many/$i; do i=$((i+1)); done 2>/dev/null; echo $i",
    );
    let made: u64 = out.lines().last().unwrap_or_default().parse().unwrap();
    assert!((1800..=2048).contains(&made), "{made} files could be made under a limit of 2048 inodes");
    rig.inside(101, "rm -rf /many; : >/again");
}

/// Whether we may grow a mounted filesystem: CAP_SYS_RESOURCE (24) is in the effective set.
fn may_grow_mounted() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or_default();
    u64::from_str_radix(caps.trim(), 16).unwrap() & (1 << 24) != 0
}

#[test]
fn the_quota_can_be_changed_and_never_below_what_is_used() {
    let rig = running(&["--diskspace", "128M"]);
    let before = df(&rig).0;
    let grow = ["set", "101", "--diskspace", "256M", "--save"];
    if may_grow_mounted() {
        rig.ok(&grow);
    } else {
        // This machine's root may not: said with the remedy, and nothing changed.
        let out = rig.vzctl(&grow);
        assert!(out.code() != 0 && out.stderr.contains("CAP_SYS_RESOURCE") && out.stderr.contains("stop"), "{out}");
        assert_eq!(df(&rig).0, before);
        rig.ok(&["stop", "101", "--fast"]);
        rig.ok(&grow);
        rig.ok(&["start", "101"]);
    }
    let after = df(&rig).0;
    assert!(after > before + (90 << 10), "{before} KiB, then {after} KiB");
    rig.inside(101, "dd if=/dev/zero of=/big bs=1M count=150 2>/dev/null");
    let out = rig.vzctl(&["set", "101", "--diskspace", "64M", "--save"]);
    assert_ne!(out.code(), 0, "less than is in use: {out}");
    assert!(out.stderr.chars().any(|c| c.is_ascii_digit()), "the refusal names the figure: {out}");
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["start", "101"]);
    assert_eq!(df(&rig).0, after);
}

#[test]
fn what_is_written_survives_and_the_template_stays_as_it_was() {
    let rig = running(&[]);
    let template = rig.paths.template_dir().join("tiny/current/root");
    let before = fs::read(template.join("etc/os-release")).unwrap();
    rig.inside(101, "echo changed >/etc/os-release; rm /etc/hosts; ln /bin/busybox /root/hard; chown 1000:1000 /root/hard; mkdir /d; mv /home /d; sync");
    rig.ok(&["restart", "101", "--fast"]);
    assert_eq!(
        rig.inside(
            101,
            "cat /etc/os-release; ls /etc/hosts 2>&1 | tail -c 10; ls -ln /root/hard | awk '{print $3}'; ls /d"
        ),
        "changed\ndirectory\n1000\nhome"
    );
    assert_eq!(fs::read(template.join("etc/os-release")).unwrap(), before);
    assert!(template.join("etc/hosts").exists());
}

#[test]
fn files_on_the_host_can_neither_be_reached_nor_used_by_others() {
    let rig = running(&[]);
    rig.inside(101, "cp /bin/busybox /root/suid; chmod 4755 /root/suid");
    for dir in [rig.paths.private_dir(), rig.paths.root_dir()] {
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700, "{}", dir.display());
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let base = rig.paths.var().display().to_string();
    let ours: Vec<&str> = table
        .lines()
        .filter(|l| {
            l.split(' ')
                .nth(4)
                .is_some_and(|m| m.starts_with(&base) && (m.contains("/private/") || m.contains("/root/")))
        })
        .collect();
    assert!(!ours.is_empty());
    for line in ours {
        let options = line.split(' ').nth(5).unwrap_or_default();
        assert!(options.split(',').any(|o| o == "nosuid") && options.split(',').any(|o| o == "nodev"), "{line}");
    }
    // Inside, set-uid works as on a machine.
    let inside = rig.inside(101, "grep ' / ' /proc/mounts");
    assert!(!inside.split(' ').nth(3).unwrap_or_default().split(',').any(|o| o == "nosuid"), "{inside}");
}

#[test]
fn on_disk_the_ids_start_at_0_and_inside_they_do_too() {
    let rig = running(&[]);
    rig.inside(101, "touch /root/mine; touch /theirs; chown 1000 /theirs; sync");
    assert_eq!(rig.inside(101, "stat -c %u /root/mine /theirs"), "0\n1000");
    let upper = rig.paths.private_dir().join("101/rw/upper");
    assert_eq!(fs::metadata(upper.join("root/mine")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(upper.join("theirs")).unwrap().uid(), 1000);
    // Seen through the idmapped root they are the container's.
    let base = u32::from(rig.record(101).uid_base);
    assert_eq!(fs::metadata(rig.paths.root_dir().join("101/theirs")).unwrap().uid(), base + 1000);
}

#[test]
fn the_overlay_is_one_that_can_be_checkpointed() {
    let rig = running(&[]);
    let mounts = rig.inside(101, "grep ' / ' /proc/mounts");
    let options = mounts.split(' ').nth(3).unwrap_or_default();
    for option in ["index=on", "nfs_export=on"] {
        assert!(options.split(',').any(|o| o == option), "{option}: {mounts}");
    }
}

#[test]
fn renaming_a_directory_that_came_with_the_template_is_no_cross_device_link() {
    let rig = running(&[]);
    // A program that gets EXDEV copies instead, and then it is another inode.
    let moved = "mkdir -p /opt; for p in '/etc /opt/etc' '/opt/etc /opt/etc2' '/opt/etc2 /etc' '/usr /opt/usr'; do set -- $p; \
                 before=$(stat -c %i $1); mv $1 $2; [ ! -e $1 ] && [ $(stat -c %i $2) = $before ] && echo $2; done";
    assert_eq!(rig.inside(101, moved), "/opt/etc\n/opt/etc2\n/etc\n/opt/usr");
    let template = rig.paths.template_dir().join("tiny/current/root");
    // What is made where it was begins empty, and all of it is so after a reboot, a restart and on the host.
    rig.inside(101, "mkdir /usr; echo new >/opt/usr/bin/new; sync");
    for again in ["", "restart"] {
        if !again.is_empty() {
            rig.ok(&["restart", "101", "--fast"]);
        }
        assert_eq!(rig.inside(101, "ls -A /usr"), "", "{again}");
        assert_eq!(rig.inside(101, "ls -A /opt/usr /opt/usr/bin"), "/opt/usr:\nbin\n\n/opt/usr/bin:\nnew", "{again}");
        assert_eq!(
            rig.inside(101, "cat /etc/os-release /opt/usr/bin/new"),
            format!("{}new", fs::read_to_string(template.join("etc/os-release")).unwrap())
        );
    }
    assert!(template.join("usr/bin").is_dir() && !template.join("opt").exists());
    // Where its other half is stands in an attribute that nobody inside can write.
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["mount", "101"]);
    let upper = rig.paths.private_dir().join("101/rw/upper/opt/usr");
    let mut value = [0; 64];
    let n = rustix::fs::getxattr(&upper, "trusted.overlay.redirect", &mut value).unwrap();
    assert_eq!(&value[..n], b"/usr");
    // Forged, by whoever could, it leads nowhere out of the template.
    for forged in ["/../../../../etc", "../../etc", "/", "/etc/../.."] {
        rustix::fs::setxattr(&upper, "trusted.overlay.redirect", forged.as_bytes(), rustix::fs::XattrFlags::empty())
            .unwrap();
        rig.ok(&["umount", "101"]);
        rig.ok(&["mount", "101"]);
        let there = fs::read_dir(rig.paths.root_dir().join("101/opt/usr"));
        assert!(there.is_err(), "{forged}");
    }
    rig.ok(&["umount", "101"]);
}

#[test]
fn destroy_leaves_neither_files_nor_mounts_nor_loop_devices() {
    let rig = running(&[]);
    rig.inside(101, "mkdir -p /a/b/c; : >/a/b/c/d; chattr +i /a/b/c/d 2>/dev/null; true");
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["destroy", "101"]);
    assert!(!rig.paths.private_dir().join("101").exists());
    assert!(!rig.paths.root_dir().join("101").exists());
    assert_eq!(census::loops(&rig.paths.base), Vec::<String>::new());
    assert_eq!(census::mounts(&rig.paths), Vec::<String>::new());
    // What waits in the trash goes by itself.
    let trash = rig.paths.trash_dir();
    let empty = || fs::read_dir(&trash).map_or(true, |mut d| d.next().is_none()).then_some(());
    let gone = if trash.exists() {
        vz_tests::wait::in_dir(&trash, std::time::Duration::from_secs(20), empty).unwrap()
    } else {
        Some(())
    };
    assert!(gone.is_some(), "the trash still holds something");
}

#[test]
fn ten_starts_and_stops_leave_vzd_with_the_descriptors_it_had() {
    let rig = running(&["--ipadd", "10.99.0.1"]);
    rig.ok(&["stop", "101", "--fast"]);
    let before = census::descriptors(rig.vzd_pid());
    let held = rig.census();
    for _ in 0..10 {
        rig.ok(&["start", "101"]);
        rig.ok(&["stop", "101", "--fast"]);
    }
    rig.assert_census(&held, "after ten starts and stops");
    let after = census::descriptors(rig.vzd_pid());
    assert!(after.len() <= before.len() + 2, "before:\n{}\nafter:\n{}", before.join("\n"), after.join("\n"));
}

/// A filesystem of its own on a directory, until dropped.
struct Apart(std::path::PathBuf);

impl Apart {
    fn new(dir: std::path::PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        rustix::mount::mount("tmpfs", &dir, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"mode=0700")).unwrap();
        Self(dir)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// One life, with nothing left in any place.
fn a_life(rig: &Rig, where_: &str) {
    rig.create(101, Tiny, &["--name", "apart", "--ipadd", "10.99.0.1"]);
    rig.ok(&["start", "101"]);
    rig.ok(&["set", "101", "--hostname", "there", "--save"]);
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["mount", "101"]);
    rig.ok(&["umount", "101"]);
    rig.ok(&["destroy", "101"]);
    let private = rig.paths.private_dir();
    let near = private.join(".trash");
    let left = |dir: &std::path::Path| fs::read_dir(dir).map_or(0, |d| d.count());
    let empty = || (left(&rig.paths.trash_dir()) + left(&near) == 0).then_some(());
    let watched = if near.exists() { near.clone() } else { rig.paths.trash_dir() };
    assert!(vz_tests::wait::in_dir(&watched, std::time::Duration::from_secs(20), empty).unwrap().is_some(), "{where_}");
    let names: Vec<_> = fs::read_dir(&private).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| n == ".trash"), "{where_}: {names:?}");
}

#[test]
fn a_container_is_destroyed_wherever_the_operator_has_mounted_something_apart() {
    let rig = Rig::stopped(&[Tiny]);
    let p = &rig.paths;
    let places = [
        p.private_dir(),
        p.trash_dir(),
        p.var().join("cache"),
        p.root_dir(),
        p.conf_dir(),
        p.ct_run_dir(),
        p.log_dir(),
    ];
    for place in places {
        let apart = Apart::new(place.clone());
        rig.start_vzd(&[]);
        let where_ = place.display().to_string();
        a_life(&rig, &where_);
        rig.create(101, Tiny, &[]);
        rig.kill_vzd();
        rig.start_vzd(&[]);
        rig.ok(&["destroy", "101"]);
        rig.stop_vzd();
        drop(apart);
    }
    // All of them at once.
    let apart = [p.private_dir(), p.trash_dir(), p.root_dir(), p.conf_dir(), p.log_dir()].map(Apart::new);
    rig.start_vzd(&[]);
    a_life(&rig, "all of them");
    rig.stop_vzd();
    drop(apart);
    rig.start_vzd(&[]);
}
