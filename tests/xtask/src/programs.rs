//! Building the programs under test: release binaries, vzmon linked statically.

use crate::show;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use vz_tests::template::checkout;

/// How long a cold build may take.
const LIMIT: Duration = Duration::from_secs(1500);

/// What vzctl is called as well: links to it, beside it.
pub const NAMES: &[&str] = &["vzlist", "vzubc", "vzcfgvalidate", "vzcalc", "vzmemcheck", "vzcpucheck", "vzsplit"];

/// A cargo command at the top of the checkout.
pub fn cargo(words: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut c = Command::new(program);
    // What cargo tells us about xtask itself is not for the commands it runs.
    for (name, _) in std::env::vars_os() {
        let n = name.to_string_lossy().into_owned();
        if n.starts_with("CARGO_PKG_") || n == "CARGO_MANIFEST_DIR" || n == "CARGO_MANIFEST_PATH" {
            c.env_remove(&name);
        }
    }
    c.args(words).current_dir(checkout()).env("CARGO_TERM_COLOR", "never");
    c
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() => dir,
        Some(dir) => checkout().join(dir),
        None => checkout().join("target"),
    }
}

/// Programs that are linked statically where that can be done.
const STATIC: [&str; 2] = ["vzctl", "vzmon"];

/// Builds vzctl, vzd and vzmon; returns their directory.
///
/// # Errors
/// A build fails.
pub fn build() -> Result<PathBuf> {
    let bin = target_dir().join("release");
    show::long("build vzd (release)", &mut cargo(&["build", "--release", "--locked", "-p", "vzd"]), LIMIT)?;
    // One vzctl per command and one monitor per CT: static, they start sooner, with nothing to be relocated.
    for program in STATIC {
        let fixed = ["rustc", "--release", "--locked", "-p", program, "--bin", program];
        let fixed = [&fixed[..], &["--", "-C", "target-feature=+crt-static"]].concat();
        if let Err(e) = show::long(&format!("build {program} (release, static)"), &mut cargo(&fixed), LIMIT) {
            show::say(format!(
                "     a static {program} cannot be linked here ({e:#}); a dynamic one works as well, it starts later"
            ));
            show::long(
                &format!("build {program} (release, dynamic)"),
                &mut cargo(&["build", "--release", "--locked", "-p", program]),
                LIMIT,
            )?;
        }
    }
    for program in ["vzctl", "vzd", "vzmon"] {
        if !bin.join(program).exists() {
            bail!("cargo built no {}", bin.join(program).display());
        }
    }
    // One program under several names.
    for name in NAMES {
        let link = bin.join(name);
        if fs::read_link(&link).ok().as_deref() != Some(Path::new("vzctl")) {
            let _ = fs::remove_file(&link);
            symlink("vzctl", &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    for program in STATIC {
        let how = if is_static(&bin.join(program))? { "statically" } else { "dynamically" };
        show::settled(format!("     {program} is linked {how}"));
    }
    Ok(bin)
}

/// Whether an ELF program asks for no dynamic loader (has no PT_INTERP program header; elf(5)).
fn is_static(program: &Path) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let number = |at: usize, len: usize| -> Option<u64> {
        let mut whole = [0u8; 8];
        whole[..len].copy_from_slice(bytes.get(at..at + len)?);
        Some(u64::from_le_bytes(whole))
    };
    let headers = || -> Option<bool> {
        let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let mut kinds = (0..count).map(|i| number(usize::try_from(offset + i * size).ok()?, 4));
        Some(!kinds.any(|k| k == Some(PT_INTERP.into())))
    };
    headers().with_context(|| format!("{} is no 64-bit ELF file", program.display()))
}
