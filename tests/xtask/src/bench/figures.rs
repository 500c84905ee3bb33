//! The figures: how each is taken, its goal, and the table at the end.

use super::{
    peers::{Kind, Peer, Started},
    world::{World, now},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Read,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};
use vz_tests::{NetNs, wait};

/// Names for `--figures`.
pub const GROUPS: &[&str] = &["tiny", "net", "debian", "twenty", "idle", "many"];

/// A row of the table: figure, unit, goal for vz.
const ROWS: &[(&str, &str, &str)] = &[
    ("create from the Debian template", "ms", "10"),
    ("start tiny, cold: PID 1 runs", "ms", "6"),
    ("start tiny, cold: command back", "ms", ""),
    ("start tiny, warm: PID 1 runs", "ms", "5"),
    ("start tiny, warm: command back", "ms", ""),
    ("start tiny with network: PID 1 runs", "ms", "8"),
    ("start tiny with network: command back", "ms", ""),
    ("boot Debian to ssh banner", "ms", "200"),
    ("exec true", "ms", "2.5"),
    ("graceful stop of Debian", "ms", "110"),
    ("destroy Debian", "ms", "8"),
    ("tiny ones at once: all PID 1 run", "ms", "70"),
    ("tiny ones at once: all commands back", "ms", ""),
    ("list those running", "ms", "3"),
    ("monitor, private, each", "MiB", "0.3"),
    ("daemon, those running", "MiB", "15"),
    ("Debian ones at once: all ssh banners", "ms", "3000"),
    ("idle Debian, each", "MiB", "10"),
];

/// What was measured: figure and peer to values; and vz's own steps.
#[derive(Default)]
pub struct Figures {
    values: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    steps: Vec<(String, Vec<f64>)>,
}

impl Figures {
    fn add(&mut self, figure: &'static str, peer: &'static str, value: f64) {
        debug_assert!(ROWS.iter().any(|(f, _, _)| *f == figure), "{figure}");
        self.values.entry((figure, peer)).or_default().push(value);
    }

    fn add_steps(&mut self, what: &str, steps: &[(String, f64)]) {
        for (name, ms) in steps {
            let name = format!("{what}: {name}");
            match self.steps.iter_mut().find(|(n, _)| *n == name) {
                Some((_, values)) => values.push(*ms),
                None => self.steps.push((name, vec![*ms])),
            }
        }
    }

    fn median(&self, figure: &'static str, peer: &'static str) -> Option<f64> {
        self.values.get(&(figure, peer)).and_then(|v| median(v))
    }

    /// The table as text.
    pub fn table(&self, peers: &[&'static str]) -> String {
        let mut out = format!("\n{:<40} {:>5} {:>7}", "median", "unit", "goal");
        for peer in peers {
            let _ = write!(out, " {peer:>9}");
        }
        for peer in peers.iter().skip(1) {
            let _ = write!(out, " {:>10}", format!("vz/{peer}"));
        }
        let _ = writeln!(out, "  runs");
        for (figure, unit, goal) in ROWS {
            let medians: Vec<Option<f64>> = peers.iter().map(|p| self.median(figure, p)).collect();
            if medians.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(
                out,
                "{figure:<40} {unit:>5} {:>7}",
                if goal.is_empty() { "".into() } else { format!("<= {goal}") }
            );
            for m in &medians {
                let _ = write!(out, " {:>9}", m.map_or("-".into(), |v| format!("{v:.2}")));
            }
            for m in medians.iter().skip(1) {
                let ratio = match (medians[0], m) {
                    (Some(a), Some(b)) if *b > 0.0 => format!("{:.2}", a / b),
                    _ => "-".into(),
                };
                let _ = write!(out, " {ratio:>10}");
            }
            let runs = self.values.get(&(*figure, peers[0])).map_or(0, Vec::len);
            let missed = match (medians[0], goal.parse::<f64>()) {
                (Some(v), Ok(g)) if v > g => "  over the goal",
                _ => "",
            };
            let _ = writeln!(out, " {runs:>5}{missed}");
        }
        if !self.steps.is_empty() {
            let _ = writeln!(out, "\nwhere vz spends it (median ms of each step as vzd reports it)");
            for (name, values) in &self.steps {
                let _ = writeln!(out, "  {name:<50} {:>8.2}", median(values).unwrap_or(0.0));
            }
        }
        out
    }
}

/// The middle one of several values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(sorted[n / 2]),
        _ => Some(f64::midpoint(sorted[n / 2 - 1], sorted[n / 2])),
    }
}

/// Runs a command to its end and gives its milliseconds.
pub fn timed(mut c: Command) -> Result<f64> {
    let words = vz_tests::command::line(&c);
    let begun = now();
    let status = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let took = now() - begun;
    match status {
        Ok(s) if s.success() => Ok(took),
        Ok(s) => bail!("`{words}` ended with {s}"),
        Err(e) => Err(e).with_context(|| words),
    }
}

/// Starts one and waits until PID 1 has noted the clock.
fn start(peer: &dyn Peer, n: usize, kind: Kind, net: bool) -> Result<Started> {
    let mut c = peer.start(n, kind, net);
    let words = vz_tests::command::line(&c);
    let begun = now();
    let mut child =
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().with_context(|| words.clone())?;
    let mut back = None;
    let mut said = String::new();
    if !peer.foreground() {
        if let Some(out) = child.stdout.as_mut() {
            // A started container may hold our pipe: vz and lxc do not.
            out.read_to_string(&mut said)?;
        }
        let status = child.wait()?;
        back = Some(now() - begun);
        if !status.success() {
            bail!("`{words}` ended with {status}: {said}");
        }
    }
    let stamp = wait_stamp(peer, n, begun)?;
    Ok(Started { begun, pid1: stamp - begun, back, child, said })
}

fn wait_stamp(peer: &dyn Peer, n: usize, after: f64) -> Result<f64> {
    let file = peer.stamp(n);
    let newer = || {
        let ns: f64 = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
        (ns / 1e6 > after).then_some(ns / 1e6)
    };
    wait::retry(Duration::from_secs(30), Duration::from_millis(1), newer)
        .with_context(|| format!("no new {}", file.display()))
}

/// Ends one by `c` and gives the milliseconds until its init and the command are gone.
fn end(peer: &dyn Peer, started: &mut Started, init: i32, c: Command) -> Result<f64> {
    let held = wait::Process::open(u32::try_from(init)?)?;
    let begun = now();
    timed(c)?;
    if !held.ended(Duration::from_secs(60))? {
        bail!("init of {} does not end", peer.name());
    }
    started.child.wait()?;
    Ok(now() - begun)
}

fn create(peer: &dyn Peer, n: usize, kind: Kind, net: bool) -> Result<f64> {
    let begun = now();
    for c in peer.create(n, kind, net) {
        timed(c)?;
    }
    Ok(now() - begun)
}

fn destroy(peer: &dyn Peer, n: usize) -> Result<f64> {
    let begun = now();
    for c in peer.destroy(n) {
        timed(c)?;
    }
    Ok(now() - begun)
}

/// When sshd in the network namespace of `init` said its name.
fn ssh_banner(init: i32) -> Result<f64> {
    let ns = NetNs::of(init)?;
    let banner = ns.inside(|| {
        wait::retry(Duration::from_secs(120), Duration::from_millis(2), || {
            let mut s = TcpStream::connect("127.0.0.1:22").ok()?;
            s.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            let mut first = [0; 4];
            s.read_exact(&mut first).ok()?;
            (&first == b"SSH-").then(now)
        })
    });
    banner.context("no ssh banner")
}

/// One container's life.
pub fn lifecycle(peer: &dyn Peer, world: &World, kind: Kind, net: bool, into: &mut Figures) -> Result<()> {
    let (n, name) = (1, peer.name());
    let done: Result<()> = (|| {
        let ms = create(peer, n, kind, net)?;
        if kind == Kind::Debian {
            into.add("create from the Debian template", name, ms);
        }
        let mut started = start(peer, n, kind, net)?;
        let init = peer.init(n, &started)?;
        match (kind, net) {
            (Kind::Prompt, _) => bail!("{name} is measured beside many only"),
            (Kind::Debian, _) => {
                into.add("boot Debian to ssh banner", name, ssh_banner(init)? - started.begun);
                peer.settle(init);
                for _ in 0..3 {
                    into.add("exec true", name, timed(peer.exec(n, init))?);
                }
                let stop = peer.stop(n, &started);
                into.add("graceful stop of Debian", name, end(peer, &mut started, init, stop)?);
            }
            (Kind::Tiny, false) => {
                into.add("start tiny, cold: PID 1 runs", name, started.pid1);
                if let Some(back) = started.back {
                    into.add("start tiny, cold: command back", name, back);
                }
                into.add_steps("start, cold", &started.steps());
                end(peer, &mut started, init, peer.kill(n, init))?;
                let mut again = start(peer, n, kind, net)?;
                into.add("start tiny, warm: PID 1 runs", name, again.pid1);
                if let Some(back) = again.back {
                    into.add("start tiny, warm: command back", name, back);
                }
                into.add_steps("start, warm", &again.steps());
                let init = peer.init(n, &again)?;
                end(peer, &mut again, init, peer.kill(n, init))?;
            }
            (Kind::Tiny, true) => {
                into.add("start tiny with network: PID 1 runs", name, started.pid1);
                if let Some(back) = started.back {
                    into.add("start tiny with network: command back", name, back);
                }
                into.add_steps("start with network", &started.steps());
                end(peer, &mut started, init, peer.kill(n, init))?;
            }
        }
        let ms = destroy(peer, n)?;
        if kind == Kind::Debian {
            into.add("destroy Debian", name, ms);
        }
        Ok(())
    })();
    done.with_context(|| {
        format!("{name}, {kind:?}{}; the log is in {}", if net { " with network" } else { "" }, world.dir.display())
    })
}

/// Several at once: how long until all run, what listing them takes, what they cost in memory.
pub fn together(peer: &dyn Peer, world: &World, kind: Kind, count: usize, into: &mut Figures) -> Result<()> {
    let name = peer.name();
    let done: Result<()> = (|| {
        for n in 1..=count {
            create(peer, n, kind, false)?;
        }
        let begun = now();
        let mut children: Vec<Child> = Vec::new();
        for n in 1..=count {
            let mut c = peer.start_apart(n, kind);
            children.push(c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        }
        if !peer.foreground() {
            for child in &mut children {
                if !child.wait()?.success() {
                    bail!("a start failed");
                }
            }
            if kind == Kind::Tiny {
                into.add("tiny ones at once: all commands back", name, now() - begun);
            }
        }
        let mut last = 0f64;
        for n in 1..=count {
            last = last.max(wait_stamp(peer, n, begun)?);
        }
        let mut all = Vec::new();
        for (n, child) in (1..=count).zip(children) {
            let started = Started { begun, pid1: 0.0, back: None, child, said: String::new() };
            let init = peer.init(n, &started)?;
            all.push((n, init, started));
        }
        if kind == Kind::Tiny {
            into.add("tiny ones at once: all PID 1 run", name, last - begun);
            if peer.list().is_some() {
                for c in (0..3).filter_map(|_| peer.list()) {
                    into.add("list those running", name, timed(c)?);
                }
            }
            let private: f64 = all.iter().map(|(_, init, _)| private_mib(peer.monitor(*init))).sum();
            into.add("monitor, private, each", name, private / count as f64);
            if let Some(daemon) = peer.daemon() {
                into.add("daemon, those running", name, pss_mib(daemon));
            }
        } else {
            let mut last = 0f64;
            for (_, init, _) in &all {
                last = last.max(ssh_banner(*init)?);
            }
            into.add("Debian ones at once: all ssh banners", name, last - begun);
            for (_, init, _) in &all {
                peer.settle(*init);
            }
            let sum: f64 =
                all.iter().map(|(_, init, _)| inhabitants(*init).into_iter().map(pss_mib).sum::<f64>()).sum();
            into.add("idle Debian, each", name, sum / count as f64);
        }
        for (n, init, started) in &mut all {
            end(peer, started, *init, peer.kill(*n, *init))?;
        }
        for n in 1..=count {
            destroy(peer, n)?;
        }
        Ok(())
    })();
    done.with_context(|| format!("{name}, {count} {kind:?} at once; the log is in {}", world.dir.display()))
}

/// Processes that share the pid namespace of `init`.
fn inhabitants(init: i32) -> Vec<i32> {
    let ns = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = ns(init);
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|p| own.is_some() && ns(*p) == own).collect()
}

fn rollup(pid: i32, fields: &[&str]) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let value = |l: &str| l.split_whitespace().nth(1).and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0);
    text.lines().filter(|l| fields.iter().any(|f| l.starts_with(f))).map(value).sum::<f64>() / 1024.0
}

fn private_mib(pid: i32) -> f64 {
    rollup(pid, &["Private_Clean:", "Private_Dirty:"])
}

fn pss_mib(pid: i32) -> f64 {
    rollup(pid, &["Pss:"])
}
