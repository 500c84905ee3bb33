//! inittab(5), as far as it tells when a boot is done: sysvinit's and busybox's, which agree on what is needed here
//! (`id:runlevels:action:process`).

use super::booted::{Progress, last};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use vz_types::fact::Booted;

/// Prints the inittab, if there is one, and [`END`]: with nothing but a shell, because a busybox root may not have
/// linked its other programs yet.
pub(super) const READ: &[&str] = &[
    "sh",
    "-c",
    r#"[ -r /etc/inittab ] && while read -r l; do printf '%s\n' "$l"; done </etc/inittab; echo end-of-inittab"#,
];

/// The same where busybox is there and has no link `sh` yet.
pub(super) const READ_BY_BUSYBOX: &[&str] = &["busybox", READ[0], READ[1], READ[2]];

/// What comes after it: without it the answer is none.
pub(super) const END: &str = "end-of-inittab";

/// Actions whose process init starts once everything the runlevel waits for is done.
const LASTING: &[&str] = &["respawn", "askfirst"];

/// Actions whose process init waits for before it goes on.
const AWAITED: &[&str] = &["sysinit", "bootwait", "wait"];

/// What an init without an inittab respawns: busybox's shell on the console (its init.c).
const DEFAULT: &str = "sh";

/// How long nothing that an init waits for may be seen before its boot counts as done without a sign of it. Entries are
/// started one after the other with nothing between, so this is long.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// What an inittab says of the boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Programs that are respawned.
    respawned: Vec<String>,
    /// Programs that are waited for, with their plain arguments.
    awaited: Vec<Vec<String>>,
}

impl Table {
    /// From the text of an inittab, which may be empty.
    pub(super) fn of(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let mut any = false;
        let mut table = Self::default();
        for line in lines {
            let mut fields = line.splitn(4, ':').skip(2);
            let (Some(action), Some(process)) = (fields.next(), fields.next()) else { continue };
            any = true;
            // `+` and `@` are sysvinit's marks, `-` busybox's for a login shell.
            let process = process.trim().trim_start_matches(['+', '@', '-']);
            // What a shell makes of the rest is not known.
            let plain = |word: &&str| !word.contains(['\'', '"', '`', '$', '>', '<', '|', '&', ';', '(', '*', '?']);
            let words: Vec<String> = process.split_whitespace().take_while(plain).map(str::to_owned).collect();
            let Some(program) = words.first() else { continue };
            if LASTING.contains(&action.trim()) {
                table.respawned.push(program.clone());
            } else if AWAITED.contains(&action.trim()) {
                table.awaited.push(words);
            }
        }
        if !any {
            table.respawned.push(DEFAULT.into());
        }
        table
    }

    /// Whether something respawned is this child (as a script, it is an argument of its shell).
    fn respawns(&self, words: &[String]) -> bool {
        let is = |word: &String| self.respawned.iter().any(|program| same(word, program));
        words.iter().take(3).any(is)
    }

    /// Whether this child is something that init waits for.
    fn awaits(&self, words: &[String]) -> bool {
        let begins = |at: usize, entry: &[String]| {
            let mut pairs = words.iter().skip(at).zip(entry);
            words.len() >= at + entry.len()
                && pairs.next().is_some_and(|(w, e)| same(w, e))
                && pairs.all(|(w, e)| w == e)
        };
        self.awaited.iter().any(|entry| (0..3).any(|at| begins(at, entry)))
    }
}

/// Whether both name one program; a login shell's name begins with a dash.
fn same(word: &str, program: &str) -> bool {
    last(word.trim_start_matches('-')) == last(program)
}

/// PID 1 at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// Its words.
    pub(super) init: Vec<String>,
    /// Whether it sleeps, rather than runs or waits for the processor.
    pub(super) asleep: bool,
    /// The system call it is in: number and arguments. None while it runs, or where the kernel does not say.
    pub(super) call: Option<(i64, [u64; 6])>,
    /// Its children: pid and words; none of one that has ended and is not reaped yet.
    pub(super) children: Vec<(i32, Vec<String>)>,
}

impl Look {
    /// Whether a busybox is in the loop that it ends its boot in (init.c): nowhere else does it sleep, and nowhere else (in
    /// 1.33 and later) does it wait for any signal without end. x86_64's numbers.
    fn busybox_has_booted(&self) -> bool {
        const RT_SIGTIMEDWAIT: i64 = 128;
        const NANOSLEEP: i64 = 35;
        const CLOCK_NANOSLEEP: i64 = 230;
        match self.call {
            Some((RT_SIGTIMEDWAIT, [_, _, timeout, ..])) => timeout == 0,
            Some((call, _)) => matches!(call, NANOSLEEP | CLOCK_NANOSLEEP),
            None => false,
        }
    }
}

/// A boot that is looked at again and again.
#[derive(Debug)]
pub(super) struct Watch {
    init: String,
    busybox: bool,
    table: Table,
    /// Children that were seen to be waited for, which may have become another program since.
    awaited: BTreeSet<i32>,
    /// Since when nothing of the boot has been seen.
    quiet: Option<Instant>,
}

impl Watch {
    /// Of an init with this name and inittab.
    pub(super) fn new(init: &str, table: Table) -> Self {
        Self { init: init.to_owned(), busybox: init == "busybox", table, awaited: BTreeSet::new(), quiet: None }
    }

    /// How far the boot is, after one more look.
    pub(super) fn progress(&mut self, look: &Look, now: Instant) -> Progress {
        let well = || Progress::Booted(Booted::Well { init: "inittab".into() });
        if look.children.iter().any(|(_, words)| self.table.respawns(words))
            || (self.busybox && look.busybox_has_booted())
        {
            return well();
        }
        self.awaited.retain(|pid| look.children.iter().any(|(child, _)| child == pid));
        self.awaited.extend(look.children.iter().filter(|(_, words)| self.table.awaits(words)).map(|(pid, _)| *pid));
        let running = look.children.iter().find(|(pid, _)| self.awaited.contains(pid));
        // A child with init's own words has not become its program yet.
        let between = look.children.iter().any(|(_, words)| !words.is_empty() && *words == look.init);
        if running.is_some() || between || !look.asleep {
            self.quiet = None;
        }
        match running {
            Some((_, words)) => Progress::Underway(format!("waiting for {}", words.join(" "))),
            None if now.duration_since(*self.quiet.get_or_insert(now)) < QUIET => Progress::Underway("starting".into()),
            None if !look.asleep => Progress::Underway("starting".into()),
            None => Progress::Booted(Booted::Quiet { init: self.init.clone(), seconds: QUIET.as_secs() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(children: &[&str]) -> Look {
        let words = |c: &&str| c.split_whitespace().map(str::to_owned).collect();
        let children = children.iter().enumerate().map(|(n, c)| (10 + n as i32, words(c))).collect();
        Look { init: vec!["/sbin/init".into()], asleep: true, call: None, children }
    }

    fn booted(inittab: &str, children: &[&str]) -> bool {
        let progress = Watch::new("init", Table::of(inittab)).progress(&look(children), Instant::now());
        matches!(progress, Progress::Booted(Booted::Well { .. }))
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

    const ALPINE: &str = "::sysinit:/sbin/openrc sysinit\n::sysinit:/sbin/openrc boot\n::wait:/sbin/openrc default\n\
        tty1::respawn:/sbin/getty 38400 tty1\n::shutdown:/sbin/openrc shutdown\n";

    /// What is said after each look, one of them a second.
    fn said(init: &str, inittab: &str, looks: &[Look]) -> Vec<String> {
        let (mut watch, begun) = (Watch::new(init, Table::of(inittab)), Instant::now());
        let mut all = Vec::new();
        for (second, look) in looks.iter().enumerate() {
            all.push(match watch.progress(look, begun + Duration::from_secs(second as u64)) {
                Progress::Booted(Booted::Well { .. }) => "well".into(),
                Progress::Booted(Booted::Quiet { init, seconds }) => format!("{init} quiet {seconds}"),
                Progress::Underway(says) => says,
                _ => "?".into(),
            });
        }
        all
    }

    #[test]
    fn without_a_sign_of_it_a_boot_is_done_when_nothing_it_waits_for_was_seen_for_a_while() {
        let none = look(&[]);
        let boot = look(&["/sbin/openrc boot"]);
        let seen = [none.clone(), none.clone(), boot, none.clone(), none.clone(), none.clone()];
        let expected =
            ["starting", "starting", "waiting for /sbin/openrc boot", "starting", "starting", "busybox quiet 2"];
        assert_eq!(said("busybox", ALPINE, &seen), expected);
        // Without anything that lasts, the same; and a program without an inittab.
        assert_eq!(
            said("init", "::sysinit:/etc/rc\nnonsense\n", &[look(&["/bin/sh /etc/rc"]), none.clone()])[0],
            "waiting for /bin/sh /etc/rc"
        );
        assert_eq!(said("init", "", &[none.clone(), none.clone(), none.clone()])[2], "init quiet 2");
    }

    #[test]
    fn what_init_waits_for_stays_that_when_it_becomes_another_program() {
        let begun = look(&["/bin/sh /etc/rc"]);
        let became = look(&["/usr/bin/serve"]);
        let said =
            said("busybox", "::sysinit:/etc/rc\n", &[begun, became.clone(), became.clone(), became.clone(), became]);
        assert_eq!(said[4], "waiting for /usr/bin/serve");
    }

    #[test]
    fn an_init_that_runs_or_is_about_to_start_something_is_not_quiet() {
        let busy = Look { asleep: false, ..look(&[]) };
        let starts = look(&["/sbin/init"]);
        for seen in [busy, starts] {
            assert_eq!(said("init", ALPINE, &[seen.clone(), seen.clone(), seen.clone(), seen])[3], "starting");
        }
    }

    #[test]
    fn busybox_in_its_last_loop_has_run_all_it_waits_for() {
        // A daemon that an entry left behind looks as the entry did.
        let in_call =
            |number, timeout| Look { call: Some((number, [1, 0, timeout, 8, 0, 0])), ..look(&["/usr/sbin/crond"]) };
        let inittab = "::sysinit:/usr/sbin/crond\n";
        for ready in [in_call(128, 0), in_call(230, 1), in_call(35, 1)] {
            assert_eq!(said("busybox", inittab, std::slice::from_ref(&ready)), ["well"]);
            assert_eq!(said("init", inittab, &[ready]), ["waiting for /usr/sbin/crond"]);
        }
        // wait4, and a look for signals that are there already
        for not in [in_call(61, 0), in_call(128, 77)] {
            assert_eq!(said("busybox", inittab, &[not]), ["waiting for /usr/sbin/crond"]);
        }
    }

    #[test]
    fn an_entry_with_a_shell_is_told_from_other_shells() {
        let table = Table::of("::wait:/bin/sh -c 'one; two'\n::sysinit:/etc/rc >/dev/null\n");
        let awaits = |c: &str| table.awaits(&c.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert!(awaits("sh -c one"));
        assert!(awaits("/bin/sh /etc/rc"));
        assert!(!awaits("/bin/sh /usr/sbin/daemon"));
    }
}
