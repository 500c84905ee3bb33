//! `cargo xtask bench`: what an operator waits for, of vz and of its peers, on the same root filesystems, one run of
//! each after the other so that a busy machine is busy for all of them. Medians and ratios.
//!
//! Everything happens in a mount and network namespace made for the run; times begin before the command is started
//! and end with what is named: PID 1 noting the clock, the command coming back, an ssh banner.

mod figures;
mod many;
mod peers;
mod world;

use crate::{deps, programs, show};
use anyhow::{Context, Result, bail};
use clap::Args;
use figures::Figures;
use peers::{Kind, Lxc, Nspawn, Peer, Vz};
use std::{os::unix::process::CommandExt, path::PathBuf, process::Command};
use world::World;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Runs that count, after one that does not
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    runs: usize,
    /// Groups of figures: tiny, net, debian, twenty, idle, many
    #[arg(long, value_delimiter = ',', default_value = "tiny,net,debian,twenty,idle", value_name = "GROUP,...")]
    figures: Vec<String>,
    /// Peers to measure beside vz
    #[arg(long, value_delimiter = ',', default_value = "lxc,nspawn", value_name = "PEER,...")]
    peers: Vec<String>,
    /// How many at once where several are started together
    #[arg(long, default_value_t = 20, value_name = "N")]
    together: usize,
    /// Beside how many running containers `many` measures
    #[arg(long, value_delimiter = ',', default_value = "1,100,300,600,1000", value_name = "N,...")]
    many: Vec<usize>,
    /// Measure the programs in DIR instead of this checkout's
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

impl Options {
    fn wants(&self, group: &str) -> bool {
        self.figures.iter().any(|f| f == group)
    }

    /// Whether anything is measured that peers do as well.
    fn peers_wanted(&self) -> bool {
        self.figures.iter().any(|f| f != "many") && !self.peers.is_empty()
    }

    /// The root filesystems that are needed.
    fn kinds(&self) -> &'static [Kind] {
        match (self.wants("debian") || self.wants("idle"), self.wants("many")) {
            (true, true) => &[Kind::Tiny, Kind::Debian, Kind::Prompt],
            (true, false) => &Kind::ALL,
            (false, true) => &[Kind::Tiny, Kind::Prompt],
            (false, false) => &[Kind::Tiny],
        }
    }
}

/// Set for the process that runs in the namespaces of its own.
const INSIDE: &str = "VZ_BENCH_INSIDE";

/// Measures and prints the table.
///
/// # Errors
/// A peer cannot be installed or does not work.
pub fn run(options: &Options) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("containers need root: run `cargo xtask bench` as root");
    }
    for group in &options.figures {
        if !figures::GROUPS.contains(&group.as_str()) {
            bail!("no figures `{group}`; there are {}", figures::GROUPS.join(", "));
        }
    }
    if std::env::var_os(INSIDE).is_none() {
        deps::install(deps::ALL)?;
        if options.peers_wanted() {
            deps::install(deps::PEERS)?;
        }
        let bin = match &options.programs {
            Some(bin) => bin.clone(),
            None => programs::build()?,
        };
        if options.kinds().contains(&Kind::Debian) {
            world::prepare_templates(&bin)?;
        }
        let mut again = Command::new("unshare");
        again.args(["--mount", "--net", "--propagation", "private"]).arg(std::env::current_exe()?);
        again.args(std::env::args_os().skip(1)).env(INSIDE, "1");
        return Err(again.exec()).context("cannot make namespaces for the run");
    }
    let bin = options.programs.clone().unwrap_or_else(|| programs::target_dir().join("release"));
    let world = World::make(&bin, options.kinds())?;
    if options.wants("many") {
        world.give_uplink()?;
        let mut vz = Vz::new(&world)?;
        let growth = many::run(&mut vz, &options.many, options.runs)
            .with_context(|| format!("the log is in {}", world.dir.display()))?;
        show::say(growth.table());
        if options.figures.iter().all(|f| f == "many") {
            drop(vz);
            return world.remove();
        }
    }
    let mut peers: Vec<Box<dyn Peer>> = vec![Box::new(Vz::new(&world)?)];
    for name in &options.peers {
        peers.push(match name.as_str() {
            "lxc" => Box::new(Lxc::new(&world)?),
            "nspawn" => Box::new(Nspawn::new(&world)?),
            other => bail!("no peer `{other}`; there are lxc and nspawn"),
        });
    }
    let mut figures = Figures::default();
    let wanted = |group: &str| options.wants(group);
    for round in 0..=options.runs {
        for peer in &peers {
            // The first round warms caches and is not counted.
            let mut sink = Figures::default();
            let into = if round == 0 { &mut sink } else { &mut figures };
            if wanted("tiny") {
                figures::lifecycle(&**peer, &world, Kind::Tiny, false, into)?;
            }
            if wanted("net") && peer.has_network() {
                figures::lifecycle(&**peer, &world, Kind::Tiny, true, into)?;
            }
            if wanted("debian") {
                figures::lifecycle(&**peer, &world, Kind::Debian, false, into)?;
            }
            if wanted("twenty") {
                figures::together(&**peer, &world, Kind::Tiny, options.together, into)?;
            }
        }
        show::say(format!("     round {round} of {}{}", options.runs, if round == 0 { " (not counted)" } else { "" }));
    }
    if wanted("idle") {
        for peer in &peers {
            figures::together(&**peer, &world, Kind::Debian, options.together, &mut figures)?;
        }
    }
    let names: Vec<&str> = peers.iter().map(|p| p.name()).collect();
    show::say(figures.table(&names));
    drop(peers);
    world.remove()
}
