//! The inside of a container's network, set up anew at every boot by vzmon: `lo`, `venet0` with exactly the
//! container's addresses and a link-local one, and a link-scope default route. Runs in the container's network namespace, in a
//! single-threaded process, so that a reboot from inside needs nobody else.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsRawFd,
};
use vz_sys::netlink::{
    Netlink,
    core::{NLM_F_CREATE, NLM_F_REPLACE},
    route::{
        AddressFamily, RouteNetlinkMessage as Message,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};
use vz_types::CtAddr;

/// Why the inside of the network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InsideNetError {
    /// There is no such link in this network namespace.
    #[error("the container has no link `{0}`")]
    NoLink(String),
    /// One step failed.
    #[error("cannot {what} {on}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// On what.
        on: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn step<T>(what: &'static str, on: impl ToString, r: io::Result<T>) -> Result<T, InsideNetError> {
    r.map_err(|source| InsideNetError::Step { what, on: on.to_string(), source })
}

/// Brings `lo` up and, if there is a `link`, makes it carry exactly `addresses`, with a default route for each family that has
/// one. Repeating it is harmless; addresses the list no longer names are taken off.
///
/// # Errors
/// The step that failed, with the link or address.
pub fn configure(link: Option<&str>, addresses: &[CtAddr]) -> Result<(), InsideNetError> {
    let mut net = step("open a netlink socket for", link.unwrap_or("lo"), Netlink::open())?;
    loopback_up(&mut net)?;
    let Some(link) = link else { return Ok(()) };
    let index = match step("look for link", link, net.link(link))? {
        Some(l) => l.header.index,
        None => return Err(InsideNetError::NoLink(link.to_owned())),
    };
    link_up(&mut net, link, index)?;
    let present = step("list the addresses of", link, present(&mut net, index))?;
    for old in present.iter().filter(|a| !addresses.iter().any(|w| w.ip() == a.0)) {
        let message = address_message(index, old.0, old.1);
        step("remove address", old.0, ignore(net.change(Message::DelAddress(message), 0), libc::EADDRNOTAVAIL))?;
    }
    for a in addresses.iter().filter(|w| !present.contains(&(w.ip(), w.prefix()))) {
        let message = address_message(index, a.ip(), a.prefix());
        step("add address", a, net.change(Message::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE))?;
    }
    for v4 in [true, false] {
        match addresses.iter().find(|a| a.ip().is_ipv4() == v4) {
            Some(first) => {
                let default = Message::NewRoute(route(index, None, first.ip()));
                let set = net.change(default, NLM_F_CREATE | NLM_F_REPLACE);
                step("set the default route with source", first, set)?;
            }
            None => {
                let any = if v4 { IpAddr::from([0, 0, 0, 0]) } else { Ipv6Addr::UNSPECIFIED.into() };
                let r = net.change(Message::DelRoute(route(index, None, any)), 0);
                // No such route; or this kernel has no such family at all.
                step("remove the default route of", link, ignore(ignore(r, libc::ESRCH), libc::EAFNOSUPPORT))?;
            }
        }
    }
    link_local(&mut net, index, addresses);
    Ok(())
}

/// The container's end of the link, as the host's is `fe80::1`. The link has no third end.
const LINK_LOCAL: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)), 64);

/// A link-local IPv6 address, as every machine with a network has one: the C library's AI_ADDRCONFIG (getaddrinfo(3)) looks
/// for any but ::1, and without one no program that resolves `::1` or `localhost` that way finds it. Nothing is ever sent
/// with it, the host's source filter sees to that. So an IPv6 address of the container's own, where it has one, is the
/// source of what it sends to the host's end. A container without any address has none of this kind either, because then
/// the same question would hide 127.0.0.1.
///
/// Nothing depends on it that a start should fail for: a host may have IPv6 switched off, a link may be too small for it.
fn link_local(net: &mut Netlink, index: u32, addresses: &[CtAddr]) {
    let (ip, prefix) = LINK_LOCAL;
    let address = address_message(index, ip, prefix);
    if addresses.is_empty() {
        // Its route goes with the last IPv6 address.
        let _ = net.change(Message::DelAddress(address), 0);
        let _ = net.change(Message::DelRoute(route(index, Some(LINK_LOCAL), Ipv6Addr::UNSPECIFIED.into())), 0);
        return;
    }
    if net.change(Message::NewAddress(address), NLM_F_CREATE | NLM_F_REPLACE).is_ok() {
        let own = addresses.iter().map(|a| a.ip()).find(IpAddr::is_ipv6);
        let source = own.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let _ = net.change(Message::NewRoute(route(index, Some(LINK_LOCAL), source)), NLM_F_CREATE | NLM_F_REPLACE);
    }
}

/// Leaves the calling thread's network namespace for a new one and takes `link` along. Everything else of the old one goes
/// with its last process: links, addresses, routes, packet filters, settings. Where the container may have no further
/// network namespace (those of its last boot are given back a moment after it), it keeps the one it has.
///
/// Answers whether the container has its link: root inside may have deleted it. One that was renamed is known by its
/// other end being in another namespace, and has its name again afterwards.
///
/// # Errors
/// The step that failed.
pub fn renew(link: Option<&str>) -> Result<bool, InsideNetError> {
    let shown = link.unwrap_or("lo");
    let mut old = step("open a netlink socket for", shown, Netlink::open())?;
    match nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        Err(nix::errno::Errno::ENOSPC) => {
            let Some(link) = link else { return Ok(false) };
            return Ok(step("look for link", link, old.link(link))?.is_some());
        }
        other => step("make a network namespace for", shown, other.map_err(io::Error::from))?,
    }
    let Some(link) = link else { return Ok(false) };
    let found = match step("look for link", link, old.link(link))? {
        Some(found) => Some(found),
        None => step("list links for", link, old.links())?.into_iter().find(leads_outside),
    };
    let Some(found) = found else { return Ok(false) };
    let fresh = step("open the network namespace for", link, std::fs::File::open("/proc/thread-self/ns/net"))?;
    let mut over = LinkMessage::default();
    over.header.index = found.header.index;
    over.attributes.push(LinkAttribute::NetNsFd(fresh.as_raw_fd()));
    over.attributes.push(LinkAttribute::IfName(link.to_owned()));
    step("move to a fresh network namespace link", link, old.change(Message::SetLink(over), 0))?;
    Ok(true)
}

/// Whether a link's other end is in another network namespace (IFLA_LINK_NETNSID).
fn leads_outside(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|a| matches!(a, LinkAttribute::LinkNetNsId(_)))
}

fn ignore(r: io::Result<()>, errno: i32) -> io::Result<()> {
    match r {
        Err(e) if e.raw_os_error() == Some(errno) => Ok(()),
        r => r,
    }
}

fn loopback_up(net: &mut Netlink) -> Result<(), InsideNetError> {
    let mut lo = LinkMessage::default();
    // Every network namespace is born with `lo` as link 1.
    lo.header.index = 1;
    lo.header.flags = LinkFlags::Up;
    lo.header.change_mask = LinkFlags::Up;
    step("bring up link", "lo", net.change(Message::SetLink(lo), 0))
}

fn link_up(net: &mut Netlink, link: &str, index: u32) -> Result<(), InsideNetError> {
    // The kernel would ask around for the address it makes up; `link_local` sets one. Fails where the kernel has no IPv6,
    // and then there is nothing to switch off.
    let mut quiet = LinkMessage::default();
    quiet.header.index = index;
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    quiet.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
    let _ = net.change(Message::SetLink(quiet), 0);
    // The container may do as it likes with its own settings later; this is what it boots with.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra"), "0");

    let mut up = LinkMessage::default();
    up.header.index = index;
    up.header.flags = LinkFlags::Up | LinkFlags::Noarp;
    up.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
    step("bring up link", link, net.change(Message::SetLink(up), 0))
}

/// Addresses on the link, without link-local ones (those are not ours).
fn present(net: &mut Netlink, index: u32) -> io::Result<Vec<(IpAddr, u8)>> {
    let mut ask = AddressMessage::default();
    ask.header.index = index;
    let mut out = Vec::new();
    for m in net.dump(Message::GetAddress(ask))? {
        let Message::NewAddress(a) = m else { continue };
        if a.header.index != index || a.header.scope == AddressScope::Link {
            continue;
        }
        let mut local = None;
        for attribute in &a.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => local = local.or(Some(*ip)),
                _ => {}
            }
        }
        out.extend(local.map(|ip| (ip, a.header.prefix_len)));
    }
    Ok(out)
}

fn address_message(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut m = AddressMessage::default();
    m.header.index = index;
    m.header.prefix_len = prefix;
    m.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    m.attributes.push(AddressAttribute::Local(ip));
    m.attributes.push(AddressAttribute::Address(ip));
    if ip.is_ipv6() {
        // Nobody can answer on this link; waiting a second to hear that would delay every boot.
        m.header.flags = AddressHeaderFlags::Nodad;
        let mut flags = AddressFlags::Nodad;
        // The route to that prefix is `link_local`'s, with a source.
        flags.set(AddressFlags::Noprefixroute, ip == LINK_LOCAL.0);
        m.attributes.push(AddressAttribute::Flags(flags));
    }
    m
}

/// `TO dev LINK scope link src FIRST`; `None` is the default route, an unspecified `source` leaves it out.
fn route(index: u32, to: Option<(IpAddr, u8)>, source: IpAddr) -> RouteMessage {
    let mut r = RouteMessage::default();
    r.header.address_family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    r.header.table = RouteHeader::RT_TABLE_MAIN;
    r.header.protocol = RouteProtocol::Static;
    r.header.scope = if source.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    r.header.kind = RouteType::Unicast;
    r.attributes.push(RouteAttribute::Oif(index));
    let address = |ip| match ip {
        IpAddr::V4(a) => RouteAddress::Inet(a),
        IpAddr::V6(a) => RouteAddress::Inet6(a),
    };
    if let Some((ip, prefix)) = to {
        r.header.destination_prefix_length = prefix;
        r.attributes.push(RouteAttribute::Destination(address(ip)));
    }
    if !source.is_unspecified() {
        r.attributes.push(RouteAttribute::PrefSource(address(source)));
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn ip(args: &str) -> String {
        let out = Command::new("/sbin/ip").args(args.split(' ')).output().unwrap();
        assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn addresses(texts: &[&str]) -> Vec<CtAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    /// Runs in a network namespace of its own that has a `venet0`.
    fn in_container(f: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            ip("link add host0 type veth peer name venet0");
            ip("link set host0 up");
            f();
        });
        thread.join().unwrap();
    }

    fn present_now() -> Vec<String> {
        let mut net = Netlink::open().unwrap();
        let index = net.link("venet0").unwrap().unwrap().header.index;
        let mut all: Vec<String> =
            present(&mut net, index).unwrap().iter().map(|(ip, len)| format!("{ip}/{len}")).collect();
        all.sort();
        all
    }

    #[test]
    fn the_link_carries_exactly_the_addresses_and_default_routes() {
        in_container(|| {
            configure(Some("venet0"), &addresses(&["10.0.0.2", "10.0.0.3", "fd00::2"])).unwrap();
            assert!(ip("link show lo").contains("LOWER_UP"));
            assert!(ip("link show venet0").contains("NOARP,UP"));
            assert_eq!(present_now(), ["10.0.0.2/32", "10.0.0.3/32", "fd00::2/128"]);
            assert_eq!(ip("-4 route").trim(), "default dev venet0 proto static scope link src 10.0.0.2");
            assert!(
                ip("-6 route show default").contains("default dev venet0 proto static src fd00::2"),
                "{}",
                ip("-6 route")
            );
            let six = ip("-6 addr show venet0");
            assert!(!six.contains("tentative") && six.matches("scope link").count() == 1, "{six}");
            assert!(six.contains("inet6 fe80::2/64 scope link"), "{six}");
            // What is sent to the host's end has the source the host's filter lets pass.
            assert!(ip("-6 route get fe80::1 oif venet0").contains("src fd00::2"));
        });
    }

    #[test]
    fn addresses_change_live_and_again_without_harm() {
        in_container(|| {
            let first = addresses(&["10.0.0.2", "fd00::2"]);
            configure(Some("venet0"), &first).unwrap();
            configure(Some("venet0"), &first).unwrap();
            configure(Some("venet0"), &addresses(&["10.0.0.9", "fd00::9", "fd00::a"])).unwrap();
            assert_eq!(present_now(), ["10.0.0.9/32", "fd00::9/128", "fd00::a/128"]);
            assert!(ip("-4 route").contains("src 10.0.0.9"));
            let six = ip("-6 route show default");
            assert!(six.contains("src fd00::9") && six.lines().count() == 1, "{six}");
            configure(Some("venet0"), &addresses(&["fd00::9"])).unwrap();
            assert_eq!((present_now(), ip("-4 route").as_str()), (vec!["fd00::9/128".to_owned()], ""));
            assert!(ip("-6 route get fe80::1 oif venet0").contains("src fd00::9"));
            configure(Some("venet0"), &[]).unwrap();
            assert!(present_now().is_empty() && ip("-6 route show default").is_empty());
            assert_eq!(ip("-6 addr show venet0") + &ip("-6 route show dev venet0"), "");
            configure(Some("venet0"), &addresses(&["10.0.0.2"])).unwrap();
            assert!(ip("-6 addr show venet0").contains("fe80::2/64 scope link"));
        });
    }

    #[test]
    fn a_link_on_which_ipv6_is_switched_off_or_does_not_fit_comes_up_all_the_same() {
        in_container(|| {
            ip("link set venet0 mtu 1200");
            configure(Some("venet0"), &addresses(&["10.0.0.2"])).unwrap();
            assert_eq!(ip("-6 addr show venet0"), "");
        });
        in_container(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
            configure(Some("venet0"), &addresses(&["10.0.0.2"])).unwrap();
            assert_eq!((present_now(), ip("-6 addr show venet0")), (vec!["10.0.0.2/32".to_owned()], String::new()));
        });
    }

    #[test]
    fn a_fresh_namespace_has_the_link_and_nothing_else_of_the_old_one() {
        in_container(|| {
            let inode = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
            configure(Some("venet0"), &addresses(&["10.0.0.2"])).unwrap();
            ip("link add left0 type veth peer name left1");
            ip("route add blackhole 192.0.2.0/24");
            // The other end stays there, as it stays on the host.
            let (before, _keep) = (inode(), std::fs::File::open("/proc/thread-self/ns/net").unwrap());
            renew(Some("venet0")).unwrap();
            assert_ne!(inode(), before);
            assert!(ip("link").contains("venet0@") && !ip("link").contains("left0") && ip("-4 route").is_empty());
            configure(Some("venet0"), &addresses(&["10.0.0.2"])).unwrap();
            assert_eq!(present_now(), ["10.0.0.2/32"]);
            // A link by another name that leads outside is the one, and gets its name.
            ip("link set venet0 down");
            ip("link set venet0 name eth7");
            assert!(renew(Some("venet0")).unwrap());
            assert!(ip("link").contains("venet0@") && !ip("link").contains("eth7"));
            ip("link del venet0");
            assert!(!renew(Some("venet0")).unwrap(), "there is just the fresh namespace");
            assert!(!renew(None).unwrap());
        });
    }

    #[test]
    fn without_a_link_there_is_loopback_and_a_missing_one_is_named() {
        in_container(|| {
            configure(None, &[]).unwrap();
            assert!(ip("link show lo").contains("LOWER_UP"));
            assert!(configure(Some("venet7"), &[]).unwrap_err().to_string().contains("venet7"));
        });
    }
}
