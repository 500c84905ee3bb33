//! `cargo xtask bench`: what an operator waits for, of vz and of its peers, on the same root filesystems, one run of
//! each after the other so that a busy machine is busy for all of them. Medians and ratios.
//!
//! Everything happens in a mount and network namespace made for the run; times begin before the command is started
//! and end with what is named: PID 1 noting the clock, the command coming back, an ssh banner.

mod figures;
mod peers;
mod world;

use crate::{deps, programs, show};
use anyhow::{Context, Result, bail};
use clap::Args;
use figures::Figures;
use peers::{Kind, Lxc, Nspawn, Peer, Vz};
use std::{os::unix::process::CommandExt, process::Command};
use world::World;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Runs that count, after one that does not
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    runs: usize,
    /// Groups of figures: tiny, net, debian, twenty, idle
    #[arg(long, value_delimiter = ',', default_value = "tiny,net,debian,twenty,idle", value_name = "GROUP,...")]
    figures: Vec<String>,
    /// Peers to measure beside vz
    #[arg(long, value_delimiter = ',', default_value = "lxc,nspawn", value_name = "PEER,...")]
    peers: Vec<String>,
    /// How many at once where several are started together
    #[arg(long, default_value_t = 20, value_name = "N")]
    together: usize,
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
        deps::install(deps::PEERS)?;
        let bin = programs::build()?;
        world::prepare_templates(&bin)?;
        let mut again = Command::new("unshare");
        again.args(["--mount", "--net", "--propagation", "private"]).arg(std::env::current_exe()?);
        again.args(std::env::args_os().skip(1)).env(INSIDE, "1");
        return Err(again.exec()).context("cannot make namespaces for the run");
    }
    let world = World::make(&programs::target_dir().join("release"))?;
    let mut peers: Vec<Box<dyn Peer>> = vec![Box::new(Vz::new(&world)?)];
    for name in &options.peers {
        peers.push(match name.as_str() {
            "lxc" => Box::new(Lxc::new(&world)?),
            "nspawn" => Box::new(Nspawn::new(&world)?),
            other => bail!("no peer `{other}`; there are lxc and nspawn"),
        });
    }
    let mut figures = Figures::default();
    let wanted = |group: &str| options.figures.iter().any(|f| f == group);
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
