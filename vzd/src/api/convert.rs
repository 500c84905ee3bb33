//! Between the wire and the engine: texts become types here, once, and every refusal names the value.

use crate::{
    accounts::Bean,
    ct::{Changes, CreateSpec, SetMode, SetSpec, StopSpec, edits::hash_password},
    error::{Error, Result},
    inventory::EventRow,
    ops::Ops,
    view::View,
};
use std::{collections::BTreeMap, fmt::Display, str::FromStr};
use vz_api::wire;
use vz_types::{
    CtConfig, CtState, Ctid, ExitCode, SshPublicKey, TemplateName,
    config::Feature,
    settings::{Password, SSHKEY, SettingError, USERPASSWD},
    time::utc,
};

/// The host's clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Seconds since the epoch.
    epoch: u64,
    /// Seconds since the host's boot.
    boottime: u64,
}

impl Clock {
    /// Now.
    pub fn now() -> Self {
        Self {
            epoch: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            boottime: vz_sys::proc::boottime().as_secs(),
        }
    }
}

fn parse<T: FromStr<Err: Display>>(code: ExitCode, text: &str) -> Result<T> {
    text.parse().map_err(|e: T::Err| Error::refused(code, e.to_string(), ""))
}

/// A setting that does not take what was sent.
fn bad_setting(e: SettingError) -> Error {
    Error::refused(e.code, e.to_string(), "")
}

/// Settings as changes; passwords are hashed here and go no further.
pub fn changes(s: wire::Settings) -> Result<Changes> {
    let mut c = Changes::default();
    c.asked = asked(&s);
    c.sample = s.sample;
    c.reset_ub = s.reset_ub;
    for (name, value) in &s.values.0 {
        c.set(name, value).map_err(bad_setting)?;
    }
    for (name, value) in &s.limits {
        c.limits.set(name, value).map_err(|e| Error::refused(ExitCode::BadValue, e.to_string(), ""))?;
    }
    for key in &s.sshkeys {
        let user = SSHKEY.user(&key.user).map_err(bad_setting)?;
        let line = key.key.parse::<SshPublicKey>().map_err(|e| {
            let shown: String = key.key.chars().take(40).collect();
            let next = "give one public key as `ssh-keygen` writes it into the .pub file";
            Error::refused(SSHKEY.code, format!("ssh key `{shown}`: {e}"), next)
        })?;
        c.keys.entry(user).or_default().push(line.to_string());
    }
    for p in &s.userpasswd {
        let user = USERPASSWD.user(&p.user).map_err(bad_setting)?;
        let password: Password =
            p.password.parse().map_err(|why| bad_setting(USERPASSWD.error(format!("the password of {user} {why}"))))?;
        c.passwords.push((user, hash_password(password.as_str())?));
    }
    Ok(c)
}

/// All of it in words, for the record. What opens a container to somebody is left out.
fn asked(s: &wire::Settings) -> Vec<String> {
    let mut words: Vec<String> = s.sample.iter().map(|name| format!("applyconfig {name}")).collect();
    words.extend(s.values.0.iter().map(|(name, value)| format!("{name} {value}").trim_end().to_owned()));
    words.extend(s.limits.iter().map(|(name, value)| format!("{name} {value}")));
    words.extend(s.sshkeys.iter().map(|k| format!("sshkey of {}", k.user)));
    words.extend(s.userpasswd.iter().map(|p| format!("userpasswd of {}", p.user)));
    words.extend(s.reset_ub.then(|| "reset_ub".to_owned()));
    words.dedup();
    words
}

/// Whether reading them takes a processor for long: a password's hash is meant to.
pub fn is_costly(s: &wire::Settings) -> bool {
    !s.userpasswd.is_empty()
}

/// A create request; `default`: the OS template of one that names none.
pub fn create(r: wire::CreateRequest, default: Option<&TemplateName>) -> Result<CreateSpec> {
    if r.ctid == 0 {
        let hint = "`ctid` is the number it is to have, 101..2147483644";
        return Err(Error::refused(ExitCode::BadValue, "no CTID is given", hint));
    }
    let ctid = Ctid::try_from(r.ctid).map_err(|e| Error::refused(ExitCode::BadValue, e.to_string(), ""))?;
    let named = r.ostemplate.map(|name| parse(ExitCode::NoTemplate, &name)).transpose()?;
    let Some(template) = named.or_else(|| default.cloned()) else {
        return Err(Error::refused(
            ExitCode::OsTemplateUnset,
            format!("CT {ctid}: no OS template is given"),
            "add --ostemplate NAME (`vzctl template list` shows them), or set `ostemplate` under [defaults] in vz.toml",
        ));
    };
    Ok(CreateSpec {
        ctid,
        template,
        layout: r.layout.as_deref().map(|l| parse(ExitCode::BadValue, l)).transpose()?.unwrap_or_default(),
        changes: changes(r.settings)?,
    })
}

/// A set request.
pub fn set(r: wire::SetRequest) -> Result<SetSpec> {
    let mode = match r.setmode.as_deref() {
        None => None,
        Some("restart") => Some(SetMode::Restart),
        Some("ignore") => Some(SetMode::Ignore),
        Some(other) => {
            return Err(Error::refused(
                ExitCode::BadValue,
                format!("setmode `{other}` is neither `restart` nor `ignore`"),
                "",
            ));
        }
    };
    Ok(SetSpec { changes: changes(r.settings)?, save: r.save, mode })
}

/// A stop request.
pub fn stop(r: &wire::StopRequest) -> Result<StopSpec> {
    match r.timeout {
        Some(t) if !(1..=3600).contains(&t) => {
            Err(Error::refused(ExitCode::BadValue, format!("a timeout of {t} s is outside 1..3600"), ""))
        }
        timeout => Ok(StopSpec { fast: r.fast, timeout }),
    }
}

/// A container, seen.
pub fn info(ops: &Ops, v: View, now: Clock) -> wire::CtInfo {
    let (paths, ctid) = (&ops.m.paths, v.row.ctid);
    let config = v.config.as_ref().ok();
    let live = v.live.as_ref();
    // What keeps it in trouble does not end it.
    let shown = if v.state == CtState::Failed && live.is_some() { CtState::Running } else { v.state };
    let figure = |usage: Option<u64>, limit: u64| wire::DiskFigure { usage, softlimit: limit, hardlimit: limit };
    wire::CtInfo {
        ctid: ctid.get(),
        status: shown.vzlist_word().into(),
        state: v.state,
        trouble: v.trouble,
        operation: ops.under_way(ctid).map(|h| h.id.to_string()),
        status_line: format!("CTID {ctid} {}", shown.status_words()),
        config_error: v.config.as_ref().err().map(ToString::to_string),
        // A broken file hides what it says, not what the inventory knows.
        name: config.map_or_else(|| v.row.name.clone(), |c| c.name.clone()).map(Into::into),
        description: config.and_then(|c| c.description.clone()).map(Into::into),
        hostname: config.and_then(|c| c.hostname.clone()).map(Into::into),
        ip: v.addresses.iter().map(ToString::to_string).collect(),
        nameserver: config.map(|c| c.network.nameserver.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        searchdomain: config
            .map(|c| c.network.searchdomain.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        ostemplate: Some(v.row.template.to_string()),
        layout: Some(v.row.layout.to_string()),
        onboot: config.and_then(|c| c.onboot),
        bootorder: config.and_then(|c| c.bootorder),
        disabled: config.is_some_and(|c| c.disabled),
        features: config.map(|c| features(&c.features)).unwrap_or_default(),
        private: paths.private(ctid).display().to_string(),
        root: paths.root(ctid).display().to_string(),
        uid_base: Some(v.row.uid_base.get()),
        uuid: Some(v.row.uuid.clone()),
        numproc: v.numproc,
        uptime: live.map(|l| l.uptime(now.epoch, now.boottime)),
        boots: live.map(|l| l.boots),
        pid: live.map(|l| l.init.pid),
        monitor_pid: live.map(|l| l.monitor.pid),
        cgroup: v.cgroup.as_ref().map(|p| p.display().to_string()),
        link: live.and_then(|l| l.link.clone()),
        // The kernel keeps no load average per container.
        laverage: None,
        diskspace: config.map(|c| figure(v.usage.map(|u| u.space_used.0), c.disk.space.0)),
        diskinodes: config.map(|c| figure(v.usage.map(|u| u.inodes_used), c.disk.inodes)),
        read_only: v.read_only,
        last_exit: v.row.last_exit,
        last_failure: v.row.last_failure,
        beancounters: v.beans.iter().map(bean).collect(),
        parameters: v.limits.as_ref().map(parameters).unwrap_or_default(),
        unenforced: v.unenforced.into_iter().collect(),
        vswap: v.limits.as_ref().map(|c| c.limits.vswap()),
        settings: config.map(|c| settings(c)).unwrap_or_default(),
    }
}

/// Every setting, as it is sent.
fn settings(c: &CtConfig) -> BTreeMap<String, serde_json::Value> {
    // A value is a text, a number, a truth or a list of them: it always has a JSON form.
    let told = |value| serde_json::to_value(value).unwrap_or_default();
    vz_types::settings::of(c).into_iter().map(|(name, value)| (name.to_owned(), told(value))).collect()
}

/// One counter.
pub fn bean(b: &Bean) -> wire::Beancounter {
    let f = b.figures;
    wire::Beancounter {
        name: b.ub.name().into(),
        unit: b.ub.row().unit.word().into(),
        held: b.known.then_some(f.held),
        maxheld: f.maxheld,
        barrier: f.barrier,
        limit: f.limit,
        failcnt: f.failcnt,
        class: b.class.word().into(),
        note: b.reason.clone(),
    }
}

/// Parameters that are no beancounters, as far as they are set.
fn parameters(c: &CtConfig) -> BTreeMap<String, String> {
    [
        ("vm_overcommit", c.limits.vm_overcommit.map(|v| v.to_string())),
        ("cpuunits", c.cpu.units.map(|v| v.to_string())),
        ("cpulimit", c.cpu.limit.map(|v| v.0.to_string())),
        ("cpus", c.cpu.cpus.map(|v| v.to_string())),
        ("cpumask", c.cpu.mask.as_ref().map(ToString::to_string)),
        ("nodemask", c.cpu.nodemask.as_ref().map(ToString::to_string)),
        ("ioprio", c.io.prio.map(|v| v.to_string())),
        ("iolimit", c.io.limit.map(|v| v.0.to_string())),
        ("iopslimit", c.io.iops.map(|v| v.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// One event.
pub fn event(e: EventRow) -> wire::Event {
    wire::Event {
        id: e.id,
        ctid: e.ctid.get(),
        time: utc(e.first),
        first: e.first,
        last: e.last,
        kind: e.kind,
        counter: e.counter,
        count: e.count,
        text: e.text,
        operation: e.operation,
        asker: e.asker,
    }
}

fn features(on: &[Feature]) -> Vec<String> {
    Feature::ALL.iter().filter(|(f, _)| on.contains(f)).map(|(_, w)| (*w).to_owned()).collect()
}
