//! What vzd does before it serves: every interrupted operation is rolled back or forward, running
//! containers are found again, and what ended meanwhile is cleared away. Also the rebuilding of a lost
//! inventory.

use super::{
    Engine, Error, Result,
    create::Identity,
    lock, make_dirs, process,
    run::{Live, Steps, illegible, read_record},
    start::StartNote,
};
use crate::{
    conf::ConfStore,
    inventory::{Inventory, JournalRow},
    storage,
};
use std::{collections::BTreeSet, fs, sync::Arc};
use vz_types::{Ctid, Paths, state::Op};

impl Engine {
    /// Brings the host to a state in which every operation can begin. Never fails as a whole: what cannot
    /// be put right is logged, and the containers it does not concern are served.
    pub fn recover(self: &Arc<Self>) -> Result<()> {
        let rows = self.inventory.containers()?;
        let known: BTreeSet<Ctid> = rows.iter().map(|r| r.ctid).collect();
        if let Err(e) = self.network.prepare_host() {
            tracing::error!("the host's network is not ready for containers: {}", Error::from(e).report());
        }
        let claims = rows.iter().filter_map(|r| {
            let ips: Vec<_> = self.inventory.addresses(r.ctid).ok()?.into_iter().map(|(ip, _)| ip).collect();
            Some((r.ctid, ips))
        });
        if let Err(e) = self.network.load_table(&claims.collect::<Vec<_>>()) {
            tracing::error!("the packet filter could not be loaded: {}", Error::from(e).report());
        }
        for row in &rows {
            if let Some(live) = Live::find(&self.paths.ct_run(row.ctid), &self.boot_id) {
                tracing::info!(ctid = row.ctid.get(), monitor = live.record.monitor.pid, "found running");
                self.keep_monitor(live.record.monitor.pid);
                *lock(&self.cell(row.ctid).live) = Some(live);
            } else if self.runs_unread(row.ctid) {
                tracing::error!(
                    ctid = row.ctid.get(),
                    "it runs, but its monitor's record cannot be read; it is left alone until it is stopped: {}",
                    illegible(&self.paths.ct_run(row.ctid)).unwrap_or_default()
                );
            }
        }
        for open in self.inventory.journal()? {
            tracing::warn!(ctid = open.ctid.get(), op = open.op.word(), step = open.step, "was interrupted");
            self.finish(&open, "vzd ended");
        }
        self.clear_ended(&known);
        self.clear_strangers(&known);
        // Spared: what runs, and what the operator has mounted. A mount that is not whole is a leftover.
        let rows = self.inventory.containers()?;
        let spared = rows.iter().filter(|r| self.running_now(r.ctid) || self.is_mounted(r)).map(|r| r.ctid).collect();
        for said in storage::sweep(&self.paths, &spared) {
            tracing::info!("{said}");
        }
        let running = rows.iter().filter(|r| self.running_now(r.ctid)).map(|r| r.ctid).collect();
        for said in self.network.sweep(&running) {
            tracing::info!("{said}");
        }
        self.sweep_own_files(&running);
        self.conf.sweep();
        if let Err(e) = self.templates.sweep() {
            tracing::warn!("sweeping templates: {e}");
        }
        for row in self.inventory.containers()? {
            let monitor = lock(&self.cell(row.ctid).live).as_ref().map(|l| l.monitor.clone());
            if let Some(monitor) = monitor {
                self.watcher.add(self, row.ctid, monitor, None);
            }
        }
        Ok(())
    }

    /// Finishes an operation whose end could not be noted, as on a full disk; the caller has just taken the container,
    /// so nobody works on it any more.
    pub(crate) fn finish_abandoned(&self, ctid: Ctid) -> Result<()> {
        if let Some(open) = self.inventory.journal_of(ctid)? {
            tracing::warn!(ctid = ctid.get(), op = open.op.word(), step = open.step, "was left open");
            self.finish(&open, "its end could not be noted");
        }
        Ok(())
    }

    /// Rolls one interrupted operation back or forward.
    fn finish(&self, open: &JournalRow, why: &str) {
        let ctid = open.ctid;
        let row = match self.inventory.container(ctid) {
            Ok(row) => row,
            Err(e) => return tracing::error!(ctid = ctid.get(), "{e}"),
        };
        let note = format!("{} was interrupted at step `{}`, because {why}; ", open.op.word(), open.step);
        let mut outcome = "it was taken back";
        match (open.op, &row) {
            (Op::Create, _) => self.undo_create(ctid),
            (Op::Destroy, _) => {
                let mut steps = Steps::new(self, Op::Destroy, ctid);
                if let Err(e) = self.finish_destroy(&mut steps, ctid) {
                    tracing::error!(ctid = ctid.get(), "{}", e.report());
                }
            }
            (_, None) => self.close(ctid),
            (Op::Start | Op::Restart, Some(row)) => {
                let note: StartNote = serde_json::from_str(&open.payload).unwrap_or_default();
                match self.running_now(ctid) {
                    // Its monitor has the word to go already, so it runs with or without us.
                    true => {
                        outcome = "the container was found running";
                        self.close(ctid);
                    }
                    false => self.undo_start(row, note),
                }
            }
            (Op::Stop, Some(row)) => {
                // A stop goes forward: the container was asked to end, and ends.
                let live = lock(&self.cell(ctid).live).clone();
                outcome = "it was carried through";
                for problem in self.take_down(row, live.as_ref(), true) {
                    tracing::warn!(ctid = ctid.get(), "{problem}");
                }
                self.close(ctid);
            }
            (Op::Mount | Op::Umount, Some(_)) => self.undo_mount(ctid),
            (Op::Set, Some(row)) => {
                outcome = "the container is as its configuration says";
                self.converge(row, &serde_json::from_str(&open.payload).unwrap_or_default());
            }
        }
        if row.is_some() && !matches!(open.op, Op::Create | Op::Destroy) {
            if let Err(e) = self.inventory.set_last_failure(ctid, Some(&format!("{note}{outcome}"))) {
                tracing::warn!(ctid = ctid.get(), "{e}");
            }
        }
    }

    fn close(&self, ctid: Ctid) {
        if let Err(e) = self.inventory.journal_close(ctid, false) {
            tracing::error!(ctid = ctid.get(), "{e}");
        }
    }

    fn running_now(&self, ctid: Ctid) -> bool {
        match lock(&self.cell(ctid).live).as_ref() {
            Some(live) => !live.ended(),
            None => self.runs_unread(ctid),
        }
    }

    /// Containers whose monitor is gone but whose remains are there: run directory, cgroup, or a record.
    fn clear_ended(&self, known: &BTreeSet<Ctid>) {
        let with_cgroup: BTreeSet<Ctid> = self.cgroups().map(|c| c.list().into_iter().collect()).unwrap_or_default();
        for ctid in known.iter().filter(|c| !self.running_now(**c)) {
            let run_dir = self.paths.ct_run(*ctid);
            if !run_dir.exists() && !with_cgroup.contains(ctid) {
                continue;
            }
            let Ok(Some(row)) = self.inventory.container(*ctid) else { continue };
            tracing::info!(ctid = ctid.get(), "ended while vzd did not run");
            for problem in self.take_down(&row, None, true) {
                tracing::warn!(ctid = ctid.get(), "{problem}");
            }
        }
    }

    /// Run directories and cgroups of containers nobody knows: killed and removed, for their numbers may
    /// be used again.
    fn clear_strangers(&self, known: &BTreeSet<Ctid>) {
        let mut strangers: BTreeSet<Ctid> = self.cgroups().map(|c| c.list().into_iter().collect()).unwrap_or_default();
        if let Ok(entries) = fs::read_dir(self.paths.ct_run_dir()) {
            strangers.extend(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<Ctid>().ok()));
        }
        for ctid in strangers.difference(known) {
            tracing::warn!(ctid = ctid.get(), "remains of a container that is not in the inventory are removed");
            let run_dir = self.paths.ct_run(*ctid);
            if let Some(monitor) = read_record(&run_dir).and_then(|r| process::open(r.monitor)) {
                process::kill(&monitor);
            }
            let cleared = self
                .cgroups()
                .and_then(|c| Ok(c.kill(*ctid, std::time::Duration::from_secs(10)).and_then(|()| c.remove(*ctid))?))
                .and_then(|()| Ok(self.network.detach(*ctid, &[])?))
                .and_then(|()| super::start::clear_run_dir(&run_dir));
            if let Err(e) = cleared {
                tracing::warn!(ctid = ctid.get(), "{}", e.report());
            }
        }
    }
}

/// Builds an inventory anew from configuration files and private areas; the one that is there is put aside.
/// Answers a line per container. The caller holds the manager's lock.
pub fn rebuild(paths: &Paths) -> Result<Vec<String>> {
    make_dirs(paths)?;
    let file = paths.inventory();
    for suffix in ["", "-wal", "-shm"] {
        let mut old = file.clone().into_os_string();
        old.push(suffix);
        let mut aside = file.clone().into_os_string();
        aside.push(format!(".old-{}{suffix}", super::now()));
        match fs::rename(&old, &aside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { what: "putting aside", path: old.into(), source: e });
            }
            _ => {}
        }
    }
    let inventory = Inventory::open_or_make(&file)?;
    let conf = ConfStore::new(paths.clone());
    let dir = paths.private_dir();
    let mut found: Vec<Ctid> = fs::read_dir(&dir)
        .map_err(Error::io("listing", &dir))?
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    let mut lines = Vec::new();
    for ctid in found {
        lines.push(match adopt(paths, &inventory, &conf, ctid) {
            Ok(warning) => format!("CT {ctid}: taken in{warning}"),
            Err(e) => format!("CT {ctid}: left out: {}", e.report()),
        });
    }
    for ctid in conf.list() {
        if !paths.private(ctid).is_dir() {
            lines.push(format!("CT {ctid}: left out: {} has no private area", paths.conf(ctid).display()));
        }
    }
    Ok(lines)
}

fn adopt(paths: &Paths, inventory: &Inventory, conf: &ConfStore, ctid: Ctid) -> Result<String> {
    let path = paths.private(ctid).join("ct.json");
    let text = fs::read(&path).map_err(Error::io("reading", &path))?;
    let Identity { mut row } = serde_json::from_slice(&text).map_err(|e| Error::Io {
        what: "reading",
        path: path.clone(),
        source: e.into(),
    })?;
    if row.ctid != ctid {
        let message = format!("{} is of CT {}", path.display(), row.ctid);
        return Err(Error::refused(vz_types::ExitCode::BadConfig, message, ""));
    }
    let (config, warning) = match conf.read(ctid) {
        Ok(config) => (Some(config), String::new()),
        Err(e) => (None, format!(", without name and addresses: {e}")),
    };
    row.name = config.as_ref().and_then(|c| c.name.clone());
    let addresses = config.map(|c| c.network.ip.clone()).unwrap_or_default();
    inventory.adopt(&row, &addresses)?;
    Ok(warning)
}
