//! `create`: claims, a private area made aside and renamed into place, the configuration, commit.
//!
//! Until the commit everything is undone by [`Engine::undo_create`], which finds what there is by itself.

use super::{Changes, CreateSpec, Engine, Error, Outcome, Result, disk_spec, edits, process, run::Steps};
use crate::{
    conf,
    inventory::{CtRow, NewCt},
    storage,
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use vz_types::{
    CtConfig, CtState, Ctid, ExitCode,
    config::DiskConfig,
    plan::EditPlan,
    state::{Op, Verdict, decide},
};

/// `private/<CTID>/ct.json`: what the inventory can be rebuilt from. Also lies in the private area because
/// the uid range belongs to the files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// What a [`CtRow`] holds; outcomes are left out.
    #[serde(flatten)]
    pub(crate) row: CtRow,
}

impl Engine {
    /// Makes a container.
    pub fn create(&self, spec: &CreateSpec) -> Result<Outcome> {
        let ctid = spec.ctid;
        let _guard = self.take(ctid, Op::Create)?;
        let state = self.inventory.container(ctid)?.map_or(CtState::Absent, |row| self.settled_state(&row));
        if let Verdict::Deny(code, sentence) = decide(Op::Create, state, false, false) {
            return Err(Error::refused(code, format!("CT {ctid}: {sentence}"), ""));
        }
        self.refuse_leftovers(ctid)?;
        let template = self.templates.ready(&spec.template)?;
        let config = self.new_config(spec)?;
        self.probe(&config.network.ip)?;
        let new = NewCt {
            ctid,
            uuid: process::new_uuid().map_err(Error::io("reading", "/proc/sys/kernel/random/uuid"))?,
            name: config.name.clone(),
            first_slot: self.paths.first_uid_slot(),
            template: spec.template.clone(),
            template_digest: template.digest,
            layout: spec.layout,
            addresses: config.network.ip.clone(),
        };
        let mut steps = Steps::new(self, Op::Create, ctid);
        let row = steps.run("claim", || Ok(self.inventory.claim_create(&new, "{}")?))?;
        steps.journalled();
        match self.create_steps(&mut steps, &row, &config, &spec.changes) {
            Ok(()) => Ok(steps.outcome(vec![
                format!("Creating container private area ({})", spec.template),
                "Container private area was created".into(),
            ])),
            Err(e) => {
                self.undo_create(ctid);
                Err(e)
            }
        }
    }

    fn create_steps(&self, steps: &mut Steps<'_>, row: &CtRow, config: &CtConfig, changes: &Changes) -> Result<()> {
        let ctid = row.ctid;
        let (staging, private) = (self.staging(ctid), self.paths.private(ctid));
        let addresses = &config.network.ip;
        let text = self.conf.render(ctid, config)?;
        // The filter's program, the area and the configuration have nothing to wait for in each other.
        std::thread::scope(|scope| {
            let filter = scope.spawn(|| self.network.allow(ctid, addresses));
            let conf = scope.spawn(|| self.conf.replace(ctid, &text));
            steps.run("layer", || {
                fs::DirBuilder::new().mode(0o700).create(&staging).map_err(Error::io("making", &staging))?;
                write_identity(&staging, row)?;
                // Makes the directory durable with all that is in it.
                Ok(storage::create_layer(&staging, &disk_spec(config), &storage::cache_dir(&self.paths))?)
            })?;
            steps.run("place", || {
                fs::rename(&staging, &private).map_err(Error::io("placing the private area at", &private))
            })?;
            steps.run("filter", || Ok(joined(filter)?))?;
            steps.run("conf", || Ok(joined(conf)?))
        })?;
        if changes.touches_files() {
            steps.run("inside", || self.edit_stopped(row, edits::now(changes)))?;
        }
        steps.run("commit", || Ok(self.inventory.journal_close(ctid, true)?))
    }

    /// Mounts a stopped container, edits its files from inside, and unmounts it again.
    pub(crate) fn edit_stopped(&self, row: &CtRow, edits: Vec<vz_types::plan::FileEdit>) -> Result<()> {
        let monitor = self.monitor()?;
        let storage = self.storage_plan(row);
        let was_mounted = storage::is_mounted(&storage).map_err(Error::io("looking at", &storage.root))?;
        if !was_mounted {
            self.make_root(&storage.root)?;
            monitor.task("mount", &storage, &self.paths)?;
        }
        let done = monitor.task("edit", &EditPlan { ctid: row.ctid, storage: storage.clone(), edits }, &self.paths);
        let umounted = if was_mounted { Ok(()) } else { self.hide(&storage) };
        done?;
        umounted
    }

    /// Unmounts a container's files and removes the mount point, which is ours and empty then.
    pub(crate) fn hide(&self, plan: &vz_types::plan::StoragePlan) -> Result<()> {
        match storage::umount(plan) {
            // Unmounted here; another mount namespace (a copy of ours) keeps the image's loop device, which the
            // next mount uses again.
            Err(storage::StorageError::Busy { path, by }) if path.ends_with("disk.img") => {
                tracing::warn!(path = %path.display(), "unmounted, but still in use{by}");
            }
            done => done?,
        }
        let _ = fs::remove_dir(&plan.root);
        Ok(())
    }

    /// The mount point of a container's root.
    pub(crate) fn make_root(&self, root: &Path) -> Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(Error::io("making", root))
    }

    /// Takes back whatever an interrupted or failed create has done. Problems are logged: what is left is
    /// met again at the next start.
    pub(crate) fn undo_create(&self, ctid: Ctid) {
        let mut problems: Vec<String> = Vec::new();
        let mut attempt = |r: Result<()>| problems.extend(r.err().map(|e| e.report()));
        if let Ok(Some(row)) = self.inventory.container(ctid) {
            let storage = self.storage_plan(&row);
            attempt(storage::umount(&storage).map_err(Error::from));
        }
        let addresses: Vec<_> =
            self.inventory.addresses(ctid).unwrap_or_default().into_iter().map(|(ip, _)| ip).collect();
        if !addresses.is_empty() {
            attempt(self.network.deny(ctid, &addresses).map_err(Error::from));
        }
        attempt(self.conf.remove(ctid).map_err(Error::from));
        for tree in [self.staging(ctid), self.paths.private(ctid)] {
            if tree.exists() {
                attempt(storage::remove_tree(&tree).map_err(Error::from));
            }
        }
        let _ = fs::remove_dir(self.paths.root(ctid));
        attempt(self.inventory.forget(ctid, false).map_err(Error::from));
        for p in problems {
            tracing::warn!(ctid = ctid.get(), op = "create", "undo: {p}");
        }
    }

    /// Where a private area is made before it has its name.
    pub(crate) fn staging(&self, ctid: Ctid) -> PathBuf {
        self.paths.private_dir().join(format!(".new-{ctid}"))
    }

    /// Files of a container that the inventory does not know are somebody's data: never overwritten.
    fn refuse_leftovers(&self, ctid: Ctid) -> Result<()> {
        for there in [self.paths.private(ctid), self.paths.conf(ctid)] {
            if there.exists() {
                let message =
                    format!("CT {ctid}: {} exists, although the inventory knows no such container", there.display());
                return Err(Error::refused(
                    ExitCode::Exists,
                    message,
                    "`vzd recover` takes the container in again; or move the file away",
                ));
            }
        }
        Ok(())
    }

    fn new_config(&self, spec: &CreateSpec) -> Result<CtConfig> {
        let d = &self.config.defaults;
        let mut config = CtConfig {
            ostemplate: spec.template.clone(),
            layout: spec.layout,
            name: None,
            description: None,
            hostname: None,
            onboot: None,
            bootorder: None,
            disabled: false,
            features: Vec::new(),
            stop_timeout: None,
            network: Default::default(),
            disk: DiskConfig { space: d.diskspace, inodes: d.diskinodes },
            limits: Default::default(),
            cpu: Default::default(),
            io: Default::default(),
        };
        config.network.nameserver.clone_from(&d.nameserver);
        let config = match &spec.changes.sample {
            Some(name) => self.sample(name)?.apply_to_new(&config),
            None => config,
        };
        let config = spec.changes.apply(&config);
        check_config(&config)?;
        self.check_host_size(&config, ExitCode::BadValue)?;
        Ok(config)
    }

    /// Asks the network whether anybody else answers for these addresses.
    pub(crate) fn probe(&self, addresses: &[vz_types::CtAddr]) -> Result<()> {
        for ip in addresses {
            self.network.probe(ip)?;
        }
        Ok(())
    }
}

/// The rules of [`conf::fault`], as a refusal of a request.
pub(crate) fn check_config(config: &CtConfig) -> Result<()> {
    match conf::fault(config) {
        None => Ok(()),
        Some((key, cause)) => Err(Error::refused(ExitCode::BadValue, format!("{key}: {cause}"), "")),
    }
}

/// The answer of a scoped thread; its panic goes on here.
pub(crate) fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn write_identity(dir: &Path, row: &CtRow) -> Result<()> {
    let path = dir.join("ct.json");
    let text = serde_json::to_vec_pretty(&Identity { row: row.clone() }).map_err(|e| Error::Io {
        what: "writing",
        path: path.clone(),
        source: e.into(),
    })?;
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&text)?;
        file.sync_data()
    };
    write().map_err(Error::io("writing", &path))
}
