//! Links, routes, neighbours and addresses of the host side, over rtnetlink. One [`Netlink`] per call: a
//! socket and its runtime cost microseconds and none is left open in a daemon that may be asked from any thread.

use super::{NetworkError, Subnet, rt::Netlink};
use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};
use vz_sys::netlink::{
    EventSocket, Events,
    core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    link_name,
    route::{
        AddressFamily, RouteNetlinkMessage as Message,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
        },
    },
};
use vz_types::CtAddr;

/// A link over which the host reaches the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    pub name: String,
    pub index: u32,
    /// What is on the link itself.
    pub subnets: Vec<Subnet>,
}

pub(super) fn open() -> Result<Netlink, NetworkError> {
    failed("open a netlink socket in", "this network namespace", Netlink::open())
}

pub(super) fn failed<T>(what: &'static str, on: impl ToString, r: io::Result<T>) -> Result<T, NetworkError> {
    r.map_err(|source| NetworkError::Io { what, on: on.to_string(), source })
}

fn unless(r: io::Result<()>, errnos: &[i32]) -> io::Result<()> {
    match r {
        Err(e) if e.raw_os_error().is_some_and(|n| errnos.contains(&n)) => Ok(()),
        r => r,
    }
}

/// Makes a veth pair whose other end is born in `netns` as `inside`: moving an end costs 16 ms, this 0.6.
/// Both ends have the same address and no ARP, so that each takes what the other sends. Not up yet.
pub(super) fn make_pair(
    net: &mut Netlink,
    name: &str,
    inside: &str,
    mac: [u8; 6],
    netns: BorrowedFd<'_>,
) -> io::Result<()> {
    let end = |name: &str| {
        let mut m = LinkMessage::default();
        m.header.flags = LinkFlags::Noarp;
        m.header.change_mask = LinkFlags::Noarp;
        m.attributes.push(LinkAttribute::IfName(name.to_owned()));
        m.attributes.push(LinkAttribute::Address(mac.to_vec()));
        m
    };
    let mut peer = end(inside);
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let mut host = end(name);
    host.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    net.change(Message::NewLink(host), NLM_F_CREATE | NLM_F_EXCL)
}

pub(super) fn set_up(net: &mut Netlink, index: u32) -> io::Result<()> {
    let mut m = LinkMessage::default();
    m.header.index = index;
    m.header.flags = LinkFlags::Up | LinkFlags::Noarp;
    m.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
    net.change(Message::SetLink(m), 0)
}

/// Whether it is up.
pub(super) fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up)
}

/// Every link by name: index, and whether it is up.
pub(super) fn all(net: &mut Netlink) -> io::Result<HashMap<String, (u32, bool)>> {
    let of = |l: &LinkMessage| Some((link_name(l)?.to_owned(), (l.header.index, is_up(l))));
    Ok(net.links()?.iter().filter_map(of).collect())
}

/// Deletes a link by name; none there is fine.
pub(super) fn delete(net: &mut Netlink, name: &str) -> io::Result<()> {
    let mut m = LinkMessage::default();
    m.attributes.push(LinkAttribute::IfName(name.to_owned()));
    unless(net.change(Message::DelLink(m), 0), &[libc::ENODEV])
}

/// Waits until a link is gone by itself; false when it is still there after `patience`.
pub(super) fn gone_within(net: &mut Netlink, name: &str, patience: Duration) -> io::Result<bool> {
    let events = EventSocket::open(Events::Routing)?;
    let end = Instant::now() + patience;
    loop {
        if net.link(name)?.is_none() {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // The name is free long before the kernel announces it, so look again without a word, too.
        vz_sys::netlink::wait_readable(&events, left.min(Duration::from_millis(2)))?;
        events.drain(|_| true);
    }
}

fn route_address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(a) => RouteAddress::Inet(a),
        IpAddr::V6(a) => RouteAddress::Inet6(a),
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn host_route(index: u32, a: CtAddr) -> RouteMessage {
    let mut r = RouteMessage::default();
    r.header.address_family = family(a.ip());
    r.header.destination_prefix_length = a.prefix();
    r.header.table = RouteHeader::RT_TABLE_MAIN;
    r.header.protocol = RouteProtocol::Static;
    r.header.scope = if a.ip().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    r.header.kind = RouteType::Unicast;
    r.attributes.push(RouteAttribute::Destination(route_address(a.ip())));
    r.attributes.push(RouteAttribute::Oif(index));
    r
}

pub(super) fn add_route(net: &mut Netlink, index: u32, a: CtAddr) -> io::Result<()> {
    net.change(Message::NewRoute(host_route(index, a)), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(super) fn del_route(net: &mut Netlink, index: u32, a: CtAddr) -> io::Result<()> {
    unless(net.change(Message::DelRoute(host_route(index, a)), 0), &[libc::ESRCH, libc::ENODEV])
}

fn proxy(uplink: u32, a: CtAddr) -> NeighbourMessage {
    let mut n = NeighbourMessage::default();
    n.header.family = family(a.ip());
    n.header.ifindex = uplink;
    n.header.state = NeighbourState::Permanent;
    n.header.flags = NeighbourFlags::Proxy;
    n.attributes.push(NeighbourAttribute::Destination(neighbour_address(a.ip())));
    n
}

fn neighbour_address(ip: IpAddr) -> NeighbourAddress {
    match ip {
        IpAddr::V4(a) => NeighbourAddress::Inet(a),
        IpAddr::V6(a) => NeighbourAddress::Inet6(a),
    }
}

pub(super) fn add_proxy(net: &mut Netlink, uplink: u32, a: CtAddr) -> io::Result<()> {
    net.change(Message::NewNeighbour(proxy(uplink, a)), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Every address answered for, with the link it is answered on.
pub(super) fn proxies(net: &mut Netlink) -> io::Result<HashSet<(u32, IpAddr)>> {
    let mut out = HashSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut ask = NeighbourMessage::default();
        ask.header.family = family;
        ask.header.flags = NeighbourFlags::Proxy;
        for m in unless_no_v6(net.dump(Message::GetNeighbour(ask)))? {
            let Message::NewNeighbour(n) = m else { continue };
            let ip = n.attributes.iter().find_map(|a| match a {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
                _ => None,
            });
            out.extend(ip.filter(|_| n.header.flags.contains(NeighbourFlags::Proxy)).map(|ip| (n.header.ifindex, ip)));
        }
    }
    Ok(out)
}

/// A kernel without IPv6 has nothing of it.
fn unless_no_v6(answer: io::Result<Vec<Message>>) -> io::Result<Vec<Message>> {
    match answer {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        r => r,
    }
}

pub(super) fn del_proxy(net: &mut Netlink, uplink: u32, a: CtAddr) -> io::Result<()> {
    unless(net.change(Message::DelNeighbour(proxy(uplink, a)), 0), &[libc::ENOENT, libc::ENODEV])
}

/// Puts an address of our own on the host end of a pair.
pub(super) fn add_host_address(net: &mut Netlink, index: u32, ip: IpAddr) -> io::Result<()> {
    let mut m = AddressMessage::default();
    m.header.family = family(ip);
    m.header.index = index;
    m.header.prefix_len = if ip.is_ipv4() { 32 } else { 128 };
    m.header.scope = AddressScope::Link;
    m.header.flags = AddressHeaderFlags::Nodad;
    m.attributes.push(AddressAttribute::Local(ip));
    m.attributes.push(AddressAttribute::Address(ip));
    m.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    unless(net.change(Message::NewAddress(m), NLM_F_CREATE | NLM_F_REPLACE), &[libc::EEXIST])
}

/// Addresses of the host with the link they are on and their scope.
pub(super) fn host_addresses(net: &mut Netlink) -> io::Result<Vec<(u32, IpAddr, u8, AddressScope)>> {
    let mut out = Vec::new();
    for m in net.dump(Message::GetAddress(AddressMessage::default()))? {
        let Message::NewAddress(a) = m else { continue };
        let find = |local: bool| {
            a.attributes.iter().find_map(|x| match x {
                AddressAttribute::Local(ip) if local => Some(*ip),
                AddressAttribute::Address(ip) if !local => Some(*ip),
                _ => None,
            })
        };
        if let Some(ip) = find(true).or_else(|| find(false)) {
            out.push((a.header.index, ip, a.header.prefix_len, a.header.scope));
        }
    }
    Ok(out)
}

/// Links that have a default route, or the named ones that exist.
pub(super) fn uplinks(net: &mut Netlink, named: &[String]) -> io::Result<Vec<Uplink>> {
    let mut found: Vec<(String, u32)> = Vec::new();
    if named.is_empty() {
        for v4 in [true, false] {
            let mut indexes = default_routes(net, v4)?;
            indexes.dedup();
            for index in indexes {
                let link = net.link_at(index)?;
                if let Some(name) = link.as_ref().and_then(link_name).filter(|n| *n != "lo") {
                    found.push((name.to_owned(), index));
                }
            }
        }
    } else {
        for name in named {
            found.extend(net.link(name)?.map(|l| (name.clone(), l.header.index)));
        }
    }
    found.sort();
    found.dedup();
    let addresses = host_addresses(net)?;
    Ok(found
        .into_iter()
        .map(|(name, index)| {
            let on_link = |(i, ip, len, scope): &(u32, IpAddr, u8, AddressScope)| {
                let whole = if ip.is_ipv4() { 32 } else { 128 };
                (*i == index && *scope != AddressScope::Link && *len < whole)
                    .then(|| Subnet { ip: *ip, len: *len }.network())
            };
            let mut subnets: Vec<Subnet> = addresses.iter().filter_map(on_link).collect();
            subnets.sort();
            subnets.dedup();
            Uplink { name, index, subnets }
        })
        .collect())
}

fn default_routes(net: &mut Netlink, v4: bool) -> io::Result<Vec<u32>> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    ask.header.table = RouteHeader::RT_TABLE_MAIN;
    let mut out = Vec::new();
    for m in net.dump(Message::GetRoute(ask))? {
        let Message::NewRoute(r) = m else { continue };
        if r.header.destination_prefix_length != 0
            || r.header.kind != RouteType::Unicast
            || r.header.table != RouteHeader::RT_TABLE_MAIN
        {
            continue;
        }
        for attribute in &r.attributes {
            match attribute {
                RouteAttribute::Oif(index) => out.push(*index),
                RouteAttribute::MultiPath(hops) => out.extend(hops.iter().map(|h| h.interface_index)),
                _ => {}
            }
        }
    }
    Ok(out)
}

/// Whole-host routes, and the link each leads to.
pub(super) fn host_routes(net: &mut Netlink) -> io::Result<HashSet<(u32, IpAddr)>> {
    let mut out = HashSet::new();
    for v4 in [true, false] {
        let mut ask = RouteMessage::default();
        ask.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        ask.header.table = RouteHeader::RT_TABLE_MAIN;
        for m in unless_no_v6(net.dump(Message::GetRoute(ask)))? {
            let Message::NewRoute(r) = m else { continue };
            let ip = destination(&r).filter(|ip| is_whole(*ip, r.header.destination_prefix_length));
            let link = r.attributes.iter().find_map(|a| match a {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            out.extend(link.zip(ip).filter(|_| r.header.kind == RouteType::Unicast));
        }
    }
    Ok(out)
}

/// Where a route leads to.
pub(super) fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    })
}

/// Whether a prefix of this length is one address.
pub(super) fn is_whole(ip: IpAddr, len: u8) -> bool {
    len == if ip.is_ipv4() { 32 } else { 128 }
}

/// How the host would reach an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is the host's own, or a broadcast address of its.
    Local,
    /// By a route for exactly this address.
    Exactly { link: u32 },
    /// On the link itself, as one of a subnet.
    OnLink { link: u32 },
    /// Through a gateway, or not at all.
    Elsewhere,
}

/// Asks the kernel which route it would take.
pub(super) fn reach(net: &mut Netlink, a: CtAddr) -> io::Result<Reach> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = family(a.ip());
    ask.header.destination_prefix_length = a.prefix();
    // The route that matched, with its own prefix, not the one made for this destination.
    ask.header.flags = RouteFlags::FibMatch;
    ask.attributes.push(RouteAttribute::Destination(route_address(a.ip())));
    let answer = match net.get(Message::GetRoute(ask)) {
        Ok(answer) => answer,
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES | libc::EAFNOSUPPORT)
            ) =>
        {
            return Ok(Reach::Elsewhere);
        }
        Err(e) => return Err(e),
    };
    let Some(route) = answer.into_iter().find_map(|m| match m {
        Message::NewRoute(r) => Some(r),
        _ => None,
    }) else {
        return Ok(Reach::Elsewhere);
    };
    let gateway = route
        .attributes
        .iter()
        .any(|x| matches!(x, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)));
    let link = route.attributes.iter().find_map(|x| match x {
        RouteAttribute::Oif(i) => Some(*i),
        _ => None,
    });
    Ok(match (route.header.kind, link) {
        (RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast, _) => Reach::Local,
        (RouteType::Unicast, Some(link)) if route.header.destination_prefix_length == a.prefix() => {
            Reach::Exactly { link }
        }
        (RouteType::Unicast, Some(link)) if !gateway && route.header.destination_prefix_length > 0 => {
            Reach::OnLink { link }
        }
        _ => Reach::Elsewhere,
    })
}

/// Has the kernel ask the link's neighbours (ARP or ND) who has an address; answers the hardware address of
/// who replied within `patience`.
pub(super) fn neighbour(net: &mut Netlink, link: u32, a: CtAddr, patience: Duration) -> io::Result<Option<Vec<u8>>> {
    let entry = |state: NeighbourState, flags: NeighbourFlags| {
        let mut n = NeighbourMessage::default();
        n.header.family = family(a.ip());
        n.header.ifindex = link;
        n.header.state = state;
        n.header.flags = flags;
        n.attributes.push(NeighbourAttribute::Destination(neighbour_address(a.ip())));
        n
    };
    let forget = |net: &mut Netlink| {
        unless(
            net.change(Message::DelNeighbour(entry(NeighbourState::None, NeighbourFlags::empty())), 0),
            &[libc::ENOENT],
        )
    };
    let answers = EventSocket::open(Events::Neighbours)?;
    let question = entry(NeighbourState::None, NeighbourFlags::Use);
    let mut found = None;
    // Twice, because a question can be lost and the kernel itself repeats it only after a second.
    for _ in 0..2 {
        // What was learnt long ago proves nothing.
        forget(net)?;
        net.change(Message::NewNeighbour(question.clone()), NLM_F_CREATE)?;
        found = answer(net, link, a, &answers, Instant::now() + patience / 2)?;
        if found.is_some() {
            break;
        }
    }
    forget(net)?;
    Ok(found)
}

/// Waits for a neighbour entry of `a` to get its hardware address.
fn answer(net: &mut Netlink, link: u32, a: CtAddr, answers: &EventSocket, end: Instant) -> io::Result<Option<Vec<u8>>> {
    loop {
        let mut found = None;
        let mut ask = NeighbourMessage::default();
        ask.header.family = family(a.ip());
        ask.attributes.push(NeighbourAttribute::IfIndex(link));
        for m in net.dump(Message::GetNeighbour(ask))? {
            let Message::NewNeighbour(n) = m else { continue };
            let this = n.attributes.iter().any(|x| *x == NeighbourAttribute::Destination(neighbour_address(a.ip())));
            let here = n.header.ifindex == link && !n.header.flags.contains(NeighbourFlags::Proxy);
            let answered = !matches!(
                n.header.state,
                NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::Noarp
            );
            if this && here && answered {
                found = n.attributes.iter().find_map(|x| match x {
                    NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
                    _ => None,
                });
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if found.is_some() || left.is_zero() {
            return Ok(found);
        }
        vz_sys::netlink::wait_readable(answers, left)?;
        answers.drain(|_| true);
    }
}

/// Can neighbours be asked on this link at all?
pub(super) fn has_neighbours(net: &mut Netlink, index: u32) -> io::Result<bool> {
    Ok(net.link_at(index)?.is_some_and(|l| {
        is_up(&l) && !l.header.flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback | LinkFlags::Pointopoint)
    }))
}

/// Any address the host itself would use towards the world?
pub(super) fn has_own_address(net: &mut Netlink, v4: bool) -> io::Result<bool> {
    Ok(host_addresses(net)?.iter().any(|(_, ip, _, scope)| ip.is_ipv4() == v4 && *scope == AddressScope::Universe))
}

/// Where the host end answers when the host has no address of its own: any would do, it is on this link only.
pub(super) const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 0, 1));
/// As [`HOST_V4`]; a global address of the host is always preferred (RFC 6724 rule 2).
pub(super) const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
