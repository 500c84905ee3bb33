//! vzcfgvalidate: whether the limits of a configuration fit together. The rules are those of OpenVZ's tool; what the
//! kernel only accounts for today is told as a remark, never as an error.

use super::Root;
use crate::{
    failure::{Failure, Outcome},
    target::Target,
    ui::{print_error, print_line},
};
use clap::Parser;
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
};
use vz_sys::proc;
use vz_types::limits::{Amount, Class, CpuConfig, IoConfig, LimitsConfig, PAGE, Ub, amount::human};

/// vzcfgvalidate: check limits.
#[derive(Debug, Parser)]
#[command(
    name = "vzcfgvalidate",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    about = "Check that the limits of a configuration fit together",
    long_about = "Checks the limits of a CT's configuration or of a sample configuration. Exits 0 when they fit \
        together (remarks may be told), 1 when the file cannot be read or is none, 2 when they do not fit.\n\n\
        With -r, and with -i after asking, what is too low is raised to the least that fits, and the file is \
        replaced; the exit code is that of the repaired file. Comments and everything else stay as they are.",
    max_term_width = 100
)]
pub struct ValidateArgs {
    /// Repair the file: raise what is too low to the least that fits
    #[arg(short = 'r', long)]
    pub repair: bool,
    /// Repair the file, asking before each change
    #[arg(short = 'i', long, conflicts_with = "repair")]
    pub interactive: bool,
    /// Print each finding as JSON
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Where the manager is.
    #[command(flatten)]
    pub root: Root,
    /// A configuration file, a CTID or the name of a CT
    #[arg(value_name = "FILE|CTID|NAME")]
    pub config: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The container will not work as configured.
    Error,
    /// It will probably not do what was meant.
    Warning,
    /// Worth knowing.
    Remark,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// The rule, a word.
    pub rule: &'static str,
    /// Counters it is about.
    pub counters: Vec<&'static str>,
    /// What is wrong, with figures.
    pub text: String,
    /// What to write instead.
    pub remedy: String,
    /// Whether that was done.
    pub repaired: bool,
    #[serde(skip)]
    fix: Option<Fix>,
}

/// A number that is too low, and the least that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fix {
    ub: Ub,
    limit: bool,
    least: u64,
}

/// The parts of a file that count here; others are somebody else's.
#[derive(serde::Deserialize)]
struct File {
    #[serde(default)]
    limits: LimitsConfig,
    #[serde(default)]
    cpu: CpuConfig,
    #[serde(default)]
    #[allow(dead_code, reason = "read to have its values checked")]
    io: IoConfig,
}

/// Checks and prints. Exit codes as the classic tool's.
pub fn run(args: &ValidateArgs) -> Outcome {
    let path = match place(args) {
        Ok(path) => path,
        Err(f) => return failed(args, &f.message),
    };
    let text = match vz_sys::records::operators_text(&path) {
        Ok(text) => text,
        Err(e) => return failed(args, &format!("cannot read {}: {e}", path.display())),
    };
    let file: File = match toml::from_str(&text) {
        Ok(file) => file,
        Err(e) => {
            let line = e.span().map_or(1, |s| 1 + text[..s.start.min(text.len())].matches('\n').count());
            let finding = Finding {
                level: Level::Error,
                rule: "syntax",
                counters: Vec::new(),
                text: format!("{} line {line}: {}", path.display(), e.message()),
                remedy: "correct the line".into(),
                repaired: false,
                fix: None,
            };
            return Ok(tell(args, &[finding]));
        }
    };
    let mut findings = check(&file.limits);
    findings.extend(check_host(&file));
    if args.repair || args.interactive {
        match repair(args, &path, &text, &mut findings) {
            Ok(()) => {}
            Err(why) => return failed(args, &why),
        }
    }
    Ok(tell(args, &findings))
}

/// Raises what is too low, until nothing more is: one number may depend on another. Adds what is only found on the way.
fn repair(args: &ValidateArgs, path: &Path, text: &str, findings: &mut Vec<Finding>) -> Result<(), String> {
    let mut doc: toml_edit::DocumentMut =
        text.parse().map_err(|e: toml_edit::TomlError| format!("cannot change {}: {e}", path.display()))?;
    let mut changed = false;
    let mut n = 0;
    while let Some(found) = findings.get(n).cloned() {
        n += 1;
        let Some(fix) = found.fix.filter(|_| found.level != Level::Remark) else { continue };
        if args.interactive && !agreed(&found)? {
            continue;
        }
        let now: File = toml::from_str(&doc.to_string()).map_err(|e| format!("{}: {e}", path.display()))?;
        let pair = now.limits.get(fix.ub);
        let raised = |a: Amount| if a < Amount::At(fix.least) { Amount::At(fix.least) } else { a };
        let barrier = if fix.limit { pair.barrier } else { raised(pair.barrier) };
        let limit = raised(pair.limit);
        let limits = doc.entry("limits").or_insert(toml_edit::Item::Table(toml_edit::Table::new()));
        let mut value = toml_edit::Value::from(format!("{barrier}:{limit}"));
        // The comment behind it stays.
        if let Some(old) = limits.get(fix.ub.name()).and_then(toml_edit::Item::as_value) {
            *value.decor_mut() = old.decor().clone();
        }
        limits[fix.ub.name()] = toml_edit::Item::Value(value);
        changed = true;
        findings[n - 1].repaired = true;
        let after: File = toml::from_str(&doc.to_string()).map_err(|e| format!("{}: {e}", path.display()))?;
        // What a raised number has made too low, and is not on the list yet.
        for next in check(&after.limits) {
            if !findings.iter().any(|f| !f.repaired && f.rule == next.rule) && findings.len() < 64 {
                findings.push(next);
            }
        }
    }
    if !changed {
        return Ok(());
    }
    let temp = path.with_extension("toml.new");
    let put = || -> std::io::Result<()> {
        fs::write(&temp, doc.to_string())?;
        fs::set_permissions(&temp, fs::metadata(path)?.permissions())?;
        fs::File::open(&temp)?.sync_all()?;
        fs::rename(&temp, path)
    };
    put().map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn agreed(f: &Finding) -> Result<bool, String> {
    eprint!("{} ({})? [y/N] ", f.text, f.remedy);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| format!("cannot read an answer: {e}"))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn place(args: &ValidateArgs) -> Result<PathBuf, Failure> {
    if args.config.contains('/') || Path::new(&args.config).is_file() {
        return Ok(PathBuf::from(&args.config));
    }
    let paths = args.root.paths();
    Ok(paths.conf(args.config.parse::<Target>()?.ctid(&paths)?))
}

fn failed(args: &ValidateArgs, why: &str) -> Outcome {
    print_error(why);
    if args.json {
        print_line("[]");
    }
    Ok(1)
}

fn tell(args: &ValidateArgs, findings: &[Finding]) -> u8 {
    if args.json {
        print_line(&serde_json::to_string_pretty(findings).unwrap_or_default());
    } else {
        for f in findings {
            let level = match f.level {
                Level::Error => "Error",
                Level::Warning => "Warning",
                Level::Remark => "Remark",
            };
            let done = if f.repaired { "repaired: " } else { "" };
            print_error(&format!("{level}: {} ({done}{})", f.text, f.remedy));
        }
        if findings.iter().all(|f| f.level != Level::Error || f.repaired) {
            print_line("Validation completed: success");
        }
    }
    if findings.iter().any(|f| f.level == Level::Error && !f.repaired) { 2 } else { 0 }
}

/// A rule between counters: name, whether it must hold, counters, the least the first must be (computed from the
/// others), which of its two numbers.
struct Rule {
    name: &'static str,
    level: Level,
    of: Ub,
    limit: bool,
    with: &'static [Ub],
    least: fn(&LimitsConfig) -> Option<u64>,
    why: &'static str,
}

fn barrier(l: &LimitsConfig, ub: Ub) -> Option<u64> {
    l.get(ub).barrier.number()
}
fn limit(l: &LimitsConfig, ub: Ub) -> Option<u64> {
    l.get(ub).limit.number()
}
/// Processes a container has on average, as OpenVZ reckoned: half of the most.
fn avnumproc(l: &LimitsConfig) -> Option<u64> {
    limit(l, Ub::Numproc).map(|n| n / 2)
}

/// The rules of OpenVZ's user guide ("UBC consistency check"), for what both sides set.
const RULES: &[Rule] = &[
    Rule {
        name: "numfile-per-process",
        level: Level::Warning,
        of: Ub::Numfile,
        limit: true,
        with: &[],
        least: |_| Some(1024),
        why: "it is per process here, and servers expect 1024 descriptors",
    },
    Rule {
        name: "kmemsize",
        level: Level::Error,
        of: Ub::Kmemsize,
        limit: false,
        with: &[Ub::Numproc, Ub::Dcachesize],
        least: |l| Some(40 * 1024 * avnumproc(l)? + limit(l, Ub::Dcachesize)?),
        why: "40 KiB for each of half its processes, and dcachesize",
    },
    Rule {
        name: "privvmpages",
        level: Level::Warning,
        of: Ub::Privvmpages,
        limit: false,
        with: &[Ub::Vmguarpages],
        least: |l| barrier(l, Ub::Vmguarpages),
        why: "what is guaranteed must be allowed",
    },
    Rule {
        name: "tcpsndbuf",
        level: Level::Error,
        of: Ub::Tcpsndbuf,
        limit: true,
        with: &[Ub::Numtcpsock],
        least: |l| Some(barrier(l, Ub::Tcpsndbuf)? + 2560 * limit(l, Ub::Numtcpsock)?),
        why: "2.5 KiB above the barrier for each socket",
    },
    Rule {
        name: "othersockbuf",
        level: Level::Error,
        of: Ub::Othersockbuf,
        limit: true,
        with: &[Ub::Numothersock],
        least: |l| Some(barrier(l, Ub::Othersockbuf)? + 2560 * limit(l, Ub::Numothersock)?),
        why: "2.5 KiB above the barrier for each socket",
    },
    Rule {
        name: "tcprcvbuf",
        level: Level::Warning,
        of: Ub::Tcprcvbuf,
        limit: true,
        with: &[Ub::Numtcpsock],
        least: |l| Some(barrier(l, Ub::Tcprcvbuf)? + 2560 * limit(l, Ub::Numtcpsock)?),
        why: "2.5 KiB above the barrier for each socket",
    },
    Rule {
        name: "tcprcvbuf-least",
        level: Level::Warning,
        of: Ub::Tcprcvbuf,
        limit: false,
        with: &[],
        least: |_| Some(64 * 1024),
        why: "TCP is slow below it",
    },
    Rule {
        name: "tcpsndbuf-least",
        level: Level::Warning,
        of: Ub::Tcpsndbuf,
        limit: false,
        with: &[],
        least: |_| Some(64 * 1024),
        why: "TCP is slow below it",
    },
    Rule {
        name: "dgramrcvbuf-least",
        level: Level::Warning,
        of: Ub::Dgramrcvbuf,
        limit: false,
        with: &[],
        least: |_| Some(129 * 1024),
        why: "large datagrams do not fit below it",
    },
    Rule {
        name: "othersockbuf-least",
        level: Level::Warning,
        of: Ub::Othersockbuf,
        limit: false,
        with: &[],
        least: |_| Some(129 * 1024),
        why: "local sockets stall below it",
    },
    Rule {
        name: "dcachesize",
        level: Level::Warning,
        of: Ub::Dcachesize,
        limit: false,
        with: &[Ub::Numfile],
        least: |l| Some(384 * limit(l, Ub::Numfile)?),
        why: "384 bytes for each open file",
    },
    Rule {
        name: "swap-and-memory",
        level: Level::Warning,
        of: Ub::Physpages,
        limit: true,
        with: &[Ub::Oomguarpages],
        least: |l| barrier(l, Ub::Oomguarpages),
        why: "what is guaranteed must be allowed",
    },
    Rule {
        name: "guarantees",
        level: Level::Warning,
        of: Ub::Vmguarpages,
        limit: false,
        with: &[Ub::Oomguarpages],
        least: |l| barrier(l, Ub::Oomguarpages).filter(|_| barrier(l, Ub::Vmguarpages) != Some(0)),
        why: "the soft guarantee is the larger one",
    },
];

/// Every rule that does not hold.
fn check(l: &LimitsConfig) -> Vec<Finding> {
    let mut out = Vec::new();
    for r in RULES {
        let has = if r.limit { limit(l, r.of) } else { barrier(l, r.of) };
        let (Some(has), Some(least)) = (has, (r.least)(l)) else { continue };
        // A guarantee nobody gave is no contradiction.
        if has >= least || (r.of.row().class == Class::Guaranteed && has == 0) {
            continue;
        }
        let accounted = r.of.row().class == Class::Accounted;
        let which = if r.limit { "limit" } else { "barrier" };
        let note = if accounted { "; it is only accounted, so nothing fails" } else { "" };
        out.push(Finding {
            level: if accounted { Level::Remark } else { r.level },
            rule: r.name,
            counters: std::iter::once(r.of).chain(r.with.iter().copied()).map(Ub::name).collect(),
            text: format!("{}: its {which} of {has} is below {least}: {}{note}", r.of, r.why),
            remedy: format!("set the {which} of {} to {least} or more", r.of),
            repaired: false,
            fix: Some(Fix { ub: r.of, limit: r.limit, least }),
        });
    }
    if l.get(Ub::Physpages).limit == Amount::Unlimited {
        let old = limit(l, Ub::Privvmpages).map(|n| human(n.saturating_mul(PAGE)));
        out.push(Finding {
            level: Level::Warning,
            rule: "memory-unlimited",
            counters: vec!["physpages"],
            text: "physpages is unlimited: the container can use all memory of the host".into(),
            remedy: old.map_or_else(
                || "set `--ram SIZE`".into(),
                |n| format!("set `--ram {n}`, what privvmpages allows each process"),
            ),
            repaired: false,
            fix: None,
        });
    }
    out
}

/// What is above the host this is run on.
fn check_host(f: &File) -> Option<Finding> {
    let host = host_size()?;
    let e = vz_types::limits::config::above_host(&f.limits, &f.cpu, &host)?;
    Some(Finding {
        level: Level::Error,
        rule: "above-host",
        counters: Vec::new(),
        text: e.to_string(),
        remedy: "lower it, or use a larger host".into(),
        repaired: false,
        fix: None,
    })
}

fn host_size() -> Option<vz_types::limits::config::HostSize> {
    let list = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<vz_types::limits::config::Mask>().ok();
    let [memory, swap] = proc::meminfo(["MemTotal", "SwapTotal"]).ok()?;
    Some(vz_types::limits::config::HostSize {
        memory,
        swap,
        cpus: list("/sys/devices/system/cpu/online")?.0,
        nodes: list("/sys/devices/system/node/online").map_or_else(|| [0].into(), |m| m.0),
        pids: proc::number("/proc/sys/kernel/pid_max").ok()?,
        files: proc::number("/proc/sys/fs/nr_open").ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<(Level, &'static str)> {
        let f: File = toml::from_str(text).unwrap();
        check(&f.limits).into_iter().map(|f| (f.level, f.rule)).collect()
    }

    #[test]
    fn the_classic_rules_hold_between_what_is_set() {
        assert_eq!(findings("[limits]\nphyspages = '0:512M'\n"), []);
        assert_eq!(findings(""), [(Level::Warning, "memory-unlimited")]);
        let bad = "[limits]\nphyspages = '0:512M'\ntcpsndbuf = '100000:100000'\nnumtcpsock = 360\n";
        assert_eq!(findings(bad), [(Level::Error, "tcpsndbuf")]);
        let accounted = "[limits]\nphyspages = '0:512M'\nkmemsize = 1000\nnumproc = 240\ndcachesize = 1000\n";
        assert_eq!(findings(accounted), [(Level::Remark, "kmemsize")]);
        let promised = "[limits]\nphyspages = '0:64M'\noomguarpages = '128M'\n";
        assert_eq!(findings(promised), [(Level::Warning, "swap-and-memory")]);
    }
}
