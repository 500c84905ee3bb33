//! What others have broken is noticed and put back: a flushed table, a deleted link, a lost route. Healthy
//! containers are not touched: a table is replaced atomically, a link is made anew only where there is none.
//!
//! ```text
//!  kernel: a link or route went, a table of ours changed --> Watch --> Seen --> Network::concerns
//!      an uplink, lost events, half a minute is over:   tables and uplinks, then one dump of each kind: who lacks something
//!      some containers that run:                        tables, then these
//!      nobody that runs (a container was stopped):      tables alone
//! ```
//! Two halves that never mix. The host's own part ([`Network::repair_host`]: tables, uplinks, forwarding) holds what
//! [`Network::allow`] and [`Network::deny`] were told, under the lock those take. A container's part ([`Network::repair`]:
//! link, routes, proxy entries) is put back by whoever may change that container, by what it has at that moment;
//! everybody else only looks ([`Network::lacking`]).
//! Tables are listed only when the generation of the host's nftables says that somebody else has changed something.

use super::{Network, NetworkError, State, host, links, links::failed};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    net::IpAddr,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};
use vz_sys::netlink::{
    EventSocket, Events,
    core::{NetlinkMessage, NetlinkPayload},
    link_name,
    route::{RouteNetlinkMessage, route::RouteAttribute, route::RouteMessage},
};
use vz_types::{CtAddr, Ctid, run::RunRecord};

/// A running container as it should be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The container.
    pub ctid: Ctid,
    /// Its addresses.
    pub addresses: Vec<CtAddr>,
    /// Its network namespace: `/proc/<pid of its init>/ns/net`.
    pub netns: PathBuf,
}

impl Expected {
    /// As its monitor has written it down.
    pub fn of(record: RunRecord) -> Self {
        let netns = PathBuf::from(format!("/proc/{}/ns/net", record.init.pid));
        Self { ctid: record.ctid, addresses: record.addresses, netns }
    }
}

/// What was put back of a container's link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// One sentence per repair; empty when all was well.
    pub said: Vec<String>,
    /// Its link was made anew: its monitor must be asked to set the inside up again (`SetAddresses` with the same
    /// addresses).
    pub relinked: bool,
}

/// What [`Watch::wait`] has seen go away or change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events were lost: anything may have happened.
    lost: bool,
    /// Default routes went.
    default: bool,
    /// Our links that went.
    cts: BTreeSet<Ctid>,
    /// Whole-host routes that went.
    addresses: BTreeSet<IpAddr>,
    /// Other links that went, or lost a route.
    links: BTreeSet<u32>,
}

/// Who is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Everybody, and the host itself.
    Everything,
    /// These containers, if they run.
    Only(BTreeSet<Ctid>),
}

/// Links, routes and proxy entries as the kernel has them: of everybody, or of those that are looked at.
#[derive(Debug, Default)]
struct Picture {
    /// Index, and whether it is up, by name.
    links: HashMap<String, (u32, bool)>,
    /// Whole-host routes and the link each leads to.
    routes: HashSet<(u32, IpAddr)>,
    /// Addresses answered for, and the uplink.
    proxies: HashSet<(u32, IpAddr)>,
}

/// What one container lacks.
#[derive(Debug, PartialEq, Eq)]
enum Lack {
    /// Its whole link.
    Link,
    /// Parts: its link is this one.
    Parts { index: u32, down: bool, routes: Vec<CtAddr>, proxies: Vec<(u32, CtAddr)> },
}

impl Picture {
    /// Everything, with one dump of each kind.
    fn whole(net: &mut super::rt::Netlink) -> std::io::Result<Self> {
        Ok(Self { links: links::all(net)?, routes: links::host_routes(net)?, proxies: links::proxies(net)? })
    }

    /// Of this link alone: a question for it and for each address.
    fn of(net: &mut super::rt::Netlink, name: &str, addresses: &[CtAddr]) -> std::io::Result<Self> {
        // Proxy entries are said again rather than asked for.
        let mut picture = Self::default();
        let Some(link) = net.link(name)? else { return Ok(picture) };
        picture.links.insert(name.to_owned(), (link.header.index, links::is_up(&link)));
        for a in addresses {
            if let links::Reach::Exactly { link } = links::reach(net, *a)? {
                picture.routes.insert((link, a.ip()));
            }
        }
        Ok(picture)
    }

    /// What a container with this link and these addresses lacks; `None`: nothing.
    fn lack(&self, name: &str, addresses: &[CtAddr], uplinks: &[u32]) -> Option<Lack> {
        let Some((index, up)) = self.links.get(name).copied() else { return Some(Lack::Link) };
        let routes: Vec<_> = addresses.iter().copied().filter(|a| !self.routes.contains(&(index, a.ip()))).collect();
        let pairs = addresses.iter().flat_map(|a| uplinks.iter().map(move |u| (*u, *a)));
        let proxies: Vec<_> = pairs.filter(|(u, a)| !self.proxies.contains(&(*u, a.ip()))).collect();
        (!up || !routes.is_empty() || !proxies.is_empty()).then_some(Lack::Parts { index, down: !up, routes, proxies })
    }
}

impl Network {
    /// Puts back what is the host's own: forwarding and tables, and tables that fit the uplinks where those are `looked`
    /// for. What was done, a sentence each. Costs a few netlink messages when all is well, and runs nft only when somebody
    /// has changed a table.
    ///
    /// # Errors
    /// Nothing can be looked at: no nft, no netlink.
    pub fn repair_host(&self, looked: bool) -> Result<Vec<String>, NetworkError> {
        let mut said = Vec::new();
        if !looked {
            self.verify_tables(&mut self.state(), None, &mut said)?;
            return Ok(said);
        }
        let mut net = links::open()?;
        let uplinks = failed("list the uplinks of", "this host", links::uplinks(&mut net, &self.named_uplinks))?;
        let own_v4 = failed("list the addresses of", "this host", links::has_own_address(&mut net, true))?;
        host::forward(&uplinks)?;
        let mut state = self.state();
        state.own_v4 = own_v4;
        let shape = self.shape(&uplinks);
        self.verify_tables(&mut state, Some(shape), &mut said)?;
        let moved = state.uplinks != uplinks;
        if moved && state.allowed.values().flatten().any(|a| a.ip().is_ipv6()) {
            uplinks.iter().for_each(|u| host::proxy_ndp(&u.name));
        }
        state.uplinks = uplinks;
        Ok(said)
    }

    /// Which of these lack something of their link, by one dump of each kind. It only looks.
    ///
    /// # Errors
    /// Links or routes cannot be listed.
    pub fn lacking(&self, expected: &[Expected]) -> Result<Vec<Ctid>, NetworkError> {
        if expected.is_empty() {
            return Ok(Vec::new());
        }
        let picture = failed("look at the links and routes of", "this host", Picture::whole(&mut links::open()?))?;
        let uplinks = self.uplinks();
        let lacks = |ct: &&Expected| picture.lack(&self.paths.link(ct.ctid), &ct.addresses, &uplinks).is_some();
        Ok(expected.iter().filter(lacks).map(|ct| ct.ctid).collect())
    }

    /// Looks at one container and puts back what it lacks. For whoever may change that container: `expected` is what it
    /// has now, and nobody gives it anything else meanwhile.
    ///
    /// # Errors
    /// It cannot be looked at, or something cannot be put back.
    pub fn repair(&self, expected: &Expected) -> Result<Repaired, NetworkError> {
        let mut net = links::open()?;
        let name = self.paths.link(expected.ctid);
        let picture = Picture::of(&mut net, &name, &expected.addresses);
        let picture = failed("look at the links and routes of", "this host", picture)?;
        match picture.lack(&name, &expected.addresses, &self.uplinks()) {
            Some(lack) => self.put_back(&mut net, &name, expected, lack),
            None => Ok(Repaired::default()),
        }
    }

    fn uplinks(&self) -> Vec<u32> {
        self.state().uplinks.iter().map(|u| u.index).collect()
    }

    /// Loads our tables again when they are not what they should be, or the uplinks have changed (`shape`).
    fn verify_tables(
        &self,
        state: &mut State,
        shape: Option<super::nft::Shape>,
        said: &mut Vec<String>,
    ) -> Result<(), NetworkError> {
        let shape = shape.unwrap_or_else(|| state.shape.clone());
        let now = super::generation();
        let untouched = now.is_some() && state.sure == now;
        let whole = if untouched && state.rules.is_some() {
            true
        } else {
            let reading = self.tables.read()?;
            // The first look after loading learns how the kernel shows what we wrote.
            if let (true, Some(reading)) = (untouched && super::generation() == now, &reading) {
                state.rules = Some(reading.rules.clone());
            }
            let same = reading.as_ref().is_some_and(|r| state.rules.as_ref() == Some(&r.rules));
            let holds = reading.as_ref().is_some_and(|r| self.tables.holds(r, &state.allowed));
            if same && holds {
                state.sure = now.filter(|_| super::generation() == now);
            }
            // Rules that were never learnt are nobody's fault.
            if !same && holds && state.rules.is_none() && state.loaded && shape == state.shape {
                return self.load(state);
            }
            same && holds
        };
        if !whole || shape != state.shape {
            state.shape = shape;
            self.load(state)?;
            let why = if whole { "the uplinks have changed" } else { "its table was changed from outside" };
            said.push(format!("loaded nft table {} again: {why}", self.tables.name()));
        }
        Ok(())
    }

    fn put_back(
        &self,
        net: &mut super::rt::Netlink,
        name: &str,
        ct: &Expected,
        lack: Lack,
    ) -> Result<Repaired, NetworkError> {
        let mut out = Repaired::default();
        let (index, down, routes, proxies) = match lack {
            Lack::Parts { index, down, routes, proxies } => (index, down, routes, proxies),
            Lack::Link => {
                let netns = failed("open", ct.netns.display(), File::open(&ct.netns))?;
                self.attach(ct.ctid, netns.as_fd(), &ct.addresses)?;
                out.said.push(format!("made its link {name} again"));
                out.relinked = true;
                return Ok(out);
            }
        };
        if down {
            failed("bring up link", name, links::set_up(net, index))?;
            out.said.push(format!("brought its link {name} up again"));
        }
        if !routes.is_empty() {
            out.said.push(format!("routed {} to its link {name} again", list(&routes)));
        }
        self.route_and_proxy(net, index, &routes)?;
        // Other programs like to flush these with the neighbours; nothing is said of them.
        for (uplink, a) in proxies {
            let _ = links::add_proxy(net, uplink, a);
        }
        Ok(out)
    }

    /// Who has to be looked at because of what was seen.
    pub fn concerns(&self, seen: &Seen) -> Concern {
        let state = self.state();
        if seen.lost || seen.default || state.uplinks.iter().any(|u| seen.links.contains(&u.index)) {
            return Concern::Everything;
        }
        let mut cts = seen.cts.clone();
        if !seen.addresses.is_empty() {
            let lost = |all: &BTreeSet<CtAddr>| all.iter().any(|a| seen.addresses.contains(&a.ip()));
            cts.extend(state.allowed.iter().filter(|(_, all)| lost(all)).map(|(c, _)| *c));
        }
        Concern::Only(cts)
    }

    /// Listens for changes from outside, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The sockets cannot be opened.
    pub fn watch(&self) -> Result<Watch, NetworkError> {
        Ok(Watch {
            nft: failed("listen to", "nftables", EventSocket::open(Events::Nftables))?,
            routing: failed("listen to", "links and routes", EventSocket::open(Events::Routing))?,
            // Names travel with their closing NUL.
            table: self.tables.name().bytes().chain([0]).collect(),
            prefix: self.paths.link_prefix(),
        })
    }
}

fn list(addresses: &[CtAddr]) -> String {
    addresses.iter().map(CtAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// See [`Network::watch`].
#[derive(Debug)]
pub struct Watch {
    nft: EventSocket,
    routing: EventSocket,
    table: Vec<u8>,
    prefix: String,
}

/// Changes come in bursts: look when it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Look after this time however loud it is.
const LOUD: Duration = Duration::from_secs(2);

impl Watch {
    /// Waits until something was taken away or changed that could be ours, or `at_most` is over (then nothing was seen).
    ///
    /// # Errors
    /// `poll(2)`.
    pub fn wait(&mut self, at_most: Duration) -> std::io::Result<Seen> {
        let end = Instant::now() + at_most;
        let mut seen = Seen::default();
        while !self.next(end, &mut seen)? {
            if Instant::now() >= end {
                return Ok(seen);
            }
        }
        let loud = (Instant::now() + LOUD).min(end);
        loop {
            let quiet = (Instant::now() + QUIET).min(loud);
            if !self.next(quiet, &mut seen)? || Instant::now() >= loud {
                return Ok(seen);
            }
        }
    }

    /// Waits for one event until `end`; did it matter?
    fn next(&self, end: Instant, seen: &mut Seen) -> std::io::Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        let time = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let flags = rustix::event::PollFlags::IN;
        let mut fds = [rustix::event::PollFd::new(&self.nft, flags), rustix::event::PollFd::new(&self.routing, flags)];
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let nft = self.nft.drain(|bytes| bytes.windows(self.table.len()).any(|w| w == self.table));
        let mut mattered = false;
        let lost = self.routing.drain(|bytes| {
            mattered |= note(bytes, &self.prefix, seen);
            false
        });
        seen.lost |= lost;
        Ok(nft || lost || mattered)
    }
}

/// Notes links and routes that went away (RTM_DELLINK 17, RTM_DELROUTE 25) among these messages; was there any? A link
/// that merely went down waits for the next regular look: every start would look like one.
fn note(mut bytes: &[u8], prefix: &str, seen: &mut Seen) -> bool {
    let mut any = false;
    while bytes.len() >= 16 {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if length < 16 || length > bytes.len() {
            seen.lost = true;
            return true;
        }
        let (this, rest) = bytes.split_at(length);
        bytes = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        if !matches!(u16::from_ne_bytes([this[4], this[5]]), 17 | 25) {
            continue;
        }
        any = true;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(this).map(|m| m.payload) {
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))) => {
                match link_name(&link).and_then(|n| n.strip_prefix(prefix)?.parse().ok()) {
                    Some(ctid) => seen.cts.insert(ctid),
                    None => seen.links.insert(link.header.index),
                };
            }
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route))) => note_route(&route, seen),
            // Something went away that cannot be read.
            _ => seen.lost = true,
        }
    }
    any
}

fn note_route(route: &RouteMessage, seen: &mut Seen) {
    let link = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    match links::destination(route) {
        _ if route.header.destination_prefix_length == 0 => seen.default = true,
        Some(ip) if links::is_whole(ip, route.header.destination_prefix_length) => {
            seen.addresses.insert(ip);
        }
        _ => seen.links.extend(link),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vz_sys::netlink::route::{
        AddressFamily,
        link::{LinkAttribute, LinkMessage},
        route::{RouteAddress, RouteProtocol},
    };

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut packet = NetlinkMessage::new(Default::default(), NetlinkPayload::from(message));
        packet.finalize();
        let mut out = vec![0; packet.buffer_len()];
        packet.serialize(&mut out);
        out
    }

    fn link(name: &str, index: u32) -> LinkMessage {
        let mut m = LinkMessage::default();
        m.header.index = index;
        m.attributes.push(LinkAttribute::IfName(name.into()));
        m
    }

    fn route(to: &str, len: u8, index: u32) -> RouteMessage {
        let mut r = RouteMessage::default();
        r.header.address_family = AddressFamily::Inet;
        r.header.destination_prefix_length = len;
        r.header.protocol = RouteProtocol::Static;
        r.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to.parse().unwrap())));
        r.attributes.push(RouteAttribute::Oif(index));
        r
    }

    #[test]
    fn what_goes_away_is_told_apart_and_what_comes_is_nothing() {
        let mut seen = Seen::default();
        let mut all = bytes(RouteNetlinkMessage::NewLink(link("vz9", 3)));
        assert!(!note(&all, "vz", &mut seen));
        for m in [
            RouteNetlinkMessage::DelLink(link("vz101", 4)),
            RouteNetlinkMessage::DelLink(link("vzabc101", 5)),
            RouteNetlinkMessage::DelRoute(route("10.0.0.2", 32, 4)),
            RouteNetlinkMessage::DelRoute(route("192.0.2.0", 24, 6)),
        ] {
            all.extend(bytes(m));
        }
        assert!(note(&all, "vz", &mut seen));
        let want = Seen {
            cts: [101.try_into().unwrap()].into(),
            addresses: ["10.0.0.2".parse().unwrap()].into(),
            links: [5, 6].into(),
            ..Seen::default()
        };
        assert_eq!(seen, want);
        assert!(note(&bytes(RouteNetlinkMessage::DelRoute(route("0.0.0.0", 0, 6))), "vz", &mut seen) && seen.default);
        assert!(note(&[9; 20], "vz", &mut seen) && seen.lost, "nonsense is taken for the worst");
    }

    #[test]
    fn a_container_lacks_what_the_picture_does_not_show() {
        let own: Vec<CtAddr> = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let mut p = Picture::default();
        assert_eq!(p.lack("vz101", &own, &[2]), Some(Lack::Link));
        p.links.insert("vz101".into(), (7, true));
        p.routes.insert((8, own[0].ip()));
        p.routes.insert((7, own[1].ip()));
        p.proxies.extend([(2, own[0].ip()), (2, own[1].ip())]);
        let parts = |down, routes: &[CtAddr], proxies: &[(u32, CtAddr)]| {
            Some(Lack::Parts { index: 7, down, routes: routes.to_vec(), proxies: proxies.to_vec() })
        };
        assert_eq!(p.lack("vz101", &own, &[2]), parts(false, &own[..1], &[]), "a route to another link is not its own");
        p.routes.insert((7, own[0].ip()));
        assert_eq!(p.lack("vz101", &own, &[2]), None);
        assert_eq!(p.lack("vz101", &own, &[2, 3]), parts(false, &[], &[(3, own[0]), (3, own[1])]));
        p.links.insert("vz101".into(), (7, false));
        assert_eq!(p.lack("vz101", &own, &[2]), parts(true, &[], &[]));
    }
}
