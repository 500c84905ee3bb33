//! Figures against peers.

use crate::deps;

/// What to measure.
#[derive(clap::Args)]
pub struct Options {}

/// Installs the peers.
pub fn run(_: &Options) -> anyhow::Result<()> {
    deps::install(deps::PEERS)?;
    anyhow::bail!("not yet measured")
}
