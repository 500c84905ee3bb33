//! Links, filters and cgroups. A cgroup is a directory in which limits are plain files.

use super::{Seat, State};
use crate::{
    hands::{Links, Tree},
    limits::cgroup,
    network::{Expected, NetworkError, Repaired},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    time::Duration,
};
use vz_types::{CtAddr, Ctid, UidBase};

fn error(what: &'static str, ctid: Ctid) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Io { what, on: format!("CT {ctid}"), source }
}

impl Links for Seat {
    fn prepare_host(&self) -> Result<(), NetworkError> {
        let fails = |source| NetworkError::Io { what: "prepare", on: "the host".into(), source };
        self.call("prepare_host", |_| Ok(()), fails)
    }

    fn load_table(&self, all: &[(Ctid, Vec<CtAddr>)]) -> Result<(), NetworkError> {
        let fails = |source| NetworkError::Io { what: "load", on: "the filter".into(), source };
        self.call(
            "load_table",
            |state| {
                let of = |(ctid, ips): &(Ctid, Vec<CtAddr>)| (*ctid, ips.iter().copied().collect());
                state.allowed = all.iter().map(of).collect();
                Ok(())
            },
            fails,
        )
    }

    fn sweep(&self, running: &BTreeSet<Ctid>) -> Vec<String> {
        self.sure("sweep links", |state| {
            state.links.retain(|ctid, _| running.contains(ctid));
            Vec::new()
        })
    }

    fn allow(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.call(
            "allow",
            |state| {
                for (other, theirs) in state.allowed.iter().filter(|(c, _)| **c != ctid) {
                    if let Some(ip) = addresses.iter().find(|ip| theirs.contains(ip)) {
                        state.wrongs.push(format!("{ip} is allowed to CT {other} and CT {ctid}"));
                    }
                }
                state.allowed.entry(ctid).or_default().extend(addresses);
                Ok(())
            },
            error("allow addresses of", ctid),
        )
    }

    fn deny(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.call(
            "deny",
            |state| {
                if let Some(all) = state.allowed.get_mut(&ctid) {
                    all.retain(|ip| !addresses.contains(ip));
                }
                Ok(())
            },
            error("deny addresses of", ctid),
        )
    }

    fn attach(&self, ctid: Ctid, _: BorrowedFd<'_>, addresses: &[CtAddr]) -> Result<String, NetworkError> {
        let name = self.paths().link(ctid);
        self.call(
            "attach",
            |state| {
                state.only_allowed(ctid, addresses);
                state.links.insert(ctid, addresses.iter().copied().collect());
                Ok(name)
            },
            error("make the link of", ctid),
        )
    }

    fn detach(&self, ctid: Ctid, _: &[CtAddr]) -> Result<(), NetworkError> {
        self.call(
            "detach",
            |state| {
                if state.links.remove(&ctid).is_some() && state.runs(ctid) {
                    state.wrongs.push(format!("CT {ctid} lost its link while it runs"));
                }
                Ok(())
            },
            error("delete the link of", ctid),
        )
    }

    fn add_addresses(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.call(
            "add_addresses",
            |state| {
                state.only_allowed(ctid, addresses);
                state.links.entry(ctid).or_default().extend(addresses);
                Ok(())
            },
            error("route addresses to", ctid),
        )
    }

    fn del_addresses(&self, ctid: Ctid, addresses: &[CtAddr]) -> Result<(), NetworkError> {
        self.call(
            "del_addresses",
            |state| {
                if let Some(all) = state.links.get_mut(&ctid) {
                    all.retain(|ip| !addresses.contains(ip));
                }
                Ok(())
            },
            error("route addresses no longer to", ctid),
        )
    }

    fn lacking(&self, expected: &[Expected]) -> Result<Vec<Ctid>, NetworkError> {
        let fails = |source| NetworkError::Io { what: "look at", on: "links".into(), source };
        let lacks = |state: &State, e: &Expected| match state.links.get(&e.ctid) {
            Some(has) => !e.addresses.iter().all(|ip| has.contains(ip)),
            None => true,
        };
        let look = |state: &mut State| Ok(expected.iter().filter(|e| lacks(state, e)).map(|e| e.ctid).collect());
        self.call("lacking", look, fails)
    }

    fn repair(&self, expected: &Expected) -> Result<Repaired, NetworkError> {
        let ctid = expected.ctid;
        self.call(
            "repair",
            |state| {
                state.only_allowed(ctid, &expected.addresses);
                if !state.runs(ctid) {
                    state.wrongs.push(format!("CT {ctid} got a link and does not run"));
                }
                let relinked = !state.links.contains_key(&ctid);
                let has = state.links.entry(ctid).or_default();
                let mut said = Vec::new();
                for ip in expected.addresses.iter().filter(|ip| has.insert(**ip)) {
                    said.push(format!("routed {ip} again"));
                }
                Ok(Repaired { said, relinked })
            },
            error("repair the link of", ctid),
        )
    }

    fn free_on_host(&self, address: &CtAddr) -> Result<(), NetworkError> {
        let fails = |source| NetworkError::Io { what: "look for", on: address.to_string(), source };
        self.call("free_on_host", |_| Ok(()), fails)
    }

    fn probe(&self, address: &CtAddr) -> Result<(), NetworkError> {
        let fails = |source| NetworkError::Io { what: "probe", on: address.to_string(), source };
        self.call("probe", |_| Ok(()), fails)
    }
}

impl State {
    fn only_allowed(&mut self, ctid: Ctid, addresses: &[CtAddr]) {
        let allowed = self.allowed.get(&ctid).cloned().unwrap_or_default();
        for ip in addresses.iter().filter(|ip| !allowed.contains(ip)) {
            self.wrongs.push(format!("{ip} is routed to CT {ctid} before the filter knows it"));
        }
    }
}

/// The cgroup tree of one vzd.
#[derive(Debug)]
pub struct Cgroups {
    seat: Seat,
    mount: PathBuf,
    base: PathBuf,
    controllers: Vec<String>,
}

impl Cgroups {
    pub(super) fn new(seat: Seat) -> Self {
        let mount = seat.paths().base.join("cgroup");
        let base = mount.join("vz");
        fs::create_dir_all(&base).unwrap();
        Self { seat, mount, base, controllers: vec!["pids".into()] }
    }

    fn error(&self, what: &'static str, ctid: Ctid) -> impl FnOnce(io::Error) -> cgroup::Error {
        let path = self.path(ctid);
        move |source| cgroup::Error::Io { path, what, source }
    }
}

impl Tree for Cgroups {
    fn create(&self, ctid: Ctid, _: UidBase) -> Result<PathBuf, cgroup::Error> {
        let path = self.path(ctid);
        let make = |_: &mut State| {
            let made = fs::create_dir_all(path.join("ns")).and_then(|()| match path.join("pids.max") {
                there if there.exists() => Ok(()),
                max => fs::write(max, "max"),
            });
            made.map_err(self.error("making it", ctid))?;
            Ok(path.clone())
        };
        self.seat.call("cgroup create", make, self.error("making it", ctid))
    }

    fn kill(&self, ctid: Ctid, _: Duration) -> Result<(), cgroup::Error> {
        let kill = |state: &mut State| {
            state.end_of(ctid, vz_types::run::ExitReason::Killed);
            Ok(())
        };
        self.seat.call("cgroup kill", kill, self.error("killing what is in it", ctid))
    }

    fn populated(&self, ctid: Ctid) -> io::Result<bool> {
        self.seat.call("populated", |state| Ok(state.is_populated(ctid)), |e| e)
    }

    fn remove(&self, ctid: Ctid) -> Result<(), cgroup::Error> {
        let path = self.path(ctid);
        let remove = |state: &mut State| {
            if state.is_populated(ctid) {
                return Err(cgroup::Error::Populated { path: path.clone(), seconds: 0 });
            }
            match fs::remove_dir_all(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("removing it", ctid)(e)),
                _ => Ok(()),
            }
        };
        self.seat.call("cgroup remove", remove, self.error("removing it", ctid))
    }

    fn count(&self, _: Ctid) -> Option<u64> {
        Some(1)
    }

    fn list(&self) -> Vec<Ctid> {
        let entries = fs::read_dir(&self.base).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    }

    fn monitors(&self) -> Result<File, cgroup::Error> {
        File::open(&self.base).map_err(|source| cgroup::Error::Io {
            path: self.base.clone(),
            what: "opening it",
            source,
        })
    }

    fn keep_monitor(&self, _: i32) -> Result<(), cgroup::Error> {
        Ok(())
    }

    fn path(&self, ctid: Ctid) -> PathBuf {
        self.base.join(ctid.to_string())
    }

    fn mount(&self) -> &Path {
        &self.mount
    }

    fn base(&self) -> &Path {
        &self.base
    }

    fn controllers(&self) -> &[String] {
        &self.controllers
    }
}
