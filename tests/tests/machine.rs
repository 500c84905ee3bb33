//! What an init finds when it begins: a machine. Software that works on one because of it works here.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{collections::BTreeSet, fs};
use vz_tests::{
    Rig,
    template::Template::{self, Debian12, Debian13},
};

/// Mounts that are private where a machine's are shared: credentials vanish, services with a view of their own miss what
/// is mounted later, and whoever asks for `rshared` is refused.
fn credentials_arrive_and_services_see_what_is_mounted_later(template: Template) {
    let rig = Rig::new(&[template]);
    rig.create(101, template, &["--hostname", "web"]);
    rig.ok(&["start", "101", "--wait"]);
    for who in ["", "-p DynamicUser=yes", "-p User=nobody"] {
        let line = format!(
            "systemd-run --wait --pipe -q {who} -p LoadCredential=foo:/etc/hostname sh -c 'cat $CREDENTIALS_DIRECTORY/foo'"
        );
        assert_eq!(rig.inside(101, &line), "web", "{who}");
    }
    rig.inside(
        101,
        "systemd-run -q -u watcher -p PrivateTmp=yes -p ProtectSystem=strict -p RemainAfterExit=yes \
           timeout 20 sh -c 'until [ -e /mnt/later ]; do sleep 0.05; done'
         timeout 10 sh -c 'until [ -n \"$(pgrep -f mnt/later)\" ]; do sleep 0.05; done'
         mount -t tmpfs late /mnt && touch /mnt/later",
    );
    let ended = "timeout 30 sh -c 'until [ $(systemctl show -P SubState watcher) != running ]; do sleep 0.1; done'";
    rig.inside(101, ended);
    assert_eq!(rig.inside(101, "systemctl show -P SubState watcher"), "exited", "the service saw the mount");
    assert_eq!(rig.inside(101, "for at in / /run /dev /mnt; do findmnt -no PROPAGATION $at; done | sort -u"), "shared");
    // In peer groups of its own: those of the host's mounts are others.
    let groups = |of: &str| -> BTreeSet<String> {
        let table = fs::read_to_string(format!("/proc/{of}/mountinfo")).unwrap();
        let tags = table.split_whitespace().filter_map(|w| w.strip_prefix("shared:").or(w.strip_prefix("master:")));
        tags.map(str::to_owned).collect()
    };
    let (ours, theirs) = (groups(&rig.record(101).init.pid.to_string()), groups("self"));
    assert!(!ours.is_empty() && ours.is_disjoint(&theirs), "{ours:?} {theirs:?}");
    assert!(ours.is_disjoint(&groups(&rig.record(101).monitor.pid.to_string())), "{ours:?}");
    // It is so at every boot.
    rig.ok(&["restart", "101", "--fast"]);
    assert_eq!(rig.inside(101, "findmnt -no PROPAGATION /"), "shared");
}

#[test]
fn credentials_arrive_and_services_see_what_is_mounted_later_debian_12() {
    credentials_arrive_and_services_see_what_is_mounted_later(Debian12);
}

#[test]
fn credentials_arrive_and_services_see_what_is_mounted_later_debian_13() {
    credentials_arrive_and_services_see_what_is_mounted_later(Debian13);
}
