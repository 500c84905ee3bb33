//! Telling a name server inside that its configuration has changed.

use crate::edit::{Done, Due, Outcome};
use std::{fs::File, io::Read, path::Path};
use vz_sys::process;
use vz_types::plan::FileEdit;

/// Where systemd has systemd-resolved, below the container's cgroup.
const RESOLVED: &str = "system.slice/systemd-resolved.service/cgroup.procs";

/// Whether name servers have just been written.
pub fn is_due(due: &[Due], outcome: &Outcome) -> bool {
    let wrote = |(due, done): (&Due, &Done)| matches!(due.edit, FileEdit::Resolver { .. }) && *done == Done::Written;
    due.iter().zip(&outcome.done).any(wrote)
}

/// Has systemd-resolved read its configuration again: on SIGHUP it does so itself (systemd 256 and later), or ends and
/// is started again. Meanwhile programs ask the servers in resolv.conf. Whatever else a tenant puts in that cgroup
/// is his, and gets the signal that he could send it.
pub fn resolver(ns: &Path) {
    let path = ns.join(RESOLVED);
    for pid in members(&path) {
        let Ok(pidfd) = process::pidfd_open(pid) else { continue };
        // Still there, so the descriptor is of the process that was listed.
        if members(&path).contains(&pid) {
            let _ = process::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGHUP);
        }
    }
}

/// The first processes of a cgroup; a service has one, and a tenant may put in as many as he likes.
fn members(path: &Path) -> Vec<i32> {
    let mut text = [0; 64];
    let n = File::open(path).and_then(|mut f| f.read(&mut text)).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    // The last line may be cut.
    text.rsplit_once('\n').map_or("", |(whole, _)| whole).lines().filter_map(|l| l.parse().ok()).collect()
}
