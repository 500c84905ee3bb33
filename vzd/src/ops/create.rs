//! `create`: claims, a private area made aside, the configuration, the rename into place, commit. Until the commit
//! everything is taken back. Nothing of it has a name that outlives a power cut before the operation itself does: recovery
//! would not know whose it is.

use super::{
    Work,
    machine::{Machine, Run},
    step::{Operation, Step},
    work::End,
};
use crate::{
    conf,
    ct::{CreateSpec, edits, identity, limits, outside, samples, settle},
    error::{Error, Result},
    inventory::{self, Change, CtRow, NewCt},
    manager::{Manager, disk_spec},
    pool::Aside,
};
use std::{fs, os::unix::fs::DirBuilderExt, path::Path};
use vz_types::{CtAddr, CtConfig, CtState, Ctid, ExitCode, Fact, OpKind, config::DiskConfig, plan::FileEdit};

/// A container that is to be made.
#[derive(Debug)]
pub struct Create {
    ctid: Ctid,
    /// What it claims; taken when that is done.
    new: Option<NewCt>,
    row: Option<CtRow>,
    config: Option<CtConfig>,
    edits: Vec<FileEdit>,
    /// Under way beside the private area: they have nothing to wait for in each other.
    filter: Option<Aside<Result<()>>>,
    conf: Option<Aside<Result<()>>>,
}

impl Create {
    /// After every check that changes nothing.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn prepare(w: &Work, spec: &CreateSpec) -> Result<Box<dyn Run>> {
        let m = &w.m;
        w.asked_for(&spec.changes);
        let ctid = spec.ctid;
        refuse_leftovers(m, ctid)?;
        let template = m.templates.ready(&spec.template)?;
        let config = new_config(m, spec)?;
        let outsiders = outside::all(m)?;
        outside::refuse_theirs(m, &outsiders, config.name.as_ref(), &config.network.ip)?;
        settle::probe(m, &config.network.ip)?;
        let new = NewCt {
            ctid,
            uuid: new_uuid()?,
            name: config.name.clone(),
            first_slot: m.paths.first_uid_slot(),
            avoid: outside::uids(m, &outsiders),
            template: spec.template.clone(),
            template_digest: template.digest,
            layout: spec.layout,
            addresses: config.network.ip.clone(),
        };
        let edits = edits::now(&spec.changes);
        Ok(Machine::fresh(Self {
            ctid,
            new: Some(new),
            row: None,
            config: Some(config),
            edits,
            filter: None,
            conf: None,
        }))
    }

    fn claim(&mut self, w: &Work) -> Result<()> {
        let Some(new) = &self.new else { return Ok(()) };
        let row = w.begin(&serde_json::json!({}), None, false, |c| {
            let row = c.claim_create(new)?;
            c.state(self.ctid, CtState::Creating, None)?;
            Ok(row)
        })?;
        w.m.cell(self.ctid).set(CtState::Creating, None);
        self.row = Some(row);
        Ok(())
    }

    fn parts(&self) -> Result<(&CtRow, &CtConfig)> {
        match (&self.row, &self.config) {
            (Some(row), Some(config)) => Ok((row, config)),
            _ => Err(Error::refused(ExitCode::System, "a create that was interrupted is not gone on with", "")),
        }
    }

    fn layer(&mut self, w: &Work) -> Result<()> {
        let (row, config) = self.parts()?;
        let (m, ctid, addresses) = (w.m.clone(), self.ctid, config.network.ip.clone());
        let filter = w.m.aside(move || Ok(m.hands.network.allow(ctid, &addresses)?));
        let (m, text) = (w.m.clone(), w.m.conf.render(ctid, config)?);
        let conf = w.m.aside(move || {
            m.inventory.flush()?;
            Ok(m.conf.replace(ctid, &text)?)
        });
        let staging = settle::staging(&w.m, self.ctid);
        let made = Self::make(w, &staging, row, config);
        (self.filter, self.conf) = (Some(filter), Some(conf));
        made
    }

    fn make(w: &Work, staging: &Path, row: &CtRow, config: &CtConfig) -> Result<()> {
        fs::DirBuilder::new().mode(0o700).create(staging).map_err(Error::io("making", staging))?;
        identity::write(staging, row)?;
        // Makes the directory durable with all that is in it.
        Ok(w.m.hands.storage.create_layer(staging, &disk_spec(config))?)
    }

    /// Takes back what was under way beside the private area, whatever became of it. The private area, too: an earlier
    /// version gave it its name before the steps that come before that now.
    fn unmake(&mut self, w: &Work) -> Result<()> {
        for aside in [self.filter.take(), self.conf.take()].into_iter().flatten() {
            let _ = aside.fetch();
        }
        w.m.conf.remove(self.ctid)?;
        self.unplace(w)?;
        Ok(w.m.hands.storage.remove_tree(&settle::staging(&w.m, self.ctid))?)
    }

    /// By a rename first, which is durable: another's commit may take the end of this operation to the disk with it, and
    /// then nobody knows any more whose the files are.
    fn unplace(&mut self, w: &Work) -> Result<()> {
        let storage = &w.m.hands.storage;
        storage.move_to_trash(&w.m.paths.private(self.ctid), self.ctid)?;
        for trash in storage.in_trash(self.ctid) {
            storage.remove_tree(&trash)?;
        }
        Ok(())
    }

    /// Takes what it has claimed out of the filter: every vzd that starts puts it there for what is claimed.
    fn unclaim(&mut self, w: &Work) -> Result<()> {
        if !w.has_begun() {
            // The claims are somebody else's.
            return Ok(());
        }
        let addresses: Vec<CtAddr> = w.m.inventory.addresses(self.ctid)?.into_iter().map(|(ip, _)| ip).collect();
        Ok(w.m.hands.network.deny(self.ctid, &addresses)?)
    }

    fn commit(&mut self, w: &Work) -> Result<()> {
        let (row, _) = self.parts()?;
        let template = row.template.to_string();
        let event = Some(("created", format!("created from the OS template {template}")));
        w.tell(Fact::Created { template });
        w.finish(End { durable: true, state: Some(CtState::Stopped), event }, |_| Ok(()))
    }
}

impl Operation for Create {
    const KIND: OpKind = OpKind::Create;
    type Note = serde_json::Value;

    fn steps() -> Vec<Step<Self>> {
        vec![
            Step::new("claim", Self::claim).undo(Self::unclaim),
            Step::new("layer", Self::layer).undo(Self::unmake),
            Step::new("filter", |c: &mut Self, _| fetched(c.filter.take())),
            Step::new("conf", |c: &mut Self, _| fetched(c.conf.take())),
            // After the configuration, which waits for the operation to be durable.
            Step::new("place", |c: &mut Self, w| {
                Ok(w.m.hands.storage.place(&settle::staging(&w.m, c.ctid), &w.m.paths.private(c.ctid))?)
            })
            .undo(Self::unplace),
            Step::new("inside", |c: &mut Self, w| {
                let (row, _) = c.parts()?;
                settle::edit_stopped(&w.m, row, c.edits.clone())
            })
            .when(|c| c.row.is_none() || !c.edits.is_empty())
            .undo(|c, w| match w.m.inventory.container(c.ctid)? {
                Some(row) => settle::hide(&w.m, &w.m.storage_plan(&row)),
                None => Ok(()),
            }),
            Step::new("commit", Self::commit),
        ]
    }

    fn resume(w: &Work, _: serde_json::Value) -> Result<Self> {
        Ok(Self { ctid: w.ctid()?, new: None, row: None, config: None, edits: Vec::new(), filter: None, conf: None })
    }

    fn taken_back(&self, _: &Work, c: &Change<'_>) -> inventory::Result<Option<CtState>> {
        c.forget(self.ctid)?;
        Ok(Some(CtState::Absent))
    }
}

/// The answer of what was done beside the private area.
fn fetched(aside: Option<Aside<Result<()>>>) -> Result<()> {
    match aside.map(Aside::fetch) {
        Some(Ok(done)) => done,
        Some(Err(_)) => Err(Error::refused(ExitCode::System, "vzd failed inside; its log says where", "")),
        None => Ok(()),
    }
}

/// Files of a container that the inventory does not know are somebody's data: never overwritten.
fn refuse_leftovers(m: &Manager, ctid: Ctid) -> Result<()> {
    for there in [m.paths.private(ctid), m.paths.conf(ctid)] {
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
    // Nobody's: only a create makes one, and no create is under way.
    m.hands.storage.remove_tree(&settle::staging(m, ctid))?;
    Ok(())
}

fn new_config(m: &Manager, spec: &CreateSpec) -> Result<CtConfig> {
    let d = &m.config.defaults;
    let mut config = CtConfig::new(spec.template.clone());
    config.layout = spec.layout;
    config.disk = DiskConfig { space: d.diskspace, inodes: d.diskinodes };
    config.network.nameserver.clone_from(&d.nameserver);
    let config = match &spec.changes.sample {
        Some(name) => samples::find(m, name)?.apply_to_new(&config),
        None => config,
    };
    let config = spec.changes.apply(&config);
    conf::check(&config).map_err(|why| Error::refused(ExitCode::BadValue, why, ""))?;
    limits::check_host_size(&config, ExitCode::BadValue)?;
    Ok(config)
}

/// A fresh random UUID from the kernel.
fn new_uuid() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(fs::read_to_string(path).map_err(Error::io("reading", path))?.trim().to_owned())
}
