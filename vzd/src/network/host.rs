//! The host's own settings: forwarding, what our links may do, and its name servers. Settings are only ever
//! switched on, and only where they are not yet, so that nobody else's are disturbed.

use super::{NetworkError, links::Uplink};
use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

fn sysctl(key: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(key)
}

fn read(key: &str) -> Option<String> {
    std::fs::read_to_string(sysctl(key)).ok().map(|s| s.trim().to_owned())
}

fn write(key: &str, value: &str) -> Result<(), NetworkError> {
    std::fs::write(sysctl(key), value).map_err(|source| NetworkError::Io {
        what: "set",
        on: format!("net/{key}"),
        source,
    })
}

/// Writing `ip_forward` resets other settings of every link, so it is written only when it is off. A link that
/// got its addresses by router advertisements would stop taking them with forwarding on, unless it is told to
/// in so many words (2; ip-sysctl.rst).
pub(super) fn forward(uplinks: &[Uplink]) -> Result<(), NetworkError> {
    if read("ipv4/ip_forward").as_deref() != Some("1") {
        write("ipv4/ip_forward", "1")?;
    }
    // A kernel without IPv6 has none of these files.
    if read("ipv6/conf/all/forwarding").is_some_and(|v| v != "1") {
        for uplink in uplinks {
            let key = format!("ipv6/conf/{}/accept_ra", uplink.name);
            if read(&key).as_deref() == Some("1") {
                write(&key, "2")?;
            }
        }
        write("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Our end of a pair, before it is up: strict reverse path, no advertisements believed, no redirects, no
/// link-local address of its own making.
pub(super) fn prepare_link(name: &str) -> Result<(), NetworkError> {
    let settings: &[(&str, &str, &str)] = &[
        ("ipv4", "rp_filter", "1"),
        ("ipv4", "forwarding", "1"),
        ("ipv4", "send_redirects", "0"),
        ("ipv4", "accept_redirects", "0"),
        ("ipv6", "accept_ra", "0"),
        ("ipv6", "accept_redirects", "0"),
        ("ipv6", "addr_gen_mode", "1"),
        ("ipv6", "forwarding", "1"),
    ];
    for (family, key, value) in settings {
        let key = format!("{family}/conf/{name}/{key}");
        match write(&key, value) {
            Err(NetworkError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && *family == "ipv6" => {}
            r => r?,
        }
    }
    Ok(())
}

/// Has the kernel look at its proxy entries when somebody on an uplink asks for an IPv6 neighbour.
pub(super) fn proxy_ndp(uplink: &str) {
    let key = format!("ipv6/conf/{uplink}/proxy_ndp");
    if read(&key).as_deref() == Some("0") {
        if let Err(e) = write(&key, "1") {
            tracing::warn!(uplink, error = %e, "containers' IPv6 addresses will not be found on this uplink");
        }
    }
}

/// The name servers a resolver configuration names, without loopback ones: in a container those would be the
/// container itself. Where the host runs a local stub, the servers behind it are taken (systemd-resolved).
pub fn host_nameservers(resolv_conf: &Path) -> Vec<IpAddr> {
    let behind = Path::new("/run/systemd/resolve/resolv.conf");
    let own = parse(resolv_conf);
    if own.is_empty() && resolv_conf == Path::new("/etc/resolv.conf") { parse(behind) } else { own }
}

fn parse(path: &Path) -> Vec<IpAddr> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let mut out = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // A link-local server carries a zone (`fe80::1%eth0`), which means nothing in a container.
        if let Some(ip) = words.next().and_then(|w| w.parse::<IpAddr>().ok()) {
            if !ip.is_loopback() && !ip.is_unspecified() && !out.contains(&ip) {
                out.push(ip);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_scoped_name_servers_are_left_out() {
        let t = tempfile::tempdir().unwrap();
        let file = t.path().join("resolv.conf");
        std::fs::write(&file, "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1 # y\nnameserver 192.0.2.1\nsearch a b\n").unwrap();
        let all: Vec<String> = host_nameservers(&file).iter().map(IpAddr::to_string).collect();
        assert_eq!(all, ["192.0.2.1", "2001:db8::1"]);
        assert!(host_nameservers(Path::new("/nonexistent")).is_empty());
    }
}
