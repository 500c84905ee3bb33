//! `vzd man`: vzd.8, from the definitions the command line is parsed with and what people must know beside them.

use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// Sections after the options: title, then paragraphs; a paragraph is a term and its text.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "RUNNING AS A SERVICE",
        &[
            (
                "vzd.service",
                "The daemon. Stopping, killing, restarting or upgrading it disturbs no container: each is the child of a \
                 monitor of its own, vzmon, in a cgroup that is not the service's. exec, enter, console, status and a \
                 reboot from inside need no vzd; a new one finds what runs.",
            ),
            (
                "vz.service",
                "The containers as one. Stopping it stops them all gracefully and side by side, which systemd does when the \
                 host shuts down, before it takes vzd, the network and the disks away. Starting it starts those again \
                 that it has stopped. Containers with onboot = true are started by vzd when the host has booted.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "It was asked to end, and has finished what was under way."),
            ("3", "It could not run. systemd starts it again."),
            (
                "85",
                "It cannot run until somebody does something: vz.toml cannot be read, or the inventory is damaged, missing \
                 or written by a later version of vz. The message says what to do. systemd does not try again; containers \
                 that run keep running.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("VZ_ROOT", "Everything of this manager is below it, as with --root."),
            ("VZ_LOG", "What to log, as with --log."),
            ("VZ_RECIPES", "One more directory with recipes of OS templates."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/etc/vz/vz.toml",
                "Settings of this host, each with its default and its meaning beside it. Read at start.",
            ),
            ("/etc/vz/conf/CTID.toml", "What the operator wants of one container."),
            ("/etc/vz/templates/", "The operator's own recipes; they win over /usr/share/vz/templates/."),
            ("/var/lib/vz/inventory.db", "Which containers exist, their claims, and the journal of operations."),
            ("/var/lib/vz/private/CTID/", "A container's own files."),
            ("/var/lib/vz/template/NAME/", "A built OS template."),
            ("/run/vz/vzd.sock", "The API: root and members of the group vz."),
            ("/run/vz/ct/CTID/", "What runs now: the monitor's record, socket and console log."),
        ],
    ),
];

/// The page, as troff.
///
/// # Errors
/// It cannot be written to memory.
pub fn page(command: clap::Command) -> anyhow::Result<String> {
    let man = Man::new(command.disable_help_subcommand(true)).section("8");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    for (title, paragraphs) in SECTIONS {
        let mut roff = Roff::default();
        roff.control("SH", [*title]);
        for (term, text) in *paragraphs {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*text)]);
        }
        roff.to_writer(&mut out)?;
    }
    let mut roff = Roff::default();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("vzctl"), roman("(8), "), bold("vzlist"), roman("(8)")]);
    roff.to_writer(&mut out)?;
    Ok(String::from_utf8(out)?)
}
