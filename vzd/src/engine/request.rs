//! What is asked of the engine, in types that hold only what may be asked, and what it answers.

use std::collections::BTreeMap;
use vz_types::{
    Bytes, CtAddr, CtConfig, CtName, Ctid, Hostname, TemplateName, UserName,
    addr::Nameserver,
    config::{Description, Feature, Layout},
    limits::LimitChanges,
    names::SearchDomain,
};

/// Changes to a container's configuration and files. `None`: as it is; an inner `None`: removed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Start at host boot.
    pub onboot: Option<bool>,
    /// Higher first.
    pub bootorder: Option<u32>,
    /// The operator's name.
    pub name: Option<Option<CtName>>,
    /// Free text.
    pub description: Option<Option<Description>>,
    /// Refuse to start.
    pub disabled: Option<bool>,
    /// Host name inside.
    pub hostname: Option<Option<Hostname>>,
    /// Name servers, all of them.
    pub nameserver: Option<Vec<Nameserver>>,
    /// Search domains, all of them.
    pub searchdomain: Option<Vec<SearchDomain>>,
    /// Remove every address first.
    pub ipdel_all: bool,
    /// Addresses to remove, before any is added.
    pub ipdel: Vec<CtAddr>,
    /// Addresses to add.
    pub ipadd: Vec<CtAddr>,
    /// crypt(5) hashes to set, never the passwords.
    pub passwords: Vec<(UserName, String)>,
    /// Keys to add, checked.
    pub keys: BTreeMap<UserName, Vec<String>>,
    /// Space of the writable layer.
    pub diskspace: Option<Bytes>,
    /// Inodes of the writable layer.
    pub diskinodes: Option<u64>,
    /// Kernel surfaces to open or close.
    pub features: BTreeMap<Feature, bool>,
    /// Beancounters, processor time, disk bandwidth.
    pub limits: LimitChanges,
    /// A sample configuration whose limits come before all of these.
    pub sample: Option<String>,
    /// Forget maxheld and failcnt.
    pub reset_ub: bool,
}

impl Changes {
    /// The configuration with these changes; what it is about files of the container has no part in it.
    pub fn apply(&self, config: &CtConfig) -> CtConfig {
        let mut c = config.clone();
        set(&mut c.onboot, &self.onboot.map(Some));
        set(&mut c.bootorder, &self.bootorder.map(Some));
        set(&mut c.name, &self.name);
        set(&mut c.description, &self.description);
        set(&mut c.disabled, &self.disabled);
        set(&mut c.hostname, &self.hostname);
        set(&mut c.network.nameserver, &self.nameserver);
        set(&mut c.network.searchdomain, &self.searchdomain);
        c.network.ip = self.addresses(&c.network.ip);
        set(&mut c.disk.space, &self.diskspace);
        set(&mut c.disk.inodes, &self.diskinodes);
        for (feature, on) in &self.features {
            c.features.retain(|f| f != feature);
            if *on {
                c.features.push(*feature);
            }
        }
        self.limits.apply(&mut c);
        c
    }

    /// Addresses after removal and addition, in order.
    pub fn addresses(&self, now: &[CtAddr]) -> Vec<CtAddr> {
        let mut all: Vec<CtAddr> = if self.ipdel_all { Vec::new() } else { now.to_vec() };
        all.retain(|ip| !self.ipdel.contains(ip));
        for ip in &self.ipadd {
            if !all.contains(ip) {
                all.push(*ip);
            }
        }
        all
    }

    /// Whether addresses change.
    pub fn touches_addresses(&self) -> bool {
        self.ipdel_all || !self.ipdel.is_empty() || !self.ipadd.is_empty()
    }

    /// Whether files inside are edited at once, whatever is saved.
    pub fn touches_files(&self) -> bool {
        !self.passwords.is_empty() || !self.keys.is_empty()
    }
}

fn set<T: Clone>(field: &mut T, change: &Option<T>) {
    if let Some(value) = change {
        field.clone_from(value);
    }
}

/// A container to make.
#[derive(Clone, Debug)]
pub struct CreateSpec {
    /// Its number.
    pub ctid: Ctid,
    /// Its OS template.
    pub template: TemplateName,
    /// Its layout.
    pub layout: Layout,
    /// What its configuration says besides.
    pub changes: Changes,
}

/// How to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartSpec {
    /// Even if disabled.
    pub force: bool,
    /// Answer when the default runlevel is reached.
    pub wait: bool,
}

/// How to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopSpec {
    /// Kill at once.
    pub fast: bool,
    /// Seconds before the kill; `None`: as configured.
    pub timeout: Option<u32>,
}

/// What to do about changes a running container cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Restart it.
    Restart,
    /// Leave it as it is until its next start.
    Ignore,
}

/// What to set.
#[derive(Clone, Debug)]
pub struct SetSpec {
    /// The changes.
    pub changes: Changes,
    /// Into the configuration too.
    pub save: bool,
    /// See [`SetMode`].
    pub mode: Option<SetMode>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Sentences for the operator.
    pub messages: Vec<String>,
    /// What was not saved or not enforced.
    pub warnings: Vec<String>,
    /// Steps with microseconds.
    pub steps: Vec<(String, u64)>,
}

impl Outcome {
    /// One sentence, nothing else.
    pub fn say(text: impl Into<String>) -> Self {
        Self { messages: vec![text.into()], ..Self::default() }
    }

    /// This and then that.
    pub fn and(mut self, other: Self) -> Self {
        self.messages.extend(other.messages);
        self.warnings.extend(other.warnings);
        self.steps.extend(other.steps);
        self
    }
}
