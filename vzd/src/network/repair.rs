//! What others have broken is noticed and put back: a flushed table, a deleted link, a lost route. Healthy
//! containers are not touched: a table is replaced atomically, a link is made anew only where there is none.
//!
//! A thread of vzd's does `loop { watch.wait(30 s); network.verify_and_repair(expected) }`.

use super::{Network, NetworkError, host, links, links::failed};
use std::{
    fs::File,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};
use vz_sys::netlink::{EventSocket, Events};
use vz_types::{CtAddr, Ctid};

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

/// What [`Network::verify_and_repair`] found broken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// One sentence per repair, or per repair that failed; empty when all was well.
    pub said: Vec<String>,
    /// Containers whose link was made anew: their monitors must be asked to set the inside up again
    /// (`SetAddresses` with the same addresses).
    pub relinked: Vec<Ctid>,
}

impl Network {
    /// Compares the kernel with what should be and puts back what is missing. Costs two runs of nft and a few
    /// netlink messages per container when all is well.
    ///
    /// # Errors
    /// Only when nothing can be looked at: no nft, no netlink. What cannot be put back is said in the answer.
    pub fn verify_and_repair(&self, expected: &[Expected]) -> Result<Repaired, NetworkError> {
        let mut repaired = Repaired::default();
        let mut net = links::open()?;
        let uplinks = failed("list the uplinks of", "this host", links::uplinks(&mut net, &self.named_uplinks))?;
        let own_v4 = failed("list the addresses of", "this host", links::has_own_address(&mut net, true))?;
        host::forward(&uplinks)?;
        let moved = {
            let mut state = self.state();
            state.own_v4 = own_v4;
            let shape = self.shape(&uplinks);
            let reading = self.tables.read()?;
            let whole = reading
                .as_ref()
                .is_some_and(|r| state.rules.as_ref() == Some(&r.rules) && self.tables.holds(r, &state.allowed));
            if !whole || shape != state.shape {
                state.shape = shape;
                self.reload(&mut state)?;
                let why = if whole { "the uplinks have changed" } else { "its table was changed from outside" };
                repaired.said.push(format!("loaded nft table {} again: {why}", self.tables.name()));
            }
            let moved = state.uplinks != uplinks;
            state.uplinks = uplinks;
            moved
        };
        for ct in expected {
            match self.repair_one(&mut net, ct, moved, &mut repaired) {
                Ok(()) => {}
                Err(e) => repaired.said.push(format!("CT {}: cannot repair its link: {e}", ct.ctid)),
            }
        }
        Ok(repaired)
    }

    fn repair_one(
        &self,
        net: &mut super::rt::Netlink,
        ct: &Expected,
        moved: bool,
        out: &mut Repaired,
    ) -> Result<(), NetworkError> {
        let name = self.paths.link(ct.ctid);
        let Some(link) = failed("look for link", &name, net.link(&name))? else {
            let netns = failed("open", ct.netns.display(), File::open(&ct.netns))?;
            self.attach(ct.ctid, netns.as_fd(), &ct.addresses)?;
            out.relinked.push(ct.ctid);
            out.said.push(format!("CT {}: made its link {name} again", ct.ctid));
            return Ok(());
        };
        let index = link.header.index;
        if !link.header.flags.contains(vz_sys::netlink::route::link::LinkFlags::Up) {
            failed("bring up link", &name, links::set_up(net, index))?;
            out.said.push(format!("CT {}: brought its link {name} up again", ct.ctid));
        }
        let routes = failed("list the routes over", &name, links::routes_over(net, index))?;
        let missing: Vec<CtAddr> = ct.addresses.iter().copied().filter(|a| !routes.contains(&a.ip())).collect();
        if !missing.is_empty() {
            out.said.push(format!("CT {}: routed {} to its link {name} again", ct.ctid, list(&missing)));
        }
        // Proxy entries are cheap to say again, and other programs like to flush them with the neighbours.
        self.route_and_proxy(net, index, if moved { &ct.addresses } else { &missing })?;
        self.add_proxies(net, &ct.addresses);
        Ok(())
    }

    fn add_proxies(&self, net: &mut super::rt::Netlink, addresses: &[CtAddr]) {
        let uplinks = self.state().uplinks.clone();
        for (a, uplink) in addresses.iter().flat_map(|a| uplinks.iter().map(move |u| (a, u))) {
            let _ = links::add_proxy(net, uplink.index, *a);
        }
    }

    /// Listens for changes from outside, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The sockets cannot be opened.
    pub fn watch(&self) -> Result<Watch, NetworkError> {
        Ok(Watch {
            nft: failed("listen to", "nftables", EventSocket::open(Events::Nftables))?,
            routing: failed("listen to", "links and routes", EventSocket::open(Events::Routing))?,
            table: self.tables.name().to_owned(),
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
    table: String,
}

/// Changes come in bursts: look when it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Look after this time however loud it is.
const LOUD: Duration = Duration::from_secs(2);

impl Watch {
    /// Waits until something was taken away or changed that could be ours, or `at_most` is over.
    ///
    /// # Errors
    /// `poll(2)`.
    pub fn wait(&mut self, at_most: Duration) -> std::io::Result<()> {
        let end = Instant::now() + at_most;
        while !self.next(end)? {
            if Instant::now() >= end {
                return Ok(());
            }
        }
        let loud = (Instant::now() + LOUD).min(end);
        loop {
            let quiet = (Instant::now() + QUIET).min(loud);
            if !self.next(quiet)? || Instant::now() >= loud {
                return Ok(());
            }
        }
    }

    /// Waits for one event until `end`; did it matter?
    fn next(&self, end: Instant) -> std::io::Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        let time = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let flags = rustix::event::PollFlags::IN;
        let mut fds = [rustix::event::PollFd::new(&self.nft, flags), rustix::event::PollFd::new(&self.routing, flags)];
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        // Names travel with their closing NUL.
        let table: Vec<u8> = self.table.bytes().chain([0]).collect();
        let nft = self.nft.drain(|bytes| bytes.windows(table.len()).any(|w| w == table));
        let routing = self.routing.drain(takes_away);
        Ok(nft || routing)
    }
}

/// A link or route that went away (RTM_DELLINK 17, RTM_DELROUTE 25). A link that merely went down waits for the
/// next regular look: every start would look like one.
fn takes_away(bytes: &[u8]) -> bool {
    bytes.len() >= 16 && matches!(u16::from_ne_bytes([bytes[4], bytes[5]]), 17 | 25)
}
