//! The boot contract's acceptance list as data: one [`Line`] per promise, one [`Row`] per shipped init, and for
//! every line that does not apply to an init the reason. The suite `inits` runs what applies, natively and in the
//! virtual test host; [`page`] is `docs/reference/inits.md`.

use crate::template::Template;

/// A promise of the acceptance list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The init is PID 1 and reaches its default runlevel, which `start --wait` waits for.
    Boots,
    /// Nothing failed, in the init's own words.
    NothingFailed,
    /// No noise of udev, modprobe, hwclock, mounts and the like on the console or in the log.
    CleanLogs,
    /// A login prompt on the console, and a login there.
    Console,
    /// ssh with a key and with a password.
    Ssh,
    /// Host name, hosts, resolver, time zone.
    Names,
    /// Locale.
    Locale,
    /// `reboot` inside: same container, same addresses, a new boot id.
    Reboot,
    /// `shutdown -r now` inside.
    ShutdownReboots,
    /// `poweroff` inside: stopped, and it stays stopped.
    Poweroff,
    /// `halt` inside.
    Halt,
    /// `shutdown -h now` inside.
    ShutdownHalts,
    /// `vzctl stop` is graceful in at most 10 s, and asked while it is still booting it works too.
    Stop,
    /// Clones have machine ids and host keys of their own.
    Identity,
    /// cron runs.
    Cron,
    /// The log is written, and kept over a reboot.
    Logging,
    /// A daemon installed by the package manager runs, after a reboot too.
    Install,
    /// systemd's hardening directives do not keep a service from running.
    Hardening,
}

/// Every line, in the order of the page.
pub const LINES: &[(Line, &str)] = &[
    (Line::Boots, "init is PID 1, the default runlevel is reached and `start --wait` waits for it"),
    (Line::NothingFailed, "nothing failed, in the init's own words"),
    (Line::CleanLogs, "nothing about udev, modules, clocks or mounts on the console and in the log"),
    (Line::Console, "login prompt on the console, login there"),
    (Line::Ssh, "ssh in with a key and with a password"),
    (Line::Names, "host name, `/etc/hosts`, `/etc/resolv.conf`, time zone"),
    (Line::Locale, "locale"),
    (Line::Reboot, "`reboot` inside: same CT, same addresses, new boot id"),
    (Line::ShutdownReboots, "`shutdown -r now` inside reboots"),
    (Line::Poweroff, "`poweroff` inside: stopped, and it stays stopped"),
    (Line::Halt, "`halt` inside stops"),
    (Line::ShutdownHalts, "`shutdown -h now` inside stops"),
    (Line::Stop, "`vzctl stop` is graceful in at most 10 s, during the boot too"),
    (Line::Identity, "two clones have different machine ids and host keys"),
    (Line::Cron, "cron runs"),
    (Line::Logging, "logging runs, and the log survives a reboot"),
    (Line::Install, "a daemon installed with `apt-get` runs, after a reboot too"),
    (Line::Hardening, "a service with systemd's hardening directives runs"),
];

/// One init as it is shipped.
#[derive(Debug)]
pub struct Row {
    /// Its template.
    pub template: Template,
    /// What the page calls it.
    pub title: &'static str,
    /// What `/proc/1/exe` leads to inside.
    pub exe: &'static str,
    /// How vz asks it to halt, for the page.
    pub asked: &'static str,
    /// Prints what failed, nothing if all is well.
    pub failed: &'static str,
    /// The file that syslog writes to; none: the journal.
    pub log: Option<&'static str>,
    /// A file for a line of crontab(5), and what comes between the time and the command in it.
    pub crontab: (&'static str, &'static str),
    /// Lines that do not apply, each with the reason.
    pub not: &'static [(Line, &'static str)],
}

const SYSTEMD_FAILED: &str = "systemctl --failed --plain --no-legend";
/// Services that every shipped Debian has.
const SERVICES_DOWN: &str = "for s in ssh cron rsyslog; do service $s status >/dev/null 2>&1 || echo $s; done";
const DEBIAN_CRON: (&str, &str) = ("/etc/cron.d/proof", "root");
const NO_UNITS: (Line, &str) = (Line::Hardening, "this init has no unit files, so nothing reads such directives");

/// Every shipped init.
pub const ROWS: &[Row] = &[
    Row {
        template: Template::Debian12,
        title: "systemd 252",
        exe: "/usr/lib/systemd/systemd",
        asked: "SIGRTMIN+3",
        failed: SYSTEMD_FAILED,
        log: None,
        crontab: DEBIAN_CRON,
        not: &[],
    },
    Row {
        template: Template::Debian13,
        title: "systemd 257",
        exe: "/usr/lib/systemd/systemd",
        asked: "SIGRTMIN+3",
        failed: SYSTEMD_FAILED,
        log: None,
        crontab: DEBIAN_CRON,
        not: &[],
    },
    Row {
        template: Template::Sysvinit,
        title: "sysvinit 3.06",
        exe: "/usr/sbin/init",
        asked: "runlevel 0 through `/run/initctl`",
        failed: SERVICES_DOWN,
        log: Some("/var/log/syslog"),
        crontab: DEBIAN_CRON,
        not: &[NO_UNITS],
    },
    Row {
        template: Template::Openrc,
        title: "OpenRC 0.45 (under sysvinit's init, as Debian has it)",
        exe: "/usr/sbin/init",
        asked: "runlevel 0 through `/run/initctl`",
        // Debian's packages start and stop their services beside OpenRC, which knows of it from the next boot on.
        failed: "rc-status -C --crashed 2>/dev/null | grep -v -e '^Runlevel' -e Caching; \
            for s in ssh cron rsyslog; do service $s status >/dev/null 2>&1 || echo $s; done",
        log: Some("/var/log/syslog"),
        crontab: DEBIAN_CRON,
        not: &[NO_UNITS],
    },
    Row {
        template: Template::Runit,
        title: "runit 2.1.2",
        exe: "/usr/sbin/runit",
        asked: "stop file, then SIGCONT",
        failed: "sv status /etc/service/* | grep -v '^run: '",
        log: Some("/var/log/syslog"),
        crontab: DEBIAN_CRON,
        not: &[NO_UNITS],
    },
    Row {
        template: Template::Busybox,
        title: "busybox 1.35",
        exe: "/bin/busybox",
        asked: "SIGUSR2",
        failed: "for s in syslogd crond dropbear; do pidof $s >/dev/null || echo $s; done",
        log: Some("/var/log/messages"),
        crontab: ("/var/spool/cron/crontabs/root", ""),
        not: &[
            NO_UNITS,
            (Line::Install, "there is no package manager inside"),
            (Line::Locale, "busybox has no locales"),
            (Line::ShutdownReboots, "busybox has no `shutdown`; `reboot` is the word"),
            (Line::ShutdownHalts, "busybox has no `shutdown`; `poweroff` and `halt` are the words"),
        ],
    },
];

impl Row {
    /// Whether a line applies.
    pub fn has(&self, line: Line) -> bool {
        !self.not.iter().any(|(l, _)| *l == line)
    }

    /// The row of a template.
    ///
    /// # Panics
    /// If it is none that is shipped.
    pub fn of(template: Template) -> &'static Self {
        ROWS.iter().find(|r| r.template == template).expect("a shipped template")
    }
}

/// What the page has between the promises and the daemons.
const BEYOND: &str = include_str!("inits.md");

/// `docs/reference/inits.md`.
pub fn page() -> String {
    let mut text = String::from(
        "# Inits\n\nWhat a container's init promises, and where that is proven: the suite `inits` runs every line that applies to every \
         init natively (what is installed, cron, log and clones of the systemd ones: suite `boot`), and in the virtual test host \
         the whole list but for what is installed for the systemd of Debian 13 and for sysvinit. (Written by \
         `cargo xtask gen` from `tests/src/inits.rs`.)\n\n| template | PID 1 | how `vzctl stop` asks it |\n|---|---|---|\n",
    );
    for row in ROWS {
        text.push_str(&format!("| `{}` | {}: `{}` | {} |\n", row.template.name(), row.title, row.exe, row.asked));
    }
    text.push_str(
        "\nThe request follows what PID 1 really is (`/proc/PID/exe` of the host's view), not the template: a container whose \
         init was replaced is asked the new way at its next stop. `openrc-init` as PID 1 is asked with SIGTERM. An init that is \
         not ready for requests yet, because it is still starting, is asked as soon as it is. If half of the stop's time has \
         passed, `poweroff` is run inside; at its end everything is killed.\n\n| promise |",
    );
    for row in ROWS {
        text.push_str(&format!(" {} |", row.template.name()));
    }
    text.push_str(&format!("\n|---|{}\n", "---|".repeat(ROWS.len())));
    let mut notes: Vec<&str> = Vec::new();
    for (line, promise) in LINES {
        text.push_str(&format!("| {promise} |"));
        for row in ROWS {
            match row.not.iter().find(|(l, _)| l == line) {
                None => text.push_str(" yes |"),
                Some((_, reason)) => {
                    let at = notes.iter().position(|n| n == reason).unwrap_or_else(|| {
                        notes.push(reason);
                        notes.len() - 1
                    });
                    text.push_str(&format!(" no ({}) |", at + 1));
                }
            }
        }
        text.push('\n');
    }
    text.push('\n');
    for (n, note) in notes.iter().enumerate() {
        text.push_str(&format!("{}. Does not apply: {note}.\n", n + 1));
    }
    text.push_str(BEYOND);
    text.push_str(&crate::daemons::list().page());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_words_and_every_exception_a_reason() {
        for row in ROWS {
            for (line, reason) in row.not {
                assert!(LINES.iter().any(|(l, _)| l == line), "{line:?}");
                assert!(reason.len() > 10, "{}: {line:?}", row.title);
            }
        }
        assert!(page().contains("| `debian-12-runit` |"));
    }
}
