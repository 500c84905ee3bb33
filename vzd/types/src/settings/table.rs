//! The settings, one row each: the only place that knows what a setting is called, how it is written, checked and kept,
//! when it counts and who sees to it. A new one is a row here, its field in [`crate::CtConfig`] and the code that
//! reads that field.

use super::slot::{Addresses, Always, Every, Optional, Quota, Slot, Switched, at};
use crate::ExitCode;

/// One row of the table.
pub struct Setting {
    /// Its option, and its name in the API and in vzlist.
    pub name: &'static str,
    /// Other spellings of the option.
    pub aliases: &'static [&'static str],
    /// What follows the option.
    pub value: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// One line for the API's document.
    pub api: &'static str,
    /// Its field in the API where that is not its name.
    pub sent: Option<&'static str>,
    /// A value it takes on the command line.
    pub example: &'static str,
    /// See [`How`].
    pub how: How,
    /// What `vzctl` exits with when the value is bad.
    pub code: ExitCode,
    /// See [`Applies`].
    pub applies: Applies,
    /// See [`Room`].
    pub room: Room,
    /// What people should know besides; empty: nothing to add.
    pub remark: &'static str,
    /// Its fields in vzlist.
    pub columns: &'static [Column],
    /// Where the configuration keeps it; none: it is done inside at once and kept nowhere.
    pub slot: Option<&'static dyn Slot>,
}

/// How a value is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// One value.
    One,
    /// One value; an empty one removes what is set.
    OneOrNone,
    /// A list; it replaces all there was, and an empty one removes it.
    All,
    /// A list; it is added to what there is.
    Adds,
    /// A list; it is removed from what there is.
    Removes,
    /// Names to switch on or off; the others stay as they are.
    Switches,
}

impl How {
    /// Whether the option can be given several times.
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Self::One | Self::OneOrNone)
    }

    /// Whether its field in the API is null, not empty, when nothing is to change.
    pub fn is_nullable(self) -> bool {
        matches!(self, Self::One | Self::OneOrNone | Self::All)
    }

    /// The words in the documentation.
    pub fn words(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::OneOrNone => "one; '' removes it",
            Self::All => "repeatable, replaces all; '' removes all",
            Self::Adds => "repeatable, adds",
            Self::Removes => "repeatable, removes",
            Self::Switches => "repeatable, others stay",
        }
    }
}

/// When a new value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At once in a running container.
    Live,
    /// At the container's next start.
    NextStart,
    /// From when it is saved; a running container has no part in it.
    Saved,
    /// At once inside, in a stopped container as well; nothing is saved.
    AtOnce,
}

impl Applies {
    /// Each with its words in the documentation and what they mean.
    pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Live, "live", "at once in a running container; with `--save` at its next start too"),
        (Self::NextStart, "next start", "at its next start; with `--setmode restart` it is restarted for it"),
        (Self::Saved, "when saved", "a running container has no part in it, so it needs `--save`"),
        (Self::AtOnce, "at once, never saved", "files inside are edited, in a stopped container as well"),
    ];

    /// The words in the documentation.
    pub fn words(self) -> &'static str {
        Self::ALL.iter().find(|(a, ..)| *a == self).map_or("", |(_, words, _)| words)
    }
}

/// Who sees to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The configuration and the inventory.
    Config,
    /// Addresses, routes and filter rules.
    Network,
    /// The container's cgroup and what stands in for it.
    Limits,
    /// The container's layer and its quota.
    Storage,
    /// Files and names inside, changed by its monitor.
    Inside,
    /// The start of the container or of the host.
    Boot,
}

impl Room {
    /// Each with its word in the documentation and what it means.
    pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Config, "config", "the configuration and the inventory"),
        (Self::Network, "network", "addresses, routes and filter rules"),
        (Self::Limits, "limits", "the container's cgroup and what stands in for it"),
        (Self::Storage, "storage", "the container's layer and its quota"),
        (Self::Inside, "inside", "files and names inside, changed by its monitor"),
        (Self::Boot, "boot", "the start of the container or of the host"),
    ];

    /// The word in the documentation.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(r, ..)| *r == self).map_or("", |(_, word, _)| word)
    }
}

/// A field of vzlist.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// As `-o` takes it.
    pub name: &'static str,
    /// As the header shows it.
    pub header: &'static str,
    /// Columns; negative: left-aligned.
    pub width: i16,
    /// The field before it.
    pub after: &'static str,
    /// See [`Part`].
    pub part: Part,
}

/// What a field shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The value; of a quota, its use.
    Value,
    /// The soft limit of a quota.
    Soft,
    /// The hard limit of a quota.
    Hard,
}

const fn column(name: &'static str, header: &'static str, width: i16, after: &'static str) -> Column {
    Column { name, header, width, after, part: Part::Value }
}

/// What most rows have in common.
const ROW: Setting = Setting {
    name: "",
    aliases: &[],
    value: "",
    help: "",
    api: "",
    sent: None,
    example: "",
    how: How::One,
    code: ExitCode::BadValue,
    applies: Applies::Saved,
    room: Room::Config,
    remark: "",
    columns: &[],
    slot: None,
};

/// Passwords inside, which vzctl may ask for.
pub const USERPASSWD: Setting = Setting {
    name: "userpasswd",
    value: "USER[:PASSWORD]",
    help: "Change a user's password inside now; asked for, or read from standard input, where it is left out or is -",
    api: "`user:password`, changed inside at once and never saved.",
    example: "root:secret",
    how: How::Adds,
    applies: Applies::AtOnce,
    room: Room::Inside,
    remark: "exit code 74 when it cannot be changed",
    ..ROW
};

/// Public keys inside, which vzctl may read from a file.
pub const SSHKEY: Setting = Setting {
    name: "sshkey",
    aliases: &["sshkeys", "ssh-key", "ssh-keys"],
    value: "[USER:]KEY|FILE",
    help: "Add a public key, or those of a file, to a user's authorized_keys now; the user is root unless prefixed",
    api: "Keys for a user's authorized_keys, added inside at once.",
    sent: Some("sshkeys"),
    example: "bob:/root/bob.pub",
    how: How::Adds,
    applies: Applies::AtOnce,
    room: Room::Inside,
    ..ROW
};

/// Whom keys are for.
pub const SSHUSER: Setting = Setting {
    name: "sshuser",
    value: "USER",
    help: "User of every --sshkey without a prefix",
    sent: Some("sshkeys"),
    example: "bob",
    applies: Applies::AtOnce,
    room: Room::Inside,
    ..ROW
};

/// Every setting, in the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "onboot",
        value: "yes|no",
        help: "Start it when the host has booted",
        api: "Start at host boot.",
        example: "yes",
        room: Room::Boot,
        columns: &[column("onboot", "ONBOOT", 6, "unenforced")],
        slot: Some(&Optional(at!(onboot))),
        ..ROW
    },
    Setting {
        name: "bootorder",
        value: "N",
        help: "Higher ones boot first, equal ones together",
        api: "Higher first.",
        example: "7",
        room: Room::Boot,
        columns: &[column("bootorder", "BOOTORDER", 10, "onboot")],
        slot: Some(&Optional(at!(bootorder))),
        ..ROW
    },
    Setting {
        name: "name",
        value: "NAME",
        help: "A name that can stand for the CTID; '' removes it",
        api: "New name; empty removes it.",
        example: "web1",
        how: How::OneOrNone,
        code: ExitCode::SetName,
        remark: "unique on the host",
        columns: &[column("name", "NAME", -32, "hostname")],
        slot: Some(&Optional(at!(name))),
        ..ROW
    },
    Setting {
        name: "description",
        value: "TEXT",
        help: "One line of free text; '' removes it",
        api: "New description; empty removes it.",
        example: "it serves",
        how: How::OneOrNone,
        columns: &[column("description", "DESCRIPTION", -32, "smart_name")],
        slot: Some(&Optional(at!(description))),
        ..ROW
    },
    Setting {
        name: "disabled",
        value: "yes|no",
        help: "Refuse to start",
        api: "Refuse to start.",
        example: "yes",
        room: Room::Boot,
        columns: &[column("disabled", "DISABL", 6, "vswap")],
        slot: Some(&Always(at!(disabled))),
        ..ROW
    },
    Setting {
        name: "hostname",
        value: "NAME",
        help: "Host name inside",
        api: "Host name inside.",
        example: "web1.example.org",
        code: ExitCode::BadHostname,
        applies: Applies::Live,
        room: Room::Inside,
        columns: &[column("hostname", "HOSTNAME", -32, "root")],
        slot: Some(&Optional(at!(hostname))),
        ..ROW
    },
    Setting {
        name: "nameserver",
        value: "ADDRESS|inherit",
        help: "Name server, or inherit for the host's; repeatable, replaces all",
        api: "Name servers (replace all); `inherit`.",
        example: "192.0.2.53",
        how: How::All,
        code: ExitCode::BadDns,
        applies: Applies::Live,
        room: Room::Inside,
        columns: &[column("nameserver", "NAMESERVER", -15, "ip")],
        slot: Some(&Every(at!(network.nameserver))),
        ..ROW
    },
    Setting {
        name: "searchdomain",
        value: "DOMAIN",
        help: "Search domain; repeatable, replaces all",
        api: "Search domains (replace all).",
        example: "example.org",
        how: How::All,
        code: ExitCode::BadDns,
        applies: Applies::Live,
        room: Room::Inside,
        columns: &[column("searchdomain", "SEARCHDOMAIN", -32, "nameserver")],
        slot: Some(&Every(at!(network.searchdomain))),
        ..ROW
    },
    USERPASSWD,
    SSHKEY,
    SSHUSER,
    Setting {
        name: "ipadd",
        value: "ADDRESS",
        help: "Add an IPv4 or IPv6 address; repeatable",
        api: "Addresses to add.",
        example: "192.0.2.7",
        how: How::Adds,
        code: ExitCode::BadIp,
        applies: Applies::Live,
        room: Room::Network,
        remark: "exit code 78 when somebody else has it",
        slot: Some(&Addresses::Added),
        ..ROW
    },
    Setting {
        name: "ipdel",
        value: "ADDRESS|all",
        help: "Remove an address, or all, before adding; repeatable",
        api: "Addresses to remove, or `all`. Removal comes before addition.",
        example: "all",
        how: How::Removes,
        code: ExitCode::BadIp,
        applies: Applies::Live,
        room: Room::Network,
        slot: Some(&Addresses::Removed),
        ..ROW
    },
    Setting {
        name: "diskspace",
        value: "SIZE",
        help: "Space of its own files, like 10G; a bare number is KiB",
        api: "Space of the writable layer (`10G`).",
        example: "20G",
        applies: Applies::Live,
        room: Room::Storage,
        remark: "larger at once where the host allows it; never below what is in use; in the API and in the file a bare \
            number is bytes",
        columns: &[
            column("diskspace", "DQBLOCKS", 10, "swappages.f"),
            Column { part: Part::Soft, ..column("diskspace.s", "DQBLOCKS.S", 10, "diskspace") },
            Column { part: Part::Hard, ..column("diskspace.h", "DQBLOCKS.H", 10, "diskspace.s") },
        ],
        slot: Some(&Quota(Always(at!(disk.space)))),
        ..ROW
    },
    Setting {
        name: "diskinodes",
        value: "N",
        help: "Inodes of its own files",
        api: "Inodes of the writable layer.",
        example: "1000000",
        applies: Applies::Live,
        room: Room::Storage,
        remark: "as with the space",
        columns: &[
            column("diskinodes", "DQINODES", 10, "diskspace.h"),
            Column { part: Part::Soft, ..column("diskinodes.s", "DQINODES.S", 10, "diskinodes") },
            Column { part: Part::Hard, ..column("diskinodes.h", "DQINODES.H", 10, "diskinodes.s") },
        ],
        slot: Some(&Quota(Always(at!(disk.inodes)))),
        ..ROW
    },
    Setting {
        name: "features",
        value: "NAME:on|off[,...]",
        help: "Open or close kernel surfaces: nesting, tun, fuse, netns, keyctl, io_uring, bpf, xfrm, socketcall",
        api: "Features: name to on/off.",
        example: "nesting:on",
        how: How::Switches,
        applies: Applies::NextStart,
        room: Room::Boot,
        columns: &[column("features", "FEATURES", -15, "layout")],
        slot: Some(&Switched(at!(features))),
        ..ROW
    },
    Setting {
        name: "ids",
        value: "N",
        help: "User and group ids it has, from 0 on: a multiple of 65536, 65536 without it; it can only grow",
        api: "How many user and group ids it has, from 0 on: a multiple of 65536. It can only grow.",
        example: "131072",
        applies: Applies::NextStart,
        room: Room::Boot,
        remark: "for users above 65535 (LDAP, AD) and containers' own subordinate ids; the further ranges are claimed at \
            the next start",
        columns: &[column("ids", "IDS", 10, "uid_base")],
        slot: Some(&Always(at!(ids))),
        ..ROW
    },
];
