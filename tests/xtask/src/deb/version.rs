//! The package's version. Debian orders `~` before everything, so builds on the way to a release are older than it,
//! and each other's order is that of their commits:
//!
//! | checkout | version |
//! |---|---|
//! | at tag `v0.1.0` | `0.1.0` |
//! | on the way to it | `0.1.0~git20261121131500.785e061` |
//! | past it, Cargo.toml not raised yet | `0.1.0+git20261121131500.785e061` |
//! | with changes that are not committed | the same with `+changed` and the time of packing |
//! | without git | `0.1.0` |

use super::said;
use anyhow::{Context, Result, ensure};
use std::{process::Command, time::SystemTime};
use vz_tests::template::checkout;

/// Where the package is made from.
pub struct Source {
    /// For the package.
    pub version: String,
    /// Seconds since the epoch: the commit's, or now without one.
    pub epoch: u64,
    /// In words.
    pub name: String,
}

/// Of the checkout this program belongs to.
///
/// # Errors
/// git is there and fails.
pub fn of_checkout() -> Result<Source> {
    let base = env!("CARGO_PKG_VERSION");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if git(&["rev-parse", "--verify", "--quiet", "HEAD"]).is_err() {
        return Ok(Source { version: base.into(), epoch: now, name: "a source tree without git".into() });
    }
    let epoch: u64 = git(&["log", "-1", "--format=%ct"])?.parse().context("the commit's time")?;
    let commit = git(&["rev-parse", "--short=7", "HEAD"])?;
    let tag = format!("v{base}");
    let at_tag = git(&["describe", "--tags", "--exact-match", "--match", &tag]).is_ok();
    let past_tag = git(&["merge-base", "--is-ancestor", &tag, "HEAD"]).is_ok();
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Ok(Source {
        version: name(base, at_tag, past_tag, &stamp(epoch)?, &commit, changed.then_some(stamp(now)?)),
        epoch,
        name: format!("commit {commit}"),
    })
}

fn name(base: &str, at_tag: bool, past_tag: bool, stamp: &str, commit: &str, changed: Option<String>) -> String {
    let clean = match (at_tag, past_tag) {
        (true, _) => base.to_owned(),
        (false, true) => format!("{base}+git{stamp}.{commit}"),
        (false, false) => format!("{base}~git{stamp}.{commit}"),
    };
    match changed {
        Some(when) => format!("{clean}+changed{when}"),
        None => clean,
    }
}

fn git(words: &[&str]) -> Result<String> {
    said(Command::new("git").arg("-C").arg(checkout()).args(words))
}

fn stamp(epoch: u64) -> Result<String> {
    said(Command::new("date").args(["-u", "+%Y%m%d%H%M%S", "-d"]).arg(format!("@{epoch}")))
}

/// A version somebody asked for.
///
/// # Errors
/// dpkg would not take it, or it has a revision, which only packages of somebody else's source have.
pub fn checked(wanted: &str) -> Result<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || ".+~".contains(c);
    ensure!(
        wanted.starts_with(|c: char| c.is_ascii_digit()) && wanted.chars().all(good),
        "`{wanted}` is no version: a digit first, then letters, digits, `.`, `+` and `~`"
    );
    Ok(wanted.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn older(a: &str, b: &str) -> bool {
        Command::new("dpkg").args(["--compare-versions", a, "lt", b]).status().is_ok_and(|s| s.success())
    }

    #[test]
    fn builds_order_as_their_commits_and_releases_do() {
        let on_the_way = name("0.1.0", false, false, "20261121131500", "ffff111", None);
        let later = name("0.1.0", false, false, "20261121131501", "0000111", None);
        let changed = name("0.1.0", false, false, "20261121131501", "0000111", Some("20261121140000".into()));
        let released = name("0.1.0", true, true, "20261122000000", "0000222", None);
        let past = name("0.1.0", false, true, "20261123000000", "0000333", None);
        let next = name("0.2.0", false, false, "20261124000000", "0000444", None);
        for pair in [on_the_way, later, changed, released, past, next].windows(2) {
            assert!(older(&pair[0], &pair[1]), "{} is not older than {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn a_version_dpkg_would_refuse_is_refused() {
        assert!(checked("1.0~rc1+b2").is_ok());
        for bad in ["", "v1", "1.0-1", "1 0", "1:0"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
