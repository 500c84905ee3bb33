//! Where the host gets Debian packages from, as apt itself reads its configuration.

use anyhow::{Context, Result, bail};
use std::{process::Command, time::Duration};
use vz_tests::command;

/// Debian's keyring, on the host and in what is installed.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The mirrors the host's apt uses for Debian's own archive.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Archive {
    /// URI of the main archive.
    pub main: String,
    /// URI of the security archive, when the host has one.
    pub security: Option<String>,
}

impl Archive {
    /// Asks apt.
    ///
    /// # Errors
    /// apt has no lists of a Debian archive, also after `apt-get update`.
    pub fn of_host() -> Result<Self> {
        if let Some(found) = parse(&targets()?) {
            return Ok(found);
        }
        crate::deps::update()?;
        match parse(&targets()?) {
            Some(found) => Ok(found),
            None => bail!("the host's apt sources (sources.list(5)) name no Debian archive to build from"),
        }
    }

    /// Lines for `sources.list(5)` of a release, with its updates.
    pub fn sources(&self, release: &str) -> Vec<String> {
        let line = |uri: &str, suite: String| format!("deb [signed-by={KEYRING}] {uri} {suite} main");
        let mut all = vec![line(&self.main, release.to_owned()), line(&self.main, format!("{release}-updates"))];
        all.extend(self.security.iter().map(|uri| line(uri, format!("{release}-security"))));
        all
    }
}

fn targets() -> Result<String> {
    let mut c = Command::new("apt-get");
    // apt-get(8), indextargets: the sources as apt understands them, one line each.
    c.args(["indextargets", "Created-By: Packages", "--format", "$(ORIGIN) $(RELEASE) $(COMPONENT) $(REPO_URI)"]);
    let said = command::run(&mut c, None, Duration::from_secs(60)).context("asking apt for its sources")?;
    Ok(said.stdout)
}

fn parse(said: &str) -> Option<Archive> {
    let rows = said.lines().filter_map(|l| l.strip_prefix("Debian ")).filter_map(|l| {
        let mut words = l.split(' ');
        let (release, component, uri) = (words.next()?, words.next()?, words.next()?);
        (component == "main").then_some((release, uri.trim_end_matches('/').to_owned()))
    });
    let rows: Vec<(&str, String)> = rows.collect();
    let of = |is: &dyn Fn(&str) -> bool| rows.iter().find(|(r, _)| is(r)).map(|(_, uri)| uri.clone());
    Some(Archive { main: of(&|r| !r.contains(['-', '/']))?, security: of(&|r| r.ends_with("-security")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_and_the_security_archive_are_told_apart_and_others_left_out() {
        let said = "Debian Backports bookworm-backports main http://mirror.example/debian/\n\
                    Debian bookworm-updates main http://mirror.example/debian/\n\
                    Other stable main https://packages.example/x/\n\
                    Debian bookworm-security main http://mirror.example/debian-security/\n\
                    Debian bookworm main http://mirror.example/debian/\n";
        let a = parse(said).expect("an archive");
        assert_eq!(a.main, "http://mirror.example/debian");
        assert_eq!(a.security.as_deref(), Some("http://mirror.example/debian-security"));
        assert_eq!(a.sources("trixie").len(), 3);
        assert_eq!(parse("Other stable main https://packages.example/x/\n"), None);
    }
}
