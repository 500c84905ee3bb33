//! Programs that take `/etc/resolv.conf` over once they are installed (systemd-resolved, resolvconf, openresolv, dnsmasq)
//! and then ask others where name servers are: what a machine's DHCP client would have told them lies there from the
//! boot on, so that names resolve from the moment they start. All of it is below /run, which is empty at each boot;
//! what the tenant says below /etc comes before it.

use super::{Dir, Root};
use rustix::{
    fs::{self, Mode},
    io::Errno,
};
use std::fmt::Write;
use vz_types::{plan::FileEdit, written::Entry};

/// Name of the record that a program of ours gave, as resolvconf(8) has it: link, dot, program.
const RECORD: &str = "venet0.vz";

/// Writes what they look for. Nothing of this is worth failing for: it is of no use without such a program, and a tenant
/// who has put something else in its place has his own.
pub fn feed(root: &Root<'_>, edit: &FileEdit) {
    let FileEdit::Resolver { nameservers, search, .. } = edit else { return };
    let Some(Entry { text, .. }) = Entry::of(edit) else { return };
    let lines: String = text.lines().filter(|l| !l.starts_with('#')).fold(String::new(), |s, l| s + l + "\n");
    let mut resolved =
        String::from("# What /etc/resolv.conf was written with by vz. See resolved.conf(5).\n[Resolve]\n");
    for server in nameservers {
        let _ = writeln!(resolved, "DNS={server}");
    }
    if !search.is_empty() {
        let words: Vec<&str> = search.iter().map(|s| s.as_str()).collect();
        let _ = writeln!(resolved, "Domains={}", words.join(" "));
    }
    let files = [
        // systemd-resolved: resolved.conf(5).
        ("systemd/resolved.conf.d", "vz.conf", &resolved),
        // resolvconf of Debian's own: /sbin/resolvconf, RUN_DIR.
        ("resolvconf/interface", RECORD, &lines),
        // openresolv: /sbin/resolvconf, IFACEDIR.
        ("resolvconf/interfaces", RECORD, &lines),
        // dnsmasq beside either of them reads this instead of resolv.conf, and an openresolv of Debian 13 writes it not.
        ("dnsmasq", "resolv.conf", &lines),
    ];
    let has_systemd = ["/lib/systemd", "/usr/lib/systemd"].iter().any(|dir| matches!(root.dir(dir), Ok(Some(_))));
    for (dir, name, text) in files.into_iter().skip(usize::from(!has_systemd)) {
        if let Ok(dir) = below_run(root, dir) {
            let _ = dir.overwrite(name, text.as_bytes(), false);
        }
    }
}

/// A directory below /run, made where it is missing.
fn below_run(root: &Root<'_>, path: &str) -> Result<Dir, String> {
    let gone = || format!("/run/{path}: it went away");
    let mut dir = root.dir("/run")?.ok_or_else(gone)?;
    for part in path.split('/') {
        match fs::mkdirat(&dir.fd, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(format!("{}: {e}", dir.name(part))),
        }
        dir = root.dir(&dir.name(part))?.ok_or_else(gone)?;
    }
    Ok(dir)
}
