//! What a manager holds of the machine's resources, as sorted lines of text that say what each is: two of them
//! compared tell a leak by name. Everything is found from the kernel's own accounts, never by asking the manager.

use crate::{netns::NetNs, proc};
use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use vz_types::Paths;

/// Everything a manager holds at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census(BTreeSet<String>);

impl Census {
    /// Counts what the manager below `paths` holds; links, routes, rules and processes are looked for in `host`,
    /// the network namespace it works in (`None`: the machine's own, where only what carries its tag counts).
    pub fn take(paths: &Paths, host: Option<&NetNs>) -> Self {
        let mut all = BTreeSet::new();
        all.extend(mounts(paths));
        all.extend(loops(&paths.base));
        all.extend(cgroups(paths));
        all.extend(directories(paths));
        all.extend(network(paths, host));
        all.extend(processes(paths, host));
        Self(all)
    }

    /// Its lines of one kind: `mount`, `loop`, `cgroup`, `process`, `private`, `root`, `run`, `trash`, `conf`,
    /// `link`, `route`, `neighbour`, `nft`.
    pub fn of(&self, kind: &str) -> Vec<&str> {
        let prefix = format!("{kind} ");
        self.0.iter().filter_map(|l| l.strip_prefix(&prefix)).collect()
    }

    /// What `later` has that this has not (`+`), and the reverse (`-`).
    pub fn changes(&self, later: &Census) -> Vec<String> {
        let gone = self.0.difference(&later.0).map(|l| format!("- {l}"));
        let new = later.0.difference(&self.0).map(|l| format!("+ {l}"));
        gone.chain(new).collect()
    }

    /// Without lines for which `drop` says so.
    pub fn without(&self, drop: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|l| !drop(l)).cloned().collect())
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|l| writeln!(f, "  {l}"))
    }
}

/// Mounts below the root, and mounts elsewhere of our images' loop devices.
pub fn mounts(paths: &Paths) -> Vec<String> {
    let base = format!("{}/", paths.base.display());
    // A tool's own bind mounts of cached templates are not the manager's.
    let template = format!("{}/", paths.template_dir().display());
    proc::mounts()
        .into_iter()
        .map(|m| m.at.display().to_string())
        .filter(|m| m.starts_with(&base) && !m.starts_with(&template))
        .map(|m| format!("mount {m}"))
        .collect()
}

/// Loop devices whose file is below `base`, deleted or not.
pub fn loops(base: &Path) -> Vec<String> {
    let base = format!("{}/", base.display());
    entries(Path::new("/sys/block"))
        .into_iter()
        .filter(|name| name.starts_with("loop"))
        .filter_map(|name| fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok())
        .filter(|file| file.starts_with(&base))
        .map(|file| format!("loop {}", file.trim()))
        .collect()
}

/// Where cgroup2 is mounted.
pub fn cgroup2_mount() -> Option<PathBuf> {
    proc::mounts().into_iter().find(|m| m.kind == "cgroup2").map(|m| m.at)
}

/// Our cgroups: the containers' and everything below them. The manager's own level is no leak while it lives.
pub fn cgroups(paths: &Paths) -> Vec<String> {
    let Some(top) = cgroup2_mount().map(|m| m.join(paths.cgroup_name())) else { return Vec::new() };
    let mut found = Vec::new();
    let mut todo = vec![top.clone()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                todo.push(entry.path());
                let path = entry.path();
                found.push(format!("cgroup {}", path.strip_prefix(&top).unwrap_or(&path).display()));
            }
        }
    }
    found
}

fn entries(dir: &Path) -> Vec<String> {
    let list = fs::read_dir(dir).into_iter().flatten().flatten();
    list.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn directories(paths: &Paths) -> Vec<String> {
    let places = [
        ("private", paths.private_dir()),
        ("root", paths.root_dir()),
        ("trash", paths.trash_dir()),
        ("run", paths.ct_run_dir()),
        ("conf", paths.conf_dir()),
        ("template", paths.template_dir()),
    ];
    let lines =
        places.iter().flat_map(|(kind, dir)| entries(dir).into_iter().map(move |name| format!("{kind} {name}")));
    lines.collect()
}

fn tool(host: Option<&NetNs>, line: &str) -> Vec<String> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let mut command = match host {
        Some(ns) => ns.command(program),
        None => Command::new(program),
    };
    command.args(words);
    match crate::command::run(&mut command, None, Duration::from_secs(10)) {
        Ok(o) if o.code() == 0 => {
            o.stdout.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        }
        _ => Vec::new(),
    }
}

/// Links, routes, proxied neighbours and rules. In a namespace of our own everything counts; on the machine's
/// own network only what carries the manager's names.
pub fn network(paths: &Paths, host: Option<&NetNs>) -> Vec<String> {
    let prefix = paths.link_prefix();
    let ours =
        |l: &String| host.is_some() || l.split([' ', ':', '@']).any(|w| w.starts_with(&prefix) && ct_link(w, &prefix));
    let mut all = Vec::new();
    let links = tool(host, "ip -o link show").into_iter().filter(&ours);
    // Index, counters and addresses change by themselves; the name says which.
    all.extend(links.filter_map(|l| {
        let name = l.split(": ").nth(1).map(|n| n.split('@').next().unwrap_or(n).to_owned())?;
        Some(format!("link {name}"))
    }));
    for family in ["-4", "-6"] {
        let routes = tool(host, &format!("ip {family} route show table all")).into_iter().filter(&ours);
        let stable = routes.map(|l| l.split(" expires ").next().unwrap_or(&l).to_owned());
        all.extend(
            stable.filter(|l| !l.contains("fe80:") && !l.starts_with("multicast ff00::")).map(|l| format!("route {l}")),
        );
        all.extend(
            tool(host, &format!("ip {family} neigh show proxy"))
                .into_iter()
                .filter(&ours)
                .map(|l| format!("neighbour {l}")),
        );
    }
    let tables: Vec<String> = tool(host, "nft list tables")
        .into_iter()
        .filter(|t| host.is_some() || t.split(' ').nth(2) == Some(paths.nft_table().as_str()))
        .collect();
    for table in tables {
        let name = table.trim_start_matches("table ").to_owned();
        // The elements are what a container adds.
        for element in nft_elements(host, &name) {
            all.push(format!("nft {name} {element}"));
        }
        all.push(format!("nft {name}"));
    }
    all
}

fn ct_link(word: &str, prefix: &str) -> bool {
    let rest = &word[prefix.len()..];
    !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())
}

/// The set elements of a table, each with its set's name.
fn nft_elements(host: Option<&NetNs>, table: &str) -> Vec<String> {
    let text = tool(host, &format!("nft -j list table {table}")).join(" ");
    let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { return Vec::new() };
    let mut found = Vec::new();
    for object in value["nftables"].as_array().into_iter().flatten() {
        for kind in ["set", "map"] {
            let name = object[kind]["name"].as_str().unwrap_or_default();
            for element in object[kind]["elem"].as_array().into_iter().flatten() {
                // Counters of an element count on.
                let what = if element["elem"]["val"].is_null() { element } else { &element["elem"]["val"] };
                found.push(format!("{name} {what}"));
            }
        }
    }
    found
}

/// Processes in the manager's cgroups, and in a network namespace of our own every vz program.
fn processes(paths: &Paths, host: Option<&NetNs>) -> Vec<String> {
    let cgroup = format!("/{}/", paths.cgroup_name());
    let inode = host.map(NetNs::inode);
    let mut found = Vec::new();
    for pid in proc::all() {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // What has ended and waits to be reaped holds nothing.
        if proc::Stat::of(pid).is_none_or(|s| s.state() == 'Z') {
            continue;
        }
        let name = read("comm").trim().to_owned();
        let in_cgroup = read("cgroup").lines().any(|l| l.starts_with("0::") && l.contains(&cgroup));
        let same_net = || {
            let link = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default();
            inode.is_some_and(|i| link.to_string_lossy() == format!("net:[{i}]"))
        };
        let ours =
            name.starts_with("vzmon") && (same_net() || read("cmdline").contains(&*paths.base.to_string_lossy()));
        if in_cgroup || ours {
            found.push(format!("process {name} ({})", if in_cgroup { "in a cgroup of ours" } else { "ours" }));
        }
    }
    found
}

/// How many descriptors of each kind the process has: `socket`, `pipe`, `anon_inode:[pidfd]`, `net`, a path.
/// Grown over a repeated operation, it tells a leak.
pub fn descriptors(pid: u32) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for fd in entries(&PathBuf::from(format!("/proc/{pid}/fd"))) {
        if let Ok(target) = fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
            let text = target.to_string_lossy().into_owned();
            found.push(text.split(":[").next().unwrap_or(&text).to_owned());
        }
    }
    found.sort();
    found
}

/// The last `count` lines of a file, for messages.
pub fn tail(file: &Path, count: usize) -> String {
    let Ok(f) = fs::File::open(file) else { return String::new() };
    let lines: Vec<String> = BufReader::new(f)
        .split(b'\n')
        .map_while(Result::ok)
        .map(|l| String::from_utf8_lossy(&l).into_owned())
        .collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
