//! One manager: where its files are ([`Paths`]) and what `vz.toml` says ([`ManagerConfig`]). Everything
//! of a manager hangs off one root, and every name it puts into a namespace it shares with other
//! managers (cgroups, links, nft tables) carries its [`Paths::tag`].

use crate::{Bytes, Ctid, TemplateName};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a manager keeps its things, from one root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// The root; `/` on a production host.
    pub base: PathBuf,
}

impl Paths {
    /// A manager below `base`, which must be absolute.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }
    /// `/etc/vz`.
    pub fn etc(&self) -> PathBuf {
        self.base.join("etc/vz")
    }
    /// `/etc/vz/vz.toml`.
    pub fn manager_config(&self) -> PathBuf {
        self.etc().join("vz.toml")
    }
    /// `/etc/vz/conf`.
    pub fn conf_dir(&self) -> PathBuf {
        self.etc().join("conf")
    }
    /// `/etc/vz/conf/<CTID>.toml`.
    pub fn conf(&self, ctid: Ctid) -> PathBuf {
        self.conf_dir().join(format!("{ctid}.toml"))
    }
    /// `/etc/vz/conf/<CTID>.toml.destroyed`: what destroy leaves.
    pub fn conf_destroyed(&self, ctid: Ctid) -> PathBuf {
        self.conf_dir().join(format!("{ctid}.toml.destroyed"))
    }
    /// `/etc/vz/templates`: the operator's own recipes; they win over the installed ones.
    pub fn recipe_dir(&self) -> PathBuf {
        self.etc().join("templates")
    }
    /// `/var/lib/vz`.
    pub fn var(&self) -> PathBuf {
        self.base.join("var/lib/vz")
    }
    /// `/var/lib/vz/inventory.db`.
    pub fn inventory(&self) -> PathBuf {
        self.var().join("inventory.db")
    }
    /// `/var/lib/vz/private`, mode 0700: parents of private areas.
    pub fn private_dir(&self) -> PathBuf {
        self.var().join("private")
    }
    /// `/var/lib/vz/private/<CTID>`.
    pub fn private(&self, ctid: Ctid) -> PathBuf {
        self.private_dir().join(ctid.to_string())
    }
    /// `/var/lib/vz/root`, mode 0700: parents of mounted roots.
    pub fn root_dir(&self) -> PathBuf {
        self.var().join("root")
    }
    /// `/var/lib/vz/root/<CTID>`: where a mounted container's files are seen on the host.
    pub fn root(&self, ctid: Ctid) -> PathBuf {
        self.root_dir().join(ctid.to_string())
    }
    /// `/var/lib/vz/trash`: destroyed private areas on their way out.
    pub fn trash_dir(&self) -> PathBuf {
        self.var().join("trash")
    }
    /// `/var/lib/vz/template`.
    pub fn template_dir(&self) -> PathBuf {
        self.var().join("template")
    }
    /// `/var/lib/vz/template/<NAME>`: `root/` with the files and `manifest.json` with the digest.
    pub fn template(&self, name: &TemplateName) -> PathBuf {
        self.template_dir().join(name.as_str())
    }
    /// `/run/vz`.
    pub fn run(&self) -> PathBuf {
        self.base.join("run/vz")
    }
    /// `/run/vz/vzd.sock`: the API.
    pub fn socket(&self) -> PathBuf {
        self.run().join("vzd.sock")
    }
    /// `/run/vz/vzd.lock`: held by the one vzd of this root.
    pub fn lock(&self) -> PathBuf {
        self.run().join("vzd.lock")
    }
    /// `/run/vz/ct`.
    pub fn ct_run_dir(&self) -> PathBuf {
        self.run().join("ct")
    }
    /// `/run/vz/ct/<CTID>`: what runs now, written by its monitor.
    pub fn ct_run(&self, ctid: Ctid) -> PathBuf {
        self.ct_run_dir().join(ctid.to_string())
    }
    /// `/run/vz/user_beancounters`: the classic text of every running container.
    pub fn user_beancounters(&self) -> PathBuf {
        self.run().join("user_beancounters")
    }
    /// `/run/vz/bc`.
    pub fn bc_dir(&self) -> PathBuf {
        self.run().join("bc")
    }
    /// `/run/vz/bc/<CTID>`: the filesystem with the classic files of one container, its own `/run/vz`.
    pub fn bc(&self, ctid: Ctid) -> PathBuf {
        self.bc_dir().join(ctid.to_string())
    }
    /// `/etc/vz/samples`: the operator's own sample configurations, `ct-NAME.toml`.
    pub fn sample_dir(&self) -> PathBuf {
        self.etc().join("samples")
    }
    /// `/var/log/vz`.
    pub fn log_dir(&self) -> PathBuf {
        self.base.join("var/log/vz")
    }

    /// Empty for the host's own manager (root `/`); three lower-case letters derived from the root
    /// for every other, so that several managers share one kernel without meeting.
    pub fn tag(&self) -> String {
        if self.base == Path::new("/") {
            return String::new();
        }
        let mut h = self.hash();
        (0..3)
            .map(|_| {
                let c = b'a' + (h % 26) as u8;
                h /= 26;
                c as char
            })
            .collect()
    }

    /// FNV-1a of the root: the same for the same root on every run of every version.
    fn hash(&self) -> u64 {
        self.base
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Where this manager starts looking for a free uid range, so that managers side by side rarely share one.
    pub fn first_uid_slot(&self) -> u32 {
        if self.base == Path::new("/") { 0 } else { (self.hash() % u64::from(crate::UidBase::SLOTS)) as u32 }
    }

    /// Name of our cgroup below the cgroup root: `vz`, or `vz-<tag>`.
    pub fn cgroup_name(&self) -> String {
        match self.tag().as_str() {
            "" => "vz".into(),
            tag => format!("vz-{tag}"),
        }
    }

    /// Name of our nft tables: `vz`, or `vz_<tag>`.
    pub fn nft_table(&self) -> String {
        match self.tag().as_str() {
            "" => "vz".into(),
            tag => format!("vz_{tag}"),
        }
    }

    /// Prefix of every host-side link name: `vz`, or `vz<tag>`.
    pub fn link_prefix(&self) -> String {
        format!("vz{}", self.tag())
    }

    /// Host-side name of a container's venet link: at most 15 characters (IFNAMSIZ - 1).
    pub fn link(&self, ctid: Ctid) -> String {
        format!("{}{ctid}", self.link_prefix())
    }
}

/// `/etc/vz/vz.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManagerConfig {
    /// Defaults for new containers.
    pub defaults: Defaults,
    /// The host's side of the network.
    pub network: HostNetwork,
    /// What to do about limits this host cannot enforce.
    pub limits: Limits,
    /// How long is remembered what was done and what happened.
    pub history: History,
    /// Where recipes are looked for, after `/etc/vz/templates`. Empty: the installed directory.
    pub recipe_dirs: Vec<PathBuf>,
    /// Where the cgroup2 hierarchy is mounted. Absent: found in `/proc/self/mountinfo`.
    pub cgroup_root: Option<PathBuf>,
    /// The vzmon program. Absent: beside vzd, then `/usr/libexec/vz/vzmon`.
    pub vzmon: Option<PathBuf>,
}

/// `[defaults]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// OS template of a new container whose `create` names none. Absent: it has to name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ostemplate: Option<TemplateName>,
    /// Space of a new writable layer.
    pub diskspace: Bytes,
    /// Inodes of a new writable layer.
    pub diskinodes: u64,
    /// Seconds to wait for a graceful stop: 1..=3600.
    pub stop_timeout: u32,
    /// Name servers of a container that names none.
    pub nameserver: Vec<crate::addr::Nameserver>,
    /// Size of each container's console log: 4K..=16M.
    pub console_log: Bytes,
}

impl Default for Defaults {
    fn default() -> Self {
        let disk = crate::config::DiskConfig::default();
        Self {
            ostemplate: None,
            diskspace: disk.space,
            diskinodes: disk.inodes,
            stop_timeout: 120,
            nameserver: vec![crate::addr::Nameserver::Inherit],
            console_log: Bytes(256 << 10),
        }
    }
}

/// `[network]` of vz.toml.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostNetwork {
    /// Sources in these ranges leave the host under its own address. Prefixes like `10.0.0.0/8`.
    pub masquerade: Vec<String>,
    /// Links on which the host answers ARP and ND for containers. Empty: those with a default route.
    pub uplinks: Vec<String>,
}

impl Default for HostNetwork {
    fn default() -> Self {
        Self {
            masquerade: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]
                .map(String::from)
                .into(),
            uplinks: Vec::new(),
        }
    }
}

/// `[history]` of vz.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Days that ended operations and events are kept: 1..=36500.
    #[serde(deserialize_with = "days")]
    pub days: u32,
}

/// None of them would be no history at all, and many read 0 as "for ever".
fn days<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let days = u32::deserialize(d)?;
    match days {
        1..=36_500 => Ok(days),
        _ => Err(serde::de::Error::custom(format!("days: {days} is outside 1..36500"))),
    }
}

impl Default for History {
    fn default() -> Self {
        Self { days: 90 }
    }
}

/// `[limits]` of vz.toml.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A requested limit that this host cannot enforce: refuse to start, or start and say so.
    pub unenforceable: Unenforceable,
    /// Start containers although their guarantees (oomguarpages) add up to more memory than the host has.
    pub oversell_guarantees: bool,
    /// Memory that is never promised to containers.
    pub reserve: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Self { unenforceable: Unenforceable::default(), oversell_guarantees: false, reserve: Bytes(256 << 20) }
    }
}

/// See [`Limits::unenforceable`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unenforceable {
    /// Do not start.
    #[default]
    Refuse,
    /// Start, say so, and show the counter as unenforced.
    Warn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_for_the_largest_ctid() {
        let ctid = Ctid::try_from(Ctid::MAX).unwrap();
        assert_eq!(Paths::new("/").link(ctid), "vz2147483644");
        assert!(Paths::new("/tmp/a").link(ctid).len() <= 15);
        assert_ne!(Paths::new("/tmp/a").tag(), Paths::new("/tmp/b").tag());
    }
}
