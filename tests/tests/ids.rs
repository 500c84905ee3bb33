//! Ids above 65535: `--ids`, for users of LDAP and AD and for the subordinate ids of containers inside.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{collections::BTreeSet, fs};
use vz_tests::{Rig, template::Template::Tiny};
use vz_types::ExitCode::{BadValue, Running};

/// The outside ids in the map of a container's init: where each line begins.
fn ranges(rig: &Rig, ctid: u32) -> Vec<(u32, u32, u32)> {
    let map = fs::read_to_string(format!("/proc/{}/uid_map", rig.record(ctid).init.pid)).unwrap();
    let number = |w: &str| w.parse().unwrap();
    let line = |l: &str| {
        let w: Vec<u32> = l.split_whitespace().map(number).collect();
        (w[0], w[1], w[2])
    };
    map.lines().map(line).collect()
}

#[test]
fn a_user_above_65535_logs_in_and_owns_files_and_they_stay_his() {
    let rig = Rig::new(&[Tiny]);
    for bad in ["0", "1", "100000", "65535", "99999999", "many"] {
        rig.refused(&["create", "101", "--ostemplate", "tiny", "--ids", bad], BadValue, "65536");
    }
    rig.create(101, Tiny, &["--ids", "131072"]);
    rig.create(102, Tiny, &[]);
    rig.create(103, Tiny, &["--ids", "196608", "--features", "nesting:on"]);
    for ctid in ["101", "102", "103"] {
        rig.ok(&["start", ctid]);
    }
    let all: Vec<_> = [101, 102, 103].iter().flat_map(|c| ranges(&rig, *c)).collect();
    assert_eq!(all.iter().map(|r| r.2).sum::<u32>(), 131_072 + 65_536 + 196_608, "{all:?}");
    // What anna has in /etc/subuid inside, 100000:65536, lies within one extent.
    assert!(ranges(&rig, 103).iter().any(|r| r.0 <= 100_000 && r.0 + r.2 >= 165_536), "{all:?}");
    let apart = |all: &[(u32, u32, u32)]| {
        let ids: BTreeSet<u32> = all.iter().flat_map(|r| (r.1..r.1 + r.2).step_by(65_536)).collect();
        assert_eq!(ids.len() as u32 * 65_536, all.iter().map(|r| r.2).sum::<u32>(), "no two have the same: {all:?}");
        ids
    };
    apart(&all);
    // As newuidmap writes it for her.
    let map = "unshare -U sleep 60 >/dev/null 2>&1 & p=$!; for n in 1 2 3 4 5 6 7 8 9; do \
               echo '0 100000 65536' 2>/dev/null >/proc/$p/uid_map && break; sleep 1; done; cat /proc/$p/uid_map; kill $p";
    let mapped = rig.inside(103, map);
    assert_eq!(mapped.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"], "{mapped}");
    rig.inside(
        101,
        "echo 'far:x:70000:70000::/root:/bin/sh' >>/etc/passwd; echo far:x:70000: >>/etc/group; mkdir -p /srv; cd /srv; \
         touch a b; chown 100000:100000 a; chown far:far b; ln -s x l; chown -h 131071 l",
    );
    let owners = "cd /srv; stat -c %u:%g a b; stat -c %u l; su far -c 'id -u; touch /tmp/far; stat -c %u /tmp/far'";
    let want = "100000:100000\n70000:70000\n131071\n70000\n70000";
    assert_eq!(rig.inside(101, owners), want);
    // Neither outside its ranges, nor without.
    assert_ne!(rig.vzctl(&["exec2", "101", "chown 131072 /srv/a"]).code(), 0);
    assert_ne!(rig.vzctl(&["exec2", "102", "touch /x; chown 65536 /x"]).code(), 0);
    assert_eq!(rig.inside(101, "cat /proc/sys/net/ipv4/ping_group_range").split_whitespace().next(), Some("0"));
    // Over a reboot from inside, a restart of vzd, a stop and a start, and a change by the monitor of a stopped one.
    let before = ranges(&rig, 101);
    rig.kill_vzd();
    rig.start_vzd(&[]);
    assert_eq!(rig.inside(101, owners), want);
    rig.ok(&["restart", "101"]);
    assert_eq!((rig.inside(101, owners).as_str(), ranges(&rig, 101)), (want, before.clone()));
    assert_eq!(rig.vzlist(&["-H", "-o", "ids", "101"]).text(), "131072");
    assert_eq!(rig.vzlist(&["-H", "-o", "ids", "102"]).text(), "65536");
    let conf = fs::read_to_string(rig.paths.conf(101.try_into().unwrap())).unwrap();
    assert!(conf.contains("ids = 131072"), "{conf}");
    // It grows while it is stopped, keeps what it has, and never shrinks.
    rig.refused(&["set", "101", "--ids", "196608", "--save"], Running, "ids");
    rig.ok(&["stop", "101", "--fast"]);
    rig.refused(&["set", "101", "--ids", "65536", "--save"], BadValue, "only grow");
    rig.ok(&["mount", "101"]);
    rig.ok(&["set", "101", "--ids", "196608", "--hostname", "far.example.org", "--save"]);
    rig.ok(&["start", "101"]);
    assert_eq!(ranges(&rig, 101)[0].1, before[0].1);
    assert_eq!(rig.inside(101, owners), want);
    rig.inside(101, "touch /srv/c && chown 196607 /srv/c");
    let outside = apart(&[101, 102, 103].iter().flat_map(|c| ranges(&rig, *c)).collect::<Vec<_>>());
    assert_eq!(outside.len(), 7, "{outside:?}");
    // What is shown on the host of a stopped one has the same owners.
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["mount", "101"]);
    let shown = rig.paths.root(101.try_into().unwrap()).join("srv/c");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(shown).unwrap());
    rig.ok(&["umount", "101"]);
    assert!(outside.contains(&(owner & !0xffff)) && owner & 0xffff == 0xffff, "{owner}");
    // A lost inventory finds the ranges beside the files, and another gets none of them.
    rig.ok(&["stop", "102", "--fast"]);
    rig.ok(&["stop", "103", "--fast"]);
    let ct_json = fs::read_to_string(rig.paths.private(101.try_into().unwrap()).join("ct.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&ct_json).unwrap();
    assert_eq!(kept["uid_more"].as_array().unwrap().len(), 2, "{kept}");
    // What was destroyed is free again.
    rig.ok(&["destroy", "103"]);
    rig.create(104, Tiny, &["--ids", "131072"]);
    rig.ok(&["start", "104"]);
    rig.ok(&["start", "101"]);
    apart(&[101, 104].iter().flat_map(|c| ranges(&rig, *c)).collect::<Vec<_>>());
}
