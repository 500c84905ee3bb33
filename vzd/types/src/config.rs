//! What the operator wants of one container: `/etc/vz/conf/<CTID>.toml`. Unknown keys are refused;
//! editing keeps comments (that happens in vzd, with toml_edit; this is the meaning of the file).

use crate::{
    Bytes, CtAddr, CtName, Hostname, IdCount, TemplateName,
    addr::Nameserver,
    limits::{CpuConfig, IoConfig, LimitsConfig},
    names::SearchDomain,
};
use serde::{Deserialize, Serialize};

/// One container's configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtConfig {
    /// The OS template the container was made from.
    pub ostemplate: TemplateName,
    /// How its files are stored.
    #[serde(default)]
    pub layout: Layout,
    /// The operator's name for it, unique on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<CtName>,
    /// Free text, one line, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Host name set inside at each start. Absent: `ct<CTID>`, which a template's own /etc/hostname overrides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// Start when the host has booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onboot: Option<bool>,
    /// Higher starts first at boot; equal ones start together (as in vzctl: default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootorder: Option<u32>,
    /// Refuse to start unless forced.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Optional kernel features granted to the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// Seconds to wait for a graceful stop before killing: 1..=3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u32>,
    /// How many user and group ids it has, from 0 on.
    #[serde(default, skip_serializing_if = "IdCount::is_default")]
    pub ids: IdCount,
    /// Addresses and name resolution.
    #[serde(default, skip_serializing_if = "NetworkConfig::is_empty")]
    pub network: NetworkConfig,
    /// Disk limits.
    #[serde(default)]
    pub disk: DiskConfig,
    /// Beancounters.
    #[serde(default, skip_serializing_if = "LimitsConfig::is_empty")]
    pub limits: LimitsConfig,
    /// Processor time.
    #[serde(default, skip_serializing_if = "CpuConfig::is_empty")]
    pub cpu: CpuConfig,
    /// Disk bandwidth.
    #[serde(default, skip_serializing_if = "IoConfig::is_empty")]
    pub io: IoConfig,
}

fn is_false(b: &bool) -> bool {
    !*b
}

impl CtConfig {
    /// A container of this template, with nothing said besides.
    pub fn new(ostemplate: TemplateName) -> Self {
        Self {
            ostemplate,
            layout: Layout::default(),
            name: None,
            description: None,
            hostname: None,
            onboot: None,
            bootorder: None,
            disabled: false,
            features: Vec::new(),
            stop_timeout: None,
            ids: IdCount::default(),
            network: NetworkConfig::default(),
            disk: DiskConfig::default(),
            limits: LimitsConfig::default(),
            cpu: CpuConfig::default(),
            io: IoConfig::default(),
        }
    }
}

/// `[network]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The container's own addresses on venet0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<CtAddr>,
    /// Name servers; `inherit` copies the host's. Empty: the container's resolv.conf is left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameserver: Vec<Nameserver>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub searchdomain: Vec<SearchDomain>,
}

impl NetworkConfig {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `[disk]`: both hold from the first byte, whatever the host's filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskConfig {
    /// Space of the writable layer: 64M..=64T.
    pub space: Bytes,
    /// Inodes of the writable layer: 1024..=4294967295.
    pub inodes: u64,
}

impl Default for DiskConfig {
    /// 10 GiB and 655360 inodes, the figures of OpenVZ's `basic` sample scaled to today's roots.
    fn default() -> Self {
        Self { space: Bytes(10 << 30), inodes: 655_360 }
    }
}

impl DiskConfig {
    /// Smallest space an ext4 writable layer with a journal is made with.
    pub const MIN_SPACE: Bytes = Bytes(64 << 20);
    /// Largest space.
    pub const MAX_SPACE: Bytes = Bytes(64 << 40);
    /// Fewest inodes.
    pub const MIN_INODES: u64 = 1024;
    /// Most inodes (32 bits in ext4).
    pub const MAX_INODES: u64 = u32::MAX as u64;
}

/// How a container's files are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Template as shared read-only lower, the container's own writable layer on top.
    #[default]
    Overlay,
}

impl std::str::FromStr for Layout {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "overlay" => Ok(Self::Overlay),
            _ => Err(format!("layout `{s}` is not known here; use `overlay`")),
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
        })
    }
}

/// A kernel surface that is closed unless the operator opens it for one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// New user, pid, ipc, uts, cgroup and time namespaces inside, and what containers inside need besides
    /// ([`crate::policy::FEATURE_DEVICES`], [`crate::policy::uncovered`]).
    Nesting,
    /// The kernel key retention calls.
    Keyctl,
    /// io_uring.
    #[serde(rename = "io_uring")]
    IoUring,
    /// The bpf call (still unprivileged).
    Bpf,
    /// NETLINK_XFRM sockets (IPsec).
    Xfrm,
    /// The i386 socket multiplexer, for 32-bit programs built for old kernels; what it does escapes the filter.
    Socketcall,
    /// `/dev/net/tun`: links whose other end is a program (VPNs).
    Tun,
    /// `/dev/fuse`: filesystems that are programs.
    Fuse,
    /// Network namespaces with names, as `ip netns exec` enters them ([`crate::policy::uncovered`]).
    Netns,
}

impl Feature {
    /// Every feature with its word on the command line.
    pub const ALL: &'static [(Feature, &'static str)] = &[
        (Feature::Nesting, "nesting"),
        (Feature::Keyctl, "keyctl"),
        (Feature::IoUring, "io_uring"),
        (Feature::Bpf, "bpf"),
        (Feature::Xfrm, "xfrm"),
        (Feature::Socketcall, "socketcall"),
        (Feature::Tun, "tun"),
        (Feature::Fuse, "fuse"),
        (Feature::Netns, "netns"),
    ];
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = Self::ALL.iter().find(|(feature, _)| feature == self).map_or("", |(_, word)| word);
        f.write_str(word)
    }
}

impl std::str::FromStr for Feature {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.iter().find(|(_, word)| *word == s).map(|(feature, _)| *feature).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(_, word)| *word).collect();
            let shown: String = s.chars().take(40).collect();
            format!("there is no feature `{shown}`; there are {}", known.join(", "))
        })
    }
}

/// Free text of one line, at most 256 characters, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Description(String);

impl Description {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Description {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        if s.chars().count() > 256 {
            Err("a description has at most 256 characters".into())
        } else if s.chars().any(char::is_control) {
            Err("a description is one line without control characters".into())
        } else {
            Ok(Self(s))
        }
    }
}

impl std::str::FromStr for Description {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::try_from(s.to_owned())
    }
}

impl std::fmt::Display for Description {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Description> for String {
    fn from(d: Description) -> String {
        d.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_by_name() {
        let e = toml::from_str::<CtConfig>("ostemplate = 'debian-12'\nonbot = true\n").unwrap_err().to_string();
        assert!(e.contains("onbot"), "{e}");
        let e = toml::from_str::<CtConfig>("ostemplate = 'debian-12'\nonboot = 'perhaps'\n").unwrap_err().to_string();
        assert!(e.contains("onboot"), "{e}");
    }

    #[test]
    fn a_config_round_trips() {
        let text = "ostemplate = 'debian-12'\nname = 'web1'\nonboot = true\n[network]\nip = ['10.0.0.2', 'fd00::2']\nnameserver = ['inherit']\n[disk]\nspace = '2.5G'\ninodes = 4096\n";
        let c: CtConfig = toml::from_str(text).unwrap();
        let again: CtConfig = toml::from_str(&toml::to_string(&c).unwrap()).unwrap();
        assert_eq!(c, again);
        assert_eq!(c.disk.space, Bytes(5 << 29));
    }
}
