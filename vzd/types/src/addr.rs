//! Addresses a container may own, and name servers.

use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// One address of a container: a unicast IPv4 or IPv6 address, always a whole host (/32 or /128).
/// Never loopback, unspecified, multicast, broadcast, IPv4-mapped or link-local.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CtAddr(IpAddr);

/// Why an address was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddrError {
    /// Not an address at all.
    #[error("`{0}` is not an IPv4 or IPv6 address")]
    Syntax(String),
    /// A prefix length other than a whole host.
    #[error("`{0}`: a venet address is one host; leave the prefix out, or write /32 (IPv4) or /128 (IPv6)")]
    Prefix(String),
    /// An address no container can own.
    #[error("`{0}` cannot be a CT's address: it is {1}")]
    Kind(IpAddr, &'static str),
}

impl CtAddr {
    /// The address.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// 32 for IPv4, 128 for IPv6.
    pub fn prefix(self) -> u8 {
        if self.0.is_ipv4() { 32 } else { 128 }
    }
}

impl TryFrom<IpAddr> for CtAddr {
    type Error = AddrError;
    fn try_from(ip: IpAddr) -> Result<Self, AddrError> {
        let kind = match ip {
            _ if ip.is_loopback() => Some("a loopback address"),
            _ if ip.is_unspecified() => Some("the unspecified address"),
            _ if ip.is_multicast() => Some("a multicast address"),
            IpAddr::V4(a) if a.is_broadcast() => Some("the broadcast address"),
            IpAddr::V4(a) if a.is_link_local() => Some("a link-local address"),
            IpAddr::V4(a) if a.octets()[0] == 0 => Some("in 0.0.0.0/8"),
            IpAddr::V4(a) if a.octets()[0] >= 240 => Some("in the reserved range 240.0.0.0/4"),
            IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
            IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80 => Some("a link-local address"),
            _ => None,
        };
        match kind {
            Some(kind) => Err(AddrError::Kind(ip, kind)),
            None => Ok(Self(ip)),
        }
    }
}

impl FromStr for CtAddr {
    type Err = AddrError;
    fn from_str(s: &str) -> Result<Self, AddrError> {
        let short = || s.chars().take(64).collect::<String>();
        let (host, prefix) = match s.split_once('/') {
            Some((h, p)) => (h, Some(p)),
            None => (s, None),
        };
        let ip: IpAddr = host.parse().map_err(|_| AddrError::Syntax(short()))?;
        let addr = Self::try_from(ip)?;
        match prefix {
            Some(p) if p.parse() != Ok(addr.prefix()) => Err(AddrError::Prefix(short())),
            _ => Ok(addr),
        }
    }
}

impl TryFrom<String> for CtAddr {
    type Error = AddrError;
    fn try_from(s: String) -> Result<Self, AddrError> {
        s.parse()
    }
}

impl From<CtAddr> for String {
    fn from(a: CtAddr) -> String {
        a.0.to_string()
    }
}

impl fmt::Display for CtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name server of a container: an address, or the host's own ones at the time of each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Nameserver {
    /// Copy what the host's `/etc/resolv.conf` names, without loopback addresses.
    Inherit,
    /// This server.
    At(IpAddr),
}

impl FromStr for Nameserver {
    type Err = AddrError;
    fn from_str(s: &str) -> Result<Self, AddrError> {
        if s == "inherit" {
            return Ok(Self::Inherit);
        }
        let ip: IpAddr = s.parse().map_err(|_| AddrError::Syntax(s.chars().take(64).collect()))?;
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(AddrError::Kind(ip, "no name server's address"));
        }
        Ok(Self::At(ip))
    }
}

impl TryFrom<String> for Nameserver {
    type Error = AddrError;
    fn try_from(s: String) -> Result<Self, AddrError> {
        s.parse()
    }
}

impl From<Nameserver> for String {
    fn from(n: Nameserver) -> String {
        n.to_string()
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit => f.write_str("inherit"),
            Self::At(ip) => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_unicast_hosts_are_accepted() {
        for good in ["10.0.0.2", "10.0.0.2/32", "fd00::2", "fd00::2/128", "192.0.2.7"] {
            assert!(good.parse::<CtAddr>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.2/24",
            "fd00::2/64",
            "127.0.0.1",
            "::1",
            "224.0.0.1",
            "fe80::1",
            "0.0.0.0",
            "255.255.255.255",
            "::ffff:10.0.0.1",
            "10.0.0.2/32/32",
            "010.0.0.1",
            "all",
        ] {
            assert!(bad.parse::<CtAddr>().is_err(), "{bad}");
        }
    }
}
