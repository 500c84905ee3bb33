//! Links of containers behind a small interface, so that what is done with them can be tried without a network.

use super::{Expected, Network, NetworkError, Repaired};
use std::{collections::BTreeSet, fmt::Debug, os::fd::BorrowedFd};
use vz_types::{CtAddr, Ctid};

/// Links, routes and filters of containers.
pub trait Links: Send + Sync + Debug {
    /// Switches on what containers need of the host.
    fn prepare_host(&self) -> Result<(), NetworkError>;
    /// Makes the filter anew: exactly these addresses may be used.
    fn load_table(&self, all: &[(Ctid, Vec<CtAddr>)]) -> Result<(), NetworkError>;
    /// Deletes links of containers that do not run. What it did, a sentence each.
    fn sweep(&self, running: &BTreeSet<Ctid>) -> Vec<String>;
    /// Lets a container use these addresses, besides those it has.
    fn allow(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError>;
    /// Takes addresses from a container.
    fn deny(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError>;
    /// Makes the container's link with its routes.
    fn attach(&self, ctid: Ctid, netns: BorrowedFd<'_>, addresses: &[CtAddr]) -> Result<String, NetworkError>;
    /// Takes the link away, if it is still there.
    fn detach(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError>;
    /// Routes further addresses to a running container.
    fn add_addresses(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError>;
    /// Routes addresses to it no longer.
    fn del_addresses(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError>;
    /// Which of these lack something of their link. It only looks: anybody may ask.
    fn lacking(&self, expected: &[Expected]) -> Result<Vec<Ctid>, NetworkError>;
    /// Puts back what others took away of a running container's link. Only for who may change that container.
    fn repair(&self, expected: &Expected) -> Result<Repaired, NetworkError>;
    /// Whether neither the host nor a stranger's link has the address.
    fn free_on_host(&self, address: &CtAddr) -> Result<(), NetworkError>;
    /// The same, neighbours asked too.
    fn probe(&self, address: &CtAddr) -> Result<(), NetworkError>;
}

impl Links for Network {
    fn prepare_host(&self) -> Result<(), NetworkError> {
        self.prepare_host()
    }
    fn load_table(&self, all: &[(Ctid, Vec<CtAddr>)]) -> Result<(), NetworkError> {
        self.load_table(all)
    }
    fn sweep(&self, running: &BTreeSet<Ctid>) -> Vec<String> {
        self.sweep(running)
    }
    fn allow(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.allow(ctid, addresses)
    }
    fn deny(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.deny(ctid, addresses)
    }
    fn attach(&self, ctid: Ctid, netns: BorrowedFd<'_>, addresses: &[CtAddr]) -> Result<String, NetworkError> {
        self.attach(ctid, netns, addresses)
    }
    fn detach(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.detach(ctid, addresses)
    }
    fn add_addresses(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.add_addresses(ctid, addresses)
    }
    fn del_addresses(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.del_addresses(ctid, addresses)
    }
    fn lacking(&self, expected: &[Expected]) -> Result<Vec<Ctid>, NetworkError> {
        self.lacking(expected)
    }
    fn repair(&self, expected: &Expected) -> Result<Repaired, NetworkError> {
        self.repair(expected)
    }
    fn free_on_host(&self, address: &CtAddr) -> Result<(), NetworkError> {
        self.free_on_host(address)
    }
    fn probe(&self, address: &CtAddr) -> Result<(), NetworkError> {
        self.probe(address)
    }
}
