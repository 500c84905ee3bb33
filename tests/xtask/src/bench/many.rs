//! What one operation costs beside many running containers: the same figures at each of several numbers of them, so
//! that a cost which grows with the number shows in a row.
//!
//! ```text
//! for each number: create and start what is missing -> one more is started, asked, changed and stopped, over and over
//!                  -> lists -> restart of vzd -> memory, processor time while nothing happens -> stop --all
//! ```

use super::{
    figures::{median, timed},
    peers::{Kind, Peer, Vz},
    world::now,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};
use vz_tests::{proc::Stat, wait};

/// A row of the table: figure, unit, goal at the largest number.
const ROWS: &[(&str, &str, &str)] = &[
    ("start one more", "ms", ""),
    ("exec true in it", "ms", ""),
    ("set --ipadd of it", "ms", ""),
    ("stop it", "ms", ""),
    ("vzlist", "ms", "50"),
    ("vzlist with limits", "ms", "100"),
    ("vzlist of one", "ms", "5"),
    ("vzd again, until it answers", "ms", "300"),
    ("vzd in memory", "MiB", "40"),
    ("vzd while nothing happens, of a core", "%", "1"),
    ("stop --all", "s", "20"),
];

/// The one that is started and stopped beside the others.
const GUEST: usize = 8000;
/// How many are created or started at a time.
const WIDTH: usize = 4;
/// How long nothing happens before processor time is looked at, and while it is.
const SETTLE: Duration = Duration::from_secs(8);
const IDLE: Duration = Duration::from_secs(20);

/// What was measured: number of containers to figure to values.
#[derive(Default)]
pub struct Growth {
    values: BTreeMap<usize, BTreeMap<&'static str, Vec<f64>>>,
    steps: BTreeMap<usize, BTreeMap<String, Vec<f64>>>,
}

impl Growth {
    fn add(&mut self, count: usize, figure: &'static str, value: f64) {
        debug_assert!(ROWS.iter().any(|(f, _, _)| *f == figure), "{figure}");
        self.values.entry(count).or_default().entry(figure).or_default().push(value);
    }

    fn add_steps(&mut self, count: usize, what: &str, said: &str) {
        let value: serde_json::Value = serde_json::from_str(said).unwrap_or_default();
        for s in value["steps"].as_array().into_iter().flatten() {
            if let (Some(name), Some(us)) = (s["name"].as_str(), s["us"].as_f64()) {
                let of_this = self.steps.entry(count).or_default();
                of_this.entry(format!("{what}: {name}")).or_default().push(us / 1000.0);
            }
        }
    }

    /// The table as text.
    pub fn table(&self) -> String {
        let line = |out: &mut String, name: &str, unit: &str, goal: &str, cells: Vec<Option<f64>>| {
            let _ = write!(out, "{name:<40} {unit:>5} {goal:>7}");
            for c in cells {
                let _ = write!(out, " {:>9}", c.map_or("-".into(), |v| format!("{v:.2}")));
            }
            out.push('\n');
        };
        let mut out = format!("\n{:<40} {:>5} {:>7}", "median, beside so many containers", "unit", "goal");
        for count in self.values.keys() {
            let _ = write!(out, " {count:>9}");
        }
        out.push('\n');
        for (figure, unit, goal) in ROWS {
            let cells = self.values.values().map(|f| f.get(figure).and_then(|v| median(v))).collect();
            line(&mut out, figure, unit, &if goal.is_empty() { String::new() } else { format!("<= {goal}") }, cells);
        }
        out.push_str("\nsteps of it as vzd reports them, half a millisecond and more\n");
        let mut names: Vec<&String> = self.steps.values().flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        for name in names {
            let cells: Vec<Option<f64>> = self.steps.values().map(|s| s.get(name).and_then(|v| median(v))).collect();
            if cells.iter().flatten().any(|ms| *ms >= 0.5) {
                line(&mut out, name, "ms", "", cells);
            }
        }
        out
    }
}

/// Measures beside each of these numbers of containers, `runs` times each.
pub fn run(vz: &mut Vz, counts: &[usize], runs: usize) -> Result<Growth> {
    let mut growth = Growth::default();
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    counts.dedup();
    done(vz.create(GUEST, Kind::Prompt, true))?;
    let mut made = 0;
    for count in counts {
        side_by_side((made + 1..=count).flat_map(|n| vz.create(n, Kind::Prompt, true)).collect())?;
        side_by_side((1..=count).map(|n| vz.start(n, Kind::Prompt, true)).collect())?;
        made = count;
        beside(vz, count, runs, &mut growth).with_context(|| format!("beside {count} containers"))?;
        crate::show::say(format!("     beside {count} containers: done"));
    }
    Ok(growth)
}

fn beside(vz: &mut Vz, count: usize, runs: usize, into: &mut Growth) -> Result<()> {
    // The first round warms caches and is not counted.
    for round in 0..=runs {
        let mut sink = Growth::default();
        let into = if round == 0 { &mut sink } else { &mut *into };
        let begun = now();
        let said = answer(vz.start(GUEST, Kind::Prompt, true))?;
        into.add(count, "start one more", now() - begun);
        into.add_steps(count, "start", &said);
        into.add(count, "exec true in it", timed(vz.exec(GUEST, 0))?);
        into.add(count, "set --ipadd of it", timed(vz.set_address(GUEST, "--ipadd"))?);
        timed(vz.set_address(GUEST, "--ipdel"))?;
        let begun = now();
        let said = answer(vz.stop_telling(GUEST))?;
        into.add(count, "stop it", now() - begun);
        into.add_steps(count, "stop", &said);
    }
    for _ in 0..runs {
        into.add(count, "vzlist", timed(vz.vzlist(&[]))?);
        let columns = "ctid,numproc,status,physpages,physpages.l,numproc.l,swappages.l";
        into.add(count, "vzlist with limits", timed(vz.vzlist(&["-o", columns]))?);
        into.add(count, "vzlist of one", timed(vz.vzlist(&["101"]))?);
    }
    for _ in 0..runs.min(3) {
        into.add(count, "vzd again, until it answers", vz.restart()?);
    }
    // Lists are what makes it larger.
    timed(vz.vzlist(&["-o", "ctid,physpages.l"]))?;
    let daemon = wait::Process::open(vz.pid())?;
    let quiet = |time: Duration| match daemon.ended(time)? {
        true => bail!("vzd has ended"),
        false => Ok(()),
    };
    quiet(SETTLE)?;
    let (before, begun) = (processor_ms(daemon.id())?, now());
    quiet(IDLE)?;
    let share = (processor_ms(daemon.id())? - before) / (now() - begun) * 100.0;
    into.add(count, "vzd while nothing happens, of a core", share);
    into.add(count, "vzd in memory", resident_mib(daemon.id())?);
    into.add(count, "stop --all", timed(vz.stop_all())? / 1000.0);
    Ok(())
}

fn done(commands: Vec<Command>) -> Result<()> {
    commands.into_iter().try_for_each(|c| timed(c).map(drop))
}

/// Runs a command to its end and gives what it said.
fn answer(mut c: Command) -> Result<String> {
    let words = vz_tests::command::line(&c);
    let out = c.stdin(Stdio::null()).output().with_context(|| words.clone())?;
    if !out.status.success() {
        bail!("`{words}` ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs them all, some at a time.
fn side_by_side(commands: Vec<Command>) -> Result<()> {
    let mut under_way: std::collections::VecDeque<(String, Child)> = std::collections::VecDeque::new();
    let wait_first = |under_way: &mut std::collections::VecDeque<(String, Child)>| {
        let Some((words, mut child)) = under_way.pop_front() else { return Ok(()) };
        let status = child.wait()?;
        if status.success() { Ok(()) } else { bail!("`{words}` ended with {status}") }
    };
    for mut c in commands {
        if under_way.len() >= WIDTH {
            wait_first(&mut under_way)?;
        }
        let words = vz_tests::command::line(&c);
        let child = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        under_way.push_back((words.clone(), child.with_context(|| words)?));
    }
    while !under_way.is_empty() {
        wait_first(&mut under_way)?;
    }
    Ok(())
}

/// Milliseconds of processor time of a process, threads that have ended included (proc_pid_stat(5), fields 14 and 15).
fn processor_ms(pid: u32) -> Result<f64> {
    let ticks = Stat::of(pid).with_context(|| format!("process {pid} is gone"))?.ticks() as f64;
    Ok(ticks * 1000.0 / rustix::param::clock_ticks_per_second() as f64)
}

fn resident_mib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = text.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.context("no VmRSS")? / 1024.0)
}
