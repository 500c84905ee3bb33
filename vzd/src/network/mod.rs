//! The host's side of venet: one veth pair per running container, host routes, proxy neighbours on the
//! uplinks, the source filter and masquerading. The inside is vzmon's (`vzd/mon/src/inside_net.rs`).
//! Imports vz-types and vz-sys, and the runner of programs ([`crate::program`]).
//!
//! ```text
//!   configured (create, set)        running (start)
//!   nft elements: allow ----------> veth pair, routes, proxies: attach
//!                deny <------------                             detach
//! ```
//! So the filter is always there before a link is. Every name we put into the host's network namespace carries
//! the manager's tag; two managers share nothing but sysctls, which are only ever switched on.
//!
//! | module | story |
//! |---|---|
//! | [`nft`] | our tables |
//! | [`links`] | rtnetlink |
//! | [`host`] | sysctls, name servers |
//! | [`repair`] | what others have broken is noticed and put back |

pub mod hand;
mod host;
mod links;
mod nft;
mod repair;
mod rt;

pub use host::host_nameservers;
pub use repair::{Concern, Expected, Repaired, Seen, Watch};

use links::{Reach, Uplink, failed};
use std::{collections::BTreeSet, fmt, io, net::IpAddr, os::fd::BorrowedFd, str::FromStr, sync::Mutex, time::Duration};
use vz_types::{CtAddr, Ctid, ExitCode, Paths, manager::HostNetwork};

/// Name of the link inside.
pub const INSIDE_LINK: &str = "venet0";

/// How long neighbours may take to claim an address that is about to be given to a container.
const PROBE: Duration = Duration::from_millis(400);

/// How long a link may outlive the network namespace of its other end before we delete it ourselves.
const WITH_ITS_NAMESPACE: Duration = Duration::from_millis(60);

/// What went wrong on the host's side of the network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Somebody else has the address.
    #[error("address {address} is in use: {by}; choose another one")]
    InUse {
        /// The address.
        address: CtAddr,
        /// By whom.
        by: String,
    },
    /// An external program is not installed.
    #[error("the program {program} is missing; install the package {package}")]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// nft refused.
    #[error("cannot {what} with nft: {said}; `vzctl check` shows what this kernel lacks")]
    Nft {
        /// What was tried.
        what: &'static str,
        /// What it said.
        said: String,
    },
    /// vz.toml names something that cannot be.
    #[error("{0}")]
    BadConfig(String),
    /// A call failed.
    #[error("cannot {what} {on}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        on: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NetworkError {
    /// What vzctl exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::InUse { .. } => ExitCode::IpInUse,
            Self::BadConfig(_) => ExitCode::BadConfig,
            Self::Nft { .. } | Self::MissingProgram { .. } | Self::Io { .. } => ExitCode::System,
        }
    }
}

/// An address range, like `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    ip: IpAddr,
    len: u8,
}

impl Subnet {
    /// The range with the host part cleared.
    fn network(self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(a) => {
                IpAddr::from((u32::from(a) & u32::MAX.checked_shl(32 - u32::from(self.len)).unwrap_or(0)).to_be_bytes())
            }
            IpAddr::V6(a) => IpAddr::from(
                (u128::from(a) & u128::MAX.checked_shl(128 - u32::from(self.len)).unwrap_or(0)).to_be_bytes(),
            ),
        };
        Self { ip, len: self.len }
    }
}

impl FromStr for Subnet {
    type Err = NetworkError;
    fn from_str(s: &str) -> Result<Self, NetworkError> {
        let bad = || {
            NetworkError::BadConfig(format!(
                "vz.toml: network.masquerade: `{s}` is no range like 10.0.0.0/8 or fc00::/7"
            ))
        };
        let (ip, len) = s.split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let len: u8 = len.parse().map_err(|_| bad())?;
        let subnet = Self { ip, len };
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        if len > whole || subnet.network() != subnet { Err(bad()) } else { Ok(subnet) }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

/// What is in the kernel because of us, as far as we know.
#[derive(Debug, Default)]
struct State {
    allowed: nft::Allowed,
    uplinks: Vec<Uplink>,
    /// Has the host an IPv4 address of its own?
    own_v4: bool,
    /// Our tables were loaded.
    loaded: bool,
    /// Rules as the kernel shows what we loaded, once that was looked at: the measure of [`Network::repair_host`].
    rules: Option<String>,
    /// The generation of the host's nftables in which our tables hold what we wrote: only we have changed anything since.
    sure: Option<u32>,
    shape: nft::Shape,
}

/// One manager's part of the host's network. All calls block, none for longer than programs and kernel take;
/// they act on the network namespace of the calling thread.
#[derive(Debug)]
pub struct Network {
    paths: Paths,
    masquerade: Vec<Subnet>,
    named_uplinks: Vec<String>,
    tables: nft::Tables,
    state: Mutex<State>,
}

impl Network {
    /// Takes the configuration; touches nothing.
    ///
    /// # Errors
    /// [`NetworkError::BadConfig`] for a masqueraded range that is none.
    pub fn new(paths: &Paths, cfg: &HostNetwork) -> Result<Self, NetworkError> {
        Ok(Self {
            paths: paths.clone(),
            masquerade: cfg.masquerade.iter().map(|s| s.parse()).collect::<Result<_, _>>()?,
            named_uplinks: cfg.uplinks.clone(),
            tables: nft::Tables::new(paths),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while holding it leaves at worst a stale view, which the next repair replaces.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Switches forwarding on and learns the uplinks. Repeating it is harmless.
    ///
    /// # Errors
    /// A sysctl that cannot be set.
    pub fn prepare_host(&self) -> Result<(), NetworkError> {
        let mut net = links::open()?;
        let uplinks = failed("list the uplinks of", "this host", links::uplinks(&mut net, &self.named_uplinks))?;
        let own_v4 = failed("list the addresses of", "this host", links::has_own_address(&mut net, true))?;
        host::forward(&uplinks)?;
        let mut state = self.state();
        state.own_v4 = own_v4;
        state.shape = self.shape(&uplinks);
        state.uplinks = uplinks;
        Ok(())
    }

    fn shape(&self, uplinks: &[Uplink]) -> nft::Shape {
        let mut direct: Vec<Subnet> = uplinks.iter().flat_map(|u| u.subnets.iter().copied()).collect();
        direct.sort();
        direct.dedup();
        nft::Shape { masquerade: self.masquerade.clone(), direct }
    }

    /// Replaces our tables: these containers may use these addresses, and no others. One atomic batch.
    ///
    /// # Errors
    /// nft is missing or refuses; the old tables stay.
    pub fn load_table(&self, all: &[(Ctid, Vec<CtAddr>)]) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.allowed = all.iter().map(|(c, a)| (*c, a.iter().copied().collect())).collect();
        self.load(&mut state)
    }

    /// Replaces our tables. How the kernel shows them is learnt at the next look, for nobody waits for that, unless
    /// somebody else came between and it must be known now.
    fn load(&self, state: &mut State) -> Result<(), NetworkError> {
        (state.loaded, state.rules, state.sure) = (false, None, None);
        let before = generation();
        self.tables.replace(&state.shape, &state.allowed)?;
        state.loaded = true;
        state.sure = still_sure(before, before, generation());
        if state.sure.is_none() {
            state.rules = self.tables.read()?.map(|r| r.rules);
        }
        Ok(())
    }

    /// Makes a change of our own, after which our tables are still known to hold what we wrote if nobody else came between.
    fn change(
        &self,
        state: &mut State,
        make: impl FnOnce(&nft::Tables) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        let before = generation();
        match make(&self.tables) {
            // Somebody has taken our table away: put it back, as it is to be after the change.
            Err(NetworkError::Nft { .. }) => self.load(state),
            done => {
                state.sure = still_sure(state.sure, before, generation());
                done
            }
        }
    }

    /// Lets a container use these addresses, besides those it has.
    ///
    /// # Errors
    /// nft is missing or refuses; nothing is changed then.
    pub fn allow(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        if addresses.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let own = state.allowed.entry(ctid).or_default();
        let new: Vec<CtAddr> = addresses.iter().copied().filter(|a| own.insert(*a)).collect();
        let done = self.change(&mut state, |tables| tables.add(ctid, addresses));
        if done.is_err() {
            state.disallow(ctid, &new);
        }
        done
    }

    /// Takes addresses from a container. Those it never had do no harm.
    ///
    /// # Errors
    /// nft is missing or refuses.
    pub fn deny(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        if addresses.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        state.disallow(ctid, addresses);
        self.change(&mut state, |tables| tables.remove(ctid, addresses))
    }

    /// Makes the container's link, with the other end born in `netns` as [`INSIDE_LINK`], and the routes and
    /// proxy neighbours of its addresses. A link of that name left by a crash is replaced. No external
    /// program runs, unless the tables could not be loaded before: then they are now, or there is no link. Answers the host-side link's name.
    ///
    /// # Errors
    /// The step that failed; what was made is removed again.
    pub fn attach(&self, ctid: Ctid, netns: BorrowedFd<'_>, addresses: &[CtAddr]) -> Result<String, NetworkError> {
        {
            // No filter, no link: nft may have been missing when the table was to be loaded.
            let mut state = self.state();
            if !state.loaded {
                self.load(&mut state)?;
            }
        }
        let mut net = links::open()?;
        let name = self.paths.link(ctid);
        let mac = mac(&self.paths.tag(), ctid);
        let made = match links::make_pair(&mut net, &name, INSIDE_LINK, mac, netns) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                failed("delete the leftover link", &name, links::delete(&mut net, &name))?;
                links::make_pair(&mut net, &name, INSIDE_LINK, mac, netns)
            }
            r => r,
        };
        failed("make link", &name, made)?;
        let done = self.bring_up(&mut net, &name, addresses);
        if done.is_err() {
            let _ = links::delete(&mut net, &name);
            self.del_proxies(&mut net, addresses);
        }
        done.map(|()| name)
    }

    fn bring_up(&self, net: &mut rt::Netlink, name: &str, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        let link = failed("look for link", name, net.link(name))?;
        let index = link.map(|l| l.header.index).ok_or_else(|| gone(name))?;
        host::prepare_link(name)?;
        failed("bring up link", name, links::set_up(net, index))?;
        for (v4, own) in [(true, links::HOST_V4), (false, links::HOST_V6)] {
            if !addresses.iter().any(|a| a.ip().is_ipv4() == v4) {
                continue;
            }
            // Without any address the host could not speak to the container at all. IPv4 would prefer the
            // link's address to a real one, so there it is the last resort only.
            if !v4 || !self.state().own_v4 {
                failed("add an address to", name, links::add_host_address(net, index, own))?;
            }
        }
        self.route_and_proxy(net, index, addresses)
    }

    fn route_and_proxy(&self, net: &mut rt::Netlink, index: u32, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        let uplinks = self.state().uplinks.clone();
        for a in addresses {
            failed("add the route to", a, links::add_route(net, index, *a))?;
            for uplink in &uplinks {
                if a.ip().is_ipv6() {
                    host::proxy_ndp(&uplink.name);
                }
                match links::add_proxy(net, uplink.index, *a) {
                    // The uplink went away; the next repair looks for a new one.
                    Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
                    r => failed("answer for the address on an uplink:", a, r)?,
                }
            }
        }
        Ok(())
    }

    fn del_proxies(&self, net: &mut rt::Netlink, addresses: &[CtAddr]) {
        let uplinks = self.state().uplinks.clone();
        for (a, uplink) in addresses.iter().flat_map(|a| uplinks.iter().map(move |u| (a, u))) {
            if let Err(e) = links::del_proxy(net, uplink.index, *a) {
                tracing::warn!(address = %a, uplink = uplink.name, error = %e, "cannot take the proxy entry away");
            }
        }
    }

    /// Takes proxy neighbours, and the link with its routes if it is still there. Tolerant: what is gone is
    /// gone, the rest is tried in any case.
    ///
    /// # Errors
    /// The link is there and cannot be deleted.
    pub fn detach(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        let mut net = links::open()?;
        self.del_proxies(&mut net, addresses);
        let name = self.paths.link(ctid);
        // Deleting a pair takes the kernel 16 ms, going down with its namespace 2.
        if failed("look for link", &name, links::gone_within(&mut net, &name, WITH_ITS_NAMESPACE))? {
            return Ok(());
        }
        failed("delete link", &name, links::delete(&mut net, &name))
    }

    /// Routes further addresses to a running container. [`Network::allow`] comes first.
    ///
    /// # Errors
    /// The container has no link, or a route cannot be made.
    pub fn add_addresses(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        let mut net = links::open()?;
        let name = self.paths.link(ctid);
        let link = failed("look for link", &name, net.link(&name))?;
        let index = link.map(|l| l.header.index).ok_or_else(|| gone(&name))?;
        if addresses.iter().any(|a| a.ip().is_ipv6()) {
            failed("add an address to", &name, links::add_host_address(&mut net, index, links::HOST_V6))?;
        }
        self.route_and_proxy(&mut net, index, addresses)
    }

    /// Routes addresses to a running container no longer. [`Network::deny`] comes next.
    ///
    /// # Errors
    /// A route is there and cannot be deleted.
    pub fn del_addresses(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        let mut net = links::open()?;
        self.del_proxies(&mut net, addresses);
        let name = self.paths.link(ctid);
        let Some(link) = failed("look for link", &name, net.link(&name))? else { return Ok(()) };
        for a in addresses {
            failed("delete the route to", a, links::del_route(&mut net, link.header.index, *a))?;
        }
        Ok(())
    }

    /// Does the host itself have the address, or a link of somebody else's (another manager's container)? Asked at every
    /// start, because it may have come since the address was configured; the neighbours are not asked again.
    ///
    /// # Errors
    /// [`NetworkError::InUse`] naming by whom.
    pub fn free_on_host(&self, address: &CtAddr) -> Result<(), NetworkError> {
        self.reached(&mut links::open()?, address).map(drop)
    }

    /// Is the address free, as far as the host can tell? Looks at the host's own addresses and routes, and asks
    /// the neighbours on an uplink where the address would be on the link itself (400 ms when nobody answers).
    ///
    /// # Errors
    /// [`NetworkError::InUse`] naming by whom.
    pub fn probe(&self, address: &CtAddr) -> Result<(), NetworkError> {
        let mut net = links::open()?;
        match self.reached(&mut net, address)? {
            Reach::OnLink { link } if failed("look at", "the uplink", links::has_neighbours(&mut net, link))? => {
                let answer =
                    failed("ask the neighbours for", address, links::neighbour(&mut net, link, *address, PROBE))?;
                match answer {
                    Some(mac) => {
                        let mac: Vec<String> = mac.iter().map(|b| format!("{b:02x}")).collect();
                        let by = format!("the machine with hardware address {} answers for it", mac.join(":"));
                        Err(NetworkError::InUse { address: *address, by })
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// How the host reaches the address, where it is neither the host's own nor on a link of somebody else's.
    fn reached(&self, net: &mut rt::Netlink, address: &CtAddr) -> Result<Reach, NetworkError> {
        let in_use = |by: String| Err(NetworkError::InUse { address: *address, by });
        match failed("look up the route to", address, links::reach(net, *address))? {
            Reach::Local => in_use("it is an address of this host".into()),
            Reach::Exactly { link } => {
                let found = failed("look at the link to", address, net.link_at(link))?;
                let name = found.as_ref().and_then(vz_sys::netlink::link_name).unwrap_or("?").to_owned();
                // Our own links are the inventory's business, and it knows better.
                match self.is_ours(&name) {
                    true => Ok(Reach::Exactly { link }),
                    false => in_use(format!("this host routes it to link {name}")),
                }
            }
            other => Ok(other),
        }
    }

    fn is_ours(&self, link: &str) -> bool {
        link.strip_prefix(&self.paths.link_prefix()).is_some_and(|rest| rest.parse::<Ctid>().is_ok())
    }

    /// Our links that exist now, with their containers.
    ///
    /// # Errors
    /// The links cannot be listed.
    pub fn links(&self) -> Result<Vec<(Ctid, String)>, NetworkError> {
        let all = failed("list the links of", "this host", links::open()?.links())?;
        let prefix = self.paths.link_prefix();
        let ours = |name: &str| name.strip_prefix(&prefix)?.parse::<Ctid>().ok();
        Ok(all.iter().filter_map(vz_sys::netlink::link_name).filter_map(|n| Some((ours(n)?, n.to_owned()))).collect())
    }

    /// Removes links, with their routes, of containers that do not run; answers what was done, one sentence each.
    pub fn sweep(&self, running: &BTreeSet<Ctid>) -> Vec<String> {
        let mut said = Vec::new();
        let Ok(mut net) = links::open() else { return vec!["cannot open a netlink socket".into()] };
        for (_, name) in self.links().unwrap_or_default().into_iter().filter(|(c, _)| !running.contains(c)) {
            match links::delete(&mut net, &name) {
                Ok(()) => said.push(format!("deleted the leftover link {name}")),
                Err(e) => said.push(format!("cannot delete the leftover link {name}: {e}")),
            }
        }
        let answered = links::proxies(&mut net).unwrap_or_default();
        let stale: Vec<CtAddr> = {
            let state = self.state();
            let stopped = state.allowed.iter().filter(|(c, _)| !running.contains(c)).flat_map(|(_, all)| all);
            let is_answered = |a: &&CtAddr| state.uplinks.iter().any(|u| answered.contains(&(u.index, a.ip())));
            stopped.filter(is_answered).copied().collect()
        };
        self.del_proxies(&mut net, &stale);
        said
    }

    /// Removes our tables: for a manager that gives up its host.
    ///
    /// # Errors
    /// nft is missing or refuses.
    pub fn remove_tables(&self) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.allowed.clear();
        (state.loaded, state.rules, state.sure) = (false, None, None);
        self.tables.delete()
    }
}

impl State {
    fn disallow(&mut self, ctid: Ctid, addresses: &[CtAddr]) {
        if let Some(own) = self.allowed.get_mut(&ctid) {
            own.retain(|a| !addresses.contains(a));
            if own.is_empty() {
                self.allowed.remove(&ctid);
            }
        }
    }
}

/// The generation of the host's nftables; `None`: it cannot be told.
fn generation() -> Option<u32> {
    vz_sys::nftables::generation().ok()
}

/// The generation we are sure of after a change of our own, which raises it by one, or by nothing if there was nothing to
/// change. `sure`: the one before; `before`, `after`: as read around the change.
fn still_sure(sure: Option<u32>, before: Option<u32>, after: Option<u32>) -> Option<u32> {
    let (sure, after) = (sure.filter(|_| sure == before)?, after?);
    // The kernel leaves out 0.
    (after == sure || after == sure.checked_add(1).unwrap_or(1)).then_some(after)
}

fn gone(name: &str) -> NetworkError {
    NetworkError::Io { what: "find link", on: name.to_owned(), source: io::Error::from_raw_os_error(libc::ENODEV) }
}

/// A locally administered address, the same for the same container of the same manager.
fn mac(tag: &str, ctid: Ctid) -> [u8; 6] {
    let hash = tag.bytes().fold(0x5au8, |h, b| h.wrapping_mul(31).wrapping_add(b));
    let [a, b, c, d] = ctid.get().to_be_bytes();
    [0x02, hash, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_local_unicast_and_differ() {
        let (one, two) = (101.try_into().unwrap(), 102.try_into().unwrap());
        assert_eq!(mac("", one)[0] & 3, 2);
        assert_ne!(mac("", one), mac("", two));
        assert_ne!(mac("abc", one), mac("abd", one));
    }

    #[test]
    fn a_change_of_our_own_leaves_us_sure_and_anybody_elses_does_not() {
        assert_eq!(still_sure(Some(5), Some(5), Some(6)), Some(6));
        assert_eq!(still_sure(Some(5), Some(5), Some(5)), Some(5), "there was nothing to change");
        assert_eq!(still_sure(Some(u32::MAX), Some(u32::MAX), Some(1)), Some(1));
        assert_eq!(still_sure(Some(5), Some(5), Some(7)), None, "somebody came between");
        assert_eq!(still_sure(Some(4), Some(5), Some(6)), None, "somebody came before");
        assert_eq!(still_sure(None, Some(5), Some(6)), None);
        assert_eq!(still_sure(Some(5), Some(5), None), None);
    }

    #[test]
    fn ranges_have_no_host_part() {
        for good in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "fc00::/7", "::/0"] {
            assert_eq!(good.parse::<Subnet>().unwrap().to_string(), good);
        }
        for bad in ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "fc00::1/7", "x/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
