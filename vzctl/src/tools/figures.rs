//! vzcalc, vzmemcheck, vzcpucheck, vzsplit: what containers take of this host, and plans for so many of them. Every
//! figure is what the host has and what was promised or allowed; nothing is estimated.

use super::Root;
use crate::{
    failure::{Failure, Outcome},
    target::Target,
    ui::{print_line, width},
};
use clap::Parser;
use serde_json::json;
use vz_api::wire::{CtInfo, HostFigures};
use vz_types::{
    ExitCode,
    limits::{Amount, PAGE, amount::human},
};

/// vzcalc: what one container takes.
#[derive(Debug, Parser)]
#[command(
    name = "vzcalc",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    about = "Show what a CT uses of this host, what it is promised, and what it may use, in percent",
    max_term_width = 100
)]
pub struct CalcArgs {
    /// The figures behind the percents too
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Print JSON
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Where the manager is.
    #[command(flatten)]
    pub root: Root,
    /// The CT
    #[arg(value_name = "CTID|NAME")]
    pub ct: String,
}

/// vzmemcheck: memory of all.
#[derive(Debug, Parser)]
#[command(
    name = "vzmemcheck",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    about = "Show what the running CTs use of this host's memory, are promised and may use, in percent",
    max_term_width = 100
)]
pub struct MemcheckArgs {
    /// Each CT, not only the sum
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Absolute figures in MB instead of percents
    #[arg(short = 'A', long)]
    pub absolute: bool,
    /// Print JSON
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Where the manager is.
    #[command(flatten)]
    pub root: Root,
}

/// vzcpucheck: processors.
#[derive(Debug, Parser)]
#[command(
    name = "vzcpucheck",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    about = "Show the shares (cpuunits) and limits of processor time that the running CTs have",
    max_term_width = 100
)]
pub struct CpucheckArgs {
    /// Each CT, not only the sum
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Print JSON
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Where the manager is.
    #[command(flatten)]
    pub root: Root,
}

/// vzsplit: a plan.
#[derive(Debug, Parser)]
#[command(
    name = "vzsplit",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    about = "Make a sample configuration that divides this host among so many CTs",
    max_term_width = 100
)]
pub struct SplitArgs {
    /// Number of CTs; asked for without it
    #[arg(short = 'n', long = "num", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub num: Option<u64>,
    /// Write it as the sample NAME (`/etc/vz/samples/ct-NAME.toml`) instead of printing it
    #[arg(short = 'f', long, value_name = "NAME")]
    pub file: Option<String>,
    /// Swap space to divide, in KB, instead of the host's
    #[arg(short = 's', long, value_name = "KB")]
    pub swap: Option<u64>,
    /// Where the manager is.
    #[command(flatten)]
    pub root: Root,
}

/// Bytes that one container has in memory and swap (`None`: this host does not count them), is guaranteed, and may have
/// at most; `None`: as much as it likes.
struct Memory {
    held: Option<u64>,
    swap_held: Option<u64>,
    promised: u64,
    most: Option<u64>,
    most_with_swap: Option<u64>,
}

impl Memory {
    fn held_with_swap(&self) -> Option<u64> {
        Some(self.held? + self.swap_held?)
    }
}

fn bean<'i>(i: &'i CtInfo, name: &str) -> Option<&'i vz_api::wire::Beancounter> {
    i.beancounters.iter().find(|b| b.name == name)
}

fn memory(i: &CtInfo) -> Memory {
    let bytes = |n: u64| n.saturating_mul(PAGE);
    let held = |name| bean(i, name).and_then(|b| b.held).map(bytes);
    let limit = |name| bean(i, name).map(|b| b.limit).filter(|n| *n != Amount::CLASSIC_UNLIMITED).map(bytes);
    let most = limit("physpages");
    Memory {
        held: held("physpages"),
        swap_held: held("swappages"),
        promised: bean(i, "oomguarpages").map_or(0, |b| bytes(b.barrier)),
        most,
        most_with_swap: most.and_then(|m| Some(m.saturating_add(limit("swappages")?))),
    }
}

fn share(n: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { n as f64 * 100.0 / of as f64 }
}

fn words(p: Option<f64>) -> String {
    p.map_or_else(|| "n/a".into(), |p| format!("{p:.2}"))
}

/// Rows below one another: the first column to the left, figures to the right, each as wide as `least` or as it needs.
fn columns<const N: usize>(rows: &[[String; N]], least: [usize; N], between: &str) {
    let widths: Vec<usize> =
        least.iter().enumerate().map(|(n, l)| rows.iter().map(|r| width(&r[n])).fold(*l, usize::max)).collect();
    for row in rows {
        if row.iter().all(|cell| cell == RULE) {
            print_line(&"-".repeat(widths.iter().sum::<usize>() + between.len() * (N - 1)));
            continue;
        }
        let cell = |n: usize| match n {
            0 => format!("{:<1$}", row[0], widths[0]),
            _ => format!("{:>1$}", row[n], widths[n]),
        };
        print_line((0..N).map(cell).collect::<Vec<_>>().join(between).trim_end());
    }
}

/// In every cell: a line across.
const RULE: &str = "--";

fn running(root: &Root) -> Result<(Vec<CtInfo>, HostFigures), Failure> {
    let client = root.client();
    let all = client.list()?.into_iter().filter(|i| i.status == "running").collect();
    Ok((all, client.host()?))
}

/// Prints what one takes.
pub fn calc(args: &CalcArgs) -> Outcome {
    let target: Target = args.ct.parse()?;
    let client = args.root.client();
    let (info, host) = (client.info(&target.to_string())?, client.host()?);
    let m = memory(&info);
    let procs = bean(&info, "numproc");
    let limit = |b: Option<&vz_api::wire::Beancounter>| b.map(|b| b.limit).filter(|n| *n != Amount::CLASSIC_UNLIMITED);
    let both = host.memory + host.swap;
    let percent = |n: Option<u64>, of: u64| n.map(|n| share(n, of));
    let cpu_most = cpu_percent(&info).map(|p| f64::from(p) / host.cpus.max(1) as f64);
    let rows = [
        ("Memory", percent(m.held, host.memory), Some(share(m.promised, host.memory)), percent(m.most, host.memory)),
        (
            "Mem + Swap",
            percent(m.held_with_swap(), both),
            Some(share(m.promised, both)),
            percent(m.most_with_swap, both),
        ),
        ("Num. Proc", percent(procs.and_then(|b| b.held), host.pids), None, percent(limit(procs), host.pids)),
        ("Processors", None, None, cpu_most),
    ];
    if args.json {
        let objects: Vec<_> =
            rows.iter().map(|(n, c, p, m)| json!({ "resource": n, "current": c, "promised": p, "max": m })).collect();
        print_line(&serde_json::to_string_pretty(&objects).unwrap_or_default());
        return Ok(0);
    }
    let head = ["Resource", "Current(%)", "Promised(%)", "Max(%)"].map(str::to_owned);
    let rows = rows.map(|(name, current, promised, most)| [name.into(), words(current), words(promised), words(most)]);
    columns(&[&[head], &rows[..]].concat(), [12, 10, 11, 6], "  ");
    if args.verbose {
        let most = m.most.map_or_else(|| "unlimited".into(), human);
        let held = |n: Option<u64>| n.map_or_else(|| "an unknown amount".into(), human);
        print_line(&format!(
            "CT {}: {} in memory, {} in swap space, {} promised, at most {most}; the host has {} and {} of swap space",
            info.ctid,
            held(m.held),
            held(m.swap_held),
            human(m.promised),
            human(host.memory),
            human(host.swap)
        ));
    }
    Ok(0)
}

/// The lower of cpulimit and cpus, in percent of one processor.
fn cpu_percent(i: &CtInfo) -> Option<u32> {
    let number = |name: &str| i.parameters.get(name).and_then(|v| v.parse::<u32>().ok());
    number("cpulimit").into_iter().chain(number("cpus").map(|n| n.saturating_mul(100))).min()
}

/// Prints what all take of the memory.
pub fn memcheck(args: &MemcheckArgs) -> Outcome {
    let (all, host) = running(&args.root)?;
    let both = host.memory + host.swap;
    let sum = |f: &dyn Fn(&Memory) -> Option<u64>| -> Option<u64> {
        all.iter().map(|i| f(&memory(i))).try_fold(0u64, |n, x| Some(n.saturating_add(x?)))
    };
    let row = |id: String, m: [Option<u64>; 5]| -> [String; 6] {
        let of = [host.memory, host.memory, host.memory, both, both];
        std::array::from_fn(|column| {
            let Some(n) = column.checked_sub(1) else { return id.clone() };
            match (m[n], args.absolute) {
                // What is used: nobody can tell.
                (None, _) if n == 0 || n == 3 => "n/a".into(),
                (None, _) => "unlim".into(),
                (Some(n), true) => format!("{:.1}", n as f64 / f64::from(1 << 20)),
                (Some(m), false) => format!("{:.2}", share(m, of[n])),
            }
        })
    };
    let of = |m: &Memory| [m.held, Some(m.promised), m.most, m.held_with_swap(), m.most_with_swap];
    let total = [
        sum(&|m| m.held),
        sum(&|m| Some(m.promised)),
        sum(&|m| m.most),
        sum(&Memory::held_with_swap),
        sum(&|m| m.most_with_swap),
    ];
    if args.json {
        let one = |i: &CtInfo| {
            let m = memory(i);
            json!({ "ctid": i.ctid, "memory": m.held, "swap": m.swap_held, "promised": m.promised, "limit": m.most, "limit_with_swap": m.most_with_swap })
        };
        let text = json!({ "host": host, "cts": all.iter().map(one).collect::<Vec<_>>(),
            "sum": { "memory": total[0], "promised": total[1], "limit": total[2], "with_swap": total[3], "limit_with_swap": total[4] } });
        print_line(&serde_json::to_string_pretty(&text).unwrap_or_default());
        return Ok(0);
    }
    print_line(if args.absolute { "Output values in MB" } else { "Output values in %" });
    let mut rows = vec![
        ["veid", "RAM", "RAM", "RAM", "MemSwap", "MemSwap"].map(str::to_owned),
        ["", "util", "promised", "limit", "util", "limit"].map(str::to_owned),
    ];
    if args.verbose {
        rows.extend(all.iter().map(|i| row(i.ctid.to_string(), of(&memory(i)))));
        rows.push([RULE; 6].map(str::to_owned));
    }
    rows.push(row("Summary:".into(), total));
    columns(&rows, [10, 8, 8, 8, 8, 8], " ");
    if args.absolute {
        print_line(&format!(
            "Host: {} of memory, {} of swap space, {} never promised",
            human(host.memory),
            human(host.swap),
            human(host.reserve)
        ));
    }
    match total[2] {
        Some(n) if n > host.memory => {
            print_line(&format!("Memory limits add up to {} times the host's memory", times(n, host.memory)));
        }
        None if !all.is_empty() => print_line("At least one CT has no memory limit"),
        _ => {}
    }
    Ok(0)
}

fn times(n: u64, of: u64) -> String {
    format!("{:.2}", n as f64 / of.max(1) as f64)
}

/// Prints what all take of the processors.
pub fn cpucheck(args: &CpucheckArgs) -> Outcome {
    let (all, host) = running(&args.root)?;
    let units = |i: &CtInfo| i.parameters.get("cpuunits").and_then(|v| v.parse::<u64>().ok()).unwrap_or(1000);
    let sum: u64 = all.iter().map(units).sum();
    let limited: u64 = all.iter().filter_map(cpu_percent).map(u64::from).sum();
    let unlimited = all.iter().filter(|i| cpu_percent(i).is_none()).count();
    if args.json {
        let one = |i: &CtInfo| json!({ "ctid": i.ctid, "cpuunits": units(i), "share_percent": share(units(i), sum), "cpulimit": cpu_percent(i) });
        let text = json!({ "cpus": host.cpus, "cpuunits": sum, "limited_percent": limited, "unlimited": unlimited,
            "cts": all.iter().map(one).collect::<Vec<_>>() });
        print_line(&serde_json::to_string_pretty(&text).unwrap_or_default());
        return Ok(0);
    }
    if args.verbose {
        print_line(&format!("{:>10} {:>10} {:>10} {:>10}", "CTID", "UNITS", "SHARE(%)", "LIMIT(%)"));
        for i in &all {
            let limit = cpu_percent(i).map_or_else(|| "-".into(), |p| p.to_string());
            print_line(&format!("{:>10} {:>10} {:>10.2} {limit:>10}", i.ctid, units(i), share(units(i), sum)));
        }
    }
    // The classic tool's words, which scripts look for: it calls the sum of the shares that.
    print_line(&format!("Current CPU utilization: {sum} units in {} CTs", all.len()));
    print_line(&format!("Power of the node: {} CPUs, {} percent", host.cpus, host.cpus * 100));
    print_line(&format!("Limits: {limited} percent in all, {unlimited} CTs without a limit"));
    Ok(0)
}

/// Prints or writes a plan.
pub fn split(args: &SplitArgs) -> Outcome {
    let host = args.root.client().host()?;
    let num = match args.num {
        Some(n) => n,
        None => ask()?,
    };
    let text = plan(&host, num, args.swap)?;
    let Some(name) = &args.file else {
        print_line(text.trim_end());
        return Ok(0);
    };
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain || name.len() > 60 {
        return Err(Failure::value(format!("--file `{name}` is no name of a sample; use letters, digits and -")));
    }
    let dir = args.root.paths().sample_dir();
    let path = dir.join(format!("ct-{name}.toml"));
    if path.exists() {
        return Err(Failure::new(ExitCode::Exists, format!("{} exists", path.display()))
            .hint("choose another name, or remove it"));
    }
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&path, &text))
        .map_err(|e| Failure::system(format_args!("cannot write {}", path.display()), e))?;
    print_line(&format!("{} was written; use it with --config {name}", path.display()));
    Ok(0)
}

/// The number of containers, from who sits there.
fn ask() -> Result<u64, Failure> {
    eprint!("Enter the number of containers: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::system("cannot read a number", e))?;
    let n = line.trim().parse().ok().filter(|n| (1..=10_000).contains(n));
    n.ok_or_else(|| Failure::value(format!("`{}` is no number of containers from 1 to 10000", line.trim())))
}

/// Equal parts of memory (without the reserve), swap space, processors and process ids; nothing is oversold.
fn plan(host: &HostFigures, num: u64, swap_kb: Option<u64>) -> Result<String, Failure> {
    let mib = |bytes: u64| bytes >> 20;
    let ram = mib(host.memory.saturating_sub(host.reserve) / num);
    let swap = mib(swap_kb.map_or(host.swap, |n| n.saturating_mul(1024)) / num);
    if ram < 16 {
        let most = mib(host.memory.saturating_sub(host.reserve)) / 16;
        return Err(Failure::new(
            ExitCode::Resource,
            format!("this host has too little memory for {num} CTs: each would have {ram} MB"),
        )
        .hint(format!("{most} CTs would have 16 MB each")));
    }
    let percent = (host.cpus * 100 / num).max(1);
    let procs = (host.pids / 2 / num).clamp(64, 32_768);
    Ok(format!(
        "# One of {num} equal parts of this host: {} of memory, {} of swap space, {} CPUs.\n# Nothing is oversold. Made by vzsplit.\n\n[limits]\nphyspages = \"0:{ram}M\"\nswappages = \"0:{swap}M\"\noomguarpages = \"{}M\"\nnumproc = {procs}\n\n[cpu]\nunits = 1000\nlimit = {percent}\n",
        human(host.memory),
        human(host.swap),
        host.cpus,
        ram / 2
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_oversells_nothing_and_is_a_sample() {
        let host = HostFigures {
            memory: 8 << 30,
            swap: 2 << 30,
            cpus: 4,
            pids: 4_194_304,
            reserve: 256 << 20,
            ..HostFigures::default()
        };
        for n in [1, 3, 10, 100] {
            let text = plan(&host, n, None).unwrap();
            let part: toml::Table = toml::from_str(&text).unwrap();
            let limits: vz_types::limits::LimitsConfig = part["limits"].clone().try_into().unwrap();
            let ram = limits.get(vz_types::limits::Ub::Physpages).limit.number().unwrap() * PAGE;
            assert!(ram * n <= host.memory - host.reserve, "{n}");
            assert!(part["cpu"]["limit"].as_integer().unwrap() * n as i64 <= 400.max(n as i64));
        }
        assert!(plan(&host, 10_000, None).is_err());
    }
}
