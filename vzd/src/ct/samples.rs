//! Sample configurations: the limits of a plan under a name. The operator's own, `ct-NAME.toml` in `/etc/vz/samples`,
//! win over those built in, which lie in `config/` of the source.

use crate::{
    conf,
    error::{Error, Result},
    manager::Manager,
};
use serde::Deserialize;
use std::{collections::BTreeMap, fs};
use vz_types::{
    Bytes, CtConfig, ExitCode,
    limits::{CpuConfig, IoConfig, LimitsConfig},
};

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        /// Name and text of every sample that comes with vz.
        pub const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../config/ct-", $name, ".toml")))),+];
    };
}

built_in!("vswap-256m", "vswap-512m", "vswap-1g", "vswap-2g", "vswap-4g", "vswap-8g", "basic", "light", "unlimited");

/// A sample: each part that is there replaces a configuration's whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// `[limits]`.
    pub limits: Option<LimitsConfig>,
    /// `[cpu]`.
    pub cpu: Option<CpuConfig>,
    /// `[io]`.
    pub io: Option<IoConfig>,
    /// `[disk]`.
    pub disk: Option<SampleDisk>,
}

/// `[disk]` of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleDisk {
    /// Space.
    pub space: Option<Bytes>,
    /// Inodes.
    pub inodes: Option<u64>,
}

impl Sample {
    /// The configuration with this plan.
    pub fn apply(&self, config: &CtConfig) -> CtConfig {
        let mut c = config.clone();
        if let Some(limits) = &self.limits {
            c.limits.clone_from(limits);
        }
        if let Some(cpu) = &self.cpu {
            c.cpu.clone_from(cpu);
        }
        if let Some(io) = &self.io {
            c.io.clone_from(io);
        }
        // A container that exists gets more space, never less: its files are there. Inodes are fixed when it is made.
        c.disk.space = self.disk.and_then(|d| d.space).unwrap_or(c.disk.space).max(c.disk.space);
        c
    }

    /// The same for a container that is to be made: its disk is as the plan says.
    pub fn apply_to_new(&self, config: &CtConfig) -> CtConfig {
        let mut c = self.apply(config);
        if let Some(disk) = self.disk {
            c.disk.space = disk.space.unwrap_or(c.disk.space);
            c.disk.inodes = disk.inodes.unwrap_or(c.disk.inodes);
        }
        c
    }
}

/// Every sample by name, with its text.
pub fn all(m: &Manager) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BUILT_IN.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    let own = fs::read_dir(m.paths.sample_dir()).into_iter().flatten().flatten().filter_map(|e| {
        let file = e.file_name().into_string().ok()?;
        let name = file.strip_prefix("ct-")?.strip_suffix(".toml")?.to_owned();
        Some((name, vz_sys::records::operators_text(&e.path()).ok()?))
    });
    all.extend(own);
    all
}

/// The sample of this name.
pub fn find(m: &Manager, name: &str) -> Result<Sample> {
    let every = all(m);
    let Some(text) = every.get(name) else {
        let names: Vec<&str> = every.keys().map(String::as_str).collect();
        let shown: String = name.chars().take(60).collect();
        return Err(Error::refused(
            ExitCode::ApplyConfig,
            format!("there is no sample configuration `{shown}`"),
            &format!("there are {}; own ones go to {}/ct-NAME.toml", names.join(", "), m.paths.sample_dir().display()),
        ));
    };
    let path = m.paths.sample_dir().join(format!("ct-{name}.toml"));
    toml::from_str(text).map_err(|e| {
        Error::refused(
            ExitCode::ApplyConfig,
            conf::located(&path, text, &e).to_string(),
            "correct the file and try again",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_one_and_sets_limits() {
        for (name, text) in BUILT_IN {
            let s: Sample = toml::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(s.limits.is_some() && s.cpu.is_some() && s.disk.is_some(), "{name}");
            let vswap = s.limits.unwrap().vswap();
            assert_eq!(vswap, *name != "unlimited", "{name}");
        }
    }
}
