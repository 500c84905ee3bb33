//! What is held: the kernel's own figures of a running container, raw, without what is remembered of earlier runs.

use super::{Files, processes::Sample};
use std::{fs, path::Path};
use vz_types::limits::{
    PAGE, Ub, Unit,
    table::{COUNTERS, Held},
};

/// One counter's figures since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// Now; `None`: nobody can tell on this host.
    pub held: Option<u64>,
    /// The kernel's own peak, where it keeps one.
    pub peak: Option<u64>,
    /// Refusals.
    pub fails: u64,
}

/// Figures of the socket program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFigures {
    /// Sockets there are.
    pub held: u64,
    /// At most.
    pub peak: u64,
    /// Refused.
    pub fails: u64,
}

/// Every counter's figures, in the table's order. `sockets`: TCP and other, where the program is attached; `sample`:
/// the last look at the processes.
pub fn all(files: &Files<'_>, sample: Option<&Sample>, sockets: Option<[SocketFigures; 2]>) -> Vec<Raw> {
    let mut raws: Vec<Raw> = COUNTERS
        .iter()
        .map(|c| {
            let scale = |n: u64| if c.unit == Unit::Pages { n.div_ceil(PAGE) } else { n };
            let sampled = || sample.and_then(|s| of_sample(c.ub, s));
            let held = match c.held {
                Held::File(file) => files.number(file).map(scale),
                Held::MemoryStat(key) => files.keyed("memory.stat", key).map(scale),
                Held::Sampled | Held::Sockets => sampled(),
            };
            let peak = c.peak.and_then(|file| files.number(file)).map(scale);
            let fails = c.fails.iter().filter_map(|(file, key)| fails(files, file, key)).sum();
            Raw { held, peak, fails }
        })
        .collect();
    if let Some(figures) = sockets {
        put_sockets(&mut raws, figures);
    }
    raws
}

/// Puts the socket program's figures in the place of the two counters it keeps.
pub fn put_sockets(raws: &mut [Raw], [tcp, other]: [SocketFigures; 2]) {
    for (ub, s) in [(Ub::Numtcpsock, tcp), (Ub::Numothersock, other)] {
        if let Some(raw) = raws.get_mut(ub as usize) {
            *raw = Raw { held: Some(s.held), peak: Some(s.peak), fails: s.fails };
        }
    }
}

fn of_sample(ub: Ub, s: &Sample) -> Option<u64> {
    match ub {
        Ub::Numfile => Some(s.numfile),
        Ub::Privvmpages => Some(s.privvmpages),
        Ub::Numflock => Some(s.numflock),
        Ub::Numpty => Some(s.numpty),
        Ub::Numsiginfo => Some(s.numsiginfo),
        Ub::Numiptent => s.numiptent,
        Ub::Numtcpsock => Some(s.numtcpsock),
        Ub::Numothersock => Some(s.numothersock),
        _ => None,
    }
}

fn fails(files: &Files<'_>, file: &'static str, key: &str) -> Option<u64> {
    match file {
        // The walk below is only for kernels that need it.
        "pids.events" if files.text(file).is_some() && files.text("pids.events.local").is_none() => {
            fails_of(files.path(), file, key)
        }
        _ => files.keyed(file, key),
    }
}

/// Refusals of a cgroup. Before Linux 6.11 a fork that was refused was only told of in the cgroup of who forked,
/// wherever the limit was (there is no `pids.events.local` then), so those below are added up.
fn fails_of(cgroup: &Path, file: &str, key: &str) -> Option<u64> {
    let own = keyed_file(cgroup, file, key)?;
    if file != "pids.events" || cgroup.join("pids.events.local").exists() {
        return Some(own);
    }
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let dirs = below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    Some(own + dirs.filter_map(|d| fails_of(&d.path(), file, key)).sum::<u64>())
}

/// Microseconds for which a container was held back by `cpu.max`, at our level or at its own, which says the same.
pub fn throttled(files: &Files<'_>) -> u64 {
    match files.keyed("cpu.stat", "throttled_usec") {
        Some(ours) => ours.max(keyed_file(&files.path().join("ns"), "cpu.stat", "throttled_usec").unwrap_or(0)),
        // Without the controller neither level tells.
        None => 0,
    }
}

/// Processes and threads in a container's tree where no controller counts them. Our own level and the two below it are
/// ours; only a container with cgroups of its own is walked through.
pub fn threads(files: &Files<'_>) -> Option<u64> {
    if files.keyed("cgroup.stat", "nr_descendants") != Some(2) {
        return None;
    }
    let here = |file: &'static str| files.text(file).map(|t| t.lines().count() as u64);
    Some(here("ns/cgroup.threads")? + here("exec/cgroup.threads")?)
}

/// The number behind a key, one to a line.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The number behind a key of a file in a cgroup.
pub fn keyed_file(cgroup: &Path, file: &str, key: &str) -> Option<u64> {
    keyed(&fs::read_to_string(cgroup.join(file)).ok()?, key)
}

/// Pressure of one resource: share of time in percent that some and all of its processes waited, over 10, 60 and 300
/// seconds, and the totals in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Some waited: averages over 10, 60, 300 s.
    pub some: [f64; 3],
    /// All waited.
    pub full: [f64; 3],
    /// Microseconds in which some waited, since the cgroup was made.
    pub some_total: u64,
    /// Microseconds in which all waited.
    pub full_total: u64,
}

/// What a file `cpu.pressure`, `memory.pressure` or `io.pressure` says; `None` where the kernel keeps none.
pub fn pressure(files: &Files<'_>, file: &'static str) -> Option<Pressure> {
    let text = files.text(file)?;
    let mut out = Pressure::default();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let mut averages = [0.0; 3];
        let mut total = 0;
        for (n, word) in rest.split(' ').enumerate() {
            let (_, value) = word.split_once('=')?;
            match averages.get_mut(n) {
                Some(slot) => *slot = value.parse().ok()?,
                None => total = value.parse().ok()?,
            }
        }
        match kind {
            "some" => (out.some, out.some_total) = (averages, total),
            _ => (out.full, out.full_total) = (averages, total),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_forks_are_added_up_where_the_kernel_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("pids.events", "max 1\n");
        put("ns/pids.events", "max 2\n");
        put("ns/app.service/pids.events", "max 4\n");
        assert_eq!(fails_of(dir.path(), "pids.events", "max"), Some(7));
        put("pids.events.local", "max 0\n");
        assert_eq!(fails_of(dir.path(), "pids.events", "max"), Some(1));
    }

    #[test]
    fn threads_are_counted_in_our_two_levels_unless_there_are_more() {
        let dir = tempfile::tempdir().unwrap();
        for (level, text) in [("ns", "1\n5\n6\n"), ("exec", "9\n")] {
            fs::create_dir(dir.path().join(level)).unwrap();
            fs::write(dir.path().join(level).join("cgroup.threads"), text).unwrap();
        }
        let stat = |n: u8| fs::write(dir.path().join("cgroup.stat"), format!("nr_descendants {n}\n")).unwrap();
        stat(2);
        assert_eq!(threads(&Files::open(dir.path())), Some(4));
        stat(3);
        assert_eq!(threads(&Files::open(dir.path())), None);
    }

    #[test]
    fn figures_come_from_the_files_in_the_counters_unit() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("memory.current", "8193\n");
        put("memory.peak", "12288\n");
        put("memory.stat", "anon 1\nkernel 5000\nsock 77\nkernel_stack 9\n");
        put("memory.events", "low 0\nhigh 1\nmax 3\noom 2\noom_kill 1\n");
        put(
            "memory.pressure",
            "some avg10=1.50 avg60=0.00 avg300=0.25 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        );
        let files = Files::open(dir.path());
        let all = all(&files, None, None);
        let of = |ub: Ub| all[ub as usize];
        assert_eq!(of(Ub::Physpages), Raw { held: Some(3), peak: Some(3), fails: 5 });
        assert_eq!(of(Ub::Kmemsize).held, Some(5000));
        assert_eq!(of(Ub::Oomguarpages).fails, 1);
        assert_eq!(of(Ub::Numproc).held, None);
        let p = pressure(&files, "memory.pressure").unwrap();
        assert_eq!((p.some, p.some_total, p.full_total), ([1.5, 0.0, 0.25], 42, 7));
    }
}
