//! inittab(5), as far as it tells when a boot is done: sysvinit's and busybox's, which agree on what is needed here
//! (`id:runlevels:action:process`).

use super::booted::{Progress, last};
use vz_types::fact::Booted;

/// Prints the inittab, if there is one, and [`END`]: with nothing but a shell, because a busybox root may not have
/// linked its other programs yet.
pub(super) const READ: &[&str] = &[
    "sh",
    "-c",
    r#"[ -r /etc/inittab ] && while read -r l; do printf '%s\n' "$l"; done </etc/inittab; echo end-of-inittab"#,
];

/// What comes after it: without it the answer is none.
pub(super) const END: &str = "end-of-inittab";

/// Actions whose process init starts once everything the runlevel waits for is done.
const LASTING: &[&str] = &["respawn", "askfirst"];

/// What an init without an inittab respawns: busybox's shell on the console (its init.c).
const DEFAULT: &str = "sh";

/// The programs of an inittab that are respawned.
pub(super) fn respawned(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let mut any = false;
    let mut programs = Vec::new();
    for line in lines {
        let mut fields = line.splitn(4, ':').skip(2);
        let (Some(action), Some(process)) = (fields.next(), fields.next()) else { continue };
        any = true;
        if LASTING.contains(&action.trim()) {
            // `+` and `@` are sysvinit's marks, `-` busybox's for a login shell.
            let program = process.split_whitespace().next().unwrap_or_default().trim_start_matches(['+', '@', '-']);
            if !program.is_empty() {
                programs.push(program.to_owned());
            }
        }
    }
    if !any {
        programs.push(DEFAULT.into());
    }
    programs
}

/// Whether one of those is among init's children (as a script, it is an argument of its shell).
pub(super) fn progress(init: &str, respawned: &[String], children: &[Vec<String>]) -> Progress {
    if respawned.is_empty() {
        return Progress::Booted(Booted::Untold { init: init.to_owned() });
    }
    let is = |word: &String| respawned.iter().any(|program| last(word.trim_start_matches('-')) == last(program));
    match children.iter().any(|words| words.iter().take(3).any(is)) {
        true => Progress::Booted(Booted::Well { init: "inittab".into() }),
        false => Progress::Underway("starting".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booted(inittab: &str, children: &[&str]) -> bool {
        let children: Vec<Vec<String>> =
            children.iter().map(|c| c.split_whitespace().map(str::to_owned).collect()).collect();
        matches!(progress("init", &respawned(inittab), &children), Progress::Booted(_))
    }

    #[test]
    fn a_boot_is_done_when_something_respawned_runs() {
        let debian = "# co:2345:respawn:/bin/none\nid:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n\
            l2:2:wait:/etc/init.d/rc 2\nco:2345:respawn:/sbin/getty --noclear console 38400\n";
        assert!(!booted(debian, &["/bin/sh /etc/init.d/rc 2", "/usr/sbin/cron"]));
        assert!(booted(debian, &["/usr/sbin/cron", "/sbin/getty --noclear console 38400"]));
        let busybox = "::sysinit:/etc/rc\n::askfirst:-/bin/sh\n";
        assert!(!booted(busybox, &["/bin/ash /etc/rc"]));
        assert!(booted(busybox, &["-/bin/sh"]));
        assert!(booted("::respawn:/etc/serve it\n", &["/bin/sh /etc/serve it"]), "a script");
        assert!(booted("", &["-/bin/sh"]), "busybox without an inittab");
    }

    #[test]
    fn an_inittab_that_respawns_nothing_is_not_waited_for() {
        assert!(booted("::sysinit:/etc/rc\nnonsense\n", &[]));
    }
}
