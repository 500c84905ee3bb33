//! Between the wire and the engine: texts become types here, once, and every refusal names the value.

use crate::engine::{
    Bean, Changes, CreateSpec, Error, Outcome, Result, SetMode, SetSpec, StopSpec, View, hash_password, utc,
};
use crate::inventory::EventRow;
use std::{collections::BTreeSet, fmt::Display, str::FromStr};
use vz_api::wire;
use vz_types::{
    CtConfig, Ctid, ExitCode, Paths, SshPublicKey, UserName,
    config::{Description, Feature},
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

/// Empty text removes.
fn optional<T: FromStr<Err: Display>>(code: ExitCode, text: &Option<String>) -> Result<Option<Option<T>>> {
    match text.as_deref() {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        Some(text) => Ok(Some(Some(parse(code, text)?))),
    }
}

/// A list; one empty text is the empty list.
fn list<T: FromStr<Err: Display>>(code: ExitCode, texts: &Option<Vec<String>>) -> Result<Option<Vec<T>>> {
    let parse_all = |texts: &Vec<String>| texts.iter().filter(|t| !t.is_empty()).map(|t| parse(code, t)).collect();
    texts.as_ref().map(parse_all).transpose()
}

/// Settings as changes; passwords are hashed here and go no further.
pub fn changes(s: wire::Settings) -> Result<Changes> {
    let mut c = Changes {
        onboot: s.onboot,
        bootorder: s.bootorder,
        name: optional(ExitCode::SetName, &s.name)?,
        description: optional::<Description>(ExitCode::BadValue, &s.description)?,
        disabled: s.disabled,
        hostname: optional(ExitCode::BadHostname, &s.hostname)?,
        nameserver: list(ExitCode::BadDns, &s.nameserver)?,
        searchdomain: list(ExitCode::BadDns, &s.searchdomain)?,
        diskspace: s.diskspace.as_deref().map(|t| parse(ExitCode::BadValue, t)).transpose()?,
        diskinodes: s.diskinodes,
        sample: s.sample,
        reset_ub: s.reset_ub,
        ..Changes::default()
    };
    for (name, value) in &s.limits {
        c.limits.set(name, value).map_err(|e| Error::refused(ExitCode::BadValue, e.to_string(), ""))?;
    }
    for text in &s.ipdel {
        match text.as_str() {
            "all" => c.ipdel_all = true,
            text => c.ipdel.push(parse(ExitCode::BadIp, text)?),
        }
    }
    let mut seen = BTreeSet::new();
    for text in &s.ipadd {
        let ip = parse(ExitCode::BadIp, text)?;
        if seen.insert(ip) {
            c.ipadd.push(ip);
        }
    }
    for (word, on) in &s.features {
        let known = || Feature::ALL.iter().map(|(_, w)| *w).collect::<Vec<_>>().join(", ");
        let found = Feature::ALL.iter().find(|(_, w)| w == word);
        let (feature, _) = found.ok_or_else(|| {
            Error::refused(
                ExitCode::BadValue,
                format!("there is no feature `{word}`"),
                &format!("there are: {}", known()),
            )
        })?;
        c.features.insert(*feature, *on);
    }
    for key in &s.sshkeys {
        let user: UserName = parse(ExitCode::BadValue, &key.user)?;
        let line = key.key.parse::<SshPublicKey>().map_err(|e| {
            let shown: String = key.key.chars().take(40).collect();
            let next = "give one public key as `ssh-keygen` writes it into the .pub file";
            Error::refused(ExitCode::BadValue, format!("ssh key `{shown}`: {e}"), next)
        })?;
        c.keys.entry(user).or_default().push(line.to_string());
    }
    for p in &s.userpasswd {
        let user: UserName = parse(ExitCode::BadValue, &p.user)?;
        if p.password.is_empty() || p.password.len() > 256 || p.password.chars().any(char::is_control) {
            let message =
                format!("the password for `{user}` is not usable: it needs 1 to 256 bytes without control characters");
            return Err(Error::refused(ExitCode::BadValue, message, ""));
        }
        c.passwords.push((user, hash_password(&p.password)?));
    }
    Ok(c)
}

/// A create request.
pub fn create(r: wire::CreateRequest) -> Result<CreateSpec> {
    let ctid = Ctid::try_from(r.ctid).map_err(|e| Error::refused(ExitCode::BadValue, e.to_string(), ""))?;
    let Some(template) = r.ostemplate else {
        return Err(Error::refused(
            ExitCode::OsTemplateUnset,
            format!("CT {ctid}: no OS template is given"),
            "add --ostemplate NAME; `vzctl template list` shows them",
        ));
    };
    Ok(CreateSpec {
        ctid,
        template: parse(ExitCode::NoTemplate, &template)?,
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

/// What was done.
pub fn done(ctid: Option<Ctid>, o: Outcome) -> wire::Done {
    wire::Done {
        ctid: ctid.map(Ctid::get),
        messages: o.messages,
        warnings: o.warnings,
        steps: o.steps.into_iter().map(|(name, us)| wire::StepTime { name, us }).collect(),
    }
}

/// A container, seen.
pub fn info(paths: &Paths, v: View, now: Clock) -> wire::CtInfo {
    let ctid = v.row.ctid;
    let config = v.config.as_ref().ok();
    let live = v.live.as_ref();
    let figure = |usage: Option<u64>, limit: u64| wire::DiskFigure { usage, softlimit: limit, hardlimit: limit };
    wire::CtInfo {
        ctid: ctid.get(),
        status: v.state.vzlist_word().into(),
        state: v.state,
        status_line: format!("CTID {ctid} {}", v.state.status_words()),
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
        last_exit: v.row.last_exit,
        last_failure: v.row.last_failure,
        beancounters: v.beans.iter().map(bean).collect(),
        parameters: v.limits.as_ref().map(parameters).unwrap_or_default(),
        unenforced: v.unenforced.into_iter().collect(),
        vswap: v.limits.as_ref().map(|c| c.limits.vswap()),
    }
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
fn parameters(c: &CtConfig) -> std::collections::BTreeMap<String, String> {
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
    }
}

fn features(on: &[Feature]) -> Vec<String> {
    Feature::ALL.iter().filter(|(f, _)| on.contains(f)).map(|(_, w)| (*w).to_owned()).collect()
}
