//! The inits that vz knows: one row each, with how one is recognised, asked to halt and seen to have booted. An init in
//! no row is stopped by running `poweroff` inside, and does not tell when it has booted.
//!
//! Sources: systemd(1) "SIGNALS"; openrc-init.c `signal_handler` (SIGTERM and SIGPWR shut down, SIGINT reboots); busybox
//! init.c (SIGUSR2 is poweroff); runit(8); sysvinit's init(8) and initreq.h.

use std::path::Path;

/// One init.
#[derive(Debug, PartialEq, Eq)]
pub struct Init {
    /// The word of recipes and manifests.
    pub word: &'static str,
    /// Last path component of PID 1's executable, which is asked each time: neither the template's word nor what the
    /// container was started with counts.
    pub names: &'static [&'static str],
    /// End of the path that a template's `/sbin/init` leads to.
    pub link: &'static str,
    /// How it is asked to halt.
    pub halt: Halt,
    /// How it shows that it has booted.
    pub booted: Booted,
}

/// How an init is asked to halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// `SIGRTMIN+n`.
    RealTime(i32),
    /// SIGTERM.
    Term,
    /// SIGUSR2.
    Usr2,
    /// Through its own files, from inside.
    Inside(Request),
}

/// A request to halt that is made with files of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A change to runlevel 0, written into sysvinit's control channel: the first of these that is one.
    Runlevel0(&'static [&'static str]),
    /// runit's stop file made executable, then SIGCONT: stop and reboot files, the first pair that is there.
    StopFile(&'static [(&'static str, &'static str)]),
}

/// How an init is asked whether it is done booting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Booted {
    /// `systemctl is-system-running`.
    Systemd,
    /// An init of inittab(5) starts what it respawns (the console's getty, as a rule) when all that the runlevel waits for
    /// is done: so one of those runs.
    Inittab,
    /// openrc-init opens its control channel after the default runlevel.
    Openrc,
    /// runit's second stage: `runsvdir` runs, and the services it supervises are up.
    Runit,
}

/// All of them.
pub const INITS: &[Init] = &[
    Init { word: "systemd", names: &["systemd"], link: "/systemd", halt: Halt::RealTime(3), booted: Booted::Systemd },
    Init { word: "busybox", names: &["busybox"], link: "/busybox", halt: Halt::Usr2, booted: Booted::Inittab },
    Init { word: "openrc", names: &["openrc-init"], link: "/openrc-init", halt: Halt::Term, booted: Booted::Openrc },
    Init {
        word: "runit",
        names: &["runit", "runit-init"],
        link: "/runit-init",
        // Debian's files, which are made at the end of its first stage, then runit's own.
        halt: Halt::Inside(Request::StopFile(&[
            ("/run/runit.stopit", "/run/runit.reboot"),
            ("/etc/runit/stopit", "/etc/runit/reboot"),
        ])),
        booted: Booted::Runit,
    },
    // Also OpenRC's services under sysvinit's init, as Debian has them.
    Init {
        word: "sysvinit",
        names: &["init"],
        link: "/sbin/init",
        // Today's place and the one before sysvinit 2.89.
        halt: Halt::Inside(Request::Runlevel0(&["/run/initctl", "/dev/initctl"])),
        booted: Booted::Inittab,
    },
];

/// The init whose executable this is. A package upgrade replaces the file of an init that runs on, which the kernel marks.
pub fn of_exe(exe: &Path) -> Option<&'static Init> {
    let name = exe.file_name()?.to_str()?.trim_end_matches(" (deleted)");
    INITS.iter().find(|i| i.names.contains(&name))
}

/// The init that a template's `/sbin/init` leads to.
pub fn of_link(resolved: &str) -> Option<&'static Init> {
    INITS.iter().find(|i| resolved.ends_with(i.link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_is_known_by_its_executable_and_by_the_links_end() {
        let by_exe = |exe: &str| of_exe(Path::new(exe)).map(|i| i.word);
        for (exe, word) in [
            ("/usr/lib/systemd/systemd", Some("systemd")),
            ("/usr/lib/systemd/systemd (deleted)", Some("systemd")),
            ("systemd", Some("systemd")),
            ("/usr/sbin/init", Some("sysvinit")),
            ("/usr/sbin/runit", Some("runit")),
            ("/usr/sbin/runit-init", Some("runit")),
            ("/bin/busybox", Some("busybox")),
            ("/usr/sbin/openrc-init", Some("openrc")),
            ("/usr/bin/dash", None),
            ("", None),
        ] {
            assert_eq!(by_exe(exe), word, "{exe}");
        }
        let by_link = |path: &str| of_link(path).map(|i| i.word);
        assert_eq!(by_link("/usr/lib/systemd/systemd"), Some("systemd"));
        assert_eq!(by_link("/usr/sbin/init"), Some("sysvinit"));
        assert_eq!(by_link("/opt/init"), None);
    }

    #[test]
    fn words_and_names_are_each_of_one_init() {
        for (i, one) in INITS.iter().enumerate() {
            for other in &INITS[i + 1..] {
                assert_ne!(one.word, other.word);
                assert!(!one.names.iter().any(|n| other.names.contains(n)), "{} {}", one.word, other.word);
            }
        }
    }
}
